//! What one key alone can't tell: addresses, names that must differ, limits that belong together, files that must exist.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::fault::Collector;
use super::{Config, NodeTlsMode, address, files};

/// The most nodes that one belay watches.
pub const NODES_MAX: usize = 256;
/// The longest name of a node, in bytes; it becomes a label of metrics.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// The shortest token for the admin interface, in bytes.
pub const TOKEN_BYTES_MIN: usize = 16;

pub(super) fn check(config: &Config, faults: &mut Collector<'_>) {
    listeners(config, faults);
    admin(config, faults);
    nodes(config, faults);
    tls(config, faults);
    monitor(config, faults);
    router(config, faults);
    accounts(config, faults);
    pool(config, faults);
}

const WRITE_TCP: &str = "write \"host:port\" or \"[ipv6]:port\"";

fn listeners(config: &Config, faults: &mut Collector<'_>) {
    let listen = &config.listen;
    if listen.addresses.is_empty() && listen.unix_sockets.is_empty() {
        faults.fault(
            "listen.addresses",
            "there is no place where clients can connect",
            "write addresses = [\"host:port\"]",
        );
    }
    let mut seen = HashMap::new();
    for (i, text) in listen.addresses.iter().enumerate() {
        let key = format!("listen.addresses[{}]", i + 1);
        if let Err(wrong) = address::check_tcp(text) {
            faults.fault(&key, format!("`{text}` {wrong}"), WRITE_TCP);
        } else if !text.ends_with(":0") && seen.insert(text, ()).is_some() {
            faults.fault(&key, format!("`{text}` is there twice"), "remove one of them");
        } else if !text.ends_with(":0") && *text == config.admin.address {
            faults.fault(
                &key,
                format!("`{text}` is also admin.address"),
                "give clients and the admin interface a port each",
            );
        }
    }
    let mut seen = HashMap::new();
    for (i, path) in listen.unix_sockets.iter().enumerate() {
        let key = format!("listen.unix_sockets[{}]", i + 1);
        if path.as_os_str().len() > address::UNIX_PATH_BYTES_MAX {
            faults.fault(&key, "is longer than a socket's path can be (107 bytes)", "choose a shorter path");
        } else if !path.parent().is_some_and(|dir| dir.as_os_str().is_empty() || dir.is_dir()) {
            faults.fault(&key, "its directory does not exist", "make the directory, or choose another one");
        } else if seen.insert(path, ()).is_some() {
            faults.fault(&key, "is there twice", "remove one of them");
        }
    }
}

fn admin(config: &Config, faults: &mut Collector<'_>) {
    let admin = &config.admin;
    if let Err(wrong) = address::check_tcp(&admin.address) {
        faults.fault("admin.address", format!("`{}` {wrong}", admin.address), WRITE_TCP);
    }
    let Some(token) = &admin.token else { return };
    let key = if admin.token_file.is_some() {
        "admin.token_file"
    } else if admin.token_env.is_some() {
        "admin.token_env"
    } else {
        "admin.token"
    };
    let remedy = "use a random one, for example of `openssl rand -hex 32`";
    if token.expose().len() < TOKEN_BYTES_MIN {
        faults.fault(key, format!("the token is shorter than {TOKEN_BYTES_MIN} characters"), remedy);
    } else if !token.expose().bytes().all(|b| b.is_ascii_graphic()) {
        faults.fault(key, "the token holds a character that an HTTP header can't carry", remedy);
    }
}

fn nodes(config: &Config, faults: &mut Collector<'_>) {
    if config.nodes.is_empty() {
        faults.fault(
            "node",
            "there is no node",
            "write [[node]] on a line of its own and address = \"host:port\" below it, for each node",
        );
    }
    if config.nodes.len() > NODES_MAX {
        faults.fault("node", format!("there are more than {NODES_MAX} nodes"), "remove some");
    }
    let mut addresses: HashMap<String, usize> = HashMap::new();
    let mut names: HashMap<&str, usize> = HashMap::new();
    for (i, node) in config.nodes.iter().enumerate() {
        let number = i + 1;
        let key = format!("node[{number}].address");
        if let Err(wrong) = address::check_node(&node.address) {
            faults.fault(
                &key,
                format!("`{}` {wrong}", node.address),
                "write \"host:port\", \"[ipv6]:port\" or \"unix:/path\"",
            );
        } else if let Some(other) = addresses.insert(address::with_port(&node.address), number) {
            faults.fault(
                &key,
                format!("`{}` is also the address of node[{other}]", node.address),
                "remove one of them",
            );
        } else if config.listen.addresses.contains(&node.address) {
            faults.fault(
                &key,
                format!("`{}` is where belay itself listens", node.address),
                "write the node's own address",
            );
        }
        let name = node.name.as_deref().unwrap_or(&node.address);
        let key = format!("node[{number}].name");
        if node.name.is_some() && name.len() > NODE_NAME_BYTES_MAX {
            faults.fault(&key, format!("is longer than {NODE_NAME_BYTES_MAX} bytes"), "choose a shorter name");
        } else if let Some(other) = names.insert(name, number).filter(|_| node.name.is_some()) {
            faults.fault(
                &key,
                format!("`{name}` is also the name of node[{other}]"),
                "give each node a name of its own",
            );
        }
    }
}

