//! Putting text in place of ranges of a statement.

use std::ops::Range;

/// The text with each range replaced. Ranges are in bounds, do not overlap and may come in any order; an empty range inserts.
/// A range out of bounds is left out.
pub fn replace_ranges(sql: &[u8], replacements: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let mut sorted: Vec<&(Range<usize>, Vec<u8>)> = replacements.iter().collect();
    sorted.sort_by_key(|(range, _)| (range.start, range.end));
    let mut out = Vec::with_capacity(sql.len() + 64);
    let mut at = 0;
    for (range, text) in sorted {
        let Some(before) = sql.get(at..range.start) else { continue };
        if range.end > sql.len() || range.end < range.start {
            continue;
        }
        out.extend_from_slice(before);
        out.extend_from_slice(text);
        at = range.end;
    }
    out.extend_from_slice(sql.get(at..).unwrap_or_default());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_replaced_and_text_inserted() {
        let replaced = replace_ranges(b"SELECT f(), 1", &[(7..10, b"5".to_vec()), (10..10, b" AS `f()`".to_vec())]);
        assert_eq!(replaced, b"SELECT 5 AS `f()`, 1");
    }
}
