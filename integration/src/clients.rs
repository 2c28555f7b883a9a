//! Clients of other people: the `mariadb` and `mysql` command lines, PyMySQL, npm's mysql2.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Result;
use crate::paths::{cache, workspace};
use crate::process::run_limited;
use crate::servers::program;

/// A client that takes longer hangs.
const LIMIT: Duration = Duration::from_secs(90);

/// Runs statements with the `mariadb` client; output tab separated, without headings. `arguments` come before the rest.
pub fn mariadb(port: u16, user: &str, password: &str, arguments: &[&str], sql: &str) -> Result<String> {
    let mut client = Command::new(program(&["mariadb", "mysql"])?);
    client.args(["--no-defaults", "-h127.0.0.1", "-N", "-B", "--connect-timeout=15"]).arg(format!("-P{port}"));
    client.arg(format!("-u{user}")).arg(format!("-p{password}")).args(arguments).arg("-e").arg(sql);
    run_limited(&client, LIMIT)
}

/// The same with MySQL's own client.
pub fn mysql(port: u16, user: &str, password: &str, arguments: &[&str], sql: &str) -> Result<String> {
    let mut client = crate::servers::mysql::command("bin/mysql")?;
    client.args(["--no-defaults", "-h127.0.0.1", "-N", "-B", "--connect-timeout=15"]).arg(format!("-P{port}"));
    client.arg(format!("-u{user}")).arg(format!("-p{password}")).args(arguments).arg("-e").arg(sql);
    run_limited(&client, LIMIT)
}

/// Python with PyMySQL, from the environment that `setup.sh` made.
pub fn python() -> Result<PathBuf> {
    let python = cache().join("python/bin/python");
    if python.exists() { Ok(python) } else { Err("PyMySQL is not there: run integration/setup.sh".into()) }
}

/// Runs a script of `integration/clients` with Python; its output.
pub fn run_python(script: &str, arguments: &[&str]) -> Result<String> {
    let path = workspace().join("integration/clients").join(script);
    run_limited(Command::new(python()?).arg(path).args(arguments), LIMIT)
}

/// Runs a script of `integration/clients` with node and mysql2; its output.
pub fn run_node(script: &str, arguments: &[&str]) -> Result<String> {
    let modules = cache().join("node/node_modules");
    if !modules.join("mysql2").is_dir() {
        return Err("mysql2 is not there: run integration/setup.sh".into());
    }
    let path = workspace().join("integration/clients").join(script);
    let mut node = Command::new(program(&["node", "nodejs"])?);
    run_limited(node.env("NODE_PATH", modules).arg(path).args(arguments), LIMIT)
}

/// Runs a program with `input` on its standard input; its output whatever its status, and whether that was success.
pub fn feed(command: &mut Command, input: &str) -> Result<(bool, String)> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(input.as_bytes());
    }
    let out = child.wait_with_output()?;
    let text = format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    Ok((out.status.success(), text))
}
