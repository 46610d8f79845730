//! A bounded queue that is fair between blocks of addresses: networks take turns, in each network
//! its sites, in each site its hosts. So many addresses in one block do not multiply a share. Of
//! one host the newest item comes first: a waiter has a limited time, and in a crowd that is larger
//! than can be served in it, the oldest would be served when they are about to give up, and all
//! work would be in vain.

use crate::prefixes::Prefix;
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

/// Holds items by the address that they came from.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    most: usize,
    /// The networks.
    root: Block<T>,
}

/// What waits in one block.
#[derive(Debug)]
struct Block<T> {
    count: usize,
    /// The narrower blocks in it, in the order of their turns. None is empty.
    turns: VecDeque<Prefix>,
    inner: HashMap<Prefix, Self>,
    /// Of the narrowest blocks only.
    items: VecDeque<T>,
}

impl<T> Default for Block<T> {
    fn default() -> Self {
        Self { count: 0, turns: VecDeque::new(), inner: HashMap::new(), items: VecDeque::new() }
    }
}

/// The blocks of an address, the widest first.
fn path(address: IpAddr) -> Vec<Prefix> {
    let mut path: Vec<_> = Prefix::all_of(address).collect();
    path.reverse();
    path
}

impl<T> FairQueue<T> {
    /// Holds at most so many.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, root: Block::default() }
    }

    /// How many wait.
    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.root.count
    }

    /// Whether nothing waits.
    pub(crate) const fn is_empty(&self) -> bool {
        self.root.count == 0
    }

    /// Adds an item. Where the queue is full, the oldest item of the block of which most wait gives
    /// way, and is returned. Costs a look at every network then.
    pub(crate) fn push(&mut self, address: IpAddr, item: T) -> Option<T> {
        self.root.push(&path(address), item);
        if self.root.count > self.most { self.root.shed() } else { None }
    }

    /// Takes the item whose turn it is, among the blocks of which this says that they may.
    pub(crate) fn pop(&mut self, mut may: impl FnMut(Prefix) -> bool) -> Option<T> {
        self.root.pop(&mut may)
    }

    /// Removes the items of which this says so.
    pub(crate) fn remove_if(&mut self, mut is_over: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut removed = Vec::new();
        self.root.remove_if(&mut is_over, &mut removed);
        removed
    }

    /// The hosts of which some wait, each with its wider blocks, the widest first.
    pub(crate) fn hosts(&self) -> Vec<Vec<Prefix>> {
        let mut hosts = Vec::new();
        self.root.hosts(&mut Vec::new(), &mut hosts);
        hosts
    }
}

impl<T> Block<T> {
    fn push(&mut self, path: &[Prefix], item: T) {
        self.count += 1;
        let Some((first, rest)) = path.split_first() else { return self.items.push_back(item) };
        let turns = &mut self.turns;
        let inner = self.inner.entry(*first).or_insert_with(|| {
            turns.push_back(*first);
            Self::default()
        });
        inner.push(rest, item);
    }

    fn pop(&mut self, may: &mut impl FnMut(Prefix) -> bool) -> Option<T> {
        let item = match self.turns.is_empty() {
            true => self.items.pop_back(),
            false => (0..self.turns.len()).find_map(|_| {
                let block = self.turns.pop_front()?;
                let inner = self.inner.get_mut(&block)?;
                let item = if may(block) { inner.pop(may) } else { None };
                if inner.count > 0 {
                    self.turns.push_back(block);
                } else {
                    self.inner.remove(&block);
                }
                item
            }),
        };
        self.count -= usize::from(item.is_some());
        item
    }

    /// Takes the oldest item of the inner block that has most.
    fn shed(&mut self) -> Option<T> {
        let fullest = self.turns.iter().copied().max_by_key(|block| self.inner[block].count);
        let item = match fullest {
            Some(block) => {
                let item = self.inner.get_mut(&block)?.shed();
                self.forget_empty();
                item
            }
            None => self.items.pop_front(),
        };
        self.count -= usize::from(item.is_some());
        item
    }

    fn forget_empty(&mut self) {
        self.inner.retain(|_, block| block.count > 0);
        self.turns.retain(|block| self.inner.contains_key(block));
    }

