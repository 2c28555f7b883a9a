//! The HTTP server for Prometheus and for people: `/metrics`, `/healthz`, `/readyz`, `/sessions`.
//!
//! One request a connection, everything limited: connections, header bytes, and the whole time from accept to close, so a
//! slow reader or writer holds nothing.

pub mod sessions;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use subtle::ConstantTimeEq;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tracing::{debug, warn};

use crate::admin::sessions::SessionDirectory;
use crate::config::Secret;
use crate::metrics::Metrics;

/// A request line and headers longer than this are refused.
const HEADER_BYTES_MAX: usize = 8 * 1024;
/// A request must have arrived within this time.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection is closed after this time, whatever it does.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// `/sessions` shows this many unless asked for another number, and never more than [`SESSIONS_MAX`].
const SESSIONS_DEFAULT: usize = 1_000;
/// The most that `/sessions?limit=` can ask for.
const SESSIONS_MAX: usize = 100_000;
/// After accept() failed (out of file descriptors, mostly) it is tried again after this time.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// What the server shows.
pub struct AdminContext {
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
    /// For `/readyz`: whether clients can be served, or why not.
    pub readiness: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// For `/sessions`.
    pub sessions: Arc<dyn SessionDirectory>,
    /// What `/sessions` asks for; without one it is off.
    pub token: Option<Secret>,
    /// Simultaneous connections; further ones are closed at once.
    pub connections_max: usize,
}

/// Serves until the future is dropped.
pub async fn serve(listener: TcpListener, context: Arc<AdminContext>) {
    let permits = Arc::new(Semaphore::new(context.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(e) => {
                warn!(error = %e, "the admin listener cannot accept");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        // Beyond the limit the stream is dropped, which closes it.
        if let Ok(permit) = Arc::clone(&permits).try_acquire_owned() {
            let context = Arc::clone(&context);
            tokio::spawn(async move {
                serve_one(stream, context).await;
                drop(permit);
            });
        }
    }
}

async fn serve_one(stream: TcpStream, context: Arc<AdminContext>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.method(), request.uri(), request.headers().get(AUTHORIZATION), &context);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(e)) => debug!(error = %e, "admin connection"),
        Err(_) => debug!("admin connection took too long"),
    }
}

type Reply = Response<Full<Bytes>>;

/// The answer to one request. No request has a body that matters.
fn respond(method: &Method, uri: &hyper::Uri, authorization: Option<&HeaderValue>, context: &AdminContext) -> Reply {
    if method != Method::GET && method != Method::HEAD {
        let mut reply = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
        reply.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return reply;
    }
    match uri.path() {
        "/metrics" => reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", context.metrics.render()),
        "/healthz" => plain(StatusCode::OK, "ok\n"),
        "/readyz" => match (context.readiness)() {
            Ok(()) => plain(StatusCode::OK, "ready\n"),
            Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
        },
        "/" => plain(StatusCode::OK, "belay: /metrics /healthz /readyz /sessions /sessions/{id}\n"),
        path if path == "/sessions" || path.starts_with("/sessions/") => match authorized(authorization, context) {
            Ok(()) => sessions(path, uri.query(), context),
            Err(refusal) => *refusal,
        },
        _ => plain(StatusCode::NOT_FOUND, "not found\n"),
    }
}

/// Whether the request carries the token; compared in constant time.
fn authorized(authorization: Option<&HeaderValue>, context: &AdminContext) -> Result<(), Box<Reply>> {
    let Some(token) = &context.token else {
        let why = "/sessions is off: the configuration has no admin token\n";
        return Err(Box::new(plain(StatusCode::FORBIDDEN, why)));
    };
    let given = authorization.map(HeaderValue::as_bytes).and_then(|value| {
        let (scheme, given) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case(b"Bearer ").then(|| given.trim_ascii())
    });
    let expected = token.expose().trim().as_bytes();
    if given.is_some_and(|g| !expected.is_empty() && bool::from(g.ct_eq(expected))) {
        return Ok(());
    }
    let mut refusal = plain(StatusCode::UNAUTHORIZED, "send the admin token: Authorization: Bearer …\n");
    refusal.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    Err(Box::new(refusal))
}

fn sessions(path: &str, query: Option<&str>, context: &AdminContext) -> Reply {
    let body = match path.strip_prefix("/sessions/").filter(|rest| !rest.is_empty()) {
        None => {
            let limit = match query.and_then(|q| q.split('&').find_map(|p| p.strip_prefix("limit="))).map(str::parse) {
                None => SESSIONS_DEFAULT,
                Some(Ok(limit)) => SESSIONS_MAX.min(limit),
                Some(Err(_)) => return plain(StatusCode::BAD_REQUEST, "limit must be a number\n"),
            };
            let mut list = context.sessions.list(limit);
            list.sort_by_key(|s| s.id);
            serde_json::to_string(&list)
        }
        Some(rest) => match rest.parse().ok().and_then(|id| context.sessions.get(id)) {
            Some(detail) => serde_json::to_string(&detail),
            None => return plain(StatusCode::NOT_FOUND, "no such session\n"),
        },
    };
    match body {
        Ok(json) => reply(StatusCode::OK, "application/json", json),
        Err(e) => plain(StatusCode::INTERNAL_SERVER_ERROR, format!("{e}\n")),
    }
}

