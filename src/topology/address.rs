//! Where a node listens.

use std::path::PathBuf;

/// The address of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum NodeAddress {
    /// A host name or address, and a port.
    Tcp {
        /// Host name, IPv4 address, or IPv6 address without brackets.
        host: String,
        /// Port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// The text names no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an address: write host:port, [ipv6]:port or unix:/path")]
pub struct NotAnAddress(pub String);

impl NodeAddress {
    /// Reads `host:port`, `[ipv6]:port`, `host` (port 3306) or `unix:/path`.
    pub fn parse(text: &str) -> Result<NodeAddress, NotAnAddress> {
        let bad = || NotAnAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(bad()) } else { Ok(NodeAddress::Unix(path.into())) };
        }
        let (host, port) = match text.strip_prefix('[').map(|t| t.split_once(']')) {
            Some(Some((host, ""))) => (host, None),
            Some(Some((host, rest))) => (host, Some(rest.strip_prefix(':').ok_or_else(bad)?)),
            Some(None) => return Err(bad()),
            None => match text.rsplit_once(':') {
                Some((host, port)) if !host.contains(':') => (host, Some(port)),
                Some(_) => return Err(bad()),
                None => (text, None),
            },
        };
        let port = port.map_or(Ok(3306), str::parse).ok().filter(|p| *p != 0).ok_or_else(bad)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(bad());
        }
        Ok(NodeAddress::Tcp { host: host.to_owned(), port })
    }
}

impl std::fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NodeAddress::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            NodeAddress::Tcp { host, port } => write!(f, "{host}:{port}"),
            NodeAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_a_round_trip() {
        for text in ["db1:3306", "[::1]:3307", "10.0.0.1:1", "unix:/run/mysqld.sock"] {
            assert_eq!(NodeAddress::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(NodeAddress::parse("db1").unwrap().to_string(), "db1:3306");
        for text in ["", ":1", "db1:", "db1:0", "db1:x", "::1", "[::1", "[::1]x", "unix:", "a b:1"] {
            assert!(NodeAddress::parse(text).is_err(), "{text}");
        }
    }
}
