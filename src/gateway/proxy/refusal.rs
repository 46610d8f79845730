//! Failures of requests that are passed on, in the format that their clients read: trailers of
//! gRPC, or a line of text.

use super::{
    super::{
        connect_error::OUTCOME,
        response::{GatewayResponse, Refusal, full_response},
    },
    grpc::{grpc_trailers, is_grpc, outcome},
};
use crate::status::{Code, Outcome};
use hyper::{
    StatusCode,
    header::{self, HeaderValue},
    http::request::Parts,
};

pub(super) fn response(refusal: Refusal, request: &Parts) -> GatewayResponse {
    let (http, status, headers) = refusal.into_parts();
    let http = match (status.code(), status.outcome()) {
        // The upstream's fault, and clients repeat a 503 by themselves.
        (Code::Unavailable, Outcome::Unknown) | (Code::Internal, _) => StatusCode::BAD_GATEWAY,
        _ => http,
    };
    let mut answer = if is_grpc(&request.headers) {
        let mut answer = full_response(StatusCode::OK, "application/grpc", "");
        answer.headers_mut().extend(grpc_trailers(&status));
        answer
    } else {
        let text = format!("{status}\n");
        let mut answer = full_response(http, "text/plain; charset=utf-8", text);
        let headers = answer.headers_mut();
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        if status.outcome() == Outcome::NotExecuted && http == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        answer
    };
    answer.headers_mut().extend(headers);
    answer.headers_mut().insert(OUTCOME, outcome(&status));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Status;
    use hyper::Request;

    fn answer(content_type: &'static str, status: Status) -> GatewayResponse {
        let request = Request::builder().header(header::CONTENT_TYPE, content_type);
        let (head, ()) = request.body(()).expect("a request").into_parts();
        response(status.into(), &head)
    }

    #[test]
    fn a_grpc_client_gets_status_outcome_and_pushback_as_trailers() {
        let status = Status::unknown(Code::Unavailable, "lost 100%\n\u{e9}");
        let answer = answer("application/grpc+proto", status);
        assert_eq!(answer.status(), StatusCode::OK);
        for (name, value) in [
            ("grpc-status", "14"),
            ("grpc-message", "lost 100%25%0A%C3%A9"),
            ("dialback-outcome", "unknown"),
            ("grpc-retry-pushback-ms", "-1"),
            ("content-type", "application/grpc"),
        ] {
            assert_eq!(answer.headers()[name], value, "{name}");
        }
    }

    #[test]
    fn a_call_that_did_not_run_may_be_repeated() {
        let status = || Status::not_executed(Code::Unavailable, "absent");
        let grpc = answer("application/grpc", status());
        assert!(!grpc.headers().contains_key("grpc-retry-pushback-ms"));
        let plain = answer("text/html", status());
        assert_eq!(plain.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(plain.headers()["retry-after"], "1");
        assert_eq!(plain.headers()["dialback-outcome"], "not_executed");
    }
}
