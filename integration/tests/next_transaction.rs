//! What SET TRANSACTION sets is for the client's next transaction and for no other: through the death of the node, on another server session, and
//! never for another client.

use std::time::Duration;

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::faults::{Act, Fault, Faults, Point};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, MySql};
use belay_integration::wire::{Login, Reply, Wire, WireError, WireResult};
use belay_integration::{Result, shared};

/// ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION
const READ_ONLY: u16 = 1792;

fn login(through: &str) -> Result<Wire> {
    Ok(Wire::login(through, &Login::new(APP, APP).schema("test"))?)
}

/// belay on a unix socket, over which MySQL's passwords may pass.
struct Stage {
    belay: Belay,
    through: String,
    _dir: Scratch,
}

impl Stage {
    fn new(options: Options) -> Result<Stage> {
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = options.set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
        Ok(Stage { belay, through: format!("unix:{path}"), _dir: dir })
    }

    fn client(&self) -> Result<Wire> {
        login(&self.through)
    }

    fn pinned(&self, reason: &str) -> Result<f64> {
        Ok(self.belay.metrics()?.sum("belay_pinned", &[&format!("reason=\"{reason}\"")]))
    }
}

fn code(answer: WireResult<Reply>) -> u16 {
    answer.err().map_or(0, |error| error.code())
}

/// A text, said as such or prepared and executed.
fn say(wire: &mut Wire, prepared: bool, sql: &str) -> WireResult<Reply> {
    if !prepared {
        return wire.query(sql);
    }
    let statement = match wire.prepare(sql) {
        // MySQL prepares no BEGIN.
        Err(WireError::Server { code: 1295, .. }) => return wire.query(sql),
        prepared => prepared?,
    };
    let answer = wire.execute(statement, &[]);
    wire.close_statement(statement)?;
    answer
}

/// Statements that use it up and statements that do not: as on a server, with another client in between.
fn as_on_a_server(direct: &str, stage: &mut Stage, isolation: &str) -> Result<()> {
    let probes = [
        "BEGIN",
        "COMMIT",
        "ROLLBACK",
        "SELECT 1",
        "SELECT COUNT(*) FROM shop.item",
        "SET @a = 5",
        "SET NAMES utf8mb4",
        "SHOW TABLES",
        "SHOW WARNINGS",
        "CREATE TABLE IF NOT EXISTS test.used_up (id INT PRIMARY KEY)",
        "SELECT * FROM test.not_there",
        "SELEC",
        "SELECT (SELECT 1 UNION SELECT id FROM shop.item)",
        "INSERT INTO used_up VALUES (1)",
        "USE test",
        "LOCK TABLES used_up READ",
        "UNLOCK TABLES",
        "SELECT id FROM shop.item LIMIT 0",
        "SET autocommit = 0",
        "SET TRANSACTION READ WRITE",
        "START TRANSACTION READ WRITE",
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "DO 0",
        "COMMIT AND CHAIN",
    ];
    let bare = format!("SET @@{isolation} = 'SERIALIZABLE'");
    let mut steps = vec![Step::Sql("CREATE TABLE IF NOT EXISTS test.used_up (id INT PRIMARY KEY)")];
    for probe in probes {
        for sets in ["SET TRANSACTION READ ONLY", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY"] {
            for sql in [
                sets,
                probe,
                "DELETE FROM used_up",
                "UNLOCK TABLES",
                "DELETE FROM used_up",
                "ROLLBACK",
                "DELETE FROM used_up",
                "ROLLBACK",
            ] {
                steps.push(Step::Sql(sql));
                steps.push(Step::Disturb("SELECT COUNT(*) FROM shop.item"));
            }
            steps.push(Step::Sql("SET autocommit = 1"));
        }
        steps.extend([Step::Prepared("SET TRANSACTION READ ONLY", &[]), Step::Prepared(probe, &[])]);
        steps.extend([Step::Sql(&bare), Step::Sql("ROLLBACK"), Step::Sql("SET autocommit = 1")]);
        // COM_RESET_CONNECTION
        steps.extend([Step::Sql("SET TRANSACTION READ ONLY"), Step::Command(0x1F), Step::Schema("test")]);
        steps.push(Step::Sql("DELETE FROM used_up"));
    }
    steps.extend([Step::Sql("BEGIN"), Step::Sql("SET TRANSACTION READ ONLY"), Step::Sql(&bare), Step::Sql("COMMIT")]);
    steps.extend([Step::Sql("DELETE FROM used_up"), Step::Sql("DROP TABLE used_up")]);
    assert_same(direct, &stage.through, &Login::new(APP, APP).schema("test"), &steps)?;
    stage.belay.assert_healthy()
}

