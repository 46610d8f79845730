//! Certificates of all peers, in the directory that the driver made.

use anyhow::Context;
use dialback::{
    CredentialPem, Credentials,
    certs::{Ca, LeafProfile},
};
use std::{fs, ops::Range, path::Path, time::SystemTime};

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
    write_key(&dir.join("ca.key"), &ca.key_pem())?;
    for (peer, hosts) in
        [("node/edge", &["localhost", LOOPBACK, NEAR][..]), ("agent/a", &[]), ("caller/c", &[])]
    {
        let name = peer.replace('/', "-");
        let profile = LeafProfile::new(ca.trust_domain(), &peer.parse()?, hosts, SystemTime::now());
        let leaf = ca.leaf(&profile)?;
        fs::write(dir.join(format!("{name}.pem")), leaf.cert.as_bytes())?;
        write_key(&dir.join(format!("{name}.key")), &leaf.key)?;
    }
    Ok(())
}

fn write_key(path: &Path, key: &str) -> anyhow::Result<()> {
    fs::write(path, key)?;
    fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(())
}

/// Issues certificates to agents of these numbers, by the CA in the current directory.
pub fn issue_agents(numbers: Range<usize>) -> anyhow::Result<Vec<Credentials>> {
    let ca = Ca::from_pem(&fs::read_to_string("ca.pem")?, &fs::read_to_string("ca.key")?)?;
    let issue = |number| {
        let peer = format!("agent/{}", agent_name(number)).parse()?;
        let profile = LeafProfile::new(ca.trust_domain(), &peer, &[], SystemTime::now());
        let leaf = ca.leaf(&profile)?;
        let (cert, key, ca) = (leaf.cert.as_bytes(), leaf.key.as_bytes(), ca.pem().as_bytes());
        Ok(Credentials::from_pem(&CredentialPem { cert, key, ca, ..CredentialPem::default() })?)
    };
    numbers.map(issue).collect()
}

/// Returns the name of an agent among many.
pub fn agent_name(number: usize) -> String {
    format!("a{number}")
}

/// Loads the credentials of a peer, such as `node-edge`, from the current directory.
pub fn load(name: &str) -> anyhow::Result<Credentials> {
    let read = |file: String| fs::read(&file).with_context(|| file);
    let (cert, key, ca) =
        (read(format!("{name}.pem"))?, read(format!("{name}.key"))?, read("ca.pem".into())?);
    let pem = CredentialPem { cert: &cert, key: &key, ca: &ca, ..CredentialPem::default() };
    Ok(Credentials::from_pem(&pem)?)
}
