//! The rows of the table in docs/failures.md: a node breaks at a chosen packet, under text and under prepared statements, and the client sees what the
//! row says: the answer, or one true error, and its connection stays.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::faults::{Act, Fault, Faults, Point};
use belay_integration::process::wait_for;
use belay_integration::servers::{APP, Galera, admin_connection};
use belay_integration::wire::{Login, Reply, Statement, Wire, WireError, WireResult};
use belay_integration::{Result, shared};

/// How a client says its statements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Text,
    Prepared,
}

const BOTH: [How; 2] = [How::Text, How::Prepared];

/// A statement that is ready to be said.
struct Ready<'a> {
    sql: &'a str,
    statement: Option<Statement>,
}

impl<'a> Ready<'a> {
    fn new(wire: &mut Wire, how: How, sql: &'a str) -> Result<Ready<'a>> {
        let statement = if how == How::Prepared { Some(wire.prepare(sql)?) } else { None };
        Ok(Ready { sql, statement })
    }

    fn run(&self, wire: &mut Wire) -> WireResult<Reply> {
        match self.statement {
            None => wire.query(self.sql),
            Some(statement) => wire.execute(statement, &[]),
        }
    }

    /// What a fault finds the request by: COM_STMT_EXECUTE has no text.
    fn mark(&self) -> &str {
        if self.statement.is_some() { "\u{17}" } else { self.sql }
    }
}

/// The first value of an answer; the statement must select a string.
fn value(reply: &Reply, how: How) -> Option<String> {
    let Reply::Rows(rows) = reply else { return None };
    if how == How::Text {
        return rows.first_value();
    }
    // A binary row: header, one byte of NULL bits, the string with its length before it.
    let row = rows.rows.first()?.first()?.as_ref()?;
    Some(String::from_utf8_lossy(row.get(3..)?).into_owned())
}

/// Three nodes, a proxy that can break before each, and belay in front of them.
struct Stage {
    faults: Vec<Faults>,
    belay: Belay,
    admin: Wire,
    nodes: Vec<String>,
}

static TAG: AtomicUsize = AtomicUsize::new(0);

impl Stage {
    fn galera(cluster: &Galera, options: impl FnOnce(Options) -> Options) -> Result<Stage> {
        let faults: Vec<Faults> = cluster.addresses().iter().map(|a| Faults::start(a)).collect::<Result<_>>()?;
        let belay = options(Options::new(faults.iter().map(Faults::address))).start()?;
        let mut admin = cluster.node(0)?.admin()?;
        // It looks at what was done through whichever node.
        admin.query("SET wsrep_sync_wait = 1")?;
        admin.query("CREATE OR REPLACE TABLE test.done (id INT PRIMARY KEY AUTO_INCREMENT, tag VARCHAR(40))")?;
        admin.query("CREATE OR REPLACE FUNCTION test.leaves_a_row(t VARCHAR(40)) RETURNS VARCHAR(9) DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO test.done (tag) VALUES (t); RETURN 'seen'; END")?;
        Ok(Stage { faults, belay, admin, nodes: cluster.addresses() })
    }

    fn client(&self) -> Result<Wire> {
        Ok(Wire::login(self.belay.address(), &Login::new(APP, APP).schema("test"))?)
    }

    /// The proxy before the writer, when every node serves.
    fn writer(&self) -> Result<&Faults> {
        wait_for("a writer among nodes that all serve", Duration::from_secs(60), || {
            let metrics = self.belay.metrics().ok()?;
            let serving = metrics.sum("belay_node_state", &["state=\"serving\""]);
            let is_writer =
                |f: &&Faults| metrics.sum("belay_node_writer", &[&format!("node=\"{}\"", f.address())]) == 1.0;
            (serving == self.faults.len() as f64).then(|| self.faults.iter().find(is_writer)).flatten()
        })
    }

    fn masked(&self, what: &str) -> Result<f64> {
        Ok(self.belay.metrics()?.sum("belay_masked_total", &[&format!("what=\"{what}\"")]))
    }

