//! Prepared statements of the binary protocol on whatever server session there is.

use belay::protocol::mysql::capability::Capabilities;
use belay::protocol::mysql::frame;
use bytes::BytesMut;
use tokio::io::AsyncWriteExt;

use crate::client::{Client, Reply, one, query};
use crate::node::{Act, OK, answer, answer_frames, recorded, rows};
use crate::world::World;

/// MYSQL_TYPE_LONG and MYSQL_TYPE_VAR_STRING.
const LONG: [u8; 2] = [3, 0];
const STRING: [u8; 2] = [253, 0];

fn script(_: &str) -> Act {
    Act::Answer(rows("1"))
}

fn packet(command: u8, parts: &[&[u8]]) -> BytesMut {
    let (mut out, mut seq) = (BytesMut::new(), 0);
    frame::encode_packet(&mut out, &mut seq, &[&[command], parts.concat().as_slice()].concat());
    out
}

fn prepare(sql: &str) -> BytesMut {
    packet(0x16, &[sql.as_bytes()])
}

/// COM_STMT_EXECUTE with one parameter of four bytes.
fn execute(id: u32, types: Option<[u8; 2]>) -> BytesMut {
    let value: &[u8] = if types == Some(STRING) { b"\x03abc" } else { b"\x05\0\0\0" };
    let bound: Vec<u8> = types.map_or(vec![0], |t| vec![1, t[0], t[1]]);
    packet(0x17, &[&id.to_le_bytes(), b"\0\x01\0\0\0", b"\0", &bound, value])
}

fn about(command: u8, id: u32, rest: &[u8]) -> BytesMut {
    packet(command, &[&id.to_le_bytes(), rest])
}

impl Client {
    /// The id that belay gave the statement.
    async fn prepared(&mut self, frames: u8) -> u32 {
        let mut id = 0;
        for due in 1..=frames {
            let (seq, payload) = self.frame().await.unwrap();
            assert_eq!(seq, due);
            if due == 1 {
                assert_eq!(payload[0], 0, "{payload:x?}");
                id = u32::from_le_bytes(payload[1..5].try_into().unwrap());
            }
        }
        id
    }

    async fn prepare(&mut self, sql: &str) -> u32 {
        self.put(&prepare(sql)).await;
        self.prepared(2 + sql.matches('?').count() as u8).await
    }

    async fn put(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn execute(&mut self, id: u32, types: Option<[u8; 2]>) -> Reply {
        self.put(&execute(id, types)).await;
        self.reply().await
    }
}

fn seven() -> Reply {
    Reply::Rows(vec![b"\0\0\x07\0\0\0".to_vec()])
}

#[tokio::test]
async fn a_statement_follows_its_client_to_another_server_session_with_its_types() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    let id = client.prepare("SELECT ?").await;
    assert_eq!(client.execute(id, Some(LONG)).await, seven());
    assert_eq!(client.execute(id, None).await, seven());
    world.node.lose_all();
    world.until("all is lost", |w| w.node.connections.load(std::sync::atomic::Ordering::SeqCst) == 0).await;
    tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    assert_eq!(client.execute(id, None).await, seven());
    assert_eq!(client.execute(id, None).await, seven());
    assert_eq!(
        world.node.said(),
        [
            "PREPARE SELECT ?",
            "EXECUTE 1 types [3, 0]",
            "EXECUTE 1",
            "PREPARE SELECT ?",
            "EXECUTE 1 types [3, 0]",
            "EXECUTE 1"
        ]
    );
}

#[tokio::test]
async fn clients_share_a_statement_but_not_its_types() {
    let world = World::new(script, "server_connections_max = 1\n");
    let (mut a, mut b) = (world.client().await, world.client().await);
    // Two statements on the server, of which the first is one that b's id has to be told apart from.
    let other = b.prepare("SELECT 1 + ?").await;
    let id_a = a.prepare("SELECT ?").await;
    let id_b = b.prepare("SELECT ?").await;
    assert_ne!(other, id_b);
    assert_eq!(a.execute(id_a, Some(LONG)).await, seven());
    assert_eq!(b.execute(id_b, Some(STRING)).await, seven());
    assert_eq!(a.execute(id_a, None).await, seven());
    assert_eq!(b.execute(id_b, None).await, seven());
    let said = world.node.said();
    let executed: Vec<&str> =
        said.iter().filter_map(|s| s.strip_prefix("EXECUTE ")?.split_once(' ')).map(|(_, t)| t).collect();
    assert_eq!(executed, ["types [3, 0]", "types [253, 0]", "types [3, 0]", "types [253, 0]"]);
    // What one closes stays the other's.
    a.put(&about(0x19, id_a, b"")).await;
    assert_eq!(b.execute(id_b, None).await, seven());
    let Reply::Error(1243, ..) = a.execute(id_a, None).await else { panic!("it is closed") };
}

