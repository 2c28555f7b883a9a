//! A belay under test: its configuration is what `belay init` writes, with the edits that a test asks for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::paths::{Scratch, belay_binary};
use crate::ports::free_port;
use crate::process::{Process, run, wait_for};
use crate::scrape::{Samples, get};
use crate::servers::{MONITOR, MONITOR_PASSWORD};

/// What a test wants of its belay.
#[derive(Clone, Debug, Default)]
pub struct Options {
    nodes: Vec<String>,
    server_connections_max: Option<usize>,
    threads: Option<usize>,
    edits: Vec<(String, String, String)>,
    extra: String,
    environment: Vec<(String, String)>,
    listen_port: Option<u16>,
    admin_port: Option<u16>,
    no_wait: bool,
    wrapper: Vec<String>,
}

impl Options {
    /// In front of these nodes.
    pub fn new<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Options {
        Options { nodes: nodes.into_iter().map(Into::into).collect(), ..Options::default() }
    }

    /// With `--server-connections-max`.
    pub fn server_connections_max(mut self, n: usize) -> Options {
        self.server_connections_max = Some(n);
        self
    }

    /// With `--threads`.
    pub fn threads(mut self, n: usize) -> Options {
        self.threads = Some(n);
        self
    }

    /// With `key = value` (TOML) in `[section]` of the configuration; replaces a value that is there.
    pub fn set(mut self, section: &str, key: &str, value: impl ToString) -> Options {
        self.edits.push((section.to_owned(), key.to_owned(), value.to_string()));
        self
    }

    /// With TOML text at the end of the configuration.
    pub fn append(mut self, toml: &str) -> Options {
        self.extra.push_str(toml);
        self
    }

    /// With an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Options {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// On chosen ports instead of free ones.
    pub fn ports(mut self, listen: u16, admin: u16) -> Options {
        self.listen_port = Some(listen);
        self.admin_port = Some(admin);
        self
    }

    /// Does not wait until it is ready: for tests in which it cannot be.
    pub fn no_wait(mut self) -> Options {
        self.no_wait = true;
        self
    }

    /// As the child of another program (`valgrind …`) that becomes it.
    pub fn under<S: Into<String>>(mut self, program: impl IntoIterator<Item = S>) -> Options {
        self.wrapper = program.into_iter().map(Into::into).collect();
        self
    }

    /// Starts it in a scratch directory.
    pub fn start(self) -> Result<Belay> {
        let scratch = Scratch::new("belay")?;
        let dir = scratch.path().to_path_buf();
        let mut belay = self.start_in(&dir)?;
        belay._scratch = Some(scratch);
        Ok(belay)
    }

    /// Starts it in a directory of the caller's.
    pub fn start_in(self, dir: &Path) -> Result<Belay> {
        if direct() {
            return Ok(Belay::absent(self.nodes.first().ok_or("no node")?));
        }
        let listen = format!("127.0.0.1:{}", self.listen_port.unwrap_or_else(free_port));
        let admin = format!("127.0.0.1:{}", self.admin_port.unwrap_or_else(free_port));
        let config = dir.join("belay.toml");
        let password = dir.join("monitor.password");
        fs::write(&password, format!("{MONITOR_PASSWORD}\n"))?;
        let mut init = Command::new(belay_binary()?);
        init.arg("init").args(["--listen", &listen, "--admin", &admin, "--monitor-user", MONITOR]);
        init.arg("--monitor-password-file").arg(&password).arg("--out").arg(&config);
        for node in &self.nodes {
            init.args(["--node", node]);
        }
        if let Some(n) = self.server_connections_max {
            init.args(["--server-connections-max", &n.to_string()]);
        }
        if let Some(n) = self.threads {
            init.args(["--threads", &n.to_string()]);
        }
        run(&mut init)?;
        let mut text = fs::read_to_string(&config)?;
        for (section, key, value) in &self.edits {
            text = edit_toml(&text, section, key, value);
        }
        text.push_str(&self.extra);
        fs::write(&config, text)?;
        let mut belay = Belay {
            listen,
            admin,
            config,
            log: dir.join("belay.log"),
            environment: self.environment,
            wrapper: self.wrapper,
            process: None,
            _scratch: None,
        };
        belay.launch()?;
        if !self.no_wait {
            belay.wait_ready(Duration::from_secs(30))?;
        }
        Ok(belay)
    }
}

/// A running belay.
#[derive(Debug)]
pub struct Belay {
    listen: String,
    admin: String,
    config: PathBuf,
    log: PathBuf,
    environment: Vec<(String, String)>,
    wrapper: Vec<String>,
    process: Option<Process>,
    _scratch: Option<Scratch>,
}

impl Belay {
    /// A belay in front of these nodes with the configuration that `belay init` writes.
    pub fn start<S: Into<String>>(nodes: impl IntoIterator<Item = S>) -> Result<Belay> {
        Options::new(nodes).start()
    }

