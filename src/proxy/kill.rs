//! KILL: the id is belay's; what is killed is the server session that works for that client now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::pool::flight;
use crate::pool::flight::Ask;
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::proxy::context::Context;
use crate::proxy::errors;
use crate::proxy::registry::{SessionHandle, signal};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::wire::RequestHead;
use crate::sql::facts::{Kill, KillTarget};
use crate::topology::NodeId;

/// A KILL takes at most this long on a node.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a KILL was not carried out on a node.
#[derive(Debug)]
pub enum KillError {
    /// No connection to the node, or it broke.
    Unreachable(String),
    /// The node refused.
    Refused(ErrorReply),
}

impl fmt::Display for KillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillError::Unreachable(why) => write!(f, "the node can't be reached: {why}"),
            KillError::Refused(error) => write!(f, "the node refused: {error}"),
        }
    }
}

/// One connection per node for KILLs, as the monitor account, opened when it is first needed. It takes no place of any client's account.
#[derive(Debug)]
pub struct Killer {
    connections: Vec<Mutex<Option<ServerConn>>>,
}

impl Killer {
    /// For this many nodes.
    pub fn new(nodes: usize) -> Killer {
        Killer { connections: (0..nodes).map(|_| Mutex::new(None)).collect() }
    }

    /// KILL QUERY.
    pub async fn kill_query(&self, cx: &Context, node: NodeId, thread_id: u32) -> Result<(), KillError> {
        self.run(cx, node, format!("KILL QUERY {thread_id}")).await
    }

    /// KILL of the whole connection.
    pub async fn kill_connection(&self, cx: &Context, node: NodeId, thread_id: u32) -> Result<(), KillError> {
        self.run(cx, node, format!("KILL {thread_id}")).await
    }

    async fn run(&self, cx: &Context, node: NodeId, sql: String) -> Result<(), KillError> {
        let Some(slot) = self.connections.get(node.index()) else {
            return Err(KillError::Unreachable("no such node".into()));
        };
        let work = async {
            let mut slot = slot.lock().await;
            for fresh in [false, true] {
                let mut conn = match slot.take() {
                    Some(conn) if !fresh => conn,
                    _ => cx.dial_as_monitor(node).await.map_err(|e| KillError::Unreachable(e.to_string()))?,
                };
                match flight::fly(&mut conn, b"", &[Ask::Query(Bytes::from(sql.clone()))]).await {
                    Ok(answers) => {
                        *slot = Some(conn);
                        return match answers.into_iter().find_map(|a| a.error) {
                            // The thread is gone already: nothing runs, as was wanted.
                            Some(error) if error.code == 1094 => Ok(()),
                            Some(error) => Err(KillError::Refused(error)),
                            None => Ok(()),
                        };
                    }
                    Err(error) if fresh => return Err(KillError::Unreachable(error.to_string())),
                    // The connection may have idled too long or its node restarted: a KILL may be said twice.
                    Err(_) => {}
                }
            }
            Err(KillError::Unreachable("the connection broke".into()))
        };
        tokio::time::timeout(KILL_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(KillError::Unreachable("no answer in time".into())))
    }
}

impl ClientSession {
    /// KILL as a statement.
    pub(super) async fn kill(&mut self, head: RequestHead, kill: Kill) -> Flow {
        let KillTarget::Id(id) = kill.target else {
            return self.refuse(head, errors::not_supported("KILL by user, query id or expression")).await;
        };
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        self.kill_id(id, kill.query_only).await
    }

    /// COM_PROCESS_KILL.
    pub(super) async fn process_kill(&mut self, head: RequestHead) -> Flow {
        let payload = self.take_payload(head);
        let Some(id) = payload.get(1..5).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_le_bytes) else {
            return self.reply_error(&errors::malformed("COM_PROCESS_KILL")).await;
        };
        self.kill_id(u64::from(id), false).await
    }

    async fn kill_id(&mut self, id: u64, query_only: bool) -> Flow {
        let target = u32::try_from(id).ok().and_then(|id| self.cx.registry.get(id));
        let Some(target) = target else { return self.reply_error(&errors::no_such_thread(id)).await };
        if target.account().as_ref() != Some(&self.account) && !self.cx.may_kill_others(&self.account) {
            return self.reply_error(&errors::kill_denied(id)).await;
        }
        if target.id == self.handle.id {
            return self.kill_self(query_only).await;
        }
        let killed =
            if query_only { kill_statement(&self.cx, &target).await } else { kill_session(&self.cx, &target).await };
        self.cx.measure.kill(killed.is_ok());
        match killed {
            Ok(()) => self.reply_ok().await,
            Err(error) => self.reply_error(&errors::kill_failed(&error.to_string())).await,
        }
    }

    /// A client that kills itself gets the interruption as its answer, as on a server.
    async fn kill_self(&mut self, query_only: bool) -> Flow {
        let flow = self.reply_error(&errors::killed()).await;
        if query_only { flow } else { Flow::End }
    }
}

/// Kills what runs for a session now, and nothing else: while the KILL is on its way the server session stays marked, so it is never handed on.
async fn kill_statement(cx: &Context, target: &SessionHandle) -> Result<(), KillError> {
    let server = {
        let mut running = target.running();
        match running.target {
            Some(server) if running.busy => {
                running.kills_in_flight += 1;
                running.tainted = true;
                server
            }
            // Nothing runs: nothing is to be killed.
            _ => return Ok(()),
        }
    };
    let killed = cx.killer.kill_query(cx, server.node, server.thread_id).await;
    let mut running = target.running();
    running.kills_in_flight = running.kills_in_flight.saturating_sub(1);
    killed
}

async fn kill_session(cx: &Context, target: &Arc<SessionHandle>) -> Result<(), KillError> {
    // The session's own task ends it: it closes the client and cleans the server session, killing what runs there.
    let killed = kill_statement(cx, target).await;
    target.signal(signal::KILLED);
    killed
}
