//! Values that a pickle creates by calls: tensors, storages, containers, and objects, of which only the name is kept.

use super::globals::{self, Global};
use super::list::List;
use super::machine::{Item, Machine, Node, StorageRef, StoredTensor, unsigned};
use super::opcodes::*;
use crate::{ElementType, Parsed};
use std::sync::Arc;

/// The longest line with the name of a module or class.
const LONGEST_NAME: u64 = 1024;
/// The longest name of a storage.
const LONGEST_KEY: usize = 256;
/// Largest number of dimensions.
const MOST_DIMENSIONS: usize = 64;
/// Function that protocols 2 and 3 use to create an object whose class takes named arguments.
const PARTIAL: &str = "functools.partial";
const NEW: &str = ".__new__";
/// Largest number of arguments of the supported constructors.
const MOST_ARGUMENTS: usize = 16;

impl Machine<'_, '_> {
    pub(super) fn global(&mut self, opcode: u8) -> Parsed<()> {
        let (module, name) = match opcode {
            GLOBAL => (self.source.line(LONGEST_NAME)?, self.source.line(LONGEST_NAME)?),
            STACK_GLOBAL => {
                let (name, module) = (self.pop()?, self.pop()?);
                match (self.node(module), self.node(name)) {
                    (Some(Node::Text(module)), Some(Node::Text(name))) => (module.to_string(), name.to_string()),
                    _ => return Err(self.unexpected("a name that is not text")),
                }
            }
            _ => return self.extension(opcode),
        };
        let name_shown = globals::shown(&module, &name).into();
        self.push_node(Node::Global(globals::resolve(&module, &name), name_shown))
    }

    /// Pushes a class by its number in a registry of the program that wrote the file.
    fn extension(&mut self, opcode: u8) -> Parsed<()> {
        let number = match opcode {
            EXT1 => u32::from(self.source.byte()?),
            EXT2 => u32::from(u16::from_le_bytes(self.source.array()?)),
            _ => u32::from_le_bytes(self.source.array()?),
        };
        self.push_node(Node::Global(Global::Other, format!("copyreg extension {number}").into()))
    }

    /// `REDUCE`, `NEWOBJ` and `NEWOBJ_EX`: turns a constructor and its arguments into a value.
    pub(super) fn reduce(&mut self, opcode: u8) -> Parsed<()> {
        if opcode == NEWOBJ_EX {
            // Only objects have named arguments.
            self.pop()?;
        }
        let (arguments, callable) = (self.pop()?, self.pop()?);
        self.call(callable, arguments)
    }

    /// `INST` and `OBJ`: objects as Python 2 wrote them.
    pub(super) fn instance(&mut self, opcode: u8) -> Parsed<()> {
        let name = match opcode {
            INST => {
                let (module, name) = (self.source.line(LONGEST_NAME)?, self.source.line(LONGEST_NAME)?);
                self.pop_mark()?;
                globals::shown(&module, &name).into()
            }
            _ => {
                let class = self.pop_mark()?.first().copied();
                let name = class.and_then(|class| self.object_name(class));
                name.ok_or_else(|| self.unexpected("an object without a class"))?
            }
        };
        self.push_node(Node::Object(name))
    }

    /// Returns the name of a class, a function or an object.
    fn object_name(&self, item: Item) -> Option<Arc<str>> {
        match self.node(item) {
            Some(Node::Global(_, name) | Node::Object(name)) => Some(name.clone()),
            _ => None,
        }
    }

