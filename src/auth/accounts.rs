//! The accounts of the servers, and which one a client matches.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::host::{ClientHost, HostMatch, HostPattern, HostRules};
use super::{caching_sha2, native};

/// An account's name: user and host pattern, as CURRENT_USER() shows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// User name; empty for an anonymous account.
    pub user: String,
    /// Host pattern, as stored.
    pub host: String,
}

/// A shared account name.
pub type AccountId = Arc<AccountKey>;

impl AccountKey {
    /// An account name.
    pub fn new(user: impl Into<String>, host: impl Into<String>) -> AccountId {
        Arc::new(AccountKey { user: user.into(), host: host.into() })
    }

    /// Reads what CURRENT_USER() answers. The last `@` separates, as host patterns hold none.
    pub fn parse_current_user(text: &str) -> Option<AccountId> {
        text.rsplit_once('@').map(|(user, host)| AccountKey::new(user, host))
    }
}

impl std::fmt::Display for AccountKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.user, self.host)
    }
}

/// What checks one kind of login to an account.
#[derive(Clone, PartialEq, Eq)]
pub enum Verifier {
    /// The account has an empty password (under either scheme).
    Empty,
    /// `mysql_native_password`: SHA1(SHA1(pw)).
    Native([u8; 20]),
    /// `caching_sha2_password`.
    CachingSha2(caching_sha2::Stored),
    /// A scheme, or a stored text, that belay can't check: only a node can.
    Other,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Verifier::Empty => "Empty",
            Verifier::Native(_) => "Native(…)",
            Verifier::CachingSha2(_) => "CachingSha2(…)",
            Verifier::Other => "Other",
        })
    }
}

/// One way to log in to an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method {
    /// The plugin's name.
    pub plugin: String,
    /// What checks it.
    pub verifier: Verifier,
}

impl Method {
    /// A method from a plugin's name and the text stored for it.
    pub fn parse(plugin: &str, stored: &[u8]) -> Method {
        let verifier = match plugin {
            super::NATIVE | super::CACHING_SHA2 if stored.is_empty() => Verifier::Empty,
            super::NATIVE => native::parse_stored(stored).map_or(Verifier::Other, Verifier::Native),
            super::CACHING_SHA2 => caching_sha2::Stored::parse(stored).map_or(Verifier::Other, Verifier::CachingSha2),
            _ => Verifier::Other,
        };
        Method { plugin: plugin.to_owned(), verifier }
    }

    /// Whether belay can check this method itself.
    pub fn is_checkable(&self) -> bool {
        self.verifier != Verifier::Other
    }
}

/// What an account demands of the client's connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsRequirement {
    /// Nothing.
    #[default]
    None,
    /// TLS.
    Any,
    /// A client certificate, which belay does not take: such logins are refused.
    Certificate,
}

/// A digest of all that decides a login to an account: changes when the password does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// The fingerprint of logins that a node has proven, for want of a readable verifier.
    pub const PROVEN: Fingerprint = Fingerprint([0; 32]);
}

/// One account of the servers.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub id: AccountId,
    /// The ways to log in, in the server's order. Never empty.
    pub methods: Vec<Method>,
    /// ACCOUNT LOCK.
    pub locked: bool,
    /// PASSWORD EXPIRE.
    pub password_expired: bool,
    /// SUPER or CONNECTION ADMIN: may kill sessions of others.
    pub may_kill_others: bool,
    /// REQUIRE SSL and the like.
    pub tls: TlsRequirement,
    /// Changes when what is stored of the password changes.
    pub fingerprint: Fingerprint,
}

impl Account {
    /// An account with nothing but its ways to log in.
    pub fn new(id: AccountId, methods: Vec<Method>, stored: &[&[u8]]) -> Account {
        let mut h = Sha256::new();
        h.update(id.user.as_bytes());
        for part in stored {
            h.update((part.len() as u64).to_le_bytes());
            h.update(part);
        }
        let fingerprint = Fingerprint(h.finalize().into());
        Account {
            id,
            methods,
            locked: false,
            password_expired: false,
            may_kill_others: false,
            tls: TlsRequirement::None,
            fingerprint,
        }
    }
}

/// Whom a client matched.
#[derive(Clone, Debug)]
pub enum Found {
    /// This account.
    Account(Arc<Account>),
    /// Only a node can say: an account before the match has a host name as its pattern, or no accounts could be read.
    ProveAgainstNode,
    /// Nobody.
    Unknown,
}

/// All accounts, sorted as the servers sort them.
#[derive(Debug, Default)]
pub struct AccountTable {
    readable: bool,
    rules: HostRules,
    by_user: HashMap<String, Vec<(HostPattern, Arc<Account>)>>,
}

impl AccountTable {
    /// A table for when no node has told its accounts: every login is proven against a node.
    pub fn unreadable() -> AccountTable {
        AccountTable::default()
    }

    /// A table of all accounts of the servers.
    pub fn new(accounts: Vec<Account>) -> AccountTable {
        let mut by_user: HashMap<String, Vec<(HostPattern, Arc<Account>)>> = HashMap::new();
        for account in accounts {
            let pattern = HostPattern::parse(&account.id.host);
            by_user.entry(account.id.user.clone()).or_default().push((pattern, Arc::new(account)));
        }
        AccountTable { readable: true, rules: HostRules::default(), by_user }
    }

