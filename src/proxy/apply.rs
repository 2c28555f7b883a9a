//! What an answered statement did, applied to the client's state and to what is known of the server session.

use std::sync::Arc;
use std::time::Instant;

use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::proxy::execute::Kind;
use crate::proxy::report::{Change, Report};
use crate::proxy::session::ClientSession;
use crate::proxy::text_statements::TextNeed;
use crate::session::effects::{self, Reported};
use crate::session::held::{self, Outcome};
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::session::unread::{Assigned, CHARSET_GROUP};
use crate::sql::{Effects, Facts, Flavor as LexFlavor, LexContext, StatementClass, StatementCount, Verb};

/// Variables that are followed in another way, or are no state.
const FOLLOWED_ELSEWHERE: [&str; 4] = ["last_insert_id", "identity", "statement_id", "last_gtid"];
/// What OceanBase reports when the schema changes; a client that sets one of them is seen by its text.
const OF_SCHEMA: [&str; 2] = ["character_set_database", "collation_database"];

impl ClientSession {
    pub(super) fn apply(&mut self, facts: &Facts, report: &Report, kind: Kind) {
        let status_before = self.status;
        if let Some(status) = report.status {
            self.status = status;
            self.transaction = Transaction::after(status);
        }
        if report.error.is_some() && !self.status.contains(StatusFlags::AUTOCOMMIT) {
            // An error carries no status flags: without autocommit the statement may have opened a transaction before it failed.
            self.transaction = Transaction::Open;
        }
        self.remains = self.remains.after(facts, self.transaction == Transaction::Open);
        self.apply_messages(report, |session| session.does_to_messages(facts));
        // Of several statements, those before the one that failed were done; OceanBase does so with the items of one.
        let all_or_nothing = self.lex_flavor != LexFlavor::OceanBase || facts.set.len() == 1;
        let nothing_done = report.error.is_some() && facts.statements == StatementCount::One && all_or_nothing;
        let mut unreported = self.of_request.assigned.as_ref().is_some_and(|a| a.unfollowed) && !nothing_done;
        for change in &report.changes {
            unreported |= self.apply_change(change);
        }
        if report.error.is_none() && !report.brings("collation_connection") {
            self.apply_collation(facts);
        }
        if facts.effects.intersects(Effects::SQL_MODE | Effects::CHARACTER_SET) || !report.changes.is_empty() {
            self.refresh_notes();
            self.set_idle_limit();
        }
        self.row_count = report.row_count;
        self.apply_found_rows(facts, report);
        self.apply_insert_id(facts, report);
        let mut reported = report.reported();
        if report.status.is_none() {
            // An error says nothing of the transaction: what was open stays open until the server says otherwise.
            reported.in_transaction = self.transaction == Transaction::Open;
        }
        if self.lex_flavor == LexFlavor::OceanBase {
            oceanbase_flags(facts, report, &mut reported);
        }
        let mut pins = effects::after(self.pins, facts, &reported);
        self.pin_messages(&mut pins);
        self.apply_user_variables(facts, report, &mut pins);
        self.apply_role(facts, report, &mut pins);
        if self.of_request.follows_name && !self.pins.contains(PinReason::TextPrepare) {
            pins.remove(PinReason::TextPrepare);
        }
        self.apply_held(facts, report, kind, &mut pins);
        if facts.effects.contains(Effects::SEQUENCE_WRITE) {
            self.sequence_here = true;
        }
        self.apply_unread(facts, report, status_before, &mut pins);
        if unreported {
            pins.insert(PinReason::UnreportedVariable);
        }
        if report.status.is_some_and(|s| s.contains(StatusFlags::CURSOR_EXISTS)) {
            pins.insert(PinReason::Cursor);
        }
        if pins != self.pins {
            self.handle.decided(Instant::now(), "pins", self.lease.as_ref().map(|l| l.node), pin_word(pins));
        }
        self.set_pins(pins);
    }

    /// What the statement made on the server session by name, and gave back.
    fn apply_held(&mut self, facts: &Facts, report: &Report, kind: Kind, pins: &mut Pins) {
        if !held::touches(facts) {
            return;
        }
        let schema = match kind {
            // It keeps to what it was prepared under.
            Kind::Statement { id, .. } => self.statements.get(id).and_then(|s| s.parsed.schema().cloned()),
            // So does one that EXECUTE names: only names with a schema count.
            Kind::Text if self.of_request.text_need != TextNeed::Nothing => None,
            Kind::Text | Kind::Other => self.state.schema().cloned(),
        };
        let detaches_xa = self.state.get("xa_detach_on_prepare").is_some_and(|on| on.eq_ignore_ascii_case(b"ON"));
        let outcome = Outcome { failed: report.error.is_some(), schema: schema.as_deref(), detaches_xa };
        let mut held = self.held.take().unwrap_or_default();
        held.after(facts, &outcome);
        held.decide(pins);
        self.held = (!held.is_empty()).then_some(held);
    }

    /// Applies one reported change to both states; true if the value can't be replayed later.
    pub(super) fn apply_change(&mut self, change: &Change) -> bool {
        match change {
            Change::Schema(name) => {
                let schema = (!name.is_empty()).then_some(name.as_ref());
                self.state.set_schema(schema);
                if let Some(lease) = &mut self.lease {
                    lease.state.set_schema(schema);
                }
                false
            }
            Change::Variable(name, value) => {
                let Ok(name) = std::str::from_utf8(name) else { return true };
                let name = name.to_ascii_lowercase();
                let tracked = self.lease.as_ref().is_some_and(|l| l.state.baseline().knows(&name));
                // Whether `id IS NULL` finds the last row is a flag of the server session's own, which can't be set.
                let finds_null = name == "sql_auto_is_null" && value.as_ref() == b"ON";
                if tracked || CHARSET_GROUP.contains(&name.as_str()) {
                    self.state.set(&name, value);
                    if let Some(lease) = &mut self.lease {
                        lease.state.set(&name, value);
                    }
                    return finds_null;
                }
                // OceanBase's hidden ones: it reports some that nobody set, and the role's. A SET that names one is seen in its text.
                let of_schema = self.lex_flavor == LexFlavor::OceanBase && OF_SCHEMA.contains(&name.as_str());
                !of_schema && !FOLLOWED_ELSEWHERE.contains(&name.as_str()) && !name.starts_with('_')
            }
        }
    }

