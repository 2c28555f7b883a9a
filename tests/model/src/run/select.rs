//! SELECT, and how rows of tables are read.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Made, Run};
use crate::ast::{Expr, Func, Isolation, Item, Op, Routine, Select, Table};
use crate::error::Error;
use crate::store::{Def, Key, Name, Row};
use crate::tracker::place;
use crate::value::{Decimal, Value, compare};
use crate::vars::Id;

impl Run<'_> {
    /// The schema and name that a table's name stands for.
    pub(super) fn base_name(&self, table: &Table) -> Made<Name> {
        match table.schema.as_ref().or(self.s.schema.as_ref()) {
            Some(schema) => Ok((schema.clone(), table.name.clone())),
            None => Err(Error::new(1046, "3D000", "No database selected").into()),
        }
    }

    /// The same, where a temporary table hides the other one.
    pub(super) fn find_name(&self, table: &Table) -> Made<Name> {
        let base = self.base_name(table)?;
        if self.s.temporary.is_empty() {
            return Ok(base);
        }
        let temporary = (Arc::from(format!("#{}#{}", self.s.key, base.0)), base.1.clone());
        Ok(if self.s.temporary.contains_key(&temporary) { temporary } else { base })
    }

    pub(super) fn definition(&self, name: &Name) -> Option<Arc<Def>> {
        if name.0.starts_with('#') {
            return self.s.temporary.get(name).map(|t| t.def.clone());
        }
        self.c.nodes[self.s.node].store.tables.get(name).map(|t| t.def.clone())
    }

    /// The definition of a table that has to be there and that this account may use.
    pub(super) fn need_table(&self, name: &Name) -> Made<Arc<Def>> {
        if !name.0.starts_with('#') && !self.c.may_use(&self.s.user, self.s.role.as_deref(), &name.0) {
            return Err(crate::error::unsupported("a table without privileges").into());
        }
        match self.definition(name) {
            Some(def) => Ok(def),
            None if self.s.locked => {
                Err(Error::new(1100, "HY000", format!("Table '{}' was not locked with LOCK TABLES", name.1)).into())
            }
            None => Err(Error::new(1146, "42S02", format!("Table '{}.{}' doesn't exist", name.0, name.1)).into()),
        }
    }

    /// Makes the transaction of this statement use a table.
    pub(super) fn touch(&mut self, name: &Name, write: bool) -> Made<()> {
        self.check_open(name, write)?;
        *self.transaction().tables.entry(name.clone()).or_default() |= write;
        self.s.tracker.add(if write { place::WRITE } else { place::READ });
        Ok(())
    }

    /// MariaDB uses a table as soon as it is opened, before anything else in the statement is looked up: an error does not undo that.
    pub(super) fn touch_early(&mut self, name: &Name, write: bool) -> Made<()> {
        if self.is_maria() { self.touch(name, write) } else { self.check_open(name, write) }
    }

    /// Whether a table can be opened; perhaps others have to let go of it first.
    fn check_open(&mut self, name: &Name, write: bool) -> Made<()> {
        self.check_prepare(name, write)?;
        let key = self.s.key;
        let read = |l: &(Name, bool, u64)| l.2 == key && l.0 == *name && !l.1;
        if write && self.s.locked && self.node().tables.iter().any(read) {
            let text = format!("Table '{}' was locked with a READ lock and can't be updated", name.1);
            return Err(Error::new(1099, "HY000", text).into());
        }
        if name.0.starts_with('#') { Ok(()) } else { self.check_table_locks(name, write) }
    }

    /// Whether a table can be named in a statement.
    pub(super) fn check_prepare(&mut self, name: &Name, write: bool) -> Made<()> {
        let temporary = name.0.starts_with('#');
        if self.s.locked && !temporary {
            let key = self.s.key;
            if !self.node().tables.iter().any(|(t, _, owner)| *owner == key && t == name) {
                let text = format!("Table '{}' was not locked with LOCK TABLES", name.1);
                return Err(Error::new(1100, "HY000", text).into());
            }
        }
        if write && !temporary {
            self.check_read_only()?;
            let node = &self.c.nodes[self.s.node];
            if node.globals[Id::ReadOnly as usize].is_true() && !self.s.is_admin {
                let server = if self.is_maria() { "MariaDB" } else { "MySQL" };
                let text = format!(
                    "The {server} server is running with the --read-only option so it cannot execute this statement"
                );
                return Err(Error::new(1290, "HY000", text).into());
            }
        }
        Ok(())
    }

    /// Refuses a write in a transaction that only reads.
    pub(super) fn check_read_only(&self) -> Made<()> {
        let read_only = match &self.s.transaction {
            Some(t) => t.read_only,
            None => self.s.next.read_only.unwrap_or_else(|| self.s.var(Id::read_only(self.c.dialect)).is_true()),
        };
        if !read_only {
            return Ok(());
        }
        let dot = if self.is_maria() { "" } else { "." };
        Err(Error::new(1792, "25006", format!("Cannot execute statement in a READ ONLY transaction{dot}")).into())
    }

    /// The rows of a table as this transaction sees them; `current`: as they are now, for a write.
    pub(super) fn rows_of(&mut self, name: &Name, current: bool) -> Vec<(Key, Row)> {
        let store = self.node().store.clone();
        let transaction = self.s.transaction.as_mut();
        let overlay = transaction.as_ref().map(|t| &t.overlay);
        let own = overlay.is_some_and(|o| o.keys().any(|(n, _)| n == name));
        let table =
            if name.0.starts_with('#') { self.s.temporary.get(name) } else { store.tables.get(name).map(|t| &**t) };
        let snapshot = match transaction {
            Some(t) if !current && t.isolation == Isolation::RepeatableRead && !name.0.starts_with('#') => {
                Some(t.snapshot.get_or_insert_with(|| store.clone()).clone())
            }
            _ => None,
        };
        let table = match &snapshot {
            Some(snapshot) => snapshot.tables.get(name).map(|t| &**t).or(table.filter(|_| false)),
            None => table,
        };
        let Some(table) = table else { return Vec::new() };
        if !own {
            return table.rows.iter().map(|(k, r)| (*k, r.clone())).collect();
        }
        let mut merged: BTreeMap<Key, Row> = table.rows.clone();
        if let Some(t) = &self.s.transaction {
            for ((n, key), row) in &t.overlay {
                match row {
                    _ if n != name => {}
                    Some(row) => drop(merged.insert(*key, row.clone())),
                    None => drop(merged.remove(key)),
                }
            }
        }
        merged.into_iter().collect()
    }

    /// The key that a filter asks for, if it is `primary key = value`.
    pub(super) fn point(&mut self, def: &Def, filter: Option<&Expr>) -> Made<Option<Key>> {
        let (Some(Expr::Bin(Op::Eq, a, b)), Some(primary)) = (filter, def.primary) else { return Ok(None) };
        let Expr::Name(None, column) = &**a else { return Ok(None) };
        if !column.eq_ignore_ascii_case(&def.columns[primary].name) {
            return Ok(None);
        }
        if !matches!(**b, Expr::Lit(_) | Expr::Param(_) | Expr::UserVar(_)) {
            return Ok(None);
        }
        match self.eval(b)? {
            Value::Int(n) => Ok(Some(n)),
            Value::UInt(n) => Ok(i64::try_from(n).ok()),
            _ => Ok(None),
        }
    }

    /// What FOUND_ROWS() says from now on.
    pub(super) fn found(&mut self, rows: u64) {
        self.s.found_rows = rows;
        self.s.found_rows_known = true;
    }

    pub(super) fn select(&mut self, select: &Select) -> Made<()> {
        self.c.place_word = "SELECT";
        let viewed;
        let mut shown = None;
        let mut select = select;
        if let Some(table) = &select.from {
            let name = self.find_name(table)?;
            if let Some(routine) = self.c.nodes[self.s.node].store.routines.get(&("VIEW", name.clone())).cloned()
                && let Routine::View(inner) = &*routine
            {
                viewed = through_view(select, inner);
                shown = Some(name.1.clone());
                select = &viewed;
            }
        }
        let limit = match &select.limit {
            Some(limit) => {
                let value = self.eval(limit)?;
                Some(u64::try_from(value.int()).map_err(|_| crate::error::unsupported("LIMIT"))?)
            }
            None if self.place == super::Place::Top => match self.s.var(Id::SelectLimit) {
                Value::UInt(u64::MAX) => None,
                limit => Some(limit.int() as u64),
            },
            None => None,
        };
        match &select.from {
            Some(table) => self.select_from(select, table, limit, shown),
            None => {
                let heads = self.heads(&select.items, None)?;
                let mut rows = Vec::new();
                let keep = match &select.filter {
                    Some(filter) => self.eval(filter)?.is_true(),
                    None => true,
                };
                if keep && limit != Some(0) {
                    rows.push(self.project(&select.items).map_err(|e| self.too_late(e, &heads))?);
                }
                let found = rows.len() as u64;
                self.answer(select, heads, rows, found)
            }
        }
    }

    /// An error while rows are made comes behind the columns.
    fn too_late(&mut self, flow: super::Flow, heads: &[crate::wire::ColumnDef]) -> super::Flow {
        if self.late && matches!(flow, super::Flow::Error(_)) && self.place != super::Place::Sub {
            self.columns(heads);
            if self.s.caps & crate::wire::caps::DEPRECATE_EOF == 0 {
                let end = self.end_of_rows(0);
                self.out.push(end);
            }
        }
        self.late = false;
        flow
    }

    fn select_from(&mut self, select: &Select, table: &Table, limit: Option<u64>, shown: Option<Arc<str>>) -> Made<()> {
        let name = self.find_name(table)?;
        let def = self.need_table(&name)?;
        let own = shown.unwrap_or_else(|| name.1.clone());
        self.c.place_word = "SELECT";
        self.touch_early(&name, select.for_update)?;
        let heads = self.heads(&select.items, Some((&name.0, &own, &def)))?;
        if let Some(filter) = &select.filter {
            self.c.place_word = "WHERE";
            self.type_of(filter, Some(&def))?;
        }
        let serializable = self.s.in_transaction()
            && self.s.transaction.as_ref().is_some_and(|t| t.isolation == Isolation::Serializable);
        if serializable {
            return self.unsupported("reading under SERIALIZABLE");
        }
        self.touch(&name, select.for_update)?;
        let point = self.point(&def, select.filter.as_ref())?;
        if select.for_update {
            match point {
                Some(key) => self.lock_row(&name, key)?,
                None => self.lock_scan(&name)?,
            }
            // With LIMIT a server locks the rows that it comes to, and no more.
            self.c.imprecise |= limit.is_some() && point.is_none() && self.s.in_transaction();
        }
        let mut rows = self.rows_of(&name, select.for_update);
        if let Some(key) = point {
            rows.retain(|(k, _)| *k == key);
        }
        self.used.push(name.clone());
        let made = self.filtered(select, &def, rows, limit);
        self.used.pop();
        self.row = None;
        let (rows, found) = made.map_err(|e| self.too_late(e, &heads))?;
        self.answer(select, heads, rows, found)?;
        self.s.found_rows_known &= !std::mem::take(&mut self.unsure_found);
        Ok(())
    }

    fn filtered(
        &mut self,
        select: &Select,
        def: &Arc<Def>,
        rows: Vec<(Key, Row)>,
        limit: Option<u64>,
    ) -> Made<(Vec<Vec<Value>>, u64)> {
        let aggregate = select.items.iter().any(is_aggregate);
        let mut kept = Vec::new();
        let early = if select.order.is_some() || aggregate { None } else { limit };
        let mut found = 0u64;
        let mut made = Vec::new();
        for (_, row) in rows {
            if early.is_some_and(|l| found >= l) && !select.calc_found_rows {
                break;
            }
            self.row = Some((def.clone(), row.clone()));
            if let Some(filter) = &select.filter
                && !self.eval(filter)?.is_true()
            {
                continue;
            }
            found += 1;
            if select.order.is_some() || aggregate {
                kept.push(row);
            } else if early.is_none_or(|l| found <= l) {
                made.push(self.project(&select.items)?);
            }
        }
        if aggregate && limit == Some(0) {
            return Ok((Vec::new(), 0));
        }
        if aggregate {
            self.unsure_found = kept.is_empty() || select.calc_found_rows;
            return Ok((vec![self.aggregate(select, def, &kept)?], 1));
        }
        let Some((by, descending)) = &select.order else { return Ok((made, found)) };
        let Some(at) = def.find(by) else {
            self.c.place_word = "order clause";
            let place = if self.is_maria() { "ORDER BY" } else { "order clause" };
            return Err(Error::new(1054, "42S22", format!("Unknown column '{by}' in '{place}'")).into());
        };
        kept.sort_by(|a, b| {
            let order = match (a[at].is_null(), b[at].is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
                _ => compare(&a[at], &b[at]).unwrap_or(Ordering::Equal),
            };
            if *descending { order.reverse() } else { order }
        });
        let take = limit.unwrap_or(u64::MAX);
        for row in kept.into_iter().take(usize::try_from(take).unwrap_or(usize::MAX)) {
            self.row = Some((def.clone(), row));
            made.push(self.project(&select.items)?);
        }
        let all = found;
        Ok((made, if select.calc_found_rows { all } else { all.min(take) }))
    }

    fn aggregate(&mut self, select: &Select, def: &Arc<Def>, rows: &[Row]) -> Made<Vec<Value>> {
        let mut made = Vec::new();
        for item in &select.items {
            let Item::Expr { expr: Expr::Func(func, args), .. } = item else {
                return self.unsupported("columns beside an aggregate");
            };
            if *func == Func::Count {
                made.push(Value::Int(rows.len() as i64));
                continue;
            }
            let Some(arg) = args.first() else { return Err(Error::syntax().into()) };
            let mut sum = Value::Null;
            for row in rows {
                self.row = Some((def.clone(), row.clone()));
                let value = self.eval(arg)?;
                if matches!(value, Value::Str(_)) {
                    return self.unsupported("SUM of strings");
                }
                let exact = |v: Value| match v {
                    Value::Int(_) | Value::UInt(_) => Value::Dec(Decimal { digits: v.int(), scale: 0 }),
                    v => v,
                };
                if !value.is_null() {
                    let zero = Value::Dec(Decimal { digits: 0, scale: 0 });
                    let before = if sum.is_null() { zero } else { sum };
                    sum = crate::value::arithmetic(b'+', &before, &exact(value)).unwrap_or(Value::Null);
                }
            }
            made.push(sum);
        }
        Ok(made)
    }

    pub(super) fn project(&mut self, items: &[Item]) -> Made<Vec<Value>> {
        let mut made = Vec::with_capacity(items.len());
        for item in items {
            match item {
                Item::Star => {
                    if let Some((_, row)) = &self.row {
                        made.extend(row.iter().cloned());
                    }
                }
                Item::Expr { expr, .. } => made.push(self.eval(expr)?),
            }
        }
        Ok(made)
    }

    fn answer(
        &mut self,
        select: &Select,
        heads: Vec<crate::wire::ColumnDef>,
        rows: Vec<Vec<Value>>,
        found: u64,
    ) -> Made<()> {
        if select.into.is_empty() {
            self.rows(&heads, rows)?;
            self.found(found);
            return Ok(());
        }
        if select.into.len() != heads.len() {
            let text = "The used SELECT statements have a different number of columns";
            return Err(Error::new(1222, "21000", text).into());
        }
        if rows.len() > 1 {
            return Err(Error::new(1172, "42000", "Result consisted of more than one row").into());
        }
        let count = rows.len() as u64;
        for row in rows {
            for (name, value) in select.into.iter().zip(row) {
                self.s.user_vars.insert(name.clone(), value);
            }
        }
        if count == 0 {
            // A variable that was not there gets a type, though no value.
            self.c.imprecise |= select.into.iter().any(|name| !self.s.user_vars.contains_key(name));
            self.s.warn("Warning", 1329, "No data - zero rows fetched, selected, or processed");
        }
        self.found(found);
        self.end_statement();
        self.ok(count, 0, "");
        Ok(())
    }
}

