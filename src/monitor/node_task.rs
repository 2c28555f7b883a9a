//! The task that watches one node.
//!
//! ```text
//!   ┌────────────── interval, or suspect() ──────────────┐
//!   ▼                                                     │
//!   probe ── connection lost ──▶ connect ── probe again ──┤   all within probe_timeout
//!     │                             │ refused             │
//!     │ facts                       ▼                     │
//!     ├─▶ variables, when due     failure                 │
//!     └──────────────▶ report ◀─────┘─────────────────────┘
//! ```
//! A lost connection alone is no failure: somebody may have killed it, or it timed out. The dial that follows decides.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::metrics::{Metrics, ProbeResult};
use crate::monitor::link::{Connector, Link, LinkAnswer, LinkBroken, Rows, bytes, text};
use crate::monitor::publisher::Publisher;
use crate::monitor::{ClusterHandle, MonitorSettings, Probed};
use crate::protocol::mysql::flavor::Flavor;
use crate::session::state::CharacterSets;
use crate::topology::collations::{COLLATIONS_SQL, Collations, FULL_COLLATIONS_SQL};
use crate::topology::facts::{STATUS_SQL, VARIABLES_SQL};
use crate::topology::oceanbase;
use crate::topology::variables::{FALLBACK_SQL, listing_sql};
use crate::topology::{
    NodeCharsets, NodeFacts, NodeHealth, NodeId, NodeReport, Observation, Position, ProbeFailure, Sample,
    TrackedVariables,
};

/// Reads all global variables, for the fingerprint.
const GLOBALS_SQL: &str = "SHOW GLOBAL VARIABLES";
/// `Uptime` counts whole seconds: a start that moved less is the same start.
const START_JITTER_S: i64 = 2;

/// Watches one node.
pub struct NodeTask<C: Connector> {
    id: NodeId,
    connector: Arc<C>,
    settings: MonitorSettings,
    publisher: Arc<Publisher>,
    probed: watch::Sender<Probed>,
    metrics: Arc<Metrics>,
    link: Option<C::Link>,
    health: NodeHealth,
    report: NodeReport,
    /// When the variables were read last on this connection.
    variables_read: Option<Instant>,
}

impl<C: Connector> NodeTask<C> {
    /// A task for this node.
    pub fn new(
        id: NodeId,
        connector: Arc<C>,
        settings: MonitorSettings,
        publisher: Arc<Publisher>,
        probed: watch::Sender<Probed>,
        metrics: Arc<Metrics>,
    ) -> NodeTask<C> {
        NodeTask {
            id,
            connector,
            settings,
            publisher,
            probed,
            metrics,
            link: None,
            health: NodeHealth::default(),
            report: NodeReport::default(),
            variables_read: None,
        }
    }

    /// Probes until the task is ended from outside.
    pub async fn run(mut self, cluster: ClusterHandle) {
        loop {
            let started = Instant::now();
            let result = self.probe_once().await;
            cluster.note_position(self.id, self.probed.borrow().sample.as_ref());
            if result == ProbeResult::LoginRefused {
                sleep_until(started + self.settings.login_retry_interval).await;
                continue;
            }
            sleep_until(started + self.settings.suspect_interval_min).await;
            let next = started + self.settings.interval;
            match cluster.suspects.get(self.id.index()) {
                Some(suspect) => {
                    tokio::select! {
                        () = sleep_until(next) => {}
                        () = suspect.notified() => {}
                    }
                }
                None => sleep_until(next).await,
            }
        }
    }

