//! The errors that belay itself answers with. `docs/errors.md` lists the same table; a test compares the two.

use crate::protocol::ErrorReply;
use crate::protocol::mysql::flavor::Flavor;
use crate::session::loss::Loss;
use crate::session::pins::PinReason;
use crate::session::transaction::Remains;

/// Number, SQLSTATE and name of every error that belay makes.
pub const NAMES: &[(u16, &str, &str)] = &[
    (1040, "08004", "ER_CON_COUNT_ERROR"),
    (1045, "28000", "ER_ACCESS_DENIED_ERROR"),
    (1047, "08S01", "ER_UNKNOWN_COM_ERROR"),
    (1053, "08S01", "ER_SERVER_SHUTDOWN"),
    (1094, "HY000", "ER_NO_SUCH_THREAD"),
    (1095, "HY000", "ER_KILL_DENIED_ERROR"),
    (1105, "HY000", "ER_UNKNOWN_ERROR"),
    (1153, "08S01", "ER_NET_PACKET_TOO_LARGE"),
    (1156, "08S01", "ER_NET_PACKETS_OUT_OF_ORDER"),
    (1159, "08S01", "ER_NET_READ_INTERRUPTED"),
    (1203, "42000", "ER_TOO_MANY_USER_CONNECTIONS"),
    (1210, "HY000", "ER_WRONG_ARGUMENTS"),
    (1213, "40001", "ER_LOCK_DEADLOCK"),
    (1231, "42000", "ER_WRONG_VALUE_FOR_VAR"),
    (1235, "42000", "ER_NOT_SUPPORTED_YET"),
    (1243, "HY000", "ER_UNKNOWN_STMT_HANDLER"),
    (1251, "08004", "ER_NOT_SUPPORTED_AUTH_MODE"),
    (1317, "70100", "ER_QUERY_INTERRUPTED"),
    (1421, "HY000", "ER_STMT_HAS_NO_OPEN_CURSOR"),
    (1429, "HY000", "ER_CONNECT_TO_FOREIGN_DATA_SOURCE"),
    (1461, "42000", "ER_MAX_PREPARED_STMT_COUNT_REACHED"),
    (1792, "25006", "ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION"),
    (1835, "HY000", "ER_MALFORMED_PACKET"),
    (1927, "70100", "ER_CONNECTION_KILLED"),
];

/// A limit of the pool is reached.
pub const POOL_LIMIT: u16 = 1203;

fn reply(code: u16, message: String) -> ErrorReply {
    let sqlstate = NAMES.iter().find(|(n, _, _)| *n == code).map_or(*b"HY000", |(_, state, _)| {
        let mut out = *b"HY000";
        out.copy_from_slice(&state.as_bytes()[..5]);
        out
    });
    ErrorReply::new(code, &sqlstate, message)
}

/// More clients than `client_connections_max`.
pub fn too_many_clients() -> ErrorReply {
    reply(1040, "Too many connections (belay: listen.client_connections_max is reached)".into())
}

/// belay is shutting down.
pub fn shutting_down() -> ErrorReply {
    reply(1053, "Server shutdown in progress (belay is draining; connect again)".into())
}

/// A command byte that belay does not pass on.
pub fn unknown_command() -> ErrorReply {
    reply(1047, "Unknown command".into())
}

/// A command that would act on one node behind the back of all other clients.
pub fn not_supported(what: &str) -> ErrorReply {
    reply(1235, format!("belay does not pass {what} on to a node; connect to the node itself"))
}

/// No server session could be had within `acquire_timeout_ms`.
pub fn no_server_session(waited_ms: u128, pinned: usize, pins: &str) -> ErrorReply {
    let way = if pinned == 0 {
        "all of them are busy".to_owned()
    } else {
        format!("{pinned} of them are kept by pinned sessions ({pins})")
    };
    reply(
        1203,
        format!(
            "belay: no server session was free within {waited_ms} ms: {way}; raise pool.server_connections_max or end the pins"
        ),
    )
}