fn tls(config: &Config, faults: &mut Collector<'_>) {
    let (listen, node) = (&config.listen.tls, &config.node_tls);
    pair("listen.tls", &listen.certificate_file, &listen.key_file, faults);
    pair("node_tls", &node.certificate_file, &node.key_file, faults);
    if matches!(node.mode, NodeTlsMode::VerifyCa | NodeTlsMode::VerifyFull) && node.ca_file.is_none() {
        let remedy =
            "write ca_file = \"…\" with the PEM certificates of the authorities that sign the nodes' certificates";
        faults.fault("node_tls.ca_file", "is missing, but node_tls.mode needs it", remedy);
    }
    let files = [
        ("listen.tls.certificate_file", &listen.certificate_file),
        ("listen.tls.key_file", &listen.key_file),
        ("listen.tls.rsa_key_file", &listen.rsa_key_file),
        ("node_tls.ca_file", &node.ca_file),
        ("node_tls.certificate_file", &node.certificate_file),
        ("node_tls.key_file", &node.key_file),
    ];
    for (key, path) in files {
        if let Some(wrong) = path.as_deref().and_then(|p: &Path| files::readable(p).err()) {
            faults.fault(
                key,
                wrong,
                "name a PEM file that belay can read; a relative path starts at this file's directory",
            );
        }
    }
    if listen.state_dir.as_deref().is_some_and(|dir| dir.exists() && !dir.is_dir()) {
        faults.fault("listen.tls.state_dir", "is not a directory", "name a directory that belay can write to");
    }
}

fn pair(section: &str, certificate: &Option<PathBuf>, key: &Option<PathBuf>, faults: &mut Collector<'_>) {
    match (certificate, key) {
        (Some(_), None) => {
            let remedy = "write key_file = \"…\" with the private key of the certificate";
            faults.fault(&format!("{section}.key_file"), "is missing, but certificate_file is given", remedy);
        }
        (None, Some(_)) => {
            let remedy = "write certificate_file = \"…\" with the certificate of the key";
            faults.fault(&format!("{section}.certificate_file"), "is missing, but key_file is given", remedy);
        }
        _ => {}
    }
}

fn monitor(config: &Config, faults: &mut Collector<'_>) {
    let monitor = &config.monitor;
    let given = monitor.password.is_some() || monitor.password_file.is_some() || monitor.password_env.is_some();
    if !given && !faults.is_faulty("monitor.password") {
        let remedy = "write password_file = \"…\" with the path of a file (mode 0600) that holds it, or password_env";
        faults.fault("monitor.password", "there is no password", remedy);
    }
}

/// What the rules say is checked where they are compiled.
fn router(config: &Config, faults: &mut Collector<'_>) {
    let router = &config.router;
    for (i, path) in router.rules.iter().enumerate() {
        if let Err(wrong) = files::readable(path) {
            faults.fault(
                &format!("router.rules[{}]", i + 1),
                wrong,
                "name a rule file that belay can read; a relative path starts at this file's directory",
            );
        }
    }
    let least = config.monitor.interval_ms.saturating_mul(3);
    if !router.rules.is_empty() && router.lag_max_ms < least {
        let wrong = format!(
            "is {}: nodes are asked every {} ms, so no reader could be known to be near enough",
            router.lag_max_ms, config.monitor.interval_ms
        );
        faults.fault("router.lag_max_ms", wrong, format!("write at least {least}, or a smaller monitor.interval_ms"));
    }
}

fn accounts(config: &Config, faults: &mut Collector<'_>) {
    let mut seen = HashMap::new();
    for (i, account) in config.accounts.iter().enumerate() {
        let number = i + 1;
        let given = account.password.is_some() || account.password_file.is_some() || account.password_env.is_some();
        let key = format!("account[{number}].password");
        if !given && !faults.is_faulty(&key) {
            faults.fault(&key, "there is no password", "write password_file = \"…\" or password_env = \"…\"");
        }
        if let Some(other) = seen.insert((account.user.as_str(), account.host.to_lowercase()), number) {
            let wrong = format!("'{}'@'{}' is also account[{other}]", account.user, account.host);
            faults.fault(&format!("account[{number}].user"), wrong, "remove one of them");
        }
    }
}

fn pool(config: &Config, faults: &mut Collector<'_>) {
    let pool = &config.pool;
    let max = pool.server_connections_max;
    for (name, n) in [("server_connections_min", pool.server_connections_min), ("pinned_max", pool.pinned_max)] {
        if n > max {
            let key = format!("pool.{name}");
            faults.fault(
                &key,
                format!("is {n}, more than pool.server_connections_max ({max})"),
                format!("write at most {max}"),
            );
        }
    }
}
