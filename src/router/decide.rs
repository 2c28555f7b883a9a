//! Where a statement goes that needs a server session: a pure function of its kind, the session, the rules and the cluster, with the reason.

use crate::topology::{ClusterKind, ClusterSnapshot, NodeId, NodeState, NodeView, Role};

use super::balance;
use super::compile::RuleSet;
use super::reason::{Against, Why};
use super::rules::{Destination, StatementKind};

/// Which role serves a statement, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// This reader.
    Reader {
        /// The node.
        node: NodeId,
        /// Why.
        why: Why,
    },
    /// The writer: [`decide()`] says which node that is.
    Writer {
        /// Why.
        why: Why,
    },
}

/// Where the writer is.
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

/// What a decision needs to know of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Its connection id.
    pub connection: u32,
    /// The reader that served it last.
    pub last_reader: Option<NodeId>,
    /// What keeps its statements on the writer, whatever rules say; `None`: nothing does.
    pub keeps_to_writer: Option<Against>,
}

/// What a decision needs to know of the nodes.
#[derive(Clone, Copy)]
pub struct ClusterView<'a> {
    /// The cluster.
    pub snapshot: &'a ClusterSnapshot,
    /// Whether a node is known to follow the writer closely enough.
    pub near: &'a dyn Fn(NodeId) -> bool,
    /// Nodes that have just failed this session and that the monitor has not judged since.
    pub avoid: &'a [NodeId],
}

/// The role that a new binding is for.
pub fn choose(kind: StatementKind, session: &SessionView, rules: &RuleSet, cluster: &ClusterView<'_>) -> Choice {
    let target = rules.target(kind);
    match (target.to, target.rule) {
        (Destination::Readers, Some(rule)) => match reader(session, cluster) {
            Ok(node) => Choice::Reader { node, why: Why::Rule(rule) },
            Err(against) => Choice::Writer { why: Why::NotByRule(rule, against) },
        },
        (_, Some(rule)) => Choice::Writer { why: Why::Rule(rule) },
        (_, None) => Choice::Writer { why: Why::Word("the writer") },
    }
}

/// The node that serves as writer. `avoid` is a node that has just failed this session and that the monitor has not judged since.
pub fn decide(snapshot: &ClusterSnapshot, avoid: Option<NodeId>) -> Route {
    match snapshot.writer {
        Some(node) if Some(node) == avoid => {
            Route::Hold { why: "the writer failed a moment ago and was not probed since" }
        }
        Some(node) => Route::Node { node, why: "the writer" },
        None => Route::Hold { why: "no node serves writes" },
    }
}

fn reader(session: &SessionView, cluster: &ClusterView<'_>) -> Result<NodeId, Against> {
    if let Some(why) = session.keeps_to_writer {
        return Err(why);
    }
    let serving = cluster.snapshot.nodes.iter().filter(|node| is_reader(cluster.snapshot, node)).map(|node| node.id);
    let usable = serving.filter(|node| !cluster.avoid.contains(node) && (cluster.near)(*node));
    balance::choose(session.connection, session.last_reader, usable).ok_or(Against::NoReader)
}

