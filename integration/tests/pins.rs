//! Pins that end with their reason: the client then gives its server session back, and nobody finds anything of it there.

use belay_integration::belay::{Belay, Options};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, MariaDb, MySql};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};
use std::time::Duration;

/// What pins, statement by statement, and what ends it; a statement that begins with `!` fails.
struct Case {
    reason: &'static str,
    holds: &'static [&'static str],
    ends: &'static [&'static str],
    /// Another client's question about it on the same server session, and the answer; an empty answer is an error.
    unseen: (&'static str, &'static str),
}

const TABLES: Case = Case {
    reason: "temporary_table",
    holds: &[
        "CREATE TEMPORARY TABLE pins_a (a INT)",
        "CREATE TEMPORARY TABLE IF NOT EXISTS test.pins_b AS SELECT 1 AS a",
        "!CREATE TEMPORARY TABLE pins_a (a INT)",
        "!DROP TABLE pins_a, pins_none",
        "DROP TABLE IF EXISTS pins_b",
    ],
    ends: &["DROP TEMPORARY TABLE IF EXISTS pins_a"],
    unseen: ("SELECT COUNT(*) FROM pins_a", ""),
};

const LOCK: Case = Case {
    reason: "user_lock",
    holds: &["SELECT GET_LOCK('pins lock', 1), GET_LOCK('pins other', 1)", "SELECT RELEASE_LOCK('pins other')"],
    ends: &["DO RELEASE_LOCK('pins lock')"],
    unseen: ("SELECT COALESCE(IS_USED_LOCK('pins lock'), IS_USED_LOCK('pins other'), 'free')", "free"),
};

const NAMELESS_LOCK: Case = Case {
    reason: "user_lock",
    holds: &["SELECT GET_LOCK(CONCAT('pins', 'nameless'), 1)", "SELECT RELEASE_LOCK('pinsnameless')"],
    ends: &["SELECT RELEASE_ALL_LOCKS()"],
    unseen: ("SELECT IS_FREE_LOCK('pinsnameless')", "1"),
};

const HANDLER: Case = Case {
    reason: "handler",
    holds: &["HANDLER shop.item OPEN AS pins_h", "HANDLER pins_h READ FIRST", "!HANDLER item CLOSE"],
    ends: &["HANDLER pins_h CLOSE"],
    unseen: ("HANDLER pins_h READ FIRST", ""),
};

const XA: Case = Case {
    reason: "xa",
    holds: &["XA START 'pins'", "SELECT COUNT(*) FROM shop.item", "XA END 'pins'"],
    ends: &["XA COMMIT 'pins' ONE PHASE"],
    unseen: ("XA END 'pins'", ""),
};

const TABLE_LOCKS: Case = Case {
    reason: "lock_tables",
    holds: &["LOCK TABLES shop.item READ"],
    ends: &["UNLOCK TABLES"],
    unseen: ("SELECT COUNT(*) >= 0 FROM shop.secret", "1"),
};

const READ_LOCK: Case = Case {
    reason: "global_read_lock",
    holds: &["FLUSH TABLES WITH READ LOCK"],
    ends: &["UNLOCK TABLES"],
    unseen: ("SELECT 1", "1"),
};

const CASES: [Case; 7] = [TABLES, LOCK, NAMELESS_LOCK, HANDLER, XA, TABLE_LOCKS, READ_LOCK];

/// A belay with one server session, and the directory of its socket: MySQL lets passwords pass unencrypted over unix sockets only.
struct Stage {
    belay: Belay,
    through: String,
    _dir: Scratch,
}

impl Stage {
    fn new(node: &str) -> Result<Stage> {
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let options = Options::new([node]).server_connections_max(1);
        let belay = options.set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
        Ok(Stage { belay, through: format!("unix:{path}"), _dir: dir })
    }

    fn client(&self) -> Result<Wire> {
        Ok(Wire::login(&self.through, &Login::new(ADMIN, ADMIN).schema("test"))?)
    }

    fn pinned(&self, reason: &str) -> Option<f64> {
        let label = format!("reason=\"{reason}\"");
        Some(self.belay.metrics().ok()?.sum("belay_pinned", &[&label]))
    }

    fn wait_for_pin(&self, reason: &str, count: f64) -> Result<()> {
        wait_for("the pin", Duration::from_secs(20), || (self.pinned(reason)? == count).then_some(()))
    }
}

