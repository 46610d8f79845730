//! The reader of PEM (RFC 7468): finds blocks, reports faults by line, decodes required kinds.
//!
//! Stricter than most readers: a malformed BEGIN or END line is a fault, because its block would be
//! left out in silence. Text between blocks is ignored.

use super::{key_kind, pem_error::PemError};
use rustls_pki_types::{
    PrivateKeyDer,
    pem::{PemObject, SectionKind},
};
use zeroize::Zeroizing;

const BOM: &[u8] = b"\xef\xbb\xbf";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PemKind {
    /// `CERTIFICATE`, or `X509 CERTIFICATE` of older tools.
    Certificate,
    Crl,
    /// `CERTIFICATE REQUEST`, or `NEW CERTIFICATE REQUEST` of Windows and older tools.
    Csr,
    /// A private key that can be read: PKCS #8, SEC 1 or PKCS #1.
    Key(&'static str),
    EncryptedKey,
    /// Any other private key: `DSA PRIVATE KEY`, `OPENSSH PRIVATE KEY`.
    ForeignKey,
    PublicKey,
    /// Certificates in a form that is not supported: `TRUSTED CERTIFICATE`, `PKCS7`.
    ForeignCertificate,
    /// Any other block: `EC PARAMETERS`.
    Other,
}

impl PemKind {
    fn of(label: &str) -> Self {
        match label {
            "CERTIFICATE" | "X509 CERTIFICATE" => Self::Certificate,
            "X509 CRL" => Self::Crl,
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => Self::Csr,
            "PRIVATE KEY" => Self::Key("PKCS #8"),
            "EC PRIVATE KEY" => Self::Key("SEC 1, elliptic curve"),
            "RSA PRIVATE KEY" => Self::Key("PKCS #1, RSA"),
            "ENCRYPTED PRIVATE KEY" => Self::EncryptedKey,
            "PUBLIC KEY" | "RSA PUBLIC KEY" => Self::PublicKey,
            "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => Self::ForeignCertificate,
            _ if label.ends_with("PRIVATE KEY") => Self::ForeignKey,
            _ if label.contains("CERT") => Self::ForeignCertificate,
            _ => Self::Other,
        }
    }

    const fn is_key(self) -> bool {
        matches!(self, Self::Key(_) | Self::EncryptedKey | Self::ForeignKey)
    }

    const fn description(self) -> &'static str {
        match self {
            Self::Certificate => "it holds a certificate",
            Self::Crl => "it holds a revocation list",
            Self::Csr => "it holds a certificate request",
            Self::Key(_) | Self::EncryptedKey | Self::ForeignKey => "it holds a private key",
            Self::PublicKey => "it holds a public key",
            Self::ForeignCertificate | Self::Other => "it holds something else",
        }
    }
}

#[derive(Debug)]
pub(crate) struct PemBlock<'a> {
    pub(crate) kind: PemKind,
    label: &'a str,
    /// Line of its BEGIN, from 1.
    line: usize,
    body: &'a [u8],
}

/// All blocks of a text, in order. UTF-16, binary data, and BEGIN or END lines that are malformed,
/// missing or unpaired are errors.
pub(crate) fn blocks(text: &[u8]) -> Result<Vec<PemBlock<'_>>, PemError> {
    if let Some(encoding) = wide_encoding(text) {
        return Err(unusable(format!(
            "it is {encoding} text, and UTF-8 is wanted; convert it with `iconv -f {encoding} -t UTF-8 FILE > NEW`, or save it again as UTF-8"
        )));
    }
    let found = framed(text)?;
    if found.is_empty() && (text.first() == Some(&0x30) || text.contains(&0)) {
        return Err(unusable(key_kind::describe_binary(text)));
    }
    Ok(found)
}

pub(crate) fn bodies(text: &[u8], wanted: PemKind) -> Result<Vec<Vec<u8>>, PemError> {
    let mut found = vec![];
    for block in blocks(text)? {
        match block.kind {
            kind if kind == wanted => found.push(std::mem::take(&mut *block.decode()?)),
            PemKind::ForeignCertificate if wanted == PemKind::Certificate => {
                return Err(foreign_certificate(&block));
            }
            _ => {}
        }
    }
    Ok(found)
}

