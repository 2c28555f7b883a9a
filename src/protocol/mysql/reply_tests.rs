//! Answers of real servers and generated ones, followed to their end.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;

const CLASSIC: Capabilities = Capabilities::SESSION_TRACK;
const DEPRECATE: Capabilities = Capabilities::SESSION_TRACK.union(Capabilities::DEPRECATE_EOF);

const COLUMN: &[u8] = b"\x03def\0\0\0\x011\0\x0c\x3f\0\x01\0\0\0\x03\x81\0\0\0\0";
const OK: &[u8] = b"\0\0\0\x02\0\0\0";
const OK_MORE: &[u8] = b"\0\0\0\x0a\0\0\0";
const OK_END: &[u8] = b"\xfe\0\0\x02\0\0\0";
const OK_END_MORE: &[u8] = b"\xfe\0\0\x0a\0\0\0";
const OK_END_CURSOR: &[u8] = b"\xfe\0\0\x42\0\0\0";
const EOF: &[u8] = b"\xfe\0\0\x02\0";
const EOF_MORE: &[u8] = b"\xfe\0\0\x0a\0";
const EOF_CURSOR: &[u8] = b"\xfe\0\0\x42\0";
const ERR: &[u8] = b"\xff\x1e\x04#42S22Unknown column";

fn header(payload: &[u8]) -> FrameHeader {
    FrameHeader { payload_len: payload.len(), seq: 0 }
}

/// Shows the tracker exactly what it asks for.
fn show(tracker: &mut ReplyTracker, payload: &[u8]) -> Result<Step, ReplyError> {
    let header = header(payload);
    match tracker.inspect(header, payload.first().copied()) {
        Inspect::Whole => tracker.advance(header, payload),
        Inspect::Prefix => tracker.advance(header, &payload[..payload.len().min(1)]),
    }
}

/// Follows `frames` and demands that the answer ends with the last one and not before.
fn follow(shape: ReplyShape, caps: Capabilities, frames: &[&[u8]]) -> (Vec<FrameKind>, ReplyTracker) {
    let mut tracker = ReplyTracker::new(shape, caps);
    let mut kinds = Vec::new();
    for (i, frame) in frames.iter().enumerate() {
        let step = show(&mut tracker, frame).unwrap();
        assert_eq!(step.done, i + 1 == frames.len(), "frame {i} of {shape:?}");
        assert_eq!(step.done, tracker.is_done());
        kinds.push(step.kind);
        if step.kind == FrameKind::LocalInfile {
            assert!(tracker.wants_file());
            tracker.local_infile_sent();
        }
    }
    assert_eq!(show(&mut tracker, OK), Err(ReplyError::AfterEnd));
    (kinds, tracker)
}

use FrameKind as K;

#[test]
fn an_old_end_of_rows_where_none_was_agreed() {
    // MySQL 9.7: SELECT a, round(a, -19) breaks off at its second row, the handler shows the errors.
    let frames: [&[u8]; 10] = [
        b"\x02",
        COLUMN,
        COLUMN,
        b"\x011\x010",
        b"\xfe\0\0\x2a\0",
        b"\x01",
        COLUMN,
        b"\x07handler",
        b"\xfe\0\0\x2a\0\0\0",
        b"\0\0\0\x22\0\0\0",
    ];
    for shape in [ReplyShape::Query, ReplyShape::Execute] {
        let (kinds, tracker) = follow(shape, DEPRECATE, &frames);
        let ends = [K::ResultEnd, K::ColumnCount, K::ColumnDef, K::Row, K::ResultEnd, K::Ok];
        assert_eq!(kinds[4..], ends);
        assert_eq!(tracker.result_index(), 2);
    }
    // One without a row before the error.
    let (kinds, _) = follow(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, b"\xfe\0\0\x2a\0", b"\0\0\0\x22\0\0\0"]);
    assert_eq!(kinds[2..], [K::ResultEnd, K::Ok]);
}

