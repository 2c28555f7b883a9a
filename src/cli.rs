//! The command line: `belay init`, `belay check`, `belay serve`.

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use tracing_subscriber::filter::LevelFilter;
use zeroize::Zeroizing;

use crate::config::template::{Init, grants_mariadb, grants_mysql, grants_oceanbase};
use crate::config::{self, Config, Faults, LogConfig, LogFormat, LogLevel, address};
use crate::router::RuleSet;
use crate::server;

/// What the process ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All is well.
    Ok = 0,
    /// The configuration, or what was asked for, has faults. They were printed.
    Faults = 1,
    /// The command line can't be understood (EX_USAGE).
    Usage = 64,
    /// belay could not run, or had to stop (EX_SOFTWARE).
    Internal = 70,
}

/// A session-aware, transaction-pinning SQL router for clusters that speak the MySQL protocol.
#[derive(Debug, Parser)]
#[command(name = "belay", version)]
#[command(
    after_help = "Exit codes: 0 all well, 1 faults (printed to standard error), 64 wrong usage, 70 belay could not run."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Writes a commented configuration that works as it is, and prints the grants that the monitor account needs.
    Init(InitArgs),
    /// Checks a configuration: prints file, line, key and remedy for each fault.
    Check(ConfigArgs),
    /// Serves in the foreground. SIGTERM drains: no new clients, open transactions get time to end.
    Serve(ConfigArgs),
}

#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct InitArgs {
    /// Where clients connect: host:port, [ipv6]:port or unix:/path. May be given several times.
    #[arg(long, value_name = "ADDR", required = true)]
    listen: Vec<String>,
    /// Where Prometheus and people connect by HTTP: host:port or [ipv6]:port.
    #[arg(long, value_name = "ADDR")]
    admin: String,
    /// A node: host:port, [ipv6]:port, host (port 3306) or unix:/path. Once for each node, first the first to be writer.
    #[arg(long, value_name = "ADDR", required = true)]
    node: Vec<String>,
    /// The account that watches the nodes and reads their accounts.
    #[arg(long, value_name = "U")]
    monitor_user: String,
    /// The file that holds its password.
    #[arg(long, value_name = "F")]
    monitor_password_file: PathBuf,
    /// Server sessions per node and account.
    #[arg(long, value_name = "N")]
    server_connections_max: Option<usize>,
    /// Worker threads.
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
    /// The file to write; it must not exist. A new admin token goes into a file beside it, FILE.token.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs the command line, the program's name first.
pub fn run<I, T>(args: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let exit = match Cli::try_parse_from(args) {
        Ok(cli) => match cli.command {
            Command::Init(args) => init(&args),
            Command::Check(args) => check(&args.config),
            Command::Serve(args) => serve(&args.config),
        },
        Err(error) => {
            // Nothing can be told to a closed terminal.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
    };
    ExitCode::from(exit as u8)
}

fn check(path: &Path) -> Exit {
    match load(path) {
        Ok(_) => {
            say(&format!("{}: no faults\n", path.display()));
            Exit::Ok
        }
        Err(faults) => report(&faults),
    }
}

/// The configuration, and the rules that it names.
fn load(path: &Path) -> Result<(Config, RuleSet), Faults> {
    let config = config::load(path, &config::environment())?;
    let rules = server::rules(&config)?;
    Ok((config, rules))
}

fn serve(path: &Path) -> Exit {
    let (config, rules) = match load(path) {
        Ok(loaded) => loaded,
        Err(faults) => return report(&faults),
    };
    start_log(&config.log);
    match server::serve(config, rules) {
        Ok(()) => Exit::Ok,
        Err(error) => {
            complain(&format!("belay: {error}\n"));
            Exit::Internal
        }
    }
}

/// From here on, what is logged goes to standard error.
fn start_log(log: &LogConfig) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt().with_max_level(level).with_writer(io::stderr).with_target(false);
    // An error means that there is a log already, as in a test that serves twice.
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}

fn report(faults: &Faults) -> Exit {
    let n = faults.0.len();
    complain(&format!("{faults}{n} {}\n", if n == 1 { "fault" } else { "faults" }));
    Exit::Faults
}

fn init(args: &InitArgs) -> Exit {
    match write_files(args) {
        Ok(()) => {
            say(&next_steps(args));
            Exit::Ok
        }
        Err(error) => {
            complain(&format!("belay init: {error}\n"));
            Exit::Faults
        }
    }
}

