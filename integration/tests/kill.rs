//! KILL by belay's connection ids hits the statement that runs for that client, and nothing else, ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, APP2, admin_connection};
use belay_integration::wire::{Login, Statement, Wire, WireError, WireResult, caps};
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

/// belay's clients, and one connection to the node itself whose number there somebody may mean by mistake.
struct Scene {
    belay: Belay,
    through: String,
    node: String,
    admin: Wire,
    stranger: Wire,
    killer: Wire,
    victim: Wire,
    _dir: Scratch,
}

const LONG: &str = "SELECT 1 FROM shop.item WHERE SLEEP(30)";

impl Scene {
    fn new(address: String, node: String) -> Result<Scene> {
        let dir = Scratch::new("kill")?;
        let socket = dir.path().join("belay.sock").display().to_string();
        let belay = Options::new([address])
            .server_connections_max(4)
            .set("instance", "id", 0)
            .set("listen", "unix_sockets", format!("[{socket:?}]"))
            .start()?;
        let through = format!("unix:{socket}");
        let app =
            |address: &str| Wire::login(address, &Login::new(APP, APP).schema("test").with(caps::MULTI_STATEMENTS));
        let (stranger, killer, victim) = (app(&node)?, app(&through)?, app(&through)?);
        let admin = admin_connection(&node)?;
        Ok(Scene { belay, through, node, admin, stranger, killer, victim, _dir: dir })
    }

    /// Waits until so many long statements run on the node.
    fn runs(&mut self, count: &str) -> Result<()> {
        let sql = format!("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO = '{LONG}'");
        wait_for("the long statements", Duration::from_secs(20), || {
            (self.admin.text(&sql).ok()? == count).then_some(())
        })
    }

    /// The victim runs a long statement, and so does the stranger on the node: only the victim's may end by what the killer says.
    fn hits(&mut self, what: &str, kill: impl FnOnce(&mut Wire, u32) -> WireResult<()>) -> Result<()> {
        let began = Instant::now();
        self.victim.send_command(3, LONG.as_bytes())?;
        self.runs("2")?;
        let id = self.victim.connection_id;
        kill(&mut self.killer, id).map_err(|e| format!("{what}: {e}"))?;
        assert_eq!(self.victim.read_replies(false).map_err(|e| e.code()).unwrap_err(), 1317, "{what}");
        assert!(began.elapsed() < Duration::from_secs(15), "{what}: it ended by itself");
        self.runs("1")?;
        assert_eq!(self.victim.text("SELECT 1")?, "1", "{what}");
        Ok(())
    }

    /// These statements get this error, and end nothing.
    fn refused(&mut self, code: u16, statements: &[String]) -> Result<()> {
        self.victim.send_command(3, LONG.as_bytes())?;
        self.runs("2")?;
        for sql in statements {
            let said = self.killer.query_all(sql);
            assert_eq!(said.as_ref().map(|_| 0).map_err(WireError::code), Err(code), "{sql}: {said:?}");
        }
        self.runs("2")?;
        let id = self.victim.connection_id;
        self.killer.query(&format!("KILL QUERY {id}"))?;
        assert_eq!(self.victim.read_replies(false).unwrap_err().code(), 1317);
        Ok(())
    }

