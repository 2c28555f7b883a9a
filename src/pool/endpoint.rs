//! One node and one account: its server sessions, its cap, its queue. One short lock, never held across an await.
//!
//! ```text
//!             acquire                       release
//!   (free) ───────────▶ leased ──────────────────────────▶ free, or straight to the first waiter
//!                          │ drop (error, pin of unknown state, kill in flight)
//!                          ▼
//!                       closing ── the node has closed it ──▶ (a place in the cap is free again)
//! ```
//! A session counts against the cap from before it is dialled until the node has confirmed its end, so the node never sees more.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::oneshot;

use crate::pool::session::ServerSession;
use crate::protocol::mysql::capability::Capabilities;
use crate::session::baseline::Baseline;
use crate::session::pins::Pins;
use crate::session::plan;
use crate::session::state::SessionState;

/// What a client session wants of a server session.
#[derive(Clone, Copy, Debug)]
pub struct Want<'a> {
    /// The client's connection id.
    pub client: u32,
    /// Its behaviour capabilities.
    pub behaviour: Capabilities,
    /// Its state.
    pub state: &'a SessionState,
    /// The one server session that will do, by its serial number; any if `None`.
    pub exactly: Option<u64>,
}

/// The clients, as far as the pool has to do with them.
pub trait Clients: std::fmt::Debug + Send + Sync {
    /// Somebody waits for a server session, and this client may keep one for a reason that it can do without.
    fn wanted(&self, client: u32);
    /// Whether only the server session with this serial number knows what LAST_INSERT_ID() is for the client.
    fn needs_insert_id(&self, client: u32, serial: u64) -> bool;
    /// It was read there; `None`: it can't be read any more.
    fn insert_id_read(&self, client: u32, serial: u64, id: Option<u64>);
}

/// What a waiter gets.
#[derive(Debug)]
pub enum Handoff {
    /// A server session.
    Session(Box<ServerSession>),
    /// The right to dial one: a place in the cap, already counted.
    Permit,
}

#[derive(Debug)]
struct Waiter {
    behaviour: Capabilities,
    fingerprint: u64,
    needs_no_schema: bool,
    baseline: Arc<Baseline>,
    passed_over: u32,
    slot: oneshot::Sender<Handoff>,
}

#[derive(Debug, Default)]
struct Inner {
    #[allow(clippy::vec_box)] // A session is large and changes hands often: it moves as a pointer.
    free: Vec<Box<ServerSession>>,
    /// Free, leased, being dialled, being closed.
    counted: usize,
    waiters: VecDeque<Waiter>,
    pinned: HashMap<u32, Pins>,
    closed: bool,
}

/// The limits of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Server sessions at one time.
    pub connections_max: usize,
    /// Of these, pinned for lasting reasons.
    pub pinned_max: usize,
    /// Clients waiting.
    pub waiters_max: usize,
    /// How often the first waiter may be passed over.
    pub passed_over_max: u32,
}

/// What [`Endpoint::take`] found.
#[derive(Debug)]
pub enum Taken {
    /// A free server session.
    Session(Box<ServerSession>),
    /// A place in the cap: dial. A free session that did not fit had to go for it where one is given (close it first).
    Permit(Option<Box<ServerSession>>),
    /// All are in use: wait.
    Wait(oneshot::Receiver<Handoff>),
    /// The queue is full.
    QueueFull,
    /// The exact session that was wanted is not free.
    NotFree,
}

/// The server sessions of one account on one node.
#[derive(Debug)]
pub struct Endpoint {
    limits: Limits,
    clients: Arc<dyn Clients>,
    inner: Mutex<Inner>,
}

impl Endpoint {
    /// An empty endpoint.
    pub fn new(limits: Limits, clients: Arc<dyn Clients>) -> Arc<Endpoint> {
        Arc::new(Endpoint { limits, clients, inner: Mutex::default() })
    }

