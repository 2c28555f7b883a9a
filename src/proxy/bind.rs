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
use crate::proxy::causal::NotCaughtUp;
use crate::proxy::errors;
use crate::proxy::registry::{SessionHandle, Target};
use crate::proxy::session::{ClientSession, Flow};
use crate::router::{self, Route, StatementKind};
use crate::session::effects::{self, InsertIdNeed};
use crate::session::pins::PinReason;
use crate::sql::{Effects, Facts};
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
        let insert_id = self.insert_id_need(facts);
        if insert_id != InsertIdNeed::Nothing && self.lease.is_some() {
            Box::pin(self.fetch_own_insert_id()).await?;
        }
        if self.lease.is_none() {
            let reader = match self.cx.rules.is_empty() {
                true => None,
                false => Box::pin(self.bind_to_reader(facts, kind, statement, hold_until)).await?,
            };
            let lease = match reader {
                Some(lease) => lease,
                None => Box::pin(self.bind(insert_id, hold_until)).await?,
            };
            self.bound(lease);
            self.count_binding();
        }
        if facts.effects.contains(Effects::SEQUENCE_READ) && !self.sequence_here {
            // Another client of this server session may have used the sequence.
            return Err(BindEnd::Refused(errors::value_lost("the last value of a sequence")));
        }
        self.look_for_new_insert_id(insert_id).await?;
        if self.would_see_names(facts) {
            let copies = self.needs_messages(facts) && self.pins_for_a_moment();
            if copies && Box::pin(self.copy_messages()).await == Flow::End {
                return Err(BindEnd::ClientGone);
            }
            Box::pin(self.hide_names(facts)).await?;
        }
        self.replay(facts, insert_id, statement).await
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

    pub(super) async fn bind(&mut self, insert_id: InsertIdNeed, hold_until: Instant) -> Result<Lease, BindEnd> {
        if !self.reopenable {
            // Any secret that belay could try would be a wrong one, and wrong ones lock accounts.
            self.over = true;
            return Err(BindEnd::Refused(errors::login_not_recorded()));
        }
        if insert_id != InsertIdNeed::Nothing
            && let Some(lease) = Box::pin(self.bind_where_insert_id_is()).await?
        {
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
}
