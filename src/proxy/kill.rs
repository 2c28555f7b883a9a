//! KILL: the id is belay's; what is killed is the server session that works for that client now.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::pool::flight;
use crate::pool::flight::Ask;
use crate::pool::server_conn::ServerConn;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::protocol::mysql::parameter::as_integer;
use crate::protocol::mysql::prepared::ExecuteHeader;
use crate::proxy::aloft::{self, NotLanded};
use crate::proxy::context::Context;
use crate::proxy::errors;
use crate::proxy::registry::{SessionHandle, signal};
use crate::proxy::session::{ClientSession, Flow};
use crate::proxy::statements::Execution;
use crate::proxy::wire::RequestHead;
use crate::session::statement::ClientStatement;
use crate::session::text_statement::{self, Immediate, Source, Value};
use crate::sql::kill::{Operand, evaluate};
use crate::sql::{Facts, Flavor as LexFlavor, Kill, KillTarget, StatementCount, Verb};
use crate::topology::NodeId;

/// A KILL takes at most this long on a node.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// Why a KILL was not carried out on a node.
#[derive(Debug)]
pub enum KillError {
    /// No connection to the node, or it broke.
    Unreachable(String),
    /// The node refused.
    Refused(ErrorReply),
}

impl fmt::Display for KillError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KillError::Unreachable(why) => write!(f, "the node can't be reached: {why}"),
            KillError::Refused(error) => write!(f, "the node refused: {error}"),
        }
    }
}

/// One connection per node for KILLs, as the monitor account, opened when it is first needed. It takes no place of any client's account.
#[derive(Debug)]
pub struct Killer {
    connections: Vec<Mutex<Option<ServerConn>>>,
}

impl Killer {
    /// For this many nodes.
    pub fn new(nodes: usize) -> Killer {
        Killer { connections: (0..nodes).map(|_| Mutex::new(None)).collect() }
    }

    /// KILL QUERY.
    pub async fn kill_query(&self, cx: &Context, node: NodeId, thread_id: u32) -> Result<(), KillError> {
        self.run(cx, node, format!("KILL QUERY {thread_id}")).await
    }

    /// KILL of the whole connection.
    pub async fn kill_connection(&self, cx: &Context, node: NodeId, thread_id: u32) -> Result<(), KillError> {
        self.run(cx, node, format!("KILL {thread_id}")).await
    }

    async fn run(&self, cx: &Context, node: NodeId, sql: String) -> Result<(), KillError> {
        let Some(slot) = self.connections.get(node.index()) else {
            return Err(KillError::Unreachable("no such node".into()));
        };
        let work = async {
            let mut slot = slot.lock().await;
            for fresh in [false, true] {
                let mut conn = match slot.take() {
                    Some(conn) if !fresh => conn,
                    _ => cx.dial_as_monitor(node).await.map_err(|e| KillError::Unreachable(e.to_string()))?,
                };
                match flight::fly(&mut conn, b"", &[Ask::Query(Bytes::from(sql.clone()))]).await {
                    Ok(answers) => {
                        *slot = Some(conn);
                        return match answers.into_iter().find_map(|a| a.error) {
                            // The thread is gone already: nothing runs, as was wanted.
                            Some(error) if error.code == 1094 => Ok(()),
                            Some(error) => Err(KillError::Refused(error)),
                            None => Ok(()),
                        };
                    }
                    Err(error) if fresh => return Err(KillError::Unreachable(error.to_string())),
                    // The connection may have idled too long or its node restarted: a KILL may be said twice.
                    Err(_) => {}
                }
            }
            Err(KillError::Unreachable("the connection broke".into()))
        };
        tokio::time::timeout(KILL_TIMEOUT, work)
            .await
            .unwrap_or_else(|_| Err(KillError::Unreachable("no answer in time".into())))
    }
}

/// A KILL whose id is still to be found out.
pub(super) struct PlannedKill {
    /// The text that it stands in.
    pub text: Bytes,
    /// What the lexer saw.
    pub kill: Kill,
    /// What stands for its `?`.
    pub parameters: Vec<Value>,
}

