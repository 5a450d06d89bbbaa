//! Documents from XML, event by event on an explicit stack.
//!
//! Stricter than most about structure, and tolerant of what 2011 peers send: control characters written raw, a bare text
//! for a string, no `<params>` at all.

use bytes::Bytes;
use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::{BytesDecl, BytesRef, Event};

use super::grammar::{Element, Scalar};
use crate::encoding::base64;
use crate::encoding::tree::{Budget, Tree, invalid, malformed, shortened};
use crate::rpc::{Fault, Value};

/// A whole document.
pub(super) enum Document {
    Call { method: String, params: Vec<Value> },
    Response(Reply),
}

/// What a `methodResponse` holds.
pub(super) enum Reply {
    Result(Value),
    Fault(Value),
}

struct Open {
    element: Element,
    /// How many children have begun.
    children: usize,
}

struct Parser {
    open: Vec<Open>,
    /// The text since the innermost element began, or its last child ended.
    text: String,
    /// The root, once it has begun.
    root: Option<Element>,
    method: String,
    fault: bool,
    tree: Tree,
    budget: Budget,
    values: Vec<Value>,
}

impl Document {
    pub(super) fn read(body: &Bytes) -> Result<Self, Fault> {
        let text = std::str::from_utf8(body).map_err(|error| malformed(format!("XML: {error}")))?;
        let mut reader = Reader::from_str(text.strip_prefix('\u{feff}').unwrap_or(text));
        let mut parser = Parser {
            open: Vec::new(),
            text: String::new(),
            root: None,
            method: String::new(),
            fault: false,
            tree: Tree::default(),
            budget: Budget::new(),
            values: Vec::new(),
        };
        loop {
            let event = reader.read_event();
            match event.map_err(|error| malformed(format!("XML: {error} at byte {}", reader.error_position())))? {
                Event::Start(tag) => parser.start(tag.name().0)?,
                Event::End(_) => parser.end()?,
                Event::Empty(tag) => {
                    parser.start(tag.name().0)?;
                    parser.end()?;
                }
                Event::Text(text) => parser.text.push_str(&text.xml10_content()),
                Event::CData(text) => parser.text.push_str(&text.xml10_content()),
                Event::GeneralRef(reference) => parser.text.push(resolve(&reference)?),
                Event::Decl(declaration) => check_encoding(&declaration)?,
                Event::DocType(_) => return Err(invalid("XML: a document type (DTD) is not taken")),
                Event::Comment(_) | Event::PI(_) => {}
                Event::Eof => return parser.finish(),
            }
        }
    }
}

impl Parser {
    fn start(&mut self, name: &str) -> Result<(), Fault> {
        self.only_white_space()?;
        let parent = self.open.last();
        let before = parent.map_or(usize::from(self.root.is_some()), |open| open.children);
        let parent = parent.map(|open| open.element);
        let Some(element) = Element::child(parent, before, name) else {
            return Err(invalid(format!("XML-RPC has no element {} there", shortened(name))));
        };
        match element {
            Element::Array => self.tree.open_array(&mut self.budget)?,
            Element::Struct => self.tree.open_struct(&mut self.budget)?,
            Element::Fault => self.fault = true,
            _ => {}
        }
        match self.open.last_mut() {
            Some(parent) => parent.children += 1,
            None => self.root = Some(element),
        }
        self.open.push(Open { element, children: 0 });
        Ok(())
    }

