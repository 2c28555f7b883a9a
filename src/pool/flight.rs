//! A flight: belay's own statements to a node, sent in one write, answered in order.
//!
//! Each entry of the queue knows the shape of its answer; the same tracker that relays a client's answer finds the end of each. No flag elsewhere
//! says 'this one is not the client's'.

use std::io;
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::net::scratch;
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::codec::Reader;
use crate::protocol::mysql::frame::{self, FrameHeader, HEADER_BYTES};
use crate::protocol::mysql::packet::column::ColumnDef;
use crate::protocol::mysql::packet::eof::EofPacket;
use crate::protocol::mysql::packet::err::ErrPacket;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::protocol::mysql::packet::prepare_ok::PrepareOk;
use crate::protocol::mysql::reply::{FrameKind, Inspect, ReplyShape, ReplyTracker};

/// Bytes of all rows that one flight may bring.
const ROWS_BYTES_MAX: usize = 4 << 20;

/// A node that leaves belay's own statements unanswered for this long is held to be lost. They are short, but one may wait for a lock on a table.
pub const FLIGHT_TIME_MAX: Duration = Duration::from_secs(30);

/// One statement of belay's own.
#[derive(Clone, Debug)]
pub enum Ask {
    /// COM_QUERY
    Query(Bytes),
    /// COM_INIT_DB
    InitDb(Bytes),
    /// COM_STMT_PREPARE
    Prepare(Bytes),
    /// COM_RESET_CONNECTION
    ResetConnection,
    /// COM_SET_OPTION: 0 switches several statements in one COM_QUERY on, 1 off.
    SetOption(u16),
    /// COM_PING
    Ping,
    /// Clears the messages of the statements before, by the one kind of statement that does so on every server: one that reads a table, even a derived one.
    ClearMessages,
}

/// See [`Ask::ClearMessages`].
const CLEAR_MESSAGES: &[u8] = b"SELECT 1 FROM (SELECT 1) belay LIMIT 0";

impl Ask {
    fn write(&self, out: &mut BytesMut) {
        let mut payload = BytesMut::new();
        match self {
            Ask::Query(sql) => put(&mut payload, 0x03, sql),
            Ask::InitDb(schema) => put(&mut payload, 0x02, schema),
            Ask::Prepare(sql) => put(&mut payload, 0x16, sql),
            Ask::ResetConnection => put(&mut payload, 0x1F, b""),
            Ask::SetOption(option) => put(&mut payload, 0x1B, &option.to_le_bytes()),
            Ask::Ping => put(&mut payload, 0x0E, b""),
            Ask::ClearMessages => put(&mut payload, 0x03, CLEAR_MESSAGES),
        }
        let mut seq = 0;
        frame::encode_packet(out, &mut seq, &payload);
    }

    fn shape(&self) -> ReplyShape {
        match self {
            Ask::Query(_) | Ask::ClearMessages => ReplyShape::Query,
            Ask::Prepare(_) => ReplyShape::Prepare,
            Ask::SetOption(_) => ReplyShape::SetOption,
            Ask::InitDb(_) | Ask::ResetConnection | Ask::Ping => ReplyShape::Simple,
        }
    }
}

fn put(out: &mut BytesMut, command: u8, rest: &[u8]) {
    out.put_u8(command);
    out.put_slice(rest);
}

/// What is known of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Type byte (`MYSQL_TYPE_*`).
    pub type_byte: u8,
    /// The value is unsigned.
    pub unsigned: bool,
}

/// The answer to one of them.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    /// The error, if it is one.
    pub error: Option<ErrorReply>,
    /// Status flags of the last OK or EOF.
    pub status: StatusFlags,
    /// Session state of the last OK packet that had any.
    pub session_state: Bytes,
    /// Number of warnings.
    pub warnings: u16,
    /// Columns of a text result.
    pub columns: Vec<Column>,
    /// Their definitions, as they were sent.
    pub definitions: Vec<Bytes>,
    /// Rows of a text result.
    pub rows: Vec<Vec<Option<Bytes>>>,
    /// Of a PREPARE.
    pub prepared: Option<PrepareOk>,
}

impl Answer {
    /// The first column of the first row.
    pub fn single(&self) -> Option<&Bytes> {
        self.rows.first().and_then(|row| row.first()).and_then(Option::as_ref)
    }
}

