//! BEGIN, COMMIT, ROLLBACK, savepoints, XA: what a statement says about the transaction.

use super::facts::{Effects, StatementClass, TransactionControl, Verb, XaVerb};
use super::keywords::Keyword;
use super::lexer::TokenKind;
use super::scan::Scanner;

impl Scanner<'_> {
    fn transaction(&mut self, verb: Verb, control: TransactionControl) {
        self.statement.verb = verb;
        self.statement.class = StatementClass::Transaction;
        self.statement.txn = control;
    }

    /// At BEGIN.
    pub(super) fn begin(&mut self) {
        self.pass();
        if self.at(Keyword::Not) && self.next.is(Keyword::Atomic) {
            self.statement.verb = Verb::BeginNotAtomic;
            self.statement.class = StatementClass::Call;
            self.effect(Effects::ROUTINE);
            self.doubt();
            self.pass_body(true);
            return;
        }
        self.transaction(Verb::Begin, TransactionControl::Begin { read_only: None, consistent_snapshot: false });
        self.statement.implicit_commit = true;
        self.pass_if(Keyword::Work);
        self.expect_end();
    }

    /// At START: a transaction, or replication.
    pub(super) fn start(&mut self) {
        if !self.next.is(Keyword::Transaction) {
            self.replication();
            return;
        }
        self.pass();
        self.pass();
        let mut read_only = None;
        let mut consistent_snapshot = false;
        loop {
            if self.at(Keyword::With) && self.next.is(Keyword::Consistent) {
                self.pass();
                self.pass();
                consistent_snapshot = self.pass_if(Keyword::Snapshot);
            } else if self.at(Keyword::Read) && self.next.is(Keyword::Only) {
                self.pass();
                self.pass();
                read_only = Some(true);
            } else if self.at(Keyword::Read) && self.next.is(Keyword::Write) {
                self.pass();
                self.pass();
                read_only = Some(false);
            } else {
                break;
            }
            if self.current.kind != TokenKind::Comma {
                break;
            }
            self.pass();
        }
        self.transaction(Verb::Begin, TransactionControl::Begin { read_only, consistent_snapshot });
        self.statement.implicit_commit = true;
        self.expect_end();
    }

    /// At START or STOP of replication.
    pub(super) fn replication(&mut self) {
        self.pass();
        self.pass_if(Keyword::All);
        let known = matches!(
            self.current.keyword,
            Keyword::Replica | Keyword::Slave | Keyword::Slaves | Keyword::GroupReplication
        );
        self.statement.verb = Verb::Replication;
        self.statement.class = StatementClass::Admin;
        self.statement.implicit_commit = true;
        if !known {
            self.doubt();
        }
        self.scan_rest();
    }

    /// `[WORK] [AND [NO] CHAIN] [[NO] RELEASE]`
    fn completion(&mut self) -> (Option<bool>, Option<bool>) {
        let mut chain = None;
        let mut release = None;
        if self.pass_if(Keyword::And) {
            let no = self.pass_if(Keyword::No);
            if self.pass_if(Keyword::Chain) {
                chain = Some(!no);
            } else {
                self.doubt();
            }
        }
        if self.at(Keyword::Release) {
            self.pass();
            release = Some(true);
        } else if self.at(Keyword::No) && self.next.is(Keyword::Release) {
            self.pass();
            self.pass();
            release = Some(false);
        }
        (chain, release)
    }

    /// At COMMIT.
    pub(super) fn commit(&mut self) {
        self.pass();
        self.pass_if(Keyword::Work);
        let (chain, release) = self.completion();
        self.transaction(Verb::Commit, TransactionControl::Commit { chain, release });
        self.expect_end();
    }

    /// At ROLLBACK.
    pub(super) fn rollback(&mut self) {
        self.pass();
        self.pass_if(Keyword::Work);
        if self.pass_if(Keyword::To) {
            if self.at(Keyword::Savepoint) && self.next.is_name() {
                self.pass();
            }
            self.name_then_end();
            self.transaction(Verb::Rollback, TransactionControl::RollbackTo);
            return;
        }
        let (chain, release) = self.completion();
        self.transaction(Verb::Rollback, TransactionControl::Rollback { chain, release });
        self.expect_end();
    }

    fn name_then_end(&mut self) {
        if self.current.is_name() {
            self.pass();
        } else {
            self.doubt();
        }
        self.expect_end();
    }

    /// At SAVEPOINT.
    pub(super) fn savepoint(&mut self) {
        self.pass();
        self.name_then_end();
        self.transaction(Verb::Savepoint, TransactionControl::Savepoint);
    }

    /// At RELEASE SAVEPOINT.
    pub(super) fn release(&mut self) {
        self.pass();
        if !self.pass_if(Keyword::Savepoint) {
            self.doubt();
        }
        self.name_then_end();
        self.transaction(Verb::Release, TransactionControl::ReleaseSavepoint);
    }

    /// At XA.
    pub(super) fn xa(&mut self) {
        self.pass();
        self.effect(Effects::XA);
        self.statement.verb = Verb::Xa;
        self.statement.class = StatementClass::Transaction;
        let verb = match self.current.keyword {
            Keyword::Start | Keyword::Begin => XaVerb::Start,
            Keyword::End => XaVerb::End,
            Keyword::Prepare => XaVerb::Prepare,
            Keyword::Commit => XaVerb::Commit,
            Keyword::Rollback => XaVerb::Rollback,
            Keyword::Recover => XaVerb::Recover,
            _ => return self.lost(),
        };
        self.statement.txn = TransactionControl::Xa(verb);
        self.name_xid();
        self.scan_rest();
    }
}
