//! Reads on nodes that follow the writer. `router` decides; here a server session on the chosen reader is acquired once it has what the session has seen,
//! else the next reader is tried, then the writer; and a session that is still on a reader goes back to the writer with the first statement that is
//! not for readers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use smallvec::SmallVec;

use crate::error::Stage;
use crate::pool::flight::Ask;
use crate::pool::lease::Lease;
use crate::protocol::mysql::capability::StatusFlags;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::bind::BindEnd;
use crate::proxy::causal::NotCaughtUp;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Execution;
use crate::router::{self, Against, Choice, ClusterView, Kept, SessionView, StatementKind, Stay, Why, kind};
use crate::session::diagnostics::Messages;
use crate::session::effects::InsertIdNeed;
use crate::session::next_transaction::Pending;
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::sql::{Effects, Facts, StatementClass, VolatileKind};
use crate::topology::causal::{self, Need};
use crate::topology::{ClusterSnapshot, NodeId, NodeView};

/// A reader that has not what the session has seen gets this long to apply it. The writer would serve at once.
const CATCH_UP_MAX: Duration = Duration::from_millis(200);
/// After a reader did not catch up in time the session leaves readers alone for this long.
const REST: Duration = Duration::from_secs(1);
/// A reader's views are asked for so long at the most.
const LOOK_MAX: Duration = Duration::from_millis(500);
/// Ends a READ ONLY transaction, whatever `completion_type` is.
const END_TRANSACTION: &[u8] = b"ROLLBACK AND NO CHAIN NO RELEASE";

/// What a session knows of readers.
#[derive(Debug, Default)]
pub(super) struct Readers {
    /// The one that served it last.
    last: Option<NodeId>,
    /// Those that failed the statement of this number.
    failed: SmallVec<[NodeId; 4]>,
    failed_statement: u64,
    /// Readers were behind a moment ago: not before this.
    rest_until: Option<Instant>,
    /// When the session last may have defined a view or a function.
    defined: Option<Instant>,
}

impl Readers {
    /// A node failed a statement: it is not given it again.
    pub(super) fn failed(&mut self, node: NodeId, statement: u64) {
        if self.failed_statement != statement {
            self.failed.clear();
            self.failed_statement = statement;
        }
        if !self.failed.contains(&node) {
            self.failed.push(node);
        }
    }

    /// Notes a statement that was answered.
    pub(super) fn answered(&mut self, facts: &Facts) {
        let out_of_sight = Effects::ROUTINE | Effects::TEXT_EXECUTE | Effects::UNKNOWN;
        if facts.class == StatementClass::Ddl || !facts.certain || facts.effects.intersects(out_of_sight) {
            self.defined = Some(Instant::now());
        }
    }

    fn failed_in(&self, statement: u64) -> &[NodeId] {
        if self.failed_statement == statement { &self.failed } else { &[] }
    }
}

impl ClientSession {
    /// The kind of a request, as rules see it. What is not a whole statement, or hangs on one server session, is no read.
    pub(super) fn kind_of(&mut self, request: &Request<'_>) -> StatementKind {
        if self.lease.is_some() || self.cx.rules.is_empty() {
            return StatementKind::Other;
        }
        let whole = match request.kind {
            Kind::Text => request.head.complete,
            Kind::Statement { id, execution: Execution::Single } => {
                self.statements.get(id).is_some_and(|statement| !statement.private && !statement.cursor)
            }
            Kind::Statement { .. } | Kind::Other => false,
        };
        if whole { kind::of(request.facts) } else { StatementKind::Other }
    }

    /// What keeps the statement on the writer, whatever rules say.
    fn keeps_to_writer(&self, facts: &Facts) -> Option<Against> {
        let asks = |kind: VolatileKind| facts.volatile.iter().any(|call| call.kind == kind);
        let isolation = self.state.get("tx_isolation").or_else(|| self.state.get("transaction_isolation"));
        if self.transaction != Transaction::Idle {
            Some(Against::Transaction)
        } else if !self.status.contains(StatusFlags::AUTOCOMMIT) {
            Some(Against::Autocommit)
        } else if !self.pins.is_empty() || self.next_transaction != Pending::Nothing {
            Some(Against::Pinned)
        } else if isolation.is_some_and(|level| level.eq_ignore_ascii_case(b"SERIALIZABLE")) {
            Some(Against::Serializable)
        } else if self.found_rows.is_none() && asks(VolatileKind::FoundRows) {
            Some(Against::FoundRows)
        } else if self.handle.insert_id().server_session().is_some()
            && self.insert_id_need(facts) != InsertIdNeed::Nothing
        {
            Some(Against::LastInsertId)
        } else if self.readers.rest_until.is_some_and(|until| Instant::now() < until) {
            Some(Against::Behind)
        } else {
            None
        }
    }

