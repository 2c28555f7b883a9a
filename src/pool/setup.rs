//! What a server session gets right after its login, in one flight: tracking of its state, and a look at its variables.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use crate::pool::flight::{self, Answer, Ask, FlightError};
use crate::pool::prepared::ServerStatements;
use crate::pool::server_conn::ServerConn;
use crate::pool::session::ServerSession;
use crate::protocol::ErrorReply;
use crate::protocol::mysql::capability::Capabilities;
use crate::protocol::mysql::flavor::Flavor;
use crate::session::baseline::Baseline;
use crate::session::next_transaction::Pending;
use crate::session::state::{CharacterSets, SessionState};
use crate::topology::NodeView;
use crate::topology::variables::EMPTY_VALUE_REFUSED;

/// Why a fresh connection can't be used.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It broke.
    #[error(transparent)]
    Flight(#[from] FlightError),
    /// The node refused a statement.
    #[error("the node refused to {what}: {error}")]
    Refused {
        /// What was asked.
        what: &'static str,
        /// Its answer.
        error: ErrorReply,
    },
}

/// The statement that switches tracking on.
pub fn tracking(node: &NodeView) -> Bytes {
    // MariaDB reports all at no cost; MySQL adds a statement number to every OK unless the variables are named.
    let list = match node.flavor {
        Flavor::MySql if !node.tracked_variables.is_empty() => node.tracked_variables.joined(),
        _ => "*",
    };
    let more = match node.flavor {
        // It reports a GTID as the variable last_gtid.
        Flavor::MariaDb => ",session_track_transaction_info='CHARACTERISTICS'",
        Flavor::MySql => ",session_track_transaction_info='CHARACTERISTICS',session_track_gtids='OWN_GTID'",
        // It puts session_track_transaction_info back to OFF, with a warning.
        Flavor::OceanBase => "",
    };
    Bytes::from(format!(
        "SET SESSION session_track_system_variables='{list}',session_track_schema=1,session_track_state_change=1{more}"
    ))
}

/// Switches tracking on and reads the baseline.
pub async fn prepare(
    mut conn: ServerConn,
    node: &NodeView,
    behaviour: Capabilities,
    serial: u64,
    prepared_statements_max: usize,
    intern: impl FnOnce(Baseline) -> Arc<Baseline>,
) -> Result<Box<ServerSession>, SetupError> {
    let asks = [
        Ask::Query(tracking(node)),
        Ask::Query(Bytes::from_static(ASK_ROLE)),
        Ask::Query(Bytes::from_static(b"SHOW SESSION VARIABLES")),
    ];
    let answers = flight::fly(&mut conn, b"", &asks).await?;
    let [tracked, role, variables] = answers.as_slice() else {
        return Err(SetupError::Flight(FlightError::Protocol("an answer is missing".into())));
    };
    refused(tracked, "track the session's state")?;
    refused(variables, "list the session's variables")?;
    let (baseline, charsets) = read_variables(variables, node);
    let role = read_role(role, conn.flavor);
    let mut state = SessionState::new(intern(baseline), charsets, None);
    state.set_login_role(role.clone(), role);
    conn.io.shrink();
    // SHOW VARIABLES reads a table.
    conn.messages = variables.warnings > 0;
    let now = Instant::now();
    Ok(Box::new(ServerSession {
        serial,
        node: node.id,
        conn,
        behaviour,
        state,
        last_use: None,
        unread_insert_id: None,
        next_transaction: Pending::Nothing,
        last_insert_id: Some(0),
        prepared: ServerStatements::new(prepared_statements_max),
        text_statements: crate::session::text_statement::TextStatements::default(),
        fresh: true,
        opened_at: now,
        idle_since: now,
    }))
}

/// Asks for the role of a session.
pub const ASK_ROLE: &[u8] = b"SELECT CURRENT_ROLE()";

/// The role in the answer to [`ASK_ROLE`], as SET ROLE takes it; `None` where the server does not say, or not in a way that can be said again.
pub fn read_role(answer: &Answer, flavor: Flavor) -> Option<Bytes> {
    let value = answer.rows.first()?.first()?;
    let plain = |text: &[u8]| !text.is_empty() && text.iter().all(|b| matches!(b, 0x20..=0x7E));
    match (flavor, value) {
        (Flavor::MariaDb, None) => Some(Bytes::from_static(b"NONE")),
        (Flavor::MariaDb, Some(name)) if plain(name) => {
            let mut quoted = vec![b'`'];
            for byte in name {
                quoted.push(*byte);
                if *byte == b'`' {
                    quoted.push(b'`');
                }
            }
            quoted.push(b'`');
            Some(Bytes::from(quoted))
        }
        // NONE, or a list that is quoted already.
        (Flavor::MySql | Flavor::OceanBase, Some(list)) if plain(list) => Some(list.clone()),
        _ => None,
    }
}

fn refused(answer: &Answer, what: &'static str) -> Result<(), SetupError> {
    match &answer.error {
        Some(error) => Err(SetupError::Refused { what, error: error.clone() }),
        None => Ok(()),
    }
}

/// The baseline and character sets in the rows of SHOW VARIABLES.
pub fn read_variables(answer: &Answer, node: &NodeView) -> (Baseline, CharacterSets) {
    let mut charsets = CharacterSets::default();
    let mut values = Vec::new();
    for row in &answer.rows {
        let [Some(name), value] = row.as_slice() else { continue };
        let Ok(name) = std::str::from_utf8(name) else { continue };
        let name = name.to_ascii_lowercase();
        let value = value.clone().unwrap_or_default();
        match name.as_str() {
            "character_set_client" => charsets.client = value,
            "character_set_connection" => charsets.connection = value,
            "character_set_results" => charsets.results = value,
            "collation_connection" => charsets.collation = Some(value),
            // Servers report this value and refuse it: it can't be put back, so a change of it pins.
            _ if value.is_empty() && EMPTY_VALUE_REFUSED.contains(&name.as_str()) => {}
            _ if node.tracked_variables.contains(&name) => values.push((Arc::from(name.as_str()), value)),
            _ => {}
        }
    }
    (Baseline::new(values), charsets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::ClusterSnapshot;
    use crate::topology::variables::TrackedVariables;

    #[test]
    fn a_value_that_is_reported_and_refused_is_no_part_of_the_baseline() {
        let mut node = ClusterSnapshot::initial([("n", "h:1")], "10.11.19-MariaDB").nodes.remove(0);
        node.tracked_variables = Arc::new(TrackedVariables::from_listing(["innodb_tmpdir", "sql_mode"]));
        let row = |name: &'static str, value: &'static str| vec![Some(Bytes::from(name)), Some(Bytes::from(value))];
        let answer =
            |tmpdir| Answer { rows: vec![row("innodb_tmpdir", tmpdir), row("sql_mode", "")], ..Answer::default() };
        let (baseline, _) = read_variables(&answer(""), &node);
        assert_eq!(baseline.get("innodb_tmpdir"), None);
        assert_eq!(baseline.get("sql_mode"), Some(&Bytes::new()));
        assert!(read_variables(&answer("/t"), &node).0.get("innodb_tmpdir").is_some());
    }
}
