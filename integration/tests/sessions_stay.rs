//! Sessions that stay: nodes are killed under idle clients, under reads and under writes, and no client connection is lost, no read fails, nothing is
//! done twice.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::process::{run_limited, wait_for};
use belay_integration::servers::{APP, Galera, program};
use belay_integration::wire::{Login, Statement, Wire, WireError};
use belay_integration::{Result, shared};

fn client(belay: &Belay) -> Result<Wire> {
    Ok(Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?)
}

/// The index of the node that belay has as its writer.
fn writer(belay: &Belay, cluster: &Galera) -> Result<usize> {
    wait_for("a writer", Duration::from_secs(30), || {
        let metrics = belay.metrics().ok()?;
        let is_writer = |a: &String| metrics.sum("belay_node_writer", &[&format!("node=\"{a}\"")]) == 1.0;
        cluster.addresses().iter().position(is_writer)
    })
}

fn pinned(belay: &Belay) -> Result<f64> {
    Ok(belay.metrics()?.sum("belay_pinned", &[]))
}

/// A client that idles with a state of its own.
struct Idle {
    wire: Wire,
    statement: Statement,
    number: usize,
}

impl Idle {
    fn start(belay: &Belay, number: usize) -> Result<Idle> {
        let mut wire = client(belay)?;
        let schema = if number.is_multiple_of(2) { "shop" } else { "test" };
        wire.command(2, schema.as_bytes())?;
        // MariaDB compares offsets as text without case: '+08:10' where somebody has said '+05:54' becomes '+05:54'. None of these are such a pair.
        wire.query(&format!(
            "SET time_zone = '+{:02}:{:02}', group_concat_max_len = {}, sql_select_limit = {}",
            number % 13,
            number % 2 * 30,
            2000 + number,
            3000 + number
        ))?;
        wire.query(&format!("SET @number = {number}, @word = 'word-{number}'"))?;
        let statement = wire.prepare(&format!("SELECT {number} + ?, @word, DATABASE()"))?;
        Ok(Idle { wire, statement, number })
    }

    fn ask(&mut self) -> Result<()> {
        let sql = "SELECT @@time_zone, @@group_concat_max_len, @@sql_select_limit, @number, @word, DATABASE()";
        Ok(self.wire.send_command(3, sql.as_bytes())?)
    }

    fn check(&mut self) -> Result<()> {
        let n = self.number;
        let schema = if n.is_multiple_of(2) { "shop" } else { "test" };
        let found = self.wire.read_reply(false)?.rows().texts();
        let zone = format!("+{:02}:{:02}", n % 13, n % 2 * 30);
        let [a, b, c, d] = [(2000 + n), (3000 + n), n, n].map(|v| v.to_string());
        let wanted = vec![vec![zone, a, b, c, format!("word-{d}"), schema.to_owned()]];
        if found != wanted {
            return Err(format!("client {n}: {found:?} instead of {wanted:?}").into());
        }
        let rows = self.wire.execute_i64(self.statement, 1)?.rows();
        let row = rows.rows.first().and_then(|r| r.first()).and_then(Option::as_ref).cloned().unwrap_or_default();
        // A binary row: header, one byte of NULL bits, the sum as a long long, then two strings.
        let mut wanted = vec![0, 0];
        wanted.extend_from_slice(&(n as i64 + 1).to_le_bytes());
        for text in [format!("word-{n}"), schema.to_owned()] {
            wanted.push(text.len() as u8);
            wanted.extend_from_slice(text.as_bytes());
        }
        if row != wanted {
            return Err(format!("client {n}: its prepared statement answers {row:?} instead of {wanted:?}").into());
        }
        Ok(())
    }
}

#[test]
fn a_thousand_idle_clients_do_not_notice_a_killed_writer() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(16).start()?;
    let mut idle: Vec<Idle> = (0..1000).map(|n| Idle::start(&belay, n)).collect::<Result<_>>()?;
    wait_for("momentary pins to end", Duration::from_secs(20), || (pinned(&belay).ok()? == 0.0).then_some(()))?;
    let victim = writer(&belay, &cluster)?;
    cluster.node_mut(victim)?.kill()?;
    let killed = Instant::now();
    for client in &mut idle {
        client.ask()?;
    }
    let all_sent = killed.elapsed();
    assert!(all_sent < Duration::from_secs(1), "the last statement was sent {all_sent:?} after the kill");
    let wrong: Vec<String> = idle.iter_mut().filter_map(|c| c.check().err().map(|e| e.to_string())).collect();
    println!("1,000 statements sent within {all_sent:?}, all answered after {:?}", killed.elapsed());
    assert!(wrong.is_empty(), "{} of 1,000 went wrong, for example {:?}", wrong.len(), wrong.first());
    assert_eq!(pinned(&belay)?, 0.0);
    drop(idle);
    cluster.restart(victim)?;
    belay.assert_healthy()
}

