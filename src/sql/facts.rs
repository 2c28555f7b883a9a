//! The facts about a statement: plain data, produced by [`crate::sql::analyse`] and read by the session, the router and failover.

use smallvec::SmallVec;

pub use super::context::{Flavor, LexContext, MultiByte, Span};
pub use super::names::{Kill, KillTarget};
use super::names::{Named, UserVariable};

/// How many statements the text holds. Comments, and `;` with nothing behind it, do not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatementCount {
    /// Nothing but blanks, comments and `;`.
    #[default]
    Empty,
    /// Exactly one.
    One,
    /// So many, at least two.
    Several(u32),
}

/// The first keyword of a statement, with what is needed of the second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the keywords.
pub enum Verb {
    Alter,
    Analyze,
    /// MariaDB: `ANALYZE [FORMAT=…] SELECT|UPDATE|…`, which executes the statement.
    AnalyzeStatement,
    Backup,
    /// `BEGIN`, `BEGIN WORK`, `START TRANSACTION`.
    Begin,
    /// MariaDB: `BEGIN NOT ATOMIC …`, a block of code.
    BeginNotAtomic,
    Binlog,
    CacheIndex,
    Call,
    Change,
    Check,
    Checksum,
    Clone,
    Commit,
    Create,
    Deallocate,
    Delete,
    Do,
    Drop,
    Execute,
    ExecuteImmediate,
    /// `EXPLAIN`, `DESCRIBE`, `DESC`.
    Explain,
    Flush,
    /// `GET [CURRENT|STACKED] DIAGNOSTICS`.
    GetDiagnostics,
    Grant,
    Handler,
    Help,
    Import,
    Insert,
    Install,
    Kill,
    Load,
    Lock,
    Optimize,
    Prepare,
    Purge,
    Release,
    Rename,
    Repair,
    Replace,
    Reset,
    Resignal,
    Restart,
    Revoke,
    Rollback,
    Savepoint,
    Select,
    Set,
    /// MariaDB: `SET STATEMENT … FOR statement`.
    SetStatement,
    Show,
    Shutdown,
    Signal,
    /// `START|STOP REPLICA|SLAVE|GROUP_REPLICATION`.
    Replication,
    /// `TABLE t`.
    Table,
    Truncate,
    Uninstall,
    Unlock,
    Update,
    Use,
    Values,
    /// `WITH …`, where the statement behind it could not be found; else the verb of that statement is given.
    With,
    Xa,
    /// Nothing that the lexer knows.
    #[default]
    Unknown,
}

/// What kind of statement it is. A metric label.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum StatementClass {
    /// Reads rows or facts, as far as its verb says. Whether it is free of side effects is another question.
    Read,
    /// Changes rows.
    Write,
    /// Changes definitions or accounts.
    Ddl,
    /// Controls a transaction.
    Transaction,
    /// Changes session (or global) settings.
    Set,
    /// Acts on the server: FLUSH, KILL, …
    Admin,
    /// Runs code that the lexer cannot see into.
    Call,
    /// Anything else.
    #[default]
    Other,
}

impl StatementClass {
    /// The metric label of this class.
    pub const fn label(self) -> &'static str {
        match self {
            StatementClass::Read => "read",
            StatementClass::Write => "write",
            StatementClass::Ddl => "ddl",
            StatementClass::Transaction => "transaction",
            StatementClass::Set => "set",
            StatementClass::Admin => "admin",
            StatementClass::Call => "call",
            StatementClass::Other => "other",
        }
    }
}

/// The verb behind `XA`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // The names are the keywords.
pub enum XaVerb {
    /// `XA START` or `XA BEGIN`.
    Start,
    End,
    Prepare,
    Commit,
    Rollback,
    Recover,
}

/// What the statement does to the transaction, by its text. `completion_type` may still add CHAIN or RELEASE.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TransactionControl {
    /// Nothing (it may still commit implicitly).
    #[default]
    None,
    /// `BEGIN`, `START TRANSACTION`.
    Begin {
        /// `READ ONLY` (true) or `READ WRITE` (false), where said.
        read_only: Option<bool>,
        /// `WITH CONSISTENT SNAPSHOT`.
        consistent_snapshot: bool,
    },
    /// `COMMIT`.
    Commit {
        /// `AND CHAIN` (true) or `AND NO CHAIN` (false), where said.
        chain: Option<bool>,
        /// `RELEASE` (true) or `NO RELEASE` (false), where said.
        release: Option<bool>,
    },
    /// `ROLLBACK` of the whole transaction.
    Rollback {
        /// As in `Commit`.
        chain: Option<bool>,
        /// As in `Commit`.
        release: Option<bool>,
    },
    /// `ROLLBACK TO SAVEPOINT`.
    RollbackTo,
    /// `SAVEPOINT`.
    Savepoint,
    /// `RELEASE SAVEPOINT`.
    ReleaseSavepoint,
    /// `XA …`.
    Xa(XaVerb),
    /// `SET autocommit = …` with a literal, for the session.
    SetAutocommit(bool),
}