/// Why a flight did not come back. The server session is to be thrown away.
#[derive(Debug, thiserror::Error)]
pub enum FlightError {
    /// The socket failed or the node closed it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The node broke the protocol or sent too much.
    #[error("{0}")]
    Protocol(String),
}

/// Sends `first` (ready-made packets without an answer) and all `asks` in one write, and reads the answers, within `FLIGHT_TIME_MAX`. An error
/// reply is an answer. Not cancel safe: a flight that was begun and not finished leaves answers on the way; throw the session away.
pub async fn fly(conn: &mut ServerConn, first: &[u8], asks: &[Ask]) -> Result<Vec<Answer>, FlightError> {
    match tokio::time::timeout(FLIGHT_TIME_MAX, there_and_back(conn, first, asks)).await {
        Ok(flown) => flown,
        Err(_) => Err(FlightError::Io(io::ErrorKind::TimedOut.into())),
    }
}

impl ServerConn {
    /// Runs one statement of belay's own. An error reply is an answer; after a [`FlightError`] the connection is of no use.
    pub async fn query(&mut self, sql: impl Into<Bytes>) -> Result<Answer, FlightError> {
        let mut answers = fly(self, b"", &[Ask::Query(sql.into())]).await?;
        answers.pop().ok_or_else(|| FlightError::Protocol("an answer is missing".into()))
    }
}

async fn there_and_back(conn: &mut ServerConn, first: &[u8], asks: &[Ask]) -> Result<Vec<Answer>, FlightError> {
    let mut out = scratch::take();
    out.put_slice(first);
    for ask in asks {
        ask.write(&mut out);
    }
    let sent = send(conn, &out).await;
    out.clear();
    scratch::give_back(&mut out);
    sent?;
    let mut answers = Vec::with_capacity(asks.len());
    let mut bytes_left = ROWS_BYTES_MAX;
    for ask in asks {
        let answer = receive(conn, ask.shape(), &mut bytes_left).await?;
        let new = answer.error.is_some() || answer.warnings > 0;
        conn.messages = new || (conn.messages && !matches!(ask, Ask::ClearMessages));
        answers.push(answer);
    }
    // The OK of a PREPARE has no status, nor has an error.
    if let Some(answer) = answers.iter().rfind(|a| a.prepared.is_none() && a.error.is_none()) {
        conn.status = answer.status;
    }
    if !conn.io.read_buf.is_empty() {
        // It is about to close. What it says must not be taken for the answer to what is sent next.
        return Err(FlightError::Protocol("the node sent something behind its last answer".into()));
    }
    scratch::give_back(&mut conn.io.read_buf);
    Ok(answers)
}

async fn send(conn: &mut ServerConn, bytes: &[u8]) -> io::Result<()> {
    conn.io.stream.write_all(bytes).await?;
    conn.io.stream.flush().await
}

