//! The capture: one flight after a client has its answer, which asks the server session for what no server reports, so that the session need not
//! be kept for it.
//!
//! It is a list of entries like the replay. It flies only when nothing but itself keeps the server session, and not when the client's next request is
//! there already: that one is served first, on the same server session.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;

use crate::error::Stage;
use crate::pool::flight::{Answer, Ask};
use crate::pool::setup;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::bind::BindEnd;
use crate::proxy::cleanup;
use crate::proxy::errors;
use crate::proxy::report::Report;
use crate::proxy::session::{ClientSession, Flow};
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::session::unread::UnreadVariables;
use crate::session::user_variables::{self, Named, UserValue, ValueType};
use crate::sql::{Effects, Facts, StatementClass, StatementCount, Verb};

/// Names of user variables that one server session may have held before it is reset.
const NAMES_HELD_MAX: usize = 256;

/// What an entry is for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Purpose {
    /// Reads these user variables. Where it can't, they pin.
    UserVariables(Vec<Arc<str>>),
    /// Reads the role. Where it can't, it pins.
    Role,
    /// Reads variables, or has them reported. They stay unread where it can't.
    Variables,
    /// Reads which of the locks that were named are held. Where it can't, they pin.
    Locks,
}

/// One statement of the flight.
#[derive(Clone, Debug)]
struct Entry {
    ask: Ask,
    purpose: Purpose,
}

impl ClientSession {
    /// Whether anything is to be asked, and nothing speaks against asking it now.
    pub(super) fn wants_capture(&self) -> bool {
        let variables = self.may_ask_variables();
        let alone = self.pins != self.pins_not_to_ask() && self.keeps_only_unread();
        if !(alone || variables) || self.lease.is_none() || self.handle.is_killed() {
            return false;
        }
        if variables && self.unread_variables.of_lexer() {
            // Before the next text is read.
            return true;
        }
        self.io.read_buf.is_empty() && {
            let mut cx = Context::from_waker(Waker::noop());
            matches!(self.io.stream.poll_silence(&mut cx), Poll::Pending)
        }
    }

    /// The pins that no question of belay's can end.
    pub(super) fn pins_not_to_ask(&self) -> Pins {
        let mut others = self.pins.without_unread();
        if self.held.as_ref().is_some_and(|held| held.locks_to_ask().is_some()) {
            others.remove(PinReason::UserLock);
        }
        others
    }

    /// Whether nothing but what is unread keeps the server session.
    fn keeps_only_unread(&self) -> bool {
        self.pins_not_to_ask().is_empty() && self.transaction == Transaction::Idle
    }

