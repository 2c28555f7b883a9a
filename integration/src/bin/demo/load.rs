//! The load: one thread for each client, and what all sorts of clients do alike: log in, ask, time the answer, judge the error.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use belay_integration::Result;
use belay_integration::servers::{APP, APP2, admin_connection};
use belay_integration::wire::{Login, Reply, Statement, Wire, WireError};

use super::board::{Board, Fault, Slot, Who};
use super::kinds::{Kind, kind_of};
use super::{idle, reader, transfer};

/// Rows that readers know by heart.
pub const FACTS: u64 = 500;
/// Accounts between which clients transfer.
pub const ACCOUNTS: u64 = 32;
/// What each account holds at the start.
pub const BALANCE: u64 = 1000;
/// A client whose statement fails honestly says it again, but no longer than this.
const PATIENCE: Duration = Duration::from_secs(60);
/// Stack of a client's thread: there are hundreds.
const STACK_BYTES: usize = 256 * 1024;

/// The word of a row of `demo_fact`.
pub fn fact(id: u64) -> String {
    format!("fact-{id}-{}", id.wrapping_mul(7919) % 10_007)
}

/// Makes the tables, on a node directly.
pub fn make_tables(node: &str, clients: usize) -> Result<()> {
    let mut admin = admin_connection(node)?;
    let list = |n: u64, row: &dyn Fn(u64) -> String| (1..=n).map(row).collect::<Vec<_>>().join(",");
    for sql in [
        "USE test".to_owned(),
        "CREATE OR REPLACE TABLE demo_fact (id INT PRIMARY KEY, word VARCHAR(40) NOT NULL) ENGINE=InnoDB".into(),
        format!("INSERT INTO demo_fact VALUES {}", list(FACTS, &|id| format!("({id},'{}')", fact(id)))),
        "CREATE OR REPLACE TABLE demo_account (id INT PRIMARY KEY, balance BIGINT NOT NULL) ENGINE=InnoDB".into(),
        format!("INSERT INTO demo_account VALUES {}", list(ACCOUNTS, &|id| format!("({id},{BALANCE})"))),
        "CREATE OR REPLACE TABLE demo_counter (client INT PRIMARY KEY, n BIGINT NOT NULL) ENGINE=InnoDB".into(),
        format!("INSERT INTO demo_counter VALUES {}", list(clients as u64, &|client| format!("({client},0)"))),
        "CREATE OR REPLACE TABLE demo_entry (client INT, seq BIGINT, node VARCHAR(20), PRIMARY KEY (client, seq)) ENGINE=InnoDB".into(),
    ] {
        admin.query(&sql)?;
    }
    Ok(())
}

/// Random numbers that need not be good.
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number from 0 to `n` - 1.
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// The client cannot go on: its connection is gone, or its statement failed for too long.
#[derive(Debug)]
pub struct Gone;

/// One client.
pub struct Client {
    /// The board.
    pub board: Arc<Board>,
    /// For texts about it.
    pub name: String,
    wire: Wire,
    slot: Arc<Slot>,
}

impl Client {
    /// Logs in.
    pub fn login(board: &Arc<Board>, slot: &Arc<Slot>, address: &str, login: &Login<'_>, name: &str) -> Option<Client> {
        match board.timed(slot, || Wire::login(address, login)) {
            Ok(wire) => Some(Client { board: Arc::clone(board), name: name.to_owned(), wire, slot: Arc::clone(slot) }),
            Err(e) => {
                let kind = kind_of(&e);
                board.error(kind, &format!("{name}: login: {e}"));
                if kind != Kind::NotExecuted {
                    board.fault(Fault::ConnectionLost, format!("{name} cannot log in: {e}"));
                }
                None
            }
        }
    }

    /// The connection id of the greeting.
    pub fn connection_id(&self) -> u32 {
        self.wire.connection_id
    }

    /// One statement, once.
    pub fn ask(&mut self, sql: &str) -> std::result::Result<Reply, (Kind, WireError)> {
        let wire = &mut self.wire;
        self.board.timed(&self.slot, || wire.query(sql)).map_err(|e| self.judge(sql, e))
    }

    fn judge(&self, sql: &str, e: WireError) -> (Kind, WireError) {
        let kind = kind_of(&e);
        // A key that is there already answers the client's question of what became of its transaction.
        if kind != Kind::Duplicate {
            self.board.error(kind, &format!("{}: {sql}: {e}", self.name));
        }
        (kind, e)
    }

