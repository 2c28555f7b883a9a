//! Code that a statement may run without naming it: views may call stored functions, and these may write; a table that is written may have triggers.
//! A statement is run again only where that is ruled out.

/// What the nodes hide behind names of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// There is no such code: no stored function that a view could call, or no trigger.
    Nothing,
    /// There is; these are the names (lower case, without schema) of all tables and views that may lead to it.
    Behind(Vec<String>),
    /// The monitor account may not see it, or there is too much of it.
    Unknown(&'static str),
}

impl Hidden {
    /// Whether the text may run code that is not in it. Any occurrence of such a name counts, whatever it stands for there.
    pub fn in_text(&self, sql: &[u8]) -> bool {
        match self {
            Hidden::Nothing => false,
            Hidden::Unknown(_) => true,
            Hidden::Behind(names) => {
                let text = String::from_utf8_lossy(sql).to_lowercase();
                // A name in another character set, with escapes, or with quotes (which are doubled in a text) can't be looked for.
                let plain = |name: &str| name.is_ascii() && !name.contains(['`', '"']);
                !text.is_ascii() || names.iter().any(|name| !plain(name) || text.contains(name.as_str()))
            }
        }
    }
}

/// Whether a text that only reads could read a table or view: there is none without one of these words before it. A word inside another counts too.
pub fn may_read_table(sql: &[u8]) -> bool {
    let has = |word: &[u8]| sql.windows(word.len()).any(|w| w.eq_ignore_ascii_case(word));
    has(b"from") || has(b"join") || has(b"table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_hide_nothing_is_let_through() {
        assert!(!Hidden::Nothing.in_text(b"SELECT * FROM v"));
        assert!(Hidden::Unknown("x").in_text(b"SELECT 1"));
        let views = Hidden::Behind(vec!["order_totals".into()]);
        assert!(views.in_text(b"SELECT * FROM Order_Totals"));
        assert!(views.in_text(b"SELECT * FROM `shop`.`order_totals`"));
        assert!(!views.in_text(b"SELECT * FROM orders"));
        assert!(views.in_text("SELECT 'ä' FROM orders".as_bytes()));
        assert!(Hidden::Behind(vec!["größe".into()]).in_text(b"SELECT 1"));
    }

    #[test]
    fn a_name_with_quotes_can_t_be_looked_for() {
        assert!(Hidden::Behind(vec!["a`b".into()]).in_text(b"SELECT 1 FROM `a``b`"));
    }

    #[test]
    fn what_can_read_a_view_is_seen() {
        for sql in [
            "SELECT * from v",
            "SET @a = (SELECT x FROM v)",
            "SHOW TABLES WHERE (SELECT x FROM v)",
            "DO (TABLE v)",
            "SELECT 1 /*!50000 FROM v */",
        ] {
            assert!(may_read_table(sql.as_bytes()), "{sql}");
        }
        for sql in
            ["SELECT 1", "BEGIN", "SET NAMES utf8mb4", "SET @a = 5", "USE test", "START TRANSACTION READ ONLY", ""]
        {
            assert!(!may_read_table(sql.as_bytes()), "{sql}");
        }
    }
}
