//! COM_STMT_SEND_LONG_DATA: a parameter's data ahead of the execution that uses it up. It has no answer, so whatever goes wrong is told by the execution,
//! which never runs without its data.

use std::time::Instant;

use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::prepared::LongDataHeader;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::execute::{Kind, Request};
use crate::proxy::relay::consume;
use crate::proxy::send::{Sending, Sent};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Execution;
use crate::proxy::wire::RequestHead;
use crate::router::StatementKind;
use crate::sql::Facts;

/// What is lost, in the words of an error.
pub(super) const LONG_DATA: &str = "long data of a prepared statement";

impl ClientSession {
    /// COM_STMT_SEND_LONG_DATA. What is sent twice for a parameter is appended, by the server.
    pub(super) async fn stmt_send_long_data(&mut self, head: RequestHead) -> Flow {
        let payload = self.io.read_buf.get(HEADER_BYTES..).unwrap_or_default();
        let Ok(header) = LongDataHeader::parse(payload) else { return self.skip_request(head).await };
        let Some(id) = self.named_by(header.stmt_id) else { return self.skip_request(head).await };
        let lost = self.lost.is_some();
        let Some(statement) = self.statements.get_mut(id) else { return self.skip_request(head).await };
        if header.param >= statement.params {
            statement.long_data.wrong();
            return self.skip_request(head).await;
        }
        if statement.text.facts().kill.is_some() {
            statement.long_data.fail(errors::kill_unseen("with long data"));
        }
        if lost {
            // Nothing is begun anew before the client knows, and this has no answer to tell it in.
            statement.long_data.fail(errors::value_lost(LONG_DATA));
        }
        if statement.long_data.failed().is_some() {
            // Without what came before, this is not the parameter.
            return self.skip_request(head).await;
        }
        statement.private = true;
        self.of_request.id_only = true;
        let error = match self.pass_long_data(head, id).await {
            Ok(()) => {
                if let Some(statement) = self.statements.get_mut(id) {
                    statement.long_data.sent(header.param);
                    statement.on = self.of_request.statement_key.take().map(|key| key.sql);
                }
                self.note_held();
                return Flow::Continue;
            }
            Err(BindEnd::ClientGone) => return Flow::End,
            Err(BindEnd::Refused(error)) => error,
            Err(BindEnd::Lost(_)) => {
                self.lose_bound();
                errors::value_lost(LONG_DATA)
            }
        };
        let had_some = self.statements.get(id).is_some_and(|statement| statement.long_data.is_pending());
        if let Some(statement) = self.statements.get_mut(id) {
            statement.long_data.fail(error);
        }
        if had_some {
            // What the server has of it is not to be used by anything.
            self.drop_from_server(id);
        }
        match std::mem::take(&mut self.sending) {
            Sending::Untouched => self.skip_request(head).await,
            Sending::Streamed { left, continues } => self.skip_rest(left, continues).await,
        }
    }

    /// Binds, prepares the statement where it is not, and sends the data on.
    async fn pass_long_data(&mut self, head: RequestHead, id: u32) -> Result<(), BindEnd> {
        if self.lease.as_ref().is_some_and(|l| l.reads_only) {
            Box::pin(self.leave_reader_for_long_data()).await?;
        }
        let facts = Facts::nothing();
        let mut request = Request {
            head,
            rewritten: None,
            shape: ReplyShape::None,
            facts: &facts,
            client_statement: 0,
            kind: Kind::Statement { id, execution: Execution::IdOnly },
            stateless: true,
        };
        let hold_until = Instant::now() + self.cx.hold_timeout;
        self.bind_and_replay(&facts, StatementKind::Other, Some(id), hold_until).await?;
        self.adapt_statement(&mut request, id, Execution::IdOnly)?;
        match self.send_request(&request).await {
            Sent::All => {
                if std::mem::take(&mut self.sending) == Sending::Untouched {
                    let n = head.header.frame_len().min(self.io.read_buf.len());
                    consume(&mut self.io.read_buf, n);
                }
                Ok(())
            }
            // Half of a packet is with the server, or it is longer than any: as a server does, the connection is closed.
            Sent::ClientGone | Sent::TooLong => Err(BindEnd::ClientGone),
            Sent::ServerLost => Err(BindEnd::Lost(crate::error::Stage::Send)),
        }
    }
}
