//! `make demo`: a three-node Galera cluster, belay in front of it, a load through belay, and nodes that are killed meanwhile. It shows live what
//! clients notice of that, and ends with exit status 0 only if nothing was lost.
//!
//! Options: `--seconds S` (75), `--clients N` readers and as many clients with transactions (8), `--idle N` clients that idle (300),
//! `--plain` lines instead of a redrawn screen.

mod board;
mod chaos;
mod check;
mod idle;
mod kinds;
mod load;
mod reader;
mod screen;
mod seen;
mod transfer;
mod verdict;
mod view;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options};
use belay_integration::paths::{Scratch, target};
use belay_integration::process::wait_for;
use belay_integration::servers::Galera;
use belay_integration::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

use board::{Board, Counts};
use chaos::{Chaos, Done};
use screen::Screen;
use seen::Seen;
use verdict::Figures;
use view::Frame;

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Settings {
    seconds: u64,
    clients: usize,
    idle: usize,
    plain: bool,
}

/// In less time no node is killed and back again.
const SECONDS_MIN: u64 = 15;

/// How far things are, for Ctrl-C: while nothing is shown yet, the first one ends everything at once.
static PHASE: AtomicU8 = AtomicU8::new(STARTING);
const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const INTERRUPTED: u8 = 2;

