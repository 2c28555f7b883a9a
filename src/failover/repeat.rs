//! What running a statement twice would do, as far as its text tells for certain.

use crate::sql::{Effects, Facts, StatementCount, TransactionControl, Verb};

/// What running a statement twice would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statement {
    /// Nothing that once does not do: it only reads, or only changes the server session that was lost with it.
    Repeatable,
    /// It begins a transaction, and so commits one that is open; outside of one it may be repeated.
    Begins,
    /// It changes data, or may.
    Ordinary,
    /// It ends a transaction, or may, and so commits what was done before it.
    MayCommit,
}

/// How much of a statement a node may have done that answers it with a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Nothing: it is one statement that runs no code but its own, and is refused before it begins.
    Nothing,
    /// A part: one of several statements, or code of a routine, may have been executed, and committed, before another was refused.
    Part,
}

/// Everything a SET may do and still only change its own server session.
const SESSION_ONLY: Effects = Effects::SYSTEM_VARIABLE_SET
    .union(Effects::CHARACTER_SET)
    .union(Effects::SQL_MODE)
    .union(Effects::USER_VARIABLE_WRITE)
    .union(Effects::USER_VARIABLE_READ)
    .union(Effects::NEXT_TRANSACTION)
    .union(Effects::ROLE)
    .union(Effects::SCHEMA);

/// What PREPARE and DEALLOCATE PREPARE do.
const NAMES: Effects = Effects::TEXT_PREPARE.union(Effects::TEXT_DEALLOCATE).union(Effects::USER_VARIABLE_READ);

/// Judges a statement. What views hide is out of sight here: see the caller's second look at the node's views.
pub fn statement(facts: &Facts) -> Statement {
    if facts.side_effect_free_read {
        return Statement::Repeatable;
    }
    if facts.statements == StatementCount::Empty && facts.certain && facts.effects.is_empty() {
        // A request without SQL text (COM_INIT_DB, COM_STMT_PREPARE, …), or a text without a statement.
        return Statement::Repeatable;
    }
    if !facts.certain || facts.statements != StatementCount::One || facts.effects.intersects(OUT_OF_SIGHT) {
        return Statement::MayCommit;
    }
    match facts.txn {
        TransactionControl::Begin { .. } => Statement::Begins,
        TransactionControl::Savepoint | TransactionControl::ReleaseSavepoint | TransactionControl::RollbackTo => {
            Statement::Ordinary
        }
        TransactionControl::None if facts.implicit_commit => Statement::MayCommit,
        TransactionControl::None => match facts.verb {
            // The names were lost with the server session.
            Verb::Prepare | Verb::Deallocate if NAMES.contains(facts.effects) => Statement::Repeatable,
            Verb::Set | Verb::Use if SESSION_ONLY.contains(facts.effects) && !facts.locking_read => {
                Statement::Repeatable
            }
            _ => Statement::Ordinary,
        },
        TransactionControl::Commit { .. }
        | TransactionControl::Rollback { .. }
        | TransactionControl::Xa(_)
        | TransactionControl::SetAutocommit(_) => Statement::MayCommit,
    }
}

/// How much of a statement may have been done before it was refused, as far as its text tells. What triggers and views do is out of sight here too.
pub fn extent(facts: &Facts, in_transaction: bool) -> Extent {
    if !facts.certain
        || matches!(facts.statements, StatementCount::Several(_))
        || facts.effects.intersects(OUT_OF_SIGHT)
    {
        return Extent::Part;
    }
    let ends = matches!(facts.txn, TransactionControl::Commit { .. } | TransactionControl::Rollback { .. });
    match statement(facts) {
        Statement::Repeatable | Statement::Ordinary => Extent::Nothing,
        // The transaction before it may have been committed first, and what comes after that refused.
        Statement::Begins | Statement::MayCommit if in_transaction && !ends => Extent::Part,
        Statement::Begins | Statement::MayCommit => Extent::Nothing,
    }
}

