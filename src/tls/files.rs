//! The files of credentials: their paths, and the checks before they are parsed.

use super::{certificate_info::CertificateInfo, error::CredentialsError};
use crate::name::{Name, Role};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    str::FromStr,
};
use zeroize::Zeroizing;

/// No certificate file is larger; revocation lists of a million entries fit.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

const HOW_TO_MAKE: &str = "make certificates with `dialback certs init` and `dialback certs issue ROLE NAME`; \
                           a relative path starts in the directory where the command is started";

/// Files of the credentials of one peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFiles {
    /// The leaf, then intermediates if there are any. PEM.
    pub cert: PathBuf,
    /// The leaf's private key. PEM; others may not read it.
    pub key: PathBuf,
    /// The CAs to trust. PEM.
    pub ca: PathBuf,
    /// The CAs to trust about nodes; `ca` is then trusted about agents and callers only. PEM.
    pub node_ca: Option<PathBuf>,
    /// The revocation lists to check; a named file must exist. `None`: nothing is revoked. PEM.
    pub crl: Option<PathBuf>,
    /// Certificates of a chain that are looked up in the lists.
    pub crl_scope: CrlScope,
}

/// Certificates of a chain that are looked up in the revocation lists.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CrlScope {
    /// The peer's own certificate. A list of its CA must be there.
    #[default]
    Leaf,
    /// The intermediates too. A list of each CA of the chain must be there, of the root as well.
    Chain,
}

impl CrlScope {
    /// The word in files and flags.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Leaf => "leaf",
            Self::Chain => "chain",
        }
    }
}

impl FromStr for CrlScope {
    type Err = CrlScopeError;

    fn from_str(text: &str) -> Result<Self, CrlScopeError> {
        match text {
            "leaf" => Ok(Self::Leaf),
            "chain" => Ok(Self::Chain),
            _ => Err(CrlScopeError),
        }
    }
}

/// A text that is neither `leaf` nor `chain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be leaf (the peer's own certificate is looked up) or chain (intermediates too)")]
pub struct CrlScopeError;

impl CredentialFiles {
    /// The files of one peer in a directory as `dialback certs` lays it out.
    ///
    /// The revocation list is named if it exists or if the CA was made with one, so that loading
    /// refuses a lost list. To go without one, set `crl` to `None`.
    pub fn in_dir(dir: impl AsRef<Path>, stem: &str) -> Self {
        let dir = dir.as_ref();
        let crl = dir.join("crl.pem");
        let mut files = Self {
            cert: dir.join(format!("{stem}.pem")),
            key: dir.join(format!("{stem}.key")),
            ca: dir.join("ca.pem"),
            node_ca: None,
            crl: crl.symlink_metadata().is_ok().then_some(crl),
            crl_scope: CrlScope::Leaf,
        };
        if files.crl.is_none() {
            files.crl = files.missing_list();
        }
        files
    }

    /// The revocation list that belongs to a CA of these files and is missing.
    ///
    /// A list belongs to a `ca.pem` that `dialback certs` made, which always makes a list with it,
    /// and to one whose directory has the number of a list. See decision 0028.
    pub fn missing_list(&self) -> Option<PathBuf> {
        let cas = [Some(&self.ca), self.node_ca.as_ref()];
        cas.into_iter().flatten().find_map(|ca| missing_list_of(ca))
    }

    pub(super) fn find_in_dir(dir: &Path, role: Role) -> Result<Self, CredentialsError> {
        let stems = stems_of(dir, role)?;
        match stems.as_slice() {
            [] => Err(CredentialsError::NoneInDir { dir: dir.into(), role, remedy: HOW_TO_MAKE }),
            [only] => Ok(Self::in_dir(dir, only)),
            several => Err(CredentialsError::SeveralInDir {
                dir: dir.into(),
                role,
                found: several.join(", "),
            }),
        }
    }
}

/// Path of a requested key until its certificate arrives: `.agent-warehouse.key.requested`.
pub(crate) fn requested_key(key: &Path) -> PathBuf {
    let name = key.file_name().unwrap_or_default().to_string_lossy();
    key.with_file_name(format!(".{name}.requested"))
}

fn missing_list_of(ca: &Path) -> Option<PathBuf> {
    let list = ca.with_file_name("crl.pem");
    if ca.file_name()? != "ca.pem" || list.symlink_metadata().is_ok() {
        return None;
    }
    let had_one = || ca.with_file_name("crl.number").exists();
    // A CA that cannot be read is reported when the files are loaded.
    let cas = CertificateInfo::all_from_pem(&read(ca).ok()?).ok()?;
    (cas.iter().any(CertificateInfo::is_ca_with_list) || had_one()).then_some(list)
}

fn stems_of(dir: &Path, role: Role) -> Result<Vec<String>, CredentialsError> {
    let mut stems = vec![];
    for entry in fs::read_dir(dir).map_err(|error| unreadable(dir, error))? {
        let entry = entry.map_err(|error| unreadable(dir, error))?;
        stems.extend(stem_of(&entry.file_name().to_string_lossy(), role));
    }
    stems.sort();
    Ok(stems)
}

/// `agent-warehouse` of `agent-warehouse.pem`, if that is a leaf of the role.
fn stem_of(file_name: &str, role: Role) -> Option<String> {
    let stem = file_name.strip_suffix(".pem")?;
    let name = stem.strip_prefix(role.as_str())?.strip_prefix('-')?;
    name.parse::<Name>().ok().map(|_| stem.to_owned())
}

