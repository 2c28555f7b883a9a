//! Answers through belay are the servers' answers, to the last flag. The oracle is a direct connection.

use belay_integration::belay::Options;
use belay_integration::oracle::{Step, assert_same};
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};

use Step::{Command, Disturb, Prepared, Schema, Sql};

const RESET_CONNECTION: u8 = 0x1f;
const PING: u8 = 0x0e;
const STATISTICS: u8 = 0x09;

/// Every script with every way a client can negotiate results.
fn on_mariadb(steps: &[Step<'_>]) -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    for login in [
        Login::new(APP, APP).schema("test"),
        Login::new(APP, APP).schema("test").without(caps::DEPRECATE_EOF),
        Login::new(APP, APP).schema("test").with(caps::MULTI_STATEMENTS | caps::SESSION_TRACK),
        Login::new(APP, APP).schema("test").with(caps::FOUND_ROWS),
    ] {
        assert_same(&server.address(), belay.address(), &login, steps)?;
    }
    belay.assert_healthy()
}

#[test]
fn queries_and_errors() -> Result<()> {
    on_mariadb(&[
        Sql("SELECT 1"),
        Sql("SELECT 1, 'x', NULL, 1.5e0, DATE '2024-02-29', x'00ff'"),
        Sql(""),
        Sql(";"),
        Sql("-- nothing"),
        Sql("SELEC 1"),
        Sql("SELECT nonsense"),
        Sql("SELECT * FROM no_such_table"),
        Sql("SELECT * FROM shop.item ORDER BY id"),
        Sql("SELECT * FROM shop.item WHERE id = 77"),
        Sql("SHOW WARNINGS"),
        Sql("SELECT 1/0"),
        Sql("SHOW WARNINGS"),
        Sql("SELECT @@warning_count, @@error_count"),
        Sql("SELECT CAST('12x' AS SIGNED)"),
        Sql("GET DIAGNOSTICS @n = NUMBER"),
        Sql("SELECT @n"),
        Sql("DO 1"),
        Sql("SHOW DATABASES"),
        Sql("EXPLAIN SELECT * FROM shop.item"),
        Command(PING),
        Sql("SELECT 1; SELECT 2"),
        Sql("SELECT REPEAT('x', 300000)"),
        Sql("SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'mine', MYSQL_ERRNO = 7777"),
        Sql("SHOW ERRORS"),
    ])
}

#[test]
fn writes_and_what_is_said_of_them() -> Result<()> {
    on_mariadb(&[
        Sql("DROP TABLE IF EXISTS w"),
        Sql("CREATE TABLE w (id INT AUTO_INCREMENT PRIMARY KEY, v INT, UNIQUE (v))"),
        Sql("INSERT INTO w (v) VALUES (1), (2), (3)"),
        Disturb("INSERT INTO w (v) VALUES (100)"),
        Sql("SELECT LAST_INSERT_ID(), ROW_COUNT()"),
        Sql("UPDATE w SET v = v WHERE id < 3"),
        Disturb("DO 0"),
        Sql("SELECT ROW_COUNT()"),
        Sql("INSERT INTO w (v) VALUES (1)"),
        Sql("SHOW WARNINGS"),
        Sql("SELECT @@identity, @@last_insert_id"),
        Sql("INSERT IGNORE INTO w (v) VALUES (1), (9)"),
        Disturb("SELECT 1"),
        Sql("SHOW WARNINGS"),
        Sql("INSERT INTO w (v) VALUES (20) ON DUPLICATE KEY UPDATE v = v + 1"),
        Sql("REPLACE INTO w (id, v) VALUES (1, 50)"),
        Sql("INSERT INTO w (v) VALUES (60) RETURNING id, v"),
        Sql("SELECT SQL_CALC_FOUND_ROWS id FROM w LIMIT 2"),
        Disturb("SELECT 1 UNION SELECT 2"),
        Sql("SELECT FOUND_ROWS()"),
        Sql("DELETE FROM w WHERE v > 5"),
        Disturb("DO 0"),
        Sql("SELECT ROW_COUNT()"),
        Sql("TRUNCATE w"),
        Sql("UPDATE w SET id = LAST_INSERT_ID(id + 7)"),
        Sql("SELECT LAST_INSERT_ID()"),
        Sql("DROP TABLE w"),
    ])
}

