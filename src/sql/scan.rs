//! Walks over the tokens of a text and notes, token by token, what each does to the session: calls, variables, locks.
//!
//! The files of the topics drive the walk: they know where they are in the grammar. What no topic looks at is scanned here.

use smallvec::SmallVec;

use super::facts::{
    Effects, Facts, Flavor, LexContext, Span, StatementClass, StatementCount, TransactionControl, Verb, VolatileCall,
    VolatileKind,
};
use super::functions::{FunctionEffect, function_effect};
use super::keywords::Keyword;
use super::lexer::{Lexer, Token, TokenKind};
use super::names::UserVariable;
use super::variables;

/// More volatile calls than this in one text are not worth rewriting.
const VOLATILE_CALLS_MAX: usize = 64;

/// Mentions of user variables in one text beyond this are not noted.
const USER_VARIABLES_MAX: usize = 256;

/// What is known of the statement under way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Statement {
    pub verb: Verb,
    pub class: StatementClass,
    pub certain: bool,
    pub txn: TransactionControl,
    pub implicit_commit: bool,
    pub effects: Effects,
    pub locking: bool,
    pub reads_tables: bool,
    pub from_table: bool,
    /// Its form only reads (the effects are looked at later).
    pub read_form: bool,
    /// Calls of functions are looked at (off in definitions, where parentheses follow names of other kinds).
    pub watch_calls: bool,
    /// `'user'@'host'` may occur.
    pub accounts: bool,
    /// Every user variable in it is written.
    pub writes_variables: bool,
    /// Volatile calls in it cannot be rewritten.
    pub hide_volatile: bool,
    /// Inside the list of variables behind INTO.
    into_list: bool,
    json_table: bool,
    pending: Option<(VolatileKind, Span)>,
}

impl Statement {
    fn new() -> Statement {
        Statement {
            verb: Verb::Unknown,
            class: StatementClass::Other,
            certain: true,
            txn: TransactionControl::None,
            implicit_commit: false,
            effects: Effects::empty(),
            locking: false,
            reads_tables: false,
            from_table: false,
            read_form: false,
            watch_calls: true,
            accounts: false,
            writes_variables: false,
            hide_volatile: false,
            into_list: false,
            json_table: false,
            pending: None,
        }
    }
}

/// The walk: a window of three tokens over the text, and the facts so far.
pub(super) struct Scanner<'a> {
    pub sql: &'a [u8],
    pub context: LexContext,
    pub facts: Facts,
    pub statement: Statement,
    pub previous: Token,
    pub current: Token,
    pub next: Token,
    /// Open parentheses.
    pub depth: u32,
    lexer: Lexer<'a>,
}

impl<'a> Scanner<'a> {
    pub fn new(sql: &'a [u8], context: &LexContext) -> Scanner<'a> {
        let mut lexer = Lexer::new(sql, context);
        let current = lexer.next_token();
        let next = lexer.next_token();
        Scanner {
            sql,
            context: *context,
            facts: Facts::nothing(),
            statement: Statement::new(),
            previous: Token::default(),
            current,
            next,
            depth: 0,
            lexer,
        }
    }

    /// A lexer behind the next token, to look further ahead with.
    pub fn ahead(&self) -> Lexer<'a> {
        self.lexer.clone()
    }

    pub fn in_doubt(&self) -> bool {
        self.lexer.in_doubt()
    }

    /// Whether the statement ends here.
    pub fn at_end(&self) -> bool {
        matches!(self.current.kind, TokenKind::Semicolon | TokenKind::End)
    }

    /// Whether the current token is the keyword.
    pub fn at(&self, keyword: Keyword) -> bool {
        self.current.is(keyword)
    }

