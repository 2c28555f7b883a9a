//! Bad input: a clear error or a closed connection, no crash, no leak, and the others are not disturbed.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::process::wait_for;
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire, WireError, plain_response};
use belay_integration::{Result, shared};

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }
    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }
}

/// Sends bytes and reads until the other side closes or says nothing for a while.
fn throw(address: &str, parts: &[&[u8]]) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_millis(400)))?;
    for part in parts {
        // The other side may close before all is written.
        if stream.write_all(part).is_err() {
            break;
        }
    }
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    Ok(answer)
}

fn still_serves(belay: &mut Belay, bystander: &mut Wire) -> Result<()> {
    assert_eq!(bystander.text("SELECT 1")?, "1");
    let mut fresh = Wire::login(belay.address(), &Login::new(APP, APP))?;
    assert_eq!(fresh.text("SELECT 2")?, "2");
    belay.assert_healthy()
}

#[test]
fn random_bytes_instead_of_a_login() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Belay::start([server.address()])?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let mut random = Random(7);
    let mut threads = Vec::new();
    for _ in 0..40 {
        let address = belay.address().to_owned();
        let bodies: Vec<Vec<u8>> = (0..8)
            .map(|_| {
                let n = random.next() as usize % 300;
                random.bytes(n)
            })
            .collect();
        threads.push(std::thread::spawn(move || {
            for body in bodies {
                let _ = throw(&address, &[&body]);
                // The same behind a correct header.
                let mut framed = (body.len() as u32).to_le_bytes().to_vec();
                if let Some(seq) = framed.last_mut() {
                    *seq = 1;
                }
                framed.extend_from_slice(&body);
                let _ = throw(&address, &[&framed]);
            }
        }));
    }
    for t in threads {
        t.join().map_err(|_| "thrower")?;
    }
    still_serves(&mut belay, &mut bystander)
}

#[test]
fn spoilt_handshakes() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Belay::start([server.address()])?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let good = plain_response(APP);
    let mut random = Random(3);
    for i in 0..300 {
        let mut body = good.clone();
        match i % 4 {
            0 => body.truncate(random.next() as usize % body.len()),
            1 => {
                let at = random.next() as usize % body.len();
                if let Some(b) = body.get_mut(at) {
                    *b = random.next() as u8;
                }
            }
            2 => body.extend(random.bytes(40)),
            _ => body = random.bytes(body.len()),
        }
        let mut wire = Wire::greet(belay.address())?;
        wire.socket().set_timeout(Some(Duration::from_millis(300)))?;
        wire.send_packet(&body)?;
        let answer = wire.read_packet();
        assert!(!answer.is_ok_and(|p| p.first() == Some(&0)), "let in by {body:02x?}");
    }
    still_serves(&mut belay, &mut bystander)
}

#[test]
fn wrong_sequence_numbers_and_half_packets() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Belay::start([server.address()])?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    for seq in [1_u8, 7, 255] {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
        let sql = b"\x03SELECT 1";
        let mut frame = (sql.len() as u32).to_le_bytes().to_vec();
        frame[3] = seq;
        frame.extend_from_slice(sql);
        wire.socket().write_all(&frame)?;
        // MariaDB answers 1156 or ends the connection; belay may do either, but must not run it as if nothing were wrong.
        let answer = wire.read_replies(false);
        assert!(matches!(answer, Err(WireError::Server { code: 1156 | 1835, .. } | WireError::Io(_))), "{answer:?}");
    }
    for cut in 1..12 {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
        wire.socket().write_all(b"\x09\x00\x00\x00\x03SELECT 1".get(..cut).unwrap_or_default())?;
    }
    // An empty packet where a command should be.
    let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
    wire.socket().write_all(&[0, 0, 0, 0])?;
    assert!(wire.read_replies(false).is_err());
    still_serves(&mut belay, &mut bystander)
}

