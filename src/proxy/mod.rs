//! The session task and what it is made of: one task owns a client's socket and, while bound, a server session.

pub mod accept;
mod apply;
mod bind;
mod capture;
pub mod cleanup;
pub mod client_login;
mod commands;
pub mod context;
pub mod errors;
mod execute;
pub mod kill;
pub mod login_nodes;
pub mod login_target;
pub mod measure;
pub mod registry;
pub mod relay;
mod replay;
pub mod report;
mod send;
pub mod session;
mod start;
mod statements;
pub mod view;
mod volatile;
mod wire;
