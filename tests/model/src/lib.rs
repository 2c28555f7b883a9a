//! A model of MariaDB 10.11 and MySQL 9.7 as far as a server session is concerned: what it remembers, what it answers, what it reports. It is
//! deterministic and in one process: no clock, no randomness, no sockets, no threads; time is an argument, in milliseconds.

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
