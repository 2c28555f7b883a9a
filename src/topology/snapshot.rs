//! The cluster at one moment: immutable, numbered, replaced as a whole.

use std::sync::Arc;

use crate::protocol::mysql::flavor::Flavor;
use crate::topology::kind::ClusterKind;
use crate::topology::node::{NodeId, NodeState, NodeView, Role};
use crate::topology::writer::{self, Candidate};
use crate::topology::{NodeCharsets, NodeFacts, TrackedVariables, galera};

/// What the monitor knows of one node after a probe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeReport {
    /// Its state by its own words.
    pub state: NodeState,
    /// The facts of the last probe that was answered, if any ever was.
    pub facts: Option<NodeFacts>,
    /// When its server process started: seconds of the Unix epoch, belay's clock.
    pub started_at_s: i64,
    /// See [`NodeView::globals_fingerprint`].
    pub globals_fingerprint: u64,
    /// See [`NodeView::tracked_variables`].
    pub tracked_variables: Arc<TrackedVariables>,
    /// See [`NodeView::charsets`].
    pub charsets: Arc<NodeCharsets>,
}

/// The cluster as belay sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterSnapshot {
    /// Counts up with every change.
    pub version: u64,
    /// How the nodes belong together.
    pub kind: ClusterKind,
    /// All configured nodes, in the order of the configuration: `nodes[id.index()]`.
    pub nodes: Vec<NodeView>,
    /// Where writes go.
    pub writer: Option<NodeId>,
    /// Why this one, or why nobody.
    pub why_writer: String,
    /// Counts the changes of `writer`, to another node or to none and back.
    pub writer_epoch: u64,
    /// Several nodes claim to be the one primary.
    pub split_brain: bool,
    /// The version for greetings: the lowest of the living nodes; the last known one while none lives; else the configured one.
    pub server_version: Arc<str>,
    /// The family for greetings, of the same node.
    pub flavor: Flavor,
}

