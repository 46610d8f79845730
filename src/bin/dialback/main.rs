//! The command line; uses only the public API of the library.

mod admin;
mod agent;
mod agents;
mod args;
mod audit;
mod bench;
mod call;
mod caller;
mod certs;
mod completions;
mod config;
mod config_print;
mod credentials;
mod doctor;
mod enroll;
mod environment;
mod exit;
mod flag_sources;
mod forwards;
mod gateway;
mod hosted;
mod http_forwards;
mod mcp_forwards;
mod input;
mod join;
mod listener;
mod log;
mod log_filter;
mod log_writer;
mod man_pages;
mod metadata;
mod node;
mod output;
mod paths;
mod policy;
#[cfg(test)]
mod reference;
mod recordings;
mod reload;
mod service_manager;
mod services;
mod signals;
mod status;
mod tcp;
mod token;
mod trace;
mod tunnel;
mod until_valid;
mod writable;

/// Returns unused memory to the system, unlike glibc's after large messages: decision 0032.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

use args::Command;
use dialback::Role;
use exit::Failure;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = args::parse();
    let log = match log::start(&cli) {
        Ok(log) => log,
        Err(failure) => return exit::code_of(Err(failure), None),
    };
    let set = std::env::vars_os();
    let set = set.filter_map(|(name, value)| {
        Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
    });
    for line in environment::warnings(&args::variables(), set) {
        tracing::warn!("{line}");
    }
    let ready = recordings::start(&cli);
    exit::code_of(ready.and_then(|()| run(cli.command)), Some(&log))
}

fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Certs(args) => certs::run(args),
        Command::Node(args) => node::run(*args),
        Command::Agent(args) => agent::run(*args),
        Command::Caller(command) => join::run(Role::Caller, command),
        Command::Enroll(args) => enroll::run(args),
        Command::Call(args) => call::run(*args),
        Command::Bench(args) => bench::run(*args),
        Command::Tcp(args) => tcp::run(args),
        Command::Status(args) => status::run(args),
        Command::Doctor(command) => doctor::run(command),
        Command::Agents(args) => agents::run(args),
        Command::Services(args) => services::run(args),
        Command::Token(args) => token::run(args),
        Command::Policy(command) => policy::run(command),
        Command::Config(command) => config::run(command),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man_pages::run(args),
    }
}
