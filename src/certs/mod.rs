//! Making certificates: a CA, leafs for peers, revocation lists, and a directory that keeps them.
//! The only module that uses rcgen. `tls` reads certificates.

mod ca;
mod crl;
mod dir;
mod error;
mod files;
#[cfg(test)]
mod fixtures;
mod inspect;
mod issue;
mod issued;
mod leaf;
mod key_request;
mod pair;
mod params;
mod enrolment_issuer;
mod pending;
mod record;
mod renew;
mod request;
mod revoked;
mod token;
mod tokens;

pub use ca::Ca;
pub use crl::{CrlReport, RevokeReport};
pub use dir::{Action, CertsDir, InitOptions, InitReport};
pub(crate) use enrolment_issuer::{EnrolmentIssuer, GrantedLeaf, IssueError};
pub use error::CertsError;
pub(crate) use files::{read_bytes, read_pem};
pub use inspect::{Inspected, inspect};
pub use issue::{IssueReport, LeafRequest};
pub use issued::ListedCertificate;
pub(crate) use key_request::KeyRequest;
pub use leaf::{CertPem, LeafPem, LeafProfile, Usage};
pub use pair::{Mended, mend_pair};
pub(crate) use pair::{expect_writable, replace_pair, replace_public};
pub(crate) use pending::PendingKey;
pub use renew::{PeerRenewal, RenewOptions, RenewReport};
pub use request::RequestReport;
pub use token::{JoinToken, JoinTokenError};
pub use tokens::TokenError;
pub(crate) use tokens::TokenUseError;
