//! Who may log in: the schemes, the accounts as the servers list them, and what a login revealed. No I/O, no clock.

pub mod accounts;
pub mod caching_sha2;
pub mod host;
pub mod native;
pub mod rows;
pub mod vault;

/// A challenge: the 20 bytes that both sides mix with the password.
pub type Scramble = [u8; 20];

/// Name of the scheme of MariaDB and of MySQL before 8.
pub const NATIVE: &str = "mysql_native_password";
/// Name of the scheme of MySQL since 8.
pub const CACHING_SHA2: &str = "caching_sha2_password";
/// Name of the scheme that sends the password as it is.
pub const CLEAR: &str = "mysql_clear_password";

/// Makes a scramble of random bytes: as MySQL does, no NUL and no `$`, all 7-bit, so that every client can treat it as text.
pub fn scramble_from(random: [u8; 20]) -> Scramble {
    random.map(|b| match b & 0x7F {
        0 | b'$' => b'x',
        b => b,
    })
}