    async fn probe_once(&mut self) -> ProbeResult {
        let began = std::time::Instant::now();
        let started = Instant::now();
        let limit = self.settings.probe_timeout;
        let observation = match timeout(limit, self.observe()).await {
            Ok(observation) => observation,
            Err(_) => {
                let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
                Observation::Failed(ProbeFailure::Silent { limit_ms })
            }
        };
        let result = result_of(&observation);
        if let Some(metrics) = self.metrics.nodes.get(self.id.index()) {
            metrics.probe_seconds.record(started.elapsed());
            metrics.probes.increment(result);
        }
        match &observation {
            // An abandoned connection may still get the answer of the abandoned question.
            Observation::Failed(_) => self.drop_link(),
            Observation::Answered(facts) => {
                self.note_facts(facts);
                self.read_variables_if_due(facts).await;
            }
        }
        self.health.observe(&observation, self.settings.health);
        self.report.state = self.health.state().clone();
        self.publisher.report(self.id, self.report.clone());
        let sample = match observation {
            Observation::Answered(facts) => Some(Sample { began, position: facts.position }),
            Observation::Failed(_) => None,
        };
        self.probed.send_replace(Probed {
            began: Some(began),
            state: self.report.state.clone(),
            started_at_s: self.report.started_at_s,
            sample,
        });
        result
    }

    fn drop_link(&mut self) {
        self.link = None;
        self.variables_read = None;
    }

    /// One probe, on the connection there is or on a new one.
    async fn observe(&mut self) -> Observation {
        if let Some(link) = &mut self.link {
            match ask_facts(link).await {
                Ok(observation) => return observation,
                Err(LinkBroken(_)) => self.drop_link(),
            }
        }
        let mut link = match self.connector.connect(self.id).await {
            Ok(link) => link,
            Err(e) => return Observation::Failed(e.into()),
        };
        match ask_facts(&mut link).await {
            Ok(observation) => {
                self.link = Some(link);
                observation
            }
            Err(LinkBroken(why)) => Observation::Failed(ProbeFailure::Unreachable(why)),
        }
    }

    fn note_facts(&mut self, facts: &NodeFacts) {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(0));
        let started_at_s = now_s.saturating_sub(i64::try_from(facts.uptime_s).unwrap_or(0));
        if started_at_s.abs_diff(self.report.started_at_s) > START_JITTER_S.unsigned_abs() {
            self.report.started_at_s = started_at_s;
        }
        // Uptime alone differs at every probe and says no more than the start does; so does the position, which is told apart.
        self.report.facts = Some(NodeFacts { uptime_s: 0, position: Position::Unknown, ..facts.clone() });
    }

    /// Reads what sessions must know of the node's variables: at once on a new connection (a restarted server may be another
    /// version), later every `globals_interval`. A failure changes nothing but costs the connection.
    async fn read_variables_if_due(&mut self, facts: &NodeFacts) {
        let fresh = self.variables_read.is_none();
        if self.variables_read.is_some_and(|at| at.elapsed() < self.settings.globals_interval) {
            return;
        }
        let Some(link) = &mut self.link else { return };
        let known = (!fresh).then(|| (Arc::clone(&self.report.tracked_variables), Arc::clone(&self.report.charsets)));
        match timeout(self.settings.probe_timeout, read_variables(link, facts, known)).await {
            Ok(Ok(Some((tracked, fingerprint, charsets)))) => {
                if *tracked != *self.report.tracked_variables {
                    self.report.tracked_variables = tracked;
                }
                if charsets != *self.report.charsets {
                    self.report.charsets = Arc::new(charsets);
                }
                self.report.globals_fingerprint = fingerprint;
                self.variables_read = Some(Instant::now());
            }
            // The node refuses the question: asked again at the next interval.
            Ok(Ok(None)) => self.variables_read = Some(Instant::now()),
            Ok(Err(_)) | Err(_) => self.drop_link(),
        }
    }
}

fn result_of(observation: &Observation) -> ProbeResult {
    match observation {
        Observation::Answered(_) => ProbeResult::Ok,
        Observation::Failed(ProbeFailure::Unreachable(_)) => ProbeResult::Unreachable,
        Observation::Failed(ProbeFailure::Silent { .. }) => ProbeResult::Silent,
        Observation::Failed(ProbeFailure::Full(_)) => ProbeResult::Full,
        Observation::Failed(ProbeFailure::LoginRefused(_)) => ProbeResult::LoginRefused,
        Observation::Failed(ProbeFailure::Unusable(_)) => ProbeResult::Unusable,
    }
}

