//! From bytes to [`Facts`]: finds the statements of a text and hands each to the file of its topic.

use super::facts::{Effects, Facts, LexContext, StatementClass, Verb};
use super::keywords::Keyword;
use super::lexer::TokenKind;
use super::scan::Scanner;

/// The facts about `sql`, read as the session and server of `cx` would read it. Never fails: what it cannot read is uncertain.
pub fn analyse(sql: &[u8], cx: &LexContext) -> Facts {
    let mut scanner = Scanner::new(sql, cx);
    let mut index = 0u32;
    loop {
        while scanner.current.kind == TokenKind::Semicolon {
            scanner.pass();
        }
        if scanner.current.kind == TokenKind::End {
            return scanner.into_facts();
        }
        scanner.statement_body();
        scanner.finish_statement(index);
        index = index.saturating_add(1);
    }
}

impl Scanner<'_> {
    /// At the first token of a statement: reads it to its end.
    pub(super) fn statement_body(&mut self) {
        if self.current.kind == TokenKind::Open {
            return self.query_in_parentheses();
        }
        if self.current.kind != TokenKind::Word {
            return self.unknown();
        }
        match self.current.keyword {
            Keyword::Select => self.query(Verb::Select),
            Keyword::Insert => self.insert(Verb::Insert),
            Keyword::Update => self.change(Verb::Update),
            Keyword::Delete => self.change(Verb::Delete),
            Keyword::Replace => self.insert(Verb::Replace),
            Keyword::Set => self.set(),
            Keyword::Begin => self.begin(),
            Keyword::Start => self.start(),
            Keyword::Commit => self.commit(),
            Keyword::Rollback => self.rollback(),
            Keyword::Savepoint => self.savepoint(),
            Keyword::Release => self.release(),
            Keyword::Xa => self.xa(),
            Keyword::Use => self.use_schema(),
            Keyword::Show => self.show(),
            Keyword::With => self.with(),
            Keyword::Values => self.query(Verb::Values),
            Keyword::Table => self.query(Verb::Table),
            Keyword::Explain | Keyword::Describe | Keyword::Desc => self.explain(Verb::Explain),
            Keyword::Analyze => self.analyze(),
            Keyword::Do => self.evaluate(),
            Keyword::Call => self.call(),
            Keyword::Prepare => self.prepare(),
            Keyword::Execute => self.execute(),
            Keyword::Deallocate => {
                self.pass();
                self.deallocate();
            }
            _ => self.rare_statement(),
        }
    }

    fn rare_statement(&mut self) {
        use StatementClass::{Admin, Ddl, Other};
        match self.current.keyword {
            Keyword::Handler => self.handler(),
            Keyword::Lock => self.lock(),
            Keyword::Unlock => self.unlock(),
            Keyword::Backup => self.backup(),
            Keyword::Flush => self.flush(),
            Keyword::Load => self.load(),
            Keyword::Get => self.diagnostics(),
            Keyword::Create => self.create(),
            Keyword::Alter => self.alter(),
            Keyword::Drop => self.drop_statement(),
            Keyword::Kill => self.kill(),
            Keyword::Grant => self.account(Verb::Grant),
            Keyword::Revoke => self.account(Verb::Revoke),
            Keyword::Rename => {
                if self.next.is(Keyword::User) {
                    self.effect(Effects::ACCOUNT);
                }
                self.is_a(Verb::Rename, Ddl);
                self.statement.implicit_commit = true;
                self.name_tables_of_rename();
            }
            Keyword::Truncate => self.plain(Verb::Truncate, Ddl, true),
            Keyword::Optimize => self.plain(Verb::Optimize, Admin, true),
            Keyword::Repair => self.plain(Verb::Repair, Admin, true),
            Keyword::Check => self.plain(Verb::Check, Admin, true),
            Keyword::Checksum => self.plain(Verb::Checksum, StatementClass::Read, false),
            Keyword::Cache => self.plain(Verb::CacheIndex, Admin, true),
            Keyword::Reset => self.plain(Verb::Reset, Admin, true),
            Keyword::Change => self.plain(Verb::Change, Admin, true),
            Keyword::Stop => self.replication(),
            Keyword::Purge => self.plain(Verb::Purge, Admin, true),
            Keyword::Shutdown => self.plain(Verb::Shutdown, Admin, true),
            Keyword::Restart => self.plain(Verb::Restart, Admin, true),
            Keyword::Import => self.plain(Verb::Import, Admin, true),
            Keyword::Clone => self.plain(Verb::Clone, Admin, true),
            Keyword::Signal => self.signal(Verb::Signal),
            Keyword::Resignal => self.signal(Verb::Resignal),
            Keyword::Help => {
                self.statement.read_form = true;
                self.plain(Verb::Help, StatementClass::Read, false);
            }
            Keyword::Install | Keyword::Uninstall => {
                let verb = if self.at(Keyword::Install) { Verb::Install } else { Verb::Uninstall };
                self.effect(Effects::INSTALL);
                self.plain(verb, Admin, true);
            }
            Keyword::Binlog => {
                // Its events do what the text does not say.
                self.effect(Effects::REPLICATION_VARIABLE);
                self.doubt();
                self.plain(Verb::Binlog, Other, true);
            }
            _ => self.unknown(),
        }
    }

    fn signal(&mut self, verb: Verb) {
        self.is_a(verb, StatementClass::Other);
        self.pass();
        self.scan_rest();
    }

    fn query_in_parentheses(&mut self) {
        while self.current.kind == TokenKind::Open {
            self.bump();
        }
        match self.current.keyword {
            Keyword::Select => self.query(Verb::Select),
            Keyword::Values => self.query(Verb::Values),
            Keyword::Table => self.query(Verb::Table),
            Keyword::With => self.with(),
            _ => self.unknown(),
        }
    }

    /// Not a statement that the lexer knows: perhaps a block of code, in which `;` ends nothing.
    fn unknown(&mut self) {
        self.is_a(Verb::Unknown, StatementClass::Other);
        self.effect(Effects::UNKNOWN | Effects::ROUTINE);
        self.statement.implicit_commit = true;
        self.doubt();
        while self.current.kind != TokenKind::End {
            self.look_for_kill();
            self.bump();
        }
    }
}
