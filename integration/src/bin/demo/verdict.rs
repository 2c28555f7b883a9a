//! The summary and the exit status: what was shown, and whether anything was lost.

use std::collections::BTreeMap;
use std::time::Duration;

use super::board::{Counts, Fault, Faults};
use super::kinds::Kind;

/// Everything that the verdict rests on.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// How long the load ran.
    pub seconds: f64,
    /// Ended by Ctrl-C: then there need not have been kills.
    pub interrupted: bool,
    /// Clients of all sorts.
    pub clients: u64,
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// Counts of the load.
    pub counts: Counts,
    /// Errors that clients got.
    pub errors: BTreeMap<Kind, u64>,
    /// What must not happen and did.
    pub faults: Faults,
    /// Kills of a node that was the writer.
    pub writer_kills: u64,
    /// Kills of others.
    pub other_kills: u64,
    /// Failures that clients were spared, by kind.
    pub masked: Vec<(String, u64)>,
    /// Statements that had to wait for a node.
    pub holds: u64,
    /// Pins taken.
    pub pins: u64,
    /// The longest wait for one answer.
    pub longest: Duration,
    /// Nodes whose rows were compared at the end.
    pub nodes_compared: u64,
    /// What is wrong with the rows at the end.
    pub wrong_rows: Vec<String>,
    /// What kept the demonstration from being carried out: a node that did not come back, belay gone.
    pub broken: Vec<String>,
}

impl Figures {
    /// Why the exit status is not 0; nothing if all is well.
    pub fn failures(&self) -> Vec<String> {
        let mut all = self.broken.clone();
        for fault in Fault::ALL {
            match self.faults.count(fault) {
                0 => {}
                n => all.push(format!("{n} {}", fault.name())),
            }
        }
        all.extend(self.faults.shown().map(|text| format!("  {text}")));
        all.extend(self.wrong_rows.iter().cloned());
        // A demonstration in which nothing happened shows nothing.
        if self.nodes_compared == 0 {
            all.push("the rows were not compared on any node".into());
        }
        let none = |n: u64, what: &str| (n == 0 && !self.interrupted).then(|| format!("nothing was shown: {what}"));
        all.extend(none(self.counts.reads, "no reads"));
        all.extend(none(self.counts.committed, "no transactions"));
        all.extend(none(self.counts.state_checked, "no idle client looked at its session"));
        all.extend(none(self.writer_kills, "the writer was never killed"));
        all
    }

    /// The summary, line by line.
    pub fn summary(&self) -> Vec<String> {
        let counts = &self.counts;
        let statements = counts.statements();
        let mut lines = vec![
            format!("ran                     {:.0} s, {} clients", self.seconds, self.clients),
            format!("statements              {statements} ({:.0}/s)", statements as f64 / self.seconds.max(0.001)),
            format!(
                "transactions committed  {} (+ {} of unknown outcome, found committed)",
                counts.committed, counts.resolved
            ),
            format!("served by               {}", self.shares()),
            format!("answers checked         {}", counts.checked),
            format!("session values checked  {}", counts.state_checked),
            format!(
                "nodes killed            {} ({} as the writer)",
                self.writer_kills + self.other_kills,
                self.writer_kills
            ),
            format!("failures masked         {}{}", self.masked_total(), in_brackets(&self.masked)),
            format!("statements held         {}", self.holds),
            format!("pins taken              {}", self.pins),
        ];
        let errors: Vec<(String, u64)> = self.errors.iter().map(|(kind, n)| (kind.name().to_owned(), *n)).collect();
        let total: u64 = errors.iter().map(|(_, n)| n).sum();
        lines.push(format!("errors clients got      {total}{}", in_brackets(&errors)));
        lines.push(format!("longest wait            {:.2} s", self.longest.as_secs_f64()));
        lines.push(String::new());
        lines.extend(Fault::ALL.iter().map(|f| format!("{:<23} {}", f.name(), self.faults.count(*f))));
        lines.push(format!(
            "{:<23} {} (compared on {} nodes)",
            "rows wrong at the end",
            self.wrong_rows.len(),
            self.nodes_compared
        ));
        lines.push(String::new());
        let failures = self.failures();
        if failures.is_empty() {
            lines.push("OK: nothing was lost, nothing happened twice, and every error said what was true.".into());
        } else {
            lines.push("FAILED:".into());
            lines.extend(failures.iter().map(|f| format!("  {f}")));
        }
        lines
    }

