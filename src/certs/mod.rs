//! Making certificates: a CA, leafs for parties, revocation lists, and a directory that keeps them.
//!
//! The only room that says rcgen. What stands in a certificate is read by `tls`.

mod ca;
mod dir;
mod error;
mod files;
mod issue;
mod issued;
mod leaf;

pub use ca::Ca;
pub use dir::{Action, CertsDir, InitOptions, InitReport, Inspected, inspect};
pub use error::CertsError;
pub use issue::{IssueReport, LeafRequest};
pub use issued::ListedCertificate;
pub use leaf::{LeafPem, LeafProfile, Usage};
