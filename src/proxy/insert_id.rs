//! LAST_INSERT_ID() of a client: known here, or to one server session alone until it is read there. The client's own is put on the bound server session
//! before any statement that could show it, or keep it beside one that the statement makes.

use std::time::{Duration, Instant};

use crate::error::Stage;
use crate::pool::lease::Lease;
use crate::proxy::aloft::Aloft;
use crate::proxy::bind::{BindEnd, while_client_stays};
use crate::proxy::errors;
use crate::proxy::registry::InsertId;
use crate::proxy::report::Report;
use crate::proxy::session::ClientSession;
use crate::session::effects::{self, InsertIdNeed};
use crate::sql::Facts;

/// So long a client waits for somebody to read it on a server session that was taken over. That is one round trip to a node.
const READ_MAX: Duration = Duration::from_secs(2);

/// How often it looks whether that server session is free again, read or not.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

impl ClientSession {
    /// What the statement has to do with it.
    pub(super) fn insert_id_need(&self, facts: &Facts) -> InsertIdNeed {
        let need = effects::insert_id_need(facts);
        if need == InsertIdNeed::Read || !facts.reads_tables {
            return need;
        }
        // `WHERE id IS NULL` reads it then.
        if self.state.finds_null() { InsertIdNeed::Read } else { need }
    }

    /// The server session that alone knows it, if that one is free and on the node that serves; from another node the value is fetched. If it is
    /// not free, whoever took it reads it for us.
    pub(super) async fn bind_where_insert_id_is(&mut self) -> Result<Option<Lease>, BindEnd> {
        let give_up = Instant::now() + READ_MAX;
        loop {
            let Some(serial) = self.insert_id_elsewhere() else { return Ok(None) };
            let snapshot = self.cx.cluster.load();
            for view in &snapshot.nodes {
                let Ok(mut lease) = self.acquire(view, Some(serial), None).await? else { continue };
                let seen_elsewhere = self.seen.as_ref().is_some_and(|seen| seen.node != lease.node);
                if self.lease.is_none() && snapshot.writer == Some(lease.node) && !seen_elsewhere {
                    return Ok(Some(lease));
                }
                let aloft = Aloft::begins(&self.handle, &lease);
                let read = Box::pin(lease.read_insert_id());
                let read = while_client_stays(&self.io.stream, &self.handle, read).await;
                let id = match aloft.ends(&self.handle, read) {
                    Ok(id) => id,
                    Err(why) => {
                        self.cx.insert_id_read(self.handle.id, serial, None);
                        self.abandon(lease, &why);
                        return Err(why.before_statement(BindEnd::Lost(Stage::Acquire)));
                    }
                };
                self.cx.insert_id_read(self.handle.id, serial, id);
                if id.is_some() {
                    lease.unread_insert_id = None;
                    lease.release(Instant::now());
                }
                return Ok(None);
            }
            let left = give_up.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.cx.insert_id_read(self.handle.id, serial, None);
                return Ok(None);
            }
            let told = tokio::time::timeout(left.min(LOOK_AGAIN), self.handle.insert_id_told());
            // Both ends mean: look again.
            if while_client_stays(&self.io.stream, &self.handle, told).await.is_none() {
                return Err(BindEnd::ClientGone);
            }
        }
    }

    /// The same for a client that is bound to another server session.
    pub(super) async fn fetch_own_insert_id(&mut self) -> Result<(), BindEnd> {
        if self.insert_id_elsewhere().is_none() {
            return Ok(());
        }
        // It is taken only where nothing is bound.
        Box::pin(self.bind_where_insert_id_is()).await.map(|_| ())
    }

    /// Before a statement that reads it: whether there is one, if the bound server session alone knows that.
    pub(super) async fn look_for_new_insert_id(&mut self, need: InsertIdNeed) -> Result<(), BindEnd> {
        let Some(lease) = &self.lease else { return Ok(()) };
        if need != InsertIdNeed::Read || *self.handle.insert_id() != InsertId::NewOn(lease.serial) {
            return Ok(());
        }
        if self.unread_variables.is_held_back() {
            // It would come with the answer.
            Box::pin(self.ask_variables()).await?;
        }
        let Some(lease) = &mut self.lease else { return Err(BindEnd::Lost(Stage::Replay)) };
        let serial = lease.serial;
        let aloft = Aloft::begins(&self.handle, lease);
        let read = while_client_stays(&self.io.stream, &self.handle, Box::pin(lease.read_insert_id())).await;
        let id = aloft.ends(&self.handle, read).map_err(|why| why.before_statement(BindEnd::Lost(Stage::Replay)))?;
        self.cx.insert_id_read(self.handle.id, serial, id);
        Ok(())
    }

    /// The server session that alone knows it, if it is not the bound one.
    fn insert_id_elsewhere(&self) -> Option<u64> {
        let serial = self.handle.insert_id().server_session()?;
        self.lease.as_ref().is_none_or(|lease| lease.serial != serial).then_some(serial)
    }

    /// The value that LAST_INSERT_ID() must have on the bound server session; `None` if it has it already.
    pub(super) fn wanted_insert_id(&self, need: InsertIdNeed) -> Result<Option<u64>, BindEnd> {
        let Some(lease) = &self.lease else { return Ok(None) };
        match *self.handle.insert_id() {
            _ if need == InsertIdNeed::Nothing => Ok(None),
            InsertId::Zero => Ok(Some(0)),
            InsertId::Known(id) => Ok(Some(id)),
            InsertId::On(serial) if serial == lease.serial => Ok(None),
            InsertId::NewOn(serial) if serial == lease.serial && need == InsertIdNeed::Kept => Ok(None),
            // Nobody else's, and no new one: what the statement makes is told from it by not being 0.
            InsertId::Lost if need == InsertIdNeed::Kept => Ok(Some(0)),
            InsertId::On(_) | InsertId::NewOn(_) | InsertId::Lost => {
                Err(BindEnd::Refused(errors::value_lost("LAST_INSERT_ID()")))
            }
        }
    }

    /// After an answer: the id of an OK may be one that the client gave, which does not count, and others are not named at all. So where one may have been
    /// made it is read when somebody asks, when another client takes the server session over, or before that is closed.
    pub(super) fn apply_insert_id(&mut self, facts: &Facts, report: &Report) {
        let Some(lease) = &mut self.lease else { return };
        if !effects::may_make_insert_id(facts, report.had_columns, report.error.is_some(), report.insert_id != 0) {
            return;
        }
        let mut insert_id = self.handle.insert_id();
        *insert_id = insert_id.maybe_made_on(lease.serial);
        lease.unread_insert_id = Some(self.handle.id);
        lease.last_insert_id = None;
    }
}
