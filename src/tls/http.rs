//! TLS below HTTP: of tunnels, and of the gateway, where a caller's certificate is optional and
//! verified as on links.

#[cfg(feature = "gateway")]
use super::host_certificates::{CertificateByHost, HostCertificates};
use super::{
    chain::ChainBound,
    claim::{Claim, ClaimSlot},
    config::{H2, HTTP_1},
    credentials::Credentials,
    error::CredentialsError,
    identity::Identity,
    revalidation::RevalidationError,
    sections,
    server_certificate::ServerCertificate,
};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The server's side of one TLS connection below HTTP.
pub(crate) struct HttpTls {
    config: Result<ServerConfig, CredentialsError>,
    /// Verifies the certificates of clients, if they are asked for one.
    clients: Option<(Credentials, ClaimSlot)>,
}

/// A handshake that failed because a certificate was refused, with the claim of that certificate.
#[derive(Debug, thiserror::Error)]
#[error("{fault}")]
pub(crate) struct RejectedCertificate {
    pub(crate) claim: Claim,
    fault: io::Error,
}

impl HttpTls {
    /// For HTTP/1.1 and HTTP/2, with a certificate of the client's choice: shows the certificate of
    /// the host that the client names, or else this one, or else that of the credentials. Costs a
    /// few allocations, because each handshake has a slot of its own.
    #[cfg(feature = "gateway")]
    pub(crate) fn with_clients(
        own: Option<&ServerCertificate>,
        by_host: Arc<HostCertificates>,
        credentials: Credentials,
    ) -> Self {
        let slot = ClaimSlot::default();
        let own = own.map(|own| own.certified_key().clone());
        let default = own.unwrap_or_else(|| credentials.certified_key());
        let shown = Arc::new(CertificateByHost { default, by_host });
        let config = credentials.http_config(shown, &[H2, HTTP_1], &slot);
        Self { config, clients: Some((credentials, slot)) }
    }

    /// For tunnels: no certificate is asked for.
    #[cfg(feature = "tunnel")]
    pub(crate) fn of_tunnels(own: &ServerCertificate) -> Self {
        let config = super::config::accepting_tunnels(own.certified_key().clone(), &[HTTP_1]);
        Self { config: config.map_err(CredentialsError::from), clients: None }
    }

    /// Performs the handshake. The error contains a [`RejectedCertificate`] if a certificate was
    /// refused.
    pub(crate) async fn accept<S>(self, stream: S) -> io::Result<Accepted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.config.map_err(io::Error::other)?;
        let accepted = TlsAcceptor::from(Arc::new(config)).accept(stream).await;
        let claim = || self.clients.as_ref()?.1.get().cloned();
        let stream = accepted.map_err(|fault| match claim() {
            Some(claim) => io::Error::other(RejectedCertificate { claim, fault }),
            None => fault,
        })?;
        let is_h2 = stream.get_ref().1.alpn_protocol() == Some(H2);
        let sni = stream.get_ref().1.server_name().map(Box::from);
        let chain = stream.get_ref().1.peer_certificates();
        let shown = chain.zip(self.clients.as_ref()).map(|(chain, (credentials, _))| {
            let chain: Vec<_> = chain.iter().cloned().map(CertificateDer::into_owned).collect();
            ClientCertificate::new(chain, credentials)
        });
        let shown = shown.transpose().map_err(io::Error::other)?;
        Ok(Accepted { stream, shown, sni, is_h2 })
    }
}

pub(crate) struct Accepted<S> {
    pub(crate) stream: TlsStream<S>,
    /// The caller's certificate, if it has shown one.
    pub(crate) shown: Option<ClientCertificate>,
    /// The host that the client has named, in lower case (SNI).
    pub(crate) sni: Option<Box<str>>,
    /// True if the two agreed on HTTP/2.
    pub(crate) is_h2: bool,
}

/// A verified client certificate, which is revalidated when trust has changed.
pub(crate) struct ClientCertificate {
    chain: Vec<CertificateDer<'static>>,
    identity: Identity,
    verified: Mutex<Verification>,
}

struct Verification {
    by: Credentials,
    ends: ChainBound,
}

impl Verification {
    fn new(by: &Credentials, chain: &[CertificateDer<'_>], identity: &Identity) -> Self {
        let ends = by.end_of(chain).unwrap_or_else(|| ChainBound::of_leaf(identity.not_after()));
        Self { by: by.clone(), ends }
    }
}

impl ClientCertificate {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        credentials: &Credentials,
    ) -> Result<Self, CredentialsError> {
        let identity = sections::identity_of(&chain, "the caller's certificate")?;
        let verified = Mutex::new(Verification::new(credentials, &chain, &identity));
        Ok(Self { chain, identity, verified })
    }

    pub(crate) const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Checks that a handshake would accept it now. Costs a verified chain where trust has changed.
    pub(crate) fn revalidate(
        &self,
        credentials: &Credentials,
        now: SystemTime,
    ) -> Result<(), RevalidationError> {
        let mut verified = self.verified.lock().unwrap_or_else(PoisonError::into_inner);
        if !verified.by.is_same(credentials) {
            credentials.revalidate(&self.chain, None, now)?;
            *verified = Verification::new(credentials, &self.chain, &self.identity);
        }
        if now > verified.ends.at() {
            let intermediate = verified.ends.clone().into_intermediate();
            return Err(RevalidationError::Expired(intermediate));
        }
        Ok(())
    }
}
