//! One command of a session: from its payload to the packets of its answer.

use std::sync::Arc;

use crate::ast::{Parsed, Stmt};
use crate::cluster::{Cluster, SessionId};
use crate::error::Error;
use crate::run::{Flow, Made, Run, interrupted};
use crate::session::{Pending, Session};
use crate::tracker::Tracker;
use crate::wire::{caps, err_packet, frame};

/// What a command comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The answer's payloads, and whether the server closes the connection behind them. Commands without an answer have none.
    Answer(Vec<Vec<u8>>, bool),
    /// Somebody else has to do something first: ask again with [`Cluster::poll`].
    Waits,
}

impl Outcome {
    /// The answer in frames; the first has sequence number 1.
    pub fn framed(&self) -> Vec<u8> {
        match self {
            Outcome::Answer(payloads, _) => frame(payloads, 1),
            Outcome::Waits => Vec::new(),
        }
    }
}

impl Cluster {
    /// Runs a command. `now` is in milliseconds.
    pub fn command(&mut self, session: SessionId, payload: &[u8], now: u64) -> Outcome {
        let Some(mut s) = self.sessions.get_mut(&session).and_then(Option::take) else {
            return Outcome::Answer(Vec::new(), true);
        };
        let pending = Pending { payload: payload.to_vec(), from: 0, done: Vec::new(), since: now };
        let outcome = self.dispatch(&mut s, pending, now, None);
        self.put_back(session, s, outcome)
    }

    /// Asks a command that waits again.
    pub fn poll(&mut self, session: SessionId, now: u64) -> Outcome {
        let Some(mut s) = self.sessions.get_mut(&session).and_then(Option::take) else {
            return Outcome::Answer(Vec::new(), true);
        };
        let Some(pending) = s.pending.take() else {
            self.sessions.insert(session, Some(s));
            return Outcome::Answer(Vec::new(), false);
        };
        let since = pending.since;
        let outcome = self.dispatch(&mut s, pending, now, Some(since));
        self.put_back(session, s, outcome)
    }

    /// The payload of the OK that ends a login.
    pub fn login_ok(&mut self, session: SessionId) -> Vec<u8> {
        let Some(mut s) = self.sessions.get_mut(&session).and_then(Option::take) else { return Vec::new() };
        let mut run = Run::new(self, &mut s, 0, None);
        run.ok(0, 0, "");
        let packet = run.out.pop().unwrap_or_default();
        self.sessions.insert(session, Some(s));
        packet
    }

    fn put_back(&mut self, session: SessionId, s: Session, outcome: Outcome) -> Outcome {
        let closes = matches!(outcome, Outcome::Answer(_, true));
        self.sessions.insert(session, Some(s));
        if closes {
            self.disconnect(session);
        }
        outcome
    }

    fn dispatch(&mut self, s: &mut Session, pending: Pending, now: u64, since: Option<u64>) -> Outcome {
        self.waiting.remove(&s.key);
        if s.killed {
            let maria = self.dialect.is_maria();
            let error = if maria { Error::new(1927, "70100", "Connection was killed") } else { interrupted() };
            return Outcome::Answer(vec![err_packet(&error)], true);
        }
        let mut run = Run::new(self, s, now, since);
        if std::mem::take(&mut run.s.query_killed) && since.is_some() {
            let error = interrupted();
            run.failed(&error);
            run.out = pending.done;
            run.out.push(err_packet(&error));
            return Outcome::Answer(std::mem::take(&mut run.out), false);
        }
        let Some((code, body)) = pending.payload.split_first() else {
            return Outcome::Answer(vec![err_packet(&Error::new(1047, "08S01", "Unknown command"))], false);
        };
        if *code == 3 {
            return run.query(body, &pending);
        }
        let made = run.simple(*code, body);
        run.finish(made, &pending, 0)
    }
}

