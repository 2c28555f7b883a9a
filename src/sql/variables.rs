//! System variables by name: what setting one does to the session, and which answer from the session.

use super::facts::{Effects, Span, VolatileKind};
use super::lexer::inside_quotes;

/// The name in a token that begins with `@`, without its quotes.
pub(super) fn user_variable_name(sql: &[u8], token: Span) -> Span {
    let plain = Span { start: token.start + 1, end: token.end };
    let quoted = matches!(plain.of(sql).first(), Some(b'\'' | b'"' | b'`'));
    if quoted { inside_quotes(sql, plain) } else { plain }
}

/// Whether the word, in quotes or not, is a table that lists user variables (or what SHOW and FLUSH call it).
pub(super) fn lists_user_variables(word: &[u8]) -> bool {
    const TABLES: [&[u8]; 2] = [b"user_variables", b"user_variables_by_thread"];
    if !matches!(word.len(), 14 | 16 | 24 | 26) {
        return false;
    }
    TABLES.iter().any(|table| {
        word.eq_ignore_ascii_case(table) || word.get(1..word.len() - 1).is_some_and(|w| w.eq_ignore_ascii_case(table))
    })
}

/// Whether the word, in quotes or not, is a list of session variables: what SHOW calls it, or a table.
pub(super) fn lists_variables(word: &[u8]) -> bool {
    const LISTS: [&[u8]; 4] = [b"variables", b"session_variables", b"system_variables", b"variables_by_thread"];
    if !matches!(word.len(), 9 | 11 | 16..=19 | 21) {
        return false;
    }
    LISTS.iter().any(|list| {
        word.eq_ignore_ascii_case(list) || word.get(1..word.len() - 1).is_some_and(|w| w.eq_ignore_ascii_case(list))
    })
}

/// The scope written in `@@scope.name`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// None written.
    Unsaid,
    /// `session` or `local`.
    Session,
    Global,
    Persist,
    PersistOnly,
}

/// The scope that the word is, if it is one.
pub(super) fn scope_of(word: &[u8]) -> Option<Scope> {
    const SCOPES: &[(&[u8], Scope)] = &[
        (b"session", Scope::Session),
        (b"local", Scope::Session),
        (b"global", Scope::Global),
        (b"persist", Scope::Persist),
        (b"persist_only", Scope::PersistOnly),
    ];
    SCOPES.iter().find(|(name, _)| name.eq_ignore_ascii_case(word)).map(|(_, scope)| *scope)
}

/// Splits a `@@…` token into its scope and its name (with the component or cache in front of it, if any).
pub(super) fn split(sql: &[u8], token: Span) -> (Scope, Span) {
    let text = token.of(sql);
    let is_blank = |byte: &u8| byte.is_ascii_whitespace() || *byte == 11;
    let whole = Span { start: token.start.saturating_add(2).min(token.end), end: token.end };
    if let Some(dot) = text.iter().position(|byte| *byte == b'.') {
        let before = text.get(2..dot).unwrap_or_default();
        let trimmed = before.iter().rposition(|byte| !is_blank(byte)).map_or(0, |last| last + 1);
        if let Some(scope) = scope_of(before.get(..trimmed).unwrap_or_default()) {
            let blanks = text.get(dot + 1..).unwrap_or_default().iter().take_while(|byte| is_blank(byte)).count();
            let start = token.start + (dot + 1 + blanks) as u32;
            return (scope, unquoted(sql, Span { start, end: token.end }));
        }
    }
    (Scope::Unsaid, unquoted(sql, whole))
}

fn unquoted(sql: &[u8], span: Span) -> Span {
    if span.of(sql).first() == Some(&b'`') { inside_quotes(sql, span) } else { span }
}

/// The variable whose answer hangs on the server session, if `name` is one.
pub(super) fn volatile_kind(name: &[u8]) -> Option<VolatileKind> {
    const KINDS: &[(&[u8], VolatileKind)] = &[
        (b"identity", VolatileKind::IdentityVar),
        (b"last_insert_id", VolatileKind::LastInsertIdVar),
        (b"insert_id", VolatileKind::InsertIdVar),
        (b"warning_count", VolatileKind::WarningCountVar),
        (b"error_count", VolatileKind::ErrorCountVar),
        (b"pseudo_thread_id", VolatileKind::PseudoThreadIdVar),
        (b"last_gtid", VolatileKind::LastGtidVar),
    ];
    KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, kind)| *kind)
}

/// What setting the session variable `name` does, beyond [`Effects::SYSTEM_VARIABLE_SET`].
pub(super) fn effects_of_setting(name: &[u8]) -> Effects {
    const EFFECTS: &[(&[u8], Effects)] = &[
        (b"timestamp", Effects::TIMESTAMP_VARIABLE),
        (b"rand_seed1", Effects::RAND_SEED),
        (b"rand_seed2", Effects::RAND_SEED),
        (b"insert_id", Effects::INSERT_ID),
        (b"last_insert_id", Effects::LAST_INSERT_ID_SET),
        (b"identity", Effects::LAST_INSERT_ID_SET),
        (b"profiling", Effects::PROFILING),
        (b"profiling_history_size", Effects::PROFILING),
        (b"sql_mode", Effects::SQL_MODE),
        (b"character_set_client", Effects::CHARACTER_SET),
        (b"character_set_connection", Effects::CHARACTER_SET),
        (b"character_set_results", Effects::CHARACTER_SET),
        (b"character_set_database", Effects::CHARACTER_SET),
        (b"character_set_server", Effects::CHARACTER_SET),
        (b"collation_connection", Effects::CHARACTER_SET),
        (b"collation_database", Effects::CHARACTER_SET),
        (b"collation_server", Effects::CHARACTER_SET),
        (b"sql_log_bin", Effects::REPLICATION_VARIABLE),
        (b"sql_log_off", Effects::REPLICATION_VARIABLE),
        (b"gtid_next", Effects::REPLICATION_VARIABLE),
        (b"gtid_next_list", Effects::REPLICATION_VARIABLE),
        (b"gtid_seq_no", Effects::REPLICATION_VARIABLE),
        (b"gtid_domain_id", Effects::REPLICATION_VARIABLE),
        (b"server_id", Effects::REPLICATION_VARIABLE),
        (b"skip_parallel_replication", Effects::REPLICATION_VARIABLE),
        (b"skip_replication", Effects::REPLICATION_VARIABLE),
        (b"binlog_format", Effects::REPLICATION_VARIABLE),
        (b"binlog_row_image", Effects::REPLICATION_VARIABLE),
        (b"original_commit_timestamp", Effects::REPLICATION_VARIABLE),
        (b"original_server_version", Effects::REPLICATION_VARIABLE),
        (b"immediate_server_version", Effects::REPLICATION_VARIABLE),
        (b"wsrep_on", Effects::REPLICATION_VARIABLE),
        (b"wsrep_osu_method", Effects::REPLICATION_VARIABLE),
        (b"wsrep_trx_fragment_size", Effects::REPLICATION_VARIABLE),
        (b"wsrep_trx_fragment_unit", Effects::REPLICATION_VARIABLE),
        (b"wsrep_gtid_seq_no", Effects::REPLICATION_VARIABLE),
    ];
    let is = |prefix: &[u8]| name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix));
    if is(b"session_track_") {
        return Effects::SESSION_TRACKING;
    }
    if is(b"pseudo_") {
        return Effects::REPLICATION_VARIABLE;
    }
    EFFECTS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(Effects::empty(), |(_, effects)| *effects)
}
