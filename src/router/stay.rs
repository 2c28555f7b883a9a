//! What becomes of a statement of a session that is still bound to a reader: it may stay, or the session goes back to the writer first.
//!
//! ```text
//!   READ ONLY transaction ──reads, its own end──▶ stays
//!                         ──writes───────────────▶ the servers' own refusal (1792)
//!                         ──commits by itself────▶ is ended, then the writer    (BEGIN, DDL, LOCK TABLES: servers do the same, observed)
//!                         ──anything that would outlast it, lock, or can't be read──▶ refused
//!   momentary pin         ──reads, questions for diagnostics──▶ stays
//!                         ──anything else───────▶ the pin is given up, then the writer
//!   lasting pin           ──reads───────────────▶ stays;  anything else ──▶ refused: what is there can't follow
//! ```
//! Nothing that may write is ever sent to a reader.

use crate::session::effects;
use crate::session::pins::PinReason;
use crate::sql::{Effects, Facts, StatementClass, StatementCount, TransactionControl, Verb};

use super::kind;

/// What keeps a session on the reader that it is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// A transaction is open there, or may be.
    pub in_transaction: bool,
    /// The server said that it is READ ONLY.
    pub read_only: bool,
    /// A pin that does not end by itself.
    pub lasting_pin: bool,
    /// User variables that the statement writes follow the session to other nodes.
    pub variables_follow: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stay {
    /// The reader serves it.
    Here,
    /// What keeps the session there is over with this statement: the writer serves it.
    Leave,
    /// It gets what servers answer to a write in a READ ONLY transaction, which stays open.
    ReadOnlyTransaction,
    /// It can't be served, and why.
    Refuse(&'static str),
}

/// Decides for one statement.
pub fn stay(facts: &Facts, kept: &Kept) -> Stay {
    match judge(facts, kept) {
        // Ending the transaction would not end what pins.
        Stay::Leave if kept.lasting_pin => Stay::Refuse(CANT_FOLLOW),
        stay => stay,
    }
}

const CANT_FOLLOW: &str = "what keeps this session on a reader can't follow it to the writer";

fn judge(facts: &Facts, kept: &Kept) -> Stay {
    if facts.certain && facts.statements == StatementCount::Empty && facts.effects.is_empty() {
        // A command without a text: ping, a prepare, the end of a cursor.
        return Stay::Here;
    }
    let asks_diagnostics = is_plain(facts, kept) && facts.effects.contains(Effects::SHOW_DIAGNOSTICS);
    if kind::of(facts).may_be_read_elsewhere() && facts.txn == TransactionControl::None || asks_diagnostics {
        return Stay::Here;
    }
    if kept.in_transaction {
        return in_transaction(facts, kept);
    }
    if !kept.lasting_pin {
        return if kind::of(facts).may_be_read_elsewhere() { Stay::Here } else { Stay::Leave };
    }
    match facts.txn {
        // There is none, and servers say OK.
        TransactionControl::Commit { .. } | TransactionControl::Rollback { .. } if is_plain(facts, kept) => Stay::Here,
        TransactionControl::None if is_plain(facts, kept) && facts.side_effect_free_read => Stay::Here,
        _ => Stay::Refuse(CANT_FOLLOW),
    }
}

/// Certain, alone, and without a trace that outlasts it.
fn is_plain(facts: &Facts, kept: &Kept) -> bool {
    let mut pins = effects::foreseen(facts);
    if kept.variables_follow {
        pins.remove(PinReason::UserVariables);
    }
    facts.certain
        && facts.statements == StatementCount::One
        && !pins.is_lasting()
        && !facts.effects.intersects(Effects::ROUTINE | Effects::UNKNOWN)
}

fn in_transaction(facts: &Facts, kept: &Kept) -> Stay {
    if !facts.certain || facts.statements != StatementCount::One {
        return Stay::Refuse("the transaction runs on a reader, and the statement can't be read for certain");
    }
    match facts.txn {
        TransactionControl::Commit { .. }
        | TransactionControl::Rollback { .. }
        | TransactionControl::RollbackTo
        | TransactionControl::Savepoint
        | TransactionControl::ReleaseSavepoint => return Stay::Here,
        _ if !kept.read_only => {
            return Stay::Refuse("the transaction runs on a reader, which does not say that it is READ ONLY");
        }
        TransactionControl::Begin { .. } => return Stay::Leave,
        // With autocommit on, which it is where a transaction begins on a reader, both commit nothing.
        TransactionControl::SetAutocommit(_) if is_plain(facts, kept) => return Stay::Here,
        _ => {}
    }
    // UNLOCK TABLES commits only where tables are locked.
    if facts.implicit_commit && facts.verb != Verb::Unlock && facts.txn == TransactionControl::None {
        return Stay::Leave;
    }
    if facts.locking_read {
        return Stay::Refuse("the transaction runs on a reader, where row locks keep nobody from writing");
    }
    let temporary = Effects::TEMPORARY_TABLE | Effects::TEMPORARY_TABLE_DROP;
    let writes = facts.class == StatementClass::Write
        || facts.class == StatementClass::Ddl && facts.effects.intersects(temporary);
    if writes && !facts.effects.intersects(Effects::ROUTINE) {
        return Stay::ReadOnlyTransaction;
    }
    if !is_plain(facts, kept) {
        return Stay::Refuse("the transaction runs on a reader, and the statement would keep the session there");
    }
    match facts.class {
        StatementClass::Read | StatementClass::Set => Stay::Here,
        StatementClass::Admin if facts.verb == Verb::Unlock => Stay::Here,
        // DO, SIGNAL, HELP and the like: plain, and no writes.
        StatementClass::Other
            if matches!(facts.verb, Verb::Do | Verb::GetDiagnostics | Verb::Signal | Verb::Resignal) =>
        {
            Stay::Here
        }
        _ => Stay::Refuse("the transaction runs on a reader, and the statement may do more than read"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::kind::tests::{NO_READS, READS, facts};
    use crate::router::rules::StatementKind;
    use proptest::prelude::*;

    const READ_ONLY: Kept = Kept { in_transaction: true, read_only: true, lasting_pin: false, variables_follow: true };
    const MOMENTARY: Kept =
        Kept { in_transaction: false, read_only: false, lasting_pin: false, variables_follow: true };
    const LASTING: Kept = Kept { in_transaction: false, read_only: false, lasting_pin: true, variables_follow: true };

    fn on(kept: &Kept, sql: &str) -> Stay {
        stay(&facts(sql), kept)
    }

    #[test]
    fn a_read_only_transaction_stays_whole() {
        for sql in
            ["SELECT 1", "SELECT * FROM t", "SHOW TABLES", "EXPLAIN SELECT 1", "COMMIT", "ROLLBACK", "COMMIT AND CHAIN"]
                .into_iter()
                .chain([
                    "SAVEPOINT a",
                    "ROLLBACK TO a",
                    "SHOW WARNINGS",
                    "SET time_zone = '+00:00'",
                    "USE test",
                    "UNLOCK TABLES",
                ])
                .chain(["SET autocommit = 1", "SET autocommit = 0", "DO 1"])
        {
            assert_eq!(on(&READ_ONLY, sql), Stay::Here, "{sql}");
        }
        assert_eq!(stay(&Facts::nothing(), &READ_ONLY), Stay::Here);
    }

    #[test]
    fn what_ends_it_by_itself_is_the_writers() {
        for sql in
            ["BEGIN", "START TRANSACTION", "START TRANSACTION READ ONLY", "CREATE TABLE x (a INT)", "DROP TABLE x"]
                .into_iter()
                .chain([
                    "ALTER TABLE t ADD b INT",
                    "TRUNCATE t",
                    "LOCK TABLES t READ",
                    "FLUSH TABLES",
                    "ANALYZE TABLE t",
                    "CREATE USER u",
                ])
        {
            assert_eq!(on(&READ_ONLY, sql), Stay::Leave, "{sql}");
        }
    }

    #[test]
    fn what_a_server_refuses_in_it_is_refused_in_its_words() {
        for sql in
            ["INSERT INTO t VALUES (1)", "UPDATE t SET a = 1", "DELETE FROM t", "CREATE TEMPORARY TABLE x (a INT)"]
                .into_iter()
                .chain(["DROP TEMPORARY TABLE x", "REPLACE INTO t VALUES (1)"])
        {
            assert_eq!(on(&READ_ONLY, sql), Stay::ReadOnlyTransaction, "{sql}");
        }
        for sql in
            ["SELECT * FROM t FOR UPDATE", "SELECT * FROM t LOCK IN SHARE MODE", "CALL p()", "SELECT f(1)", "gibberish"]
                .into_iter()
                .chain([
                    "SELECT GET_LOCK('a', 1)",
                    "SELECT 1; DELETE FROM t",
                    "COMMIT; DELETE FROM t",
                    "EXECUTE s",
                    "XA START 'a'",
                ])
                .chain(["INSERT INTO t VALUES (f(1))", "SELECT NEXTVAL(s)"])
        {
            assert!(matches!(on(&READ_ONLY, sql), Stay::Refuse(_)), "{sql}: {:?}", on(&READ_ONLY, sql));
        }
    }

    #[test]
    fn a_momentary_pin_is_given_up_for_anything_but_reads_and_questions() {
        for sql in ["SHOW WARNINGS", "SHOW ERRORS", "SHOW COUNT(*) WARNINGS", "SELECT @@warning_count", "SELECT 1"] {
            assert_eq!(on(&MOMENTARY, sql), Stay::Here, "{sql}");
        }
        for sql in
            ["INSERT INTO t VALUES (1)", "BEGIN", "SHOW TABLES", "CALL p()", "SELECT f(1)", "SET @a = 1", "gibberish"]
        {
            assert_eq!(on(&MOMENTARY, sql), Stay::Leave, "{sql}");
        }
    }

    #[test]
    fn under_a_lasting_pin_nothing_but_reads() {
        for sql in ["SELECT 1", "SHOW TABLES", "SHOW WARNINGS", "COMMIT", "ROLLBACK"] {
            assert_eq!(on(&LASTING, sql), Stay::Here, "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "BEGIN",
            "CALL p()",
            "SELECT f(1)",
            "CREATE TABLE x (a INT)",
            "gibberish",
            "LOCK TABLES t READ",
        ] {
            assert!(matches!(on(&LASTING, sql), Stay::Refuse(_)), "{sql}");
        }
    }

    fn any_text() -> impl Strategy<Value = String> {
        let words = "SELECT|INSERT|INTO|FROM|t|WHERE|;|UPDATE|SET|a|=|1|FOR|UPDATE|(|)|f(1)|@a|:=|COMMIT|BEGIN|CALL|p()|'x'|,|LOCK|IN|SHARE|MODE|\
            DELETE|VALUES|(1)|WITH|c|AS|UNION|ALL|/*|*/|--|#|`|START|TRANSACTION|READ|ONLY|WRITE|NEXT|VALUE|TABLE|CREATE|TEMPORARY|DROP";
        let words: Vec<&str> = words.split('|').collect();
        prop_oneof![
            proptest::sample::select([NO_READS, READS].concat()).prop_map(str::to_owned),
            proptest::collection::vec(proptest::sample::select(words), 1..10).prop_map(|w| w.join(" ")),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_may_write_stays_on_a_reader(
            sql in any_text(),
            in_transaction: bool,
            read_only: bool,
            lasting_pin: bool,
            variables_follow: bool,
        ) {
            let facts = facts(&sql);
            let kept = Kept { in_transaction, read_only, lasting_pin, variables_follow };
            let decided = stay(&facts, &kept);
            let empty = facts.statements == StatementCount::Empty;
            if decided == Stay::Here {
                prop_assert!(facts.certain, "{sql}");
                prop_assert!(empty || facts.statements == StatementCount::One, "{sql}");
                prop_assert!(!matches!(facts.class, StatementClass::Write | StatementClass::Ddl | StatementClass::Call), "{sql}");
                prop_assert!(!facts.locking_read && !facts.effects.intersects(Effects::ROUTINE | Effects::UNKNOWN), "{sql}");
                let mut pins = effects::foreseen(&facts);
                prop_assert!(variables_follow || !pins.is_lasting(), "{sql}");
                pins.remove(PinReason::UserVariables);
                prop_assert!(!pins.is_lasting(), "{sql}");
                let begins = matches!(facts.txn, TransactionControl::Begin { .. });
                prop_assert!(!begins || kind::of(&facts) == StatementKind::ReadOnlyTransaction, "{sql}");
            }
            // A transaction that belay can't end for nothing is never left.
            if decided == Stay::Leave {
                prop_assert!(!lasting_pin, "{sql}");
                prop_assert!(!in_transaction || read_only, "{sql}");
            }
        }

        #[test]
        fn only_certain_reads_are_reads(sql in any_text()) {
            let facts = facts(&sql);
            if kind::of(&facts).may_be_read_elsewhere() {
                prop_assert!(facts.certain && facts.statements == StatementCount::One, "{sql}");
                prop_assert!(effects::foreseen(&facts).is_empty() && !facts.locking_read, "{sql}");
                let upper = sql.to_uppercase();
                let read = facts.side_effect_free_read && facts.class == StatementClass::Read;
                let begins = matches!(facts.txn, TransactionControl::Begin { read_only: Some(true), .. });
                prop_assert!(read || begins, "{sql}");
                // Words that name something else elsewhere (`TABLE drop`, `INSERT('x')`) begin no statement that reads. What comments and quotes
                // hold is no word.
                let first = upper.trim_start_matches(['(', ' ', ';']).split_whitespace().next().unwrap_or_default();
                let hidden = upper.contains(['#', '`']) || upper.contains("/*") || upper.contains("--");
                prop_assert!(hidden || ["SELECT", "VALUES", "TABLE", "WITH", "START"].contains(&first), "{sql}");
            }
        }
    }
}
