//! The client's side of a session task: waiting for a request, keeping its bytes until its outcome is known, sending answers.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::packet_io::PacketIo;
use crate::net::scratch;
use crate::net::stream::{Silence, Stream};
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::proxy::registry::SessionHandle;

/// Bytes of a request that are gathered before anything is decided. Longer requests are streamed; a longer statement is read up to here only.
pub const REQUEST_BYTES_MAX: usize = 256 * 1024;

/// What ended an idle wait.
#[derive(Debug, PartialEq, Eq)]
pub enum Woke {
    /// Bytes of the client are in its buffer.
    Request,
    /// The client has closed, or its connection broke.
    ClientClosed,
    /// The bound server session closed or said something unasked.
    ServerSpoke,
    /// Signals for this session.
    Signals(u8),
}

/// Waits, owning no buffer, until the client sends or something else happens. Cancel safe.
pub async fn idle(client: &mut PacketIo, server: Option<&Stream>, handle: &SessionHandle) -> Woke {
    if !client.read_buf.is_empty() {
        let signals = handle.take_signals();
        return if signals == 0 { Woke::Request } else { Woke::Signals(signals) };
    }
    poll_fn(|cx| {
        handle.set_waker(cx.waker());
        let signals = handle.take_signals();
        if signals != 0 {
            return Poll::Ready(Woke::Signals(signals));
        }
        if let Some(server) = server
            && server.poll_silence(cx).is_ready()
        {
            return Poll::Ready(Woke::ServerSpoke);
        }
        if client.stream.poll_maybe_readable(cx).is_pending() {
            return Poll::Pending;
        }
        scratch::ensure(&mut client.read_buf);
        let read = pin!(client.stream.read_buf(&mut client.read_buf)).poll(cx);
        match read {
            Poll::Pending => {
                scratch::give_back(&mut client.read_buf);
                Poll::Pending
            }
            Poll::Ready(Ok(n)) if n > 0 => Poll::Ready(Woke::Request),
            Poll::Ready(_) => Poll::Ready(Woke::ClientClosed),
        }
    })
    .await
}

/// The start of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// Its first frame.
    pub header: FrameHeader,
    /// Whether the whole request is in the buffer.
    pub complete: bool,
}

/// What is wrong with a request.
#[derive(Debug, PartialEq, Eq)]
pub enum RequestError {
    /// The client closed in the middle.
    ClientClosed,
    /// The first frame does not carry number 0.
    OutOfOrder,
    /// No command byte.
    Empty,
}

/// Gathers a request: all of it up to `REQUEST_BYTES_MAX`, else its first part. The bytes stay in `read_buf`. A client that sends nothing for
/// `timeout` in the middle is given up. Cancel safe.
pub async fn gather(client: &mut PacketIo, timeout: Duration) -> Result<RequestHead, RequestError> {
    loop {
        if let Some(header) = FrameHeader::parse(&client.read_buf) {
            if header.seq != 0 {
                return Err(RequestError::OutOfOrder);
            }
            if header.payload_len == 0 {
                return Err(RequestError::Empty);
            }
            let complete = client.read_buf.len() >= header.frame_len() && !header.continues();
            if complete || client.read_buf.len() >= REQUEST_BYTES_MAX {
                return Ok(RequestHead { header, complete });
            }
            let missing = header.frame_len().min(REQUEST_BYTES_MAX).saturating_sub(client.read_buf.len());
            client.read_buf.reserve(missing.max(HEADER_BYTES));
        } else {
            client.read_buf.reserve(scratch::SCRATCH_BYTES / 2);
        }
        if !read_more(&mut client.stream, &mut client.read_buf, timeout).await {
            return Err(RequestError::ClientClosed);
        }
    }
}

/// Reads more of something that was begun; false if the peer has closed or sends nothing for `timeout`. Cancel safe.
pub async fn read_more(stream: &mut Stream, buf: &mut BytesMut, timeout: Duration) -> bool {
    let mut read = pin!(stream.read_buf(buf));
    // The ordinary case is that it has come already: no timer is made for it.
    let first = poll_fn(|cx| match read.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await;
    let done = match first {
        Some(done) => Ok(done),
        None => tokio::time::timeout(timeout, read).await,
    };
    matches!(done, Ok(Ok(n)) if n > 0)
}

/// What a wait for the node ended with.
#[derive(Debug)]
pub enum ServerRead {
    /// Bytes came.
    Bytes,
    /// The node closed, or its connection broke.
    Lost,
    /// The client closed while its statement ran.
    ClientClosed,
    /// Signals for this session.
    Signals(u8),
}

/// Reads from the node while watching the client. `watch` is switched off once the client has sent its next request already (it pipelines):
/// then its end is seen when that request is read. Cancel safe.
pub async fn read_server(
    server: &mut PacketIo,
    client: &Stream,
    watch: &mut bool,
    handle: &SessionHandle,
) -> ServerRead {
    scratch::ensure(&mut server.read_buf);
    if server.read_buf.capacity() == server.read_buf.len() {
        // A long answer: take it in larger pieces, up to a limit.
        let more = server.read_buf.capacity().clamp(scratch::SCRATCH_BYTES, 64 * 1024);
        server.read_buf.reserve(more);
    }
    poll_fn(|cx| {
        let read = pin!(server.stream.read_buf(&mut server.read_buf)).poll(cx);
        if let Poll::Ready(read) = read {
            return Poll::Ready(match read {
                Ok(n) if n > 0 => ServerRead::Bytes,
                _ => ServerRead::Lost,
            });
        }
        handle.set_waker(cx.waker());
        let signals = handle.take_signals();
        if signals != 0 {
            return Poll::Ready(ServerRead::Signals(signals));
        }
        if *watch {
            match client.poll_silence(cx) {
                Poll::Ready(Silence::Closed) => return Poll::Ready(ServerRead::ClientClosed),
                Poll::Ready(_) => *watch = false,
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}

/// Sends bytes to a client; one that does not read for `timeout` is given up.
pub async fn send(stream: &mut Stream, bytes: &[u8], timeout: Duration) -> io::Result<()> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..)
        && !rest.is_empty()
    {
        let write = stream.write(rest);
        let mut write = pin!(write);
        // The ordinary case is a socket with room: no timer is made for it.
        let first = poll_fn(|cx| match write.as_mut().poll(cx) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending => Poll::Ready(None),
        })
        .await;
        let n = match first {
            Some(done) => done?,
            None => {
                tokio::time::timeout(timeout, write).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??
            }
        };
        if n == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        sent += n;
    }
    match stream {
        Stream::Plain(_) => Ok(()),
        Stream::Tls(_) => {
            tokio::time::timeout(timeout, stream.flush()).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
        }
    }
}

/// A packet for the client in answer to a request: number 1.
pub fn packet(payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(payload.len() + HEADER_BYTES);
    let mut seq = 1;
    crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, payload);
    out
}
