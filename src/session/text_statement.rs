//! Prepared statements of SQL's own: PREPARE, EXECUTE and DEALLOCATE PREPARE, under the client's names.
//!
//! A client's name is nothing that another client may see, and the statement behind it is prepared on whatever server session executes it. Only what
//! the text says for certain is followed: a statement in a plain literal that reads or writes rows. All else keeps the server session.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::state::ParseState;
use super::user_variables::Named;
use crate::sql::{Effects, Facts, LexContext, MultiByte, StatementCount, TransactionControl, Verb};

/// A statement that PREPARE has made.
#[derive(Debug)]
pub struct TextStatement {
    /// The whole PREPARE, to be said again.
    pub prepare: Bytes,
    /// The statement that it prepares.
    pub source: Bytes,
    /// What the lexer saw in that.
    pub facts: Facts,
    /// The user variables that it names.
    pub named: Option<Arc<Named>>,
    /// What it was understood by.
    pub parsed: Arc<ParseState>,
}

/// Statements by name: those of a client, or those that a server session holds of its clients.
#[derive(Debug, Default)]
pub struct TextStatements {
    by_name: HashMap<Arc<str>, Arc<TextStatement>>,
    bytes: usize,
}

impl TextStatements {
    /// The statement of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<TextStatement>> {
        self.by_name.get(name)
    }

    /// Whether it is this very one.
    pub fn has(&self, name: &str, statement: &Arc<TextStatement>) -> bool {
        self.get(name).is_some_and(|there| Arc::ptr_eq(there, statement))
    }

    /// Adds one, in place of another of its name.
    pub fn insert(&mut self, name: Arc<str>, statement: Arc<TextStatement>) {
        self.remove(&name);
        self.bytes += statement.prepare.len();
        self.by_name.insert(name, statement);
    }

    /// Forgets one.
    pub fn remove(&mut self, name: &str) {
        if let Some(statement) = self.by_name.remove(name) {
            self.bytes -= statement.prepare.len();
        }
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = TextStatements::default();
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The length of all their texts.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<TextStatement>)> {
        self.by_name.iter()
    }
}

/// What a text says about a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// `PREPARE name FROM 'source'`
    Prepare {
        /// The name, in lower case: servers do not tell case apart.
        name: Arc<str>,
        /// The statement.
        source: Vec<u8>,
    },
    /// `EXECUTE name [USING @a, …]`
    Execute {
        /// The name.
        name: Arc<str>,
        /// The user variables, in lower case.
        using: Vec<Arc<str>>,
    },
    /// `DEALLOCATE PREPARE name`, `DROP PREPARE name`
    Deallocate {
        /// The name.
        name: Arc<str>,
    },
}

/// The longest name that belay follows, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// Reads a text of exactly one of these forms, without comments; `None`: it is another one, and whoever asks must not rely on it.
pub fn read(sql: &[u8], cx: &LexContext) -> Option<Said> {
    if cx.multibyte != MultiByte::None {
        return None;
    }
    let mut text = Text { rest: sql };
    let said = match text.word()? {
        word if word.eq_ignore_ascii_case(b"PREPARE") => {
            let name = text.name()?;
            text.keyword(b"FROM")?;
            Said::Prepare { name, source: text.literal(cx)? }
        }
        word if word.eq_ignore_ascii_case(b"EXECUTE") => {
            let (name, mut using) = (text.name()?, Vec::new());
            if !text.at_end() {
                text.keyword(b"USING")?;
                using.push(text.user_variable()?);
                while text.byte(b',') {
                    using.push(text.user_variable()?);
                }
            }
            Said::Execute { name, using }
        }
        word if word.eq_ignore_ascii_case(b"DEALLOCATE") || word.eq_ignore_ascii_case(b"DROP") => {
            text.keyword(b"PREPARE")?;
            Said::Deallocate { name: text.name()? }
        }
        _ => return None,
    };
    text.at_end().then_some(said)
}

/// A text that runs another one, which it brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immediate {
    /// The other text.
    pub source: Source,
    /// What stands for its parameters.
    pub using: Vec<Value>,
}

