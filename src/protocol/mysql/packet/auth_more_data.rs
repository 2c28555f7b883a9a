//! The server sends more of a scheme's own data.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::mysql::codec::{DecodeError, Reader};

/// First byte of the packet.
pub const AUTH_MORE_DATA_HEADER: u8 = 0x01;

/// The scheme's data in the packet.
pub fn decode(payload: &[u8]) -> Result<&[u8], DecodeError> {
    let mut r = Reader::new(payload);
    match r.u8("header")? {
        AUTH_MORE_DATA_HEADER => Ok(r.take_rest()),
        _ => Err(DecodeError::Malformed("authentication data")),
    }
}

/// The packet that carries `data`.
pub fn encode(data: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(1 + data.len());
    out.put_u8(AUTH_MORE_DATA_HEADER);
    out.put_slice(data);
    out.freeze()
}

#[cfg(test)]
mod tests {
    #[test]
    fn data_survives_a_round_trip() {
        assert_eq!(super::decode(&super::encode(b"x")), Ok(&b"x"[..]));
        assert!(super::decode(b"").is_err());
        assert!(super::decode(b"\x02x").is_err());
    }
}
