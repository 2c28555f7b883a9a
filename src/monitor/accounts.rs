//! Reads the accounts of the servers, so that clients log in with them and a changed password stops working soon.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::auth::accounts::{Account, AccountTable};
use crate::auth::host::HostRules;
use crate::auth::rows;
use crate::metrics::Metrics;
use crate::monitor::link::{ConnectError, Connector, Link, LinkAnswer, Rows};
use crate::monitor::{ClusterHandle, MonitorSettings};
use crate::protocol::mysql::flavor::Flavor;
use crate::topology::NodeId;

/// After this many intervals in which a living node did not answer, what was read before is no longer believed: a password may
/// have been changed meanwhile.
const STALE_INTERVALS: u32 = 5;

/// Keeps the table of accounts up to date.
pub struct AccountReader<C: Connector> {
    connector: Arc<C>,
    settings: MonitorSettings,
    cluster: ClusterHandle,
    table: Arc<ArcSwap<AccountTable>>,
    metrics: Arc<Metrics>,
    link: Option<(NodeId, C::Link)>,
    /// How the servers look at hosts.
    rules: HostRules,
    /// Of the rows that the present table was made from.
    digest: Option<[u8; 32]>,
    /// The last complaint, so that each is logged once.
    complaint: Option<String>,
    /// When a node last answered, or there was nobody to ask.
    believed_at: Instant,
}

/// What one reading brought.
enum Reading {
    /// Rows of the query for this flavor.
    Rows(Flavor, Rows),
    /// The node will not show them: clients are proven against nodes.
    Refused(String),
    /// The monitor's login was refused: the same, and it is not tried again soon.
    LoginRefused(String),
    /// A node that should have answered did not; what was read before stays valid for a while.
    NoAnswer,
    /// Nobody could be asked, and so nobody can log in to a node either; what was read before stays valid.
    NobodyToAsk,
}

impl<C: Connector> AccountReader<C> {
    /// A reader that fills `table`.
    pub fn new(
        connector: Arc<C>,
        settings: MonitorSettings,
        cluster: ClusterHandle,
        table: Arc<ArcSwap<AccountTable>>,
        metrics: Arc<Metrics>,
    ) -> AccountReader<C> {
        AccountReader {
            connector,
            settings,
            cluster,
            table,
            metrics,
            link: None,
            digest: None,
            complaint: None,
            rules: HostRules::default(),
            believed_at: Instant::now(),
        }
    }

    /// Reads until the task is ended from outside; the first time as soon as there is a node to ask.
    pub async fn run(mut self) {
        let mut changes = self.cluster.subscribe();
        loop {
            let _ = changes.borrow_and_update();
            let reading = match timeout(self.settings.probe_timeout, self.read()).await {
                Ok(reading) => reading,
                Err(_) => {
                    self.link = None;
                    Reading::NoAnswer
                }
            };
            let (answered, pause) = match &reading {
                Reading::Rows(..) | Reading::Refused(_) => (true, self.settings.accounts_interval),
                Reading::LoginRefused(_) => (true, self.settings.login_retry_interval),
                Reading::NoAnswer | Reading::NobodyToAsk => (false, self.settings.accounts_interval),
            };
            self.publish(reading);
            if answered {
                self.cluster.accounts_asked.store(true, Ordering::Release);
                sleep(pause).await;
            } else {
                tokio::select! {
                    () = sleep(pause) => {}
                    _ = changes.changed() => {}
                }
            }
        }
    }

    async fn read(&mut self) -> Reading {
        let (id, flavor) = match self.cluster.load().default_node() {
            Some(node) => (node.id, node.flavor),
            None => return Reading::NobodyToAsk,
        };
        let mut link = match self.link.take() {
            Some((at, link)) if at == id => link,
            _ => match self.connector.connect(id).await {
                Ok(link) => link,
                Err(ConnectError::LoginRefused(why)) => return Reading::LoginRefused(why),
                Err(_) => return Reading::NoAnswer,
            },
        };
        let queries: &[&str] = match flavor {
            Flavor::MariaDb => &[rows::MARIADB_QUERY],
            Flavor::MySql => &[rows::MYSQL_QUERY, rows::MYSQL57_QUERY],
            Flavor::OceanBase => &[rows::OCEANBASE_QUERY],
        };
        let mut refused = String::new();
        for query in queries {
            let limited = format!("{query} LIMIT {}", self.settings.accounts_max.saturating_add(1));
            let mut answers = match link.ask(&[&limited, SKIP_NAME_RESOLVE]).await {
                Ok(answers) => answers.into_iter(),
                Err(_) => return Reading::NoAnswer,
            };
            match Ok::<_, ()>(answers.next()) {
                Ok(Some(LinkAnswer::Rows(rows))) => {
                    self.link = Some((id, link));
                    self.rules = HostRules { flavor: Some(flavor), skip_name_resolve: answers.next().and_then(switch) };
                    return Reading::Rows(flavor, rows);
                }
                Ok(Some(LinkAnswer::Error(e))) if is_not_ready(e.code) => return Reading::NoAnswer,
                Ok(Some(LinkAnswer::Error(e))) => refused = e.to_string(),
                Ok(None) | Err(_) => return Reading::NoAnswer,
            }
        }
        self.link = Some((id, link));
        Reading::Refused(refused)
    }

