//! Answers recorded from real servers, and generated ones, relayed to clients that negotiated otherwise: what the client reads is what the
//! node said, however the bytes were cut on their way.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::protocol::mysql::frame;

const TRACK: Capabilities = Capabilities::SESSION_TRACK;
const DEPRECATE: Capabilities = Capabilities::DEPRECATE_EOF;
/// All that an answer's framing depends on.
const CLIENTS: [Capabilities; 4] = [Capabilities::empty(), TRACK, DEPRECATE, TRACK.union(DEPRECATE)];
const CLIENT_STATEMENT: u32 = 77;

/// A recorded answer.
struct Recorded {
    name: String,
    shape: ReplyShape,
    server: Capabilities,
    stream: Vec<u8>,
}

/// What real servers answered (the seeds of the fuzz target `replies`), each under the capabilities it was recorded with and, where it says
/// nothing of session state, also as a server without SESSION_TRACK would have sent it.
fn recorded() -> Vec<Recorded> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus/replies");
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let bytes = std::fs::read(path).unwrap();
        let [choice, shape, stream @ ..] = bytes.as_slice() else { panic!("{name} is too short") };
        let shapes = [
            ReplyShape::Query,
            ReplyShape::Execute,
            ReplyShape::Prepare,
            ReplyShape::Fetch,
            ReplyShape::FieldList,
            ReplyShape::Statistics,
            ReplyShape::Simple,
            ReplyShape::SetOption,
        ];
        let shape = shapes[usize::from(*shape)];
        let mut server = Capabilities::PROTOCOL_41;
        server.set(TRACK, choice & 1 != 0);
        server.set(DEPRECATE, choice & 2 != 0);
        let stateless = events(shape, server, stream).1.iter().all(|e| !e.says_state());
        if stateless {
            let without = server.symmetric_difference(TRACK);
            all.push(Recorded { name: format!("{name} (other)"), shape, server: without, stream: stream.to_vec() });
        }
        all.push(Recorded { name, shape, server, stream: stream.to_vec() });
    }
    assert!(all.len() > 60);
    all
}

/// What a packet says, whatever the framing.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Event {
    Passed(FrameKind, Vec<u8>),
    Ok { affected: u64, insert_id: u64, status: StatusFlags, warnings: u16, info: Vec<u8>, state: Vec<u8> },
    End { status: StatusFlags, warnings: u16 },
    PrepareOk { id: u32, columns: u16, params: u16 },
}

impl Event {
    fn says_state(&self) -> bool {
        matches!(self, Event::Ok { state, .. } if !state.is_empty())
    }
}

/// Reads an answer as a peer with these capabilities does. Sequence numbers have to be consecutive, except behind a file that was sent in between.
/// Whether it is complete, what it said, and the number that is due next.
fn events(shape: ReplyShape, caps: Capabilities, mut stream: &[u8]) -> (bool, Vec<Event>, u8) {
    let mut tracker = ReplyTracker::new(shape, caps);
    let (mut out, mut due) = (Vec::new(), Some(1u8));
    let mut next = 1;
    while let Some(header) = FrameHeader::parse(stream)
        && let Some(payload) = stream.get(HEADER_BYTES..header.frame_len())
    {
        assert!(due.is_none_or(|due| due == header.seq), "number {} where {due:?} is due, after {out:?}", header.seq);
        stream = &stream[header.frame_len()..];
        next = header.seq.wrapping_add(1);
        due = Some(next);
        let step = tracker.advance(header, payload).unwrap_or_else(|e| panic!("{e} after {out:?}: {payload:x?}"));
        match step.kind {
            FrameKind::Ok => out.push(ok_event(payload, caps)),
            FrameKind::ResultEnd => out.push(end_event(payload, caps, tracker.status())),
            FrameKind::MetadataEof if step.done && shape == ReplyShape::Execute => {
                out.push(end_event(payload, caps, tracker.status()));
            }
            FrameKind::MetadataEof | FrameKind::ParamEof => {
                assert!(!tracker.status().contains(StatusFlags::SESSION_STATE_CHANGED) || caps.contains(TRACK));
            }
            FrameKind::PrepareOk => {
                let ok = PrepareOk::decode(payload, caps).unwrap();
                out.push(Event::PrepareOk { id: ok.stmt_id, columns: ok.num_columns, params: ok.num_params });
            }
            kind => out.push(Event::Passed(kind, payload.to_vec())),
        }
        if step.kind == FrameKind::LocalInfile {
            tracker.local_infile_sent();
            due = None;
        }
    }
    assert!(stream.is_empty(), "part of a frame is left: {stream:x?}");
    (tracker.is_done(), out, next)
}

