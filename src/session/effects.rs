//! What a statement that was answered does to a client's session: pins by what the lexer saw and what the server reported.
//!
//! What the server reports is the truth. The lexer fills what no server reports; a change that neither explains pins.

use crate::sql::{Effects, Facts, StatementClass, StatementCount, TransactionControl, Verb, VolatileKind, XaVerb};

use super::next_transaction::Characteristics;
use super::pins::{PinReason, Pins};

/// What the server reported with the last OK (or EOF) of an answer, besides values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reported {
    /// The state-change flag was set.
    pub state_changed: bool,
    /// A variable or the schema was reported with it.
    pub values: bool,
    /// LOCK TABLES is in force, if the transaction state was reported.
    pub tables_locked: Option<bool>,
    /// What was reported of the transaction's characteristics.
    pub characteristics: Option<Characteristics>,
    /// Warnings of the last result.
    pub warnings: u16,
    /// The answer ended with an error.
    pub error: bool,
    /// A transaction is open after it.
    pub in_transaction: bool,
}

/// The lasting and momentary pins that a statement may bring, as far as its text tells: asked before it is sent, so that a session that may not
/// pin is refused in time.
pub fn foreseen(facts: &Facts) -> Pins {
    let mut pins = Pins::NONE;
    let effects = facts.effects;
    let mut on = |flags: Effects, reason: PinReason| {
        if effects.intersects(flags) {
            pins.insert(reason);
        }
    };
    on(Effects::USER_VARIABLE_WRITE, PinReason::UserVariables);
    on(Effects::TEMPORARY_TABLE, PinReason::TemporaryTable);
    on(Effects::GET_LOCK, PinReason::UserLock);
    on(Effects::LOCK_TABLES, PinReason::LockTables);
    // Locks of BACKUP and LOCK INSTANCE are ended by statements of their own, and by no UNLOCK TABLES.
    let backup = matches!(facts.verb, Verb::Backup | Verb::Lock);
    on(Effects::FLUSH_READ_LOCK, if backup { PinReason::UserLock } else { PinReason::GlobalReadLock });
    on(Effects::CUT_SHORT, PinReason::LongStatement);
    on(Effects::HANDLER_OPEN | Effects::HANDLER_USE, PinReason::Handler);
    on(Effects::TEXT_PREPARE | Effects::TEXT_EXECUTE, PinReason::TextPrepare);
    on(Effects::ROLE, PinReason::Role);
    on(Effects::ROUTINE, PinReason::UnseenCode);
    on(Effects::UNKNOWN, PinReason::UnreadStatement);
    on(Effects::CALC_FOUND_ROWS, PinReason::FoundRows);
    on(Effects::SESSION_TRACKING, PinReason::SessionTracking);
    on(
        Effects::TIMESTAMP_VARIABLE | Effects::RAND_SEED | Effects::INSERT_ID | Effects::REPLICATION_VARIABLE,
        PinReason::UnreportedVariable,
    );
    on(Effects::PROFILING, PinReason::Profiling);
    on(Effects::SEQUENCE_READ | Effects::SEQUENCE_WRITE, PinReason::Sequence);
    let pins_nothing = matches!(facts.txn, TransactionControl::Xa(XaVerb::Recover | XaVerb::Commit | XaVerb::Rollback))
        && facts.statements == StatementCount::One;
    if !pins_nothing {
        on(Effects::XA, PinReason::Xa);
    }
    if !facts.certain {
        pins.insert(PinReason::UnreadStatement);
    }
    pins
}

/// What a statement has to do with LAST_INSERT_ID().
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum InsertIdNeed {
    /// Nothing, as far as its text tells.
    Nothing,
    /// It may make one, or keep the one that is there as the session's own; code of triggers and routines may read it, and a list of variables shows it
    /// among others.
    Kept,
    /// It reads it, in any of its forms.
    Read,
}

/// What the statement has to do with LAST_INSERT_ID().
pub fn insert_id_need(facts: &Facts) -> InsertIdNeed {
    let names = |kind: VolatileKind| {
        matches!(kind, VolatileKind::LastInsertId | VolatileKind::IdentityVar | VolatileKind::LastInsertIdVar)
    };
    let reads = facts.effects.contains(Effects::VOLATILE_HIDDEN) || facts.volatile.iter().any(|call| names(call.kind));
    if reads {
        return InsertIdNeed::Read;
    }
    let kept = matches!(facts.class, StatementClass::Write | StatementClass::Call)
        || facts.effects.intersects(MAY_SET_INSERT_ID | Effects::CREATE_TABLE_SELECT | Effects::VARIABLES_LISTED)
        || !facts.certain;
    if kept { InsertIdNeed::Kept } else { InsertIdNeed::Nothing }
}

