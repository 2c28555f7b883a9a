//! belay as a server: the login of a client, without sockets.
//!
//! The first packet (after a possible upgrade to TLS) says who comes; the caller looks the account up and continues with a
//! [`Proof`], which is also what COM_CHANGE_USER uses:
//! ```text
//!  ExpectResponse ──SSLRequest──▶ the caller upgrades ──▶ ExpectResponse (TLS)
//!        │ login packet
//!        ▼
//!   Arrival (user, answer, scheme) ── the caller picks a Challenge ──▶ Proof::begin
//!
//!  Proof: scheme of the answer is another ──AuthSwitch──▶ ExpectAnswer
//!    native:       answer ──▶ Granted | Refused
//!    caching_sha2: answer ──fast and cached──▶ Granted
//!                    └─ else send 4 ──▶ ExpectPassword ──request for the key──▶ send key ──▶ ExpectCiphertext
//!                                           └─ password ──▶ Granted | Refused ◀── decrypted ───┘
//! ```

use std::sync::Arc;

use bytes::Bytes;
use zeroize::Zeroizing;

use crate::auth::accounts::Verifier;
use crate::auth::caching_sha2::{self, PasswordKey};
use crate::auth::vault::Recorded;
use crate::auth::{CACHING_SHA2, NATIVE, Scramble, native};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::{Capabilities, StatusFlags};
use crate::protocol::mysql::packet::auth_more_data;
use crate::protocol::mysql::packet::auth_switch::AuthSwitch;
use crate::protocol::mysql::packet::change_user::ChangeUser;
use crate::protocol::mysql::packet::handshake::Handshake;
use crate::protocol::mysql::packet::handshake_response::HandshakeResponse;
use crate::protocol::mysql::packet::ssl_request::{LoginHead, SSL_REQUEST_BYTES};

/// What belay offers clients, apart from SSL and LONG_PASSWORD.
pub const OFFERED: Capabilities = Capabilities::FOUND_ROWS
    .union(Capabilities::LONG_FLAG)
    .union(Capabilities::CONNECT_WITH_DB)
    .union(Capabilities::NO_SCHEMA)
    .union(Capabilities::LOCAL_FILES)
    .union(Capabilities::IGNORE_SPACE)
    .union(Capabilities::PROTOCOL_41)
    .union(Capabilities::INTERACTIVE)
    .union(Capabilities::TRANSACTIONS)
    .union(Capabilities::SECURE_CONNECTION)
    .union(Capabilities::MULTI_STATEMENTS)
    .union(Capabilities::MULTI_RESULTS)
    .union(Capabilities::PS_MULTI_RESULTS)
    .union(Capabilities::PLUGIN_AUTH)
    .union(Capabilities::CONNECT_ATTRS)
    .union(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA)
    .union(Capabilities::SESSION_TRACK)
    .union(Capabilities::DEPRECATE_EOF);

/// The error for bytes that are no login.
pub fn bad_handshake() -> ErrorReply {
    ErrorReply::new(1043, b"08S01", "Bad handshake")
}

/// The error for a packet with a wrong sequence number.
pub fn out_of_order() -> ErrorReply {
    ErrorReply::new(1156, b"08S01", "Got packets out of order")
}

/// The error for a client that is older than protocol 4.1.
pub fn too_old() -> ErrorReply {
    let text = "Client does not support authentication protocol requested by server; consider upgrading MySQL client";
    ErrorReply::new(1251, b"08004", text)
}

/// The error for a refused login, word for word as servers send it.
pub fn access_denied(user: &str, host: &str, used_password: bool) -> ErrorReply {
    let yes = if used_password { "YES" } else { "NO" };
    ErrorReply::new(1045, b"28000", format!("Access denied for user '{user}'@'{host}' (using password: {yes})"))
}

/// The greeting for a client. `mysql`: whether the cluster is MySQL (else clients shall take belay for MariaDB).
pub fn greeting(
    server_version: &str,
    connection_id: u32,
    scramble: Scramble,
    plugin: &str,
    mysql: bool,
    tls: bool,
) -> Handshake {
    let mut capabilities = OFFERED;
    capabilities.set(Capabilities::LONG_PASSWORD, mysql);
    capabilities.set(Capabilities::SSL, tls);
    if !mysql {
        capabilities |= Capabilities::MARIADB_STMT_BULK_OPERATIONS;
    }
    Handshake {
        server_version: server_version.to_owned(),
        thread_id: connection_id,
        scramble,
        capabilities,
        collation: 45,
        status: StatusFlags::AUTOCOMMIT,
        auth_plugin: plugin.to_owned(),
    }
}