impl ClientSession {
    /// KILL as a statement, or by way of EXECUTE or EXECUTE IMMEDIATE; `None`: the statement in the buffer is none.
    pub(super) fn plan_kill(&self, facts: &Facts, head: RequestHead) -> Option<Result<PlannedKill, ErrorReply>> {
        let end = head.header.frame_len().min(self.io.read_buf.len());
        let sql = self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default();
        if facts.kill_inside {
            // Without the capability the server refuses several statements itself.
            let several = matches!(facts.statements, StatementCount::Several(_));
            let runs = !several || self.lex_context().multi_statements;
            return runs.then(|| Err(errors::kill_unseen("among other statements or in a block")));
        }
        match facts.verb {
            Verb::Execute => self.plan_execute(sql),
            Verb::ExecuteImmediate if matches!(self.lex_flavor, LexFlavor::MariaDb { .. }) => self.plan_immediate(sql),
            _ => {
                let kill = facts.kill.filter(|_| facts.statements == StatementCount::One)?;
                Some(Ok(PlannedKill { text: Bytes::copy_from_slice(sql), kill, parameters: Vec::new() }))
            }
        }
    }

    fn plan_execute(&self, sql: &[u8]) -> Option<Result<PlannedKill, ErrorReply>> {
        let (name, parameters) = text_statement::read_execution(sql, &self.lex_context())?;
        let statement = self.text_statements.get(&name).filter(|s| text_statement::is_kill(&s.facts))?;
        if self.names_uncertain {
            return Some(Err(errors::kill_unseen("by a name that code out of sight may have changed")));
        }
        let mariadb = matches!(self.lex_flavor, LexFlavor::MariaDb { .. });
        if !mariadb && parameters.iter().any(|value| matches!(value, Value::Integer(_))) {
            // A syntax error there.
            return None;
        }
        Some(Ok(PlannedKill { text: statement.source.clone(), kill: statement.facts.kill?, parameters }))
    }

    fn plan_immediate(&self, sql: &[u8]) -> Option<Result<PlannedKill, ErrorReply>> {
        let cx = self.lex_context();
        let Immediate { source, using } = text_statement::read_immediate(sql, &cx)?;
        let source = match source {
            Source::Text(text) => text,
            Source::Variable(name) => self.known_text(&name)?,
        };
        let facts = crate::sql::analyse(&source, &cx);
        if facts.kill_inside {
            return Some(Err(errors::kill_unseen("in a block")));
        }
        let kill = facts.kill.filter(|_| text_statement::is_kill(&facts))?;
        Some(Ok(PlannedKill { text: source.into(), kill, parameters: using }))
    }

    /// What a user variable holds, if it is a text and belay knows it.
    pub(super) fn known_text(&self, name: &str) -> Option<Vec<u8>> {
        let known = !self.unread.iter().any(|unread| &**unread == name);
        self.state.user_variables().get(name).filter(|_| known)?.as_text()
    }

    /// Finds out whom it is for, and kills.
    pub(super) async fn kill(&mut self, head: RequestHead, planned: PlannedKill) -> Flow {
        let id = match self.id_to_kill(&planned).await {
            Ok(Ok(id)) => id,
            Ok(Err(error)) => return self.refuse(head, error).await,
            Err(Gone) => return Flow::End,
        };
        if self.skip_request(head).await == Flow::End {
            return Flow::End;
        }
        self.kill_id(id, planned.kill.query_only).await
    }

    /// Whom it is for. The inner error is the client's to hear.
    async fn id_to_kill(&mut self, planned: &PlannedKill) -> Result<Result<u64, ErrorReply>, Gone> {
        let span = match planned.kill.target {
            KillTarget::Id(id) if planned.parameters.is_empty() => return Ok(Ok(self.as_servers_read(id))),
            KillTarget::Id(_) => return Ok(Err(errors::wrong_arguments("EXECUTE"))),
            KillTarget::QueryId(_) => return Ok(Err(errors::kill_unseen("by query id"))),
            KillTarget::User(_) => return Ok(Err(errors::kill_unseen("by user"))),
            KillTarget::Expression(span) => span,
        };
        let names = match self.names_in(span.of(&planned.text), planned) {
            Ok(names) => names,
            Err(error) => return Ok(Err(error)),
        };
        let (mut variables, mut values) = (Vec::new(), Vec::new());
        for name in &names {
            match self.integer_in(name).await? {
                Ok(value) => variables.push(value),
                Err(error) => return Ok(Err(error)),
            }
        }
        for parameter in &planned.parameters {
            match parameter {
                Value::Integer(value) => values.push(*value),
                Value::Variable(name) => match self.integer_in(name).await? {
                    Ok(value) => values.push(value),
                    Err(error) => return Ok(Err(error)),
                },
            }
        }
        Ok(self.id_of(span.of(&planned.text), variables, values))
    }

