//! Sends spans to a collector: one POST on a connection of its own.

use super::endpoint::OtlpEndpoint;
use crate::{limits::OTLP_ANSWER_WAIT_MAX, race, system};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use std::io;
use tokio::time::timeout;

/// Why spans were not taken, for the log.
#[derive(Debug)]
pub(super) enum ExportFault {
    Unreachable(io::Error),
    /// It did not answer in time.
    Silent,
    /// The connection broke, or its answer is not HTTP.
    Broken(hyper::Error),
    Refused(StatusCode),
}

impl ExportFault {
    /// True if the same spans may be taken later.
    pub(super) fn is_temporary(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Silent | Self::Broken(_) => true,
            Self::Refused(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl std::fmt::Display for ExportFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(error) => f.write_str(&system::explain(error)),
            Self::Silent => write!(f, "it has not answered for {OTLP_ANSWER_WAIT_MAX:?}"),
            Self::Broken(fault) => write!(
                f,
                "{fault}; spans are sent over HTTP/1.1, for which collectors listen on port 4318 (4317 is gRPC)"
            ),
            Self::Refused(StatusCode::NOT_FOUND) => {
                write!(f, "it answers 404; is this an OTLP collector?")
            }
            Self::Refused(status) => write!(f, "it answers {}", status.as_u16()),
        }
    }
}

/// Sends one request of OTLP.
pub(super) async fn post(endpoint: &OtlpEndpoint, body: Vec<u8>) -> Result<(), ExportFault> {
    let posted = timeout(OTLP_ANSWER_WAIT_MAX, exchange(endpoint, body)).await;
    match posted.unwrap_or(Err(ExportFault::Silent))? {
        status if status.is_success() => Ok(()),
        status => Err(ExportFault::Refused(status)),
    }
}

async fn exchange(endpoint: &OtlpEndpoint, body: Vec<u8>) -> Result<StatusCode, ExportFault> {
    let OtlpEndpoint { address, path } = endpoint;
    let stream = race::connect_tcp(address.host(), address.port()).await;
    let stream = stream.map_err(ExportFault::Unreachable)?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(ExportFault::Broken)?;
    let request = Request::post(path)
        .header(HOST, address.to_string())
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(USER_AGENT, concat!("dialback/", env!("CARGO_PKG_VERSION")))
        .header(CONNECTION, "close")
        .body(Full::new(Bytes::from(body)));
    let request = request.map_err(|_| ExportFault::Refused(StatusCode::BAD_REQUEST))?;
    let mut answer = std::pin::pin!(sender.send_request(request));
    // The head of the answer says all; its body is not read.
    let answer = tokio::select! {
        biased;
        answer = &mut answer => answer,
        ended = connection => match ended {
            Ok(()) => answer.await,
            Err(fault) => Err(fault),
        },
    };
    answer.map(|answer| answer.status()).map_err(ExportFault::Broken)
}
