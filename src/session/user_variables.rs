//! User variables that follow a client: their names, their values as literals, and how they are read and set.
//!
//! No server reports them, so a server session is asked: the value's type is in the metadata of the column, its bytes in HEX(), its collation in
//! COLLATION(). What can't be written as a literal that makes the same variable again is not followed: it pins.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::mysql::flavor::Flavor;
use crate::sql::{Effects, Facts, Literal, SetScope, StatementCount, Verb};

/// What a user variable holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UserValue {
    /// The expression that makes it; of a NULL one of its type.
    literal: Bytes,
    /// It is NULL: a variable that is set to NULL keeps the type it had.
    null: bool,
}

/// The type of a column of an answer, as far as user variables have types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ValueType {
    /// BIGINT.
    Signed,
    /// BIGINT UNSIGNED.
    Unsigned,
    /// DECIMAL.
    Decimal,
    /// DOUBLE.
    Double,
    /// Anything else.
    Text,
}

impl ValueType {
    /// By the type byte of a column definition and its unsigned flag.
    pub fn of(type_byte: u8, unsigned: bool) -> ValueType {
        match type_byte {
            0x08 if unsigned => ValueType::Unsigned,
            0x08 => ValueType::Signed,
            0xF6 | 0x00 => ValueType::Decimal,
            0x05 => ValueType::Double,
            _ => ValueType::Text,
        }
    }
}

/// Whether the type byte of a column tells all of a user variable's type. OceanBase's variables are of many more types than those of other servers
/// (TINYINT of TRUE, FLOAT, JSON, DECIMAL with a length of its own), and no literal makes these again. Its binary texts (`binary`) may be numbers written
/// in hexadecimal, which they stay.
pub fn tells_type(flavor: Flavor, type_byte: u8, binary: bool) -> bool {
    flavor != Flavor::OceanBase || type_byte == 0x08 || type_byte == 0xFD && !binary
}

impl UserValue {
    /// The value of an integer literal.
    pub fn integer(value: i64) -> UserValue {
        UserValue { literal: Bytes::from(value.to_string()), null: false }
    }

    /// From an answer: the type, the value's text, its bytes in hexadecimal, its collation. `None` if no literal makes it again for certain.
    pub fn read(kind: ValueType, text: Option<&[u8]>, hex: Option<&[u8]>, collation: &[u8]) -> Option<UserValue> {
        let number = |text: &[u8], more: &[u8]| {
            let digits = |b: &u8| b.is_ascii_digit() || *b == b'-' || more.contains(b);
            (!text.is_empty() && text.len() <= 400 && text.iter().all(digits)).then(|| Bytes::copy_from_slice(text))
        };
        let zero: &[u8] = b"0";
        let value = text.unwrap_or(zero);
        let literal = match kind {
            ValueType::Signed => number(value, b"")?,
            ValueType::Unsigned => {
                number(value, b"")?;
                Bytes::from([b"CAST(", value, b" AS UNSIGNED)"].concat())
            }
            ValueType::Decimal => {
                number(value, b".")?;
                let dot: &[u8] = if value.contains(&b'.') { b"" } else { b"." };
                Bytes::from([value, dot].concat())
            }
            // The sign of a zero is lost on the way on MariaDB.
            ValueType::Double if value == b"-0" => return None,
            ValueType::Double => {
                number(value, b".e+")?;
                let exponent: &[u8] = if value.contains(&b'e') { b"" } else { b"e0" };
                Bytes::from([value, exponent].concat())
            }
            ValueType::Text => text_literal(text.and(hex), collation, text.is_some())?,
        };
        Some(UserValue { literal, null: text.is_none() })
    }

    /// Its value, if it is an integer, a text of digits alone, or NULL (which is 0 where a number is wanted).
    pub fn as_integer(&self) -> Option<i128> {
        if self.null {
            return Some(0);
        }
        let number = |text: &[u8]| std::str::from_utf8(text).ok()?.parse().ok();
        let unsigned = self.literal.strip_prefix(b"CAST(").and_then(|rest| rest.strip_suffix(b" AS UNSIGNED)"));
        number(unsigned.unwrap_or(&self.literal)).or_else(|| number(&self.as_text().filter(|t| t.len() <= 20)?))
    }

    /// Its value, if it is a text of ASCII.
    pub fn as_text(&self) -> Option<Vec<u8>> {
        let literal = std::str::from_utf8(&self.literal).ok().filter(|l| !self.null && l.starts_with('_'))?;
        let (_, rest) = literal.split_once(" x'")?;
        let (hex, _) = rest.split_once('\'')?;
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
        hex.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>().filter(|text| text.is_ascii())
    }

