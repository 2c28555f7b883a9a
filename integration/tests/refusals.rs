//! What a node refuses in the middle: a part may have been done and committed, so it is never done again elsewhere, and the client hears what the node said.
//! What a node refuses as a whole waits for one that takes it.

use std::time::Duration;

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, admin_connection};
use belay_integration::wire::{Login, Reply, Wire, WireResult, caps};
use belay_integration::{Result, shared};

/// A client with one statement under way.
type Client = std::thread::JoinHandle<(Wire, WireResult<Reply>)>;

/// A belay that listens on a unix socket: `caching_sha2_password` needs no key exchange there.
fn start(nodes: Vec<String>, dir: &Scratch, hold_ms: u64) -> Result<(Belay, String)> {
    let socket = dir.path().join("belay.sock").display().to_string();
    let belay = Options::new(nodes)
        .set("monitor", "interval_ms", 1000)
        .set("cluster", "hold_timeout_ms", hold_ms)
        .set("listen", "unix_sockets", format!("[{socket:?}]"))
        .start()?;
    Ok((belay, format!("unix:{socket}")))
}

fn app(address: &str) -> Result<Wire> {
    Ok(Wire::login(address, &Login::new(APP, APP).schema("test").with(caps::MULTI_STATEMENTS))?)
}

/// The tables and routines, made by the account that uses them: an administrator's could write whatever the server says. Of each statement, the first
/// write is kept and the second waits for a lock.
fn define(app: &mut Wire) -> Result<()> {
    for sql in [
        "DROP TABLE IF EXISTS parts, plain, guarded",
        "CREATE TABLE parts (id INT AUTO_INCREMENT PRIMARY KEY, tag VARCHAR(40))",
        "CREATE TABLE plain (id INT AUTO_INCREMENT PRIMARY KEY, tag VARCHAR(40))",
        "CREATE TABLE guarded (id INT AUTO_INCREMENT PRIMARY KEY, tag VARCHAR(40))",
        "DROP PROCEDURE IF EXISTS in_parts",
        "CREATE PROCEDURE in_parts(t VARCHAR(40)) BEGIN INSERT INTO parts (tag) VALUES (CONCAT(t, ' first')); DO GET_LOCK('gate', 20); \
         DO RELEASE_LOCK('gate'); INSERT INTO parts (tag) VALUES (CONCAT(t, ' second')); END",
        "DROP PROCEDURE IF EXISTS commits",
        "CREATE PROCEDURE commits(t VARCHAR(40)) BEGIN INSERT INTO parts (tag) VALUES (CONCAT(t, ' first')); COMMIT; DO GET_LOCK('gate', 20); \
         DO RELEASE_LOCK('gate'); INSERT INTO parts (tag) VALUES (CONCAT(t, ' second')); END",
    ] {
        app.query(sql).map_err(|e| format!("{sql}: {e}"))?;
    }
    Ok(())
}

/// Waits until the client has its answer, or its statement is held for a node.
fn ended_or_held(belay: &Belay, client: &Client) -> Result<()> {
    wait_for("the refusal", Duration::from_secs(20), || {
        let held = belay.metrics().ok()?.sum("belay_holds", &[]) > 0.0;
        (client.is_finished() || held).then_some(())
    })
}

/// Sends, waits until it waits for the lock, closes the node, lets it go on, and opens the node again when it has ended there.
fn refused_in_the_middle(
    belay: &Belay,
    admin: &str,
    close: &str,
    open: &str,
    send: impl FnOnce() -> Client,
) -> Result<(Wire, WireResult<Reply>)> {
    let (mut holder, mut boss) = (admin_connection(admin)?, admin_connection(admin)?);
    holder.query("SELECT GET_LOCK('gate', 5)")?;
    let sent = send();
    let waits = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'app' AND STATE = 'User lock'";
    wait_for("the statement to wait", Duration::from_secs(20), || (boss.text(waits).ok()? == "1").then_some(()))?;
    boss.query(close)?;
    // A node that takes no queries still ends connections, and their locks.
    drop(holder);
    // A statement that is held for a node that takes it, or is tried on another one, is given what it needs.
    ended_or_held(belay, &sent)?;
    boss.query(open)?;
    Ok(sent.join().map_err(|_| "the client failed")?)
}

fn in_thread(mut wire: Wire, run: impl FnOnce(&mut Wire) -> WireResult<Reply> + Send + 'static) -> Client {
    std::thread::spawn(move || {
        let said = run(&mut wire);
        (wire, said)
    })
}

