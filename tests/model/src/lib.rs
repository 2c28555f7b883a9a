//! A model of MariaDB 10.11 and MySQL 9.7 as far as a server session is concerned: what it remembers, what it answers, what it reports. It is
//! deterministic and in one process: no clock, no randomness, no sockets, no threads; time is an argument, in milliseconds.
//!
//! [`Cluster::command`] takes a command's payload and gives the packets of its answer, or [`Outcome::Waits`]; then [`Cluster::poll`] asks again after
//! another session has done something or time has passed. What the model has no answer for gets error 1105 that begins with `model: unsupported`;
//! where its answer is consistent but a server's may be another, [`Cluster::take_imprecise`] is true.
//!
//! # The grammar
//! ```text
//! text       = statement { ; statement }            several only with MULTI_STATEMENTS
//! statement  = SELECT [SQL_CALC_FOUND_ROWS] item,… [INTO @v,…] [FROM table|view|DUAL [WHERE expr] [ORDER BY column [DESC]]]
//!                     [LIMIT n] [INTO @v,…] [FOR UPDATE]
//!            | DO expr,…
//!            | INSERT [IGNORE] [INTO] table [(column,…)] VALUES (expr|DEFAULT,…),… [ON DUPLICATE KEY UPDATE column = expr,…]
//!                     [RETURNING item,…]            MariaDB
//!            | REPLACE [INTO] table [(column,…)] VALUES (…),…
//!            | UPDATE table SET column = expr,… [WHERE expr]      | DELETE FROM table [WHERE expr]
//!            | SET assignment,…     | SET [SESSION] TRANSACTION characteristic,…     | SET ROLE name|NONE
//!            | BEGIN | START TRANSACTION [WITH CONSISTENT SNAPSHOT, READ ONLY, READ WRITE]
//!            | COMMIT | ROLLBACK, both [AND [NO] CHAIN] [[NO] RELEASE]
//!            | SAVEPOINT s | ROLLBACK TO [SAVEPOINT] s | RELEASE SAVEPOINT s
//!            | CREATE [TEMPORARY] TABLE [IF NOT EXISTS] t (column type [NOT NULL] [PRIMARY KEY] [AUTO_INCREMENT] [DEFAULT literal],…)
//!            | DROP [TEMPORARY] TABLE [IF EXISTS] t,…
//!            | CREATE PROCEDURE p(a type,…) body | CREATE FUNCTION f(a type,…) RETURNS type body
//!            | CREATE TRIGGER x BEFORE|AFTER INSERT|UPDATE|DELETE ON t FOR EACH ROW body | CREATE VIEW v AS SELECT …
//!            | DROP PROCEDURE|FUNCTION|TRIGGER|VIEW [IF EXISTS] name | CALL p[(expr,…)]
//!            | PREPARE s FROM text | EXECUTE s [USING expr,…] | EXECUTE IMMEDIATE text [USING …] | DEALLOCATE|DROP PREPARE s
//!            | USE schema | LOCK TABLES t READ|WRITE,… | UNLOCK TABLES | KILL [QUERY|CONNECTION] n
//!            | SHOW WARNINGS|ERRORS | SHOW COUNT(*) WARNINGS|ERRORS | SHOW [SESSION|GLOBAL] VARIABLES LIKE 'name'
//! body       = statement | BEGIN { statement|SIGNAL SQLSTATE 's' [SET MESSAGE_TEXT = 't']|RETURN expr ; } END
//! assignment = [GLOBAL|SESSION|LOCAL] name = value | @@[scope.]name = value | @v = expr | NAMES c [COLLATE x] | CHARACTER SET c | NEW.a = expr
//! type       = INT [UNSIGNED] | BIGINT [UNSIGNED] | DECIMAL(m,n) | DOUBLE | VARCHAR(n)
//! expr       = literals, NULL, @v, @v := expr, @@[scope.]name, columns, NEW.a, OLD.a, ?, + - *, = <> < <= > >=, AND OR, IS [NOT] NULL,
//!              CONCAT DATABASE USER CURRENT_USER CURRENT_ROLE CONNECTION_ID LAST_INSERT_ID ROW_COUNT FOUND_ROWS GET_LOCK RELEASE_LOCK
//!              RELEASE_ALL_LOCKS IS_USED_LOCK IS_FREE_LOCK COUNT(*) SUM, stored functions
//! ```
//! Primary keys are integers; strings are ASCII; STRICT_TRANS_TABLES is on where a value does not fit.
//! Of commands it knows COM_QUERY, COM_INIT_DB, COM_PING, COM_STATISTICS, COM_CHANGE_USER (without its exchange of passwords), COM_RESET_CONNECTION,
//! COM_SET_OPTION, COM_QUIT and those of prepared statements, cursors and long data included.

#![forbid(unsafe_code)]

pub mod act;
pub mod answer;
mod ast;
mod cluster;
mod command;
mod error;
pub mod generate;
mod lexer;
mod parser;
mod run;
mod session;
mod store;
mod tracker;
mod value;
mod vars;
mod wire;

pub use cluster::{Cluster, Login, SessionId};
pub use command::Outcome;
pub use wire::{caps, put_lenenc, put_string, status};

/// Which server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// MariaDB 10.11.
    MariaDb,
    /// MySQL 9.7.
    MySql,
}

impl Dialect {
    /// Whether it is MariaDB.
    pub fn is_maria(self) -> bool {
        self == Dialect::MariaDb
    }
}
