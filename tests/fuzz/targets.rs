//! The fuzz targets as plain functions: cargo-fuzz calls them, and so does `tests/fuzz_corpora.rs` without a nightly compiler.
//!
//! A target takes any bytes. It fails by panicking: in the code under test, or because a promise of it does not hold.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use belay::protocol::mysql::capability::Capabilities;
use belay::protocol::mysql::frame::{self, FrameHeader, HEADER_BYTES};
use belay::protocol::mysql::packet::auth_more_data;
use belay::protocol::mysql::packet::auth_switch::AuthSwitch;
use belay::protocol::mysql::packet::change_user::ChangeUser;
use belay::protocol::mysql::packet::column::ColumnDef;
use belay::protocol::mysql::packet::eof::EofPacket;
use belay::protocol::mysql::packet::err::{self, ErrPacket};
use belay::protocol::mysql::packet::handshake::Handshake;
use belay::protocol::mysql::packet::handshake_response::HandshakeResponse;
use belay::protocol::mysql::packet::ok::{self, OkPacket};
use belay::protocol::mysql::packet::prepare_ok::PrepareOk;
use belay::protocol::mysql::packet::row::TextRow;
use belay::protocol::mysql::packet::session_state::{SessionChange, SessionChanges, put_session_change};
use belay::protocol::mysql::prepared::{
    self, BulkExecuteHeader, ExecuteHeader, FetchRequest, LongDataHeader, QueryHeader,
};
use belay::protocol::mysql::reply::{FrameKind, Inspect, ReplyError, ReplyShape, ReplyTracker};
use belay::sql::{LexContext, MultiByte, analyse};
use bytes::BytesMut;

/// A target: its name, which is also its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
#[allow(dead_code)] // A cargo-fuzz binary calls only its own.
pub const ALL: &[Target] = &[
    ("frames", frames),
    ("greetings", greetings),
    ("logins", logins),
    ("packets", packets),
    ("replies", replies),
    ("requests", requests),
    ("sql", sql),
];

/// Capability sets under which packets differ, chosen by a byte of the input.
fn capabilities(choice: u8) -> Capabilities {
    let flags = [
        Capabilities::SESSION_TRACK,
        Capabilities::DEPRECATE_EOF,
        Capabilities::MARIADB_EXTENDED_METADATA,
        Capabilities::MARIADB_CACHE_METADATA,
        Capabilities::OPTIONAL_RESULTSET_METADATA,
        Capabilities::QUERY_ATTRIBUTES,
        Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_WITH_DB | Capabilities::CONNECT_ATTRS,
        Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA | Capabilities::SECURE_CONNECTION,
    ];
    flags
        .into_iter()
        .enumerate()
        .filter(|(i, _)| choice >> i & 1 == 1)
        .fold(Capabilities::PROTOCOL_41, |all, (_, flag)| all | flag)
}

/// A stream of frames: what is read is what was written.
pub fn frames(data: &[u8]) {
    let mut rest = data;
    while let Some(header) = FrameHeader::parse(rest) {
        assert_eq!(header.encode(), rest[..HEADER_BYTES]);
        let Some(next) = rest.get(header.frame_len()..) else { break };
        rest = next;
    }
    let (mut out, mut seq) = (BytesMut::new(), 0);
    frame::encode_packet(&mut out, &mut seq, data);
    let header = FrameHeader::parse(&out).unwrap();
    assert_eq!(&out[HEADER_BYTES..header.frame_len()], data);
}

