//! What a client has sent ahead of an execution reaches that execution and no other, or is told as lost; what stands for a call in a prepared statement is
//! what the server would say; and a loss is never answered with OK.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::paths::Scratch;
use belay_integration::servers::{APP, MariaDb, MySql};
use belay_integration::wire::{Login, Reply, Wire, WireError, WireResult};
use belay_integration::{Result, shared};

/// The id that means 'the statement prepared last' on MariaDB.
const LAST: u32 = u32::MAX;

/// A belay in front of a server, and an address where both are reached in the same way.
struct Stage {
    belay: Belay,
    server: String,
    through: String,
    _dir: Scratch,
}

impl Stage {
    fn new(server: &str, options: impl FnOnce(Options) -> Options) -> Result<Stage> {
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = options(Options::new([server]).set("listen", "unix_sockets", format!("[{path:?}]"))).start()?;
        let through = if direct() { server.to_owned() } else { format!("unix:{path}") };
        Ok(Stage { belay, server: server.to_owned(), through, _dir: dir })
    }

    fn client(&self) -> Result<Wire> {
        login(&self.through)
    }

    /// Runs a script directly and through belay, each with a second client in between, and compares what it noted.
    fn same(&mut self, script: impl Fn(&mut Wire, &mut Wire, &mut Vec<String>) -> Result<()>) -> Result<()> {
        let run = |address: &str| -> Result<Vec<String>> {
            let mut notes = Vec::new();
            script(&mut login(address)?, &mut login(address)?, &mut notes)?;
            Ok(notes)
        };
        let (direct, through) = (run(&self.server)?, run(&self.through)?);
        for (n, (expected, found)) in direct.iter().zip(&through).enumerate() {
            assert_eq!(expected, found, "note {n} differs: directly\n{expected}\nthrough belay\n{found}");
        }
        assert_eq!(direct.len(), through.len());
        self.belay.assert_healthy()
    }
}

fn login(address: &str) -> Result<Wire> {
    Ok(Wire::login(address, &Login::new(APP, APP).schema("test"))?)
}

fn on_mariadb(test: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    test(&shared::mariadb()?.address())
}

fn on_mysql(test: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let server = shared::mysql()?;
    test(&format!("unix:{}", server.socket().display()))
}

fn one_connection(options: Options) -> Options {
    options.server_connections_max(1)
}

/// COM_STMT_SEND_LONG_DATA.
fn long_data(wire: &mut Wire, id: u32, param: u16, data: &[u8]) -> WireResult<()> {
    wire.send_command(0x18, &[&id.to_le_bytes()[..], &param.to_le_bytes(), data].concat())
}

/// The body of a COM_STMT_EXECUTE with so many text parameters, whose values are these (none for those sent as long data).
fn execution(id: u32, params: usize, values: &[&str], cursor: bool) -> Vec<u8> {
    let mut body = id.to_le_bytes().to_vec();
    body.extend_from_slice(&[u8::from(cursor), 1, 0, 0, 0]);
    if params > 0 {
        body.resize(body.len() + params.div_ceil(8), 0);
        body.push(1);
        (0..params).for_each(|_| body.extend_from_slice(&[0xfd, 0]));
        for value in values {
            body.push(value.len() as u8);
            body.extend_from_slice(value.as_bytes());
        }
    }
    body
}

fn said(reply: WireResult<Reply>) -> String {
    match reply {
        Ok(Reply::Rows(rows)) => format!("{:?} {:x?}", rows.rows, rows.definitions),
        Ok(Reply::Ok { affected, .. }) => format!("OK {affected}"),
        Err(WireError::Server { code, state, message }) => format!("{code} {state} {message}"),
        Err(error) => format!("{error}"),
    }
}

fn read(wire: &mut Wire) -> WireResult<Reply> {
    Ok(wire.read_replies(true)?.remove(0))
}

fn execute(wire: &mut Wire, id: u32, params: usize, values: &[&str]) -> WireResult<Reply> {
    wire.send_command(0x17, &execution(id, params, values, false))?;
    read(wire)
}

