//! Checks of upstreams: whether they can be reached, or what they answer to a GET.

use super::Upstream;
use crate::{
    health::{CheckFuture, HealthCheck},
    system,
};
use std::{fmt, str::FromStr, sync::Arc};

/// How an agent checks the upstream of a service, whether calls come or not. Written `connect` or
/// `GET /path`.
///
/// Without one, an upstream is connected to only after a call has failed on it, until that succeeds
/// once: some databases block hosts that connect and send nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpstreamCheck {
    /// It accepts a connection, with TLS where it uses TLS.
    Connect,
    /// It answers a GET of this path, below its prefix, with a status below 400. HTTP only.
    Get(String),
}

/// Error of the text of an [`UpstreamCheck`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("check {0:?} is not written \"connect\" or \"GET /path\"")]
pub struct UpstreamCheckError(String);

impl FromStr for UpstreamCheck {
    type Err = UpstreamCheckError;

    fn from_str(text: &str) -> Result<Self, UpstreamCheckError> {
        let is_path =
            |path: &str| path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
        match text.strip_prefix("GET ") {
            None if text == "connect" => Ok(Self::Connect),
            Some(path) if is_path(path) => Ok(Self::Get(path.to_owned())),
            _ => Err(UpstreamCheckError(text.to_owned())),
        }
    }
}

impl fmt::Display for UpstreamCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Get(path) => write!(f, "GET {path}"),
        }
    }
}

/// Connects to the upstream of a TCP forward.
pub(super) fn of_tcp(upstream: &Upstream, is_active: bool) -> HealthCheck {
    let upstream = Arc::new(upstream.clone());
    let run = move || -> CheckFuture {
        let upstream = upstream.clone();
        Box::pin(async move {
            let connected = upstream.connect().await;
            connected.map(drop).map_err(|fault| system::explain(&fault))
        })
    };
    HealthCheck { run: Box::new(run), is_active }
}

#[cfg(feature = "forward")]
pub(super) use http::of_http;

#[cfg(feature = "forward")]
mod http {
    use super::{CheckFuture, HealthCheck, UpstreamCheck};
    use crate::{
        agent::forward::http::{UpstreamAddress, UpstreamClient},
        drain::Tasks,
        tls::UpstreamTls,
    };
    use std::sync::Arc;

    /// Connects to an HTTP upstream, or sends it a GET.
    pub(in crate::agent::forward) fn of_http(
        address: &UpstreamAddress,
        tls: Option<&UpstreamTls>,
        check: Option<UpstreamCheck>,
    ) -> HealthCheck {
        let client = UpstreamClient::new(address.clone(), tls.cloned(), Tasks::default(), false);
        let (client, is_active) = (Arc::new(client), check.is_some());
        let run = move || -> CheckFuture {
            let (client, check) = (client.clone(), check.clone());
            Box::pin(async move {
                match check {
                    Some(UpstreamCheck::Get(path)) => client.get(&path).await,
                    Some(UpstreamCheck::Connect) | None => client.reach().await,
                }
            })
        };
        HealthCheck { run: Box::new(run), is_active }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_connect_or_a_get_of_a_path() {
        for good in ["connect", "GET /", "GET /healthz?full=1"] {
            let check: UpstreamCheck = good.parse().expect("a check");
            assert_eq!(check.to_string(), good);
        }
        for bad in ["", "Connect", "GET", "GET healthz", "get /", "POST /", "GET /a b", "GET /ä"] {
            let fault = bad.parse::<UpstreamCheck>().expect_err(bad);
            assert!(fault.to_string().contains("\"GET /path\""), "{fault}");
        }
    }
}
