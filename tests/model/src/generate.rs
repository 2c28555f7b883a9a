//! Random conversations over the model's grammar: the same seed, the same script.

use crate::act::{Act, Param};

/// A small generator of numbers (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Random {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x2545_f491_4f6c_dd1d);
        if random.0 == 0 {
            random.0 = 1;
        }
        random.number();
        random
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        (self.number() >> 33) % n.max(1)
    }

    /// One of several.
    pub fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// What has to be there before the scripts, once for a server: code that runs out of sight.
pub fn objects() -> Vec<Act> {
    let mut made = Vec::new();
    for (kind, name, rest) in [
        (
            "PROCEDURE",
            "gp1",
            "() BEGIN SELECT 1; SET @x=1; SET foreign_key_checks=0; SELECT 2; INSERT INTO g(a) VALUES(1),(2); END",
        ),
        (
            "PROCEDURE",
            "gp2",
            "(x INT) BEGIN INSERT INTO g(a) VALUES(x); SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='no'; END",
        ),
        ("PROCEDURE", "gp3", "() BEGIN START TRANSACTION; UPDATE g SET a=a+1 WHERE id=1; END"),
        ("PROCEDURE", "gp4", "() BEGIN SET sort_buffer_size=100000; SET NAMES latin1; SIGNAL SQLSTATE '45000'; END"),
        (
            "PROCEDURE",
            "gp5",
            "() BEGIN CREATE TEMPORARY TABLE gtmp(id INT); INSERT INTO gtmp VALUES(1); SELECT * FROM gtmp; DROP TEMPORARY TABLE gtmp; END",
        ),
        (
            "FUNCTION",
            "gf1",
            "(x INT) RETURNS INT BEGIN SET @fx=x; SET unique_checks=0; SET sort_buffer_size=200000; RETURN x+1; END",
        ),
        ("FUNCTION", "gf2", "() RETURNS INT BEGIN INSERT INTO h(n) VALUES(77); RETURN LAST_INSERT_ID(); END"),
        (
            "FUNCTION",
            "gf3",
            "() RETURNS INT BEGIN SET @f3=3; SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT='f3'; RETURN 1; END",
        ),
    ] {
        made.push(Act::Query(format!("DROP {kind} IF EXISTS {name}")));
        made.push(Act::Query(format!("CREATE {kind} {name}{rest}")));
    }
    made
}

/// What each script begins with: the tables.
pub fn tables() -> Vec<Act> {
    [
        "CREATE TABLE g(id INT PRIMARY KEY AUTO_INCREMENT, a INT, s VARCHAR(10))",
        "CREATE TABLE h(id INT PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL DEFAULT 4)",
        "CREATE TRIGGER gt1 BEFORE INSERT ON h FOR EACH ROW BEGIN SET @tr=NEW.n; SET NEW.n=NEW.n+1; END",
        "CREATE TRIGGER gt2 AFTER UPDATE ON h FOR EACH ROW BEGIN SET @o=OLD.n; INSERT INTO g(a) VALUES(NEW.n); END",
        "CREATE TRIGGER gt3 BEFORE DELETE ON h FOR EACH ROW BEGIN SET sort_buffer_size=300000; SET @d=1; SIGNAL SQLSTATE '45000'; END",
        "INSERT INTO g(a,s) VALUES(1,'x'),(2,'y'),(3,NULL)",
        "INSERT INTO h(n) VALUES(10),(20)",
    ]
    .into_iter()
    .map(|sql| Act::Query(sql.to_owned()))
    .collect()
}

struct Maker {
    random: Random,
    seed: u64,
    maria: bool,
    /// Statements prepared by each session: what they expect.
    prepared: Vec<Vec<u8>>,
    sessions: usize,
}

/// A script of `steps` commands of several sessions.
pub fn conversation(seed: u64, maria: bool, sessions: usize, steps: usize) -> Vec<(usize, Act)> {
    let mut maker = Maker { random: Random::new(seed), seed, maria, prepared: vec![Vec::new(); sessions], sessions };
    let mut made = Vec::new();
    let mut at = 0;
    for _ in 0..steps {
        // A session says a few things before another one does.
        if maker.random.below(3) == 0 {
            at = maker.random.below(sessions as u64) as usize;
        }
        made.push((at, maker.act(at)));
    }
    made
}