/// The answer's only value, or the error.
fn value(wire: &mut Wire, id: u32, params: usize, values: &[&str]) -> String {
    match execute(wire, id, params, values) {
        Ok(Reply::Rows(rows)) => {
            let cell = rows.rows.first().and_then(|row| row.first().cloned().flatten()).unwrap_or_default();
            String::from_utf8_lossy(cell.get(3..).unwrap_or_default()).into_owned()
        }
        other => said(other),
    }
}

fn long_data_is_its_statements(address: &str) -> Result<()> {
    Stage::new(address, one_connection)?.same(|a, b, notes| {
        let text = a.prepare("SELECT CONCAT('[', ?, ']')")?.id;
        let both = a.prepare("SELECT CONCAT(?, '-', ?)")?.id;
        let other = a.prepare("SELECT 'other'")?.id;
        // Of one statement, while others are executed, fail, are prepared and closed.
        long_data(a, text, 0, b"one ")?;
        long_data(a, both, 1, b"second")?;
        long_data(a, text, 0, b"two")?;
        notes.push(value(a, other, 0, &[]));
        notes.push(said(a.query("SELECT no_such_column")));
        let failing = a.prepare("INSERT INTO no_such_table VALUES (1)").map(|s| s.id);
        notes.push(format!("{:?}", failing.map_err(|e| e.code())));
        let closed = a.prepare("SELECT ?")?;
        long_data(a, closed.id, 0, b"nobody's")?;
        a.close_statement(closed)?;
        notes.push(value(a, text, 1, &[]));
        notes.push(value(a, both, 2, &["first"]));
        b.query("SELECT 'somebody else'")?;
        // It is used up.
        notes.push(value(a, text, 1, &["inline"]));
        b.query("SELECT 'somebody else'")?;
        // RESET drops it, and so does an execution that fails.
        long_data(a, text, 0, b"dropped")?;
        notes.push(said(a.command(0x1a, &text.to_le_bytes())));
        notes.push(value(a, text, 1, &["after reset"]));
        a.query("CREATE TEMPORARY TABLE once (a VARCHAR(20) PRIMARY KEY)")?;
        let insert = a.prepare("INSERT INTO once VALUES (?)")?.id;
        for _ in 0..2 {
            long_data(a, insert, 0, b"twice")?;
            notes.push(said(execute(a, insert, 1, &[])));
        }
        notes.push(said(execute(a, insert, 1, &["inline"])));
        notes.push(said(a.query("SELECT a FROM once ORDER BY a")));
        a.query("DROP TEMPORARY TABLE once")?;
        // For a parameter that there is not: nothing but RESET ends that.
        long_data(a, text, 7, b"nowhere")?;
        for _ in 0..2 {
            notes.push(value(a, text, 1, &["inline"]));
            b.query("SELECT 'somebody else'")?;
        }
        notes.push(said(a.command(0x1a, &text.to_le_bytes())));
        notes.push(value(a, text, 1, &["inline"]));
        // It has no answer and changes none of those about the statement before.
        a.query("SELECT CAST('x' AS SIGNED)")?;
        long_data(a, text, 0, b"quiet")?;
        notes.push(said(a.query("SHOW WARNINGS")));
        notes.push(value(a, text, 1, &[]));
        long_data(a, text, 0, b"gone")?;
        a.command(0x1f, &[])?;
        notes.push(format!("{:?}", execute(a, text, 1, &["x"]).map_err(|e| e.code())));
        Ok(())
    })
}

#[test]
fn long_data_is_its_statements_on_mariadb() -> Result<()> {
    on_mariadb(long_data_is_its_statements)
}

#[test]
fn long_data_is_its_statements_on_mysql() -> Result<()> {
    on_mysql(long_data_is_its_statements)
}

