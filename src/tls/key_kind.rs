//! The kind of a key or a binary file by its DER, to tell an unsupported key from a damaged one.

use super::pem_error::PemError;
use x509_parser::{
    asn1_rs::{Any, FromDer, Oid},
    x509::AlgorithmIdentifier,
};
#[cfg(feature = "certs")]
use x509_parser::{public_key::PublicKey, x509::SubjectPublicKeyInfo};

pub(super) const NEW_KEY: &str = "make a new key, for example with `openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out NEW`";

#[cfg(feature = "aws-lc-rs")]
const SUPPORTED: &str = "ECDSA P-256, P-384 and P-521, Ed25519, and RSA of 2048 to 8192 bits";
#[cfg(not(feature = "aws-lc-rs"))]
const SUPPORTED: &str = "ECDSA P-256 and P-384, Ed25519, and RSA of 2048 to 8192 bits";

/// The algorithm of a key, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct KeyKind {
    name: String,
    is_supported: bool,
    /// The object identifier is in the tables below.
    is_known: bool,
}

/// Refuses a public key that neither TLS nor the signing of certificates could use.
#[cfg(feature = "certs")]
pub(super) fn expect_supported(key: &SubjectPublicKeyInfo<'_>) -> Result<(), PemError> {
    let bits = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => Some(rsa.key_size()),
        _ => None,
    };
    match KeyKind::of(&key.algorithm, bits) {
        kind if kind.is_supported => Ok(()),
        // An unknown object identifier may also be damage.
        KeyKind { name, is_known: false, .. } => {
            Err(PemError::Damaged { why: format!("its key is of an unknown kind ({name})") })
        }
        kind => Err(kind.fault()),
    }
}

pub(crate) fn fault_of(private_key_der: &[u8]) -> PemError {
    match KeyKind::of_private(private_key_der) {
        Some(kind) if !kind.is_supported => kind.fault(),
        _ => PemError::NotPem { why: "the private key in it cannot be parsed".into() },
    }
}

impl KeyKind {
    fn of(algorithm: &AlgorithmIdentifier<'_>, rsa_bits: Option<usize>) -> Self {
        let oid = algorithm.algorithm.to_id_string();
        let (name, is_supported) = match oid.as_str() {
            "1.2.840.113549.1.1.1" => return Self::rsa(rsa_bits),
            "1.2.840.10045.2.1" => {
                let curve = algorithm.parameters.as_ref().and_then(|any| any.clone().oid().ok());
                return Self::curve(curve.as_ref());
            }
            "1.3.101.112" => ("Ed25519", true),
            "1.3.101.113" => ("Ed448", false),
            "1.3.101.110" => ("X25519, which cannot sign", false),
            "1.3.101.111" => ("X448, which cannot sign", false),
            "1.2.840.113549.1.1.10" => ("RSA-PSS", false),
            "1.2.840.10040.4.1" => ("DSA", false),
            "1.2.840.113549.1.3.1" => ("Diffie-Hellman, which cannot sign", false),
            "2.16.840.1.101.3.4.3.17" => ("ML-DSA-44", false),
            "2.16.840.1.101.3.4.3.18" => ("ML-DSA-65", false),
            "2.16.840.1.101.3.4.3.19" => ("ML-DSA-87", false),
            other => return Self::unknown(format!("the algorithm {other}")),
        };
        Self::known(name, is_supported)
    }

    fn known(name: impl Into<String>, is_supported: bool) -> Self {
        Self { name: name.into(), is_supported, is_known: true }
    }

    const fn unknown(name: String) -> Self {
        Self { name, is_supported: false, is_known: false }
    }

    fn rsa(bits: Option<usize>) -> Self {
        let name = bits.map_or_else(|| "RSA".into(), |bits| format!("RSA of {bits} bits"));
        Self::known(name, bits.is_none_or(|bits| (2048..=8192).contains(&bits)))
    }

    fn curve(oid: Option<&Oid<'_>>) -> Self {
        let Some(oid) = oid.map(Oid::to_id_string) else {
            return Self::known("ECDSA with explicit curve parameters", false);
        };
        let (name, is_supported) = match oid.as_str() {
            "1.2.840.10045.3.1.7" => ("P-256", true),
            "1.3.132.0.34" => ("P-384", true),
            "1.3.132.0.35" => ("P-521", cfg!(feature = "aws-lc-rs")),
            "1.3.132.0.10" => ("secp256k1", false),
            "1.3.132.0.33" => ("P-224", false),
            "1.2.840.10045.3.1.1" => ("P-192", false),
            "1.3.36.3.3.2.8.1.1.7" => ("brainpoolP256r1", false),
            "1.3.36.3.3.2.8.1.1.11" => ("brainpoolP384r1", false),
            "1.3.36.3.3.2.8.1.1.13" => ("brainpoolP512r1", false),
            "1.2.156.10197.1.301" => ("SM2", false),
            other => return Self::unknown(format!("ECDSA over the curve {other}")),
        };
        Self::known(format!("ECDSA {name}"), is_supported)
    }

