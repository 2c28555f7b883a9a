//! Tasks that watch the nodes and publish what they see: cluster snapshots, and the accounts of the servers.
//!
//! One task a node probes it on a connection of its own, because a busy connection cannot be asked and a stopped server
//! accepts TCP and says nothing. Every wait has a limit. What a probe means is decided by `topology`, which is pure.

pub mod accounts;
pub mod dialler;
pub mod link;
pub mod node_task;
pub mod publisher;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::auth::accounts::AccountTable;
use crate::config::MonitorConfig;
use crate::metrics::Metrics;
use crate::monitor::link::Connector;
use crate::monitor::publisher::Publisher;
use crate::topology::{ClusterSnapshot, HealthLimits, NodeId};

/// Global variables are read this often: a SET GLOBAL is noticed within this time.
const GLOBALS_INTERVAL: Duration = Duration::from_secs(2);
/// However many sessions suspect a node, it is not probed more often than this.
const SUSPECT_INTERVAL_MIN: Duration = Duration::from_millis(20);

/// The limits and intervals of the monitor.
#[derive(Clone, Copy, Debug)]
pub struct MonitorSettings {
    /// Between the starts of two probes of a node.
    pub interval: Duration,
    /// One probe, connecting included.
    pub probe_timeout: Duration,
    /// Between two readings of the global variables of a node.
    pub globals_interval: Duration,
    /// The least time between two probes of a node that sessions suspect.
    pub suspect_interval_min: Duration,
    /// Between two readings of the accounts.
    pub accounts_interval: Duration,
    /// Accounts read at the most.
    pub accounts_max: usize,
    /// How quickly nodes go down.
    pub health: HealthLimits,
}

impl MonitorSettings {
    /// The settings that the configuration asks for.
    pub fn from_config(config: &MonitorConfig) -> MonitorSettings {
        MonitorSettings {
            interval: Duration::from_millis(config.interval_ms.max(1)),
            probe_timeout: Duration::from_millis(config.probe_timeout_ms.max(1)),
            globals_interval: GLOBALS_INTERVAL,
            suspect_interval_min: SUSPECT_INTERVAL_MIN,
            accounts_interval: Duration::from_millis(config.accounts_interval_ms.max(1)),
            accounts_max: config.accounts_max,
            health: HealthLimits::default(),
        }
    }
}

/// What the rest of belay holds of the monitor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    snapshot: Arc<ArcSwap<ClusterSnapshot>>,
    version: watch::Receiver<u64>,
    suspects: Arc<[Notify]>,
}

impl ClusterHandle {
    /// The cluster as it was seen last.
    pub fn load(&self) -> Arc<ClusterSnapshot> {
        self.snapshot.load_full()
    }

    /// Changes with every new snapshot: wait on it, then [`ClusterHandle::load`]. Mark the present value as seen before
    /// loading, and no snapshot is missed.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.version.clone()
    }

    /// A session saw trouble with this node: probe it now instead of at the next interval. Any number of calls while
    /// a probe runs cause one more probe.
    pub fn suspect(&self, node: NodeId) {
        if let Some(notify) = self.suspects.get(node.index()) {
            notify.notify_one();
        }
    }
}

/// The running monitor. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Monitor {
    cluster: ClusterHandle,
    accounts: Arc<ArcSwap<AccountTable>>,
    tasks: JoinSet<()>,
}

impl Monitor {
    /// Starts watching the nodes of `initial`. Must be called inside a tokio runtime.
    pub fn start<C: Connector>(
        initial: ClusterSnapshot,
        connector: Arc<C>,
        settings: MonitorSettings,
        metrics: Arc<Metrics>,
    ) -> Monitor {
        let ids: Vec<NodeId> = initial.nodes.iter().map(|n| n.id).collect();
        let suspects: Arc<[Notify]> = ids.iter().map(|_| Notify::new()).collect();
        let (publisher, version) = Publisher::new(initial, Arc::clone(&metrics));
        let publisher = Arc::new(publisher);
        let cluster = ClusterHandle { snapshot: publisher.snapshot(), version, suspects };
        let table = Arc::new(ArcSwap::from_pointee(AccountTable::unreadable()));
        let mut tasks = JoinSet::new();
        for id in ids {
            let task = node_task::NodeTask::new(
                id,
                Arc::clone(&connector),
                settings,
                Arc::clone(&publisher),
                Arc::clone(&metrics),
            );
            tasks.spawn(task.run(cluster.clone()));
        }
        let reader = accounts::AccountReader::new(connector, settings, cluster.clone(), Arc::clone(&table), metrics);
        tasks.spawn(reader.run());
        Monitor { cluster, accounts: table, tasks }
    }

    /// The cluster, for sessions and pools.
    pub fn cluster(&self) -> ClusterHandle {
        self.cluster.clone()
    }

    /// The accounts of the servers; unreadable until they were read, and when the monitor account may not read them.
    pub fn accounts(&self) -> Arc<ArcSwap<AccountTable>> {
        Arc::clone(&self.accounts)
    }

    /// Waits until every node was probed once (at most `probe_timeout` each, all at once), or `limit` has passed.
    /// Returns whether the cluster is known.
    pub async fn first_snapshot(&self, limit: Duration) -> bool {
        let mut version = self.cluster.subscribe();
        tokio::time::timeout(limit, version.wait_for(|v| *v > 0)).await.is_ok_and(|r| r.is_ok())
    }

    /// Ends the tasks and waits for them.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}
