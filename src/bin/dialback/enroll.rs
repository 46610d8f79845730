//! `dialback enroll`: an enroller with its CA, and the join tokens of new machines.

use crate::{
    exit::Failure,
    output::print,
    reload::{self, Start},
    until_valid::until_valid,
};
use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{
    BindError, IpRange, Name, PeerName, Role, ServerCertificate, TunnelListen, TunnelListenError,
    certs::{CertsDir, TokenError},
    config::{parse_duration, parse_listen},
    enroll::{Enroller, EnrollerBuilder, EnrollerError},
};
use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

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
    /// TCP address for tunnels, as [::]:443; without it, machines need UDP to join and to renew
    #[arg(long, value_name = "IP:PORT", value_parser = parse_listen)]
    pub(crate) tunnel: Option<SocketAddr>,
    /// Certificate that tunnels show [default: the enroller's own]
    #[arg(long, value_name = "FILE", requires = "tunnel_key", requires = "tunnel")]
    pub(crate) tunnel_cert: Option<PathBuf>,
    /// Key of that certificate
    #[arg(long, value_name = "FILE", requires = "tunnel_cert")]
    pub(crate) tunnel_key: Option<PathBuf>,
    /// Take plain ws://, for a reverse proxy in front that ends TLS
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) tunnel_plain: bool,
    /// Address of a reverse proxy in front of the tunnels, as 10.0.0.0/8, whose X-Forwarded-For is
    /// believed; may be repeated
    #[arg(long, value_name = "RANGE", value_delimiter = ',', requires = "tunnel")]
    pub(crate) trusted_proxy: Vec<IpRange>,
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

pub(crate) fn run(mut args: EnrollArgs) -> Result<(), Failure> {
    match args.command.take() {
        Some(EnrollCommand::Token { role, name, ttl }) => {
            let peer = PeerName::new(role, name);
            let token = CertsDir::new(args.ca_dir).make_token(&peer, ttl, SystemTime::now())?;
            print(&token.to_line())
        }
        None => {
            if args.tunnel_plain && (args.tunnel.is_none() || args.tunnel_cert.is_some()) {
                let text = "--tunnel-plain needs --tunnel IP:PORT beside it, and no --tunnel-cert";
                return Err(Failure::usage(text));
            }
            let builder = builder(&args);
            let files = args.tunnel_cert.zip(args.tunnel_key);
            let read = move || TunnelCertificate::read(files.clone());
            reload::run(read, TunnelCertificate::files, |start| serve(builder, start))
        }
    }
}

/// The certificate that tunnels show, and its files.
struct TunnelCertificate {
    shown: Option<ServerCertificate>,
    files: Option<(PathBuf, PathBuf)>,
}

impl TunnelCertificate {
    fn read(files: Option<(PathBuf, PathBuf)>) -> Result<Self, Failure> {
        let read = |(cert, key): &(PathBuf, PathBuf)| ServerCertificate::from_files(cert, key);
        Ok(Self { shown: files.as_ref().map(read).transpose()?, files })
    }

    fn files(&self) -> Vec<PathBuf> {
        self.files.iter().flat_map(|(cert, key)| [cert.clone(), key.clone()]).collect()
    }
}

fn builder(args: &EnrollArgs) -> EnrollerBuilder {
    let mut builder = Enroller::builder(CertsDir::new(&args.ca_dir)).leaf_life(args.leaf_ttl);
    if let Some(address) = args.listen {
        builder = builder.listen(address);
    }
    if let Some(address) = args.tunnel {
        let tunnel = TunnelListen::at(address);
        let tunnel = if args.tunnel_plain { tunnel.plain() } else { tunnel };
        let proxies = args.trusted_proxy.iter().copied();
        builder = builder.tunnel(proxies.fold(tunnel, TunnelListen::trusted_proxy));
    }
    builder
}

async fn serve(builder: EnrollerBuilder, start: Start<TunnelCertificate>) -> Result<(), Failure> {
    let Start { settings, mut signals, mut reloads } = start;
    let open = async || Ok(builder.clone().start().await?);
    let hangup = async || reloads.hangups.next().await;
    let opened = until_valid(open().await, open, &mut signals, hangup).await?;
    let Some(enroller) = opened else { return Ok(()) };
    enroller.set_tunnel_certificate(settings.shown);
    let apply = async |next: TunnelCertificate| {
        enroller.set_tunnel_certificate(next.shown);
        Ok(())
    };
    let status = format!("listens on {}", enroller.local_addr());
    let first = signals.first(reloads.run(|| status.clone(), |_| Ok(Vec::new()), apply)).await;
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
            EnrollerError::Bind(BindError::Socket { .. })
            | EnrollerError::Tunnel(TunnelListenError::Socket { .. }) => Self::runtime(&error),
            other => Self::local(&other),
        }
    }
}
