//! A MariaDB primary with replicas (semi-synchronous, GTID).

use std::time::Duration;

use super::mariadb::{Instance, data_template};
use crate::Result;
use crate::paths::Scratch;
use crate::process::wait_for;

/// A primary (node 0) and its replicas.
#[derive(Debug)]
pub struct Replication {
    nodes: Vec<Instance>,
    _scratch: Scratch,
}

impl Replication {
    /// Starts a primary and `replicas` replicas, and waits until all replicate.
    pub fn start(replicas: usize) -> Result<Replication> {
        let scratch = Scratch::new("replication")?;
        let data = data_template()?;
        let mut nodes = Vec::new();
        for i in 0..=replicas {
            let name = format!("n{}", i + 1);
            let mut node = Instance::prepare(&name, scratch.path().join(&name), &data)?;
            node.options([
                format!("--server-id={}", i + 1),
                format!("--read-only={}", u8::from(i > 0)),
                "--log-bin=binlog".into(),
                "--log-slave-updates".into(),
                "--gtid-strict-mode=1".into(),
                "--binlog-format=ROW".into(),
                "--slave-net-timeout=5".into(),
                "--rpl-semi-sync-master-enabled=1".into(),
                // A replica has nobody who acknowledges what it applies, and would wait 10 s for somebody with each transaction.
                "--rpl-semi-sync-master-wait-no-slave=0".into(),
                "--rpl-semi-sync-slave-enabled=1".into(),
                "--rpl-semi-sync-master-wait-point=AFTER_SYNC".into(),
            ]);
            node.start()?;
            nodes.push(node);
        }
        let mut replication = Replication { nodes, _scratch: scratch };
        for i in 1..=replicas {
            replication.follow(i, 0)?;
        }
        Ok(replication)
    }

    /// The nodes; the first was the primary at the start.
    pub fn nodes(&self) -> &[Instance] {
        &self.nodes
    }

    /// Node `i`, from 0.
    pub fn node_mut(&mut self, i: usize) -> Result<&mut Instance> {
        self.nodes.get_mut(i).ok_or_else(|| format!("there is no node {i}").into())
    }

    /// The addresses of all nodes, in order.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Instance::address).collect()
    }

    /// Makes node `replica` replicate from node `primary`, and waits until it does.
    pub fn follow(&mut self, replica: usize, primary: usize) -> Result<()> {
        let port = self.node_mut(primary)?.port();
        let mut wire = self.node_mut(replica)?.admin()?;
        wire.query("STOP SLAVE")?;
        wire.query(&format!(
            "CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='admin', MASTER_PASSWORD='admin', \
             MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1, MASTER_HEARTBEAT_PERIOD=2"
        ))?;
        wire.query("START SLAVE")?;
        wait_for("replication", Duration::from_secs(30), || {
            let status = wire.query("SHOW SLAVE STATUS").ok()?.rows();
            let at = |name: &str| {
                let column = status.columns.iter().position(|c| c == name)?;
                Some(status.texts().first()?.get(column)?.clone())
            };
            (at("Slave_IO_Running")? == "Yes" && at("Slave_SQL_Running")? == "Yes").then_some(())
        })
    }
}
