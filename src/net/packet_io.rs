//! Whole packets over a stream: for logins and for belay's own statements, where a packet is small and wanted in one piece.
//!
//! The relay of the session task does not use [`PacketIo::read_packet`]; it works on the same two buffers directly, so nothing is
//! lost when a connection passes from login to relaying.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::stream::Stream;
use crate::protocol::mysql::frame::{self, FrameHeader, HEADER_BYTES};

/// Why a packet could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadPacketError {
    /// The peer closed between two packets.
    #[error("the peer closed the connection")]
    Closed,
    /// The socket failed, or the peer closed inside a packet.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The packet is longer than the caller's limit.
    #[error("a packet of more than {0} bytes")]
    TooLong(usize),
    /// The frame does not carry the expected sequence number.
    #[error("packet out of order: expected number {expected}, got {got}")]
    OutOfOrder {
        /// The number that was due.
        expected: u8,
        /// The number that came.
        got: u8,
    },
}

/// A stream with its read and write buffers and the next sequence number.
#[derive(Debug)]
pub struct PacketIo {
    /// The connection.
    pub stream: Stream,
    /// Received and not yet consumed.
    pub read_buf: BytesMut,
    /// To be sent by [`PacketIo::flush`].
    pub write_buf: BytesMut,
    /// The sequence number of the next frame, in either direction.
    pub seq: u8,
}

impl PacketIo {
    /// Empty buffers around `stream`.
    pub fn new(stream: Stream) -> PacketIo {
        PacketIo { stream, read_buf: BytesMut::new(), write_buf: BytesMut::new(), seq: 0 }
    }

    /// Reads one packet of at most `payload_bytes_max`, joining its frames and checking sequence numbers.
    /// Cancel safe: bytes that were read stay in `read_buf`.
    pub async fn read_packet(&mut self, payload_bytes_max: usize) -> Result<Bytes, ReadPacketError> {
        loop {
            if let Some(packet) = self.take_packet(payload_bytes_max)? {
                return Ok(packet);
            }
            self.read_buf.reserve(1024);
            if self.stream.read_buf(&mut self.read_buf).await? == 0 {
                return Err(if self.read_buf.is_empty() {
                    ReadPacketError::Closed
                } else {
                    ReadPacketError::Io(io::ErrorKind::UnexpectedEof.into())
                });
            }
        }
    }

    /// Takes a packet that is complete in `read_buf`.
    pub fn take_packet(&mut self, payload_bytes_max: usize) -> Result<Option<Bytes>, ReadPacketError> {
        let (mut at, mut seq, mut payload_len) = (0, self.seq, 0);
        loop {
            let Some(header) = FrameHeader::parse(&self.read_buf[at..]) else { return Ok(None) };
            if header.seq != seq {
                return Err(ReadPacketError::OutOfOrder { expected: seq, got: header.seq });
            }
            payload_len += header.payload_len;
            if payload_len > payload_bytes_max {
                return Err(ReadPacketError::TooLong(payload_bytes_max));
            }
            at += header.frame_len();
            seq = seq.wrapping_add(1);
            if self.read_buf.len() < at {
                return Ok(None);
            }
            if !header.continues() {
                break;
            }
        }
        self.seq = seq;
        let mut frames = self.read_buf.split_to(at);
        if payload_len + HEADER_BYTES == at {
            frames.advance(HEADER_BYTES);
            return Ok(Some(frames.freeze()));
        }
        let mut joined = BytesMut::with_capacity(payload_len);
        while let Some(header) = FrameHeader::parse(&frames) {
            frames.advance(HEADER_BYTES);
            joined.extend_from_slice(&frames.split_to(header.payload_len));
        }
        Ok(Some(joined.freeze()))
    }

    /// Appends a packet to what will be sent.
    pub fn queue_packet(&mut self, payload: &[u8]) {
        frame::encode_packet(&mut self.write_buf, &mut self.seq, payload);
    }

    /// Sends everything queued.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all_buf(&mut self.write_buf).await?;
        self.stream.flush().await
    }

    /// Gives back the memory of empty buffers; called when a connection goes idle.
    pub fn shrink(&mut self) {
        if self.read_buf.is_empty() {
            self.read_buf = BytesMut::new();
        }
        if self.write_buf.is_empty() {
            self.write_buf = BytesMut::new();
        }
    }
}
