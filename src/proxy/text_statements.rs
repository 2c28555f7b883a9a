//! PREPARE, EXECUTE and DEALLOCATE PREPARE under the client's names, on whatever server session executes them.
//!
//! ```text
//!   PREPARE name FROM 'rows …'  ──▶ known here and on the server session; no pin
//!   EXECUTE name                ──▶ prepared in the flight of the replay where it is missing; counts as what it executes
//!   a name nobody here has      ──▶ another client's is deallocated first: the server says that it does not know it
//!   anything else about names   ──▶ all of the client's names and nobody else's are there first; it pins
//! ```

use std::sync::Arc;

use bytes::Bytes;

use crate::pool::flight::Ask;
use crate::protocol::ErrorReply;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::replay::{Entry, Purpose, lent};
use crate::proxy::report::Report;
use crate::proxy::session::ClientSession;
use crate::session::pins::PinReason;
use crate::session::text_statement::{self, Said, TextStatement};
use crate::session::user_variables::Named;
use crate::sql::{Effects, Facts, StatementCount, Verb};

/// Which names a request needs on the server session as they are here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum TextNeed {
    /// None.
    #[default]
    Nothing,
    /// This one.
    One(Arc<str>),
    /// All: code that nobody reads here may use any.
    All,
}

/// What a text does to names once it was answered.
pub(super) enum TextUse {
    /// It prepares this.
    Prepare(Arc<str>, Arc<TextStatement>),
    /// It executes one that is known.
    Execute,
    /// It deallocates this name.
    Deallocate(Arc<str>),
    /// It prepares, under this name, what can't be followed.
    Unfollowed(Arc<str>),
    /// Nobody here knows what it does to names.
    Unread,
}

/// Effects that say PREPARE, EXECUTE or DEALLOCATE.
const OF_TEXT: Effects = Effects::TEXT_PREPARE.union(Effects::TEXT_EXECUTE).union(Effects::TEXT_DEALLOCATE);
/// Effects of code that may do so out of sight.
const OUT_OF_SIGHT: Effects = Effects::ROUTINE.union(Effects::UNKNOWN).union(Effects::CUT_SHORT);

/// What a statement that is no text of names needs: code may use them.
pub(super) fn need_of(facts: &Facts) -> TextNeed {
    if facts.effects.intersects(OF_TEXT.union(OUT_OF_SIGHT)) { TextNeed::All } else { TextNeed::Nothing }
}

impl ClientSession {
    /// Looks at a text before it is served: what it needs, and what it counts as. The facts of an EXECUTE become those of what it executes.
    pub(super) fn about_names(&mut self, sql: &Bytes, facts: &mut Facts) -> Result<Option<TextUse>, ErrorReply> {
        self.of_request.text_need = need_of(facts);
        if self.of_request.text_need == TextNeed::Nothing {
            return Ok(None);
        }
        let alone = facts.statements == StatementCount::One;
        if alone
            && facts.verb == Verb::Prepare
            && let Some((name, sql, source)) = self.prepared_kill(sql)
        {
            if self.names_uncertain {
                return Err(errors::kill_unseen("by a name that code out of sight may have changed"));
            }
            return self.about_prepare(&sql, name, source).map(Some);
        }
        if !facts.effects.intersects(OF_TEXT) || facts.statements != StatementCount::One || self.names_uncertain {
            return Ok(Some(TextUse::Unread));
        }
        let said = text_statement::read(sql, &self.lex_context());
        Ok(Some(match said {
            Some(Said::Prepare { name, source }) => self.about_prepare(sql, name, source)?,
            Some(Said::Execute { name, using }) => match self.text_statements.get(&name).cloned() {
                Some(statement) => {
                    self.of_request.text_need = TextNeed::One(name);
                    self.of_request.named = execution_names(&statement, &using);
                    *facts = statement.facts.clone();
                    // What runs again is looked at by its text, and that is elsewhere.
                    facts.side_effect_free_read = false;
                    TextUse::Execute
                }
                // Nobody here has made it, and another's is taken away: the server says that it does not know the name.
                None if !self.pins.contains(PinReason::TextPrepare) => {
                    self.of_request.text_need = TextNeed::One(name);
                    *facts = Facts { statements: StatementCount::One, verb: Verb::Execute, ..Facts::nothing() };
                    TextUse::Execute
                }
                None => TextUse::Unread,
            },
            Some(Said::Deallocate { name }) => {
                self.of_request.text_need = TextNeed::One(Arc::clone(&name));
                TextUse::Deallocate(name)
            }
            None => TextUse::Unread,
        }))
    }

