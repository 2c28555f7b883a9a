//! The cluster: nodes, sessions, what happens to them, and who may do what.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::Dialect;
use crate::ast::Parsed;
use crate::error::Error;
use crate::lexer::Mode;
use crate::session::{Cursor, Session};
use crate::store::{Change, Name, Node};
use crate::tracker::Tracker;
use crate::value::Value;
use crate::vars::{self, Id};
use crate::wire::err_packet;

/// Which session of the cluster.
pub type SessionId = u64;

/// A client's login.
#[derive(Clone, Debug)]
pub struct Login<'a> {
    /// The account's name.
    pub user: &'a str,
    /// Where the client comes from, as USER() tells it.
    pub host: &'a str,
    /// The schema to begin with.
    pub schema: Option<&'a str>,
    /// Capabilities that both sides have.
    pub capabilities: u32,
    /// The number of the collation that the client asks for.
    pub collation: u16,
}

/// An account: what it may use.
#[derive(Clone, Debug, Default)]
struct Account {
    admin: bool,
    schemas: BTreeSet<String>,
    roles: BTreeSet<String>,
}

/// Servers with the same data, and their sessions.
pub struct Cluster {
    pub(crate) dialect: Dialect,
    pub(crate) nodes: Vec<Node>,
    pub(crate) sessions: BTreeMap<SessionId, Option<Session>>,
    pub(crate) waiting: HashMap<SessionId, SessionId>,
    pub(crate) imprecise: bool,
    pub(crate) commits: u64,
    pub(crate) place_word: &'static str,
    pub(crate) open_cursor: Option<Cursor>,
    pub(crate) deadlines: Vec<u64>,
    accounts: BTreeMap<String, Account>,
    roles: BTreeMap<String, BTreeSet<String>>,
    next_session: SessionId,
    next_row: i64,
    lagging: bool,
    texts: HashMap<(u8, String), Arc<Parsed>>,
}

impl Cluster {
    /// A cluster of a kind with a number of nodes, the schemas `test` and `shop`, and the accounts `admin` (everything), `app` (both schemas) and
    /// `app2` (`test`, and the role `reader`, which may use `shop`).
    pub fn new(dialect: Dialect, nodes: usize) -> Cluster {
        let globals = Arc::new(vars::defaults(dialect));
        let mut cluster = Cluster {
            dialect,
            nodes: (0..nodes).map(|_| Node::new(globals.clone())).collect(),
            sessions: BTreeMap::new(),
            waiting: HashMap::new(),
            imprecise: false,
            commits: 0,
            place_word: "SELECT",
            open_cursor: None,
            deadlines: Vec::new(),
            accounts: BTreeMap::new(),
            roles: BTreeMap::new(),
            next_session: 1,
            next_row: 1,
            lagging: false,
            texts: HashMap::new(),
        };
        cluster.add_schema("test");
        cluster.add_schema("shop");
        cluster.add_account("admin", true, &["test", "shop"], &[]);
        cluster.add_account("app", false, &["test", "shop"], &[]);
        cluster.add_account("app2", false, &["test"], &["reader"]);
        cluster.add_role("reader", &["shop"]);
        cluster
    }

    /// Makes a schema on all nodes.
    pub fn add_schema(&mut self, name: &str) {
        for node in &mut self.nodes {
            Arc::make_mut(&mut node.store).schemas.insert(name.into());
        }
    }

    /// Makes an account, or changes what it may do; global privileges count from its next login on.
    pub fn add_account(&mut self, user: &str, admin: bool, schemas: &[&str], roles: &[&str]) {
        let set = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect();
        self.accounts.insert(user.to_owned(), Account { admin, schemas: set(schemas), roles: set(roles) });
    }

    /// Makes a role that may use some schemas.
    pub fn add_role(&mut self, role: &str, schemas: &[&str]) {
        self.roles.insert(role.to_owned(), schemas.iter().map(|n| (*n).to_owned()).collect());
    }

    pub(crate) fn may_use(&self, user: &str, role: Option<&str>, schema: &str) -> bool {
        let Some(account) = self.accounts.get(user) else { return false };
        let by_role = role.and_then(|r| self.roles.get(r)).is_some_and(|schemas| schemas.contains(schema));
        account.admin || account.schemas.contains(schema) || by_role
    }

    /// Whether an account is an administrator's; `None` if there is no such account.
    pub(crate) fn admin_of(&self, user: &str) -> Option<bool> {
        self.accounts.get(user).map(|a| a.admin)
    }

    pub(crate) fn has_role(&self, user: &str, role: &str) -> bool {
        self.accounts.get(user).is_some_and(|a| a.roles.contains(role))
    }

