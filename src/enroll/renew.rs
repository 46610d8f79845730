//! Renews the certificate of a peer: a new key and a new leaf at two thirds of its lifetime, in the
//! same files.

use super::{
    error::EnrollError,
    join::{checked, exchange},
    lists, schedule,
};
#[cfg(feature = "tunnel")]
use crate::path::PathSettings;
use crate::{
    certs::{KeyRequest, Mended, mend_pair, read_bytes, replace_pair},
    drain::Tasks,
    limits::{RENEWAL_CHECK_EVERY, RENEWAL_FAULT_LOG_EVERY, RENEWAL_RETRY_MAX, RENEWAL_RETRY_MIN},
    link::EnrollerAddress,
    name::{NodeAddress, PeerName},
    net,
    rate_limit::RepeatLimiter,
    tls::{CredentialFiles, Credentials, ToEnroller, Utc, Validity},
    wire::{JOIN_ALPN, JoinReply, JoinRequest},
};
use std::time::{Duration, SystemTime};
use tokio::time::Instant;

/// The files of one peer, and the enroller that renews them.
///
/// It only writes files; their users load them again. Certificate and key are replaced by renaming,
/// so a file that is a symbolic link or a mount of its own becomes a plain one, or cannot be
/// replaced; renew such secrets where they are made.
#[derive(Debug, Clone)]
pub struct Renewal {
    enroller: EnrollerAddress,
    files: CredentialFiles,
}

/// Result of a renewal.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Renewed {
    /// The certificate is valid, and due at this time.
    Kept {
        /// The peer that it names.
        peer: PeerName,
        /// From then on it is renewed.
        due: SystemTime,
    },
    /// A new certificate was installed.
    Renewed {
        /// The peer that it names.
        peer: PeerName,
        /// Its serial number in lower-case hexadecimal.
        serial: String,
        /// End of its validity.
        not_after: SystemTime,
    },
}

impl Renewal {
    /// Renews these files at this enroller.
    pub fn new(enroller: NodeAddress, files: CredentialFiles) -> Self {
        Self { enroller: EnrollerAddress::udp(enroller), files }
    }

    /// Sets the paths to the enroller, as [`PathSettings::of_enroller`] makes them. Default: UDP.
    #[cfg(feature = "tunnel")]
    #[must_use]
    pub fn paths(mut self, paths: PathSettings) -> Self {
        self.enroller.paths = paths;
        self
    }

    /// The enroller.
    pub const fn enroller(&self) -> &NodeAddress {
        &self.enroller.address
    }

