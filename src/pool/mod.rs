//! Server sessions: dialled, kept, lent for a transaction, taken back.

pub mod dial;
pub mod endpoint;
pub mod flight;
pub mod lease;
pub mod prepared;
pub mod server_conn;
pub mod session;
pub mod setup;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use tokio::sync::{Semaphore, oneshot};

use crate::auth::accounts::AccountId;
use crate::config::PoolConfig;
use crate::metrics::Metrics;
use crate::metrics::labels::DialResult;
use crate::pool::dial::{DialContext, DialError, DialRequest};
use crate::pool::endpoint::{Clients, Endpoint, Handoff, Limits, Taken, Want};
use crate::pool::lease::{Lease, Place};
use crate::pool::session::ServerSession;
use crate::pool::setup::SetupError;
use crate::protocol::mysql::capability::Capabilities;
use crate::session::baseline::{Baseline, Interner};
use crate::session::pins::Pins;
use crate::session::state::CharacterSets;
use crate::topology::{NodeId, NodeView};

/// Why no server session could be had.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// None was free in time.
    #[error("no server session was free within {waited:?}")]
    Timeout {
        /// How long the client waited.
        waited: Duration,
        /// Pinned sessions.
        pinned: usize,
        /// Why they are pinned.
        pins: Pins,
    },
    /// The queue is full.
    #[error("the queue of waiting clients is full")]
    QueueFull,
    /// A new one could not be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// A new one could not be prepared for its work.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The exact session that was wanted is in use or gone.
    #[error("the server session is not free")]
    NotFree,
}

/// What a fresh login on a node gets.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The fingerprint of the node's global variables when it was seen.
    pub globals_fingerprint: u64,
    /// Its session variables.
    pub baseline: Arc<Baseline>,
    /// Its character sets without a client's wish.
    pub charsets: CharacterSets,
}

/// How to open server sessions of an account: what the dialler needs to know of a client's login.
pub use crate::pool::dial::Opening;

/// All server sessions of this belay.
pub struct Pool {
    endpoints: DashMap<(NodeId, AccountId), Warm, foldhash::fast::RandomState>,
    fresh: DashMap<(NodeId, AccountId, Capabilities), Fresh, foldhash::fast::RandomState>,
    interner: Mutex<Interner>,
    config: PoolConfig,
    dial: DialContext,
    serial: AtomicU64,
    /// Dials at one time, a node; first come, first served.
    dials: Vec<Semaphore>,
    metrics: Arc<Metrics>,
    clients: Arc<dyn Clients>,
}

#[derive(Clone, Debug)]
struct Warm {
    endpoint: Arc<Endpoint>,
    /// How to open another one to keep the minimum; the last login that worked.
    opening: Option<Opening>,
}

impl Pool {
    /// An empty pool.
    pub fn new(config: PoolConfig, dial: DialContext, metrics: Arc<Metrics>, clients: Arc<dyn Clients>) -> Arc<Pool> {
        let dials = metrics.nodes.iter().map(|_| Semaphore::new(config.dials_max)).collect();
        Arc::new(Pool {
            endpoints: DashMap::default(),
            fresh: DashMap::default(),
            interner: Mutex::default(),
            config,
            dial,
            serial: AtomicU64::new(1),
            dials,
            metrics,
            clients,
        })
    }

    /// What the dialler works with.
    pub fn dial_context(&self) -> &DialContext {
        &self.dial
    }

    /// The server sessions of an account on a node.
    pub fn endpoint(&self, node: NodeId, account: &AccountId) -> Arc<Endpoint> {
        if let Some(known) = self.endpoints.get(&(node, account.clone())) {
            return known.endpoint.clone();
        }
        let connections_max = self.config.server_connections_max;
        let pinned_max = match self.config.pinned_max {
            0 => connections_max.saturating_sub(1).max(1),
            n => n,
        };
        let limits = Limits {
            connections_max,
            pinned_max,
            waiters_max: self.config.waiters_max,
            passed_over_max: self.config.passed_over_max,
        };
        self.endpoints
            .entry((node, account.clone()))
            .or_insert_with(|| Warm { endpoint: Endpoint::new(limits, self.clients.clone()), opening: None })
            .endpoint
            .clone()
    }