/// What may give LAST_INSERT_ID() any value, or does so out of sight.
const MAY_SET_INSERT_ID: Effects = Effects::ROUTINE
    .union(Effects::LAST_INSERT_ID_SET)
    .union(Effects::UNKNOWN)
    .union(Effects::TEXT_EXECUTE)
    .union(Effects::CUT_SHORT);

/// Whether LAST_INSERT_ID() may be another one after a statement. `had_columns`: it answered with rows, whose end bears no id; `id`: its OK bears one, which
/// may be one that the client gave.
pub fn may_make_insert_id(facts: &Facts, had_columns: bool, failed: bool, id: bool) -> bool {
    if facts.effects.intersects(MAY_SET_INSERT_ID) || !facts.certain {
        return true;
    }
    let writes = facts.class == StatementClass::Write || facts.effects.contains(Effects::CREATE_TABLE_SELECT);
    // LOAD DATA names none; what failed may have made some before it did (observed).
    let unsaid = had_columns || failed || facts.verb == Verb::Load || facts.statements != StatementCount::One;
    writes && (id || unsaid)
}

/// The pins after a statement of a session that had `before`.
pub fn after(before: Pins, facts: &Facts, reported: &Reported) -> Pins {
    let mut pins = before;
    // Momentary pins end with the next statement, unless that one asks for what they keep.
    let asks_diagnostics = facts.effects.contains(Effects::SHOW_DIAGNOSTICS);
    let asks_found_rows = facts.volatile.iter().any(|call| call.kind == VolatileKind::FoundRows);
    if !asks_found_rows && !asks_diagnostics {
        pins.remove(PinReason::FoundRows);
    }
    // Of several statements, those before the one that failed were done.
    let nothing_done = reported.error && facts.statements == StatementCount::One;
    pins = pins.union(if nothing_done { foreseen(facts).minus(harmless_if_failed(facts)) } else { foreseen(facts) });
    if !reported.error {
        end_locks(&mut pins, facts);
    }
    if reported.state_changed && !reported.values && !explained(facts, pins) {
        pins.insert(PinReason::UnexplainedChange);
    }
    match reported.tables_locked {
        Some(true) => {
            pins.insert(PinReason::LockTables);
        }
        Some(false) => {
            pins.remove(PinReason::LockTables);
        }
        None => {}
    }
    pins
}

/// Single statements that certainly changed nothing when they failed.
fn harmless_if_failed(facts: &Facts) -> Pins {
    let mut pins = Pins::NONE;
    if facts.verb == Verb::Set && facts.set.len() == 1 && facts.set_names.is_none() {
        // Of a list, what stands before the item that failed may be set.
        for reason in [PinReason::UnreportedVariable, PinReason::SessionTracking, PinReason::Profiling] {
            pins.insert(reason);
        }
    }
    for reason in [
        PinReason::TemporaryTable,
        PinReason::LockTables,
        PinReason::GlobalReadLock,
        PinReason::Handler,
        PinReason::TextPrepare,
        PinReason::Role,
        PinReason::FoundRows,
    ] {
        pins.insert(reason);
    }
    pins
}

fn end_locks(pins: &mut Pins, facts: &Facts) {
    if facts.statements != StatementCount::One || !facts.certain {
        return;
    }
    if facts.effects.contains(Effects::UNLOCK_TABLES) && facts.verb == Verb::Unlock {
        pins.remove(PinReason::LockTables);
        pins.remove(PinReason::GlobalReadLock);
    }
    if matches!(facts.txn, TransactionControl::Begin { .. }) {
        pins.remove(PinReason::LockTables);
    }
}

