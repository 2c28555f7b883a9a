//! When an attempt to serve a statement fails: what is known, what `failover::decide` makes of it, and what the client is told.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::error::{Side, Stage};
use crate::failover::{self, Cause, Decision, Extent, Failure, Meaning, Verdict};
use crate::metrics::labels::Masked;
use crate::pool::flight::Ask;
use crate::pool::lease::Lease;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::frame;
use crate::protocol::mysql::packet::err::encode_err;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::bind::while_client_stays;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request, Served};
use crate::proxy::report::Report;
use crate::proxy::send::Sending;
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Execution;
use crate::proxy::wire::RequestHead;
use crate::session::loss::Loss;
use crate::session::pins::PinReason;
use crate::session::transaction::Transaction;
use crate::sql::{Facts, TransactionControl};

/// How far the attempts to serve one statement have come.
#[derive(Clone, Debug)]
pub(super) struct Attempts {
    /// Until when it may wait for a node.
    pub hold_until: Instant,
    /// How often it was sent and lost, and runs again.
    pub again: u32,
    /// It is to be sent again only if it certainly runs no code that its text does not show.
    pub unless_hidden: Option<Again>,
}

/// Why a statement that was sent is to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Again {
    /// When that became due: what there was to run was there before.
    pub since: Instant,
    /// What the node said that refused it, if that is why.
    pub refused: Option<ErrorReply>,
}

/// An answer that begins with an error which may be about the node: kept from the client until that is known.
pub(super) struct Doubtful {
    /// The error.
    pub error: ErrorReply,
    /// The bytes that the client gets if it is an answer like any other.
    pub frames: BytesMut,
    /// What the answer said.
    pub report: Box<Report>,
}

impl Doubtful {
    /// Whether these frames are one ERR packet and nothing before it.
    pub(super) fn is_error(frames: &[u8]) -> bool {
        frames.get(frame::HEADER_BYTES) == Some(&0xFF)
    }

    /// An answer of one ERR packet, as the client would get it.
    pub(super) fn new(frames: BytesMut, report: Report) -> Doubtful {
        let error = crate::proxy::report::error_reply(frames.get(frame::HEADER_BYTES..).unwrap_or_default());
        Doubtful { error, frames, report: Box::new(report) }
    }
}

/// The error of a failed statement, and what is left to be done with the request.
enum Told {
    /// Nothing of the answer was begun.
    Instead(ErrorReply),
    /// It takes the place of the rest of the answer.
    InTheMiddle(ErrorReply),
}

impl ClientSession {
    /// The node's connection was lost, or its answer can't be relayed, after the statement was sent. `None`: the statement runs again.
    pub(super) async fn server_broke(
        &mut self,
        answer_begun: bool,
        request: &Request<'_>,
        attempts: &mut Attempts,
    ) -> Option<Served> {
        let mut failure = self.failure(Stage::Answer, Cause::NodeGone, request);
        failure.answer_begun = answer_begun;
        // Only where it makes a difference is the node asked.
        if failover::decide(&failure) == Decision::RunAgain {
            let Some(gone) = self.is_node_gone().await else { return Some(Served::ClientGone) };
            if !gone {
                failure.cause = Cause::ConnectionLost;
            } else if attempts.again >= self.cx.config.cluster.reads_again_max {
                failure.statement = failover::Statement::Ordinary;
            }
        }
        self.failed(failure, request, attempts).await
    }

    /// What is known of a failure at this stage.
    pub(super) fn failure(&self, stage: Stage, cause: Cause, request: &Request<'_>) -> Failure {
        let whole = request.head.complete && self.sending == Sending::Untouched;
        let statement = if whole && request.shape != ReplyShape::Fetch {
            failover::statement(request.facts)
        } else {
            // Its bytes are gone, or its cursor is.
            failover::Statement::MayCommit
        };
        let bulk = matches!(request.kind, Kind::Statement { execution: Execution::Bulk, .. });
        let extent = if whole && !bulk && request.shape != ReplyShape::Fetch {
            failover::extent(request.facts, self.transaction != Transaction::Idle)
        } else {
            Extent::Part
        };
        Failure {
            stage,
            cause,
            statement,
            extent,
            transaction: self.transaction,
            autocommit: self.status.contains(StatusFlags::AUTOCOMMIT),
            pins: self.pins,
            answer_begun: false,
        }
    }

