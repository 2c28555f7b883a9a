//! SET in all its forms.

use super::{Made, Parser};
use crate::ast::{Expr, Isolation, Scope, SetItem, SetValue, Stmt};
use crate::lexer::{Kind, Token};

impl Parser<'_> {
    pub(crate) fn set(&mut self) -> Made<Stmt> {
        if self.word("role") {
            let role = match () {
                () if self.word("none") => None,
                () if self.is_word(0, "default") || self.is_word(0, "all") => return Err(self.stop()),
                () => Some(self.name_or_string()?),
            };
            return Ok(Stmt::SetRole(role));
        }
        if self.is_word(0, "transaction") || self.is_word(1, "transaction") {
            let scope = self.scope_word().unwrap_or(Scope::Bare);
            self.need_word("transaction")?;
            return self.set_transaction(scope);
        }
        if self.is_word(0, "statement") || self.is_word(0, "password") || self.is_word(0, "default") {
            return Err(self.stop());
        }
        Ok(Stmt::Set(self.list(Self::set_item)?))
    }

    fn set_transaction(&mut self, scope: Scope) -> Made<Stmt> {
        let (mut isolation, mut read_only) = (None, None);
        self.list(|p| {
            if p.word("read") {
                read_only = Some(p.word("only"));
                if read_only == Some(false) {
                    p.need_word("write")?;
                }
                return Ok(());
            }
            p.need_word("isolation")?;
            p.need_word("level")?;
            isolation = Some(match () {
                () if p.words(&["read", "committed"]) => Isolation::ReadCommitted,
                () if p.words(&["read", "uncommitted"]) => Isolation::ReadUncommitted,
                () if p.words(&["repeatable", "read"]) => Isolation::RepeatableRead,
                () if p.word("serializable") => Isolation::Serializable,
                () => return Err(p.stop()),
            });
            Ok(())
        })?;
        Ok(Stmt::SetTransaction { scope, isolation, read_only })
    }

    fn set_item(&mut self) -> Made<SetItem> {
        if self.word("names") {
            if self.word("default") {
                return Ok(SetItem::Names(None, None));
            }
            let names = self.name_or_string()?;
            let collate = if self.word("collate") { Some(self.name_or_string()?) } else { None };
            return Ok(SetItem::Names(Some(names), collate));
        }
        if self.words(&["character", "set"]) || self.word("charset") {
            let name = if self.word("default") { None } else { Some(self.name_or_string()?) };
            return Ok(SetItem::CharacterSet(name));
        }
        if let Some(Token { kind: Kind::UserVar(name), .. }) = self.peek() {
            self.next();
            self.assign_sign()?;
            return Ok(SetItem::User(super::expr::lower(name), self.expr()?));
        }
        let at2 = self.peek().is_some_and(|t| t.kind == Kind::At2);
        let mut scope = None;
        if at2 {
            self.next();
            if self.peek_at(1).is_some_and(|t| self.of(t) == ".") {
                scope = self.scope_word();
                self.need(".")?;
            }
        } else {
            scope = self.scope_word();
        }
        let name = self.name()?;
        if !at2 && scope.is_none() && name.eq_ignore_ascii_case("new") && self.sign(".") {
            let column = self.name()?;
            self.assign_sign()?;
            return Ok(SetItem::New(column, self.expr()?));
        }
        self.assign_sign()?;
        let value = self.set_value()?;
        Ok(SetItem::Var { scope: scope.unwrap_or(Scope::Bare), at2, name: super::expr::lower(&name), value })
    }

    fn assign_sign(&mut self) -> Made<()> {
        if self.sign(":=") { Ok(()) } else { self.need("=") }
    }

    fn set_value(&mut self) -> Made<SetValue> {
        if self.word("default") {
            return Ok(SetValue::Default);
        }
        for word in ["on", "binary"] {
            if self.word(word) {
                return Ok(SetValue::Word(word.into()));
            }
        }
        Ok(match self.expr()? {
            Expr::Name(None, word) => SetValue::Word(word),
            other => SetValue::Expr(other),
        })
    }
}