#[test]
fn what_uses_it_up_does_so_through_belay_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    let mut stage = Stage::new(Options::new([server.address()]))?;
    as_on_a_server(&server.address(), &mut stage, "tx_isolation")
}

#[test]
fn what_uses_it_up_does_so_through_belay_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let mut stage = Stage::new(Options::new([server.address()]))?;
    as_on_a_server(&format!("unix:{}", server.socket().display()), &mut stage, "transaction_isolation")
}

/// A client whose server session is lost between SET TRANSACTION and what comes then.
struct Case {
    before: &'static [&'static str],
    /// What is said after the loss, and the number of the error it gets, 0 for none.
    after: &'static [(&'static str, u16)],
    /// The isolation level of the transaction that is open then.
    level: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case {
        before: &["SET TRANSACTION READ ONLY"],
        after: &[
            ("BEGIN", 0),
            ("INSERT INTO kept VALUES (1)", READ_ONLY),
            ("COMMIT", 0),
            ("BEGIN", 0),
            ("INSERT INTO kept VALUES (1)", 0),
        ],
        level: Some("REPEATABLE READ"),
    },
    Case {
        before: &["SET TRANSACTION READ ONLY"],
        after: &[("SELECT COUNT(*) FROM kept", 0), ("INSERT INTO kept VALUES (2)", 0)],
        level: None,
    },
    Case {
        before: &["SET TRANSACTION READ ONLY"],
        after: &[("SELECT 1", 0), ("SET @a = 5", 0), ("INSERT INTO kept VALUES (3)", READ_ONLY)],
        level: None,
    },
    Case {
        before: &["SET TRANSACTION ISOLATION LEVEL READ COMMITTED", "SET TRANSACTION READ WRITE"],
        after: &[("START TRANSACTION", 0), ("INSERT INTO kept VALUES (4)", 0)],
        level: Some("READ COMMITTED"),
    },
    Case {
        before: &[
            "SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED",
            "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE",
            "SELECT 1",
        ],
        after: &[("BEGIN", 0), ("INSERT INTO kept VALUES (5)", 0)],
        level: Some("SERIALIZABLE"),
    },
    Case {
        before: &["SET autocommit = 0", "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE"],
        after: &[("INSERT INTO kept VALUES (6)", 0)],
        level: Some("SERIALIZABLE"),
    },
    // Used up, or taken back, before the loss.
    Case {
        before: &["SET TRANSACTION READ ONLY", "SELECT COUNT(*) FROM kept"],
        after: &[("INSERT INTO kept VALUES (7)", 0)],
        level: None,
    },
    Case {
        before: &["SET TRANSACTION READ ONLY", "BEGIN", "COMMIT"],
        after: &[("BEGIN", 0), ("INSERT INTO kept VALUES (8)", 0)],
        level: Some("REPEATABLE READ"),
    },
    // Whether an error used it up no server says: told once.
    Case {
        before: &["SET TRANSACTION READ ONLY", "SELECT (SELECT 1 UNION SELECT id FROM shop.item)"],
        after: &[("INSERT INTO kept VALUES (9)", 1105), ("INSERT INTO kept VALUES (9)", 0)],
        level: None,
    },
];

