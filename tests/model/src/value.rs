//! Values of SQL and their arithmetic, as far as the model's grammar needs them.

use std::cmp::Ordering;

/// A decimal number: `digits` / 10^`scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    /// All digits, with the sign.
    pub digits: i128,
    /// How many of them stand after the point.
    pub scale: u8,
}

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// NULL.
    Null,
    /// BIGINT.
    Int(i64),
    /// BIGINT UNSIGNED.
    UInt(u64),
    /// DECIMAL.
    Dec(Decimal),
    /// DOUBLE.
    Double(f64),
    /// A string.
    Str(Vec<u8>),
}

impl Value {
    /// A string value.
    pub fn str(text: impl AsRef<str>) -> Value {
        Value::Str(text.as_ref().as_bytes().to_vec())
    }

    /// 1 or 0.
    pub fn bool(b: bool) -> Value {
        Value::Int(i64::from(b))
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Null)
    }

    /// The text form; `None` for NULL.
    pub fn text(&self) -> Option<Vec<u8>> {
        Some(match self {
            Value::Null => return None,
            Value::Int(n) => n.to_string().into_bytes(),
            Value::UInt(n) => n.to_string().into_bytes(),
            Value::Dec(d) => d.to_string().into_bytes(),
            Value::Double(f) => double_text(*f).into_bytes(),
            Value::Str(s) => s.clone(),
        })
    }

    /// The text form as a string; NULL is empty.
    pub fn string(&self) -> String {
        String::from_utf8_lossy(&self.text().unwrap_or_default()).into_owned()
    }

    /// The number that it stands for; `clean` says whether a string was a number to its end.
    pub fn number(&self) -> (f64, bool) {
        match self {
            Value::Null => (0.0, true),
            Value::Int(n) => (*n as f64, true),
            Value::UInt(n) => (*n as f64, true),
            Value::Dec(d) => (d.to_f64(), true),
            Value::Double(f) => (*f, true),
            Value::Str(s) => number_of(s),
        }
    }

    /// The integer that it stands for, rounded.
    pub fn int(&self) -> i128 {
        match self {
            Value::Int(n) => i128::from(*n),
            Value::UInt(n) => i128::from(*n),
            Value::Dec(d) => d.rescale(0).digits,
            other => round_half_even(other.number().0) as i128,
        }
    }

    /// Whether it counts as true.
    pub fn is_true(&self) -> bool {
        self.number().0 != 0.0
    }

    /// An integer in the smallest type that holds it.
    pub fn from_i128(n: i128) -> Option<Value> {
        i64::try_from(n).map(Value::Int).or_else(|_| u64::try_from(n).map(Value::UInt)).ok()
    }
}

fn round_half_even(f: f64) -> f64 {
    f.round_ties_even()
}

/// What a double looks like.
pub fn double_text(f: f64) -> String {
    let size = f.abs();
    if size != 0.0 && !(1e-15..1e15).contains(&size) { format!("{f:e}") } else { format!("{f}") }
}

/// The number at the start of a text, and whether nothing but spaces follows it.
pub fn number_of(s: &[u8]) -> (f64, bool) {
    let text = String::from_utf8_lossy(s);
    let text = text.trim_start();
    let mut end = 0;
    let mut seen = (false, false, false);
    for (i, c) in text.char_indices() {
        match c {
            '0'..='9' => seen.0 = true,
            '+' | '-' if i == 0 => continue,
            '.' if !seen.1 && !seen.2 => {
                seen.1 = true;
                continue;
            }
            'e' | 'E' if seen.0 && !seen.2 => {
                seen.2 = true;
                continue;
            }
            '+' | '-' if text[..i].ends_with(['e', 'E']) => continue,
            _ => break,
        }
        end = i + 1;
    }
    let number = text[..end].parse().unwrap_or(0.0);
    (number, seen.0 && text[end..].trim_end().is_empty())
}

impl Decimal {
    /// Reads digits with a point.
    pub fn parse(text: &str) -> Option<Decimal> {
        let (whole, part) = text.split_once('.').unwrap_or((text, ""));
        let digits = format!("{whole}{part}").parse().ok()?;
        Some(Decimal { digits, scale: u8::try_from(part.len()).ok()? })
    }

