//! What `SET TRANSACTION` (or `SET @@transaction_isolation = …` without a scope) has set for the next transaction, and for that one only.
//!
//! The servers say it themselves (`session_track_transaction_info`): after every change the SQL that sets it again, empty once it was used up.
//! What uses it up differs (SHOW TABLES does on MySQL, and does not on MariaDB), so belay goes by their word alone.
//!
//! ```text
//!             reported                         error: servers do not say
//!   Nothing ───────────▶ Set ◀───────────────▶ Uncertain
//!      ▲                  │      reported           │
//!      └──────────────────┴─────────────────────────┘
//!        reported empty, or a transaction is open
//! ```

use bytes::Bytes;

/// An isolation level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the keywords.
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

const ISOLATIONS: [(Isolation, &str); 4] = [
    (Isolation::ReadUncommitted, "ISOLATION LEVEL READ UNCOMMITTED"),
    (Isolation::ReadCommitted, "ISOLATION LEVEL READ COMMITTED"),
    (Isolation::RepeatableRead, "ISOLATION LEVEL REPEATABLE READ"),
    (Isolation::Serializable, "ISOLATION LEVEL SERIALIZABLE"),
];

/// Whether a transaction may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the keywords.
pub enum Access {
    ReadOnly,
    ReadWrite,
}

const ACCESSES: [(Access, &str); 2] = [(Access::ReadOnly, "READ ONLY"), (Access::ReadWrite, "READ WRITE")];

/// The characteristics that were set; `None`: that of the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct NextTransaction {
    /// The isolation level.
    pub isolation: Option<Isolation>,
    /// The access mode.
    pub access: Option<Access>,
}

impl NextTransaction {
    /// Reads what servers report outside a transaction: `SET TRANSACTION ISOLATION LEVEL …; SET TRANSACTION READ ONLY;`, either part or none. `None`:
    /// it is something else.
    pub fn read(reported: &[u8]) -> Option<NextTransaction> {
        let text = std::str::from_utf8(reported).ok()?;
        let mut next = NextTransaction::default();
        for said in text.split(';').map(str::trim).filter(|said| !said.is_empty()) {
            let said = said.strip_prefix("SET TRANSACTION ")?;
            if let Some((isolation, _)) = ISOLATIONS.iter().find(|(_, words)| *words == said) {
                next.isolation = Some(*isolation);
            } else {
                next.access = Some(ACCESSES.iter().find(|(_, words)| *words == said)?.0);
            }
        }
        Some(next)
    }

    /// Whether nothing was set.
    pub fn is_empty(self) -> bool {
        self == NextTransaction::default()
    }

    /// The statement that sets it again; of nothing there is none.
    pub fn statement(self) -> Option<Bytes> {
        let isolation = ISOLATIONS.iter().find(|(isolation, _)| Some(*isolation) == self.isolation);
        let access = ACCESSES.iter().find(|(access, _)| Some(*access) == self.access);
        let words: Vec<&str> =
            isolation.map(|(_, words)| *words).into_iter().chain(access.map(|(_, words)| *words)).collect();
        (!words.is_empty()).then(|| Bytes::from(format!("SET TRANSACTION {}", words.join(", "))))
    }
}

/// What a server said of the characteristics, with one answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Characteristics {
    /// These are set, or none. Only outside a transaction does it speak of the next one.
    Next(NextTransaction),
    /// Something that belay does not read. A transaction that is open has such.
    Unread,
}

impl Characteristics {
    /// Reads a report.
    pub fn read(reported: &[u8]) -> Characteristics {
        NextTransaction::read(reported).map_or(Characteristics::Unread, Characteristics::Next)
    }
}

/// What waits for the next transaction, of a client session or on a server session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pending {
    /// Nothing.
    #[default]
    Nothing,
    /// This.
    Set(NextTransaction),
    /// Something was set, and whether it was used up, or what it is, is not known.
    Uncertain,
}

/// What an answer tells of what is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// What the server reported.
    pub reported: Option<Characteristics>,
    /// The answer ended with an error.
    pub error: bool,
    /// A transaction is open after it.
    pub in_transaction: bool,
    /// The text sets something for the next transaction.
    pub sets: bool,
}

