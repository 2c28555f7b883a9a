//! The login of a client over its socket: greeting, TLS, who it is, proof. Also COM_CHANGE_USER, which is the same without a greeting.
//!
//! ```text
//!   greeting ─▶ (TLS) ─▶ arrival ─▶ target ─┬─ checkable account ─▶ proof against its verifier ─┐
//!                                           ├─ configured account ─▶ proof against the password ─┼─▶ rules of the account ─▶ logged in
//!                                           ├─ only a node can say ─▶ password, tried on a node ─┘
//!                                           └─ nobody ─▶ the same steps, always refused
//! ```
//! Errors are sent to the client here. The final OK is not: the session sends it once the schema is entered.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::auth::accounts::{AccountId, AccountTable, Fingerprint};
use crate::auth::caching_sha2::PasswordKey;
use crate::auth::host::{ClientHost, HostMatch, HostPattern, HostRules};
use crate::auth::vault::{Recorded, SecretHandle, Vault};
use crate::auth::{CACHING_SHA2, NATIVE, scramble_from};
use crate::config::{ListenConfig, ListenTlsMode};
use crate::net::packet_io::{PacketIo, ReadPacketError};
use crate::net::stream::{Plain, Stream};
use crate::pool::Opening;
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::protocol::mysql::greet::{self, Arrival, ExpectResponse, FirstStep, Proof, ProofStep};
use crate::protocol::mysql::packet::err::encode_err;
use crate::proxy::errors;
use crate::proxy::login_nodes::{LoginNodes, NodeLogin, Unproven};
use crate::proxy::login_target::{ConfiguredAccounts, Target, Whom};
use crate::topology::NodeId;
use crate::topology::collations::AtLogin;

/// What every login works with; one per process.
pub struct LoginContext {
    /// The limits of logins, and whether TLS is demanded.
    pub listen: ListenConfig,
    /// Whether a revealed password may be kept (`session.record_passwords`).
    pub record_passwords: bool,
    /// The accounts of the servers.
    pub accounts: Arc<arc_swap::ArcSwap<AccountTable>>,
    /// The accounts of the configuration.
    pub configured: ConfiguredAccounts,
    /// Where revealed secrets are kept.
    pub vault: Arc<Vault>,
    /// Upgrades clients to TLS; `None` if it is not offered.
    pub tls: Option<TlsAcceptor>,
    /// Decrypts passwords of clients without TLS.
    pub password_key: Arc<PasswordKey>,
    /// The nodes, as far as a login needs them.
    pub nodes: Arc<dyn LoginNodes>,
}

impl std::fmt::Debug for LoginContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LoginContext").field("listen", &self.listen).finish_non_exhaustive()
    }
}

/// A client that has proven who it is. It still waits for the OK.
#[derive(Debug)]
pub struct LoggedIn {
    /// Its connection; `seq` is the number of the OK.
    pub io: PacketIo,
    /// User name as the client sent it.
    pub user: Arc<str>,
    /// The account it matched.
    pub account: AccountId,
    /// Schema to start in.
    pub schema: Option<Bytes>,
    /// What the client has and belay offers.
    pub capabilities: Capabilities,
    /// Collation id.
    pub collation: u16,
    /// Connection attributes, bounded by the login packet.
    pub attributes: Vec<(Bytes, Bytes)>,
    /// How further server sessions are opened; `None` if nothing reusable was recorded.
    pub opening: Option<Opening>,
    /// The one server session of a client without an opening.
    pub dedicated: Option<(NodeId, ServerConn)>,
}

/// A client that is somebody else from now on. It still waits for the OK; the fields mean what they mean in [`LoggedIn`].
#[derive(Debug)]
pub struct ChangedUser {
    /// User name as the client sent it.
    pub user: Arc<str>,
    /// The account it matched.
    pub account: AccountId,
    /// Schema to start in.
    pub schema: Option<Bytes>,
    /// Collation id.
    pub collation: u16,
    /// Connection attributes.
    pub attributes: Vec<(Bytes, Bytes)>,
    /// How further server sessions are opened.
    pub opening: Option<Opening>,
    /// The one server session of a client without an opening.
    pub dedicated: Option<(NodeId, ServerConn)>,
}