/// Waits for the client's answer to the greeting.
#[derive(Debug)]
pub struct ExpectResponse {
    greeting: Handshake,
    tls: bool,
}

/// What the client's packet asks for.
#[derive(Debug)]
pub enum FirstStep {
    /// Upgrade the stream to TLS, then read the next packet with this.
    StartTls(ExpectResponse),
    /// Somebody arrived.
    Arrived(Box<Arrival>),
}

/// Who logs in, and how far the client can follow.
#[derive(Debug)]
pub struct Arrival {
    /// User name as sent. A name that is not UTF-8 can match no account that belay can read; it is kept lossily for the error text.
    pub user: String,
    /// Schema to start in.
    pub schema: Option<Bytes>,
    /// What both understand.
    pub capabilities: Capabilities,
    /// Collation id.
    pub collation: u16,
    /// Connection attributes.
    pub attributes: Vec<(Bytes, Bytes)>,
    /// The client's answer so far.
    pub answer: ClientAnswer,
}

/// What a client answered, to which challenge, by which scheme.
#[derive(Clone)]
pub struct ClientAnswer {
    /// The scheme; empty if the client knows no plugins.
    pub plugin: String,
    /// The challenge it answers.
    pub scramble: Scramble,
    /// The answer.
    pub auth: Zeroizing<Vec<u8>>,
    /// Whether the client can be asked to switch the scheme.
    pub can_switch: bool,
}

impl std::fmt::Debug for ClientAnswer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientAnswer").field("plugin", &self.plugin).finish_non_exhaustive()
    }
}

impl ExpectResponse {
    /// After `greeting` was sent.
    pub fn new(greeting: Handshake) -> ExpectResponse {
        ExpectResponse { greeting, tls: false }
    }

    /// Takes the client's packet.
    pub fn handle(mut self, payload: &[u8]) -> Result<FirstStep, ErrorReply> {
        // The lowest 16 bits are all that a client before 4.1 sends.
        if let [low, high, ..] = payload
            && u64::from(u16::from_le_bytes([*low, *high])) & Capabilities::PROTOCOL_41.bits() == 0
        {
            return Err(too_old());
        }
        let offered = self.greeting.capabilities;
        if payload.len() == SSL_REQUEST_BYTES && !self.tls && offered.contains(Capabilities::SSL) {
            let head = LoginHead::read(&mut crate::protocol::mysql::codec::Reader::new(payload));
            if head.is_ok_and(|h| h.capabilities.contains(Capabilities::SSL)) {
                self.tls = true;
                return Ok(FirstStep::StartTls(self));
            }
        }
        let response = HandshakeResponse::decode(payload).map_err(|_| bad_handshake())?;
        let capabilities = response.head.capabilities & offered;
        if !response.head.capabilities.intersects(Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH) {
            return Err(too_old());
        }
        let can_switch = capabilities.contains(Capabilities::PLUGIN_AUTH);
        let plugin = response.auth_plugin.as_deref().map_or(NATIVE.into(), String::from_utf8_lossy).into_owned();
        let answer = ClientAnswer {
            plugin,
            scramble: self.greeting.scramble,
            auth: Zeroizing::new(response.auth.to_vec()),
            can_switch,
        };
        Ok(FirstStep::Arrived(Box::new(Arrival {
            user: String::from_utf8_lossy(&response.user).into_owned(),
            schema: response.schema,
            capabilities,
            collation: u16::from(response.head.collation),
            attributes: response.attributes,
            answer,
        })))
    }
}

/// Reads COM_CHANGE_USER as another arrival. `scramble` is that of the connection's greeting.
pub fn change_user(payload: &[u8], capabilities: Capabilities, scramble: Scramble) -> Result<Arrival, ErrorReply> {
    let command = ChangeUser::decode(payload, capabilities)
        .map_err(|_| ErrorReply::new(1047, b"08S01", "Malformed COM_CHANGE_USER"))?;
    let plugin = command.auth_plugin.as_deref().map_or(NATIVE.into(), String::from_utf8_lossy).into_owned();
    Ok(Arrival {
        user: String::from_utf8_lossy(&command.user).into_owned(),
        schema: command.schema,
        capabilities,
        collation: command.collation.unwrap_or(0),
        attributes: command.attributes,
        answer: ClientAnswer {
            plugin,
            scramble,
            auth: Zeroizing::new(command.auth.to_vec()),
            can_switch: capabilities.contains(Capabilities::PLUGIN_AUTH),
        },
    })
}

