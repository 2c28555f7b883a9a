//! Session variables that were set and not reported: what must be asked for before anybody else may use the server session.
//!
//! ```text
//!   a failed statement that may have run code ──▶ held back: MySQL and OceanBase report it with the next OK, MariaDB with the next change (observed)
//!   SET @@name = …                            ──▶ unread: MariaDB never reports a form without a scope (observed)
//!   a report that is not the last word        ──▶ unread: servers put sql_mode and character sets back when a routine ends, and report nothing
//! ```

use std::sync::Arc;

use bytes::Bytes;

use super::state::SessionState;
use crate::protocol::mysql::flavor::Flavor;
use crate::sql::{Effects, Facts, SetScope, StatementClass, StatementCount, Verb};

/// Variables that belong to the character-set group.
pub const CHARSET_GROUP: [&str; 4] =
    ["character_set_client", "character_set_results", "character_set_connection", "collation_connection"];

/// Of these one is told by the other.
const CONNECTION: [&str; 2] = ["character_set_connection", "collation_connection"];

/// What a text assigns to session variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assigned {
    /// Variables that are followed.
    pub followed: Vec<Assignment>,
    /// One that is not followed is among them.
    pub unfollowed: bool,
    /// The collation that SET NAMES … COLLATE names.
    pub collation: Option<Bytes>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Its name in lower case.
    pub name: Arc<str>,
    /// It is written `@@name`, without a scope.
    pub bare: bool,
}

impl Assigned {
    /// What the text assigns; `None`: nothing. `elsewhere` are variables that are followed by other means.
    pub fn read(sql: &[u8], facts: &Facts, state: &SessionState, elsewhere: &[&str]) -> Option<Arc<Assigned>> {
        if facts.set.is_empty() && facts.set_names.is_none() {
            return None;
        }
        let collation = facts
            .set_names
            .and_then(|n| n.collate)
            .map(|span| Bytes::copy_from_slice(span.of(sql).to_ascii_lowercase().as_slice()));
        let mut assigned = Assigned { collation, ..Assigned::default() };
        for item in facts.set.iter().filter(|item| matches!(item.scope, SetScope::Session)) {
            let name = String::from_utf8_lossy(item.name.of(sql)).to_ascii_lowercase();
            let name = name.trim_matches('`');
            if state.baseline().knows(name) || CHARSET_GROUP.contains(&name) {
                let before = sql.get(..item.name.start as usize).unwrap_or_default();
                let bare = before.ends_with(b"@@") || before.ends_with(b"@@`");
                assigned.followed.push(Assignment { name: Arc::from(name), bare });
            } else if !elsewhere.contains(&name) {
                assigned.unfollowed = true;
            }
        }
        Some(Arc::new(assigned))
    }

    /// Those whose values the answer leaves open. `reported`: the answer brought the variable's value.
    pub fn unreported(
        &self,
        facts: &Facts,
        flavor: Flavor,
        failed: bool,
        reported: impl Fn(&str) -> bool,
    ) -> Vec<Arc<str>> {
        let one = facts.statements == StatementCount::One;
        if failed && one && self.followed.len() == 1 && facts.set_names.is_none() {
            return Vec::new();
        }
        let open = |set: &&Assignment| match flavor {
            // It reports what has another value than before, and nothing else.
            Flavor::OceanBase => false,
            Flavor::MySql => !failed && !reported(&set.name),
            Flavor::MariaDb => set.bare && !(one && reported(&set.name)) || !failed && !reported(&set.name),
        };
        let next_only = |name: &str| IS_NEXT_TRANSACTION.contains(&name);
        let open = self.followed.iter().filter(open).filter(|set| !(set.bare && next_only(&set.name)));
        open.map(|set| set.name.clone()).collect()
    }