#[test]
fn prepared_statements_of_the_protocol() -> Result<()> {
    on_mariadb(&[
        Sql("DROP TABLE IF EXISTS p"),
        Prepared("CREATE TABLE p (id INT PRIMARY KEY, t TEXT)", &[]),
        Prepared("INSERT INTO p VALUES (?, ?)", &["1", "one"]),
        Disturb("SELECT 1"),
        Prepared("INSERT INTO p VALUES (?, ?)", &["1", "again"]),
        Prepared("SELECT * FROM p WHERE id = ?", &["1"]),
        Prepared("SELECT ?, ?, ?", &["a", "", "ü"]),
        Prepared("SELECT", &[]),
        Prepared("SELECT * FROM no_such_table WHERE a = ?", &["1"]),
        Prepared("SELECT t FROM p WHERE id IN (?, ?, ?)", &["1", "2", "3"]),
        Prepared("BEGIN", &[]),
        Prepared("INSERT INTO p VALUES (?, ?)", &["2", "two"]),
        Disturb("SELECT COUNT(*) FROM p"),
        Prepared("ROLLBACK", &[]),
        Prepared("SELECT COUNT(*) FROM p", &[]),
        Prepared("SET @x = ?", &["5"]),
        Disturb("SET @x = 6"),
        Prepared("SELECT @x", &[]),
        Prepared("CALL no_such_procedure(?)", &["1"]),
        Sql("PREPARE s FROM 'SELECT ? AS a'"),
        Disturb("PREPARE s FROM 'SELECT 2'"),
        Sql("SET @v = 'val'"),
        Sql("EXECUTE s USING @v"),
        Sql("DEALLOCATE PREPARE s"),
        Sql("EXECUTE s"),
        Sql("EXECUTE IMMEDIATE 'SELECT 5'"),
        Sql("DROP TABLE p"),
    ])
}

#[test]
fn a_prepared_statement_survives_other_clients_and_reset() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(2).start()?;
    let mut one = Wire::login(belay.address(), &Login::new(APP, APP).schema("shop"))?;
    let mut two = Wire::login(belay.address(), &Login::new(APP, APP).schema("shop"))?;
    let mut ids = Vec::new();
    for i in 1..=50 {
        ids.push((i, one.prepare(&format!("SELECT {i} + ?"))?, two.prepare(&format!("SELECT {i} * ?"))?));
    }
    for round in 0..3 {
        for (i, a, b) in &ids {
            // The answers are binary rows: header, null bitmap, then a value whose text is compared where it is one.
            let first = one.execute(*a, &[b"1000"])?.rows();
            let second = two.execute(*b, &[b"1000"])?.rows();
            assert_eq!((first.rows.len(), second.rows.len()), (1, 1), "round {round}, statement {i}");
            assert_ne!(first.rows, second.rows, "statement {i}");
        }
    }
    for (_, a, _) in &ids {
        one.close_statement(*a)?;
    }
    assert_eq!(one.execute(ids[0].1, &[b"1"]).unwrap_err().code(), 1243);
    one.command(RESET_CONNECTION, &[])?;
    assert_eq!(one.execute(ids[1].1, &[b"1"]).unwrap_err().code(), 1243);
    two.execute(ids[1].2, &[b"1"])?;
    belay.assert_healthy()
}