    /// Writes down an error that must not happen.
    pub fn blame(&self, kind: Kind, sql: &str, e: &WireError) {
        let fault = match kind {
            Kind::ConnectionLost => Fault::ConnectionLost,
            Kind::StateLost => Fault::StateLost,
            _ => Fault::DishonestError,
        };
        self.board.fault(fault, format!("{}: {sql}: {e}", self.name));
    }

    /// A statement outside a transaction, said again as long as it fails honestly.
    pub fn until_answered(&mut self, sql: &str) -> std::result::Result<Reply, Gone> {
        self.insist(sql, |wire| wire.query(sql))
    }

    /// The same for the execution of a prepared statement with a number.
    pub fn until_executed(&mut self, statement: Statement, value: u64) -> std::result::Result<Reply, Gone> {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.insist("an execution", |wire| wire.execute_i64(statement, value))
    }

    /// The same for COM_STMT_PREPARE.
    pub fn prepare(&mut self, sql: &str) -> std::result::Result<Statement, Gone> {
        self.insist(sql, |wire| wire.prepare(sql))
    }

    fn insist<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Wire) -> std::result::Result<T, WireError>,
    ) -> std::result::Result<T, Gone> {
        let until = Instant::now() + PATIENCE;
        loop {
            let wire = &mut self.wire;
            let (kind, e) = match self.board.timed(&self.slot, || ask(wire)) {
                Ok(answer) => return Ok(answer),
                Err(e) => self.judge(what, e),
            };
            if !kind.may_repeat() {
                self.blame(kind, what, &e);
                return Err(Gone);
            }
            if Instant::now() > until {
                self.board.fault(Fault::Unfinished, format!("{}: {what}: still after {PATIENCE:?}: {e}", self.name));
                return Err(Gone);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The running load.
pub struct Load {
    clients: Vec<JoinHandle<()>>,
    transfers: Vec<JoinHandle<u64>>,
}

/// How many clients there are of all sorts: readers, as many with transactions, one that runs reports, and those that idle.
pub fn clients_of_all_sorts(clients: usize, idle_clients: usize) -> u64 {
    (2 * clients + 1 + idle_clients) as u64
}

/// Starts all clients; each logs in at once.
pub fn start(board: &Arc<Board>, address: &str, clients: usize, idle_clients: usize) -> Result<Load> {
    let mut load = Load { clients: Vec::new(), transfers: Vec::new() };
    load.clients.push(thread(board, address, Who::Reader, 0, reader::run_reports)?);
    for i in 1..=clients as u64 {
        load.clients.push(thread(board, address, Who::Reader, i, move |seat| reader::run(seat, i))?);
        load.transfers.push(thread(board, address, Who::Transfer, i, move |seat| transfer::run(seat, i))?);
    }
    for i in 1..=idle_clients as u64 {
        load.clients.push(thread(board, address, Who::Idle, i, move |seat| idle::run(seat, i))?);
        // Not all at one moment: a machine with two cores has other things to do.
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(load)
}

impl Load {
    /// Waits for the end of all clients; how many transactions each of those with transactions believes to have committed.
    pub fn join(self) -> Result<Vec<u64>> {
        for client in self.clients {
            client.join().map_err(|_| "a client of the load ended unexpectedly")?;
        }
        let done = |client: JoinHandle<u64>| client.join().map_err(|_| "a client of the load ended unexpectedly");
        Ok(self.transfers.into_iter().map(done).collect::<std::result::Result<_, _>>()?)
    }
}

/// What a client's thread starts with.
pub struct Seat {
    /// The board.
    pub board: Arc<Board>,
    slot: Arc<Slot>,
    address: String,
    name: String,
}

impl Seat {
    /// Logs in (again) until that succeeds or everything ends.
    pub fn login(&self, user: &str, schema: Option<&str>) -> Option<Client> {
        let login = Login::new(user, user);
        let login = schema.map_or(login, |schema| login.schema(schema));
        while !self.board.is_stopped() {
            if let Some(client) = Client::login(&self.board, &self.slot, &self.address, &login, &self.name) {
                return Some(client);
            }
            self.board.sleep(Duration::from_millis(500));
        }
        None
    }
}

/// The accounts of the load.
pub const USERS: [&str; 2] = [APP, APP2];

fn thread<T: Send + 'static>(
    board: &Arc<Board>,
    address: &str,
    who: Who,
    number: u64,
    run: impl FnOnce(Seat) -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    let name = match who {
        Who::Reader => format!("reader {number}"),
        Who::Transfer => format!("client {number}"),
        Who::Idle => format!("idle client {number}"),
    };
    let seat = Seat { board: Arc::clone(board), slot: board.slot(who), address: address.to_owned(), name };
    Ok(std::thread::Builder::new().stack_size(STACK_BYTES).spawn(move || run(seat))?)
}
