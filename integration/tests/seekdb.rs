//! OceanBase seekdb: answers, session state, what pins there, and its loss. The oracle is a direct connection to it.

use std::sync::MutexGuard;
use std::time::Duration;

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, APP2, SeekDb};
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};

use Step::{Disturb, Prepared, Schema, Sql};

/// A belay in front of the shared server.
struct Stage {
    server: MutexGuard<'static, SeekDb>,
    belay: Belay,
}

impl Stage {
    fn new(server_connections_max: usize) -> Result<Stage> {
        let server = shared::seekdb()?;
        let belay = Options::new([server.address()]).server_connections_max(server_connections_max).start()?;
        Ok(Stage { server, belay })
    }

    fn client(&self, user: &str) -> Result<Wire> {
        Ok(Wire::login(self.belay.address(), &Login::new(user, user).schema("test"))?)
    }

    /// The answers are a direct connection's, which never agrees to DEPRECATE_EOF.
    fn same(&mut self, steps: &[Step<'_>]) -> Result<()> {
        let plain = Login::new(APP, APP).schema("test").without(caps::DEPRECATE_EOF);
        for login in [plain, plain.with(caps::MULTI_STATEMENTS)] {
            assert_same(&self.server.address(), self.belay.address(), &login, steps)?;
        }
        self.belay.assert_healthy()
    }

    fn pins(&self, reason: &str) -> Result<f64> {
        Ok(self.belay.metrics()?.sum("belay_pins_total", &[&format!("reason=\"{reason}\"")]))
    }

    fn replayed(&self) -> Result<f64> {
        Ok(self.belay.metrics()?.sum("belay_replay_items_total", &[]))
    }
}

#[test]
fn answers_are_the_servers() -> Result<()> {
    let mut stage = Stage::new(4)?;
    stage.same(&[
        Sql("SELECT 1, 'x', NULL, JSON_OBJECT('a', 1)"),
        Sql("SELECT VERSION(), CURRENT_USER(), DATABASE()"),
        Sql("SELEC 1"),
        Sql("SELECT * FROM no_such_table"),
        Disturb("DO 0"),
        Sql("SHOW WARNINGS"),
        Sql("DROP TABLE IF EXISTS w"),
        Sql("CREATE TABLE w (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE)"),
        Sql("INSERT INTO w (id, v) VALUES (1, 1)"),
        Sql("INSERT INTO w (id, v) VALUES (2, 2)"),
        Sql("SELECT ROW_COUNT()"),
        Sql("INSERT INTO w (id, v) VALUES (3, 1)"),
        Prepared("INSERT INTO w (id, v) VALUES (4, ?)", &["7"]),
        Disturb("SELECT COUNT(*) FROM w"),
        Prepared("SELECT v FROM w WHERE v = ?", &["7"]),
        Prepared("SELECT nonsense", &[]),
        Sql("SELECT SQL_CALC_FOUND_ROWS v FROM w ORDER BY v LIMIT 1"),
        Disturb("SELECT 1"),
        Sql("SELECT FOUND_ROWS()"),
        Sql("BEGIN"),
        Sql("DELETE FROM w"),
        Disturb("SELECT COUNT(*) FROM w"),
        Sql("SELECT COUNT(*) FROM w"),
        Sql("ROLLBACK"),
        Sql("SELECT COUNT(*) FROM w"),
        Sql("SET autocommit = 0"),
        Sql("DELETE FROM w WHERE id = 4"),
        Disturb("SELECT COUNT(*) FROM w"),
        Sql("SAVEPOINT s"),
        Sql("DELETE FROM w"),
        Sql("ROLLBACK TO s"),
        Sql("COMMIT"),
        Sql("SET autocommit = 1"),
        Sql("SELECT v FROM w ORDER BY id"),
        Sql("CREATE TEMPORARY TABLE t (a INT)"),
        Sql("DROP TABLE w"),
    ])?;
    if !direct() {
        assert_eq!(stage.pins("unexplained_change")?, 0.0, "DDL and writes pin");
        assert_eq!(stage.pins("unreported_variable")?, 0.0);
    }
    Ok(())
}

/// One server session for both clients: what follows was put back, what pins makes the other wait, so pinning ones are not here.
#[test]
fn session_state_follows_the_client() -> Result<()> {
    let mut stage = Stage::new(1)?;
    stage.same(&[
        Sql("SET sql_mode = 'ANSI_QUOTES', time_zone = '+03:00'"),
        Disturb("SET sql_mode = '', time_zone = '-02:00'"),
        Sql("SELECT @@sql_mode, @@time_zone"),
        Sql("SET sql_select_limit = 2, group_concat_max_len = 5"),
        Disturb("SET sql_select_limit = 1, group_concat_max_len = 50"),
        Sql("SELECT id FROM shop.item ORDER BY id"),
        Prepared("SELECT id FROM shop.item ORDER BY id DESC", &[]),
        Sql("SELECT @@group_concat_max_len"),
        Sql("SET sql_select_limit = DEFAULT"),
        Disturb("SET sql_select_limit = 1"),
        Sql("SELECT id FROM shop.item ORDER BY id"),
        Sql("SET NAMES utf8mb4 COLLATE utf8mb4_bin"),
        Disturb("SET NAMES binary"),
        Sql("SELECT @@collation_connection, 'a' = 'A'"),
        Sql("SET NAMES utf8mb4"),
        Disturb("SET NAMES utf8mb4 COLLATE utf8mb4_bin"),
        Sql("SELECT @@collation_connection, 'a' = 'A'"),
        Schema("shop"),
        Disturb("USE test"),
        Sql("SELECT DATABASE(), COUNT(*) FROM item"),
        Sql("SET tx_isolation = 'SERIALIZABLE'"),
        Disturb("SET transaction_isolation = 'READ-COMMITTED', tx_read_only = 1"),
        Sql("SELECT @@tx_isolation, @@transaction_isolation, @@tx_read_only, @@transaction_read_only"),
        Sql("SET transaction_isolation = 'REPEATABLE-READ'"),
        Disturb("SET tx_isolation = 'SERIALIZABLE'"),
        Sql("SELECT @@tx_isolation, @@transaction_isolation"),
        Sql("SET SESSION TRANSACTION READ ONLY"),
        Disturb("SET tx_read_only = 0"),
        Sql("SELECT @@tx_read_only, @@transaction_read_only"),
        Sql("SET SESSION TRANSACTION READ WRITE"),
        Sql("SET autocommit = 0"),
        Disturb("DO 0"),
        Sql("SELECT @@autocommit"),
    ])?;
    if !direct() {
        assert!(stage.replayed()? > 10.0, "the clients never took turns");
    }
    Ok(())
}

/// seekdb sets the flag NO_INDEX_USED in every OK, also where belay answers itself; and its text of an OK begins with a wrong length for clients that do
/// not track their session. So these are looked at field by field.
#[test]
fn commands_and_counts() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let mut client = stage.client(APP)?;
    client.ping()?;
    client.query("DROP TABLE IF EXISTS counted")?;
    client.query("CREATE TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")?;
    assert_eq!(client.query("INSERT INTO counted (v) VALUES (1), (2), (3)")?.affected(), 3);
    let id = client.text("SELECT LAST_INSERT_ID()")?;
    let mut other = stage.client(APP)?;
    assert_eq!(other.query("INSERT INTO counted (v) VALUES (9)")?.affected(), 1);
    assert_eq!(client.text("SELECT LAST_INSERT_ID()")?, id);
    assert_ne!(other.text("SELECT LAST_INSERT_ID()")?, id);
    assert_eq!(client.query("UPDATE counted SET v = v + 1 WHERE v < 9")?.affected(), 3);
    assert_eq!(client.text("SELECT SUM(v) FROM counted")?, "18");
    let before = client.text("SELECT CONCAT_WS(' ', @@autocommit, @@sql_mode, @@time_zone)")?;
    client.query("SET autocommit = 0, sql_mode = '', time_zone = '+01:00', @a = 1")?;
    client.query("DELETE FROM counted")?;
    client.command(0x1f, &[])?;
    assert_eq!(client.text("SELECT CONCAT_WS(' ', @@autocommit, @@sql_mode, @@time_zone)")?, before);
    assert_eq!(client.value("SELECT @a")?, None);
    assert_eq!(client.text("SELECT COUNT(*) FROM counted")?, "4");
    client.query("DROP TABLE counted")?;
    stage.belay.assert_healthy()
}

