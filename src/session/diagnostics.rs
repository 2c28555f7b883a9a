//! The messages of a client's last statement (warnings, notes, errors): where they are, and which statements leave them as they are.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use crate::sql::lexer::{Lexer, Token, TokenKind};
use crate::sql::{Effects, Facts, Flavor, LexContext, StatementClass, StatementCount, TransactionControl, Verb};

/// Where the messages are that the client may still ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Messages {
    /// There are none.
    #[default]
    None,
    /// On the bound server session, if there are any.
    Here,
    /// Here.
    Copied(Arc<Copied>),
    /// Gone with a server session.
    Lost,
}

/// What a statement that brings no message of its own does to those that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Does {
    /// It clears them.
    Clears,
    /// It leaves them.
    Keeps,
    /// Either.
    Unknown,
}

/// What a statement does to the messages that were there before it (observed). MySQL clears them before every statement that does not ask for them; MariaDB
/// before one that names a table, unless it answers it from its query cache (`cached`: it may).
pub fn does(facts: &Facts, server: Flavor, cached: bool) -> Does {
    let hidden = Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE | Effects::CUT_SHORT;
    if !facts.certain || facts.statements != StatementCount::One || facts.effects.intersects(hidden) {
        return Does::Unknown;
    }
    if facts.effects.contains(Effects::SHOW_DIAGNOSTICS) && matches!(facts.verb, Verb::Show | Verb::GetDiagnostics) {
        return Does::Keeps;
    }
    match server {
        Flavor::MySql { .. } | Flavor::OceanBase => Does::Clears,
        Flavor::MariaDb { .. } | Flavor::Unknown => match facts.verb {
            Verb::Insert | Verb::Replace | Verb::Update | Verb::Delete if facts.class == StatementClass::Write => {
                Does::Clears
            }
            Verb::Select if facts.from_table && !cached => Does::Clears,
            Verb::Select | Verb::Do | Verb::Set | Verb::Values if !facts.reads_tables => Does::Keeps,
            Verb::Begin | Verb::Use | Verb::Deallocate => Does::Keeps,
            _ if facts.class == StatementClass::Transaction && facts.txn != TransactionControl::None => Does::Keeps,
            _ => Does::Unknown,
        },
    }
}

/// Whether a statement asks for messages, or runs code that may.
pub fn may_ask(facts: &Facts) -> bool {
    let asks = Effects::SHOW_DIAGNOSTICS | Effects::ROUTINE | Effects::UNKNOWN | Effects::TEXT_EXECUTE;
    facts.effects.intersects(asks | Effects::VOLATILE_HIDDEN)
}

/// Whether a statement asks for them by a variable alone (`@@warning_count`), whose value can take its place in the text.
pub fn asks_by_variable(facts: &Facts) -> bool {
    let one = facts.certain && facts.statements == StatementCount::One;
    one && !matches!(facts.verb, Verb::Show | Verb::GetDiagnostics)
}

impl Messages {
    /// Where they are after a statement that ran on the bound server session. `new`: it brought some.
    #[must_use]
    pub fn after(self, does: Does, new: bool) -> Messages {
        match (self, does) {
            _ if new => Messages::Here,
            (_, Does::Clears) => Messages::None,
            (Messages::Copied(_), Does::Unknown) => Messages::Lost,
            (messages, _) => messages,
        }
    }
}

/// A copy of the messages, as the client is told of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// The definitions of the columns that SHOW WARNINGS has.
    pub columns: Vec<Bytes>,
    /// The rows.
    pub rows: Vec<Row>,
    /// All of them are here.
    pub complete: bool,
    /// `@@warning_count`; `None`: not known.
    pub warnings: Option<u64>,
    /// `@@error_count`
    pub errors: Option<u64>,
    /// The character set of the text.
    pub charset: Bytes,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// It is an error: SHOW ERRORS shows it.
    pub error: bool,
    /// The row, as it is sent.
    pub payload: Bytes,
}

