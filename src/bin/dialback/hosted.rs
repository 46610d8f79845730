//! What `dialback agent` hosts: read from flags and the config file, and replaced while it runs.
//! What does not change stays as it is, with its connections and sessions.

use crate::{exit::Failure, forwards, http_forwards, mcp_forwards};
use dialback::{
    Name, ServiceSet, TcpForward,
    config::{
        AgentConfig, ForwardConfig, HttpForwardConfig, McpForwardConfig, McpServerConfig,
        read_bytes,
    },
    demo::{self, Ledger},
};
use std::{
    collections::BTreeMap,
    mem::take,
    path::{Path, PathBuf},
};

/// One thing that the agent hosts, with all that it is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostedConfig {
    Service(ForwardConfig, UpstreamCas, MessageBytesMax),
    Tcp(TcpForward),
    Http(HttpForwardConfig, UpstreamCas),
    Mcp(McpForwardConfig, UpstreamCas),
    /// The demo services, with the file that Demo/Append appends to.
    Demo(Option<PathBuf>),
}

/// The CAs that vouch for an upstream, as read from their file.
pub(crate) type UpstreamCas = Option<Vec<u8>>;

type MessageBytesMax = usize;

impl HostedConfig {
    /// All that an agent hosts, taken from its settings.
    pub(crate) fn all(settings: &mut AgentConfig) -> Result<Vec<Self>, Failure> {
        let bytes_max = settings.limits.message_bytes_max;
        let demo = Self::demo(settings.demo, settings.ledger.take())?;
        let services = take(&mut settings.forwards).into_iter();
        let tcp = take(&mut settings.tcp).into_iter();
        let http = take(&mut settings.http).into_iter();
        let mcp = take(&mut settings.mcp).into_iter();
        let demo = demo.into_iter().map(Ok);
        demo.chain(services.map(|config| Self::service(config, bytes_max)))
            .chain(tcp.map(|forward| Ok(Self::Tcp(forward))))
            .chain(http.map(Self::http))
            .chain(mcp.map(Self::mcp))
            .collect()
    }

    fn service(config: ForwardConfig, bytes_max: usize) -> Result<Self, Failure> {
        let cas = read_cas(config.upstream_ca.as_deref(), config.service.as_str())?;
        Self::Service(config, cas, bytes_max).expect_makeable()
    }

    fn http(config: HttpForwardConfig) -> Result<Self, Failure> {
        let cas = read_cas(config.upstream_ca.as_deref(), &format!("http:{}", config.name))?;
        Self::Http(config, cas).expect_makeable()
    }

    fn mcp(config: McpForwardConfig) -> Result<Self, Failure> {
        let cas = read_cas(config.upstream_ca.as_deref(), &format!("mcp:{}", config.name))?;
        Self::Mcp(config, cas).expect_makeable()
    }

    fn demo(has_demo: bool, ledger: Option<PathBuf>) -> Result<Option<Self>, Failure> {
        match (has_demo, ledger) {
            (true, ledger) => Ok(Some(Self::Demo(ledger))),
            (false, None) => Ok(None),
            (false, Some(_)) => Err(Failure::usage(
                "the ledger is only used by Demo/Append; add --demo, or `demo = true`",
            )),
        }
    }

    /// The file with the CAs of its upstream.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::Service(config, ..) => config.upstream_ca.as_ref(),
            Self::Http(config, _) => config.upstream_ca.as_ref(),
            Self::Mcp(config, _) => config.upstream_ca.as_ref(),
            Self::Tcp(_) | Self::Demo(_) => None,
        }
    }

    /// What is called, and what answers, for the log.
    fn route(&self) -> [String; 2] {
        match self {
            Self::Service(config, ..) => [config.service.to_string(), config.upstream.to_string()],
            Self::Tcp(forward) => {
                [format!("tcp:{}", forward.name()), forward.upstream().to_string()]
            }
            Self::Http(config, _) => [format!("http:{}", config.name), config.upstream.to_string()],
            Self::Mcp(McpForwardConfig { name, server, .. }, _) => {
                let server = match server {
                    McpServerConfig::Http(address) => address.to_string(),
                    // The arguments may be secrets.
                    McpServerConfig::Command(command) => {
                        format!("processes of {}", command.first().map_or("", String::as_str))
                    }
                    _ => String::new(),
                };
                [format!("mcp:{name}"), server]
            }
            Self::Demo(_) => ["HelloService and Demo", "the demo services"].map(str::to_owned),
        }
    }

    fn expect_makeable(self) -> Result<Self, Failure> {
        self.make().map(|_| self)
    }

    fn make(&self) -> Result<ServiceSet, Failure> {
        let set = ServiceSet::new();
        Ok(match self {
            Self::Service(config, cas, bytes_max) => {
                set.serve(forwards::make(config, cas.as_deref(), *bytes_max)?)
            }
            Self::Tcp(forward) => set.tcp(forward.clone()),
            Self::Http(config, cas) => set.http(http_forwards::make(config, cas.as_deref())?),
            Self::Mcp(config, cas) => set.mcp(mcp_forwards::make(config, cas.as_deref())?),
            Self::Demo(ledger) => {
                let ledger = ledger.as_deref().map(open_ledger).transpose()?;
                demo::services(ledger).into_iter().fold(set, ServiceSet::serve)
            }
        })
    }
}