#[test]
fn random_commands_after_a_login() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let mut random = Random(11);
    for _ in 0..400 {
        let mut wire = Wire::login(belay.address(), &Login::new(APP, APP))?;
        wire.socket().set_timeout(Some(Duration::from_millis(250)))?;
        for _ in 0..4 {
            // No KILL, SHUTDOWN, binlog streams or COM_QUIT: they are no noise.
            let code = loop {
                let code = random.next() as u8 % 0x20;
                if ![0x01, 0x08, 0x0c, 0x12, 0x1e, 0x15].contains(&code) {
                    break code;
                }
            };
            let n = random.next() as usize % 60;
            if wire.send_command(code, &random.bytes(n)).is_err() || wire.read_packet().is_err() {
                break;
            }
        }
    }
    still_serves(&mut belay, &mut bystander)
}

#[test]
fn slow_logins_are_ended() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).set("listen", "login_timeout_ms", 1000).start()?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let began = Instant::now();
    let mut streams: Vec<TcpStream> =
        (0..50).map(|_| TcpStream::connect(belay.address())).collect::<std::io::Result<_>>()?;
    // One byte now and then must not prolong it.
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(200));
        for s in &mut streams {
            let _ = s.write_all(&[1]);
        }
    }
    for s in &mut streams {
        s.set_read_timeout(Some(Duration::from_secs(3)))?;
        let mut rest = Vec::new();
        let ended = s.read_to_end(&mut rest);
        let ended = ended.is_ok() || ended.is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset);
        assert!(ended, "still open after {:?}", began.elapsed());
    }
    still_serves(&mut belay, &mut bystander)
}

#[test]
fn ten_thousand_connections_over_the_limit() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).set("listen", "client_connections_max", 50).start()?;
    let mut inside: Vec<Wire> =
        (0..50).map(|_| Wire::login(belay.address(), &Login::new(APP, APP))).collect::<std::result::Result<_, _>>()?;
    let rss = belay.rss_bytes();
    let mut threads = Vec::new();
    for _ in 0..10 {
        let address = belay.address().to_owned();
        threads.push(std::thread::spawn(move || -> Result<(u32, u32)> {
            let (mut refused, mut closed) = (0, 0);
            for _ in 0..1000 {
                match Wire::login(&address, &Login::new(APP, APP)) {
                    Err(e) if e.code() == 1040 => refused += 1,
                    Err(WireError::Io(_)) => closed += 1,
                    Err(e) => return Err(e.into()),
                    Ok(_) => return Err("let in over the limit".into()),
                }
            }
            Ok((refused, closed))
        }));
    }
    let (mut refused, mut closed) = (0, 0);
    for t in threads {
        let (r, c) = t.join().map_err(|_| "client")??;
        refused += r;
        closed += c;
        for wire in inside.iter_mut().take(5) {
            assert_eq!(wire.text("SELECT 1")?, "1");
        }
    }
    println!("refused with 1040: {refused}, closed: {closed}");
    assert!(refused > closed, "an error says more than a closed connection");
    let growth = belay.rss_bytes().saturating_sub(rss);
    assert!(growth < 24 << 20, "grew by {growth} bytes");
    inside.pop();
    wait_for("the free place", Duration::from_secs(5), || Wire::login(belay.address(), &Login::new(APP, APP)).ok())?;
    belay.assert_healthy()
}

#[test]
fn the_admin_port_takes_abuse_too() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut belay = Belay::start([server.address()])?;
    let mut bystander = Wire::login(belay.address(), &Login::new(APP, APP))?;
    let mut random = Random(5);
    for _ in 0..100 {
        let bytes = random.bytes(200);
        throw(belay.admin_address(), &[&bytes])?;
    }
    throw(belay.admin_address(), &[b"GET / HTTP/1.1\r\n", &vec![b'a'; 1 << 20]])?;
    let (status, _) = belay_integration::scrape::get(belay.admin_address(), "/sessions", None)?;
    assert_eq!(status, 401);
    let (status, body) = belay.admin_get("/sessions")?;
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("app"), "{body}");
    assert_eq!(belay_integration::scrape::get(belay.admin_address(), "/healthz", None)?.0, 200);
    still_serves(&mut belay, &mut bystander)
}
