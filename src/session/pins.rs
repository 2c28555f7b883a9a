//! Pins: why a client session keeps its server session beyond the transaction.

use crate::protocol::mysql::flavor::Flavor;

/// A reason. The discriminant is the bit in [`Pins`]; the label is what metrics, errors and /sessions show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PinReason {
    /// The login revealed nothing that opens a second server session.
    LoginNotRecorded = 0,
    /// User variables were set that can't follow.
    UserVariables,
    /// A temporary table was made.
    TemporaryTable,
    /// GET_LOCK and the like, LOCK INSTANCE, BACKUP.
    UserLock,
    /// LOCK TABLES.
    LockTables,
    /// FLUSH TABLES WITH READ LOCK and the like.
    GlobalReadLock,
    /// HANDLER … OPEN.
    Handler,
    /// PREPARE in SQL.
    TextPrepare,
    /// SET TRANSACTION waits for its transaction. It follows the client if the server session is lost.
    NextTransaction,
    /// A cursor is open.
    Cursor,
    /// COM_STMT_SEND_LONG_DATA waits for its execution.
    LongData,
    /// XA transaction.
    Xa,
    /// SET ROLE, on a server that does not say which role a session has.
    Role,
    /// A routine, or other code that belay cannot read, ran.
    UnseenCode,
    /// A statement that belay cannot read for certain.
    UnreadStatement,
    /// A statement longer than belay reads.
    LongStatement,
    /// A variable that no server reports (timestamp, rand_seed1, …) or that must not be replayed.
    UnreportedVariable,
    /// The server reported a change of session state that belay can't explain.
    UnexplainedChange,
    /// The client chose its own session tracking.
    SessionTracking,
    /// Warnings or an error may still be asked for.
    Diagnostics,
    /// FOUND_ROWS() after SQL_CALC_FOUND_ROWS may still be asked for.
    FoundRows,
    /// SHOW PROFILES.
    Profiling,
    /// LASTVAL / PREVIOUS VALUE of a sequence.
    Sequence,
    /// User variables were written, and their values were not read yet. It ends when they are, after the transaction.
    UnreadUserVariables,
    /// SET ROLE ran, and what it did was not read yet. It ends when it is, after the transaction.
    UnreadRole,
    /// SET TRANSACTION ran, and whether what it set still waits for its transaction is not known.
    UncertainNextTransaction,
    /// Session variables may have changed, and no server reported it. It ends when they are read.
    UnreadVariables,
}

/// Every reason, in the order of its bit.
pub const REASONS: [PinReason; 27] = [
    PinReason::LoginNotRecorded,
    PinReason::UserVariables,
    PinReason::TemporaryTable,
    PinReason::UserLock,
    PinReason::LockTables,
    PinReason::GlobalReadLock,
    PinReason::Handler,
    PinReason::TextPrepare,
    PinReason::NextTransaction,
    PinReason::Cursor,
    PinReason::LongData,
    PinReason::Xa,
    PinReason::Role,
    PinReason::UnseenCode,
    PinReason::UnreadStatement,
    PinReason::LongStatement,
    PinReason::UnreportedVariable,
    PinReason::UnexplainedChange,
    PinReason::SessionTracking,
    PinReason::Diagnostics,
    PinReason::FoundRows,
    PinReason::Profiling,
    PinReason::Sequence,
    PinReason::UnreadUserVariables,
    PinReason::UnreadRole,
    PinReason::UncertainNextTransaction,
    PinReason::UnreadVariables,
];

impl PinReason {
    /// The word for metrics, errors and /sessions.
    pub const fn label(self) -> &'static str {
        match self {
            PinReason::LoginNotRecorded => "login_not_recorded",
            PinReason::UserVariables => "user_variables",
            PinReason::TemporaryTable => "temporary_table",
            PinReason::UserLock => "user_lock",
            PinReason::LockTables => "lock_tables",
            PinReason::GlobalReadLock => "global_read_lock",
            PinReason::Handler => "handler",
            PinReason::TextPrepare => "text_prepare",
            PinReason::NextTransaction => "next_transaction",
            PinReason::Cursor => "cursor",
            PinReason::LongData => "long_data",
            PinReason::Xa => "xa",
            PinReason::Role => "role",
            PinReason::UnseenCode => "unseen_code",
            PinReason::UnreadStatement => "unread_statement",
            PinReason::LongStatement => "long_statement",
            PinReason::UnreportedVariable => "unreported_variable",
            PinReason::UnexplainedChange => "unexplained_change",
            PinReason::SessionTracking => "session_tracking",
            PinReason::Diagnostics => "diagnostics",
            PinReason::FoundRows => "found_rows",
            PinReason::Profiling => "profiling",
            PinReason::Sequence => "sequence",
            PinReason::UnreadUserVariables => "unread_user_variables",
            PinReason::UnreadRole => "unread_role",
            PinReason::UncertainNextTransaction => "uncertain_next_transaction",
            PinReason::UnreadVariables => "unread_variables",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u8
    }

