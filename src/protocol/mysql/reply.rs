//! Where an answer ends: follows the frames of one answer without copying or decoding its rows.
//!
//! ```text
//!                 OK, no more results / ERR
//!  First ------------------------------------------------------------> Done
//!   | ^ \-- 0xFB --> FileWanted -- local_infile_sent --> FileAnswer --> Done (or First)
//!   | |
//!   | +------------- end of rows with MORE_RESULTS ------------+
//!   | column count                                             |
//!   v                                                          |
//!  Columns --> MetadataEof (not with DEPRECATE_EOF) --> Rows --+------> Done
//!                    \-- a cursor was opened ------------------------> Done
//!
//!  PrepareFirst --> Params --> ParamsEof --> Columns --> MetadataEof --> Done   (each part only if there is something)
//!  FieldDefs    --> Done      (COM_FIELD_LIST)
//! ```
//! An ERR ends the answer in every state. MariaDB's progress reports change no state.
//!
//! Observed on MariaDB 10.11 and MySQL 9.7, and relied on here:
//! - Without `DEPRECATE_EOF` the EOF after column definitions comes even when the definitions were left out.
//! - EXECUTE that opens a cursor: without `DEPRECATE_EOF` the one EOF (CURSOR_EXISTS) after the definitions is the end; with it the
//!   one 0xFE-OK is, as if there were no rows.
//! - MySQL sets PS_OUT_PARAMS and MORE_RESULTS only in the first EOF of the result that holds the OUT parameters of a CALL, yet
//!   an OK follows.
//! - MySQL ends a result that breaks off, in a routine whose handler catches the error, by an EOF of five bytes even with `DEPRECATE_EOF`; the
//!   results behind it end as agreed. MariaDB ends it as agreed.
//! - COM_SET_OPTION and COM_DEBUG answer with EOF, or with `DEPRECATE_EOF` with an OK whose header is 0xFE.

use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::{DecodeError, Reader};
use crate::protocol::mysql::frame::{FrameHeader, PAYLOAD_BYTES_MAX};
use crate::protocol::mysql::packet::eof::{EOF_BYTES_LIMIT, EOF_HEADER, EofPacket};
use crate::protocol::mysql::packet::err::{ERR_HEADER, is_progress};
use crate::protocol::mysql::packet::ok::{OK_HEADER, OkPacket};
use crate::protocol::mysql::packet::prepare_ok::PrepareOk;

/// First byte of the packet that asks the client for a file.
const LOCAL_INFILE_HEADER: u8 = 0xFB;

/// Which answer a command gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReplyShape {
    /// COM_QUERY: OK, ERR, a request for a file, or rows; possibly several results.
    Query,
    /// COM_STMT_EXECUTE and COM_STMT_BULK_EXECUTE: as `Query`, with binary rows and cursors.
    Execute,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_STMT_FETCH: rows without metadata.
    Fetch,
    /// COM_FIELD_LIST: column definitions without a count.
    FieldList,
    /// COM_STATISTICS: a bare string.
    Statistics,
    /// OK or ERR.
    Simple,
    /// COM_SET_OPTION, COM_DEBUG, COM_SHUTDOWN: EOF, OK or ERR.
    SetOption,
    /// No answer: COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA, COM_QUIT.
    None,
}

/// How much of a frame [`ReplyTracker::advance`] wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspect {
    /// The header and the first byte of the payload are enough: the frame can be passed on as it arrives.
    Prefix,
    /// The whole payload.
    Whole,
}

