//! A node that follows a script: it greets, lets everybody in, answers what belay asks for itself, and leaves the rest to the script.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use belay::protocol::mysql::frame::{self, FrameHeader, HEADER_BYTES};
use belay::protocol::mysql::packet::handshake::Handshake;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

/// The greeting of a MariaDB 10.11.
const GREETING: &[u8] = include_bytes!("../fuzz/corpus/greetings/mariadb");
/// An OK: autocommit on, no transaction.
pub const OK: &[u8] = b"\0\0\0\x02\0\0\0";
/// The definition of a column named `1`.
pub const COLUMN: &[u8] = b"\x03def\0\0\0\x011\0\x0c\x3f\0\x01\0\0\0\x03\x81\0\0\0\0";
/// The end of rows.
pub const END: &[u8] = b"\xfe\0\0\x02\0\0\0";

/// What the node does with a statement.
pub enum Act {
    /// Sends these frames.
    Answer(Vec<u8>),
    /// Sends these bytes, and closes.
    Close(Vec<u8>),
    /// Sends these frames, the last of which asks for the client's file, and reads it; then it says OK, or closes after the first frame.
    File(Vec<u8>, bool),
    /// Sends a result of this many rows of 10,000 bytes.
    Many(usize),
    /// Says nothing until it is killed.
    Hang,
    /// Says this after a while.
    After(Duration, Vec<u8>),
}

/// What the script says to a statement.
pub type Script = fn(&str) -> Act;

/// Frames of an answer, numbered from 1.
pub fn answer<T: AsRef<[u8]>>(payloads: &[T]) -> Vec<u8> {
    let (mut out, mut seq) = (BytesMut::new(), 1);
    for payload in payloads {
        frame::encode_packet(&mut out, &mut seq, payload.as_ref());
    }
    out.to_vec()
}

/// A recorded answer without the two bytes that tell its capabilities and shape.
pub fn recorded(name: &str) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/replies").join(name);
    std::fs::read(path).unwrap()[2..].to_vec()
}

/// How many frames these are.
pub fn answer_frames(mut bytes: &[u8]) -> usize {
    let mut n = 0;
    while let Some(header) = FrameHeader::parse(bytes) {
        bytes = &bytes[header.frame_len()..];
        n += 1;
    }
    n
}

/// The answer of most statements: rows, one of them.
pub fn rows(value: &str) -> Vec<u8> {
    let mut row = vec![value.len() as u8];
    row.extend_from_slice(value.as_bytes());
    answer(&[b"\x01", COLUMN, &row, END])
}

/// The node as a test sees it.
pub struct Node {
    pub address: String,
    path: PathBuf,
    /// Connections now, and the most there ever were.
    pub connections: AtomicUsize,
    pub connections_most: AtomicUsize,
    /// Statements, without belay's own beginnings of sessions.
    said: Mutex<Vec<(u32, String)>>,
    killed: Mutex<HashMap<u32, Arc<Notify>>>,
    interrupted: Mutex<HashMap<u32, Arc<Notify>>>,
    next_id: AtomicU32,
    /// Bytes of requests that were read.
    pub bytes: AtomicUsize,
    /// Bytes of long results that were sent.
    pub bytes_out: AtomicUsize,
    /// Requests longer than this are refused at once, and the connection closed.
    pub request_bytes_max: AtomicUsize,
    /// Set to keep the node from reading on within a long request.
    pub stalled: Mutex<Option<Arc<Notify>>>,
    /// How long it takes to close after a goodbye or a KILL.
    pub close_after: Mutex<Duration>,
    script: Script,
}

