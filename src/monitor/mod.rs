//! Tasks that watch the nodes and publish what they see: cluster snapshots, and the accounts of the servers.
//!
//! One task a node probes it on a connection of its own, because a busy connection cannot be asked and a stopped server
//! accepts TCP and says nothing. Every wait has a limit. What a probe means is decided by `topology`, which is pure.

pub mod accounts;
pub mod dialler;
pub mod lag;
pub mod link;
pub mod node_task;
pub mod publisher;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::auth::accounts::AccountTable;
use crate::config::{MonitorConfig, RouterConfig};
use crate::metrics::Metrics;
use crate::monitor::lag::Lags;
use crate::monitor::link::Connector;
use crate::monitor::publisher::Publisher;
use crate::topology::{ClusterSnapshot, HealthLimits, NodeId, NodeState, Sample};

/// Global variables are read this often: a SET GLOBAL is noticed within this time.
const GLOBALS_INTERVAL: Duration = Duration::from_secs(2);
/// However many sessions suspect a node, it is not probed more often than this.
const SUSPECT_INTERVAL_MIN: Duration = Duration::from_millis(20);
/// After its login was refused the monitor does not try that node again for this long, whoever suspects it: accounts can be
/// locked by failed logins, and hosts blocked.
const LOGIN_RETRY_INTERVAL: Duration = Duration::from_secs(10);

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
    /// After a refused login, before the next one.
    pub login_retry_interval: Duration,
    /// Between two readings of the accounts.
    pub accounts_interval: Duration,
    /// Accounts read at the most.
    pub accounts_max: usize,
    /// Lags up to this long can be told apart.
    pub lag_max: Duration,
    /// How quickly nodes go down.
    pub health: HealthLimits,
}

impl MonitorSettings {
    /// The settings that the configuration asks for.
    pub fn from_config(config: &MonitorConfig, router: &RouterConfig) -> MonitorSettings {
        MonitorSettings {
            interval: Duration::from_millis(config.interval_ms.max(1)),
            probe_timeout: Duration::from_millis(config.probe_timeout_ms.max(1)),
            globals_interval: GLOBALS_INTERVAL,
            suspect_interval_min: SUSPECT_INTERVAL_MIN,
            login_retry_interval: LOGIN_RETRY_INTERVAL,
            accounts_interval: Duration::from_millis(config.accounts_interval_ms.max(1)),
            accounts_max: config.accounts_max,
            lag_max: Duration::from_millis(router.lag_max_ms),
            health: HealthLimits::default(),
        }
    }
}

/// The last probe of a node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Probed {
    /// When it began; `None` before the first one.
    pub began: Option<std::time::Instant>,
    /// What it found.
    pub state: NodeState,
    /// When the node's server process started, see [`crate::topology::NodeView::started_at_s`].
    pub started_at_s: i64,
    /// How far the node had come; `None` if the probe failed.
    pub sample: Option<Sample>,
}

/// What the rest of belay holds of the monitor. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ClusterHandle {
    snapshot: Arc<ArcSwap<ClusterSnapshot>>,
    version: watch::Receiver<u64>,
    suspects: Arc<[Notify]>,
    probed: Arc<[watch::Receiver<Probed>]>,
    lags: Arc<Lags>,
    /// Set when a node has answered the question for accounts for the first time, with accounts or with a refusal.
    accounts_asked: Arc<AtomicBool>,
}

impl ClusterHandle {
    /// A cluster that nobody probes: it is what the publisher is told.
    pub fn unwatched(initial: ClusterSnapshot, metrics: Arc<Metrics>) -> (ClusterHandle, Publisher) {
        let suspects = initial.nodes.iter().map(|_| Notify::new()).collect();
        let probed = initial.nodes.iter().map(|_| watch::channel(Probed::default()).1).collect();
        let lags = Arc::new(Lags::new(initial.nodes.len(), Duration::from_secs(1)));
        let (publisher, version) = Publisher::new(initial, metrics);
        let snapshot = publisher.snapshot();
        (ClusterHandle { snapshot, version, suspects, probed, lags, accounts_asked: Arc::default() }, publisher)
    }

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

    /// The position that the last probe of a node found.
    pub fn sample(&self, node: NodeId) -> Option<Sample> {
        self.probed.get(node.index())?.borrow().sample.clone()
    }

    /// Whether a node is known to have everything that the writer had `lag_max` ago. Costs one read of memory.
    pub fn follows_within(&self, node: NodeId, lag_max: Duration) -> bool {
        self.lags.reached(node).is_some_and(|reached| reached.elapsed() <= lag_max)
    }

