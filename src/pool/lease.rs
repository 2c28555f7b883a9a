//! A lease: the right to use one server session. Returned cleanly by [`Lease::release`]; dropped in any other way the connection is thrown away.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pool::endpoint::Endpoint;
use crate::pool::session::ServerSession;
use crate::session::next_transaction::Pending;

/// A server session in use.
#[derive(Debug)]
pub struct Lease {
    session: Option<Box<ServerSession>>,
    place: Place,
    /// A rule sent the session to this node to read: nothing else may be done here.
    pub reads_only: bool,
}

/// A counted place in the cap of an endpoint; dropping it frees it.
#[derive(Debug)]
pub struct Place {
    endpoint: Option<Arc<Endpoint>>,
}

impl Place {
    /// A place that was counted already.
    pub fn counted(endpoint: Arc<Endpoint>) -> Place {
        Place { endpoint: Some(endpoint) }
    }

    /// Outside every cap: the one server session of a client whose login can't be repeated.
    pub fn uncounted() -> Place {
        Place { endpoint: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(endpoint) = self.endpoint.take() {
            endpoint.place_free();
        }
    }
}

impl Lease {
    /// A lease of a session that holds a place.
    pub fn new(session: Box<ServerSession>, place: Place) -> Lease {
        Lease { session: Some(session), place, reads_only: false }
    }

    /// The endpoint, unless the session is outside every cap.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        self.place.endpoint.as_ref()
    }

    /// Gives the session back in a clean state: no transaction, no pin, no answer outstanding.
    pub fn release(mut self, now: Instant) {
        // A session outside every cap serves nobody else: dropping the lease closes it.
        let Some(endpoint) = self.place.endpoint.clone() else { return };
        if self.next_transaction != Pending::Nothing {
            // What one client set for its next transaction is for nobody else's: dropping the lease closes the connection.
            return;
        }
        let Some(session) = self.session.take() else { return };
        match endpoint.give(session, now) {
            // The place went with the session to its next user, or stays with it among the free ones.
            None => self.place.endpoint = None,
            Some(session) => close_in_background(session, std::mem::replace(&mut self.place, Place::uncounted())),
        }
    }
}

impl Lease {
    /// Closes the connection and keeps its place for another one. Dropped in the middle, it is closed in the background.
    pub async fn vacate(mut self) -> Place {
        if let Some(session) = &mut self.session {
            tell_insert_id(session, &self.place, true).await;
            close(session).await;
        }
        self.session = None;
        std::mem::replace(&mut self.place, Place::uncounted())
    }
}

impl Deref for Lease {
    type Target = ServerSession;
    fn deref(&self) -> &ServerSession {
        match &self.session {
            Some(session) => session,
            // invariant: the session is taken by `release` and `drop` alone, and both end the lease.
            None => unreachable!("a lease without a session"),
        }
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ServerSession {
        match &mut self.session {
            Some(session) => session,
            // invariant: as above.
            None => unreachable!("a lease without a session"),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            // Nobody knows what it would answer.
            spawn_close(session, std::mem::replace(&mut self.place, Place::uncounted()), false);
        }
    }
}

/// The longest time a node gets to confirm that a connection is closed before its place is given to another.
const CLOSE_CONFIRM_MAX: Duration = Duration::from_secs(2);

/// The longest time a node gets to say what LAST_INSERT_ID() is on a server session that is about to be closed.
const INSERT_ID_MAX: Duration = Duration::from_secs(2);

/// What only this server session knows of a client is read before it is closed, if it can be `asked`; else the client is told that it is lost.
async fn tell_insert_id(session: &mut ServerSession, place: &Place, asked: bool) {
    let Some(owner) = session.unread_insert_id.take() else { return };
    let Some(clients) = place.endpoint.as_ref().map(|endpoint| endpoint.clients()) else { return };
    if !clients.needs_insert_id(owner, session.serial) {
        return;
    }
    let id = match asked && session.looks_alive() {
        true => tokio::time::timeout(INSERT_ID_MAX, session.read_insert_id()).await.ok().flatten(),
        false => None,
    };
    clients.insert_id_read(owner, session.serial, id);
}

/// Says COM_QUIT to a server session that is free, and keeps the place counted until the node has closed the connection.
pub fn close_in_background(session: Box<ServerSession>, place: Place) {
    spawn_close(session, place, true);
}

fn spawn_close(mut session: Box<ServerSession>, place: Place, free: bool) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    runtime.spawn(async move {
        tell_insert_id(&mut session, &place, free).await;
        close(&mut session).await;
        drop(session);
        drop(place);
    });
}

/// Says COM_QUIT and waits, bounded, until the node has closed the connection.
async fn close(session: &mut ServerSession) {
    let stream = &mut session.conn.io.stream;
    let goodbye = async {
        stream.write_all(&[1, 0, 0, 0, 1]).await?;
        stream.flush().await?;
        let mut rest = [0u8; 1024];
        while stream.read(&mut rest).await? > 0 {}
        Ok::<(), std::io::Error>(())
    };
    // Both ends of the wait mean the same: nothing more can be done for this connection.
    let _ = tokio::time::timeout(CLOSE_CONFIRM_MAX, goodbye).await;
}
