//! A Galera cluster of MariaDB nodes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::mariadb::{Instance, data_template};
use super::{template, template_name};
use crate::paths::Scratch;
use crate::ports::free_port;
use crate::process::{run, wait_for};
use crate::tls::Tls;
use crate::{Error, Result};

/// Where packages put the provider.
const PROVIDERS: &[&str] =
    &["/usr/lib/galera/libgalera_smm.so", "/usr/lib/libgalera_smm.so", "/usr/lib64/galera-4/libgalera_smm.so"];
/// Provider options that find a dead node within seconds.
const FAST: &str = "evs.keepalive_period=PT0.3S;evs.suspect_timeout=PT1.5S;evs.inactive_timeout=PT4S;\
                    evs.inactive_check_period=PT0.3S;evs.install_timeout=PT4S;gcache.size=64M;pc.recovery=TRUE";

/// The ports that one node uses besides the one for clients.
#[derive(Clone, Copy, Debug)]
struct GroupPorts {
    group: u16,
    ist: u16,
    sst: u16,
}

/// A running cluster.
#[derive(Debug)]
pub struct Galera {
    nodes: Vec<Instance>,
    group: Vec<GroupPorts>,
    _scratch: Option<Scratch>,
}

impl Galera {
    /// Starts a cluster of `count` nodes in a scratch directory and waits until all are synced.
    pub fn start(count: usize) -> Result<Galera> {
        Galera::start_with(count, &[])
    }

    /// The same with more options for every node.
    pub fn start_with(count: usize, options: &[&str]) -> Result<Galera> {
        let scratch = Scratch::new("galera")?;
        let mut galera = Galera::prepare(count, scratch.path(), |n| n.options(options.iter().copied()))?;
        galera._scratch = Some(scratch);
        galera.start_all()?;
        Ok(galera)
    }

    /// The same with TLS towards clients.
    pub fn start_tls(count: usize, tls: &Tls) -> Result<Galera> {
        let scratch = Scratch::new("galera")?;
        let mut galera = Galera::prepare(count, scratch.path(), |n| n.enable_tls(tls))?;
        galera._scratch = Some(scratch);
        galera.start_all()?;
        Ok(galera)
    }

    /// A cluster in a directory of the caller's, who removes it.
    pub fn start_in(count: usize, dir: &Path) -> Result<Galera> {
        let mut galera = Galera::prepare(count, dir, |_| ())?;
        galera.start_all()?;
        Ok(galera)
    }

    fn prepare(count: usize, dir: &Path, configure: impl Fn(&mut Instance)) -> Result<Galera> {
        let data = cluster_template()?;
        let group: Vec<GroupPorts> =
            (0..count).map(|_| GroupPorts { group: free_port(), ist: free_port(), sst: free_port() }).collect();
        let mut nodes = Vec::new();
        for i in 0..count {
            let name = format!("n{}", i + 1);
            let mut node = Instance::prepare(&name, dir.join(&name), &data)?;
            set_safe_to_bootstrap(&node, i == 0)?;
            node.options(wsrep_options(&name, group.get(i).ok_or("no ports")?)?);
            configure(&mut node);
            nodes.push(node);
        }
        Ok(Galera { nodes, group, _scratch: None })
    }

    fn start_all(&mut self) -> Result<()> {
        for i in 0..self.nodes.len() {
            let address = if i == 0 { "gcomm://".to_owned() } else { self.group_address() };
            self.node_mut(i)?.launch(&[format!("--wsrep-cluster-address={address}")])?;
            self.wait_synced(i, Duration::from_secs(90))?;
        }
        Ok(())
    }

    fn group_address(&self) -> String {
        let members: Vec<String> = self.group.iter().map(|g| format!("127.0.0.1:{}", g.group)).collect();
        format!("gcomm://{}", members.join(","))
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Instance] {
        &self.nodes
    }

    /// Node `i`, from 0.
    pub fn node(&self, i: usize) -> Result<&Instance> {
        self.nodes.get(i).ok_or_else(|| format!("there is no node {i}").into())
    }

    /// Node `i`, from 0.
    pub fn node_mut(&mut self, i: usize) -> Result<&mut Instance> {
        self.nodes.get_mut(i).ok_or_else(|| Error::from(format!("there is no node {i}")))
    }

    /// The addresses of all nodes, in order.
    pub fn addresses(&self) -> Vec<String> {
        self.nodes.iter().map(Instance::address).collect()
    }

    /// Starts node `i` again after a kill or a stop: recovers its position first, joins the others, waits until it is synced. If no
    /// other node runs, it bootstraps the cluster anew.
    pub fn restart(&mut self, i: usize) -> Result<()> {
        let alone = !(0..self.nodes.len()).any(|j| j != i && self.nodes.get_mut(j).is_some_and(Instance::is_running));
        let address = if alone { "gcomm://".to_owned() } else { self.group_address() };
        let position = self.recovered_position(i)?;
        if alone {
            set_safe_to_bootstrap(self.node(i)?, true)?;
            let _ = fs::remove_file(self.node(i)?.dir().join("data/gvwstate.dat"));
        }
        let mut once = vec![format!("--wsrep-cluster-address={address}")];
        once.extend(position.map(|p| format!("--wsrep-start-position={p}")));
        self.node_mut(i)?.launch(&once)?;
        self.wait_synced(i, Duration::from_secs(120))
    }

