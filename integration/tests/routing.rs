//! Reads on other nodes, by the shipped rule file, on Galera and on replication.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, Galera, Replication};
use belay_integration::wire::{Login, Wire, WireError};
use belay_integration::{Result, shared};

use Step::{Disturb, Prepared, Sql};

fn rules() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../router-rules/read-scaling.toml");
    format!("[{:?}]", path.display().to_string())
}

fn options(nodes: Vec<String>) -> Options {
    Options::new(nodes).set("router", "rules", rules()).set("monitor", "interval_ms", 100)
}

fn client(belay: &Belay) -> Result<Wire> {
    Ok(Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?)
}

fn port(address: &str) -> String {
    address.rsplit(':').next().unwrap_or_default().to_owned()
}

/// The ports of all nodes, the writer's first.
#[derive(Debug)]
struct Ports(Vec<String>);

impl Ports {
    fn writer(&self) -> &str {
        &self.0[0]
    }

    fn is_reader(&self, port: &str) -> bool {
        self.0[1..].iter().any(|p| p == port)
    }
}

/// The nodes by who writes; asked with a statement that only the writer is given.
fn ports(wire: &mut Wire, addresses: &[String]) -> Result<Ports> {
    let shown = wire.query("SHOW VARIABLES LIKE 'port'")?.rows().texts();
    let writer = shown.first().and_then(|row| row.get(1)).cloned().ok_or("no port")?;
    let mut all = vec![writer.clone()];
    all.extend(addresses.iter().map(|a| port(a)).filter(|p| *p != writer));
    Ok(Ports(all))
}

/// Waits until reads are served by readers: positions must have been compared first.
fn until_reads_scale(belay: &Belay, ports: &Ports) -> Result<()> {
    wait_for("reads on readers", Duration::from_secs(30), || {
        let found: BTreeSet<String> =
            (0..16).map(|_| client(belay).ok()?.text("SELECT @@port").ok()).collect::<Option<_>>()?;
        let readers = found.iter().filter(|p| ports.is_reader(p)).count();
        (readers == ports.0.len() - 1 && found.len() == readers).then_some(())
    })
}

/// Waits until a session's own reads are served by a reader again.
fn until_on_a_reader(wire: &mut Wire, ports: &Ports) -> Result<String> {
    wait_for("a read on a reader", Duration::from_secs(20), || {
        wire.text("SELECT @@port").ok().filter(|port| ports.is_reader(port))
    })
}

/// A cluster of either kind.
enum Cluster {
    Galera(MutexGuard<'static, Galera>),
    Replication(Replication),
}

impl Cluster {
    fn both() -> Result<Vec<Cluster>> {
        Ok(vec![Cluster::Galera(shared::galera()?), Cluster::Replication(Replication::start(2)?)])
    }

