//! CREATE and DROP of tables and code; USE.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Made, Run};
use crate::ast::{Column, ColumnType, Routine, Table as Named};
use crate::error::Error;
use crate::store::{Change, Def, Name, Table};

impl Run<'_> {
    fn temporary_name(&self, table: &Named) -> Made<Name> {
        let base = self.base_name(table)?;
        Ok((format!("#{}#{}", self.s.key, base.0).into(), base.1))
    }

    fn need_schema(&self, name: &Name) -> Made<()> {
        if !self.c.may_use(&self.s.user, self.s.role.as_deref(), &name.0) {
            return Err(self.denied(&name.0));
        }
        if self.c.nodes[self.s.node].store.schemas.contains(&name.0) {
            return Ok(());
        }
        Err(Error::new(1049, "42000", format!("Unknown database '{}'", name.0)).into())
    }

    fn denied(&self, schema: &str) -> super::Flow {
        let text = format!("Access denied for user '{}'@'%' to database '{schema}'", self.s.user);
        Error::new(1044, "42000", text).into()
    }

    /// A schema for the session.
    pub(crate) fn use_schema(&mut self, schema: &Arc<str>) -> Made<()> {
        self.need_schema(&(schema.clone(), "".into()))?;
        self.s.schema = Some(schema.clone());
        self.s.tracker.schema();
        self.s.tracker.state();
        Ok(())
    }

    pub(super) fn create_table(
        &mut self,
        temporary: bool,
        if_not_exists: bool,
        table: &Named,
        columns: &[Column],
    ) -> Made<()> {
        let base = self.base_name(table)?;
        if temporary {
            self.check_read_only()?;
        }
        self.need_schema(&base)?;
        let mut columns = columns.to_vec();
        let primary = columns.iter().position(|c| c.primary);
        let auto = columns.iter().position(|c| c.auto_increment);
        if let Some(at) = primary {
            columns[at].not_null = true;
            if !matches!(columns[at].ty, ColumnType::Int { .. } | ColumnType::BigInt { .. }) {
                return self.unsupported("a primary key that is no integer");
            }
        }
        if auto.is_some() && auto != primary {
            let text = "Incorrect table definition; there can be only one auto column and it must be defined as a key";
            return Err(Error::new(1075, "42000", text).into());
        }
        let def = Arc::new(Def { columns, primary, auto });
        if temporary {
            return self.create_temporary(if_not_exists, table, def);
        }
        self.implicit_commit()?;
        if self.s.locked {
            return self.unsupported("CREATE TABLE under LOCK TABLES");
        }
        let store = &self.c.nodes[self.s.node].store;
        if store.tables.contains_key(&base) || store.routines.contains_key(&("VIEW", base.clone())) {
            let text = format!("Table '{}' already exists", base.1);
            if if_not_exists {
                self.s.warn("Note", 1050, text);
                return self.done();
            }
            return Err(Error::new(1050, "42S01", text).into());
        }
        self.c.commit(self.s.node, Change::CreateTable(base.clone(), def));
        self.c.forget_auto(&base);
        self.done()
    }

    fn create_temporary(&mut self, if_not_exists: bool, table: &Named, def: Arc<Def>) -> Made<()> {
        let name = self.temporary_name(table)?;
        if self.s.temporary.contains_key(&name) {
            let text = format!("Table '{}' already exists", name.1);
            if !if_not_exists {
                return Err(Error::new(1050, "42S01", text).into());
            }
            self.s.warn("Note", 1050, text);
        } else {
            self.s.temporary.insert(name.clone(), Table { def, rows: BTreeMap::new() });
            self.c.forget_auto(&name);
        }
        if !self.is_maria() && (self.s.in_transaction() || self.s.locked || !self.s.autocommit()) {
            // MySQL's tracker takes the transaction for ended here; what follows from that is not modelled.
            self.c.imprecise = true;
        }
        self.s.tracker.state();
        self.done()
    }

    pub(super) fn drop_tables(&mut self, temporary: bool, if_exists: bool, tables: &[Named]) -> Made<()> {
        if temporary {
            self.check_read_only()?;
        }
        let mut missing = Vec::new();
        let mut only_temporary = true;
        let mut found = Vec::new();
        for table in tables {
            let hidden = self.temporary_name(table)?;
            let base = self.base_name(table)?;
            if self.s.temporary.contains_key(&hidden) {
                found.push(hidden);
            } else if !temporary && self.s.locked {
                let key = self.s.key;
                if !self.c.nodes[self.s.node].tables.iter().any(|l| l.2 == key && l.0 == base) {
                    let text = format!("Table '{}' was not locked with LOCK TABLES", base.1);
                    return Err(Error::new(1100, "HY000", text).into());
                }
                return self.unsupported("DROP TABLE under LOCK TABLES");
            } else if !temporary && self.c.nodes[self.s.node].store.tables.contains_key(&base) {
                only_temporary = false;
                self.need_table(&base)?;
                found.push(base);
            } else {
                only_temporary &= temporary;
                missing.push(format!("{}.{}", base.0, base.1));
            }
        }
        if !only_temporary || (!temporary && !self.is_maria()) {
            self.implicit_commit()?;
        } else if !temporary && found.len() == tables.len() {
            // DROP TABLE of temporary tables commits on MariaDB too.
            self.implicit_commit()?;
        }
        let mut dropped = false;
        if temporary && !self.is_maria() && (self.s.in_transaction() || self.s.locked || !self.s.autocommit()) {
            // As for CREATE TEMPORARY TABLE.
            self.c.imprecise = true;
        }
        for name in &found {
            if name.0.starts_with('#') {
                self.s.temporary.remove(name);
                if let Some(t) = self.s.transaction.as_mut() {
                    t.overlay.retain(|(own, _), _| own != name);
                }
                self.s.tracker.state();
            } else {
                if self.s.locked {
                    return self.unsupported("DROP TABLE under LOCK TABLES");
                }
                if let Err(flow) = self.check_users(name) {
                    if dropped {
                        return self.unsupported("a wait in the middle of DROP TABLE");
                    }
                    return Err(flow);
                }
                self.c.commit(self.s.node, Change::DropTable(name.clone()));
            }
            dropped = true;
        }
        if temporary && (missing.is_empty() || if_exists) {
            self.s.tracker.state();
        }
        if !missing.is_empty() && !if_exists {
            let text = format!("Unknown table '{}'", missing.join(","));
            return Err(Error::new(1051, "42S02", text).into());
        }
        if self.is_maria() && !missing.is_empty() {
            missing = vec![missing.join(",")];
        }
        for name in missing {
            self.s.warn("Note", 1051, format!("Unknown table '{name}'"));
        }
        self.done()
    }

    fn kind(routine: &Routine) -> &'static str {
        match routine {
            Routine::Procedure { .. } => "PROCEDURE",
            Routine::Function { .. } => "FUNCTION",
            Routine::Trigger { .. } => "TRIGGER",
            Routine::View(_) => "VIEW",
        }
    }

    pub(super) fn create_routine(&mut self, name: &Named, routine: &Arc<Routine>) -> Made<()> {
        let kind = Self::kind(routine);
        let name = self.base_name(name)?;
        self.need_schema(&name)?;
        self.implicit_commit()?;
        if self.s.locked {
            return self.unsupported("CREATE under LOCK TABLES");
        }
        let node = &self.c.nodes[self.s.node];
        if node.store.routines.contains_key(&(kind, name.clone())) {
            return Err(match kind {
                "TRIGGER" if self.is_maria() => {
                    Error::new(1359, "HY000", format!("Trigger '{}.{}' already exists", name.0, name.1))
                }
                "TRIGGER" => Error::new(1359, "HY000", "Trigger already exists"),
                "VIEW" => Error::new(1050, "42S01", format!("Table '{}' already exists", name.1)),
                _ => Error::new(1304, "42000", format!("{kind} {} already exists", name.1)),
            }
            .into());
        }
        match &**routine {
            Routine::Trigger { table, .. } => {
                let table = self.base_name(table)?;
                self.need_table(&table)?;
                self.check_users(&table)?;
                self.s.tracker.empty_change |= !self.is_maria() && self.s.tracker.tracks_mode();
            }
            Routine::View(select) => {
                let Some(table) = &select.from else { return self.unsupported("a view without a table") };
                let table = self.base_name(table)?;
                let def = self.need_table(&table)?;
                self.c.place_word = "SELECT";
                self.heads(&select.items, Some((&table.0, &table.1, &def)))?;
                if select.limit.is_some() || select.order.is_some() {
                    return self.unsupported("a view with ORDER BY or LIMIT");
                }
            }
            _ => {}
        }
        self.c.commit(self.s.node, Change::CreateRoutine(kind, name, routine.clone()));
        self.done()
    }

    pub(super) fn drop_routine(&mut self, what: &'static str, if_exists: bool, name: &Named) -> Made<()> {
        let name = self.base_name(name)?;
        self.implicit_commit()?;
        if self.s.locked {
            return self.unsupported("DROP under LOCK TABLES");
        }
        let key = (what, name.clone());
        let Some(routine) = self.c.nodes[self.s.node].store.routines.get(&key).cloned() else {
            let full = format!("{}.{}", name.0, name.1);
            let (code, state, text) = match what {
                "TRIGGER" => (1360, "HY000", "Trigger does not exist".to_owned()),
                "VIEW" if self.is_maria() => (4092, "42S02", format!("Unknown VIEW: '{full}'")),
                "VIEW" => (1051, "42S02", format!("Unknown table '{full}'")),
                _ => (1305, "42000", format!("{what} {full} does not exist")),
            };
            if if_exists {
                self.s.warn("Note", code, text);
                return self.done();
            }
            return Err(Error::new(code, state, text).into());
        };
        if let Routine::Trigger { table, .. } = &*routine {
            let table = self.base_name(table)?;
            self.check_users(&table)?;
        }
        self.c.commit(self.s.node, Change::DropRoutine(what, name));
        self.s.tracker.empty_change |= !self.is_maria() && self.s.tracker.tracks_mode() && what != "VIEW";
        self.done()
    }
}