/// Waits until the isolation levels of the open transactions are these.
fn assert_level(wanted: &str, levels: &mut dyn FnMut() -> Result<String>) -> Result<()> {
    let mut found = String::new();
    wait_for("the transaction's level", Duration::from_secs(10), || {
        // InnoDB shows what it has shown before unless nobody has asked for a tenth of a second.
        std::thread::sleep(Duration::from_millis(150));
        found = levels().ok()?;
        (found == wanted).then_some(())
    })
    .map_err(|e| format!("{e}: '{found}' instead of '{wanted}'").into())
}

/// `lose`: takes every server session away. `levels`: the isolation levels of the node's open transactions.
fn through_losses(
    client: &dyn Fn() -> Result<Wire>,
    lose: &mut dyn FnMut() -> Result<()>,
    levels: &mut dyn FnMut() -> Result<String>,
) -> Result<()> {
    client()?.query("DROP TABLE IF EXISTS kept")?;
    client()?.query("CREATE TABLE kept (id INT)")?;
    for (n, case) in CASES.iter().enumerate() {
        for prepared in [false, true] {
            let mut wire = client()?;
            for sql in case.before {
                let answer = say(&mut wire, prepared, sql);
                assert!(code(answer) == 0 || sql.contains("UNION"), "case {n}: {sql}");
            }
            lose()?;
            for (sql, wanted) in case.after {
                let answer = say(&mut wire, prepared, sql);
                if *wanted == 1105 {
                    let error = answer.unwrap_err();
                    assert!(error.to_string().contains("uncertain_next_transaction"), "case {n}: {error}");
                } else {
                    assert_eq!(code(answer), *wanted, "case {n}, prepared: {prepared}: {sql}");
                }
            }
            if let Some(level) = case.level {
                assert_level(level, levels).map_err(|e| format!("case {n}, prepared: {prepared}: {e}"))?;
                wire.query("ROLLBACK")?;
            }
        }
    }
    client()?.query("DROP TABLE kept")?;
    Ok(())
}

const LEVELS: &str = "SELECT COALESCE(GROUP_CONCAT(trx_isolation_level), '') FROM information_schema.innodb_trx WHERE trx_mysql_thread_id > 0";

/// The proxy before the node that belay has as its writer, when all of them serve.
fn writer<'a>(belay: &Belay, proxies: &'a [Faults]) -> Result<&'a Faults> {
    wait_for("a writer", Duration::from_secs(60), || {
        let metrics = belay.metrics().ok()?;
        let serve = metrics.sum("belay_node_state", &["state=\"serving\""]);
        let is_writer = |p: &&Faults| metrics.sum("belay_node_writer", &[&format!("node=\"{}\"", p.address())]) == 1.0;
        (serve == proxies.len() as f64).then(|| proxies.iter().find(is_writer)).flatten()
    })
}

/// The nodes behind proxies: their deaths take no second.
#[test]
fn it_follows_to_another_node_of_a_galera_cluster() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let proxies: Vec<Faults> = cluster.addresses().iter().map(|a| Faults::start(a)).collect::<Result<_>>()?;
    let mut stage = Stage::new(Options::new(proxies.iter().map(Faults::address)))?;
    let mut admins: Vec<Wire> = cluster.nodes().iter().map(|n| n.admin()).collect::<Result<_>>()?;
    let mut lose = || -> Result<()> {
        let writer = writer(&stage.belay, &proxies)?;
        writer.die()?;
        wait_for("another writer", Duration::from_secs(30), || {
            let of = format!("node=\"{}\"", writer.address());
            (stage.belay.metrics().ok()?.sum("belay_node_writer", &[&of]) == 0.0).then_some(())
        })?;
        writer.revive()?;
        Ok(())
    };
    let mut levels = || -> Result<String> {
        let mut all = String::new();
        for admin in &mut admins {
            all += &admin.text(LEVELS)?;
        }
        Ok(all)
    };
    through_losses(&|| stage.client(), &mut lose, &mut levels)?;
    stage.belay.assert_healthy()
}

