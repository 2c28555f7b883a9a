//! The built-in functions that are known to leave the session alone, and the few that do not.
//!
//! A call of a function that is not listed may run a stored function: code out of sight. Functions of one server family only are
//! listed for that family, because on the other one a stored function may bear the name. The lists are those of MariaDB 10.11 (each
//! name was asked of a real server) and of MySQL 8.4; on servers before MySQL 8.0 or MariaDB 10.6 a stored function may bear one of
//! the newer names.

use super::facts::{Flavor, VolatileKind};
use super::keywords::fold_hash;

/// What a word before a parenthesis does to the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionEffect {
    /// Nothing; or the word is a keyword and no function.
    Pure,
    /// Takes a lock of the session.
    GetLock,
    /// Gives locks back.
    ReleaseLock,
    /// Answers from the session.
    Volatile(VolatileKind),
    /// Changes a sequence.
    SequenceWrite,
    /// Answers from the session's last use of a sequence.
    SequenceRead,
    /// Harmless, but its answer hangs on the node, or it waits for one: never repeated elsewhere.
    Waits,
}

const BOTH: u8 = 3;
const MARIA: u8 = 1;
const MYSQL: u8 = 2;

/// Keywords that may stand before a parenthesis, functions of both families.
const COMMON: &str = "ALL AND AS BETWEEN BINARY BY CASE DISTINCT DIV ELSE EXCEPT EXISTS FROM GROUP HAVING IN INDEX INTERSECT INTERVAL INTO IS \
JOIN KEY LIKE LIMIT NOT ON OR ORDER OVER PARTITION REGEXP RETURNING RLIKE ROW SELECT SET TABLE THEN UNION USING VALUES \
WHEN WHERE WITH XOR STRAIGHT_JOIN DISTINCTROW DECIMAL NUMERIC CHAR VARCHAR UNSIGNED DATE TIME DOUBLE FLOAT MATCH ABS \
ACOS ADDDATE ADDTIME AES_DECRYPT AES_ENCRYPT ASCII ASIN ATAN ATAN2 AVG BENCHMARK BIN BIT_AND BIT_COUNT BIT_LENGTH \
BIT_OR BIT_XOR CAST CEIL CEILING CHARACTER_LENGTH CHARSET CHAR_LENGTH COALESCE COERCIBILITY COLLATION COMPRESS CONCAT \
CONCAT_WS CONV CONVERT CONVERT_TZ COS COT COUNT CRC32 CUME_DIST CURDATE CURRENT_DATE CURRENT_ROLE CURRENT_TIME \
CURRENT_TIMESTAMP CURRENT_USER CURTIME DATABASE DATEDIFF DATE_ADD DATE_FORMAT DATE_SUB DAY DAYNAME DAYOFMONTH DAYOFWEEK \
DAYOFYEAR DEFAULT DEGREES DENSE_RANK ELT EXP EXPORT_SET EXTRACT EXTRACTVALUE FIELD FIND_IN_SET FIRST_VALUE FLOOR FORMAT \
FROM_BASE64 FROM_DAYS FROM_UNIXTIME GET_FORMAT GREATEST GROUP_CONCAT HEX HOUR IF IFNULL INET6_ATON INET6_NTOA INET_ATON \
INET_NTOA INSERT INSTR ISNULL IS_IPV4 IS_IPV4_COMPAT IS_IPV4_MAPPED IS_IPV6 JSON_ARRAY JSON_ARRAYAGG JSON_ARRAY_APPEND \
JSON_ARRAY_INSERT JSON_CONTAINS JSON_CONTAINS_PATH JSON_DEPTH JSON_EXTRACT JSON_INSERT JSON_KEYS JSON_LENGTH JSON_MERGE \
JSON_MERGE_PATCH JSON_MERGE_PRESERVE JSON_OBJECT JSON_OBJECTAGG JSON_OVERLAPS JSON_PRETTY JSON_QUOTE JSON_REMOVE \
JSON_REPLACE JSON_SEARCH JSON_SET JSON_TYPE JSON_UNQUOTE JSON_VALID JSON_VALUE LAG LAST_DAY LAST_VALUE LCASE LEAD LEAST \
LEFT LENGTH LN LOCALTIME LOCALTIMESTAMP LOCATE LOG LOG10 LOG2 LOWER LPAD LTRIM MAKEDATE MAKETIME MAKE_SET MAX \
MBRCONTAINS MBRDISJOINT MBRINTERSECTS MBROVERLAPS MBRTOUCHES MBRWITHIN MD5 MICROSECOND MID MIN MINUTE MOD MONTH \
MONTHNAME NAME_CONST NOW NTH_VALUE NTILE NULLIF OCT OCTET_LENGTH ORD PERCENT_RANK PERIOD_ADD PERIOD_DIFF PI POINT \
LINESTRING POLYGON MULTIPOINT MULTILINESTRING MULTIPOLYGON GEOMETRYCOLLECTION POSITION POW POWER QUARTER QUOTE RADIANS \
RAND RANDOM_BYTES RANK REGEXP_INSTR REGEXP_REPLACE REGEXP_SUBSTR REPEAT REPLACE REVERSE RIGHT ROUND ROW_NUMBER RPAD \
RTRIM SCHEMA SECOND SEC_TO_TIME SESSION_USER SHA SHA1 SHA2 SIGN SIN SLEEP SOUNDEX SPACE SQRT STD STDDEV STDDEV_POP \
STDDEV_SAMP STRCMP STR_TO_DATE ST_AREA ST_ASBINARY ST_ASGEOJSON ST_ASTEXT ST_ASWKB ST_ASWKT ST_BUFFER ST_CENTROID \
ST_CONTAINS ST_CONVEXHULL ST_CROSSES ST_DIFFERENCE ST_DIMENSION ST_DISJOINT ST_DISTANCE ST_DISTANCE_SPHERE ST_ENDPOINT \
ST_ENVELOPE ST_EQUALS ST_EXTERIORRING ST_GEOMCOLLFROMTEXT ST_GEOMCOLLFROMWKB ST_GEOMETRYN ST_GEOMETRYTYPE \
ST_GEOMFROMGEOJSON ST_GEOMFROMTEXT ST_GEOMFROMWKB ST_INTERIORRINGN ST_INTERSECTION ST_INTERSECTS ST_ISCLOSED ST_ISEMPTY \
ST_ISSIMPLE ST_LENGTH ST_LINEFROMTEXT ST_LINEFROMWKB ST_MLINEFROMTEXT ST_MPOINTFROMTEXT ST_MPOLYFROMTEXT \
ST_NUMGEOMETRIES ST_NUMINTERIORRINGS ST_NUMPOINTS ST_OVERLAPS ST_POINTFROMTEXT ST_POINTFROMWKB ST_POINTN \
ST_POLYFROMTEXT ST_POLYFROMWKB ST_SRID ST_STARTPOINT ST_SYMDIFFERENCE ST_TOUCHES ST_UNION ST_WITHIN ST_X ST_Y SUBDATE \
SUBSTR SUBSTRING SUBSTRING_INDEX SUBTIME SUM SYSDATE SYSTEM_USER TAN TIMEDIFF TIMESTAMP TIMESTAMPADD TIMESTAMPDIFF \
TIME_FORMAT TIME_TO_SEC TO_BASE64 TO_DAYS TO_SECONDS TRIM TRUNCATE UCASE UNCOMPRESS UNCOMPRESSED_LENGTH UNHEX \
UNIX_TIMESTAMP UPDATEXML UPPER USER UTC_DATE UTC_TIME UTC_TIMESTAMP UUID UUID_SHORT VARIANCE VAR_POP VAR_SAMP VERSION \
WEEK WEEKDAY WEEKOFYEAR WEIGHT_STRING YEAR YEARWEEK MBREQUALS";

