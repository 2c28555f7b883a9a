//! What a client does, in a form that can be said to a model and to a real server.

use crate::wire::put_string;

/// A parameter of an execution.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Param {
    Null,
    Int(i64),
    Double(f64),
    Text(String),
}

/// One command. Prepared statements are named by their number in the session's script, from 0, refused ones counted.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum Act {
    Query(String),
    Prepare(String),
    Execute {
        statement: usize,
        params: Vec<Param>,
        cursor: bool,
    },
    /// Parameters without their types.
    ExecuteAgain {
        statement: usize,
        params: Vec<Param>,
    },
    Fetch {
        statement: usize,
        rows: u32,
    },
    LongData {
        statement: usize,
        param: u16,
        data: String,
    },
    ResetStatement(usize),
    Close(usize),
    Schema(String),
    Ping,
    ResetConnection,
    MultiStatements(bool),
    /// Any command by its number, answered by OK or ERR.
    Other(u8, Vec<u8>),
    /// KILL of another session of the script.
    Kill {
        session: usize,
        query: bool,
    },
}

/// The tracking that scripts and the generator begin with.
pub fn tracking(maria: bool) -> &'static str {
    if maria {
        "SET SESSION session_track_state_change=1, session_track_transaction_info='CHARACTERISTICS', session_track_system_variables='*'"
    } else {
        // With `*` MySQL adds statement_id to every OK.
        "SET SESSION session_track_state_change=1, session_track_transaction_info='CHARACTERISTICS', \
         session_track_system_variables='autocommit,sql_mode,time_zone,foreign_key_checks,unique_checks,sql_safe_updates,sql_auto_is_null,\
         sql_select_limit,character_set_client,character_set_results,character_set_connection,collation_connection,transaction_isolation,\
         transaction_read_only,timestamp,insert_id,last_insert_id,identity,session_track_schema,session_track_state_change,wait_timeout,\
         lock_wait_timeout,innodb_lock_wait_timeout,lc_time_names,group_concat_max_len,completion_type,sort_buffer_size,max_sort_length,\
         div_precision_increment,auto_increment_increment,auto_increment_offset,net_read_timeout,default_storage_engine'"
    }
}

/// How the answer of a command looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Shape {
    Replies,
    Prepared,
    /// Rows without heads.
    Rows,
    None,
}

impl Act {
    /// How its answer looks.
    pub fn shape(&self) -> Shape {
        match self {
            Act::Prepare(_) => Shape::Prepared,
            Act::Fetch { .. } => Shape::Rows,
            Act::LongData { .. } | Act::Close(_) => Shape::None,
            _ => Shape::Replies,
        }
    }

    /// The command's payload. `ids` are the session's statement ids, `threads` the connection ids of all sessions.
    pub fn payload(&self, ids: &[u32], threads: &[u32]) -> Vec<u8> {
        let id = |statement: &usize| ids.get(*statement).copied().unwrap_or(0xff_ffff).to_le_bytes();
        let said = |code: u8, body: &[u8]| [&[code], body].concat();
        match self {
            Act::Query(sql) => said(3, sql.as_bytes()),
            Act::Prepare(sql) => said(0x16, sql.as_bytes()),
            Act::Execute { statement, params, cursor } => execute(id(statement), params, *cursor, true),
            Act::ExecuteAgain { statement, params } => execute(id(statement), params, false, false),
            Act::Fetch { statement, rows } => said(0x1c, &[id(statement), rows.to_le_bytes()].concat()),
            Act::LongData { statement, param, data } => {
                said(0x18, &[&id(statement)[..], &param.to_le_bytes(), data.as_bytes()].concat())
            }
            Act::ResetStatement(statement) => said(0x1a, &id(statement)),
            Act::Close(statement) => said(0x19, &id(statement)),
            Act::Schema(name) => said(2, name.as_bytes()),
            Act::Ping => vec![0x0e],
            Act::ResetConnection => vec![0x1f],
            Act::MultiStatements(on) => vec![0x1b, u8::from(!on), 0],
            Act::Other(code, body) => said(*code, body),
            Act::Kill { session, query } => {
                let what = if *query { "QUERY " } else { "" };
                said(3, format!("KILL {what}{}", threads.get(*session).copied().unwrap_or(0)).as_bytes())
            }
        }
    }
}

fn execute(id: [u8; 4], params: &[Param], cursor: bool, with_types: bool) -> Vec<u8> {
    let mut p = vec![0x17];
    p.extend_from_slice(&id);
    p.push(u8::from(cursor));
    p.extend_from_slice(&1u32.to_le_bytes());
    if params.is_empty() {
        return p;
    }
    let mut nulls = vec![0u8; params.len().div_ceil(8)];
    let (mut types, mut values) = (Vec::new(), Vec::new());
    for (i, param) in params.iter().enumerate() {
        let ty = match param {
            Param::Null => {
                nulls[i / 8] |= 1 << (i % 8);
                6
            }
            Param::Int(n) => {
                values.extend_from_slice(&n.to_le_bytes());
                8
            }
            Param::Double(f) => {
                values.extend_from_slice(&f.to_le_bytes());
                5
            }
            Param::Text(text) => {
                put_string(&mut values, text.as_bytes());
                0xfd
            }
        };
        types.extend_from_slice(&[ty, 0]);
    }
    p.extend_from_slice(&nulls);
    p.push(u8::from(with_types));
    if with_types {
        p.extend_from_slice(&types);
    }
    p.extend_from_slice(&values);
    p
}

