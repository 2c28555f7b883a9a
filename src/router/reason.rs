//! Why a statement goes where it goes.

/// A rule of the set that is in force, by its place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleIndex(pub(super) u16);

impl RuleIndex {
    /// Its place in [`super::RuleSet::names`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// Why a decision was taken: a few words of belay's, or a rule. [`super::RuleSet::explain`] makes a sentence of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// These words.
    Word(&'static str),
    /// This rule says so.
    Rule(RuleIndex),
    /// This rule wants a reader, but this speaks against it.
    NotByRule(RuleIndex, Against),
}

impl Why {
    /// The rule that wanted a reader wants one still, but this has turned out to speak against it.
    pub fn against(self, against: Against) -> Why {
        match self {
            Why::Rule(rule) => Why::NotByRule(rule, against),
            other => other,
        }
    }
}

impl From<&'static str> for Why {
    fn from(word: &'static str) -> Why {
        Why::Word(word)
    }
}

/// What speaks against the reader that a rule wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// A transaction is open.
    Transaction,
    /// `autocommit` is off: the statement would begin one.
    Autocommit,
    /// The session is pinned.
    Pinned,
    /// Reads lock.
    Serializable,
    /// `FOUND_ROWS()` is asked for, and belay does not know it.
    FoundRows,
    /// `LAST_INSERT_ID()` is asked for, and belay does not know it.
    LastInsertId,
    /// A reader did not catch up in time a moment ago.
    Behind,
    /// There is none that can take it.
    NoReader,
    /// The text may name a view that calls a function.
    HiddenCode,
}

impl Against {
    /// A few words for people.
    pub const fn text(self) -> &'static str {
        match self {
            Against::Transaction => "a transaction is open",
            Against::Autocommit => "autocommit is off",
            Against::Pinned => "the session is pinned",
            Against::Serializable => "the isolation level is SERIALIZABLE",
            Against::FoundRows => "only the last statement's server session knows FOUND_ROWS()",
            Against::LastInsertId => "the writer's server session knows LAST_INSERT_ID()",
            Against::Behind => "a reader was behind a moment ago",
            Against::NoReader => "no reader serves that is near enough",
            Against::HiddenCode => "it may run code on a reader that its text does not show",
        }
    }
}
