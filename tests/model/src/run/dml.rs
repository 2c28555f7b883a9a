//! INSERT, REPLACE, UPDATE, DELETE.

use std::sync::Arc;

use super::{Frame, Made, Run};
use crate::ast::{Column, ColumnType, Expr, Insert, Table, When};
use crate::error::Error;
use crate::store::{Def, Key, Name, Row};
use crate::value::Value;
use crate::vars::Id;
use crate::wire::caps;

/// What an INSERT has done so far.
#[derive(Default)]
struct Inserted {
    affected: u64,
    copied: u64,
    duplicates: u64,
    /// The first generated key.
    generated: Option<u64>,
    /// The key of the last row.
    last: u64,
    /// Keys that were set aside for this statement: the next one, and the one behind the last.
    reserved: Option<(u64, u64)>,
    rows: Vec<Row>,
}

impl Run<'_> {
    /// Runs a write; if it fails, nothing of it stays.
    fn atomic<T>(&mut self, name: &Name, write: impl FnOnce(&mut Self) -> Made<T>) -> Made<T> {
        if self.used.contains(name) {
            let dot = if self.is_maria() { "" } else { "." };
            let text = format!(
                "Can't update table '{}' in stored function/trigger because it is already used by statement which invoked this stored \
                 function/trigger{dot}",
                name.1
            );
            return Err(Error::new(1442, "HY000", text).into());
        }
        if !self.s.has_mode("STRICT_TRANS_TABLES") {
            self.lenient = true;
        }
        let before = self.s.transaction.as_ref().map(|t| t.overlay.clone()).unwrap_or_default();
        self.used.push(name.clone());
        let strict = std::mem::replace(&mut self.strict_write, true);
        let row = self.row.take();
        let made = write(self);
        self.row = row;
        self.strict_write = strict;
        self.used.pop();
        if made.is_err()
            && let Some(t) = self.s.transaction.as_mut()
        {
            t.overlay = before;
        }
        made
    }

    /// A transaction that only reads refuses writes before it looks for the table; temporary tables are open to it.
    fn check_write(&self, name: &Name) -> Made<()> {
        if name.0.starts_with('#') { Ok(()) } else { self.check_read_only() }
    }

    fn current(&self, name: &Name, key: Key) -> Option<Row> {
        if let Some(row) = self.s.transaction.as_ref().and_then(|t| t.overlay.get(&(name.clone(), key))) {
            return row.clone();
        }
        if name.0.starts_with('#') {
            return self.s.temporary.get(name)?.rows.get(&key).cloned();
        }
        self.c.nodes[self.s.node].store.tables.get(name)?.rows.get(&key).cloned()
    }

    fn put_row(&mut self, name: &Name, key: Key, row: Option<Row>) {
        self.transaction().overlay.insert((name.clone(), key), row);
    }

    pub(super) fn insert(&mut self, insert: &Insert) -> Made<()> {
        let name = self.find_name(&insert.table)?;
        self.check_write(&name)?;
        let def = self.need_table(&name)?;
        self.c.place_word = "INSERT INTO";
        self.touch_early(&name, true)?;
        let columns: Vec<usize> = match &insert.columns {
            Some(names) => {
                let find = |n: &Arc<str>| def.find(n).ok_or_else(|| self.unknown_column(None, n));
                names.iter().map(find).collect::<Made<_>>()?
            }
            None => (0..def.columns.len()).collect(),
        };
        for (i, row) in insert.rows.iter().enumerate() {
            let empty = row.is_empty() && insert.columns.as_ref().is_none_or(Vec::is_empty);
            if row.len() != columns.len() && !empty {
                let text = format!("Column count doesn't match value count at row {}", i + 1);
                return Err(Error::new(1136, "21S01", text).into());
            }
        }
        for (column, _) in &insert.on_duplicate {
            def.find(column).ok_or_else(|| self.unknown_column(None, column))?;
        }
        self.touch(&name, true)?;
        let made = self.atomic(&name, |run| run.insert_rows(insert, &name, &def, &columns))?;
        if let Some(id) = made.generated {
            self.s.last_insert_id = id;
        }
        if !insert.returning.is_empty() {
            let heads = self.heads(&insert.returning, Some((&name.0, &name.1, &def)))?;
            let mut rows = Vec::new();
            for row in made.rows {
                self.row = Some((def.clone(), row));
                rows.push(self.project(&insert.returning)?);
            }
            self.row = None;
            let count = rows.len() as u64;
            self.rows(&heads, rows)?;
            let _ = count;
            return Ok(());
        }
        let id = made.generated.or(self.id_argument).unwrap_or(if made.copied > 0 { made.last } else { 0 });
        let info = if insert.rows.len() > 1 {
            format!(
                "Records: {}  Duplicates: {}  Warnings: {}",
                insert.rows.len(),
                made.duplicates,
                self.s.own_conditions
            )
        } else {
            String::new()
        };
        self.end_statement();
        self.ok(made.affected, id, &info);
        Ok(())
    }

    fn insert_rows(&mut self, insert: &Insert, name: &Name, def: &Arc<Def>, columns: &[usize]) -> Made<Inserted> {
        let mut made = Inserted { reserved: self.s.kept_ids.take(), ..Inserted::default() };
        for (number, exprs) in insert.rows.iter().enumerate() {
            let mut row: Vec<Option<Value>> = vec![None; def.columns.len()];
            if !exprs.is_empty() {
                for (at, expr) in columns.iter().zip(exprs) {
                    if let Some(expr) = expr {
                        row[*at] = Some(self.eval(expr)?);
                    }
                }
            }
            let row = self.complete_row(name, def, row, number + 1, insert.rows.len(), &mut made)?;
            self.insert_row(insert, name, def, row, &mut made)?;
        }
        Ok(made)
    }

    /// Fills in defaults and the generated key, after the BEFORE triggers.
    fn complete_row(
        &mut self,
        name: &Name,
        def: &Arc<Def>,
        given: Vec<Option<Value>>,
        number: usize,
        total: usize,
        made: &mut Inserted,
    ) -> Made<Vec<Value>> {
        let mut row = Vec::with_capacity(given.len());
        for (value, column) in given.into_iter().zip(&def.columns) {
            row.push(match value {
                Some(value) => self.stored(name, column, value, number)?,
                None if column.auto_increment => Value::Null,
                None => match &column.default {
                    Some(value) => self.stored(name, column, value.clone(), number)?,
                    None if column.not_null => {
                        let text = format!("Field '{}' doesn't have a default value", column.name);
                        return Err(Error::new(1364, "HY000", text).into());
                    }
                    None => Value::Null,
                },
            });
        }
        let mut row = self.fire(name, def, When::BeforeInsert, Some(row), None)?.unwrap_or_default();
        for (i, column) in def.columns.iter().enumerate() {
            if column.auto_increment && (row[i].is_null() || row[i].int() == 0) {
                let id = self.generate(name, total, made);
                made.generated.get_or_insert(id);
                row[i] = Value::Int(id as i64);
            } else if column.not_null && row[i].is_null() {
                return Err(Error::new(1048, "23000", format!("Column '{}' cannot be null", column.name)).into());
            }
        }
        Ok(row)
    }

    /// The next key that a table makes. The first one of a statement sets keys aside for all its rows.
    fn generate(&mut self, name: &Name, total: usize, made: &mut Inserted) -> u64 {
        let step = self.s.var(Id::AutoIncrementIncrement).int() as u64;
        let offset = self.s.var(Id::AutoIncrementOffset).int() as u64;
        let forced = std::mem::take(&mut self.s.insert_id);
        let reserved = match made.reserved {
            _ if forced != 0 => Some((forced, forced + step * total as u64)),
            reserved => reserved.filter(|(id, end)| id < end),
        };
        if let Some((id, end)) = reserved {
            made.reserved = Some((id + step, end));
            self.kept_ids.get_or_insert((id, end));
            let next = self.node().auto.entry(name.clone()).or_insert(1);
            *next = (*next).max(id + 1);
            return id;
        }
        let next = self.node().auto.entry(name.clone()).or_insert(1);
        let offset = if offset > step { 1 } else { offset };
        let mut id = *next;
        if step > 1 {
            while id % step != offset % step {
                id += 1;
            }
        }
        let end = id + step * total as u64;
        made.reserved = Some((id + step, end));
        *next = end.max(*next);
        self.kept_ids.get_or_insert((id, end));
        id
    }

    fn insert_row(
        &mut self,
        insert: &Insert,
        name: &Name,
        def: &Arc<Def>,
        row: Vec<Value>,
        made: &mut Inserted,
    ) -> Made<()> {
        let key = match def.primary {
            Some(at) => row[at].int() as Key,
            None => self.c.next_row(),
        };
        if let Some(at) = def.auto {
            let id = row[at].int();
            made.last = u64::try_from(id).unwrap_or(0);
            made.reserved = made.reserved.map(|(next, end)| (next.max(made.last + 1), end));
        }
        self.lock_row(name, key)?;
        if def.auto.is_some() {
            let next = self.node().auto.entry(name.clone()).or_insert(1);
            *next = (*next).max(made.last + 1);
        }
        let Some(there) = self.current(name, key) else {
            let row = Arc::new(row);
            self.put_row(name, key, Some(row.clone()));
            self.fire(name, def, When::AfterInsert, Some(row.to_vec()), None)?;
            made.affected += 1;
            made.copied += 1;
            made.rows.push(row);
            return Ok(());
        };
        if insert.replace {
            let same = *there == row;
            let row = Arc::new(row);
            if !self.triggers(name, When::BeforeDelete).is_empty() || !self.triggers(name, When::AfterDelete).is_empty()
            {
                return self.unsupported("REPLACE with DELETE triggers");
            }
            self.put_row(name, key, Some(row.clone()));
            self.fire(name, def, When::AfterInsert, Some(row.to_vec()), None)?;
            made.affected += if same { 1 } else { 2 };
            made.copied += 1;
            made.duplicates += u64::from(!same);
            made.rows.push(row);
            return Ok(());
        }
        if !insert.on_duplicate.is_empty() {
            made.generated = made.generated.filter(|id| *id != key as u64);
            return self.update_duplicate(insert, name, def, key, there, made);
        }
        let table = if self.is_maria() { String::new() } else { format!("{}.", name.1) };
        let text = format!("Duplicate entry '{key}' for key '{table}PRIMARY'");
        if insert.ignore {
            made.duplicates += 1;
            self.s.warn("Warning", 1062, text);
            return Ok(());
        }
        Err(Error::new(1062, "23000", text).into())
    }

    fn update_duplicate(
        &mut self,
        insert: &Insert,
        name: &Name,
        def: &Arc<Def>,
        key: Key,
        there: Row,
        made: &mut Inserted,
    ) -> Made<()> {
        let mut row = there.to_vec();
        for (column, expr) in &insert.on_duplicate {
            self.row = Some((def.clone(), Arc::new(row.clone())));
            let value = self.eval(expr)?;
            let at = def.find(column).unwrap_or(0);
            row[at] = self.stored(name, &def.columns[at], value, 1)?;
            if def.primary == Some(at) && row[at].int() != i128::from(key) {
                return self.unsupported("a new key in ON DUPLICATE KEY UPDATE");
            }
        }
        self.row = None;
        made.duplicates += 1;
        let row = self.fire(name, def, When::BeforeUpdate, Some(row), Some(there.to_vec()))?.unwrap_or_default();
        let changed = *there != row;
        let found = self.s.caps & caps::FOUND_ROWS != 0;
        made.affected += if changed { 2 } else { u64::from(found) };
        made.copied += u64::from(changed);
        let row = Arc::new(row);
        if changed {
            self.put_row(name, key, Some(row.clone()));
        }
        self.fire(name, def, When::AfterUpdate, Some(row.to_vec()), Some(there.to_vec()))?;
        made.rows.push(row);
        Ok(())
    }

    /// What a value becomes in a column.
    pub(super) fn stored(&mut self, table: &Name, column: &Column, value: Value, number: usize) -> Made<Value> {
        if value.is_null() {
            if column.not_null && !column.auto_increment && self.frames.is_empty() {
                return Err(Error::new(1048, "23000", format!("Column '{}' cannot be null", column.name)).into());
            }
            return Ok(Value::Null);
        }
        let made = convert(&self.c.dialect, table, column, value, number);
        match made {
            Err(_) if self.lenient => self.unsupported("a value that does not fit without STRICT_TRANS_TABLES"),
            Err(error) => Err(error.into()),
            Ok(value) => Ok(value),
        }
    }

    pub(super) fn update(&mut self, table: &Table, set: &[(Arc<str>, Expr)], filter: Option<&Expr>) -> Made<()> {
        let name = self.find_name(table)?;
        self.check_write(&name)?;
        let def = self.need_table(&name)?;
        self.c.place_word = "SET";
        self.touch_early(&name, true)?;
        for (column, expr) in set {
            def.find(column).ok_or_else(|| self.unknown_column(None, column))?;
            self.type_of(expr, Some(&def))?;
        }
        self.check_filter(&def, filter)?;
        self.touch(&name, true)?;
        let (matched, changed) = self.atomic(&name, |run| run.update_rows(&name, &def, set, filter))?;
        let affected = if self.s.caps & caps::FOUND_ROWS != 0 { matched } else { changed };
        let id = self.id_argument.unwrap_or(0);
        let warnings = self.s.own_conditions;
        self.s.found_rows_known &= self.is_maria();
        self.end_statement();
        self.ok(affected, id, &format!("Rows matched: {matched}  Changed: {changed}  Warnings: {warnings}"));
        Ok(())
    }

    fn check_filter(&mut self, def: &Arc<Def>, filter: Option<&Expr>) -> Made<()> {
        if let Some(filter) = filter {
            self.c.place_word = "WHERE";
            self.type_of(filter, Some(def))?;
        }
        if self.s.var(Id::SafeUpdates).is_true() {
            return self.unsupported("a write under sql_safe_updates");
        }
        Ok(())
    }

    /// Locks and reads the rows that a write is about.
    fn chosen(&mut self, name: &Name, def: &Arc<Def>, filter: Option<&Expr>) -> Made<Vec<(Key, Row)>> {
        let point = self.point(def, filter)?;
        match point {
            Some(key) => self.lock_row(name, key)?,
            None => self.lock_scan(name)?,
        }
        let mut rows = self.rows_of(name, true);
        if let Some(key) = point {
            rows.retain(|(k, _)| *k == key);
            if rows.is_empty() && self.s.in_transaction() {
                // A server locks a gap here; the model only the key.
                self.c.imprecise = true;
            }
        }
        let mut kept = Vec::new();
        for (key, row) in rows {
            self.row = Some((def.clone(), row.clone()));
            if let Some(filter) = filter
                && !self.eval(filter)?.is_true()
            {
                continue;
            }
            kept.push((key, row));
        }
        Ok(kept)
    }

    fn update_rows(
        &mut self,
        name: &Name,
        def: &Arc<Def>,
        set: &[(Arc<str>, Expr)],
        filter: Option<&Expr>,
    ) -> Made<(u64, u64)> {
        let (mut matched, mut changed) = (0, 0);
        for (key, there) in self.chosen(name, def, filter)? {
            matched += 1;
            let mut row = there.to_vec();
            for (column, expr) in set {
                self.row = Some((def.clone(), Arc::new(row.clone())));
                let value = self.eval(expr)?;
                let at = def.find(column).unwrap_or(0);
                row[at] = self.stored(name, &def.columns[at], value, matched as usize)?;
            }
            self.row = None;
            let row = self.fire(name, def, When::BeforeUpdate, Some(row), Some(there.to_vec()))?.unwrap_or_default();
            let new_key = def.primary.map_or(key, |at| row[at].int() as Key);
            if new_key != key {
                return self.unsupported("UPDATE of a primary key");
            }
            if *there != row {
                changed += 1;
                self.put_row(name, key, Some(Arc::new(row.clone())));
            }
            self.fire(name, def, When::AfterUpdate, Some(row), Some(there.to_vec()))?;
        }
        Ok((matched, changed))
    }

    pub(super) fn delete(&mut self, table: &Table, filter: Option<&Expr>) -> Made<()> {
        let name = self.find_name(table)?;
        self.check_write(&name)?;
        let def = self.need_table(&name)?;
        self.touch_early(&name, true)?;
        self.check_filter(&def, filter)?;
        self.touch(&name, true)?;
        let count = self.atomic(&name, |run| {
            let rows = run.chosen(&name, &def, filter)?;
            run.row = None;
            let count = rows.len() as u64;
            for (key, row) in rows {
                run.fire(&name, &def, When::BeforeDelete, None, Some(row.to_vec()))?;
                run.put_row(&name, key, None);
                run.fire(&name, &def, When::AfterDelete, None, Some(row.to_vec()))?;
            }
            Ok(count)
        })?;
        self.s.found_rows_known &= self.is_maria();
        self.end_statement();
        self.ok(count, 0, "");
        Ok(())
    }

    fn triggers(&self, name: &Name, when: When) -> Vec<(Name, Arc<crate::ast::Routine>)> {
        if name.0.starts_with('#') {
            return Vec::new();
        }
        let store = &self.c.nodes[self.s.node].store;
        if store.routines.is_empty() { Vec::new() } else { store.triggers(name, when) }
    }

    /// Runs the triggers of a moment; what they make of NEW comes back.
    fn fire(
        &mut self,
        name: &Name,
        def: &Def,
        when: When,
        new: Option<Vec<Value>>,
        old: Option<Vec<Value>>,
    ) -> Made<Option<Vec<Value>>> {
        let triggers = self.triggers(name, when);
        if triggers.is_empty() {
            return Ok(new);
        }
        let columns = def.columns.iter().map(|c| c.name.clone()).collect();
        let mut frame = Frame { params: Vec::new(), columns, new, old };
        for (own, routine) in triggers {
            let crate::ast::Routine::Trigger { body, .. } = &*routine else { continue };
            frame = self.sub(&own, frame, body)?.0;
        }
        Ok(frame.new)
    }
}