/// What a server sends while a client logs in. What can be read, is written and read again without a change.
pub fn greetings(data: &[u8]) {
    if let Ok(packet) = Handshake::decode(data) {
        // Text that is no UTF-8 is replaced; the copy is longer, but the same from then on.
        let again = Handshake::decode(&packet.encode()).unwrap();
        assert_eq!((again.thread_id, again.scramble, again.status), (packet.thread_id, packet.scramble, packet.status));
        assert_eq!((again.server_version, again.capabilities), (packet.server_version, packet.capabilities));
        assert_eq!(again.auth_plugin, packet.auth_plugin);
    }
    if let Ok(packet) = AuthSwitch::decode(data) {
        assert_eq!(AuthSwitch::decode(&packet.encode()), Ok(packet));
    }
    if let Ok(more) = auth_more_data::decode(data) {
        assert_eq!(auth_more_data::encode(more), data);
    }
}

/// What a client sends to log in, and to log in again.
pub fn logins(data: &[u8]) {
    if let Ok(packet) = HandshakeResponse::decode(data) {
        let short = packet.auth.len() <= 255;
        let again = HandshakeResponse::decode(&packet.encode()).unwrap();
        let secure = Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH_LENENC_CLIENT_DATA;
        if short && packet.head.capabilities.intersects(secure) {
            assert!(again == packet);
        }
    }
    let Some((&choice, payload)) = data.split_first() else { return };
    let caps = capabilities(choice);
    if let Ok(packet) = ChangeUser::decode(payload, caps) {
        let again = ChangeUser::decode(&packet.encode(caps), caps).unwrap();
        assert_eq!((again.user, again.auth, again.schema), (packet.user, packet.auth, packet.schema));
        assert_eq!((again.auth_plugin, again.attributes), (packet.auth_plugin, packet.attributes));
    }
}

/// The packets of a server. What can be read, is written and read again without a change.
pub fn packets(data: &[u8]) {
    let Some((&choice, payload)) = data.split_first() else { return };
    let caps = capabilities(choice);
    let mut out = BytesMut::new();
    if let Ok(packet) = OkPacket::decode(payload, caps) {
        let _ = ok::ok_status(payload).unwrap();
        for change in SessionChanges::new(packet.session_state).flatten() {
            out.clear();
            put_session_change(&mut out, &change);
            if !matches!(change, SessionChange::UserVariable { .. }) {
                assert_eq!(SessionChanges::new(&out).collect::<Result<Vec<_>, _>>().unwrap(), [change]);
            }
        }
        out.clear();
        packet.encode(&mut out, caps | Capabilities::SESSION_TRACK, ok::OK_HEADER);
        let again = OkPacket::decode(&out, caps | Capabilities::SESSION_TRACK).unwrap();
        assert_eq!((again.affected_rows, again.info), (packet.affected_rows, packet.info));
        assert_eq!((again.last_insert_id, again.session_state), (packet.last_insert_id, packet.session_state));
    }
    if let Ok(packet) = ErrPacket::decode(payload) {
        out.clear();
        err::encode_err(&mut out, &packet.to_reply(), true);
        assert_eq!(ErrPacket::decode(&out).unwrap().to_reply(), packet.to_reply());
    }
    if let Ok(packet) = EofPacket::decode(payload) {
        out.clear();
        packet.encode(&mut out);
        assert_eq!(EofPacket::decode(&out), Ok(packet));
    }
    if let Ok(packet) = ColumnDef::decode(payload, caps) {
        out.clear();
        packet.encode(&mut out, caps);
        assert_eq!(ColumnDef::decode(&out, caps), Ok(packet));
    }
    if let Ok(packet) = PrepareOk::decode(payload, caps) {
        out.clear();
        packet.encode(&mut out, caps);
        assert_eq!(PrepareOk::decode(&out, caps), Ok(packet));
    }
    assert!(TextRow::new(payload).count() <= payload.len());
}

/// An answer, as frames, for every shape of one: it ends once, and rows are never asked for in whole.
pub fn replies(data: &[u8]) {
    follow_reply(data);
}