    /// A server session for a client: the nearest free one, a new one, or the first that comes free within `acquire_timeout_ms`.
    /// Cancel safe: a session that was handed over and not received goes back.
    pub async fn acquire(
        &self,
        node: &NodeView,
        account: &AccountId,
        opening: &Opening,
        want: &Want<'_>,
    ) -> Result<Lease, AcquireError> {
        let endpoint = self.endpoint(node.id, account);
        let started = Instant::now();
        let timeout = Duration::from_millis(self.config.acquire_timeout_ms);
        loop {
            match endpoint.take(want) {
                Taken::Session(session) => {
                    let lease = Lease::new(session, Place::counted(endpoint.clone()));
                    if let Ok(lease) = self.still_good(lease).await {
                        return Ok(lease);
                    }
                }
                Taken::Permit(evicted) => {
                    let place = Place::counted(endpoint.clone());
                    let place = match evicted {
                        Some(evicted) => Lease::new(evicted, place).vacate().await,
                        None => place,
                    };
                    return Box::pin(self.open(node, account, opening, want, place)).await;
                }
                Taken::QueueFull => return Err(AcquireError::QueueFull),
                Taken::NotFree => return Err(AcquireError::NotFree),
                Taken::Wait(receiver) => {
                    let mut waiting = Waiting { receiver, endpoint: &endpoint, served: false };
                    let left = timeout.saturating_sub(started.elapsed());
                    let waiters = self.metrics.nodes.get(node.id.index()).map(|n| &n.pool_waiters);
                    if let Some(waiters) = waiters {
                        waiters.increment(1.0);
                    }
                    let handoff = tokio::time::timeout(left, &mut waiting.receiver).await;
                    if let Some(waiters) = waiters {
                        waiters.decrement(1.0);
                    }
                    self.metrics.pool_wait.record(started.elapsed());
                    waiting.served = handoff.is_ok();
                    match handoff {
                        Ok(Ok(Handoff::Session(session))) => {
                            let lease = Lease::new(session, Place::counted(endpoint.clone()));
                            if lease.looks_alive() {
                                return Ok(lease);
                            }
                            // Its turn has come: the place of the dead one is this client's.
                            let place = lease.vacate().await;
                            return Box::pin(self.open(node, account, opening, want, place)).await;
                        }
                        Ok(Ok(Handoff::Permit)) => {
                            let place = Place::counted(endpoint.clone());
                            return Box::pin(self.open(node, account, opening, want, place)).await;
                        }
                        Ok(Err(_)) | Err(_) => {
                            let (pinned, pins) = endpoint.pins_in_the_way();
                            return Err(AcquireError::Timeout { waited: started.elapsed(), pinned, pins });
                        }
                    }
                }
            }
        }
    }

    /// A free session that can be used: its connection looks alive, and one that idled for long answers a ping. Otherwise it is given back to be
    /// thrown away.
    async fn still_good(&self, mut lease: Lease) -> Result<Lease, Lease> {
        if !lease.looks_alive() {
            return Err(lease);
        }
        if lease.idle_since.elapsed() <= Duration::from_millis(self.config.check_after_idle_ms) {
            return Ok(lease);
        }
        let limit = Duration::from_millis(self.config.dial_timeout_ms);
        let ping = Box::pin(tokio::time::timeout(limit, flight::fly(&mut lease.conn, b"", &[flight::Ask::Ping]))).await;
        lease.last_use = None;
        match ping {
            Ok(Ok(answers)) if answers.iter().all(|a| a.error.is_none()) => Ok(lease),
            _ => Err(lease),
        }
    }

