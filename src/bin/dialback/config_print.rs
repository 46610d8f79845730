//! `dialback config print`: the settings that a node or an agent would run with, and the source of
//! each value.

use crate::{
    agent::AgentFlags,
    credentials,
    exit::Failure,
    flag_sources::{FlagSource, FlagSources},
    node::NodeFlags,
    output::{escape, escape_json, print, print_json},
    paths::proxy_of_environment,
    trace::{ENDPOINT, otlp_of_environment},
};
use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{
    OtlpEndpoint, Role,
    config::{
        AgentConfig, KeyPlaces, MASK, Setting, SettingTable, SettingValue, TlsFiles, TraceFile,
    },
};
use serde::Serialize;
use std::fmt;

/// `dialback config print ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum PrintCommand {
    /// Print the settings of a node with these flags
    #[command(after_help = "\
Example: dialback config print node --config node.toml --listen [::]:4434
Takes the flags, the environment and the config file of `dialback node`.")]
    Node(Box<PrintNodeArgs>),
    /// Print the settings of an agent with these flags
    #[command(after_help = "\
Example: dialback config print agent --config agent.toml
Takes the flags, the environment and the config file of `dialback agent`.")]
    Agent(Box<PrintAgentArgs>),
}

/// The form of the output.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct PrintArgs {
    /// Print one JSON object with {key, value, source, at} of each setting
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) json: bool,
    /// Print secrets too: passwords of proxies, queries of URLs, arguments of MCP commands
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) unmasked: bool,
}

/// `dialback config print node`.
#[derive(Debug, Args)]
pub(crate) struct PrintNodeArgs {
    #[command(flatten)]
    pub(crate) given: FlagSources,
    #[command(flatten)]
    pub(crate) output: PrintArgs,
    #[command(flatten)]
    pub(crate) flags: NodeFlags,
}

/// `dialback config print agent`.
#[derive(Debug, Args)]
pub(crate) struct PrintAgentArgs {
    #[command(flatten)]
    pub(crate) given: FlagSources,
    #[command(flatten)]
    pub(crate) output: PrintArgs,
    #[command(flatten)]
    pub(crate) flags: AgentFlags,
}

/// The flags that set a key, by table and key. Those of forwards set whole tables.
const FLAGS: &[(&str, &str, &str)] = &[
    ("", "listen", "listen"),
    ("", "state", "state"),
    ("", "nodes", "node"),
    ("", "demo", "demo"),
    ("", "ledger", "ledger"),
    ("", "enroll", "enroll"),
    ("", "path", "path"),
    ("", "tunnel_url", "tunnel-url"),
    ("", "enroll_tunnel_url", "enroll-tunnel-url"),
    ("", "proxy", "proxy"),
    ("", "proxy_password_file", "proxy-password-file"),
    ("tunnel", "listen", "tunnel"),
    ("tunnel", "verify", "tunnel-verify"),
    ("tunnel", "ca", "tunnel-ca"),
    ("tls", "cert", "cert"),
    ("tls", "key", "key"),
    ("tls", "ca", "ca"),
    ("tls", "node_ca", "node-ca"),
    ("tls", "crl", "crl"),
    ("tls", "crl_scope", "crl-scope"),
    ("audit", "file", "audit"),
    ("audit", "calls", "audit-calls"),
    ("admin", "listen", "admin"),
    ("trace", "otlp", "otlp"),
    ("gateway", "listen", "gateway"),
    ("gateway", "tokens", "tokens"),
    ("limits", "memory_max", "memory-max"),
    ("tcp", "", "tcp"),
    ("http", "", "http"),
    ("mcp", "", "mcp"),
    ("service", "", "forward"),
];

/// Keys of forwards that a flag sets.
const KEYS_OF_FORWARDS: [&str; 4] = ["name", "upstream", "forward", "command"];