/// Why nobody was logged in. Whatever the client had to be told has been sent.
#[derive(Debug, thiserror::Error)]
pub enum LoginEnd {
    /// The client was sent this error.
    #[error("{reply}")]
    Refused {
        /// What it was told.
        reply: ErrorReply,
    },
    /// The client closed before it had said anything, as health checks do.
    #[error("the client closed the connection")]
    ClientClosed,
    /// The socket, or TLS on it, failed.
    #[error("the client's connection failed: {0}")]
    Io(#[from] io::Error),
    /// It took longer than `listen.login_timeout_ms`.
    #[error("the login took longer than {login_timeout_ms} ms")]
    TimedOut {
        /// The limit.
        login_timeout_ms: u64,
    },
    /// The system gave no random bytes, or a check could not run to its end.
    #[error("the login failed inside belay: {0}")]
    Internal(&'static str),
}

/// Who was found, and how server sessions are opened for it.
struct Identified {
    account: AccountId,
    opening: Option<Opening>,
    dedicated: Option<(NodeId, ServerConn)>,
}

/// Logs a client in. `connection_id` is shown in the greeting; the listener takes `host` from the peer's address.
pub async fn login(
    stream: Stream,
    ctx: &LoginContext,
    connection_id: u32,
    host: ClientHost,
) -> Result<LoggedIn, LoginEnd> {
    within(ctx, greet_and_identify(stream, ctx, connection_id, host)).await
}

/// Carries out COM_CHANGE_USER. `io.seq` must be the number of the answer. After an error the connection must be closed, as servers do.
pub async fn change_user(
    io: &mut PacketIo,
    payload: &[u8],
    ctx: &LoginContext,
    _connection_id: u32,
    host: ClientHost,
    capabilities: Capabilities,
) -> Result<ChangedUser, LoginEnd> {
    within(ctx, async {
        let fresh = scramble_from(random()?);
        let mut arrival = match greet::change_user(payload, capabilities, fresh) {
            Ok(arrival) => arrival,
            Err(reply) => return Err(refuse(io, reply, true).await),
        };
        check_collation(io, &arrival, ctx).await?;
        // The client answers the challenge of its greeting, which has been used up: it always gets a new one, by a switch.
        arrival.answer.plugin.clear();
        let Identified { account, opening, dedicated } = identify(io, &arrival, ctx, host).await?;
        let Arrival { user, schema, collation, attributes, .. } = arrival;
        Ok(ChangedUser { user: user.into(), account, schema, collation, attributes, opening, dedicated })
    })
    .await
}

async fn within<T>(ctx: &LoginContext, work: impl Future<Output = Result<T, LoginEnd>>) -> Result<T, LoginEnd> {
    let login_timeout_ms = ctx.listen.login_timeout_ms;
    match tokio::time::timeout(Duration::from_millis(login_timeout_ms), work).await {
        Ok(ended) => ended,
        Err(_) => Err(LoginEnd::TimedOut { login_timeout_ms }),
    }
}

fn random<const N: usize>() -> Result<[u8; N], LoginEnd> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| LoginEnd::Internal("no random bytes"))?;
    Ok(bytes)
}

