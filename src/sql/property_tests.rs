//! What the facts must be, whatever the bytes: properties over random ones, and over statements that are cut or disturbed.

use proptest::prelude::*;

use super::lexer::{Lexer, TokenKind};
use super::tests::{MARIA, MYSQL, span_text};
use super::*;

/// Statements whose facts must not hang on blanks, comments and case.
const CORPUS: &[&str] = &[
    "SELECT a, LAST_INSERT_ID() x, @b := 1 FROM t AS u(c) WHERE d IN (1, 'x;y') ORDER BY 2 LIMIT 5 FOR UPDATE",
    "SELECT SQL_CALC_FOUND_ROWS f(1), db.g(2), COUNT(*), @@identity, @@warning_count FROM db.t INTO @x, @y",
    "WITH RECURSIVE a(x) AS (SELECT 1), b AS (SELECT 2) SELECT NEXT VALUE FOR s, GET_LOCK('a', 1) FROM a",
    "INSERT IGNORE INTO db.t (a, b) VALUES (1, LAST_INSERT_ID()) ON DUPLICATE KEY UPDATE a = VALUES(a)",
    "SET NAMES utf8mb4 COLLATE utf8mb4_bin, autocommit = 0, @a = 1, GLOBAL b = -2, @@session.c = ON",
    "START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY; COMMIT AND NO CHAIN RELEASE; ROLLBACK TO SAVEPOINT a",
    "KILL HARD QUERY 5; USE db; SET SESSION TRANSACTION READ ONLY; LOCK TABLES t READ",
    "CREATE TEMPORARY TABLE t (a VARCHAR(10)) SELECT f(1)",
    "CREATE DEFINER='a'@'b' PROCEDURE p() SELECT 1",
    "LOAD DATA LOCAL INFILE 'x' INTO TABLE t (a, @b) SET c = f(@b)",
    "EXPLAIN FORMAT=JSON SELECT 1; HANDLER t OPEN; PREPARE p FROM 'x'; SET ROLE NONE; FLUSH TABLES WITH READ LOCK",
    "FROBNICATE (1, 2)",
];

/// The facts without what hangs on positions.
fn shape(facts: &Facts) -> impl PartialEq + core::fmt::Debug {
    let scopes: Vec<_> = facts.set.iter().map(|item| (item.scope, item.literal.is_some())).collect();
    let kinds: Vec<_> = facts.volatile.iter().map(|call| (call.kind, call.plain_select_item)).collect();
    let head = (facts.statements, facts.verb, facts.class, facts.certain, facts.txn, facts.implicit_commit);
    let names =
        (facts.set_names.is_some(), facts.use_schema.is_some(), facts.kill.is_some(), facts.prepared_name.is_some());
    (head, facts.effects, facts.side_effect_free_read, facts.locking_read, scopes, kinds, names)
}

fn disturb(sql: &str, cx: &LexContext, choices: &[u8]) -> String {
    const BLANKS: [&str; 6] = [" ", "\n\t", " /* ; ' */ ", " -- it's; \" FOR UPDATE\n", " #`\n", "/**/ "];
    let mut lexer = Lexer::new(sql.as_bytes(), cx);
    let mut out = String::new();
    let mut choices = choices.iter().copied().cycle();
    let mut end = 0;
    loop {
        let token = lexer.next_token();
        let choice = choices.next().unwrap();
        let touches = token.span.start == end && token.kind == TokenKind::UserVariable;
        if !touches {
            out.push_str(BLANKS[usize::from(choice) % BLANKS.len()]);
        }
        if token.kind == TokenKind::End {
            return out;
        }
        let text = span_text(sql, token.span);
        match token.kind {
            TokenKind::Word if choice & 64 != 0 => out.push_str(&text.to_lowercase()),
            TokenKind::Word if choice & 32 != 0 => out.push_str(&text.to_uppercase()),
            _ => out.push_str(text),
        }
        end = token.span.end;
    }
}

