//! The register of client sessions: connection ids, what runs where (for KILL), and the notes that /sessions shows.
//!
//! A wrapper around the concurrent map: only `Arc`s leave it, so no guard is ever held across an await.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;

use crate::auth::accounts::AccountId;
use crate::pool::endpoint::Clients;
use crate::router::Why;
use crate::session::pins::Pins;
use crate::session::transaction::Transaction;
use crate::topology::NodeId;

/// Bits of a connection id that count sessions; the eight above them hold the instance.
const COUNTER_BITS: u32 = 22;
/// Set in every connection id. Nodes count their connections from 1, so a client's id is nobody's on a node, and a node's is no client's. Clients that take
/// the id for a signed INT can hold it, and it has ten digits: as many as MariaDB's CONNECTION_ID() is wide.
const ID_MARK: u32 = 1 << 30;

/// Decisions kept per session.
pub const DECISIONS_MAX: usize = 16;

/// Somebody wants something of a session's task. Bits of [`SessionHandle::take_signals`].
pub mod signal {
    /// KILL CONNECTION.
    pub const KILLED: u8 = 1;
    /// belay drains.
    pub const DRAIN: u8 = 2;
    /// The node the session ran on is held to be lost although its connection is silent. The session may be on another one by the time it hears of
    /// it: whether its node is down is for it to look up.
    pub const NODE_LOST: u8 = 4;
    /// The session has idled for longer than it may.
    pub const IDLE_TOO_LONG: u8 = 8;
    /// A momentary pin has lasted long enough.
    pub const PIN_EXPIRED: u8 = 16;
    /// Others wait for a server session, and this one may keep its own for a momentary pin only.
    pub const PIN_WANTED: u8 = 32;
}

/// The server session that works for a client session now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its node.
    pub node: NodeId,
    /// The node's id for it.
    pub thread_id: u32,
}

/// What runs for a client session.
#[derive(Debug, Default)]
pub struct Running {
    /// The bound server session.
    pub target: Option<Target>,
    /// A statement of the client is on its way there or being answered.
    pub busy: bool,
    /// KILLs for this target that were sent and not answered.
    pub kills_in_flight: u32,
    /// A KILL reached the target: it may still take effect later, so nobody else may get this server session.
    pub tainted: bool,
}

/// One line of the story that /sessions/n tells.
#[derive(Clone, Copy, Debug)]
pub struct Decision {
    /// When.
    pub at: Instant,
    /// What was done.
    pub what: &'static str,
    /// Where, if a node was involved.
    pub node: Option<NodeId>,
    /// Why.
    pub why: Why,
}

/// What /sessions shows of a session; written by its task at each change.
#[derive(Debug)]
pub struct Notes {
    /// The last decisions, oldest first.
    pub decisions: VecDeque<Decision>,
    /// Pins and since when.
    pub pins: Pins,
    /// Since when.
    pub pinned_since: Option<Instant>,
    /// The transaction.
    pub transaction: Transaction,
    /// The schema.
    pub schema: Option<bytes::Bytes>,
    /// Statements so far.
    pub statements: u64,
    /// Names of variables that differ from the baseline.
    pub variables: Vec<Arc<str>>,
    /// Prepared statements.
    pub prepared: usize,
}

/// LAST_INSERT_ID() of a client session, when its server session may have gone to somebody else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InsertId {
    /// Known.
    Known(u64),
    /// Nothing was inserted yet: 0.
    #[default]
    Zero,
    /// On this server session (by serial number), not read yet.
    On(u64),
    /// The same, if it isn't 0 there: what it was before is lost.
    NewOn(u64),
    /// The server session went before it was read.
    Lost,
}

impl InsertId {
    /// The server session that knows it, if only that one does.
    pub fn server_session(self) -> Option<u64> {
        match self {
            InsertId::On(serial) | InsertId::NewOn(serial) => Some(serial),
            InsertId::Known(_) | InsertId::Zero | InsertId::Lost => None,
        }
    }

    /// After it was read there; `None`: it could not be.
    pub fn read(self, id: Option<u64>) -> InsertId {
        match (self, id) {
            (_, None) | (InsertId::NewOn(_), Some(0)) => InsertId::Lost,
            (_, Some(id)) => InsertId::Known(id),
        }
    }

    /// After a statement that may have made one on this server session, which had this one before.
    pub fn maybe_made_on(self, serial: u64) -> InsertId {
        match self {
            InsertId::Lost | InsertId::NewOn(_) => InsertId::NewOn(serial),
            InsertId::Known(_) | InsertId::Zero | InsertId::On(_) => InsertId::On(serial),
        }
    }
}

