//! What a newcomer makes: a key that stays, and a request that proves it. And what is taken of such a request: its public key.

use super::CertsError;
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DnType, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKey,
};
use rustls_pki_types::CertificateSigningRequestDer;
use zeroize::Zeroizing;

/// A new key, and the request for a certificate over it.
pub(crate) struct NewKey {
    /// The private key, PEM.
    pub(crate) key_pem: Zeroizing<String>,
    /// The request, PKCS #10 in DER. It says nothing but the key.
    pub(crate) request: Vec<u8>,
}

impl NewKey {
    /// Makes a key of ECDSA P-256.
    pub(crate) fn generate() -> Result<Self, CertsError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "dialback");
        Ok(Self {
            request: params.serialize_request(&key)?.der().to_vec(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }
}

/// The public key of a request whose signature proves that the sender has the private one. Whatever else it wishes for is passed over.
pub(super) fn requested_key(request: &[u8]) -> Result<PublicKey, CertsError> {
    let request = CertificateSigningRequestDer::from(request);
    let read = CertificateSigningRequestParams::from_der(&request)?;
    // Only those that TLS of every provider can show.
    let known = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519, &PKCS_RSA_SHA256];
    if known.contains(&read.public_key.algorithm()) {
        return Ok(read.public_key);
    }
    Err(CertsError::Signing { why: "the key is of no kind that dialback shows in TLS".into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::PublicKeyData;

    #[test]
    fn a_request_proves_its_key_and_a_changed_one_does_not() {
        let new = NewKey::generate().expect("made");
        let key = requested_key(&new.request).expect("read");
        let own = KeyPair::from_pem(&new.key_pem).expect("a key").subject_public_key_info();
        assert_eq!(key.subject_public_key_info(), own);
        for at in [new.request.len() - 1, new.request.len() / 2] {
            let mut changed = new.request.clone();
            changed[at] ^= 1;
            assert!(requested_key(&changed).is_err(), "byte {at}");
        }
        assert!(requested_key(&[]).is_err() && requested_key(&own).is_err());
    }
}
