//! The load: one thread for each client, point selects by primary key, nothing but sockets in between.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use belay_integration::Result;
use belay_integration::servers::{APP, admin_connection};
use belay_integration::wire::{Login, Wire};

/// Rows in the table.
const ROWS: u64 = 10_000;

/// What each client does.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Number of clients.
    pub clients: usize,
    /// Prepared once and executed, instead of text.
    pub prepared: bool,
    /// Number of groups whose session variables differ.
    pub groups: usize,
    /// Number of session variables in which the groups differ; 0 = all alike.
    pub vars: usize,
    /// How long.
    pub duration: Duration,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Outcome {
    latencies_ns: Vec<u32>,
    /// How long it took in truth.
    pub seconds: f64,
}

impl Outcome {
    /// Number of statements that were answered.
    pub fn statements(&self) -> u64 {
        self.latencies_ns.len() as u64
    }

    /// A latency in microseconds, `part` from 0 to 1.
    pub fn percentile_us(&mut self, part: f64) -> f64 {
        if self.latencies_ns.is_empty() {
            return 0.0;
        }
        let at = ((self.latencies_ns.len() - 1) as f64 * part) as usize;
        let (_, value, _) = self.latencies_ns.select_nth_unstable(at);
        f64::from(*value) / 1000.0
    }
}

/// Makes the table of the point selects.
pub fn make_table(server: &str) -> Result<()> {
    let mut admin = admin_connection(server)?;
    admin.query("CREATE OR REPLACE TABLE test.point (id INT PRIMARY KEY, c CHAR(120) NOT NULL) ENGINE = InnoDB")?;
    admin.query("USE test")?;
    admin
        .query(&format!("INSERT INTO test.point SELECT seq, REPEAT(CHAR(97 + seq % 26), 119) FROM seq_1_to_{ROWS}"))?;
    Ok(())
}

/// Clients that are logged in and wait for the start.
pub struct Clients {
    threads: Vec<JoinHandle<Result<Vec<u32>>>>,
    start: Arc<Barrier>,
    stop: Arc<AtomicBool>,
    duration: Duration,
}

/// Logs all clients in, gives each group its variables, prepares.
pub fn connect(address: &str, workload: &Workload) -> Result<Clients> {
    let start = Arc::new(Barrier::new(workload.clients + 1));
    let stop = Arc::new(AtomicBool::new(false));
    let mut threads = Vec::new();
    for i in 0..workload.clients {
        let mut wire = Wire::login(address, &Login::new(APP, APP).schema("test"))?;
        for sql in variables(i % workload.groups.max(1), workload.vars) {
            wire.query(&sql)?;
        }
        let (start, stop, prepared) = (Arc::clone(&start), Arc::clone(&stop), workload.prepared);
        threads.push(std::thread::spawn(move || {
            let ready = prepare(&mut wire, prepared);
            start.wait();
            client(wire, ready?, &stop, i as u64)
        }));
    }
    Ok(Clients { threads, start, stop, duration: workload.duration })
}

/// Connects and runs.
pub fn run(address: &str, workload: &Workload) -> Result<Outcome> {
    connect(address, workload)?.run()
}

/// The statements that make group `group` different from the others in `count` variables.
fn variables(group: usize, count: usize) -> Vec<String> {
    let all = [
        format!("SET time_zone = '+00:{group:02}'"),
        format!("SET sql_select_limit = {}", 1000 + group),
        format!("SET net_write_timeout = {}", 60 + group),
        format!("SET max_statement_time = {}", 100 + group),
        format!("SET group_concat_max_len = {}", 100_000 + group),
    ];
    all.into_iter().take(count).collect()
}

fn prepare(wire: &mut Wire, prepared: bool) -> Result<Option<belay_integration::wire::Statement>> {
    if !prepared {
        return Ok(None);
    }
    Ok(Some(wire.prepare("SELECT c FROM point WHERE id = ?")?))
}

fn client(
    mut wire: Wire,
    statement: Option<belay_integration::wire::Statement>,
    stop: &AtomicBool,
    seed: u64,
) -> Result<Vec<u32>> {
    let mut latencies = Vec::with_capacity(200_000);
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    while !stop.load(Ordering::Relaxed) {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let id = (random >> 33) % ROWS + 1;
        let began = Instant::now();
        let reply = match statement {
            Some(statement) => wire.execute_i64(statement, id as i64)?,
            None => wire.query(&format!("SELECT c FROM point WHERE id = {id}"))?,
        };
        latencies.push(u32::try_from(began.elapsed().as_nanos()).unwrap_or(u32::MAX));
        if reply.rows().rows.len() != 1 {
            return Err(format!("row {id} is missing").into());
        }
    }
    Ok(latencies)
}

impl Clients {
    /// Runs for the agreed time; an error of any client is an error of the run.
    pub fn run(self) -> Result<Outcome> {
        self.start.wait();
        let began = Instant::now();
        std::thread::sleep(self.duration);
        self.stop.store(true, Ordering::Relaxed);
        let mut latencies_ns = Vec::new();
        for thread in self.threads {
            latencies_ns.extend(thread.join().map_err(|_| "a client of the load failed")??);
        }
        Ok(Outcome { latencies_ns, seconds: began.elapsed().as_secs_f64() })
    }
}
