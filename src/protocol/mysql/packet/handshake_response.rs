//! The client's login packet (protocol 4.1).

use bytes::{BufMut, Bytes, BytesMut};

use super::ssl_request::LoginHead;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::{DecodeError, Reader, put_lenenc_int, put_lenenc_str, put_null_str};

/// Connection attributes kept of one client.
pub const ATTRIBUTES_MAX: usize = 64;

/// Connection attributes: names and values.
pub type Attributes = Vec<(Bytes, Bytes)>;

/// What a client sends to log in.
#[derive(Clone, PartialEq, Eq)]
pub struct HandshakeResponse {
    /// Capabilities, packet limit, collation.
    pub head: LoginHead,
    /// User name.
    pub user: Bytes,
    /// Answer to the challenge.
    pub auth: Bytes,
    /// Schema, where CONNECT_WITH_DB is set and it is not empty.
    pub schema: Option<Bytes>,
    /// The scheme the answer is for, where PLUGIN_AUTH is set.
    pub auth_plugin: Option<Bytes>,
    /// Connection attributes, the first [`ATTRIBUTES_MAX`].
    pub attributes: Attributes,
}

impl std::fmt::Debug for HandshakeResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Without the answer: with mysql_clear_password it is the password.
        f.debug_struct("HandshakeResponse").field("head", &self.head).field("user", &self.user).finish_non_exhaustive()
    }
}

/// Reads connection attributes to the end of `r`'s length-encoded block.
pub fn read_attributes(r: &mut Reader<'_>) -> Result<Attributes, DecodeError> {
    if r.is_empty() {
        return Ok(Vec::new());
    }
    let mut block = Reader::new(r.lenenc_str("attributes")?);
    let mut out = Vec::new();
    while !block.is_empty() && out.len() < ATTRIBUTES_MAX {
        let name = Bytes::copy_from_slice(block.lenenc_str("attribute name")?);
        let value = Bytes::copy_from_slice(block.lenenc_str("attribute value")?);
        out.push((name, value));
    }
    Ok(out)
}

/// Appends connection attributes as their length-encoded block.
pub fn put_attributes(out: &mut BytesMut, attributes: &[(Bytes, Bytes)]) {
    let mut block = BytesMut::new();
    for (name, value) in attributes {
        put_lenenc_str(&mut block, name);
        put_lenenc_str(&mut block, value);
    }
    put_lenenc_int(out, block.len() as u64);
    out.put_slice(&block);
}

/// A string that ends at a NUL byte or, as servers accept too, with the packet.
pub fn null_or_rest<'a>(r: &mut Reader<'a>, what: &'static str) -> Result<&'a [u8], DecodeError> {
    if r.rest().contains(&0) { r.null_str(what) } else { Ok(r.take_rest()) }
}

impl HandshakeResponse {
    /// Reads a login packet.
    pub fn decode(payload: &[u8]) -> Result<HandshakeResponse, DecodeError> {
        let mut r = Reader::new(payload);
        let head = LoginHead::read(&mut r)?;
        let has = |c| head.capabilities.contains(c);
        let user = Bytes::copy_from_slice(null_or_rest(&mut r, "user")?);
        let auth = if r.is_empty() {
            &[][..]
        } else if has(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            r.lenenc_str("authentication answer")?
        } else if has(Capabilities::SECURE_CONNECTION) {
            let n = usize::from(r.u8("authentication answer")?);
            r.bytes(n, "authentication answer")?
        } else {
            null_or_rest(&mut r, "authentication answer")?
        };
        let auth = Bytes::copy_from_slice(auth);
        let schema = if has(Capabilities::CONNECT_WITH_DB) { null_or_rest(&mut r, "schema")? } else { &[] };
        let schema = (!schema.is_empty()).then(|| Bytes::copy_from_slice(schema));
        let auth_plugin = match has(Capabilities::PLUGIN_AUTH) {
            true => Some(Bytes::copy_from_slice(null_or_rest(&mut r, "plugin")?)).filter(|p| !p.is_empty()),
            false => None,
        };
        let attributes = if has(Capabilities::CONNECT_ATTRS) { read_attributes(&mut r)? } else { Vec::new() };
        Ok(HandshakeResponse { head, user, auth, schema, auth_plugin, attributes })
    }

    /// The packet. The capabilities in `head` decide which fields are written.
    pub fn encode(&self) -> Bytes {
        let has = |c| self.head.capabilities.contains(c);
        let mut out = BytesMut::with_capacity(256);
        self.head.put(&mut out);
        put_null_str(&mut out, &self.user);
        if has(Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA) {
            put_lenenc_str(&mut out, &self.auth);
        } else if !has(Capabilities::SECURE_CONNECTION) {
            put_null_str(&mut out, &self.auth);
        } else {
            out.put_u8(self.auth.len().min(255) as u8);
            out.put_slice(&self.auth[..self.auth.len().min(255)]);
        }
        if has(Capabilities::CONNECT_WITH_DB) {
            put_null_str(&mut out, self.schema.as_deref().unwrap_or(b""));
        }
        if has(Capabilities::PLUGIN_AUTH) {
            put_null_str(&mut out, self.auth_plugin.as_deref().unwrap_or(b""));
        }
        if has(Capabilities::CONNECT_ATTRS) {
            put_attributes(&mut out, &self.attributes);
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_login_survives_a_round_trip_and_no_cut_panics() {
        let all = Capabilities::PROTOCOL_41
            | Capabilities::SECURE_CONNECTION
            | Capabilities::CONNECT_WITH_DB
            | Capabilities::PLUGIN_AUTH
            | Capabilities::CONNECT_ATTRS
            | Capabilities::MARIADB_STMT_BULK_OPERATIONS;
        for capabilities in [all, all | Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA] {
            let h = HandshakeResponse {
                head: LoginHead { capabilities, packet_bytes_max: 1 << 24, collation: 45 },
                user: Bytes::from_static(b"app"),
                auth: Bytes::from_static(&[1; 20]),
                schema: Some(Bytes::from_static(b"test")),
                auth_plugin: Some(Bytes::from_static(b"mysql_native_password")),
                attributes: vec![(Bytes::from_static(b"_client_name"), Bytes::from_static(b"x"))],
            };
            let bytes = h.encode();
            assert_eq!(HandshakeResponse::decode(&bytes).unwrap(), h);
            (0..bytes.len()).for_each(|n| drop(HandshakeResponse::decode(&bytes[..n])));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(b in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = HandshakeResponse::decode(&b);
        }
    }
}
