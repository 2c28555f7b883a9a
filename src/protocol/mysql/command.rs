//! The commands of a client, by their first byte, and which answer each one gets.

use crate::protocol::mysql::reply::ReplyShape;

macro_rules! commands {
    ($($(#[$doc:meta])* $name:ident = $byte:literal, $label:literal, $class:ident, $shape:ident;)*) => {
        /// A command byte: the first byte of the first packet of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Command {
            $($(#[$doc])* $name = $byte,)*
        }

        impl Command {
            /// Every command this table knows.
            pub const ALL: &'static [Command] = &[$(Command::$name,)*];

            /// The command of a byte; `None` if no server has one there.
            pub const fn from_byte(byte: u8) -> Option<Command> {
                match byte {
                    $($byte => Some(Command::$name),)*
                    _ => None,
                }
            }

            /// MySQL's own name in lower case. A metric label.
            pub const fn label(self) -> &'static str {
                match self {
                    $(Command::$name => $label,)*
                }
            }

            /// What kind of command it is.
            pub const fn class(self) -> CommandClass {
                match self {
                    $(Command::$name => CommandClass::$class,)*
                }
            }

            /// Which answer a server gives to it.
            pub const fn reply_shape(self) -> ReplyShape {
                match self {
                    $(Command::$name => ReplyShape::$shape,)*
                }
            }
        }
    };
}

/// What kind of command a byte stands for: what belay must do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommandClass {
    /// The session ends.
    Quit,
    /// SQL text: COM_QUERY.
    Query,
    /// COM_STMT_PREPARE.
    Prepare,
    /// COM_STMT_EXECUTE, COM_STMT_BULK_EXECUTE: runs a prepared statement.
    Execute,
    /// COM_STMT_FETCH, COM_STMT_SEND_LONG_DATA, COM_STMT_CLOSE, COM_STMT_RESET: works on a prepared statement.
    Statement,
    /// COM_INIT_DB, COM_SET_OPTION: changes the session.
    Session,
    /// COM_RESET_CONNECTION: the session starts anew, logged in.
    Reset,
    /// COM_CHANGE_USER: the session starts anew with another login.
    ChangeUser,
    /// COM_PING: belay can answer it.
    Ping,
    /// COM_PROCESS_KILL: names another session.
    Kill,
    /// COM_FIELD_LIST, COM_STATISTICS, COM_PROCESS_INFO: reads something.
    Info,
    /// COM_DEBUG, COM_REFRESH, COM_SHUTDOWN, COM_CREATE_DB, COM_DROP_DB: acts on one server.
    Admin,
    /// Replication: makes a stream of the connection.
    Replication,
    /// Never valid from a client.
    Internal,
}

impl CommandClass {
    /// The metric label of this class.
    pub const fn label(self) -> &'static str {
        match self {
            CommandClass::Quit => "quit",
            CommandClass::Query => "query",
            CommandClass::Prepare => "prepare",
            CommandClass::Execute => "execute",
            CommandClass::Statement => "statement",
            CommandClass::Session => "session",
            CommandClass::Reset => "reset",
            CommandClass::ChangeUser => "change_user",
            CommandClass::Ping => "ping",
            CommandClass::Kill => "kill",
            CommandClass::Info => "info",
            CommandClass::Admin => "admin",
            CommandClass::Replication => "replication",
            CommandClass::Internal => "internal",
        }
    }
}