/// Answers have 100 rows, sysbench's default: they come in one piece. The rest of a longer one that is cut by a kill can't be had, and is an honest error.
fn sysbench(port: u16, ps_mode: &str, arguments: &[&str], limit: Duration) -> Result<String> {
    let mut c = std::process::Command::new(program(&["sysbench"])?);
    c.args(["oltp_read_only", "--skip-trx=on", "--db-driver=mysql", "--mysql-host=127.0.0.1", "--mysql-user=app"]);
    c.args(["--mysql-password=app", "--mysql-db=test", "--tables=2", "--table-size=1000"]);
    c.arg(format!("--mysql-port={port}")).arg(format!("--db-ps-mode={ps_mode}")).args(arguments);
    run_limited(&c, limit)
}

/// Reads run all the time while every node is killed and comes back; sysbench ends with an error if it sees a single one.
fn reads_under_kills(ps_mode: &'static str) -> Result<()> {
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(200).start()?;
    let port = belay.port();
    let limit = Duration::from_secs(300);
    let _ = sysbench(port, "disable", &["cleanup"], limit);
    sysbench(port, "disable", &["prepare"], limit)?;
    let over = Arc::new(AtomicBool::new(false));
    let done = Arc::clone(&over);
    let load = std::thread::spawn(move || {
        // As many rounds as it takes: each is an invocation that must end well.
        let mut longest_ms = 0.0_f64;
        while !done.load(Ordering::Acquire) {
            let out =
                sysbench(port, ps_mode, &["--threads=192", "--time=20", "run"], limit).map_err(|e| e.to_string())?;
            let max = out.lines().find_map(|l| l.trim().strip_prefix("max:")?.trim().parse().ok()).unwrap_or(0.0);
            longest_ms = longest_ms.max(max);
        }
        Ok::<f64, String>(longest_ms)
    });
    let mut in_flight = Vec::new();
    for _ in 0..cluster.nodes().len() {
        let victim = writer(&belay, &cluster)?;
        // The load is there: so many statements are with the node.
        let busy = wait_for("100 statements in flight", Duration::from_secs(60), || {
            let active = belay.metrics().ok()?.sum("belay_client_connections", &["state=\"active\""]);
            (active >= 100.0 || load.is_finished()).then_some(active)
        })?;
        if load.is_finished() {
            break;
        }
        in_flight.push(busy);
        cluster.node_mut(victim)?.kill()?;
        wait_for("another writer", Duration::from_secs(60), || {
            (writer(&belay, &cluster).ok()? != victim).then_some(())
        })?;
        cluster.restart(victim)?;
        cluster.wait_synced(victim, Duration::from_secs(60))?;
    }
    over.store(true, Ordering::Release);
    let longest_ms = load.join().map_err(|_| "the load failed")??;
    let again = belay.metrics()?.sum("belay_masked_total", &["what=\"read_again\""]);
    println!(
        "{ps_mode}: in flight at the kills {in_flight:?}, {again} reads run again, longest stall {longest_ms:.0} ms, 0 errors"
    );
    assert_eq!(in_flight.len(), cluster.nodes().len(), "the load ended early");
    assert!(again > 0.0, "no read was in flight");
    sysbench(port, "disable", &["cleanup"], limit)?;
    belay.assert_healthy()
}

#[test]
fn reads_in_text_go_on_while_every_node_is_killed() -> Result<()> {
    if direct() { Ok(()) } else { reads_under_kills("disable") }
}

#[test]
fn prepared_reads_go_on_while_every_node_is_killed() -> Result<()> {
    if direct() { Ok(()) } else { reads_under_kills("auto") }
}

/// What a client was told of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Done,
    NotDone,
    Unknown,
}

/// What an error says about the statement: 'unknown' may be either, everything else that belay or a server says is definite.
fn told(error: &WireError) -> Result<Told> {
    match error {
        WireError::Server { message, .. } if message.contains("unknown") => Ok(Told::Unknown),
        // Certification conflicts, lock waits and lost transactions say that nothing was done.
        WireError::Server { .. } => Ok(Told::NotDone),
        other => Err(format!("a client connection was lost: {other}").into()),
    }
}

