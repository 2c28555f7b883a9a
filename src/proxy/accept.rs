//! Accepting clients: limits before everything else, then the login, then the session task.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;

use crate::auth::host::ClientHost;
use crate::metrics::labels::Refusal;
use crate::net::stream::{Plain, Stream};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::packet::err::encode_err;
use crate::proxy::client_login::{self, LoginEnd};
use crate::proxy::context::Context;
use crate::proxy::errors;
use crate::proxy::session::ClientSession;
use crate::proxy::wire;

/// Where clients come in.
pub enum Listener {
    /// TCP
    Tcp(TcpListener),
    /// A unix socket
    Unix(UnixListener),
}

/// Counts clients and logins against their limits.
#[derive(Default)]
pub struct Gate {
    clients: AtomicUsize,
    logins: AtomicUsize,
}

/// A counted client or login; dropping it takes it off.
struct Counted {
    gate: Arc<Gate>,
    login: bool,
}

impl Gate {
    fn enter(self: &Arc<Gate>, login: bool, max: usize) -> Option<Counted> {
        let count = if login { &self.logins } else { &self.clients };
        if count.fetch_add(1, Ordering::AcqRel) >= max {
            count.fetch_sub(1, Ordering::AcqRel);
            return None;
        }
        Some(Counted { gate: self.clone(), login })
    }

    /// Clients now.
    pub fn clients(&self) -> usize {
        self.clients.load(Ordering::Acquire)
    }

    /// Of these, how many have not logged in.
    pub fn logins(&self) -> usize {
        self.logins.load(Ordering::Acquire)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let count = if self.login { &self.gate.logins } else { &self.gate.clients };
        count.fetch_sub(1, Ordering::AcqRel);
    }
}

/// After an accept that failed for want of file descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Accepts clients until belay drains.
pub async fn accept(listener: Listener, cx: Arc<Context>, gate: Arc<Gate>, mut draining: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = accept_one(&listener) => accepted,
            _ = draining.wait_for(|d| *d) => return,
        };
        match accepted {
            Ok((stream, peer)) => welcome(stream, peer, &cx, &gate),
            Err(error) => {
                tracing::warn!(%error, "a client could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn accept_one(listener: &Listener) -> std::io::Result<(Plain, Option<SocketAddr>)> {
    match listener {
        Listener::Tcp(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let keepalive = socket2::TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
            socket2::SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
            Ok((Plain::Tcp(stream), Some(peer)))
        }
        Listener::Unix(listener) => {
            let (stream, _) = listener.accept().await?;
            Ok((Plain::Unix(stream), None))
        }
    }
}

fn welcome(plain: Plain, peer: Option<SocketAddr>, cx: &Arc<Context>, gate: &Arc<Gate>) {
    let stream = Stream::Plain(plain);
    let metrics = cx.measure.metrics();
    metrics.client_connections_total.increment(1);
    let Some(login) = gate.enter(true, cx.config.listen.logins_max) else {
        metrics.client_refused.increment(Refusal::TooManyLogins);
        tokio::spawn(turn_away(stream, errors::too_many_clients()));
        return;
    };
    let Some(client) = gate.enter(false, cx.config.listen.client_connections_max) else {
        metrics.client_refused.increment(Refusal::TooMany);
        tokio::spawn(turn_away(stream, errors::too_many_clients()));
        return;
    };
    let cx = cx.clone();
    tokio::spawn(async move {
        // The login's state is large and short-lived: a box of its own, so that the session's task stays small.
        if let Some(session) = Box::pin(log_in(stream, peer, cx)).await {
            drop(login);
            let (session, registration) = session;
            session.run().await;
            drop(registration);
        }
        drop(client);
    });
}

async fn log_in(
    stream: Stream,
    peer: Option<SocketAddr>,
    cx: Arc<Context>,
) -> Option<(ClientSession, crate::proxy::registry::Registration)> {
    let host = peer.map_or(ClientHost::Local, |peer| ClientHost::Ip(peer.ip()).canonical());
    let text = peer.map_or_else(|| "unix socket".to_owned(), |p| p.to_string());
    let registration = cx.registry.register(text);
    let login = client_login::login(stream, &cx.login, registration.handle.id, host).await;
    let logged_in = match login {
        Ok(logged_in) => logged_in,
        Err(end) => {
            cx.measure.metrics().client_refused.increment(refusal(&end));
            tracing::debug!(session = registration.handle.id, peer = %registration.handle.peer, why = %end, "a login ended");
            return None;
        }
    };
    let session = ClientSession::begin(cx, registration.handle.clone(), logged_in, host).await?;
    Some((session, registration))
}

fn refusal(end: &LoginEnd) -> Refusal {
    match end {
        LoginEnd::Refused { reply } => match reply.code {
            1045 | 1044 | 1698 => Refusal::AccessDenied,
            3159 | 2026 => Refusal::Tls,
            1429 | 1105 => Refusal::NoNode,
            _ => Refusal::Protocol,
        },
        LoginEnd::ClientClosed | LoginEnd::Io(_) | LoginEnd::TimedOut { .. } | LoginEnd::Internal(_) => Refusal::Protocol,
    }
}

/// Tells a client why it is not served, in place of a greeting, and closes.
async fn turn_away(mut stream: Stream, error: ErrorReply) {
    let mut payload = BytesMut::new();
    // Before the capabilities are known there is no SQLSTATE in an error.
    encode_err(&mut payload, &error, false);
    let mut out = BytesMut::new();
    let mut seq = 0;
    crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, &payload);
    // A client that does not listen is closed all the same.
    let _ = wire::send(&mut stream, &out, Duration::from_secs(1)).await;
}
