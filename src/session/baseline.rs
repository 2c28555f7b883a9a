//! The session variables of a fresh login on one node: what a client gets that never set anything.
//!
//! Nodes may be configured differently and `SET GLOBAL` changes what later logins get, so each server session remembers the baseline it was
//! opened with. Equal baselines are shared (one `Arc`), so comparing two of them is comparing pointers in the ordinary case.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

/// Variables that a cluster changes on its nodes by itself (Galera does so whenever a member comes or goes). They are in no baseline, so that the nodes
/// of a cluster have equal ones: what a client set itself is replayed, and goes back to the node's own by DEFAULT.
pub const NODE_OWNED: [&str; 2] = ["auto_increment_increment", "auto_increment_offset"];

/// The values of the replayable session variables right after a login, by lower-case name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Baseline {
    values: BTreeMap<Arc<str>, Bytes>,
}

impl Baseline {
    /// A baseline of these values; the nodes' own are left out.
    pub fn new(values: impl IntoIterator<Item = (Arc<str>, Bytes)>) -> Baseline {
        Baseline { values: values.into_iter().filter(|(name, _)| !NODE_OWNED.contains(&&**name)).collect() }
    }

    /// Whether a variable that was changed can be put back: to its value here, or to the node's own.
    pub fn knows(&self, name: &str) -> bool {
        self.values.contains_key(name) || NODE_OWNED.contains(&name)
    }

    /// The value of a variable, `None` for one that is not replayed.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        self.values.get(name)
    }

    /// All values in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Bytes)> {
        self.values.iter()
    }

    /// How many variables there are.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

/// Shares equal baselines. Bounded: a cluster has few distinct ones; the oldest is forgotten first.
#[derive(Debug, Default)]
pub struct Interner {
    known: Vec<Arc<Baseline>>,
}

/// Distinct baselines that are remembered.
pub const BASELINES_MAX: usize = 64;

impl Interner {
    /// The shared copy of `baseline`.
    pub fn intern(&mut self, baseline: Baseline) -> Arc<Baseline> {
        if let Some(known) = self.known.iter().find(|known| ***known == baseline) {
            return known.clone();
        }
        if self.known.len() == BASELINES_MAX {
            self.known.remove(0);
        }
        let shared = Arc::new(baseline);
        self.known.push(shared.clone());
        shared
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_baselines_are_one() {
        let one = || Baseline::new([(Arc::from("sql_mode"), Bytes::from_static(b"ANSI"))]);
        let mut interner = Interner::default();
        assert!(Arc::ptr_eq(&interner.intern(one()), &interner.intern(one())));
        assert!(!Arc::ptr_eq(&interner.intern(one()), &interner.intern(Baseline::default())));
    }
}
