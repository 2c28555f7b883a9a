//! The model servers of `tests/model` against the real ones: the same scripts, answers compared field by field.

use belay_integration::model_check::{Bench, Checked};
use belay_integration::model_server::ModelServer;
use belay_integration::servers::{APP, APP2, MySql, mysql};
use belay_integration::wire::{Login, Wire, caps};
use belay_integration::{Result, shared};
use belay_model::Dialect;
use belay_model::act::{Act, line, script, tracking};
use belay_model::generate::{conversation, objects, tables};

fn login() -> Login<'static> {
    Login::new(APP, APP).schema("test").with(caps::SESSION_TRACK | caps::MULTI_STATEMENTS)
}

/// Runs one script file on both.
fn run(dialect: Dialect, address: &str, login: Login<'_>, text: &str) -> Result<Checked> {
    let mut bench = Bench::new(dialect, address, &[login, login, login])?;
    bench.goes_on = true;
    if login.user == APP {
        bench.real_only(0, &["DROP TABLE IF EXISTS t, t2, u, shop.it", "DROP VIEW IF EXISTS v1"])?;
    }
    let maria = dialect.is_maria();
    let mut acts: Vec<(usize, Act)> = (0..3).map(|s| (s, Act::Query(tracking(maria).to_owned()))).collect();
    acts.extend(script(text, maria));
    bench.run(&acts)
}

fn told(name: &str, checked: &Checked) -> String {
    let mut text = String::new();
    for (number, what) in &checked.differences {
        text += &format!("\n{name}, step {number}, {what}");
    }
    for what in &checked.refused {
        text += &format!("\n{name}: not modelled: {what}");
    }
    text
}

const SCRIPTS: &[(&str, &str)] = &[
    ("expressions.sql", include_str!("../../tests/model/scripts/expressions.sql")),
    ("variables.sql", include_str!("../../tests/model/scripts/variables.sql")),
    ("statements.sql", include_str!("../../tests/model/scripts/statements.sql")),
    ("prepared.sql", include_str!("../../tests/model/scripts/prepared.sql")),
    ("waits.sql", include_str!("../../tests/model/scripts/waits.sql")),
    ("roles.sql", include_str!("../../tests/model/scripts/roles.sql")),
    ("routines.sql", include_str!("../../tests/model/scripts/routines.sql")),
];

fn scripts(dialect: Dialect, address: &str) -> Result<()> {
    let mut text = String::new();
    for (name, script) in SCRIPTS {
        let account = if *name == "roles.sql" { APP2 } else { APP };
        let login = Login { user: account, password: account, ..login() };
        let checked = run(dialect, address, login, script).map_err(|e| format!("{name}: {e}"))?;
        assert!(checked.compared > 5, "{name}: nothing was compared");
        text += &told(name, &checked);
    }
    if text.is_empty() { Ok(()) } else { Err(text.into()) }
}

#[test]
fn all_scripts_say_the_same_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    scripts(Dialect::MariaDb, &server.address())
}

#[test]
fn all_scripts_say_the_same_on_mysql() -> Result<()> {
    if !mysql::is_available() {
        eprintln!("SKIPPED: MySQL is not set up");
        return Ok(());
    }
    let server = shared::mysql()?;
    scripts(Dialect::MySql, &address(&server))
}

/// MySQL's passwords pass over its unix socket only.
fn address(server: &MySql) -> String {
    format!("unix:{}", server.socket().display())
}

const SESSIONS: usize = 3;
const STEPS: usize = 60;

/// One seed's script on both.
fn seed(dialect: Dialect, address: &str, seed: u64, steps: usize) -> Result<(Checked, Vec<(usize, Act)>)> {
    let maria = dialect.is_maria();
    let mut bench = Bench::new(dialect, address, &[login(), login(), login()])?;
    bench.real_only(0, &["DROP TABLE IF EXISTS g, h"])?;
    bench.model_only(0, &objects());
    let mut acts: Vec<(usize, Act)> = tables().into_iter().map(|act| (0, act)).collect();
    acts.extend((0..SESSIONS).map(|s| (s, Act::Query(tracking(maria).to_owned()))));
    acts.extend(conversation(seed, maria, SESSIONS, steps));
    let told = |e| {
        let script: Vec<String> = acts.iter().skip(tables().len()).map(|(s, act)| line(*s, act)).collect();
        format!("seed {seed}: {e}; the script:\n    {}", script.join("\n    "))
    };
    let checked = bench.run(&acts).map_err(told)?;
    Ok((checked, acts))
}

