//! Requests about prepared statements: views of their headers that copy nothing, and new prefixes for requests that go to a
//! server which knows the statement under another id or has not seen the types of its parameters.
//!
//! All ranges count from the start of the payload (its command byte is byte 0). A payload may be cut short behind what its header
//! needs: a request of many megabytes is understood from its first bytes. [`DecodeError::Truncated`] means 'show more'.

use std::ops::Range;

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_int};
use crate::protocol::mysql::command::Command;

/// MariaDB: the id that means 'the statement prepared last', used to send PREPARE and EXECUTE together.
pub const STMT_ID_LAST_PREPARED: u32 = u32::MAX;
/// Bit of the EXECUTE flags: a cursor for reading. Any of the lower three bits asks for a cursor.
pub const CURSOR_TYPE_READ_ONLY: u8 = 0x01;
/// All cursor bits of the EXECUTE flags.
pub const CURSOR_TYPE_MASK: u8 = 0x07;
/// MySQL: bit of the EXECUTE flags that says that a number of parameters follows (with `QUERY_ATTRIBUTES`).
pub const PARAMETER_COUNT_AVAILABLE: u8 = 0x08;
/// MariaDB bulk flag: one result for each row of values.
pub const BULK_UNIT_RESULTS: u16 = 64;
/// MariaDB bulk flag: the types of the parameters are sent.
pub const BULK_SEND_TYPES: u16 = 128;

/// What stands before the values of a COM_STMT_EXECUTE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecuteHeader {
    /// The statement's id as the sender knows it.
    pub stmt_id: u32,
    /// The flags byte: cursor bits and [`PARAMETER_COUNT_AVAILABLE`].
    pub flags: u8,
    /// Always 1 from known clients.
    pub iterations: u32,
    /// Values sent: those of the statement, then (with `QUERY_ATTRIBUTES`) attributes.
    pub num_values: usize,
    /// The bitmap of NULLs, one bit a value. Empty if there are no values.
    pub null_bitmap: Range<usize>,
    /// Whether types are sent with this request. If not, those of the last EXECUTE that sent them hold.
    pub new_params_bound: bool,
    /// Two bytes for each value (and with `QUERY_ATTRIBUTES` a name); empty unless `new_params_bound`.
    pub types: Range<usize>,
    /// Where the values start; they go on to the end of the payload.
    pub values_start: usize,
    /// Whether this request uses the form of `QUERY_ATTRIBUTES` (names within `types`).
    pub named: bool,
}

impl ExecuteHeader {
    /// Reads the header of a statement with `num_params` parameters. `query_attributes`: MySQL's `QUERY_ATTRIBUTES` was agreed with
    /// the sender (never with MariaDB).
    pub fn parse(payload: &[u8], num_params: u16, query_attributes: bool) -> Result<ExecuteHeader, DecodeError> {
        let total = payload.len();
        let at = |r: &Reader<'_>| total - r.rest().len();
        let mut r = Reader::new(payload);
        expect_command(&mut r, Command::StmtExecute)?;
        let stmt_id = r.u32("statement id")?;
        let flags = r.u8("flags")?;
        let iterations = r.u32("iteration count")?;
        let named = query_attributes;
        let counted = query_attributes && flags & PARAMETER_COUNT_AVAILABLE != 0;
        let mut num_values = usize::from(num_params);
        if counted {
            // Bounded by the null bitmap below: one bit a value must be in the packet.
            num_values = usize::try_from(r.lenenc_int("number of parameters")?)
                .map_err(|_| DecodeError::Malformed("number of parameters"))?;
            if num_values < usize::from(num_params) {
                return Err(DecodeError::Malformed("number of parameters"));
            }
        }
        let mut header = ExecuteHeader {
            stmt_id,
            flags,
            iterations,
            num_values,
            null_bitmap: at(&r)..at(&r),
            new_params_bound: false,
            types: at(&r)..at(&r),
            values_start: at(&r),
            named,
        };
        if num_values == 0 {
            return Ok(header);
        }
        let start = at(&r);
        r.bytes(num_values.div_ceil(8), "null bitmap")?;
        header.null_bitmap = start..at(&r);
        header.new_params_bound = r.u8("new_params_bound_flag")? == 1;
        let start = at(&r);
        if header.new_params_bound {
            if named {
                for _ in 0..num_values {
                    r.bytes(2, "parameter type")?;
                    r.lenenc_str("parameter name")?;
                }
            } else {
                r.bytes(num_values.saturating_mul(2), "parameter types")?;
            }
        }
        header.types = start..at(&r);
        header.values_start = at(&r);
        Ok(header)
    }

