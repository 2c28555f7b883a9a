//! Prepared statements keep their meaning wherever they are executed: that of the moment they were prepared in.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};
use std::time::Duration;

/// A belay with one server session that keeps one prepared statement, so that each execution has to prepare its own again; and its unix socket.
fn stage(node: &str) -> Result<(Belay, String, Scratch)> {
    let dir = Scratch::new("socket")?;
    let path = dir.path().join("belay.sock").display().to_string();
    let belay = Options::new([node])
        .server_connections_max(1)
        .set("pool", "prepared_statements_max", 1)
        .set("listen", "unix_sockets", format!("[{path:?}]"))
        .start()?;
    let through = if direct() { belay.address().to_owned() } else { format!("unix:{path}") };
    Ok((belay, through, dir))
}

/// What a statement is understood by changes between its preparation and its executions.
const MEANINGS: &[(&[&str], &str, &[&str])] = &[
    (&["USE shop"], "SELECT COUNT(*), DATABASE() FROM item", &["USE test"]),
    (&["USE test"], "SELECT COUNT(*), SCHEMA() FROM item", &["USE shop"]),
    (
        &["USE shop", "SET sql_mode = 'ANSI_QUOTES'"],
        "SELECT \"name\" FROM item ORDER BY id LIMIT 1",
        &["SET sql_mode = ''"],
    ),
    (
        &["USE shop", "SET sql_mode = ''"],
        "SELECT \"name\" FROM item ORDER BY id LIMIT 1",
        &["SET sql_mode = 'ANSI_QUOTES'"],
    ),
    (&["SET sql_mode = 'PIPES_AS_CONCAT'"], "SELECT 'a' || 'b', @@sql_mode", &["SET sql_mode = ''"]),
    (&["SET sql_mode = 'NO_BACKSLASH_ESCAPES'"], "SELECT 'a\\\\b', LAST_INSERT_ID()", &["SET sql_mode = ''"]),
    (
        &["SET NAMES latin1 COLLATE latin1_bin"],
        "SELECT 'x' = 'X', COLLATION('x'), HEX('\u{e9}')",
        &["SET NAMES utf8mb4"],
    ),
    (
        &["SET NAMES utf8mb4"],
        "SELECT 'x' = 'X', COLLATION('x'), HEX('\u{e9}')",
        &["SET NAMES latin1 COLLATE latin1_bin"],
    ),
    (&["SET div_precision_increment = 2"], "SELECT 1 / 3", &["SET div_precision_increment = 10"]),
    (&["SET lc_time_names = 'de_DE'"], "SELECT DAYNAME('2020-01-01')", &["SET lc_time_names = 'en_US'"]),
    (&["SET time_zone = '+05:00'"], "SELECT FROM_UNIXTIME(0), @@time_zone", &["SET time_zone = '-05:00'"]),
    (&["SET default_week_format = 1"], "SELECT WEEK('2020-01-01')", &["SET default_week_format = 2"]),
    (&["SET sql_select_limit = 2"], "SELECT id FROM shop.item ORDER BY id", &["SET sql_select_limit = DEFAULT"]),
    (&["SET sql_mode = 'ANSI'"], "SELECT COUNT (*) FROM shop.item", &["SET sql_mode = ''"]),
    (
        &["SET sql_mode = ''"],
        "SELECT '2020-02-31' + INTERVAL 0 DAY, CAST('x' AS SIGNED)",
        &["SET sql_mode = 'TRADITIONAL'"],
    ),
];

