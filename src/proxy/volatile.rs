//! Answers that belong to the client's last statement or to its connection, and that the server session at hand can't know:
//! CONNECTION_ID(), ROW_COUNT(), FOUND_ROWS(). Where the lexer found the call for certain, its value takes its place in the text.

use bytes::BytesMut;

use crate::protocol::ErrorReply;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::reply::ReplyShape;
use crate::proxy::errors;
use crate::proxy::execute::{Request, command_packet};
use crate::proxy::session::ClientSession;
use crate::sql::{Facts, StatementCount, VolatileKind};

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
        let untouched = self
            .lease
            .as_ref()
            .and_then(|l| l.last_use)
            .is_some_and(|last| last.client == self.handle.id && last.statement + 1 == self.statement);
        let mut replacements = Vec::new();
        for call in &facts.volatile {
            let value = match call.kind {
                VolatileKind::ConnectionId | VolatileKind::PseudoThreadIdVar => format!("CAST({} AS UNSIGNED)", self.handle.id),
                VolatileKind::RowCount if !untouched => format!("CAST({} AS SIGNED)", self.row_count),
                VolatileKind::FoundRows if !untouched => match self.found_rows {
                    Some(rows) => format!("CAST({rows} AS UNSIGNED)"),
                    None => "CAST(0 AS UNSIGNED)".into(),
                },
                VolatileKind::WarningCountVar | VolatileKind::ErrorCountVar if !untouched && self.diagnostics_lost => {
                    return Err(errors::value_lost("the warning count"));
                }
                _ => continue,
            };
            replacements.push((call.range.range(), value.into_bytes()));
            if let Some(item) = call.unaliased_item {
                let mut alias = b" AS ".to_vec();
                let mut quoted = BytesMut::new();
                crate::sql::literal::put_identifier(&mut quoted, item.of(sql));
                alias.extend_from_slice(&quoted);
                let end = item.range().end;
                replacements.push((end..end, alias));
            }
        }
        if replacements.is_empty() {
            return Ok(None);
        }
        Ok(Some(crate::sql::rewrite::replace_ranges(sql, &replacements)))
    }
}
