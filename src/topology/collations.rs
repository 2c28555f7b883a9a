//! The collations that a node has, and what a login gets there whose collation it has not.
//!
//! Observed on MariaDB 10.11 and MySQL 9.7: a login, or COM_CHANGE_USER, with an id that the server doesn't know gets the global
//! `character_set_client`, `collation_connection` and `character_set_results`. One of a character set that clients may not use (ucs2, utf16, …) gets
//! error 1231 before anybody has asked who it is. MariaDB knows `filename` (17) too, which it doesn't list. SET GLOBAL character_set_server changes
//! neither the fallback nor the greeting.

use std::sync::Arc;

use bytes::Bytes;

use crate::protocol::mysql::charset;
use crate::protocol::mysql::flavor::Flavor;
use crate::session::state::CharacterSets;

/// Lists the collations: id, name, character set. MariaDB from 10.10 on has some whose ids are in the first table alone; others, and MySQL, don't have this
/// form of it and are asked by [`COLLATIONS_SQL`].
pub const FULL_COLLATIONS_SQL: &str = "SELECT ID, FULL_COLLATION_NAME, CHARACTER_SET_NAME FROM \
    information_schema.COLLATION_CHARACTER_SET_APPLICABILITY WHERE ID IS NOT NULL";
/// Lists the collations: id, name, character set.
pub const COLLATIONS_SQL: &str =
    "SELECT ID, COLLATION_NAME, CHARACTER_SET_NAME FROM information_schema.COLLATIONS WHERE ID IS NOT NULL";

/// MariaDB's character set for names of files, and its one collation.
const FILENAME: (u16, &str) = (17, "filename");

/// All that OceanBase seekdb has: utf8mb4 and binary.
const OCEANBASE: [u16; 3] = [45, 46, 63];

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Collation {
    id: u16,
    name: Box<str>,
    charset: Arc<str>,
}

/// The collations of a node, by id. Empty until they were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collations(Vec<Collation>);

impl Collations {
    /// From the rows of one of the statements above.
    pub fn from_listing<'a>(rows: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Collations {
        let mut all: Vec<Collation> = Vec::new();
        for (id, name, charset) in rows {
            let Ok(id) = id.parse::<u16>() else { continue };
            let charset = match all.last() {
                Some(last) if *last.charset == *charset => last.charset.clone(),
                _ => charset.into(),
            };
            all.push(Collation { id, name: name.into(), charset });
        }
        all.sort_by_key(|collation| collation.id);
        Collations(all)
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn find(&self, id: u16) -> Option<&Collation> {
        self.0.binary_search_by_key(&id, |collation| collation.id).ok().and_then(|at| self.0.get(at))
    }

    fn has_charset(&self, name: &[u8]) -> bool {
        self.0.iter().any(|collation| collation.charset.as_bytes().eq_ignore_ascii_case(name))
    }

    /// What of these a node can't be given, because it doesn't have it; nothing where its collations are not known.
    pub fn lack_of<'a>(&self, sets: &'a CharacterSets) -> Option<&'a Bytes> {
        if self.is_empty() {
            return None;
        }
        let missing = [&sets.client, &sets.connection, &sets.results]
            .into_iter()
            .find(|name| !name.is_empty() && !name.eq_ignore_ascii_case(b"utf8") && !self.has_charset(name));
        missing.or_else(|| {
            let collation = sets.collation.as_ref()?;
            let has = |c: &Collation| c.name.as_bytes().eq_ignore_ascii_case(collation);
            (!self.0.iter().any(has)).then_some(collation)
        })
    }
}

/// What logins have to know of a node's character sets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeCharsets {
    /// What it has.
    pub collations: Collations,
    /// Its global values; without a character set until they were read.
    pub global: CharacterSets,
    /// The low byte of its own default, as its greeting has it.
    pub greeting: Option<u8>,
}

/// What a login with a collation's id gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AtLogin {
    /// This collation.
    Given(CharacterSets),
    /// The global values, if they are known.
    Global(Option<CharacterSets>),
    /// Error 1231: clients may not use this character set.
    Refused(Arc<str>),
}

