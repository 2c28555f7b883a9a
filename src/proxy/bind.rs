//! Binding: a server session for this statement, in the state that the client believes in.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;

use crate::error::Stage;
use crate::metrics::labels::BindKind;
use crate::net::stream::{Silence, Stream};
use crate::pool::AcquireError;
use crate::pool::endpoint::Want;
use crate::pool::lease::Lease;
use crate::pool::session::BEHAVIOUR;
use crate::protocol::ErrorReply;
use crate::proxy::aloft::Aloft;
use crate::proxy::causal::NotCaughtUp;
use crate::proxy::errors;
use crate::proxy::registry::{InsertId, SessionHandle, Target};
use crate::proxy::session::ClientSession;
use crate::router::{self, Route, StatementKind};
use crate::session::effects;
use crate::session::pins::PinReason;
use crate::sql::{Effects, Facts, VolatileKind};
use crate::topology::{ClusterSnapshot, NodeId, NodeView};

/// How often a session that waits for a node looks again, if no change of the cluster wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How often a client that has sent more already is looked at, whether it has closed behind that.
const LOOK_BEHIND: Duration = Duration::from_millis(100);

/// Where a session goes, and why.
struct Routed {
    snapshot: Arc<ClusterSnapshot>,
    node: NodeId,
    why: &'static str,
    /// Its turn, if it had to wait: held until it stands in the queue of the pool.
    turn: Option<OwnedSemaphorePermit>,
}

/// Why there is no server session.
pub(super) enum BindEnd {
    /// The client is gone.
    ClientGone,
    /// The client gets this error.
    Refused(ErrorReply),
    /// A server session was lost before the statement was sent.
    Lost(Stage),
}

/// Runs `work` while watching the client; `None` if the client closes or is killed first. Cancelling `work` must be safe.
pub(super) async fn while_client_stays<T>(
    client: &Stream,
    handle: &SessionHandle,
    work: impl Future<Output = T>,
) -> Option<T> {
    let mut work = pin!(work);
    let mut watch = true;
    let mut again: Option<Pin<Box<tokio::time::Sleep>>> = None;
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        handle.set_waker(cx.waker());
        if handle.is_killed() {
            return Poll::Ready(None);
        }
        if watch {
            match client.poll_silence(cx) {
                Poll::Ready(Silence::Closed) => return Poll::Ready(None),
                Poll::Ready(_) => (watch, again) = (false, Some(Box::pin(tokio::time::sleep(LOOK_BEHIND)))),
                Poll::Pending => {}
            }
        }
        // The end behind bytes that are not read yet wakes nobody.
        while let Some(due) = &mut again
            && due.as_mut().poll(cx).is_ready()
        {
            if client.is_read_closed(cx) {
                return Poll::Ready(None);
            }
            due.as_mut().reset(tokio::time::Instant::now() + LOOK_BEHIND);
        }
        Poll::Pending
    })
    .await
}

impl ClientSession {
    /// A statement that would pin one server session too many is refused before it is sent.
    pub(super) fn check_pin_budget(&self, facts: &Facts) -> Result<(), ErrorReply> {
        let mut foreseen = effects::foreseen(facts);
        if self.can_follow() {
            foreseen.remove(PinReason::UserVariables);
        }
        if self.can_follow_role(facts) {
            foreseen.remove(PinReason::Role);
        }
        if self.of_request.follows_name {
            foreseen.remove(PinReason::TextPrepare);
        }
        if !foreseen.is_lasting() || self.pins.is_lasting() {
            return Ok(());
        }
        let endpoint = match self.lease.as_ref() {
            Some(lease) => lease.endpoint().cloned(),
            None => self.cx.cluster.load().writer.map(|node| self.cx.pool.endpoint(node, &self.account)),
        };
        match endpoint {
            Some(endpoint) if !endpoint.may_pin(self.handle.id) => Err(errors::pin_budget(&foreseen.to_string())),
            _ => Ok(()),
        }
    }

    /// Binds, if not bound, and replays what differs.
    pub(super) async fn bind_and_replay(
        &mut self,
        facts: &Facts,
        kind: StatementKind,
        statement: Option<u32>,
        hold_until: Instant,
    ) -> Result<(), BindEnd> {
        let needs_insert_id = reads_insert_id(facts);
        if self.lease.is_none() {
            let reader = match self.cx.rules.is_empty() {
                true => None,
                false => Box::pin(self.bind_to_reader(facts, kind, statement, hold_until)).await?,
            };
            let lease = match reader {
                Some(lease) => lease,
                None => Box::pin(self.bind(needs_insert_id, hold_until)).await?,
            };
            self.bound(lease);
            self.count_binding();
        }
        if facts.effects.contains(Effects::SEQUENCE_READ) && !self.sequence_here {
            // Another client of this server session may have used the sequence.
            return Err(BindEnd::Refused(errors::value_lost("the last value of a sequence")));
        }
        if self.would_see_names(facts) {
            Box::pin(self.hide_names(facts)).await?;
        }
        let stale_diagnostics = facts.effects.contains(Effects::SHOW_DIAGNOSTICS) && !self.untouched();
        if stale_diagnostics && self.diagnostics_lost {
            return Err(BindEnd::Refused(errors::value_lost("the warnings of the last statement")));
        }
        self.replay(needs_insert_id, stale_diagnostics, statement).await
    }

