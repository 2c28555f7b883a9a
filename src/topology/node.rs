//! One node as the rest of belay sees it: its identity, its state and why, and what sessions must know of it.

use std::fmt;
use std::sync::Arc;

use crate::protocol::mysql::flavor::Flavor;
use crate::topology::collations::NodeCharsets;
use crate::topology::variables::TrackedVariables;

/// A node: its index in the order of the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

impl NodeId {
    /// The index as the type that slices want.
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// What a node can be used for now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum NodeState {
    /// No probe has ended yet.
    #[default]
    Unknown,
    /// It cannot be reached, or it is silent.
    Down {
        /// What was seen, for people.
        why: Arc<str>,
    },
    /// It answers, but must not be given statements (joining, not in the primary component, refusing queries, …).
    NotReady {
        /// What was seen, for people.
        why: Arc<str>,
    },
    /// It serves reads and refuses writes.
    ReadOnly {
        /// What was seen, for people.
        why: Arc<str>,
    },
    /// It serves reads and writes.
    Serving,
}

impl NodeState {
    /// A node that is down for this reason.
    pub fn down(why: impl Into<Arc<str>>) -> NodeState {
        NodeState::Down { why: why.into() }
    }

    /// A node that is not ready for this reason.
    pub fn not_ready(why: impl Into<Arc<str>>) -> NodeState {
        NodeState::NotReady { why: why.into() }
    }

    /// A node that is read-only for this reason.
    pub fn read_only(why: impl Into<Arc<str>>) -> NodeState {
        NodeState::ReadOnly { why: why.into() }
    }

    /// The metric label of this state.
    pub const fn label(&self) -> &'static str {
        match self {
            NodeState::Unknown => "unknown",
            NodeState::Down { .. } => "down",
            NodeState::NotReady { .. } => "not_ready",
            NodeState::ReadOnly { .. } => "read_only",
            NodeState::Serving => "serving",
        }
    }

    /// All labels that [`NodeState::label`] can give.
    pub const LABELS: [&'static str; 5] = ["unknown", "down", "not_ready", "read_only", "serving"];

    /// Why it is in this state; empty where there is nothing to explain.
    pub fn why(&self) -> &str {
        match self {
            NodeState::Unknown => "not probed yet",
            NodeState::Down { why } | NodeState::NotReady { why } | NodeState::ReadOnly { why } => why,
            NodeState::Serving => "",
        }
    }

    /// Whether it may be given reads.
    pub const fn can_read(&self) -> bool {
        matches!(self, NodeState::ReadOnly { .. } | NodeState::Serving)
    }

    /// Whether it may be given writes.
    pub const fn can_write(&self) -> bool {
        matches!(self, NodeState::Serving)
    }
}

/// What the cluster has a node for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Not known, or not usable now.
    #[default]
    None,
    /// The one node that writes go to.
    Writer,
    /// Takes reads only; in Galera also a node that could write but was not chosen.
    Reader,
}

/// One node in a [`ClusterSnapshot`](crate::topology::ClusterSnapshot).
#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    /// Index in the order of the configuration.
    pub id: NodeId,
    /// The configured name, or the address.
    pub name: Arc<str>,
    /// The configured address: `host:port`, or `unix:/path`.
    pub address: Arc<str>,
    /// What it can be used for now.
    pub state: NodeState,
    /// What the cluster has it for.
    pub role: Role,
    /// `@@version`; empty until it has answered once.
    pub server_version: Arc<str>,
    /// Its family.
    pub flavor: Flavor,
    /// When its server process started: seconds of the Unix epoch on belay's clock, now minus its own `Uptime`.
    /// A change by more than two seconds means that it was restarted. Zero until it has answered once.
    pub started_at_s: i64,
    /// Changes when SET GLOBAL changes a variable that new sessions start with. Zero until it was read.
    pub globals_fingerprint: u64,
    /// The session variables whose changes follow a client. Empty until they were read.
    pub tracked_variables: Arc<TrackedVariables>,
    /// Its collations, and what logins get that name none of them.
    pub charsets: Arc<NodeCharsets>,
}
