//! The configuration: typed, with a default for every key that can have one. Unknown keys are errors.
//!
//! [`load()`] reads a file, lays the environment over it ([`document`]), compares it with the table of all keys
//! ([`schema`]), fetches secrets, checks what belongs together, and reports every fault at once ([`fault`]).

pub mod address;
mod check;
pub mod document;
pub mod fault;
pub mod files;
mod load;
pub mod schema;
pub mod secret;
pub mod template;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Deserialize;

pub use document::Environment;
pub use fault::{Fault, Faults, Place};
pub use files::read_rules;
pub use load::{environment, from_text, load};
pub use secret::Secret;

/// The whole configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Identity of this belay among several in front of one cluster.
    #[serde(default)]
    pub instance: InstanceConfig,
    /// Where clients connect.
    pub listen: ListenConfig,
    /// Where Prometheus and people connect.
    pub admin: AdminConfig,
    /// What belay knows of the cluster as a whole.
    #[serde(default)]
    pub cluster: ClusterConfig,
    /// The nodes, in order of succession where the cluster's own facts do not decide.
    #[serde(rename = "node")]
    pub nodes: Vec<NodeConfig>,
    /// TLS towards the nodes.
    #[serde(default)]
    pub node_tls: NodeTlsConfig,
    /// The account that watches the nodes.
    pub monitor: MonitorConfig,
    /// Which statements go where.
    #[serde(default)]
    pub router: RouterConfig,
    /// Server sessions.
    #[serde(default)]
    pub pool: PoolConfig,
    /// What a client session may do and keep.
    #[serde(default)]
    pub session: SessionConfig,
    /// Accounts that can be neither read from the servers nor proven against them.
    #[serde(default, rename = "account")]
    pub accounts: Vec<AccountConfig>,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// Threads.
    #[serde(default)]
    pub runtime: RuntimeConfig,
}

impl Config {
    /// Every path in it.
    fn paths_mut(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let (listen_tls, node_tls) = (&mut self.listen.tls, &mut self.node_tls);
        let single = [
            &mut listen_tls.certificate_file,
            &mut listen_tls.key_file,
            &mut listen_tls.rsa_key_file,
            &mut listen_tls.state_dir,
            &mut node_tls.ca_file,
            &mut node_tls.certificate_file,
            &mut node_tls.key_file,
            &mut self.admin.token_file,
            &mut self.monitor.password_file,
        ];
        let of_accounts = self.accounts.iter_mut().map(|a| &mut a.password_file);
        let lists = self.listen.unix_sockets.iter_mut().chain(self.router.rules.iter_mut());
        single.into_iter().chain(of_accounts).flatten().chain(lists)
    }
}

/// `[instance]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InstanceConfig {
    /// 0 to 255; the upper 8 bits of every connection id this belay hands out.
    pub id: u8,
}

/// `[listen]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListenConfig {
    /// TCP addresses, `host:port`.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Paths of unix sockets.
    #[serde(default)]
    pub unix_sockets: Vec<PathBuf>,
    /// Clients beyond this number get error 1040.
    #[serde(default = "defaults::client_connections_max")]
    pub client_connections_max: usize,
    /// Connections that have not logged in yet; beyond this number new ones are closed.
    #[serde(default = "defaults::logins_max")]
    pub logins_max: usize,
    /// A login that takes longer is ended.
    #[serde(default = "defaults::login_timeout_ms")]
    pub login_timeout_ms: u64,
    /// The longest packet a client may send before it is logged in.
    #[serde(default = "defaults::login_packet_bytes_max")]
    pub login_packet_bytes_max: usize,
    /// TLS towards clients.
    #[serde(default)]
    pub tls: ListenTlsConfig,
}

/// `[listen.tls]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenTlsConfig {
    /// Whether clients may or must use TLS.
    pub mode: ListenTlsMode,
    /// PEM certificate chain; made at first start in `state_dir` if not given.
    pub certificate_file: Option<PathBuf>,
    /// PEM private key of the certificate.
    pub key_file: Option<PathBuf>,
    /// PEM RSA private key for caching_sha2_password without TLS; made at first start in `state_dir` if not given.
    pub rsa_key_file: Option<PathBuf>,
    /// Where made keys are kept (mode 0600). Without it they live in memory and change at every start.
    pub state_dir: Option<PathBuf>,
}

/// Whether clients may or must use TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenTlsMode {
    /// TLS is not offered.
    Off,
    /// TLS is offered.
    #[default]
    Preferred,
    /// A login without TLS (other than over a unix socket) is refused.
    Required,
}

