//! The prepared statements that a server session holds, shared by all clients whose text and parsing state are equal.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::session::state::ParseState;

/// What makes two prepared statements the same one for a server. Compared in full: a hash alone would some day hand one client's meaning to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatementKey {
    /// The text.
    pub sql: Bytes,
    /// What it was understood by when it was prepared.
    pub parsed: Arc<ParseState>,
    /// Set for a statement that must not be shared (cursor, long data): client id and the client's statement id.
    pub private: Option<(u32, u32)>,
}

impl Hash for StatementKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.sql, self.parsed.fingerprint(), self.private).hash(state);
    }
}

/// A statement on the server.
#[derive(Clone, Debug)]
pub struct ServerStatement {
    /// The server's id.
    pub id: u32,
    /// The parameter types that the server was told last.
    pub types: Option<Bytes>,
    used: u64,
}

/// All statements of one server session, at most `statements_max`; the least recently used one goes first.
#[derive(Debug)]
pub struct ServerStatements {
    by_key: HashMap<StatementKey, ServerStatement, foldhash::fast::RandomState>,
    to_close: Vec<u32>,
    clock: u64,
    statements_max: usize,
}

impl ServerStatements {
    /// None yet.
    pub fn new(statements_max: usize) -> ServerStatements {
        ServerStatements {
            by_key: HashMap::default(),
            to_close: Vec::new(),
            clock: 0,
            statements_max: statements_max.max(1),
        }
    }

    /// The statement, marked as used.
    pub fn get_mut(&mut self, key: &StatementKey) -> Option<&mut ServerStatement> {
        self.clock += 1;
        let clock = self.clock;
        let statement = self.by_key.get_mut(key)?;
        statement.used = clock;
        Some(statement)
    }

    /// Whether a statement can be added: what is `held` has something on this server session that can't be made again, and is never pushed out.
    pub fn has_room(&self, held: impl Fn(&StatementKey) -> bool) -> bool {
        self.by_key.len() < self.statements_max || self.by_key.keys().any(|key| !held(key))
    }

    /// Adds a statement that the server has just prepared; an older one under the same key, or the least recently used one that is not `held`, is to
    /// be closed.
    pub fn insert(&mut self, key: StatementKey, id: u32, held: impl Fn(&StatementKey) -> bool) {
        self.clock += 1;
        if self.by_key.len() >= self.statements_max
            && !self.by_key.contains_key(&key)
            && let Some(oldest) =
                self.by_key.iter().filter(|(k, _)| !held(k)).min_by_key(|(_, s)| s.used).map(|(k, _)| k.clone())
        {
            self.remove(&oldest);
        }
        if let Some(old) = self.by_key.insert(key, ServerStatement { id, types: None, used: self.clock }) {
            self.to_close.push(old.id);
        }
    }

    /// Forgets, and closes with the next flight, all that is not `held`: whoever executes it again prepares it again. Whether there was any.
    pub fn make_room(&mut self, held: impl Fn(&StatementKey) -> bool) -> bool {
        let to_close = &mut self.to_close;
        let before = to_close.len();
        self.by_key.retain(|key, there| {
            let keep = held(key);
            if !keep {
                to_close.push(there.id);
            }
            keep
        });
        to_close.len() > before
    }

    /// Forgets, and closes with the next flight, all that is there for this statement of this client alone.
    pub fn remove_private(&mut self, client: u32, statement: u32) {
        let to_close = &mut self.to_close;
        self.by_key.retain(|key, there| {
            let keep = key.private != Some((client, statement));
            if !keep {
                to_close.push(there.id);
            }
            keep
        });
    }

    /// Forgets a statement and closes it with the next flight.
    pub fn remove(&mut self, key: &StatementKey) {
        if let Some(old) = self.by_key.remove(key) {
            self.to_close.push(old.id);
        }
    }

    /// Forgets all without closing: the server has done so.
    pub fn clear(&mut self) {
        self.by_key.clear();
        self.to_close.clear();
    }

    /// Appends the COM_STMT_CLOSE packets that are due (they have no answer).
    pub fn write_closes(&mut self, out: &mut BytesMut) {
        for id in self.to_close.drain(..) {
            out.put_slice(&[5, 0, 0, 0, 0x19]);
            out.put_u32_le(id);
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::baseline::Baseline;
    use crate::session::state::{CharacterSets, SessionState};

    fn parsed(schema: &'static str) -> Arc<ParseState> {
        let schema = Some(Bytes::from_static(schema.as_bytes()));
        let state = SessionState::new(Arc::new(Baseline::default()), CharacterSets::default(), schema);
        Arc::new(state.parse_state(&[]))
    }

    fn key(sql: &'static str) -> StatementKey {
        StatementKey { sql: Bytes::from_static(sql.as_bytes()), parsed: parsed("s"), private: None }
    }

    fn none(_: &StatementKey) -> bool {
        false
    }

    #[test]
    fn the_least_recently_used_statement_is_closed() {
        let mut statements = ServerStatements::new(2);
        statements.insert(key("a"), 1, none);
        statements.insert(key("b"), 2, none);
        assert!(statements.get_mut(&key("a")).is_some());
        statements.insert(key("c"), 3, none);
        assert!(statements.get_mut(&key("b")).is_none());
        let mut out = BytesMut::new();
        statements.write_closes(&mut out);
        assert_eq!(&out[..], &[5, 0, 0, 0, 0x19, 2, 0, 0, 0]);
    }

    #[test]
    fn a_key_is_compared_in_full() {
        let mut statements = ServerStatements::new(2);
        statements.insert(key("a"), 1, none);
        assert!(statements.get_mut(&key("a")).is_some(), "equal, though not the same value in memory");
        assert!(statements.get_mut(&StatementKey { parsed: parsed("t"), ..key("a") }).is_none());
        // The same fingerprint is no proof.
        let mut clash = ParseState::clone(&parsed("t"));
        clash.set_fingerprint(parsed("s").fingerprint());
        assert!(statements.get_mut(&StatementKey { parsed: Arc::new(clash), ..key("a") }).is_none());
    }

    #[test]
    fn what_is_held_is_never_pushed_out() {
        let mut statements = ServerStatements::new(2);
        let private = StatementKey { private: Some((7, 1)), ..key("a") };
        let held = |key: &StatementKey| key.private == Some((7, 1));
        statements.insert(private.clone(), 1, held);
        statements.insert(key("b"), 2, held);
        statements.insert(key("c"), 3, held);
        assert!(statements.get_mut(&private).is_some() && statements.get_mut(&key("b")).is_none());
        assert!(statements.has_room(held));
        assert!(!statements.has_room(|_| true), "with two of them there is no room for a third");
        // Of a client that is not bound here any more nothing is held.
        statements.insert(key("d"), 4, none);
        statements.insert(key("e"), 5, none);
        assert!(statements.get_mut(&private).is_none());
        let more = StatementKey { private: Some((7, 1)), ..key("f") };
        statements.insert(more, 6, none);
        assert!(!statements.make_room(|_| true));
        assert_eq!(statements.len(), 2);
        statements.remove_private(7, 1);
        assert_eq!(statements.len(), 1);
        let mut out = BytesMut::new();
        statements.write_closes(&mut out);
        assert_eq!(out.iter().skip(5).step_by(9).copied().collect::<Vec<u8>>(), [2, 3, 1, 4, 6]);
        assert!(statements.make_room(held) && statements.is_empty());
    }
}
