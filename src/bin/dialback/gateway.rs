//! The HTTP door of `dialback node`: what flags and file say of it, and what of that can change
//! while it runs.

use crate::{exit::Failure, node::NodeArgs};
use dialback::{
    Gateway, GatewayError, Node, ServerCertificate, TokenJudge,
    config::{GatewayFile, GatewayTls},
    tokens::Tokens,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// What the door is to be, once flags and file have spoken and the files that they name were read.
pub(crate) struct GatewaySettings {
    listen: SocketAddr,
    said: GatewayFile,
    tokens: Option<TokenJudge>,
    certificate: Option<ServerCertificate>,
}

impl GatewaySettings {
    /// Reads them, if there is to be a door.
    pub(crate) fn read(
        args: &NodeArgs,
        file: Option<GatewayFile>,
    ) -> Result<Option<Self>, Failure> {
        let mut said = match (file, args.gateway) {
            (Some(said), _) => said,
            (None, Some(_)) => GatewayFile::default(),
            (None, None) if args.tokens.is_some() => {
                let text = "--tokens is for the HTTP door; name where that listens with --gateway IP:PORT, or in [gateway] of the config file";
                return Err(Failure::Local(vec![text.into()]));
            }
            (None, None) => return Ok(None),
        };
        said.tokens = args.tokens.clone().or(said.tokens);
        let listen = args.gateway.or(said.listen);
        let tokens = said.tokens.as_ref().map(|path| judge(path)).transpose()?;
        let certificate = match &said.tls {
            Some(GatewayTls { certificate: Some([cert, key]) }) => {
                Some(ServerCertificate::from_files(cert, key)?)
            }
            _ => None,
        };
        let listen = listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 8080).into());
        Ok(Some(Self { listen, said, tokens, certificate }))
    }

    /// The files that it goes by.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let certificate = self.said.tls.iter().filter_map(|tls| tls.certificate.clone()).flatten();
        self.said.tokens.iter().cloned().chain(certificate).collect()
    }
}

fn judge(path: &PathBuf) -> Result<TokenJudge, Failure> {
    let tokens = Tokens::read(path)?;
    Ok(Arc::new(move |token, now| match tokens.caller(token, now) {
        Ok(caller) => Ok(caller.clone()),
        Err(refusal) => Err(refusal.to_string()),
    }))
}

/// Opens the door, if there is to be one.
pub(crate) async fn open(
    node: &Node,
    settings: Option<&GatewaySettings>,
) -> Result<Option<Gateway>, GatewayError> {
    let Some(settings) = settings else { return Ok(None) };
    let GatewaySettings { listen, said, tokens, certificate } = settings;
    let mut door = Gateway::builder(node).listen(listen).shared_tokens(tokens.clone());
    if let Some(name) = &said.anonymous {
        door = door.anonymous(name.clone());
    }
    for range in &said.trusted_proxy {
        door = door.trusted_proxy(*range);
    }
    for origin in &said.cors_origins {
        door = door.cors_origin(origin);
    }
    door = match (certificate, &said.tls) {
        (Some(certificate), _) => door.certificate(certificate.clone()),
        (None, Some(_)) => door.tls(),
        (None, None) => door,
    };
    door.start().await.map(Some)
}

/// What of a door can change while it runs.
pub(crate) struct NextGateway {
    tokens: Option<TokenJudge>,
    certificate: Option<ServerCertificate>,
}

/// That of what was read anew. Without a word of the door, it stays as it is until the node is
/// started again.
pub(crate) fn next(settings: Option<GatewaySettings>) -> Option<NextGateway> {
    settings.map(|GatewaySettings { tokens, certificate, .. }| NextGateway { tokens, certificate })
}

/// Puts it in force.
pub(crate) fn apply(door: Option<&Gateway>, next: Option<NextGateway>) {
    if let (Some(door), Some(next)) = (door, next) {
        door.set_tokens(next.tokens);
        door.set_certificate(next.certificate);
        tracing::info!(
            "the HTTP door goes by its tokens and its certificate as they are in their files now"
        );
    }
}

/// Whether something has changed beside that.
pub(crate) fn needs_restart(next: Option<&GatewaySettings>, now: Option<&GatewaySettings>) -> bool {
    let fixed = |settings: &GatewaySettings| {
        let mut said = settings.said.clone();
        (said.tokens, said.listen) = (None, Some(settings.listen));
        if let Some(tls) = &mut said.tls {
            tls.certificate = None;
        }
        said
    };
    next.map(fixed) != now.map(fixed)
}