const MARIA_ONLY: &str = "ADD_MONTHS CHR COLUMN_ADD COLUMN_CHECK COLUMN_CREATE COLUMN_DELETE COLUMN_EXISTS COLUMN_GET COLUMN_JSON COLUMN_LIST \
CRC32C DECODE DECODE_HISTOGRAM DECODE_ORACLE DES_DECRYPT DES_ENCRYPT ENCODE ENCRYPT JSON_COMPACT JSON_DETAILED \
JSON_EQUALS JSON_EXISTS JSON_LOOSE JSON_NORMALIZE JSON_QUERY LENGTHB MEDIAN NATURAL_SORT_KEY NVL NVL2 OLD_PASSWORD \
PASSWORD PERCENTILE_CONT PERCENTILE_DISC SFORMAT ST_BOUNDARY ST_ISRING ST_POINTONSURFACE ST_RELATE SUBSTR_ORACLE \
SYS_GUID TO_CHAR CENTROID DIMENSION GEOMETRYN GEOMETRYTYPE GLENGTH X Y ASTEXT ASWKT GEOMFROMTEXT VALUE MBREQUAL";

const MYSQL_ONLY: &str = "ANY_VALUE BIN_TO_UUID CUBE FORMAT_BYTES FORMAT_PICO_TIME GROUPING GTID_SUBSET GTID_SUBTRACT IS_UUID JSON_SCHEMA_VALID \
JSON_SCHEMA_VALIDATION_REPORT JSON_STORAGE_FREE JSON_STORAGE_SIZE LATERAL OF MBRCOVEREDBY MBRCOVERS \
PS_CURRENT_THREAD_ID PS_THREAD_ID REGEXP_LIKE ROLES_GRAPHML STATEMENT_DIGEST STATEMENT_DIGEST_TEXT ST_FRECHETDISTANCE \
ST_GEOHASH ST_HAUSDORFFDISTANCE ST_LATFROMGEOHASH ST_LATITUDE ST_LINEINTERPOLATEPOINT ST_LINEINTERPOLATEPOINTS \
ST_LONGFROMGEOHASH ST_LONGITUDE ST_MAKEENVELOPE ST_POINTATDISTANCE ST_POINTFROMGEOHASH ST_SWAPXY ST_TRANSFORM \
ST_VALIDATE UUID_TO_BIN VECTOR_DIM STRING_TO_VECTOR VECTOR_TO_STRING FROM_VECTOR TO_VECTOR EMPTY ST_ISVALID ST_SIMPLIFY \
VALIDATE_PASSWORD_STRENGTH";

