//! The EOF packet: the end of column definitions or of rows where `DEPRECATE_EOF` was not agreed.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::capability::StatusFlags;
use crate::protocol::mysql::codec::{DecodeError, Reader};

/// First byte of an EOF packet.
pub const EOF_HEADER: u8 = 0xFE;
/// An EOF packet is shorter than this; a longer payload that starts with 0xFE is a row.
pub const EOF_BYTES_LIMIT: usize = 9;
/// An EOF packet of this protocol. The OK in its place (with `DEPRECATE_EOF`) is two bytes longer at least.
const EOF_BYTES: usize = 5;

/// What an EOF packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EofPacket {
    /// Number of warnings.
    pub warnings: u16,
    /// Status; `SESSION_STATE_CHANGED` may be set although no state can follow.
    pub status: StatusFlags,
}

impl EofPacket {
    /// Whether a payload that ends rows is an EOF packet even where `DEPRECATE_EOF` was agreed: MySQL 9.7 ends a result so that breaks off in a routine
    /// whose handler catches the error.
    pub fn is_old_end(payload: &[u8]) -> bool {
        payload.len() == EOF_BYTES && payload.first() == Some(&EOF_HEADER)
    }

    /// Reads an EOF packet.
    pub fn decode(payload: &[u8]) -> Result<EofPacket, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("EOF header")? != EOF_HEADER || payload.len() >= EOF_BYTES_LIMIT {
            return Err(DecodeError::Malformed("EOF header"));
        }
        Ok(EofPacket { warnings: r.u16("warnings")?, status: StatusFlags::from_bits_retain(r.u16("status")?) })
    }

    /// Appends this packet (five bytes).
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(EOF_HEADER);
        out.put_u16_le(self.warnings);
        out.put_u16_le(self.status.bits());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_eof_of_a_real_server_is_read_and_written_back() {
        let bytes = b"\xfe\x01\x00\x0a\x10";
        let eof = EofPacket::decode(bytes).unwrap();
        assert_eq!(eof.warnings, 1);
        assert_eq!(eof.status, StatusFlags::AUTOCOMMIT | StatusFlags::MORE_RESULTS | StatusFlags::PS_OUT_PARAMS);
        let mut out = BytesMut::new();
        eof.encode(&mut out);
        assert_eq!(&out[..], bytes);
    }

    #[test]
    fn an_old_end_of_rows_is_told_from_the_ok_in_its_place() {
        assert!(EofPacket::is_old_end(b"\xfe\0\0\x2a\0"));
        assert!(!EofPacket::is_old_end(b"\xfe\0\0\x2a\0\0\0"));
        assert!(!EofPacket::is_old_end(b"\0\0\0\x2a\0"));
    }

    #[test]
    fn a_long_or_short_payload_is_no_eof() {
        assert!(EofPacket::decode(b"\xfe\x00\x00").is_err());
        assert!(EofPacket::decode(b"\xfe12345678").is_err());
        assert!(EofPacket::decode(b"").is_err());
    }
}
