//! Nothing of one client reaches another: two clients take turns over a pool so small that they share its connections.

use belay_integration::belay::{Belay, Options};
use belay_integration::servers::{APP, APP2, MariaDb};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};

struct Stage {
    server: std::sync::MutexGuard<'static, MariaDb>,
    belay: Belay,
}

impl Stage {
    fn new(server_connections_max: usize) -> Result<Stage> {
        let server = shared::mariadb()?;
        let belay = Options::new([server.address()]).server_connections_max(server_connections_max).start()?;
        Ok(Stage { server, belay })
    }

    fn client(&self, user: &str) -> Result<Wire> {
        Ok(Wire::login(self.belay.address(), &Login::new(user, user).schema("test"))?)
    }
}

#[test]
fn variables() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let mut clients: Vec<Wire> = (0..6).map(|_| stage.client(APP)).collect::<Result<_>>()?;
    for (i, c) in clients.iter_mut().enumerate() {
        if i > 0 {
            c.query(&format!("SET time_zone = '+0{i}:00', sql_select_limit = {i}"))?;
        }
    }
    for round in 0..30 {
        // A different order in each round, so that every client follows every other.
        for k in 0..clients.len() {
            let i = (k * (round % 5 + 1) + round) % clients.len();
            let Some(c) = clients.get_mut(i) else { continue };
            let expected = if i == 0 { "SYSTEM,18446744073709551615".into() } else { format!("+0{i}:00,{i}") };
            assert_eq!(c.text("SELECT CONCAT_WS(',', @@time_zone, @@sql_select_limit)")?, expected);
        }
    }
    stage.belay.assert_healthy()
}

#[test]
fn user_variables_and_prepared_names() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    a.query("SET @secret = 'of a'")?;
    a.query("PREPARE p FROM 'SELECT 1'")?;
    for _ in 0..10 {
        assert_eq!(b.value("SELECT @secret")?, None);
        assert_eq!(b.query("EXECUTE p").unwrap_err().code(), 1243);
        assert_eq!(a.text("SELECT @secret")?, "of a");
        assert_eq!(a.text("EXECUTE p")?, "1");
    }
    drop(a);
    for _ in 0..5 {
        let mut fresh = stage.client(APP)?;
        assert_eq!(fresh.value("SELECT @secret")?, None);
        assert_eq!(fresh.query("EXECUTE p").unwrap_err().code(), 1243);
    }
    stage.belay.assert_healthy()
}

#[test]
fn temporary_tables() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    a.query("CREATE TEMPORARY TABLE mine (v INT)")?;
    a.query("INSERT INTO mine VALUES (1)")?;
    for _ in 0..10 {
        assert_eq!(b.query("SELECT * FROM mine").unwrap_err().code(), 1146);
        assert_eq!(a.text("SELECT COUNT(*) FROM mine")?, "1");
    }
    drop(a);
    for _ in 0..5 {
        assert_eq!(stage.client(APP)?.query("SELECT * FROM mine").unwrap_err().code(), 1146);
    }
    stage.belay.assert_healthy()
}

#[test]
fn locks() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    assert_eq!(a.text("SELECT GET_LOCK('one', 0)")?, "1");
    for _ in 0..10 {
        assert_eq!(b.text("SELECT GET_LOCK('one', 0)")?, "0");
        assert_eq!(b.value("SELECT RELEASE_LOCK('one')")?.as_deref(), Some("0"));
        assert_eq!(a.text("SELECT IS_USED_LOCK('one') IS NOT NULL")?, "1");
    }
    drop(a);
    assert_eq!(b.text("SELECT GET_LOCK('one', 10)")?, "1", "the lock of a client that left is free");
    assert_eq!(b.text("SELECT RELEASE_LOCK('one')")?, "1");
    // Table locks.
    let mut c = stage.client(APP)?;
    c.query("CREATE OR REPLACE TABLE locked (v INT)")?;
    c.query("LOCK TABLES locked WRITE")?;
    b.query("SET lock_wait_timeout = 1")?;
    assert_eq!(b.query("INSERT INTO locked VALUES (1)").unwrap_err().code(), 1205);
    drop(c);
    b.query("SET lock_wait_timeout = 10")?;
    b.query("INSERT INTO locked VALUES (1)")?;
    b.query("DROP TABLE locked")?;
    stage.belay.assert_healthy()
}

