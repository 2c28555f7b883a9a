//! Prepared statements of the binary protocol: the client's ids on whatever server session executes them.
//!
//! A statement is prepared again where it is not known yet, and its parameter types are sent again where the server was last told others.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::Stage;
use crate::pool::flight::Answer;
use crate::pool::prepared::StatementKey;
use crate::pool::session::LastUse;
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::protocol::mysql::prepared::{self, BulkExecuteHeader, ExecuteHeader, RewrittenRequest};
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request, Served, collation_of, command_packet, text_of};
use crate::proxy::report::Report;
use crate::proxy::send::{Sending, Sent};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::text_statements::need_of;
use crate::proxy::wire::RequestHead;
use crate::router::StatementKind;
use crate::session::diagnostics::Does;
use crate::session::pins::PinReason;
use crate::session::state::ParseState;
use crate::session::statement::ClientStatement;
use crate::sql::{Facts, Verb};

/// Which form of execution a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Execution {
    /// COM_STMT_EXECUTE
    Single,
    /// COM_STMT_BULK_EXECUTE
    Bulk,
    /// COM_STMT_FETCH, COM_STMT_RESET, COM_STMT_SEND_LONG_DATA: only the id is the server's.
    IdOnly,
}

/// A prepared statement that the bound server session does not have.
pub(super) struct Missing {
    /// What it will be found by.
    pub key: StatementKey,
    /// What it is understood by.
    pub parsed: Arc<ParseState>,
    params: u16,
}