fn open_ledger(path: &Path) -> Result<Ledger, Failure> {
    Ledger::open(path).map_err(|error| {
        Failure::usage(format!("cannot open the ledger {}: {error}", path.display()))
    })
}

/// What is hosted, with its services.
#[derive(Default)]
pub(crate) struct LiveServices(Vec<(HostedConfig, ServiceSet)>);

impl LiveServices {
    /// What follows it: makes what is not hosted yet.
    pub(crate) fn next(&self, configs: Vec<HostedConfig>) -> Result<Self, Failure> {
        let made = configs.into_iter().map(|config| match self.set_of(&config) {
            Some(set) => Ok((config, set.clone())),
            None => config.make().map(|set| (config, set)),
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    fn set_of(&self, config: &HostedConfig) -> Option<&ServiceSet> {
        self.0.iter().find(|(hosted, _)| hosted == config).map(|(_, set)| set)
    }

    pub(crate) fn services(&self) -> ServiceSet {
        self.0.iter().fold(ServiceSet::new(), |all, (_, set)| all.and(set.clone()))
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let has_all = |one: &Self, other: &Self| {
            one.0.iter().all(|(config, _)| other.set_of(config).is_some())
        };
        self.0.len() == other.0.len() && has_all(self, other)
    }

    /// The routes that another set does not have in the same way.
    fn beyond(&self, other: &Self) -> BTreeMap<String, String> {
        let own = self.0.iter().filter(|(config, _)| other.set_of(config).is_none());
        own.map(|(config, _)| config.route().into()).collect()
    }

    /// Logs what it forwards that the previous set did not, and the reverse.
    pub(crate) fn announce(&self, previous: &Self) {
        let (left, new) = (previous.beyond(self), self.beyond(previous));
        for (method, address) in left.iter().filter(|(method, _)| !new.contains_key(*method)) {
            tracing::info!(method, address, "no longer forwarding {method} to {address}");
        }
        for (method, address) in &new {
            let before = match left.get(method) {
                Some(before) if before == address => ", with other settings than before".into(),
                Some(before) => format!(", no longer to {before}"),
                None => String::new(),
            };
            tracing::info!(method, address, "forwarding {method} to {address}{before}");
        }
    }

    /// Warns if nothing is hosted.
    pub(crate) fn expect_some(&self) {
        if self.0.is_empty() {
            tracing::warn!(
                "this agent hosts no services; add --http NAME=URL for a local HTTP server, --mcp NAME=URL for an MCP server, --tcp NAME=ADDR for TCP forwards, --forward for services that speak Connect, --demo for the demo services"
            );
        }
    }
}

/// Those of the flags, and those of the config file that have other names.
pub(crate) fn merged<T: Clone>(
    flag: &str,
    typed: &[T],
    of_file: Vec<T>,
    name: impl Fn(&T) -> &Name,
) -> Result<Vec<T>, Failure> {
    for (at, one) in typed.iter().enumerate() {
        if typed[..at].iter().any(|other| name(other) == name(one)) {
            return Err(Failure::usage(format!("{flag} names {} twice", name(one))));
        }
    }
    let is_typed = |one: &T| typed.iter().any(|other| name(other) == name(one));
    let others = of_file.into_iter().filter(|one| !is_typed(one));
    Ok(typed.iter().cloned().chain(others).collect())
}

/// Reads the CAs that vouch for the upstream `of` this name.
fn read_cas(path: Option<&Path>, of: &str) -> Result<UpstreamCas, Failure> {
    let read = |path: &Path| {
        read_bytes(path).map_err(|error| {
            let path = path.display();
            Failure::usage(format!("upstream of {of}: cannot read CA certificates {path}: {error}"))
        })
    };
    path.map(read).transpose()
}
