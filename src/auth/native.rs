//! `mysql_native_password`: answer = SHA1(pw) xor SHA1(scramble || SHA1(SHA1(pw))); servers store SHA1(SHA1(pw)).
//!
//! Whoever knows the stored hash and sees an answer learns SHA1(pw), which is enough to answer any other challenge.

use sha1::{Digest, Sha1};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::Scramble;

/// SHA1(pw): opens any server that has the same password stored.
pub type Stage1 = Zeroizing<[u8; 20]>;

fn mask(scramble: &Scramble, stage2: &[u8; 20]) -> [u8; 20] {
    let mut h = Sha1::new();
    h.update(scramble);
    h.update(stage2);
    h.finalize().into()
}

fn xor(a: &[u8; 20], b: &[u8; 20]) -> [u8; 20] {
    std::array::from_fn(|i| a[i] ^ b[i])
}

/// SHA1 of a password.
pub fn stage1(password: &[u8]) -> Stage1 {
    Zeroizing::new(Sha1::digest(password).into())
}

/// SHA1(SHA1(pw)) as servers store it, from SHA1(pw).
pub fn stage2(stage1: &[u8; 20]) -> [u8; 20] {
    Sha1::digest(stage1).into()
}

/// The answer to a challenge.
pub fn answer(scramble: &Scramble, stage1: &[u8; 20]) -> [u8; 20] {
    xor(stage1, &mask(scramble, &stage2(stage1)))
}

/// Checks an answer against what the server stores and reveals SHA1(pw); `None` if it is wrong.
pub fn verify(scramble: &Scramble, stored: &[u8; 20], answer: &[u8]) -> Option<Stage1> {
    let answer: &[u8; 20] = answer.try_into().ok()?;
    let revealed = Zeroizing::new(xor(answer, &mask(scramble, stored)));
    bool::from(stage2(&revealed).ct_eq(stored)).then_some(revealed)
}

/// Reads the stored form: `*` and 40 hexadecimal digits.
pub fn parse_stored(text: &[u8]) -> Option<[u8; 20]> {
    let hex = text.strip_prefix(b"*").filter(|h| h.len() == 40)?;
    let mut out = [0; 20];
    for (byte, pair) in out.iter_mut().zip(hex.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    hex.iter().all(u8::is_ascii_hexdigit).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_stored_form_is_that_of_password() {
        // SELECT PASSWORD('password')
        let stored = parse_stored(b"*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19").unwrap();
        assert_eq!(stage2(&stage1(b"password")), stored);
        assert_eq!(parse_stored(b"*invalid"), None);
        assert_eq!(parse_stored(b"*+470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"), None);
    }

    proptest! {
        #[test]
        fn an_answer_reveals_what_answers_again(pw in ".{1,30}", s in any::<[u8; 20]>(), wrong in any::<[u8; 20]>()) {
            let one = stage1(pw.as_bytes());
            let stored = stage2(&one);
            let revealed = verify(&s, &stored, &answer(&s, &one)).unwrap();
            prop_assert_eq!(*revealed, *one);
            prop_assert!(verify(&s, &stored, &wrong).is_none());
            prop_assert!(verify(&s, &stored, b"").is_none());
        }
    }
}
