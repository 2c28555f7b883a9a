//! What kind of statement the facts show, in the words of rules.

use crate::session::effects;
use crate::sql::{Effects, Facts, StatementClass, StatementCount, TransactionControl, Verb, VolatileKind};

use super::rules::StatementKind;

/// The kind of a statement. What is not certain, and texts of several statements, are [`StatementKind::Other`].
pub fn of(facts: &Facts) -> StatementKind {
    if !facts.certain || facts.statements != StatementCount::One {
        return StatementKind::Other;
    }
    if is_read(facts) {
        return StatementKind::Read;
    }
    match (facts.txn, facts.class) {
        (TransactionControl::Begin { read_only: Some(true), .. }, _) if effects::foreseen(facts).is_empty() => {
            StatementKind::ReadOnlyTransaction
        }
        (TransactionControl::None, StatementClass::Write) => StatementKind::Write,
        (TransactionControl::None, StatementClass::Ddl) => StatementKind::Definition,
        (TransactionControl::None, StatementClass::Set) => StatementKind::Session,
        (TransactionControl::None, _) => StatementKind::Other,
        _ => StatementKind::Transaction,
    }
}

/// Whether it certainly only reads data, and asks nothing that hangs on one node or one server session.
fn is_read(facts: &Facts) -> bool {
    matches!(facts.verb, Verb::Select | Verb::Values | Verb::Table)
        && facts.side_effect_free_read
        && !facts.locking_read
        && facts.txn == TransactionControl::None
        && !facts.implicit_commit
        && effects::foreseen(facts).is_empty()
        && !facts.effects.intersects(Effects::SHOW_DIAGNOSTICS | Effects::VOLATILE_HIDDEN)
        && facts.volatile.iter().all(|call| is_answered_anywhere(call.kind))
}

/// Whether belay answers the call itself, or carries the value to the server session at hand.
const fn is_answered_anywhere(kind: VolatileKind) -> bool {
    match kind {
        VolatileKind::LastInsertId
        | VolatileKind::LastInsertIdVar
        | VolatileKind::IdentityVar
        | VolatileKind::RowCount
        | VolatileKind::FoundRows
        | VolatileKind::ConnectionId
        | VolatileKind::PseudoThreadIdVar => true,
        VolatileKind::WarningCountVar
        | VolatileKind::ErrorCountVar
        | VolatileKind::InsertIdVar
        | VolatileKind::LastGtidVar => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sql::{Flavor, LexContext, analyse};

    /// Statements that must never be taken for a read.
    pub const NO_READS: &[&str] = &[
        "INSERT INTO t VALUES (1)",
        "REPLACE INTO t VALUES (1)",
        "UPDATE t SET a = 1",
        "DELETE FROM t",
        "WITH c AS (SELECT 1) DELETE FROM t",
        "SELECT * FROM t FOR UPDATE",
        "SELECT * FROM t FOR SHARE",
        "SELECT * FROM t LOCK IN SHARE MODE",
        "(SELECT * FROM t FOR UPDATE)",
        "SELECT f(1)",
        "SELECT db.f(1)",
        "SELECT `f`(1)",
        "SELECT GET_LOCK('a', 1)",
        "SELECT RELEASE_LOCK('a')",
        "SELECT IS_FREE_LOCK('a')",
        "SELECT IS_USED_LOCK('a')",
        "SELECT LOAD_FILE('/etc/passwd')",
        "SELECT MASTER_GTID_WAIT('0-1-1')",
        "SELECT NEXTVAL(s)",
        "SELECT NEXT VALUE FOR s",
        "SELECT LASTVAL(s)",
        "SELECT PREVIOUS VALUE FOR s",
        "SELECT LAST_INSERT_ID(5)",
        "SELECT @a := 1",
        "SELECT 1 INTO @a",
        "SELECT * FROM t INTO OUTFILE '/tmp/x'",
        "SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1",
        "SELECT * FROM t PROCEDURE ANALYSE()",
        "SELECT @@warning_count",
        "SELECT @@error_count",
        "SELECT @@last_gtid",
        "SELECT @@insert_id",
        "SELECT 1; SELECT 2",
        "SELECT 1; DELETE FROM t",
        "SELEC 1",
        "SHOW TABLES",
        "SHOW WARNINGS",
        "EXPLAIN SELECT 1",
        "DESCRIBE t",
        "ANALYZE SELECT 1",
        "SET STATEMENT max_statement_time = 1 FOR SELECT 1",
        "SET @a = 1",
        "SET autocommit = 0",
        "USE test",
        "BEGIN",
        "START TRANSACTION",
        "START TRANSACTION READ WRITE",
        "COMMIT",
        "ROLLBACK",
        "SAVEPOINT a",
        "XA START 'a'",
        "CALL p()",
        "DO 1",
        "HANDLER t READ FIRST",
        "LOCK TABLES t READ",
        "FLUSH TABLES",
        "CREATE TABLE x (a INT)",
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO t SELECT * FROM t",
        "EXECUTE s",
        "PREPARE s FROM 'SELECT 1'",
        "KILL 5",
        "CHECKSUM TABLE t",
        "",
    ];

    /// Statements that are reads.
    pub const READS: &[&str] = &[
        "SELECT 1",
        "SELECT * FROM t WHERE a = 1",
        "SELECT COUNT(*), NOW() FROM t JOIN u USING (id) GROUP BY a HAVING COUNT(*) > 1 ORDER BY 1 LIMIT 5",
        "(SELECT 1) UNION (SELECT 2)",
        "WITH c AS (SELECT 1 AS x) SELECT * FROM c",
        "VALUES (1), (2)",
        "SELECT @@port",
        "SELECT @@global.read_only",
        "SELECT LAST_INSERT_ID()",
        "SELECT ROW_COUNT(), FOUND_ROWS(), CONNECTION_ID()",
        "SELECT @a",
        "/* c */ SELECT 1 -- c",
        "SELECT 'FOR UPDATE'",
    ];

    pub fn facts(sql: &str) -> Facts {
        let cx = LexContext {
            flavor: Flavor::MariaDb { version: 101_119 },
            multi_statements: true,
            ..LexContext::default()
        };
        analyse(sql.as_bytes(), &cx)
    }

    #[test]
    fn reads_are_reads_and_nothing_else_is() {
        for sql in READS {
            assert_eq!(of(&facts(sql)), StatementKind::Read, "{sql}");
        }
        for sql in NO_READS {
            assert!(!of(&facts(sql)).may_be_read_elsewhere(), "{sql}");
        }
        for sql in ["START TRANSACTION READ ONLY", "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY"] {
            assert_eq!(of(&facts(sql)), StatementKind::ReadOnlyTransaction, "{sql}");
        }
        assert_eq!(of(&facts("START TRANSACTION READ ONLY; DELETE FROM t")), StatementKind::Other);
        assert_eq!(of(&Facts::nothing()), StatementKind::Other);
        assert_eq!(of(&Facts::unknown()), StatementKind::Other);
        for (sql, kind) in [
            ("DELETE FROM t", StatementKind::Write),
            ("CREATE TABLE x (a INT)", StatementKind::Definition),
            ("SET @a = 1", StatementKind::Session),
            ("COMMIT", StatementKind::Transaction),
            ("BEGIN", StatementKind::Transaction),
            ("CALL p()", StatementKind::Other),
        ] {
            assert_eq!(of(&facts(sql)), kind, "{sql}");
        }
    }
}
