//! Loading: file, environment and secrets become one [`Config`], or a list of all that is wrong.

use std::path::{Path, PathBuf};

use super::document::{self, Environment};
use super::fault::{Collector, Faults, Place};
use super::files::{FILE_BYTES_MAX, SECRET_BYTES_MAX, read};
use super::{Config, Secret, check};

/// The environment of this process, without variables that are not UTF-8.
pub fn environment() -> Environment {
    std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect()
}

/// Loads and checks the file at `path`. Relative paths in it start at its directory.
pub fn load(path: &Path, environment: &Environment) -> Result<Config, Faults> {
    match read(path, FILE_BYTES_MAX) {
        Ok(text) => from_text(&text, path, environment),
        Err(error) => {
            let mut faults = Collector::new(path);
            faults.fault_at(Place::File, "", error, "name a configuration that exists; `belay init` writes one");
            Err(faults.into_faults())
        }
    }
}

/// Checks the text of a configuration that is, or is to be, at `path`.
pub fn from_text(text: &str, path: &Path, environment: &Environment) -> Result<Config, Faults> {
    let mut faults = Collector::new(path);
    let Some(mut table) = document::parse(text, &mut faults) else { return Err(faults.into_faults()) };
    document::overlay(&mut table, environment, &mut faults);
    document::check(&mut table, &mut faults);
    let mut config: Config = match table.try_into() {
        Ok(config) => config,
        Err(error) => {
            // The message of serde may repeat a value, which may be a secret: only the key is told.
            let key = error
                .to_string()
                .lines()
                .find_map(|l| l.strip_prefix("in `").map(|l| l.trim_end_matches('`').to_owned()));
            faults.fault_at(Place::File, &key.unwrap_or_default(), "does not fit", "compare it with the documentation");
            return Err(faults.into_faults());
        }
    };
    let base = path.parent().unwrap_or(Path::new(""));
    for file in config.paths_mut() {
        // An empty one stands for what has been reported already.
        if file.is_relative() && !file.as_os_str().is_empty() {
            *file = base.join(&*file);
        }
    }
    resolve_secrets(&mut config, environment, &mut faults);
    check::check(&config, &mut faults);
    if faults.is_empty() { Ok(config) } else { Err(faults.into_faults()) }
}

/// One secret with the three keys that can give it.
struct Source<'a> {
    key: String,
    text: &'a mut Option<Secret>,
    file: &'a Option<PathBuf>,
    variable: &'a Option<String>,
}

fn resolve_secrets(config: &mut Config, environment: &Environment, faults: &mut Collector<'_>) {
    let (admin, monitor) = (&mut config.admin, &mut config.monitor);
    let mut sources = vec![
        Source {
            key: "admin.token".into(),
            text: &mut admin.token,
            file: &admin.token_file,
            variable: &admin.token_env,
        },
        Source {
            key: "monitor.password".into(),
            text: &mut monitor.password,
            file: &monitor.password_file,
            variable: &monitor.password_env,
        },
    ];
    for (i, account) in config.accounts.iter_mut().enumerate() {
        sources.push(Source {
            key: format!("account[{}].password", i + 1),
            text: &mut account.password,
            file: &account.password_file,
            variable: &account.password_env,
        });
    }
    for source in sources {
        resolve(source, environment, faults);
    }
}

fn resolve(source: Source<'_>, environment: &Environment, faults: &mut Collector<'_>) {
    let Source { key, text, file, variable } = source;
    let name = key.rsplit('.').next().unwrap_or(&key).to_owned();
    let given = usize::from(text.is_some()) + usize::from(file.is_some()) + usize::from(variable.is_some());
    if given > 1 {
        let wrong = format!("more than one of {name}, {name}_file and {name}_env is given");
        faults.fault(&key, wrong, "keep one of them");
        return;
    }
    if let Some(path) = file {
        let key = format!("{key}_file");
        let remedy = "write the secret into a file that belay can read, with mode 0600, and its path here";
        match read(path, SECRET_BYTES_MAX) {
            Ok(read) => match read.trim_end_matches(['\n', '\r']) {
                "" => faults.fault(&key, "the file is empty", remedy),
                read => *text = Some(Secret::new(read.to_owned())),
            },
            Err(error) => faults.fault(&key, error, remedy),
        }
    }
    if let Some(variable) = variable {
        // The name is not shown: it may be the secret itself, written into the wrong key.
        match environment.get(variable).filter(|v| !v.is_empty()) {
            Some(value) => *text = Some(Secret::new(value.clone())),
            None => faults.fault(
                &format!("{key}_env"),
                "the environment variable that it names is not set, or empty",
                "set the variable for the process, or name another one",
            ),
        }
    }
}
