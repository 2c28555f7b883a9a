//! Writing SQL: identifiers, strings and variable assignments that mean the same in every character set and sql_mode.

use bytes::{BufMut, BytesMut};

/// Appends an identifier in backquotes.
pub fn put_identifier(out: &mut BytesMut, name: &[u8]) {
    out.put_u8(b'`');
    for &byte in name {
        if byte == b'`' {
            out.put_u8(b'`');
        }
        out.put_u8(byte);
    }
    out.put_u8(b'`');
}

/// Appends a string literal. Plain ASCII without quotes or backslashes is written in single quotes; anything else as `_utf8mb4 x'…'`, which no
/// sql_mode and no client character set can change.
pub fn put_string(out: &mut BytesMut, value: &[u8]) {
    let plain = value.iter().all(|&b| (0x20..0x7F).contains(&b) && b != b'\'' && b != b'\\');
    if plain {
        out.put_u8(b'\'');
        out.put_slice(value);
        out.put_u8(b'\'');
        return;
    }
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.put_slice(b"_utf8mb4 x'");
    for &byte in value {
        out.put_u8(HEX[usize::from(byte >> 4)]);
        out.put_u8(HEX[usize::from(byte & 15)]);
    }
    out.put_u8(b'\'');
}

/// Appends `name=value` for a system variable: numbers as they are (servers refuse them quoted), everything else as a string.
pub fn put_variable_assignment(out: &mut BytesMut, name: &str, value: &[u8]) {
    out.put_slice(name.as_bytes());
    out.put_u8(b'=');
    if is_number(value) {
        out.put_slice(value);
    } else {
        put_string(out, value);
    }
}

/// `-12`, `3.5`: what a server accepts for a numeric variable.
fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let mut parts = digits.splitn(2, |b| *b == b'.');
    let whole = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    parts.next().is_some_and(whole) && parts.next().is_none_or(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assignment(name: &str, value: &[u8]) -> String {
        let mut out = BytesMut::new();
        put_variable_assignment(&mut out, name, value);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn numbers_stand_bare_and_the_rest_is_quoted() {
        assert_eq!(assignment("wait_timeout", b"28800"), "wait_timeout=28800");
        assert_eq!(assignment("long_query_time", b"10.000000"), "long_query_time=10.000000");
        assert_eq!(assignment("time_zone", b"+00:00"), "time_zone='+00:00'");
        assert_eq!(assignment("x", b"it's"), "x=_utf8mb4 x'69742773'");
        assert_eq!(assignment("x", b"1."), "x='1.'");
    }

    #[test]
    fn a_backquote_is_doubled() {
        let mut out = BytesMut::new();
        put_identifier(&mut out, b"a`b");
        assert_eq!(&out[..], b"`a``b`");
    }
}