/// Every way to say two writes in one request.
fn in_parts(belay: &Belay, through: &str, admin: &str, close: &str, open: &str, code: u16, blocks: bool) -> Result<()> {
    let mut ways = vec!["CALL in_parts('call')", "prepared", "BEGIN", "COMMIT", "text"];
    if blocks {
        ways.push("BEGIN NOT ATOMIC INSERT INTO parts (tag) VALUES ('block first'); DO GET_LOCK('gate', 20); DO RELEASE_LOCK('gate'); INSERT INTO parts (tag) VALUES ('block second'); END");
        ways.push("EXECUTE IMMEDIATE 'CALL in_parts(''immediate'')'");
    }
    let mut looks = admin_connection(admin)?;
    for way in ways {
        looks.query("DELETE FROM test.parts")?;
        let mut wire = app(through)?;
        let mut inside = false;
        let thread = match way {
            "prepared" => {
                let statement = wire.prepare("CALL in_parts(?)")?;
                refused_in_the_middle(belay, admin, close, open, || {
                    in_thread(wire, move |w| w.execute(statement, &[b"prepared"]))
                })
            }
            "BEGIN" => {
                inside = true;
                wire.query("BEGIN")?;
                refused_in_the_middle(belay, admin, close, open, || {
                    in_thread(wire, |w| w.query("CALL in_parts('inside')"))
                })
            }
            // What it has committed of the transaction is not lost, and nobody is told so.
            "COMMIT" => {
                wire.query("BEGIN")?;
                refused_in_the_middle(belay, admin, close, open, || {
                    in_thread(wire, |w| w.query("CALL commits('inside')"))
                })
            }
            "text" => {
                wire.query("PREPARE p FROM 'CALL in_parts(''text'')'")?;
                refused_in_the_middle(belay, admin, close, open, || in_thread(wire, |w| w.query("EXECUTE p")))
            }
            sql => refused_in_the_middle(belay, admin, close, open, || in_thread(wire, move |w| w.query(sql))),
        };
        let (mut wire, said) = thread.map_err(|e| format!("{way}: {e}"))?;
        assert_eq!(said.as_ref().map(|_| 0).map_err(|e| e.code()), Err(code), "{way}: {said:?}");
        if inside {
            wire.query("ROLLBACK")?;
        }
        let found = looks.text("SELECT GROUP_CONCAT(SUBSTRING_INDEX(tag, ' ', -1)) FROM test.parts")?;
        assert_eq!(found, if inside { "NULL" } else { "first" }, "{way}");
        assert_eq!(wire.text("SELECT 7")?, "7", "{way}");
    }
    Ok(())
}

/// One write that is refused before it begins waits for a node that takes it; of a table with a trigger nobody can tell.
fn as_a_whole(belay: &Belay, through: &str, admin: &str, close: &str, open: &str, code: u16) -> Result<()> {
    let (mut boss, mut client) = (admin_connection(admin)?, app(through)?);
    boss.query("USE test")?;
    boss.query("CREATE TRIGGER guarding BEFORE INSERT ON guarded FOR EACH ROW SET NEW.tag = UPPER(NEW.tag)")?;
    boss.query("CREATE OR REPLACE VIEW through_view AS SELECT * FROM guarded")?;
    let before = belay.metrics()?.sum("belay_masked_total", &["what=\"refused\""]);
    let prepared = client.prepare("INSERT INTO plain (tag) VALUES (?)")?;
    client.query("PREPARE named FROM 'INSERT INTO plain (tag) VALUES (''named'')'")?;
    client.query("PREPARE watched FROM 'INSERT INTO guarded (tag) VALUES (''watched'')'")?;
    let behind = client.prepare("INSERT INTO guarded (tag) VALUES (?)")?;
    let (mut way, mut masked) = (0, before);
    while way < 7 {
        boss.query(close)?;
        let thread = in_thread(client, move |client| match way {
            0 => client.query("INSERT INTO guarded (tag) VALUES ('one')"),
            1 => client.query("INSERT INTO through_view (tag) VALUES ('one')"),
            2 => client.execute(behind, &[b"one"]),
            3 => client.query("EXECUTE watched"),
            4 => client.query("INSERT INTO plain (tag) VALUES ('text')"),
            5 => client.execute(prepared, &[b"binary"]),
            _ => client.query("EXECUTE named"),
        });
        ended_or_held(belay, &thread)?;
        boss.query(open)?;
        let said;
        (client, said) = thread.join().map_err(|_| "the client failed")?;
        let now = belay.metrics()?.sum("belay_masked_total", &["what=\"refused\""]);
        match (way, said) {
            (0..=3, Err(e)) => assert_eq!(e.code(), code, "{way}: {e}"),
            (4..=6, Ok(reply)) if now > masked => assert_eq!(reply.affected(), 1, "{way}"),
            // The monitor saw it first, and nothing was refused.
            (_, Ok(_)) if now == masked => {
                boss.query("DELETE FROM guarded")?;
                if way > 3 {
                    boss.query("DELETE FROM plain ORDER BY id DESC LIMIT 1")?;
                }
                continue;
            }
            (_, said) => return Err(format!("{way}: {said:?}").into()),
        }
        (way, masked) = (way + 1, now);
    }
    assert_eq!(boss.text("SELECT GROUP_CONCAT(tag ORDER BY id) FROM plain")?, "text,binary,named");
    assert_eq!(boss.text("SELECT COUNT(*) FROM guarded")?, "0");
    assert!(masked - before >= 3.0);
    boss.query("DROP TABLE guarded, plain")?;
    boss.query("DROP VIEW through_view")?;
    Ok(())
}

