//! Running statements: one command of one session on its node.

mod ddl;
mod dml;
mod eval;
mod locks;
mod prepared;
mod routine;
mod select;
mod set;
mod show;
mod transaction;
mod types;

pub(crate) use prepared::u32_at;
pub(crate) use show::interrupted;

use std::sync::Arc;

use crate::ast::{Expr, Parsed, Stmt};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::session::Session;
use crate::store::{Name, Node};
use crate::value::Value;
use crate::vars::{self, Id};
use crate::wire::{ColumnDef, binary_row, caps, put_lenenc, put_string, status, text_row};

/// Why a statement does not go on.
#[derive(Clone, Debug)]
pub(crate) enum Flow {
    Error(Error),
    /// The connection ends, without an answer where there is none yet.
    Close,
    /// Somebody else has to do something first, or time has to pass.
    Wait,
}

pub(crate) fn dml_convert(
    dialect: &crate::Dialect,
    table: &Name,
    column: &crate::ast::Column,
    value: Value,
) -> Result<Value, Error> {
    dml::convert(dialect, table, column, value, 1)
}

impl From<Error> for Flow {
    fn from(error: Error) -> Flow {
        Flow::Error(error)
    }
}

pub(crate) type Made<T> = Result<T, Flow>;

/// What names mean inside a routine or for a row.
#[derive(Clone, Debug, Default)]
pub(crate) struct Frame {
    /// Parameters of a routine.
    pub params: Vec<(Arc<str>, Value)>,
    /// `NEW` and `OLD` of a trigger, with the table's columns.
    pub columns: Vec<Arc<str>>,
    pub new: Option<Vec<Value>>,
    pub old: Option<Vec<Value>>,
}

/// Where a statement stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Top,
    Procedure,
    /// A function or trigger: no results, no commits.
    Sub,
}

pub(crate) struct Run<'a> {
    pub c: &'a mut Cluster,
    pub s: &'a mut Session,
    pub now: u64,
    /// Since when this command waits.
    pub since: Option<u64>,
    pub out: Vec<Vec<u8>>,
    pub binary: bool,
    /// COM_STMT_EXECUTE asked for a cursor.
    pub cursor: bool,
    pub params: Vec<Value>,
    pub frames: Vec<Frame>,
    pub place: Place,
    /// Tables that the statements around this one use.
    pub used: Vec<Name>,
    /// LAST_INSERT_ID(x) was called in this statement.
    pub id_argument: Option<u64>,
    pub depth: usize,
    /// Another answer follows in any case.
    pub more: bool,
    /// The row of a table that expressions speak of.
    pub row: Option<(Arc<crate::store::Def>, crate::store::Row)>,
    /// An error that came while rows were made: the columns are out already.
    pub late: bool,
    /// A value that is not clean is an error: rows are written.
    pub strict_write: bool,
    /// What FOUND_ROWS() would say after this aggregate is not modelled.
    pub unsure_found: bool,
    /// The keys that this statement set aside, kept while it waits.
    pub kept_ids: Option<(u64, u64)>,
    /// Parameters are literals, and as small as these.
    pub small_params: bool,
    /// The statement is a SELECT.
    pub in_select: bool,
    /// STRICT_TRANS_TABLES is off.
    pub lenient: bool,
}

