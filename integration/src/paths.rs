//! Where things are: the workspace, what is cached between runs, and scratch directories that vanish.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::Result;
use crate::process::watch_dir;

/// The root of the workspace.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_else(|| PathBuf::from("."))
}

/// The build directory, where everything that can be made again is kept.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// What is kept between runs: templates of data directories, MySQL, packages of client languages.
pub fn cache() -> PathBuf {
    target().join("cache")
}

/// The `belay` to test: the one that `BELAY_BIN` names, else the newer of the release and the debug build.
pub fn belay_binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("BELAY_BIN") {
        return Ok(PathBuf::from(path));
    }
    let age = |p: &PathBuf| fs::metadata(p).and_then(|m| m.modified()).ok();
    ["release", "debug"]
        .iter()
        .map(|profile| target().join(profile).join("belay"))
        .filter(|p| p.is_file())
        .max_by_key(age)
        .ok_or_else(|| "belay is not built: cargo build --release".into())
}

/// A directory of this process that is removed when dropped, and by the watchman if this process is killed.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory that the user of the servers can write, in memory if there is enough of it, else under `target/`, else
    /// (if another user cannot reach that) under `/var/tmp`.
    pub fn new(name: &str) -> Result<Scratch> {
        let base = if free_mb(Path::new("/dev/shm")) > 6_000 { PathBuf::from("/dev/shm") } else { reachable_base()? };
        Scratch::within(&base, name)
    }

    /// The same on disk: for what must not take memory.
    pub fn on_disk(name: &str) -> Result<Scratch> {
        Scratch::within(&reachable_base()?, name)
    }

    fn within(base: &Path, name: &str) -> Result<Scratch> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        sweep(base);
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("belay-it-{}-{n}-{name}", std::process::id()));
        fs::create_dir_all(&path)?;
        give_to_server_user(&path)?;
        watch_dir(&path, true);
        Ok(Scratch { path })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::env::var_os("BELAY_KEEP_SCRATCH").is_none() {
            let _ = fs::remove_dir_all(&self.path);
        }
        watch_dir(&self.path, false);
    }
}

/// Removes scratch directories of processes that are gone.
fn sweep(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|n| n.strip_prefix("belay-it-")) else { continue };
        let pid = rest.split('-').next().unwrap_or_default();
        if pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists() {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory on disk that the servers' user can reach.
pub fn reachable_base() -> Result<PathBuf> {
    let wanted = target().join("scratch");
    fs::create_dir_all(&wanted)?;
    if server_user().is_none() || others_can_enter(&wanted) { Ok(wanted) } else { Ok(PathBuf::from("/var/tmp")) }
}

/// Whether every directory on the way to `path` may be entered by other users.
pub fn others_can_enter(path: &Path) -> bool {
    path.ancestors().all(|dir| fs::metadata(dir).is_ok_and(|m| m.permissions().mode() & 0o001 != 0))
}

/// User and group id that servers run as: `mysql`, else `nobody`, if this process is root; `None` = the user we are.
pub fn server_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt;
    if fs::metadata("/proc/self").ok()?.uid() != 0 {
        return None;
    }
    let passwd = fs::read_to_string("/etc/passwd").ok()?;
    ["mysql", "nobody"].iter().find_map(|user| {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            (fields.next()? == *user).then_some(())?;
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            Some((uid, gid))
        })
    })
}

/// Makes the servers' user the owner of `path` and all in it.
pub fn give_to_server_user(path: &Path) -> Result<()> {
    let Some((uid, gid)) = server_user() else { return Ok(()) };
    let mut todo = vec![path.to_path_buf()];
    while let Some(path) = todo.pop() {
        std::os::unix::fs::lchown(&path, Some(uid), Some(gid))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
    }
    Ok(())
}

/// Free megabytes of the file system that holds `path`; 0 if unknown.
fn free_mb(path: &Path) -> u64 {
    let out = std::process::Command::new("df").args(["-Pm"]).arg(path).output();
    out.ok()
        .and_then(|o| String::from_utf8(o.stdout).ok())
        .and_then(|text| text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok())
        .unwrap_or(0)
}