fn main() -> ExitCode {
    let shown = parse(std::env::args().skip(1)).and_then(|settings| demonstrate(&settings));
    match shown {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("demo: {e}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Settings> {
    let mut settings = Settings { seconds: 75, clients: 8, idle: 300, plain: false };
    while let Some(name) = arguments.next() {
        let mut number = |least: u64| -> Result<u64> {
            let value = arguments.next().ok_or_else(|| format!("{name} needs a value"))?;
            let number = value.parse().map_err(|_| format!("{name} needs a number, not '{value}'"))?;
            if number < least { Err(format!("{name} must be at least {least}").into()) } else { Ok(number) }
        };
        match name.as_str() {
            "--seconds" => settings.seconds = number(SECONDS_MIN)?,
            "--clients" => settings.clients = usize::try_from(number(1)?)?,
            "--idle" => settings.idle = usize::try_from(number(1)?)?,
            "--plain" => settings.plain = true,
            _ => return Err(format!("unknown option {name} (--seconds S, --clients N, --idle N, --plain)").into()),
        }
    }
    Ok(settings)
}

/// Ctrl-C and SIGTERM: the first one while the load runs ends it, any other one ends the process; then the watchman stops what was started.
fn listen_for_signals() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime
        .block_on(async { Ok::<_, Error>((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) });
    let (mut interrupt, mut terminate) = signals?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
                if PHASE.compare_exchange(RUNNING, INTERRUPTED, Ordering::AcqRel, Ordering::Acquire).is_err() {
                    screen::restore();
                    eprintln!("demo: interrupted");
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

fn demonstrate(settings: &Settings) -> Result<bool> {
    listen_for_signals()?;
    let scratch = Scratch::new("demo")?;
    println!("starting three Galera nodes in {} …", scratch.path().display());
    let mut cluster = Galera::start_in(3, scratch.path())?;
    let addresses = cluster.addresses();
    let names: Vec<String> = cluster.nodes().iter().map(|n| n.name().to_owned()).collect();
    load::make_tables(addresses.first().ok_or("no node")?, settings.clients)?;
    println!("starting belay …");
    let options = Options::new(addresses.clone()).server_connections_max(2 * settings.clients + 2);
    let mut belay = options.start_in(scratch.path())?;
    let board = Board::new(names.clone());
    let total = load::clients_of_all_sorts(settings.clients, settings.idle);
    println!("starting {total} clients …");
    let load = load::start(&board, belay.address(), settings.clients, settings.idle)?;
    wait_for("all clients", Duration::from_secs(120), || (board.ready() == total).then_some(()))?;
    let figures = show(settings, &board, &mut belay, &mut cluster, load);
    keep_logs(scratch.path(), &names, &board);
    let figures = Figures { clients: total, ..figures? };
    println!("{}", figures.summary().join("\n"));
    println!("\nlogs and the text of every error: {}", target().join("demo").display());
    Ok(figures.failures().is_empty())
}

/// The demonstration itself: load and chaos run, the view is redrawn; then the rows are compared.
fn show(
    settings: &Settings,
    board: &Arc<Board>,
    belay: &mut Belay,
    cluster: &mut Galera,
    load: load::Load,
) -> Result<Figures> {
    let addresses = cluster.addresses();
    let time = Duration::from_secs(settings.seconds);
    let chaos = Chaos::new(board, belay.admin_address(), &addresses);
    let done = chaos.done();
    board.start();
    let _ = PHASE.compare_exchange(STARTING, RUNNING, Ordering::AcqRel, Ordering::Acquire);
    let mut screen = Screen::open(settings.plain);
    let (broken, seen, committed, seconds) = std::thread::scope(|scope| {
        let chaos = scope.spawn(|| chaos.run(cluster, time));
        let mut watch = Watch::new(board, belay.admin_address(), &addresses, &done, time);
        while board.elapsed() < time && PHASE.load(Ordering::Acquire) == RUNNING && !chaos.is_finished() {
            std::thread::sleep(Duration::from_secs(1).min(time.saturating_sub(board.elapsed())));
            screen.show(&watch.frame());
        }
        let seconds = board.elapsed().as_secs_f64();
        board.event("the time is over; what was begun is brought to an end");
        board.stop();
        let committed = load.join();
        while !chaos.is_finished() {
            screen.show(&watch.frame());
            std::thread::sleep(Duration::from_millis(500));
        }
        screen.show(&watch.frame());
        let mut broken = Vec::new();
        match chaos.join() {
            Ok(Ok(())) => {}
            Ok(Err(e)) => broken.push(format!("the nodes could not be killed and started as planned: {e}")),
            Err(_) => broken.push("what kills the nodes ended unexpectedly".to_owned()),
        }
        (broken, watch.seen, committed, seconds)
    });
    screen.close(&board.events());
    let mut figures = figures(board, &seen, &done);
    figures.seconds = seconds;
    figures.broken = broken;
    figures.interrupted = PHASE.load(Ordering::Acquire) == INTERRUPTED;
    figures.broken.extend(belay.assert_healthy().err().map(|e| e.to_string()));
    compare_rows(&mut figures, board.nodes(), &addresses, &committed?);
    Ok(figures)
}

fn figures(board: &Board, seen: &Seen, done: &Mutex<Done>) -> Figures {
    let done = done.lock().unwrap_or_else(PoisonError::into_inner);
    Figures {
        nodes: board.nodes().to_vec(),
        counts: board.counts(),
        errors: board.errors(),
        faults: board.faults(),
        writer_kills: done.writer_kills,
        other_kills: done.other_kills,
        masked: seen.masked.clone(),
        holds: seen.holds_total,
        pins: seen.pins_total,
        longest: board.stalls().0,
        ..Figures::default()
    }
}

/// Every node must have all that clients were told is committed, and nothing else.
fn compare_rows(figures: &mut Figures, names: &[String], addresses: &[String], committed: &[u64]) {
    for (name, address) in names.iter().zip(addresses) {
        match check::rows_of(name, address) {
            Ok(rows) => {
                figures.nodes_compared += 1;
                figures.wrong_rows.extend(check::compare(&rows, committed));
            }
            Err(e) => figures.broken.push(format!("the rows of {name} could not be read: {e}")),
        }
    }
}

/// Makes a frame each second.
struct Watch<'a> {
    board: &'a Board,
    admin: &'a str,
    addresses: &'a [String],
    done: &'a Mutex<Done>,
    time: Duration,
    seen: Seen,
    before: Counts,
    at: Instant,
    history: Vec<f64>,
}

impl<'a> Watch<'a> {
    fn new(
        board: &'a Board,
        admin: &'a str,
        addresses: &'a [String],
        done: &'a Mutex<Done>,
        time: Duration,
    ) -> Watch<'a> {
        let (seen, before) = (Seen::now(admin, addresses).unwrap_or_default(), board.counts());
        Watch { board, admin, addresses, done, time, seen, before, at: Instant::now(), history: Vec::new() }
    }

    fn frame(&mut self) -> Frame {
        let counts = self.board.counts();
        let seconds = self.at.elapsed().as_secs_f64();
        self.at = Instant::now();
        let delta = counts.since(&self.before);
        self.before = counts.clone();
        self.history.push(delta.statements() as f64 / seconds.max(0.001));
        if self.history.len() > view::HISTORY {
            self.history.remove(0);
        }
        // The last look stays if belay does not answer; that it is gone shows at the end.
        if let Ok(seen) = Seen::now(self.admin, self.addresses) {
            if seen.writer != self.seen.writer {
                let name = seen.writer.and_then(|i| self.board.nodes().get(i));
                self.board.event(name.map_or("no node takes writes".into(), |n| format!("writes go to {n}")));
            }
            self.seen = seen;
        }
        Frame {
            elapsed: self.board.elapsed(),
            time: self.time,
            nodes: self.board.nodes().to_vec(),
            fates: self.done.lock().unwrap_or_else(PoisonError::into_inner).fates.clone(),
            seen: self.seen.clone(),
            counts,
            delta,
            seconds,
            history: self.history.clone(),
            errors: self.board.errors(),
            faults: self.board.faults(),
            stalls: self.board.stalls(),
            events: self.board.events(),
        }
    }
}

/// Puts the logs and the errors of clients into `target/demo`: everything else goes with the scratch directory.
fn keep_logs(dir: &Path, nodes: &[String], board: &Board) {
    let kept = target().join("demo");
    let _ = fs::create_dir_all(&kept);
    let faults = board.faults();
    let errors = faults.texts().map(|text| format!("FAULT {text}")).chain(board.error_texts());
    if let Err(e) = fs::write(kept.join("errors.log"), errors.map(|line| line + "\n").collect::<String>()) {
        eprintln!("demo: {}: {e}", kept.display());
    }
    let logs = nodes.iter().map(|n| (dir.join(n).join("log"), format!("{n}.log")));
    for (from, to) in logs.chain([(dir.join("belay.log"), "belay.log".to_owned())]) {
        if let Err(e) = fs::copy(&from, kept.join(to)) {
            eprintln!("demo: {}: {e}", from.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let read = |text: &str| parse(text.split_whitespace().map(str::to_owned));
        let wanted = Settings { seconds: 25, clients: 3, idle: 40, plain: true };
        assert_eq!(read("--seconds 25 --clients 3 --idle 40 --plain").ok(), Some(wanted));
        for wrong in ["--seconds", "--seconds x", "--seconds 5", "--clients 0", "--what 1"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
