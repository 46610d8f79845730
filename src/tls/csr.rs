//! What stands in a certificate request: whose key it is, and what it asks for, which nobody is bound to give.

use super::facts::{self, FactsError};
use rustls_pki_types::pem::SectionKind;
use std::fmt;
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::ParsedExtension, prelude::FromDer,
};

/// A certificate request whose maker has proved, by its signature, to hold the key in it. All else in it is a wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrFacts {
    /// Whom it names: `CN=dialback agent warehouse`.
    pub subject: String,
    /// What it asks to stand in the certificate, by kind. `dialback certs sign` gives none of it.
    pub wishes: Vec<String>,
    public_key_der: Vec<u8>,
}

impl CsrFacts {
    /// Reads one request in DER and checks that it is signed with its own key.
    pub fn from_der(der: &[u8]) -> Result<Self, FactsError> {
        let damaged = |why: String| FactsError::Damaged { why };
        let (rest, parsed) =
            X509CertificationRequest::from_der(der).map_err(|error| damaged(error.to_string()))?;
        if !rest.is_empty() {
            return Err(damaged("bytes follow the certificate request".into()));
        }
        // The provider's feature of rcgen brings the check with it.
        parsed.verify_signature().map_err(|error| {
            damaged(format!("its signature does not prove that it is of its own key: {error}"))
        })?;
        let info = &parsed.certification_request_info;
        Ok(Self {
            subject: info.subject.to_string(),
            wishes: parsed.requested_extensions().into_iter().flatten().map(wish).collect(),
            public_key_der: info.subject_pki.raw.to_vec(),
        })
    }

    /// Reads every request of a PEM file, in order. Other sections are passed over.
    pub fn all_from_pem(pem: &[u8]) -> Result<Vec<Self>, FactsError> {
        facts::sections(pem, SectionKind::Csr)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The public key, as SubjectPublicKeyInfo in DER.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }
}

fn wish(extension: &ParsedExtension<'_>) -> String {
    match extension {
        ParsedExtension::SubjectAlternativeName(names) => {
            let names = names.general_names.iter().map(ToString::to_string);
            format!("names {}", names.collect::<Vec<_>>().join(", "))
        }
        ParsedExtension::BasicConstraints(basic) if basic.ca => "to be a CA".into(),
        ParsedExtension::BasicConstraints(_) => "to be no CA".into(),
        ParsedExtension::KeyUsage(usage) => format!("key usage {usage}"),
        ParsedExtension::ExtendedKeyUsage(_) => "extended key usage".into(),
        _ => "another extension".into(),
    }
}

impl fmt::Display for CsrFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "certificate request (signed with its own key)")?;
        facts::line(f, "subject", &self.subject)?;
        facts::list(f, "asks for", &self.wishes)?;
        facts::line(f, "note", "`dialback certs sign` takes its public key and nothing else")
    }
}