impl Copied {
    /// Takes the rows of SHOW WARNINGS, up to `rows_max` of them and `bytes_max` bytes.
    pub fn take_rows(&mut self, rows: &[Vec<Option<Bytes>>], rows_max: usize, bytes_max: usize) {
        let mut bytes = 0;
        self.complete = rows.len() <= rows_max;
        for row in rows.iter().take(rows_max) {
            let mut payload = BytesMut::new();
            for value in row {
                match value {
                    Some(value) => crate::protocol::mysql::codec::put_lenenc_str(&mut payload, value),
                    None => payload.put_u8(0xFB),
                }
            }
            bytes += payload.len();
            if bytes > bytes_max {
                self.complete = false;
                return;
            }
            let level = row.first().and_then(Option::as_deref);
            self.rows.push(Row { error: level == Some(b"Error"), payload: payload.freeze() });
        }
    }

    /// Counts the rows, where the server did not say how many there are: it keeps no more than `max_error_count`.
    pub fn count_rows(&mut self, max_error_count: Option<usize>) {
        if self.complete && max_error_count.is_some_and(|max| self.rows.len() < max) {
            self.warnings = Some(self.rows.len() as u64);
            self.errors = Some(self.rows.iter().filter(|row| row.error).count() as u64);
        }
    }

    /// Whether the text reads the same in this character set.
    pub fn reads_in(&self, charset: &[u8]) -> bool {
        self.charset == charset || self.rows.iter().all(|row| row.payload.is_ascii())
    }

    /// The rows that are asked for.
    pub fn shown(&self, show: &Show) -> impl Iterator<Item = &Bytes> {
        let errors_only = show.errors_only;
        let rows = self.rows.iter().filter(move |row| row.error || !errors_only);
        rows.skip(show.offset).take(show.limit).map(|row| &row.payload)
    }
}

/// `SHOW WARNINGS` or `SHOW ERRORS`, and which of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Show {
    /// SHOW ERRORS.
    pub errors_only: bool,
    /// `SHOW COUNT(*) …`: only how many.
    pub count: bool,
    /// How many are left out first.
    pub offset: usize,
    /// How many at most.
    pub limit: usize,
}

