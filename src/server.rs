//! The composition root: everything is made here, in order, and ended here, in the opposite order.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use zeroize::Zeroizing;

use crate::admin::{self, AdminContext};
use crate::auth::vault::{self, Vault};
use crate::config::{self, Config, Fault, Faults, Place, Secret};
use crate::metrics::Metrics;
use crate::metrics::labels::{ClientState, ServerState};
use crate::monitor::dialler::Dialler;
use crate::monitor::{ClusterHandle, Monitor, MonitorSettings};
use crate::net::tls::{ClientTls, NodeTls, TlsSetupError};
use crate::pool::Pool;
use crate::pool::dial::{DialContext, Opening};
use crate::proxy::accept::{self, Gate, Listener};
use crate::proxy::client_login::LoginContext;
use crate::proxy::context::Context;
use crate::proxy::hidden_code::HiddenCode;
use crate::proxy::kill::Killer;
use crate::proxy::login_nodes::ClusterLogins;
use crate::proxy::login_target::ConfiguredAccounts;
use crate::proxy::measure::{self, Measure};
use crate::proxy::registry::{Registry, signal as wake};
use crate::proxy::view::View;
use crate::router::{RuleFault, RuleSet};
use crate::runtime;
use crate::session::pins::Pins;
use crate::topology::{ClusterSnapshot, NodeId, NodeState};

/// Why belay could not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The runtime could not be made.
    #[error("the runtime could not be started: {0}")]
    Runtime(io::Error),
    /// A listener could not be opened.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// Where.
        address: String,
        /// Why not.
        error: io::Error,
    },
    /// Keys or certificates could not be read or made.
    #[error(transparent)]
    Tls(#[from] TlsSetupError),
    /// No randomness, no signals.
    #[error("{0}")]
    System(String),
}

/// Reads and compiles the rule files that the configuration names; without any there are no rules.
pub fn rules(config: &Config) -> Result<RuleSet, Faults> {
    let paths = &config.router.rules;
    let mut texts = Vec::with_capacity(paths.len());
    for path in paths {
        texts.push(config::read_rules(path).map_err(|wrong| {
            let remedy = "name a rule file that belay can read".to_owned();
            Faults(vec![Fault { file: path.clone(), place: Place::File, key: String::new(), wrong, remedy }])
        })?);
    }
    let told = |fault: RuleFault| Fault {
        file: paths.get(fault.file).cloned().unwrap_or_default(),
        place: Place::Line(fault.line),
        key: fault.rule.map(|rule| format!("rule '{rule}'")).unwrap_or_default(),
        wrong: fault.wrong,
        remedy: fault.remedy,
    };
    RuleSet::compile(&texts).map_err(|faults| Faults(faults.into_iter().map(told).collect()))
}

/// Runs belay until SIGTERM or SIGINT; returns once it has drained.
pub fn serve(config: Config, rules: RuleSet) -> Result<(), ServeError> {
    let runtime = runtime::build(config.runtime.threads).map_err(ServeError::Runtime)?;
    runtime.block_on(run(Arc::new(config), Arc::new(rules)))
}

