//! The replay: one flight that makes the bound server session equal to what the client believes, before the client's statement is sent.
//!
//! The flight is a list of entries in the order in which they must happen. Each knows what is said and what its answer, or an error, means; whoever
//! has more to say before a statement adds entries of a purpose of their own. All of them cost one round trip together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::error::Stage;
use crate::failover;
use crate::pool::flight::{Answer, Ask};
use crate::pool::session::ASK_INSERT_ID;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::packet::session_state::{SessionChange, SessionChanges};
use crate::proxy::aloft;
use crate::proxy::bind::BindEnd;
use crate::proxy::errors;
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Missing;
use crate::proxy::text_statements::TextNeed;
use crate::session::effects::InsertIdNeed;
use crate::session::next_transaction::NextTransaction;
use crate::session::plan::{ReplayPlan, Unreachable};
use crate::session::state::SessionState;
use crate::sql::Facts;

/// What an entry is for. An error has the consequence that is named here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Reads the LAST_INSERT_ID() that another client left here. An error: its value is lost to that client, and nothing else is.
    InsertIdOf(u32),
    /// Makes a part of the state equal; it names the part. An error: half of the plan may be in force, so nobody can use the server session.
    State(&'static str),
    /// Clears the messages of others. An error is one of state.
    Diagnostics,
    /// Lends a part of the state to the PREPARE behind it, or takes it back. An error is one of state.
    Lent(&'static str),
    /// Prepares a statement of the client's. An error is the client's; the server session is as good as before.
    Prepare,
    /// Prepares a statement under a name of the client's. An error is the client's, if it asks for that one.
    PrepareName(Arc<str>),
    /// Deallocates a name of somebody else's. It is gone, whatever the answer.
    ForgetName(Arc<str>),
    /// Sets this for the next transaction. An error is one of state.
    NextTransaction(NextTransaction),
}

/// What a flight brought for the client.
#[derive(Default)]
struct Flown {
    /// The answer to [`Purpose::Prepare`].
    prepared: Option<Answer>,
    /// An error that takes the place of the client's statement.
    told: Option<ErrorReply>,
}

/// One statement of the flight.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// What is said.
    pub ask: Ask,
    /// What for.
    pub purpose: Purpose,
}

impl Entry {
    /// An entry that makes `part` of the state equal.
    fn state(part: &'static str, ask: Ask) -> Entry {
        Entry { ask, purpose: Purpose::State(part) }
    }
}

impl ClientSession {
    /// Makes the bound server session equal to what the client believes, in at most one round trip.
    /// `statement`: a prepared statement that has to be there too.
    pub(super) async fn replay(
        &mut self,
        facts: &Facts,
        insert_id: InsertIdNeed,
        statement: Option<u32>,
    ) -> Result<(), BindEnd> {
        if statement.is_some() || self.of_request.text_need != TextNeed::Nothing {
            self.know_types().await?;
        }
        let clear_diagnostics = self.must_clear_messages(facts).map_err(BindEnd::Refused)?;
        let wanted_id = self.wanted_insert_id(insert_id)?;
        let plan = self.plan(wanted_id)?;
        self.check_charsets(&plan)?;
        let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        let unread = lease.unread_insert_id.filter(|other| *other != self.handle.id);
        let multi = self.capabilities.contains(Capabilities::MULTI_STATEMENTS);
        let set_option = (lease.behaviour.contains(Capabilities::MULTI_STATEMENTS) != multi).then_some(multi);
        let equal = plan.is_empty() && unread.is_none() && set_option.is_none() && !clear_diagnostics;
        if !equal {
            lease.last_use = None;
        }
        let missing = match statement {
            Some(id) => self.find_prepared(id)?,
            None => None,
        };
        if let Some(missing) = &missing {
            self.check_parsed(missing)?;
        }
        let names = self.name_entries()?;
        let more = !(equal && missing.is_none() && names.is_empty());
        // Last of all: what belay itself says must not use it up.
        let next = self.next_transaction_entry(more);
        if !more && next.is_none() {
            return Ok(());
        }
        if self.needs_messages(facts) {
            // What belay says could clear the client's own.
            if Box::pin(self.copy_messages()).await == Flow::End {
                return Err(BindEnd::ClientGone);
            }
            return Box::pin(self.replay(facts, insert_id, statement)).await;
        }
        if self.unread_variables.is_held_back() {
            // It would come with an answer to belay's own statements, and make the plan wrong.
            Box::pin(self.ask_variables()).await?;
            return Box::pin(self.replay(facts, insert_id, statement)).await;
        }
        let Some(lease) = &self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        let entries = entries_of(&plan, unread, set_option, clear_diagnostics).and_then(|mut entries| {
            entries.extend(missing.as_ref().map_or(Ok(Vec::new()), |missing| preparing(&self.state, missing))?);
            entries.extend(names);
            entries.extend(next);
            Ok(entries)
        });
        let entries = match entries {
            Ok(entries) => entries,
            // Nothing was said yet: the server session is as it was.
            Err(name) => {
                return Err(BindEnd::Refused(errors::replay_impossible(&self.cx.node_name(lease.node), &name)));
            }
        };
        let flown = Box::pin(self.fly(entries, &plan)).await?;
        let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        lease.state.become_like(&self.state);
        lease.behaviour.set(Capabilities::MULTI_STATEMENTS, multi);
        if let Some(id) = plan.last_insert_id {
            lease.last_insert_id = Some(id);
            lease.unread_insert_id = None;
        }
        self.cx.measure.replayed(&plan);
        match (missing, flown.prepared) {
            _ if flown.told.is_some() => Err(self.told(flown.told)),
            (Some(missing), Some(answer)) => self.prepared_or_again(missing, answer).await,
            _ => Ok(()),
        }
    }