bitflags::bitflags! {
    /// What the statement may do to, or read from, the state of its server session.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct Effects: u64 {
        /// Writes a user variable: `SET @a`, `:=`, `INTO @a`, `GET DIAGNOSTICS @a = …`.
        const USER_VARIABLE_WRITE = 1 << 0;
        /// Mentions a user variable in any other way.
        const USER_VARIABLE_READ = 1 << 1;
        /// Sets a session system variable.
        const SYSTEM_VARIABLE_SET = 1 << 2;
        /// `SET GLOBAL`, `PERSIST`, `PERSIST_ONLY`.
        const GLOBAL_SET = 1 << 3;
        /// `CREATE TEMPORARY TABLE` (or sequence).
        const TEMPORARY_TABLE = 1 << 4;
        /// A `DROP` that may drop a temporary table.
        const TEMPORARY_TABLE_DROP = 1 << 5;
        /// Calls `GET_LOCK` or a function of the locking service.
        const GET_LOCK = 1 << 6;
        /// Calls `RELEASE_LOCK` or `RELEASE_ALL_LOCKS`.
        const RELEASE_LOCK = 1 << 7;
        /// `LOCK TABLES`.
        const LOCK_TABLES = 1 << 8;
        /// `UNLOCK TABLES` (also ends `FLUSH … WITH READ LOCK`), `BACKUP UNLOCK`, `BACKUP STAGE END`.
        const UNLOCK_TABLES = 1 << 9;
        /// `FLUSH … WITH READ LOCK`, `FOR EXPORT`, `BACKUP STAGE|LOCK`, `LOCK INSTANCE`.
        const FLUSH_READ_LOCK = 1 << 10;
        /// `HANDLER t OPEN`.
        const HANDLER_OPEN = 1 << 11;
        /// `HANDLER t CLOSE`.
        const HANDLER_CLOSE = 1 << 12;
        /// `HANDLER t READ`.
        const HANDLER_USE = 1 << 13;
        /// `PREPARE`.
        const TEXT_PREPARE = 1 << 14;
        /// `EXECUTE`: what runs is not in this text.
        const TEXT_EXECUTE = 1 << 15;
        /// `DEALLOCATE PREPARE`, `DROP PREPARE`.
        const TEXT_DEALLOCATE = 1 << 16;
        /// `SET ROLE`.
        const ROLE = 1 << 17;
        /// `SET TRANSACTION` without a scope: the next transaction only.
        const NEXT_TRANSACTION = 1 << 18;
        /// `LOAD … LOCAL`.
        const LOAD_LOCAL = 1 << 19;
        /// `LOAD DATA`, `LOAD XML` of a file of the server.
        const LOAD_DATA = 1 << 20;
        /// Runs, or may run, code that the lexer cannot see: CALL, a function it does not know, EXECUTE IMMEDIATE, a block.
        const ROUTINE = 1 << 21;
        /// `SQL_CALC_FOUND_ROWS`.
        const CALC_FOUND_ROWS = 1 << 22;
        /// Sets a `session_track_*` variable.
        const SESSION_TRACKING = 1 << 23;
        /// Sets `timestamp`.
        const TIMESTAMP_VARIABLE = 1 << 24;
        /// Sets `rand_seed1` or `rand_seed2`, or calls `RAND(n)`-independent state: `RAND()` advances it.
        const RAND_SEED = 1 << 25;
        /// Sets `insert_id` (used up by the next insert).
        const INSERT_ID = 1 << 26;
        /// Sets `last_insert_id`/`identity` or calls `LAST_INSERT_ID(expr)`.
        const LAST_INSERT_ID_SET = 1 << 27;
        /// Sets a variable of replication: `sql_log_bin`, `gtid_next`, `server_id`, `pseudo_*`, …
        const REPLICATION_VARIABLE = 1 << 28;
        /// Sets `profiling`, or `SHOW PROFILE[S]`.
        const PROFILING = 1 << 29;
        /// `SELECT … INTO OUTFILE|DUMPFILE`.
        const SELECT_INTO = 1 << 30;
        /// Reads the diagnostics of the statement before: SHOW WARNINGS|ERRORS, GET DIAGNOSTICS, `@@warning_count`, `@@error_count`.
        const SHOW_DIAGNOSTICS = 1 << 31;
        /// `CREATE TABLE … SELECT`.
        const CREATE_TABLE_SELECT = 1 << 32;
        /// `INSTALL`/`UNINSTALL` of a plugin or component.
        const INSTALL = 1 << 33;
        /// `LASTVAL`, `PREVIOUS VALUE FOR`: answered from the session (MariaDB).
        const SEQUENCE_READ = 1 << 34;
        /// `NEXTVAL`, `NEXT VALUE FOR`, `SETVAL`: changes a sequence and what `LASTVAL` answers.
        const SEQUENCE_WRITE = 1 << 35;
        /// `XA …`.
        const XA = 1 << 36;
        /// `USE`.
        const SCHEMA = 1 << 37;
        /// `SET NAMES`, `SET CHARACTER SET`, or one of their variables.
        const CHARACTER_SET = 1 << 38;
        /// `SET sql_mode` (which changes how the lexer must read).
        const SQL_MODE = 1 << 39;
        /// `SET PASSWORD`, `ALTER USER`, `SET DEFAULT ROLE`, GRANT, …: what is known of accounts may be stale.
        const ACCOUNT = 1 << 40;
        /// The statement reads what a volatile call answers, in a place where it cannot be rewritten.
        const VOLATILE_HIDDEN = 1 << 41;
        /// Only the start of the text was there to be read.
        const CUT_SHORT = 1 << 42;
        /// Mentions more user variables than are noted.
        const USER_VARIABLES_UNNAMED = 1 << 43;
        /// Names a table that lists user variables.
        const USER_VARIABLES_LISTED = 1 << 44;
        /// Names a list of session variables: SHOW VARIABLES, or a table of them. The last insert id is one of them.
        const VARIABLES_LISTED = 1 << 50;
        /// Touches state that the lexer cannot name.
        const UNKNOWN = 1 << 63;
    }
}

