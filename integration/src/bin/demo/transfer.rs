//! A client that runs transactions as a careful application does: each one has a key of its own, is started again when it was lost, and where the
//! outcome is unknown the key tells whether it had been committed.

use std::time::{Duration, Instant};

use belay_integration::wire::{Reply, WireError};

use super::board::Fault;
use super::kinds::Kind;
use super::load::{ACCOUNTS, Client, Gone, Random, Seat, USERS};

/// Pause between two transactions.
const PAUSE: Duration = Duration::from_millis(15);
/// At the end a transaction that was begun is brought to an end within this time.
const FINISH: Duration = Duration::from_secs(45);

/// How one attempt ended.
enum Attempt {
    /// COMMIT: OK.
    Committed,
    /// The row of an earlier attempt is there.
    Present,
    /// Not committed, says the error.
    NotCommitted,
    /// Nobody knows, says the error.
    Unknown,
    /// The client's connection is gone, or the error is one that must not be.
    Broken,
}

/// Runs transactions until everything ends; how many it believes to be committed.
pub fn run(seat: Seat, number: u64) -> u64 {
    let mut random = Random::new(1_000_000 + number);
    let mut done = 0;
    let mut first = true;
    // What is begun is brought to an end, even if that takes a new connection: it may be committed.
    let mut open = false;
    let mut unknown = false;
    while let Some(mut client) = seat.login(USERS[0], Some("test")) {
        if std::mem::take(&mut first) {
            seat.board.client_is_ready();
        }
        while !seat.board.is_stopped() || open {
            open = true;
            match finish(&mut client, &mut random, number, done + 1, &mut unknown) {
                Ok(()) => done += 1,
                Err(Gone) => break,
            }
            open = false;
            unknown = false;
            if check_counter(&mut client, number, done).is_err() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
    if open {
        seat.board
            .fault(Fault::Unfinished, format!("client {number}: transaction {} was not brought to an end", done + 1));
    }
    done
}

/// Attempts transaction `seq` until it is known to be committed.
fn finish(client: &mut Client, random: &mut Random, number: u64, seq: u64, unknown: &mut bool) -> Result<(), Gone> {
    let mut stopped = None;
    loop {
        match attempt(client, random, number, seq) {
            Attempt::Committed => {
                client.board.count(|c| c.committed += 1);
                return Ok(());
            }
            Attempt::Present if *unknown => {
                client.board.count(|c| c.resolved += 1);
                return Ok(());
            }
            Attempt::Present => {
                let text = format!("client {number}: transaction {seq} was said not to be committed, but it is");
                client.board.fault(Fault::DishonestError, text);
                return Ok(());
            }
            Attempt::NotCommitted => {}
            Attempt::Unknown => *unknown = true,
            Attempt::Broken => {
                *unknown = true;
                return Err(Gone);
            }
        }
        if client.board.is_stopped() && stopped.get_or_insert_with(Instant::now).elapsed() > FINISH {
            return Err(Gone);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn attempt(client: &mut Client, random: &mut Random, number: u64, seq: u64) -> Attempt {
    let from = random.below(ACCOUNTS) + 1;
    let to = from % ACCOUNTS + 1;
    // Rows are locked in the order of their keys, so that these transactions cause no deadlocks among themselves.
    let amount = random.below(20) as i64 - 10;
    let (low, high, amount) = if from < to { (from, to, amount) } else { (to, from, -amount) };
    let statements = [
        "BEGIN".to_owned(),
        format!("INSERT INTO demo_entry VALUES ({number}, {seq}, @@wsrep_node_name)"),
        format!("UPDATE demo_account SET balance = balance - {amount} WHERE id = {low}"),
        format!("UPDATE demo_account SET balance = balance + {amount} WHERE id = {high}"),
        format!("UPDATE demo_counter SET n = n + 1 WHERE client = {number}"),
    ];
    for sql in &statements {
        if let Err((kind, e)) = client.ask(sql) {
            return failed(client, kind, sql, &e);
        }
    }
    let sql = format!("SELECT n, @@wsrep_node_name FROM demo_counter WHERE client = {number}");
    match client.ask(&sql) {
        Ok(reply) => see(client, &sql, reply, seq),
        Err((kind, e)) => return failed(client, kind, &sql, &e),
    }
    match client.ask("COMMIT") {
        Ok(_) => Attempt::Committed,
        Err((kind, e)) => failed(client, kind, "COMMIT", &e),
    }
}

/// Inside the transaction the client sees its own counter.
fn see(client: &Client, sql: &str, reply: Reply, seq: u64) {
    let row = reply.rows().texts().pop().unwrap_or_default();
    client.board.count(|c| c.checked += 1);
    match row.as_slice() {
        [n, node] if *n == seq.to_string() => client.board.served_by(node, 7),
        _ => client.board.fault(Fault::WrongAnswer, format!("{}: {sql}: {row:?} instead of {seq}", client.name)),
    }
}

/// Rolls back, as an application does after any error, and says what is known.
fn failed(client: &mut Client, kind: Kind, sql: &str, e: &WireError) -> Attempt {
    if kind == Kind::ConnectionLost {
        client.blame(kind, sql, e);
        return Attempt::Broken;
    }
    let known = kind == Kind::Duplicate || kind.may_restart();
    if !known {
        client.blame(kind, sql, e);
    }
    if client.until_answered("ROLLBACK").is_err() || !known {
        return Attempt::Broken;
    }
    match kind {
        Kind::Duplicate => Attempt::Present,
        Kind::Unknown => Attempt::Unknown,
        _ => Attempt::NotCommitted,
    }
}

/// Outside a transaction, whatever node serves it, the client sees all that it has committed.
fn check_counter(client: &mut Client, number: u64, done: u64) -> Result<(), Gone> {
    let sql = format!("SELECT n, @@wsrep_node_name FROM demo_counter WHERE client = {number}");
    let reply = client.until_answered(&sql)?;
    let row = reply.rows().texts().pop().unwrap_or_default();
    client.board.count(|c| c.checked += 1);
    match row.as_slice() {
        [n, node] if *n == done.to_string() => client.board.served_by(node, 1),
        _ => client.board.fault(Fault::WrongAnswer, format!("{}: {sql}: {row:?} instead of {done}", client.name)),
    }
    Ok(())
}