    /// Takes in how far a node has come.
    fn note_position(&self, node: NodeId, sample: Option<&Sample>) {
        self.lags.note(&self.snapshot.load(), node, sample);
    }

    /// The first probe of a node that begins after `when`; `None` if none has ended within `limit`. The node is suspected, so the probe comes at once.
    /// Cancel safe.
    pub async fn probe_after(&self, node: NodeId, when: std::time::Instant, limit: Duration) -> Option<Probed> {
        let mut probed = self.probed.get(node.index())?.clone();
        let until = tokio::time::Instant::now() + limit;
        self.suspect(node);
        let fresh = probed.wait_for(|p| p.began.is_some_and(|began| began > when));
        // An end of the monitor is an end of its probes.
        timeout_at(until, fresh).await.ok()?.ok().map(|p| p.clone())
    }

    /// Whether clients can be served now, or why not.
    pub fn readiness(&self) -> Result<(), String> {
        let snapshot = self.load();
        if snapshot.writer.is_none() {
            return Err(format!("no writer: {}", snapshot.why_writer));
        }
        // Read or refused: either way logins work, by the accounts or by proving.
        if !self.accounts_asked.load(Ordering::Acquire) {
            return Err("the accounts were not asked for yet".to_owned());
        }
        Ok(())
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
        let accounts_asked = Arc::default();
        let (senders, probed): (Vec<_>, Vec<_>) = ids.iter().map(|_| watch::channel(Probed::default())).unzip();
        let probed = probed.into();
        let lags = Arc::new(Lags::new(ids.len(), settings.lag_max));
        let snapshot = publisher.snapshot();
        let cluster = ClusterHandle { snapshot, version, suspects, probed, lags, accounts_asked };
        let table = Arc::new(ArcSwap::from_pointee(AccountTable::unreadable()));
        let mut tasks = JoinSet::new();
        for (id, probed) in ids.into_iter().zip(senders) {
            let task = node_task::NodeTask::new(
                id,
                Arc::clone(&connector),
                settings,
                Arc::clone(&publisher),
                probed,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::monitor::link::{ConnectError, Link, LinkAnswer, LinkBroken};
    use crate::protocol::ErrorReply;
    use crate::topology::NodeState;
    use crate::topology::facts::STATUS_SQL;
    use crate::topology::facts::captured::SYNCED;
    use bytes::Bytes;
    use std::sync::Mutex;
    use std::sync::atomic::AtomicU32;

    /// How a scripted node behaves now.
    #[derive(Clone, Copy, PartialEq)]
    enum Mode {
        Up,
        Refusing,
        Silent,
        WrongPassword,
    }

    struct Script {
        modes: Mutex<Vec<Mode>>,
        /// Connections made before this count are broken.
        broken_before: Mutex<Vec<u32>>,
        connects: Vec<AtomicU32>,
        uptimes: Mutex<Vec<u64>>,
        priv_readable: AtomicBool,
        password: Mutex<&'static str>,
        time_zone: Mutex<&'static str>,
    }

    struct ScriptLink {
        script: Arc<Script>,
        node: NodeId,
        number: u32,
    }

    struct ScriptConnector(Arc<Script>);

    fn rows(pairs: &[(&str, &str)]) -> LinkAnswer {
        let value = |s: &str| Some(Bytes::copy_from_slice(s.as_bytes()));
        LinkAnswer::Rows(pairs.iter().map(|(a, b)| vec![value(a), value(b)]).collect())
    }

    impl Link for ScriptLink {
        fn greeted_collation(&self) -> u8 {
            45
        }

        async fn ask(&mut self, statements: &[&str]) -> Result<Vec<LinkAnswer>, LinkBroken> {
            let s = &self.script;
            if self.number < s.broken_before.lock().unwrap()[self.node.index()] {
                return Err(LinkBroken("reset".into()));
            }
            let mode = s.modes.lock().unwrap()[self.node.index()];
            match mode {
                Mode::Up => {}
                Mode::Refusing | Mode::WrongPassword => return Err(LinkBroken("reset".into())),
                Mode::Silent => std::future::pending::<()>().await,
            }
            let uptime = s.uptimes.lock().unwrap()[self.node.index()];
            let answer = |sql: &&str| match *sql {
                STATUS_SQL => {
                    let line = SYNCED.replace("Uptime=637", &format!("Uptime={uptime}"));
                    rows(&line.split(';').filter_map(|p| p.split_once('=')).collect::<Vec<_>>())
                }
                sql if sql.contains("SYSTEM_VARIABLES") => {
                    LinkAnswer::Rows(vec![vec![Some(Bytes::from_static(b"TIME_ZONE"))]])
                }
                "SHOW GLOBAL VARIABLES" => rows(&[("time_zone", *s.time_zone.lock().unwrap())]),
                sql if sql.contains("global_priv") && s.priv_readable.load(Ordering::Relaxed) => {
                    let stored = format!(
                        "{{\"access\":0,\"plugin\":\"mysql_native_password\",\"authentication_string\":\"{}\"}}",
                        s.password.lock().unwrap()
                    );
                    let value = |s: &str| Some(Bytes::copy_from_slice(s.as_bytes()));
                    LinkAnswer::Rows(vec![vec![value("app"), value("%"), value(&stored)]])
                }
                sql if sql.contains("global_priv") => LinkAnswer::Error(ErrorReply::new(1142, b"42000", "denied")),
                _ => LinkAnswer::Rows(Vec::new()),
            };
            Ok(statements.iter().map(answer).collect())
        }
    }

    impl Connector for ScriptConnector {
        type Link = ScriptLink;
        async fn connect(&self, node: NodeId) -> Result<ScriptLink, ConnectError> {
            let mode = self.0.modes.lock().unwrap()[node.index()];
            match mode {
                Mode::Up => {}
                Mode::Refusing => return Err(ConnectError::Unreachable("refused".into())),
                Mode::Silent => std::future::pending().await,
                Mode::WrongPassword => {
                    self.0.connects[node.index()].fetch_add(1, Ordering::Relaxed);
                    return Err(ConnectError::LoginRefused("1045".into()));
                }
            }
            let number = self.0.connects[node.index()].fetch_add(1, Ordering::Relaxed);
            Ok(ScriptLink { script: Arc::clone(&self.0), node, number })
        }
    }

    fn start(n: usize) -> (Arc<Script>, Monitor, Arc<Metrics>) {
        let script = Arc::new(Script {
            modes: Mutex::new(vec![Mode::Up; n]),
            broken_before: Mutex::new(vec![0; n]),
            connects: (0..n).map(|_| AtomicU32::new(0)).collect(),
            uptimes: Mutex::new(vec![1_000; n]),
            priv_readable: AtomicBool::new(true),
            password: Mutex::new("*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"),
            time_zone: Mutex::new("SYSTEM"),
        });
        let names = ["a", "b", "c"];
        let initial = ClusterSnapshot::initial(names.iter().take(n).map(|x| (*x, "h:1")), "8.0.40-belay");
        let settings = MonitorSettings {
            interval: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(1_500),
            globals_interval: Duration::from_secs(2),
            suspect_interval_min: Duration::from_millis(20),
            login_retry_interval: Duration::from_secs(10),
            accounts_interval: Duration::from_secs(2),
            accounts_max: 10,
            lag_max: Duration::from_secs(5),
            health: HealthLimits::default(),
        };
        let metrics = Metrics::new(names.iter().take(n).copied(), &[], &[], "0");
        let connector = Arc::new(ScriptConnector(Arc::clone(&script)));
        let monitor = Monitor::start(initial, connector, settings, Arc::clone(&metrics));
        (script, monitor, metrics)
    }

    async fn after_ms(ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_writer_waits_for_silent_nodes() {
        let (script, monitor, _) = start(3);
        *script.modes.lock().unwrap() = vec![Mode::Silent, Mode::Up, Mode::Up];
        let cluster = monitor.cluster();
        after_ms(1_000).await;
        assert_eq!(cluster.load().version, 0, "nobody is chosen before every node was asked");
        assert!(monitor.first_snapshot(Duration::from_secs(1)).await);
        let s = cluster.load();
        assert_eq!(s.writer, Some(NodeId(1)));
        assert_eq!(s.nodes[0].state, NodeState::down("silent for 1500 ms"));
        assert_eq!(s.nodes[1].tracked_variables.joined(), "time_zone");
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn refused_is_down_within_an_interval_and_suspicion_is_quicker() {
        let (script, monitor, metrics) = start(3);
        let cluster = monitor.cluster();
        assert!(monitor.first_snapshot(Duration::from_secs(5)).await);
        assert_eq!(cluster.load().writer, Some(NodeId(0)));
        after_ms(100).await;
        script.modes.lock().unwrap()[0] = Mode::Refusing;
        cluster.suspect(NodeId(0));
        after_ms(1).await;
        let s = cluster.load();
        assert_eq!((s.writer, s.nodes[0].state.label()), (Some(NodeId(1)), "down"));
        // It comes back restarted: it does not take the role back, and its start is new.
        let before = s.nodes[0].started_at_s;
        script.uptimes.lock().unwrap()[0] = 1;
        script.modes.lock().unwrap()[0] = Mode::Up;
        after_ms(600).await;
        let s = cluster.load();
        assert_eq!((s.writer, &s.nodes[0].state), (Some(NodeId(1)), &NodeState::Serving));
        assert!(s.nodes[0].started_at_s > before + 900);
        assert!(metrics.render().contains("belay_writer_changes_total 2"));
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_killed_probe_connection_is_no_failure() {
        let (script, monitor, metrics) = start(1);
        let cluster = monitor.cluster();
        assert!(monitor.first_snapshot(Duration::from_secs(5)).await);
        let version = cluster.load().version;
        script.broken_before.lock().unwrap()[0] = 100;
        script.connects[0].store(100, Ordering::Relaxed);
        after_ms(1_200).await;
        assert_eq!(cluster.load().version, version, "dialled again within the same probe");
        assert!(metrics.render().contains("belay_probes_total{node=\"a\",result=\"unreachable\"} 0"));
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_writer_is_replaced_after_the_limit() {
        let (script, monitor, _) = start(2);
        let cluster = monitor.cluster();
        assert!(monitor.first_snapshot(Duration::from_secs(5)).await);
        let mut versions = cluster.subscribe();
        versions.mark_unchanged();
        script.modes.lock().unwrap()[0] = Mode::Silent;
        let began = tokio::time::Instant::now();
        versions.changed().await.unwrap();
        assert!(began.elapsed() <= Duration::from_millis(2_001), "{:?}", began.elapsed());
        assert_eq!(cluster.load().writer, Some(NodeId(1)));
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_login_is_not_tried_again_soon() {
        let (script, monitor, _) = start(1);
        script.modes.lock().unwrap()[0] = Mode::WrongPassword;
        let cluster = monitor.cluster();
        for _ in 0..9 {
            after_ms(1_000).await;
            cluster.suspect(NodeId(0));
        }
        assert_eq!(script.connects[0].load(Ordering::Relaxed), 1);
        assert_eq!(cluster.load().nodes[0].state.label(), "not_ready");
        script.modes.lock().unwrap()[0] = Mode::Up;
        after_ms(2_000).await;
        assert_eq!(cluster.load().nodes[0].state, NodeState::Serving);
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn set_global_changes_the_fingerprint() {
        let (script, monitor, _) = start(1);
        let cluster = monitor.cluster();
        assert!(monitor.first_snapshot(Duration::from_secs(5)).await);
        let before = cluster.load();
        assert_ne!(before.nodes[0].globals_fingerprint, 0);
        after_ms(5_000).await;
        assert_eq!(cluster.load().version, before.version, "nothing changed, nothing published");
        *script.time_zone.lock().unwrap() = "+01:00";
        after_ms(3_000).await;
        assert_ne!(cluster.load().nodes[0].globals_fingerprint, before.nodes[0].globals_fingerprint);
        monitor.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn accounts_follow_the_servers() {
        let (script, monitor, metrics) = start(2);
        let accounts = monitor.accounts();
        assert!(monitor.cluster().readiness().is_err());
        after_ms(2_500).await;
        let first = accounts.load_full();
        assert!(first.is_readable() && first.len() == 1);
        assert_eq!(monitor.cluster().readiness(), Ok(()));
        after_ms(4_000).await;
        assert!(Arc::ptr_eq(&first, &accounts.load_full()), "unchanged rows make no new table");
        *script.password.lock().unwrap() = "*94BDCEBE19083CE2A1F959FD02F964C7AF4CFC29";
        after_ms(2_500).await;
        let id = crate::auth::accounts::AccountKey::new("app", "%");
        let (old, new) = (first.get(&id).unwrap().fingerprint, accounts.load().get(&id).unwrap().fingerprint);
        assert!(old != new, "a changed password is noticed");
        script.priv_readable.store(false, Ordering::Relaxed);
        after_ms(2_500).await;
        assert!(!accounts.load().is_readable());
        assert!(metrics.render().contains("belay_accounts_readable 0"));
        assert_eq!(monitor.cluster().readiness(), Ok(()), "logins are proven then");
        *script.modes.lock().unwrap() = vec![Mode::Refusing; 2];
        after_ms(1_000).await;
        assert!(monitor.cluster().readiness().is_err());
        monitor.stop().await;
    }
}
