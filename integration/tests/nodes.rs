//! Nodes come and go; client connections stay.

use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, Galera, MariaDb, Replication};
use belay_integration::wire::{Login, Reply, Wire, WireError};
use belay_integration::{Result, shared};

/// The index of the node that serves writes now, as an ordinary client can find it out.
fn writer(wire: &mut Wire, addresses: &[String]) -> Result<usize> {
    let port = wire.text("SELECT @@port")?;
    let found = addresses.iter().position(|a| a.ends_with(&format!(":{port}")));
    found.ok_or_else(|| format!("no node has port {port}").into())
}

/// The statement until it succeeds; every failure must be an answer, never a lost connection.
fn until_ok(wire: &mut Wire, sql: &str, limit: Duration) -> Result<Reply> {
    let until = Instant::now() + limit;
    loop {
        match wire.query(sql) {
            Ok(reply) => return Ok(reply),
            Err(WireError::Server { .. }) if Instant::now() < until => std::thread::sleep(Duration::from_millis(50)),
            Err(e) => return Err(format!("{sql}: {e}").into()),
        }
    }
}

fn client(belay: &Belay) -> Result<Wire> {
    Ok(Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?)
}

#[test]
fn a_killed_writer_costs_no_connection() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(8).start()?;
    let mut idle: Vec<Wire> = (0..20).map(|_| client(&belay)).collect::<Result<_>>()?;
    for (i, wire) in idle.iter_mut().enumerate() {
        wire.query(&format!("SET time_zone = '+00:{:02}'", i + 1))?;
    }
    let mut busy = client(&belay)?;
    // A node may answer DDL with 1205 at once when another has just come back (seen now and then; belay makes no error of that number).
    until_ok(&mut busy, "CREATE OR REPLACE TABLE survives (id INT PRIMARY KEY)", Duration::from_secs(20))?;
    busy.query("BEGIN")?;
    busy.query("INSERT INTO survives VALUES (1)")?;
    let first = writer(&mut idle[0], &cluster.addresses())?;
    cluster.node_mut(first)?.kill()?;
    // In a transaction: an honest error for the next statement, and the connection stays.
    let error = busy.query("INSERT INTO survives VALUES (2)").unwrap_err();
    assert!(matches!(error, WireError::Server { .. }), "the connection was lost: {error}");
    // Idle ones: the next statement is served by another node, with the session's variables.
    for (i, wire) in idle.iter_mut().enumerate() {
        let zone = until_ok(wire, "SELECT @@time_zone", Duration::from_secs(20))?.rows().first_value();
        assert_eq!(zone, Some(format!("+00:{:02}", i + 1)));
    }
    until_ok(&mut busy, "SELECT COUNT(*) FROM survives", Duration::from_secs(20))?;
    assert_eq!(busy.text("SELECT COUNT(*) FROM survives")?, "0", "the transaction died with its node");
    let second = writer(&mut busy, &cluster.addresses())?;
    assert_ne!(first, second);
    // The old writer comes back and is not chosen again by itself. (The present one may have been its donor, and have handed the role on.)
    cluster.restart(first)?;
    std::thread::sleep(Duration::from_secs(2));
    assert_ne!(writer(&mut client(&belay)?, &cluster.addresses())?, first);
    busy.query("DROP TABLE survives")?;
    belay.assert_healthy()
}

#[test]
fn waiting_for_the_group_leaves_no_trace_in_the_session() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let mut belay = Belay::start(cluster.addresses())?;
    let mut clients: Vec<Wire> = (0..4).map(|_| client(&belay)).collect::<Result<_>>()?;
    clients[0].query("CREATE OR REPLACE TABLE traceless (id INT PRIMARY KEY)")?;
    let first = writer(&mut clients[0], &cluster.addresses())?;
    for (i, wire) in clients.iter_mut().enumerate() {
        wire.query(&format!("INSERT INTO traceless VALUES ({i})"))?;
    }
    cluster.node_mut(first)?.kill()?;
    let mut waited = 0;
    for wire in &mut clients {
        // The answer to BEGIN is an OK, in which a server reports what has changed since its last one.
        until_ok(wire, "BEGIN", Duration::from_secs(20))?;
        assert_eq!(wire.text("SELECT COUNT(*) FROM traceless")?, "4");
        wire.query("COMMIT")?;
        let (_, shown) = belay.admin_get(&format!("/sessions/{}", wire.connection_id))?;
        waited += u32::from(shown.contains("causal wait"));
    }
    assert!(waited > 0, "no session waited, so nothing was shown");
    assert_eq!(belay.metrics()?.sum("belay_pins_total", &["unreported_variable"]), 0.0);
    cluster.restart(first)?;
    clients[0].query("DROP TABLE traceless")?;
    belay.assert_healthy()
}

