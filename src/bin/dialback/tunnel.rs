//! The tunnels of `dialback node`: their settings, and the certificate that can change meanwhile.

use crate::exit::Failure;
use dialback::{ServerCertificate, TUNNEL_PATH, TunnelListen, config::TunnelFile};
use std::{net::SocketAddr, path::PathBuf};

pub(crate) struct TunnelSettings {
    config: TunnelFile,
    pub(crate) certificate: Option<ServerCertificate>,
}

impl TunnelSettings {
    /// Reads what merged settings name.
    pub(crate) fn read(config: Option<TunnelFile>) -> Result<Option<Self>, Failure> {
        let Some(config) = config else { return Ok(None) };
        let certificate = match &config.certificate {
            Some([cert, key]) => Some(ServerCertificate::from_files(cert, key)?),
            None => None,
        };
        Ok(Some(Self { config, certificate }))
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        self.config.certificate.iter().flatten().cloned().collect()
    }

    /// The address of the listener of its own, if there is one.
    pub(crate) const fn listen(&self) -> Option<SocketAddr> {
        self.config.listen
    }

    fn path(&self) -> &str {
        self.config.path.as_deref().unwrap_or(TUNNEL_PATH)
    }

    /// The path at which the gateway accepts tunnels, if it does.
    pub(crate) fn path_on_gateway(&self) -> Option<&str> {
        self.config.on_gateway.then(|| self.path())
    }

    /// The listener of its own, if there is one.
    pub(crate) fn listener(&self) -> Option<TunnelListen> {
        let mut listener = TunnelListen::at(self.config.listen?).path(self.path());
        if let Some(certificate) = &self.certificate {
            listener = listener.certificate(certificate.clone());
        }
        if self.config.tls == Some(false) {
            listener = listener.plain();
        }
        Some(self.config.trusted_proxy.iter().copied().fold(listener, TunnelListen::trusted_proxy))
    }
}

/// The settings of the flag and the file; `None` without tunnels.
pub(crate) fn merge(
    listen: Option<SocketAddr>,
    file: Option<TunnelFile>,
    has_gateway: bool,
) -> Result<Option<TunnelFile>, Failure> {
    let mut config = match (file, listen) {
        (Some(config), _) => config,
        (None, Some(_)) => TunnelFile::default(),
        (None, None) => return Ok(None),
    };
    config.listen = listen.or(config.listen);
    let usage = |text: &str| Err(Failure::Local(vec![text.into()]));
    if config.on_gateway && !has_gateway {
        return usage(
            "[tunnel] on_gateway needs the HTTP gateway; add [gateway] to the config file, or --gateway IP:PORT",
        );
    }
    if config.listen.is_none() && !config.on_gateway {
        return usage(
            "[tunnel] has no address; set listen, as listen = \"[::]:443\", or on_gateway = true",
        );
    }
    Ok(Some(config))
}

/// Returns `true` if other settings than the certificate have changed, which takes a restart.
pub(crate) fn needs_restart(next: Option<&TunnelSettings>, now: Option<&TunnelSettings>) -> bool {
    let fixed = |settings: &TunnelSettings| {
        let mut config = settings.config.clone();
        config.certificate = None;
        config
    };
    next.map(fixed) != now.map(fixed)
}