    /// Whether a cursor is asked for.
    pub fn wants_cursor(&self) -> bool {
        self.flags & CURSOR_TYPE_MASK != 0
    }
}

/// A request whose head is replaced: send `prefix`, then the original payload from `tail_start` on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewrittenRequest {
    /// The new start of the payload.
    pub prefix: BytesMut,
    /// Where the unchanged rest of the original payload starts.
    pub tail_start: usize,
}

impl RewrittenRequest {
    /// Bytes of the whole new payload, for an original of `original_bytes`.
    pub fn payload_bytes(&self, original_bytes: usize) -> usize {
        self.prefix.len() + original_bytes.saturating_sub(self.tail_start)
    }
}

/// Puts another statement id into an EXECUTE, and `types` (in the form that the request itself would have used: two bytes a value, or
/// with names) if it sends none. `None`, or a request that has types of its own, keeps what is there. `payload` is the start
/// of the original, at least up to `header.values_start`. Types of another number of parameters are malformed.
pub fn rewrite_execute(
    payload: &[u8],
    header: &ExecuteHeader,
    stmt_id: u32,
    types: Option<&[u8]>,
) -> Result<RewrittenRequest, DecodeError> {
    let missing = DecodeError::Truncated("COM_STMT_EXECUTE");
    let mut prefix = BytesMut::with_capacity(64);
    prefix.put_u8(Command::StmtExecute.byte());
    prefix.put_u32_le(stmt_id);
    match types {
        Some(types) if !header.new_params_bound && header.num_values > 0 => {
            if !header.named {
                need_types(header, types)?;
            }
            prefix.put_slice(payload.get(5..header.null_bitmap.end).ok_or(missing)?);
            prefix.put_u8(1);
            prefix.put_slice(types);
            Ok(RewrittenRequest { prefix, tail_start: header.values_start })
        }
        _ => Ok(RewrittenRequest { prefix, tail_start: 5 }),
    }
}

/// Rewrites an EXECUTE in MySQL's `QUERY_ATTRIBUTES` form, without attributes, for a server session that did not agree to them
/// (a MariaDB server). Only the statement's own values may be present. `types` serves as in [`rewrite_execute`], two bytes a value.
pub fn execute_without_attributes(
    payload: &[u8],
    header: &ExecuteHeader,
    num_params: u16,
    stmt_id: u32,
    types: Option<&[u8]>,
) -> Result<RewrittenRequest, DecodeError> {
    if header.num_values != usize::from(num_params) {
        return Err(DecodeError::Malformed("query attributes"));
    }
    let missing = DecodeError::Truncated("COM_STMT_EXECUTE");
    let mut prefix = BytesMut::with_capacity(64);
    prefix.put_u8(Command::StmtExecute.byte());
    prefix.put_u32_le(stmt_id);
    prefix.put_u8(header.flags & !PARAMETER_COUNT_AVAILABLE);
    prefix.put_u32_le(header.iterations);
    if header.num_values > 0 {
        prefix.put_slice(payload.get(header.null_bitmap.clone()).ok_or(missing)?);
        if header.new_params_bound {
            prefix.put_u8(1);
            prefix.put_slice(&plain_types(payload, header)?);
        } else if let Some(types) = types {
            need_types(header, types)?;
            prefix.put_u8(1);
            prefix.put_slice(types);
        } else {
            prefix.put_u8(0);
        }
    }
    Ok(RewrittenRequest { prefix, tail_start: header.values_start })
}

/// Types that do not fit the values would make the server read other values than the client sent.
fn need_types(header: &ExecuteHeader, types: &[u8]) -> Result<(), DecodeError> {
    let fits = types.len() == header.num_values.saturating_mul(2);
    if fits { Ok(()) } else { Err(DecodeError::Malformed("parameter types")) }
}

/// The types that an EXECUTE sends, two bytes a value, without the names of the `QUERY_ATTRIBUTES` form. This is what to keep for
/// [`rewrite_execute`]. Empty if it sends none.
pub fn plain_types(payload: &[u8], header: &ExecuteHeader) -> Result<Vec<u8>, DecodeError> {
    let types = payload.get(header.types.clone()).ok_or(DecodeError::Truncated("parameter types"))?;
    if !header.named || types.is_empty() {
        return Ok(types.to_vec());
    }
    let mut r = Reader::new(types);
    let mut plain = Vec::with_capacity(header.num_values.saturating_mul(2).min(types.len()));
    while !r.is_empty() {
        plain.extend_from_slice(r.bytes(2, "parameter type")?);
        r.lenenc_str("parameter name")?;
    }
    Ok(plain)
}

