//! TLS client for the upstream of a forward: trusts the configured CAs, not the system's store.

use super::config::{self, H2, HTTP_1};
use rustls_pki_types::ServerName;
use std::{io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

#[derive(Clone)]
pub(crate) struct UpstreamTls {
    http_1: TlsConnector,
    /// Offers HTTP/2 as well, if it may be used.
    http_2: Option<TlsConnector>,
    host: ServerName<'static>,
}

impl UpstreamTls {
    /// Trusts the CAs of a PEM text for a host, which may be a name or an IP address.
    pub(crate) fn new(ca_pem: &[u8], host: &str, offers_http2: bool) -> Result<Self, String> {
        let host = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is not a host name or address"))?;
        let mut config = config::dialling_with_cas(ca_pem, None, HTTP_1, "the upstream")?;
        let http_1 = Arc::new(config.clone()).into();
        config.alpn_protocols.insert(0, H2.to_vec());
        let http_2 = offers_http2.then(|| Arc::new(config).into());
        Ok(Self { http_1, http_2, host })
    }

    pub(crate) const fn offers_http2(&self) -> bool {
        self.http_2.is_some()
    }

    /// Shakes hands over a connection. Nothing of a request was written when it fails. Returns
    /// `true` if both agreed on HTTP/2.
    pub(crate) async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        stream: S,
        may_be_http2: bool,
    ) -> io::Result<(impl AsyncRead + AsyncWrite + Send + Unpin + use<S>, bool)> {
        let connector = self.http_2.as_ref().filter(|_| may_be_http2).unwrap_or(&self.http_1);
        let stream = connector.connect(self.host.clone(), stream).await?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        Ok((stream, is_http2))
    }
}
