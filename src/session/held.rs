//! What a client holds on its server session by name, and what gives it back: temporary tables, handlers, locks of its own, an XA transaction.
//!
//! ```text
//!             made, with a name            given back by the same name, and answered OK
//!   nothing ───────────────────▶ names ───────────────────────────────────▶ nothing: the pin ends
//!      │                           │ made without a name, renamed, out of sight
//!      └───────────────────────────┴────────▶ something without a name: the pin stays
//! ```
//! Names are compared by their bytes. A server that folds case may take two of them for one: then a name stays here that is gone there, and
//! the pin outlasts its reason. The reverse cannot happen.

use std::collections::BTreeSet;

use super::pins::{PinReason, Pins};
use crate::sql::names::{Name, TableName};
use crate::sql::{Effects, Facts, StatementCount, TransactionControl, Verb, XaVerb};

/// Names of one kind that are kept for a client; what is made beyond them has no name.
const NAMES_MAX: usize = 64;

/// The reasons that this module decides.
const REASONS: [PinReason; 4] = [PinReason::TemporaryTable, PinReason::Handler, PinReason::UserLock, PinReason::Xa];

/// Statements with none of these leave everything here as it is.
const TOUCHING: Effects = Effects::TEMPORARY_TABLE
    .union(Effects::TEMPORARY_TABLE_DROP)
    .union(Effects::HANDLER_OPEN)
    .union(Effects::HANDLER_USE)
    .union(Effects::HANDLER_CLOSE)
    .union(Effects::GET_LOCK)
    .union(Effects::RELEASE_LOCK)
    .union(Effects::FLUSH_READ_LOCK)
    .union(Effects::XA);

/// How a statement ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome<'a> {
    /// With an error.
    pub failed: bool,
    /// The default schema that its names were understood by.
    pub schema: Option<&'a [u8]>,
    /// XA PREPARE parts the transaction from the session (MySQL's `xa_detach_on_prepare`).
    pub detaches_xa: bool,
}

/// Things of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Things<T> {
    names: BTreeSet<T>,
    /// There may be one that has no name here.
    unnamed: bool,
}

impl<T> Default for Things<T> {
    fn default() -> Things<T> {
        Things { names: BTreeSet::new(), unnamed: false }
    }
}

impl<T: Ord> Things<T> {
    fn add(&mut self, name: Option<T>) {
        match name {
            Some(name) if self.names.len() < NAMES_MAX || self.names.contains(&name) => {
                self.names.insert(name);
            }
            _ => self.unnamed = true,
        }
    }

    fn any(&self) -> bool {
        self.unnamed || !self.names.is_empty()
    }
}

/// Locks that have one statement each to take and to give them back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct BackupLocks {
    /// LOCK INSTANCE FOR BACKUP.
    instance: bool,
    /// BACKUP STAGE.
    stage: bool,
    /// BACKUP LOCK.
    table: bool,
}

/// An XA transaction of the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Xa {
    #[default]
    None,
    Named(Name),
    Unnamed,
    /// The session was reset on top of it, which it does not get over on MariaDB: this ends with the server session.
    Reset,
}

/// Everything that a client holds by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    tables: Things<(Name, Name)>,
    handlers: Things<Name>,
    locks: Things<Name>,
    /// Locks of MySQL's locking service, which nothing here sees the end of.
    service_lock: bool,
    backup: BackupLocks,
    xa: Xa,
    /// A statement may have taken or given back a lock since the server was asked.
    ask_locks: bool,
}

/// Whether a statement could make any difference to what is held.
pub fn touches(facts: &Facts) -> bool {
    facts.effects.intersects(TOUCHING) || facts.named.is_some()
}

/// Whether a session with these pins may hold something; one without never does.
pub fn may_hold(pins: Pins) -> bool {
    REASONS.into_iter().any(|reason| pins.contains(reason))
}

impl Held {
    /// What a session holds that is reset on top of an XA transaction: nothing that any statement ends.
    pub fn reset_in_xa() -> Held {
        Held { xa: Xa::Reset, ..Held::default() }
    }

