//! Ids of requests.

use crate::limits::MCP_ID_BYTES_MAX;
use serde::Serialize;
use serde_json::value::RawValue;

/// Integers that every reader of JSON keeps exactly: 2^53 - 1 (RFC 8259 section 6). The server
/// would answer another one by another id.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// Id of a request: a text or an integer. Ids that mean the same are equal, however they are
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub(crate) enum RequestId {
    Integer(i64),
    Text(String),
}

impl RequestId {
    /// Reads the value of a member `id`; `None` is null.
    pub(super) fn parse(value: &RawValue) -> Result<Option<Self>, String> {
        let text = value.get();
        if text == "null" {
            return Ok(None);
        }
        if text.starts_with('"') {
            let id: String =
                serde_json::from_str(text).map_err(|_| "the id is not a valid text")?;
            if id.len() > MCP_ID_BYTES_MAX {
                return Err(format!("the id is longer than {MCP_ID_BYTES_MAX} bytes"));
            }
            return Ok(Some(Self::Text(id)));
        }
        let integer = text.parse().ok().filter(|id| (-INTEGER_MAX..=INTEGER_MAX).contains(id));
        let integer =
            integer.ok_or("the id is neither a text nor an integer of at most 53 bits")?;
        Ok(Some(Self::Integer(integer)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<RequestId>, String> {
        RequestId::parse(serde_json::from_str(text).expect("JSON"))
    }

    #[test]
    fn ids_are_texts_and_exact_integers() {
        let text = |id: &str| Ok(Some(RequestId::Text(id.into())));
        assert_eq!(parse("\"a\""), text("a"));
        assert_eq!(parse("\"\\u0061\""), text("a"));
        assert_eq!(parse("\"\""), text(""));
        for (written, id) in [
            ("0", 0),
            ("-0", 0),
            ("-7", -7),
            ("9007199254740991", INTEGER_MAX),
            ("-9007199254740991", -INTEGER_MAX),
        ] {
            assert_eq!(parse(written), Ok(Some(RequestId::Integer(id))), "{written}");
        }
        assert_eq!(parse("null"), Ok(None));
        for bad in ["1.0", "1e3", "9007199254740992", "1e400", "true", "[1]", "{}", "\"\\ud800\""] {
            assert!(parse(bad).is_err(), "{bad} was taken for an id");
        }
    }

    #[test]
    fn an_id_of_256_bytes_passes_and_one_of_257_does_not() {
        let id = |bytes: usize| parse(&format!("\"{}\"", "x".repeat(bytes)));
        assert!(id(256).is_ok());
        assert!(id(257).expect_err("too long").contains("longer than 256 bytes"));
    }

    #[test]
    fn an_id_is_written_as_a_number_or_a_text() {
        let written = |text| serde_json::to_string(&parse(text).expect("an id")).expect("JSON");
        assert_eq!([written("7"), written("\"7\""), written("null")], ["7", "\"7\"", "null"]);
    }
}
