//! Every session variable that an ordinary account may set, in every form of SET: it follows its client, and no other client finds it. The oracle is a
//! direct connection that says the same.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, MariaDb, MySql};
use belay_integration::wire::{Login, Wire, WireError, caps};
use belay_integration::{Result, shared};
use std::time::Duration;

/// A belay in front of a server, and where to reach both. MySQL lets passwords pass unencrypted over unix sockets only.
struct Stage {
    belay: Belay,
    direct: String,
    through: String,
    _dir: Scratch,
}

impl Stage {
    fn new(node: &str, oracle: String, server_connections_max: usize) -> Result<Stage> {
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = Options::new([node])
            .server_connections_max(server_connections_max)
            .set("pool", "acquire_timeout_ms", "5000")
            .set("session", "diagnostics_pin_ms", "100")
            .set("listen", "unix_sockets", format!("[{path:?}]"))
            .start()?;
        let through = if direct() { oracle.clone() } else { format!("unix:{path}") };
        Ok(Stage { belay, direct: oracle, through, _dir: dir })
    }

    fn mariadb(server: &MariaDb, server_connections_max: usize) -> Result<Stage> {
        Stage::new(&server.address(), server.address(), server_connections_max)
    }

    fn mysql(server: &MySql, server_connections_max: usize) -> Result<Stage> {
        let socket = format!("unix:{}", server.socket().display());
        Stage::new(&server.address(), socket, server_connections_max)
    }

    fn client(&self) -> Result<Wire> {
        let login = Login::new(APP, APP).schema("test");
        Ok(Wire::login(&self.through, &login.with(caps::MULTI_STATEMENTS))?)
    }

    fn oracle(&self) -> Result<Wire> {
        let login = Login::new(APP, APP).schema("test");
        Ok(Wire::login(&self.direct, &login.with(caps::MULTI_STATEMENTS))?)
    }

    fn pinned(&self) -> Result<f64> {
        Ok(self.belay.metrics()?.sum("belay_pinned", &[]))
    }
}

/// A variable and another value for it, as SQL.
#[derive(Clone, Debug)]
struct Case {
    name: String,
    value: String,
}

/// Values that may be refused or be the same; the first that makes a difference is taken.
fn candidates(now: &str) -> Vec<String> {
    let mut values: Vec<String> = match now {
        "ON" => vec!["OFF".into()],
        "OFF" => vec!["ON".into()],
        _ => Vec::new(),
    };
    if let Ok(n) = now.parse::<u64>() {
        // Not 1 ms or 1 s of time for a statement.
        values.extend(
            if n == 0 { vec![5000, 1] } else { vec![n - 1, n / 2, n.saturating_mul(2)] }.iter().map(u64::to_string),
        );
    } else if now.parse::<f64>().is_ok() {
        values.push("77.5".into());
    }
    const WORDS: [&str; 20] = [
        "latin1",
        "latin1_bin",
        "utf8mb4_bin",
        "+03:00",
        "de_DE",
        "READ-COMMITTED",
        "ANSI",
        "MyISAM",
        "NO",
        "OFF",
        "ON",
        "1",
        "nulls_equal",
        "PREFERABLY",
        "NO_CHAIN",
        "CHAIN",
        "JSON",
        "TREE",
        "20",
        "default",
    ];
    values.extend(WORDS.iter().map(|word| format!("'{word}'")));
    values
}

/// What the account may set, by trying.
fn cases(stage: &Stage, skipped: &[&str]) -> Result<Vec<Case>> {
    let mut wire = stage.oracle()?;
    let all = wire.query("SHOW SESSION VARIABLES")?.rows().texts();
    let mut cases = Vec::new();
    for row in all {
        let [name, now] = row.as_slice() else { continue };
        if skipped.iter().chain(&NO_SETTINGS).any(|skip| skip == name)
            || ["debug", "session_track_", "wsrep_"].iter().any(|start| name.starts_with(start))
        {
            continue;
        }
        let asks = format!("SELECT @@session.{name}");
        let Ok(before) = wire.text(&asks) else { continue };
        for value in candidates(now) {
            match wire.query(&format!("SET SESSION {name} = {value}")) {
                Ok(_) if wire.text(&asks)? != before => {
                    cases.push(Case { name: name.clone(), value });
                    break;
                }
                // Global, read-only, or not for this account: so it is with every value.
                Err(WireError::Server { code: 1193 | 1227 | 1229 | 1238 | 1621, .. }) => break,
                _ => {}
            }
        }
        wire.command(0x1f, b"")?;
    }
    Ok(cases)
}

