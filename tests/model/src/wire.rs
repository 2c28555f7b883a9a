//! Packets of the server's side.

use crate::error::Error;
use crate::value::Value;

/// Capabilities by name.
#[allow(missing_docs)]
pub mod caps {
    pub const FOUND_ROWS: u32 = 1 << 1;
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    pub const PROTOCOL_41: u32 = 1 << 9;
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    pub const MULTI_RESULTS: u32 = 1 << 17;
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    pub const SESSION_TRACK: u32 = 1 << 23;
    pub const DEPRECATE_EOF: u32 = 1 << 24;
}

/// Status flags by name.
#[allow(missing_docs)]
pub mod status {
    pub const IN_TRANS: u16 = 1;
    pub const AUTOCOMMIT: u16 = 2;
    pub const MORE_RESULTS: u16 = 8;
    pub const CURSOR_EXISTS: u16 = 0x40;
    pub const LAST_ROW_SENT: u16 = 0x80;
    pub const NO_BACKSLASH_ESCAPES: u16 = 0x200;
    pub const IN_TRANS_READONLY: u16 = 0x2000;
    pub const SESSION_STATE_CHANGED: u16 = 0x4000;
    pub const ANSI_QUOTES: u16 = 0x8000;
}

/// Appends a length-encoded integer.
pub fn put_lenenc(out: &mut Vec<u8>, n: u64) {
    let bytes = n.to_le_bytes();
    let (mark, width) = match n {
        0..=250 => return out.push(n as u8),
        251..=0xffff => (0xfc, 2),
        0x1_0000..=0xff_ffff => (0xfd, 3),
        _ => (0xfe, 8),
    };
    out.push(mark);
    out.extend_from_slice(&bytes[..width]);
}

/// Appends a length-encoded string.
pub fn put_string(out: &mut Vec<u8>, text: &[u8]) {
    put_lenenc(out, text.len() as u64);
    out.extend_from_slice(text);
}

/// Takes a length-encoded integer off the front.
pub(crate) fn take_lenenc(p: &mut &[u8]) -> Option<u64> {
    let (first, rest) = p.split_first()?;
    let width = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        n => {
            *p = rest;
            return Some(u64::from(*n));
        }
    };
    let bytes = rest.get(..width)?;
    *p = &rest[width..];
    Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

/// Types of the protocol.
#[allow(missing_docs)]
pub mod types {
    pub const LONG: u8 = 3;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const LONGLONG: u8 = 8;
    pub const NEWDECIMAL: u8 = 0xf6;
    pub const LONG_BLOB: u8 = 0xfb;
    pub const MEDIUM_BLOB: u8 = 0xfa;
    pub const VAR_STRING: u8 = 0xfd;
}

/// What a column of a result is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ColumnDef {
    pub schema: String,
    pub table: String,
    pub name: String,
    pub org_name: String,
    pub ty: u8,
    pub charset: u16,
    pub length: u32,
    pub flags: u16,
    pub decimals: u8,
}

impl ColumnDef {
    pub fn packet(&self) -> Vec<u8> {
        let mut p = Vec::with_capacity(64);
        for text in ["def", &self.schema, &self.table, &self.table, &self.name, &self.org_name] {
            put_string(&mut p, text.as_bytes());
        }
        p.push(12);
        p.extend_from_slice(&self.charset.to_le_bytes());
        p.extend_from_slice(&self.length.to_le_bytes());
        p.push(self.ty);
        p.extend_from_slice(&self.flags.to_le_bytes());
        p.push(self.decimals);
        p.extend_from_slice(&[0, 0]);
        p
    }
}

/// An ERR packet.
pub(crate) fn err_packet(error: &Error) -> Vec<u8> {
    let mut p = vec![0xff];
    p.extend_from_slice(&error.code.to_le_bytes());
    p.push(b'#');
    p.extend_from_slice(error.state.as_bytes());
    p.extend_from_slice(error.message.as_bytes());
    p
}

/// A row of the text protocol.
pub(crate) fn text_row(row: &[Value], columns: &[ColumnDef]) -> Vec<u8> {
    let mut p = Vec::with_capacity(row.len() * 8);
    for (value, column) in row.iter().zip(columns) {
        if let (Value::Double(f), 0..=30) = (value, column.decimals) {
            let text = format!("{f:.width$}", width = usize::from(column.decimals));
            put_string(&mut p, text.as_bytes());
            continue;
        }
        match value.text() {
            Some(text) => put_string(&mut p, &text),
            None => p.push(0xfb),
        }
    }
    p
}

/// A row of the binary protocol.
pub(crate) fn binary_row(row: &[Value], columns: &[ColumnDef]) -> Vec<u8> {
    let mut p = vec![0; 1 + (row.len() + 9) / 8];
    for (i, (value, column)) in row.iter().zip(columns).enumerate() {
        match (value, column.ty) {
            (Value::Null, _) => p[1 + (i + 2) / 8] |= 1 << ((i + 2) % 8),
            (v, types::LONG) => p.extend_from_slice(&(v.int() as i32).to_le_bytes()),
            (v, types::LONGLONG) => p.extend_from_slice(&(v.int() as i64).to_le_bytes()),
            (v, types::DOUBLE) => p.extend_from_slice(&v.number().0.to_le_bytes()),
            (v, _) => put_string(&mut p, &v.text().unwrap_or_default()),
        }
    }
    p
}

/// Puts payloads into frames; the first has sequence number `seq`.
pub(crate) fn frame(payloads: &[Vec<u8>], mut seq: u8) -> Vec<u8> {
    const MAX: usize = 0xFF_FFFF;
    let mut out = Vec::with_capacity(payloads.iter().map(|p| p.len() + 4).sum());
    for payload in payloads {
        let mut rest = payload.as_slice();
        loop {
            let (head, tail) = rest.split_at(rest.len().min(MAX));
            out.extend_from_slice(&(head.len() as u32).to_le_bytes()[..3]);
            out.push(seq);
            out.extend_from_slice(head);
            seq = seq.wrapping_add(1);
            rest = tail;
            if head.len() < MAX {
                break;
            }
        }
    }
    out
}