    /// Which role serves the statement by the cluster as it is now.
    fn choose(&self, facts: &Facts, kind: StatementKind) -> (Arc<ClusterSnapshot>, Choice) {
        let (handle, seen) = (&self.cx.cluster, self.seen.as_ref());
        let snapshot = handle.load();
        let lag_max = Duration::from_millis(self.cx.config.router.lag_max_ms);
        let mut avoid: SmallVec<[NodeId; 8]> = SmallVec::from_slice(self.readers.failed_in(self.statement));
        avoid.extend(self.avoid.filter(|(_, version)| *version == snapshot.version).map(|(node, _)| node));
        let provable = |node: NodeId| {
            let need = |seen| causal::need(&snapshot, seen, node, &|node| handle.sample(node));
            seen.is_none_or(|seen| seen.node == node || !matches!(need(seen), Need::Unprovable(_)))
        };
        let near = |node: NodeId| handle.follows_within(node, lag_max) && provable(node);
        let view = SessionView {
            connection: self.handle.id,
            last_reader: self.readers.last,
            keeps_to_writer: self.keeps_to_writer(facts),
        };
        let cluster = ClusterView { snapshot: &snapshot, near: &near, avoid: &avoid };
        let choice = router::choose(kind, &view, &self.cx.rules, &cluster);
        (snapshot, choice)
    }

    /// A server session on a reader, if a rule sends the statement to one and one can serve it in time; `None`: it is the writer's.
    pub(super) async fn bind_to_reader(
        &mut self,
        facts: &Facts,
        kind: StatementKind,
        statement: Option<u32>,
        hold_until: Instant,
    ) -> Result<Option<Lease>, BindEnd> {
        if !self.reopenable {
            return Ok(None);
        }
        loop {
            let (snapshot, choice) = self.choose(facts, kind);
            match choice {
                Choice::Reader { node, why } => {
                    let Some(view) = snapshot.node(node) else { return Ok(None) };
                    match self.acquire_reader(view, hold_until).await? {
                        Some(lease) if !self.hides_nothing(node, kind, statement).await? => {
                            lease.release(Instant::now());
                            self.routed_to_writer(&snapshot, why.against(Against::HiddenCode));
                            return Ok(None);
                        }
                        Some(mut lease) => {
                            lease.reads_only = true;
                            self.writer_epoch = snapshot.writer_epoch;
                            self.readers.last = Some(node);
                            self.handle.decided(Instant::now(), "bind to a reader", Some(node), why);
                            self.cx.measure.routed(why);
                            return Ok(Some(lease));
                        }
                        None => self.readers.failed(node, self.statement),
                    }
                }
                Choice::Writer { why } => {
                    self.routed_to_writer(&snapshot, why);
                    return Ok(None);
                }
            }
        }
    }

    fn routed_to_writer(&self, snapshot: &ClusterSnapshot, why: Why) {
        self.cx.measure.routed(why);
        if !matches!(why, Why::Word(_)) {
            self.handle.decided(Instant::now(), "to the writer", snapshot.writer, why);
        }
    }

    /// Whether a statement certainly runs no code on this reader that its text does not show. In a READ ONLY transaction servers see to it.
    async fn hides_nothing(
        &mut self,
        node: NodeId,
        kind: StatementKind,
        statement: Option<u32>,
    ) -> Result<bool, BindEnd> {
        if kind != StatementKind::Read {
            return Ok(true);
        }
        let since = self.readers.defined;
        let hides = tokio::time::timeout(LOOK_MAX, self.hides_code_on(node, statement, since)).await;
        match hides {
            Ok(Ok(hides)) => Ok(!hides),
            Ok(Err(why)) => {
                tracing::debug!(session = self.handle.id, node = %self.cx.node_name(node), why, "what its views hide is not known");
                Ok(false)
            }
            Err(_) => Ok(false),
        }
    }