    /// What is to be done after a failure: `None` is to try another server session.
    pub(super) async fn failed(
        &mut self,
        failure: Failure,
        request: &Request<'_>,
        attempts: &mut Attempts,
    ) -> Option<Served> {
        let decision = failover::decide(&failure);
        let over = !matches!(
            decision,
            Decision::RunAgain | Decision::TryAnother | Decision::Forget | Decision::RollBack | Decision::PassOn
        );
        let sent = over && matches!(failure.stage, Stage::Send | Stage::Answer);
        let lost = self.lost_pins(sent);
        let pins = lost.to_string();
        let names = lost.is_lasting() || lost.contains(PinReason::NextTransaction);
        let lost_too = if names { pins.as_str() } else { "" };
        let lease = self.lease.take();
        let node = lease.as_ref().map(|l| l.node);
        let name = node.map_or_else(|| "?".into(), |n| self.cx.node_name(n));
        if let Some(node) = node {
            self.cx.cluster.suspect(node);
            self.avoid = Some((node, self.cx.cluster.load().version));
            self.readers.failed(node, self.statement);
        }
        self.cx.measure.failure(Side::Server, failure.stage);
        if let Some(lease) = lease {
            self.server_session_gone(&lease);
            self.unbound_from(&lease);
        }
        self.handle.decided(Instant::now(), decision.label(), node, failure.stage.label());
        self.transaction = Transaction::Idle;
        let remains = std::mem::take(&mut self.remains);
        self.status.remove(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY);
        let told = match decision {
            Decision::RunAgain => {
                attempts.again += 1;
                attempts.hold_until = Instant::now() + self.cx.hold_timeout;
                attempts.unless_hidden = Some(Again { since: Instant::now(), refused: None });
                return None;
            }
            Decision::TryAnother | Decision::Forget if Instant::now() < attempts.hold_until => {
                match (failure.cause, &attempts.unless_hidden) {
                    // That it is masked is not known yet.
                    (Cause::Refused, Some(Again { refused: Some(_), .. })) => {}
                    (Cause::Refused, _) => self.cx.measure.masked(Masked::Refused),
                    _ => self.cx.measure.masked(Masked::NotSent),
                }
                return None;
            }
            Decision::TryAnother | Decision::Forget => {
                let error = errors::no_node("server sessions were lost before the statement was sent");
                Told::Instead(ClientSession::not_sent(attempts, error))
            }
            Decision::StateLost => {
                let transaction = (failure.transaction != Transaction::Idle).then_some(remains);
                Told::Instead(errors::lost(&Loss { node: name, transaction, state: lost }))
            }
            Decision::TransactionLost | Decision::RollBack => {
                Told::InTheMiddle(errors::transaction_lost(&name, lost_too, remains))
            }
            Decision::OutcomeUnknown => Told::InTheMiddle(errors::outcome_unknown(&name, lost_too)),
            Decision::Interrupted => Told::InTheMiddle(errors::interrupted(&name, lost_too)),
            // Rows have reached the client: the error takes the place of the next one.
            Decision::AnswerCut => Told::InTheMiddle(errors::answer_cut(&name, lost_too)),
            // `doubted` passes these on itself.
            Decision::PassOn => Told::Instead(errors::outcome_unknown(&name, lost_too)),
        };
        Some(match told {
            Told::Instead(error) => Box::pin(self.refused(request.head, error)).await,
            Told::InTheMiddle(error) => Box::pin(self.cut_answer(request.head, &error)).await,
        })
    }

