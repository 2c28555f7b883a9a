//! One command of a client: which kind it is, and the one attempt loop that serves it.

use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::Stage;
use crate::failover::{self, Decision, Failure};
use crate::pool::session::LastUse;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::command::Command;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::relay::{Cut, Progress, Relay, consume};
use crate::proxy::report::Report;
use crate::proxy::send::{self, FileEnd, Sending, Sent};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Execution;
use crate::proxy::wire::{self, RequestHead, ServerRead};
use crate::session::pins::PinReason;
use crate::session::transaction::Transaction;
use crate::sql::{Facts, StatementCount, TransactionControl};

/// A request on its way to a node.
pub(super) struct Request<'a> {
    /// Where the client's bytes are.
    pub head: RequestHead,
    /// The packet to send in place of the client's, as frames. The client's bytes are kept all the same until the outcome is known.
    pub rewritten: Option<BytesMut>,
    /// What answer is due.
    pub shape: ReplyShape,
    /// What the lexer saw.
    pub facts: &'a Facts,
    /// The client's id of the statement that this prepares.
    pub client_statement: u32,
    /// What has to be done to it once the server session is known.
    pub kind: Kind,
    /// The answer is of no concern to pins and state (statistics, field lists).
    pub stateless: bool,
}

/// What has to be done to a request once the server session is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A statement's text: values take the place of calls that only belay can answer.
    Text,
    /// It is about a prepared statement: the server's id, and types if it misses them.
    Statement {
        /// The client's id.
        id: u32,
        /// The form.
        execution: Execution,
    },
    /// Nothing.
    Other,
}

/// How serving a request ended.
pub(super) enum Served {
    /// The node answered; the client has the answer.
    Answered(Box<Report>),
    /// The client got an error instead.
    Refused,
    /// The client is gone.
    ClientGone,
}

/// How one exchange with a node ended.
enum Exchange {
    Done(Box<Report>),
    ServerLost {
        answer_begun: bool,
    },
    Broken {
        why: String,
        answer_begun: bool,
    },
    ClientGone,
    TooLong,
    /// The node refused the request before it had all of it, and closed.
    Said(ErrorReply),
}

impl ClientSession {
    /// Serves one request whose start is in the buffer.
    pub(super) async fn execute(&mut self, head: RequestHead) -> Flow {
        let Some(&byte) = self.io.read_buf.get(HEADER_BYTES) else { return Flow::End };
        let command = Command::from_byte(byte);
        if !matches!(command, Some(Command::Ping | Command::StmtClose | Command::SetOption)) {
            // These leave the warnings and counts of the statement before as they are.
            self.statement += 1;
        }
        self.named = None;
        match command {
            Some(Command::Query) => self.query(head).await,
            Some(Command::StmtExecute) => self.stmt_execute(head).await,
            Some(Command::StmtPrepare) => self.stmt_prepare(head).await,
            Some(Command::StmtClose) => self.stmt_close(head).await,
            Some(Command::StmtReset) => self.stmt_reset(head).await,
            Some(Command::StmtFetch) => self.stmt_fetch(head).await,
            Some(Command::StmtSendLongData) => Box::pin(self.stmt_send_long_data(head)).await,
            Some(Command::StmtBulkExecute) => self.stmt_bulk_execute(head).await,
            Some(Command::Ping) => self.ping(head).await,
            Some(Command::Quit) => Flow::End,
            Some(Command::InitDb) => self.pass_on(head, ReplyShape::Simple, false).await,
            Some(Command::FieldList) => self.pass_on(head, ReplyShape::FieldList, true).await,
            Some(Command::Statistics) => self.pass_on(head, ReplyShape::Statistics, true).await,
            Some(Command::ProcessInfo) => self.pass_on(head, ReplyShape::Query, true).await,
            Some(Command::ProcessKill) => Box::pin(self.process_kill(head)).await,
            // What is rare has a box of its own, so that the task of an idle client stays small.
            Some(Command::ResetConnection) => Box::pin(self.reset_connection(head)).await,
            Some(Command::ChangeUser) => Box::pin(self.change_user(head)).await,
            Some(Command::SetOption) => Box::pin(self.set_option(head)).await,
            Some(Command::Shutdown) => self.refuse(head, errors::not_supported("COM_SHUTDOWN")).await,
            Some(Command::Debug) => self.refuse(head, errors::not_supported("COM_DEBUG")).await,
            Some(
                Command::BinlogDump
                | Command::BinlogDumpGtid
                | Command::RegisterReplica
                | Command::TableDump
                | Command::Clone,
            ) => self.refuse(head, errors::not_supported("a replication command")).await,
            _ => self.refuse(head, errors::unknown_command()).await,
        }
    }

