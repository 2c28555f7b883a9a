//! Rust source as the house rules see it: comments and texts blanked, test modules taken out, functions measured.

use std::fs;
use std::path::{Path, PathBuf};

/// One file.
pub struct Source {
    /// Its path from the root of the project.
    pub name: String,
    /// As it is.
    pub text: String,
    /// The same lines with comments, texts and test modules blanked.
    pub code: String,
}

impl Source {
    /// Its lines without those of test modules.
    pub fn code_lines(&self) -> usize {
        let tests: usize =
            test_modules(&blank_texts(&self.text)).iter().map(|(from, to)| self.text[*from..*to].lines().count()).sum();
        self.text.lines().count() - tests
    }
}

/// The root of the project.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A path from the root of the project.
pub fn name_of(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The Rust files below a directory, sorted.
pub fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
        if path.is_dir() {
            if path.file_name().is_none_or(|n| n != "target") {
                found.extend(rust_files(&path));
            }
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The sources below a directory, without files that hold only tests.
pub fn sources(dir: &str) -> Vec<Source> {
    let files = rust_files(&root().join(dir)).into_iter().filter(|p| !is_test_file(p));
    let read = files.map(|path| {
        let text = fs::read_to_string(&path).unwrap_or_default();
        Source { name: name_of(&path), code: blank_tests(&blank_texts(&text)), text }
    });
    read.collect()
}

fn is_test_file(path: &Path) -> bool {
    let name = path.file_stem().unwrap_or_default().to_string_lossy();
    name == "tests" || name.ends_with("_tests") || path.components().any(|c| c.as_os_str() == "tests")
}

/// A function with its body.
pub struct Function {
    pub name: String,
    /// Where it starts, counted from 1.
    pub line: usize,
    /// From its signature to its closing brace.
    pub lines: usize,
}

/// The functions of blanked code.
pub fn functions(code: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at..];
        let name: String = rest[3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        let Some(open) = rest.find(['{', ';']).filter(|o| rest[*o..].starts_with('{') && !name.is_empty()) else {
            continue;
        };
        let end = closing_brace(rest, open);
        let line = code[..at].matches('\n').count() + 1;
        found.push(Function { name, line, lines: rest[..end].matches('\n').count() + 1 });
    }
    found
}

/// The end of the block that opens at `open`.
fn closing_brace(code: &str, open: usize) -> usize {
    let mut depth = 0usize;
    for (at, c) in code[open..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return open + at + 1;
        }
    }
    code.len()
}

/// Where the `#[cfg(test)]` items of blanked code are.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut found: Vec<(usize, usize)> = Vec::new();
    for (at, _) in code.match_indices("#[cfg(test)]") {
        if found.last().is_some_and(|(_, end)| at < *end) {
            continue;
        }
        let end = match code[at..].find(['{', ';']) {
            Some(stop) if code[at + stop..].starts_with('{') => at + closing_brace(&code[at..], stop),
            Some(stop) => at + stop + 1,
            None => code.len(),
        };
        found.push((at, end));
    }
    found
}

fn blank_tests(code: &str) -> String {
    let mut out = code.to_owned();
    for (from, to) in test_modules(code) {
        let blank: String = code[from..to].chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect();
        out = format!("{}{blank}{}", &out[..from], &out[to..]);
    }
    out
}

/// The same text, byte for byte as long, with comments, strings and characters replaced by spaces.
fn blank_texts(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'/' if bytes[at..].starts_with(b"//") => end_of_line(bytes, at),
            b'/' if bytes[at..].starts_with(b"/*") => end_of_block(bytes, at),
            b'"' => end_of_string(bytes, at),
            b'r' if !follows_name(bytes, at) || bytes[..at].ends_with(b"b") => {
                end_of_raw_string(bytes, at).unwrap_or(at)
            }
            b'\'' => end_of_char(text, at),
            _ => at,
        };
        for b in &mut out[at..end] {
            if *b != b'\n' {
                *b = b' ';
            }
        }
        at = end.max(at + 1);
    }
    String::from_utf8(out).unwrap_or_default()
}

fn follows_name(bytes: &[u8], at: usize) -> bool {
    at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_')
}

fn end_of_line(bytes: &[u8], at: usize) -> usize {
    bytes[at..].iter().position(|b| *b == b'\n').map_or(bytes.len(), |n| at + n)
}

fn end_of_block(bytes: &[u8], at: usize) -> usize {
    let mut depth = 0usize;
    let mut i = at;
    while i < bytes.len() {
        if bytes[i..].starts_with(b"/*") {
            depth += 1;
            i += 2;
        } else if bytes[i..].starts_with(b"*/") {
            depth -= 1;
            i += 2;
            if depth == 0 {
                break;
            }
        } else {
            i += 1;
        }
    }
    i.min(bytes.len())
}

fn end_of_string(bytes: &[u8], at: usize) -> usize {
    let mut i = at + 1;
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 2,
            b'"' => return i + 1,
            _ => i += 1,
        }
    }
    bytes.len()
}

fn end_of_raw_string(bytes: &[u8], at: usize) -> Option<usize> {
    let hashes = bytes[at + 1..].iter().take_while(|b| **b == b'#').count();
    if bytes.get(at + 1 + hashes) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.extend(std::iter::repeat_n(b'#', hashes));
    let from = at + 2 + hashes;
    let found = bytes[from..].windows(close.len()).position(|w| w == close);
    Some(found.map_or(bytes.len(), |n| from + n + close.len()))
}

/// The end of a character literal; `at` itself for a lifetime.
fn end_of_char(text: &str, at: usize) -> usize {
    let mut rest = text[at + 1..].char_indices();
    match rest.next() {
        Some((_, '\\')) => {
            let escaped = text[at + 2..].char_indices().skip(1).find(|(_, c)| *c == '\'');
            escaped.map_or(at, |(n, _)| at + 2 + n + 1)
        }
        Some(_) => match rest.next() {
            Some((n, '\'')) => at + 1 + n + 1,
            _ => at,
        },
        None => at,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_comments_are_blanked_and_lifetimes_are_not() {
        let text = "let a = \"fn x { \\\" }\"; // panic!(\nlet b = '\\''; let c = r#\"\"}\"#; fn f<'a>(x: &'a u8) {}\n/* { /* */ */ b\"{\" br\"{\"";
        let code = blank_texts(text);
        assert_eq!(code.len(), text.len());
        assert_eq!(
            code.split_whitespace().collect::<Vec<_>>().join(" "),
            "let a = ; let b = ; let c = ; fn f<'a>(x: &'a u8) {} b b"
        );
    }

    #[test]
    fn functions_are_measured_and_tests_are_not() {
        let code = "fn a() {\n  {}\n}\nfn b();\n#[cfg(test)]\nmod tests {\n fn c() {\n}\n}\nfn d() {}";
        let found: Vec<(String, usize, usize)> =
            functions(&blank_tests(code)).into_iter().map(|f| (f.name, f.line, f.lines)).collect();
        assert_eq!(found, [("a".to_owned(), 1, 3), ("d".to_owned(), 10, 1)]);
    }
}