/// How an arrival is asked to prove itself.
#[derive(Debug)]
pub enum Challenge {
    /// `mysql_native_password` against any of these. With none (an unknown user), everything is refused.
    Native(Vec<Verifier>),
    /// `caching_sha2_password`.
    CachingSha2 {
        /// Any of these grants. With none (an unknown user), everything is refused after the same steps.
        verifiers: Vec<Verifier>,
        /// SHA256(SHA256(pw)) of a recorded password: allows the fast path.
        cached: Option<[u8; 32]>,
    },
    /// `caching_sha2_password`, always the full exchange: what is revealed is proven elsewhere, against a node.
    Reveal,
}

impl Challenge {
    fn plugin(&self) -> &'static str {
        match self {
            Challenge::Native(_) => NATIVE,
            Challenge::CachingSha2 { .. } | Challenge::Reveal => CACHING_SHA2,
        }
    }
}

/// How it ended, or what to do next.
#[derive(Debug)]
pub enum ProofStep {
    /// Send this, then read the next packet and give it to [`Proof::handle`].
    Send(Proof, Bytes),
    /// The client is who it says. `None`: by the cached digest, so what is recorded already is right. `send`: to go before the OK.
    Granted {
        /// What the login revealed.
        revealed: Option<Recorded>,
        /// A packet that the client expects before the OK.
        send: Option<Bytes>,
    },
    /// It is not.
    Refused {
        /// Whether the client sent any password, for the error text.
        used_password: bool,
    },
}

#[derive(Debug)]
enum ProofState {
    Answer { scramble: Scramble },
    Password { scramble: Scramble },
    Ciphertext { scramble: Scramble },
}

/// A client that is proving itself.
#[derive(Debug)]
pub struct Proof {
    challenge: Challenge,
    state: ProofState,
    confidential: bool,
    key: Arc<PasswordKey>,
    decoy: [u8; 20],
}

impl Proof {
    /// Starts with the client's answer so far. `confidential`: TLS or a unix socket. `fresh`: a new scramble in case the scheme must be
    /// switched; `decoy`: random bytes that stand for the salt of users that do not exist.
    pub fn begin(
        answer: &ClientAnswer,
        challenge: Challenge,
        confidential: bool,
        key: Arc<PasswordKey>,
        fresh: Scramble,
        decoy: [u8; 20],
    ) -> Result<ProofStep, ErrorReply> {
        let state = ProofState::Answer { scramble: answer.scramble };
        let plugin = challenge.plugin();
        let mut proof = Proof { challenge, state, confidential, key, decoy };
        if answer.plugin == plugin {
            return proof.handle(&answer.auth);
        }
        if !answer.can_switch {
            return Err(too_old());
        }
        proof.state = ProofState::Answer { scramble: fresh };
        let switch = AuthSwitch { plugin: plugin.to_owned(), data: Bytes::copy_from_slice(&fresh) };
        Ok(ProofStep::Send(proof, switch.encode()))
    }

    /// Takes the client's next packet. Checking a password takes milliseconds: run it where that is allowed.
    pub fn handle(mut self, payload: &[u8]) -> Result<ProofStep, ErrorReply> {
        match self.state {
            ProofState::Answer { scramble } => Ok(self.answered(&scramble, payload)),
            ProofState::Password { scramble } => match payload {
                [caching_sha2::REQUEST_PUBLIC_KEY] if !self.confidential => {
                    self.state = ProofState::Ciphertext { scramble };
                    let pem = auth_more_data::encode(self.key.public_pem().as_bytes());
                    Ok(ProofStep::Send(self, pem))
                }
                // Without TLS a client that has our key already sends the ciphertext at once.
                _ if !self.confidential => Ok(self.decrypted(&scramble, payload)),
                [password @ .., 0] => Ok(self.revealed(password)),
                _ => Err(bad_handshake()),
            },
            ProofState::Ciphertext { scramble } => Ok(self.decrypted(&scramble, payload)),
        }
    }