impl Node {
    pub fn start(script: Script) -> Arc<Node> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("belay-scenario-{}-{number}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let node = Arc::new(Node {
            address: format!("unix:{}", path.display()),
            path,
            connections: AtomicUsize::new(0),
            connections_most: AtomicUsize::new(0),
            said: Mutex::default(),
            killed: Mutex::default(),
            interrupted: Mutex::default(),
            next_id: AtomicU32::new(100),
            bytes: AtomicUsize::new(0),
            bytes_out: AtomicUsize::new(0),
            request_bytes_max: AtomicUsize::new(usize::MAX),
            stalled: Mutex::default(),
            close_after: Mutex::new(Duration::ZERO),
            script,
        });
        let accepting = node.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accepting.clone().serve(stream));
            }
        });
        node
    }

    /// The statements so far.
    pub fn said(&self) -> Vec<String> {
        self.said.lock().unwrap().iter().map(|(_, text)| text.clone()).collect()
    }

    /// The connection on which this was said last.
    pub fn said_by(&self, text: &str) -> Option<u32> {
        self.said.lock().unwrap().iter().rev().find(|(_, said)| said == text).map(|(id, _)| *id)
    }

    /// Closes every connection, as a process that dies.
    pub fn lose_all(&self) {
        self.killed.lock().unwrap().values().for_each(|k| k.notify_one());
    }

    async fn serve(self: Arc<Node>, stream: UnixStream) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let killed = Arc::new(Notify::new());
        self.killed.lock().unwrap().insert(id, killed.clone());
        self.interrupted.lock().unwrap().insert(id, Arc::default());
        let now = self.connections.fetch_add(1, Ordering::SeqCst) + 1;
        self.connections_most.fetch_max(now, Ordering::SeqCst);
        let conversation = self.clone().converse(stream, id);
        tokio::select! {
            _ = conversation => {}
            _ = killed.notified() => {}
        }
        self.killed.lock().unwrap().remove(&id);
        self.connections.fetch_sub(1, Ordering::SeqCst);
    }

    async fn converse(self: Arc<Node>, mut stream: UnixStream, id: u32) -> Option<()> {
        let greeting = Handshake { thread_id: id, ..Handshake::decode(GREETING).unwrap() };
        let mut hello = answer(&[greeting.encode()]);
        hello[3] = 0;
        stream.write_all(&hello).await.ok()?;
        self.read_packet(&mut stream).await?;
        let mut welcome = answer(&[OK]);
        welcome[3] = 2;
        stream.write_all(&welcome).await.ok()?;
        let mut prepared = 0;
        loop {
            let packet = self.read_packet(&mut stream).await?;
            if (0x16..=0x1C).contains(packet.first()?) && packet.first() != Some(&0x1B) {
                stream.write_all(&self.about_statement(&packet, id, &mut prepared)?).await.ok()?;
                continue;
            }
            let text = String::from_utf8_lossy(packet.get(1..).unwrap_or_default()).into_owned();
            match packet.first()? {
                1 => {
                    let pause = *self.close_after.lock().unwrap();
                    tokio::time::sleep(pause).await;
                    return None;
                }
                3 => {}
                0x0E => {
                    self.said.lock().unwrap().push((id, "PING".into()));
                    if !matches!((self.script)("PING"), Act::Hang) {
                        stream.write_all(&answer(&[OK])).await.ok()?;
                    }
                    continue;
                }
                command => {
                    // The script can keep these waiting, and no more.
                    let text = match command {
                        2 => format!("USE {text}"),
                        0x1B => "SET OPTION".to_owned(),
                        0x1F => "RESET CONNECTION".to_owned(),
                        command => format!("COMMAND {command}"),
                    };
                    let verdict = match (self.script)(&text) {
                        Act::Hang => self.hang(id, &text).await?,
                        _ => answer(&[OK]),
                    };
                    stream.write_all(&verdict).await.ok()?;
                    continue;
                }
            }
            if let Some(own) = own_statement(&text) {
                stream.write_all(&own).await.ok()?;
                continue;
            }
            self.said.lock().unwrap().push((id, text.clone()));
            if let Some(target) = text.strip_prefix("KILL ").and_then(|id| id.parse::<u32>().ok()) {
                stream.write_all(&answer(&[OK])).await.ok()?;
                let pause = *self.close_after.lock().unwrap();
                tokio::time::sleep(pause).await;
                if let Some(killed) = self.killed.lock().unwrap().get(&target) {
                    killed.notify_one();
                }
                continue;
            }
            if let Some(target) = text.strip_prefix("KILL QUERY ").and_then(|id| id.parse::<u32>().ok()) {
                if let Some(interrupted) = self.interrupted.lock().unwrap().get(&target) {
                    interrupted.notify_one();
                }
                stream.write_all(&answer(&[OK])).await.ok()?;
                continue;
            }
            match (self.script)(&text) {
                Act::Answer(bytes) => stream.write_all(&bytes).await.ok()?,
                Act::After(pause, bytes) => {
                    tokio::time::sleep(pause).await;
                    stream.write_all(&bytes).await.ok()?;
                }
                Act::Close(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    return None;
                }
                Act::File(bytes, whole) => self.read_file(&mut stream, &bytes, whole).await?,
                Act::Many(n) => self.many_rows(&mut stream, n).await?,
                Act::Hang => {
                    let verdict = self.hang(id, "").await?;
                    stream.write_all(&verdict).await.ok()?;
                }
            }
        }
    }

    /// Waits until somebody interrupts what this connection does.
    async fn hang(&self, id: u32, text: &str) -> Option<Vec<u8>> {
        if !text.is_empty() {
            self.said.lock().unwrap().push((id, text.to_owned()));
        }
        let interrupted = self.interrupted.lock().unwrap().get(&id)?.clone();
        interrupted.notified().await;
        Some(answer(&[b"\xff\x25\x05#70100Query execution was interrupted"]))
    }

    /// The binary protocol: every statement can be prepared, has one column, and as many parameters as question marks.
    fn about_statement(&self, packet: &[u8], id: u32, prepared: &mut u32) -> Option<Vec<u8>> {
        let statement = u32::from_le_bytes(packet.get(1..5)?.try_into().ok()?);
        let rest = packet.get(5..).unwrap_or_default();
        let (said, bytes) = match packet.first()? {
            0x16 => {
                *prepared += 1;
                let sql = String::from_utf8_lossy(&packet[1..]).into_owned();
                let params = sql.matches('?').count();
                let mut first = vec![0];
                first.extend_from_slice(&prepared.to_le_bytes());
                first.extend_from_slice(&[1, 0, params as u8, 0, 0, 0, 0]);
                let mut packets = vec![first];
                packets.extend(std::iter::repeat_n(COLUMN.to_vec(), params + 1));
                (format!("PREPARE {sql}"), answer(&packets))
            }
            0x17 if rest[0] & 1 == 1 => (format!("EXECUTE {statement} cursor"), recorded("mariadb_deprecate_cursor")),
            0x17 => {
                // One parameter: a byte of NULLs, whether types follow, the type.
                let types = if rest.get(6) == Some(&1) { format!(" types {:?}", &rest[7..9]) } else { String::new() };
                (format!("EXECUTE {statement}{types}"), answer(&[&b"\x01"[..], COLUMN, b"\0\0\x07\0\0\0", END]))
            }
            0x18 => (format!("LONG DATA {statement}"), Vec::new()),
            0x19 => (format!("CLOSE {statement}"), Vec::new()),
            0x1A => (format!("RESET {statement}"), answer(&[OK])),
            _ => (format!("FETCH {statement}"), recorded("mariadb_deprecate_fetch")),
        };
        self.said.lock().unwrap().push((id, said));
        Some(bytes)
    }

    async fn many_rows(&self, stream: &mut UnixStream, n: usize) -> Option<()> {
        let mut row = vec![0xFC, 0x0D, 0x27];
        row.resize(10_000, b'r');
        let mut seq = 1u8;
        let ends = [&[&b"\x01"[..], COLUMN][..], &[END]];
        for (payloads, rows) in [(ends[0], n), (ends[1], 0)] {
            for payload in payloads.iter().copied().chain(std::iter::repeat_n(&row[..], rows)) {
                let mut frame = BytesMut::new();
                frame::encode_packet(&mut frame, &mut seq, payload);
                stream.write_all(&frame).await.ok()?;
                self.bytes_out.fetch_add(frame.len(), Ordering::SeqCst);
            }
        }
        Some(())
    }

    /// Asks for a file and reads it. Frames have to be numbered on from the question.
    async fn read_file(&self, stream: &mut UnixStream, question: &[u8], whole: bool) -> Option<()> {
        stream.write_all(question).await.ok()?;
        let mut due = answer_frames(question) as u8 + 1;
        loop {
            let mut head = [0; HEADER_BYTES];
            stream.read_exact(&mut head).await.ok()?;
            let header = FrameHeader::parse(&head)?;
            let right = header.seq == due;
            due = due.wrapping_add(1);
            let mut payload = vec![0; header.payload_len];
            stream.read_exact(&mut payload).await.ok()?;
            self.said.lock().unwrap().push((0, String::from_utf8_lossy(&payload).into_owned()));
            if !right {
                self.said.lock().unwrap().push((0, "out of order".into()));
                return None;
            }
            if !whole {
                return None;
            }
            if payload.is_empty() {
                let mut verdict = answer(&[OK]);
                verdict[3] = due;
                return stream.write_all(&verdict).await.ok();
            }
        }
    }

    /// The payload of a request; of a long one its beginning.
    async fn read_packet(&self, stream: &mut UnixStream) -> Option<Vec<u8>> {
        let mut payload = Vec::new();
        let mut buf = vec![0; 64 * 1024];
        loop {
            let mut head = [0; HEADER_BYTES];
            stream.read_exact(&mut head).await.ok()?;
            let header = FrameHeader::parse(&head)?;
            let mut left = header.payload_len;
            if left > self.request_bytes_max.load(Ordering::SeqCst) {
                stream
                    .write_all(&answer(&[b"\xff\x81\x04#08S01Got a packet bigger than 'max_allowed_packet' bytes"]))
                    .await
                    .ok()?;
                return None;
            }
            while left > 0 {
                let stalled = self.stalled.lock().unwrap().clone();
                if let Some(stalled) = stalled.filter(|_| self.bytes.load(Ordering::SeqCst) > 0 && left > 100_000) {
                    stalled.notified().await;
                    *self.stalled.lock().unwrap() = None;
                }
                let n = left.min(buf.len());
                let n = stream.read(&mut buf[..n]).await.ok().filter(|n| *n > 0)?;
                if payload.len() < 4096 {
                    payload.extend_from_slice(&buf[..n.min(4096)]);
                }
                self.bytes.fetch_add(n, Ordering::SeqCst);
                left -= n;
            }
            if !header.continues() {
                return Some(payload);
            }
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// What belay asks when it opens or cleans a server session.
fn own_statement(text: &str) -> Option<Vec<u8>> {
    if text.starts_with("SELECT CURRENT_USER()") {
        return Some(rows("app@%"));
    }
    if text == "SELECT CURRENT_ROLE()" {
        return Some(answer(&[b"\x01", COLUMN, b"\xfb", END]));
    }
    if text.starts_with("SHOW SESSION VARIABLES") || text.starts_with("SHOW GLOBAL VARIABLES") {
        let variable = b"\x08sql_mode\0";
        return Some(answer(&[b"\x02", COLUMN, COLUMN, variable, END]));
    }
    (text.starts_with("SET ") && (text.contains("session_track") || text.contains("character_set")))
        .then(|| answer(&[OK]))
}
