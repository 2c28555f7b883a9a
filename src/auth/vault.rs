//! What logins revealed, kept encrypted, to open further server sessions of the same account.
//!
//! An entry belongs to an account and to the fingerprint of its stored password: a password changed on the servers makes
//! it unreachable. A secret that a node refused stays refused, so that no retry locks the account.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::accounts::{AccountId, AccountTable, Fingerprint};
use super::native::Stage1;

/// Accounts whose secrets are kept at one time.
pub const ENTRIES_MAX: usize = 100_000;

/// What a login revealed. Zeroed when dropped, never printed.
#[derive(Clone)]
pub enum Recorded {
    /// SHA1(pw), from a `mysql_native_password` answer.
    NativeSha1(Stage1),
    /// The password itself.
    Password(Zeroizing<Vec<u8>>),
}

impl std::fmt::Debug for Recorded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Recorded::NativeSha1(_) => "NativeSha1(…)",
            Recorded::Password(_) => "Password(…)",
        })
    }
}

/// Finds a recorded secret again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SecretHandle {
    /// Whose secret.
    pub account: AccountId,
    /// Which stored password it fits.
    pub fingerprint: Fingerprint,
}

/// Why no secret is given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VaultMiss {
    /// The password was changed on the servers, or the entry had to make room.
    #[error("the recorded login is no longer valid; log in again")]
    Gone,
    /// A node refused this secret; it is not tried again.
    #[error("a node refused the recorded login; log in again")]
    Refused,
}

struct Entry {
    fingerprint: Fingerprint,
    nonce: [u8; 12],
    sealed: Vec<u8>,
    digest: [u8; 32],
    refused: bool,
    used: u64,
}

struct Entries {
    map: HashMap<AccountId, Entry>,
    clock: u64,
}

/// The encrypted memory of logins of this process.
pub struct Vault {
    key: LessSafeKey,
    digest_key: Zeroizing<[u8; 32]>,
    entries: Mutex<Entries>,
    entries_max: usize,
}

impl std::fmt::Debug for Vault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Vault(…)")
    }
}

