//! Session tasks between a client's end of a socket pair and a node that follows a script: timing and faults that real servers show too seldom.
//! What the node says was recorded from real servers, or is a plain OK.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

#[path = "scenarios/aloft.rs"]
mod aloft;
#[path = "scenarios/client.rs"]
mod client;
#[path = "scenarios/limits.rs"]
mod limits;
#[path = "scenarios/losses.rs"]
mod losses;
#[path = "scenarios/node.rs"]
mod node;
#[path = "scenarios/prepared.rs"]
mod prepared;
#[path = "scenarios/requests.rs"]
mod requests;
#[path = "scenarios/waits.rs"]
mod waits;
#[path = "scenarios/world.rs"]
mod world;
