//! `dialback certs`: makes, renews and revokes certificates, and shows what there is. Keys are
//! never shown.

pub(crate) mod args;
mod tell;

use crate::exit::Failure;
use args::{CertsArgs, CertsCommand};
use dialback::{
    PeerName,
    certs::{CertsDir, InitOptions, RenewOptions},
};
use std::time::SystemTime;

/// Runs the command.
pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let (at, dir) = (args.dir.as_path(), CertsDir::new(&args.dir));
    let now = SystemTime::now();
    match args.command {
        CertsCommand::Init { trust_domain, force } => {
            tell::init(&dir.init(&InitOptions { trust_domain, force }, now)?, at)
        }
        CertsCommand::Issue { leaf } => tell::issue(&dir.issue(&leaf.into(), now)?, at),
        CertsCommand::Request { party, force } => {
            tell::request(&dir.request(&party.into(), force)?, at)
        }
        CertsCommand::Sign { file, leaf } => tell::issue(&dir.sign(&file, &leaf.into(), now)?, at),
        CertsCommand::Renew { role, name, force, expired } => {
            let only = role.zip(name).map(|(role, name)| PeerName::new(role, name));
            tell::renew(&dir.renew(&RenewOptions { only, force, expired }, now)?, at)
        }
        CertsCommand::Revoke { party } => tell::revoke(&dir.revoke(&party.into(), now)?),
        CertsCommand::Crl => tell::crl(&dir.crl(now)?),
        CertsCommand::List => tell::list(&dir.list()?, &dir.waiting_keys()?, now),
        CertsCommand::Inspect { file } => tell::file(&file),
    }
}
