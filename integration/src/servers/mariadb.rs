//! One MariaDB server, and what every kind of MariaDB node has in common.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Kind, bootstrap_sql, copy_dir, program, template, template_name, wait_until_up};
use crate::Result;
use crate::clients::feed;
use crate::paths::{Scratch, server_user};
use crate::ports::free_port;
use crate::process::{Process, run, wait_for};
use crate::tls::Tls;
use crate::wire::Wire;

/// Options of every MariaDB node of the tests: small, and durable enough to survive kill -9.
const COMMON: &[&str] = &[
    "--bind-address=127.0.0.1",
    "--skip-name-resolve",
    "--innodb-buffer-pool-size=96M",
    "--innodb-log-file-size=64M",
    "--innodb-flush-log-at-trx-commit=2",
    "--max-allowed-packet=256M",
    "--max-connections=500",
    "--local-infile=1",
    "--performance-schema=OFF",
    "--log-warnings=2",
    "--character-set-server=utf8mb4",
];

/// One mariadbd: its directory, its options, and its process while it runs.
#[derive(Debug)]
pub struct Instance {
    name: String,
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    process: Option<Process>,
}

impl Instance {
    /// Prepares an instance in `dir` from the template; it does not run yet.
    pub fn prepare(name: &str, dir: PathBuf, data: &Path) -> Result<Instance> {
        fs::create_dir_all(&dir)?;
        crate::paths::give_to_server_user(&dir)?;
        copy_dir(data, &dir.join("data"))?;
        Ok(Instance::new(name, dir))
    }

    fn new(name: &str, dir: PathBuf) -> Instance {
        Instance { name: name.to_owned(), dir, port: free_port(), options: Vec::new(), process: None }
    }

    /// Adds options, for every later start.
    pub fn options<S: Into<String>>(&mut self, options: impl IntoIterator<Item = S>) {
        self.options.extend(options.into_iter().map(Into::into));
    }

    /// Starts it, with options for this start only; does not wait.
    pub fn launch(&mut self, once: &[String]) -> Result<()> {
        for left in ["sock.lock", "sock"] {
            let _ = fs::remove_file(self.dir.join(left));
        }
        let mut command = self.command()?;
        command.args(once);
        self.process = Some(Process::start(&self.name, command, &self.log(), true)?);
        Ok(())
    }

    /// Starts it and waits until it answers.
    pub fn start(&mut self) -> Result<()> {
        self.launch(&[])?;
        let address = self.address();
        wait_until_up(self.process()?, &address, Duration::from_secs(60))
    }

    /// The command line without the options of one start.
    pub fn command(&self) -> Result<Command> {
        let mut command = Command::new(program(&["mariadbd", "mysqld"])?);
        command.arg("--no-defaults").args(COMMON).arg(format!("--port={}", self.port));
        for (option, file) in [("datadir", "data"), ("socket", "sock"), ("pid-file", "pid"), ("tmpdir", "data")] {
            command.arg(format!("--{option}={}", self.dir.join(file).display()));
        }
        command.args(&self.options);
        Ok(command)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }
    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
    /// The path of its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }
    /// Its directory; the data is in `data`.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// The process; an error if it was never started.
    pub fn process(&mut self) -> Result<&mut Process> {
        let name = &self.name;
        self.process.as_mut().ok_or_else(|| format!("{name} was not started").into())
    }

    /// Its process id; 0 if it was never started.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Process::pid)
    }

    /// Whether it runs.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// kill -9.
    pub fn kill(&mut self) -> Result<()> {
        self.process()?.kill()
    }

    /// SIGSTOP: it keeps its connections and says nothing.
    pub fn freeze(&mut self) -> Result<()> {
        self.process()?.signal("STOP")
    }

    /// SIGCONT.
    pub fn thaw(&mut self) -> Result<()> {
        self.process()?.signal("CONT")
    }

    /// A clean stop.
    pub fn stop(&mut self) -> Result<()> {
        match self.process.as_mut() {
            Some(process) => process.stop(Duration::from_secs(30)),
            None => Ok(()),
        }
    }

    /// A connection of the administrator.
    pub fn admin(&self) -> Result<Wire> {
        super::admin_connection(&self.address())
    }

    /// Offers TLS with a certificate of `tls`.
    pub fn enable_tls(&mut self, tls: &Tls) {
        self.options([
            format!("--ssl-ca={}", tls.ca().display()),
            format!("--ssl-cert={}", tls.server_certificate().display()),
            format!("--ssl-key={}", tls.server_key().display()),
        ]);
    }
}

/// A data directory with the accounts and rows of the harness.
pub fn data_template() -> Result<PathBuf> {
    let sql = bootstrap_sql(Kind::MariaDb);
    let version = run(Command::new(program(&["mariadbd", "mysqld"])?).arg("--version"))?;
    let name = template_name("mariadb", &[&sql, &version, &COMMON.concat()]);
    template(&name, |dir| {
        let data = dir.join("data");
        let mut install = Command::new(program(&["mariadb-install-db", "mysql_install_db"])?);
        install.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
        install.arg("--innodb-log-file-size=64M").arg(format!("--datadir={}", data.display()));
        if let Some((uid, gid)) = server_user() {
            std::os::unix::process::CommandExt::uid(&mut install, uid);
            std::os::unix::process::CommandExt::gid(&mut install, gid);
        }
        run(&mut install)?;
        let mut instance = Instance::new("template", dir.to_path_buf());
        instance.launch(&[])?;
        let socket = format!("--socket={}", instance.socket().display());
        let client = || {
            let mut client = Command::new(program(&["mariadb", "mysql"])?);
            client.args(["--no-defaults", "-uroot", "--abort-source-on-error", &socket]);
            Ok::<_, crate::Error>(client)
        };
        wait_for("the template's server", Duration::from_secs(60), || {
            run(client().ok()?.args(["-e", "SELECT 1"])).ok().map(|_| ())
        })
        .or_else(|e| Err(instance.process()?.failure(&e.to_string())))?;
        let (ok, out) = feed(&mut client()?, &sql)?;
        instance.stop()?;
        if ok { Ok(()) } else { Err(format!("the accounts could not be made: {out}").into()) }
    })
}

/// One MariaDB server in a scratch directory.
#[derive(Debug)]
pub struct MariaDb {
    instance: Instance,
    _scratch: Scratch,
}

impl MariaDb {
    /// Starts one.
    pub fn start() -> Result<MariaDb> {
        MariaDb::start_with(&[])
    }

    /// Starts one with more options.
    pub fn start_with(options: &[&str]) -> Result<MariaDb> {
        MariaDb::start_configured(|instance| instance.options(options.iter().copied()))
    }

    /// Starts one that offers TLS.
    pub fn start_tls(tls: &Tls) -> Result<MariaDb> {
        MariaDb::start_configured(|instance| instance.enable_tls(tls))
    }

    fn start_configured(configure: impl FnOnce(&mut Instance)) -> Result<MariaDb> {
        let scratch = Scratch::new("mariadb")?;
        let mut instance = Instance::prepare("mariadb", scratch.path().join("n"), &data_template()?)?;
        configure(&mut instance);
        instance.start()?;
        Ok(MariaDb { instance, _scratch: scratch })
    }
}

impl std::ops::Deref for MariaDb {
    type Target = Instance;
    fn deref(&self) -> &Instance {
        &self.instance
    }
}

impl std::ops::DerefMut for MariaDb {
    fn deref_mut(&mut self) -> &mut Instance {
        &mut self.instance
    }
}
