//! A new key and the certificate request for it.

use super::{
    CertsError,
    params::{named, new_key},
};
use rcgen::KeyPair;
use zeroize::Zeroizing;

pub(crate) struct KeyRequest {
    /// The private key, PEM.
    pub(crate) key_pem: Zeroizing<String>,
    /// The request, PKCS #10 in DER. It contains only the key.
    pub(crate) request: Vec<u8>,
}

impl KeyRequest {
    /// Makes a key of ECDSA P-256.
    pub(crate) fn generate() -> Result<Self, CertsError> {
        Self::of(&new_key()?)
    }

    /// A request over the key that was kept as this PEM text.
    pub(super) fn from_pem(key_pem: &str) -> Result<Self, CertsError> {
        Self::of(&KeyPair::from_pem(key_pem)?)
    }

    fn of(key: &KeyPair) -> Result<Self, CertsError> {
        Ok(Self {
            request: named("dialback").serialize_request(key)?.der().to_vec(),
            key_pem: Zeroizing::new(key.serialize_pem()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::CsrInfo;
    use rcgen::PublicKeyData;

    #[test]
    fn a_request_proves_its_key_and_a_changed_one_does_not() {
        let new = KeyRequest::generate().expect("made");
        let read = CsrInfo::from_der(&new.request).expect("read");
        let own = KeyPair::from_pem(&new.key_pem).expect("a key").subject_public_key_info();
        assert_eq!((read.public_key_der(), read.wishes.len()), (own.as_slice(), 0));
        for at in [new.request.len() - 1, new.request.len() / 2] {
            let mut changed = new.request.clone();
            changed[at] ^= 1;
            assert!(CsrInfo::from_der(&changed).is_err(), "byte {at}");
        }
        assert!(CsrInfo::from_der(&[]).is_err() && CsrInfo::from_der(&own).is_err());
    }
}