    /// The same table for servers that look at hosts in this way: fewer logins must be proven against a node.
    pub fn with_rules(self, rules: HostRules) -> AccountTable {
        AccountTable { rules, ..self }
    }

    /// How many accounts there are.
    pub fn len(&self) -> usize {
        self.by_user.values().map(Vec::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_user.is_empty()
    }

    /// A client's host as the servers write it in messages.
    pub fn host_text(&self, host: ClientHost) -> String {
        match host {
            ClientHost::Ip(ip) if self.rules.skip_name_resolve == Some(true) => ip.to_string(),
            host => host.to_string(),
        }
    }

    /// Whether the accounts could be read.
    pub fn is_readable(&self) -> bool {
        self.readable
    }

    /// The account of exactly this name.
    pub fn get(&self, id: &AccountKey) -> Option<&Arc<Account>> {
        self.by_user.get(&id.user)?.iter().map(|(_, a)| a).find(|a| *a.id == *id)
    }

    /// Every account.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        self.by_user.values().flatten().map(|(_, a)| a)
    }

    /// The account that `user` from `host` matches: servers go by the host first; on the same host the named account comes before the
    /// anonymous one. Where the order of two candidates is not certain, or one could match by the client's host name, a node has to say.
    pub fn find(&self, user: &str, host: ClientHost) -> Found {
        if !self.readable {
            return Found::ProveAgainstNode;
        }
        let host = host.canonical();
        let list = |user: &str| self.by_user.get(user).map_or(&[][..], Vec::as_slice);
        let anonymous = if user.is_empty() { &[][..] } else { list("") };
        let candidates: Vec<_> = list(user)
            .iter()
            .chain(anonymous)
            .map(|(pattern, account)| (pattern, account, pattern.matches(host, self.rules)))
            .filter(|(_, _, matched)| *matched != HostMatch::No)
            .collect();
        // The first of those that no other beats; a named account stands before the anonymous ones.
        let best = candidates.iter().enumerate().find(|(at, (pattern, _, _))| {
            candidates.iter().enumerate().all(|(other_at, (other, _, _))| {
                match pattern.compare(other, self.rules.flavor) {
                    Some(Ordering::Less) => true,
                    Some(Ordering::Equal) => *at <= other_at,
                    Some(Ordering::Greater) | None => false,
                }
            })
        });
        match best {
            Some((_, (_, account, HostMatch::Yes))) => Found::Account((*account).clone()),
            None if candidates.is_empty() => Found::Unknown,
            _ => Found::ProveAgainstNode,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::mysql::flavor::Flavor;

    fn table(names: &[(&str, &str)]) -> AccountTable {
        let make = |&(u, h): &(&str, &str)| {
            Account::new(AccountKey::new(u, h), vec![Method::parse(super::super::NATIVE, b"")], &[])
        };
        AccountTable::new(names.iter().map(make).collect())
            .with_rules(HostRules { flavor: Some(Flavor::MariaDb), skip_name_resolve: Some(false) })
    }

    fn found(t: &AccountTable, user: &str, ip: &str) -> String {
        let host = if ip.is_empty() { ClientHost::Local } else { ClientHost::Ip(ip.parse().unwrap()) };
        match t.find(user, host) {
            Found::Account(a) => a.id.to_string(),
            Found::ProveAgainstNode => "prove".into(),
            Found::Unknown => "unknown".into(),
        }
    }

    #[test]
    fn the_most_specific_host_wins_then_the_named_user() {
        let t = table(&[("app", "%"), ("app", "10.0.0.%"), ("", "localhost"), ("", "%")]);
        assert_eq!(found(&t, "app", "10.0.0.5"), "app@10.0.0.%");
        assert_eq!(found(&t, "app", "10.0.1.5"), "app@%");
        assert_eq!(found(&t, "app", ""), "@localhost");
        assert_eq!(found(&t, "other", "10.0.1.5"), "@%");
        assert_eq!(found(&table(&[("app", "10.0.0.1")]), "app", "10.0.0.2"), "unknown");
        let t = table(&[("root", "127.0.0.1"), ("root", "localhost"), ("root", "::1")]);
        assert_eq!(found(&t, "root", "127.0.0.1"), "root@localhost");
        assert_eq!(found(&t, "root", ""), "root@localhost");
        assert_eq!(found(&table(&[("a", "127.%.1"), ("a", "127.0.%")]), "a", "127.0.0.1"), "prove");
    }

    #[test]
    fn a_host_name_before_the_match_is_never_skipped() {
        let t = table(&[("app", "%"), ("app", "db.example.org"), ("app", "10.0.0.5")]);
        assert_eq!(found(&t, "app", "10.0.1.5"), "prove");
        assert_eq!(found(&AccountTable::unreadable(), "app", ""), "prove");
    }

    #[test]
    fn current_user_is_read_from_the_right() {
        assert_eq!(AccountKey::parse_current_user("a@b@%"), Some(AccountKey::new("a@b", "%")));
        assert_eq!(AccountKey::parse_current_user("nobody"), None);
    }
}
