//! TLS of an HTTP client that calls through a node's gateway.

use super::{
    config::{self, HTTP_1},
    credentials::Credentials,
    error::CredentialsError,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use std::{fmt, io, sync::Arc};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// TLS of an HTTP/1.1 client that calls through a node's gateway. Cloning is cheap.
#[derive(Clone)]
pub struct GatewayClientTls {
    connector: TlsConnector,
    host: ServerName<'static>,
}

/// Error of CA certificates, credentials or a host name that TLS rejects.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum GatewayClientTlsError {
    /// The host is neither a name nor an address.
    #[error("{0:?} is not a host name or address")]
    Host(String),
    /// The CA certificates cannot be used.
    #[error("{0}")]
    Cas(String),
    /// TLS rejects the credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

impl GatewayClientTls {
    /// Trusts nodes as links do, for a gateway with the node's own certificate. Shows the
    /// certificate of the credentials.
    ///
    /// # Errors
    /// An invalid host, or credentials that TLS rejects.
    pub fn of_node(host: &str, credentials: &Credentials) -> Result<Self, GatewayClientTlsError> {
        Self::new(host, credentials.dialling_config(HTTP_1)?)
    }

    /// Trusts the CAs of a PEM text, for a gateway with a certificate for its public name. Shows
    /// the certificate of the credentials, if there are any.
    ///
    /// # Errors
    /// An invalid host, or a text without a valid CA certificate.
    pub fn of_cas(
        host: &str,
        ca_pem: &[u8],
        own: Option<&Credentials>,
    ) -> Result<Self, GatewayClientTlsError> {
        let own = own.map(Credentials::certified_key);
        let config = config::dialling_with_cas(ca_pem, own, HTTP_1, "the gateway");
        Self::new(host, config.map_err(GatewayClientTlsError::Cas)?)
    }

    fn new(host: &str, config: ClientConfig) -> Result<Self, GatewayClientTlsError> {
        let name = ServerName::try_from(host.to_owned());
        let host = name.map_err(|_| GatewayClientTlsError::Host(host.to_owned()))?;
        Ok(Self { connector: Arc::new(config).into(), host })
    }

    /// Shakes hands over a connection.
    ///
    /// # Errors
    /// The connection ends, or one side rejects the certificate of the other.
    pub async fn connect<S: AsyncRead + AsyncWrite + Send + Unpin>(
        &self,
        stream: S,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<S>> {
        self.connector.connect(self.host.clone(), stream).await
    }
}

impl fmt::Debug for GatewayClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GatewayClientTls").field("host", &self.host).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_of_cas_trusts_nobody_and_is_refused() {
        let refused = GatewayClientTls::of_cas("localhost", b"", None).expect_err("no CA");
        let text = "the CAs of the gateway: there is no certificate in the file";
        assert_eq!(refused.to_string(), text);
    }
}
