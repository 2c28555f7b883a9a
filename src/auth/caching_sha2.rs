//! `caching_sha2_password`: a fast answer for a server that has SHA256(SHA256(pw)) in its cache, else the password itself,
//! over TLS or a unix socket as it is, else xor-ed with the scramble and encrypted with the server's RSA key (OAEP, SHA-1).
//!
//! Servers store `$A$` rounds in thousands (three hexadecimal digits) `$` 20 bytes of salt and 43 characters of SHA-256-crypt.

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rsa::{
    KeySize, OAEP_SHA1_MGF1SHA1, OaepPrivateDecryptingKey, OaepPublicEncryptingKey, PrivateDecryptingKey,
    PublicEncryptingKey,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Scramble;

/// Longest password that servers accept for this scheme, in bytes.
pub const PASSWORD_BYTES_MAX: usize = 256;

/// Packet of the server: the fast answer was right.
pub const FAST_OK: u8 = 3;
/// Packet of the server: the full exchange is wanted.
pub const FULL: u8 = 4;
/// Packet of the client: send the public key.
pub const REQUEST_PUBLIC_KEY: u8 = 2;

/// What a server stores of a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    rounds: u32,
    salt: [u8; 20],
    text: [u8; 43],
}

impl std::fmt::Debug for Stored {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stored(…)")
    }
}

impl Stored {
    /// Reads the stored form; `None` if it is not one.
    pub fn parse(text: &[u8]) -> Option<Stored> {
        let rest = text.strip_prefix(b"$A$")?;
        let (rounds, rest) = rest.split_at_checked(3)?;
        if !rounds.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let thousands = u32::from_str_radix(std::str::from_utf8(rounds).ok()?, 16).ok().filter(|n| *n > 0)?;
        let rest = rest.strip_prefix(b"$")?;
        let (salt, text) = rest.split_at_checked(20)?;
        Some(Stored { rounds: thousands * 1000, salt: salt.try_into().ok()?, text: text.try_into().ok()? })
    }

    /// Something no password fits, with this salt; for accounts that do not exist, so that a check takes its time
    /// (10,000 rounds, the default of MySQL 9).
    pub fn decoy(salt: [u8; 20]) -> Stored {
        Stored { rounds: 10_000, salt, text: [0; 43] }
    }

    /// Whether `password` is the one. Takes some milliseconds (5,000 rounds at least).
    pub fn verify(&self, password: &[u8]) -> bool {
        password.len() <= PASSWORD_BYTES_MAX
            && bool::from(sha256_crypt(password, &self.salt, self.rounds)[..].ct_eq(&self.text))
    }
}

/// SHA256(SHA256(pw)): what a server caches, and what checks a fast answer.
pub fn cached_digest(password: &[u8]) -> [u8; 32] {
    Sha256::digest(Sha256::digest(password)).into()
}

fn fast_mask(cached: &[u8; 32], scramble: &Scramble) -> [u8; 32] {
    let mut h = Sha256::new();
    h.update(cached);
    h.update(scramble);
    h.finalize().into()
}

/// The fast answer: SHA256(pw) xor SHA256(SHA256(SHA256(pw)) || scramble).
pub fn fast_answer(scramble: &Scramble, password: &[u8]) -> [u8; 32] {
    let one: Zeroizing<[u8; 32]> = Zeroizing::new(Sha256::digest(password).into());
    let mask = fast_mask(&cached_digest(password), scramble);
    std::array::from_fn(|i| one[i] ^ mask[i])
}

/// Checks a fast answer against SHA256(SHA256(pw)).
pub fn verify_fast(scramble: &Scramble, cached: &[u8; 32], answer: &[u8]) -> bool {
    let Ok(answer) = <&[u8; 32]>::try_from(answer) else { return false };
    let mask = fast_mask(cached, scramble);
    let one: Zeroizing<[u8; 32]> = Zeroizing::new(std::array::from_fn(|i| answer[i] ^ mask[i]));
    let two: [u8; 32] = Sha256::digest(*one).into();
    two.ct_eq(cached).into()
}

