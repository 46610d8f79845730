//! The last failed calls, changes of links and refusals, for people who ask what happens now. All
//! of it is bounded, whatever peers do.

use super::event::Event;
use crate::{
    limits::{RECENT_EVENTS_MAX, RECENT_TEXT_BYTES_MAX, REFUSAL_KINDS_MAX},
    link::LinkMove,
    printable::{printable, truncated},
    tls::Utc,
};
use serde::Serialize;
use std::{
    collections::{HashMap, VecDeque},
    fmt::Display,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// What happened lately, oldest first.
#[derive(Debug, Default)]
pub(crate) struct RecentEvents(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    failures: VecDeque<FailedCall>,
    links: VecDeque<LinkChange>,
    refusals: HashMap<RefusalKey, Refused>,
}

/// A call that failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct FailedCall {
    pub(crate) at: String,
    pub(crate) call_id: String,
    pub(crate) caller: String,
    pub(crate) agent: Option<String>,
    pub(crate) method: String,
    pub(crate) code: &'static str,
    pub(crate) outcome: &'static str,
    pub(crate) duration_ms: u64,
    pub(crate) reason: String,
}

/// A link that came up, moved or ended, or a peer that began to drain.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct LinkChange {
    pub(crate) at: String,
    pub(crate) peer: String,
    pub(crate) change: &'static str,
    pub(crate) address: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) reason: Option<String>,
}

type RefusalKey = (&'static str, String, String);

#[derive(Debug, Clone)]
struct Refused {
    count: u64,
    last_at: SystemTime,
}

/// One kind of refusal: what was refused to whom, why, and how often.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct RefusalCount {
    pub(crate) what: &'static str,
    pub(crate) who: String,
    pub(crate) reason: String,
    pub(crate) count: u64,
    pub(crate) last_at: String,
}

fn now() -> String {
    Utc(SystemTime::now()).to_string()
}

/// Escapes a text that a peer may have chosen, and cuts it.
pub(super) fn bounded(text: impl Display) -> String {
    let mut text = printable(&text.to_string());
    if text.len() > RECENT_TEXT_BYTES_MAX {
        text.truncate(truncated(&text, RECENT_TEXT_BYTES_MAX).len());
        text.push_str("...");
    }
    text
}

fn push<T>(kept: &mut VecDeque<T>, one: T) {
    if kept.len() == RECENT_EVENTS_MAX {
        kept.pop_front();
    }
    kept.push_back(one);
}

impl Kept {
    /// Counts a refusal. Of many kinds the rarest and oldest is forgotten.
    fn refuse(&mut self, key: RefusalKey) {
        let last_at = SystemTime::now();
        if let Some(refused) = self.refusals.get_mut(&key) {
            *refused = Refused { count: refused.count + 1, last_at };
            return;
        }
        if self.refusals.len() == REFUSAL_KINDS_MAX {
            let rarest = self.refusals.iter().min_by_key(|(_, one)| (one.count, one.last_at));
            if let Some(key) = rarest.map(|(key, _)| key.clone()) {
                self.refusals.remove(&key);
            }
        }
        self.refusals.insert(key, Refused { count: 1, last_at });
    }
}

impl RecentEvents {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn call_failed(&self, failed: FailedCall) {
        push(&mut self.kept().failures, failed);
    }

    pub(super) fn event(&self, event: &Event<'_>) {
        if let Some(change) = link_change(event) {
            push(&mut self.kept().links, change);
        } else if let Some((what, who, reason)) = refusal(event) {
            self.kept().refuse((what, bounded(who), bounded(reason)));
        }
    }
}

#[cfg_attr(not(feature = "admin"), expect(dead_code, reason = "read by the admin listener"))]
impl RecentEvents {
    /// The last failed calls, newest first.
    pub(crate) fn failures(&self) -> Vec<FailedCall> {
        self.kept().failures.iter().rev().cloned().collect()
    }

    /// The last changes of links, newest first.
    pub(crate) fn links(&self) -> Vec<LinkChange> {
        self.kept().links.iter().rev().cloned().collect()
    }

    /// Refusals by kind, the most frequent first.
    pub(crate) fn refusals(&self) -> Vec<RefusalCount> {
        let kinds = self.kept().refusals.clone();
        let mut counts: Vec<_> = kinds
            .into_iter()
            .map(|((what, who, reason), Refused { count, last_at })| {
                let last_at = Utc(last_at).to_string();
                RefusalCount { what, who, reason, count, last_at }
            })
            .collect();
        counts.sort_by(|one, other| other.count.cmp(&one.count).then(one.who.cmp(&other.who)));
        counts
    }
}