/// What a frame of an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// OK as a result of its own.
    Ok,
    /// ERR. The answer is over.
    Err,
    /// MariaDB's progress report; more follows.
    Progress,
    /// The server wants a file of the client, who sends it now.
    LocalInfile,
    /// The number of columns of a result.
    ColumnCount,
    /// The definition of a column.
    ColumnDef,
    /// EOF after column definitions (not with `DEPRECATE_EOF`).
    MetadataEof,
    /// A row, or the first frame of a row.
    Row,
    /// EOF or 0xFE-OK after rows, after the definitions of COM_FIELD_LIST, or as the answer to COM_SET_OPTION.
    ResultEnd,
    /// The first packet of an answer to COM_STMT_PREPARE.
    PrepareOk,
    /// The definition of a parameter.
    ParamDef,
    /// EOF after parameter definitions (not with `DEPRECATE_EOF`).
    ParamEof,
    /// The string of COM_STATISTICS.
    Statistics,
    /// A further frame of a row of 16 MB or more.
    Continuation,
}

/// What [`ReplyTracker::advance`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the frame is.
    pub kind: FrameKind,
    /// Whether the whole answer ends with this frame.
    pub done: bool,
}

/// Bytes of a server that are no answer to what it was asked. The server session can't be used any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A packet could not be read.
    #[error("malformed answer: {0}")]
    Decode(#[from] DecodeError),
    /// A packet of a kind that cannot come here.
    #[error("unexpected packet (first byte {first:?}, {payload_len} bytes) in an answer")]
    Unexpected {
        /// First byte of its payload.
        first: Option<u8>,
        /// Bytes of payload in its first frame.
        payload_len: usize,
    },
    /// A packet other than a row fills a whole frame of 16 MB.
    #[error("a packet of 16 MB or more where only rows may be as long")]
    TooLong,
    /// A packet after the end of the answer, or where none was asked for.
    #[error("a packet after the end of the answer")]
    AfterEnd,
    /// The caller showed less of the payload than [`ReplyTracker::inspect`] asked for.
    #[error("less of the packet was shown than asked for")]
    Incomplete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    First,
    Columns { left: u64 },
    MetadataEof,
    Rows,
    FileWanted,
    FileAnswer,
    PrepareFirst,
    Params { left: u16, columns: PrepareColumns },
    ParamsEof { columns: PrepareColumns },
    PrepareColumns { left: u16 },
    PrepareColumnsEof,
    FieldDefs,
    Statistics,
    Simple,
    SetOption,
    Done,
}

/// The columns that an answer to PREPARE still has to define.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PrepareColumns {
    /// Columns of the statement's result.
    number: u16,
    /// Whether their definitions are sent.
    sent: bool,
}

/// Follows one answer of a server, frame by frame.
#[derive(Clone, Debug)]
pub struct ReplyTracker {
    shape: ReplyShape,
    caps: Capabilities,
    state: State,
    /// The last frame was full: the next one continues its payload.
    continued: bool,
    /// Status of the EOF after column definitions.
    metadata_status: StatusFlags,
    status: StatusFlags,
    result_index: u32,
    rows: u64,
}

impl ReplyTracker {
    /// A tracker at the start of an answer; `server_caps` is what was agreed with the server.
    pub fn new(shape: ReplyShape, server_caps: Capabilities) -> ReplyTracker {
        let state = match shape {
            ReplyShape::Query | ReplyShape::Execute => State::First,
            ReplyShape::Prepare => State::PrepareFirst,
            ReplyShape::Fetch => State::Rows,
            ReplyShape::FieldList => State::FieldDefs,
            ReplyShape::Statistics => State::Statistics,
            ReplyShape::Simple => State::Simple,
            ReplyShape::SetOption => State::SetOption,
            ReplyShape::None => State::Done,
        };
        ReplyTracker {
            shape,
            caps: server_caps,
            state,
            continued: false,
            metadata_status: StatusFlags::empty(),
            status: StatusFlags::empty(),
            result_index: 0,
            rows: 0,
        }
    }