    /// The name, the whole PREPARE with a plain literal, and the statement, where that is a KILL.
    fn prepared_kill(&self, sql: &Bytes) -> Option<(Arc<str>, Bytes, Vec<u8>)> {
        let cx = self.lex_context();
        let (name, sql, source) = match text_statement::read(sql, &cx) {
            Some(Said::Prepare { name, source }) => (name, sql.clone(), source),
            Some(_) => return None,
            None => {
                let (name, variable) = text_statement::read_prepare_from_variable(sql, &cx)?;
                let source =
                    self.known_text(&variable).filter(|text| !text.contains(&b'\'') && !text.contains(&b'\\'))?;
                let prepare = [b"PREPARE ", name.as_bytes(), b" FROM '", &source, b"'"].concat();
                (name, Bytes::from(prepare), source)
            }
        };
        text_statement::is_kill(&crate::sql::analyse(&source, &cx)).then_some((name, sql, source))
    }

    fn about_prepare(&mut self, sql: &Bytes, name: Arc<str>, source: Vec<u8>) -> Result<TextUse, ErrorReply> {
        let source_facts = crate::sql::analyse(&source, &self.lex_context());
        if source_facts.kill_inside {
            return Err(errors::kill_unseen("among other statements or in a block"));
        }
        if !text_statement::can_follow(&source_facts) && !text_statement::is_kill(&source_facts) {
            return Ok(TextUse::Unfollowed(name));
        }
        let limits = &self.cx.config.session;
        let (count, bytes) = (self.text_statements.len(), self.text_statements.bytes());
        let room = count < limits.prepared_statements_max && bytes + sql.len() <= limits.prepared_bytes_max;
        if !room {
            return Err(errors::too_many_statements());
        }
        let named = crate::session::user_variables::named(&source, &source_facts);
        if self.types_unknown(named.as_deref()) {
            return Ok(TextUse::Unfollowed(name));
        }
        self.of_request.text_need = TextNeed::Nothing;
        self.of_request.follows_name = true;
        let statement = TextStatement {
            prepare: sql.clone(),
            parsed: self.parse_state(named.as_deref()),
            named,
            facts: source_facts,
            source: source.into(),
        };
        Ok(TextUse::Prepare(name, Arc::new(statement)))
    }

    /// After the answer.
    pub(super) fn names_used(&mut self, done: TextUse, effects: Effects, report: &Report) {
        let failed = report.error.is_some();
        match done {
            TextUse::Prepare(name, statement) if !failed => {
                if let Some(lease) = &mut self.lease {
                    lease.text_statements.insert(Arc::clone(&name), Arc::clone(&statement));
                }
                self.text_statements.insert(name, statement);
            }
            // A PREPARE that fails has deallocated what had its name before (observed).
            TextUse::Prepare(name, _) | TextUse::Unfollowed(name) => self.forget_name(&name),
            TextUse::Deallocate(name) if !failed => self.forget_name(&name),
            TextUse::Deallocate(_) | TextUse::Execute => {}
            TextUse::Unread => {
                self.names_uncertain = true;
                if effects.intersects(OF_TEXT) {
                    let mut pins = self.pins;
                    pins.insert(PinReason::TextPrepare);
                    self.set_pins(pins);
                }
                if !self.pins.is_lasting() {
                    // A function that failed to pin can't have touched names: only procedures and blocks can.
                    self.names_uncertain = false;
                }
            }
        }
    }

