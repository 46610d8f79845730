//! Certificates of all peers, in the directory that the driver made.

use anyhow::Context;
use dialback::{
    CredentialPem, Credentials,
    certs::{Ca, LeafProfile},
};
use std::{fs, path::Path, time::SystemTime};

const LOOPBACK: &str = "127.0.0.1";
/// Address of the side that listens, if a long path lies between the two sides.
pub const NEAR: &str = "10.99.0.1";

/// Returns the address to listen on.
pub fn host() -> String {
    std::env::var("PEERS_LISTEN").unwrap_or_else(|_| LOOPBACK.into())
}

/// Writes the CA and the certificates of the node, the agent and the caller.
pub fn write(dir: &Path) -> anyhow::Result<()> {
    let ca = Ca::generate("bench.local", SystemTime::now())?;
    fs::write(dir.join("ca.pem"), ca.pem())?;
    for (peer, hosts) in
        [("node/edge", &["localhost", LOOPBACK, NEAR][..]), ("agent/a", &[]), ("caller/c", &[])]
    {
        let name = peer.replace('/', "-");
        let profile = LeafProfile::new(ca.trust_domain(), &peer.parse()?, hosts, SystemTime::now());
        let leaf = ca.leaf(&profile)?;
        fs::write(dir.join(format!("{name}.pem")), leaf.cert.as_bytes())?;
        let key = dir.join(format!("{name}.key"));
        fs::write(&key, leaf.key.as_bytes())?;
        fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    }
    Ok(())
}

/// Loads the credentials of a peer, such as `node-edge`, from the current directory.
pub fn load(name: &str) -> anyhow::Result<Credentials> {
    let read = |file: String| fs::read(&file).with_context(|| file);
    let (cert, key, ca) =
        (read(format!("{name}.pem"))?, read(format!("{name}.key"))?, read("ca.pem".into())?);
    let pem = CredentialPem { cert: &cert, key: &key, ca: &ca, ..CredentialPem::default() };
    Ok(Credentials::from_pem(&pem)?)
}
