//! Kills nodes and starts them again, one at a time and each in its turn, the writer first. So a majority of the cluster always lives.
//!
//! ```text
//!   calm ──► kill -9 one node ──► down ──► start it again ──► synced, and belay has seen it ──► calm …
//! ```

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use belay_integration::Result;
use belay_integration::servers::Galera;

use super::board::Board;
use super::seen::Seen;

/// Time in which nothing happens, between two kills.
const CALM: Duration = Duration::from_secs(3);
/// How long a killed node stays away.
const DOWN: Duration = Duration::from_secs(4);
/// No node is killed this shortly before the end.
const QUIET_END: Duration = Duration::from_secs(5);
/// How long a node that is synced may take until belay calls it serving.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

/// What was done to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs.
    Runs,
    /// Killed, and not started again yet.
    Killed,
    /// Started, not yet synced.
    Starting,
}

/// What chaos has done so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The fate of each node.
    pub fates: Vec<Fate>,
    /// Kills of a node that was the writer.
    pub writer_kills: u64,
    /// Kills of others.
    pub other_kills: u64,
}

/// Who kills the nodes, and what it tells about it.
#[derive(Debug)]
pub struct Chaos {
    board: Arc<Board>,
    admin: String,
    addresses: Vec<String>,
    done: Arc<Mutex<Done>>,
}

impl Chaos {
    /// Nothing killed yet.
    pub fn new(board: &Arc<Board>, admin: &str, addresses: &[String]) -> Chaos {
        let done = Done { fates: vec![Fate::Runs; addresses.len()], writer_kills: 0, other_kills: 0 };
        Chaos {
            board: Arc::clone(board),
            admin: admin.to_owned(),
            addresses: addresses.to_vec(),
            done: Arc::new(Mutex::new(done)),
        }
    }

    /// What was done, for the view.
    pub fn done(&self) -> Arc<Mutex<Done>> {
        Arc::clone(&self.done)
    }

    /// Kills and starts until everything ends; then all nodes run.
    pub fn run(self, cluster: &mut Galera, time: Duration) -> Result<()> {
        let mut killed = vec![0; self.addresses.len()];
        for kill in 1.. {
            self.board.sleep(CALM);
            if self.board.is_stopped() {
                return Ok(());
            }
            if self.board.elapsed() + QUIET_END > time {
                self.board.sleep(time + QUIET_END);
                return Ok(());
            }
            let seen = Seen::now(&self.admin, &self.addresses)?;
            let victim = choose(seen.writer, &killed);
            if let Some(last) = killed.get_mut(victim) {
                *last = kill;
            }
            self.kill(cluster, victim, seen.writer == Some(victim))?;
        }
        Ok(())
    }

    fn kill(&self, cluster: &mut Galera, victim: usize, is_writer: bool) -> Result<()> {
        let name = self.board.nodes().get(victim).cloned().unwrap_or_default();
        let role = if is_writer { ", the writer," } else { "" };
        cluster.node_mut(victim)?.kill()?;
        self.board.event(format!("{name}{role} was killed (kill -9)"));
        {
            let mut done = self.lock();
            if is_writer {
                done.writer_kills += 1;
            } else {
                done.other_kills += 1;
            }
        }
        self.set(victim, Fate::Killed);
        self.board.sleep(DOWN);
        self.set(victim, Fate::Starting);
        cluster.restart(victim)?;
        self.set(victim, Fate::Runs);
        let until = Instant::now() + SEEN_WITHIN;
        while !Seen::now(&self.admin, &self.addresses)?.serves(victim) {
            if Instant::now() > until {
                return Err(format!("belay does not use {name}, which is synced again").into());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        self.board.event(format!("{name} is back"));
        Ok(())
    }

    fn set(&self, node: usize, fate: Fate) {
        if let Some(slot) = self.lock().fates.get_mut(node) {
            *slot = fate;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Done> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The next victim: who was killed the longest ago or never; among equals the writer.
fn choose(writer: Option<usize>, killed: &[u64]) -> usize {
    let by_age = |i: &usize| (killed.get(*i).copied().unwrap_or(0), writer != Some(*i));
    (0..killed.len()).min_by_key(by_age).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_has_its_turn_and_the_writer_is_first() {
        assert_eq!(choose(Some(2), &[0, 0, 0]), 2);
        assert_eq!(choose(Some(0), &[0, 0, 1]), 0);
        assert_eq!(choose(Some(0), &[2, 0, 1]), 1);
        assert_eq!(choose(Some(0), &[2, 3, 1]), 2);
        assert_eq!(choose(None, &[0, 0, 0]), 0);
    }
}
