//! Processes that this one starts: each leads a process group of its own, is stopped when its handle is dropped, and is stopped
//! by a watchman if this process dies without dropping anything (kill -9, a static, an abort).

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use crate::paths::server_user;
use crate::{Error, Result};

/// A running process and its group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    log: PathBuf,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` in a process group of its own; both outputs are appended to `log`. With `as_server_user` a root process
    /// hands it to an ordinary user.
    pub fn start(name: &str, mut command: Command, log: &Path, as_server_user: bool) -> Result<Process> {
        let out = OpenOptions::new().create(true).append(true).open(log)?;
        let err: File = out.try_clone()?;
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        if let (true, Some((uid, gid))) = (as_server_user, server_user()) {
            command.uid(uid).gid(gid);
        }
        let child = command.spawn().map_err(|e| format!("{name}: cannot start {:?}: {e}", command.get_program()))?;
        watch_group(child.id(), true);
        Ok(Process { child, name: name.to_owned(), log: log.to_path_buf(), exit: None })
    }

    /// The process id, which is the id of its group too.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The name given at the start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file with its output.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it still runs (a stopped one does).
    pub fn is_running(&mut self) -> bool {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().ok().flatten();
            if self.exit.is_some() {
                watch_group(self.child.id(), false);
            }
        }
        self.exit.is_none()
    }

    /// How it ended, if it has.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.is_running();
        self.exit
    }

    /// Sends `signal` (`TERM`, `KILL`, `STOP`, `CONT`, …) to the whole group.
    pub fn signal(&mut self, signal: &str) -> Result<()> {
        if !self.is_running() {
            return Err(format!("{} is not running: {}", self.name, self.describe_exit()).into());
        }
        send_signal(signal, &format!("-{}", self.pid()))
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.signal("KILL")?;
        self.wait(Duration::from_secs(10)).map(|_| ())
    }

    /// SIGTERM, after `grace` SIGKILL; waits until it is gone. A process that is gone already is fine.
    pub fn stop(&mut self, grace: Duration) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        self.signal("CONT")?;
        self.signal("TERM")?;
        if self.wait(grace).is_err() && self.is_running() {
            self.kill()?;
        }
        Ok(())
    }

    /// Waits for the end.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.exit_status() {
                return Ok(status);
            }
            if Instant::now() > until {
                return Err(format!("{} did not end within {limit:?}", self.name).into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// An error that says what happened and shows the end of the log.
    pub fn failure(&mut self, what: &str) -> Error {
        let state = if self.is_running() { "still running".to_owned() } else { self.describe_exit() };
        format!("{}: {what} ({state})\n{}", self.name, log_tail(&self.log, 30)).into()
    }

    fn describe_exit(&self) -> String {
        match self.exit {
            None => "running".into(),
            Some(s) => s.signal().map_or_else(|| format!("{s}"), |n| format!("killed by signal {n}")),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.stop(Duration::from_secs(15));
    }
}

/// Sends a signal to a process id, or to a group if `pid` begins with `-`.
pub fn send_signal(signal: &str, pid: &str) -> Result<()> {
    let status = Command::new("sh").args(["-c", "kill -s \"$0\" -- \"$1\"", signal, pid]).status()?;
    if status.success() { Ok(()) } else { Err(format!("kill -s {signal} {pid} failed").into()) }
}

/// The last lines of a file, for error messages.
pub fn log_tail(path: &Path, lines: usize) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    format!("--- {}\n{}\n---", path.display(), all.get(from..).unwrap_or_default().join("\n"))
}

/// Runs a command to its end; its output if it succeeded, else an error that shows it.
pub fn run(command: &mut Command) -> Result<String> {
    let out = command.stdin(Stdio::null()).output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    if out.status.success() {
        return Ok(text);
    }
    Err(format!("{command:?} failed ({}):\n{text}{}", out.status, String::from_utf8_lossy(&out.stderr)).into())
}

/// The same for a program that may hang, for instance a client whose answer does not come: it is ended after `limit`. Takes program,
/// arguments, environment and directory of `command`, nothing else.
pub fn run_limited(command: &Command, limit: Duration) -> Result<String> {
    let mut limited = Command::new("timeout");
    limited.args(["-k", "2", &limit.as_secs().to_string()]).arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = command.get_current_dir() {
        limited.current_dir(dir);
    }
    run(&mut limited)
}

/// Calls `probe` until it gives a value, every few milliseconds.
pub fn wait_for<T>(what: &str, limit: Duration, mut probe: impl FnMut() -> Option<T>) -> Result<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(value) = probe() {
            return Ok(value);
        }
        if Instant::now() > until {
            return Err(format!("waited {limit:?} in vain for {what}").into());
        }
        std::thread::sleep(Duration::from_millis(25));
    }
}

/// A shell that is told of each group and directory, and cleans up when its input ends, that is when this process is gone.
const WATCHMAN: &str = r#"
trap '' INT TERM HUP
groups=' '; dirs=''
while read -r verb value; do
  case "$verb" in
    group) groups="$groups$value ";;
    gone) groups="${groups%% $value *} ${groups#* $value }";;
    dir) dirs="$dirs$value
";;
    removed) dirs=$(printf '%s' "$dirs" | grep -Fxv -- "$value"; echo .); dirs=${dirs%.};;
  esac
done
for g in $groups; do kill -s KILL -- "-$g" 2>/dev/null; done
[ -n "$dirs" ] && sleep 0.3
printf '%s' "$dirs" | while read -r d; do case "$d" in */belay-it-*) rm -rf -- "$d";; esac; done
"#;

fn tell_watchman(line: &str) {
    static WATCHMAN_INPUT: OnceLock<Mutex<Option<ChildStdin>>> = OnceLock::new();
    let input = WATCHMAN_INPUT.get_or_init(|| {
        let child = Command::new("sh")
            .args(["-c", WATCHMAN])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        Mutex::new(child.ok().and_then(|mut c| c.stdin.take()))
    });
    if let Ok(mut guard) = input.lock()
        && let Some(stdin) = guard.as_mut()
    {
        let _ = writeln!(stdin, "{line}");
    }
}

fn watch_group(pid: u32, alive: bool) {
    tell_watchman(&format!("{} {pid}", if alive { "group" } else { "gone" }));
}

/// Tells the watchman of a directory that must not outlive this process (`made`), or that it is gone already.
pub fn watch_dir(path: &Path, made: bool) {
    if std::env::var_os("BELAY_KEEP_SCRATCH").is_none() {
        tell_watchman(&format!("{} {}", if made { "dir" } else { "removed" }, path.display()));
    }
}
