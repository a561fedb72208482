//! The stack machine: turns instructions into values. It accounts for all of its memory, which the source bounds by the number of bytes
//! that were read.

use super::globals::Global;
use super::list::List;
use super::numpy::Dtype;
use super::opcodes::*;
use crate::fault::{Fault, FaultKind};
use crate::source::Source;
use crate::{ElementType, Parsed, TensorView};
use std::collections::HashMap;
use std::sync::Arc;

/// Largest integer that is read, in bytes; larger ones are only named.
const LARGEST_INTEGER: usize = 16;
/// Number of values that constructors may copy per byte read.
const COPIES_PER_BYTE: u64 = 4;
/// Number of values that any pickle may copy.
const FREE_COPIES: u64 = 1 << 16;
/// Deepest allowed nesting of values.
pub(super) const DEEPEST: u8 = 64;
/// Largest number of marks, more than values of that depth need.
const MOST_MARKS: usize = 1024;
/// Overhead of an allocation in bytes.
pub(super) const ALLOCATION: usize = 16;

/// A scalar, or the number of a node.
#[derive(Debug, Clone, Copy)]
pub(super) enum Item {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Node(u32),
}

/// A value that several others may hold.
#[derive(Debug)]
pub(super) enum Node {
    Long(Box<i128>),
    Text(Arc<str>),
    Bytes(Arc<[u8]>),
    List(List),
    Tuple(Vec<Item>),
    Set(Vec<Item>),
    Dict(Vec<(Item, Item)>),
    /// The meaning of a name, and the name.
    Global(Global, Arc<str>),
    Storage(u32),
    Tensor(Box<StoredTensor>),
    /// A tensor, or its storage, that is not read: a description of what it has instead.
    Unread(Arc<str>),
    Dtype(Dtype),
    /// A NumPy array; `None` until it is filled.
    Array(Option<Box<TensorView>>),
    /// A NumPy array of Python objects, in row order.
    Objects(Vec<Item>),
    /// An object of which only the name of its class is read.
    Object(Arc<str>),
}

impl Node {
    /// Returns its additional size in bytes.
    pub(super) fn held(&self) -> usize {
        match self {
            Self::Long(_) => ALLOCATION + size_of::<i128>(),
            Self::Text(text) => 2 * ALLOCATION + text.len(),
            Self::Bytes(bytes) => 2 * ALLOCATION + bytes.len(),
            Self::List(list) => list.held(),
            Self::Tuple(items) | Self::Set(items) | Self::Objects(items) => held(items),
            Self::Dict(pairs) => held(pairs),
            Self::Storage(_) | Self::Dtype(_) => 0,
            Self::Global(_, name) | Self::Unread(name) | Self::Object(name) => 2 * ALLOCATION + name.len(),
            // The elements are in the bytes that it was created from, or were accounted for when they were created.
            Self::Array(array) => array.as_ref().map_or(0, |array| {
                ALLOCATION + size_of::<TensorView>() + array.shape().len() * (size_of::<usize>() + size_of::<u64>())
            }),
            Self::Tensor(tensor) => {
                ALLOCATION + size_of::<StoredTensor>() + held(&tensor.shape) + held(&tensor.strides)
            }
        }
    }
}

/// Returns the size of a list's items in bytes, including reserved capacity.
pub(super) fn held<T>(items: &Vec<T>) -> usize {
    if items.capacity() == 0 { 0 } else { ALLOCATION + items.capacity() * size_of::<T>() }
}

pub(super) fn too_deep() -> Fault {
    Fault::too_large(format!("its values are nested more than {DEEPEST} deep"))
}

/// A tensor as the pickle describes it.
#[derive(Debug)]
pub(super) struct StoredTensor {
    pub storage: u32,
    pub offset: u64,
    pub shape: Vec<usize>,
    pub strides: Vec<u64>,
}

/// A storage that contains tensors of the pickle: elements `offset .. offset + count` of the file's data under `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StorageRef {
    pub key: Arc<str>,
    pub element: ElementType,
    pub offset: u64,
    pub count: u64,
}

