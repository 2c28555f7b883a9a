//! The value of a parameter of COM_STMT_EXECUTE where a server wants an integer.

/// The integer that a server makes of a value of this type (as observed of MariaDB 10.11), which starts at `value`. `None`: it is cut short, or of a type
/// that nobody sends for a number.
pub fn as_integer(type_byte: u8, unsigned: bool, value: &[u8]) -> Option<i128> {
    let little = |width: usize| {
        let bytes = value.get(..width)?;
        let magnitude = bytes.iter().rev().fold(0u64, |n, byte| n << 8 | u64::from(*byte));
        let bits = 64 - 8 * u32::try_from(width).ok()?;
        // Shifted up and down again, the sign fills what is missing.
        Some(if unsigned { i128::from(magnitude) } else { i128::from((magnitude << bits).cast_signed() >> bits) })
    };
    match type_byte {
        0x01 => little(1),
        0x02 => little(2),
        0x03 => little(4),
        0x08 => little(8),
        0x04 => rounded(f64::from(f32::from_le_bytes(value.get(..4)?.try_into().ok()?))),
        0x05 => rounded(f64::from_le_bytes(value.get(..8)?.try_into().ok()?)),
        0x00 | 0xF6 => decimal(text(value)?),
        0x0F | 0xF9..=0xFE => Some(leading(text(value)?)),
        _ => None,
    }
}

/// Servers round halves to even, and stay within 64 bits.
fn rounded(value: f64) -> Option<i128> {
    (!value.is_nan()).then_some(i128::from(value.round_ties_even() as i64))
}

/// The bytes of a length-encoded text that is short enough to be a number.
fn text(value: &[u8]) -> Option<&[u8]> {
    let (&len, rest) = value.split_first()?;
    (len <= 250).then(|| rest.get(..usize::from(len))).flatten()
}

/// The integer at the start of a text; 0 where there is none.
fn leading(text: &[u8]) -> i128 {
    let text = text.trim_ascii_start();
    let (negative, digits) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, text),
    };
    let value = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .take(30)
        .fold(0i128, |n, byte| n * 10 + i128::from(byte - b'0'));
    if negative { (-value).max(i128::from(i64::MIN)) } else { value.min(i128::from(u64::MAX)) }
}

/// The text of a DECIMAL, rounded halves away from zero.
fn decimal(text: &[u8]) -> Option<i128> {
    let plain = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.');
    if !text.iter().all(plain) {
        return None;
    }
    let whole = leading(text);
    let point = text.iter().position(|byte| *byte == b'.');
    let up = point.and_then(|at| text.get(at + 1)).is_some_and(|digit| *digit >= b'5');
    Some(if !up {
        whole
    } else if text.first() == Some(&b'-') {
        whole - 1
    } else {
        whole + 1
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_text(type_byte: u8, text: &str) -> Option<i128> {
        let mut value = vec![text.len() as u8];
        value.extend_from_slice(text.as_bytes());
        as_integer(type_byte, false, &value)
    }

    #[test]
    fn numbers_are_what_servers_make_of_them() {
        assert_eq!(as_integer(1, false, &[255]), Some(-1));
        assert_eq!(as_integer(1, true, &[255]), Some(255));
        assert_eq!(as_integer(2, false, &[0, 128]), Some(-32_768));
        assert_eq!(as_integer(3, false, &1_073_741_825u32.to_le_bytes()), Some(1_073_741_825));
        assert_eq!(as_integer(8, true, &[255; 8]), Some(i128::from(u64::MAX)));
        assert_eq!(as_integer(8, false, &[255; 8]), Some(-1));
        assert_eq!(as_integer(5, false, &99_999_999.5f64.to_le_bytes()), Some(100_000_000));
        assert_eq!(as_integer(5, false, &2_000_000_002.5f64.to_le_bytes()), Some(2_000_000_002));
        assert_eq!(as_integer(5, false, &1e30f64.to_le_bytes()), Some(i128::from(i64::MAX)));
        assert_eq!(as_integer(4, false, &77_777.5f32.to_le_bytes()), Some(77_778));
    }

    #[test]
    fn texts_count_as_far_as_they_are_numbers() {
        for (text, wanted) in [
            ("99999999", 99_999_999),
            ("99999999x", 99_999_999),
            ("", 0),
            ("x", 0),
            ("7.7", 7),
            ("-1", -1),
            ("1e3", 1),
            (" 8", 8),
        ] {
            assert_eq!(of_text(0xFD, text), Some(wanted), "{text}");
        }
        assert_eq!(of_text(0xFE, "999999999999999999999999999999999999"), Some(i128::from(u64::MAX)));
        assert_eq!(of_text(0xF6, "99999999.5"), Some(100_000_000));
        assert_eq!(of_text(0xF6, "-7.4"), Some(-7));
        assert_eq!(of_text(0xF6, "-7.5"), Some(-8));
    }

    #[test]
    fn nothing_is_read_beyond_the_end_or_of_other_types() {
        for type_byte in 0..=255 {
            assert_eq!(as_integer(type_byte, false, &[]), None);
        }
        assert_eq!(as_integer(8, false, &[1; 7]), None);
        assert_eq!(as_integer(0xFD, false, &[5, b'1']), None);
        for other in [6, 7, 10, 11, 12, 13, 16, 0xF5, 0xFF] {
            assert_eq!(as_integer(other, false, &[1; 12]), None);
        }
    }
}
