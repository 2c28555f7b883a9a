//! The kinds of clusters.

/// How the nodes of the cluster belong together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClusterKind {
    /// No node has answered yet.
    #[default]
    Unknown,
    /// One server.
    Single,
    /// Galera: every node that is synced in the primary component can write.
    Galera,
    /// Replication of any kind: `read_only` says who is the primary.
    ReadOnlyFlag,
}

impl ClusterKind {
    /// The word for logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            ClusterKind::Unknown => "unknown",
            ClusterKind::Single => "single",
            ClusterKind::Galera => "galera",
            ClusterKind::ReadOnlyFlag => "read_only_flag",
        }
    }
}