    /// The answer to a PREPARE; where the node was full of statements that nobody needs, the answer to another one.
    async fn prepared_or_again(&mut self, missing: Missing, answer: Answer) -> Result<(), BindEnd> {
        if !answer.error.as_ref().is_some_and(|error| self.make_room(error)) {
            return self.prepared_there(missing, answer);
        }
        let impossible = |variable: Arc<str>| BindEnd::Refused(errors::replay_impossible("?", &variable));
        let entries = preparing(&self.state, &missing).map_err(impossible)?;
        let again = Box::pin(self.fly(entries, &ReplayPlan::default())).await?;
        self.prepared_there(missing, again.prepared.unwrap_or(answer))
    }

    /// What differs between the client and the bound server session.
    fn plan(&self, wanted_id: Option<u64>) -> Result<ReplayPlan, BindEnd> {
        let Some(lease) = &self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        let mut plan = ReplayPlan::between(&self.state, &lease.state).map_err(|why| {
            BindEnd::Refused(errors::value_lost(match why {
                Unreachable::SchemaCannotBeUnset => "the missing default schema",
                Unreachable::VariableCannotBePutBack => "a variable that its login did not know",
                Unreachable::RoleCannotBePutBack => "the role of its login",
            }))
        })?;
        plan.last_insert_id = wanted_id.filter(|id| lease.last_insert_id != Some(*id));
        Ok(plan)
    }

    /// Nothing is said to a node that does not have what it is to be said: a refusal would cost the server session, and so would the next one. The client
    /// is told once, and has the nearest that the node has from now on.
    fn check_charsets(&mut self, plan: &ReplayPlan) -> Result<(), BindEnd> {
        let (Some(sets), Some(lease)) = (&plan.charsets, &self.lease) else { return Ok(()) };
        let snapshot = self.cx.cluster.load();
        let Some(view) = snapshot.node(lease.node) else { return Ok(()) };
        let Some(missing) = view.charsets.collations.lack_of(sets) else { return Ok(()) };
        let error = errors::collation_missing(&view.name, &String::from_utf8_lossy(missing));
        self.state.set_charsets(view.charsets.nearest(sets));
        Err(BindEnd::Refused(error))
    }

    /// The same for the character sets that a statement was prepared under, which are its meaning: there is no nearest.
    fn check_parsed(&self, missing: &Missing) -> Result<(), BindEnd> {
        let Some(lease) =
            self.lease.as_ref().filter(|_| missing.parsed.fingerprint() != self.state.parse_fingerprint())
        else {
            return Ok(());
        };
        let snapshot = self.cx.cluster.load();
        let then = self.state.as_parsed(&missing.parsed);
        match snapshot.node(lease.node).and_then(|view| view.charsets.collations.lack_of(then.charsets())) {
            None => Ok(()),
            Some(lack) => {
                let name = self.cx.node_name(lease.node);
                Err(BindEnd::Refused(errors::prepared_elsewhere(&name, &String::from_utf8_lossy(lack))))
            }
        }
    }

