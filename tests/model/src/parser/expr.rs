//! Expressions.

use std::sync::Arc;

use super::{Made, Parser, Stop};
use crate::ast::{Expr, Func, Op, Scope, Table};
use crate::lexer::Kind;
use crate::value::{Decimal, Value};

const FUNCS: &[(&str, Func)] = &[
    ("concat", Func::Concat),
    ("database", Func::Database),
    ("schema", Func::Database),
    ("user", Func::User),
    ("session_user", Func::User),
    ("current_user", Func::CurrentUser),
    ("current_role", Func::CurrentRole),
    ("connection_id", Func::ConnectionId),
    ("last_insert_id", Func::LastInsertId),
    ("row_count", Func::RowCount),
    ("found_rows", Func::FoundRows),
    ("get_lock", Func::GetLock),
    ("release_lock", Func::ReleaseLock),
    ("release_all_locks", Func::ReleaseAllLocks),
    ("is_used_lock", Func::IsUsedLock),
    ("is_free_lock", Func::IsFreeLock),
    ("count", Func::Count),
    ("sum", Func::Sum),
];

/// Functions that every server has and the model does not: a call of another name is one of a stored function.
const UNKNOWN_FUNCS: &[&str] = &[
    "ifnull",
    "coalesce",
    "now",
    "rand",
    "uuid",
    "sleep",
    "if",
    "cast",
    "convert",
    "version",
    "abs",
    "round",
    "max",
    "min",
    "avg",
    "length",
    "substring",
    "date",
    "unix_timestamp",
    "nextval",
    "lastval",
    "setval",
    "group_concat",
    "json_object",
    "hex",
    "values",
    "benchmark",
    "upper",
    "lower",
];

