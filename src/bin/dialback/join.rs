//! `dialback agent join`, `dialback caller join` and `renew`: certificates from an enroller. Keys
//! and tokens are never shown.

use crate::{
    args::TlsArgs,
    credentials::Locator,
    exit::Failure,
    output::{columns, print, show_path},
    paths::{self, EnrollerPathArgs},
    signals::{Signals, block_on},
};
use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{
    Code, Credentials, CredentialsError, Name, NameError, NodeAddress, Role, Status, Utc,
    certs::JoinToken,
    config::TlsFiles,
    enroll::{EnrollError, Enroller, Join, JoinedPeer, Renewal, Renewed},
};
use std::{future::Future, path::PathBuf};
use tokio::runtime::Builder;

/// `dialback agent ...` and `dialback caller ...`: certificates over the wire.
#[derive(Debug, Subcommand)]
pub(crate) enum JoinCommand {
    /// Obtain a first certificate with a join token; the key is generated here and stays here
    #[command(after_help = "\
Example, with the token that `dialback enroll token agent warehouse` printed at the CA:
  DIALBACK_TOKEN=djt1:... dialback agent join --enroll ca.example.com:4434
It writes ROLE-NAME.pem, ROLE-NAME.key, ca.pem and crl.pem. A token can be used once.
Exit codes: 2 local error, the token is not used;
78 no answer; 80 refused.")]
    Join(JoinArgs),
    /// Renew a certificate once, if it is past two thirds of its lifetime
    #[command(after_help = "\
Example, for a timer: dialback caller renew --enroll ca.example.com:4434
An agent that runs with --enroll needs no timer.")]
    Renew(RenewArgs),
}

/// `dialback agent join`, `dialback caller join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// Address of the enroller [default port: 4434]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: NodeAddress,
    /// Join token; prefer DIALBACK_TOKEN, which other users of this machine cannot see
    #[arg(long, value_name = "TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// Expected name in the token; fails before any request if it differs
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<Name>,
    /// Directory for certificate, key and CA
    #[arg(long, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// Replace an existing valid certificate
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) paths: EnrollerPathArgs,
}

/// `dialback agent renew`, `dialback caller renew`.
#[derive(Debug, Args)]
pub(crate) struct RenewArgs {
    /// Address of the enroller [default port: 4434]
    #[arg(long, value_name = "HOST:PORT", value_parser = parse_enroller)]
    pub(crate) enroll: NodeAddress,
    #[command(flatten)]
    pub(crate) paths: EnrollerPathArgs,
    #[command(flatten)]
    pub(crate) tls: TlsArgs,
}

pub(crate) fn run(role: Role, command: JoinCommand) -> Result<(), Failure> {
    match command {
        JoinCommand::Join(args) => join(role, args),
        JoinCommand::Renew(args) => renew(role, args),
    }
}

fn join(role: Role, args: JoinArgs) -> Result<(), Failure> {
    let JoinArgs { enroll, token, name, dir, force, paths } = args;
    let token: JoinToken = token.parse()?;
    let peer = token.peer();
    if peer.role == Role::Node {
        return Err(Failure::usage(
            "the token is for a node, but enrollers only sign agents and callers; issue a node certificate at the CA with `dialback certs issue node NAME --san HOST`",
        ));
    }
    if peer.role != role {
        return Err(Failure::usage(format!(
            "the token is for {peer}; run `dialback {} join` with it",
            peer.role
        )));
    }
    if let Some(name) = name.filter(|name| *name != peer.name) {
        return Err(Failure::usage(format!("the token is for {peer}, not for {role}/{name}")));
    }
    let paths = paths::to_enroller(&paths.read()?)?;
    tell(&wait_for(Join::new(enroll, token, dir).paths(paths).force(force).run())?)
}

fn tell(joined: &JoinedPeer) -> Result<(), Failure> {
    let whose =
        format!("{}, serial {}, holds until {}", joined.peer, joined.serial, Utc(joined.not_after));
    let files = &joined.files;
    print(&columns(&[
        vec!["made".into(), show_path(&files.cert), whose],
        vec!["made".into(), show_path(&files.key), "private key, generated here".into()],
        vec!["there".into(), show_path(&files.ca), "CA certificates to trust".into()],
    ]))
}

fn renew(role: Role, args: RenewArgs) -> Result<(), Failure> {
    let files = Locator::new(role).locate(args.tls.into(), TlsFiles::default())?;
    let paths = paths::to_enroller(&args.paths.read()?)?;
    let renewal = Renewal::new(args.enroll, files).paths(paths);
    present(&renewal, role)?;
    match wait_for(renewal.once())? {
        Renewed::Renewed { peer, serial, not_after } => {
            print(&format!("renewed  {peer}, serial {serial}, holds until {}", Utc(not_after)))
        }
        Renewed::Kept { peer, due } => {
            print(&format!("kept  {peer}, due for renewal at {}", Utc(due)))
        }
        _ => Ok(()),
    }
}

/// Loads the credentials of a renewal, after completing an interrupted one.
pub(crate) fn present(renewal: &Renewal, role: Role) -> Result<Credentials, Failure> {
    if renewal.mend()? {
        tracing::warn!("completed an interrupted replacement of certificate and key");
    }
    let credentials = renewal.credentials()?;
    credentials.expect_role(role)?;
    Ok(credentials)
}

fn wait_for<T>(future: impl Future<Output = Result<T, EnrollError>>) -> Result<T, Failure> {
    block_on(Builder::new_current_thread(), async {
        Ok(Signals::listen()?.unless_stopped(future).await??)
    })
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        let code = match &error {
            EnrollError::Credentials(CredentialsError::NotValidYet { since, .. }) => {
                return Self::NotValidYet(error.to_string(), Some(since.0));
            }
            EnrollError::Files(_) => return Self::runtime(&error),
            EnrollError::Unreachable { .. } => Code::Unavailable,
            EnrollError::Refused { .. }
            | EnrollError::Untrusted { .. }
            | EnrollError::BadAnswer { .. } => Code::Unauthenticated,
            _ => return Self::local(&error),
        };
        Status::not_executed(code, error.to_string()).into()
    }
}

pub(crate) fn parse_enroller(text: &str) -> Result<NodeAddress, NameError> {
    NodeAddress::parse_with_port(text, Enroller::PORT_DEFAULT)
}
