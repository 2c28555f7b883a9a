//! The neutral words that every wire protocol shares: what a command is, what an error reply says.

pub mod mysql;

/// An error as a client sees it: MySQL's number, its SQLSTATE, and a sentence that says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorReply {
    /// The server's error number (for example 1045).
    pub code: u16,
    /// Five characters of SQLSTATE (for example `28000`).
    pub sqlstate: [u8; 5],
    /// The message. Never holds a secret.
    pub message: String,
}

impl ErrorReply {
    /// An error reply with the given number, SQLSTATE and message.
    pub fn new(code: u16, sqlstate: &[u8; 5], message: impl Into<String>) -> ErrorReply {
        ErrorReply { code, sqlstate: *sqlstate, message: message.into() }
    }
}

impl std::fmt::Display for ErrorReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ERROR {} ({}): {}", self.code, String::from_utf8_lossy(&self.sqlstate), self.message)
    }
}
