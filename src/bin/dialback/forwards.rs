//! The services that an agent forwards to local HTTP servers: from flags and file, hosted, and
//! replaced while the agent runs.

use crate::exit::Failure;
use dialback::{
    Forward, ForwardHandle, MethodName, Service, ServiceName, UpstreamAddress,
    config::ForwardConfig, limits::CONFIG_BYTES_MAX,
};
use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// `--forward SERVICE=URL`.
#[derive(Debug, Clone)]
pub(crate) struct ForwardFlag {
    service: ServiceName,
    upstream: UpstreamAddress,
}

/// Reads one.
pub(crate) fn parse_forward(text: &str) -> Result<ForwardFlag, String> {
    let (service, upstream) = text
        .split_once('=')
        .ok_or("it is not written SERVICE=URL, as HelloService=http://127.0.0.1:9000")?;
    let service = service.parse().map_err(|fault: dialback::NameError| fault.to_string())?;
    let upstream: UpstreamAddress =
        upstream.parse().map_err(|fault: dialback::UpstreamError| fault.to_string())?;
    if upstream.is_tls() {
        let text = "an https upstream needs a stated trust, so it stands in the config file: [[service]] with `forward` and `upstream_ca`";
        return Err(text.into());
    }
    Ok(ForwardFlag { service, upstream })
}

/// All of them, with the files that vouch for their upstreams.
pub(crate) struct Forwards(Vec<(ForwardConfig, Forward)>);

impl Forwards {
    /// Those of the file and those of the flags, which go before the file's of the same name.
    pub(crate) fn read(
        flags: &[ForwardFlag],
        file: Vec<ForwardConfig>,
        message_bytes_max: usize,
    ) -> Result<Self, Failure> {
        let is_replaced =
            |of_file: &ForwardConfig| flags.iter().any(|flag| flag.service == of_file.service);
        let of_flags = flags
            .iter()
            .map(|flag| ForwardConfig::new(flag.service.clone(), flag.upstream.clone()));
        let of_file = file.into_iter().filter(|of_file| !is_replaced(of_file));
        let made = of_file.chain(of_flags).map(|config| {
            let forward = forward(&config)?.message_bytes_max(message_bytes_max);
            Ok((config, forward))
        });
        made.collect::<Result<_, Failure>>().map(Self)
    }

    /// The files that they go by.
    pub(crate) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.0.iter().filter_map(|(config, _)| config.upstream_ca.clone())
    }

    /// The services, and what replaces their upstreams later.
    pub(crate) fn host(self) -> (Vec<Service>, Live) {
        let hosted = self.0.into_iter().map(|(config, forward)| {
            announce(&config);
            let (service, handle) = forward.replaceable(config.service.as_str());
            (service, (config, handle))
        });
        let (services, live) = hosted.unzip();
        (services, Live(live))
    }

    /// Puts these upstreams in place of those that are live, as far as their services are.
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

fn announce(config: &ForwardConfig) {
    tracing::info!("forwarding {} to {}", config.service, config.upstream);
}

/// What is hosted, and how its upstreams are replaced.
#[derive(Clone)]
pub(crate) struct Live(Vec<(ForwardConfig, ForwardHandle)>);

impl Live {
    /// Whether these would be registered with the same services and methods, so that they can be
    /// put in force as they are.
    pub(crate) fn is_registered_as(&self, next: &Forwards) -> bool {
        let has = |config: &ForwardConfig| {
            self.0.iter().any(|(hosted, _)| is_registered_alike(hosted, config))
        };
        self.0.len() == next.0.len() && next.0.iter().all(|(config, _)| has(config))
    }
}

/// The start of a file is read, should it be the wrong one: a bundle of CAs is smaller.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIG_BYTES_MAX as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn is_registered_alike(one: &ForwardConfig, other: &ForwardConfig) -> bool {
    one.service == other.service && one.methods == other.methods
}

fn forward(config: &ForwardConfig) -> Result<Forward, Failure> {
    let fault = |why: &dyn std::fmt::Display| {
        Failure::usage(format!("the upstream of {}: {why}", config.service))
    };
    let ca_pem = match &config.upstream_ca {
        None => None,
        Some(path) => Some(read(path).map_err(|error| {
            fault(&format_args!("cannot read its CAs in {}: {error}", path.display()))
        })?),
    };
    let made = Forward::new(config.upstream.clone(), ca_pem.as_deref());
    let forward =
        made.map_err(|error| fault(&error))?.format(config.format).keep_alive(config.keep_alive);
    let forward = match &config.metadata {
        None => forward,
        Some(names) => forward.metadata(names),
    };
    Ok(match &config.methods {
        None => forward,
        Some(methods) => forward.methods(methods.iter().map(MethodName::as_str)),
    })
}
