//! What the facts must be: tables of statements, and `sqlparser` as a second opinion.

use super::*;

pub(super) const MARIA: LexContext = LexContext { flavor: Flavor::MariaDb { version: 101_119 }, ..PLAIN };
pub(super) const MYSQL: LexContext = LexContext { flavor: Flavor::MySql { version: 90_704 }, ..PLAIN };
const PLAIN: LexContext = LexContext {
    no_backslash_escapes: false,
    ansi_quotes: false,
    multibyte: MultiByte::None,
    flavor: Flavor::Unknown,
    oracle_mode: false,
    ignore_space: false,
    multi_statements: true,
};

fn facts(sql: &str) -> Facts {
    analyse(sql.as_bytes(), &MARIA)
}

pub(super) fn span_text(sql: &str, span: Span) -> &str {
    core::str::from_utf8(span.of(sql.as_bytes())).unwrap()
}

#[test]
fn verbs_and_classes() {
    use StatementClass as C;
    let cases: &[(&str, Verb, C)] = &[
        ("select 1", Verb::Select, C::Read),
        ("  /* c */ ((SELECT 1) UNION (SELECT 2))", Verb::Select, C::Read),
        ("WITH a AS (SELECT 1), b(x, y) AS (SELECT 1, 2) SELECT * FROM a", Verb::Select, C::Read),
        ("WITH RECURSIVE a AS (SELECT 1) UPDATE t SET x=1", Verb::Update, C::Write),
        ("WITH a AS (SELECT 1) DELETE FROM t", Verb::Delete, C::Write),
        ("INSERT INTO t(a) VALUES (1)", Verb::Insert, C::Write),
        ("REPLACE LOW_PRIORITY db.t (a) SELECT 1", Verb::Replace, C::Write),
        ("VALUES ROW(1), ROW(2)", Verb::Values, C::Read),
        ("TABLE t", Verb::Table, C::Read),
        ("EXPLAIN SELECT 1", Verb::Explain, C::Read),
        ("EXPLAIN UPDATE t SET a=1", Verb::Explain, C::Read),
        ("desc t", Verb::Explain, C::Read),
        ("ANALYZE UPDATE t SET a=1", Verb::AnalyzeStatement, C::Write),
        ("ANALYZE FORMAT=JSON SELECT 1", Verb::AnalyzeStatement, C::Read),
        ("ANALYZE TABLE t", Verb::Analyze, C::Admin),
        ("SHOW TABLES", Verb::Show, C::Read),
        ("CREATE TABLE t (a INT)", Verb::Create, C::Ddl),
        ("TRUNCATE t", Verb::Truncate, C::Ddl),
        ("GRANT SELECT ON *.* TO 'a'@'b'", Verb::Grant, C::Ddl),
        ("DO SLEEP(1)", Verb::Do, C::Other),
        ("CALL p(1)", Verb::Call, C::Call),
        ("SET a=1", Verb::Set, C::Set),
        ("SET STATEMENT max_statement_time=1 FOR SELECT 1", Verb::SetStatement, C::Read),
        ("EXECUTE IMMEDIATE 'select 1'", Verb::ExecuteImmediate, C::Call),
        ("BEGIN NOT ATOMIC SELECT 1; END", Verb::BeginNotAtomic, C::Call),
        ("START SLAVE", Verb::Replication, C::Admin),
        ("FROBNICATE", Verb::Unknown, C::Other),
        ("IF 1 THEN SELECT 1; END IF", Verb::Unknown, C::Other),
        ("LOAD DATA LOCAL INFILE 'x' INTO TABLE t (a, @b)", Verb::Load, C::Write),
    ];
    for (sql, verb, class) in cases {
        let facts = facts(sql);
        assert_eq!((facts.verb, facts.class), (*verb, *class), "{sql}");
        assert_eq!(facts.statements, StatementCount::One, "{sql}");
    }
}