    /// Finishes a renewal cut off between certificate and key. Call it before loading the files.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn mend(&self) -> Result<bool, EnrollError> {
        Ok(mend_pair(&self.files.cert, &self.files.key)? != Mended::Nothing)
    }

    /// Renews once if it is due: the certificate at two thirds of its life, and its revocation list
    /// at two thirds of its own. Takes 15 s at most; dropping it cancels it, and at worst a leaf
    /// was signed and not received.
    ///
    /// # Errors
    /// See [`EnrollError`]. After [`EnrollError::TooLate`], an expiry, only a new token helps.
    pub async fn once(&self) -> Result<Renewed, EnrollError> {
        self.look(SystemTime::UNIX_EPOCH).await
    }

    /// Does what is due now; the list not before a time.
    async fn look(&self, list_from: SystemTime) -> Result<Renewed, EnrollError> {
        let (now, present) = (SystemTime::now(), self.credentials()?);
        let due = due_of(&present);
        if now >= due {
            return self.renew(&present).await;
        }
        if self.is_list_due(now) && list_from <= now {
            let reply = self.ask(&present, JoinRequest::list()).await?;
            self.take_list(&reply)?;
        }
        Ok(Renewed::Kept { peer: present.peer_name().clone(), due })
    }

    fn is_list_due(&self, now: SystemTime) -> bool {
        lists::due(&self.files).is_some_and(|due| due <= now)
    }

    /// Renews for as long as the handle lives, in a task. Logs the results. Needs a tokio runtime.
    pub fn start(self) -> Renewing {
        let tasks = Tasks::default();
        tasks.spawn_until_stopped(self.keep_young());
        Renewing { tasks }
    }

    /// The files: certificate, key and CAs.
    pub fn files(&self) -> &CredentialFiles {
        &self.files
    }

    /// Loads the files.
    ///
    /// # Errors
    /// Faults of the files; a certificate that has ended is [`EnrollError::TooLate`].
    pub fn credentials(&self) -> Result<Credentials, EnrollError> {
        Ok(Credentials::from_files(&self.files)?)
    }

    async fn ask(
        &self,
        present: &Credentials,
        request: JoinRequest,
    ) -> Result<JoinReply, EnrollError> {
        let tls = ToEnroller::renewing(&self.files, present.trust_domain(), JOIN_ALPN)?;
        let remedy =
            "ask for a new token (`dialback enroll token ROLE NAME`) and join with it and --force";
        exchange(&self.enroller, present.peer_name(), &tls, request, remedy).await
    }

    async fn renew(&self, present: &Credentials) -> Result<Renewed, EnrollError> {
        let key = KeyRequest::generate()?;
        let reply = self.ask(present, JoinRequest::renew(&key.request)).await?;
        let bad = |why: String| EnrollError::BadAnswer { address: self.enroller().clone(), why };
        let ca = read_bytes(&self.files.ca)?;
        let new = checked(&key, &reply, &ca, present.peer_name()).map_err(bad)?;
        replace_pair(&self.files.cert, &reply.leaf, &self.files.key, &key.key_pem)?;
        self.take_list(&reply)?;
        Ok(Renewed::Renewed {
            peer: new.peer_name().clone(),
            serial: new.identity().serial().into(),
            not_after: new.validity().ends.at(),
        })
    }

    fn take_list(&self, reply: &JoinReply) -> Result<(), EnrollError> {
        if let Some(path) = &self.files.crl
            && lists::take(path, &reply.crl)?
        {
            let file = path.display();
            tracing::info!(%file, "{file} has a newer revocation list now");
        }
        Ok(())
    }

    async fn keep_young(self) {
        let (mut logged, mut list_from) = (RepeatLimiter::default(), SystemTime::UNIX_EPOCH);
        loop {
            let looked = self.look(list_from).await;
            let now = SystemTime::now();
            if list_from <= now && self.is_list_due(now) {
                // The enroller has no newer one, or did not answer.
                list_from = now + RENEWAL_RETRY_MAX;
            }
            let wait = match looked {
                Ok(done) => {
                    logged = RepeatLimiter::default();
                    self.after(&done, now)
                }
                Err(error) => {
                    if logged.admits(error.to_string(), Instant::now(), RENEWAL_FAULT_LOG_EVERY) {
                        tracing::warn!(reason = %error, "cannot renew: {error}");
                    }
                    self.after_fault(&error, now)
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// The wait until the next look. The clock may be set meanwhile, so it is never long.
    fn after(&self, done: &Renewed, now: SystemTime) -> Duration {
        let due = match done {
            Renewed::Kept { due, .. } => *due,
            Renewed::Renewed { peer, serial, not_after } => {
                let until = Utc(*not_after);
                tracing::info!(
                    %peer,
                    %serial,
                    "renewed the certificate of {peer}: serial {serial}, holds until {until}"
                );
                self.credentials().map_or(now, |present| due_of(&present))
            }
        };
        // A leaf that is old when it comes must not cause requests as fast as possible.
        let wait = due.duration_since(now).unwrap_or_default();
        wait.clamp(RENEWAL_RETRY_MIN, RENEWAL_CHECK_EVERY)
    }

    fn after_fault(&self, error: &EnrollError, now: SystemTime) -> Duration {
        // Without credentials it waits for a new certificate.
        self.credentials().map_or(RENEWAL_CHECK_EVERY, |present| {
            let chance = net::system().chance();
            schedule::retry(present.validity().ends.at(), now, error.is_refusal(), chance)
        })
    }
}

fn due_of(present: &Credentials) -> SystemTime {
    let chance = schedule::chance_of(present.identity().serial());
    let Validity { starts, ends, .. } = present.validity();
    schedule::due(starts.at(), ends.at(), chance)
}

/// A renewal in a background task. Dropping it stops the task.
#[derive(Debug)]
#[must_use = "dropping it ends the renewal"]
pub struct Renewing {
    tasks: Tasks,
}

impl Drop for Renewing {
    fn drop(&mut self) {
        self.tasks.stop();
    }
}