    /// What both families of servers can say.
    fn on_both(&mut self) -> Result<()> {
        let (node_id, own) = (self.stranger.connection_id, self.killer.connection_id);
        assert!(node_id < 1 << 30 && own >> 30 == 1, "{node_id} {own}");
        assert_eq!(self.killer.text("SELECT CONNECTION_ID()")?, own.to_string());
        self.stranger.send_command(3, LONG.as_bytes())?;
        self.runs("1")?;
        self.hits("prepared literal", |w, id| {
            let statement = w.prepare(&format!("KILL QUERY {id}"))?;
            w.execute(statement, &[]).map(|_| ())
        })?;
        self.hits("text of a name", |w, id| {
            w.query(&format!("PREPARE k FROM 'KILL QUERY {id}'"))?;
            w.query("EXECUTE k").map(|_| ())
        })?;
        self.hits("text in a variable", |w, id| {
            w.query(&format!("SET @q = 'KILL QUERY {id}'"))?;
            w.query("PREPARE k FROM @q")?;
            w.query("EXECUTE k").map(|_| ())
        })?;
        self.hits("a variable", |w, id| {
            w.query(&format!("SET @id = {id}"))?;
            w.query("KILL QUERY @id").map(|_| ())
        })?;
        self.hits("a variable of a transaction", |w, id| {
            w.query("BEGIN")?;
            w.query(&format!("SELECT {id} INTO @inside"))?;
            w.query("KILL QUERY @inside")?;
            w.query("ROLLBACK").map(|_| ())
        })?;
        self.hits("a name that reads a variable", |w, id| {
            w.query(&format!("SET @later = {id}"))?;
            w.query("PREPARE k FROM 'KILL QUERY @later'")?;
            w.query("EXECUTE k").map(|_| ())
        })?;
        self.hits("parentheses and a sum", |w, id| {
            w.query(&format!("KILL QUERY ({id})"))?;
            w.query(&format!("KILL QUERY {}+1", id - 1)).map(|_| ())
        })?;
        // A number of the node is no client's, and a client's is nobody's on the node.
        let id = self.victim.connection_id;
        let unknown: Vec<String> = ["KILL {}", "KILL QUERY {}", "KILL ({})", "KILL CONNECTION {}"]
            .into_iter()
            .map(|kill| kill.replace("{}", &node_id.to_string()))
            .chain([format!("CALL kills({id})"), format!("CALL kills({own})")])
            .collect();
        self.refused(1094, &unknown)?;
        let unseen: Vec<String> =
            ["SELECT 1; KILL {}", "KILL QUERY {}; SELECT 1", "KILL (SELECT {})", "KILL {} * 1", "KILL USER app"]
                .into_iter()
                .map(|kill| kill.replace("{}", &id.to_string()))
                .collect();
        self.refused(1235, &unseen)
    }

    fn of_oneself(&mut self, connection: u16) -> Result<()> {
        let app = |through: &str| Wire::login(through, &Login::new(APP, APP));
        let mut wire = app(&self.through)?;
        wire.query("SELECT CONNECTION_ID() INTO @id")?;
        for sql in ["KILL QUERY @id", "KILL QUERY CONNECTION_ID()"] {
            assert_eq!(wire.query(sql).unwrap_err().code(), 1317, "{sql}");
        }
        let statement = wire.prepare("KILL QUERY CONNECTION_ID()")?;
        assert_eq!(wire.execute(statement, &[]).unwrap_err().code(), 1317);
        assert_eq!(wire.text("SELECT @id = CONNECTION_ID()")?, "1");
        assert_eq!(wire.query("KILL CONNECTION_ID()").unwrap_err().code(), connection);
        assert!(wire.query("SELECT 1").is_err());
        // One's own id, and the rights, are the same by every way.
        let mut stranger = Wire::login(&self.through, &Login::new(APP2, APP2))?;
        let statement = stranger.prepare(&format!("KILL {}", self.victim.connection_id))?;
        assert_eq!(stranger.execute(statement, &[]).unwrap_err().code(), 1095);
        assert_eq!(self.victim.text("SELECT 1")?, "1");
        Ok(())
    }

    fn end(&mut self) -> Result<()> {
        // The stranger's statement runs still, after all of it.
        self.runs("1")?;
        let id = self.stranger.connection_id;
        self.admin.query(&format!("KILL QUERY {id}"))?;
        assert_eq!(self.stranger.read_replies(false).unwrap_err().code(), 1317, "{}", self.node);
        self.belay.assert_healthy()
    }
}