const SPECIAL: &[(&str, u8, FunctionEffect)] = &[
    ("GET_LOCK", BOTH, FunctionEffect::GetLock),
    ("SERVICE_GET_READ_LOCKS", BOTH, FunctionEffect::GetLock),
    ("SERVICE_GET_WRITE_LOCKS", BOTH, FunctionEffect::GetLock),
    ("RELEASE_LOCK", BOTH, FunctionEffect::ReleaseLock),
    ("RELEASE_ALL_LOCKS", BOTH, FunctionEffect::ReleaseLock),
    ("SERVICE_RELEASE_LOCKS", BOTH, FunctionEffect::ReleaseLock),
    ("LAST_INSERT_ID", BOTH, FunctionEffect::Volatile(VolatileKind::LastInsertId)),
    ("ROW_COUNT", BOTH, FunctionEffect::Volatile(VolatileKind::RowCount)),
    ("FOUND_ROWS", BOTH, FunctionEffect::Volatile(VolatileKind::FoundRows)),
    ("CONNECTION_ID", BOTH, FunctionEffect::Volatile(VolatileKind::ConnectionId)),
    ("NEXTVAL", MARIA, FunctionEffect::SequenceWrite),
    ("SETVAL", MARIA, FunctionEffect::SequenceWrite),
    ("LASTVAL", MARIA, FunctionEffect::SequenceRead),
    ("IS_USED_LOCK", BOTH, FunctionEffect::Waits),
    ("IS_FREE_LOCK", BOTH, FunctionEffect::Waits),
    ("LOAD_FILE", BOTH, FunctionEffect::Waits),
    ("MASTER_POS_WAIT", BOTH, FunctionEffect::Waits),
    ("MASTER_GTID_WAIT", MARIA, FunctionEffect::Waits),
    ("SOURCE_POS_WAIT", MYSQL, FunctionEffect::Waits),
    ("WAIT_FOR_EXECUTED_GTID_SET", MYSQL, FunctionEffect::Waits),
    ("WAIT_UNTIL_SQL_THREAD_AFTER_GTIDS", MYSQL, FunctionEffect::Waits),
    ("BINLOG_GTID_POS", MARIA, FunctionEffect::Waits),
    ("WSREP_LAST_SEEN_GTID", MARIA, FunctionEffect::Waits),
    ("WSREP_LAST_WRITTEN_GTID", MARIA, FunctionEffect::Waits),
    ("WSREP_SYNC_WAIT_UPTO_GTID", MARIA, FunctionEffect::Waits),
];

/// Built-in only where the parenthesis follows at once, unless IGNORE_SPACE is in force (manuals, "Function Name Parsing").
const NO_SPACE: &str = "ADDDATE BIT_AND BIT_OR BIT_XOR CAST COUNT CURDATE CURTIME DATE_ADD DATE_SUB EXTRACT GROUP_CONCAT JSON_ARRAYAGG \
JSON_OBJECTAGG MAX MID MIN NOW POSITION SESSION_USER STD STDDEV STDDEV_POP STDDEV_SAMP SUBDATE SUBSTR SUBSTRING SUM SYSDATE SYSTEM_USER \
TRIM VARIANCE VAR_POP VAR_SAMP";

const SLOTS: usize = 4096;

#[derive(Clone, Copy)]
struct Entry {
    name: &'static str,
    families: u8,
    effect: FunctionEffect,
    needs_no_space: bool,
}

const EMPTY: Entry = Entry { name: "", families: 0, effect: FunctionEffect::Pure, needs_no_space: false };

const fn same(left: &[u8], right: &[u8]) -> bool {
    if left.len() != right.len() {
        return false;
    }
    let mut index = 0;
    while index < left.len() {
        if left[index] != right[index] {
            return false;
        }
        index += 1;
    }
    true
}