    /// Whether the text proves what it does to collation_connection: [`Assigned::collation`] if it names one, else the default of the character set.
    pub fn proves_collation(&self, facts: &Facts) -> bool {
        let plain = facts.certain && facts.statements == StatementCount::One && facts.verb == Verb::Set;
        let of_group = |set: &&Assignment| CHARSET_GROUP.contains(&&*set.name);
        plain
            && match facts.set_names {
                Some(names) => !names.character_set_form && !self.followed.iter().any(|set| of_group(&set)),
                None => true,
            }
    }
}

/// With `@@` and without a scope these are for the next transaction alone.
const IS_NEXT_TRANSACTION: [&str; 4] =
    ["transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"];

/// What is not known of the variables of the bound server session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnreadVariables {
    /// Their values are to be asked for.
    names: Vec<Arc<str>>,
    /// The server may have changes to report that it has not reported.
    held_back: bool,
}

impl UnreadVariables {
    /// Whether there is anything to ask for.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && !self.held_back
    }

    /// The names.
    pub fn names(&self) -> &[Arc<str>] {
        &self.names
    }

    /// Whether the server may have something to report.
    pub fn is_held_back(&self) -> bool {
        self.held_back
    }

    /// Sets that.
    pub fn hold_back(&mut self, held_back: bool) {
        self.held_back = held_back;
    }

    /// Adds a name. A collation and its character set change together.
    pub fn add(&mut self, name: &str) {
        let mut push = |name: &str| {
            if !self.names.iter().any(|known| &**known == name) {
                self.names.push(Arc::from(name));
            }
        };
        if CONNECTION.contains(&name) { CONNECTION.into_iter().for_each(push) } else { push(name) }
    }

    /// Its value is known.
    pub fn remove(&mut self, name: &str) {
        self.names.retain(|unread| &**unread != name);
    }

    /// Whether one of them tells how a text is to be read.
    pub fn of_lexer(&self) -> bool {
        self.names.iter().any(|name| matches!(&**name, "sql_mode" | "character_set_client"))
    }

    /// The statement that asks for the values, in the form in which they are listed after a login; `None`: there is nothing to ask for.
    pub fn question(&self) -> Option<Bytes> {
        if self.names.is_empty() {
            return None;
        }
        let names: Vec<String> =
            self.names.iter().map(|name| format!("'{}'", name.replace(['\'', '\\'], ""))).collect();
        Some(Bytes::from(format!("SHOW SESSION VARIABLES WHERE Variable_name IN ({})", names.join(","))))
    }
}

