//! belay as a client: the login to a node, without sockets.
//!
//! ```text
//!  ExpectGreeting ──greeting──▶ (TLS wanted: send SSLRequest, the caller upgrades, `tls_done`) ──▶ send response
//!                                                                                                      │
//!    ┌───────────────────────────────────────────────────────────────────────────────────────────────┘
//!    ▼
//!  ExpectVerdict ──OK──▶ done        ──ERR──▶ Refused
//!    │  ▲   ▲
//!    │  │   └── AuthSwitch: answer by the other scheme (bounded)
//!    │  └────── MoreData 3 (fast answer was right): nothing to send
//!    │
//!    └─ MoreData 4 (full exchange) ── TLS or unix socket: the password ──▶ ExpectVerdict
//!                └─ else: ask for the key ──▶ ExpectPublicKey ──key: encrypted password──▶ ExpectVerdict
//! ```

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::auth::vault::Recorded;
use crate::auth::{CACHING_SHA2, CLEAR, NATIVE, Scramble, caching_sha2, native};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::DecodeError;
use crate::protocol::mysql::packet::auth_more_data;
use crate::protocol::mysql::packet::auth_switch::AuthSwitch;
use crate::protocol::mysql::packet::err::ErrPacket;
use crate::protocol::mysql::packet::handshake::Handshake;
use crate::protocol::mysql::packet::handshake_response::{Attributes, HandshakeResponse};
use crate::protocol::mysql::packet::ssl_request::LoginHead;

/// Packets of one login to a node at the most; a server that sends more is not one.
const STEPS_MAX: u32 = 8;

/// How a login to a node is made.
#[derive(Clone, Debug)]
pub struct LoginPlan {
    /// User name.
    pub user: Bytes,
    /// What opens the account.
    pub secret: Recorded,
    /// What is asked of the node; only what it offers is used. SSL is decided by `tls`.
    pub capabilities: Capabilities,
    /// Collation id of the session.
    pub collation: u8,
    /// Connection attributes.
    pub attributes: Attributes,
    /// Whether TLS is wanted.
    pub tls: TlsWish,
    /// Whether the connection is a unix socket: passwords may travel on it as they are.
    pub local: bool,
}

/// Whether a login uses TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsWish {
    /// Never.
    Never,
    /// If the node offers it.
    IfOffered,
    /// Always.
    Always,
}