    /// Sends the entries in one write and takes every answer for what it means; that of a PREPARE is handed on.
    async fn fly(&mut self, entries: Vec<Entry>, plan: &ReplayPlan) -> Result<Flown, BindEnd> {
        let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        let mut closes = BytesMut::new();
        lease.prepared.write_closes(&mut closes);
        lease.last_use = None;
        let (asks, purposes): (Vec<Ask>, Vec<Purpose>) = entries.into_iter().map(|e| (e.ask, e.purpose)).unzip();
        let answers = match aloft::fly(&self.io.stream, &self.handle, lease, &closes, &asks).await {
            Ok(answers) => answers,
            Err(error) => {
                tracing::debug!(session = self.handle.id, %error, "a replay did not come back");
                return Err(error.before_statement(BindEnd::Lost(Stage::Replay)));
            }
        };
        let (mut refusal, mut flown) = (None, Flown::default());
        for (purpose, answer) in purposes.into_iter().zip(answers) {
            match &purpose {
                Purpose::Prepare => {
                    flown.prepared = Some(answer);
                    continue;
                }
                Purpose::PrepareName(name) => {
                    flown.told = flown.told.or(self.name_prepared(name, answer.error));
                    continue;
                }
                _ => {}
            }
            if matches!(purpose, Purpose::State(_))
                && let Some((name, value)) = contradicted(plan, &answer)
            {
                return Err(BindEnd::Refused(self.not_as_wanted(name, value)));
            }
            if let Some(refused) = self.landed(purpose, answer) {
                // What comes behind the first refusal may be a consequence of it.
                refusal = refusal.or(Some(refused));
            }
        }
        match refusal {
            None => Ok(flown),
            // The node went out of service between the binding and now: nothing was lost with it.
            Some((_, error)) if self.is_node_not_ready(&error) => Err(BindEnd::Lost(Stage::Replay)),
            Some((part, error)) => Err(BindEnd::Refused(self.half_replayed(part, &error))),
        }
    }

    /// One answer. What it returns makes the server session useless: the part of the state, and the node's error.
    fn landed(&mut self, purpose: Purpose, answer: Answer) -> Option<(&'static str, ErrorReply)> {
        match purpose {
            Purpose::InsertIdOf(other) => {
                let lease = self.lease.as_mut()?;
                let id = answer.single().and_then(|v| std::str::from_utf8(v).ok()?.parse().ok());
                lease.unread_insert_id = None;
                lease.last_insert_id = id;
                self.cx.insert_id_read(other, lease.serial, id);
                None
            }
            Purpose::State(part) | Purpose::Lent(part) => answer.error.map(|error| (part, error)),
            Purpose::ForgetName(name) => {
                self.lease.as_mut()?.text_statements.remove(&name);
                None
            }
            Purpose::Prepare | Purpose::PrepareName(_) => None,
            Purpose::Diagnostics => answer.error.map(|error| ("diagnostics", error)),
            Purpose::NextTransaction(next) => {
                self.next_transaction_there(next, &answer).map(|error| ("next transaction", error))
            }
        }
    }

    /// An error of a PREPARE, as the end of a binding.
    fn told(&self, error: Option<ErrorReply>) -> BindEnd {
        match error {
            Some(error) if !self.is_node_not_ready(&error) => BindEnd::Refused(error),
            _ => BindEnd::Lost(Stage::Replay),
        }
    }

    pub(super) fn is_node_not_ready(&self, error: &ErrorReply) -> bool {
        let flavor = self.lease.as_ref().map(|l| l.conn.flavor);
        flavor.is_some_and(|flavor| failover::meaning(flavor, error) == failover::Meaning::NotReady)
    }

    /// Half of the plan may be in force: this server session is of no use to anybody.
    fn half_replayed(&mut self, part: &'static str, error: &ErrorReply) -> ErrorReply {
        let name = self.lease.as_ref().map_or_else(|| "?".into(), |lease| self.cx.node_name(lease.node));
        self.throw_away_replayed();
        if aloft::is_interruption(error) {
            return error.clone();
        }
        errors::replay_refused(&name, part, error)
    }

