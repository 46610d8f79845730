//! The HTTP gateway of `dialback node`: its settings, and those that can change while it runs.

use crate::{exit::Failure, node::NodeFlags};
use dialback::{
    Gateway, GatewayBuilder, GatewayError, Node, ServerCertificate, Site, TokenVerifier,
    config::{GatewayFile, GatewayTls, SiteFile, SiteForward},
    tokens::Tokens,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

pub(crate) struct GatewaySettings {
    listen: SocketAddr,
    config: GatewayFile,
    tokens: Option<TokenVerifier>,
    certificate: Option<ServerCertificate>,
    sites: Vec<(SiteFile, Site)>,
}

impl GatewaySettings {
    /// Reads what merged settings name.
    pub(crate) fn read(
        config: Option<GatewayFile>,
        sites: Vec<SiteFile>,
    ) -> Result<Option<Self>, Failure> {
        let Some(config) = config else { return Ok(None) };
        let tokens = config.tokens.as_ref().map(|path| read_tokens(path)).transpose()?;
        let certificate = match &config.tls {
            Some(GatewayTls { certificate: Some([cert, key]) }) => {
                Some(ServerCertificate::from_files(cert, key)?)
            }
            _ => None,
        };
        let listen = config.listen.unwrap_or(LISTEN_DEFAULT);
        let sites = read_sites(sites, config.tls.is_some())?;
        Ok(Some(Self { listen, config, tokens, certificate, sites }))
    }

    pub(crate) const fn listen(&self) -> SocketAddr {
        self.listen
    }

    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let certificate =
            self.config.tls.iter().filter_map(|tls| tls.certificate.clone()).flatten();
        let of_sites = self.sites.iter().filter_map(|(site, _)| site.certificate.clone()).flatten();
        self.config.tokens.iter().cloned().chain(certificate).chain(of_sites).collect()
    }
}

/// The settings of flags, file and defaults; `None` without a gateway.
pub(crate) fn merge(
    args: &NodeFlags,
    file: Option<GatewayFile>,
    has_sites: bool,
) -> Result<Option<GatewayFile>, Failure> {
    let required = |by: &str| {
        let text = format!(
            "{by} requires the HTTP gateway; set its address with --gateway IP:PORT, or in [gateway] of the config file"
        );
        Err(Failure::Local(vec![text]))
    };
    let mut config = match (file, args.gateway) {
        (Some(config), _) => config,
        (None, Some(_)) => GatewayFile::default(),
        (None, None) if args.tokens.is_some() => return required("--tokens"),
        (None, None) if has_sites => return required("[[site]]"),
        (None, None) => return Ok(None),
    };
    config.tokens = args.tokens.clone().or(config.tokens);
    config.listen = Some(args.gateway.or(config.listen).unwrap_or(LISTEN_DEFAULT));
    Ok(Some(config))
}

fn read_sites(files: Vec<SiteFile>, has_tls: bool) -> Result<Vec<(SiteFile, Site)>, Failure> {
    let read = |file: SiteFile| {
        let (name, is_mcp) = match &file.forward {
            SiteForward::Http(name) => (name.clone(), false),
            SiteForward::Mcp(name) => (name.clone(), true),
            other => return Err(Failure::usage(format!("{other} cannot have a site"))),
        };
        let mut site = match &file.agent {
            Some(agent) => Site::new(file.host.clone(), agent.clone(), name),
            None => Site::of_any_agent(file.host.clone(), name),
        };
        if is_mcp {
            site = site.mcp();
        }
        if let Some(caller) = &file.public {
            site = site.public(caller.clone());
        }
        match &file.certificate {
            Some(_) if !has_tls => {
                let text = format!(
                    "the certificate of the site {} is for a gateway with TLS; set tls = true or [gateway.tls]",
                    file.host
                );
                return Err(Failure::Local(vec![text]));
            }
            Some([cert, key]) => {
                site = site.certificate(ServerCertificate::from_files(cert, key)?);
            }
            None => {}
        }
        Ok((file, site))
    };
    files.into_iter().map(read).collect()
}

fn read_tokens(path: &PathBuf) -> Result<TokenVerifier, Failure> {
    let tokens = Tokens::read(path)?;
    Ok(Arc::new(move |token, now| match tokens.caller(token, now) {
        Ok(caller) => Ok(caller.clone()),
        Err(refusal) => Err(refusal.to_string()),
    }))
}

pub(crate) async fn open(
    node: &Node,
    settings: Option<&GatewaySettings>,
    tunnel_path: Option<&str>,
) -> Result<Option<Gateway>, GatewayError> {
    let Some(settings) = settings else { return Ok(None) };
    let GatewaySettings { listen, config, tokens, certificate, sites } = settings;
    let mut builder = Gateway::builder(node).listen(listen).shared_tokens(tokens.clone());
    if let Some(name) = &config.anonymous {
        builder = builder.anonymous(name.clone());
    }
    builder = config.trusted_proxy.iter().copied().fold(builder, GatewayBuilder::trusted_proxy);
    builder = config.cors_origins.iter().fold(builder, GatewayBuilder::cors_origin);
    builder = match (certificate, &config.tls) {
        (Some(certificate), _) => builder.certificate(certificate.clone()),
        (None, Some(_)) => builder.tls(),
        (None, None) => builder,
    };
    builder = sites.iter().map(|(_, site)| site.clone()).fold(builder, GatewayBuilder::site);
    if let Some(path) = tunnel_path {
        builder = builder.tunnel(path);
    }
    builder.start().await.map(Some)
}

/// Applies settings to a running gateway. A removed gateway keeps running until a restart.
pub(crate) fn apply(gateway: Option<&Gateway>, next: Option<GatewaySettings>) {
    if let (Some(gateway), Some(next)) = (gateway, next) {
        gateway.set_tokens(next.tokens);
        gateway.set_certificate(next.certificate);
        gateway.set_sites(next.sites.into_iter().map(|(_, site)| site).collect());
        tracing::info!("HTTP gateway: tokens, certificates and sites reloaded");
    }
}

/// Returns `true` if other settings have changed, which takes a restart.
pub(crate) fn needs_restart(next: Option<&GatewaySettings>, now: Option<&GatewaySettings>) -> bool {
    let fixed = |settings: &GatewaySettings| {
        let mut config = settings.config.clone();
        (config.tokens, config.listen) = (None, Some(settings.listen));
        if let Some(tls) = &mut config.tls {
            tls.certificate = None;
        }
        config
    };
    next.map(fixed) != now.map(fixed)
}
