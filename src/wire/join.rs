//! Requests and answers of enrolment: one map each way, on a stream of its own.

use super::{
    WireError,
    cbor::{decode_fields, encode_fields, is_default, or_absent},
};
use crate::limits::HEAD_ITEMS_MAX;
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroize;

/// ALPN of enrollers. Distinct from that of links: clients may come without a certificate.
pub const JOIN_ALPN: &[u8] = b"dialback-join/1";

/// Kind of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// A first certificate, by a token.
    Join = 1,
    /// The next certificate, by the present one.
    Renew = 2,
    /// The revocation list, by the present certificate.
    List = 3,
}

impl Ask {
    const ALL: [Self; 3] = [Self::Join, Self::Renew, Self::List];
}

/// A request. It has no `Debug`: it holds a secret, which [`JoinRequest::wipe`] overwrites.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinRequest {
    /// 0: kind of the request: 1 JOIN, 2 RENEW, 3 LIST.
    ask: u8,
    /// 1: PKCS #10 in DER. Only its public key and the proof of its private key are used.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) request: ByteBuf,
    /// 2: the peer that the token is for, as `agent/warehouse`.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub(crate) peer: String,
    /// 3: the token's secret.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "is_default")]
    pub(crate) secret: ByteBuf,
}

impl JoinRequest {
    pub(crate) fn join(request: &[u8], peer: String, secret: &[u8]) -> Self {
        let (request, secret) = (ByteBuf::from(request), ByteBuf::from(secret));
        Self { ask: Ask::Join as u8, request, peer, secret }
    }

    pub(crate) fn renew(request: &[u8]) -> Self {
        Self { ask: Ask::Renew as u8, request: ByteBuf::from(request), ..Self::default() }
    }

    pub(crate) fn list() -> Self {
        Self { ask: Ask::List as u8, ..Self::default() }
    }

    /// Kind of the request; `None` if it is unknown to this version.
    pub(crate) fn ask(&self) -> Option<Ask> {
        Ask::ALL.into_iter().find(|ask| *ask as u8 == self.ask)
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_fields(bytes, HEAD_ITEMS_MAX)
    }

