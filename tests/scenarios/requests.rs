//! Requests out of the ordinary: long, pipelined, out of order, files.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use belay::protocol::mysql::capability::Capabilities;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::client::{Client, Reply, one, query};
use crate::node::{Act, COLUMN, answer, answer_frames, recorded, rows};
use crate::world::World;

fn script(sql: &str) -> Act {
    Act::Answer(match sql {
        "SELECT 'slow'" => return Act::After(Duration::from_millis(30), rows("slow")),
        "LOAD DATA LOCAL INFILE 'a' INTO TABLE t" => return Act::File(answer(&[b"\xfba"]), true),
        // A routine's rows first: a client without DEPRECATE_EOF has counted one frame more than the node.
        "CALL p()" => {
            let end = b"\xfe\0\0\x0a\0\0\0";
            return Act::File(answer(&[&b"\x01"[..], COLUMN, b"\x011", end, b"\xfba"]), true);
        }
        "LOAD DATA LOCAL INFILE 'b' INTO TABLE t" => return Act::File(answer(&[b"\xfbb"]), false),
        "SELECT 'multi'" => recorded("mariadb_deprecate_multi"),
        _ => rows(&sql[sql.len().saturating_sub(2)..]),
    })
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    let mut all = query("SELECT 'slow'");
    // COM_PING is answered by belay, yet not before its turn.
    all.extend_from_slice(b"\x01\0\0\0\x0e");
    for i in 10..30 {
        all.extend_from_slice(&query(&format!("SELECT {i}")));
    }
    client.stream.write_all(&all).await.unwrap();
    assert_eq!(client.reply().await, one("slow"));
    assert_eq!(client.reply().await, Reply::Ok);
    for i in 10..30 {
        assert_eq!(client.reply().await, one(&i.to_string()));
    }
}

#[tokio::test]
async fn a_request_in_single_bytes_is_a_request() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    for byte in query("SELECT 12").iter() {
        client.stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(client.reply().await, one("12"));
}

#[tokio::test]
async fn a_wrong_sequence_number_ends_the_connection_with_its_error() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.stream.write_all(b"\x01\0\0\x05\x0e").await.unwrap();
    assert!(matches!(client.reply().await, Reply::Error(1156, _, 0)));
    assert!(client.frame().await.is_none());
    assert!(world.node.said().is_empty());
}

#[tokio::test]
async fn an_empty_request_and_an_unknown_command_are_errors_and_no_more() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.stream.write_all(b"\0\0\0\0").await.unwrap();
    assert!(matches!(client.reply().await, Reply::Error(..)));
    client.stream.write_all(b"\x01\0\0\0\xee").await.unwrap();
    assert!(matches!(client.reply().await, Reply::Error(1047, ..)));
    assert_eq!(client.ask("SELECT 12").await, one("12"));
}

/// A statement of this many bytes, as frames.
fn long_query(bytes: usize) -> Vec<u8> {
    let mut sql = b"SELECT 12 -- ".to_vec();
    sql.resize(bytes - 4, b'x');
    sql.extend_from_slice(b"\n12");
    query(std::str::from_utf8(&sql).unwrap()).to_vec()
}

