//! Names in a statement: user variables, what it makes or ends on its server session, whom a KILL is for.

use super::context::Span;

/// A user variable in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserVariable {
    /// Its name without `@` and quotes (may hold doubled quotes).
    pub name: Span,
    /// The statement writes it, or may do so.
    pub written: bool,
}

/// A name, as the statement spells it, without quotes.
pub type Name = Box<[u8]>;

/// The name of a table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Its schema, where the statement says it; else the session's own.
    pub schema: Option<Name>,
    /// The table.
    pub name: Name,
}

/// What a text names of the state of its server session. Of a text of several statements: of all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The table of CREATE TEMPORARY TABLE. `None` beside the effect: it cannot be named.
    pub created: Option<TableName>,
    /// Tables of DROP [TEMPORARY] TABLE that can be named.
    pub dropped: Vec<TableName>,
    /// Tables of RENAME TABLE and ALTER TABLE … RENAME, by their old names.
    pub renamed: Vec<TableName>,
    /// A table of RENAME TABLE or ALTER TABLE … RENAME that cannot be named.
    pub renames_unnamed: bool,
    /// The alias of HANDLER … OPEN or HANDLER … CLOSE. `None` beside the effect: it cannot be named.
    pub handler: Option<Name>,
    /// Literal names of GET_LOCK.
    pub locks: Vec<Name>,
    /// A GET_LOCK whose name is no plain literal.
    pub unnamed_lock: bool,
    /// Locks of MySQL's locking service, which RELEASE_ALL_LOCKS does not give back.
    pub service_lock: bool,
    /// The whole text is `DO RELEASE_ALL_LOCKS()` or `SELECT RELEASE_ALL_LOCKS()`, so that no condition keeps it from being called.
    pub releases_all_locks: bool,
    /// LOCK INSTANCE FOR BACKUP.
    pub locks_instance: bool,
    /// UNLOCK INSTANCE.
    pub unlocks_instance: bool,
    /// BACKUP STAGE, but for END.
    pub backup_stage: bool,
    /// BACKUP STAGE END.
    pub backup_stage_end: bool,
    /// BACKUP LOCK.
    pub backup_lock: bool,
    /// BACKUP UNLOCK.
    pub backup_unlock: bool,
    /// The identifier of an XA statement, as it is spelled. `None` beside the effect: it cannot be compared.
    pub xid: Option<Name>,
}

/// Whom a KILL is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillTarget {
    /// A connection id.
    Id(u64),
    /// MariaDB: `KILL QUERY ID n`: the number's text.
    QueryId(Span),
    /// MariaDB: `KILL … USER name`: the account's text.
    User(Span),
    /// An expression: the text. See [`super::kill::evaluate`].
    Expression(Span),
}

/// A KILL statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kill {
    /// `KILL QUERY`: only the statement, not the connection.
    pub query_only: bool,
    /// MariaDB's `HARD` (true, the default there) or `SOFT` (false), where said.
    pub hard: Option<bool>,
    /// Whom.
    pub target: KillTarget,
}