pub(crate) fn run(command: PrintCommand) -> Result<(), Failure> {
    match command {
        PrintCommand::Node(args) => node(*args),
        PrintCommand::Agent(args) => agent(*args),
    }
}

fn node(args: PrintNodeArgs) -> Result<(), Failure> {
    let PrintNodeArgs { given, output, flags } = args;
    let mut file = flags.file()?;
    let mut merged = flags.merge(file.clone())?;
    // The rules of --policy count as those of the file.
    file.policy = merged.policy.clone();
    let (tls, located) = locate(Role::Node, flags.tls.clone().into(), &merged.tls);
    merged.tls = tls;
    let otlp = otlp_of_environment(merged.trace.as_ref());
    add_otlp(&mut merged.trace, otlp.clone());
    let mut settings = merged.settings();
    imply(&mut settings, "otlp", otlp.is_some());
    let sources = Sources {
        given: &given,
        file: file.settings(),
        // Flags of a node set no tables of which there may be several.
        of_flags: Vec::new(),
        places: merged.places.clone(),
    };
    sources.print("node", settings, output)?;
    located
}

fn agent(args: PrintAgentArgs) -> Result<(), Failure> {
    let PrintAgentArgs { given, output, flags } = args;
    let file = flags.file()?;
    let mut merged = flags.merge(file.clone())?;
    let (tls, located) = locate(Role::Agent, flags.tls.clone().into(), &merged.tls);
    merged.tls = tls;
    let of_environment = proxy_of_environment(&merged.paths);
    let is_implied = of_environment.is_some();
    merged.paths.proxy = merged.paths.proxy.take().or(of_environment);
    let otlp = otlp_of_environment(merged.trace.as_ref());
    add_otlp(&mut merged.trace, otlp.clone());
    let mut settings = merged.settings();
    imply(&mut settings, "proxy", is_implied);
    imply(&mut settings, "otlp", otlp.is_some());
    let of_flags = flags.merge(AgentConfig::default()).map(|config| config.settings());
    let sources = Sources {
        given: &given,
        file: file.settings(),
        of_flags: of_flags.unwrap_or_default(),
        places: merged.places.clone(),
    };
    sources.print("agent", settings, output)?;
    located
}

fn add_otlp(trace: &mut Option<TraceFile>, otlp: Option<OtlpEndpoint>) {
    if let Some(otlp) = otlp {
        trace.get_or_insert_default().otlp = Some(otlp);
    }
}

/// Marks the value of a key as one that this machine implies, if it is.
fn imply(settings: &mut [SettingTable], key: &str, is_implied: bool) {
    for setting in settings.iter_mut().flat_map(|table| &mut table.settings) {
        setting.is_implied |= is_implied && setting.key == key;
    }
}

/// The files of the credentials, also those that are found; where none are, as far as they are
/// named, and the failure.
fn locate(role: Role, flags: TlsFiles, file: &TlsFiles) -> (TlsFiles, Result<(), Failure>) {
    let named = flags.clone().or(file.clone());
    match credentials::locate(role, flags, file.clone()) {
        Ok(located) => (credentials::named(located, named.is_without_list()), Ok(())),
        Err(failure) => (named, Err(failure)),
    }
}

/// Source of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Flag(String),
    Variable(String),
    File(String),
    Default,
}

impl From<FlagSource> for Source {
    fn from(source: FlagSource) -> Self {
        match source {
            FlagSource::Flag(flag) => Self::Flag(flag),
            FlagSource::Variable(name) => Self::Variable(name),
        }
    }
}

impl Source {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Flag(_) => "flag",
            Self::Variable(_) => "environment",
            Self::File(_) => "file",
            Self::Default => "default",
        }
    }

    const fn at(&self) -> Option<&String> {
        match self {
            Self::Flag(at) | Self::Variable(at) | Self::File(at) => Some(at),
            Self::Default => None,
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.at().map_or("default", String::as_str))
    }
}

