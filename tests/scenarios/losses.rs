//! Server sessions that break, at every stage of a statement; and clients that do.

use std::time::Duration;

use belay::topology::NodeState;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Reply, one, query};
use crate::node::{Act, COLUMN, OK, answer, recorded, rows};
use crate::world::World;

fn script(sql: &str) -> Act {
    match sql {
        "BEGIN" => Act::Answer(begun()),
        "DO 'die'" => Act::Close(Vec::new()),
        "SELECT 'cut' FOR UPDATE" => Act::Close(answer(&[&b"\x01"[..], COLUMN, b"\x011", b"\x012"])),
        "SELECT 'mid' FOR UPDATE" => {
            let mut whole = answer(&[&b"\x01"[..], COLUMN, b"\x011", b"\x05abcde"]);
            whole.truncate(whole.len() - 3);
            Act::Close(whole)
        }
        "SELECT 'broken' FOR UPDATE" => Act::Answer(answer(&[&b"\x01"[..], COLUMN, b"\x011", b""])),
        "SELECT 'hang'" => Act::Hang,
        "CALL fails()" => Act::Answer(answer(&[b"\xff\x6c\x06#45000no"])),
        "COMMIT" | "ROLLBACK" => Act::Answer(answer(&[OK])),
        "SELECT 'last words'" => {
            // The answer, and behind it what a MariaDB says when it is shut down.
            let mut bytes = begun();
            let mut words = answer(&[b"\xff\x87\x07#70100Connection was killed"]);
            words[3] = 0;
            bytes.extend_from_slice(&words);
            Act::Close(bytes)
        }
        _ => Act::Answer(rows("1")),
    }
}

/// The answer to BEGIN. It was recorded with ANSI_QUOTES in force, and this node's sql_mode is empty.
fn begun() -> Vec<u8> {
    let mut bytes = recorded("mariadb_deprecate_begin");
    bytes[8] &= 0x7F;
    bytes
}

async fn in_transaction(world: &World) -> Client {
    let mut client = world.client().await;
    assert_eq!(client.ask("BEGIN").await, Reply::Ok);
    assert_eq!(world.counts(), (1, 0, 0));
    client
}

/// Loses every server session, and waits until belay has noticed.
async fn lose(world: &World) {
    world.node.lose_all();
    world.until("the loss was noticed", |w| w.counts().0 == 0).await;
    probe(world);
}

/// What the monitor does when a session suspects a node: it looks, and says what it sees.
fn probe(world: &World) {
    world.node_is(NodeState::not_ready("a moment"));
    world.node_is(NodeState::Serving);
}

fn is_error(reply: &Reply, wanted: u16) -> bool {
    matches!(reply, Reply::Error(code, _, 0) if *code == wanted)
}

/// A routine may commit before it fails, and an error carries no status flags.
#[tokio::test]
async fn a_transaction_in_which_code_ran_is_not_called_uncommitted() {
    for (then, dies) in [("SELECT 1", false), ("COMMIT", false), ("SELECT 1 FROM t FOR UPDATE", true)] {
        let world = World::new(script, "");
        let mut client = in_transaction(&world).await;
        assert!(is_error(&client.ask("CALL fails()").await, 1644));
        let reply = if dies {
            client.ask("DO 'die'").await
        } else {
            lose(&world).await;
            client.ask(then).await
        };
        let Reply::Error(1105, text, 0) = reply else { panic!("{then}: {reply:?}") };
        assert!(text.contains("may have committed") || text.contains("unknown"), "{then}: {text}");
        assert!(!text.contains("not committed"), "{then}: {text}");
        if dies {
            probe(&world);
        }
        assert_eq!(client.ask("SELECT 1").await, one("1"));
    }
}