#[test]
fn statements_are_counted() {
    let cases: &[(&str, StatementCount)] = &[
        ("", StatementCount::Empty),
        (" ; /* x */ ;; -- y", StatementCount::Empty),
        ("select 1;", StatementCount::One),
        ("select 1; -- that's all; folks\n", StatementCount::One),
        ("select ';'", StatementCount::One),
        ("select 1; select 2;;select 3", StatementCount::Several(3)),
        ("select 1 # ; \n ; select 2", StatementCount::Several(2)),
        ("CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END", StatementCount::One),
    ];
    for (sql, count) in cases {
        assert_eq!(facts(sql).statements, *count, "{sql}");
    }
    let several = facts("SET @a=1; SELECT GET_LOCK('x',1); COMMIT");
    assert!(several.effects.contains(Effects::USER_VARIABLE_WRITE | Effects::GET_LOCK));
    assert_eq!(several.txn, TransactionControl::Commit { chain: None, release: None });
    assert_eq!(several.class, StatementClass::Other);
    assert!(!several.side_effect_free_read);
    let hidden = facts("INSERT INTO t VALUES (1); SELECT LAST_INSERT_ID()");
    assert!(hidden.volatile.is_empty() && !hidden.certain && hidden.effects.contains(Effects::VOLATILE_HIDDEN));
}

#[test]
fn transactions() {
    use TransactionControl as T;
    let begin = T::Begin { read_only: None, consistent_snapshot: false };
    let cases: &[(&str, T)] = &[
        ("BEGIN", begin),
        ("begin work;", begin),
        ("START TRANSACTION; /* x */ -- y", begin),
        ("START /* a */ TRANSACTION", begin),
        ("START TRANSACTION READ ONLY", T::Begin { read_only: Some(true), consistent_snapshot: false }),
        (
            "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ WRITE",
            T::Begin { read_only: Some(false), consistent_snapshot: true },
        ),
        ("COMMIT", T::Commit { chain: None, release: None }),
        ("COMMIT WORK AND NO CHAIN RELEASE", T::Commit { chain: Some(false), release: Some(true) }),
        ("COMMIT AND CHAIN", T::Commit { chain: Some(true), release: None }),
        ("rollback and chain no release", T::Rollback { chain: Some(true), release: Some(false) }),
        ("ROLLBACK TO a", T::RollbackTo),
        ("ROLLBACK WORK TO SAVEPOINT `a b`", T::RollbackTo),
        ("SAVEPOINT a", T::Savepoint),
        ("RELEASE SAVEPOINT a", T::ReleaseSavepoint),
        ("XA START 'x'", T::Xa(XaVerb::Start)),
        ("XA PREPARE 'x'", T::Xa(XaVerb::Prepare)),
        ("SET autocommit=0", T::SetAutocommit(false)),
        ("SET @@session.autocommit = ON", T::SetAutocommit(true)),
        ("SET NAMES utf8, autocommit = 'off'", T::SetAutocommit(false)),
        ("SET GLOBAL autocommit=1", T::None),
        ("SELECT 'BEGIN'", T::None),
    ];
    for (sql, txn) in cases {
        let facts = facts(sql);
        assert_eq!(facts.txn, *txn, "{sql}");
        assert!(facts.certain, "{sql}");
    }
    for sql in
        ["BEGIN x", "COMMIT AND", "START TRANSACTION WITH", "SET autocommit=@a", "SET autocommit=DEFAULT", "XA FOO"]
    {
        assert!(!facts(sql).certain, "{sql}");
    }
}

#[test]
fn implicit_commits() {
    for sql in [
        "CREATE TABLE t (a INT)",
        "ALTER TABLE t ADD b INT",
        "DROP TABLE t",
        "TRUNCATE t",
        "LOCK TABLES t READ",
        "SET autocommit=1",
        "BEGIN",
        "GRANT ALL ON *.* TO a",
        "FLUSH TABLES",
        "SET PASSWORD = 'x'",
        "RENAME TABLE a TO b",
    ] {
        assert!(facts(sql).implicit_commit, "{sql}");
    }
    for sql in [
        "CREATE TEMPORARY TABLE t (a INT)",
        "CREATE OR REPLACE TEMPORARY TABLE t AS SELECT 1",
        "DROP TEMPORARY TABLE t",
        "DROP PREPARE p",
        "SET autocommit=0",
        "INSERT INTO t VALUES (1)",
        "COMMIT",
        "SET NAMES utf8",
    ] {
        assert!(!facts(sql).implicit_commit, "{sql}");
    }
}

