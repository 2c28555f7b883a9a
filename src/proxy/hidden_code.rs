//! A look at the views of a node before a read is run again there: as the monitor account, at most once a second for all sessions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Mutex;

use crate::failover::hidden::Hidden;
use crate::pool::flight::{self, Answer, Ask};
use crate::protocol::mysql::flavor::Flavor;
use crate::protocol::mysql::frame::HEADER_BYTES;
use crate::proxy::context::Context;
use crate::proxy::execute::{Kind, Request};
use crate::proxy::session::ClientSession;
use crate::sql::Verb;
use crate::topology::NodeId;

/// How long an answer is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// With more views than this no read is run again.
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

/// What was seen last.
#[derive(Debug, Default)]
pub struct HiddenCode {
    seen: Mutex<Option<(Instant, NodeId, Arc<Hidden>)>>,
}

impl HiddenCode {
    /// What the views of this node hide; `Err` if the node could not be asked.
    async fn look(&self, cx: &Context, node: NodeId) -> Result<Arc<Hidden>, String> {
        // Held while the node is asked, so that a thousand sessions ask once. No statement waits for it but those that run again.
        let mut seen = self.seen.lock().await;
        if let Some((at, of, hidden)) = &*seen
            && *of == node
            && at.elapsed() < BELIEVED
        {
            return Ok(hidden.clone());
        }
        let hidden = Arc::new(ask(cx, node).await?);
        if let Hidden::Unknown(why) = &*hidden {
            tracing::warn!(node = %cx.node_name(node), why, "reads are not run again after a loss: what views hide can't be ruled out");
        }
        *seen = Some((Instant::now(), node, hidden.clone()));
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
        let hidden = self.cx.hidden_code.look(&self.cx, node).await?;
        Ok(match request.kind {
            Kind::Text => {
                let end = request.head.header.frame_len().min(self.io.read_buf.len());
                hidden.in_text(self.io.read_buf.get(HEADER_BYTES + 1..end).unwrap_or_default())
            }
            Kind::Statement { id, .. } => {
                self.statements.get_mut(id).is_none_or(|(_, statement)| hidden.in_text(&statement.sql))
            }
            Kind::Other => true,
        })
    }
}