async fn greet_and_identify(
    stream: Stream,
    ctx: &LoginContext,
    connection_id: u32,
    host: ClientHost,
) -> Result<LoggedIn, LoginEnd> {
    let face = ctx.nodes.face();
    let mysql = face.flavor != Flavor::MariaDb;
    let plugin = if face.flavor == Flavor::MySql { CACHING_SHA2 } else { NATIVE };
    let scramble = scramble_from(random()?);
    let mut greeting = greet::greeting(&face.server_version, connection_id, scramble, plugin, mysql, ctx.tls.is_some());
    greeting.collation = face.charsets.greeting.unwrap_or(greeting.collation);
    let mut io = PacketIo::new(stream);
    io.queue_packet(&greeting.encode());
    io.flush().await?;
    let mut expect = ExpectResponse::new(greeting);
    let arrival = loop {
        let payload = match read_exactly(&mut io, ctx.listen.login_packet_bytes_max).await {
            Ok(payload) => payload,
            Err(error) => return Err(unreadable(&mut io, error, false).await),
        };
        match expect.handle(&payload) {
            Ok(FirstStep::StartTls(next)) => {
                io = start_tls(io, ctx.tls.as_ref()).await?;
                expect = next;
            }
            Ok(FirstStep::Arrived(arrival)) => break *arrival,
            Err(reply) => return Err(refuse(&mut io, reply, false).await),
        }
    };
    check_collation(&mut io, &arrival, ctx).await?;
    if ctx.listen.tls.mode == ListenTlsMode::Required && !io.stream.is_confidential() {
        return Err(refuse(&mut io, insecure_transport(), true).await);
    }
    let Identified { account, opening, dedicated } = identify(&mut io, &arrival, ctx, host).await?;
    let Arrival { user, schema, capabilities, collation, attributes, .. } = arrival;
    Ok(LoggedIn { io, user: user.into(), account, schema, capabilities, collation, attributes, opening, dedicated })
}

/// Reads one packet of one frame and not a byte more: what follows a request for TLS belongs to TLS, not to the protocol.
/// Not cancel safe; a cancelled login ends its connection.
async fn read_exactly(io: &mut PacketIo, payload_bytes_max: usize) -> Result<Bytes, ReadPacketError> {
    let mut head = [0; HEADER_BYTES];
    if io.stream.read(&mut head[..1]).await? == 0 {
        return Err(ReadPacketError::Closed);
    }
    io.stream.read_exact(&mut head[1..]).await?;
    let header = FrameHeader::parse(&head).ok_or(ReadPacketError::Closed)?;
    if header.seq != io.seq {
        return Err(ReadPacketError::OutOfOrder { expected: io.seq, got: header.seq });
    }
    if header.payload_len > payload_bytes_max || header.continues() {
        return Err(ReadPacketError::TooLong(payload_bytes_max));
    }
    let mut payload = vec![0; header.payload_len];
    io.stream.read_exact(&mut payload).await?;
    io.seq = io.seq.wrapping_add(1);
    Ok(payload.into())
}

async fn start_tls(io: PacketIo, acceptor: Option<&TlsAcceptor>) -> Result<PacketIo, LoginEnd> {
    let seq = io.seq;
    let (Stream::Plain(plain), Some(acceptor)) = (io.stream, acceptor) else {
        return Err(LoginEnd::Internal("TLS was agreed but is not offered"));
    };
    let tls = acceptor.accept::<Plain>(plain).await?;
    let mut io = PacketIo::new(Stream::Tls(Box::new(TlsStream::Server(tls))));
    io.seq = seq;
    Ok(io)
}

/// Sends an error and says that it was sent. A client that is gone can't be told; the error is the reason all the same.
async fn refuse(io: &mut PacketIo, reply: ErrorReply, with_sqlstate: bool) -> LoginEnd {
    let mut payload = BytesMut::new();
    encode_err(&mut payload, &reply, with_sqlstate);
    io.queue_packet(&payload);
    if io.flush().await.is_ok() {
        let _ = io.stream.shutdown().await;
    }
    LoginEnd::Refused { reply }
}

async fn unreadable(io: &mut PacketIo, error: ReadPacketError, with_sqlstate: bool) -> LoginEnd {
    match error {
        ReadPacketError::Closed => LoginEnd::ClientClosed,
        ReadPacketError::Io(error) => LoginEnd::Io(error),
        ReadPacketError::TooLong(_) => refuse(io, packet_too_long(), with_sqlstate).await,
        ReadPacketError::OutOfOrder { .. } => refuse(io, greet::out_of_order(), with_sqlstate).await,
    }
}

/// Servers look at the collation before they look at who it is.
async fn check_collation(io: &mut PacketIo, arrival: &Arrival, ctx: &LoginContext) -> Result<(), LoginEnd> {
    let face = ctx.nodes.face();
    match face.charsets.at_login(arrival.collation, face.flavor) {
        AtLogin::Refused(charset) => Err(refuse(io, errors::wrong_value("character_set_client", &charset), true).await),
        AtLogin::Given(_) | AtLogin::Global(_) => Ok(()),
    }
}

