//! COM_STMT_PREPARE, and what a statement that is prepared now is understood by.

use std::sync::Arc;

use bytes::Bytes;

use crate::pool::prepared::StatementKey;
use crate::pool::session::LastUse;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request, Served};
use crate::proxy::report::Report;
use crate::proxy::send::command_packet;
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::is_held;
use crate::proxy::text_statements::TextNeed;
use crate::proxy::wire::RequestHead;
use crate::session::diagnostics::Does;
use crate::session::pins::PinReason;
use crate::session::state::ParseState;
use crate::session::statement::{ClientStatement, LongData};
use crate::session::user_variables::Named;
use crate::sql::{Facts, Flavor as LexFlavor, Text, Verb};

impl ClientSession {
    /// COM_STMT_PREPARE.
    pub(super) async fn stmt_prepare(&mut self, head: RequestHead) -> Flow {
        self.statements.begin();
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
        if !self.has_room() {
            return self.refuse(head, errors::statements_all_held()).await;
        }
        let mut text = Text::read(sql, self.lex_context());
        if self.unread_variables.of_lexer() {
            text.make_uncertain();
        }
        self.cx.measure.statement(text.facts().class);
        self.of_request.named = crate::session::user_variables::named(text.sql(), text.facts());
        match self.know_types().await {
            Ok(()) => {}
            Err(BindEnd::Refused(error)) => return self.refuse(head, error).await,
            Err(BindEnd::ClientGone | BindEnd::Lost(_)) => return Flow::End,
        }
        let id = self.statements.next_id();
        let none = Facts::nothing();
        let prepared = self.text_to_prepare(&text);
        let request = Request {
            head,
            rewritten: (prepared != *text.sql()).then(|| command_packet(0x16, &prepared)),
            shape: ReplyShape::Prepare,
            facts: &none,
            client_statement: id,
            kind: Kind::Other,
            stateless: true,
        };
        match self.serve(request).await {
            Served::Answered(report) => {
                self.prepare_answered(text.facts(), &report);
                if let Some(made) = report.prepared {
                    self.prepared_first(id, text, prepared, made);
                }
                Flow::Continue
            }
            Served::Refused => Flow::Continue,
            Served::ClientGone => Flow::End,
        }
    }

    /// The client has its answer to a PREPARE: the server's id, parameters and columns.
    fn prepared_first(&mut self, id: u32, text: Text, prepared: Bytes, made: (u32, u16, u16)) {
        let (server_id, params, columns) = made;
        let named = self.of_request.named.take();
        let types_unknown = self.types_unknown(named.as_deref());
        let statement = ClientStatement {
            parsed: self.parse_state(named.as_deref()),
            types_unknown,
            params,
            columns,
            types: None,
            private: types_unknown,
            cursor: false,
            long_data: LongData::default(),
            on: types_unknown.then(|| prepared.clone()),
            assigned: self.assigned(text.sql(), text.facts()),
            named,
            text,
        };
        let key = StatementKey {
            sql: prepared,
            parsed: statement.parsed.clone(),
            private: statement.private.then_some((self.handle.id, id)),
        };
        self.statements.insert(id, statement);
        self.on_server(key, server_id);
    }

    /// The bound server session has this statement now.
    pub(super) fn on_server(&mut self, key: StatementKey, server_id: u32) {
        let held = is_held(&self.statements, self.handle.id);
        if let Some(lease) = &mut self.lease {
            lease.prepared.insert(key, server_id, held);
        }
    }

    /// The node says that it holds as many prepared statements as it may: those on the bound server session that nobody needs just now are closed. Whether
    /// there were any, so that the PREPARE is worth another try.
    pub(super) fn make_room(&mut self, error: &ErrorReply) -> bool {
        let held = is_held(&self.statements, self.handle.id);
        error.code == errors::TOO_MANY_STATEMENTS
            && self.lease.as_mut().is_some_and(|lease| lease.prepared.make_room(held))
    }

    /// Whether the bound server session can be given one more statement.
    pub(super) fn has_room(&self) -> bool {
        let held = is_held(&self.statements, self.handle.id);
        self.lease.as_ref().is_none_or(|lease| lease.prepared.has_room(held))
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

    /// What a statement that is prepared now is understood by, if it names these user variables.
    pub(super) fn parse_state(&mut self, named: Option<&Named>) -> Arc<ParseState> {
        let mentioned = named.map(|named| named.mentioned.as_slice()).filter(|_| self.reads_types_once());
        if let Some(mentioned) = mentioned.filter(|mentioned| !mentioned.is_empty()) {
            return Arc::new(self.state.parse_state(mentioned));
        }
        match &self.parsed {
            Some(parsed)
                if parsed.fingerprint() == self.state.parse_fingerprint() && parsed.is_that_of(&self.state) =>
            {
                Arc::clone(parsed)
            }
            _ => Arc::clone(self.parsed.insert(Arc::new(self.state.parse_state(&[])))),
        }
    }

    /// MySQL reads the types of user variables when it prepares a statement, and keeps to them; MariaDB reads them with each execution (observed).
    fn reads_types_once(&self) -> bool {
        !matches!(self.lex_flavor, LexFlavor::MariaDb { .. })
    }

    /// Before a statement is prepared whose user variables were written a moment ago: their types must be known here.
    pub(super) async fn know_types(&mut self) -> Result<(), BindEnd> {
        if self.lease.is_some() && self.reads_types_once() && self.names_unread() {
            if Box::pin(self.capture()).await == Flow::End {
                return Err(BindEnd::ClientGone);
            }
            // Nothing but a loss of the server session can be told here, and only that would be lost.
            if let Some(lost) = self.tell_lost() {
                return Err(BindEnd::Refused(lost));
            }
        }
        Ok(())
    }

    /// Whether the statement names user variables that were written and not read yet.
    fn names_unread(&self) -> bool {
        let unread = |named: &Named| named.mentioned.iter().any(|name| self.unread.contains(name));
        !self.unread.is_empty()
            && (self.of_request.text_need == TextNeed::All || self.of_request.named.as_deref().is_some_and(unread))
    }

    /// Whether only the bound server session knows the types that a statement is understood by which is prepared now and names these user variables.
    pub(super) fn types_unknown(&self, named: Option<&Named>) -> bool {
        const OUT_OF_SIGHT: [PinReason; 6] = [
            PinReason::UserVariables,
            PinReason::UnseenCode,
            PinReason::UnreadStatement,
            PinReason::LongStatement,
            PinReason::UnexplainedChange,
            PinReason::TextPrepare,
        ];
        let unseen = OUT_OF_SIGHT.into_iter().any(|reason| self.pins.contains(reason));
        let unread = |named: &Named| named.mentioned.iter().any(|name| self.unread.contains(name));
        self.reads_types_once() && named.is_some_and(|named| unseen || unread(named))
    }
}

/// The text of a COM_STMT_PREPARE payload.
fn text_of(payload: &Bytes) -> Bytes {
    payload.slice(1.min(payload.len())..)
}
