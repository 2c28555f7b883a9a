//! What clients cost in memory: idle ones, one that does not read, one that sends much.

use std::fs;
use std::time::Duration;

use belay_integration::Result;
use belay_integration::belay::Belay;
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire};

const MB: f64 = 1024.0 * 1024.0;
/// Clients that are there before the measurement, so that what is allocated once is not counted.
const WARM: usize = 100;
/// Clients that are measured.
const IDLE: usize = 1000;

/// Prints the three figures.
pub fn report(belay: &Belay) -> Result<()> {
    println!("## memory\n");
    let login = Login::new(APP, APP).schema("test");
    let connect = || -> Result<Wire> {
        let mut wire = Wire::login(belay.address(), &login)?;
        wire.query("SELECT 1")?;
        Ok(wire)
    };
    // First, while nothing that was freed before could hide a growth.
    let mut wire = connect()?;
    let before = reset_peak(belay)?;
    wire.send_command(3, b"SELECT REPEAT('x', 100000) FROM seq_1_to_1000")?;
    std::thread::sleep(Duration::from_secs(3));
    println!("a result of 100 MB left unread for 3 s: {:.2} MB", growth(before, peak(belay)));
    let rows = wire.read_replies(false)?.remove(0).rows().rows.len();
    println!("the same while it is read then ({rows} rows): {:.2} MB", growth(before, peak(belay)));
    settle();

    let sql = format!("SELECT LENGTH('{}')", "x".repeat(64 << 20));
    let mut wire = connect()?;
    let before = reset_peak(belay)?;
    let length = wire.text(&sql)?;
    println!("a statement of {length} bytes: {:.2} MB", growth(before, peak(belay)));
    drop(wire);
    settle();

    let mut clients: Vec<Wire> = (0..WARM).map(|_| connect()).collect::<Result<_>>()?;
    settle();
    let before = belay.rss_bytes();
    for _ in 0..IDLE {
        clients.push(connect()?);
    }
    settle();
    println!("{IDLE} idle clients: {:.2} MB", growth(before, belay.rss_bytes()));
    Ok(())
}

fn settle() {
    std::thread::sleep(Duration::from_millis(1500));
}

fn growth(before: u64, after: u64) -> f64 {
    after.saturating_sub(before) as f64 / MB
}

/// Makes the kernel forget the process's peak; its resident bytes now.
fn reset_peak(belay: &Belay) -> Result<u64> {
    fs::write(format!("/proc/{}/clear_refs", belay.pid()), "5")?;
    Ok(belay.rss_bytes())
}

/// The highest number of resident bytes since the peak was reset.
fn peak(belay: &Belay) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", belay.pid())).unwrap_or_default();
    let kb = status.lines().find_map(|l| l.strip_prefix("VmHWM:")?.split_whitespace().next()?.parse::<u64>().ok());
    kb.unwrap_or(0) * 1024
}
