//! From the values of the machine, which may share and contain each other, to a tree.

use super::globals::Global;
use super::list::List;
use super::machine::{Item, Node, Pickle, StoredTensor};
use super::value::PickleValue;
use crate::weights::{Parsed, TensorView};

/// Values nested deeper are refused; so are values that contain themselves.
const DEEPEST: usize = 64;
/// How much larger than the pickle its tree may be.
const SHARING: usize = 4;
/// What any tree may have.
const FREE: usize = 1 << 16;

/// A tree being made. `place` is where a storage's bytes are: where they begin and how many there are.
pub(crate) struct Tree<F> {
    pickle: Pickle,
    /// How often each node is held, less what was taken already.
    holders: Vec<u32>,
    /// Which nodes are being made: one that is met again contains itself.
    open: Vec<bool>,
    budget: usize,
    place: F,
}

impl<F: Fn(u32) -> Parsed<(u64, u64)>> Tree<F> {
    /// The tree of a pickle.
    pub fn of(pickle: Pickle, place: F) -> Parsed<PickleValue> {
        let (holders, items) = count_holders(&pickle);
        let budget = (pickle.nodes.len() + items).saturating_mul(SHARING).saturating_add(FREE);
        let root = pickle.root;
        let open = vec![false; pickle.nodes.len()];
        Self { pickle, open, holders, budget, place }.value(root, 0)
    }

    fn value(&mut self, item: Item, depth: usize) -> Parsed<PickleValue> {
        self.spend(1)?;
        Ok(match item {
            Item::None => PickleValue::None,
            Item::Bool(value) => PickleValue::Bool(value),
            Item::Int(value) => PickleValue::Int(value),
            Item::Float(value) => PickleValue::Float(value),
            Item::Node(node) => self.node(node as usize, depth)?,
        })
    }

    fn spend(&mut self, amount: usize) -> Parsed<()> {
        let rest = self.budget.checked_sub(amount);
        self.budget = rest.ok_or("it repeats its values again and again, far beyond its own size")?;
        Ok(())
    }

    fn node(&mut self, number: usize, depth: usize) -> Parsed<PickleValue> {
        if depth > DEEPEST {
            return Err(format!("its values are nested more than {DEEPEST} deep"));
        }
        if std::mem::replace(&mut self.open[number], true) {
            return Err("one of its values contains itself".to_owned());
        }
        let value = self.closed_node(number, depth);
        self.open[number] = false;
        value
    }

    fn closed_node(&mut self, number: usize, depth: usize) -> Parsed<PickleValue> {
        // A node that only one other holds is moved, not copied.
        let last = self.holders[number] <= 1;
        Ok(match &mut self.pickle.nodes[number] {
            Node::Long(value) => PickleValue::Long(Box::new(*value)),
            Node::Text(text) => PickleValue::Text(text.clone()),
            Node::Bytes(bytes) => PickleValue::Bytes(bytes.clone()),
            Node::Global(Global::Dtype(element)) => {
                PickleValue::Text(format!("torch.{}", element.torch_dtype()).into())
            }
            Node::Global(_) => return Err("a class or function where a value is expected".to_owned()),
            Node::Storage(_) => return Err("a bare storage where a tensor is expected".to_owned()),
            Node::Tensor(tensor) => {
                let dimensions = tensor.shape.len();
                self.spend(dimensions)?;
                self.tensor(number)?
            }
            Node::List(list) => {
                let list = if last { std::mem::replace(list, List::new()) } else { list.clone() };
                self.list(list, depth)?
            }
            Node::Tuple(items) => {
                let items = if last { std::mem::take(items) } else { items.clone() };
                PickleValue::Tuple(self.values(items, depth)?)
            }
            Node::Set(items) => {
                let items = if last { std::mem::take(items) } else { items.clone() };
                PickleValue::Set(self.values(items, depth)?)
            }
            Node::Dict(pairs) => {
                let pairs = if last { std::mem::take(pairs) } else { pairs.clone() };
                let pair = |(key, value)| Ok((self.value(key, depth + 1)?, self.value(value, depth + 1)?));
                PickleValue::Dict(pairs.into_iter().map(pair).collect::<Parsed<_>>()?)
            }
        })
    }

    fn values(&mut self, items: Vec<Item>, depth: usize) -> Parsed<Vec<PickleValue>> {
        items.into_iter().map(|item| self.value(item, depth + 1)).collect()
    }

    fn list(&mut self, list: List, depth: usize) -> Parsed<PickleValue> {
        Ok(match list {
            List::Ints(items) => {
                self.spend(items.len())?;
                PickleValue::Ints(items)
            }
            List::Floats(items) => {
                self.spend(items.len())?;
                PickleValue::Floats(items)
            }
            List::Mixed(items) => PickleValue::List(self.values(items, depth)?),
        })
    }

    fn tensor(&self, number: usize) -> Parsed<PickleValue> {
        let Node::Tensor(tensor) = &self.pickle.nodes[number] else {
            return Err("a tensor that is none".to_owned());
        };
        let StoredTensor { storage, offset, shape, strides } = &**tensor;
        let (start, room) = (self.place)(*storage)?;
        let element = self.pickle.storages[*storage as usize].element;
        let skipped = offset.checked_mul(element.size() as u64).filter(|skipped| *skipped <= room);
        let skipped = skipped.ok_or_else(|| format!("a tensor that begins {offset} elements into {room} bytes"))?;
        let view = TensorView::strided(element, shape.clone(), strides.clone(), start + skipped, room - skipped)?;
        Ok(PickleValue::Tensor(Box::new(view)))
    }
}

/// How many values hold each node, and how many items there are in all.
fn count_holders(pickle: &Pickle) -> (Vec<u32>, usize) {
    let mut holders = vec![0u32; pickle.nodes.len()];
    let mut items = 1;
    let mut hold = |item: &Item| {
        items += 1;
        if let Item::Node(number) = item {
            let count = &mut holders[*number as usize];
            *count = count.saturating_add(1);
        }
    };
    hold(&pickle.root);
    let mut numbers = 0;
    for node in &pickle.nodes {
        match node {
            Node::List(List::Mixed(list)) | Node::Tuple(list) | Node::Set(list) => list.iter().for_each(&mut hold),
            Node::Dict(pairs) => pairs.iter().for_each(|(key, value)| {
                hold(key);
                hold(value);
            }),
            Node::List(List::Ints(list)) => numbers += list.len(),
            Node::List(List::Floats(list)) => numbers += list.len(),
            _ => {}
        }
    }
    (holders, items + numbers)
}