/// A write in a READ ONLY transaction that a reader serves, in the servers' words.
pub fn read_only_transaction(flavor: Flavor) -> ErrorReply {
    let stop = if flavor == Flavor::MySql { "." } else { "" };
    reply(1792, format!("Cannot execute statement in a READ ONLY transaction{stop}"))
}

/// A statement that a session on a reader can't be served.
pub fn not_on_a_reader(node: &str, why: &str, pins: &str) -> ErrorReply {
    let pins = if pins.is_empty() { String::new() } else { format!(" (pinned: {pins})") };
    reply(
        1105,
        format!(
            "belay: this session is on node '{node}', to which a rule sends reads, and {why}{pins}; the statement was not executed"
        ),
    )
}

/// The queue of an account is full.
pub fn queue_full() -> ErrorReply {
    reply(
        1203,
        "belay: too many clients of this account wait for a server session (pool.waiters_max); try again later".into(),
    )
}

/// A statement that would pin one server session too many.
pub fn pin_budget(pins: &str) -> ErrorReply {
    reply(
        1203,
        format!(
            "belay: this statement would pin a server session ({pins}) and pool.pinned_max sessions of this account are pinned already; \
                 end one of them or raise the limit"
        ),
    )
}

/// No node within `hold_timeout_ms`. The statement was not sent.
pub fn no_node(why: &str) -> ErrorReply {
    reply(
        1429,
        format!(
            "belay: no node could take this statement within cluster.hold_timeout_ms ({why}); it was not executed, try again"
        ),
    )
}

/// What went with the server session besides the transaction; nothing for no pins.
fn and_state(pins: &str) -> String {
    if pins.is_empty() {
        String::new()
    } else {
        format!(", and so is state of this session that lived there alone: {pins}; set it up again")
    }
}

/// A statement was sent and not answered. `pins` are the lasting ones.
pub fn outcome_unknown(node: &str, pins: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}' was lost before it answered; whether the statement was executed is unknown, check before you repeat it; \
                 an open transaction is gone{}",
            and_state(pins)
        ),
    )
}

/// Rows stopped coming. `pins` are the lasting ones.
pub fn answer_cut(node: &str, pins: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}' was lost in the middle of its answer; what was received is incomplete; an open transaction is gone{}",
            and_state(pins)
        ),
    )
}

/// The one server session of a login that could not be recorded is gone.
pub fn login_not_recorded() -> ErrorReply {
    reply(
        1105,
        "belay: the server session of this login is gone, and nothing was recorded to open another one with; connect again".into(),
    )
}

/// The transaction's server session is gone. `pins` are the lasting ones.
pub fn transaction_lost(node: &str, pins: &str, remains: Remains) -> ErrorReply {
    if remains == Remains::Unknown {
        return reply(
            1105,
            format!(
                "belay: node '{node}' was lost, and the open transaction with it; code that ran in it may have committed a part of it: \
                 check before you repeat it{}",
                and_state(pins)
            ),
        );
    }
    reply(
        1213,
        format!(
            "belay: node '{node}' was lost, and the open transaction with it: it was not committed; restart the transaction{}",
            and_state(pins)
        ),
    )
}

/// A harmless statement's connection to its node was closed while the node lives. `pins` are what was lost with it.
pub fn interrupted(node: &str, pins: &str) -> ErrorReply {
    reply(
        1317,
        format!(
            "Query execution was interrupted: node '{node}' lives and closed this session's connection, as it does after a KILL; run the statement again{}",
            and_state(pins)
        ),
    )
}

/// A node does not have what this session has seen or written.
pub fn not_caught_up(node: &str, why: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}' was not seen to have everything that this session has written or read ({why}; cluster.causal_wait_ms); the statement \
             was not executed; the next one will not wait for it"
        ),
    )
}