/// The next word of `list` from `from`: its text and where to go on.
const fn next_word(list: &'static str, from: usize) -> Option<(&'static str, usize)> {
    let bytes = list.as_bytes();
    let mut start = from;
    while start < bytes.len() && bytes[start] == b' ' {
        start += 1;
    }
    if start == bytes.len() {
        return None;
    }
    let mut end = start;
    while end < bytes.len() && bytes[end] != b' ' {
        end += 1;
    }
    let (head, _) = list.split_at(end);
    let (_, word) = head.split_at(start);
    Some((word, end))
}

const fn insert(table: &mut [Entry; SLOTS], entry: Entry) {
    let mut slot = fold_hash(entry.name.as_bytes()) & (SLOTS - 1);
    while !table[slot].name.is_empty() {
        if same(table[slot].name.as_bytes(), entry.name.as_bytes()) {
            table[slot].families |= entry.families;
            return;
        }
        slot = (slot + 1) & (SLOTS - 1);
    }
    table[slot] = entry;
}

const fn insert_list(table: &mut [Entry; SLOTS], list: &'static str, families: u8) {
    let mut at = 0;
    while let Some((name, end)) = next_word(list, at) {
        insert(table, Entry { name, families, effect: FunctionEffect::Pure, needs_no_space: false });
        at = end;
    }
}

static TABLE: [Entry; SLOTS] = {
    let mut table = [EMPTY; SLOTS];
    insert_list(&mut table, COMMON, BOTH);
    insert_list(&mut table, MARIA_ONLY, MARIA);
    insert_list(&mut table, MYSQL_ONLY, MYSQL);
    let mut index = 0;
    while index < SPECIAL.len() {
        let (name, families, effect) = SPECIAL[index];
        insert(&mut table, Entry { name, families, effect, needs_no_space: false });
        index += 1;
    }
    let mut at = 0;
    while let Some((name, end)) = next_word(NO_SPACE, at) {
        let mut slot = fold_hash(name.as_bytes()) & (SLOTS - 1);
        while !table[slot].name.is_empty() {
            if same(table[slot].name.as_bytes(), name.as_bytes()) {
                table[slot].needs_no_space = true;
                break;
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
        at = end;
    }
    table
};

/// What the word `name` before a parenthesis is on a server of `flavor`; `None`: not known, perhaps a stored function.
/// `space`: something stands between the word and the parenthesis and IGNORE_SPACE is not in force.
pub fn function_effect(name: &[u8], flavor: Flavor, space: bool) -> Option<FunctionEffect> {
    let wanted = match flavor {
        Flavor::MariaDb { .. } => MARIA,
        Flavor::MySql { .. } => MYSQL,
        Flavor::OceanBase | Flavor::Unknown => BOTH,
    };
    let mut slot = fold_hash(name) & (SLOTS - 1);
    loop {
        let entry = TABLE.get(slot)?;
        if entry.name.is_empty() {
            return None;
        }
        if entry.name.as_bytes().eq_ignore_ascii_case(name) {
            let known = entry.families & wanted == wanted && !(space && entry.needs_no_space);
            return known.then_some(entry.effect);
        }
        slot = (slot + 1) & (SLOTS - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_families_and_spaces() {
        let maria = Flavor::MariaDb { version: 101_119 };
        let mysql = Flavor::MySql { version: 90_704 };
        assert_eq!(function_effect(b"concat", Flavor::Unknown, true), Some(FunctionEffect::Pure));
        assert_eq!(function_effect(b"count", maria, false), Some(FunctionEffect::Pure));
        assert_eq!(function_effect(b"Count", maria, true), None);
        assert_eq!(function_effect(b"UUID_TO_BIN", maria, false), None);
        assert_eq!(function_effect(b"uuid_to_bin", mysql, false), Some(FunctionEffect::Pure));
        assert_eq!(function_effect(b"st_latfromgeohash", maria, false), None);
        assert_eq!(function_effect(b"st_latfromgeohash", mysql, false), Some(FunctionEffect::Pure));
        assert_eq!(function_effect(b"nextval", mysql, false), None);
        assert_eq!(function_effect(b"nextval", maria, false), Some(FunctionEffect::SequenceWrite));
        assert_eq!(function_effect(b"my_func", maria, false), None);
        assert_eq!(function_effect(b"", maria, false), None);
    }

    #[test]
    fn every_word_that_hates_spaces_is_listed() {
        for name in NO_SPACE.split_ascii_whitespace() {
            assert_eq!(function_effect(name.as_bytes(), Flavor::Unknown, true), None);
            assert_eq!(function_effect(name.as_bytes(), Flavor::Unknown, false), Some(FunctionEffect::Pure), "{name}");
        }
    }
}
