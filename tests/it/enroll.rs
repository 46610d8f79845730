//! Enrolment over the network: who gets which certificate, how often, and the limits for
//! unauthenticated clients.

mod requests;
mod joins;
mod raw;
mod renewals;
mod roles;
mod tunnels;
mod unauthenticated;

use crate::world::soon;
use dialback::{
    CertificateInfo, CredentialFiles, Credentials, NodeAddress, Role,
    certs::{CertsDir, InitOptions, JoinToken, LeafRequest},
    enroll::{EnrollError, Enroller, Join, JoinedPeer},
};
use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

const HOUR: Duration = Duration::from_secs(3600);

/// A directory with a CA in `ca/` and subdirectories for machines without one.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a directory"));
        site.ca().init(&InitOptions::default(), SystemTime::now()).expect("a CA");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn ca(&self) -> CertsDir {
        CertsDir::new(self.path("ca"))
    }

    fn token(&self, peer: &str) -> JoinToken {
        let peer = peer.parse().expect("a peer name");
        self.ca().make_token(&peer, HOUR, SystemTime::now()).expect("a token")
    }

    /// An enroller on a free port whose leafs have this lifetime.
    async fn enroller(&self, leaf_life: Duration) -> Enroller {
        let builder = Enroller::builder(self.ca()).listen("127.0.0.1:0").leaf_life(leaf_life);
        builder.start().await.expect("an enroller")
    }

    /// A leaf issued at the CA, as by `dialback certs issue`.
    fn issued(&self, role: Role, name: &str) -> CredentialFiles {
        let mut request = LeafRequest::new(role, name.parse().expect("a name"));
        if role == Role::Node {
            request.sans = vec!["127.0.0.1".into()];
        }
        self.ca().issue(&request, SystemTime::now()).expect("issued");
        CredentialFiles::in_dir(self.path("ca"), &format!("{role}-{name}"))
    }

    async fn join(
        &self,
        at: SocketAddr,
        token: &JoinToken,
        dir: &str,
    ) -> Result<JoinedPeer, EnrollError> {
        soon("joining ends", Join::new(address(at), token.clone(), self.path(dir)).run()).await
    }
}

fn address(at: SocketAddr) -> NodeAddress {
    at.to_string().parse().expect("an address")
}

fn leaf_of(files: &CredentialFiles) -> CertificateInfo {
    let pem = fs::read(&files.cert).expect("a certificate");
    CertificateInfo::all_from_pem(&pem).expect("readable").remove(0)
}

/// A token with one part of its text changed.
fn changed(token: &JoinToken, part: usize, text: &str) -> JoinToken {
    let line = token.to_line();
    let mut parts: Vec<&str> = line.split(':').collect();
    parts[part] = text;
    parts.join(":").parse().expect("still a token in form")
}

/// The names of the files in a directory.
fn names_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .map(|entries| entries.map(|entry| entry.expect("an entry").file_name()))
        .map(|names| names.map(|name| name.to_string_lossy().into_owned()).collect())
        .unwrap_or_default();
    names.sort();
    names
}

fn loads(files: &CredentialFiles) -> Credentials {
    Credentials::from_files(files).expect("good credentials")
}