/// `[admin]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// `host:port` of the HTTP server with /metrics, /healthz, /readyz and /sessions.
    pub address: String,
    /// Bearer token for /sessions; from this text, `token_file` or `token_env`. Without one /sessions is off.
    #[serde(default)]
    pub token: Option<Secret>,
    /// File that holds the token.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Environment variable that holds the token.
    #[serde(default)]
    pub token_env: Option<String>,
    /// Simultaneous HTTP connections.
    #[serde(default = "defaults::admin_connections_max")]
    pub connections_max: usize,
}

/// `[cluster]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Version shown in the greeting until a node has answered.
    pub server_version: String,
    /// How long a statement that was not sent waits for a node.
    pub hold_timeout_ms: u64,
    /// Statements that wait so at one time; beyond this number they fail at once.
    pub holds_max: usize,
    /// How long a statement waits for a node to apply what its session has seen.
    pub causal_wait_ms: u64,
    /// How often a read that was lost with its node is run again.
    pub reads_again_max: u32,
}

impl Default for ClusterConfig {
    fn default() -> ClusterConfig {
        ClusterConfig {
            server_version: "8.0.40-belay".into(),
            hold_timeout_ms: 10_000,
            holds_max: 10_000,
            causal_wait_ms: 8_000,
            reads_again_max: 5,
        }
    }
}

/// `[[node]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeConfig {
    /// A name for logs and metrics; the address if absent.
    #[serde(default)]
    pub name: Option<String>,
    /// `host:port`, or `unix:/path`.
    pub address: String,
}

/// `[node_tls]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeTlsConfig {
    /// How much TLS towards the nodes.
    pub mode: NodeTlsMode,
    /// PEM certificates of the authorities that sign the nodes' certificates.
    pub ca_file: Option<PathBuf>,
    /// PEM client certificate chain.
    pub certificate_file: Option<PathBuf>,
    /// PEM key of the client certificate.
    pub key_file: Option<PathBuf>,
}

/// How much TLS towards the nodes; MySQL's own words for ssl-mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeTlsMode {
    /// Never.
    Off,
    /// If the node offers it; its certificate is not checked.
    #[default]
    Preferred,
    /// Always; its certificate is not checked.
    Required,
    /// Always; its certificate must come from `ca_file`.
    VerifyCa,
    /// The same, and the name in it must be the node's.
    VerifyFull,
}

/// `[monitor]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MonitorConfig {
    /// The account that watches the nodes (grants: `belay init` prints them).
    pub user: String,
    /// Its password; from this text, `password_file` or `password_env`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// File that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
    /// Between two probes of a node.
    #[serde(default = "defaults::interval_ms")]
    pub interval_ms: u64,
    /// A probe without an answer for this long counts as failed.
    #[serde(default = "defaults::probe_timeout_ms")]
    pub probe_timeout_ms: u64,
    /// Between two readings of the accounts: a password changed on the servers stops working here within this time.
    #[serde(default = "defaults::accounts_interval_ms")]
    pub accounts_interval_ms: u64,
    /// Accounts read from the servers at the most.
    #[serde(default = "defaults::accounts_max")]
    pub accounts_max: usize,
}

/// `[router]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RouterConfig {
    /// The files of rules, one after the other; none: every statement goes to the writer.
    pub rules: Vec<PathBuf>,
    /// A node that is not known to have all that the writer had this long ago is given no reads.
    pub lag_max_ms: u64,
}

impl Default for RouterConfig {
    fn default() -> RouterConfig {
        RouterConfig { rules: Vec::new(), lag_max_ms: 5_000 }
    }
}

/// `[pool]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Server sessions per node and account, over all threads.
    pub server_connections_max: usize,
    /// Kept open and logged in per node and account, once the account has been used.
    pub server_connections_min: usize,
    /// Of `server_connections_max`, how many may be pinned at one time; 0 means all but one.
    pub pinned_max: usize,
    /// A statement waits this long for a server session.
    pub acquire_timeout_ms: u64,
    /// Clients waiting per node and account.
    pub waiters_max: usize,
    /// How often the first in the queue may be passed over by one whose state fits a free server session better.
    pub passed_over_max: u32,
    /// An idle server session beyond the minimum is closed after this time.
    pub idle_timeout_ms: u64,
    /// A server session is closed after this age, when it is free.
    pub age_max_ms: u64,
    /// One that idled longer than this is checked with a ping before use.
    pub check_after_idle_ms: u64,
    /// Connecting and logging in to a node.
    pub dial_timeout_ms: u64,
    /// Server sessions that are being opened per node at one time.
    pub dials_max: usize,
    /// Prepared statements kept per server session.
    pub prepared_statements_max: usize,
}

