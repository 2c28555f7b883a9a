//! Answers that belong to the client's last statement or to its connection, and that the server session at hand can't know:
//! CONNECTION_ID(), ROW_COUNT(), FOUND_ROWS(), @@last_gtid. Where the lexer found the call for certain, its value takes its place in the text.

use bytes::Bytes;

use crate::protocol::ErrorReply;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::errors;
use crate::proxy::execute::Request;
use crate::proxy::send::command_packet;
use crate::proxy::session::ClientSession;
use crate::session::pins::PinReason;
use crate::session::text_statement::Quoted;
use crate::sql::{Facts, Flavor as LexFlavor, StatementCount, Text, VolatileKind, rewrite};

/// Which calls are answered in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Calls {
    /// All.
    All,
    /// Those whose answer is the same for the whole session: they are in the text that is prepared.
    OfConnection,
}

impl ClientSession {
    /// Puts values in place of calls in a COM_QUERY.
    pub(super) fn rewrite(&self, request: &mut Request<'_>) -> Result<(), ErrorReply> {
        if request.facts.volatile.is_empty() || request.shape != ReplyShape::Query || !request.head.complete {
            return Ok(());
        }
        let end = request.head.header.frame_len().min(self.io.read_buf.len());
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default();
        if let Some(answer) = self.answers(request.facts, Calls::All)?
            && let Some(text) = rewrite::answer_volatile(sql, request.facts, &self.lex_context(), answer)
        {
            request.rewritten = Some(command_packet(0x03, &text));
        }
        Ok(())
    }

    /// The text of a statement as it is prepared first.
    pub(super) fn text_to_prepare(&self, text: &Text) -> Bytes {
        // What is answered here is never refused.
        let answer = self.answers(text.facts(), Calls::OfConnection).ok().flatten();
        answer.and_then(|answer| text.answered(answer)).unwrap_or_else(|| text.sql().clone())
    }

    /// The text of a prepared statement for an execution now.
    pub(super) fn text_to_execute(&self, text: &Text) -> Result<Bytes, ErrorReply> {
        let answer = self.answers(text.facts(), Calls::All)?;
        Ok(answer.and_then(|answer| text.answered(answer)).unwrap_or_else(|| text.sql().clone()))
    }

    /// A PREPARE or EXECUTE IMMEDIATE with values in place of calls in the statement that its literal holds; `None` if there is nothing to replace.
    pub(super) fn with_values_in_source(&self, sql: &[u8]) -> Result<Option<Bytes>, ErrorReply> {
        let cx = self.lex_context();
        let Some(mut source) = Quoted::read(sql, &cx) else { return Ok(None) };
        let calls = if source.immediate { Calls::All } else { Calls::OfConnection };
        let text = Text::read(Bytes::from(std::mem::take(&mut source.text)), cx);
        let answered = self.answers(text.facts(), calls)?.and_then(|answer| text.answered(answer));
        Ok(answered.map(|answered| Bytes::from(source.replaced(sql, &answered, &cx))))
    }

    /// What takes the place of the calls of a statement; `None` if nothing does.
    fn answers(
        &self,
        facts: &Facts,
        calls: Calls,
    ) -> Result<Option<impl FnMut(VolatileKind) -> Option<Vec<u8>>>, ErrorReply> {
        if facts.volatile.is_empty() || facts.statements != StatementCount::One || !facts.certain {
            return Ok(None);
        }
        if calls == Calls::All {
            self.check_known(facts)?;
        }
        let (untouched, id) = (self.untouched(), self.handle.id);
        let found_rows_here = untouched && self.found_rows_here;
        Ok(Some(move |kind| match kind {
            VolatileKind::ConnectionId => Some(connection_id(id)),
            VolatileKind::PseudoThreadIdVar => Some(pseudo_thread_id(id)),
            _ if calls == Calls::OfConnection => None,
            VolatileKind::RowCount if !untouched => Some(count(self.row_count)),
            VolatileKind::FoundRows if !found_rows_here => {
                Some(count(self.found_rows.unwrap_or(0).try_into().unwrap_or(i64::MAX)))
            }
            VolatileKind::WarningCountVar | VolatileKind::ErrorCountVar => self.copied_variable(kind).ok().flatten(),
            VolatileKind::LastGtidVar => self.last_gtid_literal(),
            _ => None,
        }))
    }

    /// Whether what the statement asks about the one before is known here or on the bound server session.
    fn check_known(&self, facts: &Facts) -> Result<(), ErrorReply> {
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
        Ok(())
    }

    /// The client's own last GTID. MariaDB reports it with the answer that ends the transaction; the server session may have made others since, for
    /// others. `None` where the server is to say it: MySQL has no such variable, and a client that chose its own tracking has its server session for itself.
    fn last_gtid_literal(&self) -> Option<Vec<u8>> {
        let ours =
            matches!(self.lex_flavor, LexFlavor::MariaDb { .. }) && !self.pins.contains(PinReason::SessionTracking);
        let digits = |gtid: &&[u8]| gtid.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-');
        ours.then(|| {
            let gtid = self.last_gtid.as_deref().filter(|gtid| digits(gtid)).unwrap_or_default();
            [b"NULLIF(CONVERT('", gtid, b"' USING utf8mb3),NULL)"].concat()
        })
    }
}

// What takes a call's place has the type, length and flags that the call has on MariaDB and on MySQL, and in CREATE TABLE … AS SELECT (observed).

/// CONNECTION_ID(): on MariaDB INT UNSIGNED of ten digits, on MySQL BIGINT UNSIGNED.
fn connection_id(id: u32) -> Vec<u8> {
    format!("CAST({id:010} AS UNSIGNED)").into_bytes()
}

/// A system variable can be NULL, for all that a statement knows of it.
fn pseudo_thread_id(id: u32) -> Vec<u8> {
    format!("NULLIF({id}|0,NULL)").into_bytes()
}

/// ROW_COUNT() and FOUND_ROWS(): BIGINT of 21 characters.
fn count(n: i64) -> Vec<u8> {
    format!("CAST('{n:021}' AS SIGNED)").into_bytes()
}