/// Whether a node follows the writer and may be given reads.
fn is_reader(snapshot: &ClusterSnapshot, node: &NodeView) -> bool {
    if node.role != Role::Reader || snapshot.writer == Some(node.id) {
        return false;
    }
    match snapshot.kind {
        ClusterKind::Galera => node.state.can_read(),
        // A second node that takes writes follows nobody, and none of them is to be trusted then.
        ClusterKind::ReadOnlyFlag => !snapshot.split_brain && matches!(node.state, NodeState::ReadOnly { .. }),
        ClusterKind::Single | ClusterKind::Unknown => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITER: NodeId = NodeId(0);

    fn shipped() -> RuleSet {
        RuleSet::compile(&[include_str!("../../router-rules/read-scaling.toml")]).unwrap()
    }

    fn cluster(kind: ClusterKind) -> ClusterSnapshot {
        let mut snapshot = ClusterSnapshot::initial([("a", "h:1"), ("b", "h:2"), ("c", "h:3")], "8.0.40-belay");
        snapshot.kind = kind;
        snapshot.writer = Some(WRITER);
        for node in &mut snapshot.nodes {
            node.role = if node.id == WRITER { Role::Writer } else { Role::Reader };
            node.state = match kind {
                ClusterKind::ReadOnlyFlag if node.id != WRITER => NodeState::read_only("read_only=ON"),
                _ => NodeState::Serving,
            };
        }
        snapshot
    }

    fn session() -> SessionView {
        SessionView { connection: 7, last_reader: None, keeps_to_writer: None }
    }

    fn chosen(kind: StatementKind, rules: &RuleSet, snapshot: &ClusterSnapshot, avoid: &[NodeId]) -> Choice {
        choose(kind, &session(), rules, &ClusterView { snapshot, near: &|_| true, avoid })
    }

    fn reader_of(choice: Choice) -> Option<NodeId> {
        match choice {
            Choice::Reader { node, .. } => Some(node),
            Choice::Writer { .. } => None,
        }
    }

    #[test]
    fn without_rules_everything_goes_to_the_writer() {
        let snapshot = cluster(ClusterKind::Galera);
        for kind in StatementKind::ALL {
            let expected = Choice::Writer { why: Why::Word("the writer") };
            assert_eq!(chosen(kind, &RuleSet::none(), &snapshot, &[]), expected);
        }
        assert_eq!(decide(&snapshot, None), Route::Node { node: WRITER, why: "the writer" });
        assert!(matches!(decide(&snapshot, Some(WRITER)), Route::Hold { .. }));
        assert!(matches!(decide(&ClusterSnapshot { writer: None, ..snapshot }, None), Route::Hold { .. }));
    }

    #[test]
    fn a_reader_that_failed_gives_way_to_the_other_and_both_to_the_writer() {
        let (snapshot, rules) = (cluster(ClusterKind::Galera), shipped());
        let first = reader_of(chosen(StatementKind::Read, &rules, &snapshot, &[])).unwrap();
        let second = reader_of(chosen(StatementKind::Read, &rules, &snapshot, &[first])).unwrap();
        assert!(first != WRITER && second != WRITER && first != second);
        let last = chosen(StatementKind::Read, &rules, &snapshot, &[first, second]);
        assert!(matches!(last, Choice::Writer { why: Why::NotByRule(_, Against::NoReader) }));
        assert_eq!(reader_of(chosen(StatementKind::Write, &rules, &snapshot, &[])), None);
        // Reads go on while there is no writer.
        let lost = ClusterSnapshot { writer: None, ..snapshot };
        assert!(reader_of(chosen(StatementKind::Read, &rules, &lost, &[])).is_some());
    }

    #[test]
    fn in_replication_only_read_only_nodes_are_readers_and_none_in_a_split_brain() {
        let (mut snapshot, rules) = (cluster(ClusterKind::ReadOnlyFlag), shipped());
        snapshot.nodes[1].state = NodeState::Serving;
        assert_eq!(reader_of(chosen(StatementKind::Read, &rules, &snapshot, &[])), Some(NodeId(2)));
        snapshot.split_brain = true;
        assert_eq!(reader_of(chosen(StatementKind::Read, &rules, &snapshot, &[])), None);
        for kind in [ClusterKind::Single, ClusterKind::Unknown] {
            assert_eq!(reader_of(chosen(StatementKind::Read, &rules, &cluster(kind), &[])), None, "{kind:?}");
        }
    }

    proptest! {
        /// Whatever the rules, the session and the cluster are.
        #[test]
        fn a_reader_gets_nothing_but_reads_of_a_free_session(
            kind in proptest::sample::select(StatementKind::ALL.to_vec()),
            galera: bool,
            split_brain: bool,
            writer in proptest::option::of(0u16..3),
            states in proptest::collection::vec(0u8..4, 3),
            far in proptest::collection::vec(any::<bool>(), 3),
            avoid in proptest::collection::vec(0u16..3, 0..3),
            last in proptest::option::of(0u16..3),
            kept: bool,
            with_rules: bool,
        ) {
            let mut snapshot = cluster(if galera { ClusterKind::Galera } else { ClusterKind::ReadOnlyFlag });
            snapshot.split_brain = split_brain;
            snapshot.writer = writer.map(NodeId);
            for (node, state) in snapshot.nodes.iter_mut().zip(states) {
                node.state = match state {
                    0 => NodeState::Serving,
                    1 => NodeState::read_only("x"),
                    2 => NodeState::down("x"),
                    _ => NodeState::not_ready("x"),
                };
                node.role = match &node.state {
                    _ if snapshot.writer == Some(node.id) => Role::Writer,
                    state if state.can_read() => Role::Reader,
                    _ => Role::None,
                };
            }
            let avoid: Vec<NodeId> = avoid.into_iter().map(NodeId).collect();
            let view = SessionView {
                last_reader: last.map(NodeId),
                keeps_to_writer: kept.then_some(Against::Pinned),
                ..session()
            };
            let rules = if with_rules { shipped() } else { RuleSet::default() };
            let near = |node: NodeId| !far[node.index()];
            let choice = choose(kind, &view, &rules, &ClusterView { snapshot: &snapshot, near: &near, avoid: &avoid });
            if let Choice::Reader { node, .. } = choice {
                prop_assert!(kind.may_be_read_elsewhere() && !kept && with_rules);
                prop_assert!(!avoid.contains(&node) && Some(node) != snapshot.writer && near(node));
                let state = &snapshot.nodes[node.index()].state;
                prop_assert!(state.can_read());
                prop_assert!(galera || (!split_brain && !state.can_write()));
            }
        }
    }
}