    /// The share of each node in the statements whose answers tell who served them.
    fn shares(&self) -> String {
        let total = self.counts.served.iter().sum::<u64>().max(1) as f64;
        let share = |(name, n): (&String, &u64)| format!("{name} {:.0} %", *n as f64 * 100.0 / total);
        self.nodes.iter().zip(&self.counts.served).map(share).collect::<Vec<_>>().join(", ")
    }

    fn masked_total(&self) -> u64 {
        self.masked.iter().map(|(_, n)| n).sum()
    }
}

/// ` (3 a, 1 b)`, without those that are 0; nothing if all are.
pub fn in_brackets(all: &[(String, u64)]) -> String {
    let some: Vec<String> = all.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{n} {name}")).collect();
    if some.is_empty() { String::new() } else { format!(" ({})", some.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Figures {
        Figures {
            seconds: 20.0,
            clients: 100,
            nodes: vec!["n1".into(), "n2".into()],
            counts: Counts {
                reads: 900,
                transfers: 90,
                idle: 10,
                committed: 9,
                state_checked: 5,
                served: vec![30, 90],
                ..Counts::default()
            },
            errors: BTreeMap::from([(Kind::TransactionLost, 2), (Kind::Unknown, 1)]),
            writer_kills: 1,
            other_kills: 1,
            masked: vec![("idle_loss".into(), 4), ("refused".into(), 0), ("read_again".into(), 2)],
            nodes_compared: 3,
            ..Figures::default()
        }
    }

    #[test]
    fn honest_errors_cost_nothing() {
        assert_eq!(good().failures(), [""; 0]);
        let text = good().summary().join("\n");
        assert!(text.contains("statements              1000 (50/s)"), "{text}");
        assert!(text.contains("served by               n1 25 %, n2 75 %"), "{text}");
        assert!(text.contains("nodes killed            2 (1 as the writer)"), "{text}");
        assert!(text.contains("failures masked         6 (4 idle_loss, 2 read_again)"), "{text}");
        assert!(text.contains("errors clients got      3 (2 transaction lost, 1 outcome unknown)"), "{text}");
        assert!(text.contains("OK: "), "{text}");
    }

    #[test]
    fn any_loss_costs_the_exit_status() {
        for fault in Fault::ALL {
            let mut figures = good();
            figures.faults.add(fault, "this one".into());
            let text = figures.summary().join("\n");
            assert!(!figures.failures().is_empty(), "{fault:?}");
            assert!(text.contains("FAILED:") && text.contains("this one") && !text.contains("OK: "), "{text}");
        }
        let wrong = Figures { wrong_rows: vec!["n1: x".into()], ..good() };
        assert_eq!(wrong.failures(), ["n1: x"]);
        let broken = Figures { broken: vec!["belay is gone".into()], ..good() };
        assert_eq!(broken.failures(), ["belay is gone"]);
    }

    #[test]
    fn showing_nothing_is_a_failure_unless_it_was_interrupted() {
        let nothing = Figures { nodes_compared: 3, ..Figures::default() };
        assert_eq!(nothing.failures().len(), 4);
        assert_eq!(Figures { interrupted: true, ..nothing }.failures(), [""; 0]);
        let unchecked = Figures { nodes_compared: 0, interrupted: true, ..good() };
        assert_eq!(unchecked.failures().len(), 1);
    }
}
