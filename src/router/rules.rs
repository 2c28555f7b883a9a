//! A rule file: what is written in it, in types. Rules are ordered, those of several files one file after the other; the first that matches a statement decides; a statement that none matches goes
//! to the writer.
//!
//! ```toml
//! [[rule]]
//! name = "reads"
//! why = "reads that change nothing may be served by any node that is near enough"
//! match = { statement = ["read"] }
//! to = "readers"
//! ```

use std::fmt;

use serde::Deserialize;
use toml::Spanned;

/// Rules at the most, in all files together.
pub const RULES_MAX: usize = 256;
/// Bytes of a rule's name at the most: it is shown with every decision.
pub const NAME_BYTES_MAX: usize = 64;
/// Bytes of a rule's `why` at the most.
pub const WHY_BYTES_MAX: usize = 256;

/// A kind of statement, as a rule can name it. What is not certain is [`StatementKind::Other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StatementKind {
    /// A single SELECT, VALUES or TABLE that certainly changes nothing, locks nothing and asks nothing that only one node can answer.
    Read,
    /// START TRANSACTION READ ONLY.
    ReadOnlyTransaction,
    /// Anything else that begins, ends or controls a transaction.
    Transaction,
    /// INSERT, UPDATE, DELETE and the like.
    Write,
    /// Definitions and accounts.
    Definition,
    /// SET and USE.
    Session,
    /// Everything else, and whatever belay can't read for certain.
    Other,
}

impl StatementKind {
    /// All of them, in the order of [`StatementKind::index`].
    pub const ALL: [StatementKind; 7] = [
        StatementKind::Read,
        StatementKind::ReadOnlyTransaction,
        StatementKind::Transaction,
        StatementKind::Write,
        StatementKind::Definition,
        StatementKind::Session,
        StatementKind::Other,
    ];

    /// Its place in [`StatementKind::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The word in a rule file.
    pub const fn label(self) -> &'static str {
        match self {
            StatementKind::Read => "read",
            StatementKind::ReadOnlyTransaction => "read_only_transaction",
            StatementKind::Transaction => "transaction",
            StatementKind::Write => "write",
            StatementKind::Definition => "definition",
            StatementKind::Session => "session",
            StatementKind::Other => "other",
        }
    }

    /// Whether a node that only follows the writer may serve it.
    pub const fn may_be_read_elsewhere(self) -> bool {
        matches!(self, StatementKind::Read | StatementKind::ReadOnlyTransaction)
    }
}

/// Where a rule sends statements.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// To the writer.
    #[default]
    Writer,
    /// To the nodes that follow it; to the writer while none of them can serve.
    Readers,
}

/// What a rule looks at.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// The kinds of statements that it matches.
    pub statement: Spanned<Vec<StatementKind>>,
}

/// One rule.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, which every decision by it shows: lower-case letters, digits, `-` and `_`.
    pub name: Spanned<String>,
    /// Why it is there, for people.
    pub why: Spanned<String>,
    /// What it matches.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Where to.
    pub to: Spanned<Destination>,
}

/// A rule file as it is written.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RuleFile {
    /// The rules in their order.
    #[serde(default, rename = "rule")]
    pub rules: Vec<Spanned<Rule>>,
}

/// What is wrong with a rule file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleFault {
    /// Which of the files, counted from 0.
    pub file: usize,
    /// The line, counted from 1.
    pub line: usize,
    /// The rule's name, where it is known.
    pub rule: Option<String>,
    /// What is wrong.
    pub wrong: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for RuleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: ", self.line)?;
        if let Some(rule) = &self.rule {
            write!(f, "rule '{rule}': ")?;
        }
        write!(f, "{} ({})", self.wrong, self.remedy)
    }
}

/// The line of a byte, counted from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}

/// Reads one of several rule files. A file that is no TOML, or has a key or a word that no rule has, is one fault.
pub fn parse(file: usize, text: &str) -> Result<RuleFile, RuleFault> {
    toml::from_str(text).map_err(|error: toml::de::Error| RuleFault {
        file,
        line: error.span().map_or(1, |span| line_of(text, span.start)),
        rule: None,
        wrong: error.message().lines().next().unwrap_or("not a rule file").to_owned(),
        remedy: "compare it with docs/routing.md".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_file_is_read_into_types() {
        let text = "[[rule]]\nname = \"a\"\nwhy = \"b\"\nmatch.statement = [\"read\", \"read_only_transaction\"]\nto = \"readers\"\n";
        let file = parse(0, text).unwrap();
        let rule = file.rules[0].get_ref();
        assert_eq!((rule.name.get_ref().as_str(), rule.why.get_ref().as_str()), ("a", "b"));
        assert_eq!(rule.matches.statement.get_ref()[..], [StatementKind::Read, StatementKind::ReadOnlyTransaction]);
        assert_eq!(*rule.to.get_ref(), Destination::Readers);
        assert!(parse(0, "").unwrap().rules.is_empty());
    }

    #[test]
    fn what_is_no_rule_is_a_fault_with_its_line() {
        let rule = "[[rule]]\nname = \"a\"\nwhy = \"b\"\nmatch.statement = [\"read\"]\nto = \"readers\"\n";
        for (from, to, line, says) in [
            ("\"readers\"", "\"reader\"", 5, "reader"),
            ("\"read\"]", "\"red\"]", 4, "red"),
            ("why", "reason", 3, "reason"),
            ("name = \"a\"\n", "", 1, "name"),
            ("match.statement = [\"read\"]\n", "", 1, "match"),
            ("[[rule]]", "[[rul]]", 1, "rul"),
            ("\"b\"", "5", 3, "string"),
            ("\"a\"", "\"a", 2, ""),
        ] {
            let fault = parse(0, &rule.replacen(from, to, 1)).unwrap_err();
            assert_eq!(fault.line, line, "{fault}");
            assert!(fault.wrong.contains(says), "{fault}");
        }
    }

    #[test]
    fn kinds_stand_in_their_order_under_their_words() {
        for (n, kind) in StatementKind::ALL.into_iter().enumerate() {
            assert_eq!(n, kind.index());
            let text = format!("[[rule]]\nname='a'\nwhy='b'\nto='writer'\nmatch.statement=['{}']", kind.label());
            assert_eq!(parse(0, &text).unwrap().rules[0].get_ref().matches.statement.get_ref()[..], [kind]);
        }
    }
}