#[test]
fn effects() {
    use Effects as E;
    let cases: &[(&str, E)] = &[
        ("SELECT 1", E::empty()),
        ("SET @a=1, @`b c`:=2", E::USER_VARIABLE_WRITE),
        ("SELECT @a := 5", E::USER_VARIABLE_WRITE),
        ("SELECT a INTO @x, @y FROM t", E::USER_VARIABLE_WRITE),
        ("SELECT @a, @'b'", E::USER_VARIABLE_READ),
        ("SELECT 'a@b.c'", E::empty()),
        ("SELECT GET_LOCK('a', 1)", E::GET_LOCK),
        ("DO RELEASE_LOCK('a')", E::RELEASE_LOCK),
        ("SELECT f(1)", E::ROUTINE),
        ("SELECT db.count(1)", E::ROUTINE),
        ("SELECT `count`(1)", E::ROUTINE),
        ("SELECT COUNT (*) FROM t", E::ROUTINE),
        ("SELECT CONCAT ('a')", E::empty()),
        ("INSERT INTO t(a) VALUES (1)", E::empty()),
        ("INSERT INTO db . t (a) SELECT f(1)", E::ROUTINE),
        ("SELECT * FROM (SELECT 1) AS d(a)", E::empty()),
        ("SELECT * FROM t USE INDEX (a) WHERE b IN (1) AND (c) OR NOT (d)", E::empty()),
        ("WITH c(a) AS (SELECT f(1)) SELECT a FROM c", E::ROUTINE),
        ("SELECT a = ANY (SELECT 1), any(1)", E::ROUTINE),
        ("SELECT MATCH (a) AGAINST ('x') FROM t", E::empty()),
        ("SELECT * FROM JSON_TABLE('[]', '$' COLUMNS(a INT PATH '$')) j", E::empty()),
        ("SELECT CAST(1 AS DECIMAL(10,2)), CONVERT(a, CHAR(3)), x'00', _utf8'a'", E::empty()),
        ("CREATE TABLE t (a VARCHAR(10), KEY k (a), CHECK (f(a)))", E::empty()),
        ("CREATE TABLE t (a INT) SELECT f(1)", E::CREATE_TABLE_SELECT.union(E::ROUTINE)),
        ("CREATE TEMPORARY TABLE t (a INT)", E::TEMPORARY_TABLE),
        ("DROP TABLE IF EXISTS t", E::TEMPORARY_TABLE_DROP),
        ("CREATE USER 'a'@'b' IDENTIFIED BY 'x'", E::ACCOUNT),
        ("SHOW GRANTS FOR 'a'@'b'", E::empty()),
        ("LOCK TABLES a READ", E::LOCK_TABLES),
        ("UNLOCK TABLES", E::UNLOCK_TABLES),
        ("FLUSH TABLES a WITH READ LOCK", E::FLUSH_READ_LOCK),
        ("FLUSH TABLES a FOR EXPORT", E::FLUSH_READ_LOCK),
        ("BACKUP STAGE START", E::FLUSH_READ_LOCK),
        ("BACKUP STAGE END", E::UNLOCK_TABLES),
        ("HANDLER db.t OPEN AS x", E::HANDLER_OPEN),
        ("HANDLER x READ FIRST", E::HANDLER_USE),
        ("HANDLER x CLOSE", E::HANDLER_CLOSE),
        ("PREPARE p FROM 'SELECT 1'", E::TEXT_PREPARE),
        ("DEALLOCATE PREPARE p", E::TEXT_DEALLOCATE),
        ("CALL p()", E::ROUTINE),
        ("SET ROLE NONE", E::ROLE),
        ("SET TRANSACTION READ ONLY", E::NEXT_TRANSACTION),
        ("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", E::SYSTEM_VARIABLE_SET),
        ("SET @@tx_isolation='SERIALIZABLE'", E::SYSTEM_VARIABLE_SET.union(E::NEXT_TRANSACTION)),
        ("SET GLOBAL x=1", E::GLOBAL_SET),
        ("SET @@global.x=1", E::GLOBAL_SET),
        ("SET timestamp=1", E::SYSTEM_VARIABLE_SET.union(E::TIMESTAMP_VARIABLE)),
        ("SET rand_seed1=1", E::SYSTEM_VARIABLE_SET.union(E::RAND_SEED)),
        ("SET insert_id=1", E::SYSTEM_VARIABLE_SET.union(E::INSERT_ID)),
        ("SET @@last_insert_id=1", E::SYSTEM_VARIABLE_SET.union(E::LAST_INSERT_ID_SET)),
        ("SET sql_log_bin=0", E::SYSTEM_VARIABLE_SET.union(E::REPLICATION_VARIABLE)),
        ("SET session_track_schema=1", E::SYSTEM_VARIABLE_SET.union(E::SESSION_TRACKING)),
        ("UPDATE t SET id=LAST_INSERT_ID(id+1)", E::LAST_INSERT_ID_SET),
        ("SELECT SQL_CALC_FOUND_ROWS 1", E::CALC_FOUND_ROWS),
        ("SELECT 1 INTO OUTFILE '/x'", E::SELECT_INTO),
        ("SHOW WARNINGS LIMIT 1", E::SHOW_DIAGNOSTICS),
        ("SHOW COUNT(*) ERRORS", E::SHOW_DIAGNOSTICS),
        ("SELECT @@warning_count", E::SHOW_DIAGNOSTICS),
        ("GET DIAGNOSTICS @n = NUMBER", E::SHOW_DIAGNOSTICS.union(E::USER_VARIABLE_WRITE)),
        ("SHOW PROFILES", E::PROFILING),
        ("SELECT NEXTVAL(s), NEXT VALUE FOR s", E::SEQUENCE_WRITE),
        ("SELECT LASTVAL(s)", E::SEQUENCE_READ),
        ("SELECT PREVIOUS VALUE FOR s", E::SEQUENCE_READ),
        ("USE db", E::SCHEMA),
        ("LOAD DATA INFILE 'x' INTO TABLE t (a, @b)", E::LOAD_DATA.union(E::USER_VARIABLE_WRITE)),
        ("LOAD DATA LOW_PRIORITY LOCAL INFILE 'x' INTO TABLE t (a)", E::LOAD_LOCAL),
        ("INSTALL PLUGIN x SONAME 'y'", E::INSTALL),
        ("XA RECOVER", E::XA),
    ];
    for (sql, effects) in cases {
        let facts = facts(sql);
        assert_eq!(facts.effects, *effects, "{sql}");
        assert!(facts.certain, "{sql}");
    }
    // nextval is no function of MySQL: it may be a stored one.
    assert_eq!(analyse(b"SELECT NEXTVAL(s)", &MYSQL).effects, E::ROUTINE);
}

