//! How far nodes are behind the writer at most, in time: proven by positions. A node that has applied what the writer had at a moment has everything
//! that had been committed before it.
//!
//! ```text
//!   writer's samples   P1 ·······  P2 ·······  P3 ········▶ time
//!   reader's sample                    covers P2, not P3:  it has everything that had ended when P2 was asked for
//! ```
//! The servers' own `Seconds_Behind_Master` is not used: it is 0 on a replica whose connection to its primary hangs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::topology::causal::Sample;
use crate::topology::position::Position;
use crate::topology::{ClusterKind, ClusterSnapshot, NodeId};

/// Samples of the writer that are kept at the most.
pub const SAMPLES_MAX: usize = 64;

/// Follows the positions of all nodes.
#[derive(Clone, Debug)]
pub struct LagTracker {
    /// The least time between two samples of the writer that are both kept; a younger one takes the place of the last.
    spacing: Duration,
    /// The writer that the samples are of, and the epoch of its role.
    of: Option<(NodeId, u64)>,
    writer: VecDeque<Sample>,
    /// The last position of each node.
    last: Vec<Position>,
    /// When the writer had what each node is known to have.
    reached: Vec<Option<Instant>>,
}

impl LagTracker {
    /// A tracker of this many nodes that can tell lags of up to `lag_max` apart.
    pub fn new(nodes: usize, lag_max: Duration) -> LagTracker {
        let spacing = lag_max / (SAMPLES_MAX as u32 / 2);
        LagTracker {
            spacing,
            of: None,
            writer: VecDeque::new(),
            last: vec![Position::Unknown; nodes],
            reached: vec![None; nodes],
        }
    }

    /// Takes in what a probe of a node said; `None`: it failed.
    pub fn note(&mut self, snapshot: &ClusterSnapshot, node: NodeId, sample: Option<&Sample>) {
        let writer = match snapshot.kind {
            ClusterKind::Galera | ClusterKind::ReadOnlyFlag => snapshot.writer.map(|w| (w, snapshot.writer_epoch)),
            ClusterKind::Single | ClusterKind::Unknown => None,
        };
        if self.of != writer {
            self.of = writer;
            self.writer.clear();
            self.reached.fill(None);
        }
        let position = sample.map_or(Position::Unknown, |s| s.position.clone());
        if let Some(last) = self.last.get_mut(node.index()) {
            *last = position;
        }
        if let Some(sample) = sample.filter(|s| writer.is_some_and(|(w, _)| w == node) && says_something(&s.position)) {
            self.keep(sample.clone());
            // A node that had it already has it now.
            for index in 0..self.last.len() {
                self.judge(index);
            }
        } else {
            self.judge(node.index());
        }
    }

    /// The writer had, at this moment, nothing committed that the node is not known to have applied. `None`: nothing is known.
    pub fn reached(&self, node: NodeId) -> Option<Instant> {
        self.reached.get(node.index()).copied().flatten()
    }

    fn keep(&mut self, sample: Sample) {
        let before_last = self.writer.len().checked_sub(2).and_then(|i| self.writer.get(i));
        let crowded = match (before_last, self.writer.back()) {
            (Some(before), Some(last)) => last.began.saturating_duration_since(before.began) < self.spacing,
            _ => false,
        };
        let unchanged = self.writer.back().is_some_and(|last| last.position == sample.position);
        if crowded || unchanged {
            self.writer.pop_back();
        }
        if self.writer.len() == SAMPLES_MAX {
            self.writer.pop_front();
        }
        self.writer.push_back(sample);
    }

    fn judge(&mut self, index: usize) {
        let Some(last) = self.last.get(index) else { return };
        let newest = self.writer.iter().rev().find(|sample| last.covers(&sample.position)).map(|sample| sample.began);
        if let Some(reached) = self.reached.get_mut(index) {
            *reached = newest;
        }
    }
}

