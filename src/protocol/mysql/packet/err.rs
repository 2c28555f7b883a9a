//! The ERR packet, and MariaDB's progress report, which looks like one.

use bytes::{BufMut, BytesMut};

use crate::protocol::ErrorReply;
use crate::protocol::mysql::codec::{DecodeError, Reader};

/// First byte of an ERR packet.
pub const ERR_HEADER: u8 = 0xFF;
/// The 'error number' of MariaDB's progress reports; they are no errors and more of the answer follows.
pub const PROGRESS_CODE: u16 = 0xFFFF;

/// What an ERR packet says, as slices of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrPacket<'a> {
    /// The server's error number.
    pub code: u16,
    /// SQLSTATE; absent in errors before the login is known to be of protocol 4.1 (for example 1040, 1129).
    pub sqlstate: Option<[u8; 5]>,
    /// The message in the client's `character_set_results`.
    pub message: &'a [u8],
}

impl<'a> ErrPacket<'a> {
    /// Reads an ERR packet. A progress report is malformed here: test with [`is_progress`] first.
    pub fn decode(payload: &'a [u8]) -> Result<ErrPacket<'a>, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("ERR header")? != ERR_HEADER {
            return Err(DecodeError::Malformed("ERR header"));
        }
        let code = r.u16("error number")?;
        if code == PROGRESS_CODE {
            return Err(DecodeError::Malformed("error number"));
        }
        match r.rest() {
            [b'#', a, b, c, d, e, message @ ..] => {
                Ok(ErrPacket { code, sqlstate: Some([*a, *b, *c, *d, *e]), message })
            }
            message => Ok(ErrPacket { code, sqlstate: None, message }),
        }
    }

    /// The neutral form. A missing SQLSTATE becomes `HY000`; a message in another character set is read lossily.
    pub fn to_reply(&self) -> ErrorReply {
        ErrorReply {
            code: self.code,
            sqlstate: self.sqlstate.unwrap_or(*b"HY000"),
            message: String::from_utf8_lossy(self.message).into_owned(),
        }
    }
}

/// Appends an ERR packet. `with_sqlstate` is false only before the client has said that it speaks protocol 4.1.
pub fn encode_err(out: &mut BytesMut, reply: &ErrorReply, with_sqlstate: bool) {
    out.put_u8(ERR_HEADER);
    out.put_u16_le(reply.code);
    if with_sqlstate {
        out.put_u8(b'#');
        out.put_slice(&reply.sqlstate);
    }
    out.put_slice(reply.message.as_bytes());
}

/// Whether a payload that starts with 0xFF is MariaDB's progress report rather than an error.
pub fn is_progress(payload: &[u8]) -> bool {
    matches!(payload, [ERR_HEADER, 0xFF, 0xFF, ..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_of_a_real_server_is_read_and_written_back() {
        let bytes = b"\xff\x1e\x04#42S22Unknown column 'nope' in 'SELECT'";
        let err = ErrPacket::decode(bytes).unwrap();
        assert_eq!((err.code, err.sqlstate), (1054, Some(*b"42S22")));
        let mut out = BytesMut::new();
        encode_err(&mut out, &err.to_reply(), true);
        assert_eq!(&out[..], &bytes[..]);
    }

    #[test]
    fn an_error_before_login_has_no_sqlstate() {
        let err = ErrPacket::decode(b"\xff\x10\x04Too many connections").unwrap();
        assert_eq!((err.code, err.sqlstate, err.message), (1040, None, &b"Too many connections"[..]));
        assert_eq!(&err.to_reply().sqlstate, b"HY000");
    }

    #[test]
    fn progress_is_no_error() {
        let progress = b"\xff\xff\xff\x01\x01\x02\x10\x27\x00\x05stage";
        assert!(is_progress(progress));
        assert!(ErrPacket::decode(progress).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = (ErrPacket::decode(&bytes), is_progress(&bytes));
        }
    }
}
