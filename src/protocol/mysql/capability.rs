//! Capability flags: what each side of a connection said it understands.
//!
//! The lower 32 bits are MySQL's; MariaDB's extended flags are the bits above, as MariaDB itself numbers them
//! (they travel in the last four of the ten reserved bytes of greeting and login).

use bitflags::bitflags;

bitflags! {
    /// The capabilities of one side, or of both once agreed.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Capabilities: u64 {
        /// MySQL: improved version of old password authentication. MariaDB reads a cleared bit as 'I am MariaDB'.
        const LONG_PASSWORD = 1;
        /// OK packets of UPDATE count found rows, not changed ones. Changes behaviour: part of a server session's identity.
        const FOUND_ROWS = 1 << 1;
        /// Longer flags in column definitions.
        const LONG_FLAG = 1 << 2;
        /// The login names a schema.
        const CONNECT_WITH_DB = 1 << 3;
        /// `db.table.column` is refused.
        const NO_SCHEMA = 1 << 4;
        /// zlib compression after login.
        const COMPRESS = 1 << 5;
        /// ODBC client, no effect today.
        const ODBC = 1 << 6;
        /// LOAD DATA LOCAL INFILE may be asked of the client.
        const LOCAL_FILES = 1 << 7;
        /// Spaces before `(` are ignored by the parser. Changes behaviour.
        const IGNORE_SPACE = 1 << 8;
        /// Protocol 4.1; belay requires it.
        const PROTOCOL_41 = 1 << 9;
        /// interactive_timeout instead of wait_timeout. Changes behaviour.
        const INTERACTIVE = 1 << 10;
        /// The next packet of the client is a TLS hello.
        const SSL = 1 << 11;
        /// No SIGPIPE in the client, no effect.
        const IGNORE_SIGPIPE = 1 << 12;
        /// Status flags in OK and EOF.
        const TRANSACTIONS = 1 << 13;
        /// Old name of protocol 4.1, unused.
        const RESERVED = 1 << 14;
        /// 4.1 authentication (named SECURE_CONNECTION too).
        const SECURE_CONNECTION = 1 << 15;
        /// Several statements in one COM_QUERY.
        const MULTI_STATEMENTS = 1 << 16;
        /// Several results of one COM_QUERY.
        const MULTI_RESULTS = 1 << 17;
        /// Several results of one COM_STMT_EXECUTE.
        const PS_MULTI_RESULTS = 1 << 18;
        /// Authentication by plugins.
        const PLUGIN_AUTH = 1 << 19;
        /// Connection attributes in the login.
        const CONNECT_ATTRS = 1 << 20;
        /// The authentication answer has a length-encoded length.
        const PLUGIN_AUTH_LENENC_CLIENT_DATA = 1 << 21;
        /// The client can change an expired password.
        const CAN_HANDLE_EXPIRED_PASSWORDS = 1 << 22;
        /// OK packets carry changes of session state.
        const SESSION_TRACK = 1 << 23;
        /// No EOF after column definitions, OK in place of EOF after rows.
        const DEPRECATE_EOF = 1 << 24;
        /// MySQL: metadata of a result may be left out.
        const OPTIONAL_RESULTSET_METADATA = 1 << 25;
        /// zstd compression.
        const ZSTD_COMPRESSION = 1 << 26;
        /// MySQL: attributes in COM_QUERY and COM_STMT_EXECUTE.
        const QUERY_ATTRIBUTES = 1 << 27;
        /// MySQL: several factors.
        const MULTI_FACTOR_AUTHENTICATION = 1 << 28;
        /// Reserved for an extension of the capabilities.
        const CAPABILITY_EXTENSION = 1 << 29;
        /// The client checks certificates.
        const SSL_VERIFY_SERVER_CERT = 1 << 30;
        /// The client remembers options across a reconnect.
        const REMEMBER_OPTIONS = 1 << 31;
        /// MariaDB: progress packets within an answer.
        const MARIADB_PROGRESS = 1 << 32;
        /// MariaDB: COM_MULTI (withdrawn).
        const MARIADB_COM_MULTI = 1 << 33;
        /// MariaDB: COM_STMT_BULK_EXECUTE.
        const MARIADB_STMT_BULK_OPERATIONS = 1 << 34;
        /// MariaDB: extended type information in column definitions.
        const MARIADB_EXTENDED_METADATA = 1 << 35;
        /// MariaDB: metadata of an unchanged prepared statement is not sent again.
        const MARIADB_CACHE_METADATA = 1 << 36;
        /// MariaDB: one result per row of a bulk execution.
        const MARIADB_BULK_UNIT_RESULTS = 1 << 37;
        /// Bits this table does not name are kept, never guessed at.
        const _ = !0;
    }
}

bitflags! {
    /// The status flags of OK and EOF packets.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
    pub struct StatusFlags: u16 {
        /// A transaction is open.
        const IN_TRANS = 0x0001;
        /// autocommit is on.
        const AUTOCOMMIT = 0x0002;
        /// Another result follows.
        const MORE_RESULTS = 0x0008;
        /// No good index was used.
        const NO_GOOD_INDEX_USED = 0x0010;
        /// No index was used.
        const NO_INDEX_USED = 0x0020;
        /// A cursor is open.
        const CURSOR_EXISTS = 0x0040;
        /// The last row of a cursor was sent.
        const LAST_ROW_SENT = 0x0080;
        /// A schema was dropped.
        const DB_DROPPED = 0x0100;
        /// sql_mode holds NO_BACKSLASH_ESCAPES.
        const NO_BACKSLASH_ESCAPES = 0x0200;
        /// Metadata of a prepared statement changed.
        const METADATA_CHANGED = 0x0400;
        /// The statement was slow.
        const QUERY_WAS_SLOW = 0x0800;
        /// Out parameters follow.
        const PS_OUT_PARAMS = 0x1000;
        /// A read-only transaction is open.
        const IN_TRANS_READONLY = 0x2000;
        /// The OK packet carries changes of session state.
        const SESSION_STATE_CHANGED = 0x4000;
        /// MariaDB: sql_mode holds ANSI_QUOTES.
        const ANSI_QUOTES = 0x8000;
    }
}