/// What is needed to find the source of each value.
struct Sources<'a> {
    given: &'a FlagSources,
    /// The settings of the file alone.
    file: Vec<SettingTable>,
    /// The settings of the flags alone.
    of_flags: Vec<SettingTable>,
    places: KeyPlaces,
}

/// One setting with its source.
struct Sourced {
    setting: Setting,
    source: Source,
}

/// One table, with its number if there may be several.
struct SourcedTable {
    name: &'static str,
    number: Option<usize>,
    settings: Vec<Sourced>,
}

impl Sources<'_> {
    fn print(
        mut self,
        command: &'static str,
        settings: Vec<SettingTable>,
        output: PrintArgs,
    ) -> Result<(), Failure> {
        let mut tables: Vec<SourcedTable> = Vec::new();
        for table in settings {
            let number = tables.iter().filter(|other| other.name == table.name).count();
            let number = table.is_array.then_some(number);
            let settings = self.settings(&table);
            tables.push(SourcedTable { name: table.name, number, settings });
        }
        if !output.unmasked {
            tables.iter_mut().flat_map(|table| &mut table.settings).for_each(Sourced::mask);
        }
        match output.json {
            true => print_json(&JsonOutput::new(command, &tables)),
            false => print(&as_toml(command, &tables)),
        }
    }

    fn settings(&mut self, table: &SettingTable) -> Vec<Sourced> {
        let number = self.number_in_file(table);
        let source_of = |setting: &Setting| self.source(table, number, setting);
        table
            .settings
            .iter()
            .map(|setting| Sourced { source: source_of(setting), setting: setting.clone() })
            .collect()
    }

    /// The number of the table in the file; `None` for a forward that is not of the file.
    fn number_in_file(&self, table: &SettingTable) -> Option<usize> {
        if !table.is_array {
            return Some(0);
        }
        if self.of_flags.contains(table) {
            return None;
        }
        self.file.iter().filter(|other| other.name == table.name).position(|other| other == table)
    }

    fn source(&self, table: &SettingTable, number: Option<usize>, setting: &Setting) -> Source {
        let key = setting.key;
        if let Some(source) = self.flag(table, number, key) {
            return source;
        }
        if key == "proxy" && setting.is_implied {
            return Source::Variable("HTTPS_PROXY, except for NO_PROXY".into());
        }
        if key == "otlp" && setting.is_implied {
            return Source::Variable(ENDPOINT.into());
        }
        // A setting of the file that has no effect is not the source.
        let in_file = number.and_then(|number| {
            let mut tables = self.file.iter().filter(|other| other.name == table.name);
            tables.nth(number)?.get(key).filter(|found| found.value == setting.value)?;
            self.places.of(table.name, number, key)
        });
        in_file.map_or(Source::Default, |origin| Source::File(origin.to_string()))
    }

    fn flag(&self, table: &SettingTable, number: Option<usize>, key: &str) -> Option<Source> {
        let is_of_flag = number.is_none() && KEYS_OF_FORWARDS.contains(&key);
        let wanted = if is_of_flag { "" } else { key };
        let found = FLAGS.iter().find(|(name, key, _)| *name == table.name && *key == wanted);
        self.given.of(found?.2).map(Source::from)
    }
}

impl Sourced {
    fn mask(&mut self) {
        if let Some(masked) = self.setting.masked.clone() {
            self.setting.value = Some(masked);
        }
    }

    /// True if the value is in the output without its secret.
    fn is_masked(&self) -> bool {
        self.setting.masked.is_some() && self.setting.masked == self.setting.value
    }
}

impl SourcedTable {
    /// `limits.idle_max`, `allow[0].caller`.
    fn path(&self, key: &str) -> String {
        match (self.name, self.number) {
            ("", _) => key.to_owned(),
            (name, None) => format!("{name}.{key}"),
            (name, Some(number)) => format!("{name}[{number}].{key}"),
        }
    }
}

#[derive(Serialize)]
struct JsonOutput<'a> {
    command: &'static str,
    settings: Vec<JsonSetting<'a>>,
}