fn ok_event(payload: &[u8], caps: Capabilities) -> Event {
    let ok = OkPacket::decode(payload, caps).unwrap();
    Event::Ok {
        affected: ok.affected_rows,
        insert_id: ok.last_insert_id,
        status: ok.status.difference(StatusFlags::SESSION_STATE_CHANGED),
        warnings: ok.warnings,
        info: ok.info.to_vec(),
        state: ok.session_state.to_vec(),
    }
}

fn end_event(payload: &[u8], caps: Capabilities, status: StatusFlags) -> Event {
    let warnings = match caps.contains(DEPRECATE) && !EofPacket::is_old_end(payload) {
        true => OkPacket::decode(payload, caps).unwrap().warnings,
        false => EofPacket::decode(payload).unwrap().warnings,
    };
    Event::End { status: status.difference(StatusFlags::SESSION_STATE_CHANGED), warnings }
}

/// Relays `pieces` one after the other, as the session task does.
fn relay_pieces<'a>(relay: &mut Relay, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<u8>, Progress) {
    let (mut input, mut out, mut to_client) = (BytesMut::new(), BytesMut::new(), Vec::new());
    let mut progress = Progress::More;
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            let n;
            (n, progress) = relay.process(&mut input, &mut out);
            if relay.replaced() {
                to_client.extend_from_slice(&out);
            } else {
                assert!(out.is_empty());
                to_client.extend_from_slice(&input[..n]);
            }
            out.clear();
            consume(&mut input, n);
            if progress != Progress::WantsFile {
                break;
            }
            relay.file_sent();
        }
    }
    (to_client, progress)
}

fn new_relay(answer: &Recorded, client: Capabilities) -> Relay {
    Relay::new(answer.shape, client, answer.server, CLIENT_STATEMENT)
}

/// What the client has to see of what the node said: its own statement id, and of session state what servers report by default.
fn as_seen(mut said: Vec<Event>, client: Capabilities) -> Vec<Event> {
    for event in &mut said {
        match event {
            Event::PrepareOk { id, .. } => *id = CLIENT_STATEMENT,
            Event::Ok { state, .. } => {
                let ok = OkPacket { session_state: state, ..OkPacket::default() };
                let visible = visible_state(&ok, client).to_vec();
                *state = visible;
            }
            _ => {}
        }
    }
    said
}

fn check<'a>(answer: &Recorded, client: Capabilities, pieces: impl IntoIterator<Item = &'a [u8]>, how: &str) -> Report {
    let mut relay = new_relay(answer, client);
    let (to_client, progress) = relay_pieces(&mut relay, pieces);
    assert_eq!(progress, Progress::Done, "{} for {client:?}, {how}", answer.name);
    let (_, said, _) = events(answer.shape, answer.server, &answer.stream);
    let (complete, seen, _) = events(answer.shape, client, &to_client);
    assert!(complete, "{} for {client:?}, {how}: {seen:?}", answer.name);
    assert_eq!(seen, as_seen(said, client), "{} for {client:?}, {how}", answer.name);
    relay.report
}

