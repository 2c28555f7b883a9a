//! The state of a session: baseline, variables that differ from it, character sets, schema, last insert id.
//!
//! The four variables of the connection's character sets are one group, because servers set them together and report them incompletely:
//! after `SET NAMES x` no server reports `collation_connection`, which then is the default collation of x.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use bytes::Bytes;

use super::baseline::{Baseline, NODE_OWNED};
use super::user_variables::{UserValue, UserVariables, ValueType};
use crate::sql::{LexContext, MultiByte};

/// The connection's character sets. `collation_connection: None` means: the default collation of `connection` on whatever server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CharacterSets {
    /// character_set_client
    pub client: Bytes,
    /// character_set_connection
    pub connection: Bytes,
    /// character_set_results; empty for NULL (no conversion).
    pub results: Bytes,
    /// collation_connection, if it is not the default of `connection`.
    pub collation: Option<Bytes>,
}

/// What a session is in.
#[derive(Clone, Debug)]
pub struct SessionState {
    baseline: Arc<Baseline>,
    /// Sorted by name; only values that differ from the baseline.
    variables: Vec<(Arc<str>, Bytes)>,
    charsets: CharacterSets,
    schema: Option<Bytes>,
    /// The role, as SET ROLE takes it; `None`: the one that the login got.
    role: Option<Bytes>,
    /// Of a server session: the role that its login got; `None`: the server does not say.
    login_role: Option<Bytes>,
    user_variables: UserVariables,
    /// Names of user variables that were ever set on this server session; sorted. No difference to anybody who names none of them.
    names_held: Vec<Arc<str>>,
    fingerprint: u64,
    parse_fingerprint: u64,
    lexing: LexContext,
    autocommit: Option<bool>,
    finds_null: bool,
    version: u64,
}

/// Variables that a server reads when it prepares a statement, and not again when it executes it (MySQL resolves once, at PREPARE; observed).
const PARSE_VARIABLES: [&str; 18] = [
    "sql_mode",
    "old_mode",
    "default_storage_engine",
    "default_tmp_storage_engine",
    "sql_quote_show_create",
    "sql_auto_is_null",
    "div_precision_increment",
    "default_week_format",
    "lc_time_names",
    "time_zone",
    "sql_select_limit",
    "group_concat_max_len",
    "default_collation_for_utf8mb4",
    "explain_format",
    "block_encryption_mode",
    "character_set_filesystem",
    "character_set_collations",
    "sql_if_exists",
];

/// What a statement was understood by when it was prepared: a server keeps to that, whatever becomes of the session.
#[derive(Clone, Debug)]
pub struct ParseState {
    fingerprint: u64,
    variables: Vec<(&'static str, Bytes)>,
    charsets: CharacterSets,
    schema: Option<Bytes>,
    /// Of the user variables whose types the server reads with the statement: what they held; `None`: nothing yet. Sorted by name.
    user_variables: Vec<(Arc<str>, Option<UserValue>)>,
}

/// Equal where a server understands every text alike: of user variables the types matter, not the values.
impl PartialEq for ParseState {
    fn eq(&self, other: &ParseState) -> bool {
        self.variables == other.variables
            && self.charsets == other.charsets
            && self.schema == other.schema
            && self.kinds().eq(other.kinds())
    }
}

impl Eq for ParseState {}

impl ParseState {
    /// Differs where the states do.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The default schema.
    pub fn schema(&self) -> Option<&Bytes> {
        self.schema.as_ref()
    }

    /// The same with another default schema, for a statement whose meaning has nothing to do with it.
    pub fn with_schema(&self, schema: Option<Bytes>) -> ParseState {
        ParseState { schema, ..self.clone() }
    }

    /// Whether a session in this state understands a text in the same way.
    pub fn is_that_of(&self, state: &SessionState) -> bool {
        let names: Vec<Arc<str>> = self.user_variables.iter().map(|(name, _)| name.clone()).collect();
        *self == state.parse_state(&names)
    }

    /// The types of the user variables, by name.
    fn kinds(&self) -> impl Iterator<Item = (&Arc<str>, Option<(ValueType, &[u8])>)> {
        self.user_variables.iter().map(|(name, value)| (name, value.as_ref().map(UserValue::kind)))
    }

    /// The user variables whose types it holds.
    pub fn user_variables(&self) -> impl Iterator<Item = &Arc<str>> {
        self.user_variables.iter().map(|(name, _)| name)
    }