    /// Pushes the result of a call. Nothing is executed: supported constructors create values, all others create an object of which
    /// only the name is known, whatever the arguments.
    fn call(&mut self, callable: Item, arguments: Item) -> Parsed<()> {
        let (global, name) = match self.node(callable) {
            Some(Node::Global(global, name)) => (*global, name.clone()),
            Some(Node::Object(name)) => (Global::Other, name.clone()),
            _ => return Err(self.unexpected("a call of what cannot be called")),
        };
        let arguments = match self.node(arguments) {
            Some(Node::Tuple(items)) if global == Global::Other => {
                let made = items.first().and_then(|first| self.object_name(*first));
                let name = made
                    .filter(|_| &*name == PARTIAL)
                    .as_deref()
                    .and_then(|made| made.strip_suffix(NEW))
                    .map_or(name, Arc::from);
                return self.push_node(Node::Object(name));
            }
            Some(Node::Tuple(items)) if items.len() <= MOST_ARGUMENTS => items.clone(),
            _ => return Err(self.unexpected("arguments that are not a short tuple")),
        };
        let first = arguments.first().copied();
        let required = |machine: &Self| first.ok_or_else(|| machine.unexpected("a constructor without arguments"));
        let node = match global {
            Global::Dict => Node::Dict(first.map_or(Ok(Vec::new()), |first| self.pairs(first))?),
            Global::DefaultDict => Node::Dict(Vec::new()),
            Global::Set => Node::Set(first.map_or(Ok(Vec::new()), |first| self.items(first))?),
            Global::Bytes | Global::Encode => Node::Bytes(first.map_or(Ok(Arc::default()), |first| self.latin(first))?),
            Global::Size | Global::Device | Global::Parameter => {
                let first = required(self)?;
                self.stack.push(first);
                return Ok(());
            }
            Global::FromType => {
                let &[function, _class, inner, ..] = &arguments[..] else {
                    return Err(self.unexpected("a tensor with the wrong arguments"));
                };
                return self.call(function, inner);
            }
            Global::Tensor => self.tensor(&arguments)?,
            Global::UntypedTensor => Node::Unread(self.untyped_elements(&arguments).into()),
            Global::OtherTensor => {
                Node::Unread(format!("a form (`{name}`) that is not supported; save a dense, plain copy of it").into())
            }
            Global::NumpyDtype => self.numpy_dtype(required(self)?)?,
            Global::NumpyArray => Node::Array(None),
            Global::NumpyBuffer => self.numpy_buffer(&arguments)?,
            Global::NumpyScalar => {
                let value = self.numpy_scalar(&arguments)?;
                self.stack.push(value);
                return Ok(());
            }
            Global::Attribute => {
                let attribute = arguments.get(1).and_then(|attribute| self.node(*attribute));
                match (self.object_name(required(self)?), attribute) {
                    (Some(class), Some(Node::Text(attribute))) => {
                        let attribute: String = attribute.chars().take(80).collect();
                        Node::Object(format!("{class}.{}", attribute.replace(char::is_control, "?")).into())
                    }
                    _ => Node::Object(name),
                }
            }
            Global::Maker => Node::Object(first.and_then(|class| self.object_name(class)).unwrap_or(name)),
            Global::Storage(_) | Global::UntypedStorage | Global::Dtype(_) | Global::OtherDtype(_) => {
                return Err(self.unexpected("a call of what cannot be called"));
            }
            Global::Other => Node::Object(name),
        };
        self.push_node(node)
    }

    /// Describes the elements of a tensor `_rebuild_tensor_v3(storage, offset, size, stride, requires_grad, hooks, dtype)`.
    fn untyped_elements(&self, arguments: &[Item]) -> String {
        let dtype = match arguments.get(6).and_then(|dtype| self.node(*dtype)) {
            Some(Node::Global(Global::OtherDtype(dtype), _)) => format!("torch.{dtype}"),
            Some(Node::Global(Global::Dtype(element), _)) => {
                format!("torch.{} in an untyped storage", element.torch_dtype())
            }
            _ => "an unknown dtype".to_owned(),
        };
        format!("elements of {dtype}, which are not supported; convert it first, as with `tensor.float()`")
    }

    /// Returns the bytes encoded by a text with characters below 256, or other bytes.
    fn latin(&mut self, item: Item) -> Parsed<Arc<[u8]>> {
        let text = match self.node(item) {
            Some(Node::Bytes(bytes)) => return Ok(bytes.clone()),
            Some(Node::Text(text)) => text.clone(),
            _ => return Err(self.unexpected("bytes of something that is not text")),
        };
        self.charge(text.len())?;
        let bytes: Result<Vec<u8>, _> = text.chars().map(|character| u8::try_from(u32::from(character))).collect();
        bytes.map(Arc::from).map_err(|_| self.unexpected("bytes of a text that is not Latin-1"))
    }

    /// Returns the items of a list or tuple.
    fn items(&mut self, item: Item) -> Parsed<Vec<Item>> {
        let items = match self.node(item) {
            Some(Node::List(list)) => list.to_items(),
            Some(Node::Tuple(items)) => items.clone(),
            _ => return Err(self.unexpected("a container of something without items")),
        };
        self.charge(items.len())?;
        Ok(items)
    }

    /// Returns the pairs of a list of lists or tuples of two.
    fn pairs(&mut self, list: Item) -> Parsed<Vec<(Item, Item)>> {
        let pair = |machine: &Self, item: Item| match machine.node(item) {
            Some(Node::List(List::Mixed(pair)) | Node::Tuple(pair)) if pair.len() == 2 => Ok((pair[0], pair[1])),
            _ => Err(machine.unexpected("a dict of something that is not pairs")),
        };
        let items = self.items(list)?;
        items.into_iter().map(|item| pair(self, item)).collect()
    }

    /// `BUILD`: sets an object's attributes. Those of an `OrderedDict` (module versions) are not part of its value, those of an object
    /// are not read; NumPy's types and arrays are created in this way.
    pub(super) fn build(&mut self) -> Parsed<()> {
        let (state, target) = (self.pop()?, self.top()?);
        match self.node(target) {
            Some(Node::Dict(_) | Node::Tensor(_) | Node::Unread(_) | Node::Object(_)) => Ok(()),
            Some(Node::Dtype(_)) => self.build_numpy_dtype(target, state),
            Some(Node::Array(None)) => self.build_numpy_array(target, state),
            _ => Err(self.unexpected("attributes for something without attributes")),
        }
    }