    fn addresses(&self) -> Vec<String> {
        match self {
            Cluster::Galera(cluster) => cluster.addresses(),
            Cluster::Replication(cluster) => cluster.addresses(),
        }
    }
}

/// A belay with the shipped rules whose readers serve.
fn stage(cluster: &Cluster, edit: impl FnOnce(Options) -> Options) -> Result<(Belay, Ports)> {
    let addresses = cluster.addresses();
    let belay = edit(options(addresses.clone())).start()?;
    let mut wire = client(&belay)?;
    // In replication nothing is known of positions before something was written.
    wire.query("CREATE OR REPLACE TABLE routed (id INT PRIMARY KEY, v INT)")?;
    let ports = ports(&mut wire, &addresses)?;
    until_reads_scale(&belay, &ports)?;
    Ok((belay, ports))
}

#[test]
fn reads_go_to_readers_and_everything_else_to_the_writer() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let mut wire = client(&belay)?;
        wire.query("INSERT INTO routed VALUES (1, 1), (2, 2)")?;
        let reader = until_on_a_reader(&mut wire, &ports)?;
        for _ in 0..20 {
            assert_eq!(wire.text("SELECT @@port FROM routed WHERE id = 1")?, reader, "a session stays on its reader");
        }
        let statement = wire.prepare("SELECT CONCAT('', @@port) FROM routed WHERE id = ?")?;
        let prepared = wire.execute_i64(statement, 1)?.rows().first_value().unwrap_or_default();
        assert!(prepared.ends_with(&reader), "{prepared:?}");
        for sql in [
            "SELECT @@port FROM routed WHERE id = 1 FOR UPDATE",
            "SELECT @@port, IS_FREE_LOCK('a')",
            "SELECT SQL_CALC_FOUND_ROWS @@port FROM routed LIMIT 1",
            "SET STATEMENT max_statement_time = 5 FOR SELECT @@port",
        ] {
            // Some of them pin.
            assert_eq!(client(&belay)?.text(sql)?, ports.writer(), "{sql}");
        }
        // Writes, and what they leave behind, are on the writer.
        let mut direct_writer =
            Wire::login(&format!("127.0.0.1:{}", ports.writer()), &Login::new(APP, APP).schema("test"))?;
        wire.query("UPDATE routed SET v = 5 WHERE id = 2")?;
        assert_eq!(direct_writer.text("SELECT v FROM routed WHERE id = 2")?, "5");
        // Transactions are whole.
        wire.query("BEGIN")?;
        assert_eq!(wire.text("SELECT @@port")?, ports.writer());
        wire.query("UPDATE routed SET v = 6 WHERE id = 2")?;
        assert_eq!(wire.text("SELECT v FROM routed WHERE id = 2")?, "6");
        wire.query("ROLLBACK")?;
        wire.query("SET autocommit = 0")?;
        assert_eq!(wire.text("SELECT @@port")?, ports.writer());
        wire.query("COMMIT")?;
        wire.query("SET autocommit = 1")?;
        wire.query("SELECT GET_LOCK('routing', 1)")?;
        assert_eq!(wire.text("SELECT @@port")?, ports.writer(), "a pinned session stays");
        let shown = belay.admin_get(&format!("/sessions/{}", wire.connection_id))?.1;
        assert!(shown.contains("rule 'reads'"), "{shown}");
        let metrics = belay.metrics()?;
        assert!(metrics.sum("belay_routes_total", &["to=\"reader\"", "rule=\"reads\"", "why=\"rule\""]) >= 20.0);
        // In a transaction and under a pin the session keeps its server session, and nothing is to be decided.
        assert!(metrics.sum("belay_routes_total", &["to=\"writer_instead\"", "why=\"autocommit\""]) >= 1.0);
        belay.assert_healthy()?;
    }
    Ok(())
}

fn selects(port: &str) -> Result<u64> {
    let mut wire = Wire::login(&format!("127.0.0.1:{port}"), &Login::new("admin", "admin"))?;
    let rows = wire.query("SHOW GLOBAL STATUS LIKE 'Com_select'")?.rows().texts();
    Ok(rows.first().and_then(|r| r.get(1)).and_then(|n| n.parse().ok()).ok_or("no counter")?)
}

