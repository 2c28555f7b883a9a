//! Real servers: MariaDB alone, MariaDB replication, Galera with three nodes, MySQL, OceanBase seekdb.
//!
//! A data directory with the accounts below is made once for each kind of server (a template under `target/cache`) and copied at
//! each start, so a server is up in about two seconds. (seekdb makes its own data directory as quickly as a copy would take.)

pub mod galera;
pub mod mariadb;
pub mod mysql;
pub mod replication;
pub mod seekdb;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::Result;
use crate::paths::{cache, give_to_server_user};
use crate::process::{Process, run, wait_for};
use crate::wire::{Login, Wire};

pub use galera::Galera;
pub use mariadb::MariaDb;
pub use mysql::MySql;
pub use replication::Replication;
pub use seekdb::SeekDb;

/// The account of the harness itself, with all privileges; it may log in from anywhere with a password equal to its name.
pub const ADMIN: &str = "admin";
/// The ordinary account of clients: all privileges in the schemas `test` and `shop`. Password equal to its name.
pub const APP: &str = "app";
/// A second ordinary account; it may not read `shop`. Password equal to its name.
pub const APP2: &str = "app2";
/// The account that belay watches the nodes with.
pub const MONITOR: &str = "belay";
/// Its password.
pub const MONITOR_PASSWORD: &str = "monitor-secret-1";

/// What differs between kinds of servers when accounts are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// MariaDB.
    MariaDb,
    /// MySQL 8.4 and later.
    MySql,
    /// OceanBase seekdb.
    OceanBase,
}

/// The statements that make accounts, schemas and rows in a new data directory. The monitor account gets the grants that
/// `belay init` prints, and no other: one that is missing there fails here.
pub fn bootstrap_sql(kind: Kind) -> String {
    let identified = |password: &str| match kind {
        Kind::MariaDb => format!("IDENTIFIED VIA mysql_native_password USING PASSWORD('{password}')"),
        Kind::MySql => format!("IDENTIFIED WITH caching_sha2_password BY '{password}'"),
        Kind::OceanBase => format!("IDENTIFIED BY '{password}'"),
    };
    let mut sql = String::new();
    for user in [ADMIN, APP, APP2] {
        sql += &format!("CREATE USER {user}@'%' {};\n", identified(user));
    }
    sql += &format!("CREATE USER {MONITOR}@'%' {};\n", identified(MONITOR_PASSWORD));
    sql += "GRANT ALL PRIVILEGES ON *.* TO admin@'%' WITH GRANT OPTION;\n";
    sql += match kind {
        Kind::MariaDb => {
            "GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR, CONNECTION ADMIN ON *.* TO 'belay'@'%';\n\
             GRANT SELECT ON mysql.global_priv TO 'belay'@'%';\n\
             GRANT SHOW VIEW, TRIGGER ON *.* TO 'belay'@'%';\nGRANT SELECT ON mysql.proc TO 'belay'@'%';\n\
             DROP USER IF EXISTS ''@'localhost';\nDELETE FROM mysql.global_priv WHERE User = '';\nFLUSH PRIVILEGES;\n\
             CREATE ROLE reader;\nCREATE DATABASE IF NOT EXISTS test;\n"
        }
        Kind::MySql => {
            "GRANT PROCESS, REPLICATION CLIENT ON *.* TO 'belay'@'%';\n\
             GRANT CONNECTION_ADMIN ON *.* TO 'belay'@'%';\n\
             GRANT SELECT ON mysql.user TO 'belay'@'%';\nGRANT SHOW VIEW, TRIGGER ON *.* TO 'belay'@'%';\n\
             GRANT SHOW_ROUTINE ON *.* TO 'belay'@'%';\n\
             GRANT SELECT ON mysql.global_grants TO 'belay'@'%';\n\
             GRANT SELECT ON performance_schema.replication_group_members TO 'belay'@'%';\n\
             CREATE ROLE reader;\nCREATE DATABASE IF NOT EXISTS test;\n"
        }
        Kind::OceanBase => {
            "GRANT PROCESS ON *.* TO 'belay'@'%';\n\
             GRANT SELECT ON oceanbase.__all_user TO 'belay'@'%';\n\
             GRANT SELECT ON oceanbase.`V$OB_SERVER_STAT` TO 'belay'@'%';\n\
             CREATE ROLE reader;\nCREATE DATABASE IF NOT EXISTS test;\n"
        }
    };
    sql += "CREATE DATABASE shop;\n\
            CREATE TABLE shop.item (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(60) NOT NULL, price DECIMAL(8,2) NOT NULL);\n\
            INSERT INTO shop.item (name, price) VALUES ('carabiner', 9.50), ('rope 60 m', 129.00), ('harness', 74.90), \
            ('belay device', 31.00), ('chalk bag', 15.20);\n\
            CREATE TABLE shop.secret (id INT PRIMARY KEY, word VARCHAR(20));\nINSERT INTO shop.secret VALUES (1, 'edelrid');\n\
            GRANT ALL PRIVILEGES ON test.* TO app@'%';\nGRANT ALL PRIVILEGES ON shop.* TO app@'%';\n\
            GRANT ALL PRIVILEGES ON test.* TO app2@'%';\nGRANT SELECT ON shop.secret TO reader;\nGRANT reader TO app2@'%';\n";
    sql
}

/// Makes (once, for all processes) the directory `name` in the cache by calling `make` with a temporary directory.
pub fn template(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = cache().join("templates");
    fs::create_dir_all(&root)?;
    let lock = File::create(root.join(format!("{name}.lock")))?;
    lock.lock()?;
    let done = root.join(name);
    if done.is_dir() {
        return Ok(done);
    }
    let scratch = crate::paths::Scratch::new("template")?;
    make(scratch.path())?;
    let temporary = root.join(format!("{name}.new"));
    let _ = fs::remove_dir_all(&temporary);
    copy_dir(&scratch.path().join("data"), &temporary)?;
    fs::rename(&temporary, &done)?;
    Ok(done)
}

/// Copies a directory, keeping holes in files, and gives it to the servers' user.
pub fn copy_dir(from: &Path, to: &Path) -> Result<()> {
    run(Command::new("cp").args(["-a", "--sparse=always", "--reflink=auto"]).arg(from).arg(to))?;
    give_to_server_user(to)
}

/// A name for a template that changes when what it is made from changes.
pub fn template_name(kind: &str, parts: &[&str]) -> String {
    let hash = parts
        .iter()
        .flat_map(|p| p.bytes())
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    format!("{kind}-{hash:016x}")
}

/// A connection of the administrator by TCP (`mysql_native_password` only, that is MariaDB).
pub fn admin_connection(address: &str) -> Result<Wire> {
    Ok(Wire::login(address, &Login::new(ADMIN, ADMIN))?)
}

/// Waits until the administrator can log in at `address`; fails at once when the process ends.
pub fn wait_until_up(process: &mut Process, address: &str, limit: Duration) -> Result<()> {
    let mut ended = false;
    let waited = wait_for("the server", limit, || {
        ended = !process.is_running();
        (ended || admin_connection(address).is_ok()).then_some(())
    });
    match waited {
        Ok(()) if !ended => Ok(()),
        _ => Err(process.failure("did not come up")),
    }
}

/// Finds a program of the servers, which live in directories that are not in everybody's PATH.
pub fn program(names: &[&str]) -> Result<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let dirs = path.split(':').chain(["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"]);
    dirs.flat_map(|dir| names.iter().map(move |name| Path::new(dir).join(name)))
        .find(|p| p.is_file())
        .ok_or_else(|| format!("{} is not installed: run integration/setup.sh", names.join(" or ")).into())
}