impl Pending {
    /// What is pending after an answer. An error brings no report, and may have used it up: a SELECT that fails on the way rolls back, and MariaDB 10.11
    /// does not report that later either.
    pub fn after(self, told: &Told) -> Pending {
        let now = match told.reported {
            _ if told.in_transaction => return Pending::Nothing,
            Some(Characteristics::Next(next)) if next.is_empty() => Pending::Nothing,
            Some(Characteristics::Next(next)) => Pending::Set(next),
            Some(Characteristics::Unread) => Pending::Uncertain,
            // A server that reports nothing of what was set will not report its end.
            None if told.sets && !told.error && self == Pending::Nothing => Pending::Uncertain,
            None => self,
        };
        if told.error && now != Pending::Nothing { Pending::Uncertain } else { now }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_next() -> impl Strategy<Value = NextTransaction> {
        let isolation = proptest::option::of((0..ISOLATIONS.len()).prop_map(|n| ISOLATIONS[n].0));
        let access = proptest::option::of((0..ACCESSES.len()).prop_map(|n| ACCESSES[n].0));
        (isolation, access).prop_map(|(isolation, access)| NextTransaction { isolation, access })
    }

    fn reported(text: &str) -> Told {
        Told { reported: Some(Characteristics::read(text.as_bytes())), ..Told::default() }
    }

    /// As MariaDB 10.11 and MySQL 9.7 write it (observed).
    fn as_servers_say(next: NextTransaction) -> String {
        let isolation = ISOLATIONS.iter().filter(|(isolation, _)| Some(*isolation) == next.isolation).map(|(_, w)| *w);
        let access = ACCESSES.iter().filter(|(access, _)| Some(*access) == next.access).map(|(_, w)| *w);
        isolation.chain(access).map(|words| format!("SET TRANSACTION {words};")).collect::<Vec<_>>().join(" ")
    }

    proptest! {
        #[test]
        fn what_servers_report_is_read_and_said_again(next in any_next()) {
            prop_assert_eq!(NextTransaction::read(as_servers_say(next).as_bytes()), Some(next));
            prop_assert_eq!(next.statement().is_none(), next.is_empty());
        }

        #[test]
        fn nothing_else_is_read(text in "SET TRANSACTION [A-Z ]{0,12};|[A-Z; ]{1,20}|START TRANSACTION READ ONLY;") {
            if let Some(next) = NextTransaction::read(text.as_bytes()) {
                prop_assert!(next.is_empty() || text.contains("READ ONLY") || text.contains("READ WRITE"));
            }
        }

        #[test]
        fn an_open_transaction_leaves_nothing_for_the_next(next in any_next(), error: bool, sets: bool) {
            for before in [Pending::Nothing, Pending::Set(next), Pending::Uncertain] {
                for reported in [None, Some(Characteristics::Next(next)), Some(Characteristics::Unread)] {
                    let told = Told { reported, error, in_transaction: true, sets };
                    prop_assert_eq!(before.after(&told), Pending::Nothing);
                }
            }
        }

        #[test]
        fn an_error_leaves_nothing_that_would_be_trusted(next in any_next()) {
            let failed = Told { error: true, ..Told::default() };
            for before in [Pending::Set(next), Pending::Uncertain] {
                prop_assert_eq!(before.after(&failed), Pending::Uncertain);
            }
            prop_assert_eq!(Pending::Nothing.after(&Told { sets: true, ..failed }), Pending::Nothing);
        }
    }

    #[test]
    fn the_server_s_word_decides() {
        let serializable = NextTransaction { isolation: Some(Isolation::Serializable), access: None };
        let set = Pending::Nothing.after(&reported("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE;"));
        assert_eq!(set, Pending::Set(serializable));
        assert_eq!(set.after(&Told::default()), set);
        assert_eq!(set.after(&Told { sets: true, ..Told::default() }), set, "the same again is not reported");
        assert_eq!(set.after(&reported("")), Pending::Nothing);
        assert_eq!(Pending::Uncertain.after(&Told::default()), Pending::Uncertain);
        assert_eq!(Pending::Uncertain.after(&reported("")), Pending::Nothing);
        assert_eq!(set.after(&reported("SOMETHING NEW;")), Pending::Uncertain);
        let silent = Told { sets: true, ..Told::default() };
        assert_eq!(Pending::Nothing.after(&silent), Pending::Uncertain, "a server that reports nothing");
    }

    #[test]
    fn both_are_said_in_one_statement() {
        let both = NextTransaction { isolation: Some(Isolation::ReadCommitted), access: Some(Access::ReadOnly) };
        assert_eq!(both.statement().unwrap(), "SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY");
        assert_eq!(NextTransaction::default().statement(), None);
    }
}
