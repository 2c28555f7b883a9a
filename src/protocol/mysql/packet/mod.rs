//! One packet, one file: a struct, its decoder, its encoder, and tests with captured bytes.

pub mod auth_more_data;
pub mod auth_switch;
pub mod change_user;
pub mod handshake;
pub mod handshake_response;
pub mod ssl_request;
