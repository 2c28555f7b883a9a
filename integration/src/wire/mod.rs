//! A small client of its own for the MySQL protocol, blocking and without any help: for readiness checks, for the load of the
//! benchmark, and for sending what a well-behaved driver never would. It shares no code with belay, so that a misreading of the
//! protocol there is not repeated here.

mod login;
mod reply;

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

pub use login::{Login, caps, plain_response};
pub use reply::{Reply, Row, Rows};

/// An answer of the server that says no, or a connection that broke.
#[derive(Debug)]
pub enum WireError {
    /// An ERR packet.
    Server {
        /// The error's number.
        code: u16,
        /// SQLSTATE; empty where the server sent none.
        state: String,
        /// The text.
        message: String,
    },
    /// The socket failed or ended.
    Io(io::Error),
    /// The server sent what this client cannot understand.
    Malformed(String),
}

impl WireError {
    /// The number of a server's error; 0 for anything else.
    pub fn code(&self) -> u16 {
        match self {
            WireError::Server { code, .. } => *code,
            _ => 0,
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WireError::Server { code, state, message } => write!(f, "ERROR {code} ({state}): {message}"),
            WireError::Io(e) => write!(f, "connection: {e}"),
            WireError::Malformed(what) => write!(f, "malformed: {what}"),
        }
    }
}

impl std::error::Error for WireError {}

impl From<io::Error> for WireError {
    fn from(e: io::Error) -> WireError {
        WireError::Io(e)
    }
}

/// Result of this client.
pub type WireResult<T> = Result<T, WireError>;

/// Either kind of socket.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Socket {
    /// Connects to `host:port` or `unix:/path`.
    pub fn connect(address: &str) -> io::Result<Socket> {
        if let Some(path) = address.strip_prefix("unix:") {
            return Ok(Socket::Unix(UnixStream::connect(path)?));
        }
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Socket::Tcp(stream))
    }

    /// Limits every later read and write.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Socket::Tcp(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
            Socket::Unix(s) => s.set_read_timeout(limit).and_then(|()| s.set_write_timeout(limit)),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.read(buf),
            Socket::Unix(s) => s.read(buf),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(s) => s.write(buf),
            Socket::Unix(s) => s.write(buf),
        }
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A statement prepared in the binary protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statement {
    /// The id that the server gave.
    pub id: u32,
    /// Number of parameters.
    pub params: u16,
    /// Number of result columns.
    pub columns: u16,
}

/// The longest payload of one frame.
pub const FRAME_BYTES_MAX: usize = 0xFF_FFFF;

/// One connection.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    /// Bytes read and not yet taken, from `start`.
    buffer: Vec<u8>,
    start: usize,
    out: Vec<u8>,
    pub(crate) seq: u8,
    pub(crate) caps: u32,
    /// The server's version as the greeting says it.
    pub version: String,
    /// The connection id as the greeting says it.
    pub connection_id: u32,
    pub(crate) nonce: Vec<u8>,
    pub(crate) plugin: String,
    /// What the server said it can do.
    pub server_caps: u32,
    /// The low byte of the server's collation, as the greeting says it.
    pub collation: u8,
    /// Status flags of the last answer.
    pub status: u16,
}

impl Wire {
    /// Connects and logs in; every read and write is limited to 30 s.
    pub fn login(address: &str, login: &Login<'_>) -> WireResult<Wire> {
        let mut wire = Wire::greet(address)?;
        wire.authenticate(login)?;
        Ok(wire)
    }

    /// Connects and reads the greeting.
    pub fn greet(address: &str) -> WireResult<Wire> {
        let mut wire = Wire::raw(address)?;
        let greeting = wire.read_packet()?;
        wire.take_greeting(&greeting)?;
        Ok(wire)
    }

    /// Connects and does nothing else.
    pub fn raw(address: &str) -> WireResult<Wire> {
        let socket = Socket::connect(address)?;
        socket.set_timeout(Some(Duration::from_secs(30)))?;
        Ok(Wire {
            socket,
            buffer: Vec::with_capacity(16 * 1024),
            start: 0,
            out: Vec::new(),
            seq: 0,
            caps: 0,
            version: String::new(),
            connection_id: 0,
            nonce: Vec::new(),
            plugin: String::new(),
            server_caps: 0,
            collation: 0,
            status: 0,
        })
    }

    /// The socket itself.
    pub fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Runs a statement and reads all its answers; the first one is returned, an error among the later ones is an error.
    pub fn query(&mut self, sql: &str) -> WireResult<Reply> {
        Ok(self.query_all(sql)?.remove(0))
    }

    /// Runs statements and reads all answers.
    pub fn query_all(&mut self, sql: &str) -> WireResult<Vec<Reply>> {
        self.send_command(3, sql.as_bytes())?;
        self.read_replies(false)
    }

    /// The single value of a statement that gives one row of one column; `None` for NULL.
    pub fn value(&mut self, sql: &str) -> WireResult<Option<String>> {
        match self.query(sql)? {
            Reply::Rows(rows) => Ok(rows.first_value()),
            other => Err(WireError::Malformed(format!("expected a row, got {other:?}"))),
        }
    }

    /// The single value as text; NULL reads as `NULL`.
    pub fn text(&mut self, sql: &str) -> WireResult<String> {
        Ok(self.value(sql)?.unwrap_or_else(|| "NULL".into()))
    }

    /// COM_STMT_PREPARE.
    pub fn prepare(&mut self, sql: &str) -> WireResult<Statement> {
        self.prepare_described(sql).map(|(statement, _)| statement)
    }

