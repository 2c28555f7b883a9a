//! The short login packet that asks for TLS.

use bytes::{BufMut, Bytes, BytesMut};

use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::{DecodeError, Reader};

/// Bytes of the packet: the fixed head of a login packet and nothing more.
pub const SSL_REQUEST_BYTES: usize = 32;

/// The fixed head that starts every 4.1 login packet, and is all of a request for TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoginHead {
    /// What the client understands, with MariaDB's extended flags where it sends them.
    pub capabilities: Capabilities,
    /// The longest packet the client takes, in bytes.
    pub packet_bytes_max: u32,
    /// Collation id (one byte on the wire).
    pub collation: u8,
}

impl LoginHead {
    /// Reads the head; the reader is left behind it.
    pub fn read(r: &mut Reader<'_>) -> Result<LoginHead, DecodeError> {
        let mut bits = u64::from(r.u32("capabilities")?);
        let packet_bytes_max = r.u32("packet limit")?;
        let collation = r.u8("collation")?;
        r.bytes(19, "reserved")?;
        let extended = u64::from(r.u32("reserved")?);
        if bits & Capabilities::LONG_PASSWORD.bits() == 0 {
            bits |= extended << 32;
        }
        Ok(LoginHead { capabilities: Capabilities::from_bits_retain(bits), packet_bytes_max, collation })
    }

    /// Appends the head.
    pub fn put(&self, out: &mut BytesMut) {
        let bits = self.capabilities.bits();
        out.put_u32_le(bits as u32);
        out.put_u32_le(self.packet_bytes_max);
        out.put_u8(self.collation);
        out.put_bytes(0, 19);
        let extended = if self.capabilities.contains(Capabilities::LONG_PASSWORD) { 0 } else { (bits >> 32) as u32 };
        out.put_u32_le(extended);
    }

    /// The head alone, as a request for TLS.
    pub fn encode_ssl_request(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(SSL_REQUEST_BYTES);
        LoginHead { capabilities: self.capabilities | Capabilities::SSL, ..*self }.put(&mut out);
        out.freeze()
    }
}