#[test]
fn rows_with_and_without_eof() {
    let (kinds, tracker) = follow(
        ReplyShape::Query,
        DEPRECATE,
        &[b"\x02", COLUMN, COLUMN, b"\x011\x01x", b"\xfb\x01x", b"\xfe\0\0\x22\0\0\0"],
    );
    assert_eq!(kinds, [K::ColumnCount, K::ColumnDef, K::ColumnDef, K::Row, K::Row, K::ResultEnd]);
    assert_eq!((tracker.rows(), tracker.result_index()), (2, 0));
    assert_eq!(tracker.status(), StatusFlags::AUTOCOMMIT | StatusFlags::NO_INDEX_USED);
    let (kinds, _) = follow(ReplyShape::Query, CLASSIC, &[b"\x01", COLUMN, EOF, b"\xfb", EOF]);
    assert_eq!(kinds, [K::ColumnCount, K::ColumnDef, K::MetadataEof, K::Row, K::ResultEnd]);
    // seekdb: no rows at all.
    follow(ReplyShape::Query, CLASSIC, &[b"\x01", COLUMN, EOF, EOF]);
}

#[test]
fn an_end_of_rows_may_carry_session_state() {
    let end = b"\xfe\0\0\x23\xe0\0\0\0\x0b\x05\x09\x08T_R_S_S_";
    let (_, tracker) = follow(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, b"\x011", end]);
    assert!(tracker.status().contains(StatusFlags::SESSION_STATE_CHANGED));
}

#[test]
fn several_results() {
    let two: &[&[u8]] = &[b"\x01", COLUMN, b"\x011", OK_END_MORE, OK_MORE, b"\x01", COLUMN, b"\x012", OK_END];
    let (kinds, tracker) = follow(ReplyShape::Query, DEPRECATE, two);
    assert_eq!((kinds[4], tracker.result_index(), tracker.rows()), (K::Ok, 2, 1));
    let two: &[&[u8]] = &[b"\x01", COLUMN, EOF_MORE, b"\x011", EOF_MORE, OK_MORE, b"\x01", COLUMN, EOF, b"\x012", EOF];
    follow(ReplyShape::Query, CLASSIC, two);
    follow(ReplyShape::Query, DEPRECATE, &[b"\x01", COLUMN, b"\x011", OK_END_MORE, ERR]);
}

#[test]
fn an_error_ends_the_answer_anywhere() {
    follow(ReplyShape::Query, DEPRECATE, &[ERR]);
    follow(ReplyShape::Query, DEPRECATE, &[b"\x02", COLUMN, ERR]);
    follow(ReplyShape::Query, CLASSIC, &[b"\x01", COLUMN, ERR]);
    follow(ReplyShape::Query, CLASSIC, &[b"\x01", COLUMN, EOF, b"\x013", ERR]);
    follow(ReplyShape::Prepare, CLASSIC, &[ERR]);
    follow(ReplyShape::Fetch, CLASSIC, &[b"\0\0\x01\0\0\0", ERR]);
    for shape in [ReplyShape::FieldList, ReplyShape::Statistics, ReplyShape::Simple, ReplyShape::SetOption] {
        follow(shape, DEPRECATE, &[ERR]);
    }
}

#[test]
fn an_err_in_rows_is_wanted_whole() {
    let mut tracker = ReplyTracker::new(ReplyShape::Fetch, DEPRECATE);
    assert_eq!(tracker.inspect(header(ERR), Some(0xFF)), Inspect::Whole);
    assert_eq!(tracker.advance(header(ERR), &ERR[..3]), Err(ReplyError::Incomplete));
}

#[test]
fn out_parameters_are_followed_by_an_ok() {
    // MariaDB 10.11 and MySQL 9.7 with DEPRECATE_EOF.
    let end_out = b"\xfe\0\0\x0a\x10\0\0";
    let row = b"\0\0\x07\0\0\0";
    follow(ReplyShape::Execute, DEPRECATE, &[b"\x01", COLUMN, row, OK_END_MORE, b"\x01", COLUMN, row, end_out, OK]);
    // MariaDB 10.11 without.
    let out = b"\xfe\0\0\x0a\x10";
    follow(
        ReplyShape::Execute,
        CLASSIC,
        &[b"\x01", COLUMN, EOF_MORE, row, EOF_MORE, b"\x01", COLUMN, out, row, out, OK],
    );
    // MySQL 9.7 without: the last EOF says nothing of the OK after it.
    let frames: &[&[u8]] = &[b"\x01", COLUMN, EOF_MORE, row, EOF_MORE, b"\x01", COLUMN, out, row, EOF, OK];
    follow(ReplyShape::Execute, CLASSIC, frames);
    let mut tracker = ReplyTracker::new(ReplyShape::Execute, CLASSIC);
    for frame in &frames[..10] {
        show(&mut tracker, frame).unwrap();
    }
    assert!(tracker.status().contains(StatusFlags::MORE_RESULTS | StatusFlags::PS_OUT_PARAMS));
}

