//! One MySQL 9 server. Debian 12 has none, so `setup.sh` unpacks Debian unstable's under `target/cache/mysql-sid`; its programs
//! run here with that system's own loader and libraries, which needs neither root nor a chroot.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Kind, bootstrap_sql, copy_dir, template, template_name};
use crate::Result;
use crate::paths::{Scratch, cache, give_to_server_user, server_user};
use crate::ports::free_port;
use crate::process::{Process, run, wait_for};
use crate::tls::Tls;

/// The unpacked system that holds MySQL.
fn root() -> Result<PathBuf> {
    let root = std::env::var_os("BELAY_MYSQL_ROOT").map_or_else(|| cache().join("mysql-sid"), PathBuf::from);
    if root.join("usr/sbin/mysqld").is_file() {
        Ok(root)
    } else {
        Err("MySQL is not there: run integration/setup.sh".into())
    }
}

/// Whether MySQL was set up.
pub fn is_available() -> bool {
    root().is_ok()
}

/// A command for a program of that system (`sbin/mysqld`, `bin/mysql`).
pub fn command(program: &str) -> Result<Command> {
    let root = root()?;
    let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib/mysql/private", "usr/lib"];
    let libraries: Vec<String> = libraries.iter().map(|l| root.join(l).display().to_string()).collect();
    let loader = ["usr/lib64/ld-linux-x86-64.so.2", "lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1"]
        .iter()
        .map(|l| root.join(l))
        .find(|p| p.exists())
        .ok_or("no loader in the MySQL directory")?;
    let mut command = Command::new(loader);
    command.arg("--library-path").arg(libraries.join(":")).arg(root.join("usr").join(program));
    Ok(command)
}

fn server_command(data: &Path) -> Result<Command> {
    let root = root()?;
    let mut command = command("sbin/mysqld")?;
    command.args(["--no-defaults", "--secure-file-priv="]).arg(format!("--datadir={}", data.display()));
    for (option, path) in [
        ("basedir", "usr"),
        ("lc-messages-dir", "usr/share/mysql"),
        ("plugin-dir", "usr/lib/mysql/plugin"),
        ("character-sets-dir", "usr/share/mysql/charsets"),
    ] {
        command.arg(format!("--{option}={}", root.join(path).display()));
    }
    Ok(command)
}

/// A running server.
#[derive(Debug)]
pub struct MySql {
    dir: PathBuf,
    port: u16,
    options: Vec<String>,
    process: Option<Process>,
    _scratch: Scratch,
}

impl MySql {
    /// Starts one. It offers TLS with a certificate that it makes itself, as MySQL does.
    pub fn start() -> Result<MySql> {
        MySql::start_with(&[])
    }

    /// Starts one whose certificate comes from `tls`.
    pub fn start_tls(tls: &Tls) -> Result<MySql> {
        let ca = format!("--ssl-ca={}", tls.ca().display());
        let cert = format!("--ssl-cert={}", tls.server_certificate().display());
        let key = format!("--ssl-key={}", tls.server_key().display());
        MySql::start_with(&[&ca, &cert, &key])
    }

    /// Starts one with more options.
    pub fn start_with(options: &[&str]) -> Result<MySql> {
        let data = data_template()?;
        let scratch = Scratch::new("mysql")?;
        let dir = scratch.path().to_path_buf();
        copy_dir(&data, &dir.join("data"))?;
        let options = options.iter().map(|o| (*o).to_owned()).collect();
        let mut server = MySql { dir, port: free_port(), options, process: None, _scratch: scratch };
        server.restart()?;
        Ok(server)
    }

    /// Starts it (again) and waits until it answers.
    pub fn restart(&mut self) -> Result<()> {
        for left in ["sock.lock", "sock"] {
            let _ = fs::remove_file(self.dir.join(left));
        }
        let mut command = server_command(&self.dir.join("data"))?;
        command.args([
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--mysqlx=OFF",
            "--innodb-buffer-pool-size=96M",
        ]);
        command.args([
            "--innodb-redo-log-capacity=128M",
            "--max-allowed-packet=256M",
            "--local-infile=1",
            "--max-connections=500",
        ]);
        command.args(["--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--performance-schema-instrument=%=OFF"]);
        command.arg(format!("--port={}", self.port)).arg(format!("--tmpdir={}", self.dir.display()));
        for (option, file) in [("socket", "sock"), ("pid-file", "pid")] {
            command.arg(format!("--{option}={}", self.dir.join(file).display()));
        }
        command.args(&self.options);
        let mut process = Process::start("mysql", command, &self.dir.join("log"), true)?;
        let mut ended = false;
        let waited = wait_for("MySQL", Duration::from_secs(90), || {
            ended = !process.is_running();
            (ended || self.sql("SELECT 1").is_ok()).then_some(())
        });
        match waited {
            Ok(()) if !ended => self.process = Some(process),
            _ => return Err(process.failure("did not come up")),
        }
        Ok(())
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The path of its unix socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("sock")
    }

    /// The process.
    pub fn process(&mut self) -> Result<&mut Process> {
        self.process.as_mut().ok_or_else(|| "MySQL was not started".into())
    }

    /// Runs statements as the administrator with the `mysql` client; its output, tab separated, without headings.
    pub fn sql(&self, sql: &str) -> Result<String> {
        let mut client = command("bin/mysql")?;
        client.args(["--no-defaults", "-uadmin", "-padmin", "-N", "-B", "-e", sql]);
        run(client.arg(format!("--socket={}", self.socket().display())))
    }
}

fn data_template() -> Result<PathBuf> {
    let sql = bootstrap_sql(Kind::MySql);
    let version = run(command("sbin/mysqld")?.arg("--version"))?;
    let name = template_name("mysql", &[&sql, version.split_whitespace().nth(2).unwrap_or_default()]);
    template(&name, |dir| {
        let script = dir.join("init.sql");
        fs::write(&script, &sql)?;
        give_to_server_user(dir)?;
        let mut init = server_command(&dir.join("data"))?;
        init.args(["--initialize-insecure", "--innodb-redo-log-capacity=128M", "--skip-log-bin"]);
        init.arg(format!("--init-file={}", script.display())).arg(format!("--log-error={}", dir.join("log").display()));
        if let Some((uid, gid)) = server_user() {
            std::os::unix::process::CommandExt::uid(&mut init, uid);
            std::os::unix::process::CommandExt::gid(&mut init, gid);
        }
        run(&mut init).map_err(|e| format!("{e}\n{}", crate::process::log_tail(&dir.join("log"), 20)))?;
        // Each server makes its own.
        let _ = fs::remove_file(dir.join("data/auto.cnf"));
        Ok(())
    })
}