/// Whether a statement that failed may have run code before, or done a part of what it says: then what it changed is reported later, if at all. No error
/// number tells: SIGNAL takes any.
pub fn may_have_changed(facts: &Facts) -> bool {
    if facts.statements == StatementCount::Empty {
        return false;
    }
    let hidden = Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE | Effects::CUT_SHORT;
    match facts.class {
        _ if !facts.certain || facts.statements != StatementCount::One || facts.effects.intersects(hidden) => true,
        StatementClass::Write | StatementClass::Call | StatementClass::Ddl | StatementClass::Other => true,
        StatementClass::Set => {
            let items = facts.set.len() + usize::from(facts.set_names.is_some());
            items > 1 || facts.set.iter().any(|item| item.literal.is_none())
        }
        StatementClass::Read => facts.reads_tables || facts.verb == Verb::Table,
        StatementClass::Transaction | StatementClass::Admin => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::baseline::Baseline;
    use super::super::state::CharacterSets;
    use super::*;
    use crate::sql::{LexContext, analyse};

    fn facts(sql: &str) -> Facts {
        analyse(sql.as_bytes(), &LexContext { multi_statements: true, ..LexContext::default() })
    }

    fn assigned(sql: &str) -> Assigned {
        let known = ["sql_mode", "autocommit", "tx_isolation"];
        let baseline = Baseline::new(known.map(|name| (Arc::from(name), Bytes::from_static(b"?"))));
        let state = SessionState::new(Arc::new(baseline), CharacterSets::default(), None);
        (*Assigned::read(sql.as_bytes(), &facts(sql), &state, &["last_insert_id"]).unwrap()).clone()
    }

    fn unreported(sql: &str, flavor: Flavor, failed: bool, reported: &[&str]) -> String {
        assigned(sql).unreported(&facts(sql), flavor, failed, |name| reported.contains(&name)).join(",")
    }

    #[test]
    fn a_form_without_a_scope_is_read_unless_the_answer_brings_it() {
        use Flavor::{MariaDb, MySql, OceanBase};
        assert_eq!(unreported("SET @@sql_mode = ''", MariaDb, false, &[]), "sql_mode");
        assert_eq!(unreported("SET @@`SQL_MODE` = ''", MariaDb, false, &[]), "sql_mode");
        assert_eq!(unreported("SET sql_mode = '', @@autocommit = 0", MariaDb, false, &["sql_mode"]), "autocommit");
        assert_eq!(unreported("SET sql_mode = '', @@autocommit = 0", MySql, false, &["sql_mode", "autocommit"]), "");
        assert_eq!(unreported("SET sql_mode = ''", MySql, false, &[]), "sql_mode");
        assert_eq!(unreported("SET sql_mode = ''", OceanBase, false, &[]), "", "the same value again is not reported");
        // Of several statements the report may be the first one's.
        assert_eq!(unreported("SET sql_mode = ''; SET @@sql_mode = 'ANSI'", MariaDb, false, &["sql_mode"]), "sql_mode");
        assert_eq!(
            unreported("SET @@tx_isolation = 'SERIALIZABLE'", MariaDb, false, &[]),
            "",
            "the next transaction's"
        );
    }

    #[test]
    fn of_a_list_that_failed_a_part_may_be_done() {
        use Flavor::{MariaDb, MySql};
        assert_eq!(unreported("SET @@sql_mode = 'x'", MariaDb, true, &[]), "");
        assert_eq!(unreported("SET @@sql_mode = '', autocommit = 1", MariaDb, true, &[]), "sql_mode");
        assert_eq!(
            unreported("SET @@sql_mode = '', autocommit = 1", MySql, true, &[]),
            "",
            "it comes with the next OK"
        );
    }

    #[test]
    fn only_a_plain_set_proves_the_collation() {
        let proves = |sql: &str| assigned(sql).proves_collation(&facts(sql));
        assert!(proves("SET NAMES utf8mb4 COLLATE utf8mb4_bin") && proves("SET character_set_connection = latin1"));
        assert!(!proves("SET CHARACTER SET latin1") && !proves("SET NAMES latin1; SELECT 1"));
        assert!(!proves("SET NAMES utf8mb4 COLLATE utf8mb4_bin, collation_connection = utf8mb4_general_ci"));
    }

    #[test]
    fn what_is_no_followed_variable_is_told() {
        assert!(assigned("SET timestamp = 5, sql_mode = ''").unfollowed);
        assert!(!assigned("SET last_insert_id = 5, GLOBAL timestamp = 5, @x = 1").unfollowed);
    }

    #[test]
    fn statements_that_run_no_code_hold_nothing_back() {
        for sql in ["SELECT 1/0", "COMMIT", "USE d", "SET sql_mode = 'x'", "SET ROLE r", ""] {
            assert!(!may_have_changed(&facts(sql)), "{sql}");
        }
        for sql in [
            "INSERT INTO t VALUES (1)",
            "SELECT * FROM v",
            "TABLE v",
            "CALL p()",
            "SET a = 1, b = 2",
            "SELECT 1; SELECT 2",
        ] {
            assert!(may_have_changed(&facts(sql)), "{sql}");
        }
    }

    #[test]
    fn a_collation_is_asked_for_with_its_character_set() {
        let mut unread = UnreadVariables::default();
        unread.add("collation_connection");
        unread.add("sql_mode");
        assert_eq!(unread.names().len(), 3);
        assert!(unread.of_lexer() && unread.question().unwrap().ends_with(b"'sql_mode')"));
        unread.remove("sql_mode");
        assert!(!unread.of_lexer() && !unread.is_empty());
    }
}
