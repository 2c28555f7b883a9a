//! The character sets of a login: every collation id gives through belay what it gives on the server, on the first statement and after another client's
//! turn on the same server connection.

use std::ops::RangeInclusive;
use std::time::Duration;

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, APP2};
use belay_integration::wire::{Login, Wire, WireError};
use belay_integration::{Result, shared};

const SETS: &str = "SELECT CONCAT_WS(' ', @@character_set_client, @@character_set_connection, \
    IFNULL(@@character_set_results, 'NULL'), @@collation_connection)";

/// What a login led to: the four variables, or the error.
fn told(sets: std::result::Result<String, WireError>) -> Result<String> {
    match sets {
        Ok(sets) => Ok(sets),
        Err(WireError::Server { code, state, message }) => Ok(format!("{code} {state} {message}")),
        Err(e) => Err(e.into()),
    }
}

/// The same for a client with this collation in its login; `other` has its turn on the same server connection, and it is asked again.
fn login(address: &str, other: &mut Wire, id: u16) -> Result<String> {
    let wire = Wire::login(address, &Login::new(APP, APP).collation(id));
    let mut wire = match wire {
        Ok(wire) => wire,
        Err(e) => return told(Err(e)),
    };
    let first = told(wire.text(SETS))?;
    other.query("SELECT 1")?;
    let again = told(wire.text(SETS))?;
    wire.command(0x1f, &[])?;
    let reset = told(wire.text(SETS))?;
    if first != again {
        return Ok(format!("{first}, then {again}"));
    }
    if wire.version.contains("MariaDB") && first.ends_with(" utf8mb4_general_ci") {
        // After a login with an id that it doesn't know, MariaDB goes back to what another connection of the same thread had named.
        return Ok(first);
    }
    Ok(format!("{first}; after a reset {reset}"))
}

/// The same with COM_CHANGE_USER, of one client where servers let it go on.
fn change(address: &str, wire: &mut Option<Wire>, other: &mut Wire, id: u16) -> Result<String> {
    let mut changed = match wire.take() {
        Some(wire) => wire,
        None => Wire::login(address, &Login::new(APP, APP).collation(8))?,
    };
    if let Err(e) = changed.change_user(&Login::new(APP, APP).collation(id)) {
        // What becomes of the connection is another matter.
        return told(Err(e));
    }
    let first = told(changed.text(SETS))?;
    if id.is_multiple_of(8) {
        other.query("SELECT 1")?;
    }
    let again = told(changed.text(SETS))?;
    *wire = Some(changed);
    if first == again { Ok(first) } else { Ok(format!("{first}, then {again}")) }
}

/// Ids that servers refuse, but for one in forty: MariaDB keeps everybody waiting for a second whose COM_CHANGE_USER it refuses.
fn left_out(server: &str) -> Result<Vec<u16>> {
    let mut admin = Wire::login(server, &Login::new(ADMIN, ADMIN))?;
    if !admin.version.contains("MariaDB") {
        return Ok(Vec::new());
    }
    let refused = admin.query(
        "SELECT ID FROM information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL AND \
         CHARACTER_SET_NAME IN ('ucs2', 'utf16', 'utf16le', 'utf32') ORDER BY ID",
    )?;
    let ids = refused.rows().texts().into_iter().flatten().flat_map(|id| id.parse());
    Ok(ids.enumerate().filter(|(n, _)| n % 40 != 0).map(|(_, id)| id).collect())
}

/// Compares both for all of these ids.
fn sweep(server: &str, through: &str, logins: RangeInclusive<u16>, changes: &[RangeInclusive<u16>]) -> Result<()> {
    // The other client of the one server connection has character sets of its own.
    let other = |address: &str| Wire::login(address, &Login::new(APP2, APP2).collation(47));
    let same = |address: &str| Wire::login(address, &Login::new(APP, APP).collation(47));
    let (mut disturb, mut quiet) = (same(through)?, other(server)?);
    let mut faults = Vec::new();
    for id in logins {
        let expected = login(server, &mut quiet, id)?;
        let found = login(through, &mut disturb, id).map_err(|e| format!("login {id}: {e}"))?;
        if expected != found {
            faults.push(format!("login {id}: {expected} on the server, {found} through belay"));
        }
    }
    let (mut there, mut here) = (None, None);
    let left_out = left_out(server)?;
    for id in changes.iter().cloned().flatten().filter(|id| !left_out.contains(id)) {
        let expected = change(server, &mut there, &mut quiet, id)?;
        let found = change(through, &mut here, &mut disturb, id).map_err(|e| format!("change {id}: {e}"))?;
        if expected != found {
            faults.push(format!("COM_CHANGE_USER {id}: {expected} on the server, {found} through belay"));
        }
    }
    let greetings = (Wire::greet(server)?.collation, Wire::greet(through)?.collation);
    if greetings.0 != greetings.1 {
        faults.push(format!("greeting: {} on the server, {} through belay", greetings.0, greetings.1));
    }
    faults.truncate(20);
    if faults.is_empty() { Ok(()) } else { Err(faults.join("\n").into()) }
}

