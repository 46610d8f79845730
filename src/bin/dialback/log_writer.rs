//! Thread that writes log lines from a bounded queue: a stalled reader of the log blocks nothing.

use dialback::limits::{LOG_FLUSH_STEP, LOG_FLUSH_WAIT_MAX, LOG_LINES_WAITING_MAX};
use std::{
    io::{self, Write},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, SyncSender, TrySendError},
    },
    time::Instant,
};

enum Order {
    Line(Vec<u8>),
    /// Answers when all that came before is written.
    Flush(SyncSender<()>),
}

/// The sending end of the queue. Cloning shares it.
#[derive(Clone)]
pub(crate) struct LogWriter {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the thread. `notice` makes the line with the number of dropped lines.
    pub(crate) fn start(
        sink: impl Write + Send + 'static,
        notice: impl Fn(u64) -> String + Send + 'static,
    ) -> io::Result<Self> {
        let (orders, taken) = mpsc::sync_channel(LOG_LINES_WAITING_MAX);
        let dropped = Arc::<AtomicU64>::default();
        let counted = dropped.clone();
        let thread = std::thread::Builder::new().name("dialback-log".into());
        drop(thread.spawn(move || run(sink, &taken, &counted, notice))?);
        Ok(Self { orders, dropped })
    }

    /// Queues a line. Never waits: a line that does not fit is dropped and counted.
    pub(crate) fn line(&self, line: Vec<u8>) {
        if self.orders.try_send(Order::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes the last lines of a process; unlike others they wait for free slots. Blocks its
    /// thread, at most [`LOG_FLUSH_WAIT_MAX`]. Returns `true` if everything was written.
    pub(crate) fn finish(&self, last: Vec<Vec<u8>>) -> bool {
        let until = Instant::now() + LOG_FLUSH_WAIT_MAX;
        let (done, written) = mpsc::sync_channel(1);
        let orders = last.into_iter().map(Order::Line).chain([Order::Flush(done)]);
        let mut orders = orders.map(|order| self.send_by(order, until));
        orders.all(|is_sent| is_sent)
            && written.recv_timeout(until.saturating_duration_since(Instant::now())).is_ok()
    }

    /// Polls for a free slot: a bounded queue of std does not notify of any.
    fn send_by(&self, mut order: Order, until: Instant) -> bool {
        while let Err(refused) = self.orders.try_send(order) {
            match refused {
                TrySendError::Full(same) if Instant::now() < until => order = same,
                _ => return false,
            }
            std::thread::sleep(LOG_FLUSH_STEP);
        }
        true
    }
}

fn run(
    mut sink: impl Write,
    orders: &Receiver<Order>,
    dropped: &AtomicU64,
    notice: impl Fn(u64) -> String,
) {
    while let Ok(order) = orders.recv() {
        match order {
            // A reader of the log that has gone must not end a node.
            Order::Line(line) => drop(sink.write_all(&line)),
            Order::Flush(done) => drop(done.try_send(())),
        }
        let missing = dropped.swap(0, Ordering::Relaxed);
        if missing > 0 {
            drop(sink.write_all(notice(missing).as_bytes()));
        }
    }
}

/// The subscriber writes each event in one piece, which becomes one line of the queue.
impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line(bytes.to_vec());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A sink whose first write waits until the gate opens.
    struct Gated {
        came: SyncSender<()>,
        gate: Option<Receiver<()>>,
        kept: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if let Some(gate) = self.gate.take() {
                self.came.send(()).ok();
                gate.recv().ok();
            }
            self.kept.lock().expect("whole").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_sink_that_blocks_costs_lines_which_are_counted_and_never_the_sender_time() {
        let (came, has_come) = mpsc::sync_channel(1);
        let (open, gate) = mpsc::sync_channel(1);
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Gated { came, gate: Some(gate), kept: kept.clone() };
        let log = LogWriter::start(sink, |lines| format!("{lines} dropped\n")).expect("a thread");
        log.line(b"first\n".to_vec());
        has_come.recv().expect("the thread writes");
        (0..LOG_LINES_WAITING_MAX + 5).for_each(|_| log.line(b"x\n".to_vec()));
        assert!(!log.finish(vec![]), "a sink that blocks was written to");
        open.send(()).expect("the thread waits");
        while !log.finish(vec![]) {}
        let text = String::from_utf8(kept.lock().expect("whole").clone()).expect("text");
        assert!(text.starts_with("first\n5 dropped\nx\n"), "{}", &text[..60]);
        assert_eq!(text.lines().count(), 2 + LOG_LINES_WAITING_MAX);
    }

    #[test]
    fn last_lines_of_a_process_wait_for_room_and_are_written() {
        let (came, has_come) = mpsc::sync_channel(1);
        let (open, gate) = mpsc::sync_channel(1);
        let kept = Arc::<Mutex<Vec<u8>>>::default();
        let sink = Gated { came, gate: Some(gate), kept: kept.clone() };
        let log = LogWriter::start(sink, |lines| format!("{lines} dropped\n")).expect("a thread");
        log.line(b"first\n".to_vec());
        has_come.recv().expect("the thread writes");
        (0..LOG_LINES_WAITING_MAX).for_each(|_| log.line(b"x\n".to_vec()));
        // The queue is full when the process ends, and its reader continues a moment later.
        let ends = std::thread::spawn(move || log.finish(vec![b"error: why\n".to_vec()]));
        open.send(()).expect("the thread waits");
        assert!(ends.join().expect("it ends"), "not everything was written");
        let text = String::from_utf8(kept.lock().expect("whole").clone()).expect("text");
        assert!(text.ends_with("x\nerror: why\n"), "{}", &text[text.len() - 60..]);
        assert!(!text.contains("dropped"));
    }
}
