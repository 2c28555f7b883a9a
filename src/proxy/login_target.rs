//! Whom an arriving client means, and how it is asked to prove itself. Pure: tables in, decision out.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::accounts::{Account, AccountId, AccountKey, AccountTable, Found, Method, TlsRequirement, Verifier};
use crate::auth::host::ClientHost;
use crate::auth::vault::{Recorded, SecretHandle, Vault};
use crate::auth::{CACHING_SHA2, NATIVE, caching_sha2, native};
use crate::config::{AccountConfig, Secret};
use crate::protocol::ErrorReply;
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::greet::{self, Arrival, Challenge};

/// The accounts of the configuration, with their passwords.
#[derive(Debug, Default)]
pub struct ConfiguredAccounts {
    table: AccountTable,
    passwords: HashMap<AccountId, Secret>,
}

impl ConfiguredAccounts {
    /// From `[[account]]`, after password files and variables were read. One without a password has the empty one.
    pub fn new(accounts: &[AccountConfig]) -> ConfiguredAccounts {
        let mut passwords = HashMap::new();
        let mut list = Vec::new();
        for config in accounts {
            let password = config.password.clone().unwrap_or_else(|| Secret::new(String::new()));
            let bytes = password.expose().as_bytes();
            let verifier = match bytes.is_empty() {
                true => Verifier::Empty,
                false => Verifier::Native(native::stage2(&native::stage1(bytes))),
            };
            let id = AccountKey::new(config.user.as_str(), config.host.as_str());
            list.push(Account::new(id.clone(), vec![Method { plugin: NATIVE.to_owned(), verifier }], &[bytes]));
            passwords.insert(id, password);
        }
        ConfiguredAccounts { table: AccountTable::new(list), passwords }
    }

    /// The password of an account of the configuration.
    pub fn password(&self, id: &AccountId) -> Option<&Secret> {
        self.passwords.get(id)
    }

    fn find(&self, user: &str, host: ClientHost) -> Option<Arc<Account>> {
        match self.table.find(user, host) {
            Found::Account(account) => Some(account),
            Found::ProveAgainstNode | Found::Unknown => None,
        }
    }
}

/// An account that belay can check, with the rules that count once the password is right.
#[derive(Clone, Debug)]
pub struct KnownAccount {
    /// The account.
    pub account: Arc<Account>,
}

impl KnownAccount {
    /// Whether the account lets a client in that knows the password. Servers look at this after the password, so does belay: nobody
    /// learns of a lock without it.
    pub fn admits(&self, user: &str, host: &str, tls: bool, flavor: Flavor) -> Result<(), ErrorReply> {
        let tls_missing = match self.account.tls {
            TlsRequirement::None => false,
            TlsRequirement::Any => !tls,
            TlsRequirement::Certificate => true,
        };
        if tls_missing {
            return Err(greet::access_denied(user, host, true));
        }
        if self.account.locked {
            return Err(match flavor {
                Flavor::MariaDb => ErrorReply::new(4151, b"HY000", "Access denied, this account is locked"),
                Flavor::MySql | Flavor::OceanBase => ErrorReply::new(
                    3118,
                    b"HY000",
                    format!("Access denied for user '{user}'@'{host}'. Account is locked."),
                ),
            });
        }
        if self.account.password_expired {
            let text = "Your password has expired. To log in you must change it using a client that supports expired passwords.";
            return Err(ErrorReply::new(1862, b"HY000", text));
        }
        Ok(())
    }
}

/// Whom a client means.
#[derive(Clone, Debug)]
pub enum Whom {
    /// An account that belay can check.
    Known(KnownAccount),
    /// Only a node can check it; the account if that much is known.
    OnlyANodeKnows(Option<AccountId>),
    /// Nobody; the client goes through the same steps as with a wrong password.
    Nobody,
}

