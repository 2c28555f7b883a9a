//! What an error tells the client that gets it, judged by its number and text as an application would, and what may be believed of it.

use belay_integration::wire::WireError;

/// What an error says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// The open transaction went with its node and was not committed.
    TransactionLost,
    /// The server's own deadlock or certification failure: rolled back.
    Deadlock,
    /// The server's own lock wait time-out: the statement did nothing.
    LockWait,
    /// Whether the statement was executed is unknown.
    Unknown,
    /// The statement was not executed: no node, no server session, not caught up.
    NotExecuted,
    /// The answer is incomplete.
    AnswerCut,
    /// Interrupted, run it again.
    Interrupted,
    /// Session state is gone.
    StateLost,
    /// A row with this key is there already.
    Duplicate,
    /// The connection itself broke, fell silent, or spoke nonsense.
    ConnectionLost,
    /// Anything else.
    Unexpected,
}

impl Kind {
    /// Its name in the view and in the summary.
    pub fn name(self) -> &'static str {
        match self {
            Kind::TransactionLost => "transaction lost",
            Kind::Deadlock => "deadlock",
            Kind::LockWait => "lock wait",
            Kind::Unknown => "outcome unknown",
            Kind::NotExecuted => "not executed",
            Kind::AnswerCut => "answer cut",
            Kind::Interrupted => "interrupted",
            Kind::StateLost => "state lost",
            Kind::Duplicate => "duplicate key",
            Kind::ConnectionLost => "connection lost",
            Kind::Unexpected => "unexpected",
        }
    }

    /// Whether a client may meet it in a statement outside a transaction and simply say the statement again. What is said about a transaction
    /// is a lie there.
    pub fn may_repeat(self) -> bool {
        matches!(self, Kind::NotExecuted | Kind::AnswerCut | Kind::Interrupted | Kind::LockWait | Kind::Unknown)
    }

    /// Whether a client may meet it inside a transaction, roll back and start that again.
    pub fn may_restart(self) -> bool {
        self.may_repeat() || matches!(self, Kind::TransactionLost | Kind::Deadlock)
    }
}

/// What `error` says.
pub fn kind_of(error: &WireError) -> Kind {
    let WireError::Server { code, message, .. } = error else { return Kind::ConnectionLost };
    let says = |text: &str| message.contains(text);
    match code {
        1062 => Kind::Duplicate,
        1105 if says("is unknown, check before you repeat it") => Kind::Unknown,
        1105 if says("was not executed") => Kind::NotExecuted,
        1105 if says("set it up again") || says("no longer known") => Kind::StateLost,
        1105 if says("is incomplete") => Kind::AnswerCut,
        1203 | 1429 if says("belay:") => Kind::NotExecuted,
        1205 => Kind::LockWait,
        1213 if says("set it up again") => Kind::StateLost,
        1213 if says("belay:") => Kind::TransactionLost,
        1213 => Kind::Deadlock,
        1317 => Kind::Interrupted,
        _ => Kind::Unexpected,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(code: u16, message: &str) -> WireError {
        WireError::Server { code, state: "HY000".into(), message: message.into() }
    }

    #[test]
    fn errors_are_known_by_what_they_say() {
        let unknown = "belay: node 'n' was lost before it answered; whether the statement was executed is unknown, check before you repeat it; \
                       an open transaction is gone";
        assert_eq!(kind_of(&server(1105, unknown)), Kind::Unknown);
        let lost =
            "belay: node 'n' was lost, and the open transaction with it: it was not committed; restart the transaction";
        assert_eq!(kind_of(&server(1213, lost)), Kind::TransactionLost);
        let with_state = format!("{lost}, and so is state of this session that lived there alone: x; set it up again");
        assert_eq!(kind_of(&server(1213, &with_state)), Kind::StateLost);
        assert_eq!(
            kind_of(&server(1213, "Deadlock found when trying to get lock; try restarting transaction")),
            Kind::Deadlock
        );
        assert_eq!(
            kind_of(&server(1429, "belay: no node could take this statement; it was not executed")),
            Kind::NotExecuted
        );
        assert_eq!(kind_of(&server(1064, "You have an error in your SQL syntax")), Kind::Unexpected);
        assert_eq!(kind_of(&server(1105, "something else")), Kind::Unexpected);
        assert_eq!(kind_of(&WireError::Malformed(String::new())), Kind::ConnectionLost);
    }

    #[test]
    fn what_is_said_of_a_transaction_may_not_be_said_outside_one() {
        assert!(!Kind::TransactionLost.may_repeat() && Kind::TransactionLost.may_restart());
        assert!(Kind::NotExecuted.may_repeat());
        for never in [Kind::StateLost, Kind::ConnectionLost, Kind::Unexpected, Kind::Duplicate] {
            assert!(!never.may_repeat() && !never.may_restart(), "{never:?}");
        }
    }
}
