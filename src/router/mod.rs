//! Where a statement goes: a pure function of the statement's kind, the session, the rules and the cluster snapshot, with its reason.
//!
//! A rule file ([`rules`]) is compiled once ([`compile`]): one destination for each kind of statement ([`kind`]), so that deciding ([`choose`]) is one
//! lookup. Where a rule sends reads to readers, [`balance`] chooses one; [`stay()`] says what a session that is still bound to a reader may do there.

pub mod balance;
pub mod compile;
pub mod decide;
pub mod kind;
pub mod reason;
pub mod rules;
pub mod stay;

pub use compile::{RuleSet, Target};
pub use decide::{Choice, ClusterView, Route, SessionView, choose, decide};
pub use reason::{Against, RuleIndex, Why};
pub use rules::{Destination, RuleFault, StatementKind};
pub use stay::{Kept, Stay, stay};
