//! The UDP socket under quinn, which hands it the datagrams of a connection in batches: of any
//! size, and of one datagram where its buffer would cost more than the batch saves.

use crate::limits::DATAGRAM_BYTES_MAX;
use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use std::{
    cell::Cell,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

/// Bytes of one send: the largest UDP datagram of IPv4. A batch of datagrams that the system cuts
/// up (segmentation offload) is one such datagram until then.
const SEND_BYTES_MAX: usize = 65_507;

thread_local! {
    /// The driver that runs on this thread, or ran last, sends each datagram by itself.
    static IS_ONE_BY_ONE: Cell<bool> = const { Cell::new(false) };
}

/// Has the connection's driver that runs now on this thread send each datagram by itself, or not.
pub(super) fn send_one_by_one(is_one_by_one: bool) {
    IS_ONE_BY_ONE.set(is_one_by_one);
}

/// A socket that sends the datagrams of a connection together.
#[derive(Debug)]
pub(super) struct BatchingSocket<S: ?Sized>(pub(super) Arc<S>);

impl<S: AsyncUdpSocket + ?Sized> AsyncUdpSocket for BatchingSocket<S> {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    /// Sends a batch, in several sends where it is too large for one. If the socket is full in the
    /// middle, quinn sends the batch once more, and the peer ignores what it has.
    fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
        match batch.segment_size {
            Some(datagram) if batch.contents.len() > SEND_BYTES_MAX => {
                let most = (SEND_BYTES_MAX / datagram).max(1) * datagram;
                batch.contents.chunks(most).try_for_each(|contents| {
                    let segment_size = (contents.len() > datagram).then_some(datagram);
                    self.0.try_send(&Transmit { contents, segment_size, ..*batch })
                })
            }
            _ => self.0.try_send(batch),
        }
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        received: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(context, buffers, received)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        if IS_ONE_BY_ONE.get() { 1 } else { self.0.max_transmit_segments() }
    }

    /// Returns the number of the largest datagrams for which quinn's buffers have room: as much as
    /// the system joins.
    fn max_receive_segments(&self) -> usize {
        SEND_BYTES_MAX.div_ceil(DATAGRAM_BYTES_MAX.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::Runtime;
    use std::{
        future::poll_fn,
        net::{Ipv4Addr, UdpSocket},
        sync::Mutex,
    };

    /// A socket that records the sizes of its sends and their segments, and takes only some.
    #[derive(Debug)]
    struct FakeSocket {
        room: usize,
        sent: Mutex<Vec<(usize, Option<usize>)>>,
    }

    impl AsyncUdpSocket for FakeSocket {
        fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
            unreachable!("nobody waits")
        }

        fn try_send(&self, batch: &Transmit<'_>) -> io::Result<()> {
            let mut sent = self.sent.lock().expect("the sends");
            if sent.len() == self.room {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            sent.push((batch.contents.len(), batch.segment_size));
            Ok(())
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }

        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok((Ipv4Addr::LOCALHOST, 1).into())
        }
    }

    /// Returns the sends of one batch and its result, if the socket takes this many sends.
    fn sends(
        bytes: usize,
        segment_size: Option<usize>,
        room: usize,
    ) -> (Vec<(usize, Option<usize>)>, io::Result<()>) {
        let socket = Arc::new(FakeSocket { room, sent: Mutex::default() });
        let contents = &vec![7; bytes][..];
        let destination = (Ipv4Addr::LOCALHOST, 9).into();
        let result = BatchingSocket(socket.clone()).try_send(&Transmit {
            destination,
            ecn: None,
            contents,
            segment_size,
            src_ip: None,
        });
        (std::mem::take(&mut *socket.sent.lock().expect("the sends")), result)
    }

    #[test]
    fn a_batch_that_fits_is_one_send() {
        for (bytes, segment) in [(1_200, None), (14_520, Some(1_452)), (62_664, Some(8_952))] {
            assert_eq!(sends(bytes, segment, 9).0, [(bytes, segment)]);
        }
    }

    #[test]
    fn a_larger_batch_is_several_sends_of_whole_datagrams() {
        let size = 8_952;
        // The last datagram is shorter, and may be alone.
        let batches = [
            (10 * size, vec![(7 * size, Some(size)), (3 * size, Some(size))]),
            (8 * size, vec![(7 * size, Some(size)), (size, None)]),
            (7 * size + 3_000, vec![(7 * size, Some(size)), (3_000, None)]),
        ];
        for (bytes, expected) in batches {
            let (sent, result) = sends(bytes, Some(size), 9);
            assert_eq!(sent, expected);
            assert!(result.is_ok());
        }
    }

    #[test]
    fn a_full_socket_is_reported_wherever_the_batch_is() {
        for room in [0, 1] {
            let (sent, result) = sends(10 * 8_952, Some(8_952), room);
            assert_eq!(sent.len(), room);
            assert_eq!(result.expect_err("full").kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[tokio::test]
    async fn a_batch_of_the_largest_datagrams_passes_the_system() {
        let bind = || UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
        let (from, to) = (bind(), bind());
        let destination = to.local_addr().expect("an address");
        let from = quinn::TokioRuntime.wrap_udp_socket(from).expect("a socket");
        let size: usize = DATAGRAM_BYTES_MAX.into();
        let segments = from.max_transmit_segments().min(10);
        let contents = &vec![7; segments * size][..];
        let segment_size = (segments > 1).then_some(size);
        let batch = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        let from = Arc::new(BatchingSocket(from));
        let mut poller = from.clone().create_io_poller();
        poll_fn(|context| poller.as_mut().poll_writable(context)).await.expect("it can send");
        from.try_send(&batch).expect("it is sent");
        to.set_read_timeout(Some(std::time::Duration::from_secs(30))).expect("a timeout");
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..segments {
            assert_eq!(to.recv(&mut buffer).expect("a datagram"), size);
        }
    }
}
