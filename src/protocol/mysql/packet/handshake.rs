//! The server's greeting (handshake v10).

use bytes::{BufMut, Bytes, BytesMut};

use crate::auth::Scramble;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::{DecodeError, Reader, put_null_str};

/// The first packet of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The version text, as `SELECT VERSION()` shows it (MariaDB may prefix `5.5.5-`).
    pub server_version: String,
    /// The connection id.
    pub thread_id: u32,
    /// The challenge.
    pub scramble: Scramble,
    /// What the server offers, with MariaDB's extended flags where it sends them.
    pub capabilities: Capabilities,
    /// Low byte of the server's default collation id.
    pub collation: u8,
    /// Status flags.
    pub status: StatusFlags,
    /// The scheme the challenge is meant for; empty if the server names none.
    pub auth_plugin: String,
}

impl Handshake {
    /// Reads a greeting. Fails for protocols other than 10 and challenges of other lengths than 20.
    pub fn decode(payload: &[u8]) -> Result<Handshake, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("protocol version")? != 10 {
            return Err(DecodeError::Malformed("protocol version"));
        }
        let server_version = String::from_utf8_lossy(r.null_str("server version")?).into_owned();
        let thread_id = r.u32("thread id")?;
        let mut scramble = [0; 20];
        let (first, second) = scramble.split_at_mut(8);
        first.copy_from_slice(r.bytes(8, "scramble")?);
        r.u8("filler")?;
        let low = u64::from(r.u16("capabilities")?);
        let collation = r.u8("collation")?;
        let status = StatusFlags::from_bits_retain(r.u16("status")?);
        let high = u64::from(r.u16("capabilities")?);
        let _auth_len = r.u8("challenge length")?;
        r.bytes(6, "reserved")?;
        let extended = u64::from(r.u32("reserved")?);
        let mut bits = low | high << 16;
        if bits & Capabilities::LONG_PASSWORD.bits() == 0 {
            bits |= extended << 32;
        }
        let capabilities = Capabilities::from_bits_retain(bits);
        second.copy_from_slice(r.bytes(12, "scramble")?);
        r.u8("scramble end").ok();
        let rest = r.take_rest();
        let name = rest.split(|b| *b == 0).next().unwrap_or(rest);
        let auth_plugin = String::from_utf8_lossy(name).into_owned();
        Ok(Handshake { server_version, thread_id, scramble, capabilities, collation, status, auth_plugin })
    }

    /// The packet. Extended flags are sent only where LONG_PASSWORD is cleared, as MariaDB does.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(96 + self.server_version.len());
        out.put_u8(10);
        put_null_str(&mut out, self.server_version.as_bytes());
        out.put_u32_le(self.thread_id);
        let (first, second) = self.scramble.split_at(8);
        out.put_slice(first);
        out.put_u8(0);
        let bits = self.capabilities.bits();
        out.put_u16_le(bits as u16);
        out.put_u8(self.collation);
        out.put_u16_le(self.status.bits());
        out.put_u16_le((bits >> 16) as u16);
        out.put_u8(21);
        out.put_bytes(0, 6);
        let extended = if self.capabilities.contains(Capabilities::LONG_PASSWORD) { 0 } else { (bits >> 32) as u32 };
        out.put_u32_le(extended);
        out.put_slice(second);
        out.put_u8(0);
        put_null_str(&mut out, self.auth_plugin.as_bytes());
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_greeting_survives_a_round_trip_and_no_cut_panics() {
        for low in [Capabilities::empty(), Capabilities::LONG_PASSWORD] {
            let mut h = Handshake {
                server_version: "10.11.6-MariaDB".into(),
                thread_id: 7,
                scramble: [5; 20],
                capabilities: low | Capabilities::PLUGIN_AUTH | Capabilities::PROTOCOL_41,
                collation: 45,
                status: StatusFlags::AUTOCOMMIT,
                auth_plugin: "mysql_native_password".into(),
            };
            if low.is_empty() {
                h.capabilities |= Capabilities::MARIADB_STMT_BULK_OPERATIONS;
            }
            let bytes = h.encode();
            assert_eq!(Handshake::decode(&bytes).unwrap(), h);
            (0..bytes.len()).for_each(|n| drop(Handshake::decode(&bytes[..n])));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in proptest::collection::vec(any::<u8>(), 1..128)) {
            b[0] = 10;
            let _ = Handshake::decode(&b);
        }
    }
}
