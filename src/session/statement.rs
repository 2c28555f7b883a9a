//! Prepared statements of the binary protocol as the client sees them: its own ids, whatever server session executes them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::state::ParseState;
use crate::protocol::ErrorReply;
use crate::sql::Text;

/// One prepared statement of a client.
#[derive(Clone, Debug)]
pub struct ClientStatement {
    /// The text as the client sent it.
    pub text: Text,
    /// What it was understood by when it was prepared, and is wherever it is prepared again.
    pub parsed: Arc<ParseState>,
    /// Only the server session that it was prepared on knows the types of the user variables that it names.
    pub types_unknown: bool,
    /// Parameters, from the first server's answer.
    pub params: u16,
    /// Columns, from the first server's answer.
    pub columns: u16,
    /// The parameter types that the client sent last (two bytes each); it need not send them again.
    pub types: Option<Bytes>,
    /// Has a cursor or long data on a server, or had: not shared with other statements of the same text.
    pub private: bool,
    /// Its cursor is open.
    pub cursor: bool,
    /// What was sent for its next execution.
    pub long_data: LongData,
    /// The text under which the bound server session has it, while it has its cursor or its long data.
    pub on: Option<Bytes>,
    /// What it assigns to session variables.
    pub assigned: Option<Arc<super::unread::Assigned>>,
    /// The user variables that it names.
    pub named: Option<Arc<super::user_variables::Named>>,
}

impl ClientStatement {
    /// Whether the bound server session has something of it that can't be made again elsewhere.
    pub fn is_held(&self) -> bool {
        self.cursor || self.long_data.is_pending() || self.types_unknown
    }
}

/// The data that COM_STMT_SEND_LONG_DATA has sent for the next execution of a statement. It has no answer: what went wrong is told by the execution,
/// which uses it up, whatever becomes of it (servers drop it with an execution that fails, too).
#[derive(Clone, Debug, Default)]
pub struct LongData {
    /// The parameters whose data is on the bound server session.
    params: Vec<u16>,
    /// Why data did not reach a server, or is lost.
    failed: Option<ErrorReply>,
    /// It was sent for a parameter that there is not: no execution succeeds before COM_STMT_RESET.
    wrong: bool,
}

impl LongData {
    /// Whether the bound server session has data for the next execution.
    pub fn is_pending(&self) -> bool {
        !self.params.is_empty()
    }

    /// Data for this parameter has reached the bound server session.
    pub fn sent(&mut self, param: u16) {
        if !self.params.contains(&param) {
            self.params.push(param);
        }
    }

    /// Data did not reach a server, or was lost: the next execution must not run without it.
    pub fn fail(&mut self, error: ErrorReply) {
        self.params.clear();
        self.failed = self.failed.take().or(Some(error));
    }

    /// Data came for a parameter that the statement does not have.
    pub fn wrong(&mut self) {
        self.wrong = true;
    }

    /// Whether the statement has been sent data for a parameter that it does not have.
    pub fn is_wrong(&self) -> bool {
        self.wrong
    }

    /// Why the next execution can't have its data.
    pub fn failed(&self) -> Option<&ErrorReply> {
        self.failed.as_ref()
    }

    /// An execution has used it up, or was refused.
    pub fn used(&mut self) {
        *self = LongData { wrong: self.wrong, ..LongData::default() };
    }

    /// COM_STMT_RESET drops it.
    pub fn reset(&mut self) {
        *self = LongData::default();
    }
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
    by_id: HashMap<u32, Box<ClientStatement>, foldhash::fast::RandomState>,
    /// The id that was given last.
    last_id: u32,
    /// The statement that was prepared last, if the last PREPARE succeeded and nobody has closed it.
    last: Option<u32>,
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
        let mut id = self.last_id;
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

    /// A PREPARE begins: if it fails there is no statement prepared last.
    pub fn begin(&mut self) {
        self.last = None;
    }

    /// Adds a statement under the id that [`ClientStatements::next_id`] gave.
    pub fn insert(&mut self, id: u32, statement: ClientStatement) {
        self.last_id = id;
        self.last = Some(id);
        self.bytes += statement.text.sql().len();
        self.by_id.insert(id, Box::new(statement));
    }

    /// The id that a client means by `asked`: with `last`, as MariaDB understands it, -1 names the statement prepared last.
    pub fn find(&self, asked: u32, last: bool) -> Option<u32> {
        let id = if last && asked == u32::MAX { self.last? } else { asked };
        self.by_id.contains_key(&id).then_some(id)
    }

    /// The statement of an id.
    pub fn get(&self, id: u32) -> Option<&ClientStatement> {
        self.by_id.get(&id).map(|s| s.as_ref())
    }