/// The private key of a text, `None` if there is none. Errors, which never quote from a key: as
/// [`blocks`], or the key is encrypted, unsupported, or not the only one.
pub(crate) fn private_key(text: &[u8]) -> Result<Option<PrivateKeyDer<'static>>, PemError> {
    let found = blocks(text)?;
    let mut keys = found.iter().filter(|block| block.kind.is_key());
    let Some(first) = keys.next() else { return Ok(None) };
    if let Some(second) = keys.next() {
        let (one, two) = (first.line, second.line);
        return Err(unusable(format!(
            "it holds several private keys (lines {one} and {two}), and one is wanted; leave the one that belongs to the certificate"
        )));
    }
    let line = first.line;
    match first.kind {
        PemKind::Key(_) => {}
        PemKind::EncryptedKey => {
            return Err(unusable(format!(
                "the private key in line {line} is encrypted, and dialback does not ask for passphrases; write it without one with `openssl pkey -in FILE -out NEW`"
            )));
        }
        _ => {
            let label = first.label;
            let remedy = match label {
                "OPENSSH PRIVATE KEY" => {
                    "convert it in place with `ssh-keygen -p -m PKCS8 -f FILE`"
                }
                _ => key_kind::NEW_KEY,
            };
            return Err(unusable(format!(
                "the private key in line {line} is of a kind that is not supported ({label}); {remedy}"
            )));
        }
    }
    let mut der = first.decode()?;
    // By its contents, not by its label: some tools write one in the place of the other.
    match PrivateKeyDer::try_from(std::mem::take(&mut *der)) {
        Ok(key) => Ok(Some(key)),
        Err(_) => Err(key_kind::fault_of(&first.decode()?)),
    }
}

/// Description of a text without the required kind.
pub(crate) fn describe_content(text: &[u8]) -> &'static str {
    match blocks(text) {
        _ if text.is_empty() => "it is empty",
        Err(_) => "it is cut off or damaged",
        Ok(found) => found
            .first()
            .map_or("it has no PEM section (\"-----BEGIN ...\")", |block| block.kind.description()),
    }
}

impl PemBlock<'_> {
    fn decode(&self) -> Result<Zeroizing<Vec<u8>>, PemError> {
        let label = match self.kind {
            PemKind::Crl => "X509 CRL",
            PemKind::Csr => "CERTIFICATE REQUEST",
            // The library decodes data that it knows to be secret in constant time.
            kind if kind.is_key() => "PRIVATE KEY",
            _ => "CERTIFICATE",
        };
        let frame = format!("-----BEGIN {label}-----\n");
        let mut text = Zeroizing::new(Vec::with_capacity(self.body.len() + 2 * frame.len() + 2));
        text.extend(frame.as_bytes());
        let lines = lines(self.body).map(<[u8]>::trim_ascii);
        // Headers as of RFC 1421 stand before the body.
        lines
            .skip_while(|line| line.is_empty() || line.contains(&b':'))
            .for_each(|line| text.extend(line));
        text.push(b'\n');
        text.extend(frame.replace("BEGIN", "END").as_bytes());
        match <(SectionKind, Vec<u8>)>::from_pem_slice(&text) {
            Ok((_, body)) if !body.is_empty() => Ok(Zeroizing::new(body)),
            Ok(_) => Err(self.damaged("is empty")),
            // The library's own text may quote a line of a key.
            Err(_) => Err(self.damaged("is not base64")),
        }
    }

    fn damaged(&self, what: &str) -> PemError {
        not_pem(format!(
            "the body of the block {} that begins in line {} {what}",
            self.label, self.line
        ))
    }
}

enum Marker<'a> {
    Begin(&'a str),
    End(&'a str),
}

impl<'a> Marker<'a> {
    /// `None` for any other line, an error for one that was meant as one and is malformed.
    fn read(line: &'a [u8]) -> Option<Result<Self, &'static str>> {
        if !line.contains(&b'-') && !line.contains(&0xe2) {
            return None;
        }
        let bare = line.trim_ascii_end();
        let label = |start: &[u8]| label_of(bare.strip_prefix(start)?.strip_suffix(b"-----")?);
        let begin = label(b"-----BEGIN ").map(Self::Begin);
        if let Some(marker) = begin.or_else(|| label(b"-----END ").map(Self::End)) {
            return Some(Ok(marker));
        }
        malformed(line).map(Err)
    }
}

fn label_of(bytes: &[u8]) -> Option<&str> {
    let is_fit = |byte: &u8| {
        matches!(byte, b' ' | b'#' | b'.' | b'/' | b'_')
            || byte.is_ascii_uppercase()
            || byte.is_ascii_digit()
    };
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && text.trim() == text && bytes.iter().all(is_fit)).then_some(text)
}

/// Prefixes of the labels that are recognised.
const LABEL_WORDS: [&str; 10] = [
    "CERT",
    "X509",
    "TRUSTED",
    "NEW CERT",
    "PRIVATE KEY",
    "EC PRIVATE",
    "RSA PRIVATE",
    "ENCRYPTED PRIVATE",
    "PUBLIC KEY",
    "PKCS",
];

fn malformed(line: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(line).to_uppercase();
    let is_dash = |c: char| matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}');
    let is_marked = |word: &str| {
        text.match_indices(word).any(|(at, _)| {
            let (before, after) = (&text[..at], &text[at + word.len()..]);
            // Prose may have dashes and speak of an end; a label begins at once.
            let is_of_pem = LABEL_WORDS.iter().any(|word| after.trim_start().starts_with(word));
            before.ends_with("-----") || (is_of_pem && before.trim_end().ends_with(is_dash))
        })
    };
    if !is_marked("BEGIN ") && !is_marked("END ") {
        return None;
    }
    let bare = text.trim();
    Some(match () {
        () if text.contains("\\N") => "its line breaks are written as \\n; make them real ones",
        () if bare.len() != text.trim_end().len() => "it is indented; remove the spaces before it",
        () if !bare.starts_with(is_dash) => {
            "other text stands before it, such as a quotation mark; remove it"
        }
        () => {
            "it has to read -----BEGIN LABEL----- or -----END LABEL-----, with five hyphens on each side, in capitals, and alone in its line"
        }
    })
}

