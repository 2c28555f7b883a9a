//! What belay knows of the cluster: a snapshot of every node's state, and which of them is the writer.
//!
//! Pure: observations come in as values (`monitor` makes them), snapshots come out. One detector a kind of cluster.

pub mod address;
pub mod causal;
pub mod collations;
pub mod facts;
pub mod galera;
pub mod health;
pub mod kind;
pub mod lag;
pub mod node;
pub mod oceanbase;
pub mod position;
pub mod read_only;
pub mod snapshot;
pub mod variables;
pub mod writer;

pub use causal::{Need, Sample, Seen, Written};
pub use collations::NodeCharsets;
pub use facts::NodeFacts;
pub use health::{HealthLimits, NodeHealth, Observation, ProbeFailure};
pub use kind::ClusterKind;
pub use lag::LagTracker;
pub use node::{NodeId, NodeState, NodeView, Role};
pub use position::Position;
pub use snapshot::{ClusterSnapshot, NodeReport};
pub use variables::TrackedVariables;
