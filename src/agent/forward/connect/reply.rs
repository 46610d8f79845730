//! Reads a unary reply of an upstream, and the errors of any call.

use super::{
    super::http::UpstreamResponse,
    errors::{ErrorBody, code_of_http},
    format::ForwardFormat,
    headers,
    route::UpstreamRoute,
};
use crate::{
    call::Reply,
    convert::{ConvertError, Converter},
    limits::FORWARD_ERROR_BYTES_MAX,
    status::{Code, Outcome, Status},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::{
    Response, StatusCode,
    body::{Body as _, Incoming},
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING},
};

/// A failure after the request was handed over, about an upstream that answers wrongly.
pub(super) fn broken_reply(text: impl std::fmt::Display) -> Status {
    Status::unknown(Code::Internal, format!("the reply of the upstream {text}"))
}

/// Reads the one reply.
pub(super) async fn unary(
    route: &UpstreamRoute,
    answered: UpstreamResponse,
    converter: &Converter,
) -> Result<Reply, Status> {
    let UpstreamResponse { response, connection } = answered;
    let response = accepted(response).await?;
    let format = format_of(route, response.headers(), false)?;
    let (parts, body) = response.into_parts();
    if !has_end(&parts.headers) {
        return Err(broken_reply(
            "has neither content-length nor chunked encoding, so it may be truncated",
        ));
    }
    let bytes =
        collect(body, route.settings.message_bytes_max).await.map_err(|error| match error {
            BodyError::TooLarge => broken_reply(format_args!(
                "is over the limit of {} bytes (message_bytes_max)",
                route.settings.message_bytes_max
            )),
            BodyError::SendError => Status::unknown(
                Code::Unavailable,
                "the upstream closed the connection before the end of its reply",
            ),
        })?;
    connection.keep();
    let message = format.decode(converter, bytes).await;
    let message = message.map_err(|why| not_of_format(format, why))?;
    let (metadata, trailing) = headers::into_metadata(&parts.headers);
    Ok(Reply { metadata, trailing, ..Reply::new(message) })
}

/// Returns `true` if a truncated reply can be detected. Of a transfer-encoding only chunks have an
/// end of their own, and only as the last of them; any other one ends with the connection (RFC 9112
/// section 6.3), regardless of content-length.
fn has_end(headers: &HeaderMap) -> bool {
    match headers.get_all(TRANSFER_ENCODING).iter().next_back() {
        None => headers.contains_key(CONTENT_LENGTH),
        Some(codings) => codings.to_str().is_ok_and(|codings| {
            let last = codings.rsplit(',').next().unwrap_or_default();
            last.trim().eq_ignore_ascii_case("chunked")
        }),
    }
}

/// A message that does not match its content type.
pub(super) fn not_of_format(format: ForwardFormat, why: ConvertError) -> Status {
    let name = if format == ForwardFormat::Json { "JSON" } else { "CBOR" };
    let what = format!("the reply of the upstream is not {name}");
    why.into_status(Outcome::Unknown, Code::Internal, &what)
}

/// The same response if it is a success; else the error that it is.
pub(super) async fn accepted(response: Response<Incoming>) -> Result<Response<Incoming>, Status> {
    if response.status() == StatusCode::OK {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let is_json = content_type(&parts.headers)
        .is_some_and(|text| ForwardFormat::of(text, false) == Some(ForwardFormat::Json));
    let read = if is_json { collect(body, FORWARD_ERROR_BYTES_MAX).await.ok() } else { None };
    let status = match read.as_deref().and_then(ErrorBody::read) {
        Some(error) => error.into_status(),
        None => Status::new(code_of_http(parts.status.as_u16()), text_of(parts.status)),
    };
    let (mut metadata, trailing) = headers::into_metadata(&parts.headers);
    trailing.iter().for_each(|(key, value)| metadata.insert(key, value));
    Err(status.with_metadata(metadata))
}

fn text_of(status: StatusCode) -> String {
    let remedy = match status.as_u16() {
        300..=399 => "; redirects are not followed",
        404 => "; it has nothing at the path of this method",
        415 => {
            "; it does not take this content type: `format` sets it, and a stream of replies has another than a single one"
        }
        200..=299 => "; a reply is a 200",
        _ => "",
    };
    format!("the upstream answered with HTTP {status}{remedy}")
}

fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()
}

/// Format of a reply. Without a content type it is the requested one.
pub(super) fn format_of(
    route: &UpstreamRoute,
    headers: &HeaderMap,
    is_stream: bool,
) -> Result<ForwardFormat, Status> {
    let is_encoded = headers.get(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity");
    if is_encoded {
        return Err(broken_reply("is compressed, which was not asked for"));
    }
    let wanted = route.settings.format;
    if !headers.contains_key(CONTENT_TYPE) && !is_stream {
        return Ok(wanted);
    }
    let given = content_type(headers).unwrap_or_default();
    ForwardFormat::of(given, is_stream).ok_or_else(|| {
        let given: String = given.chars().take(80).collect();
        let wanted = wanted.media_type(is_stream);
        broken_reply(format_args!("has the content type {given:?} where {wanted} was expected"))
    })
}

enum BodyError {
    TooLarge,
    SendError,
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes, BodyError> {
    let announced = body.size_hint().lower();
    if announced > bytes_max as u64 {
        return Err(BodyError::TooLarge);
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::SendError)?.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