    /// The user variables that an expression names, in its order; an error where belay can't evaluate it, or where parameters are missing.
    fn names_in(&self, expression: &[u8], planned: &PlannedKill) -> Result<Vec<Arc<str>>, ErrorReply> {
        let (mut names, mut parameters) = (Vec::new(), 0);
        let mut mentions = |operand: Operand<'_>| {
            match operand {
                Operand::ConnectionId => {}
                Operand::Variable(name) => names.push(variable_name(name)?),
                Operand::Parameter => parameters += 1,
            }
            Some(0)
        };
        evaluate(expression, &self.lex_context(), &mut mentions).ok_or_else(unevaluated)?;
        if parameters != planned.parameters.len() {
            return Err(errors::wrong_arguments("EXECUTE"));
        }
        Ok(names)
    }

    fn id_of(&self, expression: &[u8], variables: Vec<i128>, values: Vec<i128>) -> Result<u64, ErrorReply> {
        let (own, mut variables, mut values) = (self.handle.id, variables.into_iter(), values.into_iter());
        let mut value = |operand: Operand<'_>| match operand {
            Operand::ConnectionId => Some(i128::from(own)),
            Operand::Variable(_) => variables.next(),
            Operand::Parameter => values.next(),
        };
        let value = evaluate(expression, &self.lex_context(), &mut value).ok_or_else(unevaluated)?;
        // A negative number is the large one of the same bits.
        let bits = u64::try_from(value).ok().or_else(|| i64::try_from(value).ok().map(i64::cast_unsigned));
        bits.map(|id| self.as_servers_read(id)).ok_or_else(unevaluated)
    }

    /// MySQL looks at the lower 32 bits only (observed).
    fn as_servers_read(&self, id: u64) -> u64 {
        if matches!(self.lex_flavor, LexFlavor::MySql { .. }) { id & u64::from(u32::MAX) } else { id }
    }

    /// What a user variable holds, as an integer: as belay knows it, or where it is.
    async fn integer_in(&mut self, name: &Arc<str>) -> Result<Result<i128, ErrorReply>, Gone> {
        let unseen = || errors::kill_unseen("with a user variable that holds no integer");
        let there = self.pins.is_lasting() || self.unread.contains(name);
        let Some(lease) = self.lease.as_mut().filter(|_| there) else {
            return Ok(self.state.user_variables().get(name).map_or(Some(0), |v| v.as_integer()).ok_or_else(unseen));
        };
        lease.last_use = None;
        let asks = [Ask::Query(Bytes::from(format!("SELECT @`{name}`")))];
        let answer = match aloft::fly(&self.io.stream, &self.handle, lease, b"", &asks).await {
            Ok(mut answers) => {
                self.take_held_back(&answers);
                answers.pop()
            }
            Err(NotLanded::ClientGone) => return Err(Gone),
            Err(error) => {
                self.cx.cluster.suspect(lease.node);
                self.lose_bound();
                return Ok(Err(errors::kill_failed(&error.to_string())));
            }
        };
        Ok(match answer {
            Some(answer) if answer.error.is_none() => match answer.rows.first().and_then(|row| row.first()) {
                Some(None) => Ok(0),
                Some(Some(text)) => {
                    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).ok_or_else(unseen)
                }
                None => Err(unseen()),
            },
            Some(answer) => Err(answer.error.unwrap_or_else(unseen)),
            None => Err(unseen()),
        })
    }

    /// An execution of a prepared KILL; `None`: this statement is none.
    pub(super) fn plan_prepared_kill(
        &self,
        head: RequestHead,
        id: u32,
        execution: Execution,
    ) -> Option<Result<PlannedKill, ErrorReply>> {
        let statement = self.statements.get(id)?;
        let facts = statement.text.facts();
        if facts.kill_inside {
            return Some(Err(errors::kill_unseen("in a block")));
        }
        let kill = facts.kill?;
        if execution != Execution::Single {
            return Some(Err(errors::kill_unseen("in bulk")));
        }
        if statement.params > 1 {
            return Some(Err(errors::kill_unseen("with several parameters")));
        }
        let end = head.header.frame_len().min(self.io.read_buf.len());
        let payload = self.io.read_buf.get(HEADER_BYTES..end).unwrap_or_default();
        let header = ExecuteHeader::parse(payload, statement.params, false).ok()?;
        let mut parameters = Vec::new();
        if statement.params == 1 {
            match parameter(statement, &header, payload) {
                Some(value) => parameters.push(Value::Integer(value)),
                None => return Some(Err(errors::kill_unseen("with a parameter that is no number"))),
            }
        }
        Some(Ok(PlannedKill { text: statement.text.sql().clone(), kill, parameters }))
    }

    /// COM_PROCESS_KILL.
    pub(super) async fn process_kill(&mut self, head: RequestHead) -> Flow {
        let payload = self.take_payload(head);
        let Some(id) = payload.get(1..5).and_then(|b| <[u8; 4]>::try_from(b).ok()).map(u32::from_le_bytes) else {
            return self.reply_error(&errors::malformed("COM_PROCESS_KILL")).await;
        };
        self.kill_id(u64::from(id), false).await
    }

    async fn kill_id(&mut self, id: u64, query_only: bool) -> Flow {
        let target = u32::try_from(id).ok().and_then(|id| self.cx.registry.get(id));
        let Some(target) = target else { return self.reply_error(&errors::no_such_thread(id)).await };
        if target.account().as_ref() != Some(&self.account) && !self.cx.may_kill_others(&self.account) {
            return self.reply_error(&errors::kill_denied(id)).await;
        }
        if target.id == self.handle.id {
            return self.kill_self(query_only).await;
        }
        let killed =
            if query_only { kill_statement(&self.cx, &target).await } else { kill_session(&self.cx, &target).await };
        self.cx.measure.kill(killed.is_ok());
        match killed {
            Ok(()) => self.reply_ok().await,
            Err(error) => self.reply_error(&errors::kill_failed(&error.to_string())).await,
        }
    }

    /// A client that kills itself gets the interruption as its answer, as on a server.
    async fn kill_self(&mut self, query_only: bool) -> Flow {
        let mariadb = matches!(self.lex_flavor, LexFlavor::MariaDb { .. });
        let error = if mariadb && !query_only { errors::connection_killed() } else { errors::killed() };
        let flow = self.reply_error(&error).await;
        if query_only { flow } else { Flow::End }
    }
}

