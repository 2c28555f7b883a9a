//! What is asked about the last statements is the client's own, whoever else used the server session: LAST_INSERT_ID(), warnings, counts.
//! The oracle is the server: two clients, each with a connection of its own.

use belay_integration::belay::{Belay, Options, direct};
use belay_integration::oracle::{Step, assert_same};
use belay_integration::paths::Scratch;
use belay_integration::servers::{APP, MariaDb, MySql};
use belay_integration::wire::{Login, Wire};
use belay_integration::{Result, shared};

use Step::{Command, Disturb, Prepared, Sql};

enum Server {
    MariaDb(std::sync::MutexGuard<'static, MariaDb>),
    MySql(std::sync::MutexGuard<'static, MySql>),
}

/// A belay with few server connections, and the address of the server itself.
struct Stage {
    server: Server,
    belay: Belay,
    address: String,
    _dir: Scratch,
}

impl Stage {
    fn new(server: Server, options: impl FnOnce(Options) -> Options) -> Result<Stage> {
        let node = match &server {
            Server::MariaDb(server) => server.address(),
            Server::MySql(server) => server.address(),
        };
        let dir = Scratch::new("socket")?;
        let path = dir.path().join("belay.sock").display().to_string();
        let belay = options(Options::new([node])).set("listen", "unix_sockets", format!("[{path:?}]")).start()?;
        let mut stage = Stage { server, belay, address: format!("unix:{path}"), _dir: dir };
        if direct() {
            stage.address = stage.oracle();
        }
        Ok(stage)
    }

    /// One on each kind of server, with so many server connections.
    fn each(server_connections_max: usize) -> Result<[Stage; 2]> {
        let few = |options: Options| options.server_connections_max(server_connections_max);
        Ok([Stage::new(Server::MariaDb(shared::mariadb()?), few)?, Stage::new(Server::MySql(shared::mysql()?), few)?])
    }

    fn oracle(&self) -> String {
        match &self.server {
            Server::MariaDb(server) => server.address(),
            Server::MySql(server) => format!("unix:{}", server.socket().display()),
        }
    }

    fn client(&self) -> Result<Wire> {
        Ok(Wire::login(&self.address, &Login::new(APP, APP).schema("test"))?)
    }

    fn same(&mut self, steps: &[Step<'_>]) -> Result<()> {
        assert_same(&self.oracle(), &self.address, &Login::new(APP, APP).schema("test"), steps)?;
        self.belay.assert_healthy()
    }
}

/// Makes an id of its own on every server session, by another client.
const OTHERS: Step<'static> = Disturb("INSERT INTO oth (v) VALUES (1)");
const ID: Step<'static> = Sql("SELECT LAST_INSERT_ID(), @@identity, @@last_insert_id");

#[test]
fn a_statement_that_makes_no_id_leaves_the_client_s_own() -> Result<()> {
    for mut stage in Stage::each(1)? {
        let maria = matches!(stage.server, Server::MariaDb(_));
        let mut steps = vec![
            Sql("DROP TABLE IF EXISTS ids, oth"),
            Sql("CREATE TABLE ids (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE)"),
            Sql("CREATE TABLE oth (id INT AUTO_INCREMENT PRIMARY KEY, v INT) AUTO_INCREMENT = 700"),
        ];
        let written = [
            Sql("INSERT INTO ids (id, v) VALUES (50, 50)"),
            Sql("INSERT INTO ids (id, v) VALUES (50, 51) ON DUPLICATE KEY UPDATE v = 52"),
            Sql("REPLACE INTO ids (id, v) VALUES (50, 53)"),
            Prepared("INSERT INTO ids (id, v) VALUES (?, ?)", &["60", "60"]),
            Sql("PREPARE p FROM 'INSERT INTO ids (id, v) VALUES (61, 61)'"),
            Sql("EXECUTE p"),
            Sql("INSERT INTO ids (id, v) VALUES (61, 61)"),
            Sql("UPDATE ids SET v = LAST_INSERT_ID(v + 1000) WHERE id = 99999"),
        ];
        // First as one who never made any, then as one who has.
        for own in [None, Some("INSERT INTO ids (v) VALUES (7)")] {
            steps.extend(own.map(Sql));
            for write in &written {
                steps.extend([OTHERS, write.clone(), OTHERS, ID]);
            }
            steps.push(Sql("DELETE FROM ids WHERE id >= 50"));
            if maria {
                for block in [
                    "EXECUTE IMMEDIATE 'REPLACE INTO ids (id, v) VALUES (62, 62)'",
                    "BEGIN NOT ATOMIC REPLACE INTO ids (id, v) VALUES (63, 63); END",
                ] {
                    // They pin until the reset.
                    steps.extend([OTHERS, Sql(block), ID, Command(0x1f), ID]);
                }
            }
        }
        steps.push(Sql("DROP TABLE ids, oth"));
        stage.same(&steps)?;
    }
    Ok(())
}