#[test]
fn what_is_no_code_fools_nobody() {
    for sql in [
        "SELECT 'GET_LOCK(1)', \"@a := 1\" FROM `for update`",
        "SELECT 1 /* INTO @a */ -- ; COMMIT\n # GET_LOCK('a')\n",
        "SELECT 1--1",
        "SELECT 'it''s \\' FOR UPDATE', N'\\' INTO @a', x'41'",
        "SELECT /*+ MAX_EXECUTION_TIME(1) SET_VAR(a=1) */ 1",
        "SELECT t.update, t.`into`, t . procedure FROM t",
        "SELECT a.1e5, .5, 1., 1.5e-3, 0x1F FROM a",
        "SELECT é FROM t WHERE ñ = 'ö'",
    ] {
        let facts = facts(sql);
        assert!(facts.side_effect_free_read, "{sql}: {facts:?}");
        assert_eq!(facts.statements, StatementCount::One, "{sql}");
        assert_eq!(facts.effects, Effects::empty(), "{sql}");
    }
}

#[test]
fn doubt() {
    for sql in [
        "SELECT 'a",
        "SELECT `a",
        "SELECT 1 /* x",
        "SELECT 1 /*!40101 , 2",
        "SELECT x'4g'",
        "SET STATEMENT a=1 FOR SELECT 1",
        "EXECUTE p USING @a",
        "BINLOG 'x'",
        "EXPLAIN FOR CONNECTION 5",
        "SHOW EXPLAIN FOR 5",
        "SET RESOURCE GROUP x",
        "SET a",
        "SET a=",
        "(UPDATE t SET a=1)",
        "WITH a SELECT 1",
        "123",
    ] {
        let facts = facts(sql);
        assert!(!facts.certain && !facts.side_effect_free_read, "{sql}");
        assert!(facts.effects.intersects(Effects::UNKNOWN | Effects::ROUTINE), "{sql}");
    }
    let nbsp = analyse(b"SELECT a\xa0INTO @b", &MARIA);
    assert!(!nbsp.certain, "a blank in latin1");
    assert!(!analyse(b"SELECT 1", &LexContext { oracle_mode: true, ..MARIA }).certain);
}