    /// What a variable that was never set is for a statement that names it: a binary NULL.
    pub fn never_set() -> UserValue {
        UserValue { literal: Bytes::from_static(b"_binary x''"), null: true }
    }

    /// The type alone, with the collation of a text: MySQL reads it when it prepares a statement that names the variable, and keeps to it.
    pub fn kind(&self) -> (ValueType, &[u8]) {
        let literal = self.literal.as_ref();
        if literal.first() == Some(&b'_') {
            let collation = literal.rsplit(|b| *b == b' ').next().filter(|word| !word.starts_with(b"x'"));
            return (ValueType::Text, collation.unwrap_or(b"binary"));
        }
        let kind = match literal {
            _ if literal.starts_with(b"CAST(") => ValueType::Unsigned,
            _ if literal.contains(&b'e') => ValueType::Double,
            _ if literal.contains(&b'.') => ValueType::Decimal,
            _ => ValueType::Signed,
        };
        (kind, b"")
    }

    /// Bytes that it takes to say it.
    pub fn size(&self) -> usize {
        self.literal.len()
    }

    /// Appends `@`name`=literal`.
    fn assign(&self, name: &str, out: &mut Vec<u8>) {
        put_assignment(name, &self.literal, out);
        if self.null {
            put_assignment(name, b"NULL", out);
        }
    }
}

/// `_charset x'…' COLLATE collation`. Literals of a character set must be valid in it, or the server refuses them.
fn text_literal(hex: Option<&[u8]>, collation: &[u8], present: bool) -> Option<Bytes> {
    let hex = if present { hex? } else { b"" };
    let word = !collation.is_empty() && collation.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    if !word || hex.len() % 2 != 0 || !hex.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    if collation == b"binary" {
        return Some(Bytes::from([b"_binary x'", hex, b"'"].concat()));
    }
    let charset = collation.split(|b| *b == b'_').next()?;
    let bytes: Vec<u8> =
        hex.chunks_exact(2).filter_map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
    let valid = match charset {
        b"latin1" => true,
        b"utf8mb4" => std::str::from_utf8(&bytes).is_ok(),
        b"utf8mb3" | b"utf8" => std::str::from_utf8(&bytes).is_ok_and(|s| s.chars().all(|c| (c as u32) < 0x1_0000)),
        b"ucs2" | b"utf16" | b"utf16le" | b"utf32" => bytes.is_empty(),
        _ => bytes.is_ascii(),
    };
    valid.then(|| Bytes::from([b"_", charset, b" x'", hex, b"' COLLATE ", collation].concat()))
}

fn put_assignment(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"@`");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"`=");
    out.extend_from_slice(value);
    out.push(b',');
}

/// The user variables of a session, by lower-case name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct UserVariables {
    /// Sorted by name.
    values: Vec<(Arc<str>, UserValue)>,
}

impl UserVariables {
    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&UserValue> {
        let at = self.values.binary_search_by(|(n, _)| n.as_ref().cmp(name)).ok()?;
        self.values.get(at).map(|(_, value)| value)
    }

    /// Records a value.
    pub fn set(&mut self, name: &Arc<str>, value: UserValue) {
        match self.values.binary_search_by(|(n, _)| n.cmp(name)) {
            Ok(at) => {
                if let Some(slot) = self.values.get_mut(at) {
                    slot.1 = value;
                }
            }
            Err(at) => self.values.insert(at, (name.clone(), value)),
        }
    }

    /// All of them in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &UserValue)> {
        self.values.iter().map(|(name, value)| (name, value))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of names and values.
    pub fn size(&self) -> usize {
        self.values.iter().map(|(name, value)| name.len() + value.size()).sum()
    }
}

/// What differs between two sessions: names with the value they must get, `None` for one that must be NULL.
pub fn differing(want: &UserVariables, have: &UserVariables) -> Vec<(Arc<str>, Option<UserValue>)> {
    let set = want.iter().filter(|(name, value)| have.get(name) != Some(value));
    let unset = have.iter().filter(|(name, _)| want.get(name).is_none());
    set.map(|(name, value)| (name.clone(), Some(value.clone())))
        .chain(unset.map(|(name, _)| (name.clone(), None)))
        .collect()
}

/// The assignments of [`differing`], each with a comma behind it.
pub fn put_assignments(differences: &[(Arc<str>, Option<UserValue>)], out: &mut Vec<u8>) {
    for (name, value) in differences {
        match value {
            Some(value) => value.assign(name, out),
            None => put_assignment(name, b"NULL", out),
        }
    }
}