    /// For tests of what happens when two fingerprints are equal by chance.
    #[cfg(test)]
    pub(crate) fn set_fingerprint(&mut self, fingerprint: u64) {
        self.fingerprint = fingerprint;
    }
}

impl SessionState {
    /// A fresh session.
    pub fn new(baseline: Arc<Baseline>, charsets: CharacterSets, schema: Option<Bytes>) -> SessionState {
        let mut state = SessionState {
            baseline,
            variables: Vec::new(),
            charsets,
            schema,
            role: None,
            login_role: None,
            user_variables: UserVariables::default(),
            names_held: Vec::new(),
            fingerprint: 0,
            parse_fingerprint: 0,
            lexing: LexContext::default(),
            autocommit: None,
            finds_null: false,
            version: 0,
        };
        state.changed();
        state
    }

    /// The baseline.
    pub fn baseline(&self) -> &Arc<Baseline> {
        &self.baseline
    }

    /// The variables that differ from the baseline.
    pub fn variables(&self) -> &[(Arc<str>, Bytes)] {
        &self.variables
    }

    /// The character sets.
    pub fn charsets(&self) -> &CharacterSets {
        &self.charsets
    }

    /// The default schema.
    pub fn schema(&self) -> Option<&Bytes> {
        self.schema.as_ref()
    }

    /// The role, as SET ROLE takes it; `None`: the one that the login got.
    pub fn role(&self) -> Option<&Bytes> {
        self.role.as_ref()
    }

    /// Of a server session: the role that its login got; `None`: the server does not say, so that no role is followed on it.
    pub fn login_role(&self) -> Option<&Bytes> {
        self.login_role.as_ref()
    }

    /// Records the role; `None` is the one that the login got.
    pub fn set_role(&mut self, role: Option<Bytes>) {
        self.role = role;
        self.changed();
    }

    /// Records what the login got, and what the role is now.
    pub fn set_login_role(&mut self, login: Option<Bytes>, now: Option<Bytes>) {
        self.role = if login.is_none() || now == login { None } else { now };
        self.login_role = login;
        self.changed();
    }

    /// The user variables.
    pub fn user_variables(&self) -> &UserVariables {
        &self.user_variables
    }

    /// Records the value of a user variable.
    pub fn set_user_variable(&mut self, name: &Arc<str>, value: UserValue) {
        self.user_variables.set(name, value);
        self.hold_name(name);
        self.changed();
    }

    /// Forgets all user variables: of a client that was told that they are lost.
    pub fn forget_user_variables(&mut self) {
        self.user_variables = UserVariables::default();
        self.changed();
    }

    /// The names of user variables that were ever set.
    pub fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.names_held.iter()
    }

    /// How many names of user variables were ever set.
    pub fn names_held(&self) -> usize {
        self.names_held.len()
    }

    /// Whether a user variable of this name was ever set: it has a type, and is listed, even after it was set to NULL.
    pub fn held_name(&self, name: &str) -> bool {
        self.names_held.binary_search_by(|held| held.as_ref().cmp(name)).is_ok()
    }

    fn hold_name(&mut self, name: &Arc<str>) {
        if let Err(at) = self.names_held.binary_search(name) {
            self.names_held.insert(at, name.clone());
        }
    }

    fn take_user_variables(&mut self, other: &SessionState) {
        if self.user_variables == other.user_variables {
            return;
        }
        for (name, _) in other.user_variables.iter() {
            self.hold_name(name);
        }
        self.user_variables.clone_from(&other.user_variables);
    }

    /// Counts the changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Equal states have equal fingerprints; the reverse is checked by [`SessionState::same_as`].
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    /// The same for what a prepared statement's meaning depends on: schema, sql_mode, character sets.
    pub fn parse_fingerprint(&self) -> u64 {
        self.parse_fingerprint
    }

    /// How the lexer has to read this session's statements, as far as variables tell. Kept, because it is asked for with every statement.
    pub fn lexing(&self) -> LexContext {
        self.lexing
    }

    /// `autocommit`, if it is known; kept for the same reason.
    pub fn autocommit(&self) -> Option<bool> {
        self.autocommit
    }

    /// `sql_auto_is_null`; kept for the same reason.
    pub fn finds_null(&self) -> bool {
        self.finds_null
    }

    /// The value of a variable in this session.
    pub fn get(&self, name: &str) -> Option<&Bytes> {
        match self.variables.binary_search_by(|(n, _)| n.as_ref().cmp(name)) {
            Ok(at) => self.variables.get(at).map(|(_, value)| value),
            Err(_) => self.baseline.get(name),
        }
    }

