//! Collects the reports of the node tasks and publishes a snapshot when something changed.

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::metrics::Metrics;
use crate::topology::{ClusterSnapshot, NodeId, NodeReport, NodeState};

/// Where reports come together.
pub struct Publisher {
    reports: Mutex<Vec<Option<NodeReport>>>,
    snapshot: Arc<ArcSwap<ClusterSnapshot>>,
    version: watch::Sender<u64>,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// Starts from `initial`.
    pub fn new(initial: ClusterSnapshot, metrics: Arc<Metrics>) -> (Publisher, watch::Receiver<u64>) {
        let (sender, receiver) = watch::channel(initial.version);
        show(&initial, &metrics);
        let reports = Mutex::new(vec![None; initial.nodes.len()]);
        let snapshot = Arc::new(ArcSwap::from_pointee(initial));
        (Publisher { reports, snapshot, version: sender, metrics }, receiver)
    }

    /// The place where the present snapshot is.
    pub fn snapshot(&self) -> Arc<ArcSwap<ClusterSnapshot>> {
        Arc::clone(&self.snapshot)
    }

    /// Takes a report in. Nothing is published before every node has reported once (a node that is silent does so after the
    /// probe's time limit): else the first to answer would become the writer, and several belays would not agree.
    pub fn report(&self, node: NodeId, report: NodeReport) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = reports.get_mut(node.index()) {
            *slot = Some(report);
        }
        let Some(all) = reports.iter().cloned().collect::<Option<Vec<NodeReport>>>() else { return };
        let before = self.snapshot.load();
        let Some(next) = before.next(&all) else { return };
        tell(&before, &next);
        show(&next, &self.metrics);
        if next.writer != before.writer {
            self.metrics.writer_changes.increment(1);
        }
        let version = next.version;
        self.snapshot.store(Arc::new(next));
        // Still under the lock, so that versions are announced in order.
        self.version.send_replace(version);
    }
}

/// Logs what changed, once.
fn tell(before: &ClusterSnapshot, next: &ClusterSnapshot) {
    for (old, new) in before.nodes.iter().zip(&next.nodes) {
        if old.state != new.state {
            let (from, to) = (old.state.label(), new.state.label());
            match &new.state {
                NodeState::Serving | NodeState::ReadOnly { .. } => {
                    info!(node = %new.name, from, to, why = new.state.why(), version = %new.server_version, "node changed");
                }
                state => warn!(node = %new.name, from, to, why = state.why(), "node changed"),
            }
        }
    }
    if before.writer != next.writer || before.split_brain != next.split_brain {
        match next.writer_node() {
            Some(writer) if !next.split_brain => info!(writer = %writer.name, why = %next.why_writer, "writer chosen"),
            Some(writer) => warn!(writer = %writer.name, why = %next.why_writer, "writer chosen"),
            None => warn!(why = %next.why_writer, "no writer"),
        }
    }
}

/// Shows the snapshot in the metrics.
fn show(snapshot: &ClusterSnapshot, metrics: &Metrics) {
    metrics.split_brain.set(if snapshot.split_brain { 1.0 } else { 0.0 });
    for (view, m) in snapshot.nodes.iter().zip(&metrics.nodes) {
        m.set_state(&view.state);
        m.writer.set(if snapshot.writer == Some(view.id) { 1.0 } else { 0.0 });
    }
}
