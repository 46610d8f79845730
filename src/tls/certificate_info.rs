//! Information in certificates and revocation lists, unverified: for people, dates and serials.

use super::{crypto, hex::hex, pem, pem_error::PemError};
use std::{
    fmt,
    net::IpAddr,
    time::{Duration, SystemTime},
};
use x509_parser::{
    extensions::{GeneralName, ParsedExtension},
    prelude::{ASN1Time, FromDer, X509Certificate, X509Error},
    revocation_list::CertificateRevocationList,
    x509::SubjectPublicKeyInfo,
};

/// Information in one certificate, unverified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateInfo {
    /// Subject: `CN=dialback agent warehouse`.
    pub subject: String,
    /// Issuer.
    pub issuer: String,
    /// The serial number in lower-case hexadecimal.
    pub serial: String,
    /// Start of its validity.
    pub not_before: SystemTime,
    /// End of its validity.
    pub not_after: SystemTime,
    /// Its URI names; a peer has one.
    pub uri_sans: Vec<String>,
    /// Its host names; nodes have them.
    pub dns_sans: Vec<String>,
    /// Its addresses; nodes may have them.
    pub ip_sans: Vec<IpAddr>,
    /// True if it may sign others.
    pub is_ca: bool,
    /// Path length: number of CAs that may stand below it.
    pub path_len: Option<u32>,
    /// Key usages: `Digital Signature`.
    pub key_usages: Vec<String>,
    /// Extended key usages: `client authentication`, `server authentication`, or a number.
    pub extended_key_usages: Vec<String>,
    /// The subject key identifier in hexadecimal; CAs have one.
    pub subject_key_id: Option<String>,
    /// The identifier of the key that signed it, in hexadecimal.
    pub authority_key_id: Option<String>,
    pub(super) subject_der: Vec<u8>,
    pub(super) public_key_der: Vec<u8>,
}

impl CertificateInfo {
    /// The public key, as SubjectPublicKeyInfo in DER.
    pub fn public_key_der(&self) -> &[u8] {
        &self.public_key_der
    }

    /// Reads one certificate in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, PemError> {
        let parsed = whole::<X509Certificate<'_>>(der, "certificate")?;
        let mut info = Self::without_extensions(&parsed);
        for extension in parsed.iter_extensions() {
            info.add(extension.parsed_extension());
        }
        Ok(info)
    }

    /// Reads every certificate of a PEM file, in order. Other sections are passed over.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, PemError> {
        pem::bodies(text, pem::PemKind::Certificate)?
            .iter()
            .map(|der| Self::from_der(der))
            .collect()
    }

    /// True if the certificate is about this public key, given as SubjectPublicKeyInfo in DER.
    pub fn has_public_key(&self, public_key_der: &[u8]) -> bool {
        self.public_key_der == public_key_der
    }

    /// True if `dialback certs` made this CA, with a list: by subject, trust domain and key usage.
    pub(crate) fn is_ca_with_list(&self) -> bool {
        let is_domain = |uri: &String| {
            uri.strip_prefix("spiffe://").is_some_and(|domain| !domain.contains('/'))
        };
        self.is_ca
            && self.subject.starts_with("CN=dialback CA ")
            && matches!(self.uri_sans.as_slice(), [uri] if is_domain(uri))
            && self.key_usages.iter().any(|usage| usage == "CRL Sign")
    }

    fn without_extensions(parsed: &X509Certificate<'_>) -> Self {
        Self {
            subject: parsed.subject().to_string(),
            issuer: parsed.issuer().to_string(),
            serial: hex(&parsed.serial.to_bytes_be()),
            not_before: system_time(parsed.validity().not_before),
            not_after: system_time(parsed.validity().not_after),
            uri_sans: vec![],
            dns_sans: vec![],
            ip_sans: vec![],
            is_ca: false,
            path_len: None,
            key_usages: vec![],
            extended_key_usages: vec![],
            subject_key_id: None,
            authority_key_id: None,
            subject_der: parsed.subject().as_raw().to_vec(),
            public_key_der: parsed.public_key().raw.to_vec(),
        }
    }

    fn add(&mut self, extension: &ParsedExtension<'_>) {
        match extension {
            ParsedExtension::SubjectAlternativeName(names) => {
                names.general_names.iter().for_each(|name| self.add_name(name));
            }
            ParsedExtension::BasicConstraints(constraints) => {
                self.is_ca = constraints.ca;
                self.path_len = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => {
                self.key_usages = usage.to_string().split(", ").map(str::to_owned).collect();
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let known = [
                    usage.any.then_some("any"),
                    usage.server_auth.then_some("server authentication"),
                    usage.client_auth.then_some("client authentication"),
                ];
                self.extended_key_usages = known.into_iter().flatten().map(str::to_owned).collect();
                self.extended_key_usages.extend(usage.other.iter().map(ToString::to_string));
            }
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(hex(id.0)),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| hex(id.0));
            }
            _ => {}
        }
    }

    fn add_name(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::URI(uri) => self.uri_sans.push((*uri).into()),
            GeneralName::DNSName(name) => self.dns_sans.push((*name).into()),
            GeneralName::IPAddress(octets) => self.ip_sans.extend(address(octets)),
            // Counts too, so that no second name can hide next to a readable one.
            GeneralName::Invalid(tag, octets) if tag.0 == 6 => {
                self.uri_sans.push(String::from_utf8_lossy(octets).into_owned());
            }
            _ => {}
        }
    }
}