    /// Closes all server sessions in the pool, so that the next statement needs a new one.
    fn close_idle(&self) -> Result<()> {
        for node in &self.nodes {
            let mut admin = admin_connection(node)?;
            let found = admin.query("SELECT ID FROM information_schema.PROCESSLIST WHERE USER = 'app'")?.rows().texts();
            for id in found.iter().flatten() {
                match admin.query(&format!("KILL CONNECTION {id}")) {
                    Err(WireError::Server { code: 1094, .. }) | Ok(_) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            wait_for("the server sessions to end", Duration::from_secs(10), || {
                let left = admin.text("SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'app'").ok()?;
                (left == "0").then_some(())
            })?;
        }
        Ok(())
    }

    /// A tag that no other statement has.
    fn tag(&self) -> String {
        format!("t{}", TAG.fetch_add(1, Ordering::Relaxed))
    }

    /// How often a statement with this tag took effect.
    fn effects(&mut self, tag: &str) -> Result<usize> {
        Ok(self.admin.text(&format!("SELECT COUNT(*) FROM test.done WHERE tag = '{tag}'"))?.parse()?)
    }
}

/// What the client must see.
#[derive(Clone, Copy, Debug)]
enum Sees {
    /// This value, or (empty) an OK.
    Answer(&'static str),
    /// This error, with these words in it.
    Error(u16, &'static str),
}

/// How often the statement may have taken effect afterwards; nothing ever twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Never,
    Once,
    AtMostOnce,
}

/// One row: what was said before, what breaks under which statement, and what comes of it. `{tag}` is replaced by a tag of its own.
#[derive(Clone, Copy, Debug)]
struct Row {
    before: &'static [&'static str],
    sql: &'static str,
    fault: fn(Point, &str) -> Fault,
    point: Point,
    act: Act,
    sees: Sees,
    effect: Effect,
}

const READ: &str = "SELECT CAST(40 + 2 AS CHAR)";
const INSERT: &str = "INSERT INTO done (tag) VALUES ('{tag}')";
const UNKNOWN: Sees = Sees::Error(1105, "unknown");
const LOST: Sees = Sees::Error(1213, "");

const fn row(before: &'static [&'static str], sql: &'static str, point: Point, sees: Sees, effect: Effect) -> Row {
    Row { before, sql, fault: Fault::after, point, act: Act::Die, sees, effect }
}

impl Row {
    /// The packet does not arrive.
    const fn before(self) -> Row {
        Row { fault: Fault::before, ..self }
    }

    /// Only the connection breaks; the node lives.
    const fn reset(self) -> Row {
        Row { act: Act::Reset, ..self }
    }

