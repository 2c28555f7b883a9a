//! What /sessions shows, put together from the register.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::admin::sessions::{DecisionView, PinView, SessionDetail, SessionDirectory, SessionSummary};
use crate::proxy::context::Context;
use crate::proxy::registry::SessionHandle;

/// The register as the admin server sees it.
pub struct View {
    cx: Arc<Context>,
}

impl View {
    /// A view of this context's sessions.
    pub fn new(cx: Arc<Context>) -> View {
        View { cx }
    }

    fn summary(&self, handle: &SessionHandle, now: Instant) -> SessionSummary {
        let target = handle.running().target;
        let account = handle.account();
        let notes = handle.notes();
        let held_ms = notes.pinned_since.map_or(0, |since| millis(now.duration_since(since)));
        SessionSummary {
            id: handle.id,
            user: account.as_ref().map(|a| a.user.to_string()).unwrap_or_default(),
            account: account.map(|a| a.to_string()).unwrap_or_default(),
            client_address: handle.peer.clone(),
            connected_ms: millis(now.duration_since(handle.since)),
            schema: notes.schema.as_ref().map(|s| String::from_utf8_lossy(s).into_owned()),
            transaction: notes.transaction.label().to_owned(),
            node: target.map(|t| self.cx.node_name(t.node).to_string()),
            server_thread_id: target.map(|t| t.thread_id),
            pins: notes.pins.iter().map(|reason| PinView { reason: reason.label().to_owned(), held_ms }).collect(),
            statements: notes.statements,
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl SessionDirectory for View {
    fn list(&self, limit: usize) -> Vec<SessionSummary> {
        let now = Instant::now();
        self.cx.registry.list(limit).iter().map(|handle| self.summary(handle, now)).collect()
    }

    fn get(&self, id: u32) -> Option<SessionDetail> {
        let handle = self.cx.registry.get(id)?;
        let now = Instant::now();
        let summary = self.summary(&handle, now);
        let notes = handle.notes();
        Some(SessionDetail {
            summary,
            changed_variables: notes.variables.iter().map(ToString::to_string).collect(),
            user_variables: Vec::new(),
            prepared_statements: notes.prepared,
            decisions: notes
                .decisions
                .iter()
                .rev()
                .map(|decision| DecisionView {
                    ago_ms: millis(now.duration_since(decision.at)),
                    what: match decision.node {
                        Some(node) => format!("{} ({})", decision.what, self.cx.node_name(node)),
                        None => decision.what.to_owned(),
                    },
                    why: self.cx.rules.explain(decision.why).into_owned(),
                })
                .collect(),
        })
    }
}
