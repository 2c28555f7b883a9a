//! Reads that return rows: the outermost SELECT list (whose column names a rewrite must keep), WITH, EXPLAIN and SHOW.

use super::facts::{Effects, Span, StatementClass, Verb};
use super::keywords::Keyword;
use super::lexer::{Token, TokenKind};
use super::scan::Scanner;

/// Words between SELECT and the first item.
const MODIFIERS: &[Keyword] = &[
    Keyword::All,
    Keyword::Distinct,
    Keyword::Distinctrow,
    Keyword::HighPriority,
    Keyword::StraightJoin,
    Keyword::SqlBigResult,
    Keyword::SqlBufferResult,
    Keyword::SqlCache,
    Keyword::SqlCalcFoundRows,
    Keyword::SqlNoCache,
    Keyword::SqlSmallResult,
];

impl Scanner<'_> {
    /// At SELECT, VALUES or TABLE, perhaps behind parentheses.
    pub(super) fn query(&mut self, verb: Verb) {
        self.statement.verb = verb;
        self.statement.class = StatementClass::Read;
        self.statement.read_form = true;
        if verb == Verb::Select {
            self.select_list();
        }
        self.scan_rest();
    }

    /// At the outermost SELECT: looks at its list, and notes which items hold volatile calls and have no alias.
    pub(super) fn select_list(&mut self) {
        self.bump();
        while self.current.kind == TokenKind::Word && MODIFIERS.contains(&self.current.keyword) {
            self.bump();
        }
        loop {
            self.select_item();
            if self.current.kind != TokenKind::Comma {
                return;
            }
            self.bump();
        }
    }

    fn select_item(&mut self) {
        let base = self.depth;
        let start = self.current.span;
        let first_call = self.facts.volatile.len();
        let mut before_last = Token::default();
        let mut last = Token::default();
        let mut alias = false;
        while !self.item_ends(base) {
            before_last = last;
            last = self.current;
            alias |= self.depth == base && last.is(Keyword::As);
            self.bump();
        }
        let item = start.to(last.span);
        alias |= is_alias(before_last, last);
        for call in self.facts.volatile.iter_mut().skip(first_call) {
            if !alias {
                call.unaliased_item = Some(item);
                call.plain_select_item = call.range == item;
            }
        }
    }

    fn item_ends(&self, base: u32) -> bool {
        if self.at_end() {
            return true;
        }
        if self.depth != base {
            return false;
        }
        match self.current.kind {
            TokenKind::Comma | TokenKind::Close => true,
            TokenKind::Word => match self.current.keyword {
                Keyword::From
                | Keyword::Into
                | Keyword::Limit
                | Keyword::Where
                | Keyword::Order
                | Keyword::Group
                | Keyword::Having
                | Keyword::Union
                | Keyword::Except
                | Keyword::Intersect
                | Keyword::Lock
                | Keyword::Procedure => true,
                // `NEXT VALUE FOR s` is an expression.
                Keyword::For => !self.previous.is(Keyword::Value),
                _ => false,
            },
            _ => false,
        }
    }

    /// At WITH: the common table expressions, then the statement they belong to.
    pub(super) fn with(&mut self) {
        self.statement.verb = Verb::With;
        self.pass();
        self.pass_if(Keyword::Recursive);
        loop {
            if !self.current.is_name() {
                return self.lost();
            }
            self.pass();
            if self.current.kind == TokenKind::Open {
                self.pass_parentheses();
            }
            if !self.pass_if(Keyword::As) || self.current.kind != TokenKind::Open {
                return self.lost();
            }
            let base = self.depth;
            self.bump();
            while !self.at_end() && self.depth > base {
                self.bump();
            }
            if self.current.kind != TokenKind::Comma {
                break;
            }
            self.pass();
        }
        while self.current.kind == TokenKind::Open {
            self.bump();
        }
        match self.current.keyword {
            Keyword::Select => self.query(Verb::Select),
            Keyword::Values => self.query(Verb::Values),
            Keyword::Table => self.query(Verb::Table),
            Keyword::Update => self.change(Verb::Update),
            Keyword::Delete => self.change(Verb::Delete),
            Keyword::Insert => self.insert(Verb::Insert),
            Keyword::Replace => self.insert(Verb::Replace),
            _ => self.lost(),
        }
    }

    /// Not the grammar that was expected: look at the rest and vouch for nothing.
    pub(super) fn lost(&mut self) {
        self.doubt();
        self.scan_rest();
    }

    /// At an opening parenthesis: to behind the closing one, without looking.
    pub(super) fn pass_parentheses(&mut self) {
        let base = self.depth;
        self.pass();
        while !self.at_end() && self.depth > base {
            self.pass();
        }
    }

    /// At EXPLAIN, DESCRIBE or DESC, or at MariaDB's ANALYZE statement, which runs what it explains.
    pub(super) fn explain(&mut self, verb: Verb) {
        let mut runs = verb == Verb::AnalyzeStatement;
        self.bump();
        loop {
            if self.at_end() {
                break;
            }
            if self.at(Keyword::For) && self.next.is(Keyword::Connection) {
                // The id is belay's, not the server's.
                self.doubt();
            }
            match self.current.keyword {
                Keyword::Analyze => runs = true,
                Keyword::Select | Keyword::With | Keyword::Values | Keyword::Table => break,
                Keyword::Insert | Keyword::Replace | Keyword::Update | Keyword::Delete => break,
                _ if self.current.kind == TokenKind::Open => break,
                _ => {}
            }
            self.bump();
        }
        let written_to = self.statement.effects.contains(Effects::USER_VARIABLE_WRITE);
        let mut reads = true;
        while self.current.kind == TokenKind::Open {
            self.bump();
        }
        match self.current.keyword {
            Keyword::Insert => self.insert(Verb::Insert),
            Keyword::Replace => self.insert(Verb::Replace),
            Keyword::Update => self.change(Verb::Update),
            Keyword::Delete => self.change(Verb::Delete),
            Keyword::With => self.with(),
            _ => self.scan_rest(),
        }
        if self.statement.class == StatementClass::Write {
            reads = false;
            if !runs {
                self.statement.class = StatementClass::Read;
            }
        } else {
            self.statement.class = StatementClass::Read;
        }
        self.statement.verb = verb;
        self.statement.read_form = reads && !written_to;
        // The plan's columns do not bear the names of the query's.
        for call in &mut self.facts.volatile {
            call.plain_select_item = false;
            call.unaliased_item = None;
        }
    }

    /// At SHOW.
    pub(super) fn show(&mut self) {
        self.statement.verb = Verb::Show;
        self.statement.class = StatementClass::Read;
        self.statement.read_form = true;
        self.statement.accounts = true;
        self.pass();
        match self.current.keyword {
            Keyword::Warnings | Keyword::Errors => self.effect(Effects::SHOW_DIAGNOSTICS),
            Keyword::Count if self.next.kind == TokenKind::Open => {
                self.effect(Effects::SHOW_DIAGNOSTICS);
                self.pass();
            }
            Keyword::Profile | Keyword::Profiles => self.effect(Effects::PROFILING),
            // MariaDB: of another connection, by an id that is belay's and not the server's.
            Keyword::Explain | Keyword::Analyze => self.doubt(),
            // SHOW CREATE PROCEDURE and its like would look like PROCEDURE ANALYSE.
            _ => {
                while matches!(self.current.kind, TokenKind::Word) && !self.at(Keyword::Where) {
                    self.pass();
                }
            }
        }
        self.scan_rest();
    }
}

