//! Causality across nodes: what a session has seen is noted after each answer, and a server session on another node is used only once that
//! node has all of it. What is needed is decided by `topology::causal`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::pool::flight::{self, Answer, Ask};
use crate::pool::lease::Lease;
use crate::protocol::mysql::flavor::Flavor;
use crate::proxy::aloft::Aloft;
use crate::proxy::bind::{BindEnd, while_client_stays};
use crate::proxy::report::Report;
use crate::proxy::session::ClientSession;
use crate::session::transaction::Transaction;
use crate::sql::{Effects, Facts, StatementClass};
use crate::topology::causal::{self, Need};
use crate::topology::{ClusterKind, Position, Seen, Written};

/// Waits for everything that the group has committed by now, whatever `wsrep_sync_wait` the session has (MariaDB 10.11, observed).
const GALERA_WAIT: &str = "SET STATEMENT wsrep_sync_wait=1 FOR SELECT 1";

/// Said right after [`GALERA_WAIT`], in the same round trip. MariaDB puts the variable back only after it has answered, and reports that with the
/// answer to the next statement that changes something itself (10.11, observed; DO is none): that must not be the client's, who has not set it.
const TAKE_LATE_REPORT: &str = "SET SESSION wsrep_sync_wait=@@SESSION.wsrep_sync_wait";

/// Why a node can't be used yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotCaughtUp {
    /// The server session was lost, or refused to wait: nothing is known of its node.
    Lost(String),
    /// The node does not have what the session has seen, or it can't be known.
    Behind(String),
}

impl ClientSession {
    /// Notes what an answered statement has written or read. Costs nothing where there is only one node to be on.
    pub(super) fn note_seen(&mut self, facts: &Facts, report: &Report) {
        let Some(lease) = &self.lease else { return };
        if let Some(gtid) = &report.gtid {
            self.wrote = false;
            match lease.conn.flavor {
                Flavor::MySql => self.cx.gtids_reported.store(true, Ordering::Relaxed),
                Flavor::MariaDb => self.last_gtid = Some(gtid.clone()),
                Flavor::OceanBase => {}
            }
            self.see(Some(Written::At(gtid.clone())));
            return;
        }
        if !touches_data(facts) || self.cx.config.nodes.len() < 2 {
            return;
        }
        // A write without rows has written nothing; an answer of rows does not tell.
        self.wrote |= report.error.is_none() && report.row_count != 0 && facts.class != StatementClass::Read;
        let over = Transaction::after(report.status.unwrap_or(self.status)) == Transaction::Idle;
        // MariaDB reports every write that the binary log has; MySQL does with gtid_mode=ON, OceanBase never.
        let reports = match lease.conn.flavor {
            Flavor::MariaDb => true,
            Flavor::MySql => self.cx.gtids_reported.load(Ordering::Relaxed),
            Flavor::OceanBase => false,
        };
        let unreported = self.wrote && over && !reports;
        if over {
            self.wrote = false;
        }
        self.see(unreported.then_some(Written::Unreported));
    }

    fn see(&mut self, wrote: Option<Written>) {
        let Some(node) = self.lease.as_ref().map(|l| l.node) else { return };
        let by_write = wrote.is_some();
        let before = self.seen.take().map(|s| s.written).unwrap_or_default();
        self.seen = Some(Seen {
            node,
            at: Instant::now(),
            writer_epoch: self.writer_epoch,
            written: wrote.unwrap_or(before),
            by_write,
        });
    }

