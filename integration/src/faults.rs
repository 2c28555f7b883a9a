//! A TCP proxy between belay and one node, with a real server behind it, that breaks at a chosen point: before or after a certain request, a certain
//! packet or byte of its answer, during a login; or as a whole: as if the node had died, fell silent, or could not be reached.
//!
//! It reads frames, not TLS: the server must offer none, or belay must not ask for it. Cursors are not followed.

pub mod conversation;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;

use crate::Result;
use crate::ports::free_port;
use crate::process::wait_for;
use conversation::{Conversation, Frame, From};

/// Where in a connection it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// The server's greeting; who logs in is not known yet, so its fault has no text.
    Greeting,
    /// The client's answer to it: the fault's text is looked for in it, for instance the account's name.
    LoginResponse,
    /// The OK that ends the login.
    LoginOk,
    /// A request.
    Request,
    /// The first packet of an answer, whatever it is.
    Answer,
    /// An OK that is an answer, of COM_STMT_PREPARE too.
    Ok,
    /// An ERR.
    Err,
    /// The first row.
    FirstRow,
    /// The end of the rows.
    End,
    /// Behind this many bytes of the answer, headers included; also in the middle of a packet.
    AnswerBytes(usize),
    /// Behind this many bytes of all that the client sends.
    ClientBytes(u64),
    /// Behind this many bytes of all that the server sends.
    ServerBytes(u64),
}

/// What happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Both sides are closed.
    Close,
    /// Both sides are reset (RST).
    Reset,
    /// Both stay open, and nothing passes any more.
    Silence,
    /// The server's side is closed; the client's stays open and gets nothing.
    HalfOpen,
    /// All connections are reset and new ones refused until [`Faults::revive`]: what the death of a process looks like. (The server behind it lives on.)
    Die,
    /// What follows waits this long.
    Delay(Duration),
}

/// A fault: where, for which request, and on which side of the packet.
#[derive(Clone, Debug)]
pub struct Fault {
    point: Point,
    after: bool,
    text: Vec<u8>,
    skip: usize,
}

impl Fault {
    /// In front of this packet of a request that contains `text`: the packet does not arrive.
    pub fn before(point: Point, text: &str) -> Fault {
        Fault { point, after: false, text: text.as_bytes().to_vec(), skip: 0 }
    }

    /// Right behind it: the packet arrives.
    pub fn after(point: Point, text: &str) -> Fault {
        Fault { after: true, ..Fault::before(point, text) }
    }

    /// Only the `n`th time, from 1.
    pub fn nth(mut self, n: usize) -> Fault {
        self.skip = n.saturating_sub(1);
        self
    }

    /// How many bytes of this frame still pass, if this is where it happens.
    fn hits(&self, seen: &Seen<'_>) -> Option<usize> {
        let within = |limit: u64, total: u64| {
            let before = total - seen.len as u64;
            (before <= limit && limit < total).then(|| (limit - before) as usize)
        };
        let packet = |is: bool| is.then_some(if self.after { seen.len } else { 0 });
        let of_text = self.text.is_empty() || seen.request.windows(self.text.len()).any(|w| w == self.text);
        if !of_text {
            return None;
        }
        let server = seen.from == From::Server;
        match self.point {
            Point::ClientBytes(n) => within(n, seen.total).filter(|_| !server),
            Point::ServerBytes(n) => within(n, seen.total).filter(|_| server),
            Point::AnswerBytes(n) => within(n as u64, seen.answer_bytes as u64).filter(|_| server && seen.in_answer),
            Point::Greeting => packet(seen.frame == Frame::Greeting),
            Point::LoginResponse => packet(seen.frame == Frame::LoginResponse),
            Point::LoginOk => packet(seen.frame == Frame::LoginOk),
            Point::Request => packet(seen.frame == Frame::Request),
            Point::Answer => packet(seen.first_of_answer),
            Point::Ok => packet(seen.frame == Frame::Ok),
            Point::Err => packet(seen.frame == Frame::Err && seen.in_answer),
            Point::FirstRow => packet(seen.frame == Frame::FirstRow),
            Point::End => packet(seen.frame == Frame::End),
        }
    }
}

