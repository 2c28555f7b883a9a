//! Answers taken apart into what the model claims, so that two of them can be compared.
//!
//! Not claimed, and left out: lengths, decimals and most flags of columns; the flags for 'no index was used'; the texts of syntax errors and of
//! numbers out of range; in the state of a transaction the mark of an 'unsafe' statement; where in a procedure an error came from.

use crate::act::Shape;
use crate::wire::{caps, status, take_lenenc};

/// One column as far as it is claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Head {
    pub name: String,
    pub ty: u8,
    pub charset: u16,
    pub unsigned: bool,
}

/// What stands in an OK or at the end of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Done {
    pub affected: u64,
    pub insert_id: u64,
    pub status: u16,
    pub warnings: u16,
    pub info: String,
    /// Changes of session state, sorted.
    pub changes: Vec<String>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Reply {
    Ok(Done),
    Err { code: u16, state: String, message: String },
    Rows { heads: Vec<Head>, rows: Vec<Vec<u8>>, end: Done },
    Prepared { params: u16, heads: Vec<Head>, warnings: u16 },
}

/// Takes packets off a source until the answer is complete. The statement's id comes with the answer to a PREPARE.
pub fn read<E>(
    shape: Shape,
    capabilities: u32,
    next: &mut dyn FnMut() -> Result<Vec<u8>, E>,
) -> Result<(Vec<Reply>, Option<u32>), E> {
    let mut all = Vec::new();
    match shape {
        Shape::None => return Ok((all, None)),
        Shape::Prepared => {
            let (reply, id) = prepared(capabilities, next)?;
            return Ok((vec![reply], id));
        }
        Shape::Rows => {
            let reply = rows(Vec::new(), false, capabilities, next)?;
            all.extend(reply);
            return Ok((all, None));
        }
        Shape::Replies => {}
    }
    loop {
        let head = next()?;
        let more = match head.first() {
            Some(0xff) => {
                all.push(error(&head));
                return Ok((all, None));
            }
            Some(0) | Some(0xfe) => {
                let done = done(&head, capabilities);
                let flags = done.status;
                all.push(Reply::Ok(done));
                flags
            }
            _ => {
                let count = take_lenenc(&mut &head[..]).unwrap_or(0);
                let mut heads = Vec::new();
                for _ in 0..count {
                    heads.push(column(&next()?));
                }
                all.extend(rows(heads, true, capabilities, next)?);
                match all.last() {
                    Some(Reply::Rows { end, .. }) => end.status,
                    _ => 0,
                }
            }
        };
        if more & status::MORE_RESULTS == 0 {
            return Ok((all, None));
        }
    }
}

fn rows<E>(
    heads: Vec<Head>,
    whole: bool,
    capabilities: u32,
    next: &mut dyn FnMut() -> Result<Vec<u8>, E>,
) -> Result<Vec<Reply>, E> {
    let new = capabilities & caps::DEPRECATE_EOF != 0;
    let mut made = Vec::new();
    if whole && !new {
        let end = next()?;
        // With a cursor the end of the columns is the end of the answer.
        let flags = done(&end, capabilities).status;
        if flags & status::CURSOR_EXISTS != 0 {
            return Ok(vec![Reply::Rows { heads, rows: made, end: done(&end, capabilities) }]);
        }
    }
    loop {
        let p = next()?;
        match p.first() {
            Some(0xff) => {
                let end = Done::default();
                return Ok(vec![Reply::Rows { heads, rows: made, end }, error(&p)]);
            }
            Some(0xfe) if p.len() < 0xff_ffff && (new || p.len() < 9) => {
                return Ok(vec![Reply::Rows { heads, rows: made, end: done(&p, capabilities) }]);
            }
            _ => made.push(p),
        }
    }
}