#[test]
fn an_end_of_rows_that_was_not_agreed_on_reaches_its_clients_as_it_is() {
    let broken_off: Vec<Recorded> = recorded().into_iter().filter(|a| a.name.contains("old_end")).collect();
    assert!(broken_off.len() >= 3);
    for answer in broken_off {
        let (same, _) = relay_pieces(&mut new_relay(&answer, answer.server), [answer.stream.as_slice()]);
        assert!(same == answer.stream, "{}", answer.name);
        // Who did not agree to DEPRECATE_EOF gets EOF packets only.
        let (classic, progress) = relay_pieces(&mut new_relay(&answer, TRACK), [answer.stream.as_slice()]);
        assert_eq!(progress, Progress::Done);
        let (complete, _, _) = events(answer.shape, TRACK, &classic);
        assert!(complete, "{}", answer.name);
    }
}

#[test]
fn recorded_answers_reach_every_client_whole_wherever_they_are_cut() {
    for answer in recorded() {
        for client in CLIENTS {
            let whole = check(&answer, client, [answer.stream.as_slice()], "whole");
            for at in 1..answer.stream.len() {
                let (a, b) = answer.stream.split_at(at);
                let report = check(&answer, client, [a, b], &format!("cut at {at}"));
                assert_eq!(format!("{report:?}"), format!("{whole:?}"), "{} cut at {at}", answer.name);
            }
            check(&answer, client, answer.stream.chunks(1), "byte by byte");
        }
    }
}

#[test]
fn an_error_can_end_an_answer_that_was_cut_off_anywhere() {
    for answer in recorded().iter().filter(|a| !a.name.contains("infile")) {
        for client in CLIENTS {
            for at in 0..answer.stream.len() {
                let mut relay = new_relay(answer, client);
                let (mut to_client, _) = relay_pieces(&mut relay, [&answer.stream[..at]]);
                let cut = relay.cut();
                assert_eq!(relay.begun(), !to_client.is_empty() || relay.seq_shift() != 0);
                if cut.mid_frame {
                    continue;
                }
                let mut seq = cut.next_seq;
                let mut frame = BytesMut::new();
                frame::encode_packet(&mut frame, &mut seq, b"\xff\x51\x04#HY000belay: cut");
                to_client.extend_from_slice(&frame);
                let (complete, seen, _) = events(answer.shape, client, &to_client);
                let what = format!("{} for {client:?} cut at {at}", answer.name);
                assert!(complete, "{what}");
                assert!(matches!(seen.last(), Some(Event::Passed(FrameKind::Err, _))), "{what}");
            }
        }
    }
}

/// Frames with consecutive numbers from 1.
fn frames<T: AsRef<[u8]>>(payloads: &[T]) -> Vec<u8> {
    let (mut out, mut seq) = (BytesMut::new(), 1);
    for payload in payloads {
        frame::encode_packet(&mut out, &mut seq, payload.as_ref());
    }
    out.to_vec()
}

const COLUMN: &[u8] = b"\x03def\0\0\0\x011\0\x0c\x3f\0\x01\0\0\0\x03\x81\0\0\0\0";

fn made(shape: ReplyShape, server: Capabilities, payloads: &[&[u8]]) -> Recorded {
    Recorded { name: format!("{shape:?}"), shape, server, stream: frames(payloads) }
}

#[test]
fn out_parameters_on_mysql_say_that_an_ok_follows() {
    // MySQL 9.7 without DEPRECATE_EOF: MORE_RESULTS is in the first EOF of the OUT parameters only.
    let row = b"\0\0\x07\0\0\0";
    let answer = made(
        ReplyShape::Execute,
        TRACK,
        &[b"\x01", COLUMN, b"\xfe\0\0\x0a\x10", row, b"\xfe\0\0\x02\0", b"\0\0\0\x02\0\0\0"],
    );
    for client in CLIENTS {
        let report = check(&answer, client, answer.stream.chunks(3), "in threes");
        assert_eq!(report.rows, 1);
    }
    let mut relay = new_relay(&answer, DEPRECATE);
    let (to_client, _) = relay_pieces(&mut relay, [answer.stream.as_slice()]);
    let (_, seen, _) = events(ReplyShape::Execute, DEPRECATE, &to_client);
    let out = StatusFlags::PS_OUT_PARAMS | StatusFlags::MORE_RESULTS | StatusFlags::AUTOCOMMIT;
    assert_eq!(seen[3], Event::End { status: out, warnings: 0 });
}

