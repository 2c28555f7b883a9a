//! Who is the writer: a pure choice that several belays in front of one cluster make alike.
//!
//! The order of succession:
//! 1. the present writer, while it can write (a node that comes back never takes the role back by itself);
//! 2. where read-only flags say who is the primary: the only node with `read_only=OFF`; two of them are a split brain, and
//!    nobody is chosen unless the present writer is one of them;
//! 3. in Galera, and with one server: the node that has run longest, by its own `Uptime`. Nodes that started within
//!    [`STARTS_EQUAL_S`] of the longest-running one count as equal, and of those the first in the configuration is taken.
//!    So a node that was restarted goes to the end of the line.

use crate::topology::kind::ClusterKind;
use crate::topology::node::NodeId;

/// Starts within this many seconds of the earliest one count as equal: `Uptime` counts whole seconds, and probes take time.
pub const STARTS_EQUAL_S: i64 = 5;

/// A node that can write now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The node.
    pub id: NodeId,
    /// When its server process started, seconds of the Unix epoch.
    pub started_at_s: i64,
}

/// The choice, and the reason for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterChoice {
    /// The writer, or nobody.
    pub writer: Option<NodeId>,
    /// One sentence.
    pub why: String,
    /// Several nodes claim to be the one primary: somebody must look at it.
    pub split_brain: bool,
}

/// Chooses among the nodes that can write now (in any order).
pub fn choose(present: Option<NodeId>, kind: ClusterKind, candidates: &[Candidate]) -> WriterChoice {
    let one_primary = kind == ClusterKind::ReadOnlyFlag;
    let split_brain = one_primary && candidates.len() > 1;
    if let Some(id) = present.filter(|id| candidates.iter().any(|c| c.id == *id)) {
        let why = if split_brain {
            format!("kept, but {} nodes have read_only=OFF: split brain?", candidates.len())
        } else {
            "kept: it serves".to_owned()
        };
        return WriterChoice { writer: Some(id), why, split_brain };
    }
    if split_brain {
        let why =
            format!("{} nodes have read_only=OFF and none of them was the writer: split brain?", candidates.len());
        return WriterChoice { writer: None, why, split_brain };
    }
    let Some(earliest) = candidates.iter().map(|c| c.started_at_s).min() else {
        return WriterChoice { writer: None, why: "no node can write".to_owned(), split_brain };
    };
    let first =
        candidates.iter().filter(|c| c.started_at_s.saturating_sub(earliest) <= STARTS_EQUAL_S).map(|c| c.id).min();
    let why = match candidates.len() {
        1 => "the only node that can write",
        _ => "the longest-running node that can write; the configuration's order decides between equals",
    };
    WriterChoice { writer: first, why: why.to_owned(), split_brain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn c(id: u16, started_at_s: i64) -> Candidate {
        Candidate { id: NodeId(id), started_at_s }
    }

    #[test]
    fn succession() {
        let choose =
            |present: Option<u16>, kind, candidates: &[Candidate]| choose(present.map(NodeId), kind, candidates).writer;
        let galera = ClusterKind::Galera;
        assert_eq!(choose(None, galera, &[c(0, 104), c(1, 100), c(2, 105)]), Some(NodeId(0)));
        assert_eq!(choose(None, galera, &[c(0, 106), c(1, 100), c(2, 105)]), Some(NodeId(1)));
        assert_eq!(choose(Some(2), galera, &[c(0, 1), c(1, 1), c(2, 500)]), Some(NodeId(2)));
        assert_eq!(choose(Some(2), galera, &[c(0, 1), c(1, 1)]), Some(NodeId(0)));
        assert_eq!(choose(Some(2), galera, &[]), None);
        let flag = ClusterKind::ReadOnlyFlag;
        assert_eq!(choose(Some(0), flag, &[c(1, 9)]), Some(NodeId(1)));
        assert_eq!(choose(Some(0), flag, &[c(0, 9), c(1, 9)]), Some(NodeId(0)));
        assert_eq!(choose(Some(2), flag, &[c(0, 9), c(1, 9)]), None);
        assert_eq!(choose(None, flag, &[c(0, 9), c(1, 9)]), None);
    }

    proptest! {
        #[test]
        fn belays_agree_and_never_invent(
            starts in proptest::collection::vec(0i64..40, 0..6),
            present in proptest::option::of(0u16..6),
            galera in any::<bool>(),
            skew in -1000i64..1000,
        ) {
            let kind = if galera { ClusterKind::Galera } else { ClusterKind::ReadOnlyFlag };
            let nodes: Vec<Candidate> = starts.iter().enumerate().map(|(i, s)| c(i as u16, *s)).collect();
            let choice = choose(present.map(NodeId), kind, &nodes);
            // Neither the order of observation nor the clock of another belay's machine matters.
            let other: Vec<Candidate> = nodes.iter().rev().map(|n| c(n.id.0, n.started_at_s + skew)).collect();
            prop_assert_eq!(choose(present.map(NodeId), kind, &other).writer, choice.writer);
            if let Some(w) = choice.writer {
                prop_assert!(nodes.iter().any(|n| n.id == w));
            }
            // The present writer is kept while it serves.
            if let Some(p) = present.map(NodeId).filter(|p| nodes.iter().any(|n| n.id == *p)) {
                prop_assert_eq!(choice.writer, Some(p));
            }
            // A node that restarted just now is not taken while an older one lives.
            if let Some(w) = choice.writer.filter(|w| galera && Some(*w) != present.map(NodeId)) {
                let earliest = nodes.iter().map(|n| n.started_at_s).min().unwrap();
                prop_assert!(nodes[w.index()].started_at_s - earliest <= STARTS_EQUAL_S);
            }
        }
    }
}
