//! What a warm statement costs belay, in counts that do not depend on the machine: user instructions, and calls that take memory from the heap.
//!
//! The limits are the figures of the day they were last lowered, with some room for other versions of libc. A change that needs more has to say why.

use belay_integration::belay::{Options, direct};
use belay_integration::callgrind::{Cost, Counting};
use belay_integration::paths::belay_binary;
use belay_integration::servers::APP;
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};

const STATEMENTS: u32 = 3_000;

/// What one statement may cost.
struct Limit {
    instructions: f64,
    allocations: f64,
}

const TEXT: Limit = Limit { instructions: 17_500.0, allocations: 2.1 };
const PREPARED: Limit = Limit { instructions: 16_000.0, allocations: 2.1 };

fn check(what: &str, cost: Cost, limit: &Limit) -> Result<()> {
    println!("{what}: {:.0} instructions, {:.2} allocations a statement", cost.instructions, cost.allocations);
    // A debug build costs what it costs.
    let release = belay_binary()?.components().any(|part| part.as_os_str() == "release");
    if release && (cost.instructions > limit.instructions || cost.allocations > limit.allocations) {
        let Limit { instructions, allocations } = limit;
        return Err(format!("{what}: {cost:?}, at most {instructions} and {allocations}").into());
    }
    Ok(())
}

#[test]
fn a_warm_point_select() -> Result<()> {
    if direct() {
        return Ok(());
    }
    let server = shared::mariadb()?;
    let mut admin = server.admin()?;
    admin.query("CREATE OR REPLACE TABLE test.point (id INT PRIMARY KEY, c CHAR(120) NOT NULL)")?;
    admin.query("USE test")?;
    admin.query("INSERT INTO point SELECT seq, REPEAT('x', 119) FROM seq_1_to_1000")?;
    let mut counting = Counting::start(Options::new([server.address()]).server_connections_max(2))?;
    let mut wire = Wire::login(counting.belay().address(), &Login::new(APP, APP).schema("test"))?;
    let text = counting.cost(STATEMENTS, |n| {
        (0..n).try_for_each(|i| wire.query(&format!("SELECT c FROM point WHERE id = {}", i % 1000 + 1)).map(drop))?;
        Ok(())
    })?;
    keep(&counting, "text")?;
    let statement = wire.prepare("SELECT c FROM point WHERE id = ?")?;
    let prepared = counting.cost(STATEMENTS, |n| {
        (0..n).try_for_each(|i| wire.execute_i64(statement, i64::from(i % 1000 + 1)).map(drop))?;
        Ok(())
    })?;
    keep(&counting, "prepared")?;
    check("text", text, &TEXT)?;
    check("prepared", prepared, &PREPARED)?;
    counting.belay().assert_healthy()
}

/// For callgrind_annotate: into the directory that `BELAY_CALLGRIND` names.
fn keep(counting: &Counting, what: &str) -> Result<()> {
    match std::env::var_os("BELAY_CALLGRIND") {
        Some(dir) => counting.keep_dump(&std::path::Path::new(&dir).join(format!("callgrind.{what}"))),
        None => Ok(()),
    }
}
