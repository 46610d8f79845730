//! The node's state directory, which survives a restart. Its one file holds the keys of stateless
//! resets.

use crate::{
    files::{self, Audience},
    link::ResetKeys,
    start_error::StateError,
    tls::MacKey,
};
use std::{
    fs::{self, File},
    io::{self, Read},
    path::Path,
};
use zeroize::Zeroizing;

const FILE_NAME: &str = "reset.keys";

/// Start of the file: its type and format.
const MAGIC: &[u8; 8] = b"DBRESET1";

/// Magic, keys, and the tag over both by the reset key.
const FILE_BYTES: usize = MAGIC.len() + ResetKeys::BYTES + MacKey::TAG_BYTES;

/// Returns the keys from the directory. Creates directory and keys at the first start.
pub(super) fn reset_keys(dir: &Path) -> Result<ResetKeys, StateError> {
    let path = dir.join(FILE_NAME);
    match File::open(&path) {
        Ok(file) => read(file, &path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let keys = ResetKeys::generate();
            make_dir(dir).map_err(|source| unusable(dir, "made", source))?;
            files::replace(&path, seal(&keys, &path)?, Audience::Owner)
                .map_err(|source| unusable(&path, "written", source))?;
            Ok(keys)
        }
        Err(source) => Err(unusable(&path, "read", source)),
    }
}

fn unusable(path: &Path, what: &'static str, source: io::Error) -> StateError {
    StateError::Unusable { path: path.into(), what, source }
}

/// Reads the keys from the file, after a check of its permissions and its tag.
fn read(file: File, path: &Path) -> Result<ResetKeys, StateError> {
    expect_private(&file, path)?;
    // One byte more than expected, so that a longer file is detected.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES + 1));
    file.take(FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| unusable(path, "read", source))?;
    unseal(&bytes).ok_or_else(|| StateError::Damaged { path: path.into() })
}

fn unseal(bytes: &[u8]) -> Option<ResetKeys> {
    let (sealed, tag) = bytes.split_last_chunk::<{ MacKey::TAG_BYTES }>()?;
    let mut keys = Zeroizing::new([0; ResetKeys::BYTES]);
    keys.copy_from_slice(sealed.strip_prefix(MAGIC)?.first_chunk::<{ ResetKeys::BYTES }>()?);
    let keys = ResetKeys::from_bytes(keys);
    let is_whole = bytes.len() == FILE_BYTES && keys.reset_key()?.verify(sealed, tag);
    is_whole.then_some(keys)
}

fn seal(keys: &ResetKeys, path: &Path) -> Result<Zeroizing<Vec<u8>>, StateError> {
    let no_hash = || io::Error::other("the TLS provider has no SHA-256");
    let key = keys.reset_key().ok_or_else(|| unusable(path, "written", no_hash()))?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES));
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(keys.as_bytes());
    let tag = key.sign(&bytes);
    bytes.extend_from_slice(&tag);
    Ok(bytes)
}

/// Creates the directory with mode 0700 if it is missing.
fn make_dir(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// As for keys of certificates: only the owner may write, and others may not read. Access for the
/// group only is removed if possible, because volumes often have it by their manager's `fsGroup`.
#[cfg(unix)]
fn expect_private(file: &File, path: &Path) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt;
    let metadata = file.metadata().map_err(|source| unusable(path, "read", source))?;
    let mode = metadata.permissions().mode();
    if mode & 0o026 == 0 {
        return Ok(());
    }
    let is_of_the_group_alone = mode & 0o006 == 0;
    if is_of_the_group_alone && file.set_permissions(fs::Permissions::from_mode(0o600)).is_ok() {
        let file = path.display();
        tracing::warn!(%file, "{file} was writable by its group; changed its mode to 0600");
        return Ok(());
    }
    Err(StateError::Exposed { path: path.into(), mode: mode & 0o777 })
}

#[cfg(not(unix))]
fn expect_private(_: &File, _: &Path) -> Result<(), StateError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_generated_once_and_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = dir.path().join("var/state");
        let [first, again] =
            [(); 2].map(|()| *reset_keys(&state).unwrap_or_else(|why| panic!("{why}")).as_bytes());
        let other = *reset_keys(&dir.path().join("other")).map_err(drop).expect("made").as_bytes();
        assert!(first == again && first != other);
        // No temporary file is left.
        assert_eq!(fs::read_dir(&state).expect("listed").count(), 1);
    }

    #[test]
    fn a_damaged_file_is_refused_with_the_remedy_and_not_overwritten() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE_NAME);
        assert!(reset_keys(dir.path()).is_ok());
        let good = fs::read(&path).expect("read");
        assert_eq!(good.len(), FILE_BYTES);
        let flipped =
            |at: usize| good.iter().enumerate().map(move |(n, b)| b ^ u8::from(n == at)).collect();
        let longer = good.iter().copied().chain([0]).collect();
        let shorter = good[..FILE_BYTES - 1].to_vec();
        let bad = [0, 8, 40, 72, 79, 80, FILE_BYTES - 1].map(flipped);
        for bad in bad.into_iter().chain([longer, shorter, Vec::new()]) {
            fs::write(&path, &bad).expect("written");
            let Err(error) = reset_keys(dir.path()) else { panic!("{} bytes passed", bad.len()) };
            assert!(error.to_string().contains("remove it"), "{error}");
            assert_eq!(fs::read(&path).expect("read"), bad);
        }
        fs::write(&path, &good).expect("written");
        assert!(reset_keys(dir.path()).is_ok());
    }

    #[cfg(unix)]
    #[test]
    fn the_file_is_private_and_refused_if_others_have_access() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(FILE_NAME);
        assert!(reset_keys(dir.path()).is_ok());
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for (mode, is_fit, after) in [
            (0o644, false, 0o644),
            (0o662, false, 0o662),
            (0o660, true, 0o600),
            (0o640, true, 0o640),
            (0o600, true, 0o600),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
            let read = reset_keys(dir.path()).map(drop);
            assert_eq!(read.is_ok(), is_fit, "{mode:o}");
            let now = fs::metadata(&path).expect("there").permissions().mode();
            assert_eq!(now & 0o777, after, "{mode:o}");
            if let Err(error) = read {
                assert!(error.to_string().contains("chmod 600"), "{error}");
            }
        }
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_named_in_the_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("state");
        fs::write(&path, "").expect("written");
        let Err(error) = reset_keys(&path) else { panic!("a file passed for a directory") };
        assert!(error.to_string().contains("state"), "{error}");
    }
}
