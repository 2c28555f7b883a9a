//! The values that labels can have: closed lists, never a user's text.

use crate::error::{Side, Stage};

/// A closed list of label values.
pub trait Label: Copy + 'static {
    /// All values, in the order of [`Label::index`].
    const ALL: &'static [Self];
    /// The position in [`Label::ALL`].
    fn index(self) -> usize;
    /// The text.
    fn text(self) -> &'static str;
}

macro_rules! labels {
    ($(#[$doc:meta] $name:ident { $(#[$vdoc:meta] $variant:ident = $text:literal,)* })*) => {
        $(
            #[$doc]
            #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
            pub enum $name {
                $(#[$vdoc] $variant,)*
            }

            impl Label for $name {
                const ALL: &'static [$name] = &[$($name::$variant,)*];
                fn index(self) -> usize {
                    self as usize
                }
                fn text(self) -> &'static str {
                    match self {
                        $($name::$variant => $text,)*
                    }
                }
            }
        )*
    };
}

labels! {
    /// What a client connection does.
    ClientState {
        /// It has not logged in yet.
        Login = "login",
        /// It waits for its user, outside a transaction.
        Idle = "idle",
        /// It waits for its user, inside a transaction.
        Transaction = "transaction",
        /// It waits for an answer.
        Active = "active",
    }
    /// Why a client was turned away.
    Refusal {
        /// `client_connections_max` (1040).
        TooMany = "too_many",
        /// `logins_max`.
        TooManyLogins = "too_many_logins",
        /// Wrong password, unknown account, locked account.
        AccessDenied = "access_denied",
        /// TLS is required, or its handshake failed.
        Tls = "tls",
        /// Not the protocol, or a login that took too long.
        Protocol = "protocol",
        /// belay is shutting down.
        Draining = "draining",
        /// No node could prove the login.
        NoNode = "no_node",
    }
    /// What a server session does.
    ServerState {
        /// Free in the pool.
        Idle = "idle",
        /// In use by a client.
        Leased = "leased",
        /// Kept by a client beyond its transaction.
        Pinned = "pinned",
        /// Being made fit for its next use.
        Cleaning = "cleaning",
    }
    /// How an attempt to open a server session ended.
    DialResult {
        /// Logged in.
        Ok = "ok",
        /// No connection.
        Connect = "connect",
        /// TLS failed.
        Tls = "tls",
        /// The node refused the login.
        Refused = "refused",
        /// The node answered, but had no room or was not ready.
        Unavailable = "unavailable",
        /// Logged in as another account than the client's.
        OtherAccount = "other_account",
        /// Too slow.
        Timeout = "timeout",
    }
    /// The class of a statement, as far as it is worth counting apart.
    StatementClass {
        /// Reads without side effects.
        Read = "read",
        /// Changes data.
        Write = "write",
        /// BEGIN, COMMIT, ROLLBACK, savepoints.
        Transaction = "transaction",
        /// SET, USE and what else changes the session.
        Session = "session",
        /// DDL.
        Schema = "schema",
        /// PREPARE, in either protocol.
        Prepare = "prepare",
        /// KILL, SHOW, and other administration.
        Admin = "admin",
        /// What the lexer did not understand.
        Unknown = "unknown",
    }
    /// How well the server session fitted that a client got.
    BindKind {
        /// Its last one, with nothing to replay.
        Same = "same",
        /// Another one with equal state.
        Equal = "equal",
        /// One whose differences were replayed.
        Replayed = "replayed",
        /// A new one.
        Fresh = "fresh",
    }
    /// Which node a statement was given that needed one.
    RouteTo {
        /// The writer, where everything goes that no rule sends elsewhere.
        Writer = "writer",
        /// A reader, by a rule.
        Reader = "reader",
        /// The writer, although a rule would have sent it to a reader.
        WriterInstead = "writer_instead",
    }
    /// What spoke against the reader that a rule wanted.
    RouteAgainst {
        /// A transaction is open.
        Transaction = "transaction",
        /// `autocommit` is off.
        Autocommit = "autocommit",
        /// The session is pinned.
        Pinned = "pinned",
        /// The isolation level is SERIALIZABLE.
        Serializable = "serializable",
        /// Only the last statement's server session knows the answer.
        LastStatement = "last_statement",
        /// A reader was behind a moment ago.
        Behind = "behind",
        /// No reader serves, or is near enough, or can be proven to have what the session has seen.
        NoReader = "no_reader",
        /// It may run code that its text does not show.
        HiddenCode = "hidden_code",
    }
    /// What was replayed.
    ReplayItem {
        /// System variables.
        Variables = "variables",
        /// The schema.
        Schema = "schema",
        /// Character set or collation.
        Charset = "charset",
        /// Prepared statements.
        Prepared = "prepared",
        /// The role.
        Role = "role",
        /// Characteristics of the next transaction.
        Characteristics = "characteristics",
        /// User variables.
        UserVariables = "user_variables",
        /// The last insert id.
        LastInsertId = "last_insert_id",
    }
    /// How a KILL that belay sent ended.
    KillResult {
        /// The server took it.
        Sent = "sent",
        /// Its target had ended by itself.
        Late = "late",
        /// It could not be sent.
        Failed = "failed",
    }
    /// Which failure a client was spared.
    Masked {
        /// Its server session was lost while it idled.
        IdleLoss = "idle_loss",
        /// The node was lost before the statement was sent.
        NotSent = "not_sent",
        /// The node refused before doing anything.
        Refused = "refused",
        /// A read was run again.
        ReadAgain = "read_again",
        /// ROLLBACK after the server had gone.
        Rollback = "rollback",
    }
    /// How a probe ended.
    ProbeResult {
        /// With facts.
        Ok = "ok",
        /// The node cannot be reached.
        Unreachable = "unreachable",
        /// Too slow.
        Silent = "silent",
        /// No room.
        Full = "full",
        /// The monitor's login was refused.
        LoginRefused = "login_refused",
        /// An answer that is no use.
        Unusable = "unusable",
    }
}

impl Label for Side {
    const ALL: &'static [Side] = &[Side::Client, Side::Server, Side::Belay];
    fn index(self) -> usize {
        self as usize
    }
    fn text(self) -> &'static str {
        self.label()
    }
}

impl Label for Stage {
    const ALL: &'static [Stage] = &[
        Stage::ClientLogin,
        Stage::Acquire,
        Stage::Dial,
        Stage::ServerLogin,
        Stage::Replay,
        Stage::Send,
        Stage::Answer,
        Stage::Idle,
        Stage::Clean,
    ];
    fn index(self) -> usize {
        self as usize
    }
    fn text(self) -> &'static str {
        self.label()
    }
}
