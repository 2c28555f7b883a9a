//! Which session variables follow a client, and which never do, with the reason for each name.

use std::collections::BTreeSet;

use crate::protocol::mysql::flavor::Flavor;

/// What it means that a variable is not replayed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReplayed {
    /// The server refuses to set it per session: there is nothing to follow.
    Refused,
    /// It acts on the next statement or row only, or is an answer of the last one: followed by other means, or pins.
    Volatile,
    /// It changes what is written to the binary log or how a statement is replicated, or is a debugging aid: a client that
    /// sets it is pinned.
    Pins,
    /// belay sets it for its own use; what the client wants of it must be emulated, or pins.
    Own,
}

use NotReplayed::{Own, Pins, Refused, Volatile};

/// Names (lower case) that are listed as session variables and must not be set again on another server session.
const NOT_REPLAYED: &[(&str, NotReplayed, &str)] = &[
    ("collation_database", Pins, "follows the schema; setting it is deprecated"),
    ("character_set_database", Pins, "follows the schema; setting it is deprecated"),
    ("default_master_connection", Pins, "names a replication channel of one node"),
    ("error_count", Refused, "an answer of the last statement"),
    ("external_user", Refused, "set by the login"),
    ("gtid_domain_id", Pins, "changes the binary log"),
    ("gtid_next", Volatile, "belongs to one transaction"),
    ("gtid_owned", Refused, "belongs to one transaction"),
    ("gtid_seq_no", Volatile, "belongs to one transaction"),
    ("identity", Volatile, "the last insert id by its other name"),
    ("immediate_server_version", Pins, "replication's own"),
    ("insert_id", Volatile, "used up by the next insert"),
    ("last_gtid", Refused, "an answer of the last transaction"),
    ("last_insert_id", Volatile, "an answer of the last insert"),
    ("max_allowed_packet", Refused, "global only, though listed"),
    ("max_relay_log_size", Pins, "belongs to a replication channel of one node"),
    ("max_user_connections", Refused, "global only, though listed"),
    ("net_buffer_length", Refused, "global only, though listed"),
    ("optimizer_trace", Pins, "its answer is kept in the server session"),
    ("original_commit_timestamp", Volatile, "belongs to one transaction"),
    ("original_server_version", Pins, "replication's own"),
    ("profiling", Pins, "its answer is kept in the server session"),
    ("profiling_history_size", Pins, "its answer is kept in the server session"),
    ("proxy_user", Refused, "set by the login"),
    ("rand_seed1", Volatile, "used up by the next RAND()"),
    ("rand_seed2", Volatile, "used up by the next RAND()"),
    ("rbr_exec_mode", Pins, "replication's own"),
    ("require_row_format", Pins, "replication's own; cannot be switched off again"),
    ("resultset_metadata", Pins, "needs a capability that belay does not negotiate"),
    ("server_id", Pins, "changes the binary log"),
    ("skip_parallel_replication", Pins, "changes the binary log"),
    ("skip_replication", Pins, "changes the binary log"),
    ("sql_log_bin", Pins, "changes the binary log"),
    ("sql_slave_skip_counter", Pins, "belongs to a replication channel of one node"),
    ("statement_id", Refused, "an answer of the last statement"),
    ("system_versioning_asof", Pins, "its text is read in the session's time zone, and its default can't be said"),
    ("timestamp", Volatile, "stops the clock of one server session"),
    ("transaction_allow_batching", Pins, "NDB's own"),
    ("warning_count", Refused, "an answer of the last statement"),
];

/// Of those that are not replayed: answers of the last statement, which change without a SET.
const AN_ANSWER: [&str; 2] = ["identity", "last_insert_id"];

/// Families of names, by how they begin.
const NOT_REPLAYED_PREFIXES: &[(&str, NotReplayed, &str)] = &[
    ("debug", Pins, "a debugging aid"),
    ("pseudo_", Pins, "replication's own, or the thread's own number"),
    ("session_track_", Own, "belay listens to it"),
    ("wsrep_", Pins, "changes how this node takes part in the cluster"),
];

/// Settable session variables that report an empty value which the server then refuses to take back: replaying them is right
/// only for a value that is not empty.
pub const EMPTY_VALUE_REFUSED: &[&str] = &[
    "default_tmp_storage_engine",
    "enforce_storage_engine",
    "external_table_secondary_storage_engine",
    "external_table_storage_engine",
    "innodb_ft_user_stopword_table",
    "innodb_tmpdir",
];

/// Session variables whose global values a node sets by itself: Galera spreads auto-increment values over the present members
/// and changes them whenever one comes or goes (`wsrep_auto_increment_control`). A difference between two nodes, or a change, is
/// not a client's doing: only what a client set itself may be replayed, and the fingerprint leaves them out.
pub const NODE_OWNED: &[&str] = &["auto_increment_increment", "auto_increment_offset"];

