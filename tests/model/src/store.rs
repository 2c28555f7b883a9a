//! Data of a node: committed tables, code, locks; and what a transaction holds before it commits.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use crate::ast::{Column, Isolation, Routine, When};
use crate::value::Value;
use crate::vars::Values;

/// A table's schema and name. Temporary tables have the schema of their table behind a `#`.
pub(crate) type Name = (Arc<str>, Arc<str>);
/// The primary key of a row, or a number that stands for it.
pub(crate) type Key = i64;
pub(crate) type Row = Arc<Vec<Value>>;
/// What a transaction has done to rows: `None` is deleted.
pub(crate) type Overlay = BTreeMap<(Name, Key), Option<Row>>;

#[derive(Debug, PartialEq)]
pub(crate) struct Def {
    pub columns: Vec<Column>,
    pub primary: Option<usize>,
    pub auto: Option<usize>,
}

impl Def {
    pub fn find(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub def: Arc<Def>,
    pub rows: BTreeMap<Key, Row>,
}

/// What is committed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub schemas: BTreeSet<Arc<str>>,
    pub tables: BTreeMap<Name, Arc<Table>>,
    /// By kind (`PROCEDURE`, `FUNCTION`, `TRIGGER`, `VIEW`), schema and name.
    pub routines: BTreeMap<(&'static str, Name), Arc<Routine>>,
}

impl Store {
    /// The triggers of a table that run at this moment.
    pub fn triggers(&self, table: &Name, at: When) -> Vec<(Name, Arc<Routine>)> {
        let on = |(key, routine): (&(&'static str, Name), &Arc<Routine>)| match &**routine {
            Routine::Trigger { when, table: t, .. } if *when == at && t.name == table.1 && key.1.0 == table.0 => {
                Some((key.1.clone(), routine.clone()))
            }
            _ => None,
        };
        self.routines.iter().filter(|((kind, _), _)| *kind == "TRIGGER").filter_map(on).collect()
    }
}

/// One step of replication.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Rows(Overlay),
    CreateTable(Name, Arc<Def>),
    DropTable(Name),
    CreateRoutine(&'static str, Name, Arc<Routine>),
    DropRoutine(&'static str, Name),
}

impl Store {
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Rows(overlay) => {
                for ((name, key), row) in overlay {
                    let Some(table) = self.tables.get_mut(name) else { continue };
                    let rows = &mut Arc::make_mut(table).rows;
                    match row {
                        Some(row) => rows.insert(*key, row.clone()),
                        None => rows.remove(key),
                    };
                }
            }
            Change::CreateTable(name, def) => {
                self.tables.insert(name.clone(), Arc::new(Table { def: def.clone(), rows: BTreeMap::new() }));
            }
            Change::DropTable(name) => {
                self.tables.remove(name);
                self.routines.retain(|(kind, own), routine| match &**routine {
                    Routine::Trigger { table, .. } => !(*kind == "TRIGGER" && own.0 == name.0 && table.name == name.1),
                    _ => true,
                });
            }
            Change::CreateRoutine(kind, name, routine) => {
                self.routines.insert((kind, name.clone()), routine.clone());
            }
            Change::DropRoutine(kind, name) => {
                self.routines.remove(&(*kind, name.clone()));
            }
        }
    }
}

/// An open transaction, or one statement's.
#[derive(Clone, Debug)]
pub(crate) struct Transaction {
    /// BEGIN was said.
    pub explicit: bool,
    pub read_only: bool,
    pub isolation: Isolation,
    pub snapshot: Option<Arc<Store>>,
    pub overlay: Overlay,
    pub savepoints: Vec<(Arc<str>, Overlay)>,
    /// Tables that it has touched (they keep their definition), and whether it wrote to them.
    pub tables: BTreeMap<Name, bool>,
}

/// One server of the cluster.
#[derive(Debug)]
pub(crate) struct Node {
    pub store: Arc<Store>,
    /// Next generated key of each table.
    pub auto: HashMap<Name, u64>,
    /// Who has locked a row.
    pub rows: HashMap<(Name, Key), u64>,
    /// Who has locked all rows of a table and the gaps between them.
    pub scans: HashMap<Name, BTreeSet<u64>>,
    /// GET_LOCK: owner and how often.
    pub named: BTreeMap<String, (u64, u32)>,
    /// LOCK TABLES.
    pub tables: Vec<(Name, bool, u64)>,
    pub globals: Values,
    pub up: bool,
    pub primary: bool,
    pub next_thread: u32,
    /// Changes of other nodes that are not applied yet.
    pub queue: VecDeque<Change>,
    pub partitioned: bool,
}

impl Node {
    pub fn new(globals: Values) -> Node {
        Node {
            store: Arc::default(),
            auto: HashMap::new(),
            rows: HashMap::new(),
            scans: HashMap::new(),
            named: BTreeMap::new(),
            tables: Vec::new(),
            globals,
            up: true,
            primary: true,
            next_thread: 1,
            queue: VecDeque::new(),
            partitioned: false,
        }
    }

    pub fn apply(&mut self, change: &Change) {
        Arc::make_mut(&mut self.store).apply(change);
        let Change::Rows(overlay) = change else { return };
        for ((name, key), row) in overlay {
            if row.is_some() && *key > 0 {
                let next = self.auto.entry(name.clone()).or_insert(1);
                *next = (*next).max(*key as u64 + 1);
            }
        }
    }

    /// Lets go of all that a transaction held.
    pub fn release_rows(&mut self, session: u64) {
        if !self.rows.is_empty() {
            self.rows.retain(|_, owner| *owner != session);
        }
        if !self.scans.is_empty() {
            self.scans.retain(|_, owners| {
                owners.remove(&session);
                !owners.is_empty()
            });
        }
    }

    /// Lets go of all that a session held.
    pub fn release_all(&mut self, session: u64) {
        self.release_rows(session);
        self.named.retain(|_, owner| owner.0 != session);
        self.tables.retain(|l| l.2 != session);
    }
}
