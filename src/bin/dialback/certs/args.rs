//! Arguments of `dialback certs`.

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
With a key that never leaves its machine:
  dialback certs request agent warehouse            (on that machine)
  dialback certs sign agent-warehouse.csr agent warehouse     (at the CA)
From a timer: dialback certs renew
Valid files are kept, so every command can be repeated.")]
pub(crate) struct CertsArgs {
    /// Directory of the CA and of the certificates that it signed
    #[arg(long, global = true, value_name = "DIR", default_value = "certs")]
    pub(crate) dir: PathBuf,
    #[command(subcommand)]
    pub(crate) command: CertsCommand,
}

/// `dialback certs ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum CertsCommand {
    /// Create a CA and an empty revocation list, or keep valid ones
    #[command(after_help = "Example: dialback certs init --trust-domain acme.example")]
    Init {
        /// Trust domain of the CA [default: that of the existing CA, else dialback.local]
        #[arg(long, value_name = "DOMAIN")]
        trust_domain: Option<String>,
        /// Replace an existing CA; certificates that it signed become invalid
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
    },
    /// Issue a certificate and its key, or keep valid ones
    #[command(after_help = "\
Examples:
  dialback certs issue node edge-1 --san edge-1.example.com 203.0.113.7
  dialback certs issue agent acme.warehouse-1
  dialback certs issue caller billing --days 30
A peer whose certificate was revoked gets a new one.")]
    Issue(LeafArgs),
    /// Generate a key and a certificate request on the machine of the key; needs no CA
    #[command(after_help = "\
Example: dialback certs request agent warehouse
Copy the .csr to the CA, and the certificate that `dialback certs sign` issues back.")]
    Request {
        #[command(flatten)]
        peer: PeerArgs,
        /// Generate a new key even if one exists, which stays in use until the new certificate is
        /// installed
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
    },
    /// Sign a certificate for the public key of a certificate request
    #[command(after_help = "\
Examples:
  dialback certs sign agent-warehouse.csr agent warehouse
  dialback certs sign edge-1.csr node edge-1 --san edge-1.example.com
Only the public key is taken from the request: role, name and --san decide the rest.")]
    Sign {
        /// Certificate request (PEM)
        #[arg(value_name = "FILE.csr")]
        file: PathBuf,
        #[command(flatten)]
        leaf: LeafArgs,
    },
    /// Renew certificates in the last third of their lifetime, and the revocation list if it is due
    #[command(after_help = "\
Examples:
  dialback certs renew
  dialback certs renew node edge-1 --force
  dialback certs renew agent warehouse --expired
Hosts and lifetime are kept. A certificate that was signed from a request is signed again for
the same key. Revoked and expired certificates are listed and not renewed.")]
    Renew {
        /// node, agent or caller [default: all]
        #[arg(requires = "name")]
        role: Option<Role>,
        /// Name of the peer
        name: Option<Name>,
        /// Renew before the last third of the lifetime
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        force: bool,
        /// Also renew expired certificates
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        expired: bool,
    },
    /// Revoke all certificates of a peer, and sign the revocation list
    #[command(after_help = "\
Example: dialback certs revoke agent warehouse
The list takes effect where it is installed: copy crl.pem to the nodes.")]
    Revoke(PeerArgs),
    /// Sign the revocation list again, with the next number, valid for 30 days
    #[command(after_help = "Example: dialback certs crl")]
    Crl,
    /// List all issued certificates with their expiry and revocation
    #[command(after_help = "Example: dialback certs list --dir certs")]
    List,
    /// Show the contents of a PEM file: certificates, revocation lists, requests; keys are not
    /// shown
    #[command(after_help = "Example: dialback certs inspect certs/agent-warehouse.pem")]
    Inspect {
        /// PEM file
        file: PathBuf,
    },
}

/// Role and name of a peer.
#[derive(Debug, Args)]
pub(crate) struct PeerArgs {
    /// node, agent or caller
    role: Role,
    /// Name of the peer: a-z, 0-9 and - in labels joined by dots
    name: Name,
}

impl From<PeerArgs> for PeerName {
    fn from(args: PeerArgs) -> Self {
        Self::new(args.role, args.name)
    }
}

/// A certificate to make.
#[derive(Debug, Args)]
pub(crate) struct LeafArgs {
    /// The peer.
    #[command(flatten)]
    peer: PeerArgs,
    /// DNS names and IP addresses of a node
    #[arg(long, value_name = "HOST_OR_IP", num_args = 1.., value_delimiter = ',')]
    san: Vec<String>,
    /// Lifetime in days
    #[arg(long, default_value_t = 90)]
    days: u32,
    /// Issue a new certificate even if the present one is valid
    #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    force: bool,
}

impl From<LeafArgs> for LeafRequest {
    fn from(args: LeafArgs) -> Self {
        let LeafArgs { peer: PeerArgs { role, name }, san, days, force } = args;
        Self { sans: san, days, force, ..Self::new(role, name) }
    }
}