    fn answered(mut self, scramble: &Scramble, answer: &[u8]) -> ProofStep {
        // Some clients answer 'no password' to a switch by one NUL byte.
        let empty = answer.is_empty() || answer == [0];
        match &self.challenge {
            Challenge::Native(verifiers) => {
                let stored = verifiers.iter().filter_map(|v| match v {
                    Verifier::Native(stored) => Some(stored),
                    _ => None,
                });
                if empty {
                    return empty_password(verifiers);
                }
                match stored.filter_map(|s| native::verify(scramble, s, answer)).next() {
                    Some(stage1) => granted(Some(Recorded::NativeSha1(stage1)), None),
                    None => ProofStep::Refused { used_password: true },
                }
            }
            Challenge::CachingSha2 { verifiers, .. } if empty => empty_password(verifiers),
            Challenge::CachingSha2 { cached: Some(cached), .. }
                if caching_sha2::verify_fast(scramble, cached, answer) =>
            {
                granted(None, Some(auth_more_data::encode(&[caching_sha2::FAST_OK])))
            }
            // An empty password needs no further exchange: a node will say whether it is right.
            Challenge::Reveal if empty => granted(Some(password_of(b"")), None),
            Challenge::CachingSha2 { .. } | Challenge::Reveal => {
                self.state = ProofState::Password { scramble: *scramble };
                ProofStep::Send(self, auth_more_data::encode(&[caching_sha2::FULL]))
            }
        }
    }

    fn decrypted(self, scramble: &Scramble, ciphertext: &[u8]) -> ProofStep {
        match self.key.decrypt(scramble, ciphertext) {
            Ok(password) => self.revealed(&password),
            Err(_) => ProofStep::Refused { used_password: true },
        }
    }

    fn revealed(self, password: &[u8]) -> ProofStep {
        let right = match &self.challenge {
            Challenge::Reveal => password.len() <= caching_sha2::PASSWORD_BYTES_MAX,
            Challenge::Native(_) => false,
            Challenge::CachingSha2 { verifiers, .. } => {
                let mut stored = verifiers
                    .iter()
                    .filter_map(|v| match v {
                        Verifier::CachingSha2(stored) => Some(stored),
                        _ => None,
                    })
                    .peekable();
                if stored.peek().is_none() {
                    // As slow as for an account that exists.
                    caching_sha2::Stored::decoy(self.decoy).verify(password);
                }
                stored.any(|s| s.verify(password))
            }
        };
        if right { granted(Some(password_of(password)), None) } else { ProofStep::Refused { used_password: true } }
    }
}

fn password_of(password: &[u8]) -> Recorded {
    Recorded::Password(Zeroizing::new(password.to_vec()))
}

fn granted(revealed: Option<Recorded>, send: Option<Bytes>) -> ProofStep {
    ProofStep::Granted { revealed, send }
}

