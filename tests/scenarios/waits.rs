//! Waiting for a node, and for a server session.

use std::time::{Duration, Instant};

use belay::proxy::registry::{InsertId, signal};
use belay::topology::NodeState;
use belay::topology::collations::{Collations, NodeCharsets};

use crate::client::{Client, Reply, one};
use crate::node::{Act, Script, answer, recorded, rows};
use crate::world::World;

fn script(sql: &str) -> Act {
    Act::Answer(match sql {
        "BEGIN" => recorded("mariadb_deprecate_begin"),
        _ => rows("1"),
    })
}

#[tokio::test]
async fn a_statement_is_held_until_a_node_serves() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    world.node_is(NodeState::down("gone"));
    world.cx.pool.close();
    client.send_sql("SELECT 1").await;
    assert!(client.is_silent(Duration::from_millis(150)).await);
    world.node_is(NodeState::Serving);
    assert_eq!(client.reply().await, one("1"));
}

#[tokio::test]
async fn a_statement_that_was_held_for_too_long_gets_an_error_and_the_client_stays() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    world.node_is(NodeState::down("gone"));
    let Reply::Error(code, text, 0) = client.ask("SELECT 1").await else { panic!("no error") };
    assert_eq!(code, 1429, "{text}");
    world.node_is(NodeState::Serving);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn who_waits_in_vain_hears_which_pins_are_in_the_way() {
    let world = World::new(script, "server_connections_max = 1\nacquire_timeout_ms = 150\n");
    let mut holder = world.client().await;
    assert_eq!(holder.ask("SELECT GET_LOCK('a', 1)").await, one("1"));
    let mut other = world.client().await;
    let Reply::Error(_, text, 0) = other.ask("SELECT 1").await else { panic!("no error") };
    assert!(text.contains("user_lock"), "{text}");
    // The pin goes with its client, and its place with it.
    drop(holder);
    assert_eq!(other.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn a_server_session_that_idled_is_pinged_and_replaced_if_it_is_silent() {
    fn dead_to_pings(sql: &str) -> Act {
        if sql == "PING" { Act::Hang } else { Act::Answer(rows("1")) }
    }
    let world = World::new(script, "check_after_idle_ms = 0\n");
    let mut client = world.client().await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    assert!(world.node.said().iter().any(|said| said == "PING"));

    let world = World::new(dead_to_pings, "check_after_idle_ms = 0\ndial_timeout_ms = 200\n");
    let mut client = world.client().await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    tokio::time::sleep(Duration::from_millis(5)).await;
    // The silent session is thrown away; the statement was not sent to it.
    assert_eq!(client.ask("SELECT 2").await, one("1"));
    assert_eq!(world.node.said().iter().filter(|said| *said == "SELECT 2").count(), 1);
}

#[tokio::test]
async fn no_more_connections_than_allowed_however_many_clients() {
    fn slow(_: &str) -> Act {
        Act::After(Duration::from_millis(5), rows("1"))
    }
    let world = World::new(slow, "server_connections_max = 2\n");
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(world.client().await);
    }
    let all = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            for _ in 0..5 {
                assert_eq!(client.ask("SELECT 1").await, one("1"));
            }
        })
    });
    for task in all.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    assert_eq!(world.node.connections_most.load(std::sync::atomic::Ordering::SeqCst), 2);
    world.until("all are free", |w| w.counts() == (2, 2, 0)).await;
}

#[tokio::test]
async fn a_collation_that_the_next_node_lacks_is_told_once_and_costs_no_server_session() {
    const GENERAL: (&str, &str, &str) = ("45", "utf8mb4_general_ci", "utf8mb4");
    const MODERN: (&str, &str, &str) = ("255", "utf8mb4_0900_ai_ci", "utf8mb4");
    let of = |rows: &[(&'static str, &'static str, &'static str)]| NodeCharsets {
        collations: Collations::from_listing(rows.iter().copied()),
        ..NodeCharsets::default()
    };
    let world = World::new(script, "server_connections_max = 1\n");
    world.node_has(NodeState::Serving, of(&[GENERAL, MODERN]));
    let mut client = world.client_in(255).await;
    // From here on it is as if another node served, of another version.
    world.node_has(NodeState::Serving, of(&[GENERAL]));
    let Reply::Error(code, text, 0) = client.ask("SELECT 1").await else { panic!("no error") };
    assert!(code == 1105 && text.contains("utf8mb4_0900_ai_ci") && text.contains("not executed"), "{code} {text}");
    for _ in 0..3 {
        assert_eq!(client.ask("SELECT 1").await, one("1"));
    }
    assert_eq!(world.counts().0, 1);
    assert_eq!(world.node.connections_most.load(std::sync::atomic::Ordering::SeqCst), 1);
    assert_eq!(world.node.said().iter().filter(|said| *said == "SELECT 1").count(), 3);
    // A new login with it falls back on this node.
    assert_eq!(world.client_in(255).await.ask("SELECT 1").await, one("1"));
}

/// The OK of an INSERT that made 42.
const MADE: &[u8] = b"\0\x01\x2a\x02\0\0\0";
const ASK: &str = "SELECT LAST_INSERT_ID()";

/// One client has made an id, and another has its server session, on which belay asks for it.
async fn asked_for_another(script: Script) -> (World, Client, Client) {
    let world = World::new(script, "server_connections_max = 2\n");
    let (mut maker, mut taker) = (world.client().await, world.client().await);
    assert_eq!(maker.ask("INSERT INTO t VALUES ()").await, Reply::Ok);
    taker.send_sql("SELECT 1").await;
    world.until("it is asked", |w| w.node.said().iter().any(|said| said == ASK)).await;
    (world, maker, taker)
}

#[tokio::test]
async fn who_waits_for_its_insert_id_gets_it_when_it_was_read() {
    fn slow(sql: &str) -> Act {
        match sql {
            ASK => Act::After(Duration::from_millis(300), rows("42")),
            sql if sql.starts_with("INSERT") => Act::Answer(answer(&[MADE])),
            _ => Act::Answer(rows("1")),
        }
    }
    let (world, mut maker, mut taker) = asked_for_another(slow).await;
    let started = Instant::now();
    assert_eq!(maker.ask(ASK).await, one("42"));
    // Asked twice, one behind the other; the rest of the two seconds is not waited for.
    assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    assert_eq!(taker.reply().await, one("1"));
    let first = world.cx.registry.list(9).into_iter().min_by_key(|handle| handle.id).unwrap();
    assert_eq!(*first.insert_id(), InsertId::Known(42));
}

#[tokio::test]
async fn who_waits_for_its_insert_id_hears_a_kill_and_may_leave() {
    fn silent(sql: &str) -> Act {
        match sql {
            ASK => Act::Hang,
            sql if sql.starts_with("INSERT") => Act::Answer(answer(&[MADE])),
            _ => Act::Answer(rows("1")),
        }
    }
    for leaves in [false, true] {
        let (world, mut maker, _taker) = asked_for_another(silent).await;
        let started = Instant::now();
        maker.send_sql(ASK).await;
        assert!(maker.is_silent(Duration::from_millis(100)).await);
        if leaves {
            drop(maker);
        } else {
            let first = world.cx.registry.list(9).into_iter().min_by_key(|handle| handle.id).unwrap();
            first.signal(signal::KILLED);
            assert_eq!(maker.reply().await, Reply::Closed);
        }
        world.until("it is gone", |w| w.cx.registry.len() == 1).await;
        // Nothing else would have ended the wait before its limit of two seconds.
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    }
}