#[test]
fn two_belays_choose_the_same_writer() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let a = Belay::start(cluster.addresses())?;
    let b = Options::new(cluster.addresses()).set("instance", "id", 1).start()?;
    let addresses = cluster.addresses();
    let mut pair = [client(&a)?, client(&b)?];
    let first = writer(&mut pair[0], &addresses)?;
    assert_eq!(writer(&mut pair[1], &addresses)?, first);
    cluster.node_mut(first)?.kill()?;
    for wire in &mut pair {
        until_ok(wire, "SELECT 1", Duration::from_secs(20))?;
    }
    let second = writer(&mut pair[0], &addresses)?;
    assert_eq!(writer(&mut pair[1], &addresses)?, second);
    assert_ne!(pair[0].connection_id >> 22, pair[1].connection_id >> 22, "instance bits");
    cluster.restart(first)
}

#[test]
fn a_frozen_writer_is_left_within_the_limits() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).start()?;
    let mut wire = client(&belay)?;
    let first = writer(&mut wire, &cluster.addresses())?;
    cluster.node_mut(first)?.freeze()?;
    let served = until_ok(&mut wire, "SELECT @@port", Duration::from_secs(30))
        .and_then(|_| writer(&mut wire, &cluster.addresses()));
    let fresh = client(&belay).and_then(|mut w| writer(&mut w, &cluster.addresses()));
    cluster.node_mut(first)?.thaw()?;
    assert_ne!(served?, first);
    assert_ne!(fresh?, first);
    cluster.wait_whole(Duration::from_secs(60))?;
    belay.assert_healthy()
}

#[test]
fn no_node_at_all_is_an_error_in_time_and_heals() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut server = MariaDb::start()?;
    let mut belay = Options::new([server.address()]).set("cluster", "hold_timeout_ms", 1500).start()?;
    let mut wire = client(&belay)?;
    wire.query("SET sql_mode = 'ANSI'")?;
    server.kill()?;
    let began = Instant::now();
    let error = wire.query("SELECT 1").unwrap_err();
    assert!(matches!(error, WireError::Server { .. }), "{error}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    let (status, _) = belay_integration::scrape::get(belay.admin_address(), "/readyz", None)?;
    assert_eq!(status, 503);
    server.start()?;
    let mode = until_ok(&mut wire, "SELECT @@sql_mode", Duration::from_secs(20))?.rows().first_value();
    assert!(mode.is_some_and(|m| m.contains("ANSI")));
    // A statement that arrives while no node is there waits for one.
    server.kill()?;
    wait_for("belay to notice", Duration::from_secs(10), || {
        belay_integration::scrape::get(belay.admin_address(), "/readyz", None).ok().filter(|(s, _)| *s == 503)
    })?;
    let starter = std::thread::spawn(move || server.start().map(|()| server));
    until_ok(&mut wire, "SELECT 1", Duration::from_secs(20))?;
    let _server = starter.join().map_err(|_| "starter")??;
    belay.assert_healthy()
}

#[test]
fn a_node_that_leaves_the_primary_component_is_not_used() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Galera::start(3)?;
    let mut belay = Options::new(cluster.addresses()).start()?;
    let mut wire = client(&belay)?;
    let first = writer(&mut wire, &cluster.addresses())?;
    cluster.node_mut(first)?.admin()?.query("SET GLOBAL wsrep_reject_queries = ALL")?;
    wait_for("another writer", Duration::from_secs(15), || {
        writer(&mut client(&belay).ok()?, &cluster.addresses()).ok().filter(|w| *w != first)
    })?;
    until_ok(&mut wire, "SELECT 1", Duration::from_secs(10))?;
    assert_ne!(writer(&mut wire, &cluster.addresses())?, first);
    belay.assert_healthy()
}

#[test]
fn the_primary_of_replication_is_found_by_read_only() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Replication::start(2)?;
    let addresses = cluster.addresses();
    let mut belay = Options::new(addresses.clone()).start()?;
    let mut wire = client(&belay)?;
    assert_eq!(writer(&mut wire, &addresses)?, 0);
    wire.query("CREATE OR REPLACE TABLE moved (id INT PRIMARY KEY)")?;
    wire.query("INSERT INTO moved VALUES (1)")?;
    // A planned move.
    cluster.node_mut(0)?.admin()?.query("SET GLOBAL read_only = 1")?;
    let position = cluster.node_mut(0)?.admin()?.text("SELECT @@gtid_binlog_pos")?;
    let mut new = cluster.node_mut(1)?.admin()?;
    assert_eq!(new.text(&format!("SELECT MASTER_GTID_WAIT('{position}', 10)"))?, "0");
    new.query_all("STOP SLAVE").and_then(|_| new.query_all("RESET SLAVE ALL"))?;
    new.query("SET GLOBAL read_only = 0")?;
    until_ok(&mut wire, "INSERT INTO moved VALUES (2)", Duration::from_secs(20))?;
    assert_eq!(writer(&mut wire, &addresses)?, 1);
    assert_eq!(wire.text("SELECT COUNT(*) FROM moved")?, "2");
    belay.assert_healthy()
}