/// Whether `last` is an alias, given the token before it: two operands in a row.
fn is_alias(before: Token, last: Token) -> bool {
    let name = match last.kind {
        TokenKind::Word => last.keyword == Keyword::None || !is_expression_word(last.keyword),
        TokenKind::QuotedName | TokenKind::Text => true,
        _ => false,
    };
    let operand = match before.kind {
        TokenKind::Close
        | TokenKind::Number
        | TokenKind::UserVariable
        | TokenKind::SystemVariable
        | TokenKind::Placeholder
        | TokenKind::QuotedName => true,
        TokenKind::Text => last.kind != TokenKind::Text,
        TokenKind::Word => {
            matches!(before.keyword, Keyword::None | Keyword::Null | Keyword::True | Keyword::False | Keyword::End)
        }
        _ => false,
    };
    name && operand
}

/// Words that end an expression and are no alias.
fn is_expression_word(keyword: Keyword) -> bool {
    matches!(keyword, Keyword::Null | Keyword::True | Keyword::False | Keyword::End | Keyword::Unknown)
}

/// The part of `sql` from `start` to behind the token before the current one.
pub(super) fn span_to(start: Span, scanner: &Scanner<'_>) -> Span {
    if scanner.previous.span.end <= start.start {
        Span { start: start.start, end: start.start }
    } else {
        start.to(scanner.previous.span)
    }
}
