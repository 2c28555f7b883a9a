//! What a client has set for its next transaction: kept here as the servers report it, said again on the next server session if the one that holds
//! it is lost, and taken away from a server session that is given back.

use std::time::Instant;

use bytes::Bytes;

use crate::pool::flight::{Answer, Ask};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::packet::session_state::{SessionChange, SessionChanges};
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::replay::{Entry, Purpose};
use crate::proxy::report::Report;
use crate::proxy::session::{ClientSession, Flow};
use crate::session::next_transaction::{Characteristics, NextTransaction, Pending, Told};
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::sql::{Effects, Facts, Flavor as LexFlavor};

/// Uses up what is pending, outside a transaction, whatever `completion_type` is; the servers report it (observed).
const CLEAR: &[u8] = b"COMMIT AND NO CHAIN NO RELEASE";

impl ClientSession {
    /// After an answer: what is pending now, here and on the server session.
    pub(super) fn apply_next_transaction(&mut self, facts: &Facts, report: &Report) {
        let reported = report.reported().characteristics;
        let sets = facts.effects.contains(Effects::NEXT_TRANSACTION);
        if self.next_transaction == Pending::Nothing && reported.is_none() && !sets {
            return;
        }
        let told = Told {
            reported,
            error: report.error.is_some(),
            // OceanBase reports nothing of all this, and may not have used it up.
            in_transaction: self.transaction == Transaction::Open && self.lex_flavor != LexFlavor::OceanBase,
            sets,
        };
        self.set_next_transaction(self.next_transaction.after(&told));
    }

    /// Records what is pending on both sides, and the pin that goes with it.
    fn set_next_transaction(&mut self, pending: Pending) {
        self.next_transaction = pending;
        if let Some(lease) = &mut self.lease {
            lease.next_transaction = pending;
        }
        let mut pins = self.pins;
        pins.remove(PinReason::NextTransaction);
        pins.remove(PinReason::UncertainNextTransaction);
        match pending {
            Pending::Nothing => {}
            Pending::Set(_) => {
                pins.insert(PinReason::NextTransaction);
            }
            Pending::Uncertain => {
                pins.insert(PinReason::UncertainNextTransaction);
            }
        }
        self.set_pins(pins);
    }

    /// The server session is gone: what is known follows, what is not was told or is told as lost.
    pub(super) fn next_transaction_unbound(&mut self) {
        if self.next_transaction == Pending::Uncertain {
            self.next_transaction = Pending::Nothing;
        }
    }

    /// What is named as lost when the server session is: what is set for the next transaction is not, unless the statement that was `sent` may have used it
    /// up. Then it is gone for the client, who is told.
    pub(super) fn lost_pins(&mut self, sent: bool) -> Pins {
        let mut pins = self.pins;
        if sent {
            self.next_transaction = Pending::Nothing;
        } else {
            pins.remove(PinReason::NextTransaction);
        }
        pins
    }

    /// What says it on the bound server session, behind all else that is said there before the client's statement. `more`: something is.
    pub(super) fn next_transaction_entry(&self, more: bool) -> Option<Entry> {
        let Pending::Set(next) = self.next_transaction else { return None };
        let there = self.lease.as_ref().map(|lease| lease.next_transaction);
        let said = there == Some(self.next_transaction) && !more;
        let ask = Ask::Query(next.statement().filter(|_| !said)?);
        Some(Entry { ask, purpose: Purpose::NextTransaction(next) })
    }

    /// The answer to that: the node must have taken it for what it is.
    pub(super) fn next_transaction_there(&mut self, next: NextTransaction, answer: &Answer) -> Option<ErrorReply> {
        if let Some(error) = &answer.error {
            return Some(error.clone());
        }
        let there = self.lease.as_ref().is_some_and(|lease| lease.next_transaction == Pending::Set(next));
        match characteristics(answer) {
            Some(Characteristics::Next(reported)) if reported == next => {}
            // What was there already is not reported again.
            None if there => {}
            _ => return Some(ErrorReply::new(1105, b"HY000", "the node reports something else than what was set")),
        }
        self.set_next_transaction(Pending::Set(next));
        self.cx.measure.characteristics_replayed();
        None
    }

    /// Takes what is pending away from a server session that nothing else keeps, so that it can serve others; it is said again before the client's next
    /// statement.
    pub(super) async fn put_aside_next_transaction(&mut self) -> Flow {
        let mut others = self.pins.without_unread();
        others.remove(PinReason::NextTransaction);
        let Pending::Set(_) = self.next_transaction else { return Flow::Continue };
        if !others.is_empty() || self.transaction != Transaction::Idle || !self.reopenable {
            return Flow::Continue;
        }
        let Some(lease) = &mut self.lease else { return Flow::Continue };
        lease.last_use = None;
        let asks = [Ask::Query(Bytes::from_static(CLEAR))];
        let answers = match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
            Err(NotLanded::ClientGone) => return Flow::End,
            flown => flown.unwrap_or_default(),
        };
        let cleared = answers.first().is_some_and(|answer| {
            answer.error.is_none() && characteristics(answer) == Some(Characteristics::Next(NextTransaction::default()))
        });
        if !cleared {
            // Closed, it is nobody's.
            self.lose_bound();
            return Flow::Continue;
        }
        lease.next_transaction = Pending::Nothing;
        let node = lease.node;
        self.take_held_back(&answers);
        let mut pins = self.pins;
        pins.remove(PinReason::NextTransaction);
        self.set_pins(pins);
        self.handle.decided(
            Instant::now(),
            "unpin",
            Some(node),
            "no transaction began in time; SET TRANSACTION follows",
        );
        Flow::Continue
    }
}

/// What an answer reports of the characteristics, the last time it does.
fn characteristics(answer: &Answer) -> Option<Characteristics> {
    let changes = SessionChanges::new(&answer.session_state).flatten();
    changes.fold(None, |last, change| match change {
        SessionChange::TransactionCharacteristics(sql) => Some(Characteristics::read(sql)),
        _ => last,
    })
}
