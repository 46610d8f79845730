//! Status of calls as gRPC clients read it, in trailers or in a head that ends the response.

use super::super::connect_error::OUTCOME;
use crate::status::{Outcome, Status};
use hyper::{
    HeaderMap,
    header::{self, HeaderName, HeaderValue},
};

pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// Tells gRPC clients not to repeat a call by themselves (gRFC A6).
const GRPC_PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");
const GRPC: &[u8] = b"application/grpc";

/// True for the headers of gRPC, and not of gRPC-Web.
pub(super) fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    kind.and_then(|kind| kind.strip_prefix(GRPC))
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// The status of a call as gRPC clients read it, at the end of a response.
pub(super) fn grpc_trailers(status: &Status) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status.code().number())));
    if let Ok(message) = HeaderValue::try_from(percent_encoded(status.message())) {
        trailers.insert(GRPC_MESSAGE, message);
    }
    trailers.insert(OUTCOME, outcome(status));
    if status.outcome() != Outcome::NotExecuted {
        trailers.insert(GRPC_PUSHBACK, HeaderValue::from_static("-1"));
    }
    trailers
}

pub(super) fn outcome(status: &Status) -> HeaderValue {
    HeaderValue::from_static(status.outcome().as_str())
}

/// `grpc-message`: visible ASCII and spaces as they are, all other bytes in hexadecimal.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'%' | 0..0x20 | 0x7f.. => out.push_str(&format!("%{byte:02X}")),
            _ => out.push(char::from(byte)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_web_is_not_grpc() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;x=1", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
    }
}