#[test]
fn user_variables_follow_the_client_with_their_types() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let mut steps = Vec::new();
    for set in [
        "SET @v = 1",
        "SET @v = -9223372036854775807",
        "SET @v = 18446744073709551615",
        "SET @v = CAST(1 AS UNSIGNED)",
        "SET @v = 'x'",
        "SET @v = ''",
        "SET @v = _utf8mb4 x'C3A9' COLLATE utf8mb4_bin",
        "SELECT @v := 5",
        "SELECT COUNT(*) INTO @v FROM shop.item",
        "SET @v = NULL",
    ] {
        steps.extend([Sql(set), Disturb("SET @v = 'mine'"), Sql("SELECT @v, @v + 1")]);
    }
    stage.same(&steps)?;
    if !direct() {
        assert!(stage.replayed()? > 10.0, "the clients never took turns");
        assert_eq!(stage.pins("user_variables")?, 0.0);
    }
    Ok(())
}

/// Types that no literal makes again, what is not reported, and locks: they work, on a server session of the client's own.
#[test]
fn what_cannot_follow_pins() -> Result<()> {
    let mut stage = Stage::new(6)?;
    stage.same(&[
        Sql("SET @v = TRUE"),
        Disturb("SET @v = 9"),
        Sql("SELECT @v"),
        Sql("SET @v = JSON_OBJECT('a', 1)"),
        Disturb("SET @v = 9"),
        Sql("SELECT @v"),
        Sql("SET @v = x'00FF'"),
        Disturb("SET @v = 9"),
        Sql("SELECT @v, @v + 1"),
        Sql("SET @v = 1 / 3"),
        Disturb("SET @v = 9"),
        Sql("SELECT @v"),
        Sql("SET ob_query_timeout = 99000000"),
        Disturb("SET ob_query_timeout = 77000000"),
        Sql("SELECT @@ob_query_timeout"),
        Sql("PREPARE p FROM 'SELECT 7'"),
        Disturb("DO 0"),
        Sql("EXECUTE p"),
        Sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"),
        Disturb("DO 0"),
        Sql("BEGIN"),
        Sql("COMMIT"),
    ])?;
    if direct() {
        return Ok(());
    }
    assert!(stage.pins("user_variables")? >= 2.0);
    assert!(stage.pins("unreported_variable")? >= 2.0);
    Ok(())
}

