//! Ordinary clients of several languages, with and without TLS, in front of each kind of server.

use std::time::Duration;

use belay_integration::belay::{Belay, Options};
use belay_integration::clients::{mariadb, mysql, run_node, run_python};
use belay_integration::servers::{APP, APP2};
use belay_integration::{Result, shared};
use mysql_async::prelude::Queryable;

fn all_of_them(belay: &mut Belay) -> Result<()> {
    let port = belay.port().to_string();
    for tls in ["", "ssl"] {
        let arguments: Vec<&str> = [port.as_str(), APP, APP, tls].into_iter().filter(|a| !a.is_empty()).collect();
        // A server without TLS can't be asked for it directly; belay always offers it.
        if tls == "ssl" && belay_integration::belay::direct() {
            continue;
        }
        assert_eq!(run_python("check.py", &arguments)?.trim(), "ok");
        assert_eq!(run_node("check.js", &arguments)?.trim(), "ok");
        let ssl = if tls.is_empty() { "--skip-ssl" } else { "--ssl" };
        let out = mariadb(belay.port(), APP, APP, &[ssl, "shop"], "SELECT name FROM item WHERE id = 1; SELECT 'ü'")?;
        assert!(out.contains("carabiner") && out.contains('ü'), "{out}");
    }
    belay.assert_healthy()
}

#[test]
fn clients_on_mariadb() -> Result<()> {
    let server = shared::mariadb()?;
    all_of_them(&mut Belay::start([server.address()])?)
}

#[test]
fn clients_on_galera() -> Result<()> {
    let cluster = shared::galera()?;
    all_of_them(&mut Options::new(cluster.addresses()).server_connections_max(8).start()?)
}

#[test]
fn clients_on_mysql() -> Result<()> {
    let server = shared::mysql()?;
    let mut belay = Belay::start([server.address()])?;
    let port = belay.port();
    for tls in [&["--ssl-mode=REQUIRED"][..], &["--ssl-mode=DISABLED", "--get-server-public-key"][..]] {
        let arguments = [tls, &["shop"]].concat();
        for user in [APP, APP2] {
            // Twice: the second login finds the first one's traces in caches on the way.
            for _ in 0..2 {
                let out = mysql(port, user, user, &arguments, "SELECT CURRENT_USER()");
                if user == APP {
                    assert_eq!(out?.trim(), "app@%");
                } else {
                    assert!(out.unwrap_err().to_string().contains("1044"), "app2 may not use shop");
                }
            }
        }
        let wrong = mysql(port, APP, "wrong", &arguments, "SELECT 1").unwrap_err().to_string();
        assert!(wrong.contains("1045"), "{wrong}");
    }
    let port = port.to_string();
    assert_eq!(run_python("check.py", &[&port, APP, APP, "ssl"])?.trim(), "ok");
    assert_eq!(run_python("check.py", &[&port, APP, APP])?.trim(), "ok");
    assert_eq!(run_node("check.js", &[&port, APP, APP, "ssl"])?.trim(), "ok");
    assert_eq!(run_node("check.js", &[&port, APP, APP])?.trim(), "ok");
    belay.assert_healthy()
}

async fn rust_driver(port: u16) -> Result<()> {
    tokio::time::timeout(Duration::from_secs(60), use_rust_driver(port)).await?
}

async fn use_rust_driver(port: u16) -> Result<()> {
    let options = mysql_async::OptsBuilder::default()
        .ip_or_hostname("127.0.0.1")
        .tcp_port(port)
        .user(Some(APP))
        .pass(Some(APP))
        .db_name(Some("test"))
        .prefer_socket(false);
    let pool = mysql_async::Pool::new(options);
    let mut tasks = Vec::new();
    for i in 0..50_u32 {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let mut con = pool.get_conn().await?;
            let found: Option<(u32, String)> = con.exec_first("SELECT ? + 1, ?", (i, "x")).await?;
            assert_eq!(found, Some((i + 1, "x".into())));
            let mut transaction = con.start_transaction(mysql_async::TxOpts::default()).await?;
            let rows: Vec<u32> = transaction.query("SELECT id FROM shop.item ORDER BY id").await?;
            assert_eq!(rows.len(), 5);
            transaction.rollback().await?;
            Ok::<(), mysql_async::Error>(())
        }));
    }
    for task in tasks {
        task.await??;
    }
    pool.disconnect().await?;
    Ok(())
}

#[test]
fn the_rust_driver_on_mariadb_and_mysql() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = shared::mariadb()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    runtime.block_on(rust_driver(belay.port()))?;
    belay.assert_healthy()?;
    let server = shared::mysql()?;
    let mut belay = Options::new([server.address()]).server_connections_max(4).start()?;
    runtime.block_on(rust_driver(belay.port()))?;
    belay.assert_healthy()
}
