//! What QUIC measures of a link and of its path.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Measurements of one link since it was made, as this side sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LinkStats {
    pub(crate) rtt: Duration,
    /// Bytes that may be under way at a time (congestion window).
    pub(crate) window_bytes: u64,
    /// Largest UDP payload.
    pub(crate) mtu_bytes: u16,
    pub(crate) sent_packets: u64,
    pub(crate) lost_packets: u64,
    /// Bytes of UDP payloads, headers of QUIC included.
    pub(crate) sent_bytes: u64,
    pub(crate) received_bytes: u64,
}

impl LinkStats {
    pub(super) fn of(connection: &quinn::Connection) -> Self {
        let quinn::ConnectionStats { udp_tx, udp_rx, path, .. } = connection.stats();
        Self {
            rtt: path.rtt,
            window_bytes: path.cwnd,
            mtu_bytes: path.current_mtu,
            sent_packets: path.sent_packets,
            lost_packets: path.lost_packets,
            sent_bytes: udp_tx.bytes,
            received_bytes: udp_rx.bytes,
        }
    }

    /// Part of the sent packets that were lost, from 0 to 1.
    pub(crate) fn loss(&self) -> f64 {
        self.lost_packets as f64 / self.sent_packets.max(1) as f64
    }
}

/// Packets and bytes of all links of a node or an agent, those that have ended included.
#[derive(Debug, Default)]
pub(crate) struct LinkTotals([AtomicU64; 4]);

impl LinkTotals {
    /// Adds a link that has ended.
    pub(super) fn add(&self, stats: &LinkStats) {
        for (total, more) in self.0.iter().zip(stats.sums()) {
            total.fetch_add(more, Relaxed);
        }
    }

    pub(super) fn read(&self) -> [u64; 4] {
        [0, 1, 2, 3].map(|at| self.0[at].load(Relaxed))
    }
}

impl LinkStats {
    /// Sent and lost packets, sent and received bytes.
    pub(super) const fn sums(&self) -> [u64; 4] {
        [self.sent_packets, self.lost_packets, self.sent_bytes, self.received_bytes]
    }
}
