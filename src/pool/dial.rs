//! Opening a server session: connect, TLS, login with what the client's login revealed, and proof that the node matched the same account.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::{TlsConnector, TlsStream};
use zeroize::{Zeroize, Zeroizing};

use crate::auth::accounts::{AccountId, AccountKey};
use crate::auth::vault::{Recorded, SecretHandle, Vault, VaultMiss};
use crate::config::Secret;
use crate::error::Stage;
use crate::metrics::labels::DialResult;
use crate::net::packet_io::{PacketIo, ReadPacketError};
use crate::net::stream::{Plain, Stream};
use crate::net::tls::NodeTls;
use crate::pool::flight::FlightError;
use crate::pool::server_conn::ServerConn;
use crate::pool::session::BEHAVIOUR;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::{self, HEADER_BYTES};
use crate::protocol::mysql::login::{Agreed, LoginAction, LoginError, LoginPlan, ServerLogin};
use crate::protocol::mysql::packet::handshake_response::Attributes;
use crate::protocol::mysql::packet::ok::OkPacket;
use crate::topology::NodeView;
use crate::topology::address::{NodeAddress, NotAnAddress};

/// The longest packet of a node's login.
const LOGIN_PACKET_BYTES_MAX: usize = 64 * 1024;

/// utf8mb4_general_ci: known to every server version; the client's own character sets are set afterwards.
const LOGIN_COLLATION: u8 = 45;

/// What belay asks of every node, whatever the client asked for.
const ALWAYS: Capabilities = Capabilities::PROTOCOL_41
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::LONG_FLAG)
    .union(Capabilities::LONG_PASSWORD)
    .union(Capabilities::SESSION_TRACK)
    .union(Capabilities::DEPRECATE_EOF)
    .union(Capabilities::MARIADB_STMT_BULK_OPERATIONS);

/// How further server sessions are opened for a login. Holds no secret that Debug could show.
#[derive(Clone, Debug)]
pub struct Opening {
    /// The user name of the login.
    pub user: Arc<str>,
    /// What proves it.
    pub secret: OpeningSecret,
    /// The behaviour capabilities the login asked for.
    pub behaviour: Capabilities,
}

/// Where the secret of an [`Opening`] is.
#[derive(Clone, Debug)]
pub enum OpeningSecret {
    /// In the vault, as a client's login revealed it.
    Recorded(SecretHandle),
    /// In the configuration.
    Password(Secret),
}

impl Opening {
    /// For a client whose login was recorded.
    pub fn recorded(user: impl Into<Arc<str>>, handle: SecretHandle, behaviour: Capabilities) -> Opening {
        Opening { user: user.into(), secret: OpeningSecret::Recorded(handle), behaviour }
    }

    /// For an account of the configuration, the monitor's above all.
    pub fn with_password(user: impl Into<Arc<str>>, password: Secret) -> Opening {
        Opening { user: user.into(), secret: OpeningSecret::Password(password), behaviour: Capabilities::empty() }
    }
}

/// What dialling needs besides the request; one per process.
#[derive(Clone, Debug)]
pub struct DialContext {
    /// TLS towards the nodes.
    pub tls: NodeTls,
    /// Connecting, TLS and login together may take this long.
    pub dial_timeout_ms: u64,
    /// The recorded logins.
    pub vault: Arc<Vault>,
}

/// One server session to be opened.
#[derive(Clone, Debug)]
pub struct DialRequest {
    node: Arc<str>,
    address: Arc<str>,
    account: Option<AccountId>,
    opening: Opening,
    behaviour: Capabilities,
    /// What the monitor saw of the node; OceanBase greets as MySQL 5.7.
    oceanbase: bool,
}

impl DialRequest {
    /// A server session for a client: the node must match exactly `account`. Of `behaviour` only [`BEHAVIOUR`] counts.
    pub fn new(node: &NodeView, account: &AccountId, opening: &Opening, behaviour: Capabilities) -> DialRequest {
        DialRequest {
            node: node.name.clone(),
            address: node.address.clone(),
            account: Some(account.clone()),
            opening: opening.clone(),
            behaviour: behaviour & BEHAVIOUR,
            oceanbase: node.flavor == Flavor::OceanBase,
        }
    }

