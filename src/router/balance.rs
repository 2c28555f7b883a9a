//! Which of several readers serves a client session: one of its own choosing, so that sessions spread evenly and each stays where its caches are.

use crate::topology::NodeId;

/// The reader for a client session: the last one while it serves, else the one that ranks highest for this session. Ranks are a hash of connection
/// id and node, so a reader that goes away moves only the sessions that it had.
pub fn choose(connection: u32, last: Option<NodeId>, serving: impl Iterator<Item = NodeId>) -> Option<NodeId> {
    let mut best: Option<(u64, NodeId)> = None;
    for node in serving {
        if Some(node) == last {
            return last;
        }
        let rank = rank(connection, node);
        if best.is_none_or(|(highest, _)| rank > highest) {
            best = Some((rank, node));
        }
    }
    best.map(|(_, node)| node)
}

/// The finaliser of splitmix64: every bit of the input changes about half of the output.
fn rank(connection: u32, node: NodeId) -> u64 {
    let mut x = (u64::from(connection) << 16 | u64::from(node.0)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(ids: &[u16]) -> impl Iterator<Item = NodeId> + '_ {
        ids.iter().copied().map(NodeId)
    }

    #[test]
    fn sessions_spread() {
        let mut counts = [0u32; 3];
        for connection in 1..=3_000 {
            counts[choose(connection, None, nodes(&[0, 1, 2])).unwrap().index()] += 1;
        }
        assert!(counts.iter().all(|n| (850..1_150).contains(n)), "{counts:?}");
    }

    proptest! {
        #[test]
        fn only_who_serves_is_chosen_and_the_last_one_while_it_does(
            connection: u32,
            last in proptest::option::of(0u16..8),
            serving in proptest::collection::hash_set(0u16..8, 0..8),
        ) {
            let list: Vec<u16> = serving.iter().copied().collect();
            let chosen = choose(connection, last.map(NodeId), nodes(&list));
            prop_assert_eq!(chosen.is_some(), !list.is_empty());
            if let Some(node) = chosen {
                prop_assert!(serving.contains(&node.0));
            }
            if let Some(last) = last.filter(|l| serving.contains(l)) {
                prop_assert_eq!(chosen, Some(NodeId(last)));
            }
            // Neither the order of the nodes nor the presence of others that were not chosen matters.
            let reversed: Vec<u16> = list.iter().rev().copied().collect();
            prop_assert_eq!(choose(connection, last.map(NodeId), nodes(&reversed)), chosen);
            if let Some(node) = chosen {
                let fewer: Vec<u16> = list.iter().copied().filter(|n| *n == node.0 || n % 2 == 0).collect();
                prop_assert_eq!(choose(connection, last.map(NodeId), nodes(&fewer)), chosen);
            }
        }
    }
}