impl fmt::Display for CertificateInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match (self.is_ca, self.path_len) {
            (true, Some(len)) => format!("CA certificate (path length {len})"),
            (true, None) => "CA certificate".into(),
            (false, _) => "certificate".into(),
        };
        writeln!(f, "{kind}")?;
        line(f, "subject", &self.subject)?;
        line(f, "issuer", &self.issuer)?;
        line(f, "serial", &self.serial)?;
        line(f, "not before", Utc(self.not_before))?;
        line(f, "not after", Utc(self.not_after))?;
        list(f, "URI names", &self.uri_sans)?;
        list(f, "host names", &self.dns_sans)?;
        list(f, "addresses", &self.ip_sans)?;
        list(f, "key usage", &self.key_usages)?;
        list(f, "shown for", &self.extended_key_usages)?;
        list(f, "key id", self.subject_key_id.as_slice())?;
        list(f, "signer's key", self.authority_key_id.as_slice())
    }
}

/// Information in one certificate revocation list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CrlInfo {
    /// The CA that signed it.
    pub issuer: String,
    /// Counts up with every list of one CA.
    pub number: Option<u64>,
    /// Time of its creation.
    pub this_update: SystemTime,
    /// End of its validity. Past it new links are refused.
    pub next_update: Option<SystemTime>,
    /// The revoked certificates.
    pub revoked: Vec<RevokedSerial>,
}

/// One revoked certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevokedSerial {
    /// Its serial number in lower-case hexadecimal.
    pub serial: String,
    /// Time of the revocation.
    pub since: SystemTime,
}

impl CrlInfo {
    /// Reads one list in DER.
    pub fn from_der(der: &[u8]) -> Result<Self, PemError> {
        let parsed = whole::<CertificateRevocationList<'_>>(der, "revocation list")?;
        Ok(Self {
            issuer: parsed.issuer().to_string(),
            number: parsed.crl_number().and_then(|number| u64::try_from(number).ok()),
            this_update: system_time(parsed.last_update()),
            next_update: parsed.next_update().map(system_time),
            revoked: parsed
                .iter_revoked_certificates()
                .map(|entry| RevokedSerial {
                    serial: hex(&entry.serial().to_bytes_be()),
                    since: system_time(entry.revocation_date),
                })
                .collect(),
        })
    }

    /// Reads every list of a PEM file, in order. Other sections are passed over.
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, PemError> {
        pem::bodies(text, pem::PemKind::Crl)?.iter().map(|der| Self::from_der(der)).collect()
    }
}

