//! One authenticated connection to a node, and what both sides agreed on.

use bytes::Bytes;

use crate::net::packet_io::PacketIo;
use crate::pool::flight::{self, Answer, Ask, FlightError};
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
    /// Its family.
    pub flavor: Flavor,
    /// Status flags of the last answer.
    pub status: StatusFlags,
    /// Whether bytes travel encrypted.
    pub tls: bool,
    /// There may be messages (warnings, errors) of a statement that can still be asked for.
    pub messages: bool,
}

impl ServerConn {
    /// Runs one statement of belay's own. An error reply is an answer; after a [`FlightError`] the connection is of no use.
    pub async fn query(&mut self, sql: impl Into<Bytes>) -> Result<Answer, FlightError> {
        let mut answers = flight::fly(self, b"", &[Ask::Query(sql.into())]).await?;
        answers.pop().ok_or_else(|| FlightError::Protocol("an answer is missing".into()))
    }
}
