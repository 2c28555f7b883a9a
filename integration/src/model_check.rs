//! The same script on a model server and on a real one, answer by answer.

use std::io::ErrorKind;
use std::time::Duration;

use belay_model::act::{Act, Shape};
use belay_model::answer::{Done, Reply, read};
use belay_model::{Cluster, Dialect, Outcome, SessionId};

use crate::Result;
use crate::wire::{Login, Wire, WireError};

/// How long a real server is given to show that it does not wait.
const STILL: Duration = Duration::from_millis(60);

/// What came of a script.
#[derive(Debug, Default)]
pub struct Checked {
    /// Steps whose answers were compared.
    pub compared: usize,
    /// What the model says it has no answer for, and where.
    pub refused: Vec<String>,
    /// Differences: the step's number and both answers.
    pub differences: Vec<(usize, String)>,
}

/// One session on both sides.
struct Pair {
    model: SessionId,
    real: Wire,
    ids: (Vec<u32>, Vec<u32>),
    /// The state of its transaction as each side told it last.
    told: [String; 2],
    /// The act whose answer both sides still owe.
    waits: Option<(usize, Act)>,
    open: bool,
}

/// Runs scripts against both.
pub struct Bench {
    address: String,
    cluster: Cluster,
    pairs: Vec<Pair>,
    now: u64,
    /// After a difference the script goes on, so that all of them are told.
    pub goes_on: bool,
    stopped: bool,
}

fn model_caps(login: &Login<'_>, server_caps: u32) -> u32 {
    login.caps & (server_caps | 1)
}

