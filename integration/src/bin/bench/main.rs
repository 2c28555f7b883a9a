//! `make bench`: point selects directly, through HAProxy (TCP mode) and through belay, in interleaved rounds on one server;
//! then what belay's memory does.
//!
//! Options: `--rounds N` (7), `--seconds S` of each measurement (3), `--clients N` (32), `--connections N` of belay (8),
//! `--groups N` of clients (4), `--vars K` session variables in which the groups differ (1), `--threads N` of both proxies (what belay chooses),
//! `--only cpu|memory`.

mod load;
mod measure;
mod memory;

use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

use belay_integration::Result;
use belay_integration::belay::{Belay, Options};
use belay_integration::paths::Scratch;
use belay_integration::ports::free_port;
use belay_integration::process::{Process, wait_for};
use belay_integration::scrape::Samples;
use belay_integration::servers::{MariaDb, program};

use load::{Outcome, Workload};
use measure::{Spread, cpu_ns, syscalls};

/// What the command line asks for.
#[derive(Clone, Debug)]
struct Settings {
    rounds: usize,
    seconds: f64,
    clients: usize,
    connections: usize,
    groups: usize,
    vars: usize,
    threads: Option<usize>,
    only: Option<String>,
}

fn main() -> ExitCode {
    let result = parse(std::env::args().skip(1)).and_then(|settings| bench(&settings));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("bench: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Settings> {
    let mut s = Settings {
        rounds: 7,
        seconds: 3.0,
        clients: 32,
        connections: 8,
        groups: 4,
        vars: 1,
        threads: None,
        only: None,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
        match name.as_str() {
            "--rounds" => s.rounds = value.parse()?,
            "--seconds" => s.seconds = value.parse()?,
            "--clients" => s.clients = value.parse()?,
            "--connections" => s.connections = value.parse()?,
            "--groups" => s.groups = value.parse()?,
            "--vars" => s.vars = value.parse()?,
            "--threads" => s.threads = Some(value.parse()?),
            "--only" => s.only = Some(value),
            _ => return Err(format!("unknown option {name}").into()),
        }
    }
    Ok(s)
}

/// A way to the server.
struct Variant {
    name: &'static str,
    address: String,
    /// The process whose cost is counted; none for the direct way.
    pid: Option<u32>,
}

fn bench(settings: &Settings) -> Result<()> {
    let server = MariaDb::start_with(&["--max-connections=2000", "--thread-cache-size=200"])?;
    load::make_table(&server.address())?;
    let mut options = Options::new([server.address()]).server_connections_max(settings.connections);
    if let Some(threads) = settings.threads {
        options = options.threads(threads);
    }
    let belay = options.start()?;
    let scratch = Scratch::new("haproxy")?;
    let threads = settings.threads.unwrap_or_else(belay_threads);
    let haproxy = Haproxy::start(&scratch, &server.address(), threads)?;
    let of = |s: &str| s != "memory";
    if settings.only.as_deref().is_none_or(of) {
        let variants = [
            Variant { name: "direct", address: server.address(), pid: None },
            Variant { name: "HAProxy", address: haproxy.address.clone(), pid: Some(haproxy.process.pid()) },
            Variant { name: "belay", address: belay.address().to_owned(), pid: Some(belay.pid()) },
        ];
        println!(
            "{} clients in {} groups that differ in {} session variable(s), {} server connections, {threads} thread(s) each, \
             {} rounds of {} s\n",
            settings.clients, settings.groups, settings.vars, settings.connections, settings.rounds, settings.seconds
        );
        for prepared in [false, true] {
            compare(settings, &variants, &belay, prepared)?;
        }
    }
    drop(haproxy);
    if settings.only.as_deref() != Some("cpu") {
        memory::report(&belay)?;
    }
    Ok(())
}

/// The number of threads that belay chooses where the configuration does not say.
fn belay_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if cores <= 2 { 1 } else { cores }
}

struct Haproxy {
    process: Process,
    address: String,
}

impl Haproxy {
    fn start(scratch: &Scratch, server: &str, threads: usize) -> Result<Haproxy> {
        let address = format!("127.0.0.1:{}", free_port());
        let config = scratch.path().join("haproxy.cfg");
        fs::write(
            &config,
            format!(
                "global\n  nbthread {threads}\n  maxconn 8000\n\
                 defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 listen mysql\n  bind {address}\n  server s1 {server}\n"
            ),
        )?;
        let mut command = Command::new(program(&["haproxy"])?);
        command.args(["-db", "-f"]).arg(&config);
        let process = Process::start("haproxy", command, &scratch.path().join("log"), false)?;
        wait_for("haproxy", Duration::from_secs(10), || belay_integration::servers::admin_connection(&address).ok())?;
        Ok(Haproxy { process, address })
    }
}

