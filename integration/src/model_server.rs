//! A cluster of model servers on loopback ports, so that any client, belay included, can log in to it.
//!
//! Accounts are the model's own (`admin`, `app`, `app2`); their password is their name, asked for by `mysql_native_password`. One thread a
//! connection; time is the clock's. Everything else is the model's.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use belay_model::{Cluster, Dialect, Login, Outcome, SessionId, caps, status};
use sha1::Digest as _;

use crate::Result;

/// How often a connection that waits looks at the clock.
const LOOK: Duration = Duration::from_millis(20);

struct Shared {
    cluster: Mutex<Cluster>,
    /// Told whenever something may have changed.
    changed: Condvar,
    start: Instant,
}

impl Shared {
    fn cluster(&self) -> MutexGuard<'_, Cluster> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The running cluster. Its threads end with the process.
#[derive(Clone)]
pub struct ModelServer {
    shared: Arc<Shared>,
    addresses: Vec<String>,
}

impl ModelServer {
    /// A cluster whose nodes listen on free loopback ports.
    pub fn start(dialect: Dialect, nodes: usize) -> Result<ModelServer> {
        let shared = Arc::new(Shared {
            cluster: Mutex::new(Cluster::new(dialect, nodes)),
            changed: Condvar::new(),
            start: Instant::now(),
        });
        let mut addresses = Vec::new();
        for node in 0..nodes {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            addresses.push(listener.local_addr()?.to_string());
            let shared = shared.clone();
            thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = shared.clone();
                    thread::spawn(move || {
                        // A client that breaks off is none of the server's business.
                        let _ = serve(&shared, dialect, node, stream);
                    });
                }
            });
        }
        Ok(ModelServer { shared, addresses })
    }

    /// `127.0.0.1:port` of a node.
    pub fn address(&self, node: usize) -> String {
        self.addresses[node].clone()
    }

    /// Does something to the cluster: kills a session, crashes a node, …
    pub fn with<T>(&self, act: impl FnOnce(&mut Cluster) -> T) -> T {
        let made = act(&mut self.shared.cluster());
        self.shared.changed.notify_all();
        made
    }
}

fn read_packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut payload = Vec::new();
    loop {
        let mut head = [0; 4];
        stream.read_exact(&mut head)?;
        let length = u32::from_le_bytes([head[0], head[1], head[2], 0]) as usize;
        let from = payload.len();
        payload.resize(from + length, 0);
        stream.read_exact(&mut payload[from..])?;
        if length < 0xFF_FFFF {
            return Ok((head[3], payload));
        }
    }
}

fn write_packet(stream: &mut TcpStream, seq: u8, payload: &[u8]) -> std::io::Result<()> {
    let mut out = (payload.len() as u32).to_le_bytes()[..3].to_vec();
    out.push(seq);
    out.extend_from_slice(payload);
    stream.write_all(&out)
}

const SCRAMBLE: &[u8; 20] = b"abcdefghijklmnopqrst";

fn greeting(dialect: Dialect) -> (Vec<u8>, u32) {
    let (version, gone) = match dialect {
        Dialect::MariaDb => ("5.5.5-10.11.19-MariaDB-model", 1),
        Dialect::MySql => ("9.7.4-model", 0),
    };
    // No TLS, no compression, no LOCAL INFILE, no query attributes.
    let offered: u32 = (0x81ff_f7ff & !(1 << 5) & !(1 << 7) & !(1 << 11) & !(1 << 27)) & !gone;
    let mut p = vec![10];
    p.extend_from_slice(version.as_bytes());
    // The connection id is not known before the login.
    p.extend_from_slice(&[0, 0, 0, 0, 0]);
    p.extend_from_slice(&SCRAMBLE[..8]);
    p.push(0);
    p.extend_from_slice(&offered.to_le_bytes()[..2]);
    p.push(45);
    p.extend_from_slice(&status::AUTOCOMMIT.to_le_bytes());
    p.extend_from_slice(&offered.to_le_bytes()[2..]);
    p.push(21);
    p.extend_from_slice(&[0; 10]);
    p.extend_from_slice(&SCRAMBLE[8..]);
    p.push(0);
    p.extend_from_slice(b"mysql_native_password\0");
    (p, offered)
}

