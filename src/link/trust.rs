//! Whom one endpoint trusts at the moment, and the links that were made under it: they are judged
//! again when that changes, and end with the certificates that they were made with.

use super::{
    connection::{Link, LinkInner},
    fault::LinkFault,
    peer_chain,
};
use crate::{
    limits::{RENEW_BEFORE_EXPIRY, TRUST_CHECK_EVERY},
    net::SharedNet,
    tls::{Credentials, ExpiryWarnings, RevalidationError},
    wire::CloseCode,
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak},
    time::SystemTime,
};

/// The credentials of the moment and the links that are up.
pub(crate) struct TrustedLinks {
    net: SharedNet,
    credentials: RwLock<Credentials>,
    /// Those by which every link was judged last.
    judged: Mutex<Credentials>,
    links: Mutex<VerifiedLinks>,
}

#[derive(Default)]
struct VerifiedLinks {
    all: Vec<Weak<LinkInner>>,
    /// With so many, those that have ended are taken out: so a link costs the same however many
    /// there are.
    tidy_at: usize,
}

impl VerifiedLinks {
    fn add(&mut self, link: &Link) {
        if self.all.len() >= self.tidy_at {
            self.all.retain(|one| one.strong_count() > 0);
            self.tidy_at = 2 * self.all.len() + 16;
        }
        self.all.push(Arc::downgrade(&link.0));
    }
}

impl TrustedLinks {
    /// Begins with these.
    pub(super) fn new(net: SharedNet, credentials: Credentials) -> Self {
        let judged = Mutex::new(credentials.clone());
        Self { net, credentials: RwLock::new(credentials), judged, links: Mutex::default() }
    }

    /// The network that its links are made on.
    pub(super) const fn net(&self) -> &SharedNet {
        &self.net
    }

    /// Those of the moment.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// From now on new links are made with these. [`TrustedLinks::judge_all`] says what becomes of those
    /// that are up.
    pub(super) fn replace(&self, credentials: Credentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// One more link, made under these credentials. If they have been replaced meanwhile, it is
    /// judged at once: whoever replaces them looks through the list after that, so that one of the
    /// two sees the link.
    pub(super) fn add(&self, link: &Link, under: &Credentials) {
        self.links.lock().unwrap_or_else(PoisonError::into_inner).add(link);
        let now = self.credentials();
        if !now.is_same(under) {
            link.judge(&now, self.net.now());
        }
    }

    /// The links that are up.
    pub(super) fn up(&self) -> Vec<Link> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let links = links.all.iter().filter_map(Weak::upgrade).map(Link);
        links.filter(|link| !link.is_closed()).collect()
    }

    /// Whether any link is up.
    pub(crate) fn is_any_up(&self) -> bool {
        !self.up().is_empty()
    }

    /// Judges every link that is up, and closes those that do not pass. Gives how many those were.
    /// Costs a verified chain a link, and lets others run in between.
    pub(crate) async fn judge_all(&self) -> usize {
        let (credentials, mut closed) = (self.credentials(), 0);
        for link in self.up() {
            closed += usize::from(!link.judge(&credentials, self.net.now()));
            tokio::task::yield_now().await;
        }
        *self.judged() = credentials;
        closed
    }

    fn judged(&self) -> MutexGuard<'_, Credentials> {
        self.judged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes links at the end of the chains that they were made with, judges them if the program
    /// that replaced the credentials has not seen to it, and says what of our own is about to end,
    /// for as long as it is polled. The clock on the wall counts, because certificates know no
    /// other.
    pub(crate) async fn watch_expiry(&self, warn: impl Fn(&str)) {
        let mut reminder = ExpiryWarnings::default();
        loop {
            let now = self.net.now();
            let credentials = self.credentials();
            if !credentials.is_same(&self.judged()) {
                self.judge_all().await;
            }
            reminder.due(&credentials, now).iter().for_each(|line| warn(line));
            for link in self.up() {
                let ends = link.ends();
                if now > ends.at() {
                    link.lapse(&RevalidationError::Expired(ends.intermediate().map(str::to_owned)));
                }
            }
            tokio::time::sleep(TRUST_CHECK_EVERY).await;
        }
    }
}

impl Link {
    /// Judges the peer again, and closes the link if it does not pass. Says whether it passed.
    fn judge(&self, credentials: &Credentials, now: SystemTime) -> bool {
        let chain = peer_chain::chain_of(&self.0.connection);
        match credentials.revalidate(&chain, self.0.dialled.as_deref(), now) {
            Ok(()) => {
                // Other CAs may vouch for it by other intermediates.
                if let Some(ends) = credentials.end_of(&chain) {
                    *self.0.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
                }
                true
            }
            Err(lapse) => {
                self.lapse(&lapse);
                false
            }
        }
    }

    /// Ends when the peer's chain is about to end, so that there is still time for another link:
    /// not for all links at one moment. Never, if it has long to go.
    pub(crate) async fn near_expiry(&self) {
        let spread = RENEW_BEFORE_EXPIRY.mul_f64(self.net().chance() / 3.0);
        while self.net().now() + (RENEW_BEFORE_EXPIRY - spread) < self.ends().at() {
            tokio::time::sleep(TRUST_CHECK_EVERY).await;
        }
    }

    fn lapse(&self, lapse: &RevalidationError) {
        let code = match lapse {
            RevalidationError::Revoked => CloseCode::Revoked,
            RevalidationError::Expired(_) => CloseCode::Expired,
            RevalidationError::Untrusted(_) => CloseCode::TrustChanged,
        };
        tracing::warn!("closed the link of {}: {lapse}", self.peer());
        self.end(LinkFault::Closed { code, text: lapse.to_string(), by_peer: false });
    }
}