/// Turns types of two bytes a value into the form with (empty) names that `QUERY_ATTRIBUTES` wants.
pub fn named_types(plain: &[u8]) -> Vec<u8> {
    plain.chunks_exact(2).flat_map(|t| [t.first().copied().unwrap_or(0), t.last().copied().unwrap_or(0), 0]).collect()
}

/// What stands before the SQL text of a COM_QUERY under `QUERY_ATTRIBUTES`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryHeader {
    /// Number of attributes.
    pub attributes: u64,
    /// Where the SQL text starts.
    pub sql_start: usize,
}

impl QueryHeader {
    /// Reads the header of a COM_QUERY. Without `query_attributes` the text starts behind the command byte. Values of attributes
    /// are skipped by their types; a type that has no known length is malformed.
    pub fn parse(payload: &[u8], query_attributes: bool) -> Result<QueryHeader, DecodeError> {
        let mut r = Reader::new(payload);
        expect_command(&mut r, Command::Query)?;
        if !query_attributes {
            return Ok(QueryHeader { attributes: 0, sql_start: 1 });
        }
        let attributes = r.lenenc_int("number of attributes")?;
        r.lenenc_int("number of attribute sets")?;
        if attributes > 0 {
            let count = usize::try_from(attributes).map_err(|_| DecodeError::Malformed("number of attributes"))?;
            let nulls = r.bytes(count.div_ceil(8), "null bitmap")?;
            if r.u8("new_params_bound_flag")? != 1 {
                return Err(DecodeError::Malformed("new_params_bound_flag"));
            }
            let mut types = Vec::new();
            for _ in 0..count {
                types.push(r.u16("attribute type")?);
                r.lenenc_str("attribute name")?;
            }
            for (i, kind) in types.into_iter().enumerate() {
                let null = nulls.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
                if !null {
                    skip_binary_value(&mut r, kind as u8)?;
                }
            }
        }
        Ok(QueryHeader { attributes, sql_start: payload.len() - r.rest().len() })
    }
}

/// Skips one value of the binary protocol.
fn skip_binary_value(r: &mut Reader<'_>, type_byte: u8) -> Result<(), DecodeError> {
    let what = "attribute value";
    match type_byte {
        0x06 => {}
        0x01 => drop(r.bytes(1, what)?),
        0x02 | 0x0D => drop(r.bytes(2, what)?),
        0x03 | 0x04 | 0x09 => drop(r.bytes(4, what)?),
        0x05 | 0x08 => drop(r.bytes(8, what)?),
        // Temporal values: a byte of length.
        0x07 | 0x0A | 0x0B | 0x0C => {
            let n = r.u8(what)?;
            r.bytes(usize::from(n), what)?;
        }
        0x00 | 0x0F | 0x10 | 0xF5..=0xFF => drop(r.lenenc_str(what)?),
        _ => return Err(DecodeError::Malformed("attribute type")),
    }
    Ok(())
}

/// Appends the start of a COM_QUERY without attributes; the SQL text follows.
pub fn put_query_prefix(out: &mut BytesMut, query_attributes: bool) {
    out.put_u8(Command::Query.byte());
    if query_attributes {
        put_lenenc_int(out, 0);
        put_lenenc_int(out, 1);
    }
}

/// What stands before the rows of a MariaDB COM_STMT_BULK_EXECUTE.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BulkExecuteHeader {
    /// The statement's id as the sender knows it.
    pub stmt_id: u32,
    /// [`BULK_UNIT_RESULTS`], [`BULK_SEND_TYPES`].
    pub flags: u16,
    /// Two bytes for each parameter; empty without [`BULK_SEND_TYPES`].
    pub types: Range<usize>,
    /// Where the values start.
    pub values_start: usize,
}

impl BulkExecuteHeader {
    /// Reads the header of a statement with `num_params` parameters.
    pub fn parse(payload: &[u8], num_params: u16) -> Result<BulkExecuteHeader, DecodeError> {
        let mut r = Reader::new(payload);
        expect_command(&mut r, Command::StmtBulkExecute)?;
        let stmt_id = r.u32("statement id")?;
        let flags = r.u16("bulk flags")?;
        let start = payload.len() - r.rest().len();
        if flags & BULK_SEND_TYPES != 0 {
            r.bytes(usize::from(num_params) * 2, "parameter types")?;
        }
        let values_start = payload.len() - r.rest().len();
        Ok(BulkExecuteHeader { stmt_id, flags, types: start..values_start, values_start })
    }
}

