//! Files of the credentials: from flags, environment, config file, or the directory `certs`.

use crate::{args::TlsArgs, exit::Failure};
use dialback::{
    CredentialFiles, Credentials, CredentialsError, Role, Utc,
    certs::{Mended, mend_pair},
    config::TlsFiles,
};
use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

const DIR_DEFAULT: &str = "certs";

/// Warning about credentials without a revocation list.
pub(crate) const NO_LIST: &str = "no revocation list: revoked certificates are accepted; create one with `dialback certs crl` and set --crl, or `crl` under [tls]";

/// Finds and loads the credentials of a role. `file` holds the paths of the config file.
pub(crate) fn load(role: Role, flags: TlsArgs, file: TlsFiles) -> Result<Credentials, Failure> {
    load_from(role, &locate(role, flags.into(), file)?)
}

pub(crate) fn load_from(role: Role, files: &CredentialFiles) -> Result<Credentials, Failure> {
    mend(files);
    Ok(read(role, files)?)
}

/// Reads credentials of a role, and leaves their files as they are.
pub(crate) fn read(role: Role, files: &CredentialFiles) -> Result<Credentials, CredentialsError> {
    let credentials = Credentials::from_files(files)?;
    credentials.expect_role(role)?;
    Ok(credentials)
}

/// Completes an interrupted replacement. If it fails, reading the files reports the error.
fn mend(files: &CredentialFiles) {
    let key = files.key.display();
    match mend_pair(&files.cert, &files.key) {
        Ok(Mended::Request) => {
            tracing::info!(file = %key, "certificate for the requested key found: the key has replaced {key}")
        }
        Ok(Mended::Replacement) => {
            tracing::warn!(file = %key, "completed an interrupted replacement of certificate and key")
        }
        Ok(_) => {}
        Err(error) => {
            let error = Failure::local(&error).lines().join("; ");
            tracing::warn!(file = %key, reason = error, "cannot replace {key} with the requested key: {error}");
        }
    }
}

/// Paths to watch.
pub(crate) fn paths(files: &CredentialFiles) -> Vec<PathBuf> {
    let CredentialFiles { cert, key, ca, node_ca, crl, crl_scope: _ } = files.clone();
    [Some(cert), Some(key), Some(ca), node_ca, crl].into_iter().flatten().collect()
}

/// Locates the credential files of a long-running command. Keeps the files found at its start: a
/// revocation list that disappears is an error, a second certificate is not.
pub(crate) struct Locator {
    role: Role,
    /// Files found, and the config file's paths they were found for.
    found: Mutex<Option<(TlsFiles, CredentialFiles)>>,
}

impl Locator {
    pub(crate) fn new(role: Role) -> Self {
        Self { role, found: Mutex::default() }
    }

    /// Searches at the first call, when the config file's paths change, and while there is no list.
    pub(crate) fn locate(
        &self,
        flags: TlsFiles,
        file: TlsFiles,
    ) -> Result<CredentialFiles, Failure> {
        let mut known = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, found)) = &*known
            && *of == file
            && found.crl.is_some()
        {
            return Ok(found.clone());
        }
        let found = locate(self.role, flags, file.clone())?;
        *known = Some((file, found.clone()));
        Ok(found)
    }
}

pub(crate) fn locate(
    role: Role,
    flags: TlsFiles,
    file: TlsFiles,
) -> Result<CredentialFiles, Failure> {
    // A certificate named by a flag comes with its own key, not the one of the config file.
    let files = complete(with_key(flags).or(file));
    let (is_named, is_without_list) = (files.crl.is_some(), files.is_without_list());
    let mut found = match files.complete()? {
        Some(found) => found,
        None => {
            let found = Credentials::find_in_dir(DIR_DEFAULT, role)?;
            let crl_scope = files.crl_scope.unwrap_or_default();
            let crl = files.crl.or(found.crl).filter(|_| !is_without_list);
            CredentialFiles { node_ca: files.node_ca, crl, crl_scope, ..found }
        }
    };
    let has_list =
        found.crl.as_deref().is_some_and(|list| list.symlink_metadata().is_ok() || is_named);
    if files.crl_scope.is_some() && !has_list {
        return Err(Failure::usage(
            "crl_scope is set, but no revocation list; set --crl, or crl under [tls]",
        ));
    }
    if found.crl.is_none() && !is_without_list {
        // Set although it is missing: reading it reports the error.
        found.crl = found.missing_list();
    }
    Ok(found)
}