impl Maker {
    fn n(&mut self, n: u64) -> u64 {
        self.random.below(n)
    }

    fn act(&mut self, at: usize) -> Act {
        match self.n(100) {
            0..=11 => self.binary(at),
            12 => Act::Ping,
            13 => Act::Schema("test".into()),
            14 if self.n(4) == 0 => {
                self.prepared[at].clear();
                // Ids go on, but the statements are gone; what follows names none of them.
                Act::ResetConnection
            }
            15 => Act::MultiStatements(self.n(3) > 0),
            16..=19 => {
                let (mut a, b) = (self.statement(), self.statement());
                if a.contains("bogus") {
                    // Servers look variables up before they find that a text may not hold two statements.
                    a = "DO 1".to_owned();
                }
                Act::Query(format!("{a}; {b}"))
            }
            20 if self.n(3) == 0 && self.sessions > 1 => {
                let session = (at + 1) % self.sessions;
                Act::Kill { session, query: true }
            }
            _ => Act::Query(self.statement()),
        }
    }

    fn binary(&mut self, at: usize) -> Act {
        let count = self.prepared[at].len() as u64;
        if count == 0 || self.n(3) == 0 {
            let (text, kind): (&str, u8) = [
                ("SELECT ?", 1),
                ("SELECT id, a FROM g WHERE id=?", 1),
                ("INSERT INTO g(a) VALUES(?)", 1),
                ("UPDATE g SET a=? WHERE id=1", 1),
                ("SET @p=?", 1),
                ("SELECT @a, @b, @@autocommit", 0),
                ("SELECT LAST_INSERT_ID(), ROW_COUNT()", 0),
                ("COMMIT", 0),
                ("CALL gp2(?)", 1),
                ("SELECT nope", 2),
                ("SELECT id FROM h", 0),
            ][self.n(11) as usize];
            self.prepared[at].push(kind);
            return Act::Prepare(text.to_owned());
        }
        let statement = self.n(count) as usize;
        match self.n(12) {
            0 => Act::Close(statement),
            1 => Act::ResetStatement(statement),
            _ => {
                let params = if self.prepared[at][statement] == 1 { vec![self.param()] } else { Vec::new() };
                Act::Execute { statement, params, cursor: false }
            }
        }
    }

    fn param(&mut self) -> Param {
        match self.n(6) {
            0 => Param::Null,
            1 => Param::Text("7".into()),
            _ => Param::Int(self.n(5) as i64),
        }
    }

    fn statement(&mut self) -> String {
        match self.n(100) {
            0..=9 => format!("SELECT {}", self.exprs()),
            10..=19 => self.select(),
            20..=32 => self.write(),
            33..=46 => self.set(),
            47..=59 => self.transaction(),
            60..=69 => self.asked(),
            70..=77 => self.code(),
            78..=83 => self.named(),
            84..=88 => self.temporary(),
            89..=92 => self.locks(),
            93..=96 => self.wrong(),
            _ => self
                .random
                .one(&["USE test", "DO 1", "-- nothing", "SET ROLE NONE", "SELECT DATABASE()", "SELECT CURRENT_ROLE()"])
                .to_owned(),
        }
    }

    fn expr(&mut self, depth: u64) -> String {
        if depth == 0 || self.n(3) == 0 {
            let own = self.n(40);
            return match self.n(9) {
                0 => own.to_string(),
                1 => "'x'".to_owned(),
                2 => "2.50".to_owned(),
                3 => "NULL".to_owned(),
                4 => "1e1".to_owned(),
                5 => format!("'{own}'"),
                _ => self.random.one(&["@a", "@b", "@c", "@x", "@fx", "@tr", "@o", "@d"]).to_owned(),
            };
        }
        let (a, b) = (self.number(depth - 1), self.number(depth - 1));
        match self.n(9) {
            0 => format!("{a} + {b}"),
            1 => format!("{a} - {b}"),
            2 => format!("{a} * {b}"),
            3 => format!("{a} = {b}"),
            4 => format!("{a} < {b}"),
            5 => format!("({a}) IS NULL"),
            6 => format!("CONCAT('k', {}, 'z')", self.n(50)),
            7 => format!("@q := {}", self.n(50)),
            _ => self
                .random
                .one(&[
                    "@@autocommit",
                    "@@sql_select_limit",
                    "@@wait_timeout",
                    "@@unique_checks",
                    "@@sort_buffer_size",
                    "@@time_zone",
                    "@@session.foreign_key_checks",
                    "@@collation_connection",
                    "@@character_set_client",
                    "@@group_concat_max_len",
                ])
                .to_owned(),
        }
    }

