//! `dialback certs`: makes a CA and certificates, and shows what there is. Keys are never shown.

use crate::{
    args::{CertsArgs, CertsCommand},
    exit::Failure,
    output::{columns, escape, print},
};
use dialback::{
    Role, Utc,
    certs::{self, CertsDir, InitOptions, InitReport, IssueReport, LeafRequest, ListedCertificate},
};
use std::{path::Path, time::SystemTime};

/// Runs the command.
pub(crate) fn run(args: CertsArgs) -> Result<(), Failure> {
    let (at, dir) = (args.dir.as_path(), CertsDir::new(&args.dir));
    let now = SystemTime::now();
    match args.command {
        CertsCommand::Init { trust_domain, force } => {
            let report = dir.init(&InitOptions { trust_domain, force }, now)?;
            tell_init(&report, at)
        }
        CertsCommand::Issue { role, name, san, days, force } => {
            let request = LeafRequest { sans: san, days, force, ..LeafRequest::new(role, name) };
            tell_issue(&dir.issue(&request, now)?, at)
        }
        CertsCommand::List => tell_list(&dir.list()?, now),
        CertsCommand::Inspect { file } => tell_file(&file),
    }
}

fn tell_init(report: &InitReport, dir: &Path) -> Result<(), Failure> {
    let until = |time| Utc(time).to_string();
    let crl_until = report.crl_next_update.map_or_else(|| "no end".into(), until);
    let (ca_until, domain) = (until(report.ca_not_after), &report.trust_domain);
    let row = |action: certs::Action, path: &Path, text: String| {
        vec![action.to_string(), show(path), text]
    };
    print(&columns(&[
        row(report.ca, &report.ca_path, format!("CA of {domain}, holds until {ca_until}")),
        row(report.ca, &report.ca_key_path, "the CA's key: keep it off nodes and agents".into()),
        row(
            report.crl,
            &report.crl_path,
            format!("revocation list, holds until {crl_until}; run init again before"),
        ),
    ]))?;
    let at = dir_flag(dir);
    print(&format!(
        "next: dialback certs issue{at} node NAME --san HOST_OR_IP, then agent NAME and caller NAME"
    ))
}

fn tell_issue(report: &IssueReport, dir: &Path) -> Result<(), Failure> {
    let action = report.action.to_string();
    let until = Utc(report.not_after);
    let whose = format!("{}, serial {}, holds until {until}", report.party, report.serial);
    print(&columns(&[
        vec![action.clone(), show(&report.cert_path), whose],
        vec![action, show(&report.key_path), "its key: for this party only".into()],
    ]))?;
    print(&format!("next: {}", next_step(report, dir)))
}

fn next_step(report: &IssueReport, dir: &Path) -> String {
    let (cert, at) = (show(&report.cert_path), show(dir));
    match report.party.role {
        Role::Node => format!(
            "dialback node --cert {cert} (also needs its key, {at}/ca.pem and {at}/crl.pem there)"
        ),
        Role::Agent => format!(
            "dialback agent --cert {cert} --node HOST:PORT (also needs its key, {at}/ca.pem and {at}/crl.pem there)"
        ),
        Role::Caller => format!(
            "dialback call AGENT SERVICE/METHOD --cert {cert}; a rule of the node must allow {}",
            report.party.name
        ),
    }
}

fn tell_list(listed: &[ListedCertificate], now: SystemTime) -> Result<(), Failure> {
    if listed.is_empty() {
        return print("nothing was issued here yet; dialback certs issue ROLE NAME");
    }
    let head = ["PARTY", "STATE", "HOLDS UNTIL", "SERIAL", "HOSTS"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(listed.iter().map(|one| {
        let state = if one.not_after < now { "expired" } else { "in time" };
        vec![
            one.party.to_string(),
            state.into(),
            Utc(one.not_after).to_string(),
            escape(&one.serial),
            escape(&one.sans.join(" ")),
        ]
    }));
    print(&columns(&rows))
}

fn tell_file(file: &Path) -> Result<(), Failure> {
    for (index, one) in certs::inspect(file)?.iter().enumerate() {
        if index > 0 {
            print("")?;
        }
        // A name in a certificate is somebody else's text.
        one.to_string().trim_end().lines().try_for_each(|line| print(&escape(line)))?;
    }
    Ok(())
}

fn show(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// The flag that names the directory, unless it is the one that is taken anyway.
fn dir_flag(dir: &Path) -> String {
    if dir == Path::new("certs") { String::new() } else { format!(" --dir {}", show(dir)) }
}
