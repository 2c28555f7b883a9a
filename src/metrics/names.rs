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
    ($($constant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
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
    CLIENT_CONNECTIONS = "belay_client_connections", Gauge, ["state"], "Client connections by state: login, idle, transaction, active.";
    CLIENT_CONNECTIONS_TOTAL = "belay_client_connections_total", Counter, [], "Client connections accepted.";
    CLIENT_REFUSED_TOTAL = "belay_client_refused_total", Counter, ["why"], "Clients turned away before they had a session.";
    SERVER_CONNECTIONS = "belay_server_connections", Gauge, ["node", "state"], "Server sessions by state: idle, leased, pinned, cleaning.";
    SERVER_DIALS_TOTAL = "belay_server_dials_total", Counter, ["node", "result"], "Attempts to open a server session.";
    STATEMENTS_TOTAL = "belay_statements_total", Counter, ["class"], "Statements of clients by class.";
    ERRORS_TOTAL = "belay_errors_total", Counter, ["side", "stage"], "Errors by the side that caused them and the stage they happened in.";
    ADDED_TIME_SECONDS = "belay_added_time_seconds", Histogram, [], "Time that belay added to a statement: from its last byte in to the first byte out to the node, plus the same on the way back.";
    POOL_WAIT_SECONDS = "belay_pool_wait_seconds", Histogram, [], "Time that statements waited for a server session.";
    POOL_WAITERS = "belay_pool_waiters", Gauge, ["node"], "Statements that wait for a server session now.";
    BINDS_TOTAL = "belay_binds_total", Counter, ["kind"], "Server sessions given to clients: same (nothing to do), equal state, replayed, fresh.";
    REPLAY_ITEMS_TOTAL = "belay_replay_items_total", Counter, ["what"], "What was replayed at rebinds.";
    PINS_TOTAL = "belay_pins_total", Counter, ["reason"], "Pins taken.";
    PINNED = "belay_pinned", Gauge, ["reason"], "Pins held now.";
    PIN_SECONDS_TOTAL = "belay_pin_seconds_total", Counter, ["reason"], "Seconds that ended pins lasted (whole seconds, rounded up).";
    NODE_STATE = "belay_node_state", Gauge, ["node", "state"], "1 for the state a node is in, 0 for the others.";
    NODE_WRITER = "belay_node_writer", Gauge, ["node"], "1 for the writer.";
    SPLIT_BRAIN = "belay_split_brain", Gauge, [], "1 while several nodes claim to be the one primary.";
    WRITER_CHANGES_TOTAL = "belay_writer_changes_total", Counter, [], "Times that the writer changed, to another node or to none.";
    PROBES_TOTAL = "belay_probes_total", Counter, ["node", "result"], "Probes of nodes by how they ended.";
    PROBE_SECONDS = "belay_probe_seconds", Histogram, ["node"], "How long probes took, connecting included.";
    ACCOUNTS = "belay_accounts", Gauge, [], "Accounts read from the servers.";
    ACCOUNTS_READABLE = "belay_accounts_readable", Gauge, [], "1 if the monitor account can read the accounts; 0: logins are proven against a node.";
    HOLDS = "belay_holds", Gauge, [], "Statements that wait for a node now.";
    HOLDS_TOTAL = "belay_holds_total", Counter, [], "Statements that had to wait for a node.";
    KILLS_TOTAL = "belay_kills_total", Counter, ["result"], "KILL statements that belay sent.";
    MASKED_TOTAL = "belay_masked_total", Counter, ["what"], "Failures that clients were spared.";
    BUILD_INFO = "belay_build_info", Gauge, ["version"], "Always 1.";
    RESIDENT_BYTES = "belay_resident_bytes", Gauge, [], "Memory of the process that is resident, in bytes.";
}