    async fn open(
        &self,
        node: &NodeView,
        account: &AccountId,
        opening: &Opening,
        want: &Want<'_>,
        place: Place,
    ) -> Result<Lease, AcquireError> {
        let request = DialRequest::new(node, account, opening, want.behaviour);
        // Never closed, so that the only thing to wait for is one's turn; each dial before it is bounded by `dial_timeout_ms`.
        let _turn = match self.dials.get(node.id.index()) {
            Some(dials) => dials.acquire().await.ok(),
            None => None,
        };
        let dialled = dial::dial(&request, &self.dial).await;
        if let Some(counts) = self.metrics.nodes.get(node.id.index()) {
            counts.server_dials.increment(match &dialled {
                Ok(_) => DialResult::Ok,
                Err(error) => error.label(),
            });
        }
        let conn = dialled?;
        let session = self.prepare(node, account, conn, want.behaviour).await?;
        if let Some(mut warm) = self.endpoints.get_mut(&(node.id, account.clone())) {
            warm.opening = Some(opening.clone());
        }
        Ok(Lease::new(session, place))
    }

    /// Turns a logged-in connection into a server session: tracking switched on, baseline read.
    pub async fn prepare(
        &self,
        node: &NodeView,
        account: &AccountId,
        conn: server_conn::ServerConn,
        behaviour: crate::protocol::mysql::capability::Capabilities,
    ) -> Result<Box<ServerSession>, SetupError> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let made = setup::prepare(conn, node, behaviour, serial, self.config.prepared_statements_max, |baseline| {
            self.interner.lock().unwrap_or_else(PoisonError::into_inner).intern(baseline)
        })
        .await?;
        let fresh = Fresh {
            globals_fingerprint: node.globals_fingerprint,
            baseline: made.state.baseline().clone(),
            charsets: made.state.charsets().clone(),
        };
        self.fresh.insert((node.id, account.clone(), behaviour & CHANGES_VARIABLES), fresh);
        Ok(made)
    }

    /// The shared copy of a baseline.
    pub fn intern(&self, baseline: Baseline) -> Arc<Baseline> {
        self.interner.lock().unwrap_or_else(PoisonError::into_inner).intern(baseline)
    }

    /// What a fresh login of this account on this node gets, if that is known and the node's globals have not changed since.
    pub fn fresh(&self, node: &NodeView, account: &AccountId, behaviour: Capabilities) -> Option<Fresh> {
        let fresh = self.fresh.get(&(node.id, account.clone(), behaviour & CHANGES_VARIABLES))?;
        (fresh.globals_fingerprint == node.globals_fingerprint).then(|| fresh.clone())
    }

    /// Records what a fresh login gets, from the node's global variables, read again after they changed.
    pub fn set_fresh(
        &self,
        node: &NodeView,
        account: &AccountId,
        behaviour: Capabilities,
        globals: &Baseline,
        charsets: CharacterSets,
    ) -> Fresh {
        let baseline = self.intern(of_login(globals, behaviour));
        let fresh = Fresh { globals_fingerprint: node.globals_fingerprint, baseline, charsets };
        self.fresh.insert((node.id, account.clone(), behaviour & CHANGES_VARIABLES), fresh.clone());
        fresh
    }

    /// Called each second: closes what idled too long, is too old or dead, and keeps the minimum warm on the nodes that serve.
    pub fn upkeep(self: &Arc<Pool>, now: Instant, serving: &dyn Fn(NodeId) -> Option<Arc<NodeView>>) {
        let idle = Duration::from_millis(self.config.idle_timeout_ms);
        let age = Duration::from_millis(self.config.age_max_ms);
        let endpoints: Vec<((NodeId, AccountId), Warm)> =
            self.endpoints.iter().map(|entry| (entry.key().clone(), entry.value().clone())).collect();
        for ((node, account), warm) in endpoints {
            let view = serving(node);
            let gone = if view.is_some() {
                warm.endpoint.expire(now, idle, age, self.config.server_connections_min)
            } else {
                warm.endpoint.drain_free()
            };
            for session in gone {
                lease::close_in_background(session, Place::counted(warm.endpoint.clone()));
            }
            if let (Some(view), Some(opening)) = (view, warm.opening)
                && warm.endpoint.take_place_below(self.config.server_connections_min)
            {
                let place = Place::counted(warm.endpoint.clone());
                let pool = self.clone();
                tokio::spawn(async move { pool.warm_one(&view, &account, opening, place).await });
            }
        }
    }

    async fn warm_one(&self, node: &NodeView, account: &AccountId, opening: Opening, place: Place) {
        let Some(fresh) = self.fresh(node, account, opening.behaviour) else { return };
        let state = crate::session::state::SessionState::new(fresh.baseline, fresh.charsets, None);
        let want = Want { client: 0, behaviour: opening.behaviour, state: &state, exactly: None };
        match self.open(node, account, &opening, &want, place).await {
            Ok(lease) => lease.release(Instant::now()),
            Err(error) => {
                tracing::debug!(node = %node.name, %error, "a server session to keep the minimum could not be opened");
                // A refused secret is never tried again for warmth alone: that is how accounts get locked.
                if let Some(mut warm) = self.endpoints.get_mut(&(node.id, account.clone())) {
                    warm.opening = None;
                }
            }
        }
    }

    /// Free, leased and waiting per node and account.
    pub fn counts(&self) -> Vec<(NodeId, AccountId, (usize, usize, usize))> {
        self.endpoints.iter().map(|e| (e.key().0, e.key().1.clone(), e.value().endpoint.counts())).collect()
    }

    /// Closes all free sessions now and every other one when it comes back.
    pub fn close(&self) {
        for entry in &self.endpoints {
            for session in entry.endpoint.close() {
                lease::close_in_background(session, Place::counted(entry.endpoint.clone()));
            }
        }
    }
}