#[tokio::test]
async fn a_loss_while_idle_goes_unnoticed() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    world.node.lose_all();
    world.until("the node lost all", |w| w.node.connections.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn rollback_of_a_transaction_that_was_lost_while_idle_is_true_already() {
    let world = World::new(script, "");
    let mut client = in_transaction(&world).await;
    lose(&world).await;
    assert_eq!(client.ask("ROLLBACK").await, Reply::Ok);
    assert!(!world.node.said().contains(&"ROLLBACK".to_owned()), "it was answered here");
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn commit_and_everything_else_of_a_lost_transaction_get_the_error_once() {
    for next in ["COMMIT", "SELECT 1", "BEGIN", "ROLLBACK AND CHAIN", "ROLLBACK RELEASE"] {
        let world = World::new(script, "");
        let mut client = in_transaction(&world).await;
        lose(&world).await;
        let reply = client.ask(next).await;
        assert!(is_error(&reply, 1213), "{next}: {reply:?}");
        assert_eq!(client.ask("SELECT 1").await, one("1"), "after {next}");
        assert_eq!(world.node.said(), ["BEGIN", "SELECT 1"], "{next} was not sent");
    }
}

#[tokio::test]
async fn a_statement_that_was_sent_and_not_answered_is_never_sent_again() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    let reply = client.ask("DO 'die'").await;
    assert!(is_error(&reply, 1105), "{reply:?}");
    probe(&world);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    assert_eq!(world.node.said(), ["DO 'die'", "SELECT 1"]);
    // Inside a transaction it is known that nothing was committed.
    let mut client = world.client().await;
    assert_eq!(client.ask("BEGIN").await, Reply::Ok);
    let reply = client.ask("DO 'die'").await;
    assert!(is_error(&reply, 1213), "{reply:?}");
    probe(&world);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn an_error_takes_the_place_of_the_next_row() {
    for broken in ["SELECT 'cut' FOR UPDATE", "SELECT 'broken' FOR UPDATE"] {
        let world = World::new(script, "");
        let mut client = world.client().await;
        let Reply::Error(1105, _, before) = client.ask(broken).await else { panic!("no error") };
        assert_eq!(before, if broken.contains("cut") { 2 } else { 1 });
        probe(&world);
        assert_eq!(client.ask("SELECT 1").await, one("1"));
        world.until("the broken one is gone", |w| w.counts() == (1, 1, 0)).await;
    }
}

#[tokio::test]
async fn half_a_row_can_only_be_ended_by_closing() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("SELECT 'mid' FOR UPDATE").await;
    for _ in 0..3 {
        client.frame().await.unwrap();
    }
    assert!(client.frame().await.is_none());
    assert_eq!(client.buf.len(), 4 + 3, "half of the second row");
    world.until("it is gone", |w| w.counts() == (0, 0, 0)).await;
}

#[tokio::test]
async fn what_a_node_says_behind_an_answer_is_not_the_next_answer() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    assert_eq!(client.ask("SELECT 'last words'").await, Reply::Ok);
    // It was inside a transaction: COMMIT must not be taken for done.
    let reply = client.ask("COMMIT").await;
    assert!(is_error(&reply, 1213), "{reply:?}");
    probe(&world);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    // The same if the next request has come already.
    let mut both = query("SELECT 'last words'");
    both.extend_from_slice(&query("COMMIT"));
    client.stream.write_all(&both).await.unwrap();
    assert_eq!(client.reply().await, Reply::Ok);
    let reply = client.reply().await;
    assert!(is_error(&reply, 1213), "{reply:?}");
    assert!(!world.node.said().contains(&"COMMIT".to_owned()));
}

#[tokio::test]
async fn what_runs_for_a_client_that_vanishes_is_killed_and_counted_until_it_is_gone() {
    let world = World::new(script, "");
    *world.node.close_after.lock().unwrap() = Duration::from_millis(500);
    let mut client = world.client().await;
    client.send_sql("SELECT 'hang'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'hang'").is_some()).await;
    let thread = world.node.said_by("SELECT 'hang'").unwrap();
    drop(client);
    let kill = format!("KILL {thread}");
    world.until("the KILL is sent", |w| w.node.said_by(&kill).is_some()).await;
    // The node takes its time: until it has closed the connection, the place is taken.
    assert_eq!(world.counts(), (1, 0, 0));
    world.until("the place is free", |w| w.counts() == (0, 0, 0)).await;
}

