//! Where a client comes from, and which host patterns of accounts match it.

use std::net::{IpAddr, Ipv4Addr};

/// Where a client connects from, as host patterns see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientHost {
    /// A TCP peer.
    Ip(IpAddr),
    /// A unix socket; matches as `localhost`.
    Local,
}

impl ClientHost {
    /// The same host with an IPv4 address that came as `::ffff:a.b.c.d` written as IPv4.
    pub fn canonical(self) -> ClientHost {
        match self {
            ClientHost::Ip(ip) => ClientHost::Ip(ip.to_canonical()),
            ClientHost::Local => ClientHost::Local,
        }
    }
}

impl std::fmt::Display for ClientHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ClientHost::Ip(ip) if ip.is_loopback() => f.write_str("localhost"),
            ClientHost::Ip(ip) => ip.fmt(f),
            ClientHost::Local => f.write_str("localhost"),
        }
    }
}

/// Whether a pattern matches a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// It does.
    Yes,
    /// It does not, whatever the host's name is.
    No,
    /// It would, if the address resolved to a fitting name; belay does not resolve.
    ByNameOnly,
}

/// The host part of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// `10.0.0.0/255.255.255.0`; MySQL also `10.0.0.0/24`.
    Net {
        /// The address part.
        net: Ipv4Addr,
        /// The mask.
        mask: Ipv4Addr,
    },
    /// Anything else: literal, or with the wildcards `%` and `_`.
    Text(String),
}

impl HostPattern {
    /// Reads the host column of an account row. The empty pattern matches every host, as `%` does.
    pub fn parse(text: &str) -> HostPattern {
        let parsed = text.split_once('/').and_then(|(net, mask)| {
            let net: Ipv4Addr = net.parse().ok()?;
            let mask = mask.parse().ok().or_else(|| {
                let bits: u32 = mask.parse().ok().filter(|b| *b <= 32)?;
                Some(Ipv4Addr::from(u32::MAX.checked_shl(32 - bits).unwrap_or(0)))
            })?;
            Some(HostPattern::Net { net, mask })
        });
        parsed.unwrap_or_else(|| HostPattern::Text(text.to_ascii_lowercase()))
    }

    /// Sorts more specific patterns first (greater = more specific): literals, then masks, then by the position of the first wildcard
    /// (later is more specific), then `%`, then the empty pattern.
    pub fn specificity(&self) -> u32 {
        match self {
            HostPattern::Net { mask, .. } => 1_000 + u32::from(*mask).count_ones(),
            HostPattern::Text(text) => match first_wildcard(text.as_bytes()) {
                Some(at) => 2 * (at.min(400) as u32 + 1) + u32::from(text.as_bytes().get(at) == Some(&b'_')),
                None if text.is_empty() => 0,
                None => 2_000,
            },
        }
    }

    /// Whether this pattern matches `host`.
    pub fn matches(&self, host: ClientHost) -> HostMatch {
        match (self, host) {
            (HostPattern::Net { net, mask }, ClientHost::Ip(IpAddr::V4(ip))) => {
                yes_or_no(u32::from(ip) & u32::from(*mask) == u32::from(*net))
            }
            (HostPattern::Net { .. }, _) => HostMatch::No,
            (HostPattern::Text(text), ClientHost::Local) => {
                yes_or_no(text.is_empty() || like(text.as_bytes(), b"localhost"))
            }
            (HostPattern::Text(text), ClientHost::Ip(ip)) => {
                if text.is_empty() || like(text.as_bytes(), ip.to_string().as_bytes()) {
                    return HostMatch::Yes;
                }
                // Servers know 127.0.0.1 and ::1 as localhost without asking a resolver.
                if ip.is_loopback() {
                    return yes_or_no(like(text.as_bytes(), b"localhost"));
                }
                let address_like =
                    text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_alphabetic() || b".:%_".contains(&b));
                let ipv6_like = text.contains(':');
                if text == "localhost" || address_like || ipv6_like { HostMatch::No } else { HostMatch::ByNameOnly }
            }
        }
    }
}

fn yes_or_no(yes: bool) -> HostMatch {
    if yes { HostMatch::Yes } else { HostMatch::No }
}

fn first_wildcard(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(b) = text.get(at) {
        match b {
            b'\\' => at += 1,
            b'%' | b'_' => return Some(at),
            _ => {}
        }
        at += 1;
    }
    None
}

/// SQL LIKE without regard to ASCII case; `pattern` is in lower case. Linear space, no recursion.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while t < text.len() {
        let (width, fits) = match (pattern.get(p), pattern.get(p + 1)) {
            (Some(b'%'), _) => {
                retry = Some((p + 1, t));
                p += 1;
                continue;
            }
            (Some(b'_'), _) => (1, true),
            (Some(b'\\'), Some(c)) => (2, *c == text[t].to_ascii_lowercase()),
            (Some(c), _) => (1, *c == text[t].to_ascii_lowercase()),
            (None, _) => (0, false),
        };
        if fits {
            p += width;
            t += 1;
        } else if let Some((after, at)) = retry {
            (p, t) = (after, at + 1);
            retry = Some((after, at + 1));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|b| *b == b'%')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str) -> ClientHost {
        ClientHost::Ip(ip.parse().unwrap())
    }

    #[test]
    fn patterns_match_as_on_the_servers() {
        let m = |p: &str, h: ClientHost| HostPattern::parse(p).matches(h);
        assert_eq!(m("10.0.0.5", at("10.0.0.5")), HostMatch::Yes);
        assert_eq!(m("10.0.0.%", at("10.0.0.5")), HostMatch::Yes);
        assert_eq!(m("10.0._.5", at("10.0.0.5")), HostMatch::Yes);
        assert_eq!(m("10.0.0.0/255.255.255.0", at("10.0.0.5")), HostMatch::Yes);
        assert_eq!(m("10.0.0.0/24", at("10.0.1.5")), HostMatch::No);
        assert_eq!(m("%", ClientHost::Local), HostMatch::Yes);
        assert_eq!(m("", at("1.2.3.4")), HostMatch::Yes);
        assert_eq!(m("localhost", at("127.0.0.1")), HostMatch::Yes);
        assert_eq!(m("localhost", at("10.0.0.1")), HostMatch::No);
        assert_eq!(m("127.0.0.1", ClientHost::Local), HostMatch::No);
        assert_eq!(m("app.example.org", at("10.0.0.1")), HostMatch::ByNameOnly);
        assert_eq!(m("%.example.org", at("10.0.0.1")), HostMatch::ByNameOnly);
        assert_eq!(m("fe80::%", at("10.0.0.1")), HostMatch::No);
    }

    #[test]
    fn more_specific_patterns_sort_first() {
        let order = ["10.0.0.5", "10.0.0.0/255.255.255.0", "10.0.0.0/8", "10.0.0.%", "10.0.%", "%", ""];
        let keys: Vec<u32> = order.iter().map(|p| HostPattern::parse(p).specificity()).collect();
        assert!(keys.windows(2).all(|w| w[0] > w[1]), "{keys:?}");
    }
}
