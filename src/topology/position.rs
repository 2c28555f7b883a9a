//! How far a node has come in the cluster's history, in the words of its kind of replication, and whether one position covers another.
//!
//! Sources: Galera's `wsrep_last_committed`; MariaDB's `gtid_current_pos` (one GTID a domain: everything up to it); MySQL's `gtid_executed` (sets of
//! intervals a source). A position that can't be read covers nothing and is covered by nothing.

use std::collections::BTreeMap;

/// A position in the history of a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Position {
    /// Not known.
    #[default]
    Unknown,
    /// Galera: the number of the last write set that was committed, in the history of this cluster.
    Galera {
        /// `wsrep_cluster_state_uuid`.
        history: String,
        /// `wsrep_last_committed`.
        seqno: u64,
    },
    /// MariaDB: the last sequence number of each replication domain.
    MariaDb(BTreeMap<u32, u64>),
    /// MySQL: the intervals (first, last) of each source and tag, sorted, apart.
    MySql(BTreeMap<String, Vec<(u64, u64)>>),
}

/// More bytes of a position than this are not read.
pub const POSITION_BYTES_MAX: usize = 64 * 1024;

impl Position {
    /// Reads a MariaDB GTID position: `0-1-3,1-2-7`. The empty one is a position too: nothing was written yet.
    pub fn mariadb(text: &str) -> Position {
        let gtids = text.split(',').map(str::trim).filter(|t| !t.is_empty());
        let one = |gtid: &str| {
            let mut parts = gtid.split('-');
            let (domain, server, seq) = (parts.next()?, parts.next()?, parts.next()?);
            let _: u32 = server.parse().ok()?;
            parts.next().is_none().then_some((domain.parse::<u32>().ok()?, seq.parse::<u64>().ok()?))
        };
        if text.len() > POSITION_BYTES_MAX {
            return Position::Unknown;
        }
        let mut domains = BTreeMap::new();
        for gtid in gtids {
            let Some((domain, seq)) = one(gtid) else { return Position::Unknown };
            let last: &mut u64 = domains.entry(domain).or_default();
            *last = seq.max(*last);
        }
        Position::MariaDb(domains)
    }

    /// Reads a MySQL GTID set: `uuid:1-5:7,uuid:tag:1-3` with blanks and line breaks anywhere between.
    pub fn mysql(text: &str) -> Position {
        if text.len() > POSITION_BYTES_MAX {
            return Position::Unknown;
        }
        let mut sources: BTreeMap<String, Vec<(u64, u64)>> = BTreeMap::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            if read_source(part, &mut sources).is_none() {
                return Position::Unknown;
            }
        }
        for intervals in sources.values_mut() {
            join(intervals);
        }
        Position::MySql(sources)
    }

    /// Whether everything up to `other` is in this position.
    pub fn covers(&self, other: &Position) -> bool {
        match (self, other) {
            (Position::Galera { history, seqno }, Position::Galera { history: other_history, seqno: other_seqno }) => {
                !history.is_empty() && history == other_history && seqno >= other_seqno
            }
            (Position::MariaDb(have), Position::MariaDb(want)) => {
                want.iter().all(|(domain, seq)| have.get(domain).is_some_and(|last| last >= seq))
            }
            (Position::MySql(have), Position::MySql(want)) => want.iter().all(|(source, intervals)| {
                let have = have.get(source).map_or(&[][..], Vec::as_slice);
                intervals.iter().all(|(first, last)| have.iter().any(|(f, l)| f <= first && last <= l))
            }),
            _ => false,
        }
    }

    /// The text by which a node is asked to wait for this position; `None` where its kind has none, or nothing is to be waited for.
    pub fn to_wait_for(&self) -> Option<String> {
        let text = match self {
            Position::Unknown | Position::Galera { .. } => String::new(),
            // The server id has no meaning in a wait, but must be there.
            Position::MariaDb(domains) => {
                domains.iter().map(|(domain, seq)| format!("{domain}-1-{seq}")).collect::<Vec<_>>().join(",")
            }
            Position::MySql(sources) => {
                let one = |(source, intervals): (&String, &Vec<(u64, u64)>)| {
                    let intervals: String = intervals.iter().map(|(first, last)| format!(":{first}-{last}")).collect();
                    format!("{source}{intervals}")
                };
                sources.iter().map(one).collect::<Vec<_>>().join(",")
            }
        };
        (!text.is_empty()).then_some(text)
    }
}

