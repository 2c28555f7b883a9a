//! Answers: OK, ERR, rows.

use super::{Wire, WireError, WireResult, caps};

/// One row of a text result; the raw bytes of a binary one are in its only field.
pub type Row = Vec<Option<Vec<u8>>>;

/// A result with rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Column names.
    pub columns: Vec<String>,
    /// Column definitions as the server sent them (type, length, flags, …), see [`definition`].
    pub definitions: Vec<Vec<u8>>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Status flags at its end.
    pub status: u16,
    /// Number of warnings at its end.
    pub warnings: u16,
}

impl Rows {
    /// The first column of the first row as text.
    pub fn first_value(&self) -> Option<String> {
        let value = self.rows.first()?.first()?.as_ref()?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    /// All values as text, NULL as `NULL`.
    pub fn texts(&self) -> Vec<Vec<String>> {
        let text = |v: &Option<Vec<u8>>| match v {
            Some(v) => String::from_utf8_lossy(v).into_owned(),
            None => "NULL".to_owned(),
        };
        self.rows.iter().map(|row| row.iter().map(text).collect()).collect()
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// An OK packet.
    Ok {
        /// Rows changed (or found).
        affected: u64,
        /// The generated key.
        insert_id: u64,
        /// Status flags.
        status: u16,
        /// Number of warnings.
        warnings: u16,
        /// All that follows: text and session changes.
        rest: Vec<u8>,
    },
    /// Rows.
    Rows(Rows),
}

impl Reply {
    /// Affected rows; 0 for a result with rows.
    pub fn affected(&self) -> u64 {
        match self {
            Reply::Ok { affected, .. } => *affected,
            Reply::Rows(_) => 0,
        }
    }

    /// The rows; none for an OK.
    pub fn rows(self) -> Rows {
        match self {
            Reply::Rows(rows) => rows,
            Reply::Ok { .. } => Rows::default(),
        }
    }
}

/// `Err` if the payload is an ERR packet.
pub fn error_of(p: &[u8]) -> WireResult<()> {
    let Some((0xff, rest)) = p.split_first() else { return Ok(()) };
    let at = |i: usize| rest.get(i).copied().unwrap_or(0);
    let code = u16::from_le_bytes([at(0), at(1)]);
    let rest = rest.get(2..).unwrap_or_default();
    let (state, message) = match rest.split_first() {
        Some((b'#', tail)) if tail.len() >= 5 => tail.split_at(5),
        _ => (&[][..], rest),
    };
    let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
    Err(WireError::Server { code, state: text(state), message: text(message) })
}

/// Appends a length-encoded integer.
pub fn put_lenenc(out: &mut Vec<u8>, n: u64) {
    let bytes = n.to_le_bytes();
    match n {
        0..=250 => out.push(n as u8),
        251..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&bytes[..2]);
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            out.extend_from_slice(&bytes[..3]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&bytes);
        }
    }
}

/// Takes a length-encoded integer off the front.
fn lenenc(p: &mut &[u8]) -> WireResult<u64> {
    let bad = || WireError::Malformed("length-encoded integer".into());
    let (first, rest) = p.split_first().ok_or_else(bad)?;
    let width = match first {
        0xfc => 2,
        0xfd => 3,
        0xfe => 8,
        n => {
            *p = rest;
            return Ok(u64::from(*n));
        }
    };
    let bytes = rest.get(..width).ok_or_else(bad)?;
    *p = rest.get(width..).unwrap_or_default();
    Ok(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
}

fn lenenc_bytes<'a>(p: &mut &'a [u8]) -> WireResult<&'a [u8]> {
    let len = lenenc(p)? as usize;
    let all = *p;
    let head = all.get(..len).ok_or_else(|| WireError::Malformed("length-encoded string".into()))?;
    *p = all.get(len..).unwrap_or_default();
    Ok(head)
}

fn u16_of(p: &mut &[u8]) -> u16 {
    let all = *p;
    let at = |i: usize| all.get(i).copied().unwrap_or(0);
    *p = all.get(2..).unwrap_or_default();
    u16::from_le_bytes([at(0), at(1)])
}

fn text_row(mut p: &[u8]) -> WireResult<Row> {
    let mut row = Vec::new();
    while let Some((first, rest)) = p.split_first() {
        if *first == 0xfb {
            p = rest;
            row.push(None);
        } else {
            row.push(Some(lenenc_bytes(&mut p)?.to_vec()));
        }
    }
    Ok(row)
}