fn empty_password(verifiers: &[Verifier]) -> ProofStep {
    if verifiers.contains(&Verifier::Empty) {
        granted(Some(password_of(b"")), None)
    } else {
        ProofStep::Refused { used_password: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::caching_sha2::{cached_digest, encrypt_password, fast_answer};
    use std::sync::LazyLock;

    static KEY: LazyLock<Arc<PasswordKey>> = LazyLock::new(|| Arc::new(PasswordKey::generate().unwrap().0));

    fn answer(plugin: &str, auth: &[u8]) -> ClientAnswer {
        ClientAnswer { plugin: plugin.into(), scramble: [1; 20], auth: Zeroizing::new(auth.to_vec()), can_switch: true }
    }

    fn begin(a: &ClientAnswer, challenge: Challenge, confidential: bool) -> ProofStep {
        Proof::begin(a, challenge, confidential, KEY.clone(), [2; 20], [3; 20]).unwrap()
    }

    fn sent(step: ProofStep) -> (Proof, Bytes) {
        match step {
            ProofStep::Send(proof, bytes) => (proof, bytes),
            other => panic!("{other:?}"),
        }
    }

    fn native_verifier() -> Verifier {
        Verifier::Native(native::stage2(&native::stage1(b"pw")))
    }

    #[test]
    fn a_native_answer_is_checked_at_once_or_after_a_switch() {
        let one = native::stage1(b"pw");
        let direct = answer(NATIVE, &native::answer(&[1; 20], &one));
        let step = begin(&direct, Challenge::Native(vec![native_verifier()]), false);
        assert!(matches!(step, ProofStep::Granted { revealed: Some(Recorded::NativeSha1(s)), .. } if *s == *one));
        let (proof, switch) = sent(begin(&answer("odd", b"x"), Challenge::Native(vec![native_verifier()]), false));
        assert_eq!(AuthSwitch::decode(&switch).unwrap().data[..], [2; 20]);
        let step = proof.handle(&native::answer(&[2; 20], &one)).unwrap();
        assert!(matches!(step, ProofStep::Granted { .. }));
        let step = begin(&direct, Challenge::Native(Vec::new()), false);
        assert!(matches!(step, ProofStep::Refused { used_password: true }));
        let step = begin(&answer(NATIVE, b""), Challenge::Native(vec![native_verifier()]), false);
        assert!(matches!(step, ProofStep::Refused { used_password: false }));
    }

    #[test]
    fn caching_sha2_is_fast_when_the_password_is_known() {
        let a = answer(CACHING_SHA2, &fast_answer(&[1; 20], b"pw"));
        let challenge = Challenge::CachingSha2 { verifiers: Vec::new(), cached: Some(cached_digest(b"pw")) };
        let step = begin(&a, challenge, false);
        assert!(matches!(step, ProofStep::Granted { revealed: None, send: Some(s) } if s[..] == [1, 3]));
    }

    #[test]
    fn caching_sha2_in_full_by_rsa_and_in_clear() {
        let a = answer(CACHING_SHA2, &fast_answer(&[1; 20], b"pw"));
        let (proof, full) = sent(begin(&a, Challenge::Reveal, false));
        assert_eq!(full[..], [1, 4]);
        let (proof, pem) = sent(proof.handle(&[2]).unwrap());
        let cipher = encrypt_password(&pem[1..], &[1; 20], b"pw").unwrap();
        let step = proof.handle(&cipher).unwrap();
        assert!(matches!(step, ProofStep::Granted { revealed: Some(Recorded::Password(p)), .. } if p[..] == b"pw"[..]));
        let (proof, _) = sent(begin(&a, Challenge::Reveal, true));
        assert!(matches!(proof.handle(b"pw\0").unwrap(), ProofStep::Granted { .. }));
        // Clear text without TLS is never taken.
        let (proof, _) = sent(begin(&a, Challenge::Reveal, false));
        assert!(matches!(proof.handle(b"pw\0").unwrap(), ProofStep::Refused { .. }));
    }

    #[test]
    fn unknown_users_take_the_same_steps_as_wrong_passwords() {
        let a = answer(CACHING_SHA2, &[9; 32]);
        let unknown = Challenge::CachingSha2 { verifiers: Vec::new(), cached: None };
        let known = Challenge::CachingSha2 {
            verifiers: vec![Verifier::CachingSha2(caching_sha2::Stored::decoy([4; 20]))],
            cached: None,
        };
        for challenge in [unknown, known] {
            let (proof, full) = sent(begin(&a, challenge, true));
            assert_eq!(full[..], [1, 4]);
            assert!(matches!(proof.handle(b"wrong\0").unwrap(), ProofStep::Refused { used_password: true }));
        }
    }

    fn expect() -> ExpectResponse {
        ExpectResponse::new(greeting("10.11.6-MariaDB", 7, [1; 20], NATIVE, false, true))
    }

    #[test]
    fn old_and_broken_clients_get_clear_errors() {
        assert_eq!(expect().handle(&[0x85, 0x24, 0, 0, 0]).unwrap_err().code, 1251);
        let no_plugins = Capabilities::PROTOCOL_41.bits() as u32;
        let mut packet = no_plugins.to_le_bytes().to_vec();
        packet.extend([0; 28]);
        packet.extend(b"u\0\0");
        assert_eq!(expect().handle(&packet).unwrap_err().code, 1251);
        let mut cut = (Capabilities::PROTOCOL_41 | Capabilities::PLUGIN_AUTH).bits().to_le_bytes()[..4].to_vec();
        cut.extend([0; 5]);
        assert_eq!(expect().handle(&cut).unwrap_err().code, 1043);
    }

    #[test]
    fn tls_is_asked_for_once_and_agreed_capabilities_are_an_intersection() {
        let capabilities = Capabilities::PROTOCOL_41
            | Capabilities::SSL
            | Capabilities::PLUGIN_AUTH
            | Capabilities::SECURE_CONNECTION
            | Capabilities::COMPRESS
            | Capabilities::SESSION_TRACK;
        let head = LoginHead { capabilities, packet_bytes_max: 1 << 24, collation: 45 };
        let Ok(FirstStep::StartTls(expect)) = expect().handle(&head.encode_ssl_request()) else { panic!() };
        let response = HandshakeResponse {
            head,
            user: Bytes::from_static(b"app"),
            auth: Bytes::new(),
            schema: None,
            auth_plugin: None,
            attributes: Vec::new(),
        };
        let Ok(FirstStep::Arrived(arrival)) = expect.handle(&response.encode()) else { panic!() };
        assert_eq!(arrival.user, "app");
        assert!(arrival.capabilities.contains(Capabilities::SESSION_TRACK));
        assert!(!arrival.capabilities.contains(Capabilities::COMPRESS));
    }
}
