//! The smaller statements: KILL, USE, text-protocol prepare, HANDLER, locks, LOAD, definitions and administration.

use super::facts::{Effects, StatementClass, Verb};
use super::keywords::Keyword;
use super::lexer::{TokenKind, inside_quotes};
use super::names::{Kill, KillTarget};
use super::scan::Scanner;
use super::select::span_to;

impl Scanner<'_> {
    pub(super) fn is_a(&mut self, verb: Verb, class: StatementClass) {
        self.statement.verb = verb;
        self.statement.class = class;
    }

    /// A statement of which only the verb matters. Nothing in it is looked at.
    pub(super) fn plain(&mut self, verb: Verb, class: StatementClass, implicit_commit: bool) {
        self.is_a(verb, class);
        self.statement.implicit_commit = implicit_commit;
        self.pass_rest();
    }

    /// At UPDATE or DELETE.
    pub(super) fn change(&mut self, verb: Verb) {
        self.is_a(verb, StatementClass::Write);
        self.pass();
        self.scan_rest();
    }

    /// At INSERT or REPLACE: passes the target, whose name may stand before a parenthesis.
    pub(super) fn insert(&mut self, verb: Verb) {
        self.is_a(verb, StatementClass::Write);
        self.pass();
        self.pass_any(&[Keyword::Low, Keyword::Delayed, Keyword::HighPriority, Keyword::Ignore, Keyword::Into]);
        while self.current.is_name() || self.current.kind == TokenKind::Dot {
            let name = self.current.is_name();
            self.pass();
            if name && self.current.kind != TokenKind::Dot {
                break;
            }
        }
        self.scan_rest();
    }

    /// At DO.
    pub(super) fn evaluate(&mut self) {
        self.is_a(Verb::Do, StatementClass::Other);
        self.pass();
        self.scan_rest();
    }

    /// At CALL.
    pub(super) fn call(&mut self) {
        self.is_a(Verb::Call, StatementClass::Call);
        self.effect(Effects::ROUTINE);
        // An OUT parameter writes; which one is cannot be seen.
        self.statement.writes_variables = true;
        self.pass();
        self.scan_rest();
    }

    /// At KILL.
    pub(super) fn kill(&mut self) {
        self.is_a(Verb::Kill, StatementClass::Admin);
        self.pass();
        let mut hard = None;
        if self.pass_if(Keyword::Hard) {
            hard = Some(true);
        } else if self.pass_if(Keyword::Soft) {
            hard = Some(false);
        }
        let mut query_only = false;
        let mut query_id = false;
        if self.pass_if(Keyword::Query) {
            query_only = true;
            query_id = self.pass_if(Keyword::Id);
        } else {
            self.pass_if(Keyword::Connection);
        }
        if self.at_end() {
            return self.doubt();
        }
        let user = self.at(Keyword::User) && !matches!(self.next.kind, TokenKind::Open);
        if user {
            self.pass();
            self.statement.accounts = true;
        }
        let start = self.current.span;
        let number = match self.current.kind {
            TokenKind::Number => core::str::from_utf8(self.text(self.current)).ok().and_then(|text| text.parse().ok()),
            _ => None,
        };
        let mut tokens = 0u32;
        while !self.at_end() {
            tokens = tokens.saturating_add(1);
            self.bump();
        }
        let text = span_to(start, self);
        let target = match number {
            _ if user => KillTarget::User(text),
            _ if query_id => KillTarget::QueryId(text),
            Some(id) if tokens == 1 => KillTarget::Id(id),
            _ => {
                self.doubt();
                KillTarget::Expression(text)
            }
        };
        self.facts.kill = Some(Kill { query_only, hard, target });
    }

    fn name_of_current(&mut self) -> Option<super::facts::Span> {
        match self.current.kind {
            TokenKind::Word => Some(self.current.span),
            TokenKind::QuotedName => Some(inside_quotes(self.sql, self.current.span)),
            _ => {
                self.doubt();
                None
            }
        }
    }

    /// At USE.
    pub(super) fn use_schema(&mut self) {
        self.is_a(Verb::Use, StatementClass::Set);
        self.effect(Effects::SCHEMA);
        self.pass();
        self.facts.use_schema = self.name_of_current();
        if !self.at_end() {
            self.pass();
        }
        self.expect_end();
    }

    /// At PREPARE.
    pub(super) fn prepare(&mut self) {
        self.is_a(Verb::Prepare, StatementClass::Other);
        self.effect(Effects::TEXT_PREPARE);
        self.pass();
        self.facts.prepared_name = self.name_of_current();
        self.scan_rest();
    }

    /// At EXECUTE.
    pub(super) fn execute(&mut self) {
        self.pass();
        if self.at(Keyword::Immediate) && self.next.kind != TokenKind::End && self.next.kind != TokenKind::Semicolon {
            self.is_a(Verb::ExecuteImmediate, StatementClass::Call);
            self.effect(Effects::ROUTINE);
        } else {
            self.is_a(Verb::Execute, StatementClass::Call);
            self.effect(Effects::TEXT_EXECUTE);
            self.facts.prepared_name = self.name_of_current();
        }
        self.doubt();
        self.scan_rest();
    }

    /// At the PREPARE of DEALLOCATE PREPARE or DROP PREPARE.
    pub(super) fn deallocate(&mut self) {
        self.is_a(Verb::Deallocate, StatementClass::Other);
        self.effect(Effects::TEXT_DEALLOCATE);
        if !self.pass_if(Keyword::Prepare) {
            self.doubt();
        }
        self.facts.prepared_name = self.name_of_current();
        if !self.at_end() {
            self.pass();
        }
        self.expect_end();
    }

    /// At HANDLER.
    pub(super) fn handler(&mut self) {
        self.is_a(Verb::Handler, StatementClass::Read);
        self.pass();
        let mut table = None;
        while self.current.is_name() || self.current.kind == TokenKind::Dot {
            let name = self.current.is_name();
            table = name.then_some(self.current);
            self.pass();
            if name && self.current.kind != TokenKind::Dot {
                break;
            }
        }
        match self.current.keyword {
            Keyword::Open => {
                self.effect(Effects::HANDLER_OPEN);
                self.name_handler(table);
            }
            Keyword::Close => {
                self.effect(Effects::HANDLER_CLOSE);
                self.name_handler(table);
            }
            Keyword::Read => self.effect(Effects::HANDLER_USE),
            _ => {
                self.effect(Effects::HANDLER_OPEN | Effects::HANDLER_USE);
                self.doubt();
            }
        }
        self.scan_rest();
    }

    /// At LOCK.
    pub(super) fn lock(&mut self) {
        self.is_a(Verb::Lock, StatementClass::Admin);
        self.statement.implicit_commit = true;
        self.pass();
        match self.current.keyword {
            Keyword::Table | Keyword::Tables => self.effect(Effects::LOCK_TABLES),
            Keyword::Instance => {
                self.effect(Effects::FLUSH_READ_LOCK);
                self.named().locks_instance = true;
            }
            _ => {
                self.effect(Effects::LOCK_TABLES | Effects::FLUSH_READ_LOCK);
                self.doubt();
            }
        }
        self.pass_rest();
    }

    /// At UNLOCK.
    pub(super) fn unlock(&mut self) {
        self.is_a(Verb::Unlock, StatementClass::Admin);
        self.statement.implicit_commit = true;
        self.pass();
        // UNLOCK INSTANCE ends a lock of its own and no other.
        if self.at(Keyword::Instance) {
            self.named().unlocks_instance = true;
        } else {
            self.effect(Effects::UNLOCK_TABLES);
        }
        if !matches!(self.current.keyword, Keyword::Table | Keyword::Tables | Keyword::Instance) {
            self.doubt();
        }
        self.pass_rest();
    }

    /// At BACKUP.
    pub(super) fn backup(&mut self) {
        self.is_a(Verb::Backup, StatementClass::Admin);
        self.statement.implicit_commit = true;
        self.pass();
        if self.at(Keyword::Unlock) {
            self.effect(Effects::UNLOCK_TABLES);
            self.named().backup_unlock = true;
        } else if self.at(Keyword::Stage) && self.next.is(Keyword::End) {
            self.effect(Effects::UNLOCK_TABLES);
            self.named().backup_stage_end = true;
        } else {
            self.effect(Effects::FLUSH_READ_LOCK);
            if self.at(Keyword::Lock) {
                self.named().backup_lock = true;
            } else {
                self.named().backup_stage = true;
            }
        }
        self.pass_rest();
    }

    /// At FLUSH.
    pub(super) fn flush(&mut self) {
        self.is_a(Verb::Flush, StatementClass::Admin);
        self.statement.implicit_commit = true;
        while !self.at_end() {
            let read_lock = self.at(Keyword::With) && self.next.is(Keyword::Read);
            let export = self.at(Keyword::For) && self.next.is(Keyword::Export);
            if read_lock || export {
                self.effect(Effects::FLUSH_READ_LOCK);
            }
            if self.at(Keyword::Privileges) {
                self.effect(Effects::ACCOUNT);
            }
            self.pass();
        }
    }

    /// At LOAD.
    pub(super) fn load(&mut self) {
        self.pass();
        if self.at(Keyword::Index) {
            return self.plain(Verb::Load, StatementClass::Admin, true);
        }
        self.is_a(Verb::Load, StatementClass::Write);
        self.statement.writes_variables = true;
        self.statement.watch_calls = false;
        let mut local = false;
        while !self.at_end() {
            // LOCAL can only stand before the file's name.
            local |= self.at(Keyword::Local) && self.next.kind == TokenKind::Word && self.depth == 0;
            if self.at(Keyword::Set) && !self.previous.is(Keyword::Character) {
                self.statement.watch_calls = true;
            }
            self.bump();
        }
        self.effect(if local { Effects::LOAD_LOCAL } else { Effects::LOAD_DATA });
    }

    /// At GET (DIAGNOSTICS).
    pub(super) fn diagnostics(&mut self) {
        self.is_a(Verb::GetDiagnostics, StatementClass::Read);
        self.effect(Effects::SHOW_DIAGNOSTICS);
        self.statement.writes_variables = true;
        self.pass();
        self.pass_any(&[Keyword::Current, Keyword::Stacked]);
        if !self.at(Keyword::Diagnostics) {
            self.doubt();
        }
        self.scan_rest();
    }

    /// At CREATE.
    pub(super) fn create(&mut self) {
        self.is_a(Verb::Create, StatementClass::Ddl);
        self.statement.implicit_commit = true;
        self.statement.watch_calls = false;
        self.statement.accounts = true;
        self.pass();
        let mut temporary = false;
        while !self.at_end() {
            match self.current.keyword {
                Keyword::Temporary => temporary = true,
                Keyword::Procedure | Keyword::Function | Keyword::Trigger | Keyword::Event | Keyword::Package => {
                    return self.pass_body(false);
                }
                Keyword::Table => return self.create_table(temporary),
                Keyword::Sequence if temporary => {
                    self.effect(Effects::TEMPORARY_TABLE);
                    return self.pass_rest();
                }
                Keyword::User | Keyword::Role => {
                    self.effect(Effects::ACCOUNT);
                    return self.pass_rest();
                }
                Keyword::View | Keyword::Index | Keyword::Database | Keyword::Schema | Keyword::Sequence => {
                    return self.pass_rest();
                }
                _ => {}
            }
            self.pass();
        }
    }

    /// At the TABLE of CREATE TABLE.
    fn create_table(&mut self, temporary: bool) {
        if temporary {
            self.effect(Effects::TEMPORARY_TABLE);
            self.statement.implicit_commit = false;
            self.pass();
            self.name_created_table();
        }
        self.statement.hide_volatile = true;
        while !self.at_end() && !matches!(self.current.keyword, Keyword::Select | Keyword::With | Keyword::Values) {
            self.pass();
        }
        // VALUES and WITH also stand in definitions of partitions and indexes; from SELECT on it is a query.
        while !self.at_end() {
            if self.at(Keyword::Select) {
                self.statement.watch_calls = true;
                self.effect(Effects::CREATE_TABLE_SELECT);
                // It runs now, and its items are the columns of the table.
                self.statement.hide_volatile = false;
                self.select_list();
                break;
            }
            self.pass();
        }
        self.scan_rest();
    }

    /// At ALTER.
    pub(super) fn alter(&mut self) {
        self.is_a(Verb::Alter, StatementClass::Ddl);
        self.statement.implicit_commit = true;
        self.pass();
        while !self.at_end() {
            match self.current.keyword {
                Keyword::Event => return self.pass_body(false),
                Keyword::User | Keyword::Role => {
                    self.effect(Effects::ACCOUNT);
                    break;
                }
                Keyword::Table => return self.name_altered_table(),
                Keyword::View | Keyword::Procedure | Keyword::Function => break,
                _ => self.pass(),
            }
        }
        self.pass_rest();
    }

    /// At DROP.
    pub(super) fn drop_statement(&mut self) {
        self.pass();
        if self.at(Keyword::Prepare) {
            return self.deallocate();
        }
        self.is_a(Verb::Drop, StatementClass::Ddl);
        self.statement.implicit_commit = true;
        match self.current.keyword {
            Keyword::Temporary => {
                self.effect(Effects::TEMPORARY_TABLE_DROP);
                self.statement.implicit_commit = false;
                self.pass();
            }
            Keyword::Table | Keyword::Tables | Keyword::Sequence => self.effect(Effects::TEMPORARY_TABLE_DROP),
            Keyword::User | Keyword::Role => self.effect(Effects::ACCOUNT),
            _ => {}
        }
        if matches!(self.current.keyword, Keyword::Table | Keyword::Tables) {
            self.name_dropped_tables();
        }
        self.pass_rest();
    }

    /// At GRANT, REVOKE, or a statement like them.
    pub(super) fn account(&mut self, verb: Verb) {
        self.effect(Effects::ACCOUNT);
        self.plain(verb, StatementClass::Ddl, true);
    }

    /// At ANALYZE: of tables, or MariaDB's of a statement.
    pub(super) fn analyze(&mut self) {
        let tables =
            matches!(self.next.keyword, Keyword::Table | Keyword::Tables | Keyword::Local | Keyword::NoWriteToBinlog);
        if tables {
            self.plain(Verb::Analyze, StatementClass::Admin, true);
        } else {
            self.explain(Verb::AnalyzeStatement);
        }
    }
}
