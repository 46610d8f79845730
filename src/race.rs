//! Connection attempts to the addresses of one name, raced as RFC 8305 describes, and TCP
//! connections made that way.

use crate::{
    limits::{RACE_ADDRESSES_MAX, RACE_STAGGER},
    system,
};
use std::{collections::VecDeque, io, net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// Returns the first attempt that succeeds. The next attempt starts `stagger` after the last one,
/// or at once when one has failed. Success or dropping the future cancels the others. Fails with
/// the most specific of all errors; `None` without any attempt.
pub(crate) async fn first<T, E, F>(
    attempts: impl IntoIterator<Item = F>,
    stagger: Duration,
    more_telling: impl Fn(E, E) -> E,
) -> Result<T, Option<E>>
where
    T: Send + 'static,
    E: Send + 'static,
    F: Future<Output = Result<T, E>> + Send + 'static,
{
    let mut waiting = attempts.into_iter().peekable();
    let mut worst = None;
    // A JoinSet cancels its tasks when it is dropped, with the race.
    let mut running = JoinSet::new();
    loop {
        if let Some(next) = waiting.next() {
            running.spawn(next);
        }
        let ended = match waiting.peek() {
            None => running.join_next().await,
            Some(_) => timeout(stagger, running.join_next()).await.unwrap_or_default(),
        };
        match ended {
            Some(Ok(Ok(made))) => return Ok(made),
            Some(Ok(Err(error))) => {
                worst = Some(match worst {
                    None => error,
                    Some(worst) => more_telling(worst, error),
                });
            }
            Some(Err(_)) | None => {}
        }
        if running.is_empty() && waiting.peek().is_none() {
            return Err(worst);
        }
    }
}

/// Looks up all addresses of a name, in the system's order of preference, without a timeout. The
/// error has the cause: without file descriptors, the resolver reports an unknown name.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let found = tokio::net::lookup_host((host, port)).await;
    found.map(Iterator::collect).map_err(|error| {
        match std::net::UdpSocket::bind((std::net::Ipv4Addr::LOCALHOST, 0)) {
            Err(cause) if system::is_out_of_files(&cause) => cause,
            _ => error,
        }
    })
}

/// Sorts addresses so that the two families alternate, beginning with the family of the first one.
pub(crate) fn interleave(found: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_ipv6 = found.first().is_some_and(SocketAddr::is_ipv6);
    let (mut first, mut second): (VecDeque<_>, VecDeque<_>) =
        found.into_iter().partition(|address| address.is_ipv6() == first_is_ipv6);
    let mut out = VecDeque::with_capacity(first.len() + second.len());
    while !(first.is_empty() && second.is_empty()) {
        out.extend(first.pop_front());
        out.extend(second.pop_front());
    }
    out
}

/// Addresses of one name tried since the last success. A name may have more than one race tries.
#[derive(Debug, Default)]
pub(crate) struct Tried(Vec<SocketAddr>);

impl Tried {
    /// Chooses the addresses of the next race: those not tried yet first, then all again from the
    /// start. The order in which a resolver lists them does not matter, and addresses that it no
    /// longer lists are forgotten.
    pub(crate) fn next(&mut self, found: Vec<SocketAddr>) -> Vec<SocketAddr> {
        self.0.retain(|address| found.contains(address));
        let (mut tried, mut next): (VecDeque<_>, VecDeque<_>) =
            interleave(found).into_iter().partition(|address| self.0.contains(address));
        if next.len() <= RACE_ADDRESSES_MAX {
            self.0.clear();
            next.append(&mut tried);
        }
        next.truncate(RACE_ADDRESSES_MAX);
        self.0.extend(&next);
        next.into()
    }
}

/// Connects to a host by TCP in a race of all its addresses, without a timeout. The error is the
/// resolver's, or of the address that came closest to a connection.
pub(crate) async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    connect_tcp_to(resolve(host, port).await?).await
}

