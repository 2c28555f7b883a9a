//! What is bounded: what lies between two sides, how long one waits for the other, how long a request may be.

use std::sync::atomic::Ordering;
use std::time::Duration;

use belay::proxy::registry::signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{Reply, one, query};
use crate::node::{Act, rows};
use crate::world::World;

fn script(sql: &str) -> Act {
    match sql {
        "SELECT many" => Act::Many(5_000),
        "SELECT 'slow'" => Act::After(Duration::from_millis(100), rows("slow")),
        "DO 'hang'" => Act::Hang,
        _ => Act::Answer(rows("1")),
    }
}

#[tokio::test]
async fn a_result_waits_for_a_client_that_does_not_read() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("SELECT many").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let out = world.node.bytes_out.load(Ordering::SeqCst);
    assert!(out > 0 && out < 2 << 20, "{out} bytes have left the node although nobody reads");
    let Reply::Rows(rows) = client.reply().await else { panic!("no rows") };
    assert_eq!(rows.len(), 5_000);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn a_client_that_never_reads_is_given_up_and_its_server_session_closed() {
    let world = World::with_session(script, "", "client_write_timeout_ms = 100");
    let mut client = world.client().await;
    client.send_sql("SELECT many").await;
    world.until("it is given up", |w| w.cx.registry.list(9).is_empty() && w.counts() == (0, 0, 0)).await;
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).await.unwrap();
    assert!(world.node.said().iter().any(|said| said.starts_with("KILL ")));
}

#[tokio::test]
async fn a_request_that_is_too_long_here_is_an_error_and_the_client_stays() {
    let world = World::with_session(script, "", "packet_bytes_max = 1000000");
    let mut client = world.client().await;
    client.stream.write_all(&query(&format!("SELECT 1 -- {}", "x".repeat(3_000_000)))).await.unwrap();
    assert!(matches!(client.reply().await, Reply::Error(1153, _, 0)));
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    world.until("the one that has half of it is gone", |w| w.counts() == (1, 1, 0)).await;
}

#[tokio::test]
async fn a_node_that_refuses_a_long_request_is_heard_and_the_client_stays() {
    let world = World::new(script, "");
    world.node.request_bytes_max.store(1_000_000, Ordering::SeqCst);
    let mut client = world.client().await;
    for bytes in [1_500_000, 3_000_000] {
        client.stream.write_all(&query(&format!("SELECT 1 -- {}", "x".repeat(bytes)))).await.unwrap();
        let reply = client.reply().await;
        assert!(matches!(&reply, Reply::Error(1153, text, 0) if text.starts_with("Got a packet")), "{reply:?}");
        assert_eq!(client.ask("SELECT 1").await, one("1"));
    }
}

#[tokio::test]
async fn a_client_that_vanishes_from_the_queue_takes_nothing_with_it() {
    let world = World::new(script, "server_connections_max = 1\n");
    let (mut a, mut b, mut c) = (world.client().await, world.client().await, world.client().await);
    a.send_sql("SELECT 'slow'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'slow'").is_some()).await;
    b.send_sql("SELECT 1").await;
    world.until("b waits", |w| w.counts() == (1, 0, 1)).await;
    c.send_sql("SELECT 1").await;
    world.until("c waits", |w| w.counts() == (1, 0, 2)).await;
    drop(b);
    world.until("b waits no more", |w| w.counts().2 == 1).await;
    assert_eq!(a.reply().await, one("slow"));
    assert_eq!(c.reply().await, one("1"));
    world.until("all is free", |w| w.counts() == (1, 1, 0)).await;
}

#[tokio::test]
async fn an_idle_client_is_told_why_it_has_to_go() {
    let world = World::new(script, "");
    for (what, code) in [(signal::KILLED, 1317), (signal::IDLE_TOO_LONG, 1159), (signal::DRAIN, 1053)] {
        let mut client = world.client().await;
        tokio::time::sleep(Duration::from_millis(10)).await;
        world.cx.registry.list(9).iter().for_each(|handle| handle.signal(what));
        let (seq, error) = client.frame().await.unwrap();
        assert_eq!((seq, error[0]), (0, 0xFF));
        assert_eq!(u16::from_le_bytes([error[1], error[2]]), code);
        assert!(client.frame().await.is_none());
        world.until("it is gone", |w| w.cx.registry.list(9).is_empty()).await;
    }
}

#[tokio::test]
async fn drain_waits_for_what_runs() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("SELECT 'slow'").await;
    world.until("it runs", |w| w.node.said_by("SELECT 'slow'").is_some()).await;
    world.cx.registry.list(9).iter().for_each(|handle| handle.signal(signal::DRAIN));
    assert_eq!(client.reply().await, one("slow"));
    assert_eq!(client.frame().await.map(|(seq, error)| (seq, error[0])), Some((0, 0xFF)));
    assert!(client.frame().await.is_none());
}

#[tokio::test]
async fn a_node_that_is_held_to_be_lost_ends_the_wait_for_it() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("DO 'hang'").await;
    world.until("it runs", |w| w.node.said_by("DO 'hang'").is_some()).await;
    world.node_is(belay::topology::NodeState::down("it is silent"));
    world.cx.registry.list(9).iter().for_each(|handle| handle.signal(signal::NODE_LOST));
    assert!(matches!(client.reply().await, Reply::Error(1105, _, 0)));
    world.node_is(belay::topology::NodeState::not_ready("a moment"));
    world.node_is(belay::topology::NodeState::Serving);
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_a_request_is_given_up() {
    let world = World::with_session(script, "", "client_write_timeout_ms = 100");
    for begin in
        [&b"\x20"[..], b"\x20\0\0\0\x03SELECT", &[&b"\xff\xff\x0f\0\x03SELECT "[..], &[b'x'; 300_000]].concat()]
    {
        let mut client = world.client().await;
        client.stream.write_all(begin).await.unwrap();
        world.until("it is given up", |w| w.cx.registry.list(9).is_empty()).await;
    }
    world.until("nothing is left", |w| w.counts().0 == w.counts().1).await;
}
