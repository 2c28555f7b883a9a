//! The names of what a statement makes or ends on its server session: temporary tables, handlers, locks.
//!
//! Only names whose bytes mean the same in every character set are given (ASCII without what national sets of seven bits put letters in the
//! place of): two such names are the same name if their bytes are. The reverse does not hold, because servers may fold case. Whatever else is
//! made cannot be named, and what cannot be named is never said to have ended.

use super::facts::StatementCount;
use super::keywords::Keyword;
use super::lexer::{Lexer, Token, TokenKind, inside_quotes};
use super::names::{Name, Named, TableName};
use super::scan::Scanner;

/// Names kept of one statement. More tables to drop are left out; more locks make the statement one with locks that have no name.
const NAMES_MAX: usize = 64;

/// No name of a table, handler or lock that servers accept on every version is longer, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// XA identifiers are compared as they are spelled: two strings of 64 bytes in hexadecimal, and a number.
const XID_BYTES_MAX: usize = 320;

/// A name without quotes whose bytes mean the same in every character set.
fn plain(name: &[u8]) -> Option<Name> {
    let same = |byte: &u8| byte.is_ascii_alphanumeric() || b" !%&()*+,-./:;<=>?_$".contains(byte);
    ((1..=NAME_BYTES_MAX).contains(&name.len()) && name.iter().all(same)).then(|| name.into())
}

