//! A histogram with fixed buckets: one relaxed addition a bucket and one for the sum, no lock, no growth.
//!
//! The exporter's own histograms keep every sample until somebody drains them, and cost several times as much; these are
//! written into the same scrape text.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets in microseconds: 10 µs to 10 s. What is longer counts in the last, unbounded one.
pub const BOUNDS_US: [u64; 19] = [
    10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000,
    2_000_000, 5_000_000, 10_000_000,
];

/// Durations, counted in buckets.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one duration. About as cheap as two counters.
    pub fn record(&self, duration: Duration) {
        let us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let i = BOUNDS_US.partition_point(|bound| *bound < us);
        if let Some(bucket) = self.buckets.get(i) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|b| b.load(Relaxed)).sum()
    }

    /// Appends it to a scrape text in Prometheus' format. `labels` is empty or like `node="a"`.
    pub fn render(&self, name: &str, labels: &str, out: &mut String) {
        let comma = if labels.is_empty() { "" } else { "," };
        let mut total = 0;
        for (i, bucket) in self.buckets.iter().enumerate() {
            total += bucket.load(Relaxed);
            // Writing to a String cannot fail.
            let _ = match BOUNDS_US.get(i) {
                Some(bound) => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"{}\"}} {total}", seconds(*bound)),
                None => writeln!(out, "{name}_bucket{{{labels}{comma}le=\"+Inf\"}} {total}"),
            };
        }
        let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        let _ = writeln!(out, "{name}_sum{braces} {}", seconds(self.sum_us.load(Relaxed)));
        let _ = writeln!(out, "{name}_count{braces} {total}");
    }
}

/// Microseconds as seconds, exactly.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_bounds_inclusive() {
        let h = Histogram::default();
        for us in [0, 10, 11, 1_500_000, 60_000_000] {
            h.record(Duration::from_micros(us));
        }
        let mut out = String::new();
        h.render("x_seconds", "node=\"a\"", &mut out);
        assert!(out.contains("x_seconds_bucket{node=\"a\",le=\"0.00001\"} 2\n"), "{out}");
        assert!(out.contains("x_seconds_bucket{node=\"a\",le=\"0.00002\"} 3\n"), "{out}");
        assert!(out.contains("x_seconds_bucket{node=\"a\",le=\"10\"} 4\n"), "{out}");
        assert!(out.contains("le=\"+Inf\"} 5\n"), "{out}");
        assert!(out.contains("x_seconds_sum{node=\"a\"} 61.500021\n"), "{out}");
        assert!(out.ends_with("x_seconds_count{node=\"a\"} 5\n"), "{out}");
        assert_eq!(h.count(), 5);
    }
}
