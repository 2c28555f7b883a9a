//! SHOW and KILL.

use super::{Flow, Made, Run};
use crate::ast::{Expr, Scope};
use crate::error::Error;
use crate::value::Value;
use crate::vars::{self, Reach};
use crate::wire::types;

impl Run<'_> {
    fn text_head(&self, name: &str, length: u32) -> crate::wire::ColumnDef {
        self.head(name, super::types::Ty { ty: types::VAR_STRING, length, unsigned: false, decimals: 0 })
    }

    pub(super) fn show_diagnostics(&mut self, errors: bool, count: bool) -> Made<()> {
        if count {
            let name = if errors { "@@session.error_count" } else { "@@session.warning_count" };
            let ty = super::types::Ty { ty: types::LONGLONG, length: 21, unsigned: true, decimals: 0 };
            let head = self.head(name, ty);
            let counts = self.s.counts();
            let value = Value::UInt(if errors { counts.1 } else { counts.0 });
            self.rows(&[head], vec![vec![value]])?;
            self.found(1);
            return Ok(());
        }
        let code = super::types::Ty { ty: types::LONG, length: 4, unsigned: true, decimals: 0 };
        let heads = [self.text_head("Level", 28), self.head("Code", code), self.text_head("Message", 2048)];
        let of = |c: &crate::session::Condition| {
            vec![Value::str(c.level), Value::UInt(u64::from(c.code)), Value::str(&c.message)]
        };
        let rows: Vec<_> = self.s.diagnostics.iter().filter(|c| !errors || c.level == "Error").map(of).collect();
        self.rows(&heads, rows)
    }

    pub(super) fn show_variables(&mut self, scope: Scope, like: Option<&str>) -> Made<()> {
        let Some(like) = like else { return self.unsupported("SHOW VARIABLES without LIKE") };
        if like.contains(['%', '_']) && vars::find(self.c.dialect, like).is_err() {
            return self.unsupported("SHOW VARIABLES LIKE a pattern");
        }
        let heads = [self.text_head("Variable_name", 256), self.text_head("Value", 4096)];
        let mut rows = Vec::new();
        if let Some(id) = vars::of(self.c.dialect).find(|id| id.var().name.eq_ignore_ascii_case(like)) {
            let var = id.var();
            let shown = scope != Scope::Global || !matches!(var.reach, Reach::SessionOnly | Reach::Counted);
            if shown {
                let value = vars::shown(id, &self.variable(scope, id));
                rows.push(vec![Value::str(var.name), Value::Str(value)]);
            }
        }
        if !self.is_maria() {
            if !self.s.autocommit() {
                // For the tracker, not for the status flags, this begins a transaction.
                self.s.tracker.begin(false);
            }
            self.s.tracker.add(crate::tracker::place::READ_UNSAFE);
        }
        let found = rows.len() as u64;
        self.rows(&heads, rows)?;
        self.found(found);
        Ok(())
    }

    pub(super) fn kill(&mut self, query: bool, id: &Expr) -> Made<()> {
        let id = self.eval(id)?.int();
        let thread = u32::try_from(id).unwrap_or(0);
        if thread == self.s.thread {
            if query {
                return Err(interrupted().into());
            }
            return Err(if self.is_maria() {
                Error::new(1927, "70100", "Connection was killed").into()
            } else {
                Flow::Error(interrupted())
            });
        }
        match self.c.find_thread(self.s.node, thread) {
            None => Err(Error::new(1094, "HY000", format!("Unknown thread id: {id}")).into()),
            Some((key, user)) => {
                if *user != *self.s.user && !self.s.is_admin {
                    return Err(Error::new(1095, "HY000", format!("You are not owner of thread {id}")).into());
                }
                self.c.kill_session(key, query);
                self.done()
            }
        }
    }
}

pub(crate) fn interrupted() -> Error {
    Error::new(1317, "70100", "Query execution was interrupted")
}
