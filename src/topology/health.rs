//! From probes to a node's state: the one place that decides how quickly a node goes down and comes back.
//!
//! ```text
//!              probe answered: the detector's state, at once, in every case
//!   any state ───────────────────────────────────────────────▶ NotReady / ReadOnly / Serving
//!   any state ── refused, reset, unreachable, silent ────────▶ Down
//!   any state ── the monitor's login is refused ─────────────▶ NotReady
//!   Serving … ── 'too many connections' ─────────────────────▶ the same state, up to `full_probes_max` times, then NotReady
//! ```
//! There is no waiting for a second failure: the monitor confirms a lost connection by dialling again before it reports, and
//! silence has lasted `probe_timeout_ms` when it is reported. There is no waiting for a second success either: the present
//! writer is kept while it serves, so a node that flaps costs nothing but the sessions it had.

use crate::protocol::mysql::flavor::Flavor;
use crate::topology::node::NodeState;
use crate::topology::{NodeFacts, galera, oceanbase, read_only};

/// Why a probe brought no facts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeFailure {
    /// Nobody listens, the host cannot be reached, or the connection broke and a new one could not be made.
    Unreachable(String),
    /// The connection, the login or the answer took longer than the limit.
    Silent {
        /// The limit, in milliseconds.
        limit_ms: u64,
    },
    /// The node has no room for the monitor's connection (1040, 1203): it lives and says nothing more.
    Full(String),
    /// The node refused the monitor's login (1045 and others).
    LoginRefused(String),
    /// The node answered with something else than facts.
    Unusable(String),
}

/// How one probe ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It answered.
    Answered(NodeFacts),
    /// It did not.
    Failed(ProbeFailure),
}

/// Limits of the state machine above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLimits {
    /// How many probes in a row may fail for want of room before the node counts as not ready.
    pub full_probes_max: u32,
}

impl Default for HealthLimits {
    fn default() -> HealthLimits {
        HealthLimits { full_probes_max: 6 }
    }
}

/// A node's state with what is needed to judge the next probe.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeHealth {
    state: NodeState,
    full_probes: u32,
}

impl NodeHealth {
    /// The state after the last observation.
    pub fn state(&self) -> &NodeState {
        &self.state
    }

    /// Takes one observation in.
    pub fn observe(&mut self, observation: &Observation, limits: HealthLimits) {
        let full_before = std::mem::take(&mut self.full_probes);
        self.state = match observation {
            Observation::Answered(facts) => detect(facts),
            Observation::Failed(ProbeFailure::Unreachable(why)) => NodeState::down(why.as_str()),
            Observation::Failed(ProbeFailure::Silent { limit_ms }) => {
                NodeState::down(format!("silent for {limit_ms} ms"))
            }
            Observation::Failed(ProbeFailure::LoginRefused(why)) => {
                NodeState::not_ready(format!("the monitor cannot log in: {why}"))
            }
            Observation::Failed(ProbeFailure::Unusable(why)) => NodeState::not_ready(why.as_str()),
            Observation::Failed(ProbeFailure::Full(why)) => {
                self.full_probes = full_before.saturating_add(1);
                if self.state.can_read() && self.full_probes <= limits.full_probes_max {
                    self.state.clone()
                } else {
                    NodeState::not_ready(why.as_str())
                }
            }
        };
    }
}

/// What a node that answered may be used for: Galera where it says so, OceanBase by its role, else its read-only flags.
pub fn detect(facts: &NodeFacts) -> NodeState {
    match &facts.wsrep {
        Some(wsrep) => galera::state(wsrep, facts),
        None if facts.flavor == Flavor::OceanBase => oceanbase::state(facts),
        None => read_only::state(facts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::facts::captured::*;

    fn after(observations: &[Observation]) -> NodeState {
        let mut health = NodeHealth::default();
        for o in observations {
            health.observe(o, HealthLimits { full_probes_max: 2 });
        }
        health.state().clone()
    }

    #[test]
    fn one_probe_decides_in_both_directions() {
        let up = Observation::Answered(facts(SYNCED));
        let gone = Observation::Failed(ProbeFailure::Unreachable("connection refused".into()));
        let silent = Observation::Failed(ProbeFailure::Silent { limit_ms: 1500 });
        assert_eq!(after(&[]), NodeState::Unknown);
        assert_eq!(after(std::slice::from_ref(&up)), NodeState::Serving);
        assert_eq!(after(&[up.clone(), gone.clone()]), NodeState::down("connection refused"));
        assert_eq!(after(&[up.clone(), silent]), NodeState::down("silent for 1500 ms"));
        assert_eq!(after(&[gone, up]), NodeState::Serving);
    }

    #[test]
    fn a_full_node_keeps_its_state_for_a_while() {
        let up = Observation::Answered(facts(SYNCED));
        let full = Observation::Failed(ProbeFailure::Full("1040".into()));
        assert_eq!(after(&[up.clone(), full.clone(), full.clone()]), NodeState::Serving);
        assert_eq!(after(&[up.clone(), full.clone(), full.clone(), full.clone()]), NodeState::not_ready("1040"));
        assert_eq!(after(&[up.clone(), full.clone(), full.clone(), up, full.clone()]), NodeState::Serving);
        assert_eq!(after(&[full]), NodeState::not_ready("1040"));
    }
}
