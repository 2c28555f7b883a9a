//! What the columns of a result are, before any row is made.

use std::sync::Arc;

use super::{Made, Run};
use crate::ast::{Column, ColumnType, Expr, Func, Item, Op, Scope};
use crate::error::{Error, unsupported};
use crate::store::Def;
use crate::value::Value;
use crate::vars::{self, Id, Type};
use crate::wire::{ColumnDef, types};

/// The type of an expression.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Ty {
    pub ty: u8,
    pub length: u32,
    pub unsigned: bool,
    pub decimals: u8,
}

const UNSIGNED: u16 = 0x20;
const BINARY: u16 = 0x80;

fn ty(ty: u8, length: u32) -> Ty {
    Ty { ty, length, unsigned: false, decimals: 0 }
}

fn unsigned(made: Ty) -> Ty {
    Ty { unsigned: true, ..made }
}

impl Ty {
    pub fn is_number(self) -> bool {
        matches!(self.ty, types::LONG | types::LONGLONG | types::NEWDECIMAL | types::DOUBLE)
    }
}

pub(super) fn of_column(column: ColumnType) -> Ty {
    match column {
        ColumnType::Int { unsigned } => Ty { ty: types::LONG, length: 11, unsigned, decimals: 0 },
        ColumnType::BigInt { unsigned } => Ty { ty: types::LONGLONG, length: 20, unsigned, decimals: 0 },
        ColumnType::Decimal(size, decimals) => {
            Ty { ty: types::NEWDECIMAL, length: u32::from(size) + 2, unsigned: false, decimals }
        }
        ColumnType::Double => Ty { ty: types::DOUBLE, length: 22, unsigned: false, decimals: 31 },
        ColumnType::Varchar(size) => ty(types::VAR_STRING, size * 4),
    }
}

