//! What is wrong with a configuration: where, which key, why, and what to do about it.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Where a value of the configuration came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The file as a whole: a key that is missing has no line.
    File,
    /// A line of the file, counted from 1.
    Line(usize),
    /// The environment variable of this name.
    Environment(String),
}

/// One fault. None of its texts holds a secret, nor a text that may have been meant as one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The configuration file.
    pub file: PathBuf,
    /// Where in it, or which environment variable.
    pub place: Place,
    /// The key with its section (`pool.idle_timeout_ms`, `node[2].address`, counted from 1); empty where none applies.
    pub key: String,
    /// What is wrong.
    pub wrong: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::File => write!(f, "{}: ", self.file.display())?,
            Place::Line(line) => write!(f, "{}:{line}: ", self.file.display())?,
            Place::Environment(name) => write!(f, "environment variable {name}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}\n    remedy: {}", self.wrong, self.remedy)
    }
}

/// All faults of a configuration, in the order of their lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for fault in &self.0 {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Faults {}

/// Gathers faults, one a key: what follows from a wrong value is not reported again.
pub(super) struct Collector<'a> {
    file: &'a Path,
    places: HashMap<String, Place>,
    faulty: HashSet<String>,
    faults: Vec<Fault>,
}

impl<'a> Collector<'a> {
    pub(super) fn new(file: &'a Path) -> Collector<'a> {
        Collector { file, places: HashMap::new(), faulty: HashSet::new(), faults: Vec::new() }
    }

    /// Remembers where the value of `key` stands.
    pub(super) fn place(&mut self, key: String, place: Place) {
        self.places.insert(key, place);
    }

    /// Reports a fault of `key`, at its own place or at that of the section it should stand in.
    pub(super) fn fault(&mut self, key: &str, wrong: impl Into<String>, remedy: impl Into<String>) {
        if self.faulty.insert(key.to_owned()) {
            let place = self.place_of(key);
            self.push(place, key, wrong.into(), remedy.into());
        }
    }

    /// Reports a fault that has no key, or a key that is known at no place.
    pub(super) fn fault_at(&mut self, place: Place, key: &str, wrong: impl Into<String>, remedy: impl Into<String>) {
        self.push(place, key, wrong.into(), remedy.into());
    }

    /// Whether anything was reported.
    pub(super) fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// Whether this very key has a fault already.
    pub(super) fn is_faulty(&self, key: &str) -> bool {
        self.faulty.contains(key)
    }

    /// Ends the collection.
    pub(super) fn into_faults(mut self) -> Faults {
        self.faults.sort_by_key(|f| match f.place {
            Place::Line(line) => (0, line),
            Place::File => (1, 0),
            Place::Environment(_) => (2, 0),
        });
        Faults(self.faults)
    }

    fn push(&mut self, place: Place, key: &str, wrong: String, remedy: String) {
        self.faults.push(Fault { file: self.file.to_path_buf(), place, key: key.to_owned(), wrong, remedy });
    }

    fn place_of(&self, key: &str) -> Place {
        let mut path = key;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rsplit_once('.') {
                Some((parent, _)) => path = parent,
                None => return Place::File,
            }
        }
    }
}
