//! System variables: which there are, what they take, what a new session starts with.

use std::sync::Arc;

use crate::Dialect;
use crate::ast::Isolation;
use crate::error::{Error, unsupported};
use crate::value::Value;

/// What a variable takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Type {
    Bool,
    /// An integer from, to.
    Int(u64, u64),
    Enum(&'static [&'static str]),
    SqlMode,
    TimeZone,
    Locale,
    CharSet,
    Collation,
    Isolation,
    Timestamp,
    /// `last_insert_id`, `insert_id`: kept elsewhere.
    Id,
    Text,
}

/// Who may set it where.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reach {
    Both,
    SessionOnly,
    GlobalOnly,
    /// In both scopes, settable in GLOBAL only.
    SessionReadOnly,
    /// In the session, never set.
    Counted,
    ReadOnly,
}

pub(crate) struct Var {
    pub name: &'static str,
    pub ty: Type,
    pub reach: Reach,
    /// Its value on MariaDB and on MySQL; `None` where it is unknown.
    maria: Option<&'static str>,
    mysql: Option<&'static str>,
}

macro_rules! vars {
    ($($id:ident $name:literal $ty:expr, $reach:ident, $maria:expr, $mysql:expr;)*) => {
        #[allow(clippy::enum_variant_names)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) enum Id { $($id),* }
        pub(crate) const VARS: &[Var] = &[$(Var { name: $name, ty: $ty, reach: Reach::$reach, maria: $maria, mysql: $mysql }),*];
        const IDS: &[Id] = &[$(Id::$id),*];
    };
}

const ENGINES: Type = Type::Enum(&["InnoDB", "MyISAM", "MEMORY"]);
const MARIA_MODE: &str = "STRICT_TRANS_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_AUTO_CREATE_USER,NO_ENGINE_SUBSTITUTION";
const MYSQL_MODE: &str = "ONLY_FULL_GROUP_BY,STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION";
const TRACKED: &str = "autocommit,character_set_client,character_set_connection,character_set_results,time_zone";
const TRACKED_MYSQL: &str = "time_zone,autocommit,character_set_client,character_set_results,character_set_connection";