    fn play(&self, stage: &mut Stage, how: How) -> Result<()> {
        let tag = stage.tag();
        let mut wire = stage.client()?;
        let sql = self.sql.replace("{tag}", &tag);
        for statement in self.before {
            wire.query(&statement.replace("{tag}", &tag))?;
        }
        let ready = Ready::new(&mut wire, how, &sql)?;
        let (writer, fired) = (stage.writer()?, stage.writer()?.fired());
        writer.arm((self.fault)(self.point, ready.mark()), self.act);
        let said = ready.run(&mut wire);
        writer.wait_fired(fired + 1, Duration::from_secs(5))?;
        match (self.sees, &said) {
            (Sees::Answer(""), Ok(Reply::Ok { .. })) => {}
            (Sees::Answer(wanted), Ok(reply)) if value(reply, how).as_deref() == Some(wanted) => {}
            (Sees::Error(code, words), Err(WireError::Server { code: got, message, .. }))
                if code == *got && message.contains(words) => {}
            _ => return Err(format!("{said:?} instead of {:?}", self.sees).into()),
        }
        if writer.fired() != fired + 1 {
            return Err("it happened twice".into());
        }
        writer.revive()?;
        // The connection stays, without a word more about what was lost.
        assert_eq!(wire.text(READ)?, "42");
        assert_eq!(wire.query("ROLLBACK")?.affected(), 0);
        let effects = stage.effects(&tag)?;
        let right = match self.effect {
            Effect::Never => effects == 0,
            Effect::Once => effects == 1,
            Effect::AtMostOnce => effects < 2,
        };
        if right { Ok(()) } else { Err(format!("it took effect {effects} times").into()) }
    }
}

/// Plays rows with text and prepared statements; all are played, and every one that goes wrong is named.
fn play(stage: &mut Stage, rows: &[Row]) -> Result<()> {
    let mut wrong = Vec::new();
    for row in rows {
        for how in BOTH {
            if let Err(e) = row.play(stage, how) {
                wrong.push(format!("{how:?} {row:?}: {e}"));
                for faults in &stage.faults {
                    faults.disarm();
                    faults.revive()?;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} rows went wrong:\n{}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn reads_run_again_wherever_their_node_dies() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let mut stage = Stage::galera(&cluster, |o| o)?;
    let answer = |point| row(&[], READ, point, Sees::Answer("42"), Effect::Never);
    let rows = [
        answer(Point::Request).before(),
        answer(Point::Request),
        answer(Point::Answer).before(),
        answer(Point::AnswerBytes(7)),
        answer(Point::FirstRow).before(),
        answer(Point::FirstRow),
        answer(Point::End).before(),
    ];
    play(&mut stage, &rows)?;
    assert_eq!(stage.masked("read_again")?, 2.0 * rows.len() as f64);
    let ok = |before, sql| row(before, sql, Point::Request, Sees::Answer(""), Effect::Never);
    play(
        &mut stage,
        &[
            ok(&[], "SET @word = 'kept'"),
            ok(&[], "SET time_zone = '+03:00'"),
            ok(&[], "BEGIN"),
            row(&["SET @word = 'kept'"], "SELECT @word", Point::Request, Sees::Answer("kept"), Effect::Never),
        ],
    )?;
    stage.belay.assert_healthy()
}

#[test]
fn what_may_have_been_done_is_never_sent_again() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let mut stage = Stage::galera(&cluster, |o| o)?;
    stage.admin.query("CREATE OR REPLACE VIEW test.innocent AS SELECT test.leaves_a_row('view') AS x")?;
    let unknown = |before, sql, point| row(before, sql, point, UNKNOWN, Effect::AtMostOnce);
    const OPEN: &[&str] = &["BEGIN", INSERT];
    let rows = [
        unknown(&[], INSERT, Point::Request).before(),
        unknown(&[], INSERT, Point::Request),
        unknown(&[], INSERT, Point::Request).reset(),
        Row { effect: Effect::Once, ..unknown(&[], INSERT, Point::Ok).before() },
        unknown(OPEN, "COMMIT", Point::Request).before(),
        unknown(OPEN, "COMMIT", Point::Request),
        unknown(OPEN, "COMMIT", Point::Request).reset(),
        Row { effect: Effect::Once, ..unknown(OPEN, "COMMIT", Point::Ok).before() },
        unknown(OPEN, "CREATE OR REPLACE TABLE test.implicit (id INT)", Point::Request),
        unknown(OPEN, "BEGIN", Point::Request),
        unknown(&[], "SELECT leaves_a_row('{tag}')", Point::Request),
        unknown(&[], "SELECT @a := '1'", Point::Request),
        unknown(&[], "SELECT tag FROM done FOR UPDATE", Point::Request),
        unknown(&[], "SELECT x FROM innocent", Point::Request),
        unknown(&[], "SET @a = (SELECT x FROM innocent)", Point::Request),
        unknown(&[], "SET @a = 1, sql_mode = (SELECT IF(x = 'seen', '', 'ANSI') FROM innocent)", Point::Request),
        unknown(&[], "SHOW TABLES WHERE (SELECT x FROM innocent) = 'seen'", Point::Request),
    ];
    play(&mut stage, &rows)?;
    assert_eq!(stage.masked("read_again")?, 0.0);
    stage.belay.assert_healthy()
}

#[test]
fn a_transaction_that_was_lost_is_told_once() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let mut stage = Stage::galera(&cluster, |o| o)?;
    const OPEN: &[&str] = &["BEGIN", INSERT];
    let lost = |before, sql, point| row(before, sql, point, LOST, Effect::Never);
    play(
        &mut stage,
        &[
            lost(&["BEGIN"], INSERT, Point::Request).before(),
            lost(&["BEGIN"], INSERT, Point::Ok).before(),
            lost(OPEN, READ, Point::Request),
            lost(OPEN, READ, Point::Request).reset(),
            lost(OPEN, READ, Point::FirstRow).before(),
            lost(&["SET autocommit = 0"], READ, Point::Request),
            lost(&["SET autocommit = 0", INSERT], READ, Point::Request),
        ],
    )?;
    // Lost while its client idles: ROLLBACK is true already, everything else is told.
    for how in BOTH {
        for next in ["ROLLBACK", "COMMIT", READ, INSERT, "BEGIN", "SET @a = 1"] {
            let tag = stage.tag();
            let mut wire = stage.client()?;
            let (insert, next_sql) = (INSERT.replace("{tag}", &tag), next.replace("{tag}", &tag));
            let ready = Ready::new(&mut wire, how, &next_sql)?;
            wire.query("BEGIN")?;
            wire.query(&insert)?;
            let writer = stage.writer()?;
            writer.die()?;
            let said = ready.run(&mut wire);
            match (next, &said) {
                ("ROLLBACK", Ok(_)) => {}
                ("ROLLBACK", Err(e)) => panic!("{how:?}: {e}"),
                (_, Err(WireError::Server { code: 1213, .. })) => {}
                _ => panic!("{how:?} {next}: {said:?}"),
            }
            assert_eq!(wire.text(READ)?, "42");
            assert_eq!(wire.query("COMMIT")?.affected(), 0);
            writer.revive()?;
            assert_eq!(stage.effects(&tag)?, 0, "{how:?} {next}");
        }
    }
    assert_eq!(stage.masked("rollback")?, 2.0);
    stage.belay.assert_healthy()
}

#[test]
fn state_that_died_with_its_server_is_named_once() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let mut stage = Stage::galera(&cluster, |o| o)?;
    const PINNED: &[&str] = &["CREATE TEMPORARY TABLE mine (id INT)"];
    let gone = Sees::Error(1105, "temporary_table");
    play(
        &mut stage,
        &[
            row(PINNED, READ, Point::Request, gone, Effect::Never),
            row(PINNED, READ, Point::FirstRow, gone, Effect::Never).before(),
            row(PINNED, INSERT, Point::Request, UNKNOWN, Effect::AtMostOnce),
            row(&["CREATE TEMPORARY TABLE mine (id INT)", "BEGIN"], INSERT, Point::Request, LOST, Effect::Never),
        ],
    )?;
    let mut wire = stage.client()?;
    wire.query(PINNED[0])?;
    let writer = stage.writer()?;
    writer.die()?;
    let error = wire.query("SELECT COUNT(*) FROM mine").unwrap_err();
    assert!(error.code() == 1105 && error.to_string().contains("temporary_table"), "{error}");
    assert_eq!(wire.query("SELECT COUNT(*) FROM mine").unwrap_err().code(), 1146);
    writer.revive()?;
    stage.belay.assert_healthy()
}

#[test]
fn a_read_whose_connection_alone_broke_does_not_run_again() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let mut stage = Stage::galera(&cluster, |o| o)?;
    let cut = |point| row(&[], READ, point, Sees::Error(1317, ""), Effect::Never).reset();
    play(&mut stage, &[cut(Point::Request), cut(Point::Answer).before(), cut(Point::FirstRow)])?;
    // By KILL, from a connection that belay does not know.
    let port = stage.belay.port();
    for how in BOTH {
        let mut wire = stage.client()?;
        let long = "SELECT MAX(a.seq * b.seq) FROM test.numbers_10k a, test.numbers_10k b";
        stage.admin.query("CREATE TABLE IF NOT EXISTS test.numbers_10k AS SELECT seq FROM test.seq_1_to_10000")?;
        let ready = Ready::new(&mut wire, how, long)?;
        let find =
            format!("SELECT ID FROM information_schema.PROCESSLIST WHERE INFO = '{long}' AND COMMAND <> 'Sleep'");
        let nodes = cluster.addresses();
        let killer = std::thread::spawn(move || -> std::result::Result<(), String> {
            wait_for("the statement to run", Duration::from_secs(20), || {
                nodes.iter().find_map(|node| {
                    let mut admin = admin_connection(node).ok()?;
                    let id = admin.value(&find).ok()??;
                    admin.query(&format!("KILL CONNECTION {id}")).ok()
                })
            })
            .map(|_| ())
            .map_err(|e| e.to_string())
        });
        let said = ready.run(&mut wire);
        killer.join().map_err(|_| "the killer failed")??;
        assert!(said.as_ref().is_err_and(|e| matches!(e.code(), 1317 | 1927)), "{how:?} {said:?} (port {port})");
        assert_eq!(wire.text(READ)?, "42");
    }
    assert_eq!(stage.masked("read_again")?, 0.0);
    stage.belay.assert_healthy()
}

#[test]
fn what_breaks_before_the_statement_is_sent_goes_unnoticed() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    // One server session a node, so that whoever comes next finds the state of another.
    let mut stage = Stage::galera(&cluster, |o| o.server_connections_max(1))?;
    let dials = [
        Fault::before(Point::Greeting, ""),
        Fault::after(Point::Greeting, ""),
        Fault::before(Point::LoginResponse, APP),
        Fault::after(Point::LoginResponse, APP),
        Fault::before(Point::LoginOk, APP),
        Fault::after(Point::LoginOk, APP),
        Fault::before(Point::Request, "SHOW SESSION VARIABLES"),
        Fault::after(Point::FirstRow, "SHOW SESSION VARIABLES"),
    ];
    let replays = [
        Fault::before(Point::Request, "time_zone="),
        Fault::after(Point::Request, "time_zone="),
        Fault::before(Point::Ok, "time_zone="),
    ];
    for how in BOTH {
        for act in [Act::Die, Act::Reset] {
            for fault in &dials {
                unnoticed(&mut stage, how, fault, act, true)?;
            }
            for fault in &replays {
                unnoticed(&mut stage, how, fault, act, false)?;
            }
        }
    }
    assert!(stage.masked("not_sent")? > 0.0);
    stage.belay.assert_healthy()
}