#[tokio::test]
async fn the_transaction_of_a_client_that_vanishes_is_rolled_back_before_anybody_else_comes() {
    let world = World::new(script, "server_connections_max = 1\n");
    let client = in_transaction(&world).await;
    drop(client);
    let mut next = world.client().await;
    assert_eq!(next.ask("SELECT 1").await, one("1"));
    assert_eq!(world.counts().0, 1);
}

#[tokio::test]
async fn a_kill_ends_the_statement_and_its_server_session_goes_to_nobody_else() {
    let world = World::new(script, "");
    let mut busy = world.client().await;
    busy.send_sql("SELECT 'hang'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'hang'").is_some()).await;
    let id = world.cx.registry.list(9).first().map(|h| h.id).unwrap();
    let mut other = world.client().await;
    assert_eq!(other.ask(&format!("KILL {id}")).await, Reply::Ok);
    // The node's own word if it comes first; then the end.
    let first = busy.reply().await;
    assert!(first == Reply::Closed || is_error(&first, 1317), "{first:?}");
    while busy.frame().await.is_some() {}
    world.until("it is gone", |w| w.counts().0 == w.counts().1).await;
}

#[tokio::test]
async fn a_client_that_closes_in_the_middle_of_a_request_leaves_nothing_behind() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.stream.write_all(b"\x20\0\0\0\x03SELECT").await.unwrap();
    drop(client);
    world.until("the session has ended", |w| w.cx.registry.list(9).is_empty()).await;
    assert!(world.node.said().is_empty());
}

#[tokio::test]
async fn kill_query_ends_the_statement_alone_and_its_server_session_goes_to_nobody_else() {
    let world = World::new(script, "server_connections_max = 1\n");
    let mut busy = world.client().await;
    busy.send_sql("SELECT 'hang'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'hang'").is_some()).await;
    let id = world.cx.registry.list(9).first().map(|h| h.id).unwrap();
    let mut other = world.client().await;
    assert_eq!(other.ask(&format!("KILL QUERY {id}")).await, Reply::Ok);
    assert!(is_error(&busy.reply().await, 1317));
    // The client may still ask its own server session about the error; nobody else gets it.
    assert_eq!(busy.ask("SELECT 1").await, one("1"));
    assert_eq!(other.ask("SELECT 2").await, one("1"));
    assert_eq!(world.node.said_by("SELECT 'hang'"), world.node.said_by("SELECT 1"));
    assert_ne!(world.node.said_by("SELECT 'hang'"), world.node.said_by("SELECT 2"));
    // Nothing runs for it now: nothing is killed.
    assert_eq!(other.ask(&format!("KILL QUERY {id}")).await, Reply::Ok);
    assert_eq!(world.node.said().iter().filter(|said| said.starts_with("KILL")).count(), 1);
    assert!(is_error(&other.ask("KILL QUERY 4000000").await, 1094));
}

#[tokio::test]
async fn a_client_that_waits_is_killed_at_once_and_its_statement_never_sent() {
    let world = World::new(script, "server_connections_max = 1\n");
    let mut busy = world.client().await;
    busy.send_sql("SELECT 'hang'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'hang'").is_some()).await;
    let mut waiting = world.client().await;
    waiting.send_sql("SELECT 'never'").await;
    world.until("it waits", |w| w.counts().2 == 1).await;
    world.cx.registry.list(9).iter().for_each(|h| {
        if h.running().target.is_none() {
            h.signal(belay::proxy::registry::signal::KILLED);
        }
    });
    world.until("it is gone", |w| w.counts().2 == 0 && w.cx.registry.list(9).len() == 1).await;
    drop(busy);
    world.until("all is quiet", |w| w.counts().0 == 0).await;
    assert!(world.node.said_by("SELECT 'never'").is_none());
    assert_eq!(waiting.reply().await, Reply::Closed);
}
