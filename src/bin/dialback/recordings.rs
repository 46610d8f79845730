//! `--log-tls-keys` and `--qlog`: records of links for a diagnosis.

use crate::{args::Cli, exit::Failure};
use std::path::Path;

/// The variable that browsers and curl read too.
const KEY_FILE: &str = "SSLKEYLOGFILE";

/// Starts what the flags ask for, before anything is dialled.
pub(crate) fn start(cli: &Cli) -> Result<(), Failure> {
    if cli.log_tls_keys {
        log_tls_keys()?;
    }
    cli.qlog.as_deref().map_or(Ok(()), write_qlog)
}

#[cfg(feature = "qlog")]
fn write_qlog(directory: &Path) -> Result<(), Failure> {
    dialback::write_qlog(directory).map_err(|error| {
        Failure::usage(format!("cannot write qlog files to {}: {error}", directory.display()))
    })
}

#[cfg(not(feature = "qlog"))]
fn write_qlog(_: &Path) -> Result<(), Failure> {
    Err(Failure::usage(
        "--qlog needs a build with the feature `qlog`: cargo install --locked --features cli,qlog --path .",
    ))
}

/// The variable alone does nothing: it may have been set for another program.
fn log_tls_keys() -> Result<(), Failure> {
    let Some(path) = std::env::var_os(KEY_FILE).filter(|path| !path.is_empty()) else {
        return Err(Failure::usage(format!(
            "--log-tls-keys needs the name of a file in the environment variable {KEY_FILE}"
        )));
    };
    let path = Path::new(&path);
    dialback::log_tls_keys(path).map_err(|error| {
        Failure::usage(format!("cannot log TLS keys to {}: {error}", path.display()))
    })
}