vars! {
    Autocommit "autocommit" Type::Bool, Both, Some("1"), Some("1");
    SqlMode "sql_mode" Type::SqlMode, Both, Some(MARIA_MODE), Some(MYSQL_MODE);
    TimeZone "time_zone" Type::TimeZone, Both, Some("SYSTEM"), Some("SYSTEM");
    ForeignKeyChecks "foreign_key_checks" Type::Bool, Both, Some("1"), Some("1");
    UniqueChecks "unique_checks" Type::Bool, Both, Some("1"), Some("1");
    SafeUpdates "sql_safe_updates" Type::Bool, Both, Some("0"), Some("0");
    AutoIsNull "sql_auto_is_null" Type::Bool, Both, Some("0"), Some("0");
    SelectLimit "sql_select_limit" Type::Int(0, u64::MAX), Both, Some("18446744073709551615"), Some("18446744073709551615");
    CharsetClient "character_set_client" Type::CharSet, Both, Some("utf8mb4"), Some("utf8mb4");
    CharsetResults "character_set_results" Type::CharSet, Both, Some("utf8mb4"), Some("utf8mb4");
    CharsetConnection "character_set_connection" Type::CharSet, Both, Some("utf8mb4"), Some("utf8mb4");
    CollationConnection "collation_connection" Type::Collation, Both, Some("utf8mb4_general_ci"), Some("utf8mb4_0900_ai_ci");
    CharsetDatabase "character_set_database" Type::CharSet, Both, Some("utf8mb4"), Some("utf8mb4");
    CollationDatabase "collation_database" Type::Collation, Both, Some("utf8mb4_general_ci"), Some("utf8mb4_0900_ai_ci");
    CharsetServer "character_set_server" Type::CharSet, Both, Some("utf8mb4"), Some("utf8mb4");
    CollationServer "collation_server" Type::Collation, Both, Some("utf8mb4_general_ci"), Some("utf8mb4_0900_ai_ci");
    TxIsolation "tx_isolation" Type::Isolation, Both, Some("REPEATABLE-READ"), None;
    TransactionIsolation "transaction_isolation" Type::Isolation, Both, None, Some("REPEATABLE-READ");
    TxReadOnly "tx_read_only" Type::Bool, Both, Some("0"), None;
    TransactionReadOnly "transaction_read_only" Type::Bool, Both, None, Some("0");
    Timestamp "timestamp" Type::Timestamp, SessionOnly, Some("0"), Some("0");
    InsertId "insert_id" Type::Id, SessionOnly, Some("0"), Some("0");
    LastInsertId "last_insert_id" Type::Id, SessionOnly, Some("0"), Some("0");
    Identity "identity" Type::Id, SessionOnly, Some("0"), Some("0");
    TrackSchema "session_track_schema" Type::Bool, Both, Some("1"), Some("1");
    TrackState "session_track_state_change" Type::Bool, Both, Some("0"), Some("0");
    TrackVariables "session_track_system_variables" Type::Text, Both, Some(TRACKED), Some(TRACKED_MYSQL);
    TrackTransaction "session_track_transaction_info" Type::Enum(&["OFF", "STATE", "CHARACTERISTICS"]), Both, Some("OFF"), Some("OFF");
    WaitTimeout "wait_timeout" Type::Int(1, 31_536_000), Both, Some("28800"), Some("28800");
    LockWaitTimeout "lock_wait_timeout" Type::Int(1, 31_536_000), Both, Some("86400"), Some("31536000");
    InnodbLockWaitTimeout "innodb_lock_wait_timeout" Type::Int(1, 100_000_000), Both, Some("50"), Some("50");
    LcTimeNames "lc_time_names" Type::Locale, Both, Some("en_US"), Some("en_US");
    GroupConcatMaxLen "group_concat_max_len" Type::Int(4, u64::MAX), Both, Some("1048576"), Some("1024");
    CompletionType "completion_type" Type::Enum(&["NO_CHAIN", "CHAIN", "RELEASE"]), Both, Some("NO_CHAIN"), Some("NO_CHAIN");
    SortBufferSize "sort_buffer_size" Type::Int(32_768, u64::MAX), Both, Some("2097152"), Some("262144");
    MaxSortLength "max_sort_length" Type::Int(64, 8_388_608), Both, Some("1024"), Some("1024");
    DivPrecision "div_precision_increment" Type::Int(0, 30), Both, Some("4"), Some("4");
    AutoIncrementIncrement "auto_increment_increment" Type::Int(1, 65_535), Both, Some("1"), Some("1");
    AutoIncrementOffset "auto_increment_offset" Type::Int(1, 65_535), Both, Some("1"), Some("1");
    NetReadTimeout "net_read_timeout" Type::Int(1, 31_536_000), Both, Some("30"), Some("30");
    DefaultStorageEngine "default_storage_engine" ENGINES, Both, Some("InnoDB"), Some("InnoDB");
    WarningCount "warning_count" Type::Int(0, u64::MAX), Counted, Some("0"), Some("0");
    ErrorCount "error_count" Type::Int(0, u64::MAX), Counted, Some("0"), Some("0");
    InTransaction "in_transaction" Type::Bool, Counted, Some("0"), None;
    MaxAllowedPacket "max_allowed_packet" Type::Int(1024, 1_073_741_824), SessionReadOnly, Some("268435456"), Some("268435456");
    MaxConnections "max_connections" Type::Int(1, 100_000), GlobalOnly, Some("500"), Some("500");
    ReadOnly "read_only" Type::Bool, GlobalOnly, Some("0"), Some("0");
    Hostname "hostname" Type::Text, ReadOnly, Some("model"), Some("model");
    Version "version" Type::Text, ReadOnly, Some("10.11.19-MariaDB-0+deb12u1"), Some("9.7.4-2");
    Port "port" Type::Int(0, 65_535), ReadOnly, Some("3306"), Some("3306");
}

/// Variables that live in option bits: what a function or trigger makes of them ends with it.
pub(crate) const OPTION_BITS: &[Id] =
    &[Id::Autocommit, Id::ForeignKeyChecks, Id::UniqueChecks, Id::SafeUpdates, Id::AutoIsNull];

