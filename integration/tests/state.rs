//! State that follows a client instead of keeping its server session: user variables, with their types, wherever its next statement runs.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, APP2, MariaDb, MySql};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};
use std::time::Duration;

/// Variables of every type, each made in the way that a client would.
const TYPES: &[&str] = &[
    "SET @i = 5, @n = -7, @z = 0",
    "SET @u = 18446744073709551615, @cu = CAST(5 AS UNSIGNED), @min = -9223372036854775808, @yes = TRUE",
    "SET @d = 1.50, @dd = CAST(3 AS DECIMAL(10,0)), @dn = -0.000, @dl = 99999999999999999999.123456789",
    "SET @f = 1.1e0, @third = 1e0 / 3, @big = 1.7976931348623157e308, @tiny = 4.9e-324, @sum = 0.1e0 + 0.2e0",
    "SET @s = 'h\u{e9}llo \u{1f600}', @e = '', @q = 'it''s \\\\ \"x\"', @l = _latin1 x'e9' COLLATE latin1_bin, @b = x'00ff'",
    "SET @bit = b'101', @day = CAST('2020-01-02' AS DATE), @json = JSON_OBJECT('a', 1)",
    "SET @nul = NULL, @ni = CAST(NULL AS SIGNED), @nd = CAST(NULL AS DECIMAL(5,2)), @nf = NULL + 0e0",
    "SET @ns = CONVERT(NULL USING latin1), @keep = 'text'",
    "SET @keep = NULL",
    "SELECT @a := 5, @b := 'x'",
    "SELECT 7, 'seven' INTO @c, @d2",
];

const NAMES: &[&str] = &[
    "i", "n", "z", "u", "cu", "min", "yes", "d", "dd", "dn", "dl", "f", "third", "big", "tiny", "sum", "s", "e", "q",
    "l", "b", "bit", "day", "json", "nul", "ni", "nd", "nf", "ns", "keep", "a", "b", "c", "d2", "never",
];

fn questions() -> Vec<String> {
    let list = |form: &str| NAMES.iter().map(|n| form.replace('?', n)).collect::<Vec<_>>().join(",");
    vec![
        format!("SELECT {}", list("@?")),
        format!("SELECT {}", list("HEX(@?), COLLATION(@?), COERCIBILITY(@?)")),
        format!("CREATE TABLE test.of_variables AS SELECT {}", list("@? AS v_?")).replace("@dl AS v_dl,", ""),
        "SHOW CREATE TABLE test.of_variables".into(),
        "SELECT * FROM test.of_variables".into(),
        "DROP TABLE test.of_variables".into(),
    ]
}

/// A script in which another client takes every server session between two statements.
fn disturbed<'a>(statements: impl IntoIterator<Item = &'a str>) -> Vec<Step<'a>> {
    let mut steps = Vec::new();
    for sql in statements {
        steps.push(Step::Sql(sql));
        steps.push(Step::Disturb("SET @i = 'of another', @foreign = 1, @never2 = x'00'"));
        steps.push(Step::Disturb("SELECT 1"));
    }
    steps
}

/// A belay in front of a server, where to reach both, and the directory of belay's socket. MySQL lets passwords pass unencrypted over unix sockets only.
struct Stage {
    belay: Belay,
    direct: String,
    through: String,
    _dir: Scratch,
}

impl Stage {
    fn new(node: &str, direct: String, server_connections_max: usize) -> Result<Stage> {
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = Options::new([node])
            .server_connections_max(server_connections_max)
            .set("listen", "unix_sockets", format!("[{path:?}]"))
            .start()?;
        Ok(Stage { belay, direct, through: format!("unix:{path}"), _dir: dir })
    }

    fn mariadb(server: &MariaDb, server_connections_max: usize) -> Result<Stage> {
        Stage::new(&server.address(), server.address(), server_connections_max)
    }

    fn mysql(server: &MySql, server_connections_max: usize) -> Result<Stage> {
        let socket = format!("unix:{}", server.socket().display());
        Stage::new(&server.address(), socket, server_connections_max)
    }

    fn client(&self, user: &str) -> Result<Wire> {
        Ok(Wire::login(&self.through, &Login::new(user, user).schema("test"))?)
    }

