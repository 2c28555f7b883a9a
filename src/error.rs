//! The words every error of belay carries: on which side it happened, at which stage, and what the client is told.

/// The side of belay on which something went wrong. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client, its connection or what it sent.
    Client,
    /// A node, its connection or what it answered.
    Server,
    /// belay itself: a limit, the configuration, a missing node.
    Belay,
}

impl Side {
    /// The metric label of this side.
    pub const fn label(self) -> &'static str {
        match self {
            Side::Client => "client",
            Side::Server => "server",
            Side::Belay => "belay",
        }
    }
}

/// How far a client session or a statement had come when something went wrong. A metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Before or while the client logs in.
    ClientLogin,
    /// While waiting for a node or a server session.
    Acquire,
    /// While connecting to a node.
    Dial,
    /// While logging in to a node.
    ServerLogin,
    /// While making the state of a server session equal to the client's.
    Replay,
    /// While sending the client's request to the node.
    Send,
    /// While waiting for, or relaying, the node's answer.
    Answer,
    /// While the client idles (inside or outside a transaction).
    Idle,
    /// While cleaning a server session before its next use.
    Clean,
}

impl Stage {
    /// The metric label of this stage.
    pub const fn label(self) -> &'static str {
        match self {
            Stage::ClientLogin => "client_login",
            Stage::Acquire => "acquire",
            Stage::Dial => "dial",
            Stage::ServerLogin => "server_login",
            Stage::Replay => "replay",
            Stage::Send => "send",
            Stage::Answer => "answer",
            Stage::Idle => "idle",
            Stage::Clean => "clean",
        }
    }
}
