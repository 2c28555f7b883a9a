//! Every key of the configuration: its type, limits, default, unit and meaning, in one table. The loader checks files
//! against it, `belay init` writes it, and `docs/configuration.md` is compared with it by a test.

use Absent::{Required, Unset, Value};
use Kind::{Choice, Flag, Integer, Path, Paths, Secret, Text, Texts};

/// What a key holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A whole number in these limits, both included.
    Integer(i64, i64),
    /// A text.
    Text,
    /// A text that is never shown.
    Secret,
    /// The path of a file; a relative one starts at the directory of the configuration file.
    Path,
    /// A list of texts.
    Texts,
    /// A list of paths.
    Paths,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Flag,
}

/// What holds where a key is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Absent {
    /// It must not be.
    Required,
    /// There is no value.
    Unset,
    /// This one, as TOML.
    Value(&'static str),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Its section without brackets: `listen.tls`.
    pub section: &'static str,
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// What holds without it.
    pub absent: Absent,
    /// The unit of its number; empty where it has none.
    pub unit: &'static str,
    /// What it is for.
    pub meaning: &'static str,
}

impl Key {
    /// Its type as the documentation says it.
    pub fn kind_text(&self) -> String {
        match self.kind {
            Integer(min, max) => format!("{min} to {max}"),
            Text => "text".into(),
            Secret => "secret".into(),
            Path => "path".into(),
            Texts => "list of texts".into(),
            Paths => "list of paths".into(),
            Choice(words) => words.join(", "),
            Flag => "true, false".into(),
        }
    }

    /// Its default as the documentation says it.
    pub fn absent_text(&self) -> &'static str {
        match self.absent {
            Required => "required",
            Unset => "none",
            Value(text) => text,
        }
    }
}

/// One section.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its name without brackets.
    pub name: &'static str,
    /// Whether it may stand there several times (`[[node]]`).
    pub repeated: bool,
    /// What it is for.
    pub meaning: &'static str,
}

const fn section(name: &'static str, repeated: bool, meaning: &'static str) -> Section {
    Section { name, repeated, meaning }
}

/// All sections, in the order in which `belay init` writes them.
pub const SECTIONS: &[Section] = &[
    section("instance", false, "Identity of this belay among several in front of one cluster."),
    section("listen", false, "Where clients connect."),
    section("listen.tls", false, "TLS towards clients."),
    section("admin", false, "HTTP for Prometheus and for people: /metrics, /healthz, /readyz, /sessions."),
    section("cluster", false, "The cluster as a whole."),
    section("node", true, "One node each, in order of succession where the cluster's own facts do not decide."),
    section("node_tls", false, "TLS towards the nodes."),
    section("monitor", false, "The account that watches the nodes and reads their accounts."),
    section(
        "router",
        false,
        "Which statements go where (docs/routing.md). Without rules everything goes to the writer.",
    ),
    section("pool", false, "Server sessions: connections to nodes that clients share."),
    section("session", false, "What a client session may do and keep."),
    section("account", true, "Accounts that can be neither read from the servers nor proven against them."),
    section("log", false, "Logging, to standard error."),
    section("runtime", false, "Threads."),
];

const DAY_MS: i64 = 86_400_000;
const HOUR_MS: i64 = 3_600_000;
const MANY: i64 = 10_000_000;
/// Half of the connection ids that one instance has.
const CLIENTS_MAX: i64 = 2_000_000;

const fn key(
    section: &'static str,
    name: &'static str,
    kind: Kind,
    absent: Absent,
    unit: &'static str,
    meaning: &'static str,
) -> Key {
    Key { section, name, kind, absent, unit, meaning }
}

