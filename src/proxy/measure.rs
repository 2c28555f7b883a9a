//! What a session task counts, in the words of the session task.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Side, Stage};
use crate::metrics::Metrics;
use crate::metrics::labels::{BindKind, KillResult, Masked, ReplayItem, RouteAgainst, RouteTo, StatementClass};
use crate::router::{Against, Destination, RuleSet, Why};
use crate::session::pins::{PinReason, Pins, REASONS};
use crate::session::plan::ReplayPlan;
use crate::sql;

/// Counts for session tasks.
#[derive(Clone)]
pub struct Measure {
    metrics: Arc<Metrics>,
}

impl Measure {
    /// Counts into these handles, which were made for [`REASONS`].
    pub fn new(metrics: Arc<Metrics>) -> Measure {
        Measure { metrics }
    }

    /// The handles.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// A statement arrived.
    pub fn statement(&self, class: sql::StatementClass) {
        self.metrics.statements.increment(match class {
            sql::StatementClass::Read => StatementClass::Read,
            sql::StatementClass::Write => StatementClass::Write,
            sql::StatementClass::Ddl => StatementClass::Schema,
            sql::StatementClass::Transaction => StatementClass::Transaction,
            sql::StatementClass::Set => StatementClass::Session,
            sql::StatementClass::Admin => StatementClass::Admin,
            sql::StatementClass::Call | sql::StatementClass::Other => StatementClass::Unknown,
        });
    }

    /// Time that belay added to a statement.
    pub fn added_time(&self, added: Duration) {
        self.metrics.added_time.record(added);
    }

    /// Something went wrong.
    pub fn failure(&self, side: Side, stage: Stage) {
        self.metrics.error(side, stage);
    }

    /// An error of belay's own, or of its own statement, was sent to a client.
    pub fn client_error(&self) {
        self.metrics.error(Side::Belay, Stage::Answer);
    }

    /// A client was spared a failure.
    pub fn masked(&self, what: Masked) {
        self.metrics.masked.increment(what);
    }

    /// A server session was given to a client.
    pub fn bound(&self, kind: BindKind) {
        self.metrics.binds.increment(kind);
    }

    /// A statement was given a node.
    pub fn routed(&self, why: Why) {
        match why {
            Why::Word(_) => self.metrics.unruled.increment(1),
            Why::Rule(rule) => {
                if let Some(counters) = self.metrics.routes.get(rule.index()) {
                    counters.done.increment(1);
                }
            }
            Why::NotByRule(rule, against) => {
                if let Some(counters) = self.metrics.routes.get(rule.index()) {
                    counters.instead.increment(against_label(against));
                }
            }
        }
    }

    /// State was replayed.
    pub fn replayed(&self, plan: &ReplayPlan) {
        let items = &self.metrics.replay_items;
        items.add(ReplayItem::Variables, plan.variables.len() as u64);
        items.add(ReplayItem::UserVariables, plan.user_variables.len() as u64);
        items.add(ReplayItem::Charset, u64::from(plan.charsets.is_some()));
        items.add(ReplayItem::Schema, u64::from(plan.schema.is_some()));
        items.add(ReplayItem::Role, u64::from(plan.role.is_some()));
    }

    /// The characteristics of a next transaction were said again.
    pub fn characteristics_replayed(&self) {
        self.metrics.replay_items.increment(ReplayItem::Characteristics);
    }

    /// A statement was prepared again.
    pub fn prepared_again(&self) {
        self.metrics.replay_items.increment(ReplayItem::Prepared);
    }

    /// A KILL was carried out, or not.
    pub fn kill(&self, ok: bool) {
        self.metrics.kills.increment(if ok { KillResult::Sent } else { KillResult::Failed });
    }

    /// The pins of a session changed; those that ended had been there for `lasted`.
    pub fn pins_changed(&self, before: Pins, after: Pins, lasted: Duration) {
        let index = |reason: PinReason| self.metrics.pins.get(reason as usize);
        for pin in after.minus(before).iter().filter_map(index) {
            pin.taken.increment(1);
            pin.held.increment(1.0);
        }
        for pin in before.minus(after).iter().filter_map(index) {
            pin.held.decrement(1.0);
            pin.seconds.increment(lasted.as_secs());
        }
    }
}

/// The labels of all pin reasons, in the order of their bits.
pub fn pin_labels() -> Vec<&'static str> {
    REASONS.into_iter().map(PinReason::label).collect()
}

/// The rules as labels, in their order.
pub fn rule_labels(rules: &RuleSet) -> Vec<(&str, RouteTo)> {
    let to = |destination| match destination {
        Destination::Writer => RouteTo::Writer,
        Destination::Readers => RouteTo::Reader,
    };
    rules.names().map(|(name, destination)| (name, to(destination))).collect()
}

fn against_label(against: Against) -> RouteAgainst {
    match against {
        Against::Transaction => RouteAgainst::Transaction,
        Against::Autocommit => RouteAgainst::Autocommit,
        Against::Pinned => RouteAgainst::Pinned,
        Against::Serializable => RouteAgainst::Serializable,
        Against::FoundRows | Against::LastInsertId => RouteAgainst::LastStatement,
        Against::Behind => RouteAgainst::Behind,
        Against::NoReader => RouteAgainst::NoReader,
        Against::HiddenCode => RouteAgainst::HiddenCode,
    }
}