/// With room for three statements on the server session, that with data stays; where all have some, there is none for another.
fn what_is_held_is_not_pushed_out(address: &str) -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut stage = Stage::new(address, |options| one_connection(options).set("pool", "prepared_statements_max", 3))?;
    let (mut a, mut b) = (stage.client()?, stage.client()?);
    let first = a.prepare("SELECT CONCAT('[', ?, ']')")?.id;
    long_data(&mut a, first, 0, b"kept")?;
    for n in 0..8 {
        let id = a.prepare(&format!("SELECT '{n}'"))?.id;
        assert_eq!(value(&mut a, id, 0, &[]), n.to_string());
    }
    // An open cursor is not pushed out either.
    let rows = a.prepare("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3")?.id;
    a.send_command(0x17, &execution(rows, 0, &[], true))?;
    read_cursor(&mut a)?;
    for n in 0..4 {
        let id = a.prepare(&format!("SELECT 'again {n}'"))?.id;
        assert_eq!(value(&mut a, id, 0, &[]), format!("again {n}"));
    }
    let third = a.prepare("SELECT CONCAT('(', ?, ')')")?.id;
    long_data(&mut a, third, 0, b"kept, too")?;
    let full = a.prepare("SELECT 'no room'").unwrap_err();
    assert_eq!(full.code(), 1461, "{full}");
    assert_eq!(value(&mut a, first, 1, &[]), "[kept]");
    assert_eq!(value(&mut a, third, 1, &[]), "(kept, too)");
    a.send_command(0x1c, &[rows.to_le_bytes(), 9u32.to_le_bytes()].concat())?;
    let mut fetched = 0;
    while a.read_packet()?.first() != Some(&0xfe) {
        fetched += 1;
    }
    assert_eq!(fetched, 3);
    a.command(0x1a, &rows.to_le_bytes())?;
    // Nothing holds the server session any more.
    b.query("SELECT 1")?;
    let id = a.prepare("SELECT 'room'")?.id;
    assert_eq!(value(&mut a, id, 0, &[]), "room");
    stage.belay.assert_healthy()
}

/// The answer that opens a cursor: columns, and no rows.
fn read_cursor(wire: &mut Wire) -> Result<()> {
    let columns = wire.read_packet()?;
    for _ in 0..=*columns.first().ok_or("no columns")? {
        wire.read_packet()?;
    }
    Ok(())
}

#[test]
fn what_is_held_is_not_pushed_out_on_mariadb() -> Result<()> {
    on_mariadb(what_is_held_is_not_pushed_out)
}

#[test]
fn what_is_held_is_not_pushed_out_on_mysql() -> Result<()> {
    on_mysql(what_is_held_is_not_pushed_out)
}

#[test]
fn long_data_of_a_megabyte_is_streamed() -> Result<()> {
    on_mariadb(|address| {
        Stage::new(address, one_connection)?.same(|a, b, notes| {
            let id = a.prepare("SELECT CONCAT(LENGTH(?), '')")?.id;
            for _ in 0..2 {
                long_data(a, id, 0, &vec![b'x'; 1 << 20])?;
                long_data(a, id, 0, &vec![b'y'; 300_000])?;
                notes.push(value(a, id, 1, &[]));
                b.query("SELECT 1")?;
            }
            Ok(())
        })
    })
}

/// MariaDB's clients name the statement prepared last by -1; on MySQL that is an id like any other.
fn the_statement_prepared_last(address: &str) -> Result<()> {
    Stage::new(address, one_connection)?.same(|a, b, notes| {
        a.query("DROP TABLE IF EXISTS written")?;
        a.query("CREATE TABLE written (a INT)")?;
        let asks = |a: &mut Wire, notes: &mut Vec<String>| -> Result<()> {
            notes.push(said(execute(a, LAST, 0, &[])));
            notes.push(said(a.command(0x1a, &LAST.to_le_bytes())));
            a.send_command(0x1c, &[LAST.to_le_bytes(), 1u32.to_le_bytes()].concat())?;
            let fetched = read(a).map_err(|e| e.code());
            notes.push(format!("{:?}", fetched.map(|_| ())));
            Ok(())
        };
        asks(a, notes)?;
        let insert = a.prepare("INSERT INTO written VALUES (1)")?;
        let select = a.prepare("SELECT 'last'")?;
        asks(a, notes)?;
        notes.push(said(execute(a, insert.id, 0, &[])));
        asks(a, notes)?;
        // In one send: a PREPARE that fails, and an EXECUTE of what it would have made.
        for failing in ["SELEC", "INSERT INTO no_such_table VALUES (1)"] {
            let made = a.prepare("INSERT INTO written VALUES (2)")?;
            a.send_command(0x16, failing.as_bytes())?;
            a.send_command(0x17, &execution(LAST, 0, &[], false))?;
            notes.push(format!("{:?}", a.read_prepared().map(|(s, _)| s.params).map_err(|e| e.code())));
            notes.push(said(read(a)));
            asks(a, notes)?;
            a.close_statement(made)?;
        }
        a.query("PREPARE named FROM 'SELECT 1'")?;
        asks(a, notes)?;
        let again = a.prepare("SELECT 'again'")?;
        b.query("SELECT 1")?;
        a.close_statement(select)?;
        asks(a, notes)?;
        a.close_statement(again)?;
        asks(a, notes)?;
        let other = a.prepare("SELECT 'by its number'")?;
        a.send_command(0x19, &LAST.to_le_bytes())?;
        notes.push(execute(a, other.id, 0, &[]).map_or_else(|e| e.code().to_string(), |r| said(Ok(r))));
        let text = a.prepare("SELECT CONCAT('[', ?, ']')")?;
        long_data(a, LAST, 0, b"by -1")?;
        notes.push(value(a, text.id, 1, &["inline"]));
        notes.push(said(a.query("SELECT COUNT(*) FROM written")));
        a.query("DROP TABLE written")?;
        Ok(())
    })
}

