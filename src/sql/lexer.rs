//! Cuts a statement's bytes into tokens the way the server's own lexer does, in one pass and without allocation.
//!
//! Comments and optimizer hints vanish. A version comment (`/*!40101 … */`, `/*M! … */`) is read as code where the server of the
//! context would run it, skipped where it would not; where that is not known its content is read as code and
//! [`Lexer::in_doubt`] says so.

use super::context::{Flavor, LexContext, MultiByte, Span};
use super::keywords::Keyword;

/// What a token is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokenKind {
    /// An unquoted word: keyword or name.
    Word,
    /// A name in backticks, or in `"` under ANSI_QUOTES.
    QuotedName,
    /// A string literal, with a prefix such as `N` or `x` where one touches it.
    Text,
    /// A number.
    Number,
    /// `@name` in any of its spellings.
    UserVariable,
    /// `@@name`, `@@scope.name`.
    SystemVariable,
    /// `?`
    Placeholder,
    /// `;`
    Semicolon,
    /// `(`
    Open,
    /// `)`
    Close,
    /// `,`
    Comma,
    /// `.`
    Dot,
    /// `=`
    Equals,
    /// `:=`
    Assign,
    /// Any other byte.
    Operator,
    /// The end of the text.
    #[default]
    End,
}

/// A token: what it is and where it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Token {
    /// What it is.
    pub kind: TokenKind,
    /// Its keyword, for a [`TokenKind::Word`] that is one.
    pub keyword: Keyword,
    /// Where it stands.
    pub span: Span,
}

impl Token {
    /// Whether it is the keyword.
    pub fn is(&self, keyword: Keyword) -> bool {
        self.kind == TokenKind::Word && self.keyword == keyword
    }

    /// Whether it names something: a word or a quoted name.
    pub fn is_name(&self) -> bool {
        matches!(self.kind, TokenKind::Word | TokenKind::QuotedName)
    }
}

const WORD: u8 = 1;
const SPACE: u8 = 2;
const DIGIT: u8 = 4;
const HIGH: u8 = 8;

const CLASS: [u8; 256] = {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 256 {
        let b = byte as u8;
        if b.is_ascii_alphabetic() || b == b'_' || b == b'$' {
            table[byte] = WORD;
        } else if b.is_ascii_digit() {
            table[byte] = WORD | DIGIT;
        } else if b >= 0x80 {
            table[byte] = WORD | HIGH;
        } else if (b >= 9 && b <= 13) || b == b' ' {
            table[byte] = SPACE;
        }
        byte += 1;
    }
    table
};

fn class(byte: u8) -> u8 {
    CLASS[usize::from(byte)]
}

/// Reads tokens from a statement's bytes.
#[derive(Clone, Debug)]
pub struct Lexer<'a> {
    sql: &'a [u8],
    position: usize,
    context: LexContext,
    in_version_comment: bool,
    doubt: bool,
    previous: TokenKind,
}

impl<'a> Lexer<'a> {
    /// A lexer at the start of `sql`. Texts over 4 GiB are cut there (no server takes over 1 GiB); the rest is in doubt.
    pub fn new(sql: &'a [u8], context: &LexContext) -> Lexer<'a> {
        let limit_bytes = u32::MAX as usize;
        let doubt = sql.len() > limit_bytes;
        let sql = sql.get(..limit_bytes).unwrap_or(sql);
        Lexer { sql, position: 0, context: *context, in_version_comment: false, doubt, previous: TokenKind::End }
    }

    /// Whether something read so far might be read otherwise by the server: an open quote or comment, a version comment
    /// whose condition is not known, bytes whose meaning hangs on the character set.
    pub fn in_doubt(&self) -> bool {
        self.doubt
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.sql.get(self.position + ahead).copied().unwrap_or(0)
    }

    fn rest(&self) -> &'a [u8] {
        self.sql.get(self.position..).unwrap_or_default()
    }

