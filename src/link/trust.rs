//! The credentials of one endpoint and the links that were made with them. Links are verified again
//! when the credentials change, and end with the certificates of their peers.

#[cfg(feature = "admin")]
use super::link_stats::LinkTotals;
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

pub(crate) struct TrustedLinks {
    net: SharedNet,
    credentials: RwLock<Credentials>,
    /// The credentials with which every link was verified last.
    verified_with: Mutex<Credentials>,
    links: Mutex<VerifiedLinks>,
    #[cfg(feature = "admin")]
    ended: Arc<LinkTotals>,
}

#[derive(Default)]
struct VerifiedLinks {
    all: Vec<Weak<LinkInner>>,
    /// At this many, ended links are removed, so that adding one costs the same for any number.
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
    pub(super) fn new(net: SharedNet, credentials: Credentials) -> Self {
        let verified_with = Mutex::new(credentials.clone());
        Self {
            net,
            credentials: RwLock::new(credentials),
            verified_with,
            links: Mutex::default(),
            #[cfg(feature = "admin")]
            ended: Arc::default(),
        }
    }

    pub(super) const fn net(&self) -> &SharedNet {
        &self.net
    }

    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses these credentials for new links. [`TrustedLinks::verify_all`] verifies present ones.
    pub(super) fn replace(&self, credentials: Credentials) {
        *self.credentials.write().unwrap_or_else(PoisonError::into_inner) = credentials;
    }

    /// Adds a link that was made with these credentials. If they have been replaced meanwhile, it
    /// is verified at once: a replacement goes through the list after that, so that one of the two
    /// sees the link.
    pub(super) fn add(&self, link: &Link, under: &Credentials) {
        #[cfg(feature = "admin")]
        drop(link.0.totals.set(self.ended.clone()));
        self.links.lock().unwrap_or_else(PoisonError::into_inner).add(link);
        let now = self.credentials();
        if !now.is_same(under) {
            link.verify(&now, self.net.now());
        }
    }

    /// Sent and lost packets, sent and received bytes of all links since the start.
    #[cfg(feature = "admin")]
    pub(crate) fn totals(&self) -> [u64; 4] {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        // A link counts here until it is dropped, and in the sum of the others from then on.
        let alive: Vec<_> = links.all.iter().filter_map(Weak::upgrade).map(Link).collect();
        drop(links);
        let ended = self.ended.read();
        alive
            .iter()
            .map(|link| link.stats().sums())
            .fold(ended, |sum, more| [0, 1, 2, 3].map(|at| sum[at] + more[at]))
    }

    pub(crate) fn up(&self) -> Vec<Link> {
        let links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        let links = links.all.iter().filter_map(Weak::upgrade).map(Link);
        links.filter(|link| !link.is_closed()).collect()
    }

    pub(crate) fn is_any_up(&self) -> bool {
        !self.up().is_empty()
    }

    /// Verifies every link that is up, and closes those that do not pass. Returns the number of
    /// those. Costs one verified chain per link, and yields in between.
    pub(crate) async fn verify_all(&self) -> usize {
        let (credentials, mut closed) = (self.credentials(), 0);
        for link in self.up() {
            closed += usize::from(!link.verify(&credentials, self.net.now()));
            tokio::task::yield_now().await;
        }
        *self.verified_with() = credentials;
        closed
    }

    fn verified_with(&self) -> MutexGuard<'_, Credentials> {
        self.verified_with.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes links when the chains of their peers end (by the wall clock, as certificates do),
    /// verifies them if the program that replaced the credentials was cancelled before it did, and
    /// warns before the own certificate or trust ends. Runs for as long as it is polled.
    pub(crate) async fn watch_expiry(&self, warn: impl Fn(&str)) {
        let mut warnings = ExpiryWarnings::default();
        loop {
            let now = self.net.now();
            let credentials = self.credentials();
            if !credentials.is_same(&self.verified_with()) {
                self.verify_all().await;
            }
            warnings.due(&credentials, now).iter().for_each(|line| warn(line));
            for link in self.up() {
                let ends = link.ends();
                if now > ends.at() {
                    link.close_as(&RevalidationError::Expired(
                        ends.intermediate().map(str::to_owned),
                    ));
                }
            }
            tokio::time::sleep(TRUST_CHECK_EVERY).await;
        }
    }
}

impl Link {
    /// Verifies the peer again, and closes the link if it does not pass. Returns true if it passed.
    fn verify(&self, credentials: &Credentials, now: SystemTime) -> bool {
        let chain = peer_chain::chain_of(&self.0.connection);
        match credentials.revalidate(&chain, self.dialled_host(), now) {
            Ok(()) => {
                // The new CAs may verify it by other intermediates, which end at another time.
                if let Some(ends) = credentials.end_of(&chain) {
                    *self.0.ends.lock().unwrap_or_else(PoisonError::into_inner) = ends;
                }
                true
            }
            Err(error) => {
                self.close_as(&error);
                false
            }
        }
    }

    /// Resolves some time before the peer's chain ends, so that there is still time for another
    /// link. The time is spread, so that links are not replaced all at once.
    pub(crate) async fn near_expiry(&self) {
        let spread = RENEW_BEFORE_EXPIRY.mul_f64(self.net().chance() / 3.0);
        while self.net().now() + (RENEW_BEFORE_EXPIRY - spread) < self.ends().at() {
            tokio::time::sleep(TRUST_CHECK_EVERY).await;
        }
    }

    fn close_as(&self, error: &RevalidationError) {
        let code = match error {
            RevalidationError::Revoked => CloseCode::Revoked,
            RevalidationError::Expired(_) => CloseCode::Expired,
            RevalidationError::Untrusted(_) => CloseCode::TrustChanged,
        };
        let peer = self.peer();
        tracing::warn!(%peer, reason = %error, "closed the link of {peer}: {error}");
        self.end(LinkFault::Closed { code, text: error.to_string(), by_peer: false });
    }
}
