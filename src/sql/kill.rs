//! KILL: whom it is for, and the value of the expressions that it is likely to be given.

use super::context::LexContext;
use super::keywords::Keyword;
use super::lexer::{Lexer, Token, TokenKind, inside_quotes};
use super::variables;

/// What an expression names that only the session knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operand<'a> {
    /// `CONNECTION_ID()`, `@@pseudo_thread_id`.
    ConnectionId,
    /// A user variable: its name as it is written, without quotes.
    Variable(&'a [u8]),
    /// `?`
    Parameter,
}

/// The longest expression that is read, in tokens.
const TOKENS_MAX: u32 = 64;

/// The value of an expression of integers, NULL (which KILL takes for 0), what `value` knows, signs, sums and parentheses; `None` for any other.
pub fn evaluate(text: &[u8], cx: &LexContext, value: &mut dyn FnMut(Operand<'_>) -> Option<i128>) -> Option<i128> {
    let mut lexer = Lexer::new(text, cx);
    let current = lexer.next_token();
    let mut reader = Reader { text, lexer, current, tokens: 0 };
    let sum = reader.sum(value)?;
    (reader.current.kind == TokenKind::End && !reader.lexer.in_doubt()).then_some(sum)
}

struct Reader<'a> {
    text: &'a [u8],
    lexer: Lexer<'a>,
    current: Token,
    tokens: u32,
}

impl<'a> Reader<'a> {
    fn pass(&mut self) -> Option<Token> {
        self.tokens += 1;
        let passed = core::mem::replace(&mut self.current, self.lexer.next_token());
        // Each level of parentheses costs a token: this bounds the depth too.
        (self.tokens < TOKENS_MAX).then_some(passed)
    }

    fn pass_kind(&mut self, kind: TokenKind) -> Option<()> {
        (self.current.kind == kind).then(|| self.pass()).flatten().map(|_| ())
    }

    fn operator(&mut self, operator: &[u8]) -> Option<bool> {
        let here = self.current.kind == TokenKind::Operator && self.current.span.of(self.text) == operator;
        if here {
            self.pass()?;
        }
        Some(here)
    }

    fn sum(&mut self, value: &mut dyn FnMut(Operand<'_>) -> Option<i128>) -> Option<i128> {
        let mut sum = self.term(value)?;
        loop {
            if self.operator(b"+")? {
                sum = sum.checked_add(self.term(value)?)?;
            } else if self.operator(b"-")? {
                sum = sum.checked_sub(self.term(value)?)?;
            } else {
                return Some(sum);
            }
        }
    }

    fn term(&mut self, value: &mut dyn FnMut(Operand<'_>) -> Option<i128>) -> Option<i128> {
        if self.operator(b"+")? {
            return self.term(value);
        }
        if self.operator(b"-")? {
            return self.term(value)?.checked_neg();
        }
        let token = self.pass()?;
        let text = token.span.of(self.text);
        match token.kind {
            TokenKind::Open => {
                let inside = self.sum(value)?;
                self.pass_kind(TokenKind::Close)?;
                Some(inside)
            }
            TokenKind::Number => integer(text),
            TokenKind::Text if matches!(text.first(), Some(b'\'' | b'"')) => {
                integer(inside_quotes(self.text, token.span).of(self.text))
            }
            TokenKind::UserVariable => {
                value(Operand::Variable(variables::user_variable_name(self.text, token.span).of(self.text)))
            }
            TokenKind::Placeholder => value(Operand::Parameter),
            TokenKind::SystemVariable => {
                let own: [&[u8]; 2] = [b"@@pseudo_thread_id", b"@@session.pseudo_thread_id"];
                own.iter().any(|name| text.eq_ignore_ascii_case(name)).then(|| value(Operand::ConnectionId)).flatten()
            }
            TokenKind::Word if token.is(Keyword::Null) => Some(0),
            TokenKind::Word if text.eq_ignore_ascii_case(b"connection_id") => {
                self.pass_kind(TokenKind::Open)?;
                self.pass_kind(TokenKind::Close)?;
                value(Operand::ConnectionId)
            }
            _ => None,
        }
    }
}

/// A plain integer, of at most as many digits as a 64-bit one.
fn integer(text: &[u8]) -> Option<i128> {
    let plain = !text.is_empty() && text.len() <= 20 && text.iter().all(u8::is_ascii_digit);
    plain.then(|| core::str::from_utf8(text).ok()?.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<i128> {
        evaluate(text.as_bytes(), &LexContext::default(), &mut |operand| match operand {
            Operand::ConnectionId => Some(1_073_741_825),
            Operand::Variable(name) => name.eq_ignore_ascii_case(b"id").then_some(7),
            Operand::Parameter => Some(9),
        })
    }

    #[test]
    fn what_is_likely_is_read() {
        for (text, wanted) in [
            ("7", 7),
            ("((7))", 7),
            ("7+0", 7),
            ("7 - 8", -1),
            ("-5", -5),
            ("+5", 5),
            ("'12'", 12),
            ("NULL", 0),
            ("CONNECTION_ID()", 1_073_741_825),
            ("connection_id ( ) + 1", 1_073_741_826),
            ("@@pseudo_thread_id", 1_073_741_825),
            ("@ID", 7),
            ("@`id` + 1", 8),
            ("?", 9),
            ("18446744073709551615", 18_446_744_073_709_551_615),
        ] {
            assert_eq!(value(text), Some(wanted), "{text}");
        }
    }

    #[test]
    fn anything_else_is_not_guessed() {
        for text in [
            "",
            "7, 8",
            "(7",
            "7)",
            "7.5",
            "1e3",
            "0x10",
            "'7x'",
            "''",
            "x'37'",
            "@other",
            "(SELECT 7)",
            "f()",
            "kill",
            "7 * 2",
            "CONNECTION_ID",
            "CONNECTION_ID(1)",
            "@@max_connections",
            "7 7",
            "184467440737095516150",
        ] {
            assert_eq!(value(text), None, "{text}");
        }
        assert_eq!(value(&"(".repeat(100_000)), None);
        assert_eq!(value(&format!("1{}", "+1".repeat(100))), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_within_limits(text in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let mut asked = 0u32;
            let _ = evaluate(&text, &LexContext::default(), &mut |_| {
                asked += 1;
                Some(i128::MAX)
            });
            proptest::prop_assert!(asked < TOKENS_MAX);
        }

        #[test]
        fn sums_are_sums(first in 0u64.., rest in proptest::collection::vec((proptest::bool::ANY, 0u64..), 0..20)) {
            let mut text = first.to_string();
            let mut wanted = i128::from(first);
            for (minus, n) in rest {
                text += &format!(" {} ({n})", if minus { '-' } else { '+' });
                wanted += if minus { -i128::from(n) } else { i128::from(n) };
            }
            let tokens = 1 + 4 * (text.matches('(').count() as u32);
            proptest::prop_assert_eq!(value(&text), (tokens < TOKENS_MAX).then_some(wanted));
        }
    }
}
