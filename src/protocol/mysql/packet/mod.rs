//! The packets of the protocol, one file each.

pub mod auth_more_data;
pub mod auth_switch;
pub mod change_user;
pub mod column;
pub mod eof;
pub mod err;
pub mod handshake;
pub mod handshake_response;
pub mod ok;
pub mod prepare_ok;
pub mod row;
pub mod session_state;
pub mod ssl_request;
