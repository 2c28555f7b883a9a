//! What the errors of a node say about the node rather than about the statement. Numbers overlap between families, so each is read in its own.
//!
//! Observed on MariaDB 10.11 (Galera and read_only), MySQL 9.7 (super_read_only) and OceanBase; see the scenarios.

use crate::protocol::ErrorReply;
use crate::protocol::mysql::flavor::Flavor;
use crate::topology::NodeState;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It is about the statement: the client's to hear.
    OfStatement,
    /// The node takes no statements now; this one was not executed.
    NotReady,
    /// The node takes no writes; this one was not executed.
    ReadOnly,
    /// The server is shutting down, or somebody killed the connection: MySQL says both by one number. The statement may have run.
    ShuttingDown,
}

/// What the node's own state makes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is an answer like any other.
    Answer,
    /// The node refused the statement before doing anything.
    Refused,
    /// The node is going, and its server session with it.
    Gone,
}

const ER_UNKNOWN_COM_ERROR: u16 = 1047;
const ER_SERVER_SHUTDOWN: u16 = 1053;
const ER_OPTION_PREVENTS_STATEMENT: u16 = 1290;
const ER_READ_ONLY_MODE: u16 = 1836;
/// OceanBase: 'standby tenant is read only'.
const OB_STANDBY_READ_ONLY: u16 = 4688;

/// Whether an error of this number has to be looked at more closely. Cheap: asked of every error that begins an answer.
pub fn may_be_refusal(code: u16) -> bool {
    matches!(
        code,
        ER_UNKNOWN_COM_ERROR
            | ER_SERVER_SHUTDOWN
            | ER_OPTION_PREVENTS_STATEMENT
            | ER_READ_ONLY_MODE
            | OB_STANDBY_READ_ONLY
    )
}

/// Reads an error of a node of this family.
pub fn meaning(flavor: Flavor, error: &ErrorReply) -> Meaning {
    let says = |word: &str| error.message.to_ascii_lowercase().contains(word);
    match (flavor, error.code) {
        // On servers without Galera the same number is an unknown command.
        (Flavor::MariaDb | Flavor::MySql, ER_UNKNOWN_COM_ERROR) if says("wsrep has not yet prepared node") => {
            Meaning::NotReady
        }
        (Flavor::MariaDb | Flavor::MySql, ER_SERVER_SHUTDOWN) => Meaning::ShuttingDown,
        // The same number is used for every option that forbids something.
        (Flavor::MariaDb | Flavor::MySql, ER_OPTION_PREVENTS_STATEMENT) if says("read-only") || says("read_only") => {
            Meaning::ReadOnly
        }
        (Flavor::MariaDb | Flavor::MySql, ER_READ_ONLY_MODE) => Meaning::ReadOnly,
        (Flavor::OceanBase, OB_STANDBY_READ_ONLY) => Meaning::ReadOnly,
        _ => Meaning::OfStatement,
    }
}

/// Confirms a meaning by what a probe that began after the error found; `None`: no probe ended in time.
pub fn confirm(meaning: Meaning, state: Option<&NodeState>) -> Verdict {
    match (meaning, state) {
        // Nothing but Galera says this, and it says it before anything else. The node may be well again by now.
        (Meaning::NotReady, _) => Verdict::Refused,
        (Meaning::ReadOnly, Some(state)) if !state.can_write() => Verdict::Refused,
        (Meaning::ShuttingDown, Some(state)) if !state.can_read() => Verdict::Gone,
        _ => Verdict::Answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> ErrorReply {
        ErrorReply::new(code, b"HY000", message.to_owned())
    }

    #[test]
    fn numbers_are_read_in_their_family_and_with_their_words() {
        let wsrep = error(1047, "WSREP has not yet prepared node for application use");
        assert_eq!(meaning(Flavor::MariaDb, &wsrep), Meaning::NotReady);
        assert_eq!(meaning(Flavor::MySql, &error(1047, "Unknown command")), Meaning::OfStatement);
        let read_only = "The MariaDB server is running with the --read-only option so it cannot execute this statement";
        assert_eq!(meaning(Flavor::MariaDb, &error(1290, read_only)), Meaning::ReadOnly);
        let file =
            "The MariaDB server is running with the --secure-file-priv option so it cannot execute this statement";
        assert_eq!(meaning(Flavor::MariaDb, &error(1290, file)), Meaning::OfStatement);
        let standby = error(4688, "standby tenant is read only");
        assert_eq!(meaning(Flavor::OceanBase, &standby), Meaning::ReadOnly);
        assert_eq!(meaning(Flavor::MySql, &standby), Meaning::OfStatement);
        for code in [1205, 1213, 1317, 1927, 1969, 3024, 1792] {
            assert!(!may_be_refusal(code));
        }
    }

    #[test]
    fn only_the_node_s_own_state_confirms() {
        let serving = NodeState::Serving;
        let (read_only, down) = (NodeState::read_only("x"), NodeState::down("x"));
        assert_eq!(confirm(Meaning::ReadOnly, Some(&serving)), Verdict::Answer, "an account or option of its own");
        assert_eq!(confirm(Meaning::ReadOnly, None), Verdict::Answer);
        assert_eq!(confirm(Meaning::ReadOnly, Some(&read_only)), Verdict::Refused);
        assert_eq!(confirm(Meaning::ShuttingDown, Some(&serving)), Verdict::Answer, "it was a KILL");
        assert_eq!(confirm(Meaning::ShuttingDown, Some(&down)), Verdict::Gone);
        assert_eq!(confirm(Meaning::OfStatement, Some(&down)), Verdict::Answer);
    }
}