fn sha256_crypt(password: &[u8], salt: &[u8], rounds: u32) -> [u8; 43] {
    let repeat = |digest: &[u8; 32], n: usize| -> Zeroizing<Vec<u8>> {
        Zeroizing::new(digest.iter().copied().cycle().take(n).collect())
    };
    let hash = |parts: &[&[u8]]| -> [u8; 32] {
        let mut h = Sha256::new();
        parts.iter().for_each(|p| h.update(p));
        h.finalize().into()
    };
    let b = hash(&[password, salt, password]);
    let mut a = Sha256::new();
    a.update(password);
    a.update(salt);
    a.update(&repeat(&b, password.len())[..]);
    let mut bits = password.len();
    while bits > 0 {
        a.update(if bits & 1 == 1 { &b[..] } else { password });
        bits >>= 1;
    }
    let mut c: [u8; 32] = a.finalize().into();
    let mut dp = Sha256::new();
    (0..password.len()).for_each(|_| dp.update(password));
    let p = repeat(&dp.finalize().into(), password.len());
    let mut ds = Sha256::new();
    (0..16 + usize::from(c[0])).for_each(|_| ds.update(salt));
    let s = repeat(&ds.finalize().into(), salt.len());
    for i in 0..rounds {
        let mut h = Sha256::new();
        h.update(if i & 1 == 1 { &p[..] } else { &c[..] });
        if i % 3 != 0 {
            h.update(&s[..]);
        }
        if i % 7 != 0 {
            h.update(&p[..]);
        }
        h.update(if i & 1 == 1 { &c[..] } else { &p[..] });
        c = h.finalize().into();
    }
    crypt_text(&c)
}

/// crypt's own base 64: three bytes a group, in the order that SHA-256-crypt prescribes.
fn crypt_text(c: &[u8; 32]) -> [u8; 43] {
    const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut out = [0; 43];
    let mut at = 0;
    let mut put = |mut group: u32, n: usize| {
        for slot in &mut out[at..at + n] {
            *slot = ALPHABET[(group & 63) as usize];
            group >>= 6;
        }
        at += n;
    };
    let (mut x, mut y, mut z) = (0usize, 10usize, 20usize);
    for _ in 0..10 {
        put(u32::from(c[x]) << 16 | u32::from(c[y]) << 8 | u32::from(c[z]), 4);
        (x, y, z) = (z + 1, x + 1, y + 1);
    }
    put(u32::from(c[31]) << 8 | u32::from(c[30]), 3);
    out
}

/// What went wrong with an RSA key or what it encrypted.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RsaError {
    /// The text is no PEM key of the expected kind.
    #[error("not a PEM RSA key in PKCS#8 (private) or SubjectPublicKeyInfo (public) form, 2048 to 8192 bits")]
    NotAKey,
    /// The key could not be made or used.
    #[error("the RSA operation failed")]
    Failed,
}

/// The private key that decrypts passwords of clients without TLS, with its public half as clients get it.
pub struct PasswordKey {
    private: OaepPrivateDecryptingKey,
    public_pem: String,
}

impl std::fmt::Debug for PasswordKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PasswordKey(…)")
    }
}

impl PasswordKey {
    /// Makes a new key of 2048 bits and its PKCS#8 PEM text, to be kept. Takes some hundred milliseconds.
    pub fn generate() -> Result<(PasswordKey, Zeroizing<String>), RsaError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RsaError::Failed)?;
        let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&key).map_err(|_| RsaError::Failed)?;
        let pem = Zeroizing::new(to_pem("PRIVATE KEY", der.as_ref()));
        Ok((PasswordKey::new(key)?, pem))
    }

    /// Reads a PKCS#8 PEM key.
    pub fn from_pem(pem: &[u8]) -> Result<PasswordKey, RsaError> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| RsaError::NotAKey)?;
        PasswordKey::new(PrivateDecryptingKey::from_pkcs8(der.secret_pkcs8_der()).map_err(|_| RsaError::NotAKey)?)
    }

    fn new(key: PrivateDecryptingKey) -> Result<PasswordKey, RsaError> {
        let der = AsDer::<PublicKeyX509Der<'_>>::as_der(&key.public_key()).map_err(|_| RsaError::Failed)?;
        let public_pem = to_pem("PUBLIC KEY", der.as_ref());
        Ok(PasswordKey { private: OaepPrivateDecryptingKey::new(key).map_err(|_| RsaError::Failed)?, public_pem })
    }

    /// The public key as PEM, as sent to clients that ask.
    pub fn public_pem(&self) -> &str {
        &self.public_pem
    }

    /// Decrypts a password (without its closing NUL byte).
    pub fn decrypt(&self, scramble: &Scramble, ciphertext: &[u8]) -> Result<Zeroizing<Vec<u8>>, RsaError> {
        let mut buf = Zeroizing::new(vec![0; self.private.min_output_size()]);
        let plain =
            self.private.decrypt(&OAEP_SHA1_MGF1SHA1, ciphertext, &mut buf, None).map_err(|_| RsaError::Failed)?;
        let mut password = Zeroizing::new(xor_cycle(plain, scramble));
        match password.pop() {
            Some(0) => Ok(password),
            _ => Err(RsaError::Failed),
        }
    }
}

