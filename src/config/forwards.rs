//! `[[tcp]]` of an agent's file: TCP forwards.

use super::{
    setting::SettingTable,
    table::Table,
    value::{duration, show_duration, text},
};
use crate::{
    agent::{TcpForward, Upstream, UpstreamCheck},
    name::Name,
};
use std::{ops::RangeInclusive, time::Duration};

const IDLE_RANGE: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(86_400);
const CONNECT_RANGE: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(60);

/// Reads `[[tcp]]`. Forwards with a fault are left out; the fault refuses the file.
pub(super) fn read_tcp(file: &mut Table<'_>) -> Vec<TcpForward> {
    let mut forwards: Vec<TcpForward> = Vec::new();
    for mut table in file.tables("tcp", "[[tcp]]") {
        let name = table.required::<Name>("name", "db");
        let upstream = table.required::<Upstream>("upstream", "127.0.0.1:5432");
        let idle = table.optional("idle", duration(IDLE_RANGE));
        let connect = table.optional("connect_timeout", duration(CONNECT_RANGE));
        let health = table.optional("health", tcp_check);
        if let Some(name) = name.as_ref().filter(|name| is_taken(&forwards, name)) {
            table.fault("name", format!("`name`: duplicate [[tcp]] {name}"));
        }
        table.finish();
        let (Some(name), Some(upstream)) = (name, upstream) else { continue };
        let mut forward = TcpForward::new(name, upstream);
        if let Some(idle) = idle {
            forward = forward.idle_max(idle);
        }
        if let Some(wait) = connect {
            forward = forward.connect_wait_max(wait);
        }
        if health.is_some() {
            forward = forward.checked();
        }
        forwards.push(forward);
    }
    forwards
}

/// Lists `[[tcp]]`.
pub(super) fn list_tcp(forwards: &[TcpForward]) -> impl Iterator<Item = SettingTable> {
    forwards.iter().map(|forward| {
        let [idle, connect] = forward.times().map(|time| Some(show_duration(time)));
        SettingTable::one_of("tcp")
            .set_text("name", Some(forward.name()))
            .set_text("upstream", Some(forward.upstream()))
            .set_text("idle", idle)
            .set_text("connect_timeout", connect)
            .set_text("health", forward.is_checked().then_some(UpstreamCheck::Connect))
    })
}

/// The check of a TCP upstream, which answers no GET.
fn tcp_check(value: &toml::de::DeValue<'_>) -> Result<UpstreamCheck, String> {
    match text("connect")(value)? {
        UpstreamCheck::Connect => Ok(UpstreamCheck::Connect),
        other => Err(format!("\"{other}\" is for HTTP; write \"connect\"")),
    }
}

fn is_taken(forwards: &[TcpForward], name: &Name) -> bool {
    forwards.iter().any(|forward| forward.name() == name)
}