#[test]
fn an_open_cursor_is_reported_under_either_framing() {
    let classic = made(ReplyShape::Execute, TRACK, &[b"\x01", COLUMN, b"\xfe\0\0\x42\0"]);
    let deprecate = made(ReplyShape::Execute, TRACK | DEPRECATE, &[b"\x01", COLUMN, b"\xfe\0\0\x42\0\0\0"]);
    for answer in [classic, deprecate] {
        for client in CLIENTS {
            let report = check(&answer, client, [answer.stream.as_slice()], "whole");
            assert!(report.status.unwrap().contains(StatusFlags::CURSOR_EXISTS), "{client:?}");
        }
    }
}

#[test]
fn the_inserted_eof_repeats_the_flags_of_the_session() {
    let status = StatusFlags::IN_TRANS | StatusFlags::NO_BACKSLASH_ESCAPES;
    let answer = made(ReplyShape::Prepare, DEPRECATE, &[b"\0\x01\0\0\0\x01\0\x01\0\0\0\0", COLUMN, COLUMN]);
    let mut relay = new_relay(&answer, Capabilities::empty()).with_status(status);
    let (to_client, progress) = relay_pieces(&mut relay, answer.stream.chunks(1));
    assert_eq!(progress, Progress::Done);
    let eof = EofPacket { warnings: 0, status };
    let mut bytes = BytesMut::new();
    eof.encode(&mut bytes);
    assert_eq!(to_client.windows(5).filter(|w| *w == &bytes[..]).count(), 2);
    assert_eq!(&to_client[to_client.len() - 5..], &bytes[..]);
    assert_eq!(relay.cut().next_seq, 6);
}

#[test]
fn a_client_sees_no_state_that_it_did_not_ask_for() {
    // A schema, and a variable that servers don't report by default.
    let state = b"\x01\x02\x01t\x00\x0f\x09sort_area\x04some";
    let mut ok = BytesMut::new();
    OkPacket { status: StatusFlags::SESSION_STATE_CHANGED, info: b"Rows", session_state: state, ..OkPacket::default() }
        .encode(&mut ok, TRACK, OK);
    let answer = made(ReplyShape::Query, TRACK, &[&ok]);
    for client in CLIENTS {
        let mut relay = new_relay(&answer, client);
        let (to_client, _) = relay_pieces(&mut relay, [answer.stream.as_slice()]);
        let ok = OkPacket::decode(&to_client[HEADER_BYTES..], client).unwrap();
        assert_eq!(ok.info, b"Rows");
        assert_eq!(ok.session_state, if client.contains(TRACK) { &b"\x01\x02\x01t"[..] } else { b"" });
        assert_eq!(ok.status.contains(StatusFlags::SESSION_STATE_CHANGED), client.contains(TRACK));
        assert_eq!(relay.report.changes.len(), 2);
    }
    // An EOF has no place for state: the flag alone would send a client looking for it.
    let rows = made(ReplyShape::Query, TRACK, &[b"\x01", COLUMN, b"\xfe\0\0\x02\x40", b"\x011", b"\xfe\0\0\x02\x40"]);
    let mut relay = new_relay(&rows, Capabilities::empty());
    let (to_client, _) = relay_pieces(&mut relay, [rows.stream.as_slice()]);
    assert_eq!(to_client, frames(&[b"\x01", COLUMN, b"\xfe\0\0\x02\0", b"\x011", b"\xfe\0\0\x02\0"]));
}

