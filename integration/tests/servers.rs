//! The harness itself: servers start, die, come back, and leave nothing behind.

use belay_integration::Result;
use belay_integration::servers::{APP, APP2, Galera, MariaDb, MySql, Replication, SeekDb};
use belay_integration::tls::Tls;
use belay_integration::wire::{Login, Wire};

#[test]
fn mariadb_starts_with_accounts_and_rows_and_survives_a_kill() -> Result<()> {
    let mut server = MariaDb::start()?;
    let mut app = Wire::login(&server.address(), &Login::new(APP, APP).schema("shop"))?;
    assert_eq!(app.text("SELECT COUNT(*) FROM item")?, "5");
    let mut app2 = Wire::login(&server.address(), &Login::new(APP2, APP2))?;
    assert_eq!(app2.query("SELECT * FROM shop.secret").unwrap_err().code(), 1142);
    app2.query("SET ROLE reader")?;
    assert_eq!(app2.text("SELECT word FROM shop.secret")?, "edelrid");
    server.kill()?;
    assert!(app.query("SELECT 1").is_err());
    server.start()?;
    assert_eq!(server.admin()?.text("SELECT COUNT(*) FROM shop.item")?, "5");
    Ok(())
}

#[test]
fn the_client_of_the_harness_reads_what_servers_say() -> Result<()> {
    let server = MariaDb::start()?;
    let address = server.address();
    for login in [Login::new(APP, APP), Login::new(APP, APP).without(1 << 24)] {
        let mut app = Wire::login(&address, &login.schema("test").with(1 << 16))?;
        let all = app.query_all("SELECT 1; SET @a = 2; SELECT @a, NULL")?;
        assert_eq!(all.len(), 3);
        assert_eq!(all[2].clone().rows().texts(), [["2", "NULL"]]);
        let s = app.prepare("SELECT ? + 1, ?")?;
        assert_eq!((s.params, s.columns), (2, 2));
        assert_eq!(app.execute(s, &[b"1", b"x"])?.rows().rows.len(), 1);
        app.close_statement(s)?;
        assert_eq!(app.query("SELECT nonsense").unwrap_err().code(), 1054);
        let long = app.text("SELECT REPEAT('x', 20000000)")?;
        assert_eq!(long.len(), 20_000_000);
        app.ping()?;
    }
    assert_eq!(Wire::login(&address, &Login::new(APP, "wrong")).unwrap_err().code(), 1045);
    Ok(())
}

#[test]
fn galera_starts_and_a_killed_node_joins_again() -> Result<()> {
    let mut cluster = Galera::start(3)?;
    let mut first = Wire::login(&cluster.node(0)?.address(), &Login::new(APP, APP).schema("test"))?;
    first.query("CREATE TABLE t (id INT PRIMARY KEY)")?;
    cluster.node_mut(0)?.kill()?;
    let mut second = Wire::login(&cluster.node(1)?.address(), &Login::new(APP, APP).schema("test"))?;
    second.query("SET wsrep_sync_wait = 7")?;
    let inserted = belay_integration::process::wait_for("the cluster", std::time::Duration::from_secs(15), || {
        second.query("INSERT INTO t VALUES (1)").ok()
    })?;
    assert_eq!(inserted.affected(), 1);
    cluster.restart(0)?;
    let mut first = Wire::login(&cluster.node(0)?.address(), &Login::new(APP, APP).schema("test"))?;
    assert_eq!(first.text("SELECT COUNT(*) FROM t")?, "1");
    Ok(())
}

#[test]
fn a_galera_cluster_that_was_down_comes_back() -> Result<()> {
    let mut cluster = Galera::start(2)?;
    cluster.node_mut(1)?.stop()?;
    cluster.node_mut(0)?.kill()?;
    cluster.restart(0)?;
    cluster.restart(1)?;
    assert_eq!(cluster.node(1)?.admin()?.text("SELECT COUNT(*) FROM shop.item")?, "5");
    Ok(())
}

