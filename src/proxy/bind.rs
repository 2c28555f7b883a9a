//! Binding: a server session for this statement, in the state that the client believes in.

use std::future::Future;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::metrics::labels::BindKind;
use crate::net::stream::{Silence, Stream};
use crate::pool::AcquireError;
use crate::pool::endpoint::Want;
use crate::pool::lease::Lease;
use crate::pool::session::BEHAVIOUR;
use crate::protocol::ErrorReply;
use crate::proxy::errors;
use crate::proxy::registry::{InsertId, SessionHandle, Target};
use crate::proxy::session::ClientSession;
use crate::router::{self, Route};
use crate::session::effects;
use crate::session::pins::PinReason;
use crate::sql::{Effects, Facts, VolatileKind};
use crate::topology::NodeView;

/// How often a session that waits for a node looks again, if no change of the cluster wakes it.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

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
                Poll::Ready(_) => watch = false,
                Poll::Pending => {}
            }
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
    pub(super) async fn bind_and_replay(&mut self, facts: &Facts, hold_until: Instant) -> Result<(), BindEnd> {
        let needs_insert_id = reads_insert_id(facts);
        if self.lease.is_none() {
            let lease = Box::pin(self.bind(needs_insert_id, hold_until)).await?;
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
        self.replay(needs_insert_id, stale_diagnostics).await
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
            let snapshot = self.cx.cluster.load();
            let avoid = self.avoid.filter(|(_, version)| *version == snapshot.version).map(|(node, _)| node);
            let why = match router::decide(&snapshot, avoid) {
                Route::Node { node, why } => {
                    let Some(view) = snapshot.node(node) else {
                        return Err(BindEnd::Refused(errors::no_node("no such node")));
                    };
                    match self.acquire(view, None).await? {
                        Ok(lease) => {
                            self.handle.decided(Instant::now(), "bind", Some(node), why);
                            return Ok(lease);
                        }
                        Err(why) => {
                            self.cx.cluster.suspect(node);
                            self.avoid = Some((node, snapshot.version));
                            why
                        }
                    }
                }
                Route::Hold { why } => why.to_owned(),
            };
            if Instant::now() >= hold_until {
                return Err(BindEnd::Refused(errors::no_node(&why)));
            }
            self.hold(hold_until).await?;
        }
    }

    /// Waits for the cluster to change, or a moment, and then lets the avoided node be tried again.
    async fn hold(&mut self, hold_until: Instant) -> Result<(), BindEnd> {
        let Some(_held) = self.cx.begin_hold() else {
            return Err(BindEnd::Refused(errors::no_node("too many statements wait already (cluster.holds_max)")));
        };
        let left = hold_until.saturating_duration_since(Instant::now()).min(LOOK_AGAIN);
        let mut changes = self.cx.cluster.subscribe();
        let wait = async {
            // Both ends mean: look again.
            let _ = tokio::time::timeout(left, changes.changed()).await;
        };
        let stayed = while_client_stays(&self.io.stream, &self.handle, wait).await;
        self.avoid = None;
        stayed.ok_or(BindEnd::ClientGone)
    }

    /// One try on one node. The inner error is worth another try, and says why; the outer one ends the statement.
    async fn acquire(&self, view: &NodeView, exactly: Option<u64>) -> Result<Result<Lease, String>, BindEnd> {
        let want =
            Want { client: self.handle.id, behaviour: self.capabilities & BEHAVIOUR, state: &self.state, exactly };
        let work = self.cx.pool.acquire(view, &self.account, &self.opening, &want);
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

    /// LAST_INSERT_ID() may be known only to the server session that made it: that one, if it is free; else whoever took it reads it for us.
    async fn bind_where_insert_id_is(&mut self) -> Result<Option<Lease>, BindEnd> {
        let give_up = Instant::now() + Duration::from_secs(2);
        loop {
            let InsertId::On(serial) = *self.handle.insert_id() else { return Ok(None) };
            let snapshot = self.cx.cluster.load();
            for view in &snapshot.nodes {
                if let Ok(lease) = self.acquire(view, Some(serial)).await? {
                    return Ok(Some(lease));
                }
            }
            if Instant::now() > give_up {
                *self.handle.insert_id() = InsertId::Lost;
                return Ok(None);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Whether the statement reads LAST_INSERT_ID() in any of its forms, or may do so out of sight.
fn reads_insert_id(facts: &Facts) -> bool {
    facts.effects.contains(Effects::VOLATILE_HIDDEN)
        || facts.volatile.iter().any(|call| {
            matches!(call.kind, VolatileKind::LastInsertId | VolatileKind::IdentityVar | VolatileKind::LastInsertIdVar)
        })
}
