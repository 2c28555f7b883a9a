//! Where a statement goes: a pure function of the cluster snapshot, with its reason. Rules that spread reads come later and have their room here.

use crate::topology::{ClusterSnapshot, NodeId};

/// Where to, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this node.
    Node {
        /// The node.
        node: NodeId,
        /// Why.
        why: &'static str,
    },
    /// Nowhere now: hold the statement until a node serves.
    Hold {
        /// Why.
        why: &'static str,
    },
}

/// The node for a new binding. `avoid` is a node that has just failed this session and that the monitor has not judged since.
pub fn decide(snapshot: &ClusterSnapshot, avoid: Option<NodeId>) -> Route {
    match snapshot.writer {
        Some(node) if Some(node) == avoid => Route::Hold { why: "the writer failed a moment ago and was not probed since" },
        Some(node) => Route::Node { node, why: "the writer" },
        None => Route::Hold { why: "no node serves writes" },
    }
}
