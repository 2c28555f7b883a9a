//! The value of an expression.

use super::{Made, Run};
use crate::ast::{Expr, Func, Op, Scope};
use crate::error::{Error, unsupported};
use crate::value::{Value, arithmetic, compare};
use crate::vars::{self, Id};

impl Run<'_> {
    pub(super) fn eval(&mut self, expr: &Expr) -> Made<Value> {
        match expr {
            Expr::Lit(value) => Ok(value.clone()),
            Expr::Param(at) => Ok(self.params.get(*at).cloned().unwrap_or(Value::Null)),
            Expr::UserVar(name) => Ok(self.s.user_vars.get(name).cloned().unwrap_or(Value::Null)),
            Expr::Assign(name, inner) => {
                let value = self.eval(inner)?;
                self.s.user_vars.insert(name.clone(), value.clone());
                Ok(value)
            }
            Expr::SysVar(scope, name) => {
                let id = vars::find(self.c.dialect, name)?;
                self.readable(*scope, id)?;
                Ok(self.variable(*scope, id))
            }
            Expr::Name(qualifier, name) => self.name_value(qualifier.as_deref(), name),
            Expr::Neg(inner) => {
                let value = self.eval(inner)?;
                self.calc(b'-', &Value::Int(0), &value)
            }
            Expr::Bin(op, a, b) => self.binary(*op, a, b),
            Expr::IsNull(inner, not) => Ok(Value::bool(self.eval(inner)?.is_null() != *not)),
            Expr::Func(func, args) => self.builtin(*func, args),
            Expr::Call(name, args) => self.call_function(name, args),
        }
    }

    fn name_value(&mut self, qualifier: Option<&str>, name: &str) -> Made<Value> {
        if let Some((def, row)) = &self.row
            && let Some(at) = def.find(name)
        {
            return Ok(row[at].clone());
        }
        match self.frame_value(qualifier, name) {
            Some(value) => Ok(value),
            None => Err(self.unknown_column(qualifier, name)),
        }
    }

    /// A parameter of the routine that runs, or a column of the trigger's row.
    pub(super) fn frame_value(&self, qualifier: Option<&str>, name: &str) -> Option<Value> {
        let frame = self.frames.last()?;
        let row = match qualifier {
            None => return frame.params.iter().find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|p| p.1.clone()),
            Some(q) if q.eq_ignore_ascii_case("new") => frame.new.as_ref()?,
            Some(q) if q.eq_ignore_ascii_case("old") => frame.old.as_ref()?,
            Some(_) => return None,
        };
        let at = frame.columns.iter().position(|c| c.eq_ignore_ascii_case(name))?;
        row.get(at).cloned()
    }

    /// The value of a system variable.
    pub(super) fn variable(&self, scope: Scope, id: Id) -> Value {
        use crate::vars::Reach;
        let reach = id.var().reach;
        if scope == Scope::Global || matches!(reach, Reach::GlobalOnly | Reach::ReadOnly) {
            return self.c.nodes[self.s.node].globals[id as usize].clone();
        }
        match id {
            Id::LastInsertId | Id::Identity => Value::UInt(self.s.last_insert_id),
            Id::InsertId => Value::UInt(self.s.insert_id),
            Id::WarningCount | Id::ErrorCount => {
                let (all, errors) = self.s.before;
                Value::UInt(if id == Id::WarningCount { all } else { errors })
            }
            Id::InTransaction => Value::bool(self.s.in_transaction()),
            Id::Timestamp => Value::Double(self.s.timestamp.unwrap_or(self.now as f64 / 1000.0)),
            id if id.var().ty == vars::Type::Bool => Value::bool(self.s.var(id).is_true()),
            id => self.s.var(id).clone(),
        }
    }

    fn calc(&mut self, op: u8, a: &Value, b: &Value) -> Made<Value> {
        for side in [a, b] {
            if let Value::Str(_) = side
                && !side.number().1
            {
                let text = format!("Truncated incorrect DOUBLE value: '{}'", side.string());
                if self.strict_write {
                    return Err(Error::new(1292, "22007", text).into());
                }
                self.s.warn("Warning", 1292, text);
            }
        }
        let out_of_range = || Error::new(1690, "22003", "value is out of range");
        arithmetic(op, a, b).ok_or_else(|| out_of_range().into())
    }

    fn binary(&mut self, op: Op, a: &Expr, b: &Expr) -> Made<Value> {
        if matches!(op, Op::And | Op::Or) {
            return self.logic(op, a, b);
        }
        let (x, y) = (self.eval(a)?, self.eval(b)?);
        match op {
            Op::Add => return self.calc(b'+', &x, &y),
            Op::Sub => return self.calc(b'-', &x, &y),
            Op::Mul => return self.calc(b'*', &x, &y),
            _ => {}
        }
        for (side, other) in [(&x, &y), (&y, &x)] {
            let Value::Str(_) = side else { continue };
            if matches!(other, Value::Str(_) | Value::Null) || side.number().1 {
                continue;
            }
            if self.row.is_some() || self.strict_write {
                return Err(unsupported("a comparison of a number with a string that is none").into());
            }
            let kind = if self.is_maria() && !matches!(other, Value::Double(_)) { "DECIMAL" } else { "DOUBLE" };
            let text = format!("Truncated incorrect {kind} value: '{}'", side.string());
            self.s.warn("Warning", 1292, text);
        }
        let Some(order) = compare(&x, &y) else { return Ok(Value::Null) };
        Ok(Value::bool(match op {
            Op::Eq => order.is_eq(),
            Op::Ne => order.is_ne(),
            Op::Lt => order.is_lt(),
            Op::Le => order.is_le(),
            Op::Gt => order.is_gt(),
            _ => order.is_ge(),
        }))
    }

    fn logic(&mut self, op: Op, a: &Expr, b: &Expr) -> Made<Value> {
        let decided = op == Op::Or;
        let x = self.eval(a)?;
        if !x.is_null() && x.is_true() == decided {
            return Ok(Value::bool(decided));
        }
        let y = self.eval(b)?;
        Ok(match (x.is_null(), y.is_null()) {
            (_, false) if y.is_true() == decided => Value::bool(decided),
            (false, false) => Value::bool(!decided),
            _ => Value::Null,
        })
    }

    fn builtin(&mut self, func: Func, args: &[Expr]) -> Made<Value> {
        let wrong = |name: &str| {
            let text = format!("Incorrect parameter count in the call to native function '{name}'");
            Err(Error::new(1582, "42000", text).into())
        };
        match func {
            Func::Concat => {
                let mut made = Some(Vec::new());
                for arg in args {
                    match (self.eval(arg)?.text(), &mut made) {
                        (Some(text), Some(all)) => all.extend_from_slice(&text),
                        _ => made = None,
                    }
                }
                return Ok(made.map_or(Value::Null, Value::Str));
            }
            Func::GetLock if args.len() == 2 => {
                let (name, seconds) = (self.eval(&args[0])?, self.eval(&args[1])?);
                return self.get_lock(&name, &seconds);
            }
            Func::ReleaseLock | Func::IsUsedLock | Func::IsFreeLock if args.len() == 1 => {
                let name = self.eval(&args[0])?;
                return self.named_lock(func, &name);
            }
            Func::LastInsertId if args.len() == 1 => {
                let value = self.eval(&args[0])?;
                let id = u64::try_from(value.int()).unwrap_or(0);
                self.s.last_insert_id = id;
                self.id_argument = Some(id);
                return Ok(if value.is_null() { Value::Null } else { Value::UInt(id) });
            }
            Func::Count | Func::Sum => return Err(Error::new(1111, "HY000", "Invalid use of group function").into()),
            Func::GetLock => return wrong("GET_LOCK"),
            Func::ReleaseLock => return wrong("RELEASE_LOCK"),
            _ if !args.is_empty() => return Err(Error::syntax().into()),
            _ => {}
        }
        Ok(match func {
            Func::Database => self.s.schema.as_ref().map_or(Value::Null, Value::str),
            Func::User => Value::str(format!("{}@{}", self.s.user, self.s.host)),
            Func::CurrentUser => Value::str(format!("{}@%", self.s.user)),
            Func::CurrentRole => match &self.s.role {
                Some(role) if self.is_maria() => Value::str(role),
                Some(role) => Value::str(format!("`{role}`@`%`")),
                None if self.is_maria() => Value::Null,
                None => Value::str("NONE"),
            },
            Func::ConnectionId => Value::UInt(u64::from(self.s.thread)),
            Func::LastInsertId => Value::UInt(self.s.last_insert_id),
            Func::RowCount => Value::Int(self.s.row_count),
            Func::FoundRows if !self.s.found_rows_known => {
                return self.unsupported("FOUND_ROWS() after a SELECT that failed");
            }
            Func::FoundRows => Value::Int(self.s.found_rows as i64),
            _ => self.release_all_locks(),
        })
    }
}
