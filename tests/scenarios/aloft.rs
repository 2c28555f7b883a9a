//! What belay says for itself in a client's conversation may have to wait on the node: the client can be killed meanwhile, and can go.

use std::time::{Duration, Instant};

use belay::protocol::mysql::capability::Capabilities;
use belay::protocol::mysql::frame;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Reply, one};
use crate::node::{Act, rows};
use crate::world::World;

/// How soon the end of a client is over: belay's own flights may last thirty seconds.
const SOON: Duration = Duration::from_secs(1);

/// A client of which this is kept waiting by the node, a flight of belay's own.
struct Case {
    script: fn(&str) -> Act,
    /// What the node is asked last.
    waits_for: &'static str,
    /// Whether the flight is in place of what the client asked, which hears of KILL QUERY.
    asked: bool,
    begin: fn(&World) -> Begun<'_>,
}

type Begun<'a> = std::pin::Pin<Box<dyn Future<Output = Client> + 'a>>;

fn keeps(waiting: &str, sql: &str) -> Act {
    if sql == waiting { Act::Hang } else { Act::Answer(rows("1")) }
}

/// COM_RESET_CONNECTION, COM_SET_OPTION, …
async fn send(client: &mut Client, payload: &[u8]) {
    let (mut out, mut seq) = (BytesMut::new(), 0);
    frame::encode_packet(&mut out, &mut seq, payload);
    client.stream.write_all(&out).await.unwrap();
}

fn cases() -> Vec<Case> {
    vec![
        Case {
            // The schema of a login.
            script: |sql| keeps("USE d", sql),
            waits_for: "USE d",
            asked: true,
            begin: |world| Box::pin(async { world.client_of("d") }),
        },
        Case {
            // A replay: another client has the server session in another state.
            script: |sql| keeps("SET OPTION", sql),
            waits_for: "SET OPTION",
            asked: true,
            begin: |world| {
                Box::pin(async {
                    let mut client = world.client().await;
                    assert_eq!(client.ask("SELECT 1").await, one("1"));
                    let multi = Capabilities::DEPRECATE_EOF | Capabilities::MULTI_STATEMENTS;
                    let mut client = world.client_with(multi).await;
                    client.send_sql("SELECT 1").await;
                    client
                })
            },
        },
        Case {
            // COM_SET_OPTION of a client that has a server session.
            script: |sql| keeps("SET OPTION", sql),
            waits_for: "SET OPTION",
            asked: false,
            begin: |world| {
                Box::pin(async {
                    let mut client = world.client().await;
                    assert_eq!(client.ask("SELECT GET_LOCK('a', 1)").await, one("1"));
                    send(&mut client, b"\x1b\0\0").await;
                    client
                })
            },
        },
        Case {
            script: |sql| keeps("RESET CONNECTION", sql),
            waits_for: "RESET CONNECTION",
            asked: true,
            begin: |world| {
                Box::pin(async {
                    let mut client = world.client().await;
                    send(&mut client, b"\x1f").await;
                    client
                })
            },
        },
        Case {
            // What is asked after the answer.
            script: |sql| if sql.contains("HEX(") { Act::Hang } else { Act::Answer(rows("1")) },
            waits_for: "HEX(",
            asked: false,
            begin: |world| {
                Box::pin(async {
                    let mut client = world.client().await;
                    assert_eq!(client.ask("SELECT @a := 1").await, one("1"));
                    client
                })
            },
        },
    ]
}

/// A world in which the node keeps the one client's flight waiting.
async fn waiting(case: &Case) -> (World, Client, u32) {
    let world = World::new(case.script, "server_connections_max = 1\n");
    let client = (case.begin)(&world).await;
    world.until(case.waits_for, |w| w.node.said().iter().any(|said| said.contains(case.waits_for))).await;
    let id = world.cx.registry.list(9).iter().map(|session| session.id).max().unwrap();
    (world, client, id)
}

async fn place_is_free(world: &World, began: Instant) {
    world.until("its place is free", |w| w.counts().0 == w.counts().1).await;
    assert!(began.elapsed() < SOON, "after {:?}", began.elapsed());
    assert!(world.node.said().iter().any(|said| said.starts_with("KILL ") && !said.starts_with("KILL QUERY")));
}

#[tokio::test]
async fn a_client_that_closes_under_a_flight_frees_its_place() {
    for case in cases() {
        let (world, client, _) = waiting(&case).await;
        let began = Instant::now();
        drop(client);
        place_is_free(&world, began).await;
        assert!(world.cx.registry.list(9).len() <= 1, "{}", case.waits_for);
    }
}

#[tokio::test]
async fn a_kill_under_a_flight_ends_the_client() {
    for case in cases() {
        let (world, mut client, id) = waiting(&case).await;
        let began = Instant::now();
        let mut killer = world.client().await;
        assert_eq!(killer.ask(&format!("KILL {id}")).await, Reply::Ok, "{}", case.waits_for);
        // What it hears before the end is the interruption, or the answer to what was not interrupted.
        while let Some((_, payload)) = client.frame().await {
            let told = payload.starts_with(b"\xff\x25\x05") || !case.asked && matches!(payload[0], 0x00 | 0xFE);
            assert!(told, "{}: {payload:x?}", case.waits_for);
        }
        assert!(began.elapsed() < SOON, "{} after {:?}", case.waits_for, began.elapsed());
        world.until("its place is free", |w| w.counts().0 == w.counts().1).await;
    }
}

#[tokio::test]
async fn a_kill_query_under_a_flight_is_the_answer() {
    for case in cases() {
        let (world, mut client, id) = waiting(&case).await;
        let began = Instant::now();
        let mut killer = world.client().await;
        assert_eq!(killer.ask(&format!("KILL QUERY {id}")).await, Reply::Ok);
        if case.asked {
            let reply = client.reply().await;
            assert!(matches!(reply, Reply::Error(1317, _, 0)), "{}: {reply:?}", case.waits_for);
        }
        world.until("it was told", |w| w.node.said().iter().any(|said| said.starts_with("KILL QUERY"))).await;
        assert!(began.elapsed() < SOON, "{} after {:?}", case.waits_for, began.elapsed());
    }
}