#[test]
fn reads_spread_over_the_readers() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        // Probes read too: only the difference of many statements counts.
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let before: Vec<u64> = ports.0.iter().map(|p| selects(p)).collect::<Result<_>>()?;
        let mut clients: Vec<Wire> = (0..40).map(|_| client(&belay)).collect::<Result<_>>()?;
        for _ in 0..50 {
            for wire in &mut clients {
                wire.query("SELECT COUNT(*) FROM routed")?;
            }
        }
        let served: Vec<u64> =
            ports.0.iter().zip(before).map(|(p, n)| Ok(selects(p)?.saturating_sub(n))).collect::<Result<_>>()?;
        // 2,000 reads; each client's are all on one node, so a fifth is far from what chance does.
        assert!(served[1] > 400 && served[2] > 400, "{served:?}");
        assert!(served[0] < 500, "the writer serves logins and the monitor only: {served:?}");
        belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn a_session_reads_its_own_writes_at_once() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let mut wire = client(&belay)?;
        wire.query("INSERT INTO routed VALUES (7, 0)")?;
        let select = wire.prepare("SELECT CONCAT('=', v, '@', @@port) FROM routed WHERE id = ?")?;
        let mut elsewhere = 0;
        for n in 1..=300 {
            match n % 3 {
                0 => {
                    wire.query("BEGIN")?;
                    wire.query(&format!("UPDATE routed SET v = {n} WHERE id = 7"))?;
                    wire.query("COMMIT")?;
                }
                _ => drop(wire.query(&format!("UPDATE routed SET v = {n} WHERE id = 7"))?),
            }
            let reply = if n % 2 == 0 {
                wire.query("SELECT CONCAT('=', v, '@', @@port) FROM routed WHERE id = 7")?
            } else {
                wire.execute_i64(select, 7)?
            };
            // The row of a prepared statement is as it came: the text stands at its end.
            let row = reply.rows().first_value().ok_or("no row")?;
            let (value, port) = row.split_once('=').and_then(|(_, r)| r.split_once('@')).ok_or("no value")?;
            assert_eq!(value, n.to_string(), "at {port}");
            elsewhere += u32::from(ports.is_reader(port));
        }
        assert!(elsewhere > 50, "only {elsewhere} of 300 reads were served by readers");
        belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn answers_about_the_last_statement_are_the_sessions_own() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let mut wire = client(&belay)?;
        wire.query("CREATE OR REPLACE TABLE routed_ids (id INT AUTO_INCREMENT PRIMARY KEY, v INT)")?;
        wire.query("INSERT INTO routed_ids (v) VALUES (1)")?;
        let id = wire.text("SELECT LAST_INSERT_ID()")?;
        assert_ne!(id, "0");
        wire.query("SELECT COUNT(*) FROM routed_ids")?;
        assert_eq!(wire.text("SELECT LAST_INSERT_ID()")?, id);
        wire.query("UPDATE routed_ids SET v = v + 1")?;
        assert_eq!(wire.text("SELECT ROW_COUNT()")?, "1");
        wire.query("SELECT 1 UNION SELECT 2 UNION SELECT 3")?;
        assert_eq!(wire.text("SELECT FOUND_ROWS()")?, "3");
        assert_eq!(wire.text("SELECT CONNECTION_ID()")?, wire.connection_id.to_string());
        // Warnings of a read are where it ran; the next write leaves them behind, and the reader with them.
        wire.query("SELECT CAST('x' AS SIGNED) FROM routed_ids")?;
        assert_eq!(wire.query("SHOW WARNINGS")?.rows().texts().len(), 1);
        wire.query("INSERT INTO routed_ids (v) VALUES (2)")?;
        wire.query("SELECT CAST('x' AS SIGNED) FROM routed_ids")?;
        wire.query("UPDATE routed_ids SET v = 9")?;
        let error = wire.query("SELECT * FROM no_such_table").unwrap_err();
        assert_eq!(error.code(), 1146);
        wire.query("INSERT INTO routed_ids (v) VALUES (3)")?;
        let writer = Wire::login(&format!("127.0.0.1:{}", ports.writer()), &Login::new(APP, APP).schema("test"))?
            .text("SELECT COUNT(*) FROM routed_ids")?;
        assert_eq!(writer, "3");
        wire.query("SET @v = 'kept', sql_mode = 'ANSI', time_zone = '+03:00'")?;
        // User variables are read from the server session that has them, before another one can be used.
        wait_for("a reader with the session's state", Duration::from_secs(10), || {
            let row = wire.query("SELECT @v, @@sql_mode, @@time_zone, @@port").ok()?.rows().texts().remove(0);
            assert!(row[0] == "kept" && row[1].contains("ANSI") && row[2] == "+03:00", "{row:?}");
            ports.is_reader(&row[3]).then_some(())
        })?;
        belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn read_only_transactions_are_whole_on_their_reader() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let mut wire = client(&belay)?;
        let mut other = client(&belay)?;
        wire.query("INSERT INTO routed VALUES (11, 1)")?;
        until_on_a_reader(&mut wire, &ports)?;
        wire.query("START TRANSACTION READ ONLY")?;
        let reader = wire.text("SELECT @@port FROM routed LIMIT 1")?;
        assert!(ports.is_reader(&reader), "{reader}");
        assert_eq!(wire.text("SELECT v FROM routed WHERE id = 11")?, "1");
        other.query("UPDATE routed SET v = 2 WHERE id = 11")?;
        wait_for("the write on the reader", Duration::from_secs(20), || {
            let address = format!("127.0.0.1:{reader}");
            let mut direct = Wire::login(&address, &Login::new(APP, APP).schema("test")).ok()?;
            direct.text("SELECT v FROM routed WHERE id = 11").ok().filter(|v| v == "2")
        })?;
        assert_eq!(wire.text("SELECT v FROM routed WHERE id = 11")?, "1", "its snapshot is older");
        for sql in ["SHOW TABLES", "SAVEPOINT s", "SET @a = 1"] {
            wire.query(sql)?;
        }
        for (sql, code) in [
            ("INSERT INTO routed VALUES (12, 1)", 1792),
            ("CREATE TEMPORARY TABLE tmp (id INT)", 1792),
            ("SELECT GET_LOCK('x', 0)", 1105),
            ("SELECT * FROM routed LOCK IN SHARE MODE", 1105),
        ] {
            assert_eq!(wire.query(sql).unwrap_err().code(), code, "{sql}");
        }
        assert_eq!(wire.text("SELECT @@port")?, reader, "and it is still open, where it was");
        assert_eq!(wire.text("SELECT v FROM routed WHERE id = 11")?, "1");
        wire.query("COMMIT")?;
        assert_eq!(wire.text("SELECT v FROM routed WHERE id = 11")?, "2");
        // What ends it by itself is the writer's.
        for sql in ["BEGIN", "CREATE OR REPLACE TABLE routed_ddl (id INT)", "LOCK TABLES routed WRITE"] {
            // What the session saw on the writer has to be known of a reader first.
            let reader = until_on_a_reader(&mut wire, &ports)?;
            wire.query("START TRANSACTION READ ONLY")?;
            assert_eq!(wire.text("SELECT @@port FROM routed LIMIT 1")?, reader);
            wire.query(sql)?;
            if sql.starts_with("CREATE") {
                // For all that belay can see it was a view: the readers' views are looked at first.
                until_on_a_reader(&mut wire, &ports)?;
            } else {
                let found = wire.text("SELECT @@port FROM routed LIMIT 1").or_else(|_| wire.text("SELECT @@port"))?;
                assert_eq!(found, ports.writer(), "{sql}");
            }
            if sql == "BEGIN" {
                wire.query("INSERT INTO routed VALUES (12, 1)")?;
                wire.query("ROLLBACK")?;
            }
            wire.query("UNLOCK TABLES")?;
        }
        assert_eq!(wire.text("SELECT COUNT(*) FROM routed WHERE id = 12")?, "0");
        belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn views_that_may_write_are_the_writers() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let (mut belay, ports) = stage(&cluster, |o| o)?;
        let admin =
            |port: &str| Wire::login(&format!("127.0.0.1:{port}"), &Login::new("admin", "admin").schema("test"));
        for port in &ports.0 {
            // Each node asks this of whoever creates a function there, replication or not.
            admin(port)?.query("SET GLOBAL log_bin_trust_function_creators = 1")?;
        }
        let mut admin = admin(ports.writer())?;
        admin.query("CREATE OR REPLACE TABLE routed_log (id INT AUTO_INCREMENT PRIMARY KEY, port INT)")?;
        admin.query(
            "CREATE OR REPLACE FUNCTION routed_writes() RETURNS INT MODIFIES SQL DATA \
             BEGIN INSERT INTO routed_log (port) VALUES (@@port); RETURN @@port; END",
        )?;
        let mut wire = client(&belay)?;
        // The session makes the view itself, so it is looked for behind that, however short ago.
        for n in 0..5 {
            wire.query(&format!("CREATE OR REPLACE VIEW routed_view_{n} AS SELECT routed_writes() AS port"))?;
            assert_eq!(wire.text(&format!("SELECT port FROM routed_view_{n}"))?, ports.writer());
            until_on_a_reader(&mut wire, &ports)?;
            assert_eq!(wire.text(&format!("SELECT port FROM `test`.`routed_view_{n}`"))?, ports.writer());
        }
        // A function that is called by its name, and one in a prepared statement.
        assert_eq!(client(&belay)?.text("SELECT routed_writes()")?, ports.writer());
        let statement = wire.prepare("SELECT port FROM routed_view_0 WHERE port > ?")?;
        wire.execute_i64(statement, 1)?;
        let log = Wire::login(&format!("127.0.0.1:{}", ports.writer()), &Login::new(APP, APP).schema("test"))?
            .text("SELECT CONCAT(COUNT(*), ' on ', COUNT(DISTINCT port), ' ', MIN(port)) FROM routed_log")?;
        // MariaDB runs such a view's function twice where it filters by its value.
        assert!(log.ends_with(&format!(" on 1 {}", ports.writer())), "{log}");
        // In a READ ONLY transaction the server itself refuses.
        until_on_a_reader(&mut wire, &ports)?;
        wire.query("START TRANSACTION READ ONLY")?;
        assert!(ports.is_reader(&wire.text("SELECT @@port")?));
        assert_eq!(wire.query("SELECT port FROM routed_view_0").unwrap_err().code(), 1792);
        wire.query("ROLLBACK")?;
        for n in 0..5 {
            wire.query(&format!("DROP VIEW routed_view_{n}"))?;
        }
        admin.query("DROP FUNCTION routed_writes")?;
        belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn a_killed_reader_is_left_by_the_next_statement() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Galera::start(3)?;
    let addresses = cluster.addresses();
    let mut belay = options(addresses.clone()).start()?;
    let mut first = client(&belay)?;
    first.query("CREATE OR REPLACE TABLE routed (id INT PRIMARY KEY, v INT)")?;
    let ports = ports(&mut first, &addresses)?;
    until_reads_scale(&belay, &ports)?;
    let mut clients: Vec<Wire> = (0..20).map(|_| client(&belay)).collect::<Result<_>>()?;
    for wire in &mut clients {
        wire.query("SELECT @@port FROM routed")?;
    }
    let victim = addresses.iter().position(|a| port(a) == ports.0[1]).ok_or("no victim")?;
    cluster.node_mut(victim)?.kill()?;
    let began = Instant::now();
    for wire in &mut clients {
        let served = wire.text("SELECT @@port")?;
        assert_ne!(served, ports.0[1]);
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    // Under load, without a pause: no client sees anything but answers, or an honest error while a read is under way.
    for wire in &mut clients {
        for _ in 0..10 {
            assert_eq!(wire.text("SELECT COUNT(*) FROM routed")?, "0");
        }
    }
    cluster.restart(victim)?;
    belay.assert_healthy()
}

