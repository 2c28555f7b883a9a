//! Column definitions, as slices of the packet.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_int, put_lenenc_str};

/// Bytes of the fixed-length part that follows the names.
const FIXED_BYTES: u64 = 0x0C;

/// One column of a result, or one parameter of a prepared statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct ColumnDef<'a> {
    /// Always `def`.
    pub catalog: &'a [u8],
    /// The schema of the table, empty for an expression.
    pub schema: &'a [u8],
    /// The table or its alias.
    pub table: &'a [u8],
    /// The table behind the alias.
    pub org_table: &'a [u8],
    /// The column or its alias.
    pub name: &'a [u8],
    /// The column behind the alias.
    pub org_name: &'a [u8],
    /// MariaDB's extended type information (for example `json`), raw; empty unless `MARIADB_EXTENDED_METADATA` was agreed.
    pub extended: &'a [u8],
    /// Collation id of the column's values, 63 for binary.
    pub collation: u16,
    /// Widest value in bytes.
    pub length: u32,
    /// Type byte (`MYSQL_TYPE_*`).
    pub type_byte: u8,
    /// Column flags (`NOT_NULL_FLAG` = 1, `UNSIGNED_FLAG` = 32, …).
    pub flags: u16,
    /// Digits after the decimal point.
    pub decimals: u8,
    /// Answers of COM_FIELD_LIST only: the default value as a raw length-encoded string (`0xFB` = NULL). Else empty.
    pub default: &'a [u8],
}

impl<'a> ColumnDef<'a> {
    /// Column flag: the value is unsigned.
    pub const UNSIGNED_FLAG: u16 = 32;
    /// Column flag: the value is no text.
    pub const BINARY_FLAG: u16 = 128;

    /// Reads a column definition that was sent under the agreed `caps`.
    pub fn decode(payload: &'a [u8], caps: Capabilities) -> Result<ColumnDef<'a>, DecodeError> {
        let mut r = Reader::new(payload);
        let mut def = ColumnDef {
            catalog: r.lenenc_str("catalog")?,
            schema: r.lenenc_str("schema")?,
            table: r.lenenc_str("table")?,
            org_table: r.lenenc_str("org_table")?,
            name: r.lenenc_str("name")?,
            org_name: r.lenenc_str("org_name")?,
            ..ColumnDef::default()
        };
        if caps.contains(Capabilities::MARIADB_EXTENDED_METADATA) {
            def.extended = r.lenenc_str("extended metadata")?;
        }
        if r.lenenc_int("length of fixed fields")? != FIXED_BYTES {
            return Err(DecodeError::Malformed("length of fixed fields"));
        }
        def.collation = r.u16("collation")?;
        def.length = r.u32("column length")?;
        def.type_byte = r.u8("column type")?;
        def.flags = r.u16("column flags")?;
        def.decimals = r.u8("decimals")?;
        r.bytes(2, "filler")?;
        def.default = r.take_rest();
        Ok(def)
    }

    /// Appends this definition for a peer with the agreed `caps`; extended metadata only where they were agreed.
    pub fn encode(&self, out: &mut BytesMut, caps: Capabilities) {
        for name in [self.catalog, self.schema, self.table, self.org_table, self.name, self.org_name] {
            put_lenenc_str(out, name);
        }
        if caps.contains(Capabilities::MARIADB_EXTENDED_METADATA) {
            put_lenenc_str(out, self.extended);
        }
        put_lenenc_int(out, FIXED_BYTES);
        out.put_u16_le(self.collation);
        out.put_u32_le(self.length);
        out.put_u8(self.type_byte);
        out.put_u16_le(self.flags);
        out.put_u8(self.decimals);
        out.put_u16_le(0);
        out.put_slice(self.default);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EXTENDED: Capabilities = Capabilities::MARIADB_EXTENDED_METADATA;
    /// A JSON column on MariaDB 10.11 with extended metadata.
    const JSON: &[u8] =
        b"\x03def\x01t\x01j\x01j\x01d\x01d\x06\x01\x04json\x0c\x2d\x00\xff\xff\xff\xff\xfc\x90\x00\x00\x00\x00";

    #[test]
    fn extended_metadata_is_kept_or_dropped() {
        let def = ColumnDef::decode(JSON, EXTENDED).unwrap();
        assert_eq!(
            (def.name, def.extended, def.type_byte, def.collation),
            (&b"d"[..], &b"\x01\x04json"[..], 0xfc, 0x2d)
        );
        let mut out = BytesMut::new();
        def.encode(&mut out, EXTENDED);
        assert_eq!(&out[..], JSON);
        out.clear();
        def.encode(&mut out, Capabilities::empty());
        let plain = ColumnDef::decode(&out, Capabilities::empty()).unwrap();
        assert_eq!(plain, ColumnDef { extended: &[], ..def });
    }

    #[test]
    fn a_default_of_field_list_is_kept() {
        let bytes = b"\x03def\x01t\x01a\x01a\x01i\x01i\x0c\x3f\x00\x0b\x00\x00\x00\x03\x03\x50\x00\x00\x00\x01\x30";
        let def = ColumnDef::decode(bytes, Capabilities::empty()).unwrap();
        assert_eq!(def.default, b"\x01\x30");
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
            let _ = (ColumnDef::decode(&bytes, Capabilities::empty()), ColumnDef::decode(&bytes, EXTENDED));
        }
    }
}
