//! Session variables that were set and not reported: noted after each answer, asked for by the capture.

use bytes::Bytes;

use crate::error::Stage;
use crate::pool::flight::{Answer, Ask};
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::proxy::aloft;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::report::{Change, Report};
use crate::proxy::session::ClientSession;
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::session::unread::{self, CHARSET_GROUP};
use crate::sql::{Effects, Facts, Flavor as LexFlavor, Verb};

/// Makes MariaDB report what it holds back: it does so with the next change, also to the value that was there.
const CHANGE_NOTHING: &[u8] = b"SET SESSION session_track_state_change=1";

/// What belay's own questions would disturb, or could not get through.
const IN_THE_WAY: [PinReason; 9] = [
    PinReason::Xa,
    PinReason::Diagnostics,
    PinReason::FoundRows,
    PinReason::NextTransaction,
    PinReason::UncertainNextTransaction,
    PinReason::Profiling,
    PinReason::SessionTracking,
    PinReason::Cursor,
    PinReason::LongData,
];

impl ClientSession {
    /// Whether the bound server session can be asked for variables now, also under other pins. In a transaction that is done only for what the next text
    /// is read by: the server may have ended it, and says so once (Galera does).
    pub(super) fn may_ask_variables(&self) -> bool {
        let due = self.transaction == Transaction::Idle || self.unread_variables.of_lexer();
        // What only has to be reported is asked for by what clears no messages.
        let disturbs = |reason| reason != PinReason::Diagnostics || !self.unread_variables.names().is_empty();
        let mut in_the_way = IN_THE_WAY.into_iter().filter(|reason| self.pins.contains(*reason));
        due && !self.unread_variables.is_empty() && !in_the_way.any(disturbs)
    }