/// All keys, section by section.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    key("instance", "id", Integer(0, 255), Value("0"), "",
        "Eight bits of every connection id; give each belay in front of one cluster its own, so that KILL finds the right one."),

    key("listen", "addresses", Texts, Value("[]"), "",
        "TCP addresses, host:port or [ipv6]:port."),
    key("listen", "unix_sockets", Paths, Value("[]"), "",
        "Paths of unix sockets."),
    key("listen", "client_connections_max", Integer(1, CLIENTS_MAX), Value("10000"), "connections",
        "Clients beyond this number get error 1040."),
    key("listen", "logins_max", Integer(1, CLIENTS_MAX), Value("1000"), "connections",
        "Connections that have not logged in yet; beyond this number new ones are closed."),
    key("listen", "login_timeout_ms", Integer(1, HOUR_MS), Value("10000"), "ms",
        "A login that takes longer is ended."),
    key("listen", "login_packet_bytes_max", Integer(4_096, 16_777_215), Value("65536"), "bytes",
        "The longest packet that a client may send before it is logged in."),

    key("listen.tls", "mode", Choice(&["off", "preferred", "required"]), Value("\"preferred\""), "",
        "Whether clients may or must use TLS. Required refuses a login without it, except over a unix socket."),
    key("listen.tls", "certificate_file", Path, Unset, "",
        "PEM certificate chain; made at first start if not given."),
    key("listen.tls", "key_file", Path, Unset, "",
        "PEM private key of the certificate."),
    key("listen.tls", "rsa_key_file", Path, Unset, "",
        "PEM RSA private key for caching_sha2_password without TLS; made at first start if not given."),
    key("listen.tls", "state_dir", Path, Unset, "",
        "Directory that keeps what is made at first start (mode 0600); without it, it is made anew at every start."),

    key("admin", "address", Text, Required, "",
        "host:port or [ipv6]:port of the HTTP server. /metrics, /healthz and /readyz ask for no token: keep it off public networks."),
    key("admin", "token", Secret, Unset, "",
        "Bearer token for /sessions, at least 16 characters; from here, token_file or token_env. Without one /sessions is off."),
    key("admin", "token_file", Path, Unset, "",
        "File that holds the token."),
    key("admin", "token_env", Text, Unset, "",
        "Environment variable that holds the token."),
    key("admin", "connections_max", Integer(1, 10_000), Value("64"), "connections",
        "HTTP connections at one time; beyond this number new ones are closed."),

    key("cluster", "server_version", Text, Value("\"8.0.40-belay\""), "",
        "Version shown in the greeting until a node has answered for the first time."),
    key("cluster", "hold_timeout_ms", Integer(0, HOUR_MS), Value("10000"), "ms",
        "How long a statement that was not sent waits for a node; 0 means not at all."),
    key("cluster", "holds_max", Integer(0, MANY), Value("10000"), "statements",
        "Statements that wait so at one time; beyond this number they fail at once."),
    key("cluster", "causal_wait_ms", Integer(1, HOUR_MS), Value("8000"), "ms",
        "How long a statement waits for another node than the session's last one to apply what the session has written and read."),
    key("cluster", "reads_again_max", Integer(0, 100), Value("5"), "runs",
        "How often a read outside a transaction that was lost with its node is run again; 0 means never."),

    key("node", "name", Text, Unset, "",
        "A name for logs and metrics; the address if absent."),
    key("node", "address", Text, Required, "",
        "host:port, [ipv6]:port, host (port 3306) or unix:/path."),

    key("node_tls", "mode", Choice(&["off", "preferred", "required", "verify-ca", "verify-full"]), Value("\"preferred\""), "",
        "How much TLS towards the nodes, in the words of MySQL's ssl-mode. Only verify-ca and verify-full check the node's certificate."),
    key("node_tls", "ca_file", Path, Unset, "",
        "PEM certificates of the authorities that sign the nodes' certificates; needed by verify-ca and verify-full."),
    key("node_tls", "certificate_file", Path, Unset, "",
        "PEM client certificate chain."),
    key("node_tls", "key_file", Path, Unset, "",
        "PEM private key of the client certificate."),

    key("monitor", "user", Text, Required, "",
        "The account; belay init prints the grants it needs."),
    key("monitor", "password", Secret, Unset, "",
        "Its password; from here, password_file or password_env. One of the three must be given."),
    key("monitor", "password_file", Path, Unset, "",
        "File that holds the password."),
    key("monitor", "password_env", Text, Unset, "",
        "Environment variable that holds the password."),
    key("monitor", "interval_ms", Integer(10, HOUR_MS), Value("500"), "ms",
        "Time between two probes of a node."),
    key("monitor", "probe_timeout_ms", Integer(10, HOUR_MS), Value("1500"), "ms",
        "A probe without an answer for this long counts as failed."),
    key("monitor", "accounts_interval_ms", Integer(10, DAY_MS), Value("2000"), "ms",
        "Time between two readings of the accounts: a password changed on the servers stops working here within this time."),
    key("monitor", "accounts_max", Integer(1, MANY), Value("100000"), "accounts",
        "Accounts that are read from the servers at the most."),

    key("router", "rules", Paths, Value("[]"), "",
        "Files of rules, for example router-rules/read-scaling.toml. Read at the start, one after the other; none: every statement goes to the writer."),
    key("router", "lag_max_ms", Integer(20, HOUR_MS), Value("5000"), "ms",
        "A node that is not known to have everything that the writer had this long ago gets no reads. At least three times monitor.interval_ms, which is how often nodes are asked."),

    key("pool", "server_connections_max", Integer(1, 100_000), Value("64"), "connections",
        "Server sessions per node and account, over all threads."),
    key("pool", "server_connections_min", Integer(0, 100_000), Value("0"), "connections",
        "Kept open and logged in per node and account, once the account has been used."),
    key("pool", "pinned_max", Integer(0, 100_000), Value("0"), "connections",
        "How many of server_connections_max may be pinned at one time; 0 means all but one."),
    key("pool", "acquire_timeout_ms", Integer(1, HOUR_MS), Value("10000"), "ms",
        "A statement waits this long for a server session."),
    key("pool", "waiters_max", Integer(0, MANY), Value("10000"), "statements",
        "Statements that wait per node and account; beyond this number they fail at once."),
    key("pool", "passed_over_max", Integer(0, 1_000_000), Value("16"), "times",
        "How often the first in the queue may be passed over by one whose state fits a free server session better."),
    key("pool", "idle_timeout_ms", Integer(1, DAY_MS), Value("60000"), "ms",
        "An idle server session beyond the minimum is closed after this time."),
    key("pool", "age_max_ms", Integer(1, 30 * DAY_MS), Value("3600000"), "ms",
        "A server session is closed at this age, when it is free."),
    key("pool", "check_after_idle_ms", Integer(0, DAY_MS), Value("5000"), "ms",
        "A server session that idled for longer is checked with a ping before use."),
    key("pool", "dials_max", Integer(1, MANY), Value("16"), "dials",
        "Server sessions that are being opened per node at one time, so that a node that comes back is not overrun."),
    key("pool", "dial_timeout_ms", Integer(1, HOUR_MS), Value("3000"), "ms",
        "Connecting and logging in to a node may take this long."),
    key("pool", "prepared_statements_max", Integer(1, 1_000_000), Value("512"), "statements",
        "Prepared statements kept per server session."),

    key("session", "record_passwords", Flag, Value("true"), "",
        "Keep (encrypted, in memory) the password that a caching_sha2_password login reveals, to open further server sessions. Off: such a client is pinned to its one server session."),
    key("session", "packet_bytes_max", Integer(16_384, 1_073_741_824), Value("1073741824"), "bytes",
        "The longest packet that a logged-in client may send."),
    key("session", "prepared_statements_max", Integer(1, 1_048_576), Value("16382"), "statements",
        "Prepared statements of one client."),
    key("session", "prepared_bytes_max", Integer(16_384, 4_294_967_296), Value("67108864"), "bytes",
        "Text and metadata of all prepared statements of one client."),
    key("session", "user_variables_max", Integer(0, 256), Value("64"), "variables",
        "User variables of one client that follow it to other server sessions; a client with more is pinned. 0: all are."),
    key("session", "user_variables_bytes_max", Integer(64, 1_048_576), Value("65536"), "bytes",
        "Bytes of the values of all of them; a client with more is pinned."),
    key("session", "idle_timeout_ms", Integer(0, 365 * DAY_MS), Value("0"), "ms",
        "A client idle for longer is closed, in or out of a transaction; 0 means the servers' own wait_timeout."),
    key("session", "diagnostics_pin_ms", Integer(0, HOUR_MS), Value("1000"), "ms",
        "How long warnings and errors of the last statement keep its server session for SHOW WARNINGS, if nobody waits for one; then they are copied."),
    key("session", "diagnostics_bytes_max", Integer(0, 1_048_576), Value("262144"), "bytes",
        "Bytes of the warnings and errors of its last statement that are copied for one client; if there are more, SHOW WARNINGS gets an error after that."),
    key("session", "cleanup_timeout_ms", Integer(1, HOUR_MS), Value("10000"), "ms",
        "Killing what runs for a client that vanished, and rolling back, may take this long; then the server session is closed."),
    key("session", "client_write_timeout_ms", Integer(1, DAY_MS), Value("600000"), "ms",
        "A client that does not read its answer, or stops in the middle of a request, for this long is closed."),
    key("session", "drain_timeout_ms", Integer(0, DAY_MS), Value("30000"), "ms",
        "Time that open transactions get after SIGTERM."),

    key("account", "user", Text, Required, "",
        "User name."),
    key("account", "host", Text, Value("\"%\""), "",
        "Host pattern, as in CREATE USER."),
    key("account", "password", Secret, Unset, "",
        "Password; from here, password_file or password_env. One of the three must be given."),
    key("account", "password_file", Path, Unset, "",
        "File that holds the password."),
    key("account", "password_env", Text, Unset, "",
        "Environment variable that holds the password."),

    key("log", "format", Choice(&["text", "json"]), Value("\"text\""), "",
        "For people, or one JSON object a line."),
    key("log", "level", Choice(&["error", "warn", "info", "debug", "trace"]), Value("\"info\""), "",
        "The least severe level that is written."),

    key("runtime", "threads", Integer(0, 1_024), Value("0"), "threads",
        "Worker threads; 0 means one per core, or one alone where there are at most two cores."),
];

