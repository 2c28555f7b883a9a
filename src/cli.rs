//! (in progress)
use std::process::ExitCode;
/// main
pub fn main() -> ExitCode {
    let path = std::env::args().last().unwrap_or_default();
    let text = std::fs::read_to_string(path).unwrap_or_default();
    tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr).init();
    let mut config: crate::config::Config = match toml::from_str(&text) {
        Ok(c) => c,
        Err(e) => {
            eprintln!("{e}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(f) = &config.monitor.password_file {
        config.monitor.password =
            std::fs::read_to_string(f).ok().map(|s| crate::config::Secret::new(s.trim_end().to_owned()));
    }
    match crate::server::serve(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}
