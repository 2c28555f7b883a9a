//! The monitor's connections to real nodes: dialled as everything else is, with the monitor's own account.

use std::sync::Arc;

use bytes::Bytes;

use crate::monitor::link::{ConnectError, Connector, Link, LinkAnswer, LinkBroken};
use crate::pool::dial::{self, DialContext, DialError, DialRequest, Opening};
use crate::pool::flight::{self, Ask};
use crate::pool::server_conn::ServerConn;
use crate::topology::NodeId;

/// Dials nodes as the monitor account.
pub struct Dialler {
    nodes: Vec<(Arc<str>, Arc<str>)>,
    opening: Opening,
    context: DialContext,
}

impl Dialler {
    /// For these nodes (name, address), in the order of the configuration.
    pub fn new(nodes: Vec<(Arc<str>, Arc<str>)>, opening: Opening, context: DialContext) -> Dialler {
        Dialler { nodes, opening, context }
    }
}

/// A logged-in connection of the monitor account.
pub struct DialledLink {
    conn: ServerConn,
}

impl Link for DialledLink {
    fn greeted_collation(&self) -> u8 {
        self.conn.greeted_collation
    }

    async fn ask(&mut self, statements: &[&str]) -> Result<Vec<LinkAnswer>, LinkBroken> {
        let asks: Vec<Ask> = statements.iter().map(|sql| Ask::Query(Bytes::copy_from_slice(sql.as_bytes()))).collect();
        let answers = flight::fly(&mut self.conn, b"", &asks).await.map_err(|e| LinkBroken(e.to_string()))?;
        Ok(answers
            .into_iter()
            .map(|answer| match answer.error {
                Some(error) => LinkAnswer::Error(error),
                None => LinkAnswer::Rows(answer.rows),
            })
            .collect())
    }
}

impl Connector for Dialler {
    type Link = DialledLink;

    async fn connect(&self, node: NodeId) -> Result<DialledLink, ConnectError> {
        let Some((name, address)) = self.nodes.get(node.index()) else {
            return Err(ConnectError::Unusable("no such node".into()));
        };
        match dial::dial(&DialRequest::monitor(name, address, &self.opening), &self.context).await {
            Ok(conn) => Ok(DialledLink { conn }),
            Err(error) => Err(classify(&error)),
        }
    }
}

fn classify(error: &DialError) -> ConnectError {
    match error.reply() {
        Some(_) if error.refused_secret() => ConnectError::LoginRefused(error.to_string()),
        Some(reply) => ConnectError::Refused(reply.clone()),
        None if error.is_unavailable() => ConnectError::Unreachable(error.to_string()),
        None => ConnectError::Unusable(error.to_string()),
    }
}