/// Credentials of one peer as PEM texts in memory. Optional fields: `..CredentialPem::default()`.
#[derive(Clone, Copy, Default)]
pub struct CredentialPem<'a> {
    /// The leaf, then intermediates if there are any.
    pub cert: &'a [u8],
    /// The leaf's private key.
    pub key: &'a [u8],
    /// The CAs to trust.
    pub ca: &'a [u8],
    /// The CAs to trust about nodes; `ca` is then trusted about agents and callers only.
    pub node_ca: Option<&'a [u8]>,
    /// The revocation lists to check.
    pub crl: Option<&'a [u8]>,
    /// Certificates of a chain that are looked up in the lists.
    pub crl_scope: CrlScope,
}

impl std::fmt::Debug for CredentialPem<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cert: _, key: _, ca: _, node_ca: _, crl: _, crl_scope: _ } = self;
        f.write_str("CredentialPem")
    }
}

pub(super) fn read_lists(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    match read(path) {
        Err(CredentialsError::Missing { path, .. }) => Err(CredentialsError::MissingList { path }),
        other => other,
    }
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, CredentialsError> {
    open_regular(path).and_then(read_open).map_err(|error| unreadable(path, error))
}

/// Opens a regular file: a pipe would keep its reader waiting, and can be read only once.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    let kind = fs::metadata(path)?.file_type();
    if kind.is_file() {
        return File::open(path);
    }
    let is_dir = "it is a directory, and a file is wanted";
    Err(io::Error::other(if kind.is_dir() { is_dir } else { "it is no regular file" }))
}

/// Reads a key file after a check of its permissions, by one handle so that it cannot be replaced.
pub(super) fn read_key(path: &Path) -> Result<Zeroizing<Vec<u8>>, CredentialsError> {
    let unreadable = |error| unreadable(path, error);
    let file = open_regular(path).map_err(unreadable)?;
    if let Some(mode) = exposed_mode(&file).map_err(unreadable)? {
        return Err(CredentialsError::ExposedKey { path: path.into(), mode });
    }
    read_open(file).map(Zeroizing::new).map_err(unreadable)
}

fn read_open(file: File) -> io::Result<Vec<u8>> {
    // Room for the whole at once, so that no half copies of a key stay behind in memory.
    let len = file.metadata().map_or(0, |metadata| metadata.len()).min(FILE_BYTES_MAX);
    let mut bytes = Vec::with_capacity(usize::try_from(len).unwrap_or(0) + 1);
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The mode of a file with a secret, if it exposes the secret to other users. Mounted secrets are
/// 0640 or 0440; anything that lets others in, or lets the group write, is refused.
#[cfg(unix)]
pub(crate) fn exposed_mode(file: &File) -> io::Result<Option<u32>> {
    use std::os::unix::fs::PermissionsExt;
    let mode = file.metadata()?.permissions().mode();
    Ok((mode & 0o026 != 0).then_some(mode & 0o777))
}

#[cfg(not(unix))]
pub(crate) fn exposed_mode(_: &File) -> io::Result<Option<u32>> {
    Ok(None)
}

fn unreadable(path: &Path, source: io::Error) -> CredentialsError {
    if source.kind() == io::ErrorKind::NotFound {
        return CredentialsError::Missing { path: path.into(), remedy: HOW_TO_MAKE };
    }
    CredentialsError::Unreadable { path: path.into(), source }
}

/// Names of the parts in errors: the file, or a description.
pub(super) struct SourceNames {
    pub(super) cert: String,
    pub(super) key: String,
    pub(super) ca: String,
    pub(super) node_ca: String,
    pub(super) crl: String,
}

impl SourceNames {
    pub(super) fn of(at: &CredentialFiles) -> Self {
        let name = |path: &PathBuf| path.display().to_string();
        Self {
            cert: name(&at.cert),
            key: name(&at.key),
            ca: name(&at.ca),
            node_ca: at.node_ca.as_ref().map(name).unwrap_or_default(),
            crl: at.crl.as_ref().map(name).unwrap_or_default(),
        }
    }

    pub(super) fn in_memory() -> Self {
        Self {
            cert: "the certificate text".into(),
            key: "the key text".into(),
            ca: "the CA text".into(),
            node_ca: "the text of the nodes' CA".into(),
            crl: "the revocation list text".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leafs_of_a_role_are_known_by_their_file_names() {
        assert_eq!(stem_of("agent-warehouse.pem", Role::Agent).as_deref(), Some("agent-warehouse"));
        for other in
            ["node-edge-1.pem", "agent-warehouse.key", "agent-.pem", "agent.pem", ".agent-a.pem"]
        {
            assert_eq!(stem_of(other, Role::Agent), None, "{other}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_can_read_or_the_group_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.key");
        fs::write(&path, "key").expect("written");
        let with_mode = |mode| {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            read_key(&path)
        };
        for fit in [0o600, 0o640, 0o700, 0o400, 0o440] {
            // Root opens what its mode would close, so 0400 is checked like the others.
            assert!(with_mode(fit).is_ok(), "{fit:o} was refused");
        }
        for unfit in [0o644, 0o660, 0o604, 0o602, 0o620, 0o666, 0o777] {
            let error = with_mode(unfit).expect_err("refused").to_string();
            assert!(error.contains("chmod 600"), "{error}");
        }
    }
}