/// Whom a client means, and its challenge.
#[derive(Debug)]
pub struct Target {
    /// Whom it means.
    pub whom: Whom,
    /// How it is asked.
    pub challenge: Challenge,
}

impl Target {
    /// Decides. The servers' verifier comes first, then the configuration's password, then the word of a node. A client whose match depends
    /// on its host *name* gets in by the configuration only: a node sees belay's address and can't tell which account is the client's.
    pub fn choose(
        table: &AccountTable,
        configured: &ConfiguredAccounts,
        vault: &Vault,
        arrival: &Arrival,
        host: ClientHost,
        flavor: Flavor,
    ) -> Target {
        let found = table.find(&arrival.user, host);
        if let Found::Account(account) = &found
            && let Some(challenge) = challenge_of(account, vault, arrival)
        {
            return Target { whom: Whom::Known(KnownAccount { account: account.clone() }), challenge };
        }
        if !matches!(found, Found::Unknown)
            && let Some(own) = configured.find(&arrival.user, host)
        {
            // What the servers say of the account counts where they say something, and they must mean the same one.
            match &found {
                Found::Account(account) if account.id == own.id => {
                    let challenge = configured_challenge(&own, configured, arrival);
                    return Target { whom: Whom::Known(KnownAccount { account: account.clone() }), challenge };
                }
                Found::Account(_) => {}
                Found::ProveAgainstNode | Found::Unknown => {
                    let challenge = configured_challenge(&own, configured, arrival);
                    return Target { whom: Whom::Known(KnownAccount { account: own }), challenge };
                }
            }
        }
        match found {
            Found::Account(account) => {
                Target { whom: Whom::OnlyANodeKnows(Some(account.id.clone())), challenge: Challenge::Reveal }
            }
            Found::ProveAgainstNode if !table.is_readable() => {
                Target { whom: Whom::OnlyANodeKnows(None), challenge: Challenge::Reveal }
            }
            Found::ProveAgainstNode | Found::Unknown => Target { whom: Whom::Nobody, challenge: nobody(flavor) },
        }
    }
}

fn nobody(flavor: Flavor) -> Challenge {
    match flavor {
        Flavor::MySql => Challenge::CachingSha2 { verifiers: Vec::new(), cached: None },
        Flavor::MariaDb | Flavor::OceanBase => Challenge::Native(Vec::new()),
    }
}

/// The challenge for an account, by the client's scheme if the account has it; `None` if belay can check none of its schemes.
fn challenge_of(account: &Account, vault: &Vault, arrival: &Arrival) -> Option<Challenge> {
    let checkable = || account.methods.iter().filter(|m| m.is_checkable());
    let plugin = &checkable().find(|m| m.plugin == arrival.answer.plugin).or_else(|| checkable().next())?.plugin;
    let verifiers = checkable().filter(|m| m.plugin == *plugin).map(|m| m.verifier.clone()).collect();
    if plugin == NATIVE {
        return Some(Challenge::Native(verifiers));
    }
    let handle = SecretHandle { account: account.id.clone(), fingerprint: account.fingerprint };
    let cached = match vault.open(&handle) {
        Ok(Recorded::Password(password)) => Some(caching_sha2::cached_digest(&password)),
        Ok(Recorded::NativeSha1(_)) | Err(_) => None,
    };
    Some(Challenge::CachingSha2 { verifiers, cached })
}

/// The challenge against a password of the configuration. It is known in clear, so either scheme will do.
fn configured_challenge(own: &Account, configured: &ConfiguredAccounts, arrival: &Arrival) -> Challenge {
    let verifiers: Vec<Verifier> = own.methods.iter().map(|m| m.verifier.clone()).collect();
    match configured.password(&own.id) {
        Some(password) if arrival.answer.plugin == CACHING_SHA2 => {
            let cached = Some(caching_sha2::cached_digest(password.expose().as_bytes()));
            Challenge::CachingSha2 { verifiers, cached }
        }
        _ => Challenge::Native(verifiers),
    }
}