    /// Of PKCS #8, SEC 1, PKCS #1 or the older form of DSA. `None` if it is none of them.
    fn of_private(der: &[u8]) -> Option<Self> {
        let parts = parts(der)?;
        match tags(&parts).as_slice() {
            [INTEGER, SEQUENCE, OCTETS, ..] => {
                let (after, _) = Any::from_der(Any::from_der(der).ok()?.1.data).ok()?;
                let (_, algorithm) = AlgorithmIdentifier::from_der(after).ok()?;
                let numbers = self::parts(parts[2].data);
                Some(Self::of(&algorithm, numbers.and_then(|numbers| modulus_bits(&numbers))))
            }
            [INTEGER, OCTETS, ..] => {
                let curve = parts[2..].iter().find(|part| part.header.tag().0 == 0)?;
                Some(Self::curve(Oid::from_der(curve.data).ok().map(|(_, oid)| oid).as_ref()))
            }
            tags if tags == [INTEGER; 6] => Some(Self::known("DSA", false)),
            tags if tags.len() >= 9 => Some(Self::rsa(modulus_bits(&parts))),
            _ => None,
        }
    }

    fn fault(&self) -> PemError {
        let name = &self.name;
        PemError::Unusable {
            why: format!(
                "its key is of a kind that is not supported ({name}); supported are {SUPPORTED}: {NEW_KEY}"
            ),
        }
    }
}

const INTEGER: u32 = 2;
const BITS: u32 = 3;
const OCTETS: u32 = 4;
const OID: u32 = 6;
const SEQUENCE: u32 = 16;

fn tags(parts: &[Any<'_>]) -> Vec<u32> {
    parts.iter().map(|part| part.header.tag().0).collect()
}

fn parts(der: &[u8]) -> Option<Vec<Any<'_>>> {
    let (_, outer) = Any::from_der(der).ok()?;
    if outer.header.tag().0 != SEQUENCE {
        return None;
    }
    let (mut rest, mut found) = (outer.data, vec![]);
    while !rest.is_empty() {
        let (after, one) = Any::from_der(rest).ok()?;
        found.push(one);
        rest = after;
    }
    Some(found)
}

/// Of the numbers of an RSA key: version, modulus, and more.
fn modulus_bits(numbers: &[Any<'_>]) -> Option<usize> {
    let modulus = numbers.get(1).filter(|part| part.header.tag().0 == INTEGER)?.data;
    let modulus = &modulus[modulus.iter().position(|byte| *byte != 0)?..];
    Some(modulus.len() * 8 - modulus[0].leading_zeros() as usize)
}

const OTHER_BINARY: &str = "it is binary, and PEM is wanted; if it is DER, `openssl x509`, `openssl req`, `openssl crl` or `openssl pkey` with `-inform der -in FILE -out NEW` makes PEM of it";

/// Format of a binary file, with the command that converts it to PEM.
pub(super) fn describe_binary(bytes: &[u8]) -> String {
    let Some(parts) = parts(bytes) else {
        return OTHER_BINARY.into();
    };
    let is_pkcs_7 = || {
        let kind = parts.first().and_then(|kind| kind.clone().oid().ok());
        kind.is_some_and(|oid| oid.to_id_string().starts_with("1.2.840.113549.1.7."))
    };
    let (what, command) = match tags(&parts).as_slice() {
        _ if x509_parser::parse_x509_certificate(bytes).is_ok() => {
            ("a certificate in DER", "openssl x509 -inform der -in FILE -out NEW")
        }
        _ if x509_parser::parse_x509_crl(bytes).is_ok() => {
            ("a revocation list in DER", "openssl crl -inform der -in FILE -out NEW")
        }
        [OID, ..] if is_pkcs_7() => {
            ("PKCS #7 in DER", "openssl pkcs7 -inform der -print_certs -in FILE -out NEW")
        }
        [_, SEQUENCE, ..] if parts[0].data == [3] => {
            ("a PKCS #12 file", "openssl pkcs12 -nodes -in FILE -out NEW")
        }
        [INTEGER, ..] => ("a private key in DER", "openssl pkey -inform der -in FILE -out NEW"),
        [SEQUENCE, SEQUENCE, BITS] => {
            ("a certificate request in DER", "openssl req -inform der -in FILE -out NEW")
        }
        [SEQUENCE, OCTETS] => {
            ("an encrypted private key in DER", "openssl pkey -inform der -in FILE -out NEW")
        }
        _ => return OTHER_BINARY.into(),
    };
    format!("it is {what}, and PEM is wanted; `{command}` makes PEM of it")
}
