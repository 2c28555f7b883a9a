//! What an answer said, gathered while it passes: counts, flags, and the changes of session state to be applied once it is complete.

use bytes::{Bytes, BytesMut};

use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::DecodeError;
use crate::protocol::mysql::packet::err::ErrPacket;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::protocol::mysql::packet::session_state::{SessionChange, SessionChanges, put_session_change};
use crate::session::effects::Reported;
use crate::session::next_transaction::Characteristics;

/// A change to apply to the client's and the server session's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A variable has this value now.
    Variable(Bytes, Bytes),
    /// This is the default schema now.
    Schema(Bytes),
}

/// Everything worth knowing of an answer.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Rows of all results.
    pub rows: u64,
    rows_before: u64,
    /// Whether any result had columns.
    pub had_columns: bool,
    /// Status flags of the last OK or EOF; `None` if there was none (an error, a statistics string).
    pub status: Option<StatusFlags>,
    /// Warnings of the last result.
    pub warnings: u16,
    /// Affected rows of the last OK, -1 after a result with columns or an error.
    pub row_count: i64,
    /// The last OK's insert id, if any was not 0.
    pub insert_id: u64,
    /// The error that ended it: its number.
    pub error: Option<u16>,
    /// Server's statement id, parameters, columns of a PREPARE.
    pub prepared: Option<(u32, u16, u16)>,
    /// Changes in their order.
    pub changes: Vec<Change>,
    /// The GTID of what was committed with it, where the server reports it.
    pub gtid: Option<Bytes>,
    /// An OK came: it brings what MySQL and OceanBase have to report.
    pub spoke: bool,
    /// An OK came with changes: it brings what MariaDB has to report.
    pub spoke_of_changes: bool,
    /// A character set of the connection was reported without its collation, which no later packet brought.
    pub collation_open: bool,
    flags: Reported,
}

/// Variables that a server reports to a client that never asked for more.
const REPORTED_BY_DEFAULT: [&[u8]; 5] =
    [b"autocommit", b"character_set_client", b"character_set_connection", b"character_set_results", b"time_zone"];

impl Report {
    /// A result with columns begins.
    pub fn result_begins(&mut self) {
        self.had_columns = true;
        self.rows_before = self.rows;
    }

    /// Rows of the result that is passing.
    pub fn rows_of_result(&self) -> u64 {
        self.rows - self.rows_before
    }

    /// Status flags for an EOF between columns and rows: of the session, nothing of a single result. `session` is what they were before.
    pub fn metadata_status(&self, session: StatusFlags) -> StatusFlags {
        const OF_SESSION: StatusFlags = StatusFlags::IN_TRANS
            .union(StatusFlags::IN_TRANS_READONLY)
            .union(StatusFlags::AUTOCOMMIT)
            .union(StatusFlags::NO_BACKSLASH_ESCAPES)
            .union(StatusFlags::ANSI_QUOTES);
        self.status.unwrap_or(session).intersection(OF_SESSION)
    }

    /// An ERR packet ends the answer.
    pub fn error(&mut self, error: &ErrPacket<'_>) {
        self.error = Some(error.code);
        self.row_count = -1;
    }

    /// An OK packet.
    pub fn ok(&mut self, ok: &OkPacket<'_>) -> Result<(), DecodeError> {
        self.row_count = i64::try_from(ok.affected_rows).unwrap_or(i64::MAX);
        if ok.last_insert_id != 0 {
            self.insert_id = ok.last_insert_id;
        }
        self.status = Some(ok.status);
        self.warnings = ok.warnings;
        self.state(ok)
    }

    /// An OK packet that ends rows.
    pub fn ok_end(&mut self, ok: &OkPacket<'_>) -> Result<(), DecodeError> {
        self.result_end(ok.status, ok.warnings);
        self.state(ok)
    }

    /// The end of rows.
    pub fn result_end(&mut self, status: StatusFlags, warnings: u16) {
        self.row_count = -1;
        self.status = Some(status);
        self.warnings = warnings;
    }