impl Vault {
    /// An empty vault of at most `entries_max` accounts under a random key. `None` if the cipher refuses the key (it does not).
    pub fn new(key: Zeroizing<[u8; 32]>, entries_max: usize) -> Option<Vault> {
        let cipher = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key[..]).ok()?);
        let entries = Mutex::new(Entries { map: HashMap::new(), clock: 0 });
        Some(Vault { key: cipher, digest_key: key, entries, entries_max: entries_max.max(1) })
    }

    fn lock(&self) -> MutexGuard<'_, Entries> {
        // A panic of another thread leaves whole entries behind: every change is one insertion.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn digest(&self, clear: &[u8]) -> [u8; 32] {
        let mut h = Sha256::new();
        h.update(&self.digest_key[..]);
        h.update(clear);
        h.finalize().into()
    }

    /// Records a secret; `nonce` must be random. The same secret that was refused before stays refused.
    /// `None` if it could not be encrypted, which does not happen with secrets of login size.
    pub fn record(
        &self,
        account: &AccountId,
        fingerprint: Fingerprint,
        secret: &Recorded,
        nonce: [u8; 12],
    ) -> Option<SecretHandle> {
        let mut clear = Zeroizing::new(Vec::with_capacity(64));
        match secret {
            Recorded::NativeSha1(stage1) => {
                clear.push(b'N');
                clear.extend_from_slice(&stage1[..]);
            }
            Recorded::Password(password) => {
                clear.push(b'P');
                clear.extend_from_slice(password);
            }
        }
        let digest = self.digest(&clear);
        let handle = SecretHandle { account: account.clone(), fingerprint };
        let mut entries = self.lock();
        entries.clock += 1;
        let used = entries.clock;
        if let Some(old) = entries.map.get_mut(account)
            && old.fingerprint == fingerprint
            && old.digest == digest
        {
            old.used = used;
            return Some(handle);
        }
        let mut sealed = clear.to_vec();
        // In place: the clear bytes are overwritten by the ciphertext.
        self.key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), &mut sealed).ok()?;
        if entries.map.len() >= self.entries_max && !entries.map.contains_key(account) {
            let oldest = entries.map.iter().min_by_key(|(_, e)| e.used).map(|(id, _)| id.clone());
            oldest.map(|id| entries.map.remove(&id));
        }
        entries.map.insert(account.clone(), Entry { fingerprint, nonce, sealed, digest, refused: false, used });
        Some(handle)
    }

    /// The secret behind a handle.
    pub fn open(&self, handle: &SecretHandle) -> Result<Recorded, VaultMiss> {
        let mut entries = self.lock();
        entries.clock += 1;
        let used = entries.clock;
        let entry = entries
            .map
            .get_mut(&handle.account)
            .filter(|e| e.fingerprint == handle.fingerprint)
            .ok_or(VaultMiss::Gone)?;
        if entry.refused {
            return Err(VaultMiss::Refused);
        }
        entry.used = used;
        let nonce = Nonce::assume_unique_for_key(entry.nonce);
        let mut buf = Zeroizing::new(entry.sealed.clone());
        let clear = self.key.open_in_place(nonce, Aad::empty(), &mut buf).map_err(|_| VaultMiss::Gone)?;
        match clear.split_first() {
            Some((b'N', rest)) => {
                rest.try_into().map(|s| Recorded::NativeSha1(Zeroizing::new(s))).map_err(|_| VaultMiss::Gone)
            }
            Some((b'P', rest)) => Ok(Recorded::Password(Zeroizing::new(rest.to_vec()))),
            _ => Err(VaultMiss::Gone),
        }
    }

    /// Notes that a node refused the secret: it is not given out again.
    pub fn refuse(&self, handle: &SecretHandle) {
        if let Some(e) = self.lock().map.get_mut(&handle.account)
            && e.fingerprint == handle.fingerprint
        {
            e.refused = true;
        }
    }

    /// Forgets what no longer fits the accounts of the servers. Entries proven against a node stay while their account has no
    /// readable verifier.
    pub fn retain(&self, table: &AccountTable) {
        if !table.is_readable() {
            return;
        }
        self.lock().map.retain(|id, e| match table.get(id) {
            Some(account) => e.fingerprint == Fingerprint::PROVEN || account.fingerprint == e.fingerprint,
            None => false,
        });
    }

    /// How many secrets are kept.
    pub fn len(&self) -> usize {
        self.lock().map.len()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::super::accounts::AccountKey;
    use super::*;

    fn vault(max: usize) -> Vault {
        Vault::new(Zeroizing::new([1; 32]), max).unwrap()
    }

    fn password(text: &str) -> Recorded {
        Recorded::Password(Zeroizing::new(text.as_bytes().to_vec()))
    }

    #[test]
    fn a_secret_comes_back_until_its_verifier_changes() {
        let v = vault(10);
        let id = AccountKey::new("u", "%");
        let h = v.record(&id, Fingerprint([1; 32]), &password("x"), [0; 12]).unwrap();
        assert!(matches!(v.open(&h), Ok(Recorded::Password(p)) if &p[..] == b"x"));
        let other = SecretHandle { fingerprint: Fingerprint([2; 32]), ..h.clone() };
        assert_eq!(v.open(&other).unwrap_err(), VaultMiss::Gone);
        v.retain(&AccountTable::new(Vec::new()));
        assert_eq!(v.open(&h).unwrap_err(), VaultMiss::Gone);
    }

    #[test]
    fn a_refused_secret_is_not_given_out_until_another_replaces_it() {
        let v = vault(10);
        let id = AccountKey::new("u", "%");
        let h = v.record(&id, Fingerprint::PROVEN, &password("x"), [0; 12]).unwrap();
        v.refuse(&h);
        assert_eq!(v.open(&h).unwrap_err(), VaultMiss::Refused);
        v.record(&id, Fingerprint::PROVEN, &password("x"), [1; 12]).unwrap();
        assert_eq!(v.open(&h).unwrap_err(), VaultMiss::Refused);
        v.record(&id, Fingerprint::PROVEN, &password("y"), [2; 12]).unwrap();
        assert!(v.open(&h).is_ok());
    }

    #[test]
    fn the_vault_is_bounded() {
        let v = vault(2);
        for n in 0..5u8 {
            let id = AccountKey::new(n.to_string(), "%");
            v.record(&id, Fingerprint::PROVEN, &password("x"), [n; 12]).unwrap();
        }
        assert_eq!(v.len(), 2);
        assert_eq!(format!("{v:?} {:?}", password("x")), "Vault(…) Password(…)");
    }
}
