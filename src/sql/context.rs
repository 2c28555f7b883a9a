//! What the meaning of a statement's bytes depends on, and ranges of them.

use core::ops::Range;

/// A range of bytes of the statement text, in bytes from its start. Always in bounds of the text that was analysed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Span {
    /// The first byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// The range as `usize`, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The bytes of `sql` in this range; empty where the range is not inside `sql`.
    pub fn of(self, sql: &[u8]) -> &[u8] {
        sql.get(self.range()).unwrap_or_default()
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The smallest range that holds both.
    pub fn to(self, end: Span) -> Span {
        Span { start: self.start, end: end.end.max(self.start) }
    }
}

impl From<Span> for Range<usize> {
    fn from(span: Span) -> Self {
        span.range()
    }
}

/// The character sets whose second byte may look like ASCII (a backslash or a quote), which the lexer must know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MultiByte {
    /// Every other character set: no byte below 0x80 is part of a longer character.
    #[default]
    None,
    /// `gbk`: lead 81-FE, second byte 40-7E or 80-FE.
    Gbk,
    /// `sjis` and `cp932`: lead 81-9F or E0-FC, second byte 40-7E or 80-FC.
    Sjis,
    /// `big5`: lead A1-F9, second byte 40-7E or A1-FE.
    Big5,
    /// `gb18030`: as gbk, and four-byte characters whose second byte is a digit.
    Gb18030,
}

impl MultiByte {
    /// What a character set of this name is.
    pub fn of(charset: &[u8]) -> MultiByte {
        match charset {
            b"gbk" => MultiByte::Gbk,
            b"sjis" | b"cp932" => MultiByte::Sjis,
            b"big5" => MultiByte::Big5,
            b"gb18030" => MultiByte::Gb18030,
            _ => MultiByte::None,
        }
    }
}

/// Which server will read the statement. Versions as in version comments: 10.11.19 is 101119, 8.0.36 is 80036.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MariaDB.
    MariaDb {
        /// Its version as a version comment writes it.
        version: u32,
    },
    /// MySQL.
    MySql {
        /// Its version as a version comment writes it.
        version: u32,
    },
    /// OceanBase in MySQL mode.
    OceanBase,
    /// Not known: version comments make a statement uncertain.
    #[default]
    Unknown,
}

/// What the meaning of the bytes depends on: the session's sql_mode, character set and capabilities, and the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LexContext {
    /// sql_mode NO_BACKSLASH_ESCAPES: a backslash in a string is a plain byte.
    pub no_backslash_escapes: bool,
    /// sql_mode ANSI_QUOTES: `"` quotes an identifier.
    pub ansi_quotes: bool,
    /// The client character set, as far as it matters here.
    pub multibyte: MultiByte,
    /// The server that will read the statement.
    pub flavor: Flavor,
    /// sql_mode ORACLE on MariaDB. The lexer vouches for nothing then.
    pub oracle_mode: bool,
    /// sql_mode or capability IGNORE_SPACE: blanks may stand between a built-in function and its parenthesis.
    pub ignore_space: bool,
    /// The client negotiated CLIENT_MULTI_STATEMENTS.
    pub multi_statements: bool,
}
