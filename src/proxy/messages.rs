//! The messages of a client's last statement (SHOW WARNINGS and its kin): they are asked for where they are; before others get that server session they are
//! copied, and the client's questions answered from the copy.

use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::pool::flight::{Answer, Ask};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::put_lenenc_int;
use crate::protocol::mysql::frame::{self, HEADER_BYTES};
use crate::protocol::mysql::packet::column::ColumnDef;
use crate::protocol::mysql::packet::eof::EofPacket;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::errors;
use crate::proxy::report::Report;
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::wire::RequestHead;
use crate::session::diagnostics::{self, Copied, Does, Messages, Show};
use crate::session::pins::{PinReason, Pins};
use crate::session::transaction::Transaction;
use crate::sql::{Effects, Facts, StatementCount, VolatileKind};

/// Rows that are copied. Servers keep `max_error_count` of them: 64 (MariaDB) or 1024 (MySQL) if nobody has set it.
const ROWS_MAX: usize = 1024;

/// One more shows that there are more.
const SHOW_WARNINGS: &[u8] = b"SHOW WARNINGS LIMIT 1025";

/// What an entry of the copying flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Rows,
    Warnings,
    Errors,
    FoundRows,
}

impl ClientSession {
    /// What the statement does to the messages that are there.
    pub(super) fn does_to_messages(&self, facts: &Facts) -> Does {
        let cached = self.state.get("query_cache_type").is_some_and(|on| !on.eq_ignore_ascii_case(b"OFF"));
        diagnostics::does(facts, self.lex_flavor, cached)
    }

    /// Whether the messages on the bound server session are still to be asked for by the statement or behind it, so that nothing may clear them before.
    pub(super) fn needs_messages(&self, facts: &Facts) -> bool {
        let clears = || self.does_to_messages(facts) == Does::Clears && !diagnostics::may_ask(facts);
        self.messages == Messages::Here && !clears()
    }

    /// Before a statement: whether the messages of others on the bound server session have to be cleared; an error if the client's own are asked for and
    /// can't be had.
    pub(super) fn must_clear_messages(&self, facts: &Facts) -> Result<bool, ErrorReply> {
        let asks = facts.effects.contains(Effects::SHOW_DIAGNOSTICS);
        match &self.messages {
            Messages::Here => return Ok(false),
            Messages::Lost if asks => return Err(errors::messages_lost()),
            Messages::Copied(_) if asks && !diagnostics::asks_by_variable(facts) => {
                return Err(errors::messages_copied());
            }
            Messages::None | Messages::Lost | Messages::Copied(_) => {}
        }
        let theirs = self.lease.as_ref().is_some_and(|lease| lease.conn.messages);
        Ok(theirs && diagnostics::may_ask(facts))
    }

    /// After an answer: where the client's messages are.
    pub(super) fn apply_messages(&mut self, report: &Report, does: impl FnOnce(&ClientSession) -> Does) {
        let new = report.warnings > 0 || report.error.is_some();
        let theirs = self.lease.as_ref().is_some_and(|lease| lease.conn.messages);
        if !new && !theirs && self.messages == Messages::None {
            return;
        }
        let does = does(self);
        self.messages = std::mem::take(&mut self.messages).after(does, new);
        if let Some(lease) = &mut self.lease {
            lease.conn.messages = new || (lease.conn.messages && does != Does::Clears);
        }
    }

    /// The pin that keeps what is on the bound server session.
    pub(super) fn pin_messages(&self, pins: &mut Pins) {
        if self.messages == Messages::Here {
            pins.insert(PinReason::Diagnostics);
        } else {
            pins.remove(PinReason::Diagnostics);
        }
    }

    /// The client got something else than an answer of the bound server session, which knows nothing of it.
    pub(super) fn forget_messages(&mut self) {
        self.messages = Messages::None;
        let mut pins = self.pins;
        if pins.remove(PinReason::Diagnostics) {
            self.set_pins(pins);
        }
    }

    /// The server session is gone.
    pub(super) fn messages_unbound(&mut self) {
        if self.messages == Messages::Here {
            self.messages = Messages::Lost;
        }
    }

    /// Whether the client keeps its server session for no more than it can do without, and others wait for one.
    pub(super) fn is_in_the_way(&self) -> bool {
        let momentary = !self.pins.is_empty() && self.pins_for_a_moment();
        momentary
            && self.io.read_buf.is_empty()
            && self.lease.as_ref().and_then(|lease| lease.endpoint()).is_some_and(|endpoint| endpoint.has_waiters())
    }

