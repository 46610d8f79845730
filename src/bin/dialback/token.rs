//! `dialback token`: bearer tokens of callers that come over HTTP.

use crate::{
    args::{TokenArgs, TokenCommand},
    exit::Failure,
    output::{columns, escape, print, print_all, print_json},
};
use dialback::{
    Utc,
    tokens::{TokenFile, TokenInfo, TokensError},
};
use serde_json::{Value, json};
use std::time::SystemTime;

/// Runs the command.
pub(crate) fn run(args: TokenArgs) -> Result<(), Failure> {
    let (file, now) = (TokenFile::new(args.file), SystemTime::now());
    match args.command {
        TokenCommand::Create { name, ttl } => {
            let token = file.create(&name, ttl, now)?;
            shown(print_all(token.as_str())).inspect_err(|_| {
                // What nobody has seen must not stay good.
                if let Err(error) = file.revoke(&name, Some(&token.id())) {
                    tracing::error!(
                        "the token {} of {name} stays in the file: {error}",
                        token.id()
                    );
                }
            })
        }
        TokenCommand::List { json: true } => print_json(&listing(&file.list()?, now)),
        TokenCommand::List { json: false } => print(&table(&file.list()?, now)),
        TokenCommand::Revoke { name, id } => {
            let revoked = file.revoke(&name, id.as_deref())?;
            let lines: Vec<_> = revoked.iter().map(|token| told(token, now)).collect();
            print(&lines.join("\n"))
        }
    }
}

/// A token that was not shown is lost, and then it is worth saying that nothing was made.
fn shown(printed: Result<(), Failure>) -> Result<(), Failure> {
    printed.map_err(|failure| {
        let mut lines = failure.lines();
        lines.push("the token was not printed and is revoked".into());
        Failure::Runtime(lines)
    })
}

const fn state(is_expired: bool) -> &'static str {
    if is_expired { "expired" } else { "valid" }
}

fn told(token: &TokenInfo, now: SystemTime) -> String {
    let until = if token.is_expired(now) { "it was over at" } else { "it was good until" };
    escape(&format!("revoked {} of {}; {until} {}", token.id(), token.name, Utc(token.expires)))
}

fn table(tokens: &[TokenInfo], now: SystemTime) -> String {
    if tokens.is_empty() {
        return "no tokens".into();
    }
    let head = ["ID", "CALLER", "STATE", "CREATED", "EXPIRES"];
    let row = |token: &TokenInfo| {
        let [created, expires] = [token.created, token.expires].map(|time| Utc(time).to_string());
        vec![
            token.id(),
            token.name.to_string(),
            state(token.is_expired(now)).into(),
            created,
            expires,
        ]
    };
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(tokens.iter().map(row));
    columns(&rows)
}

fn listing(tokens: &[TokenInfo], now: SystemTime) -> Value {
    let one = |token: &TokenInfo| {
        json!({
            "id": token.id(),
            "caller": token.name.as_str(),
            "state": state(token.is_expired(now)),
            "created": Utc(token.created).to_string(),
            "expires": Utc(token.expires).to_string(),
        })
    };
    tokens.iter().map(one).collect()
}

impl From<TokensError> for Failure {
    fn from(error: TokensError) -> Self {
        match &error {
            TokensError::Unwritable { .. } => Self::runtime(&error),
            TokensError::Lines(faults) => {
                Self::Local(faults.iter().map(ToString::to_string).collect())
            }
            _ => Self::local(&error),
        }
    }
}