    pub(crate) fn wipe(&mut self) {
        self.secret.as_mut_slice().zeroize();
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JoinReply {
    /// 0: 0 if it was granted, else the number of a [`JoinRefusal`].
    code: u16,
    /// 1: why not, for people.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub(crate) text: String,
    /// 2: the leaf, PEM.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub(crate) leaf: String,
    /// 3: the CA that signed it, and other CAs to trust, PEM.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub(crate) ca: String,
    /// 4: the revocation list, PEM, if there is one.
    #[serde(default, deserialize_with = "or_absent", skip_serializing_if = "String::is_empty")]
    pub(crate) crl: String,
}

impl JoinReply {
    /// Grants a leaf, with its CAs. An empty list means no list.
    pub(crate) fn granted(leaf: String, ca: String, crl: String) -> Self {
        Self { code: 0, text: String::new(), leaf, ca, crl }
    }

    pub(crate) fn list(crl: String) -> Self {
        Self { crl, ..Self::default() }
    }

    pub(crate) fn refused(why: JoinRefusal, text: impl Into<String>) -> Self {
        Self { code: why.number(), text: text.into(), ..Self::default() }
    }

    /// The refusal, if it is one. Unknown numbers of newer enrollers count as `Malformed`.
    pub(crate) fn refusal(&self) -> Option<JoinRefusal> {
        let known = JoinRefusal::from_number(self.code);
        (self.code != 0).then(|| known.unwrap_or(JoinRefusal::Malformed))
    }

    pub(crate) fn encode(&self) -> Result<Vec<u8>, WireError> {
        encode(self)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        decode_fields(bytes, HEAD_ITEMS_MAX)
    }
}

fn encode<T: Serialize>(fields: &T) -> Result<Vec<u8>, WireError> {
    let mut out = Vec::new();
    encode_fields(&mut out, fields)?;
    Ok(out)
}

codes! {
    /// Reason of a refusal.
    #[non_exhaustive]
    pub JoinRefusal: u16 {
        /// The request violates the protocol, or its certificate request is invalid.
        Malformed = 1, "MALFORMED";
        /// No such token was made here, or it is long over.
        TokenUnknown = 2, "TOKEN_UNKNOWN";
        /// The token was used before.
        TokenUsed = 3, "TOKEN_USED";
        /// The token's time is over.
        TokenExpired = 4, "TOKEN_EXPIRED";
        /// The token is for another peer.
        OtherPeer = 5, "OTHER_PARTY";
        /// The address has tried too many wrong tokens; later it may try again.
        TooMany = 6, "TOO_MANY";
        /// The request needs a client certificate, and there was none.
        NoCertificate = 7, "NO_CERTIFICATE";
        /// The enroller does not sign certificates of this role.
        Role = 8, "ROLE";
        /// The certificate that was shown is revoked.
        Revoked = 9, "REVOKED";
        /// The certificate that was shown is too young to be renewed.
        TooEarly = 10, "TOO_EARLY";
        /// The enroller has an internal fault; its log has the cause.
        Internal = 11, "INTERNAL";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_counts_as_absent_for_optional_keys_and_is_refused_for_required_ones() {
        let request = [0xa4, 0x00, 0x03, 0x01, 0xf6, 0x02, 0xf6, 0x03, 0xf6];
        assert!(JoinRequest::decode(&request) == Ok(JoinRequest::list()));
        assert!(JoinRequest::decode(&[0xa1, 0x00, 0xf6]).is_err());
        let reply = [0xa5, 0x00, 0x00, 0x01, 0xf6, 0x02, 0xf6, 0x03, 0xf6, 0x04, 0xf6];
        assert_eq!(JoinReply::decode(&reply), Ok(JoinReply::default()));
        assert!(JoinReply::decode(&[0xa1, 0x00, 0xf6]).is_err());
    }

    #[test]
    fn requests_and_answers_come_back_as_they_were() {
        for request in [
            JoinRequest::join(b"csr", "agent/warehouse".into(), &[7; 16]),
            JoinRequest::renew(b"csr"),
            JoinRequest::list(),
        ] {
            let back = JoinRequest::decode(&request.encode().expect("encodes")).expect("decodes");
            assert!(back == request && back.ask().is_some());
        }
        let granted = JoinReply::granted("l".into(), "c".into(), String::new());
        let refused = JoinReply::refused(JoinRefusal::TokenUsed, "why");
        for (reply, refusal) in [(granted, None), (refused, Some(JoinRefusal::TokenUsed))] {
            let back = JoinReply::decode(&reply.encode().expect("encodes")).expect("decodes");
            assert_eq!((back.refusal(), &back), (refusal, &reply));
        }
    }

    #[test]
    fn refusals_have_distinct_numbers_and_an_unknown_one_is_a_refusal() {
        let numbers: std::collections::HashSet<_> =
            JoinRefusal::ALL.iter().map(|why| why.number()).collect();
        assert!(numbers.len() == JoinRefusal::ALL.len() && !numbers.contains(&0));
        let newer = JoinReply { code: 999, ..JoinReply::default() };
        assert_eq!(newer.refusal(), Some(JoinRefusal::Malformed));
    }

    #[test]
    fn malformed_request_is_refused_and_a_newer_kind_is_unknown() {
        for bad in [&[][..], &[0x80], &[0xa1, 0x00, 0x01, 0x00], &[0xa1, 0x61, b'a', 0x01], &[0xa0]]
        {
            assert!(JoinRequest::decode(bad).is_err(), "{bad:02x?} was taken");
        }
        let newer = JoinRequest::decode(&[0xa2, 0x00, 0x18, 0x63, 0x18, 0x40, 0x01]);
        assert_eq!(newer.ok().map(|request| request.ask()), Some(None));
    }

    #[test]
    fn join_request_matches_golden_bytes() {
        let text = include_str!("../../tests/data/wire/join-request.hex");
        let fields = text.lines().filter_map(|line| line.split('#').next());
        let fields = fields.flat_map(str::split_whitespace);
        let golden: Vec<_> =
            fields.map(|word| u8::from_str_radix(word, 16).expect("two digits")).collect();
        let request = JoinRequest::join(&[0x30, 2, 5, 0], "agent/warehouse".into(), &[0x37; 16]);
        assert_eq!(request.encode(), Ok(golden));
    }

    #[test]
    fn a_secret_is_wiped() {
        let mut request = JoinRequest::join(&[], String::new(), &[7; 16]);
        request.wipe();
        assert_eq!(request.secret.as_slice(), [0; 16]);
    }
}
