//! HTTP forwards of `dialback agent`: read from flags and the config file.

use crate::{exit::Failure, forwards::bad_upstream};
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

/// Makes the forward, with the CAs of its upstream.
pub(crate) fn make(
    config: &HttpForwardConfig,
    ca_pem: Option<&[u8]>,
) -> Result<HttpForward, Failure> {
    let HttpForwardConfig { name, upstream, upstream_ca, host, idle, scope, health, .. } = config;
    let forward = HttpForward::new(name.clone(), upstream.clone(), ca_pem);
    let mut forward = forward
        .map_err(|fault| bad_upstream(&format!("http:{name}"), upstream_ca.as_deref(), &fault))?;
    if let Some(host) = host {
        forward = forward.host(host);
    }
    if let Some(idle) = idle {
        forward = forward.idle_max(*idle);
    }
    if let Some(check) = health {
        forward = forward.check(check.clone());
    }
    Ok(forward.scope(scope.clone()))
}