/// The answer of a client whose password is `password`.
fn native(password: &str) -> Vec<u8> {
    let sha = |parts: &[&[u8]]| {
        let mut h = sha1::Sha1::new();
        parts.iter().for_each(|p| h.update(p));
        h.finalize().to_vec()
    };
    let once = sha(&[password.as_bytes()]);
    let mask = sha(&[SCRAMBLE, &sha(&[&once])]);
    once.iter().zip(mask).map(|(a, b)| a ^ b).collect()
}

struct Asked {
    user: String,
    schema: Option<String>,
    answer: Vec<u8>,
    capabilities: u32,
    collation: u16,
}

fn asked(p: &[u8], offered: u32) -> Option<Asked> {
    let capabilities = u32::from_le_bytes(p.get(..4)?.try_into().ok()?) & offered;
    let collation = u16::from(*p.get(8)?);
    let rest = p.get(32..)?;
    let nul = rest.iter().position(|b| *b == 0)?;
    let user = String::from_utf8_lossy(&rest[..nul]).into_owned();
    let rest = &rest[nul + 1..];
    let length = usize::from(*rest.first()?);
    let answer = rest.get(1..1 + length)?.to_vec();
    let rest = &rest[1 + length..];
    let schema = (capabilities & caps::CONNECT_WITH_DB != 0).then(|| {
        let end = rest.iter().position(|b| *b == 0).unwrap_or(rest.len());
        String::from_utf8_lossy(&rest[..end]).into_owned()
    });
    Some(Asked { user, schema: schema.filter(|s| !s.is_empty()), answer, capabilities, collation })
}

fn serve(shared: &Shared, dialect: Dialect, node: usize, mut stream: TcpStream) -> std::io::Result<()> {
    if !shared.cluster().is_up(node) {
        return Ok(());
    }
    stream.set_nodelay(true)?;
    let (packet, offered) = greeting(dialect);
    write_packet(&mut stream, 0, &packet)?;
    let (mut seq, packet) = read_packet(&mut stream)?;
    let Some(mut asked) = asked(&packet, offered) else { return Ok(()) };
    if asked.answer != native(&asked.user) {
        // The client may have begun with another plugin.
        let mut switch = vec![0xfe];
        switch.extend_from_slice(b"mysql_native_password\0");
        switch.extend_from_slice(SCRAMBLE);
        switch.push(0);
        write_packet(&mut stream, seq + 1, &switch)?;
        (seq, asked.answer) = read_packet(&mut stream)?;
    }
    if asked.answer != native(&asked.user) {
        let text = format!("Access denied for user '{}'@'127.0.0.1' (using password: YES)", asked.user);
        let denied = [&[0xff, 0x15, 0x04], &b"#28000"[..], text.as_bytes()].concat();
        return write_packet(&mut stream, seq + 1, &denied);
    }
    let login = Login {
        user: &asked.user,
        host: "127.0.0.1",
        schema: asked.schema.as_deref(),
        capabilities: asked.capabilities,
        collation: asked.collation,
    };
    let connected = shared.cluster().connect(node, &login);
    let session = match connected {
        Ok(session) => session,
        Err(refused) => return write_packet(&mut stream, seq + 1, &refused),
    };
    let ok = shared.cluster().login_ok(session);
    let made = write_packet(&mut stream, seq + 1, &ok).and_then(|()| commands(shared, session, &mut stream));
    shared.cluster().disconnect(session);
    shared.changed.notify_all();
    made
}

fn commands(shared: &Shared, session: SessionId, stream: &mut TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(LOOK))?;
    loop {
        // An idle client whose node is gone finds its connection closed.
        let mut first = [0];
        match stream.peek(&mut first) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(_) if shared.cluster().is_connected(session) => continue,
            Err(_) => return Ok(()),
        }
        stream.set_read_timeout(None)?;
        let (_, payload) = read_packet(stream)?;
        let mut outcome = shared.cluster().command(session, &payload, shared.now());
        shared.changed.notify_all();
        while outcome == Outcome::Waits {
            let guard = shared.cluster();
            drop(shared.changed.wait_timeout(guard, LOOK));
            outcome = shared.cluster().poll(session, shared.now());
        }
        shared.changed.notify_all();
        stream.write_all(&outcome.framed())?;
        if matches!(outcome, Outcome::Answer(_, true)) {
            return Ok(());
        }
        stream.set_read_timeout(Some(LOOK))?;
    }
}
