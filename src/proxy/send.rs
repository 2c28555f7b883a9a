//! A request on its way to the node: in one write while its bytes stay for later, or streamed with back-pressure if it is long.

use std::time::Duration;

use crate::protocol::mysql::frame::FrameHeader;
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

impl ClientSession {
    pub(super) async fn send_request(&mut self, request: &Request<'_>) -> Sent {
        let timeout = self.cx.client_write_timeout;
        let Some(lease) = &mut self.lease else { return Sent::ServerLost };
        let server = &mut lease.conn.io.stream;
        let bytes = match &request.rewritten {
            Some(own) => &own[..],
            None if request.head.complete => self.io.read_buf.get(..request.head.header.frame_len()).unwrap_or_default(),
            None => return self.stream_request(request, timeout).await,
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