    /// A connection of belay's own (probes, KILL): whichever account the node matches is the right one.
    pub fn monitor(name: &Arc<str>, address: &Arc<str>, opening: &Opening) -> DialRequest {
        DialRequest {
            node: name.clone(),
            address: address.clone(),
            account: None,
            opening: opening.clone(),
            behaviour: opening.behaviour & BEHAVIOUR,
            oceanbase: false,
        }
    }

    /// What the monitor saw of the node counts where its greeting misleads.
    pub fn seen_as(mut self, flavor: Flavor) -> DialRequest {
        self.oceanbase = flavor == Flavor::OceanBase;
        self
    }
}

/// A server session could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("node {node}: {cause}")]
pub struct DialError {
    /// The node's name.
    pub node: Arc<str>,
    /// How far it came: [`Stage::Dial`] or [`Stage::ServerLogin`].
    pub stage: Stage,
    /// What went wrong.
    #[source]
    pub cause: DialCause,
}

/// Why a server session could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialCause {
    /// The configured address is none.
    #[error(transparent)]
    Address(#[from] NotAnAddress),
    /// The recorded secret is not given out.
    #[error(transparent)]
    Secret(#[from] VaultMiss),
    /// No connection.
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("TLS failed: {0}")]
    Tls(#[source] io::Error),
    /// The connection broke during the login.
    #[error("the connection broke during the login: {0}")]
    Broken(#[from] ReadPacketError),
    /// Sending failed during the login.
    #[error("the connection broke during the login: {0}")]
    Send(#[source] io::Error),
    /// The login failed.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The node sent bytes between its greeting and the TLS handshake.
    #[error("the node sent unprotected bytes where TLS was due")]
    BytesBeforeTls,
    /// The connection broke when the node was asked which account it had matched.
    #[error("the matched account could not be read: {0}")]
    Flight(#[from] FlightError),
    /// The node refused to say which account it had matched.
    #[error("the matched account could not be read: {0}")]
    NoAccount(ErrorReply),
    /// The node matched another account than the client's: its privileges could be greater.
    #[error(
        "the node matched the account {got} for belay's address, the client's is {wanted}; grant both addresses the same account"
    )]
    OtherAccount {
        /// What the client matched.
        wanted: AccountId,
        /// What the node says, or that it says nothing.
        got: String,
    },
    /// It took too long.
    #[error("no login within {0} ms")]
    Timeout(u64),
}

/// The node will not let this account in with this secret, whoever asks how often.
const DENIED: [u16; 9] = [
    1044, // ER_DBACCESS_DENIED_ERROR
    1045, // ER_ACCESS_DENIED_ERROR
    1130, // ER_HOST_NOT_PRIVILEGED
    1698, // ER_ACCESS_DENIED_NO_PASSWORD_ERROR
    1820, // ER_MUST_CHANGE_PASSWORD
    1862, // ER_MUST_CHANGE_PASSWORD_LOGIN
    3118, // MySQL: ER_ACCOUNT_HAS_BEEN_LOCKED
    3955, // MySQL: blocked after failed logins
    4151, // MariaDB: ER_ACCOUNT_HAS_BEEN_LOCKED
];

/// Of these, the ones that say the secret itself is wrong.
const WRONG_SECRET: [u16; 2] = [1045, 1698];

/// Another node, or the same one later, may accept the login.
const UNAVAILABLE: [u16; 8] = [
    1040, // ER_CON_COUNT_ERROR
    1041, // ER_OUT_OF_RESOURCES
    1047, // ER_UNKNOWN_COM_ERROR: Galera, not ready
    1053, // ER_SERVER_SHUTDOWN
    1129, // ER_HOST_IS_BLOCKED
    1135, // ER_CANT_CREATE_THREAD
    1203, // ER_TOO_MANY_USER_CONNECTIONS
    3032, // MySQL: ER_SERVER_OFFLINE_MODE
];

impl DialError {
    /// What the node said, if it was the node that refused.
    pub fn reply(&self) -> Option<&ErrorReply> {
        match &self.cause {
            DialCause::Login(LoginError::Refused { reply, .. }) | DialCause::NoAccount(reply) => Some(reply),
            _ => None,
        }
    }

    /// Whether this login cannot open server sessions: denied, locked, another account matched, or the recorded secret is not the
    /// kind the node asks for. It must not be tried again without a new login of the client.
    pub fn refused_secret(&self) -> bool {
        match &self.cause {
            DialCause::Secret(_)
            | DialCause::OtherAccount { .. }
            | DialCause::Login(LoginError::CannotAnswer { .. } | LoginError::WouldLeak) => true,
            _ => self.reply().is_some_and(|r| DENIED.contains(&r.code)),
        }
    }

    /// Whether another node, or a later try, may work.
    pub fn is_unavailable(&self) -> bool {
        match &self.cause {
            DialCause::Connect(_) | DialCause::Send(_) | DialCause::Timeout(_) => true,
            DialCause::Broken(e) => matches!(e, ReadPacketError::Closed | ReadPacketError::Io(_)),
            DialCause::Flight(e) => matches!(e, FlightError::Io(_)),
            // rustls reports what it finds wrong with a certificate or the protocol as InvalidData.
            DialCause::Tls(e) => e.kind() != io::ErrorKind::InvalidData,
            _ => self.reply().is_some_and(|r| UNAVAILABLE.contains(&r.code)),
        }
    }

    /// How metrics count it.
    pub fn label(&self) -> DialResult {
        match &self.cause {
            DialCause::Connect(_) | DialCause::Address(_) => DialResult::Connect,
            DialCause::Tls(_) | DialCause::BytesBeforeTls => DialResult::Tls,
            DialCause::Timeout(_) => DialResult::Timeout,
            DialCause::OtherAccount { .. } => DialResult::OtherAccount,
            _ if self.refused_secret() => DialResult::Refused,
            _ => DialResult::Unavailable,
        }
    }

    fn is_wrong_secret(&self) -> bool {
        matches!(&self.cause, DialCause::Login(LoginError::Refused { reply, answered: true }) if WRONG_SECRET.contains(&reply.code))
    }
}

/// Opens a server session within `dial_timeout_ms`. A recorded secret that the node refuses is marked in the vault and not given out
/// again.
pub async fn dial(request: &DialRequest, ctx: &DialContext) -> Result<ServerConn, DialError> {
    let mut stage = Stage::Dial;
    let limit = Duration::from_millis(ctx.dial_timeout_ms);
    let outcome = match tokio::time::timeout(limit, steps(request, ctx, &mut stage)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(DialCause::Timeout(ctx.dial_timeout_ms)),
    };
    outcome.map_err(|cause| {
        let error = DialError { node: request.node.clone(), stage, cause };
        if let (true, OpeningSecret::Recorded(handle)) = (error.is_wrong_secret(), &request.opening.secret) {
            ctx.vault.refuse(handle);
        }
        error
    })
}

async fn steps(request: &DialRequest, ctx: &DialContext, stage: &mut Stage) -> Result<ServerConn, DialCause> {
    let address = NodeAddress::parse(&request.address)?;
    let secret = match &request.opening.secret {
        OpeningSecret::Recorded(handle) => ctx.vault.open(handle)?,
        OpeningSecret::Password(password) => Recorded::Password(Zeroizing::new(password.expose().as_bytes().to_vec())),
    };
    let plain = connect(&address).await.map_err(DialCause::Connect)?;
    *stage = Stage::ServerLogin;
    let local = matches!(plain, Plain::Unix(_));
    let plan = LoginPlan {
        user: Bytes::copy_from_slice(request.opening.user.as_bytes()),
        secret,
        capabilities: request.behaviour | ALWAYS,
        collation: LOGIN_COLLATION,
        attributes: attributes(),
        tls: ctx.tls.wish(local),
        local,
    };
    let mut conn = login(plain, plan, &address, &ctx.tls).await?;
    if request.oceanbase && conn.flavor == Flavor::MySql {
        conn.flavor = Flavor::OceanBase;
    }
    if let Some(account) = &request.account {
        prove_account(&mut conn, account).await?;
    }
    conn.io.shrink();
    Ok(conn)
}

async fn connect(address: &NodeAddress) -> io::Result<Plain> {
    match address {
        NodeAddress::Tcp { host, port } => {
            let tcp = TcpStream::connect((host.as_str(), *port)).await?;
            tcp.set_nodelay(true)?;
            let keepalive = TcpKeepalive::new()
                .with_time(Duration::from_secs(30))
                .with_interval(Duration::from_secs(10))
                .with_retries(3);
            SockRef::from(&tcp).set_tcp_keepalive(&keepalive)?;
            Ok(Plain::Tcp(tcp))
        }
        NodeAddress::Unix(path) => Ok(Plain::Unix(UnixStream::connect(path).await?)),
    }
}

/// How belay names itself in the node's list of connection attributes.
fn attributes() -> Attributes {
    let pid = Bytes::from(std::process::id().to_string());
    [
        ("_client_name", Bytes::from_static(b"belay")),
        ("_client_version", Bytes::from_static(env!("CARGO_PKG_VERSION").as_bytes())),
        ("_pid", pid),
        ("program_name", Bytes::from_static(b"belay")),
    ]
    .map(|(name, value)| (Bytes::from_static(name.as_bytes()), value))
    .to_vec()
}

async fn login(plain: Plain, plan: LoginPlan, address: &NodeAddress, tls: &NodeTls) -> Result<ServerConn, DialCause> {
    let mut io = PacketIo::new(Stream::Plain(plain));
    let mut login = ServerLogin::new(plan);
    let status = loop {
        let packet = io.read_packet(LOGIN_PACKET_BYTES_MAX).await?;
        let (next, action) = login.handle(&packet)?;
        login = next;
        match action {
            LoginAction::Read => {}
            LoginAction::Send(payload) => send(&mut io, &payload).await?,
            LoginAction::StartTls(payload) => {
                send(&mut io, &payload).await?;
                io = upgrade(io, address, tls).await?;
                let (next, action) = login.tls_done()?;
                login = next;
                if let LoginAction::Send(payload) = action {
                    send(&mut io, &payload).await?;
                }
            }
            LoginAction::Done => {
                let agreed = login.agreed().map_or(Capabilities::PROTOCOL_41, |a| a.capabilities);
                break OkPacket::decode(&packet, agreed).map_err(LoginError::from)?.status;
            }
        }
    };
    let Some(agreed) = login.into_agreed() else { return Err(DialCause::Broken(ReadPacketError::Closed)) };
    Ok(made(io, agreed, status))
}

fn made(io: PacketIo, agreed: Agreed, status: StatusFlags) -> ServerConn {
    ServerConn {
        io,
        thread_id: agreed.greeting.thread_id,
        greeted_collation: agreed.greeting.collation,
        capabilities: agreed.capabilities,
        flavor: Flavor::of_version(&agreed.greeting.server_version),
        server_version: agreed.greeting.server_version,
        status,
        tls: agreed.tls,
        messages: false,
    }
}

async fn send(io: &mut PacketIo, payload: &[u8]) -> Result<(), DialCause> {
    // A payload may be a password: its frame gets a buffer of its own, wiped afterwards, that never has to grow.
    let mut frame = BytesMut::with_capacity(payload.len() + HEADER_BYTES);
    frame::encode_packet(&mut frame, &mut io.seq, payload);
    let sent = match io.stream.write_all(&frame).await {
        Ok(()) => io.stream.flush().await,
        Err(e) => Err(e),
    };
    frame.as_mut().zeroize();
    sent.map_err(DialCause::Send)
}

async fn upgrade(io: PacketIo, address: &NodeAddress, tls: &NodeTls) -> Result<PacketIo, DialCause> {
    if !io.read_buf.is_empty() {
        return Err(DialCause::BytesBeforeTls);
    }
    let (Stream::Plain(plain), Some(config)) = (io.stream, tls.config()) else { return Err(LoginError::NoTls.into()) };
    let name = tls.server_name(address).map_err(DialCause::Tls)?;
    let stream = TlsConnector::from(config).connect(name, plain).await.map_err(DialCause::Tls)?;
    let mut upgraded = PacketIo::new(Stream::Tls(Box::new(TlsStream::Client(stream))));
    // Sequence numbers go on across the handshake.
    upgraded.seq = io.seq;
    Ok(upgraded)
}

/// Privileges must not grow because belay's address matches another host pattern than the client's.
async fn prove_account(conn: &mut ServerConn, wanted: &AccountId) -> Result<(), DialCause> {
    let answer = conn.query("SELECT CURRENT_USER()").await?;
    if let Some(error) = answer.error {
        return Err(DialCause::NoAccount(error));
    }
    let text = answer.single().map(|t| String::from_utf8_lossy(t).into_owned()).unwrap_or_default();
    match AccountKey::parse_current_user(&text) {
        Some(got) if got == *wanted => Ok(()),
        _ => Err(DialCause::OtherAccount { wanted: wanted.clone(), got: text }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::accounts::Fingerprint;
    use crate::config::NodeTlsConfig;
    use crate::protocol::mysql::packet::handshake::Handshake;
    use tokio::io::AsyncReadExt;
    use tokio::net::UnixListener;

    fn failed(cause: impl Into<DialCause>) -> DialError {
        DialError { node: "db1".into(), stage: Stage::ServerLogin, cause: cause.into() }
    }

    fn refused(code: u16, answered: bool) -> DialError {
        failed(LoginError::Refused { reply: ErrorReply::new(code, b"HY000", "no"), answered })
    }

    #[test]
    fn a_refusal_is_about_the_secret_or_about_the_node_never_both() {
        for code in DENIED {
            assert!(refused(code, true).refused_secret() && !refused(code, true).is_unavailable(), "{code}");
        }
        for code in UNAVAILABLE {
            assert!(refused(code, false).is_unavailable() && !refused(code, false).refused_secret(), "{code}");
        }
        assert!(refused(1045, true).is_wrong_secret());
        assert!(!refused(1045, false).is_wrong_secret(), "the node has seen no answer");
        assert!(!refused(4151, true).is_wrong_secret(), "a locked account may be unlocked");
    }

    #[test]
    fn losses_are_the_node_s_and_broken_rules_are_not() {
        assert!(failed(ReadPacketError::Closed).is_unavailable());
        assert!(failed(DialCause::Timeout(1)).is_unavailable());
        assert!(failed(DialCause::Tls(io::ErrorKind::UnexpectedEof.into())).is_unavailable());
        assert!(!failed(DialCause::Tls(io::ErrorKind::InvalidData.into())).is_unavailable());
        assert!(!failed(ReadPacketError::TooLong(1)).is_unavailable());
        assert!(!failed(LoginError::NoTls).is_unavailable());
        assert!(failed(VaultMiss::Gone).refused_secret());
    }

    fn context(dial_timeout_ms: u64) -> DialContext {
        DialContext {
            tls: NodeTls::new(&NodeTlsConfig::default()).unwrap(),
            dial_timeout_ms,
            vault: Arc::new(Vault::new(Zeroizing::new([1; 32]), 8).unwrap()),
        }
    }

    fn socket(name: &str) -> (UnixListener, Arc<str>) {
        let path = std::env::temp_dir().join(format!("belay-dial-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        (UnixListener::bind(&path).unwrap(), format!("unix:{}", path.display()).into())
    }

    #[tokio::test]
    async fn a_silent_node_costs_the_time_out_and_no_more() {
        let (_listener, address) = socket("silent");
        let opening = Opening::with_password("app", Secret::new("pw".into()));
        let error = dial(&DialRequest::monitor(&"n".into(), &address, &opening), &context(50)).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Timeout(50)));
        assert_eq!(error.stage, Stage::ServerLogin);
    }

    #[tokio::test]
    async fn a_secret_that_a_node_refused_is_not_sent_again() {
        let (listener, address) = socket("refused");
        let node = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut io = PacketIo::new(Stream::Plain(Plain::Unix(stream)));
            let greeting = Handshake {
                server_version: "10.11.1-MariaDB".into(),
                thread_id: 7,
                scramble: [1; 20],
                capabilities: ALWAYS,
                collation: 45,
                status: StatusFlags::AUTOCOMMIT,
                auth_plugin: crate::auth::NATIVE.into(),
            };
            send(&mut io, &greeting.encode()).await.unwrap();
            io.read_packet(LOGIN_PACKET_BYTES_MAX).await.unwrap();
            send(&mut io, b"\xFF\x15\x04#28000Access denied").await.unwrap();
            // A second connection would be seen here.
            let mut rest = Vec::new();
            let _ = io.stream.read_to_end(&mut rest).await;
            listener
        });
        let ctx = context(5_000);
        let account = AccountKey::new("app", "%");
        let secret = Recorded::Password(Zeroizing::new(b"pw".to_vec()));
        let handle = ctx.vault.record(&account, Fingerprint::PROVEN, &secret, [0; 12]).unwrap();
        let request =
            DialRequest::monitor(&"n".into(), &address, &Opening::recorded("app", handle, Capabilities::empty()));
        let error = dial(&request, &ctx).await.unwrap_err();
        assert_eq!(error.reply().map(|r| r.code), Some(1045));
        let listener = node.await.unwrap();
        let error = dial(&request, &ctx).await.unwrap_err();
        assert!(matches!(error.cause, DialCause::Secret(VaultMiss::Refused)));
        assert!(error.refused_secret());
        assert!(tokio::time::timeout(Duration::from_millis(20), listener.accept()).await.is_err());
    }
}
