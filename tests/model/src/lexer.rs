//! Tokens of a statement's text.

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A word without quotes.
    Word,
    /// A name in backticks (or in double quotes under ANSI_QUOTES), without them.
    Quoted(String),
    /// A string, without its quotes.
    Str(String),
    /// A number as written.
    Number,
    /// `@name`, its name.
    UserVar(String),
    /// `@@`.
    At2,
    /// Any other character or `:=`, `<=`, `>=`, `<>`, `!=`, `<=>`, `||`.
    Sign,
    /// What no token starts with, or a quote without its end.
    Bad,
}

/// A token and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its first byte.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
}

/// What of the SQL mode changes how a text is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Mode {
    /// `"` quotes names.
    pub ansi_quotes: bool,
    /// A backslash is a character like any other.
    pub no_backslash_escapes: bool,
    /// `||` is CONCAT.
    pub pipes_as_concat: bool,
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'$' || b >= 0x80
}

/// Cuts a text into tokens; comments are left out.
pub fn tokens(text: &str, mode: Mode) -> Vec<Token> {
    let bytes = text.as_bytes();
    let mut made = Vec::with_capacity(text.len() / 4 + 2);
    let mut at = 0;
    while let Some(next) = skip_blank(bytes, at) {
        let (kind, end) = token(text, next, mode);
        made.push(Token { kind, start: next, end });
        at = end;
    }
    made
}

fn skip_blank(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let rest = bytes.get(at..)?;
        let first = *rest.first()?;
        if first.is_ascii_whitespace() {
            at += 1;
        } else if first == b'#' || rest.starts_with(b"-- ") || rest.starts_with(b"--\n") || rest == b"--" {
            at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        } else if rest.starts_with(b"/*") && !rest.starts_with(b"/*!") && !rest.starts_with(b"/*M!") {
            at += rest.windows(2).position(|w| w == b"*/").map_or(rest.len(), |p| p + 2);
        } else {
            return Some(at);
        }
    }
}

fn token(text: &str, start: usize, mode: Mode) -> (Kind, usize) {
    let bytes = text.as_bytes();
    let run = |from: usize, keep: fn(u8) -> bool| {
        from + bytes[from..].iter().position(|b| !keep(*b)).unwrap_or(bytes.len() - from)
    };
    let peek = |i: usize| bytes.get(i).copied().unwrap_or(0);
    match bytes[start] {
        b'\'' => quoted(text, start, mode, Kind::Str),
        b'"' if mode.ansi_quotes => quoted(text, start, mode, Kind::Quoted),
        b'"' => quoted(text, start, mode, Kind::Str),
        b'`' => quoted(text, start, mode, Kind::Quoted),
        b'@' if peek(start + 1) == b'@' => (Kind::At2, start + 2),
        b'@' if peek(start + 1) == b'`' || peek(start + 1) == b'\'' => {
            match quoted(text, start + 1, mode, Kind::UserVar) {
                (Kind::UserVar(name), end) => (Kind::UserVar(name), end),
                (_, end) => (Kind::Bad, end),
            }
        }
        b'@' => {
            let end = run(start + 1, |b| is_word(b) || b == b'.');
            (Kind::UserVar(text[start + 1..end].to_owned()), end)
        }
        b'0'..=b'9' => number(bytes, start),
        b'.' if peek(start + 1).is_ascii_digit() => number(bytes, start),
        b if is_word(b) => (Kind::Word, run(start, is_word)),
        _ => {
            let rest = &text[start..];
            let long = ["<=>", ":=", "<=", ">=", "<>", "!=", "||", "&&"].iter().find(|s| rest.starts_with(**s));
            (Kind::Sign, start + long.map_or(1, |s| s.len()))
        }
    }
}

fn number(bytes: &[u8], start: usize) -> (Kind, usize) {
    let peek = |i: usize| bytes.get(i).copied().unwrap_or(0);
    let mut at = start;
    while peek(at).is_ascii_digit() || peek(at) == b'.' {
        at += 1;
    }
    if matches!(peek(at), b'e' | b'E') {
        let sign = usize::from(matches!(peek(at + 1), b'+' | b'-'));
        if peek(at + 1 + sign).is_ascii_digit() {
            at += 1 + sign;
            while peek(at).is_ascii_digit() {
                at += 1;
            }
        }
    }
    if is_word(peek(at)) {
        let end = at + bytes[at..].iter().position(|b| !is_word(*b)).unwrap_or(bytes.len() - at);
        return (if bytes[start..at].contains(&b'.') { Kind::Bad } else { Kind::Word }, end);
    }
    (Kind::Number, at)
}

fn quoted(text: &str, start: usize, mode: Mode, kind: fn(String) -> Kind) -> (Kind, usize) {
    let quote = text[start..].chars().next().unwrap_or('\'');
    let escapes = quote != '`' && !mode.no_backslash_escapes && matches!(kind(String::new()), Kind::Str(_));
    let mut made = String::new();
    let mut chars = text[start + 1..].char_indices().peekable();
    while let Some((i, c)) = chars.next() {
        match c {
            '\\' if escapes => match chars.next() {
                Some((_, 'n')) => made.push('\n'),
                Some((_, 't')) => made.push('\t'),
                Some((_, 'r')) => made.push('\r'),
                Some((_, '0')) => made.push('\0'),
                Some((_, other)) => made.push(other),
                None => break,
            },
            c if c == quote => {
                if chars.peek().is_some_and(|(_, next)| *next == quote) {
                    chars.next();
                    made.push(quote);
                } else {
                    return (kind(made), start + 1 + i + 1);
                }
            }
            c => made.push(c),
        }
    }
    (Kind::Bad, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_where_a_server_cuts_them() {
        let kinds = |sql: &str, mode| tokens(sql, mode).into_iter().map(|t| t.kind).collect::<Vec<_>>();
        assert_eq!(kinds("/* x */ -- y\n`a``b`", Mode::default()), [Kind::Quoted("a`b".into())]);
        assert_eq!(kinds(r"'a\'b''c'", Mode::default()), [Kind::Str("a'b'c".into())]);
        let ansi = Mode { ansi_quotes: true, no_backslash_escapes: true, pipes_as_concat: false };
        assert_eq!(kinds(r#""x" 'a\'"#, ansi), [Kind::Quoted("x".into()), Kind::Str("a\\".into())]);
        assert_eq!(kinds("@a:=1.5e3", Mode::default()), [Kind::UserVar("a".into()), Kind::Sign, Kind::Number]);
    }
}