    /// No belay at all: the first node's own address.
    fn absent(node: &str) -> Belay {
        Belay {
            listen: node.to_owned(),
            admin: String::new(),
            config: PathBuf::new(),
            log: PathBuf::new(),
            environment: Vec::new(),
            wrapper: Vec::new(),
            process: None,
            _scratch: None,
        }
    }

    /// Starts the process (again); does not wait.
    pub fn launch(&mut self) -> Result<()> {
        let mut serve = match self.wrapper.split_first() {
            None => Command::new(belay_binary()?),
            Some((program, arguments)) => {
                let mut wrapped = Command::new(program);
                wrapped.args(arguments).arg(belay_binary()?);
                wrapped
            }
        };
        serve.arg("serve").arg("--config").arg(&self.config);
        serve.envs(self.environment.iter().map(|(k, v)| (k, v)));
        self.process = Some(Process::start("belay", serve, &self.log, false)?);
        Ok(())
    }

    /// Waits until `/readyz` says 200.
    pub fn wait_ready(&mut self, limit: Duration) -> Result<()> {
        let admin = self.admin.clone();
        let process = self.process()?;
        let mut ended = false;
        let waited = wait_for("belay", limit, || {
            ended = !process.is_running();
            (ended || get(&admin, "/readyz", None).is_ok_and(|(status, _)| status == 200)).then_some(())
        });
        match waited {
            Ok(()) if !ended => Ok(()),
            _ => {
                let why = get(&admin, "/readyz", None).map_or_else(|e| e.to_string(), |(s, b)| format!("{s} {b}"));
                Err(process.failure(&format!("did not get ready: {why}")))
            }
        }
    }

    /// `127.0.0.1:port` for clients.
    pub fn address(&self) -> &str {
        &self.listen
    }

    /// The port for clients.
    pub fn port(&self) -> u16 {
        self.listen.rsplit(':').next().and_then(|p| p.parse().ok()).unwrap_or(0)
    }

    /// `127.0.0.1:port` for HTTP.
    pub fn admin_address(&self) -> &str {
        &self.admin
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| "belay was not started".into())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// All metrics now.
    pub fn metrics(&self) -> Result<Samples> {
        if direct() {
            return Ok(Samples::default());
        }
        Ok(Samples::parse(&get(&self.admin, "/metrics", None)?.1))
    }

    /// A GET with the token that `init` made.
    pub fn admin_get(&self, path: &str) -> Result<(u16, String)> {
        let token_file = PathBuf::from(format!("{}.token", self.config.display()));
        let token = fs::read_to_string(token_file).unwrap_or_default();
        get(&self.admin, path, Some(token.trim()))
    }

    /// Fails if it is gone or its log speaks of a panic.
    pub fn assert_healthy(&mut self) -> Result<()> {
        let log = self.log();
        if direct() {
            return Ok(());
        }
        let process = self.process()?;
        if !process.is_running() || log.contains("panicked at") {
            return Err(process.failure("belay is not healthy"));
        }
        Ok(())
    }

    /// Resident memory in bytes.
    pub fn rss_bytes(&self) -> u64 {
        rss_bytes(self.pid())
    }
}

/// Whether the scenarios run without belay (`BELAY_DIRECT=1`): one that fails then expects what no server does.
pub fn direct() -> bool {
    std::env::var_os("BELAY_DIRECT").is_some()
}

/// Resident memory of a process in bytes; 0 if it is gone.
pub fn rss_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let kb = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or(0) * 1024
}

/// Sets a key in a TOML text: replaces it in its section, or adds it there, or adds the section.
fn edit_toml(text: &str, section: &str, key: &str, value: &str) -> String {
    let header = format!("[{section}]");
    let line = format!("{key} = {value}");
    let is_key = |l: &str| l.strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='));
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let Some(start) = lines.iter().position(|l| l.trim() == header) else {
        return format!("{text}\n{header}\n{line}\n");
    };
    let end = lines.iter().skip(start + 1).position(|l| l.starts_with('[')).map_or(lines.len(), |n| start + 1 + n);
    let old = (start + 1..end).find(|i| lines.get(*i).is_some_and(|l| is_key(l)));
    match old.and_then(|i| lines.get_mut(i)) {
        Some(old) => *old = line,
        None => lines.insert(start + 1, line),
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_replaced_added_or_given_a_section() {
        let text = "[a]\n# x = 1\nx = 1\n\n[b]\ny = 2\n";
        assert_eq!(edit_toml(text, "a", "x", "5"), "[a]\n# x = 1\nx = 5\n\n[b]\ny = 2\n");
        assert_eq!(edit_toml(text, "b", "x", "5"), "[a]\n# x = 1\nx = 1\n\n[b]\nx = 5\ny = 2\n");
        assert!(edit_toml(text, "c", "x", "5").ends_with("\n[c]\nx = 5\n"));
    }
}