/// How a form is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Text,
    Binary,
    /// PREPARE … FROM '…' and EXECUTE, which pin until the client resets its session.
    Named,
}

/// `#` is the variable, `?` its value.
const FORMS: [&str; 10] = [
    "SET # = ?",
    "SET SESSION # = ?",
    "SET LOCAL # = ?",
    "SET @@# = ?",
    "SET @@session.# = ?",
    "SET @@local.# = ?",
    "SET sql_warnings = 1, @@# = ?",
    "SET SESSION # = ?; SET @@# = DEFAULT",
    "SET @@# = ?; SET # = DEFAULT",
    "SET @from = ?, @@# = (SELECT @from)",
];

fn say(wire: &mut Wire, sql: &str, protocol: Protocol) -> Result<Vec<u16>> {
    let code = |done: std::result::Result<belay_integration::wire::Reply, WireError>| match done {
        Ok(_) => Ok(0),
        Err(WireError::Server { code, .. }) => Ok(code),
        Err(e) => Err(format!("{sql}: {e}")),
    };
    let mut codes = Vec::new();
    match protocol {
        Protocol::Text => codes.push(code(wire.query(sql))?),
        Protocol::Binary | Protocol::Named => {
            for sql in sql.split("; ") {
                if protocol == Protocol::Named {
                    codes.push(code(wire.query(&format!("PREPARE sf FROM '{}'", sql.replace('\'', "''"))))?);
                    codes.push(code(wire.query("EXECUTE sf"))?);
                    continue;
                }
                match wire.prepare(sql) {
                    Ok(statement) => {
                        codes.push(code(wire.execute(statement, &[]))?);
                        wire.close_statement(statement)?;
                    }
                    Err(e) => codes.push(e.code()),
                }
            }
        }
    }
    quiet(wire)?;
    Ok(codes)
}

/// Ends what a warning or an error keeps for a moment.
fn quiet(wire: &mut Wire) -> Result<()> {
    wire.query("DO 0")?;
    Ok(())
}

fn look(wire: &mut Wire, asks: &str) -> Result<Vec<Vec<String>>> {
    let values = wire.query(asks)?.rows().texts();
    quiet(wire)?;
    Ok(values)
}

/// Variables of one client between two looks at all of them.
const BATCH: usize = 12;

/// With `@@` and without a scope they are for the next transaction alone.
const OF_NEXT_TRANSACTION: [&str; 4] =
    ["tx_isolation", "tx_read_only", "transaction_isolation", "transaction_read_only"];

/// Whether a variable that follows does so in this form.
fn follows(form: &str, name: &str) -> bool {
    let next_only = form.contains("@@#") && OF_NEXT_TRANSACTION.contains(&name);
    // Whether it commits can't be read in the text: that pins.
    let may_commit = name == "autocommit" && (form.contains("DEFAULT") || form.contains("SELECT"));
    !next_only && !may_commit
}