/// Connects by TCP in a race of these addresses, as [`connect_tcp`] does.
pub(crate) async fn connect_tcp_to(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let attempts = interleave(addresses).into_iter().map(TcpStream::connect);
    let raced = first(attempts, RACE_STAGGER, system::more_telling).await;
    raced.map_err(|error| error.unwrap_or_else(|| io::Error::other("the name has no address")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tokio::time::{Instant, sleep};

    const SECOND: Duration = Duration::from_secs(1);

    fn v4(n: u8) -> SocketAddr {
        ([127, 0, 0, n], 1).into()
    }

    fn v6(n: u16) -> SocketAddr {
        ([0, 0, 0, 0, 0, 0, 0, n], 1).into()
    }

    /// An attempt that ends after a time, and when it was started.
    async fn attempt(
        started: Arc<Mutex<Vec<Duration>>>,
        begin: Instant,
        takes: Duration,
        ends: Result<u32, u32>,
    ) -> Result<u32, u32> {
        started.lock().expect("a lock").push(begin.elapsed());
        sleep(takes).await;
        ends
    }

    async fn run(
        attempts: &[(Duration, Result<u32, u32>)],
    ) -> (Result<u32, Option<u32>>, Vec<Duration>, Duration) {
        let (started, begin) = (Arc::default(), Instant::now());
        let futures = attempts
            .iter()
            .map(|(takes, ends)| attempt(Arc::clone(&started), begin, *takes, *ends));
        let ended = first(futures, RACE_STAGGER, u32::max).await;
        let elapsed = begin.elapsed();
        let started = started.lock().expect("a lock").clone();
        (ended, started, elapsed)
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_address_delays_the_next_by_the_stagger_and_not_by_its_timeout() {
        let (ended, started, elapsed) =
            run(&[(100 * SECOND, Ok(1)), (Duration::ZERO, Ok(2))]).await;
        assert_eq!(ended, Ok(2));
        assert_eq!(started, [Duration::ZERO, RACE_STAGGER]);
        assert_eq!(elapsed, RACE_STAGGER);
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_fails_lets_the_next_start_at_once() {
        let (ended, started, elapsed) =
            run(&[(Duration::ZERO, Err(1)), (Duration::ZERO, Err(9)), (Duration::ZERO, Ok(3))])
                .await;
        assert_eq!((ended, started), (Ok(3), vec![Duration::ZERO; 3]));
        assert_eq!(elapsed, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_first_address_still_wins_over_one_that_fails() {
        let (ended, ..) = run(&[(SECOND, Ok(1)), (Duration::ZERO, Err(2))]).await;
        assert_eq!(ended, Ok(1));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_fail_the_most_specific_error_is_returned() {
        let (ended, ..) =
            run(&[(SECOND, Err(2)), (Duration::ZERO, Err(7)), (SECOND, Err(3))]).await;
        assert_eq!(ended, Err(Some(7)));
        assert_eq!(run(&[]).await.0, Err(None));
    }

    #[test]
    fn families_take_turns_beginning_with_the_preferred_one() {
        let order = interleave(vec![v6(1), v6(2), v4(1), v4(2), v4(3)]);
        assert_eq!(order, [v6(1), v4(1), v6(2), v4(2), v4(3)]);
        assert_eq!(interleave(vec![v4(1), v6(1)]), [v4(1), v6(1)]);
        assert!(interleave(Vec::new()).is_empty());
    }

    #[test]
    fn a_race_starts_after_the_address_at_which_the_last_one_stopped() {
        let max = u8::try_from(RACE_ADDRESSES_MAX).expect("small");
        let all: Vec<_> = (0..=max).map(v4).collect();
        let mut tried = Tried::default();
        assert_eq!(tried.next(all.clone()), all[..RACE_ADDRESSES_MAX]);
        // Resolvers shuffle.
        let second = tried.next(all.iter().rev().copied().collect());
        assert_eq!((second[0], second.len()), (v4(max), RACE_ADDRESSES_MAX));
    }

    #[test]
    fn every_address_is_tried_before_any_is_tried_thrice() {
        let all: Vec<_> = (0..100).map(v4).collect();
        let mut tried = Tried::default();
        let races = all.len().div_ceil(RACE_ADDRESSES_MAX);
        let seen: Vec<_> = (0..races).flat_map(|_| tried.next(all.clone())).collect();
        assert!(all.iter().all(|address| seen.contains(address)));
        assert!(tried.0.len() <= all.len());
    }

    #[test]
    fn as_many_addresses_as_one_race_takes_are_tried_in_each() {
        let max = u8::try_from(RACE_ADDRESSES_MAX).expect("small");
        let all: Vec<_> = (0..max).map(v4).collect();
        let mut tried = Tried::default();
        assert_eq!(tried.next(all.clone()), all);
        assert_eq!(tried.next(all.clone()), all);
    }

    #[test]
    fn addresses_that_are_no_longer_listed_are_forgotten() {
        let max = u8::try_from(RACE_ADDRESSES_MAX).expect("small");
        let mut tried = Tried::default();
        // A name whose addresses are all others each time.
        for round in 0..10 {
            let found: Vec<_> = (0..=max).map(|n| v4(round * (max + 1) + n)).collect();
            assert_eq!(tried.next(found).len(), RACE_ADDRESSES_MAX);
            assert_eq!(tried.0.len(), RACE_ADDRESSES_MAX, "round {round}");
        }
    }

    #[tokio::test]
    async fn a_port_that_nobody_listens_on_is_refused_at_once() {
        let port = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            listener.local_addr().expect("an address").port()
        };
        let error = connect_tcp("127.0.0.1", port).await.expect_err("nobody listens");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
