//! A list under construction: compact as long as all its items are integers, or all floats.

use super::machine::{Item, held};

/// A list of the machine.
#[derive(Debug, Clone)]
pub(super) enum List {
    /// Integers only.
    Ints(Vec<i64>),
    /// Floats only.
    Floats(Vec<f64>),
    /// Anything; also the empty list.
    Mixed(Vec<Item>),
}

impl List {
    pub fn new() -> Self {
        Self::Mixed(Vec::new())
    }

    pub fn extend(&mut self, items: impl Iterator<Item = Item>) {
        items.for_each(|item| self.push(item));
    }

    fn push(&mut self, item: Item) {
        match (&mut *self, item) {
            (Self::Ints(items), Item::Int(item)) => items.push(item),
            (Self::Floats(items), Item::Float(item)) => items.push(item),
            (Self::Mixed(items), Item::Int(item)) if items.is_empty() => *self = Self::Ints(vec![item]),
            (Self::Mixed(items), Item::Float(item)) if items.is_empty() => *self = Self::Floats(vec![item]),
            (Self::Mixed(items), item) => items.push(item),
            (_, item) => {
                let mut items = self.to_items();
                items.push(item);
                *self = Self::Mixed(items);
            }
        }
    }

    pub fn len(&self) -> usize {
        match self {
            Self::Ints(items) => items.len(),
            Self::Floats(items) => items.len(),
            Self::Mixed(items) => items.len(),
        }
    }

    /// Returns the size of its items in bytes.
    pub fn held(&self) -> usize {
        match self {
            Self::Ints(items) => held(items),
            Self::Floats(items) => held(items),
            Self::Mixed(items) => held(items),
        }
    }

    pub fn to_items(&self) -> Vec<Item> {
        match self {
            Self::Ints(items) => items.iter().map(|item| Item::Int(*item)).collect(),
            Self::Floats(items) => items.iter().map(|item| Item::Float(*item)).collect(),
            Self::Mixed(items) => items.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_kind_of_item_makes_it_mixed() {
        let mut list = List::new();
        list.extend([Item::Int(1), Item::Int(2)].into_iter());
        assert!(matches!(&list, List::Ints(items) if *items == [1, 2]));
        list.extend([Item::Float(0.5), Item::None].into_iter());
        assert!(matches!(list.to_items()[..], [Item::Int(1), Item::Int(2), Item::Float(_), Item::None]));
    }
}