fn run(client: &mut Wire, statements: &[&str]) -> Result<()> {
    for sql in statements {
        match (client.query(sql.trim_start_matches('!')), sql.starts_with('!')) {
            (Ok(_), false) | (Err(_), true) => {}
            (Ok(_), true) => return Err(format!("{sql} did not fail").into()),
            (Err(error), false) => return Err(format!("{sql}: {error}").into()),
        }
    }
    Ok(())
}

fn pins_end(mut stage: Stage) -> Result<()> {
    for case in CASES {
        let (mut holder, mut other) = (stage.client()?, stage.client()?);
        run(&mut holder, case.holds)?;
        stage.wait_for_pin(case.reason, 1.0)?;
        run(&mut holder, case.ends)?;
        stage.wait_for_pin(case.reason, 0.0)?;
        // There is one server session: the other client is on it as soon as it is served at all.
        match other.text(case.unseen.0) {
            Ok(answer) => assert_eq!(answer, case.unseen.1, "{}", case.reason),
            Err(error) => assert_eq!(case.unseen.1, "", "{}: {error}", case.reason),
        }
    }
    stage.belay.assert_healthy()
}

#[test]
fn pins_end_with_their_reason_on_mariadb() -> Result<()> {
    pins_end(Stage::new(&shared::mariadb()?.address())?)
}

#[test]
fn pins_end_with_their_reason_on_mysql() -> Result<()> {
    pins_end(Stage::new(&shared::mysql()?.address())?)
}

/// GET_LOCK that times out, is killed, or fails has taken nothing.
fn locks_not_taken(mut stage: Stage, mut direct: Wire) -> Result<()> {
    direct.query("SELECT GET_LOCK('pins taken', 1)")?;
    let mut holder = stage.client()?;
    assert_eq!(holder.text("SELECT GET_LOCK('pins taken', 0)")?, "0");
    stage.wait_for_pin("user_lock", 0.0)?;
    assert_eq!(stage.client()?.text("SELECT 1")?, "1");
    holder.send_command(3, b"SELECT GET_LOCK('pins taken', 300)")?;
    let find =
        "SELECT COALESCE(MAX(ID), 0) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT GET_LOCK(%300)'";
    let id = wait_for("the statement", Duration::from_secs(20), || direct.text(find).ok().filter(|id| id != "0"))?;
    direct.query(&format!("KILL QUERY {id}"))?;
    let _ = holder.read_reply(false);
    // The error of a killed statement may be asked for; the next statement ends that.
    holder.query("SELECT 1")?;
    stage.wait_for_pin("user_lock", 0.0)?;
    assert_eq!(stage.client()?.text("SELECT 1")?, "1");
    stage.belay.assert_healthy()
}

#[test]
fn locks_that_were_not_taken_do_not_pin_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    locks_not_taken(Stage::new(&server.address())?, server.admin()?)
}

#[test]
fn locks_that_were_not_taken_do_not_pin_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let direct = Wire::login(&format!("unix:{}", server.socket().display()), &Login::new(ADMIN, ADMIN))?;
    locks_not_taken(Stage::new(&server.address())?, direct)
}

/// A client whose pin has ended idles through a restart of its node.
fn idle_through_restart(mut stage: Stage, restart: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut idle = stage.client()?;
    for case in [TABLES, LOCK] {
        run(&mut idle, case.holds)?;
        run(&mut idle, case.ends)?;
        stage.wait_for_pin(case.reason, 0.0)?;
    }
    restart()?;
    assert_eq!(idle.text("SELECT 'still here'")?, "still here");
    stage.belay.assert_healthy()
}

#[test]
fn a_client_without_pins_idles_through_a_restart_of_mariadb() -> Result<()> {
    let mut server = MariaDb::start()?;
    let stage = Stage::new(&server.address())?;
    idle_through_restart(stage, || {
        server.kill()?;
        server.start()
    })
}

#[test]
fn a_client_without_pins_idles_through_a_restart_of_mysql() -> Result<()> {
    let mut server = MySql::start()?;
    let stage = Stage::new(&server.address())?;
    idle_through_restart(stage, || {
        server.process()?.kill()?;
        server.restart()
    })
}
