//! Logins: the accounts of the servers, and nothing else, open the door.

use std::time::Duration;

use belay_integration::belay::{Belay, Options};
use belay_integration::clients::{mariadb, run_python};
use belay_integration::paths::Scratch;
use belay_integration::process::wait_for;
use belay_integration::servers::{ADMIN, APP, APP2, MariaDb};
use belay_integration::tls::Tls;
use belay_integration::wire::{Login, Wire, WireError};
use belay_integration::{Result, shared};

fn refusal(address: &str, login: &Login<'_>) -> Result<(u16, String)> {
    match Wire::login(address, login) {
        Err(WireError::Server { code, message, .. }) => Ok((code, message)),
        Err(e) => Err(e.into()),
        Ok(_) => Err(format!("{login:?} was let in").into()),
    }
}

#[test]
fn refusals_read_as_the_servers_own() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Belay::start([server.address()])?;
    for (login, code) in [
        (Login::new(APP, "wrong"), 1045),
        (Login::new(APP, ""), 1045),
        (Login::new("nobody_here", "x"), 1045),
        (Login::new("", ""), 1045),
        (Login::new(APP, APP).schema("no_such_schema"), 1044),
        (Login::new(ADMIN, ADMIN).schema("no_such_schema"), 1049),
        (Login::new(APP2, APP2).schema("shop"), 1044),
    ] {
        let direct = refusal(&server.address(), &login)?;
        assert_eq!(direct.0, code, "{login:?}");
        // Asked three times, because a second attempt may find what the first left in a cache.
        for _ in 0..3 {
            assert_eq!(refusal(belay.address(), &login)?, direct, "{login:?}");
        }
    }
    Wire::login(belay.address(), &Login::new(APP, APP))?;
    belay.assert_healthy()
}

#[test]
fn every_client_is_who_it_says() -> Result<()> {
    let server = shared::mariadb()?;
    let mut admin = server.admin()?;
    admin.query_all("CREATE OR REPLACE USER app@'127.0.0.1' IDENTIFIED BY 'app'")?;
    let through = || -> Result<String> {
        let belay = Options::new([server.address()]).server_connections_max(2).start()?;
        let mut app = Wire::login(belay.address(), &Login::new(APP, APP))?;
        let mut app2 = Wire::login(belay.address(), &Login::new(APP2, APP2))?;
        for _ in 0..20 {
            assert_eq!(app.text("SELECT CURRENT_USER()")?, "app@127.0.0.1");
            assert_eq!(app2.text("SELECT CURRENT_USER()")?, "app2@%");
        }
        app.text("SELECT CURRENT_USER()").map_err(Into::into)
    };
    let found = through();
    admin.query("DROP USER app@'127.0.0.1'")?;
    assert_eq!(found?, "app@127.0.0.1");
    Ok(())
}

#[test]
fn a_changed_password_is_noticed() -> Result<()> {
    let server = shared::mariadb()?;
    let mut admin = server.admin()?;
    admin.query("CREATE OR REPLACE USER turn@'%' IDENTIFIED BY 'one'")?;
    let belay = Belay::start([server.address()])?;
    let mut client = Wire::login(belay.address(), &Login::new("turn", "one"))?;
    assert_eq!(client.text("SELECT 1")?, "1");
    admin.query("ALTER USER turn@'%' IDENTIFIED BY 'two'")?;
    // The default of accounts_interval_ms is 2 s.
    wait_for("the new password", Duration::from_secs(6), || {
        Wire::login(belay.address(), &Login::new("turn", "two")).ok().map(|_| ())
    })?;
    assert_eq!(refusal(belay.address(), &Login::new("turn", "one"))?.0, 1045);
    admin.query("DROP USER turn@'%'")?;
    wait_for("the account's end", Duration::from_secs(6), || {
        refusal(belay.address(), &Login::new("turn", "two")).ok().filter(|(code, _)| *code == 1045).map(|_| ())
    })?;
    Ok(())
}

#[test]
fn a_new_account_needs_no_restart() -> Result<()> {
    let server = shared::mariadb()?;
    let mut admin = server.admin()?;
    let belay = Belay::start([server.address()])?;
    admin.query("CREATE OR REPLACE USER fresh@'%' IDENTIFIED BY 'f'")?;
    wait_for("the new account", Duration::from_secs(6), || {
        Wire::login(belay.address(), &Login::new("fresh", "f")).ok().map(|_| ())
    })?;
    admin.query("DROP USER fresh@'%'")?;
    Ok(())
}