fn framed(text: &[u8]) -> Result<Vec<PemBlock<'_>>, PemError> {
    let mut found = vec![];
    let mut open: Option<(&str, usize, usize)> = None;
    for (index, line) in lines(text).enumerate() {
        let number = index + 1;
        // Files with a mark of their own may have been joined.
        let line = without_marks(line);
        let Some(marker) = Marker::read(line) else { continue };
        let marker = marker.map_err(|why| {
            unusable(format!(
                "line {number} looks like the start or the end of a PEM block and is not: {why}"
            ))
        })?;
        let at = line.as_ptr() as usize - text.as_ptr() as usize;
        match (marker, open.take()) {
            (Marker::Begin(label), None) => open = Some((label, number, at + line.len())),
            (Marker::Begin(_), Some((label, begun, _))) => {
                return Err(not_pem(format!(
                    "the block {label} that begins in line {begun} has no END before the next BEGIN in line {number}"
                )));
            }
            (Marker::End(label), None) => {
                return Err(not_pem(format!(
                    "the END of a block {label} in line {number} has no BEGIN"
                )));
            }
            (Marker::End(end), Some((label, begun, _))) if end != label => {
                return Err(not_pem(format!(
                    "the block {label} that begins in line {begun} ends in line {number} as {end}"
                )));
            }
            (Marker::End(_), Some((label, begun, from))) => {
                found.push(block(label, begun, &text[from..at]));
            }
        }
    }
    match open {
        None => Ok(found),
        Some((label, begun, _)) => Err(not_pem(format!(
            "the block {label} that begins in line {begun} has no END: it is cut off"
        ))),
    }
}

fn block<'a>(label: &'a str, line: usize, body: &'a [u8]) -> PemBlock<'a> {
    let mut kind = PemKind::of(label);
    // The older form of encryption leaves the label as it is and says so in a header (RFC 1421).
    let is_encrypted =
        |line: &[u8]| line.starts_with(b"Proc-Type:") && line.ends_with(b"ENCRYPTED");
    if kind.is_key() && lines(body).any(|line| is_encrypted(line.trim_ascii())) {
        kind = PemKind::EncryptedKey;
    }
    PemBlock { kind, label, line, body }
}

fn without_marks(mut line: &[u8]) -> &[u8] {
    while let Some(rest) = line.strip_prefix(BOM) {
        line = rest;
    }
    line
}

/// Lines that end in LF, CRLF or CR.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest.take()?;
        let Some(end) = text.iter().position(|byte| matches!(byte, b'\n' | b'\r')) else {
            return Some(text);
        };
        let ending = if text[end..].starts_with(b"\r\n") { 2 } else { 1 };
        rest = Some(&text[end + ending..]);
        Some(&text[..end])
    })
}

/// The UTF-16 or UTF-32 encoding of a text: by its byte order mark, or a BEGIN with zeros in it.
fn wide_encoding(text: &[u8]) -> Option<&'static str> {
    const BEGIN: &[u8] = b"-\0B\0E\0G\0I\0N";
    match text {
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32"),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Some("UTF-16"),
        _ => {}
    }
    let first_zero = text.iter().position(|byte| *byte == 0)?;
    let is_wide = text.windows(BEGIN.len()).take(4096).any(|part| part == BEGIN);
    is_wide.then_some(if first_zero % 2 == 0 { "UTF-16BE" } else { "UTF-16LE" })
}

