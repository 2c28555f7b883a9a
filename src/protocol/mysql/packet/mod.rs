//! The packets of the protocol, one file each.

pub mod column;
pub mod eof;
pub mod err;
pub mod ok;
pub mod prepare_ok;
pub mod row;
pub mod session_state;
