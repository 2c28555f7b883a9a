//! The demonstration itself, short and small: it shows what it claims to show, notices when something is lost, and leaves nothing behind.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use belay_integration::Result;
use belay_integration::belay::direct;
use belay_integration::process::{run, wait_for};
use belay_integration::servers::admin_connection;

/// A running demonstration and the lines that it prints.
struct Demo {
    process: Child,
    output: Receiver<String>,
    lines: Vec<String>,
}

impl Demo {
    fn start(arguments: &[&str]) -> Result<Demo> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        let mut process = command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
        let stdout = process.stdout.take().ok_or("no output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(|line| line.ok()) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        Ok(Demo { process, output, lines: Vec::new() })
    }

    /// Reads on until a line contains `part`.
    fn read_until(&mut self, part: &str, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.output.recv_timeout(left).map_err(|e| format!("no '{part}' ({e}) in {:#?}", self.lines))?;
            let found = line.contains(part);
            self.lines.push(line);
            if found {
                return Ok(());
            }
        }
    }

    /// Waits for the end; everything that was printed is in `lines` then.
    fn end(&mut self, limit: Duration) -> Result<ExitStatus> {
        let process = &mut self.process;
        let status = wait_for("the end of the demonstration", limit, || process.try_wait().ok().flatten())?;
        self.lines.extend(self.output.iter());
        Ok(status)
    }

    /// The first number of the line of the summary that starts with `name`.
    fn figure(&self, name: &str) -> Result<u64> {
        let line = self.lines.iter().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        number.ok_or_else(|| format!("no '{name}' in {:#?}", self.lines).into())
    }

    /// The processes that it started and that still run: all of them name its scratch directory in their arguments.
    fn left_behind(&self) -> Vec<String> {
        let mark = format!("/belay-it-{}-", self.process.id());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(&mark) {
                found.push(line);
            }
        }
        found
    }

    /// The address of one of its nodes.
    fn node(&self) -> Result<String> {
        let all = self.left_behind();
        let port = all.iter().find_map(|line| line.split_whitespace().find_map(|word| word.strip_prefix("--port=")));
        Ok(format!("127.0.0.1:{}", port.ok_or("no node runs")?))
    }

    /// The process id of its belay.
    fn belay(&self) -> Result<String> {
        let mark = format!("/belay-it-{}-", self.process.id());
        let entries = std::fs::read_dir("/proc")?.flatten();
        let is_belay = |line: &[u8]| {
            let line = String::from_utf8_lossy(line);
            line.contains(&mark) && line.contains("\0serve\0")
        };
        let found = entries
            .filter(|e| std::fs::read(e.path().join("cmdline")).is_ok_and(|line| is_belay(&line)))
            .find_map(|e| e.file_name().to_str().map(str::to_owned));
        found.ok_or_else(|| "belay does not run".into())
    }

    fn assert_nothing_left(&self) -> Result<()> {
        let gone =
            wait_for("its processes to end", Duration::from_secs(20), || self.left_behind().is_empty().then_some(()));
        gone.map_err(|_| format!("still running: {:#?}", self.left_behind()).into())
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn nodes_are_killed_under_load_and_nothing_is_lost() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut demo = Demo::start(&["--seconds", "25", "--clients", "3", "--idle", "40"])?;
    let status = demo.end(Duration::from_secs(300))?;
    assert!(status.success(), "{status}: {:#?}", demo.lines);
    for (figure, least) in [
        ("statements ", 500),
        ("transactions committed ", 20),
        ("answers checked ", 100),
        ("session values checked ", 400),
        ("nodes killed ", 1),
        ("failures masked ", 1),
    ] {
        assert!(demo.figure(figure)? >= least, "{figure} {:#?}", demo.lines);
    }
    for none in [
        "client connections lost ",
        "wrong answers ",
        "session state lost ",
        "dishonest errors ",
        "rows wrong at the end ",
    ] {
        assert_eq!(demo.figure(none)?, 0, "{none} {:#?}", demo.lines);
    }
    assert!(demo.lines.iter().any(|l| l.contains(", the writer, was killed")), "{:#?}", demo.lines);
    assert!(demo.lines.iter().any(|l| l.contains(" is back")), "{:#?}", demo.lines);
    demo.assert_nothing_left()
}

#[test]
fn an_interrupt_ends_it_with_a_summary_and_leaves_nothing() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut demo = Demo::start(&["--seconds", "600", "--clients", "2", "--idle", "10"])?;
    demo.read_until("was killed", Duration::from_secs(120))?;
    assert!(demo.left_behind().len() >= 3, "{:#?}", demo.left_behind());
    run(Command::new("kill").args(["-INT", &demo.process.id().to_string()]))?;
    let status = demo.end(Duration::from_secs(240))?;
    assert!(status.success(), "{status}: {:#?}", demo.lines);
    assert!(demo.figure("statements ")? > 0);
    assert_eq!(demo.figure("rows wrong at the end ")?, 0);
    demo.assert_nothing_left()
}

#[test]
fn an_interrupt_while_it_starts_leaves_nothing() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut demo = Demo::start(&["--seconds", "600", "--clients", "2", "--idle", "10"])?;
    demo.read_until("starting belay", Duration::from_secs(120))?;
    run(Command::new("kill").args(["-INT", &demo.process.id().to_string()]))?;
    let status = demo.end(Duration::from_secs(60))?;
    assert_eq!(status.code(), Some(130), "{:#?}", demo.lines);
    demo.assert_nothing_left()
}

#[test]
fn what_is_lost_costs_the_exit_status() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut demo = Demo::start(&["--seconds", "600", "--clients", "2", "--idle", "10"])?;
    demo.read_until("0:02", Duration::from_secs(120))?;
    // What a router that loses commits, doubles them, or answers with stale rows would do to the clients.
    let mut admin = admin_connection(&demo.node()?)?;
    admin.query("UPDATE test.demo_account SET balance = balance + 1 WHERE id = 7")?;
    admin.query("DELETE FROM test.demo_entry WHERE client = 1 AND seq = 1")?;
    admin.query("UPDATE test.demo_fact SET word = 'other'")?;
    demo.read_until("was killed", Duration::from_secs(60))?;
    // And then it goes away, with all connections.
    run(Command::new("kill").args(["-9", &demo.belay()?]))?;
    let status = demo.end(Duration::from_secs(240))?;
    assert_eq!(status.code(), Some(1), "{:#?}", demo.lines);
    assert!(demo.lines.iter().any(|l| l == "FAILED:"), "{:#?}", demo.lines);
    for some in ["client connections lost ", "wrong answers ", "rows wrong at the end "] {
        assert!(demo.figure(some)? > 0, "{some} {:#?}", demo.lines);
    }
    demo.assert_nothing_left()
}
