//! Whether a transaction is open. The status flags of the server decide; nothing is inferred from text.
//!
//! ```text
//!            IN_TRANS set                       IN_TRANS clear
//!   Idle ───────────────────▶ Open ────────────────────────────▶ Idle
//!                              │ server lost
//!                              ▼
//!                             Lost ── the client is told once ──▶ Idle
//! ```

use crate::protocol::mysql::capability::StatusFlags;

/// The transaction of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transaction {
    /// None is open.
    #[default]
    Idle,
    /// One is open on the bound server session.
    Open,
    /// The server session it was open on was lost while the client idled; the client does not know yet.
    Lost,
}

impl Transaction {
    /// After an answer with these status flags.
    pub fn after(status: StatusFlags) -> Transaction {
        if status.intersects(StatusFlags::IN_TRANS | StatusFlags::IN_TRANS_READONLY) {
            Transaction::Open
        } else {
            Transaction::Idle
        }
    }

    /// The word for /sessions.
    pub const fn label(self) -> &'static str {
        match self {
            Transaction::Idle => "none",
            Transaction::Open => "open",
            Transaction::Lost => "lost",
        }
    }
}
