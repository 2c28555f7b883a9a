//! Writes names and values into SQL text so that no character set, sql_mode or content can make them anything else.

use super::facts::MultiByte;

/// Why something can't be written into SQL text safely.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LiteralError {
    /// The name is empty, holds a NUL byte, or ends in half a character.
    #[error("not a name that can be quoted")]
    Name,
    /// The name of a system variable or character set holds other bytes than letters, digits, `_`, `.`, `$`.
    #[error("not the name of a system variable or character set")]
    Variable,
}

/// Bytes of the character at the start of `bytes`; `None` where half of it is missing.
fn character_bytes(bytes: &[u8], multibyte: MultiByte) -> Option<usize> {
    let lead = *bytes.first()?;
    let is_lead = match multibyte {
        MultiByte::None => false,
        MultiByte::Gbk | MultiByte::Gb18030 => (0x81..=0xFE).contains(&lead),
        MultiByte::Sjis => matches!(lead, 0x81..=0x9F | 0xE0..=0xFC),
        MultiByte::Big5 => (0xA1..=0xF9).contains(&lead),
    };
    if !is_lead {
        return Some(1);
    }
    let second = *bytes.get(1)?;
    let whole = match multibyte {
        MultiByte::None => 1,
        MultiByte::Gb18030 if second.is_ascii_digit() => 4,
        MultiByte::Gbk | MultiByte::Gb18030 => usize::from(matches!(second, 0x40..=0x7E | 0x80..=0xFE)) * 2,
        MultiByte::Sjis => usize::from(matches!(second, 0x40..=0x7E | 0x80..=0xFC)) * 2,
        MultiByte::Big5 => usize::from(matches!(second, 0x40..=0x7E | 0xA1..=0xFE)) * 2,
    };
    (whole > 0 && whole <= bytes.len()).then_some(whole)
}

/// Appends `name` as a quoted name. `multibyte` is the character set the text will be read in (the session's client
/// character set): in some, the second byte of a character looks like a backtick.
pub fn quote_identifier(name: &[u8], multibyte: MultiByte, out: &mut Vec<u8>) -> Result<(), LiteralError> {
    if name.is_empty() || name.contains(&0) {
        return Err(LiteralError::Name);
    }
    let start = out.len();
    out.push(b'`');
    let mut rest = name;
    while !rest.is_empty() {
        let Some((character, behind)) = character_bytes(rest, multibyte).and_then(|len| rest.split_at_checked(len))
        else {
            out.truncate(start);
            return Err(LiteralError::Name);
        };
        if character == b"`" {
            out.push(b'`');
        }
        out.extend_from_slice(character);
        rest = behind;
    }
    out.push(b'`');
    Ok(())
}

fn push_hex(bytes: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.extend_from_slice(b"x'");
    for byte in bytes {
        out.push(DIGITS[usize::from(byte >> 4)]);
        out.push(DIGITS[usize::from(byte & 15)]);
    }
    out.push(b'\'');
}

/// Appends a binary string: `_binary x'…'`, which means the same under every character set and sql_mode.
pub fn binary_literal(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"_binary ");
    push_hex(bytes, out);
}

/// Appends a string in a character set, whose bytes are `bytes`: `_utf8mb4 x'…'`. A collation may be appended by the caller.
pub fn text_literal(charset: &str, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), LiteralError> {
    if !is_plain_name(charset.as_bytes()) {
        return Err(LiteralError::Variable);
    }
    out.push(b'_');
    out.extend_from_slice(charset.as_bytes());
    out.push(b' ');
    push_hex(bytes, out);
    Ok(())
}

/// Appends a string: between quotes where every byte of it means itself in every character set and sql_mode, else
/// as UTF-8 in hexadecimal.
pub fn string_literal(value: &[u8], out: &mut Vec<u8>) {
    let plain = value.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'\'' | b'\\'));
    if plain {
        out.push(b'\'');
        out.extend_from_slice(value);
        out.push(b'\'');
    } else {
        out.extend_from_slice(b"_utf8mb4 ");
        push_hex(value, out);
    }
}

fn is_plain_name(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'$');
    !name.is_empty() && name.iter().all(plain)
}

fn is_number(value: &[u8]) -> bool {
    let digits = value.strip_prefix(b"-").unwrap_or(value);
    let mut parts = digits.splitn(2, |byte| *byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next();
    let all_digits = |part: &[u8]| !part.is_empty() && part.iter().all(u8::is_ascii_digit);
    all_digits(whole) && fraction.is_none_or(all_digits)
}

/// Appends `name=value`, one assignment of a SET statement that puts a session system variable back to the value that a
/// server reported (as text). Numbers go unquoted, because servers refuse a quoted number for a numeric variable.
pub fn variable_assignment(name: &[u8], value: &[u8], out: &mut Vec<u8>) -> Result<(), LiteralError> {
    if !is_plain_name(name) {
        return Err(LiteralError::Variable);
    }
    out.extend_from_slice(name);
    out.push(b'=');
    if value.is_empty() && name.eq_ignore_ascii_case(b"character_set_results") {
        // Servers report NULL (no conversion) as an empty text, and refuse that.
        out.extend_from_slice(b"NULL");
    } else if is_number(value) {
        out.extend_from_slice(value);
    } else {
        string_literal(value, out);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identifier(name: &[u8], multibyte: MultiByte) -> Result<Vec<u8>, LiteralError> {
        let mut out = Vec::new();
        quote_identifier(name, multibyte, &mut out).map(|()| out)
    }

    #[test]
    fn identifiers_cannot_end_early() {
        assert_eq!(identifier(b"a`b", MultiByte::None).unwrap(), b"`a``b`");
        // In gbk, 81 60 is one character whose second byte looks like a backtick.
        assert_eq!(identifier(b"\x81\x60", MultiByte::Gbk).unwrap(), b"`\x81\x60`");
        assert_eq!(identifier(b"\x81", MultiByte::Gbk), Err(LiteralError::Name));
        assert_eq!(identifier(b"", MultiByte::None), Err(LiteralError::Name));
        assert_eq!(identifier(b"a\0", MultiByte::None), Err(LiteralError::Name));
    }

    #[test]
    fn assignments_quote_what_is_no_number() {
        let cases: &[(&[u8], &[u8], &[u8])] = &[
            (b"autocommit", b"ON", b"autocommit='ON'"),
            (b"max_statement_time", b"1.500000", b"max_statement_time=1.500000"),
            (b"sql_mode", b"", b"sql_mode=''"),
            (b"character_set_results", b"", b"character_set_results=NULL"),
            (b"time_zone", b"+02:00", b"time_zone='+02:00'"),
            (b"x", b"a'b", b"x=_utf8mb4 x'612762'"),
            (b"x", b"-5", b"x=-5"),
            (b"x", b"1.", b"x='1.'"),
        ];
        for (name, value, expected) in cases {
            let mut out = Vec::new();
            variable_assignment(name, value, &mut out).unwrap();
            assert_eq!(out, *expected);
        }
        assert_eq!(variable_assignment(b"a b", b"1", &mut Vec::new()), Err(LiteralError::Variable));
    }

    #[test]
    fn text_and_binary_are_hexadecimal() {
        let mut out = Vec::new();
        binary_literal(b"\0'", &mut out);
        out.push(b',');
        text_literal("latin1", b"\xe9", &mut out).unwrap();
        assert_eq!(out, b"_binary x'0027',_latin1 x'e9'");
        assert!(text_literal("a'b", b"", &mut out).is_err());
    }
}