/// Inserts keys of its own, alone or two in a transaction, until it is told to stop.
fn write(
    address: &str,
    first: u64,
    stop: &AtomicBool,
    ledger: &Mutex<BTreeMap<u64, Told>>,
    done: &AtomicU64,
) -> Result<()> {
    let mut wire = Wire::login(address, &Login::new(APP, APP).schema("test"))?;
    let mut key = first;
    while !stop.load(Ordering::Relaxed) {
        let pair = [key, key + 1];
        key += 2;
        let verdict = if key.is_multiple_of(4) {
            pair.map(|k| {
                wire.query(&format!("INSERT INTO counted VALUES ({k})")).map_or_else(|e| told(&e), |_| Ok(Told::Done))
            })
        } else {
            let mut transaction = || -> std::result::Result<(), WireError> {
                wire.query("BEGIN")?;
                for k in pair {
                    wire.query(&format!("INSERT INTO counted VALUES ({k})"))?;
                }
                wire.query("COMMIT").map(|_| ())
            };
            let verdict = match transaction() {
                Ok(()) => Told::Done,
                Err(e) => {
                    let verdict = told(&e)?;
                    // The application's own part: whatever is open must not go on.
                    match wire.query("ROLLBACK") {
                        Ok(_) | Err(WireError::Server { .. }) => verdict,
                        Err(e) => return Err(format!("a client connection was lost: {e}").into()),
                    }
                }
            };
            [Ok(verdict), Ok(verdict)]
        };
        let mut ledger = ledger.lock().map_err(|_| "another writer failed")?;
        for (k, verdict) in pair.into_iter().zip(verdict) {
            ledger.insert(k, verdict?);
        }
        done.fetch_add(2, Ordering::Relaxed);
    }
    Ok(())
}

#[test]
fn nothing_is_written_twice_and_every_error_is_true() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let rows_wanted: u64 = std::env::var("BELAY_ROWS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(16).start()?;
    client(&belay)?.query("CREATE OR REPLACE TABLE counted (k BIGINT NOT NULL, KEY (k))")?;
    let ledger = Arc::new(Mutex::new(BTreeMap::new()));
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut writers = Vec::new();
    for n in 0..24_u64 {
        let (address, ledger) = (belay.address().to_owned(), Arc::clone(&ledger));
        let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
        writers.push(std::thread::spawn(move || {
            write(&address, n * 1_000_000_000, &stop, &ledger, &done).map_err(|e| e.to_string())
        }));
    }
    let mut kills = 0;
    while kills < 3 || done.load(Ordering::Relaxed) < rows_wanted {
        let before = done.load(Ordering::Relaxed);
        wait_for("the load to go on", Duration::from_secs(60), || {
            (done.load(Ordering::Relaxed) > before + 300).then_some(())
        })?;
        let victim = writer(&belay, &cluster)?;
        cluster.node_mut(victim)?.kill()?;
        kills += 1;
        wait_for("another writer", Duration::from_secs(60), || {
            (writer(&belay, &cluster).ok()? != victim).then_some(())
        })?;
        cluster.restart(victim)?;
        cluster.wait_synced(victim, Duration::from_secs(60))?;
    }
    stop.store(true, Ordering::Relaxed);
    for w in writers {
        w.join().map_err(|_| "a writer failed")??;
    }
    let rows = client(&belay)?.query("SELECT k, COUNT(*) FROM counted GROUP BY k")?.rows().texts();
    let number = |t: &String| t.parse::<u64>().unwrap_or(u64::MAX);
    let found: BTreeMap<u64, u64> = rows.iter().filter_map(|r| Some((number(r.first()?), number(r.get(1)?)))).collect();
    let ledger = ledger.lock().map_err(|_| "a writer failed")?;
    let mut faults = Vec::new();
    for (key, times) in &found {
        if *times > 1 {
            faults.push(format!("{key} is there {times} times"));
        }
        if !ledger.contains_key(key) {
            faults.push(format!("{key} is there and nobody was told"));
        }
    }
    let mut counts = [0u64; 3];
    for (key, told) in ledger.iter() {
        counts[*told as usize] += 1;
        match (told, found.contains_key(key)) {
            (Told::Done, false) => faults.push(format!("{key} was acknowledged and is not there")),
            (Told::NotDone, true) => faults.push(format!("{key} was said not to be done and is there")),
            _ => {}
        }
    }
    println!("{kills} kills: {} keys done, {} not done, {} unknown", counts[0], counts[1], counts[2]);
    assert!(faults.is_empty(), "{} faults, for example {:?}", faults.len(), faults.get(..5.min(faults.len())));
    client(&belay)?.query("DROP TABLE counted")?;
    belay.assert_healthy()
}
