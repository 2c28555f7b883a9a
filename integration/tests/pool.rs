//! Many clients over few server connections: the cap holds, nobody starves, nobody is left behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use belay_integration::belay::{Options, direct};
use belay_integration::process::{run_limited, wait_for};
use belay_integration::servers::{APP, program};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};

/// Counts an account's connections on a server again and again; the highest number seen.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<u32>,
}

impl Watch {
    fn start(mut admin: Wire) -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut highest = 0;
            while !stopped.load(Ordering::Relaxed) {
                let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'app'";
                let now = admin.text(sql).ok().and_then(|t| t.parse().ok()).unwrap_or(u32::MAX);
                highest = highest.max(now);
                std::thread::sleep(Duration::from_millis(5));
            }
            highest
        });
        Watch { stop, thread }
    }

    fn highest(self) -> Result<u32> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the watch failed".into())
    }
}

fn sysbench(port: u16, seconds: u32, ps_mode: &str) -> Result<()> {
    let base = |action: &[&str]| -> Result<String> {
        let mut c = std::process::Command::new(program(&["sysbench"])?);
        c.args([
            "oltp_read_write",
            "--db-driver=mysql",
            "--mysql-host=127.0.0.1",
            "--mysql-user=app",
            "--mysql-password=app",
        ]);
        c.args(["--mysql-db=test", "--tables=4", "--table-size=2000", "--rand-type=uniform", "--report-interval=0"]);
        c.arg(format!("--mysql-port={port}")).arg(format!("--db-ps-mode={ps_mode}"));
        run_limited(c.args(action), Duration::from_secs(u64::from(seconds) + 120))
    };
    let _ = base(&["--threads=4", "cleanup"]);
    base(&["--threads=4", "prepare"])?;
    // Deadlocks and certification conflicts (1213) and lock waits (1205) are what a direct connection gives too; anything else ends sysbench.
    let out = base(&[
        "--threads=64",
        &format!("--time={seconds}"),
        "--mysql-ignore-errors=1213,1205,1020",
        "--skip-trx=off",
        "run",
    ])?;
    println!("{out}");
    assert!(!out.contains("FATAL"), "{out}");
    base(&["--threads=4", "cleanup"])?;
    Ok(())
}

#[test]
fn sixty_four_sysbench_clients_share_eight_connections() -> Result<()> {
    let cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(8).start()?;
    let seconds = std::env::var("BELAY_LOAD_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(15);
    for mode in ["auto", "disable"] {
        let watches: Vec<Watch> =
            cluster.nodes().iter().map(|n| Ok(Watch::start(n.admin()?))).collect::<Result<_>>()?;
        sysbench(belay.port(), seconds, mode)?;
        for watch in watches {
            let highest = watch.highest()?;
            assert!(direct() || highest <= 8, "{highest} connections on one node");
        }
    }
    belay.assert_healthy()
}

#[test]
fn waiting_is_fair() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    let address = belay.address().to_owned();
    let done = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for i in 0..32 {
        let (address, done) = (address.clone(), Arc::clone(&done));
        threads.push(std::thread::spawn(move || -> Result<(u32, Duration)> {
            let mut wire = Wire::login(&address, &Login::new(APP, APP).schema("shop"))?;
            // Groups of different state, so that the queue has reasons to prefer some.
            wire.query(&format!("SET time_zone = '+0{}:00'", i % 4))?;
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !done.load(Ordering::Relaxed) {
                let began = Instant::now();
                wire.query("BEGIN")?;
                wire.query("SELECT * FROM item WHERE id = 1")?;
                wire.query("COMMIT")?;
                longest = longest.max(began.elapsed());
                count += 1;
            }
            Ok((count, longest))
        }));
    }
    std::thread::sleep(Duration::from_secs(4));
    done.store(true, Ordering::Relaxed);
    let mut counts = Vec::new();
    for t in threads {
        counts.push(t.join().map_err(|_| "a client failed")??.0);
    }
    counts.sort_unstable();
    let (least, median) = (counts[0], counts[counts.len() / 2]);
    assert!(least * 3 >= median, "the slowest client got {least} transactions, the median {median}: {counts:?}");
    belay.assert_healthy()
}

