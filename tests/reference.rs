//! The reference pages tell what the program knows: configuration keys, metrics, errors. Compared in both directions.
//! `UPDATE_REFERENCE=1 cargo test --test reference` writes the tables of keys and the example anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use belay::config::schema;
use belay::config::template::Init;
use belay::proxy::errors;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Ends the part of docs/configuration.md that people write.
const MARK: &str = "tests/reference.rs. -->\n\n";

fn update() -> bool {
    std::env::var_os("UPDATE_REFERENCE").is_some()
}

fn doc(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap_or_default()
}

fn lines_missing(expected: &str, found: &str) -> Vec<String> {
    let found: BTreeSet<&str> = found.lines().collect();
    expected.lines().filter(|l| !found.contains(l)).map(str::to_owned).collect()
}

#[test]
fn every_configuration_key_is_documented_as_it_is() {
    let page = doc("configuration.md");
    let (introduction, tables) = page.split_once(MARK).expect("the page marks where its tables start");
    let expected = schema::reference();
    if update() {
        let text = format!("{introduction}{MARK}{}\n", expected.trim_end());
        return fs::write(root().join("docs/configuration.md"), text).expect("the page can be written");
    }
    let (missing, surplus) = (lines_missing(&expected, tables), lines_missing(tables, &expected));
    assert!(
        missing.is_empty() && surplus.is_empty() && tables.trim_end() == expected.trim_end(),
        "docs/configuration.md\n  lacks:\n{}\n  has, and should not:\n{}\n  (or has them in another order)",
        missing.join("\n"),
        surplus.join("\n"),
    );
}

#[test]
fn the_example_is_what_init_writes() {
    let init = Init {
        addresses: vec!["0.0.0.0:3306".into()],
        unix_sockets: Vec::new(),
        admin: "127.0.0.1:9306".into(),
        token_file: "belay.toml.token".into(),
        nodes: ["db1.example.org:3306", "db2.example.org:3306", "db3.example.org:3306"].map(str::to_owned).into(),
        monitor_user: "belay_monitor".into(),
        monitor_password_file: "/etc/belay/monitor.password".into(),
        server_connections_max: None,
        threads: None,
    };
    let path = root().join("config/belay.example.toml");
    let found = fs::read_to_string(&path).unwrap_or_default();
    let expected = init.render();
    if update() {
        return fs::write(&path, expected).expect("the example can be written");
    }
    assert!(
        found == expected,
        "config/belay.example.toml is not what `belay init` writes for it. It lacks:\n{}\n  and should not have:\n{}",
        lines_missing(&expected, &found).join("\n"),
        lines_missing(&found, &expected).join("\n"),
    );
}

/// All texts in back quotes that start the rows of tables and fulfil `wanted`.
fn first_cells(page: &str, wanted: impl Fn(&str) -> bool) -> BTreeSet<String> {
    let cells = page.lines().filter_map(|l| l.strip_prefix('|')).filter_map(|l| l.split('|').next());
    cells.map(|c| c.trim().trim_matches('`').to_owned()).filter(|c| wanted(c)).collect()
}

#[test]
fn every_metric_is_documented() {
    let mut known = BTreeSet::new();
    for file in rust_files(&root().join("src/metrics")) {
        let text = fs::read_to_string(&file).unwrap_or_default();
        for declaration in text.split("pub const ").skip(1).filter(|d| d.contains(": &str = \"belay_")) {
            let name = declaration.split(": &str = \"").nth(1).and_then(|rest| rest.split('"').next());
            if let Some(name) = name.filter(|n| n.starts_with("belay_")) {
                known.insert(name.to_owned());
            }
        }
    }
    assert!(!known.is_empty(), "src/metrics declares no name as `pub const X: &str = \"belay_…\"`");
    compare("docs/metrics.md", &known, &first_cells(&doc("metrics.md"), is_name));
}

#[test]
fn every_error_that_belay_makes_is_documented() {
    let page = doc("errors.md");
    // Errors of the login are made where the login is; their table follows under this heading.
    let page = page.split("\n## While a client logs in").next().unwrap_or_default();
    let known: BTreeSet<String> =
        errors::NAMES.iter().map(|(code, state, name)| format!("{code} {state} {name}")).collect();
    let rows =
        page.lines().filter_map(|l| l.strip_prefix('|')).map(|l| l.split('|').map(|c| c.trim().trim_matches('`')));
    let told = rows.map(|cells| cells.take(3).collect::<Vec<_>>());
    let told: BTreeSet<String> =
        told.filter(|c| c.first().is_some_and(|c| c.parse::<u16>().is_ok())).map(|c| c.join(" ")).collect();
    compare("docs/errors.md (rows `| code | SQLSTATE | name | …`)", &known, &told);
}

#[test]
fn every_reason_of_a_pin_is_documented() {
    let page = doc("sessions.md");
    let section = page.split("\n## Pins").nth(1).and_then(|s| s.split("\n## ").next()).unwrap_or_default();
    let is_label = |c: &str| c.contains('_') || c.bytes().all(|b| b.is_ascii_lowercase());
    let told = first_cells(section, |c| is_label(c) && !["", "reason"].contains(&c));
    let known: BTreeSet<String> = belay::proxy::measure::pin_labels().into_iter().map(str::to_owned).collect();
    compare("docs/sessions.md, section Pins,", &known, &told);
}

/// Whether a cell is the name of a metric alone, without labels.
fn is_name(cell: &str) -> bool {
    cell.starts_with("belay_") && cell.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn compare(page: &str, known: &BTreeSet<String>, told: &BTreeSet<String>) {
    let missing: Vec<&String> = known.difference(told).collect();
    let surplus: Vec<&String> = told.difference(known).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{page} lacks {missing:#?}\nand tells of what does not exist: {surplus:#?}"
    );
}

fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|e| e.path());
    let (dirs, files): (Vec<_>, Vec<_>) = entries.partition(|p| p.is_dir());
    let files = files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "rs"));
    files.chain(dirs.iter().flat_map(|d| rust_files(d))).collect()
}