/// Pinned state died with its server, and perhaps an open transaction.
pub fn state_lost(node: &str, pins: &str, transaction: Option<Remains>) -> ErrorReply {
    let too = match transaction {
        None => "",
        Some(Remains::Nothing) => "; the open transaction is gone, too: it was not committed",
        Some(Remains::Unknown) => {
            "; the open transaction is gone, too: code that ran in it may have committed a part of it"
        }
    };
    reply(
        1105,
        format!(
            "belay: node '{node}' was lost, and with it state of this session that lived there alone: {pins}; set it up again{too}"
        ),
    )
}

/// What was lost before this request came.
pub fn lost(loss: &Loss) -> ErrorReply {
    let mut named = loss.state;
    named.remove(PinReason::UnreadVariables);
    if let Some(remains) = loss.transaction
        && named.is_empty()
    {
        // A report that was still due seldom brings anything: what counts is that the transaction has to be run again.
        transaction_lost(&loss.node, &loss.state.to_string(), remains)
    } else {
        state_lost(&loss.node, &loss.state.to_string(), loss.transaction)
    }
}

/// State could not be restored on another server session.
pub fn replay_refused(node: &str, what: &str, error: &ErrorReply) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}' refused to restore this session's {what} (error {}: {}); the statement was not executed",
            error.code, error.message
        ),
    )
}

/// A node made another value of a variable than the one it was given.
pub fn replay_differs(node: &str, variable: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}' made another value of this session's '{variable}', which has that value from now on: set it again; the statement \
             was not executed"
        ),
    )
}

/// A node does not have a collation, or a character set, of the session's; another one is in its place from now on.
pub fn collation_missing(node: &str, missing: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: node '{node}', which serves now, does not have '{missing}' of this session's character sets, which are the nearest that it has from \
             now on: set them again if need be; the statement was not executed"
        ),
    )
}

/// A statement was prepared under a collation, or a character set, that the node does not have.
pub fn prepared_elsewhere(node: &str, missing: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: the statement was prepared under '{missing}', which node '{node}', which serves now, does not have: prepare it again; it was not \
             executed"
        ),
    )
}

/// A value that servers refuse for a variable, in their words.
pub fn wrong_value(variable: &str, value: &str) -> ErrorReply {
    reply(1231, format!("Variable '{variable}' can't be set to the value of '{value}'"))
}

/// State that belay can't put into a statement, so that no other server session can be given it.
pub fn replay_impossible(node: &str, variable: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: this session's variable '{variable}' can't be restored on node '{node}', because its name can't be written into a statement; \
             the statement was not executed"
        ),
    )
}

/// A question for the messages of the last statement that their copy does not answer.
pub fn messages_copied() -> ErrorReply {
    reply(
        1105,
        "belay: the warnings of the last statement are kept as a copy, since the server session they were on serves others: ask for them with \
         SHOW WARNINGS, SHOW ERRORS, SHOW COUNT(*) or @@warning_count in a statement of its own"
            .into(),
    )
}

/// They are gone.
pub fn messages_lost() -> ErrorReply {
    value_lost("the list of warnings of the last statement")
}

/// Whether an error answers a question for the messages of the last statement, and so leaves them as they are.
pub fn is_about_messages(error: &ErrorReply) -> bool {
    *error == messages_copied() || *error == messages_lost()
}

/// A value of the last statement that can't be known any more.
pub fn value_lost(what: &str) -> ErrorReply {
    reply(
        1105,
        format!(
            "belay: {what} of this session is no longer known: the server session it was on is gone; run the statement it belongs to again"
        ),
    )
}

/// An execution of a statement that was never prepared or was closed.
pub fn unknown_statement(id: u32, command: &str, flavor: Flavor) -> ErrorReply {
    let handler = statement_handler(flavor, command);
    reply(1243, format!("Unknown prepared statement handler ({id}) given to {handler}"))
}

/// The servers' name for the code that looks at a request about a prepared statement: MySQL 9 has one for all.
fn statement_handler(flavor: Flavor, mariadb: &str) -> &str {
    if flavor == Flavor::MySql { "mysql_stmt_precheck" } else { mariadb }
}