    /// The node took a value and made another of it. The client is told once, and has that value from now on; the server session is not known well
    /// enough to be used by anybody.
    fn not_as_wanted(&mut self, variable: &Arc<str>, value: Bytes) -> ErrorReply {
        self.state.set(variable, &value);
        let name = self.lease.as_ref().map_or_else(|| "?".into(), |lease| self.cx.node_name(lease.node));
        self.throw_away_replayed();
        errors::replay_differs(&name, variable)
    }

    /// A transaction or a pin may have kept it: the client's next request tells what went with it.
    fn throw_away_replayed(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.server_session_gone(&lease);
            self.lost_lease(lease, Stage::Replay);
        }
    }
}

/// The variable that a node made another value of than the plan's, and that value.
fn contradicted<'a>(plan: &'a ReplayPlan, answer: &Answer) -> Option<(&'a Arc<str>, Bytes)> {
    if plan.variables.is_empty() {
        return None;
    }
    SessionChanges::new(&answer.session_state).flatten().find_map(|change| match change {
        SessionChange::SystemVariable { name, value } => {
            plan.contradicted(name, value).map(|planned| (planned, Bytes::copy_from_slice(value)))
        }
        _ => None,
    })
}

/// What prepares a statement in the state that it was understood by; the name of the variable that can't be put back, if one can't.
fn preparing(state: &SessionState, missing: &Missing) -> Result<Vec<Entry>, Arc<str>> {
    let prepare = Entry { ask: Ask::Prepare(missing.key.sql.clone()), purpose: Purpose::Prepare };
    if missing.parsed.is_that_of(state) {
        return Ok(vec![prepare]);
    }
    let then = state.as_parsed(&missing.parsed);
    let mut entries = lent(&then, state)?;
    entries.push(prepare);
    entries.extend(lent(state, &then)?);
    Ok(entries)
}

/// What leads from one state to the other. That a schema can't be given up was seen to before.
pub(super) fn lent(want: &SessionState, have: &SessionState) -> Result<Vec<Entry>, Arc<str>> {
    let plan = ReplayPlan::between(want, have).unwrap_or_default();
    let mut entries = Vec::with_capacity(2);
    if let Some(schema) = &plan.schema {
        entries.push(Entry { ask: Ask::InitDb(schema.clone()), purpose: Purpose::Lent("schema") });
    }
    if let Some(set) = plan.set_statement().map_err(|e| e.name)? {
        entries.push(Entry { ask: Ask::Query(Bytes::from(set)), purpose: Purpose::Lent("variables") });
    }
    Ok(entries)
}

/// What is said before the client's statement; the name of the variable that can't be put back, if one can't.
///
/// What others left is read before anything could change it; their messages are cleared last.
fn entries_of(
    plan: &ReplayPlan,
    unread: Option<u32>,
    set_option: Option<bool>,
    clear_diagnostics: bool,
) -> Result<Vec<Entry>, Arc<str>> {
    let mut entries = Vec::with_capacity(3);
    if let Some(other) = unread {
        let ask = Ask::Query(Bytes::from_static(ASK_INSERT_ID));
        entries.push(Entry { ask, purpose: Purpose::InsertIdOf(other) });
    }
    if let Some(role) = &plan.role {
        // First: it may be what the schema is open to.
        let ask = Ask::Query(Bytes::from([b"SET ROLE ", role.as_ref()].concat()));
        entries.push(Entry::state("role", ask));
    }
    if let Some(schema) = &plan.schema {
        entries.push(Entry::state("schema", Ask::InitDb(schema.clone())));
    }
    if let Some(set) = plan.set_statement().map_err(|e| e.name)? {
        entries.push(Entry::state("variables", Ask::Query(Bytes::from(set))));
    }
    if let Some(on) = set_option {
        entries.push(Entry::state("several statements", Ask::SetOption(u16::from(!on))));
    }
    if clear_diagnostics {
        entries.push(Entry { ask: Ask::ClearMessages, purpose: Purpose::Diagnostics });
    }
    Ok(entries)
}