#[test]
fn it_follows_to_another_server_session_of_mysql() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mysql()?;
    let proxy = Faults::start(&server.address())?;
    let mut stage = Stage::new(Options::new([proxy.address()]))?;
    let mut lose = || -> Result<()> {
        let (_, _, before) = proxy.connections();
        proxy.cut_all(true);
        // What is sent before belay has seen it is interrupted: the node lives. No pin tells that where none is left.
        wait_for("the end of all connections", Duration::from_secs(10), || {
            let (open, _, accepted) = proxy.connections();
            (accepted - open >= before).then_some(())
        })?;
        wait_for("the loss to be seen", Duration::from_secs(10), || {
            (stage.belay.metrics().ok()?.sum("belay_pinned", &[]) == 0.0).then_some(())
        })
    };
    let mut levels = || Ok(server.sql(LEVELS)?.trim().to_owned());
    through_losses(&|| stage.client(), &mut lose, &mut levels)?;
    stage.belay.assert_healthy()
}

/// The same with real deaths.
#[test]
fn it_survives_the_process_of_its_node() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let galera = Stage::new(Options::new(cluster.addresses()))?;
    galera.client()?.query("CREATE TABLE survived (id INT PRIMARY KEY AUTO_INCREMENT)")?;
    let (mut read_only, mut serializable) = (galera.client()?, galera.client()?);
    read_only.query("SET TRANSACTION READ ONLY")?;
    serializable.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")?;
    let metrics = galera.belay.metrics()?;
    let is_writer = |a: &String| metrics.sum("belay_node_writer", &[&format!("node=\"{a}\"")]) == 1.0;
    let first = cluster.addresses().iter().position(is_writer).ok_or("no writer")?;
    cluster.node_mut(first)?.kill()?;
    read_only.query("BEGIN")?;
    assert_eq!(code(read_only.query("INSERT INTO survived VALUES ()")), READ_ONLY);
    read_only.query("COMMIT")?;
    read_only.query("INSERT INTO survived VALUES ()")?;
    serializable.query("BEGIN")?;
    serializable.query("INSERT INTO survived VALUES ()")?;
    let mut admins = Vec::new();
    for n in (0..3).filter(|n| *n != first) {
        admins.push(cluster.node(n)?.admin()?);
    }
    assert_level("SERIALIZABLE", &mut || {
        Ok(admins.iter_mut().map(|admin| admin.text(LEVELS)).collect::<WireResult<Vec<_>>>()?.concat())
    })?;
    serializable.query("COMMIT")?;
    serializable.query("DROP TABLE survived")?;
    cluster.restart(first)?;

    let mut mysql = MySql::start()?;
    let stage = Stage::new(Options::new([mysql.address()]))?;
    stage.client()?.query("CREATE TABLE survived (id INT PRIMARY KEY AUTO_INCREMENT)")?;
    let mut wire = stage.client()?;
    wire.query("SET TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY")?;
    mysql.process()?.kill()?;
    mysql.restart()?;
    assert_eq!(code(wire.query("INSERT INTO survived VALUES ()")), READ_ONLY);
    wire.query("ROLLBACK")?;
    wire.query("INSERT INTO survived VALUES ()")?;
    Ok(())
}