/// The part of a client session that others may see.
#[derive(Debug)]
pub struct SessionHandle {
    /// Its connection id.
    pub id: u32,
    /// When it connected.
    pub since: Instant,
    /// Where from.
    pub peer: String,
    account: Mutex<Option<AccountId>>,
    running: Mutex<Running>,
    notes: Mutex<Notes>,
    insert_id: Mutex<InsertId>,
    insert_id_told: tokio::sync::Notify,
    signals: AtomicU8,
    waker: Mutex<Option<Waker>>,
    /// Milliseconds after `since` at which the session went idle, plus one; 0 while it is busy.
    idle_from_ms: AtomicU64,
    /// Its own wait_timeout.
    idle_timeout_ms: AtomicU64,
    momentary_pin: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each critical section is one assignment; a panic elsewhere can't leave it half done.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl SessionHandle {
    fn new(id: u32, peer: String) -> SessionHandle {
        SessionHandle {
            id,
            since: Instant::now(),
            peer,
            account: Mutex::new(None),
            running: Mutex::default(),
            notes: Mutex::new(Notes {
                decisions: VecDeque::new(),
                pins: Pins::NONE,
                pinned_since: None,
                transaction: Transaction::Idle,
                schema: None,
                statements: 0,
                variables: Vec::new(),
                prepared: 0,
            }),
            insert_id: Mutex::default(),
            insert_id_told: tokio::sync::Notify::new(),
            signals: AtomicU8::new(0),
            waker: Mutex::new(None),
            idle_from_ms: AtomicU64::new(1),
            idle_timeout_ms: AtomicU64::new(0),
            momentary_pin: AtomicBool::new(false),
        }
    }

    /// The session has nothing to do since `now`; `momentary_pin` says that it keeps a server session for a reason that goes by itself.
    pub fn goes_idle(&self, now: Instant, momentary_pin: bool) {
        self.momentary_pin.store(momentary_pin, Ordering::Relaxed);
        self.idle_from_ms.store(now.duration_since(self.since).as_millis() as u64 + 1, Ordering::Relaxed);
    }

    /// The session works.
    pub fn goes_busy(&self) {
        self.idle_from_ms.store(0, Ordering::Relaxed);
    }

    /// Whether the session works.
    pub fn is_busy(&self) -> bool {
        self.idle_from_ms.load(Ordering::Relaxed) == 0
    }

    /// The session may idle this long; 0 is for ever.
    pub fn set_idle_timeout_ms(&self, ms: u64) {
        self.idle_timeout_ms.store(ms, Ordering::Relaxed);
    }

    /// Called each second for every session: wakes it if it has idled, or kept a momentary pin, for too long.
    pub fn check_idle(&self, now: Instant, pin_ms: u64) {
        let from = self.idle_from_ms.load(Ordering::Relaxed);
        if from == 0 {
            return;
        }
        let idle = (now.duration_since(self.since).as_millis() as u64 + 1).saturating_sub(from);
        let limit = self.idle_timeout_ms.load(Ordering::Relaxed);
        if limit > 0 && idle > limit {
            self.signal(signal::IDLE_TOO_LONG);
        } else if idle > pin_ms && self.momentary_pin.load(Ordering::Relaxed) {
            self.signal(signal::PIN_EXPIRED);
        }
    }

    /// The account, once logged in.
    pub fn account(&self) -> Option<AccountId> {
        lock(&self.account).clone()
    }

    /// Records the account of a login.
    pub fn set_account(&self, account: AccountId) {
        *lock(&self.account) = Some(account);
    }

    /// What runs for it.
    pub fn running(&self) -> MutexGuard<'_, Running> {
        lock(&self.running)
    }

    /// Its notes.
    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        lock(&self.notes)
    }

    /// Its LAST_INSERT_ID().
    pub fn insert_id(&self) -> MutexGuard<'_, InsertId> {
        lock(&self.insert_id)
    }

    /// LAST_INSERT_ID() of the session was read, or lost, on the server session that alone knew it; its task may wait for that.
    fn insert_id_read(&self, serial: u64, id: Option<u64>) {
        let mut insert_id = self.insert_id();
        if insert_id.server_session() == Some(serial) {
            *insert_id = insert_id.read(id);
            drop(insert_id);
            self.insert_id_told.notify_one();
        }
    }

    /// Waits until somebody has read it, or lost it. May end early.
    pub async fn insert_id_told(&self) {
        self.insert_id_told.notified().await;
    }

    /// Notes a decision, forgetting the oldest beyond `DECISIONS_MAX`.
    pub fn decided(&self, at: Instant, what: &'static str, node: Option<NodeId>, why: impl Into<Why>) {
        let mut notes = self.notes();
        if notes.decisions.len() == DECISIONS_MAX {
            notes.decisions.pop_front();
        }
        notes.decisions.push_back(Decision { at, what, node, why: why.into() });
    }

    /// Wakes the session's task and tells it why.
    pub fn signal(&self, signal: u8) {
        self.signals.fetch_or(signal, Ordering::Release);
        if let Some(waker) = lock(&self.waker).as_ref() {
            waker.wake_by_ref();
        }
    }

    /// Whether a KILL of the session waits to be seen.
    pub fn is_killed(&self) -> bool {
        self.signals.load(Ordering::Acquire) & signal::KILLED != 0
    }

    /// The signals that have come since the last call.
    pub fn take_signals(&self) -> u8 {
        if self.signals.load(Ordering::Acquire) == 0 { 0 } else { self.signals.swap(0, Ordering::AcqRel) }
    }

    /// Names the task to wake. A task's waker stays the same, so this is called once per task and kind of wait.
    pub fn set_waker(&self, waker: &Waker) {
        let mut slot = lock(&self.waker);
        if !slot.as_ref().is_some_and(|w| w.will_wake(waker)) {
            *slot = Some(waker.clone());
        }
    }
}