    /// Whether the variable differs from the baseline by the session's own doing.
    pub fn changed_itself(&self, name: &str) -> bool {
        self.variables.binary_search_by(|(n, _)| n.as_ref().cmp(name)).is_ok()
    }

    /// Records the value of a variable, as a server reported it. The variables of the character-set group are told apart here.
    pub fn set(&mut self, name: &str, value: &[u8]) {
        match name {
            "character_set_client" => self.charsets.client = Bytes::copy_from_slice(value),
            "character_set_results" => self.charsets.results = Bytes::copy_from_slice(value),
            "character_set_connection" => {
                // The server has put collation_connection to this set's default, and does not say so.
                self.charsets.connection = Bytes::copy_from_slice(value);
                self.charsets.collation = None;
            }
            "collation_connection" => self.charsets.collation = Some(Bytes::copy_from_slice(value)),
            _ => self.set_plain(name, value),
        }
        self.changed();
    }

    fn set_plain(&mut self, name: &str, value: &[u8]) {
        let is_baseline = self.baseline.get(name).is_some_and(|b| b.as_ref() == value);
        match self.variables.binary_search_by(|(n, _)| n.as_ref().cmp(name)) {
            Ok(at) if is_baseline => {
                self.variables.remove(at);
            }
            Ok(at) => {
                if let Some(slot) = self.variables.get_mut(at) {
                    slot.1 = Bytes::copy_from_slice(value);
                }
            }
            Err(_) if is_baseline => {}
            Err(at) => self.variables.insert(at, (Arc::from(name), Bytes::copy_from_slice(value))),
        }
    }

    /// Records the character sets as a whole.
    pub fn set_charsets(&mut self, charsets: CharacterSets) {
        self.charsets = charsets;
        self.changed();
    }

    /// Records the default schema.
    pub fn set_schema(&mut self, schema: Option<&[u8]>) {
        self.schema = schema.map(Bytes::copy_from_slice);
        self.changed();
    }

    /// What a statement that is prepared now is understood by; `named` are the user variables whose types the server reads with it.
    pub fn parse_state(&self, named: &[Arc<str>]) -> ParseState {
        let value = |name: &&'static str| self.get(name).map(|value| (*name, value.clone()));
        let held = |name: &Arc<str>| (name.clone(), self.user_variables.get(name).cloned());
        let mut user_variables: Vec<_> = named.iter().map(held).collect();
        user_variables.sort_by(|a, b| a.0.cmp(&b.0));
        user_variables.dedup_by(|a, b| a.0 == b.0);
        let fingerprint = if user_variables.is_empty() {
            self.parse_fingerprint
        } else {
            let kinds: Vec<_> = user_variables.iter().map(|(n, v)| (n, v.as_ref().map(UserValue::kind))).collect();
            seed().hash_one((self.parse_fingerprint, kinds))
        };
        ParseState {
            fingerprint,
            variables: PARSE_VARIABLES.iter().filter_map(value).collect(),
            charsets: self.charsets.clone(),
            schema: self.schema.clone(),
            user_variables,
        }
    }

    /// This state as it was in all that a statement is understood by.
    pub fn as_parsed(&self, parsed: &ParseState) -> SessionState {
        let mut state = self.clone();
        for (name, value) in &parsed.variables {
            state.set_plain(name, value);
        }
        state.charsets.clone_from(&parsed.charsets);
        state.schema.clone_from(&parsed.schema);
        for (name, then) in &parsed.user_variables {
            let now = state.user_variables.get(name);
            if now.map(UserValue::kind) != then.as_ref().map(UserValue::kind) {
                state.user_variables.set(name, then.clone().unwrap_or_else(UserValue::never_set));
            }
        }
        state.changed();
        state
    }

    /// Of a server session: it was lent this for a moment, and keeps the names of the user variables.
    pub fn was_lent(&mut self, parsed: &ParseState) {
        parsed.user_variables().for_each(|name| self.hold_name(name));
    }

    /// Back to the baseline, as COM_RESET_CONNECTION does; the schema stays.
    pub fn reset(&mut self, charsets: CharacterSets) {
        self.variables.clear();
        self.user_variables = UserVariables::default();
        self.names_held.clear();
        self.charsets = charsets;
        self.changed();
    }