/// The statement that reads variables: three columns each. Without a row they are larger than `bytes_max` together.
pub fn reading(names: &[Arc<str>], bytes_max: usize) -> Vec<u8> {
    let mut columns = String::new();
    let mut size = String::from("0");
    for name in names {
        let comma = if columns.is_empty() { "" } else { "," };
        columns += &format!("{comma}@`{name}`,HEX(@`{name}`),COLLATION(@`{name}`)");
        size += &format!("+COALESCE(LENGTH(@`{name}`),0)");
    }
    format!("SELECT {columns} FROM DUAL WHERE {size}<={bytes_max}").into_bytes()
}

/// The user variables that a statement names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// Those that it may write.
    pub written: Vec<Arc<str>>,
    /// All that it mentions.
    pub mentioned: Vec<Arc<str>>,
    /// The values, if the text says what each of the written ones is afterwards.
    pub known: Option<Vec<UserValue>>,
    /// The names are not all that it may touch, or belay can't write one of them.
    pub more: bool,
}

/// The longest name of a user variable on every server, in characters.
const NAME_CHARACTERS_MAX: usize = 64;

fn plain_name(name: &[u8]) -> Option<Arc<str>> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.');
    if name.is_empty() || name.len() > NAME_CHARACTERS_MAX || !name.iter().all(plain) {
        return None;
    }
    Some(Arc::from(std::str::from_utf8(name).ok()?.to_ascii_lowercase()))
}