/// What a volatile call asks for: its answer depends on the server session, not on data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum VolatileKind {
    /// `LAST_INSERT_ID()`.
    LastInsertId,
    /// `ROW_COUNT()`.
    RowCount,
    /// `FOUND_ROWS()`.
    FoundRows,
    /// `CONNECTION_ID()`.
    ConnectionId,
    /// `@@pseudo_thread_id`.
    PseudoThreadIdVar,
    /// `@@identity`.
    IdentityVar,
    /// `@@last_insert_id`.
    LastInsertIdVar,
    /// `@@warning_count`.
    WarningCountVar,
    /// `@@error_count`.
    ErrorCountVar,
    /// `@@insert_id`.
    InsertIdVar,
    /// `@@last_gtid` (MariaDB).
    LastGtidVar,
}

/// A volatile call and where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VolatileCall {
    /// What it asks for.
    pub kind: VolatileKind,
    /// The whole call with its parentheses, or the whole `@@…` word.
    pub range: Span,
    /// It is exactly one unaliased item of the outermost SELECT list: a replacement must be given the original text as alias.
    pub plain_select_item: bool,
    /// The unaliased item of the outermost SELECT list that holds the call (equal to `range` for a plain one). What replaces
    /// the call must append ` AS <text of this range>` behind the item, so that the column keeps its name. `None`: no name is at stake.
    pub unaliased_item: Option<Span>,
}

/// The scope of one SET assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SetScope {
    /// `SET x`, `SET SESSION x`, `SET LOCAL x`, `@@x`, `@@session.x`, `@@local.x`.
    Session,
    /// `GLOBAL`.
    Global,
    /// `PERSIST` (MySQL): global, and kept.
    Persist,
    /// `PERSIST_ONLY` (MySQL): kept, not in force.
    PersistOnly,
    /// A user variable.
    User,
}

/// A literal value of an assignment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Literal {
    /// An integer that fits.
    Integer(i128),
    /// Any other number: its text.
    Number(Span),
    /// A plain string: what stands between the quotes, still escaped.
    Text(Span),
    /// A bare word such as `utf8mb4`, `ON`, `TRADITIONAL`.
    Word(Span),
    /// `TRUE` or `FALSE`.
    Boolean(bool),
    /// `NULL`.
    Null,
    /// `DEFAULT`.
    Default,
}