    /// The statement of an id.
    pub fn get_mut(&mut self, id: u32) -> Option<&mut ClientStatement> {
        self.by_id.get_mut(&id).map(|s| s.as_mut())
    }

    /// Whether any statement has an open cursor.
    pub fn any_cursor(&self) -> bool {
        self.by_id.values().any(|statement| statement.cursor)
    }

    /// Whether any statement has long data on the bound server session.
    pub fn any_long_data(&self) -> bool {
        self.by_id.values().any(|statement| statement.long_data.is_pending())
    }

    /// The server session is gone, and what statements had there: cursors are closed, and no statement is executed without the data it was sent.
    pub fn unbound(&mut self, lost_data: &ErrorReply) {
        for statement in self.by_id.values_mut() {
            (statement.cursor, statement.on) = (false, None);
            if statement.long_data.is_pending() {
                statement.long_data.fail(lost_data.clone());
            }
        }
    }

    /// Forgets a statement.
    pub fn remove(&mut self, id: u32) -> Option<Box<ClientStatement>> {
        let removed = self.by_id.remove(&id);
        if let Some(statement) = &removed {
            self.bytes -= statement.text.sql().len();
            self.last = self.last.filter(|last| *last != id);
        }
        removed
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = ClientStatements { last_id: self.last_id, ..ClientStatements::default() };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::baseline::Baseline;
    use crate::session::state::{CharacterSets, SessionState};
    use crate::sql::LexContext;

    fn statement(sql: &'static str) -> ClientStatement {
        let state = SessionState::new(Arc::new(Baseline::default()), CharacterSets::default(), None);
        ClientStatement {
            text: Text::read(Bytes::from_static(sql.as_bytes()), LexContext::default()),
            parsed: Arc::new(state.parse_state(&[])),
            types_unknown: false,
            params: 1,
            columns: 1,
            types: None,
            private: false,
            cursor: false,
            long_data: LongData::default(),
            on: None,
            assigned: None,
            named: None,
        }
    }

    fn lost() -> ErrorReply {
        ErrorReply::new(1105, b"HY000", "lost")
    }

    #[test]
    fn the_last_one_is_gone_with_its_close_and_with_a_prepare_that_fails() {
        let mut all = ClientStatements::default();
        assert_eq!(all.find(u32::MAX, true), None);
        for id in [1, 2] {
            all.begin();
            assert_eq!(all.next_id(), id);
            all.insert(id, statement("SELECT ?"));
            assert_eq!((all.find(u32::MAX, true), all.find(u32::MAX, false)), (Some(id), None));
        }
        all.remove(1);
        assert_eq!(all.find(u32::MAX, true), Some(2), "another one was closed");
        all.begin();
        assert_eq!((all.find(u32::MAX, true), all.find(2, true)), (None, Some(2)), "the next PREPARE has failed");
        all.begin();
        all.insert(3, statement("SELECT ?"));
        all.remove(3);
        assert_eq!((all.find(u32::MAX, true), all.next_id()), (None, 4));
        all.clear();
        assert_eq!((all.find(2, true), all.next_id()), (None, 4));
    }

    #[test]
    fn long_data_is_a_fact_of_its_statement_until_it_is_used_or_told_as_lost() {
        let mut all = ClientStatements::default();
        all.insert(1, statement("SELECT ?"));
        all.insert(2, statement("SELECT ?"));
        let data = |all: &mut ClientStatements, id| all.get_mut(id).map(|s| s.long_data.clone()).unwrap();
        all.get_mut(1).unwrap().long_data.sent(0);
        all.get_mut(2).unwrap().long_data.used();
        assert!(all.any_long_data() && all.get(1).unwrap().is_held() && !all.get(2).unwrap().is_held());
        all.unbound(&lost());
        assert!(!all.any_long_data() && !all.get(1).unwrap().is_held());
        assert!(data(&mut all, 1).failed().is_some() && data(&mut all, 2).failed().is_none());
        // What is sent behind it can't make it whole.
        all.get_mut(1).unwrap().long_data.fail(ErrorReply::new(1, b"HY000", "later"));
        assert_eq!(data(&mut all, 1).failed().map(|e| e.code), Some(1105));
        all.get_mut(1).unwrap().long_data.used();
        assert!(data(&mut all, 1).failed().is_none());
        let wrong = &mut all.get_mut(1).unwrap().long_data;
        wrong.wrong();
        wrong.used();
        assert!(wrong.is_wrong(), "only a reset ends that");
        wrong.reset();
        assert!(!wrong.is_wrong());
    }
}