async fn receive(conn: &mut ServerConn, shape: ReplyShape, bytes_left: &mut usize) -> Result<Answer, FlightError> {
    let mut tracker = ReplyTracker::new(shape, conn.capabilities);
    let mut answer = Answer::default();
    while !tracker.is_done() {
        let header = loop {
            if let Some(header) = FrameHeader::parse(&conn.io.read_buf)
                && conn.io.read_buf.len() >= header.frame_len()
            {
                break header;
            }
            scratch::ensure(&mut conn.io.read_buf);
            conn.io.read_buf.reserve(4096);
            if conn.io.stream.read_buf(&mut conn.io.read_buf).await? == 0 {
                return Err(FlightError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        };
        if header.payload_len > *bytes_left {
            return Err(FlightError::Protocol(format!(
                "more than {ROWS_BYTES_MAX} bytes in answer to belay's own statement"
            )));
        }
        *bytes_left -= header.payload_len;
        let frame = conn.io.read_buf.split_to(header.frame_len());
        let payload = &frame[HEADER_BYTES..];
        debug_assert!(matches!(tracker.inspect(header, payload.first().copied()), Inspect::Whole | Inspect::Prefix));
        let step = tracker.advance(header, payload).map_err(|e| FlightError::Protocol(e.to_string()))?;
        note(&mut answer, step.kind, payload, conn.capabilities).map_err(|e| FlightError::Protocol(e.to_string()))?;
    }
    Ok(answer)
}

fn note(
    answer: &mut Answer,
    kind: FrameKind,
    payload: &[u8],
    server: Capabilities,
) -> Result<(), crate::protocol::mysql::codec::DecodeError> {
    match kind {
        FrameKind::Ok => {
            let ok = OkPacket::decode(payload, server)?;
            answer.status = ok.status;
            answer.warnings = ok.warnings;
            if !ok.session_state.is_empty() {
                answer.session_state = Bytes::copy_from_slice(ok.session_state);
            }
        }
        FrameKind::ResultEnd => {
            (answer.status, answer.warnings) =
                if server.contains(Capabilities::DEPRECATE_EOF) && !EofPacket::is_old_end(payload) {
                    let ok = OkPacket::decode(payload, server)?;
                    if !ok.session_state.is_empty() {
                        answer.session_state = Bytes::copy_from_slice(ok.session_state);
                    }
                    (ok.status, ok.warnings)
                } else {
                    let eof = EofPacket::decode(payload)?;
                    (eof.status, eof.warnings)
                };
        }
        FrameKind::Err => answer.error = Some(ErrPacket::decode(payload)?.to_reply()),
        FrameKind::ColumnDef => {
            let column = ColumnDef::decode(payload, server)?;
            let unsigned = column.flags & ColumnDef::UNSIGNED_FLAG != 0;
            answer.columns.push(Column { type_byte: column.type_byte, unsigned });
            answer.definitions.push(Bytes::copy_from_slice(payload));
        }
        FrameKind::Row => {
            let mut reader = Reader::new(payload);
            let mut row = Vec::new();
            while !reader.is_empty() {
                row.push(reader.text_value("row")?.map(Bytes::copy_from_slice));
            }
            answer.rows.push(row);
        }
        FrameKind::PrepareOk => answer.prepared = Some(PrepareOk::decode(payload, server)?),
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::packet_io::PacketIo;
    use crate::net::stream::{Plain, Stream};
    use crate::protocol::mysql::flavor::Flavor;
    use tokio::net::UnixStream;

    const OK: &[u8] = b"\x07\0\0\x01\0\0\0\x02\0\0\0";

    fn connected() -> (ServerConn, UnixStream) {
        let (ours, node) = UnixStream::pair().unwrap();
        let conn = ServerConn {
            io: PacketIo::new(Stream::Plain(Plain::Unix(ours))),
            thread_id: 1,
            greeted_collation: 45,
            capabilities: Capabilities::PROTOCOL_41 | Capabilities::DEPRECATE_EOF,
            server_version: "10.11.19-MariaDB".into(),
            flavor: Flavor::MariaDb,
            status: StatusFlags::AUTOCOMMIT,
            tls: false,
            messages: false,
        };
        (conn, node)
    }

    #[tokio::test]
    async fn all_is_sent_at_once_and_answered_in_order() {
        let (mut conn, mut node) = connected();
        node.write_all(&[OK, b"\x05\0\0\x01\xff\x51\x04no", OK].concat()).await.unwrap();
        let asks = [Ask::Query(Bytes::from_static(b"SET a=1")), Ask::InitDb(Bytes::from_static(b"d")), Ask::Ping];
        let answers = fly(&mut conn, b"first", &asks).await.unwrap();
        assert_eq!(answers.iter().map(|a| a.error.is_some()).collect::<Vec<_>>(), [false, true, false]);
        let mut sent = [0; 64];
        let n = node.read(&mut sent).await.unwrap();
        assert_eq!(&sent[..n], b"first\x08\0\0\0\x03SET a=1\x02\0\0\0\x02d\x01\0\0\0\x0e");
    }

    #[tokio::test]
    async fn a_farewell_behind_the_last_answer_is_no_answer() {
        let (mut conn, mut node) = connected();
        node.write_all(&[OK, b"\x05\0\0\0\xff\x87\x07no"].concat()).await.unwrap();
        assert!(matches!(fly(&mut conn, b"", &[Ask::Ping]).await, Err(FlightError::Protocol(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_not_waited_for_without_end() {
        let (mut conn, _node) = connected();
        let Err(FlightError::Io(error)) = fly(&mut conn, b"", &[Ask::Ping]).await else { panic!("it was silent") };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