    /// How well the server session fits that was just bound.
    fn count_binding(&mut self) {
        let Some(lease) = &mut self.lease else { return };
        let kind = if std::mem::take(&mut lease.fresh) {
            BindKind::Fresh
        } else if !lease.state.same_as(&self.state) {
            BindKind::Replayed
        } else if lease.last_use.is_some_and(|last| last.client == self.handle.id) {
            BindKind::Same
        } else {
            BindKind::Equal
        };
        self.cx.measure.bound(kind);
    }

    /// Whether the bound server session ran this client's last statement and nothing of anybody since.
    pub(super) fn untouched(&self) -> bool {
        let last = self.lease.as_ref().and_then(|l| l.last_use);
        last.is_some_and(|last| last.client == self.handle.id && last.statement + 1 == self.statement)
    }

    /// The session works on this server session from now on: KILL must find it.
    pub(super) fn bound(&mut self, lease: Lease) {
        let mut running = self.handle.running();
        running.target = Some(Target { node: lease.node, thread_id: lease.conn.thread_id });
        running.tainted = false;
        drop(running);
        self.lease = Some(lease);
    }

    pub(super) async fn bind(&mut self, needs_insert_id: bool, hold_until: Instant) -> Result<Lease, BindEnd> {
        if !self.reopenable {
            // Any secret that belay could try would be a wrong one, and wrong ones lock accounts.
            self.over = true;
            return Err(BindEnd::Refused(errors::login_not_recorded()));
        }
        if needs_insert_id && let Some(lease) = Box::pin(self.bind_where_insert_id_is()).await? {
            return Ok(lease);
        }
        loop {
            let Routed { snapshot, node, why, turn } = self.route(hold_until).await?;
            let Some(view) = snapshot.node(node) else {
                return Err(BindEnd::Refused(errors::no_node("no such node")));
            };
            let failed = match self.acquire(view, None, turn).await? {
                Ok(lease) => match self.catch_up(lease, hold_until).await? {
                    Ok(lease) => {
                        self.handle.decided(Instant::now(), "bind", Some(node), why);
                        self.writer_epoch = snapshot.writer_epoch;
                        return Ok(lease);
                    }
                    Err(NotCaughtUp::Lost(why)) => why,
                    Err(NotCaughtUp::Behind(why)) => {
                        // Told once: what is not there now may never come.
                        self.seen = None;
                        return Err(BindEnd::Refused(errors::not_caught_up(&view.name, &why)));
                    }
                },
                Err(why) => why,
            };
            self.cx.cluster.suspect(node);
            self.avoid = Some((node, snapshot.version));
            if Instant::now() >= hold_until {
                return Err(BindEnd::Refused(errors::no_node(&failed)));
            }
        }
    }