    /// Whether nothing keeps the bound server session but what goes by itself.
    pub(super) fn pins_for_a_moment(&self) -> bool {
        self.transaction == Transaction::Idle && !self.pins_not_to_ask().is_lasting()
    }

    /// Keeps a copy of what a momentary pin is for, so that the server session can serve others.
    pub(super) async fn let_go(&mut self) -> Flow {
        if !self.pins_for_a_moment() {
            return Flow::Continue;
        }
        let copies = self.pins.contains(PinReason::Diagnostics) || self.pins.contains(PinReason::FoundRows);
        if copies && self.copy_messages().await == Flow::End {
            return Flow::End;
        }
        self.put_aside_next_transaction().await
    }

    /// Copies the messages of the last statement, and FOUND_ROWS() if only the bound server session knows it.
    pub(super) async fn copy_messages(&mut self) -> Flow {
        let here = self.messages == Messages::Here;
        let Some(lease) = &mut self.lease else { return Flow::Continue };
        let served_last = lease.last_use.is_some_and(|last| last.client == self.handle.id);
        let found_rows = self.found_rows.is_none() && self.found_rows_here && served_last;
        let mut entries: Vec<(Purpose, &'static [u8])> = Vec::with_capacity(3);
        if here {
            entries.push((Purpose::Rows, SHOW_WARNINGS));
        }
        if found_rows {
            // Behind SHOW WARNINGS, which leaves it as it is; SHOW COUNT does not.
            entries.push((Purpose::FoundRows, b"SELECT FOUND_ROWS()"));
        } else if here {
            entries.push((Purpose::Warnings, b"SHOW COUNT(*) WARNINGS"));
            entries.push((Purpose::Errors, b"SHOW COUNT(*) ERRORS"));
        }
        lease.last_use = None;
        let node = lease.node;
        let asks: Vec<Ask> = entries.iter().map(|(_, sql)| Ask::Query(Bytes::from_static(sql))).collect();
        match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
            Ok(answers) => {
                self.take_held_back(&answers);
                let mut copied = Copied { charset: self.state.charsets().results.clone(), ..Copied::default() };
                for ((purpose, _), answer) in entries.into_iter().zip(answers) {
                    self.copied(purpose, &answer, &mut copied);
                }
                if here {
                    if copied.warnings.is_none() {
                        copied.count_rows(self.state.get("max_error_count").and_then(|max| number(max)));
                    }
                    self.messages = Messages::Copied(Arc::new(copied));
                }
            }
            Err(NotLanded::ClientGone) => return Flow::End,
            Err(error) => {
                tracing::debug!(session = self.handle.id, %error, "messages could not be copied");
                self.cx.cluster.suspect(node);
                self.lose_bound();
                return Flow::Continue;
            }
        }
        let mut pins = self.pins;
        pins.remove(PinReason::Diagnostics);
        pins.remove(PinReason::FoundRows);
        self.set_pins(pins);
        self.handle.decided(
            Instant::now(),
            "unpin",
            Some(node),
            "messages and counts of the last statement were copied",
        );
        Flow::Continue
    }

    fn copied(&mut self, purpose: Purpose, answer: &Answer, copied: &mut Copied) {
        let count = answer.single().and_then(|value| number(value));
        match purpose {
            Purpose::Rows => {
                let server = self.lease.as_ref().map_or(Capabilities::empty(), |lease| lease.conn.capabilities);
                for payload in &answer.definitions {
                    let mut out = BytesMut::new();
                    let Ok(definition) = ColumnDef::decode(payload, server) else { return };
                    definition.encode(&mut out, self.capabilities);
                    copied.columns.push(out.freeze());
                }
                if answer.error.is_none() {
                    copied.take_rows(&answer.rows, ROWS_MAX, self.cx.config.session.diagnostics_bytes_max);
                }
            }
            Purpose::Warnings => copied.warnings = count,
            Purpose::Errors => copied.errors = count,
            Purpose::FoundRows => {
                self.found_rows = count;
                self.found_rows_here = false;
            }
        }
    }

    /// Whether a text may ask for messages that were copied.
    pub(super) fn asks_for_copy(&self, head: RequestHead, facts: &Facts) -> bool {
        let asks = facts.effects.contains(Effects::SHOW_DIAGNOSTICS) && head.complete && !self.lost.is_some();
        let one = facts.certain && facts.statements == StatementCount::One;
        asks && one && matches!(self.messages, Messages::Copied(_))
    }