    /// Takes in what a statement that was answered made and gave back.
    pub fn after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        let single = facts.certain && facts.statements == StatementCount::One;
        let nothing_done = single && outcome.failed;
        if !nothing_done {
            self.tables_after(facts, outcome);
            self.handlers_after(facts, outcome);
            self.backup_after(facts, outcome);
            self.xa_after(facts, outcome);
        } else {
            self.renamed(facts);
        }
        self.locks_after(facts, outcome);
    }

    fn tables_after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        let named = facts.named_for_certain();
        self.renamed(facts);
        if facts.effects.contains(Effects::TEMPORARY_TABLE) {
            self.tables.add(named.and_then(|n| whole(n.created.as_ref()?, outcome.schema)));
        }
        if let Some(named) = named.filter(|_| !outcome.failed) {
            for name in named.dropped.iter().filter_map(|table| whole(table, outcome.schema)) {
                self.tables.names.remove(&name);
            }
        }
    }

    /// A temporary table that may have another name now has none here. Where the server folds case, more are meant than are spelled.
    fn renamed(&mut self, facts: &Facts) {
        let Some(named) = &facts.named else { return };
        let meant = |renamed: &TableName| self.tables.names.iter().any(|(_, t)| t.eq_ignore_ascii_case(&renamed.name));
        if self.tables.any() && (named.renames_unnamed || named.renamed.iter().any(meant)) {
            self.tables.unnamed = true;
        }
    }

    fn handlers_after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        let named = facts.named_for_certain();
        let alias = || named.and_then(|n| n.handler.clone());
        if facts.effects.contains(Effects::HANDLER_OPEN) {
            self.handlers.add(alias());
        }
        if facts.effects.contains(Effects::HANDLER_USE) && !self.handlers.any() {
            // It reads, so it is open, and was opened out of sight.
            self.handlers.unnamed = true;
        }
        if facts.effects.contains(Effects::HANDLER_CLOSE)
            && !outcome.failed
            && let Some(alias) = alias()
        {
            self.handlers.names.remove(&alias);
        }
    }

    fn backup_after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        let Some(named) = &facts.named else { return };
        self.backup.instance |= named.locks_instance;
        self.backup.stage |= named.backup_stage;
        self.backup.table |= named.backup_lock;
        if let Some(named) = facts.named_for_certain().filter(|_| !outcome.failed) {
            self.backup.instance &= !named.unlocks_instance;
            self.backup.stage &= !named.backup_stage_end;
            self.backup.table &= !named.backup_unlock;
        }
    }

    fn xa_after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        if !facts.effects.contains(Effects::XA) || self.xa == Xa::Reset {
            return;
        }
        let (Some(named), TransactionControl::Xa(verb)) = (facts.named_for_certain(), facts.txn) else {
            self.xa = Xa::Unnamed;
            return;
        };
        let same = match (&self.xa, &named.xid) {
            (Xa::Named(own), Some(xid)) => own == xid,
            _ => false,
        };
        match verb {
            XaVerb::Start => self.xa = named.xid.clone().map_or(Xa::Unnamed, Xa::Named),
            XaVerb::Commit | XaVerb::Rollback if same && !outcome.failed => self.xa = Xa::None,
            XaVerb::Prepare if same && outcome.detaches_xa && !outcome.failed => self.xa = Xa::None,
            _ => {}
        }
    }

    /// A call of GET_LOCK may have been answered 0, and its statement may have failed after it: the server is asked.
    fn locks_after(&mut self, facts: &Facts, outcome: &Outcome<'_>) {
        if facts.effects.intersects(Effects::GET_LOCK | Effects::RELEASE_LOCK) {
            self.ask_locks = true;
        }
        if facts.effects.contains(Effects::GET_LOCK) {
            match &facts.named {
                Some(named) if facts.certain => {
                    self.service_lock |= named.service_lock;
                    self.locks.unnamed |= named.unnamed_lock;
                    for name in &named.locks {
                        self.locks.add(Some(name.clone()));
                    }
                }
                _ => self.service_lock = true,
            }
        }
        let all = facts.named_for_certain().is_some_and(|named| named.releases_all_locks);
        if all && !outcome.failed {
            self.locks = Things::default();
        }
        // LOCK and BACKUP that the lexer can't read for certain.
        let backup =
            facts.effects.contains(Effects::FLUSH_READ_LOCK) && matches!(facts.verb, Verb::Backup | Verb::Lock);
        self.service_lock |= backup && !facts.certain;
    }

    /// Whether anything is held for this reason.
    fn holds(&self, reason: PinReason) -> bool {
        match reason {
            PinReason::TemporaryTable => self.tables.any(),
            PinReason::Handler => self.handlers.any(),
            PinReason::UserLock => self.locks.any() || self.service_lock || self.backup != BackupLocks::default(),
            PinReason::Xa => self.xa != Xa::None,
            _ => false,
        }
    }

    /// Whether nothing is held.
    pub fn is_empty(&self) -> bool {
        REASONS.into_iter().all(|reason| !self.holds(reason))
    }

    /// Puts the reasons into the set that hold, and takes those out that do not.
    pub fn decide(&self, pins: &mut Pins) {
        for reason in REASONS {
            if self.holds(reason) {
                pins.insert(reason);
            } else {
                pins.remove(reason);
            }
        }
    }

    /// The locks to ask the server for: there is something to learn, and the answer may end the pin.
    pub fn locks_to_ask(&self) -> Option<impl Iterator<Item = &Name>> {
        let all_named = !self.locks.unnamed && !self.service_lock && self.backup == BackupLocks::default();
        (self.ask_locks && all_named && !self.locks.names.is_empty()).then(|| self.locks.names.iter())
    }

    /// The statement that asks which of those locks are the session's own: one column each.
    pub fn asking(&self) -> Option<Vec<u8>> {
        let mut sql = b"SELECT ".to_vec();
        for (n, name) in self.locks_to_ask()?.enumerate() {
            sql.extend_from_slice(if n == 0 { b"IS_USED_LOCK('" } else { b",IS_USED_LOCK('" });
            sql.extend_from_slice(name);
            sql.extend_from_slice(b"')=CONNECTION_ID()");
        }
        Some(sql)
    }

    /// Takes the row that answers [`Held::asking`]; a row of another size says nothing.
    pub fn take_answer<'a>(&mut self, row: impl ExactSizeIterator<Item = Option<&'a [u8]>>) {
        if row.len() != self.locks.names.len() {
            return;
        }
        let names = std::mem::take(&mut self.locks.names);
        self.locks.names = names.into_iter().zip(row).filter(|(_, own)| *own == Some(b"1")).map(|(n, _)| n).collect();
        self.ask_locks = false;
    }
}