    /// How much of the frame with this `header` [`ReplyTracker::advance`] must be shown. `first` is the payload's first byte,
    /// `None` if the payload is empty.
    #[inline]
    pub fn inspect(&self, header: FrameHeader, first: Option<u8>) -> Inspect {
        if self.continued {
            return Inspect::Prefix;
        }
        let prefix = match self.state {
            State::Rows => first != Some(ERR_HEADER) && !self.ends_rows(header, first),
            State::Columns { .. } | State::Params { .. } | State::PrepareColumns { .. } => first != Some(ERR_HEADER),
            State::FieldDefs => first != Some(ERR_HEADER) && first != Some(EOF_HEADER),
            _ => false,
        };
        if prefix { Inspect::Prefix } else { Inspect::Whole }
    }

    /// Takes note of the next frame. `payload` is all of it if [`ReplyTracker::inspect`] said so, else at least its first byte.
    #[inline]
    pub fn advance(&mut self, header: FrameHeader, payload: &[u8]) -> Result<Step, ReplyError> {
        if self.continued {
            self.continued = header.continues();
            return Ok(Step { kind: FrameKind::Continuation, done: false });
        }
        let first = payload.first().copied();
        if self.state == State::Rows
            && let Some(byte) = first
            && byte != ERR_HEADER
            && !self.ends_rows(header, first)
        {
            self.rows += 1;
            self.continued = header.continues();
            return Ok(Step { kind: FrameKind::Row, done: false });
        }
        self.advance_meaning(header, payload)
    }

    /// Whether the answer is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Whether the server waits for the client's file (after [`FrameKind::LocalInfile`]).
    pub fn wants_file(&self) -> bool {
        self.state == State::FileWanted
    }

    /// The client's file, and the empty packet after it, went out: OK or ERR is due. No effect in any other state.
    pub fn local_infile_sent(&mut self) {
        if self.state == State::FileWanted {
            self.state = State::FileAnswer;
        }
    }

    /// The number of the current (or last) result of this answer, from 0.
    pub fn result_index(&self) -> u32 {
        self.result_index
    }

    /// Rows seen of the current (or last) result.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Status of the last OK or EOF. At the end of OUT parameters it holds PS_OUT_PARAMS and MORE_RESULTS even where the server
    /// set them only in the EOF after the column definitions: this is what to write when the framing is translated.
    pub fn status(&self) -> StatusFlags {
        self.status
    }

    fn deprecate_eof(&self) -> bool {
        self.caps.contains(Capabilities::DEPRECATE_EOF)
    }

    /// Whether a frame that comes among rows is their end. A row whose first value is longer than 16 MB starts with 0xFE too.
    #[inline]
    fn ends_rows(&self, header: FrameHeader, first: Option<u8>) -> bool {
        let limit = if self.deprecate_eof() { PAYLOAD_BYTES_MAX } else { EOF_BYTES_LIMIT };
        first == Some(EOF_HEADER) && header.payload_len < limit
    }

    /// Every frame but rows and continuations.
    fn advance_meaning(&mut self, header: FrameHeader, payload: &[u8]) -> Result<Step, ReplyError> {
        let first = payload.first().copied();
        if self.state == State::Done {
            return Err(ReplyError::AfterEnd);
        }
        if header.continues() {
            return Err(ReplyError::TooLong);
        }
        let shown = match self.inspect(header, first) {
            Inspect::Whole => payload.len() == header.payload_len,
            Inspect::Prefix => header.payload_len == 0 || first.is_some(),
        };
        if !shown {
            return Err(ReplyError::Incomplete);
        }
        if first == Some(ERR_HEADER) {
            if is_progress(payload) {
                return Ok(Step { kind: FrameKind::Progress, done: false });
            }
            self.state = State::Done;
            return Ok(Step { kind: FrameKind::Err, done: true });
        }
        let unexpected = ReplyError::Unexpected { first, payload_len: header.payload_len };
        let kind = match self.state {
            State::First => self.first(first, payload).ok_or(unexpected)??,
            State::Columns { left } => {
                self.need_definition(first, unexpected)?;
                self.state = if left > 1 { State::Columns { left: left - 1 } } else { self.after_definitions() };
                FrameKind::ColumnDef
            }
            State::MetadataEof => self.metadata_eof(payload)?,
            State::Rows => self.rows_end(first, payload).ok_or(unexpected)??,
            State::FileAnswer if first == Some(OK_HEADER) => self.ok(payload)?,
            State::PrepareFirst => self.prepare_first(payload)?,
            State::Params { .. }
            | State::ParamsEof { .. }
            | State::PrepareColumns { .. }
            | State::PrepareColumnsEof => self.prepare_rest(first, payload, unexpected)?,
            State::FieldDefs if first == Some(EOF_HEADER) => self.lone_end(payload)?,
            State::FieldDefs => {
                self.need_definition(first, unexpected)?;
                FrameKind::ColumnDef
            }
            State::Statistics => {
                self.state = State::Done;
                FrameKind::Statistics
            }
            State::SetOption if first == Some(EOF_HEADER) => self.lone_end(payload)?,
            State::Simple | State::SetOption if first == Some(OK_HEADER) => {
                self.status = OkPacket::decode(payload, self.caps)?.status;
                self.state = State::Done;
                FrameKind::Ok
            }
            State::FileAnswer | State::FileWanted | State::Simple | State::SetOption | State::Done => {
                return Err(unexpected);
            }
        };
        Ok(Step { kind, done: self.state == State::Done })
    }

