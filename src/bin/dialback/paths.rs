//! The paths of links, as flags, files and the environment name them.

use crate::exit::Failure;
use clap::{ArgAction, Args, builder::BoolishValueParser};
use dialback::{HttpProxy, PathChoice, PathSettings, TunnelUrl, config::PathsFile};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Flags of a command that dials nodes.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Paths to the node")]
pub(crate) struct PathArgs {
    #[command(flatten)]
    pub(crate) tunnels: TunnelArgs,
    /// URL of the node's tunnel [default: wss://HOST/dialback/tunnel, at the node's host]
    #[arg(long, value_name = "URL")]
    pub(crate) tunnel_url: Option<TunnelUrl>,
}

/// Flags of a command that asks an enroller.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Paths to the enroller")]
pub(crate) struct EnrollerPathArgs {
    #[command(flatten)]
    pub(crate) tunnels: TunnelArgs,
    /// URL of the enroller's tunnel [default: wss://HOST/dialback/tunnel, at the enroller's host]
    #[arg(long, value_name = "URL")]
    pub(crate) enroll_tunnel_url: Option<TunnelUrl>,
}

/// Flags of all commands that open tunnels.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct TunnelArgs {
    /// Path to take: udp, tunnel (a WebSocket over TLS), or auto: UDP, and a tunnel where UDP does
    /// not get through [default: auto]
    #[arg(long, value_name = "PATH")]
    pub(crate) path: Option<PathChoice>,
    /// HTTP proxy for tunnels, as http://USER@HOST:PORT [default: HTTPS_PROXY, except for NO_PROXY]
    // Parsed later: an error of clap shows the value, which may have a password.
    #[arg(long, value_name = "URL")]
    pub(crate) proxy: Option<String>,
    /// File with the password of the proxy
    #[arg(long, value_name = "FILE")]
    pub(crate) proxy_password_file: Option<PathBuf>,
    /// Verify the certificate of the tunnel too; the link inside is verified in any case
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) tunnel_verify: bool,
    /// CA certificates to trust for the tunnel, beside the system's; only with --tunnel-verify
    #[arg(long, value_name = "FILE")]
    pub(crate) tunnel_ca: Option<PathBuf>,
}

impl PathArgs {
    /// Returns the settings of the flags.
    pub(crate) fn read(&self) -> Result<PathsFile, Failure> {
        let Self { tunnel_url, tunnels } = self.clone();
        Ok(PathsFile { tunnel_url, ..tunnels.read()? })
    }
}

impl EnrollerPathArgs {
    /// Returns the settings of the flags.
    pub(crate) fn read(&self) -> Result<PathsFile, Failure> {
        let Self { enroll_tunnel_url, tunnels } = self.clone();
        Ok(PathsFile { enroll_tunnel_url, ..tunnels.read()? })
    }
}

impl TunnelArgs {
    fn read(self) -> Result<PathsFile, Failure> {
        let Self { path, proxy, proxy_password_file, tunnel_verify, tunnel_ca } = self;
        let proxy = proxy.map(|proxy| proxy.parse::<HttpProxy>()).transpose();
        Ok(PathsFile {
            path,
            proxy: proxy.map_err(|error| Failure::usage(format!("--proxy: {error}")))?,
            proxy_password_file,
            verify: tunnel_verify.then_some(true),
            ca: tunnel_ca,
            ..PathsFile::default()
        })
    }
}

/// Makes the settings of the merged sources. Reads the password, the CAs and the environment.
pub(crate) fn settings(paths: &PathsFile) -> Result<PathSettings, Failure> {
    let PathsFile { path, tunnel_url, tunnel_urls, .. } = paths;
    let mut settings = PathSettings::default().choice(path.unwrap_or_default());
    if let Some(url) = tunnel_url {
        settings = settings.tunnel_url(url.clone());
    }
    for (node, url) in tunnel_urls {
        settings = settings.tunnel_url_of(node.clone(), url.clone());
    }
    match (&paths.proxy, &paths.proxy_password_file) {
        (Some(proxy), Some(file)) => {
            settings = settings.proxy(proxy.clone().with_password_file(file)?, "");
        }
        (Some(proxy), None) => settings = settings.proxy(proxy.clone(), ""),
        (None, Some(_)) => {
            let text = "--proxy-password-file needs --proxy http://USER@HOST:PORT beside it";
            return Err(Failure::usage(text));
        }
        (None, None) => {
            if let Some(proxy) = proxy_of_environment(paths) {
                settings = settings.proxy(proxy, variable("NO_PROXY").unwrap_or_default());
            }
        }
    }
    if paths.verify == Some(true) {
        let ca = paths.ca.as_ref().map(|path| read(path, "the CAs of tunnels")).transpose()?;
        let verified = settings.verify(ca.as_deref().map(str::as_bytes));
        settings = verified.map_err(|fault| {
            let file = paths.ca.as_ref().map(|path| format!("{}: ", path.display()));
            Failure::usage(format!("{}{fault}", file.unwrap_or_default()))
        })?;
    } else if paths.ca.is_some() {
        return Err(Failure::usage("--tunnel-ca needs --tunnel-verify beside it"));
    }
    Ok(settings)
}

/// As [`settings`], of the paths to an enroller.
pub(crate) fn to_enroller(paths: &PathsFile) -> Result<PathSettings, Failure> {
    Ok(settings(paths)?.of_enroller(paths.enroll_tunnel_url.clone()))
}

fn read(path: &Path, what: &str) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        Failure::usage(format!("{what}: {} cannot be read: {error}", path.display()))
    })
}

/// The value of a variable that tools write in lower case or upper case.
fn variable(name: &str) -> Option<String> {
    let value = env::var(name.to_ascii_lowercase()).or_else(|_| env::var(name)).ok();
    value.filter(|value| !value.is_empty())
}

/// The proxy of `HTTPS_PROXY`, if tunnels may be opened and the settings name no proxy. Without a
/// scheme it is an HTTP proxy, as other tools take it. One of another kind is ignored: it may be
/// meant for other programs.
pub(crate) fn proxy_of_environment(paths: &PathsFile) -> Option<HttpProxy> {
    if paths.proxy.is_some() || paths.path == Some(PathChoice::Udp) {
        return None;
    }
    let value = variable("HTTPS_PROXY")?;
    let url = if value.contains("://") { value } else { format!("http://{value}") };
    let parsed = url.parse();
    parsed
        .inspect_err(|error| {
            tracing::info!(reason = %error, "HTTPS_PROXY in the environment is ignored: {error}");
        })
        .ok()
}