impl Default for PoolConfig {
    fn default() -> PoolConfig {
        PoolConfig {
            server_connections_max: 64,
            server_connections_min: 0,
            pinned_max: 0,
            acquire_timeout_ms: 10_000,
            waiters_max: 10_000,
            passed_over_max: 16,
            idle_timeout_ms: 60_000,
            age_max_ms: 3_600_000,
            check_after_idle_ms: 5_000,
            dial_timeout_ms: 3_000,
            dials_max: 16,
            prepared_statements_max: 512,
        }
    }
}

/// `[session]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionConfig {
    /// Keep (encrypted, in memory) the password a caching_sha2 login reveals, to open further server sessions with it.
    /// Off: such a client is pinned to its one server session.
    pub record_passwords: bool,
    /// The longest packet a logged-in client may send.
    pub packet_bytes_max: usize,
    /// Prepared statements of one client.
    pub prepared_statements_max: usize,
    /// Bytes of text and metadata of all of them.
    pub prepared_bytes_max: usize,
    /// User variables of one client that follow it.
    pub user_variables_max: usize,
    /// Bytes of the values of all of them.
    pub user_variables_bytes_max: usize,
    /// A client idle for longer is closed, in or out of a transaction; 0 means the servers' own wait_timeout.
    pub idle_timeout_ms: u64,
    /// How long warnings and errors of the last statement keep its server session for SHOW WARNINGS, if nobody waits for one.
    pub diagnostics_pin_ms: u64,
    /// Bytes of the messages of its last statement that are copied for one client.
    pub diagnostics_bytes_max: usize,
    /// Killing what runs for a client that vanished, and rolling back, may take this long; then the server session is closed.
    pub cleanup_timeout_ms: u64,
    /// A client that does not read its answer, or stops in the middle of a request, for this long is closed.
    pub client_write_timeout_ms: u64,
    /// Time that open transactions get after SIGTERM.
    pub drain_timeout_ms: u64,
}

impl Default for SessionConfig {
    fn default() -> SessionConfig {
        SessionConfig {
            record_passwords: true,
            packet_bytes_max: 1 << 30,
            prepared_statements_max: 16_382,
            prepared_bytes_max: 64 << 20,
            user_variables_max: 64,
            user_variables_bytes_max: 65_536,
            idle_timeout_ms: 0,
            diagnostics_pin_ms: 1_000,
            diagnostics_bytes_max: 262_144,
            cleanup_timeout_ms: 10_000,
            client_write_timeout_ms: 600_000,
            drain_timeout_ms: 30_000,
        }
    }
}

/// `[[account]]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountConfig {
    /// User name.
    pub user: String,
    /// Host pattern as in CREATE USER.
    #[serde(default = "defaults::any_host")]
    pub host: String,
    /// Password; from this text, `password_file` or `password_env`.
    #[serde(default)]
    pub password: Option<Secret>,
    /// File that holds the password.
    #[serde(default)]
    pub password_file: Option<PathBuf>,
    /// Environment variable that holds the password.
    #[serde(default)]
    pub password_env: Option<String>,
}

/// `[log]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogConfig {
    /// `text` or `json`.
    pub format: LogFormat,
    /// The least severe level that is written.
    pub level: LogLevel,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Severity of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// Only what needs a person.
    Error,
    /// And what may need one.
    Warn,
    /// And what changed.
    #[default]
    Info,
    /// And each decision.
    Debug,
    /// And each packet's kind.
    Trace,
}

/// `[runtime]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Worker threads; 0 means one per core, or one alone where there are at most two cores.
    pub threads: usize,
}

mod defaults {
    pub fn client_connections_max() -> usize {
        10_000
    }
    pub fn logins_max() -> usize {
        1_000
    }
    pub fn login_timeout_ms() -> u64 {
        10_000
    }
    pub fn login_packet_bytes_max() -> usize {
        64 * 1024
    }
    pub fn admin_connections_max() -> usize {
        64
    }
    pub fn interval_ms() -> u64 {
        500
    }
    pub fn probe_timeout_ms() -> u64 {
        1_500
    }
    pub fn accounts_interval_ms() -> u64 {
        2_000
    }
    pub fn accounts_max() -> usize {
        100_000
    }
    pub fn any_host() -> String {
        "%".into()
    }
}
