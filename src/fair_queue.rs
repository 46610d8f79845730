//! A bounded queue that is fair between blocks of addresses: networks take turns, in each network
//! its sites, in each site its hosts. Many addresses in one block do not multiply its share. Of one
//! host the newest item is served first: items time out, and in a crowd that is too large to be
//! served in time the oldest ones would be served just before they are given up.

use crate::prefixes::Prefix;
use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

/// Items by source address.
#[derive(Debug)]
pub(crate) struct FairQueue<T> {
    most: usize,
    /// The networks.
    root: QueueBlock<T>,
}

#[derive(Debug)]
struct QueueBlock<T> {
    count: usize,
    /// Its narrower blocks, in the order of their turns. None is empty.
    turns: VecDeque<Prefix>,
    inner: HashMap<Prefix, Self>,
    /// Only in the narrowest blocks.
    items: VecDeque<T>,
}

impl<T> Default for QueueBlock<T> {
    fn default() -> Self {
        Self { count: 0, turns: VecDeque::new(), inner: HashMap::new(), items: VecDeque::new() }
    }
}

/// Blocks of an address, the widest first.
fn path(address: IpAddr) -> Vec<Prefix> {
    let mut path: Vec<_> = Prefix::all_of(address).collect();
    path.reverse();
    path
}

impl<T> FairQueue<T> {
    /// A queue for at most `most` items.
    pub(crate) fn new(most: usize) -> Self {
        Self { most, root: QueueBlock::default() }
    }

    #[cfg(test)]
    pub(crate) const fn len(&self) -> usize {
        self.root.count
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.root.count == 0
    }

    /// Adds an item. A full queue evicts and returns the oldest item of the block with the most
    /// items, which costs one look at every network.
    pub(crate) fn push(&mut self, address: IpAddr, item: T) -> Option<T> {
        self.root.push(&path(address), item);
        if self.root.count > self.most { self.root.shed() } else { None }
    }

    /// Takes the item whose turn it is, skipping blocks that are not allowed.
    pub(crate) fn pop(&mut self, mut is_allowed: impl FnMut(Prefix) -> bool) -> Option<T> {
        self.root.pop(&mut is_allowed)
    }

    /// Removes the items for which `is_expired` is true.
    pub(crate) fn remove_if(&mut self, mut is_expired: impl FnMut(&T) -> bool) -> Vec<T> {
        self.root.remove_if(&mut is_expired)
    }

    /// Hosts that have items, each as its path of blocks, the widest first.
    pub(crate) fn hosts(&self) -> Vec<Vec<Prefix>> {
        let mut hosts = Vec::new();
        self.root.hosts(&mut Vec::new(), &mut hosts);
        hosts
    }
}

impl<T> QueueBlock<T> {
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

    fn pop(&mut self, is_allowed: &mut impl FnMut(Prefix) -> bool) -> Option<T> {
        let item = match self.turns.is_empty() {
            true => self.items.pop_back(),
            false => (0..self.turns.len()).find_map(|_| {
                let block = self.turns.pop_front()?;
                let inner = self.inner.get_mut(&block)?;
                let item = if is_allowed(block) { inner.pop(is_allowed) } else { None };
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

    /// Takes the oldest item of the inner block with the most items.
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

    fn remove_if(&mut self, is_expired: &mut impl FnMut(&T) -> bool) -> Vec<T> {
        let items = std::mem::take(&mut self.items);
        let (mut removed, kept): (Vec<_>, Vec<_>) = items.into_iter().partition(&mut *is_expired);
        self.items = kept.into();
        for inner in self.inner.values_mut() {
            removed.extend(inner.remove_if(is_expired));
        }
        self.count -= removed.len();
        self.forget_empty();
        removed
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

    /// A queue with one item per address, named after it.
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
    fn the_newest_item_of_a_host_is_served_first() {
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
    fn a_block_that_is_not_allowed_is_skipped_and_keeps_its_items() {
        let mut queue = queue(100, &["192.0.2.1", "192.0.2.2", "198.51.100.1"]);
        let not = |block: &'static str| move |prefix: Prefix| prefix.to_string() != block;
        assert_eq!(queue.pop(not("192.0.2.0/24")), Some("198.51.100.1"));
        assert_eq!(queue.pop(not("192.0.2.0/24")), None);
        assert_eq!(queue.pop(not("192.0.2.1")), Some("192.0.2.2"));
        assert_eq!(queue.len(), 1);
        assert_eq!(all(&mut queue), ["192.0.2.1"]);
    }

    #[test]
    fn a_full_queue_evicts_the_oldest_of_the_fullest_block() {
        let mut queue =
            queue(4, &["192.0.2.1", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:1::2"]);
        // The /48 has three items, two of them in one /64.
        assert_eq!(queue.push(ip("198.51.100.1"), "198.51.100.1"), Some("2001:db8:0:1::1"));
        // An item of the fullest block evicts an older one of the same block.
        let mut crowd = self::queue(2, &["192.0.2.1", "192.0.2.1"]);
        assert_eq!(crowd.push(ip("192.0.2.1"), "newest"), Some("192.0.2.1"));
        assert_eq!(all(&mut crowd), ["newest", "192.0.2.1"]);
        assert_eq!(all(&mut queue).len(), 4);
    }

    #[test]
    fn removed_items_leave_no_empty_block() {
        let mut queue = queue(100, &["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
        let mut expired = queue.remove_if(|item| item.starts_with("192"));
        expired.sort_unstable();
        assert_eq!(expired, ["192.0.2.1", "192.0.2.2"]);
        assert_eq!((queue.len(), queue.hosts().len()), (1, 1));
        assert_eq!(queue.hosts()[0].len(), 3);
        assert_eq!(all(&mut queue), ["2001:db8::1"]);
    }
}