#[test]
fn the_statement_prepared_last_on_mariadb() -> Result<()> {
    on_mariadb(the_statement_prepared_last)
}

#[test]
fn the_statement_prepared_last_on_mysql() -> Result<()> {
    on_mysql(the_statement_prepared_last)
}

/// A server that can be killed and started again.
trait Server {
    fn die(&mut self) -> Result<()>;
    fn rise(&mut self) -> Result<()>;
}

impl Server for MariaDb {
    fn die(&mut self) -> Result<()> {
        self.kill()
    }
    fn rise(&mut self) -> Result<()> {
        self.start()
    }
}

impl Server for MySql {
    fn die(&mut self) -> Result<()> {
        self.process()?.kill()
    }
    fn rise(&mut self) -> Result<()> {
        self.restart()
    }
}

/// kill -9 while the client idles inside a transaction; then what has no answer, then COMMIT.
fn a_lost_transaction_is_told(server: &mut dyn Server, address: &str, admin: &str) -> Result<()> {
    let mut stage = Stage::new(address, |options| one_connection(options).set("cluster", "hold_timeout_ms", 20_000))?;
    login(admin)?.query("CREATE TABLE kept (a INT PRIMARY KEY)")?;
    let mut client = stage.client()?;
    let text = client.prepare("SELECT ?")?;
    for (round, then) in ["COMMIT", "execute", "INSERT INTO kept VALUES (9)"].into_iter().enumerate() {
        client.query("BEGIN")?;
        client.query(&format!("INSERT INTO kept VALUES ({round})"))?;
        server.die()?;
        server.rise()?;
        long_data(&mut client, text.id, 0, b"data")?;
        client.ping()?;
        let told = match then {
            "execute" => execute(&mut client, text.id, 1, &[]),
            sql => client.query(sql),
        };
        let told = told.map(|_| ()).unwrap_err();
        assert_eq!(told.code(), 1213, "{then}: {told}");
        if then != "execute" {
            let lost = execute(&mut client, text.id, 1, &[]).unwrap_err();
            assert_eq!(lost.code(), 1105, "{lost}");
        }
        assert_eq!(value(&mut client, text.id, 1, &["whole"]), "whole", "an execution has used up what was lost");
        client.query("COMMIT")?;
        assert_eq!(client.text("SELECT COUNT(*) FROM kept")?, "0", "{then}");
    }
    // Outside a transaction: the data is lost, and is missed.
    long_data(&mut client, text.id, 0, b"data")?;
    client.ping()?;
    server.die()?;
    server.rise()?;
    let told = client.query("SELECT 1").unwrap_err();
    assert!(told.to_string().contains("long_data"), "{told}");
    assert_eq!(execute(&mut client, text.id, 1, &[]).unwrap_err().code(), 1105);
    assert_eq!(value(&mut client, text.id, 1, &["whole"]), "whole");
    stage.belay.assert_healthy()
}

#[test]
fn a_lost_transaction_is_told_on_mariadb() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut server = MariaDb::start()?;
    let address = server.address();
    a_lost_transaction_is_told(&mut server, &address, &address)
}

#[test]
fn a_lost_transaction_is_told_on_mysql() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let mut server = MySql::start()?;
    let (address, admin) = (server.address(), format!("unix:{}", server.socket().display()));
    a_lost_transaction_is_told(&mut server, &address, &admin)
}