    /// A definition starts with the length of the catalog's name; nothing else does where one is due.
    fn need_definition(&self, first: Option<u8>, unexpected: ReplyError) -> Result<(), ReplyError> {
        match first {
            None | Some(EOF_HEADER | LOCAL_INFILE_HEADER) => Err(unexpected),
            Some(_) => Ok(()),
        }
    }

    /// The first packet of a result; `None` if it cannot be one.
    fn first(&mut self, first: Option<u8>, payload: &[u8]) -> Option<Result<FrameKind, ReplyError>> {
        match first? {
            OK_HEADER => Some(self.ok(payload)),
            LOCAL_INFILE_HEADER => {
                self.state = State::FileWanted;
                Some(Ok(FrameKind::LocalInfile))
            }
            EOF_HEADER => None,
            _ => Some(self.column_count(payload)),
        }
    }

    fn column_count(&mut self, payload: &[u8]) -> Result<FrameKind, ReplyError> {
        let mut r = Reader::new(payload);
        let left = r.lenenc_int("number of columns")?;
        if left == 0 {
            return Err(DecodeError::Malformed("number of columns").into());
        }
        let optional = Capabilities::MARIADB_CACHE_METADATA | Capabilities::OPTIONAL_RESULTSET_METADATA;
        let left_out = self.caps.intersects(optional) && !r.is_empty() && r.u8("metadata_follows")? == 0;
        self.rows = 0;
        self.metadata_status = StatusFlags::empty();
        self.state = if left_out { self.after_definitions() } else { State::Columns { left } };
        Ok(FrameKind::ColumnCount)
    }

    fn after_definitions(&self) -> State {
        if self.deprecate_eof() { State::Rows } else { State::MetadataEof }
    }

    fn metadata_eof(&mut self, payload: &[u8]) -> Result<FrameKind, ReplyError> {
        self.metadata_status = EofPacket::decode(payload)?.status;
        self.status = self.metadata_status;
        if self.shape == ReplyShape::Execute && self.status.contains(StatusFlags::CURSOR_EXISTS) {
            self.end_result();
        } else {
            self.state = State::Rows;
        }
        Ok(FrameKind::MetadataEof)
    }

    /// The end of rows; `None` if the packet is neither that nor a row.
    fn rows_end(&mut self, first: Option<u8>, payload: &[u8]) -> Option<Result<FrameKind, ReplyError>> {
        if first != Some(EOF_HEADER) {
            return None;
        }
        let status = match self.end_status(payload) {
            Ok(status) => status,
            Err(error) => return Some(Err(error)),
        };
        let out_params = StatusFlags::PS_OUT_PARAMS | StatusFlags::MORE_RESULTS;
        self.status = status;
        if self.metadata_status.contains(out_params) {
            self.status |= out_params;
        }
        if self.shape == ReplyShape::Fetch {
            self.state = State::Done;
        } else {
            self.end_result();
        }
        Some(Ok(FrameKind::ResultEnd))
    }