    /// The node for a new binding. Where there is none, or others wait for one already, this session waits in turn: those who came first go first.
    async fn route(&mut self, hold_until: Instant) -> Result<Routed, BindEnd> {
        let mut why = "others wait for a node already";
        if self.cx.holds.load(Ordering::Relaxed) == 0 {
            match self.decide() {
                Ok(routed) => return Ok(routed),
                Err(no_node) => why = no_node,
            }
        }
        if Instant::now() >= hold_until {
            return Err(BindEnd::Refused(errors::no_node(why)));
        }
        let Some(_held) = self.cx.begin_hold() else {
            return Err(BindEnd::Refused(errors::no_node("too many statements wait already (cluster.holds_max)")));
        };
        let turn = tokio::time::timeout_at(hold_until.into(), self.cx.hold_turns.clone().acquire_owned());
        let turn = while_client_stays(&self.io.stream, &self.handle, turn).await.ok_or(BindEnd::ClientGone)?;
        // The semaphore is never closed: no turn means that the time is over.
        let Ok(Ok(turn)) = turn else { return Err(BindEnd::Refused(errors::no_node(why))) };
        loop {
            let mut changes = self.cx.cluster.subscribe();
            let _ = changes.borrow_and_update();
            match self.decide() {
                Ok(routed) => return Ok(Routed { turn: Some(turn), ..routed }),
                Err(no_node) => why = no_node,
            }
            let left = hold_until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BindEnd::Refused(errors::no_node(why)));
            }
            let wait = async {
                // Both ends mean: look again.
                let _ = tokio::time::timeout(left.min(LOOK_AGAIN), changes.changed()).await;
            };
            let stayed = while_client_stays(&self.io.stream, &self.handle, wait).await;
            self.avoid = None;
            stayed.ok_or(BindEnd::ClientGone)?;
        }
    }

    /// The route by the cluster as it is now; an error says why there is none.
    fn decide(&self) -> Result<Routed, &'static str> {
        let snapshot = self.cx.cluster.load();
        let avoid = self.avoid.filter(|(_, version)| *version == snapshot.version).map(|(node, _)| node);
        match router::decide(&snapshot, avoid) {
            Route::Node { node, why } => Ok(Routed { snapshot, node, why, turn: None }),
            Route::Hold { why } => Err(why),
        }
    }

    /// One try on one node. The inner error is worth another try, and says why; the outer one ends the statement.
    pub(super) async fn acquire(
        &self,
        view: &NodeView,
        exactly: Option<u64>,
        turn: Option<OwnedSemaphorePermit>,
    ) -> Result<Result<Lease, String>, BindEnd> {
        let want =
            Want { client: self.handle.id, behaviour: self.capabilities & BEHAVIOUR, state: &self.state, exactly };
        let mut work = pin!(self.cx.pool.acquire(view, &self.account, &self.opening, &want));
        let mut turn = turn;
        let work = std::future::poll_fn(|cx| {
            let acquired = work.as_mut().poll(cx);
            // It has a server session, or stands in the queue for one: the next in turn may go on.
            turn = None;
            acquired
        });
        let Some(acquired) = while_client_stays(&self.io.stream, &self.handle, work).await else {
            return Err(BindEnd::ClientGone);
        };
        match acquired {
            Ok(lease) => Ok(Ok(lease)),
            Err(AcquireError::Timeout { waited, pinned, pins }) => {
                Err(BindEnd::Refused(errors::no_server_session(waited.as_millis(), pinned, &pins.to_string())))
            }
            Err(AcquireError::QueueFull) => Err(BindEnd::Refused(errors::queue_full())),
            Err(AcquireError::Dial(error)) if error.is_unavailable() => Ok(Err(error.to_string())),
            Err(AcquireError::Dial(error)) => {
                self.cx.measure.failure(crate::error::Side::Server, Stage::ServerLogin);
                Err(BindEnd::Refused(match error.reply() {
                    Some(reply) => reply.clone(),
                    None => errors::login_refused(&format!("belay: {error}")),
                }))
            }
            Err(AcquireError::Setup(error)) => Ok(Err(error.to_string())),
            Err(AcquireError::NotFree) => Ok(Err("not free".into())),
        }
    }

    /// LAST_INSERT_ID() may be known only to the server session that made it: that one, if it is free and on the node that serves; from another node
    /// the value is fetched. If it is not free, whoever took it reads it for us.
    async fn bind_where_insert_id_is(&mut self) -> Result<Option<Lease>, BindEnd> {
        let give_up = Instant::now() + Duration::from_secs(2);
        loop {
            let InsertId::On(serial) = *self.handle.insert_id() else { return Ok(None) };
            let snapshot = self.cx.cluster.load();
            for view in &snapshot.nodes {
                let Ok(mut lease) = self.acquire(view, Some(serial), None).await? else { continue };
                let seen_elsewhere = self.seen.as_ref().is_some_and(|seen| seen.node != lease.node);
                if snapshot.writer == Some(lease.node) && !seen_elsewhere {
                    return Ok(Some(lease));
                }
                let aloft = Aloft::begins(&self.handle, &lease);
                let fetched = while_client_stays(&self.io.stream, &self.handle, fetch_insert_id(&mut lease)).await;
                let id = match aloft.ends(&self.handle, fetched) {
                    Ok(id) => id,
                    Err(why) => {
                        *self.handle.insert_id() = InsertId::Lost;
                        self.abandon(lease, &why);
                        return Err(why.before_statement(BindEnd::Lost(Stage::Acquire)));
                    }
                };
                *self.handle.insert_id() = id.map_or(InsertId::Lost, InsertId::Known);
                if id.is_some() {
                    lease.release(Instant::now());
                }
                return Ok(None);
            }
            if Instant::now() > give_up {
                *self.handle.insert_id() = InsertId::Lost;
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// LAST_INSERT_ID() of a server session; `None`: it is of no use any more.
async fn fetch_insert_id(lease: &mut Lease) -> Option<u64> {
    lease.last_use = None;
    let answer = lease.conn.query("SELECT LAST_INSERT_ID()").await.ok()?;
    let id = std::str::from_utf8(answer.single()?).ok()?.parse().ok()?;
    lease.unread_insert_id = None;
    lease.last_insert_id = Some(id);
    Some(id)
}

/// Whether the statement reads LAST_INSERT_ID() in any of its forms, or may do so out of sight.
fn reads_insert_id(facts: &Facts) -> bool {
    facts.effects.contains(Effects::VOLATILE_HIDDEN)
        || facts.volatile.iter().any(|call| {
            matches!(call.kind, VolatileKind::LastInsertId | VolatileKind::IdentityVar | VolatileKind::LastInsertIdVar)
        })
}
