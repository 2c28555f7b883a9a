//! Packets larger than a frame, both ways; results that nobody reads; LOAD DATA LOCAL.

use std::time::Duration;

use belay_integration::belay::{Options, direct};
use belay_integration::clients::mariadb;
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};

const FRAME: usize = 0xFF_FFFF;
const MB: usize = 1 << 20;

#[test]
fn statements_and_rows_around_the_length_of_a_frame() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(2).start()?;
    for login in [Login::new(APP, APP), Login::new(APP, APP).without(caps::DEPRECATE_EOF)] {
        let mut wire = Wire::login(belay.address(), &login)?;
        for packet in [FRAME - 2, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME - 1, 2 * FRAME, 2 * FRAME + 1, 40 * MB] {
            // The packet is one byte of command and the statement.
            let around = "SELECT LENGTH('')";
            let sql = format!("SELECT LENGTH('{}')", "x".repeat(packet - 1 - around.len()));
            assert_eq!(wire.text(&sql)?, (packet - 1 - around.len()).to_string(), "packet of {packet} bytes");
            // The row is a length of four bytes and the text; 9 bytes of length above 16 MB.
            let text = packet - if packet > FRAME { 9 } else { 4 };
            let rows = wire.query(&format!("SELECT REPEAT('y', {text})"))?.rows();
            let value = rows.rows.first().and_then(|r| r.first()?.as_ref());
            assert_eq!(value.map(Vec::len), Some(text), "row of {packet} bytes");
            assert!(value.is_some_and(|v| v.iter().all(|b| *b == b'y')));
        }
        assert_eq!(wire.text("SELECT 1")?, "1");
    }
    belay.assert_healthy()
}

#[test]
fn prepared_statements_with_large_parameters() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(2).start()?;
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    let mut other = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    wire.query("CREATE OR REPLACE TABLE large (id INT PRIMARY KEY, v LONGBLOB)")?;
    let insert = wire.prepare("INSERT INTO large VALUES (?, ?)")?;
    let mut id = 0;
    for size in [1000, FRAME - 20, FRAME, 40 * MB] {
        id += 1;
        let value = vec![b'z'; size];
        assert_eq!(wire.execute(insert, &[id.to_string().as_bytes(), &value])?.affected(), 1);
        other.query("SET sql_mode = ''")?;
        assert_eq!(wire.text(&format!("SELECT LENGTH(v) FROM large WHERE id = {id}"))?, size.to_string());
    }
    // COM_STMT_SEND_LONG_DATA has no answer; other clients come between its parts and the execution.
    for part in [b"abc".as_slice(), b"def", b"ghi"] {
        let mut body = insert.id.to_le_bytes().to_vec();
        body.extend_from_slice(&1_u16.to_le_bytes());
        body.extend_from_slice(part);
        wire.send_command(0x18, &body)?;
        other.query("SELECT 1")?;
    }
    let mut body = insert.id.to_le_bytes().to_vec();
    body.extend_from_slice(&[0, 1, 0, 0, 0, 0, 1, 0xfd, 0, 0xfc, 0, 2]);
    body.extend_from_slice(b"99");
    assert_eq!(wire.command(0x17, &body)?.affected(), 1);
    assert_eq!(wire.text("SELECT v FROM large WHERE id = 99")?, "abcdefghi");
    wire.query("DROP TABLE large")?;
    belay.assert_healthy()
}

#[test]
fn more_than_the_server_takes_is_the_servers_error() -> Result<()> {
    let server = shared::mariadb()?;
    server.admin()?.query("SET GLOBAL max_allowed_packet = 1048576")?;
    let attempt = |address: &str| -> Result<String> {
        let mut wire = Wire::login(address, &Login::new(APP, APP))?;
        let sql = format!("SELECT LENGTH('{}')", "x".repeat(3 * MB));
        Ok(match wire.text(&sql) {
            Ok(text) => text,
            Err(e) => e.code().to_string(),
        })
    };
    let mut belay = Options::new([server.address()]).start()?;
    let found = attempt(belay.address());
    let after = Wire::login(belay.address(), &Login::new(APP, APP))?.text("SELECT 1");
    server.admin()?.query("SET GLOBAL max_allowed_packet = 268435456")?;
    // Directly the error may be lost when the server closes before the client has sent all; through belay it may not.
    let found = found?;
    assert!(found == "1153" || (direct() && found == "0"), "{found}");
    assert_eq!(after?, "1");
    belay.assert_healthy()
}

