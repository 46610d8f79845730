//! TLS client for the upstream of a forward: trusts the configured CAs, not the system's store.

use super::{config, crypto::provider, pem};
use rustls::{RootCertStore, client::WebPkiServerVerifier};
use rustls_pki_types::{CertificateDer, ServerName};
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
        let cas = pem::bodies(ca_pem, pem::PemKind::Certificate)
            .map_err(|fault| format!("the CAs of the upstream: {fault}"))?;
        let mut roots = RootCertStore::empty();
        for ca in cas {
            let added = roots.add(CertificateDer::from(ca));
            added.map_err(|fault| format!("a CA of the upstream: {fault}"))?;
        }
        if roots.is_empty() {
            return Err("the CAs of the upstream: there is no certificate in the file".into());
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider())
            .build()
            .map_err(|fault| fault.to_string())?;
        let config = config::dialling(None, verifier, true, b"http/1.1");
        let config = config.map_err(|fault| fault.to_string())?;
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
