//! What happens to nodes and sessions: waits that end by time, crashes, lag, conflicts, refusals, kills.

use belay_model::answer::{Reply, read};
use belay_model::{Cluster, Dialect, Login, Outcome, SessionId, act, caps};

const CAPS: u32 = caps::PROTOCOL_41 | caps::DEPRECATE_EOF | caps::SESSION_TRACK | caps::MULTI_STATEMENTS;

fn login(cluster: &mut Cluster, node: usize) -> SessionId {
    let login = Login { user: "app", host: "localhost", schema: Some("test"), capabilities: CAPS, collation: 45 };
    cluster.connect(node, &login).expect("a session")
}

fn answer(outcome: Outcome) -> Reply {
    let Outcome::Answer(packets, _) = outcome else { panic!("it waits") };
    let mut packets = packets.into_iter();
    let (mut replies, _) =
        read::<()>(act::Shape::Replies, CAPS, &mut || packets.next().ok_or(())).expect("a whole answer");
    replies.pop().expect("an answer")
}

fn say(cluster: &mut Cluster, session: SessionId, sql: &str, now: u64) -> Outcome {
    cluster.command(session, &[b"\x03", sql.as_bytes()].concat(), now)
}

fn ok(cluster: &mut Cluster, session: SessionId, sql: &str) -> Reply {
    let outcome = say(cluster, session, sql, 0);
    let reply = answer(outcome);
    assert!(!matches!(reply, Reply::Err { .. }), "{sql}: {reply:?}");
    reply
}

fn code(outcome: Outcome) -> u16 {
    match answer(outcome) {
        Reply::Err { code, .. } => code,
        _ => 0,
    }
}

fn value(reply: Reply) -> String {
    let Reply::Rows { rows, .. } = reply else { panic!("no rows: {reply:?}") };
    String::from_utf8_lossy(&rows[0][1..]).into_owned()
}

fn cluster(nodes: usize) -> Cluster {
    let mut cluster = Cluster::new(Dialect::MariaDb, nodes);
    let session = login(&mut cluster, 0);
    ok(&mut cluster, session, "CREATE TABLE t(id INT PRIMARY KEY AUTO_INCREMENT, a INT)");
    ok(&mut cluster, session, "INSERT INTO t VALUES(1,1),(2,2)");
    cluster.disconnect(session);
    cluster
}

#[test]
fn waits_end_with_the_lock_or_with_time() {
    let mut c = cluster(1);
    let (a, b) = (login(&mut c, 0), login(&mut c, 0));
    ok(&mut c, a, "BEGIN");
    ok(&mut c, a, "UPDATE t SET a = 5 WHERE id = 1");
    ok(&mut c, b, "SET innodb_lock_wait_timeout = 2");
    assert_eq!(say(&mut c, b, "UPDATE t SET a = a + 1 WHERE id = 1", 1000), Outcome::Waits);
    assert_eq!(c.take_deadline(), Some(3000));
    assert_eq!(c.poll(b, 2999), Outcome::Waits);
    assert_eq!(code(c.poll(b, 3000)), 1205);
    assert_eq!(say(&mut c, b, "UPDATE t SET a = a + 1 WHERE id = 1", 4000), Outcome::Waits);
    ok(&mut c, a, "COMMIT");
    assert_eq!(code(c.poll(b, 4001)), 0);
    assert_eq!(value(ok(&mut c, a, "SELECT a FROM t WHERE id = 1")), "6");
    ok(&mut c, a, "DO GET_LOCK('k', 1)");
    assert_eq!(say(&mut c, b, "SELECT GET_LOCK('k', 1)", 5000), Outcome::Waits);
    assert_eq!(value(answer(c.poll(b, 6000))), "0");
    assert_eq!(say(&mut c, b, "SELECT GET_LOCK('k', 9)", 6000), Outcome::Waits);
    c.disconnect(a);
    assert_eq!(value(answer(c.poll(b, 6001))), "1");
}