/// Code that is not in the text may COMMIT.
const OUT_OF_SIGHT: Effects = Effects::ROUTINE.union(Effects::TEXT_EXECUTE).union(Effects::UNKNOWN).union(Effects::XA);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{Flavor, LexContext, analyse};

    fn judged(sql: &str) -> Statement {
        let cx = LexContext { flavor: Flavor::MariaDb { version: 101_119 }, ..LexContext::default() };
        statement(&analyse(sql.as_bytes(), &cx))
    }

    #[test]
    fn only_one_statement_without_code_of_others_is_refused_as_a_whole() {
        let cx = LexContext { flavor: Flavor::MariaDb { version: 101_119 }, ..LexContext::default() };
        let extents = |sql: &str| [false, true].map(|within| extent(&analyse(sql.as_bytes(), &cx), within));
        for sql in [
            "INSERT INTO t VALUES (1)",
            "UPDATE t JOIN u USING (id) SET t.a = 1",
            "DELETE FROM t",
            "REPLACE INTO t SELECT * FROM u",
            "SELECT * FROM t FOR UPDATE",
            "SELECT 1",
            "SET @a = 1",
            "COMMIT",
            "ROLLBACK",
            "SAVEPOINT s",
        ] {
            assert_eq!(extents(sql), [Extent::Nothing; 2], "{sql}");
        }
        for sql in [
            "CALL p()",
            "SELECT f(1)",
            "INSERT INTO t VALUES (f(1))",
            "INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)",
            "BEGIN NOT ATOMIC INSERT INTO t VALUES (1); INSERT INTO t VALUES (2); END",
            "EXECUTE p",
            "EXECUTE IMMEDIATE 'INSERT INTO t VALUES (1)'",
            "XA COMMIT 'x'",
            "gibberish",
        ] {
            assert_eq!(extents(sql), [Extent::Part; 2], "{sql}");
        }
        for sql in ["BEGIN", "CREATE TABLE t (a INT)", "LOCK TABLES t WRITE", "SET autocommit = 1", "TRUNCATE t"] {
            assert_eq!(extents(sql), [Extent::Nothing, Extent::Part], "it commits what is before it: {sql}");
        }
    }

    #[test]
    fn reads_and_settings_may_be_repeated() {
        for sql in [
            "SELECT * FROM t WHERE id = 1",
            "SELECT COUNT(*), NOW() FROM t JOIN u USING (id)",
            "SHOW TABLES",
            "EXPLAIN SELECT 1",
            "SET NAMES utf8mb4",
            "SET sql_mode = 'ANSI', time_zone = '+00:00'",
            "SET @a = 5",
            "USE test",
            "SET TRANSACTION READ ONLY",
            "",
        ] {
            assert_eq!(judged(sql), Statement::Repeatable, "{sql}");
        }
        assert_eq!(statement(&Facts::nothing()), Statement::Repeatable);
    }

    #[test]
    fn a_read_that_is_none_may_not() {
        for sql in [
            "SELECT f(1)",
            "SELECT my_function(id) FROM t",
            "SELECT id INTO @v FROM t",
            "SELECT id FROM t INTO OUTFILE '/tmp/x'",
            "SELECT * FROM t FOR UPDATE",
            "SELECT * FROM t LOCK IN SHARE MODE",
            "SELECT @a := @a + 1",
            "SELECT NEXTVAL(s)",
            "SELECT NEXT VALUE FOR s",
            "SELECT GET_LOCK('a', 1)",
            "SELECT 1; SELECT 2",
            "SET GLOBAL max_connections = 5",
            "SET @a = f(1)",
            "SET @a = GET_LOCK('a', 1)",
            "SET PASSWORD = 'x'",
            "INSERT INTO t VALUES (1)",
            "INSERT INTO t VALUES (1) RETURNING id",
            "WITH c AS (SELECT 1) DELETE FROM t",
            "ANALYZE UPDATE t SET a = 1",
            "HANDLER t OPEN",
            "DO SLEEP(1)",
            "SELECT * FROM t PROCEDURE ANALYSE()",
        ] {
            assert_ne!(judged(sql), Statement::Repeatable, "{sql}");
        }
    }

    #[test]
    fn what_may_commit_is_known() {
        for sql in [
            "COMMIT",
            "COMMIT AND CHAIN",
            "ROLLBACK",
            "CREATE TABLE t (a INT)",
            "ALTER TABLE t ADD b INT",
            "TRUNCATE t",
            "LOCK TABLES t READ",
            "SET autocommit = 1",
            "CALL p()",
            "SELECT f(1)",
            "EXECUTE p",
            "XA COMMIT 'x'",
            "INSERT INTO t VALUES (1); COMMIT",
            "gibberish",
        ] {
            assert_eq!(judged(sql), Statement::MayCommit, "{sql}");
        }
        assert_eq!(judged("START TRANSACTION READ ONLY"), Statement::Begins);
        for sql in ["INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "SELECT * FROM t FOR UPDATE", "SAVEPOINT s"] {
            assert_eq!(judged(sql), Statement::Ordinary, "{sql}");
        }
    }
}