/// One measurement of one variant.
#[derive(Clone, Copy, Debug, Default)]
struct Round {
    per_second: f64,
    p50_us: f64,
    p99_us: f64,
    cpu_us: Option<f64>,
}

fn compare(settings: &Settings, variants: &[Variant], belay: &Belay, prepared: bool) -> Result<()> {
    let workload = Workload {
        clients: settings.clients,
        prepared,
        groups: settings.groups,
        vars: settings.vars,
        duration: Duration::from_secs_f64(settings.seconds),
    };
    let mut rounds: Vec<Vec<Round>> = vec![Vec::new(); variants.len()];
    let before = belay.metrics()?;
    let mut through_belay = 0;
    for round in 0..settings.rounds {
        // Another order in each round, so that no variant always runs after the same one.
        for k in 0..variants.len() {
            let i = (k + round) % variants.len();
            let (Some(variant), Some(results)) = (variants.get(i), rounds.get_mut(i)) else { continue };
            let (measured, outcome) = measure_round(variant, &workload)?;
            results.push(measured);
            if variant.name == "belay" {
                through_belay += outcome.statements();
            }
        }
    }
    let after = belay.metrics()?;
    println!("## {} point selects\n", if prepared { "prepared" } else { "text" });
    println!("| | statements/s | p50 µs | p99 µs | proxy CPU µs/statement | times HAProxy | system calls/statement |");
    println!("|---|---|---|---|---|---|---|");
    let haproxy_cpu = median_cpu(variants, &rounds, "HAProxy");
    for (variant, rounds) in variants.iter().zip(&rounds) {
        let of = |f: &dyn Fn(&Round) -> Option<f64>| Spread::of(rounds.iter().filter_map(f));
        let cpu = of(&|r| r.cpu_us);
        let ratio = cpu.zip(haproxy_cpu).map_or_else(String::new, |(c, h)| format!("{:.2}", c.median / h));
        let calls = match variant.pid {
            Some(pid) => match syscalls(pid, || load::run(&variant.address, &workload).map(|o| o.statements())) {
                Ok(n) => format!("{n:.2}"),
                Err(e) => format!("not measured ({e})"),
            },
            None => String::new(),
        };
        println!(
            "| {} | {} | {} | {} | {} | {ratio} | {calls} |",
            variant.name,
            show(of(&|r| Some(r.per_second))),
            show(of(&|r| Some(r.p50_us))),
            show(of(&|r| Some(r.p99_us))),
            show(cpu),
        );
    }
    print_counters(&before, &after, through_belay);
    Ok(())
}

fn measure_round(variant: &Variant, workload: &Workload) -> Result<(Round, Outcome)> {
    let clients = load::connect(&variant.address, workload)?;
    let cpu_before = variant.pid.map(cpu_ns);
    let mut outcome = clients.run()?;
    let cpu = variant.pid.map(cpu_ns).zip(cpu_before).map(|(after, before)| after.saturating_sub(before));
    let statements = outcome.statements().max(1) as f64;
    let round = Round {
        per_second: statements / outcome.seconds,
        p50_us: outcome.percentile_us(0.50),
        p99_us: outcome.percentile_us(0.99),
        cpu_us: cpu.map(|ns| ns as f64 / 1000.0 / statements),
    };
    Ok((round, outcome))
}

fn median_cpu(variants: &[Variant], rounds: &[Vec<Round>], name: &str) -> Option<f64> {
    let i = variants.iter().position(|v| v.name == name)?;
    Spread::of(rounds.get(i)?.iter().filter_map(|r| r.cpu_us)).map(|s| s.median)
}

fn show(spread: Option<Spread>) -> String {
    spread.map_or_else(String::new, |s| s.to_string())
}

/// What belay did meanwhile, per statement: binds by kind, replays, pins, errors.
fn print_counters(before: &Samples, after: &Samples, statements: u64) {
    println!("\nbelay's counters over {statements} statements of the measured rounds:\n");
    for (key, value) in after.iter() {
        let interesting =
            ["belay_bind", "belay_rebind", "belay_replay", "belay_pins_total", "belay_errors", "belay_pool_waits"];
        let counts = key.contains("_total") && interesting.iter().any(|p| key.starts_with(p));
        let delta = value - before.iter().find(|(k, _)| *k == key).map_or(0.0, |(_, v)| v);
        if counts && delta > 0.0 {
            println!("  {key} {delta} ({:.3} per statement)", delta / statements.max(1) as f64);
        }
    }
    println!();
}