#[tokio::test]
async fn a_statement_of_64_mb_streams_and_waits_for_a_node_that_does_not_read() {
    const BYTES: usize = 64 << 20;
    let world = World::new(script, "");
    let client = world.client().await;
    let stalled = Arc::new(Notify::new());
    let before = world.node.bytes.load(Ordering::SeqCst);
    *world.node.stalled.lock().unwrap() = Some(stalled.clone());
    let request = long_query(BYTES);
    let (mut read, mut write) = client.stream.into_split();
    let sent = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = sent.clone();
    let writer = tokio::spawn(async move {
        for chunk in request.chunks(16 * 1024) {
            write.write_all(chunk).await.unwrap();
            counter.fetch_add(chunk.len(), Ordering::SeqCst);
        }
        write
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let in_between = sent.load(Ordering::SeqCst);
    assert!(in_between < 2 << 20, "{in_between} bytes are kept between a client and a node that reads nothing");
    stalled.notify_one();
    let mut head = [0; 5];
    tokio::time::timeout(Duration::from_secs(60), read.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(head, [1, 0, 0, 1, 1], "rows");
    writer.await.unwrap();
    let got = world.node.bytes.load(Ordering::SeqCst) - before;
    // The statement, its command byte, and what belay sets before it.
    assert!((BYTES..BYTES + 1000).contains(&got), "the node has all of it: {got}");
}

#[tokio::test]
async fn a_statement_of_exactly_one_full_frame_and_its_empty_tail_arrive() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    for bytes in [0xFF_FFFE, 0xFF_FFFF, 0x100_0000] {
        client.stream.write_all(&long_query(bytes)).await.unwrap();
        assert!(matches!(client.reply().await, Reply::Rows(_)), "{bytes}");
    }
}

#[tokio::test]
async fn a_long_statement_that_finds_no_node_is_read_to_its_end() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    world.node_is(belay::topology::NodeState::down("gone"));
    world.cx.pool.close();
    let request = long_query(3 << 20);
    client.stream.write_all(&request[..1 << 20]).await.unwrap();
    let rest = tokio::spawn({
        let rest = request[1 << 20..].to_vec();
        async move { rest }
    });
    client.stream.write_all(&rest.await.unwrap()).await.unwrap();
    assert!(matches!(client.reply().await, Reply::Error(1429, ..)));
    world.node_is(belay::topology::NodeState::Serving);
    assert_eq!(client.ask("SELECT 12").await, one("12"));
}

#[tokio::test]
async fn several_results_reach_the_client_as_they_were() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("SELECT 'multi'").await;
    let mut got = Vec::new();
    for _ in 0..answer_frames(&recorded("mariadb_deprecate_multi")) {
        got.push(client.frame().await.unwrap().1);
    }
    assert_eq!(answer(&got), recorded("mariadb_deprecate_multi"));
    assert_eq!(client.ask("SELECT 12").await, one("12"));
}

/// Sends a file of these frames, the first of which has this number, and returns the number that is due then.
async fn send_file(client: &mut Client, frames: &[&[u8]], first: u8) -> u8 {
    let mut due = first;
    for frame in frames {
        client.stream.write_all(&[frame.len() as u8, 0, 0, due]).await.unwrap();
        client.stream.write_all(frame).await.unwrap();
        due += 1;
        // Frame by frame, as a disk gives them.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    due
}

#[tokio::test]
async fn a_file_reaches_the_node_numbered_as_the_node_counts() {
    for (sql, capabilities, frames) in [
        ("LOAD DATA LOCAL INFILE 'a' INTO TABLE t", Capabilities::empty(), 1),
        ("CALL p()", Capabilities::DEPRECATE_EOF, 5),
        ("CALL p()", Capabilities::empty(), 6),
    ] {
        let world = World::new(script, "");
        let mut client = world.client_with(capabilities).await;
        client.send_sql(sql).await;
        for due in 1..=frames {
            assert_eq!(client.frame().await.unwrap().0, due);
        }
        let due = send_file(&mut client, &[b"first", b"second", b""], frames + 1).await;
        let (seq, ok) = client.frame().await.unwrap();
        assert_eq!((seq, ok[0]), (due, 0), "{sql}");
        assert_eq!(world.node.said(), [sql, "first", "second", ""]);
    }
}

#[tokio::test]
async fn a_node_that_is_lost_under_a_file_is_told_when_the_client_listens() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("LOAD DATA LOCAL INFILE 'b' INTO TABLE t").await;
    assert_eq!(client.frame().await.unwrap(), (1, b"\xfbb".to_vec()));
    let due = send_file(&mut client, &[b"first", b"second", b"third", b""], 2).await;
    let (seq, error) = client.frame().await.unwrap();
    assert_eq!((seq, &error[..3]), (due, &b"\xff\x51\x04"[..]), "1105");
    world.node_is(belay::topology::NodeState::not_ready("a moment"));
    world.node_is(belay::topology::NodeState::Serving);
    assert_eq!(client.ask("SELECT 12").await, one("12"));
}

#[tokio::test]
async fn a_client_that_is_lost_under_its_file_leaves_no_half_of_it() {
    let world = World::new(script, "");
    let mut client = world.client().await;
    client.send_sql("LOAD DATA LOCAL INFILE 'a' INTO TABLE t").await;
    client.frame().await.unwrap();
    send_file(&mut client, &[b"first"], 2).await;
    drop(client);
    world.until("its connection is closed", |w| w.counts() == (0, 0, 0)).await;
    assert!(world.node.said().iter().any(|said| said.starts_with("KILL ")));
}
