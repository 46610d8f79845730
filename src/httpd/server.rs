//! HTTP server: accepts connections within its limits, with or without TLS.

use super::{
    answers::{Answers, Peer},
    connection::Connection,
    guarded::{self, Guarded},
    listening::{ClientSocket, Listening},
    slots::{Acquired, Admission, SlotOwner, Slots},
    watched::Activity,
};
use crate::{
    drain::Tasks,
    limits::{
        ACCEPT_RETRY_AFTER, HANDSHAKE_WAIT_MAX, HTTP_CONNECTIONS_MAX,
        HTTP_CONNECTIONS_PER_HOST_MAX, HTTP_CONNECTIONS_PER_NETWORK_MAX,
        HTTP_CONNECTIONS_PER_SITE_MAX, HTTP_FIRST_BYTES_WAIT_MAX, IGNORED_HANDSHAKES_LOG_EVERY,
    },
    prefixes::PrefixLimits,
    rate_limit::{LogLimiter, RateLimit},
    system,
};
use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::time::{Instant, timeout};

struct Server<A> {
    answers: Arc<A>,
    tasks: Tasks,
    closed: Mutex<LogLimiter>,
}

impl<A: Answers> Server<A> {
    /// Logs that a connection was closed, with the reason, rate-limited.
    fn log_closed(&self, address: IpAddr, why: impl fmt::Display) {
        let mut closed = self.closed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(suppressed) = closed.admit(Instant::now()) {
            tracing::warn!(
                %address,
                reason = %why,
                "closed a connection of {address} to {}: {why}{suppressed}",
                A::NAME
            );
        }
    }
}

/// Accepts until it is dropped. Each connection has a task of its own.
pub(crate) async fn serve<L: Listening, A: Answers>(listener: L, answers: Arc<A>, tasks: Tasks) {
    let limits = PrefixLimits {
        host: HTTP_CONNECTIONS_PER_HOST_MAX,
        site: HTTP_CONNECTIONS_PER_SITE_MAX,
        network: HTTP_CONNECTIONS_PER_NETWORK_MAX,
    };
    let slots = Slots::new(HTTP_CONNECTIONS_MAX, limits);
    let every = || LogLimiter::new(RateLimit::new(1, IGNORED_HANDSHAKES_LOG_EVERY));
    let mut failed = every();
    let server = Arc::new(Server { answers, tasks, closed: Mutex::new(every()) });
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(fault) => {
                if let Some(suppressed) = failed.admit(Instant::now()) {
                    let fault = system::explain(&fault);
                    tracing::warn!(
                        reason = fault,
                        "a connection could not be accepted: {fault}{suppressed}"
                    );
                }
                tokio::time::sleep(ACCEPT_RETRY_AFTER).await;
                continue;
            }
        };
        let ip = address.ip().to_canonical();
        let admission = server.answers.admits(ip);
        if admission == Admission::Refused {
            continue;
        }
        let slot = match slots.take(ip, admission) {
            Ok(Acquired { slot, dropped }) => {
                if let Some((full, ip)) = dropped {
                    server.log_closed(ip, format_args!("it had shown no caller, and {full}"));
                }
                slot
            }
            Err(full) => {
                server.log_closed(ip, full);
                continue;
            }
        };
        let (owner, server) = (slot.owner.clone(), server.clone());
        let work = connection(stream, address, server.clone(), owner.clone());
        server.tasks.spawn_until_stopped(async move {
            tokio::select! {
                () = work => {}
                () = owner.evicted() => {}
            }
            drop(slot);
        });
    }
}

async fn connection<S: ClientSocket, A: Answers>(
    stream: S,
    address: SocketAddr,
    server: Arc<Server<A>>,
    owner: Arc<SlotOwner>,
) {
    let Server { answers, tasks, .. } = &*server;
    let draining = answers.draining();
    stream.prepare();
    let local = stream.local();
    let connection = |is_h2, named| Connection {
        answers: answers.clone(),
        tasks: tasks.clone(),
        peer: Arc::new(Peer::new((address, local), named, owner)),
        is_h2,
        activity: Arc::new(Activity::new(Instant::now())),
    };
    let log_closed = |why: &str| server.log_closed(address.ip(), why);
    match answers.tls() {
        None => {
            let first = guarded::first_bytes(stream, HTTP_FIRST_BYTES_WAIT_MAX).await;
            let Some((mut first, is_h2)) = first else { return };
            // With TLS the missing close_notify says it.
            first.reset_by(S::reset_on_close);
            connection(is_h2, (None, None)).serve(first, draining, log_closed).await;
        }
        Some(tls) => {
            let handshake = tls.accept(stream);
            let late = |_elapsed| Err(io::Error::other("the TLS handshake did not end in time"));
            match timeout(HANDSHAKE_WAIT_MAX, handshake).await.unwrap_or_else(late) {
                Ok(accepted) => {
                    let stream = Guarded::new(accepted.stream, Vec::new());
                    connection(accepted.is_h2, (accepted.shown, accepted.sni))
                        .serve(stream, draining, log_closed)
                        .await;
                }
                Err(fault) => answers.handshake_failed(address, &fault),
            }
        }
    }
}