impl<'a> Run<'a> {
    pub fn new(c: &'a mut Cluster, s: &'a mut Session, now: u64, since: Option<u64>) -> Run<'a> {
        Run {
            c,
            s,
            now,
            since,
            out: Vec::new(),
            binary: false,
            cursor: false,
            params: Vec::new(),
            frames: Vec::new(),
            place: Place::Top,
            used: Vec::new(),
            id_argument: None,
            depth: 0,
            more: false,
            row: None,
            late: false,
            strict_write: false,
            unsure_found: false,
            kept_ids: None,
            small_params: false,
            in_select: false,
            lenient: false,
        }
    }

    pub fn node(&mut self) -> &mut Node {
        &mut self.c.nodes[self.s.node]
    }

    pub fn is_maria(&self) -> bool {
        self.c.dialect.is_maria()
    }

    fn status(&self) -> u16 {
        let more = self.more || self.place == Place::Procedure;
        self.s.status() | if more { status::MORE_RESULTS } else { 0 }
    }

    /// An OK, or what an end of rows is with DEPRECATE_EOF.
    fn ok_packet(&mut self, head: u8, affected: u64, insert_id: u64, info: &str, extra: u16) -> Vec<u8> {
        let mut flags = self.status() | extra;
        let mut p = vec![head];
        put_lenenc(&mut p, affected);
        put_lenenc(&mut p, insert_id);
        let at = p.len();
        let warnings = self.s.own_conditions;
        p.extend_from_slice(&[0, 0]);
        p.extend_from_slice(&warnings.to_le_bytes());
        if self.s.caps & caps::SESSION_TRACK != 0 {
            let block = self.track_block();
            if !info.is_empty() || block.is_some() {
                put_string(&mut p, info.as_bytes());
            }
            if let Some(block) = block {
                flags |= status::SESSION_STATE_CHANGED;
                put_string(&mut p, &block);
            }
        } else if !info.is_empty() {
            put_string(&mut p, info.as_bytes());
        }
        p[at..at + 2].copy_from_slice(&flags.to_le_bytes());
        p
    }

    fn track_block(&mut self) -> Option<Vec<u8>> {
        let s = &mut *self.s;
        let characteristics = s.characteristics();
        let schema = s.schema.clone().unwrap_or_else(|| "".into());
        let (all, last, insert) = (s.vars.clone(), s.last_insert_id, s.insert_id);
        let value = |id: Id| match id {
            Id::LastInsertId | Id::Identity => last.to_string().into_bytes(),
            Id::InsertId => insert.to_string().into_bytes(),
            id => vars::shown(id, &all[id as usize]),
        };
        s.tracker.take(!s.dialect.is_maria(), &schema, &characteristics, value)
    }

    /// Answers OK; inside routines it only counts.
    pub fn ok(&mut self, affected: u64, insert_id: u64, info: &str) {
        self.s.row_count = affected as i64;
        if self.place == Place::Top && self.depth == 0 {
            let packet = self.ok_packet(0, affected, insert_id, info, 0);
            self.out.push(packet);
        }
    }

    /// Answers with columns and rows.
    pub fn rows(&mut self, columns: &[ColumnDef], rows: Vec<Vec<Value>>) -> Made<()> {
        if self.place == Place::Sub {
            return Err(Error::new(1415, "0A000", "Not allowed to return a result set from a function").into());
        }
        self.columns(columns);
        self.s.tracker.add(crate::tracker::place::RESULT);
        if self.cursor {
            let end = self.end_of_rows(status::CURSOR_EXISTS);
            self.out.push(end);
            self.c.open_cursor = Some((columns.to_vec(), rows.into()));
            self.s.row_count = -1;
            return Ok(());
        }
        if self.s.caps & caps::DEPRECATE_EOF == 0 {
            let end = self.plain_end(0);
            self.out.push(end);
        }
        for row in &rows {
            self.out.push(if self.binary { binary_row(row, columns) } else { text_row(row, columns) });
        }
        // The transaction of the statement ends before its last packet is made.
        self.end_statement();
        let end = self.end_of_rows(0);
        self.out.push(end);
        self.s.row_count = -1;
        Ok(())
    }

    /// The heads of a result, for an answer that ends in an error too.
    pub fn columns(&mut self, columns: &[ColumnDef]) {
        let mut count = Vec::new();
        put_lenenc(&mut count, columns.len() as u64);
        self.out.push(count);
        self.out.extend(columns.iter().map(ColumnDef::packet));
    }

    pub fn end_of_rows(&mut self, extra: u16) -> Vec<u8> {
        if self.s.caps & caps::DEPRECATE_EOF != 0 {
            self.ok_packet(0xfe, 0, 0, "", extra)
        } else {
            self.plain_end(extra)
        }
    }

    fn plain_end(&mut self, extra: u16) -> Vec<u8> {
        let mut p = vec![0xfe];
        p.extend_from_slice(&self.s.own_conditions.to_le_bytes());
        p.extend_from_slice(&(self.status() | extra).to_le_bytes());
        p
    }

    /// One statement of the client: its diagnostics, itself, and its transaction's end.
    pub fn statement(&mut self, parsed: &Parsed) -> Made<()> {
        self.begin_diagnostics(&parsed.stmt);
        self.s.tracker.marked = false;
        self.id_argument = None;
        if self.since.is_none() {
            self.s.kept_ids = None;
        }
        self.late = false;
        self.in_select = matches!(parsed.stmt, Stmt::Select(_));
        let before = parsed.runs_code.then(|| self.s.clone());
        let committed = self.c.commits;
        let made = self.guarded(&parsed.stmt);
        match made {
            Err(Flow::Wait) => {
                if let Some(before) = before {
                    if self.c.commits != committed {
                        self.c.imprecise = true;
                        return Err(crate::error::unsupported("a wait behind an effect of the same statement").into());
                    }
                    *self.s = before;
                }
                self.s.kept_ids = self.kept_ids.take();
                self.start_over();
                Err(Flow::Wait)
            }
            other => other,
        }
    }

    fn guarded(&mut self, stmt: &Stmt) -> Made<()> {
        if std::mem::take(&mut self.s.aborted) {
            self.end_transaction(false);
            return Err(deadlock().into());
        }
        if !self.c.nodes[self.s.node].primary
            && !matches!(stmt, Stmt::Set(_) | Stmt::ShowVariables { .. } | Stmt::ShowDiagnostics { .. })
        {
            let message = "WSREP has not yet prepared node for application use";
            return Err(Error::new(1047, "08S01", message).into());
        }
        self.deprecated(stmt);
        self.exec(stmt)
    }

    /// What is noted in the diagnostics area of an error, and what else an error means.
    pub fn failed(&mut self, error: &Error) {
        self.s.warn("Error", error.code, error.message.clone());
        if let Some(note) = self.s.place_note.take() {
            self.s.warn("Note", 4094, note);
        }
        self.s.row_count = -1;
        self.s.kept_ids = None;
        self.s.found_rows_known &= !self.in_select;
        self.start_over();
        self.end_statement();
        self.s.tracker.marked = false;
    }

    /// Whatever was running is not any more.
    fn start_over(&mut self) {
        self.frames.clear();
        self.used.clear();
        self.place = Place::Top;
        self.depth = 0;
        self.row = None;
    }

    pub fn begin_diagnostics(&mut self, stmt: &Stmt) {
        self.s.own_conditions = 0;
        if matches!(stmt, Stmt::ShowDiagnostics { .. }) {
            self.s.stale = false;
            return;
        }
        self.s.before = self.s.counts();
        if !self.is_maria() || uses_tables(stmt) {
            self.s.diagnostics.clear();
            self.s.stale = false;
        } else {
            self.s.stale = true;
        }
    }

    /// MySQL warns of what will go.
    fn deprecated(&mut self, stmt: &Stmt) {
        if self.is_maria() {
            if let Stmt::Select(select) = stmt
                && select.into_last
                && select.from.is_some()
            {
                let text = "'<select expression> INTO <destination>;' is deprecated and will be removed in a future release. Please use \
                            'SELECT <select list> INTO <destination> FROM...' instead";
                self.s.warn("Warning", 1287, text);
            }
            return;
        }
        let mut warnings = Vec::new();
        if let Stmt::Select(select) = stmt
            && select.calc_found_rows
        {
            warnings.push("SQL_CALC_FOUND_ROWS is deprecated and will be removed in a future release. Consider using two separate queries instead.");
        }
        each_expr(stmt, &mut |expr| {
            match expr {
            Expr::Func(crate::ast::Func::FoundRows, _) => warnings.push(
                "FOUND_ROWS() is deprecated and will be removed in a future release. Consider using COUNT(*) instead.",
            ),
            Expr::Assign(..) => warnings.push(
                "Setting user variables within expressions is deprecated and will be removed in a future release. Consider alternatives: \
                 'SET variable=expression, ...', or 'SELECT expression(s) INTO variables(s)'.",
            ),
            _ => {}
        }
        });
        for text in warnings {
            self.s.warn("Warning", 1287, text);
        }
    }

    pub fn exec(&mut self, stmt: &Stmt) -> Made<()> {
        match stmt {
            Stmt::Empty => {
                self.ok(0, 0, "");
                Ok(())
            }
            Stmt::Select(select) => self.select(select),
            Stmt::Do(exprs) => {
                for expr in exprs {
                    self.eval(expr)?;
                }
                self.done()
            }
            Stmt::Insert(insert) => self.insert(insert),
            Stmt::Update { table, set, filter } => self.update(table, set, filter.as_ref()),
            Stmt::Delete { table, filter } => self.delete(table, filter.as_ref()),
            Stmt::Set(items) => self.set(items),
            Stmt::SetTransaction { scope, isolation, read_only } => {
                self.set_transaction(*scope, *isolation, *read_only)
            }
            Stmt::SetRole(role) => self.set_role(role.as_ref()),
            Stmt::Begin { read_only, snapshot } => self.begin(*read_only, *snapshot),
            Stmt::Commit { chain, release } => self.complete(true, *chain, *release),
            Stmt::Rollback { chain, release } => self.complete(false, *chain, *release),
            Stmt::Savepoint(name) => self.savepoint(name),
            Stmt::RollbackTo(name) => self.rollback_to(name, false),
            Stmt::ReleaseSavepoint(name) => self.rollback_to(name, true),
            Stmt::CreateTable { temporary, if_not_exists, table, columns } => {
                self.create_table(*temporary, *if_not_exists, table, columns)
            }
            Stmt::DropTable { temporary, if_exists, tables } => self.drop_tables(*temporary, *if_exists, tables),
            Stmt::CreateRoutine { name, routine } => self.create_routine(name, routine),
            Stmt::DropRoutine { what, if_exists, name } => self.drop_routine(what, *if_exists, name),
            Stmt::Call(name, args) => self.call(name, args),
            Stmt::Signal(state, message) => Err(signal(state, message.as_deref()).into()),
            Stmt::Return(_) => Err(crate::error::unsupported("RETURN here").into()),
            Stmt::Prepare(name, text) => self.prepare_named(name, text),
            Stmt::Execute(name, using) => self.execute_named(name, using),
            Stmt::ExecuteImmediate(text, using) => self.execute_immediate(text, using),
            Stmt::Deallocate(name) => self.deallocate(name),
            Stmt::Use(schema) => {
                self.use_schema(schema)?;
                self.done()
            }
            Stmt::ShowDiagnostics { errors, count } => self.show_diagnostics(*errors, *count),
            Stmt::ShowVariables { scope, like } => self.show_variables(*scope, like.as_deref()),
            Stmt::Kill { query, id } => self.kill(*query, id),
            Stmt::LockTables(tables) => self.lock_tables(tables),
            Stmt::UnlockTables => self.unlock_tables(),
        }?;
        self.end_statement();
        Ok(())
    }

    /// OK with nothing to say.
    pub fn done(&mut self) -> Made<()> {
        // What the answer says of the transaction is how it stands at the statement's end.
        self.end_statement();
        self.ok(0, 0, "");
        Ok(())
    }
}

