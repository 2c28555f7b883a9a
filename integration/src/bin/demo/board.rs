//! What all clients of the demonstration write down, for the view and for the verdict: counts, errors, faults, events.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::kinds::Kind;

/// Faults of one sort that are shown with their text.
const FAULTS_SHOWN: usize = 5;
/// Faults of one sort that are kept with their text; the rest is only counted.
const FAULT_TEXTS_MAX: usize = 1000;
/// Errors of clients that are kept with their text.
const ERROR_TEXTS_MAX: usize = 10_000;

/// The three sorts of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Reads rows whose content it knows.
    Reader,
    /// Runs transactions.
    Transfer,
    /// Idles, with a session full of state.
    Idle,
}

/// What must not happen. Each one costs the exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A client's connection broke.
    ConnectionLost,
    /// An answer that is not what it must be.
    WrongAnswer,
    /// Something that a session had set is gone.
    StateLost,
    /// An error that says what is not true, or that nothing explains.
    DishonestError,
    /// A transaction that could not be brought to an end.
    Unfinished,
}

impl Fault {
    /// All, in the order in which they are shown.
    pub const ALL: [Fault; 5] =
        [Fault::ConnectionLost, Fault::WrongAnswer, Fault::StateLost, Fault::DishonestError, Fault::Unfinished];

    /// Its name in the view and in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Fault::ConnectionLost => "client connections lost",
            Fault::WrongAnswer => "wrong answers",
            Fault::StateLost => "session state lost",
            Fault::DishonestError => "dishonest errors",
            Fault::Unfinished => "unfinished transactions",
        }
    }
}

/// How often each fault happened, and the first texts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    counts: BTreeMap<Fault, u64>,
    texts: Vec<(Fault, String)>,
}

impl Faults {
    /// One more.
    pub fn add(&mut self, fault: Fault, text: String) {
        *self.counts.entry(fault).or_default() += 1;
        if self.texts.iter().filter(|(f, _)| *f == fault).count() < FAULT_TEXTS_MAX {
            self.texts.push((fault, text));
        }
    }

    /// How many of one sort.
    pub fn count(&self, fault: Fault) -> u64 {
        self.counts.get(&fault).copied().unwrap_or(0)
    }

    /// The first ones of each sort, in words.
    pub fn shown(&self) -> impl Iterator<Item = &str> {
        let of = |fault| self.texts.iter().filter(move |(f, _)| *f == fault).take(FAULTS_SHOWN);
        Fault::ALL.into_iter().flat_map(of).map(|(_, text)| text.as_str())
    }

    /// All that are kept, in words.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.texts.iter().map(|(_, text)| text.as_str())
    }
}

/// Something that happened, `at` seconds after the start.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Seconds.
    pub at: f64,
    /// What, in words.
    pub text: String,
}

/// How long one client waits and has waited for answers.
#[derive(Debug)]
pub struct Slot {
    who: Who,
    /// Microseconds on the board's clock, plus one; 0 = it waits for nothing.
    asked: AtomicU64,
    /// Microseconds.
    longest: AtomicU64,
}

/// Numbers that only grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Statements answered, OK or not, to readers.
    pub reads: u64,
    /// The same to clients with transactions.
    pub transfers: u64,
    /// The same to idle clients.
    pub idle: u64,
    /// Transactions whose COMMIT was answered with OK.
    pub committed: u64,
    /// Transactions of unknown outcome that turned out to be committed.
    pub resolved: u64,
    /// Answers that were compared with what they must be.
    pub checked: u64,
    /// Values of idle sessions that were compared.
    pub state_checked: u64,
    /// Statements by the node that served them, where the answer tells.
    pub served: Vec<u64>,
}

impl Counts {
    /// All statements.
    pub fn statements(&self) -> u64 {
        self.reads + self.transfers + self.idle
    }
}