impl Bench {
    /// As many sessions as there are logins, on a new cluster of the model and on the server at `address`.
    pub fn new(dialect: Dialect, address: &str, logins: &[Login<'_>]) -> Result<Bench> {
        let mut cluster = Cluster::new(dialect, 1);
        let mut pairs = Vec::new();
        for login in logins {
            let real = Wire::login(address, login)?;
            let asked = belay_model::Login {
                user: login.user,
                host: if address.starts_with("unix:") { "localhost" } else { "127.0.0.1" },
                schema: login.schema,
                capabilities: model_caps(login, real.server_caps),
                collation: 45,
            };
            let model = cluster
                .connect(0, &asked)
                .map_err(|p| format!("the model refuses: {}", String::from_utf8_lossy(&p)))?;
            let mut pair = Pair {
                model,
                real,
                ids: Default::default(),
                told: ["state ________".to_owned(), "state ________".to_owned()],
                waits: None,
                open: true,
            };
            pair.real.socket().set_timeout(Some(Duration::from_secs(5)))?;
            pairs.push(pair);
        }
        // The login's own OK is not compared here; what it would have reported is taken off by a first command.
        let mut bench = Bench { address: address.to_owned(), cluster, pairs, now: 0, goes_on: false, stopped: false };
        for at in 0..bench.pairs.len() {
            let ping = Act::Ping;
            bench.model_answer(at, &ping);
            bench.pairs[at].real.send_command(0x0e, &[])?;
            bench.pairs[at].real.read_packet()?;
        }
        Ok(bench)
    }

    /// Where the real server is.
    pub fn address(&self) -> &str {
        &self.address
    }

    fn threads(&self) -> (Vec<u32>, Vec<u32>) {
        let model = self.pairs.iter().map(|p| self.cluster.thread_id(p.model)).collect();
        (model, self.pairs.iter().map(|p| p.real.connection_id).collect())
    }

    fn model_answer(&mut self, at: usize, act: &Act) -> Option<Vec<Vec<u8>>> {
        let threads = self.threads().0;
        let pair = &self.pairs[at];
        let payload = act.payload(&pair.ids.0, &threads);
        self.now += 1;
        match self.cluster.command(pair.model, &payload, self.now) {
            Outcome::Answer(packets, _) => Some(packets),
            Outcome::Waits => None,
        }
    }

    /// Runs the whole script.
    pub fn run(&mut self, script: &[(usize, Act)]) -> Result<Checked> {
        let mut checked = Checked::default();
        for (number, (at, act)) in script.iter().enumerate() {
            if !self.pairs[*at].open || self.pairs[*at].waits.is_some() {
                continue;
            }
            let stop = self.step(number, *at, act, &mut checked)?;
            if stop || self.stopped || (!checked.differences.is_empty() && !self.goes_on) {
                break;
            }
        }
        Ok(checked)
    }

    /// Statements for the real server alone, whose answers say nothing: what earlier scripts left there goes.
    pub fn real_only(&mut self, at: usize, statements: &[&str]) -> Result<()> {
        for sql in statements {
            self.pairs[at].real.query_all(sql).map_err(|e| format!("{sql}: {e}"))?;
        }
        // What that leaves in the session is the same as on the model's side: nothing.
        self.pairs[at].real.query_all("SELECT 1")?;
        self.model_only(at, &[Act::Query("SELECT 1".into())]);
        Ok(())
    }

    /// Commands that the server has seen before: the model alone does them, as session `at`.
    pub fn model_only(&mut self, at: usize, acts: &[Act]) {
        for act in acts {
            self.model_answer(at, act);
        }
    }

    fn step(&mut self, number: usize, at: usize, act: &Act, checked: &mut Checked) -> Result<bool> {
        if self.pairs.iter().any(|p| p.waits.is_some()) && matches!(act, Act::Query(sql) if sql.contains("; ")) {
            // What its first statement lets go of, others take while it goes on: a race.
            return Ok(true);
        }
        let packets = self.model_answer(at, act);
        if self.cluster.take_imprecise() {
            return Ok(true);
        }
        if let Some(packets) = &packets
            && unsupported(packets)
        {
            // Nothing is said to the real server; from here on the two could differ.
            let last = packets.last().map(|p| String::from_utf8_lossy(p.get(9..).unwrap_or_default()).into_owned());
            checked.refused.push(format!("{act:?}: {}", last.unwrap_or_default()));
            return Ok(!self.goes_on);
        }
        let threads = self.threads().1;
        let pair = &mut self.pairs[at];
        let payload = act.payload(&pair.ids.1, &threads);
        let (code, body) = payload.split_first().ok_or("an empty command")?;
        if pair.real.send_command(*code, body).is_err() {
            pair.open = false;
            return Ok(false);
        }
        match packets {
            Some(packets) => self.compare(number, at, act, packets, None, checked)?,
            // What comes before the statement that waits is on its way already.
            None if matches!(act, Act::Execute { .. })
                || matches!(act, Act::Query(sql) if sql.contains("; ") || sql.contains("CALL")) =>
            {
                return Ok(true);
            }
            None => {
                let pair = &mut self.pairs[at];
                pair.real.socket().set_timeout(Some(STILL))?;
                let early = pair.real.read_packet();
                pair.real.socket().set_timeout(Some(Duration::from_secs(5)))?;
                match early {
                    Err(WireError::Io(e)) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        pair.waits = Some((number, act.clone()));
                    }
                    Ok(packet) => {
                        let what = format!("session {at}: {act:?}\n  model: waits\n  real:  {packet:02x?}");
                        checked.differences.push((number, what));
                    }
                    Err(e) => return Err(e.into()),
                }
            }
        }
        self.wake(checked)?;
        Ok(false)
    }

    /// Asks every session that waits whether it still does.
    fn wake(&mut self, checked: &mut Checked) -> Result<()> {
        for at in 0..self.pairs.len() {
            let Some((number, act)) = self.pairs[at].waits.clone() else { continue };
            if !self.cluster.is_connected(self.pairs[at].model) {
                self.pairs[at].open = false;
                self.pairs[at].waits = None;
                continue;
            }
            if let Outcome::Answer(packets, _) = self.cluster.poll(self.pairs[at].model, self.now) {
                self.pairs[at].waits = None;
                self.compare(number, at, &act, packets, None, checked)?;
            }
        }
        Ok(())
    }

