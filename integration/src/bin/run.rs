//! `make run`: a Galera cluster of three nodes, belay in front of it, and what to type; Ctrl-C stops all of it.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use belay_integration::belay::{Belay, Options};
use belay_integration::paths::{give_to_server_user, reachable_base, target};
use belay_integration::ports::free_port;
use belay_integration::process::wait_for;
use belay_integration::servers::Galera;
use belay_integration::{Error, Result};

fn main() -> ExitCode {
    match demonstrate() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("run: {e}");
            ExitCode::FAILURE
        }
    }
}

fn demonstrate() -> Result<()> {
    fs::create_dir_all(target())?;
    let lock = File::create(target().join("run.lock"))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err("another `make run` is running in this directory; stop it with Ctrl-C first".into());
        }
        Err(TryLockError::Error(e)) => return Err(e.into()),
    }
    // From here on a Ctrl-C is not the end of this process: everything that was started is stopped first.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut interrupt =
        runtime.block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt()) })?;
    let mut terminate =
        runtime.block_on(async { tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) })?;
    let dir = fresh_dir()?;
    println!("starting three Galera nodes in {} …", dir.display());
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let ready = Arc::new(AtomicBool::new(false));
    let is_ready = Arc::clone(&ready);
    let worker = std::thread::spawn(move || -> Result<()> {
        let started = start(dir);
        match started {
            Ok((galera, belay)) => {
                print_help(&galera, &belay);
                ready.store(true, Ordering::Release);
                let _ = stopped.recv();
                println!("\nstopping …");
                drop(belay);
                drop(galera);
                Ok(())
            }
            Err(e) => Err(e),
        }
    });
    runtime.block_on(async {
        loop {
            tokio::select! {
                _ = interrupt.recv() => break,
                _ = terminate.recv() => break,
                () = tokio::time::sleep(std::time::Duration::from_millis(200)) => if worker.is_finished() { break },
            }
        }
    });
    if !worker.is_finished() && !is_ready.load(Ordering::Acquire) {
        // Still starting: the watchman stops what is there.
        return Err("interrupted".into());
    }
    let _ = stop.send(());
    worker.join().map_err(|_| Error::from("the demonstration ended unexpectedly"))?
}

/// An empty `target/run`, or a directory elsewhere if the servers' user cannot reach that one.
fn fresh_dir() -> Result<PathBuf> {
    let base = reachable_base()?;
    let dir = if base.starts_with(target()) { target().join("run") } else { base.join("belay-run") };
    if dir.exists() {
        fs::remove_dir_all(&dir)?;
    }
    fs::create_dir_all(&dir)?;
    give_to_server_user(&dir)?;
    Ok(dir)
}

fn start(dir: PathBuf) -> Result<(Galera, Belay)> {
    let galera = Galera::start_in(3, &dir)?;
    println!("starting belay …");
    let options = Options::new(galera.addresses()).ports(preferred_port(4000), preferred_port(4080));
    let belay = options.start_in(&dir)?;
    wait_for("rows through belay", std::time::Duration::from_secs(20), || {
        belay_integration::clients::mariadb(belay.port(), "app", "app", &["shop"], "SELECT COUNT(*) FROM item").ok()
    })?;
    Ok((galera, belay))
}

fn preferred_port(port: u16) -> u16 {
    if TcpListener::bind(("127.0.0.1", port)).is_ok() { port } else { free_port() }
}

fn print_help(galera: &Galera, belay: &Belay) {
    let port = belay.port();
    println!(
        "\nbelay is in front of the cluster. In another terminal:\n\n  \
         mariadb -h127.0.0.1 -P{port} -uapp -papp shop\n\n\
         and then, for example:\n\n  \
         SELECT * FROM item;\n  BEGIN; UPDATE item SET price = price + 1; SELECT @@hostname, @@port; COMMIT;\n"
    );
    println!("nodes (kill one, and go on in the client):\n");
    for node in galera.nodes() {
        println!("  {}  {}  kill -9 {}", node.name(), node.address(), node.pid());
    }
    println!("\nwhat belay sees:\n");
    println!("  curl -s http://{}/metrics | grep ^belay_", belay.admin_address());
    println!("  curl -s http://{}/readyz", belay.admin_address());
    println!(
        "  curl -s -H \"Authorization: Bearer $(cat {0}.token)\" http://{1}/sessions",
        belay.config().display(),
        belay.admin_address()
    );
    println!("\nconfiguration: {}\nCtrl-C stops everything.", belay.config().display());
}
