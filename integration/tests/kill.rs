//! KILL by belay's connection ids hits the statement that runs for that client, and nothing else, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use belay_integration::belay::Options;
use belay_integration::servers::{APP, APP2};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};

#[test]
fn kill_query_ends_the_statement_and_kill_the_connection() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    let mut killer = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let mut victim = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let id = victim.connection_id;
    for sql in [format!("KILL QUERY {id}"), format!("kill query {id};"), format!("/* hi */ KILL QUERY {id}")] {
        victim.send_command(3, b"SELECT 1 FROM shop.item WHERE SLEEP(30)")?;
        std::thread::sleep(Duration::from_millis(300));
        let began = Instant::now();
        killer.query(&sql)?;
        assert_eq!(victim.read_replies(false).unwrap_err().code(), 1317, "{sql}");
        assert!(began.elapsed() < Duration::from_secs(5));
        assert_eq!(victim.text("SELECT 1")?, "1");
    }
    // A KILL QUERY of an idle client hits nothing.
    killer.query(&format!("KILL QUERY {id}"))?;
    assert_eq!(victim.text("SELECT 2")?, "2");
    // COM_PROCESS_KILL and KILL end the connection.
    killer.command(0x0c, &id.to_le_bytes())?;
    std::thread::sleep(Duration::from_millis(300));
    assert!(victim.query("SELECT 1").is_err());
    let mut victim = Wire::login(belay.address(), &Login::new(APP, APP))?;
    victim.send_command(3, b"SELECT SLEEP(30)")?;
    std::thread::sleep(Duration::from_millis(300));
    killer.query(&format!("KILL CONNECTION {}", victim.connection_id))?;
    assert!(victim.read_replies(false).is_err() || victim.query("SELECT 1").is_err());
    assert_eq!(killer.text("SELECT 1")?, "1");
    belay.assert_healthy()
}

#[test]
fn kill_needs_the_right_and_a_client() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    let mut stranger = Wire::login(belay.address(), &Login::new(APP2, APP2))?;
    let mut client = Wire::login(belay.address(), &Login::new(APP, APP))?;
    client.query("SELECT 1")?;
    assert_eq!(stranger.query(&format!("KILL {}", client.connection_id)).unwrap_err().code(), 1095);
    assert_eq!(stranger.query("KILL QUERY 4000000").unwrap_err().code(), 1094);
    assert_eq!(client.text("SELECT 1")?, "1");
    // One's own connection.
    let id = stranger.connection_id;
    assert_eq!(stranger.query(&format!("KILL QUERY {id}")).unwrap_err().code(), 1317);
    assert_eq!(stranger.text("SELECT 1")?, "1");
    assert!(stranger.query(&format!("KILL {id}")).is_err());
    assert!(stranger.query("SELECT 1").is_err());
    belay.assert_healthy()
}

#[test]
fn random_kills_hit_only_their_own() -> Result<()> {
    const CLIENTS: usize = 100;
    let kills: u32 = std::env::var("BELAY_KILLS").ok().and_then(|s| s.parse().ok()).unwrap_or(5_000);
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(16).start()?;
    let address = belay.address().to_owned();
    let stop = Arc::new(AtomicBool::new(false));
    let statements = Arc::new(AtomicU64::new(0));
    // For each client: kills begun, and kills that are known to be over.
    let aimed: Arc<Vec<AtomicU32>> = Arc::new((0..CLIENTS).map(|_| AtomicU32::new(0)).collect());
    let mut ids = Vec::new();
    let mut threads = Vec::new();
    for i in 0..CLIENTS {
        let mut wire = Wire::login(&address, &Login::new(APP, APP).schema("test"))?;
        ids.push(wire.connection_id);
        let (stop, aimed, statements) = (Arc::clone(&stop), Arc::clone(&aimed), Arc::clone(&statements));
        threads.push(std::thread::spawn(move || -> Result<(u32, Vec<String>)> {
            let (mut killed, mut faults) = (0, Vec::new());
            let mut n = i;
            while !stop.load(Ordering::Relaxed) {
                n += 1;
                let sql = match n % 3 {
                    0 => "SELECT 1 FROM shop.item WHERE SLEEP(0.002)",
                    1 => "SELECT BENCHMARK(20000, SHA1('x')), 1",
                    _ => "SELECT COUNT(*) FROM shop.item a, shop.item b, shop.item c",
                };
                statements.fetch_add(1, Ordering::Relaxed);
                match wire.query(sql) {
                    Ok(_) => {}
                    Err(e) if e.code() == 1317 => killed += 1,
                    Err(e) => {
                        faults.push(e.to_string());
                        break;
                    }
                }
                let budget = aimed.get(i).map_or(0, |a| a.load(Ordering::SeqCst));
                if killed > budget {
                    faults.push(format!("client {i}: killed {killed} times, but only {budget} kills were aimed at it"));
                    break;
                }
            }
            Ok((killed, faults))
        }));
    }
    let mut killer = Wire::login(&address, &Login::new(APP, APP))?;
    let mut seed = 0x9e37_79b9_u32;
    for _ in 0..kills {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        // Only the even ones are ever killed: an odd one that is hit was hit by mistake.
        let victim = (seed >> 8) as usize % (CLIENTS / 2) * 2;
        if let (Some(a), Some(id)) = (aimed.get(victim), ids.get(victim)) {
            a.fetch_add(1, Ordering::SeqCst);
            killer.query(&format!("KILL QUERY {id}"))?;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let (mut hits, mut faults) = (0, Vec::new());
    for t in threads {
        let (killed, found) = t.join().map_err(|_| "a client failed")??;
        hits += killed;
        faults.extend(found);
    }
    println!("{kills} kills, {hits} hit a running statement, {} statements", statements.load(Ordering::Relaxed));
    assert!(faults.is_empty(), "{faults:#?}");
    assert!(hits > 0, "no kill hit anything: the test proves nothing");
    belay.assert_healthy()
}
