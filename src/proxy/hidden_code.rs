//! A look at the code of a node that no text shows, before a statement is run again or a read is sent to a reader: as the monitor account, once a second
//! for all sessions, and for those that need a newer one at most ten times a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::failover::hidden::{Hidden, may_read_table};
use crate::failover::{self, Statement};
use crate::pool::flight::{self, Answer, Ask};
use crate::pool::server_conn::ServerConn;
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::proxy::bind::while_client_stays;
use crate::proxy::context::Context;
use crate::proxy::execute::{Kind, Request};
use crate::proxy::session::ClientSession;
use crate::proxy::text_statements::TextNeed;
use crate::sql::{Facts, StatementClass};
use crate::topology::NodeId;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// A node is not asked more often than this, whatever sessions define.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// A node gets this long to answer.
const ASK_MAX: Duration = Duration::from_secs(5);
/// With more views, or tables that have triggers, than this nothing is run again that could meet one.
const NAMES_MAX: usize = 10_000;

/// Counts stored functions; the first column says whether the account sees all of them.
const FUNCTIONS_MARIADB: &str =
    "SELECT 1, COUNT(*) FROM mysql.proc WHERE type IN ('FUNCTION','PACKAGE BODY') AND db NOT IN ('sys','mysql')";
const FUNCTIONS_MYSQL: &str = "SELECT (SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE \
     PRIVILEGE_TYPE='SHOW_ROUTINE' AND REPLACE(GRANTEE,'''','')=CURRENT_USER()), (SELECT COUNT(*) FROM \
     information_schema.ROUTINES WHERE ROUTINE_TYPE='FUNCTION' AND ROUTINE_SCHEMA NOT IN ('sys','mysql'))";
/// Whether the account sees all views.
const SEES_VIEWS: &str = "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE='SHOW VIEW' AND \
     REPLACE(GRANTEE,'''','')=CURRENT_USER()";
const VIEWS: &str = "SELECT DISTINCT LOWER(TABLE_NAME) FROM information_schema.TABLES WHERE TABLE_TYPE='VIEW' AND TABLE_SCHEMA \
     NOT IN ('sys','mysql','information_schema','performance_schema') LIMIT 10001";

/// Whether the account sees all triggers.
const SEES_TRIGGERS: &str = "SELECT COUNT(*) FROM information_schema.USER_PRIVILEGES WHERE PRIVILEGE_TYPE='TRIGGER' AND \
     REPLACE(GRANTEE,'''','')=CURRENT_USER()";
const TRIGGERS: &str = "SELECT DISTINCT LOWER(EVENT_OBJECT_TABLE) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA NOT IN \
     ('sys','mysql','information_schema','performance_schema') LIMIT 10001";

/// Tables whose writes outlive the rollback of a statement that is refused in its middle. Who may see views sees all tables, too.
const NOT_ROLLED_BACK: &str = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_TYPE NOT LIKE '%VIEW' AND TABLE_SCHEMA NOT IN \
     ('sys','mysql','information_schema','performance_schema') AND IFNULL(ENGINE,'') NOT IN (SELECT ENGINE FROM \
     information_schema.ENGINES WHERE TRANSACTIONS='YES')";

/// What kind of code is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    /// Stored functions, which views may call.
    Functions,
    /// Triggers.
    Triggers,
}

/// What was seen last, by the index of the node.
#[derive(Debug)]
pub struct HiddenCode {
    functions: Box<[Mutex<Option<Look>>]>,
    triggers: Box<[Mutex<Option<Look>>]>,
}

/// One look at one node.
#[derive(Debug)]
struct Look {
    /// When it began: what was there before is in it.
    began: Instant,
    hidden: Arc<Hidden>,
}

/// Which look is good enough.
#[derive(Clone, Copy, Debug)]
enum Since {
    /// One of the last second.
    Lately,
    /// One that began after this; whoever asks can't wait for the next one.
    After(Instant),
    /// One that began after this, and is waited for.
    AwaitedAfter(Instant),
}

impl HiddenCode {
    /// Nothing was seen yet of any of so many nodes.
    pub fn new(nodes: usize) -> HiddenCode {
        let none = || (0..nodes).map(|_| Mutex::new(None)).collect();
        HiddenCode { functions: none(), triggers: none() }
    }

