//! What only MySQL has, or says in its own way. The oracle is a direct connection to MySQL 9 over its unix socket, where
//! `caching_sha2_password` needs no key exchange.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::servers::{ADMIN, APP, APP2, MySql};
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};

use Step::{Command, Disturb, Prepared, Schema, Sql};

/// A belay in front of the shared server that listens on a unix socket too.
struct Stage {
    server: std::sync::MutexGuard<'static, MySql>,
    belay: Belay,
    socket: String,
    _dir: Scratch,
}

impl Stage {
    fn new(server_connections_max: usize) -> Result<Stage> {
        let server = shared::mysql()?;
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = Options::new([server.address()])
            .server_connections_max(server_connections_max)
            .set("listen", "unix_sockets", format!("[{path:?}]"))
            .start()?;
        let socket = if direct() { format!("unix:{}", server.socket().display()) } else { format!("unix:{path}") };
        Ok(Stage { server, belay, socket, _dir: dir })
    }

    fn client(&self, user: &str) -> Result<Wire> {
        Ok(Wire::login(&self.socket, &Login::new(user, user).schema("test"))?)
    }

    fn same(&mut self, steps: &[Step<'_>]) -> Result<()> {
        let oracle = format!("unix:{}", self.server.socket().display());
        let plain = Login::new(APP, APP).schema("test");
        for login in [plain, plain.without(caps::DEPRECATE_EOF)] {
            assert_same(&oracle, &self.socket, &login, steps)?;
        }
        // MySQL tells a client that tracks its session of explicit transactions even where session_track_transaction_info is OFF;
        // belay tells only those that asked. So transactions are left out here.
        let of_transactions = |s: &&Step<'_>| matches!(s, Sql("BEGIN" | "COMMIT" | "ROLLBACK" | "DELETE FROM w"));
        let steps: Vec<Step<'_>> = steps.iter().filter(|s| !of_transactions(s)).cloned().collect();
        assert_same(&oracle, &self.socket, &plain.with(caps::MULTI_STATEMENTS | caps::SESSION_TRACK), &steps)?;
        self.belay.assert_healthy()
    }
}

#[test]
fn answers_are_the_servers() -> Result<()> {
    Stage::new(4)?.same(&[
        Sql("SELECT 1, 'x', NULL, JSON_OBJECT('a', 1)"),
        Sql("SELEC 1"),
        Sql("SELECT * FROM no_such_table"),
        Sql("SELECT 1/0"),
        Disturb("DO 0"),
        Sql("SHOW WARNINGS"),
        Sql("DROP TABLE IF EXISTS w"),
        Sql("CREATE TABLE w (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE)"),
        Sql("INSERT INTO w (v) VALUES (1), (2)"),
        Disturb("INSERT INTO w (v) VALUES (90)"),
        Sql("SELECT LAST_INSERT_ID(), ROW_COUNT()"),
        Sql("INSERT INTO w (v) VALUES (1)"),
        Prepared("INSERT INTO w (v) VALUES (?)", &["7"]),
        Prepared("SELECT v FROM w WHERE v = ?", &["7"]),
        Sql("SELECT SQL_CALC_FOUND_ROWS v FROM w LIMIT 1"),
        Disturb("SELECT 1"),
        Sql("SELECT FOUND_ROWS()"),
        Sql("BEGIN"),
        Sql("DELETE FROM w"),
        Disturb("SELECT COUNT(*) FROM w"),
        Sql("ROLLBACK"),
        Sql("SELECT COUNT(*) FROM w"),
        Sql("SELECT 1; SET @m = 2; SELECT @m"),
        Sql("DROP TABLE w"),
        Command(0x0e),
        Command(0x1f),
    ])
}

#[test]
fn session_state_follows_the_client() -> Result<()> {
    Stage::new(4)?.same(&[
        Sql("SET sql_mode = 'ANSI_QUOTES', time_zone = '+03:00'"),
        Disturb("SET sql_mode = '', time_zone = '-02:00'"),
        Sql("SELECT @@sql_mode, @@time_zone"),
        Sql("SET SESSION max_execution_time = 5000, sql_select_limit = 2"),
        Disturb("SET sql_select_limit = 1"),
        Sql("SELECT id FROM shop.item ORDER BY id"),
        Sql("SELECT @@max_execution_time"),
        Sql("SET sql_select_limit = DEFAULT"),
        Sql("SET optimizer_switch = 'mrr=off'"),
        Disturb("SET optimizer_switch = 'mrr=on'"),
        Sql("SELECT @@optimizer_switch LIKE '%mrr=off%'"),
        Sql("SET NAMES utf8mb4 COLLATE utf8mb4_bin"),
        Disturb("SET NAMES latin1"),
        Sql("SELECT @@collation_connection, 'a' = 'A'"),
        Schema("shop"),
        Disturb("USE test"),
        Sql("SELECT DATABASE()"),
        Sql("SET @a = 1, @b = 'two'"),
        Disturb("SET @a = 9"),
        Sql("SELECT @a, @b"),
        Sql("PREPARE p FROM 'SELECT ? + 1'"),
        Disturb("DO 0"),
        Sql("EXECUTE p USING @a"),
        Sql("SET TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"),
        Disturb("DO 0"),
        Sql("BEGIN"),
        Sql("COMMIT"),
        Sql("SET SESSION TRANSACTION READ ONLY"),
        Disturb("DO 0"),
        Sql("SELECT @@transaction_read_only"),
        Sql("SET SESSION TRANSACTION READ WRITE"),
        Sql("SET PERSIST sql_mode = ''"),
        Sql("SELECT /*+ SET_VAR(sort_buffer_size = 300000) */ @@sort_buffer_size"),
        Sql("SELECT @@sort_buffer_size"),
        Sql("SET resource_group = nonsense"),
    ])
}

#[test]
fn nothing_reaches_another_client() -> Result<()> {
    let mut stage = Stage::new(3)?;
    let (mut a, mut b) = (stage.client(APP2)?, stage.client(APP2)?);
    a.query("SET ROLE reader")?;
    a.query("SET @secret = 1, time_zone = '+05:00'")?;
    assert_eq!(a.text("SELECT GET_LOCK('mine', 0)")?, "1");
    a.query("CREATE TEMPORARY TABLE mine (v INT)")?;
    for _ in 0..10 {
        assert_eq!(a.text("SELECT word FROM shop.secret")?, "edelrid");
        assert_eq!(b.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
        assert_eq!(b.text("SELECT CURRENT_ROLE()")?, "NONE");
        assert_eq!(b.text("SELECT CONCAT_WS(',', @secret, @@time_zone, GET_LOCK('mine', 0))")?, "SYSTEM,0");
        assert_eq!(b.query("SELECT * FROM mine").unwrap_err().code(), 1146);
    }
    drop(a);
    assert_eq!(b.text("SELECT GET_LOCK('mine', 10)")?, "1");
    for _ in 0..5 {
        let mut fresh = stage.client(APP2)?;
        assert_eq!(fresh.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
        assert_eq!(fresh.text("SELECT CONCAT_WS(',', @secret, @@time_zone)")?, "SYSTEM");
    }
    stage.belay.assert_healthy()
}

#[test]
fn a_restarted_server_asks_for_the_full_exchange_and_gets_it() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut stage = Stage::new(3)?;
    let mut client = stage.client(APP)?;
    client.query("SET time_zone = '+05:00'")?;
    stage.server.process()?.kill()?;
    stage.server.restart()?;
    // The node's cache of passwords is empty now; belay's record of the login is not.
    let zone = belay_integration::process::wait_for("the session", std::time::Duration::from_secs(20), || {
        client.text("SELECT @@time_zone").ok()
    })?;
    assert_eq!(zone, "+05:00");
    assert_eq!(stage.client(APP2)?.text("SELECT 1")?, "1");
    stage.belay.assert_healthy()
}

#[test]
fn without_recorded_passwords_a_login_is_pinned_and_works() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mysql()?;
    let dir = Scratch::new("socket")?;
    let path = dir.path().join("belay.sock").display().to_string();
    let mut belay = Options::new([server.address()])
        .set("listen", "unix_sockets", format!("[{path:?}]"))
        .set("session", "record_passwords", false)
        .start()?;
    let mut client = Wire::login(&format!("unix:{path}"), &Login::new(APP, APP).schema("test"))?;
    assert_eq!(client.text("SELECT CURRENT_USER()")?, "app@%");
    let (status, sessions) = belay.admin_get("/sessions")?;
    assert_eq!(status, 200);
    assert!(sessions.contains("login_not_recorded"), "{sessions}");
    belay.assert_healthy()
}

/// The packets of the answer to one command, until one says that no more follow.
fn packets(wire: &mut Wire, code: u8, body: &[u8]) -> Result<Vec<Vec<u8>>> {
    wire.send_command(code, body)?;
    let mut packets = Vec::new();
    loop {
        packets.push(wire.read_packet()?);
        // The OK of the CALL is the last.
        if packets
            .last()
            .is_some_and(|p| p.len() == 7 && p.starts_with(&[0, 0, 0]) && p.get(3).is_some_and(|s| s & 8 == 0))
        {
            return Ok(packets);
        }
    }
}

#[test]
fn a_result_that_breaks_off_in_a_routine_ends_as_on_the_server() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let mut admin =
        Wire::login(&format!("unix:{}", stage.server.socket().display()), &Login::new(ADMIN, ADMIN).schema("test"))?;
    let names = ["broken_text", "broken_shown", "broken_first", "broken_exit"];
    for (name, handler, select) in [
        (
            names[0],
            "CONTINUE HANDLER FOR SQLSTATE '22003' SELECT 'handler'",
            "SELECT a, round(a, -19) FROM broken; SELECT 5",
        ),
        (names[1], "CONTINUE HANDLER FOR SQLSTATE '22003' SHOW ERRORS", "SELECT a, round(a, -19) FROM broken"),
        (names[2], "CONTINUE HANDLER FOR SQLEXCEPTION SET @x = 1", "SELECT (SELECT a FROM broken)"),
        (names[3], "EXIT HANDLER FOR SQLEXCEPTION SELECT 'over'", "SELECT a * IF(a < 0, 2, 1) FROM broken"),
    ] {
        admin.query("CREATE TABLE IF NOT EXISTS broken (a BIGINT)")?;
        admin.query(&format!("DROP PROCEDURE IF EXISTS {name}"))?;
        admin.query(&format!("CREATE PROCEDURE {name}() BEGIN DECLARE {handler}; {select}; END"))?;
    }
    admin.query("INSERT INTO broken VALUES (1), (-9223372036854775807), (2)")?;
    let mut steps = Vec::new();
    let calls: Vec<String> = names.iter().map(|name| format!("CALL {name}()")).collect();
    for call in &calls {
        steps.extend([Sql(call), Disturb("SELECT 1"), Prepared(call, &[]), Sql("SELECT 'goes on'")]);
    }
    stage.same(&steps)?;
    // To the byte, as far as both sides are framed alike.
    let oracle = format!("unix:{}", stage.server.socket().display());
    for without in [0, caps::DEPRECATE_EOF] {
        let login = Login::new(APP, APP).schema("test").without(without);
        let (mut direct, mut through) = (Wire::login(&oracle, &login)?, Wire::login(&stage.socket, &login)?);
        for call in &calls {
            let expected = packets(&mut direct, 3, call.as_bytes())?;
            // Whoever agreed to DEPRECATE_EOF sees an EOF all the same, and the others as many.
            assert!(expected.iter().any(|p| p.len() == 5 && p[0] == 0xFE), "{call}: {expected:x?}");
            let found = packets(&mut through, 3, call.as_bytes())?;
            if without == 0 {
                assert_eq!(found, expected, "{call}");
            }
            assert_eq!(found.len(), expected.len(), "{call}");
        }
    }
    admin.query("DROP TABLE broken")?;
    stage.belay.assert_healthy()
}
