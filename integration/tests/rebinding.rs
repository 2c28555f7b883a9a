//! Rebinding to another node: refusals go elsewhere, the next node must have caught up, and who waits for a node is served in order.

use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::faults::Faults;
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, Galera, MariaDb, Replication, admin_connection};
use belay_integration::wire::{Login, Wire, WireError};
use belay_integration::{Result, shared};

fn client(belay: &Belay) -> Result<Wire> {
    Ok(Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?)
}

fn proxies(addresses: &[String]) -> Result<Vec<Faults>> {
    addresses.iter().map(|a| Faults::start(a)).collect()
}

/// The index of the writer, when so many nodes serve.
fn writer(belay: &Belay, nodes: &[String], serving: usize) -> Result<usize> {
    wait_for("a writer", Duration::from_secs(60), || {
        let metrics = belay.metrics().ok()?;
        let serve = metrics.sum("belay_node_state", &["state=\"serving\""]);
        let is_writer = |a: &String| metrics.sum("belay_node_writer", &[&format!("node=\"{a}\"")]) == 1.0;
        (serve == serving as f64).then(|| nodes.iter().position(is_writer)).flatten()
    })
}

/// MariaDB looks time zones up by the bytes of their offsets, compared like text: '+08:10' is '+05:54' on a server where somebody said that first.
#[test]
fn a_node_that_makes_another_value_of_a_variable_is_told_of() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = Galera::start(2)?;
    let proxies = proxies(&cluster.addresses())?;
    let nodes: Vec<String> = proxies.iter().map(Faults::address).collect();
    let mut belay = Options::new(nodes.clone()).start()?;
    let first = writer(&belay, &nodes, 2)?;
    let mut other = cluster.node(1 - first)?.admin()?;
    other.query("SET time_zone = '+05:54'")?;
    other.query("SET time_zone = '+08:10'")?;
    assert_eq!(other.text("SELECT @@time_zone")?, "+05:54", "this server does not do so any more");
    let mut wire = client(&belay)?;
    wire.query("SET time_zone = '+08:10'")?;
    assert_eq!(wire.text("SELECT @@time_zone")?, "+08:10");
    proxies[first].die()?;
    let error = wire.query("SELECT @@time_zone").unwrap_err();
    assert!(error.code() == 1105 && error.to_string().contains("'time_zone'"), "{error}");
    assert_eq!(wire.text("SELECT @@time_zone")?, "+05:54");
    wire.query("SET time_zone = '+08:00'")?;
    assert_eq!(wire.text("SELECT @@time_zone")?, "+08:00");
    belay.assert_healthy()
}

fn masked(belay: &Belay, what: &str) -> Result<f64> {
    Ok(belay.metrics()?.sum("belay_masked_total", &[&format!("what=\"{what}\"")]))
}

/// A Galera node that refuses all queries from one moment to the next, before the monitor has seen it.
#[test]
fn what_a_galera_node_refuses_is_done_elsewhere() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let nodes = cluster.addresses();
    let mut belay = Options::new(nodes.clone()).set("monitor", "interval_ms", 2000).start()?;
    let mut admin = cluster.node(0)?.admin()?;
    admin.query("CREATE OR REPLACE TABLE test.refused (id INT PRIMARY KEY AUTO_INCREMENT, tag VARCHAR(20))")?;
    for prepared in [false, true] {
        for (before, wanted) in [(&[][..], 0_u16), (&["BEGIN", "INSERT INTO refused (tag) VALUES ('open')"], 1213)] {
            let mut wire = client(&belay)?;
            let insert = "INSERT INTO refused (tag) VALUES ('one')";
            let statement = if prepared { Some(wire.prepare(insert)?) } else { None };
            for sql in before {
                wire.query(sql)?;
            }
            let first = writer(&belay, &nodes, 3)?;
            let mut boss = cluster.node(first)?.admin()?;
            // Its own session goes on: the variable acts on statements that come later.
            boss.query("SET GLOBAL wsrep_reject_queries = ALL")?;
            let said = match statement {
                None => wire.query(insert),
                Some(statement) => wire.execute(statement, &[]),
            };
            boss.query("SET GLOBAL wsrep_reject_queries = NONE")?;
            match said {
                Ok(reply) => assert_eq!((reply.affected(), wanted), (1, 0)),
                Err(WireError::Server { code, .. }) => assert_eq!(code, wanted, "prepared: {prepared}"),
                Err(e) => return Err(e.into()),
            }
            wire.query("ROLLBACK")?;
        }
    }
    admin.query("SET wsrep_sync_wait = 1")?;
    assert_eq!(admin.text("SELECT GROUP_CONCAT(tag) FROM test.refused")?, "one,one");
    assert!(masked(&belay, "refused")? >= 2.0);
    belay.assert_healthy()
}