impl Parser<'_> {
    pub(crate) fn expr(&mut self) -> Made<Expr> {
        let mut left = self.and()?;
        loop {
            if self.word("or") || (!self.mode.pipes_as_concat && self.sign("||")) {
                left = Expr::Bin(Op::Or, Box::new(left), Box::new(self.and()?));
            } else {
                return Ok(left);
            }
        }
    }

    fn and(&mut self) -> Made<Expr> {
        let mut left = self.comparison()?;
        while self.word("and") || self.sign("&&") {
            left = Expr::Bin(Op::And, Box::new(left), Box::new(self.comparison()?));
        }
        Ok(left)
    }

    fn comparison(&mut self) -> Made<Expr> {
        let mut left = self.sum()?;
        loop {
            if self.word("is") {
                let not = self.word("not");
                self.need_word("null")?;
                left = Expr::IsNull(Box::new(left), not);
                continue;
            }
            let op = [
                ("=", Op::Eq),
                ("<>", Op::Ne),
                ("!=", Op::Ne),
                ("<=", Op::Le),
                (">=", Op::Ge),
                ("<", Op::Lt),
                (">", Op::Gt),
            ];
            let Some((_, op)) = op.into_iter().find(|(s, _)| self.sign(s)) else { return Ok(left) };
            left = Expr::Bin(op, Box::new(left), Box::new(self.sum()?));
        }
    }

    fn sum(&mut self) -> Made<Expr> {
        let mut left = self.product()?;
        loop {
            let op = if self.sign("+") {
                Op::Add
            } else if self.sign("-") {
                Op::Sub
            } else {
                return Ok(left);
            };
            left = Expr::Bin(op, Box::new(left), Box::new(self.product()?));
        }
    }

    fn product(&mut self) -> Made<Expr> {
        let mut left = self.piped()?;
        while self.sign("*") {
            left = Expr::Bin(Op::Mul, Box::new(left), Box::new(self.piped()?));
        }
        Ok(left)
    }

    fn piped(&mut self) -> Made<Expr> {
        let mut parts = vec![self.primary()?];
        while self.mode.pipes_as_concat && self.sign("||") {
            parts.push(self.primary()?);
        }
        if parts.len() > 1 {
            return Ok(Expr::Func(Func::Concat, parts));
        }
        parts.pop().ok_or(Stop::Syntax)
    }

    fn primary(&mut self) -> Made<Expr> {
        let Some(token) = self.next() else {
            self.back();
            return Err(Stop::Syntax);
        };
        match &token.kind {
            Kind::Number => number(self.of(token)),
            Kind::Str(text) => Ok(Expr::Lit(Value::str(text))),
            Kind::UserVar(name) if self.sign(":=") => Ok(Expr::Assign(lower(name), Box::new(self.expr()?))),
            Kind::UserVar(name) => Ok(Expr::UserVar(lower(name))),
            Kind::At2 => self.system_variable(),
            Kind::Sign if self.of(token) == "?" => {
                self.params += 1;
                Ok(Expr::Param(self.params - 1))
            }
            Kind::Sign if self.of(token) == "-" => match self.primary()? {
                // A literal with its sign is a literal.
                Expr::Lit(Value::Int(n)) => Ok(Expr::Lit(Value::Int(-n))),
                Expr::Lit(Value::Dec(d)) => Ok(Expr::Lit(Value::Dec(Decimal { digits: -d.digits, ..d }))),
                Expr::Lit(Value::Double(f)) => Ok(Expr::Lit(Value::Double(-f))),
                other => Ok(Expr::Neg(Box::new(other))),
            },
            Kind::Sign if self.of(token) == "(" => {
                if self.is_word(0, "select") {
                    return Err(Stop::Unsupported("subquery".into()));
                }
                let inner = self.expr()?;
                self.need(")")?;
                Ok(inner)
            }
            Kind::Word => self.word_expr(self.of(token)),
            Kind::Quoted(name) => self.column(name),
            _ => {
                self.back();
                Err(self.stop())
            }
        }
    }

    fn system_variable(&mut self) -> Made<Expr> {
        let scope = if self.peek_at(1).is_some_and(|t| self.of(t) == ".") { self.scope_word() } else { None };
        if scope.is_some() {
            self.need(".")?;
        }
        let name = self.name()?;
        Ok(Expr::SysVar(scope.unwrap_or(Scope::Bare), lower(&name)))
    }

    pub(crate) fn scope_word(&mut self) -> Option<Scope> {
        if self.word("global") {
            Some(Scope::Global)
        } else if self.word("session") || self.word("local") {
            Some(Scope::Session)
        } else {
            None
        }
    }

    fn word_expr(&mut self, word: &str) -> Made<Expr> {
        let lowered = word.to_ascii_lowercase();
        match lowered.as_str() {
            "null" => return Ok(Expr::Lit(Value::Null)),
            "true" => return Ok(Expr::Lit(Value::Int(1))),
            "false" => return Ok(Expr::Lit(Value::Int(0))),
            "select" | "from" | "where" | "not" | "exists" | "case" | "interval" | "binary" => {
                self.back();
                return Err(self.stop());
            }
            "current_user" if self.peek().is_none_or(|t| self.of(t) != "(") => {
                return Ok(Expr::Func(Func::CurrentUser, Vec::new()));
            }
            _ => {}
        }
        if !self.sign("(") {
            return self.column(word);
        }
        if let Some((_, func)) = FUNCS.iter().find(|(name, _)| *name == lowered) {
            let args = match func {
                Func::Count => {
                    self.need("*")?;
                    Vec::new()
                }
                _ => self.arguments()?,
            };
            if matches!(func, Func::Count) {
                self.need(")")?;
            }
            self.runs_code |= matches!(func, Func::GetLock | Func::ReleaseLock | Func::ReleaseAllLocks);
            return Ok(Expr::Func(*func, args));
        }
        if UNKNOWN_FUNCS.contains(&lowered.as_str()) {
            return Err(Stop::Unsupported(format!("function {lowered}")));
        }
        self.runs_code = true;
        let args = self.arguments()?;
        Ok(Expr::Call(Table { schema: None, name: word.into() }, args))
    }

    /// What follows `(`, with its `)`.
    pub(crate) fn arguments(&mut self) -> Made<Vec<Expr>> {
        if self.sign(")") {
            return Ok(Vec::new());
        }
        let args = self.list(Self::expr)?;
        self.need(")")?;
        Ok(args)
    }

    fn column(&mut self, first: &str) -> Made<Expr> {
        if !self.sign(".") {
            return Ok(Expr::Name(None, first.into()));
        }
        let name = self.name()?;
        if self.sign("(") {
            self.runs_code = true;
            let args = self.arguments()?;
            return Ok(Expr::Call(Table { schema: Some(first.into()), name }, args));
        }
        Ok(Expr::Name(Some(first.into()), name))
    }
}

pub(crate) fn lower(name: &str) -> Arc<str> {
    if name.bytes().any(|b| b.is_ascii_uppercase()) { name.to_ascii_lowercase().into() } else { name.into() }
}

fn number(text: &str) -> Made<Expr> {
    let bad = || Stop::Unsupported(format!("number {text}"));
    if text.contains(['e', 'E']) {
        return text.parse().map(|f| Expr::Lit(Value::Double(f))).map_err(|_| bad());
    }
    if text.contains('.') {
        return Decimal::parse(text).map(|d| Expr::Lit(Value::Dec(d))).ok_or_else(bad);
    }
    let number: i128 = text.parse().map_err(|_| bad())?;
    Value::from_i128(number).map(Expr::Lit).ok_or_else(bad)
}
