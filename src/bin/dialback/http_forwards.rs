//! HTTP forwards of `dialback agent`: read from flags and the config file.

use crate::{exit::Failure, forwards::read_cas};
use dialback::{HttpForward, config::HttpForwardConfig};
use std::error::Error;

pub(crate) fn parse_http(text: &str) -> Result<HttpForwardConfig, Box<dyn Error + Send + Sync>> {
    let (name, upstream) =
        text.split_once('=').ok_or("expected NAME=URL, as grafana=http://127.0.0.1:3000")?;
    let config = HttpForwardConfig::new(name.parse()?, upstream.parse()?);
    if config.upstream.is_tls() {
        let text = "an https upstream requires a CA: configure it in the config file, [[http]] with `upstream` and `upstream_ca`";
        return Err(text.into());
    }
    Ok(config)
}

/// Those of the flags, and those of the config file that have other names.
pub(crate) fn all(
    typed: &[HttpForwardConfig],
    of_file: Vec<HttpForwardConfig>,
) -> Result<Vec<HttpForwardConfig>, Failure> {
    for (at, forward) in typed.iter().enumerate() {
        if typed[..at].iter().any(|other| other.name == forward.name) {
            return Err(Failure::usage(format!("--http names {} twice", forward.name)));
        }
    }
    let is_typed = |one: &HttpForwardConfig| typed.iter().any(|forward| forward.name == one.name);
    let others = of_file.into_iter().filter(|one| !is_typed(one));
    Ok(typed.iter().cloned().chain(others).collect())
}

/// Makes the forwards, with the CAs that they name.
pub(crate) fn make(configs: &[HttpForwardConfig]) -> Result<Vec<HttpForward>, Failure> {
    configs.iter().map(forward).collect()
}

fn forward(config: &HttpForwardConfig) -> Result<HttpForward, Failure> {
    let HttpForwardConfig { name, upstream, upstream_ca, host, idle, scope, health, .. } = config;
    let of = format!("http:{name}");
    let ca_pem = upstream_ca.as_deref().map(|path| read_cas(path, &of)).transpose()?;
    let forward = HttpForward::new(name.clone(), upstream.clone(), ca_pem.as_deref());
    let mut forward =
        forward.map_err(|fault| Failure::usage(format!("upstream of {of}: {fault}")))?;
    if let Some(host) = host {
        forward = forward.host(host);
    }
    if let Some(idle) = idle {
        forward = forward.idle_max(*idle);
    }
    if let Some(check) = health {
        forward = forward.check(check.clone());
    }
    tracing::info!(method = of, address = %upstream, "forwarding {of} to {upstream}");
    Ok(forward.scope(scope.clone()))
}
