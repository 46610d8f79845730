//! Trusted CAs by role.

use super::{
    certificate_info::CertificateInfo,
    chain::Validity,
    crypto,
    error::CredentialsError,
    files::{CredentialPem, SourceNames},
    identity::Identity,
    sections::{certificates, damaged},
    trust,
};
use crate::name::Role;
use rustls::{RootCertStore, sign::CertifiedKey};
use std::{sync::Arc, time::SystemTime};

pub(super) struct Authorities {
    pub(super) clients: Arc<RootCertStore>,
    pub(super) nodes: Arc<RootCertStore>,
    pub(super) known: Vec<CertificateInfo>,
    are_separate: bool,
}

impl Authorities {
    /// The CAs of agents and callers, and of nodes: the same if none are named for nodes.
    pub(super) fn read(
        pem: &CredentialPem<'_>,
        sources: &SourceNames,
    ) -> Result<Self, CredentialsError> {
        // One record for both: the revocation lists of both are in one file and are found by name.
        let mut known = vec![];
        let clients = Arc::new(roots(pem.ca, &sources.ca, &mut known)?);
        let nodes = match pem.node_ca {
            Some(node_ca) => Arc::new(roots(node_ca, &sources.node_ca, &mut known)?),
            None => clients.clone(),
        };
        Ok(Self { clients, nodes, known, are_separate: pem.node_ca.is_some() })
    }

    /// Validity of the own chain, by the CAs of its role.
    pub(super) fn validity_of(&self, own: &CertifiedKey, identity: &Identity) -> Option<Validity> {
        let role = identity.peer_name().role;
        let roots = if role == Role::Node { &self.nodes } else { &self.clients };
        Validity::of(&own.cert, |at| {
            trust::expect_signed_by(roots, &own.cert, role, crypto::unix_time(at)).is_ok()
        })
    }

    /// With separate CAs, those of our role must have signed our certificate: peers would reject
    /// it, and swapped files go unnoticed. With one bundle peers may trust other CAs.
    pub(super) fn expect_own(
        &self,
        own: &CertifiedKey,
        identity: &Identity,
        sources: &SourceNames,
        at: SystemTime,
    ) -> Result<(), CredentialsError> {
        if !self.are_separate {
            return Ok(());
        }
        let role = identity.peer_name().role;
        let (roots, bundle) = match role {
            Role::Node => (&self.nodes, &sources.node_ca),
            Role::Agent | Role::Caller => (&self.clients, &sources.ca),
        };
        trust::expect_signed_by(roots, &own.cert, role, crypto::unix_time(at)).map_err(|error| {
            let (cert, bundle, why) = (sources.cert.clone(), bundle.clone(), error.to_string());
            CredentialsError::ForeignLeaf { cert, role, bundle, why }
        })
    }
}

fn roots(
    pem: &[u8],
    location: &str,
    known: &mut Vec<CertificateInfo>,
) -> Result<RootCertStore, CredentialsError> {
    let mut store = RootCertStore::empty();
    for root in certificates(pem, location)? {
        let info = CertificateInfo::from_der(&root)
            .map_err(|error| damaged(location, error.to_string()))?;
        if !info.is_ca {
            return Err(CredentialsError::NoAuthority {
                location: location.into(),
                subject: info.subject,
            });
        }
        expect_own_name(&info, known, location)?;
        store.add(root).map_err(|error| damaged(location, error.to_string()))?;
        known.push(info);
    }
    Ok(store)
}

/// webpki finds the revocation list of a CA by the CA's name, so two CAs of one name would share
/// one list. One CA twice, or renewed under its old key, is harmless.
fn expect_own_name(
    info: &CertificateInfo,
    known: &[CertificateInfo],
    location: &str,
) -> Result<(), CredentialsError> {
    let is_namesake = |other: &CertificateInfo| {
        other.subject_der == info.subject_der && other.public_key_der != info.public_key_der
    };
    if known.iter().any(is_namesake) {
        return Err(CredentialsError::TwoAuthorities {
            location: location.into(),
            subject: info.subject.clone(),
        });
    }
    Ok(())
}