/// `BELAY_MODEL_SEED=n` runs that seed alone, `BELAY_MODEL_SEEDS=n` so many.
fn seeds(dialect: Dialect, address: &str, test: &str) -> Result<()> {
    let number = |name: &str| std::env::var(name).ok().and_then(|v| v.parse::<u64>().ok());
    // The code is made once; the tables it speaks of, for each seed.
    let mut first = Bench::new(dialect, address, &[login()])?;
    let made = first.run(&objects().into_iter().map(|act| (0, act)).collect::<Vec<_>>())?;
    drop(first);
    let _ = made;
    let seeds = match number("BELAY_MODEL_SEED") {
        Some(one) => one..one + 1,
        None => 1..number("BELAY_MODEL_SEEDS").unwrap_or(120) + 1,
    };
    let (mut compared, mut faults) = (0, String::new());
    let mut refused = std::collections::BTreeMap::new();
    let all = seeds.clone().count();
    let mut failed = 0;
    for one in seeds {
        let (checked, acts) = match seed(dialect, address, one, STEPS) {
            Ok(made) => made,
            Err(e) => {
                failed += 1;
                faults += &format!("\n{e}");
                if failed > 40 {
                    break;
                }
                continue;
            }
        };
        compared += checked.compared;
        for what in &checked.refused {
            *refused.entry(what.rsplit("unsupported: ").next().unwrap_or_default().to_owned()).or_insert(0u32) += 1;
        }
        let Some((number, what)) = checked.differences.first() else { continue };
        failed += 1;
        if failed > 12 {
            continue;
        }
        faults += &format!(
            "\nseed {one}, step {number}, {what}\n  replay: BELAY_MODEL_SEED={one} cargo test -p belay-integration --test model {test}\n"
        );
        if failed == 1 || std::env::var_os("BELAY_MODEL_SEED").is_some() {
            faults += "  the script up to there:\n";
            for (session, act) in acts.iter().take(number + 1).skip(tables().len()) {
                faults += &format!("    {}\n", line(*session, act));
            }
        }
    }
    println!("{all} seeds, {compared} answers compared, not modelled: {refused:?}");
    if faults.is_empty() { Ok(()) } else { Err(format!("{failed} of {all} seeds differ:{faults}").into()) }
}

#[test]
fn random_conversations_say_the_same_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    seeds(Dialect::MariaDb, &server.address(), "random_conversations_say_the_same_on_mariadb")
}

#[test]
fn random_conversations_say_the_same_on_mysql() -> Result<()> {
    if !mysql::is_available() {
        eprintln!("SKIPPED: MySQL is not set up");
        return Ok(());
    }
    let server = shared::mysql()?;
    seeds(Dialect::MySql, &address(&server), "random_conversations_say_the_same_on_mysql")
}

/// The model on a socket: a client takes it for a server.
#[test]
fn clients_speak_to_the_model_on_a_socket() -> Result<()> {
    for dialect in [Dialect::MariaDb, Dialect::MySql] {
        let model = ModelServer::start(dialect, 2)?;
        let address = model.address(0);
        let mut one = Wire::login(&address, &login())?;
        let mut other = Wire::login(&address, &login())?;
        one.query("CREATE TABLE t(id INT PRIMARY KEY AUTO_INCREMENT, a INT)")?;
        one.query("BEGIN")?;
        assert_eq!(one.query("INSERT INTO t(a) VALUES(5), (6)")?.affected(), 2);
        assert_eq!(other.text("SELECT COUNT(*) FROM t")?, "0");
        // Waits for the lock, and goes on when it is free.
        let waits = std::thread::spawn(move || other.query("UPDATE t SET a = a + 1").map(|r| r.affected()));
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!waits.is_finished());
        one.query("COMMIT")?;
        assert_eq!(waits.join().map_err(|_| "the waiting client panicked")??, 2);
        assert_eq!(Wire::login(&model.address(1), &login())?.text("SELECT SUM(a) FROM t")?, "13");
        model.with(|cluster| cluster.crash(0));
        assert!(one.query("SELECT 1").is_err(), "a session outlived its node");
        assert_eq!(Wire::login(&address, &Login::new(APP, "wrong")).err().map(|e| e.code()), Some(0));
        model.with(|cluster| cluster.restart(0));
        assert_eq!(Wire::login(&address, &Login::new(APP, "wrong")).err().map(|e| e.code()), Some(1045));
    }
    Ok(())
}
