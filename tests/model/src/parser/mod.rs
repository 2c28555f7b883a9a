//! From a text to statements. What is not in the grammar (see the crate's page) is refused in words that no server uses, so that nobody takes it
//! for checked; what no server takes either is 1064.

mod expr;
mod set;
mod statement;

use std::sync::Arc;

use crate::ast::{Parsed, Stmt, Table};
use crate::error::{Error, unsupported};
use crate::lexer::{Kind, Mode, Token, tokens};

/// Words that begin a statement on a server of either kind; a text that begins with another one is a syntax error.
const VERBS: &[&str] = &[
    "alter",
    "analyze",
    "begin",
    "binlog",
    "cache",
    "call",
    "change",
    "check",
    "checksum",
    "commit",
    "create",
    "deallocate",
    "delete",
    "desc",
    "describe",
    "do",
    "drop",
    "end",
    "execute",
    "explain",
    "flush",
    "get",
    "grant",
    "handler",
    "help",
    "import",
    "insert",
    "install",
    "kill",
    "load",
    "lock",
    "optimize",
    "prepare",
    "purge",
    "release",
    "rename",
    "repair",
    "replace",
    "reset",
    "resignal",
    "restart",
    "revoke",
    "rollback",
    "savepoint",
    "select",
    "set",
    "show",
    "shutdown",
    "signal",
    "start",
    "stop",
    "table",
    "truncate",
    "uninstall",
    "unlock",
    "update",
    "use",
    "values",
    "with",
    "xa",
];

/// What stops the parser.
pub(crate) enum Stop {
    /// No server takes this.
    Syntax,
    /// A server may take this, the model does not.
    Unsupported(String),
}

pub(crate) type Made<T> = Result<T, Stop>;

/// Reads the statement of `text` that begins at `from`.
pub fn parse(text: &str, from: usize, mode: Mode, multi: bool, maria: bool) -> Result<Parsed, Error> {
    let rest = &text[from..];
    let list = tokens(rest, mode);
    let mut parser = Parser { text: rest, tokens: &list, at: 0, params: 0, runs_code: false, mode, maria, body: 0 };
    let stop = |stop: Stop| match stop {
        Stop::Syntax => Error::syntax(),
        Stop::Unsupported(what) => unsupported(&what),
    };
    if parser.peek().is_none() {
        return Ok(Parsed { stmt: Stmt::Empty, params: 0, runs_code: false, next: None });
    }
    if parser.sign(";") {
        // MariaDB and MySQL call a text that is nothing but `;` empty.
        let stmt = Stmt::Empty;
        let next = parser.peek().map(|t| from + t.start);
        return match next {
            Some(_) => Err(Error::syntax()),
            None => Ok(Parsed { stmt, params: 0, runs_code: false, next: None }),
        };
    }
    let first = parser.peek().map(|t| parser.text[t.start..t.end].to_ascii_lowercase()).unwrap_or_default();
    if !VERBS.contains(&first.as_str()) && !first.starts_with('(') {
        return Err(Error::syntax());
    }
    let stmt = parser.statement().map_err(stop)?;
    let mut next = None;
    if parser.sign(";") {
        // A comment behind it counts as one more statement.
        let end = parser.end();
        let blank = rest[end..].len() - rest[end..].trim_start().len();
        next = (end + blank < rest.len()).then_some(from + end + blank);
        if next.is_some() && !multi {
            return Err(Error::syntax());
        }
    } else if parser.peek().is_some() {
        return Err(unsupported(&format!("'{}'", &rest[parser.peek().map_or(0, |t| t.start)..])));
    }
    Ok(Parsed { stmt, params: parser.params, runs_code: parser.runs_code, next })
}

pub(crate) struct Parser<'a> {
    pub text: &'a str,
    tokens: &'a [Token],
    at: usize,
    pub params: usize,
    pub runs_code: bool,
    pub mode: Mode,
    pub maria: bool,
    /// How deep in the body of a routine.
    pub body: usize,
}

