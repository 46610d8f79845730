//! Where the keys of a file stand.

use crate::policy::Origin;
use std::collections::BTreeMap;

/// The places of the keys of a file.
#[derive(Debug, Clone, Default)]
pub struct KeyPlaces(Vec<PlacedTable>);

/// One table of a file: the keys that it may have, and the places of those that it has.
#[derive(Debug, Clone)]
struct PlacedTable {
    name: String,
    keys: BTreeMap<&'static str, Option<Origin>>,
}

impl KeyPlaces {
    /// Adds a table, with its header as `[tls]` or `[[allow]]`. Returns its number.
    pub(super) fn begin(&mut self, header: &str) -> usize {
        let name = header.trim_matches(['[', ']']).to_owned();
        self.0.push(PlacedTable { name, keys: BTreeMap::new() });
        self.0.len() - 1
    }

    pub(super) fn add(&mut self, table: usize, key: &'static str, place: Option<Origin>) {
        if let Some(table) = self.0.get_mut(table) {
            table.keys.insert(key, place);
        }
    }

    /// The place of a key in the table of this name without brackets, and of this number if there
    /// may be several.
    pub fn of(&self, table: &str, number: usize, key: &str) -> Option<&Origin> {
        // A node without a tunnel of its own is one of `nodes`.
        let is_listed = |placed: &&PlacedTable| {
            placed.name == table && (table != "node" || placed.has("tunnel_url"))
        };
        let place = self.0.iter().filter(is_listed).nth(number)?.keys.get(key)?.as_ref();
        place.or_else(|| if key == "nodes" { self.of_first_node() } else { None })
    }

    fn of_first_node(&self) -> Option<&Origin> {
        let mut nodes = self.0.iter().filter(|placed| placed.name == "node");
        nodes.find(|node| !node.has("tunnel_url"))?.keys.get("address")?.as_ref()
    }

    /// Takes the rules of another file in place of those of this one.
    pub(super) fn replace_rules(&mut self, other: Self) {
        let is_rule = |placed: &PlacedTable| ["allow", "deny", "host"].contains(&&*placed.name);
        self.0.retain(|placed| !is_rule(placed));
        self.0.extend(other.0.into_iter().filter(is_rule));
    }

    /// Every key that was read, by its table, and whether it was there.
    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = (&str, &'static str, bool)> {
        let of = |placed: &'_ PlacedTable| {
            placed.keys.iter().map(|(key, at)| (*key, at.is_some())).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(move |placed| {
            of(placed).into_iter().map(|(key, has)| (placed.name.as_str(), key, has))
        })
    }
}

impl PlacedTable {
    fn has(&self, key: &str) -> bool {
        self.keys.get(key).is_some_and(Option::is_some)
    }
}
