//! A sink in memory for tests of audit records.

use super::Audit;
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
    time::Duration,
};

/// A sink in memory. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct MemorySink(Arc<Mutex<Vec<u8>>>);

impl Write for MemorySink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("the sink").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MemorySink {
    /// Flushes the audit log and returns the lines that were written.
    pub(crate) fn lines(&self, audit: &Audit) -> Vec<String> {
        assert!(audit.flush(Duration::from_secs(30)));
        let bytes = self.0.lock().expect("the sink").clone();
        String::from_utf8(bytes).expect("UTF-8").lines().map(str::to_owned).collect()
    }
}
