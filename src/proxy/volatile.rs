//! Answers that belong to the client's last statement or to its connection, and that the server session at hand can't know:
//! CONNECTION_ID(), ROW_COUNT(), FOUND_ROWS(), @@last_gtid. Where the lexer found the call for certain, its value takes its place in the text.

use crate::protocol::ErrorReply;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::errors;
use crate::proxy::execute::{Request, command_packet};
use crate::proxy::session::ClientSession;
use crate::session::pins::PinReason;
use crate::sql::{Facts, Flavor as LexFlavor, StatementCount, VolatileKind};

impl ClientSession {
    /// Puts values in place of calls in a COM_QUERY.
    pub(super) fn rewrite(&self, request: &mut Request<'_>) -> Result<(), ErrorReply> {
        if request.facts.volatile.is_empty() || request.shape != ReplyShape::Query || !request.head.complete {
            return Ok(());
        }
        let end = request.head.header.frame_len().min(self.io.read_buf.len());
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default();
        if let Some(text) = self.with_values(sql, request.facts)? {
            request.rewritten = Some(command_packet(0x03, &text));
        }
        Ok(())
    }

    /// The statement's text with values in place of calls; `None` if there is nothing to replace.
    pub(super) fn with_values(&self, sql: &[u8], facts: &Facts) -> Result<Option<Vec<u8>>, ErrorReply> {
        if facts.statements != StatementCount::One || !facts.certain {
            return Ok(None);
        }
        // On the server session that ran the last statement, with nothing of anybody in between, the server knows best.
        let untouched = self.untouched();
        for call in &facts.volatile {
            self.copied_variable(call.kind)?;
        }
        let found_rows_here = untouched && self.found_rows_here;
        if !found_rows_here
            && self.found_rows.is_none()
            && facts.volatile.iter().any(|call| call.kind == VolatileKind::FoundRows)
        {
            return Err(errors::value_lost("FOUND_ROWS()"));
        }
        let answer = |kind| match kind {
            VolatileKind::ConnectionId | VolatileKind::PseudoThreadIdVar => {
                Some(format!("CAST({} AS UNSIGNED)", self.handle.id).into_bytes())
            }
            VolatileKind::RowCount if !untouched => Some(format!("CAST({} AS SIGNED)", self.row_count).into_bytes()),
            VolatileKind::FoundRows if !found_rows_here => {
                Some(format!("CAST({} AS UNSIGNED)", self.found_rows.unwrap_or(0)).into_bytes())
            }
            VolatileKind::WarningCountVar | VolatileKind::ErrorCountVar => self.copied_variable(kind).ok().flatten(),
            VolatileKind::LastGtidVar => self.last_gtid_literal(),
            _ => None,
        };
        Ok(crate::sql::rewrite::answer_volatile(sql, facts, &self.lex_context(), answer))
    }

    /// The client's own last GTID. MariaDB reports it with the answer that ends the transaction; the server session may have made others since, for
    /// others. `None` where the server is to say it: MySQL has no such variable, and a client that chose its own tracking has its server session for itself.
    fn last_gtid_literal(&self) -> Option<Vec<u8>> {
        let ours =
            matches!(self.lex_flavor, LexFlavor::MariaDb { .. }) && !self.pins.contains(PinReason::SessionTracking);
        let digits = |gtid: &&[u8]| gtid.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        ours.then(|| {
            let gtid = self.last_gtid.as_deref().filter(|gtid| digits(gtid)).unwrap_or_default();
            [b"'", gtid, b"'"].concat()
        })
    }
}
