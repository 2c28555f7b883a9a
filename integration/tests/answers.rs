//! What is asked about the last statements is the client's own, whoever else used the server session: LAST_INSERT_ID(), warnings, counts.
//! The oracle is the server: two clients, each with a connection of its own.

use std::time::{Duration, Instant};

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, MariaDb, MySql};
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};

use Step::{Command, Disturb, Prepare, Prepared, Sql};

enum Server {
    MariaDb(std::sync::MutexGuard<'static, MariaDb>),
    MySql(std::sync::MutexGuard<'static, MySql>),
}

/// A belay with few server connections, and the address of the server itself.
struct Stage {
    server: Server,
    belay: Belay,
    address: String,
    _dir: Scratch,
}

impl Stage {
    fn new(server: Server, options: impl FnOnce(Options) -> Options) -> Result<Stage> {
        let node = match &server {
            Server::MariaDb(server) => server.address(),
            Server::MySql(server) => server.address(),
        };
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = options(Options::new([node])).set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
        let mut stage = Stage { server, belay, address: format!("unix:{path}"), _dir: dir };
        if direct() {
            stage.address = stage.oracle();
        }
        Ok(stage)
    }

    /// One on each kind of server, with so many server connections.
    fn each(server_connections_max: usize) -> Result<[Stage; 2]> {
        let few = |options: Options| options.server_connections_max(server_connections_max);
        Ok([Stage::new(Server::MariaDb(shared::mariadb()?), few)?, Stage::new(Server::MySql(shared::mysql()?), few)?])
    }

    fn oracle(&self) -> String {
        match &self.server {
            Server::MariaDb(server) => server.address(),
            Server::MySql(server) => format!("unix:{}", server.socket().display()),
        }
    }

    fn client(&self) -> Result<Wire> {
        Ok(Wire::login(&self.address, &Login::new(APP, APP).schema("test"))?)
    }

    /// Until no client keeps a server session.
    fn wait_for_no_pin(&self) -> Result<()> {
        wait_for("the end of all pins", Duration::from_secs(20), || {
            (self.belay.metrics().ok()?.sum("belay_pinned", &[]) == 0.0).then_some(())
        })
    }

    fn wait_for_server_sessions(&self, count: f64) -> Result<()> {
        wait_for("so many server sessions", Duration::from_secs(20), || {
            let now = self.belay.metrics().ok()?.sum("belay_server_connections", &[]);
            (direct() || now == count).then_some(())
        })
    }

    fn same(&mut self, steps: &[Step<'_>]) -> Result<()> {
        assert_same(&self.oracle(), &self.address, &Login::new(APP, APP).schema("test"), steps)?;
        self.belay.assert_healthy()
    }
}

/// Makes an id of its own on every server session, by another client.
const OTHERS: Step<'static> = Disturb("INSERT INTO oth (v) VALUES (1)");
const ID: Step<'static> = Sql("SELECT LAST_INSERT_ID(), @@identity, @@last_insert_id");

#[test]
fn a_statement_that_makes_no_id_leaves_the_client_s_own() -> Result<()> {
    for mut stage in Stage::each(1)? {
        let maria = matches!(stage.server, Server::MariaDb(_));
        let mut steps = vec![
            Sql("DROP TABLE IF EXISTS ids, oth"),
            Sql("CREATE TABLE ids (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE)"),
            Sql("CREATE TABLE oth (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 700"),
        ];
        let written = [
            Sql("INSERT INTO ids (id, v) VALUES (50, 50)"),
            Sql("INSERT INTO ids (id, v) VALUES (50, 51) ON DUPLICATE KEY UPDATE v = 52"),
            Sql("REPLACE INTO ids (id, v) VALUES (50, 53)"),
            Prepared("INSERT INTO ids (id, v) VALUES (?, ?)", &["60", "60"]),
            Sql("PREPARE p FROM 'INSERT INTO ids (id, v) VALUES (61, 61)'"),
            Sql("EXECUTE p"),
            Sql("INSERT INTO ids (id, v) VALUES (61, 61)"),
            Sql("UPDATE ids SET v = LAST_INSERT_ID(v + 1000) WHERE id = 99999"),
        ];
        // First as one who never made any, then as one who has.
        for own in [None, Some("INSERT INTO ids (v) VALUES (7)")] {
            steps.extend(own.map(Sql));
            for write in &written {
                steps.extend([OTHERS, write.clone(), OTHERS, ID]);
            }
            for set in [
                "SELECT LAST_INSERT_ID(5)",
                "UPDATE ids SET v = LAST_INSERT_ID(v + 1000) WHERE id >= 60",
                "SET last_insert_id = 6",
                "SET @@identity = 7",
                "SELECT LAST_INSERT_ID(0)",
            ] {
                // It does not pin: the other one would wait in vain.
                steps.extend([OTHERS, Sql(set), OTHERS, ID, OTHERS, Sql("SHOW VARIABLES LIKE 'last_insert_id'")]);
                steps.extend([
                    OTHERS,
                    Sql("UPDATE ids SET v = -v"),
                    Sql("SELECT LAST_INSERT_ID(v) FROM ids LIMIT 0"),
                    ID,
                ]);
            }
            steps.push(Sql("DELETE FROM ids WHERE id >= 50"));
            if maria {
                for block in [
                    "EXECUTE IMMEDIATE 'REPLACE INTO ids (id, v) VALUES (62, 62)'",
                    "BEGIN NOT ATOMIC REPLACE INTO ids (id, v) VALUES (63, 63); END",
                ] {
                    // They pin until the reset.
                    steps.extend([OTHERS, Sql(block), ID, Command(0x1f), ID]);
                }
            }
        }
        steps.push(Sql("DROP TABLE ids, oth"));
        stage.same(&steps)?;
    }
    Ok(())
}

/// Code that the text does not show reads the client's own id too: of a trigger, of a function, of `IS NULL` where the session wants it so.
#[test]
fn code_out_of_sight_finds_the_client_s_own_id() -> Result<()> {
    for mut stage in Stage::each(1)? {
        let mut steps = vec![
            Sql("DROP TABLE IF EXISTS ids, oth, seen"),
            Sql("DROP PROCEDURE IF EXISTS names_id"),
            Sql("DROP FUNCTION IF EXISTS reads_id"),
            Sql("CREATE TABLE ids (id INT AUTO_INCREMENT PRIMARY KEY, v INT)"),
            Sql("CREATE TABLE oth (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 700"),
            Sql("CREATE TABLE seen (v INT)"),
            Sql("CREATE TRIGGER sees BEFORE UPDATE ON ids FOR EACH ROW INSERT INTO seen VALUES (LAST_INSERT_ID())"),
            Sql("INSERT INTO ids (v) VALUES (1), (2)"),
        ];
        steps.extend([OTHERS, Sql("UPDATE ids SET v = v + 1"), OTHERS, Sql("SELECT DISTINCT v FROM seen"), ID]);
        for routine in [
            "CREATE PROCEDURE names_id() INSERT INTO ids (id, v) VALUES (77, 77)",
            "CREATE FUNCTION reads_id() RETURNS INT READS SQL DATA RETURN LAST_INSERT_ID()",
        ] {
            steps.push(Sql(routine));
        }
        // They pin until the reset: nobody else could go on behind them.
        for pins in ["CALL names_id()", "SELECT reads_id()"] {
            steps.extend([Sql("DELETE FROM ids"), Sql("INSERT INTO ids (v) VALUES (3)"), OTHERS, Sql(pins), ID]);
            steps.extend([Command(0x1f), OTHERS, ID]);
        }
        steps.extend([Sql("DROP PROCEDURE names_id"), Sql("DROP FUNCTION reads_id")]);
        steps.extend([
            Sql("DELETE FROM ids"),
            OTHERS,
            Sql("SET sql_auto_is_null = 1"),
            Sql("SELECT v FROM oth WHERE id IS NULL"),
        ]);
        steps.extend([Command(0x1f), OTHERS, Sql("DROP TABLE ids, oth, seen")]);
        stage.same(&steps)?;
    }
    Ok(())
}

/// The server session that alone knows an id is closed, reset for another, or makes place: it is asked before.
#[test]
fn an_id_outlives_its_server_session() -> Result<()> {
    for maria in [true, false] {
        let server = if maria { Server::MariaDb(shared::mariadb()?) } else { Server::MySql(shared::mysql()?) };
        let soon = |options: Options| {
            options.server_connections_max(1).set("pool", "idle_timeout_ms", 1000).set(
                "pool",
                "server_connections_min",
                0,
            )
        };
        let mut stage = Stage::new(server, soon)?;
        let mut a = stage.client()?;
        a.query("DROP TABLE IF EXISTS ids")?;
        a.query("CREATE TABLE ids (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 41")?;
        // Others with other capabilities need a server session of their own.
        let other = Login::new(APP, APP).schema("test").with(caps::FOUND_ROWS);
        for (case, id) in ["evicted", "reset", "idle"].into_iter().zip(41..) {
            a.query("INSERT INTO ids (v) VALUES (1)")?;
            match case {
                "evicted" => {
                    Wire::login(&stage.address, &other)?.query("SELECT 1")?;
                }
                "reset" => {
                    stage.client()?.command(0x1f, b"")?;
                }
                _ => {
                    for left in [1.0, 0.0] {
                        stage.wait_for_server_sessions(left)?;
                    }
                }
            }
            assert_eq!(a.text("SELECT LAST_INSERT_ID()")?, id.to_string(), "{case}");
        }
        a.query("DROP TABLE ids")?;
        stage.belay.assert_healthy()?;
    }
    Ok(())
}

/// Uses a table on every server session, by another client: it clears the messages there.
const USES: Step<'static> = Disturb("DELETE FROM oth");
/// Uses none: on MariaDB the messages that were there stay.
const IDLES: Step<'static> = Disturb("SELECT 1");
const TABLES: [Step<'static>; 3] = [
    Sql("DROP TABLE IF EXISTS msg, oth"),
    Sql("CREATE TABLE msg (id INT PRIMARY KEY, v TINYINT)"),
    Sql("CREATE TABLE oth (v INT)"),
];

#[test]
fn the_messages_of_a_client_outlive_that_others_use_its_server_session() -> Result<()> {
    let makes = [
        Sql("INSERT IGNORE INTO msg VALUES (1, 1000), (2, 1), (3, 4000)"),
        Sql("INSERT INTO msg VALUES (1, 1)"),
        Sql("SELECT nothing_of_this_name"),
        Sql("SELECT 1/0, 'x' + 1"),
        Prepared("SELECT 1/0", &[]),
        Prepared("INSERT INTO msg VALUES (1, ?)", &["1"]),
        Sql("DROP TABLE IF EXISTS nowhere, nowhere_else"),
    ];
    let asks = [
        Sql("SHOW WARNINGS"),
        Sql("SHOW ERRORS"),
        Sql("SHOW COUNT(*) WARNINGS"),
        Sql("SHOW COUNT(*) ERRORS"),
        Sql("SHOW WARNINGS LIMIT 1"),
        Sql("SHOW WARNINGS LIMIT 1, 5"),
        Sql("SHOW ERRORS LIMIT 0"),
        Sql("SELECT @@error_count, @@warning_count"),
        Sql("SHOW WARNINGS"),
        Prepared("SELECT @@warning_count", &[]),
    ];
    for mut stage in Stage::each(1)? {
        let mut steps = TABLES.to_vec();
        for other in [USES, IDLES] {
            for make in &makes {
                for keeps in [None, Some("SELECT 1"), Some("SET @x = 1"), Some("SELECT v FROM msg WHERE id = 1")] {
                    steps.extend([Sql("DELETE FROM msg WHERE id <> 1"), make.clone(), other.clone()]);
                    steps.extend(keeps.map(Sql));
                    for ask in &asks {
                        steps.extend([other.clone(), ask.clone()]);
                    }
                }
            }
        }
        steps.push(Sql("DROP TABLE msg, oth"));
        stage.same(&steps)?;
    }
    Ok(())
}

#[test]
fn nobody_reads_the_messages_of_another() -> Result<()> {
    for mut stage in Stage::each(1)? {
        let (mut a, mut b) = (stage.client()?, stage.client()?);
        b.query("DROP TABLE IF EXISTS msg")?;
        b.query("CREATE TABLE msg (id INT PRIMARY KEY, secret CHAR(20) UNIQUE)")?;
        b.query("INSERT INTO msg VALUES (1, 'of b')")?;
        let questions =
            ["SHOW WARNINGS", "SHOW ERRORS", "SHOW COUNT(*) WARNINGS", "SELECT @@error_count, @@warning_count"];
        for leaves in [false, true] {
            for question in questions {
                // B idles with its error, or has gone on to a statement that leaves it where it is (MariaDB), or to one of a client that goes.
                let mut c = stage.client()?;
                assert_eq!(c.query("INSERT INTO msg VALUES (2, 'of b')").unwrap_err().code(), 1062);
                if leaves {
                    c.query("SELECT 1")?;
                    drop(c);
                }
                a.query("SELECT 1")?;
                let told = a.query(question)?.rows().texts();
                assert!(told.iter().flatten().all(|value| value == "0"), "{question}: {told:?}");
                a.query("GET DIAGNOSTICS @n = NUMBER")?;
                assert_eq!(a.text("SELECT @n")?, "0", "{question}");
            }
        }
        b.query("DROP TABLE msg")?;
        stage.belay.assert_healthy()?;
    }
    Ok(())
}

/// Whoever waits gets the server session of a client that keeps it for its warnings, its count, or what it has set for its next transaction.
#[test]
fn a_client_that_idles_with_warnings_is_in_nobodys_way() -> Result<()> {
    for mut stage in Stage::each(2)? {
        let (mut a, mut b, mut c) = (stage.client()?, stage.client()?, stage.client()?);
        c.query("SELECT 1")?;
        let mut worst = Duration::ZERO;
        for round in 0..12 {
            for keeper in [&mut a, &mut b] {
                match round % 4 {
                    0 => assert_eq!(keeper.query("SELECT nothing_of_this_name").unwrap_err().code(), 1054),
                    1 => assert_eq!(keeper.query("SELECT 1/0")?.rows().warnings, 1),
                    2 => {
                        keeper.query("SELECT SQL_CALC_FOUND_ROWS id FROM shop.item LIMIT 1")?;
                    }
                    _ => {
                        keeper.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")?;
                    }
                }
            }
            let started = Instant::now();
            assert_eq!(c.text("SELECT 3")?, "3");
            worst = worst.max(started.elapsed());
            for keeper in [&mut a, &mut b] {
                match round % 4 {
                    3 => {
                        keeper.query("COMMIT")?;
                    }
                    2 => assert_ne!(keeper.text("SELECT FOUND_ROWS()")?, "1"),
                    _ => assert_eq!(keeper.query("SHOW WARNINGS")?.rows().rows.len(), 1),
                }
            }
        }
        // It took one to two seconds where belay waited for the pin to end by itself.
        assert!(direct() || worst < Duration::from_millis(500), "{worst:?}");
        stage.belay.assert_healthy()?;
    }
    Ok(())
}

/// What a client asks after a pause, in which its pin has ended by itself, is what it would hear of a server of its own.
#[test]
fn what_was_not_asked_in_time_is_known_all_the_same() -> Result<()> {
    let cases = [
        ("INSERT IGNORE INTO msg VALUES (1, 1000), (2, 4000)", "SHOW WARNINGS"),
        ("SELECT SQL_CALC_FOUND_ROWS id FROM shop.item LIMIT 1", "SELECT FOUND_ROWS()"),
        ("SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SHOW WARNINGS"),
    ];
    for maria in [true, false] {
        let server = if maria { Server::MariaDb(shared::mariadb()?) } else { Server::MySql(shared::mysql()?) };
        let soon = |options: Options| options.server_connections_max(2).set("session", "diagnostics_pin_ms", 0);
        let mut stage = Stage::new(server, soon)?;
        let (mut wire, mut other) = (stage.client()?, stage.client()?);
        let mut oracle = Wire::login(&stage.oracle(), &Login::new(APP, APP).schema("test"))?;
        for table in ["DROP TABLE IF EXISTS msg", "CREATE TABLE msg (id INT PRIMARY KEY, v TINYINT)"] {
            wire.query(table)?;
        }
        for (makes, asks) in cases {
            for wire in [&mut oracle, &mut wire] {
                wire.query("DELETE FROM msg")?;
                wire.query(makes)?;
                if makes.contains("msg") {
                    // The other one of the two inserts the same rows.
                    wire.query("SET @x = 1")?;
                }
            }
            stage.wait_for_no_pin()?;
            other.query("SELECT 1")?;
            let (found, expected) = (wire.query(asks)?.rows().texts(), oracle.query(asks)?.rows().texts());
            assert_eq!(found, expected, "{makes}: {asks}");
        }
        wire.query("DROP TABLE msg")?;
        stage.belay.assert_healthy()?;
    }
    Ok(())
}

#[test]
fn a_reset_ends_messages_and_a_prepare_makes_some() -> Result<()> {
    for mut stage in Stage::each(1)? {
        let mut steps = TABLES.to_vec();
        // MySQL warns of FOUND_ROWS() itself, and not of the number in its place.
        let last = if matches!(stage.server, Server::MariaDb(_)) { "SELECT FOUND_ROWS()" } else { "SHOW ERRORS" };
        for ask in ["SHOW WARNINGS", "SELECT ROW_COUNT()", "SELECT @@error_count", "SHOW COUNT(*) WARNINGS", last] {
            let counts = Sql("SELECT SQL_CALC_FOUND_ROWS 1 UNION SELECT 2 UNION SELECT 3 LIMIT 1");
            steps.extend([counts.clone(), Sql("SELECT nothing_of_this_name"), USES, Command(0x1f), USES, Sql(ask)]);
            steps.extend([Sql("SELECT 1/0"), Command(0x1f), Sql(ask), counts, Command(0x1f), Sql(ask)]);
        }
        for sql in ["SELECT nothing_of_this_name", "SELECT 1 FROM msg WHERE v = _latin1'x' COLLATE utf8mb4_bin"] {
            steps.extend([Prepared(sql, &[]), USES, Sql("SHOW WARNINGS"), USES, Sql("SELECT ROW_COUNT()")]);
        }
        // With the warning of a PREPARE: MariaDB gives one for an obsolete type, MySQL for an obsolete function.
        for sql in [
            "SELECT CONVERT(v, CHAR CHARACTER SET utf8) FROM msg",
            "SELECT SQL_CALC_FOUND_ROWS v FROM msg",
            "SELECT v && 1 FROM msg",
        ] {
            steps.extend([Prepare(sql), USES, Sql("SHOW WARNINGS")]);
        }
        steps.push(Sql("DROP TABLE msg, oth"));
        stage.same(&steps)?;
    }
    Ok(())
}

/// A statement that was prepared elsewhere is prepared again before it runs, which must not cost the warnings that it asks for.
#[test]
fn what_belay_says_in_between_does_not_clear_messages() -> Result<()> {
    for mut stage in Stage::each(2)? {
        let mut steps = TABLES.to_vec();
        // MySQL prepares no such question.
        let asks = if matches!(stage.server, Server::MariaDb(_)) { "SELECT @@warning_count" } else { "SELECT 2" };
        steps.extend([Prepare(asks), Prepare("SELECT 1 + ?"), Sql("INSERT INTO oth VALUES (1)")]);
        for (number, params) in [(0, &[][..]), (1, &["2"])] {
            // The other one has the server session where it was prepared.
            steps.extend([Disturb("BEGIN"), Sql("SELECT 1/0"), Step::Execute(number, params), Sql("SHOW WARNINGS")]);
            steps.extend([Sql("SELECT @@warning_count"), Disturb("COMMIT")]);
        }
        steps.push(Sql("DROP TABLE msg, oth"));
        stage.same(&steps)?;
    }
    Ok(())
}