    /// Takes over everything of `other`: a server session after a complete replay.
    pub fn become_like(&mut self, other: &SessionState) {
        self.take_user_variables(other);
        self.role.clone_from(&other.role);
        // The baseline of a server session is a fact about its login, so the difference between the baselines turns into variables.
        if Arc::ptr_eq(&self.baseline, &other.baseline) {
            self.variables.clone_from(&other.variables);
            self.charsets.clone_from(&other.charsets);
            self.schema.clone_from(&other.schema);
            self.changed();
            return;
        }
        let differing: Vec<(Arc<str>, Bytes)> = differing_variables(other, self);
        for (name, value) in differing {
            if is_default(&name, &value) {
                self.variables.retain(|(n, _)| *n != name);
            } else {
                self.set_plain(&name, &value);
            }
        }
        self.charsets.clone_from(&other.charsets);
        self.schema.clone_from(&other.schema);
        self.changed();
    }

    /// Whether nothing has to be replayed to get from one to the other.
    pub fn same_as(&self, other: &SessionState) -> bool {
        self.fingerprint == other.fingerprint
            && Arc::ptr_eq(&self.baseline, &other.baseline)
            && self.variables == other.variables
            && self.charsets == other.charsets
            && self.schema == other.schema
            && self.role == other.role
            && self.user_variables == other.user_variables
    }

    fn changed(&mut self) {
        self.version += 1;
        let seed = seed();
        let baseline = Arc::as_ptr(&self.baseline) as usize;
        let named = (&self.schema, &self.role, &self.user_variables);
        self.fingerprint = seed.hash_one((baseline, &self.variables, &self.charsets, named));
        let mut hasher = seed.build_hasher();
        for name in PARSE_VARIABLES {
            self.get(name).hash(&mut hasher);
        }
        self.charsets.hash(&mut hasher);
        self.schema.hash(&mut hasher);
        self.parse_fingerprint = std::hash::Hasher::finish(&hasher);
        self.lexing = self.read_lexing();
        let is_on = |value: &Bytes| value.eq_ignore_ascii_case(b"ON") || value.as_ref() == b"1";
        self.autocommit = self.get("autocommit").map(is_on);
        self.finds_null = self.get("sql_auto_is_null").is_some_and(is_on);
    }

    fn read_lexing(&self) -> LexContext {
        let sql_mode = self.get("sql_mode").map_or(&b""[..], |v| v.as_ref());
        let has = |mode: &[u8]| sql_mode.split(|b| *b == b',').any(|m| m.eq_ignore_ascii_case(mode));
        LexContext {
            no_backslash_escapes: has(b"NO_BACKSLASH_ESCAPES"),
            ansi_quotes: has(b"ANSI_QUOTES") || has(b"ANSI"),
            multibyte: MultiByte::of(&self.charsets.client),
            oracle_mode: has(b"ORACLE"),
            ignore_space: has(b"IGNORE_SPACE"),
            ..LexContext::default()
        }
    }
}

/// Variables whose value differs, with the value that `want` has. A variable that `have` changed and `want` does not know is left out, as it can't
/// be put back: a replay plan refuses such a pair.
pub fn differing_variables(want: &SessionState, have: &SessionState) -> Vec<(Arc<str>, Bytes)> {
    let mut out: Vec<(Arc<str>, Bytes)> = Vec::new();
    if Arc::ptr_eq(want.baseline(), have.baseline()) {
        merge(want, have, &mut out);
        return out;
    }
    for (name, have_value) in have.baseline().iter() {
        let have_value = have.get(name).unwrap_or(have_value);
        if let Some(want_value) = want.get(name)
            && want_value != have_value
        {
            out.push((name.clone(), want_value.clone()));
        }
    }
    for (name, value) in want.variables() {
        if have.baseline().get(name).is_none() && have.get(name) != Some(value) {
            out.push((name.clone(), value.clone()));
        }
    }
    for (name, _) in have.variables() {
        if NODE_OWNED.contains(&&**name) && !want.changed_itself(name) {
            out.push((name.clone(), DEFAULT));
        }
    }
    out
}

/// In place of a value: the node's own.
const DEFAULT: Bytes = Bytes::new();

/// Whether a difference says that a variable goes back to the node's own value.
pub(super) fn is_default(name: &str, value: &[u8]) -> bool {
    value.is_empty() && NODE_OWNED.contains(&name)
}