fn is_aggregate(item: &Item) -> bool {
    matches!(item, Item::Expr { expr: Expr::Func(Func::Count | Func::Sum, _), .. })
}

/// A SELECT from a view as one from its table: what the view's columns are stands in their names' place.
fn through_view(outer: &Select, inner: &Select) -> Select {
    let known: Vec<(Arc<str>, Expr)> = inner
        .items
        .iter()
        .filter_map(|i| match i {
            Item::Expr { expr, name } => Some((name.clone(), expr.clone())),
            Item::Star => None,
        })
        .collect();
    fn put(expr: &Expr, known: &[(Arc<str>, Expr)]) -> Expr {
        let one = |e: &Expr| Box::new(put(e, known));
        match expr {
            Expr::Name(None, name) => known
                .iter()
                .find(|(own, _)| own.eq_ignore_ascii_case(name))
                .map_or_else(|| expr.clone(), |k| k.1.clone()),
            Expr::Assign(name, e) => Expr::Assign(name.clone(), one(e)),
            Expr::Neg(e) => Expr::Neg(one(e)),
            Expr::IsNull(e, not) => Expr::IsNull(one(e), *not),
            Expr::Bin(op, a, b) => Expr::Bin(*op, one(a), one(b)),
            Expr::Func(func, args) => Expr::Func(*func, args.iter().map(|a| put(a, known)).collect()),
            Expr::Call(name, args) => Expr::Call(name.clone(), args.iter().map(|a| put(a, known)).collect()),
            other => other.clone(),
        }
    }
    let mut items = Vec::new();
    for item in &outer.items {
        match item {
            Item::Star => items.extend(inner.items.iter().cloned()),
            Item::Expr { expr, name } => items.push(Item::Expr { expr: put(expr, &known), name: name.clone() }),
        }
    }
    let filter = match (&inner.filter, outer.filter.as_ref().map(|f| put(f, &known))) {
        (Some(a), Some(b)) => Some(Expr::Bin(Op::And, Box::new(a.clone()), Box::new(b))),
        (a, b) => b.or(a.clone()),
    };
    Select { items, from: inner.from.clone(), filter, ..outer.clone() }
}