fn keeps_its_meaning(address: &str) -> Result<()> {
    let mut setup = Wire::login(address, &Login::new(APP, APP).schema("test"))?;
    setup.query("DROP TABLE IF EXISTS item")?;
    setup.query("CREATE TABLE item (id INT PRIMARY KEY, name VARCHAR(20))")?;
    setup.query("INSERT INTO item VALUES (1, 'of test')")?;
    let (mut belay, through, _dir) = stage(address)?;
    for (before, sql, after) in MEANINGS {
        let mut steps: Vec<Step<'_>> = before.iter().map(|sql| Step::Sql(sql)).collect();
        steps.extend([Step::Prepare(sql), Step::Prepare("SELECT 'another'"), Step::Execute(0, &[])]);
        for _ in 0..2 {
            steps.extend(after.iter().map(|sql| Step::Sql(sql)));
            // Whoever executes last has taken the place of the others on the server session.
            steps.extend([Step::Execute(1, &[]), Step::Execute(0, &[]), Step::Disturb("USE test")]);
            steps.extend([Step::Disturb("SET sql_mode = 'ANSI', time_zone = '+01:00'"), Step::Execute(0, &[])]);
            steps.extend([Step::Sql("SELECT @@sql_mode, DATABASE(), @@time_zone, @@collation_connection")]);
            steps.extend(before.iter().map(|sql| Step::Sql(sql)));
            steps.extend([Step::Execute(1, &[]), Step::Execute(0, &[])]);
        }
        assert_same(address, &through, &Login::new(APP, APP).schema("test"), &steps)
            .map_err(|e| format!("{sql}: {e}"))?;
    }
    setup.query("DROP TABLE item")?;
    belay.assert_healthy()
}

#[test]
fn statements_keep_their_meaning_on_mariadb() -> Result<()> {
    keeps_its_meaning(&shared::mariadb()?.address())
}

#[test]
fn statements_keep_their_meaning_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    keeps_its_meaning(&format!("unix:{}", server.socket().display()))
}

/// PREPARE, EXECUTE and DEALLOCATE in a script, with another client that uses the same names on the same server session.
fn names_are_the_clients_own(address: &str) -> Result<()> {
    let (mut belay, through, _dir) = stage(address)?;
    let mut setup = Wire::login(address, &Login::new(APP, APP).schema("test"))?;
    setup.query("DROP TABLE IF EXISTS named")?;
    setup.query("CREATE TABLE named (id INT PRIMARY KEY AUTO_INCREMENT, n INT, word VARCHAR(20))")?;
    const SCRIPT: &[&str] = &[
        "TRUNCATE TABLE named",
        "EXECUTE one",
        "PREPARE one FROM 'SELECT ? + 1, ''it''''s'', DATABASE()'",
        "SET @a = 41, @word = 'word'",
        "EXECUTE one USING @a",
        "EXECUTE One USING @a",
        "EXECUTE one",
        "PREPARE two FROM \"INSERT INTO test.named (n, word) VALUES (?, ?)\"",
        "EXECUTE two USING @a, @word",
        "SELECT n, word FROM test.named",
        "USE shop",
        "EXECUTE one USING @a",
        "SET sql_mode = 'ANSI_QUOTES'",
        "EXECUTE two USING @a, @word",
        "PREPARE three FROM 'SELECT name INTO @found FROM item WHERE id = 2'",
        "USE test",
        "EXECUTE three",
        "SELECT @found",
        "PREPARE four FROM 'SELECT SQL_CALC_FOUND_ROWS n FROM test.named LIMIT 1'",
        "EXECUTE four",
        "SELECT FOUND_ROWS()",
        "PREPARE one FROM 'SELECT no_such_column FROM test.named'",
        "EXECUTE one USING @a",
        "PREPARE one FROM 'SELECT 2'",
        "EXECUTE one",
        "BEGIN",
        "EXECUTE two USING @a, @word",
        "ROLLBACK",
        "SELECT COUNT(*) FROM test.named",
        "DEALLOCATE PREPARE two",
        "EXECUTE two USING @a, @word",
        "DROP PREPARE two",
        "SELECT 1",
    ];
    let mut steps = Vec::new();
    for sql in SCRIPT {
        steps.push(Step::Sql(sql));
        let open = sql == &"BEGIN" || steps.len() > 1 && matches!(steps[steps.len() - 2], Step::Sql("BEGIN"));
        if !open && sql != &"EXECUTE four" {
            steps.extend(
                ["PREPARE one FROM 'SELECT 7'", "PREPARE two FROM 'SELECT 8'", "EXECUTE one"].map(Step::Disturb),
            );
        }
    }
    steps.extend([Step::Command(0x1f), Step::Sql("EXECUTE one"), Step::Disturb("EXECUTE one")]);
    assert_same(address, &through, &Login::new(APP, APP).schema("test"), &steps)?;
    if !direct() {
        let mut wire = Wire::login(&through, &Login::new(APP, APP).schema("test"))?;
        wire.query("PREPARE mine FROM 'SELECT 1'")?;
        assert_eq!(wire.text("EXECUTE mine")?, "1");
        assert_eq!(belay.metrics()?.sum("belay_pinned", &[]), 0.0, "a plain PREPARE pins nobody");
    }
    setup.query("DROP TABLE named")?;
    belay.assert_healthy()
}

