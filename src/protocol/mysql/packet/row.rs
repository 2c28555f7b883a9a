//! Rows of the text protocol: an iterator over their values, and the writer of belay's own small answers.

use bytes::{BufMut, BytesMut};

use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_str};

/// The values of one text row, in column order; `None` is NULL. After an error the iterator ends.
#[derive(Clone, Copy, Debug)]
pub struct TextRow<'a> {
    reader: Reader<'a>,
}

impl<'a> TextRow<'a> {
    /// The values of the row in `payload` (all frames of it joined).
    pub fn new(payload: &'a [u8]) -> TextRow<'a> {
        TextRow { reader: Reader::new(payload) }
    }
}

impl<'a> Iterator for TextRow<'a> {
    type Item = Result<Option<&'a [u8]>, DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let value = self.reader.text_value("row value");
        if value.is_err() {
            self.reader.take_rest();
        }
        Some(value)
    }
}

/// Appends one value of a text row.
pub fn put_text_value(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        Some(value) => put_lenenc_str(out, value),
        None => out.put_u8(0xFB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nulls_and_values_are_told_apart() {
        let row: Vec<_> = TextRow::new(b"\xfb\x011\x00").map(Result::unwrap).collect();
        assert_eq!(row, [None, Some(&b"1"[..]), Some(&b""[..])]);
    }

    proptest! {
        #[test]
        fn rows_survive_a_round_trip(values in proptest::collection::vec(any::<Option<Vec<u8>>>(), 0..8)) {
            let mut out = BytesMut::new();
            for value in &values {
                put_text_value(&mut out, value.as_deref());
            }
            let read: Result<Vec<_>, _> = TextRow::new(&out).collect();
            prop_assert_eq!(read.unwrap(), values.iter().map(|v| v.as_deref()).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert!(TextRow::new(&bytes).count() <= bytes.len());
        }
    }
}