impl ClusterSnapshot {
    /// Before any probe: all nodes unknown. `nodes` are (name, address) in the order of the configuration.
    pub fn initial<'a>(nodes: impl IntoIterator<Item = (&'a str, &'a str)>, server_version: &str) -> ClusterSnapshot {
        let view = |(i, (name, address)): (u16, (&str, &str))| NodeView {
            id: NodeId(i),
            name: name.into(),
            address: address.into(),
            state: NodeState::Unknown,
            role: Role::None,
            server_version: "".into(),
            flavor: Flavor::of_version(server_version),
            started_at_s: 0,
            globals_fingerprint: 0,
            tracked_variables: Arc::default(),
            charsets: Arc::default(),
        };
        ClusterSnapshot {
            version: 0,
            kind: ClusterKind::Unknown,
            nodes: (0..).zip(nodes).map(view).collect(),
            writer: None,
            why_writer: "no node has answered yet".to_owned(),
            writer_epoch: 0,
            split_brain: false,
            server_version: server_version.into(),
            flavor: Flavor::of_version(server_version),
        }
    }

    /// The node with this id.
    pub fn node(&self, id: NodeId) -> Option<&NodeView> {
        self.nodes.get(id.index())
    }

    /// Whether this node is held to be lost.
    pub fn is_down(&self, id: NodeId) -> bool {
        self.node(id).is_some_and(|view| matches!(view.state, NodeState::Down { .. }))
    }

    /// The writer's view.
    pub fn writer_node(&self) -> Option<&NodeView> {
        self.writer.and_then(|id| self.node(id))
    }

    /// Nodes that may be given reads, in the order of the configuration; the writer among them.
    pub fn readable(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter(|n| n.state.can_read())
    }

    /// Where a client without wishes goes: the writer, else the first node that serves reads.
    pub fn default_node(&self) -> Option<&NodeView> {
        self.writer_node().or_else(|| self.readable().next())
    }

    /// The snapshot after these reports (one a node, in the order of the configuration; missing ones change nothing).
    /// `None` where nothing changed.
    pub fn next(&self, reports: &[NodeReport]) -> Option<ClusterSnapshot> {
        let mut next = self.clone();
        for (view, report) in next.nodes.iter_mut().zip(reports) {
            view.state = report.state.clone();
            if let Some(facts) = &report.facts {
                if *view.server_version != *facts.version {
                    view.server_version = facts.version.as_str().into();
                }
                view.flavor = facts.flavor;
                view.started_at_s = report.started_at_s;
            }
            view.globals_fingerprint = report.globals_fingerprint;
            view.tracked_variables = Arc::clone(&report.tracked_variables);
            view.charsets = Arc::clone(&report.charsets);
        }
        next.kind = kind_of(self.kind, reports);
        next.use_the_last(reports);
        next.refuse_strangers(reports);
        next.choose_writer();
        if let Some(lowest) = next.readable().min_by_key(|n| version_number(&n.server_version)) {
            (next.server_version, next.flavor) = (Arc::clone(&lowest.server_version), lowest.flavor);
        }
        if next == *self {
            return None;
        }
        next.version = self.version.wrapping_add(1);
        Some(next)
    }

    fn choose_writer(&mut self) {
        let candidates: Vec<Candidate> = self
            .nodes
            .iter()
            .filter(|n| n.state.can_write())
            .map(|n| Candidate { id: n.id, started_at_s: n.started_at_s })
            .collect();
        let choice = writer::choose(self.writer, self.kind, &candidates);
        // 'kept' says less than why it was taken in the first place.
        if choice.writer.is_none() || choice.writer != self.writer || choice.split_brain || self.split_brain {
            self.why_writer = choice.why;
        }
        if choice.writer != self.writer {
            self.writer_epoch = self.writer_epoch.wrapping_add(1);
        }
        (self.writer, self.split_brain) = (choice.writer, choice.split_brain);
        for node in &mut self.nodes {
            node.role = match &node.state {
                _ if Some(node.id) == choice.writer => Role::Writer,
                state if state.can_read() => Role::Reader,
                _ => Role::None,
            };
        }
    }

    /// Where no node can write, donors and desynced nodes of Galera do.
    fn use_the_last(&mut self, reports: &[NodeReport]) {
        if self.nodes.iter().any(|n| n.state.can_write()) {
            return;
        }
        for (node, report) in self.nodes.iter_mut().zip(reports) {
            let Some((wsrep, facts)) = report.facts.as_ref().and_then(|f| f.wsrep.as_ref().map(|w| (w, f))) else {
                continue;
            };
            // The facts may be old; they are the reason of the state only if they lead to it.
            if galera::state(wsrep, facts) == report.state && galera::serves_as_last(wsrep, facts) {
                node.state = NodeState::Serving;
            }
        }
    }

    /// Nodes of Galera that hold another cluster's history (bootstrapped by mistake) must not serve beside the others. The
    /// history that counts is the writer's while it serves, else that of most nodes; a tie refuses all of them.
    fn refuse_strangers(&mut self, reports: &[NodeReport]) {
        if self.kind != ClusterKind::Galera {
            return;
        }
        let uuid = |i: usize| {
            reports.get(i).and_then(|r| r.facts.as_ref()).and_then(|f| f.wsrep.as_ref()).map(|w| &w.cluster_uuid)
        };
        let serving: Vec<usize> =
            (0..self.nodes.len()).filter(|i| self.nodes.get(*i).is_some_and(|n| n.state.can_read())).collect();
        let count = |u: Option<&String>| serving.iter().filter(|j| uuid(**j) == u).count();
        let of_writer = self.writer.map(NodeId::index).filter(|w| serving.contains(w)).map(uuid);
        let most = serving.iter().map(|i| count(uuid(*i))).max().unwrap_or(0);
        for i in &serving {
            let (belongs, why) = match of_writer {
                Some(ours) => {
                    (uuid(*i) == ours, "wsrep_cluster_state_uuid: it belongs to another cluster than the writer")
                }
                None => {
                    let tied = serving.iter().any(|j| uuid(*j) != uuid(*i) && count(uuid(*j)) == most);
                    (
                        count(uuid(*i)) == most && !tied,
                        "wsrep_cluster_state_uuid: the nodes belong to different clusters",
                    )
                }
            };
            if let Some(node) = self.nodes.get_mut(*i).filter(|_| !belongs) {
                node.state = NodeState::not_ready(why);
            }
        }
    }
}

/// One Galera node makes a Galera cluster: the others may just be starting. What no living node says stays as it was.
fn kind_of(previous: ClusterKind, reports: &[NodeReport]) -> ClusterKind {
    let mut facts = reports.iter().filter_map(|r| r.facts.as_ref()).peekable();
    if facts.peek().is_none() {
        previous
    } else if facts.any(|f| f.wsrep.is_some()) {
        ClusterKind::Galera
    } else if reports.len() == 1 {
        ClusterKind::Single
    } else {
        ClusterKind::ReadOnlyFlag
    }
}

