//! TLS client for the upstream of a forward: trusts the configured CAs, not the system's store.

use super::config::{self, HTTP_1};
use rustls_pki_types::ServerName;
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub(crate) struct UpstreamTls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

impl UpstreamTls {
    /// Trusts the CAs of a PEM text for a host, which may be a name or an IP address.
    pub(crate) fn new(ca_pem: &[u8], host: &str) -> Result<Self, String> {
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is not a host name or address"))?;
        let config = config::dialling_with_cas(ca_pem, None, HTTP_1, "the upstream")?;
        Ok(Self { connector: Arc::new(config).into(), host })
    }

    /// Shakes hands over a connection. Nothing of a request was written when it fails.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}
