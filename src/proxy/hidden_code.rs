//! A look at the views of a node before a read is run again there, or is sent to a reader: as the monitor account, once a second for all sessions,
//! and for those that may have defined a view at most ten times a second.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::failover::hidden::Hidden;
use crate::pool::flight::{self, Answer, Ask};
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::{FrameHeader, HEADER_BYTES};
use crate::proxy::bind::while_client_stays;
use crate::proxy::context::Context;
use crate::proxy::execute::{Kind, Request};
use crate::proxy::session::ClientSession;
use crate::sql::Verb;
use crate::topology::NodeId;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// A node is not asked more often than this, whatever sessions define.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// With more views than this no read is run again, and none goes to readers.
const VIEWS_MAX: usize = 10_000;

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

/// What was seen last, by the index of the node.
#[derive(Debug)]
pub struct HiddenCode {
    seen: Box<[Mutex<Option<Look>>]>,
}

/// One look at one node.
#[derive(Debug)]
struct Look {
    /// When it began: what was there before is in it.
    began: Instant,
    hidden: Arc<Hidden>,
}

impl HiddenCode {
    /// Nothing was seen yet of any of so many nodes.
    pub fn new(nodes: usize) -> HiddenCode {
        HiddenCode { seen: (0..nodes).map(|_| Mutex::new(None)).collect() }
    }

    /// What the views of this node hide, as they were after `since`; `Err` if the node could not be asked, or was asked too often already.
    async fn look(&self, cx: &Context, node: NodeId, since: Option<Instant>) -> Result<Arc<Hidden>, String> {
        let Some(seen) = self.seen.get(node.index()) else { return Err("no such node".into()) };
        // Held while the node is asked, so that a thousand sessions ask once. No statement waits for it but those that may only run where nothing
        // is hidden.
        let mut seen = seen.lock().await;
        if let Some(look) = &*seen {
            let recent = since.is_none_or(|since| look.began > since);
            if recent && look.began.elapsed() < BELIEVED {
                return Ok(look.hidden.clone());
            }
            if !recent && look.began.elapsed() < ASK_AGAIN {
                return Err("the session may have defined a view a moment ago".into());
            }
        }
        let began = Instant::now();
        let hidden = Arc::new(ask(cx, node).await?);
        if let Hidden::Unknown(why) = &*hidden
            && seen.as_ref().is_none_or(|look| look.hidden != hidden)
        {
            let node = cx.node_name(node);
            tracing::warn!(%node, why, "reads neither run again after a loss nor go to readers: what views hide can't be ruled out");
        }
        *seen = Some(Look { began, hidden: hidden.clone() });
        Ok(hidden)
    }
}

async fn ask(cx: &Context, node: NodeId) -> Result<Hidden, String> {
    let mut conn = cx.dial_as_monitor(node).await.map_err(|e| e.to_string())?;
    let functions = match conn.flavor {
        Flavor::MariaDb => FUNCTIONS_MARIADB,
        Flavor::MySql => FUNCTIONS_MYSQL,
        Flavor::OceanBase => return Ok(Hidden::Unknown("not looked for on OceanBase")),
    };
    let asks = [functions, SEES_VIEWS].map(|sql| Ask::Query(Bytes::from_static(sql.as_bytes())));
    let answers = flight::fly(&mut conn, b"", &asks).await.map_err(|e| e.to_string())?;
    let [functions, sees_views] = answers.as_slice() else { return Err("an answer is missing".into()) };
    match (number(functions, 0), number(functions, 1)) {
        (Some(1..), Some(0)) => return Ok(Hidden::Nothing),
        (Some(1..), Some(_)) => {}
        _ => return Ok(Hidden::Unknown("the monitor account does not see all stored functions")),
    }
    if number(sees_views, 0).unwrap_or(0) == 0 {
        return Ok(Hidden::Unknown("there are stored functions, and the monitor account does not see all views"));
    }
    let views = conn.query(VIEWS).await.map_err(|e| e.to_string())?;
    if views.error.is_some() || views.rows.len() > VIEWS_MAX {
        return Ok(Hidden::Unknown("the views can't be listed, or are too many"));
    }
    let name = |row: Vec<Option<Bytes>>| {
        row.into_iter().next().flatten().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default()
    };
    Ok(Hidden::Views(views.rows.into_iter().map(name).collect()))
}

fn number(answer: &Answer, column: usize) -> Option<u64> {
    std::str::from_utf8(answer.rows.first()?.get(column)?.as_ref()?).ok()?.parse().ok()
}

impl ClientSession {
    /// Whether a statement that is about to run again on the bound server session may run code that its text does not show; `Err` if the node
    /// could not be asked.
    pub(super) async fn hides_code(&mut self, request: &Request<'_>) -> Result<bool, String> {
        if !request.facts.side_effect_free_read || matches!(request.facts.verb, Verb::Show | Verb::Help) {
            return Ok(false);
        }
        let Some(node) = self.lease.as_ref().map(|l| l.node) else { return Ok(true) };
        let statement = match request.kind {
            Kind::Text => None,
            Kind::Statement { id, .. } => Some(id),
            Kind::Other => return Ok(true),
        };
        self.hides_code_on(node, statement, None).await
    }

    /// Whether the whole statement in the buffer, or this prepared one, may run code on a node that its text does not show; `Err` if that is not
    /// known. Views are seen as they were after `since`.
    pub(super) async fn hides_code_on(
        &mut self,
        node: NodeId,
        statement: Option<u32>,
        since: Option<Instant>,
    ) -> Result<bool, String> {
        let look = Box::pin(self.cx.hidden_code.look(&self.cx, node, since));
        // Who is gone, or killed, is found to be so at the next step.
        let looked = while_client_stays(&self.io.stream, &self.handle, look).await;
        let hidden = looked.unwrap_or_else(|| Err("the client did not stay".to_owned()))?;
        Ok(match statement {
            None => {
                let end = FrameHeader::parse(&self.io.read_buf).map_or(0, FrameHeader::frame_len);
                self.io.read_buf.get(HEADER_BYTES + 1..end).is_none_or(|sql| hidden.in_text(sql))
            }
            Some(id) => self.statements.get_mut(id).is_none_or(|(_, statement)| hidden.in_text(&statement.sql)),
        })
    }
}
