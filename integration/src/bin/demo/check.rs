//! The end of the story as the nodes tell it: after the load has ended, each of them is asked directly, not through belay.

use belay_integration::Result;
use belay_integration::servers::admin_connection;

use super::load::{ACCOUNTS, BALANCE};

/// The rows of one client with transactions, on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Its counter, which each transaction raised by one.
    pub counter: u64,
    /// Its entries, one of each transaction.
    pub entries: u64,
    /// The highest number of an entry.
    pub highest: u64,
}

/// What one node has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeRows {
    /// Its name.
    pub node: String,
    /// The sum of all accounts.
    pub total: u64,
    /// For each client, in order.
    pub clients: Vec<Kept>,
}

/// The sum that all transfers keep.
pub const TOTAL: u64 = ACCOUNTS * BALANCE;

/// Asks a node, once it has everything that the group has.
pub fn rows_of(node: &str, address: &str) -> Result<NodeRows> {
    let mut admin = admin_connection(address)?;
    admin.query("SET SESSION wsrep_sync_wait = 1")?;
    let total = admin.text("SELECT SUM(balance) FROM test.demo_account")?.parse()?;
    let sql = "SELECT c.n, COUNT(e.seq), COALESCE(MAX(e.seq), 0) FROM test.demo_counter c \
               LEFT JOIN test.demo_entry e USING (client) GROUP BY c.client, c.n ORDER BY c.client";
    let kept = |row: Vec<String>| -> Result<Kept> {
        let number = |i: usize| -> Result<u64> { Ok(row.get(i).ok_or("a column is missing")?.parse()?) };
        Ok(Kept { counter: number(0)?, entries: number(1)?, highest: number(2)? })
    };
    let clients = admin.query(sql)?.rows().texts().into_iter().map(kept).collect::<Result<_>>()?;
    Ok(NodeRows { node: node.to_owned(), total, clients })
}

/// What is wrong on a node, where client `i` believes that `done[i]` of its transactions are committed.
pub fn compare(rows: &NodeRows, done: &[u64]) -> Vec<String> {
    let node = &rows.node;
    let mut wrong = Vec::new();
    if rows.total != TOTAL {
        wrong.push(format!("{node}: the accounts hold {} and must hold {TOTAL}", rows.total));
    }
    if rows.clients.len() != done.len() {
        wrong.push(format!("{node}: counters of {} clients, not of {}", rows.clients.len(), done.len()));
    }
    for (i, (kept, done)) in rows.clients.iter().zip(done).enumerate() {
        if *kept != (Kept { counter: *done, entries: *done, highest: *done }) {
            let Kept { counter, entries, highest } = kept;
            wrong.push(format!(
                "{node}: client {} has committed {done}, but its counter is {counter} and its entries are {entries} up to {highest}",
                i + 1
            ));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(total: u64, clients: &[(u64, u64, u64)]) -> NodeRows {
        let kept = |&(counter, entries, highest): &(u64, u64, u64)| Kept { counter, entries, highest };
        NodeRows { node: "n1".into(), total, clients: clients.iter().map(kept).collect() }
    }

    #[test]
    fn nothing_lost_and_nothing_twice() {
        assert_eq!(compare(&rows(TOTAL, &[(3, 3, 3), (0, 0, 0)]), &[3, 0]), [""; 0]);
    }

    #[test]
    fn each_way_to_be_wrong_is_found() {
        for (what, rows) in [
            ("money made", rows(TOTAL + 1, &[(3, 3, 3)])),
            ("a commit lost", rows(TOTAL, &[(2, 2, 2)])),
            ("a commit too many", rows(TOTAL, &[(4, 4, 4)])),
            ("counted twice", rows(TOTAL, &[(4, 3, 3)])),
            ("one lost, another one too many", rows(TOTAL, &[(3, 3, 4)])),
            ("no rows", rows(TOTAL, &[])),
        ] {
            assert_eq!(compare(&rows, &[3]).len(), 1, "{what}");
        }
    }
}