    fn compare(
        &mut self,
        number: usize,
        at: usize,
        act: &Act,
        packets: Vec<Vec<u8>>,
        first: Option<Vec<u8>>,
        checked: &mut Checked,
    ) -> Result<()> {
        let pair = &mut self.pairs[at];
        let caps = pair.real.caps;
        let mut packets = packets.into_iter();
        let shape = act.shape();
        let model = read::<String>(shape, caps, &mut || {
            packets.next().ok_or_else(|| "the model's answer ends early".to_owned())
        });
        let mut first = first;
        let wire = &mut pair.real;
        let real = read::<WireError>(shape, caps, &mut || match first.take() {
            Some(packet) => Ok(packet),
            None => wire.read_packet(),
        });
        let (model, id) = model.map_err(|e| format!("{act:?}: {e}"))?;
        if let Some(left) = packets.next() {
            return Err(format!("{act:?}: the model says more than one answer: {left:02x?}").into());
        }
        let (real, real_id) = match real {
            Ok(real) => real,
            Err(WireError::Io(_)) if !self.cluster.is_connected(pair.model) => {
                pair.open = false;
                (Vec::new(), None)
            }
            Err(e) => return Err(format!("{act:?}: {e}, where the model says {model:?}").into()),
        };
        if shape == Shape::Prepared {
            pair.ids.0.push(id.unwrap_or(0xff_ffff));
            pair.ids.1.push(real_id.unwrap_or(0xff_ffff));
        }
        checked.compared += 1;
        let (model, _) = normal(model, &mut pair.told[0]);
        let (real, old_news) = normal(real, &mut pair.told[1]);
        // A state that was told again, for a reason that the model does not know, may take other changes with it that were left untold.
        if model != real && old_news {
            self.stopped = true;
            return Ok(());
        }
        if model != real && pair.open {
            let what = format!("session {at}: {act:?}\n  model: {}\n  real:  {}", shown(&model), shown(&real));
            checked.differences.push((number, what));
        }
        if !self.cluster.is_connected(self.pairs[at].model) {
            self.pairs[at].open = false;
        }
        Ok(())
    }
}

/// What differs between runs of the same server is taken out: numbers of statements in messages.
fn normal(mut replies: Vec<Reply>, told: &mut String) -> (Vec<Reply>, bool) {
    let mut old_news = false;
    for reply in &mut replies {
        if let Reply::Ok(end) | Reply::Rows { end, .. } = reply {
            old_news |= only_news(end, told);
        }
        match reply {
            Reply::Err { code: 1243 | 1421, message, .. } => {
                let digits = |c: char| c.is_ascii_digit();
                *message = message.split(digits).collect::<Vec<_>>().concat();
            }
            Reply::Rows { rows, .. } => {
                // Where in a procedure or a text an error came from is not modelled.
                for row in rows.iter_mut() {
                    let found = |text: &[u8]| row.windows(text.len()).position(|w| w == text);
                    if let Some(at) = found(b"At line ").or_else(|| found(b"You have an error in your SQL syntax")) {
                        row.truncate(at);
                        if let Some(last) = row.last_mut() {
                            *last = 0;
                        }
                    }
                }
            }
            _ => {}
        }
    }
    (replies, old_news)
}

/// A state that is told again because only the mark of an unsafe statement has changed in it, which the model does not know, is no news.
fn only_news(end: &mut Done, told: &mut String) -> bool {
    let Some(at) = end.changes.iter().position(|c| c.starts_with("state ")) else { return false };
    if end.changes[at] == *told {
        end.changes.remove(at);
        if end.changes.is_empty() {
            end.status &= !belay_model::status::SESSION_STATE_CHANGED;
        }
        return true;
    }
    told.clone_from(&end.changes[at]);
    false
}

fn shown(replies: &[Reply]) -> String {
    let one = |reply: &Reply| match reply {
        Reply::Rows { heads, rows, end } => {
            let rows: Vec<String> =
                rows.iter().map(|r| String::from_utf8_lossy(r).escape_debug().to_string()).collect();
            let heads: Vec<String> = heads
                .iter()
                .map(|h| format!("{} {:02x}/{}{}", h.name, h.ty, h.charset, if h.unsigned { "u" } else { "" }))
                .collect();
            format!("Rows({heads:?} {rows:?} {})", done(end))
        }
        Reply::Ok(end) => format!("Ok({})", done(end)),
        other => format!("{other:?}"),
    };
    replies.iter().map(one).collect::<Vec<_>>().join(" | ")
}

fn done(d: &Done) -> String {
    format!("aff={} id={} st={:04x} w={} {:?} {:?}", d.affected, d.insert_id, d.status, d.warnings, d.info, d.changes)
}

fn unsupported(packets: &[Vec<u8>]) -> bool {
    packets.iter().any(|p| p.first() == Some(&0xff) && p.windows(18).any(|w| w == b"model: unsupported"))
}