/// The leading numbers of a version, for comparison: `10.11.19-MariaDB` is (10, 11, 19).
fn version_number(version: &str) -> [u32; 3] {
    let mut number = [0; 3];
    let parts = version.split(|c: char| !c.is_ascii_digit());
    for (slot, part) in number.iter_mut().zip(parts) {
        *slot = part.parse().unwrap_or(0);
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::facts::captured;
    use crate::topology::health::detect;

    fn report(line: &str, started_at_s: i64) -> NodeReport {
        let facts = captured::facts(line);
        NodeReport { state: detect(&facts), facts: Some(facts), started_at_s, ..NodeReport::default() }
    }

    fn down() -> NodeReport {
        NodeReport { state: NodeState::down("refused"), ..report(captured::SYNCED, 100) }
    }

    fn initial(n: usize) -> ClusterSnapshot {
        ClusterSnapshot::initial(["a", "b", "c"].iter().take(n).map(|name| (*name, "h:1")), "8.0.40-belay")
    }

    #[test]
    fn a_writer_is_chosen_kept_and_replaced() {
        let synced = |s| report(captured::SYNCED, s);
        let s0 = initial(3);
        assert_eq!((s0.writer, s0.kind), (None, ClusterKind::Unknown));
        let s1 = s0.next(&[synced(100), synced(101), synced(200)]).unwrap();
        assert_eq!((s1.version, s1.writer, s1.kind), (1, Some(NodeId(0)), ClusterKind::Galera));
        assert_eq!(&*s1.server_version, "10.11.19-MariaDB-0+deb12u1-log");
        assert_eq!(s1.next(&[synced(100), synced(101), synced(200)]), None, "nothing changed, no new version");
        let s2 = s1.next(&[down(), synced(101), synced(200)]).unwrap();
        assert_eq!(s2.writer, Some(NodeId(1)));
        assert_eq!(s2.nodes[0].role, Role::None);
        let s3 = s2.next(&[synced(300), synced(101), synced(200)]).unwrap();
        assert_eq!(s3.writer, Some(NodeId(1)), "no automatic fail-back");
        let s4 = s3.next(&[synced(300), down(), synced(200)]).unwrap();
        assert_eq!(s4.writer, Some(NodeId(2)), "the restarted node is at the end of the line");
        let s5 = s4.next(&[down(), down(), down()]).unwrap();
        assert_eq!(s5.writer, None);
        assert_eq!(&*s5.server_version, "10.11.19-MariaDB-0+deb12u1-log", "the last known version stays");
    }

    #[test]
    fn read_only_flags_name_the_writer() {
        let rw = report(captured::MARIADB_ALONE, 1);
        let ro = report(captured::MARIADB_READ_ONLY, 1);
        let s1 = initial(2).next(&[ro.clone(), rw.clone()]).unwrap();
        assert_eq!((s1.kind, s1.writer), (ClusterKind::ReadOnlyFlag, Some(NodeId(1))));
        let s2 = s1.next(&[rw.clone(), rw.clone()]).unwrap();
        assert_eq!((s2.writer, s2.split_brain), (Some(NodeId(1)), true));
        let s3 = s2.next(&[rw.clone(), ro.clone()]).unwrap();
        assert_eq!((s3.writer, s3.split_brain), (Some(NodeId(0)), false));
        assert_eq!(initial(2).next(&[rw.clone(), rw]).unwrap().writer, None);
        assert_eq!(initial(1).next(&[report(captured::MYSQL, 1)]).unwrap().kind, ClusterKind::Single);
    }

    #[test]
    fn a_node_of_another_cluster_is_refused() {
        let of = |uuid: &str| report(&format!("{}wsrep_cluster_state_uuid={uuid};", captured::SYNCED), 1);
        let s = initial(3).next(&[of("x"), of("y"), of("y")]).unwrap();
        assert_eq!(s.writer, Some(NodeId(1)));
        assert!(matches!(s.nodes[0].state, NodeState::NotReady { .. }));
        let s = initial(2).next(&[of("x"), of("y")]).unwrap();
        assert_eq!(s.writer, None, "nobody can tell which of the two is right");
        let s = initial(3).next(&[of("x"), down(), down()]).unwrap();
        let s = s.next(&[of("x"), of("y"), of("y")]).unwrap();
        assert_eq!(s.writer, Some(NodeId(0)), "the writer's cluster counts while it serves");
        assert!(!s.nodes[1].state.can_read() && !s.nodes[2].state.can_read());
    }

    #[test]
    fn the_only_node_serves_while_it_feeds_another() {
        let synced = report(captured::SYNCED, 1);
        let donor = report(&captured::DESYNCED.replace("wsrep_desync=ON", "wsrep_desync=OFF"), 1);
        let joiner = report(&captured::SYNCED.replace("wsrep_local_state=4", "wsrep_local_state=1"), 9);
        let s1 = initial(2).next(&[synced.clone(), down()]).unwrap();
        let s2 = s1.next(&[donor.clone(), joiner]);
        assert_eq!(s2.unwrap().writer, Some(NodeId(0)), "else two nodes would stop whenever one of them rejoins");
        let s3 = s1.next(&[donor.clone(), synced]).unwrap();
        assert_eq!(s3.writer, Some(NodeId(1)), "a synced node goes first");
        let refused = NodeReport { state: NodeState::not_ready("login refused"), ..donor };
        assert_eq!(s1.next(&[refused, down()]).unwrap().writer, None, "old facts do not count");
    }

    #[test]
    fn versions_compare_by_number() {
        assert!(version_number("10.6.2-MariaDB") < version_number("10.11.19-MariaDB"));
        assert!(version_number("9.7.4-2") < version_number("10.0.0"));
        assert_eq!(version_number(""), [0, 0, 0]);
    }
}