/// The primary becomes read-only under its clients; they are held until the other one is promoted.
#[test]
fn what_a_read_only_primary_refuses_waits_for_the_next_one() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Replication::start(1)?;
    let nodes = cluster.addresses();
    let mut belay = Options::new(nodes.clone()).set("monitor", "interval_ms", 2000).start()?;
    let (mut outside, mut inside, mut pinned) = (client(&belay)?, client(&belay)?, client(&belay)?);
    outside.query("CREATE TABLE moved (id INT PRIMARY KEY AUTO_INCREMENT, tag VARCHAR(20))")?;
    inside.query("BEGIN")?;
    inside.query("INSERT INTO moved (tag) VALUES ('inside')")?;
    pinned.query("CREATE TEMPORARY TABLE mine (id INT)")?;
    let statement = outside.prepare("INSERT INTO moved (tag) VALUES ('prepared')")?;
    // A transaction that is open may still write, so that read_only waits for it.
    assert_eq!(belay.metrics()?.sum("belay_masked_total", &[]), 0.0);
    inside.query("ROLLBACK")?;
    inside.query("BEGIN")?;
    cluster.node_mut(0)?.admin()?.query("SET GLOBAL read_only = 1")?;
    let began = Instant::now();
    outside.send_command(3, b"INSERT INTO moved (tag) VALUES ('text')")?;
    assert_eq!(inside.query("INSERT INTO moved (tag) VALUES ('inside')").unwrap_err().code(), 1213);
    assert_eq!(pinned.query("INSERT INTO moved (tag) VALUES ('pinned')").unwrap_err().code(), 1290);
    let replica = nodes[1].clone();
    let promoter = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(1000));
        let promote =
            || -> Result<()> { Ok(admin_connection(&replica)?.query("SET GLOBAL read_only = 0").map(|_| ())?) };
        promote().map_err(|e| e.to_string())
    });
    assert_eq!(outside.read_reply(false)?.affected(), 1);
    assert!(began.elapsed() > Duration::from_millis(800), "there was no writer yet");
    promoter.join().map_err(|_| "the promotion")??;
    outside.execute(statement, &[])?;
    inside.query("INSERT INTO moved (tag) VALUES ('again')")?;
    let mut new = admin_connection(&nodes[1])?;
    assert_eq!(new.text("SELECT GROUP_CONCAT(tag ORDER BY id) FROM test.moved")?, "text,prepared,again");
    assert!(masked(&belay, "refused")? >= 1.0);
    belay.assert_healthy()
}

/// The other nodes of the group apply nothing for a while: the first statement there waits, or gets an error, and never an answer without the session's write.
#[test]
fn a_galera_node_that_lags_is_waited_for() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let proxies = proxies(&cluster.addresses())?;
    let nodes: Vec<String> = proxies.iter().map(Faults::address).collect();
    let mut belay = Options::new(nodes.clone()).set("cluster", "causal_wait_ms", 2000).start()?;
    client(&belay)?.query("CREATE OR REPLACE TABLE caught (id INT PRIMARY KEY AUTO_INCREMENT, tag VARCHAR(20))")?;
    for (prepared, pause_ms) in [(false, 700), (true, 700), (false, 4000), (true, 4000)] {
        let first = writer(&belay, &nodes, 3)?;
        let mut wire = client(&belay)?;
        let count = "SELECT CAST(COUNT(*) AS CHAR) FROM caught WHERE tag = 'mine'";
        let statement = if prepared { Some(wire.prepare(count)?) } else { None };
        wire.query("DELETE FROM caught")?;
        // Everyone else has that, and then stops applying.
        let mut lagging = Vec::new();
        for (i, address) in cluster.addresses().iter().enumerate().filter(|(i, _)| *i != first) {
            let mut admin = admin_connection(address)?;
            admin.query("SET wsrep_sync_wait = 1")?;
            assert_eq!(admin.text("SELECT COUNT(*) FROM test.caught")?, "0", "node {i}");
            admin.query("SET wsrep_sync_wait = 0")?;
            admin.query("LOCK TABLES test.caught READ")?;
            lagging.push(admin);
        }
        wire.query("INSERT INTO caught (tag) VALUES ('mine')")?;
        proxies[first].die()?;
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(pause_ms));
            lagging.into_iter().try_for_each(|mut l| l.query("UNLOCK TABLES").map(|_| ())).map_err(|e| e.to_string())
        });
        let said = match statement {
            None => wire.query(count),
            Some(statement) => wire.execute(statement, &[]),
        };
        match said {
            Ok(reply) => {
                let first = reply.rows().first_value().ok_or("no row")?;
                assert!(first.ends_with('1'), "a stale answer: {first:?}");
                assert_eq!(pause_ms, 700);
            }
            Err(e) => {
                assert!(e.code() == 1105 && e.to_string().contains("has written or read"), "{e}");
                assert_eq!(pause_ms, 4000, "it waited in vain");
            }
        }
        holder.join().map_err(|_| "the holder")??;
        proxies[first].revive()?;
        wait_for("the row", Duration::from_secs(10), || (wire.text(count).ok()? == "1").then_some(()))?;
    }
    belay.assert_healthy()
}

