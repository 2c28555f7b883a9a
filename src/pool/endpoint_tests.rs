//! The queue and the cap, with server sessions whose node is the other end of a socket pair.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use std::sync::LazyLock;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;

use super::*;
use crate::net::packet_io::PacketIo;
use crate::net::stream::{Plain, Stream};
use crate::pool::Waiting;
use crate::pool::lease::{Lease, Place};
use crate::pool::prepared::ServerStatements;
use crate::pool::server_conn::ServerConn;
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::flavor::Flavor;
use crate::session::baseline::Baseline;
use crate::session::pins::PinReason;
use crate::session::state::CharacterSets;
use crate::topology::NodeId;

const LIMITS: Limits = Limits { connections_max: 3, pinned_max: 2, waiters_max: 8, passed_over_max: 2 };

fn state(kind: u8) -> SessionState {
    // One for all, as the pool interns them.
    static BASELINE: LazyLock<Arc<Baseline>> =
        LazyLock::new(|| Arc::new(Baseline::new([(Arc::from("sql_mode"), Bytes::from_static(b""))])));
    let schema = (kind > 0).then(|| Bytes::from(format!("s{kind}")));
    SessionState::new(BASELINE.clone(), CharacterSets::default(), schema)
}

fn behaviour(kind: u8) -> Capabilities {
    if kind == 0 { Capabilities::empty() } else { Capabilities::FOUND_ROWS }
}

/// No client asks for anything.
#[derive(Debug)]
struct Nobody;

impl Clients for Nobody {
    fn wanted(&self, _: u32) {}
    fn needs_insert_id(&self, _: u32, _: u64) -> bool {
        false
    }
    fn insert_id_read(&self, _: u32, _: u64, _: Option<u64>) {}
}

fn endpoint_with(limits: Limits) -> Arc<Endpoint> {
    Endpoint::new(limits, Arc::new(Nobody))
}

/// A server session, and the node's end of its connection.
fn session(serial: u64, behaves: u8, in_state: u8) -> (Box<ServerSession>, UnixStream) {
    let (ours, node) = UnixStream::pair().unwrap();
    let now = Instant::now();
    let session = ServerSession {
        serial,
        node: NodeId(0),
        conn: ServerConn {
            io: PacketIo::new(Stream::Plain(Plain::Unix(ours))),
            thread_id: serial as u32,
            greeted_collation: 45,
            capabilities: Capabilities::PROTOCOL_41,
            server_version: "10.11.19-MariaDB".into(),
            flavor: Flavor::MariaDb,
            status: StatusFlags::AUTOCOMMIT,
            tls: false,
            messages: false,
        },
        behaviour: behaviour(behaves),
        state: state(in_state),
        last_use: None,
        fresh: true,
        unread_insert_id: None,
        next_transaction: Default::default(),
        last_insert_id: Some(0),
        prepared: ServerStatements::new(8),
        text_statements: Default::default(),
        opened_at: now,
        idle_since: now,
    };
    (Box::new(session), node)
}

fn want(client: u32, behaves: u8, state: &SessionState) -> Want<'_> {
    Want { client, behaviour: behaviour(behaves), state, exactly: None }
}

/// A lease of a fresh session, as after a dial.
fn open(endpoint: &Arc<Endpoint>, serial: u64, behaves: u8, in_state: u8) -> (Lease, UnixStream) {
    let state = state(in_state);
    let taken = endpoint.take(&want(serial as u32, behaves, &state));
    assert!(matches!(taken, Taken::Permit(None)), "{taken:?}");
    let (session, node) = session(serial, behaves, in_state);
    (Lease::new(session, Place::counted(endpoint.clone())), node)
}

fn wait(endpoint: &Endpoint, client: u32, behaves: u8, in_state: u8) -> oneshot::Receiver<Handoff> {
    match endpoint.take(&want(client, behaves, &state(in_state))) {
        Taken::Wait(receiver) => receiver,
        other => panic!("expected to wait, got {other:?}"),
    }
}

fn serial_of(receiver: &mut oneshot::Receiver<Handoff>) -> Option<u64> {
    match receiver.try_recv() {
        Ok(Handoff::Session(session)) => Some(session.serial),
        _ => None,
    }
}