    fn same(&self, steps: &[Step<'_>]) -> Result<()> {
        assert_same(&self.direct, &self.through, &Login::new(APP, APP).schema("test"), steps)
    }
}

fn pinned(belay: &Belay) -> Result<f64> {
    Ok(belay.metrics()?.sum("belay_pinned", &[]))
}

fn types_round_trip(mut stage: Stage) -> Result<()> {
    let questions = questions();
    let script = TYPES.iter().copied().chain(questions.iter().map(String::as_str));
    stage.same(&disturbed(script))?;
    let binds = stage.belay.metrics()?.sum("belay_binds_total", &["kind=\"replayed\""]);
    assert!(binds > 10.0, "the clients never took turns: {binds}");
    stage.belay.assert_healthy()
}

#[test]
fn user_variables_of_every_type_on_mariadb() -> Result<()> {
    types_round_trip(Stage::mariadb(&*shared::mariadb()?, 1)?)
}

#[test]
fn user_variables_of_every_type_on_mysql() -> Result<()> {
    types_round_trip(Stage::mysql(&*shared::mysql()?, 1)?)
}

/// What a client may ask about its last statement is not clobbered by what belay asks.
fn last_statement(mut stage: Stage) -> Result<()> {
    let script = [
        "CREATE TEMPORARY TABLE test.none_yet (a INT)",
        "DROP TEMPORARY TABLE test.none_yet",
        "SET @a = 'x'",
        "SHOW WARNINGS",
        "SELECT @a := @a + 1, @b := 2 UNION SELECT 1, 2",
        "SHOW WARNINGS",
        "SELECT @b := 3 UNION SELECT 4",
        "SELECT FOUND_ROWS()",
        "SET @a = CONCAT('x', 1)",
        "SELECT ROW_COUNT()",
        "SET @i = 3",
        "SELECT ROW_COUNT(), @i",
        "SELECT name FROM shop.item WHERE id = 1 INTO @n",
        "SELECT ROW_COUNT()",
        "SELECT @n",
        "SELECT @@warning_count, @@error_count",
    ];
    let steps: Vec<Step<'_>> = script.iter().map(|sql| Step::Sql(sql)).collect();
    stage.same(&steps)?;
    stage.belay.assert_healthy()
}

#[test]
fn answers_about_the_last_statement_on_mariadb() -> Result<()> {
    last_statement(Stage::mariadb(&*shared::mariadb()?, 1)?)
}

#[test]
fn answers_about_the_last_statement_on_mysql() -> Result<()> {
    last_statement(Stage::mysql(&*shared::mysql()?, 1)?)
}

/// Each client sees the GTID of its own last transaction, whoever wrote on its server session since, and also when its node is gone.
#[test]
fn the_last_gtid_is_the_client_s_own() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut cluster = shared::galera()?;
    let mut belay = Options::new(cluster.addresses()).server_connections_max(1).start()?;
    let client = || Wire::login(belay.address(), &Login::new(APP, APP).schema("test"));
    let (mut a, mut b) = (client()?, client()?);
    let asks = "SELECT @@last_gtid";
    b.query("CREATE OR REPLACE TABLE of_gtids (id INT PRIMARY KEY AUTO_INCREMENT)")?;
    assert_eq!(a.text(asks)?, "", "another client's");
    let insert = "INSERT INTO of_gtids VALUES ()";
    let mut own = Vec::new();
    for client in [&mut a, &mut b] {
        client.query(insert)?;
        let all = client.text("SELECT @@global.gtid_binlog_pos")?;
        let gtid = client.text("SELECT @@session.last_gtid AS own")?;
        assert!(all.split(',').any(|last| last == gtid), "{gtid} is not in {all}");
        own.push(gtid);
    }
    for (client, gtid) in [&mut a, &mut b].into_iter().zip(&own) {
        client.query("SELECT 1")?;
        assert_eq!(&client.text(asks)?, gtid);
        let prepared = client.prepare(asks)?;
        // A binary row: header, bitmap of NULLs, length, value.
        let row = format!("\0\0{}{gtid}", char::from(gtid.len() as u8));
        assert_eq!(client.execute(prepared, &[])?.rows().first_value(), Some(row));
        assert_eq!(client.text(&format!("SELECT @@last_gtid = '{gtid}'"))?, "1");
    }
    let port = a.text("SELECT @@port")?;
    let writer =
        cluster.addresses().iter().position(|address| address.ends_with(&format!(":{port}"))).ok_or("no writer")?;
    cluster.node_mut(writer)?.kill()?;
    assert_eq!(a.text(asks)?, own[0]);
    cluster.restart(writer)?;
    cluster.wait_whole(Duration::from_secs(60))?;
    let mut admin = cluster.node(writer)?.admin()?;
    admin.query("INSERT INTO test.of_gtids VALUES ()")?;
    assert_ne!(admin.text(asks)?, "");
    for client in [&mut a, &mut admin] {
        client.command(0x1f, b"")?;
        assert_eq!(client.text(asks)?, "", "COM_RESET_CONNECTION forgets it");
    }
    admin.query("DROP TABLE test.of_gtids")?;
    belay.assert_healthy()
}