    /// An answer that may say more of the node than of the statement. `None`: the statement was not executed, and another server session is tried.
    pub(super) async fn doubted(
        &mut self,
        answer: Doubtful,
        request: &Request<'_>,
        attempts: &mut Attempts,
    ) -> Option<Served> {
        if request.shape == ReplyShape::Prepare && self.make_room(&answer.error) {
            return None;
        }
        let Some(lease) = &self.lease else { return Some(self.pass_on_answer(answer, request).await) };
        let (node, flavor) = (lease.node, lease.conn.flavor);
        let meaning = failover::meaning(flavor, &answer.error);
        if meaning == Meaning::OfStatement {
            return Some(self.pass_on_answer(answer, request).await);
        }
        let probe = self.cx.cluster.probe_after(node, Instant::now(), self.probe_limit());
        let Some(probed) = while_client_stays(&self.io.stream, &self.handle, probe).await else {
            return Some(Served::ClientGone);
        };
        match failover::confirm(meaning, probed.as_ref().map(|p| &p.state)) {
            Verdict::Answer => Some(self.pass_on_answer(answer, request).await),
            Verdict::Gone => self.server_broke(false, request, attempts).await,
            Verdict::Refused => Box::pin(self.refused_by_node(answer, request, attempts)).await,
        }
    }

    /// The node refused the statement. `None`: it did nothing of it, as far as is known, and another server session is tried.
    async fn refused_by_node(
        &mut self,
        answer: Doubtful,
        request: &Request<'_>,
        attempts: &mut Attempts,
    ) -> Option<Served> {
        let mut failure = self.failure(Stage::Answer, Cause::Refused, request);
        if failover::decide(&failure) == Decision::TryAnother {
            let since = Instant::now();
            let node = self.lease.as_ref().map(|l| l.node);
            match node.filter(|node| self.cx.cluster.load().node(*node).is_some_and(|view| view.state.can_read())) {
                // Triggers and views ran where they are, so this is the node to ask.
                Some(node) => {
                    let texts = self.texts_of(request);
                    let hides = self.hides_code(request.facts, texts.as_deref(), node, since);
                    let Some(hides) = while_client_stays(&self.io.stream, &self.handle, hides).await else {
                        return Some(Served::ClientGone);
                    };
                    if hides != Ok(false) {
                        failure.extent = Extent::Part;
                    }
                }
                // It answers nobody. The next one is asked, before the statement is sent there.
                None => attempts.unless_hidden = Some(Again { since, refused: Some(answer.error.clone()) }),
            }
        }
        match failover::decide(&failure) {
            Decision::PassOn => {
                let node = self.lease.as_ref().map(|l| l.node);
                self.handle.decided(Instant::now(), Decision::PassOn.label(), node, failure.stage.label());
                return Some(self.pass_on_answer(answer, request).await);
            }
            Decision::RollBack if self.roll_back().await == Flow::End => return Some(Served::ClientGone),
            _ => {}
        }
        self.failed(failure, request, attempts).await
    }

    /// What a statement is answered that can't be sent. One that was sent before and refused may have run code out of sight: then only the node that refused
    /// it has told anything about it.
    pub(super) fn not_sent(attempts: &Attempts, error: ErrorReply) -> ErrorReply {
        attempts.unless_hidden.as_ref().and_then(|again| again.refused.clone()).unwrap_or(error)
    }

