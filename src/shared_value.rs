//! A value that is replaced as a whole while others read it: a policy, limits, credentials.

use std::sync::{Arc, PoisonError, RwLock};

/// Holds the current value. A read costs a short lock and a reference count.
#[derive(Debug, Default)]
pub(crate) struct SharedValue<T>(RwLock<Arc<T>>);

impl<T> SharedValue<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(RwLock::new(Arc::new(value)))
    }

    /// Holds a value that is already shared.
    pub(crate) fn of(value: Arc<T>) -> Self {
        Self(RwLock::new(value))
    }

    pub(crate) fn get(&self) -> Arc<T> {
        // The lock is held for one assignment and nothing that could panic.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the value for later reads.
    pub(crate) fn set(&self, value: T) {
        self.set_shared(Arc::new(value));
    }

    /// Replaces the value with one that is already shared.
    pub(crate) fn set_shared(&self, value: Arc<T>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_keeps_the_value_that_it_has_read() {
        let current = SharedValue::new(1);
        let before = current.get();
        current.set(2);
        assert_eq!((*before, *current.get()), (1, 2));
    }
}
