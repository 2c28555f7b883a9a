//! The replay plan: what must be said to a server session so that it is in the state that the client believes in.

use std::sync::Arc;

use bytes::Bytes;

use super::state::{CharacterSets, SessionState, differing_variables, is_default};
use super::user_variables::{self, UserValue};
use crate::sql::literal;

/// The difference between a client's state and a server session's, ready to be said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayPlan {
    /// Variables to be set, with their values.
    pub variables: Vec<(Arc<str>, Bytes)>,
    /// Character sets to be set, as a group.
    pub charsets: Option<CharacterSets>,
    /// User variables to be set; `None` is NULL.
    pub user_variables: Vec<(Arc<str>, Option<UserValue>)>,
    /// What SET ROLE is to be said with.
    pub role: Option<Bytes>,
    /// The schema to be used.
    pub schema: Option<Bytes>,
    /// `SET last_insert_id`, where the statement reads it.
    pub last_insert_id: Option<u64>,
}

/// How far a server session is from a client's state. Smaller is nearer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Distance(pub u32);

/// Why a server session can't be brought into a client's state at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreachable {
    /// A schema can be changed but not given up, and the client has none.
    SchemaCannotBeUnset,
    /// Somebody changed a variable there that the client's login did not know, so nobody can say what it was before.
    VariableCannotBePutBack,
    /// The server does not say which role its login got, so it can't be put back.
    RoleCannotBePutBack,
}

/// A variable that must be put back has a name that can't be written into a statement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the variable '{name}' can't be put back")]
pub struct Unwritable {
    /// The variable.
    pub name: Arc<str>,
}

/// Whether a replay leads from `have` to `want` at all.
fn reachable(want: &SessionState, have: &SessionState) -> Result<(), Unreachable> {
    if want.schema().is_none() && have.schema().is_some() {
        return Err(Unreachable::SchemaCannotBeUnset);
    }
    // Nodes of different versions, or with values that they report and refuse, have different lists of variables.
    if have.variables().iter().any(|(name, _)| want.get(name).is_none() && !want.baseline().knows(name)) {
        return Err(Unreachable::VariableCannotBePutBack);
    }
    if want.role().is_none() && have.role().is_some() && have.login_role().is_none() {
        return Err(Unreachable::RoleCannotBePutBack);
    }
    Ok(())
}

/// How far `have` is from `want`; an error where no replay leads from one to the other.
pub fn distance(want: &SessionState, have: &SessionState) -> Result<Distance, Unreachable> {
    if want.same_as(have) {
        return Ok(Distance(0));
    }
    reachable(want, have)?;
    let mut differences = differing_variables(want, have).len() as u32;
    differences += u32::from(want.charsets() != have.charsets());
    differences += u32::from(want.schema() != have.schema()) + u32::from(want.role() != have.role());
    differences += user_variables::differing(want.user_variables(), have.user_variables()).len() as u32;
    Ok(Distance(differences))
}

impl ReplayPlan {
    /// The plan that leads from `have` to `want`.
    pub fn between(want: &SessionState, have: &SessionState) -> Result<ReplayPlan, Unreachable> {
        if want.same_as(have) {
            return Ok(ReplayPlan::default());
        }
        reachable(want, have)?;
        Ok(ReplayPlan {
            variables: differing_variables(want, have),
            user_variables: user_variables::differing(want.user_variables(), have.user_variables()),
            charsets: (want.charsets() != have.charsets()).then(|| want.charsets().clone()),
            role: if want.role() == have.role() { None } else { want.role().or(have.login_role()).cloned() },
            schema: if want.schema() == have.schema() { None } else { want.schema().cloned() },
            last_insert_id: None,
        })
    }

