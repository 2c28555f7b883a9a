//! CALL and stored functions.

use super::dml_convert;
use super::{Flow, Frame, Made, Place, Run};
use crate::ast::{Column, ColumnType, Expr, Routine, Stmt, Table};
use crate::error::Error;
use crate::store::Name;
use crate::value::Value;
use std::sync::Arc;

use crate::vars::Id;

impl Run<'_> {
    fn routine(&self, what: &'static str, name: &Table) -> Made<(Name, Arc<Routine>)> {
        let name = self.base_name(name)?;
        if !self.c.may_use(&self.s.user, self.s.role.as_deref(), &name.0) {
            return self.unsupported("code without privileges");
        }
        match self.c.nodes[self.s.node].store.routines.get(&(what, name.clone())) {
            Some(routine) => Ok((name, routine.clone())),
            None => {
                let text = format!("{what} {}.{} does not exist", name.0, name.1);
                Err(Error::new(1305, "42000", text).into())
            }
        }
    }

    /// Whether a procedure is there.
    pub(super) fn procedure(&self, name: &Table) -> Made<()> {
        self.routine("PROCEDURE", name).map(|_| ())
    }

    /// A stored function: where it is, and what it returns.
    pub(super) fn function(&self, name: &Table) -> Made<(Name, ColumnType, Arc<Routine>)> {
        let (name, routine) = self.routine("FUNCTION", name)?;
        match &*routine {
            Routine::Function { returns, .. } => Ok((name, *returns, routine)),
            _ => self.unsupported("this function"),
        }
    }

    fn arguments(
        &mut self,
        what: &str,
        name: &Name,
        params: &[(Arc<str>, ColumnType)],
        args: &[Expr],
    ) -> Made<Vec<(Arc<str>, Value)>> {
        if params.len() != args.len() {
            let text = format!(
                "Incorrect number of arguments for {what} {}.{}; expected {}, got {}",
                name.0,
                name.1,
                params.len(),
                args.len()
            );
            // MariaDB finds out when the function is called.
            self.late |= self.is_maria() && what == "FUNCTION";
            return Err(Error::new(1318, "42000", text).into());
        }
        let mut made = Vec::new();
        for ((param, ty), arg) in params.iter().zip(args) {
            let value = self.eval(arg)?;
            made.push((param.clone(), self.fitted(name, param, *ty, value)?));
        }
        Ok(made)
    }

    fn fitted(&mut self, name: &Name, param: &Arc<str>, ty: ColumnType, value: Value) -> Made<Value> {
        if value.is_null() {
            return Ok(value);
        }
        let column =
            Column { name: param.clone(), ty, not_null: false, primary: false, auto_increment: false, default: None };
        match dml_convert(&self.c.dialect, name, &column, value) {
            Ok(value) => Ok(value),
            Err(_) => self.unsupported("an argument that does not fit its parameter"),
        }
    }

    pub(super) fn call_function(&mut self, name: &Table, args: &[Expr]) -> Made<Value> {
        let (name, returns, routine) = self.function(name)?;
        let Routine::Function { params, body, .. } = &*routine else { return self.unsupported("this function") };
        let params = self.arguments("FUNCTION", &name, params, args)?;
        let frame = Frame { params, ..Frame::default() };
        match self.sub(&name, frame, body)?.1 {
            Some(value) => self.fitted(&name, &name.1.clone(), returns, value),
            None => {
                self.late = true;
                Err(Error::new(1321, "2F005", format!("FUNCTION {} ended without RETURN", name.1)).into())
            }
        }
    }

    /// Runs statements until one returns.
    pub(super) fn body(&mut self, body: &[Stmt]) -> Made<Option<Value>> {
        for stmt in body {
            self.s.own_conditions = 0;
            if let Stmt::Return(expr) = stmt {
                return self.eval(expr).map(Some);
            }
            self.exec(stmt)?;
        }
        Ok(None)
    }

    pub(super) fn call(&mut self, name: &Table, args: &[Expr]) -> Made<()> {
        let (name, routine) = self.routine("PROCEDURE", name)?;
        let Routine::Procedure { params, body } = &*routine else { return self.unsupported("this procedure") };
        let params = self.arguments("PROCEDURE", &name, params, args)?;
        if self.frames.len() > 8 {
            return self.unsupported("deep calls");
        }
        let outer = self.place;
        if self.place == Place::Top {
            self.place = Place::Procedure;
        }
        let schema = self.s.schema.replace(name.0.clone());
        self.frames.push(Frame { params, ..Frame::default() });
        let context = self.enter_code();
        let mut sum = 0;
        let before = (self.s.row_count, self.c.commits);
        self.s.row_count = 0;
        let mut made = Ok(());
        for stmt in body {
            made = self.procedure_statement(stmt);
            sum += self.s.row_count.max(0);
            if made.is_err() {
                break;
            }
        }
        self.frames.pop();
        self.s.schema = schema;
        self.restore(context);
        self.place = outer;
        match made {
            Ok(()) => {}
            Err(Flow::Wait) if self.c.commits != before.1 => {
                self.c.imprecise = true;
                return self.unsupported("a wait behind a commit in a procedure");
            }
            Err(Flow::Error(error)) => {
                self.s.place_note = self.is_maria().then(|| format!("At line 1 in {}.{}", name.0, name.1));
                return Err(Flow::Error(error));
            }
            Err(other) => return Err(other),
        }
        // MariaDB adds up what the statements changed, MySQL tells what the last one did.
        let affected = u64::try_from(if self.is_maria() { sum } else { self.s.row_count }).unwrap_or(0);
        self.end_statement();
        self.ok(affected, 0, "");
        Ok(())
    }

    fn procedure_statement(&mut self, stmt: &Stmt) -> Made<()> {
        self.s.own_conditions = 0;
        if !self.is_maria() || super::uses_tables(stmt) {
            self.s.diagnostics.clear();
        }
        if matches!(
            stmt,
            Stmt::Prepare(..) | Stmt::Execute(..) | Stmt::Use(_) | Stmt::LockTables(_) | Stmt::Kill { .. }
        ) {
            return self.unsupported("this statement in a procedure");
        }
        let made = self.exec(stmt);
        if let Err(Flow::Error(_)) = &made {
            self.end_statement();
        }
        made
    }
}

