//! Output of `dialback certs`: one line per file, and the next step.

use crate::{
    exit::Failure,
    output::{self, columns, count, escape, print, show_path},
};
use dialback::{
    PeerName, Role, Utc,
    certs::{
        self, Action, CrlReport, InitReport, IssueReport, ListedCertificate, PeerRenewal,
        RenewReport, RequestReport, RevokeReport,
    },
};
use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

const DAY_SECS: u64 = 24 * 3600;

pub(super) fn init(report: &InitReport, dir: &Path) -> Result<(), Failure> {
    let until = |time| Utc(time).to_string();
    let crl_until = report.crl_next_update.map_or_else(|| "never".into(), until);
    let (ca_until, domain) = (until(report.ca_not_after), &report.trust_domain);
    print(&columns(&[
        row(report.ca, &report.ca_path, format!("CA of {domain}, expires {ca_until}")),
        row(
            report.ca,
            &report.ca_key_path,
            "private key of the CA: do not copy it to nodes or agents".into(),
        ),
        row(
            report.crl,
            &report.crl_path,
            format!("revocation list, expires {crl_until}; run `dialback certs renew` before"),
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
    let whose = format!("{}, serial {}, expires {until}", report.peer, report.serial);
    let mut rows = vec![row(report.action, &report.cert_path, whose)];
    if report.has_key {
        rows.push(row(report.action, &report.key_path, "private key, for this peer only".into()));
    }
    rows
}

fn start_it(report: &IssueReport, dir: &Path) -> String {
    let (cert, at) = (show_path(&report.cert_path), show_path(dir));
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
    let (cert, at) = (show_path(&report.cert_path), show_path(dir));
    format!("copy {cert}, {at}/ca.pem and {at}/crl.pem to the machine of the key")
}

pub(super) fn request(report: &RequestReport, dir: &Path) -> Result<(), Failure> {
    let csr = show_path(&report.csr_path);
    let key = match report.is_waiting {
        true => {
            "new private key: the current one stays in use until the new certificate is installed"
        }
        false => "private key, stays here",
    };
    print(&columns(&[
        row(report.key, &report.key_path, key.into()),
        row(report.csr, &report.csr_path, "certificate request, for the CA".into()),
    ]))?;
    let PeerName { role, name } = &report.peer;
    let san = if *role == Role::Node { " --san HOST_OR_IP" } else { "" };
    print(&format!(
        "next: at the CA, dialback certs sign {csr} {role} {name}{san}; then copy the certificate, ca.pem and crl.pem back into {}",
        show_path(dir)
    ))
}

pub(super) fn renew(report: &RenewReport, dir: &Path) -> Result<(), Failure> {
    let at = dir_flag(dir);
    let mut rows = vec![];
    for one in &report.peers {
        match one {
            PeerRenewal::Done(report) => rows.extend(rows_of(report).into_iter().take(1)),
            PeerRenewal::Revoked(peer) => rows.push(vec![
                "revoked".into(),
                peer.to_string(),
                format!(
                    "not renewed: certificate or key revoked; `dialback certs issue{at} {} {}` issues a new one",
                    peer.role, peer.name
                ),
            ]),
            PeerRenewal::Expired { peer, not_after } => rows.push(vec![
                "expired".into(),
                peer.to_string(),
                format!(
                    "not renewed: expired at {}; if it is still needed, `dialback certs renew{at} {} {} --expired`",
                    Utc(*not_after), peer.role, peer.name
                ),
            ]),
        }
    }
    rows.push(crl_row(&report.crl));
    print(&columns(&rows))?;
    if report.is_ca_old {
        let until = Utc(report.ca_not_after);
        print(&format!("the CA expires {until}: replace it, see docs/operations.md"))?;
    }
    let is_renewed =
        |one: &&PeerRenewal| matches!(one, PeerRenewal::Done(r) if r.action != Action::Kept);
    match report.peers.iter().filter(is_renewed).count() {
        0 => Ok(()),
        _ => {
            print("next: copy renewed certificates to their peers, and keys that were renewed here")
        }
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
    print_next_step(&report.crl)
}

pub(super) fn crl(report: &CrlReport) -> Result<(), Failure> {
    print(&columns(&[crl_row(report)]))?;
    print_next_step(report)
}

fn print_next_step(crl: &CrlReport) -> Result<(), Failure> {
    let path = show_path(&crl.path);
    print(&format!(
        "next: copy {path} to every node, and to agents and callers that use a revocation list"
    ))
}

fn crl_row(crl: &CrlReport) -> Vec<String> {
    let until = crl.next_update.map_or_else(|| "never".into(), |until| Utc(until).to_string());
    let revoked = count(crl.revoked, "certificate");
    row(
        crl.action,
        &crl.path,
        format!("revocation list {}, {revoked} revoked, expires {until}", crl.number),
    )
}

pub(super) fn list(
    listed: &[ListedCertificate],
    waiting: &[(PeerName, PathBuf)],
    now: SystemTime,
) -> Result<(), Failure> {
    match listed.is_empty() {
        true => print("no certificates issued yet; dialback certs issue ROLE NAME")?,
        false => print(&table(listed, now))?,
    }
    waiting.iter().try_for_each(|(peer, key)| {
        let key = show_path(key);
        print(&format!(
            "new key of {peer} in {key} has no certificate yet; the current key stays in use until then"
        ))
    })
}

fn table(listed: &[ListedCertificate], now: SystemTime) -> String {
    let head = ["PARTY", "STATE", "LEFT", "HOLDS UNTIL", "SERIAL", "HOSTS"];
    let rows = listed.iter().enumerate().map(|(at, one)| {
        let is_newest = !listed[at + 1..].iter().any(|later| later.peer == one.peer);
        vec![
            one.peer.to_string(),
            state(one, is_newest, now).into(),
            days_left(one, now),
            Utc(one.not_after).to_string(),
            escape(&one.serial),
            escape(&one.sans.join(" ")),
        ]
    });
    output::table(&head, rows)
}

/// A replaced certificate is still valid: its key is accepted until it expires or is revoked.
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

pub(super) fn file(file: &Path) -> Result<(), Failure> {
    for (index, one) in certs::inspect(file)?.iter().enumerate() {
        if index > 0 {
            print("")?;
        }
        // Names in a certificate are untrusted text.
        one.to_string().trim_end().lines().try_for_each(|line| print(&escape(line)))?;
    }
    Ok(())
}

fn row(action: Action, path: &Path, text: String) -> Vec<String> {
    vec![action.to_string(), show_path(path), text]
}

/// The flag that names the directory, unless it is the default.
fn dir_flag(dir: &Path) -> String {
    if dir == Path::new("certs") { String::new() } else { format!(" --dir {}", show_path(dir)) }
}
