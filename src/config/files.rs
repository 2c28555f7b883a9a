//! Reading files with a bound on their length.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use zeroize::Zeroizing;

/// The longest configuration file that is read.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// The longest file with a password or a token that is read.
pub const SECRET_BYTES_MAX: u64 = 4_096;

/// Reads a rule file; the error is a sentence without the path.
pub fn read_rules(path: &Path) -> Result<String, String> {
    read(path, FILE_BYTES_MAX).map(|text| text.to_string())
}

/// Reads a text of at most `bytes_max` bytes; the error is a sentence without the path.
pub(super) fn read(path: &Path, bytes_max: u64) -> Result<Zeroizing<String>, String> {
    let mut text = Zeroizing::new(String::new());
    let file = File::open(path).map_err(|e| format!("the file can't be opened: {e}"))?;
    file.take(bytes_max + 1).read_to_string(&mut text).map_err(|e| format!("the file can't be read: {e}"))?;
    if text.len() as u64 > bytes_max {
        return Err(format!("the file is longer than {bytes_max} bytes"));
    }
    Ok(text)
}

/// Whether a file can be read; the error is a sentence without the path.
pub(super) fn readable(path: &Path) -> Result<(), String> {
    let mut byte = [0];
    let mut file = File::open(path).map_err(|e| format!("the file can't be opened: {e}"))?;
    match file.read(&mut byte) {
        Ok(0) => Err("the file is empty".into()),
        Ok(_) => Ok(()),
        Err(error) => Err(format!("the file can't be read: {error}")),
    }
}