/// A server that counts nothing has an empty position, which every other one covers.
fn says_something(position: &Position) -> bool {
    match position {
        Position::Unknown => false,
        Position::Galera { .. } => true,
        Position::MariaDb(domains) => !domains.is_empty(),
        Position::MySql(sources) => !sources.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WRITER: NodeId = NodeId(0);
    const READER: NodeId = NodeId(1);

    fn snapshot(epoch: u64) -> ClusterSnapshot {
        let mut snapshot = ClusterSnapshot::initial([("a", "h:1"), ("b", "h:2")], "8.0.40-belay");
        (snapshot.kind, snapshot.writer, snapshot.writer_epoch) = (ClusterKind::ReadOnlyFlag, Some(WRITER), epoch);
        snapshot
    }

    fn at(seq: u64, began: Instant) -> Sample {
        Sample { began, position: Position::mariadb(&format!("0-1-{seq}")) }
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_reader_has_what_the_writer_had_when_it_was_asked() {
        let (start, s) = (Instant::now(), snapshot(1));
        let mut lag = LagTracker::new(2, ms(5_000));
        lag.note(&s, READER, Some(&at(9, start)));
        assert_eq!(lag.reached(READER), None, "the writer was not asked yet");
        lag.note(&s, WRITER, Some(&at(5, start + ms(500))));
        assert_eq!(lag.reached(READER), Some(start + ms(500)));
        lag.note(&s, WRITER, Some(&at(12, start + ms(1_000))));
        assert_eq!(lag.reached(READER), Some(start + ms(500)), "it stands where it stood");
        lag.note(&s, READER, Some(&at(12, start + ms(1_200))));
        assert_eq!(lag.reached(READER), Some(start + ms(1_000)));
        // A writer that rests is as good as one that was just reached.
        lag.note(&s, WRITER, Some(&at(12, start + ms(1_500))));
        assert_eq!(lag.reached(READER), Some(start + ms(1_500)));
        lag.note(&s, READER, None);
        assert_eq!(lag.reached(READER), None, "it may come back from a backup");
    }

    #[test]
    fn another_writer_begins_anew() {
        let start = Instant::now();
        let mut lag = LagTracker::new(2, ms(5_000));
        lag.note(&snapshot(1), WRITER, Some(&at(5, start)));
        lag.note(&snapshot(1), READER, Some(&at(5, start)));
        assert!(lag.reached(READER).is_some());
        lag.note(&snapshot(2), READER, Some(&at(5, start)));
        assert_eq!(lag.reached(READER), None);
    }

    #[test]
    fn servers_that_count_nothing_prove_nothing() {
        let (start, s) = (Instant::now(), snapshot(1));
        for nothing in [Position::Unknown, Position::mariadb(""), Position::mysql("")] {
            let mut lag = LagTracker::new(2, ms(5_000));
            for node in [WRITER, READER, WRITER] {
                lag.note(&s, node, Some(&Sample { began: start, position: nothing.clone() }));
            }
            assert_eq!(lag.reached(READER), None, "{nothing:?}");
        }
    }

    proptest! {
        /// Against the truth: the writer's whole history.
        #[test]
        fn what_is_reached_is_true_and_near_the_best(
            steps in proptest::collection::vec((any::<bool>(), 0u64..200, 0u64..5, 0u64..5), 1..300),
        ) {
            let (start, s) = (Instant::now(), snapshot(1));
            let mut lag = LagTracker::new(2, ms(3_200));
            let (mut now, mut written, mut applied) = (0u64, 1u64, 0u64);
            let mut history: Vec<(u64, u64)> = Vec::new();
            for (of_writer, wait, writes, applies) in steps {
                (now, written) = (now + wait, written + writes);
                applied = (applied + applies).min(written);
                if of_writer {
                    history.push((now, written));
                    lag.note(&s, WRITER, Some(&at(written, start + ms(now))));
                } else {
                    lag.note(&s, READER, Some(&at(applied, start + ms(now))));
                }
                let Some(reached) = lag.reached(READER) else { continue };
                let reached_ms = u64::try_from((reached - start).as_millis()).unwrap();
                let had = history.iter().filter(|(t, _)| *t == reached_ms).map(|(_, seq)| *seq).min().unwrap();
                prop_assert!(applied >= had, "{applied} of {had}");
            }
            prop_assert!(lag.writer.len() <= SAMPLES_MAX);
        }
    }
}
