//! SET: all values are made and checked before the first is put.

use std::sync::Arc;

use super::transaction::in_progress;
use super::{Made, Run};
use crate::ast::{Expr, Isolation, Scope, SetItem, SetValue};
use crate::error::{Error, unsupported};
use crate::value::Value;
use crate::vars::{self, Id, Reach, Type};

/// One assignment, ready.
enum Ready {
    Session(Id, Value, bool),
    Global(Id, Value),
    /// SET @@transaction_isolation without a scope.
    Next(Option<Isolation>, Option<bool>),
    Names {
        charset: &'static str,
        collation: &'static str,
        connection: Option<&'static str>,
    },
    CharacterSet {
        charset: &'static str,
        collation: &'static str,
        connection: &'static str,
    },
}

impl Run<'_> {
    pub(super) fn set(&mut self, items: &[SetItem]) -> Made<()> {
        let made = self.set_all(items);
        let fresh = |item: &SetItem| matches!(item, SetItem::User(name, _) if !self.s.user_vars.contains_key(name));
        if made.is_err() && items.iter().any(fresh) {
            // A variable that was not there gets a type, though no value.
            self.c.imprecise = true;
        }
        made
    }

    fn set_all(&mut self, items: &[SetItem]) -> Made<()> {
        // User variables are put in order, as the servers do, but after all have been checked.
        let mut ready = Vec::new();
        let mut users: Vec<(usize, Arc<str>, Value)> = Vec::new();
        for item in items {
            match item {
                SetItem::User(name, expr) => {
                    let value = self.eval(expr)?;
                    if value.is_null() && !self.is_maria() && !matches!(expr, Expr::Lit(_)) {
                        // MySQL keeps the type of what was NULL.
                        self.c.imprecise = true;
                    }
                    users.push((ready.len(), name.clone(), value));
                }
                SetItem::New(name, expr) => {
                    let value = self.eval(expr)?;
                    self.set_new(name, value)?;
                }
                SetItem::Names(charset, collate) => ready.push(self.names(charset.as_deref(), collate.as_deref())?),
                SetItem::CharacterSet(charset) => ready.push(self.character_set(charset.as_deref())?),
                SetItem::Var { scope, at2, name, value } => ready.push(self.checked(*scope, *at2, name, value)?),
            }
        }
        let mut users = users.into_iter().peekable();
        for (at, one) in ready.into_iter().enumerate() {
            while users.peek().is_some_and(|u| u.0 <= at) {
                self.put_user(users.next());
            }
            self.put_ready(one)?;
        }
        while users.peek().is_some() {
            self.put_user(users.next());
        }
        self.done()
    }

    fn put_user(&mut self, user: Option<(usize, Arc<str>, Value)>) {
        if let Some((_, name, value)) = user {
            self.s.user_vars.insert(name, value);
            self.s.tracker.state();
        }
    }

    fn set_new(&mut self, name: &Arc<str>, value: Value) -> Made<()> {
        let Some(frame) = self.frames.last_mut() else { return self.unsupported("NEW here") };
        let at = frame.columns.iter().position(|c| c.eq_ignore_ascii_case(name));
        match (at, frame.new.as_mut()) {
            (Some(at), Some(row)) => {
                // The type of the column stays.
                row[at] = match (&row[at], value) {
                    (Value::Int(_), v @ (Value::Int(_) | Value::UInt(_))) => Value::Int(v.int() as i64),
                    (Value::Null | Value::Str(_), v) => v,
                    (_, v @ (Value::Int(_) | Value::Null)) => v,
                    _ => return self.unsupported("NEW of another type"),
                };
                Ok(())
            }
            _ => self.unsupported("NEW here"),
        }
    }

    fn checked(&mut self, scope: Scope, at2: bool, name: &str, value: &SetValue) -> Made<Ready> {
        let dialect = self.c.dialect;
        // A parameter of a routine hides a variable.
        if scope == Scope::Bare && !at2 && self.frame_value(None, name).is_some() {
            return self.unsupported("SET of a parameter");
        }
        let id = vars::find(dialect, name)?;
        let var = id.var();
        self.settable(scope, id)?;
        if scope == Scope::Global {
            if !self.s.is_admin {
                let needed = if self.is_maria() { "SUPER" } else { "SUPER or SYSTEM_VARIABLES_ADMIN" };
                let text =
                    format!("Access denied; you need (at least one of) the {needed} privilege(s) for this operation");
                return Err(Error::new(1227, "42000", text).into());
            }
            if !matches!(
                id,
                Id::WaitTimeout
                    | Id::ReadOnly
                    | Id::GroupConcatMaxLen
                    | Id::ForeignKeyChecks
                    | Id::UniqueChecks
                    | Id::LcTimeNames
                    | Id::NetReadTimeout
            ) {
                return self.unsupported("SET GLOBAL of this variable");
            }
        }
        let given = match value {
            SetValue::Default => None,
            SetValue::Word(word) => Some(Value::str(word)),
            SetValue::Expr(expr) => Some(self.eval(expr)?),
        };
        let (made, cut) = match given {
            Some(value) => vars::check(dialect, id, &value)?,
            None => (self.default_of(scope, id)?, false),
        };
        let in_transaction = self.s.in_transaction();
        let by_next = scope == Scope::Bare && at2;
        if id == Id::isolation(dialect) && by_next {
            if in_transaction {
                return Err(in_progress());
            }
            return Ok(Ready::Next(Isolation::parse(&made.string()), None));
        }
        if id == Id::read_only(dialect) && by_next {
            if in_transaction {
                return Err(in_progress());
            }
            return Ok(Ready::Next(None, Some(made.is_true())));
        }
        if cut {
            let text = match value {
                SetValue::Expr(expr) => self.eval(expr)?.string(),
                _ => String::new(),
            };
            self.s.warn("Warning", 1292, format!("Truncated incorrect {} value: '{text}'", var.name));
        }
        if scope == Scope::Global {
            return Ok(Ready::Global(id, made));
        }
        // MariaDB reports `SET @@x` without SESSION as nothing at all.
        let told = !(self.is_maria() && at2 && scope == Scope::Bare);
        Ok(Ready::Session(id, made, told))
    }

    fn settable(&self, scope: Scope, id: Id) -> Made<()> {
        let var = id.var();
        let wrong = |text: String| Err(Error::new(1238, "HY000", text).into());
        match (scope, var.reach) {
            (_, Reach::ReadOnly | Reach::Counted) => wrong(format!("Variable '{}' is a read only variable", var.name)),
            (Scope::Bare | Scope::Session, Reach::GlobalOnly) => {
                let text = format!("Variable '{}' is a GLOBAL variable and should be set with SET GLOBAL", var.name);
                Err(Error::new(1229, "HY000", text).into())
            }
            (Scope::Bare | Scope::Session, Reach::SessionReadOnly) => {
                let text = format!("SESSION variable '{}' is read-only. Use SET GLOBAL to assign the value", var.name);
                Err(Error::new(1621, "HY000", text).into())
            }
            (Scope::Global, Reach::SessionOnly) => {
                let text = format!("Variable '{}' is a SESSION variable and can't be used with SET GLOBAL", var.name);
                Err(Error::new(1228, "HY000", text).into())
            }
            _ => Ok(()),
        }
    }

    fn default_of(&self, scope: Scope, id: Id) -> Made<Value> {
        if scope == Scope::Global {
            return Ok(vars::defaults(self.c.dialect)[id as usize].clone());
        }
        match id.var().ty {
            Type::Timestamp => Ok(Value::Null),
            Type::Id => self.unsupported("DEFAULT of an id"),
            _ => Ok(self.c.nodes[self.s.node].globals[id as usize].clone()),
        }
    }

    fn put_ready(&mut self, one: Ready) -> Made<()> {
        match one {
            Ready::Global(id, value) => {
                Arc::make_mut(&mut self.node().globals)[id as usize] = value;
                Ok(())
            }
            Ready::Next(isolation, read_only) => {
                self.s.next.isolation = isolation.or(self.s.next.isolation);
                self.s.next.read_only = read_only.or(self.s.next.read_only);
                self.s.tracker.characteristics();
                if !self.is_maria() {
                    self.s.tracker.state();
                }
                Ok(())
            }
            Ready::CharacterSet { charset, collation, connection } => {
                self.put_ready(Ready::Names { charset, collation, connection: Some(connection) })?;
                self.s.results = vars::collation(self.c.dialect, collation).map_or(45, |c| c.2);
                Ok(())
            }
            Ready::Names { charset, collation, connection } => {
                self.s.put(Id::CharsetClient, Value::str(charset));
                self.s.put(Id::CharsetResults, Value::str(charset));
                // With COLLATE, results too are declared in that collation.
                let declared =
                    connection.filter(|c| vars::collation(self.c.dialect, c).is_some_and(|c| c.1 == charset));
                self.s.results = vars::collation(self.c.dialect, declared.unwrap_or(collation)).map_or(45, |c| c.2);
                let connection = connection.unwrap_or(collation);
                let of = vars::collation(self.c.dialect, connection).map_or(charset, |c| c.1);
                self.s.put(Id::CharsetConnection, Value::str(of));
                self.s.put(Id::CollationConnection, Value::str(connection));
                for id in [Id::CharsetClient, Id::CharsetResults, Id::CharsetConnection] {
                    self.s.tracker.variable(id);
                }
                self.s.tracker.state();
                Ok(())
            }
            Ready::Session(id, value, told) => self.put_session(id, value, told),
        }
    }

    fn put_session(&mut self, id: Id, value: Value, told: bool) -> Made<()> {
        let dialect = self.c.dialect;
        match id {
            Id::LastInsertId | Id::Identity => self.s.last_insert_id = value.int() as u64,
            Id::InsertId => self.s.insert_id = value.int() as u64,
            Id::Timestamp => {
                let at = value.number().0;
                let old = self.s.timestamp.unwrap_or(self.now as f64 / 1000.0);
                let set = !value.is_null() && at != 0.0;
                self.s.timestamp = set.then_some(at);
                self.s.put(id, Value::Double(if set { at } else { old }));
            }
            Id::Autocommit => {
                let on = value.is_true();
                if on && !self.s.autocommit() {
                    if self.place == super::Place::Sub {
                        return self.unsupported("SET autocommit in a function");
                    }
                    self.end_transaction(true);
                    self.s.tracker.end();
                }
                self.s.put(id, value);
            }
            Id::CharsetConnection => {
                let collation = vars::default_collation(dialect, &value.string()).unwrap_or_default();
                self.s.put(Id::CollationConnection, Value::str(collation));
                self.s.put(id, value);
            }
            Id::CollationConnection => {
                let charset = vars::collation(dialect, &value.string()).map_or("", |c| c.1);
                self.s.put(Id::CharsetConnection, Value::str(charset));
                self.s.put(id, value);
            }
            Id::CharsetResults => {
                let collation = vars::default_collation(dialect, &value.string());
                self.s.results = collation.and_then(|c| vars::collation(dialect, c)).map_or(63, |c| c.2);
                self.s.put(id, value);
            }
            Id::CharsetServer | Id::CharsetDatabase | Id::CollationServer | Id::CollationDatabase => {
                return self.unsupported("character sets of server and database");
            }
            Id::TrackVariables => {
                self.s.tracker.track(dialect, &value.string());
                self.s.put(id, value);
            }
            Id::TrackSchema => {
                self.s.tracker.schema = value.is_true();
                self.s.put(id, value);
            }
            Id::TrackState => {
                let on = value.is_true();
                self.s.put(id, value);
                self.s.tracker.variable(id);
                if !on || self.is_maria() {
                    self.s.tracker.state = on;
                    self.s.tracker.forget_state(!on);
                    self.s.tracker.state();
                } else {
                    self.s.tracker.state = on;
                }
                return Ok(());
            }
            Id::TrackTransaction => {
                self.s.tracker.transaction = match value.string().as_str() {
                    "OFF" => 0,
                    "STATE" => 1,
                    _ => 2,
                };
                self.s.tracker.after_reset = false;
                self.s.tracker.restart_transaction(dialect.is_maria());
                self.s.put(id, value);
            }
            Id::SqlMode => {
                let text = value.string();
                let has = |mode: &str| text.split(',').any(|m| m == mode);
                let strict = has("STRICT_TRANS_TABLES") || has("STRICT_ALL_TABLES");
                let whole = ["NO_ZERO_DATE", "NO_ZERO_IN_DATE", "ERROR_FOR_DIVISION_BY_ZERO"].iter().all(|m| has(m));
                if !self.is_maria() && strict && !whole {
                    let text = "'NO_ZERO_DATE', 'NO_ZERO_IN_DATE' and 'ERROR_FOR_DIVISION_BY_ZERO' sql modes should be used with strict mode. \
                                They will be merged with strict mode in a future release.";
                    self.s.warn("Warning", 3135, text);
                }
                self.s.put(id, value);
            }
            id => self.s.put(id, value),
        }
        if told {
            self.s.tracker.variable(id);
            self.s.tracker.state();
        }
        Ok(())
    }

    fn charset_error(name: &str) -> Error {
        Error::new(1115, "42000", format!("Unknown character set: '{name}'"))
    }

    fn names(&mut self, charset: Option<&str>, collate: Option<&str>) -> Made<Ready> {
        let charset = charset.unwrap_or("utf8mb4").to_ascii_lowercase();
        let found = vars::default_collation(self.c.dialect, &charset).ok_or_else(|| Self::charset_error(&charset))?;
        let of = vars::collation(self.c.dialect, found).ok_or_else(|| unsupported("this character set"))?;
        let connection = match collate {
            Some(name) => {
                let one = vars::collation(self.c.dialect, name)
                    .ok_or_else(|| Error::new(1273, "HY000", format!("Unknown collation: '{name}'")))?;
                if one.1 != of.1 {
                    let text = format!("COLLATION '{name}' is not valid for CHARACTER SET '{charset}'");
                    return Err(Error::new(1253, "42000", text).into());
                }
                Some(one.0)
            }
            None => None,
        };
        Ok(Ready::Names { charset: of.1, collation: of.0, connection })
    }

    fn character_set(&mut self, charset: Option<&str>) -> Made<Ready> {
        let charset = charset.unwrap_or("utf8mb4").to_ascii_lowercase();
        let found = vars::default_collation(self.c.dialect, &charset).ok_or_else(|| Self::charset_error(&charset))?;
        let of = vars::collation(self.c.dialect, found).ok_or_else(|| unsupported("this character set"))?;
        // The connection gets the collation of the schema.
        let database = self.s.var(Id::CollationDatabase).string();
        let connection = vars::collation(self.c.dialect, &database).map(|c| c.0);
        Ok(Ready::CharacterSet { charset: of.1, collation: of.0, connection: connection.unwrap_or(of.0) })
    }

    pub(super) fn set_role(&mut self, role: Option<&Arc<str>>) -> Made<()> {
        if let Some(role) = role
            && !self.c.has_role(&self.s.user, role)
        {
            let error = if self.is_maria() {
                Error::new(1959, "OP000", format!("Invalid role specification `{role}`"))
            } else {
                Error::new(3530, "HY000", format!("`{role}`@`%` is not granted to `{}`@`%`", self.s.user))
            };
            return Err(error.into());
        }
        self.s.role = role.cloned();
        if self.is_maria() {
            self.s.tracker.state();
        }
        self.done()
    }
}
