//! Error of parsing a name.

use std::fmt;

/// A text that is not a name: the expected kind of name, the text, and the fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} {why}{}", Spelling(spelling.as_deref()))]
pub struct NameError {
    what: &'static str,
    text: String,
    why: &'static str,
    /// The likely spelling, if there is one.
    spelling: Option<String>,
}

struct Spelling<'a>(Option<&'a str>);

impl fmt::Display for Spelling<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |spelling| write!(f, "; write {spelling}"))
    }
}

impl NameError {
    /// Long and hostile texts are cut, so that an error stays one readable line.
    pub(crate) fn new(what: &'static str, text: &str, why: &'static str) -> Self {
        Self { what, text: text.chars().take(80).collect(), why, spelling: None }
    }

    /// Adds the first of these spellings that is a `T`. The spelling of a spelling must be itself.
    pub(crate) fn or_write<T: std::str::FromStr>(
        mut self,
        text: &str,
        spellings: impl IntoIterator<Item = String>,
    ) -> Self {
        let others = spellings.into_iter().filter(|spelling| spelling != text);
        self.spelling = others.into_iter().find(|spelling| spelling.parse::<T>().is_ok());
        self
    }

    /// A text that is not a socket address.
    pub(crate) fn of_listen(text: &str) -> Self {
        Self::new("address", text, "is not written IP:PORT, as [::]:4433 or 127.0.0.1:4433")
    }

    /// Shows the fault, without the text itself.
    pub fn why(&self) -> &'static str {
        self.why
    }
}

/// A text of a person, as names of peers are spelled: `Ware_House ` is `ware-house`.
pub(super) fn as_name(text: &str) -> String {
    text.trim().to_ascii_lowercase().replace(['_', ' '], "-")
}
