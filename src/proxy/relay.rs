//! The byte relay: an answer from the node's socket to the client's, frame by frame, without copying rows.
//!
//! Where client and server session agreed on the same framing, what was read is written as it is. Where they did not, single frames are
//! replaced (OK, EOF), inserted or left out (the EOF after column definitions), and the sequence numbers of the others are shifted in place.

use bytes::{Buf, BufMut, BytesMut};

use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::protocol::mysql::packet::eof::EofPacket;
use crate::protocol::mysql::packet::err::ErrPacket;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::protocol::mysql::packet::prepare_ok::PrepareOk;
use crate::protocol::mysql::reply::{FrameKind, Inspect, ReplyShape, ReplyTracker};
use crate::proxy::report::{Report, visible_state};

/// A frame that has to be looked at as a whole may be this long; rows and column definitions are never looked at as a whole.
const WHOLE_BYTES_MAX: usize = 4 << 20;

/// The header byte of an OK packet.
const OK: u8 = 0x00;
/// The header byte of EOF, and of the OK that replaces it.
const EOF: u8 = 0xFE;

/// What is wrong with an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// The node broke the protocol.
    #[error("the node's answer breaks the protocol: {0}")]
    Protocol(String),
    /// A control packet above `WHOLE_BYTES_MAX`.
    #[error("the node sent a control packet of {0} bytes")]
    TooLong(usize),
}

/// How far [`Relay::process`] came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More bytes of the node are needed.
    More,
    /// The answer is complete.
    Done,
    /// The node asks for the client's file (LOAD DATA LOCAL).
    WantsFile,
    /// What comes next can't be passed on; what was before it still is.
    Broken(RelayError),
}

/// Where an answer was cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The number of the frame that the client expects next.
    pub next_seq: u8,
    /// No packet can follow that the client would take for the end of this answer: it has part of a packet, or all of the answer.
    pub mid_frame: bool,
}