    /// Whose server sessions these are.
    pub fn clients(&self) -> &Arc<dyn Clients> {
        &self.clients
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic while the lock is held can't leave the lists half-changed: each change is one push or pop.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the nearest free session, else a place to dial one, else joins the queue.
    pub fn take(&self, want: &Want<'_>) -> Taken {
        let mut inner = self.lock();
        if let Some(serial) = want.exactly {
            return match inner.free.iter().position(|s| s.serial == serial) {
                Some(at) => Taken::Session(inner.free.swap_remove(at)),
                None => Taken::NotFree,
            };
        }
        if inner.waiters.is_empty()
            && let Some(at) = nearest(&inner.free, want)
        {
            return Taken::Session(inner.free.remove(at));
        }
        if inner.waiters.is_empty() && inner.counted < self.limits.connections_max {
            inner.counted += 1;
            return Taken::Permit(None);
        }
        if inner.waiters.is_empty() && !inner.free.is_empty() {
            // None of them can serve this client: the one that has been free the longest makes place, if possible one that nobody misses.
            let at = inner.free.iter().position(|s| s.unread_insert_id.is_none()).unwrap_or(0);
            return Taken::Permit(Some(inner.free.remove(at)));
        }
        if inner.waiters.len() >= self.limits.waiters_max {
            return Taken::QueueFull;
        }
        let (slot, receiver) = oneshot::channel();
        inner.waiters.push_back(Waiter {
            behaviour: want.behaviour,
            fingerprint: want.state.fingerprint(),
            needs_no_schema: want.state.schema().is_none(),
            baseline: want.state.baseline().clone(),
            passed_over: 0,
            slot,
        });
        let holders: Vec<u32> =
            inner.pinned.iter().filter(|(_, p)| p.has_momentary()).map(|(client, _)| *client).collect();
        drop(inner);
        for client in holders {
            self.clients.wanted(client);
        }
        Taken::Wait(receiver)
    }

    /// Whether anybody waits.
    pub fn has_waiters(&self) -> bool {
        !self.lock().waiters.is_empty()
    }

    /// Gives a clean session back: to a waiter it fits, else to the free ones. Returns one that has to be closed so that the first waiter, whom
    /// it can't serve, may dial: it keeps its place in the cap until then.
    #[must_use]
    pub fn give(&self, mut session: Box<ServerSession>, now: Instant) -> Option<Box<ServerSession>> {
        let mut inner = self.lock();
        if inner.closed {
            return Some(session);
        }
        loop {
            let Some(at) = choose_waiter(&mut inner.waiters, &session, self.limits.passed_over_max) else {
                if inner.waiters.is_empty() {
                    session.idle_since = now;
                    inner.free.push(session);
                    return None;
                }
                return Some(session);
            };
            let Some(waiter) = inner.waiters.remove(at) else { continue };
            match waiter.slot.send(Handoff::Session(session)) {
                Ok(()) => return None,
                Err(Handoff::Session(back)) => session = back,
                Err(Handoff::Permit) => return None,
            }
        }
    }

    /// A place in the cap is free: the session is closed, or was never opened. The first waiter may dial.
    pub fn place_free(&self) {
        let mut inner = self.lock();
        while let Some(waiter) = inner.waiters.pop_front() {
            if waiter.slot.send(Handoff::Permit).is_ok() {
                return;
            }
        }
        inner.counted = inner.counted.saturating_sub(1);
    }

    /// Takes those who wait no longer off the queue, so that they neither fill it nor are passed over.
    pub fn forget_gone_waiters(&self) {
        self.lock().waiters.retain(|w| !w.slot.is_closed());
    }

    /// Whether a client may pin for a lasting reason: at least one session has to stay for transactions.
    pub fn may_pin(&self, client: u32) -> bool {
        let inner = self.lock();
        inner.pinned.contains_key(&client)
            || inner.pinned.values().filter(|p| p.is_lasting()).count() < self.limits.pinned_max
    }

    /// Records what pins a client's server session here; none takes it off the list.
    pub fn set_pins(&self, client: u32, pins: Pins) {
        let mut inner = self.lock();
        if pins.is_empty() {
            inner.pinned.remove(&client);
        } else {
            inner.pinned.insert(client, pins);
        }
    }

    /// The pins that stand in the way of waiters: how many sessions, and for which reasons.
    pub fn pins_in_the_way(&self) -> (usize, Pins) {
        let inner = self.lock();
        (inner.pinned.len(), inner.pinned.values().fold(Pins::NONE, |all, p| all.union(*p)))
    }

    /// Free sessions that are due to go: older than `age`, or idle for longer than `idle` beyond `keep` of them, or dead. The caller closes them.
    pub fn expire(
        &self,
        now: Instant,
        idle: std::time::Duration,
        age: std::time::Duration,
        keep: usize,
    ) -> Vec<Box<ServerSession>> {
        let mut inner = self.lock();
        let mut gone = Vec::new();
        let mut at = 0;
        while let Some(session) = inner.free.get(at) {
            let too_old = now.saturating_duration_since(session.opened_at) > age;
            let too_idle = inner.free.len() > keep && now.saturating_duration_since(session.idle_since) > idle;
            if too_old || too_idle || !session.looks_alive() {
                gone.push(inner.free.remove(at));
            } else {
                at += 1;
            }
        }
        gone
    }

    /// Takes all free sessions out, to close them: the node is gone, or belay is.
    pub fn drain_free(&self) -> Vec<Box<ServerSession>> {
        std::mem::take(&mut self.lock().free)
    }

    /// Takes a place for a session that keeps the endpoint warm, if `min` is not reached and nobody waits.
    pub fn take_place_below(&self, min: usize) -> bool {
        let mut inner = self.lock();
        if inner.counted >= min.min(self.limits.connections_max) || !inner.waiters.is_empty() {
            return false;
        }
        inner.counted += 1;
        true
    }

    /// From now on every returned session is closed.
    pub fn close(&self) -> Vec<Box<ServerSession>> {
        let mut inner = self.lock();
        inner.closed = true;
        std::mem::take(&mut inner.free)
    }

    /// Counted, free, waiting.
    pub fn counts(&self) -> (usize, usize, usize) {
        let inner = self.lock();
        (inner.counted, inner.free.len(), inner.waiters.len())
    }
}

/// Whether a session of one behaviour can serve a client of another: several statements in one COM_QUERY are switched on and off at a binding.
fn serves(session: Capabilities, client: Capabilities) -> bool {
    (session ^ client).difference(Capabilities::MULTI_STATEMENTS).is_empty()
}

/// The free session to take: the client's own last one, else an equal state, else the fewest differences; the most recently used among equals.
fn nearest(free: &[Box<ServerSession>], want: &Want<'_>) -> Option<usize> {
    let mut best: Option<(u32, usize)> = None;
    for (at, session) in free.iter().enumerate().rev() {
        if !serves(session.behaviour, want.behaviour) {
            continue;
        }
        let Ok(distance) = plan::distance(want.state, &session.state) else { continue };
        let own = session.last_use.is_some_and(|last| last.client == want.client);
        let score = distance.0 * 2 + u32::from(!own);
        if score == 0 {
            return Some(at);
        }
        if best.is_none_or(|(least, _)| score < least) {
            best = Some((score, at));
        }
    }
    best.map(|(_, at)| at)
}

/// The waiter to serve: the first one, unless one whose state is equal to the session's waits behind it and the first was not passed over too
/// often. A waiter the session can't serve at all is not chosen; if that is the first one, nobody is once it was passed over too often.
fn choose_waiter(waiters: &mut VecDeque<Waiter>, session: &ServerSession, passed_over_max: u32) -> Option<usize> {
    let fits = |w: &Waiter| {
        serves(session.behaviour, w.behaviour)
            && !(w.needs_no_schema && session.state.schema().is_some())
            // What was changed must be known to the waiter, or it could not be put back.
            && session.state.variables().iter().all(|(name, _)| w.baseline.knows(name))
    };
    let fingerprint = session.state.fingerprint();
    let first = waiters.front()?;
    if fits(first) && (first.fingerprint == fingerprint || first.passed_over >= passed_over_max) {
        return Some(0);
    }
    if first.passed_over >= passed_over_max {
        return None;
    }
    let chosen = waiters
        .iter()
        .position(|w| fits(w) && w.fingerprint == fingerprint)
        .or_else(|| waiters.iter().position(fits))?;
    for passed in waiters.iter_mut().take(chosen) {
        passed.passed_over += 1;
    }
    Some(chosen)
}

#[cfg(test)]
#[path = "endpoint_tests.rs"]
mod tests;