/// A write for which a server session must be dialled, or made equal, first.
fn unnoticed(stage: &mut Stage, how: How, fault: &Fault, act: Act, dial: bool) -> Result<()> {
    let tag = stage.tag();
    let insert = INSERT.replace("{tag}", &tag);
    let mut wire = stage.client()?;
    let ready = Ready::new(&mut wire, how, &insert)?;
    wire.query("SET time_zone = '+09:00'")?;
    if dial {
        stage.close_idle()?;
    } else {
        let mut other = stage.client()?;
        other.query("SET time_zone = '-09:00'")?;
        for _ in 0..8 {
            other.query(READ)?;
        }
    }
    let writer = stage.writer()?;
    let fired = writer.fired();
    writer.arm(fault.clone(), act);
    let said = ready.run(&mut wire).map_err(|e| format!("{how:?} {act:?} {fault:?}: {e}"))?;
    assert_eq!(said.affected(), 1);
    writer.wait_fired(fired + 1, Duration::from_secs(5)).map_err(|e| format!("{how:?} {act:?} {fault:?}: {e}"))?;
    writer.revive()?;
    assert_eq!(stage.effects(&tag)?, 1, "{how:?} {act:?} {fault:?}");
    assert_eq!(wire.text("SELECT @@time_zone")?, "+09:00");
    Ok(())
}