impl Scanner<'_> {
    /// What the text names so far.
    pub(super) fn named(&mut self) -> &mut Named {
        self.facts.named.get_or_insert_default()
    }

    fn plain_name(&self, token: Token) -> Option<Name> {
        match token.kind {
            TokenKind::Word => plain(self.text(token)),
            TokenKind::QuotedName => plain(inside_quotes(self.sql, token.span).of(self.sql)),
            _ => None,
        }
    }

    /// At the name of a table, perhaps with its schema: goes behind it. `None` if it cannot be named.
    fn table_name(&mut self) -> Option<TableName> {
        if !self.current.is_name() {
            return None;
        }
        let first = self.plain_name(self.current);
        self.pass();
        if self.current.kind != TokenKind::Dot {
            return first.map(|name| TableName { schema: None, name });
        }
        self.pass();
        let second = self.plain_name(self.current);
        self.pass();
        if self.current.kind == TokenKind::Dot {
            return None;
        }
        Some(TableName { schema: Some(first?), name: second? })
    }

    fn at_word(&self, word: &[u8]) -> bool {
        self.current.kind == TokenKind::Word && self.text(self.current).eq_ignore_ascii_case(word)
    }

    /// Behind the TABLE of CREATE TEMPORARY TABLE.
    pub(super) fn name_created_table(&mut self) {
        self.pass_if_not_exists();
        let name = self.table_name();
        self.named().created = name;
    }

    fn pass_if_not_exists(&mut self) {
        if self.at_word(b"IF") && (self.next.is(Keyword::Not) || self.next.is(Keyword::Exists)) {
            self.pass();
            self.pass_if(Keyword::Not);
            self.pass_if(Keyword::Exists);
        }
    }

    /// At the TABLE or TABLES of DROP [TEMPORARY] TABLE.
    pub(super) fn name_dropped_tables(&mut self) {
        self.pass();
        self.pass_if_not_exists();
        let mut names = Vec::new();
        loop {
            if let Some(name) = self.table_name()
                && names.len() < NAMES_MAX
            {
                names.push(name);
            }
            if self.current.kind != TokenKind::Comma {
                break;
            }
            self.pass();
        }
        self.named().dropped.append(&mut names);
    }

    fn name_renamed_table(&mut self) {
        match self.table_name() {
            Some(name) if self.named().renamed.len() < NAMES_MAX => self.named().renamed.push(name),
            _ => self.named().renames_unnamed = true,
        }
    }

    /// At RENAME: notes the tables by their old names, and passes the statement.
    pub(super) fn name_tables_of_rename(&mut self) {
        self.pass();
        if !matches!(self.current.keyword, Keyword::Table | Keyword::Tables) {
            return self.pass_rest();
        }
        self.pass();
        self.pass_if_not_exists();
        loop {
            self.name_renamed_table();
            while !self.at_end() && self.current.kind != TokenKind::Comma {
                self.pass();
            }
            if self.at_end() {
                return;
            }
            self.pass();
        }
    }

    /// At the TABLE of ALTER TABLE: notes the table if it may be renamed, and passes the statement.
    pub(super) fn name_altered_table(&mut self) {
        self.pass();
        self.pass_if_not_exists();
        let name = self.table_name();
        let mut renames = false;
        while !self.at_end() {
            // What else RENAME may stand before: COLUMN, INDEX, KEY.
            let part = matches!(self.next.keyword, Keyword::Index | Keyword::Key)
                || self.next.kind == TokenKind::Word && self.text(self.next).eq_ignore_ascii_case(b"COLUMN");
            renames |= self.at(Keyword::Rename) && !part;
            self.pass();
        }
        if !renames {
            return;
        }
        match name {
            Some(name) if self.named().renamed.len() < NAMES_MAX => self.named().renamed.push(name),
            _ => self.named().renames_unnamed = true,
        }
    }

    /// Behind the name, and perhaps the schema, of HANDLER: at OPEN or CLOSE. `table`: the last part of that name.
    pub(super) fn name_handler(&mut self, table: Option<Token>) {
        let mut name = table.and_then(|token| self.plain_name(token));
        self.pass();
        if !self.at_end() {
            self.pass_if(Keyword::As);
            name = self.plain_name(self.current);
        }
        self.named().handler = name;
    }

    /// At the verb of XA: the identifier behind it, if it is made of plain literals.
    pub(super) fn name_xid(&mut self) {
        let mut ahead = self.ahead();
        let (mut token, start) = (self.next, self.next.span.start);
        let mut end = start;
        while matches!(token.kind, TokenKind::Text | TokenKind::Number | TokenKind::Comma) {
            end = token.span.end;
            token = ahead.next_token();
        }
        let text = self.sql.get(start as usize..end as usize).unwrap_or_default();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"' ,._-:".contains(byte);
        let named = (1..=XID_BYTES_MAX).contains(&text.len()) && text.iter().all(plain) && !ahead.in_doubt();
        self.named().xid = named.then(|| text.into());
    }

    /// At the name of a function that takes locks, before its parenthesis.
    pub(super) fn name_lock(&mut self) {
        if !self.text(self.current).eq_ignore_ascii_case(b"GET_LOCK") {
            self.named().service_lock = true;
            return;
        }
        let mut ahead = self.ahead();
        let (name, behind) = (ahead.next_token(), ahead.next_token());
        let text = self.text(name);
        let literal = name.kind == TokenKind::Text
            && behind.kind == TokenKind::Comma
            && matches!(text.first(), Some(b'\'' | b'"'))
            && !ahead.in_doubt();
        let name = if literal { plain(inside_quotes(self.sql, name.span).of(self.sql)) } else { None };
        match name {
            Some(name) if self.named().locks.len() < NAMES_MAX => self.named().locks.push(name),
            _ => self.named().unnamed_lock = true,
        }
    }

    /// At the name of a function that gives locks back, before its parenthesis.
    pub(super) fn name_release(&mut self) {
        if !self.text(self.current).eq_ignore_ascii_case(b"RELEASE_ALL_LOCKS") {
            return;
        }
        let verb = self.previous;
        let first = Lexer::new(self.sql, &self.context).next_token();
        if !(verb.is(Keyword::Select) || verb.is(Keyword::Do)) || first.span != verb.span {
            return;
        }
        let mut ahead = self.ahead();
        let closed = ahead.next_token().kind == TokenKind::Close;
        let mut token = ahead.next_token();
        if token.is(Keyword::As) {
            token = ahead.next_token();
            if matches!(token.kind, TokenKind::Word | TokenKind::QuotedName | TokenKind::Text) {
                token = ahead.next_token();
            }
        } else if token.kind == TokenKind::QuotedName || token.kind == TokenKind::Word && token.keyword == Keyword::None
        {
            token = ahead.next_token();
        }
        while token.kind == TokenKind::Semicolon {
            token = ahead.next_token();
        }
        if closed && token.kind == TokenKind::End {
            self.named().releases_all_locks = true;
        }
    }
}

impl super::facts::Facts {
    /// What the text names, if the lexer vouches for it and it is one statement: only then has it done exactly that.
    pub fn named_for_certain(&self) -> Option<&Named> {
        let certain = self.certain && self.statements == StatementCount::One;
        self.named.as_deref().filter(|_| certain)
    }
}