#[test]
fn a_mariadb_server_that_becomes_read_only_in_the_middle() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let dir = Scratch::new("refusals")?;
    let (mut belay, through) = start(vec![server.address()], &dir, 20_000)?;
    define(&mut app(&server.address())?)?;
    let (close, open) = ("SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0");
    in_parts(&belay, &through, &server.address(), close, open, 1290, true)?;
    as_a_whole(&belay, &through, &server.address(), close, open, 1290)?;
    // Whoever may not see triggers can't rule out that one has written to a table that rolls nothing back.
    let mut boss = server.admin()?;
    boss.query("CREATE OR REPLACE TABLE test.plain (id INT)")?;
    boss.query("REVOKE TRIGGER ON *.* FROM 'belay'@'%'")?;
    for engine in ["Aria", "InnoDB"] {
        boss.query(&format!("CREATE OR REPLACE TABLE test.other (id INT) ENGINE = {engine}"))?;
        std::thread::sleep(Duration::from_millis(1100));
        let client = app(&through)?;
        boss.query(close)?;
        let thread = in_thread(client, |client| client.query("INSERT INTO plain VALUES (1)"));
        ended_or_held(&belay, &thread)?;
        boss.query(open)?;
        let (_, said) = thread.join().map_err(|_| "the client failed")?;
        match engine {
            "Aria" => assert_eq!(said.unwrap_err().code(), 1290),
            _ => assert_eq!(said?.affected(), 1),
        }
    }
    boss.query("GRANT TRIGGER ON *.* TO 'belay'@'%'")?;
    belay.assert_healthy()
}

#[test]
fn a_mysql_server_that_becomes_read_only_in_the_middle() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mysql()?;
    let dir = Scratch::new("refusals")?;
    let socket = format!("unix:{}", server.socket().display());
    let (mut belay, through) = start(vec![server.address()], &dir, 20_000)?;
    define(&mut app(&socket)?)?;
    let (close, open) = ("SET GLOBAL super_read_only = 1", "SET GLOBAL read_only = 0");
    in_parts(&belay, &through, &socket, close, open, 1290, false)?;
    as_a_whole(&belay, &through, &socket, close, open, 1290)?;
    belay.assert_healthy()
}

/// A node that takes no more queries, as one that was cut off from its group, in the middle of a procedure.
#[test]
fn a_galera_node_that_goes_out_of_service_in_the_middle() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let dir = Scratch::new("refusals")?;
    let (mut belay, through) = start(cluster.addresses(), &dir, 20_000)?;
    let writer = |wire: &mut Wire| -> Result<String> {
        let port = wire.text("SELECT @@port")?;
        Ok(cluster.addresses().into_iter().find(|a| a.ends_with(&format!(":{port}"))).ok_or("no writer")?)
    };
    define(&mut app(&cluster.addresses()[0])?)?;
    let mut wire = app(&through)?;
    let node = writer(&mut wire)?;
    let (close, open) = ("SET GLOBAL wsrep_reject_queries = ALL", "SET GLOBAL wsrep_reject_queries = NONE");
    let (_, said) =
        refused_in_the_middle(&belay, &node, close, open, || in_thread(wire, |w| w.query("CALL in_parts('call')")))?;
    assert_eq!(said.as_ref().map(|_| 0).map_err(|e| e.code()), Err(1047), "{said:?}");
    let mut looks = cluster.node(0)?.admin()?;
    looks.query("SET wsrep_sync_wait = 1")?;
    assert_eq!(looks.text("SELECT GROUP_CONCAT(tag) FROM test.parts")?, "call first");
    // A trigger is code out of sight: what it has done where nothing is rolled back is not done again on another node.
    looks.query("DELETE FROM test.parts")?;
    let mut wire = app(&through)?;
    let node = writer(&mut wire)?;
    wire.query("CREATE OR REPLACE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, tag VARCHAR(40)) ENGINE=Aria")?;
    looks.query(
        "CREATE OR REPLACE DEFINER = app@'%' TRIGGER test.guarding BEFORE INSERT ON test.guarded FOR EACH ROW BEGIN \
         INSERT INTO log (tag) VALUES (NEW.tag); DO GET_LOCK('gate', 20); DO RELEASE_LOCK('gate'); INSERT INTO plain (tag) VALUES (NEW.tag); END",
    )?;
    let insert = "INSERT INTO guarded (tag) VALUES ('watched')";
    let (_, said) = refused_in_the_middle(&belay, &node, close, open, || in_thread(wire, move |w| w.query(insert)))?;
    assert_eq!(said.as_ref().map(|_| 0).map_err(|e| e.code()), Err(1047), "{said:?}");
    let mut done = 0;
    for address in cluster.addresses() {
        done += admin_connection(&address)?.text("SELECT COUNT(*) FROM test.log")?.parse::<u32>()?;
    }
    assert_eq!(done, 1, "the trigger ran on another node too");
    looks.query("DROP TABLE test.parts, test.plain, test.guarded, test.log")?;
    belay.assert_healthy()
}