#[derive(Serialize)]
struct JsonSetting<'a> {
    key: String,
    value: Option<&'a SettingValue>,
    source: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    masked: bool,
}

impl<'a> JsonOutput<'a> {
    fn new(command: &'static str, tables: &'a [SourcedTable]) -> Self {
        let settings = tables.iter().flat_map(|table| {
            table.settings.iter().map(|sourced| {
                let Sourced { setting, source } = sourced;
                JsonSetting {
                    key: table.path(setting.key),
                    value: setting.value.as_ref(),
                    source: source.kind(),
                    at: source.at(),
                    masked: sourced.is_masked(),
                }
            })
        });
        Self { command, settings: settings.collect() }
    }
}

/// Column of the sources.
const SOURCE_COLUMN: usize = 44;

/// A file that has the same effect, with the sources as comments.
fn as_toml(command: &str, tables: &[SourcedTable]) -> String {
    let mut lines = vec![format!(
        "# `dialback {command}` runs with these settings. Behind each is its source."
    )];
    let masked = tables.iter().flat_map(|table| {
        let masked = table.settings.iter().filter(|sourced| sourced.is_masked());
        masked.map(|sourced| table.path(sourced.setting.key))
    });
    let masked: Vec<_> = masked.collect();
    if !masked.is_empty() {
        let masked = masked.join(", ");
        lines.push(format!("# {MASK} is in place of secrets in {masked}; --unmasked prints them."));
        lines.push("# dialback refuses a config file with it.".into());
    }
    for table in tables {
        match (table.name, table.number) {
            ("", _) => {}
            (name, None) => lines.push(format!("\n[{name}]")),
            (name, Some(_)) => lines.push(format!("\n[[{name}]]")),
        }
        let is_set = |sourced: &&Sourced| sourced.setting.value.is_some();
        lines.extend(table.settings.iter().filter(is_set).map(Sourced::as_toml));
        let unset = table.settings.iter().filter(|sourced| !is_set(sourced));
        let unset: Vec<_> = unset.map(|sourced| sourced.setting.key).collect();
        if !unset.is_empty() {
            lines.push(format!("# not set: {}", unset.join(", ")));
        }
    }
    lines.join("\n")
}

impl Sourced {
    /// One line. TOML writes flags, numbers, texts and arrays of texts as JSON does.
    fn as_toml(&self) -> String {
        let Self { setting, source } = self;
        let value = serde_json::to_string(&setting.value).map(escape_json).unwrap_or_default();
        let comment = if setting.is_implied { "# " } else { "" };
        let line = format!("{comment}{} = {value}", setting.key);
        format!("{line:<SOURCE_COLUMN$} # {}", escape(&source.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::definition;
    use std::collections::BTreeSet;

    /// The flags of a command that set something, with the ids of their arguments.
    fn flags_of(command: &str) -> BTreeSet<(String, String)> {
        let mut program = definition();
        let command = program.find_subcommand_mut(command).expect("a command");
        // The settings of these files are printed, and not their names.
        let is_file = |flag: &str| ["config", "policy"].contains(&flag);
        let flags = command.get_arguments().filter_map(|arg| {
            Some((
                arg.get_long().filter(|flag| !is_file(flag))?.to_owned(),
                arg.get_id().to_string(),
            ))
        });
        flags.collect()
    }

    #[test]
    fn every_flag_of_a_node_and_an_agent_is_the_source_of_a_key() {
        let mut known = BTreeSet::new();
        for (flag, id) in flags_of("node").into_iter().chain(flags_of("agent")) {
            assert_eq!(flag, id.replace('_', "-"), "the id of an argument is the name of its flag");
            known.insert(flag);
        }
        let of_keys: BTreeSet<_> = FLAGS.iter().map(|(_, _, flag)| (*flag).to_owned()).collect();
        assert_eq!(known, of_keys);
    }
}
