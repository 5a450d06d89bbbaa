//! Which element of XML-RPC may stand where. A document's depth is bounded by this table and the values' own limit.

/// An open element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Element {
    Call,
    MethodName,
    Response,
    Fault,
    Params,
    Param,
    Value,
    Scalar(Scalar),
    Array,
    Data,
    Struct,
    Member,
    Name,
}

/// The elements that hold a value as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scalar {
    Int,
    Boolean,
    Double,
    String,
    Base64,
    DateTime,
    Nil,
}

impl Element {
    /// The element called `name` as the child of `parent` after `before` others; nothing when it can't stand there.
    pub(super) fn child(parent: Option<Self>, before: usize, name: &str) -> Option<Self> {
        Some(match (parent, before, name) {
            (None, 0, "methodCall") => Self::Call,
            (None, 0, "methodResponse") => Self::Response,
            (Some(Self::Call), 0, "methodName") => Self::MethodName,
            (Some(Self::Call), 1, "params") | (Some(Self::Response), 0, "params") => Self::Params,
            (Some(Self::Response), 0, "fault") => Self::Fault,
            (Some(Self::Params), _, "param") => Self::Param,
            (Some(Self::Param | Self::Fault), 0, "value")
            | (Some(Self::Data), _, "value")
            | (Some(Self::Member), 1, "value") => Self::Value,
            (Some(Self::Value), 0, "array") => Self::Array,
            (Some(Self::Value), 0, "struct") => Self::Struct,
            (Some(Self::Value), 0, name) => Self::Scalar(Scalar::named(name)?),
            (Some(Self::Array), 0, "data") => Self::Data,
            (Some(Self::Struct), _, "member") => Self::Member,
            (Some(Self::Member), 0, "name") => Self::Name,
            _ => return None,
        })
    }

    /// How many children the element needs before it may end.
    pub(super) fn needs(self) -> usize {
        match self {
            Self::Member => 2,
            Self::Call | Self::Response | Self::Fault | Self::Param | Self::Array => 1,
            _ => 0,
        }
    }

    /// Whether text in it is content; elsewhere only white space may stand.
    pub(super) fn takes_text(self) -> bool {
        matches!(self, Self::MethodName | Self::Scalar(_) | Self::Name)
    }
}

impl Scalar {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "int" | "i4" | "i8" | "ex:i8" => Self::Int,
            "boolean" => Self::Boolean,
            "double" => Self::Double,
            "string" => Self::String,
            "base64" => Self::Base64,
            "dateTime.iso8601" => Self::DateTime,
            "nil" | "ex:nil" => Self::Nil,
            _ => return None,
        })
    }
}
