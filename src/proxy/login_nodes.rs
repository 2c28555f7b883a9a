//! What a login needs of the nodes: how belay shows itself, and one that checks a password which belay can't.

use std::fmt::Debug;
use std::pin::Pin;

use crate::auth::accounts::AccountId;
use crate::pool::Opening;
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::flavor::Flavor;

/// How belay shows itself in its greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    /// The version text.
    pub server_version: String,
    /// The family of the nodes: decides the scheme of the greeting and MariaDB's extended capabilities.
    pub flavor: Flavor,
}

/// A login to be tried on a node.
#[derive(Clone, Debug)]
pub struct NodeLogin {
    /// User, password and behaviour.
    pub opening: Opening,
}

/// A node let the login in.
#[derive(Debug)]
pub struct Proven {
    /// The account that the node matched: its CURRENT_USER().
    pub account: AccountId,
    /// The logged-in connection.
    pub conn: ServerConn,
}

/// No node let the login in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unproven {
    /// A node refused it, in these words.
    Refused(ErrorReply),
    /// No node could be asked; what the client is told.
    Unavailable(ErrorReply),
}

/// The future of [`LoginNodes::prove`].
pub type Proving<'a> = Pin<Box<dyn Future<Output = Result<Proven, Unproven>> + Send + 'a>>;

/// The nodes, as far as a login needs them.
pub trait LoginNodes: Debug + Send + Sync {
    /// How belay shows itself now.
    fn face(&self) -> Face;

    /// Tries a login on a node, once: a refused one may count towards a lock of the account. Bounded by the dial timeout.
    fn prove(&self, login: NodeLogin) -> Proving<'_>;
}
