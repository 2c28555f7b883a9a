//! A server session: one authenticated connection to a node, with everything belay knows about its state.

use std::time::Instant;

use crate::pool::prepared::ServerStatements;
use crate::pool::server_conn::ServerConn;
use crate::protocol::mysql::capability::Capabilities;
use crate::session::next_transaction::Pending;
use crate::session::state::SessionState;
use crate::session::text_statement::TextStatements;
use crate::topology::NodeId;

/// The capabilities that change how a server session behaves, so that one client's session can't serve another that chose otherwise.
pub const BEHAVIOUR: Capabilities = Capabilities::FOUND_ROWS
    .union(Capabilities::NO_SCHEMA)
    .union(Capabilities::LOCAL_FILES)
    .union(Capabilities::IGNORE_SPACE)
    .union(Capabilities::INTERACTIVE)
    .union(Capabilities::MULTI_STATEMENTS)
    .union(Capabilities::MULTI_RESULTS)
    .union(Capabilities::PS_MULTI_RESULTS);

/// Asks what LAST_INSERT_ID() is.
pub const ASK_INSERT_ID: &[u8] = b"SELECT LAST_INSERT_ID()";

/// Which statement of which client ran last on a server session: what the client may still ask about it (ROW_COUNT(), warnings) is there only
/// while nobody else has used the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LastUse {
    /// The client's connection id.
    pub client: u32,
    /// The number of the client's statement.
    pub statement: u64,
}

/// One authenticated connection to a node.
#[derive(Debug)]
pub struct ServerSession {
    /// Unique in this process; names the session where the node's own thread id could repeat after a restart.
    pub serial: u64,
    /// The node it is on.
    pub node: NodeId,
    /// The connection.
    pub conn: ServerConn,
    /// The behaviour capabilities it was opened with (MULTI_STATEMENTS may change by COM_SET_OPTION).
    pub behaviour: Capabilities,
    /// What state it is in.
    pub state: SessionState,
    /// Who used it last, for which statement.
    pub last_use: Option<LastUse>,
    /// A client whose LAST_INSERT_ID() may have changed here and was not read yet.
    pub unread_insert_id: Option<u32>,
    /// What waits here for the next transaction. Nobody else gets the server session while anything does.
    pub next_transaction: Pending,
    /// What LAST_INSERT_ID() is known to return here.
    pub last_insert_id: Option<u64>,
    /// Prepared statements on it.
    pub prepared: ServerStatements,
    /// Statements on it that clients have prepared under names of their own. Where a name is held is all that is known for certain: a pinned client may
    /// have done more, and its server session is made clean before anybody else gets it.
    pub text_statements: TextStatements,
    /// Nobody has used it yet.
    pub fresh: bool,
    /// When it was opened.
    pub opened_at: Instant,
    /// Since when it has been free.
    pub idle_since: Instant,
}

impl ServerSession {
    /// What LAST_INSERT_ID() is here; `None`: it can't be had, and the connection is of no use any more.
    pub async fn read_insert_id(&mut self) -> Option<u64> {
        self.last_use = None;
        let answer = self.conn.query(ASK_INSERT_ID).await.ok()?;
        let id = std::str::from_utf8(answer.single()?).ok()?.parse().ok()?;
        self.last_insert_id = Some(id);
        Some(id)
    }

    /// Whether the node has closed this connection, or sent something unasked, as far as the event loop has seen. Costs a system call only if
    /// something happened.
    pub fn looks_alive(&self) -> bool {
        use std::task::{Context, Poll, Waker};
        if !self.conn.io.read_buf.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        matches!(self.conn.io.stream.poll_silence(&mut cx), Poll::Pending)
    }
}
