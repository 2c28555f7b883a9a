//! belay: a session-aware, transaction-pinning SQL router for clusters that speak the MySQL protocol.
//!
//! # Layout
//! Functional core (no I/O, no clock, no logging): [`protocol`], [`sql`], [`auth`], [`session`], [`topology`],
//! [`router`], [`failover`]. Async shell: [`net`], [`pool`], [`proxy`], [`monitor`], [`admin`], composed by [`server`].
//! `docs/architecture.md` tells the whole story; `tests/tidy.rs` keeps the directions between these modules honest.

pub mod admin;
pub mod auth;
pub mod cli;
pub mod config;
pub mod error;
pub mod failover;
pub mod metrics;
pub mod monitor;
pub mod net;
pub mod pool;
pub mod protocol;
pub mod proxy;
pub mod router;
pub mod runtime;
pub mod server;
pub mod session;
pub mod sql;
pub mod topology;