    fn number(&mut self, depth: u64) -> String {
        match (depth, self.n(3)) {
            (0, _) | (_, 0) => self.n(30).to_string(),
            (_, 1) => "1.5".to_owned(),
            _ => format!("({} + {})", self.n(9), self.n(9)),
        }
    }

    fn exprs(&mut self) -> String {
        let count = 1 + self.n(3);
        (0..count).map(|_| self.expr(2)).collect::<Vec<_>>().join(", ")
    }

    fn filter(&mut self) -> String {
        let n = self.n(8);
        match self.n(5) {
            0 => String::new(),
            1 => format!(" WHERE a > {n}"),
            2 => " WHERE a IS NULL".to_owned(),
            _ => format!(" WHERE id = {}", 1 + n % 4),
        }
    }

    fn select(&mut self) -> String {
        let what = self.random.one(&["*", "id, a", "a + 1", "COUNT(*)", "SUM(a)", "s", "id, @a"]).to_owned();
        let mut made = format!(
            "SELECT {}{what} FROM g{}",
            if self.n(8) == 0 { "SQL_CALC_FOUND_ROWS " } else { "" },
            self.filter()
        );
        match self.n(5) {
            0 if !what.contains('(') => made += " ORDER BY id DESC",
            1 => made += " ORDER BY id",
            _ => {}
        }
        if what.contains('(') && made.contains("ORDER") {
            made = made.replace(" ORDER BY id", "");
        }
        if self.n(3) == 0 {
            made += &format!(" LIMIT {}", self.n(3));
        }
        if self.n(10) == 0 && !what.contains('(') {
            made += " FOR UPDATE";
        }
        made
    }

    fn write(&mut self) -> String {
        let n = self.n(40);
        match self.n(16) {
            0..=2 => format!("INSERT INTO g(a, s) VALUES({n}, 'i')"),
            3 => format!("INSERT INTO g(a) VALUES({n}), ({n} + 1), (NULL)"),
            4 => format!("INSERT INTO g VALUES({}, {n}, 'e')", 1 + n % 12),
            5 => format!("INSERT IGNORE INTO g VALUES({}, {n}, 'e'), (NULL, 1, 'f')", 1 + n % 5),
            6 => format!("INSERT INTO g VALUES({}, 0, 'd') ON DUPLICATE KEY UPDATE a = a + {}", 1 + n % 6, n % 2),
            7 => format!("REPLACE INTO g VALUES({}, {n}, 'r')", 1 + n % 6),
            8 => format!("UPDATE g SET a = a + {}{}", n % 2, self.filter()),
            9 => format!("UPDATE g SET a = LAST_INSERT_ID({n}) WHERE id = {}", 1 + n % 3),
            10 => format!("DELETE FROM g WHERE id = {}", 1 + n % 4),
            11 => format!("INSERT INTO h(n) VALUES({n})"),
            12 => format!("UPDATE h SET n = n + {} WHERE id = {}", n % 2, 1 + n % 2),
            13 => format!("DELETE FROM h WHERE id = {}", 1 + n % 2),
            14 if self.maria => format!("INSERT INTO g(a) VALUES({n}) RETURNING id, a"),
            _ => "INSERT INTO h() VALUES()".to_owned(),
        }
    }