/// A replay that is refused half-way costs the server session, and the transaction on it: COMMIT must not be answered with OK.
#[test]
fn a_refused_replay_takes_no_transaction_away_in_silence() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut stage =
        Stage::new(&server.address(), |options| one_connection(options).set("pool", "prepared_statements_max", 1))?;
    let mut admin = server.admin()?;
    admin.query("CREATE OR REPLACE TABLE test.kept (a INT)")?;
    admin.query("CREATE OR REPLACE DATABASE passing")?;
    admin.query("GRANT ALL ON passing.* TO app@'%'")?;
    let mut client = stage.client()?;
    client.query("USE passing")?;
    let schema = client.prepare("SELECT DATABASE()")?;
    client.query("USE test")?;
    let other = client.prepare("SELECT 'other'")?;
    assert_eq!(value(&mut client, other.id, 0, &[]), "other");
    client.query("BEGIN")?;
    client.query("INSERT INTO kept VALUES (1)")?;
    admin.query("DROP DATABASE passing")?;
    let refused = execute(&mut client, schema.id, 0, &[]).unwrap_err();
    assert_eq!(refused.code(), 1105, "{refused}");
    let told = client.query("COMMIT").unwrap_err();
    assert_eq!(told.code(), 1213, "{told}");
    assert_eq!(client.text("SELECT COUNT(*) FROM kept")?, "0");
    admin.query("DROP TABLE test.kept")?;
    stage.belay.assert_healthy()
}

/// What a row or a column's definition holds, with the connection's id taken out where it stands as a number of four or eight bytes, or as text.
fn without_id(wire: &Wire, mut bytes: Vec<u8>) -> Vec<u8> {
    let id = wire.connection_id;
    for (id, mask) in [(id.to_le_bytes().to_vec(), vec![0xEE; 4]), (id.to_string().into_bytes(), b"id".to_vec())] {
        let mut at = 0;
        while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(id.len()).position(|w| w == id)) {
            bytes.splice(at + found..at + found + id.len(), mask.iter().copied());
            at += found + mask.len();
        }
    }
    bytes
}

fn described(wire: &Wire, reply: WireResult<Reply>) -> String {
    match reply {
        Ok(Reply::Rows(rows)) => {
            let cells = rows.rows.into_iter().flatten().map(|cell| cell.map(|c| without_id(wire, c)));
            format!("{:x?} {:x?}", rows.definitions, cells.collect::<Vec<_>>())
        }
        other => said(other),
    }
}

/// Calls whose answers belay knows and the server session does not, in every place of a statement.
const CALLS: &[(&str, &[&str])] = &[
    ("select connection_id()", &[]),
    ("SELECT CONNECTION_ID() AS `of me`, CONNECTION_ID(), connection_id() + 1 > 0", &[]),
    ("SELECT ?, CONNECTION_ID(), ? FROM DUAL WHERE CONNECTION_ID() = CONNECTION_ID() AND ? = 'c'", &["a", "b", "c"]),
    ("SELECT a, a = CONNECTION_ID() FROM (SELECT CONNECTION_ID() AS a) t WHERE a IN (SELECT CONNECTION_ID())", &[]),
    ("SELECT CONCAT(CONNECTION_ID(), '') = CAST(connection_id() AS CHAR), CONNECTION_ID()*2 > ?", &["1"]),
    ("SELECT @@pseudo_thread_id, @@pseudo_thread_id = CONNECTION_ID(), @@pseudo_thread_id + 0 > 0", &[]),
    ("SELECT ROW_COUNT(), CONNECTION_ID(), FOUND_ROWS(), LAST_INSERT_ID(), @@identity", &[]),
    ("SELECT FOUND_ROWS(), ROW_COUNT(), 'é', CONNECTION_ID(), @@last_insert_id, ?", &["x"]),
    ("SELECT LAST_INSERT_ID(), LAST_INSERT_ID() + CONNECTION_ID() > ?", &["0"]),
    ("SELECT CONNECTION_ID() UNION ALL SELECT CONNECTION_ID()", &[]),
    ("SELECT COUNT(*), MAX(CONNECTION_ID()) FROM shop.item GROUP BY CONNECTION_ID() ORDER BY CONNECTION_ID()", &[]),
    ("SELECT ROW_COUNT()", &[]),
    ("SELECT FOUND_ROWS() AS f", &[]),
];