fn foreign_certificate(block: &PemBlock<'_>) -> PemError {
    let (label, line) = (block.label, block.line);
    let remedy = match label {
        "TRUSTED CERTIFICATE" => {
            "; `openssl x509 -in FILE -out NEW` makes a plain certificate of it"
        }
        "PKCS7" | "PKCS #7 SIGNED DATA" | "CMS" => {
            "; `openssl pkcs7 -print_certs -in FILE -out NEW` takes the certificates out of it"
        }
        _ => "; a certificate is a block CERTIFICATE",
    };
    unusable(format!("the block {label} in line {line} is not supported{remedy}"))
}

fn unusable(why: impl Into<String>) -> PemError {
    PemError::Unusable { why: why.into() }
}

fn not_pem(why: String) -> PemError {
    PemError::NotPem { why }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn count(text: &str) -> Result<usize, String> {
        let found = bodies(text.as_bytes(), PemKind::Certificate);
        found.map(|all| all.len()).map_err(|error| error.to_string())
    }

    #[test]
    fn blocks_are_found_with_any_text_between_them() {
        for remark in [
            "",
            "\n\n",
            "subject=CN = a\n",
            "\u{feff}\u{feff}",
            "-- end of the list of certificates --\n",
            "---- begin of the roots ----\n",
            "Begin Certificate of the root\n",
            "MIIBszCCAVmgAwIBAgIQ\n",
            "-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n",
        ] {
            assert_eq!(count(&format!("{remark}{ONE}{remark}{ONE}{remark}")), Ok(2), "{remark}");
        }
        assert_eq!(count(""), Ok(0));
    }

    #[test]
    fn a_line_that_was_meant_to_begin_or_end_a_block_is_a_fault_in_its_line() {
        for (line, word) in [
            (" -----BEGIN CERTIFICATE-----", "indented"),
            ("# -----BEGIN CERTIFICATE-----", "other text"),
            ("\u{200b}-----BEGIN CERTIFICATE-----", "other text"),
            ("-----BEGIN CERTIFICATE----", "five hyphens"),
            ("-----BEGIN CERTIFICATE------", "five hyphens"),
            ("------BEGIN CERTIFICATE-----", "five hyphens"),
            ("----BEGIN CERTIFICATE-----", "five hyphens"),
            ("-----BEGIN  CERTIFICATE-----", "five hyphens"),
            ("----- BEGIN CERTIFICATE -----", "five hyphens"),
            ("-----BEGIN CERTIFICATE", "five hyphens"),
            ("-----Begin Certificate-----", "five hyphens"),
            ("\u{2014}\u{2014}BEGIN CERTIFICATE\u{2014}\u{2014}", "five hyphens"),
            ("-----BEGIN CERTIFICATE-----\\nAAAA\\n-----END CERTIFICATE-----", "\\n"),
            ("-----BEGIN CERTIFICATE-----AAAA-----END CERTIFICATE-----", "alone in its line"),
            ("-----END CERTIFICATE----- x", "alone in its line"),
            ("-----BEGIN anything-----", "capitals"),
        ] {
            let message = count(&format!("{ONE}{line}\n{ONE}")).expect_err(line);
            assert!(message.contains("line 4") && message.contains(word), "{line}: {message}");
        }
    }

    #[test]
    fn line_numbers_count_all_kinds_of_line_ends() {
        for ending in ["\n", "\r\n", "\r"] {
            let text = format!("{ONE}-----BEGIN X509 CRL-----\nAAAA\n").replace('\n', ending);
            let message = count(&text).expect_err("cut off");
            assert!(message.contains("X509 CRL that begins in line 4"), "{message}");
        }
    }

    #[test]
    fn wide_text_is_named_by_its_encoding() {
        let le: Vec<u8> = ONE.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let be: Vec<u8> = ONE.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let wide: Vec<u8> = ONE.chars().flat_map(|c| u32::from(c).to_le_bytes()).collect();
        let with = |mark: &[u8], text: &[u8]| [mark, text].concat();
        for (text, name) in [
            (le.clone(), "UTF-16LE"),
            (be.clone(), "UTF-16BE"),
            (with(b"\xff\xfe", &le), "UTF-16 "),
            (with(b"\xfe\xff", &be), "UTF-16 "),
            (with(b"\xff\xfe\0\0", &wide), "UTF-32 "),
        ] {
            let message = blocks(&text).expect_err(name).to_string();
            assert!(message.contains(name) && message.contains("iconv"), "{message}");
        }
    }
}
