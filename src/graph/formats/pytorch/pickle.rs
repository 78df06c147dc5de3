//! A pickle as data: a machine for the opcodes of protocols 2 to 5 that builds values and calls nothing.
//!
//! Containers lie in flat lists and refer to each other by number, so that neither depth nor cycles nor
//! values that are named a million times cost more than the bytes that name them.

use super::globals::{self, Global};
use super::{malformed, shown};
use crate::graph::formats::Limits;
use crate::graph::{Dtype, Error};
use std::collections::HashMap;

/// Steps for each node that a network may have: about what a tensor and its moments take.
const STEPS_A_NODE: u64 = 4;

/// Longest name of a module or global.
const NAME_MAX: usize = 256;

/// A value; containers are numbers of lists on the heap.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    None,
    Bool,
    Int(i64),
    /// An integer of more than 64 bits, little-endian.
    Long(&'a [u8]),
    Float,
    Text(&'a str),
    Bytes,
    /// A tuple, list or set.
    Sequence(usize),
    Dict(usize),
    Global(Global),
    Storage(usize),
    Tensor(usize),
    /// Something on the list that no state dict needs.
    Opaque,
}

/// A storage by its key in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Storage<'a> {
    pub(super) dtype: Dtype,
    pub(super) key: &'a str,
    pub(super) elements: usize,
}

/// A window on a storage, in elements.
#[derive(Debug)]
pub(super) struct TensorView {
    pub(super) storage: usize,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) stride: Vec<usize>,
}

/// Containers, storages and tensors of a pickle.
#[derive(Debug, Default)]
pub(super) struct Heap<'a> {
    pub(super) sequences: Vec<Vec<Value<'a>>>,
    pub(super) dicts: Vec<Vec<(Value<'a>, Value<'a>)>>,
    pub(super) storages: Vec<Storage<'a>>,
    pub(super) tensors: Vec<TensorView>,
}

impl<'a> Heap<'a> {
    fn sequence(&mut self, items: Vec<Value<'a>>) -> Value<'a> {
        self.sequences.push(items);
        Value::Sequence(self.sequences.len() - 1)
    }

    pub(super) fn dict(&mut self, pairs: Vec<(Value<'a>, Value<'a>)>) -> Value<'a> {
        self.dicts.push(pairs);
        Value::Dict(self.dicts.len() - 1)
    }
}

/// What a pickle holds.
#[derive(Debug)]
pub(super) struct Loaded<'a> {
    pub(super) root: Value<'a>,
    pub(super) heap: Heap<'a>,
    /// Bytes that it takes.
    pub(super) length: usize,
}

/// Reads the pickle at the beginning of `bytes`.
///
/// # Errors
/// `Error::Contract` for a global that is not on the list, `Error::Limit` for too many opcodes,
/// `Error::Malformed` for everything else.
pub(super) fn load<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Loaded<'a>, Error> {
    let limit = limits.nodes_max.saturating_mul(STEPS_A_NODE);
    let mut machine = Machine {
        bytes,
        at: 0,
        steps: 0,
        limit,
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        heap: Heap::default(),
    };
    let root = machine.run().map_err(|error| match error {
        Error::Malformed { format, what } => {
            Error::Malformed { format, what: format!("{what} (pickle, byte {})", machine.at) }
        }
        other => other,
    })?;
    Ok(Loaded { root, heap: machine.heap, length: machine.at })
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    steps: u64,
    limit: u64,
    stack: Vec<Value<'a>>,
    /// Lengths of the stack at its marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    heap: Heap<'a>,
}