    /// Whether nothing has to be said.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty()
            && self.user_variables.is_empty()
            && self.role.is_none()
            && self.charsets.is_none()
            && self.schema.is_none()
            && self.last_insert_id.is_none()
    }

    /// The variable of this plan to which a node gave another value than the plan's, if `value` is what it reports of `name` after the SET: servers clip values
    /// to limits of their own, and MariaDB looks time zones up by the bytes of their offsets, compared like text ('+08:10' is '+05:54' where somebody
    /// said that first).
    pub fn contradicted(&self, name: &[u8], value: &[u8]) -> Option<&Arc<str>> {
        let (planned, wanted) = self.variables.iter().find(|(n, _)| name.eq_ignore_ascii_case(n.as_bytes()))?;
        (!is_default(planned, wanted) && wanted != value).then_some(planned)
    }

    /// The one `SET` statement of this plan (everything but the schema); `None` if there is nothing to set.
    ///
    /// Character sets come first, so that string values that follow are read in the set the client had when it chose them; an explicit
    /// collation comes after the connection's set, which would put it back to a default. All or nothing: one name that can't be written makes
    /// the whole plan impossible.
    pub fn set_statement(&self) -> Result<Option<Vec<u8>>, Unwritable> {
        let mut out: Vec<u8> = Vec::new();
        let assign = |out: &mut Vec<u8>, name: &str, value: &[u8]| {
            out.extend_from_slice(if out.is_empty() { b"SET @@SESSION." } else { b",@@SESSION." });
            literal::variable_assignment(name.as_bytes(), value, out).map_err(|_| Unwritable { name: name.into() })
        };
        if let Some(sets) = &self.charsets {
            assign(&mut out, "character_set_client", &sets.client)?;
            assign(&mut out, "character_set_results", &sets.results)?;
            assign(&mut out, "character_set_connection", &sets.connection)?;
            if let Some(collation) = &sets.collation {
                assign(&mut out, "collation_connection", collation)?;
            }
        }
        for (name, value) in &self.variables {
            if is_default(name, value) {
                out.extend_from_slice(if out.is_empty() { b"SET @@SESSION." } else { b",@@SESSION." });
                out.extend_from_slice(name.as_bytes());
                out.extend_from_slice(b"=DEFAULT");
            } else {
                assign(&mut out, name, value)?;
            }
        }
        if let Some(id) = self.last_insert_id {
            assign(&mut out, "last_insert_id", id.to_string().as_bytes())?;
        }
        if !self.user_variables.is_empty() {
            out.extend_from_slice(if out.is_empty() { b"SET " } else { b"," });
            user_variables::put_assignments(&self.user_variables, &mut out);
            out.pop();
        }
        Ok((!out.is_empty()).then_some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::super::baseline::Baseline;
    use super::*;
    use proptest::prelude::*;

    fn baseline(values: &[(&str, &str)]) -> Arc<Baseline> {
        Arc::new(Baseline::new(values.iter().map(|(n, v)| (Arc::from(*n), Bytes::copy_from_slice(v.as_bytes())))))
    }

    fn charsets() -> CharacterSets {
        CharacterSets {
            client: "utf8mb4".into(),
            connection: "utf8mb4".into(),
            results: "utf8mb4".into(),
            collation: None,
        }
    }

    #[test]
    fn what_belongs_to_the_node_goes_back_to_the_node_s_own_value() {
        let one = baseline(&[("sql_mode", "A"), ("auto_increment_increment", "3")]);
        assert_eq!(
            one,
            baseline(&[("sql_mode", "A"), ("auto_increment_increment", "2")]),
            "nodes have equal baselines"
        );
        for other in [one.clone(), baseline(&[("sql_mode", "B")])] {
            let fresh = SessionState::new(one.clone(), charsets(), None);
            let mut changed = SessionState::new(other, charsets(), None);
            changed.set("auto_increment_increment", b"7");
            let back = ReplayPlan::between(&fresh, &changed).unwrap();
            let text = String::from_utf8(back.set_statement().unwrap().unwrap()).unwrap();
            assert!(text.contains("auto_increment_increment=DEFAULT"), "{text}");
            let there = ReplayPlan::between(&changed, &fresh).unwrap();
            let text = String::from_utf8(there.set_statement().unwrap().unwrap()).unwrap();
            assert!(text.contains("auto_increment_increment=7"), "{text}");
            changed.become_like(&fresh);
            assert!(!changed.changed_itself("auto_increment_increment"));
            assert!(ReplayPlan::between(&fresh, &changed).unwrap().is_empty());
        }
    }

    #[test]
    fn an_equal_state_needs_nothing() {
        let state = SessionState::new(baseline(&[("a", "1")]), charsets(), Some("d".into()));
        assert!(ReplayPlan::between(&state, &state.clone()).unwrap().is_empty());
    }

    #[test]
    fn what_another_client_left_is_put_back() {
        let base = baseline(&[("autocommit", "ON"), ("sql_mode", "STRICT")]);
        let want = SessionState::new(base.clone(), charsets(), None);
        let mut have = want.clone();
        have.set("sql_mode", b"ANSI");
        let plan = ReplayPlan::between(&want, &have).unwrap();
        assert_eq!(plan.set_statement().unwrap().unwrap(), b"SET @@SESSION.sql_mode='STRICT'");
    }

    #[test]
    fn a_name_that_cannot_be_written_spoils_the_plan() {
        let want = SessionState::new(baseline(&[("a b", "1"), ("c", "1")]), charsets(), None);
        let have = SessionState::new(baseline(&[("a b", "2"), ("c", "2")]), charsets(), None);
        let plan = ReplayPlan::between(&want, &have).unwrap();
        assert_eq!(plan.set_statement(), Err(Unwritable { name: Arc::from("a b") }));
    }

    #[test]
    fn a_change_that_the_client_cannot_undo_keeps_the_server_session_away() {
        let unknowing = SessionState::new(baseline(&[("a", "1")]), charsets(), None);
        let knowing = SessionState::new(baseline(&[("a", "1"), ("innodb_tmpdir", "/t")]), charsets(), None);
        // Nobody changed it: the node's own value, which is no difference between sessions.
        assert_eq!(distance(&unknowing, &knowing), Ok(Distance(0)));
        let mut changed = knowing.clone();
        changed.set("innodb_tmpdir", b"/elsewhere");
        assert_eq!(distance(&unknowing, &changed), Err(Unreachable::VariableCannotBePutBack));
        assert_eq!(ReplayPlan::between(&unknowing, &changed), Err(Unreachable::VariableCannotBePutBack));
        assert_eq!(distance(&knowing, &changed), Ok(Distance(1)));
        // One that took it over from a client of another node can't give it up either.
        let mut taken_over = unknowing.clone();
        taken_over.become_like(&changed);
        assert_eq!(distance(&unknowing, &taken_over), Err(Unreachable::VariableCannotBePutBack));
    }

    #[test]
    fn a_schema_cannot_be_given_up() {
        let base = baseline(&[]);
        let want = SessionState::new(base.clone(), charsets(), None);
        let have = SessionState::new(base, charsets(), Some("d".into()));
        assert_eq!(distance(&want, &have), Err(Unreachable::SchemaCannotBeUnset));
    }

    #[test]
    fn nodes_with_other_globals_are_made_equal() {
        let want = SessionState::new(baseline(&[("sql_mode", "A"), ("x", "1")]), charsets(), None);
        let have = SessionState::new(baseline(&[("sql_mode", "B"), ("x", "1")]), charsets(), None);
        let plan = ReplayPlan::between(&want, &have).unwrap();
        assert_eq!(plan.variables, vec![(Arc::from("sql_mode"), Bytes::from_static(b"A"))]);
    }

    const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

    fn any_state(base: Arc<Baseline>) -> impl Strategy<Value = SessionState> {
        (proptest::collection::vec((0..NAMES.len(), 0u8..3), 0..8), proptest::option::of(0u8..2)).prop_map(
            move |(sets, schema)| {
                let schema = schema.map(|n| Bytes::from(format!("s{n}")));
                let mut state = SessionState::new(base.clone(), charsets(), schema);
                for (name, value) in sets {
                    state.set(NAMES[name], value.to_string().as_bytes());
                }
                state
            },
        )
    }

    fn any_pair() -> impl Strategy<Value = (SessionState, SessionState)> {
        let one = baseline(&[("a", "0"), ("b", "0"), ("c", "0"), ("d", "0"), ("e", "0")]);
        let other = baseline(&[("a", "1"), ("b", "0"), ("c", "2"), ("d", "0"), ("e", "0")]);
        let (one_again, other_again) = (one.clone(), other.clone());
        prop_oneof![
            (any_state(one.clone()), any_state(one)),
            (any_state(one_again), any_state(other)),
            (any_state(other_again.clone()), any_state(other_again)),
        ]
    }

    proptest! {
        #[test]
        fn carrying_a_plan_out_makes_the_states_equal((want, have) in any_pair()) {
            let Ok(plan) = ReplayPlan::between(&want, &have) else { return Ok(()) };
            let mut after = have.clone();
            for (name, value) in &plan.variables {
                after.set(name, value);
            }
            if let Some(schema) = &plan.schema {
                after.set_schema(Some(schema));
            }
            for name in NAMES {
                prop_assert_eq!(after.get(name), want.get(name));
            }
            prop_assert_eq!(after.schema(), want.schema());
            let mut like = have.clone();
            like.become_like(&want);
            for name in NAMES {
                prop_assert_eq!(like.get(name), want.get(name));
            }
            prop_assert!(differing_variables(&want, &like).is_empty());
        }
    }
}
