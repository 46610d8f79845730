//! Fair queue: bounded concurrency, round robin between callers.

use std::{
    collections::{HashMap, VecDeque},
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Maximum numbers of running and waiting conversions.
#[derive(Debug, Clone, Copy)]
pub(super) struct TurnLimits {
    pub(super) at_once: usize,
    pub(super) waiting_max: usize,
    pub(super) waiting_per_caller_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug, PartialEq, Eq)]
enum TurnRequest {
    Now,
    /// Number that removes it from the queue.
    Waits(u64),
}

/// Order of turns: FIFO within a caller, round-robin between callers.
struct Order<K, W> {
    bounds: TurnLimits,
    at_work: usize,
    waiting: usize,
    last_number: u64,
    /// Callers with waiters, each once, the next one first.
    callers: VecDeque<K>,
    queues: HashMap<K, VecDeque<(u64, W)>>,
}

impl<K: Clone + Eq + Hash, W> Order<K, W> {
    fn new(bounds: TurnLimits) -> Self {
        let (callers, queues) = (VecDeque::new(), HashMap::new());
        Self { bounds, at_work: 0, waiting: 0, last_number: 0, callers, queues }
    }

    fn ask(&mut self, caller: &K, waiter: W) -> Result<TurnRequest, Full> {
        if self.at_work < self.bounds.at_once {
            self.at_work += 1;
            return Ok(TurnRequest::Now);
        }
        let own = self.queues.get(caller).map_or(0, VecDeque::len);
        if own >= self.bounds.waiting_per_caller_max || self.waiting >= self.bounds.waiting_max {
            return Err(Full);
        }
        if own == 0 {
            self.callers.push_back(caller.clone());
        }
        self.last_number += 1;
        self.waiting += 1;
        self.queues.entry(caller.clone()).or_default().push_back((self.last_number, waiter));
        Ok(TurnRequest::Waits(self.last_number))
    }

    /// Releases a turn, and passes it to the next waiter.
    fn end(&mut self) -> Option<W> {
        let next = self.next();
        if next.is_none() {
            self.at_work -= 1;
        }
        next
    }

    fn next(&mut self) -> Option<W> {
        let caller = self.callers.pop_front()?;
        let queue = self.queues.get_mut(&caller)?;
        let (_, waiter) = queue.pop_front()?;
        if queue.is_empty() {
            self.queues.remove(&caller);
        } else {
            self.callers.push_back(caller);
        }
        self.waiting -= 1;
        Some(waiter)
    }

    /// Removes a waiter from the queue. One with a turn is not in it.
    fn remove(&mut self, caller: &K, number: u64) {
        let Some(queue) = self.queues.get_mut(caller) else { return };
        let Ok(index) = queue.binary_search_by_key(&number, |(number, _)| *number) else { return };
        queue.remove(index);
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(caller);
            self.callers.retain(|other| other != caller);
        }
    }
}

pub(super) struct Turns<K: Clone + Eq + Hash>(Mutex<Order<K, oneshot::Sender<Turn<K>>>>);

/// A turn. Dropping it passes it to the next waiter.
pub(super) struct Turn<K: Clone + Eq + Hash>(Option<Arc<Turns<K>>>);

impl<K: Clone + Eq + Hash> Turns<K> {
    pub(super) fn new(bounds: TurnLimits) -> Self {
        Self(Mutex::new(Order::new(bounds)))
    }

    fn order(&self) -> MutexGuard<'_, Order<K, oneshot::Sender<Turn<K>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a turn. Cancel safe: dropping it removes it from the queue.
    pub(super) async fn turn(self: &Arc<Self>, caller: &K) -> Result<Turn<K>, Full> {
        let (sender, receiver) = oneshot::channel();
        let number = match self.order().ask(caller, sender)? {
            TurnRequest::Now => return Ok(Turn(Some(self.clone()))),
            TurnRequest::Waits(number) => number,
        };
        let _waiting = Waiting { turns: self, caller, number };
        // The sender is dropped only with the turn in it.
        receiver.await.map_err(|_gone| Full)
    }
}

