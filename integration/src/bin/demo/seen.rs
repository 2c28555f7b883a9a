//! What belay says of itself, read from its `/metrics`.

use belay_integration::scrape::{Samples, get};
use belay_integration::{Error, Result};

/// One look at belay.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seen {
    /// The state of each node in belay's words.
    pub states: Vec<String>,
    /// The index of the writer.
    pub writer: Option<usize>,
    /// Failures that clients were spared, by kind.
    pub masked: Vec<(String, u64)>,
    /// Pins held now, by reason; those without any are left out.
    pub pinned: Vec<(String, u64)>,
    /// Pins taken since belay started.
    pub pins_total: u64,
    /// Statements that wait for a node now.
    pub holds: u64,
    /// Statements that had to wait for a node.
    pub holds_total: u64,
    /// Client connections.
    pub clients: u64,
    /// Server sessions, on all nodes.
    pub servers: u64,
}

impl Seen {
    /// Asks belay.
    pub fn now(admin: &str, addresses: &[String]) -> Result<Seen> {
        match get(admin, "/metrics", None)? {
            (200, text) => Ok(Seen::of(&Samples::parse(&text), addresses)),
            (status, _) => Err(Error::from(format!("/metrics says {status}"))),
        }
    }

    /// Takes what is of interest out of one scrape; nodes are called by their addresses there.
    pub fn of(samples: &Samples, addresses: &[String]) -> Seen {
        let number = |name: &str, labels: &[&str]| samples.sum(name, labels) as u64;
        let by = |name: &str, label: &str| -> Vec<(String, u64)> {
            let all = samples.matching(name, &[]);
            all.map(|(key, n)| (label_of(key, label).unwrap_or_default().to_owned(), n as u64)).collect()
        };
        let state = |address: &String| {
            let node = format!("node=\"{address}\"");
            let labels = [node.as_str()];
            let found = samples.matching("belay_node_state", &labels).find(|(_, n)| *n == 1.0);
            found.and_then(|(key, _)| label_of(key, "state")).unwrap_or("unknown").to_owned()
        };
        let writes = |address: &String| number("belay_node_writer", &[&format!("node=\"{address}\"")]) == 1;
        Seen {
            states: addresses.iter().map(state).collect(),
            writer: addresses.iter().position(writes),
            masked: by("belay_masked_total", "what"),
            pinned: by("belay_pinned", "reason").into_iter().filter(|(_, n)| *n > 0).collect(),
            pins_total: number("belay_pins_total", &[]),
            holds: number("belay_holds", &[]),
            holds_total: number("belay_holds_total", &[]),
            clients: number("belay_client_connections", &[]),
            servers: number("belay_server_connections", &[]),
        }
    }

    /// All failures that clients were spared.
    pub fn masked_total(&self) -> u64 {
        self.masked.iter().map(|(_, n)| n).sum()
    }

    /// Whether node `i` may be used.
    pub fn serves(&self, i: usize) -> bool {
        self.states.get(i).is_some_and(|s| s == "serving")
    }
}

/// The value of a label in `name{a="x",b="y"}`.
fn label_of<'a>(key: &'a str, label: &str) -> Option<&'a str> {
    let inside = key.split_once('{')?.1;
    let start = format!("{label}=\"");
    inside.split(',').find_map(|part| part.strip_prefix(start.as_str()))?.split('"').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrape_is_understood() {
        let text = "belay_node_state{node=\"h:1\",state=\"serving\"} 1\nbelay_node_state{node=\"h:1\",state=\"down\"} 0\n\
                    belay_node_state{node=\"h:2\",state=\"serving\"} 0\nbelay_node_state{node=\"h:2\",state=\"down\"} 1\n\
                    belay_node_writer{node=\"h:1\"} 1\nbelay_node_writer{node=\"h:2\"} 0\n\
                    belay_masked_total{what=\"idle_loss\"} 5\nbelay_masked_total{what=\"rollback\"} 0\n\
                    belay_pinned{reason=\"diagnostics\"} 0\nbelay_pinned{reason=\"handler\"} 2\n\
                    belay_pins_total{reason=\"handler\"} 7\nbelay_holds 1\nbelay_holds_total 9\n\
                    belay_client_connections{state=\"idle\"} 3\nbelay_client_connections{state=\"active\"} 1\n";
        let seen = Seen::of(&Samples::parse(text), &["h:1".into(), "h:2".into(), "h:3".into()]);
        assert_eq!(seen.states, ["serving", "down", "unknown"]);
        assert_eq!(seen.writer, Some(0));
        assert!(seen.serves(0) && !seen.serves(1) && !seen.serves(7));
        assert_eq!(seen.masked, [("idle_loss".to_owned(), 5), ("rollback".to_owned(), 0)]);
        assert_eq!(seen.masked_total(), 5);
        assert_eq!(seen.pinned, [("handler".to_owned(), 2)]);
        assert_eq!((seen.pins_total, seen.holds, seen.holds_total, seen.clients), (7, 1, 9, 4));
    }
}