/// The columns of its answers are those of a server.
#[test]
fn the_last_gtid_looks_like_a_server_s() -> Result<()> {
    let script = [
        "SELECT @@last_gtid",
        "SELECT @@last_gtid AS g, @@session.last_gtid = ''",
        "SELECT CONCAT(@@last_gtid, 'x') LIKE 'x'",
    ];
    let steps: Vec<Step<'_>> = script.iter().map(|sql| Step::Sql(sql)).collect();
    let mut stage = Stage::mariadb(&*shared::mariadb()?, 1)?;
    stage.same(&steps)?;
    stage.belay.assert_healthy()
}

#[test]
fn user_variables_do_not_pin() -> Result<()> {
    let server = shared::mariadb()?;
    // With one server session a single client that pinned would starve the others.
    let mut belay = Options::new([server.address()]).server_connections_max(1).start()?;
    let login = Login::new(APP, APP).schema("test");
    let mut clients: Vec<Wire> =
        (0..5).map(|_| Wire::login(belay.address(), &login)).collect::<std::result::Result<_, _>>()?;
    for (i, c) in clients.iter_mut().enumerate() {
        c.query(&format!("SET @who = CONCAT('client ', {i}), @n = {i}"))?;
        c.query(&format!("SELECT @only{i} := {i}"))?;
    }
    for round in 0..10 {
        for (i, c) in clients.iter_mut().enumerate() {
            let other = (i + 1) % 5;
            let found =
                c.text(&format!("SELECT CONCAT_WS(',', @who, @n, @only{i}, COALESCE(@only{other}, 'none'))"))?;
            assert_eq!(found, format!("client {i},{i},{i},none"), "round {round}");
            let prepared = c.prepare("SELECT @n := @n + 0, ? INTO @p, @q")?;
            c.execute(prepared, &[b"v"])?;
            c.close_statement(prepared)?;
            c.query("BEGIN")?;
            c.query("SET @in_transaction = UUID()")?;
            c.query("COMMIT")?;
        }
    }
    wait_for("the pins to go", Duration::from_secs(20), || (pinned(&belay).ok()? == 0.0).then_some(()))?;
    belay.assert_healthy()
}

#[test]
fn what_cannot_follow_pins() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).set("session", "user_variables_bytes_max", 1000).start()?;
    for sql in ["SET @'a b' = UUID()", "SET @utf16 = _utf16 x'0041'", "SET @long = REPEAT('x', 2000)"] {
        let mut c = Wire::login(belay.address(), &Login::new(APP, APP).schema("test"))?;
        c.query(sql)?;
        let pins = || belay.metrics().ok().map(|m| m.sum("belay_pinned", &["reason=\"user_variables\""]));
        wait_for("the pin", Duration::from_secs(20), || (pins()? == 1.0).then_some(()))?;
        let name = sql.trim_start_matches("SET ").split(" = ").next().unwrap_or_default();
        assert_ne!(c.text(&format!("SELECT {name}"))?, "NULL");
        drop(c);
        wait_for("the pin to go", Duration::from_secs(20), || (pins()? == 0.0).then_some(()))?;
    }
    belay.assert_healthy()
}