#[tokio::test]
async fn the_cap_holds_and_a_returned_session_goes_to_the_first_waiter() {
    let endpoint = endpoint_with(LIMITS);
    let (a, _na) = open(&endpoint, 1, 0, 1);
    let (_b, _nb) = open(&endpoint, 2, 0, 1);
    let (_c, _nc) = open(&endpoint, 3, 0, 1);
    let mut first = wait(&endpoint, 4, 0, 1);
    let mut second = wait(&endpoint, 5, 0, 1);
    assert_eq!(endpoint.counts(), (3, 0, 2));
    a.release(Instant::now());
    assert_eq!(serial_of(&mut first), Some(1));
    assert!(serial_of(&mut second).is_none());
    assert_eq!(endpoint.counts(), (3, 0, 1));
}

#[tokio::test]
async fn a_change_that_a_waiter_cannot_undo_is_not_handed_to_it() {
    let endpoint = endpoint_with(Limits { connections_max: 1, ..LIMITS });
    let (mut lease, _node) = open(&endpoint, 1, 0, 1);
    let mut waiter = wait(&endpoint, 2, 0, 1);
    lease.state.set("innodb_tmpdir", b"/elsewhere");
    lease.release(Instant::now());
    assert!(serial_of(&mut waiter).is_none());
    assert_eq!(endpoint.counts(), (1, 0, 1));
    drop(_node);
    // The session is closed for it: the waiter may dial.
    assert!(matches!(waiter.await, Ok(Handoff::Permit)));
}

#[tokio::test]
async fn an_equal_state_overtakes_but_only_so_often() {
    let endpoint = endpoint_with(Limits { connections_max: 1, ..LIMITS });
    let (mut lease, _node) = open(&endpoint, 1, 0, 1);
    let mut patient = wait(&endpoint, 10, 0, 2);
    let mut served_before = 0;
    for client in 11..20 {
        let mut equal = wait(&endpoint, client, 0, 1);
        lease.release(Instant::now());
        if let Ok(Handoff::Session(session)) = patient.try_recv() {
            lease = Lease::new(session, Place::counted(endpoint.clone()));
            break;
        }
        let Ok(Handoff::Session(session)) = equal.try_recv() else { panic!("nobody was served") };
        served_before += 1;
        lease = Lease::new(session, Place::counted(endpoint.clone()));
    }
    assert_eq!(served_before, LIMITS.passed_over_max);
    drop(lease);
}

#[tokio::test]
async fn a_session_that_cannot_serve_the_waiter_makes_place_for_one_that_can() {
    let endpoint = endpoint_with(Limits { connections_max: 1, ..LIMITS });
    let (lease, mut node) = open(&endpoint, 1, 0, 1);
    let mut other = wait(&endpoint, 2, 1, 1);
    lease.release(Instant::now());
    // It is closed first: until the node confirms, the place is not free.
    let mut goodbye = [0; 5];
    node.read_exact(&mut goodbye).await.unwrap();
    assert_eq!(goodbye, [1, 0, 0, 0, 1]);
    assert!(other.try_recv().is_err());
    assert_eq!(endpoint.counts(), (1, 0, 1));
    drop(node);
    assert!(matches!(other.await, Ok(Handoff::Permit)));
    assert_eq!(endpoint.counts(), (1, 0, 0));
    // The same with a free one: who comes gets its place, and has to close it.
    let (session, _node) = session(2, 0, 1);
    Lease::new(session, Place::counted(endpoint.clone())).release(Instant::now());
    let state = state(1);
    let Taken::Permit(Some(evicted)) = endpoint.take(&want(3, 1, &state)) else { panic!("no place") };
    assert_eq!((evicted.serial, endpoint.counts()), (2, (1, 0, 0)));
}

#[tokio::test]
async fn a_client_without_a_schema_gets_no_session_with_one() {
    let endpoint = endpoint_with(Limits { connections_max: 1, ..LIMITS });
    let (lease, node) = open(&endpoint, 1, 0, 1);
    let waiter = wait(&endpoint, 2, 0, 0);
    drop(node);
    lease.release(Instant::now());
    assert!(matches!(waiter.await, Ok(Handoff::Permit)));
}