fn any_context() -> impl Strategy<Value = LexContext> {
    (any::<[bool; 5]>(), 0..5usize, 0..4usize).prop_map(|(flags, multibyte, flavor)| LexContext {
        no_backslash_escapes: flags[0],
        ansi_quotes: flags[1],
        multibyte: [MultiByte::None, MultiByte::Gbk, MultiByte::Sjis, MultiByte::Big5, MultiByte::Gb18030][multibyte],
        flavor: [MARIA.flavor, MYSQL.flavor, Flavor::OceanBase, Flavor::Unknown][flavor],
        oracle_mode: flags[2],
        ignore_space: flags[3],
        multi_statements: flags[4],
    })
}

fn check_bounds(sql: &[u8], cx: &LexContext) {
    let facts = analyse(sql, cx);
    let inside = |span: Span| assert!(span.start <= span.end && span.end as usize <= sql.len(), "{span:?}");
    facts.volatile.iter().for_each(|call| {
        inside(call.range);
        call.unaliased_item.into_iter().for_each(inside);
    });
    for item in &facts.set {
        inside(item.name);
        inside(item.value);
    }
    let names = facts.set_names.into_iter().flat_map(|names| [names.charset, names.collate]).flatten();
    let spans = [facts.set_role, facts.use_schema, facts.prepared_name, facts.set_transaction.map(|set| set.text)];
    names.chain(spans.into_iter().flatten()).for_each(inside);
    if let Some(Kill { target: KillTarget::User(span) | KillTarget::Expression(span), .. }) = facts.kill {
        inside(span);
    }
    let mut lexer = Lexer::new(sql, cx);
    let mut at = 0;
    loop {
        let token = lexer.next_token();
        inside(token.span);
        assert!(token.span.start >= at);
        at = token.span.end;
        if token.kind == TokenKind::End {
            break;
        }
        assert!(!token.span.is_empty());
    }
    if facts.side_effect_free_read {
        assert!(facts.certain && facts.statements == StatementCount::One);
    }
    let _ = digest::digest(sql, cx);
    let _ = digest::digest_text(sql, cx, 40);
    let _ = rewrite::answer_volatile(sql, &facts, cx, |_| Some(b"1".to_vec()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn any_bytes_are_read(sql in prop::collection::vec(any::<u8>(), 0..200), cx in any_context()) {
        check_bounds(&sql, &cx);
    }

    #[test]
    fn anything_like_sql_is_read(
        words in prop::collection::vec((0..60usize, any::<bool>()), 0..30),
        cx in any_context(),
    ) {
        const WORDS: [&str; 60] = [
            "SELECT", "SET", "(", ")", ",", ";", "'", "\"", "`", "\\", "/*", "*/", "/*!", "/*!50000", "/*M!", "--", "#", "\n",
            "@", "@@", "@a", "@@identity", ":=", "=", ".", "1", "1e", "0x", "x'", "N'", "a", "FOR", "UPDATE", "INTO", "KILL",
            "LAST_INSERT_ID", "()", "NAMES", "TRANSACTION", "READ", "GLOBAL", "USE", "WITH", "AS", "INSERT", "CREATE", "TABLE",
            "TEMPORARY", "PROCEDURE", "BEGIN", "NOT", "ATOMIC", "STATEMENT", "EXPLAIN", "ROLE", "COUNT", "\u{a0}", "é", "?", "-",
        ];
        let mut sql = String::new();
        for (word, blank) in words {
            sql.push_str(WORDS[word]);
            if blank { sql.push(' ') }
        }
        check_bounds(sql.as_bytes(), &cx);
    }

    #[test]
    fn cut_statements_are_read(index in 0..CORPUS.len(), cut in 0..120usize, cx in any_context()) {
        let sql = CORPUS[index].as_bytes();
        check_bounds(&sql[..cut.min(sql.len())], &cx);
    }

    #[test]
    fn blanks_comments_and_case_change_nothing(
        index in 0..CORPUS.len(),
        choices in prop::collection::vec(any::<u8>(), 1..80),
    ) {
        let cx = LexContext { ignore_space: true, ..MARIA };
        let sql = CORPUS[index];
        let disturbed = disturb(sql, &cx, &choices);
        let (plain, other) = (analyse(sql.as_bytes(), &cx), analyse(disturbed.as_bytes(), &cx));
        prop_assert_eq!(shape(&plain), shape(&other), "{}", disturbed);
    }
}