/// Reads a script: a line is a statement, or `!` and another command; `2:` before it says that session 2 does it (else 0). Lines that begin with
/// `#` and empty ones are left out; `M:` and `Y:` mark lines for MariaDB or MySQL alone.
pub fn script(text: &str, maria: bool) -> Vec<(usize, Act)> {
    let mut made = Vec::new();
    for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let line = match (line.strip_prefix("M:"), line.strip_prefix("Y:")) {
            (Some(rest), _) if maria => rest.trim(),
            (_, Some(rest)) if !maria => rest.trim(),
            (None, None) => line,
            _ => continue,
        };
        let (session, line) = match line.split_once(':') {
            Some((n, rest)) if n.len() == 1 && n.as_bytes()[0].is_ascii_digit() => {
                (n.parse().unwrap_or(0), rest.trim())
            }
            _ => (0, line),
        };
        made.push((session, line.strip_prefix('!').map_or_else(|| Act::Query(line.to_owned()), special)));
    }
    made
}

fn special(line: &str) -> Act {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let (first, tail) = rest.split_once(' ').unwrap_or((rest, ""));
    let number = |text: &str| text.parse().unwrap_or(0);
    let params = || tail.split(' ').filter(|p| !p.is_empty()).map(param).collect();
    match word {
        "prepare" => Act::Prepare(rest.to_owned()),
        "execute" => Act::Execute { statement: number(first), params: params(), cursor: false },
        "cursor" => Act::Execute { statement: number(first), params: params(), cursor: true },
        "again" => Act::ExecuteAgain { statement: number(first), params: params() },
        "fetch" => Act::Fetch { statement: number(first), rows: number(tail) as u32 },
        "long" => {
            let (param, data) = tail.split_once(' ').unwrap_or((tail, ""));
            Act::LongData { statement: number(first), param: number(param) as u16, data: data.to_owned() }
        }
        "reset-statement" => Act::ResetStatement(number(first)),
        "close" => Act::Close(number(first)),
        "schema" => Act::Schema(rest.to_owned()),
        "ping" => Act::Ping,
        "reset" => Act::ResetConnection,
        "multi" => Act::MultiStatements(first == "on"),
        "kill" => Act::Kill { session: number(first), query: false },
        "kill-query" => Act::Kill { session: number(first), query: true },
        _ => Act::Other(number(first) as u8, tail.as_bytes().to_vec()),
    }
}

fn param(text: &str) -> Param {
    match (text.parse(), text.parse()) {
        (Ok(n), _) => Param::Int(n),
        (_, Ok(f)) => Param::Double(f),
        _ if text == "null" => Param::Null,
        _ => Param::Text(text.trim_matches('\'').to_owned()),
    }
}

/// A script's line for an act.
pub fn line(session: usize, act: &Act) -> String {
    let params = |params: &[Param]| {
        let one = |p: &Param| match p {
            Param::Null => " null".to_owned(),
            Param::Int(n) => format!(" {n}"),
            Param::Double(f) => format!(" {f:?}"),
            Param::Text(text) => format!(" '{text}'"),
        };
        params.iter().map(one).collect::<String>()
    };
    let said = match act {
        Act::Query(sql) => sql.clone(),
        Act::Prepare(sql) => format!("!prepare {sql}"),
        Act::Execute { statement, params: p, cursor } => {
            format!("!{} {statement}{}", if *cursor { "cursor" } else { "execute" }, params(p))
        }
        Act::ExecuteAgain { statement, params: p } => format!("!again {statement}{}", params(p)),
        Act::Fetch { statement, rows } => format!("!fetch {statement} {rows}"),
        Act::LongData { statement, param, data } => format!("!long {statement} {param} {data}"),
        Act::ResetStatement(statement) => format!("!reset-statement {statement}"),
        Act::Close(statement) => format!("!close {statement}"),
        Act::Schema(name) => format!("!schema {name}"),
        Act::Ping => "!ping".to_owned(),
        Act::ResetConnection => "!reset".to_owned(),
        Act::MultiStatements(on) => format!("!multi {}", if *on { "on" } else { "off" }),
        Act::Other(code, body) => format!("!command {code} {}", String::from_utf8_lossy(body)),
        Act::Kill { session, query } => format!("!kill{} {session}", if *query { "-query" } else { "" }),
    };
    format!("{session}: {said}")
}