#[test]
fn locks_taken_inside_a_function() -> Result<()> {
    let mut stage = Stage::new(4)?;
    stage.server.admin()?.query_all(
        "CREATE OR REPLACE FUNCTION test.take_it() RETURNS INT NOT DETERMINISTIC RETURN GET_LOCK('hidden', 0)",
    )?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    assert_eq!(a.text("SELECT take_it()")?, "1");
    for _ in 0..5 {
        assert_eq!(b.text("SELECT GET_LOCK('hidden', 0)")?, "0");
        a.query("SELECT 1")?;
    }
    assert_eq!(a.text("SELECT RELEASE_LOCK('hidden')")?, "1");
    stage.belay.assert_healthy()
}

#[test]
fn roles_and_privileges() -> Result<()> {
    let mut stage = Stage::new(4)?;
    let (mut a, mut b) = (stage.client(APP2)?, stage.client(APP2)?);
    a.query("SET ROLE reader")?;
    for _ in 0..10 {
        assert_eq!(a.text("SELECT word FROM shop.secret")?, "edelrid");
        assert_eq!(b.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
        assert_eq!(b.value("SELECT CURRENT_ROLE()")?, None);
    }
    a.query("SET ROLE NONE")?;
    for _ in 0..10 {
        assert_eq!(a.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
        b.query("SELECT 1")?;
    }
    // MariaDB keeps a role over COM_RESET_CONNECTION and COM_CHANGE_USER: neither cleans a server session of it.
    a.query("SET ROLE reader")?;
    drop(a);
    std::thread::sleep(std::time::Duration::from_millis(300));
    for _ in 0..5 {
        assert_eq!(stage.client(APP2)?.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
    }
    stage.belay.assert_healthy()
}

#[test]
fn generated_keys_warnings_and_counts() -> Result<()> {
    let mut stage = Stage::new(2)?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    a.query("CREATE OR REPLACE TABLE keys_of (id INT AUTO_INCREMENT PRIMARY KEY, c CHAR(1))")?;
    for i in 0..20 {
        a.query("INSERT INTO keys_of (c) VALUES ('a')")?;
        let of_a = a.text("SELECT LAST_INSERT_ID()")?;
        b.query("INSERT INTO keys_of (c) VALUES ('b'), ('b')")?;
        let of_b = b.text("SELECT LAST_INSERT_ID()")?;
        assert_ne!(of_a, of_b, "round {i}");
        assert_eq!(a.text("SELECT LAST_INSERT_ID()")?, of_a, "round {i}");
        assert_eq!(a.text("SELECT @@last_insert_id")?, of_a, "round {i}");
        assert_eq!(b.text("SELECT @@identity")?, of_b, "round {i}");
        b.query("SELECT 1/0")?;
        a.query("SELECT 2")?;
        assert_eq!(b.query("SHOW WARNINGS")?.rows().rows.len(), 1, "round {i}");
        assert_eq!(a.query("SHOW WARNINGS")?.rows().rows.len(), 0, "round {i}");
        a.query("UPDATE keys_of SET c = 'x' WHERE c = 'a'")?;
        b.query("DELETE FROM keys_of WHERE c = 'b'")?;
        assert_eq!(a.text("SELECT ROW_COUNT()")?, "1", "round {i}");
        assert_eq!(b.text("SELECT ROW_COUNT()")?, "2", "round {i}");
    }
    a.query("DROP TABLE keys_of")?;
    stage.belay.assert_healthy()
}

#[test]
fn open_transactions_are_not_shared_and_end_with_their_client() -> Result<()> {
    let mut stage = Stage::new(3)?;
    let (mut a, mut b) = (stage.client(APP)?, stage.client(APP)?);
    a.query("CREATE OR REPLACE TABLE tx (id INT PRIMARY KEY) ENGINE = InnoDB")?;
    a.query("BEGIN")?;
    a.query("INSERT INTO tx VALUES (1)")?;
    for _ in 0..5 {
        assert_eq!(b.text("SELECT COUNT(*) FROM tx")?, "0");
        assert_eq!(a.text("SELECT COUNT(*) FROM tx")?, "1");
    }
    drop(a);
    b.query("SET innodb_lock_wait_timeout = 10")?;
    b.query("INSERT INTO tx VALUES (1)")?;
    // The same for a client that never says BEGIN.
    let mut c = stage.client(APP)?;
    c.query("SET autocommit = 0")?;
    c.query("INSERT INTO tx VALUES (2)")?;
    assert_eq!(b.text("SELECT COUNT(*) FROM tx")?, "1");
    drop(c);
    b.query("INSERT INTO tx VALUES (2)")?;
    assert_eq!(b.text("SELECT COUNT(*) FROM tx")?, "2");
    b.query("DROP TABLE tx")?;
    stage.belay.assert_healthy()
}

/// MariaDB breaks a session that is reset on top of a prepared XA transaction: InnoDB refuses its writes from then on, and the locks of the
/// transaction stay after another session has rolled it back.
#[test]
fn a_prepared_xa_transaction_of_a_client_that_left() -> Result<()> {
    let mut stage = Stage::new(1)?;
    let mut admin = stage.server.admin()?;
    admin.query("CREATE TABLE test.xa_left (id INT PRIMARY KEY)")?;
    for says_reset in [false, true] {
        let mut a = stage.client(APP)?;
        for sql in ["XA START 'left'", "INSERT INTO xa_left VALUES (1)", "XA END 'left'", "XA PREPARE 'left'"] {
            a.query(sql)?;
        }
        if says_reset {
            a.command(0x1f, b"")?;
        } else {
            drop(a);
        }
        // It can be rolled back once its session has let go of it. MariaDB answers 1402 if it has done so itself.
        belay_integration::process::wait_for("the end of it", std::time::Duration::from_secs(20), || {
            match admin.query("XA ROLLBACK 'left'") {
                Ok(_) => Some(()),
                Err(error) => (error.code() == 1402).then_some(()),
            }
        })?;
        let mut b = stage.client(APP)?;
        b.query("SET innodb_lock_wait_timeout = 5")?;
        b.query("INSERT INTO xa_left VALUES (1)")?;
        b.query("DELETE FROM xa_left")?;
    }
    admin.query("DROP TABLE test.xa_left")?;
    stage.belay.assert_healthy()
}

#[test]
fn a_global_change_reaches_new_logins_only() -> Result<()> {
    let mut stage = Stage::new(2)?;
    let mut old = stage.client(APP)?;
    assert_eq!(old.text("SELECT @@div_precision_increment")?, "4");
    stage.server.admin()?.query("SET GLOBAL div_precision_increment = 7")?;
    let check = |stage: &Stage, old: &mut Wire| -> Result<()> {
        belay_integration::process::wait_for("the new value", std::time::Duration::from_secs(20), || {
            let mut fresh = stage.client(APP).ok()?;
            (fresh.text("SELECT @@div_precision_increment").ok()? == "7").then_some(())
        })?;
        for _ in 0..5 {
            let mut fresh = stage.client(APP)?;
            assert_eq!(fresh.text("SELECT @@div_precision_increment")?, "7");
            assert_eq!(old.text("SELECT @@div_precision_increment")?, "4");
        }
        Ok(())
    };
    let found = check(&stage, &mut old);
    stage.server.admin()?.query("SET GLOBAL div_precision_increment = 4")?;
    found?;
    stage.belay.assert_healthy()
}