#[tokio::test]
async fn a_waiter_that_goes_away_loses_nothing() {
    let endpoint = endpoint_with(Limits { connections_max: 1, ..LIMITS });
    let (lease, _node) = open(&endpoint, 1, 0, 1);
    // It goes before it was served.
    let receiver = wait(&endpoint, 2, 0, 1);
    drop(Waiting { receiver, endpoint: &endpoint, served: false });
    assert_eq!(endpoint.counts(), (1, 0, 0));
    // It goes between the hand-over and its next step.
    let receiver = wait(&endpoint, 3, 0, 1);
    lease.release(Instant::now());
    assert_eq!(endpoint.counts(), (1, 0, 0));
    drop(Waiting { receiver, endpoint: &endpoint, served: false });
    assert_eq!(endpoint.counts(), (1, 1, 0));
    // The same with a place.
    let state = state(1);
    let Taken::Session(session) = endpoint.take(&want(4, 0, &state)) else { panic!("it is free") };
    let receiver = wait(&endpoint, 5, 0, 1);
    drop(session);
    endpoint.place_free();
    assert_eq!(endpoint.counts(), (1, 0, 0));
    drop(Waiting { receiver, endpoint: &endpoint, served: false });
    assert_eq!(endpoint.counts(), (0, 0, 0));
}

#[tokio::test]
async fn those_who_gave_up_do_not_fill_the_queue() {
    let endpoint = endpoint_with(Limits { connections_max: 1, waiters_max: 2, ..LIMITS });
    let (_lease, _node) = open(&endpoint, 1, 0, 1);
    for client in 2..10 {
        let receiver = wait(&endpoint, client, 0, 1);
        drop(Waiting { receiver, endpoint: &endpoint, served: false });
    }
    let _a = wait(&endpoint, 10, 0, 1);
    let _b = wait(&endpoint, 11, 0, 1);
    let state = state(1);
    assert!(matches!(endpoint.take(&want(12, 0, &state)), Taken::QueueFull));
}

#[tokio::test]
async fn the_nearest_free_session_is_taken() {
    let endpoint = endpoint_with(LIMITS);
    let (a, _na) = open(&endpoint, 1, 0, 1);
    let (b, _nb) = open(&endpoint, 2, 0, 2);
    let (c, _nc) = open(&endpoint, 3, 1, 1);
    [a, b, c].into_iter().for_each(|lease| lease.release(Instant::now()));
    let taken = |behaves, in_state| match endpoint.take(&want(9, behaves, &state(in_state))) {
        Taken::Session(session) => {
            let serial = session.serial;
            Lease::new(session, Place::counted(endpoint.clone())).release(Instant::now());
            serial
        }
        other => panic!("{other:?}"),
    };
    assert_eq!([taken(0, 1), taken(0, 2), taken(1, 1), taken(1, 2)], [1, 2, 3, 3]);
    let state = state(2);
    assert!(
        matches!(endpoint.take(&Want { exactly: Some(1), ..want(9, 0, &state) }), Taken::Session(s) if s.serial == 1)
    );
    assert!(matches!(endpoint.take(&Want { exactly: Some(1), ..want(9, 0, &state) }), Taken::NotFree));
}

#[tokio::test]
async fn what_is_due_goes_and_keeps_its_place_until_it_is_closed() {
    let endpoint = endpoint_with(LIMITS);
    let (a, _na) = open(&endpoint, 1, 0, 1);
    let (b, nb) = open(&endpoint, 2, 0, 1);
    let (c, _nc) = open(&endpoint, 3, 0, 1);
    [a, b, c].into_iter().for_each(|lease| lease.release(Instant::now()));
    let (idle, age) = (Duration::from_secs(60), Duration::from_secs(600));
    assert!(endpoint.expire(Instant::now(), idle, age, 1).is_empty());
    drop(nb);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let dead = endpoint.expire(Instant::now(), idle, age, 1);
    assert_eq!(dead.iter().map(|s| s.serial).collect::<Vec<_>>(), [2]);
    let later = Instant::now() + Duration::from_secs(61);
    assert_eq!(endpoint.expire(later, idle, age, 1).len(), 1);
    assert_eq!(endpoint.expire(later + age, idle, age, 1).len(), 1);
    assert_eq!(endpoint.counts(), (3, 0, 0));
    assert!(!endpoint.take_place_below(3));
    assert!(endpoint.close().is_empty());
    let (session, _node) = session(4, 0, 1);
    assert!(endpoint.give(session, Instant::now()).is_some());
}

