//! The house rules, kept honest: directions between modules, purity of the core, sizes, panics, links, top-level entries.
//! Every test reports all offenders at once.

#[path = "tidy/graph.rs"]
mod graph;
#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, functions, root, rust_files, sources};

/// Lines of a file, its test modules not counted.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function, its signature counted.
const FUNCTION_LINES_MAX: usize = 80;

/// Modules in layers, lowest first. A module may use those of its own layer and of lower ones.
const LAYERS: &[&[&str]] = &[
    &["error", "protocol"],
    &["protocol/mysql", "sql", "config"],
    &["auth", "session"],
    &["topology", "router", "failover"],
    &["net", "metrics", "runtime"],
    &["pool"],
    &["hook"],
    &["proxy"],
    &["monitor", "admin"],
    &["server"],
    &["cli"],
];

/// Files that use a module above their own layer, and why they may. Each is a debt: none is added without need.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("src/protocol/mysql/greet.rs", "auth", "the server's side of a login computes answers by the schemes"),
    ("src/protocol/mysql/login.rs", "auth", "the client's side of a login computes answers by the schemes"),
    ("src/protocol/mysql/packet/handshake.rs", "auth", "the greeting carries the scramble, whose type the schemes own"),
    ("src/proxy/context.rs", "monitor", "sessions read the cluster through the monitor's handle"),
    ("src/proxy/login_nodes.rs", "monitor", "logins read the cluster through the monitor's handle"),
    ("src/proxy/view.rs", "admin", "sessions show themselves by the trait that the admin interface defines"),
];

/// The functional core: no sockets, no clock, no randomness, no logging.
const CORE: &[&str] =
    &["error", "protocol", "protocol/mysql", "sql", "session", "router", "failover", "auth", "topology"];

/// What the core must not mention, and why.
const IMPURE: &[(&str, &str)] = &[
    ("tokio", "no sockets and no tasks"),
    ("async fn", "nothing waits"),
    (".await", "nothing waits"),
    ("Instant::now", "time is an argument"),
    ("SystemTime", "time is an argument"),
    ("thread::sleep", "nothing waits"),
    ("tracing::", "decisions are values, the shell logs them"),
    ("println!", "decisions are values, the shell logs them"),
    ("rand::", "random bytes are arguments"),
    ("std::net::TcpStream", "no sockets"),
    ("std::fs", "no files"),
    ("std::env", "no environment"),
];

/// What stops a worker thread, and all the sessions on it.
const BLOCKING: &[(&str, &str)] = &[
    ("thread::sleep", "tokio::time::sleep"),
    ("std::net::TcpStream", "net::stream"),
    ("process::exit", "an exit code from main, so that destructors run"),
    ("block_on(", "`.await`; only server.rs, the composition root, starts the runtime"),
];

/// What panics. Allowed in tests, and where a comment says why it can't happen.
const PANICS: &[&str] = &[".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!(", "unreachable!(", "dbg!("];

/// What the root of the project may hold.
const TOP_LEVEL: &[&str] = &[
    ".cargo",
    ".ci",
    ".config",
    ".git",
    ".github",
    ".gitignore",
    "AGENTS.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE",
    "Makefile",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "config",
    "deny.toml",
    "docs",
    "integration",
    "packaging",
    "router-rules",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "src",
    "target",
    "tests",
];

fn report(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}\n  {}\n", offenders.join("\n  "));
}

/// The module of a path below src (`pool/dial.rs`) or of a `use` (`protocol::mysql::frame`), as [`LAYERS`] names it.
fn module_of<'a>(mut parts: impl Iterator<Item = &'a str>) -> String {
    let first = parts.next().unwrap_or_default().trim_end_matches(".rs").to_owned();
    match parts.next() {
        Some("mysql") if first == "protocol" => "protocol/mysql".into(),
        _ => first,
    }
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut offenders = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for file in sources("src").iter().filter(|f| !["src/lib.rs", "src/main.rs"].contains(&f.name.as_str())) {
        let own = module_of(file.name.trim_start_matches("src/").split('/'));
        let Some(own_layer) = layer_of(&own) else {
            offenders.insert(format!("{}: module {own} stands in no layer; add it to LAYERS", file.name));
            continue;
        };
        for (line, path) in crate_paths(&file.code) {
            let used = module_of(path.split("::"));
            if used == own || layer_of(&used).is_some_and(|layer| layer <= own_layer) {
                continue;
            }
            if EXCEPTIONS.iter().any(|(name, module, _)| *name == file.name && *module == used) {
                taken.insert((file.name.clone(), used));
            } else {
                offenders.insert(format!("{}:{line}: {own} uses {used}", file.name));
            }
        }
    }
    for (name, module, _) in EXCEPTIONS.iter().filter(|(n, m, _)| !taken.contains(&((*n).to_owned(), (*m).to_owned())))
    {
        offenders.insert(format!("{name} does not use {module} any more: take it out of EXCEPTIONS"));
    }
    report("A module may use its own layer and those below it:", &offenders.into_iter().collect::<Vec<_>>());
}