/// A belay with one server connection, on a unix socket too, where MySQL's logins need no key.
fn belay(node: String) -> Result<(Belay, String, Scratch)> {
    let dir = Scratch::new("socket")?;
    let path = dir.path().join("belay.sock").display().to_string();
    let belay =
        Options::new([node]).server_connections_max(1).set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
    Ok((belay, format!("unix:{path}"), dir))
}

/// Server connections that were opened so far.
fn dials(belay: &Belay) -> Result<f64> {
    Ok(belay.metrics()?.sum("belay_server_dials_total", &[]))
}

#[test]
fn every_collation_of_a_login_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    let (mut belay, through, _dir) = belay(server.address())?;
    // Behind 1,023 the ids of MariaDB's own kinds: without padding, and UCA 14.0.0.
    let more = [0..=1300, 2040..=2100, 2300..=2400];
    sweep(&format!("unix:{}", server.socket().display()), &through, 0..=255, &more)?;
    if !direct() {
        let dials = dials(&belay)?;
        assert!(dials < 6.0, "{dials} server connections were opened");
    }
    belay.assert_healthy()
}

#[test]
fn every_collation_of_a_login_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let (mut belay, through, _dir) = belay(server.address())?;
    sweep(&format!("unix:{}", server.socket().display()), &through, 0..=255, &[0..=1023])?;
    if !direct() {
        let dials = dials(&belay)?;
        assert!(dials < 6.0, "{dials} server connections were opened");
    }
    belay.assert_healthy()
}

#[test]
fn every_collation_of_a_login_on_seekdb() -> Result<()> {
    let server = shared::seekdb()?;
    let (mut belay, through, _dir) = belay(server.address())?;
    sweep(&server.address(), &through, 0..=255, &[0..=330])?;
    belay.assert_healthy()
}

/// SET GLOBAL moves what a login gets that names no collation the server has.
fn fallback_moves(server: &str, through: &str) -> Result<()> {
    let mut admin = Wire::login(server, &Login::new(ADMIN, ADMIN))?;
    let globals = ["character_set_client=latin1", "character_set_results=NULL", "collation_connection=cp1251_bin"];
    for assignment in globals {
        admin.query(&format!("SET GLOBAL {assignment}"))?;
    }
    let outcome = (|| -> Result<()> {
        let expected = Wire::login(server, &Login::new(APP, APP).collation(127))?.text(SETS)?;
        assert_eq!(expected, "latin1 cp1251 NULL cp1251_bin");
        let mut found = String::new();
        wait_for("the new fallback", Duration::from_secs(30), || {
            found = Wire::login(through, &Login::new(APP, APP).collation(127)).ok()?.text(SETS).ok()?;
            (found == expected).then_some(())
        })
        .map_err(|e| format!("{e}: {found}"))?;
        // Who names one gets it all the same.
        let named = Wire::login(through, &Login::new(APP, APP).collation(8))?.text(SETS)?;
        assert_eq!(named, "latin1 latin1 latin1 latin1_swedish_ci");
        Ok(())
    })();
    for assignment in globals {
        let name = assignment.split('=').next().unwrap_or_default();
        admin.query(&format!("SET GLOBAL {name}=DEFAULT"))?;
    }
    outcome
}

#[test]
fn the_fallback_is_the_servers_present_one() -> Result<()> {
    let server = shared::mariadb()?;
    let (mut belay, through, _dir) = belay(server.address())?;
    fallback_moves(&server.address(), &through)?;
    belay.assert_healthy()
}

#[test]
fn the_fallback_is_the_servers_present_one_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let (mut belay, through, _dir) = belay(server.address())?;
    fallback_moves(&format!("unix:{}", server.socket().display()), &through)?;
    belay.assert_healthy()
}