#[tokio::test]
async fn prepare_and_execute_in_one_send() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    let mut both = prepare("SELECT ?");
    // MariaDB: -1 is the statement prepared last.
    both.extend_from_slice(&execute(u32::MAX, Some(LONG)));
    both.extend_from_slice(&query("SELECT 1"));
    client.put(&both).await;
    client.prepared(3).await;
    assert_eq!(client.reply().await, seven());
    assert_eq!(client.reply().await, one("1"));
}

#[tokio::test]
async fn a_client_without_deprecate_eof_gets_every_eof_of_a_prepare() {
    let world = World::new(script, "");
    let mut client = world.client_with(Capabilities::empty()).await;
    client.put(&prepare("SELECT ?, ?")).await;
    // First packet, two parameters, EOF, one column, EOF.
    assert_eq!(client.prepared(6).await, 1);
    client.put(&prepare("SELECT 1")).await;
    assert_eq!(client.prepared(3).await, 2);
    client.send_sql("SELECT 1").await;
    for _ in 0..5 {
        client.frame().await.unwrap();
    }
}

#[tokio::test]
async fn long_data_pins_until_it_is_used_and_its_loss_is_told() {
    let world = World::new(script, "server_connections_max = 2\n");
    let mut client = world.client().await;
    let id = client.prepare("SELECT ?").await;
    client.put(&about(0x18, id, b"\0\0some")).await;
    world.until("it came", |w| w.node.said().iter().any(|s| s == "LONG DATA 2")).await;
    assert_eq!(world.counts(), (1, 0, 0), "pinned");
    assert_eq!(client.execute(id, Some(STRING)).await, seven());
    world.until("the pin is gone", |w| w.counts() == (1, 1, 0)).await;
    // Its data is on that server session and nowhere else.
    client.put(&about(0x18, id, b"\0\0some")).await;
    world.until("it came", |w| w.node.said().iter().filter(|s| s.starts_with("LONG DATA")).count() == 2).await;
    world.node.lose_all();
    world.until("the loss was noticed", |w| w.counts().0 == 0).await;
    let Reply::Error(1105, text, 0) = client.execute(id, None).await else { panic!("data is lost") };
    assert!(text.contains("long_data"), "{text}");
    world.node_is(belay::topology::NodeState::not_ready("a moment"));
    world.node_is(belay::topology::NodeState::Serving);
    assert_eq!(client.execute(id, Some(LONG)).await, seven());
}

#[tokio::test]
async fn a_cursor_pins_until_its_last_row() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    let id = client.prepare("SELECT ?").await;
    client.put(&packet(0x17, &[&id.to_le_bytes(), b"\x01\x01\0\0\0", b"\0", &[1, 3, 0], b"\x05\0\0\0"])).await;
    for _ in 0..answer_frames(&recorded("mariadb_deprecate_cursor")) {
        client.frame().await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    assert_eq!(world.counts(), (1, 0, 0), "pinned");
    client.put(&about(0x1C, id, b"\x09\0\0\0")).await;
    for _ in 0..answer_frames(&recorded("mariadb_deprecate_fetch")) {
        client.frame().await.unwrap();
    }
    client.put(&about(0x1A, id, b"")).await;
    assert_eq!(client.reply().await, Reply::Ok);
    world.until("the pin is gone", |w| w.counts() == (1, 1, 0)).await;
}

#[tokio::test]
async fn a_statement_nobody_prepared_is_an_error() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    for command in [0x17, 0x1C] {
        client.put(&about(command, 9, b"\0\x01\0\0\0")).await;
        assert!(matches!(client.reply().await, Reply::Error(1243, ..)), "{command:x}");
    }
    client.put(&packet(0x17, &[b"\x01"])).await;
    assert!(matches!(client.reply().await, Reply::Error(..)));
    // Neither long data nor a close has an answer.
    client.put(&about(0x18, 9, b"\0\0x")).await;
    client.put(&about(0x19, 9, b"")).await;
    assert_eq!(client.ask("SELECT 1").await, one("1"));
}

