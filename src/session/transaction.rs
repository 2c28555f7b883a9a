//! Whether a transaction is open. The status flags of the server decide; nothing is inferred from text.
//!
//! ```text
//!            IN_TRANS set                       IN_TRANS clear
//!   Idle ───────────────────▶ Open ────────────────────────────▶ Idle
//!                              │ server lost
//!                              ▼
//!                             Lost ── the client is told once ──▶ Idle
//! ```

use crate::protocol::mysql::capability::StatusFlags;
use crate::sql::{Effects, Facts, StatementCount, TransactionControl};

/// The transaction of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    /// None is open.
    #[default]
    Idle,
    /// One is open on the bound server session.
    Open,
    /// The server session it was open on was lost while the client idled; the client does not know yet.
    Lost,
}

/// What a transaction that is lost may have left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remains {
    /// Nothing: it was not committed.
    #[default]
    Nothing,
    /// Code that nobody here reads has run in it, and may have committed what was done before.
    Unknown,
}

impl Remains {
    /// Of the transaction that is open after a statement; an error carries no status flags, so it may be open by belief only.
    #[must_use]
    pub fn after(self, facts: &Facts, open: bool) -> Remains {
        let hidden = Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE | Effects::CUT_SHORT;
        let one = facts.certain && facts.statements == StatementCount::One && !facts.effects.intersects(hidden);
        match facts.txn {
            _ if !open => Remains::Nothing,
            _ if facts.statements == StatementCount::Empty && facts.certain => self,
            _ if !one => Remains::Unknown,
            TransactionControl::Begin { .. }
            | TransactionControl::Commit { .. }
            | TransactionControl::Rollback { .. } => Remains::Nothing,
            _ => self,
        }
    }
}

impl Transaction {
    /// After an answer with these status flags.
    pub fn after(status: StatusFlags) -> Transaction {
        if status.intersects(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY) {
            Transaction::Open
        } else {
            Transaction::Idle
        }
    }

    /// The word for /sessions.
    pub const fn label(self) -> &'static str {
        match self {
            Transaction::Idle => "none",
            Transaction::Open => "open",
            Transaction::Lost => "lost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{LexContext, analyse};

    #[test]
    fn what_ran_code_may_have_committed_until_another_transaction_begins() {
        let cx = LexContext { multi_statements: true, ..LexContext::default() };
        let after = |statements: &[&str]| {
            let open = |remains: Remains, sql: &&str| remains.after(&analyse(sql.as_bytes(), &cx), true);
            statements.iter().fold(Remains::Nothing, open)
        };
        assert_eq!(after(&["BEGIN", "INSERT INTO t VALUES (1)", "SELECT 1"]), Remains::Nothing);
        for sql in ["CALL p()", "SELECT f(1)", "EXECUTE p", "INSERT INTO t VALUES (1); COMMIT; BEGIN", "gibberish"] {
            assert_eq!(after(&["BEGIN", sql]), Remains::Unknown, "{sql}");
            assert_eq!(after(&["BEGIN", sql, "INSERT INTO t VALUES (1)"]), Remains::Unknown, "{sql}");
            assert_eq!(after(&["BEGIN", sql, "COMMIT AND CHAIN", "SELECT 1"]), Remains::Nothing, "{sql}");
            assert_eq!(after(&["BEGIN", sql, "BEGIN"]), Remains::Nothing, "{sql}");
            assert_eq!(Remains::Unknown.after(&analyse(sql.as_bytes(), &cx), false), Remains::Nothing, "{sql}");
        }
        assert_eq!(Remains::Unknown.after(&Facts::nothing(), true), Remains::Unknown);
    }
}
