//! Prepared statements of the binary protocol as the client sees them: its own ids, whatever server session executes them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::state::ParseState;
use crate::sql::Facts;

/// One prepared statement of a client.
#[derive(Clone, Debug)]
pub struct ClientStatement {
    /// The text as the client sent it.
    pub sql: Bytes,
    /// What the lexer saw in it.
    pub facts: Arc<Facts>,
    /// What it was understood by when it was prepared, and is wherever it is prepared again.
    pub parsed: Arc<ParseState>,
    /// Parameters, from the first server's answer.
    pub params: u16,
    /// Columns, from the first server's answer.
    pub columns: u16,
    /// The parameter types that the client sent last (two bytes each); it need not send them again.
    pub types: Option<Bytes>,
    /// Has a cursor or long data on a server: not shared with other statements of the same text.
    pub private: bool,
    /// Its cursor is open.
    pub cursor: bool,
    /// What it assigns to session variables.
    pub assigned: Option<Arc<super::unread::Assigned>>,
    /// The user variables that it names.
    pub named: Option<Arc<super::user_variables::Named>>,
    /// Why its long data did not reach a server; told by the next execution.
    pub failed: Option<crate::protocol::ErrorReply>,
}

/// Why a statement can't be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooMany {
    /// The limit on their number.
    Statements,
    /// The limit on their bytes.
    Bytes,
}

/// All prepared statements of a client.
#[derive(Debug, Default)]
pub struct ClientStatements {
    by_id: HashMap<u32, Box<ClientStatement>>,
    last: u32,
    bytes: usize,
}

impl ClientStatements {
    /// Whether another statement of this length fits.
    pub fn room_for(&self, sql: usize, statements_max: usize, bytes_max: usize) -> Result<(), TooMany> {
        if self.by_id.len() >= statements_max {
            return Err(TooMany::Statements);
        }
        if self.bytes + sql > bytes_max {
            return Err(TooMany::Bytes);
        }
        Ok(())
    }

    /// The id the next statement gets. Ids start at 1 and are never used twice within a session's four billion.
    pub fn next_id(&self) -> u32 {
        let mut id = self.last;
        loop {
            id = match id.wrapping_add(1) {
                0 | u32::MAX => 1,
                id => id,
            };
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }

    /// Adds a statement under the id that [`ClientStatements::next_id`] gave.
    pub fn insert(&mut self, id: u32, statement: ClientStatement) {
        self.last = id;
        self.bytes += statement.sql.len();
        self.by_id.insert(id, Box::new(statement));
    }

    /// The statement of an id. MariaDB's clients name the last prepared one by -1.
    pub fn get_mut(&mut self, id: u32) -> Option<(u32, &mut ClientStatement)> {
        let id = if id == u32::MAX { self.last } else { id };
        self.by_id.get_mut(&id).map(|s| (id, s.as_mut()))
    }

    /// Whether any statement has an open cursor.
    pub fn any_cursor(&self) -> bool {
        self.by_id.values().any(|statement| statement.cursor)
    }

    /// Forgets a statement.
    pub fn remove(&mut self, id: u32) -> Option<Box<ClientStatement>> {
        let removed = self.by_id.remove(&id);
        if let Some(statement) = &removed {
            self.bytes -= statement.sql.len();
        }
        removed
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = ClientStatements { last: self.last, ..ClientStatements::default() };
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
}