    /// Reads a persistent value. `torch.save` stores the place of a storage as a tuple: 'storage', class, key, device, count, and perhaps
    /// a part of it. Before PyTorch 1.6 it stored classes of models with their source: 'module', class, file, text.
    pub(super) fn persistent(&mut self) -> Parsed<()> {
        let wrong = |machine: &Self| machine.unexpected("a persistent value that is not a storage");
        let id = self.pop()?;
        let Some(Node::Tuple(items)) = self.node(id) else { return Err(wrong(self)) };
        if let &[tag, class, ..] = &items[..]
            && matches!(self.node(tag), Some(Node::Text(tag)) if &**tag == "module")
        {
            self.stack.push(class);
            return Ok(());
        }
        let (&[tag, class, key, _device, count], part) = items.split_first_chunk().ok_or_else(|| wrong(self))?;
        let part = part.first().copied().unwrap_or(Item::None);
        let (Some(Node::Text(tag)), Some(Node::Global(class, name)), Some(Node::Text(key))) =
            (self.node(tag), self.node(class), self.node(key))
        else {
            return Err(wrong(self));
        };
        if &**tag != "storage" || key.len() > LONGEST_KEY {
            return Err(wrong(self));
        }
        let element = match class {
            Global::Storage(element) => *element,
            Global::UntypedStorage => ElementType::U8,
            Global::Other => {
                let size = name.strip_prefix("torch.").and_then(ElementType::unread_torch_storage);
                let elements = format!("elements of `{name}`, which are not supported; convert it first");
                let unread = size.map(|size| (key.clone(), size));
                self.unread.extend(unread);
                return self.push_node(Node::Unread(elements.into()));
            }
            _ => return Err(wrong(self)),
        };
        let count = unsigned(count).ok_or_else(|| wrong(self))?;
        let mut storage = StorageRef { key: key.clone(), element, offset: 0, count };
        let mut name = storage.key.clone();
        match (part, self.node(part)) {
            (Item::None, _) => {}
            (_, Some(Node::Tuple(view))) => {
                let &[view_key, offset, size] = &view[..] else { return Err(wrong(self)) };
                let Some(Node::Text(view_key)) = self.node(view_key) else { return Err(wrong(self)) };
                if view_key.len() > LONGEST_KEY {
                    return Err(wrong(self));
                }
                name = format!("{}/{view_key}", storage.key).into();
                let part = unsigned(offset).zip(unsigned(size)).ok_or_else(|| wrong(self))?;
                (storage.offset, storage.count) = part;
            }
            _ => return Err(wrong(self)),
        }
        let number = self.storage_number(name, storage)?;
        self.push_node(Node::Storage(number))
    }

    /// Returns the number of a storage; one key always means one storage.
    fn storage_number(&mut self, name: Arc<str>, storage: StorageRef) -> Parsed<u32> {
        if let Some(number) = self.known_storages.get(&name) {
            let known = &self.storages[*number as usize];
            return if *known == storage {
                Ok(*number)
            } else {
                Err(self.unexpected("a storage with two descriptions"))
            };
        }
        let number = self.storages.len() as u32;
        self.storages.push(storage);
        self.known_storages.insert(name, number);
        Ok(number)
    }

    /// `_rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks, metadata)`.
    fn tensor(&self, arguments: &[Item]) -> Parsed<Node> {
        let wrong = |machine: &Self| machine.unexpected("a tensor with the wrong arguments");
        let Some((&[storage, offset, shape, strides], rest)) = arguments.split_first_chunk() else {
            return Err(wrong(self));
        };
        let storage = match self.node(storage) {
            Some(Node::Storage(storage)) => *storage,
            Some(Node::Unread(elements)) => return Ok(Node::Unread(elements.clone())),
            Some(Node::Object(name)) => {
                let place = format!("its elements in an object (`{name}`); save it with torch.save");
                return Ok(Node::Unread(place.into()));
            }
            _ => return Err(wrong(self)),
        };
        let metadata = rest.get(2).copied().unwrap_or(Item::None);
        match (metadata, self.node(metadata)) {
            (Item::None, _) => {}
            (_, Some(Node::Dict(pairs))) if pairs.is_empty() => {}
            _ => return Ok(Node::Unread("a pending conjugation or negation; save `tensor.resolve_conj()`".into())),
        }
        let (Some(offset), Some(shape), Some(strides)) = (unsigned(offset), self.sizes(shape), self.sizes(strides))
        else {
            return Err(wrong(self));
        };
        let shape: Result<Vec<usize>, _> = shape.into_iter().map(usize::try_from).collect();
        let shape = shape.map_err(|_| wrong(self))?;
        Ok(Node::Tensor(Box::new(StoredTensor { storage, offset, shape, strides })))
    }

    /// Returns a tuple of a few sizes.
    pub(super) fn sizes(&self, item: Item) -> Option<Vec<u64>> {
        match self.node(item) {
            Some(Node::Tuple(items)) if items.len() <= MOST_DIMENSIONS => {
                items.iter().map(|item| unsigned(*item)).collect::<Option<Vec<u64>>>()
            }
            _ => None,
        }
    }
}
