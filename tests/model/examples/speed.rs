//! How many statements a second the model answers: `cargo run --release -p belay-model --example speed`.

use std::time::Instant;

use belay_model::{Cluster, Dialect, Login, Outcome, caps};

fn main() {
    for dialect in [Dialect::MariaDb, Dialect::MySql] {
        let mut cluster = Cluster::new(dialect, 3);
        let capabilities = caps::PROTOCOL_41 | caps::DEPRECATE_EOF | caps::SESSION_TRACK;
        let login = Login { user: "app", host: "localhost", schema: Some("test"), capabilities, collation: 45 };
        let Ok(session) = cluster.connect(0, &login) else { return };
        let mut say = |sql: &str, now: u64| {
            let outcome = cluster.command(session, &[b"\x03", sql.as_bytes()].concat(), now);
            assert!(matches!(outcome, Outcome::Answer(ref p, false) if p[0][0] != 0xff), "{sql}: {outcome:?}");
        };
        say("CREATE TABLE t(id INT PRIMARY KEY AUTO_INCREMENT, a INT, s VARCHAR(20))", 0);
        say("INSERT INTO t(a, s) VALUES(1,'x'),(2,'y'),(3,'z')", 0);
        let statements = [
            "SELECT 1",
            "SET @a = 5",
            "SELECT @a, @@autocommit",
            "SELECT * FROM t WHERE id = 2",
            "SET SESSION wait_timeout = 100",
            "BEGIN",
            "UPDATE t SET a = a + 1 WHERE id = 1",
            "COMMIT",
            "SELECT LAST_INSERT_ID(), ROW_COUNT()",
            "SHOW WARNINGS",
        ];
        let (start, mut count) = (Instant::now(), 0u64);
        while start.elapsed().as_millis() < 1000 {
            for sql in statements {
                say(sql, count);
                count += 1;
            }
        }
        let logins = Instant::now();
        for _ in 0..10_000 {
            if let Ok(key) = cluster.connect(1, &login) {
                cluster.disconnect(key);
            }
        }

        println!("{dialect:?}: {count} statements in a second, 10,000 logins in {:?}", logins.elapsed());
    }
}