impl<'a> Machine<'a> {
    fn run(&mut self) -> Result<Value<'a>, Error> {
        loop {
            self.charge(1)?;
            let opcode = self.byte()?;
            match opcode {
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'0' => _ = self.pop()?,
                b'1' => _ = self.pop_mark()?,
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(top);
                }
                0x80 => {
                    let version = self.byte()?;
                    if !(2..=5).contains(&version) {
                        return Err(malformed(format!(
                            "expected pickle protocol 2 to 5, found {version}"
                        )));
                    }
                }
                0x95 => _ = self.take(8)?,
                b'q' | b'r' | 0x94 | b'h' | b'j' => self.remember(opcode)?,
                b'c' | 0x93 | b'R' | b'Q' | b'b' => self.build(opcode)?,
                b')' | b't' | 0x85..=0x87 | b']' | b'}' | 0x8f | 0x91 | b'l' | b'd' => {
                    self.contain(opcode)?;
                }
                b'a' | b'e' | b's' | b'u' | 0x90 => self.fill(opcode)?,
                _ => {
                    let value = self.plain(opcode)?;
                    self.stack.push(value);
                }
            }
        }
    }

    /// Numbers, texts and bytes.
    fn plain(&mut self, opcode: u8) -> Result<Value<'a>, Error> {
        Ok(match opcode {
            b'N' => Value::None,
            0x88 | 0x89 => Value::Bool,
            b'J' => Value::Int(i32::from_le_bytes(self.array()?).into()),
            b'K' => Value::Int(self.byte()?.into()),
            b'M' => Value::Int(u16::from_le_bytes(self.array()?).into()),
            0x8a | 0x8b => {
                let length = self.length(if opcode == 0x8a { 1 } else { 4 })?;
                self.long(length)?
            }
            b'G' => {
                self.take(8)?;
                Value::Float
            }
            b'X' | 0x8c | 0x8d => {
                let length = self.length(width(opcode))?;
                Value::Text(self.text(length)?)
            }
            // Python 2 wrote its texts as byte strings.
            b'U' | b'T' => {
                let length = self.length(if opcode == b'U' { 1 } else { 4 })?;
                Value::Text(self.text(length)?)
            }
            b'B' | b'C' | 0x8e | 0x96 => {
                let length = self.length(width(opcode))?;
                self.take(length)?;
                Value::Bytes
            }
            _ => {
                return Err(malformed(format!(
                    "expected an opcode that PyTorch writes, found {opcode:#04x}"
                )));
            }
        })
    }

    fn remember(&mut self, opcode: u8) -> Result<(), Error> {
        let key = match opcode {
            b'q' | b'h' => self.byte()?.into(),
            b'r' | b'j' => u32::from_le_bytes(self.array()?),
            _ => self.memo.len() as u32,
        };
        if matches!(opcode, b'h' | b'j') {
            let value = self.memo.get(&key).copied();
            let value = value.ok_or_else(|| malformed(format!("memo {key} is empty")))?;
            self.stack.push(value);
        } else {
            self.memo.insert(key, self.top()?);
        }
        Ok(())
    }

    /// Globals, what they make, storages, and what is set on an object afterwards.
    fn build(&mut self, opcode: u8) -> Result<(), Error> {
        let value = match opcode {
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                Value::Global(globals::find(module, name)?)
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => {
                    Value::Global(globals::find(module, name)?)
                }
                (name, _) => {
                    return Err(malformed(format!(
                        "expected the name of a global, found {name:?}"
                    )));
                }
            },
            b'R' => match (self.pop()?, self.pop()?) {
                (Value::Sequence(arguments), Value::Global(global)) => {
                    // Copied, which a pair of bytes may ask for again and again.
                    self.charge(self.heap.sequences[arguments].len() as u64)?;
                    let arguments = self.heap.sequences[arguments].clone();
                    if let &[Value::Sequence(items)] = &arguments[..] {
                        self.charge(self.heap.sequences[items].len() as u64)?;
                    }
                    globals::reduce(global, &arguments, &mut self.heap)?
                }
                (_, callee) => {
                    return Err(malformed(format!("expected a global to call, found {callee:?}")));
                }
            },
            b'Q' => {
                let id = self.pop()?;
                self.storage(id)?
            }
            // Attributes of an OrderedDict: the versions of the modules, which no weight needs.
            _ => {
                self.pop()?;
                let Value::Dict(_) = self.top()? else {
                    return Err(malformed(format!(
                        "expected a dict to set attributes of, found {:?}",
                        self.top()?
                    )));
                };
                return Ok(());
            }
        };
        self.stack.push(value);
        Ok(())
    }

    /// `('storage', type, key, location, elements)`, with a view of the storage that must be none.
    fn storage(&mut self, id: Value<'a>) -> Result<Value<'a>, Error> {
        let parts = match id {
            Value::Sequence(at) => &self.heap.sequences[at][..],
            _ => &[],
        };
        let &[
            Value::Text("storage"),
            Value::Global(Global::Storage(dtype)),
            Value::Text(key),
            Value::Text(_),
            Value::Int(elements),
            ref view @ ..,
        ] = parts
        else {
            return Err(malformed("expected a storage with type, key, location and size"));
        };
        if !matches!(view, [] | [Value::None]) {
            return Err(malformed("expected a whole storage, found a view of one"));
        }
        let elements = usize::try_from(elements).map_err(|_| {
            malformed(format!("storage {}: expected a size, found {elements}", shown(key)))
        })?;
        self.heap.storages.push(Storage { dtype, key, elements });
        Ok(Value::Storage(self.heap.storages.len() - 1))
    }

    fn contain(&mut self, opcode: u8) -> Result<(), Error> {
        let value = match opcode {
            b')' | b']' | 0x8f => self.heap.sequence(Vec::new()),
            b't' | b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.heap.sequence(items)
            }
            b'}' => self.heap.dict(Vec::new()),
            b'd' => {
                let items = self.pop_mark()?;
                self.heap.dict(pairs(&items)?)
            }
            _ => {
                let mut items = Vec::new();
                for _ in 0..=opcode - 0x85 {
                    items.push(self.pop()?);
                }
                items.reverse();
                self.heap.sequence(items)
            }
        };
        self.stack.push(value);
        Ok(())
    }

    fn fill(&mut self, opcode: u8) -> Result<(), Error> {
        let items = match opcode {
            b'a' => vec![self.pop()?],
            b's' => {
                let value = self.pop()?;
                vec![self.pop()?, value]
            }
            _ => self.pop_mark()?,
        };
        match (opcode, self.top()?) {
            (b'a' | b'e' | 0x90, Value::Sequence(at)) => self.heap.sequences[at].extend(items),
            (b's' | b'u', Value::Dict(at)) => self.heap.dicts[at].extend(pairs(&items)?),
            (_, found) => {
                return Err(malformed(format!("expected a list or dict to fill, found {found:?}")));
            }
        }
        Ok(())
    }

    fn charge(&mut self, steps: u64) -> Result<(), Error> {
        self.steps = self.steps.saturating_add(steps);
        if self.steps <= self.limit {
            return Ok(());
        }
        let what = "the number of steps to read a pickle".into();
        Err(Error::Limit { what, found: self.steps, limit: self.limit })
    }

    fn top(&self) -> Result<Value<'a>, Error> {
        let floor = self.marks.last().copied().unwrap_or_default();
        let top = self.stack[floor..].last().copied();
        top.ok_or_else(|| malformed("expected a value on the stack, found none"))
    }

    fn pop(&mut self) -> Result<Value<'a>, Error> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_mark(&mut self) -> Result<Vec<Value<'a>>, Error> {
        let mark = self.marks.pop();
        let mark = mark.ok_or_else(|| malformed("expected a mark on the stack, found none"))?;
        Ok(self.stack.split_off(mark))
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let rest = &self.bytes[self.at..];
        let Some(taken) = rest.get(..count) else {
            return Err(malformed(format!("expected {count} bytes, found {}", rest.len())));
        };
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.array::<1>()?[0])
    }

    /// A little-endian length of so many bytes.
    fn length(&mut self, width: usize) -> Result<usize, Error> {
        let mut wide = [0; 8];
        wide[..width].copy_from_slice(self.take(width)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|error| malformed(error.to_string()))
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Error> {
        str::from_utf8(self.take(length)?)
            .map_err(|error| malformed(format!("expected UTF-8, found {error}")))
    }

    fn line(&mut self) -> Result<&'a str, Error> {
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(NAME_MAX).position(|&byte| byte == b'\n');
        let end = end.ok_or_else(|| {
            malformed(format!("expected the name of a global in {NAME_MAX} bytes, found more"))
        })?;
        let text = self.text(end)?;
        self.at += 1;
        Ok(text)
    }

    /// A signed integer of so many bytes.
    fn long(&mut self, length: usize) -> Result<Value<'a>, Error> {
        let bytes = self.take(length)?;
        if length > 8 {
            return Ok(Value::Long(bytes));
        }
        let sign = bytes.last().is_some_and(|&last| last >= 0x80);
        let mut wide = [if sign { 0xff } else { 0 }; 8];
        wide[..length].copy_from_slice(bytes);
        Ok(Value::Int(i64::from_le_bytes(wide)))
    }
}

/// Bytes of the length that follows a text's or byte string's opcode.
fn width(opcode: u8) -> usize {
    match opcode {
        0x8c | b'C' => 1,
        b'X' | b'B' => 4,
        _ => 8,
    }
}

fn pairs<'a>(items: &[Value<'a>]) -> Result<Vec<(Value<'a>, Value<'a>)>, Error> {
    let (pairs, rest) = items.as_chunks::<2>();
    if !rest.is_empty() {
        return Err(malformed("expected keys with values, found a key without one"));
    }
    Ok(pairs.iter().map(|&[key, value]| (key, value)).collect())
}