    /// What `--wsrep-recover` says about the data of a stopped node.
    fn recovered_position(&self, i: usize) -> Result<Option<String>> {
        let node = self.node(i)?;
        let log = node.dir().join("recover.log");
        let mut command = node.command()?;
        command.args(["--wsrep-recover", "--wsrep-cluster-address=gcomm://"]);
        command.arg(format!("--log-error={}", log.display()));
        if let Some((uid, gid)) = crate::paths::server_user() {
            std::os::unix::process::CommandExt::uid(&mut command, uid);
            std::os::unix::process::CommandExt::gid(&mut command, gid);
        }
        run(&mut command)?;
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        let position = text.lines().filter_map(|l| l.split("Recovered position:").nth(1)).next_back();
        Ok(position.map(|p| p.trim().split(',').next().unwrap_or_default().to_owned()).filter(|p| !p.is_empty()))
    }

    /// Waits until all nodes are synced and see each other. One that was frozen says for a while after that it is, before it learns that the others
    /// went on without it.
    pub fn wait_whole(&self, limit: Duration) -> Result<()> {
        let size = self.nodes.len().to_string();
        let is_in =
            |address: &String| is_synced(address) && status(address, "wsrep_cluster_size").as_ref() == Some(&size);
        let addresses = self.addresses();
        wait_for("a cluster without gaps", limit, || addresses.iter().all(is_in).then_some(()))
    }

    /// Waits until node `i` is synced and in the primary component.
    pub fn wait_synced(&mut self, i: usize, limit: Duration) -> Result<()> {
        let node = self.node_mut(i)?;
        let address = node.address();
        let mut ended = false;
        let waited = wait_for("a synced node", limit, || {
            ended = !node.is_running();
            (ended || is_synced(&address)).then_some(())
        });
        match waited {
            Ok(()) if !ended => Ok(()),
            _ => Err(node.process()?.failure("did not get synced")),
        }
    }
}

/// Whether the node at `address` says it is synced.
pub fn is_synced(address: &str) -> bool {
    status(address, "wsrep_local_state").as_deref() == Some("4")
}

/// A status variable of the node at `address`; `None` if it does not answer.
fn status(address: &str, name: &str) -> Option<String> {
    let mut wire = super::admin_connection(address).ok()?;
    wire.value(&format!("SELECT VARIABLE_VALUE FROM information_schema.GLOBAL_STATUS WHERE VARIABLE_NAME = '{name}'"))
        .ok()?
}

fn provider() -> Result<PathBuf> {
    let found = PROVIDERS.iter().map(PathBuf::from).find(|p| p.exists());
    found.ok_or_else(|| "galera-4 is not installed: run integration/setup.sh".into())
}

fn wsrep_options(name: &str, ports: &GroupPorts) -> Result<Vec<String>> {
    let GroupPorts { group, ist, sst } = *ports;
    Ok(vec![
        "--wsrep-on=ON".into(),
        format!("--wsrep-provider={}", provider()?.display()),
        "--wsrep-cluster-name=belay-it".into(),
        format!("--wsrep-node-name={name}"),
        "--wsrep-node-address=127.0.0.1".into(),
        "--wsrep-sst-method=rsync".into(),
        format!("--wsrep-sst-receive-address=127.0.0.1:{sst}"),
        "--wsrep-slave-threads=2".into(),
        "--innodb-autoinc-lock-mode=2".into(),
        "--binlog-format=ROW".into(),
        "--log-bin=binlog".into(),
        "--log-slave-updates".into(),
        format!(
            "--wsrep-provider-options=base_host=127.0.0.1;base_port={group};\
             gmcast.listen_addr=tcp://127.0.0.1:{group};ist.recv_addr=127.0.0.1:{ist};{FAST}"
        ),
    ])
}

fn set_safe_to_bootstrap(node: &Instance, safe: bool) -> Result<()> {
    let path = node.dir().join("data/grastate.dat");
    let Ok(text) = fs::read_to_string(&path) else { return Ok(()) };
    let line = |l: &str| match l.strip_prefix("safe_to_bootstrap:") {
        Some(_) => format!("safe_to_bootstrap: {}\n", u8::from(safe)),
        None => format!("{l}\n"),
    };
    fs::write(&path, text.lines().map(line).collect::<String>())?;
    Ok(())
}

/// A data directory that has been a cluster of one: every node that starts from a copy has the same position, so that nothing
/// needs to be transferred when they join.
fn cluster_template() -> Result<PathBuf> {
    let base = data_template()?;
    let name = template_name("galera", &[&base.display().to_string(), FAST]);
    template(&name, |dir| {
        let mut node = Instance::prepare("template", dir.join("n"), &base)?;
        let ports = GroupPorts { group: free_port(), ist: free_port(), sst: free_port() };
        node.options(wsrep_options("template", &ports)?);
        node.launch(&["--wsrep-cluster-address=gcomm://".to_owned()])?;
        let address = node.address();
        wait_for("the first Galera node", Duration::from_secs(60), || is_synced(&address).then_some(()))
            .or_else(|e| Err(node.process()?.failure(&e.to_string())))?;
        node.stop()?;
        let data = node.dir().join("data");
        for left in ["galera.cache", "gvwstate.dat"] {
            let _ = fs::remove_file(data.join(left));
        }
        fs::rename(data, dir.join("data"))?;
        Ok(())
    })
}
