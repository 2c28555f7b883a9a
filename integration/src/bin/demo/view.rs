//! What the demonstration looks like: a frame of figures made into lines, with or without colours. Nothing here prints.

use std::collections::BTreeMap;
use std::time::Duration;

use super::board::{Counts, Event, Fault, Faults};
use super::chaos::Fate;
use super::kinds::Kind;
use super::seen::Seen;
use super::verdict::in_brackets;

/// Events that are shown at one time.
const EVENTS_SHOWN: usize = 10;
/// Seconds of the past in the little chart.
pub const HISTORY: usize = 60;
/// Width of the bar of a node.
const BAR: usize = 30;

/// One second of the demonstration.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// Since the start.
    pub elapsed: Duration,
    /// How long it shall run.
    pub time: Duration,
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// What was done to them.
    pub fates: Vec<Fate>,
    /// What belay says.
    pub seen: Seen,
    /// All counts so far.
    pub counts: Counts,
    /// What was counted since the last frame.
    pub delta: Counts,
    /// Seconds since the last frame.
    pub seconds: f64,
    /// Statements a second, the latest last.
    pub history: Vec<f64>,
    /// Errors of clients.
    pub errors: BTreeMap<Kind, u64>,
    /// What must not be.
    pub faults: Faults,
    /// The longest wait, and the longest of those who wait now.
    pub stalls: (Duration, Duration),
    /// All events.
    pub events: Vec<Event>,
}

impl Counts {
    /// What was counted since `before`.
    pub fn since(&self, before: &Counts) -> Counts {
        let served = self.served.iter().enumerate();
        Counts {
            reads: self.reads.saturating_sub(before.reads),
            transfers: self.transfers.saturating_sub(before.transfers),
            idle: self.idle.saturating_sub(before.idle),
            committed: self.committed.saturating_sub(before.committed),
            resolved: self.resolved.saturating_sub(before.resolved),
            checked: self.checked.saturating_sub(before.checked),
            state_checked: self.state_checked.saturating_sub(before.state_checked),
            served: served.map(|(i, n)| n.saturating_sub(before.served.get(i).copied().unwrap_or(0))).collect(),
        }
    }
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub struct Paint {
    /// Whether to colour.
    pub colours: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }
    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    fn good(self, text: &str) -> String {
        self.with("32", text)
    }
    fn bad(self, text: &str) -> String {
        self.with("1;31", text)
    }
    fn warn(self, text: &str) -> String {
        self.with("33", text)
    }
}