fn packet_too_long() -> ErrorReply {
    ErrorReply::new(1153, b"08S01", "Got a packet bigger than 'max_allowed_packet' bytes")
}

fn insecure_transport() -> ErrorReply {
    let text = "Connections using insecure transport are prohibited while --require_secure_transport=ON.";
    ErrorReply::new(3159, b"HY000", text)
}

async fn identify(
    io: &mut PacketIo,
    arrival: &Arrival,
    ctx: &LoginContext,
    host: ClientHost,
) -> Result<Identified, LoginEnd> {
    let flavor = ctx.nodes.face().flavor;
    let confidential = io.stream.is_confidential();
    let table = ctx.accounts.load_full();
    let Target { whom, challenge } = Target::choose(&table, &ctx.configured, &ctx.vault, arrival, host, flavor);
    let host_text = table.host_text(host);
    let denied = |used| greet::access_denied(&arrival.user, &host_text, used);
    let (key, fresh, decoy) = (ctx.password_key.clone(), scramble_from(random()?), random()?);
    let mut step = Proof::begin(&arrival.answer, challenge, confidential, key, fresh, decoy);
    let revealed = loop {
        match step {
            Err(reply) => return Err(refuse(io, reply, true).await),
            Ok(ProofStep::Refused { used_password }) => return Err(refuse(io, denied(used_password), true).await),
            Ok(ProofStep::Granted { revealed, send }) => {
                if let Some(packet) = send {
                    io.queue_packet(&packet);
                    io.flush().await?;
                }
                break revealed;
            }
            Ok(ProofStep::Send(proof, packet)) => {
                io.queue_packet(&packet);
                io.flush().await?;
                let payload = match io.read_packet(ctx.listen.login_packet_bytes_max).await {
                    Ok(payload) => payload,
                    Err(error) => return Err(unreadable(io, error, true).await),
                };
                // Checking a password takes milliseconds of pure computing: not on a thread that serves others.
                step = tokio::task::spawn_blocking(move || proof.handle(&payload))
                    .await
                    .map_err(|_| LoginEnd::Internal("the check of a password did not end"))?;
            }
        }
    };
    match whom {
        Whom::Known(account) => {
            if let Err(reply) = account.admits(&arrival.user, &table.host_text(host), io.stream.is_tls(), flavor) {
                return Err(refuse(io, reply, true).await);
            }
            let owner = SecretHandle { account: account.account.id.clone(), fingerprint: account.account.fingerprint };
            grant(io, arrival, ctx, host, owner, revealed).await
        }
        Whom::OnlyANodeKnows(account) => prove(io, arrival, ctx, host, account, revealed).await,
        Whom::Nobody => Err(refuse(io, denied(!arrival.answer.auth.is_empty()), true).await),
    }
}

/// After a login that belay has checked itself: keeps what it revealed, or opens the one server session.
async fn grant(
    io: &mut PacketIo,
    arrival: &Arrival,
    ctx: &LoginContext,
    host: ClientHost,
    owner: SecretHandle,
    revealed: Option<Recorded>,
) -> Result<Identified, LoginEnd> {
    let account = owner.account.clone();
    if let Some(password) = ctx.configured.password(&account) {
        let opening = Some(Opening::with_password(arrival.user.as_str(), password.clone()));
        return Ok(Identified { account, opening, dedicated: None });
    }
    match revealed {
        // By the cached digest: what is recorded already is right.
        None => Ok(Identified { account, opening: Some(recorded(arrival, owner)), dedicated: None }),
        Some(secret) if ctx.may_record(&secret) => {
            let opening = Some(record(arrival, ctx, owner, &secret)?);
            Ok(Identified { account, opening, dedicated: None })
        }
        Some(_) => prove(io, arrival, ctx, host, Some(account), revealed).await,
    }
}