    /// What this node hides; `Err` if it could not be asked, or was asked too often already.
    async fn look(&self, cx: &Context, node: NodeId, code: Code, since: Since) -> Result<Arc<Hidden>, String> {
        let seen = match code {
            Code::Functions => &self.functions,
            Code::Triggers => &self.triggers,
        };
        let Some(seen) = seen.get(node.index()) else { return Err("no such node".into()) };
        // Held while the node is asked, so that a thousand sessions ask once. No statement waits for it but those that may only run where nothing
        // is hidden.
        let mut seen = seen.lock().await;
        if let Some(look) = &*seen {
            let recent = match since {
                Since::Lately => true,
                Since::After(since) | Since::AwaitedAfter(since) => look.began > since,
            };
            if recent && look.began.elapsed() < BELIEVED {
                return Ok(look.hidden.clone());
            }
            if !recent && look.began.elapsed() < ASK_AGAIN {
                let Since::AwaitedAfter(_) = since else {
                    return Err("the session may have defined a view a moment ago".into());
                };
                tokio::time::sleep(ASK_AGAIN.saturating_sub(look.began.elapsed())).await;
            }
        }
        let began = Instant::now();
        let asked = tokio::time::timeout(ASK_MAX, ask(cx, node, code)).await;
        let hidden = Arc::new(asked.map_err(|_| "no answer in time")??);
        if let Hidden::Unknown(why) = &*hidden
            && seen.as_ref().is_none_or(|look| look.hidden != hidden)
        {
            let node = cx.node_name(node);
            match code {
                Code::Functions => {
                    tracing::warn!(%node, why, "reads neither run again after a loss nor go to readers: what views hide can't be ruled out");
                }
                Code::Triggers => {
                    tracing::warn!(%node, why, "what a node refuses to write is not tried elsewhere: what triggers did can't be ruled out");
                }
            }
        }
        *seen = Some(Look { began, hidden: hidden.clone() });
        Ok(hidden)
    }
}

async fn ask(cx: &Context, node: NodeId, code: Code) -> Result<Hidden, String> {
    let mut conn = cx.dial_as_monitor(node).await.map_err(|e| e.to_string())?;
    let mut names = Vec::new();
    match code {
        Code::Functions => {
            let functions = match conn.flavor {
                Flavor::MariaDb => FUNCTIONS_MARIADB,
                Flavor::MySql => FUNCTIONS_MYSQL,
                Flavor::OceanBase => return Ok(Hidden::Unknown("not looked for on OceanBase")),
            };
            let functions = conn.query(functions).await.map_err(|e| e.to_string())?;
            match (number(&functions, 0), number(&functions, 1)) {
                (Some(1..), Some(0)) => return Ok(Hidden::Nothing),
                (Some(1..), Some(_)) => {}
                _ => return Ok(Hidden::Unknown("the monitor account does not see all stored functions")),
            }
        }
        Code::Triggers => {
            let asks = [SEES_TRIGGERS, TRIGGERS].map(|sql| Ask::Query(Bytes::from_static(sql.as_bytes())));
            let answers = flight::fly(&mut conn, b"", &asks).await.map_err(|e| e.to_string())?;
            let [sees, tables] = answers.as_slice() else { return Err("an answer is missing".into()) };
            if number(sees, 0).unwrap_or(0) == 0 {
                return unseen_triggers(&mut conn).await;
            }
            if tables.error.is_some() || tables.rows.len() > NAMES_MAX {
                return Ok(Hidden::Unknown("the tables that have triggers can't be listed, or are too many"));
            }
            names.extend(tables.rows.iter().map(|row| name(row)));
            if names.is_empty() {
                return Ok(Hidden::Nothing);
            }
        }
    }
    // A view may call any of these functions, and be written through to any of these tables.
    let asks = [SEES_VIEWS, VIEWS].map(|sql| Ask::Query(Bytes::from_static(sql.as_bytes())));
    let answers = flight::fly(&mut conn, b"", &asks).await.map_err(|e| e.to_string())?;
    let [sees, views] = answers.as_slice() else { return Err("an answer is missing".into()) };
    if number(sees, 0).unwrap_or(0) == 0 {
        return Ok(Hidden::Unknown(
            "there are stored functions or triggers, and the monitor account does not see all views",
        ));
    }
    if views.error.is_some() || views.rows.len() > NAMES_MAX {
        return Ok(Hidden::Unknown("the views can't be listed, or are too many"));
    }
    names.extend(views.rows.iter().map(|row| name(row)));
    Ok(Hidden::Behind(names))
}

