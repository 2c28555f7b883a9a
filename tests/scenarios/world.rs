//! Everything between a client and a node: a context as the server composes it, with a cluster that is what the test says.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use belay::auth::accounts::{AccountId, AccountKey, AccountTable};
use belay::auth::caching_sha2::PasswordKey;
use belay::auth::host::ClientHost;
use belay::auth::vault::Vault;
use belay::config::{self, Config, Secret};
use belay::metrics::Metrics;
use belay::monitor::ClusterHandle;
use belay::monitor::publisher::Publisher;
use belay::net::packet_io::PacketIo;
use belay::net::stream::{Plain, Stream};
use belay::net::tls::{ClientTls, NodeTls};
use belay::pool::Pool;
use belay::pool::dial::{DialContext, Opening};
use belay::protocol::mysql::capability::Capabilities;
use belay::protocol::mysql::flavor::Flavor;
use belay::proxy::client_login::{LoggedIn, LoginContext};
use belay::proxy::context::Context;
use belay::proxy::kill::Killer;
use belay::proxy::login_nodes::ClusterLogins;
use belay::proxy::login_target::ConfiguredAccounts;
use belay::proxy::measure::{self, Measure};
use belay::proxy::registry::Registry;
use belay::proxy::session::ClientSession;
use belay::topology::{ClusterSnapshot, NodeCharsets, NodeFacts, NodeId, NodeReport, NodeState};
use bytes::Bytes;
use tokio::net::UnixStream;
use zeroize::Zeroizing;

use crate::client::{Client, Reply};
use crate::node::{Node, Script};

/// A belay with one node.
pub struct World {
    pub cx: Arc<Context>,
    pub node: Arc<Node>,
    publisher: Publisher,
}

impl World {
    /// `pool` are lines for `[pool]`.
    pub fn new(script: Script, pool: &str) -> World {
        World::with_session(script, pool, "client_write_timeout_ms = 5000")
    }

    /// `session` are lines for `[session]`.
    pub fn with_session(script: Script, pool: &str, session: &str) -> World {
        let node = Node::start(script);
        let config = configuration(&node.address, pool, session);
        let metrics = Metrics::new(["n"], &measure::pin_labels(), &[], "0");
        let initial = ClusterSnapshot::initial([("n", node.address.as_str())], "10.11.19-MariaDB");
        let (cluster, publisher) = ClusterHandle::unwatched(initial, metrics.clone());
        let cluster = Arc::new(cluster);
        let vault = Arc::new(Vault::new(Zeroizing::new([7; 32]), 8).unwrap());
        let dial = DialContext {
            tls: NodeTls::new(&config.node_tls).unwrap(),
            dial_timeout_ms: config.pool.dial_timeout_ms,
            vault: vault.clone(),
        };
        let accounts = Arc::new(ArcSwap::from_pointee(AccountTable::unreadable()));
        let login = Arc::new(LoginContext {
            listen: config.listen.clone(),
            record_passwords: true,
            accounts: accounts.clone(),
            configured: ConfiguredAccounts::new(&config.accounts),
            vault,
            tls: None,
            password_key: password_key(&config),
            nodes: Arc::new(ClusterLogins::new(cluster.clone(), dial.clone())),
        });
        let registry = Registry::new(0);
        let cx = Arc::new(Context {
            rules: belay::router::RuleSet::none(),
            cluster,
            accounts,
            login,
            pool: Pool::new(config.pool.clone(), dial, metrics.clone(), registry.clone()),
            registry,
            measure: Measure::new(metrics),
            killer: Killer::new(1),
            monitor: opening(),
            hold_timeout: Duration::from_millis(config.cluster.hold_timeout_ms),
            client_write_timeout: Duration::from_millis(config.session.client_write_timeout_ms),
            packet_bytes_max: config.session.packet_bytes_max,
            holds: AtomicUsize::new(0),
            hold_turns: Arc::new(tokio::sync::Semaphore::new(1)),
            gtids_reported: std::sync::atomic::AtomicBool::new(false),
            hidden_code: belay::proxy::hidden_code::HiddenCode::new(1),
            config: Arc::new(config),
        });
        let world = World { cx, node, publisher };
        world.node_is(NodeState::Serving);
        world
    }