/// Encrypts a password for the server whose public key (PEM) this is.
pub fn encrypt_password(public_pem: &[u8], scramble: &Scramble, password: &[u8]) -> Result<Vec<u8>, RsaError> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(public_pem).map_err(|_| RsaError::NotAKey)?;
    let key = PublicEncryptingKey::from_der(&der).map_err(|_| RsaError::NotAKey)?;
    let key = OaepPublicEncryptingKey::new(key).map_err(|_| RsaError::NotAKey)?;
    let mut clear = Zeroizing::new(password.to_vec());
    clear.push(0);
    let masked = Zeroizing::new(xor_cycle(&clear, scramble));
    let mut out = vec![0; key.ciphertext_size()];
    let n = key.encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut out, None).map_err(|_| RsaError::Failed)?.len();
    out.truncate(n);
    Ok(out)
}

fn xor_cycle(bytes: &[u8], mask: &[u8]) -> Vec<u8> {
    bytes.iter().zip(mask.iter().cycle()).map(|(a, b)| a ^ b).collect()
}

fn to_pem(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("-----BEGIN {label}-----\n");
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let n = group.iter().enumerate().fold(0u32, |n, (i, b)| n | u32::from(*b) << (16 - 8 * i));
            for i in 0..4 {
                let digit = ALPHABET[(n >> (18 - 6 * i) & 63) as usize];
                out.push(if i > group.len() { '=' } else { char::from(digit) });
            }
        }
        out.push('\n');
    }
    out + "-----END " + label + "-----\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sha256_crypt_agrees_with_the_published_vector() {
        // Drepper's test vector with 5,000 rounds.
        let text = sha256_crypt(b"Hello world!", b"saltstring", 5000);
        assert_eq!(&text[..], b"5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc8");
    }

    #[test]
    fn what_a_server_stored_is_verified() {
        // MySQL 9.7: CREATE USER … IDENTIFIED BY 'a pass-word'; 0x00A thousand rounds.
        let stored = b"$A$00A$!MCD4j -7I\x1c'\x0ei\x08dkk>yPM13q9vI6o9MneHGqgpwQYv5JRLKnb.K7r6CCfYJu.";
        let stored = Stored::parse(stored).unwrap();
        assert_eq!(stored.rounds, 10_000);
        assert!(stored.verify(b"a pass-word"));
        assert!(!stored.verify(b"a pass-worD"));
        assert!(!stored.verify(&[b'x'; PASSWORD_BYTES_MAX + 1]));
    }

    #[test]
    fn a_fast_answer_is_verified() {
        let scramble = [7; 20];
        let answer = fast_answer(&scramble, b"secret");
        assert!(verify_fast(&scramble, &cached_digest(b"secret"), &answer));
        assert!(!verify_fast(&scramble, &cached_digest(b"Secret"), &answer));
        assert!(!verify_fast(&[8; 20], &cached_digest(b"secret"), &answer));
        assert!(!verify_fast(&scramble, &cached_digest(b"secret"), &answer[..31]));
    }

    #[test]
    fn a_password_survives_the_rsa_exchange() {
        let (key, pem) = PasswordKey::generate().unwrap();
        let again = PasswordKey::from_pem(pem.as_bytes()).unwrap();
        let scramble = [9; 20];
        let sent =
            encrypt_password(key.public_pem().as_bytes(), &scramble, b"a long password, longer than the scramble")
                .unwrap();
        assert_eq!(&again.decrypt(&scramble, &sent).unwrap()[..], b"a long password, longer than the scramble");
        assert!(key.decrypt(&scramble, &sent[1..]).is_err());
        assert!(key.decrypt(&scramble, b"").is_err());
    }

    #[test]
    fn what_is_not_a_stored_form_is_refused() {
        assert!(Stored::parse(b"").is_none());
        assert!(Stored::parse(b"$A$005$short").is_none());
        assert!(Stored::parse(&[b"$A$000$".as_slice(), &[b'x'; 63]].concat()).is_none());
        assert!(Stored::parse(&[b"$A$005$".as_slice(), &[b'x'; 63]].concat()).is_some());
    }
}