impl Id {
    pub fn var(self) -> &'static Var {
        &VARS[self as usize]
    }

    /// The variable for the isolation of later transactions.
    pub fn isolation(dialect: Dialect) -> Id {
        if dialect.is_maria() { Id::TxIsolation } else { Id::TransactionIsolation }
    }

    /// The variable for the access mode of later transactions.
    pub fn read_only(dialect: Dialect) -> Id {
        if dialect.is_maria() { Id::TxReadOnly } else { Id::TransactionReadOnly }
    }
}

/// All variables of a dialect.
pub(crate) fn of(dialect: Dialect) -> impl Iterator<Item = Id> {
    IDS.iter().copied().filter(move |id| {
        let var = id.var();
        if dialect.is_maria() { var.maria.is_some() } else { var.mysql.is_some() }
    })
}

/// Finds a variable. One that is certainly none is 1193; others the model does not know.
pub(crate) fn find(dialect: Dialect, name: &str) -> Result<Id, Error> {
    if let Some(id) = IDS.iter().copied().find(|id| id.var().name == name) {
        let var = id.var();
        let there = if dialect.is_maria() { var.maria } else { var.mysql };
        return if there.is_some() { Ok(id) } else { Err(unknown(name)) };
    }
    if name.starts_with("bogus") { Err(unknown(name)) } else { Err(unsupported(&format!("variable {name}"))) }
}

fn unknown(name: &str) -> Error {
    Error::new(1193, "HY000", format!("Unknown system variable '{name}'"))
}

/// The values of a new server.
pub(crate) fn defaults(dialect: Dialect) -> Vec<Value> {
    let value = |var: &Var| {
        let text = (if dialect.is_maria() { var.maria } else { var.mysql }).unwrap_or_default();
        match var.ty {
            Type::Bool | Type::Int(..) | Type::Id => Value::UInt(text.parse().unwrap_or(0)),
            _ => Value::str(text),
        }
    };
    VARS.iter().map(value).collect()
}

/// A collation: its name, its character set, its number.
pub(crate) const COLLATIONS: &[(&str, &str, u16)] = &[
    ("latin1_swedish_ci", "latin1", 8),
    ("latin1_bin", "latin1", 47),
    ("utf8mb4_general_ci", "utf8mb4", 45),
    ("utf8mb4_bin", "utf8mb4", 46),
    ("utf8mb4_unicode_ci", "utf8mb4", 224),
    ("utf8mb4_0900_ai_ci", "utf8mb4", 255),
    ("ascii_general_ci", "ascii", 11),
    ("binary", "binary", 63),
];

/// The collation that a character set has by itself.
pub(crate) fn default_collation(dialect: Dialect, charset: &str) -> Option<&'static str> {
    let utf8mb4 = if dialect.is_maria() { "utf8mb4_general_ci" } else { "utf8mb4_0900_ai_ci" };
    if charset == "utf8mb4" {
        return Some(utf8mb4);
    }
    COLLATIONS.iter().find(|c| c.1 == charset).map(|c| c.0)
}

/// By name, as this dialect knows them.
pub(crate) fn collation(dialect: Dialect, name: &str) -> Option<&'static (&'static str, &'static str, u16)> {
    COLLATIONS.iter().find(|c| c.0.eq_ignore_ascii_case(name) && !(dialect.is_maria() && c.2 == 255))
}

fn wrong_value(var: &Var, value: &Value) -> Error {
    let text = if value.is_null() { "NULL".to_owned() } else { value.string() };
    Error::new(1231, "42000", format!("Variable '{}' can't be set to the value of '{text}'", var.name))
}

fn wrong_type(var: &Var) -> Error {
    Error::new(1232, "42000", format!("Incorrect argument type to variable '{}'", var.name))
}