impl fmt::Display for CrlInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "certificate revocation list")?;
        line(f, "issuer", &self.issuer)?;
        list(f, "number", self.number.as_slice())?;
        line(f, "this update", Utc(self.this_update))?;
        list(f, "next update", self.next_update.map(Utc).as_slice())?;
        line(f, "revoked", self.revoked.len())?;
        self.revoked
            .iter()
            .try_for_each(|entry| writeln!(f, "    {} since {}", entry.serial, Utc(entry.since)))
    }
}

/// Parses bytes of DER that are one object of this kind and nothing else.
pub(super) fn whole<'a, T: FromDer<'a, X509Error>>(
    der: &'a [u8],
    kind: &str,
) -> Result<T, PemError> {
    match T::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err(PemError::Damaged { why: format!("bytes follow the {kind}") }),
        Err(error) => Err(PemError::Damaged { why: error.to_string() }),
    }
}

/// True if a list in DER is signed with this key, a `SubjectPublicKeyInfo`.
pub(super) fn is_list_signed_by(list: &[u8], public_key_der: &[u8]) -> bool {
    x509_parser::parse_x509_crl(list).is_ok_and(|(_, list)| {
        is_signed(list.tbs_cert_list.as_ref(), &list.signature_value.data, public_key_der)
    })
}

pub(super) fn is_signed_by(certificate: &[u8], public_key_der: &[u8]) -> bool {
    x509_parser::parse_x509_certificate(certificate).is_ok_and(|(_, one)| {
        is_signed(one.tbs_certificate.as_ref(), &one.signature_value.data, public_key_der)
    })
}

/// True if this is a signature with this key by any of the algorithms of TLS.
pub(super) fn is_signed(signed: &[u8], signature: &[u8], public_key_der: &[u8]) -> bool {
    SubjectPublicKeyInfo::from_der(public_key_der).is_ok_and(|(_, key)| {
        let (key, algorithms) = (&key.subject_public_key.data, crypto::algorithms().all);
        algorithms.iter().any(|one| one.verify_signature(key, signed, signature).is_ok())
    })
}

/// Shows a moment as `2026-11-22T10:15:00Z`, to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Utc(pub SystemTime);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = unix_seconds(self.0).and_then(|secs| ASN1Time::from_timestamp(secs).ok())
        else {
            return f.write_str("a time beyond the calendar");
        };
        let t = time.to_datetime();
        let (year, month, day) = (t.year(), u8::from(t.month()), t.day());
        let (hour, minute, second) = (t.hour(), t.minute(), t.second());
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

fn unix_seconds(time: SystemTime) -> Option<i64> {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).ok(),
        Err(before) => i64::try_from(before.duration().as_secs()).ok().map(|secs| -secs),
    }
}

/// Times before 1970 become 1970; our certificates have none.
fn system_time(time: ASN1Time) -> SystemTime {
    let secs = u64::try_from(time.timestamp()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(octets).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(octets).ok().map(IpAddr::from))
}

pub(super) fn line(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    value: impl fmt::Display,
) -> fmt::Result {
    // The text is untrusted: no control characters on a terminal.
    let value: String =
        value.to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    writeln!(f, "  {:<14}{value}", format!("{label}:"))
}

pub(super) fn list<T: ToString>(
    f: &mut fmt::Formatter<'_>,
    label: &str,
    values: &[T],
) -> fmt::Result {
    if values.is_empty() {
        return Ok(());
    }
    line(f, label, values.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_in_utc_to_the_second() {
        let shown = |secs| Utc(SystemTime::UNIX_EPOCH + Duration::from_secs(secs)).to_string();
        assert_eq!(shown(0), "1970-01-01T00:00:00Z");
        assert_eq!(shown(1_709_210_096), "2024-02-29T12:34:56Z");
        assert_eq!(shown(u64::MAX / 4), "a time beyond the calendar");
    }

    #[test]
    fn half_a_pem_section_is_refused_and_other_text_is_passed_over() {
        let cut = b"-----BEGIN CERTIFICATE-----\nAAAA\n";
        assert!(matches!(CertificateInfo::all_from_pem(cut), Err(PemError::NotPem { .. })));
        assert_eq!(CertificateInfo::all_from_pem(b"# a remark\n"), Ok(vec![]));
    }
}