/// Where files still use each other in circles. Each is a debt, and none is added.
const CIRCLES: &[&str] = &["proxy"];

#[test]
fn no_files_use_each_other_in_a_circle() {
    let circles = graph::Graph::of_sources().circles();
    let indebted = |circle: &Vec<String>| {
        circle.iter().all(|module| CIRCLES.contains(&module.split("::").next().unwrap_or_default()))
    };
    let mut offenders: Vec<String> = circles.iter().filter(|c| !indebted(c)).map(|c| c.join(", ")).collect();
    for module in CIRCLES.iter().filter(|m| !circles.iter().any(|c| c.iter().any(|f| f.starts_with(*m)))) {
        offenders.push(format!("{module} has none any more: take it out of CIRCLES"));
    }
    report("Files that use each other in a circle have to be read together, and changed together:", &offenders);
}

/// Every `crate::a::b` in the code, those in `use crate::{a, b::c}` included, with its line.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0usize;
                let mut item = String::new();
                for c in list.chars() {
                    match c {
                        '}' if depth == 0 => break,
                        ',' if depth == 0 => found.push((line, std::mem::take(&mut item).trim().to_owned())),
                        '{' => depth += 1,
                        '}' => depth -= 1,
                        c if depth == 0 => item.push(c),
                        _ => {}
                    }
                }
                found.push((line, item.trim().to_owned()));
            }
            None => {
                let path: String = rest.chars().take_while(|c| c.is_alphanumeric() || "_:".contains(*c)).collect();
                // `protocol::{mysql::frame, ErrorReply}`: its items count one by one.
                match rest.strip_prefix("protocol::{") {
                    Some(list) => {
                        let items = list.split('}').next().unwrap_or_default().split(',');
                        found.extend(items.map(|i| (line, format!("protocol::{}", i.trim()))));
                    }
                    None => found.push((line, path)),
                }
            }
        }
    }
    found.retain(|(_, path)| !path.is_empty() && path.starts_with(|c: char| c.is_lowercase()));
    found
}

#[test]
fn the_core_is_pure() {
    let mut offenders = Vec::new();
    for file in sources("src") {
        if !CORE.contains(&module_of(file.name.trim_start_matches("src/").split('/')).as_str()) {
            continue;
        }
        for (number, line) in file.code.lines().enumerate() {
            for (word, why) in IMPURE.iter().filter(|(word, _)| mentions(line, word)) {
                offenders.push(format!("{}:{}: {word} ({why})", file.name, number + 1));
            }
        }
    }
    report("The functional core does nothing but think:", &offenders);
}

/// Whether `word` stands in `line` on its own, not as the end of a longer name.
fn mentions(line: &str, word: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let longer_before = word.starts_with(in_name) && before.ends_with(in_name);
        let longer_after = word.ends_with(in_name) && after.starts_with(in_name);
        !longer_before && !longer_after
    })
}

#[test]
fn nothing_blocks_a_thread() {
    let mut offenders = Vec::new();
    for file in sources("src").iter().filter(|f| f.name != "src/server.rs") {
        for (number, line) in file.code.lines().enumerate() {
            for (word, instead) in BLOCKING.iter().filter(|(word, _)| mentions(line, word)) {
                offenders.push(format!("{}:{}: {word} (use {instead})", file.name, number + 1));
            }
        }
    }
    report("A thread serves many sessions and never waits:", &offenders);
}

#[test]
fn files_and_functions_are_short() {
    let mut offenders = Vec::new();
    for file in all_sources() {
        let lines = file.code_lines();
        if lines > FILE_LINES_MAX {
            offenders.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", file.name));
        }
        for function in functions(&file.code) {
            if function.lines > FUNCTION_LINES_MAX {
                let (name, line, lines) = (function.name, function.line, function.lines);
                offenders
                    .push(format!("{}:{line}: fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}", file.name));
            }
        }
    }
    report("Too long (test modules are not counted):", &offenders);
}