#[test]
fn an_account_without_a_password_logs_in_without_one() -> Result<()> {
    let server = shared::mariadb()?;
    let mut admin = server.admin()?;
    admin.query("CREATE OR REPLACE USER open@'%'")?;
    let belay = Belay::start([server.address()])?;
    let mut client = Wire::login(belay.address(), &Login::new("open", ""))?;
    assert_eq!(client.text("SELECT CURRENT_USER()")?, "open@%");
    assert_eq!(refusal(belay.address(), &Login::new("open", "x"))?.0, 1045);
    admin.query("DROP USER open@'%'")?;
    Ok(())
}

#[test]
fn change_user_is_a_login() -> Result<()> {
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    let mut client = Wire::login(belay.address(), &Login::new(APP, APP).schema("shop"))?;
    client.query("SET @a = 1, sql_mode = 'ANSI'")?;
    client.change_user(&Login::new(APP2, APP2).schema("test"))?;
    assert_eq!(client.text("SELECT CURRENT_USER()")?, "app2@%");
    assert_eq!(client.text("SELECT CONCAT_WS(',', DATABASE(), @a, @@sql_mode LIKE '%ANSI%')")?, "test,0");
    assert_eq!(client.query("SELECT * FROM shop.item").unwrap_err().code(), 1142);
    assert_eq!(client.change_user(&Login::new(APP, "wrong")).unwrap_err().code(), 1045);
    belay.assert_healthy()
}

#[test]
fn unix_sockets_on_both_sides() -> Result<()> {
    let server = shared::mariadb()?;
    let dir = Scratch::new("socket")?;
    let path = dir.path().join("belay.sock");
    let node = format!("unix:{}", server.socket().display());
    let belay =
        Options::new([node]).set("listen", "unix_sockets", format!("[{:?}]", path.display().to_string())).start()?;
    let address = if belay_integration::belay::direct() {
        belay.address().to_owned()
    } else {
        format!("unix:{}", path.display())
    };
    let mut client = Wire::login(&address, &Login::new(APP, APP).schema("shop"))?;
    assert_eq!(client.text("SELECT COUNT(*) FROM item")?, "5");
    if !belay_integration::belay::direct() {
        let arguments = ["0", APP, APP, "unix", &path.display().to_string()].map(str::to_owned);
        assert_eq!(run_python("check.py", &arguments.each_ref().map(String::as_str))?.trim(), "ok");
    }
    Ok(())
}

#[test]
fn tls_can_be_required_and_verified_on_both_sides() -> Result<()> {
    if belay_integration::belay::direct() {
        return Ok(());
    }
    let tls = Tls::make()?;
    let server = MariaDb::start_tls(&tls)?;
    let quoted = |p: std::path::PathBuf| format!("{:?}", p.display().to_string());
    let mut admin = server.admin()?;
    admin.query("CREATE USER tls_only@'%' IDENTIFIED BY 't' REQUIRE SSL")?;
    let mut belay = Options::new([server.address()])
        .set("listen.tls", "mode", "\"required\"")
        .set("listen.tls", "certificate_file", quoted(tls.server_certificate()))
        .set("listen.tls", "key_file", quoted(tls.server_key()))
        .set("node_tls", "mode", "\"verify-full\"")
        .set("node_tls", "ca_file", quoted(tls.ca()))
        .set("node_tls", "certificate_file", quoted(tls.client_certificate()))
        .set("node_tls", "key_file", quoted(tls.client_key()))
        .start()?;
    let ca = format!("--ssl-ca={}", tls.ca().display());
    let verified = ["--ssl-verify-server-cert", ca.as_str()];
    for (user, password) in [(APP, APP), ("tls_only", "t")] {
        let out = mariadb(belay.port(), user, password, &verified, "SHOW STATUS LIKE 'Ssl_cipher'")?;
        assert!(out.trim().len() > "Ssl_cipher".len(), "the way to the node is not encrypted: {out:?}");
    }
    assert!(Wire::login(belay.address(), &Login::new(APP, APP)).is_err(), "a login without TLS was accepted");
    let plain = mariadb(belay.port(), APP, APP, &["--skip-ssl"], "SELECT 1").unwrap_err().to_string();
    assert!(!plain.contains("2013"), "an error that says why, not a lost connection: {plain}");
    belay.assert_healthy()
}

#[test]
fn an_untrusted_node_is_not_spoken_to() -> Result<()> {
    if belay_integration::belay::direct() {
        return Ok(());
    }
    let server = MariaDb::start_tls(&Tls::make()?)?;
    let other = Tls::make()?;
    let belay = Options::new([server.address()])
        .set("node_tls", "mode", "\"verify-ca\"")
        .set("node_tls", "ca_file", format!("{:?}", other.ca().display().to_string()))
        .no_wait()
        .start()?;
    std::thread::sleep(Duration::from_secs(2));
    let (status, _) = belay_integration::scrape::get(belay.admin_address(), "/readyz", None)?;
    assert_eq!(status, 503);
    assert!(Wire::login(belay.address(), &Login::new(APP, APP)).is_err());
    Ok(())
}