#[test]
fn version_comments() {
    let dump = "/*!40101 SET NAMES utf8 */;";
    for cx in [&MARIA, &MYSQL] {
        let facts = analyse(dump.as_bytes(), cx);
        assert_eq!(facts.verb, Verb::Set);
        assert!(facts.certain && facts.set_names.is_some());
    }
    assert!(!analyse(dump.as_bytes(), &PLAIN).certain);
    // Not for this server: no statement at all.
    assert_eq!(analyse(b"/*!99999 SET @a=1 */", &MYSQL).statements, StatementCount::Empty);
    assert_eq!(analyse(b"/*!80000 SET @a=1 */", &MARIA).statements, StatementCount::Empty);
    assert_eq!(analyse(b"/*!50701 SET @a=1 */", &MARIA).statements, StatementCount::Empty);
    assert_eq!(analyse(b"/*M!100000 SET @a=1 */", &MYSQL).statements, StatementCount::Empty);
    assert_eq!(analyse(b"/*M!100000 SET @a=1 */", &MARIA).effects, Effects::USER_VARIABLE_WRITE);
    assert_eq!(analyse(b"SELECT 1 /*!50001 , GET_LOCK('a',1) */", &MARIA).effects, Effects::GET_LOCK);
    assert_eq!(analyse(b"SELECT 1 /*!101199 /* x */ , @a:=1 */ , 3", &MARIA).effects, Effects::empty());
    assert!(analyse(b"SELECT 1 /*!999999 x */", &PLAIN).effects.contains(Effects::UNKNOWN));
}

#[test]
fn the_context_decides_where_strings_end() {
    let free = |sql: &[u8], cx: &LexContext| analyse(sql, cx).side_effect_free_read;
    // A backslash that is none: here the call is inside a string, there it is not.
    assert!(free(b"SELECT '\\', GET_LOCK('a', 1), '", &MARIA));
    let no_escapes = LexContext { no_backslash_escapes: true, ..MARIA };
    assert!(analyse(b"SELECT '\\', GET_LOCK('a', 1)", &no_escapes).effects.contains(Effects::GET_LOCK));
    // `"` quotes a name: what looks like a call of a string is a stored function.
    let ansi = LexContext { ansi_quotes: true, ..MARIA };
    assert!(free(b"SELECT \"a\\\"", &ansi));
    assert_eq!(analyse(b"SELECT \"f\"(1)", &ansi).effects, Effects::ROUTINE);
    // gbk: BF 5C is one character; without knowing that the backslash would escape the quote.
    let gbk = LexContext { multibyte: MultiByte::Gbk, ..MARIA };
    assert_eq!(analyse(b"SELECT '\xbf\x5c', @a:=1, ' '", &gbk).effects, Effects::USER_VARIABLE_WRITE);
    assert!(analyse(b"SELECT `\x81\x60`, 1", &gbk).certain);
    assert!(analyse(b"SELECT '\x83\x5c'", &LexContext { multibyte: MultiByte::Sjis, ..MARIA }).certain);
    assert!(analyse(b"SELECT '\xa5\x5c'", &LexContext { multibyte: MultiByte::Big5, ..MARIA }).certain);
    assert!(analyse(b"SELECT '\x81\x30\x81\x5c'", &LexContext { multibyte: MultiByte::Gb18030, ..MARIA }).certain);
    assert!(!analyse(b"SELECT '\x83\x5c'", &MARIA).certain);
    // Blanks before the parenthesis.
    assert!(free(b"SELECT COUNT (*) FROM t", &LexContext { ignore_space: true, ..MARIA }));
}

#[test]
fn reads_without_side_effects() {
    for sql in [
        "SELECT * FROM t WHERE a=@x LIMIT 5",
        "SELECT SLEEP(1), UUID(), BENCHMARK(1, MD5('a'))",
        "(SELECT 1) UNION (SELECT 2) ORDER BY 1",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "TABLE t",
        "SHOW CREATE PROCEDURE p",
        "EXPLAIN SELECT 1",
        "ANALYZE SELECT 1",
        "SELECT LAST_INSERT_ID(), CONNECTION_ID()",
        "SELECT REPLACE(a, 'x', INSERT('a', 1, 1, 'b')), IF(a, b, c), LEFT(a, 1) FROM t",
        "HELP 'select'",
    ] {
        assert!(facts(sql).side_effect_free_read, "{sql}");
    }
    for sql in [
        "SELECT 1 FOR UPDATE",
        "SELECT 1 FROM t FOR SHARE",
        "SELECT 1 FROM t LOCK IN SHARE MODE",
        "SELECT 1 INTO @a",
        "SELECT 1 INTO OUTFILE 'x'",
        "SELECT 1 INTO x",
        "SELECT * FROM t PROCEDURE ANALYSE()",
        "SELECT GET_LOCK('a',1)",
        "SELECT f(1)",
        "SELECT MASTER_POS_WAIT('a', 1)",
        "SELECT LAST_INSERT_ID(1)",
        "SELECT 1; SELECT 2",
        "SHOW WARNINGS",
        "ANALYZE DELETE FROM t",
        "EXPLAIN DELETE FROM t",
        "INSERT INTO t VALUES (1)",
        "DO 1",
        "HANDLER t READ FIRST",
        "",
    ] {
        assert!(!facts(sql).side_effect_free_read, "{sql}");
    }
    assert!(facts("SELECT 1 FOR UPDATE").locking_read);
    assert!(!facts("SELECT 1").locking_read);
}

