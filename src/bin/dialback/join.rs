//! `dialback agent join`, `dialback caller join` and `renew`: certificates from an enroller. Keys
//! and tokens are never shown.

use crate::{
    args::{JoinArgs, JoinCommand, RenewArgs},
    credentials::Locator,
    exit::Failure,
    output::{columns, escape, print},
    signals::{Signals, Stop},
};
use dialback::{
    Code, Credentials, CredentialsError, Role, Status, Utc,
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
    let peer = token.peer();
    if peer.role == Role::Node {
        return Err(Failure::usage(
            "the token is for a node, and enrollers sign agents and callers only; make a node's certificate where its CA is, with `dialback certs issue node NAME --san HOST`",
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
    tell(&wait_for(Join::new(enroll, token, dir).force(force).run())?)
}

fn tell(joined: &Joined) -> Result<(), Failure> {
    let show = |path: &Path| escape(&path.to_string_lossy());
    let whose =
        format!("{}, serial {}, holds until {}", joined.peer, joined.serial, Utc(joined.not_after));
    let files = &joined.files;
    print(&columns(&[
        vec!["made".into(), show(&files.cert), whose],
        vec!["made".into(), show(&files.key), "its key, which never left this machine".into()],
        vec!["there".into(), show(&files.ca), "whom it believes".into()],
    ]))
}

fn renew(role: Role, args: RenewArgs) -> Result<(), Failure> {
    let files = Locator::new(role).locate(args.tls.into(), TlsFiles::default())?;
    let renewal = Renewal::new(args.enroll, files);
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

/// The credentials in the files of a renewal, after whatever an earlier one had left undone. One
/// that has ended is told with the way to a new one.
pub(crate) fn present(renewal: &Renewal, role: Role) -> Result<Credentials, Failure> {
    if renewal.mend()? {
        tracing::warn!(
            "a replacement of certificate and key was cut off between the two, and is finished now"
        );
    }
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