/// What the facts of a text say about user variables; `None` for a text that mentions none.
pub fn named(sql: &[u8], facts: &Facts) -> Option<Arc<Named>> {
    if facts.user_variables.is_empty() && !facts.effects.contains(Effects::USER_VARIABLE_WRITE) {
        return None;
    }
    let hidden = Effects::ROUTINE
        | Effects::UNKNOWN
        | Effects::TEXT_EXECUTE
        | Effects::CUT_SHORT
        | Effects::USER_VARIABLES_UNNAMED;
    let mut named = Named { more: !facts.certain || facts.effects.intersects(hidden), ..Named::default() };
    for variable in &facts.user_variables {
        let Some(name) = plain_name(variable.name.of(sql)) else {
            named.more = true;
            continue;
        };
        if variable.written && !named.written.contains(&name) {
            named.written.push(name.clone());
        }
        if !named.mentioned.contains(&name) {
            named.mentioned.push(name);
        }
    }
    let plain_set = facts.statements == StatementCount::One && facts.verb == Verb::Set && !named.more;
    if plain_set && facts.set.len() == named.written.len() && named.written.len() == named.mentioned.len() {
        let value = |item: &crate::sql::SetItem| match (item.scope, item.literal) {
            // The smallest number is an expression of another type on its way.
            (SetScope::User, Some(Literal::Integer(n))) if n > i128::from(i64::MIN) => i64::try_from(n).ok(),
            _ => None,
        };
        named.known = facts.set.iter().map(|item| value(item).map(UserValue::integer)).collect();
    }
    Some(Arc::new(named))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::{LexContext, analyse};
    use proptest::prelude::*;

    fn read(kind: ValueType, text: &str) -> String {
        let hex: String = text.bytes().map(|b| format!("{b:02X}")).collect();
        let value = UserValue::read(kind, Some(text.as_bytes()), Some(hex.as_bytes()), b"utf8mb4_bin");
        value.map_or_else(|| "pins".into(), |v| String::from_utf8(v.literal.to_vec()).unwrap())
    }

    fn names(sql: &str) -> String {
        let Some(named) = named(sql.as_bytes(), &analyse(sql.as_bytes(), &LexContext::default())) else {
            return "none".into();
        };
        format!("{} / {}{}", named.written.join(","), named.mentioned.join(","), if named.more { " +" } else { "" })
    }

    #[test]
    fn literals_keep_the_type() {
        assert_eq!(read(ValueType::Signed, "-7"), "-7");
        assert_eq!(read(ValueType::Unsigned, "7"), "CAST(7 AS UNSIGNED)");
        assert_eq!(read(ValueType::Decimal, "3"), "3.");
        assert_eq!(read(ValueType::Decimal, "-3.50"), "-3.50");
        assert_eq!(read(ValueType::Double, "1.5"), "1.5e0");
        assert_eq!(read(ValueType::Double, "5e-324"), "5e-324");
        assert_eq!(read(ValueType::Double, "-0"), "pins");
        assert_eq!(read(ValueType::Text, "é"), "_utf8mb4 x'C3A9' COLLATE utf8mb4_bin");
        assert_eq!(read(ValueType::Signed, "1);DROP"), "pins");
    }

    #[test]
    fn a_value_is_read_back() {
        let of = |kind, text: &str| {
            let hex: String = text.bytes().map(|b| format!("{b:02X}")).collect();
            UserValue::read(kind, Some(text.as_bytes()), Some(hex.as_bytes()), b"utf8mb4_bin").unwrap()
        };
        assert_eq!(of(ValueType::Unsigned, "1073741825").as_integer(), Some(1_073_741_825));
        assert_eq!(of(ValueType::Signed, "-7").as_integer(), Some(-7));
        assert_eq!(of(ValueType::Text, "12").as_integer(), Some(12));
        assert_eq!(UserValue::read(ValueType::Signed, None, None, b"binary").unwrap().as_integer(), Some(0));
        assert_eq!(of(ValueType::Text, "KILL 7").as_text().as_deref(), Some(&b"KILL 7"[..]));
        assert_eq!(of(ValueType::Text, "KILL 7").as_integer(), None);
        assert_eq!(of(ValueType::Text, "é").as_text(), None);
        assert_eq!(of(ValueType::Double, "7.5").as_integer(), None);
        assert_eq!(of(ValueType::Signed, "7").as_text(), None);
    }

    #[test]
    fn oceanbase_tells_integers_and_texts_only() {
        assert!(tells_type(Flavor::OceanBase, 0x08, true) && tells_type(Flavor::OceanBase, 0xFD, false));
        for other in [0x00, 0x01, 0x04, 0x05, 0xF5, 0xF6, 0xFD] {
            assert!(!tells_type(Flavor::OceanBase, other, true) && tells_type(Flavor::MariaDb, other, true));
        }
    }

    #[test]
    fn bytes_that_a_literal_may_not_hold_pin() {
        let read = |hex: &str, collation: &str| {
            UserValue::read(ValueType::Text, Some(b"?"), Some(hex.as_bytes()), collation.as_bytes()).is_some()
        };
        assert!(read("E9", "latin1_bin") && read("00FF", "binary") && read("41", "gbk_bin"));
        assert!(!read("E9", "utf8mb4_bin") && !read("F09F9880", "utf8mb3_bin") && !read("8140", "gbk_bin"));
        assert!(!read("0041", "utf16_bin") && !read("4", "binary") && !read("41", "a b"));
    }

    #[test]
    fn the_lexer_names_what_is_written_and_what_is_read() {
        assert_eq!(names("SELECT 1"), "none");
        assert_eq!(names("SET @a = 1, @B = @c"), "a,b / a,b,c");
        assert_eq!(names("SELECT @a := @b + 1"), "a / a,b");
        assert_eq!(names("SELECT 1, 2 INTO @`x.y`, @z"), "x.y,z / x.y,z");
        assert_eq!(names("SET @'a b' = 1"), " /  +");
        assert_eq!(names("SELECT @x, some_function()"), " / x +");
    }

    #[test]
    fn only_integers_are_known_without_asking() {
        let known = |sql: &str| {
            named(sql.as_bytes(), &analyse(sql.as_bytes(), &LexContext::default())).unwrap().known.is_some()
        };
        assert!(known("SET @a = 5") && known("SET @a = -5, @b := 7"));
        assert!(!known("SET @a = 'x'") && !known("SET @a = 5, @a = 6") && !known("SET @a = 5, sql_mode = ''"));
        assert!(!known("SET @a = 18446744073709551615") && !known("SET @a = @b := 5") && !known("SET @a = NULL"));
        assert!(!known("SET @a = 5; SELECT 1"));
    }

    const NAMES: [&str; 4] = ["a", "b", "c", "d"];

    fn any_variables() -> impl Strategy<Value = UserVariables> {
        proptest::collection::vec((0..NAMES.len(), -2i64..2), 0..6).prop_map(|sets| {
            let mut variables = UserVariables::default();
            for (name, value) in sets {
                variables.set(&Arc::from(NAMES[name]), UserValue::integer(value));
            }
            variables
        })
    }

    proptest! {
        #[test]
        fn the_difference_leads_from_one_to_the_other(want in any_variables(), have in any_variables()) {
            let mut after = have.clone();
            for (name, value) in differing(&want, &have) {
                after.values.retain(|(n, _)| *n != name);
                if let Some(value) = value {
                    after.set(&name, value);
                }
            }
            prop_assert_eq!(&after, &want);
            prop_assert!(differing(&want, &after).is_empty());
        }

        #[test]
        fn a_text_survives_its_literal(text in ".{0,40}") {
            let hex: String = text.bytes().map(|b| format!("{b:02X}")).collect();
            prop_assert_eq!(read(ValueType::Text, &text), format!("_utf8mb4 x'{hex}' COLLATE utf8mb4_bin"));
        }
    }
}