fn calls_have_the_servers_columns(address: &str) -> Result<()> {
    Stage::new(address, |options| one_connection(options).set("instance", "id", 3))?.same(|a, b, notes| {
        a.query("DROP TABLE IF EXISTS called")?;
        // Numbers that no connection has, so that ids can be told from them.
        a.query("CREATE TABLE called (id INT PRIMARY KEY AUTO_INCREMENT, c BIGINT) AUTO_INCREMENT = 1000000")?;
        for (sql, params) in CALLS {
            for _ in 0..2 {
                let (statement, definitions) = a.prepare_described(sql).map_err(|e| format!("{sql}: {e}"))?;
                notes.push(format!("{sql}: {definitions:x?}"));
                for _ in 0..2 {
                    a.query("INSERT INTO called (c) VALUES (CONNECTION_ID()), (1), (2)")?;
                    b.query("SELECT 1 UNION ALL SELECT 2")?;
                    let reply = execute(a, statement.id, params.len(), params);
                    notes.push(format!("{sql}: {}", described(a, reply)));
                }
                a.close_statement(statement)?;
                a.query("DELETE FROM called LIMIT 2")?;
                b.query("SELECT 1")?;
                if params.is_empty() {
                    let reply = a.query(sql);
                    notes.push(format!("{sql}: {}", described(a, reply)));
                }
            }
        }
        // In other statements than SELECT, and in what is made of them.
        let insert = a.prepare("INSERT INTO called (c) SELECT CONNECTION_ID() + ? - ? FROM DUAL")?;
        notes.push(said(execute(a, insert.id, 2, &["1", "1"])));
        let update = a.prepare("UPDATE called SET c = CONNECTION_ID() WHERE id > ? AND CONNECTION_ID() > 0")?;
        b.query("SELECT 1")?;
        notes.push(said(execute(a, update.id, 1, &["0"])));
        // By the names of SQL, and at once where the server has that.
        for source in ["SELECT CONNECTION_ID(), ''it''''s''", "select ''a'', connection_id() AS c, @@pseudo_thread_id > ?"] {
            a.query(&format!("PREPARE named FROM '{source}'"))?;
            b.query("SELECT 1")?;
            a.query("SET @zero = 0")?;
            let using = if source.contains('?') { " USING @zero" } else { "" };
            for _ in 0..2 {
                let reply = a.query(&format!("EXECUTE named{using}"));
                notes.push(described(a, reply));
                b.query("SELECT 1")?;
            }
        }
        a.query("DEALLOCATE PREPARE named")?;
        a.query("UPDATE called SET c = CONNECTION_ID()")?;
        let mine = a.text("SELECT COUNT(DISTINCT c) FROM called WHERE c = CONNECTION_ID()")?;
        notes.push(mine);
        a.query("DROP TABLE IF EXISTS made")?;
        a.query(
            "CREATE TABLE made AS SELECT CONNECTION_ID() AS a, @@pseudo_thread_id AS b, ROW_COUNT() AS c, FOUND_ROWS() AS d, \
             LAST_INSERT_ID() AS e, @@identity AS f",
        )?;
        notes.push(said(a.query("SHOW CREATE TABLE made")));
        notes.push(said(a.query("SELECT a = CONNECTION_ID(), b = CONNECTION_ID(), c, d, e, f FROM made")));
        a.query("DROP TABLE made")?;
        a.query("DROP TABLE called")?;
        b.query("SELECT 1")?;
        if a.version.contains("MariaDB") {
            // It pins.
            let reply = a.query("EXECUTE IMMEDIATE 'SELECT CONNECTION_ID(), ''a'', FOUND_ROWS(), ? AS p' USING 1");
            notes.push(described(a, reply));
        }
        Ok(())
    })
}

#[test]
fn calls_have_the_servers_columns_on_mariadb() -> Result<()> {
    on_mariadb(calls_have_the_servers_columns)
}

#[test]
fn calls_have_the_servers_columns_on_mysql() -> Result<()> {
    on_mysql(calls_have_the_servers_columns)
}