#[test]
fn an_answer_that_was_cut_ends_in_an_error_or_with_the_connection() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let stage = Stage::galera(&cluster, |o| o)?;
    let sql = "SELECT REPEAT('x', 100) FROM seq_1_to_50000";
    let mut in_place = 0;
    // In the middle of a row; and between the last row and the end, by a FIN: a RST throws away what was not read yet, which leaves half a row.
    let cuts = [
        (50_000, Point::AnswerBytes(100_000), Act::Die),
        (900_000, Point::AnswerBytes(2_000_003), Act::Die),
        (5_000_000, Point::End, Act::Close),
    ];
    for how in BOTH {
        for (pause, cut, act) in cuts {
            let mut wire = stage.client()?;
            let ready = Ready::new(&mut wire, how, sql)?;
            let writer = stage.writer()?;
            let again = stage.masked("read_again")?;
            // belay gets time to pass on what came before.
            writer.arm(Fault::before(Point::AnswerBytes(pause), ready.mark()), Act::Delay(Duration::from_millis(300)));
            writer.arm(Fault::before(cut, ready.mark()), act);
            match ready.run(&mut wire) {
                Err(WireError::Server { code: 1105, message, .. }) => {
                    assert!(message.contains("incomplete"), "{message}");
                    in_place += 1;
                    assert_eq!(wire.text(READ)?, "42");
                }
                // Half a row had passed: no error can follow it.
                Err(WireError::Io(_)) => {}
                // A machine so busy that nothing had passed yet: the read ran again, and is whole.
                Ok(reply) if stage.masked("read_again")? > again => assert_eq!(reply.rows().rows.len(), 50_000),
                other => panic!("{how:?} cut at {cut:?}: {:?}", other.map(|_| "an answer")),
            }
            writer.revive()?;
        }
    }
    assert!(in_place >= BOTH.len(), "an answer that was cut between rows did not end in an error");
    Ok(())
}

#[test]
fn a_loss_that_is_told_late_is_not_laid_at_the_next_node() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let cluster = shared::galera()?;
    let stage = Stage::galera(&cluster, |o| o)?;
    let mut wire = stage.client()?;
    // Long enough that a session which is told of a loss is told before the answer.
    let read = "SELECT SLEEP(0.7), CAST(40 + 2 AS CHAR)";
    let writer = stage.writer()?;
    // The node's probes fall silent; a little later the read's connection breaks. While the session waits for a probe that began after that, the
    // node is found to be down, and all who have a server session there are told so, this session too.
    let fired = writer.fired();
    for _ in 0..8 {
        writer.arm(Fault::before(Point::Request, "SHOW GLOBAL STATUS WHERE"), Act::Silence);
    }
    writer.arm(Fault::before(Point::Answer, read), Act::Reset);
    writer.wait_fired(fired + 1, Duration::from_secs(10))?;
    let said = wire.query(read);
    writer.disarm();
    writer.revive()?;
    let row = said.map_err(|e| format!("the read that ran again was cut off: {e}"))?.rows().texts();
    assert_eq!(row, [["0", "42"]]);
    assert_eq!(stage.masked("read_again")?, 1.0);
    Ok(())
}
