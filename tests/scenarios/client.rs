//! The client's end of a session.

use std::time::Duration;

use belay::protocol::mysql::frame::{self, FrameHeader, HEADER_BYTES};
use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Nothing here takes longer, unless it hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// A client with DEPRECATE_EOF and SESSION_TRACK.
pub struct Client {
    pub stream: UnixStream,
    pub buf: BytesMut,
}

/// What an answer was, as far as the scenarios look.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Ok,
    Rows(Vec<Vec<u8>>),
    /// Its number, its text, and the rows that came before it.
    Error(u16, String, usize),
    Closed,
}

impl Client {
    pub fn new(stream: UnixStream) -> Client {
        Client { stream, buf: BytesMut::new() }
    }

    /// The next frame, its number and its payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let read = async {
            loop {
                if let Some(header) = FrameHeader::parse(&self.buf)
                    && self.buf.len() >= header.frame_len()
                {
                    let mut frame = self.buf.split_to(header.frame_len());
                    frame.advance(HEADER_BYTES);
                    return Some((header.seq, frame.to_vec()));
                }
                if !matches!(self.stream.read_buf(&mut self.buf).await, Ok(n) if n > 0) {
                    return None;
                }
            }
        };
        tokio::time::timeout(LIMIT, read).await.unwrap()
    }

    pub async fn send_sql(&mut self, sql: &str) {
        let bytes = query(sql);
        self.stream.write_all(&bytes).await.unwrap();
    }

    pub async fn ask(&mut self, sql: &str) -> Reply {
        self.send_sql(sql).await;
        self.reply().await
    }

    /// An answer; sequence numbers have to be consecutive.
    pub async fn reply(&mut self) -> Reply {
        let (mut rows, mut definitions, mut due) = (None::<Vec<Vec<u8>>>, 0, 1u8);
        loop {
            let Some((seq, payload)) = self.frame().await else { return Reply::Closed };
            assert_eq!(seq, due, "{rows:?} {payload:x?}");
            due = due.wrapping_add(1);
            match (payload[0], &mut rows) {
                (0xFF, rows) => {
                    let code = u16::from_le_bytes([payload[1], payload[2]]);
                    let text = String::from_utf8_lossy(&payload[9..]).into_owned();
                    return Reply::Error(code, text, rows.as_ref().map_or(0, Vec::len));
                }
                (0x00, None) => return Reply::Ok,
                (n, rows @ None) => {
                    *rows = Some(Vec::new());
                    definitions = n;
                }
                _ if definitions > 0 => definitions -= 1,
                (0xFE, Some(rows)) => return Reply::Rows(std::mem::take(rows)),
                (_, Some(rows)) => rows.push(payload),
            }
        }
    }

    /// Whether nothing comes for this long.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        assert!(self.buf.is_empty());
        tokio::time::timeout(time, self.stream.readable()).await.is_err()
    }
}

/// COM_QUERY.
pub fn query(sql: &str) -> BytesMut {
    let mut payload = vec![3];
    payload.extend_from_slice(sql.as_bytes());
    let (mut out, mut seq) = (BytesMut::new(), 0);
    frame::encode_packet(&mut out, &mut seq, &payload);
    out
}

/// One row with one value.
pub fn one(value: &str) -> Reply {
    let mut row = vec![value.len() as u8];
    row.extend_from_slice(value.as_bytes());
    Reply::Rows(vec![row])
}