async fn run(config: Arc<Config>, rules: Arc<RuleSet>) -> Result<(), ServeError> {
    let metrics = Metrics::new(
        config.nodes.iter().map(|n| n.name.as_deref().unwrap_or(&n.address)),
        &measure::pin_labels(),
        &measure::rule_labels(&rules),
        env!("CARGO_PKG_VERSION"),
    );
    let vault = Arc::new(new_vault()?);
    let dial = DialContext {
        tls: NodeTls::new(&config.node_tls)?,
        dial_timeout_ms: config.pool.dial_timeout_ms,
        vault: vault.clone(),
    };
    let client_tls = ClientTls::new(&config.listen.tls)?;
    let listeners = listen(&config)?;
    let admin_listener = TcpListener::bind(&config.admin.address)
        .await
        .map_err(|error| ServeError::Listen { address: config.admin.address.clone(), error })?;
    let monitor_opening = Opening::with_password(
        config.monitor.user.as_str(),
        config.monitor.password.clone().unwrap_or_else(|| Secret::new(String::new())),
    );
    let monitor = start_monitor(&config, &dial, &monitor_opening, &metrics);
    let cluster = Arc::new(monitor.cluster());
    let registry = Registry::new(config.instance.id);
    let pool = Pool::new(config.pool.clone(), dial.clone(), metrics.clone(), registry.clone());
    let login = Arc::new(LoginContext {
        listen: config.listen.clone(),
        record_passwords: config.session.record_passwords,
        accounts: monitor.accounts(),
        configured: ConfiguredAccounts::new(&config.accounts),
        vault: vault.clone(),
        tls: client_tls.acceptor,
        password_key: client_tls.password_key,
        nodes: Arc::new(ClusterLogins::new(cluster.clone(), dial)),
    });
    let cx = Arc::new(Context {
        cluster: cluster.clone(),
        accounts: monitor.accounts(),
        rules,
        login,
        pool: pool.clone(),
        registry: registry.clone(),
        measure: Measure::new(metrics.clone()),
        killer: Killer::new(config.nodes.len()),
        monitor: monitor_opening,
        hold_timeout: Duration::from_millis(config.cluster.hold_timeout_ms),
        client_write_timeout: Duration::from_millis(config.session.client_write_timeout_ms),
        packet_bytes_max: config.session.packet_bytes_max,
        holds: AtomicUsize::new(0),
        hold_turns: Arc::new(tokio::sync::Semaphore::new(1)),
        gtids_reported: std::sync::atomic::AtomicBool::new(false),
        hidden_code: HiddenCode::new(config.nodes.len()),
        config: config.clone(),
    });
    let gate = Arc::new(Gate::default());
    answer_hangups()?;
    let (drain, draining) = watch::channel(false);
    let admin = tokio::spawn(admin::serve(admin_listener, Arc::new(admin_context(&cx))));
    // The greeting shows the cluster's version: give the nodes a moment to tell it.
    monitor.first_snapshot(Duration::from_millis(config.monitor.probe_timeout_ms)).await;
    for listener in listeners {
        tokio::spawn(accept::accept(listener, cx.clone(), gate.clone(), draining.clone()));
    }
    tokio::spawn(upkeep(cx.clone(), gate.clone(), vault));
    tracing::info!(addresses = ?config.listen.addresses, sockets = ?config.listen.unix_sockets, admin = %config.admin.address, "belay serves");
    wait_for_end().await?;
    tracing::info!(clients = gate.clients(), "draining");
    // Nobody waits on this channel any more if every listener has ended already.
    let _ = drain.send(true);
    drain_clients(&cx, &gate).await;
    pool.close();
    admin.abort();
    monitor.stop().await;
    remove_sockets(&config.listen.unix_sockets);
    tracing::info!("belay has ended");
    Ok(())
}

fn new_vault() -> Result<Vault, ServeError> {
    let mut key = Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(key.as_mut_slice())
        .map_err(|_| ServeError::System("the system gives no random bytes".into()))?;
    Vault::new(key, vault::ENTRIES_MAX)
        .ok_or_else(|| ServeError::System("the vault for recorded secrets could not be made".into()))
}

fn start_monitor(config: &Config, dial: &DialContext, opening: &Opening, metrics: &Arc<Metrics>) -> Monitor {
    let nodes: Vec<(Arc<str>, Arc<str>)> = config
        .nodes
        .iter()
        .map(|n| (Arc::from(n.name.as_deref().unwrap_or(&n.address)), Arc::from(n.address.as_str())))
        .collect();
    let initial = ClusterSnapshot::initial(
        nodes.iter().map(|(name, address)| (&**name, &**address)),
        &config.cluster.server_version,
    );
    let dialler = Dialler::new(nodes, opening.clone(), dial.clone());
    Monitor::start(
        initial,
        Arc::new(dialler),
        MonitorSettings::from_config(&config.monitor, &config.router),
        metrics.clone(),
    )
}

fn listen(config: &Config) -> Result<Vec<Listener>, ServeError> {
    let mut listeners = Vec::new();
    for address in &config.listen.addresses {
        let fault = |error| ServeError::Listen { address: address.clone(), error };
        for resolved in address.to_socket_addrs().map_err(fault)? {
            listeners.push(Listener::Tcp(listen_tcp(resolved).map_err(fault)?));
        }
    }
    for path in &config.listen.unix_sockets {
        let fault = |error| ServeError::Listen { address: path.display().to_string(), error };
        // A socket left by a belay that was killed is in the way; one that somebody listens on is not ours to take.
        if std::os::unix::net::UnixStream::connect(path).is_err() {
            remove_sockets(std::slice::from_ref(path));
        }
        let listener = UnixListener::bind(path).map_err(fault)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(path, mode).map_err(fault)?;
        listeners.push(Listener::Unix(listener));
    }
    Ok(listeners)
}

fn listen_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

fn remove_sockets(paths: &[PathBuf]) {
    for path in paths {
        use std::os::unix::fs::FileTypeExt;
        if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket())
            && let Err(error) = std::fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "a socket could not be removed");
        }
    }
}

