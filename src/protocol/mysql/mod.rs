//! MySQL's client/server protocol: frames, capabilities, packets, and the state machines that use them.
//!
//! Source: the protocol pages of MySQL and MariaDB, and what servers were observed to send.

pub mod capability;
pub mod charset;
pub mod codec;
pub mod command;
pub mod flavor;
pub mod frame;
pub mod greet;
pub mod login;
pub mod packet;
pub mod parameter;
pub mod prepared;
pub mod reply;
