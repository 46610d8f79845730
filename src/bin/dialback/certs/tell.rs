//! What `dialback certs` says of what it did: a line for each file, and what comes next.

use crate::{
    exit::Failure,
    output::{columns, escape, print},
};
use dialback::{
    PeerName, Role, Utc,
    certs::{
        self, Action, CrlReport, InitReport, IssueReport, ListedCertificate, RenewReport, Renewal,
        RequestReport, RevokeReport,
    },
};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

const DAY_SECS: u64 = 24 * 3600;

pub(super) fn init(report: &InitReport, dir: &Path) -> Result<(), Failure> {
    let until = |time| Utc(time).to_string();
    let crl_until = report.crl_next_update.map_or_else(|| "no end".into(), until);
    let (ca_until, domain) = (until(report.ca_not_after), &report.trust_domain);
    print(&columns(&[
        row(report.ca, &report.ca_path, format!("CA of {domain}, holds until {ca_until}")),
        row(report.ca, &report.ca_key_path, "the CA's key: keep it off nodes and agents".into()),
        row(
            report.crl,
            &report.crl_path,
            format!("revocation list, holds until {crl_until}; run `dialback certs renew` before"),
        ),
    ]))?;
    let at = dir_flag(dir);
    print(&format!(
        "next: dialback certs issue{at} node NAME --san HOST_OR_IP, then agent NAME and caller NAME"
    ))
}

pub(super) fn issue(report: &IssueReport, dir: &Path) -> Result<(), Failure> {
    print(&columns(&rows_of(report)))?;
    let next = if report.has_key { start_it(report, dir) } else { bring_it(report, dir) };
    print(&format!("next: {next}"))
}

fn rows_of(report: &IssueReport) -> Vec<Vec<String>> {
    let until = Utc(report.not_after);
    let whose = format!("{}, serial {}, holds until {until}", report.peer, report.serial);
    let mut rows = vec![row(report.action, &report.cert_path, whose)];
    if report.has_key {
        rows.push(row(report.action, &report.key_path, "its key: for this party only".into()));
    }
    rows
}

fn start_it(report: &IssueReport, dir: &Path) -> String {
    let (cert, at) = (show(&report.cert_path), show(dir));
    match report.peer.role {
        Role::Node => format!(
            "dialback node --cert {cert} (also needs its key, {at}/ca.pem and {at}/crl.pem there)"
        ),
        Role::Agent => format!(
            "dialback agent --cert {cert} --node HOST:PORT (also needs its key, {at}/ca.pem and {at}/crl.pem there)"
        ),
        Role::Caller => format!(
            "dialback call AGENT SERVICE/METHOD --cert {cert}; a rule of the node must allow {}",
            report.peer.name
        ),
    }
}

fn bring_it(report: &IssueReport, dir: &Path) -> String {
    let (cert, at) = (show(&report.cert_path), show(dir));
    format!("bring {cert}, {at}/ca.pem and {at}/crl.pem to where its key is")
}

pub(super) fn request(report: &RequestReport, dir: &Path) -> Result<(), Failure> {
    let csr = show(&report.csr_path);
    let key = match report.is_waiting {
        true => "its new key: waits here; the former one is in use until the certificate is here",
        false => "its key: stays here",
    };
    print(&columns(&[
        row(report.key, &report.key_path, key.into()),
        row(report.csr, &report.csr_path, "the request for its certificate, for the CA".into()),
    ]))?;
    let PeerName { role, name } = &report.peer;
    let san = if *role == Role::Node { " --san HOST_OR_IP" } else { "" };
    print(&format!(
        "next: where the CA is, dialback certs sign {csr} {role} {name}{san}; then bring the certificate it makes, ca.pem and crl.pem back into {}",
        show(dir)
    ))
}

pub(super) fn renew(report: &RenewReport, dir: &Path) -> Result<(), Failure> {
    let at = dir_flag(dir);
    let mut rows = vec![];
    for one in &report.peers {
        match one {
            Renewal::Done(report) => rows.extend(rows_of(report).into_iter().take(1)),
            Renewal::Revoked(peer) => rows.push(vec![
                "revoked".into(),
                peer.to_string(),
                format!(
                    "left alone, certificate or key revoked; `dialback certs issue{at} {} {}` brings it back",
                    peer.role, peer.name
                ),
            ]),
            Renewal::Expired { peer, not_after } => rows.push(vec![
                "expired".into(),
                peer.to_string(),
                format!(
                    "left alone, expired at {}; if it is still in use, `dialback certs renew{at} {} {} --expired`",
                    Utc(*not_after), peer.role, peer.name
                ),
            ]),
        }
    }
    rows.push(crl_row(&report.crl));
    print(&columns(&rows))?;
    if report.is_ca_old {
        let until = Utc(report.ca_not_after);
        print(&format!("the CA holds until {until}: change it over, by docs/operations.md"))?;
    }
    let is_renewed = |one: &&Renewal| matches!(one, Renewal::Done(r) if r.action != Action::Kept);
    match report.peers.iter().filter(is_renewed).count() {
        0 => Ok(()),
        _ => print(
            "next: bring what was renewed to its party, the key too where it was renewed here",
        ),
    }
}