/// Lets a node check the password. The account that the node matched must be the client's own: never more than it would get directly.
async fn prove(
    io: &mut PacketIo,
    arrival: &Arrival,
    ctx: &LoginContext,
    host: ClientHost,
    expected: Option<AccountId>,
    revealed: Option<Recorded>,
) -> Result<Identified, LoginEnd> {
    let host_text = ctx.accounts.load().host_text(host);
    let denied = |used| greet::access_denied(&arrival.user, &host_text, used);
    let Some(Recorded::Password(password)) = &revealed else {
        return Err(refuse(io, denied(true), true).await);
    };
    let used = !password.is_empty();
    // No server stores a password that is not text; one that is not UTF-8 is wrong like any other.
    let Ok(text) = std::str::from_utf8(password) else { return Err(refuse(io, denied(used), true).await) };
    let secret = crate::config::Secret::new(text.to_owned());
    let mut opening = Opening::with_password(arrival.user.as_str(), secret);
    opening.behaviour = arrival.capabilities;
    let proven = match ctx.nodes.prove(NodeLogin { opening }).await {
        Ok(proven) => proven,
        // The node's own text would name belay's host in place of the client's.
        Err(Unproven::Refused(reply)) if reply.code == 1045 => return Err(refuse(io, denied(used), true).await),
        Err(Unproven::Refused(reply) | Unproven::Unavailable(reply)) => return Err(refuse(io, reply, true).await),
    };
    let fits = match &expected {
        Some(account) => *account == proven.account,
        None => {
            HostPattern::parse(&proven.account.host).matches(host.canonical(), HostRules::default()) == HostMatch::Yes
        }
    };
    if !fits {
        return Err(refuse(io, denied(used), true).await);
    }
    let known = ctx.accounts.load().get(&proven.account).map(|a| a.fingerprint);
    let owner = SecretHandle { account: proven.account.clone(), fingerprint: known.unwrap_or(Fingerprint::PROVEN) };
    match &revealed {
        Some(secret) if ctx.may_record(secret) => {
            let opening = Some(record(arrival, ctx, owner, secret)?);
            Ok(Identified { account: proven.account, opening, dedicated: None })
        }
        _ => Ok(Identified { account: proven.account, opening: None, dedicated: Some((proven.node, proven.conn)) }),
    }
}

fn recorded(arrival: &Arrival, owner: SecretHandle) -> Opening {
    Opening::recorded(arrival.user.as_str(), owner, arrival.capabilities)
}

fn record(arrival: &Arrival, ctx: &LoginContext, owner: SecretHandle, secret: &Recorded) -> Result<Opening, LoginEnd> {
    let handle = ctx
        .vault
        .record(&owner.account, owner.fingerprint, secret, random()?)
        .ok_or(LoginEnd::Internal("a login could not be recorded"))?;
    Ok(recorded(arrival, handle))
}