/// Code of a trigger is out of sight: that it ran is reported, what it did is not.
#[test]
fn a_write_that_runs_a_trigger_pins() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let mut admin = stage.server.admin()?;
    for sql in [
        "USE test",
        "DROP TABLE IF EXISTS test.watched",
        "CREATE TABLE test.watched (id INT AUTO_INCREMENT PRIMARY KEY, a INT)",
        "CREATE TRIGGER test.watching BEFORE INSERT ON test.watched FOR EACH ROW SET @seen = NEW.a",
    ] {
        admin.query(sql)?;
    }
    stage.same(&[
        Sql("INSERT INTO watched (id, a) VALUES (NULL, 42)"),
        Disturb("SET @seen = 1"),
        Sql("SELECT @seen"),
        Sql("DELETE FROM watched"),
        Prepared("INSERT INTO watched (a) VALUES (?)", &["43"]),
        Disturb("SET @seen = 2"),
        Sql("SELECT @seen"),
        Sql("TRUNCATE TABLE watched"),
    ])?;
    admin.query("DROP TABLE test.watched")?;
    if !direct() {
        assert!(stage.pins("unexplained_change")? >= 2.0);
    }
    Ok(())
}

#[test]
fn nothing_reaches_another_client() -> Result<()> {
    let mut stage = Stage::new(3)?;
    let zone = stage.server.admin()?.text("SELECT @@time_zone")?;
    let (mut a, mut b) = (stage.client(APP2)?, stage.client(APP2)?);
    a.query("SET ROLE reader")?;
    a.query("SET @secret = 1, time_zone = '+05:00'")?;
    for _ in 0..10 {
        assert_eq!(a.text("SELECT word FROM shop.secret")?, "edelrid");
        assert_eq!(b.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
        assert_eq!(b.text("SELECT CURRENT_ROLE()")?, "NONE");
        assert_eq!(b.text("SELECT CONCAT_WS(',', @secret, @@time_zone)")?, zone);
    }
    // seekdb refuses COM_RESET_CONNECTION while a lock is held (1235), and keeps it for a while after its connection is gone: nobody may inherit it.
    assert_eq!(a.text("SELECT GET_LOCK('mine', 0)")?, "1");
    assert_eq!(b.text("SELECT GET_LOCK('mine', 0)")?, "0");
    match a.command(0x1f, &[]) {
        Err(error) if direct() => assert_eq!(error.code(), 1235),
        other => drop(other?),
    }
    for user in [APP2, APP2, APP2] {
        assert_eq!(stage.client(user)?.text("SELECT GET_LOCK('mine', 0)")?, "0");
    }
    drop(a);
    let mut fresh = stage.client(APP2)?;
    assert_eq!(fresh.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
    assert_eq!(fresh.text("SELECT CONCAT_WS(',', @secret, @@time_zone)")?, zone);
    stage.belay.assert_healthy()
}

#[test]
fn roles_follow_the_client() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let secret = "SELECT word FROM shop.secret";
    let mut steps = Vec::new();
    for sql in ["SELECT 1", "SET ROLE reader", "SET ROLE ALL", "SET ROLE NONE", "SET ROLE no_such_role"] {
        for then in ["SET ROLE reader", "SET ROLE NONE"] {
            steps.extend([Sql(sql), Disturb(then), Sql("SELECT CURRENT_ROLE()"), Sql(secret), Prepared(secret, &[])]);
            steps.extend([Sql("BEGIN"), Sql(sql), Sql(secret), Sql("COMMIT"), Disturb(then), Sql(secret)]);
        }
    }
    let login = Login::new(APP2, APP2).schema("test").without(caps::DEPRECATE_EOF);
    assert_same(&stage.server.address(), stage.belay.address(), &login, &steps)?;
    // A reset takes the role away, which it does not on other servers.
    for address in [stage.server.address(), stage.belay.address().to_owned()] {
        let mut client = Wire::login(&address, &login)?;
        client.query("SET ROLE reader")?;
        client.command(0x1f, &[])?;
        assert_eq!(client.query(secret).unwrap_err().code(), 1142);
    }
    if !direct() {
        let replayed = stage.belay.metrics()?.sum("belay_replay_items_total", &["what=\"role\""]);
        assert!(replayed > 10.0, "the clients never took turns: {replayed}");
        assert_eq!(stage.pins("role")?, 0.0);
    }
    stage.belay.assert_healthy()
}

#[test]
fn logins_are_by_the_servers_accounts() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let login = |user: &str, password: &str| Wire::login(stage.belay.address(), &Login::new(user, password));
    assert_eq!(login(APP, "wrong").unwrap_err().code(), 1045);
    assert_eq!(login(APP, "").unwrap_err().code(), 1045);
    assert_eq!(login("nobody", "x").unwrap_err().code(), 1045);
    // A role is no account: to belay an unknown one, to seekdb a locked one.
    assert_eq!(login("reader", "").unwrap_err().code(), if direct() { 3118 } else { 1045 });
    assert_eq!(login(APP2, APP2)?.text("SELECT CURRENT_USER()")?, "app2@%");
    stage.belay.assert_healthy()
}

