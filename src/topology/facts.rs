//! What one probe read from a node: the rows of its status and variables, in types.

use crate::protocol::mysql::flavor::Flavor;
use crate::topology::position::Position;

/// The first statement of a probe. One reply of rows (name, value). Works on nodes that refuse everything else.
pub const STATUS_SQL: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN ('Uptime','wsrep_ready','wsrep_local_state',\
     'wsrep_local_state_comment','wsrep_cluster_status','wsrep_connected','wsrep_cluster_state_uuid','wsrep_last_committed')";

/// The second statement of a probe. One reply of rows (name, value).
pub const VARIABLES_SQL: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version','version_comment','read_only',\
     'super_read_only','innodb_read_only','offline_mode','wsrep_on','wsrep_desync','wsrep_reject_queries',\
     'wsrep_sst_donor_rejects_queries','gtid_current_pos','gtid_executed','gtid_mode')";

/// What is said of Galera by a node that has the provider.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WsrepFacts {
    /// `wsrep_on`: writes on this node are replicated.
    pub on: bool,
    /// `wsrep_ready`.
    pub ready: bool,
    /// `wsrep_connected`: to the group.
    pub connected: bool,
    /// `wsrep_local_state`: 1 joining, 2 donor or desynced, 3 joined, 4 synced. `None` when the node does not say.
    pub local_state: Option<u32>,
    /// `wsrep_local_state_comment`.
    pub local_state_comment: String,
    /// `wsrep_cluster_status`: `Primary`, `non-Primary`, `Disconnected`.
    pub cluster_status: String,
    /// `wsrep_cluster_state_uuid`: which cluster's history this node has.
    pub cluster_uuid: String,
    /// `wsrep_desync`: an administrator, or a backup, took it out of flow control.
    pub desync: bool,
    /// `wsrep_reject_queries` is not NONE.
    pub rejects_queries: bool,
    /// `wsrep_sst_donor_rejects_queries`.
    pub donor_rejects_queries: bool,
}

/// What one successful probe said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    /// `@@version`.
    pub version: String,
    /// The family that the version gives away.
    pub flavor: Flavor,
    /// `Uptime`: seconds since its server process started.
    pub uptime_s: u64,
    /// `read_only`.
    pub read_only: bool,
    /// `super_read_only` (MySQL).
    pub super_read_only: bool,
    /// `innodb_read_only`.
    pub innodb_read_only: bool,
    /// `offline_mode` (MySQL): ordinary accounts are thrown out.
    pub offline_mode: bool,
    /// What it says of Galera; `None` on a server that is in no Galera cluster.
    pub wsrep: Option<WsrepFacts>,
    /// Its role by [`crate::topology::oceanbase::ROLE_SQL`]; `None` on other servers, and where it does not say.
    pub oceanbase_role: Option<String>,
    /// How far it has come in the cluster's history.
    pub position: Position,
}

/// Why rows could not become facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FactsError {
    /// `version` is missing or empty.
    #[error("the node did not say its version")]
    NoVersion,
    /// `Uptime` is missing or not a number.
    #[error("the node did not say its uptime")]
    NoUptime,
}

impl NodeFacts {
    /// Reads facts from rows of (name, value), those of [`STATUS_SQL`] and [`VARIABLES_SQL`] one after the other.
    /// Unknown names are skipped, so newer servers may say more.
    pub fn from_rows<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<NodeFacts, FactsError> {
        let mut facts = NodeFacts::default();
        let mut wsrep = WsrepFacts::default();
        let mut uptime_s = None;
        let (mut seqno, mut gtid_current_pos, mut gtid_executed, mut counts) = (None, None, None, false);
        for (name, value) in rows {
            match name.to_ascii_lowercase().as_str() {
                "version" => facts.version = value.to_owned(),
                "uptime" => uptime_s = value.parse().ok(),
                "read_only" => facts.read_only = is_on(value),
                "super_read_only" => facts.super_read_only = is_on(value),
                "innodb_read_only" => facts.innodb_read_only = is_on(value),
                "offline_mode" => facts.offline_mode = is_on(value),
                "wsrep_on" => wsrep.on = is_on(value),
                "wsrep_ready" => wsrep.ready = is_on(value),
                "wsrep_connected" => wsrep.connected = is_on(value),
                "wsrep_local_state" => wsrep.local_state = value.parse().ok(),
                "wsrep_local_state_comment" => wsrep.local_state_comment = value.to_owned(),
                "wsrep_cluster_status" => wsrep.cluster_status = value.to_owned(),
                "wsrep_last_committed" => seqno = value.parse().ok(),
                "gtid_current_pos" => gtid_current_pos = Some(value),
                "gtid_executed" => gtid_executed = Some(value),
                // In the other modes new transactions are anonymous, and the set stands still.
                "gtid_mode" => counts = matches!(value, "ON" | "ON_PERMISSIVE"),
                "wsrep_cluster_state_uuid" => wsrep.cluster_uuid = value.to_owned(),
                "wsrep_desync" => wsrep.desync = is_on(value),
                "wsrep_reject_queries" => wsrep.rejects_queries = !value.eq_ignore_ascii_case("NONE"),
                "wsrep_sst_donor_rejects_queries" => wsrep.donor_rejects_queries = is_on(value),
                _ => {}
            }
        }
        facts.uptime_s = uptime_s.ok_or(FactsError::NoUptime)?;
        if facts.version.is_empty() {
            return Err(FactsError::NoVersion);
        }
        facts.flavor = Flavor::of_version(&facts.version);
        // MariaDB without Galera lists wsrep_* too: off and disconnected. With wsrep_on switched off at run time it is
        // still connected, and that must not pass for an ordinary server: its writes would reach no other node.
        if wsrep.on || wsrep.connected {
            facts.position = match seqno {
                Some(seqno) => Position::Galera { history: wsrep.cluster_uuid.clone(), seqno },
                None => Position::Unknown,
            };
            facts.wsrep = Some(wsrep);
        } else {
            facts.position = match facts.flavor {
                Flavor::MariaDb => gtid_current_pos.map_or(Position::Unknown, Position::mariadb),
                Flavor::MySql => gtid_executed.filter(|_| counts).map_or(Position::Unknown, Position::mysql),
                Flavor::OceanBase => Position::Unknown,
            };
        }
        Ok(facts)
    }
}