/// The section of this name.
pub fn find_section(name: &str) -> Option<&'static Section> {
    SECTIONS.iter().find(|s| s.name == name)
}

/// The keys of a section.
pub fn keys_of(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |k| k.section == section)
}

/// The key of this section and name.
pub fn find_key(section: &str, name: &str) -> Option<&'static Key> {
    keys_of(section).find(|k| k.name == name)
}

/// The word nearest to `name`, if one is near enough to have been meant.
pub fn nearest<'a>(name: &str, words: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    words.map(|w| (distance(name, w), w)).min().filter(|(d, _)| *d * 3 <= name.chars().count().max(3)).map(|(_, w)| w)
}

/// Levenshtein's distance. Names longer than 64 characters are not compared: no key is.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    if a.len() > 64 {
        return usize::MAX / 4;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        let mut left = i + 1;
        for ((cb, diagonal), above) in b.iter().zip(&row).zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(ca != *cb)).min(above + 1).min(left + 1);
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

/// The documentation of all keys: the tables of `docs/configuration.md`, which a test compares with it.
pub fn reference() -> String {
    let mut out = String::new();
    for section in SECTIONS {
        let brackets = if section.repeated { ("[[", "]]") } else { ("[", "]") };
        out += &format!("## `{}{}{}`\n\n{}\n\n", brackets.0, section.name, brackets.1, section.meaning);
        out += "| key | type or limits | default | unit | meaning |\n|---|---|---|---|---|\n";
        for key in keys_of(section.name) {
            let default = match key.absent {
                Absent::Value(text) => format!("`{text}`"),
                _ => key.absent_text().to_owned(),
            };
            out += &format!("| `{}` | {} | {default} | {} | {} |\n", key.name, key.kind_text(), key.unit, key.meaning);
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_stands_in_a_section_and_once() {
        for (i, k) in KEYS.iter().enumerate() {
            assert!(find_section(k.section).is_some(), "{}", k.section);
            assert!(!KEYS[..i].iter().any(|o| o.section == k.section && o.name == k.name), "{}.{}", k.section, k.name);
        }
    }

    #[test]
    fn numbers_say_their_unit() {
        for k in KEYS {
            if k.name.ends_with("_ms") || k.name.contains("_ms_") {
                assert_eq!(k.unit, "ms", "{}.{}", k.section, k.name);
            }
            if k.name.contains("_bytes") {
                assert_eq!(k.unit, "bytes", "{}.{}", k.section, k.name);
            }
        }
    }

    #[test]
    fn a_typo_finds_its_word() {
        assert_eq!(nearest("idle_timout_ms", keys_of("pool").map(|k| k.name)), Some("idle_timeout_ms"));
        assert_eq!(nearest("colour", keys_of("pool").map(|k| k.name)), None);
        assert_eq!(nearest("", keys_of("pool").map(|k| k.name)), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