/// kill -9 and a restart: idle clients keep their connections and their state, an open transaction ends in an error that says so.
#[test]
fn clients_outlive_the_server() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut stage = Stage::new(3)?;
    let mut admin = stage.server.admin()?;
    admin.query("DROP TABLE IF EXISTS test.kept")?;
    admin.query("CREATE TABLE test.kept (id INT PRIMARY KEY)")?;
    let mut idle: Vec<Wire> = (0..20).map(|_| stage.client(APP)).collect::<Result<_>>()?;
    for (n, client) in idle.iter_mut().enumerate() {
        client.query(&format!("SET time_zone = '+0{}:00', @n = {n}", n % 10))?;
    }
    let prepared = idle[0].prepare("SELECT @n + ?")?;
    let mut busy = stage.client(APP)?;
    busy.query("INSERT INTO kept VALUES (1)")?;
    busy.query("BEGIN")?;
    busy.query("INSERT INTO kept VALUES (2)")?;
    stage.server.kill()?;
    let error = busy.query("INSERT INTO kept VALUES (3)").unwrap_err();
    assert!(error.to_string().contains("not committed"), "{error}");
    stage.server.restart()?;
    for (n, client) in idle.iter_mut().enumerate() {
        // A statement waits for a node as long as pool.wait_timeout_ms says; a busy machine may need more.
        let seen = wait_for("the session", Duration::from_secs(60), || {
            client.text("SELECT CONCAT(@@time_zone, ' ', @n)").ok()
        })?;
        assert_eq!(seen, format!("+0{}:00 {n}", n % 10));
    }
    assert_eq!(idle[0].execute(prepared, &[b"5"])?.rows().rows.len(), 1);
    assert_eq!(busy.text("SELECT GROUP_CONCAT(id) FROM kept")?, "1");
    busy.query("INSERT INTO kept VALUES (4)")?;
    assert_eq!(stage.server.admin()?.text("SELECT GROUP_CONCAT(id ORDER BY id) FROM test.kept")?, "1,4");
    stage.server.admin()?.query("DROP TABLE test.kept")?;
    stage.belay.assert_healthy()
}

/// A monitor account that may not ask for the role: nothing is sent to a server that may be a standby.
#[test]
fn a_server_that_does_not_say_its_role_is_not_used() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::seekdb()?;
    let mut admin = server.admin()?;
    admin.query("REVOKE SELECT ON oceanbase.`V$OB_SERVER_STAT` FROM belay")?;
    let belay = Options::new([server.address()]).no_wait().start();
    let told = belay.and_then(|mut belay| {
        wait_for("the state", Duration::from_secs(20), || {
            let (status, text) = belay.admin_get("/readyz").ok()?;
            (status == 503 && belay.log().contains("V$OB_SERVER_STAT")).then_some(text)
        })?;
        belay.assert_healthy()
    });
    admin.query("GRANT SELECT ON oceanbase.`V$OB_SERVER_STAT` TO belay")?;
    told
}