#[test]
fn cursors() {
    let (kinds, _) = follow(ReplyShape::Execute, CLASSIC, &[b"\x01", COLUMN, EOF_CURSOR]);
    assert_eq!(kinds[2], K::MetadataEof);
    let (kinds, _) = follow(ReplyShape::Execute, DEPRECATE, &[b"\x01", COLUMN, OK_END_CURSOR]);
    assert_eq!(kinds[2], K::ResultEnd);
    // The text protocol has no cursors of its own.
    follow(ReplyShape::Query, CLASSIC, &[b"\x01", COLUMN, EOF_CURSOR, b"\x011", EOF]);
    let (_, tracker) =
        follow(ReplyShape::Fetch, DEPRECATE, &[b"\0\0\x01\0\0\0", b"\0\x08\x02\0\0\0", b"\xfe\0\0\x82\0\0\0"]);
    assert_eq!(tracker.rows(), 2);
    follow(ReplyShape::Fetch, CLASSIC, &[b"\xfe\0\0\x82\0"]);
}

#[test]
fn prepare_with_and_without_metadata() {
    let both = b"\0\x01\0\0\0\x02\0\x01\0\0\0\0";
    let (kinds, _) = follow(ReplyShape::Prepare, CLASSIC, &[both, COLUMN, EOF, COLUMN, COLUMN, EOF]);
    assert_eq!(kinds, [K::PrepareOk, K::ParamDef, K::ParamEof, K::ColumnDef, K::ColumnDef, K::MetadataEof]);
    follow(ReplyShape::Prepare, DEPRECATE, &[both, COLUMN, COLUMN, COLUMN]);
    let params = b"\0\x01\0\0\0\0\0\x02\0\0\0\0";
    follow(ReplyShape::Prepare, CLASSIC, &[params, COLUMN, COLUMN, EOF]);
    follow(ReplyShape::Prepare, DEPRECATE, &[params, COLUMN, COLUMN]);
    let columns = b"\0\x01\0\0\0\x01\0\0\0\0\0\0";
    follow(ReplyShape::Prepare, CLASSIC, &[columns, COLUMN, EOF]);
    follow(ReplyShape::Prepare, DEPRECATE, &[b"\0\x01\0\0\0\0\0\0\0\0\0\0"]);
    // MySQL 9.7 with resultset_metadata=NONE: both EOFs still come.
    let optional = Capabilities::OPTIONAL_RESULTSET_METADATA;
    let left_out = b"\0\x01\0\0\0\x02\0\x01\0\0\0\0\0";
    follow(ReplyShape::Prepare, CLASSIC | optional, &[left_out, EOF, EOF]);
    follow(ReplyShape::Prepare, DEPRECATE | optional, &[left_out]);
}

#[test]
fn metadata_that_is_left_out() {
    for optional in [Capabilities::MARIADB_CACHE_METADATA, Capabilities::OPTIONAL_RESULTSET_METADATA] {
        follow(ReplyShape::Execute, DEPRECATE | optional, &[b"\x02\0", b"\0\0\x01\0\0\0", OK_END]);
        follow(ReplyShape::Execute, CLASSIC | optional, &[b"\x02\0", EOF, b"\0\0\x01\0\0\0", EOF]);
        follow(ReplyShape::Execute, CLASSIC | optional, &[b"\x02\0", EOF_CURSOR]);
        follow(ReplyShape::Query, DEPRECATE | optional, &[b"\x01\x01", COLUMN, b"\x011", OK_END]);
    }
}

