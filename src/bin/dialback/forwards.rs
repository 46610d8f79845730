//! Services that an agent forwards to local HTTP servers: read from flags, and made.

use crate::exit::Failure;
use dialback::{Forward, MethodName, Service, UpstreamError, config::ForwardConfig};
use std::{error::Error, path::Path};

pub(crate) fn parse_forward(text: &str) -> Result<ForwardConfig, Box<dyn Error + Send + Sync>> {
    let (service, upstream) = text
        .split_once('=')
        .ok_or("expected SERVICE=URL, as HelloService=http://127.0.0.1:9000")?;
    let config = ForwardConfig::new(service.parse()?, upstream.parse()?);
    if config.upstream.is_tls() {
        let text = "an https upstream requires a CA: configure it in the config file, [[service]] with `forward` and `upstream_ca`";
        return Err(text.into());
    }
    Ok(config)
}

/// Those of the flags, and those of the config file that have other names.
pub(crate) fn all(typed: &[ForwardConfig], of_file: Vec<ForwardConfig>) -> Vec<ForwardConfig> {
    let is_typed = |one: &ForwardConfig| typed.iter().any(|flag| flag.service == one.service);
    let others = of_file.into_iter().filter(|one| !is_typed(one));
    others.chain(typed.iter().cloned()).collect()
}

/// Makes the service, with the CAs of its upstream.
pub(crate) fn make(
    config: &ForwardConfig,
    ca_pem: Option<&[u8]>,
    message_bytes_max: usize,
) -> Result<Service, Failure> {
    let service = config.service.as_str();
    let made = Forward::new(config.upstream.clone(), ca_pem);
    let forward =
        made.map_err(|fault| bad_upstream(service, config.upstream_ca.as_deref(), &fault))?;
    let forward = forward
        .message_bytes_max(message_bytes_max)
        .format(config.format)
        .keep_alive(config.keep_alive);
    let forward = match &config.health {
        None => forward,
        Some(check) => forward.check(check.clone()),
    };
    let forward = match &config.metadata {
        None => forward,
        Some(names) => forward.metadata(names),
    };
    let forward = match &config.methods {
        None => forward,
        Some(methods) => forward.methods(methods.iter().map(MethodName::as_str)),
    };
    Ok(forward.service(service))
}

/// Failure of an upstream `of` this name, with the file that its CAs come from.
pub(crate) fn bad_upstream(of: &str, ca: Option<&Path>, fault: &UpstreamError) -> Failure {
    let ca = ca.map(|path| format!(" (upstream_ca {})", path.display())).unwrap_or_default();
    Failure::usage(format!("upstream of {of}: {fault}{ca}"))
}