    /// What a text assigns to session variables. Those that no server is asked to report, because they must not be replayed, are not followed.
    pub(super) fn assigned(&self, sql: &[u8], facts: &Facts) -> Option<Arc<Assigned>> {
        Assigned::read(sql, facts, &self.state, &FOLLOWED_ELSEWHERE)
    }

    /// `SET NAMES x COLLATE y`: no server reports the collation.
    fn apply_collation(&mut self, facts: &Facts) {
        let Some(assigned) = self.of_request.assigned.as_ref().filter(|a| a.proves_collation(facts)) else { return };
        let Some(collation) = assigned.collation.clone() else { return };
        self.state.set("collation_connection", &collation);
        if let Some(lease) = &mut self.lease {
            lease.state.set("collation_connection", &collation);
        }
    }

    /// FOUND_ROWS() is about the last SELECT: other statements leave it as it was. Where the text does not tell, only a server session that ran
    /// everything since knows it.
    fn apply_found_rows(&mut self, facts: &Facts, report: &Report) {
        if report.error.is_some() {
            return;
        }
        let query = facts.certain
            && facts.statements == StatementCount::One
            && matches!(facts.verb, Verb::Select | Verb::Values | Verb::Table | Verb::With);
        if query {
            let cursor = report.status.is_some_and(|s| s.contains(StatusFlags::CURSOR_EXISTS));
            let counted = report.had_columns && !cursor && !facts.effects.contains(Effects::CALC_FOUND_ROWS);
            self.found_rows = counted.then(|| report.rows_of_result());
            self.found_rows_here = true;
        } else if report.had_columns
            || !facts.certain
            || facts.effects.intersects(Effects::ROUTINE | Effects::TEXT_EXECUTE)
        {
            self.found_rows = None;
        }
    }

    /// How the lexer has to read this client's statements.
    pub(super) fn lex_context(&self) -> LexContext {
        let lexing = self.state.lexing();
        LexContext {
            // What it reads by is the state's: the status flags say it too, and not always the truth, see `contradicting_flags`.
            flavor: self.lex_flavor,
            ignore_space: lexing.ignore_space || self.capabilities.contains(Capabilities::IGNORE_SPACE),
            multi_statements: self.capabilities.contains(Capabilities::MULTI_STATEMENTS),
            ..lexing
        }
    }

    /// The cheap part of what /sessions shows; after every statement.
    pub(super) fn notes(&self) {
        let mut notes = self.handle.notes();
        notes.statements = self.statement;
        notes.transaction = self.transaction;
        notes.prepared = self.statements.len();
    }

    /// The part that changes rarely.
    pub(super) fn refresh_notes(&self) {
        let mut notes = self.handle.notes();
        notes.schema = self.state.schema().cloned();
        notes.variables = self.state.variables().iter().map(|(name, _)| name.clone()).collect();
    }
}

/// What OceanBase's state-change flag says: it comes with every DDL and every insert id, where nothing else changed. A write whose code (a trigger's) ran
/// brings the schema with it, and that alone explains nothing.
fn oceanbase_flags(facts: &Facts, report: &Report, reported: &mut Reported) {
    let one = facts.certain && facts.statements == StatementCount::One;
    let made_id = |c: &Change| matches!(c, Change::Variable(name, _) if name.as_ref() == b"last_insert_id");
    let code_ran = report.changes.iter().any(|c| matches!(c, Change::Schema(_)));
    match facts.class {
        StatementClass::Ddl if one => reported.state_changed = false,
        StatementClass::Write => {
            reported.state_changed &= code_ran || !one || !report.changes.iter().any(made_id);
            reported.values = false;
        }
        _ => {}
    }
}

/// The word for a decision about pins.
fn pin_word(pins: crate::session::pins::Pins) -> &'static str {
    pins.iter().next().map_or("none left", PinReason::label)
}

/// The lexer's words for a server's flavor and version.
pub(super) fn lex_flavor(flavor: crate::protocol::mysql::flavor::Flavor, server_version: &str) -> LexFlavor {
    use crate::protocol::mysql::flavor::Flavor;
    let version = version_number(server_version);
    match flavor {
        Flavor::MariaDb => LexFlavor::MariaDb { version },
        Flavor::MySql => LexFlavor::MySql { version },
        Flavor::OceanBase => LexFlavor::OceanBase,
    }
}

/// `10.11.19-MariaDB` as 101119, the form of version comments. MariaDB may put `5.5.5-` in front.
fn version_number(text: &str) -> u32 {
    let text = text.strip_prefix("5.5.5-").unwrap_or(text);
    let mut parts = text.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse::<u32>().unwrap_or(0));
    let (major, minor, patch) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    major.min(99) * 10_000 + minor.min(99) * 100 + patch.min(99)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_version_comments_count() {
        assert_eq!(version_number("10.11.19-MariaDB-0+deb12u1"), 101_119);
        assert_eq!(version_number("5.5.5-10.11.2-MariaDB"), 101_102);
        assert_eq!(version_number("9.7.4"), 90_704);
    }
}
