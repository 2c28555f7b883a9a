//! The codec beside `mysql_common`, which was written by others from the same documents: what one writes the other must read.
//!
//! Where the two differ on purpose, belay follows the servers: extended metadata, metadata that is left out, status bits that only
//! MariaDB has. `mysql_common` writes column definitions with two fields in the wrong order, so those are only read by it.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::collections::HashMap;

use belay::protocol::mysql::capability::{Capabilities, StatusFlags};
use belay::protocol::mysql::codec::{put_lenenc_int, put_lenenc_str};
use belay::protocol::mysql::packet::auth_switch::AuthSwitch;
use belay::protocol::mysql::packet::change_user::ChangeUser;
use belay::protocol::mysql::packet::column::ColumnDef;
use belay::protocol::mysql::packet::eof::EofPacket;
use belay::protocol::mysql::packet::err::{ErrPacket, encode_err};
use belay::protocol::mysql::packet::handshake::Handshake;
use belay::protocol::mysql::packet::handshake_response::HandshakeResponse;
use belay::protocol::mysql::packet::ok::{END_OF_ROWS_HEADER, OK_HEADER, OkPacket};
use belay::protocol::mysql::packet::prepare_ok::PrepareOk;
use belay::protocol::mysql::packet::session_state::{SessionChange, SessionChanges, put_session_change};
use belay::protocol::mysql::packet::ssl_request::LoginHead;
use belay::protocol::mysql::packet::{auth_more_data, auth_switch};
use belay::protocol::mysql::prepared::{BulkExecuteHeader, ExecuteHeader};
use bytes::{Bytes, BytesMut};
use mysql_common::constants::{CapabilityFlags, MariadbCapabilities, StatusFlags as TheirStatus};
use mysql_common::io::ParseBuf;
use mysql_common::packets as theirs;
use mysql_common::packets::session_state_change::SessionStateChange;
use mysql_common::proto::MySerialize;
use mysql_common::value::Value;
use proptest::prelude::*;

fn written(packet: &impl MySerialize) -> Vec<u8> {
    let mut out = Vec::new();
    packet.serialize(&mut out);
    out
}

/// The low 32 bits, which are MySQL's.
fn flags(caps: Capabilities) -> CapabilityFlags {
    CapabilityFlags::from_bits_retain(caps.bits() as u32)
}

/// Status bits that both know, without the one that says that session state follows.
fn status() -> impl Strategy<Value = StatusFlags> {
    any::<u16>().prop_map(|bits| {
        let known = StatusFlags::from_bits_retain(bits & TheirStatus::all().bits());
        known - StatusFlags::SESSION_STATE_CHANGED
    })
}

/// Text without a NUL byte.
fn text() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(1u8..=255, 0..40)
}

fn name() -> impl Strategy<Value = String> {
    "[a-z_]{1,12}"
}

fn attributes() -> impl Strategy<Value = HashMap<String, String>> {
    proptest::collection::hash_map(name(), "[a-z0-9 ]{0,300}", 0..5)
}

fn as_attributes(map: &HashMap<String, String>) -> Vec<(Bytes, Bytes)> {
    let mut list: Vec<_> = map.iter().map(|(k, v)| (Bytes::from(k.clone()), Bytes::from(v.clone()))).collect();
    list.sort();
    list
}

fn sorted(mut list: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
    list.sort();
    list
}

fn change() -> impl Strategy<Value = (u8, Vec<u8>, Vec<u8>)> {
    (0u8..6, proptest::collection::vec(any::<u8>(), 1..20), proptest::collection::vec(any::<u8>(), 0..300))
}