/// Why a login to a node failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The node answered with an error, at this point of the login.
    #[error("{reply}")]
    Refused {
        /// What it said.
        reply: ErrorReply,
        /// Whether it had seen belay's answer: only then can it be the secret that was refused.
        answered: bool,
    },
    /// What came is no packet that belongs here.
    #[error("the node broke the login protocol: {0}")]
    Protocol(#[from] DecodeError),
    /// TLS is required and the node does not offer it.
    #[error("the node offers no TLS, and the configuration requires it")]
    NoTls,
    /// The node speaks a protocol older than 4.1, or no authentication plugins.
    #[error("the node is too old: it lacks protocol 4.1")]
    TooOld,
    /// The node asks for a scheme that what was recorded can't serve.
    #[error("the node asks for {plugin}, which the recorded login cannot answer")]
    CannotAnswer {
        /// The scheme it asked for.
        plugin: String,
    },
    /// The node asked to send the password in clear text over an unprotected connection.
    #[error("the node asks for the clear password over a connection without TLS")]
    WouldLeak,
    /// The node's RSA key could not be used.
    #[error("the node's RSA key cannot be used: {0}")]
    Rsa(#[from] caching_sha2::RsaError),
    /// More packets than any login has.
    #[error("the node's login does not end")]
    Endless,
}

/// What the caller does next.
#[derive(Debug)]
pub enum LoginAction {
    /// Send this, then read the next packet.
    Send(Zeroizing<Vec<u8>>),
    /// Send this request, upgrade the stream to TLS, then call [`ServerLogin::tls_done`].
    StartTls(Bytes),
    /// Only read the next packet.
    Read,
    /// Logged in; the payload that was handled is the node's OK.
    Done,
}

/// What the node and belay agreed on.
#[derive(Clone, Debug)]
pub struct Agreed {
    /// The node's greeting.
    pub greeting: Handshake,
    /// The capabilities of both.
    pub capabilities: Capabilities,
    /// Whether TLS is in use.
    pub tls: bool,
}

#[derive(Debug)]
enum Expect {
    Greeting,
    Tls,
    Verdict { plugin: String, scramble: Scramble, answered: bool },
    PublicKey { scramble: Scramble },
}

/// A login to a node, in progress.
#[derive(Debug)]
pub struct ServerLogin {
    plan: LoginPlan,
    agreed: Option<Agreed>,
    expect: Expect,
    steps: u32,
}

fn send(bytes: impl Into<Vec<u8>>) -> LoginAction {
    LoginAction::Send(Zeroizing::new(bytes.into()))
}

fn scramble_of(data: &[u8]) -> Result<Scramble, DecodeError> {
    data.try_into().map_err(|_| DecodeError::Malformed("challenge"))
}

impl ServerLogin {
    /// A login that waits for the node's greeting.
    pub fn new(plan: LoginPlan) -> ServerLogin {
        ServerLogin { plan, agreed: None, expect: Expect::Greeting, steps: 0 }
    }

    /// What was agreed, once the greeting has come.
    pub fn agreed(&self) -> Option<&Agreed> {
        self.agreed.as_ref()
    }

    /// What was agreed, at the end.
    pub fn into_agreed(self) -> Option<Agreed> {
        self.agreed
    }

    /// Takes the next packet of the node.
    pub fn handle(mut self, payload: &[u8]) -> Result<(ServerLogin, LoginAction), LoginError> {
        self.steps += 1;
        if self.steps > STEPS_MAX {
            return Err(LoginError::Endless);
        }
        if payload.first() == Some(&0xFF) {
            let reply = ErrPacket::decode(payload)?.to_reply();
            let answered = match self.expect {
                Expect::Verdict { answered, .. } => answered,
                Expect::Greeting | Expect::Tls | Expect::PublicKey { .. } => false,
            };
            return Err(LoginError::Refused { reply, answered });
        }
        match std::mem::replace(&mut self.expect, Expect::Tls) {
            Expect::Greeting => self.greeted(Handshake::decode(payload)?),
            Expect::Tls => Err(DecodeError::Malformed("packet before TLS").into()),
            Expect::Verdict { plugin, scramble, answered } => self.verdict(payload, plugin, scramble, answered),
            Expect::PublicKey { scramble } => {
                let pem = auth_more_data::decode(payload)?;
                let Recorded::Password(password) = &self.plan.secret else {
                    return Err(LoginError::CannotAnswer { plugin: CACHING_SHA2.to_owned() });
                };
                let action = send(caching_sha2::encrypt_password(pem, &scramble, password)?);
                self.expect = Expect::Verdict { plugin: CACHING_SHA2.to_owned(), scramble, answered: true };
                Ok((self, action))
            }
        }
    }

    fn greeted(mut self, greeting: Handshake) -> Result<(ServerLogin, LoginAction), LoginError> {
        let offered = greeting.capabilities;
        if !offered.contains(Capabilities::PROTOCOL_41 | Capabilities::SECURE_CONNECTION) {
            return Err(LoginError::TooOld);
        }
        let tls = match self.plan.tls {
            TlsWish::Never => false,
            TlsWish::IfOffered => offered.contains(Capabilities::SSL),
            TlsWish::Always if offered.contains(Capabilities::SSL) => true,
            TlsWish::Always => return Err(LoginError::NoTls),
        };
        let mut capabilities = self.plan.capabilities & offered;
        capabilities.set(Capabilities::SSL, tls);
        // The schema is set by the state replay, never by the login.
        capabilities.remove(Capabilities::CONNECT_WITH_DB);
        self.agreed = Some(Agreed { greeting, capabilities, tls });
        if tls {
            let request = self.head(capabilities).encode_ssl_request();
            return Ok((self, LoginAction::StartTls(request)));
        }
        self.respond()
    }

    /// TLS is up: the response to the greeting.
    pub fn tls_done(self) -> Result<(ServerLogin, LoginAction), LoginError> {
        self.respond()
    }

    fn head(&self, capabilities: Capabilities) -> LoginHead {
        LoginHead { capabilities, packet_bytes_max: 1 << 30, collation: self.plan.collation }
    }

    fn respond(mut self) -> Result<(ServerLogin, LoginAction), LoginError> {
        let Some(agreed) = &self.agreed else { return Err(DecodeError::Malformed("order of the login").into()) };
        let capabilities = agreed.capabilities;
        let scramble = agreed.greeting.scramble;
        let offered = agreed.greeting.auth_plugin.as_str();
        // A scheme that the secret can't serve is not answered: the node then switches to the account's own.
        let plugin = match (offered, &self.plan.secret) {
            (CACHING_SHA2, Recorded::Password(_)) => CACHING_SHA2,
            _ => NATIVE,
        };
        let answer = self.answer(plugin, &scramble)?;
        let response = HandshakeResponse {
            head: self.head(capabilities),
            user: self.plan.user.clone(),
            auth: Bytes::from(answer),
            schema: None,
            auth_plugin: Some(Bytes::from_static(plugin.as_bytes())),
            attributes: self.plan.attributes.clone(),
        };
        self.expect = Expect::Verdict { plugin: plugin.to_owned(), scramble, answered: true };
        Ok((self, send(response.encode())))
    }

    fn is_confidential(&self) -> bool {
        self.plan.local || self.agreed.as_ref().is_some_and(|a| a.tls)
    }

    /// The answer by a scheme. An empty password is answered by nothing, as every client does.
    fn answer(&self, plugin: &str, scramble: &Scramble) -> Result<Vec<u8>, LoginError> {
        match (&self.plan.secret, plugin) {
            (Recorded::Password(p), NATIVE | CACHING_SHA2) if p.is_empty() => Ok(Vec::new()),
            (Recorded::NativeSha1(stage1), NATIVE) => Ok(native::answer(scramble, stage1).to_vec()),
            (Recorded::Password(p), NATIVE) => Ok(native::answer(scramble, &native::stage1(p)).to_vec()),
            (Recorded::Password(p), CACHING_SHA2) => Ok(caching_sha2::fast_answer(scramble, p).to_vec()),
            (Recorded::Password(p), CLEAR) if self.is_confidential() => Ok(with_nul(p).to_vec()),
            (Recorded::Password(_), CLEAR) => Err(LoginError::WouldLeak),
            _ => Err(LoginError::CannotAnswer { plugin: plugin.to_owned() }),
        }
    }

    fn verdict(
        mut self,
        payload: &[u8],
        plugin: String,
        scramble: Scramble,
        answered: bool,
    ) -> Result<(ServerLogin, LoginAction), LoginError> {
        match payload.first() {
            Some(0x00) => Ok((self, LoginAction::Done)),
            Some(0xFE) => {
                let switch = AuthSwitch::decode(payload)?;
                // Other schemes come without a challenge, or with one of another length: `answer` says what can be served.
                let scramble = match switch.plugin.as_str() {
                    NATIVE | CACHING_SHA2 => scramble_of(&switch.data)?,
                    _ => scramble,
                };
                let answer = self.answer(&switch.plugin, &scramble)?;
                self.expect = Expect::Verdict { plugin: switch.plugin, scramble, answered: true };
                Ok((self, send(answer)))
            }
            Some(&auth_more_data::AUTH_MORE_DATA_HEADER) if plugin == CACHING_SHA2 => {
                match auth_more_data::decode(payload)? {
                    [caching_sha2::FAST_OK] => {
                        self.expect = Expect::Verdict { plugin, scramble, answered };
                        Ok((self, LoginAction::Read))
                    }
                    [caching_sha2::FULL] => self.full(plugin, scramble),
                    _ => Err(DecodeError::Malformed("authentication data").into()),
                }
            }
            _ => Err(DecodeError::Malformed("answer to a login").into()),
        }
    }

    fn full(mut self, plugin: String, scramble: Scramble) -> Result<(ServerLogin, LoginAction), LoginError> {
        let Recorded::Password(password) = &self.plan.secret else { return Err(LoginError::CannotAnswer { plugin }) };
        if self.is_confidential() {
            let action = LoginAction::Send(with_nul(password));
            self.expect = Expect::Verdict { plugin, scramble, answered: true };
            return Ok((self, action));
        }
        self.expect = Expect::PublicKey { scramble };
        Ok((self, send([caching_sha2::REQUEST_PUBLIC_KEY])))
    }
}

fn with_nul(password: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(password.len() + 1));
    out.extend_from_slice(password);
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mysql::capability::StatusFlags;

    fn plan(secret: Recorded, tls: TlsWish) -> LoginPlan {
        LoginPlan {
            user: Bytes::from_static(b"app"),
            secret,
            capabilities: Capabilities::all(),
            collation: 45,
            attributes: Vec::new(),
            tls,
            local: false,
        }
    }

    fn password() -> Recorded {
        Recorded::Password(Zeroizing::new(b"secret".to_vec()))
    }

    fn greeting(plugin: &str, tls: bool) -> Bytes {
        let mut capabilities = Capabilities::PROTOCOL_41
            | Capabilities::LONG_PASSWORD
            | Capabilities::SECURE_CONNECTION
            | Capabilities::PLUGIN_AUTH
            | Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA;
        capabilities.set(Capabilities::SSL, tls);
        Handshake {
            server_version: "9.7.0".into(),
            thread_id: 1,
            scramble: [1; 20],
            capabilities,
            collation: 255,
            status: StatusFlags::AUTOCOMMIT,
            auth_plugin: plugin.into(),
        }
        .encode()
    }

    fn sent(action: LoginAction) -> Zeroizing<Vec<u8>> {
        match action {
            LoginAction::Send(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_native_login_by_its_sha1() {
        let one = native::stage1(b"secret");
        let login = ServerLogin::new(plan(Recorded::NativeSha1(one.clone()), TlsWish::Never));
        let (login, action) = login.handle(&greeting(NATIVE, true)).unwrap();
        let response = HandshakeResponse::decode(&sent(action)).unwrap();
        assert_eq!(*native::verify(&[1; 20], &native::stage2(&one), &response.auth).unwrap(), *one);
        assert!(!response.head.capabilities.contains(Capabilities::SSL));
        let (_, action) = login.handle(&[0, 0, 0, 2, 0, 0, 0]).unwrap();
        assert!(matches!(action, LoginAction::Done));
    }

    #[test]
    fn a_scheme_that_cannot_be_served_is_named() {
        let login = ServerLogin::new(plan(password(), TlsWish::Never));
        let (login, _) = login.handle(&greeting(NATIVE, false)).unwrap();
        // As MariaDB sends it: 32 bytes of challenge.
        let mut switch = b"\xFEclient_ed25519\0".to_vec();
        switch.extend_from_slice(&[7; 32]);
        let error = login.handle(&switch).unwrap_err();
        assert!(matches!(error, LoginError::CannotAnswer { plugin } if plugin == "client_ed25519"));
    }

    #[test]
    fn the_full_exchange_without_tls_uses_the_node_s_key() {
        let (key, _) = caching_sha2::PasswordKey::generate().unwrap();
        let login = ServerLogin::new(plan(password(), TlsWish::IfOffered));
        let (login, _) = login.handle(&greeting(CACHING_SHA2, false)).unwrap();
        let (login, action) = login.handle(&[1, 4]).unwrap();
        assert_eq!(sent(action)[..], [2]);
        let (login, action) = login.handle(&auth_more_data::encode(key.public_pem().as_bytes())).unwrap();
        assert_eq!(key.decrypt(&[1; 20], &sent(action)).unwrap()[..], b"secret"[..]);
        assert!(matches!(login.handle(&[0, 0, 0, 2, 0, 0, 0]).unwrap().1, LoginAction::Done));
    }

    #[test]
    fn over_tls_the_password_goes_as_it_is() {
        let login = ServerLogin::new(plan(password(), TlsWish::Always));
        let (login, action) = login.handle(&greeting(CACHING_SHA2, true)).unwrap();
        assert!(matches!(action, LoginAction::StartTls(request) if request.len() == 32));
        let (login, _) = login.tls_done().unwrap();
        let (_, action) = login.handle(&[1, 4]).unwrap();
        assert_eq!(sent(action)[..], b"secret\0"[..]);
    }

    #[test]
    fn a_node_cannot_talk_belay_into_leaking_or_looping() {
        let switch = AuthSwitch { plugin: CLEAR.into(), data: Bytes::new() }.encode();
        let login = ServerLogin::new(plan(password(), TlsWish::Never));
        let (login, _) = login.handle(&greeting(NATIVE, false)).unwrap();
        assert!(matches!(login.handle(&switch), Err(LoginError::WouldLeak)));
        let again = AuthSwitch { plugin: NATIVE.into(), data: Bytes::from_static(&[2; 20]) }.encode();
        let mut login = ServerLogin::new(plan(password(), TlsWish::Never)).handle(&greeting(NATIVE, false)).unwrap().0;
        let error = loop {
            match login.handle(&again) {
                Ok((next, _)) => login = next,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, LoginError::Endless));
        let strict = ServerLogin::new(plan(password(), TlsWish::Always));
        assert!(matches!(strict.handle(&greeting(NATIVE, false)), Err(LoginError::NoTls)));
    }

    #[test]
    fn an_error_says_whether_the_secret_was_seen() {
        let err = b"\xFF\x10\x04Too many connections";
        let login = ServerLogin::new(plan(password(), TlsWish::Never));
        assert!(matches!(login.handle(err), Err(LoginError::Refused { answered: false, .. })));
        let login = ServerLogin::new(plan(password(), TlsWish::Never)).handle(&greeting(NATIVE, false)).unwrap().0;
        let err = b"\xFF\x15\x04#28000Access denied";
        assert!(matches!(login.handle(err), Err(LoginError::Refused { answered: true, reply }) if reply.code == 1045));
    }
}