impl<'a> Parser<'a> {
    pub fn peek(&self) -> Option<&'a Token> {
        self.tokens.get(self.at)
    }

    pub fn peek_at(&self, ahead: usize) -> Option<&'a Token> {
        self.tokens.get(self.at + ahead)
    }

    pub fn next(&mut self) -> Option<&'a Token> {
        let token = self.tokens.get(self.at);
        self.at += 1;
        token
    }

    pub fn back(&mut self) {
        self.at -= 1;
    }

    pub fn of(&self, token: &Token) -> &'a str {
        &self.text[token.start..token.end]
    }

    /// The end of the last token that was taken.
    pub fn end(&self) -> usize {
        self.at.checked_sub(1).and_then(|i| self.tokens.get(i)).map_or(0, |t| t.end)
    }

    pub fn is_word(&self, ahead: usize, word: &str) -> bool {
        self.peek_at(ahead).is_some_and(|t| t.kind == Kind::Word && self.of(t).eq_ignore_ascii_case(word))
    }

    /// Takes a word if it is next.
    pub fn word(&mut self, word: &str) -> bool {
        let found = self.is_word(0, word);
        self.at += usize::from(found);
        found
    }

    /// Takes several words if they are next.
    pub fn words(&mut self, words: &[&str]) -> bool {
        let found = words.iter().enumerate().all(|(i, w)| self.is_word(i, w));
        self.at += if found { words.len() } else { 0 };
        found
    }

    /// Takes a sign if it is next.
    pub fn sign(&mut self, sign: &str) -> bool {
        let found = self.peek().is_some_and(|t| t.kind == Kind::Sign && self.of(t) == sign);
        self.at += usize::from(found);
        found
    }

    pub fn need_word(&mut self, word: &str) -> Made<()> {
        if self.word(word) { Ok(()) } else { Err(self.stop()) }
    }

    pub fn need(&mut self, sign: &str) -> Made<()> {
        if self.sign(sign) { Ok(()) } else { Err(self.stop()) }
    }

    /// What is next can't be read: at the text's end no server could either.
    pub fn stop(&self) -> Stop {
        match self.peek() {
            None => Stop::Syntax,
            Some(t) if t.kind == Kind::Bad => Stop::Syntax,
            Some(t) => Stop::Unsupported(format!("'{}'", &self.text[t.start..])),
        }
    }

    pub fn name(&mut self) -> Made<Arc<str>> {
        match self.peek() {
            Some(t) if t.kind == Kind::Word => {
                self.at += 1;
                Ok(self.of(t).into())
            }
            Some(Token { kind: Kind::Quoted(name), .. }) => {
                self.at += 1;
                Ok(name.as_str().into())
            }
            _ => Err(self.stop()),
        }
    }

    pub fn string(&mut self) -> Made<Arc<str>> {
        match self.peek() {
            Some(Token { kind: Kind::Str(text), .. }) => {
                self.at += 1;
                Ok(text.as_str().into())
            }
            _ => Err(self.stop()),
        }
    }

    /// A name or a string.
    pub fn name_or_string(&mut self) -> Made<Arc<str>> {
        self.string().or_else(|_| self.name())
    }

    pub fn table(&mut self) -> Made<Table> {
        let name = self.name()?;
        if self.sign(".") {
            return Ok(Table { schema: Some(name), name: self.name()? });
        }
        Ok(Table { schema: None, name })
    }

    /// `item, item, …`
    pub fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Made<T>) -> Made<Vec<T>> {
        let mut made = vec![item(self)?];
        while self.sign(",") {
            made.push(item(self)?);
        }
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(sql: &str) -> Result<Parsed, Error> {
        parse(sql, 0, Mode::default(), true, true)
    }

    #[test]
    fn a_text_ends_where_its_statement_ends() {
        let parsed = read("SELECT 1; SELECT 2").unwrap();
        assert_eq!(parsed.next, Some(10));
        assert_eq!(read("SELECT 1;").unwrap().next, None);
        assert_eq!(read("-- nothing").unwrap().stmt, Stmt::Empty);
    }

    #[test]
    fn what_is_not_in_the_grammar_is_never_taken_for_checked() {
        assert_eq!(read("SELEC 1").unwrap_err().code, 1064);
        assert_eq!(read("SELECT 1 FROM").unwrap_err().code, 1064);
        assert!(read("ALTER TABLE t ADD c INT").unwrap_err().message.starts_with("model: unsupported"));
        assert!(read("SELECT (SELECT 1)").unwrap_err().message.starts_with("model: unsupported"));
    }
}