/// The board.
#[derive(Debug)]
pub struct Board {
    nodes: Vec<String>,
    epoch: Instant,
    started: Mutex<Option<Instant>>,
    stop: AtomicBool,
    ready: AtomicU64,
    slots: Mutex<Vec<Arc<Slot>>>,
    counts: Mutex<Counts>,
    errors: Mutex<BTreeMap<Kind, u64>>,
    error_texts: Mutex<Vec<String>>,
    faults: Mutex<Faults>,
    events: Mutex<Vec<Event>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Board {
    /// An empty one for nodes with these names.
    pub fn new(nodes: Vec<String>) -> Arc<Board> {
        let counts = Counts { served: vec![0; nodes.len()], ..Counts::default() };
        Arc::new(Board {
            nodes,
            epoch: Instant::now(),
            started: Mutex::new(None),
            stop: AtomicBool::new(false),
            ready: AtomicU64::new(0),
            slots: Mutex::default(),
            counts: Mutex::new(counts),
            errors: Mutex::default(),
            error_texts: Mutex::default(),
            faults: Mutex::default(),
            events: Mutex::default(),
        })
    }

    /// The names of the nodes.
    pub fn nodes(&self) -> &[String] {
        &self.nodes
    }

    /// A client has logged in and set up its session.
    pub fn client_is_ready(&self) {
        self.ready.fetch_add(1, Ordering::Relaxed);
    }

    /// How many have.
    pub fn ready(&self) -> u64 {
        self.ready.load(Ordering::Relaxed)
    }

    /// The clock starts: setting up does not count as a stall or as load.
    pub fn start(&self) {
        *lock(&self.started) = Some(Instant::now());
        for slot in lock(&self.slots).iter() {
            slot.longest.store(0, Ordering::Relaxed);
        }
        let mut counts = lock(&self.counts);
        counts.reads = 0;
        counts.transfers = 0;
        counts.idle = 0;
        counts.served.iter_mut().for_each(|n| *n = 0);
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        lock(&self.started).map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Asks all clients to come to an end.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether they were asked.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Sleeps for `time`, or until everything is to end.
    pub fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.is_stopped() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    /// A place for one client's waits.
    pub fn slot(&self, who: Who) -> Arc<Slot> {
        let slot = Arc::new(Slot { who, asked: AtomicU64::new(0), longest: AtomicU64::new(0) });
        lock(&self.slots).push(Arc::clone(&slot));
        slot
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// Does `ask`, which waits for an answer, and writes down how long that took.
    pub fn timed<T>(&self, slot: &Slot, ask: impl FnOnce() -> T) -> T {
        let began = self.now_us();
        slot.asked.store(began + 1, Ordering::Relaxed);
        let answer = ask();
        slot.asked.store(0, Ordering::Relaxed);
        slot.longest.fetch_max(self.now_us().saturating_sub(began), Ordering::Relaxed);
        let mut counts = lock(&self.counts);
        match slot.who {
            Who::Reader => counts.reads += 1,
            Who::Transfer => counts.transfers += 1,
            Who::Idle => counts.idle += 1,
        }
        answer
    }

    /// The longest that any client has waited for one answer, and the longest that one waits now.
    pub fn stalls(&self) -> (Duration, Duration) {
        let now = self.now_us();
        let (mut longest, mut present) = (0, 0);
        for slot in lock(&self.slots).iter() {
            let waits = match slot.asked.load(Ordering::Relaxed) {
                0 => 0,
                asked => now.saturating_sub(asked - 1),
            };
            present = present.max(waits);
            longest = longest.max(slot.longest.load(Ordering::Relaxed)).max(waits);
        }
        (Duration::from_micros(longest), Duration::from_micros(present))
    }

    /// `statements` were served by the node of this name.
    pub fn served_by(&self, node: &str, statements: u64) {
        let at = self.nodes.iter().position(|n| n == node);
        match at.and_then(|i| lock(&self.counts).served.get_mut(i).map(|n| *n += statements)) {
            Some(()) => {}
            None => self.fault(Fault::WrongAnswer, format!("an answer of a node that does not exist: '{node}'")),
        }
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// The counts now.
    pub fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    /// A client got an error; `text` says who, for what, and what it says.
    pub fn error(&self, kind: Kind, text: &str) {
        *lock(&self.errors).entry(kind).or_default() += 1;
        let mut texts = lock(&self.error_texts);
        if texts.len() < ERROR_TEXTS_MAX {
            texts.push(format!("{:.3} s  {}  {text}", self.elapsed().as_secs_f64(), kind.name()));
        }
    }

    /// The errors in words, in the order in which they came.
    pub fn error_texts(&self) -> Vec<String> {
        lock(&self.error_texts).clone()
    }

    /// The errors that clients got.
    pub fn errors(&self) -> BTreeMap<Kind, u64> {
        lock(&self.errors).clone()
    }

    /// Something that must not happen has happened.
    pub fn fault(&self, fault: Fault, text: String) {
        let at = self.elapsed().as_secs_f64();
        lock(&self.faults).add(fault, format!("at {at:.1} s: {text}"));
    }

    /// The faults.
    pub fn faults(&self) -> Faults {
        lock(&self.faults).clone()
    }

    /// Something worth telling.
    pub fn event(&self, text: impl Into<String>) {
        let at = self.elapsed().as_secs_f64();
        lock(&self.events).push(Event { at, text: text.into() });
    }

    /// All events so far.
    pub fn events(&self) -> Vec<Event> {
        lock(&self.events).clone()
    }
}