impl Run<'_> {
    fn save(&self, ids: &[Id]) -> Vec<(Id, Value)> {
        ids.iter().map(|id| (*id, self.s.var(*id).clone())).collect()
    }

    pub(super) fn restore(&mut self, saved: Vec<(Id, Value)>) {
        for (id, value) in saved {
            if *self.s.var(id) != value {
                self.s.put(id, value);
            }
        }
    }

    /// Code runs with the SQL mode and character sets that it was made with, and leaves those around it alone.
    pub(super) fn enter_code(&mut self) -> Vec<(Id, Value)> {
        let context = self.save(&[Id::SqlMode, Id::CharsetClient, Id::CharsetConnection, Id::CollationConnection]);
        let mode = &crate::vars::defaults(self.c.dialect)[Id::SqlMode as usize];
        if self.s.var(Id::SqlMode) != mode {
            // The status flags go on showing the mode outside.
            Arc::make_mut(&mut self.s.vars)[Id::SqlMode as usize] = mode.clone();
        }
        context
    }

    /// The body of a trigger or function, with what a server saves around it.
    pub(super) fn sub(&mut self, own: &Name, frame: Frame, body: &[crate::ast::Stmt]) -> Made<(Frame, Option<Value>)> {
        if self.frames.len() > 8 {
            return self.unsupported("deep calls");
        }
        let place = std::mem::replace(&mut self.place, super::Place::Sub);
        let saved_vars = self.save(crate::vars::OPTION_BITS);
        let context = self.enter_code();
        let saved = (self.s.last_insert_id, self.s.row_count, self.s.found_rows, self.id_argument);
        let row = self.row.take();
        let schema = self.s.schema.replace(own.0.clone());
        let strict = std::mem::replace(&mut self.strict_write, false);
        self.frames.push(frame);
        let made = self.body(body);
        let frame = self.frames.pop().unwrap_or_default();
        self.strict_write = strict;
        self.s.schema = schema;
        self.row = row;
        (self.s.last_insert_id, self.s.row_count, self.s.found_rows, self.id_argument) = saved;
        self.restore(saved_vars);
        self.restore(context);
        self.place = place;
        if let Err(Flow::Error(error)) = &made {
            // What locks refuse is found out before the first row.
            let early = matches!(error.code, 1099 | 1100 | 1792);
            self.late |= !early;
            if self.is_maria() && !early && self.s.place_note.is_none() {
                self.s.place_note = Some(format!("At line 1 in {}.{}", own.0, own.1));
            }
        }
        Ok((frame, made?))
    }
}