/// Both lists are sorted: one pass over the two.
fn merge(want: &SessionState, have: &SessionState, out: &mut Vec<(Arc<str>, Bytes)>) {
    let (mut w, mut h) = (want.variables().iter().peekable(), have.variables().iter().peekable());
    loop {
        match (w.peek(), h.peek()) {
            (None, None) => return,
            (Some((wn, wv)), Some((hn, hv))) if wn == hn => {
                if wv != hv {
                    out.push((wn.clone(), wv.clone()));
                }
                w.next();
                h.next();
            }
            (Some((wn, wv)), hn) if hn.is_none_or(|(hn, _)| wn < hn) => {
                out.push((wn.clone(), wv.clone()));
                w.next();
            }
            (_, Some((hn, _))) => {
                if let Some(value) = want.baseline().get(hn) {
                    out.push((hn.clone(), value.clone()));
                } else if NODE_OWNED.contains(&&**hn) {
                    out.push((hn.clone(), DEFAULT));
                }
                h.next();
            }
            (Some((wn, wv)), None) => {
                out.push((wn.clone(), wv.clone()));
                w.next();
            }
        }
    }
}

fn seed() -> foldhash::fast::FixedState {
    foldhash::fast::FixedState::with_seed(0x6265_6c61_7900)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn baseline() -> Arc<Baseline> {
        Arc::new(Baseline::new([
            (Arc::from("sql_mode"), Bytes::from_static(b"STRICT")),
            (Arc::from("wait_timeout"), Bytes::from_static(b"28800")),
        ]))
    }

    #[test]
    fn a_variable_set_back_to_its_baseline_is_no_difference() {
        let fresh = SessionState::new(baseline(), CharacterSets::default(), None);
        let mut state = fresh.clone();
        state.set("sql_mode", b"ANSI");
        assert_eq!(state.get("sql_mode").map(|v| v.as_ref()), Some(b"ANSI".as_ref()));
        assert_ne!(state.fingerprint(), fresh.fingerprint());
        assert_ne!(state.parse_fingerprint(), fresh.parse_fingerprint());
        state.set("sql_mode", b"STRICT");
        assert_eq!(state.variables(), &[]);
        assert!(state.same_as(&SessionState::new(state.baseline().clone(), CharacterSets::default(), None)));
    }

    #[test]
    fn what_the_lexer_reads_by_follows_sql_mode_and_character_set() {
        let mut state = SessionState::new(baseline(), CharacterSets::default(), None);
        assert_eq!(state.lexing(), LexContext::default());
        state.set("sql_mode", b"REAL_AS_FLOAT,ANSI_QUOTES,IGNORE_SPACE,NO_BACKSLASH_ESCAPES");
        state.set("character_set_client", b"gbk");
        let expected = LexContext {
            ansi_quotes: true,
            ignore_space: true,
            no_backslash_escapes: true,
            multibyte: MultiByte::Gbk,
            ..LexContext::default()
        };
        assert_eq!(state.lexing(), expected);
        let mut other = SessionState::new(baseline(), CharacterSets::default(), None);
        other.become_like(&state);
        assert_eq!(other.lexing(), expected);
        state.reset(CharacterSets::default());
        assert_eq!(state.lexing(), LexContext::default());
    }

    #[test]
    fn a_statement_is_understood_by_the_types_of_its_variables_and_not_by_their_values() {
        let name: Arc<str> = Arc::from("v");
        let mut state = SessionState::new(baseline(), CharacterSets::default(), None);
        let unset = state.parse_state(std::slice::from_ref(&name));
        let of = |state: &mut SessionState, value: UserValue| {
            state.set_user_variable(&name, value);
            state.parse_state(std::slice::from_ref(&name))
        };
        let five = of(&mut state, UserValue::integer(5));
        let six = of(&mut state, UserValue::integer(6));
        let text = UserValue::read(ValueType::Text, Some(b"x"), Some(b"78"), b"latin1_bin").unwrap();
        let text = of(&mut state, text);
        assert!(five == six && five.fingerprint() == six.fingerprint());
        assert!(five != text && five.fingerprint() != text.fingerprint() && unset != five && unset != text);
        assert!(text.is_that_of(&state) && !five.is_that_of(&state));
        // Where it is prepared again, the variable has that type for a moment.
        assert!(five.is_that_of(&state.as_parsed(&five)) && text.is_that_of(&state.as_parsed(&five).as_parsed(&text)));
        assert_eq!(state.parse_state(&[]).fingerprint(), state.parse_fingerprint());
    }

    #[test]
    fn a_new_connection_character_set_forgets_the_collation() {
        let mut state = SessionState::new(baseline(), CharacterSets::default(), None);
        state.set("collation_connection", b"utf8mb4_bin");
        assert!(state.charsets().collation.is_some());
        state.set("character_set_connection", b"latin1");
        assert_eq!(state.charsets().collation, None);
    }
}
