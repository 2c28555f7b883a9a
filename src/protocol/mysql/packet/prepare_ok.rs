//! The first packet of the answer to COM_STMT_PREPARE.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::{DecodeError, Reader};

/// What the server says of a statement it has prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrepareOk {
    /// The statement's id, known to this server session only.
    pub stmt_id: u32,
    /// Columns of its result; 0 for a statement without rows.
    pub num_columns: u16,
    /// Parameters.
    pub num_params: u16,
    /// Number of warnings.
    pub warnings: u16,
    /// Whether definitions of parameters and columns follow. False only with `OPTIONAL_RESULTSET_METADATA`.
    pub metadata_follows: bool,
}

impl PrepareOk {
    /// Reads the packet, sent under the agreed `caps`.
    pub fn decode(payload: &[u8], caps: Capabilities) -> Result<PrepareOk, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("PREPARE_OK header")? != 0 {
            return Err(DecodeError::Malformed("PREPARE_OK header"));
        }
        let stmt_id = r.u32("statement id")?;
        let num_columns = r.u16("number of columns")?;
        let num_params = r.u16("number of parameters")?;
        r.bytes(1, "filler")?;
        // Servers before 4.1.1 stopped here.
        let warnings = if r.is_empty() { 0 } else { r.u16("warnings")? };
        let optional = caps.contains(Capabilities::OPTIONAL_RESULTSET_METADATA) && !r.is_empty();
        let metadata_follows = if optional { r.u8("metadata_follows")? != 0 } else { true };
        Ok(PrepareOk { stmt_id, num_columns, num_params, warnings, metadata_follows })
    }

    /// Appends the packet for a peer with the agreed `caps`.
    pub fn encode(&self, out: &mut BytesMut, caps: Capabilities) {
        out.put_u8(0);
        out.put_u32_le(self.stmt_id);
        out.put_u16_le(self.num_columns);
        out.put_u16_le(self.num_params);
        out.put_u8(0);
        out.put_u16_le(self.warnings);
        if caps.contains(Capabilities::OPTIONAL_RESULTSET_METADATA) {
            out.put_u8(u8::from(self.metadata_follows));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_of_real_servers_are_read_and_written_back() {
        let none = Capabilities::empty();
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00";
        let ok = PrepareOk::decode(bytes, none).unwrap();
        assert_eq!((ok.stmt_id, ok.num_columns, ok.num_params, ok.metadata_follows), (1, 2, 1, true));
        let mut out = BytesMut::new();
        PrepareOk { stmt_id: 9, ..ok }.encode(&mut out, none);
        assert_eq!(&out[..], b"\x00\x09\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00");
        // MySQL 9.7 with resultset_metadata=NONE.
        let bytes = b"\x00\x01\x00\x00\x00\x02\x00\x01\x00\x00\x00\x00\x00";
        assert!(!PrepareOk::decode(bytes, Capabilities::OPTIONAL_RESULTSET_METADATA).unwrap().metadata_follows);
        for n in 0..10 {
            assert!(PrepareOk::decode(&bytes[..n], none).is_err());
        }
    }
}
