//! One command of a client: which kind it is, and the one attempt loop that serves it.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::error::Stage;
use crate::failover::{self, Cause};
use crate::metrics::labels::Masked;
use crate::pool::session::LastUse;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::command::Command;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::failed::{Again, Attempts, Doubtful};
use crate::proxy::relay::{Cut, Progress, Relay, consume};
use crate::proxy::report::Report;
use crate::proxy::send::{self, FileEnd, Sending, Sent, command_packet};
use crate::proxy::session::{ClientSession, Flow, OfRequest};
use crate::proxy::statements::Execution;
use crate::proxy::text_statements::{self, TextNeed};
use crate::proxy::wire::{self, RequestHead, ServerRead};
use crate::session::diagnostics::Does;
use crate::session::pins::PinReason;
use crate::sql::{Facts, StatementCount, TransactionControl};

/// So much of an answer is kept before the client gets any of it, see `relay_answer`.
const KEPT_BYTES_MAX: usize = 16 * 1024;

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
    /// The answer is an error that may be about the node. The client has nothing of it.
    Doubtful(Box<Doubtful>),
}

impl ClientSession {
    /// Serves one request whose start is in the buffer.
    pub(super) async fn execute(&mut self, head: RequestHead) -> Flow {
        let Some(&byte) = self.io.read_buf.get(HEADER_BYTES) else { return Flow::End };
        let command = Command::from_byte(byte);
        if !matches!(command, Some(Command::Ping | Command::StmtClose | Command::StmtSendLongData | Command::SetOption))
        {
            // These leave the warnings and counts of the statement before as they are.
            self.statement += 1;
        }
        self.of_request = OfRequest::default();
        match command {
            Some(Command::Query) => self.query(head).await,
            Some(Command::StmtExecute) => self.stmt_execute(head, Execution::Single).await,
            Some(Command::StmtPrepare) => self.stmt_prepare(head).await,
            Some(Command::StmtClose) => self.stmt_close(head).await,
            Some(Command::StmtReset) => self.stmt_reset(head).await,
            Some(Command::StmtFetch) => self.stmt_fetch(head).await,
            Some(Command::StmtSendLongData) => Box::pin(self.stmt_send_long_data(head)).await,
            Some(Command::StmtBulkExecute) => self.stmt_execute(head, Execution::Bulk).await,
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
        let mut facts = self.read_statement(head);
        self.cx.measure.statement(facts.class);
        match self.plan_kill(&facts, head) {
            Some(Ok(kill)) => return Box::pin(self.kill(head, kill)).await,
            Some(Err(error)) => return self.refuse(head, error).await,
            None => {}
        }
        if self.asks_for_copy(head, &facts)
            && let Some(flow) = Box::pin(self.answer_from_copy(head)).await
        {
            return flow;
        }
        let release = matches!(
            facts.txn,
            TransactionControl::Commit { release: Some(true), .. }
                | TransactionControl::Rollback { release: Some(true), .. }
        );
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..).unwrap_or_default();
        self.of_request.assigned = self.assigned(sql, &facts);
        self.of_request.named = crate::session::user_variables::named(sql, &facts);
        let effects = facts.effects;
        let mut rewritten = None;
        let names = if text_statements::need_of(&facts) == TextNeed::Nothing {
            None
        } else {
            let end = head.header.frame_len().min(self.io.read_buf.len());
            let mut sql = Bytes::copy_from_slice(self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default());
            if head.complete && facts.statements == StatementCount::One {
                match self.with_values_in_source(&sql) {
                    Ok(None) => {}
                    Ok(Some(text)) => {
                        rewritten = Some(command_packet(0x03, &text));
                        sql = text;
                    }
                    Err(error) => return self.refuse(head, error).await,
                }
            }
            match self.about_names(&sql, &mut facts) {
                Ok(names) => names,
                Err(error) => return self.refuse(head, error).await,
            }
        };
        let request = Request {
            head,
            rewritten,
            shape: ReplyShape::Query,
            facts: &facts,
            client_statement: 0,
            kind: Kind::Text,
            stateless: false,
        };
        let served = self.serve(request).await;
        if let (Some(names), Served::Answered(report)) = (names, &served) {
            self.names_used(names, effects, report);
        }
        match served {
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
        if self.unread_variables.of_lexer() {
            // Whether it was read as the server reads it is not known.
            facts.make_uncertain();
        }
        if !head.complete {
            facts.make_uncertain();
            facts.effects |= crate::sql::Effects::CUT_SHORT;
        }
        facts
    }

    /// The one attempt loop. Whatever happens to servers ends here: in an answer, an error reply, or the end of the client.
    pub(super) async fn serve(&mut self, mut request: Request<'_>) -> Served {
        let started = Instant::now();
        if self.lost.is_some() {
            return Box::pin(self.tell_loss(request.head, request.facts)).await;
        }
        if let Err(error) = self.check_pin_budget(request.facts) {
            return Box::pin(self.refused(request.head, error)).await;
        }
        let mut attempts = Attempts { hold_until: started + self.cx.hold_timeout, again: 0, unless_hidden: None };
        loop {
            let end = match self.ready(&mut request, &mut attempts).await {
                Ok(()) => self.attempt(&mut request, &mut attempts, started).await,
                Err(BindEnd::ClientGone) => return Served::ClientGone,
                Err(BindEnd::Refused(error)) => {
                    let error = ClientSession::not_sent(&attempts, error);
                    return Box::pin(self.refused(request.head, error)).await;
                }
                // What went with a server session that was lost on the way here is told by the one who holds it.
                Err(BindEnd::Lost(_)) if self.lost.is_some() => {
                    return Box::pin(self.tell_loss(request.head, request.facts)).await;
                }
                Err(BindEnd::Lost(stage)) => {
                    let failure = self.failure(stage, Cause::ConnectionLost, &request);
                    Box::pin(self.failed(failure, &request, &mut attempts)).await
                }
            };
            if let Some(served) = end {
                return served;
            }
        }
    }

    /// Sends the request and relays its answer. `None`: another attempt is due.
    async fn attempt(
        &mut self,
        request: &mut Request<'_>,
        attempts: &mut Attempts,
        started: Instant,
    ) -> Option<Served> {
        match self.exchange(request, started).await {
            Exchange::Done(report) => {
                if attempts.again > 0 {
                    self.cx.measure.masked(Masked::ReadAgain);
                }
                self.answered(request, &report);
                Some(Served::Answered(report))
            }
            Exchange::ClientGone => Some(Served::ClientGone),
            Exchange::Said(error) => {
                self.lose_bound();
                Some(Box::pin(self.refused(request.head, error)).await)
            }
            Exchange::TooLong => {
                self.lose_bound();
                Some(Box::pin(self.refused(request.head, errors::packet_too_large())).await)
            }
            Exchange::Doubtful(answer) => Box::pin(self.doubted(*answer, request, attempts)).await,
            Exchange::Broken { why, answer_begun } => {
                tracing::warn!(session = self.handle.id, why, "a node's answer could not be relayed");
                Box::pin(self.server_broke(answer_begun, request, attempts)).await
            }
            Exchange::ServerLost { answer_begun } => Box::pin(self.server_broke(answer_begun, request, attempts)).await,
        }
    }

    async fn ready(&mut self, request: &mut Request<'_>, attempts: &mut Attempts) -> Result<(), BindEnd> {
        if self.lease.as_ref().is_some_and(|l| !l.conn.io.read_buf.is_empty()) {
            // The node said something unasked behind its last answer: it is about to close, and nothing of it answers this request.
            return Err(BindEnd::Lost(Stage::Idle));
        }
        let statement = match request.kind {
            Kind::Statement { id, .. } => Some(id),
            Kind::Text | Kind::Other => None,
        };
        if self.lease.as_ref().is_some_and(|l| l.reads_only) {
            Box::pin(self.leave_reader_if_due(request.facts)).await?;
        }
        let kind = self.kind_of(request);
        self.bind_and_replay(request.facts, kind, statement, attempts.hold_until).await?;
        if let Some(again) = &mut attempts.unless_hidden {
            Box::pin(self.check_again(request, again)).await?;
        }
        match request.kind {
            Kind::Text => self.rewrite(request).map_err(BindEnd::Refused),
            Kind::Statement { id, execution } => self.adapt_statement(request, id, execution),
            Kind::Other => Ok(()),
        }
    }

    /// What runs again must not run code that its text does not show, and what was made for another server session is of no use here.
    async fn check_again(&mut self, request: &mut Request<'_>, again: &mut Again) -> Result<(), BindEnd> {
        if request.kind != Kind::Other {
            request.rewritten = None;
        }
        let Some(node) = self.lease.as_ref().map(|l| l.node) else { return Err(BindEnd::Lost(Stage::Replay)) };
        let texts = self.texts_of(request);
        match self.hides_code(request.facts, texts.as_deref(), node, again.since).await {
            Ok(false) => {
                if again.refused.take().is_some() {
                    self.cx.measure.masked(Masked::Refused);
                }
                Ok(())
            }
            Ok(true) => Err(BindEnd::Refused(errors::outcome_unknown("that ran the statement first", ""))),
            Err(why) => {
                tracing::debug!(session = self.handle.id, why, "a node could not be asked for code that no text shows");
                Err(BindEnd::Lost(Stage::Replay))
            }
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
        let mut way = Way::new(request);
        if request.shape == ReplyShape::None {
            return Exchange::Done(Box::default());
        }
        loop {
            let server = &mut lease.conn.io;
            match wire::read_server(server, &self.io.stream, &mut watch, &self.handle).await {
                ServerRead::Bytes => {}
                ServerRead::Lost => {
                    self.cut = way.cut(&relay);
                    return Exchange::ServerLost { answer_begun: way.begun };
                }
                ServerRead::ClientClosed => return Exchange::ClientGone,
                ServerRead::Signals(signals) => {
                    use crate::proxy::registry::signal;
                    if signals & signal::KILLED != 0 {
                        return Exchange::ClientGone;
                    }
                    self.draining |= signals & signal::DRAIN != 0;
                    if signals & signal::NODE_LOST != 0 && self.cx.cluster.load().is_down(lease.node) {
                        self.cut = way.cut(&relay);
                        return Exchange::ServerLost { answer_begun: way.begun };
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
            if let Some(bytes) = way.next(bytes, &progress, relay.report.error)
                && wire::send(&mut self.io.stream, bytes, self.cx.client_write_timeout).await.is_err()
            {
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
                    return way.done(relay.report);
                }
                Progress::Broken(error) => {
                    self.cut = way.cut(&relay);
                    return Exchange::Broken { why: error.to_string(), answer_begun: way.begun };
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
    pub(super) fn answered(&mut self, request: &Request<'_>, report: &Report) {
        if std::mem::take(&mut self.sending) == Sending::Untouched {
            let n = request.head.header.frame_len().min(self.io.read_buf.len());
            consume(&mut self.io.read_buf, n);
        }
        self.note_seen(request.facts, report);
        if !self.cx.rules.is_empty() {
            self.readers.answered(request.facts);
        }
        // What is no statement leaves the answers about the last statement as they were: its client's own, or somebody else's.
        let continued = self.untouched();
        self.found_rows_here &= continued;
        if let Some(lease) = &mut self.lease {
            let last = LastUse { client: self.handle.id, statement: self.statement };
            lease.last_use = (continued || !request.stateless).then_some(last);
        }
        if request.stateless && request.shape != ReplyShape::Prepare {
            self.apply_messages(report, |_| Does::Unknown);
            let mut pins = self.pins;
            self.pin_messages(&mut pins);
            self.set_pins(pins);
        }
        if !request.stateless {
            self.apply(request.facts, report, request.kind);
            if !request.head.complete && request.kind == Kind::Text {
                let mut pins = self.pins;
                pins.insert(PinReason::LongStatement);
                self.set_pins(pins);
            }
        }
        self.apply_next_transaction(request.facts, report);
        self.notes();
    }
}

/// The way of an answer to the client. The beginning of an answer to a statement that could run again is kept until it is complete or `KEPT_BYTES_MAX`
/// long: servers send nothing before that either (`net_buffer_length`), so nobody waits longer, and nothing is copied where an answer comes in one
/// piece. An error that may be about the node is kept until that is known.
struct Way {
    keeps: bool,
    /// It answers a PREPARE, which may find the node full of statements that nobody needs.
    prepares: bool,
    kept: BytesMut,
    /// The client has some of it.
    begun: bool,
    doubtful: bool,
}

impl Way {
    fn new(request: &Request<'_>) -> Way {
        let keeps = request.head.complete && failover::statement(request.facts) == failover::Statement::Repeatable;
        let prepares = request.shape == ReplyShape::Prepare;
        Way { keeps, prepares, kept: BytesMut::new(), begun: false, doubtful: false }
    }

    /// What the client gets now, if anything. `error` is the number of the error that ends the answer.
    fn next<'a>(&'a mut self, bytes: &'a [u8], progress: &Progress, error: Option<u16>) -> Option<&'a [u8]> {
        if !self.begun {
            // What another statement of the same text has answered before is no refusal of the whole.
            let alone = Doubtful::is_error(if self.kept.is_empty() { bytes } else { &self.kept });
            let doubtful =
                |code| failover::may_be_refusal(code) || self.prepares && code == errors::TOO_MANY_STATEMENTS;
            self.doubtful = *progress == Progress::Done && alone && error.is_some_and(doubtful);
            let more = self.keeps && *progress == Progress::More && self.kept.len() + bytes.len() < KEPT_BYTES_MAX;
            if self.doubtful || more {
                self.kept.extend_from_slice(bytes);
                return None;
            }
            if !self.kept.is_empty() {
                self.begun = true;
                self.kept.extend_from_slice(bytes);
                return Some(&self.kept);
            }
        }
        self.begun |= !bytes.is_empty();
        (!bytes.is_empty()).then_some(bytes)
    }

    /// Where the client's answer stands.
    fn cut(&self, relay: &Relay) -> Cut {
        if self.begun { relay.cut() } else { Cut::default() }
    }

    fn done(self, report: Report) -> Exchange {
        if self.doubtful {
            Exchange::Doubtful(Box::new(Doubtful::new(self.kept, report)))
        } else {
            Exchange::Done(Box::new(report))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_behind_another_answer_is_no_refusal_of_the_whole() {
        let (ok, err): (&[u8], &[u8]) = (&[1, 0, 0, 1, 0], &[3, 0, 0, 1, 0xFF, 0x0A, 0x05]);
        let way = |keeps| Way { keeps, prepares: false, kept: BytesMut::new(), begun: false, doubtful: false };
        // Two statements of one text, answered in one piece.
        let (both, mut several) = ([ok, err].concat(), way(false));
        assert_eq!(several.next(&both, &Progress::Done, Some(1290)), Some(&both[..]));
        assert!(several.begun && !several.doubtful);
        let mut alone = way(false);
        assert_eq!(alone.next(err, &Progress::Done, Some(1290)), None);
        assert!(alone.doubtful);
        // In two pieces.
        let (mut kept, (first, second)) = (way(true), err.split_at(5));
        assert_eq!(kept.next(first, &Progress::More, None), None);
        assert_eq!(kept.next(second, &Progress::Done, Some(1290)), None);
        assert!(kept.doubtful && kept.kept[..] == *err);
    }
}