fn is_on(value: &str) -> bool {
    value.eq_ignore_ascii_case("ON") || value == "1" || value.eq_ignore_ascii_case("YES")
}

/// Rows captured on real servers: MariaDB 10.11.19 (alone, and in a Galera cluster of three) MySQL 9.7.4, and
/// seekdb 1.4.
#[cfg(test)]
pub(crate) mod captured {
    use super::NodeFacts;

    pub const MARIADB_ALONE: &str = "Uptime=847;wsrep_cluster_size=0;wsrep_cluster_status=Disconnected;wsrep_connected=OFF;wsrep_ready=OFF;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=OFF;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";
    pub const MARIADB_READ_ONLY: &str = "Uptime=848;wsrep_cluster_size=0;wsrep_cluster_status=Disconnected;wsrep_connected=OFF;wsrep_ready=OFF;innodb_read_only=OFF;read_only=ON;version=10.11.19-MariaDB-0+deb12u1;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=OFF;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";
    pub const MYSQL: &str = "Uptime=717;innodb_read_only=OFF;offline_mode=OFF;read_only=OFF;super_read_only=OFF;version=9.7.4-2;version_comment=(Debian);";
    pub const MYSQL_SUPER_READ_ONLY: &str = "Uptime=718;innodb_read_only=OFF;offline_mode=OFF;read_only=ON;super_read_only=ON;version=9.7.4-2;version_comment=(Debian);";
    pub const MYSQL_OFFLINE: &str = "Uptime=718;innodb_read_only=OFF;offline_mode=ON;read_only=OFF;super_read_only=OFF;version=9.7.4-2;version_comment=(Debian);";
    pub const SEEKDB: &str = "Uptime=19;gtid_executed=;innodb_read_only=OFF;offline_mode=0;read_only=OFF;super_read_only=OFF;version=5.7.25-OceanBase seekdb-v1.4.0.0;version_comment=OceanBase 4.3.5.3 seekdb (r1.4.0.0);";
    pub const SYNCED: &str = "Uptime=637;wsrep_local_state=4;wsrep_local_state_comment=Synced;wsrep_cluster_size=3;wsrep_cluster_status=Primary;wsrep_connected=ON;wsrep_ready=ON;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1-log;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=ON;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";
    pub const DESYNCED: &str = "Uptime=634;wsrep_local_state=2;wsrep_local_state_comment=Donor/Desynced;wsrep_cluster_size=3;wsrep_cluster_status=Primary;wsrep_connected=ON;wsrep_ready=ON;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1-log;version_comment=Debian 12;wsrep_desync=ON;wsrep_on=ON;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";
    pub const REJECTING: &str = "Uptime=634;wsrep_local_state=4;wsrep_local_state_comment=Synced;wsrep_cluster_size=3;wsrep_cluster_status=Primary;wsrep_connected=ON;wsrep_ready=ON;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1-log;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=ON;wsrep_reject_queries=ALL;wsrep_sst_donor_rejects_queries=OFF;";
    pub const WSREP_SWITCHED_OFF: &str = "Uptime=634;wsrep_cluster_size=3;wsrep_cluster_status=Primary;wsrep_connected=ON;wsrep_ready=ON;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1-log;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=OFF;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";
    pub const NON_PRIMARY: &str = "Uptime=645;wsrep_local_state=0;wsrep_local_state_comment=Initialized;wsrep_cluster_size=1;wsrep_cluster_status=non-Primary;wsrep_connected=ON;wsrep_ready=OFF;innodb_read_only=OFF;read_only=OFF;version=10.11.19-MariaDB-0+deb12u1-log;version_comment=Debian 12;wsrep_desync=OFF;wsrep_on=ON;wsrep_reject_queries=NONE;wsrep_sst_donor_rejects_queries=OFF;";

    /// The facts of a captured line.
    pub fn facts(line: &str) -> NodeFacts {
        NodeFacts::from_rows(line.split(';').filter_map(|pair| pair.split_once('='))).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::captured::*;
    use super::*;

    #[test]
    fn galera_is_recognised_and_plain_mariadb_is_not_galera() {
        assert_eq!(facts(MARIADB_ALONE).wsrep, None);
        assert_eq!(facts(MYSQL).wsrep, None);
        assert_eq!(facts(MYSQL).flavor, Flavor::MySql);
        assert_eq!(facts(SEEKDB).flavor, Flavor::OceanBase);
        assert_eq!(facts(SYNCED).wsrep.unwrap().local_state, Some(4));
        assert!(!facts(WSREP_SWITCHED_OFF).wsrep.unwrap().on);
    }

    #[test]
    fn missing_rows_are_errors() {
        assert_eq!(NodeFacts::from_rows([("version", "1")]), Err(FactsError::NoUptime));
        assert_eq!(NodeFacts::from_rows([("Uptime", "1")]), Err(FactsError::NoVersion));
        assert_eq!(NodeFacts::from_rows([("Uptime", "-"), ("version", "1")]), Err(FactsError::NoUptime));
    }
}