    /// The flags that the server gave with an answer, where they contradict what is believed of variables. They count when they change: MariaDB leaves
    /// ANSI_QUOTES set behind a routine that set sql_mode, though the mode itself is put back (observed).
    pub(super) fn contradicting_flags(&self, before: StatusFlags) -> Vec<&'static str> {
        let changed = |flags: StatusFlags| (self.status ^ before).intersects(flags);
        let mut names = Vec::new();
        if self.state.autocommit().is_some_and(|on| on != self.status.contains(StatusFlags::AUTOCOMMIT)) {
            names.push("autocommit");
        }
        if !changed(StatusFlags::NO_BACKSLASH_ESCAPES | StatusFlags::ANSI_QUOTES) {
            return names;
        }
        let mode = self.state.get("sql_mode").map_or(&b""[..], |v| v.as_ref());
        let has = |word: &[u8]| mode.split(|b| *b == b',').any(|m| m.eq_ignore_ascii_case(word));
        let escapes = has(b"NO_BACKSLASH_ESCAPES") != self.status.contains(StatusFlags::NO_BACKSLASH_ESCAPES);
        let quotes = matches!(self.lex_flavor, LexFlavor::MariaDb { .. })
            && has(b"ANSI_QUOTES") != self.status.contains(StatusFlags::ANSI_QUOTES);
        if escapes && changed(StatusFlags::NO_BACKSLASH_ESCAPES) || quotes && changed(StatusFlags::ANSI_QUOTES) {
            names.push("sql_mode");
        }
        names
    }

    /// After an answer whose reports were applied: what they leave open. `before`: the status flags of the answer before.
    pub(super) fn apply_unread(&mut self, facts: &Facts, report: &Report, before: StatusFlags, pins: &mut Pins) {
        let Some(flavor) = self.lease.as_ref().map(|l| l.conn.flavor) else { return };
        let failed = report.error.is_some();
        if failed {
            if unread::may_have_changed(facts) {
                self.unread_variables.hold_back(true);
            }
        } else if report.spoke_of_changes || report.spoke && flavor != Flavor::MariaDb {
            self.unread_variables.hold_back(false);
        }
        if let Some(assigned) = &self.of_request.assigned {
            for name in assigned.unreported(facts, flavor, failed, |name| report.brings(name)) {
                self.unread_variables.add(&name);
            }
        }
        if self.collation_is_open(facts, report) {
            self.unread_variables.add("collation_connection");
        }
        self.note_not_the_last_word(facts, report, flavor);
        if report.status.is_some() {
            for name in self.contradicting_flags(before) {
                self.unread_variables.add(name);
            }
        }
        self.pin_unread(pins);
    }

    /// Values that were reported and put back without a word, or set out of sight without a report.
    fn note_not_the_last_word(&mut self, facts: &Facts, report: &Report, flavor: Flavor) {
        let hidden = facts.effects.intersects(Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE);
        for change in &report.changes {
            let Change::Variable(name, _) = change else { continue };
            let Ok(name) = std::str::from_utf8(name) else { continue };
            // A routine's end puts back what it was made under; SET STATEMENT … FOR all that it has set.
            let of_routine = hidden && (name == "sql_mode" || CHARSET_GROUP.contains(&name));
            if of_routine || facts.verb == Verb::SetStatement && self.state.baseline().knows(name) {
                self.unread_variables.add(name);
            }
        }
        // A SET that stands in none of these texts may have no scope.
        let nothing_else = report.error.is_some() || !report.had_columns && report.row_count == 0;
        let executed = facts.effects.contains(Effects::TEXT_EXECUTE) && nothing_else;
        let set_out_of_sight = executed || facts.verb == Verb::BeginNotAtomic;
        if flavor == Flavor::MariaDb && set_out_of_sight {
            for name in ["sql_mode"].into_iter().chain(CHARSET_GROUP) {
                self.unread_variables.add(name);
            }
        }
    }

    /// Whether a collation may be in force that neither the answer nor the text names.
    fn collation_is_open(&self, facts: &Facts, report: &Report) -> bool {
        let assigned = self.of_request.assigned.as_ref();
        let proven = report.error.is_none() && assigned.is_some_and(|assigned| assigned.proves_collation(facts));
        (report.collation_open || facts.set_names.is_some() && !report.brings("collation_connection"))
            && !proven
            && (report.error.is_none() || facts.statements != crate::sql::StatementCount::One || report.collation_open)
    }

    /// The pin that goes with what is unread.
    pub(super) fn pin_unread(&self, pins: &mut Pins) {
        if self.unread_variables.is_empty() {
            pins.remove(PinReason::UnreadVariables);
        } else {
            pins.insert(PinReason::UnreadVariables);
        }
    }

    /// What asks the bound server session for variables: for what it holds back first, as values follow that replace it.
    pub(super) fn variable_asks(&self) -> Vec<Ask> {
        let mut asks = Vec::with_capacity(2);
        if self.unread_variables.is_held_back() {
            let mariadb = self.lease.as_ref().is_some_and(|l| l.conn.flavor == Flavor::MariaDb);
            asks.push(if mariadb { Ask::Query(Bytes::from_static(CHANGE_NOTHING)) } else { Ask::Ping });
        }
        asks.extend(self.unread_variables.question().map(Ask::Query));
        asks
    }

    /// The answer to one of these.
    pub(super) fn variables_told(&mut self, answer: &Answer) {
        if answer.error.is_some() {
            // It is asked for again after the next statement.
            return;
        }
        let mut pins = self.pins;
        if answer.columns.is_empty() {
            self.unread_variables.hold_back(false);
            self.take_reports(answer, &mut pins);
        } else {
            self.take_listed(answer, &mut pins);
        }
        self.pin_unread(&mut pins);
        self.set_pins(pins);
        self.refresh_notes();
        self.set_idle_limit();
    }

    /// What the server held back has come with the first of these answers to other questions of belay's, but from MariaDB, which waits for a change.
    pub(super) fn take_held_back(&mut self, answers: &[Answer]) {
        if !self.unread_variables.is_held_back() {
            return;
        }
        let mut pins = self.pins;
        let answered = answers.iter().filter(|answer| answer.error.is_none());
        for answer in answered.clone().filter(|answer| !answer.session_state.is_empty()) {
            self.take_reports(answer, &mut pins);
        }
        if !matches!(self.lex_flavor, LexFlavor::MariaDb { .. }) && answered.count() > 0 {
            self.unread_variables.hold_back(false);
        }
        self.pin_unread(&mut pins);
        self.set_pins(pins);
    }

    /// What a server reports with an answer to belay itself.
    fn take_reports(&mut self, answer: &Answer, pins: &mut Pins) {
        let ok = OkPacket {
            affected_rows: 0,
            last_insert_id: 0,
            status: answer.status,
            warnings: 0,
            info: b"",
            session_state: &answer.session_state,
        };
        let mut report = Report::default();
        if report.ok(&ok).is_err() {
            pins.insert(PinReason::UnexplainedChange);
            return;
        }
        for change in &report.changes {
            let own = matches!(change, Change::Variable(name, _) if name.as_ref() == b"session_track_state_change");
            if !own && self.apply_change(change) {
                pins.insert(PinReason::UnreportedVariable);
            }
        }
        if report.collation_open {
            self.unread_variables.add("collation_connection");
        }
    }

    /// Names and values as SHOW VARIABLES lists them. What it does not list can't be followed.
    fn take_listed(&mut self, answer: &Answer, pins: &mut Pins) {
        let listed = |wanted: &str| {
            let is = |row: &&Vec<Option<Bytes>>| matches!(row.first(), Some(Some(name)) if name.eq_ignore_ascii_case(wanted.as_bytes()));
            answer.rows.iter().find(is).map(|row| row.get(1).cloned().flatten().unwrap_or_default())
        };
        let mut names = self.unread_variables.names().to_vec();
        // A character set puts the collation back.
        names.sort_by_key(|name| &**name == "collation_connection");
        for name in names {
            let follows = listed(&name).is_some_and(|value| {
                !self.apply_change(&Change::Variable(Bytes::copy_from_slice(name.as_bytes()), value))
            });
            if !follows {
                pins.insert(PinReason::UnreportedVariable);
            }
            self.unread_variables.remove(&name);
        }
        self.status.set(StatusFlags::AUTOCOMMIT, answer.status.contains(StatusFlags::AUTOCOMMIT));
        if self.contradicting_flags(self.status).contains(&"autocommit") {
            // Asked, the server says both.
            pins.insert(PinReason::UnexplainedChange);
        }
    }

    /// Asks at once, before belay itself says something that the answer could come with.
    pub(super) async fn ask_variables(&mut self) -> Result<(), BindEnd> {
        let asks = self.variable_asks();
        let Some(lease) = &mut self.lease else { return Ok(()) };
        lease.last_use = None;
        let answers = aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks)
            .await
            .map_err(|why| why.before_statement(BindEnd::Lost(Stage::Replay)))?;
        for answer in &answers {
            self.variables_told(answer);
        }
        if self.transaction == Transaction::Open && answers.iter().any(|answer| answer.error.is_some()) {
            return Err(BindEnd::Lost(Stage::Replay));
        }
        if self.unread_variables.is_held_back() {
            return Err(BindEnd::Refused(errors::value_lost("what a failed statement did to session variables")));
        }
        Ok(())
    }
}
