//! The syntax of addresses in the configuration: `host:port`, `[ipv6]:port`, `unix:/path`.

/// The longest path that fits into a unix socket's address, in bytes (`sun_path` is 108 with its final NUL).
pub const UNIX_PATH_BYTES_MAX: usize = 107;

/// Checks an address for listening: `host:port` or `[ipv6]:port`. The error says what is wrong.
pub fn check_tcp(text: &str) -> Result<(), &'static str> {
    let (host, port) = split(text)?;
    let Some(port) = port else { return Err("has no port") };
    check_host(host)?;
    check_port(port).map(|_| ())
}

/// Checks the address of a node: as [`check_tcp`], or a host alone (port 3306), or `unix:/path`.
pub fn check_node(text: &str) -> Result<(), &'static str> {
    if let Some(path) = text.strip_prefix("unix:") {
        return check_unix_path(path);
    }
    let (host, port) = split(text)?;
    check_host(host)?;
    match port.map(check_port) {
        Some(Ok(0)) => Err("has port 0, where no server can be"),
        Some(result) => result.map(|_| ()),
        None => Ok(()),
    }
}

/// The address of a node with its port, so that two ways to write one address compare equal.
pub fn with_port(text: &str) -> String {
    match split(text) {
        Ok((_, None)) if !text.starts_with("unix:") => format!("{text}:3306"),
        _ => text.to_owned(),
    }
}

/// Checks the path of a unix socket.
pub fn check_unix_path(path: &str) -> Result<(), &'static str> {
    match path {
        "" => Err("names no path"),
        p if !p.starts_with('/') => Err("is a relative path"),
        p if p.len() > UNIX_PATH_BYTES_MAX => {
            Err("is longer than 107 bytes, which the system does not allow for a socket")
        }
        _ => Ok(()),
    }
}

fn split(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    if let Some(rest) = text.strip_prefix('[') {
        let (host, rest) = rest.split_once(']').ok_or("lacks the closing bracket of an IPv6 address")?;
        if host.parse::<std::net::Ipv6Addr>().is_err() {
            return Err("has no IPv6 address between its brackets");
        }
        return match rest {
            "" => Ok((host, None)),
            _ => rest
                .strip_prefix(':')
                .map(|port| (host, Some(port)))
                .ok_or("has something else than :port after the bracket"),
        };
    }
    match text.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Err("has several colons: an IPv6 address goes into brackets"),
        Some((host, port)) => Ok((host, Some(port))),
        None => Ok((text, None)),
    }
}

fn check_host(host: &str) -> Result<(), &'static str> {
    match host {
        "" => Err("has no host"),
        h if h.contains(|c: char| c.is_whitespace() || c.is_control() || c == '/' || c == '@') => {
            Err("has a character in its host name that no host name can have")
        }
        _ => Ok(()),
    }
}

fn check_port(port: &str) -> Result<u16, &'static str> {
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err("has no number as its port");
    }
    port.parse().map_err(|_| "has a port above 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_are_right_pass() {
        for text in ["127.0.0.1:3306", "db1:3306", "[::1]:3306", "0.0.0.0:0"] {
            assert_eq!(check_tcp(text), Ok(()), "{text}");
        }
        for text in ["db1", "db1.example.org:3307", "[::1]", "[fe80::1]:1", "unix:/run/mysqld/mysqld.sock"] {
            assert_eq!(check_node(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn the_port_of_a_node_can_be_left_out() {
        assert_eq!(
            ["db1", "db1:3306", "[::1]", "unix:/s"].map(with_port),
            ["db1:3306", "db1:3306", "[::1]:3306", "unix:/s"]
        );
    }

    #[test]
    fn addresses_that_are_wrong_do_not() {
        for text in
            ["", ":3306", "db1", "db1:", "db1:x", "db1:70000", "::1:3306", "[::1:3306", "[db1]:1", "a b:1", "db1:+5"]
        {
            assert!(check_tcp(text).is_err(), "{text}");
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["", "db1:0", "unix:", "unix:relative", "mysql://db1", &long] {
            assert!(check_node(text).is_err(), "{text}");
        }
    }
}
