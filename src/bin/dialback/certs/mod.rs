//! `dialback certs`: issues, renews, revokes and shows certificates. Keys are never shown.

pub(crate) mod args;
mod report;

use crate::exit::Failure;
use args::{CertsArgs, CertsCommand};
use dialback::{
    PeerName,
    certs::{CertsDir, InitOptions, RenewOptions},
};
use std::time::SystemTime;

pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let (at, dir) = (args.dir.as_path(), CertsDir::new(&args.dir));
    let now = SystemTime::now();
    match args.command {
        CertsCommand::Init { trust_domain, force } => {
            report::init(&dir.init(&InitOptions { trust_domain, force }, now)?, at)
        }
        CertsCommand::Issue(leaf) => report::issue(&dir.issue(&leaf.into(), now)?, at),
        CertsCommand::Request { peer, force } => {
            report::request(&dir.request(&peer.into(), force)?, at)
        }
        CertsCommand::Sign { file, leaf } => {
            report::issue(&dir.sign(&file, &leaf.into(), now)?, at)
        }
        CertsCommand::Renew { role, name, force, expired } => {
            let only = role.zip(name).map(|(role, name)| PeerName::new(role, name));
            report::renew(&dir.renew(&RenewOptions { only, force, expired }, now)?, at)
        }
        CertsCommand::Revoke(peer) => report::revoke(&dir.revoke(&peer.into(), now)?),
        CertsCommand::Crl => report::crl(&dir.crl(now)?),
        CertsCommand::List => report::list(&dir.list()?, &dir.waiting_keys()?, now),
        CertsCommand::Inspect { file } => report::file(&file),
    }
}