/// Where the text of a statement is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Here.
    Text(Vec<u8>),
    /// In this user variable (lower case).
    Variable(Arc<str>),
}

/// A value for a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An integer.
    Integer(i128),
    /// What this user variable (lower case) holds.
    Variable(Arc<str>),
}

/// Reads `EXECUTE IMMEDIATE 'text' [USING @a, 7, …]` (MariaDB), as strictly as [`read`].
pub fn read_immediate(sql: &[u8], cx: &LexContext) -> Option<Immediate> {
    let mut text = Text { rest: sql };
    if cx.multibyte != MultiByte::None {
        return None;
    }
    text.keyword(b"EXECUTE")?;
    text.keyword(b"IMMEDIATE")?;
    let source = text.source(cx)?;
    Some(Immediate { source, using: text.using()? })
}

/// Reads `EXECUTE name [USING @a, 7, …]` (integers: MariaDB), as strictly as [`read`]: the name in lower case and the values.
pub fn read_execution(sql: &[u8], cx: &LexContext) -> Option<(Arc<str>, Vec<Value>)> {
    let mut text = Text { rest: sql };
    if cx.multibyte != MultiByte::None {
        return None;
    }
    text.keyword(b"EXECUTE")?;
    let name = text.name()?;
    Some((name, text.using()?))
}

/// Reads `PREPARE name FROM @variable`: the name and the variable, both in lower case.
pub fn read_prepare_from_variable(sql: &[u8], cx: &LexContext) -> Option<(Arc<str>, Arc<str>)> {
    let mut text = Text { rest: sql };
    if cx.multibyte != MultiByte::None {
        return None;
    }
    text.keyword(b"PREPARE")?;
    let name = text.name()?;
    text.keyword(b"FROM")?;
    let Source::Variable(variable) = text.source(cx)? else { return None };
    text.at_end().then_some((name, variable))
}

/// Whether it is a KILL and nothing else, whose executions belay carries out itself.
pub fn is_kill(facts: &Facts) -> bool {
    facts.kill.is_some() && facts.verb == Verb::Kill && facts.statements == StatementCount::One
}

/// The statement in a text of exactly the form `PREPARE name FROM 'source'` or `EXECUTE IMMEDIATE 'source' …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// Where its literal stands.
    literal: Range<usize>,
    /// What it says.
    pub text: Vec<u8>,
    /// It is executed at once.
    pub immediate: bool,
}

impl Quoted {
    /// Reads it; `None`: the text is of another form.
    pub fn read(sql: &[u8], cx: &LexContext) -> Option<Quoted> {
        if cx.multibyte != MultiByte::None {
            return None;
        }
        let mut text = Text { rest: sql };
        let immediate = match text.word()? {
            word if word.eq_ignore_ascii_case(b"PREPARE") => {
                text.name()?;
                text.keyword(b"FROM")?;
                false
            }
            word if word.eq_ignore_ascii_case(b"EXECUTE") => {
                text.keyword(b"IMMEDIATE")?;
                true
            }
            _ => return None,
        };
        text.skip_space();
        let start = sql.len() - text.rest.len();
        let source = text.literal(cx)?;
        let literal = start..sql.len() - text.rest.len();
        // Another literal behind it would be part of it.
        let ends = text.at_end() || immediate && text.keyword(b"USING").is_some();
        ends.then_some(Quoted { literal, text: source, immediate })
    }

    /// The text with another statement in its place.
    pub fn replaced(&self, sql: &[u8], source: &[u8], cx: &LexContext) -> Vec<u8> {
        let mut out = Vec::with_capacity(sql.len() + source.len());
        out.extend_from_slice(sql.get(..self.literal.start).unwrap_or_default());
        out.push(b'\'');
        for byte in source {
            if *byte == b'\'' || *byte == b'\\' && !cx.no_backslash_escapes {
                out.push(*byte);
            }
            out.push(*byte);
        }
        out.push(b'\'');
        out.extend_from_slice(sql.get(self.literal.end..).unwrap_or_default());
        out
    }
}

