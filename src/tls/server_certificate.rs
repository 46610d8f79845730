//! The certificate of an HTTP server, with its key.

#[cfg(feature = "tunnel")]
use super::credentials::Credentials;
use super::{error::CredentialsError, files, sections};
use rustls::sign::CertifiedKey;
use std::{fmt, path::Path, sync::Arc};

/// A certificate that a node's gateway shows, or a tunnel listener: one that browsers trust,
/// for a public name.
///
/// Cloning is cheap. `Debug` shows where it was read and no key.
#[derive(Clone)]
pub struct ServerCertificate {
    own: Arc<CertifiedKey>,
    location: String,
}

impl ServerCertificate {
    /// Loads a chain, the leaf first, and its key.
    ///
    /// # Errors
    /// A file is missing, unreadable, damaged or, for the key, exposed; or they are not a pair.
    pub fn from_files(
        cert: impl AsRef<Path>,
        key: impl AsRef<Path>,
    ) -> Result<Self, CredentialsError> {
        let (cert, key) = (cert.as_ref(), key.as_ref());
        let (chain, key_pem) = (files::read(cert)?, files::read_key(key)?);
        Self::load(&chain, &key_pem, [cert, key].map(|path| path.display().to_string()))
    }

    /// Loads PEM texts in memory.
    ///
    /// # Errors
    /// As [`ServerCertificate::from_files`].
    pub fn from_pem(cert: &[u8], key: &[u8]) -> Result<Self, CredentialsError> {
        Self::load(cert, key, ["the certificate text", "the key text"].map(str::to_owned))
    }

    fn load(
        cert: &[u8],
        key: &[u8],
        [cert_location, key_location]: [String; 2],
    ) -> Result<Self, CredentialsError> {
        let chain = sections::certificates(cert, &cert_location)?;
        let own = sections::certified_key(chain, key, &cert_location, &key_location)?;
        Ok(Self::of(own, cert_location))
    }

    /// The certificate of a peer.
    #[cfg(feature = "tunnel")]
    pub(crate) fn of_peer(credentials: &Credentials) -> Self {
        Self::of(credentials.certified_key(), credentials.cert_location().into())
    }

    pub(super) const fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.own
    }

    pub(super) const fn of(own: Arc<CertifiedKey>, location: String) -> Self {
        Self { own, location }
    }
}

impl fmt::Debug for ServerCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { own: _, location } = self;
        f.debug_struct("ServerCertificate").field("place", location).finish()
    }
}