/// Whether the statement's own effects explain a state-change flag that came without a value.
fn explained(facts: &Facts, pins: Pins) -> bool {
    let known = Effects::USER_VARIABLE_WRITE
        | Effects::TEMPORARY_TABLE
        | Effects::TEMPORARY_TABLE_DROP
        | Effects::TEXT_PREPARE
        | Effects::TEXT_EXECUTE
        | Effects::TEXT_DEALLOCATE
        | Effects::ROLE
        | Effects::SYSTEM_VARIABLE_SET
        | Effects::LOCK_TABLES
        | Effects::UNLOCK_TABLES
        | Effects::NEXT_TRANSACTION;
    facts.effects.intersects(known)
        || facts.txn != TransactionControl::None
        || facts.use_schema.is_some()
        || pins.contains(PinReason::UnseenCode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{LexContext, analyse};

    fn pins_after(statements: &[&str]) -> String {
        let mut pins = Pins::NONE;
        for sql in statements {
            pins = after(pins, &analyse(sql.as_bytes(), &LexContext::default()), &Reported::default());
        }
        pins.to_string()
    }

    #[test]
    fn only_the_statement_that_ends_a_lock_ends_its_pin() {
        assert_eq!(pins_after(&["FLUSH TABLES WITH READ LOCK"]), "global_read_lock");
        assert_eq!(pins_after(&["FLUSH TABLES WITH READ LOCK", "UNLOCK INSTANCE"]), "global_read_lock");
        assert_eq!(pins_after(&["FLUSH TABLES WITH READ LOCK", "UNLOCK TABLES"]), "");
        assert_eq!(pins_after(&["LOCK INSTANCE FOR BACKUP", "UNLOCK TABLES"]), "user_lock");
        assert_eq!(pins_after(&["BACKUP STAGE START", "UNLOCK TABLES"]), "user_lock");
        assert_eq!(pins_after(&["LOCK TABLES t READ", "BACKUP UNLOCK"]), "lock_tables");
        assert_eq!(pins_after(&["LOCK TABLES t READ", "BEGIN"]), "");
    }

    #[test]
    fn statements_that_keep_show_or_make_an_insert_id() {
        use InsertIdNeed::{Kept, Nothing, Read};
        let cases = [
            ("SELECT v FROM t", Nothing, false, false),
            ("SET @a = 1", Nothing, false, false),
            ("COMMIT", Nothing, false, false),
            ("CREATE TABLE t (id INT)", Nothing, false, false),
            ("SELECT LAST_INSERT_ID()", Read, false, false),
            ("SELECT @@identity", Read, false, false),
            ("SHOW VARIABLES LIKE 'last_insert_id'", Kept, false, false),
            ("SELECT * FROM performance_schema.session_variables", Kept, false, false),
            ("INSERT INTO t VALUES (LAST_INSERT_ID())", Read, false, true),
            ("INSERT INTO t VALUES (1)", Kept, false, true),
            ("UPDATE t SET a = 1", Kept, false, true),
            ("CREATE TABLE t (id INT) SELECT 1", Kept, false, true),
            ("LOAD DATA INFILE 'f' INTO TABLE t", Kept, true, true),
            ("SELECT LAST_INSERT_ID(5)", Kept, true, true),
            ("SET last_insert_id = 5", Kept, true, true),
            ("CALL p()", Kept, true, true),
            ("EXECUTE p", Kept, true, true),
        ];
        for (sql, need, without_id, with_id) in cases {
            let facts = analyse(sql.as_bytes(), &LexContext::default());
            assert_eq!(insert_id_need(&facts), need, "{sql}");
            assert_eq!(may_make_insert_id(&facts, false, false, false), without_id, "{sql}");
            assert_eq!(may_make_insert_id(&facts, false, false, true), with_id, "{sql}");
        }
        let insert = analyse(b"INSERT INTO t VALUES (1)", &LexContext::default());
        assert!(may_make_insert_id(&insert, true, false, false) && may_make_insert_id(&insert, false, true, false));
    }

    #[test]
    fn a_refused_assignment_pins_nothing_and_a_refused_list_does() {
        let failed = |sql: &str| {
            let facts = analyse(sql.as_bytes(), &LexContext::default());
            after(Pins::NONE, &facts, &Reported { error: true, ..Reported::default() }).to_string()
        };
        assert_eq!(failed("SET timestamp = 'x'"), "");
        assert_eq!(failed("SET timestamp = 1, sql_mode = 'x'"), "unreported_variable");
    }

    #[test]
    fn a_change_that_nothing_explains_pins() {
        let facts = analyse(b"SELECT 1", &LexContext::default());
        let reported = Reported { state_changed: true, ..Reported::default() };
        assert_eq!(after(Pins::NONE, &facts, &reported).to_string(), "unexplained_change");
    }
}