#[test]
fn nobody_sees_the_names_of_others() -> Result<()> {
    let server = shared::mysql()?;
    let mut stage = Stage::mysql(&server, 1)?;
    let (mut a, mut b) = (stage.client(ADMIN)?, stage.client(ADMIN)?);
    a.query("SET @of_a = 1")?;
    b.query("SET @of_b = 1")?;
    let list = "SELECT GROUP_CONCAT(VARIABLE_NAME) FROM performance_schema.user_variables_by_thread t \
                JOIN performance_schema.threads USING (THREAD_ID) WHERE PROCESSLIST_USER = 'admin'";
    for _ in 0..3 {
        assert_eq!(a.text(list)?, "of_a");
        assert_eq!(b.text(list)?, "of_b");
    }
    stage.belay.assert_healthy()
}

/// The server that held the variables is killed while the client idles.
#[test]
fn user_variables_outlive_their_server() -> Result<()> {
    let mut cluster = shared::galera()?;
    let addresses = cluster.addresses();
    let mut belay = Options::new(addresses.clone()).start()?;
    let login = Login::new(APP, APP).schema("test");
    let mut c = Wire::login(belay.address(), &login)?;
    for sql in TYPES {
        c.query(sql)?;
    }
    c.query("SET @node = @@port")?;
    let question = questions().remove(1);
    let before = format!("{:?}", c.query(&question)?);
    wait_for("the pins to go", Duration::from_secs(20), || (pinned(&belay).ok()? == 0.0).then_some(()))?;
    let port = c.text("SELECT @node")?;
    let node = addresses.iter().position(|a| a.ends_with(&format!(":{port}"))).ok_or("no such node")?;
    cluster.node_mut(node)?.kill()?;
    let after = format!("{:?}", c.query(&question)?);
    assert_eq!(after, before);
    assert_eq!(c.text("SELECT @node")?, port);
    assert_ne!(c.text("SELECT @@port")?, port);
    cluster.restart(node)?;
    belay.assert_healthy()
}

/// Values that were not read when their server died are told as lost, once, and never made up.
#[test]
fn unread_user_variables_are_told_as_lost() -> Result<()> {
    let mut cluster = shared::galera()?;
    let addresses = cluster.addresses();
    let mut belay = Options::new(addresses.clone()).start()?;
    let login = Login::new(APP, APP).schema("test");
    let mut rolls_back = Wire::login(belay.address(), &login)?;
    let mut goes_on = Wire::login(belay.address(), &login)?;
    for c in [&mut rolls_back, &mut goes_on] {
        c.query("SET @before = UUID()")?;
        c.query("BEGIN")?;
        c.query("SET @within = UUID()")?;
    }
    let port = goes_on.text("SELECT @@port")?;
    let node = addresses.iter().position(|a| a.ends_with(&format!(":{port}"))).ok_or("no such node")?;
    cluster.node_mut(node)?.kill()?;
    rolls_back.query("ROLLBACK")?;
    for c in [&mut rolls_back, &mut goes_on] {
        let error = c.query("SELECT @within").unwrap_err();
        assert!(error.code() == 1105 && error.to_string().contains("unread_user_variables"), "{error}");
        assert_eq!(c.value("SELECT @within")?, None);
        assert_eq!(c.value("SELECT @before")?, None);
        c.query("SET @within = 'again'")?;
        assert_eq!(c.text("SELECT @within")?, "again");
    }
    cluster.restart(node)?;
    belay.assert_healthy()
}

/// A trigger writes to a variable of the client, of which no server says anything.
#[test]
fn what_a_trigger_writes_follows() -> Result<()> {
    let server = shared::mariadb()?;
    let mut direct = Wire::login(&server.address(), &Login::new(ADMIN, ADMIN).schema("test"))?;
    direct.query("CREATE OR REPLACE TABLE watched (a INT)")?;
    direct.query("CREATE TRIGGER watching BEFORE INSERT ON watched FOR EACH ROW SELECT NEW.a INTO @seen")?;
    let mut stage = Stage::mariadb(&server, 1)?;
    let steps = disturbed(["SET @seen = 0", "INSERT INTO watched VALUES (42)", "SELECT @seen", "DELETE FROM watched"]);
    stage.same(&steps)?;
    direct.query("DROP TABLE watched")?;
    stage.belay.assert_healthy()
}

