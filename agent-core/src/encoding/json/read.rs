//! Values from JSON text (RFC 8259), on an explicit stack.
//!
//! Why not serde_json: it turns an integer outside 64 bits into a double without a word, takes the last of two members of
//! one name, and recurses. Strings with escapes are still its business.

use std::borrow::Cow;

use crate::encoding::base64;
use crate::encoding::tree::{Budget, Kind, Tree, invalid, malformed, shortened};
use crate::rpc::{Fault, Value};

pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// The next byte that is not white space.
    pub(super) fn peek(&mut self) -> Result<u8, Fault> {
        let rest = &self.text.as_bytes()[self.at..];
        match rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r')) {
            Some(blank) => {
                self.at += blank;
                Ok(rest[blank])
            }
            None => {
                self.at = self.text.len();
                Err(malformed("JSON: the text ends too early"))
            }
        }
    }

    /// Refuses anything but white space.
    pub(super) fn end(&mut self) -> Result<(), Fault> {
        match self.peek() {
            Err(_) => Ok(()),
            Ok(_) => Err(self.unexpected("the end")),
        }
    }

    /// Reads `{...}`, calling `member` before each value with the member's name.
    pub(super) fn object(&mut self, mut member: impl FnMut(&mut Self, &str) -> Result<(), Fault>) -> Result<(), Fault> {
        self.take(b'{', "an object")?;
        if self.take_if(b'}')? {
            return Ok(());
        }
        loop {
            let name = self.name()?;
            member(self, &name)?;
            if self.take_if(b'}')? {
                return Ok(());
            }
            self.take(b',', "`,` or `}`")?;
        }
    }

    /// Reads `[...]`, calling `item` before each value.
    pub(super) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Fault>) -> Result<(), Fault> {
        self.take(b'[', "an array")?;
        if self.take_if(b']')? {
            return Ok(());
        }
        loop {
            item(self)?;
            if self.take_if(b']')? {
                return Ok(());
            }
            self.take(b',', "`,` or `]`")?;
        }
    }

    /// Reads one value.
    pub(super) fn value(&mut self, budget: &mut Budget) -> Result<Value, Fault> {
        let mut tree = Tree::default();
        loop {
            let mut whole = match self.peek()? {
                b'[' => {
                    self.at += 1;
                    tree.open_array(budget)?;
                    if !self.take_if(b']')? {
                        continue;
                    }
                    tree.close()
                }
                b'{' => match self.tagged()? {
                    Some(value) => tree.scalar(value, budget)?,
                    None => {
                        self.at += 1;
                        tree.open_struct(budget)?;
                        if !self.take_if(b'}')? {
                            tree.name(self.name()?.into_owned(), budget)?;
                            continue;
                        }
                        tree.close()
                    }
                },
                b'"' => tree.scalar(Value::String(self.string()?.into_owned()), budget)?,
                b'-' | b'0'..=b'9' => tree.scalar(self.number()?, budget)?,
                b't' => tree.scalar(self.word("true", Value::Bool(true))?, budget)?,
                b'f' => tree.scalar(self.word("false", Value::Bool(false))?, budget)?,
                b'n' => tree.scalar(self.word("null", Value::Nil)?, budget)?,
                _ => return Err(self.unexpected("a value")),
            };
            // A value has ended: end what ends with it, or go on to the next.
            loop {
                if let Some(whole) = whole {
                    return Ok(whole);
                }
                match (self.peek()?, tree.innermost()) {
                    (b',', Some(Kind::Array)) => {
                        self.at += 1;
                        break;
                    }
                    (b',', Some(Kind::Struct)) => {
                        self.at += 1;
                        tree.name(self.name()?.into_owned(), budget)?;
                        break;
                    }
                    (b']', Some(Kind::Array)) => {
                        self.at += 1;
                        whole = tree.close();
                    }
                    (b'}', Some(Kind::Struct)) => {
                        self.at += 1;
                        unescape(&mut tree)?;
                        whole = tree.close();
                    }
                    (_, Some(Kind::Array)) => return Err(self.unexpected("`,` or `]`")),
                    _ => return Err(self.unexpected("`,` or `}`")),
                }
            }
        }
    }

    /// Reads `{"$base64": "..."}` or `{"$dateTime": "..."}`; nothing is consumed when it is another object.
    fn tagged(&mut self) -> Result<Option<Value>, Fault> {
        let start = self.at;
        self.at += 1;
        if self.peek()? == b'"' {
            let name = self.name()?;
            let known = matches!(&*name, "$base64" | "$dateTime");
            if known && self.peek()? == b'"' {
                let text = self.string()?;
                if self.take_if(b'}')? {
                    return match &*name {
                        "$base64" => Ok(Some(Value::Bytes(base64::decode(&text)?))),
                        _ => text
                            .parse()
                            .map(|moment| Some(Value::DateTime(moment)))
                            .map_err(|e| invalid(format!("{e}"))),
                    };
                }
            }
        }
        self.at = start;
        Ok(None)
    }

    /// Reads a member's name and the colon after it.
    fn name(&mut self) -> Result<Cow<'a, str>, Fault> {
        if self.peek()? != b'"' {
            return Err(self.unexpected("a member's name in double quotes"));
        }
        let name = self.string()?;
        self.take(b':', "`:`")?;
        Ok(name)
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Fault> {
        let start = self.at;
        let inside = &self.text[start + 1..];
        let mut bytes = inside.bytes().enumerate();
        let mut escaped = false;
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => {
                    self.at = start + 1 + at + 1;
                    return match escaped {
                        false => Ok(Cow::Borrowed(&inside[..at])),
                        true => serde_json::from_str::<String>(&self.text[start..self.at])
                            .map(Cow::Owned)
                            .map_err(|_| malformed(format!("JSON: a wrong escape in the string at byte {start}"))),
                    };
                }
                b'\\' => {
                    escaped = true;
                    bytes.next();
                }
                0..0x20 => {
                    let at = start + 1 + at;
                    return Err(malformed(format!("JSON: a control character in a string at byte {at}")));
                }
                _ => {}
            }
        }
        Err(malformed(format!("JSON: the string at byte {start} does not end")))
    }

    fn number(&mut self) -> Result<Value, Fault> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let rest = &reader.text.as_bytes()[reader.at..];
            let count = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
            reader.at += count;
            count
        };
        let next = |reader: &Self| reader.text.as_bytes().get(reader.at).copied();
        if next(self) == Some(b'-') {
            self.at += 1;
        }
        let first = next(self);
        let whole = digits(self);
        let mut wrong = whole == 0 || (first == Some(b'0') && whole > 1);
        let mut integer = true;
        if next(self) == Some(b'.') {
            self.at += 1;
            integer = false;
            wrong |= digits(self) == 0;
        }
        if let Some(b'e' | b'E') = next(self) {
            self.at += 1;
            integer = false;
            if let Some(b'+' | b'-') = next(self) {
                self.at += 1;
            }
            wrong |= digits(self) == 0;
        }
        let token = &self.text[start..self.at];
        if wrong {
            return Err(malformed(format!("JSON: not a number at byte {start}: {}", shortened(token))));
        }
        if integer {
            return token
                .parse()
                .map(Value::Int)
                .map_err(|_| invalid(format!("the integer {} does not fit in 64 bits signed", shortened(token))));
        }
        match token.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Value::Double(number)),
            _ => Err(invalid(format!("the number {} does not fit in a double", shortened(token)))),
        }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, Fault> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.unexpected("a value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn take(&mut self, byte: u8, expected: &str) -> Result<(), Fault> {
        if self.take_if(byte)? { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    fn take_if(&mut self, byte: u8) -> Result<bool, Fault> {
        let here = self.peek()? == byte;
        self.at += usize::from(here);
        Ok(here)
    }

    fn unexpected(&self, expected: &str) -> Fault {
        let here = self.text[self.at..].chars().next().unwrap_or(' ');
        malformed(format!("JSON: expected {expected} at byte {}, got {here:?}", self.at))
    }
}

/// Takes one `$` from the name of a sole member whose name begins with `$`. What has only one is a form that this version
/// does not know.
fn unescape(tree: &mut Tree) -> Result<(), Fault> {
    let Some(members) = tree.members().filter(|members| members.len() == 1) else { return Ok(()) };
    let Some(name) = members.keys().next().filter(|name| name.starts_with('$')) else { return Ok(()) };
    if !name.starts_with("$$") {
        let name = shortened(name);
        return Err(invalid(format!(
            "{name} is reserved: {{\"$base64\": string}} and {{\"$dateTime\": string}} are known; write \"$$...\" for a member of that name"
        )));
    }
    if let Some((name, value)) = members.pop_first() {
        members.insert(name[1..].to_owned(), value);
    }
    Ok(())
}
