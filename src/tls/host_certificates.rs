//! Certificates by host name, of which a handshake selects one by its server name (SNI, RFC 6066
//! section 3).

use super::server_certificate::ServerCertificate;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{collections::HashMap, fmt, sync::Arc};

/// Certificates by host name, as `app.example.com`, or `*.example.com` for all names with one more
/// label. The name itself takes precedence over the wildcard. Letters match in either case.
#[derive(Debug, Default)]
pub(crate) struct HostCertificates(HashMap<String, ServerCertificate>);

impl FromIterator<(String, ServerCertificate)> for HostCertificates {
    fn from_iter<I: IntoIterator<Item = (String, ServerCertificate)>>(all: I) -> Self {
        Self(all.into_iter().map(|(host, one)| (host.to_ascii_lowercase(), one)).collect())
    }
}

impl HostCertificates {
    fn find(&self, host: &str) -> Option<&ServerCertificate> {
        if self.0.is_empty() {
            return None;
        }
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let wildcard = || self.0.get(&format!("*{}", &host[host.find('.')?..]));
        self.0.get(&host).or_else(wildcard)
    }
}

/// Shows the certificate of the server name, or the default one for other names and for none.
pub(super) struct CertificateByHost {
    pub(super) default: Arc<CertifiedKey>,
    pub(super) by_host: Arc<HostCertificates>,
}

impl ResolvesServerCert for CertificateByHost {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let found = hello.server_name().and_then(|host| self.by_host.find(host));
        Some(found.map_or(&self.default, ServerCertificate::certified_key).clone())
    }
}

impl fmt::Debug for CertificateByHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { default: _, by_host } = self;
        f.debug_tuple("CertificateByHost").field(by_host).finish()
    }
}