/// Whether the global value is the node's own affair, see [`NODE_OWNED`]. The name may be in any case.
pub fn is_node_owned(name: &str) -> bool {
    NODE_OWNED.iter().any(|n| n.eq_ignore_ascii_case(name))
}

/// Why a variable is never replayed; `None` if it may be. The name may be in any case.
pub fn not_replayed(name: &str) -> Option<(NotReplayed, &'static str)> {
    let starts = |prefix: &str| name.get(..prefix.len()).is_some_and(|head| head.eq_ignore_ascii_case(prefix));
    let exact = NOT_REPLAYED.iter().find(|(n, _, _)| n.eq_ignore_ascii_case(name));
    exact.or_else(|| NOT_REPLAYED_PREFIXES.iter().find(|(p, _, _)| starts(p))).map(|(_, how, why)| (*how, *why))
}

/// The statement that lists the settable session variables of a node (one column), where the node can say.
/// For MySQL it fails (1146) before 9.0; then [`FALLBACK_SQL`] is asked.
pub fn listing_sql(flavor: Flavor) -> &'static str {
    match flavor {
        Flavor::MariaDb => {
            "SELECT VARIABLE_NAME FROM information_schema.SYSTEM_VARIABLES \
             WHERE VARIABLE_SCOPE IN ('SESSION','SESSION ONLY') AND READ_ONLY='NO'"
        }
        Flavor::MySql => {
            "SELECT VARIABLE_NAME FROM performance_schema.variables_metadata \
             WHERE VARIABLE_SCOPE IN ('SESSION','SESSION_ONLY')"
        }
        Flavor::OceanBase => FALLBACK_SQL,
    }
}

/// Lists every variable a session has (two columns: name, value), settable or not: [`TrackedVariables::from_session_listing`]
/// leaves out those that are known to be global.
pub const FALLBACK_SQL: &str = "SHOW SESSION VARIABLES";

/// The names whose changes the node is asked to report and that are replayed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackedVariables {
    names: Vec<Box<str>>,
    joined: Box<str>,
}

impl TrackedVariables {
    /// From the answer of [`listing_sql`]: all names but those of the static list. Of these a change is reported as well, so that one out of sight pins.
    pub fn from_listing<'a>(names: impl IntoIterator<Item = &'a str>) -> TrackedVariables {
        let reported = |name: &str| match not_replayed(name) {
            None => true,
            Some((Pins | Volatile, _)) => !AN_ANSWER.contains(&name),
            Some((Refused | Own, _)) => false,
        };
        let mut names: BTreeSet<String> =
            names.into_iter().filter(|n| is_name(n)).map(str::to_ascii_lowercase).filter(|n| reported(n)).collect();
        let joined = names.iter().map(String::as_str).collect::<Vec<_>>().join(",").into();
        names.retain(|name| not_replayed(name).is_none());
        TrackedVariables { names: names.into_iter().map(Into::into).collect(), joined }
    }

    /// From the answer of [`FALLBACK_SQL`]: only names that are known to be settable per session on some server of today,
    /// for a global variable in the tracking list would be refused.
    pub fn from_session_listing<'a>(names: impl IntoIterator<Item = &'a str>) -> TrackedVariables {
        let known =
            |n: &&str| SETTABLE_ANYWHERE.binary_search_by(|k| (*k).cmp(n.to_ascii_lowercase().as_str())).is_ok();
        TrackedVariables::from_listing(names.into_iter().filter(known))
    }

    /// Whether changes of this variable (any case) follow the client.
    pub fn contains(&self, name: &str) -> bool {
        let find = |n: &str| self.names.binary_search_by(|k| (**k).cmp(n)).is_ok();
        if name.bytes().any(|b| b.is_ascii_uppercase()) { find(&name.to_ascii_lowercase()) } else { find(name) }
    }

    /// The names, lower case, sorted.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.names.iter().map(|n| &**n)
    }

    /// The names, and those that pin, joined by commas: the value for `session_track_system_variables`. Letters, digits and underscores only.
    pub fn joined(&self) -> &str {
        &self.joined
    }

    /// Whether no name is known yet.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// A number that changes when one of these variables has another global value: new sessions then start differently.
    /// Rows are (name, value) in any order; names that are not tracked, or are node-owned, do not count. The same on every node and machine.
    pub fn fingerprint<'a>(&self, globals: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> u64 {
        // Rows are combined by addition, so their order does not matter; zero is left for 'not read yet'.
        let sum = globals
            .into_iter()
            .filter(|(name, _)| self.contains(name) && !is_node_owned(name))
            .map(|(name, value)| {
                fnv1a(name.bytes().map(|b| b.to_ascii_lowercase()).chain([0]).chain(value.iter().copied()))
            })
            .fold(0u64, u64::wrapping_add);
        sum.max(1)
    }
}

