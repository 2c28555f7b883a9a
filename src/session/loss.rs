//! What died with a server session while no answer was due to tell it in.
//!
//! A loss has one holder, and leaves it in two ways only: it is told in the answer to a request, or something makes it void that the client itself
//! asked for (a reset, a change of user; ROLLBACK for a transaction). Whatever else happens to the session in between, it stays.

use super::pins::Pins;
use super::transaction::Remains;

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The name of the node it was on.
    pub node: std::sync::Arc<str>,
    /// An open transaction, and what it may have left behind.
    pub transaction: Option<Remains>,
    /// Other state that lived there alone.
    pub state: Pins,
}

/// What the client does not know yet.
#[derive(Debug, Default)]
pub struct Untold {
    loss: Option<Loss>,
}

impl Untold {
    /// Something was lost; what was lost before stays to be told, too, and is not laid at another node.
    pub fn add(&mut self, loss: Loss) {
        self.loss = Some(match self.loss.take() {
            None => loss,
            Some(before) => Loss {
                node: before.node,
                transaction: before.transaction.max(loss.transaction),
                state: before.state.union(loss.state),
            },
        });
    }

    /// Whether there is anything to tell.
    pub fn is_some(&self) -> bool {
        self.loss.is_some()
    }

    /// Whether a transaction is among it.
    pub fn transaction(&self) -> bool {
        self.loss.as_ref().is_some_and(|loss| loss.transaction.is_some())
    }

    /// The transaction among it.
    pub fn transaction_lost(&self) -> Option<Remains> {
        self.loss.as_ref().and_then(|loss| loss.transaction)
    }

    /// Takes it out to be told in the answer that is due now.
    #[must_use]
    pub fn tell(&mut self) -> Option<Loss> {
        self.loss.take()
    }

    /// The client rolls back: that the transaction is gone is what it wants. All else stays to be told.
    pub fn roll_back(&mut self) {
        self.loss =
            self.loss.take().filter(|loss| !loss.state.is_empty()).map(|loss| Loss { transaction: None, ..loss });
    }

    /// The client starts over: nothing of what was lost is anything it still believes in.
    pub fn void(&mut self) {
        self.loss = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::pins::{PinReason, REASONS};

    fn loss(transaction: bool, reasons: &[PinReason]) -> Loss {
        let mut state = Pins::NONE;
        reasons.iter().for_each(|reason| {
            state.insert(*reason);
        });
        Loss {
            node: if transaction { "n" } else { "m" }.into(),
            transaction: transaction.then_some(Remains::Nothing),
            state,
        }
    }

    #[test]
    fn a_second_loss_takes_nothing_of_the_first_away() {
        for first in [loss(true, &[]), loss(false, &[PinReason::Xa]), loss(true, &REASONS)] {
            for second in [loss(true, &[PinReason::Cursor]), loss(false, &[]), loss(false, &[PinReason::LongData])] {
                let mut untold = Untold::default();
                untold.add(first.clone());
                untold.add(second.clone());
                let told = untold.tell().unwrap();
                assert_eq!(told.node, first.node, "the first one is where it began");
                assert_eq!(told.transaction, first.transaction.max(second.transaction));
                assert_eq!(told.state, first.state.union(second.state));
                assert!(!untold.is_some());
            }
        }
    }

    #[test]
    fn a_rollback_is_no_answer_to_the_loss_of_other_state() {
        let mut untold = Untold::default();
        untold.add(loss(true, &[PinReason::TemporaryTable]));
        untold.roll_back();
        assert!(untold.is_some() && !untold.transaction());
        let told = untold.tell().unwrap();
        assert_eq!((told.transaction, told.state), (None, loss(false, &[PinReason::TemporaryTable]).state));
        untold.add(loss(true, &[]));
        untold.roll_back();
        assert!(!untold.is_some());
    }
}
