//! Conversion of the machine's values, which may share and contain each other, to a tree.

use super::globals::Global;
use super::list::List;
use super::machine::{DEEPEST, Item, Node, Pickle, StoredTensor, held, too_deep};
use super::value::PickleValue;
use crate::fault::{Fault, FaultKind};
use crate::source::Source;
use crate::{Parsed, TensorView};

/// A tree under construction. `place` returns the start and length of a storage's bytes.
pub(crate) struct Tree<'s, 'a, F> {
    /// The source of the pickle, which accounts for memory.
    source: &'s mut Source<'a>,
    pickle: Pickle,
    /// Number of holders of each node, minus those already processed.
    holders: Vec<u32>,
    /// Nodes under construction: one that is visited again contains itself.
    open: Vec<bool>,
    place: F,
}

impl<'s, 'a, F: Fn(u32) -> Parsed<(u64, u64)>> Tree<'s, 'a, F> {
    /// Builds the tree of a pickle of `source`.
    ///
    /// # Errors
    /// Values that contain themselves or are nested too deep, and shared ones that take too much memory as a tree.
    pub fn of(pickle: Pickle, source: &'s mut Source<'a>, place: F) -> Parsed<PickleValue> {
        let (holders, open) = (count_holders(&pickle), vec![false; pickle.nodes.len()]);
        let tables = held(&holders) + held(&open);
        source.hold(tables)?;
        let (root, nodes) = (pickle.root, held(&pickle.nodes) + held(&pickle.storages) + held(&pickle.unread));
        let mut tree = Self { source, pickle, open, holders, place };
        let value = tree.value(root, 0)?;
        tree.source.release(tables + nodes);
        Ok(value)
    }

    fn value(&mut self, item: Item, depth: u8) -> Parsed<PickleValue> {
        Ok(match item {
            Item::None => PickleValue::None,
            Item::Bool(value) => PickleValue::Bool(value),
            Item::Int(value) => PickleValue::Int(value),
            Item::Float(value) => PickleValue::Float(value),
            Item::Node(node) => self.node(node as usize, depth)?,
        })
    }

    fn node(&mut self, number: usize, depth: u8) -> Parsed<PickleValue> {
        if depth > DEEPEST {
            return Err(too_deep());
        }
        if std::mem::replace(&mut self.open[number], true) {
            return Err(Fault::new(FaultKind::Cyclic, "one of its values contains itself"));
        }
        let value = self.closed_node(number, depth);
        self.open[number] = false;
        value
    }

    fn closed_node(&mut self, number: usize, depth: u8) -> Parsed<PickleValue> {
        // A node with only one holder is moved, not copied.
        let last = self.holders[number] <= 1;
        Ok(match &mut self.pickle.nodes[number] {
            Node::Long(value) => PickleValue::Long(value.clone()),
            Node::Text(text) => PickleValue::Text(text.clone()),
            Node::Bytes(bytes) => PickleValue::Bytes(bytes.clone()),
            Node::Global(Global::Dtype(element), _) => {
                PickleValue::Text(format!("torch.{}", element.torch_dtype()).into())
            }
            Node::Global(Global::OtherDtype(dtype), _) => PickleValue::Text(format!("torch.{dtype}").into()),
            Node::Global(_, name) | Node::Object(name) => PickleValue::Object(name.clone()),
            Node::Storage(_) => PickleValue::Object("torch storage".into()),
            Node::Dtype(_) => PickleValue::Object("numpy.dtype".into()),
            Node::Unread(problem) => PickleValue::Unreadable(problem.clone()),
            Node::Array(None) => PickleValue::Object("numpy array without content".into()),
            Node::Array(Some(array)) => {
                let array = array.clone();
                self.source
                    .hold(size_of::<TensorView>() + array.shape().len() * (size_of::<usize>() + size_of::<u64>()))?;
                PickleValue::Tensor(array)
            }
            Node::Tensor(_) => self.tensor(number)?,
            Node::List(list) => {
                let list = if last { std::mem::replace(list, List::new()) } else { list.clone() };
                self.source.hold(if last { 0 } else { list.held() })?;
                match list {
                    List::Ints(items) => PickleValue::Ints(items),
                    List::Floats(items) => PickleValue::Floats(items),
                    List::Mixed(items) => PickleValue::List(self.values(items, depth)?),
                }
            }
            Node::Tuple(items) => {
                let items = taken(items, last, self.source)?;
                PickleValue::Tuple(self.values(items, depth)?)
            }
            Node::Objects(items) => {
                let items = taken(items, last, self.source)?;
                PickleValue::Objects(self.values(items, depth)?)
            }
            Node::Set(items) => {
                let items = taken(items, last, self.source)?;
                PickleValue::Set(self.values(items, depth)?)
            }
            Node::Dict(pairs) => {
                let pairs = taken(pairs, last, self.source)?;
                PickleValue::Dict(self.pairs(pairs, depth)?)
            }
        })
    }