/// What a value becomes when a variable is set to it; the second part says that it was cut to the variable's limits.
pub(crate) fn check(dialect: Dialect, id: Id, value: &Value) -> Result<(Value, bool), Error> {
    let var = id.var();
    let as_is = |v: Value| Ok((v, false));
    match var.ty {
        Type::Bool => match value {
            Value::Int(0) | Value::UInt(0) => as_is(Value::UInt(0)),
            Value::Int(1) | Value::UInt(1) => as_is(Value::UInt(1)),
            Value::Str(s) if s.eq_ignore_ascii_case(b"on") || s == b"1" => as_is(Value::UInt(1)),
            Value::Str(s) if s.eq_ignore_ascii_case(b"off") || s == b"0" => as_is(Value::UInt(0)),
            Value::Dec(_) | Value::Double(_) => Err(wrong_type(var)),
            other => Err(wrong_value(var, other)),
        },
        Type::Int(from, to) => match value {
            Value::Int(_) | Value::UInt(_) => {
                let n = value.int();
                let cut = n.clamp(i128::from(from), i128::from(to));
                Ok((Value::UInt(cut as u64), cut != n))
            }
            _ => Err(wrong_type(var)),
        },
        Type::Id => match value {
            Value::Int(_) | Value::UInt(_) => as_is(Value::UInt(u64::try_from(value.int()).unwrap_or(0))),
            _ => Err(wrong_type(var)),
        },
        Type::Enum(names) => {
            let found = match value {
                Value::Int(n) => usize::try_from(*n).ok().and_then(|n| names.get(n)),
                Value::Str(_) => names.iter().find(|n| n.eq_ignore_ascii_case(&value.string())),
                _ => None,
            };
            match found {
                Some(name) => as_is(Value::str(name)),
                None if id == Id::DefaultStorageEngine => Err(unsupported("storage engine")),
                None => Err(wrong_value(var, value)),
            }
        }
        Type::SqlMode => sql_mode(dialect, value).map(|v| (v, false)),
        Type::TimeZone => time_zone(value).map(|v| (v, false)),
        Type::Locale => {
            let locales = ["en_US", "de_DE", "fr_FR", "en_GB"];
            let text = value.string();
            match locales.iter().find(|l| l.eq_ignore_ascii_case(&text)) {
                Some(locale) => as_is(Value::str(locale)),
                None => Err(Error::new(1649, "HY000", format!("Unknown locale: '{text}'"))),
            }
        }
        Type::CharSet => {
            if value.is_null() && id == Id::CharsetResults {
                return Err(unsupported("character_set_results=NULL"));
            }
            let text = value.string().to_ascii_lowercase();
            match default_collation(dialect, &text) {
                _ if value.is_null() => Err(wrong_value(var, value)),
                Some(_) => as_is(Value::Str(text.into_bytes())),
                None => Err(Error::new(1115, "42000", format!("Unknown character set: '{}'", value.string()))),
            }
        }
        Type::Collation => match collation(dialect, &value.string()) {
            Some(found) => as_is(Value::str(found.0)),
            None => Err(Error::new(1273, "HY000", format!("Unknown collation: '{}'", value.string()))),
        },
        Type::Isolation => match Isolation::parse(&value.string()) {
            Some(level) => as_is(Value::str(level.text())),
            None => Err(wrong_value(var, value)),
        },
        Type::Timestamp => match value {
            Value::Str(_) | Value::Null => Err(wrong_type(var)),
            other => as_is(Value::Double(other.number().0)),
        },
        Type::Text => as_is(value.clone()),
    }
}

/// Modes in the order of their bits, as both servers print them; what each dialect has.
const MODES: &[(&str, bool, bool)] = &[
    ("REAL_AS_FLOAT", true, true),
    ("PIPES_AS_CONCAT", true, true),
    ("ANSI_QUOTES", true, true),
    ("IGNORE_SPACE", true, true),
    ("ONLY_FULL_GROUP_BY", true, true),
    ("NO_UNSIGNED_SUBTRACTION", true, true),
    ("NO_DIR_IN_CREATE", true, true),
    ("ANSI", true, true),
    ("NO_AUTO_VALUE_ON_ZERO", true, true),
    ("NO_BACKSLASH_ESCAPES", true, true),
    ("STRICT_TRANS_TABLES", true, true),
    ("STRICT_ALL_TABLES", true, true),
    ("NO_ZERO_IN_DATE", true, true),
    ("NO_ZERO_DATE", true, true),
    ("ERROR_FOR_DIVISION_BY_ZERO", true, true),
    ("NO_AUTO_CREATE_USER", true, false),
    ("HIGH_NOT_PRECEDENCE", true, true),
    ("NO_ENGINE_SUBSTITUTION", true, true),
    ("PAD_CHAR_TO_FULL_LENGTH", true, true),
];

