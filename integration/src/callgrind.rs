//! What a statement costs in counts that do not depend on the machine: user instructions and calls of the allocator, counted by callgrind while a
//! load runs. Start-up and logins fall out: the counters are set to zero after the load has warmed up.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::belay::{Belay, Options};
use crate::paths::Scratch;
use crate::process::{run_limited, wait_for};

/// What was counted, per statement.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// User instructions.
    pub instructions: f64,
    /// Calls that take memory from the heap, or resize it.
    pub allocations: f64,
}

/// A belay that runs under callgrind.
#[derive(Debug)]
pub struct Counting {
    belay: Belay,
    scratch: Scratch,
    dumps: u32,
}

impl Counting {
    /// Starts it with one thread. What belay does by the clock is made rare, so that statements are what is counted.
    pub fn start(options: Options) -> Result<Counting> {
        let scratch = Scratch::new("callgrind")?;
        let out = format!("--callgrind-out-file={}", scratch.path().join("out").display());
        let options =
            options.threads(1).set("monitor", "interval_ms", 20_000).set("monitor", "probe_timeout_ms", 10_000);
        let belay = options.under(["valgrind", "--tool=callgrind", "-q", &out]).no_wait().start()?;
        let mut counting = Counting { belay, scratch, dumps: 0 };
        counting.belay.wait_ready(Duration::from_secs(60))?;
        Ok(counting)
    }

    /// The belay.
    pub fn belay(&mut self) -> &mut Belay {
        &mut self.belay
    }

    /// Runs `load`, which runs so many statements, once to warm up and once counted.
    pub fn cost(&mut self, statements: u32, mut load: impl FnMut(u32) -> Result<()>) -> Result<Cost> {
        load(statements / 10)?;
        self.control("--zero")?;
        load(statements)?;
        self.control("--dump")?;
        self.dumps += 1;
        let file = self.scratch.path().join(format!("out.{}", self.dumps));
        let text = wait_for("the dump", Duration::from_secs(30), || {
            fs::read_to_string(&file).ok().filter(|text| text.contains("\ntotals:"))
        })?;
        let counted = read(&text)?;
        let each = f64::from(statements);
        Ok(Cost { instructions: counted.0 as f64 / each, allocations: counted.1 as f64 / each })
    }

    fn control(&self, what: &str) -> Result<()> {
        let mut command = Command::new("callgrind_control");
        command.arg(what).arg(self.belay.pid().to_string());
        run_limited(&command, Duration::from_secs(60)).map(drop)
    }

    /// Copies the last dump, for callgrind_annotate.
    pub fn keep_dump(&self, to: &Path) -> Result<()> {
        fs::copy(self.scratch.path().join(format!("out.{}", self.dumps)), to)?;
        Ok(())
    }
}

/// Instructions, and calls of the allocator, in a file of callgrind's.
fn read(text: &str) -> Result<(u64, u64)> {
    let totals = text.lines().find_map(|l| l.strip_prefix("totals: ")).ok_or("no totals in callgrind's file")?;
    let instructions = totals.split_whitespace().next().unwrap_or_default().parse()?;
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut callee, mut calls) = ("", 0);
    for line in text.lines() {
        if let Some((key, function)) = line.split_once("fn=(")
            && (key.is_empty() || key == "c")
        {
            let (id, name) = function.split_once(')').unwrap_or((function, ""));
            if !name.is_empty() {
                names.insert(id, name.trim());
            }
            callee = names.get(id).copied().unwrap_or_default();
        } else if let Some(count) = line.strip_prefix("calls=")
            && takes_memory(callee)
        {
            calls += count.split_whitespace().next().unwrap_or_default().parse::<u64>()?;
        }
    }
    Ok((instructions, calls))
}

/// Whether a function is the allocator's own entry, whichever allocator that is.
fn takes_memory(function: &str) -> bool {
    const ENTRIES: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "mallocx"];
    let plain = function.split(['@', '\'']).next().unwrap_or_default();
    let plain = plain.strip_prefix("_rjem_").or_else(|| plain.strip_prefix("__libc_")).unwrap_or(plain);
    ENTRIES.contains(&plain) || plain == "rallocx"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_of_the_allocator_are_counted_under_its_names() {
        let text = "fn=(1) main\n12 5\ncfn=(2) _rjem_malloc\ncalls=3 0\n12 9\ncfn=(3) other\ncalls=7 0\n1 2\nfn=(3)\ncfn=(2)\ncalls=2 0\n\ntotals: 99\n";
        assert_eq!(read(text).unwrap(), (99, 5));
        assert!(takes_memory("realloc") && takes_memory("_rjem_rallocx") && !takes_memory("free"));
    }
}