/// The statement that begins the transaction is lost on its way: it begins elsewhere with the same characteristics; what may have been done is told.
#[test]
fn a_transaction_that_begins_twice_begins_the_same() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let proxies: Vec<Faults> = cluster.addresses().iter().map(|a| Faults::start(a)).collect::<Result<_>>()?;
    let mut stage = Stage::new(Options::new(proxies.iter().map(Faults::address)))?;
    stage.client()?.query("CREATE OR REPLACE TABLE twice (id INT)")?;
    // Other clients, on other nodes, are to find it: a node applies it when it comes to it.
    for node in cluster.nodes() {
        let mut admin = node.admin()?;
        admin.query("SET wsrep_sync_wait = 1")?;
        admin.query("SELECT 1 FROM test.twice")?;
    }
    for point in [Point::Request, Point::Answer] {
        let mut wire = stage.client()?;
        wire.query("SET TRANSACTION READ ONLY")?;
        let first = writer(&stage.belay, &proxies)?;
        first.arm(Fault::before(point, "START TRANSACTION"), Act::Die);
        wire.query("START TRANSACTION")?;
        first.wait_fired(1, Duration::from_secs(5))?;
        first.disarm();
        first.revive()?;
        assert_eq!(code(wire.query("INSERT INTO twice VALUES (1)")), READ_ONLY, "{point:?}");
        wire.query("ROLLBACK")?;
        wire.query("INSERT INTO twice VALUES (1)")?;
    }
    let mut wire = stage.client()?;
    wire.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")?;
    let first = writer(&stage.belay, &proxies)?;
    first.arm(Fault::before(Point::Answer, "INSERT INTO twice"), Act::Close);
    let error = wire.query("INSERT INTO twice VALUES (2)").unwrap_err();
    assert!(error.code() == 1105 && error.to_string().contains("next_transaction"), "{error}");
    first.disarm();
    // Used up or not: it is not set for what comes now.
    let mut admins: Vec<Wire> = cluster.nodes().iter().map(|n| n.admin()).collect::<Result<_>>()?;
    wire.query("BEGIN")?;
    wire.query("INSERT INTO twice VALUES (3)")?;
    assert_level("REPEATABLE READ", &mut || {
        Ok(admins.iter_mut().map(|admin| admin.text(LEVELS)).collect::<WireResult<Vec<_>>>()?.concat())
    })?;
    wire.query("ROLLBACK")?;
    stage.client()?.query("DROP TABLE twice")?;
    stage.belay.assert_healthy()
}

/// One server session for two clients: who set something and went to lunch gives it back clean, and finds it set again.
fn nobody_else(direct_login: &mut dyn FnMut(&str) -> Result<String>, stage: &mut Stage) -> Result<()> {
    const THREADS: &str = "SELECT GROUP_CONCAT(ID) FROM information_schema.PROCESSLIST WHERE USER = 'app'";
    let (mut one, mut other) = (stage.client()?, stage.client()?);
    other.query("CREATE TABLE lunch (id INT PRIMARY KEY AUTO_INCREMENT)")?;
    let threads = direct_login(THREADS)?;
    for completion in ["NO_CHAIN", "CHAIN", "RELEASE"] {
        one.query(&format!("SET completion_type = '{completion}'"))?;
        one.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")?;
        // Waits for the only server session.
        other.query("INSERT INTO lunch VALUES ()")?;
        other.query("BEGIN")?;
        other.query("INSERT INTO lunch VALUES ()")?;
        assert_level("REPEATABLE READ", &mut || direct_login(LEVELS))?;
        other.query("COMMIT")?;
        assert_eq!(stage.pinned("next_transaction")?, 0.0);
        one.query("BEGIN")?;
        assert_eq!(code(one.query("INSERT INTO lunch VALUES ()")), READ_ONLY, "{completion}");
        one.query("ROLLBACK AND NO CHAIN NO RELEASE")?;
        one.query("INSERT INTO lunch VALUES ()")?;
        assert_eq!(direct_login(THREADS)?, threads, "it was the same server session all the time");
    }
    // Who leaves leaves nothing behind.
    for _ in 0..20 {
        let mut leaver = stage.client()?;
        leaver.query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY")?;
        drop(leaver);
        other.query("INSERT INTO lunch VALUES ()")?;
    }
    other.query("DROP TABLE lunch")?;
    stage.belay.assert_healthy()
}

#[test]
fn nobody_else_gets_it_on_mariadb() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut stage = Stage::new(Options::new([server.address()]).server_connections_max(1))?;
    let mut admin = server.admin()?;
    nobody_else(&mut |sql| Ok(admin.text(sql)?), &mut stage)
}

#[test]
fn nobody_else_gets_it_on_mysql() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mysql()?;
    let mut stage = Stage::new(Options::new([server.address()]).server_connections_max(1))?;
    nobody_else(&mut |sql| Ok(server.sql(sql)?.trim().to_owned()), &mut stage)
}