/// The settings that name located files.
pub(crate) fn named(located: CredentialFiles, is_without_list: bool) -> TlsFiles {
    let CredentialFiles { cert, key, ca, node_ca, crl, crl_scope } = located;
    let crl = if is_without_list { Some(TlsFiles::NO_LIST.into()) } else { crl };
    let [cert, key, ca] = [cert, key, ca].map(Some);
    TlsFiles { cert, key, ca, node_ca, crl, crl_scope: Some(crl_scope) }
}

fn with_key(mut files: TlsFiles) -> TlsFiles {
    let sibling_key = files.cert.as_ref().map(|cert| cert.with_extension("key"));
    files.key = files.key.or(sibling_key);
    files
}

/// Fills in missing paths from the certificate's directory. A configured CA needs its own list.
fn complete(files: TlsFiles) -> TlsFiles {
    let mut files = with_key(files);
    let Some(cert) = files.cert.clone().filter(|_| files.ca.is_none()) else { return files };
    // For a missing certificate, that is the error to report, not the CA missing next to it.
    files.ca = sibling(&cert, "ca.pem").or_else(|| (!cert.exists()).then(|| cert.clone()));
    files.crl = files.crl.or_else(|| sibling(&cert, "crl.pem"));
    files
}

fn sibling(cert: &Path, name: &str) -> Option<PathBuf> {
    let path = cert.with_file_name(name);
    path.symlink_metadata().is_ok().then_some(path)
}

/// Logs the certificate in use and its expiry, and the expiry of the revocation list.
pub(crate) fn announce(credentials: &Credentials) {
    let identity = credentials.identity();
    let (peer, domain) = (identity.peer_name(), identity.trust_domain());
    let ends = &credentials.validity().ends;
    let expires = Utc(ends.at());
    tracing::info!(%peer, %expires, "certificate {peer} of {domain}, expires {ends}");
    match credentials.crl_next_update() {
        Some(until) if until < SystemTime::now() => tracing::warn!(
            expires = %Utc(until),
            "revocation list expired at {}: every new link is refused; sign a new list with `dialback certs crl`",
            Utc(until)
        ),
        Some(until) => {
            tracing::info!(expires = %Utc(until), "revocation list expires {}", Utc(until));
        }
        None => tracing::warn!("{NO_LIST}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn files(cert: &Path) -> TlsFiles {
        TlsFiles { cert: Some(cert.into()), ..TlsFiles::default() }
    }

    #[test]
    fn certificate_path_alone_selects_the_files_in_its_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let cert = at("agent-acme.w.pem");
        let missing = locate(Role::Agent, files(&cert), TlsFiles::default()).expect("located");
        assert_eq!(missing.cert, cert, "a certificate that is missing is told of when it is read");
        fs::write(&cert, "").expect("written");
        let alone = locate(Role::Agent, files(&cert), TlsFiles::default());
        assert!(matches!(alone, Err(Failure::Local(_))), "no CA is there: {alone:?}");
        fs::write(at("ca.pem"), "").expect("written");
        let found = locate(Role::Agent, files(&cert), TlsFiles::default()).expect("found");
        assert_eq!((found.key, found.ca), (at("agent-acme.w.key"), at("ca.pem")));
        assert_eq!(found.crl, None);
        fs::write(at("crl.pem"), "").expect("written");
        let found = locate(Role::Agent, files(&cert), TlsFiles::default()).expect("found");
        assert_eq!(found.crl, Some(at("crl.pem")));
        let other_ca = TlsFiles { ca: Some("other.pem".into()), ..files(&cert) };
        let found = locate(Role::Agent, other_ca, TlsFiles::default()).expect("found");
        assert_eq!((found.ca, found.crl), ("other.pem".into(), None));
    }

    #[test]
    fn a_flag_goes_before_the_file_and_its_certificate_brings_its_key() {
        let file = TlsFiles {
            cert: Some("f.pem".into()),
            key: Some("f.key".into()),
            ca: Some("f-ca.pem".into()),
            ..TlsFiles::default()
        };
        let found = locate(Role::Node, files(Path::new("a/b.pem")), file.clone()).expect("found");
        assert_eq!(found.cert, PathBuf::from("a/b.pem"));
        assert_eq!(found.key, PathBuf::from("a/b.key"));
        assert_eq!(found.ca, PathBuf::from("f-ca.pem"));
        let found = locate(Role::Node, TlsFiles::default(), file).expect("found");
        assert_eq!(found.key, PathBuf::from("f.key"));
    }

    #[test]
    fn a_key_without_its_certificate_is_refused() {
        let flags = TlsFiles { key: Some("a.key".into()), ..TlsFiles::default() };
        assert!(matches!(locate(Role::Node, flags, TlsFiles::default()), Err(Failure::Local(_))));
    }
}
