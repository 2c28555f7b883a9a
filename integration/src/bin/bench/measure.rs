//! Measuring a process from outside: its CPU time, its system calls, and medians of either.

use std::fmt;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use belay_integration::Result;
use belay_integration::servers::program;

/// Nanoseconds that all threads of a process have spent on a CPU.
pub fn cpu_ns(pid: u32) -> u64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let of_task = |path: std::path::PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    tasks.flatten().filter_map(|t| of_task(t.path())).sum()
}

/// System calls of a process per statement while `load` runs, which says how many statements it ran. Counted by perf's tracepoint,
/// which hardly disturbs, else by strace.
pub fn syscalls(pid: u32, load: impl Fn() -> Result<u64>) -> Result<f64> {
    let by_perf = count_while(
        Command::new(program(&["perf"])?).args(["stat", "-x,", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()]),
        &load,
        |text| {
            let line = text.lines().find(|l| l.contains("raw_syscalls"))?;
            line.split(',').next()?.parse().ok()
        },
    );
    if by_perf.is_ok() {
        return by_perf;
    }
    count_while(Command::new(program(&["strace"])?).args(["-c", "-f", "-q", "-p", &pid.to_string()]), &load, |text| {
        // The line of totals: `100.00  seconds  usecs/call  calls  errors  total`.
        let line = text.lines().find(|l| l.trim_end().ends_with(" total"))?;
        let words: Vec<&str> = line.split_whitespace().collect();
        words
            .iter()
            .rev()
            .skip(1)
            .filter_map(|w| w.parse::<f64>().ok())
            .fold(None, |max: Option<f64>, n| Some(max.map_or(n, |m| m.max(n))))
    })
}

fn count_while(
    tracer: &mut Command,
    load: &impl Fn() -> Result<u64>,
    calls: impl Fn(&str) -> Option<f64>,
) -> Result<f64> {
    let child = tracer.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    std::thread::sleep(Duration::from_millis(500));
    let statements = load();
    belay_integration::process::send_signal("INT", &child.id().to_string())?;
    let out = child.wait_with_output()?;
    let text = String::from_utf8_lossy(&out.stderr);
    let calls = calls(&text).ok_or_else(|| format!("no count in: {}", text.lines().next().unwrap_or_default()))?;
    Ok(calls / statements?.max(1) as f64)
}

/// Median, least and greatest of several rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// The middle one.
    pub median: f64,
    least: f64,
    greatest: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Spread> {
        let mut all: Vec<f64> = values.collect();
        all.sort_by(f64::total_cmp);
        Some(Spread { median: *all.get(all.len() / 2)?, least: *all.first()?, greatest: *all.last()? })
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.median >= 1000.0 { 0 } else { 1 };
        write!(f, "{:.digits$} ({:.digits$}–{:.digits$})", self.median, self.least, self.greatest)
    }
}
