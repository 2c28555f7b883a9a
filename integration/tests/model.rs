//! The model servers of `tests/model` against the real ones: the same scripts, answers compared field by field.

use belay_integration::model_check::{Bench, Checked};
use belay_integration::servers::{APP, APP2, MySql, mysql};
use belay_integration::wire::{Login, caps};
use belay_integration::{Result, shared};
use belay_model::Dialect;
use belay_model::act::{Act, script, tracking};

fn login() -> Login<'static> {
    Login::new(APP, APP).schema("test").with(caps::SESSION_TRACK | caps::MULTI_STATEMENTS)
}

/// Runs one script file on both.
fn run(dialect: Dialect, address: &str, login: Login<'_>, text: &str) -> Result<Checked> {
    let mut bench = Bench::new(dialect, address, &[login, login, login])?;
    bench.goes_on = true;
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
fn scripts_say_the_same_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    scripts(Dialect::MariaDb, &server.address())
}

#[test]
fn scripts_say_the_same_on_mysql() -> Result<()> {
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