/// One frame and what is known of it.
struct Seen<'a> {
    from: From,
    frame: Frame,
    request: &'a [u8],
    len: usize,
    /// Bytes of this direction, this frame included.
    total: u64,
    answer_bytes: usize,
    in_answer: bool,
    first_of_answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Pass,
    Refuse,
    Mute,
    Stop,
}

/// What every connection watches.
#[derive(Clone, Copy, Debug)]
struct Control {
    mode: Mode,
    /// Goes up when all connections are to end.
    cuts: u64,
    reset: bool,
}

#[derive(Debug, Default)]
struct Inner {
    armed: Vec<(Fault, Act)>,
    fired: usize,
    requests: Vec<Vec<u8>>,
    open: usize,
    most_open: usize,
    accepted: usize,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    inner: Mutex<Inner>,
    control: watch::Sender<Control>,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is to be done with a frame: how much of it passes, and what happens then.
    fn judge(&self, seen: &Seen<'_>) -> (usize, Option<Act>) {
        let mut inner = self.inner();
        let mut fires = None;
        for (i, (fault, _)) in inner.armed.iter_mut().enumerate() {
            let Some(passes) = fault.hits(seen) else { continue };
            if fault.skip == 0 {
                fires = Some((i, passes));
                break;
            }
            fault.skip -= 1;
        }
        let (passes, act) = match fires {
            Some((i, passes)) => {
                inner.fired += 1;
                (passes, Some(inner.armed.remove(i).1))
            }
            None => (seen.len, None),
        };
        if seen.frame == Frame::Request && passes > 0 {
            inner.requests.push(seen.request.get(..512).unwrap_or(seen.request).to_vec());
        }
        (passes, act)
    }

    fn cut(&self, mode: Option<Mode>, reset: bool) {
        self.control.send_modify(|c| {
            c.mode = mode.unwrap_or(c.mode);
            (c.cuts, c.reset) = (c.cuts + 1, reset);
        });
    }
}

/// A running proxy. It stops when dropped.
#[derive(Debug)]
pub struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Faults {
    /// In front of `server` (`host:port`), on a free port of its own.
    pub fn start(server: &str) -> Result<Faults> {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let (control, watched) = watch::channel(Control { mode: Mode::Pass, cuts: 0, reset: false });
        let shared = Arc::new(Shared { server: server.parse()?, inner: Mutex::default(), control });
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || runtime.block_on(accept(address, for_thread, watched)));
        let faults = Faults { address, shared, thread: Some(thread) };
        faults.wait_listening(true)?;
        Ok(faults)
    }

    /// `127.0.0.1:port`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Arms a fault; it happens once. Several may be armed: the first that fits a packet happens.
    pub fn arm(&self, fault: Fault, act: Act) {
        self.shared.inner().armed.push((fault, act));
    }

    /// Forgets what is armed and has not happened.
    pub fn disarm(&self) {
        self.shared.inner().armed.clear();
    }

    /// How many faults have happened so far.
    pub fn fired(&self) -> usize {
        self.shared.inner().fired
    }

    /// Waits until `n` faults have happened since the start.
    pub fn wait_fired(&self, n: usize, limit: Duration) -> Result<()> {
        wait_for("a fault to happen", limit, || (self.fired() >= n).then_some(()))
    }

    /// How many requests that contain `text` were passed to the server.
    pub fn requests(&self, text: &str) -> usize {
        let contains = |r: &&Vec<u8>| r.windows(text.len().max(1)).any(|w| w == text.as_bytes());
        self.shared.inner().requests.iter().filter(contains).count()
    }

    /// Connections that are open now, the most at one time since the last call, and all since the start.
    pub fn connections(&self) -> (usize, usize, usize) {
        let mut inner = self.shared.inner();
        let most = std::mem::replace(&mut inner.most_open, 0).max(inner.open);
        (inner.open, most, inner.accepted)
    }

    /// Ends all connections: with RST, or with FIN.
    pub fn cut_all(&self, reset: bool) {
        self.shared.cut(None, reset);
    }

    /// The node is dead: connections are reset, new ones refused.
    pub fn die(&self) -> Result<()> {
        self.shared.cut(Some(Mode::Refuse), true);
        self.wait_listening(false)?;
        wait_for("the end of all connections", Duration::from_secs(10), || {
            (self.shared.inner().open == 0).then_some(())
        })
    }

    /// New connections are refused; those that are open stay.
    pub fn refuse(&self) -> Result<()> {
        self.shared.control.send_modify(|c| c.mode = Mode::Refuse);
        self.wait_listening(false)
    }

    /// Nothing passes any more, on open connections and on new ones, which are taken all the same: a frozen host.
    pub fn mute(&self) {
        self.shared.control.send_modify(|c| c.mode = Mode::Mute);
    }

    /// All is well again. What was muted is cut: some of it was swallowed.
    pub fn revive(&self) -> Result<()> {
        let muted = self.shared.control.borrow().mode == Mode::Mute;
        self.shared.control.send_modify(|c| {
            c.mode = Mode::Pass;
            (c.cuts, c.reset) = (c.cuts + u64::from(muted), true);
        });
        self.wait_listening(true)
    }

    fn wait_listening(&self, listening: bool) -> Result<()> {
        wait_for("the proxy's port", Duration::from_secs(10), || {
            let connected = std::net::TcpStream::connect(self.address).is_ok();
            (connected == listening).then_some(())
        })
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.shared.cut(Some(Mode::Stop), false);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(address: SocketAddr, shared: Arc<Shared>, mut control: watch::Receiver<Control>) {
    let mut listener: Option<TcpListener> = None;
    loop {
        let now = *control.borrow_and_update();
        match now.mode {
            Mode::Stop => return,
            Mode::Refuse => listener = None,
            Mode::Pass | Mode::Mute if listener.is_none() => listener = listen(address).ok(),
            Mode::Pass | Mode::Mute => {}
        }
        let next = async {
            match (&listener, now.mode) {
                (Some(listener), _) => listener.accept().await.ok(),
                (None, Mode::Refuse) => std::future::pending().await,
                // The port is not free for a moment.
                (None, _) => {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    None
                }
            }
        };
        tokio::select! {
            accepted = next => {
                if let Some((client, _)) = accepted {
                    tokio::spawn(connection(client, Arc::clone(&shared), control.clone()));
                }
            }
            _ = control.changed() => {}
        }
    }
}

fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(1024)
}

