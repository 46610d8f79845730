//! Services that an agent forwards to local HTTP servers: read, hosted, and replaced while it runs.

use crate::exit::Failure;
use dialback::{
    Forward, ForwardHandle, MethodName, Service, config::ForwardConfig, limits::CONFIG_BYTES_MAX,
};
use std::{
    error::Error,
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

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

pub(crate) struct Forwards(Vec<(ForwardConfig, Forward)>);

impl Forwards {
    /// Reads what the settings name.
    pub(crate) fn read(
        configs: Vec<ForwardConfig>,
        message_bytes_max: usize,
    ) -> Result<Self, Failure> {
        let made = configs.into_iter().map(|config| {
            let forward = forward(&config)?.message_bytes_max(message_bytes_max);
            Ok((config, forward))
        });
        made.collect::<Result<_, Failure>>().map(Self)
    }

    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter_map(|(config, _)| config.upstream_ca.clone())
    }

    /// The services, and the handles that replace their upstreams later.
    pub(crate) fn host(self) -> (Vec<Service>, Live) {
        let hosted = self.0.into_iter().map(|(config, forward)| {
            announce(&config);
            let (service, handle) = forward.replaceable(config.service.as_str());
            (service, (config, handle))
        });
        let (services, live) = hosted.unzip();
        (services, Live(live))
    }

    /// Replaces the upstreams of running services of the same name and methods.
    pub(crate) fn replace(self, live: &Live) {
        for (config, forward) in self.0 {
            let hosted = live.0.iter().find(|(hosted, _)| is_registered_alike(hosted, &config));
            if let Some((_, handle)) = hosted {
                announce(&config);
                handle.replace(forward);
            }
        }
    }
}

/// Those of the config file and those of the flags, which replace the file's of the same name.
pub(crate) fn all(flags: &[ForwardConfig], file: Vec<ForwardConfig>) -> Vec<ForwardConfig> {
    let is_replaced =
        |of_file: &ForwardConfig| flags.iter().any(|flag| flag.service == of_file.service);
    let of_file = file.into_iter().filter(|of_file| !is_replaced(of_file));
    of_file.chain(flags.iter().cloned()).collect()
}

fn announce(config: &ForwardConfig) {
    let ForwardConfig { service, upstream, .. } = config;
    tracing::info!(%service, address = %upstream, "forwarding {service} to {upstream}");
}

pub(crate) struct Live(Vec<(ForwardConfig, ForwardHandle)>);

impl Live {
    /// Returns `true` if services and methods are the same, so that no new registration is needed.
    pub(crate) fn is_registered_as(&self, next: &Forwards) -> bool {
        let has = |config: &ForwardConfig| {
            self.0.iter().any(|(hosted, _)| is_registered_alike(hosted, config))
        };
        self.0.len() == next.0.len() && next.0.iter().all(|(config, _)| has(config))
    }
}

/// Reads the CAs that vouch for the upstream `of` this name.
pub(crate) fn read_cas(path: &Path, of: &str) -> Result<Vec<u8>, Failure> {
    read(path).map_err(|error| {
        let path = path.display();
        Failure::usage(format!("upstream of {of}: cannot read CA certificates {path}: {error}"))
    })
}

/// Reads a file up to a limit that no bundle of CAs reaches, should it be the wrong file.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_registered_alike(one: &ForwardConfig, other: &ForwardConfig) -> bool {
    one.service == other.service && one.methods == other.methods
}

fn forward(config: &ForwardConfig) -> Result<Forward, Failure> {
    let service = config.service.as_str();
    let ca_pem = config.upstream_ca.as_deref().map(|path| read_cas(path, service)).transpose()?;
    let made = Forward::new(config.upstream.clone(), ca_pem.as_deref());
    let forward =
        made.map_err(|fault| Failure::usage(format!("upstream of {service}: {fault}")))?;
    let forward = forward.format(config.format).keep_alive(config.keep_alive);
    let forward = match &config.health {
        None => forward,
        Some(check) => forward.check(check.clone()),
    };
    let forward = match &config.metadata {
        None => forward,
        Some(names) => forward.metadata(names),
    };
    Ok(match &config.methods {
        None => forward,
        Some(methods) => forward.methods(methods.iter().map(MethodName::as_str)),
    })
}
