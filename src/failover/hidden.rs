//! Code that a read may run without naming it: views may call stored functions, and these may write. A read is run again only where that is ruled out.

/// What the nodes hide behind names of tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// There is no stored function: no view can call one.
    Nothing,
    /// There are stored functions; these are the names (lower case, without schema) of all views.
    Views(Vec<String>),
    /// The monitor account may not see it, or there are too many views.
    Unknown(&'static str),
}

impl Hidden {
    /// Whether the text may run code that is not in it. Any occurrence of a view's name counts, whatever it stands for there.
    pub fn in_text(&self, sql: &[u8]) -> bool {
        match self {
            Hidden::Nothing => false,
            Hidden::Unknown(_) => true,
            Hidden::Views(names) => {
                let text = String::from_utf8_lossy(sql).to_lowercase();
                // A name in another character set, or with escapes, can't be looked for.
                !text.is_ascii() || names.iter().any(|name| !name.is_ascii() || text.contains(name.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_hide_nothing_is_let_through() {
        assert!(!Hidden::Nothing.in_text(b"SELECT * FROM v"));
        assert!(Hidden::Unknown("x").in_text(b"SELECT 1"));
        let views = Hidden::Views(vec!["order_totals".into()]);
        assert!(views.in_text(b"SELECT * FROM Order_Totals"));
        assert!(views.in_text(b"SELECT * FROM `shop`.`order_totals`"));
        assert!(!views.in_text(b"SELECT * FROM orders"));
        assert!(views.in_text("SELECT 'ä' FROM orders".as_bytes()));
        assert!(Hidden::Views(vec!["größe".into()]).in_text(b"SELECT 1"));
    }
}
