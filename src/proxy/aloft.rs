//! belay's own flights in a client's conversation. A node may keep them waiting (a lock on a table, a server that stands still), and the client waits with
//! them: it can close, and it can be killed, as under a statement of its own.

use crate::net::stream::Stream;
use crate::pool::flight::{self, Answer, Ask, FlightError};
use crate::pool::lease::Lease;
use crate::protocol::ErrorReply;
use crate::proxy::bind::{BindEnd, while_client_stays};
use crate::proxy::cleanup;
use crate::proxy::errors;
use crate::proxy::registry::{SessionHandle, Target};
use crate::proxy::session::ClientSession;
use crate::session::pins::Pins;

/// Why a flight for a client brought no answers. The server session is not to be used any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotLanded {
    /// The client closed, or its session was killed: answers are on their way still, and what runs there is to be killed.
    #[error("the client is gone, or killed")]
    ClientGone,
    /// KILL QUERY hit a server session that is not bound: it may take effect later.
    #[error("it was killed")]
    Interrupted,
    /// The server session is lost.
    #[error("{0}")]
    Lost(FlightError),
}

impl NotLanded {
    /// What this means before the client's statement was sent; `lost` is what the loss of the server session means.
    pub(super) fn before_statement(self, lost: BindEnd) -> BindEnd {
        match self {
            NotLanded::ClientGone => BindEnd::ClientGone,
            NotLanded::Interrupted => BindEnd::Refused(errors::interrupted_before()),
            NotLanded::Lost(_) => lost,
        }
    }
}

/// Whether an error says that the statement was interrupted by KILL QUERY.
pub(super) fn is_interruption(error: &ErrorReply) -> bool {
    error.code == errors::INTERRUPTED
}

/// [`flight::fly`] for a client, who is watched while it lasts. To KILL QUERY it is what runs for the client. After `ClientGone` the session has to end, and a
/// lease that is not bound goes to [`abandon`].
pub(super) async fn fly(
    client: &Stream,
    handle: &SessionHandle,
    lease: &mut Lease,
    first: &[u8],
    asks: &[Ask],
) -> Result<Vec<Answer>, NotLanded> {
    let aloft = Aloft::begins(handle, lease);
    let flown = while_client_stays(client, handle, Box::pin(flight::fly(&mut lease.conn, first, asks))).await;
    aloft.ends(handle, flown)?.map_err(NotLanded::Lost)
}

/// What the register knows while belay works on a server session for a client.
pub(super) struct Aloft {
    here: Target,
    before: Option<Target>,
}

impl Aloft {
    /// From here on KILL QUERY finds this server session.
    pub(super) fn begins(handle: &SessionHandle, lease: &Lease) -> Aloft {
        let here = Target { node: lease.node, thread_id: lease.conn.thread_id };
        let mut running = handle.running();
        running.busy = true;
        Aloft { here, before: running.target.replace(here) }
    }

    /// `done` is what the work brought; `None`: the client is gone.
    pub(super) fn ends<T>(self, handle: &SessionHandle, done: Option<T>) -> Result<T, NotLanded> {
        let mut running = handle.running();
        let bound = self.before == Some(self.here);
        if !bound {
            running.target = self.before;
        }
        // The bound server session stays busy when the client is gone: whoever ends the session has to kill what runs there.
        running.busy = bound && done.is_none();
        let Some(done) = done else { return Err(NotLanded::ClientGone) };
        if !bound && (std::mem::take(&mut running.tainted) || running.kills_in_flight > 0) {
            return Err(NotLanded::Interrupted);
        }
        Ok(done)
    }
}

impl ClientSession {
    /// A server session that is not bound, and of no use any more. What still runs there for a client that is gone is killed.
    pub(super) fn abandon(&self, lease: Lease, why: &NotLanded) {
        self.server_session_gone(&lease);
        let running = matches!(why, NotLanded::ClientGone | NotLanded::Interrupted);
        if running {
            cleanup::in_background(self.cx.clone(), lease, running, Pins::NONE);
        }
    }
    /// [`cleanup::reset`] for a client, of a server session that is not bound.
    pub(super) async fn reset_for_client(&self, lease: Lease) -> Result<Lease, NotLanded> {
        let mut lease = lease;
        let aloft = Aloft::begins(&self.handle, &lease);
        let reset = Box::pin(cleanup::reset_in_place(&self.cx, &mut lease));
        let done = while_client_stays(&self.io.stream, &self.handle, reset).await;
        let why = match aloft.ends(&self.handle, done) {
            Ok(Some(())) => return Ok(lease),
            Ok(None) => NotLanded::Lost(FlightError::Protocol("the reset was refused, or did not come back".into())),
            Err(why) => why,
        };
        self.abandon(lease, &why);
        Err(why)
    }
}