/// A parsed pickle.
#[derive(Debug)]
pub(crate) struct Pickle {
    pub(super) root: Item,
    pub(super) nodes: Vec<Node>,
    pub storages: Vec<StorageRef>,
    /// Storages whose elements are not read, and the bytes per element. A storage may occur several times.
    pub unread: Vec<(Arc<str>, usize)>,
}

impl Pickle {
    /// Returns the integer, if the whole pickle is one.
    pub fn integer(&self) -> Option<i128> {
        match self.root {
            Item::Int(value) => Some(i128::from(value)),
            Item::Node(node) => match self.nodes.get(node as usize) {
                Some(Node::Long(value)) => Some(**value),
                _ => None,
            },
            _ => None,
        }
    }
}

pub(super) struct Machine<'s, 'a> {
    pub(super) source: &'s mut Source<'a>,
    pub(super) stack: Vec<Item>,
    marks: Vec<usize>,
    /// Memoized values by number; writers count from 0.
    memo: Vec<Option<Item>>,
    pub(super) nodes: Vec<Node>,
    /// Nesting depth of the values in each node.
    depths: Vec<u8>,
    pub(super) storages: Vec<StorageRef>,
    pub(super) known_storages: HashMap<Arc<str>, u32>,
    pub(super) unread: Vec<(Arc<str>, usize)>,
    copies: u64,
    /// Size of these tables in bytes when last checked.
    tables: usize,
}

impl<'s, 'a> Machine<'s, 'a> {
    pub fn new(source: &'s mut Source<'a>) -> Self {
        Self {
            source,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            nodes: Vec::new(),
            depths: Vec::new(),
            storages: Vec::new(),
            known_storages: HashMap::new(),
            unread: Vec::new(),
            copies: 0,
            tables: 0,
        }
    }

    /// Runs to the end of the pickle. The error of a damaged one names the first class or function that it refers to.
    pub fn run(mut self) -> Parsed<Pickle> {
        self.values().map_err(|fault| {
            let foreign = self.nodes.iter().find_map(|node| match node {
                Node::Global(Global::Other, name) => Some(name),
                _ => None,
            });
            match foreign {
                Some(name) => {
                    let message = format!("{fault}; it asks for `{name}`, but files are read, never executed");
                    Fault::new(fault.kind, message)
                }
                None => fault,
            }
        })
    }

    fn values(&mut self) -> Parsed<Pickle> {
        if self.source.byte()? != PROTO {
            return Err("it does not begin like a pickle of protocol 2 or later".into());
        }
        let protocol = self.source.byte()?;
        if !(2..=5).contains(&protocol) {
            return Err(Fault::unsupported(format!("a pickle of protocol {protocol}; 2 to 5 are understood")));
        }
        loop {
            let opcode = self.source.byte()?;
            if opcode == STOP {
                let root = self.pop()?;
                let kept = held(&self.nodes) + held(&self.storages) + held(&self.unread);
                self.source.release(self.tables.saturating_sub(kept));
                let (nodes, storages) = (std::mem::take(&mut self.nodes), std::mem::take(&mut self.storages));
                return Ok(Pickle { root, nodes, storages, unread: std::mem::take(&mut self.unread) });
            }
            self.step(opcode)?;
            self.account()?;
        }
    }

    /// Accounts for the growth of the machine's tables.
    fn account(&mut self) -> Parsed<()> {
        let known = self.known_storages.capacity() * size_of::<(Arc<str>, u32)>();
        let storages = held(&self.storages) + held(&self.unread) + known;
        let values = held(&self.nodes) + held(&self.depths);
        let tables = held(&self.stack) + held(&self.marks) + held(&self.memo) + values + storages;
        if tables > self.tables {
            self.source.hold(tables - self.tables)?;
            self.tables = tables;
        }
        Ok(())
    }