fn plain(status: StatusCode, body: impl Into<Bytes>) -> Reply {
    reply(status, "text/plain; charset=utf-8", body)
}

fn reply(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Reply {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    reply.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    reply
}

#[cfg(test)]
mod tests {
    use super::sessions::*;
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::Mutex;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    struct Two;

    impl SessionDirectory for Two {
        fn list(&self, limit: usize) -> Vec<SessionSummary> {
            let all = [7, 3].map(|id| SessionSummary { id, user: "app".into(), ..Default::default() });
            all.into_iter().take(limit).collect()
        }
        fn get(&self, id: u32) -> Option<SessionDetail> {
            let summary = self.list(9).into_iter().find(|s| s.id == id)?;
            Some(SessionDetail { summary, prepared_statements: 2, ..Default::default() })
        }
    }

    fn context(token: Option<&str>) -> AdminContext {
        AdminContext {
            metrics: Metrics::new(["n1"], &[], &[], "0.0.0"),
            readiness: Box::new(|| Err("no writer".into())),
            sessions: Arc::new(Two),
            token: token.map(|t| Secret::new(t.into())),
            connections_max: 1,
        }
    }

    async fn get(target: &str, authorization: Option<&str>, context: &AdminContext) -> (u16, String) {
        let header = authorization.map(|a| HeaderValue::from_str(a).unwrap());
        let reply = respond(&Method::GET, &target.parse().unwrap(), header.as_ref(), context);
        let status = reply.status().as_u16();
        let body = reply.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn public_pages() {
        let c = context(None);
        assert_eq!(get("/healthz", None, &c).await, (200, "ok\n".into()));
        assert_eq!(get("/readyz", None, &c).await, (503, "not ready: no writer\n".into()));
        let (status, text) = get("/metrics", None, &c).await;
        assert_eq!(status, 200);
        assert!(text.contains("belay_build_info{version=\"0.0.0\"} 1"));
        assert_eq!(get("/nothing", None, &c).await.0, 404);
        assert_eq!(respond(&Method::POST, &"/metrics".parse().unwrap(), None, &c).status(), 405);
    }

    #[tokio::test]
    async fn sessions_need_the_token() {
        assert_eq!(get("/sessions", Some("Bearer "), &context(None)).await.0, 403);
        assert_eq!(get("/sessions", Some("Bearer "), &context(Some(""))).await.0, 401);
        let c = context(Some("s3cret"));
        for wrong in [None, Some("Bearer"), Some("Bearer s3creu"), Some("Basic s3cret"), Some("s3cret")] {
            assert_eq!(get("/sessions", wrong, &c).await.0, 401, "{wrong:?}");
            assert_eq!(get("/sessions/3", wrong, &c).await.0, 401, "{wrong:?}");
        }
        let right = Some("bearer s3cret");
        let (status, json) = get("/sessions", right, &c).await;
        assert_eq!(status, 200);
        assert!(json.starts_with("[{\"id\":3,"), "{json}");
        assert_eq!(get("/sessions?limit=1", right, &c).await.1.matches("\"id\"").count(), 1);
        assert_eq!(get("/sessions?limit=x", right, &c).await.0, 400);
        let (status, json) = get("/sessions/7", right, &c).await;
        assert_eq!(status, 200);
        assert!(json.contains("\"id\":7,") && json.contains("\"prepared_statements\":2"), "{json}");
        assert_eq!(get("/sessions/8", right, &c).await.0, 404);
        assert_eq!(get("/sessions/x", right, &c).await.0, 404);
    }

    async fn exchange(address: std::net::SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let _ = stream.write_all(request).await;
        let mut text = Vec::new();
        let _ = stream.read_to_end(&mut text).await;
        String::from_utf8_lossy(&text).into_owned()
    }

    #[tokio::test]
    async fn over_a_socket_within_limits() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(serve(listener, Arc::new(context(None))));
        let text = exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("ok\n"), "{text}");
        let long = format!("GET /healthz HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(100_000));
        assert!(!exchange(address, long.as_bytes()).await.starts_with("HTTP/1.1 200"));
        // One connection may be open; the second is closed at once.
        let holder = Mutex::new(TcpStream::connect(address).await.unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await, "");
        drop(holder);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(exchange(address, b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 200"));
        server.abort();
    }
}
