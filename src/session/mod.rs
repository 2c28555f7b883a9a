//! What a client believes about its session, what a server session is in, and how to make the second equal to the first.
//!
//! Everything here is plain data and pure functions. [`state::SessionState`] serves both sides: a client session owns one that says
//! what must be true, a server session owns one that says what is true; [`plan::ReplayPlan`] is the difference.

pub mod baseline;
pub mod diagnostics;
pub mod effects;
pub mod held;
pub mod loss;
pub mod next_transaction;
pub mod pins;
pub mod plan;
pub mod state;
pub mod statement;
pub mod text_statement;
pub mod transaction;
pub mod unread;
pub mod user_variables;