/// The capabilities by which a login changes its own session variables.
const CHANGES_VARIABLES: Capabilities = Capabilities::INTERACTIVE.union(Capabilities::IGNORE_SPACE);

/// The session variables of a login with these capabilities, from the global ones.
fn of_login(globals: &Baseline, behaviour: Capabilities) -> Baseline {
    let value_of = |name: &str, value: &Bytes| match name {
        "wait_timeout" if behaviour.contains(Capabilities::INTERACTIVE) => {
            globals.get("interactive_timeout").unwrap_or(value).clone()
        }
        "sql_mode" if behaviour.contains(Capabilities::IGNORE_SPACE) => {
            let has = value.split(|b| *b == b',').any(|mode| mode.eq_ignore_ascii_case(b"IGNORE_SPACE"));
            match (has, value.is_empty()) {
                (true, _) => value.clone(),
                (false, true) => Bytes::from_static(b"IGNORE_SPACE"),
                (false, false) => Bytes::from([b"IGNORE_SPACE,", &value[..]].concat()),
            }
        }
        _ => value.clone(),
    };
    Baseline::new(globals.iter().map(|(name, value)| (name.clone(), value_of(name, value))))
}

/// A place in the queue. If its owner goes away after the hand-over, what was handed over is not lost.
struct Waiting<'a> {
    receiver: oneshot::Receiver<Handoff>,
    endpoint: &'a Arc<Endpoint>,
    served: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.served {
            return;
        }
        self.receiver.close();
        match self.receiver.try_recv() {
            Ok(Handoff::Session(session)) => {
                Lease::new(session, Place::counted(self.endpoint.clone())).release(Instant::now());
            }
            Ok(Handoff::Permit) => drop(Place::counted(self.endpoint.clone())),
            Err(_) => self.endpoint.forget_gone_waiters(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_changes_what_its_capabilities_say() {
        let globals = Baseline::new([
            (Arc::from("interactive_timeout"), Bytes::from_static(b"7")),
            (Arc::from("sql_mode"), Bytes::from_static(b"ANSI")),
            (Arc::from("wait_timeout"), Bytes::from_static(b"5")),
        ]);
        assert_eq!(of_login(&globals, Capabilities::FOUND_ROWS), globals);
        let both = of_login(&globals, CHANGES_VARIABLES);
        assert_eq!(both.get("wait_timeout").map(|v| &v[..]), Some(&b"7"[..]));
        assert_eq!(both.get("sql_mode").map(|v| &v[..]), Some(&b"IGNORE_SPACE,ANSI"[..]));
        assert_eq!(of_login(&both, CHANGES_VARIABLES), both);
    }
}