impl Literal {
    /// What the server takes it for where a boolean is wanted (`ON`, `1`, `'on'`, `TRUE`, …); `None` where it is none.
    pub fn as_bool(self, sql: &[u8]) -> Option<bool> {
        match self {
            Literal::Integer(0) => Some(false),
            Literal::Integer(1) => Some(true),
            Literal::Boolean(value) => Some(value),
            Literal::Text(span) | Literal::Word(span) => {
                let is = |words: [&[u8]; 2]| words.iter().any(|word| span.of(sql).eq_ignore_ascii_case(word));
                if is([b"on", b"true"]) { Some(true) } else { is([b"off", b"false"]).then_some(false) }
            }
            _ => None,
        }
    }
}

/// One assignment of a SET statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetItem {
    /// Its scope.
    pub scope: SetScope,
    /// The variable's name without `@`, scope and quotes (may hold doubled quotes).
    pub name: Span,
    /// The value's text.
    pub value: Span,
    /// The value, where it is a single literal.
    pub literal: Option<Literal>,
}

/// `SET NAMES` or `SET CHARACTER SET`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetNames {
    /// True for `SET CHARACTER SET`, which takes collation_connection from the schema.
    pub character_set_form: bool,
    /// The character set without quotes; `None` for DEFAULT.
    pub charset: Option<Span>,
    /// The collation without quotes, where given.
    pub collate: Option<Span>,
}

/// `SET [SESSION|GLOBAL] TRANSACTION …`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetTransaction {
    /// `None`: the next transaction only.
    pub scope: Option<SetScope>,
    /// The characteristics, from behind the word TRANSACTION.
    pub text: Span,
}

/// Everything the lexer knows about a text sent as one query (or prepared as one).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// How many statements.
    pub statements: StatementCount,
    /// The verb of the first statement.
    pub verb: Verb,
    /// What kind it is; of several, the first one's if all agree, else `Other`.
    pub class: StatementClass,
    /// False: the lexer cannot vouch for these facts. Never split, never retry, pin.
    pub certain: bool,
    /// Transaction control; of several statements, the last one's that has any.
    pub txn: TransactionControl,
    /// It commits an open transaction by itself, whatever `txn` says.
    pub implicit_commit: bool,
    /// What it may do to the session.
    pub effects: Effects,
    /// Certain, one statement, and running it twice does no harm and no good: it only reads.
    pub side_effect_free_read: bool,
    /// It takes row locks: FOR UPDATE, FOR SHARE, LOCK IN SHARE MODE.
    pub locking_read: bool,
    /// FROM stands in it: it may read rows.
    pub reads_tables: bool,
    /// FROM stands in it outside parentheses, and behind it the name of a table (other than DUAL) or a derived one.
    pub from_table: bool,
    /// Volatile calls that can be rewritten, in the order of the text. Filled for a single statement only; elsewhere [`Effects::VOLATILE_HIDDEN`] is set.
    pub volatile: SmallVec<[VolatileCall; 2]>,
    /// The assignments of SET (not those of SET STATEMENT), of all statements, in the order of the text.
    pub set: SmallVec<[SetItem; 2]>,
    /// `SET NAMES`, `SET CHARACTER SET`; the last one.
    pub set_names: Option<SetNames>,
    /// `SET TRANSACTION`; the last one.
    pub set_transaction: Option<SetTransaction>,
    /// What follows `SET ROLE`; the last one.
    pub set_role: Option<Span>,
    /// `KILL`; the last one.
    pub kill: Option<Kill>,
    /// A KILL stands among other statements, or in a block of code: whether it runs, and when, is not to be seen.
    pub kill_inside: bool,
    /// User variables that are mentioned, as often as they are (up to a bound: [`Effects::USER_VARIABLES_UNNAMED`]).
    pub user_variables: SmallVec<[UserVariable; 2]>,
    /// The schema of `USE` without its quotes (may hold doubled quotes); the last one.
    pub use_schema: Option<Span>,
    /// The name in PREPARE, EXECUTE, DEALLOCATE PREPARE, without its quotes; the last one.
    pub prepared_name: Option<Span>,
    /// What it makes or ends by name.
    pub named: Option<Box<Named>>,
}

impl Facts {
    /// The facts of a text that the lexer knows nothing about.
    pub fn unknown() -> Facts {
        Facts {
            statements: StatementCount::One,
            effects: Effects::UNKNOWN.union(Effects::ROUTINE),
            implicit_commit: true,
            ..Facts::default()
        }
    }
    /// The facts of a request without SQL text: certain, and nothing in it. (The default is not certain.)
    pub fn nothing() -> Facts {
        Facts { certain: true, ..Facts::default() }
    }

    /// Takes back that the lexer vouches: for a text of which it saw only the start, or whose context is not known.
    pub fn make_uncertain(&mut self) {
        self.certain = false;
        self.side_effect_free_read = false;
        self.effects |= Effects::UNKNOWN;
    }
}
