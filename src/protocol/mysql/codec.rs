//! The primitive types of the protocol: fixed and length-encoded integers and strings, read from a bounded slice.

use bytes::{BufMut, BytesMut};

/// What is wrong with bytes that should have been a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The payload ended inside a field.
    #[error("packet ends inside {0}")]
    Truncated(&'static str),
    /// A field holds what the protocol does not allow there.
    #[error("malformed {0}")]
    Malformed(&'static str),
}

/// A cursor over one payload. Every method checks bounds; none panics whatever the bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader at the start of `payload`.
    pub fn new(payload: &'a [u8]) -> Reader<'a> {
        Reader { rest: payload }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Takes all that is left.
    pub fn take_rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Takes `n` bytes; `what` names the field in the error.
    pub fn bytes(&mut self, n: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        if self.rest.len() < n {
            return Err(DecodeError::Truncated(what));
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Ok(head)
    }

    /// One byte.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        Ok(self.bytes(1, what)?[0])
    }

    /// Two bytes, little-endian.
    pub fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        let b = self.bytes(2, what)?;
        Ok(u16::from_le_bytes([b[0], b[1]]))
    }

    /// Four bytes, little-endian.
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let b = self.bytes(4, what)?;
        Ok(u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// A length-encoded integer. 0xFB (NULL) and 0xFF (an error marker) are malformed here.
    pub fn lenenc_int(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        match self.u8(what)? {
            n @ 0..=0xFA => Ok(u64::from(n)),
            0xFC => Ok(u64::from(self.u16(what)?)),
            0xFD => {
                let b = self.bytes(3, what)?;
                Ok(u64::from(b[0]) | u64::from(b[1]) << 8 | u64::from(b[2]) << 16)
            }
            0xFE => {
                let b = self.bytes(8, what)?;
                Ok(u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            }
            _ => Err(DecodeError::Malformed(what)),
        }
    }

    /// A length-encoded string, as a slice of the payload.
    pub fn lenenc_str(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let n = self.lenenc_int(what)?;
        let n = usize::try_from(n).map_err(|_| DecodeError::Malformed(what))?;
        self.bytes(n, what)
    }

    /// A value of a text row: `None` for NULL.
    pub fn text_value(&mut self, what: &'static str) -> Result<Option<&'a [u8]>, DecodeError> {
        if self.rest.first() == Some(&0xFB) {
            self.rest = &self.rest[1..];
            return Ok(None);
        }
        self.lenenc_str(what).map(Some)
    }

    /// A string that ends at a NUL byte (which is consumed).
    pub fn null_str(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let end = self.rest.iter().position(|&b| b == 0).ok_or(DecodeError::Truncated(what))?;
        let (head, tail) = self.rest.split_at(end);
        self.rest = &tail[1..];
        Ok(head)
    }
}

/// Appends a length-encoded integer.
pub fn put_lenenc_int(out: &mut BytesMut, n: u64) {
    match n {
        0..=0xFA => out.put_u8(n as u8),
        0xFB..=0xFFFF => {
            out.put_u8(0xFC);
            out.put_u16_le(n as u16);
        }
        0x1_0000..=0xFF_FFFF => {
            out.put_u8(0xFD);
            out.put_slice(&n.to_le_bytes()[..3]);
        }
        _ => {
            out.put_u8(0xFE);
            out.put_u64_le(n);
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_str(out: &mut BytesMut, s: &[u8]) {
    put_lenenc_int(out, s.len() as u64);
    out.put_slice(s);
}

/// Appends a string and a NUL byte.
pub fn put_null_str(out: &mut BytesMut, s: &[u8]) {
    out.put_slice(s);
    out.put_u8(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lenenc_int_survives_a_round_trip(n in any::<u64>(), shift in 0u32..64) {
            let n = n >> shift;
            let mut out = BytesMut::new();
            put_lenenc_int(&mut out, n);
            prop_assert_eq!(Reader::new(&out).lenenc_int("n"), Ok(n));
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut r = Reader::new(&bytes);
            let _ = (r.lenenc_str("a"), r.null_str("b"), r.text_value("c"), r.u32("d"), r.lenenc_int("e"));
        }
    }
}