/// Follows an answer; whether it ended, and how many bytes came after its end (or after what went wrong).
pub fn follow_reply(data: &[u8]) -> (bool, usize) {
    let [choice, shape, stream @ ..] = data else { return (false, 0) };
    let shapes = [
        ReplyShape::Query,
        ReplyShape::Execute,
        ReplyShape::Prepare,
        ReplyShape::Fetch,
        ReplyShape::FieldList,
        ReplyShape::Statistics,
        ReplyShape::Simple,
        ReplyShape::SetOption,
        ReplyShape::None,
    ];
    let mut tracker = ReplyTracker::new(shapes[usize::from(*shape) % shapes.len()], capabilities(*choice));
    let (mut rest, mut after_end) = (stream, None);
    while let Some(header) = FrameHeader::parse(rest) {
        let Some(payload) = rest.get(HEADER_BYTES..header.frame_len()) else { break };
        rest = &rest[header.frame_len()..];
        let inspect = tracker.inspect(header, payload.first().copied());
        let was_done = tracker.is_done();
        let shown = if inspect == Inspect::Whole { payload } else { &payload[..payload.len().min(1)] };
        match tracker.advance(header, shown) {
            Ok(step) => {
                assert!(!was_done);
                assert_eq!(step.done, tracker.is_done());
                assert!(step.kind != FrameKind::Row || inspect == Inspect::Prefix);
                if step.kind == FrameKind::LocalInfile {
                    tracker.local_infile_sent();
                }
            }
            Err(error) => {
                assert_eq!(was_done, error == ReplyError::AfterEnd);
                break;
            }
        }
        if tracker.is_done() && !rest.is_empty() {
            // What follows must be refused.
            after_end.get_or_insert(rest.len());
        }
    }
    (tracker.is_done(), after_end.unwrap_or(rest.len()))
}

/// The requests of a client about queries and prepared statements.
pub fn requests(data: &[u8]) {
    let [choice, params, payload @ ..] = data else { return };
    let attributes = choice & 1 == 1;
    let params = u16::from(*params);
    if let Ok(header) = ExecuteHeader::parse(payload, params, attributes) {
        let types = prepared::plain_types(payload, &header).unwrap();
        let new = prepared::rewrite_execute(payload, &header, 7, None).unwrap();
        let mut whole = new.prefix.to_vec();
        whole.extend_from_slice(&payload[new.tail_start..]);
        let again = ExecuteHeader::parse(&whole, params, attributes).unwrap();
        assert_eq!(again, ExecuteHeader { stmt_id: 7, ..header.clone() });
        if let Ok(new) = prepared::execute_without_attributes(payload, &header, params, 7, Some(&types)) {
            let mut whole = new.prefix.to_vec();
            whole.extend_from_slice(&payload[new.tail_start..]);
            let plain = ExecuteHeader::parse(&whole, params, false).unwrap();
            assert_eq!(whole[plain.values_start..], payload[header.values_start..]);
        }
    }
    if let Ok(header) = QueryHeader::parse(payload, attributes) {
        assert!(header.sql_start <= payload.len());
    }
    if let Ok(header) = BulkExecuteHeader::parse(payload, params) {
        let new = prepared::rewrite_bulk_execute(&header, 7, None);
        assert_eq!(new.payload_bytes(payload.len()), payload.len());
    }
    let _ = (LongDataHeader::parse(payload), FetchRequest::parse(payload), prepared::stmt_id(payload));
}

/// SQL text in every reading of it.
pub fn sql(data: &[u8]) {
    let Some((&choice, text)) = data.split_first() else { return };
    let multibyte = [MultiByte::None, MultiByte::Gbk, MultiByte::Sjis, MultiByte::Big5, MultiByte::Gb18030];
    let context = LexContext {
        no_backslash_escapes: choice & 1 != 0,
        ansi_quotes: choice & 2 != 0,
        oracle_mode: choice & 4 != 0,
        ignore_space: choice & 8 != 0,
        multi_statements: choice & 16 != 0,
        multibyte: multibyte[usize::from(choice >> 5) % multibyte.len()],
        ..LexContext::default()
    };
    let _ = analyse(text, &context);
}