/// Puts another statement id into a bulk execution, and `types` if it sends none.
pub fn rewrite_bulk_execute(header: &BulkExecuteHeader, stmt_id: u32, types: Option<&[u8]>) -> RewrittenRequest {
    let insert = if header.flags & BULK_SEND_TYPES == 0 { types } else { None };
    let mut prefix = BytesMut::with_capacity(64);
    prefix.put_u8(Command::StmtBulkExecute.byte());
    prefix.put_u32_le(stmt_id);
    match insert {
        Some(types) => {
            prefix.put_u16_le(header.flags | BULK_SEND_TYPES);
            prefix.put_slice(types);
            RewrittenRequest { prefix, tail_start: header.values_start }
        }
        None => RewrittenRequest { prefix, tail_start: 5 },
    }
}

/// A part of a parameter's value: COM_STMT_SEND_LONG_DATA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongDataHeader {
    /// The statement's id.
    pub stmt_id: u32,
    /// The parameter's number, from 0.
    pub param: u16,
    /// Where the data starts; it goes on to the end of the payload.
    pub data_start: usize,
}

impl LongDataHeader {
    /// Reads the header.
    pub fn parse(payload: &[u8]) -> Result<LongDataHeader, DecodeError> {
        let mut r = Reader::new(payload);
        expect_command(&mut r, Command::StmtSendLongData)?;
        Ok(LongDataHeader { stmt_id: r.u32("statement id")?, param: r.u16("parameter number")?, data_start: 7 })
    }
}

/// A request for rows of a cursor: COM_STMT_FETCH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FetchRequest {
    /// The statement's id.
    pub stmt_id: u32,
    /// At most this many rows.
    pub rows: u32,
}

impl FetchRequest {
    /// Reads the request.
    pub fn parse(payload: &[u8]) -> Result<FetchRequest, DecodeError> {
        let mut r = Reader::new(payload);
        expect_command(&mut r, Command::StmtFetch)?;
        Ok(FetchRequest { stmt_id: r.u32("statement id")?, rows: r.u32("number of rows")? })
    }
}

/// The statement id of any request that holds one in bytes 1 to 4: EXECUTE, BULK_EXECUTE, SEND_LONG_DATA, FETCH, CLOSE, RESET.
pub fn stmt_id(payload: &[u8]) -> Result<u32, DecodeError> {
    let mut r = Reader::new(payload);
    r.u8("command")?;
    r.u32("statement id")
}

/// Puts another id into bytes 1 to 4 of a request's first bytes; false if there are fewer than five.
pub fn set_stmt_id(payload: &mut [u8], stmt_id: u32) -> bool {
    match payload.get_mut(1..5) {
        Some(id) => {
            id.copy_from_slice(&stmt_id.to_le_bytes());
            true
        }
        None => false,
    }
}

/// The payload of COM_STMT_CLOSE or COM_STMT_RESET.
pub fn statement_request(command: Command, stmt_id: u32) -> [u8; 5] {
    let [a, b, c, d] = stmt_id.to_le_bytes();
    [command.byte(), a, b, c, d]
}