/// MySQL reads the types of user variables when it prepares a statement, and keeps to them.
fn types_of_user_variables(address: &str) -> Result<()> {
    const SQL: &str = "SELECT @v + 0, @v, COLLATION(@v)";
    Stage::new(address, |options| one_connection(options).set("pool", "prepared_statements_max", 2))?.same(
        |a, b, notes| {
            b.query("SET @v = 5")?;
            let of_b = b.prepare(SQL)?;
            notes.push(said(execute(b, of_b.id, 0, &[])));
            a.query("SET @v = '17 apples'")?;
            let (of_a, definitions) = a.prepare_described(SQL)?;
            notes.push(format!("{definitions:x?}"));
            notes.push(said(execute(a, of_a.id, 0, &[])));
            notes.push(said(execute(b, of_b.id, 0, &[])));
            // Each keeps to its type, though the variable has another one by now, and others have pushed it out.
            for (set, n) in
                [("SET @v = '18 pears'", 1), ("SET @v = NULL", 2), ("SELECT 2.5 + 1 INTO @v", 3), ("SET @v = 1", 4)]
            {
                b.query(set)?;
                for more in 0..3 {
                    let id = a.prepare(&format!("SELECT '{n} {more}'"))?.id;
                    notes.push(said(execute(a, id, 0, &[])));
                }
                notes.push(format!("{set}: {}", said(execute(b, of_b.id, 0, &[]))));
                notes.push(format!("{set}: {}", said(b.query(SQL))));
                notes.push(format!("{set}: {}", said(execute(a, of_a.id, 0, &[]))));
                notes.push(format!("{set}: {}", said(a.query("SELECT @v"))));
            }
            // Prepared in SQL, by a type that belay has to ask for.
            b.query("BEGIN")?;
            b.query("SELECT CONCAT('3', ' plums') INTO @v")?;
            let asked = b.prepare(SQL)?;
            b.query("COMMIT")?;
            a.query("SET @v = 6")?;
            a.query("PREPARE named FROM 'SELECT @v + 0, @v'")?;
            b.query("PREPARE named FROM 'SELECT @v + 0, @v'")?;
            a.query("SET @v = 'seven'")?;
            for _ in 0..2 {
                notes.push(said(a.query("EXECUTE named")));
                notes.push(said(execute(b, asked.id, 0, &[])));
                b.query("SET @v = 9")?;
                notes.push(said(b.query("EXECUTE named")));
            }
            Ok(())
        },
    )
}

#[test]
fn types_of_user_variables_on_mariadb() -> Result<()> {
    on_mariadb(types_of_user_variables)
}

#[test]
fn types_of_user_variables_on_mysql() -> Result<()> {
    on_mysql(types_of_user_variables)
}

/// What clients have closed, or others do not need now, makes room where the node has none left.
#[test]
fn a_full_node_is_no_reason_to_refuse() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = MariaDb::start_with(&["--max-prepared-stmt-count=4"])?;
    let mut stage = Stage::new(&server.address(), one_connection)?;
    let (mut a, mut b) = (stage.client()?, stage.client()?);
    let kept = a.prepare("SELECT 'kept'")?;
    for n in 0..10 {
        let closed = b.prepare(&format!("SELECT 'closed {n}'"))?;
        assert_eq!(value(&mut b, closed.id, 0, &[]), format!("closed {n}"));
        b.close_statement(closed)?;
        // It may have been closed for that, and is prepared again.
        assert_eq!(value(&mut a, kept.id, 0, &[]), "kept");
    }
    // With all of the node's in use on this server session, the node's own words are the answer.
    let pending: Vec<u32> = (0..4)
        .map(|n| -> Result<u32> {
            let id = a.prepare(&format!("SELECT CONCAT({n}, ?)"))?.id;
            long_data(&mut a, id, 0, b" is kept")?;
            Ok(id)
        })
        .collect::<Result<_>>()?;
    let full = a.prepare("SELECT 'no room'").unwrap_err();
    assert!(full.to_string().contains("max_prepared_stmt_count"), "{full}");
    for (n, id) in pending.into_iter().enumerate() {
        assert_eq!(value(&mut a, id, 1, &[]), format!("{n} is kept"));
    }
    stage.belay.assert_healthy()
}