    /// The next token; [`TokenKind::End`] for ever at the end.
    pub fn next_token(&mut self) -> Token {
        self.skip_blanks();
        let start = self.position;
        let Some(&byte) = self.sql.get(start) else {
            if self.in_version_comment {
                self.doubt = true;
            }
            return Token { kind: TokenKind::End, keyword: Keyword::None, span: self.span(start) };
        };
        self.position += 1;
        let mut keyword = Keyword::None;
        let kind = match byte {
            b'\'' => self.quoted(byte, true, TokenKind::Text),
            b'"' if self.context.ansi_quotes => self.quoted(byte, false, TokenKind::QuotedName),
            b'"' => self.quoted(byte, true, TokenKind::Text),
            b'`' => self.quoted(byte, false, TokenKind::QuotedName),
            b'(' => TokenKind::Open,
            b')' => TokenKind::Close,
            b',' => TokenKind::Comma,
            b';' => TokenKind::Semicolon,
            b'=' => TokenKind::Equals,
            b'?' => TokenKind::Placeholder,
            b':' if self.peek(0) == b'=' => {
                self.position += 1;
                TokenKind::Assign
            }
            b'@' => self.variable(),
            b'.' if class(self.peek(0)) & DIGIT != 0 && !self.names_may_continue() => {
                self.fraction();
                TokenKind::Number
            }
            b'.' => TokenKind::Dot,
            _ if class(byte) & DIGIT != 0 && self.previous != TokenKind::Dot => {
                self.position = start;
                self.number_or_word()
            }
            _ if class(byte) & WORD != 0 => {
                self.position = start;
                self.word(&mut keyword)
            }
            _ => TokenKind::Operator,
        };
        self.previous = kind;
        Token { kind, keyword, span: self.span(start) }
    }

    fn span(&self, start: usize) -> Span {
        // In range: `new` cut the text to what u32 can count.
        Span { start: start as u32, end: self.position as u32 }
    }

    /// After a name, `.1a` is a dot and a name, not a number.
    fn names_may_continue(&self) -> bool {
        matches!(self.previous, TokenKind::Word | TokenKind::QuotedName)
    }

    fn skip_blanks(&mut self) {
        loop {
            let byte = self.peek(0);
            if class(byte) & SPACE != 0 {
                self.position += 1;
            } else if byte == b'#' {
                self.skip_line();
            } else if byte == b'-' && self.peek(1) == b'-' {
                match self.sql.get(self.position + 2) {
                    Some(&after) if after > b' ' && after != 0x7F => {
                        // Some character sets have blanks and controls above 0x7F.
                        if after >= 0x80 {
                            self.doubt = true;
                        }
                        return;
                    }
                    _ => self.skip_line(),
                }
            } else if byte == b'/' && self.peek(1) == b'*' {
                self.comment();
            } else if byte == b'*' && self.in_version_comment && self.peek(1) == b'/' {
                self.in_version_comment = false;
                self.position += 2;
            } else {
                return;
            }
        }
    }

    fn skip_line(&mut self) {
        match self.rest().iter().position(|&byte| byte == b'\n') {
            Some(newline) => self.position += newline + 1,
            None => self.position = self.sql.len(),
        }
    }

    /// At `/*`: a comment, or the start of a version comment.
    fn comment(&mut self) {
        let maria = self.peek(2) == b'M' && self.peek(3) == b'!';
        if self.peek(2) != b'!' && !maria {
            self.position += 2;
            self.skip_to_comment_end(false);
            return;
        }
        if maria && matches!(self.context.flavor, Flavor::MySql { .. }) {
            self.position += 2;
            self.skip_to_comment_end(false);
            return;
        }
        self.position += if maria { 4 } else { 3 };
        let digits = self.rest().iter().take(7).take_while(|byte| byte.is_ascii_digit()).count();
        let version = self.rest().iter().take(digits).fold(0u32, |sum, byte| sum * 10 + u32::from(byte - b'0'));
        let runs = match (digits, self.context.flavor) {
            (0, Flavor::MariaDb { .. } | Flavor::MySql { .. }) => Some(true),
            (5, Flavor::MySql { version: server }) => Some(version <= server),
            // MariaDB takes no conditions on versions that only MySQL had (10.11 observed); where the interval ended before is
            // not certain.
            (5, Flavor::MariaDb { .. }) if !maria && (50_700..=50_999).contains(&version) => Some(false),
            (5, Flavor::MariaDb { version: server }) if !maria && version > 50_999 => {
                (server >= 101_100).then_some(false)
            }
            (5 | 6, Flavor::MariaDb { version: server }) => Some(version <= server),
            _ => None,
        };
        self.position += digits.min(6);
        match runs {
            Some(false) => self.skip_to_comment_end(true),
            known => {
                if known.is_none() || self.in_version_comment || digits > 6 {
                    self.doubt = true;
                }
                self.in_version_comment = true;
            }
        }
    }