    /// The refused transaction is still open and holds its locks. The server session is thrown away afterwards, whatever comes back.
    async fn roll_back(&mut self) -> Flow {
        if let Some(lease) = &mut self.lease {
            let asks = [Ask::Query(bytes::Bytes::from_static(b"ROLLBACK"))];
            match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
                Ok(_) => {}
                Err(NotLanded::ClientGone) => return Flow::End,
                Err(error) => {
                    tracing::debug!(session = self.handle.id, %error, "closing rolls back what ROLLBACK could not");
                }
            }
        }
        Flow::Continue
    }

    async fn pass_on_answer(&mut self, answer: Doubtful, request: &Request<'_>) -> Served {
        if self.send(&answer.frames).await == Flow::End {
            return Served::ClientGone;
        }
        self.answered(request, &answer.report);
        Served::Answered(answer.report)
    }

    /// Whether the node of the bound server session is gone, by its present state or a probe that begins now; `None` if the client is.
    async fn is_node_gone(&self) -> Option<bool> {
        let Some(lease) = &self.lease else { return Some(false) };
        let node = lease.node;
        let before = self.cx.cluster.load();
        let Some(view) = before.node(node) else { return Some(false) };
        if !view.state.can_read() {
            return Some(true);
        }
        let probe = self.cx.cluster.probe_after(node, Instant::now(), self.probe_limit());
        let probed = while_client_stays(&self.io.stream, &self.handle, probe).await?;
        Some(probed.is_some_and(|p| !p.state.can_read() || restarted(view.started_at_s, p.started_at_s, lease)))
    }

    /// A probe has to end within its own limit, and may have to wait for one that runs already.
    fn probe_limit(&self) -> Duration {
        Duration::from_millis(self.cx.config.monitor.probe_timeout_ms.saturating_mul(2).saturating_add(500))
    }

    async fn cut_answer(&mut self, head: RequestHead, error: &ErrorReply) -> Served {
        if self.drop_request(head).await == Flow::End || self.cut.mid_frame {
            // The client waits for the rest of a frame that will not come: only closing tells it so.
            return Served::ClientGone;
        }
        let mut payload = BytesMut::new();
        encode_err(&mut payload, error, true);
        let mut out = BytesMut::new();
        let mut seq = self.cut.next_seq;
        frame::encode_packet(&mut out, &mut seq, &payload);
        self.cx.measure.client_error();
        self.row_count = -1;
        match self.send(&out).await {
            Flow::Continue => Served::Refused,
            Flow::End => Served::ClientGone,
        }
    }

    /// Drops what is left of a request, whether it was begun to be sent or not.
    async fn drop_request(&mut self, head: RequestHead) -> Flow {
        match std::mem::take(&mut self.sending) {
            Sending::Untouched => self.skip_request(head).await,
            Sending::Streamed { left, continues } => self.skip_rest(left, continues).await,
        }
    }

    pub(super) async fn refused(&mut self, head: RequestHead, error: ErrorReply) -> Served {
        if self.drop_request(head).await == Flow::End {
            return Served::ClientGone;
        }
        match self.reply_error(&error).await {
            Flow::Continue => Served::Refused,
            Flow::End => Served::ClientGone,
        }
    }

    /// The first statement after a loss while the client idled: ROLLBACK of the lost transaction is true already, everything else gets the error.
    pub(super) async fn tell_loss(&mut self, head: RequestHead, facts: &Facts) -> Served {
        let rollback = self.lost.transaction()
            && facts.certain
            && matches!(
                facts.txn,
                TransactionControl::Rollback { chain: None | Some(false), release: None | Some(false) }
            );
        if !rollback && let Some(error) = self.tell_lost() {
            return Box::pin(self.refused(head, error)).await;
        }
        if self.skip_request(head).await == Flow::End {
            return Served::ClientGone;
        }
        // More than the transaction may be lost: a ROLLBACK is no question about that.
        self.lost.roll_back();
        self.transaction = Transaction::Idle;
        self.cx.measure.masked(Masked::Rollback);
        self.handle.decided(Instant::now(), "ROLLBACK answered", None, "the transaction was lost with its server");
        match self.reply_ok().await {
            Flow::Continue => Served::Refused,
            Flow::End => Served::ClientGone,
        }
    }
}

/// Whether the server process is another one than the server session was opened on: its start moved, or its uptime is shorter than the session's age.
fn restarted(before_s: i64, now_s: i64, lease: &Lease) -> bool {
    /// `Uptime` counts whole seconds, and probes take time.
    const JITTER_S: u64 = 2;
    let age_s = lease.opened_at.elapsed().as_secs();
    let uptime_s = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(u64::MAX, |d| d.as_secs().saturating_sub(u64::try_from(now_s).unwrap_or(0)));
    before_s.abs_diff(now_s) > JITTER_S || uptime_s.saturating_add(JITTER_S) < age_s
}