/// FNV-1a, 64 bits: the same everywhere and for ever, and fast enough for some hundred short rows every few seconds.
fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Only such names go into a SET statement of belay's own.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Settable per session on MariaDB 10.11 or MySQL 9.7 (read from them), for servers that cannot say it themselves. Sorted.
#[rustfmt::skip]
const SETTABLE_ANYWHERE: &[&str] = &[
    "alter_algorithm", "analyze_max_length", "analyze_sample_percentage", "aria_repair_threads",
    "aria_sort_buffer_size", "aria_stats_method", "auto_increment_increment", "auto_increment_offset", "autocommit",
    "big_tables", "binlog_alter_two_phase", "binlog_annotate_row_events", "binlog_direct_non_transactional_updates",
    "binlog_format", "binlog_row_image", "binlog_row_value_options", "binlog_rows_query_log_events",
    "binlog_transaction_compression", "binlog_transaction_compression_level_zstd", "block_encryption_mode",
    "bulk_insert_buffer_size", "character_set_client", "character_set_connection", "character_set_filesystem",
    "character_set_results", "character_set_server", "check_constraint_checks", "collation_connection",
    "collation_server", "column_compression_threshold", "column_compression_zlib_level",
    "column_compression_zlib_strategy", "column_compression_zlib_wrap", "completion_type",
    "connection_memory_chunk_size", "connection_memory_limit", "cte_max_recursion_depth",
    "deadlock_search_depth_long", "deadlock_search_depth_short", "deadlock_timeout_long", "deadlock_timeout_short",
    "default_collation_for_utf8mb4", "default_regex_flags", "default_storage_engine", "default_table_encryption",
    "default_tmp_storage_engine", "default_week_format", "div_precision_increment", "enable_cascade_triggers",
    "enable_secondary_engine_statistics", "end_markers_in_json", "enforce_storage_engine",
    "eq_range_index_dive_limit", "expensive_subquery_limit", "explain_format", "explain_json_format_version",
    "explicit_defaults_for_timestamp", "external_table_secondary_storage_engine", "external_table_storage_engine",
    "foreign_key_checks", "generated_random_password_length", "global_connection_memory_tracking",
    "group_concat_max_len", "group_replication_consistency", "histogram_generation_max_mem_size", "histogram_size",
    "histogram_type", "idle_readonly_transaction_timeout", "idle_transaction_timeout",
    "idle_write_transaction_timeout", "in_predicate_conversion_threshold", "information_schema_stats_expiry",
    "innodb_compression_default", "innodb_ddl_buffer_size", "innodb_ddl_threads", "innodb_default_encryption_key_id",
    "innodb_ft_enable_stopword", "innodb_ft_user_stopword_table", "innodb_lock_wait_timeout",
    "innodb_parallel_read_threads", "innodb_snapshot_isolation", "innodb_strict_mode", "innodb_table_locks",
    "innodb_tmpdir", "interactive_timeout", "internal_tmp_mem_storage_engine", "join_buffer_size",
    "join_buffer_space_limit", "join_cache_level", "keep_files_on_create", "lc_messages", "lc_time_names",
    "lock_wait_timeout", "log_disabled_statements", "log_queries_not_using_indexes", "log_slow_admin_statements",
    "log_slow_disabled_statements", "log_slow_filter", "log_slow_max_warnings", "log_slow_min_examined_row_limit",
    "log_slow_query", "log_slow_query_time", "log_slow_rate_limit", "log_slow_slave_statements", "log_slow_verbosity",
    "log_warnings", "long_query_time", "low_priority_updates", "max_delayed_threads", "max_error_count",
    "max_execution_time", "max_heap_table_size", "max_insert_delayed_threads", "max_join_size",
    "max_length_for_sort_data", "max_points_in_geometry", "max_recursive_iterations", "max_rowid_filter_size",
    "max_seeks_for_key", "max_session_mem_used", "max_sort_length", "max_sp_recursion_depth", "max_statement_time",
    "max_tmp_tables", "min_examined_row_limit", "mrr_buffer_size", "myisam_repair_threads", "myisam_sort_buffer_size",
    "myisam_stats_method", "net_read_timeout", "net_retry_count", "net_write_timeout", "note_verbosity", "old",
    "old_alter_table", "old_mode", "old_passwords", "optimizer_adjust_secondary_key_costs",
    "optimizer_extra_pruning_depth", "optimizer_join_limit_pref_ratio", "optimizer_max_sel_arg_weight",
    "optimizer_max_sel_args", "optimizer_max_subgraph_pairs", "optimizer_prune_level", "optimizer_search_depth",
    "optimizer_selectivity_sampling_limit", "optimizer_switch", "optimizer_trace_features", "optimizer_trace_limit",
    "optimizer_trace_max_mem_size", "optimizer_trace_offset", "optimizer_use_condition_selectivity",
    "parser_max_mem_size", "preload_buffer_size", "print_identified_with_as_hex", "progress_report_time",
    "query_alloc_block_size", "query_cache_strip_comments", "query_cache_type", "query_cache_wlock_invalidate",
    "query_prealloc_size", "range_alloc_block_size", "range_optimizer_max_mem_size", "read_buffer_size",
    "read_rnd_buffer_size", "restrict_fk_on_non_standard_key", "rowid_merge_buff_size",
    "secondary_engine_cost_threshold", "select_into_buffer_size", "select_into_disk_sync",
    "select_into_disk_sync_delay", "set_operations_buffer_size", "show_create_table_skip_secondary_engine",
    "show_create_table_verbosity", "show_gipk_in_create_table_and_information_schema", "slow_query_log",
    "sort_buffer_size", "sql_auto_is_null", "sql_big_selects", "sql_buffer_result",
    "sql_generate_invisible_primary_key", "sql_if_exists", "sql_log_off", "sql_mode", "sql_notes",
    "sql_quote_show_create", "sql_require_primary_key", "sql_safe_updates", "sql_select_limit", "sql_warnings",
    "standard_compliant_cte", "storage_engine", "system_versioning_alter_history",
    "system_versioning_insert_history", "tcp_nodelay", "terminology_use_previous", "thread_pool_priority",
    "time_zone", "tmp_disk_table_size", "tmp_memory_table_size", "tmp_table_size", "transaction_alloc_block_size",
    "transaction_isolation", "transaction_prealloc_size", "transaction_read_only", "tx_isolation", "tx_read_only",
    "unique_checks", "updatable_views_with_limit", "use_secondary_engine", "use_stat_tables", "wait_timeout",
    "windowing_use_high_precision", "xa_detach_on_prepare",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_sorted_and_agree() {
        assert!(NOT_REPLAYED.iter().all(|(n, _, why)| is_name(n) && !why.is_empty()));
        assert!(SETTABLE_ANYWHERE.is_sorted());
        assert!(SETTABLE_ANYWHERE.iter().all(|n| not_replayed(n).is_none()));
        assert!(EMPTY_VALUE_REFUSED.is_sorted());
    }

    #[test]
    fn what_is_never_replayed() {
        assert_eq!(not_replayed("SQL_LOG_BIN").map(|x| x.0), Some(Pins));
        assert_eq!(not_replayed("session_track_gtids").map(|x| x.0), Some(Own));
        assert_eq!(not_replayed("Wsrep_Sync_Wait").map(|x| x.0), Some(Pins));
        assert_eq!(not_replayed("pseudo_thread_id").map(|x| x.0), Some(Pins));
        assert_eq!(not_replayed("max_allowed_packet").map(|x| x.0), Some(Refused));
        assert_eq!(not_replayed("sql_mode"), None);
        assert_eq!(not_replayed("débug"), None);
    }

    #[test]
    fn tracked_names_are_lower_case_sorted_and_safe() {
        let t = TrackedVariables::from_listing(["TIME_ZONE", "SQL_MODE", "TIMESTAMP", "x',y", ""]);
        assert_eq!(t.joined(), "sql_mode,time_zone,timestamp", "what is not replayed is reported");
        assert!(t.contains("Sql_Mode") && t.contains("time_zone") && !t.contains("timestamp"));
        let t = TrackedVariables::from_session_listing(["SQL_MODE", "version", "datadir", "tx_isolation"]);
        assert_eq!(t.joined(), "sql_mode,tx_isolation");
    }

    #[test]
    fn the_fingerprint_sees_tracked_values_only_and_no_order() {
        let t = TrackedVariables::from_listing(["sql_mode", "time_zone"]);
        let f = |rows: &[(&str, &str)]| t.fingerprint(rows.iter().map(|(n, v)| (*n, v.as_bytes())));
        let base = f(&[("sql_mode", "ANSI"), ("time_zone", "UTC"), ("datadir", "x")]);
        assert_eq!(base, f(&[("TIME_ZONE", "UTC"), ("sql_mode", "ANSI")]));
        assert_ne!(base, f(&[("sql_mode", "UTC"), ("time_zone", "ANSI")]));
        assert_ne!(base, f(&[("sql_mode", "ANSI"), ("time_zone", "SYSTEM")]));
        assert_ne!(f(&[]), 0);
        let t = TrackedVariables::from_listing(["sql_mode", "auto_increment_offset"]);
        assert!(t.contains("auto_increment_offset"), "a client's own SET follows the client");
        let f = |offset: &'static [u8]| t.fingerprint([("sql_mode", &b"ANSI"[..]), ("Auto_Increment_Offset", offset)]);
        assert_eq!(f(b"1"), f(b"2"), "Galera changes it when a member comes or goes");
    }
}
