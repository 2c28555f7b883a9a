//! What belay counts: handles that are resolved once, names in one place, and the text that a scrape gets.
//!
//! Nothing here grows with traffic: label values are closed lists (and the configured nodes and pin reasons), histograms
//! have fixed buckets.

pub mod histogram;
pub mod labels;
pub mod names;

use std::fmt::Write;
use std::sync::Arc;

use metrics::{Counter, Gauge, Key, Level, Metadata, Recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use histogram::Histogram;
pub use labels::{
    BindKind, ClientState, DialResult, KillResult, Label, Masked, ProbeResult, Refusal, ReplayItem, RouteAgainst,
    RouteTo, ServerState, StatementClass,
};

use crate::error::{Side, Stage};
use crate::topology::NodeState;

/// Counters of one metric, one a label value.
#[derive(Clone)]
pub struct Counters<L> {
    handles: Box<[Counter]>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label> Counters<L> {
    /// Counts one.
    pub fn increment(&self, label: L) {
        self.add(label, 1);
    }

    /// Counts `n`.
    pub fn add(&self, label: L, n: u64) {
        if let Some(counter) = self.handles.get(label.index()) {
            counter.increment(n);
        }
    }
}

/// Gauges of one metric, one a label value.
#[derive(Clone)]
pub struct Gauges<L> {
    handles: Box<[Gauge]>,
    label: std::marker::PhantomData<L>,
}

impl<L: Label> Gauges<L> {
    /// The gauge of one label value.
    pub fn get(&self, label: L) -> Option<&Gauge> {
        self.handles.get(label.index())
    }

    /// One more.
    pub fn increment(&self, label: L) {
        if let Some(gauge) = self.get(label) {
            gauge.increment(1);
        }
    }

    /// One less.
    pub fn decrement(&self, label: L) {
        if let Some(gauge) = self.get(label) {
            gauge.decrement(1);
        }
    }
}

/// What is counted a node.
pub struct NodeMetrics {
    label: String,
    /// Server sessions by state.
    pub server_connections: Gauges<ServerState>,
    /// Attempts to open a server session.
    pub server_dials: Counters<DialResult>,
    /// Statements that wait for a server session.
    pub pool_waiters: Gauge,
    /// Probes by how they ended.
    pub probes: Counters<ProbeResult>,
    /// How long probes took.
    pub probe_seconds: Histogram,
    /// 1 for the writer.
    pub writer: Gauge,
    states: Box<[(&'static str, Gauge)]>,
}

impl NodeMetrics {
    /// Shows the state the node is in.
    pub fn set_state(&self, state: &NodeState) {
        for (label, gauge) in &self.states {
            gauge.set(if *label == state.label() { 1.0 } else { 0.0 });
        }
    }
}

/// What is counted a reason of pins.
pub struct PinMetrics {
    /// Pins taken.
    pub taken: Counter,
    /// Pins held now.
    pub held: Gauge,
    /// Seconds that ended pins lasted.
    pub seconds: Counter,
}

/// What is counted of the statements that one rule decides on.
pub struct RouteMetrics {
    /// It was done as the rule says.
    pub done: Counter,
    /// The writer served them instead of a reader, by what spoke against that.
    pub instead: Counters<RouteAgainst>,
}

/// Every handle, made once at start.
pub struct Metrics {
    handle: PrometheusHandle,
    resident_bytes: Gauge,
    /// Client connections by state.
    pub client_connections: Gauges<ClientState>,
    /// Client connections accepted.
    pub client_connections_total: Counter,
    /// Clients turned away.
    pub client_refused: Counters<Refusal>,
    /// Statements by class.
    pub statements: Counters<StatementClass>,
    errors: Box<[Counters<Stage>]>,
    /// Time that belay added to a statement.
    pub added_time: Histogram,
    /// Time that statements waited for a server session.
    pub pool_wait: Histogram,
    /// Server sessions given to clients.
    pub binds: Counters<BindKind>,
    /// Statements that were given a node, by the index of the rule that decided.
    pub routes: Box<[RouteMetrics]>,
    /// Statements that were given to the writer because no rule matches them.
    pub unruled: Counter,
    /// What was replayed.
    pub replay_items: Counters<ReplayItem>,
    /// By the index of the pin reason in the list that was given to [`Metrics::new`].
    pub pins: Box<[PinMetrics]>,
    /// By the index of the node in the configuration.
    pub nodes: Box<[NodeMetrics]>,
    /// 1 while several nodes claim to be the one primary.
    pub split_brain: Gauge,
    /// Times that the writer changed.
    pub writer_changes: Counter,
    /// Accounts read from the servers.
    pub accounts: Gauge,
    /// 1 if the monitor account can read the accounts.
    pub accounts_readable: Gauge,
    /// Statements that wait for a node now.
    pub holds: Gauge,
    /// Statements that had to wait for a node.
    pub holds_total: Counter,
    /// KILL statements that belay sent.
    pub kills: Counters<KillResult>,
    /// Failures that clients were spared.
    pub masked: Counters<Masked>,
}

/// Makes handles on one recorder.
struct Maker {
    recorder: PrometheusRecorder,
}

const METADATA: Metadata<'static> = Metadata::new("belay", Level::INFO, None);

impl Maker {
    fn key(name: &'static str, labels: &[(&'static str, String)]) -> Key {
        Key::from_parts(name, labels.iter().map(|(k, v)| metrics::Label::new(*k, v.clone())).collect::<Vec<_>>())
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, String)]) -> Counter {
        let counter = self.recorder.register_counter(&Self::key(name, labels), &METADATA);
        counter.increment(0); // shows up in a scrape from the start
        counter
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, String)]) -> Gauge {
        let gauge = self.recorder.register_gauge(&Self::key(name, labels), &METADATA);
        gauge.set(0.0);
        gauge
    }

    fn with<L: Label>(base: &[(&'static str, String)], key: &'static str, label: L) -> Vec<(&'static str, String)> {
        let mut labels = base.to_vec();
        labels.push((key, label.text().to_owned()));
        labels
    }

    fn counters<L: Label>(
        &self,
        name: &'static str,
        base: &[(&'static str, String)],
        key: &'static str,
    ) -> Counters<L> {
        let handles = L::ALL.iter().map(|l| self.counter(name, &Self::with(base, key, *l))).collect();
        Counters { handles, label: std::marker::PhantomData }
    }

    fn gauges<L: Label>(&self, name: &'static str, base: &[(&'static str, String)], key: &'static str) -> Gauges<L> {
        let handles = L::ALL.iter().map(|l| self.gauge(name, &Self::with(base, key, *l))).collect();
        Gauges { handles, label: std::marker::PhantomData }
    }

    fn node(&self, name: &str) -> NodeMetrics {
        let base = [("node", name.to_owned())];
        let state =
            |s: &'static str| (s, self.gauge(names::NODE_STATE, &[("node", name.to_owned()), ("state", s.to_owned())]));
        NodeMetrics {
            label: format!("node=\"{}\"", escape(name)),
            server_connections: self.gauges(names::SERVER_CONNECTIONS, &base, "state"),
            server_dials: self.counters(names::SERVER_DIALS_TOTAL, &base, "result"),
            pool_waiters: self.gauge(names::POOL_WAITERS, &base),
            probes: self.counters(names::PROBES_TOTAL, &base, "result"),
            probe_seconds: Histogram::default(),
            writer: self.gauge(names::NODE_WRITER, &base),
            states: NodeState::LABELS.iter().map(|s| state(s)).collect(),
        }
    }

    fn pin(&self, reason: &str) -> PinMetrics {
        let base = [("reason", reason.to_owned())];
        PinMetrics {
            taken: self.counter(names::PINS_TOTAL, &base),
            held: self.gauge(names::PINNED, &base),
            seconds: self.counter(names::PIN_SECONDS_TOTAL, &base),
        }
    }

    fn route_labels(to: RouteTo, rule: &str, why: &str) -> [(&'static str, String); 3] {
        [("to", to.text().to_owned()), ("rule", rule.to_owned()), ("why", why.to_owned())]
    }

    fn route(&self, rule: &str, to: RouteTo) -> RouteMetrics {
        let instead = match to {
            RouteTo::Reader => {
                let against = |why: &RouteAgainst| Self::route_labels(RouteTo::WriterInstead, rule, why.text());
                RouteAgainst::ALL.iter().map(|why| self.counter(names::ROUTES_TOTAL, &against(why))).collect()
            }
            RouteTo::Writer | RouteTo::WriterInstead => Box::default(),
        };
        RouteMetrics {
            done: self.counter(names::ROUTES_TOTAL, &Self::route_labels(to, rule, "rule")),
            instead: Counters { handles: instead, label: std::marker::PhantomData },
        }
    }

    fn errors(&self, side: Side) -> Counters<Stage> {
        self.counters(names::ERRORS_TOTAL, &[("side", side.label().to_owned())], "stage")
    }
}

impl Metrics {
    /// All handles, for these nodes (names, in the order of the configuration) and these reasons of pins, and these rules with where they send
    /// statements. The recorder is this
    /// value's own, not the process's: several can live side by side.
    pub fn new<'a>(
        nodes: impl IntoIterator<Item = &'a str>,
        pin_reasons: &[&str],
        rules: &[(&str, RouteTo)],
        version: &str,
    ) -> Arc<Metrics> {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        for d in names::ALL {
            let name = metrics::KeyName::from(d.name);
            match d.kind {
                names::Kind::Counter => recorder.describe_counter(name, None, d.help.into()),
                names::Kind::Gauge => recorder.describe_gauge(name, None, d.help.into()),
                names::Kind::Histogram => {}
            }
        }
        let make = Maker { recorder };
        make.gauge(names::BUILD_INFO, &[("version", version.to_owned())]).set(1.0);
        Arc::new(Metrics {
            handle,
            resident_bytes: make.gauge(names::RESIDENT_BYTES, &[]),
            client_connections: make.gauges(names::CLIENT_CONNECTIONS, &[], "state"),
            client_connections_total: make.counter(names::CLIENT_CONNECTIONS_TOTAL, &[]),
            client_refused: make.counters(names::CLIENT_REFUSED_TOTAL, &[], "why"),
            statements: make.counters(names::STATEMENTS_TOTAL, &[], "class"),
            errors: Side::ALL.iter().map(|side| make.errors(*side)).collect(),
            added_time: Histogram::default(),
            pool_wait: Histogram::default(),
            binds: make.counters(names::BINDS_TOTAL, &[], "kind"),
            routes: rules.iter().map(|(name, to)| make.route(name, *to)).collect(),
            unruled: make.counter(names::ROUTES_TOTAL, &Maker::route_labels(RouteTo::Writer, "", "no_rule")),
            replay_items: make.counters(names::REPLAY_ITEMS_TOTAL, &[], "what"),
            pins: pin_reasons.iter().map(|r| make.pin(r)).collect(),
            nodes: nodes.into_iter().map(|n| make.node(n)).collect(),
            split_brain: make.gauge(names::SPLIT_BRAIN, &[]),
            writer_changes: make.counter(names::WRITER_CHANGES_TOTAL, &[]),
            accounts: make.gauge(names::ACCOUNTS, &[]),
            accounts_readable: make.gauge(names::ACCOUNTS_READABLE, &[]),
            holds: make.gauge(names::HOLDS, &[]),
            holds_total: make.counter(names::HOLDS_TOTAL, &[]),
            kills: make.counters(names::KILLS_TOTAL, &[], "result"),
            masked: make.counters(names::MASKED_TOTAL, &[], "what"),
        })
    }

    /// Counts an error.
    pub fn error(&self, side: Side, stage: Stage) {
        if let Some(stages) = self.errors.get(side.index()) {
            stages.increment(stage);
        }
    }

    /// The text for a scrape, in Prometheus' format.
    pub fn render(&self) -> String {
        if let Some(bytes) = resident_bytes() {
            self.resident_bytes.set(bytes as f64);
        }
        let mut out = self.handle.render();
        let single = [(names::ADDED_TIME_SECONDS, &self.added_time), (names::POOL_WAIT_SECONDS, &self.pool_wait)];
        for (name, histogram) in single {
            head(name, &mut out);
            histogram.render(name, "", &mut out);
        }
        head(names::PROBE_SECONDS, &mut out);
        for node in &self.nodes {
            node.probe_seconds.render(names::PROBE_SECONDS, &node.label, &mut out);
        }
        out
    }

    /// The exporter's housekeeping; call it every second.
    pub fn run_upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// HELP and TYPE of a histogram.
fn head(name: &str, out: &mut String) {
    let help = names::ALL.iter().find(|d| d.name == name).map_or("", |d| d.help);
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} histogram");
}

/// A label value as Prometheus' text format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Resident memory of this process, from the kernel; `None` where it does not say.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everything_named_is_in_the_first_scrape() {
        let m = Metrics::new(["a\"b", "n2"], &["temporary_table", "get_lock"], &[("reads", RouteTo::Reader)], "0.1.0");
        let text = m.render();
        for d in names::ALL {
            assert!(text.contains(&format!("# TYPE {} ", d.name)), "{} is missing in\n{text}", d.name);
            assert!(text.contains(&format!("# HELP {} ", d.name)), "{} is not described", d.name);
            let bad_unit = d.kind == names::Kind::Counter && !d.name.ends_with("_total");
            assert!(!bad_unit, "{} should end in _total", d.name);
        }
    }

    #[test]
    fn numbers_arrive() {
        let m = Metrics::new(["n1"], &["get_lock"], &[("reads", RouteTo::Reader), ("rest", RouteTo::Writer)], "0.1.0");
        m.statements.increment(StatementClass::Write);
        m.error(Side::Server, Stage::Answer);
        m.client_connections.increment(ClientState::Idle);
        m.nodes[0].set_state(&NodeState::Serving);
        m.pins[0].taken.increment(2);
        m.routes[0].instead.increment(RouteAgainst::Pinned);
        m.routes[1].instead.increment(RouteAgainst::Pinned); // has none, and no harm is done
        m.added_time.record(Duration::from_micros(40));
        let text = m.render();
        for line in [
            "belay_statements_total{class=\"write\"} 1",
            "belay_errors_total{side=\"server\",stage=\"answer\"} 1",
            "belay_client_connections{state=\"idle\"} 1",
            "belay_node_state{node=\"n1\",state=\"serving\"} 1",
            "belay_node_state{node=\"n1\",state=\"down\"} 0",
            "belay_routes_total{to=\"writer_instead\",rule=\"reads\",why=\"pinned\"} 1",
            "belay_routes_total{to=\"reader\",rule=\"reads\",why=\"rule\"} 0",
            "belay_routes_total{to=\"writer\",rule=\"rest\",why=\"rule\"} 0",
            "belay_pins_total{reason=\"get_lock\"} 2",
            "belay_added_time_seconds_bucket{le=\"0.00005\"} 1",
            "belay_probe_seconds_count{node=\"n1\"} 0",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }

    #[test]
    fn labels_index_their_own_list() {
        fn check<L: Label + PartialEq + std::fmt::Debug>() {
            for (i, l) in L::ALL.iter().enumerate() {
                assert_eq!(l.index(), i);
            }
        }
        check::<Stage>();
        check::<Side>();
        check::<StatementClass>();
    }
}
