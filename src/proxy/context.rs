//! What all session tasks share. Read-only after start, but for what synchronises itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::auth::accounts::{AccountId, AccountTable};
use crate::config::Config;
use crate::monitor::ClusterHandle;
use crate::pool::Pool;
use crate::pool::dial::{self, DialError, DialRequest, Opening};
use crate::pool::server_conn::ServerConn;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::client_login::LoginContext;
use crate::proxy::hidden_code::HiddenCode;
use crate::proxy::kill::Killer;
use crate::proxy::measure::Measure;
use crate::proxy::registry::Registry;
use crate::router::RuleSet;
use crate::topology::NodeId;

/// Everything a session task may use.
pub struct Context {
    /// The configuration.
    pub config: Arc<Config>,
    /// The cluster as the monitor sees it.
    pub cluster: Arc<ClusterHandle>,
    /// The accounts of the servers.
    pub accounts: Arc<ArcSwap<AccountTable>>,
    /// What a login works with.
    pub login: Arc<LoginContext>,
    /// Which statements go where.
    pub rules: Arc<RuleSet>,
    /// Server sessions.
    pub pool: Arc<Pool>,
    /// Client sessions.
    pub registry: Arc<Registry>,
    /// Counts.
    pub measure: Measure,
    /// Carries KILLs to nodes.
    pub killer: Killer,
    /// How the monitor account logs in.
    pub monitor: Opening,
    /// `cluster.hold_timeout_ms`
    pub hold_timeout: Duration,
    /// `session.client_write_timeout_ms`
    pub client_write_timeout: Duration,
    /// `session.packet_bytes_max`
    pub packet_bytes_max: usize,
    /// Statements that wait for a node now.
    pub holds: AtomicUsize,
    /// The order in which they were told to wait, in which they go on.
    pub hold_turns: Arc<tokio::sync::Semaphore>,
    /// A server has reported a GTID: one that reports none has written nothing.
    pub gtids_reported: AtomicBool,
    /// What views hide.
    pub hidden_code: HiddenCode,
}

/// A statement that waits for a node.
pub struct Held<'a> {
    cx: &'a Context,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.cx.holds.fetch_sub(1, Ordering::Relaxed);
        self.cx.measure.metrics().holds.decrement(1.0);
    }
}

impl Context {
    /// Counts a statement that waits; `None` beyond `cluster.holds_max`.
    pub fn begin_hold(&self) -> Option<Held<'_>> {
        if self.holds.fetch_add(1, Ordering::Relaxed) >= self.config.cluster.holds_max {
            self.holds.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        self.measure.metrics().holds.increment(1.0);
        self.measure.metrics().holds_total.increment(1);
        Some(Held { cx: self })
    }

    /// The name of a node.
    pub fn node_name(&self, node: NodeId) -> Arc<str> {
        self.cluster.load().node(node).map_or_else(|| Arc::from("?"), |view| view.name.clone())
    }

    /// LAST_INSERT_ID() of a client session was read by somebody who took its server session over.
    pub fn insert_id_read(&self, client: u32, serial: u64, id: Option<u64>) {
        self.registry.insert_id_read(client, serial, id);
    }

    /// The server session that knew it is gone.
    pub fn insert_id_lost(&self, client: u32, serial: u64) {
        self.insert_id_read(client, serial, None);
    }

    /// Whether an account may KILL sessions of others.
    pub fn may_kill_others(&self, account: &AccountId) -> bool {
        self.accounts.load().get(account).is_some_and(|a| a.may_kill_others)
    }

    /// A connection to a node as the monitor account.
    pub async fn dial_as_monitor(&self, node: NodeId) -> Result<ServerConn, DialError> {
        let snapshot = self.cluster.load();
        let (name, address, flavor) = match snapshot.node(node) {
            Some(view) => (view.name.clone(), view.address.clone(), view.flavor),
            // A node that is not in the snapshot is not in the configuration: the dial says that this is no address.
            None => (Arc::from("?"), Arc::from(""), Flavor::default()),
        };
        let request = DialRequest::monitor(&name, &address, &self.monitor).seen_as(flavor);
        dial::dial(&request, self.pool.dial_context()).await
    }
}
