//! A request on its way to the node: in one write while its bytes stay for later, or streamed with back-pressure if it is long.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};

use crate::net::packet_io::PacketIo;
use crate::net::scratch;
use crate::net::stream::{Silence, Stream};
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::proxy::execute::Request;
use crate::proxy::relay::consume;
use crate::proxy::session::ClientSession;
use crate::proxy::wire;

/// What has become of the bytes of the request being served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sending {
    /// They are all in the buffer.
    #[default]
    Untouched,
    /// They were passed on as they came.
    Streamed {
        /// Bytes of the present frame still to come.
        left: usize,
        /// Whether another frame continues it.
        continues: bool,
    },
}

impl Sending {
    /// Nothing of the request is left.
    pub const SENT: Sending = Sending::Streamed { left: 0, continues: false };
}

/// How sending a request ended.
pub(super) enum Sent {
    /// All of it is on its way.
    All,
    /// The node took no more. It may have said why.
    ServerLost,
    /// The client closed in the middle.
    ClientGone,
    /// The request is longer than `packet_bytes_max`; the server session has half of it and is of no use any more.
    TooLong,
}

/// A request of belay's making, as one packet.
pub(super) fn command_packet(command: u8, rest: &[u8]) -> BytesMut {
    let mut payload = BytesMut::with_capacity(rest.len() + 1);
    payload.put_u8(command);
    payload.put_slice(rest);
    let mut out = BytesMut::with_capacity(payload.len() + HEADER_BYTES);
    let mut seq = 0;
    crate::protocol::mysql::frame::encode_packet(&mut out, &mut seq, &payload);
    out
}

impl ClientSession {
    pub(super) async fn send_request(&mut self, request: &Request<'_>) -> Sent {
        let timeout = self.cx.client_write_timeout;
        let Some(lease) = &mut self.lease else { return Sent::ServerLost };
        let mut closes = BytesMut::new();
        lease.prepared.write_closes(&mut closes);
        let server = &mut lease.conn.io.stream;
        // Statements that were pushed out are closed with whatever comes next: they have no answer, and must not pile up on the server.
        if !closes.is_empty() && wire::send(server, &closes, timeout).await.is_err() {
            return Sent::ServerLost;
        }
        let bytes = match &request.rewritten {
            Some(own) => &own[..],
            None if request.head.complete => {
                self.io.read_buf.get(..request.head.header.frame_len()).unwrap_or_default()
            }
            None => return Box::pin(self.stream_request(request, timeout)).await,
        };
        match wire::send(server, bytes, timeout).await {
            Ok(()) => Sent::All,
            Err(_) => Sent::ServerLost,
        }
    }

    async fn stream_request(&mut self, request: &Request<'_>, timeout: Duration) -> Sent {
        let (mut left, mut continues) = (request.head.header.frame_len(), request.head.header.continues());
        let mut total = 0usize;
        loop {
            while left > 0 {
                if self.io.read_buf.is_empty() && !self.read_client().await {
                    return Sent::ClientGone;
                }
                let take = left.min(self.io.read_buf.len());
                total += take;
                if total > self.cx.packet_bytes_max {
                    return Sent::TooLong;
                }
                let Some(lease) = &mut self.lease else { return Sent::ServerLost };
                let bytes = self.io.read_buf.get(..take).unwrap_or_default();
                let sent = wire::send(&mut lease.conn.io.stream, bytes, timeout).await;
                consume(&mut self.io.read_buf, take);
                left -= take;
                self.sending = Sending::Streamed { left, continues };
                if sent.is_err() {
                    return Sent::ServerLost;
                }
            }
            if !continues {
                return Sent::All;
            }
            let next = loop {
                match FrameHeader::parse(&self.io.read_buf) {
                    Some(next) => break next,
                    None if self.read_client().await => {}
                    None => return Sent::ClientGone,
                }
            };
            (left, continues) = (next.frame_len(), next.continues());
        }
    }
}

/// How sending the client's file (LOAD DATA LOCAL) ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileEnd {
    /// All of it is on its way; the node's verdict is due.
    Sent,
    /// The client closed in the middle.
    ClientGone,
    /// The node was lost. The client has sent all of its file and waits for a packet of this number.
    ServerLost {
        /// The number of the frame that the client expects next.
        next_seq: u8,
    },
}

/// Passes the client's file on, frame by frame, up to the empty packet that ends it. The client's sequence numbers are `seq_shift` ahead of the
/// node's; one that sends nothing for `timeout` is given up. When the node is lost the rest of the file is read all the same: only then does the client listen.
pub(super) async fn file(client: &mut PacketIo, server: &mut PacketIo, seq_shift: u8, timeout: Duration) -> FileEnd {
    let mut lost = false;
    let mut left = 0usize;
    loop {
        if left == 0
            && let Some(header) = FrameHeader::parse(&client.read_buf)
        {
            let head = FrameHeader { seq: header.seq.wrapping_sub(seq_shift), ..header }.encode();
            lost = lost || wire::send(&mut server.stream, &head, timeout).await.is_err();
            client.read_buf.advance(HEADER_BYTES);
            if header.payload_len == 0 {
                return if lost { FileEnd::ServerLost { next_seq: header.seq.wrapping_add(1) } } else { FileEnd::Sent };
            }
            left = header.payload_len;
        }
        if left == 0 || client.read_buf.is_empty() {
            match read_file(client, &server.stream, lost, timeout).await {
                FileRead::Some => {}
                FileRead::ClientGone => return FileEnd::ClientGone,
                FileRead::ServerLost => lost = true,
            }
            continue;
        }
        let take = left.min(client.read_buf.len());
        lost = lost
            || wire::send(&mut server.stream, client.read_buf.get(..take).unwrap_or_default(), timeout).await.is_err();
        consume(&mut client.read_buf, take);
        left -= take;
    }
}

enum FileRead {
    Some,
    ClientGone,
    ServerLost,
}

/// Reads more of the client's file while watching the node, unless that is `lost` already.
async fn read_file(client: &mut PacketIo, server: &Stream, lost: bool, timeout: Duration) -> FileRead {
    scratch::ensure(&mut client.read_buf);
    client.read_buf.reserve(scratch::SCRATCH_BYTES / 2);
    let mut read = pin!(wire::read_more(&mut client.stream, &mut client.read_buf, timeout));
    poll_fn(|cx| {
        if let Poll::Ready(some) = read.as_mut().poll(cx) {
            return Poll::Ready(if some { FileRead::Some } else { FileRead::ClientGone });
        }
        // What a node says too early (it gave the file up) is read after the file.
        if !lost && matches!(server.poll_silence(cx), Poll::Ready(Silence::Closed)) {
            return Poll::Ready(FileRead::ServerLost);
        }
        Poll::Pending
    })
    .await
}
