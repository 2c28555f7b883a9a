//! Every metric of belay: its name with its unit, its labels, and what it says. `docs/metrics.md` lists the same.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only counts up.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations in buckets.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, one line.
    pub help: &'static str,
}

macro_rules! names {
    ($(pub const $constant:ident: &str = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(
            #[doc = $help]
            pub const $constant: &str = $name;
        )*

        /// All of them.
        pub const ALL: &[Description] = &[
            $(Description { name: $constant, kind: Kind::$kind, labels: &[$($label),*], help: $help },)*
        ];
    };
}

names! {
    pub const CLIENT_CONNECTIONS: &str = "belay_client_connections", Gauge, ["state"], "Client connections by state: login, idle, transaction, active.";
    pub const CLIENT_CONNECTIONS_TOTAL: &str = "belay_client_connections_total", Counter, [], "Client connections accepted.";
    pub const CLIENT_REFUSED_TOTAL: &str = "belay_client_refused_total", Counter, ["why"], "Clients turned away before they had a session.";
    pub const SERVER_CONNECTIONS: &str = "belay_server_connections", Gauge, ["node", "state"], "Server sessions by state: idle, leased, pinned, cleaning.";
    pub const SERVER_DIALS_TOTAL: &str = "belay_server_dials_total", Counter, ["node", "result"], "Attempts to open a server session.";
    pub const STATEMENTS_TOTAL: &str = "belay_statements_total", Counter, ["class"], "Statements of clients by class.";
    pub const ERRORS_TOTAL: &str = "belay_errors_total", Counter, ["side", "stage"], "Errors by the side that caused them and the stage they happened in.";
    pub const ADDED_TIME_SECONDS: &str = "belay_added_time_seconds", Histogram, [], "Time that belay added to a statement: from its last byte in to the first byte out to the node, plus the same on the way back.";
    pub const POOL_WAIT_SECONDS: &str = "belay_pool_wait_seconds", Histogram, [], "Time that statements waited for a server session.";
    pub const POOL_WAITERS: &str = "belay_pool_waiters", Gauge, ["node"], "Statements that wait for a server session now.";
    pub const BINDS_TOTAL: &str = "belay_binds_total", Counter, ["kind"], "Server sessions given to clients: same (nothing to do), equal state, replayed, fresh.";
    pub const ROUTES_TOTAL: &str = "belay_routes_total", Counter, ["to", "rule", "why"], "Statements that were given a node while rules are in force: what the node serves them as, by which rule, and why.";
    pub const REPLAY_ITEMS_TOTAL: &str = "belay_replay_items_total", Counter, ["what"], "What was replayed at rebinds.";
    pub const PINS_TOTAL: &str = "belay_pins_total", Counter, ["reason"], "Pins taken.";
    pub const PINNED: &str = "belay_pinned", Gauge, ["reason"], "Pins held now.";
    pub const PIN_SECONDS_TOTAL: &str = "belay_pin_seconds_total", Counter, ["reason"], "Seconds that ended pins lasted (whole seconds, rounded up).";
    pub const NODE_STATE: &str = "belay_node_state", Gauge, ["node", "state"], "1 for the state a node is in, 0 for the others.";
    pub const NODE_WRITER: &str = "belay_node_writer", Gauge, ["node"], "1 for the writer.";
    pub const SPLIT_BRAIN: &str = "belay_split_brain", Gauge, [], "1 while several nodes claim to be the one primary.";
    pub const WRITER_CHANGES_TOTAL: &str = "belay_writer_changes_total", Counter, [], "Times that the writer changed, to another node or to none.";
    pub const PROBES_TOTAL: &str = "belay_probes_total", Counter, ["node", "result"], "Probes of nodes by how they ended.";
    pub const PROBE_SECONDS: &str = "belay_probe_seconds", Histogram, ["node"], "How long probes took, connecting included.";
    pub const ACCOUNTS: &str = "belay_accounts", Gauge, [], "Accounts read from the servers.";
    pub const ACCOUNTS_READABLE: &str = "belay_accounts_readable", Gauge, [], "1 if the monitor account can read the accounts; 0: logins are proven against a node.";
    pub const HOLDS: &str = "belay_holds", Gauge, [], "Statements that wait for a node now.";
    pub const HOLDS_TOTAL: &str = "belay_holds_total", Counter, [], "Statements that had to wait for a node.";
    pub const KILLS_TOTAL: &str = "belay_kills_total", Counter, ["result"], "KILL statements that belay sent.";
    pub const MASKED_TOTAL: &str = "belay_masked_total", Counter, ["what"], "Failures that clients were spared.";
    pub const BUILD_INFO: &str = "belay_build_info", Gauge, ["version"], "Always 1.";
    pub const RESIDENT_BYTES: &str = "belay_resident_bytes", Gauge, [], "Memory of the process that is resident, in bytes.";
}