#[test]
fn volatile_calls() {
    use VolatileKind as V;
    let cases: &[(&str, V, &str, Option<&str>)] = &[
        ("SELECT LAST_INSERT_ID()", V::LastInsertId, "LAST_INSERT_ID()", Some("LAST_INSERT_ID()")),
        ("select row_count ( /* x */ ) ;", V::RowCount, "row_count ( /* x */ )", Some("row_count ( /* x */ )")),
        ("SELECT 1, FOUND_ROWS() AS n", V::FoundRows, "FOUND_ROWS()", None),
        ("SELECT a+CONNECTION_ID() FROM t", V::ConnectionId, "CONNECTION_ID()", Some("a+CONNECTION_ID()")),
        ("SELECT @@session . identity", V::IdentityVar, "@@session . identity", Some("@@session . identity")),
        ("SELECT @@`last_insert_id` x", V::LastInsertIdVar, "@@`last_insert_id`", None),
        ("SELECT @@pseudo_thread_id 'x'", V::PseudoThreadIdVar, "@@pseudo_thread_id", None),
        (
            "SELECT (SELECT LAST_INSERT_ID()) FROM t",
            V::LastInsertId,
            "LAST_INSERT_ID()",
            Some("(SELECT LAST_INSERT_ID())"),
        ),
        ("SET @a = LAST_INSERT_ID()", V::LastInsertId, "LAST_INSERT_ID()", None),
        ("DELETE FROM t WHERE id = LAST_INSERT_ID()", V::LastInsertId, "LAST_INSERT_ID()", None),
        ("EXPLAIN SELECT LAST_INSERT_ID()", V::LastInsertId, "LAST_INSERT_ID()", None),
    ];
    for (sql, kind, text, item) in cases {
        let facts = facts(sql);
        assert_eq!(facts.volatile.len(), 1, "{sql}");
        let call = facts.volatile[0];
        assert_eq!((call.kind, span_text(sql, call.range)), (*kind, *text), "{sql}");
        assert_eq!(call.unaliased_item.map(|span| span_text(sql, span)), *item, "{sql}");
        assert_eq!(call.plain_select_item, *item == Some(*text), "{sql}");
        assert!(facts.certain, "{sql}");
    }
    for sql in ["SELECT @@global.last_insert_id", "SET last_insert_id=1", "CREATE VIEW v AS SELECT CONNECTION_ID()"] {
        assert!(facts(sql).volatile.is_empty(), "{sql}");
    }
    for sql in ["INSERT INTO t VALUES (1) RETURNING LAST_INSERT_ID()", "SELECT FOUND_ROWS(1)"] {
        assert!(!facts(sql).certain, "{sql}");
    }
}

