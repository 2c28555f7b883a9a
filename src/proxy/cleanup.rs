//! After a client has vanished: what runs for it is killed, its transaction rolled back, its server session made clean, and only then somebody
//! else's. Until then the session counts against the cap.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::pool::endpoint::Clients;
use crate::pool::flight::{self, Ask};
use crate::pool::lease::Lease;
use crate::pool::setup;
use crate::proxy::context::Context;
use crate::session::next_transaction::Pending;
use crate::session::pins::Pins;
use crate::session::state::SessionState;

/// Cleans a server session in a task of its own. `running` says that a statement may still be executing, or half sent, or that a KILL may still
/// arrive; `pins` are those that its client had.
pub fn in_background(cx: Arc<Context>, lease: Lease, running: bool, pins: Pins) {
    if !running && pins.survives_reset(lease.conn.flavor) {
        // Dropping the lease closes the connection, which rolls back.
        return drop(lease);
    }
    tokio::spawn(async move {
        let node = lease.node;
        if running {
            if let Err(error) = cx.killer.kill_connection(&cx, node, lease.conn.thread_id).await {
                tracing::warn!(node = %cx.node_name(node), %error, "a statement of a client that vanished could not be killed; its connection is closed");
            }
            // Dropping the lease says goodbye and keeps the place counted until the node has closed the connection.
            drop(lease);
            return;
        }
        let limit = Duration::from_millis(cx.config.session.cleanup_timeout_ms);
        match tokio::time::timeout(limit, reset(&cx, lease)).await {
            Ok(Some(lease)) => lease.release(Instant::now()),
            Ok(None) => {}
            Err(_) => {
                tracing::warn!(node = %cx.node_name(node), "a server session was not clean in time and is closed")
            }
        }
    });
}

/// COM_RESET_CONNECTION (rolls back, and drops locks, temporary tables, variables and prepared statements) and tracking switched on again, in one
/// flight. `None`: the session is of no use any more.
pub async fn reset(cx: &Context, mut lease: Lease) -> Option<Lease> {
    reset_in_place(cx, &mut lease).await.map(|()| lease)
}

/// The same for a lease that somebody has to answer for if this is cancelled.
pub async fn reset_in_place(cx: &Context, lease: &mut Lease) -> Option<()> {
    let snapshot = cx.cluster.load();
    let node = snapshot.node(lease.node)?;
    let asks = [
        Ask::ResetConnection,
        Ask::Query(setup::tracking(node)),
        Ask::Query(Bytes::from_static(setup::ASK_ROLE)),
        Ask::Query(Bytes::from_static(b"SHOW SESSION VARIABLES")),
    ];
    let session = &mut **lease;
    if let Some(owner) = session.unread_insert_id {
        if cx.registry.needs_insert_id(owner, session.serial) {
            // The reset would end it.
            let id = session.read_insert_id().await;
            cx.insert_id_read(owner, session.serial, id);
        }
        session.unread_insert_id = None;
    }
    let answers = flight::fly(&mut session.conn, b"", &asks).await.ok()?;
    let [reset, tracked, role, variables] = answers.as_slice() else { return None };
    if [reset, tracked, variables].into_iter().any(|a| a.error.is_some()) {
        return None;
    }
    let (baseline, charsets) = setup::read_variables(variables, node);
    let schema = session.state.schema().cloned();
    let login_role = session.state.login_role().cloned();
    // Servers keep the role through the reset.
    let role = setup::read_role(role, session.conn.flavor);
    if login_role.is_some() && role.is_none() {
        return None;
    }
    session.state = SessionState::new(cx.pool.intern(baseline), charsets, schema);
    session.state.set_login_role(login_role, role);
    session.prepared.clear();
    session.text_statements.clear();
    session.last_use = None;
    session.last_insert_id = Some(0);
    // SHOW VARIABLES reads a table.
    session.conn.messages = variables.warnings > 0;
    // MariaDB and MySQL drop it with the reset, and say so once they track again.
    session.next_transaction = Pending::Nothing;
    Some(())
}