    fn remove_if(&mut self, is_over: &mut impl FnMut(&T) -> bool, removed: &mut Vec<T>) {
        for inner in self.inner.values_mut() {
            inner.remove_if(is_over, removed);
        }
        for item in std::mem::take(&mut self.items) {
            if is_over(&item) {
                removed.push(item);
            } else {
                self.items.push_back(item);
            }
        }
        self.count = self.items.len() + self.inner.values().map(|inner| inner.count).sum::<usize>();
        self.forget_empty();
    }

    fn hosts(&self, path: &mut Vec<Prefix>, hosts: &mut Vec<Vec<Prefix>>) {
        if self.turns.is_empty() && self.count > 0 {
            hosts.push(path.clone());
        }
        for block in &self.turns {
            path.push(*block);
            self.inner[block].hosts(path, hosts);
            path.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    /// A queue in which each of these waits, under its own name.
    fn queue(most: usize, addresses: &[&'static str]) -> FairQueue<&'static str> {
        let mut queue = FairQueue::new(most);
        for address in addresses {
            assert_eq!(queue.push(ip(address), *address), None, "{address}");
        }
        queue
    }

    fn all(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop(|_| true)).collect()
    }

    #[test]
    fn of_one_host_the_newest_is_served_first() {
        let mut queue = FairQueue::new(3);
        for n in 0..3 {
            assert_eq!(queue.push(ip("192.0.2.1"), n), None);
        }
        let served: Vec<_> = std::iter::from_fn(|| queue.pop(|_| true)).collect();
        assert_eq!(served, [2, 1, 0]);
        assert!(queue.is_empty() && queue.root.inner.is_empty() && queue.root.turns.is_empty());
    }

    #[test]
    fn networks_take_turns_and_in_each_of_them_sites_and_hosts() {
        let mut queue = queue(
            100,
            &[
                "2001:db8::1",
                "2001:db8:0:1::1",
                "2001:db8:0:2::1",
                "2001:db8:0:100::1",
                "192.0.2.1",
                "192.0.2.1",
                "192.0.2.2",
                "198.51.100.1",
            ],
        );
        assert_eq!(
            all(&mut queue),
            [
                "2001:db8::1",
                "192.0.2.1",
                "198.51.100.1",
                "2001:db8:0:100::1",
                "192.0.2.2",
                "2001:db8:0:1::1",
                "192.0.2.1",
                "2001:db8:0:2::1",
            ]
        );
    }

    #[test]
    fn a_block_that_may_not_is_passed_over_and_keeps_what_it_has() {
        let mut queue = queue(100, &["192.0.2.1", "192.0.2.2", "198.51.100.1"]);
        let not = |block: &'static str| move |prefix: Prefix| prefix.to_string() != block;
        assert_eq!(queue.pop(not("192.0.2.0/24")), Some("198.51.100.1"));
        assert_eq!(queue.pop(not("192.0.2.0/24")), None);
        assert_eq!(queue.pop(not("192.0.2.1")), Some("192.0.2.2"));
        assert_eq!(queue.len(), 1);
        assert_eq!(all(&mut queue), ["192.0.2.1"]);
    }

    #[test]
    fn a_full_queue_drops_the_oldest_of_the_block_of_which_most_wait() {
        let mut queue =
            queue(4, &["192.0.2.1", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:1::2"]);
        // Three wait of the /48, two of them in one /64.
        assert_eq!(queue.push(ip("198.51.100.1"), "198.51.100.1"), Some("2001:db8:0:1::1"));
        // One that is in the fullest block drops an older one of the same.
        let mut crowd = self::queue(2, &["192.0.2.1", "192.0.2.1"]);
        assert_eq!(crowd.push(ip("192.0.2.1"), "newest"), Some("192.0.2.1"));
        assert_eq!(all(&mut crowd), ["newest", "192.0.2.1"]);
        assert_eq!(all(&mut queue).len(), 4);
    }

    #[test]
    fn what_is_over_is_removed_and_leaves_no_block_behind() {
        let mut queue = queue(100, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let mut over = queue.remove_if(|item| item.starts_with("192"));
        over.sort_unstable();
        assert_eq!(over, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!((queue.len(), queue.hosts().len()), (1, 1));
        assert_eq!(queue.hosts()[0].len(), 3);
        assert_eq!(all(&mut queue), ["2001:db8::1"]);
    }
}
