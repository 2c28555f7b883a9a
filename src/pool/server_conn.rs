//! One authenticated connection to a node, and what both sides agreed on.

use crate::net::packet_io::PacketIo;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::flavor::Flavor;

/// One authenticated connection to a node. Dropping it closes the socket.
#[derive(Debug)]
pub struct ServerConn {
    /// The socket and its buffers.
    pub io: PacketIo,
    /// The node's own id of this connection, for KILL.
    pub thread_id: u32,
    /// What both sides understand.
    pub capabilities: Capabilities,
    /// The version of the greeting.
    pub server_version: String,
    /// The low byte of its default collation's id, of the greeting.
    pub greeted_collation: u8,
    /// Its family.
    pub flavor: Flavor,
    /// Status flags of the last answer.
    pub status: StatusFlags,
    /// Whether bytes travel encrypted.
    pub tls: bool,
    /// There may be messages (warnings, errors) of a statement that can still be asked for.
    pub messages: bool,
}
