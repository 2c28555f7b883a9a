//! What `/sessions` shows: client sessions as people want to see them. No secret, no value that a client has set.

use serde::Serialize;

/// One line of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionSummary {
    /// The client's connection id, as its greeting and CONNECTION_ID() give it.
    pub id: u32,
    /// The user name that the client gave.
    pub user: String,
    /// The account matched, `user@host`.
    pub account: String,
    /// The client's address, or `unix socket`.
    pub client_address: String,
    /// How long it has been connected, in milliseconds.
    pub connected_ms: u64,
    /// The present schema, if any.
    pub schema: Option<String>,
    /// `none`, `implicit` (autocommit is off), `active`, …
    pub transaction: String,
    /// The node it is bound to now.
    pub node: Option<String>,
    /// The thread id of the server session it is bound to now.
    pub server_thread_id: Option<u32>,
    /// What keeps it bound.
    pub pins: Vec<PinView>,
    /// Statements so far.
    pub statements: u64,
}

/// A pin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PinView {
    /// The reason, as in the metrics.
    pub reason: String,
    /// For how long, in milliseconds.
    pub held_ms: u64,
}

/// Everything about one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SessionDetail {
    /// What the list shows too.
    #[serde(flatten)]
    pub summary: SessionSummary,
    /// Names of the system variables that differ from a fresh login. Values may be secret.
    pub changed_variables: Vec<String>,
    /// Names of user variables that are set.
    pub user_variables: Vec<String>,
    /// Prepared statements of both protocols.
    pub prepared_statements: usize,
    /// The last decisions, newest first, at most [`DECISIONS_MAX`].
    pub decisions: Vec<DecisionView>,
}

/// How many decisions a session remembers.
pub const DECISIONS_MAX: usize = 16;

/// A decision that belay took for a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DecisionView {
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
    /// What was done: `bind`, `pin`, `release`, `refuse`, …
    pub what: String,
    /// Why.
    pub why: String,
}

/// Where `/sessions` finds them.
pub trait SessionDirectory: Send + Sync {
    /// At most `limit` sessions, in any order.
    fn list(&self, limit: usize) -> Vec<SessionSummary>;
    /// One session.
    fn get(&self, id: u32) -> Option<SessionDetail>;
}