#[tokio::test]
async fn pins_are_budgeted_and_named() {
    let endpoint = endpoint_with(LIMITS);
    let mut pins = Pins::NONE;
    pins.insert(PinReason::Cursor);
    let momentary = {
        let mut pins = Pins::NONE;
        pins.insert(PinReason::Diagnostics);
        pins
    };
    endpoint.set_pins(1, pins);
    endpoint.set_pins(2, momentary);
    assert!(endpoint.may_pin(3));
    endpoint.set_pins(2, pins);
    assert!(!endpoint.may_pin(3) && endpoint.may_pin(2));
    assert_eq!(endpoint.pins_in_the_way(), (2, pins));
    endpoint.set_pins(1, Pins::NONE);
    assert!(endpoint.may_pin(3));
}

#[tokio::test]
async fn a_session_outside_every_cap_says_goodbye() {
    let (session, mut node) = session(1, 0, 0);
    Lease::new(session, Place::uncounted()).release(Instant::now());
    let mut goodbye = Vec::new();
    // It keeps the connection until the node closes it.
    let said = tokio::time::timeout(Duration::from_millis(50), node.read_to_end(&mut goodbye)).await;
    assert!(said.is_err());
    assert_eq!(goodbye, [1, 0, 0, 0, 1]);
}

#[derive(Clone, Debug)]
enum Step {
    /// A client comes.
    Take { behaves: u8, in_state: u8 },
    /// A lease is returned clean.
    Release(prop::sample::Index),
    /// A lease is thrown away.
    Throw(prop::sample::Index),
    /// A dial ends: with a session or without.
    Dialled(prop::sample::Index, bool),
    /// A waiter gives up.
    GiveUp(prop::sample::Index),
    /// The upkeep takes all free sessions.
    Drain,
    /// The upkeep keeps a minimum warm.
    Warm,
    /// What was said goodbye to is confirmed.
    Settle,
}

fn any_step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (0..2u8, 0..3u8).prop_map(|(behaves, in_state)| Step::Take { behaves, in_state }),
        4 => index().prop_map(Step::Release),
        2 => index().prop_map(Step::Throw),
        4 => (index(), prop::bool::weighted(0.8)).prop_map(|(i, ok)| Step::Dialled(i, ok)),
        2 => index().prop_map(Step::GiveUp),
        1 => Just(Step::Drain),
        1 => Just(Step::Warm),
        2 => Just(Step::Settle),
    ]
}

/// Everything the world outside the endpoint holds.
#[derive(Default)]
struct World {
    leases: Vec<Lease>,
    /// Dials under way, with what they are for.
    dials: Vec<(Place, u8, u8)>,
    waiters: Vec<Waiter>,
    nodes: Vec<UnixStream>,
    serial: u64,
}

struct Waiter {
    receiver: oneshot::Receiver<Handoff>,
    behaves: u8,
    in_state: u8,
    passed_over: u32,
}

impl World {
    fn take(&mut self, endpoint: &Arc<Endpoint>, behaves: u8, in_state: u8) {
        self.serial += 1;
        match endpoint.take(&want(self.serial as u32, behaves, &state(in_state))) {
            Taken::Session(session) => self.leases.push(Lease::new(session, Place::counted(endpoint.clone()))),
            Taken::Permit(evicted) => {
                let place = Place::counted(endpoint.clone());
                if let Some(evicted) = evicted {
                    // As the pool does, without waiting for the node here.
                    drop(evicted);
                }
                self.dials.push((place, behaves, in_state));
            }
            Taken::Wait(receiver) => self.waiters.push(Waiter { receiver, behaves, in_state, passed_over: 0 }),
            Taken::QueueFull => assert!(self.waiters.len() >= LIMITS.waiters_max),
            Taken::NotFree => panic!("nothing exact was wanted"),
        }
    }