async fn connection(client: TcpStream, shared: Arc<Shared>, control: watch::Receiver<Control>) {
    {
        let mut inner = shared.inner();
        inner.accepted += 1;
        inner.open += 1;
        inner.most_open = inner.most_open.max(inner.open);
    }
    let server = TcpStream::connect(shared.server).await;
    // Who was accepted in the moment of death finds nobody either.
    let refused = matches!(control.borrow().mode, Mode::Refuse | Mode::Stop);
    match server.ok().filter(|_| !refused) {
        Some(server) => Carrier::new(client, server, &shared).run(control).await,
        None => drop(client.set_zero_linger()),
    }
    shared.inner().open -= 1;
}

/// One proxied connection.
struct Carrier<'a> {
    client: TcpStream,
    /// Gone in a half-open connection.
    server: Option<TcpStream>,
    shared: &'a Shared,
    conversation: Conversation,
    up: Vec<u8>,
    down: Vec<u8>,
    totals: [u64; 2],
    silent: bool,
    answer_open: bool,
}

/// Whether the connection goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    On,
    Over { reset: bool },
}

impl<'a> Carrier<'a> {
    fn new(client: TcpStream, server: TcpStream, shared: &'a Shared) -> Carrier<'a> {
        let _ = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
        Carrier {
            client,
            server: Some(server),
            shared,
            conversation: Conversation::default(),
            up: Vec::new(),
            down: Vec::new(),
            totals: [0; 2],
            silent: false,
            answer_open: false,
        }
    }

    async fn run(mut self, mut control: watch::Receiver<Control>) {
        let cuts = control.borrow_and_update().cuts;
        let mut own = control.clone();
        let watch = async {
            loop {
                let now = *control.borrow_and_update();
                if now.cuts != cuts || control.changed().await.is_err() {
                    return now.reset;
                }
            }
        };
        let reset = tokio::select! {
            reset = watch => reset,
            reset = self.carry(&mut own, cuts) => reset,
        };
        if reset {
            let _ = self.client.set_zero_linger();
            let _ = self.server.as_ref().map(TcpStream::set_zero_linger);
        }
    }

    /// Carries until one side ends; whether the end is to be a reset.
    async fn carry(&mut self, control: &mut watch::Receiver<Control>, cuts: u64) -> bool {
        loop {
            let (client, server) = (&mut self.client, &mut self.server);
            let of_server = async {
                match server {
                    Some(server) => server.read_buf(&mut self.down).await,
                    None => std::future::pending().await,
                }
            };
            let (from, read) = tokio::select! {
                read = client.read_buf(&mut self.up) => (From::Client, read),
                read = of_server => (From::Server, read),
            };
            match read {
                Ok(0) | Err(_) if from == From::Server && self.silent => self.server = None,
                Ok(0) => return false,
                Err(_) => return true,
                Ok(_) => {}
            }
            let now = *control.borrow_and_update();
            if now.cuts != cuts {
                // What arrived at the same moment does not pass: nobody is there any more.
                return now.reset;
            }
            if now.mode == Mode::Mute {
                self.silent = true;
            }
            if self.silent {
                self.up.clear();
                self.down.clear();
                continue;
            }
            if let Next::Over { reset } = self.pass(from).await {
                return reset;
            }
        }
    }

    /// Passes on the frames that are there.
    async fn pass(&mut self, from: From) -> Next {
        loop {
            let buffer = if from == From::Client { &self.up } else { &self.down };
            let Some(len) = self.conversation.frame_len(buffer) else { return Next::On };
            let (passes, act) = self.look(from, len);
            let (buffer, to) = match from {
                From::Client => (&mut self.up, self.server.as_mut()),
                From::Server => (&mut self.down, Some(&mut self.client)),
            };
            let mut sent = Ok(());
            if let Some(to) = to {
                sent = to.write_all(buffer.get(..passes).unwrap_or_default()).await;
                if let (Ok(()), Some(Act::Delay(time))) = (&sent, act) {
                    tokio::time::sleep(time).await;
                    sent = to.write_all(buffer.get(passes..len).unwrap_or_default()).await;
                }
            }
            buffer.drain(..len);
            if sent.is_err() {
                return Next::Over { reset: true };
            }
            match act {
                None | Some(Act::Delay(_)) => {}
                Some(Act::Close) => return Next::Over { reset: false },
                Some(Act::Reset) => return Next::Over { reset: true },
                Some(Act::Die) => {
                    self.shared.cut(Some(Mode::Refuse), true);
                    return Next::Over { reset: true };
                }
                Some(Act::Silence) => self.silent = true,
                Some(Act::HalfOpen) => {
                    self.silent = true;
                    self.server = None;
                }
            }
            if self.silent {
                self.up.clear();
                self.down.clear();
                return Next::On;
            }
        }
    }

    /// What the frame at the front of the buffer is, and what is to be done with it.
    fn look(&mut self, from: From, len: usize) -> (usize, Option<Act>) {
        let buffer = if from == From::Client { &self.up } else { &self.down };
        let bytes = buffer.get(..len).unwrap_or_default();
        let request_before = self.conversation.request().to_vec();
        let answer_before = self.conversation.answer_bytes();
        let frame = self.conversation.frame(from, bytes);
        let total = self.totals.get_mut(usize::from(from == From::Server));
        let total = total.map_or(0, |t| {
            *t += len as u64;
            *t
        });
        let in_answer = !matches!(
            frame,
            Frame::Greeting | Frame::LoginMore | Frame::LoginOk | Frame::Request | Frame::RequestRest | Frame::Unknown
        );
        let request = match frame {
            Frame::Request => self.conversation.last_request().to_vec(),
            Frame::LoginResponse => self.conversation.request().to_vec(),
            _ => request_before,
        };
        let first_of_answer = from == From::Server && in_answer && !std::mem::replace(&mut self.answer_open, true);
        // The counter starts anew when the answer has ended.
        if from == From::Server && (self.conversation.answer_bytes() == 0 || frame == Frame::LoginOk) {
            self.answer_open = false;
        }
        let answer_bytes = answer_before + len;
        let seen = Seen { from, frame, request: &request, len, total, answer_bytes, in_answer, first_of_answer };
        self.shared.judge(&seen)
    }
}

#[cfg(test)]
mod tests;
