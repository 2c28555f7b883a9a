//! A client that idles most of the time, with a session full of state of its own, and checks now and then that all of it is still there.

use std::time::Duration;

use super::board::Fault;
use super::load::{Client, FACTS, Gone, Random, Seat, USERS, fact};
use super::reader::binary_row;
use belay_integration::wire::Statement;

/// Idles at least this long between two turns, and at most three times as long.
const PAUSE_MS: u64 = 2_000;

/// What a session of an idle client has set; each client's differs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    user: &'static str,
    role: Option<&'static str>,
    schema: Option<&'static str>,
    time_zone: String,
    sql_mode: &'static str,
    isolation: &'static str,
    charset: &'static str,
    group_concat_max_len: u64,
    me: String,
    turn: u64,
}

impl State {
    fn of(number: u64) -> State {
        let pick = |choice: &[&'static str], by: u64| choice.get((number / by) as usize % choice.len()).copied();
        let second = number.is_multiple_of(4);
        State {
            user: if second { USERS[1] } else { USERS[0] },
            role: second.then_some("reader").filter(|_| number.is_multiple_of(8)),
            schema: if second {
                Some("test").filter(|_| !number.is_multiple_of(12))
            } else {
                pick(&["test", "shop"], 1)
            },
            // Quarters of an hour only: MariaDB 10.11 itself takes some other offsets for one that it met before ('+07:08' for '+04:52').
            time_zone: format!("+{:02}:{:02}", number / 4 % 13, number % 4 * 15),
            sql_mode: pick(&["", "ANSI_QUOTES", "STRICT_TRANS_TABLES", "NO_ENGINE_SUBSTITUTION"], 3)
                .unwrap_or_default(),
            isolation: pick(&["READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"], 5).unwrap_or_default(),
            charset: pick(&["utf8mb4", "latin1"], 7).unwrap_or_default(),
            group_concat_max_len: 10_000 + number,
            me: format!("idle client {number}"),
            turn: 0,
        }
    }

    /// The statements that make it.
    fn setup(&self) -> Vec<String> {
        let mut all = vec![
            format!("SET NAMES {}", self.charset),
            format!("SET time_zone = '{}', sql_mode = '{}'", self.time_zone, self.sql_mode),
            format!("SET SESSION TRANSACTION ISOLATION LEVEL {}", self.isolation.replace('-', " ")),
            format!("SET group_concat_max_len = {}", self.group_concat_max_len),
            format!("SET @me = '{}'", self.me),
            format!("SET @turn = {}", self.turn),
        ];
        all.extend(self.role.map(|role| format!("SET ROLE {role}")));
        all
    }

    /// Each value: how to ask for it, and what it is.
    fn values(&self, connection_id: u32) -> Vec<(&'static str, String)> {
        let or_null = |value: Option<&str>| value.unwrap_or("NULL").to_owned();
        vec![
            ("@@time_zone", self.time_zone.clone()),
            ("@@sql_mode", self.sql_mode.to_owned()),
            ("@@tx_isolation", self.isolation.to_owned()),
            ("@@group_concat_max_len", self.group_concat_max_len.to_string()),
            ("@@character_set_client", self.charset.to_owned()),
            ("@@character_set_results", self.charset.to_owned()),
            ("DATABASE()", or_null(self.schema)),
            ("CURRENT_ROLE()", or_null(self.role)),
            ("@me", self.me.clone()),
            ("@turn", self.turn.to_string()),
            ("CONNECTION_ID()", connection_id.to_string()),
        ]
    }
}

/// Idles and checks until everything ends.
pub fn run(seat: Seat, number: u64) {
    let mut random = Random::new(2_000_000 + number);
    let mut first = true;
    loop {
        let mut state = State::of(number);
        let Some(mut client) = seat.login(state.user, state.schema) else { return };
        let Ok(statement) = set_up(&mut client, &state, number) else { continue };
        if std::mem::take(&mut first) {
            seat.board.client_is_ready();
        }
        while !seat.board.is_stopped() {
            seat.board.sleep(Duration::from_millis(PAUSE_MS + random.below(2 * PAUSE_MS)));
            if turn(&mut client, &mut state, statement, &mut random).is_err() {
                break;
            }
        }
    }
}

fn set_up(client: &mut Client, state: &State, number: u64) -> Result<Statement, Gone> {
    for sql in state.setup() {
        client.until_answered(&sql)?;
    }
    // A text of its own, so that no two clients share the statement.
    client.prepare(&format!("SELECT word FROM test.demo_fact WHERE id = ? AND {number} = {number}"))
}

/// Checks everything, and changes a little.
fn turn(client: &mut Client, state: &mut State, statement: Statement, random: &mut Random) -> Result<(), Gone> {
    check(client, state)?;
    let id = random.below(FACTS) + 1;
    let row = client.until_executed(statement, id)?.rows().rows.pop().unwrap_or_default().pop().flatten();
    if row.as_deref() != Some(&binary_row(&fact(id))[..]) {
        client.board.fault(Fault::StateLost, format!("{}: its prepared statement answers {row:?}", client.name));
    }
    state.turn += 1;
    client.until_answered(&format!("SET @turn = {}", state.turn))?;
    if state.turn.is_multiple_of(3) {
        state.group_concat_max_len += 1000;
        client.until_answered(&format!("SET group_concat_max_len = {}", state.group_concat_max_len))?;
    }
    Ok(())
}

fn check(client: &mut Client, state: &State) -> Result<(), Gone> {
    let values = state.values(client.connection_id());
    let mut names: Vec<&str> = values.iter().map(|(name, _)| *name).collect();
    names.push("@@wsrep_node_name");
    let row = client.until_answered(&format!("SELECT {}", names.join(", ")))?.rows().texts().pop().unwrap_or_default();
    for (i, (name, want)) in values.iter().enumerate() {
        let got = row.get(i).map_or("nothing", String::as_str);
        if got != want {
            let text = format!("{}: {name} is '{got}' and must be '{want}'", client.name);
            client.board.fault(Fault::StateLost, text);
        }
    }
    client.board.count(|c| c.state_checked += values.len() as u64 + 1);
    client.board.served_by(row.last().map_or("", String::as_str), 1);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_differ() {
        let all: Vec<State> = (1..400).map(State::of).collect();
        for (i, a) in all.iter().enumerate() {
            for b in &all[i + 1..] {
                assert_ne!((&a.me, a.group_concat_max_len), (&b.me, b.group_concat_max_len));
            }
        }
        for some in [Some("test"), Some("shop"), None] {
            assert!(all.iter().any(|s| s.schema == some), "{some:?}");
        }
        for some in [Some("reader"), None] {
            assert!(all.iter().any(|s| s.user == USERS[1] && s.role == some), "{some:?}");
        }
    }
}
