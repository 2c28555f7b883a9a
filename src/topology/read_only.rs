//! The detector for servers that say by read_only whether they take writes: one server alone, and replication of any kind.

use crate::topology::NodeFacts;
use crate::topology::node::NodeState;

/// The state of a node that answers, by its own read-only flags.
pub fn state(facts: &NodeFacts) -> NodeState {
    if facts.offline_mode {
        NodeState::not_ready("offline_mode=ON: ordinary accounts cannot log in")
    } else if facts.super_read_only {
        NodeState::read_only("super_read_only=ON")
    } else if facts.read_only {
        NodeState::read_only("read_only=ON")
    } else if facts.innodb_read_only {
        NodeState::read_only("innodb_read_only=ON")
    } else {
        NodeState::Serving
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::facts::captured::*;

    #[test]
    fn states_captured_on_real_servers() {
        assert_eq!(state(&facts(MARIADB_ALONE)), NodeState::Serving);
        assert_eq!(state(&facts(MYSQL)), NodeState::Serving);
        assert_eq!(state(&facts(MARIADB_READ_ONLY)), NodeState::read_only("read_only=ON"));
        assert_eq!(state(&facts(MYSQL_SUPER_READ_ONLY)), NodeState::read_only("super_read_only=ON"));
        assert!(matches!(state(&facts(MYSQL_OFFLINE)), NodeState::NotReady { .. }));
    }
}
