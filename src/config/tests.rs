//! Tests of loading as a whole.

use std::path::Path;

use super::schema::{Absent, KEYS};
use super::*;

const LEAST: &str = "[listen]\naddresses = [\"127.0.0.1:3306\"]\n[admin]\naddress = \"127.0.0.1:9090\"\n\
                     [monitor]\nuser = \"m\"\npassword = \"p4ssw0rd\"\n[[node]]\naddress = \"db1:3306\"\n";

fn faults_with(text: &str, environment: &[(&str, &str)]) -> Vec<Fault> {
    let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    from_text(text, Path::new("belay.toml"), &environment).map_or_else(|faults| faults.0, |_| Vec::new())
}

fn faults(text: &str) -> Vec<Fault> {
    faults_with(text, &[])
}

fn with(text: &str) -> String {
    format!("{LEAST}{text}")
}

fn one(text: &str, key: &str, line: usize) -> Fault {
    let found = faults(text);
    assert_eq!(found.len(), 1, "{found:#?}");
    assert_eq!((found[0].key.as_str(), &found[0].place), (key, &Place::Line(line)), "{}", found[0]);
    found[0].clone()
}

#[test]
fn the_least_configuration_has_no_faults() {
    let config = from_text(LEAST, Path::new("belay.toml"), &Environment::new()).unwrap();
    assert_eq!(config.pool.server_connections_max, 64);
    assert_eq!(config.monitor.password.unwrap().expose(), "p4ssw0rd");
}

#[test]
fn defaults_in_the_table_are_those_of_the_types() {
    let mut text = String::new();
    for section in schema::SECTIONS.iter().filter(|s| s.name != "account") {
        let brackets = if section.repeated { ("[[", "]]") } else { ("[", "]") };
        text += &format!("{}{}{}\n", brackets.0, section.name, brackets.1);
        for key in schema::keys_of(section.name) {
            match (key.section, key.name, key.absent) {
                ("listen", "addresses", _) => text += "addresses = [\"127.0.0.1:3306\"]\n",
                ("admin", "address", _) => text += "address = \"127.0.0.1:9090\"\n",
                ("node", "address", _) => text += "address = \"db1:3306\"\n",
                ("monitor", "user", _) => text += "user = \"m\"\n",
                ("monitor", "password", _) => text += "password = \"p4ssw0rd\"\n",
                (_, name, Absent::Value(value)) => text += &format!("{name} = {value}\n"),
                (_, name, Absent::Required) => panic!("{name} is required and unknown to this test"),
                _ => {}
            }
        }
    }
    let path = Path::new("belay.toml");
    let full = from_text(&text, path, &Environment::new()).map_err(|f| f.to_string()).unwrap();
    let least = from_text(LEAST, path, &Environment::new()).unwrap();
    assert_eq!(format!("{full:#?}"), format!("{least:#?}"));
}

#[test]
fn every_key_of_the_table_is_a_key_of_the_types() {
    // A key that only the table knows would be refused by serde with a fault that has no line.
    for key in KEYS {
        let value = match key.kind {
            schema::Kind::Integer(min, _) => min.to_string(),
            schema::Kind::Flag => "true".into(),
            schema::Kind::Texts | schema::Kind::Paths => "[]".into(),
            schema::Kind::Choice(words) => format!("\"{}\"", words.first().unwrap()),
            schema::Kind::Text | schema::Kind::Secret | schema::Kind::Path => "\"x\"".into(),
        };
        let section = schema::find_section(key.section).unwrap();
        let header = if section.repeated { format!("[[{}]]", section.name) } else { format!("[{}]", section.name) };
        for fault in faults(&format!("{header}\n{} = {value}\n", key.name)) {
            assert_ne!(fault.wrong, "does not fit", "{}.{}: {fault}", key.section, key.name);
        }
    }
}

#[test]
fn an_unknown_key_is_a_fault_with_a_suggestion() {
    assert!(one(&with("[pool]\nidle_timout_ms = 5\n"), "pool.idle_timout_ms", 11).remedy.contains("idle_timeout_ms"));
    assert!(one(&with("[pool]\nlevel = \"info\"\n"), "pool.level", 11).remedy.contains("[log]"));
    assert!(one(&with("[pol]\n"), "pol", 10).remedy.contains("did you mean pool"));
}

#[test]
fn every_fault_is_reported_at_once_with_its_line() {
    let text = "[listen]\n[admin]\naddress = 5\n[monitor]\nuser = \"\"\n[[node]]\naddress = \"a:x\"\n[pool]\nwaiters_max = -1\n\
                server_connections_max = 2\nserver_connections_min = 3\n[runtime]\nthreads = 1025\n";
    let found: Vec<(String, Place)> = faults(text).into_iter().map(|f| (f.key, f.place)).collect();
    let expected = [
        ("listen.addresses", 1),
        ("admin.address", 3),
        ("monitor.password", 4),
        ("monitor.user", 5),
        ("node[1].address", 7),
        ("pool.waiters_max", 9),
        ("pool.server_connections_min", 11),
        ("runtime.threads", 13),
    ];
    assert_eq!(found, expected.map(|(key, line)| (key.to_owned(), Place::Line(line))));
}

#[test]
fn an_empty_file_says_what_it_lacks() {
    let keys: Vec<String> = faults("").into_iter().map(|f| f.key).collect();
    for key in ["listen.addresses", "admin.address", "monitor.user", "monitor.password", "node"] {
        assert!(keys.contains(&key.to_owned()), "{key} is not among {keys:?}");
    }
}