/// Whether belay can follow a statement: it reads or writes rows, names nothing that belay would have to read out of its text, and hides nothing.
pub fn can_follow(facts: &Facts) -> bool {
    const HARMLESS: Effects =
        Effects::USER_VARIABLE_READ.union(Effects::USER_VARIABLE_WRITE).union(Effects::CALC_FOUND_ROWS);
    let verb = matches!(
        facts.verb,
        Verb::Select | Verb::Insert | Verb::Update | Verb::Delete | Verb::Replace | Verb::Values | Verb::Table
    );
    verb && facts.certain
        && facts.statements == StatementCount::One
        && facts.txn == TransactionControl::None
        && !facts.implicit_commit
        && facts.volatile.is_empty()
        && HARMLESS.contains(facts.effects)
}

struct Text<'a> {
    rest: &'a [u8],
}

impl<'a> Text<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_ascii_start();
    }

    fn word(&mut self) -> Option<&'a [u8]> {
        self.skip_space();
        let of_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$');
        let end = self.rest.iter().position(|b| !of_word(b)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at_checked(end).filter(|(word, _)| !word.is_empty())?;
        self.rest = rest;
        Some(word)
    }

    fn keyword(&mut self, keyword: &[u8]) -> Option<()> {
        self.word().filter(|word| word.eq_ignore_ascii_case(keyword)).map(|_| ())
    }

    fn name(&mut self) -> Option<Arc<str>> {
        let word = self.word()?;
        let plain = word.len() <= NAME_BYTES_MAX && !word.first()?.is_ascii_digit();
        plain.then(|| std::str::from_utf8(word).ok().map(|w| Arc::from(w.to_ascii_lowercase()))).flatten()
    }

    fn byte(&mut self, byte: u8) -> bool {
        self.skip_space();
        let is = self.rest.first() == Some(&byte);
        if is {
            self.rest = self.rest.get(1..).unwrap_or_default();
        }
        is
    }

    fn user_variable(&mut self) -> Option<Arc<str>> {
        if !self.byte(b'@') || self.rest.first()?.is_ascii_whitespace() {
            return None;
        }
        let word = self.word()?;
        Some(Arc::from(std::str::from_utf8(word).ok()?.to_ascii_lowercase()))
    }

    fn value(&mut self) -> Option<Value> {
        self.skip_space();
        if self.rest.first() == Some(&b'@') {
            return self.user_variable().map(Value::Variable);
        }
        let word = self.word().filter(|word| word.len() <= 20 && word.iter().all(u8::is_ascii_digit))?;
        std::str::from_utf8(word).ok()?.parse().ok().map(Value::Integer)
    }

    /// What may follow to the end of the text: USING and its values.
    fn using(&mut self) -> Option<Vec<Value>> {
        let mut using = Vec::new();
        if !self.at_end() {
            self.keyword(b"USING")?;
            using.push(self.value()?);
            while self.byte(b',') {
                using.push(self.value()?);
            }
        }
        self.at_end().then_some(using)
    }

    fn source(&mut self, cx: &LexContext) -> Option<Source> {
        self.skip_space();
        if self.rest.first() == Some(&b'@') {
            return self.user_variable().map(Source::Variable);
        }
        self.literal(cx).map(Source::Text)
    }

    /// The content of a string literal without an introducer, and without another behind it.
    fn literal(&mut self, cx: &LexContext) -> Option<Vec<u8>> {
        self.skip_space();
        let quote = *self.rest.first()?;
        if !(quote == b'\'' || quote == b'"' && !cx.ansi_quotes) {
            return None;
        }
        let mut content = Vec::with_capacity(self.rest.len());
        let mut bytes = self.rest.get(1..)?.iter();
        loop {
            match *bytes.next()? {
                b if b == quote => {
                    if bytes.as_slice().first() != Some(&quote) {
                        break;
                    }
                    bytes.next();
                    content.push(quote);
                }
                b'\\' if !cx.no_backslash_escapes => unescape(*bytes.next()?, &mut content),
                b => content.push(b),
            }
        }
        self.rest = bytes.as_slice();
        Some(content)
    }

    fn at_end(&mut self) -> bool {
        self.skip_space();
        let rest = self.rest.strip_prefix(b";").unwrap_or(self.rest);
        rest.trim_ascii_start().is_empty()
    }
}

