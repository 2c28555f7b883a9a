//! What a server session remembers.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::Dialect;
use crate::ast::{Isolation, Parsed};
use crate::lexer::Mode;
use crate::store::{Name, Table, Transaction};
use crate::tracker::Tracker;
use crate::value::Value;
use crate::vars::{Id, Values};
use crate::wire::{ColumnDef, status};

/// One entry of SHOW WARNINGS.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Condition {
    pub level: &'static str,
    pub code: u16,
    pub message: String,
}

/// A prepared statement.
#[derive(Clone, Debug)]
pub(crate) struct Prepared {
    pub parsed: Arc<Parsed>,
    pub schema: Option<Arc<str>>,
    /// Types of the parameters as they were sent last.
    pub types: Option<Vec<(u8, bool)>>,
    pub long_data: BTreeMap<usize, Vec<u8>>,
    /// COM_STMT_SEND_LONG_DATA for a parameter that is not there: told at the next execution.
    pub bad_long_data: bool,
    pub cursor: Option<Cursor>,
    pub had_cursor: bool,
    /// MySQL: whether a parameter was a number at first.
    pub first_types: BTreeMap<usize, bool>,
    /// MySQL: what the user variables were that it names.
    pub variables: Vec<(Arc<str>, u8)>,
}

/// Columns and the rows that were not fetched yet.
pub(crate) type Cursor = (Vec<ColumnDef>, std::collections::VecDeque<Vec<Value>>);

/// A command that waits.
#[derive(Clone, Debug)]
pub(crate) struct Pending {
    pub payload: Vec<u8>,
    /// Where in the text the statement that waits begins, and the packets of those before it.
    pub from: usize,
    pub done: Vec<Vec<u8>>,
    pub since: u64,
}

/// What SET TRANSACTION left for the next transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Next {
    pub isolation: Option<Isolation>,
    pub read_only: Option<bool>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub key: u64,
    pub thread: u32,
    pub node: usize,
    pub dialect: Dialect,
    pub caps: u32,
    pub user: Arc<str>,
    pub host: Arc<str>,
    pub is_admin: bool,
    pub vars: Values,
    /// The number of the collation that results are declared in.
    pub results: u16,
    pub schema: Option<Arc<str>>,
    pub role: Option<Arc<str>>,
    pub user_vars: BTreeMap<Arc<str>, Value>,
    pub temporary: BTreeMap<Name, Table>,
    pub locked: bool,
    pub prepared: BTreeMap<u32, Prepared>,
    pub next_statement: u32,
    pub named: BTreeMap<Arc<str>, Prepared>,
    pub diagnostics: Vec<Condition>,
    /// Conditions of the statement that runs now, and of the one before it.
    pub own_conditions: u16,
    pub before: (u64, u64),
    /// MariaDB: nothing has cleared the conditions of earlier statements yet.
    pub stale: bool,
    pub last_insert_id: u64,
    pub insert_id: u64,
    /// Keys that an INSERT set aside which waits.
    pub kept_ids: Option<(u64, u64)>,
    pub row_count: i64,
    pub found_rows: u64,
    /// After a SELECT that failed servers keep something that is not modelled.
    pub found_rows_known: bool,
    pub timestamp: Option<f64>,
    pub transaction: Option<Transaction>,
    pub next: Next,
    pub tracker: Tracker,
    pub pending: Option<Pending>,
    pub killed: bool,
    pub query_killed: bool,
    /// Its transaction was rolled back to let a change of another node through.
    pub aborted: bool,
    pub modes: Mode,
    /// MariaDB notes where in a procedure an error came from.
    pub place_note: Option<String>,
}

impl Session {
    pub fn var(&self, id: Id) -> &Value {
        &self.vars[id as usize]
    }

    pub fn put(&mut self, id: Id, value: Value) {
        Arc::make_mut(&mut self.vars)[id as usize] = value;
        if id == Id::SqlMode {
            self.read_modes();
        }
    }

    pub fn read_modes(&mut self) {
        let text = self.var(Id::SqlMode).string();
        let has = |mode: &str| text.split(',').any(|m| m == mode);
        self.modes = Mode {
            ansi_quotes: has("ANSI_QUOTES"),
            no_backslash_escapes: has("NO_BACKSLASH_ESCAPES"),
            pipes_as_concat: has("PIPES_AS_CONCAT"),
        };
    }

    pub fn has_mode(&self, mode: &str) -> bool {
        self.var(Id::SqlMode).string().split(',').any(|m| m == mode)
    }

    pub fn autocommit(&self) -> bool {
        self.var(Id::Autocommit).is_true()
    }

    /// Whether a transaction is open that outlives its statement.
    pub fn in_transaction(&self) -> bool {
        self.transaction.as_ref().is_some_and(|t| t.explicit) || (self.transaction.is_some() && !self.autocommit())
    }

    pub fn status(&self) -> u16 {
        let mut flags = 0;
        if self.in_transaction() {
            flags |= status::IN_TRANS;
            if self.transaction.as_ref().is_some_and(|t| t.read_only) {
                flags |= status::IN_TRANS_READONLY;
            }
        }
        if self.autocommit() {
            flags |= status::AUTOCOMMIT;
        }
        if self.modes.no_backslash_escapes {
            flags |= status::NO_BACKSLASH_ESCAPES;
        }
        if self.modes.ansi_quotes && self.dialect.is_maria() {
            flags |= status::ANSI_QUOTES;
        }
        flags
    }

    /// The statement that restores the next or the open transaction, as session tracking tells it.
    pub fn characteristics(&self) -> String {
        let mut text = String::new();
        if let Some(level) = self.next.isolation {
            text += &format!("SET TRANSACTION ISOLATION LEVEL {};", level.text().replace('-', " "));
        }
        let mode = self.next.read_only.map(|ro| if ro { "READ ONLY" } else { "READ WRITE" });
        let space = if text.is_empty() { "" } else { " " };
        match (&self.transaction, mode) {
            (Some(t), mode) if t.explicit => {
                let mut parts = Vec::new();
                if self.tracker.snapshot {
                    parts.push("WITH CONSISTENT SNAPSHOT");
                }
                parts.extend(mode);
                let sep = if parts.is_empty() { "" } else { " " };
                text += &format!("{space}START TRANSACTION{sep}{};", parts.join(", "));
            }
            (_, Some(mode)) => text += &format!("{space}SET TRANSACTION {mode};"),
            _ => {}
        }
        text
    }

    /// Whether strings of results have a character set of the session's.
    pub fn results_forced(&self) -> bool {
        false
    }

    pub fn warn(&mut self, level: &'static str, code: u16, message: impl Into<String>) {
        if self.stale {
            self.stale = false;
            self.diagnostics.clear();
        }
        self.own_conditions = self.own_conditions.saturating_add(1);
        if self.diagnostics.len() < 64 {
            self.diagnostics.push(Condition { level, code, message: message.into() });
        }
    }

    /// How many conditions there are, and how many of them are errors.
    pub fn counts(&self) -> (u64, u64) {
        let errors = self.diagnostics.iter().filter(|c| c.level == "Error").count();
        (self.diagnostics.len() as u64, errors as u64)
    }
}