    fn step(&mut self, opcode: u8) -> Parsed<()> {
        match opcode {
            FRAME => self.source.array::<8>().map(drop),
            MARK if self.marks.len() == MOST_MARKS => Err(too_deep()),
            MARK => {
                self.marks.push(self.stack.len());
                Ok(())
            }
            POP => match self.marks.last() {
                Some(mark) if *mark == self.stack.len() => self.pop_mark().map(drop),
                _ => self.pop().map(drop),
            },
            POP_MARK => self.pop_mark().map(drop),
            DUP => self.top().map(|item| self.stack.push(item)),
            NONE | NEWTRUE | NEWFALSE | BININT | BININT1 | BININT2 | BINFLOAT | LONG1 | LONG4 => self.scalar(opcode),
            BINUNICODE | SHORT_BINUNICODE | BINUNICODE8 | BINSTRING | SHORT_BINSTRING => self.text(opcode),
            BINBYTES | SHORT_BINBYTES | BINBYTES8 | BYTEARRAY8 => self.raw_bytes(opcode),
            BINPUT | LONG_BINPUT | MEMOIZE | BINGET | LONG_BINGET => self.memory(opcode),
            EMPTY_LIST | APPEND | APPENDS | LIST => self.list(opcode),
            EMPTY_TUPLE | TUPLE | TUPLE1 | TUPLE2 | TUPLE3 => self.tuple(opcode),
            EMPTY_DICT | DICT | SETITEM | SETITEMS => self.dict(opcode),
            EMPTY_SET | ADDITEMS | FROZENSET => self.set(opcode),
            GLOBAL | STACK_GLOBAL | EXT1 | EXT2 | EXT4 => self.global(opcode),
            REDUCE | NEWOBJ | NEWOBJ_EX => self.reduce(opcode),
            INST | OBJ => self.instance(opcode),
            BUILD => self.build(),
            BINPERSID => self.persistent(),
            other => {
                Err(format!("pickle instruction {other:#04x} at byte {} is not used by weights", self.place()).into())
            }
        }
    }

    /// Position of the last instruction.
    pub(super) fn place(&self) -> u64 {
        self.source.position().saturating_sub(1)
    }