    fn set(&mut self) -> String {
        let n = self.n(50);
        let scope = self.random.one(&["", "", "SESSION ", "@@", "@@session.", "LOCAL "]).to_owned();
        match self.n(16) {
            0..=2 => format!("SET @{} = {}", self.random.one(&["a", "b", "c"]).to_owned(), self.expr(1)),
            3 => format!("SET @a = {n}, {scope}wait_timeout = {}", 10 + n),
            4 => format!("SET {scope}sql_select_limit = {}", 1 + n % 4),
            5 => "SET sql_select_limit = DEFAULT".to_owned(),
            6 => format!(
                "SET {scope}sql_mode = '{}'",
                self.random
                    .one(&[
                        "ANSI_QUOTES,STRICT_TRANS_TABLES",
                        "NO_BACKSLASH_ESCAPES,STRICT_TRANS_TABLES",
                        "STRICT_TRANS_TABLES,PIPES_AS_CONCAT"
                    ])
                    .to_owned()
            ),
            7 => "SET sql_mode = DEFAULT".to_owned(),
            8 => format!(
                "SET {scope}time_zone = '{}'",
                self.random.one(&["+01:00", "-3:00", "SYSTEM", "nowhere"]).to_owned()
            ),
            9 => format!(
                "SET NAMES {}",
                self.random
                    .one(&["utf8mb4", "latin1", "utf8mb4 COLLATE utf8mb4_bin", "DEFAULT", "bogus", "'latin1'"])
                    .to_owned()
            ),
            10 => format!("SET {scope}foreign_key_checks = {}, {scope}unique_checks = {}", n % 2, n % 3),
            11 => format!(
                "SET {scope}{} = {n}1",
                self.random.one(&["insert_id", "last_insert_id", "identity"]).to_owned()
            ),
            12 => format!(
                "SET {scope}{} = {n}",
                self.random.one(&["group_concat_max_len", "net_read_timeout", "auto_increment_offset"]).to_owned()
            ),
            13 => format!(
                "SET {scope}collation_connection = {}",
                self.random.one(&["utf8mb4_bin", "latin1_swedish_ci", "utf8mb4_general_ci"]).to_owned()
            ),
            14 => format!(
                "SET {scope}lc_time_names = '{}', {scope}net_read_timeout = {n}1",
                self.random.one(&["de_DE", "en_US", "xx"]).to_owned()
            ),
            _ => format!("SET CHARACTER SET {}", self.random.one(&["utf8mb4", "latin1"]).to_owned()),
        }
    }

    fn transaction(&mut self) -> String {
        self.random
            .one(&[
                "BEGIN",
                "BEGIN",
                "START TRANSACTION",
                "START TRANSACTION READ ONLY",
                "START TRANSACTION WITH CONSISTENT SNAPSHOT",
                "START TRANSACTION READ WRITE",
                "COMMIT",
                "COMMIT",
                "COMMIT",
                "ROLLBACK",
                "ROLLBACK",
                "COMMIT AND CHAIN",
                "ROLLBACK AND CHAIN",
                "SAVEPOINT s1",
                "ROLLBACK TO s1",
                "RELEASE SAVEPOINT s1",
                "SET TRANSACTION READ ONLY",
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ WRITE",
                "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
                "SET SESSION TRANSACTION READ WRITE",
                "SET autocommit = 0",
                "SET autocommit = 1",
                "SET @@autocommit = 1",
                "SET @@session.autocommit = 0",
                "SET completion_type = CHAIN",
                "SET completion_type = 0",
            ])
            .to_owned()
    }

    fn asked(&mut self) -> String {
        self.random
            .one(&[
                "SELECT LAST_INSERT_ID(), ROW_COUNT()",
                "SELECT FOUND_ROWS()",
                "SELECT ROW_COUNT()",
                "SELECT @@identity, @@last_insert_id, @@insert_id",
                "SELECT @@warning_count, @@error_count",
                "SHOW WARNINGS",
                "SHOW WARNINGS",
                "SHOW ERRORS",
                "SHOW COUNT(*) WARNINGS",
                "SHOW VARIABLES LIKE 'autocommit'",
                "SHOW SESSION VARIABLES LIKE 'sql_mode'",
                "SHOW GLOBAL VARIABLES LIKE 'wait_timeout'",
                "SELECT @a, @b, @c",
                "SELECT @q",
                "SELECT @x, @fx, @tr, @o, @d",
                "SELECT LAST_INSERT_ID(5), LAST_INSERT_ID()",
                "SELECT @@sql_mode, @@time_zone, @@lc_time_names",
                "SELECT @@character_set_client, @@character_set_results, @@collation_connection",
                "SELECT @@sort_buffer_size, @@unique_checks, @@foreign_key_checks",
                "SELECT 7 INTO @a",
                "SELECT a INTO @b FROM g WHERE id = 1",
            ])
            .to_owned()
    }