impl NodeCharsets {
    /// What a login, or COM_CHANGE_USER, with this id gets.
    pub fn at_login(&self, id: u16, flavor: Flavor) -> AtLogin {
        let found = if self.collations.is_empty() {
            // Nobody has asked the node yet: what servers of its family are known to have.
            let known = charset::collation(id, flavor == Flavor::MariaDb);
            let known = known.filter(|_| flavor != Flavor::OceanBase || OCEANBASE.contains(&id));
            known.map(|c| (Arc::from(c.charset), Bytes::copy_from_slice(c.name.as_bytes())))
        } else {
            let listed = self.collations.find(id);
            listed.map(|c| (c.charset.clone(), Bytes::copy_from_slice(c.name.as_bytes())))
        };
        match found {
            Some((charset, _)) if !charset::client_may_use(&charset) => AtLogin::Refused(charset),
            Some((charset, name)) => AtLogin::Given(all_of(&charset, name)),
            None if flavor == Flavor::MariaDb && id == FILENAME.0 => AtLogin::Refused(FILENAME.1.into()),
            None => AtLogin::Global(self.known_global().cloned()),
        }
    }

    /// What MariaDB's COM_RESET_CONNECTION puts back for a login that named no collation it has: its own default, as it greets.
    pub fn own_default(&self, flavor: Flavor) -> Option<CharacterSets> {
        match self.at_login(u16::from(self.greeting?), flavor) {
            AtLogin::Given(sets) => Some(sets),
            AtLogin::Global(_) | AtLogin::Refused(_) => self.known_global().cloned(),
        }
    }

    /// The nearest to `sets` that the node has.
    pub fn nearest(&self, sets: &CharacterSets) -> CharacterSets {
        let default = CharacterSets { collation: None, ..sets.clone() };
        match (self.collations.lack_of(&default), self.known_global()) {
            (Some(_), Some(global)) => global.clone(),
            _ => default,
        }
    }

    fn known_global(&self) -> Option<&CharacterSets> {
        (!self.global.client.is_empty()).then_some(&self.global)
    }
}

fn all_of(charset: &str, collation: Bytes) -> CharacterSets {
    let charset = Bytes::copy_from_slice(charset.as_bytes());
    CharacterSets { client: charset.clone(), connection: charset.clone(), results: charset, collation: Some(collation) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeCharsets {
        let rows = [
            ("45", "utf8mb4_general_ci", "utf8mb4"),
            ("8", "latin1_swedish_ci", "latin1"),
            ("35", "ucs2_general_ci", "ucs2"),
            ("x", "y", "z"),
        ];
        let global = CharacterSets { client: "greek".into(), ..all_of("latin1", "latin1_bin".into()) };
        NodeCharsets { collations: Collations::from_listing(rows), global, greeting: Some(45) }
    }

    #[test]
    fn a_login_gets_what_the_node_has_or_its_global_values() {
        let node = node();
        assert_eq!(node.at_login(8, Flavor::MySql), AtLogin::Given(all_of("latin1", "latin1_swedish_ci".into())));
        assert_eq!(node.at_login(35, Flavor::MySql), AtLogin::Refused("ucs2".into()));
        for id in [0, 127, 255, 17, 1000] {
            assert_eq!(node.at_login(id, Flavor::MySql), AtLogin::Global(Some(node.global.clone())), "{id}");
        }
        assert_eq!(node.at_login(17, Flavor::MariaDb), AtLogin::Refused("filename".into()));
        assert_eq!(node.own_default(Flavor::MariaDb), Some(all_of("utf8mb4", "utf8mb4_general_ci".into())));
    }

    #[test]
    fn a_node_that_was_not_asked_is_held_to_be_like_its_family() {
        let node = NodeCharsets::default();
        assert_eq!(node.at_login(8, Flavor::MySql), AtLogin::Given(all_of("latin1", "latin1_swedish_ci".into())));
        assert_eq!(node.at_login(0, Flavor::MySql), AtLogin::Global(None));
        assert_eq!(node.at_login(8, Flavor::OceanBase), AtLogin::Global(None));
        assert_eq!(node.own_default(Flavor::MySql), None);
        assert_eq!(node.collations.lack_of(&all_of("klingon", "klingon_ci".into())), None);
    }

    #[test]
    fn what_a_node_lacks_is_found_before_it_is_said() {
        let node = node();
        let modern = all_of("utf8mb4", "utf8mb4_0900_ai_ci".into());
        assert_eq!(node.collations.lack_of(&modern).map(|b| &b[..]), Some(&b"utf8mb4_0900_ai_ci"[..]));
        let nearest = node.nearest(&modern);
        assert_eq!((&nearest.client[..], nearest.collation.as_ref()), (&b"utf8mb4"[..], None));
        assert_eq!(node.collations.lack_of(&nearest), None);
        let foreign = all_of("gb18030", "gb18030_bin".into());
        assert_eq!(node.collations.lack_of(&foreign).map(|b| &b[..]), Some(&b"gb18030"[..]));
        assert_eq!(node.nearest(&foreign), node.global);
    }
}