#[test]
fn a_file_of_the_client() {
    let ok = b"\0\0\0\x02\0\0\0\x07Records";
    let (kinds, _) = follow(ReplyShape::Query, DEPRECATE, &[b"\xfbname", ok]);
    assert_eq!(kinds, [K::LocalInfile, K::Ok]);
    follow(ReplyShape::Query, DEPRECATE, &[b"\xfbname", OK_MORE, b"\xfbname", ERR]);
    let mut tracker = ReplyTracker::new(ReplyShape::Query, DEPRECATE);
    show(&mut tracker, b"\xfbname").unwrap();
    assert!(matches!(show(&mut tracker, OK), Err(ReplyError::Unexpected { .. })), "the file was not sent yet");
    assert!(show(&mut tracker, ERR).unwrap().done);
}

#[test]
fn answers_of_one_packet() {
    follow(ReplyShape::Simple, DEPRECATE, &[OK]);
    follow(ReplyShape::SetOption, DEPRECATE, &[OK_END]);
    follow(ReplyShape::SetOption, CLASSIC, &[EOF]);
    follow(ReplyShape::SetOption, CLASSIC, &[OK]);
    follow(ReplyShape::Statistics, CLASSIC, &[b"Uptime: 64  Threads: 1"]);
    let default_null = [COLUMN, b"\xfb"].concat();
    follow(ReplyShape::FieldList, DEPRECATE, &[&default_null, &default_null, OK_END]);
    follow(ReplyShape::FieldList, CLASSIC, &[&default_null, EOF]);
    assert!(ReplyTracker::new(ReplyShape::None, CLASSIC).is_done());
}

#[test]
fn progress_reports_change_nothing() {
    let progress = b"\xff\xff\xff\x01\x01\x02\x10\x27\0\x05stage";
    let (kinds, _) = follow(ReplyShape::Query, DEPRECATE, &[progress, progress, OK]);
    assert_eq!(kinds, [K::Progress, K::Progress, K::Ok]);
}

#[test]
fn a_long_row_that_starts_like_an_end_is_a_row() {
    let full = FrameHeader { payload_len: PAYLOAD_BYTES_MAX, seq: 0 };
    let small = FrameHeader { payload_len: 9, seq: 1 };
    for caps in [CLASSIC, DEPRECATE] {
        let mut tracker = ReplyTracker::new(ReplyShape::Fetch, caps);
        assert_eq!(tracker.inspect(full, Some(0xFE)), Inspect::Prefix);
        assert_eq!(tracker.advance(full, b"\xfe"), Ok(Step { kind: K::Row, done: false }));
        // What continues it may look like anything.
        assert_eq!(tracker.inspect(full, Some(0xFF)), Inspect::Prefix);
        assert_eq!(tracker.advance(full, b"\xff"), Ok(Step { kind: K::Continuation, done: false }));
        assert_eq!(tracker.advance(small, b"\xfe"), Ok(Step { kind: K::Continuation, done: false }));
        assert_eq!(tracker.rows(), 1);
        // A payload of exactly 16 MB ends with an empty frame.
        tracker.advance(full, b"\0").unwrap();
        let empty = FrameHeader { payload_len: 0, seq: 1 };
        assert_eq!(tracker.inspect(empty, None), Inspect::Prefix);
        assert_eq!(tracker.advance(empty, b"").unwrap().kind, K::Continuation);
        let end = if caps == CLASSIC { EOF } else { OK_END };
        assert!(show(&mut tracker, end).unwrap().done);
    }
    // Nine bytes with 0xFE in front end rows only with DEPRECATE_EOF.
    let mut tracker = ReplyTracker::new(ReplyShape::Fetch, CLASSIC);
    assert_eq!(tracker.advance(small, b"\xfe").unwrap().kind, K::Row);
}

#[test]
fn what_cannot_come_is_an_error() {
    let mut tracker = ReplyTracker::new(ReplyShape::Query, DEPRECATE);
    assert!(show(&mut tracker, b"").is_err());
    assert!(show(&mut tracker, EOF).is_err());
    assert!(show(&mut tracker, b"\xfc\0\0").is_err());
    let full = FrameHeader { payload_len: PAYLOAD_BYTES_MAX, seq: 0 };
    assert_eq!(tracker.advance(full, OK), Err(ReplyError::TooLong));
    let mut rows = ReplyTracker::new(ReplyShape::Fetch, DEPRECATE);
    assert!(show(&mut rows, b"").is_err());
}

