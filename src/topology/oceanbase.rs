//! The detector for OceanBase's single-node server, seekdb: one server alone, or a primary with standbys.
//!
//! A standby keeps `read_only=OFF` and refuses writes with error 4688, so the flags of other servers say nothing here: it is asked for its role.

use crate::topology::NodeFacts;
use crate::topology::node::NodeState;

/// The third statement of a probe, for OceanBase alone. One row, one column: the role that this server has now.
pub const ROLE_SQL: &str = "SELECT ROLE FROM oceanbase.V$OB_SERVER_STAT";

/// The state of a node that answers, by its role. A node that does not say it is not trusted with anything.
pub fn state(facts: &NodeFacts) -> NodeState {
    if facts.offline_mode {
        return NodeState::not_ready("offline_mode=ON: ordinary accounts cannot log in");
    }
    match facts.oceanbase_role.as_deref() {
        Some("PRIMARY") if facts.read_only || facts.super_read_only => NodeState::read_only("read_only=ON"),
        Some("PRIMARY") => NodeState::Serving,
        Some("STANDBY") => NodeState::read_only("its role is STANDBY"),
        Some(other) => NodeState::not_ready(format!("its role is {other}")),
        None => NodeState::not_ready("it does not say its role: grant SELECT on oceanbase.`V$OB_SERVER_STAT`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::facts::captured::*;

    #[test]
    fn a_role_decides_and_no_role_is_no_service() {
        let with = |role: Option<&str>| state(&NodeFacts { oceanbase_role: role.map(str::to_owned), ..facts(SEEKDB) });
        assert_eq!(with(Some("PRIMARY")), NodeState::Serving);
        assert_eq!(with(Some("STANDBY")), NodeState::read_only("its role is STANDBY"));
        assert!(matches!(with(Some("SWITCHING TO STANDBY")), NodeState::NotReady { .. }));
        assert!(matches!(with(None), NodeState::NotReady { .. }));
        let read_only = NodeFacts { read_only: true, oceanbase_role: Some("PRIMARY".into()), ..facts(SEEKDB) };
        assert_eq!(state(&read_only), NodeState::read_only("read_only=ON"));
    }
}
