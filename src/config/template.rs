//! What `belay init` writes and prints: a commented configuration, and the grants that the monitor account needs.

use std::fmt::Write;

use super::schema::{Absent, Key, SECTIONS, Section, keys_of};

/// What `belay init` was told.
#[derive(Clone, Debug)]
pub struct Init {
    /// TCP addresses for clients.
    pub addresses: Vec<String>,
    /// Paths of unix sockets for clients.
    pub unix_sockets: Vec<String>,
    /// `admin.address`.
    pub admin: String,
    /// `admin.token_file`.
    pub token_file: String,
    /// The addresses of the nodes.
    pub nodes: Vec<String>,
    /// `monitor.user`.
    pub monitor_user: String,
    /// `monitor.password_file`.
    pub monitor_password_file: String,
    /// `pool.server_connections_max`, if not the default.
    pub server_connections_max: Option<usize>,
    /// `runtime.threads`, if not the default.
    pub threads: Option<usize>,
}

impl Init {
    /// The text of the configuration: every key with its meaning; those that keep their default are commented out.
    pub fn render(&self) -> String {
        let mut out = String::from(
            "# belay's configuration. Check it with `belay check --config FILE`.\n\
             # A key with a # before it has the value shown, or none. Times are in milliseconds (_ms), sizes in bytes.\n\
             # Relative paths start at the directory of this file. The environment variable BELAY_<SECTION>__<KEY>\n\
             # replaces a value, for example BELAY_POOL__SERVER_CONNECTIONS_MAX.\n",
        );
        for section in SECTIONS {
            let _ = write!(out, "\n# {}\n", section.meaning);
            match section.name {
                "node" => self.render_nodes(&mut out),
                _ => self.render_section(section, &mut out),
            }
        }
        out
    }

    fn render_section(&self, section: &Section, out: &mut String) {
        let _ = match section.repeated {
            true => writeln!(out, "# [[{}]]", section.name),
            false => writeln!(out, "[{}]", section.name),
        };
        for key in keys_of(section.name) {
            comment(key, out);
            match self.value(key) {
                Some(value) => drop(writeln!(out, "{} = {value}", key.name)),
                None => commented_out(key, out),
            }
        }
    }

    fn render_nodes(&self, out: &mut String) {
        for (i, node) in self.nodes.iter().enumerate() {
            if i > 0 {
                out.push('\n');
            }
            out.push_str("[[node]]\n");
            for key in keys_of("node") {
                if i == 0 {
                    comment(key, out);
                }
                match key.name {
                    "address" => drop(writeln!(out, "address = {}", quote(node))),
                    _ if i == 0 => commented_out(key, out),
                    _ => {}
                }
            }
        }
    }

    fn value(&self, key: &Key) -> Option<String> {
        match (key.section, key.name) {
            ("listen", "addresses") => Some(quote_all(&self.addresses)).filter(|_| !self.addresses.is_empty()),
            ("listen", "unix_sockets") => Some(quote_all(&self.unix_sockets)).filter(|_| !self.unix_sockets.is_empty()),
            ("admin", "address") => Some(quote(&self.admin)),
            ("admin", "token_file") => Some(quote(&self.token_file)),
            ("monitor", "user") => Some(quote(&self.monitor_user)),
            ("monitor", "password_file") => Some(quote(&self.monitor_password_file)),
            ("pool", "server_connections_max") => self.server_connections_max.map(|n| n.to_string()),
            ("runtime", "threads") => self.threads.map(|n| n.to_string()),
            _ => None,
        }
    }
}

/// The statements that make the monitor account on MariaDB 10.5.2 and later. `'…'` stands for its password.
pub fn grants_mariadb(user: &str) -> String {
    let account = format!("{}@'%'", sql_quote(user));
    format!(
        "CREATE USER {account} IDENTIFIED BY '…';\n\
         GRANT PROCESS, BINLOG MONITOR, SLAVE MONITOR, CONNECTION ADMIN ON *.* TO {account};\n\
         GRANT SELECT ON mysql.global_priv TO {account};\n\
         GRANT SHOW VIEW, TRIGGER ON *.* TO {account};\n\
         GRANT SELECT ON mysql.proc TO {account};\n"
    )
}

/// The statements that make the monitor account on MySQL 8.0 and later. `'…'` stands for its password.
pub fn grants_mysql(user: &str) -> String {
    let account = format!("{}@'%'", sql_quote(user));
    format!(
        "CREATE USER {account} IDENTIFIED BY '…';\n\
         GRANT PROCESS, REPLICATION CLIENT ON *.* TO {account};\n\
         GRANT CONNECTION_ADMIN ON *.* TO {account};\n\
         GRANT SELECT ON mysql.user TO {account};\n\
         GRANT SHOW VIEW, SHOW_ROUTINE, TRIGGER ON *.* TO {account};\n\
         GRANT SELECT ON mysql.global_grants TO {account};\n\
         GRANT SELECT ON performance_schema.replication_group_members TO {account};\n"
    )
}

/// The statements that make the monitor account on OceanBase seekdb 1.4. `'…'` stands for its password.
pub fn grants_oceanbase(user: &str) -> String {
    let account = format!("{}@'%'", sql_quote(user));
    format!(
        "CREATE USER {account} IDENTIFIED BY '…';\n\
         GRANT PROCESS ON *.* TO {account};\n\
         GRANT SELECT ON oceanbase.__all_user TO {account};\n\
         GRANT SELECT ON oceanbase.`V$OB_SERVER_STAT` TO {account};\n"
    )
}

fn comment(key: &Key, out: &mut String) {
    let mut line = String::from("#");
    for word in key.meaning.split(' ') {
        if line.len() + word.len() > 110 {
            let _ = writeln!(out, "{line}");
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}

fn commented_out(key: &Key, out: &mut String) {
    let value = match key.absent {
        Absent::Value(text) => text,
        Absent::Unset | Absent::Required => "\"\"",
    };
    let _ = writeln!(out, "# {} = {value}", key.name);
}

/// A text as TOML.
fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn quote_all(texts: &[String]) -> String {
    format!("[{}]", texts.iter().map(|t| quote(t)).collect::<Vec<_>>().join(", "))
}

/// A user name as SQL, right under every sql_mode but NO_BACKSLASH_ESCAPES with a backslash in it.
fn sql_quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}