    fn values(&mut self, items: Vec<Item>, depth: u8) -> Parsed<Vec<PickleValue>> {
        self.source.hold(items.len() * size_of::<PickleValue>())?;
        let mut values = Vec::with_capacity(items.len());
        for item in &items {
            values.push(self.value(*item, depth + 1)?);
        }
        self.source.release(held(&items));
        Ok(values)
    }

    fn pairs(&mut self, pairs: Vec<(Item, Item)>, depth: u8) -> Parsed<Vec<(PickleValue, PickleValue)>> {
        self.source.hold(pairs.len() * size_of::<(PickleValue, PickleValue)>())?;
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in &pairs {
            values.push((self.value(*key, depth + 1)?, self.value(*value, depth + 1)?));
        }
        self.source.release(held(&pairs));
        Ok(values)
    }

    fn tensor(&mut self, number: usize) -> Parsed<PickleValue> {
        let Node::Tensor(tensor) = &self.pickle.nodes[number] else {
            return Err("a tensor that is none".into());
        };
        let StoredTensor { storage, offset, shape, strides } = &**tensor;
        self.source.hold(size_of::<TensorView>() + shape.len() * (size_of::<usize>() + size_of::<u64>()))?;
        let (start, room) = (self.place)(*storage)?;
        let element = self.pickle.storages[*storage as usize].element;
        let skipped = offset.checked_mul(element.size() as u64).filter(|skipped| *skipped <= room);
        let skipped = skipped.ok_or_else(|| format!("a tensor that begins {offset} elements into {room} bytes"))?;
        let view = TensorView::strided(element, shape.clone(), strides.clone(), start + skipped, room - skipped)?;
        Ok(PickleValue::Tensor(Box::new(view)))
    }
}

/// Moves the items out of a node with only one holder; copies them, and accounts for the copy, if it has more.
fn taken<T: Clone>(items: &mut Vec<T>, last: bool, source: &mut Source<'_>) -> Parsed<Vec<T>> {
    if last {
        return Ok(std::mem::take(items));
    }
    let copy = items.clone();
    source.hold(held(&copy))?;
    Ok(copy)
}

/// Counts the values that hold each node.
fn count_holders(pickle: &Pickle) -> Vec<u32> {
    let mut holders = vec![0u32; pickle.nodes.len()];
    let mut hold = |item: &Item| {
        if let Item::Node(number) = item {
            let count = &mut holders[*number as usize];
            *count = count.saturating_add(1);
        }
    };
    hold(&pickle.root);
    for node in &pickle.nodes {
        match node {
            Node::List(List::Mixed(list)) | Node::Tuple(list) | Node::Set(list) | Node::Objects(list) => {
                list.iter().for_each(&mut hold);
            }
            Node::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
                hold(key);
                hold(value);
            }),
            _ => {}
        }
    }
    holders
}
