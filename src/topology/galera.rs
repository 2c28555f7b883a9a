//! The detector for Galera: from what a node says of wsrep to what it may be used for.
//!
//! Source: the status variables of Galera, and what MariaDB 10.11 with galera-4 was seen to say in each state.

use crate::topology::facts::WsrepFacts;
use crate::topology::node::NodeState;
use crate::topology::{NodeFacts, read_only};

/// `wsrep_local_state` of a node that has all writes of the cluster and takes part in flow control.
const STATE_SYNCED: u32 = 4;
/// `wsrep_local_state` of a donor, or of a node with `wsrep_desync=ON`.
const STATE_DONOR_OR_DESYNCED: u32 = 2;

/// The state of a Galera node. The order of the checks is the order of what a person should hear first.
pub fn state(wsrep: &WsrepFacts, facts: &NodeFacts) -> NodeState {
    if !wsrep.on {
        return NodeState::not_ready("wsrep_on=OFF: its writes would reach no other node");
    }
    if !wsrep.cluster_status.eq_ignore_ascii_case("Primary") {
        return NodeState::not_ready(format!(
            "wsrep_cluster_status={}: not in the primary component",
            wsrep.cluster_status
        ));
    }
    if !wsrep.ready {
        return NodeState::not_ready("wsrep_ready=OFF");
    }
    if wsrep.rejects_queries {
        return NodeState::not_ready("wsrep_reject_queries is set");
    }
    match wsrep.local_state {
        Some(STATE_SYNCED) => {}
        Some(STATE_DONOR_OR_DESYNCED) if wsrep.desync => {
            return NodeState::not_ready("wsrep_desync=ON: it may lag behind the cluster without limit");
        }
        Some(STATE_DONOR_OR_DESYNCED) if wsrep.donor_rejects_queries => {
            return NodeState::not_ready("donor, and wsrep_sst_donor_rejects_queries=ON");
        }
        Some(STATE_DONOR_OR_DESYNCED) => {
            return NodeState::not_ready("donor of a state transfer: it may lag behind the cluster");
        }
        Some(n) => return NodeState::not_ready(format!("wsrep_local_state={n} ({})", wsrep.local_state_comment)),
        None => return NodeState::not_ready("wsrep_local_state is not said"),
    }
    if wsrep.desync {
        return NodeState::not_ready("wsrep_desync=ON: it may lag behind the cluster without limit");
    }
    read_only::state(facts)
}

/// Whether a node that is not synced may serve where no other node does: a donor, or a desynced node, of the primary component has
/// every write of the cluster or will apply it in order. Without this, two nodes would stop serving whenever one of them rejoins.
pub fn serves_as_last(wsrep: &WsrepFacts, facts: &NodeFacts) -> bool {
    let synced = WsrepFacts { local_state: Some(STATE_SYNCED), desync: false, ..wsrep.clone() };
    wsrep.local_state == Some(STATE_DONOR_OR_DESYNCED)
        && (wsrep.desync || !wsrep.donor_rejects_queries)
        && state(&synced, facts).can_write()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::facts::captured::*;

    fn of(line: &str) -> NodeState {
        let facts = facts(line);
        state(facts.wsrep.as_ref().unwrap(), &facts)
    }

    #[test]
    fn states_captured_on_a_real_cluster() {
        assert_eq!(of(SYNCED), NodeState::Serving);
        assert!(of(DESYNCED).why().starts_with("wsrep_desync=ON"));
        assert!(of(REJECTING).why().starts_with("wsrep_reject_queries"));
        assert!(of(WSREP_SWITCHED_OFF).why().starts_with("wsrep_on=OFF"));
        assert!(of(NON_PRIMARY).why().contains("non-Primary"));
    }

    #[test]
    fn donors_serve_where_nobody_else_does() {
        let last = |line: &str| {
            let facts = facts(line);
            serves_as_last(facts.wsrep.as_ref().unwrap(), &facts)
        };
        assert!(last(DESYNCED));
        let donor = DESYNCED.replace("wsrep_desync=ON", "wsrep_desync=OFF");
        assert!(last(&donor));
        assert!(!last(&donor.replace("donor_rejects_queries=OFF", "donor_rejects_queries=ON")));
        assert!(!last(&DESYNCED.replace(";read_only=OFF", ";read_only=ON")));
        for line in [SYNCED, NON_PRIMARY, REJECTING, WSREP_SWITCHED_OFF] {
            assert!(!last(line), "{line}");
        }
    }

    #[test]
    fn donors_joiners_and_read_only_nodes_do_not_serve_writes() {
        assert!(of(&SYNCED.replace("wsrep_local_state=4", "wsrep_local_state=2")).why().starts_with("donor of"));
        assert!(
            of(&SYNCED.replace("wsrep_local_state=4", "wsrep_local_state=3")).why().starts_with("wsrep_local_state=3")
        );
        assert!(matches!(of(&SYNCED.replace(";read_only=OFF", ";read_only=ON")), NodeState::ReadOnly { .. }));
    }
}