    /// Skips to behind `*/`; a skipped version comment may hold one level of comments.
    fn skip_to_comment_end(&mut self, nested: bool) {
        let mut inner = false;
        let sql = self.sql;
        while self.position + 1 < sql.len() {
            let pair = (sql[self.position], sql[self.position + 1]);
            if pair == (b'*', b'/') {
                self.position += 2;
                if !inner {
                    return;
                }
                inner = false;
            } else if nested && !inner && pair == (b'/', b'*') {
                self.position += 2;
                inner = true;
            } else {
                self.position += 1;
            }
        }
        self.position = sql.len();
        self.doubt = true;
    }

    /// Bytes of the character at `at` beyond its first, for the character sets whose second byte can look like ASCII.
    fn trailing_bytes(&self, at: usize) -> usize {
        let (Some(&lead), Some(&second)) = (self.sql.get(at), self.sql.get(at + 1)) else {
            return 0;
        };
        let pair = match self.context.multibyte {
            MultiByte::None => false,
            MultiByte::Gbk => (0x81..=0xFE).contains(&lead) && matches!(second, 0x40..=0x7E | 0x80..=0xFE),
            MultiByte::Sjis => matches!(lead, 0x81..=0x9F | 0xE0..=0xFC) && matches!(second, 0x40..=0x7E | 0x80..=0xFC),
            MultiByte::Big5 => (0xA1..=0xF9).contains(&lead) && matches!(second, 0x40..=0x7E | 0xA1..=0xFE),
            MultiByte::Gb18030 => {
                if (0x81..=0xFE).contains(&lead) && second.is_ascii_digit() {
                    return 3.min(self.sql.len() - at - 1);
                }
                (0x81..=0xFE).contains(&lead) && matches!(second, 0x40..=0x7E | 0x80..=0xFE)
            }
        };
        usize::from(pair)
    }

    /// Behind an opening quote: to behind the closing one.
    fn quoted(&mut self, quote: u8, text: bool, kind: TokenKind) -> TokenKind {
        let escapes = text && !self.context.no_backslash_escapes;
        let multibyte = self.context.multibyte != MultiByte::None;
        let sql = self.sql;
        while let Some(&byte) = sql.get(self.position) {
            if byte == quote {
                if sql.get(self.position + 1) != Some(&quote) {
                    self.position += 1;
                    return kind;
                }
                self.position += 2;
            } else if byte == b'\\' && escapes {
                self.position += 2;
            } else if multibyte && byte >= 0x80 {
                self.position += 1 + self.trailing_bytes(self.position);
            } else {
                self.position += 1;
            }
        }
        self.position = sql.len();
        self.doubt = true;
        kind
    }

    fn skip_word_bytes(&mut self) {
        let start = self.position;
        let mut high = false;
        while let Some(&byte) = self.sql.get(self.position) {
            let class = class(byte);
            if class & WORD == 0 {
                break;
            }
            if class & HIGH != 0 {
                high = true;
                self.position += self.trailing_bytes(self.position);
            }
            self.position += 1;
        }
        // In a one-byte character set such bytes can be blanks or operators.
        if high && self.context.multibyte == MultiByte::None {
            let word = self.sql.get(start..self.position).unwrap_or_default();
            self.doubt |= core::str::from_utf8(word).is_err();
        }
    }

    fn word(&mut self, keyword: &mut Keyword) -> TokenKind {
        let start = self.position;
        self.skip_word_bytes();
        let word = self.sql.get(start..self.position).unwrap_or_default();
        if let ([prefix], b'\'') = (word, self.peek(0)) {
            match prefix | 0x20 {
                b'n' => {
                    self.position += 1;
                    return self.quoted(b'\'', true, TokenKind::Text);
                }
                b'x' | b'b' => {
                    self.position += 1;
                    let digits = self.rest().iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                    self.position += digits;
                    if self.peek(0) == b'\'' {
                        self.position += 1;
                    } else {
                        self.doubt = true;
                    }
                    return TokenKind::Text;
                }
                _ => {}
            }
        }
        if self.previous != TokenKind::Dot {
            *keyword = Keyword::of(word);
        }
        TokenKind::Word
    }

