//! The headers `Mcp-Method` and `Mcp-Name`, which repeat parts of a message for other parts of a
//! network.
//!
//! Source: "Request Metadata" in
//! <https://modelcontextprotocol.io/specification/2026-07-28/basic/transports/streamable-http>

use super::{MessageError, RpcCode, message_error::quoted};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::borrow::Cow;

/// Checks `Mcp-Method`, if it is present, against the method of a message.
pub(super) fn check_method(header: Option<&str>, method: Option<&str>) -> Result<(), MessageError> {
    let Some(header) = header else { return Ok(()) };
    check("Mcp-Method", header, method, "method")
}

/// Checks `Mcp-Name`, if it is present, against the name in a message.
pub(super) fn check_name(header: Option<&str>, name: Option<&str>) -> Result<(), MessageError> {
    let Some(header) = header else { return Ok(()) };
    let Some(decoded) = decode(header) else {
        let text = format!("the header Mcp-Name is {}, which is not valid Base64", quoted(header));
        return Err(MessageError::new(RpcCode::HeaderMismatch, text));
    };
    check("Mcp-Name", &decoded, name, "name")
}

fn check(
    header: &str,
    value: &str,
    in_message: Option<&str>,
    what: &str,
) -> Result<(), MessageError> {
    if in_message == Some(value) {
        return Ok(());
    }
    let in_message = in_message.map_or_else(|| "none".into(), quoted);
    let text = format!(
        "the header {header} is {}, and the {what} of the message is {in_message}",
        quoted(value)
    );
    Err(MessageError::new(RpcCode::HeaderMismatch, text))
}

/// A value as it is, or encoded, `=?base64?YQ==?=`, where a header could not carry it.
fn decode(header: &str) -> Option<Cow<'_, str>> {
    let encoded = header.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    let Some(encoded) = encoded else { return Some(header.into()) };
    let decoded = STANDARD.decode(encoded).ok()?;
    String::from_utf8(decoded).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_equals_the_message_or_the_fault_names_both() {
        assert_eq!(check_method(None, Some("ping")), Ok(()));
        assert_eq!(check_method(Some("ping"), Some("ping")), Ok(()));
        let fault = check_method(Some("a\n"), Some("ping")).expect_err("differs").to_string();
        assert_eq!(
            fault,
            "the header Mcp-Method is \"a\\n\", and the method of the message is \"ping\""
        );
        let fault = check_name(Some("a"), None).expect_err("differs").to_string();
        assert_eq!(fault, "the header Mcp-Name is \"a\", and the name of the message is none");
        let long =
            check_name(Some(&"a".repeat(1_000)), Some(&"b".repeat(1_000))).expect_err("differs");
        assert!(long.to_string().len() < 300);
    }

    #[test]
    fn a_name_may_be_encoded() {
        for (header, name) in [
            ("us-west1", "us-west1"),
            ("=?base64?SGVsbG8sIOS4lueVjA==?=", "Hello, 世界"),
            ("=?base64?IHBhZGRlZCA=?=", " padded "),
            ("=?base64?PT9iYXNlNjQ/bGl0ZXJhbD89?=", "=?base64?literal?="),
            ("=?base64??=", ""),
            ("=?BASE64?YQ==?=", "=?BASE64?YQ==?="),
            ("=?base64?YQ==", "=?base64?YQ=="),
        ] {
            assert_eq!(check_name(Some(header), Some(name)), Ok(()), "{header}");
        }
        for bad in [
            "=?base64?Y?=",
            "=?base64?YQ?=",
            "=?base64?YR==?=",
            "=?base64?/w==?=",
            "=?base64?Y Q=?=",
        ] {
            let fault = check_name(Some(bad), Some("a")).expect_err(bad);
            assert_eq!(fault.code, RpcCode::HeaderMismatch, "{bad}");
        }
        assert!(check_method(Some("=?base64?cGluZw==?="), Some("ping")).is_err());
    }
}