#[test]
fn every_way_to_say_kill_hits_the_client_and_nobody_on_the_node() -> Result<()> {
    let server = shared::mariadb()?;
    let mut scene = Scene::new(server.address(), server.address())?;
    scene.admin.query("CREATE OR REPLACE PROCEDURE test.kills(n BIGINT) KILL n")?;
    scene.on_both()?;
    let id = scene.victim.connection_id;
    // Procedures have run in this session, which may have made any name mean something else.
    let named = [format!("PREPARE k FROM 'KILL QUERY {id}'"), "EXECUTE k".into()];
    scene.refused(1235, &named)?;
    scene.killer = Wire::login(&scene.through, &Login::new(APP, APP).schema("test").with(caps::MULTI_STATEMENTS))?;
    let prepared = scene.killer.prepare("KILL QUERY ?")?;
    scene.hits("a parameter of 64 bits", |w, id| w.execute_i64(prepared, i64::from(id)).map(|_| ()))?;
    scene.hits("a parameter of text", |w, id| w.execute(prepared, &[id.to_string().as_bytes()]).map(|_| ()))?;
    let sum = scene.killer.prepare("KILL QUERY ? + 1")?;
    scene.hits("a sum of a parameter", |w, id| w.execute_i64(sum, i64::from(id) - 1).map(|_| ()))?;
    scene.hits("USING", |w, id| {
        w.query("PREPARE k FROM 'KILL QUERY ?'")?;
        w.query(&format!("SET @id = {id}"))?;
        w.query("EXECUTE k USING @id").map(|_| ())
    })?;
    scene.hits("USING a number", |w, id| w.query(&format!("EXECUTE k USING {id}")).map(|_| ()))?;
    scene.hits("immediate", |w, id| w.query(&format!("EXECUTE IMMEDIATE 'KILL QUERY {id}'")).map(|_| ()))?;
    scene.hits("immediate USING", |w, id| {
        w.query(&format!("EXECUTE IMMEDIATE 'KILL QUERY ?' USING {id}")).map(|_| ())
    })?;
    scene.hits("immediate of a variable", |w, id| {
        w.query(&format!("SET @q = 'KILL QUERY {id}'"))?;
        w.query("EXECUTE IMMEDIATE @q").map(|_| ())
    })?;
    let unseen = [
        "BEGIN NOT ATOMIC KILL QUERY {}; END",
        "IF 1 THEN KILL QUERY {}; END IF",
        "EXECUTE IMMEDIATE 'BEGIN NOT ATOMIC KILL QUERY {}; END'",
        "PREPARE b FROM 'BEGIN NOT ATOMIC KILL QUERY {}; END'",
        "KILL QUERY ID {}",
    ];
    scene.refused(1235, &unseen.map(|sql| sql.replace("{}", &id.to_string())))?;
    scene.killer.query("PREPARE k FROM 'KILL QUERY ?'")?;
    scene.refused(1210, &["EXECUTE k".into(), "EXECUTE k USING @id, @id".into()])?;
    scene.refused(1094, &["EXECUTE k USING @never".into(), "EXECUTE IMMEDIATE 'KILL 7'".into(), "KILL NULL".into()])?;
    // What servers make of other parameters, and what they are told of long data and of many executions at once.
    let node_id = i64::from(scene.stranger.connection_id);
    assert_eq!(scene.killer.execute_i64(prepared, node_id).unwrap_err().code(), 1094);
    let mut direct = Wire::login(&scene.node, &Login::new(APP, APP))?;
    let there = direct.prepare("KILL QUERY ?")?;
    for text in ["", "x", "-1", "7000000x", "7000000.7", " 7000000", "1e3"] {
        let (here, there) =
            (scene.killer.execute(prepared, &[text.as_bytes()]), direct.execute(there, &[text.as_bytes()]));
        assert_eq!(format!("{here:?}"), format!("{there:?}"), "{text}");
    }
    let mut long = prepared.id.to_le_bytes().to_vec();
    long.extend_from_slice(&[0, 0, b'7']);
    scene.killer.send_command(0x18, &long)?;
    assert_eq!(scene.killer.execute(prepared, &[b"7"]).unwrap_err().code(), 1235);
    assert_eq!(scene.killer.execute(prepared, &[b"7"]).unwrap_err().code(), 1094);
    let mut bulk = prepared.id.to_le_bytes().to_vec();
    bulk.extend_from_slice(&[128, 0, 8, 0, 0]);
    bulk.extend_from_slice(&7u64.to_le_bytes());
    assert_eq!(scene.killer.command(0xfa, &bulk).unwrap_err().code(), 1235);
    scene.of_oneself(1927)?;
    scene.end()
}

#[test]
fn every_way_to_say_kill_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let mut scene = Scene::new(server.address(), format!("unix:{}", server.socket().display()))?;
    scene.admin.query("DROP PROCEDURE IF EXISTS test.kills")?;
    scene.admin.query("CREATE PROCEDURE test.kills(n BIGINT) KILL n")?;
    scene.on_both()?;
    // The server sees the lower 32 bits only, and so does belay.
    let id = u64::from(scene.victim.connection_id) + (1 << 32);
    scene.hits("a longer number", |w, _| w.query(&format!("KILL QUERY {id}")).map(|_| ()))?;
    assert_eq!(scene.killer.prepare("KILL ?").unwrap_err().code(), 6413);
    scene.of_oneself(1317)?;
    scene.end()
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