    pub(super) fn top(&self) -> Parsed<Item> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.unexpected("an empty stack"))
    }

    pub(super) fn pop(&mut self) -> Parsed<Item> {
        let item = self.top()?;
        self.stack.pop();
        Ok(item)
    }

    /// Pops everything since the last mark.
    pub(super) fn pop_mark(&mut self) -> Parsed<Vec<Item>> {
        let mark = self.marks.pop().ok_or_else(|| format!("no mark at byte {}", self.place()))?;
        Ok(self.stack.drain(mark..).collect())
    }

    /// Pops the last `count` items.
    fn pop_last(&mut self, count: usize) -> Parsed<Vec<Item>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let first = self.stack.len().checked_sub(count).filter(|first| *first >= floor);
        let first = first.ok_or_else(|| self.unexpected("an empty stack"))?;
        Ok(self.stack.drain(first..).collect())
    }

    pub(super) fn push_node(&mut self, node: Node) -> Parsed<()> {
        let number = u32::try_from(self.nodes.len()).map_err(|_| "more than 2^32 values".to_owned())?;
        let depth = match &node {
            Node::List(List::Mixed(items)) | Node::Tuple(items) | Node::Set(items) => self.depth_above(items)?,
            Node::Dict(pairs) => self.depth_above(pairs.iter().flat_map(|(key, value)| [key, value]))?,
            _ => 0,
        };
        self.source.hold(node.held())?;
        self.nodes.push(node);
        self.depths.push(depth);
        self.stack.push(Item::Node(number));
        Ok(())
    }

    /// Returns the nesting depth of a value that holds these items.
    fn depth_above<'i>(&self, items: impl IntoIterator<Item = &'i Item>) -> Parsed<u8> {
        let depth = |item: &Item| match item {
            Item::Node(number) => self.depths[*number as usize] + 1,
            _ => 0,
        };
        let deepest = items.into_iter().map(depth).max().unwrap_or(0);
        if deepest > DEEPEST { Err(too_deep()) } else { Ok(deepest) }
    }

    /// Adds items to the container at the top of the stack; `add` returns whether it is a suitable one. Items of an object are
    /// dropped without being examined.
    fn fill(&mut self, items: Vec<Item>, refusal: &str, add: impl FnOnce(&mut Node, Vec<Item>) -> bool) -> Parsed<()> {
        let Item::Node(number) = self.top()? else { return Err(self.unexpected(refusal)) };
        let number = number as usize;
        if matches!(self.nodes[number], Node::Object(_)) {
            return Ok(());
        }
        let depth = self.depth_above(&items)?;
        let before = self.nodes[number].held();
        if !add(&mut self.nodes[number], items) {
            return Err(self.unexpected(refusal));
        }
        self.depths[number] = self.depths[number].max(depth);
        self.source.hold(self.nodes[number].held().saturating_sub(before))
    }

    /// Returns the node of an item.
    pub(super) fn node(&self, item: Item) -> Option<&Node> {
        match item {
            Item::Node(number) => self.nodes.get(number as usize),
            _ => None,
        }
    }

    /// Accounts for values that a constructor copies, because a few bytes may name the same large list repeatedly.
    pub(super) fn charge(&mut self, values: usize) -> Parsed<()> {
        self.copies += values as u64;
        if self.copies > FREE_COPIES + COPIES_PER_BYTE.saturating_mul(self.source.position()) {
            let fault = self.unexpected("constructors that copy the same values again and again");
            return Err(Fault { kind: FaultKind::TooLarge, ..fault });
        }
        Ok(())
    }

    pub(super) fn unexpected(&self, what: &str) -> Fault {
        format!("{what} at byte {}", self.place()).into()
    }

    fn scalar(&mut self, opcode: u8) -> Parsed<()> {
        let item = match opcode {
            NONE => Item::None,
            NEWTRUE | NEWFALSE => Item::Bool(opcode == NEWTRUE),
            BININT => Item::Int(i64::from(i32::from_le_bytes(self.source.array()?))),
            BININT1 => Item::Int(i64::from(self.source.byte()?)),
            BININT2 => Item::Int(i64::from(u16::from_le_bytes(self.source.array()?))),
            BINFLOAT => Item::Float(f64::from_be_bytes(self.source.array()?)),
            _ => return self.long(opcode),
        };
        self.stack.push(item);
        Ok(())
    }

    fn long(&mut self, opcode: u8) -> Parsed<()> {
        let length = match opcode {
            LONG1 => usize::from(self.source.byte()?),
            _ => u32::from_le_bytes(self.source.array()?) as usize,
        };
        let bytes = self.source.bytes(length as u64)?;
        if length > LARGEST_INTEGER {
            return self.push_node(Node::Object(format!("an integer of {length} bytes").into()));
        }
        let negative = bytes.last().is_some_and(|byte| byte & 0x80 != 0);
        let mut word = [if negative { 0xff } else { 0 }; LARGEST_INTEGER];
        word[..length].copy_from_slice(&bytes);
        let value = i128::from_le_bytes(word);
        match i64::try_from(value) {
            Ok(value) => self.stack.push(Item::Int(value)),
            Err(_) => self.push_node(Node::Long(Box::new(value)))?,
        }
        Ok(())
    }

    /// Reads the length after an instruction: one byte, four or eight.
    fn length(&mut self, opcode: u8) -> Parsed<u64> {
        Ok(match opcode {
            SHORT_BINUNICODE | SHORT_BINSTRING | SHORT_BINBYTES => u64::from(self.source.byte()?),
            BINUNICODE | BINSTRING | BINBYTES => u64::from(u32::from_le_bytes(self.source.array()?)),
            _ => u64::from_le_bytes(self.source.array()?),
        })
    }

    fn text(&mut self, opcode: u8) -> Parsed<()> {
        let length = self.length(opcode)?;
        let bytes = self.source.bytes(length)?;
        match String::from_utf8(bytes) {
            Ok(text) => self.push_node(Node::Text(text.into())),
            // Strings of Python 2 are bytes.
            Err(error) if matches!(opcode, BINSTRING | SHORT_BINSTRING) => {
                self.push_node(Node::Bytes(error.into_bytes().into()))
            }
            // Python writes undecodable text, for example in file names, as surrogates, which no other text has.
            Err(error) => {
                let text: Arc<str> = String::from_utf8_lossy(error.as_bytes()).into();
                self.push_node(Node::Text(text))
            }
        }
    }

    fn raw_bytes(&mut self, opcode: u8) -> Parsed<()> {
        let length = self.length(opcode)?;
        let bytes = self.source.bytes(length)?;
        self.push_node(Node::Bytes(bytes.into()))
    }

    fn memory(&mut self, opcode: u8) -> Parsed<()> {
        let index = match opcode {
            BINPUT | BINGET => usize::from(self.source.byte()?),
            MEMOIZE => self.memo.len(),
            _ => u32::from_le_bytes(self.source.array()?) as usize,
        };
        if matches!(opcode, BINGET | LONG_BINGET) {
            let item = self.memo.get(index).copied().flatten();
            self.stack.push(item.ok_or_else(|| self.unexpected("a value that was not memoized"))?);
            return Ok(());
        }
        let item = self.top()?;
        if index >= self.memo.len() {
            let more = index + 1 - self.memo.len();
            self.source.require_memory(more.saturating_mul(size_of::<Item>()))?;
            self.memo.resize(index + 1, None);
        }
        self.memo[index] = Some(item);
        Ok(())
    }

    fn list(&mut self, opcode: u8) -> Parsed<()> {
        if opcode == EMPTY_LIST {
            return self.push_node(Node::List(List::new()));
        }
        let items = if opcode == APPEND { self.pop_last(1)? } else { self.pop_mark()? };
        if opcode == LIST {
            self.push_node(Node::List(List::new()))?;
        }
        self.fill(items, "an item for something that is not a list", |node, items| match node {
            Node::List(list) => {
                list.extend(items.into_iter());
                true
            }
            _ => false,
        })
    }

    fn tuple(&mut self, opcode: u8) -> Parsed<()> {
        let items = match opcode {
            EMPTY_TUPLE => Vec::new(),
            TUPLE => self.pop_mark()?,
            _ => self.pop_last(usize::from(opcode - TUPLE1) + 1)?,
        };
        self.push_node(Node::Tuple(items))
    }

    fn dict(&mut self, opcode: u8) -> Parsed<()> {
        if opcode == EMPTY_DICT {
            return self.push_node(Node::Dict(Vec::new()));
        }
        let items = if opcode == SETITEM { self.pop_last(2)? } else { self.pop_mark()? };
        if opcode == DICT {
            self.push_node(Node::Dict(Vec::new()))?;
        }
        if !items.len().is_multiple_of(2) {
            return Err(self.unexpected("a key without a value"));
        }
        self.fill(items, "a key for something that is not a dict", |node, items| match node {
            Node::Dict(pairs) => {
                pairs.extend(items.chunks_exact(2).map(|pair| (pair[0], pair[1])));
                true
            }
            _ => false,
        })
    }

    fn set(&mut self, opcode: u8) -> Parsed<()> {
        if opcode == EMPTY_SET {
            return self.push_node(Node::Set(Vec::new()));
        }
        let items = self.pop_mark()?;
        if opcode == FROZENSET {
            return self.push_node(Node::Set(items));
        }
        self.fill(items, "an item for something that is not a set", |node, items| match node {
            Node::Set(set) => {
                set.extend(items);
                true
            }
            _ => false,
        })
    }
}

/// Returns an integer that is not negative.
pub(super) fn unsigned(item: Item) -> Option<u64> {
    match item {
        Item::Int(value) => u64::try_from(value).ok(),
        _ => None,
    }
}