fn sweep(stage: &Stage, cases: &[Case], protocol: Protocol) -> Result<()> {
    let (mut a, mut b, mut oracle) = (stage.client()?, stage.client()?, stage.oracle()?);
    let mut faults = String::new();
    for batch in cases.chunks(BATCH) {
        let asks = format!("SELECT {}", batch.iter().map(|c| format!("@@{}", c.name)).collect::<Vec<_>>().join(", "));
        let others = look(&mut b, &asks)?;
        for form in FORMS {
            for case in batch {
                if !follows(form, &case.name) {
                    continue;
                }
                let sql = form.replace('#', &case.name).replace('?', &case.value);
                let (expected, found) = (say(&mut oracle, &sql, protocol)?, say(&mut a, &sql, protocol)?);
                if expected != found {
                    faults += &format!("\n{protocol:?} {sql}: {found:?}, not {expected:?}");
                }
                if protocol == Protocol::Named {
                    continue;
                }
                let ask = format!("SELECT @@{}", case.name);
                let at = batch.iter().position(|c| c.name == case.name).unwrap_or_default();
                let own = others.first().and_then(|row| row.get(at)).cloned().unwrap_or_default();
                let seen = match b.text(&ask) {
                    Ok(seen) => {
                        quiet(&mut b)?;
                        seen
                    }
                    Err(e) => {
                        a.command(0x1f, b"")?;
                        oracle.command(0x1f, b"")?;
                        e.to_string()
                    }
                };
                if seen != own {
                    faults += &format!("\n{protocol:?} {sql}: another client has {seen}, not {own}");
                }
            }
            let (expected, found) = (oracle.query(&asks)?.rows().texts(), a.query(&asks)?.rows().texts());
            for ((case, expected), found) in batch.iter().zip(expected.iter().flatten()).zip(found.iter().flatten()) {
                if expected != found {
                    faults += &format!("\n{protocol:?} {form} {case:?}: {found}, not {expected}");
                }
            }
            oracle.command(0x1f, b"")?;
            a.command(0x1f, b"")?;
            if look(&mut b, &asks)? != others {
                faults += &format!("\n{protocol:?} {form} {asks}: changed for another client");
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(faults.into()) }
}

fn every_form(mut stage: Stage, pins: &[&str]) -> Result<()> {
    let cases = cases(&stage, pins)?;
    assert!(cases.len() > 80, "{} variables", cases.len());
    for protocol in [Protocol::Text, Protocol::Binary, Protocol::Named] {
        sweep(&stage, &cases, protocol)?;
    }
    stage.belay.assert_healthy()
}

/// Answers, and settings that the server session of no other client takes.
const NO_SETTINGS: [&str; 2] = ["identity", "last_insert_id"];

/// What pins instead.
#[rustfmt::skip]
const PINS_ON_MARIADB: &[&str] = &[
    "character_set_database", "collation_database", "default_master_connection", "default_tmp_storage_engine",
    "gtid_domain_id", "insert_id", "max_relay_log_size", "profiling", "profiling_history_size",
    "pseudo_slave_mode", "pseudo_thread_id", "rand_seed1", "rand_seed2", "skip_parallel_replication",
    "skip_replication", "sql_auto_is_null", "sql_log_bin", "sql_log_off", "sql_slave_skip_counter", "system_versioning_asof",
    "timestamp",
];

#[rustfmt::skip]
const PINS_ON_MYSQL: &[&str] = &[
    "character_set_database", "collation_database", "external_table_secondary_storage_engine", "gtid_next",
    "insert_id", "optimizer_trace", "original_commit_timestamp", "profiling", "profiling_history_size",
    "pseudo_replica_mode", "pseudo_slave_mode", "pseudo_thread_id", "rand_seed1", "rand_seed2", "rbr_exec_mode",
    "require_row_format", "resultset_metadata", "sql_auto_is_null", "sql_log_bin", "timestamp", "transaction_allow_batching",
];

/// Each of them keeps the server session, in the forms that a server reports and in the one that MariaDB does not.
fn pins_instead(mut stage: Stage, names: &[&str]) -> Result<()> {
    if direct() {
        return Ok(());
    }
    let (mut a, mut b, mut oracle) = (stage.client()?, stage.client()?, stage.oracle()?);
    let mut pinned = 0;
    for name in names {
        let asks = format!("SELECT @@{name}");
        let now = oracle.query(&format!("SHOW SESSION VARIABLES LIKE '{name}'"))?.rows().texts();
        let Some(now) = now.first().and_then(|row| row.get(1)) else { continue };
        let values = std::iter::once("'2020-01-01 00:00:00'".to_owned()).chain(candidates(now));
        let sets = |wire: &mut Wire, value: &str| wire.query(&format!("SET SESSION {name} = {value}")).is_ok();
        let Some(value) = values.into_iter().find(|value| sets(&mut oracle, value)) else { continue };
        for form in ["SET @@# = ?", "SET SESSION # = ?"] {
            let own = b.text(&asks)?;
            let sql = form.replace('#', name).replace('?', &value);
            a.query(&sql)?;
            quiet(&mut a)?;
            assert!(stage.pinned()? > 0.0, "{sql} did not pin");
            let kept = a.text(&asks)?;
            let seen = b.text(&asks)?;
            if !name.starts_with("rand_seed") && *name != "timestamp" && *name != "pseudo_thread_id" {
                assert_eq!(seen, own, "another client after {sql}");
                assert_eq!(a.text(&asks)?, kept, "{sql}");
            }
            quiet(&mut b)?;
            a.command(0x1f, b"")?;
            assert_eq!(stage.pinned()?, 0.0, "after {sql} and a reset");
        }
        oracle.command(0x1f, b"")?;
        pinned += 1;
    }
    assert!(pinned >= 5, "{pinned} could be set");
    stage.belay.assert_healthy()
}

#[test]
fn every_form_of_set_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    pins_instead(Stage::mariadb(&server, 2)?, PINS_ON_MARIADB)?;
    every_form(Stage::mariadb(&server, 1)?, PINS_ON_MARIADB)
}

#[test]
fn every_form_of_set_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    pins_instead(Stage::mysql(&server, 2)?, PINS_ON_MYSQL)?;
    every_form(Stage::mysql(&server, 1)?, PINS_ON_MYSQL)
}