    fn code(&mut self) -> String {
        let n = self.n(9);
        match self.n(12) {
            0 | 1 => "CALL gp1()".to_owned(),
            2 => format!("CALL gp2({n})"),
            3 => "CALL gp3()".to_owned(),
            4 => "CALL gp4()".to_owned(),
            5 => "CALL gp5()".to_owned(),
            6 => format!("SELECT gf1({n})"),
            7 => "SELECT gf2()".to_owned(),
            8 => "SELECT gf3()".to_owned(),
            9 => format!("SET @b = gf1({n})"),
            10 => format!("DO gf1({n})"),
            _ => format!("SELECT id, gf1(id) FROM g WHERE id < {n}"),
        }
    }

    fn named(&mut self) -> String {
        let own = self.random.one(&["p1", "p2"]).to_owned();
        match self.n(8) {
            0 => format!("PREPARE {own} FROM 'SELECT ?, @a'"),
            1 => format!("PREPARE {own} FROM 'INSERT INTO g(a) VALUES(?)'"),
            2 => format!("PREPARE {own} FROM 'SELECT id FROM g WHERE id = ?'"),
            3 | 4 => format!("EXECUTE {own} USING @a"),
            5 => format!("EXECUTE {own}"),
            6 => format!("DEALLOCATE PREPARE {own}"),
            _ if self.maria => "EXECUTE IMMEDIATE 'SET @c=5'".to_owned(),
            _ => format!("PREPARE {own} FROM 'SELEC'"),
        }
    }

    fn temporary(&mut self) -> String {
        self.random
            .one(&[
                "CREATE TEMPORARY TABLE tt(id INT PRIMARY KEY AUTO_INCREMENT, a INT)",
                "CREATE TEMPORARY TABLE IF NOT EXISTS tt(id INT PRIMARY KEY AUTO_INCREMENT, a INT)",
                "INSERT INTO tt(a) VALUES(1), (2)",
                "INSERT INTO tt VALUES(1, 1)",
                "SELECT * FROM tt",
                "UPDATE tt SET a = a + 1",
                "DROP TEMPORARY TABLE tt",
                "DROP TEMPORARY TABLE IF EXISTS tt",
            ])
            .to_owned()
    }

    fn locks(&mut self) -> String {
        let which = self.n(2);
        let name = format!("k{}-{which}", self.seed);
        match self.n(8) {
            0 | 1 => format!("SELECT GET_LOCK('{name}', 0)"),
            2 => format!("DO GET_LOCK('{name}', 5)"),
            3 => format!("SELECT RELEASE_LOCK('{name}')"),
            4 => format!("SELECT IS_USED_LOCK('{name}') = CONNECTION_ID(), IS_FREE_LOCK('{name}')"),
            5 => "SELECT RELEASE_ALL_LOCKS()".to_owned(),
            6 => "LOCK TABLES g READ".to_owned(),
            _ => "UNLOCK TABLES".to_owned(),
        }
    }

    fn wrong(&mut self) -> String {
        self.random
            .one(&[
                "SELECT nope FROM g",
                "SELECT * FROM nope",
                "SELEC 1",
                "SELECT 'x' + 1",
                "INSERT INTO g(a) VALUES('abc')",
                "INSERT INTO g(a) VALUES(1, 2)",
                "INSERT INTO g(s) VALUES('far too long to fit')",
                "UPDATE g SET a = 99999999999 WHERE id = 1",
                "SET bogus = 1",
                "SET wait_timeout = 'x'",
                "SET wait_timeout = 0",
                "CALL nope()",
                "SELECT nope()",
                "SELECT @@bogus",
                "DROP TABLE IF EXISTS nope",
                "DROP TABLE nope",
                "USE nope",
            ])
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_script_again() {
        assert_eq!(conversation(7, true, 2, 50), conversation(7, true, 2, 50));
        assert_ne!(conversation(7, true, 2, 50), conversation(8, true, 2, 50));
    }
}