    fn skip_digits(&mut self) {
        while class(self.peek(0)) & DIGIT != 0 {
            self.position += 1;
        }
    }

    /// Behind the dot of a number, or at its exponent.
    fn fraction(&mut self) {
        self.skip_digits();
        if self.peek(0) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if class(self.peek(1 + sign)) & DIGIT != 0 {
                self.position += 1 + sign;
                self.skip_digits();
            }
        }
    }

    /// At a digit: `12`, `1.5e3`, `0x1F`, `0b1`, or a name that starts with digits.
    fn number_or_word(&mut self) -> TokenKind {
        let start = self.position;
        self.skip_word_bytes();
        let word = self.sql.get(start..self.position).unwrap_or_default();
        if word.iter().all(u8::is_ascii_digit) {
            if self.peek(0) == b'.' {
                self.position += 1;
                self.fraction();
            }
            return TokenKind::Number;
        }
        match word {
            [b'0', b'x', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_hexdigit) => {
                return TokenKind::Number;
            }
            [b'0', b'b', digits @ ..] if !digits.is_empty() && digits.iter().all(|d| matches!(d, b'0' | b'1')) => {
                return TokenKind::Number;
            }
            _ => {}
        }
        let mantissa = word.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if word.get(mantissa).is_some_and(|byte| byte | 0x20 == b'e') {
            let exponent = word.get(mantissa + 1..).unwrap_or_default();
            if exponent.is_empty() && matches!(self.peek(0), b'+' | b'-') && class(self.peek(1)) & DIGIT != 0 {
                self.position += 1;
                self.skip_digits();
                return TokenKind::Number;
            }
            let digits = exponent.iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 {
                self.position = start + mantissa + 1 + digits;
                return TokenKind::Number;
            }
        }
        TokenKind::Word
    }

    /// Behind an `@`.
    fn variable(&mut self) -> TokenKind {
        match self.peek(0) {
            b'@' => {
                self.position += 1;
                self.system_variable();
                TokenKind::SystemVariable
            }
            quote @ (b'\'' | b'"' | b'`') => {
                self.position += 1;
                let text = quote == b'\'' || (quote == b'"' && !self.context.ansi_quotes);
                self.quoted(quote, text, TokenKind::UserVariable)
            }
            _ => {
                loop {
                    self.skip_word_bytes();
                    if self.peek(0) != b'.' {
                        break;
                    }
                    self.position += 1;
                }
                TokenKind::UserVariable
            }
        }
    }

    fn variable_part(&mut self) {
        if self.peek(0) == b'`' {
            self.position += 1;
            self.quoted(b'`', false, TokenKind::QuotedName);
        } else {
            self.skip_word_bytes();
        }
    }

    /// Behind `@@`: up to three names with dots between them, which may have blanks around them.
    fn system_variable(&mut self) {
        self.variable_part();
        for _ in 0..2 {
            let blanks = self.rest().iter().take_while(|&&byte| class(byte) & SPACE != 0).count();
            if self.peek(blanks) != b'.' {
                return;
            }
            self.position += blanks + 1;
            while class(self.peek(0)) & SPACE != 0 {
                self.position += 1;
            }
            self.variable_part();
        }
    }
}

/// The inside of a quoted name or string token: without its quotes and prefix, still escaped. Other bytes as they are.
pub fn inside_quotes(sql: &[u8], span: Span) -> Span {
    let text = span.of(sql);
    let Some(open) = text.iter().position(|byte| matches!(byte, b'\'' | b'"' | b'`')) else {
        return span;
    };
    let quote = text.get(open).copied().unwrap_or_default();
    let closed = text.len() > open + 1 && text.last() == Some(&quote);
    Span { start: span.start + open as u32 + 1, end: span.end - u32::from(closed) }
}
