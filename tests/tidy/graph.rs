//! Which file of `src` uses which: paths in `use` and in code, followed to the file that has the module.

use std::collections::{BTreeMap, BTreeSet};

use super::source::sources;

/// Files, by the path of their module (`pool::flight`), and what each uses.
pub struct Graph {
    uses: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    /// Of all files but the roots of the crates.
    pub fn of_sources() -> Graph {
        let files: BTreeMap<String, String> = sources("src")
            .into_iter()
            .map(|file| (module_path(&file.name), file.code))
            .filter(|(module, _)| !["lib", "main"].contains(&module.as_str()))
            .collect();
        let uses = files
            .iter()
            .map(|(module, code)| {
                let used = paths(code).into_iter().filter_map(|path| home(&files, module, &path));
                (module.clone(), used.filter(|other| other != module).collect())
            })
            .collect();
        Graph { uses }
    }

    /// The files that use each other in a circle, one list a circle.
    pub fn circles(&self) -> Vec<Vec<String>> {
        let reach: BTreeMap<&String, BTreeSet<&String>> = self.uses.keys().map(|m| (m, self.reachable(m))).collect();
        let mut circles: Vec<Vec<String>> = Vec::new();
        for (module, reached) in &reach {
            if !reached.contains(module) || circles.iter().any(|circle| circle.contains(module)) {
                continue;
            }
            let circle = reached.iter().filter(|other| reach.get(*other).is_some_and(|back| back.contains(module)));
            circles.push(circle.map(|m| (*m).clone()).collect());
        }
        circles
    }

    fn reachable(&self, from: &String) -> BTreeSet<&String> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<&String> = self.uses.get(from).into_iter().flatten().collect();
        while let Some(module) = todo.pop() {
            if seen.insert(module) {
                todo.extend(self.uses.get(module).into_iter().flatten());
            }
        }
        seen
    }
}

/// `src/pool/mod.rs` is `pool`, `src/pool/flight.rs` is `pool::flight`.
fn module_path(name: &str) -> String {
    let path = name.trim_start_matches("src/").trim_end_matches(".rs");
    path.strip_suffix("/mod").unwrap_or(path).replace('/', "::")
}

/// The file that a path leads to from within a module.
fn home(files: &BTreeMap<String, String>, module: &str, path: &str) -> Option<String> {
    let mut base: Vec<&str> = Vec::new();
    let mut rest = path.split("::").peekable();
    match rest.next()? {
        "crate" => {}
        "self" => base.extend(module.split("::")),
        _ => {
            base.extend(module.split("::"));
            base.pop();
            while rest.next_if_eq(&"super").is_some() {
                base.pop();
            }
        }
    }
    base.extend(rest);
    (1..=base.len()).rev().map(|n| base[..n].join("::")).find(|candidate| files.contains_key(candidate))
}

/// Every `crate::…`, `super::…` and `self::…` in the code, those in braces one by one.
fn paths(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for root in ["crate::", "super::", "self::"] {
        for (at, _) in code.match_indices(root) {
            // `super::super::` is found by its first word.
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$' || c == ':') {
                continue;
            }
            expand("", &code[at..], &mut found);
        }
    }
    found
}

/// Takes one tree (`a::{b, c::{d, e}}`) apart; the number of bytes it took.
fn expand(prefix: &str, text: &str, found: &mut Vec<String>) -> usize {
    let path: String = text.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
    let whole = format!("{prefix}{path}");
    if !text[path.len()..].starts_with('{') {
        found.push(whole.trim_end_matches(':').to_owned());
        return path.len();
    }
    let mut at = path.len() + 1;
    loop {
        at += text[at..].chars().take_while(|c| c.is_whitespace() || *c == ',').map(char::len_utf8).sum::<usize>();
        if at >= text.len() || text[at..].starts_with('}') {
            return at + 1;
        }
        at += expand(&whole, &text[at..], found).max(1);
        // ` as name`
        at += text[at..].find([',', '}']).unwrap_or(text.len() - at);
    }
}

#[test]
fn paths_are_taken_apart() {
    let code = "use crate::a::{b::C, d::{self, e as f}, G}; fn x() { super::super::h::i(); }";
    let found: BTreeSet<String> = paths(code).into_iter().collect();
    let expected = ["crate::a::b::C", "crate::a::d::self", "crate::a::d::e", "crate::a::G", "super::super::h::i"];
    assert_eq!(found, expected.map(str::to_owned).into());
}
