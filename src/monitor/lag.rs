//! How far nodes follow the writer, where sessions read it: `topology::lag` judges, this file holds the judgement.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::topology::{ClusterSnapshot, LagTracker, NodeId, Sample};

/// What is known of all nodes.
#[derive(Debug)]
pub struct Lags {
    start: Instant,
    tracker: Mutex<LagTracker>,
    /// Microseconds from `start` to the moment that each node has reached, plus one; 0: nothing is known. Statements read these without a lock.
    reached_us: Box<[AtomicU64]>,
}

impl Lags {
    /// Nothing is known of any of these nodes.
    pub fn new(nodes: usize, lag_max: Duration) -> Lags {
        Lags {
            start: Instant::now(),
            tracker: Mutex::new(LagTracker::new(nodes, lag_max)),
            reached_us: (0..nodes).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    /// Takes in what a probe of a node said; `None`: it failed. Called by the tasks that watch nodes only.
    pub fn note(&self, snapshot: &ClusterSnapshot, node: NodeId, sample: Option<&Sample>) {
        // A tracker in which a panic left half a thought would be wrong about lags only until the next probes.
        let mut tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner);
        tracker.note(snapshot, node, sample);
        for (id, slot) in (0..).zip(&self.reached_us) {
            let us = tracker.reached(NodeId(id)).map_or(0, |reached| self.us(reached) + 1);
            slot.store(us, Ordering::Relaxed);
        }
    }

    /// See [`LagTracker::reached`].
    pub fn reached(&self, node: NodeId) -> Option<Instant> {
        let us = self.reached_us.get(node.index())?.load(Ordering::Relaxed).checked_sub(1)?;
        self.start.checked_add(Duration::from_micros(us))
    }

    fn us(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.start).as_micros()).unwrap_or(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{ClusterKind, Position};

    #[test]
    fn what_the_tracker_knows_is_there_to_be_read() {
        let mut snapshot = ClusterSnapshot::initial([("a", "h:1"), ("b", "h:2")], "8.0.40-belay");
        (snapshot.kind, snapshot.writer) = (ClusterKind::ReadOnlyFlag, Some(NodeId(0)));
        let lags = Lags::new(2, Duration::from_secs(5));
        let began = Instant::now();
        let sample = Sample { began, position: Position::mariadb("0-1-5") };
        lags.note(&snapshot, NodeId(0), Some(&sample));
        assert_eq!(lags.reached(NodeId(1)), None);
        lags.note(&snapshot, NodeId(1), Some(&sample));
        let reached = lags.reached(NodeId(1)).unwrap();
        assert!(reached <= began && began - reached < Duration::from_millis(1));
        lags.note(&snapshot, NodeId(1), None);
        assert_eq!(lags.reached(NodeId(1)), None);
        assert_eq!(lags.reached(NodeId(9)), None);
    }
}
