//! What a session may rely on when its next statement goes to another node: nothing that it has seen or written may be missing there.
//!
//! ```text
//!   same node as last time ───────────────────────────────▶ nothing
//!   Galera:      the target has applied what the last node had at a probe after the session's last statement ─▶ nothing
//!                else ─▶ wait for the group's present position (`wsrep_sync_wait`)
//!   replication: to the writer, while it has been the writer all along ─▶ nothing (a replica has nothing that it has not)
//!                to another writer ─▶ wait for the session's own last write
//!                to a replica ─▶ wait for what the writer had at a probe after the session's last statement there, or for the
//!                session's own write if that was its last statement; else it can't be proven
//! ```
//! What a session has only *read* on a writer that was lost can't be asked for any more in replication: such reads are not waited for there
//! (`docs/failures.md` says so). In Galera they are.

use std::time::Instant;

use bytes::Bytes;

use crate::protocol::mysql::flavor::Flavor;
use crate::topology::position::Position;
use crate::topology::{ClusterKind, ClusterSnapshot, NodeId};

/// What a session has written, as far as it matters to a node that follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Written {
    /// Nothing.
    #[default]
    Nothing,
    /// The GTID of the last write, as the server reported it.
    At(Bytes),
    /// Something, and the server reported no position for it.
    Unreported,
}

/// The last statement of a session that touched data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it ran.
    pub node: NodeId,
    /// When its answer had come.
    pub at: Instant,
    /// Counts the changes of writer; as it was then.
    pub writer_epoch: u64,
    /// The session's own writes so far.
    pub written: Written,
    /// It was itself that write: everything seen before it precedes it.
    pub by_write: bool,
}

/// What a probe said of a node's position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// When the probe began: everything that had ended before is in the position.
    pub began: Instant,
    /// The position.
    pub position: Position,
}

