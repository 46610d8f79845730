//! A value that is replaced as a whole while others read it: a policy, bounds, credentials.

use std::sync::{Arc, PoisonError, RwLock};

/// Holds the value of the moment. Reading it costs a short lock and one count; whoever has read it
/// keeps what it was.
#[derive(Debug, Default)]
pub(crate) struct SharedValue<T>(RwLock<Arc<T>>);

impl<T> SharedValue<T> {
    /// Begins with this value.
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Begins with a value that is shared already.
    pub(crate) fn of(value: Arc<T>) -> Self {
        Self(RwLock::new(value))
    }

    /// The value of this moment.
    pub(crate) fn get(&self) -> Arc<T> {
        // The lock is held for one assignment and nothing that could panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts another in its place, for everybody who reads from now on.
    pub(crate) fn set(&self, value: T) {
        self.set_shared(Arc::new(value));
    }

    /// The same with one that is shared already.
    pub(crate) fn set_shared(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_read_keeps_what_it_was_and_the_next_reads_what_is_new() {
        let current = SharedValue::new(1);
        let before = current.get();
        current.set(2);
        assert_eq!((*before, *current.get()), (1, 2));
    }
}