/// Why `belay init` wrote nothing.
#[derive(Debug, thiserror::Error)]
enum InitError {
    #[error("{0} exists already and is never overwritten: move it away, or name another file with --out")]
    Exists(PathBuf),
    #[error("{0} can't be written: {1}")]
    Write(PathBuf, io::Error),
    #[error("{0}: {1}")]
    Value(&'static str, String),
    #[error("the system gave no random bytes for the admin token")]
    Random,
    #[error("the configuration would have faults:\n{0}")]
    Faults(Faults),
}

fn write_files(args: &InitArgs) -> Result<(), InitError> {
    let token_path = token_path(&args.out);
    for path in [&args.out, &token_path] {
        if path.symlink_metadata().is_ok() {
            return Err(InitError::Exists(path.clone()));
        }
    }
    let text = settings(args)?.render();
    write_new(&token_path, 0o600, format!("{}\n", *token()?).as_bytes())?;
    // Only its own text counts here: an environment that faults is the business of `check` and `serve`.
    let written = match config::from_text(&text, &args.out, &config::Environment::new()) {
        Ok(_) => write_new(&args.out, 0o644, text.as_bytes()),
        Err(faults) => Err(InitError::Faults(faults)),
    };
    if written.is_err() {
        // The token is of no use without its configuration, and would be in the way of the next try.
        let _ = fs::remove_file(&token_path);
    }
    written
}

fn settings(args: &InitArgs) -> Result<Init, InitError> {
    let text = |path: &Path, flag| match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(InitError::Value(flag, "the path is not UTF-8".into())),
    };
    let absolute = |path: &Path, flag| match std::path::absolute(path) {
        Ok(path) => text(&path, flag),
        Err(error) => Err(InitError::Value(flag, error.to_string())),
    };
    let mut init = Init {
        addresses: Vec::new(),
        unix_sockets: Vec::new(),
        admin: args.admin.clone(),
        // Beside the configuration, so that both can be moved together.
        token_file: text(Path::new(token_path(&args.out).file_name().unwrap_or_default()), "--out")?,
        nodes: args.node.clone(),
        monitor_user: args.monitor_user.clone(),
        monitor_password_file: absolute(&args.monitor_password_file, "--monitor-password-file")?,
        server_connections_max: args.server_connections_max,
        threads: args.threads,
    };
    for listen in &args.listen {
        match listen.strip_prefix("unix:") {
            Some(path) => {
                address::check_unix_path(path)
                    .map_err(|wrong| InitError::Value("--listen", format!("`{listen}` {wrong}")))?;
                init.unix_sockets.push(path.to_owned());
            }
            None => init.addresses.push(listen.clone()),
        }
    }
    Ok(init)
}

fn token_path(out: &Path) -> PathBuf {
    let mut path = out.as_os_str().to_owned();
    path.push(".token");
    PathBuf::from(path)
}

/// A random token of 256 bits, as hexadecimal digits.
fn token() -> Result<Zeroizing<String>, InitError> {
    let mut bytes = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| InitError::Random)?;
    let digits = bytes.iter().flat_map(|b| [b >> 4, b & 15]).filter_map(|n| char::from_digit(n.into(), 16));
    Ok(Zeroizing::new(digits.collect()))
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), InitError> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => InitError::Exists(path.to_owned()),
        _ => InitError::Write(path.to_owned(), error),
    })
}

fn next_steps(args: &InitArgs) -> String {
    let out = args.out.display();
    let user = &args.monitor_user;
    format!(
        "Wrote {out} and the admin token in {}.\n\n\
         1. Make the monitor account, on the writer (Galera and replication carry it to the others). The password is\n   \
         the one in {}.\n\n\
         MariaDB:\n{}\n\
         MySQL:\n{}\n\
         OceanBase seekdb:\n{}\n\
         {}\n\n\
         2. Check:  belay check --config {out}\n\
         3. Start:  belay serve --config {out}\n\
         4. See:    curl http://{}/readyz\n",
        token_path(&args.out).display(),
        args.monitor_password_file.display(),
        indent(&grants_mariadb(user)),
        indent(&grants_mysql(user)),
        indent(&grants_oceanbase(user)),
        "Narrow '%' to the addresses that belay connects from. A fault in one grant shows in /metrics and the log.",
        args.admin,
    )
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

/// Writes to standard output. Nothing can be told to a closed one.
fn say(text: &str) {
    let _ = io::stdout().lock().write_all(text.as_bytes());
}

/// Writes to standard error.
fn complain(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}