/// Code that sets variables and then fails: the answer is an error, which brings no report.
const CODE: [&str; 8] = [
    "DROP TABLE IF EXISTS set_forms",
    "CREATE TABLE set_forms (id INT PRIMARY KEY)",
    "CREATE TRIGGER set_forms BEFORE INSERT ON set_forms FOR EACH ROW BEGIN
        SET time_zone = '+03:00'; SET SESSION sql_select_limit = 1000 + NEW.id;
        IF NEW.id > 100 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'too much'; END IF;
    END",
    "INSERT INTO set_forms VALUES (1)",
    "DROP FUNCTION IF EXISTS sf_fails",
    "CREATE FUNCTION sf_fails() RETURNS INT NOT DETERMINISTIC READS SQL DATA BEGIN
        SET time_zone = '+04:00'; SIGNAL SQLSTATE '45000'; RETURN 1;
    END",
    "DROP VIEW IF EXISTS sf_view",
    "CREATE VIEW sf_view AS SELECT sf_fails() AS f",
];

/// Statements that fail after they have set something; what stands before `|` is said before.
const FAILING: [&str; 7] = [
    "INSERT INTO set_forms VALUES (101)",
    "INSERT INTO set_forms VALUES (1)",
    "REPLACE INTO set_forms VALUES (102)",
    "SELECT * FROM sf_view",
    "BEGIN|INSERT INTO set_forms VALUES (1)",
    "PREPARE sf FROM 'INSERT INTO set_forms VALUES (103)'|EXECUTE sf",
    "SET sql_select_limit = 7; INSERT INTO set_forms VALUES (104)",
];

const VALUES: &str = "SELECT @@time_zone, @@sql_select_limit, @@character_set_connection, @@collation_connection";

