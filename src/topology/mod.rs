//! (in progress)

pub mod address;
