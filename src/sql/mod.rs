//! What a statement says about itself: a lexer over bytes and the facts that the session and the router decide by.
//!
//! Nothing here parses SQL in full. One pass over the bytes finds the verb, transaction control, changes of session state and calls
//! whose answer depends on the server session. Where the lexer cannot vouch, [`Facts::certain`] is false, and whoever reads the
//! facts must pin instead of guessing. What views and triggers do is out of sight: writes are therefore never repeated.

pub mod analyse;
mod command;
pub mod context;
pub mod digest;
pub mod facts;
pub mod functions;
pub mod keywords;
pub mod kill;
pub mod lexer;
pub mod literal;
mod named;
pub mod names;
pub mod rewrite;
mod scan;
mod select;
mod set;
pub mod text;
mod transaction;
mod variables;

pub use analyse::analyse;
pub use facts::{
    Effects, Facts, Flavor, Kill, KillTarget, LexContext, Literal, MultiByte, SetItem, SetNames, SetScope,
    SetTransaction, Span, StatementClass, StatementCount, TransactionControl, Verb, VolatileCall, VolatileKind, XaVerb,
};
pub use names::UserVariable;
pub use text::Text;

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
