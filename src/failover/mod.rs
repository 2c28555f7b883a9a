//! What failed, when, and what may be done about it: one total, pure function. `docs/failures.md` is this table with its tests.
//!
//! What was sent is sent again only if running it twice is certainly harmless ([`repeat`]), and only after the node is known to be gone: a connection
//! that was lost while its node lives may have been killed by somebody who wanted the statement to end.

pub mod hidden;
pub mod refusal;
pub mod repeat;

pub use refusal::{Meaning, Verdict, confirm, may_be_refusal, meaning};
pub use repeat::{Extent, Statement, extent, statement};

use crate::error::Stage;
use crate::session::pins::Pins;
use crate::session::transaction::Transaction;

/// How the loss, or the refusal, was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The node is gone: down, restarted, or out of service by its own words.
    NodeGone,
    /// The connection was lost, and nothing else is known: the node lives, or was not asked.
    ConnectionLost,
    /// The node answered that it takes no such statement, and its own state confirms it. It may have taken a part: see [`Extent`].
    Refused,
}

/// What was lost and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far the statement had come.
    pub stage: Stage,
    /// How it was seen.
    pub cause: Cause,
    /// What running the statement twice would do.
    pub statement: Statement,
    /// What of it may have been done although it was refused.
    pub extent: Extent,
    /// The transaction of the session before the statement.
    pub transaction: Transaction,
    /// `autocommit` was on: a statement outside a transaction is one of its own.
    pub autocommit: bool,
    /// What pinned the session.
    pub pins: Pins,
    /// Whether any byte of the answer has reached the client.
    pub answer_begun: bool,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was done and nothing is lost: another server session, or wait for one.
    TryAnother,
    /// Nothing was lost that the client knows of.
    Forget,
    /// The statement may have run, and may run again.
    RunAgain,
    /// State that pinned the session died with the server.
    StateLost,
    /// The transaction is gone: the server rolled back, or will; it was not committed.
    TransactionLost,
    /// The transaction is still open on a node that refuses it: roll it back, then it is lost.
    RollBack,
    /// The statement was sent and not answered.
    OutcomeUnknown,
    /// A harmless statement was interrupted by somebody who may have wanted it to end.
    Interrupted,
    /// Part of the answer has reached the client: the rest can't be had.
    AnswerCut,
    /// The node's own error is the answer.
    PassOn,
}

impl Decision {
    /// The words for /sessions.
    pub const fn label(self) -> &'static str {
        match self {
            Decision::TryAnother => "try another server session",
            Decision::Forget => "nothing lost",
            Decision::RunAgain => "run the read again",
            Decision::StateLost => "state lost",
            Decision::TransactionLost => "transaction lost",
            Decision::RollBack => "roll back",
            Decision::OutcomeUnknown => "outcome unknown",
            Decision::Interrupted => "interrupted",
            Decision::AnswerCut => "answer cut",
            Decision::PassOn => "pass the node's error on",
        }
    }
}

/// Decides. Rows are matched from the top, as in the table of `docs/failures.md`.
pub fn decide(failure: &Failure) -> Decision {
    let lasting = failure.pins.is_lasting();
    let in_transaction = failure.transaction != Transaction::Idle;
    match failure.stage {
        Stage::Send | Stage::Answer if failure.answer_begun => Decision::AnswerCut,
        Stage::Send | Stage::Answer if failure.cause == Cause::Refused => match failure.extent {
            // What was done of it stays, or was committed already: the node's error says as much as it would on one server.
            Extent::Part => Decision::PassOn,
            Extent::Nothing if in_transaction => Decision::RollBack,
            // What pins it is on this node and nowhere else, and was not lost.
            Extent::Nothing if lasting => Decision::PassOn,
            Extent::Nothing => Decision::TryAnother,
        },
        Stage::Send | Stage::Answer => sent_and_lost(failure, in_transaction, lasting),
        _ if lasting => Decision::StateLost,
        _ if in_transaction => Decision::TransactionLost,
        Stage::Idle => Decision::Forget,
        Stage::Acquire | Stage::Dial | Stage::ServerLogin | Stage::Replay | Stage::Clean | Stage::ClientLogin => {
            Decision::TryAnother
        }
    }
}

