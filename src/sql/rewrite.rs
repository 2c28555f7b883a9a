//! Puts other bytes in the place of parts of a statement, and answers volatile calls without the client noticing.

use core::ops::Range;

use super::facts::{Facts, LexContext, Span, VolatileCall, VolatileKind};
use super::literal::quote_identifier;

/// Servers cut the name of a column without alias to so many bytes (MariaDB 10.11 observed), and refuse longer aliases.
const ALIAS_BYTES_MAX: usize = 255;

/// A range that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the range {start}..{end} lies outside the text, or overlaps the one before")]
pub struct RangeError {
    /// The range's first byte.
    pub start: usize,
    /// One past its last byte.
    pub end: usize,
}

/// `sql` with each range replaced by its bytes. The ranges are in the order of the text and do not overlap; an empty range
/// inserts.
pub fn replace_ranges<R>(sql: &[u8], replacements: &[(R, Vec<u8>)]) -> Result<Vec<u8>, RangeError>
where
    R: Into<Range<usize>> + Clone,
{
    let added: usize = replacements.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut out = Vec::with_capacity(sql.len() + added);
    let mut at = 0;
    for (range, bytes) in replacements {
        let Range { start, end } = range.clone().into();
        let wrong = RangeError { start, end };
        if end < start || end > sql.len() {
            return Err(wrong);
        }
        out.extend_from_slice(sql.get(at..start).ok_or(wrong)?);
        out.extend_from_slice(bytes);
        at = end;
    }
    out.extend_from_slice(sql.get(at..).unwrap_or_default());
    Ok(out)
}

/// `sql` with every volatile call of `facts` for which `answer` has a value replaced by that value (an SQL literal), and with
/// aliases that keep the columns' names. `None` where nothing is to be replaced.
pub fn answer_volatile(
    sql: &[u8],
    facts: &Facts,
    cx: &LexContext,
    mut answer: impl FnMut(VolatileKind) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let mut replacements: Vec<(Span, Vec<u8>)> = Vec::with_capacity(facts.volatile.len() + 1);
    let mut open_item: Option<Span> = None;
    for call in &facts.volatile {
        let Some(value) = answer(call.kind) else { continue };
        if let Some(item) = open_item
            && call.unaliased_item != open_item
        {
            replacements.extend(alias(sql, item, cx));
        }
        open_item = call.unaliased_item;
        replacements.push((call.range, spaced(value, *call, sql)));
    }
    if let Some(item) = open_item {
        replacements.extend(alias(sql, item, cx));
    }
    if replacements.is_empty() {
        return None;
    }
    replace_ranges(sql, &replacements).ok()
}

/// A call may touch the words around it (`SELECT@@identity`), a value may not.
fn spaced(value: Vec<u8>, call: VolatileCall, sql: &[u8]) -> Vec<u8> {
    let before = (call.range.start as usize).checked_sub(1).and_then(|at| sql.get(at)).copied();
    let after = sql.get(call.range.end as usize).copied();
    let joins =
        |byte: Option<u8>| byte.is_some_and(|b| !b.is_ascii_whitespace() && !matches!(b, b'(' | b')' | b',' | b';'));
    let mut out = Vec::with_capacity(value.len() + 2);
    if joins(before) {
        out.push(b' ');
    }
    out.extend_from_slice(&value);
    if joins(after) {
        out.push(b' ');
    }
    out
}

/// The alias that keeps the name of a column whose text is `item`. `None` for a text that no alias can bear: the right value
/// is worth more than the name then.
fn alias(sql: &[u8], item: Span, cx: &LexContext) -> Option<(Span, Vec<u8>)> {
    let name = item.of(sql);
    let utf8 = core::str::from_utf8(name).is_ok();
    // No character set has characters of over four bytes.
    (0..4).find_map(|less| {
        let cut = if name.len() > ALIAS_BYTES_MAX { name.get(..ALIAS_BYTES_MAX - less)? } else { name };
        if utf8 && core::str::from_utf8(cut).is_err() {
            return None;
        }
        let mut out = b" AS ".to_vec();
        quote_identifier(cut, cx.multibyte, &mut out).ok()?;
        Some((Span { start: item.end, end: item.end }, out))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyse;

    fn answered(sql: &str) -> Option<String> {
        let cx = LexContext::default();
        let facts = analyse(sql.as_bytes(), &cx);
        let out = answer_volatile(sql.as_bytes(), &facts, &cx, |_| Some(b"7".to_vec()));
        out.map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn replaces_in_order_and_refuses_nonsense() {
        let out = replace_ranges(b"abcdef", &[(1..2, b"XX".to_vec()), (4..4, b"-".to_vec())]).unwrap();
        assert_eq!(out, b"aXXcd-ef");
        assert!(replace_ranges(b"abc", &[(2..3, vec![]), (1..2, vec![])]).is_err());
        assert!(replace_ranges(b"abc", &[(2..4, vec![])]).is_err());
    }

    #[test]
    fn columns_keep_their_names() {
        let cases = [
            ("SELECT LAST_INSERT_ID()", "SELECT 7 AS `LAST_INSERT_ID()`"),
            ("SELECT@@identity", "SELECT 7 AS `@@identity`"),
            ("SELECT last_insert_id () x", "SELECT 7 x"),
            ("SELECT connection_id() AS `a`, 1", "SELECT 7 AS `a`, 1"),
            ("select a, 1+LAST_INSERT_ID() FROM t", "select a, 1+ 7 AS `1+LAST_INSERT_ID()` FROM t"),
            ("(SELECT ROW_COUNT(), FOUND_ROWS())", "(SELECT 7 AS `ROW_COUNT()`, 7 AS `FOUND_ROWS()`)"),
            ("SELECT LAST_INSERT_ID()*CONNECTION_ID()", "SELECT 7 * 7 AS `LAST_INSERT_ID()*CONNECTION_ID()`"),
            ("INSERT INTO t(a) VALUES (LAST_INSERT_ID())", "INSERT INTO t(a) VALUES (7)"),
            ("CREATE TABLE t SELECT LAST_INSERT_ID(), 1", "CREATE TABLE t SELECT 7 AS `LAST_INSERT_ID()`, 1"),
            ("SELECT * FROM t WHERE id=LAST_INSERT_ID()", "SELECT * FROM t WHERE id= 7"),
        ];
        for (sql, expected) in cases {
            assert_eq!(answered(sql).as_deref(), Some(expected), "{sql}");
        }
        let long = format!("SELECT LAST_INSERT_ID()+'{}'", "é".repeat(200));
        let name = answered(&long).unwrap();
        let (_, name) = name.split_once(" AS `").unwrap();
        assert_eq!(name.len(), 255, "254 bytes, where 255 would cut a character, and the closing backtick");
        assert_eq!(answered("SELECT LAST_INSERT_ID(5)"), None);
        assert_eq!(answered("INSERT INTO t VALUES (1); SELECT LAST_INSERT_ID()"), None);
    }
}