/// Its client sees what it has set, and nobody else; what the client asks about its error is answered as well.
fn of_failed_statements(mut stage: Stage) -> Result<()> {
    let mut admin = Wire::login(&stage.direct, &Login::new(ADMIN, ADMIN).schema("test"))?;
    for sql in CODE {
        wait_for(sql, Duration::from_secs(10), || match admin.query(sql) {
            // OceanBase: the schema that it needs is on its way.
            Err(e) if e.code() == 5627 => None,
            done => Some(done.map_err(|e| format!("{sql}: {e}"))),
        })??;
    }
    let mut b = stage.client()?;
    let others = look(&mut b, VALUES)?;
    for binary in [false, true] {
        for failing in FAILING {
            let (mut a, mut oracle) = (stage.client()?, stage.oracle()?);
            for wire in [&mut a, &mut oracle] {
                let (before, sql) = failing.rsplit_once('|').unwrap_or(("", failing));
                if !before.is_empty() {
                    wire.query(before)?;
                }
                let prepared = binary && !sql.contains(';') && !sql.contains("EXECUTE");
                let error = if prepared {
                    let statement = wire.prepare(sql)?;
                    wire.execute(statement, &[]).map(|_| ())
                } else {
                    wire.query_all(sql).map(|_| ())
                };
                assert!(matches!(error, Err(WireError::Server { .. })), "{sql}: {error:?}");
            }
            if !failing.contains("BEGIN") {
                let warnings = a.query("SHOW WARNINGS")?.rows().texts();
                assert_eq!(warnings, oracle.query("SHOW WARNINGS")?.rows().texts(), "{failing}");
            }
            for wire in [&mut a, &mut oracle] {
                wire.query("DO 0")?;
                wire.query("ROLLBACK")?;
            }
            for _ in 0..2 {
                assert_eq!(look(&mut b, VALUES)?, others, "another client after {failing}");
                assert_eq!(look(&mut a, VALUES)?, look(&mut oracle, VALUES)?, "the client itself after {failing}");
            }
            drop(a);
            assert_eq!(look(&mut b, VALUES)?, others, "another client after {failing} and the end of its client");
        }
    }
    // Its client says nothing more.
    let mut a = stage.client()?;
    a.query("INSERT INTO set_forms VALUES (101)").unwrap_err();
    assert_eq!(look(&mut b, VALUES)?, others, "another client when the client has stayed silent");
    assert_eq!(a.text("SELECT @@time_zone")?, "+03:00");
    stage.belay.assert_healthy()
}

#[test]
fn what_a_failed_statement_has_set_on_mariadb() -> Result<()> {
    of_failed_statements(Stage::mariadb(&*shared::mariadb()?, 1)?)
}

#[test]
fn what_a_failed_statement_has_set_on_mysql() -> Result<()> {
    of_failed_statements(Stage::mysql(&*shared::mysql()?, 1)?)
}

#[test]
fn what_a_failed_statement_has_set_on_seekdb() -> Result<()> {
    let server = shared::seekdb()?;
    of_failed_statements(Stage::new(&server.address(), server.address(), 1)?)
}

const SETS: &str = "SELECT @@character_set_client, @@character_set_connection, @@character_set_results, @@collation_connection, \
     @@autocommit, @@sql_mode";

/// Character sets that are reported in any order, in part, or not at all; and what an answer reports that is not the last word.
const REPORTED_IN_PART: [&str; 20] = [
    "SET character_set_connection = latin1, collation_connection = latin1_bin",
    "SET collation_connection = utf8mb4_bin, character_set_connection = utf8mb4",
    "SET collation_connection = utf8mb4_bin",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin; SELECT nope",
    "DO 0",
    "SET NAMES latin1 COLLATE latin1_bin; SET collation_connection = latin1_general_ci",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin, collation_connection = latin1_bin",
    "SET NAMES utf8mb4 COLLATE 'utf8mb4_bin'; SELECT 1",
    "SET CHARACTER SET latin1",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin",
    "INSERT INTO sf_names VALUES (1)",
    "PREPARE sf FROM \"SELECT 'text'\"",
    "SET NAMES utf8mb4; SET @@collation_connection = utf8mb4_bin",
    "SET @@character_set_results = latin1, @@character_set_client = latin1",
    "SET @@sql_mode = 'ANSI_QUOTES'",
    "SELECT \"collation_name\" FROM information_schema.collations LIMIT 0",
    "SET @@sql_mode = ''; SELECT \"a text\"",
    "SELECT \"a text\"",
    "SET @@autocommit = 0",
    "SET @@autocommit = 1, SESSION sql_mode = 'ANSI_QUOTES'",
];

