//! What failed, when, and what may be done about it: one total, pure function.
//!
//! Today nothing that was sent is ever sent again; a statement that was not sent goes to another node or waits for one. `docs/failures.md` is this
//! table with its tests.

use crate::error::Stage;
use crate::session::pins::Pins;
use crate::session::transaction::Transaction;

/// What was lost and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// How far the statement had come.
    pub stage: Stage,
    /// The transaction of the session before the statement.
    pub transaction: Transaction,
    /// What pinned the session.
    pub pins: Pins,
    /// Whether any byte of the answer has reached the client.
    pub answer_begun: bool,
}

/// What may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was sent and nothing is lost: another server session, or wait for one.
    TryAnother,
    /// Nothing was lost that the client knows of.
    Forget,
    /// State that pinned the session died with the server.
    StateLost,
    /// The transaction is gone: the server rolled back, or will.
    TransactionLost,
    /// The statement was sent and not answered.
    OutcomeUnknown,
    /// Part of the answer has reached the client: the rest can't be had.
    AnswerCut,
}

impl Decision {
    /// The words for /sessions.
    pub const fn label(self) -> &'static str {
        match self {
            Decision::TryAnother => "try another server session",
            Decision::Forget => "nothing lost",
            Decision::StateLost => "state lost",
            Decision::TransactionLost => "transaction lost",
            Decision::OutcomeUnknown => "outcome unknown",
            Decision::AnswerCut => "answer cut",
        }
    }
}

/// Decides. Rows are matched from the top, as in the table of `docs/failures.md`.
pub fn decide(failure: &Failure) -> Decision {
    let lasting = failure.pins.is_lasting();
    match failure.stage {
        Stage::Send | Stage::Answer if failure.answer_begun => Decision::AnswerCut,
        Stage::Send | Stage::Answer => Decision::OutcomeUnknown,
        _ if lasting => Decision::StateLost,
        _ if failure.transaction != Transaction::Idle => Decision::TransactionLost,
        Stage::Idle => Decision::Forget,
        Stage::Acquire | Stage::Dial | Stage::ServerLogin | Stage::Replay | Stage::Clean | Stage::ClientLogin => {
            Decision::TryAnother
        }
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

    fn all() -> impl Iterator<Item = Failure> {
        STAGES.into_iter().flat_map(|stage| {
            [Transaction::Idle, Transaction::Open, Transaction::Lost].into_iter().flat_map(move |transaction| {
                [false, true].into_iter().flat_map(move |answer_begun| {
                    std::iter::once(None).chain(REASONS.into_iter().map(Some)).map(move |reason| {
                        let mut pins = Pins::NONE;
                        if let Some(reason) = reason {
                            pins.insert(reason);
                        }
                        Failure { stage, transaction, pins, answer_begun }
                    })
                })
            })
        })
    }

    #[test]
    fn what_was_sent_is_never_sent_again() {
        for failure in all().filter(|f| matches!(f.stage, Stage::Send | Stage::Answer)) {
            assert!(matches!(decide(&failure), Decision::OutcomeUnknown | Decision::AnswerCut), "{failure:?}");
        }
    }

    #[test]
    fn nothing_is_forgotten_inside_a_transaction_or_under_a_lasting_pin() {
        for failure in all() {
            if matches!(decide(&failure), Decision::TryAnother | Decision::Forget) {
                assert_eq!(failure.transaction, Transaction::Idle, "{failure:?}");
                assert!(!failure.pins.is_lasting(), "{failure:?}");
            }
        }
    }

    #[test]
    fn diagnostics_alone_keep_nothing_from_being_rebound() {
        let mut pins = Pins::NONE;
        pins.insert(PinReason::Diagnostics);
        let failure = Failure { stage: Stage::Idle, transaction: Transaction::Idle, pins, answer_begun: false };
        assert_eq!(decide(&failure), Decision::Forget);
    }
}