#[test]
fn every_file_says_what_it_is_for() {
    let offenders =
        ["src", "tests", "integration"].iter().flat_map(|dir| rust_files(&root().join(dir))).filter_map(|path| {
            let text = fs::read_to_string(&path).unwrap_or_default();
            let first = text.lines().find(|l| !l.starts_with("#!")).unwrap_or_default();
            let says = first.strip_prefix("//!").is_some_and(|t| t.trim().len() >= 10 && !t.contains("(in progress)"));
            (!says).then(|| format!("{}: {first}", source::name_of(&path)))
        });
    report("The first line of a file is `//!` and what the file is for:", &offenders.collect::<Vec<_>>());
}

#[test]
fn nothing_panics_without_a_reason() {
    let mut offenders = Vec::new();
    for file in sources("src") {
        let text: Vec<&str> = file.text.lines().collect();
        for (number, line) in file.code.lines().enumerate() {
            let Some(word) = PANICS.iter().find(|word| mentions(line, word)) else { continue };
            // The reason stands at the end of the line, or in the comment right above it.
            let above = text[..number].iter().rev().take_while(|l| l.trim_start().starts_with("//"));
            let explained = above.chain(text.get(number)).any(|l| l.contains("// invariant:"));
            if !explained {
                offenders.push(format!("{}:{}: {word}", file.name, number + 1));
            }
        }
    }
    report(
        "Outside tests nothing panics, unless `// invariant: …` on the line or above it says why it can't:",
        &offenders,
    );
}

#[test]
fn no_path_of_a_developers_machine_is_in_the_project() {
    let mut offenders = Vec::new();
    // Put together here, so that this file is no offender.
    let roots = ["home", "Users", "work", "root"].map(|dir| format!("/{dir}/"));
    for path in text_files(&root()) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            let bad = roots.iter().any(|dir| {
                line.match_indices(dir.as_str()).any(|(at, _)| {
                    let before = line[..at].chars().next_back();
                    before.is_none_or(|c| !c.is_alphanumeric() && !"./_-}*".contains(c))
                })
            });
            if bad {
                offenders.push(format!("{}:{}: {}", source::name_of(&path), number + 1, line.trim()));
            }
        }
    }
    report("Paths of one machine do not belong here:", &offenders);
}

#[test]
fn links_of_the_documentation_are_alive() {
    let mut offenders = Vec::new();
    for path in text_files(&root()).into_iter().filter(|p| p.extension().is_some_and(|e| e == "md")) {
        let text = fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
                if file.contains("://") || file.starts_with("mailto:") {
                    continue;
                }
                let dir = path.parent().unwrap_or(Path::new(""));
                let linked = if file.is_empty() { path.clone() } else { dir.join(file) };
                let alive = linked.exists() && (anchor.is_empty() || has_heading(&linked, anchor));
                if !alive {
                    offenders.push(format!("{}:{}: {target}", source::name_of(&path), number + 1));
                }
            }
        }
    }
    report("Links that lead nowhere:", &offenders);
}

/// Whether a page has the heading that an anchor names.
fn has_heading(page: &Path, anchor: &str) -> bool {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        kept.chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    let text = fs::read_to_string(page).unwrap_or_default();
    text.lines().filter(|l| l.starts_with('#')).any(|l| slug(l.trim_start_matches('#')) == anchor)
}

#[test]
fn the_root_holds_what_belongs_there() {
    let entries = fs::read_dir(root()).into_iter().flatten().flatten();
    let names = entries.map(|e| e.file_name().to_string_lossy().into_owned());
    let offenders: Vec<String> = names.filter(|n| !TOP_LEVEL.contains(&n.as_str())).collect();
    report("Unknown top-level entries (add them to TOP_LEVEL if they belong there):", &offenders);
}

fn all_sources() -> Vec<Source> {
    let mut all = sources("src");
    all.extend(sources("integration"));
    all.extend(sources("tests/model"));
    all
}

/// Files of the project that people write, without what is built or stored.
fn text_files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path()) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["target", ".git", "corpus", "node_modules"].contains(&name.as_str()) {
                found.extend(text_files(&path));
            }
        } else if [".rs", ".md", ".toml", ".sh", "Makefile", "run", ".yml", ".py", ".js", ".service"]
            .iter()
            .any(|e| name.ends_with(e))
        {
            found.push(path);
        }
    }
    found
}