#[test]
fn a_client_that_waits_in_vain_learns_what_is_in_its_way() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()])
        .server_connections_max(2)
        .set("pool", "acquire_timeout_ms", 500)
        .set("pool", "pinned_max", 2)
        .start()?;
    let mut holders = Vec::new();
    for i in 0..2 {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
        wire.query(&format!("CREATE TEMPORARY TABLE hold{i} (v INT)"))?;
        holders.push(wire);
    }
    let mut waiter = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let began = Instant::now();
    let error = waiter.query("SELECT 1").unwrap_err();
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(error.to_string().contains("temporary"), "the error names the pins in the way: {error}");
    drop(holders);
    wait_for("a free server session", Duration::from_secs(10), || waiter.query("SELECT 1").ok())?;
    belay.assert_healthy()
}

#[test]
fn clients_that_vanish_leave_nothing_behind() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    server.admin()?.query("CREATE OR REPLACE TABLE test.gone (id INT PRIMARY KEY) ENGINE = InnoDB")?;
    for i in 0..30 {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
        wire.query("BEGIN")?;
        wire.query(&format!("INSERT INTO gone VALUES ({i})"))?;
        // MariaDB itself lets the statement of a vanished client run on; belay ends it.
        if i % 3 == 0 && !direct() {
            wire.send_command(3, b"SELECT SLEEP(60)")?;
        }
        match wire.socket() {
            belay_integration::wire::Socket::Tcp(s) => s.shutdown(std::net::Shutdown::Both)?,
            belay_integration::wire::Socket::Unix(s) => s.shutdown(std::net::Shutdown::Both)?,
        }
    }
    let mut admin = server.admin()?;
    wait_for("the end of what ran for them", Duration::from_secs(20), || {
        let sleeping =
            admin.text("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE '%SLEEP(60)'").ok()?;
        let open = admin.text("SELECT COUNT(*) FROM information_schema.INNODB_TRX").ok()?;
        (sleeping == "0" && open == "0").then_some(())
    })?;
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    assert_eq!(wire.text("SELECT COUNT(*) FROM gone")?, "0");
    wire.query("DROP TABLE gone")?;
    belay.assert_healthy()
}

#[test]
fn transactions_stay_on_one_server_session() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(3).start()?;
    let wrong = Arc::new(AtomicU32::new(0));
    let mut setup = server.admin()?;
    setup.query("CREATE OR REPLACE TABLE test.acc (id INT PRIMARY KEY, v INT)")?;
    setup.query("INSERT INTO test.acc VALUES (1, 0)")?;
    let mut threads = Vec::new();
    for _ in 0..12 {
        let (address, wrong) = (belay.address().to_owned(), Arc::clone(&wrong));
        threads.push(std::thread::spawn(move || -> Result<()> {
            let mut wire = Wire::login(&address, &Login::new(APP, APP).schema("test"))?;
            for _ in 0..50 {
                wire.query("BEGIN")?;
                let before: i64 = wire.text("SELECT v FROM acc WHERE id = 1 FOR UPDATE")?.parse()?;
                wire.query(&format!("UPDATE acc SET v = {} WHERE id = 1", before + 1))?;
                if wire.text("SELECT v FROM acc WHERE id = 1")? != (before + 1).to_string() {
                    wrong.fetch_add(1, Ordering::Relaxed);
                }
                wire.query("COMMIT")?;
            }
            Ok(())
        }));
    }
    for t in threads {
        t.join().map_err(|_| "a client failed")??;
    }
    let mut admin = server.admin()?;
    assert_eq!((admin.text("SELECT v FROM test.acc")?, wrong.load(Ordering::Relaxed)), ("600".into(), 0));
    admin.query("DROP TABLE test.acc")?;
    belay.assert_healthy()
}