    /// The text of a token.
    pub fn text(&self, token: Token) -> &'a [u8] {
        token.span.of(self.sql)
    }

    /// Goes one token on without looking at it.
    pub fn pass(&mut self) {
        match self.current.kind {
            TokenKind::Open => self.depth = self.depth.saturating_add(1),
            TokenKind::Close => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if variables::lists_user_variables(self.text(self.current)) {
            self.effect(Effects::USER_VARIABLES_LISTED);
        }
        if variables::lists_variables(self.text(self.current)) {
            self.effect(Effects::VARIABLES_LISTED);
        }
        self.previous = self.current;
        self.current = self.next;
        self.next = self.lexer.next_token();
    }

    /// Passes the keyword if it is here.
    pub fn pass_if(&mut self, keyword: Keyword) -> bool {
        let here = self.at(keyword);
        if here {
            self.pass();
        }
        here
    }

    /// Passes any of the keywords, as often as they come.
    pub fn pass_any(&mut self, keywords: &[Keyword]) {
        while self.current.kind == TokenKind::Word && keywords.contains(&self.current.keyword) {
            self.pass();
        }
    }

    /// Looks at the current token and goes on.
    pub fn bump(&mut self) {
        self.observe();
        self.pass();
    }

    /// Looks at the rest of the statement.
    pub fn scan_rest(&mut self) {
        while !self.at_end() {
            self.bump();
        }
    }

    /// Passes the rest of the statement without looking at it.
    pub fn pass_rest(&mut self) {
        while !self.at_end() {
            self.pass();
        }
    }

    /// Nothing may follow: what does makes the statement uncertain.
    pub fn expect_end(&mut self) {
        if !self.at_end() {
            self.doubt();
            self.scan_rest();
        }
    }

    /// Passes the rest of the text as the body of a stored program, in which `;` ends nothing. Whether more statements follow
    /// behind the body is not known then. `runs`: it is not only defined.
    pub fn pass_body(&mut self, runs: bool) {
        let mut inner = false;
        while self.current.kind != TokenKind::End {
            if self.current.kind == TokenKind::Semicolon && self.next.kind != TokenKind::End {
                inner = true;
            }
            if runs {
                self.look_for_kill();
            }
            self.pass();
        }
        if inner && self.context.multi_statements {
            self.doubt();
        }
    }

    /// In a block that runs: no name can be KILL without quotes, except behind a dot.
    pub fn look_for_kill(&mut self) {
        self.facts.kill_inside |= self.at(Keyword::Kill) && self.previous.kind != TokenKind::Dot;
    }

    /// The lexer cannot vouch for this statement.
    pub fn doubt(&mut self) {
        self.statement.certain = false;
    }

    pub fn effect(&mut self, effects: Effects) {
        self.statement.effects |= effects;
    }

    fn observe(&mut self) {
        let token = self.current;
        match token.kind {
            TokenKind::Word => self.observe_word(token),
            TokenKind::Comma => return,
            TokenKind::QuotedName if self.next.kind == TokenKind::Open => self.observe_call(token),
            TokenKind::UserVariable => {
                self.observe_user_variable(token);
                return;
            }
            TokenKind::SystemVariable => self.observe_system_variable(token),
            // Outside SET (which passes its own) it can only follow a user variable.
            TokenKind::Assign if self.previous.kind != TokenKind::UserVariable => self.doubt(),
            TokenKind::Open => {
                if let Some((kind, span)) = self.statement.pending.take() {
                    self.observe_arguments(kind, span);
                }
            }
            _ => {}
        }
        if !token.is(Keyword::Into) {
            self.statement.into_list = false;
        }
    }

    fn observe_word(&mut self, token: Token) {
        if self.next.kind == TokenKind::Open {
            self.observe_call(token);
        }
        match token.keyword {
            Keyword::None if self.previous.kind == TokenKind::Dot && self.context.flavor == Flavor::OceanBase => {
                let name = self.text(token);
                if name.eq_ignore_ascii_case(b"nextval") || name.eq_ignore_ascii_case(b"currval") {
                    self.effect(Effects::SEQUENCE_WRITE);
                }
            }
            Keyword::Into => {
                self.statement.read_form = false;
                match (self.next.kind, self.next.keyword) {
                    (TokenKind::UserVariable, _) => self.statement.into_list = true,
                    (TokenKind::Word, Keyword::Outfile | Keyword::Dumpfile) => self.effect(Effects::SELECT_INTO),
                    _ => {}
                }
            }
            Keyword::For if self.next.is(Keyword::Update) || self.next.is(Keyword::Share) => {
                self.statement.locking = true
            }
            Keyword::Lock if self.next.is(Keyword::In) => self.statement.locking = true,
            Keyword::From => {
                self.statement.reads_tables = true;
                let table = match self.next.kind {
                    TokenKind::Word => !self.text(self.next).eq_ignore_ascii_case(b"DUAL"),
                    TokenKind::QuotedName | TokenKind::Open => true,
                    _ => false,
                };
                self.statement.from_table |= table && self.depth == 0;
            }
            Keyword::Procedure => self.statement.read_form = false,
            Keyword::SqlCalcFoundRows => self.effect(Effects::CALC_FOUND_ROWS),
            Keyword::Value if self.next.is(Keyword::For) => {
                if self.previous.is(Keyword::Next) {
                    self.effect(Effects::SEQUENCE_WRITE);
                } else if self.previous.is(Keyword::Previous) {
                    self.effect(Effects::SEQUENCE_READ);
                }
            }
            Keyword::Returning => self.statement.hide_volatile = true,
            _ => {}
        }
    }

    /// At a name before a parenthesis.
    fn observe_call(&mut self, token: Token) {
        if !self.statement.watch_calls {
            return;
        }
        if self.previous.kind == TokenKind::Dot {
            self.effect(Effects::ROUTINE);
            return;
        }
        if self.previous.is(Keyword::As) {
            return;
        }
        let before = self.previous;
        match token.keyword {
            // Only behind a comparison are these no names.
            Keyword::Any | Keyword::Some if matches!(before.kind, TokenKind::Operator | TokenKind::Equals) => return,
            Keyword::JsonTable if before.is(Keyword::From) || before.is(Keyword::Join) => {
                self.statement.json_table = true;
                return;
            }
            Keyword::Columns if self.statement.json_table => return,
            _ => {}
        }
        let known = if token.kind == TokenKind::Word {
            let space = token.span.end != self.next.span.start && !self.context.ignore_space;
            function_effect(self.text(token), self.context.flavor, space)
        } else {
            None
        };
        match known {
            Some(FunctionEffect::Pure) => {}
            Some(FunctionEffect::GetLock) => {
                self.effect(Effects::GET_LOCK);
                self.name_lock();
            }
            Some(FunctionEffect::ReleaseLock) => {
                self.effect(Effects::RELEASE_LOCK);
                self.name_release();
            }
            Some(FunctionEffect::Volatile(kind)) => self.statement.pending = Some((kind, token.span)),
            Some(FunctionEffect::SequenceWrite) => self.effect(Effects::SEQUENCE_WRITE),
            Some(FunctionEffect::SequenceRead) => self.effect(Effects::SEQUENCE_READ),
            Some(FunctionEffect::Waits) => self.statement.read_form = false,
            // `) name (a, b)` names the columns of a derived table; no call can stand there.
            None if self.previous.kind == TokenKind::Close => {}
            None => self.effect(Effects::ROUTINE),
        }
    }

    /// At the parenthesis behind the name of a volatile function.
    fn observe_arguments(&mut self, kind: VolatileKind, name: Span) {
        if self.next.kind == TokenKind::Close {
            self.volatile(kind, name.to(self.next.span));
        } else if kind == VolatileKind::LastInsertId {
            self.effect(Effects::LAST_INSERT_ID_SET);
        } else {
            self.doubt();
        }
    }

    fn volatile(&mut self, kind: VolatileKind, range: Span) {
        if self.statement.hide_volatile || self.facts.volatile.len() >= VOLATILE_CALLS_MAX {
            self.effect(Effects::VOLATILE_HIDDEN);
        } else {
            self.facts.volatile.push(VolatileCall { kind, range, plain_select_item: false, unaliased_item: None });
        }
    }

    fn observe_user_variable(&mut self, token: Token) {
        let previous = self.previous;
        let touches = previous.span.end == token.span.start;
        let account = match previous.kind {
            TokenKind::Text | TokenKind::QuotedName => true,
            TokenKind::Word => previous.keyword == Keyword::None,
            _ => false,
        };
        if self.statement.accounts && touches && account {
            return;
        }
        let written =
            self.next.kind == TokenKind::Assign || self.statement.into_list || self.statement.writes_variables;
        self.effect(if written { Effects::USER_VARIABLE_WRITE } else { Effects::USER_VARIABLE_READ });
        self.note_user_variable(variables::user_variable_name(self.sql, token.span), written);
    }

    /// Notes that the statement mentions a user variable.
    pub(super) fn note_user_variable(&mut self, name: Span, written: bool) {
        if self.facts.user_variables.len() < USER_VARIABLES_MAX {
            self.facts.user_variables.push(UserVariable { name, written });
        } else {
            self.effect(Effects::USER_VARIABLES_UNNAMED);
        }
    }

    fn observe_system_variable(&mut self, token: Token) {
        // `@@global/**/.x`: not worth reading.
        if self.next.kind == TokenKind::Dot {
            self.doubt();
        }
        let (scope, name) = variables::split(self.sql, token.span);
        if matches!(scope, variables::Scope::Global) {
            return;
        }
        if let Some(kind) = variables::volatile_kind(name.of(self.sql)) {
            if matches!(kind, VolatileKind::WarningCountVar | VolatileKind::ErrorCountVar) {
                self.effect(Effects::SHOW_DIAGNOSTICS);
            }
            self.volatile(kind, token.span);
        }
    }

    /// Adds the finished statement, the `index`th, to the facts, and makes ready for the next.
    pub fn finish_statement(&mut self, index: u32) {
        let done = core::mem::replace(&mut self.statement, Statement::new());
        self.depth = 0;
        let facts = &mut self.facts;
        if index == 0 {
            facts.verb = done.verb;
            facts.class = done.class;
            facts.statements = StatementCount::One;
        } else {
            if facts.class != done.class {
                facts.class = StatementClass::Other;
            }
            facts.statements = StatementCount::Several(index.saturating_add(1));
        }
        if done.txn != TransactionControl::None {
            facts.txn = done.txn;
        }
        facts.certain &= done.certain;
        facts.implicit_commit |= done.implicit_commit;
        facts.effects |= done.effects;
        facts.locking_read |= done.locking;
        facts.reads_tables |= done.reads_tables;
        facts.from_table |= done.from_table;
        facts.side_effect_free_read = index == 0 && done.read_form;
    }

    /// The facts, when the text has ended.
    pub fn into_facts(mut self) -> Facts {
        let doubt = self.in_doubt();
        let facts = &mut self.facts;
        facts.certain &= !doubt;
        facts.kill_inside |= facts.kill.is_some() && matches!(facts.statements, StatementCount::Several(_));
        if matches!(facts.statements, StatementCount::Several(_)) && !facts.volatile.is_empty() {
            // A statement before it in the same text may change what the call answers.
            facts.volatile = SmallVec::new();
            facts.effects |= Effects::VOLATILE_HIDDEN;
        }
        if self.context.oracle_mode {
            facts.certain = false;
            facts.effects |= Effects::ROUTINE;
        }
        if facts.effects.contains(Effects::VOLATILE_HIDDEN) {
            facts.certain = false;
        }
        if !facts.certain && !facts.effects.contains(Effects::ROUTINE) {
            facts.effects |= Effects::UNKNOWN;
        }
        let harmless = Effects::USER_VARIABLE_READ | Effects::CALC_FOUND_ROWS | Effects::VARIABLES_LISTED;
        facts.side_effect_free_read &= facts.certain
            && facts.statements == StatementCount::One
            && !facts.locking_read
            && harmless.contains(facts.effects);
        self.facts
    }
}