#[test]
fn transactions_and_their_flags() -> Result<()> {
    on_mariadb(&[
        Sql("CREATE OR REPLACE TABLE tx (id INT PRIMARY KEY)"),
        Sql("BEGIN"),
        Sql("SELECT * FROM tx"),
        Sql("INSERT INTO tx VALUES (1)"),
        Disturb("SELECT COUNT(*) FROM tx"),
        Sql("SAVEPOINT a"),
        Sql("INSERT INTO tx VALUES (2)"),
        Sql("ROLLBACK TO a"),
        Sql("COMMIT"),
        Sql("SELECT * FROM tx"),
        Sql("START TRANSACTION READ ONLY"),
        Sql("INSERT INTO tx VALUES (3)"),
        Sql("COMMIT AND CHAIN"),
        Sql("SELECT 1"),
        Sql("ROLLBACK"),
        Sql("START TRANSACTION WITH CONSISTENT SNAPSHOT"),
        Sql("ROLLBACK;"),
        Sql("/* a comment */ BEGIN /* and another */;"),
        Sql("INSERT INTO tx VALUES (4)"),
        Sql("CREATE OR REPLACE TABLE tx2 (id INT)"),
        Sql("ROLLBACK"),
        Sql("SELECT * FROM tx"),
        Sql("SET autocommit = 0"),
        Sql("SELECT 1"),
        Sql("INSERT INTO tx VALUES (5)"),
        Disturb("DO 1"),
        Sql("ROLLBACK"),
        Sql("INSERT INTO tx VALUES (6)"),
        Sql("SET autocommit = 1"),
        Sql("ROLLBACK"),
        Sql("SELECT * FROM tx"),
        Sql("BEGIN"),
        Sql("BEGIN"),
        Sql("INSERT INTO tx VALUES (6)"),
        Sql("COMMIT"),
        Sql("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"),
        Disturb("DO 1"),
        Sql("BEGIN"),
        Sql("SELECT @@tx_isolation"),
        Sql("COMMIT"),
        Sql("BEGIN NOT ATOMIC INSERT INTO tx VALUES (7); END"),
        Sql("LOCK TABLES tx WRITE"),
        Sql("INSERT INTO tx VALUES (8)"),
        Sql("SELECT * FROM tx2"),
        Sql("UNLOCK TABLES"),
        Sql("XA START 'x1'"),
        Sql("INSERT INTO tx VALUES (9)"),
        Sql("XA END 'x1'"),
        Sql("XA ROLLBACK 'x1'"),
        Sql("SELECT COUNT(*) FROM tx"),
        Sql("DROP TABLE tx, tx2"),
        Command(RESET_CONNECTION),
        Sql("SELECT @@autocommit, DATABASE()"),
    ])
}

#[test]
fn session_state_follows_the_client() -> Result<()> {
    on_mariadb(&[
        Sql("SET sql_mode = 'ANSI_QUOTES'"),
        Disturb("SET sql_mode = ''"),
        Sql("SELECT @@sql_mode, \"x\""),
        Sql("SET time_zone = '+03:00', @@session.sql_select_limit = 2, max_statement_time = 100"),
        Disturb("SET time_zone = '-01:00'"),
        Sql("SELECT @@time_zone, @@sql_select_limit, @@max_statement_time"),
        Sql("SELECT id FROM shop.item"),
        Sql("SET sql_select_limit = DEFAULT"),
        Disturb("SET sql_select_limit = 1"),
        Sql("SELECT id FROM shop.item"),
        Sql("SET NAMES latin1 COLLATE latin1_german2_ci"),
        Disturb("SET NAMES utf8mb4"),
        Sql("SELECT @@character_set_client, @@character_set_results, @@collation_connection, 'a' = 'ä'"),
        Sql("SET NAMES utf8mb4"),
        Disturb("SET NAMES latin1"),
        Sql("SELECT @@character_set_client, 'Grüße'"),
        Schema("shop"),
        Disturb("USE test"),
        Sql("SELECT DATABASE(), COUNT(*) FROM item"),
        Sql("USE test"),
        Disturb("USE shop"),
        Sql("SELECT DATABASE()"),
        Schema("no_such_schema"),
        Sql("SELECT DATABASE()"),
        Sql("SET @a = 1, @b = 'two', @c = NULL, @d = 1.5"),
        Disturb("SET @a = 7, @b = 'x'"),
        Sql("SELECT @a, @b, @c, @d, @never"),
        Sql("SELECT @a := @a + 1"),
        Disturb("SET @a = 9"),
        Sql("SELECT @a"),
        Sql("SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        Disturb("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"),
        Sql("SELECT @@tx_isolation"),
        Sql("SET STATEMENT sql_mode = 'ANSI' FOR SELECT @@sql_mode"),
        Sql("SELECT @@sql_mode"),
        Sql("SET no_such_variable = 1"),
        Sql("SET sql_mode = 'NONSENSE'"),
        Sql("SELECT @@sql_mode"),
        Sql("SET timestamp = 1000000000"),
        Disturb("SELECT NOW()"),
        Sql("SELECT NOW()"),
        Sql("SET timestamp = DEFAULT"),
        Sql("SET insert_id = 77"),
        Disturb("DO 1"),
        Sql("CREATE TEMPORARY TABLE tmp (id INT AUTO_INCREMENT PRIMARY KEY)"),
        Sql("INSERT INTO tmp VALUES (NULL)"),
        Disturb("DO 1"),
        Sql("INSERT INTO tmp VALUES (NULL)"),
        Sql("SELECT * FROM tmp"),
        Sql("DROP TEMPORARY TABLE tmp"),
        Disturb("DO 1"),
        Sql("SELECT * FROM tmp"),
        Command(RESET_CONNECTION),
        Sql("SELECT @a, @@sql_mode, @@tx_isolation, @@time_zone"),
    ])
}

#[test]
fn several_statements_and_several_results() -> Result<()> {
    let server = shared::mariadb()?;
    server.admin()?.query_all(
        "CREATE OR REPLACE PROCEDURE test.several() BEGIN SELECT 1; SELECT 2, 3; UPDATE shop.item SET price = price; END",
    )?;
    drop(server);
    on_mariadb(&[
        Sql("CALL several()"),
        Prepared("CALL several()", &[]),
        Sql("SELECT 1; SET @m = 4; SELECT @m; DO 0"),
        Disturb("SET @m = 1"),
        Sql("SELECT @m"),
        Sql("SELECT 1; SELEC 2; SELECT 3"),
        Sql("SELECT 1; SELECT nonsense; SELECT 3"),
        Sql("BEGIN; SELECT 1; COMMIT"),
        Sql("SET sql_mode = 'ANSI'; SELECT 1"),
        Disturb("DO 1"),
        Sql("SELECT @@sql_mode"),
    ])
}

#[test]
fn commands_of_all_kinds_get_a_right_answer() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).start()?;
    // COM_SLEEP, CREATE_DB, DROP_DB, CONNECT, TIME, DELAYED_INSERT, CONNECT_OUT, DAEMON and numbers that mean nothing.
    for code in [0x00_u8, 0x05, 0x06, 0x0b, 0x0f, 0x10, 0x14, 0x1d, 0x60, 0xf0] {
        let ask = |address: &str| -> Result<u16> {
            let mut wire = Wire::login(address, &Login::new(APP, APP))?;
            let code = wire.command(code, b"x").map_or_else(|e| e.code(), |_| 0);
            // The connection is still good, if the server left it open.
            let _ = wire.ping();
            Ok(code)
        };
        assert_eq!(ask(&server.address())?, ask(belay.address())?, "command {code:#x}");
    }
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
    wire.send_command(STATISTICS, &[])?;
    let text = String::from_utf8_lossy(&wire.read_packet()?).into_owned();
    assert!(text.starts_with("Uptime:"), "{text}");
    assert_eq!(wire.text("SELECT 1")?, "1");
    belay.assert_healthy()
}