/// `m:ss`.
pub fn clock(time: f64) -> String {
    let seconds = time.max(0.0) as u64;
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

impl Frame {
    fn per_second(&self, n: u64) -> f64 {
        n as f64 / self.seconds.max(0.001)
    }

    /// What state a node is in, and how good that is: 0 serves, 1 on its way, 2 gone.
    fn state(&self, i: usize) -> (String, u8) {
        let belay = self.seen.states.get(i).map_or("unknown", String::as_str);
        match self.fates.get(i) {
            Some(Fate::Killed) => ("killed".into(), 2),
            Some(Fate::Starting) => ("starting again".into(), 1),
            _ if belay == "serving" => (belay.into(), 0),
            _ => (belay.replace('_', " "), 1),
        }
    }

    /// The part of the last second's statements that a node served, 0 to 1; nothing if there were none.
    fn share(&self, i: usize) -> Option<f64> {
        let total: u64 = self.delta.served.iter().sum();
        (total > 0).then(|| self.delta.served.get(i).copied().unwrap_or(0) as f64 / total as f64)
    }

    /// The whole view.
    pub fn lines(&self, paint: Paint) -> Vec<String> {
        let mut lines = vec![
            format!(
                "{}   {} of {}   {}",
                paint.bold("belay demo"),
                clock(self.elapsed.as_secs_f64()),
                clock(self.time.as_secs_f64()),
                paint.dim(&format!(
                    "{} clients share {} server sessions        Ctrl-C ends it",
                    self.seen.clients, self.seen.servers
                )),
            ),
            String::new(),
            format!(
                "statements/s  {}  {}",
                paint.bold(&format!("{:>6.0}", self.per_second(self.delta.statements()))),
                spark(&self.history)
            ),
            paint.dim(&format!(
                "              readers {:.0}, transactions {:.0} ({:.0} committed), idle clients {:.0}",
                self.per_second(self.delta.reads),
                self.per_second(self.delta.transfers),
                self.per_second(self.delta.committed),
                self.per_second(self.delta.idle),
            )),
            String::new(),
        ];
        lines.extend((0..self.nodes.len()).map(|i| self.node_line(i, paint)));
        lines.push(String::new());
        lines.extend(self.client_lines(paint));
        lines.push(String::new());
        lines.extend(self.events.iter().rev().take(EVENTS_SHOWN).rev().map(|e| event_line(e, paint)));
        lines
    }

    fn node_line(&self, i: usize, paint: Paint) -> String {
        let (state, how) = self.state(i);
        let (mark, state) = match how {
            0 => (paint.good("●"), format!("{state:<15}")),
            1 => (paint.warn("◐"), paint.warn(&format!("{state:<15}"))),
            _ => (paint.bad("✗"), paint.bad(&format!("{state:<15}"))),
        };
        let role = if self.seen.writer == Some(i) { "writer" } else { "" };
        let share = self.share(i);
        let bar = "█".repeat((share.unwrap_or(0.0) * BAR as f64).round() as usize);
        let percent = share.map_or_else(|| "-".into(), |s| format!("{:.0} %", s * 100.0));
        let name = self.nodes.get(i).map_or("", String::as_str);
        format!("  {name}  {mark} {state} {role:<7} {percent:>5}  {}", paint.good(&bar))
    }

    fn client_lines(&self, paint: Paint) -> Vec<String> {
        let (longest, present) = self.stalls;
        let mut faults: Vec<String> = Vec::new();
        for fault in Fault::ALL {
            let text = format!("{} {}", self.faults.count(fault), fault.name());
            faults.push(if self.faults.count(fault) == 0 { paint.good(&text) } else { paint.bad(&text) });
        }
        let errors: Vec<(String, u64)> = self.errors.iter().map(|(k, n)| (k.name().to_owned(), *n)).collect();
        let total: u64 = errors.iter().map(|(_, n)| n).sum();
        let resolved = match self.counts.resolved {
            0 => String::new(),
            n => format!("; {n} unknown found committed"),
        };
        let (first, second) = faults.split_at(3);
        let dot = paint.dim(" · ");
        vec![
            format!("lost or wrong {}", first.join(&dot)),
            format!("              {}", second.join(&dot)),
            format!("errors seen   {total}{}{resolved}", in_brackets(&errors)),
            format!("masked        {}{}", self.seen.masked_total(), in_brackets(&self.seen.masked)),
            format!("held          {} wait for a node now, {} have waited", self.seen.holds, self.seen.holds_total),
            format!(
                "pins          {} now{}, {} taken",
                self.seen.pinned.iter().map(|(_, n)| n).sum::<u64>(),
                in_brackets(&self.seen.pinned),
                self.seen.pins_total
            ),
            format!(
                "checked       {} answers, {} values of idle sessions",
                self.counts.checked, self.counts.state_checked
            ),
            format!(
                "longest wait  {:.2} s{}",
                longest.as_secs_f64(),
                if present.as_secs_f64() >= 0.2 {
                    paint.warn(&format!("  (somebody has waited {:.1} s now)", present.as_secs_f64()))
                } else {
                    String::new()
                }
            ),
        ]
    }

    /// The same in one line, for a log.
    pub fn plain(&self) -> String {
        let node = |i: usize| {
            let (state, _) = self.state(i);
            let writer = if self.seen.writer == Some(i) { " writer" } else { "" };
            let percent = self.share(i).map_or_else(|| "-".into(), |s| format!("{:.0}%", s * 100.0));
            format!("{} {state}{writer} {percent}", self.nodes.get(i).map_or("", String::as_str))
        };
        let nodes: Vec<String> = (0..self.nodes.len()).map(node).collect();
        let lost: u64 = Fault::ALL.iter().map(|f| self.faults.count(*f)).sum();
        format!(
            "{}  {:.0}/s  {}  errors {}  masked {}  pinned {}{}  lost {lost}  longest wait {:.2} s",
            clock(self.elapsed.as_secs_f64()),
            self.per_second(self.delta.statements()),
            nodes.join(" | "),
            self.errors.values().sum::<u64>(),
            self.seen.masked_total(),
            self.seen.pinned.iter().map(|(_, n)| n).sum::<u64>(),
            in_brackets(&self.seen.pinned),
            self.stalls.0.as_secs_f64(),
        )
    }
}

/// An event in one line.
pub fn event_line(event: &Event, paint: Paint) -> String {
    format!("{}  {}", paint.dim(&format!("{:>5}", clock(event.at))), event.text)
}

/// A chart one line high.
fn spark(history: &[f64]) -> String {
    const STEPS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let highest = history.iter().copied().fold(1.0, f64::max);
    let step = |n: &f64| STEPS.get(((n / highest) * 7.0).round() as usize).copied().unwrap_or('█');
    history.iter().rev().take(HISTORY).rev().map(step).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame() -> Frame {
        let seen = Seen {
            states: vec!["serving".into(), "down".into(), "serving".into()],
            writer: Some(2),
            masked: vec![("idle_loss".into(), 12), ("refused".into(), 0)],
            pins_total: 3,
            clients: 316,
            servers: 20,
            ..Seen::default()
        };
        let counts = Counts {
            reads: 5000,
            transfers: 700,
            idle: 40,
            committed: 100,
            served: vec![0, 0, 50],
            ..Counts::default()
        };
        Frame {
            elapsed: Duration::from_secs(37),
            time: Duration::from_secs(90),
            nodes: vec!["n1".into(), "n2".into(), "n3".into()],
            fates: vec![Fate::Runs, Fate::Killed, Fate::Runs],
            delta: counts.clone(),
            counts,
            seen,
            seconds: 2.0,
            history: vec![0.0, 100.0, 200.0],
            errors: BTreeMap::from([(Kind::Unknown, 2)]),
            stalls: (Duration::from_millis(1230), Duration::ZERO),
            events: vec![Event { at: 30.0, text: "n2 was killed".into() }],
            ..Frame::default()
        }
    }

    #[test]
    fn everything_that_matters_is_there() {
        let text = frame().lines(Paint { colours: false }).join("\n");
        for part in [
            "0:37 of 1:30",
            "316 clients share 20 server sessions",
            "statements/s    2870  ▁▅█",
            "n1  ● serving                   0 %",
            "n2  ✗ killed",
            "n3  ● serving         writer  100 %  ██████████████████████████████",
            "0 client connections lost · 0 wrong answers · 0 session state lost\n",
            "              0 dishonest errors · 0 unfinished transactions\n",
            "errors seen   2 (2 outcome unknown)",
            "masked        12 (12 idle_loss)",
            "pins          0 now, 3 taken",
            "longest wait  1.23 s",
            "0:30  n2 was killed",
        ] {
            assert!(text.contains(part), "no '{part}' in\n{text}");
        }
        assert!(!text.contains('\x1b'));
    }

    #[test]
    fn it_fits_on_a_usual_terminal() {
        let mut full = frame();
        full.errors = BTreeMap::from([(Kind::TransactionLost, 17), (Kind::Unknown, 12), (Kind::Interrupted, 12)]);
        full.seen.masked =
            [("idle_loss", 12), ("not_sent", 115), ("refused", 20), ("read_again", 132), ("rollback", 1)]
                .map(|(name, n)| (name.to_owned(), n))
                .into();
        full.history = vec![1.0; 2 * HISTORY];
        for line in full.lines(Paint { colours: false }) {
            assert!(line.chars().count() <= 90, "{line}");
        }
    }

    #[test]
    fn a_loss_is_red_and_its_absence_green() {
        let paint = Paint { colours: true };
        assert!(frame().lines(paint).join("\n").contains("\x1b[32m0 wrong answers\x1b[0m"));
        let mut bad = frame();
        bad.faults.add(Fault::WrongAnswer, "x".into());
        assert!(bad.lines(paint).join("\n").contains("\x1b[1;31m1 wrong answers\x1b[0m"));
        assert!(bad.plain().contains("lost 1"), "{}", bad.plain());
    }

    #[test]
    fn a_second_is_one_plain_line() {
        let line = frame().plain();
        assert_eq!(
            line,
            "0:37  2870/s  n1 serving 0% | n2 killed 0% | n3 serving writer 100%  errors 2  masked 12  pinned 0  lost 0  \
             longest wait 1.23 s"
        );
    }

    #[test]
    fn only_the_last_events_are_shown() {
        let mut many = frame();
        many.events = (0..30).map(|i| Event { at: f64::from(i), text: format!("event {i}.") }).collect();
        let text = many.lines(Paint { colours: false }).join("\n");
        assert!(text.contains("event 29.") && text.contains("event 20.") && !text.contains("event 19."));
    }
}