/// A second client takes the only server session behind each of them.
fn reported_in_part(mut stage: Stage) -> Result<()> {
    let mut admin = Wire::login(&stage.direct, &Login::new(ADMIN, ADMIN).schema("test"))?;
    for sql in [
        "DROP TABLE IF EXISTS sf_names",
        "CREATE TABLE sf_names (id INT)",
        "CREATE TRIGGER sf_names BEFORE INSERT ON sf_names FOR EACH ROW BEGIN SET NAMES latin1; SET sql_mode = 'ANSI_QUOTES'; END",
        "DROP DATABASE IF EXISTS sf_binary",
        "CREATE DATABASE sf_binary COLLATE utf8mb4_bin",
        "GRANT ALL ON sf_binary.* TO app",
    ] {
        admin.query(sql).map_err(|e| format!("{sql}: {e}"))?;
    }
    let disturbs =
        [Step::Disturb(SETS), Step::Disturb("SET time_zone = '+01:00'"), Step::Disturb("SET time_zone = 'SYSTEM'")];
    let mut steps = Vec::new();
    for schema in ["test", "sf_binary"] {
        steps.push(Step::Schema(schema));
        for sql in REPORTED_IN_PART {
            // The table is in one schema.
            let of_table = sql.contains("sf_names");
            steps.extend(of_table.then_some(Step::Schema("test")));
            steps.push(Step::Sql(sql));
            steps.extend(of_table.then_some(Step::Schema(schema)));
            if sql.ends_with("nope") {
                // Its error would be kept for a moment.
                continue;
            }
            steps.extend(disturbs.iter().cloned());
            steps.push(Step::Sql(SETS));
        }
        steps.push(Step::Command(0x1f));
    }
    for sql in ["SET @@time_zone = ?", "SET @@time_zone = ?, @@sql_mode = DEFAULT"] {
        steps.push(Step::Prepared(sql, &["+05:00"]));
        steps.extend(disturbs.iter().cloned());
        steps.push(Step::Sql("SELECT @@time_zone"));
        steps.push(Step::Command(0x1f));
    }
    let login = Login::new(APP, APP).schema("test").with(caps::MULTI_STATEMENTS);
    assert_same(&stage.direct, &stage.through, &login, &steps)?;
    let mut fresh = stage.client()?;
    assert_eq!(look(&mut fresh, SETS)?, look(&mut stage.oracle()?, SETS)?, "a client that never set anything");
    admin.query("DROP DATABASE sf_binary")?;
    stage.belay.assert_healthy()
}

#[test]
fn what_is_reported_in_part_on_mariadb() -> Result<()> {
    reported_in_part(Stage::mariadb(&*shared::mariadb()?, 1)?)
}

#[test]
fn what_is_reported_in_part_on_mysql() -> Result<()> {
    reported_in_part(Stage::mysql(&*shared::mysql()?, 1)?)
}

/// What SET @@autocommit = 0 has left behind made the next client's acknowledged INSERT disappear.
#[test]
fn autocommit_without_a_scope() -> Result<()> {
    let server = shared::mariadb()?;
    let mut stage = Stage::mariadb(&server, 1)?;
    server.admin()?.query("CREATE OR REPLACE TABLE test.sf_commit (id INT)")?;
    let (mut a, mut b) = (stage.client()?, stage.client()?);
    a.query("SET @@autocommit = 0")?;
    b.query("INSERT INTO sf_commit VALUES (1)")?;
    assert_eq!(server.admin()?.text("SELECT COUNT(*) FROM test.sf_commit")?, "1", "of a client with autocommit");
    a.query("INSERT INTO sf_commit VALUES (2)")?;
    assert_eq!(server.admin()?.text("SELECT COUNT(*) FROM test.sf_commit")?, "1", "of a client without");
    a.query("ROLLBACK")?;
    assert_eq!(b.text("SELECT COUNT(*) FROM sf_commit")?, "1");
    stage.belay.assert_healthy()
}