impl Run<'_> {
    /// An integer of a length: MariaDB takes the smaller type where it fits.
    fn integer(&self, length: u32) -> Ty {
        let small = self.is_maria() && length <= 11;
        ty(if small { types::LONG } else { types::LONGLONG }, length)
    }

    fn of_value(&self, value: &Value) -> Ty {
        match value {
            Value::Null => ty(types::NULL, 0),
            Value::Int(n) => {
                let small = self.is_maria() && i32::try_from(*n).is_ok();
                ty(if small { types::LONG } else { types::LONGLONG }, n.to_string().len() as u32)
            }
            Value::UInt(n) => unsigned(ty(types::LONGLONG, n.to_string().len() as u32)),
            Value::Dec(d) => {
                Ty { ty: types::NEWDECIMAL, length: d.to_string().len() as u32, unsigned: false, decimals: d.scale }
            }
            Value::Double(_) => Ty { ty: types::DOUBLE, length: 22, unsigned: false, decimals: 31 },
            Value::Str(s) => ty(types::VAR_STRING, s.len() as u32 * 4),
        }
    }

    fn of_user_var(&self, name: &str) -> Ty {
        match self.s.user_vars.get(name) {
            None if self.is_maria() => ty(types::LONG_BLOB, 16_777_216),
            None => ty(types::VAR_STRING, 65_532),
            Some(Value::Null) => ty(if self.is_maria() { types::LONG_BLOB } else { types::MEDIUM_BLOB }, 16_777_215),
            Some(Value::Str(_)) => ty(types::LONG_BLOB, 67_108_860),
            Some(Value::Int(_)) => ty(types::LONGLONG, 20),
            Some(Value::UInt(_)) => unsigned(ty(types::LONGLONG, 20)),
            Some(Value::Dec(_)) => Ty { decimals: 30, ..ty(types::NEWDECIMAL, 83) },
            Some(Value::Double(_)) => Ty { decimals: 31, ..ty(types::DOUBLE, 23) },
        }
    }

    /// The type of an expression over a table's columns.
    pub(super) fn type_of(&self, expr: &Expr, def: Option<&Def>) -> Made<Ty> {
        let small = if self.is_maria() { types::LONG } else { types::LONGLONG };
        Ok(match expr {
            Expr::Lit(value) => self.of_value(value),
            Expr::Param(at) => match self.params.get(*at) {
                Some(Value::Int(_)) if !self.small_params => ty(types::LONGLONG, 20),
                Some(value) => self.of_value(value),
                None => ty(if self.is_maria() { types::NULL } else { types::VAR_STRING }, 0),
            },
            Expr::UserVar(name) => self.of_user_var(name),
            Expr::Assign(_, inner) => self.type_of(inner, def)?,
            Expr::SysVar(scope, name) => self.of_variable(*scope, name)?,
            Expr::Name(qualifier, name) => self.of_name(qualifier.as_deref(), name, def)?,
            Expr::Neg(inner) => match self.type_of(inner, def)? {
                made if made.ty == types::LONG || made.ty == types::LONGLONG => self.integer(made.length + 1),
                made if made.is_number() => made,
                _ => Ty { decimals: 31, ..ty(types::DOUBLE, 23) },
            },
            Expr::Bin(op, a, b) => {
                let (mut x, mut y) = (self.type_of(a, def)?, self.type_of(b, def)?);
                if !self.is_maria() && self.params.is_empty() {
                    // MySQL takes the type of a parameter from what stands beside it.
                    match (&**a, &**b) {
                        (Expr::Param(_), _) => x = y,
                        (_, Expr::Param(_)) => y = x,
                        _ => {}
                    }
                }
                match op {
                    Op::Add | Op::Sub | Op::Mul => self.of_arithmetic(*op, x, y),
                    _ => ty(small, 1),
                }
            }
            Expr::IsNull(inner, _) => {
                self.type_of(inner, def)?;
                ty(small, 1)
            }
            Expr::Func(func, args) => {
                for arg in args {
                    self.type_of(arg, def)?;
                }
                match func {
                    Func::Concat | Func::Database | Func::User | Func::CurrentUser => ty(types::VAR_STRING, 256),
                    Func::CurrentRole if self.is_maria() => ty(types::VAR_STRING, 512),
                    Func::CurrentRole => ty(types::LONG_BLOB, 201_326_592),
                    Func::ConnectionId => unsigned(ty(small, 10)),
                    Func::LastInsertId => unsigned(ty(types::LONGLONG, 21)),
                    Func::RowCount | Func::FoundRows | Func::Count => ty(types::LONGLONG, 21),
                    Func::GetLock | Func::ReleaseLock | Func::IsFreeLock => ty(small, 1),
                    Func::IsUsedLock | Func::ReleaseAllLocks => unsigned(ty(small, 10)),
                    Func::Sum => match args.first().map(|a| self.type_of(a, def)).transpose()? {
                        Some(t) if t.ty == types::DOUBLE || !t.is_number() => {
                            Ty { decimals: 31, ..ty(types::DOUBLE, 23) }
                        }
                        Some(t) => Ty { ty: types::NEWDECIMAL, length: 33, ..t },
                        None => return Err(Error::syntax().into()),
                    },
                }
            }
            Expr::Call(name, args) => {
                for arg in args {
                    self.type_of(arg, def)?;
                }
                of_column(self.function(name)?.1)
            }
        })
    }

    fn of_arithmetic(&self, op: Op, x: Ty, y: Ty) -> Ty {
        let whole = |t: Ty| t.ty == types::LONG || t.ty == types::LONGLONG;
        if whole(x) && whole(y) {
            let length = if op == Op::Mul { x.length + y.length } else { x.length.max(y.length) + 2 };
            return Ty { unsigned: x.unsigned || y.unsigned, ..self.integer(length) };
        }
        let exact = |t: Ty| whole(t) || t.ty == types::NEWDECIMAL || t.ty == types::NULL;
        if exact(x) && exact(y) && (x.ty == types::NEWDECIMAL || y.ty == types::NEWDECIMAL) {
            return Ty { decimals: x.decimals.max(y.decimals), ..ty(types::NEWDECIMAL, x.length + y.length) };
        }
        Ty { decimals: 31, ..ty(types::DOUBLE, 23) }
    }

    fn of_variable(&self, scope: Scope, name: &str) -> Made<Ty> {
        let id = vars::find(self.c.dialect, name)?;
        self.readable(scope, id)?;
        Ok(match id.var().ty {
            Type::Bool => ty(types::LONGLONG, 1),
            Type::Int(..) | Type::Id => unsigned(ty(types::LONGLONG, 21)),
            Type::Timestamp => Ty { decimals: 6, ..ty(types::DOUBLE, 23) },
            _ => ty(types::VAR_STRING, 256),
        })
    }

    fn of_name(&self, qualifier: Option<&str>, name: &str, def: Option<&Def>) -> Made<Ty> {
        if let Some(column) = def.and_then(|d| d.find(name).map(|i| &d.columns[i])) {
            return Ok(of_column(column.ty));
        }
        match self.frame_value(qualifier, name) {
            Some(value) => Ok(self.of_value(&value)),
            None => Err(self.unknown_column(qualifier, name)),
        }
    }

    pub(super) fn unknown_column(&self, qualifier: Option<&str>, name: &str) -> super::Flow {
        let name = qualifier.map_or_else(|| name.to_owned(), |q| format!("{q}.{name}"));
        let place = if self.is_maria() { self.c.place_word } else { "field list" };
        Error::new(1054, "42S22", format!("Unknown column '{name}' in '{place}'")).into()
    }

    /// The heads of a SELECT's columns.
    pub(super) fn heads(&self, items: &[Item], table: Option<(&str, &str, &Arc<Def>)>) -> Made<Vec<ColumnDef>> {
        let def = table.map(|t| &**t.2);
        let mut made = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Star => {
                    let Some((schema, name, def)) = table else {
                        return Err(Error::new(1096, "HY000", "No tables used").into());
                    };
                    made.extend(def.columns.iter().map(|c| self.column_head(schema, name, c)));
                }
                Item::Expr { expr: Expr::Name(_, column), name } if def.is_some_and(|d| d.find(column).is_some()) => {
                    let Some((schema, own, def)) = table else { continue };
                    let at = def.find(column).unwrap_or(0);
                    let head = self.column_head(schema, own, &def.columns[at]);
                    made.push(ColumnDef { name: name.to_string(), ..head });
                }
                Item::Expr { expr, name } => {
                    let t = self.type_of(expr, def)?;
                    made.push(self.head(name, t));
                }
            }
        }
        Ok(made)
    }

    fn column_head(&self, schema: &str, table: &str, column: &Column) -> ColumnDef {
        let head = self.head(&column.name, of_column(column.ty));
        let schema = schema.rsplit('#').next().unwrap_or_default().to_owned();
        ColumnDef { schema, table: table.to_owned(), org_name: column.name.to_string(), ..head }
    }

    pub(super) fn head(&self, name: &str, t: Ty) -> ColumnDef {
        let text = matches!(t.ty, types::VAR_STRING | types::LONG_BLOB);
        // A user variable that was never set is binary.
        let binary = !text
            || (t.ty == types::LONG_BLOB && t.length == 16_777_216)
            || (t.ty == types::LONG_BLOB && t.length == 16_777_215);
        let binary =
            binary || (t.ty == types::VAR_STRING && t.length == 65_532 && !self.is_maria() && !self.s.results_forced());
        ColumnDef {
            schema: String::new(),
            table: String::new(),
            name: name.to_owned(),
            org_name: String::new(),
            ty: t.ty,
            charset: if binary { 63 } else { self.s.results },
            length: t.length,
            flags: if t.unsigned { UNSIGNED } else { 0 } | if binary { BINARY } else { 0 },
            decimals: t.decimals,
        }
    }

    /// Whether a variable can be read in a scope.
    pub(super) fn readable(&self, scope: Scope, id: Id) -> Made<()> {
        use crate::vars::Reach;
        let var = id.var();
        let wrong = |what: &str| Error::new(1238, "HY000", format!("Variable '{}' is a {what} variable", var.name));
        match (scope, var.reach) {
            (Scope::Global, Reach::SessionOnly | Reach::Counted) => Err(wrong("SESSION").into()),
            (Scope::Session, Reach::ReadOnly | Reach::GlobalOnly) => Err(wrong("GLOBAL").into()),
            (Scope::Session, _) | (Scope::Bare, _) | (Scope::Global, _) => Ok(()),
        }
    }

    pub(super) fn unsupported<T>(&self, what: &str) -> Made<T> {
        Err(unsupported(what).into())
    }
}