    /// Asks, and takes every answer for what it means.
    pub(super) async fn capture(&mut self) -> Flow {
        let entries = self.captures();
        let Some(lease) = &mut self.lease else { return Flow::Continue };
        lease.last_use = None;
        let (asks, purposes): (Vec<Ask>, Vec<Purpose>) = entries.into_iter().map(|e| (e.ask, e.purpose)).unzip();
        match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
            Ok(answers) => {
                // That the transaction is over was the client's to hear.
                let ended =
                    self.transaction == Transaction::Open && answers.iter().any(|answer| answer.error.is_some());
                for (purpose, answer) in purposes.into_iter().zip(answers) {
                    self.captured(purpose, &answer);
                }
                if ended {
                    self.lose_bound();
                }
            }
            Err(NotLanded::ClientGone) => return Flow::End,
            Err(error) => {
                tracing::debug!(session = self.handle.id, %error, "a capture did not come back");
                self.cx.cluster.suspect(lease.node);
                self.lose_bound();
            }
        }
        Flow::Continue
    }

    fn captures(&self) -> Vec<Entry> {
        let mut entries: Vec<Entry> =
            self.variable_asks().into_iter().map(|ask| Entry { ask, purpose: Purpose::Variables }).collect();
        if self.may_ask_variables() && !self.keeps_only_unread() {
            // The rest is read when nothing but that keeps the server session.
            return entries;
        }
        if self.pins.contains(PinReason::UnreadUserVariables) {
            let names = self.unread.clone();
            let sql = user_variables::reading(&names, self.cx.config.session.user_variables_bytes_max);
            entries.push(Entry { ask: Ask::Query(Bytes::from(sql)), purpose: Purpose::UserVariables(names) });
        }
        if self.pins.contains(PinReason::UnreadRole) {
            let ask = Ask::Query(Bytes::from_static(setup::ASK_ROLE));
            entries.push(Entry { ask, purpose: Purpose::Role });
        }
        if let Some(sql) = self.held.as_ref().and_then(|held| held.asking()) {
            entries.push(Entry { ask: Ask::Query(Bytes::from(sql)), purpose: Purpose::Locks });
        }
        entries
    }

    fn captured(&mut self, purpose: Purpose, answer: &Answer) {
        if answer.error.is_some() {
            // It is still there, and is asked for again after the next statement.
            return;
        }
        let mut pins = self.pins;
        match purpose {
            Purpose::Role => {
                let Some(lease) = &mut self.lease else { return };
                pins.remove(PinReason::UnreadRole);
                match setup::read_role(answer, lease.conn.flavor) {
                    Some(role) => {
                        lease.state.set_role(Some(role.clone()));
                        self.state.set_role(Some(role));
                    }
                    None => {
                        pins.insert(PinReason::Role);
                    }
                }
                self.set_pins(pins);
            }
            Purpose::Variables => self.variables_told(answer),
            Purpose::Locks => {
                if let (Some(held), Some(row)) = (&mut self.held, answer.rows.first()) {
                    held.take_answer(row.iter().map(Option::as_deref));
                    held.decide(&mut pins);
                }
                self.set_pins(pins);
            }
            Purpose::UserVariables(names) => {
                let flavor = self.lease.as_ref().map_or(self.cx.cluster.load().flavor, |l| l.conn.flavor);
                match values_of(&names, answer, flavor) {
                    Some(values) => self.take_values(&names, values),
                    None => {
                        pins.insert(PinReason::UserVariables);
                    }
                }
                self.unread.clear();
                pins.remove(PinReason::UnreadUserVariables);
                if self.user_variables_too_large() {
                    pins.insert(PinReason::UserVariables);
                }
                self.set_pins(pins);
            }
        }
    }

    fn take_values(&mut self, names: &[Arc<str>], values: Vec<UserValue>) {
        for (name, value) in names.iter().zip(values) {
            if let Some(lease) = &mut self.lease {
                lease.state.set_user_variable(name, value.clone());
            }
            self.state.set_user_variable(name, value);
        }
    }

    fn user_variables_too_large(&self) -> bool {
        let limits = &self.cx.config.session;
        let variables = self.state.user_variables();
        variables.len() > limits.user_variables_max || variables.size() > 2 * limits.user_variables_bytes_max
    }

    /// Whether what the statement does to user variables can follow the client.
    pub(super) fn can_follow(&self) -> bool {
        self.of_request.named.as_ref().is_some_and(|named| !named.more) && !self.pins.contains(PinReason::UserVariables)
    }

    /// After an answer: what it did to user variables. `pins` are those that the statement brings by its text.
    pub(super) fn apply_user_variables(&mut self, facts: &Facts, report: &Report, pins: &mut Pins) {
        let named = self.of_request.named.take();
        if let Some(named) = named.filter(|named| !named.written.is_empty() || named.more) {
            let follows = !named.more && !self.pins.contains(PinReason::UserVariables);
            if follows {
                pins.remove(PinReason::UserVariables);
                self.note_written(&named, report, pins);
            }
        }
        if facts.effects.contains(Effects::USER_VARIABLES_LISTED) && facts.verb == Verb::Flush {
            // MariaDB: it drops all of them.
            pins.insert(PinReason::UserVariables);
        }
        // A trigger may have written to them.
        let out_of_sight = matches!(facts.class, StatementClass::Write | StatementClass::Other | StatementClass::Call)
            && facts.verb != Verb::Unknown;
        if out_of_sight && !self.state.user_variables().is_empty() {
            let names: Vec<Arc<str>> = self.state.user_variables().iter().map(|(name, _)| name.clone()).collect();
            self.note_unread(names, pins);
        }
    }

    /// Whether SET ROLE, where nothing is out of sight, can follow the client from the server session that it is bound to.
    pub(super) fn can_follow_role(&self, facts: &Facts) -> bool {
        let hidden = Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE | Effects::CUT_SHORT;
        let known = self.lease.as_ref().is_none_or(|lease| lease.state.login_role().is_some());
        known && facts.certain && !facts.effects.intersects(hidden) && !self.pins.contains(PinReason::Role)
    }

    /// After an answer: whether it changed the role. `pins` are those that the statement brings by its text.
    pub(super) fn apply_role(&mut self, facts: &Facts, report: &Report, pins: &mut Pins) {
        if !facts.effects.contains(Effects::ROLE) || !self.can_follow_role(facts) {
            return;
        }
        pins.remove(PinReason::Role);
        if report.error.is_none() || facts.statements != StatementCount::One {
            pins.insert(PinReason::UnreadRole);
        }
    }

    fn note_written(&mut self, named: &Named, report: &Report, pins: &mut Pins) {
        match &named.known {
            Some(values) if report.error.is_none() => {
                self.unread.retain(|name| !named.written.contains(name));
                if self.unread.is_empty() {
                    pins.remove(PinReason::UnreadUserVariables);
                }
                self.take_values(&named.written, values.clone());
                if self.user_variables_too_large() {
                    pins.insert(PinReason::UserVariables);
                }
            }
            _ => self.note_unread(named.written.clone(), pins),
        }
    }

    fn note_unread(&mut self, names: Vec<Arc<str>>, pins: &mut Pins) {
        for name in names {
            if !self.unread.contains(&name) {
                self.unread.push(name);
            }
        }
        if self.unread.len() > self.cx.config.session.user_variables_max {
            self.unread.clear();
            pins.remove(PinReason::UnreadUserVariables);
            pins.insert(PinReason::UserVariables);
        } else {
            pins.insert(PinReason::UnreadUserVariables);
        }
    }

    /// The server session is gone, and what was not read of it.
    pub(super) fn forget_unread(&mut self, pins: Pins) {
        self.unread.clear();
        self.unread_variables = UnreadVariables::default();
        if pins.contains(PinReason::UnreadRole) {
            // Whatever it was: no privilege comes back that the client has given up.
            self.state.set_role(Some(Bytes::from_static(b"NONE")));
        }
        let lost = [
            PinReason::UserVariables,
            PinReason::UnreadUserVariables,
            PinReason::UnseenCode,
            PinReason::UnreadStatement,
            PinReason::LongStatement,
            PinReason::UnexplainedChange,
            PinReason::TextPrepare,
        ];
        if lost.into_iter().any(|reason| pins.contains(reason)) && !self.state.user_variables().is_empty() {
            // The client is told; what it had before may have changed there as well.
            self.state.forget_user_variables();
        }
    }

    /// Whether the statement could tell that others used this server session before: a user variable that was set to NULL keeps its type, and is listed.
    pub(super) fn would_see_names(&self, facts: &Facts) -> bool {
        let Some(lease) = &self.lease else { return false };
        if lease.state.names_held() == 0 {
            return false;
        }
        let own =
            |name: &str| self.state.user_variables().get(name).is_some() || self.unread.iter().any(|n| &**n == name);
        let foreign = |name: &Arc<str>| lease.state.held_name(name) && !own(name);
        let all_own = || lease.state.names().all(|name| own(name));
        if let Some(named) = &self.of_request.named
            && named.mentioned.iter().any(foreign)
        {
            return true;
        }
        let unseen = Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE | Effects::USER_VARIABLES_LISTED;
        facts.effects.intersects(unseen) && !all_own()
    }

    /// Makes the bound server session clean, so that nobody else's names are to be seen on it.
    pub(super) async fn hide_names(&mut self, facts: &Facts) -> Result<(), BindEnd> {
        if self.transaction != Transaction::Idle || !self.pins.is_empty() {
            if facts.effects.contains(Effects::USER_VARIABLES_LISTED) {
                return Err(BindEnd::Refused(errors::value_lost("the list of its own user variables alone")));
            }
            // What is left to be seen is the type of a NULL.
            return Ok(());
        }
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        if let Some(owner) = lease.unread_insert_id.take() {
            let asks = [Ask::Query(Bytes::from_static(b"SELECT LAST_INSERT_ID()"))];
            let answer = match aloft::fly(&self.io.stream, &self.handle, &mut lease, b"", &asks).await {
                Ok(answers) => answers.into_iter().next(),
                Err(NotLanded::Lost(_)) => None,
                Err(why) => {
                    self.cx.insert_id_read(owner, lease.serial, None);
                    self.unbound_from(&lease);
                    self.abandon(lease, &why);
                    return Err(why.before_statement(BindEnd::Lost(Stage::Clean)));
                }
            };
            let id = answer.and_then(|a| std::str::from_utf8(a.single()?).ok()?.parse().ok());
            self.cx.insert_id_read(owner, lease.serial, id);
        }
        let node = lease.node;
        match self.reset_for_client(lease).await {
            Ok(clean) => self.lease = Some(clean),
            Err(why) => {
                self.unbound();
                if matches!(why, NotLanded::Lost(_)) {
                    self.cx.cluster.suspect(node);
                }
                return Err(why.before_statement(BindEnd::Lost(Stage::Clean)));
            }
        }
        Ok(())
    }

    /// Gives the bound server session, which nothing holds, back to the pool; one that held too many names is made clean first.
    pub(super) fn give_back(&mut self, lease: crate::pool::lease::Lease, now: Instant) {
        if lease.state.names_held() > NAMES_HELD_MAX {
            self.server_session_gone(&lease);
            cleanup::in_background(self.cx.clone(), lease, false, Pins::NONE);
        } else {
            lease.release(now);
        }
    }
}

/// The values in the answer to [`user_variables::reading`]; `None` if any can't be written as a literal.
fn values_of(names: &[Arc<str>], answer: &Answer, flavor: Flavor) -> Option<Vec<UserValue>> {
    let row = answer.rows.first()?;
    let mut values = Vec::with_capacity(names.len());
    for at in 0..names.len() {
        let column = answer.columns.get(3 * at)?;
        let cell = |n: usize| row.get(3 * at + n).map(|cell| cell.as_deref());
        let binary = cell(0)?.is_some() && cell(2)? == Some(b"binary");
        if !user_variables::tells_type(flavor, column.type_byte, binary) {
            return None;
        }
        let kind = ValueType::of(column.type_byte, column.unsigned);
        values.push(UserValue::read(kind, cell(0)?, cell(1)?, cell(2)??)?);
    }
    Some(values)
}
