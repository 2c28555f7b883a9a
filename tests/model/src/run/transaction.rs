//! Transactions: their beginning, their end, their savepoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{Flow, Made, Place, Run};
use crate::ast::{Isolation, Scope};
use crate::error::Error;
use crate::store::{Change, Overlay, Transaction};
use crate::value::Value;
use crate::vars::Id;

impl Run<'_> {
    /// Isolation and access mode of a transaction that begins now.
    fn level(&mut self) -> (Isolation, bool) {
        let dialect = self.c.dialect;
        let by_session = Isolation::parse(&self.s.var(Id::isolation(dialect)).string());
        let level = self.s.next.isolation.or(by_session).unwrap_or(Isolation::RepeatableRead);
        let read_only = self.s.next.read_only.unwrap_or_else(|| self.s.var(Id::read_only(dialect)).is_true());
        (level, read_only)
    }

    /// The transaction of this statement; one begins if there is none.
    pub fn transaction(&mut self) -> &mut Transaction {
        if self.s.transaction.is_none() {
            let (isolation, read_only) = self.level();
            if !self.s.autocommit() {
                self.s.tracker.begin(false);
            }
            self.s.transaction = Some(Transaction {
                explicit: false,
                read_only,
                isolation,
                snapshot: None,
                overlay: Overlay::new(),
                savepoints: Vec::new(),
                tables: BTreeMap::new(),
            });
        }
        // invariant: it was made right above.
        self.s.transaction.as_mut().expect("a transaction")
    }

    pub fn begin(&mut self, read_only: Option<bool>, snapshot: bool) -> Made<()> {
        if self.place == Place::Sub {
            return Err(commit_in_sub());
        }
        let open = self.s.transaction.is_some();
        let next = self.s.next;
        self.end_transaction(true);
        self.s.tracker.end();
        if open && !self.is_maria() {
            // MySQL takes over what SET TRANSACTION had set for the transaction that ends here.
            self.s.next = next;
            self.c.imprecise |= self.s.tracker.after_reset;
        }
        self.unlock();
        self.open(read_only, snapshot);
        self.done()
    }

    fn open(&mut self, read_only: Option<bool>, snapshot: bool) {
        if read_only.is_some() {
            self.s.next.read_only = read_only;
        }
        self.s.tracker.snapshot = snapshot;
        self.unlock();
        let store = self.node().store.clone();
        self.transaction().explicit = true;
        self.s.tracker.begin(true);
        self.s.tracker.characteristics();
        if snapshot && self.transaction().isolation == Isolation::RepeatableRead {
            self.transaction().snapshot = Some(store);
        } else if snapshot && !self.is_maria() {
            // MySQL warns of it, but not always.
            self.c.imprecise = true;
        }
    }

    /// COMMIT or ROLLBACK.
    pub fn complete(&mut self, commit: bool, chain: Option<bool>, release: Option<bool>) -> Made<()> {
        if self.place == Place::Sub {
            return Err(commit_in_sub());
        }
        let by_type = self.s.var(Id::CompletionType).string();
        let chain = chain.unwrap_or(by_type == "CHAIN" && release != Some(true));
        let release = release.unwrap_or(by_type == "RELEASE" && !chain);
        let next = self.s.next;
        if commit && self.conflicts() {
            self.end_transaction(false);
            return Err(super::deadlock().into());
        }
        self.end_transaction(commit);
        self.s.tracker.end();
        if chain {
            self.s.next = next;
            self.open(None, false);
        } else {
            self.use_up_next();
        }
        self.done()?;
        if release {
            return Err(Flow::Close);
        }
        Ok(())
    }

    /// Whether a change of another node that waits to be applied touches the same rows: certification fails.
    fn conflicts(&self) -> bool {
        let Some(own) = self.s.transaction.as_ref().map(|t| &t.overlay) else { return false };
        let queue = &self.c.nodes[self.s.node].queue;
        queue.iter().any(|change| match change {
            Change::Rows(rows) => rows.keys().any(|key| own.contains_key(key)),
            _ => false,
        })
    }

    /// Ends the transaction, if there is one.
    pub fn end_transaction(&mut self, commit: bool) {
        let Some(transaction) = self.s.transaction.take() else { return };
        let tracked = transaction.explicit || !self.s.autocommit();
        let mut rows = transaction.overlay;
        if commit && !rows.is_empty() {
            let temporary: Vec<_> = rows.keys().filter(|(name, _)| name.0.starts_with('#')).cloned().collect();
            for at in temporary {
                let Some(row) = rows.remove(&at) else { continue };
                let Some(table) = self.s.temporary.get_mut(&at.0) else { continue };
                match row {
                    Some(row) => table.rows.insert(at.1, row),
                    None => table.rows.remove(&at.1),
                };
            }
            if !rows.is_empty() {
                self.c.commit(self.s.node, Change::Rows(rows));
            }
        }
        let key = self.s.key;
        self.node().release_rows(key);
        let had_next = self.s.next != Default::default();
        self.s.next = Default::default();
        if tracked {
            if transaction.explicit {
                self.s.tracker.characteristics();
            }
            self.s.tracker.end();
        }
        if had_next {
            self.s.tracker.characteristics();
        }
        self.s.tracker.snapshot = false;
    }

    /// The end of a statement: what was not said to be a transaction commits.
    pub fn end_statement(&mut self) {
        if self.place != Place::Sub && self.depth_allows_commit() && !self.s.in_transaction() {
            self.end_transaction(true);
        }
    }

    fn depth_allows_commit(&self) -> bool {
        self.place != Place::Sub
    }

    /// Statements that commit what was open before them.
    pub fn implicit_commit(&mut self) -> Made<()> {
        if self.place == Place::Sub {
            return Err(commit_in_sub());
        }
        self.end_transaction(true);
        self.s.tracker.end();
        self.use_up_next();
        Ok(())
    }

    /// What SET TRANSACTION set is used up.
    fn use_up_next(&mut self) {
        if self.s.next != Default::default() {
            self.s.next = Default::default();
            self.s.tracker.characteristics();
        }
    }

    pub fn savepoint(&mut self, name: &Arc<str>) -> Made<()> {
        if self.s.in_transaction() {
            let transaction = self.transaction();
            transaction.savepoints.retain(|(own, _)| !own.eq_ignore_ascii_case(name));
            let saved = transaction.overlay.clone();
            transaction.savepoints.push((name.clone(), saved));
        } else if !self.s.autocommit() {
            // Servers keep it for the transaction that will begin.
            self.c.imprecise = true;
        }
        self.done()
    }

    pub fn rollback_to(&mut self, name: &Arc<str>, release: bool) -> Made<()> {
        let transaction = self.s.transaction.as_mut();
        let found = transaction.and_then(|t| {
            let at = t.savepoints.iter().position(|(own, _)| own.eq_ignore_ascii_case(name))?;
            Some((t, at))
        });
        let Some((transaction, at)) = found else {
            return Err(Error::new(1305, "42000", format!("SAVEPOINT {name} does not exist")).into());
        };
        if release {
            transaction.savepoints.truncate(at);
        } else {
            transaction.overlay = transaction.savepoints[at].1.clone();
            transaction.savepoints.truncate(at + 1);
        }
        self.done()
    }

    pub fn set_transaction(&mut self, scope: Scope, isolation: Option<Isolation>, read_only: Option<bool>) -> Made<()> {
        let dialect = self.c.dialect;
        match scope {
            Scope::Bare => {
                if self.s.in_transaction() {
                    return Err(in_progress());
                }
                let before = self.s.next;
                self.s.next.isolation = isolation.or(before.isolation);
                self.s.next.read_only = read_only.or(before.read_only);
                if self.s.next != before {
                    self.s.tracker.characteristics();
                }
            }
            Scope::Session => {
                if self.s.next != Default::default() && !self.s.in_transaction() {
                    // It overrules what was set for the next transaction alone.
                    let before = self.s.next;
                    let next = &mut self.s.next;
                    next.isolation = next.isolation.filter(|_| isolation.is_none());
                    next.read_only = next.read_only.filter(|_| read_only.is_none());
                    if *next != before {
                        self.s.tracker.characteristics();
                    }
                }
                if let Some(level) = isolation {
                    let id = Id::isolation(dialect);
                    self.s.put(id, Value::str(level.text()));
                    self.s.tracker.variable(id);
                }
                if let Some(read_only) = read_only {
                    let id = Id::read_only(dialect);
                    self.s.put(id, Value::UInt(u64::from(read_only)));
                    self.s.tracker.variable(id);
                }
                self.s.tracker.state();
            }
            Scope::Global => return Err(crate::error::unsupported("SET GLOBAL TRANSACTION").into()),
        }
        self.done()
    }
}

pub(super) fn in_progress() -> Flow {
    Error::new(1568, "25001", "Transaction characteristics can't be changed while a transaction is in progress").into()
}

pub(super) fn commit_in_sub() -> Flow {
    Error::new(1422, "HY000", "Explicit or implicit commit is not allowed in stored function or trigger.").into()
}
