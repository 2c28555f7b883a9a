//! The client's side of the login: greeting, handshake response, `mysql_native_password` and `caching_sha2_password`.

use sha1::Digest as _;

use super::reply::{error_of, put_lenenc};
use super::{Socket, Wire, WireError, WireResult};

/// Capability flags by name.
pub mod caps {
    /// Affected rows count what was found, not what changed.
    pub const FOUND_ROWS: u32 = 1 << 1;
    /// A schema is in the login.
    pub const CONNECT_WITH_DB: u32 = 1 << 3;
    /// LOAD DATA LOCAL.
    pub const LOCAL_FILES: u32 = 1 << 7;
    /// The 4.1 protocol.
    pub const PROTOCOL_41: u32 = 1 << 9;
    /// TLS.
    pub const SSL: u32 = 1 << 11;
    /// Status flags in OK.
    pub const TRANSACTIONS: u32 = 1 << 13;
    /// 4.1 passwords.
    pub const SECURE_CONNECTION: u32 = 1 << 15;
    /// Several statements in one COM_QUERY.
    pub const MULTI_STATEMENTS: u32 = 1 << 16;
    /// Several results.
    pub const MULTI_RESULTS: u32 = 1 << 17;
    /// Several results of a prepared statement.
    pub const PS_MULTI_RESULTS: u32 = 1 << 18;
    /// Plugin name in the login.
    pub const PLUGIN_AUTH: u32 = 1 << 19;
    /// Session state changes in OK.
    pub const SESSION_TRACK: u32 = 1 << 23;
    /// Rows end with OK instead of EOF.
    pub const DEPRECATE_EOF: u32 = 1 << 24;
    /// What this client asks for unless told otherwise.
    pub const DEFAULT: u32 = 1
        | 4
        | PROTOCOL_41
        | TRANSACTIONS
        | SECURE_CONNECTION
        | MULTI_RESULTS
        | PS_MULTI_RESULTS
        | PLUGIN_AUTH
        | DEPRECATE_EOF;
}

/// Who logs in and how.
#[derive(Clone, Copy, Debug)]
pub struct Login<'a> {
    /// User name.
    pub user: &'a str,
    /// Password.
    pub password: &'a str,
    /// Schema.
    pub schema: Option<&'a str>,
    /// Capabilities to ask for.
    pub caps: u32,
    /// Collation; a login has room for its low byte.
    pub collation: u16,
}

impl<'a> Login<'a> {
    /// A login without a schema and with the usual capabilities.
    pub fn new(user: &'a str, password: &'a str) -> Login<'a> {
        Login { user, password, schema: None, caps: caps::DEFAULT, collation: 45 }
    }

    /// The same with a schema.
    pub fn schema(self, schema: &'a str) -> Login<'a> {
        Login { schema: Some(schema), ..self }
    }

    /// The same with this collation.
    pub fn collation(self, collation: u16) -> Login<'a> {
        Login { collation, ..self }
    }

    /// The same with more capabilities.
    pub fn with(self, caps: u32) -> Login<'a> {
        Login { caps: self.caps | caps, ..self }
    }

    /// The same without some capabilities.
    pub fn without(self, caps: u32) -> Login<'a> {
        Login { caps: self.caps & !caps, ..self }
    }
}

impl Wire {
    pub(super) fn take_greeting(&mut self, p: &[u8]) -> WireResult<()> {
        error_of(p)?;
        let bad = || WireError::Malformed("greeting".into());
        let rest = p.strip_prefix(&[10]).ok_or_else(bad)?;
        let nul = rest.iter().position(|b| *b == 0).ok_or_else(bad)?;
        let (version, rest) = rest.split_at(nul);
        self.version = String::from_utf8_lossy(version).into_owned();
        let at = |i: usize| rest.get(i + 1).copied().ok_or_else(bad);
        self.connection_id = u32::from_le_bytes([at(0)?, at(1)?, at(2)?, at(3)?]);
        self.nonce = rest.get(5..13).ok_or_else(bad)?.to_vec();
        self.collation = at(15)?;
        self.server_caps = u32::from_le_bytes([at(13)?, at(14)?, at(18)?, at(19)?]);
        let tail = rest.get(32..).ok_or_else(bad)?;
        self.nonce.extend_from_slice(tail.get(..12).ok_or_else(bad)?);
        let name = tail.get(13..).unwrap_or_default();
        self.plugin = String::from_utf8_lossy(name.split(|b| *b == 0).next().unwrap_or_default()).into_owned();
        Ok(())
    }