impl Run<'_> {
    /// COM_QUERY, which may hold several statements.
    fn query(mut self, body: &[u8], pending: &Pending) -> Outcome {
        let text = String::from_utf8_lossy(body).into_owned();
        let multi = self.s.caps & caps::MULTI_STATEMENTS != 0;
        self.out = pending.done.clone();
        let mut from = pending.from;
        loop {
            let start = self.out.len();
            let parsed = match self.c.parse(&text[from..], self.s.modes, multi) {
                Ok(parsed) => parsed,
                Err(error) => return self.refuse(&error, from, pending),
            };
            if parsed.stmt == Stmt::Empty && text[from..].trim_end().chars().all(|c| c == ';' || c.is_whitespace()) {
                return self.refuse(&Error::new(1065, "42000", "Query was empty"), from, pending);
            }
            self.more = parsed.next.is_some();
            let made = self.one(&parsed);
            if let Err(Flow::Wait) = made {
                self.out.truncate(start);
            }
            match (made, parsed.next) {
                (Ok(()), Some(next)) => {
                    self.since = None;
                    from += next;
                }
                (made, _) => return self.finish(made, pending, from),
            }
        }
    }

    fn one(&mut self, parsed: &Arc<Parsed>) -> Made<()> {
        self.statement(parsed)
    }

    /// A text that cannot be read.
    fn refuse(mut self, error: &Error, from: usize, pending: &Pending) -> Outcome {
        self.begin_diagnostics(&Stmt::Empty);
        self.more = false;
        self.finish(Err(Flow::Error(error.clone())), pending, from)
    }

    fn finish(mut self, made: Made<()>, pending: &Pending, from: usize) -> Outcome {
        match made {
            Ok(()) => Outcome::Answer(self.out, false),
            Err(Flow::Close) => Outcome::Answer(self.out, true),
            Err(Flow::Wait) => {
                let (done, payload) = (std::mem::take(&mut self.out), pending.payload.clone());
                // What comes behind other statements of the text begins to wait now.
                let since = if from == pending.from { pending.since } else { self.now };
                self.s.pending = Some(Pending { payload, from, done, since });
                Outcome::Waits
            }
            Err(Flow::Error(error)) => {
                self.failed(&error);
                self.out.push(err_packet(&error));
                let closes = error.code == 1927;
                Outcome::Answer(self.out, closes)
            }
        }
    }

    /// Commands other than COM_QUERY.
    fn simple(&mut self, code: u8, body: &[u8]) -> Made<()> {
        let text = || String::from_utf8_lossy(body).into_owned();
        // Commands that are no statements leave the diagnostics area alone; MySQL counts what the statement before them left in it.
        if self.is_maria() {
            self.s.own_conditions = 0;
            self.s.stale = true;
        }
        match code {
            1 => Err(Flow::Close),
            2 => {
                let schema: Arc<str> = text().into();
                self.use_schema(&schema)?;
                self.ok(0, 0, "");
                Ok(())
            }
            9 => {
                self.out.push(b"Uptime: 1  Threads: 1  Questions: 1  Slow queries: 0".to_vec());
                Ok(())
            }
            0x0e => {
                self.ok(0, 0, "");
                Ok(())
            }
            0x11 => self.change_user(body),
            0x16 => self.com_prepare(&text()),
            0x17 => self.com_execute(body),
            0x18 => {
                self.com_long_data(body);
                Ok(())
            }
            0x19 => {
                self.s.prepared.remove(&crate::run::u32_at(body, 0));
                Ok(())
            }
            0x1a => self.com_reset_statement(body),
            0x1b => self.set_option(body),
            0x1c => self.com_fetch(body),
            0x1f => {
                self.reset(self.s.role.clone(), 0);
                self.ok(0, 0, "");
                Ok(())
            }
            5 | 6 | 0x0f | 0x14 => Err(Error::new(1047, "08S01", "Unknown command").into()),
            code if code > 0x1f => Err(Error::new(1047, "08S01", "Unknown command").into()),
            _ => self.not_modelled(),
        }
    }

    fn not_modelled(&self) -> Made<()> {
        Err(crate::error::unsupported("this command").into())
    }

    fn set_option(&mut self, body: &[u8]) -> Made<()> {
        match body {
            [0, 0] => self.s.caps |= caps::MULTI_STATEMENTS,
            [1, 0] => self.s.caps &= !caps::MULTI_STATEMENTS,
            [_, _] => return Err(Error::new(1047, "08S01", "Unknown command").into()),
            _ => return self.not_modelled(),
        }
        self.s.tracker.add(crate::tracker::place::RESULT);
        self.s.row_count = -1;
        let end = self.end_of_rows(0);
        self.out.push(end);
        Ok(())
    }

    /// What COM_RESET_CONNECTION and COM_CHANGE_USER begin with.
    pub(crate) fn reset(&mut self, role: Option<Arc<str>>, collation: u16) {
        self.end_transaction(false);
        let key = self.s.key;
        self.node().release_all(key);
        let s = &mut *self.s;
        s.role = role;
        s.user_vars.clear();
        s.temporary.clear();
        s.locked = false;
        s.prepared.clear();
        s.named.clear();
        s.diagnostics.clear();
        s.own_conditions = 0;
        s.before = (0, 0);
        s.stale = false;
        s.last_insert_id = 0;
        s.insert_id = 0;
        s.kept_ids = None;
        s.row_count = 0;
        s.timestamp = None;
        s.next = Default::default();
        // MySQL goes on telling the state of transactions, though the variable says otherwise.
        let transaction = if s.dialect.is_maria() { 0 } else { s.tracker.transaction.min(1) };
        s.tracker = Tracker::new();
        s.tracker.transaction = transaction;
        s.tracker.after_reset = true;
        self.c.fresh(s, collation);
    }

    fn change_user(&mut self, body: &[u8]) -> Made<()> {
        let mut parts = body.splitn(2, |b| *b == 0);
        let user = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let rest = parts.next().unwrap_or_default();
        let auth = usize::from(rest.first().copied().unwrap_or(0));
        let rest = rest.get(1 + auth..).unwrap_or_default();
        let mut parts = rest.splitn(2, |b| *b == 0);
        let schema = String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
        let charset = parts.next().unwrap_or_default();
        let collation = if let [low, high, ..] = charset { u16::from_le_bytes([*low, *high]) } else { 0 };
        let Some(admin) = self.c.admin_of(&user) else {
            let text = format!("Access denied for user '{user}'@'localhost' (using password: YES)");
            return Err(Error::new(1045, "28000", text).into());
        };
        self.s.user = user.as_str().into();
        self.s.is_admin = admin;
        self.s.schema = None;
        self.reset(None, collation);
        if !schema.is_empty() {
            self.use_schema(&schema.as_str().into())?;
        }
        self.ok(0, 0, "");
        Ok(())
    }
}
