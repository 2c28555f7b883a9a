//! What the parser makes of a text.

use std::sync::Arc;

use crate::value::Value;

/// GLOBAL, SESSION, or nothing said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Nothing was said; `@@x`.
    Bare,
    /// SESSION or LOCAL.
    Session,
    /// GLOBAL.
    Global,
}

/// Functions that the server brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Func {
    Concat,
    Database,
    User,
    CurrentUser,
    CurrentRole,
    ConnectionId,
    LastInsertId,
    RowCount,
    FoundRows,
    GetLock,
    ReleaseLock,
    ReleaseAllLocks,
    IsUsedLock,
    IsFreeLock,
    Count,
    Sum,
}

/// An operator between two expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Op {
    Add,
    Sub,
    Mul,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    And,
    Or,
}

/// An expression.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Expr {
    Lit(Value),
    Param(usize),
    UserVar(Arc<str>),
    Assign(Arc<str>, Box<Expr>),
    SysVar(Scope, Arc<str>),
    /// A column, or a parameter of a routine, or `NEW.a` / `OLD.a`.
    Name(Option<Arc<str>>, Arc<str>),
    Neg(Box<Expr>),
    Bin(Op, Box<Expr>, Box<Expr>),
    IsNull(Box<Expr>, bool),
    Func(Func, Vec<Expr>),
    /// A stored function.
    Call(Table, Vec<Expr>),
}

/// A name of a table or routine, with its schema if it was said.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub struct Table {
    pub schema: Option<Arc<str>>,
    pub name: Arc<str>,
}

/// One column of a SELECT.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Item {
    Star,
    Expr { expr: Expr, name: Arc<str> },
}

/// SELECT.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Select {
    pub calc_found_rows: bool,
    pub items: Vec<Item>,
    pub from: Option<Table>,
    pub filter: Option<Expr>,
    pub order: Option<(Arc<str>, bool)>,
    pub limit: Option<Expr>,
    pub for_update: bool,
    pub into: Vec<Arc<str>>,
    /// INTO stands behind FROM.
    pub into_last: bool,
}

/// INSERT or REPLACE.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Insert {
    pub replace: bool,
    pub ignore: bool,
    pub table: Table,
    pub columns: Option<Vec<Arc<str>>>,
    /// `None` stands for DEFAULT.
    pub rows: Vec<Vec<Option<Expr>>>,
    pub on_duplicate: Vec<(Arc<str>, Expr)>,
    pub returning: Vec<Item>,
}

/// The type of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ColumnType {
    Int { unsigned: bool },
    BigInt { unsigned: bool },
    Decimal(u8, u8),
    Double,
    Varchar(u32),
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub struct Column {
    pub name: Arc<str>,
    pub ty: ColumnType,
    pub not_null: bool,
    pub primary: bool,
    pub auto_increment: bool,
    pub default: Option<Value>,
}

/// The value of an assignment in SET.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum SetValue {
    Default,
    /// ON, SYSTEM, latin1, …
    Word(Arc<str>),
    Expr(Expr),
}

/// One assignment of SET.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum SetItem {
    /// `at2` tells `SET @@x` from `SET x`: MariaDB does not report the former.
    Var {
        scope: Scope,
        at2: bool,
        name: Arc<str>,
        value: SetValue,
    },
    User(Arc<str>, Expr),
    /// A parameter of a routine, or `NEW.a`.
    New(Arc<str>, Expr),
    Names(Option<Arc<str>>, Option<Arc<str>>),
    CharacterSet(Option<Arc<str>>),
}

/// When a trigger runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum When {
    BeforeInsert,
    AfterInsert,
    BeforeUpdate,
    AfterUpdate,
    BeforeDelete,
    AfterDelete,
}

/// What a stored routine is.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Routine {
    Procedure { params: Vec<(Arc<str>, ColumnType)>, body: Vec<Stmt> },
    Function { params: Vec<(Arc<str>, ColumnType)>, returns: ColumnType, body: Vec<Stmt> },
    Trigger { when: When, table: Table, body: Vec<Stmt> },
    View(Select),
}

/// Isolation levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Isolation {
    ReadUncommitted,
    ReadCommitted,
    RepeatableRead,
    Serializable,
}

impl Isolation {
    /// As a variable spells it.
    pub fn text(self) -> &'static str {
        match self {
            Isolation::ReadUncommitted => "READ-UNCOMMITTED",
            Isolation::ReadCommitted => "READ-COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE-READ",
            Isolation::Serializable => "SERIALIZABLE",
        }
    }

    /// By the spelling of a variable.
    pub fn parse(text: &str) -> Option<Isolation> {
        use Isolation::*;
        [ReadUncommitted, ReadCommitted, RepeatableRead, Serializable]
            .into_iter()
            .find(|i| i.text().eq_ignore_ascii_case(text))
    }
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Stmt {
    Empty,
    Select(Box<Select>),
    Do(Vec<Expr>),
    Insert(Box<Insert>),
    Update { table: Table, set: Vec<(Arc<str>, Expr)>, filter: Option<Expr> },
    Delete { table: Table, filter: Option<Expr> },
    Set(Vec<SetItem>),
    SetTransaction { scope: Scope, isolation: Option<Isolation>, read_only: Option<bool> },
    SetRole(Option<Arc<str>>),
    Begin { read_only: Option<bool>, snapshot: bool },
    Commit { chain: Option<bool>, release: Option<bool> },
    Rollback { chain: Option<bool>, release: Option<bool> },
    Savepoint(Arc<str>),
    RollbackTo(Arc<str>),
    ReleaseSavepoint(Arc<str>),
    CreateTable { temporary: bool, if_not_exists: bool, table: Table, columns: Vec<Column> },
    DropTable { temporary: bool, if_exists: bool, tables: Vec<Table> },
    CreateRoutine { name: Table, routine: Arc<Routine> },
    DropRoutine { what: &'static str, if_exists: bool, name: Table },
    Call(Table, Vec<Expr>),
    Signal(Arc<str>, Option<Arc<str>>),
    Return(Expr),
    Prepare(Arc<str>, Expr),
    Execute(Arc<str>, Vec<Expr>),
    ExecuteImmediate(Expr, Vec<Expr>),
    Deallocate(Arc<str>),
    Use(Arc<str>),
    ShowDiagnostics { errors: bool, count: bool },
    ShowVariables { scope: Scope, like: Option<Arc<str>> },
    Kill { query: bool, id: Expr },
    LockTables(Vec<(Table, bool)>),
    UnlockTables,
}

/// A statement with what is known of it from its text.
#[derive(Debug, PartialEq)]
pub struct Parsed {
    /// The statement.
    pub stmt: Stmt,
    /// Number of `?`.
    pub params: usize,
    /// It may run code or take a named lock, so that a wait may come after an effect.
    pub runs_code: bool,
    /// Where the next statement of the text begins, if there is one.
    pub next: Option<usize>,
}
