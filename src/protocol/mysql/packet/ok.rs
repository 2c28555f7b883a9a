//! The OK packet: the answer of a statement without rows, and (with `DEPRECATE_EOF`) the end of rows.
//!
//! Servers were observed (MariaDB 10.11, MySQL 9.7) to send `info` length-encoded whether or not `SESSION_TRACK` was agreed, and to
//! leave it out altogether when it is empty and no session state follows. Their documentation says 'rest of the packet' for the
//! case without `SESSION_TRACK`; clients of the C API read a length there, so belay does what servers do.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_int, put_lenenc_str};

/// Header of an OK packet that answers a statement.
pub const OK_HEADER: u8 = 0x00;
/// Header of an OK packet that ends rows (only with `DEPRECATE_EOF`).
pub const END_OF_ROWS_HEADER: u8 = 0xFE;

/// What an OK packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct OkPacket<'a> {
    /// Rows changed (or found, with `FOUND_ROWS`).
    pub affected_rows: u64,
    /// The first generated AUTO_INCREMENT value, 0 if none.
    pub last_insert_id: u64,
    /// Status after the statement. `SESSION_STATE_CHANGED` is set only if `session_state` was sent.
    pub status: StatusFlags,
    /// Number of warnings.
    pub warnings: u16,
    /// A sentence for people, for example `Rows matched: 1 …`. May be empty.
    pub info: &'a [u8],
    /// The raw session state changes; read them with [`super::session_state::SessionChanges`]. May be empty.
    pub session_state: &'a [u8],
}

impl<'a> OkPacket<'a> {
    /// Reads an OK packet that a server sent under the agreed `caps`. The header must be 0x00 or 0xFE.
    pub fn decode(payload: &'a [u8], caps: Capabilities) -> Result<OkPacket<'a>, DecodeError> {
        let mut r = Reader::new(payload);
        if !matches!(r.u8("OK header")?, OK_HEADER | END_OF_ROWS_HEADER) {
            return Err(DecodeError::Malformed("OK header"));
        }
        let affected_rows = r.lenenc_int("affected_rows")?;
        let last_insert_id = r.lenenc_int("last_insert_id")?;
        let status = StatusFlags::from_bits_retain(r.u16("status")?);
        let warnings = r.u16("warnings")?;
        let mut ok = OkPacket { affected_rows, last_insert_id, status, warnings, info: &[], session_state: &[] };
        if r.is_empty() {
            return Ok(ok);
        }
        if caps.contains(Capabilities::SESSION_TRACK) {
            ok.info = r.lenenc_str("info")?;
            if status.contains(StatusFlags::SESSION_STATE_CHANGED) {
                ok.session_state = r.lenenc_str("session state")?;
            }
        } else {
            // A server that follows the documentation sends the bare text: take it as it stands.
            let rest = r.rest();
            ok.info = match r.lenenc_str("info") {
                Ok(info) if r.is_empty() => info,
                _ => rest,
            };
        }
        Ok(ok)
    }

    /// Appends this packet for a peer with the agreed `caps`, with `header` 0x00 or 0xFE. Session state goes only to a peer with
    /// `SESSION_TRACK`; without it (or without any) the flag `SESSION_STATE_CHANGED` is cleared.
    pub fn encode(&self, out: &mut BytesMut, caps: Capabilities, header: u8) {
        let tracked = caps.contains(Capabilities::SESSION_TRACK) && !self.session_state.is_empty();
        let mut status = self.status;
        status.set(StatusFlags::SESSION_STATE_CHANGED, tracked);
        out.put_u8(header);
        put_lenenc_int(out, self.affected_rows);
        put_lenenc_int(out, self.last_insert_id);
        out.put_u16_le(status.bits());
        out.put_u16_le(self.warnings);
        if tracked || !self.info.is_empty() {
            put_lenenc_str(out, self.info);
        }
        if tracked {
            put_lenenc_str(out, self.session_state);
        }
    }
}

/// Reads only the status flags of an OK packet. Cheap: nothing after them is looked at.
pub fn ok_status(payload: &[u8]) -> Result<StatusFlags, DecodeError> {
    let mut r = Reader::new(payload);
    r.u8("OK header")?;
    r.lenenc_int("affected_rows")?;
    r.lenenc_int("last_insert_id")?;
    Ok(StatusFlags::from_bits_retain(r.u16("status")?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TRACK: Capabilities = Capabilities::SESSION_TRACK;
    /// `USE t` on MariaDB 10.11 with `SESSION_TRACK`.
    const USE_T: &[u8] = b"\x00\x00\x00\x02\x40\x00\x00\x00\x04\x01\x02\x01t";
    /// `REPLACE …` on MariaDB 10.11.
    const REPLACE: &[u8] = b"\x00\x02\x00\x02\x00\x00\x00\x26Records: 2  Duplicates: 0  Warnings: 0";

    #[test]
    fn a_schema_change_of_a_real_server_is_read_and_written_back() {
        let ok = OkPacket::decode(USE_T, TRACK).unwrap();
        assert_eq!(ok.session_state, b"\x01\x02\x01t");
        let mut out = BytesMut::new();
        ok.encode(&mut out, TRACK, OK_HEADER);
        assert_eq!(&out[..], USE_T);
    }

    #[test]
    fn a_client_without_session_track_never_sees_state() {
        let ok = OkPacket::decode(USE_T, TRACK).unwrap();
        let mut out = BytesMut::new();
        ok.encode(&mut out, Capabilities::empty(), OK_HEADER);
        assert_eq!(&out[..], b"\x00\x00\x00\x02\x00\x00\x00");
    }

    #[test]
    fn info_is_read_with_and_without_session_track() {
        for caps in [TRACK, Capabilities::empty()] {
            let ok = OkPacket::decode(REPLACE, caps).unwrap();
            assert_eq!((ok.affected_rows, ok.info.len()), (2, 0x26));
            let mut out = BytesMut::new();
            ok.encode(&mut out, caps, OK_HEADER);
            assert_eq!(&out[..], REPLACE);
        }
        let bare = OkPacket::decode(b"\x00\x00\x00\x02\x00\x00\x00Rows", Capabilities::empty()).unwrap();
        assert_eq!(bare.info, b"Rows");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), track: bool) {
            let caps = if track { TRACK } else { Capabilities::empty() };
            let _ = (OkPacket::decode(&bytes, caps), ok_status(&bytes));
        }

        #[test]
        fn an_ok_survives_a_round_trip(rows: u64, id: u64, status: u16, warnings: u16, info: Vec<u8>, state: Vec<u8>) {
            let mut status = StatusFlags::from_bits_retain(status);
            status.set(StatusFlags::SESSION_STATE_CHANGED, !state.is_empty());
            let ok = OkPacket { affected_rows: rows, last_insert_id: id, status, warnings, info: &info, session_state: &state };
            let mut out = BytesMut::new();
            ok.encode(&mut out, TRACK, END_OF_ROWS_HEADER);
            prop_assert_eq!(OkPacket::decode(&out, TRACK), Ok(ok));
        }
    }
}