/// One of belay's changes from generated parts, and what `mysql_common` should make of it.
fn ours(kind: u8, name: &[u8], value: &[u8], out: &mut BytesMut) {
    let change = match kind {
        0 => SessionChange::SystemVariable { name, value },
        1 => SessionChange::Schema(value),
        2 => SessionChange::StateChanged(!value.is_empty()),
        4 => SessionChange::TransactionCharacteristics(value),
        5 => SessionChange::TransactionState(value),
        _ => {
            let mut data = BytesMut::from(&b"\0"[..]);
            put_lenenc_str(&mut data, value);
            return put_session_change(out, &SessionChange::Gtid(&data));
        }
    };
    put_session_change(out, &change);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ok_packets(
        rows: u64, id: u64, status in status(), warnings: u16, info in proptest::collection::vec(any::<u8>(), 0..300),
        changes in proptest::collection::vec(change(), 0..4), track: bool, end: bool
    ) {
        let caps = if track { Capabilities::SESSION_TRACK | Capabilities::PROTOCOL_41 } else { Capabilities::PROTOCOL_41 };
        let mut state = BytesMut::new();
        for (kind, name, value) in &changes {
            ours(*kind, name, value, &mut state);
        }
        let packet = OkPacket { affected_rows: rows, last_insert_id: id, status, warnings, info: &info, session_state: &state };
        let mut out = BytesMut::new();
        packet.encode(&mut out, caps, if end { END_OF_ROWS_HEADER } else { OK_HEADER });
        let read: theirs::OkPacket<'_> = if end {
            ParseBuf(&out).parse::<theirs::OkPacketDeserializer<'_, theirs::ResultSetTerminator>>(flags(caps)).unwrap().into()
        } else {
            ParseBuf(&out).parse::<theirs::OkPacketDeserializer<'_, theirs::CommonOkPacket>>(flags(caps)).unwrap().into()
        };
        if !end {
            prop_assert_eq!((read.affected_rows(), read.last_insert_id().unwrap_or(0)), (rows, id));
        }
        prop_assert_eq!((read.warnings(), read.info_ref().unwrap_or(b"")), (warnings, &info[..]));
        let changed = track && !state.is_empty();
        prop_assert_eq!(read.status_flags().bits() & !0x4000, status.bits());
        prop_assert_eq!(read.status_flags().bits() & 0x4000 != 0, changed);
        prop_assert_eq!(read.session_state_info_ref().unwrap_or(b""), if changed { &state[..] } else { &b""[..] });
        prop_assert_eq!(OkPacket::decode(&out, caps).unwrap().info, &info[..]);
    }

    #[test]
    fn session_state(changes in proptest::collection::vec(change(), 1..6)) {
        let mut state = BytesMut::new();
        for (kind, name, value) in &changes {
            ours(*kind, name, value, &mut state);
        }
        let mut buf = ParseBuf(&state);
        let read: Result<Vec<_>, _> = SessionChanges::new(&state).collect();
        for (mine, (kind, name, value)) in read.unwrap().into_iter().zip(&changes) {
            let block: theirs::SessionStateInfo<'_> = buf.parse(()).unwrap();
            if let SessionChange::StateChanged(changed) = mine {
                // `mysql_common` looks for a length before the digit; no server sends one.
                prop_assert_eq!(block.data_ref(), if changed { b"1" } else { b"0" });
                continue;
            }
            match (block.decode().unwrap(), mine) {
                (SessionStateChange::SystemVariables(list), SessionChange::SystemVariable { name: n, value: v }) => {
                    prop_assert_eq!((list[0].name_bytes(), list[0].value_bytes()), (n, v));
                    prop_assert_eq!((n, v), (&name[..], &value[..]));
                }
                (SessionStateChange::Schema(s), SessionChange::Schema(m)) => prop_assert_eq!(s.as_bytes(), m),
                (SessionStateChange::Gtids(_), SessionChange::Gtid(_)) => prop_assert_eq!(*kind, 3),
                (SessionStateChange::TransactionCharacteristics(s), SessionChange::TransactionCharacteristics(m)) => {
                    prop_assert_eq!(s.as_bytes(), m);
                }
                (SessionStateChange::TransactionState(s), SessionChange::TransactionState(m)) => {
                    prop_assert_eq!(s.as_bytes(), m);
                }
                (theirs, mine) => prop_assert!(false, "{theirs:?} is not {mine:?}"),
            }
        }
        prop_assert!(buf.is_empty());
    }

    #[test]
    fn err_packets(code in 0u16..0xFFFF, state in "[0-9A-Z]{5}", message in "[ -~]{0,80}") {
        let state: [u8; 5] = state.into_bytes().try_into().unwrap();
        let packet = theirs::ErrPacket::Error(theirs::ServerError::new(
            code, Some(theirs::SqlState::new(state)), message.clone().into_bytes()
        ));
        let bytes = written(&packet);
        let mine = ErrPacket::decode(&bytes).unwrap();
        prop_assert_eq!((mine.code, mine.sqlstate, mine.message), (code, Some(state), message.as_bytes()));
        let mut out = BytesMut::new();
        encode_err(&mut out, &mine.to_reply(), true);
        prop_assert_eq!(&out[..], &bytes[..]);
        let read: theirs::ErrPacket<'_> = ParseBuf(&out).parse(CapabilityFlags::CLIENT_PROTOCOL_41).unwrap();
        prop_assert_eq!(read, packet);
        // Before the login there is no SQLSTATE.
        let early = theirs::ErrPacket::Error(theirs::ServerError::new(code, None, message.clone().into_bytes()));
        if !message.starts_with('#') {
            prop_assert_eq!(ErrPacket::decode(&written(&early)).unwrap().sqlstate, None);
        }
    }

    #[test]
    fn eof_packets(warnings: u16, status in status()) {
        let mut out = BytesMut::new();
        EofPacket { warnings, status }.encode(&mut out);
        let read: theirs::OkPacket<'_> =
            ParseBuf(&out).parse::<theirs::OkPacketDeserializer<'_, theirs::OldEofPacket>>(CapabilityFlags::empty()).unwrap().into();
        prop_assert_eq!((read.warnings(), read.status_flags().bits()), (warnings, status.bits()));
    }

    #[test]
    fn column_definitions(
        names in proptest::array::uniform5(proptest::collection::vec(any::<u8>(), 0..60)),
        collation: u16, length: u32, type_byte in prop::sample::select(vec![0u8, 3, 8, 12, 246, 252, 253, 254]), decimals: u8
    ) {
        let [schema, table, org_table, name, org_name] = &names;
        let def = ColumnDef {
            catalog: b"def", schema, table, org_table, name, org_name, collation, length, type_byte, flags: 0x21, decimals,
            ..ColumnDef::default()
        };
        let mut out = BytesMut::new();
        def.encode(&mut out, Capabilities::empty());
        let read: theirs::Column = ParseBuf(&out).parse(()).unwrap();
        prop_assert_eq!((read.schema_ref(), read.table_ref(), read.org_table_ref()), (&schema[..], &table[..], &org_table[..]));
        prop_assert_eq!((read.name_ref(), read.org_name_ref()), (&name[..], &org_name[..]));
        prop_assert_eq!((read.character_set(), read.column_length(), read.decimals()), (collation, length, decimals));
        prop_assert_eq!((read.column_type() as u8, read.flags().bits()), (type_byte, 0x21));
    }

    #[test]
    fn answers_to_prepare(stmt_id: u32, num_columns: u16, num_params: u16, warnings: u16) {
        let packet = PrepareOk { stmt_id, num_columns, num_params, warnings, metadata_follows: true };
        let mut out = BytesMut::new();
        packet.encode(&mut out, Capabilities::empty());
        let read: theirs::StmtPacket = ParseBuf(&out).parse(()).unwrap();
        prop_assert_eq!((read.statement_id(), read.num_columns(), read.num_params()), (stmt_id, num_columns, num_params));
        prop_assert_eq!(read.warning_count(), warnings);
        prop_assert_eq!(PrepareOk::decode(&written(&read), Capabilities::empty()), Ok(packet));
    }

    #[test]
    fn executions(stmt_id: u32, values in proptest::collection::vec(proptest::option::of(any::<i64>()), 0..40)) {
        let values: Vec<Value> = values.into_iter().map(|v| v.map_or(Value::NULL, Value::Int)).collect();
        let (request, _) = theirs::ComStmtExecuteRequestBuilder::new(stmt_id).build(&values);
        let bytes = written(&request);
        let header = ExecuteHeader::parse(&bytes, values.len() as u16, false).unwrap();
        prop_assert_eq!((header.stmt_id, header.iterations, header.new_params_bound), (stmt_id, 1, !values.is_empty()));
        prop_assert_eq!(&bytes[header.null_bitmap.clone()], request.bitmap());
        let present = values.iter().filter(|v| **v != Value::NULL).count();
        prop_assert_eq!(bytes.len() - header.values_start, present * 8);
    }

    #[test]
    fn greetings(version in "[0-9.a-zA-Z-]{1,30}", id: u32, scramble in proptest::array::uniform20(1u8..=127), bits: u32, extended in 0u32..64, collation: u8) {
        let known = CapabilityFlags::all().bits();
        let needed = Capabilities::SECURE_CONNECTION | Capabilities::PLUGIN_AUTH;
        let mut capabilities = Capabilities::from_bits_retain(u64::from(bits & known)) | needed;
        if !capabilities.contains(Capabilities::LONG_PASSWORD) {
            capabilities |= Capabilities::from_bits_retain(u64::from(extended) << 32);
        }
        let mine = Handshake {
            server_version: version.clone(), thread_id: id, scramble, capabilities, collation,
            status: StatusFlags::AUTOCOMMIT, auth_plugin: "mysql_native_password".to_string(),
        };
        let bytes = mine.encode();
        let read: theirs::HandshakePacket<'_> = ParseBuf(&bytes).parse(()).unwrap();
        prop_assert_eq!((read.server_version_ref(), read.connection_id(), read.nonce()), (version.as_bytes(), id, scramble.to_vec()));
        prop_assert_eq!((read.capabilities(), read.default_collation()), (flags(capabilities), collation));
        prop_assert_eq!(u64::from(read.mariadb_ext_capabilities().bits()), capabilities.bits() >> 32);
        prop_assert_eq!(read.auth_plugin_name_ref(), Some(&b"mysql_native_password"[..]));
        // And back: their form ends the challenge without its NUL byte unless one is given.
        let second: Vec<u8> = scramble[8..].iter().copied().chain([0]).collect();
        let packet = theirs::HandshakePacket::new(
            10, version.into_bytes(), id, scramble[..8].try_into().unwrap(), Some(second), flags(capabilities), collation,
            TheirStatus::SERVER_STATUS_AUTOCOMMIT, Some(&b"mysql_native_password\0"[..])
        ).with_mariadb_ext_capabilities(MariadbCapabilities::from_bits_retain((capabilities.bits() >> 32) as u32));
        prop_assert_eq!(Handshake::decode(&written(&packet)).unwrap(), mine);
    }

    #[test]
    fn logins(
        user in text(), auth in proptest::collection::vec(any::<u8>(), 0..250), schema in proptest::option::of("[a-z]{1,20}"),
        attributes in attributes(), lenenc: bool, native: bool
    ) {
        let mut base = CapabilityFlags::CLIENT_PROTOCOL_41 | CapabilityFlags::CLIENT_SECURE_CONNECTION;
        base.set(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA, lenenc);
        let plugin = if native { theirs::AuthPlugin::MysqlNativePassword } else { theirs::AuthPlugin::CachingSha2Password };
        let packet = theirs::HandshakeResponse::new(
            Some(auth.clone()), (8, 0, 0), Some(user.clone()), schema.clone().map(String::into_bytes), Some(plugin.clone()), base,
            Some(attributes.clone()), 1 << 24
        );
        let mine = HandshakeResponse::decode(&written(&packet)).unwrap();
        prop_assert_eq!((&mine.user[..], &mine.auth[..]), (&user[..], &auth[..]));
        prop_assert_eq!(mine.schema.as_deref(), schema.as_ref().map(String::as_bytes));
        prop_assert_eq!(mine.auth_plugin.as_deref(), Some(plugin.as_bytes()));
        prop_assert_eq!((mine.head.packet_bytes_max, mine.head.collation), (1 << 24, 45));
        prop_assert_eq!(flags(mine.head.capabilities), packet.capabilities());
        prop_assert_eq!(sorted(mine.attributes.clone()), as_attributes(&attributes));
        let bytes = mine.encode();
        let read: theirs::HandshakeResponse<'_> = ParseBuf(&bytes).parse(()).unwrap();
        prop_assert_eq!((read.user(), read.scramble_buf(), read.db_name()), (&user[..], &auth[..], schema.as_ref().map(String::as_bytes)));
        prop_assert_eq!((read.auth_plugin(), read.connect_attributes()), (Some(&plugin), Some(attributes)));
    }

    #[test]
    fn requests_for_tls(bits: u32, limit: u32, collation: u8) {
        let caps = CapabilityFlags::from_bits_truncate(bits) | CapabilityFlags::CLIENT_LONG_PASSWORD | CapabilityFlags::CLIENT_SSL;
        let head = LoginHead {
            capabilities: Capabilities::from_bits_retain(u64::from(caps.bits())), packet_bytes_max: limit, collation,
        };
        let bytes = head.encode_ssl_request();
        let read: theirs::SslRequest = ParseBuf(&bytes).parse(()).unwrap();
        prop_assert_eq!((read.capabilities(), read.max_packet_size(), read.character_set()), (caps, limit, collation));
        prop_assert_eq!(written(&theirs::SslRequest::new(caps, limit, collation)), bytes);
    }

    #[test]
    fn requests_to_switch_the_scheme(plugin in name(), data in text()) {
        let mine = AuthSwitch { plugin: plugin.clone(), data: Bytes::from(data.clone()) };
        let bytes = mine.encode();
        prop_assert_eq!(bytes[0], auth_switch::AUTH_SWITCH_HEADER);
        let with_nul: Vec<u8> = data.iter().copied().chain([0]).collect();
        let packet = theirs::AuthSwitchRequest::new(plugin.clone().into_bytes(), with_nul);
        prop_assert_eq!(&bytes[..], &written(&packet)[..]);
        prop_assert_eq!(AuthSwitch::decode(&written(&packet)), Ok(mine));
        let read: theirs::AuthSwitchRequest<'_> = ParseBuf(&bytes).parse(()).unwrap();
        prop_assert_eq!(read, packet);
    }

    #[test]
    fn more_data_of_a_scheme(data in proptest::collection::vec(any::<u8>(), 0..60)) {
        let bytes = auth_more_data::encode(&data);
        let packet = theirs::AuthMoreData::new(data.clone());
        prop_assert_eq!(&written(&packet)[..], &bytes[..]);
        prop_assert_eq!(auth_more_data::decode(&bytes), Ok(&data[..]));
    }

    #[test]
    fn changes_of_user(
        user in text(), auth in proptest::collection::vec(any::<u8>(), 0..250), schema in "[a-z]{0,20}", collation: u16,
        attributes in attributes()
    ) {
        let caps = Capabilities::PLUGIN_AUTH | Capabilities::CONNECT_ATTRS | Capabilities::PROTOCOL_41;
        let more = theirs::ComChangeUserMoreData::new(collation)
            .with_auth_plugin(Some(theirs::AuthPlugin::MysqlNativePassword))
            .with_connect_attributes(Some(attributes.clone()));
        let packet = theirs::ComChangeUser::new()
            .with_user(Some(user.clone()))
            .with_auth_plugin_data(Some(auth.clone()))
            .with_database(Some(schema.clone().into_bytes()))
            .with_more_data(Some(more));
        let mine = ChangeUser::decode(&written(&packet), caps).unwrap();
        prop_assert_eq!((&mine.user[..], &mine.auth[..]), (&user[..], &auth[..]));
        prop_assert_eq!(mine.schema.as_deref().unwrap_or(b""), schema.as_bytes());
        prop_assert_eq!((mine.collation, mine.auth_plugin.as_deref()), (Some(collation), Some(&b"mysql_native_password"[..])));
        prop_assert_eq!(sorted(mine.attributes.clone()), as_attributes(&attributes));
        let bytes = mine.encode(caps);
        let read: theirs::ComChangeUser<'_> = ParseBuf(&bytes).parse(flags(caps)).unwrap();
        prop_assert_eq!(read, packet);
    }

    #[test]
    fn numbers_and_strings(n: u64, shift in 0u32..64, s in proptest::collection::vec(any::<u8>(), 0..400)) {
        use mysql_common::io::BufMutExt;
        let (mut mine, mut their) = (BytesMut::new(), Vec::new());
        put_lenenc_int(&mut mine, n >> shift);
        put_lenenc_str(&mut mine, &s);
        their.put_lenenc_int(n >> shift);
        their.put_lenenc_str(&s);
        prop_assert_eq!(&mine[..], &their[..]);
    }
}

#[test]
fn bulk_executions() {
    let bytes = b"\xfa\x01\0\0\0\x80\x00\x03\0\xfd\0\0\x14\0\0\0\0\x01a";
    let header = BulkExecuteHeader::parse(bytes, 2).unwrap();
    assert_eq!((header.stmt_id, &bytes[header.types]), (1, &b"\x03\0\xfd\0"[..]));
}