fn link_change(event: &Event<'_>) -> Option<LinkChange> {
    let line = |peer: &dyn Display, change| LinkChange {
        at: now(),
        peer: peer.to_string(),
        change,
        address: None,
        path: None,
        reason: None,
    };
    Some(match event {
        Event::LinkUp { peer, address, path } => LinkChange {
            address: Some(address.to_string()),
            path: Some(path.to_string()),
            ..line(peer.peer_name(), "up")
        },
        Event::LinkMoved { peer, moved: LinkMove { old, new } } => LinkChange {
            address: Some(new.address.to_string()),
            path: Some(new.path.to_string()),
            reason: Some(format!("it was at {old}")),
            ..line(peer.peer_name(), "moved")
        },
        Event::PathChanged(change) => LinkChange {
            address: Some(change.address.to_string()),
            path: Some(change.new.to_string()),
            reason: Some(change.cause.to_string()),
            ..line(&format_args!("node/{}", change.node), "moved")
        },
        Event::LinkDown { peer, address, reason, .. } => LinkChange {
            address: Some(address.to_string()),
            reason: Some(bounded(reason)),
            ..line(peer.peer_name(), "down")
        },
        Event::AgentDraining { agent, address, reason, .. } => LinkChange {
            address: Some(address.to_string()),
            reason: Some(bounded(reason)),
            ..line(&format_args!("agent/{agent}"), "draining")
        },
        Event::NodeDraining { node } => line(&format_args!("node/{node}"), "draining"),
        _ => return None,
    })
}

type RefusalParts<'a> = (&'static str, Box<dyn Display + 'a>, Box<dyn Display + 'a>);

fn refusal<'a>(event: &'a Event<'_>) -> Option<RefusalParts<'a>> {
    Some(match event {
        Event::HandshakeRefused { address, peer: Some(peer), reason, .. } => (
            "link",
            Box::new(format!("{} at {}", peer.peer_name(), address.ip())),
            Box::new(reason),
        ),
        Event::HandshakeRefused { address, reason, .. } => {
            ("link", Box::new(address.ip()), Box::new(reason))
        }
        Event::LinkRefused { peer, reason, .. } => {
            ("link", Box::new(peer.peer_name()), Box::new(reason))
        }
        Event::DialRefused { address, reason } => ("dial", Box::new(address), Box::new(reason)),
        Event::CallRefused { caller, method, reason, .. } => {
            ("call", Box::new(caller), Box::new(format!("{method}: {reason}")))
        }
        Event::HttpRefused { address, reason, .. } => ("http", Box::new(address), Box::new(reason)),
        Event::LinkEvicted { peer, limit, .. } => {
            ("link", Box::new(peer), Box::new(format!("it opened more than {limit}")))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        name::{MethodPath, PeerName},
        status::Code,
    };

    fn refuse(recent: &RecentEvents, caller: &str, method: &str) {
        let caller: PeerName = caller.parse().expect("a peer");
        let method: MethodPath = method.parse().expect("a method");
        let (target, via, code) = (None, None, Code::PermissionDenied);
        let reason = &"no rule";
        recent.event(&Event::CallRefused {
            caller: &caller,
            target,
            via,
            method: &method,
            code,
            reason,
        });
    }

    #[test]
    fn refusals_are_counted_by_kind_and_the_most_frequent_come_first() {
        let recent = RecentEvents::default();
        refuse(&recent, "caller/a", "S/M");
        (0..3).for_each(|_| refuse(&recent, "caller/b", "S/M"));
        let counts = recent.refusals();
        let found: Vec<_> = counts.iter().map(|one| (&*one.who, &*one.reason, one.count)).collect();
        assert_eq!(found, [("caller/b", "S/M: no rule", 3), ("caller/a", "S/M: no rule", 1)]);
    }

    #[test]
    fn many_kinds_of_refusals_take_no_more_room_and_leave_the_frequent_ones() {
        let recent = RecentEvents::default();
        (0..2).for_each(|_| refuse(&recent, "caller/often", "S/M"));
        let long = "m".repeat(80);
        for number in 0..10 * REFUSAL_KINDS_MAX {
            refuse(&recent, "caller/c", &format!("S/{long}{number}"));
        }
        let counts = recent.refusals();
        assert_eq!(counts.len(), REFUSAL_KINDS_MAX);
        assert_eq!((&*counts[0].who, counts[0].count), ("caller/often", 2));
    }

    #[test]
    fn texts_of_peers_are_escaped_and_cut() {
        let text = bounded(format!("\x1b[2J{}", "ä".repeat(RECENT_TEXT_BYTES_MAX)));
        assert!(text.starts_with("\\u{1b}[2J") && text.ends_with("ä..."), "{text}");
        assert!(text.len() <= RECENT_TEXT_BYTES_MAX + 3);
    }

    #[test]
    fn only_the_last_changes_of_links_are_kept() {
        let recent = RecentEvents::default();
        let nodes: Vec<crate::name::Name> = (0..2 * RECENT_EVENTS_MAX)
            .map(|number| format!("n{number}").parse().expect("a name"))
            .collect();
        nodes.iter().for_each(|node| recent.event(&Event::NodeDraining { node }));
        let links = recent.links();
        assert_eq!(links.len(), RECENT_EVENTS_MAX);
        assert_eq!(links[0].peer, format!("node/n{}", 2 * RECENT_EVENTS_MAX - 1));
    }
}