#[test]
fn a_result_that_nobody_reads_costs_no_memory() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(8).start()?;
    let mut quick = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    let mut lazy = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
        wire.query("SELECT 1")?;
        lazy.push(wire);
    }
    std::thread::sleep(Duration::from_millis(300));
    let before = belay.rss_bytes();
    for wire in &mut lazy {
        wire.send_command(3, b"SELECT REPEAT('x', 100000) FROM seq_1_to_1000")?;
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(quick.text("SELECT 1")?, "1");
    let growth = belay.rss_bytes().saturating_sub(before);
    assert!(growth < 4 * MB as u64, "four unread results of 100 MB cost {growth} bytes");
    for wire in &mut lazy {
        assert_eq!(wire.read_replies(false)?.remove(0).rows().rows.len(), 1000);
    }
    // One that vanishes in the middle of its result leaves nothing behind.
    let mut gone = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    gone.send_command(3, b"SELECT REPEAT('x', 100000) FROM seq_1_to_1000")?;
    gone.read_packet()?;
    drop(gone);
    let mut admin = server.admin()?;
    wait_for("the end of the abandoned statement", Duration::from_secs(15), || {
        let sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE INFO LIKE 'SELECT REPEAT%'";
        (admin.text(sql).ok()? == "0").then_some(())
    })?;
    belay.assert_healthy()
}

#[test]
fn a_large_statement_costs_no_memory() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).start()?;
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
    wire.query("SELECT 1")?;
    let before = belay.rss_bytes();
    let sql = format!("SELECT LENGTH('{}')", "x".repeat(64 * MB));
    let pid = belay.pid();
    let highest = std::thread::spawn(move || {
        let until = std::time::Instant::now() + Duration::from_millis(1500);
        let mut highest = 0;
        while std::time::Instant::now() < until {
            highest = highest.max(belay_integration::belay::rss_bytes(pid));
            std::thread::sleep(Duration::from_millis(2));
        }
        highest
    });
    assert_eq!(wire.text(&sql)?, (64 * MB).to_string());
    let growth = highest.join().map_err(|_| "sampler")?.saturating_sub(before);
    assert!(growth < MB as u64, "a statement of 64 MB cost {growth} bytes");
    belay.assert_healthy()
}

#[test]
fn load_data_local() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(2).start()?;
    let port = belay.port();
    let dir = Scratch::new("infile")?;
    let file = dir.path().join("rows");
    let lines: String = (0..200_000).map(|i| format!("{i}\tname of row {i}\n")).collect();
    std::fs::write(&file, lines)?;
    let sql = format!(
        "CREATE OR REPLACE TABLE loaded (id INT PRIMARY KEY, name VARCHAR(40)); \
         LOAD DATA LOCAL INFILE '{}' INTO TABLE loaded; SELECT COUNT(*), SUM(id) FROM loaded; SELECT 'after'",
        file.display()
    );
    let out = mariadb(port, APP, APP, &["--local-infile=1", "test"], &sql)?;
    assert!(out.contains("200000\t19999900000") && out.contains("after"), "{out}");
    // A file that is not there: the client sends an empty one and the server answers.
    let sql = "LOAD DATA LOCAL INFILE '/no/such/file' INTO TABLE loaded";
    let error = mariadb(port, APP, APP, &["--local-infile=1", "test"], sql).unwrap_err().to_string();
    assert!(!error.contains("2013"), "{error}");
    // A client that did not offer it must never be asked.
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
    let refused = wire.query("LOAD DATA LOCAL INFILE 'x' INTO TABLE loaded").unwrap_err();
    let mut plain = Wire::login(&server.address(), &Login::new(APP, APP).schema("test"))?;
    let expected = plain.query("LOAD DATA LOCAL INFILE 'x' INTO TABLE loaded").unwrap_err();
    assert_eq!(refused.to_string(), expected.to_string());
    assert_eq!(wire.text("SELECT 1")?, "1");
    wire.query("DROP TABLE loaded")?;
    belay.assert_healthy()
}