/// What is known of a request does not outlive it.
fn of_one_request(mut stage: Stage) -> Result<()> {
    let (mut a, mut b) = (stage.client()?, stage.client()?);
    for refused in
        ["SET timestamp = 'never'", "SET NAMES utf8mb4 COLLATE no_such_collation", "SET optimizer_trace = 'x'"]
    {
        assert!(a.query(refused).is_err(), "{refused}");
        a.command(2, b"test")?;
        b.query("SELECT 1").map_err(|e| format!("after {refused}: {e}"))?;
        assert_eq!(look(&mut a, SETS)?, look(&mut b, SETS)?, "{refused}");
    }
    stage.belay.assert_healthy()
}

/// A trigger stops the clock of the server session: that pins, also where another variable explains the change.
fn stopped_clock(mut stage: Stage) -> Result<()> {
    let mut admin = Wire::login(&stage.direct, &Login::new(ADMIN, ADMIN).schema("test"))?;
    admin.query("DROP TABLE IF EXISTS sf_clock")?;
    admin.query("CREATE TABLE sf_clock (id INT)")?;
    let sets = "BEGIN SET timestamp = 1000; SET time_zone = '+01:00'; END";
    admin.query(&format!("CREATE TRIGGER sf_clock BEFORE INSERT ON sf_clock FOR EACH ROW {sets}"))?;
    let mut a = stage.client()?;
    a.query("INSERT INTO sf_clock VALUES (1)")?;
    assert!(direct() || stage.pinned()? > 0.0);
    assert_eq!(a.text("SELECT UNIX_TIMESTAMP()")?, "1000", "its own");
    stage.belay.assert_healthy()
}

#[test]
fn a_clock_that_a_trigger_stops() -> Result<()> {
    stopped_clock(Stage::mariadb(&*shared::mariadb()?, 1)?)?;
    stopped_clock(Stage::mysql(&*shared::mysql()?, 1)?)
}

#[test]
fn what_was_refused_is_over() -> Result<()> {
    of_one_request(Stage::mariadb(&*shared::mariadb()?, 1)?)?;
    of_one_request(Stage::mysql(&*shared::mysql()?, 1)?)
}

/// An answer may report values that are put back behind it: they are not what the client gets on its next server session.
#[test]
fn a_report_is_not_always_the_last_word() -> Result<()> {
    let server = shared::mariadb()?;
    let mut stage = Stage::mariadb(&server, 1)?;
    let mut admin = Wire::login(&stage.direct, &Login::new(ADMIN, ADMIN).schema("test"))?;
    admin.query(
        "CREATE OR REPLACE PROCEDURE sf_mode() BEGIN SET sql_mode = 'ANSI_QUOTES'; SET NAMES latin1; SELECT 1; END",
    )?;
    let asks = "SELECT @@sql_mode, @@character_set_client, @@collation_connection, @@sql_select_limit";
    for sql in ["CALL sf_mode()", "SET STATEMENT sql_select_limit = 3 FOR SELECT 1"] {
        let (mut a, mut oracle) = (stage.client()?, stage.oracle()?);
        a.query(sql)?;
        oracle.query(sql)?;
        assert_eq!(look(&mut a, asks)?, look(&mut oracle, asks)?, "{sql}");
        if direct() {
            continue;
        }
        // What pinned is lost with the server session, and told; the rest follows.
        let id =
            a.text("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO LIKE '%PROCESSLIST%' AND USER = 'app'")?;
        admin.query(&format!("KILL {id}"))?;
        wait_for("the loss to be told", Duration::from_secs(10), || a.query("DO 0").err())?;
        assert_eq!(look(&mut a, asks)?, look(&mut oracle, asks)?, "{sql}, and the loss of the server session");
    }
    stage.belay.assert_healthy()
}
