//! One OceanBase seekdb: OceanBase's single-node server, an executable in a Python package that `setup.sh` unpacks under `target/cache/seekdb`.
//!
//! It makes its data directory in two seconds, so there is no template to copy. It listens on all addresses and has no option against that: its `root`,
//! which comes without a password, gets one before anything else.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::{ADMIN, Kind, admin_connection, bootstrap_sql, wait_until_up};
use crate::Result;
use crate::paths::{Scratch, cache};
use crate::ports::free_port;
use crate::process::{Process, wait_for};
use crate::wire::{Login, Wire};

/// The least it takes: a smaller log makes it stop at its start.
const PARAMETERS: [&str; 3] = ["datafile_size=512M", "log_disk_size=4G", "memory_limit=2G"];

/// A first start, and a recovery after kill -9, on a busy machine.
const START_MAX: Duration = Duration::from_secs(90);

/// The server's program.
fn program() -> Result<PathBuf> {
    let missing = || crate::Error::from("seekdb is not there: run integration/setup.sh");
    let versions = fs::read_dir(cache().join("seekdb/lib")).map_err(|_| missing())?;
    let of = |version: PathBuf| version.join("site-packages/pylibseekdb/seekdb");
    versions.flatten().map(|entry| of(entry.path())).find(|path| path.is_file()).ok_or_else(missing)
}

/// A seekdb server: its directory, its port, and its process while it runs.
#[derive(Debug)]
pub struct SeekDb {
    port: u16,
    process: Option<Process>,
    scratch: Scratch,
}

impl SeekDb {
    /// Starts a new one with the accounts and schemas of the tests.
    pub fn start() -> Result<SeekDb> {
        // Its files take about 650 MB.
        let mut server = SeekDb { port: free_port(), process: None, scratch: Scratch::on_disk("seekdb")? };
        server.launch()?;
        let address = server.address();
        let process = server.process()?;
        let mut ended = false;
        let waited = wait_for("seekdb", START_MAX, || {
            ended = !process.is_running();
            if ended { Some(None) } else { Wire::login(&address, &Login::new("root", "")).ok().map(Some) }
        });
        let Ok(Some(mut root)) = waited else { return Err(process.failure("did not come up")) };
        root.query(&format!("ALTER USER root IDENTIFIED BY '{ADMIN}'"))?;
        for statement in bootstrap_sql(Kind::OceanBase).split(";\n").filter(|s| !s.is_empty()) {
            root.query(statement).map_err(|e| format!("{statement}: {e}"))?;
        }
        Ok(server)
    }

    /// Starts it again in its directory, and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        self.launch()?;
        let address = self.address();
        wait_until_up(self.process()?, &address, START_MAX)
    }

    fn launch(&mut self) -> Result<()> {
        let mut command = Command::new(program()?);
        command.arg("--nodaemon").args(["--port", &self.port.to_string()]).arg("--base-dir").arg(self.scratch.path());
        for parameter in PARAMETERS {
            command.args(["--parameter", parameter]);
        }
        command.current_dir(self.scratch.path());
        self.process = Some(Process::start("seekdb", command, &self.scratch.path().join("out"), true)?);
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// SIGTERM, and waits until it is gone.
    pub fn stop(&mut self) -> Result<()> {
        self.process()?.stop(Duration::from_secs(30))
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| "seekdb was not started".into())
    }

    /// A connection of the administrator.
    pub fn admin(&self) -> Result<Wire> {
        admin_connection(&self.address())
    }
}