#[test]
fn a_reader_that_does_not_follow_is_not_read() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Replication::start(2)?;
    let addresses = cluster.addresses();
    let mut belay = options(addresses.clone()).set("router", "lag_max_ms", 1_000).start()?;
    let mut wire = client(&belay)?;
    wire.query("CREATE OR REPLACE TABLE routed (id INT PRIMARY KEY, v INT)")?;
    let ports = ports(&mut wire, &addresses)?;
    until_reads_scale(&belay, &ports)?;
    // One replica stops applying: a session that wrote is never read from it, and after lag_max_ms nobody is.
    cluster.node_mut(1)?.admin()?.query("STOP SLAVE SQL_THREAD")?;
    let stopped = port(&addresses[1]);
    for n in 0..50 {
        wire.query(&format!("INSERT INTO routed VALUES ({n}, {n})"))?;
        assert_eq!(wire.text("SELECT COUNT(*) FROM routed")?, (n + 1).to_string());
    }
    std::thread::sleep(Duration::from_millis(1_500));
    for _ in 0..20 {
        let row = client(&belay)?.query("SELECT @@port, COUNT(*) FROM routed")?.rows().texts().remove(0);
        assert_ne!(row[0], stopped, "it is behind for longer than lag_max_ms");
        assert_eq!(row[1], "50");
    }
    cluster.node_mut(1)?.admin()?.query("START SLAVE SQL_THREAD")?;
    until_reads_scale(&belay, &ports)?;
    belay.assert_healthy()
}