fn expect_command(r: &mut Reader<'_>, command: Command) -> Result<(), DecodeError> {
    if r.u8("command")? == command.byte() { Ok(()) } else { Err(DecodeError::Malformed("command")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn joined(request: &RewrittenRequest, original: &[u8]) -> Vec<u8> {
        let mut all = request.prefix.to_vec();
        all.extend_from_slice(&original[request.tail_start..]);
        assert_eq!(all.len(), request.payload_bytes(original.len()));
        all
    }

    /// Two parameters: an int, and a string that is NULL.
    const EXECUTE: &[u8] = b"\x17\x01\0\0\0\x01\x01\0\0\0\x02\x01\x03\0\xfd\0\x07\0\0\0";
    /// The same without types.
    const AGAIN: &[u8] = b"\x17\x01\0\0\0\x01\x01\0\0\0\x02\x00\x07\0\0\0";

    #[test]
    fn an_execute_is_read_and_gets_another_id() {
        let header = ExecuteHeader::parse(EXECUTE, 2, false).unwrap();
        assert_eq!((header.stmt_id, header.iterations, header.wants_cursor()), (1, 1, true));
        assert_eq!((header.null_bitmap.clone(), header.types.clone(), header.values_start), (10..11, 12..16, 16));
        let out = joined(&rewrite_execute(EXECUTE, &header, 0x0102, Some(b"xx")).unwrap(), EXECUTE);
        assert_eq!(&out[..5], b"\x17\x02\x01\0\0");
        assert_eq!(out[5..], EXECUTE[5..]);
    }

    #[test]
    fn types_of_an_earlier_execute_are_inserted() {
        let header = ExecuteHeader::parse(AGAIN, 2, false).unwrap();
        let out = joined(&rewrite_execute(AGAIN, &header, 1, Some(b"\x03\0\xfd\0")).unwrap(), AGAIN);
        assert_eq!(out, EXECUTE);
        assert_eq!(joined(&rewrite_execute(AGAIN, &header, 1, None).unwrap(), AGAIN), AGAIN);
    }

    #[test]
    fn an_execute_without_parameters_has_no_bitmap() {
        let header = ExecuteHeader::parse(b"\x17\x01\0\0\0\0\x01\0\0\0", 0, false).unwrap();
        assert_eq!((header.values_start, header.num_values), (10, 0));
    }

    #[test]
    fn query_attributes_are_read_and_removed() {
        let named = b"\x17\x01\0\0\0\x09\x01\0\0\0\x02\x02\x01\x03\0\x00\xfd\0\x01n\x07\0\0\0";
        let header = ExecuteHeader::parse(named, 2, true).unwrap();
        assert_eq!(plain_types(named, &header).unwrap(), b"\x03\0\xfd\0");
        let out = joined(&execute_without_attributes(named, &header, 2, 1, None).unwrap(), named);
        assert_eq!(out, EXECUTE);
        let query = b"\x03\x01\x01\x00\x01\xfd\x00\x01n\x03abcSELECT 1";
        let header = QueryHeader::parse(query, true).unwrap();
        assert_eq!((header.attributes, &query[header.sql_start..]), (1, &b"SELECT 1"[..]));
        let mut out = BytesMut::new();
        put_query_prefix(&mut out, true);
        assert_eq!(QueryHeader::parse(&out, true).unwrap(), QueryHeader { attributes: 0, sql_start: 3 });
    }

    #[test]
    fn a_bulk_execution_is_read_and_gets_types() {
        let bulk = b"\xfa\x01\0\0\0\x80\x00\x03\0\xfd\0\0\x14\0\0\0\0\x01a";
        let header = BulkExecuteHeader::parse(bulk, 2).unwrap();
        assert_eq!((header.types.clone(), header.values_start), (7..11, 11));
        assert_eq!(joined(&rewrite_bulk_execute(&header, 1, None), bulk), bulk);
        let again = b"\xfa\x01\0\0\0\x00\x00\0\x14\0\0\0\0\x01a";
        let header = BulkExecuteHeader::parse(again, 2).unwrap();
        assert_eq!(joined(&rewrite_bulk_execute(&header, 1, Some(b"\x03\0\xfd\0")), again), bulk);
    }

    #[test]
    fn ids_are_read_and_set() {
        let mut close = statement_request(Command::StmtClose, 7);
        assert_eq!(stmt_id(&close), Ok(7));
        assert!(set_stmt_id(&mut close, 9));
        assert_eq!(stmt_id(&close), Ok(9));
        assert!(!set_stmt_id(&mut [0x19, 0], 1));
        let fetch = FetchRequest::parse(b"\x1c\x01\0\0\0\x05\0\0\0").unwrap();
        assert_eq!((fetch.stmt_id, fetch.rows), (1, 5));
        let long = LongDataHeader::parse(b"\x18\x01\0\0\0\x02\0data").unwrap();
        assert_eq!((long.stmt_id, long.param, long.data_start), (1, 2, 7));
    }

    proptest! {
        #[test]
        fn no_bytes_make_a_parser_panic(
            mut bytes in proptest::collection::vec(any::<u8>(), 0..64), params in 0u16..20, attributes: bool
        ) {
            for command in [0x03u8, 0x17, 0x18, 0x1C, 0xFA] {
                if let Some(first) = bytes.first_mut() {
                    *first = command;
                }
                if let Ok(header) = ExecuteHeader::parse(&bytes, params, attributes) {
                    prop_assert!(header.values_start <= bytes.len());
                    prop_assert!(rewrite_execute(&bytes, &header, 1, None).is_ok());
                    let _ = rewrite_execute(&bytes, &header, 1, Some(b"abcd"));
                    let _ = (plain_types(&bytes, &header), execute_without_attributes(&bytes, &header, params, 1, None));
                }
                if let Ok(header) = QueryHeader::parse(&bytes, attributes) {
                    prop_assert!(header.sql_start <= bytes.len());
                }
                let _ = BulkExecuteHeader::parse(&bytes, params).map(|h| rewrite_bulk_execute(&h, 1, Some(b"")));
                let _ = (LongDataHeader::parse(&bytes), FetchRequest::parse(&bytes));
            }
        }
    }
}