    /// A new session; an ERR packet's payload if it is refused.
    pub fn connect(&mut self, node: usize, login: &Login<'_>) -> Result<SessionId, Vec<u8>> {
        let refuse = |error: Error| Err(err_packet(&error));
        let Some(account) = self.accounts.get(login.user) else {
            let text = format!("Access denied for user '{}'@'{}' (using password: YES)", login.user, login.host);
            return refuse(Error::new(1045, "28000", text));
        };
        let is_admin = account.admin;
        let Some(on) = self.nodes.get_mut(node).filter(|n| n.up) else {
            return refuse(Error::new(1053, "08S01", "Server shutdown in progress"));
        };
        let thread = on.next_thread;
        on.next_thread += 1;
        let key = self.next_session;
        self.next_session += 1;
        let mut session = Session {
            key,
            thread,
            node,
            dialect: self.dialect,
            caps: login.capabilities,
            user: login.user.into(),
            host: login.host.into(),
            is_admin,
            vars: on.globals.clone(),
            results: 45,
            schema: None,
            role: None,
            user_vars: BTreeMap::new(),
            temporary: BTreeMap::new(),
            locked: false,
            prepared: BTreeMap::new(),
            next_statement: 0,
            named: BTreeMap::new(),
            diagnostics: Vec::new(),
            own_conditions: 0,
            before: (0, 0),
            stale: false,
            last_insert_id: 0,
            insert_id: 0,
            kept_ids: None,
            row_count: 0,
            found_rows: 0,
            // MariaDB begins with one or none.
            found_rows_known: !self.dialect.is_maria(),
            timestamp: None,
            transaction: None,
            next: Default::default(),
            tracker: Tracker::new(),
            pending: None,
            killed: false,
            query_killed: false,
            aborted: false,
            modes: Mode::default(),
            place_note: None,
        };
        self.fresh(&mut session, login.collation);
        if let Some(schema) = login.schema {
            if !self.may_use(login.user, None, schema) {
                let text = format!("Access denied for user '{}'@'%' to database '{schema}'", login.user);
                return refuse(Error::new(1044, "42000", text));
            }
            if !self.nodes[node].store.schemas.contains(schema) {
                return refuse(Error::new(1049, "42000", format!("Unknown database '{schema}'")));
            }
            session.schema = Some(schema.into());
            session.tracker.schema();
        }
        self.sessions.insert(key, Some(session));
        Ok(key)
    }

    /// Gives a session the values that a new one has. Without a collation that is known it is the server's.
    pub(crate) fn fresh(&self, s: &mut Session, collation: u16) {
        s.vars = self.nodes[s.node].globals.clone();
        let asked = vars::COLLATIONS.iter().find(|c| c.2 == collation && !(self.dialect.is_maria() && c.2 == 255));
        s.results = if self.dialect.is_maria() { 45 } else { 255 };
        if let Some((collation, charset, number)) = asked {
            for id in [Id::CharsetClient, Id::CharsetResults, Id::CharsetConnection] {
                s.put(id, Value::str(charset));
            }
            s.put(Id::CollationConnection, Value::str(collation));
            s.results = *number;
        }
        s.read_modes();
        let tracked = s.var(Id::TrackVariables).string();
        s.tracker.track(self.dialect, &tracked);
    }

    /// The connection id of a session, as the server tells it.
    pub fn thread_id(&self, session: SessionId) -> u32 {
        self.sessions.get(&session).and_then(Option::as_ref).map_or(0, |s| s.thread)
    }

    /// Whether the session is there.
    pub fn is_connected(&self, session: SessionId) -> bool {
        self.sessions.contains_key(&session)
    }

    /// Whether the last commands met something that the model knows only roughly (gaps between rows, deadlocks): their answers are
    /// consistent, but a server may answer otherwise. Asking forgets it.
    pub fn take_imprecise(&mut self) -> bool {
        std::mem::take(&mut self.imprecise)
    }

    /// When the earliest wait that the last command began is over at the latest.
    pub fn take_deadline(&mut self) -> Option<u64> {
        std::mem::take(&mut self.deadlines).into_iter().min()
    }

    pub(crate) fn parse(&mut self, text: &str, mode: Mode, multi: bool) -> Result<Arc<Parsed>, Error> {
        let bits = u8::from(mode.ansi_quotes)
            | u8::from(mode.no_backslash_escapes) << 1
            | u8::from(mode.pipes_as_concat) << 2
            | u8::from(multi) << 3;
        let key = (bits, text.to_owned());
        if let Some(parsed) = self.texts.get(&key) {
            return Ok(parsed.clone());
        }
        let parsed = Arc::new(crate::parser::parse(text, 0, mode, multi, self.dialect.is_maria())?);
        if self.texts.len() >= 4096 {
            self.texts.clear();
        }
        self.texts.insert(key, parsed.clone());
        Ok(parsed)
    }

    /// Whether a session waits, perhaps by others, for another one.
    pub(crate) fn waits_for(&self, session: SessionId, other: SessionId) -> bool {
        let mut at = session;
        for _ in 0..64 {
            match self.waiting.get(&at) {
                Some(next) if *next == other => return true,
                Some(next) => at = *next,
                None => return false,
            }
        }
        false
    }