/// One `uuid:interval:…:tag:interval…` of a set.
fn read_source(part: &str, sources: &mut BTreeMap<String, Vec<(u64, u64)>>) -> Option<()> {
    let mut fields = part.split(':').map(str::trim);
    let uuid = fields.next().filter(|u| u.len() == 36 && u.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-'))?;
    let mut source = uuid.to_ascii_lowercase();
    for field in fields {
        if field.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_') {
            if !field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
                return None;
            }
            source = format!("{}:{}", uuid.to_ascii_lowercase(), field.to_ascii_lowercase());
            continue;
        }
        let (first, last) = field.split_once('-').unwrap_or((field, field));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first == 0 || last < first {
            return None;
        }
        sources.entry(source.clone()).or_default().push((first, last));
    }
    Some(())
}

/// Sorts intervals and joins those that touch.
fn join(intervals: &mut Vec<(u64, u64)>) {
    intervals.sort_unstable();
    let mut joined: Vec<(u64, u64)> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals.drain(..) {
        match joined.last_mut() {
            Some(before) if first <= before.1.saturating_add(1) => before.1 = before.1.max(last),
            _ => joined.push((first, last)),
        }
    }
    *intervals = joined;
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn galera(history: &str, seqno: u64) -> Position {
        Position::Galera { history: history.into(), seqno }
    }

    #[test]
    fn galera_counts_within_one_history() {
        assert!(galera("u", 5).covers(&galera("u", 5)));
        assert!(!galera("u", 4).covers(&galera("u", 5)));
        assert!(!galera("v", 9).covers(&galera("u", 5)));
        assert!(!galera("", 9).covers(&galera("", 5)), "no history is no proof");
    }

    #[test]
    fn mariadb_needs_every_domain() {
        let have = Position::mariadb("0-1-10,1-5-3");
        assert!(have.covers(&Position::mariadb("0-2-10")));
        assert!(have.covers(&Position::mariadb("1-1-3,0-1-1")));
        assert!(!have.covers(&Position::mariadb("0-1-11")));
        assert!(!have.covers(&Position::mariadb("2-1-1")));
        assert!(have.covers(&Position::mariadb("")));
        assert_eq!(Position::mariadb("0-1"), Position::Unknown);
        assert_eq!(Position::mariadb("x-1-2"), Position::Unknown);
        assert_eq!(Position::mariadb("0-7-4").to_wait_for().as_deref(), Some("0-1-4"));
    }

    #[test]
    fn mysql_needs_every_interval() {
        let have = Position::mysql(&format!("{A}:1-5:7-9,\n{}:t1:1-3:6", A.to_uppercase()));
        assert!(have.covers(&Position::mysql(&format!("{A}:2-5:8"))));
        assert!(!have.covers(&Position::mysql(&format!("{A}:5-7"))));
        assert!(have.covers(&Position::mysql(&format!("{A}:t1:6"))));
        assert!(!have.covers(&Position::mysql(&format!("{A}:t2:1"))));
        assert!(
            Position::mysql(&format!("{A}:1-3:4-5")).covers(&Position::mysql(&format!("{A}:1-5"))),
            "touching ones join"
        );
        assert_eq!(Position::mysql("nonsense:1"), Position::Unknown);
        assert_eq!(Position::mysql(&format!("{A}:5-2")), Position::Unknown);
        assert_eq!(Position::mysql(&format!("{A}:3")).to_wait_for(), Some(format!("{A}:3-3")));
    }

    #[test]
    fn the_unknown_proves_nothing() {
        let known = [galera("u", 1), Position::mariadb(""), Position::mysql("")];
        for position in &known {
            assert!(!Position::Unknown.covers(position) && !position.covers(&Position::Unknown));
        }
        assert!(!Position::Unknown.covers(&Position::Unknown));
    }

    proptest! {
        #[test]
        fn what_is_read_back_covers_itself(text in "[0-9a-f:,-]{0,80}") {
            for position in [Position::mariadb(&text), Position::mysql(&text)] {
                prop_assert!(position == Position::Unknown || position.covers(&position));
                if let Some(text) = position.to_wait_for() {
                    let again = if matches!(position, Position::MySql(_)) { Position::mysql(&text) } else { Position::mariadb(&text) };
                    prop_assert_eq!(again, position);
                }
            }
        }
    }
}
