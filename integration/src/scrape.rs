//! Reads what Prometheus would: a blocking HTTP GET and the text format.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::Result;

/// Status and body of a GET, with an optional bearer token.
pub fn get(address: &str, path: &str, token: Option<&str>) -> Result<(u16, String)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let authorization = token.map_or_else(String::new, |t| format!("Authorization: Bearer {t}\r\n"));
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n{authorization}\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer);
    let (head, body) = text.split_once("\r\n\r\n").ok_or("not an HTTP answer")?;
    let status = head.split_whitespace().nth(1).and_then(|s| s.parse().ok()).ok_or("no HTTP status")?;
    let body =
        if head.to_ascii_lowercase().contains("transfer-encoding: chunked") { unchunk(body) } else { body.to_owned() };
    Ok((status, body))
}

fn unchunk(mut body: &str) -> String {
    let mut out = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let Ok(size) = usize::from_str_radix(size.trim(), 16) else { break };
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        out.push_str(chunk);
        body = rest.get(size + 2..).unwrap_or_default();
    }
    out
}

/// All samples of one scrape: `name{labels}` to value.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<String, f64>);

impl Samples {
    /// Parses the text format.
    pub fn parse(text: &str) -> Samples {
        let sample = |line: &str| {
            let (key, value) = line.rsplit_once(' ')?;
            Some((key.to_owned(), value.parse().ok()?))
        };
        Samples(text.lines().filter(|l| !l.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of all samples of `name` whose labels contain every one of `labels` (written `key="value"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.matching(name, labels).map(|(_, v)| v).sum()
    }

    /// The samples of `name` with these labels.
    pub fn matching<'a>(&'a self, name: &'a str, labels: &'a [&'a str]) -> impl Iterator<Item = (&'a str, f64)> {
        self.0.iter().filter_map(move |(key, value)| {
            let rest = key.strip_prefix(name)?;
            let fits = (rest.is_empty() || rest.starts_with('{')) && labels.iter().all(|l| rest.contains(l));
            fits.then_some((key.as_str(), *value))
        })
    }

    /// All names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.iter().map(|(k, v)| (k.as_str(), *v))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_label() {
        let s = Samples::parse("# HELP a b\na{x=\"1\",y=\"2\"} 3\na{x=\"1\",y=\"3\"} 4\nab 9\na 1\n");
        assert_eq!(s.sum("a", &["x=\"1\""]), 7.0);
        assert_eq!(s.sum("a", &[]), 8.0);
        assert_eq!(s.sum("ab", &[]), 9.0);
    }

    #[test]
    fn chunks_are_joined() {
        assert_eq!(unchunk("3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"), "abcde");
    }
}