fn sql_mode(dialect: Dialect, value: &Value) -> Result<Value, Error> {
    let Value::Str(text) = value else { return Err(unsupported("sql_mode by number")) };
    let text = String::from_utf8_lossy(text).to_ascii_uppercase();
    let mut asked: Vec<&str> = text.split(',').filter(|w| !w.is_empty()).collect();
    let known = |word: &str| MODES.iter().any(|m| m.0 == word && if dialect.is_maria() { m.1 } else { m.2 });
    if let Some(bad) = asked.iter().find(|w| !known(w)) {
        let original = value.string();
        let at = text.find(bad).unwrap_or(0);
        let bad = original.get(at..at + bad.len()).unwrap_or_default();
        return Err(Error::new(1231, "42000", format!("Variable 'sql_mode' can't be set to the value of '{bad}'")));
    }
    if asked.contains(&"ANSI") {
        asked.extend(["REAL_AS_FLOAT", "PIPES_AS_CONCAT", "ANSI_QUOTES", "IGNORE_SPACE"]);
        if !dialect.is_maria() {
            asked.push("ONLY_FULL_GROUP_BY");
        }
    }
    let made: Vec<&str> = MODES.iter().map(|m| m.0).filter(|m| asked.contains(m)).collect();
    Ok(Value::Str(made.join(",").into_bytes()))
}

fn time_zone(value: &Value) -> Result<Value, Error> {
    let text = value.string();
    let wrong = || Error::new(1298, "HY000", format!("Unknown or incorrect time zone: '{text}'"));
    if text.eq_ignore_ascii_case("system") {
        return Ok(Value::str("SYSTEM"));
    }
    let rest = text.strip_prefix(['+', '-']).ok_or_else(wrong)?;
    let (hours, minutes) = rest.split_once(':').ok_or_else(wrong)?;
    let (h, m): (u32, u32) = (hours.parse().map_err(|_| wrong())?, minutes.parse().map_err(|_| wrong())?);
    if h > 12 || m > 59 || minutes.len() != 2 {
        return Err(wrong());
    }
    Ok(Value::str(format!("{}{h:02}:{m:02}", &text[..1])))
}

/// How a variable's value is shown by SHOW VARIABLES and in reports.
pub(crate) fn shown(id: Id, value: &Value) -> Vec<u8> {
    match (id.var().ty, value) {
        (Type::Bool, v) => {
            if v.is_true() {
                b"ON".to_vec()
            } else {
                b"OFF".to_vec()
            }
        }
        (Type::Timestamp, v) => format!("{:.6}", v.number().0).into_bytes(),
        (_, v) => v.text().unwrap_or_default(),
    }
}

/// The variables of a session.
pub(crate) type Values = Arc<Vec<Value>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_what_a_server_makes_of_them() {
        let made = |id, v: Value| check(Dialect::MySql, id, &v).map(|(v, cut)| (v.string(), cut));
        assert_eq!(made(Id::WaitTimeout, Value::Int(0)), Ok(("1".into(), true)));
        assert_eq!(made(Id::TimeZone, Value::str("+5:00")), Ok(("+05:00".into(), false)));
        assert_eq!(made(Id::ForeignKeyChecks, Value::Int(2)).unwrap_err().code, 1231);
        assert_eq!(made(Id::WaitTimeout, Value::str("a")).unwrap_err().code, 1232);
        assert_eq!(made(Id::SqlMode, Value::str("ansi_quotes")), Ok(("ANSI_QUOTES".into(), false)));
        assert_eq!(find(Dialect::MySql, "tx_isolation").unwrap_err().code, 1193);
    }
}