    fn forget_name(&mut self, name: &str) {
        self.text_statements.remove(name);
        if let Some(lease) = &mut self.lease {
            lease.text_statements.remove(name);
        }
    }

    /// What has to be said so that the names are on the bound server session as they are here.
    pub(super) fn name_entries(&self) -> Result<Vec<Entry>, BindEnd> {
        let (mut entries, Some(lease)) = (Vec::new(), &self.lease) else { return Ok(Vec::new()) };
        if self.of_request.text_need == TextNeed::Nothing || self.names_uncertain {
            return Ok(entries);
        }
        let needed = |name: &Arc<str>| match &self.of_request.text_need {
            TextNeed::Nothing => false,
            TextNeed::One(one) => one == name,
            TextNeed::All => true,
        };
        let room = self.cx.config.pool.prepared_statements_max;
        let mut too_many = (lease.text_statements.len() + self.text_statements.len()).saturating_sub(room);
        for (name, statement) in lease.text_statements.iter() {
            let own = self.text_statements.has(name, statement);
            // One that is replaced needs no DEALLOCATE.
            let replaced = needed(name) && self.text_statements.get(name).is_some();
            if !own && !replaced && (needed(name) || too_many > 0) {
                too_many = too_many.saturating_sub(1);
                let ask = Ask::Query(Bytes::from([b"DEALLOCATE PREPARE ", name.as_bytes()].concat()));
                entries.push(Entry { ask, purpose: Purpose::ForgetName(Arc::clone(name)) });
            }
        }
        for (name, statement) in self.text_statements.iter() {
            if needed(name) && !lease.text_statements.has(name, statement) {
                self.prepare_name(name, statement, &mut entries)?;
            }
        }
        Ok(entries)
    }

    fn prepare_name(
        &self,
        name: &Arc<str>,
        statement: &TextStatement,
        entries: &mut Vec<Entry>,
    ) -> Result<(), BindEnd> {
        let parsed = self.parsed_here(&statement.parsed, &statement.source)?;
        let prepare = Entry { ask: Ask::Query(statement.prepare.clone()), purpose: Purpose::PrepareName(name.clone()) };
        if parsed.is_that_of(&self.state) {
            entries.push(prepare);
            return Ok(());
        }
        let then = self.state.as_parsed(&parsed);
        let impossible = |variable: Arc<str>| BindEnd::Refused(errors::replay_impossible("?", &variable));
        entries.extend(lent(&then, &self.state).map_err(impossible)?);
        entries.push(prepare);
        entries.extend(lent(&self.state, &then).map_err(impossible)?);
        Ok(())
    }

    /// The answer to a PREPARE of [`ClientSession::name_entries`]: its error, if the request is about this name.
    pub(super) fn name_prepared(&mut self, name: &Arc<str>, error: Option<ErrorReply>) -> Option<ErrorReply> {
        let (Some(lease), Some(statement)) = (&mut self.lease, self.text_statements.get(name)) else { return error };
        match error {
            None => {
                lease.text_statements.insert(Arc::clone(name), Arc::clone(statement));
                self.cx.measure.prepared_again();
                None
            }
            Some(error) => {
                lease.text_statements.remove(name);
                matches!(self.of_request.text_need, TextNeed::One(_)).then_some(error)
            }
        }
    }
}

/// The user variables of an execution: those of the statement, and those that USING reads.
fn execution_names(statement: &TextStatement, using: &[Arc<str>]) -> Option<Arc<Named>> {
    if using.is_empty() {
        return statement.named.clone();
    }
    let mut named = statement.named.as_deref().cloned().unwrap_or_default();
    named.known = None;
    for name in using {
        if !named.mentioned.contains(name) {
            named.mentioned.push(Arc::clone(name));
        }
    }
    Some(Arc::new(named))
}
