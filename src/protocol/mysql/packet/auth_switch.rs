//! The server asks the client to log in by another scheme.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::mysql::codec::{DecodeError, Reader, put_null_str};

/// First byte of the packet.
pub const AUTH_SWITCH_HEADER: u8 = 0xFE;

/// A request to change the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSwitch {
    /// The scheme's name.
    pub plugin: String,
    /// What the scheme needs: mostly a challenge of 20 bytes (the NUL byte behind it is taken off).
    pub data: Bytes,
}

impl AuthSwitch {
    /// Reads the packet. The one-byte form (log in as before 4.1) is malformed here: belay never answers it.
    pub fn decode(payload: &[u8]) -> Result<AuthSwitch, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("header")? != AUTH_SWITCH_HEADER || r.is_empty() {
            return Err(DecodeError::Malformed("authentication switch"));
        }
        let plugin = String::from_utf8_lossy(r.null_str("plugin")?).into_owned();
        let data = r.take_rest();
        let data = Bytes::copy_from_slice(data.strip_suffix(&[0]).unwrap_or(data));
        Ok(AuthSwitch { plugin, data })
    }

    /// The packet.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(64);
        out.put_u8(AUTH_SWITCH_HEADER);
        put_null_str(&mut out, self.plugin.as_bytes());
        put_null_str(&mut out, &self.data);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_switch_survives_a_round_trip_and_no_cut_panics() {
        let s = AuthSwitch { plugin: "caching_sha2_password".into(), data: Bytes::from_static(&[7; 20]) };
        let bytes = s.encode();
        assert_eq!(AuthSwitch::decode(&bytes).unwrap(), s);
        (0..bytes.len()).for_each(|n| drop(AuthSwitch::decode(&bytes[..n])));
        assert!(AuthSwitch::decode(&[0xFE]).is_err());
    }
}