#[test]
fn what_came_before_a_broken_packet_still_reaches_the_client() {
    let answer = made(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, b"\x011", b""]);
    let mut relay = new_relay(&answer, Capabilities::empty());
    let (to_client, progress) = relay_pieces(&mut relay, [answer.stream.as_slice()]);
    assert!(matches!(progress, Progress::Broken(_)));
    let (complete, seen, next) = events(ReplyShape::Query, Capabilities::empty(), &to_client);
    assert!(!complete);
    assert!(matches!(seen.last(), Some(Event::Passed(FrameKind::Row, _))));
    assert_eq!(relay.cut(), Cut { next_seq: next, mid_frame: false });
    let mut relay = Relay::new(ReplyShape::Query, DEPRECATE, DEPRECATE, 0);
    let huge = FrameHeader { payload_len: WHOLE_BYTES_MAX, seq: 1 }.encode();
    let (_, progress) = relay_pieces(&mut relay, [&huge[..], b"\0"]);
    assert_eq!(progress, Progress::Broken(RelayError::TooLong(WHOLE_BYTES_MAX)));
}

#[test]
fn a_row_of_more_than_16_mb_is_one_packet_to_the_end() {
    let mut row = vec![b'x'; 0xFF_FFFF + 10];
    row[0] = 0xFE;
    let answer = made(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, &row, b"\x011", b"\xfe\0\0\x02\0\0\0"]);
    let mut relay = new_relay(&answer, Capabilities::empty());
    // Behind its first frame the row is not over: no other packet may come between.
    let first_frame = frames(&[b"\x01", COLUMN]).len() + HEADER_BYTES + 0xFF_FFFF;
    let (mut to_client, _) = relay_pieces(&mut relay, answer.stream[..first_frame].chunks(60_000));
    assert!(relay.cut().mid_frame);
    let (rest, progress) = relay_pieces(&mut relay, answer.stream[first_frame..].chunks(7));
    to_client.extend_from_slice(&rest);
    assert_eq!(progress, Progress::Done);
    assert_eq!(relay.report.rows, 2);
    let (_, said, _) = events(ReplyShape::Query, DEPRECATE, &answer.stream);
    let (complete, seen, _) = events(ReplyShape::Query, Capabilities::empty(), &to_client);
    assert!(complete && seen == said);
}

#[test]
fn the_frames_of_a_file_are_numbered_as_the_node_counts() {
    // Rows, then LOAD DATA LOCAL: the client has seen one EOF more than the node has sent.
    let answer = made(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, b"\xfe\0\0\x0a\0\0\0", b"\xfbfile"]);
    let mut relay = new_relay(&answer, Capabilities::empty());
    let mut input = BytesMut::from(&answer.stream[..]);
    let mut out = BytesMut::new();
    let (_, progress) = relay.process(&mut input, &mut out);
    assert_eq!((progress, relay.seq_shift()), (Progress::WantsFile, 1));
}

/// One result of a generated answer.
#[derive(Clone, Debug)]
enum Made {
    Ok { info: Vec<u8>, schema: Option<Vec<u8>> },
    Rows { columns: usize, rows: Vec<Vec<u8>> },
}

fn any_result() -> impl Strategy<Value = Made> {
    let first = prop_oneof![Just(0x00u8), Just(0x01), Just(0xFB), Just(0xFC)];
    let row = (first, proptest::collection::vec(any::<u8>(), 9..40)).prop_map(|(first, mut rest)| {
        rest.insert(0, first);
        rest
    });
    prop_oneof![
        (
            proptest::collection::vec(any::<u8>(), 0..20),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9))
        )
            .prop_map(|(info, schema)| Made::Ok { info, schema }),
        (1..4usize, proptest::collection::vec(row, 0..4)).prop_map(|(columns, rows)| Made::Rows { columns, rows }),
    ]
}