/// COM_STMT_FETCH of a statement that was not executed with a cursor, or whose cursor is read to its end.
pub fn no_open_cursor(id: u32, flavor: Flavor) -> ErrorReply {
    let stop = if flavor == Flavor::MySql { "." } else { "" };
    reply(1421, format!("The statement ({id}) has no open cursor{stop}"))
}

/// The execution of a statement that was sent long data for a parameter that it does not have.
pub fn wrong_long_data(flavor: Flavor) -> ErrorReply {
    reply(1210, format!("Incorrect arguments to {}", statement_handler(flavor, "mysqld_stmt_send_long_data")))
}

/// A server session holds as many statements as it may, and of each it has long data, an open cursor or something else that can't be made again.
pub fn statements_all_held() -> ErrorReply {
    reply(
        1461,
        "belay: the server session has no room for another prepared statement (pool.prepared_statements_max): all that it holds have long data \
         or an open cursor; execute, fetch to the end, reset or close some"
            .into(),
    )
}

/// The number of [`too_many_statements`], and that of a node which holds as many as it may.
pub const TOO_MANY_STATEMENTS: u16 = 1461;

/// More prepared statements than a client may have.
pub fn too_many_statements() -> ErrorReply {
    reply(1461, "belay: this session has too many prepared statements (session.prepared_statements_max, session.prepared_bytes_max); close some".into())
}

/// A packet that does not parse.
pub fn malformed(what: &str) -> ErrorReply {
    reply(1835, format!("Malformed communication packet ({what})"))
}

/// A packet above `packet_bytes_max`.
pub fn packet_too_large() -> ErrorReply {
    reply(1153, "Got a packet bigger than belay's session.packet_bytes_max".into())
}

/// A packet with the wrong sequence number.
pub fn out_of_order() -> ErrorReply {
    reply(1156, "Got packets out of order".into())
}

/// KILL of a session that does not exist.
pub fn no_such_thread(id: u64) -> ErrorReply {
    reply(1094, format!("Unknown thread id: {id}"))
}

/// KILL of a session of another account.
pub fn kill_denied(id: u64) -> ErrorReply {
    reply(1095, format!("You are not owner of thread {id}"))
}

/// KILL where belay can't see whom it is for, or whether it runs.
pub fn kill_unseen(what: &str) -> ErrorReply {
    reply(
        1235,
        format!(
            "belay does not carry out KILL {what}: connection ids are belay's own and mean nothing to a node; send it as a statement of its own, with the id \
                 as a number, CONNECTION_ID() or a user variable"
        ),
    )
}

/// An execution with another number of parameters than the statement has.
pub fn wrong_arguments(command: &str) -> ErrorReply {
    reply(1210, format!("Incorrect arguments to {command}"))
}

/// KILL of the session's own connection on MariaDB.
pub fn connection_killed() -> ErrorReply {
    reply(1927, "Connection was killed".into())
}

/// KILL that could not be carried out on the node.
pub fn kill_failed(why: &str) -> ErrorReply {
    reply(1105, format!("belay: the KILL could not be carried out: {why}"))
}

/// Servers end what KILL QUERY hits with this.
pub const INTERRUPTED: u16 = 1317;

/// KILL QUERY hit what belay does before the statement, which was not sent.
pub fn interrupted_before() -> ErrorReply {
    reply(INTERRUPTED, "Query execution was interrupted".into())
}

/// The session itself was killed.
pub fn killed() -> ErrorReply {
    reply(INTERRUPTED, "Query execution was interrupted: this session was killed".into())
}

/// The account is unknown or its secret is refused by the nodes.
pub fn login_refused(message: &str) -> ErrorReply {
    reply(1045, message.to_owned())
}

/// The client idled for too long.
pub fn idle_too_long() -> ErrorReply {
    reply(1159, "belay: the connection was idle for longer than its time limit and is closed".into())
}