impl ClientSession {
    /// COM_STMT_PREPARE.
    pub(super) async fn stmt_prepare(&mut self, head: RequestHead) -> Flow {
        if !head.complete {
            return self.refuse(head, errors::packet_too_large()).await;
        }
        let end = head.header.frame_len();
        let payload = Bytes::copy_from_slice(self.io.read_buf.get(HEADER_BYTES..end).unwrap_or_default());
        let sql = text_of(&payload);
        let limits = &self.cx.config.session;
        if self.statements.room_for(sql.len(), limits.prepared_statements_max, limits.prepared_bytes_max).is_err() {
            return self.refuse(head, errors::too_many_statements()).await;
        }
        let facts = Arc::new(crate::sql::analyse(&sql, &self.lex_context()));
        self.cx.measure.statement(facts.class);
        let id = self.statements.next_id();
        let none = Facts::nothing();
        self.named = crate::session::user_variables::named(&sql, &facts);
        let request = Request {
            head,
            rewritten: self.with_connection_id(&sql, &facts).map(|text| command_packet(0x16, &text)),
            shape: ReplyShape::Prepare,
            facts: &none,
            client_statement: id,
            kind: Kind::Other,
            stateless: true,
        };
        match self.serve(request).await {
            Served::Answered(report) => {
                self.prepare_answered(&facts, &report);
                if let Some((server_id, params, columns)) = report.prepared {
                    let sets_untracked = self.sets_untracked_variable(&sql, &facts);
                    let collation = collation_of(&sql, &facts);
                    let sql = self.with_connection_id(&sql, &facts).map_or(sql, Bytes::from);
                    let parsed = self.parse_state();
                    let statement = ClientStatement {
                        sql,
                        facts,
                        parsed,
                        params,
                        columns,
                        types: None,
                        private: false,
                        cursor: false,
                        sets_untracked,
                        collation,
                        named: self.named.take(),
                        failed: None,
                    };
                    let key = self.key(id, &statement, None);
                    if let Some(lease) = &mut self.lease {
                        lease.prepared.insert(key, server_id);
                    }
                    self.statements.insert(id, statement);
                }
                Flow::Continue
            }
            Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    /// What a PREPARE brought, warnings or an error, may still be asked for where it is.
    fn prepare_answered(&mut self, facts: &Facts, report: &Report) {
        self.apply_messages(report, |session| match session.does_to_messages(facts) {
            // It is prepared, and not asked yet.
            Does::Keeps if matches!(facts.verb, Verb::Show | Verb::GetDiagnostics) => Does::Unknown,
            does => does,
        });
        let mut pins = self.pins;
        self.pin_messages(&mut pins);
        self.set_pins(pins);
        if report.error.is_none() {
            return;
        }
        self.row_count = -1;
        if let Some(lease) = &mut self.lease {
            lease.last_use = Some(LastUse { client: self.handle.id, statement: self.statement });
        }
    }

    fn key(&self, id: u32, statement: &ClientStatement, text: Option<Bytes>) -> StatementKey {
        StatementKey {
            sql: text.unwrap_or_else(|| statement.sql.clone()),
            parse_fingerprint: statement.parsed.fingerprint(),
            private: statement.private.then_some((self.handle.id, id)),
        }
    }

    /// What a statement that is prepared now is understood by.
    pub(super) fn parse_state(&mut self) -> Arc<ParseState> {
        let now = self.state.parse_fingerprint();
        match &self.parsed {
            Some(parsed) if parsed.fingerprint() == now => Arc::clone(parsed),
            _ => Arc::clone(self.parsed.insert(Arc::new(self.state.parse_state()))),
        }
    }

    /// COM_STMT_EXECUTE.
    pub(super) async fn stmt_execute(&mut self, head: RequestHead) -> Flow {
        let payload_end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = self.io.read_buf.get(HEADER_BYTES..payload_end).unwrap_or_default();
        let Ok(asked) = prepared::stmt_id(payload) else {
            return self.refuse(head, errors::malformed("COM_STMT_EXECUTE")).await;
        };
        let Some((id, statement)) = self.statements.get_mut(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_execute")).await;
        };
        let Ok(header) = ExecuteHeader::parse(payload, statement.params, false) else {
            return self.refuse(head, errors::malformed("COM_STMT_EXECUTE")).await;
        };
        if header.new_params_bound {
            remember_types(statement, payload.get(header.types.clone()).unwrap_or_default());
        }
        if let Some(error) = statement.failed.take() {
            return self.refuse(head, error).await;
        }
        if header.wants_cursor() {
            statement.private = true;
        }
        self.execute_statement(head, id, Execution::Single).await
    }

    /// COM_STMT_BULK_EXECUTE (MariaDB).
    pub(super) async fn stmt_bulk_execute(&mut self, head: RequestHead) -> Flow {
        let payload_end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = self.io.read_buf.get(HEADER_BYTES..payload_end).unwrap_or_default();
        let Ok(asked) = prepared::stmt_id(payload) else {
            return self.refuse(head, errors::malformed("COM_STMT_BULK_EXECUTE")).await;
        };
        let Some((id, statement)) = self.statements.get_mut(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_bulk_execute")).await;
        };
        let Ok(header) = BulkExecuteHeader::parse(payload, statement.params) else {
            return self.refuse(head, errors::malformed("COM_STMT_BULK_EXECUTE")).await;
        };
        if !header.types.is_empty() {
            remember_types(statement, payload.get(header.types.clone()).unwrap_or_default());
        }
        self.execute_statement(head, id, Execution::Bulk).await
    }

    async fn execute_statement(&mut self, head: RequestHead, id: u32, execution: Execution) -> Flow {
        let Some((_, statement)) = self.statements.get_mut(id) else { return Flow::End };
        let facts = statement.facts.clone();
        self.sets_untracked = statement.sets_untracked;
        self.pending_collation = statement.collation.clone();
        self.named = statement.named.clone();
        self.text_need = need_of(&facts);
        self.cx.measure.statement(facts.class);
        let request = Request {
            head,
            rewritten: None,
            shape: ReplyShape::Execute,
            facts: &facts,
            client_statement: 0,
            kind: Kind::Statement { id, execution },
            stateless: false,
        };
        match self.serve(request).await {
            Served::Answered(report) => {
                let open = report.status.is_some_and(|s| s.contains(StatusFlags::CURSOR_EXISTS));
                if let Some((_, statement)) = self.statements.get_mut(id)
                    && (open || statement.private)
                {
                    statement.cursor = open;
                    self.unpin_statement();
                }
                Flow::Continue
            }
            Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    /// Long data is used up by an execution, cursors by their last row: pins that no statement needs any more go.
    fn unpin_statement(&mut self) {
        let mut pins = self.pins;
        pins.remove(PinReason::LongData);
        if !self.statements.any_cursor() {
            pins.remove(PinReason::Cursor);
        }
        self.set_pins(pins);
    }

    /// Before a request about a statement is sent: the statement is there, and the request speaks of it by the server's id.
    pub(super) fn adapt_statement(
        &mut self,
        request: &mut Request<'_>,
        id: u32,
        execution: Execution,
    ) -> Result<(), BindEnd> {
        let Some(server_id) = self.server_statement else { return Err(BindEnd::Lost(Stage::Replay)) };
        let end = request.head.header.frame_len().min(self.io.read_buf.len());
        let Some((_, statement)) = self.statements.get_mut(id) else { return Err(BindEnd::Lost(Stage::Replay)) };
        let payload = self.io.read_buf.get(HEADER_BYTES..end).unwrap_or_default();
        let text = self.execution_text.take();
        let types = statement.types.clone();
        let rewritten = match execution {
            Execution::Single => {
                let header = ExecuteHeader::parse(payload, statement.params, false)
                    .map_err(|_| BindEnd::Refused(errors::malformed("COM_STMT_EXECUTE")))?;
                let known = self.told_types(id, text, header.new_params_bound, &types);
                let payload = self.io.read_buf.get(HEADER_BYTES..end).unwrap_or_default();
                match (header.new_params_bound || header.num_values == 0 || known, &types) {
                    (false, Some(types)) => Some(
                        prepared::rewrite_execute(payload, &header, server_id, Some(types))
                            .map_err(|_| BindEnd::Refused(errors::malformed("COM_STMT_EXECUTE")))?,
                    ),
                    _ => None,
                }
            }
            Execution::Bulk => {
                let header = BulkExecuteHeader::parse(payload, statement.params)
                    .map_err(|_| BindEnd::Refused(errors::malformed("COM_STMT_BULK_EXECUTE")))?;
                let sends = header.flags & prepared::BULK_SEND_TYPES != 0;
                let known = self.told_types(id, text, sends, &types);
                match (sends || known, &types) {
                    (false, Some(types)) => Some(prepared::rewrite_bulk_execute(&header, server_id, Some(types))),
                    _ => None,
                }
            }
            Execution::IdOnly => None,
        };
        match rewritten {
            Some(rewritten) => {
                request.rewritten = Some(self.whole(request.head, &rewritten)?);
                Ok(())
            }
            None => {
                let payload = self.io.read_buf.get_mut(HEADER_BYTES..end).unwrap_or_default();
                prepared::set_stmt_id(payload, server_id);
                Ok(())
            }
        }
    }

    /// Whether the server knows the types of this execution; if they are sent with it, it will.
    fn told_types(&mut self, id: u32, text: Option<Bytes>, sends: bool, types: &Option<Bytes>) -> bool {
        let Some((_, statement)) = self.statements.get_mut(id) else { return false };
        let statement = statement.clone();
        let key = self.key(id, &statement, text);
        let Some(on_server) = self.lease.as_mut().and_then(|l| l.prepared.get_mut(&key)) else { return false };
        let known = on_server.types == *types;
        if sends || !known {
            on_server.types.clone_from(types);
        }
        known
    }

    /// A rewritten request as frames. Only a request that is in the buffer as a whole and stays one frame can be rewritten.
    fn whole(&self, head: RequestHead, rewritten: &RewrittenRequest) -> Result<BytesMut, BindEnd> {
        let end = head.header.frame_len();
        let tail = self.io.read_buf.get(HEADER_BYTES + rewritten.tail_start..end);
        let (true, Some(tail)) = (head.complete, tail) else {
            return Err(BindEnd::Refused(errors::not_supported(
                "an execution of more than 256 KB that does not send its parameter types (bind the parameters again)",
            )));
        };
        let payload_len = rewritten.prefix.len() + tail.len();
        if payload_len >= PAYLOAD_BYTES_MAX {
            return Err(BindEnd::Refused(errors::packet_too_large()));
        }
        let mut out = BytesMut::with_capacity(HEADER_BYTES + payload_len);
        out.put_slice(&FrameHeader { payload_len, seq: 0 }.encode());
        out.put_slice(&rewritten.prefix);
        out.put_slice(tail);
        Ok(out)
    }

    /// Looks for a statement on the bound server session, with values in place of calls; `Some`: it must be prepared there.
    pub(super) fn find_prepared(&mut self, id: u32) -> Result<Option<Missing>, BindEnd> {
        loop {
            let Some((_, statement)) = self.statements.get_mut(id) else { return Err(BindEnd::Lost(Stage::Replay)) };
            let statement = statement.clone();
            self.execution_text = if statement.facts.volatile.is_empty() {
                None
            } else {
                self.with_values(&statement.sql, &statement.facts).map_err(BindEnd::Refused)?.map(Bytes::from)
            };
            let key = self.key(id, &statement, self.execution_text.clone());
            let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
            self.server_statement = lease.prepared.get_mut(&key).map(|known| known.id);
            if self.server_statement.is_some() {
                return Ok(None);
            }
            // A PREPARE comes in between, and what the server knew of the last statement is gone with it.
            if lease.last_use.take().is_none() {
                let parsed = self.parsed_here(&statement.parsed, &statement.sql)?;
                return Ok(Some(Missing { key, parsed, params: statement.params }));
            }
        }
    }

    /// What the statement is understood by, as far as the bound server session can be brought to it.
    pub(super) fn parsed_here(&self, parsed: &Arc<ParseState>, sql: &[u8]) -> Result<Arc<ParseState>, BindEnd> {
        match (parsed.schema(), self.state.schema()) {
            // A schema can't be given up. Without one no table is named but with its own; what is left are the functions that name the schema.
            (None, Some(now)) if !names_schema(sql) => Ok(Arc::new(parsed.with_schema(Some(now.clone())))),
            (None, Some(_)) => {
                Err(BindEnd::Refused(errors::value_lost("the missing default schema of a prepared statement")))
            }
            // The schema was dropped since. Going to that of the statement leaves no way back.
            (Some(_), None) => Err(BindEnd::Refused(errors::value_lost("the missing default schema"))),
            _ => Ok(Arc::clone(parsed)),
        }
    }

    /// The answer to the PREPARE.
    pub(super) fn prepared_there(&mut self, missing: Missing, answer: Answer) -> Result<(), BindEnd> {
        if let Some(error) = answer.error {
            // The node goes out of service: nothing was lost with it.
            let lost = self.is_node_not_ready(&error);
            return Err(if lost { BindEnd::Lost(Stage::Replay) } else { BindEnd::Refused(error) });
        }
        let (Some(made), Some(lease)) = (answer.prepared, &mut self.lease) else {
            return Err(BindEnd::Lost(Stage::Replay));
        };
        if made.num_params != missing.params {
            return Err(BindEnd::Refused(errors::value_lost(
                "a prepared statement (it has other parameters on this node)",
            )));
        }
        lease.prepared.insert(missing.key, made.stmt_id);
        self.server_statement = Some(made.stmt_id);
        self.cx.measure.prepared_again();
        Ok(())
    }

    /// COM_STMT_CLOSE: no answer. A shared statement stays on the server sessions that have it.
    pub(super) async fn stmt_close(&mut self, head: RequestHead) -> Flow {
        let payload = self.take_payload(head);
        if let Ok(id) = prepared::stmt_id(&payload)
            && let Some(statement) = self.statements.remove(id)
            && statement.private
        {
            let key = self.key(id, &statement, None);
            if let Some(lease) = &mut self.lease {
                lease.prepared.remove(&key);
            }
            self.unpin_statement();
        }
        Flow::Continue
    }

    /// COM_STMT_RESET: long data and cursor of a statement are dropped.
    pub(super) async fn stmt_reset(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let asked = prepared::stmt_id(payload).unwrap_or(0);
        let Some((id, statement)) = self.statements.get_mut(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_reset")).await;
        };
        statement.failed = None;
        if !statement.private || self.lease.is_none() {
            if self.skip_request(head).await == Flow::End {
                return Flow::End;
            }
            return self.reply_ok().await;
        }
        self.about_statement(head, id, ReplyShape::Simple).await
    }

    /// COM_STMT_FETCH.
    pub(super) async fn stmt_fetch(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let asked = prepared::stmt_id(payload).unwrap_or(0);
        match self.statements.get_mut(asked) {
            Some((id, statement)) if statement.private => self.about_statement(head, id, ReplyShape::Fetch).await,
            _ => self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_fetch")).await,
        }
    }

    async fn about_statement(&mut self, head: RequestHead, id: u32, shape: ReplyShape) -> Flow {
        let facts = Facts::nothing();
        let kind = Kind::Statement { id, execution: Execution::IdOnly };
        let request =
            Request { head, rewritten: None, shape, facts: &facts, client_statement: 0, kind, stateless: false };
        match self.serve(request).await {
            Served::Answered(report) => {
                let over = shape == ReplyShape::Simple
                    || report.error.is_some()
                    || report.status.is_some_and(|s| s.contains(StatusFlags::LAST_ROW_SENT));
                if over && let Some((_, statement)) = self.statements.get_mut(id) {
                    statement.cursor = false;
                    self.unpin_statement();
                }
                Flow::Continue
            }
            Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    /// COM_STMT_SEND_LONG_DATA: no answer, so what goes wrong is told by the execution.
    pub(super) async fn stmt_send_long_data(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let asked = prepared::stmt_id(payload).unwrap_or(0);
        let Some((id, statement)) = self.statements.get_mut(asked) else { return self.skip_request(head).await };
        statement.private = true;
        if self.lease.as_ref().is_some_and(|l| l.reads_only) {
            Box::pin(self.leave_reader_for_long_data()).await;
        }
        let facts = Facts::nothing();
        let kind = Kind::Statement { id, execution: Execution::IdOnly };
        let mut request = Request {
            head,
            rewritten: None,
            shape: ReplyShape::None,
            facts: &facts,
            client_statement: 0,
            kind,
            stateless: true,
        };
        let hold_until = std::time::Instant::now() + self.cx.hold_timeout;
        let ready = match self.lost.take() {
            Some(error) => Err(BindEnd::Refused(error)),
            None => match self.bind_and_replay(&facts, StatementKind::Other, Some(id), hold_until).await {
                Ok(()) => self.adapt_statement(&mut request, id, Execution::IdOnly),
                end => end,
            },
        };
        let error = match ready {
            Ok(()) => match self.send_request(&request).await {
                Sent::All => {
                    if std::mem::take(&mut self.sending) == Sending::Untouched {
                        let n = head.header.frame_len().min(self.io.read_buf.len());
                        crate::proxy::relay::consume(&mut self.io.read_buf, n);
                    }
                    let mut pins = self.pins;
                    pins.insert(PinReason::LongData);
                    self.set_pins(pins);
                    return Flow::Continue;
                }
                Sent::ClientGone | Sent::TooLong => return Flow::End,
                Sent::ServerLost => {
                    self.lose_bound();
                    errors::value_lost("long data of a prepared statement")
                }
            },
            Err(BindEnd::ClientGone) => return Flow::End,
            Err(BindEnd::Refused(error)) => error,
            Err(BindEnd::Lost(_)) => {
                self.lose_bound();
                errors::value_lost("long data of a prepared statement")
            }
        };
        if let Some((_, statement)) = self.statements.get_mut(id) {
            statement.failed = Some(error);
        }
        match std::mem::take(&mut self.sending) {
            Sending::Untouched => self.skip_request(head).await,
            Sending::Streamed { left, continues } => self.skip_rest(left, continues).await,
        }
    }

    /// CONNECTION_ID() is the same for the whole session: it can be put in before a statement is prepared.
    fn with_connection_id(&self, sql: &[u8], facts: &Facts) -> Option<Vec<u8>> {
        use crate::sql::VolatileKind;
        let mut only = facts.clone();
        only.volatile.retain(|call| matches!(call.kind, VolatileKind::ConnectionId | VolatileKind::PseudoThreadIdVar));
        // Another kind beside it would shift places: then all of it waits for the execution.
        if only.volatile.len() != facts.volatile.len() {
            return None;
        }
        self.with_values(sql, &only).ok().flatten()
    }
}

/// Whether DATABASE() or SCHEMA() may be in the text.
fn names_schema(sql: &[u8]) -> bool {
    let has = |word: &[u8]| sql.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    has(b"database") || has(b"schema")
}

fn remember_types(statement: &mut ClientStatement, types: &[u8]) {
    if statement.types.as_deref() != Some(types) {
        statement.types = Some(Bytes::copy_from_slice(types));
    }
}
