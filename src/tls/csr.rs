//! Information in certificate requests: the key, and what is requested, which the CA may ignore.

use super::{certificate_info, key_kind, pem, pem_error::PemError};
use std::fmt;
use x509_parser::{
    certification_request::X509CertificationRequest, extensions::ParsedExtension,
    signature_algorithm::RsaSsaPssParams, x509::AlgorithmIdentifier,
};

/// A certificate request whose signature proves possession of its key. The rest is not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrInfo {
    /// Subject: `CN=dialback agent warehouse`.
    pub subject: String,
    /// Requested contents of the certificate, by kind. `dialback certs sign` gives none of it.
    pub wishes: Vec<String>,
    public_key_der: Vec<u8>,
}

impl CsrInfo {
    /// Reads one request in DER and checks that it is signed with its own key.
    pub fn from_der(der: &[u8]) -> Result<Self, PemError> {
        let parsed: X509CertificationRequest<'_> =
            certificate_info::whole(der, "certificate request")?;
        key_kind::expect_supported(&parsed.certification_request_info.subject_pki)?;
        expect_own_signature(&parsed)?;
        let info = &parsed.certification_request_info;
        Ok(Self {
            subject: info.subject.to_string(),
            wishes: parsed.requested_extensions().into_iter().flatten().map(wish).collect(),
            public_key_der: info.subject_pki.raw.to_vec(),
        })
    }

    /// Reads every request of a PEM file, in order. Other sections are passed over.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, PemError> {
        pem::bodies(text, pem::PemKind::Csr)?.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The public key, as SubjectPublicKeyInfo in DER.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }
}

/// Verifies with the algorithms of rcgen and those of TLS: P-521 is not among the former.
fn expect_own_signature(request: &X509CertificationRequest<'_>) -> Result<(), PemError> {
    let (info, signature) = (&request.certification_request_info, &request.signature_value.data);
    if request.verify_signature().is_ok()
        || certificate_info::is_signed(info.raw, signature, info.subject_pki.raw)
    {
        return Ok(());
    }
    if !is_known_signature(&request.signature_algorithm) {
        let algorithm = request.signature_algorithm.algorithm.to_id_string();
        return Err(PemError::Unusable {
            why: format!(
                "its signature is of a kind that is not supported (algorithm {algorithm}); make it again with SHA-256, with RSA-PSS also with -sigopt rsa_pss_saltlen:-1: `openssl req -new -sha256 -key FILE -out NEW`"
            ),
        });
    }
    Err(PemError::Damaged { why: "its signature does not prove that it is of its own key".into() })
}

/// True if signatures of this algorithm can be verified here: a failure then is the signature's.
fn is_known_signature(algorithm: &AlgorithmIdentifier<'_>) -> bool {
    match algorithm.algorithm.to_id_string().as_str() {
        // RSA with SHA-1, 256, 384, 512; ECDSA with SHA-256, 384, 512; Ed25519.
        "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.113549.1.1.12"
        | "1.2.840.113549.1.1.13"
        | "1.2.840.10045.4.3.2"
        | "1.2.840.10045.4.3.3"
        | "1.2.840.10045.4.3.4"
        | "1.3.101.112" => true,
        // RSA-PSS: with a salt as long as the hash (RFC 8446 section 4.2.3).
        "1.2.840.113549.1.1.10" => {
            let parameters = algorithm.parameters.as_ref();
            let parameters = parameters.and_then(|any| RsaSsaPssParams::try_from(any).ok());
            parameters.is_some_and(|parameters| {
                let hash = parameters.hash_algorithm_oid().to_id_string();
                matches!(
                    (hash.as_str(), parameters.salt_length()),
                    ("2.16.840.1.101.3.4.2.1", 32)
                        | ("2.16.840.1.101.3.4.2.2", 48)
                        | ("2.16.840.1.101.3.4.2.3", 64)
                )
            })
        }
        _ => false,
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

impl fmt::Display for CsrInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "certificate request (signed with its own key)")?;
        certificate_info::line(f, "subject", &self.subject)?;
        certificate_info::list(f, "asks for", &self.wishes)?;
        certificate_info::line(
            f,
            "note",
            "`dialback certs sign` takes its public key and nothing else",
        )
    }
}
