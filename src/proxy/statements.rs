//! Prepared statements of the binary protocol: the client's ids on whatever server session executes them.
//!
//! A statement is prepared again where it is not known yet, and its parameter types are sent again where the server was last told others.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::error::Stage;
use crate::pool::flight::Answer;
use crate::pool::prepared::StatementKey;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES, PAYLOAD_BYTES_MAX};
use crate::protocol::mysql::prepared::{self, BulkExecuteHeader, ExecuteHeader, RewrittenRequest};
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request, Served};
use crate::proxy::long_data::LONG_DATA;
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::text_statements::need_of;
use crate::proxy::wire::RequestHead;
use crate::session::pins::PinReason;
use crate::session::state::ParseState;
use crate::session::statement::{ClientStatement, ClientStatements};
use crate::sql::{Facts, Flavor as LexFlavor, StatementClass};

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
    /// The servers' words differ by their kind.
    pub(super) fn flavor(&self) -> Flavor {
        match self.lex_flavor {
            LexFlavor::MariaDb { .. } => Flavor::MariaDb,
            LexFlavor::MySql { .. } => Flavor::MySql,
            LexFlavor::OceanBase => Flavor::OceanBase,
            LexFlavor::Unknown => self.cx.cluster.load().flavor,
        }
    }

    /// The client's statement that a request names by this id.
    pub(super) fn named_by(&self, asked: u32) -> Option<u32> {
        self.statements.find(asked, matches!(self.lex_flavor, LexFlavor::MariaDb { .. }))
    }

    /// COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE (MariaDB).
    pub(super) async fn stmt_execute(&mut self, head: RequestHead, execution: Execution) -> Flow {
        let payload_end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = self.io.read_buf.get(HEADER_BYTES..payload_end).unwrap_or_default();
        let (command, handler) = match execution {
            Execution::Bulk => ("COM_STMT_BULK_EXECUTE", "mysqld_stmt_bulk_execute"),
            Execution::Single | Execution::IdOnly => ("COM_STMT_EXECUTE", "mysqld_stmt_execute"),
        };
        let Ok(asked) = prepared::stmt_id(payload) else {
            return self.refuse(head, errors::malformed(command)).await;
        };
        let Some(id) = self.named_by(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, handler, self.flavor())).await;
        };
        let kill = self.may_execute(head, id, execution).map(|()| self.plan_prepared_kill(head, id, execution));
        let served = match kill {
            Ok(None) => self.execute_statement(head, id, execution).await,
            Ok(Some(Ok(kill))) => {
                self.cx.measure.statement(StatementClass::Admin);
                return Box::pin(self.kill(head, kill)).await;
            }
            Ok(Some(Err(error))) | Err(error) => self.refused(head, error).await,
        };
        let flow = match &served {
            Served::Answered(_) | Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        };
        self.executed(id, &served);
        flow
    }

    /// Reads the head of an execution; an error is its answer.
    fn may_execute(&mut self, head: RequestHead, id: u32, execution: Execution) -> Result<(), ErrorReply> {
        let flavor = self.flavor();
        let payload_end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = self.io.read_buf.get(HEADER_BYTES..payload_end).unwrap_or_default();
        let Some(statement) = self.statements.get_mut(id) else { return Ok(()) };
        let types = if execution == Execution::Bulk {
            let header = BulkExecuteHeader::parse(payload, statement.params)
                .map_err(|_| errors::malformed("COM_STMT_BULK_EXECUTE"))?;
            Some(header.types).filter(|types| !types.is_empty())
        } else {
            let header = ExecuteHeader::parse(payload, statement.params, false)
                .map_err(|_| errors::malformed("COM_STMT_EXECUTE"))?;
            statement.private |= header.wants_cursor();
            Some(header.types).filter(|_| header.new_params_bound)
        };
        if let Some(types) = types {
            remember_types(statement, payload.get(types).unwrap_or_default());
        }
        if self.lost.is_some() {
            // That is what the client must hear, and all that this statement had is part of it.
            return Ok(());
        }
        if statement.long_data.is_wrong() {
            return Err(errors::wrong_long_data(flavor));
        }
        statement.long_data.failed().map_or(Ok(()), |error| Err(error.clone()))
    }

    async fn execute_statement(&mut self, head: RequestHead, id: u32, execution: Execution) -> Served {
        let Some(statement) = self.statements.get(id) else { return Served::ClientGone };
        let facts = Arc::clone(statement.text.facts());
        self.of_request.assigned = statement.assigned.clone();
        self.of_request.named = statement.named.clone();
        self.of_request.text_need = need_of(&facts);
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
        self.serve(request).await
    }

    /// After an execution, whatever became of it: its long data is used up, and an older cursor is closed.
    fn executed(&mut self, id: u32, served: &Served) {
        let key = self.of_request.statement_key.take();
        let Some(statement) = self.statements.get_mut(id) else { return };
        let unsent = statement.long_data.is_pending() && matches!(served, Served::Refused);
        let private = statement.private;
        statement.long_data.used();
        if let Served::Answered(report) = served {
            statement.cursor = report.status.is_some_and(|s| s.contains(StatusFlags::CURSOR_EXISTS));
            let has = statement.cursor || statement.types_unknown;
            statement.on = key.map(|key| key.sql).filter(|_| has);
        }
        if unsent {
            // The server still has the data, and would put what is sent for the next execution behind it.
            self.drop_from_server(id);
        } else if private {
            self.note_held();
        }
    }

    /// Closes a statement of this client alone on the bound server session, with its cursor and its long data.
    pub(super) fn drop_from_server(&mut self, id: u32) {
        if let Some(statement) = self.statements.get_mut(id) {
            (statement.cursor, statement.on) = (false, None);
        }
        if let Some(lease) = &mut self.lease {
            lease.prepared.remove_private(self.handle.id, id);
        }
        self.note_held();
    }

    /// The pins that are for statements: those that some statement needs, and no others.
    pub(super) fn note_held(&mut self) {
        let mut pins = self.pins;
        for (needed, reason) in
            [(self.statements.any_long_data(), PinReason::LongData), (self.statements.any_cursor(), PinReason::Cursor)]
        {
            if needed {
                pins.insert(reason);
            } else {
                pins.remove(reason);
            }
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
        let Some(server_id) = self.of_request.server_statement else { return Err(BindEnd::Lost(Stage::Replay)) };
        let end = request.head.header.frame_len().min(self.io.read_buf.len());
        let Some(statement) = self.statements.get(id) else { return Err(BindEnd::Lost(Stage::Replay)) };
        let payload = self.io.read_buf.get(HEADER_BYTES..end).unwrap_or_default();
        let types = statement.types.clone();
        let rewritten = match execution {
            Execution::Single => {
                let header = ExecuteHeader::parse(payload, statement.params, false)
                    .map_err(|_| BindEnd::Refused(errors::malformed("COM_STMT_EXECUTE")))?;
                let known = self.told_types(header.new_params_bound, &types);
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
                let known = self.told_types(sends, &types);
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
    fn told_types(&mut self, sends: bool, types: &Option<Bytes>) -> bool {
        let (Some(lease), Some(key)) = (&mut self.lease, &self.of_request.statement_key) else { return false };
        let Some(on_server) = lease.prepared.get_mut(key) else { return false };
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
            let key = self.key_here(id)?;
            let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
            self.of_request.server_statement = lease.prepared.get_mut(&key).map(|known| known.id);
            self.of_request.statement_key = Some(key.clone());
            if self.of_request.server_statement.is_some() {
                return Ok(None);
            }
            let Some(statement) = self.statements.get(id) else { return Err(BindEnd::Lost(Stage::Replay)) };
            if let Some(what) = unmakeable(statement) {
                return Err(BindEnd::Refused(errors::value_lost(what)));
            }
            // A PREPARE comes in between, and what the server knew of the last statement is gone with it.
            if lease.last_use.take().is_none() {
                let parsed = self.parsed_here(&statement.parsed, statement.text.sql())?;
                let params = statement.params;
                if !self.has_room() {
                    return Err(BindEnd::Refused(errors::statements_all_held()));
                }
                return Ok(Some(Missing { key, parsed, params }));
            }
        }
    }

    /// What a statement is found by on the bound server session, for the request that is being served.
    fn key_here(&mut self, id: u32) -> Result<StatementKey, BindEnd> {
        let Some(statement) = self.statements.get(id) else { return Err(BindEnd::Lost(Stage::Replay)) };
        let sql = match &statement.on {
            Some(on) if self.of_request.id_only => on.clone(),
            _ => self.text_to_execute(&statement.text).map_err(BindEnd::Refused)?,
        };
        let private = statement.private.then_some((self.handle.id, id));
        let key = StatementKey { sql, parsed: statement.parsed.clone(), private };
        if let Some(on) = statement.on.clone().filter(|on| *on != key.sql) {
            // It says something else now, as what it says of the statement before has changed: it is another statement on the server.
            if let Some(what) = unmakeable(statement) {
                return Err(BindEnd::Refused(errors::value_lost(what)));
            }
            if let (Some(lease), Some(statement)) = (&mut self.lease, self.statements.get_mut(id)) {
                // The execution would close its cursor.
                (statement.cursor, statement.on) = (false, None);
                lease.prepared.remove(&StatementKey { sql: on, ..key.clone() });
            }
        }
        Ok(key)
    }

    /// What the statement is understood by, as far as the bound server session can be brought to it.
    pub(super) fn parsed_here(&self, parsed: &Arc<ParseState>, sql: &[u8]) -> Result<Arc<ParseState>, BindEnd> {
        if parsed.user_variables().any(|name| self.unread.contains(name)) {
            // Lending another type would put back a value that is not the client's any more.
            return Err(BindEnd::Refused(errors::value_lost(TYPES)));
        }
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
        let Some(made) = answer.prepared else { return Err(BindEnd::Lost(Stage::Replay)) };
        if made.num_params != missing.params {
            return Err(BindEnd::Refused(errors::value_lost(
                "a prepared statement (it has other parameters on this node)",
            )));
        }
        self.of_request.server_statement = Some(made.stmt_id);
        if let Some(lease) = &mut self.lease {
            lease.state.was_lent(&missing.parsed);
        }
        self.on_server(missing.key, made.stmt_id);
        self.cx.measure.prepared_again();
        Ok(())
    }

    /// COM_STMT_CLOSE: no answer. A shared statement stays on the server sessions that have it.
    pub(super) async fn stmt_close(&mut self, head: RequestHead) -> Flow {
        let payload = self.take_payload(head);
        if let Some(id) = prepared::stmt_id(&payload).ok().and_then(|asked| self.named_by(asked))
            && let Some(statement) = self.statements.remove(id)
            && statement.private
        {
            if let Some(lease) = &mut self.lease {
                lease.prepared.remove_private(self.handle.id, id);
            }
            self.note_held();
        }
        Flow::Continue
    }

    /// COM_STMT_RESET: long data and cursor of a statement are dropped.
    pub(super) async fn stmt_reset(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let asked = prepared::stmt_id(payload).unwrap_or(0);
        let Some(id) = self.named_by(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_reset", self.flavor())).await;
        };
        let on_server = self.statements.get(id).is_some_and(|s| s.cursor || s.long_data.is_pending());
        let flow = if on_server {
            self.about_statement(head, id, ReplyShape::Simple).await
        } else if self.skip_request(head).await == Flow::End {
            Flow::End
        } else {
            self.reply_ok().await
        };
        if let Some(statement) = self.statements.get_mut(id)
            && !statement.long_data.is_pending()
        {
            statement.long_data.reset();
        }
        flow
    }

    /// COM_STMT_FETCH.
    pub(super) async fn stmt_fetch(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let asked = prepared::stmt_id(payload).unwrap_or(0);
        let Some(id) = self.named_by(asked) else {
            return self.refuse(head, errors::unknown_statement(asked, "mysqld_stmt_fetch", self.flavor())).await;
        };
        // What was lost with the server session is told before all else: its cursor may be part of it.
        if self.lost.is_some() || self.statements.get(id).is_some_and(|statement| statement.cursor) {
            return self.about_statement(head, id, ReplyShape::Fetch).await;
        }
        self.refuse(head, errors::no_open_cursor(asked, self.flavor())).await
    }

    async fn about_statement(&mut self, head: RequestHead, id: u32, shape: ReplyShape) -> Flow {
        self.of_request.id_only = true;
        let facts = Facts::nothing();
        let kind = Kind::Statement { id, execution: Execution::IdOnly };
        let request =
            Request { head, rewritten: None, shape, facts: &facts, client_statement: 0, kind, stateless: false };
        match self.serve(request).await {
            Served::Answered(report) => {
                let reset = shape == ReplyShape::Simple && report.error.is_none();
                let over = reset
                    || report.error.is_some()
                    || report.status.is_some_and(|s| s.contains(StatusFlags::LAST_ROW_SENT));
                if over && let Some(statement) = self.statements.get_mut(id) {
                    statement.cursor = false;
                    if reset {
                        statement.long_data.reset();
                    }
                    if !statement.is_held() {
                        statement.on = None;
                    }
                    self.note_held();
                }
                Flow::Continue
            }
            Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }
}

/// What is lost, in the words of an error.
const TYPES: &str = "the type of a user variable of a prepared statement (prepare it again)";

/// Which statements of a server session have something there that this client needs and that can't be made again.
pub(super) fn is_held(statements: &ClientStatements, client: u32) -> impl Fn(&StatementKey) -> bool {
    move |key| {
        let own = key.private.filter(|(owner, _)| *owner == client).and_then(|(_, id)| statements.get(id));
        own.is_some_and(|statement| statement.is_held() && statement.on.as_ref() == Some(&key.sql))
    }
}

/// What of a statement would be missing if it were prepared again.
fn unmakeable(statement: &ClientStatement) -> Option<&'static str> {
    if statement.long_data.is_pending() {
        Some(LONG_DATA)
    } else if statement.types_unknown {
        Some(TYPES)
    } else {
        None
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