/// All client sessions.
#[derive(Debug)]
pub struct Registry {
    sessions: DashMap<u32, Arc<SessionHandle>, foldhash::fast::RandomState>,
    instance: u8,
    next: AtomicU32,
}

impl Clients for Registry {
    fn wanted(&self, client: u32) {
        if let Some(handle) = self.get(client) {
            handle.signal(signal::PIN_WANTED);
        }
    }

    fn needs_insert_id(&self, client: u32, serial: u64) -> bool {
        self.get(client).is_some_and(|handle| handle.insert_id().server_session() == Some(serial))
    }

    fn insert_id_read(&self, client: u32, serial: u64, id: Option<u64>) {
        Registry::insert_id_read(self, client, serial, id);
    }
}

/// A place in the register; dropping it frees the id.
#[derive(Debug)]
pub struct Registration {
    registry: Arc<Registry>,
    /// The session's handle.
    pub handle: Arc<SessionHandle>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.registry.sessions.remove(&self.handle.id);
    }
}

impl Registry {
    /// An empty register of the belay with this instance number.
    pub fn new(instance: u8) -> Arc<Registry> {
        Arc::new(Registry { sessions: DashMap::default(), instance, next: AtomicU32::new(1) })
    }

    /// Gives a new session an id that no living session has; never 0 in its counter bits.
    pub fn register(self: &Arc<Registry>, peer: String) -> Registration {
        let mut peer = peer;
        loop {
            let counter = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << COUNTER_BITS) - 1);
            if counter == 0 {
                continue;
            }
            let id = ID_MARK | u32::from(self.instance) << COUNTER_BITS | counter;
            if let Entry::Vacant(vacant) = self.sessions.entry(id) {
                let handle = Arc::new(SessionHandle::new(id, std::mem::take(&mut peer)));
                vacant.insert(handle.clone());
                return Registration { registry: self.clone(), handle };
            }
        }
    }

    /// The session of an id.
    pub fn get(&self, id: u32) -> Option<Arc<SessionHandle>> {
        self.sessions.get(&id).map(|entry| entry.value().clone())
    }

    /// Somebody who has a server session now has read what LAST_INSERT_ID() is there, for the client that left it; `None`: it is lost.
    pub fn insert_id_read(&self, client: u32, serial: u64, id: Option<u64>) {
        if let Some(handle) = self.get(client) {
            handle.insert_id_read(serial, id);
        }
    }

    /// Up to `limit` sessions, in no order.
    pub fn list(&self, limit: usize) -> Vec<Arc<SessionHandle>> {
        self.sessions.iter().take(limit).map(|entry| entry.value().clone()).collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_no_node_s_and_fits_where_clients_keep_it() {
        for instance in [0, 1, 128, 255] {
            let registry = Registry::new(instance);
            registry.next.store(u32::MAX - 1, Ordering::Relaxed);
            let made: Vec<Registration> = (0..4).map(|_| registry.register(String::new())).collect();
            for registration in &made {
                let id = registration.handle.id;
                assert_eq!(id >> 30, 1, "the mark, and no sign");
                assert_eq!(id.to_string().len(), 10);
                assert_eq!(id >> COUNTER_BITS & 0xFF, u32::from(instance));
                assert_ne!(id & ((1 << COUNTER_BITS) - 1), 0);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_an_id_is_told_once_it_was_read() {
        let registry = Registry::new(0);
        let client = registry.register("test".into());
        *client.handle.insert_id() = InsertId::On(7);
        assert!(Clients::needs_insert_id(&*registry, client.handle.id, 7));
        registry.insert_id_read(client.handle.id, 8, Some(1));
        let told = tokio::time::timeout(std::time::Duration::from_secs(9), client.handle.insert_id_told());
        assert!(told.await.is_err(), "that was of another server session");
        let read = async { registry.insert_id_read(client.handle.id, 7, Some(42)) };
        tokio::join!(client.handle.insert_id_told(), read);
        assert_eq!(*client.handle.insert_id(), InsertId::Known(42));
        // Read before anybody waits.
        *client.handle.insert_id() = InsertId::On(9);
        registry.insert_id_read(client.handle.id, 9, None);
        client.handle.insert_id_told().await;
        assert_eq!(*client.handle.insert_id(), InsertId::Lost);
    }

    #[test]
    fn a_lost_id_stays_lost_until_there_is_a_new_one() {
        let new = InsertId::Lost.maybe_made_on(3);
        assert_eq!(new, InsertId::NewOn(3));
        assert_eq!(new.read(Some(0)), InsertId::Lost);
        assert_eq!(new.maybe_made_on(4).read(Some(5)), InsertId::Known(5));
        assert_eq!(InsertId::Zero.maybe_made_on(3).read(Some(0)), InsertId::Known(0));
    }
}