    fn state(&mut self, ok: &OkPacket<'_>) -> Result<(), DecodeError> {
        self.spoke = true;
        if ok.session_state.is_empty() {
            return Ok(());
        }
        self.spoke_of_changes = true;
        let before = self.changes.len();
        self.changes_of(ok)?;
        self.collation_last(before);
        Ok(())
    }

    /// The changes of one packet are one: servers name them in any order, and a character set puts the collation back.
    fn collation_last(&mut self, from: usize) {
        let packet = self.changes.get_mut(from..).unwrap_or_default();
        let named =
            |change: &Change, wanted: &[u8]| matches!(change, Change::Variable(name, _) if name.as_ref() == wanted);
        if let Some(at) = packet.iter().position(|change| named(change, b"collation_connection")) {
            packet.get_mut(at..).unwrap_or_default().rotate_left(1);
            self.collation_open = false;
        } else if packet.iter().any(|change| named(change, b"character_set_connection")) {
            self.collation_open = true;
        }
    }

    fn changes_of(&mut self, ok: &OkPacket<'_>) -> Result<(), DecodeError> {
        for change in SessionChanges::new(ok.session_state) {
            match change? {
                SessionChange::SystemVariable { name, value } => {
                    // MySQL adds a statement's number to every OK under '*': noise, not state.
                    if name == b"last_gtid" {
                        self.gtid = (!value.is_empty()).then(|| Bytes::copy_from_slice(value));
                    } else if name != b"statement_id" {
                        self.flags.values = true;
                        self.changes
                            .push(Change::Variable(Bytes::copy_from_slice(name), Bytes::copy_from_slice(value)));
                    }
                }
                SessionChange::Schema(name) => {
                    self.flags.values = true;
                    self.changes.push(Change::Schema(Bytes::copy_from_slice(name)));
                }
                SessionChange::StateChanged(changed) => self.flags.state_changed |= changed,
                SessionChange::TransactionCharacteristics(sql) => {
                    self.flags.characteristics = Some(Characteristics::read(sql));
                }
                SessionChange::TransactionState(state) => self.flags.tables_locked = Some(state.get(7) == Some(&b'L')),
                SessionChange::Gtid(gtid) => self.gtid = Some(Bytes::copy_from_slice(gtid)),
                SessionChange::UserVariable { .. } => {}
                SessionChange::Unknown { .. } => self.flags.state_changed = true,
            }
        }
        Ok(())
    }

    /// Whether the answer brought a value of the variable.
    pub fn brings(&self, variable: &str) -> bool {
        let named = |change: &Change| matches!(change, Change::Variable(name, _) if name.eq_ignore_ascii_case(variable.as_bytes()));
        self.changes.iter().any(named)
    }

    /// The flags that pins are decided by.
    pub fn reported(&self) -> Reported {
        Reported {
            warnings: self.warnings,
            error: self.error.is_some(),
            in_transaction: self.status.is_some_and(|s| s.contains(StatusFlags::IN_TRANS)),
            ..self.flags
        }
    }
}

/// The session state of an OK packet as a client sees it that tracks what servers track by default; empty for a client that tracks nothing.
pub fn visible_state(ok: &OkPacket<'_>, client: Capabilities) -> Bytes {
    let mut out = BytesMut::new();
    if !client.contains(Capabilities::SESSION_TRACK) {
        return out.freeze();
    }
    for change in SessionChanges::new(ok.session_state) {
        match change {
            Ok(change @ SessionChange::Schema(_)) => put_session_change(&mut out, &change),
            Ok(change @ SessionChange::SystemVariable { name, .. }) if REPORTED_BY_DEFAULT.contains(&name) => {
                put_session_change(&mut out, &change);
            }
            _ => {}
        }
    }
    out.freeze()
}

/// What an error reply of belay's own statements says.
pub fn error_reply(payload: &[u8]) -> ErrorReply {
    match ErrPacket::decode(payload) {
        Ok(err) => err.to_reply(),
        Err(_) => ErrorReply::new(1835, b"HY000", "the node sent a malformed error"),
    }
}