/// The statement was sent, no byte of its answer has reached the client, and the server session is gone.
fn sent_and_lost(failure: &Failure, in_transaction: bool, lasting: bool) -> Decision {
    match failure.statement {
        Statement::MayCommit => Decision::OutcomeUnknown,
        // It commits the transaction before it.
        Statement::Begins if in_transaction || !failure.autocommit => Decision::OutcomeUnknown,
        // Without its COMMIT nothing of a transaction is ever kept, however the loss was seen.
        Statement::Ordinary | Statement::Repeatable if in_transaction || !failure.autocommit => {
            Decision::TransactionLost
        }
        Statement::Ordinary => Decision::OutcomeUnknown,
        Statement::Repeatable | Statement::Begins if lasting => Decision::StateLost,
        Statement::Repeatable | Statement::Begins if failure.cause == Cause::NodeGone => Decision::RunAgain,
        Statement::Repeatable | Statement::Begins => Decision::Interrupted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::pins::{PinReason, REASONS};

    const STAGES: [Stage; 9] = [
        Stage::ClientLogin,
        Stage::Acquire,
        Stage::Dial,
        Stage::ServerLogin,
        Stage::Replay,
        Stage::Send,
        Stage::Answer,
        Stage::Idle,
        Stage::Clean,
    ];
    const CAUSES: [Cause; 3] = [Cause::NodeGone, Cause::ConnectionLost, Cause::Refused];
    const STATEMENTS: [Statement; 4] =
        [Statement::Repeatable, Statement::Begins, Statement::Ordinary, Statement::MayCommit];
    const TRANSACTIONS: [Transaction; 3] = [Transaction::Idle, Transaction::Open, Transaction::Lost];

    fn all_pins() -> impl Iterator<Item = Pins> {
        std::iter::once(Pins::NONE).chain(REASONS.into_iter().map(|reason| {
            let mut pins = Pins::NONE;
            pins.insert(reason);
            pins
        }))
    }

    /// Every combination there is.
    fn all() -> Vec<Failure> {
        let mut all = Vec::new();
        for (stage, cause) in STAGES.into_iter().flat_map(|s| CAUSES.map(|c| (s, c))) {
            for (statement, transaction) in STATEMENTS.into_iter().flat_map(|s| TRANSACTIONS.map(|t| (s, t))) {
                for (autocommit, answer_begun) in [(false, false), (false, true), (true, false), (true, true)] {
                    for (pins, extent) in all_pins().flat_map(|p| [(p, Extent::Nothing), (p, Extent::Part)]) {
                        let more =
                            Failure { stage, cause, statement, extent, transaction, autocommit, pins, answer_begun };
                        all.push(more);
                    }
                }
            }
        }
        all
    }

    fn sent(failure: &Failure) -> bool {
        matches!(failure.stage, Stage::Send | Stage::Answer)
    }

    #[test]
    fn what_was_sent_is_sent_again_only_where_that_is_harmless() {
        for failure in all().into_iter().filter(sent) {
            let decision = decide(&failure);
            if decision == Decision::RunAgain {
                assert!(matches!(failure.statement, Statement::Repeatable | Statement::Begins), "{failure:?}");
                assert_eq!(failure.cause, Cause::NodeGone, "somebody may have killed it: {failure:?}");
                assert_eq!(failure.transaction, Transaction::Idle, "{failure:?}");
                assert!(failure.autocommit && !failure.answer_begun && !failure.pins.is_lasting(), "{failure:?}");
            }
            if decision == Decision::TryAnother {
                assert_eq!(failure.cause, Cause::Refused, "{failure:?}");
                assert_eq!(failure.extent, Extent::Nothing, "a part may have been done: {failure:?}");
                assert!(!failure.answer_begun && failure.transaction == Transaction::Idle, "{failure:?}");
                assert!(!failure.pins.is_lasting(), "{failure:?}");
            }
        }
    }

    #[test]
    fn whatever_may_have_been_committed_is_never_called_lost() {
        for failure in all().into_iter().filter(|f| sent(f) && f.cause != Cause::Refused && !f.answer_begun) {
            let single_write = failure.statement == Statement::Ordinary
                && failure.transaction == Transaction::Idle
                && failure.autocommit;
            let begins_anew = failure.statement == Statement::Begins
                && (failure.transaction != Transaction::Idle || !failure.autocommit);
            if failure.statement == Statement::MayCommit || single_write || begins_anew {
                assert_eq!(decide(&failure), Decision::OutcomeUnknown, "{failure:?}");
            }
        }
    }

    #[test]
    fn rows_that_the_client_has_are_never_followed_by_others() {
        for failure in all().into_iter().filter(|f| sent(f) && f.answer_begun) {
            assert_eq!(decide(&failure), Decision::AnswerCut, "{failure:?}");
        }
    }

    #[test]
    fn nothing_is_forgotten_inside_a_transaction_or_under_a_lasting_pin() {
        for failure in all() {
            if matches!(decide(&failure), Decision::TryAnother | Decision::Forget | Decision::RunAgain) {
                assert_eq!(failure.transaction, Transaction::Idle, "{failure:?}");
                assert!(!failure.pins.is_lasting(), "{failure:?}");
            }
        }
    }

    #[test]
    fn only_a_node_that_refuses_is_asked_to_roll_back_or_heard_out() {
        for failure in all() {
            if matches!(decide(&failure), Decision::RollBack | Decision::PassOn) {
                assert!(failure.cause == Cause::Refused && sent(&failure), "{failure:?}");
            }
        }
    }

    #[test]
    fn what_was_refused_in_part_is_the_node_s_to_tell() {
        let refused = |f: &Failure| sent(f) && f.cause == Cause::Refused && !f.answer_begun;
        for failure in all().into_iter().filter(|f| refused(f) && f.extent == Extent::Part) {
            assert_eq!(decide(&failure), Decision::PassOn, "neither again, nor called lost: {failure:?}");
        }
    }

    #[test]
    fn diagnostics_alone_keep_nothing_from_being_rebound() {
        let mut pins = Pins::NONE;
        pins.insert(PinReason::Diagnostics);
        let failure = Failure {
            stage: Stage::Idle,
            cause: Cause::ConnectionLost,
            statement: Statement::Repeatable,
            extent: Extent::Nothing,
            transaction: Transaction::Idle,
            autocommit: true,
            pins,
            answer_begun: false,
        };
        assert_eq!(decide(&failure), Decision::Forget);
    }
}