#[test]
fn pipelined_commands_are_answered_in_order() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(2).start()?;
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    for _ in 0..20 {
        let statements: Vec<String> = (0..30).map(|i| format!("SELECT {i}")).collect();
        for sql in &statements {
            wire.send_command(3, sql.as_bytes())?;
        }
        for i in 0..30 {
            let rows = wire.read_replies(false)?.remove(0).rows();
            assert_eq!(rows.first_value(), Some(i.to_string()));
        }
    }
    // PREPARE and EXECUTE of "the last one" in one send, as MariaDB's connectors do.
    wire.send_command(0x16, b"SELECT 41 + 1")?;
    let mut execute = u32::MAX.to_le_bytes().to_vec();
    execute.extend_from_slice(&[0, 1, 0, 0, 0]);
    wire.send_command(0x17, &execute)?;
    let head = wire.read_packet()?;
    assert_eq!(head.first(), Some(&0), "PREPARE answered {head:?}");
    wire.read_packet()?;
    assert_eq!(wire.read_replies(true)?.remove(0).rows().rows.len(), 1);
    assert_eq!(wire.text("SELECT 5")?, "5");
    belay.assert_healthy()
}

#[test]
fn connection_ids_agree() -> Result<()> {
    let server = shared::mariadb()?;
    let belay = Options::new([server.address()]).server_connections_max(2).start()?;
    let mut one = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let mut two = Wire::login(belay.address(), &Login::new(APP, APP))?;
    assert_ne!(one.connection_id, two.connection_id);
    for wire in [&mut one, &mut two] {
        for _ in 0..3 {
            assert_eq!(wire.text("SELECT CONNECTION_ID()")?, wire.connection_id.to_string());
        }
    }
    assert_eq!(one.version, server.admin()?.version);
    Ok(())
}