    /// The status in an EOF or 0xFE-OK.
    fn end_status(&self, payload: &[u8]) -> Result<StatusFlags, ReplyError> {
        if self.deprecate_eof() && !EofPacket::is_old_end(payload) {
            Ok(OkPacket::decode(payload, self.caps)?.status)
        } else {
            Ok(EofPacket::decode(payload)?.status)
        }
    }

    /// An EOF or 0xFE-OK that ends the answer whatever its flags.
    fn lone_end(&mut self, payload: &[u8]) -> Result<FrameKind, ReplyError> {
        self.status = self.end_status(payload)?;
        self.state = State::Done;
        Ok(FrameKind::ResultEnd)
    }

    fn ok(&mut self, payload: &[u8]) -> Result<FrameKind, ReplyError> {
        self.status = OkPacket::decode(payload, self.caps)?.status;
        self.rows = 0;
        self.end_result();
        Ok(FrameKind::Ok)
    }

    /// After the last packet of a result: the next result, or the end of the answer.
    fn end_result(&mut self) {
        if self.status.contains(StatusFlags::MORE_RESULTS) {
            self.result_index = self.result_index.saturating_add(1);
            self.state = State::First;
        } else {
            self.state = State::Done;
        }
    }

    fn prepare_first(&mut self, payload: &[u8]) -> Result<FrameKind, ReplyError> {
        let ok = PrepareOk::decode(payload, self.caps)?;
        let columns = PrepareColumns { number: ok.num_columns, sent: ok.metadata_follows };
        self.state = match (ok.num_params, ok.metadata_follows) {
            (0, _) => self.prepare_columns(columns),
            (left, true) => State::Params { left, columns },
            (_, false) if self.deprecate_eof() => self.prepare_columns(columns),
            (_, false) => State::ParamsEof { columns },
        };
        Ok(FrameKind::PrepareOk)
    }

    /// The packets behind the first of an answer to PREPARE.
    fn prepare_rest(
        &mut self,
        first: Option<u8>,
        payload: &[u8],
        unexpected: ReplyError,
    ) -> Result<FrameKind, ReplyError> {
        match self.state {
            State::Params { left, columns } => {
                self.need_definition(first, unexpected)?;
                self.state = if left > 1 {
                    State::Params { left: left - 1, columns }
                } else if self.deprecate_eof() {
                    self.prepare_columns(columns)
                } else {
                    State::ParamsEof { columns }
                };
                Ok(FrameKind::ParamDef)
            }
            State::ParamsEof { columns } => {
                self.status = EofPacket::decode(payload)?.status;
                self.state = self.prepare_columns(columns);
                Ok(FrameKind::ParamEof)
            }
            State::PrepareColumns { left } => {
                self.need_definition(first, unexpected)?;
                self.state = if left > 1 {
                    State::PrepareColumns { left: left - 1 }
                } else if self.deprecate_eof() {
                    State::Done
                } else {
                    State::PrepareColumnsEof
                };
                Ok(FrameKind::ColumnDef)
            }
            State::PrepareColumnsEof => {
                self.status = EofPacket::decode(payload)?.status;
                self.state = State::Done;
                Ok(FrameKind::MetadataEof)
            }
            _ => Err(unexpected),
        }
    }

    /// What follows the parameters of an answer to PREPARE.
    fn prepare_columns(&self, columns: PrepareColumns) -> State {
        match columns {
            PrepareColumns { number: 0, .. } => State::Done,
            PrepareColumns { number, sent: true } => State::PrepareColumns { left: number },
            PrepareColumns { sent: false, .. } if self.deprecate_eof() => State::Done,
            PrepareColumns { sent: false, .. } => State::PrepareColumnsEof,
        }
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