    /// The same number with another scale, rounded half away from zero.
    pub fn rescale(self, scale: u8) -> Decimal {
        if scale >= self.scale {
            let by = 10i128.pow(u32::from(scale - self.scale));
            return Decimal { digits: self.digits * by, scale };
        }
        let by = 10i128.pow(u32::from(self.scale - scale));
        let half = if self.digits < 0 { -by / 2 } else { by / 2 };
        Decimal { digits: (self.digits + half) / by, scale }
    }

    /// As a double.
    pub fn to_f64(self) -> f64 {
        self.to_string().parse().unwrap_or(0.0)
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let sign = if self.digits < 0 { "-" } else { "" };
        let size = self.digits.unsigned_abs();
        let by = 10u128.pow(u32::from(self.scale));
        match self.scale {
            0 => write!(f, "{sign}{size}"),
            scale => write!(f, "{sign}{}.{:0width$}", size / by, size % by, width = usize::from(scale)),
        }
    }
}

/// As a decimal, if it is a number that is exact.
fn exact(v: &Value) -> Option<Decimal> {
    match v {
        Value::Int(n) => Some(Decimal { digits: i128::from(*n), scale: 0 }),
        Value::UInt(n) => Some(Decimal { digits: i128::from(*n), scale: 0 }),
        Value::Dec(d) => Some(*d),
        _ => None,
    }
}

/// `+`, `-` or `*`; `None` where the result is out of range.
pub fn arithmetic(op: u8, a: &Value, b: &Value) -> Option<Value> {
    if a.is_null() || b.is_null() {
        return Some(Value::Null);
    }
    let (Some(x), Some(y)) = (exact(a), exact(b)) else {
        let (x, y) = (a.number().0, b.number().0);
        return Some(Value::Double(match op {
            b'+' => x + y,
            b'-' => x - y,
            _ => x * y,
        }));
    };
    let whole = !matches!(a, Value::Dec(_)) && !matches!(b, Value::Dec(_));
    let scale = x.scale.max(y.scale);
    let made = match op {
        b'+' => Decimal { digits: x.rescale(scale).digits.checked_add(y.rescale(scale).digits)?, scale },
        b'-' => Decimal { digits: x.rescale(scale).digits.checked_sub(y.rescale(scale).digits)?, scale },
        _ => Decimal { digits: x.digits.checked_mul(y.digits)?, scale: x.scale + y.scale },
    };
    if !whole {
        return Some(Value::Dec(made));
    }
    // An unsigned operand makes the result unsigned.
    if matches!(a, Value::UInt(_)) || matches!(b, Value::UInt(_)) {
        return u64::try_from(made.digits).ok().map(Value::UInt);
    }
    i64::try_from(made.digits).ok().map(Value::Int)
}

/// How two values compare; `None` if one is NULL. Strings compare without regard to case and to spaces at their ends.
pub fn compare(a: &Value, b: &Value) -> Option<Ordering> {
    match (a, b) {
        (Value::Null, _) | (_, Value::Null) => None,
        (Value::Str(x), Value::Str(y)) => Some(folded(x).cmp(&folded(y))),
        _ => match (exact(a), exact(b)) {
            (Some(x), Some(y)) => {
                let scale = x.scale.max(y.scale);
                Some(x.rescale(scale).digits.cmp(&y.rescale(scale).digits))
            }
            _ => a.number().0.partial_cmp(&b.number().0),
        },
    }
}

fn folded(s: &[u8]) -> Vec<u8> {
    let end = s.iter().rposition(|b| *b != b' ').map_or(0, |i| i + 1);
    s[..end].to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_and_print_as_on_a_server() {
        assert_eq!(number_of(b"17 apples"), (17.0, false));
        assert_eq!(number_of(b"1.5e1 "), (15.0, true));
        assert_eq!(number_of(b"x"), (0.0, false));
        assert_eq!(Decimal::parse("-0.05").unwrap().to_string(), "-0.05");
        assert_eq!(Decimal { digits: 25, scale: 1 }.rescale(0).digits, 3);
        assert_eq!(double_text(1000.0), "1000");
        assert_eq!(
            arithmetic(b'*', &Value::Int(2), &Value::Dec(Decimal::parse("3.1").unwrap())).unwrap().string(),
            "6.2"
        );
    }
}