    /// Drops the request and answers with an error.
    pub(super) async fn refuse(&mut self, head: RequestHead, error: ErrorReply) -> Flow {
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        self.reply_error(&error).await
    }

    async fn ping(&mut self, head: RequestHead) -> Flow {
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        self.reply_ok().await
    }

    async fn pass_on(&mut self, head: RequestHead, shape: ReplyShape, stateless: bool) -> Flow {
        let facts = Facts::nothing();
        let request =
            Request { head, rewritten: None, shape, facts: &facts, client_statement: 0, kind: Kind::Other, stateless };
        self.cx.measure.statement(facts.class);
        match self.serve(request).await {
            Served::Answered(_) | Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    async fn query(&mut self, head: RequestHead) -> Flow {
        let facts = self.read_statement(head);
        self.cx.measure.statement(facts.class);
        if let Some(kill) = facts.kill.filter(|_| facts.statements == StatementCount::One) {
            return Box::pin(self.kill(head, kill)).await;
        }
        let release = matches!(
            facts.txn,
            TransactionControl::Commit { release: Some(true), .. }
                | TransactionControl::Rollback { release: Some(true), .. }
        );
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..).unwrap_or_default();
        self.sets_untracked = self.sets_untracked_variable(sql, &facts);
        self.pending_collation = collation_of(sql, &facts);
        self.named = crate::session::user_variables::named(sql, &facts);
        let request = Request {
            head,
            rewritten: None,
            shape: ReplyShape::Query,
            facts: &facts,
            client_statement: 0,
            kind: Kind::Text,
            stateless: false,
        };
        match self.serve(request).await {
            Served::Answered(report) if release && report.error.is_none() => {
                // The server closes after COMMIT RELEASE, and so does belay.
                if let Some(lease) = self.lease.take() {
                    self.server_session_gone(&lease);
                    self.unbound_from(&lease);
                }
                Flow::End
            }
            Served::Answered(_) | Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    /// The facts about the statement in the buffer; a statement longer than the buffer is read up to there, and not for certain.
    fn read_statement(&self, head: RequestHead) -> Facts {
        let end = head.header.frame_len().min(self.io.read_buf.len());
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default();
        let mut facts = crate::sql::analyse(sql, &self.lex_context());
        if !head.complete {
            facts.make_uncertain();
            facts.effects |= crate::sql::Effects::CUT_SHORT;
        }
        facts
    }

    /// The one attempt loop. Whatever happens to servers ends here: in an answer, an error reply, or the end of the client.
    pub(super) async fn serve(&mut self, mut request: Request<'_>) -> Served {
        let started = Instant::now();
        if let Some(error) = self.lost.take() {
            return Box::pin(self.tell_loss(request.head, request.facts, error)).await;
        }
        if let Err(error) = self.check_pin_budget(request.facts) {
            return Box::pin(self.refused(request.head, error)).await;
        }
        let hold_until = started + self.cx.hold_timeout;
        loop {
            match self.ready(&mut request, hold_until).await {
                Ok(()) => {}
                Err(BindEnd::ClientGone) => return Served::ClientGone,
                Err(BindEnd::Refused(error)) => return Box::pin(self.refused(request.head, error)).await,
                Err(BindEnd::Lost(stage)) => {
                    if let Some(end) = Box::pin(self.failed(stage, false, &request, hold_until)).await {
                        return end;
                    }
                    continue;
                }
            }
            return match self.exchange(&mut request, started).await {
                Exchange::Done(report) => {
                    self.answered(&request, &report);
                    Served::Answered(report)
                }
                Exchange::ClientGone => Served::ClientGone,
                Exchange::Said(error) => {
                    self.lose_bound();
                    Box::pin(self.refused(request.head, error)).await
                }
                Exchange::TooLong => {
                    self.lose_bound();
                    Box::pin(self.refused(request.head, errors::packet_too_large())).await
                }
                Exchange::Broken { why, answer_begun } => {
                    tracing::warn!(session = self.handle.id, why, "a node's answer could not be relayed");
                    Box::pin(self.server_broke(answer_begun, &request, hold_until)).await
                }
                Exchange::ServerLost { answer_begun } => {
                    Box::pin(self.server_broke(answer_begun, &request, hold_until)).await
                }
            };
        }
    }

    async fn ready(&mut self, request: &mut Request<'_>, hold_until: Instant) -> Result<(), BindEnd> {
        if self.lease.as_ref().is_some_and(|l| !l.conn.io.read_buf.is_empty()) {
            // The node said something unasked behind its last answer: it is about to close, and nothing of it answers this request.
            return Err(BindEnd::Lost(Stage::Idle));
        }
        self.bind_and_replay(request.facts, hold_until).await?;
        match request.kind {
            Kind::Text => self.rewrite(request).map_err(BindEnd::Refused),
            Kind::Statement { id, execution } => self.adapt_statement(request, id, execution).await,
            Kind::Other => Ok(()),
        }
    }

    async fn server_broke(&mut self, answer_begun: bool, request: &Request<'_>, hold_until: Instant) -> Served {
        match Box::pin(self.failed(Stage::Answer, answer_begun, request, hold_until)).await {
            Some(served) => served,
            // `decide` never lets a statement that was sent be tried again.
            None => Box::pin(self.refused(request.head, errors::outcome_unknown("?", ""))).await,
        }
    }

    /// What is to be done after a failure: `None` is to try another server session.
    async fn failed(
        &mut self,
        stage: Stage,
        answer_begun: bool,
        request: &Request<'_>,
        hold_until: Instant,
    ) -> Option<Served> {
        let failure = Failure { stage, transaction: self.transaction, pins: self.pins, answer_begun };
        let (pins, lasting) = (self.pins.to_string(), self.pins.is_lasting());
        let lost_too = if lasting { pins.as_str() } else { "" };
        let lease = self.lease.take();
        let node = lease.as_ref().map(|l| l.node);
        let name = node.map_or_else(|| "?".into(), |n| self.cx.node_name(n));
        if let Some(node) = node {
            self.cx.cluster.suspect(node);
            self.avoid = Some((node, self.cx.cluster.load().version));
        }
        self.cx.measure.failure(crate::error::Side::Server, stage);
        if let Some(lease) = lease {
            self.server_session_gone(&lease);
            self.unbound_from(&lease);
        }
        let decision = failover::decide(&failure);
        self.handle.decided(Instant::now(), decision.label(), node, stage.label());
        self.transaction = Transaction::Idle;
        self.status.remove(crate::protocol::mysql::capability::StatusFlags::IN_TRANS);
        let error = match decision {
            Decision::TryAnother | Decision::Forget if Instant::now() < hold_until => return None,
            Decision::TryAnother | Decision::Forget => {
                errors::no_node("server sessions were lost before the statement was sent")
            }
            Decision::StateLost => errors::state_lost(&name, &pins),
            Decision::TransactionLost => errors::transaction_lost(&name),
            Decision::OutcomeUnknown => {
                return Some(Box::pin(self.cut_answer(request.head, &errors::outcome_unknown(&name, lost_too))).await);
            }
            Decision::AnswerCut => {
                // Rows have reached the client: the error takes the place of the next one.
                return Some(Box::pin(self.cut_answer(request.head, &errors::answer_cut(&name, lost_too))).await);
            }
        };
        Some(Box::pin(self.refused(request.head, error)).await)
    }

    async fn cut_answer(&mut self, head: RequestHead, error: &ErrorReply) -> Served {
        if self.drop_request(head).await == Flow::End || self.cut.mid_frame {
            // The client waits for the rest of a frame that will not come: only closing tells it so.
            return Served::ClientGone;
        }
        let mut payload = BytesMut::new();
        crate::protocol::mysql::packet::err::encode_err(&mut payload, error, true);
        let mut out = BytesMut::new();
        let mut seq = self.cut.next_seq;
        crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, &payload);
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

    async fn refused(&mut self, head: RequestHead, error: ErrorReply) -> Served {
        if self.drop_request(head).await == Flow::End {
            return Served::ClientGone;
        }
        match self.reply_error(&error).await {
            Flow::Continue => Served::Refused,
            Flow::End => Served::ClientGone,
        }
    }

    /// The first statement after a loss while the client idled: ROLLBACK of the lost transaction is true already, everything else gets the error.
    async fn tell_loss(&mut self, head: RequestHead, facts: &Facts, error: ErrorReply) -> Served {
        let rollback = self.transaction == Transaction::Lost
            && facts.certain
            && matches!(
                facts.txn,
                TransactionControl::Rollback { chain: None | Some(false), release: None | Some(false) }
            );
        self.transaction = Transaction::Idle;
        if !rollback {
            return Box::pin(self.refused(head, error)).await;
        }
        if self.skip_request(head).await == Flow::End {
            return Served::ClientGone;
        }
        if error.code != errors::TRANSACTION_LOST {
            // More than the transaction was lost: a ROLLBACK is no question about that.
            self.lost = Some(error);
        }
        self.handle.decided(Instant::now(), "ROLLBACK answered", None, "the transaction was lost with its server");
        match self.reply_ok().await {
            Flow::Continue => Served::Refused,
            Flow::End => Served::ClientGone,
        }
    }

    async fn exchange(&mut self, request: &mut Request<'_>, started: Instant) -> Exchange {
        if self.handle.is_killed() {
            // While it waited for a server session: what was not sent is not to be sent any more.
            return Exchange::ClientGone;
        }
        self.handle.running().busy = true;
        self.cut = Cut::default();
        let sent = self.send_request(request).await;
        let before = started.elapsed();
        let exchange = match sent {
            Sent::All => self.relay_answer(request, before).await,
            Sent::ClientGone => return Exchange::ClientGone,
            Sent::ServerLost => Box::pin(self.last_words(request)).await,
            Sent::TooLong => {
                // Half of it is with the server: that session is of no use, and the rest of the request is dropped.
                self.handle.running().busy = false;
                return Exchange::TooLong;
            }
        };
        if !matches!(exchange, Exchange::ClientGone) {
            self.handle.running().busy = false;
        }
        exchange
    }

    /// The node took no more of the request: it may have said why before it closed (a packet that is too large for it, for example).
    async fn last_words(&mut self, request: &Request<'_>) -> Exchange {
        let Some(lease) = &mut self.lease else { return Exchange::ServerLost { answer_begun: false } };
        let server = &mut lease.conn.io;
        let words = async {
            loop {
                if let Some(header) = FrameHeader::parse(&server.read_buf)
                    && let Some(payload) = server.read_buf.get(HEADER_BYTES..header.frame_len())
                {
                    return (payload.first() == Some(&0xFF)).then(|| crate::proxy::report::error_reply(payload));
                }
                crate::net::scratch::ensure(&mut server.read_buf);
                server.read_buf.reserve(1024);
                if !matches!(tokio::io::AsyncReadExt::read_buf(&mut server.stream, &mut server.read_buf).await, Ok(n) if n > 0)
                {
                    return None;
                }
            }
        };
        let said = tokio::time::timeout(std::time::Duration::from_millis(500), words).await.ok().flatten();
        tracing::debug!(session = self.handle.id, shape = ?request.shape, said = ?said.as_ref().map(|e| e.code), "a node took no more of a request");
        match said {
            Some(error) => Exchange::Said(error),
            None => Exchange::ServerLost { answer_begun: false },
        }
    }

    async fn relay_answer(&mut self, request: &Request<'_>, before: std::time::Duration) -> Exchange {
        let Some(lease) = &mut self.lease else { return Exchange::ServerLost { answer_begun: false } };
        let mut relay = Relay::new(request.shape, self.capabilities, lease.conn.capabilities, request.client_statement)
            .with_status(self.status);
        let mut out = BytesMut::new();
        let mut watch = true;
        let mut after = std::time::Duration::ZERO;
        if request.shape == ReplyShape::None {
            return Exchange::Done(Box::default());
        }
        loop {
            let server = &mut lease.conn.io;
            match wire::read_server(server, &self.io.stream, &mut watch, &self.handle).await {
                ServerRead::Bytes => {}
                ServerRead::Lost => {
                    self.cut = relay.cut();
                    return Exchange::ServerLost { answer_begun: relay.begun() };
                }
                ServerRead::ClientClosed => return Exchange::ClientGone,
                ServerRead::Signals(signals) => {
                    use crate::proxy::registry::signal;
                    if signals & signal::KILLED != 0 {
                        return Exchange::ClientGone;
                    }
                    if signals & signal::DRAIN != 0 {
                        self.draining = true;
                    }
                    if signals & signal::NODE_LOST != 0 {
                        self.cut = relay.cut();
                        return Exchange::ServerLost { answer_begun: relay.begun() };
                    }
                    continue;
                }
            }
            let came = Instant::now();
            let (n, progress) = relay.process(&mut server.read_buf, &mut out);
            let bytes = if out.is_empty() && !relay.replaced() {
                server.read_buf.get(..n).unwrap_or_default()
            } else {
                &out[..]
            };
            if wire::send(&mut self.io.stream, bytes, self.cx.client_write_timeout).await.is_err() {
                return Exchange::ClientGone;
            }
            out.clear();
            consume(&mut server.read_buf, n);
            after += came.elapsed();
            match progress {
                Progress::More => {}
                Progress::Done => {
                    self.cx.measure.added_time(before + after);
                    crate::net::scratch::give_back(&mut server.read_buf);
                    return Exchange::Done(Box::new(relay.report));
                }
                Progress::Broken(error) => {
                    self.cut = relay.cut();
                    return Exchange::Broken { why: error.to_string(), answer_begun: relay.begun() };
                }
                Progress::WantsFile => {
                    // The client's file follows its request in the same buffer.
                    if self.sending == Sending::Untouched {
                        consume(&mut self.io.read_buf, request.head.header.frame_len());
                        self.sending = Sending::SENT;
                    }
                    let timeout = self.cx.client_write_timeout;
                    match send::file(&mut self.io, &mut lease.conn.io, relay.seq_shift(), timeout).await {
                        FileEnd::Sent => relay.file_sent(),
                        FileEnd::ClientGone => return Exchange::ClientGone,
                        FileEnd::ServerLost { next_seq } => {
                            self.cut = Cut { next_seq, mid_frame: false };
                            return Exchange::ServerLost { answer_begun: false };
                        }
                    }
                }
            }
        }
    }

    /// After an answer: what it changed in the client's and the server session's state.
    fn answered(&mut self, request: &Request<'_>, report: &Report) {
        if std::mem::take(&mut self.sending) == Sending::Untouched {
            let n = request.head.header.frame_len().min(self.io.read_buf.len());
            consume(&mut self.io.read_buf, n);
        }
        // What is no statement leaves the answers about the last statement as they were: its client's own, or somebody else's.
        let continued = self.untouched();
        self.found_rows_here &= continued;
        if let Some(lease) = &mut self.lease {
            let last = LastUse { client: self.handle.id, statement: self.statement };
            lease.last_use = (continued || !request.stateless).then_some(last);
        }
        if !request.stateless {
            self.apply(request.facts, report);
            if !request.head.complete && request.kind == Kind::Text {
                let mut pins = self.pins;
                pins.insert(PinReason::LongStatement);
                self.set_pins(pins);
            }
        }
        self.notes();
    }
}

/// A request of belay's making, as one packet.
pub(super) fn command_packet(command: u8, rest: &[u8]) -> BytesMut {
    let mut payload = BytesMut::with_capacity(rest.len() + 1);
    payload.put_u8(command);
    payload.put_slice(rest);
    let mut out = BytesMut::with_capacity(payload.len() + HEADER_BYTES);
    let mut seq = 0;
    crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, &payload);
    out
}

/// The collation that SET NAMES … COLLATE names.
pub(super) fn collation_of(sql: &[u8], facts: &Facts) -> Option<Bytes> {
    facts.set_names.and_then(|names| names.collate).map(|span| Bytes::copy_from_slice(span.of(sql)))
}

/// The text of a COM_QUERY or COM_STMT_PREPARE payload.
pub(super) fn text_of(payload: &Bytes) -> Bytes {
    payload.slice(1.min(payload.len())..)
}