/// The table with its schema; `None` if that is not known, or can't be compared.
fn whole(table: &TableName, schema: Option<&[u8]>) -> Option<(Name, Name)> {
    let schema = table.schema.clone().or_else(|| schema.filter(|s| s.is_ascii()).map(Name::from))?;
    Some((schema, table.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{LexContext, analyse};

    /// The pins after statements of a session whose default schema is `d`; one that begins with `!` fails.
    fn after(statements: &[&str]) -> (Held, String) {
        let mut held = Held::default();
        for sql in statements {
            let text = sql.trim_start_matches('!');
            let outcome = Outcome { failed: text != *sql, schema: Some(b"d"), detaches_xa: false };
            held.after(&analyse(text.as_bytes(), &LexContext::default()), &outcome);
        }
        let mut pins = Pins::NONE;
        held.decide(&mut pins);
        (held, pins.to_string())
    }

    fn ends(statements: &[&str]) {
        assert_eq!(after(statements).1, "", "{statements:?}");
    }

    fn stays(statements: &[&str]) {
        assert_ne!(after(statements).1, "", "{statements:?}");
    }

    #[test]
    fn temporary_tables_end_with_the_last_of_them() {
        stays(&["CREATE TEMPORARY TABLE t (a INT)"]);
        ends(&["!CREATE TEMPORARY TABLE t (a INT)"]);
        ends(&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE t"]);
        ends(&["CREATE TEMPORARY TABLE IF NOT EXISTS `t` LIKE u", "DROP TEMPORARY TABLE IF EXISTS x, d.t"]);
        ends(&["CREATE OR REPLACE TEMPORARY TABLE d.t AS SELECT 1", "DROP TABLE t;"]);
        ends(&["CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY TABLE u (a INT)", "DROP TABLE t", "DROP TABLE u"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "CREATE TEMPORARY TABLE u (a INT)", "DROP TABLE t"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "!DROP TABLE t"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE other.t"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE T"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "DROP DATABASE d"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "DROP TABLE t; SELECT 1"]);
        stays(&["CREATE TEMPORARY TABLE \u{e9} (a INT)", "DROP TABLE \u{e9}"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT); SELECT 1", "DROP TABLE t"]);
        stays(&["!CREATE TEMPORARY TABLE t (a INT); SELECT 1 FROM nowhere"]);
        stays(&["CREATE TEMPORARY SEQUENCE s", "DROP SEQUENCE s"]);
    }

    #[test]
    fn a_renamed_table_has_no_name() {
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "ALTER TABLE t RENAME u", "DROP TABLE t", "DROP TABLE u"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "RENAME TABLE x TO y, T TO u", "DROP TABLE t"]);
        stays(&["CREATE TEMPORARY TABLE t (a INT)", "ALTER TABLE t ADD b INT, RENAME AS u", "DROP TABLE t"]);
        ends(&["CREATE TEMPORARY TABLE t (a INT)", "ALTER TABLE t RENAME COLUMN a TO b", "DROP TABLE t"]);
        ends(&["CREATE TEMPORARY TABLE t (a INT)", "RENAME TABLE x TO y", "DROP TABLE t"]);
        ends(&["RENAME TABLE x TO y"]);
    }

    #[test]
    fn handlers_end_with_the_last_of_them() {
        stays(&["HANDLER t OPEN"]);
        ends(&["!HANDLER t OPEN"]);
        ends(&["HANDLER t OPEN", "HANDLER t READ FIRST", "HANDLER t CLOSE"]);
        ends(&["HANDLER d.t OPEN AS `h`", "HANDLER u OPEN k", "HANDLER h CLOSE", "HANDLER k CLOSE"]);
        stays(&["HANDLER t OPEN AS h", "HANDLER t CLOSE"]);
        stays(&["HANDLER t OPEN", "!HANDLER t CLOSE"]);
        stays(&["HANDLER t READ FIRST"]);
        ends(&["!HANDLER t READ FIRST"]);
    }

    #[test]
    fn locks_end_when_the_server_says_so() {
        let (mut held, pins) = after(&["SELECT GET_LOCK('a', 1), GET_LOCK('b c', 1)"]);
        assert_eq!(pins, "user_lock");
        let sql = held.asking().unwrap_or_default();
        assert_eq!(sql, b"SELECT IS_USED_LOCK('a')=CONNECTION_ID(),IS_USED_LOCK('b c')=CONNECTION_ID()");
        held.take_answer([Some(&b"0"[..]), Some(&b"1"[..])].into_iter());
        assert!(!held.is_empty());
        assert_eq!(held.asking(), None, "there is nothing new to learn");
        let outcome = Outcome { failed: true, schema: None, detaches_xa: false };
        held.after(&analyse(b"DO RELEASE_LOCK('b c')", &LexContext::default()), &outcome);
        assert_eq!(held.asking().unwrap_or_default(), b"SELECT IS_USED_LOCK('b c')=CONNECTION_ID()");
        held.take_answer([None].into_iter());
        assert!(held.is_empty());
    }

    #[test]
    fn locks_without_a_name_end_all_together() {
        for sql in ["DO GET_LOCK(@a, 1)", "DO GET_LOCK(?, 1)", "DO GET_LOCK('a' 'b', 1)", "DO GET_LOCK('a\\n', 1)"] {
            assert_eq!(after(&[sql, "DO RELEASE_LOCK('a')"]).0.asking(), None, "{sql}");
            ends(&[sql, "SELECT RELEASE_ALL_LOCKS()"]);
            stays(&[sql, "!SELECT RELEASE_ALL_LOCKS()"]);
            stays(&[sql, "SELECT RELEASE_ALL_LOCKS() FROM t"]);
            stays(&[sql, "SELECT IF(@x, RELEASE_ALL_LOCKS(), 0)"]);
        }
        stays(&["!SELECT GET_LOCK('a', 1), no_such_column"]);
    }

    #[test]
    fn locks_of_backups_end_with_their_own_statements() {
        ends(&["LOCK INSTANCE FOR BACKUP", "UNLOCK INSTANCE"]);
        stays(&["LOCK INSTANCE FOR BACKUP", "UNLOCK TABLES", "DO RELEASE_ALL_LOCKS()"]);
        ends(&["BACKUP STAGE START", "BACKUP STAGE FLUSH", "BACKUP STAGE END"]);
        stays(&["BACKUP STAGE START", "!BACKUP STAGE END"]);
        ends(&["BACKUP LOCK t", "BACKUP UNLOCK"]);
        stays(&["BACKUP LOCK t", "BACKUP STAGE END"]);
    }

    #[test]
    fn an_xa_transaction_ends_with_its_own_identifier() {
        stays(&["XA START 'a'", "XA END 'a'", "XA PREPARE 'a'"]);
        ends(&["XA START 'a'", "XA END 'a'", "XA PREPARE 'a'", "XA COMMIT 'a'"]);
        ends(&["XA BEGIN 0x61,0x62,1", "XA END 0x61,0x62,1", "XA COMMIT 0x61,0x62,1 ONE PHASE"]);
        ends(&["XA START 'a'", "XA END 'a'", "XA ROLLBACK 'a'"]);
        ends(&["!XA START 'a'"]);
        ends(&["XA RECOVER", "XA COMMIT 'of another'"]);
        stays(&["XA START 'a'", "XA END 'a'", "!XA COMMIT 'a'"]);
        stays(&["XA START 'a'", "XA COMMIT 'b'"]);
        let outcome = Outcome { failed: false, schema: None, detaches_xa: true };
        let mut held = Held::reset_in_xa();
        for sql in ["XA COMMIT 'a'", "XA START 'a'", "XA END 'a'", "XA COMMIT 'a' ONE PHASE"] {
            held.after(&analyse(sql.as_bytes(), &LexContext::default()), &outcome);
            assert!(held.holds(PinReason::Xa), "{sql}");
        }
        let mut held = after(&["XA START 'a'", "XA END 'a'"]).0;
        held.after(&analyse(b"XA PREPARE 'a'", &LexContext::default()), &outcome);
        assert!(held.is_empty());
    }
}