    /// Applies a change on a node and hands it to the others.
    pub(crate) fn commit(&mut self, node: usize, change: Change) {
        self.commits += 1;
        self.nodes[node].apply(&change);
        for other in (0..self.nodes.len()).filter(|n| *n != node) {
            self.nodes[other].queue.push_back(change.clone());
            if !self.lagging {
                self.apply(other, usize::MAX);
            }
        }
    }

    /// Whether changes of other nodes wait until [`Cluster::apply`] is called.
    pub fn set_lagging(&mut self, lagging: bool) {
        self.lagging = lagging;
    }

    /// Applies at most so many of the changes that wait on a node.
    pub fn apply(&mut self, node: usize, count: usize) {
        for _ in 0..count {
            if self.nodes[node].partitioned || !self.nodes[node].up {
                return;
            }
            let Some(change) = self.nodes[node].queue.pop_front() else { return };
            if let Change::Rows(rows) = &change {
                let held: BTreeSet<SessionId> =
                    rows.keys().filter_map(|at| self.nodes[node].rows.get(at).copied()).collect();
                for session in held {
                    self.abort(session);
                }
            }
            self.nodes[node].apply(&change);
        }
    }

    /// A local transaction gives way to a change of another node.
    fn abort(&mut self, session: SessionId) {
        if let Some(Some(s)) = self.sessions.get_mut(&session) {
            s.transaction = s.transaction.take().map(|mut t| {
                t.overlay.clear();
                t
            });
            s.aborted = true;
            let node = s.node;
            self.nodes[node].release_rows(session);
        }
    }

    /// How many changes wait on a node.
    pub fn behind(&self, node: usize) -> usize {
        self.nodes[node].queue.len()
    }

    /// Cuts a node off: no change reaches it. With [`Cluster::set_primary`] it also knows that.
    pub fn set_partitioned(&mut self, node: usize, cut: bool) {
        self.nodes[node].partitioned = cut;
        if !cut && !self.lagging {
            self.apply(node, usize::MAX);
        }
    }

    /// Galera: whether a node belongs to the primary component. One that does not answers 1047.
    pub fn set_primary(&mut self, node: usize, primary: bool) {
        self.nodes[node].primary = primary;
    }

    /// SET GLOBAL read_only.
    pub fn set_read_only(&mut self, node: usize, read_only: bool) {
        Arc::make_mut(&mut self.nodes[node].globals)[Id::ReadOnly as usize] = Value::UInt(u64::from(read_only));
    }

    /// The process of a node is gone, with all its sessions.
    pub fn crash(&mut self, node: usize) {
        self.nodes[node].up = false;
        let gone: Vec<SessionId> = self.sessions.values().flatten().filter(|s| s.node == node).map(|s| s.key).collect();
        for session in gone {
            self.disconnect(session);
        }
    }

    /// A node comes back with what was committed, also elsewhere; its globals are those of its start.
    pub fn restart(&mut self, node: usize) {
        let globals = Arc::new(vars::defaults(self.dialect));
        self.nodes[node].up = true;
        self.nodes[node].globals = globals;
        self.apply(node, usize::MAX);
    }

    /// Whether a node runs.
    pub fn is_up(&self, node: usize) -> bool {
        self.nodes[node].up
    }

    /// The session ends: what it held is free, what it had not committed is gone.
    pub fn disconnect(&mut self, session: SessionId) {
        if let Some(Some(s)) = self.sessions.remove(&session) {
            self.nodes[s.node].release_all(session);
        }
        self.waiting.remove(&session);
    }

    /// KILL by an administrator.
    pub fn kill(&mut self, node: usize, thread: u32, query_only: bool) -> bool {
        match self.find_thread(node, thread) {
            Some((key, _)) => {
                self.kill_session(key, query_only);
                true
            }
            None => false,
        }
    }

    pub(crate) fn find_thread(&self, node: usize, thread: u32) -> Option<(SessionId, Arc<str>)> {
        let mut on = self.sessions.values().flatten().filter(|s| s.node == node);
        on.find(|s| s.thread == thread).map(|s| (s.key, s.user.clone()))
    }

    pub(crate) fn kill_session(&mut self, session: SessionId, query: bool) {
        let Some(Some(s)) = self.sessions.get_mut(&session) else { return };
        if query {
            // A session that does nothing does not notice.
            s.query_killed = s.pending.is_some();
        } else {
            s.killed = true;
            if s.pending.is_none() {
                self.disconnect(session);
            }
        }
    }

    pub(crate) fn next_row(&mut self) -> i64 {
        self.next_row += 1;
        // Rows without a key of their own stand behind all that could have one.
        (1 << 62) + self.next_row
    }

    /// A new table counts from one.
    pub(crate) fn forget_auto(&mut self, name: &Name) {
        for node in &mut self.nodes {
            node.auto.remove(name);
        }
    }
}