    /// Makes sure that the node of a server session has what this session has seen, waiting for it within `cluster.causal_wait_ms`. `Ok(Err(why))`:
    /// it was not seen to have it; the server session is gone.
    pub(super) async fn catch_up(
        &mut self,
        lease: Lease,
        until: Instant,
    ) -> Result<Result<Lease, NotCaughtUp>, BindEnd> {
        let Some(seen) = self.seen.as_ref().filter(|seen| seen.node != lease.node) else { return Ok(Ok(lease)) };
        let snapshot = self.cx.cluster.load();
        let need = causal::need(&snapshot, seen, lease.node, &|node| self.cx.cluster.sample(node));
        let limit = Duration::from_millis(self.cx.config.cluster.causal_wait_ms)
            .min(until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1)));
        let waited = match need {
            Need::Nothing(why) => {
                self.handle.decided(Instant::now(), "no causal wait", Some(lease.node), why);
                let same_writer = snapshot.writer == Some(lease.node) && snapshot.writer_epoch == seen.writer_epoch;
                if same_writer && snapshot.kind == ClusterKind::ReadOnlyFlag {
                    // From a replica to its writer. What the session has seen is still what it saw there, until it sees more here.
                    return Ok(Ok(lease));
                }
                Ok(lease)
            }
            Need::Unprovable(why) => {
                // A healthy server session: it goes back.
                lease.release(Instant::now());
                Err(NotCaughtUp::Behind(why.to_owned()))
            }
            Need::GroupPosition => self.wait(lease, None, limit).await?,
            Need::Position(position) => self.wait(lease, Some(position), limit).await?,
        };
        if let (Ok(lease), Some(seen)) = (&waited, &mut self.seen) {
            // From here on this node is the one to be compared with.
            (seen.node, seen.at, seen.writer_epoch, seen.by_write) =
                (lease.node, Instant::now(), snapshot.writer_epoch, false);
        }
        Ok(waited)
    }

    async fn wait(
        &self,
        mut lease: Lease,
        position: Option<Position>,
        limit: Duration,
    ) -> Result<Result<Lease, NotCaughtUp>, BindEnd> {
        lease.last_use = None;
        let node = lease.node;
        self.handle.decided(
            Instant::now(),
            "causal wait",
            Some(node),
            "the node may not have what this session has seen",
        );
        let aloft = Aloft::begins(&self.handle, &lease);
        let work = Box::pin(tokio::time::timeout(limit, catch_up(&mut lease, position, limit)));
        let caught_up = while_client_stays(&self.io.stream, &self.handle, work).await;
        match aloft.ends(&self.handle, caught_up) {
            Ok(Ok(Ok(()))) => Ok(Ok(lease)),
            // The answer may still come: dropping the lease closes the connection.
            Ok(Ok(Err(why))) => Ok(Err(why)),
            Ok(Err(_)) => Ok(Err(NotCaughtUp::Behind(format!("not within {} ms", limit.as_millis())))),
            Err(why) => {
                self.abandon(lease, &why);
                Err(why.before_statement(BindEnd::Lost(crate::error::Stage::Acquire)))
            }
        }
    }
}

/// Asks the node to wait; `Err` says why it is not known to have what was waited for.
async fn catch_up(lease: &mut Lease, position: Option<Position>, limit: Duration) -> Result<(), NotCaughtUp> {
    let Some(position) = position else {
        let answers = fly(lease, &[GALERA_WAIT, TAKE_LATE_REPORT]).await?;
        let error = answers.into_iter().find_map(|answer| answer.error);
        return error.map_or(Ok(()), |e| Err(NotCaughtUp::Lost(e.to_string())));
    };
    let Some(gtids) = position.to_wait_for() else { return Ok(()) };
    let seconds = limit.as_secs_f64();
    match lease.conn.flavor {
        Flavor::MariaDb => {
            // A node that wrote it itself has it in its binary log only: MASTER_GTID_WAIT would wait for ever.
            let answer = ask(lease, "SELECT @@gtid_current_pos".to_owned()).await?;
            if Position::mariadb(&single(&answer)).covers(&position) {
                return Ok(());
            }
            let answer = ask(lease, format!("SELECT MASTER_GTID_WAIT('{gtids}', {seconds:.3})")).await?;
            verdict(&answer)
        }
        Flavor::MySql => {
            let answer = ask(lease, format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{gtids}', {seconds:.3})")).await?;
            verdict(&answer)
        }
        Flavor::OceanBase => Err(NotCaughtUp::Behind("OceanBase has no such wait".to_owned())),
    }
}

fn verdict(answer: &Answer) -> Result<(), NotCaughtUp> {
    match (&answer.error, single(answer).as_str()) {
        (None, "0") => Ok(()),
        (None, _) => Err(NotCaughtUp::Behind("it has not applied it in time".to_owned())),
        (Some(error), _) => Err(NotCaughtUp::Lost(error.to_string())),
    }
}

fn single(answer: &Answer) -> String {
    answer.single().map(|v| String::from_utf8_lossy(v).into_owned()).unwrap_or_default()
}

async fn ask(lease: &mut Lease, sql: String) -> Result<Answer, NotCaughtUp> {
    let answers = fly(lease, &[&sql]).await?;
    answers.into_iter().next().ok_or_else(|| NotCaughtUp::Lost("no answer".to_owned()))
}

async fn fly(lease: &mut Lease, statements: &[&str]) -> Result<Vec<Answer>, NotCaughtUp> {
    let asks: Vec<Ask> = statements.iter().map(|sql| Ask::Query(Bytes::from((*sql).to_owned()))).collect();
    let lost = |e: flight::FlightError| NotCaughtUp::Lost(e.to_string());
    flight::fly(&mut lease.conn, b"", &asks).await.map_err(lost)
}

/// Whether a statement may have read or written rows: what it saw must be there on the next node.
fn touches_data(facts: &Facts) -> bool {
    if facts.effects.intersects(Effects::ROUTINE | Effects::TEXT_EXECUTE | Effects::UNKNOWN) {
        return true;
    }
    match facts.class {
        StatementClass::Set => facts.reads_tables,
        StatementClass::Transaction => true,
        StatementClass::Read => facts.reads_tables || !matches!(facts.verb, crate::sql::Verb::Select),
        StatementClass::Write | StatementClass::Ddl | StatementClass::Admin | StatementClass::Call => true,
        StatementClass::Other => facts.verb != crate::sql::Verb::Unknown || !facts.certain,
    }
}
