//! The oracle of the scenario tests: the server itself. A script runs once on a direct connection and once through belay; every
//! answer must be the same to the last flag.

use crate::Result;
use crate::wire::{Login, Reply, Statement, Wire, WireError};

/// One step of a script.
#[derive(Clone, Debug)]
pub enum Step<'a> {
    /// COM_QUERY; all its results are compared.
    Sql(&'a str),
    /// Prepare, execute with these parameters (as strings), close.
    Prepared(&'a str, &'a [&'a str]),
    /// COM_STMT_PREPARE; the statement stays, and is known by its number in the script, from 0.
    Prepare(&'a str),
    /// COM_STMT_EXECUTE of such a statement with these parameters.
    Execute(usize, &'a [&'a str]),
    /// COM_INIT_DB.
    Schema(&'a str),
    /// COM_PING, COM_RESET_CONNECTION, …: a command by number without a body.
    Command(u8),
    /// COM_QUERY on another connection, whose answer is not compared: it disturbs what the connections of the pool hold.
    Disturb(&'a str),
}

/// What one step answered: results, then perhaps an error. Texts of errors are compared too.
pub type Outcome = (Vec<Reply>, Option<(u16, String, String)>);

/// Runs the steps on one connection.
pub fn outcomes(wire: &mut Wire, other: &mut Wire, steps: &[Step<'_>]) -> Result<Vec<Outcome>> {
    let mut made = Vec::new();
    steps.iter().map(|step| outcome(wire, other, &mut made, step)).collect()
}

fn outcome(wire: &mut Wire, other: &mut Wire, made: &mut Vec<Statement>, step: &Step<'_>) -> Result<Outcome> {
    let results = match step {
        Step::Sql(sql) => {
            wire.send_command(3, sql.as_bytes())?;
            return collect(wire);
        }
        Step::Prepared(sql, params) => prepared(wire, sql, params),
        Step::Prepare(sql) => {
            made.push(wire.prepare(sql).map_err(|e| format!("{sql}: {e}"))?);
            return Ok((Vec::new(), None));
        }
        Step::Execute(number, params) => {
            let statement = *made.get(*number).ok_or("no such statement in the script")?;
            wire.execute(statement, &params.iter().map(|p| p.as_bytes()).collect::<Vec<_>>())
        }
        Step::Schema(schema) => wire.command(2, schema.as_bytes()),
        Step::Command(code) => wire.command(*code, &[]),
        Step::Disturb(sql) => {
            other.query_all(sql).map_err(|e| format!("{sql}: {e}"))?;
            return Ok((Vec::new(), None));
        }
    };
    split(Vec::new(), results)
}

fn prepared(wire: &mut Wire, sql: &str, params: &[&str]) -> std::result::Result<Reply, WireError> {
    let statement = wire.prepare(sql)?;
    let params: Vec<&[u8]> = params.iter().map(|p| p.as_bytes()).collect();
    let reply = wire.execute(statement, &params);
    wire.close_statement(statement)?;
    reply
}

fn collect(wire: &mut Wire) -> Result<Outcome> {
    const MORE: u16 = 8;
    let mut replies = Vec::new();
    loop {
        match wire.read_reply(false) {
            Ok(reply) => {
                let status = match &reply {
                    Reply::Ok { status, .. } => *status,
                    Reply::Rows(rows) => rows.status,
                };
                replies.push(reply);
                if status & MORE == 0 {
                    return Ok((replies, None));
                }
            }
            Err(e) => return split(replies, Err(e)),
        }
    }
}

fn split(mut replies: Vec<Reply>, last: std::result::Result<Reply, WireError>) -> Result<Outcome> {
    match last {
        Ok(reply) => {
            replies.push(reply);
            Ok((replies, None))
        }
        Err(WireError::Server { code, state, message }) => Ok((replies, Some((code, state, message)))),
        Err(e) => Err(e.into()),
    }
}

/// Runs the script directly and through belay and compares step by step.
pub fn assert_same(direct: &str, through: &str, login: &Login<'_>, steps: &[Step<'_>]) -> Result<()> {
    let run = |address: &str, what: &str| -> Result<Vec<Outcome>> {
        let mut wire = Wire::login(address, login).map_err(|e| format!("{what}: login: {e}"))?;
        let mut other = Wire::login(address, login).map_err(|e| format!("{what}: second login: {e}"))?;
        outcomes(&mut wire, &mut other, steps).map_err(|e| format!("{what}: {e}").into())
    };
    let expected = run(direct, "direct")?;
    let found = run(through, "through belay")?;
    let mut faults = String::new();
    for ((step, expected), found) in steps.iter().zip(&expected).zip(&found) {
        if expected != found {
            faults += &format!("\n{step:?}\n  direct:  {expected:?}\n  through: {found:?}");
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(format!("answers differ:{faults}").into()) }
}