    fn end(&mut self) -> Result<(), Fault> {
        let Some(Open { element, children }) = self.open.pop() else {
            return Err(malformed("XML: an element ends that did not begin"));
        };
        if children < element.needs() {
            return Err(invalid(format!("XML-RPC: a {element:?} element lacks something inside it")));
        }
        let bare = element == Element::Value && children == 0;
        if !bare && !element.takes_text() {
            self.only_white_space()?;
        }
        let whole = match element {
            Element::MethodName => {
                self.method = std::mem::take(&mut self.text);
                None
            }
            Element::Name => {
                let name = std::mem::take(&mut self.text);
                if !name.chars().all(super::write::is_xml) {
                    return Err(invalid(format!("XML has no such characters in a name: {}", shortened(&name))));
                }
                self.tree.name(name, &mut self.budget)?;
                None
            }
            Element::Scalar(scalar) => {
                let value = scalar_of(scalar, &mut self.text)?;
                self.tree.scalar(value, &mut self.budget)?
            }
            Element::Value if bare => {
                let text = std::mem::take(&mut self.text);
                self.tree.scalar(Value::String(text), &mut self.budget)?
            }
            Element::Array | Element::Struct => self.tree.close(),
            _ => None,
        };
        self.values.extend(whole);
        self.text.clear();
        Ok(())
    }

    fn only_white_space(&mut self) -> Result<(), Fault> {
        let stray = self.text.trim_matches(|c| matches!(c, ' ' | '\t' | '\n' | '\r'));
        if !stray.is_empty() {
            return Err(invalid(format!("XML-RPC has no text there: {}", shortened(stray))));
        }
        self.text.clear();
        Ok(())
    }

    fn finish(mut self) -> Result<Document, Fault> {
        self.only_white_space()?;
        match self.root {
            _ if !self.open.is_empty() => Err(malformed("XML: the document ends too early")),
            None => Err(malformed("XML: an empty document")),
            Some(Element::Call) => Ok(Document::Call { method: self.method, params: self.values }),
            Some(_) => match (self.values.pop(), self.values.is_empty()) {
                (Some(value), true) if self.fault => Ok(Document::Response(Reply::Fault(value))),
                (Some(value), true) => Ok(Document::Response(Reply::Result(value))),
                _ => Err(invalid("a methodResponse must have one result")),
            },
        }
    }
}

/// The value of a scalar element; a string's text is taken, not copied.
fn scalar_of(scalar: Scalar, text: &mut String) -> Result<Value, Fault> {
    let trimmed = text.trim_ascii();
    let wrong = |what: &str| invalid(format!("not {what}: {}", shortened(trimmed)));
    Ok(match scalar {
        Scalar::Int => Value::Int(trimmed.parse().map_err(|_| wrong("an integer of 64 bits signed"))?),
        Scalar::Boolean => match trimmed {
            "0" => Value::Bool(false),
            "1" => Value::Bool(true),
            _ => return Err(wrong("a boolean (0 or 1)")),
        },
        Scalar::Double => match trimmed.parse::<f64>() {
            Ok(number) if number.is_finite() => Value::Double(number),
            _ => return Err(wrong("a finite double")),
        },
        Scalar::String => Value::String(std::mem::take(text)),
        Scalar::Base64 => Value::Bytes(base64::decode(trimmed)?),
        Scalar::DateTime => Value::DateTime(trimmed.parse().map_err(|error| invalid(format!("{error}")))?),
        Scalar::Nil if trimmed.is_empty() => Value::Nil,
        Scalar::Nil => return Err(wrong("nil, which is empty")),
    })
}

fn resolve(reference: &BytesRef) -> Result<char, Fault> {
    let number = reference.resolve_char_ref().map_err(|error| malformed(format!("XML: {error}")))?;
    let entity = || resolve_xml_entity(reference)?.chars().next();
    number
        .or_else(entity)
        .ok_or_else(|| malformed(format!("XML: no entity {} (only XML's own five are known)", shortened(reference))))
}

fn check_encoding(declaration: &BytesDecl) -> Result<(), Fault> {
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name)) if ["utf-8", "utf8", "us-ascii"].iter().any(|known| name.eq_ignore_ascii_case(known)) => Ok(()),
        Some(Ok(name)) => Err(invalid(format!("XML in {} is not taken: send UTF-8", shortened(&name)))),
        Some(Err(error)) => Err(malformed(format!("XML: {error}"))),
    }
}