    /// Answers the greeting and goes through the exchange until OK or ERR.
    pub fn authenticate(&mut self, login: &Login<'_>) -> WireResult<()> {
        let mut wanted = login.caps;
        if login.schema.is_some() {
            wanted |= caps::CONNECT_WITH_DB;
        }
        self.caps = wanted & (self.server_caps | 1);
        let plugin = self.plugin.clone();
        let answer = scramble(&plugin, login.password, &self.nonce);
        let mut p = Vec::with_capacity(128);
        p.extend_from_slice(&self.caps.to_le_bytes());
        p.extend_from_slice(&(1u32 << 30).to_le_bytes());
        p.push(login.collation as u8);
        p.resize(p.len() + 23, 0);
        p.extend_from_slice(login.user.as_bytes());
        p.push(0);
        p.push(answer.len() as u8);
        p.extend_from_slice(&answer);
        if let (Some(schema), true) = (login.schema, self.caps & caps::CONNECT_WITH_DB != 0) {
            p.extend_from_slice(schema.as_bytes());
            p.push(0);
        }
        p.extend_from_slice(plugin.as_bytes());
        p.push(0);
        self.send_packet(&p)?;
        self.finish_authentication(login.password)
    }

    /// COM_CHANGE_USER with the same kind of exchange.
    pub fn change_user(&mut self, login: &Login<'_>) -> WireResult<()> {
        let plugin = "mysql_native_password";
        let answer = scramble(plugin, login.password, &self.nonce);
        let mut p = login.user.as_bytes().to_vec();
        p.push(0);
        p.push(answer.len() as u8);
        p.extend_from_slice(&answer);
        p.extend_from_slice(login.schema.unwrap_or_default().as_bytes());
        p.push(0);
        p.extend_from_slice(&login.collation.to_le_bytes());
        p.extend_from_slice(plugin.as_bytes());
        p.push(0);
        self.send_command(0x11, &p)?;
        self.finish_authentication(login.password)
    }

    fn finish_authentication(&mut self, password: &str) -> WireResult<()> {
        let mut plugin = self.plugin.clone();
        for _ in 0..8 {
            let p = self.read_packet()?;
            error_of(&p)?;
            match p.split_first() {
                Some((0, _)) => return Ok(()),
                Some((0xfe, rest)) => {
                    let nul = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
                    let (name, nonce) = rest.split_at(nul);
                    plugin = String::from_utf8_lossy(name).into_owned();
                    let nonce = nonce.get(1..).unwrap_or_default();
                    self.nonce = nonce.strip_suffix(&[0]).unwrap_or(nonce).to_vec();
                    let answer = scramble(&plugin, password, &self.nonce);
                    self.send_packet(&answer)?;
                }
                Some((1, [3])) => {}
                Some((1, [4])) if matches!(self.socket, Socket::Unix(_)) => {
                    let mut clear = password.as_bytes().to_vec();
                    clear.push(0);
                    self.send_packet(&clear)?;
                }
                _ => return Err(WireError::Malformed(format!("login ({plugin}): {p:02x?}"))),
            }
        }
        Err(WireError::Malformed("the login does not end".into()))
    }
}

/// The answer to a nonce.
fn scramble(plugin: &str, password: &str, nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    match plugin {
        "caching_sha2_password" => {
            let sha = |parts: &[&[u8]]| {
                let mut h = sha2::Sha256::new();
                parts.iter().for_each(|p| h.update(p));
                h.finalize().to_vec()
            };
            let once = sha(&[password.as_bytes()]);
            let mask = sha(&[&sha(&[&once]), nonce]);
            once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
        }
        _ => {
            let sha = |parts: &[&[u8]]| {
                let mut h = sha1::Sha1::new();
                parts.iter().for_each(|p| h.update(p));
                h.finalize().to_vec()
            };
            let once = sha(&[password.as_bytes()]);
            let mask = sha(&[nonce, &sha(&[&once])]);
            once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
        }
    }
}

/// The body of a handshake response with nothing wrong in it, to be spoilt by tests.
pub fn plain_response(user: &str) -> Vec<u8> {
    let mut p = Vec::new();
    p.extend_from_slice(&caps::DEFAULT.to_le_bytes());
    p.extend_from_slice(&[0, 0, 0, 1, 45]);
    p.resize(p.len() + 23, 0);
    p.extend_from_slice(user.as_bytes());
    p.push(0);
    put_lenenc(&mut p, 0);
    p.extend_from_slice(b"mysql_native_password\0");
    p
}