/// A column's definition without the number of its collation, unless that is `binary`. Of a text it is the one that `character_set_results` was set with:
/// its character set is what is promised to be equal through belay, not which of the set's collations it was.
pub fn definition(mut column: Vec<u8>) -> WireResult<Vec<u8>> {
    const BINARY: [u8; 2] = [63, 0];
    let mut p = column.as_slice();
    for _ in 0..6 {
        lenenc_bytes(&mut p)?;
    }
    let at = column.len() - p.len() + 1;
    if let Some(collation) = column.get_mut(at..at + 2)
        && *collation != BINARY
    {
        collation.fill(0xff);
    }
    Ok(column)
}

impl Wire {
    /// Reads answers until one says that no more follow.
    pub fn read_replies(&mut self, binary: bool) -> WireResult<Vec<Reply>> {
        const MORE: u16 = 8;
        let mut all = Vec::with_capacity(1);
        loop {
            let reply = self.read_reply(binary)?;
            let status = match &reply {
                Reply::Ok { status, .. } => *status,
                Reply::Rows(rows) => rows.status,
            };
            self.status = status;
            all.push(reply);
            if status & MORE == 0 {
                return Ok(all);
            }
        }
    }

    /// Reads one answer.
    pub fn read_reply(&mut self, binary: bool) -> WireResult<Reply> {
        let head = self.read_packet()?;
        error_of(&head)?;
        match head.first() {
            Some(0) => ok_of(head.get(1..).unwrap_or_default()),
            Some(0xfb) => Err(WireError::Malformed("LOCAL INFILE request".into())),
            _ => self.read_rows(&head, binary).map(Reply::Rows),
        }
    }

    fn read_rows(&mut self, head: &[u8], binary: bool) -> WireResult<Rows> {
        let count = lenenc(&mut &*head)?;
        let mut rows = Rows::default();
        for _ in 0..count {
            let column = self.read_packet()?;
            let mut p = column.as_slice();
            for _ in 0..4 {
                lenenc_bytes(&mut p)?;
            }
            rows.columns.push(String::from_utf8_lossy(lenenc_bytes(&mut p)?).into_owned());
            rows.definitions.push(definition(column)?);
        }
        let deprecate_eof = self.caps & caps::DEPRECATE_EOF != 0;
        if !deprecate_eof {
            self.read_packet()?;
        }
        loop {
            let p = self.read_packet()?;
            error_of(&p)?;
            match p.split_first() {
                // MySQL ends a result that breaks off in a routine so, whatever was agreed.
                Some((0xfe, mut rest)) if p.len() == 5 || !deprecate_eof && p.len() < 9 => {
                    rows.warnings = u16_of(&mut rest);
                    rows.status = u16_of(&mut rest);
                    return Ok(rows);
                }
                Some((0xfe, rest)) if deprecate_eof && p.len() < super::FRAME_BYTES_MAX => {
                    if let Reply::Ok { status, warnings, .. } = ok_of(rest)? {
                        rows.status = status;
                        rows.warnings = warnings;
                    }
                    return Ok(rows);
                }
                _ if binary => rows.rows.push(vec![Some(p)]),
                _ => rows.rows.push(text_row(&p)?),
            }
        }
    }
}

fn ok_of(mut p: &[u8]) -> WireResult<Reply> {
    let affected = lenenc(&mut p)?;
    let insert_id = lenenc(&mut p)?;
    let status = u16_of(&mut p);
    let warnings = u16_of(&mut p);
    Ok(Reply::Ok { affected, insert_id, status, warnings, rest: in_order(p) })
}

/// What follows the counts of an OK packet, with the changes of session state in one order: servers report them in the order of a hash table that
/// differs from one connection to the next.
fn in_order(rest: &[u8]) -> Vec<u8> {
    let split = || -> Option<(usize, Vec<&[u8]>)> {
        let info = 1 + usize::from(*rest.first()?);
        let head = info + if *rest.get(info)? < 0xfb { 1 } else { 3 };
        let (mut changes, mut at) = (Vec::new(), head);
        while at < rest.len() {
            let end = at + 2 + usize::from(*rest.get(at + 1)?);
            changes.push(rest.get(at..end)?);
            at = end;
        }
        Some((head, changes))
    };
    match split() {
        Some((head, mut changes)) => {
            changes.sort_unstable();
            [rest.get(..head).unwrap_or_default(), &changes.concat()].concat()
        }
        None => rest.to_vec(),
    }
}
