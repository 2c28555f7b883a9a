//! COM_CHANGE_USER: another login on the same connection.

use bytes::{BufMut, Bytes, BytesMut};

use super::handshake_response::{Attributes, null_or_rest, put_attributes, read_attributes};
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::codec::{DecodeError, Reader, put_null_str};

/// First byte of the command.
pub const COM_CHANGE_USER: u8 = 0x11;

/// A request to log in as somebody else.
#[derive(Clone, PartialEq, Eq)]
pub struct ChangeUser {
    /// User name.
    pub user: Bytes,
    /// Answer to the connection's last challenge.
    pub auth: Bytes,
    /// Schema, if not empty.
    pub schema: Option<Bytes>,
    /// Collation id, if the packet goes that far.
    pub collation: Option<u16>,
    /// The scheme of the answer, with PLUGIN_AUTH.
    pub auth_plugin: Option<Bytes>,
    /// Connection attributes, with CONNECT_ATTRS.
    pub attributes: Attributes,
}

impl std::fmt::Debug for ChangeUser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ChangeUser").field("user", &self.user).finish_non_exhaustive()
    }
}

impl ChangeUser {
    /// Reads the command from a client with these negotiated capabilities.
    pub fn decode(payload: &[u8], capabilities: Capabilities) -> Result<ChangeUser, DecodeError> {
        let mut r = Reader::new(payload);
        if r.u8("command")? != COM_CHANGE_USER {
            return Err(DecodeError::Malformed("command"));
        }
        let user = Bytes::copy_from_slice(null_or_rest(&mut r, "user")?);
        let n = if r.is_empty() { 0 } else { usize::from(r.u8("authentication answer")?) };
        let auth = Bytes::copy_from_slice(r.bytes(n, "authentication answer")?);
        let schema = null_or_rest(&mut r, "schema")?;
        let schema = (!schema.is_empty()).then(|| Bytes::copy_from_slice(schema));
        let collation = if r.is_empty() { None } else { Some(r.u16("collation")?) };
        let auth_plugin = match capabilities.contains(Capabilities::PLUGIN_AUTH) && !r.is_empty() {
            true => Some(Bytes::copy_from_slice(null_or_rest(&mut r, "plugin")?)).filter(|p| !p.is_empty()),
            false => None,
        };
        let attributes =
            if capabilities.contains(Capabilities::CONNECT_ATTRS) { read_attributes(&mut r)? } else { Vec::new() };
        Ok(ChangeUser { user, auth, schema, collation, auth_plugin, attributes })
    }

    /// The command, for a server with these negotiated capabilities.
    pub fn encode(&self, capabilities: Capabilities) -> Bytes {
        let mut out = BytesMut::with_capacity(128);
        out.put_u8(COM_CHANGE_USER);
        put_null_str(&mut out, &self.user);
        out.put_u8(self.auth.len().min(255) as u8);
        out.put_slice(&self.auth[..self.auth.len().min(255)]);
        put_null_str(&mut out, self.schema.as_deref().unwrap_or(b""));
        out.put_u16_le(self.collation.unwrap_or(45));
        if capabilities.contains(Capabilities::PLUGIN_AUTH) {
            put_null_str(&mut out, self.auth_plugin.as_deref().unwrap_or(b""));
        }
        if capabilities.contains(Capabilities::CONNECT_ATTRS) {
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
    fn a_change_of_user_survives_a_round_trip_and_no_cut_panics() {
        let all = Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_ATTRS;
        let c = ChangeUser {
            user: Bytes::from_static(b"app"),
            auth: Bytes::from_static(&[3; 20]),
            schema: None,
            collation: Some(255),
            auth_plugin: Some(Bytes::from_static(b"mysql_native_password")),
            attributes: vec![(Bytes::from_static(b"a"), Bytes::from_static(b"b"))],
        };
        let bytes = c.encode(all);
        assert_eq!(ChangeUser::decode(&bytes, all).unwrap(), c);
        (0..bytes.len()).for_each(|n| drop(ChangeUser::decode(&bytes[..n], all)));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut b in proptest::collection::vec(any::<u8>(), 1..128)) {
            b[0] = COM_CHANGE_USER;
            let _ = ChangeUser::decode(&b, Capabilities::all());
        }
    }
}
