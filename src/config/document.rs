//! From text to a table of values that have the right names and types, with the environment laid over it. Every value
//! knows its line. What is wrong is reported and taken out, so that the rest can still be checked.

use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::fault::{Collector, Place};
use super::schema::{Absent, KEYS, Key, Kind, SECTIONS, Section, find_key, find_section, keys_of, nearest};

/// Environment variables, by name. Those that are not UTF-8 are left out.
pub type Environment = BTreeMap<String, String>;

/// Prefix of the environment variables that replace values of the file.
pub const ENVIRONMENT_PREFIX: &str = "BELAY_";

/// Parses `text`. None if it is not TOML at all: what else is in it can't be known then.
pub(super) fn parse(text: &str, faults: &mut Collector<'_>) -> Option<Table> {
    let lines = Lines::new(text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let place = error.span().map_or(Place::File, |span| Place::Line(lines.line(span.start)));
        faults.fault_at(place, "", format!("not valid TOML: {}", error.message()), "correct the syntax of this line");
    }
    if !errors.is_empty() {
        return None;
    }
    places_of_table(document.get_ref(), "", &lines, faults);
    match toml::from_str(text) {
        Ok(table) => Some(table),
        Err(error) => {
            let place = error.span().map_or(Place::File, |span| Place::Line(lines.line(span.start)));
            faults.fault_at(
                place,
                "",
                "a value that does not fit",
                "write a number from -2^63 to 2^63-1, or another type",
            );
            None
        }
    }
}

/// Where lines start.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Lines {
        Lines(text.bytes().enumerate().filter(|(_, b)| *b == b'\n').map(|(at, _)| at).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|newline| *newline < offset) + 1
    }
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