/// The replica that becomes the primary has received the session's last write, and has not applied it yet.
#[test]
fn a_replica_that_lags_is_waited_for() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for pause_ms in [700, 4000] {
        let cluster = Replication::start(1)?;
        let real = cluster.addresses();
        let proxies = proxies(&real)?;
        let nodes: Vec<String> = proxies.iter().map(Faults::address).collect();
        let mut belay = Options::new(nodes.clone()).set("cluster", "causal_wait_ms", 2000).start()?;
        let (mut wire, mut reader) = (client(&belay)?, client(&belay)?);
        wire.query("CREATE TABLE caught (id INT PRIMARY KEY)")?;
        let mut replica = admin_connection(&real[1])?;
        wait_for("the table", Duration::from_secs(10), || replica.query("SELECT * FROM test.caught").ok())?;
        replica.query("LOCK TABLES test.caught READ")?;
        wire.query("INSERT INTO caught VALUES (1)")?;
        proxies[0].die()?;
        admin_connection(&real[1])?.query("SET GLOBAL read_only = 0")?;
        let holder = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(pause_ms));
            replica.query("UNLOCK TABLES").map(|_| ()).map_err(|e| e.to_string())
        });
        // Who wrote nothing waits for nothing.
        assert_eq!(reader.text("SELECT COUNT(*) FROM test.caught")?, "0");
        let said = wire.text("SELECT COUNT(*) FROM caught");
        match said {
            Ok(count) => assert_eq!((count.as_str(), pause_ms), ("1", 700)),
            Err(e) => {
                assert!(e.code() == 1105 && e.to_string().contains("has written or read"), "{e}");
                assert_eq!(pause_ms, 4000, "it waited in vain");
            }
        }
        holder.join().map_err(|_| "the holder")??;
        wait_for("the row", Duration::from_secs(10), || {
            (wire.text("SELECT COUNT(*) FROM caught").ok()? == "1").then_some(())
        })?;
        belay.assert_healthy()?;
    }
    Ok(())
}

/// Statements that are held are carried out in the order they came; one whose client has gone is not; a node that returns is not overrun.
#[test]
fn who_waits_for_a_node_is_served_in_order() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server: std::sync::MutexGuard<'_, MariaDb> = shared::mariadb()?;
    let proxy = Faults::start(&server.address())?;
    let mut belay = Options::new([proxy.address()]).server_connections_max(1).start()?;
    let mut clients: Vec<Wire> = (0..30).map(|_| client(&belay)).collect::<Result<_>>()?;
    clients[0].query("CREATE OR REPLACE TABLE turns (id INT PRIMARY KEY AUTO_INCREMENT, n INT)")?;
    proxy.die()?;
    let held = |belay: &Belay| belay.metrics().map(|m| m.sum("belay_holds", &[]));
    for (n, wire) in clients.iter_mut().enumerate() {
        wire.send_command(3, format!("INSERT INTO turns (n) VALUES ({n})").as_bytes())?;
        wait_for("it is held", Duration::from_secs(5), || (held(&belay).ok()? >= (n + 1) as f64).then_some(()))?;
    }
    drop(clients.remove(7));
    wait_for("one has gone", Duration::from_secs(5), || (held(&belay).ok()? == 29.0).then_some(()))?;
    proxy.revive()?;
    for wire in &mut clients {
        assert_eq!(wire.read_reply(false)?.affected(), 1);
    }
    let order: Vec<String> = (0..30).filter(|n| *n != 7).map(|n: i32| n.to_string()).collect();
    assert_eq!(clients[0].text("SELECT GROUP_CONCAT(n ORDER BY id) FROM turns")?, order.join(","));
    belay.assert_healthy()
}

/// A node that returns to hundreds of waiting clients gets as many logins at one time as the configuration allows, and no more.
#[test]
fn a_node_that_returns_is_not_overrun() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let proxy = Faults::start(&server.address())?;
    let mut belay = Options::new([proxy.address()]).server_connections_max(100).set("pool", "dials_max", 4).start()?;
    let mut clients: Vec<Wire> = (0..200).map(|_| client(&belay)).collect::<Result<_>>()?;
    proxy.die()?;
    for wire in &mut clients {
        wire.send_command(3, b"SELECT 1")?;
    }
    wait_for("all are held", Duration::from_secs(10), || {
        (belay.metrics().ok()?.sum("belay_holds", &[]) == 200.0).then_some(())
    })?;
    let before = proxy.connections().2;
    proxy.revive()?;
    for wire in &mut clients {
        assert_eq!(wire.read_reply(false)?.rows().first_value().as_deref(), Some("1"));
    }
    let logins = proxy.connections().2 - before;
    assert!(logins <= 110, "{logins} logins for 100 server sessions");
    belay.assert_healthy()
}
