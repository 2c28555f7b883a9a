//! SET in all its forms: assignments, NAMES, CHARACTER SET, TRANSACTION, ROLE, PASSWORD, and MariaDB's SET STATEMENT … FOR.

use super::facts::{
    Effects, Flavor, Literal, SetItem, SetNames, SetScope, SetTransaction, Span, StatementClass, TransactionControl,
    Verb,
};
use super::keywords::Keyword;
use super::lexer::{Token, TokenKind, inside_quotes};
use super::scan::Scanner;
use super::select::span_to;
use super::variables::{self, Scope};

/// More assignments than this in one statement are not kept; the statement is uncertain then.
const ASSIGNMENTS_MAX: usize = 256;

impl Scanner<'_> {
    /// At SET.
    pub(super) fn set(&mut self) {
        self.statement.verb = Verb::Set;
        self.statement.class = StatementClass::Set;
        self.pass();
        if self.at(Keyword::Statement) && self.next.is_name() {
            self.set_statement();
            return;
        }
        let mut sticky = SetScope::Session;
        loop {
            if !self.set_item(&mut sticky) {
                return self.lost();
            }
            if self.current.kind != TokenKind::Comma {
                break;
            }
            self.pass();
        }
        self.expect_end();
    }

    /// One item of the list; false where it is not understood. `sticky`: the last scope that was said with a keyword, which
    /// goes for the items behind it that say none (both manuals; MariaDB 10.11 observed).
    fn set_item(&mut self, sticky: &mut SetScope) -> bool {
        match self.current.kind {
            TokenKind::UserVariable => return self.set_user_variable(),
            TokenKind::SystemVariable => {
                let (scope, name) = variables::split(self.sql, self.current.span);
                self.pass();
                return self.assignment(set_scope(scope), name);
            }
            TokenKind::Word | TokenKind::QuotedName => {}
            _ => return false,
        }
        let assigned = matches!(self.next.kind, TokenKind::Equals | TokenKind::Assign | TokenKind::Dot);
        if !assigned && self.current.kind == TokenKind::Word {
            match self.current.keyword {
                Keyword::Names => return self.set_names(false),
                Keyword::Charset => return self.set_names(true),
                Keyword::Character if self.next.is(Keyword::Set) => {
                    self.pass();
                    return self.set_names(true);
                }
                Keyword::Transaction => return self.set_transaction(None),
                Keyword::Role => return self.set_role(),
                Keyword::Default if self.next.is(Keyword::Role) => return self.set_account(),
                Keyword::Password => return self.set_account(),
                _ => {}
            }
            let Some(scope) = variables::scope_of(self.text(self.current)) else {
                return false;
            };
            self.pass();
            if self.at(Keyword::Transaction) && !matches!(self.next.kind, TokenKind::Equals | TokenKind::Assign) {
                return self.set_transaction(Some(set_scope(scope)));
            }
            *sticky = set_scope(scope);
            return self.set_named(*sticky);
        }
        if self.at(Keyword::Password) && !matches!(self.next.kind, TokenKind::Dot) {
            return self.set_account();
        }
        let surely = match *sticky {
            SetScope::Session => true,
            SetScope::Global => matches!(self.context.flavor, Flavor::MariaDb { .. } | Flavor::MySql { .. }),
            _ => false,
        };
        if !surely {
            self.doubt();
            self.effect(Effects::SYSTEM_VARIABLE_SET);
        }
        self.set_named(*sticky)
    }

    /// At a variable's name without `@@`.
    fn set_named(&mut self, scope: SetScope) -> bool {
        if !self.current.is_name() {
            return false;
        }
        let start = self.current.span;
        let mut name = self.bare(self.current);
        self.pass();
        if self.current.kind == TokenKind::Dot {
            self.pass();
            if !self.current.is_name() {
                return false;
            }
            name = start.to(self.current.span);
            self.pass();
        }
        self.assignment(scope, name)
    }

    /// A name's text without its quotes.
    fn bare(&self, token: Token) -> Span {
        if token.kind == TokenKind::Word { token.span } else { inside_quotes(self.sql, token.span) }
    }

    fn set_user_variable(&mut self) -> bool {
        let name = variables::user_variable_name(self.sql, self.current.span);
        self.note_user_variable(name, true);
        self.pass();
        self.assignment(SetScope::User, name)
    }

    /// At `=` or `:=`, behind the name.
    fn assignment(&mut self, scope: SetScope, name: Span) -> bool {
        if !matches!(self.current.kind, TokenKind::Equals | TokenKind::Assign) {
            return false;
        }
        self.pass();
        let start = self.current.span;
        let base = self.depth;
        let mut tokens = 0u32;
        let mut shape = [Token::default(); 2];
        while !(self.at_end() || self.current.kind == TokenKind::Comma && self.depth == base) {
            if let Some(slot) = shape.get_mut(tokens as usize) {
                *slot = self.current;
            }
            tokens = tokens.saturating_add(1);
            self.bump();
        }
        if tokens == 0 {
            return false;
        }
        let value = span_to(start, self);
        let literal = self.literal(tokens, shape);
        self.note_assignment(SetItem { scope, name, value, literal });
        true
    }

    fn literal(&self, tokens: u32, shape: [Token; 2]) -> Option<Literal> {
        match (tokens, shape) {
            (1, [token, _]) => self.single_literal(token),
            (2, [sign, number]) if sign.kind == TokenKind::Operator && number.kind == TokenKind::Number => {
                let sign_text = self.text(sign);
                match (sign_text, self.single_literal(number)?) {
                    (b"-", Literal::Integer(value)) => Some(Literal::Integer(-value)),
                    (b"+", Literal::Integer(value)) => Some(Literal::Integer(value)),
                    (b"-" | b"+", Literal::Number(span)) => Some(Literal::Number(sign.span.to(span))),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn single_literal(&self, token: Token) -> Option<Literal> {
        let text = self.text(token);
        match token.kind {
            TokenKind::Number => {
                let integer = core::str::from_utf8(text).ok().and_then(|digits| digits.parse::<u64>().ok());
                Some(integer.map_or(Literal::Number(token.span), |value| Literal::Integer(i128::from(value))))
            }
            TokenKind::Text if matches!(text.first(), Some(b'\'' | b'"')) => {
                Some(Literal::Text(inside_quotes(self.sql, token.span)))
            }
            TokenKind::QuotedName => Some(Literal::Word(inside_quotes(self.sql, token.span))),
            TokenKind::Word => Some(match token.keyword {
                Keyword::Null => Literal::Null,
                Keyword::Default => Literal::Default,
                Keyword::True => Literal::Boolean(true),
                Keyword::False => Literal::Boolean(false),
                _ => Literal::Word(token.span),
            }),
            _ => None,
        }
    }

    fn note_assignment(&mut self, item: SetItem) {
        if self.facts.set.len() >= ASSIGNMENTS_MAX {
            self.doubt();
        } else {
            self.facts.set.push(item);
        }
        match item.scope {
            SetScope::User => self.effect(Effects::USER_VARIABLE_WRITE),
            SetScope::Global | SetScope::Persist | SetScope::PersistOnly => self.effect(Effects::GLOBAL_SET),
            SetScope::Session => {
                let name = item.name.of(self.sql);
                self.effect(Effects::SYSTEM_VARIABLE_SET | variables::effects_of_setting(name));
                if name.eq_ignore_ascii_case(b"autocommit") {
                    match item.literal.and_then(|literal| literal.as_bool(self.sql)) {
                        Some(on) => {
                            self.statement.txn = TransactionControl::SetAutocommit(on);
                            self.statement.implicit_commit |= on;
                        }
                        None => {
                            self.statement.implicit_commit = true;
                            self.doubt();
                        }
                    }
                } else if is_transaction_characteristic(name) && self.previous_is_bare_characteristic(item) {
                    // `SET @@transaction_isolation = …` is for the next transaction only, see below.
                    self.effect(Effects::NEXT_TRANSACTION);
                }
            }
        }
    }

    /// `SET @@transaction_isolation = x` (with `@@`, without a scope) sets the next transaction's, as SET TRANSACTION does.
    fn previous_is_bare_characteristic(&self, item: SetItem) -> bool {
        let start = item.name.start as usize;
        let before = self.sql.get(..start).unwrap_or_default();
        before.ends_with(b"@@") || before.ends_with(b"@@`")
    }

    /// At NAMES, CHARSET, or the SET of CHARACTER SET.
    fn set_names(&mut self, character_set_form: bool) -> bool {
        self.pass();
        let mut names = SetNames { character_set_form, charset: None, collate: None };
        match self.current.kind {
            TokenKind::Word if self.at(Keyword::Default) => {}
            TokenKind::Word | TokenKind::Text | TokenKind::QuotedName => names.charset = Some(self.bare(self.current)),
            _ => return false,
        }
        self.pass();
        if !character_set_form && self.pass_if(Keyword::Collate) {
            if !matches!(self.current.kind, TokenKind::Word | TokenKind::Text | TokenKind::QuotedName) {
                return false;
            }
            if !self.at(Keyword::Default) {
                names.collate = Some(self.bare(self.current));
            }
            self.pass();
        }
        self.facts.set_names = Some(names);
        self.effect(Effects::CHARACTER_SET | Effects::SYSTEM_VARIABLE_SET);
        true
    }

    /// At TRANSACTION.
    fn set_transaction(&mut self, scope: Option<SetScope>) -> bool {
        self.pass();
        let start = self.current.span;
        if !matches!(self.current.keyword, Keyword::Isolation | Keyword::Read) {
            return false;
        }
        self.scan_rest();
        self.facts.set_transaction = Some(SetTransaction { scope, text: span_to(start, self) });
        self.effect(match scope {
            None => Effects::NEXT_TRANSACTION,
            Some(SetScope::Session) => Effects::SYSTEM_VARIABLE_SET,
            Some(_) => Effects::GLOBAL_SET,
        });
        true
    }

    /// At ROLE.
    fn set_role(&mut self) -> bool {
        self.pass();
        let start = self.current.span;
        if self.at_end() {
            return false;
        }
        self.pass_rest();
        self.facts.set_role = Some(span_to(start, self));
        self.effect(Effects::ROLE);
        true
    }

    /// At PASSWORD, or DEFAULT ROLE.
    fn set_account(&mut self) -> bool {
        self.effect(Effects::ACCOUNT);
        self.statement.implicit_commit = true;
        self.pass_rest();
        true
    }

    /// At the STATEMENT of `SET STATEMENT a = 1, b = 2 FOR statement`. The variables are back to what they were afterwards, but
    /// while it runs they may change what the statement means: never certain.
    fn set_statement(&mut self) {
        self.pass();
        while !(self.at_end() || self.at(Keyword::For) && self.depth == 0) {
            self.bump();
        }
        if !self.at_end() {
            self.pass();
            self.statement_body();
        }
        self.statement.verb = Verb::SetStatement;
        self.statement.read_form = false;
        self.doubt();
    }
}

fn set_scope(scope: Scope) -> SetScope {
    match scope {
        Scope::Unsaid | Scope::Session => SetScope::Session,
        Scope::Global => SetScope::Global,
        Scope::Persist => SetScope::Persist,
        Scope::PersistOnly => SetScope::PersistOnly,
    }
}

fn is_transaction_characteristic(name: &[u8]) -> bool {
    [b"transaction_isolation".as_slice(), b"transaction_read_only", b"tx_isolation", b"tx_read_only"]
        .iter()
        .any(|known| known.eq_ignore_ascii_case(name))
}
