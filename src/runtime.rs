//! The runtime in both flavours: one thread that shares nothing, or several that steal work from each other.

use std::io;

use tokio::runtime::{Builder, Runtime};

/// The most threads belay will start.
pub const THREADS_MAX: usize = 1024;

/// The number of threads for a configured number: 0 is one per core, or one alone on a machine of at most two cores, where a second thread
/// costs more in hand-overs than it brings.
pub fn threads(configured: usize) -> usize {
    match configured {
        0 => match std::thread::available_parallelism().map_or(1, usize::from) {
            0..=2 => 1,
            cores => cores,
        },
        n => n.min(THREADS_MAX),
    }
}

/// A runtime of that many threads.
pub fn build(configured: usize) -> io::Result<Runtime> {
    match threads(configured) {
        1 => Builder::new_current_thread().enable_all().build(),
        n => Builder::new_multi_thread().worker_threads(n).thread_name("belay-worker").enable_all().build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configured_number_is_taken() {
        assert_eq!(threads(3), 3);
        assert_eq!(threads(1_000_000), THREADS_MAX);
        assert!(threads(0) >= 1);
    }
}