/// Where triggers can't be seen: whatever they write is rolled back with the statement that was refused, if every table is of an engine that does so.
async fn unseen_triggers(conn: &mut ServerConn) -> Result<Hidden, String> {
    let asks = [SEES_VIEWS, NOT_ROLLED_BACK].map(|sql| Ask::Query(Bytes::from_static(sql.as_bytes())));
    let answers = flight::fly(conn, b"", &asks).await.map_err(|e| e.to_string())?;
    let [sees, tables] = answers.as_slice() else { return Err("an answer is missing".into()) };
    Ok(match (number(sees, 0), number(tables, 0)) {
        (Some(1..), Some(0)) => Hidden::Nothing,
        _ => Hidden::Unknown(
            "the monitor account does not see all triggers, and there are tables that roll nothing back",
        ),
    })
}

fn name(row: &[Option<Bytes>]) -> String {
    row.first().and_then(Option::as_ref).map(|name| String::from_utf8_lossy(name).into_owned()).unwrap_or_default()
}

fn number(answer: &Answer, column: usize) -> Option<u64> {
    std::str::from_utf8(answer.rows.first()?.get(column)?.as_ref()?).ok()?.parse().ok()
}

impl ClientSession {
    /// The texts that a request runs; `None` if some code that it runs is in none of them.
    pub(super) fn texts_of(&self, request: &Request<'_>) -> Option<Vec<Bytes>> {
        match request.kind {
            // No SQL text.
            Kind::Other => Some(Vec::new()),
            Kind::Statement { id, .. } => self.statements.get(id).map(|s| vec![s.text.sql().clone()]),
            Kind::Text => {
                let end = FrameHeader::parse(&self.io.read_buf).map_or(0, FrameHeader::frame_len);
                let mut texts = vec![Bytes::copy_from_slice(self.io.read_buf.get(HEADER_BYTES + 1..end)?)];
                match &self.of_request.text_need {
                    TextNeed::Nothing => {}
                    // What an EXECUTE executes is elsewhere.
                    TextNeed::One(name) => texts.extend(self.text_statements.get(name).map(|s| s.source.clone())),
                    TextNeed::All => return None,
                }
                Some(texts)
            }
        }
    }

    /// Whether a statement that is to run again, which became due at `since`, may run code that its texts do not show; `Err` if this node could not be
    /// asked. Whatever its verb: what may run again by its own text is not looked at only where no table or view can be in it.
    pub(super) async fn hides_code(
        &self,
        facts: &Facts,
        texts: Option<&[Bytes]>,
        node: NodeId,
        since: Instant,
    ) -> Result<bool, String> {
        let Some(texts) = texts else { return Ok(true) };
        if texts.is_empty() {
            return Ok(false);
        }
        let harmless = matches!(failover::statement(facts), Statement::Repeatable | Statement::Begins);
        if harmless && !texts.iter().any(|text| may_read_table(text)) {
            return Ok(false);
        }
        let since = Since::AwaitedAfter(since);
        let functions = self.cx.hidden_code.look(&self.cx, node, Code::Functions, since).await?;
        if texts.iter().any(|text| functions.in_text(text)) {
            return Ok(true);
        }
        // No trigger is for these.
        if harmless || matches!(facts.class, StatementClass::Ddl | StatementClass::Transaction) {
            return Ok(false);
        }
        let triggers = self.cx.hidden_code.look(&self.cx, node, Code::Triggers, since).await?;
        Ok(texts.iter().any(|text| triggers.in_text(text)))
    }

    /// Whether the whole statement in the buffer, or this prepared one, may run code on a node that its text does not show; `Err` if that is not
    /// known. Views are seen as they were after `since`.
    pub(super) async fn hides_code_on(
        &mut self,
        node: NodeId,
        statement: Option<u32>,
        since: Option<Instant>,
    ) -> Result<bool, String> {
        let since = since.map_or(Since::Lately, Since::After);
        let look = Box::pin(self.cx.hidden_code.look(&self.cx, node, Code::Functions, since));
        // Who is gone, or killed, is found to be so at the next step.
        let looked = while_client_stays(&self.io.stream, &self.handle, look).await;
        let hidden = looked.unwrap_or_else(|| Err("the client did not stay".to_owned()))?;
        Ok(match statement {
            None => {
                let end = FrameHeader::parse(&self.io.read_buf).map_or(0, FrameHeader::frame_len);
                self.io.read_buf.get(HEADER_BYTES + 1..end).is_none_or(|sql| hidden.in_text(sql))
            }
            Some(id) => self.statements.get(id).is_none_or(|statement| hidden.in_text(statement.text.sql())),
        })
    }
}
