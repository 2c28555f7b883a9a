//! KILL by belay's connection ids hits the statement that runs for that client, and nothing else, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use belay_integration::belay::{Options, direct};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, APP2};
use belay_integration::wire::{Login, Statement, Wire};
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

/// What belay does before a client's statement waits for a lock: here it prepares the statement again, on another server connection.
fn kill_reaches_what_belay_does(server: &str, node: String) -> Result<()> {
    const SOON: Duration = Duration::from_secs(1);
    let dir = Scratch::new("socket")?;
    let path = dir.path().join("belay.sock").display().to_string();
    let mut belay =
        Options::new([node]).server_connections_max(2).set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
    let through = format!("unix:{path}");
    let client = || Wire::login(&through, &Login::new(APP, APP));
    let mut admin = Wire::login(server, &Login::new(ADMIN, ADMIN))?;
    admin.query("CREATE TABLE test.locked (a INT)")?;
    let mut prepared = Vec::new();
    for _ in 0..3 {
        let mut wire = client()?;
        let statement = wire.prepare("SELECT a FROM test.locked")?;
        prepared.push((wire, statement));
    }
    // The one server connection so far, on which it is prepared, is this client's now.
    let mut holder = client()?;
    holder.query("SELECT GET_LOCK('kill', 0)")?;
    // PREPARE waits for nothing but who takes a table away.
    let mut reader = Wire::login(server, &Login::new(ADMIN, ADMIN))?;
    reader.query("BEGIN")?;
    reader.query("SELECT * FROM test.locked")?;
    let mut taker = Wire::login(server, &Login::new(ADMIN, ADMIN))?;
    taker.send_command(3, b"DROP TABLE test.locked")?;
    let mut killer = client()?;
    let waiting = |admin: &mut Wire, n: &str| {
        wait_for("the number of those who wait", Duration::from_secs(10), || {
            let sql = "SELECT CONCAT(COUNT(*), ' ', IFNULL(SUM(COMMAND = 'Prepare'), 0)) FROM information_schema.PROCESSLIST \
                WHERE STATE LIKE '%metadata lock%'";
            admin.text(sql).ok().filter(|found| found == n).map(|_| ())
        })
    };
    let execute = |wire: &mut Wire, statement: Statement| {
        let mut body = statement.id.to_le_bytes().to_vec();
        body.extend_from_slice(&[0, 1, 0, 0, 0]);
        wire.send_command(0x17, &body)
    };
    let (mut first, statement) = prepared.remove(0);
    waiting(&mut admin, "1 0")?;
    execute(&mut first, statement)?;
    waiting(&mut admin, "2 1")?;
    let began = Instant::now();
    killer.query(&format!("KILL QUERY {}", first.connection_id))?;
    assert_eq!(first.read_replies(true).unwrap_err().code(), 1317);
    assert!(began.elapsed() < SOON, "KILL QUERY took {:?}", began.elapsed());
    // The client stays; what it does next is waited for as before.
    assert_eq!(first.text("SELECT 1")?, "1");

    let (mut second, statement) = prepared.remove(0);
    execute(&mut second, statement)?;
    waiting(&mut admin, "2 1")?;
    let began = Instant::now();
    killer.query(&format!("KILL {}", second.connection_id))?;
    while second.read_packet().is_ok() {}
    assert!(began.elapsed() < SOON, "KILL took {:?}", began.elapsed());

    let (mut third, statement) = prepared.remove(0);
    execute(&mut third, statement)?;
    waiting(&mut admin, "2 1")?;
    let began = Instant::now();
    drop(third);
    waiting(&mut admin, "1 0")?;
    // Its place is another's.
    assert_eq!(first.text("SELECT 2")?, "2");
    assert!(began.elapsed() < SOON, "its place was free after {:?}", began.elapsed());
    reader.query("ROLLBACK")?;
    taker.read_replies(false)?;
    belay.assert_healthy()
}

#[test]
fn kill_reaches_what_belay_does_before_a_statement() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    kill_reaches_what_belay_does(&server.address(), server.address())
}

#[test]
fn kill_reaches_what_belay_does_before_a_statement_on_mysql() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mysql()?;
    kill_reaches_what_belay_does(&format!("unix:{}", server.socket().display()), server.address())
}
