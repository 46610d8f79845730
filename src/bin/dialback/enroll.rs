//! `dialback enroll`: an enroller with its CA, and the join tokens of new machines.

use crate::{exit::Failure, output::print, signals::Signals, until_valid::until_valid};
use clap::{Args, Subcommand};
use dialback::{
    BindError, Name, PeerName, Role,
    certs::{CertsDir, TokenError},
    config::{parse_duration, parse_listen},
    enroll::{Enroller, EnrollerBuilder, EnrollerError},
};
use std::{
    future::pending,
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};
use tokio::runtime::Runtime;

/// `dialback enroll`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, at the CA:
  dialback enroll --listen '[::]:4434' --ca-dir certs
  dialback enroll token agent warehouse --ttl 1h --ca-dir certs
It signs agents and callers, never a node or a CA. Open its UDP port to the machines that
join. Use a separate CA for nodes if a compromised enroller must not be able to sign one.")]
pub(crate) struct EnrollArgs {
    /// UDP address to listen on [default: [::]:4434, IPv6 and IPv4]
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) listen: Option<SocketAddr>,
    /// Directory of the CA, as created by `dialback certs init`
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    pub(crate) ca_dir: PathBuf,
    /// Lifetime of the certificates that it signs
    #[arg(long, value_name = "DURATION", default_value = "90d", value_parser = parse_duration)]
    pub(crate) leaf_ttl: Duration,
    #[command(subcommand)]
    pub(crate) command: Option<EnrollCommand>,
}

/// `dialback enroll ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum EnrollCommand {
    /// Print a join token: one line, with which one machine can join once under this name
    #[command(after_help = "Example: dialback enroll token agent warehouse --ttl 1h")]
    Token {
        /// agent or caller
        role: Role,
        /// Name of the agent or caller
        name: Name,
        /// Lifetime of the token, at most 30d
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = parse_duration)]
        ttl: Duration,
    },
}

pub(crate) fn run(args: EnrollArgs) -> Result<(), Failure> {
    let dir = CertsDir::new(args.ca_dir);
    match args.command {
        Some(EnrollCommand::Token { role, name, ttl }) => {
            let token = dir.make_token(&PeerName::new(role, name), ttl, SystemTime::now())?;
            print(&token.to_line())
        }
        None => {
            let builder = Enroller::builder(dir).leaf_life(args.leaf_ttl);
            let builder = match args.listen {
                Some(address) => builder.listen(address),
                None => builder,
            };
            let runtime = Runtime::new().map_err(|error| Failure::runtime(&error))?;
            runtime.block_on(serve(builder))
        }
    }
}

async fn serve(builder: EnrollerBuilder) -> Result<(), Failure> {
    let mut signals = Signals::listen()?;
    let start = async || Ok(builder.clone().start().await?);
    let started = until_valid(start().await, start, &mut signals, pending).await?;
    let Some(enroller) = started else { return Ok(()) };
    let first = signals.next().await;
    signals.stop(first, |abort| enroller.shutdown_or_abort(abort.cancelled_owned())).await
}

impl From<TokenError> for Failure {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Certs(error) => error.into(),
            other => Self::local(&other),
        }
    }
}

impl From<EnrollerError> for Failure {
    fn from(error: EnrollerError) -> Self {
        match error {
            EnrollerError::Certs(error) => error.into(),
            EnrollerError::Bind(BindError::Socket { .. }) => Self::runtime(&error),
            other => Self::local(&other),
        }
    }
}