#[test]
fn replication_replicates() -> Result<()> {
    let mut cluster = Replication::start(2)?;
    cluster.node_mut(0)?.admin()?.query("CREATE TABLE test.r (a INT)")?;
    belay_integration::process::wait_for("the table", std::time::Duration::from_secs(10), || {
        cluster.node_mut(2).ok()?.admin().ok()?.query("SELECT * FROM test.r").ok()
    })?;
    Ok(())
}

#[test]
fn mysql_starts_with_accounts() -> Result<()> {
    let mut server = MySql::start()?;
    assert_eq!(server.sql("SELECT COUNT(*) FROM shop.item")?.trim(), "5");
    let out = belay_integration::clients::mysql(
        server.address().rsplit(':').next().unwrap().parse()?,
        APP,
        APP,
        &["--get-server-public-key"],
        "SELECT CURRENT_USER()",
    )?;
    assert_eq!(out.trim(), "app@%");
    server.process()?.kill()?;
    server.restart()
}

#[test]
fn seekdb_starts_with_accounts_and_survives_kill() -> Result<()> {
    let mut server = SeekDb::start()?;
    assert!(server.admin()?.text("SELECT VERSION()")?.contains("OceanBase"));
    let mut app = Wire::login(&server.address(), &Login::new(APP, APP).schema("shop"))?;
    assert_eq!(app.text("SELECT COUNT(*) FROM item")?, "5");
    let mut app2 = Wire::login(&server.address(), &Login::new(APP2, APP2))?;
    assert_eq!(app2.query("SELECT * FROM shop.secret").unwrap_err().code(), 1142);
    app2.query("SET ROLE reader")?;
    assert_eq!(app2.text("SELECT word FROM shop.secret")?, "edelrid");
    assert_eq!(Wire::login(&server.address(), &Login::new("root", "")).unwrap_err().code(), 1045);
    app.query("INSERT INTO item (name, price) VALUES ('sling', 7.5)")?;
    server.kill()?;
    assert!(app.query("SELECT 1").is_err());
    server.restart()?;
    assert_eq!(server.admin()?.text("SELECT COUNT(*) FROM shop.item")?, "6");
    server.stop()?;
    server.restart()?;
    assert_eq!(server.admin()?.text("SELECT COUNT(*) FROM shop.item")?, "6");
    Ok(())
}

#[test]
fn servers_offer_tls_with_the_authority_of_a_test() -> Result<()> {
    let tls = Tls::make()?;
    let server = MariaDb::start_tls(&tls)?;
    let ca = format!("--ssl-ca={}", tls.ca().display());
    let out = belay_integration::clients::mariadb(
        server.port(),
        APP,
        APP,
        &[&ca, "--ssl-verify-server-cert"],
        "SHOW STATUS LIKE 'Ssl_cipher'",
    )?;
    assert!(out.contains("TLS_") || out.contains("ECDHE"), "{out}");
    Ok(())
}

#[test]
fn a_killed_test_leaves_no_process_and_no_directory() -> Result<()> {
    use belay_integration::paths::Scratch;
    use belay_integration::process::{Process, wait_for};
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use std::time::Duration;

    const ME: &str = "a_killed_test_leaves_no_process_and_no_directory";
    if std::env::var_os("BELAY_WATCHED").is_some() {
        let scratch = Scratch::new("watched")?;
        let mut sleep = Command::new("sleep");
        sleep.arg("600");
        let process = Process::start("sleep", sleep, &scratch.path().join("log"), false)?;
        println!("\nwatched {} {}", process.pid(), scratch.path().display());
        std::thread::sleep(Duration::from_secs(600));
        return Ok(());
    }
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", ME, "--nocapture"])
        .env("BELAY_WATCHED", "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let out = BufReader::new(child.stdout.take().ok_or("no output")?);
    let line = out.lines().map_while(std::result::Result::ok).find(|l| l.starts_with("watched "));
    let line = line.ok_or("the child said nothing")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, pid, dir] = words.as_slice() else { return Err("malformed".into()) };
    child.kill()?;
    child.wait()?;
    wait_for("the watchman", Duration::from_secs(5), || {
        let gone = !std::path::Path::new(&format!("/proc/{pid}")).exists() && !std::path::Path::new(dir).exists();
        gone.then_some(())
    })
}
