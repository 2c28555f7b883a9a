//! The command line as people and scripts meet it: files, texts and exit codes.
#![allow(clippy::unwrap_used)] // The helpers of tests may panic as the tests themselves do.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this test's own, gone with it.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Dir {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("cli-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("password"), "s3cret-word\n").unwrap();
        Dir(path)
    }

    fn belay(&self, args: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_belay"));
        for (name, _) in std::env::vars_os().filter(|(n, _)| n.to_string_lossy().starts_with("BELAY_")) {
            command.env_remove(name);
        }
        command.args(args).current_dir(&self.0).output().unwrap()
    }

    fn init(&self, more: &[&str]) -> Output {
        let args = ["init", "--admin", "127.0.0.1:0", "--node", "127.0.0.1:1", "--monitor-user", "mon"];
        let files = ["--monitor-password-file", "password", "--out", "belay.toml"];
        self.belay(&[&args[..], &files, more].concat())
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.0.join(name)).unwrap()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const LISTEN: &[&str] = &["--listen", "127.0.0.1:0"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn init_writes_what_check_accepts_and_prints_the_grants() {
    let dir = Dir::new();
    let done = dir.init(&[LISTEN, &["--node", "db2", "--server-connections-max", "8", "--threads", "2"]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let said = text(&done.stdout);
    assert!(said.contains("GRANT SELECT ON mysql.global_priv TO 'mon'@'%'"), "{said}");
    assert!(said.contains("GRANT SELECT ON mysql.user TO 'mon'@'%'"), "{said}");
    let config = dir.read("belay.toml");
    assert!(config.contains("server_connections_max = 8\n") && config.contains("\nthreads = 2\n"), "{config}");
    let token = dir.read("belay.toml.token");
    assert_eq!(token.trim_end().len(), 64);
    assert_eq!(fs::metadata(dir.0.join("belay.toml.token")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!said.contains(token.trim_end()) && !config.contains(token.trim_end()) && !said.contains("s3cret-word"));
    let checked = dir.belay(&["check", "--config", "belay.toml"]);
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stderr));
}

#[test]
fn init_works_from_any_directory_and_makes_a_new_token_each_time() {
    let dir = Dir::new();
    fs::create_dir(dir.0.join("etc")).unwrap();
    let args = ["init", "--listen", "unix:/tmp/belay.sock", "--admin", "127.0.0.1:0", "--node", "unix:/run/db.sock"];
    let files = |out| ["--monitor-user", "m", "--monitor-password-file", "password", "--out", out];
    assert_eq!(dir.belay(&[&args[..], &files("etc/a.toml")].concat()).status.code(), Some(0));
    assert_eq!(dir.belay(&[&args[..], &files("etc/b.toml")].concat()).status.code(), Some(0));
    assert_ne!(dir.read("etc/a.toml.token"), dir.read("etc/b.toml.token"));
    assert_eq!(dir.belay(&["check", "--config", "etc/a.toml"]).status.code(), Some(0));
}

#[test]
fn init_never_overwrites() {
    for name in ["belay.toml", "belay.toml.token"] {
        let dir = Dir::new();
        fs::write(dir.0.join(name), "mine").unwrap();
        let done = dir.init(LISTEN);
        assert_eq!(done.status.code(), Some(1));
        assert!(text(&done.stderr).contains("exists already"), "{}", text(&done.stderr));
        assert_eq!(dir.read(name), "mine");
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 2, "nothing else was written");
    }
}

#[test]
fn init_that_would_write_faults_writes_nothing() {
    for more in
        [&["--listen", "nowhere"][..], &["--listen", "unix:relative"], &["--listen", "a:1", "--threads", "5000"]]
    {
        let dir = Dir::new();
        let done = dir.init(more);
        assert_eq!(done.status.code(), Some(1), "{more:?}");
        assert!(!done.stderr.is_empty());
        assert_eq!(fs::read_dir(&dir.0).unwrap().count(), 1, "{more:?}");
    }
}

#[test]
fn check_prints_file_line_key_and_remedy_of_each_fault() {
    let dir = Dir::new();
    fs::write(dir.0.join("bad.toml"), "[pool]\nidle_timout_ms = 1\n[runtime]\nthreads = -1\n").unwrap();
    let checked = dir.belay(&["check", "--config", "bad.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(
        said.contains("bad.toml:2: pool.idle_timout_ms: unknown key\n    remedy: did you mean idle_timeout_ms?"),
        "{said}"
    );
    assert!(said.contains("bad.toml:4: runtime.threads: is -1"), "{said}");
    assert!(said.contains("node: there is no node"), "{said}");
    assert!(checked.stdout.is_empty());
}

#[test]
fn serve_with_faults_ends_like_check() {
    let dir = Dir::new();
    fs::write(dir.0.join("bad.toml"), "x = 1\n").unwrap();
    assert_eq!(dir.belay(&["serve", "--config", "bad.toml"]).status.code(), Some(1));
    let absent = dir.belay(&["serve", "--config", "absent.toml"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(text(&absent.stderr).contains("absent.toml: the file can't be opened"), "{}", text(&absent.stderr));
}

#[test]
fn serve_that_cannot_listen_says_so() {
    let dir = Dir::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    assert_eq!(dir.init(&["--listen", &address]).status.code(), Some(0));
    let served = dir.belay(&["serve", "--config", "belay.toml"]);
    assert_eq!(served.status.code(), Some(70), "{}", text(&served.stderr));
    assert!(text(&served.stderr).contains(&address), "{}", text(&served.stderr));
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    let dir = Dir::new();
    for args in [&[][..], &["frob"], &["check"], &["init", "--listen", "a:1"], &["serve", "--config"]] {
        assert_eq!(dir.belay(args).status.code(), Some(64), "{args:?}");
    }
    for args in [&["--help"][..], &["--version"], &["init", "--help"], &["help", "serve"]] {
        assert_eq!(dir.belay(args).status.code(), Some(0), "{args:?}");
    }
}

#[test]
fn a_hangup_is_told_and_ends_nothing() {
    use std::io::BufRead;
    let dir = Dir::new();
    assert_eq!(dir.init(LISTEN).status.code(), Some(0));
    let mut command = Command::new(env!("CARGO_BIN_EXE_belay"));
    let serving = command.args(["serve", "--config", "belay.toml"]).current_dir(&dir.0);
    let mut belay = serving.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let id = belay.id().to_string();
    let signal = |name: &str| {
        let sent = Command::new("kill").args([&format!("-{name}"), &id]).status().unwrap();
        assert!(sent.success());
    };
    let mut lines = std::io::BufReader::new(belay.stderr.take().unwrap()).lines().map_while(Result::ok);
    assert!(lines.any(|line| line.contains("belay serves")));
    for _ in 0..2 {
        signal("HUP");
        let told = lines.find(|line| line.contains("SIGHUP")).unwrap();
        assert!(told.contains("not reloaded") && told.contains("SIGTERM"), "{told}");
    }
    signal("TERM");
    assert!(lines.any(|line| line.contains("draining")));
    assert_eq!(belay.wait().unwrap().code(), Some(0));
}