#[test]
fn a_crash_ends_sessions_and_rolls_back() {
    let mut c = cluster(2);
    let (a, b) = (login(&mut c, 0), login(&mut c, 1));
    ok(&mut c, a, "BEGIN");
    ok(&mut c, a, "UPDATE t SET a = 9");
    c.crash(0);
    assert!(!c.is_connected(a) && !c.is_up(0));
    assert_eq!(say(&mut c, a, "COMMIT", 0), Outcome::Answer(Vec::new(), true));
    ok(&mut c, b, "UPDATE t SET a = 7 WHERE id = 2");
    c.restart(0);
    let a = login(&mut c, 0);
    assert_eq!(value(ok(&mut c, a, "SELECT SUM(a) FROM t")), "8");
}

#[test]
fn a_node_that_lags_shows_old_rows_and_conflicts_at_commit() {
    let mut c = cluster(2);
    let (a, b) = (login(&mut c, 0), login(&mut c, 1));
    c.set_lagging(true);
    ok(&mut c, a, "UPDATE t SET a = 10 WHERE id = 1");
    assert_eq!(value(ok(&mut c, b, "SELECT a FROM t WHERE id = 1")), "1");
    ok(&mut c, b, "BEGIN");
    ok(&mut c, b, "UPDATE t SET a = 20 WHERE id = 1");
    assert_eq!(code(say(&mut c, b, "COMMIT", 0)), 1213, "certification");
    ok(&mut c, b, "BEGIN");
    ok(&mut c, b, "UPDATE t SET a = 20 WHERE id = 1");
    assert_eq!(c.behind(1), 1);
    c.apply(1, 1);
    assert_eq!(code(say(&mut c, b, "SELECT 1", 0)), 1213, "the local transaction gave way");
    assert_eq!(value(ok(&mut c, b, "SELECT a FROM t WHERE id = 1")), "10");
}

#[test]
fn nodes_refuse_what_their_state_forbids() {
    let mut c = cluster(2);
    let a = login(&mut c, 0);
    c.set_read_only(0, true);
    assert_eq!(code(say(&mut c, a, "INSERT INTO t(a) VALUES(1)", 0)), 1290);
    ok(&mut c, a, "SELECT * FROM t");
    c.set_read_only(0, false);
    c.set_primary(0, false);
    assert_eq!(code(say(&mut c, a, "SELECT * FROM t", 0)), 1047);
    ok(&mut c, a, "SET @a = 1");
    c.set_primary(0, true);
    ok(&mut c, a, "INSERT INTO t(a) VALUES(1)");
}

#[test]
fn kill_ends_a_statement_or_a_session() {
    let mut c = cluster(1);
    let (a, b) = (login(&mut c, 0), login(&mut c, 0));
    ok(&mut c, a, "BEGIN");
    ok(&mut c, a, "UPDATE t SET a = 5");
    assert_eq!(say(&mut c, b, "UPDATE t SET a = 6", 0), Outcome::Waits);
    let thread = c.thread_id(b);
    assert!(c.kill(0, thread, true));
    assert_eq!(code(c.poll(b, 1)), 1317);
    ok(&mut c, b, "SELECT 1");
    assert!(c.kill(0, thread, false));
    assert!(!c.is_connected(b));
    assert!(!c.kill(0, 4_000_000, false));
}

#[test]
fn the_same_commands_give_the_same_packets() {
    let run = || {
        let mut c = cluster(2);
        let sessions = [login(&mut c, 0), login(&mut c, 1), login(&mut c, 0)];
        let script = belay_model::generate::conversation(11, true, 3, 200);
        let mut all = Vec::new();
        for (now, (at, act)) in script.iter().enumerate() {
            all.push(c.command(sessions[*at], &act.payload(&[], &[]), now as u64));
        }
        all
    };
    assert_eq!(run(), run());
}
