//! The changes of session state inside an OK packet: an iterator over them, and the writer for a client.
//!
//! A block is a kind byte and a length-encoded body. MariaDB and MySQL put one variable into one block; OceanBase puts many pairs
//! into one, and after a pair whose key is `__NULL` it lists user variables as SQL literals.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_int, put_lenenc_str};

const SYSTEM_VARIABLES: u8 = 0;
const SCHEMA: u8 = 1;
const STATE_CHANGE: u8 = 2;
const GTIDS: u8 = 3;
const TRANSACTION_CHARACTERISTICS: u8 = 4;
const TRANSACTION_STATE: u8 = 5;
/// OceanBase's key between system variables and user variables.
const USER_VARIABLES_FOLLOW: &[u8] = b"__NULL";

/// One change that a server reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionChange<'a> {
    /// A system variable has this value now.
    SystemVariable {
        /// Its name.
        name: &'a [u8],
        /// Its value as text.
        value: &'a [u8],
    },
    /// A user variable (OceanBase in proxy mode only).
    UserVariable {
        /// Its name, without `@`.
        name: &'a [u8],
        /// Its value as an SQL literal.
        literal: &'a [u8],
    },
    /// The current schema; empty when there is none any more.
    Schema(&'a [u8]),
    /// Whether state changed that the server reports in no other way.
    StateChanged(bool),
    /// GTIDs of what was committed: a byte for the encoding, then a length-encoded string. Raw.
    Gtid(&'a [u8]),
    /// The SQL that restores the characteristics of the transaction; empty for the default.
    TransactionCharacteristics(&'a [u8]),
    /// Eight characters, for example `T_R_WsS_`; see the servers' documentation of `session_track_transaction_info`.
    TransactionState(&'a [u8]),
    /// A kind that belay does not know.
    Unknown {
        /// The kind byte.
        kind: u8,
        /// The body.
        data: &'a [u8],
    },
}

/// The changes in a blob of session state. After an error the iterator ends.
#[derive(Clone, Copy, Debug)]
pub struct SessionChanges<'a> {
    blob: Reader<'a>,
    /// What is left of a block of variables.
    pairs: Reader<'a>,
    user_variables: bool,
}

impl<'a> SessionChanges<'a> {
    /// The changes in `blob`, which is [`super::ok::OkPacket::session_state`].
    pub fn new(blob: &'a [u8]) -> SessionChanges<'a> {
        SessionChanges { blob: Reader::new(blob), pairs: Reader::new(&[]), user_variables: false }
    }

    fn read(&mut self) -> Result<Option<SessionChange<'a>>, DecodeError> {
        loop {
            while !self.pairs.is_empty() {
                let name = self.pairs.lenenc_str("variable name")?;
                let value = self.pairs.lenenc_str("variable value")?;
                if self.user_variables {
                    return Ok(Some(SessionChange::UserVariable { name, literal: value }));
                }
                if name != USER_VARIABLES_FOLLOW {
                    return Ok(Some(SessionChange::SystemVariable { name, value }));
                }
                self.user_variables = true;
            }
            if self.blob.is_empty() {
                return Ok(None);
            }
            let kind = self.blob.u8("session state kind")?;
            let data = self.blob.lenenc_str("session state")?;
            let mut body = Reader::new(data);
            return Ok(Some(match kind {
                SYSTEM_VARIABLES => {
                    self.pairs = body;
                    continue;
                }
                SCHEMA => SessionChange::Schema(body.lenenc_str("schema")?),
                // OceanBase puts a length before the digit, as it should be and as nobody else does.
                STATE_CHANGE => SessionChange::StateChanged(data.last() == Some(&b'1')),
                GTIDS => SessionChange::Gtid(data),
                TRANSACTION_CHARACTERISTICS => {
                    SessionChange::TransactionCharacteristics(body.lenenc_str("transaction characteristics")?)
                }
                TRANSACTION_STATE => SessionChange::TransactionState(body.lenenc_str("transaction state")?),
                _ => SessionChange::Unknown { kind, data },
            }));
        }
    }
}

impl<'a> Iterator for SessionChanges<'a> {
    type Item = Result<SessionChange<'a>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        let change = self.read();
        if change.is_err() {
            self.blob.take_rest();
            self.pairs.take_rest();
        }
        change.transpose()
    }
}

/// Appends one change as a block of its own, as MariaDB and MySQL write it. User variables are left out: no client knows them.
pub fn put_session_change(out: &mut BytesMut, change: &SessionChange<'_>) {
    match *change {
        SessionChange::SystemVariable { name, value } => put_block(out, SYSTEM_VARIABLES, &[name, value]),
        SessionChange::UserVariable { .. } => {}
        SessionChange::Schema(schema) => put_block(out, SCHEMA, &[schema]),
        SessionChange::StateChanged(changed) => out.put_slice(&[STATE_CHANGE, 1, if changed { b'1' } else { b'0' }]),
        SessionChange::Gtid(data) => put_raw(out, GTIDS, data),
        SessionChange::TransactionCharacteristics(sql) => put_block(out, TRANSACTION_CHARACTERISTICS, &[sql]),
        SessionChange::TransactionState(state) => put_block(out, TRANSACTION_STATE, &[state]),
        SessionChange::Unknown { kind, data } => put_raw(out, kind, data),
    }
}

fn put_raw(out: &mut BytesMut, kind: u8, data: &[u8]) {
    out.put_u8(kind);
    put_lenenc_str(out, data);
}

/// A block whose body is a list of length-encoded strings.
fn put_block(out: &mut BytesMut, kind: u8, strings: &[&[u8]]) {
    let body_bytes: usize = strings.iter().map(|s| lenenc_str_bytes(s)).sum();
    out.put_u8(kind);
    put_lenenc_int(out, body_bytes as u64);
    for s in strings {
        put_lenenc_str(out, s);
    }
}

fn lenenc_str_bytes(s: &[u8]) -> usize {
    let prefix = match s.len() {
        0..=0xFA => 1,
        0xFB..=0xFFFF => 3,
        0x1_0000..=0xFF_FFFF => 4,
        _ => 9,
    };
    prefix + s.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(blob: &[u8]) -> Vec<SessionChange<'_>> {
        SessionChanges::new(blob).map(Result::unwrap).collect()
    }

    #[test]
    fn what_mariadb_sends_is_read_and_written_back() {
        let blob = b"\x00\x15\x08sql_mode\x0bANSI_QUOTES\x00\x11\x09time_zone\x06+01:00\x02\x011";
        let changes = all(blob);
        assert_eq!(
            changes,
            [
                SessionChange::SystemVariable { name: b"sql_mode", value: b"ANSI_QUOTES" },
                SessionChange::SystemVariable { name: b"time_zone", value: b"+01:00" },
                SessionChange::StateChanged(true),
            ]
        );
        let mut out = BytesMut::new();
        changes.iter().for_each(|c| put_session_change(&mut out, c));
        assert_eq!(&out[..], blob);
    }

    #[test]
    fn a_read_only_transaction_is_reported_with_its_sql() {
        let blob = b"\x05\x09\x08T_______\x04\x1d\x1cSTART TRANSACTION READ ONLY;";
        assert_eq!(
            all(blob),
            [
                SessionChange::TransactionState(b"T_______"),
                SessionChange::TransactionCharacteristics(b"START TRANSACTION READ ONLY;"),
            ]
        );
    }

    #[test]
    fn one_block_may_hold_many_pairs_and_user_variables() {
        let blob = b"\x00\x16\x01a\x011\x01b\x012\x06__NULL\x00\x01u\x03'x'\x01\x02\x01t";
        assert_eq!(
            all(blob),
            [
                SessionChange::SystemVariable { name: b"a", value: b"1" },
                SessionChange::SystemVariable { name: b"b", value: b"2" },
                SessionChange::UserVariable { name: b"u", literal: b"'x'" },
                SessionChange::Schema(b"t"),
            ]
        );
    }

    #[test]
    fn what_oceanbase_sends_is_read() {
        let blob = b"\x00\x11\x09time_zone\x06+03:00\x01\x05\x04test\x02\x02\x011";
        assert_eq!(
            all(blob),
            [
                SessionChange::SystemVariable { name: b"time_zone", value: b"+03:00" },
                SessionChange::Schema(b"test"),
                SessionChange::StateChanged(true),
            ]
        );
    }

    proptest! {
        #[test]
        fn any_bytes_end(blob in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(SessionChanges::new(&blob).count() <= blob.len());
        }

        #[test]
        fn variables_survive_a_round_trip(name: Vec<u8>, value in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assume!(name != USER_VARIABLES_FOLLOW);
            let change = SessionChange::SystemVariable { name: &name, value: &value };
            let mut out = BytesMut::new();
            put_session_change(&mut out, &change);
            prop_assert_eq!(all(&out), [change]);
        }
    }
}
