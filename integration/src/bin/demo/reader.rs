//! A client that reads rows whose content it knows, as text and prepared, and a sum that transfers must never change.

use std::time::Duration;

use super::board::Fault;
use super::load::{ACCOUNTS, BALANCE, Client, FACTS, Gone, Random, Seat, USERS, fact};
use belay_integration::wire::Statement;

/// Pause between two statements.
const PAUSE: Duration = Duration::from_millis(4);

/// Runs reports that take a while, one after another: one of them is nearly always on its way when a node is killed.
pub fn run_reports(seat: Seat) {
    let mut first = true;
    while let Some(mut client) = seat.login(USERS[0], Some("test")) {
        if std::mem::take(&mut first) {
            seat.board.client_is_ready();
        }
        while !seat.board.is_stopped() {
            let sql = "SELECT word, SLEEP(0.3), @@wsrep_node_name FROM demo_fact WHERE id = 1";
            let Ok(reply) = client.until_answered(sql) else { break };
            let row = reply.rows().texts().pop().unwrap_or_default();
            expect(&client, sql, &row, &[fact(1), "0".to_owned()]);
        }
    }
}

/// Reads until everything ends.
pub fn run(seat: Seat, number: u64) {
    let mut random = Random::new(number);
    let mut first = true;
    while let Some(mut client) = seat.login(USERS[0], Some("test")) {
        let Ok(statement) = client.prepare("SELECT word FROM demo_fact WHERE id = ?") else { continue };
        if std::mem::take(&mut first) {
            seat.board.client_is_ready();
        }
        while !seat.board.is_stopped() {
            if read(&mut client, statement, &mut random).is_err() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
    }
}

fn read(client: &mut Client, statement: Statement, random: &mut Random) -> Result<(), Gone> {
    let id = random.below(FACTS) + 1;
    match random.below(8) {
        0 => {
            let sql = "SELECT SUM(balance), COUNT(*), @@wsrep_node_name FROM demo_account";
            let row = client.until_answered(sql)?.rows().texts().pop().unwrap_or_default();
            let want = [(ACCOUNTS * BALANCE).to_string(), ACCOUNTS.to_string()];
            expect(client, sql, &row, &want);
        }
        1..4 => {
            let row = client.until_executed(statement, id)?.rows().rows.pop().unwrap_or_default().pop().flatten();
            if row.as_deref() != Some(&binary_row(&fact(id))[..]) {
                client.board.fault(Fault::WrongAnswer, format!("{}: prepared, row {id}: {row:?}", client.name));
            }
            client.board.count(|c| c.checked += 1);
        }
        _ => {
            let sql = format!("SELECT word, @@wsrep_node_name FROM demo_fact WHERE id = {id}");
            let row = client.until_answered(&sql)?.rows().texts().pop().unwrap_or_default();
            expect(client, &sql, &row, &[fact(id)]);
        }
    }
    Ok(())
}

/// A binary row with one short text.
pub fn binary_row(text: &str) -> Vec<u8> {
    let mut row = vec![0, 0, u8::try_from(text.len()).unwrap_or(u8::MAX)];
    row.extend_from_slice(text.as_bytes());
    row
}

/// The answer is a row that starts with `want` and ends with the name of the node that gave it.
fn expect(client: &Client, sql: &str, row: &[String], want: &[String]) {
    client.board.count(|c| c.checked += 1);
    match row.split_last() {
        Some((node, values)) if values == want => client.board.served_by(node, 1),
        _ => {
            let text = format!("{}: {sql}: {row:?} instead of {want:?}", client.name);
            client.board.fault(Fault::WrongAnswer, text);
        }
    }
}