    /// Hands out what waiters were given; those before a served one were passed over.
    fn collect(&mut self, endpoint: &Arc<Endpoint>) {
        let mut at = 0;
        while at < self.waiters.len() {
            match self.waiters[at].receiver.try_recv() {
                Ok(handoff) => {
                    let waiter = self.waiters.remove(at);
                    assert!(waiter.passed_over <= LIMITS.passed_over_max, "passed over too often");
                    for before in &mut self.waiters[..at] {
                        before.passed_over += 1;
                    }
                    match handoff {
                        Handoff::Session(session) => {
                            assert_eq!(session.behaviour, behaviour(waiter.behaves));
                            assert!(waiter.in_state > 0 || session.state.schema().is_none());
                            self.leases.push(Lease::new(session, Place::counted(endpoint.clone())));
                        }
                        Handoff::Permit => {
                            self.dials.push((Place::counted(endpoint.clone()), waiter.behaves, waiter.in_state));
                        }
                    }
                }
                Err(_) => at += 1,
            }
        }
    }

    async fn step(&mut self, endpoint: &Arc<Endpoint>, step: &Step) {
        match step {
            Step::Take { behaves, in_state } => self.take(endpoint, *behaves, *in_state),
            Step::Release(i) if !self.leases.is_empty() => {
                self.leases.swap_remove(i.index(self.leases.len())).release(Instant::now());
            }
            Step::Throw(i) if !self.leases.is_empty() => {
                drop(self.leases.swap_remove(i.index(self.leases.len())));
            }
            Step::Dialled(i, ok) if !self.dials.is_empty() => {
                let (place, behaves, in_state) = self.dials.swap_remove(i.index(self.dials.len()));
                if *ok {
                    self.serial += 1;
                    let (session, node) = session(self.serial, behaves, in_state);
                    self.nodes.push(node);
                    self.leases.push(Lease::new(session, place));
                }
            }
            Step::GiveUp(i) if !self.waiters.is_empty() => {
                let waiter = self.waiters.remove(i.index(self.waiters.len()));
                drop(Waiting { receiver: waiter.receiver, endpoint, served: false });
            }
            Step::Drain => {
                for session in endpoint.drain_free() {
                    crate::pool::lease::close_in_background(session, Place::counted(endpoint.clone()));
                }
            }
            Step::Warm if endpoint.take_place_below(2) => {
                self.dials.push((Place::counted(endpoint.clone()), 0, 0));
            }
            Step::Settle => self.settle(endpoint).await,
            _ => {}
        }
        self.collect(endpoint);
    }

    /// Nodes confirm every goodbye.
    async fn settle(&mut self, endpoint: &Arc<Endpoint>) {
        for _ in 0..4 {
            tokio::task::yield_now().await;
            let mut said = [0; 16];
            self.nodes.retain(|node| node.try_read(&mut said).is_err());
            tokio::time::sleep(Duration::from_micros(300)).await;
            self.collect(endpoint);
        }
    }

    fn held(&self) -> usize {
        self.leases.len() + self.dials.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn every_path_keeps_the_count(steps in proptest::collection::vec(any_step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let endpoint = endpoint_with(LIMITS);
            let mut world = World::default();
            for step in &steps {
                world.step(&endpoint, step).await;
                let (counted, free, waiting) = endpoint.counts();
                assert!(counted <= LIMITS.connections_max, "{counted} counted after {step:?}");
                // The rest is being closed.
                assert!(counted >= free + world.held(), "{counted} counted, {free} free, {} held", world.held());
                assert_eq!(waiting, world.waiters.len());
                assert!(free == 0 || waiting == 0, "{waiting} wait although {free} are free");
            }
            // Whatever happened, everybody who still waits is served in the end, and nothing stays counted.
            for _ in 0..200 {
                if world.held() == 0 && world.waiters.is_empty() {
                    break;
                }
                world.dials.clear();
                world.leases.clear();
                world.settle(&endpoint).await;
            }
            for session in endpoint.drain_free() {
                crate::pool::lease::close_in_background(session, Place::counted(endpoint.clone()));
            }
            for _ in 0..50 {
                world.settle(&endpoint).await;
                if endpoint.counts().0 == 0 {
                    break;
                }
            }
            assert_eq!(endpoint.counts(), (0, 0, 0));
            assert!(world.waiters.is_empty());
        });
    }
}
