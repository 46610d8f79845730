//! Tests of the validity of chains, entries of revocation lists and identities, without a
//! handshake.

use super::*;
use crate::tls::{IdentityError, Validity, revalidation::Revoked};

fn der(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate")
}

/// Two leaf certificates, the second one valid for an hour less on both sides.
fn outer_and_inner() -> [CertificateDer<'static>; 2] {
    let ca = ca();
    let outer = profile(&ca, "agent/outer");
    let mut inner = profile(&ca, "agent/inner");
    inner.not_before += Duration::from_secs(3_600);
    inner.not_after -= Duration::from_secs(3_600);
    [outer, inner].map(|profile| der(&signed(&ca, &profile).cert))
}

#[test]
fn a_chain_is_valid_as_long_as_its_intermediate_and_names_it() {
    let [leaf, intermediate] = outer_and_inner();
    let info = CertificateInfo::from_der(&intermediate).expect("read");
    let is_valid = |at| info.not_before <= at && at <= info.not_after;
    let validity = Validity::of(&[leaf, intermediate], is_valid).expect("read");
    assert_eq!((validity.starts.at(), validity.ends.at()), (info.not_before, info.not_after));
    let named = Some("CN=dialback agent inner");
    assert_eq!((validity.starts.intermediate(), validity.ends.intermediate()), (named, named));
}

#[test]
fn a_chain_is_valid_as_long_as_its_leaf_if_the_intermediate_outlasts_it() {
    let [intermediate, leaf] = outer_and_inner();
    let validity = Validity::of(&[leaf.clone(), intermediate], |_| true).expect("read");
    let info = CertificateInfo::from_der(&leaf).expect("read");
    assert_eq!((validity.starts.at(), validity.ends.at()), (info.not_before, info.not_after));
    assert_eq!((validity.starts.intermediate(), validity.ends.intermediate()), (None, None));
}

#[test]
fn revoked_intermediates_count_only_if_all_of_the_chain_is_looked_up() {
    let chain = outer_and_inner();
    let entry = |der: &CertificateDer<'_>| {
        let info = CertificateInfo::from_der(der).expect("read");
        (info.issuer, info.serial)
    };
    let names = |entry, is_of_chain| Revoked::new([entry].into_iter(), is_of_chain).names(&chain);
    assert!(names(entry(&chain[0]), false) && names(entry(&chain[0]), true));
    assert!(!names(entry(&chain[1]), false) && names(entry(&chain[1]), true));
    let (_, serial) = entry(&chain[0]);
    assert!(!names(("CN=another CA".into(), serial), true));
}

#[test]
fn a_ca_certificate_is_not_an_identity() {
    let error = Identity::of_leaf(&der(ca().pem())).expect_err("refused");
    assert_eq!(error, IdentityError::Authority);
}

#[test]
fn a_leaf_with_a_second_uri_that_is_not_text_is_not_an_identity() {
    let ca = ca();
    let mut two = profile(&ca, "agent/warehouse");
    two.uris.push("zzzz".into());
    let mut leaf = der(&signed(&ca, &two).cert).to_vec();
    let at = leaf.windows(4).position(|bytes| bytes == b"zzzz").expect("the second URI");
    leaf[at] = 0xff;
    let error = Identity::of_leaf(&leaf.into()).expect_err("refused");
    assert_eq!(error, IdentityError::NotOneUri { count: 2 });
}
