//! What belay's scenario tests, `make run` and `make bench` share: real servers on this machine, a belay in front of them, and
//! clients to talk to both.
//!
//! Everything here blocks. A server is an ordinary process on a free loopback port with a data directory that is a copy of a
//! template made once; its handle stops it when dropped, and a watchman process stops it if the test is killed first.

pub mod belay;
pub mod callgrind;
pub mod clients;
pub mod faults;
pub mod model_check;
pub mod model_server;
pub mod oracle;
pub mod paths;
pub mod ports;
pub mod process;
pub mod scrape;
pub mod servers;
pub mod shared;
pub mod tls;
pub mod wire;

/// The error of the harness: a text for the person who reads the failed test.
pub type Error = Box<dyn std::error::Error + Send + Sync>;
/// Result with the harness's error.
pub type Result<T> = std::result::Result<T, Error>;
