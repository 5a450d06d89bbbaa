//! What the three encodings share: the limits of depth and number, and the value under construction.
//!
//! Owns the explicit stack that stands in for recursion in every decoder, and the check that every encoder makes first.
//! Must never know how any one encoding writes a value.

use crate::rpc::{Fault, FaultCode, MAX_DEPTH, MAX_VALUES, Struct, Value};

/// What a struct with members counts beyond itself and them: its first member allocates a node with room for eleven, and
/// a body of small structs must not cost a hundred times its length.
const STRUCT_COST: usize = 8;

/// The values that a body may still hold.
pub(super) struct Budget(usize);

impl Budget {
    pub(super) fn new() -> Self {
        Self(MAX_VALUES)
    }

    fn take(&mut self, values: usize) -> Result<(), Fault> {
        self.0 = self.0.checked_sub(values).ok_or_else(too_many)?;
        Ok(())
    }
}

/// What the innermost open container is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Struct,
}

enum Open {
    Array(Vec<Value>),
    /// The members so far, and the name of the one that comes next.
    Struct(Struct, Option<String>),
}

/// One value under construction.
#[derive(Default)]
pub(super) struct Tree {
    open: Vec<Open>,
}

impl Tree {
    /// Opens an array; [`Tree::close`] ends it.
    pub(super) fn open_array(&mut self, budget: &mut Budget) -> Result<(), Fault> {
        self.open(Open::Array(Vec::new()), budget)
    }

    /// Opens a struct; [`Tree::close`] ends it.
    pub(super) fn open_struct(&mut self, budget: &mut Budget) -> Result<(), Fault> {
        self.open(Open::Struct(Struct::new(), None), budget)
    }

    fn open(&mut self, container: Open, budget: &mut Budget) -> Result<(), Fault> {
        budget.take(1)?;
        if self.open.len() == MAX_DEPTH {
            return Err(Fault::limit(format!("arrays and structs nest at most {MAX_DEPTH} deep")));
        }
        self.open.push(container);
        Ok(())
    }

    /// Names the innermost struct's next member. A name that was there before is refused: readers differ on which of
    /// the two counts, and nobody shall judge one value and run another.
    pub(super) fn name(&mut self, name: String, budget: &mut Budget) -> Result<(), Fault> {
        match self.open.last_mut() {
            Some(Open::Struct(members, _)) if members.contains_key(&name) => Err(twice(&name)),
            Some(Open::Struct(members, next)) => {
                if members.is_empty() {
                    budget.take(STRUCT_COST)?;
                }
                *next = Some(name);
                Ok(())
            }
            _ => Err(invalid("a member's name outside a struct")),
        }
    }

    /// Adds a value that holds no others; answers it when it is the whole.
    pub(super) fn scalar(&mut self, value: Value, budget: &mut Budget) -> Result<Option<Value>, Fault> {
        budget.take(1)?;
        Ok(self.put(value))
    }

    /// Ends the innermost container; answers it when it is the whole.
    pub(super) fn close(&mut self) -> Option<Value> {
        let value = match self.open.pop()? {
            Open::Array(items) => Value::Array(items),
            Open::Struct(members, _) => Value::Struct(members),
        };
        self.put(value)
    }

    fn put(&mut self, value: Value) -> Option<Value> {
        match self.open.last_mut() {
            None => return Some(value),
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Struct(members, name)) => {
                members.insert(name.take().unwrap_or_default(), value);
            }
        }
        None
    }

    /// What the innermost open container is, if any is open.
    pub(super) fn innermost(&self) -> Option<Kind> {
        self.open.last().map(|open| match open {
            Open::Array(_) => Kind::Array,
            Open::Struct(..) => Kind::Struct,
        })
    }

    /// The members so far of the innermost container, if it is a struct.
    pub(super) fn members(&mut self) -> Option<&mut Struct> {
        match self.open.last_mut() {
            Some(Open::Struct(members, _)) => Some(members),
            _ => None,
        }
    }
}

/// What values take, so that an encoder allocates once.
#[derive(Default)]
pub(super) struct Size {
    /// Values, each member counted, and structs by their cost.
    pub(super) values: usize,
    /// Bytes of strings and names.
    pub(super) text: usize,
    /// Bytes of [`Value::Bytes`].
    pub(super) bytes: usize,
}

/// Measures values, and refuses what no peer of ours would decode.
pub(super) fn measure<'a>(values: impl IntoIterator<Item = &'a Value>) -> Result<Size, Fault> {
    let mut size = Size::default();
    for value in values {
        add(value, MAX_DEPTH, &mut size)?;
    }
    Ok(size)
}

/// Recursion ends with `depth`, at [`MAX_DEPTH`].
fn add(value: &Value, depth: usize, size: &mut Size) -> Result<(), Fault> {
    size.values += 1;
    if size.values > MAX_VALUES {
        return Err(too_many());
    }
    let deeper = || {
        depth.checked_sub(1).ok_or_else(|| {
            Fault::internal(format!("a value nests deeper than the {MAX_DEPTH} levels that a body may have"))
        })
    };
    match value {
        Value::Double(number) if !number.is_finite() => {
            return Err(Fault::internal(format!("the double {number} can't be sent: only finite ones can")));
        }
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::DateTime(_) => {}
        Value::String(text) => size.text += text.len(),
        Value::Bytes(bytes) => size.bytes += bytes.len(),
        Value::Array(items) => {
            let depth = deeper()?;
            items.iter().try_for_each(|item| add(item, depth, size))?;
        }
        Value::Struct(members) => {
            let depth = deeper()?;
            size.values += if members.is_empty() { 0 } else { STRUCT_COST };
            for (name, member) in members {
                size.text += name.len();
                add(member, depth, size)?;
            }
        }
    }
    Ok(())
}

fn too_many() -> Fault {
    Fault::limit(format!("a body holds at most {MAX_VALUES} values; split the call"))
}

/// Well-formed, but not what it should be.
pub(super) fn invalid(message: impl AsRef<str>) -> Fault {
    Fault::new(FaultCode::InvalidRequest, one_line(message.as_ref()))
}

/// Not well-formed.
pub(super) fn malformed(message: impl AsRef<str>) -> Fault {
    Fault::new(FaultCode::Parse, one_line(message.as_ref()))
}

/// A message without the control characters and the length that parsers' errors repeat from the input: it goes to logs and
/// terminals.
fn one_line(message: &str) -> String {
    const LONGEST: usize = 400;
    let mut line = String::with_capacity(message.len().min(LONGEST));
    for character in message.chars().take(LONGEST) {
        match character.is_control() {
            true => line.extend(character.escape_default()),
            false => line.push(character),
        }
    }
    line
}

/// The same name a second time.
pub(super) fn twice(name: &str) -> Fault {
    invalid(format!("the member {} comes twice", shortened(name)))
}

/// A piece of the input for a message: quoted, and no longer than a line bears.
pub(super) fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}...", &text[..end]),
        None => format!("{text:?}"),
    }
}