    /// Answers a question for messages that were copied; `None`: it is for a server.
    pub(super) async fn answer_from_copy(&mut self, head: RequestHead) -> Option<Flow> {
        let Messages::Copied(copied) = &self.messages else { return None };
        let copied = Arc::clone(copied);
        let end = head.header.frame_len().min(self.io.read_buf.len());
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default();
        let show = diagnostics::read_show(sql, &self.lex_context())?;
        let known = if show.count { self.copied_count(show.errors_only).is_some() } else { copied.complete };
        if !known || (!show.count && !copied.reads_in(&self.state.charsets().results)) {
            return Some(self.refuse(head, errors::messages_lost()).await);
        }
        if self.skip_request(head).await == Flow::End {
            return Some(Flow::End);
        }
        let out = if show.count { self.count_packets(show.errors_only) } else { self.row_packets(&copied, &show) };
        self.row_count = -1;
        if show.count {
            self.found_rows = Some(1);
        }
        self.found_rows_here = false;
        if let Some(lease) = &mut self.lease {
            // What it knows of the last statement is about another one.
            lease.last_use = None;
        }
        self.notes();
        Some(self.send(&out).await)
    }

    /// How many messages there are, from the copy.
    pub(super) fn copied_count(&self, errors_only: bool) -> Option<u64> {
        match &self.messages {
            Messages::Copied(copied) if errors_only => copied.errors,
            Messages::Copied(copied) => copied.warnings,
            _ => None,
        }
    }

    /// The value of `@@warning_count` or `@@error_count` if it comes from the copy. An error: nobody knows it.
    pub(super) fn copied_variable(&self, kind: VolatileKind) -> Result<Option<Vec<u8>>, ErrorReply> {
        let errors_only = match kind {
            VolatileKind::WarningCountVar => false,
            VolatileKind::ErrorCountVar => true,
            _ => return Ok(None),
        };
        match self.messages {
            Messages::None | Messages::Here => Ok(None),
            Messages::Copied(_) | Messages::Lost => match self.copied_count(errors_only) {
                // MariaDB makes a smaller type of a CAST, and the variables may be NULL as far as their columns tell.
                Some(count) => Ok(Some(format!("NULLIF({count}|0,NULL)").into_bytes())),
                None => Err(errors::messages_lost()),
            },
        }
    }

    fn row_packets(&self, copied: &Copied, show: &Show) -> BytesMut {
        self.result(&copied.columns, copied.shown(show))
    }

    fn count_packets(&self, errors_only: bool) -> BytesMut {
        let name: &[u8] = if errors_only { b"@@session.error_count" } else { b"@@session.warning_count" };
        let definition = ColumnDef {
            catalog: b"def",
            name,
            collation: 63,
            length: 21,
            type_byte: 8,
            flags: ColumnDef::UNSIGNED_FLAG | ColumnDef::BINARY_FLAG,
            ..ColumnDef::default()
        };
        let mut column = BytesMut::new();
        definition.encode(&mut column, self.capabilities);
        let mut row = BytesMut::new();
        let count = self.copied_count(errors_only).unwrap_or_default().to_string();
        crate::protocol::mysql::codec::put_lenenc_str(&mut row, count.as_bytes());
        self.result(&[column.freeze()], std::iter::once(&row.freeze()))
    }

    /// A result of text rows, as packets.
    fn result<'a>(&self, columns: &[Bytes], rows: impl Iterator<Item = &'a Bytes>) -> BytesMut {
        let (mut out, mut seq) = (BytesMut::new(), 1);
        let mut payload = BytesMut::new();
        put_lenenc_int(&mut payload, columns.len() as u64);
        frame::encode_packet(&mut out, &mut seq, &payload);
        for column in columns {
            frame::encode_packet(&mut out, &mut seq, column);
        }
        let status = self.lasting_status();
        if !self.capabilities.contains(Capabilities::DEPRECATE_EOF) {
            self.put_end(&mut out, &mut seq, status);
        }
        for row in rows {
            frame::encode_packet(&mut out, &mut seq, row);
        }
        self.put_end(&mut out, &mut seq, status);
        out
    }

    fn put_end(&self, out: &mut BytesMut, seq: &mut u8, status: StatusFlags) {
        let mut payload = BytesMut::new();
        if self.capabilities.contains(Capabilities::DEPRECATE_EOF) {
            OkPacket { status, ..OkPacket::default() }.encode(&mut payload, self.capabilities, 0xFE);
        } else {
            EofPacket { warnings: 0, status }.encode(&mut payload);
        }
        frame::encode_packet(out, seq, &payload);
    }
}

fn number<T: std::str::FromStr>(text: &[u8]) -> Option<T> {
    std::str::from_utf8(text).ok()?.parse().ok()
}
