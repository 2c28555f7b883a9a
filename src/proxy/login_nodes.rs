//! What a login needs of the nodes: how belay shows itself, and one that checks a password which belay can't.

use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;

use crate::auth::accounts::{AccountId, AccountKey};
use crate::monitor::ClusterHandle;
use crate::pool::Opening;
use crate::pool::dial::{self, DialContext, DialRequest};
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::errors;
use crate::topology::{NodeCharsets, NodeId};

/// How belay shows itself in its greeting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Face {
    /// The version text.
    pub server_version: String,
    /// The family of the nodes: decides the scheme of the greeting and MariaDB's extended capabilities.
    pub flavor: Flavor,
    /// The character sets of the node that serves.
    pub charsets: Arc<NodeCharsets>,
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
    /// The node that was asked.
    pub node: NodeId,
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

/// The nodes as the monitor sees them.
#[derive(Debug)]
pub struct ClusterLogins {
    cluster: Arc<ClusterHandle>,
    context: DialContext,
}

impl ClusterLogins {
    /// Proves logins on the writer, or on any node where there is none.
    pub fn new(cluster: Arc<ClusterHandle>, context: DialContext) -> ClusterLogins {
        ClusterLogins { cluster, context }
    }

    async fn try_login(&self, login: NodeLogin) -> Result<Proven, Unproven> {
        let snapshot = self.cluster.load();
        let Some(view) = snapshot.writer_node().or(snapshot.default_node()) else {
            return Err(Unproven::Unavailable(errors::no_node("no node is known")));
        };
        let request = DialRequest::monitor(&view.name, &view.address, &login.opening);
        let mut conn = dial::dial(&request, &self.context).await.map_err(|error| match error.reply() {
            Some(reply) if !error.is_unavailable() => Unproven::Refused(reply.clone()),
            _ => Unproven::Unavailable(errors::no_node(&error.to_string())),
        })?;
        let asked = conn.query("SELECT CURRENT_USER()").await;
        let account = asked.ok().and_then(|answer| {
            let text = answer.single()?;
            AccountKey::parse_current_user(std::str::from_utf8(text).ok()?)
        });
        match account {
            Some(account) => Ok(Proven { account, node: view.id, conn }),
            None => Err(Unproven::Unavailable(errors::no_node("the node does not say which account it matched"))),
        }
    }
}

impl LoginNodes for ClusterLogins {
    fn face(&self) -> Face {
        let snapshot = self.cluster.load();
        // Servers before MariaDB 11 put this in front of their version, for replicas that read one digit.
        let old_mariadb = snapshot.flavor == Flavor::MariaDb && snapshot.server_version.starts_with("10.");
        let prefix = if old_mariadb { "5.5.5-" } else { "" };
        let charsets = snapshot.default_node().map(|view| view.charsets.clone()).unwrap_or_default();
        Face { server_version: format!("{prefix}{}", snapshot.server_version), flavor: snapshot.flavor, charsets }
    }

    fn prove(&self, login: NodeLogin) -> Proving<'_> {
        Box::pin(self.try_login(login))
    }
}