/// The packets of an answer as a server with these capabilities sends it.
fn packets(results: &[Made], error_at: Option<usize>, server: Capabilities) -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = Vec::new();
    for (i, result) in results.iter().enumerate() {
        let mut status = StatusFlags::AUTOCOMMIT;
        status.set(StatusFlags::MORE_RESULTS, i + 1 < results.len());
        let mut packet = BytesMut::new();
        match result {
            Made::Ok { info, schema } => {
                let mut state = BytesMut::new();
                if let Some(schema) = schema.as_ref().filter(|_| server.contains(TRACK)) {
                    use crate::protocol::mysql::packet::session_state::{SessionChange, put_session_change};
                    put_session_change(&mut state, &SessionChange::Schema(schema));
                    status |= StatusFlags::SESSION_STATE_CHANGED;
                }
                let ok =
                    OkPacket { affected_rows: 3, last_insert_id: 9, status, warnings: 1, info, session_state: &state };
                ok.encode(&mut packet, server, OK);
            }
            Made::Rows { columns, rows } => {
                all.push(vec![*columns as u8]);
                all.extend(std::iter::repeat_n(COLUMN.to_vec(), *columns));
                let mut eof = BytesMut::new();
                EofPacket { warnings: 0, status }.encode(&mut eof);
                if !server.contains(DEPRECATE) {
                    all.push(eof.to_vec());
                }
                all.extend(rows.iter().cloned());
                match server.contains(DEPRECATE) {
                    true => OkPacket { status, warnings: 2, ..OkPacket::default() }.encode(&mut packet, server, EOF),
                    false => EofPacket { warnings: 2, status }.encode(&mut packet),
                }
            }
        }
        all.push(packet.to_vec());
    }
    if let Some(at) = error_at.filter(|at| *at < all.len()) {
        all.truncate(at);
        all.push(b"\xff\x51\x04#HY000no".to_vec());
    }
    all
}

proptest! {
    #[test]
    fn generated_answers_reach_every_client_whole(
        results in proptest::collection::vec(any_result(), 1..5),
        error_at in proptest::option::of(0..12usize),
        server in 0..4usize,
        cuts in proptest::collection::vec(1..60usize, 1..30),
    ) {
        let server = CLIENTS[server];
        let stream = frames(&packets(&results, error_at, server));
        let answer = Recorded { name: "generated".into(), shape: ReplyShape::Query, server, stream };
        for client in CLIENTS {
            let (mut rest, mut pieces) = (answer.stream.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (piece, tail) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = tail;
                if rest.is_empty() {
                    break;
                }
            }
            check(&answer, client, pieces, "generated");
        }
    }

    #[test]
    fn no_bytes_make_the_relay_panic(
        seed in any::<prop::sample::Index>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        client in 0..4usize,
        cut in 1..40usize,
    ) {
        thread_local!(static SEEDS: Vec<Recorded> = recorded());
        SEEDS.with(|seeds| {
            let answer = seed.get(seeds);
            let mut stream = answer.stream.clone();
            for (at, byte) in &changes {
                let at = at.index(stream.len());
                stream[at] = *byte;
            }
            let mut relay = new_relay(answer, CLIENTS[client]);
            let _ = relay_pieces_until_end(&mut relay, &stream, cut);
        });
    }
}

/// As [`relay_pieces`], but stops where the answer is over or broken.
fn relay_pieces_until_end(relay: &mut Relay, stream: &[u8], cut: usize) -> Progress {
    let (mut input, mut out) = (BytesMut::new(), BytesMut::new());
    for piece in stream.chunks(cut) {
        input.extend_from_slice(piece);
        let (n, progress) = relay.process(&mut input, &mut out);
        assert!(n <= input.len());
        out.clear();
        consume(&mut input, n);
        match progress {
            Progress::More => {}
            Progress::WantsFile => relay.file_sent(),
            end => return end,
        }
    }
    Progress::More
}