#[test]
fn assignments() {
    let sql =
        "SET a=1, @b := 'x''y', GLOBAL c = -3, @@session.d=ON, @@local.`e`=DEFAULT, f = concat(1,2), @@persist.g = 1.5";
    let facts = facts(sql);
    let seen: Vec<_> = facts
        .set
        .iter()
        .map(|item| (item.scope, span_text(sql, item.name), span_text(sql, item.value), item.literal.is_some()))
        .collect();
    let expected = [
        (SetScope::Session, "a", "1", true),
        (SetScope::User, "b", "'x''y'", true),
        (SetScope::Global, "c", "-3", true),
        (SetScope::Session, "d", "ON", true),
        (SetScope::Session, "e", "DEFAULT", true),
        // GLOBAL goes on for items without a scope.
        (SetScope::Global, "f", "concat(1,2)", false),
        (SetScope::Persist, "g", "1.5", true),
    ];
    assert_eq!(seen, expected);
    assert!(facts.certain);
    assert_eq!(facts.set[0].literal, Some(Literal::Integer(1)));
    assert_eq!(facts.set[2].literal, Some(Literal::Integer(-3)));
    assert!(!analyse(b"SET GLOBAL a=1, b=2", &PLAIN).certain);

    let names = |sql: &'static str| {
        let found = facts_of_names(sql);
        (found.character_set_form, found.charset.map(|s| span_text(sql, s)), found.collate.map(|s| span_text(sql, s)))
    };
    assert_eq!(names("SET NAMES utf8mb4"), (false, Some("utf8mb4"), None));
    assert_eq!(names("set names 'utf8' collate 'utf8_bin'"), (false, Some("utf8"), Some("utf8_bin")));
    assert_eq!(names("SET CHARACTER SET latin1"), (true, Some("latin1"), None));
    assert_eq!(names("SET autocommit=0, NAMES DEFAULT"), (false, None, None));

    let sql = "SET SESSION TRANSACTION READ ONLY, ISOLATION LEVEL READ COMMITTED;";
    let transaction = self::facts(sql).set_transaction.unwrap();
    assert_eq!(transaction.scope, Some(SetScope::Session));
    assert_eq!(span_text(sql, transaction.text), "READ ONLY, ISOLATION LEVEL READ COMMITTED");
    let sql = "SET ROLE `a`, b";
    assert_eq!(self::facts(sql).set_role.map(|span| span_text(sql, span)), Some("`a`, b"));
}

fn facts_of_names(sql: &str) -> SetNames {
    facts(sql).set_names.unwrap()
}

#[test]
fn kills() {
    let kill = |sql: &str| facts(sql).kill.unwrap();
    let whole = Kill { query_only: false, hard: None, target: KillTarget::Id(5) };
    assert_eq!(kill("KILL 5"), whole);
    assert_eq!(kill("KILL CONNECTION 5;"), whole);
    assert_eq!(kill("KILL QUERY 5"), Kill { query_only: true, ..whole });
    assert_eq!(kill("KILL HARD CONNECTION 5"), Kill { hard: Some(true), ..whole });
    let sql = "KILL SOFT QUERY ID 7";
    assert!(matches!(kill(sql).target, KillTarget::QueryId(span) if span_text(sql, span) == "7"));
    let sql = "KILL USER 'a'@'b'";
    assert!(matches!(kill(sql).target, KillTarget::User(span) if span_text(sql, span) == "'a'@'b'"));
    assert_eq!(facts(sql).effects, Effects::empty());
    for sql in ["KILL @a", "KILL CONNECTION_ID()", "KILL 5+1", "KILL 99999999999999999999999", "KILL -1", "KILL ?"] {
        assert!(matches!(kill(sql).target, KillTarget::Expression(_)), "{sql}");
        assert!(!facts(sql).certain, "{sql}");
    }
    assert!(!facts("KILL").certain);
    for sql in [
        "SELECT 1; KILL 7",
        "KILL 7; SELECT 1",
        "BEGIN NOT ATOMIC SELECT 1; KILL 7; END",
        "IF 1 THEN KILL QUERY 7; END IF",
        "l: LOOP KILL @a; LEAVE l; END LOOP",
    ] {
        assert!(facts(sql).kill_inside, "{sql}");
    }
    for sql in [
        "KILL 7;",
        "SELECT `kill` FROM t; SELECT t.kill FROM t",
        "BEGIN NOT ATOMIC SELECT t.kill, 'KILL 7' FROM t; END",
        "CREATE PROCEDURE p() BEGIN KILL 7; END",
    ] {
        assert!(!facts(sql).kill_inside, "{sql}");
    }
}

#[test]
fn names() {
    let sql = "USE `a``b`;";
    assert_eq!(facts(sql).use_schema.map(|span| span_text(sql, span)), Some("a``b"));
    for sql in ["PREPARE p FROM @x", "EXECUTE p", "DEALLOCATE PREPARE `p`", "DROP PREPARE p"] {
        assert_eq!(facts(sql).prepared_name.map(|span| span_text(sql, span)), Some("p"), "{sql}");
    }
}

