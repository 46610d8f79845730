//! `dialback token`: bearer tokens of callers of the HTTP gateway.

use crate::{
    exit::Failure,
    output::{self, escape, print, print_all, print_json},
};
use clap::{ArgAction, Args, Subcommand, builder::BoolishValueParser};
use dialback::{
    Name, Utc,
    config::parse_duration,
    tokens::{TokenFile, TokenInfo, TokensError},
};
use serde_json::Value;
use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

/// `dialback token`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  dialback token create billing --ttl 30d --file certs/tokens
  dialback token list --json
  dialback token revoke billing
The file holds hashes of tokens. A node whose [gateway] names the file reloads it within a second.
The bearer of a token is the caller of that name in [[allow]] and [[deny]].")]
pub(crate) struct TokenArgs {
    /// File of the tokens; created if missing
    #[arg(long, global = true, value_name = "FILE", default_value = "certs/tokens")]
    pub(crate) file: PathBuf,
    #[command(subcommand)]
    pub(crate) command: TokenCommand,
}

/// `dialback token ...`.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Create a token and print it: one line, the only copy. Other tokens of the name stay valid
    #[command(after_help = "\
Example: dialback token create billing --ttl 30d
  curl -H \"Authorization: Bearer $TOKEN\" http://127.0.0.1:8080/v1/agents")]
    Create {
        /// Name of the caller
        name: Name,
        /// Lifetime of the token, at most 366d
        #[arg(long, value_name = "DURATION", default_value = BEARER_TTL, value_parser = parse_duration)]
        ttl: Duration,
    },
    /// List tokens with their caller and expiry
    List {
        /// Print one JSON array
        #[arg(long, action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
        json: bool,
    },
    /// Revoke all tokens of a caller, or one of them
    #[command(after_help = "\
Example: dialback token revoke billing --id 3f2a91c07b5d
`dialback token list` shows ids; for a leaked token, `printf %s TOKEN | sha256sum` begins with
its id.")]
    Revoke {
        /// Name of the caller
        name: Name,
        /// Id of the only token to revoke
        #[arg(long, value_name = "ID")]
        id: Option<String>,
    },
}

/// Default of the library, as text for help.
const BEARER_TTL: &str = "30d";

pub(crate) fn run(args: TokenArgs) -> Result<(), Failure> {
    let (file, now) = (TokenFile::new(args.file), SystemTime::now());
    match args.command {
        TokenCommand::Create { name, ttl } => {
            let token = file.create(&name, ttl, now)?;
            shown(print_all(token.as_str())).inspect_err(|_| {
                // A token that was not shown must not stay valid.
                if let Err(error) = file.revoke(&name, Some(&token.id())) {
                    let id = token.id();
                    tracing::error!(
                        caller = %name,
                        reason = %error,
                        "cannot revoke token {id} of {name}, it stays valid: {error}"
                    );
                }
            })
        }
        TokenCommand::List { json: true } => print_json(&listing(&file.list()?, now)),
        TokenCommand::List { json: false } => print(&table(&file.list()?, now)),
        TokenCommand::Revoke { name, id } => {
            let revoked = file.revoke(&name, id.as_deref())?;
            let lines: Vec<_> = revoked.iter().map(|token| line_of(token, now)).collect();
            print(&lines.join("\n"))
        }
    }
}

/// Adds to the error of printing a token that the token is revoked.
fn shown(printed: Result<(), Failure>) -> Result<(), Failure> {
    printed.map_err(|failure| {
        let mut lines = failure.lines();
        lines.push("token revoked because it could not be printed".into());
        Failure::Runtime(lines)
    })
}

fn line_of(token: &TokenInfo, now: SystemTime) -> String {
    let until = if token.is_expired(now) { "expired at" } else { "valid until" };
    escape(&format!(
        "revoked token {} of {}, {until} {}",
        token.id(),
        token.name,
        Utc(token.expires)
    ))
}

/// Keys of the JSON; the titles of the table are the same in capitals.
const KEYS: [&str; 5] = ["id", "caller", "state", "created", "expires"];

fn row(token: &TokenInfo, now: SystemTime) -> [String; 5] {
    let [created, expires] = [token.created, token.expires].map(|time| Utc(time).to_string());
    let state = if token.is_expired(now) { "expired" } else { "valid" };
    [token.id(), token.name.to_string(), state.into(), created, expires]
}

fn table(tokens: &[TokenInfo], now: SystemTime) -> String {
    if tokens.is_empty() {
        return "no tokens".into();
    }
    let rows = tokens.iter().map(|token| row(token, now).to_vec());
    output::table(&KEYS.map(str::to_uppercase), rows)
}

fn listing(tokens: &[TokenInfo], now: SystemTime) -> Value {
    let object = |token| KEYS.into_iter().zip(row(token, now)).collect::<Value>();
    tokens.iter().map(object).collect()
}

impl From<TokensError> for Failure {
    fn from(error: TokensError) -> Self {
        match error {
            TokensError::Lines(faults) => faults.into(),
            _ => Self::of(&error, matches!(error, TokensError::Unwritable { .. })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_a_bearer_token_is_that_of_the_library() {
        assert_eq!(parse_duration(BEARER_TTL), Ok(dialback::limits::BEARER_TTL_DEFAULT));
    }
}
