//! A statement without its literals: the same text for statements that differ only in values, and a hash of it.

use super::facts::LexContext;
use super::lexer::{Lexer, TokenKind};

/// Only so much of a statement's text goes into its digest.
pub const DIGEST_SCAN_BYTES_MAX: usize = 65_536;

const FNV_OFFSET: u64 = 0xCBF2_9CE4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01B3;

/// The hash of `sql` without its literals: equal for statements that differ only in values, blanks, comments, and the case of
/// unquoted words. Stable between processes and builds.
pub fn digest(sql: &[u8], cx: &LexContext) -> u64 {
    let mut hash = FNV_OFFSET;
    normalise(sql, cx, |bytes, lower| {
        for byte in bytes {
            let byte = if lower { byte.to_ascii_lowercase() } else { *byte };
            hash = (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME);
        }
        true
    });
    hash
}

/// The text that [`digest`] hashes, cut to at most `limit_bytes`. Holds no literal of the statement, hence no secret that was
/// written as one; aliases and comments of optimizer hints are gone or kept as they are names.
pub fn digest_text(sql: &[u8], cx: &LexContext, limit_bytes: usize) -> String {
    let mut text = Vec::new();
    normalise(sql, cx, |bytes, lower| {
        let room = limit_bytes.saturating_sub(text.len());
        let part = bytes.get(..room.min(bytes.len())).unwrap_or_default();
        text.extend(part.iter().map(|byte| if lower { byte.to_ascii_lowercase() } else { *byte }));
        text.len() < limit_bytes
    });
    let mut text = String::from_utf8_lossy(&text).into_owned();
    // Replacing half a character may have made it longer.
    while text.len() > limit_bytes {
        text.pop();
    }
    text
}

/// Gives the parts of the normalised text to `sink`, with whether they are to be in lower case, until it says false.
fn normalise(sql: &[u8], cx: &LexContext, mut sink: impl FnMut(&[u8], bool) -> bool) {
    let sql = sql.get(..DIGEST_SCAN_BYTES_MAX).unwrap_or(sql);
    let mut lexer = Lexer::new(sql, cx);
    let mut first = true;
    // Length of what a list of values looks like so far: `?` seen, and whether a comma waits behind it.
    let mut after_value = false;
    let mut comma_waits = false;
    loop {
        let token = lexer.next_token();
        if token.kind == TokenKind::End {
            if comma_waits {
                sink(b",", false);
            }
            return;
        }
        let value = matches!(token.kind, TokenKind::Number | TokenKind::Text | TokenKind::Placeholder);
        if value && after_value && comma_waits {
            // `?, ?` is one `?`.
            comma_waits = false;
            continue;
        }
        if comma_waits {
            comma_waits = false;
            if !sink(b" ,", false) {
                return;
            }
        }
        if after_value && token.kind == TokenKind::Comma {
            comma_waits = true;
            continue;
        }
        after_value = value;
        let lower = matches!(token.kind, TokenKind::Word | TokenKind::SystemVariable);
        let part = if value { b"?".as_slice() } else { token.span.of(sql) };
        if (!first && !sink(b" ", false)) || !sink(part, lower) {
            return;
        }
        first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_blanks_and_case_do_not_matter() {
        let cx = LexContext::default();
        let same =
            ["SELECT a FROM t WHERE b IN (1, 2,3) AND c='x'", "select  A from T where b in(4) /* x */ and C = \"y\""];
        assert_eq!(digest(same[0].as_bytes(), &cx), digest(same[1].as_bytes(), &cx));
        assert_eq!(digest_text(same[0].as_bytes(), &cx, 200), "select a from t where b in ( ? ) and c = ?");
        assert_ne!(digest(b"SELECT a", &cx), digest(b"SELECT b", &cx));
        assert_eq!(digest_text(b"SELECT 'secret'", &cx, 8), "select ?");
        assert_eq!(digest_text(b"SELECT `\xc3\xa9`", &cx, 9).len(), 8);
    }
}