#[test]
fn what_must_differ_differs() {
    one(&with("[[node]]\naddress = \"db1\"\n"), "node[2].address", 11);
    one(&with("[[node]]\naddress = \"db2\"\nname = \"db1:3306\"\n"), "node[2].name", 12);
    one(&with("[[node]]\naddress = \"127.0.0.1:3306\"\n"), "node[2].address", 11);
    let account = "[[account]]\nuser = \"u\"\npassword = \"x\"\n";
    one(&with(&format!("{account}{account}")), "account[2].user", 14);
}

#[test]
fn sections_of_the_wrong_shape_are_faults() {
    one(&format!("log = 5\n{LEAST}"), "log", 1);
    one(&with("[[pool]]\n"), "pool", 10);
    assert!(faults(&LEAST.replace("[[node]]", "[node]")).iter().any(|f| f.key == "node"));
}

#[test]
fn tls_files_belong_together_and_must_be_there() {
    one(&with("[node_tls]\nmode = \"verify-ca\"\n"), "node_tls.ca_file", 10);
    let keys = |text: &str| faults(&with(text)).into_iter().map(|f| f.key).collect::<Vec<_>>();
    assert_eq!(
        keys("[listen.tls]\nkey_file = \"no-such.pem\"\n"),
        ["listen.tls.certificate_file", "listen.tls.key_file"]
    );
}

#[test]
fn no_fault_shows_what_may_be_a_secret() {
    let secret = "hunter2";
    let texts = [
        with("[[account]]\nuser = \"u\"\npassword = hunter2\n"),
        with("[[account]]\nuser = \"u\"\npassword_env = \"hunter2\"\n"),
        with("[[account]]\nuser = \"u\"\npassword_file = \"hunter2\"\n"),
        with("[[account]]\nuser = \"u\"\npassword = [\"hunter2\"]\n"),
        LEAST.replace("[monitor]", "token = \"hunter2\"\n[monitor]"),
    ];
    for text in texts {
        let found = faults(&text);
        assert!(!found.is_empty());
        assert!(!format!("{found:?} {}", Faults(found.clone())).contains(secret), "{}", Faults(found));
    }
    let found = faults_with(LEAST, &[("BELAY_MONITOR__PASSWORT", secret)]);
    assert!(!Faults(found).to_string().contains(secret));
}

#[test]
fn the_environment_replaces_values_and_gives_secrets() {
    let environment: Environment = [
        ("BELAY_POOL__SERVER_CONNECTIONS_MAX", "8"),
        ("BELAY_LISTEN__ADDRESSES", "127.0.0.1:1, 127.0.0.1:2"),
        ("BELAY_LISTEN__TLS__MODE", "off"),
        ("BELAY_SESSION__RECORD_PASSWORDS", "false"),
        ("BELAY_MONITOR__PASSWORD_ENV", "BELAY_MY__WORD"),
        ("BELAY_MY__WORD", "other"),
        ("BELAY_UNRELATED", "x"),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into();
    let config = from_text(LEAST, Path::new("belay.toml"), &environment).map_err(|f| f.to_string()).unwrap();
    assert_eq!(config.pool.server_connections_max, 8);
    assert_eq!(config.listen.addresses, ["127.0.0.1:1", "127.0.0.1:2"]);
    assert_eq!(config.listen.tls.mode, ListenTlsMode::Off);
    assert!(!config.session.record_passwords);
    assert_eq!(config.monitor.password.unwrap().expose(), "other");
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    for (variable, value) in
        [("BELAY_POOL__IDLE_TIMEOUT_MS", "x"), ("BELAY_POOL__IDLE_TIMEOUT_MS", "0"), ("BELAY_POL__X", "1")]
    {
        let found = faults_with(LEAST, &[(variable, value)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].place, Place::Environment(variable.into()));
    }
}

#[test]
fn a_secret_comes_from_one_place() {
    let found = faults(&LEAST.replace("user = \"m\"", "user = \"m\"\npassword_env = \"X\""));
    assert_eq!(found.iter().map(|f| f.key.as_str()).collect::<Vec<_>>(), ["monitor.password"]);
}

#[test]
fn what_init_writes_has_no_faults_and_is_what_was_asked_for() {
    let init = template::Init {
        addresses: vec!["[::1]:3306".into()],
        unix_sockets: vec!["/tmp/a \"quoted\\\" path".into()],
        admin: "127.0.0.1:9090".into(),
        token_file: "/dev/null/none".into(),
        nodes: vec!["db1".into(), "unix:/run/mysqld.sock".into()],
        monitor_user: "ü'\u{7f}".replace('\u{7f}', ""),
        monitor_password_file: "/dev/null/none".into(),
        server_connections_max: Some(8),
        threads: Some(2),
    };
    // The two secrets come from the environment: this test writes no files.
    let environment: Environment = [("BELAY_ADMIN__TOKEN", "0123456789abcdef"), ("BELAY_MONITOR__PASSWORD", "x")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    let config = from_text(&init.render(), Path::new("belay.toml"), &environment).map_err(|f| f.to_string()).unwrap();
    assert_eq!(config.listen.unix_sockets, [Path::new("/tmp/a \"quoted\\\" path")]);
    assert_eq!(config.nodes.iter().map(|n| n.address.as_str()).collect::<Vec<_>>(), ["db1", "unix:/run/mysqld.sock"]);
    assert_eq!((config.pool.server_connections_max, config.runtime.threads), (8, 2));
    assert_eq!(config.monitor.user, "ü'");
}