fn places_of_table(table: &DeTable<'_>, path: &str, lines: &Lines, faults: &mut Collector<'_>) {
    for (name, value) in table {
        let path = join(path, name.get_ref());
        faults.place(path.clone(), Place::Line(lines.line(name.span().start)));
        match value.get_ref() {
            DeValue::Table(table) => places_of_table(table, &path, lines, faults),
            DeValue::Array(array) => {
                for (i, item) in array.iter().enumerate() {
                    let path = format!("{path}[{}]", i + 1);
                    faults.place(path.clone(), Place::Line(lines.line(item.span().start)));
                    if let DeValue::Table(table) = item.get_ref() {
                        places_of_table(table, &path, lines, faults);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Lays `BELAY_<SECTION>__<KEY>` over the file's values.
pub(super) fn overlay(table: &mut Table, environment: &Environment, faults: &mut Collector<'_>) {
    let ours = environment.iter().filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name.contains("__"));
    let (known, unknown): (Vec<_>, Vec<_>) =
        ours.map(|(name, text)| (name, text, key_of(name))).partition(|(_, _, key)| key.is_some());
    for (variable, text, key) in known {
        let Some(key) = key else { continue };
        let path = join(key.section, key.name);
        faults.place(path.clone(), Place::Environment(variable.clone()));
        match value_of(key, text) {
            Some(value) => set(table, key, value),
            None => faults.fault(&path, "is no value for this key", remedy_for(key)),
        }
    }
    // A variable that some `password_env` asks for may have any name.
    let asked_for = variables_named_in(table);
    for (variable, _, _) in unknown.into_iter().filter(|(name, _, _)| !asked_for.contains(name)) {
        let names: Vec<String> = KEYS.iter().filter_map(variable_of).collect();
        let remedy = match nearest(variable, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}? Otherwise unset it"),
            None => format!("unset it, or name it {ENVIRONMENT_PREFIX}<SECTION>__<KEY>"),
        };
        faults.fault_at(Place::Environment(variable.clone()), "", "names no key of the configuration", remedy);
    }
}

/// The key that a variable replaces.
fn key_of(variable: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| variable_of(key).as_deref() == Some(variable))
}

/// The variable that replaces a key; none for keys of sections that stand there several times.
pub fn variable_of(key: &Key) -> Option<String> {
    let section = find_section(key.section).filter(|s| !s.repeated)?;
    let section = section.name.replace('.', "__").to_uppercase();
    Some(format!("{ENVIRONMENT_PREFIX}{section}__{}", key.name.to_uppercase()))
}

fn variables_named_in(table: &Table) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest: Vec<&Table> = vec![table];
    while let Some(table) = rest.pop() {
        for (name, value) in table {
            match value {
                Value::String(text) if name.ends_with("_env") => found.push(text.clone()),
                Value::Table(table) => rest.push(table),
                Value::Array(array) => rest.extend(array.iter().filter_map(Value::as_table)),
                _ => {}
            }
        }
    }
    found
}

fn value_of(key: &Key, text: &str) -> Option<Value> {
    match key.kind {
        Kind::Integer(..) => text.trim().parse().ok().map(Value::Integer),
        Kind::Flag => text.trim().parse().ok().map(Value::Boolean),
        Kind::Texts | Kind::Paths => {
            let items = text.split(',').map(str::trim).filter(|t| !t.is_empty());
            Some(Value::Array(items.map(|t| Value::String(t.to_owned())).collect()))
        }
        Kind::Text | Kind::Secret | Kind::Path | Kind::Choice(_) => Some(Value::String(text.to_owned())),
    }
}

/// Sets a key, making its section; of `x`, `x_file` and `x_env` only the one that is set stays.
fn set(table: &mut Table, key: &Key, value: Value) {
    let mut at = table;
    for part in key.section.split('.') {
        let entry = at.entry(part).or_insert_with(|| Value::Table(Table::new()));
        match entry.as_table_mut() {
            Some(next) => at = next,
            None => return,
        }
    }
    let stem = key.name.trim_end_matches("_file").trim_end_matches("_env");
    if find_key(key.section, stem).is_some_and(|k| k.kind == Kind::Secret) {
        for name in [stem.to_owned(), format!("{stem}_file"), format!("{stem}_env")] {
            at.remove(&name);
        }
    }
    at.insert(key.name.to_owned(), value);
}

/// Checks names and types, takes out what is wrong, and makes every section that can only stand there once.
pub(super) fn check(table: &mut Table, faults: &mut Collector<'_>) {
    check_section(table, "", "", faults);
}

fn check_section(table: &mut Table, section: &str, path: &str, faults: &mut Collector<'_>) {
    let names: Vec<String> = table.keys().cloned().collect();
    for name in names {
        let full = join(path, &name);
        if let Some(inner) = find_section(&join(section, &name)) {
            check_inner(table, &name, inner, &full, faults);
        } else if let Some(key) = find_key(section, &name) {
            let wrong = table.get(&name).and_then(|value| wrong_with(key, value));
            if let Some(wrong) = wrong {
                faults.fault(&full, wrong, remedy_for(key));
                table.remove(&name);
            }
        } else {
            faults.fault(&full, "unknown key", remedy_for_unknown(section, &name));
            table.remove(&name);
        }
    }
    for inner in SECTIONS.iter().filter(|s| parent_of(s.name) == section) {
        let name = inner.name.rsplit('.').next().unwrap_or(inner.name);
        if !table.contains_key(name) {
            let mut made = if inner.repeated { Value::Array(Vec::new()) } else { Value::Table(Table::new()) };
            if let Some(made) = made.as_table_mut() {
                check_section(made, inner.name, &join(path, name), faults);
            }
            table.insert(name.to_owned(), made);
        }
    }
    for key in keys_of(section).filter(|k| k.absent == Absent::Required && !table.contains_key(k.name)) {
        let full = join(path, key.name);
        if !faults.is_faulty(&full) {
            faults.fault(&full, "is missing", remedy_for(key));
        }
    }
    for key in keys_of(section).filter(|k| k.absent == Absent::Required) {
        // Reported above; an empty text lets the rest be checked.
        table.entry(key.name).or_insert_with(|| Value::String(String::new()));
    }
}

fn check_inner(table: &mut Table, name: &str, inner: &Section, path: &str, faults: &mut Collector<'_>) {
    let brackets = if inner.repeated { format!("[[{}]]", inner.name) } else { format!("[{}]", inner.name) };
    match table.get_mut(name) {
        Some(Value::Table(table)) if !inner.repeated => check_section(table, inner.name, path, faults),
        Some(Value::Array(items)) if inner.repeated && items.iter().all(Value::is_table) => {
            for (i, item) in items.iter_mut().enumerate() {
                if let Some(table) = item.as_table_mut() {
                    check_section(table, inner.name, &format!("{path}[{}]", i + 1), faults);
                }
            }
        }
        _ => {
            faults.fault(
                path,
                "must be a section",
                format!("write {brackets} on a line of its own and its keys below it"),
            );
            table.remove(name);
        }
    }
}

fn parent_of(section: &str) -> &str {
    section.rsplit_once('.').map_or("", |(parent, _)| parent)
}

fn wrong_with(key: &Key, value: &Value) -> Option<String> {
    let text_is_bad = |t: &str| t.chars().any(char::is_control);
    match (key.kind, value) {
        (Kind::Integer(min, max), Value::Integer(n)) if (min..=max).contains(n) => None,
        (Kind::Integer(..), Value::Integer(n)) => Some(format!("is {n}, which is out of range")),
        (Kind::Integer(..), _) => Some("is not a whole number".into()),
        (Kind::Flag, Value::Boolean(_)) => None,
        (Kind::Flag, _) => Some("is neither true nor false".into()),
        (Kind::Choice(words), Value::String(text)) if words.contains(&text.as_str()) => None,
        (Kind::Choice(_), _) => Some("is none of the words that it can be".into()),
        (Kind::Text | Kind::Path | Kind::Secret, Value::String(text)) if text.is_empty() => Some("is empty".into()),
        (Kind::Text | Kind::Path, Value::String(text)) if text_is_bad(text) => Some("holds a control character".into()),
        (Kind::Text | Kind::Path | Kind::Secret, Value::String(_)) => None,
        (Kind::Text | Kind::Path | Kind::Secret, _) => Some("is not a text in quotes".into()),
        (Kind::Texts | Kind::Paths, Value::Array(items)) => {
            let good = |v: &Value| v.as_str().is_some_and(|t| !t.is_empty() && !text_is_bad(t));
            (!items.iter().all(good)).then(|| "holds something else than texts in quotes".into())
        }
        (Kind::Texts | Kind::Paths, _) => Some("is not a list".into()),
    }
}

fn remedy_for(key: &Key) -> String {
    match key.kind {
        Kind::Integer(min, max) => {
            format!("write a whole number from {min} to {max} {}", key.unit).trim_end().to_owned()
        }
        Kind::Flag => "write true or false".into(),
        Kind::Choice(words) => format!("write one of \"{}\"", words.join("\", \"")),
        Kind::Texts | Kind::Paths => format!("write {} = [\"…\", \"…\"]", key.name),
        Kind::Text | Kind::Path | Kind::Secret => format!("write {} = \"…\": {}", key.name, key.meaning),
    }
}

fn remedy_for_unknown(section: &str, name: &str) -> String {
    let sections = || SECTIONS.iter().filter(|s| parent_of(s.name) == section).map(|s| s.name);
    let near = nearest(name, keys_of(section).map(|k| k.name).chain(sections()));
    if let Some(near) = near {
        return format!("did you mean {near}? Otherwise remove it");
    }
    if let Some(other) = KEYS.iter().find(|k| k.name == name) {
        return format!("this key belongs in [{}]", other.section);
    }
    match keys_of(section).map(|k| k.name).chain(sections()).collect::<Vec<_>>().join(", ") {
        known if known.is_empty() => "remove it".into(),
        known => format!("remove it; here can stand {known}"),
    }
}
