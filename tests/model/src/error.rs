//! Errors that a server answers with.

/// An ERR packet's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// Its number.
    pub code: u16,
    /// SQLSTATE.
    pub state: String,
    /// Its text.
    pub message: String,
}

impl Error {
    /// Any error.
    pub fn new(code: u16, state: &str, message: impl Into<String>) -> Error {
        Error { code, state: state.to_owned(), message: message.into() }
    }

    /// 1064; its text is not modelled.
    pub fn syntax() -> Error {
        Error::new(1064, "42000", "You have an error in your SQL syntax")
    }
}

/// An error that no server knows: the model has no answer.
pub fn unsupported(what: &str) -> Error {
    Error::new(1105, "HY000", format!("model: unsupported: {what}"))
}