/// Reads `SHOW WARNINGS|ERRORS [LIMIT [n,] n]` and `SHOW COUNT(*) WARNINGS|ERRORS`; `None` for any other text.
pub fn read_show(sql: &[u8], context: &LexContext) -> Option<Show> {
    let mut lexer = Lexer::new(sql, context);
    let word =
        |token: Token, word: &[u8]| token.kind == TokenKind::Word && token.span.of(sql).eq_ignore_ascii_case(word);
    let number = |token: Token| std::str::from_utf8(token.span.of(sql)).ok()?.parse::<usize>().ok();
    let mut next = || lexer.next_token();
    if !word(next(), b"SHOW") {
        return None;
    }
    let mut what = next();
    let count = word(what, b"COUNT");
    if count {
        let [open, star, close] = [next(), next(), next()];
        let star = star.span.of(sql) == b"*";
        if open.kind != TokenKind::Open || !star || close.kind != TokenKind::Close {
            return None;
        }
        what = next();
    }
    let errors_only = word(what, b"ERRORS");
    if !errors_only && !word(what, b"WARNINGS") {
        return None;
    }
    let mut show = Show { errors_only, count, offset: 0, limit: usize::MAX };
    let mut token = next();
    if !count && word(token, b"LIMIT") {
        show.limit = number(next())?;
        token = next();
        if token.kind == TokenKind::Comma {
            show.offset = show.limit;
            show.limit = number(next())?;
            token = next();
        } else if word(token, b"OFFSET") {
            show.offset = number(next())?;
            token = next();
        }
    }
    while token.kind == TokenKind::Semicolon {
        token = next();
    }
    (token.kind == TokenKind::End && !lexer.in_doubt()).then_some(show)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::analyse;

    fn does_on(sql: &str, server: Flavor) -> Does {
        does(&analyse(sql.as_bytes(), &LexContext { flavor: server, ..LexContext::default() }), server, false)
    }

    #[test]
    fn what_clears_messages_was_observed_on_real_servers() {
        let (maria, mysql) = (Flavor::MariaDb { version: 101_119 }, Flavor::MySql { version: 90_704 });
        let clears = [
            "INSERT INTO t VALUES (1)",
            "SELECT 1 FROM (SELECT 1) d",
            "SELECT a FROM t",
            "DELETE FROM t",
            "SELECT 1 UNION SELECT 2 FROM t",
        ];
        let keeps = [
            "SELECT 1",
            "SELECT @@warning_count",
            "SET @a = 1",
            "DO 0",
            "COMMIT",
            "BEGIN",
            "SAVEPOINT a",
            "USE test",
            "DEALLOCATE PREPARE p",
        ];
        let both_keep =
            ["SHOW WARNINGS", "SHOW ERRORS LIMIT 1", "SHOW COUNT(*) WARNINGS", "GET DIAGNOSTICS @n = NUMBER"];
        let unknown = ["CALL p()", "SELECT 1; SELECT 2", "SELECT f()", "EXECUTE p"];
        for sql in clears {
            assert_eq!((does_on(sql, maria), does_on(sql, mysql)), (Does::Clears, Does::Clears), "{sql}");
        }
        for sql in keeps {
            assert_eq!((does_on(sql, maria), does_on(sql, mysql)), (Does::Keeps, Does::Clears), "{sql}");
        }
        for sql in both_keep {
            assert_eq!((does_on(sql, maria), does_on(sql, mysql)), (Does::Keeps, Does::Keeps), "{sql}");
        }
        for sql in unknown {
            assert_eq!((does_on(sql, maria), does_on(sql, mysql)), (Does::Unknown, Does::Unknown), "{sql}");
        }
        for sql in [
            "SELECT 1 FROM DUAL",
            "SELECT EXTRACT(YEAR FROM NOW())",
            "SELECT (SELECT 1 FROM t)",
            "CREATE TABLE t (a INT)",
        ] {
            assert_eq!(does_on(sql, maria), Does::Unknown, "{sql}");
        }
    }

    #[test]
    fn messages_are_followed() {
        let copied = Messages::Copied(Arc::default());
        assert_eq!(Messages::None.after(Does::Clears, true), Messages::Here);
        assert_eq!(Messages::Here.after(Does::Unknown, false), Messages::Here);
        assert_eq!(Messages::Here.after(Does::Clears, false), Messages::None);
        assert_eq!(copied.clone().after(Does::Keeps, false), copied);
        assert_eq!(copied.clone().after(Does::Unknown, false), Messages::Lost);
        assert_eq!(copied.after(Does::Keeps, true), Messages::Here);
        assert_eq!(Messages::Lost.after(Does::Clears, false), Messages::None);
    }

    #[test]
    fn questions_are_read() {
        let read = |sql: &str| {
            read_show(sql.as_bytes(), &LexContext::default()).map(|s| (s.errors_only, s.count, s.offset, s.limit))
        };
        assert_eq!(read("SHOW WARNINGS"), Some((false, false, 0, usize::MAX)));
        assert_eq!(read("show /* x */ errors limit 3;"), Some((true, false, 0, 3)));
        assert_eq!(read("SHOW WARNINGS LIMIT 2, 5"), Some((false, false, 2, 5)));
        assert_eq!(read("SHOW WARNINGS LIMIT 5 OFFSET 2"), Some((false, false, 2, 5)));
        assert_eq!(read("SHOW COUNT(*) ERRORS"), Some((true, true, 0, usize::MAX)));
        for other in [
            "SHOW WARNINGS LIMIT",
            "SHOW WARNINGS WHERE 1",
            "SHOW COUNT(1) ERRORS",
            "SHOW TABLES",
            "SHOW WARNINGS LIMIT ?",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
    }

    #[test]
    fn a_copy_is_bounded_and_says_so() {
        let row = |level: &'static str| {
            vec![Some(Bytes::from(level)), Some(Bytes::from_static(b"1365")), Some(Bytes::from_static(b"no"))]
        };
        let rows = [row("Warning"), row("Error"), row("Note")];
        let copied = |rows_max, bytes_max| {
            let mut copied = Copied::default();
            copied.take_rows(&rows, rows_max, bytes_max);
            copied.count_rows(Some(64));
            copied
        };
        let all = copied(3, 1000);
        assert_eq!((all.rows.len(), all.complete, all.warnings, all.errors), (3, true, Some(3), Some(1)));
        let show = Show { errors_only: true, count: false, offset: 0, limit: 9 };
        assert_eq!(all.shown(&show).count(), 1);
        assert_eq!(
            all.shown(&Show { errors_only: false, offset: 1, limit: 1, ..show }).next(),
            Some(&all.rows[1].payload)
        );
        for part in [copied(2, 1000), copied(3, 20)] {
            assert!(!part.complete && part.warnings.is_none());
        }
    }
}