#[test]
fn names_are_the_clients_own_on_mariadb() -> Result<()> {
    names_are_the_clients_own(&shared::mariadb()?.address())
}

#[test]
fn names_are_the_clients_own_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    names_are_the_clients_own(&format!("unix:{}", server.socket().display()))
}

/// What can't be read out of the text keeps the server session, with all names that the client has.
fn what_is_not_plain_pins(address: &str) -> Result<()> {
    let (mut belay, through, _dir) = stage(address)?;
    let mut setup = Wire::login(address, &Login::new(APP, APP).schema("test"))?;
    setup.query("DROP PROCEDURE IF EXISTS says_one")?;
    setup.query("CREATE PROCEDURE says_one() BEGIN EXECUTE one; END")?;
    for (pins, sql) in [
        (true, "PREPARE other FROM @source"),
        (true, "PREPARE other FROM 'SET @x = 1'"),
        (true, "PREPARE other FROM 'SELECT LAST_INSERT_ID()'"),
        (true, "PREPARE `other` FROM 'SELECT 1'"),
        (true, "CALL says_one()"),
        (false, "PREPARE other FROM 'SELECT 3'"),
    ] {
        let steps = [
            Step::Sql("SET @source = 'SELECT 5'"),
            Step::Sql("PREPARE one FROM 'SELECT 1'"),
            Step::Disturb("PREPARE one FROM 'SELECT 7'"),
            Step::Disturb("PREPARE other FROM 'SELECT 8'"),
            Step::Sql(sql),
            Step::Sql("EXECUTE one"),
            Step::Sql("EXECUTE other"),
        ];
        assert_same(address, &through, &Login::new(APP, APP).schema("test"), &steps)
            .map_err(|e| format!("{sql}: {e}"))?;
        if !direct() {
            let pinned = || belay.metrics().map(|m| m.sum("belay_pinned", &[]));
            let free = || (pinned().ok()? == 0.0).then_some(());
            wait_for("the clients before to be gone", Duration::from_secs(10), free)?;
            let mut wire = Wire::login(&through, &Login::new(APP, APP).schema("test"))?;
            wire.query("SET @source = 'SELECT 5'")?;
            wire.query("PREPARE one FROM 'SELECT 1'")?;
            wire.query_all(sql)?;
            if pins {
                assert!(pinned()? > 0.0, "{sql}");
            } else {
                wait_for("no pin", Duration::from_secs(10), free)?;
            }
        }
    }
    setup.query("DROP PROCEDURE says_one")?;
    belay.assert_healthy()
}

#[test]
fn what_is_not_plain_pins_on_mariadb() -> Result<()> {
    what_is_not_plain_pins(&shared::mariadb()?.address())
}

#[test]
fn what_is_not_plain_pins_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    what_is_not_plain_pins(&format!("unix:{}", server.socket().display()))
}