#[test]
fn without_rules_nothing_changes() -> Result<()> {
    if direct() {
        return Ok(());
    }
    for cluster in Cluster::both()? {
        let addresses = cluster.addresses();
        let belay = Options::new(addresses.clone()).start()?;
        let writer = ports(&mut client(&belay)?, &addresses)?.writer().to_owned();
        for _ in 0..10 {
            assert_eq!(client(&belay)?.text("SELECT @@port")?, writer);
        }
        assert_eq!(belay.metrics()?.sum("belay_routes_total", &["to=\"reader\""]), 0.0);
    }
    Ok(())
}

#[test]
fn answers_are_the_servers_with_the_rules_in_force() -> Result<()> {
    let cluster = Cluster::Galera(shared::galera()?);
    if direct() {
        return Ok(());
    }
    let (mut belay, ports) = stage(&cluster, |o| o.server_connections_max(4))?;
    let oracle = format!("127.0.0.1:{}", ports.writer());
    let steps = [
        Sql("CREATE OR REPLACE TABLE same (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(20))"),
        Sql("INSERT INTO same (id, v) VALUES (1, 'a'), (2, 'b')"),
        Sql("SELECT * FROM same ORDER BY id"),
        Sql("SELECT ROW_COUNT(), FOUND_ROWS()"),
        Disturb("SELECT COUNT(*) FROM same"),
        Sql("SELECT FOUND_ROWS()"),
        Prepared("SELECT v FROM same WHERE id = ?", &["2"]),
        Sql("SELECT 1/0 FROM same"),
        Sql("SHOW WARNINGS"),
        Sql("SELECT CAST('x' AS SIGNED)"),
        Sql("SELECT @@warning_count"),
        Sql("SELECT * FROM no_such_table"),
        Sql("SHOW ERRORS"),
        Sql("UPDATE same SET v = 'c' WHERE id = 2"),
        Sql("SELECT ROW_COUNT()"),
        Sql("SELECT v FROM same WHERE id = 2"),
        Sql("BEGIN"),
        Sql("INSERT INTO same (id, v) VALUES (3, 'd')"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("COMMIT"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("START TRANSACTION READ ONLY"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("INSERT INTO same (id, v) VALUES (4, 'e')"),
        Sql("SET @x = 5"),
        Sql("SELECT @x"),
        Sql("SAVEPOINT s"),
        Sql("ROLLBACK TO s"),
        Sql("COMMIT AND CHAIN"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("BEGIN"),
        Sql("INSERT INTO same (id, v) VALUES (4, 'e')"),
        Sql("ROLLBACK"),
        Sql("SET sql_mode = 'ANSI_QUOTES', time_zone = '+02:00'"),
        Sql("SELECT \"v\" FROM same ORDER BY id"),
        Sql("SELECT @@sql_mode, @@time_zone, @@autocommit, @x"),
        Disturb("SET time_zone = '+09:00'"),
        Sql("SELECT @@time_zone, FROM_UNIXTIME(0)"),
        Sql("SET NAMES latin1"),
        Sql("SELECT 'x', COLLATION('x'), @@character_set_results"),
        Sql("VALUES (1, 2), (3, 4)"),
        Sql("WITH c AS (SELECT 1 AS one) SELECT one FROM c"),
        Sql("(SELECT 1) UNION (SELECT 2)"),
        Sql("SET autocommit = 0"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("COMMIT"),
        Sql("SET autocommit = 1"),
        Sql("SELECT COUNT(*) FROM same"),
        Sql("DROP TABLE same"),
    ];
    assert_same(&oracle, belay.address(), &Login::new(APP, APP).schema("test"), &steps)?;
    let reads = belay.metrics()?.sum("belay_routes_total", &["to=\"reader\""]);
    assert!(reads > 10.0, "{reads}");
    belay.assert_healthy()
}

#[test]
fn a_session_pinned_to_a_killed_reader_hears_of_it() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = Replication::start(1)?;
    let addresses = cluster.addresses();
    let mut belay = options(addresses.clone()).start()?;
    let mut wire = client(&belay)?;
    wire.query("CREATE OR REPLACE TABLE routed (id INT PRIMARY KEY, v INT)")?;
    let ports = ports(&mut wire, &addresses)?;
    until_reads_scale(&belay, &ports)?;
    wire.query("START TRANSACTION READ ONLY")?;
    assert!(ports.is_reader(&wire.text("SELECT @@port FROM routed UNION SELECT @@port")?));
    cluster.node_mut(1)?.kill()?;
    let error = wire.query("SELECT COUNT(*) FROM routed").unwrap_err();
    assert!(matches!(error, WireError::Server { code: 1213, .. }), "{error}");
    // The next one goes on with the writer, reads and all.
    assert_eq!(wire.text("SELECT COUNT(*) FROM routed")?, "0");
    assert_eq!(wire.text("SELECT @@port")?, ports.writer());
    belay.assert_healthy()
}