/// The client is gone, or killed.
struct Gone;

fn unevaluated() -> ErrorReply {
    errors::kill_unseen("of an expression that it can't evaluate")
}

/// The one parameter of an execution as a number; NULL is 0, as servers take it. `None`: it is none.
fn parameter(statement: &ClientStatement, header: &ExecuteHeader, payload: &[u8]) -> Option<i128> {
    let null = payload.get(header.null_bitmap.clone()).and_then(|bits| bits.first()).is_none_or(|b| b & 1 == 1);
    if null {
        return Some(0);
    }
    let [kind, sign, ..] = statement.types.as_deref()? else { return None };
    as_integer(*kind, sign & 0x80 != 0, payload.get(header.values_start..).unwrap_or_default())
}

/// The name of a user variable as belay knows it; `None` for one that it does not follow.
fn variable_name(name: &[u8]) -> Option<Arc<str>> {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$' | b'.');
    let plain = !name.is_empty() && name.iter().all(plain);
    plain.then(|| std::str::from_utf8(name).ok().map(|name| Arc::from(name.to_ascii_lowercase()))).flatten()
}

/// Kills what runs for a session now, and nothing else: while the KILL is on its way the server session stays marked, so it is never handed on.
async fn kill_statement(cx: &Context, target: &SessionHandle) -> Result<(), KillError> {
    let server = {
        let mut running = target.running();
        match running.target {
            Some(server) if running.busy => {
                running.kills_in_flight += 1;
                running.tainted = true;
                server
            }
            // Nothing runs: nothing is to be killed.
            _ => return Ok(()),
        }
    };
    let killed = cx.killer.kill_query(cx, server.node, server.thread_id).await;
    let mut running = target.running();
    running.kills_in_flight = running.kills_in_flight.saturating_sub(1);
    killed
}

async fn kill_session(cx: &Context, target: &Arc<SessionHandle>) -> Result<(), KillError> {
    // The session's own task ends it: it closes the client and cleans the server session, killing what runs there.
    let killed = kill_statement(cx, target).await;
    target.signal(signal::KILLED);
    killed
}