/// One result: its frames, with the row count; `more` says that another result follows.
fn result(caps: Capabilities, columns: usize, rows: Vec<Vec<u8>>, more: bool, binary: bool) -> Vec<Vec<u8>> {
    let deprecate = caps.contains(Capabilities::DEPRECATE_EOF);
    if columns == 0 {
        return vec![if more { OK_MORE } else { OK }.to_vec()];
    }
    let mut frames = vec![vec![columns as u8]];
    frames.extend(std::iter::repeat_n(COLUMN.to_vec(), columns));
    if !deprecate {
        frames.push(if more { EOF_MORE } else { EOF }.to_vec());
    }
    for value in rows {
        let mut row = BytesMut::new();
        if binary {
            row.extend_from_slice(b"\0\0");
        }
        crate::protocol::mysql::codec::put_lenenc_str(&mut row, &value);
        frames.push(row.to_vec());
    }
    let end = match (deprecate, more) {
        (true, true) => OK_END_MORE,
        (true, false) => OK_END,
        (false, true) => EOF_MORE,
        (false, false) => EOF,
    };
    frames.push(end.to_vec());
    frames
}

type Results = Vec<(usize, Vec<Vec<u8>>)>;

fn results() -> impl Strategy<Value = Results> {
    let rows = proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..300), 0..6);
    proptest::collection::vec((0usize..4, rows), 1..5)
}

proptest! {
    #[test]
    fn well_formed_answers_end_exactly_at_their_end(results in results(), deprecate: bool, binary: bool) {
        let caps = if deprecate { DEPRECATE } else { CLASSIC };
        let last = results.len() - 1;
        let rows = if results[last].0 == 0 { 0 } else { results[last].1.len() };
        let frames: Vec<Vec<u8>> =
            results.into_iter().enumerate().flat_map(|(i, (c, r))| result(caps, c, r, i != last, binary)).collect();
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        let shape = if binary { ReplyShape::Execute } else { ReplyShape::Query };
        let (_, tracker) = follow(shape, caps, &frames);
        prop_assert_eq!(tracker.result_index() as usize, last);
        prop_assert_eq!(tracker.rows() as usize, rows);
    }

    #[test]
    fn an_error_in_place_of_any_frame_ends_the_answer(results in results(), deprecate: bool, at: prop::sample::Index) {
        let caps = if deprecate { DEPRECATE } else { CLASSIC };
        let last = results.len() - 1;
        let mut frames: Vec<Vec<u8>> =
            results.into_iter().enumerate().flat_map(|(i, (c, r))| result(caps, c, r, i != last, false)).collect();
        let at = at.index(frames.len());
        frames.truncate(at);
        frames.push(ERR.to_vec());
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        follow(ReplyShape::Query, caps, &frames);
    }

    #[test]
    fn no_bytes_make_the_tracker_panic(
        shape in 0usize..9, caps: u64, frames in proptest::collection::vec((0usize..=PAYLOAD_BYTES_MAX, proptest::collection::vec(any::<u8>(), 0..40)), 0..20)
    ) {
        let shape = [
            ReplyShape::Query, ReplyShape::Execute, ReplyShape::Prepare, ReplyShape::Fetch, ReplyShape::FieldList,
            ReplyShape::Statistics, ReplyShape::Simple, ReplyShape::SetOption, ReplyShape::None,
        ][shape];
        let mut tracker = ReplyTracker::new(shape, Capabilities::from_bits_retain(caps));
        for (len, payload) in frames {
            let honest = FrameHeader { payload_len: payload.len(), seq: 0 };
            let wrong = FrameHeader { payload_len: len, seq: 0 };
            let _ = (tracker.inspect(wrong, payload.first().copied()), tracker.clone().advance(wrong, &payload));
            let _ = tracker.advance(honest, &payload);
            tracker.local_infile_sent();
        }
    }
}