/// What has to be done before a statement of the session may run on another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// Nothing, and why.
    Nothing(&'static str),
    /// Wait until the node has applied everything that the group has committed by now.
    GroupPosition,
    /// Wait until the node has applied this.
    Position(Position),
    /// It can't be proven that the node has what the session has seen.
    Unprovable(&'static str),
}

/// What is needed for `target` to serve a session that has `seen` this. `sample` gives the last probe's words of a node.
pub fn need(
    snapshot: &ClusterSnapshot,
    seen: &Seen,
    target: NodeId,
    sample: &dyn Fn(NodeId) -> Option<Sample>,
) -> Need {
    if seen.node == target {
        return Need::Nothing("the node of the last statement");
    }
    match snapshot.kind {
        ClusterKind::Galera => galera(seen, target, sample),
        ClusterKind::ReadOnlyFlag => replication(snapshot, seen, target, sample),
        ClusterKind::Single | ClusterKind::Unknown => {
            Need::Unprovable("it is not known how the nodes follow each other")
        }
    }
}

/// The position that a node had at a probe which began after the session's last statement.
fn after(seen: &Seen, node: NodeId, sample: &dyn Fn(NodeId) -> Option<Sample>) -> Option<Position> {
    sample(node).filter(|s| s.began > seen.at && s.position != Position::Unknown).map(|s| s.position)
}

fn has(target: NodeId, position: &Position, sample: &dyn Fn(NodeId) -> Option<Sample>) -> bool {
    sample(target).is_some_and(|s| s.position.covers(position))
}

fn galera(seen: &Seen, target: NodeId, sample: &dyn Fn(NodeId) -> Option<Sample>) -> Need {
    match after(seen, seen.node, sample) {
        Some(position) if has(target, &position, sample) => Need::Nothing("it has applied what the last node had"),
        _ => Need::GroupPosition,
    }
}

fn replication(
    snapshot: &ClusterSnapshot,
    seen: &Seen,
    target: NodeId,
    sample: &dyn Fn(NodeId) -> Option<Sample>,
) -> Need {
    let flavor = snapshot.node(target).map_or(snapshot.flavor, |n| n.flavor);
    let own = match &seen.written {
        Written::Nothing => None,
        Written::Unreported => return Need::Unprovable("the servers report no GTIDs"),
        Written::At(gtid) => match read(flavor, gtid) {
            Position::Unknown => return Need::Unprovable("the GTID of the last write can't be read"),
            position => Some(position),
        },
    };
    let same_writer = snapshot.writer.is_some() && snapshot.writer_epoch == seen.writer_epoch;
    if snapshot.writer == Some(target) {
        return match own {
            _ if same_writer => Need::Nothing("the writer has all that its replicas have"),
            None => Need::Nothing("the session has written nothing"),
            Some(own) if has(target, &own, sample) => Need::Nothing("it has applied the session's last write"),
            Some(own) => Need::Position(own),
        };
    }
    // A replica must have what the session saw, on whatever node: the writer, as long as it is the same, had it all.
    let writer = snapshot.writer.filter(|_| same_writer);
    match (writer.and_then(|writer| after(seen, writer, sample)), own) {
        (Some(position), _) if has(target, &position, sample) => Need::Nothing("it has applied what the writer had"),
        (_, Some(own)) if seen.by_write && has(target, &own, sample) => {
            Need::Nothing("it has applied the session's last write")
        }
        (_, Some(own)) if seen.by_write => Need::Position(own),
        (Some(position), _) => Need::Position(position),
        (None, _) => Need::Unprovable("the writer was not probed since the session's last statement"),
    }
}

/// A GTID as this family of servers reports it.
pub fn read(flavor: Flavor, gtid: &[u8]) -> Position {
    match (flavor, std::str::from_utf8(gtid)) {
        (Flavor::MariaDb, Ok(text)) => Position::mariadb(text),
        (Flavor::MySql, Ok(text)) => Position::mysql(text),
        _ => Position::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn snapshot(kind: ClusterKind, writer: Option<u16>, epoch: u64) -> ClusterSnapshot {
        let mut s = ClusterSnapshot::initial([("a", "a:1"), ("b", "b:1"), ("c", "c:1")], "10.11.1-MariaDB");
        (s.kind, s.writer, s.writer_epoch) = (kind, writer.map(NodeId), epoch);
        s
    }

    fn seen(node: u16, at: Instant, written: Written, by_write: bool) -> Seen {
        Seen { node: NodeId(node), at, writer_epoch: 1, written, by_write }
    }

    fn at(gtid: &str) -> Written {
        Written::At(Bytes::copy_from_slice(gtid.as_bytes()))
    }

    #[test]
    fn galera_waits_unless_a_probe_has_proven_it() {
        let now = Instant::now();
        let s = snapshot(ClusterKind::Galera, Some(0), 1);
        let seen = seen(0, now, Written::Nothing, false);
        let samples = |first_ms: i64, first: u64, second: u64| {
            move |node: NodeId| {
                let began = if first_ms < 0 { now - Duration::from_millis(9) } else { now + Duration::from_millis(9) };
                let seqno = if node == NodeId(0) { first } else { second };
                Some(Sample { began, position: Position::Galera { history: "h".into(), seqno } })
            }
        };
        assert!(matches!(need(&s, &seen, NodeId(0), &samples(-1, 5, 5)), Need::Nothing(_)));
        assert_eq!(need(&s, &seen, NodeId(1), &samples(-1, 5, 5)), Need::GroupPosition, "the probe is older");
        assert_eq!(need(&s, &seen, NodeId(1), &samples(1, 6, 5)), Need::GroupPosition, "it lags");
        assert!(matches!(need(&s, &seen, NodeId(1), &samples(1, 6, 6)), Need::Nothing(_)));
    }

    #[test]
    fn a_new_writer_must_have_the_session_s_own_write() {
        let now = Instant::now();
        let nothing = |_: NodeId| None;
        let moved = snapshot(ClusterKind::ReadOnlyFlag, Some(1), 2);
        assert!(matches!(need(&moved, &seen(0, now, Written::Nothing, false), NodeId(1), &nothing), Need::Nothing(_)));
        let wrote = seen(0, now, at("0-1-7"), false);
        assert_eq!(need(&moved, &wrote, NodeId(1), &nothing), Need::Position(Position::mariadb("0-1-7")));
        let applied = |_: NodeId| Some(Sample { began: now, position: Position::mariadb("0-1-9") });
        assert!(matches!(need(&moved, &wrote, NodeId(1), &applied), Need::Nothing(_)));
        let unreported = seen(0, now, Written::Unreported, true);
        assert!(matches!(need(&moved, &unreported, NodeId(1), &nothing), Need::Unprovable(_)));
        // From a replica back to the writer that it follows.
        let same = snapshot(ClusterKind::ReadOnlyFlag, Some(1), 1);
        assert!(matches!(need(&same, &seen(2, now, at("0-1-7"), false), NodeId(1), &nothing), Need::Nothing(_)));
    }

    #[test]
    fn a_replica_must_have_what_the_session_saw() {
        let now = Instant::now();
        let s = snapshot(ClusterKind::ReadOnlyFlag, Some(0), 1);
        let old =
            |_: NodeId| Some(Sample { began: now - Duration::from_millis(1), position: Position::mariadb("0-1-9") });
        let read = seen(0, now, Written::Nothing, false);
        assert!(
            matches!(need(&s, &read, NodeId(1), &old), Need::Unprovable(_)),
            "others may have written since the probe"
        );
        let fresh = |node: NodeId| {
            let position = if node == NodeId(0) { Position::mariadb("0-1-9") } else { Position::mariadb("0-1-8") };
            Some(Sample { began: now + Duration::from_millis(1), position })
        };
        assert_eq!(need(&s, &read, NodeId(1), &fresh), Need::Position(Position::mariadb("0-1-9")));
        let wrote = seen(0, now, at("0-1-8"), true);
        assert!(
            matches!(need(&s, &wrote, NodeId(1), &fresh), Need::Nothing(_)),
            "its own write is all it has seen last"
        );
        let both = seen(0, now, at("0-1-8"), false);
        assert_eq!(need(&s, &both, NodeId(1), &fresh), Need::Position(Position::mariadb("0-1-9")), "it has read since");
        let moved = snapshot(ClusterKind::ReadOnlyFlag, Some(2), 2);
        assert!(
            matches!(need(&moved, &read, NodeId(1), &fresh), Need::Unprovable(_)),
            "nobody can say what the old writer had"
        );
    }

    #[test]
    fn nodes_of_no_known_kind_prove_nothing() {
        let s = snapshot(ClusterKind::Unknown, None, 1);
        let seen = seen(0, Instant::now(), Written::Nothing, false);
        assert!(matches!(need(&s, &seen, NodeId(1), &|_| None), Need::Unprovable(_)));
    }
}
