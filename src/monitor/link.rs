//! What the monitor needs of a connection to a node: a seam, so that its timing is tested without sockets.

use bytes::Bytes;

use crate::protocol::ErrorReply;
use crate::topology::{NodeId, ProbeFailure};

/// Rows of text values, NULL as `None`.
pub type Rows = Vec<Vec<Option<Bytes>>>;

/// What a node answered to one statement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAnswer {
    /// Rows; none for an OK.
    Rows(Rows),
    /// An error of the node. The connection goes on.
    Error(ErrorReply),
}

/// The connection is of no use any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct LinkBroken(pub String);

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens, or the connection broke before the login ended.
    #[error("{0}")]
    Unreachable(String),
    /// The node refused the account.
    #[error("{0}")]
    LoginRefused(String),
    /// The node answered with another error at login.
    #[error("{0}")]
    Refused(ErrorReply),
    /// TLS, the protocol, or the configuration stands in the way.
    #[error("{0}")]
    Unusable(String),
}

/// Too many connections; too many of this account.
const FULL: [u16; 2] = [1040, 1203];
/// Shutdown in progress: as good as gone.
const SHUTDOWN: u16 = 1053;

impl From<ConnectError> for ProbeFailure {
    fn from(error: ConnectError) -> ProbeFailure {
        match error {
            ConnectError::Unreachable(why) => ProbeFailure::Unreachable(why),
            ConnectError::LoginRefused(why) => ProbeFailure::LoginRefused(why),
            ConnectError::Unusable(why) => ProbeFailure::Unusable(why),
            ConnectError::Refused(e) if FULL.contains(&e.code) => ProbeFailure::Full(e.to_string()),
            ConnectError::Refused(e) if e.code == SHUTDOWN => ProbeFailure::Unreachable(e.to_string()),
            ConnectError::Refused(e) => ProbeFailure::Unusable(e.to_string()),
        }
    }
}

/// One logged-in connection of the monitor's account.
pub trait Link: Send + 'static {
    /// The low byte of the node's default collation, as it greeted.
    fn greeted_collation(&self) -> u8;

    /// Sends the statements in one write and returns their answers in order. Answers are bounded in size by the implementation.
    /// The caller limits the time by dropping the future; the connection must then be dropped too.
    fn ask(&mut self, statements: &[&str]) -> impl Future<Output = Result<Vec<LinkAnswer>, LinkBroken>> + Send;
}

/// Makes connections.
pub trait Connector: Send + Sync + 'static {
    /// The connections it makes.
    type Link: Link;
    /// Connects to a node and logs in. The caller limits the time by dropping the future.
    fn connect(&self, node: NodeId) -> impl Future<Output = Result<Self::Link, ConnectError>> + Send;
}

/// The value of a column as text; empty for NULL or what is not UTF-8.
pub fn text(row: &[Option<Bytes>], column: usize) -> &str {
    row.get(column).and_then(Option::as_ref).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or("")
}

/// The value of a column as bytes; empty for NULL.
pub fn bytes(row: &[Option<Bytes>], column: usize) -> &[u8] {
    row.get(column).and_then(Option::as_ref).map_or(&[], |b| b.as_ref())
}
