//! A text together with what was read in it, as one value: no fact is ever applied to a text that it was not read from.

use std::sync::Arc;

use bytes::Bytes;

use super::facts::{Facts, LexContext, VolatileKind};

/// A statement's text and the facts about it. What is made of it is bytes, and no `Text` until it is read itself.
#[derive(Clone, Debug)]
pub struct Text {
    sql: Bytes,
    facts: Arc<Facts>,
    cx: LexContext,
}

impl Text {
    /// Reads a text as the session and server of `cx` would.
    pub fn read(sql: Bytes, cx: LexContext) -> Text {
        let facts = Arc::new(super::analyse(&sql, &cx));
        Text { sql, facts, cx }
    }

    /// The text.
    pub fn sql(&self) -> &Bytes {
        &self.sql
    }

    /// What was read in it.
    pub fn facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// Takes back that the lexer vouches: whether it was read as the server reads it is not known.
    pub fn make_uncertain(&mut self) {
        Arc::make_mut(&mut self.facts).make_uncertain();
    }

    /// The text with values in place of the volatile calls that `answer` has one for; `None` where there are none.
    pub fn answered(&self, answer: impl FnMut(VolatileKind) -> Option<Vec<u8>>) -> Option<Bytes> {
        super::rewrite::answer_volatile(&self.sql, &self.facts, &self.cx, answer).map(Bytes::from)
    }
}