fn prepared<E>(capabilities: u32, next: &mut dyn FnMut() -> Result<Vec<u8>, E>) -> Result<(Reply, Option<u32>), E> {
    let head = next()?;
    if head.first() == Some(&0xff) {
        return Ok((error(&head), None));
    }
    let short =
        |i: usize| u16::from_le_bytes([head.get(i).copied().unwrap_or(0), head.get(i + 1).copied().unwrap_or(0)]);
    let id = u32::from(short(1)) | u32::from(short(3)) << 16;
    let (columns, params, warnings) = (short(5), short(7), short(10));
    let mut heads = Vec::new();
    for (is_param, count) in [(true, params), (false, columns)] {
        for _ in 0..count {
            let one = column(&next()?);
            if !is_param {
                heads.push(one);
            }
        }
        if count > 0 && capabilities & caps::DEPRECATE_EOF == 0 {
            next()?;
        }
    }
    Ok((Reply::Prepared { params, heads, warnings }, Some(id)))
}

fn error(p: &[u8]) -> Reply {
    let at = |i: usize| p.get(i).copied().unwrap_or(0);
    let code = u16::from_le_bytes([at(1), at(2)]);
    let text = |b: Option<&[u8]>| String::from_utf8_lossy(b.unwrap_or_default()).into_owned();
    let claimed = !matches!(code, 1064 | 1690);
    let message = if claimed { text(p.get(9..)) } else { String::new() };
    Reply::Err { code, state: text(p.get(4..9)), message }
}

fn text<'a>(p: &mut &'a [u8]) -> &'a [u8] {
    let length = take_lenenc(p).unwrap_or(0) as usize;
    let all = *p;
    let (head, rest) = all.split_at(length.min(all.len()));
    *p = rest;
    head
}

fn column(p: &[u8]) -> Head {
    let mut p = p;
    for _ in 0..4 {
        text(&mut p);
    }
    let name = String::from_utf8_lossy(text(&mut p)).into_owned();
    text(&mut p);
    let at = |i: usize| p.get(i + 1).copied().unwrap_or(0);
    Head { name, charset: u16::from_le_bytes([at(0), at(1)]), ty: at(6), unsigned: at(7) & 0x20 != 0 }
}

/// Flags that say how a query was carried out.
const PLAN: u16 = 0x30;

fn done(p: &[u8], capabilities: u32) -> Done {
    let short = |p: &mut &[u8]| {
        let at = |i: usize| p.get(i).copied().unwrap_or(0);
        let n = u16::from_le_bytes([at(0), at(1)]);
        *p = p.get(2..).unwrap_or_default();
        n
    };
    let mut made = Done::default();
    let mut rest = p.get(1..).unwrap_or_default();
    if p.first() == Some(&0xfe) && p.len() == 5 {
        made.warnings = short(&mut rest);
        made.status = short(&mut rest) & !PLAN;
        return made;
    }
    made.affected = take_lenenc(&mut rest).unwrap_or(0);
    made.insert_id = take_lenenc(&mut rest).unwrap_or(0);
    made.status = short(&mut rest) & !PLAN;
    made.warnings = short(&mut rest);
    if rest.is_empty() {
        return made;
    }
    made.info = String::from_utf8_lossy(text(&mut rest)).into_owned();
    if capabilities & caps::SESSION_TRACK != 0 && made.status & status::SESSION_STATE_CHANGED != 0 {
        let mut block = text(&mut rest);
        while let Some((kind, tail)) = block.split_first() {
            block = tail;
            let mut one = text(&mut block);
            if *kind == 2 {
                made.changes.push("changed".to_owned());
                continue;
            }
            let first = String::from_utf8_lossy(text(&mut one)).into_owned();
            made.changes.push(match kind {
                0 => format!("{first}={}", String::from_utf8_lossy(text(&mut one))),
                5 => format!("state {}", first.replace('s', "_")),
                kind => format!("{kind} {first}"),
            });
        }
        made.changes.sort();
    }
    made
}

impl Reply {
    /// Whether the model says that it has no answer.
    pub fn is_unsupported(&self) -> bool {
        matches!(self, Reply::Err { message, .. } if message.starts_with("model: unsupported"))
    }
}