pub(super) fn revoke(report: &RevokeReport) -> Result<(), Failure> {
    let peer = &report.peer;
    let mut rows: Vec<_> = report
        .revoked
        .iter()
        .map(|serial| {
            vec!["revoked".into(), peer.to_string(), format!("serial {}", escape(serial))]
        })
        .collect();
    if report.before > 0 {
        let before = format!("{} before", count(report.before, "certificate"));
        rows.push(vec!["kept".into(), peer.to_string(), format!("{before}, still revoked")]);
    }
    rows.push(crl_row(&report.crl));
    print(&columns(&rows))?;
    tell_where_to(&report.crl)
}

pub(super) fn crl(report: &CrlReport) -> Result<(), Failure> {
    print(&columns(&[crl_row(report)]))?;
    tell_where_to(report)
}

fn tell_where_to(crl: &CrlReport) -> Result<(), Failure> {
    let path = show(&crl.path);
    print(&format!(
        "next: bring {path} to every node, and to agents and callers that mind one; it takes effect there"
    ))
}

fn crl_row(crl: &CrlReport) -> Vec<String> {
    let until = crl.next_update.map_or_else(|| "no end".into(), |until| Utc(until).to_string());
    let revoked = count(crl.revoked, "certificate");
    row(
        crl.action,
        &crl.path,
        format!("revocation list {}, {revoked} revoked, holds until {until}", crl.number),
    )
}

pub(super) fn list(
    listed: &[ListedCertificate],
    waiting: &[(PeerName, PathBuf)],
    now: SystemTime,
) -> Result<(), Failure> {
    match listed.is_empty() {
        true => print("nothing was issued here yet; dialback certs issue ROLE NAME")?,
        false => print(&table(listed, now))?,
    }
    waiting.iter().try_for_each(|(peer, key)| {
        let key = show(key);
        print(&format!(
            "a new key of {peer} waits for its certificate in {key}; the former one is in use until then"
        ))
    })
}

fn table(listed: &[ListedCertificate], now: SystemTime) -> String {
    let head = ["PARTY", "STATE", "LEFT", "HOLDS UNTIL", "SERIAL", "HOSTS"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(listed.iter().enumerate().map(|(at, one)| {
        let is_newest = !listed[at + 1..].iter().any(|later| later.peer == one.peer);
        vec![
            one.peer.to_string(),
            state(one, is_newest, now).into(),
            days_left(one, now),
            Utc(one.not_after).to_string(),
            escape(&one.serial),
            escape(&one.sans.join(" ")),
        ]
    }));
    columns(&rows)
}

/// What was replaced still holds: whoever has its key is let in until its time is over, or it is
/// revoked.
fn state(one: &ListedCertificate, is_newest: bool, now: SystemTime) -> &'static str {
    let life = one.not_after.duration_since(one.not_before).unwrap_or_default();
    match one.not_after.duration_since(now) {
        _ if one.revoked.is_some() => "revoked",
        Err(_) => "expired",
        Ok(_) if !is_newest => "replaced",
        Ok(left) if left <= life / 3 => "due",
        Ok(_) => "in time",
    }
}

fn days_left(one: &ListedCertificate, now: SystemTime) -> String {
    match one.not_after.duration_since(now) {
        Ok(left) if one.revoked.is_none() => {
            let days = left.as_secs() / DAY_SECS;
            count(usize::try_from(days).unwrap_or(usize::MAX), "day")
        }
        _ => "none".into(),
    }
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

pub(super) fn file(file: &Path) -> Result<(), Failure> {
    for (index, one) in certs::inspect(file)?.iter().enumerate() {
        if index > 0 {
            print("")?;
        }
        // A name in a certificate is somebody else's text.
        one.to_string().trim_end().lines().try_for_each(|line| print(&escape(line)))?;
    }
    Ok(())
}

fn row(action: Action, path: &Path, text: String) -> Vec<String> {
    vec![action.to_string(), show(path), text]
}

fn show(path: &Path) -> String {
    escape(&path.to_string_lossy())
}

/// The flag that names the directory, unless it is the one that is taken anyway.
fn dir_flag(dir: &Path) -> String {
    if dir == Path::new("certs") { String::new() } else { format!(" --dir {}", show(dir)) }
}
