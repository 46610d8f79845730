//! `dialback enroll`: an enroller beside the CA, and the tokens by which machines join.

use crate::{
    args::{EnrollArgs, EnrollCommand},
    exit::Failure,
    node::runtime,
    output::print,
    signals::Signals,
    until_valid::until_valid,
};
use dialback::{
    BindError, PeerName,
    certs::{CertsDir, TokenError},
    enroll::{Enroller, EnrollerBuilder, EnrollerError},
};
use std::{future::pending, time::SystemTime};

/// Runs the command.
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
            runtime()?.block_on(serve(builder))
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
