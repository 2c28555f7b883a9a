//! The keywords that the lexer must know, and a small table that finds a word's keyword without looking at case.

/// Mixes length and a few bytes of a word, without regard to ASCII case. Good enough for tables that are searched on.
pub(super) const fn fold_hash(word: &[u8]) -> usize {
    let len = word.len();
    if len == 0 {
        return 0;
    }
    let first = (word[0] | 0x20) as usize;
    let last = (word[len - 1] | 0x20) as usize;
    let middle = (word[len / 2] | 0x20) as usize;
    let third = (word[len / 3] | 0x20) as usize;
    let late = (word[len - 1 - len / 4] | 0x20) as usize;
    let mixed = first
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(last.wrapping_mul(0x85EB_CA6B))
        .wrapping_add(middle.wrapping_mul(0xC2B2_AE35))
        .wrapping_add(third.wrapping_mul(0x27D4_EB2F))
        .wrapping_add(late.wrapping_mul(0x1656_67B1))
        .wrapping_add(len.wrapping_mul(0x045D_9F3B));
    mixed ^ (mixed >> 15)
}

/// Slots of the keyword table; a power of two, at least three times the number of keywords.
const SLOTS: usize = 1024;

macro_rules! keywords {
    ($($name:ident = $text:literal),* $(,)?) => {
        /// A keyword that means something to the lexer. `None` is any other word.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
        #[allow(missing_docs)] // The names are the keywords.
        pub enum Keyword { #[default] None, $($name),* }

        const WORDS: &[(&str, Keyword)] = &[$(($text, Keyword::$name)),*];
    };
}

keywords! {
    Algorithm = "ALGORITHM", All = "ALL", Alter = "ALTER", Analyze = "ANALYZE", Analyse = "ANALYSE", And = "AND", Any = "ANY", As = "AS",
    Atomic = "ATOMIC", Backup = "BACKUP", Before = "BEFORE", Begin = "BEGIN", Between = "BETWEEN", Binary = "BINARY",
    Binlog = "BINLOG", By = "BY", Cache = "CACHE", Call = "CALL", Case = "CASE", Chain = "CHAIN", Change = "CHANGE",
    Character = "CHARACTER", Charset = "CHARSET", Check = "CHECK", Checksum = "CHECKSUM", Clone = "CLONE", Close = "CLOSE",
    Collate = "COLLATE", Columns = "COLUMNS", Commit = "COMMIT", Connection = "CONNECTION", Consistent = "CONSISTENT",
    Count = "COUNT", Create = "CREATE", Current = "CURRENT", Currval = "CURRVAL", Database = "DATABASE",
    Deallocate = "DEALLOCATE", Default = "DEFAULT", Delete = "DELETE", Desc = "DESC", Describe = "DESCRIBE",
    Diagnostics = "DIAGNOSTICS", Distinct = "DISTINCT", Distinctrow = "DISTINCTROW", Div = "DIV", Do = "DO", Drop = "DROP",
    Dumpfile = "DUMPFILE", Else = "ELSE", End = "END", Errors = "ERRORS", Event = "EVENT", Except = "EXCEPT",
    Execute = "EXECUTE", Exists = "EXISTS", Explain = "EXPLAIN", Export = "EXPORT", False = "FALSE", Flush = "FLUSH",
    For = "FOR", Format = "FORMAT", From = "FROM", Function = "FUNCTION", Get = "GET", Global = "GLOBAL", Grant = "GRANT",
    Group = "GROUP", Handler = "HANDLER", Hard = "HARD", Having = "HAVING", Help = "HELP", HighPriority = "HIGH_PRIORITY",
    Id = "ID", Ignore = "IGNORE", Immediate = "IMMEDIATE", Import = "IMPORT", In = "IN", Index = "INDEX", Insert = "INSERT",
    Install = "INSTALL", Instance = "INSTANCE", Intersect = "INTERSECT", Interval = "INTERVAL", Into = "INTO", Is = "IS",
    Isolation = "ISOLATION", Join = "JOIN", JsonTable = "JSON_TABLE", Key = "KEY", Kill = "KILL", Like = "LIKE", Limit = "LIMIT", Load = "LOAD", Local = "LOCAL",
    Lock = "LOCK", Low = "LOW_PRIORITY", Delayed = "DELAYED", Mod = "MOD", Mode = "MODE", Names = "NAMES", Next = "NEXT",
    Nextval = "NEXTVAL", No = "NO", Not = "NOT", NoWriteToBinlog = "NO_WRITE_TO_BINLOG", Null = "NULL", Off = "OFF",
    On = "ON", Only = "ONLY", Open = "OPEN", Optimize = "OPTIMIZE", Or = "OR", Order = "ORDER", Outfile = "OUTFILE",
    Package = "PACKAGE", Partition = "PARTITION", Password = "PASSWORD", Persist = "PERSIST", PersistOnly = "PERSIST_ONLY",
    Prepare = "PREPARE", Previous = "PREVIOUS", Privileges = "PRIVILEGES", Procedure = "PROCEDURE", Profile = "PROFILE",
    Profiles = "PROFILES", Purge = "PURGE", Query = "QUERY", Read = "READ", Recover = "RECOVER", Recursive = "RECURSIVE",
    Regexp = "REGEXP", Release = "RELEASE", Rename = "RENAME", Repair = "REPAIR", Replace = "REPLACE", Replica = "REPLICA",
    GroupReplication = "GROUP_REPLICATION", Reset = "RESET", Resignal = "RESIGNAL", Resource = "RESOURCE",
    Restart = "RESTART", Returning = "RETURNING", Revoke = "REVOKE", Rlike = "RLIKE", Role = "ROLE", Rollback = "ROLLBACK",
    Savepoint = "SAVEPOINT", Schema = "SCHEMA", Select = "SELECT", Sequence = "SEQUENCE", Server = "SERVER",
    Session = "SESSION", Set = "SET", Share = "SHARE", Show = "SHOW", Shutdown = "SHUTDOWN", Signal = "SIGNAL",
    Slave = "SLAVE", Slaves = "SLAVES", Snapshot = "SNAPSHOT", Soft = "SOFT", Some = "SOME", Spatial = "SPATIAL",
    SqlBigResult = "SQL_BIG_RESULT", SqlBufferResult = "SQL_BUFFER_RESULT", SqlCache = "SQL_CACHE",
    SqlCalcFoundRows = "SQL_CALC_FOUND_ROWS", SqlNoCache = "SQL_NO_CACHE", SqlSmallResult = "SQL_SMALL_RESULT",
    Stacked = "STACKED", Stage = "STAGE", Start = "START", Statement = "STATEMENT", Stop = "STOP",
    StraightJoin = "STRAIGHT_JOIN", Table = "TABLE", Tables = "TABLES", Tablespace = "TABLESPACE", Temporary = "TEMPORARY",
    Then = "THEN", To = "TO", Transaction = "TRANSACTION", Trigger = "TRIGGER", True = "TRUE", Truncate = "TRUNCATE",
    Uninstall = "UNINSTALL", Union = "UNION", Unlock = "UNLOCK", Unknown = "UNKNOWN", Update = "UPDATE", Use = "USE",
    User = "USER", Using = "USING", Value = "VALUE", Values = "VALUES", View = "VIEW", Warnings = "WARNINGS", When = "WHEN",
    Where = "WHERE", Window = "WINDOW", With = "WITH", Work = "WORK", Write = "WRITE", Xa = "XA", Xor = "XOR",
}

const TABLE: [u16; SLOTS] = {
    let mut table = [0u16; SLOTS];
    let mut index = 0;
    while index < WORDS.len() {
        let mut slot = fold_hash(WORDS[index].0.as_bytes()) & (SLOTS - 1);
        while table[slot] != 0 {
            slot = (slot + 1) & (SLOTS - 1);
        }
        table[slot] = index as u16 + 1;
        index += 1;
    }
    table
};

/// No keyword is longer, in bytes.
const LONGEST_BYTES: usize = 20;

impl Keyword {
    /// The keyword that `word` is, without regard to case; [`Keyword::None`] for every other word.
    pub fn of(word: &[u8]) -> Keyword {
        if word.len() < 2 || word.len() > LONGEST_BYTES {
            return Keyword::None;
        }
        let mut slot = fold_hash(word) & (SLOTS - 1);
        loop {
            let index = usize::from(TABLE[slot]);
            if index == 0 {
                return Keyword::None;
            }
            let (text, keyword) = WORDS[index - 1];
            if text.as_bytes().eq_ignore_ascii_case(word) {
                return keyword;
            }
            slot = (slot + 1) & (SLOTS - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_keyword_in_any_case() {
        for (text, keyword) in WORDS {
            assert!(text.len() <= LONGEST_BYTES);
            assert_eq!(Keyword::of(text.as_bytes()), *keyword);
            assert_eq!(Keyword::of(text.to_ascii_lowercase().as_bytes()), *keyword);
        }
        assert_eq!(Keyword::of(b"selects"), Keyword::None);
        assert_eq!(Keyword::of(b""), Keyword::None);
    }
}