    /// Whether the pin goes by itself soon (so it does not count against the budget of pinned sessions).
    pub const fn is_momentary(self) -> bool {
        matches!(self, PinReason::Diagnostics | PinReason::FoundRows | PinReason::NextTransaction)
    }
}

/// A set of reasons.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Pins(u32);

impl Pins {
    /// No reason.
    pub const NONE: Pins = Pins(0);

    /// Whether nothing pins.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Adds a reason; returns whether it is new.
    pub fn insert(&mut self, reason: PinReason) -> bool {
        let new = self.0 & reason.bit() == 0;
        self.0 |= reason.bit();
        new
    }

    /// Removes a reason; returns whether it was there.
    pub fn remove(&mut self, reason: PinReason) -> bool {
        let there = self.0 & reason.bit() != 0;
        self.0 &= !reason.bit();
        there
    }

    /// Whether a reason is in the set.
    pub fn contains(self, reason: PinReason) -> bool {
        self.0 & reason.bit() != 0
    }

    /// Both sets together.
    pub fn union(self, other: Pins) -> Pins {
        Pins(self.0 | other.0)
    }

    /// What is here and not in `other`.
    pub fn minus(self, other: Pins) -> Pins {
        Pins(self.0 & !other.0)
    }

    /// The reasons, in their order.
    pub fn iter(self) -> impl Iterator<Item = PinReason> {
        REASONS.into_iter().filter(move |reason| self.contains(*reason))
    }

    /// Whether the server session can't be made clean by COM_RESET_CONNECTION: MariaDB keeps the active role and the recorded profiles (with
    /// the texts of statements) through it, and a reset on top of a prepared XA transaction breaks the session: InnoDB refuses its writes from then
    /// on (error 1031), and keeps the locks of the transaction even after another session has rolled it back. OceanBase refuses
    /// the reset of a session that holds user locks.
    pub fn survives_reset(self, flavor: Flavor) -> bool {
        const HIDING: [PinReason; 7] = [
            PinReason::Role,
            PinReason::Profiling,
            PinReason::Xa,
            // What these ran may have been SET ROLE or XA.
            PinReason::TextPrepare,
            PinReason::UnseenCode,
            PinReason::UnreadStatement,
            PinReason::LongStatement,
        ];
        let locks = flavor == Flavor::OceanBase && self.contains(PinReason::UserLock);
        locks || HIDING.into_iter().any(|reason| self.contains(reason))
    }

    /// What belay can't end by itself: the rest of these, without what it is about to read.
    pub fn without_unread(self) -> Pins {
        let mut pins = self;
        pins.remove(PinReason::UnreadUserVariables);
        pins.remove(PinReason::UnreadRole);
        pins.remove(PinReason::UnreadVariables);
        pins
    }

    /// Whether any reason goes by itself soon.
    pub fn has_momentary(self) -> bool {
        self.iter().any(PinReason::is_momentary)
    }

    /// Whether any reason lasts until the client ends it or leaves.
    pub fn is_lasting(self) -> bool {
        self.iter().any(|reason| !reason.is_momentary())
    }
}

impl std::fmt::Display for Pins {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, reason) in self.iter().enumerate() {
            write!(f, "{}{}", if n == 0 { "" } else { ", " }, reason.label())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_the_order_of_the_bits() {
        for (n, reason) in REASONS.into_iter().enumerate() {
            assert_eq!(n, reason as usize);
        }
    }

    #[test]
    fn what_a_reset_does_not_take_away_is_not_trusted_to_it() {
        for reason in REASONS {
            let mut pins = Pins::NONE;
            pins.insert(reason);
            let hides = matches!(
                reason,
                PinReason::Role
                    | PinReason::Profiling
                    | PinReason::Xa
                    | PinReason::TextPrepare
                    | PinReason::UnseenCode
                    | PinReason::UnreadStatement
                    | PinReason::LongStatement
            );
            assert_eq!(pins.survives_reset(Flavor::MariaDb), hides, "{reason:?}");
            let keeps = hides || reason == PinReason::UserLock;
            assert_eq!(pins.survives_reset(Flavor::OceanBase), keeps, "{reason:?}");
        }
    }

    #[test]
    fn a_reason_goes_when_it_is_removed() {
        let mut pins = Pins::NONE;
        assert!(pins.insert(PinReason::Xa));
        assert!(!pins.insert(PinReason::Xa));
        assert_eq!(pins.to_string(), "xa");
        assert!(pins.remove(PinReason::Xa));
        assert!(pins.is_empty());
    }
}