fn admin_context(cx: &Arc<Context>) -> AdminContext {
    let for_readiness = cx.clone();
    AdminContext {
        metrics: cx.measure.metrics().clone(),
        readiness: Box::new(move || for_readiness.cluster.readiness()),
        sessions: Arc::new(View::new(cx.clone())),
        token: cx.config.admin.token.clone(),
        connections_max: cx.config.admin.connections_max,
    }
}

fn on(kind: SignalKind) -> Result<Signal, ServeError> {
    signal(kind).map_err(|e| ServeError::System(format!("signals can't be handled: {e}")))
}

/// SIGHUP asks for a reload, which there is not. Unhandled it would end the process, and every transaction with it.
fn answer_hangups() -> Result<(), ServeError> {
    let mut hangup = on(SignalKind::hangup())?;
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            tracing::warn!(
                "SIGHUP: the configuration is not reloaded; for a new one, check it with 'belay check --config FILE', end this process with SIGTERM, \
                 which lets open transactions finish, and start belay again"
            );
        }
    });
    Ok(())
}

async fn wait_for_end() -> Result<(), ServeError> {
    let (mut terminate, mut interrupt) = (on(SignalKind::terminate())?, on(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Idle clients are told at once; those in a transaction get until `drain_timeout_ms`.
async fn drain_clients(cx: &Arc<Context>, gate: &Arc<Gate>) {
    let until = Instant::now() + Duration::from_millis(cx.config.session.drain_timeout_ms);
    while gate.clients() > 0 && Instant::now() < until {
        for handle in cx.registry.list(usize::MAX) {
            handle.signal(wake::DRAIN);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for handle in cx.registry.list(usize::MAX) {
        handle.signal(wake::KILLED);
    }
    let last = Instant::now() + Duration::from_secs(1);
    while gate.clients() > 0 && Instant::now() < last {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Once a second: what is due is closed, counted or forgotten.
async fn upkeep(cx: Arc<Context>, gate: Arc<Gate>, vault: Arc<Vault>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let now = Instant::now();
        let snapshot = cx.cluster.load();
        let serving = |node: NodeId| {
            let view = snapshot.node(node)?;
            let gone = matches!(view.state, NodeState::Down { .. });
            (!gone).then(|| Arc::new(view.clone()))
        };
        cx.pool.upkeep(now, &serving);
        vault.retain(&cx.accounts.load());
        let metrics = cx.measure.metrics();
        metrics.run_upkeep();
        count(&cx, &gate, now, &cx.cluster);
    }
}

fn count(cx: &Context, gate: &Gate, now: Instant, cluster: &ClusterHandle) {
    let metrics = cx.measure.metrics();
    let (mut idle, mut in_transaction, mut active) = (0u32, 0u32, 0u32);
    let pin_ms = cx.config.session.diagnostics_pin_ms;
    let snapshot = cluster.load();
    for handle in cx.registry.list(usize::MAX) {
        handle.check_idle(now, pin_ms);
        let busy = handle.is_busy();
        let open = handle.notes().transaction == crate::session::transaction::Transaction::Open;
        match (busy, open) {
            (true, _) => active += 1,
            (false, true) => in_transaction += 1,
            (false, false) => idle += 1,
        }
        // A node that fell silent says nothing on the connections that wait for it.
        let target = handle.running().target;
        if target.is_some_and(|target| snapshot.is_down(target.node)) {
            handle.signal(wake::NODE_LOST);
        }
    }
    let logins = gate.logins() as u32;
    for (state, n) in [
        (ClientState::Login, logins),
        (ClientState::Idle, idle.saturating_sub(logins)),
        (ClientState::Transaction, in_transaction),
        (ClientState::Active, active),
    ] {
        if let Some(gauge) = metrics.client_connections.get(state) {
            gauge.set(f64::from(n));
        }
    }
    let mut per_node = vec![(0usize, 0usize, 0usize); metrics.nodes.len()];
    for (node, account, (counted, free, _)) in cx.pool.counts() {
        let (pinned, _): (usize, Pins) = cx.pool.endpoint(node, &account).pins_in_the_way();
        if let Some(sum) = per_node.get_mut(node.index()) {
            sum.0 += free;
            sum.1 += counted.saturating_sub(free + pinned);
            sum.2 += pinned;
        }
    }
    for (node, (free, leased, pinned)) in metrics.nodes.iter().zip(per_node) {
        for (state, n) in [(ServerState::Idle, free), (ServerState::Leased, leased), (ServerState::Pinned, pinned)] {
            if let Some(gauge) = node.server_connections.get(state) {
                gauge.set(n as f64);
            }
        }
    }
}