async fn ask_facts<L: Link>(link: &mut L) -> Result<Observation, LinkBroken> {
    let answers = link.ask(&[STATUS_SQL, VARIABLES_SQL]).await?;
    let mut rows: Rows = Vec::new();
    for answer in answers {
        match answer {
            LinkAnswer::Rows(more) => rows.extend(more),
            LinkAnswer::Error(e) => return Ok(Observation::Failed(ProbeFailure::Unusable(e.to_string()))),
        }
    }
    let pairs = rows.iter().map(|row| (text(row, 0), text(row, 1)));
    let mut facts = match NodeFacts::from_rows(pairs) {
        Ok(facts) => facts,
        Err(e) => return Ok(Observation::Failed(ProbeFailure::Unusable(e.to_string()))),
    };
    if facts.flavor == Flavor::OceanBase {
        facts.oceanbase_role = match first(link.ask(&[oceanbase::ROLE_SQL]).await?) {
            Some(LinkAnswer::Rows(rows)) => rows.first().map(|row| text(row, 0).to_owned()),
            _ => None,
        };
    }
    Ok(Observation::Answered(facts))
}

/// The tracked variables and the collations (asked for only if `known` is none), the fingerprint of the global values, and those of the character sets.
async fn read_variables<L: Link>(
    link: &mut L,
    facts: &NodeFacts,
    known: Option<(Arc<TrackedVariables>, Arc<NodeCharsets>)>,
) -> Result<Option<(Arc<TrackedVariables>, u64, NodeCharsets)>, LinkBroken> {
    let (known, charsets) = known.unzip();
    let mut charsets = match charsets.filter(|c| !c.collations.is_empty()) {
        Some(charsets) => (*charsets).clone(),
        None => NodeCharsets {
            collations: read_collations(link, facts.flavor).await?,
            greeting: Some(link.greeted_collation()),
            ..NodeCharsets::default()
        },
    };
    let tracked = match known.filter(|t| !t.is_empty()) {
        Some(tracked) => tracked,
        None => match first(link.ask(&[listing_sql(facts.flavor)]).await?) {
            Some(LinkAnswer::Rows(rows)) if rows.first().is_some_and(|r| r.len() == 1) => {
                Arc::new(TrackedVariables::from_listing(rows.iter().map(|r| text(r, 0))))
            }
            _ => match first(link.ask(&[FALLBACK_SQL]).await?) {
                Some(LinkAnswer::Rows(rows)) => {
                    Arc::new(TrackedVariables::from_session_listing(rows.iter().map(|r| text(r, 0))))
                }
                _ => return Ok(None),
            },
        },
    };
    Ok(match first(link.ask(&[GLOBALS_SQL]).await?) {
        Some(LinkAnswer::Rows(rows)) => {
            let fingerprint = tracked.fingerprint(rows.iter().map(|r| (text(r, 0), bytes(r, 1))));
            charsets.global = global_charsets(&rows);
            Some((tracked, fingerprint, charsets))
        }
        _ => None,
    })
}

/// Which collations the node has.
async fn read_collations<L: Link>(link: &mut L, flavor: Flavor) -> Result<Collations, LinkBroken> {
    let mut collations = Collations::default();
    let full = (flavor == Flavor::MariaDb).then_some(FULL_COLLATIONS_SQL);
    for sql in full.into_iter().chain([COLLATIONS_SQL]) {
        if let Some(LinkAnswer::Rows(rows)) = first(link.ask(&[sql]).await?) {
            collations = Collations::from_listing(rows.iter().map(|r| (text(r, 0), text(r, 1), text(r, 2))));
        }
        if !collations.is_empty() {
            break;
        }
    }
    Ok(collations)
}

/// The character sets among the global variables.
fn global_charsets(rows: &Rows) -> CharacterSets {
    let value = |name: &str| {
        let row = rows.iter().find(|row| text(row, 0).eq_ignore_ascii_case(name));
        row.map(|row| Bytes::copy_from_slice(bytes(row, 1))).unwrap_or_default()
    };
    CharacterSets {
        client: value("character_set_client"),
        connection: value("character_set_connection"),
        results: value("character_set_results"),
        collation: Some(value("collation_connection")),
    }
}

fn first(answers: Vec<LinkAnswer>) -> Option<LinkAnswer> {
    answers.into_iter().next()
}