pub(super) fn convert(
    dialect: &crate::Dialect,
    table: &Name,
    column: &Column,
    value: Value,
    number: usize,
) -> Result<Value, Error> {
    let range =
        || Error::new(1264, "22003", format!("Out of range value for column '{}' at row {number}", column.name));
    let incorrect = |kind: &str, value: &Value| {
        let schema = table.0.rsplit('#').next().unwrap_or_default();
        let (state, at) = match dialect.is_maria() {
            true => ("22007", format!("`{schema}`.`{}`.`{}`", table.1, column.name)),
            false => ("HY000", format!("'{}'", column.name)),
        };
        Error::new(1366, state, format!("Incorrect {kind} value: '{}' for column {at} at row {number}", value.string()))
    };
    let within = |from: i128, to: i128, kind: &str| -> Result<i128, Error> {
        if matches!(value, Value::Str(_)) && !value.number().1 {
            return Err(incorrect(kind, &value));
        }
        let n = value.int();
        if (from..=to).contains(&n) { Ok(n) } else { Err(range()) }
    };
    match column.ty {
        ColumnType::Int { unsigned: false } => {
            Ok(Value::Int(within(i32::MIN.into(), i32::MAX.into(), "integer")? as i64))
        }
        ColumnType::Int { unsigned: true } => Ok(Value::UInt(within(0, u32::MAX.into(), "integer")? as u64)),
        ColumnType::BigInt { unsigned: false } => {
            Ok(Value::Int(within(i64::MIN.into(), i64::MAX.into(), "integer")? as i64))
        }
        ColumnType::BigInt { unsigned: true } => Ok(Value::UInt(within(0, u64::MAX.into(), "integer")? as u64)),
        ColumnType::Double => {
            if matches!(value, Value::Str(_)) && !value.number().1 {
                return Err(crate::error::unsupported("text in a DOUBLE column"));
            }
            Ok(Value::Double(value.number().0))
        }
        ColumnType::Decimal(size, scale) => {
            let text = match &value {
                Value::Double(_) => return Err(crate::error::unsupported("a double in a DECIMAL column")),
                other => other.string(),
            };
            let made = crate::value::Decimal::parse(text.trim()).ok_or_else(|| incorrect("decimal", &value))?;
            if made.scale > scale {
                return Err(crate::error::unsupported("a decimal that is cut"));
            }
            let made = made.rescale(scale);
            if made.digits.unsigned_abs() >= 10u128.pow(u32::from(size)) {
                return Err(range());
            }
            Ok(Value::Dec(made))
        }
        ColumnType::Varchar(size) => {
            let text = value.text().unwrap_or_default();
            if text.len() > size as usize {
                return Err(Error::new(
                    1406,
                    "22001",
                    format!("Data too long for column '{}' at row {number}", column.name),
                ));
            }
            Ok(Value::Str(text))
        }
    }
}
