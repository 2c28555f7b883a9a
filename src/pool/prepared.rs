//! The prepared statements that a server session holds, shared by all clients whose text and parsing state are equal.

use std::collections::HashMap;

use bytes::{BufMut, Bytes, BytesMut};

/// What makes two prepared statements the same one for a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatementKey {
    /// The text.
    pub sql: Bytes,
    /// What it was understood by when it was prepared ([`crate::session::state::ParseState`]).
    pub parse_fingerprint: u64,
    /// Set for a statement that must not be shared (cursor, long data): client id and the client's statement id.
    pub private: Option<(u32, u32)>,
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
    by_key: HashMap<StatementKey, ServerStatement>,
    to_close: Vec<u32>,
    clock: u64,
    statements_max: usize,
}

impl ServerStatements {
    /// None yet.
    pub fn new(statements_max: usize) -> ServerStatements {
        ServerStatements {
            by_key: HashMap::new(),
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

    /// Adds a statement that the server has just prepared; an older one under the same key, or the least recently used one, is to be closed.
    pub fn insert(&mut self, key: StatementKey, id: u32) {
        self.clock += 1;
        if self.by_key.len() >= self.statements_max
            && !self.by_key.contains_key(&key)
            // A private one may have a cursor open or data waiting: it goes only if there are no others.
            && let Some(oldest) =
                self.by_key.iter().min_by_key(|(k, s)| (k.private.is_some(), s.used)).map(|(k, _)| k.clone())
        {
            self.remove(&oldest);
        }
        if let Some(old) = self.by_key.insert(key, ServerStatement { id, types: None, used: self.clock }) {
            self.to_close.push(old.id);
        }
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

    fn key(sql: &'static str) -> StatementKey {
        StatementKey { sql: Bytes::from_static(sql.as_bytes()), parse_fingerprint: 1, private: None }
    }

    #[test]
    fn the_least_recently_used_statement_is_closed() {
        let mut statements = ServerStatements::new(2);
        statements.insert(key("a"), 1);
        statements.insert(key("b"), 2);
        assert!(statements.get_mut(&key("a")).is_some());
        statements.insert(key("c"), 3);
        assert!(statements.get_mut(&key("b")).is_none());
        let mut out = BytesMut::new();
        statements.write_closes(&mut out);
        assert_eq!(&out[..], &[5, 0, 0, 0, 0x19, 2, 0, 0, 0]);
    }

    #[test]
    fn a_private_statement_outlives_shared_ones() {
        let mut statements = ServerStatements::new(2);
        let private = StatementKey { private: Some((7, 1)), ..key("a") };
        statements.insert(private.clone(), 1);
        statements.insert(key("b"), 2);
        statements.insert(key("c"), 3);
        assert!(statements.get_mut(&private).is_some() && statements.get_mut(&key("b")).is_none());
        statements.remove(&key("c"));
        let other = StatementKey { private: Some((8, 1)), ..key("a") };
        statements.insert(other, 4);
        statements.insert(key("d"), 5);
        assert!(statements.get_mut(&private).is_none(), "the bound holds all the same");
        assert_eq!(statements.len(), 2);
    }
}