impl LoginContext {
    /// Whether this may be kept: a digest and the empty password always, a password if the configuration allows it.
    fn may_record(&self, secret: &Recorded) -> bool {
        match secret {
            Recorded::NativeSha1(_) => true,
            Recorded::Password(password) => password.is_empty() || self.record_passwords,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::accounts::{Account, AccountKey, Method};
    use crate::auth::{caching_sha2, native};
    use crate::protocol::mysql::login::{LoginAction, LoginError, LoginPlan, ServerLogin, TlsWish};
    use crate::proxy::login_nodes::{Face, Proving};
    use std::sync::LazyLock;
    use tokio::net::UnixStream;
    use zeroize::Zeroizing;

    static KEY: LazyLock<Arc<PasswordKey>> = LazyLock::new(|| Arc::new(PasswordKey::generate().unwrap().0));

    /// Nodes that refuse whoever comes.
    #[derive(Debug)]
    struct Refusing(Flavor);

    impl LoginNodes for Refusing {
        fn face(&self) -> Face {
            Face { server_version: "10.11.6-MariaDB".into(), flavor: self.0, charsets: Arc::default() }
        }

        fn prove(&self, _: NodeLogin) -> Proving<'_> {
            Box::pin(async { Err(Unproven::Refused(ErrorReply::new(1045, b"28000", "for 'u'@'belay'"))) })
        }
    }

    fn native_account(user: &str, password: &str) -> Account {
        let stored = native::stage2(&native::stage1(password.as_bytes()));
        let method = Method { plugin: NATIVE.into(), verifier: crate::auth::accounts::Verifier::Native(stored) };
        Account::new(AccountKey::new(user, "%"), vec![method], &[&stored])
    }

    fn context(table: AccountTable, flavor: Flavor) -> LoginContext {
        let listen = toml::from_str("login_timeout_ms = 5000\nlogin_packet_bytes_max = 4096").unwrap();
        LoginContext {
            listen,
            record_passwords: true,
            accounts: Arc::new(arc_swap::ArcSwap::from_pointee(table)),
            configured: ConfiguredAccounts::default(),
            vault: Arc::new(Vault::new(Zeroizing::new([1; 32]), 10).unwrap()),
            tls: None,
            password_key: KEY.clone(),
            nodes: Arc::new(Refusing(flavor)),
        }
    }

    fn pair() -> (Stream, PacketIo) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Stream::Plain(Plain::Unix(ours)), PacketIo::new(Stream::Plain(Plain::Unix(theirs))))
    }

    fn plan(user: &str, password: &str) -> LoginPlan {
        LoginPlan {
            user: Bytes::copy_from_slice(user.as_bytes()),
            secret: Recorded::Password(Zeroizing::new(password.as_bytes().to_vec())),
            capabilities: greet::OFFERED,
            collation: 45,
            attributes: Vec::new(),
            tls: TlsWish::Never,
            local: true,
        }
    }

    /// A client of the same protocol; ends with the OK that the test queues once `login` has returned, or with the error.
    async fn client(mut io: PacketIo, plan: LoginPlan) -> Result<(), LoginError> {
        let mut login = ServerLogin::new(plan);
        loop {
            let Ok(payload) = io.read_packet(1 << 16).await else { return Ok(()) };
            let (next, action) = login.handle(&payload)?;
            login = next;
            if let LoginAction::Send(bytes) = action {
                io.queue_packet(&bytes);
                io.flush().await.unwrap();
            }
        }
    }

    async fn try_login(ctx: &LoginContext, user: &str, password: &str) -> (Result<LoggedIn, LoginEnd>, Option<u16>) {
        let (stream, io) = pair();
        let from = ClientHost::Ip([10, 0, 0, 9].into());
        let (ours, theirs) = tokio::join!(
            async {
                let ended = login(stream, ctx, 7, from).await;
                // The socket stays in `LoggedIn`: tell the client that there is no more.
                ended.map(|mut l| {
                    l.io.stream = pair().0;
                    l
                })
            },
            client(io, plan(user, password))
        );
        let code = match theirs {
            Err(LoginError::Refused { reply, .. }) => Some(reply.code),
            _ => None,
        };
        (ours, code)
    }

    #[tokio::test]
    async fn a_native_login_is_granted_and_what_it_reveals_opens_server_sessions() {
        let ctx = context(AccountTable::new(vec![native_account("app", "secret")]), Flavor::MariaDb);
        let (logged_in, _) = try_login(&ctx, "app", "secret").await;
        let logged_in = logged_in.unwrap();
        assert_eq!((logged_in.account.to_string().as_str(), &*logged_in.user), ("app@%", "app"));
        assert!(logged_in.opening.is_some() && logged_in.dedicated.is_none());
        assert_eq!(ctx.vault.len(), 1);
    }

    #[tokio::test]
    async fn wrong_passwords_and_unknown_users_look_the_same() {
        for flavor in [Flavor::MariaDb, Flavor::MySql] {
            let ctx = context(AccountTable::new(vec![native_account("app", "secret")]), flavor);
            for (user, password) in [("app", "wrong"), ("nobody", "secret"), ("app", "")] {
                let (ended, code) = try_login(&ctx, user, password).await;
                let used = if password.is_empty() { "NO" } else { "YES" };
                let text = format!("Access denied for user '{user}'@'10.0.0.9' (using password: {used})");
                assert!(matches!(ended, Err(LoginEnd::Refused { reply }) if reply.message == text), "{user}");
                assert_eq!(code, Some(1045));
            }
            assert!(ctx.vault.is_empty());
        }
    }

    #[tokio::test]
    async fn a_locked_account_is_told_only_to_who_knows_the_password() {
        let locked = Account { locked: true, ..native_account("app", "secret") };
        let ctx = context(AccountTable::new(vec![locked]), Flavor::MariaDb);
        assert_eq!(try_login(&ctx, "app", "secret").await.1, Some(4151));
        assert_eq!(try_login(&ctx, "app", "wrong").await.1, Some(1045));
        assert!(ctx.vault.is_empty());
    }

    #[tokio::test]
    async fn a_login_that_only_a_node_can_check_is_refused_in_the_clients_own_terms() {
        let ctx = context(AccountTable::unreadable(), Flavor::MySql);
        let (ended, code) = try_login(&ctx, "app", "secret").await;
        assert_eq!(code, Some(1045));
        assert!(matches!(ended, Err(LoginEnd::Refused { reply }) if reply.message.contains("'app'@'10.0.0.9'")));
    }

    #[tokio::test]
    async fn an_account_matched_by_host_name_needs_the_configuration() {
        let by_name = Account { id: AccountKey::new("app", "db.example.org"), ..native_account("app", "secret") };
        let accounts = || AccountTable::new(vec![by_name.clone(), native_account("app", "secret")]);
        let mut ctx = context(accounts(), Flavor::MariaDb);
        assert_eq!(try_login(&ctx, "app", "secret").await.1, Some(1045));
        let configured = toml::from_str("user = 'app'\npassword = 'secret'").unwrap();
        ctx.configured = ConfiguredAccounts::new(&[configured]);
        assert!(try_login(&ctx, "app", "secret").await.0.is_ok());
    }

    #[tokio::test]
    async fn a_caching_sha2_login_is_full_once_then_fast() {
        // SHA-256-crypt of "secret" made by the scheme itself is not at hand: the vault stands in for the first, full, exchange.
        let stored = caching_sha2::Stored::decoy([b'x'; 20]);
        let method =
            Method { plugin: CACHING_SHA2.into(), verifier: crate::auth::accounts::Verifier::CachingSha2(stored) };
        let account = Account::new(AccountKey::new("app", "%"), vec![method], &[b"x"]);
        let (id, fingerprint) = (account.id.clone(), account.fingerprint);
        let ctx = context(AccountTable::new(vec![account]), Flavor::MySql);
        assert_eq!(try_login(&ctx, "app", "secret").await.1, Some(1045));
        let secret = Recorded::Password(Zeroizing::new(b"secret".to_vec()));
        ctx.vault.record(&id, fingerprint, &secret, [0; 12]).unwrap();
        assert!(try_login(&ctx, "app", "secret").await.0.unwrap().opening.is_some());
        assert_eq!(try_login(&ctx, "app", "Secret").await.1, Some(1045));
    }

    #[tokio::test]
    async fn what_is_no_login_gets_an_error_that_says_so() {
        let ctx = context(AccountTable::new(Vec::new()), Flavor::MariaDb);
        for (frame, code) in
            [(&b"\x20\x00\x00\x05"[..], 1156), (b"\xff\xff\x00\x01", 1153), (b"\x01\x00\x00\x01x", 1043)]
        {
            let (stream, mut io) = pair();
            io.write_buf.extend_from_slice(frame);
            io.flush().await.unwrap();
            let ended = login(stream, &ctx, 7, ClientHost::Local).await;
            assert!(matches!(&ended, Err(LoginEnd::Refused { reply }) if reply.code == code), "{ended:?}");
        }
        let (stream, io) = pair();
        drop(io);
        assert!(login(stream, &ctx, 7, ClientHost::Local).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_ended_in_time() {
        let ctx = context(AccountTable::new(Vec::new()), Flavor::MariaDb);
        let (stream, _io) = pair();
        let ended = login(stream, &ctx, 7, ClientHost::Local).await;
        assert!(matches!(ended, Err(LoginEnd::TimedOut { login_timeout_ms: 5000 })));
    }
}