#[tokio::test]
async fn statements_do_not_pile_up_on_the_server() {
    let world = World::new(script, "server_connections_max = 1\nprepared_statements_max = 4\n");
    let mut client = world.client().await;
    for i in 0..20 {
        let id = client.prepare(&format!("SELECT {i} + ?")).await;
        client.put(&about(0x19, id, b"")).await;
    }
    assert_eq!(client.ask("SELECT 1").await, one("1"));
    let said = world.node.said();
    let (made, closed) = ["PREPARE", "CLOSE"].map(|what| said.iter().filter(|s| s.starts_with(what)).count()).into();
    assert_eq!((made, closed), (20, 16));
}

fn with_transactions(sql: &str) -> Act {
    match sql {
        "BEGIN" => Act::Answer(answer(&[b"\0\0\0\x03\0\0\0"])),
        "COMMIT" => Act::Answer(answer(&[OK])),
        _ => Act::Answer(rows("1")),
    }
}

/// A client in a transaction that was lost while it idled, with a prepared statement from before.
async fn transaction_lost(world: &World) -> (Client, u32) {
    let mut client = world.client().await;
    let id = client.prepare("SELECT ?").await;
    assert_eq!(client.ask("BEGIN").await, Reply::Ok);
    world.node.lose_all();
    world.until("the loss was noticed", |w| w.counts().0 == 0).await;
    (client, id)
}

fn node_is_back(world: &World) {
    world.node_is(belay::topology::NodeState::not_ready("a moment"));
    world.node_is(belay::topology::NodeState::Serving);
}

#[tokio::test]
async fn what_has_no_answer_takes_no_loss_away() {
    for (then, closes) in [("COMMIT", false), ("COMMIT", true), ("BEGIN", false)] {
        let world = World::new(with_transactions, "");
        let (mut client, id) = transaction_lost(&world).await;
        node_is_back(&world);
        client.put(&about(0x18, id, b"\0\0some")).await;
        if closes {
            client.put(&about(0x19, id, b"")).await;
        }
        // Neither does what belay answers itself.
        client.put(&packet(0x0E, &[])).await;
        assert_eq!(client.reply().await, Reply::Ok);
        client.put(&packet(0x1B, &[b"\0\0"])).await;
        client.frame().await.unwrap();
        let reply = client.ask(then).await;
        let Reply::Error(1213, ..) = reply else { panic!("{then} must not be answered with OK: {reply:?}") };
        assert_eq!(client.ask(then).await, Reply::Ok, "it is told once");
    }
}

#[tokio::test]
async fn the_execution_of_lost_long_data_tells_the_lost_transaction() {
    let world = World::new(with_transactions, "");
    let (mut client, id) = transaction_lost(&world).await;
    node_is_back(&world);
    client.put(&about(0x18, id, b"\0\0some")).await;
    let Reply::Error(1213, ..) = client.execute(id, Some(STRING)).await else { panic!("the transaction is lost") };
    assert_eq!(client.execute(id, Some(STRING)).await, seven(), "a failed execution has used it up");
}

#[tokio::test]
async fn a_reset_that_fails_tells_what_was_lost() {
    let world = World::new(with_transactions, "");
    // Lost before the reset, and by it.
    for lost_before in [true, false] {
        let (mut client, _) = if lost_before {
            transaction_lost(&world).await
        } else {
            let mut client = world.client().await;
            assert_eq!(client.ask("BEGIN").await, Reply::Ok);
            (client, 0)
        };
        world.node.lose_all();
        world.node_is(belay::topology::NodeState::not_ready("a while"));
        client.put(&packet(0x1F, &[])).await;
        let reply = client.reply().await;
        let Reply::Error(1213, ..) = reply else { panic!("{lost_before}: {reply:?}") };
        node_is_back(&world);
        assert_eq!(client.ask("COMMIT").await, Reply::Ok, "it is told already");
        // One that does what it was asked for makes it void.
        let (mut client, _) = transaction_lost(&world).await;
        node_is_back(&world);
        client.put(&packet(0x1F, &[])).await;
        assert_eq!(client.reply().await, Reply::Ok);
        assert_eq!(client.ask("COMMIT").await, Reply::Ok);
    }
}
