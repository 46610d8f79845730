//! `dialback agent join`, `dialback caller join` and `renew`: certificates from an enroller. Keys and tokens are never shown.

use crate::{
    args::{JoinArgs, JoinCommand, RenewArgs, TlsArgs},
    credentials,
    exit::Failure,
    output::{columns, escape, print},
    signals::{Signals, Stop},
};
use dialback::{
    Code, Credentials, NodeAddress, Role, Status, Utc,
    certs::JoinToken,
    config::TlsFiles,
    enroll::{EnrollError, Join, Joined, Renewal, Renewed},
};
use std::{future::Future, path::Path};

/// Runs the command for one role.
pub(crate) fn run(role: Role, command: JoinCommand) -> Result<(), Failure> {
    match command {
        JoinCommand::Join(args) => join(role, args),
        JoinCommand::Renew(args) => renew(role, args),
    }
}

fn join(role: Role, args: JoinArgs) -> Result<(), Failure> {
    let JoinArgs { enroll, token, name, dir, force } = args;
    let token: JoinToken = token.parse().map_err(|error| Failure::local(&error))?;
    let party = token.party();
    if party.role != role {
        return Err(Failure::usage(format!(
            "the token is for {party}; run `dialback {} join` with it",
            party.role
        )));
    }
    if let Some(name) = name.filter(|name| *name != party.name) {
        return Err(Failure::usage(format!("the token is for {party}, not for {role}/{name}")));
    }
    tell(&wait_for(Join::new(enroll, token, dir).force(force).run())?)
}

fn tell(joined: &Joined) -> Result<(), Failure> {
    let show = |path: &Path| escape(&path.to_string_lossy());
    let whose = format!(
        "{}, serial {}, holds until {}",
        joined.party,
        joined.serial,
        Utc(joined.not_after)
    );
    let files = &joined.files;
    print(&columns(&[
        vec!["made".into(), show(&files.cert), whose],
        vec!["made".into(), show(&files.key), "its key, which never left this machine".into()],
        vec!["there".into(), show(&files.ca), "whom it believes".into()],
    ]))
}

fn renew(role: Role, args: RenewArgs) -> Result<(), Failure> {
    let renewal = renewal(role, args.enroll, args.tls, TlsFiles::default())?;
    present(&renewal, role)?;
    match wait_for(renewal.once())? {
        Renewed::Renewed { party, serial, not_after } => {
            print(&format!("renewed  {party}, serial {serial}, holds until {}", Utc(not_after)))
        }
        Renewed::Kept { party, due } => {
            print(&format!("kept  {party}, due for renewal at {}", Utc(due)))
        }
        _ => Ok(()),
    }
}

/// The renewal of a role's files, after whatever an earlier one had left undone.
pub(crate) fn renewal(
    role: Role,
    enroller: NodeAddress,
    flags: TlsArgs,
    file: TlsFiles,
) -> Result<Renewal, Failure> {
    let renewal = Renewal::new(enroller, credentials::locate(role, flags.into(), file)?);
    if renewal.mend()? {
        tracing::warn!(
            "a renewal had been cut off between certificate and key, and is finished now"
        );
    }
    Ok(renewal)
}

/// The credentials in its files. One that has ended is told with the way to a new one.
pub(crate) fn present(renewal: &Renewal, role: Role) -> Result<Credentials, Failure> {
    let credentials = renewal.credentials()?;
    credentials.expect_role(role)?;
    Ok(credentials)
}

/// What the future gives, unless a signal comes first.
fn wait_for<T>(future: impl Future<Output = Result<T, EnrollError>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(&error))?;
    let result = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        tokio::select! {
            biased;
            stop = signals.next() => Err(Stop::failure(stop)),
            ended = future => ended.map_err(Failure::from),
        }
    });
    // A resolver that still hangs in its thread must not keep the process.
    runtime.shutdown_background();
    result
}

impl From<EnrollError> for Failure {
    fn from(error: EnrollError) -> Self {
        let code = match &error {
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