    fn publish(&mut self, reading: Reading) {
        if !matches!(reading, Reading::NoAnswer) {
            self.believed_at = Instant::now();
        }
        match reading {
            Reading::NobodyToAsk => {}
            Reading::NoAnswer => {
                if self.believed_at.elapsed() > self.settings.accounts_interval.saturating_mul(STALE_INTERVALS) {
                    self.digest = None;
                    self.unreadable("no node answers the question for accounts".to_owned());
                }
            }
            Reading::Refused(why) | Reading::LoginRefused(why) => {
                self.digest = None;
                self.unreadable(why);
            }
            Reading::Rows(_, rows) if rows.len() > self.settings.accounts_max => {
                self.digest = None;
                self.unreadable(format!("more than accounts_max = {} accounts", self.settings.accounts_max));
            }
            Reading::Rows(flavor, rows) => {
                let digest = digest(&rows, self.rules);
                if self.digest == Some(digest) {
                    return;
                }
                self.digest = Some(digest);
                self.take(flavor, &rows);
            }
        }
    }

    /// Makes the table from rows. One row that cannot be understood makes the whole table unreadable: without it, its user
    /// could match a less specific account and get other privileges.
    fn take(&mut self, flavor: Flavor, rows: &Rows) {
        match accounts_from(flavor, rows) {
            Ok(accounts) => {
                let table = AccountTable::new(accounts).with_rules(self.rules);
                self.metrics.accounts.set(table.len() as f64);
                self.metrics.accounts_readable.set(1.0);
                if self.complaint.take().is_some() || !self.table.load().is_readable() {
                    info!(accounts = table.len(), "accounts are read from the servers");
                }
                self.table.store(Arc::new(table));
            }
            Err(e) => self.unreadable(e.to_string()),
        }
    }

    fn unreadable(&mut self, why: String) {
        self.metrics.accounts.set(0.0);
        self.metrics.accounts_readable.set(0.0);
        self.table.store(Arc::new(AccountTable::unreadable()));
        if self.complaint.as_ref() != Some(&why) {
            warn!(
                why,
                "cannot read the accounts: logins are proven against a node instead; `belay init` prints the grants that \
                 the monitor account needs"
            );
            self.complaint = Some(why);
        }
    }
}

/// 1047: a Galera node that is not ready; 1053: shutdown. Neither says anything of grants.
fn is_not_ready(code: u16) -> bool {
    matches!(code, 1047 | 1053)
}

fn accounts_from(flavor: Flavor, rows: &Rows) -> Result<Vec<Account>, rows::RowError> {
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let row: Vec<Option<&[u8]>> = row.iter().map(|v| v.as_deref()).collect();
        match flavor {
            Flavor::MariaDb => accounts.extend(rows::mariadb_account(&row)?),
            Flavor::MySql | Flavor::OceanBase => accounts.push(rows::mysql_account(&row)?),
        }
    }
    Ok(accounts)
}

/// Of all values with their lengths, in the order of the rows.
/// Whether the servers resolve the names of clients.
const SKIP_NAME_RESOLVE: &str = "SELECT @@skip_name_resolve";

fn switch(answer: LinkAnswer) -> Option<bool> {
    match answer {
        LinkAnswer::Rows(rows) => match rows.first()?.first()?.as_deref()? {
            b"1" => Some(true),
            b"0" => Some(false),
            _ => None,
        },
        LinkAnswer::Error(_) => None,
    }
}

fn digest(rows: &Rows, rules: HostRules) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(format!("{rules:?}"));
    for row in rows {
        for value in row {
            match value {
                Some(v) => {
                    hasher.update((v.len() as u64).to_le_bytes());
                    hasher.update(v);
                }
                None => hasher.update(u64::MAX.to_le_bytes()),
            }
        }
        hasher.update(b"row");
    }
    hasher.finalize().into()
}