impl<K: Clone + Eq + Hash> Drop for Turn<K> {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        loop {
            let Some(next) = turns.order().end() else { return };
            let Err(mut unwanted) = next.send(Self(Some(turns.clone()))) else { return };
            // Passed on in this loop, not recursively by its own drop.
            unwanted.0 = None;
        }
    }
}

/// A waiter in the queue.
struct Waiting<'a, K: Clone + Eq + Hash> {
    turns: &'a Turns<K>,
    caller: &'a K,
    number: u64,
}

impl<K: Clone + Eq + Hash> Drop for Waiting<'_, K> {
    fn drop(&mut self) {
        self.turns.order().remove(self.caller, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lazy_timeout::poll_once;

    fn order(at_once: usize, waiting_per_caller_max: usize) -> Order<char, usize> {
        Order::new(TurnLimits { at_once, waiting_max: 100, waiting_per_caller_max })
    }

    fn rest(order: &mut Order<char, usize>) -> Vec<usize> {
        std::iter::from_fn(|| order.end()).collect()
    }

    #[test]
    fn a_caller_with_a_hundred_large_messages_delays_another_caller_by_one_turn() {
        let mut order = order(2, 100);
        for number in 0..100 {
            order.ask(&'a', number).expect("room");
        }
        order.ask(&'b', 1_000).expect("room");
        order.ask(&'b', 1_001).expect("room");
        let served = rest(&mut order);
        // Two were at work, then one that had come first, and from there on each in turn.
        assert_eq!(served[..5], [2, 1_000, 3, 1_001, 4]);
        assert_eq!(served.len(), 100);
        assert!(served[5..].is_sorted());
    }

    #[test]
    fn removed_waiters_are_skipped_and_their_caller_gains_no_turn() {
        let mut order = order(1, 10);
        assert_eq!(order.ask(&'a', 0), Ok(TurnRequest::Now));
        let first = order.ask(&'a', 1);
        assert_eq!(first, Ok(TurnRequest::Waits(1)));
        order.ask(&'b', 10).expect("room");
        order.remove(&'a', 1);
        order.remove(&'a', 1);
        order.ask(&'a', 2).expect("room");
        order.ask(&'a', 3).expect("room");
        order.ask(&'b', 11).expect("room");
        assert_eq!(rest(&mut order), [10, 2, 11, 3]);
        assert_eq!((order.at_work, order.waiting, order.queues.len()), (0, 0, 0));
    }

    #[test]
    fn queue_takes_waiters_up_to_its_limit() {
        let mut order = order(1, 2);
        order.ask(&'a', 0).expect("at work");
        assert!(order.ask(&'a', 1).is_ok() && order.ask(&'a', 2).is_ok());
        assert_eq!(order.ask(&'a', 3), Err(Full));
        assert!(order.ask(&'b', 4).is_ok(), "another caller has places of its own");
        order.bounds.waiting_max = 4;
        assert!(order.ask(&'b', 5).is_ok());
        assert_eq!(order.ask(&'c', 6), Err(Full), "all together");
    }

    #[tokio::test]
    async fn dropped_waiter_is_removed_and_a_turn_in_flight_continues() {
        let bounds = TurnLimits { at_once: 1, waiting_max: 9, waiting_per_caller_max: 9 };
        let turns = Arc::new(Turns::new(bounds));
        let first = turns.turn(&'a').await.expect("a turn");
        let mut waiters: Vec<_> = (0..3).map(|_| Box::pin(turns.turn(&'a'))).collect();
        for waiter in &mut waiters {
            assert!(poll_once(waiter.as_mut()).await.is_pending());
        }
        assert_eq!(turns.order().waiting, 3);
        drop(waiters.remove(1));
        assert_eq!(turns.order().waiting, 2);
        // The turn is sent to the first, which goes without having taken it.
        drop(first);
        drop(waiters.remove(0));
        let counts = || {
            let order = turns.order();
            (order.at_work, order.waiting)
        };
        let last = waiters.remove(0).await.expect("a turn");
        assert_eq!(counts(), (1, 0));
        drop(last);
        assert_eq!(counts(), (0, 0));
    }
}