/// `sqlparser` reads the statement too: verb, reads or writes, transaction.
#[test]
fn sqlparser_agrees() {
    use sqlparser::ast::{SetExpr, Statement as Ast};
    use sqlparser::dialect::MySqlDialect;
    use sqlparser::parser::Parser;

    let statements = [
        "SELECT a, COUNT(*) FROM t JOIN u ON t.id = u.id WHERE a IN (1,2) GROUP BY a HAVING COUNT(*) > 1 ORDER BY a LIMIT 3",
        "SELECT 'a;b', `c` FROM d FOR UPDATE",
        "(SELECT 1) UNION ALL (SELECT 2)",
        "WITH x AS (SELECT 1) SELECT * FROM x",
        "INSERT INTO t (a) VALUES (1) ON DUPLICATE KEY UPDATE a = 2",
        "REPLACE INTO t (a) VALUES (1)",
        "UPDATE t SET a = 1 WHERE b = 2",
        "DELETE FROM t WHERE a = 1",
        "START TRANSACTION",
        "START TRANSACTION READ ONLY",
        "BEGIN",
        "COMMIT",
        "COMMIT AND CHAIN",
        "ROLLBACK",
        "SAVEPOINT a",
        "RELEASE SAVEPOINT a",
        "CREATE TABLE t (a INT PRIMARY KEY)",
        "CREATE TEMPORARY TABLE t (a INT)",
        "DROP TABLE t",
        "TRUNCATE TABLE t",
        "ALTER TABLE t ADD COLUMN b INT",
        "SET autocommit = 0",
        "USE db",
        "SHOW TABLES",
        "SELECT 1; SELECT 2",
        "KILL QUERY 5",
        "LOCK TABLES t READ",
        "UNLOCK TABLES",
    ];
    for sql in statements {
        let Ok(parsed) = Parser::parse_sql(&MySqlDialect {}, sql) else {
            panic!("sqlparser must read {sql}");
        };
        let ours = facts(sql);
        let count = match ours.statements {
            StatementCount::Empty => 0,
            StatementCount::One => 1,
            StatementCount::Several(count) => count as usize,
        };
        assert_eq!(count, parsed.len(), "{sql}");
        let (verb, class) = match &parsed[0] {
            Ast::Query(query) => match query.body.as_ref() {
                SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_) => continue,
                _ => (Verb::Select, StatementClass::Read),
            },
            Ast::Insert(insert) if insert.replace_into => (Verb::Replace, StatementClass::Write),
            Ast::Insert(_) => (Verb::Insert, StatementClass::Write),
            Ast::Update { .. } => (Verb::Update, StatementClass::Write),
            Ast::Delete(_) => (Verb::Delete, StatementClass::Write),
            Ast::StartTransaction { .. } => (Verb::Begin, StatementClass::Transaction),
            Ast::Commit { chain, .. } => {
                let said = matches!(ours.txn, TransactionControl::Commit { chain: Some(true), .. });
                assert_eq!(said, *chain, "{sql}");
                (Verb::Commit, StatementClass::Transaction)
            }
            Ast::Rollback { .. } => (Verb::Rollback, StatementClass::Transaction),
            Ast::Savepoint { .. } => (Verb::Savepoint, StatementClass::Transaction),
            Ast::ReleaseSavepoint { .. } => (Verb::Release, StatementClass::Transaction),
            Ast::CreateTable(table) => {
                assert_eq!(ours.effects.contains(Effects::TEMPORARY_TABLE), table.temporary, "{sql}");
                (Verb::Create, StatementClass::Ddl)
            }
            Ast::Drop { .. } => (Verb::Drop, StatementClass::Ddl),
            Ast::Truncate { .. } => (Verb::Truncate, StatementClass::Ddl),
            Ast::AlterTable { .. } => (Verb::Alter, StatementClass::Ddl),
            Ast::Set(_) => (Verb::Set, StatementClass::Set),
            Ast::Use(_) => (Verb::Use, StatementClass::Set),
            Ast::ShowTables { .. } => (Verb::Show, StatementClass::Read),
            Ast::Kill { .. } => (Verb::Kill, StatementClass::Admin),
            Ast::LockTables { .. } => (Verb::Lock, StatementClass::Admin),
            Ast::UnlockTables => (Verb::Unlock, StatementClass::Admin),
            other => panic!("{sql}: {other:?}"),
        };
        assert_eq!((ours.verb, ours.class), (verb, class), "{sql}");
    }
}