    /// COM_STMT_PREPARE, with the definitions of parameters and columns as the server sent them.
    pub fn prepare_described(&mut self, sql: &str) -> WireResult<(Statement, Vec<Vec<u8>>)> {
        self.send_command(0x16, sql.as_bytes())?;
        self.read_prepared()
    }

    /// Reads the answer to COM_STMT_PREPARE.
    pub fn read_prepared(&mut self) -> WireResult<(Statement, Vec<Vec<u8>>)> {
        let head = self.read_packet()?;
        reply::error_of(&head)?;
        let at = |i: usize| head.get(i).copied().unwrap_or(0);
        let statement = Statement {
            id: u32::from_le_bytes([at(1), at(2), at(3), at(4)]),
            columns: u16::from_le_bytes([at(5), at(6)]),
            params: u16::from_le_bytes([at(7), at(8)]),
        };
        let mut definitions = Vec::new();
        for count in [statement.params, statement.columns] {
            if count > 0 {
                for _ in 0..count {
                    definitions.push(reply::definition(self.read_packet()?)?);
                }
                if self.caps & caps::DEPRECATE_EOF == 0 {
                    self.read_packet()?;
                }
            }
        }
        Ok((statement, definitions))
    }

    /// COM_STMT_EXECUTE with every parameter sent as a string.
    pub fn execute(&mut self, statement: Statement, params: &[&[u8]]) -> WireResult<Reply> {
        let mut body = Vec::with_capacity(64);
        body.extend_from_slice(&statement.id.to_le_bytes());
        body.extend_from_slice(&[0, 1, 0, 0, 0]);
        if !params.is_empty() {
            body.resize(body.len() + params.len().div_ceil(8), 0);
            body.push(1);
            for _ in params {
                body.extend_from_slice(&[0xfd, 0]);
            }
            for p in params {
                reply::put_lenenc(&mut body, p.len() as u64);
                body.extend_from_slice(p);
            }
        }
        self.send_command(0x17, &body)?;
        Ok(self.read_replies(true)?.remove(0))
    }

    /// COM_STMT_EXECUTE with one 64-bit integer: the benchmark's point select.
    pub fn execute_i64(&mut self, statement: Statement, value: i64) -> WireResult<Reply> {
        let mut body = Vec::with_capacity(24);
        body.extend_from_slice(&statement.id.to_le_bytes());
        body.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 8, 0]);
        body.extend_from_slice(&value.to_le_bytes());
        self.send_command(0x17, &body)?;
        Ok(self.read_replies(true)?.remove(0))
    }

    /// COM_STMT_CLOSE, which has no answer.
    pub fn close_statement(&mut self, statement: Statement) -> WireResult<()> {
        self.send_command(0x19, &statement.id.to_le_bytes())
    }

    /// COM_PING.
    pub fn ping(&mut self) -> WireResult<()> {
        self.command(0x0e, &[]).map(|_| ())
    }

    /// Any command that is answered by OK or ERR.
    pub fn command(&mut self, code: u8, body: &[u8]) -> WireResult<Reply> {
        self.send_command(code, body)?;
        Ok(self.read_replies(false)?.remove(0))
    }

    /// Sends a command and reads nothing.
    pub fn send_command(&mut self, code: u8, body: &[u8]) -> WireResult<()> {
        self.seq = 0;
        let mut payload = Vec::with_capacity(body.len() + 1);
        payload.push(code);
        payload.extend_from_slice(body);
        self.send_packet(&payload)
    }

    /// Sends one payload, cut into frames, with the next sequence numbers.
    pub fn send_packet(&mut self, payload: &[u8]) -> WireResult<()> {
        let mut rest = payload;
        loop {
            let take = rest.len().min(FRAME_BYTES_MAX);
            let (head, tail) = rest.split_at(take);
            self.out.clear();
            self.out.extend_from_slice(&(take as u32).to_le_bytes()[..3]);
            self.out.push(self.seq);
            self.out.extend_from_slice(head);
            self.seq = self.seq.wrapping_add(1);
            self.socket.write_all(&self.out)?;
            rest = tail;
            if take < FRAME_BYTES_MAX {
                return Ok(());
            }
        }
    }

    /// Reads one payload, joined from its frames.
    pub fn read_packet(&mut self) -> WireResult<Vec<u8>> {
        let mut payload = Vec::new();
        loop {
            let len = self.fill_frame()?;
            let from = self.start + 4;
            payload.extend_from_slice(self.buffer.get(from..from + len).unwrap_or_default());
            self.start = from + len;
            if len < FRAME_BYTES_MAX {
                return Ok(payload);
            }
        }
    }

    /// Reads until a whole frame is buffered; its payload's length. The frame stays in the buffer.
    fn fill_frame(&mut self) -> WireResult<usize> {
        loop {
            let have = self.buffer.get(self.start..).unwrap_or_default();
            let mut need = 4;
            if let [a, b, c, seq, ..] = have {
                let len = usize::from(*a) | usize::from(*b) << 8 | usize::from(*c) << 16;
                need = 4 + len;
                if have.len() >= need {
                    self.seq = seq.wrapping_add(1);
                    return Ok(len);
                }
            }
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            let used = self.buffer.len();
            self.buffer.resize(used + (need - used).max(16 * 1024), 0);
            let n = self.socket.read(self.buffer.get_mut(used..).unwrap_or_default());
            self.buffer.truncate(used + n.as_ref().copied().unwrap_or(0));
            if n? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.seq = 0;
        let _ = self.socket.set_timeout(Some(Duration::from_secs(1)));
        let _ = self.send_packet(&[1]);
    }
}