    /// The node is in this state from now on.
    pub fn node_is(&self, state: NodeState) {
        self.node_has(state, NodeCharsets::default());
    }

    /// The same, and these are its character sets.
    pub fn node_has(&self, state: NodeState, charsets: NodeCharsets) {
        let facts = NodeFacts {
            version: "10.11.19-MariaDB".into(),
            flavor: Flavor::MariaDb,
            uptime_s: 9,
            ..Default::default()
        };
        self.publisher.report(
            NodeId(0),
            NodeReport { state, facts: Some(facts), charsets: Arc::new(charsets), ..NodeReport::default() },
        );
    }

    /// A client that has logged in, with DEPRECATE_EOF.
    pub async fn client(&self) -> Client {
        self.client_with(Capabilities::DEPRECATE_EOF).await
    }

    /// A client that has logged in, with these capabilities and those that all have.
    pub async fn client_with(&self, capabilities: Capabilities) -> Client {
        let mut client = self.arrive(capabilities, None, 45);
        assert_eq!(client.reply().await, Reply::Ok);
        client
    }

    /// A client that has logged in with this collation.
    pub async fn client_in(&self, collation: u16) -> Client {
        let mut client = self.arrive(Capabilities::DEPRECATE_EOF, None, collation);
        assert_eq!(client.reply().await, Reply::Ok);
        client
    }

    /// A client that logs in with this schema, and waits for the OK.
    pub fn client_of(&self, schema: &'static str) -> Client {
        self.arrive(Capabilities::DEPRECATE_EOF, Some(Bytes::from_static(schema.as_bytes())), 45)
    }

    fn arrive(&self, capabilities: Capabilities, schema: Option<Bytes>, collation: u16) -> Client {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let registration = self.cx.registry.register("test".into());
        let mut io = PacketIo::new(Stream::Plain(Plain::Unix(ours)));
        io.seq = 1;
        let login = LoggedIn {
            io,
            user: "app".into(),
            account: account(),
            schema,
            capabilities: Capabilities::PROTOCOL_41
                | Capabilities::TRANSACTIONS
                | Capabilities::SESSION_TRACK
                | capabilities,
            collation,
            attributes: Vec::new(),
            opening: Some(opening()),
            dedicated: None,
        };
        let cx = self.cx.clone();
        tokio::spawn(async move {
            if let Some(session) = ClientSession::begin(cx, registration.handle.clone(), login, ClientHost::Local).await
            {
                session.run().await;
            }
            drop(registration);
        });
        Client::new(theirs)
    }

    /// Counted, free and waiting server sessions.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.cx.pool.endpoint(NodeId(0), &account()).counts()
    }

    /// Waits until `what` holds.
    pub async fn until(&self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..2000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        panic!("it never came to this: {what}; counts {:?}, said {:?}", self.counts(), self.node.said());
    }
}

fn account() -> AccountId {
    AccountKey::new("app", "%")
}

fn opening() -> Opening {
    Opening::with_password("app", Secret::new(String::new()))
}

fn configuration(address: &str, pool: &str, session: &str) -> Config {
    let text = format!(
        "[listen]\naddresses = [\"127.0.0.1:1\"]\n[listen.tls]\nmode = \"off\"\n[admin]\naddress = \"127.0.0.1:2\"\n\
         [[node]]\nname = \"n\"\naddress = \"{address}\"\n[monitor]\nuser = \"app\"\npassword = \"x\"\n[pool]\n{pool}\n\
         [cluster]\nhold_timeout_ms = 1000\n[session]\n{session}\n"
    );
    config::from_text(&text, "test.toml".as_ref(), &Default::default()).unwrap_or_else(|f| panic!("{f}"))
}

/// Made once: an RSA key takes its time.
fn password_key(config: &Config) -> Arc<PasswordKey> {
    static KEY: OnceLock<Arc<PasswordKey>> = OnceLock::new();
    KEY.get_or_init(|| ClientTls::new(&config.listen.tls).unwrap().password_key).clone()
}