fn signal(state: &str, message: Option<&str>) -> Error {
    Error::new(1644, state, message.unwrap_or("Unhandled user-defined exception condition"))
}

pub(crate) fn deadlock() -> Error {
    Error::new(1213, "40001", "Deadlock found when trying to get lock; try restarting transaction")
}

/// Whether MariaDB clears the diagnostics area before this statement.
fn uses_tables(stmt: &Stmt) -> bool {
    match stmt {
        Stmt::Select(select) => select.from.is_some(),
        Stmt::Insert(_)
        | Stmt::Update { .. }
        | Stmt::Delete { .. }
        | Stmt::CreateTable { .. }
        | Stmt::DropTable { .. }
        | Stmt::LockTables(_)
        | Stmt::ShowVariables { .. } => true,
        Stmt::CreateRoutine { routine, .. } => {
            matches!(**routine, crate::ast::Routine::Trigger { .. } | crate::ast::Routine::View(_))
        }
        Stmt::DropRoutine { what, .. } => *what == "VIEW",
        _ => false,
    }
}

/// Every expression in a statement, those within others included.
fn each_expr(stmt: &Stmt, seen: &mut dyn FnMut(&Expr)) {
    fn walk(expr: &Expr, seen: &mut dyn FnMut(&Expr)) {
        seen(expr);
        match expr {
            Expr::Assign(_, e) | Expr::Neg(e) | Expr::IsNull(e, _) => walk(e, seen),
            Expr::Bin(_, a, b) => {
                walk(a, seen);
                walk(b, seen);
            }
            Expr::Func(_, args) | Expr::Call(_, args) => args.iter().for_each(|e| walk(e, seen)),
            _ => {}
        }
    }
    match stmt {
        Stmt::Select(select) => {
            for item in &select.items {
                if let crate::ast::Item::Expr { expr, .. } = item {
                    walk(expr, seen);
                }
            }
            select.filter.iter().for_each(|e| walk(e, seen));
        }
        Stmt::Do(exprs) => exprs.iter().for_each(|e| walk(e, seen)),
        Stmt::Insert(insert) => insert.rows.iter().flatten().flatten().for_each(|e| walk(e, seen)),
        Stmt::Update { set, filter, .. } => {
            set.iter().for_each(|(_, e)| walk(e, seen));
            filter.iter().for_each(|e| walk(e, seen));
        }
        Stmt::Delete { filter, .. } => filter.iter().for_each(|e| walk(e, seen)),
        Stmt::Set(items) => items.iter().for_each(|item| match item {
            crate::ast::SetItem::User(_, e) | crate::ast::SetItem::New(_, e) => walk(e, seen),
            crate::ast::SetItem::Var { value: crate::ast::SetValue::Expr(e), .. } => walk(e, seen),
            _ => {}
        }),
        _ => {}
    }
}