/// What stands for a byte behind a backslash; before `%` and `_` the backslash stays.
fn unescape(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'0' => out.push(0),
        b'n' => out.push(b'\n'),
        b't' => out.push(b'\t'),
        b'r' => out.push(b'\r'),
        b'b' => out.push(8),
        b'Z' => out.push(0x1A),
        b'%' | b'_' => out.extend_from_slice(&[b'\\', byte]),
        other => out.push(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyse;

    fn said(sql: &str) -> Option<Said> {
        read(sql.as_bytes(), &LexContext::default())
    }

    fn prepare(name: &str, source: &str) -> Option<Said> {
        Some(Said::Prepare { name: name.into(), source: source.into() })
    }

    #[test]
    fn the_plain_forms_are_read() {
        assert_eq!(said("PREPARE S1 FROM 'SELECT ?'"), prepare("s1", "SELECT ?"));
        assert_eq!(said(" prepare s from \"SELECT 'it''s'\" ; "), prepare("s", "SELECT 'it''s'"));
        assert_eq!(said("PREPARE s FROM 'SELECT ''a'', \\'b\\\\\\n%\\%'"), prepare("s", "SELECT 'a', 'b\\\n%\\%"));
        let using = vec!["a".into(), "b2".into()];
        assert_eq!(said("EXECUTE s USING @A , @b2"), Some(Said::Execute { name: "s".into(), using }));
        assert_eq!(said("EXECUTE s;"), Some(Said::Execute { name: "s".into(), using: Vec::new() }));
        assert_eq!(said("DROP PREPARE s"), Some(Said::Deallocate { name: "s".into() }));
        assert_eq!(said("DEALLOCATE PREPARE s"), Some(Said::Deallocate { name: "s".into() }));
    }

    #[test]
    fn a_statement_within_a_text_is_replaced() {
        let replaced = |sql: &str, by: &str| {
            let cx = LexContext::default();
            let source = Quoted::read(sql.as_bytes(), &cx)?;
            Some((String::from_utf8(source.replaced(sql.as_bytes(), by.as_bytes(), &cx)).unwrap(), source.immediate))
        };
        let by = "SELECT 'b'";
        assert_eq!(replaced("PREPARE s FROM \"x\" ;", by), Some(("PREPARE s FROM 'SELECT ''b''' ;".into(), false)));
        let immediate = "execute immediate 'SELECT ''b''' USING @a, 2";
        assert_eq!(replaced("execute immediate 'SELECT ''x''' USING @a, 2", by), Some((immediate.into(), true)));
        for sql in
            ["EXECUTE IMMEDIATE @a", "EXECUTE IMMEDIATE 'a' 'b'", "EXECUTE s", "PREPARE s FROM 'x' 'y'", "DO 'x'"]
        {
            assert_eq!(replaced(sql, by), None, "{sql}");
        }
        // What is put in is read back as it is.
        let source = Quoted::read(b"PREPARE s FROM 'x'", &LexContext::default()).unwrap();
        for text in ["SELECT '\\'' \\\\ %\\%", "''", "\\", "SELECT \"`\""] {
            for no_backslash_escapes in [false, true] {
                let cx = LexContext { no_backslash_escapes, ..LexContext::default() };
                let sql = source.replaced(b"PREPARE s FROM 'x'", text.as_bytes(), &cx);
                assert_eq!(Quoted::read(&sql, &cx).map(|s| s.text), Some(text.as_bytes().to_vec()), "{text}");
            }
        }
    }

    #[test]
    fn nothing_else_is() {
        for sql in [
            "",
            "PREPARE s FROM @a",
            "PREPARE s FROM 'SELECT' ' 1'",
            "PREPARE s FROM _latin1'SELECT 1'",
            "PREPARE `s` FROM 'SELECT 1'",
            "PREPARE s FROM 'SELECT 1",
            "PREPARE s FROM 'SELECT 1\\",
            "PREPARE s FROM 'SELECT 1'; SELECT 2",
            "PREPARE /* c */ s FROM 'SELECT 1'",
            "PREPARE 1s FROM 'SELECT 1'",
            "EXECUTE IMMEDIATE 'SELECT 1'",
            "EXECUTE s USING 1",
            "EXECUTE s USING @a, 2",
            "EXECUTE s USING @`a`",
            "EXECUTE s USING @@a",
            "EXECUTE s USING",
            "DROP TABLE s",
            "SELECT 1",
        ] {
            assert_eq!(said(sql), None, "{sql}");
        }
        let ansi = LexContext { ansi_quotes: true, ..LexContext::default() };
        assert_eq!(read(b"PREPARE s FROM \"SELECT 1\"", &ansi), None);
        let gbk = LexContext { multibyte: MultiByte::Gbk, ..LexContext::default() };
        assert_eq!(read(b"EXECUTE s", &gbk), None);
    }

    #[test]
    fn a_text_that_brings_another_along_is_read() {
        let read = |sql: &str| read_immediate(sql.as_bytes(), &LexContext::default());
        let kill = || Source::Text(b"KILL ?".to_vec());
        assert_eq!(read("EXECUTE IMMEDIATE 'KILL ?'"), Some(Immediate { source: kill(), using: Vec::new() }));
        let using = vec![Value::Integer(7), Value::Variable("a".into())];
        assert_eq!(read("execute immediate \"KILL ?\" USING 7, @A;"), Some(Immediate { source: kill(), using }));
        let variable = Source::Variable("q".into());
        assert_eq!(read("EXECUTE IMMEDIATE @q"), Some(Immediate { source: variable, using: Vec::new() }));
        for sql in
            ["EXECUTE IMMEDIATE CONCAT('KILL ', 7)", "EXECUTE IMMEDIATE 'KILL ?' USING 7 + 1", "EXECUTE p USING @a"]
        {
            assert_eq!(read(sql), None, "{sql}");
        }
        let read = |sql: &str| read_execution(sql.as_bytes(), &LexContext::default());
        assert_eq!(
            read("EXECUTE K USING 7, @A"),
            Some(("k".into(), vec![Value::Integer(7), Value::Variable("a".into())]))
        );
        assert_eq!(read("EXECUTE k;"), Some(("k".into(), Vec::new())));
        assert_eq!(read("EXECUTE IMMEDIATE 'KILL 7'"), None);
        let read = |sql: &str| read_prepare_from_variable(sql.as_bytes(), &LexContext::default());
        assert_eq!(read("PREPARE K FROM @Q"), Some(("k".into(), "q".into())));
        assert_eq!(read("PREPARE k FROM 'KILL 7'"), None);
        let kills = |sql: &str| is_kill(&analyse(sql.as_bytes(), &LexContext::default()));
        assert!(kills("KILL 7") && kills("KILL QUERY ?") && !kills("SELECT 1; KILL 7") && !kills("SELECT 1"));
    }

    #[test]
    fn only_rows_are_followed() {
        let can = |sql: &str| can_follow(&analyse(sql.as_bytes(), &LexContext::default()));
        for sql in ["SELECT * FROM t WHERE a = ?", "INSERT INTO t VALUES (?, @a)", "SELECT @a := 1", "DELETE FROM t"] {
            assert!(can(sql), "{sql}");
        }
        for sql in [
            "SET @a = 1",
            "CALL p()",
            "SELECT f()",
            "SELECT LAST_INSERT_ID()",
            "SELECT 1; SELECT 2",
            "COMMIT",
            "CREATE TEMPORARY TABLE t (a INT)",
            "SELECT GET_LOCK('a', 1)",
            "DROP TABLE t",
            "",
        ] {
            assert!(!can(sql), "{sql}");
        }
    }
}