/// SET ROLE in its forms, and what it opens, while another client of the account chooses other roles on the same server session.
fn roles(mut stage: Stage, secret: &str) -> Result<()> {
    let mut steps = Vec::new();
    for sql in ["SELECT 1", "SET ROLE reader", "SET ROLE NONE", "SET ROLE no_such_role", "SET ROLE 'reader'"] {
        for then in ["SET ROLE reader", "SET ROLE NONE"] {
            steps.push(Step::Sql(sql));
            steps.push(Step::Disturb(then));
            steps.push(Step::Sql("SELECT CURRENT_ROLE()"));
            steps.push(Step::Sql(secret));
            steps.push(Step::Prepared(secret, &[]));
            steps.push(Step::Disturb(then));
            steps.push(Step::Command(0x1f));
            steps.push(Step::Disturb(then));
            steps.push(Step::Sql("SELECT CURRENT_ROLE()"));
            steps.push(Step::Sql(secret));
            steps.push(Step::Sql("BEGIN"));
            steps.push(Step::Sql(sql));
            steps.push(Step::Sql(secret));
            steps.push(Step::Sql("COMMIT"));
        }
    }
    assert_same(&stage.direct, &stage.through, &Login::new(APP2, APP2).schema("test"), &steps)?;
    let replayed = stage.belay.metrics()?.sum("belay_replay_items_total", &["what=\"role\""]);
    assert!(replayed > 10.0, "the clients never took turns: {replayed}");
    assert_eq!(stage.belay.metrics()?.sum("belay_pins_total", &["reason=\"role\""]), 0.0);
    stage.belay.assert_healthy()
}

#[test]
fn roles_follow_on_mariadb() -> Result<()> {
    roles(Stage::mariadb(&*shared::mariadb()?, 1)?, "SELECT word FROM shop.secret")
}

#[test]
fn roles_follow_on_mysql() -> Result<()> {
    // Its error would name the host of the connection, which is another through belay.
    let seen = "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = 'shop'";
    roles(Stage::mysql(&*shared::mysql()?, 1)?, seen)
}

/// A role given up stays given up where it is a default of the login, and a role outlives its server.
#[test]
fn roles_outlive_their_server() -> Result<()> {
    let mut cluster = shared::galera()?;
    let addresses = cluster.addresses();
    let mut admin = cluster.node_mut(0)?.admin()?;
    admin.query("CREATE USER IF NOT EXISTS born@'%' IDENTIFIED VIA mysql_native_password USING PASSWORD('born')")?;
    admin.query("CREATE ROLE IF NOT EXISTS given")?;
    admin.query("GRANT SELECT ON shop.secret TO given")?;
    admin.query("GRANT given TO born@'%'")?;
    admin.query("SET DEFAULT ROLE given FOR born@'%'")?;
    let mut belay = Options::new(addresses.clone()).start()?;
    let login = Login::new("born", "born");
    let connect = || wait_for("the account", Duration::from_secs(20), || Wire::login(belay.address(), &login).ok());
    let (mut with, mut without, mut never) = (connect()?, connect()?, connect()?);
    with.query("SET ROLE given")?;
    without.query("SET ROLE NONE")?;
    let check = |with: &mut Wire, without: &mut Wire, never: &mut Wire| -> Result<()> {
        for _ in 0..5 {
            assert_eq!(with.text("SELECT word FROM shop.secret")?, "edelrid");
            assert_eq!(without.query("SELECT word FROM shop.secret").unwrap_err().code(), 1142);
            assert_eq!(never.text("SELECT word FROM shop.secret")?, "edelrid");
        }
        assert_eq!(without.value("SELECT CURRENT_ROLE()")?, None);
        Ok(())
    };
    check(&mut with, &mut without, &mut never)?;
    without.query("SELECT 1")?;
    wait_for("the pins to go", Duration::from_secs(20), || (pinned(&belay).ok()? == 0.0).then_some(()))?;
    let port = never.text("SELECT @@port")?;
    let node = addresses.iter().position(|a| a.ends_with(&format!(":{port}"))).ok_or("no such node")?;
    cluster.node_mut(node)?.kill()?;
    check(&mut with, &mut without, &mut never)?;
    cluster.restart(node)?;
    belay.assert_healthy()
}
