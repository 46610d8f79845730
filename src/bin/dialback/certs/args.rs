//! What is typed after `dialback certs`.

use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{Name, PeerName, Role, certs::LeafRequest};
use std::path::PathBuf;

/// `dialback certs`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  dialback certs init
  dialback certs issue node edge-1 --san edge-1.example.com
  dialback certs issue agent warehouse
A key that never leaves its machine:
  dialback certs request agent warehouse            (there)
  dialback certs sign agent-warehouse.csr agent warehouse     (where the CA is)
From a timer: dialback certs renew
What is good is kept, so that every command can be repeated.")]
pub(crate) struct CertsArgs {
    /// The directory of the CA and of what it signed
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

/// `dialback certs ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Makes a CA and an empty revocation list, or keeps those that are good
    #[command(after_help = "Example: dialback certs init --trust-domain acme.example")]
    Init {
        /// The trust domain of the CA [default: that of the CA that is there, else dialback.local]
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: Option<String>,
        /// Replace a CA that is there; all that it signed is then worthless
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
    },
    /// Makes a certificate and its key, or keeps the ones that are good
    #[command(after_help = "\
Examples:
  dialback certs issue node edge-1 --san edge-1.example.com 203.0.113.7
  dialback certs issue agent acme.warehouse-1
  dialback certs issue caller billing --days 30
A party whose certificate was revoked gets a new one.")]
    Issue {
        /// What to make.
        #[command(flatten)]
        leaf: LeafArgs,
    },
    /// Makes a key and a request for its certificate, where the key is to stay; needs no CA
    #[command(after_help = "\
Example: dialback certs request agent warehouse
Bring the .csr to the CA, and what `dialback certs sign` makes of it back; the key stays.")]
    Request {
        /// Whose.
        #[command(flatten)]
        party: PartyArgs,
        /// Make a new key even if there is one, which stays in use until the certificate of the new
        /// one is here
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
    },
    /// Signs a certificate for the public key of a request, and takes nothing else from it
    #[command(after_help = "\
Examples:
  dialback certs sign agent-warehouse.csr agent warehouse
  dialback certs sign edge-1.csr node edge-1 --san edge-1.example.com
Names, hosts and uses that the request asks for are not given: role, name and --san decide.")]
    Sign {
        /// The request, in PEM
        #[arg(value_name = "FILE.csr")]
        file: PathBuf,
        /// What to make.
        #[command(flatten)]
        leaf: LeafArgs,
    },
    /// Makes again what was issued here and is in the last third of its life, and the list if that
    /// is due
    #[command(after_help = "\
Examples:
  dialback certs renew
  dialback certs renew node edge-1 --force
  dialback certs renew agent warehouse --expired
Hosts and length of life stay as they are. A certificate that was signed from a request is
signed again for the same key. Revoked and expired certificates are left alone and listed.")]
    Renew {
        /// node, agent or caller; without one all of them
        #[arg(requires = "name")]
        role: Option<Role>,
        /// The party's name
        name: Option<Name>,
        /// Do not wait for the last third
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
        /// Renew expired certificates too
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        expired: bool,
    },
    /// Revokes every certificate of a party, and signs the list
    #[command(after_help = "\
Example: dialback certs revoke agent warehouse
The list takes effect where it is installed: bring crl.pem to the nodes.")]
    Revoke {
        /// Whose.
        #[command(flatten)]
        party: PartyArgs,
    },
    /// Signs the revocation list again, with the next number and 30 days to go
    #[command(after_help = "Example: dialback certs crl")]
    Crl,
    /// Lists every certificate that was issued here, how long it holds and whether it was revoked
    #[command(after_help = "Example: dialback certs list --dir certs")]
    List,
    /// Shows what is in a PEM file: certificates, revocation lists, requests; of keys only that
    /// they are keys
    #[command(after_help = "Example: dialback certs inspect certs/agent-warehouse.pem")]
    Inspect {
        /// A PEM file
        file: PathBuf,
    },
}

/// A party.
#[derive(Debug, Args)]
pub(crate) struct PartyArgs {
    /// node, agent or caller
    role: Role,
    /// The party's name: a-z, 0-9 and - in labels joined by dots
    name: Name,
}

impl From<PartyArgs> for PeerName {
    fn from(args: PartyArgs) -> Self {
        Self::new(args.role, args.name)
    }
}

/// A certificate to make.
#[derive(Debug, Args)]
pub(crate) struct LeafArgs {
    /// Whose.
    #[command(flatten)]
    party: PartyArgs,
    /// Names and IP addresses under which a node is dialled
    #[arg(long, value_name = "HOST_OR_IP", num_args = 1.., value_delimiter = ',')]
    san: Vec<String>,
    /// How many days it holds
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Make a new one even if the present one is good
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    force: bool,
}

impl From<LeafArgs> for LeafRequest {
    fn from(args: LeafArgs) -> Self {
        let LeafArgs { party: PartyArgs { role, name }, san, days, force } = args;
        Self { sans: san, days, force, ..Self::new(role, name) }
    }
}