    /// One try on one reader. `None`: it can't serve now.
    async fn acquire_reader(&mut self, view: &NodeView, hold_until: Instant) -> Result<Option<Lease>, BindEnd> {
        let failed = match self.acquire(view, None, None).await {
            Ok(Ok(lease)) => {
                let until = hold_until.min(Instant::now() + CATCH_UP_MAX);
                match self.catch_up(lease, until).await? {
                    Ok(lease) => return Ok(Some(lease)),
                    Err(NotCaughtUp::Behind(why)) => {
                        self.readers.rest_until = Some(Instant::now() + REST);
                        self.handle.decided(Instant::now(), "not on this reader", Some(view.id), "it was behind");
                        tracing::debug!(session = self.handle.id, node = %view.name, why, "a reader was behind");
                        return Ok(None);
                    }
                    Err(NotCaughtUp::Lost(why)) => why,
                }
            }
            Ok(Err(why)) => why,
            // A full pool is a limit that somebody set, and the writer is no way around it.
            Err(BindEnd::Refused(error)) if error.code != errors::POOL_LIMIT => error.to_string(),
            Err(end) => return Err(end),
        };
        self.cx.cluster.suspect(view.id);
        self.handle.decided(Instant::now(), "not on this reader", Some(view.id), "it gave no server session");
        tracing::debug!(session = self.handle.id, node = %view.name, why = failed, "a reader gave no server session");
        Ok(None)
    }

    /// Before a statement of a session that is still on a reader: it may stay, or the session leaves, or the statement can't be served.
    pub(super) async fn leave_reader_if_due(&mut self, facts: &Facts) -> Result<(), BindEnd> {
        let unread = [PinReason::UnreadUserVariables, PinReason::UnreadVariables];
        if unread.into_iter().any(|reason| self.pins.contains(reason))
            && router::stay(facts, &self.kept()) != Stay::Here
        {
            if Box::pin(self.capture()).await == Flow::End {
                return Err(BindEnd::ClientGone);
            }
            if let Some(lost) = self.tell_lost() {
                return Err(BindEnd::Refused(lost));
            }
        }
        let Some(lease) = &self.lease else { return Ok(()) };
        let (node, flavor) = (lease.node, lease.conn.flavor);
        let kept = self.kept();
        match router::stay(facts, &kept) {
            Stay::Here => Ok(()),
            Stay::ReadOnlyTransaction => Err(BindEnd::Refused(errors::read_only_transaction(flavor))),
            Stay::Refuse(why) => {
                Err(BindEnd::Refused(errors::not_on_a_reader(&self.cx.node_name(node), why, &self.pins.to_string())))
            }
            Stay::Leave => {
                if self.needs_messages(facts) {
                    if Box::pin(self.copy_messages()).await == Flow::End {
                        return Err(BindEnd::ClientGone);
                    }
                } else if self.messages == Messages::Here {
                    self.messages = Messages::None;
                }
                self.leave_reader(kept.in_transaction).await
            }
        }
    }

    /// What keeps the session on its reader.
    fn kept(&self) -> Kept {
        Kept {
            in_transaction: self.transaction != Transaction::Idle,
            read_only: self.status.contains(StatusFlags::IN_TRANS_READONLY),
            lasting_pin: self.pins.is_lasting(),
            variables_follow: self.can_follow(),
        }
    }

    /// Long data stays where it is sent, and may be for a write.
    pub(super) async fn leave_reader_for_long_data(&mut self) -> Result<(), BindEnd> {
        if self.transaction == Transaction::Idle && !self.pins.is_lasting() {
            return self.leave_reader(false).await;
        }
        Ok(())
    }

    /// Gives the server session on the reader back. A READ ONLY transaction ends with it, as it would by the statement that is due.
    async fn leave_reader(&mut self, in_transaction: bool) -> Result<(), BindEnd> {
        let Some(lease) = &mut self.lease else { return Ok(()) };
        let node = lease.node;
        let mut clean = true;
        if in_transaction || lease.next_transaction != Pending::Nothing {
            // It uses up what waits for the next transaction, too.
            lease.last_use = None;
            let asks = [Ask::Query(Bytes::from_static(END_TRANSACTION))];
            let ended = aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await;
            if matches!(ended, Err(NotLanded::ClientGone)) {
                return Err(BindEnd::ClientGone);
            }
            clean = ended.is_ok_and(|answers| answers.iter().all(|answer| answer.error.is_none()));
            lease.next_transaction = Pending::Nothing;
        }
        self.transaction = Transaction::Idle;
        self.status.remove(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY);
        // Nothing pins but what goes by itself.
        self.set_pins(Pins::NONE);
        self.handle.decided(Instant::now(), "leave the reader", Some(node), "the statement is not for readers");
        if clean {
            self.release_if_free();
        } else if let Some(lease) = self.lease.take() {
            // Closing it ends the transaction too.
            self.cx.measure.failure(crate::error::Side::Server, Stage::Clean);
            self.server_session_gone(&lease);
            self.unbound_from(&lease);
        }
        Ok(())
    }
}
