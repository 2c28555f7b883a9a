//! The program `belay`; all of it is in the library.

use std::process::ExitCode;

/// Gives memory back to the system after a burst of connections, which the system's own allocator does not.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    belay::cli::run(std::env::args_os())
}
