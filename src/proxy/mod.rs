//! The session task and what it is made of: one task owns a client's socket and, while bound, a server session.

pub mod client_login;
pub mod login_nodes;
pub mod login_target;