impl Default for Cut {
    /// Before the first frame.
    fn default() -> Cut {
        Cut { next_seq: 1, mid_frame: false }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MetadataEnd {
    /// Both sides agree.
    Same,
    /// The client wants an EOF that the node does not send.
    Insert,
    /// The node sends an EOF that the client does not want.
    Drop,
}

/// The relay of one answer.
#[derive(Debug)]
pub struct Relay {
    tracker: ReplyTracker,
    client: Capabilities,
    server: Capabilities,
    metadata_end: MetadataEnd,
    shape: ReplyShape,
    /// Bytes of the present frame still to pass.
    frame_left: usize,
    /// The last frame was full: the next one continues its packet.
    continued: bool,
    seq_shift: u8,
    /// Column or parameter definitions still to come before an EOF is due.
    definitions_left: u64,
    columns_after_params: u64,
    eof_due: bool,
    /// The client's id for the statement being prepared.
    client_statement: u32,
    /// Status flags of the session before this answer.
    session_status: StatusFlags,
    begun: bool,
    replaced: bool,
    next_seq: u8,
    /// What the answer said.
    pub report: Report,
}

impl Relay {
    /// The relay of an answer of this shape between sides with these capabilities.
    pub fn new(shape: ReplyShape, client: Capabilities, server: Capabilities, client_statement: u32) -> Relay {
        let metadata_end =
            match (client.contains(Capabilities::DEPRECATE_EOF), server.contains(Capabilities::DEPRECATE_EOF)) {
                (false, true) => MetadataEnd::Insert,
                (true, false) => MetadataEnd::Drop,
                _ => MetadataEnd::Same,
            };
        Relay {
            tracker: ReplyTracker::new(shape, server),
            client,
            server,
            metadata_end,
            shape,
            frame_left: 0,
            continued: false,
            seq_shift: 0,
            definitions_left: 0,
            columns_after_params: 0,
            eof_due: false,
            client_statement,
            session_status: StatusFlags::AUTOCOMMIT,
            begun: false,
            replaced: false,
            next_seq: 1,
            report: Report::default(),
        }
    }

    /// With the status flags of the session before this answer: packets of belay's own that precede the first one with flags repeat them.
    pub fn with_status(mut self, status: StatusFlags) -> Relay {
        self.session_status = status;
        self
    }

    /// Whether any byte was handed out for the client.
    pub fn begun(&self) -> bool {
        self.begun
    }

    /// Whether the last call to [`Relay::process`] put the client's bytes into `out`.
    pub fn replaced(&self) -> bool {
        self.replaced
    }

    /// Where the answer stands, for an error that has to end it.
    pub fn cut(&self) -> Cut {
        // A PREPARE of whose answer only an EOF is missing that this client does not want: an error would answer its next request.
        let has_all = self.shape == ReplyShape::Prepare
            && self.metadata_end == MetadataEnd::Drop
            && self.report.prepared.is_some()
            && self.definitions_left == 0;
        Cut { next_seq: self.next_seq, mid_frame: self.frame_left > 0 || self.continued || has_all }
    }

    /// By how much the client's sequence numbers are ahead of the node's. The frames of the client's file have to go back by as much.
    pub fn seq_shift(&self) -> u8 {
        self.seq_shift
    }

    /// The client's file was sent: OK or ERR is due.
    pub fn file_sent(&mut self) {
        self.tracker.local_infile_sent();
    }

    /// Works through what was read from the node. What the client gets is either the first `usize` bytes of `input` as they are (and `out` stays
    /// empty), or the content of `out`; in both cases `input` is to be advanced by that number.
    pub fn process(&mut self, input: &mut BytesMut, out: &mut BytesMut) -> (usize, Progress) {
        let mut pass = Passing::default();
        let progress = loop {
            match self.next_frame(input, &mut pass, out) {
                Ok(Some(FrameKind::LocalInfile)) => break Progress::WantsFile,
                Ok(Some(_)) if !self.tracker.is_done() => {}
                // The frame that ends an answer may arrive in pieces (an error message, a statistics string).
                Ok(_) if self.tracker.is_done() && self.frame_left == 0 => break Progress::Done,
                Ok(_) => break Progress::More,
                Err(error) => break Progress::Broken(error),
            }
        };
        if progress == Progress::Done && std::mem::take(&mut self.eof_due) {
            // The last definition of a PREPARE has nothing behind it.
            out.put_slice(input.get(pass.copied..pass.at).unwrap_or_default());
            pass.copied = pass.at;
            self.put_eof(self.next_seq, 0, self.report.metadata_status(self.session_status), out);
            self.next_seq = self.next_seq.wrapping_add(1);
        }
        self.replaced = pass.copied > 0 || !out.is_empty();
        if self.replaced {
            out.put_slice(input.get(pass.copied..pass.at).unwrap_or_default());
        }
        self.begun |= pass.at > 0;
        (pass.at, progress)
    }

    /// The next frame, or the next piece of the present one; `None` if more bytes are needed.
    fn next_frame(
        &mut self,
        input: &mut BytesMut,
        pass: &mut Passing,
        out: &mut BytesMut,
    ) -> Result<Option<FrameKind>, RelayError> {
        let at = pass.at;
        if self.frame_left > 0 {
            let take = self.frame_left.min(input.len() - at);
            pass.at += take;
            self.frame_left -= take;
            if self.frame_left > 0 || self.tracker.is_done() {
                return Ok(None);
            }
            return self.next_frame(input, pass, out);
        }
        let Some(header) = FrameHeader::parse(&input[at..]) else { return Ok(None) };
        let available = input.len() - at;
        let first = input.get(at + HEADER_BYTES).copied();
        if header.payload_len > 0 && first.is_none() {
            return Ok(None);
        }
        let whole = self.tracker.inspect(header, first) == Inspect::Whole;
        if whole && header.frame_len() > WHOLE_BYTES_MAX {
            return Err(RelayError::TooLong(header.payload_len));
        }
        if whole && available < header.frame_len() {
            return Ok(None);
        }
        let visible = header.frame_len().min(available);
        let payload = &mut input[at + HEADER_BYTES..at + visible];
        let step = self.tracker.advance(header, payload).map_err(protocol)?;
        let mut made = BytesMut::new();
        let edit = self.frame(step.kind, header, payload, &mut made)?;
        if !made.is_empty() {
            out.put_slice(&input[pass.copied..at]);
            out.put_slice(&made);
            pass.copied = at;
        }
        match edit {
            Edit::Pass => {
                if self.seq_shift != 0 {
                    input[at + 3] = header.seq.wrapping_add(self.seq_shift);
                }
                pass.at += visible;
                self.frame_left = header.frame_len() - visible;
                self.continued = header.continues();
            }
            Edit::Replace => {
                if made.is_empty() {
                    out.put_slice(&input[pass.copied..at]);
                }
                pass.at += header.frame_len();
                pass.copied = pass.at;
            }
        }
        self.next_seq = header.seq.wrapping_add(self.seq_shift).wrapping_add(1);
        Ok(Some(step.kind))
    }

    fn frame(
        &mut self,
        kind: FrameKind,
        header: FrameHeader,
        payload: &mut [u8],
        out: &mut BytesMut,
    ) -> Result<Edit, RelayError> {
        match kind {
            FrameKind::Ok => self.ok(header, payload, OK, out),
            FrameKind::ResultEnd => self.result_end(header, payload, out),
            FrameKind::Err => {
                self.put_due_eof(header, out);
                let error = ErrPacket::decode(payload).map_err(protocol)?;
                self.report.error(&error);
                Ok(Edit::Pass)
            }
            FrameKind::ColumnCount => {
                let count = crate::protocol::mysql::codec::Reader::new(payload).lenenc_int("column count");
                self.definitions_left = count.map_err(protocol)?;
                self.report.result_begins();
                Ok(Edit::Pass)
            }
            FrameKind::ColumnDef | FrameKind::ParamDef => {
                self.put_due_eof(header, out);
                self.definition_passed();
                Ok(Edit::Pass)
            }
            FrameKind::MetadataEof if self.tracker.is_done() && self.shape == ReplyShape::Execute => {
                // A cursor: there are no rows whose end could say so.
                self.eof_end(header, payload, out)
            }
            FrameKind::MetadataEof | FrameKind::ParamEof => Ok(self.metadata_eof(payload)),
            FrameKind::Row => {
                self.put_due_eof(header, out);
                self.report.rows += 1;
                Ok(Edit::Pass)
            }
            FrameKind::PrepareOk => self.prepare_ok(payload),
            FrameKind::Continuation | FrameKind::Progress | FrameKind::LocalInfile | FrameKind::Statistics => {
                Ok(Edit::Pass)
            }
        }
    }

    fn definition_passed(&mut self) {
        self.definitions_left = self.definitions_left.saturating_sub(1);
        if self.definitions_left == 0 {
            if self.shape != ReplyShape::FieldList {
                self.eof_due = self.metadata_end == MetadataEnd::Insert;
            }
            self.definitions_left = std::mem::take(&mut self.columns_after_params);
        }
    }

    /// The EOF after column definitions, put before the frame that follows them.
    fn put_due_eof(&mut self, next: FrameHeader, out: &mut BytesMut) {
        if std::mem::take(&mut self.eof_due) {
            self.put_eof(
                next.seq.wrapping_add(self.seq_shift),
                0,
                self.report.metadata_status(self.session_status),
                out,
            );
            self.seq_shift = self.seq_shift.wrapping_add(1);
        }
    }

    fn put_eof(&self, seq: u8, warnings: u16, status: StatusFlags, out: &mut BytesMut) {
        out.put_slice(&FrameHeader { payload_len: 5, seq }.encode());
        out.put_u8(EOF);
        out.put_u16_le(warnings);
        out.put_u16_le(status.bits());
    }

    fn metadata_eof(&mut self, payload: &mut [u8]) -> Edit {
        if self.metadata_end == MetadataEnd::Drop {
            self.seq_shift = self.seq_shift.wrapping_sub(1);
            Edit::Replace
        } else {
            hide_state_flag(payload);
            Edit::Pass
        }
    }

    fn prepare_ok(&mut self, payload: &mut [u8]) -> Result<Edit, RelayError> {
        let ok = PrepareOk::decode(payload, self.server).map_err(protocol)?;
        self.report.prepared = Some((ok.stmt_id, ok.num_params, ok.num_columns));
        self.report.warnings = ok.warnings;
        if let Some(id) = payload.get_mut(1..5) {
            id.copy_from_slice(&self.client_statement.to_le_bytes());
        }
        if ok.num_params > 0 {
            self.definitions_left = u64::from(ok.num_params);
            self.columns_after_params = u64::from(ok.num_columns);
        } else {
            self.definitions_left = u64::from(ok.num_columns);
        }
        Ok(Edit::Pass)
    }

    fn ok(&mut self, header: FrameHeader, payload: &[u8], kind: u8, out: &mut BytesMut) -> Result<Edit, RelayError> {
        let ok = OkPacket::decode(payload, self.server).map_err(protocol)?;
        self.report.ok(&ok).map_err(protocol)?;
        Ok(self.ok_for_client(header, &ok, kind, out))
    }

    fn result_end(&mut self, header: FrameHeader, payload: &mut [u8], out: &mut BytesMut) -> Result<Edit, RelayError> {
        if !self.server.contains(Capabilities::DEPRECATE_EOF) || EofPacket::is_old_end(payload) {
            return self.eof_end(header, payload, out);
        }
        let ok = OkPacket::decode(payload, self.server).map_err(protocol)?;
        self.report.ok_end(&ok).map_err(protocol)?;
        if self.metadata_end == MetadataEnd::Same {
            return Ok(self.ok_for_client(header, &ok, EOF, out));
        }
        // A cursor's metadata ends with the one EOF that says so; rows end with an EOF of their own.
        let cursor = self.shape == ReplyShape::Execute && ok.status.contains(StatusFlags::CURSOR_EXISTS);
        if cursor && self.report.rows_of_result() == 0 {
            self.eof_due = false;
        }
        self.put_due_eof(header, out);
        let seq = header.seq.wrapping_add(self.seq_shift);
        self.put_eof(seq, ok.warnings, status_with(ok.status, false), out);
        Ok(Edit::Replace)
    }

    /// An EOF that ends a result: as it is, or as the OK that this client expects in its place.
    fn eof_end(&mut self, header: FrameHeader, payload: &mut [u8], out: &mut BytesMut) -> Result<Edit, RelayError> {
        let eof = EofPacket::decode(payload).map_err(protocol)?;
        // Not the packet's own: MySQL says only before OUT parameters that an OK follows them.
        let status = self.tracker.status();
        self.report.result_end(status, eof.warnings);
        if self.metadata_end != MetadataEnd::Drop {
            // One that was not agreed on either: this client's kind of server sends the same.
            self.put_due_eof(header, out);
            hide_state_flag(payload);
            return Ok(Edit::Pass);
        }
        let ok = OkPacket { status, warnings: eof.warnings, ..OkPacket::default() };
        let mut new = BytesMut::new();
        ok.encode(&mut new, self.client, EOF);
        out.put_slice(&FrameHeader { payload_len: new.len(), seq: header.seq.wrapping_add(self.seq_shift) }.encode());
        out.put_slice(&new);
        Ok(Edit::Replace)
    }

    /// An OK packet (or the OK that ends rows) as this client negotiated it.
    fn ok_for_client(&self, header: FrameHeader, ok: &OkPacket<'_>, kind: u8, out: &mut BytesMut) -> Edit {
        let same =
            self.client.contains(Capabilities::SESSION_TRACK) == self.server.contains(Capabilities::SESSION_TRACK);
        if !ok.status.contains(StatusFlags::SESSION_STATE_CHANGED) && (same || ok.info.is_empty()) {
            return Edit::Pass;
        }
        let visible = visible_state(ok, self.client);
        let status = status_with(ok.status, !visible.is_empty());
        let for_client = OkPacket { session_state: &visible, status, ..*ok };
        let mut new = BytesMut::new();
        for_client.encode(&mut new, self.client, kind);
        out.put_slice(&FrameHeader { payload_len: new.len(), seq: header.seq.wrapping_add(self.seq_shift) }.encode());
        out.put_slice(&new);
        Edit::Replace
    }
}

/// The status flags with SESSION_STATE_CHANGED as the client's packet has it.
fn status_with(status: StatusFlags, state: bool) -> StatusFlags {
    let mut status = status;
    status.set(StatusFlags::SESSION_STATE_CHANGED, state);
    status
}

/// The same in an EOF, which has no place for the state itself: belay tracks more than the client asked for.
fn hide_state_flag(eof: &mut [u8]) {
    if let Some(high) = eof.get_mut(4) {
        *high &= !((StatusFlags::SESSION_STATE_CHANGED.bits() >> 8) as u8);
    }
}

fn protocol(error: impl std::fmt::Display) -> RelayError {
    RelayError::Protocol(error.to_string())
}

/// How far a call of [`Relay::process`] has come: `[copied, at)` is what passes unchanged and was not put into its `out` yet.
#[derive(Default)]
struct Passing {
    at: usize,
    copied: usize,
}

enum Edit {
    /// The frame passes as it is (but for its number).
    Pass,
    /// What is in `out` takes its place.
    Replace,
}

/// Removes what was processed from the front of `input`.
pub fn consume(input: &mut BytesMut, n: usize) {
    if n == input.len() {
        input.clear();
    } else {
        input.advance(n);
    }
}

#[cfg(test)]
#[path = "relay_tests.rs"]
mod tests;