commands! {
    /// Internal to the server.
    Sleep = 0x00, "sleep", Internal, Simple;
    /// Ends the session.
    Quit = 0x01, "quit", Quit, None;
    /// Chooses the schema.
    InitDb = 0x02, "init_db", Session, Simple;
    /// SQL text.
    Query = 0x03, "query", Query, Query;
    /// Columns of a table (removed in MySQL 9's client library, still answered by servers).
    FieldList = 0x04, "field_list", Info, FieldList;
    /// Withdrawn.
    CreateDb = 0x05, "create_db", Admin, Simple;
    /// Withdrawn.
    DropDb = 0x06, "drop_db", Admin, Simple;
    /// FLUSH by bits (MariaDB; MySQL 9 answers 1047).
    Refresh = 0x07, "refresh", Admin, SetOption;
    /// Stops the server.
    Shutdown = 0x08, "shutdown", Admin, SetOption;
    /// A line of statistics.
    Statistics = 0x09, "statistics", Info, Statistics;
    /// SHOW PROCESSLIST (MariaDB; MySQL 9 answers 1047).
    ProcessInfo = 0x0A, "process_info", Info, Query;
    /// Internal to the server.
    Connect = 0x0B, "connect", Internal, Simple;
    /// Kills a session by its id.
    ProcessKill = 0x0C, "process_kill", Kill, Simple;
    /// Dumps debug information into the server's log.
    Debug = 0x0D, "debug", Admin, SetOption;
    /// Is the server there?
    Ping = 0x0E, "ping", Ping, Simple;
    /// Internal to the server.
    Time = 0x0F, "time", Internal, Simple;
    /// Internal to the server.
    DelayedInsert = 0x10, "delayed_insert", Internal, Simple;
    /// Logs in again as another user. The login's own state machine reads the answer.
    ChangeUser = 0x11, "change_user", ChangeUser, Simple;
    /// Streams the binary log.
    BinlogDump = 0x12, "binlog_dump", Replication, Query;
    /// Withdrawn.
    TableDump = 0x13, "table_dump", Replication, Query;
    /// Internal to the server.
    ConnectOut = 0x14, "connect_out", Internal, Simple;
    /// Registers a replica.
    RegisterReplica = 0x15, "register_slave", Replication, Simple;
    /// Prepares a statement.
    StmtPrepare = 0x16, "stmt_prepare", Prepare, Prepare;
    /// Runs a prepared statement.
    StmtExecute = 0x17, "stmt_execute", Execute, Execute;
    /// Sends a part of a parameter's value. No answer; an error shows in the next EXECUTE.
    StmtSendLongData = 0x18, "stmt_send_long_data", Statement, None;
    /// Forgets a prepared statement. No answer.
    StmtClose = 0x19, "stmt_close", Statement, None;
    /// Drops long data and the cursor of a prepared statement.
    StmtReset = 0x1A, "stmt_reset", Statement, Simple;
    /// Turns MULTI_STATEMENTS on (0) or off (1).
    SetOption = 0x1B, "set_option", Session, SetOption;
    /// Fetches rows of a cursor.
    StmtFetch = 0x1C, "stmt_fetch", Statement, Fetch;
    /// Internal to the server.
    Daemon = 0x1D, "daemon", Internal, Simple;
    /// Streams the binary log from a GTID set (MySQL).
    BinlogDumpGtid = 0x1E, "binlog_dump_gtid", Replication, Query;
    /// Puts the session back to how it was after login.
    ResetConnection = 0x1F, "reset_connection", Reset, Simple;
    /// MySQL: clones an instance.
    Clone = 0x20, "clone", Replication, Query;
    /// MySQL: subscribes to a group replication stream.
    SubscribeGroupReplicationStream = 0x21, "subscribe_group_replication_stream", Replication, Simple;
    /// MariaDB: runs a prepared statement once per row of values.
    StmtBulkExecute = 0xFA, "stmt_bulk_execute", Execute, Execute;
    /// MariaDB: internal to the server.
    ReplicaWorker = 0xFB, "slave_worker", Internal, Simple;
    /// MariaDB: internal to the server.
    ReplicaIo = 0xFC, "slave_io", Internal, Simple;
    /// MariaDB: internal to the server.
    ReplicaSql = 0xFD, "slave_sql", Internal, Simple;
    /// MariaDB: several commands in one packet (withdrawn).
    Multi = 0xFE, "multi", Internal, Simple;
    /// Internal to the server.
    End = 0xFF, "end", Internal, Simple;
}

impl Command {
    /// The byte of this command.
    pub const fn byte(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_stands_for_at_most_one_command() {
        for byte in 0..=u8::MAX {
            if let Some(command) = Command::from_byte(byte) {
                assert_eq!(command.byte(), byte);
            }
        }
        assert_eq!(Command::ALL.len(), (0..=u8::MAX).filter_map(Command::from_byte).count());
    }

    #[test]
    fn commands_without_an_answer_are_known() {
        let silent: Vec<_> = Command::ALL.iter().filter(|c| c.reply_shape() == ReplyShape::None).collect();
        assert_eq!(silent, [&Command::Quit, &Command::StmtSendLongData, &Command::StmtClose]);
    }
}
