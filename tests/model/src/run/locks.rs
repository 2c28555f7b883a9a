//! Locks: rows, tables, names.

use super::{Flow, Made, Run};
use crate::ast::{Func, Table};
use crate::error::Error;
use crate::store::{Key, Name};
use crate::tracker::place;
use crate::value::Value;
use crate::vars::Id;

impl Run<'_> {
    /// Waits, or gives up when a variable's number of seconds has passed.
    pub(super) fn wait(&mut self, limit: Id) -> Flow {
        let seconds = self.s.var(limit).int();
        self.c.deadlines.push(self.since.unwrap_or(self.now) + seconds as u64 * 1000);
        match self.since {
            Some(since) if i128::from(self.now - since) >= seconds * 1000 => {
                Error::new(1205, "HY000", "Lock wait timeout exceeded; try restarting transaction").into()
            }
            _ => Flow::Wait,
        }
    }

    fn wait_for_row(&mut self, owners: Vec<u64>) -> Flow {
        let key = self.s.key;
        for owner in owners {
            if self.c.waits_for(owner, key) {
                // A circle: somebody has to give way, and which of the two a server picks is not modelled.
                self.c.imprecise = true;
                self.end_transaction(false);
                return super::deadlock().into();
            }
            self.c.waiting.insert(key, owner);
        }
        self.wait(Id::InnodbLockWaitTimeout)
    }

    /// Locks one row.
    pub(super) fn lock_row(&mut self, table: &Name, row: Key) -> Made<()> {
        if table.0.starts_with('#') {
            return Ok(());
        }
        let key = self.s.key;
        let node = self.node();
        let mut owners: Vec<u64> = Vec::new();
        if let Some(scans) = node.scans.get(table) {
            owners.extend(scans.iter().filter(|o| **o != key));
        }
        let at = (table.clone(), row);
        owners.extend(node.rows.get(&at).filter(|o| **o != key));
        if owners.is_empty() {
            node.rows.insert(at, key);
            return Ok(());
        }
        Err(self.wait_for_row(owners))
    }

    /// Locks all rows of a table and what may come between them.
    pub(super) fn lock_scan(&mut self, table: &Name) -> Made<()> {
        if table.0.starts_with('#') {
            return Ok(());
        }
        let key = self.s.key;
        let node = self.node();
        let mut owners: Vec<u64> =
            node.rows.iter().filter(|((t, _), o)| t == table && **o != key).map(|(_, o)| *o).collect();
        owners.extend(node.scans.get(table).into_iter().flatten().filter(|o| **o != key));
        owners.sort_unstable();
        owners.dedup();
        if owners.is_empty() {
            node.scans.entry(table.clone()).or_default().insert(key);
            return Ok(());
        }
        // While it waits, a server has locked the rows before the one that is taken already.
        self.c.imprecise = true;
        Err(self.wait_for_row(owners))
    }

    /// Waits until no other session has locked the table by LOCK TABLES.
    pub(super) fn check_table_locks(&mut self, table: &Name, write: bool) -> Made<()> {
        let key = self.s.key;
        let node = &self.c.nodes[self.s.node];
        if node.tables.iter().any(|(t, w, owner)| t == table && *owner != key && (*w || write)) {
            return Err(self.wait(Id::LockWaitTimeout));
        }
        Ok(())
    }

    /// Waits until no open transaction of another session has used the table.
    pub(super) fn check_users(&mut self, table: &Name) -> Made<()> {
        if self.is_used(table, false) {
            Err(self.wait(Id::LockWaitTimeout))
        } else {
            self.check_table_locks(table, true)
        }
    }

    /// Whether an open transaction of another session has used (`written`: written to) the table.
    fn is_used(&self, table: &Name, written: bool) -> bool {
        let (key, node) = (self.s.key, self.s.node);
        self.c.sessions.values().flatten().any(|other| {
            let used = other.transaction.as_ref().and_then(|t| t.tables.get(table));
            other.key != key && other.node == node && used.is_some_and(|write| *write || !written)
        })
    }

    pub(super) fn lock_tables(&mut self, tables: &[(Table, bool)]) -> Made<()> {
        if self.place != super::Place::Top {
            return self.unsupported("LOCK TABLES in a routine");
        }
        let key = self.s.key;
        self.implicit_commit()?;
        // It counts as a change that the same state comes again.
        self.s.tracker.empty_change |= self.s.locked;
        self.unlock();
        let mut names = Vec::new();
        for (table, write) in tables {
            let name = self.base_name(table)?;
            self.need_table(&name)?;
            names.push((name, *write));
        }
        for (name, write) in &names {
            let node = &self.c.nodes[self.s.node];
            let taken = node.tables.iter().any(|(t, w, owner)| t == name && *owner != key && (*w || *write));
            if taken {
                return Err(self.wait(Id::LockWaitTimeout));
            }
            if self.is_used(name, !*write) {
                return Err(self.wait(Id::LockWaitTimeout));
            }
        }
        let node = self.node();
        node.tables.extend(names.into_iter().map(|(name, write)| (name, write, key)));
        self.s.locked = true;
        self.s.tracker.lock(true);
        if !self.s.autocommit() {
            // This begins a transaction.
            let write = tables.iter().any(|(_, write)| *write);
            self.transaction();
            self.s.tracker.add(if write { place::WRITE } else { place::READ });
        }
        self.done()
    }

    pub(super) fn unlock_tables(&mut self) -> Made<()> {
        if self.place == super::Place::Sub {
            return self.unsupported("UNLOCK TABLES in a function");
        }
        if self.s.locked {
            self.implicit_commit()?;
            self.unlock();
        }
        self.done()
    }

    /// Lets go of LOCK TABLES.
    pub(super) fn unlock(&mut self) {
        if self.s.locked {
            let key = self.s.key;
            self.node().tables.retain(|l| l.2 != key);
            self.s.locked = false;
            self.s.tracker.lock(false);
        }
    }

    pub(super) fn get_lock(&mut self, name: &Value, seconds: &Value) -> Made<Value> {
        if name.is_null() || seconds.is_null() {
            return self.unsupported("GET_LOCK of NULL");
        }
        let (name, key) = (name.string().to_ascii_lowercase(), self.s.key);
        let (now, since) = (self.now, self.since);
        let limit = seconds.int() as i64;
        let owner = self.node().named.entry(name).or_insert((key, 0));
        if owner.0 == key {
            owner.1 += 1;
            return Ok(Value::Int(1));
        }
        let over = since.is_some_and(|since| limit >= 0 && now - since >= limit as u64 * 1000);
        if limit == 0 || over {
            return Ok(Value::Int(0));
        }
        if limit > 0 {
            self.c.deadlines.push(since.unwrap_or(now) + limit as u64 * 1000);
        }
        Err(Flow::Wait)
    }

    pub(super) fn named_lock(&mut self, func: Func, name: &Value) -> Made<Value> {
        if name.is_null() {
            return self.unsupported("a lock without a name");
        }
        let (name, key) = (name.string().to_ascii_lowercase(), self.s.key);
        let node = self.node();
        let owner = node.named.get(&name).copied();
        match func {
            Func::IsFreeLock => Ok(Value::bool(owner.is_none())),
            Func::IsUsedLock => {
                Ok(owner.map_or(Value::Null, |(owner, _)| Value::UInt(u64::from(self.thread_of(owner)))))
            }
            _ => match owner {
                None => Ok(Value::Null),
                Some((owner, _)) if owner != key => Ok(Value::Int(0)),
                Some((_, 1)) => {
                    node.named.remove(&name);
                    Ok(Value::Int(1))
                }
                Some((owner, times)) => {
                    node.named.insert(name, (owner, times - 1));
                    Ok(Value::Int(1))
                }
            },
        }
    }

    pub(super) fn release_all_locks(&mut self) -> Value {
        let key = self.s.key;
        let named = &mut self.node().named;
        let times: u32 = named.values().filter(|o| o.0 == key).map(|o| o.1).sum();
        named.retain(|_, o| o.0 != key);
        Value::UInt(u64::from(times))
    }

    fn thread_of(&self, key: u64) -> u32 {
        if key == self.s.key {
            return self.s.thread;
        }
        self.c.sessions.get(&key).and_then(Option::as_ref).map_or(0, |s| s.thread)
    }
}
