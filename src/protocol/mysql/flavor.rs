//! Which family of servers a node belongs to: the same packet or variable can mean different things to each.

/// A family of servers that speak the MySQL protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Flavor {
    /// MariaDB, with or without Galera.
    #[default]
    MariaDb,
    /// MySQL and what is built from its source (Percona Server).
    MySql,
    /// OceanBase in MySQL mode, seekdb.
    OceanBase,
}

impl Flavor {
    /// The flavor that a version text (of the greeting, or `@@version`) gives away.
    pub fn of_version(version: &str) -> Flavor {
        let lower = version.to_ascii_lowercase();
        if lower.contains("mariadb") {
            Flavor::MariaDb
        } else if lower.contains("oceanbase") || lower.contains("seekdb") {
            Flavor::OceanBase
        } else {
            Flavor::MySql
        }
    }

    /// The word for this flavor in logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Flavor::MariaDb => "mariadb",
            Flavor::MySql => "mysql",
            Flavor::OceanBase => "oceanbase",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_real_servers() {
        assert_eq!(Flavor::of_version("5.5.5-10.11.19-MariaDB-0+deb12u1-log"), Flavor::MariaDb);
        assert_eq!(Flavor::of_version("9.7.4-2"), Flavor::MySql);
        assert_eq!(Flavor::of_version("5.7.25-OceanBase seekdb-v1.4.0"), Flavor::OceanBase);
    }
}
