//! One rule: its conditions, and why it does not match. Must never do I/O: paths come resolved.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use super::path::is_resolved;
use super::{From, NameGlob, PathGlob, Query};
use crate::module::Level;
use crate::rpc::Value;

/// What a rule or a default does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The call may run.
    Allow,
    /// The call is refused.
    Deny,
}

impl Action {
    /// `allow` or `deny`, if it is one of these.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "allow" => Some(Self::Allow),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        })
    }
}

/// A file and a line in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) file: Arc<str>,
    pub(crate) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Whom a rule names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UserPattern {
    Name(NameGlob),
    Uid(u32),
}

/// One rule of a policy. A condition that is absent holds for every call.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) place: Place,
    pub(crate) action: Action,
    pub(crate) methods: Vec<NameGlob>,
    pub(crate) level: Option<Level>,
    pub(crate) users: Option<Vec<UserPattern>>,
    pub(crate) from: Option<From>,
    pub(crate) paths: Option<Vec<PathGlob>>,
    /// Names of parameters, and the texts of which each has to be one.
    pub(crate) params: Vec<(String, Vec<String>)>,
    pub(crate) comment: Option<Arc<str>>,
}

/// The first condition of a rule that a call does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    Method,
    Level,
    From,
    NoUser,
    User,
    Param(String),
    NoPath,
    Path,
}

impl Rule {
    /// Whether the call, as far as this one of its paths goes, meets every condition.
    pub(crate) fn check(&self, query: &Query, path: Option<&Path>) -> Result<(), Mismatch> {
        self.check_call(query)?;
        for (name, texts) in &self.params {
            if !query.params.get(name).and_then(text_of).is_some_and(|text| texts.contains(&text)) {
                return Err(Mismatch::Param(name.clone()));
            }
        }
        let Some(globs) = &self.paths else { return Ok(()) };
        match path {
            None => Err(Mismatch::NoPath),
            // A caller that failed to resolve must get the safe answer: what denies matches, what allows does not.
            Some(path) if !is_resolved(path) && self.action == Action::Deny => Ok(()),
            Some(path) if is_resolved(path) && globs.iter().any(|glob| glob.matches(path)) => Ok(()),
            Some(_) => Err(Mismatch::Path),
        }
    }

    /// The conditions that need neither parameters nor paths.
    fn check_call(&self, query: &Query) -> Result<(), Mismatch> {
        if self.from.is_some_and(|from| from != query.from) {
            return Err(Mismatch::From);
        }
        if self.level.is_some_and(|level| level != query.level) {
            return Err(Mismatch::Level);
        }
        if !self.methods.iter().any(|glob| glob.matches(query.method)) {
            return Err(Mismatch::Method);
        }
        let Some(patterns) = &self.users else { return Ok(()) };
        if query.user.is_none() && query.uid.is_none() {
            return Err(Mismatch::NoUser);
        }
        let matches = |pattern: &UserPattern| match pattern {
            UserPattern::Name(glob) => query.user.is_some_and(|user| glob.matches(user)),
            UserPattern::Uid(uid) => query.uid == Some(*uid),
        };
        if patterns.iter().any(matches) { Ok(()) } else { Err(Mismatch::User) }
    }

    /// Whether a call of which paths, parameters and UID are not known yet could match.
    pub(crate) fn could_match(&self, query: &Query) -> bool {
        let by_uid =
            self.users.as_ref().is_some_and(|users| users.iter().any(|user| matches!(user, UserPattern::Uid(_))));
        match self.check_call(query) {
            Ok(()) => true,
            Err(Mismatch::User) => by_uid && query.uid.is_none(),
            Err(_) => false,
        }
    }

    /// Whether a call that [`Rule::could_match`] matches whatever its parameters and paths are.
    pub(crate) fn must_match(&self, query: &Query) -> bool {
        self.paths.is_none() && self.params.is_empty() && self.check_call(query).is_ok()
    }

    /// Why a call did not match, for people.
    pub(crate) fn explain(&self, mismatch: &Mismatch) -> String {
        match mismatch {
            Mismatch::Method => format!("method is not {}", list(&self.methods)),
            Mismatch::Level => format!("level is not {}", self.level.map_or_else(String::new, |l| l.to_string())),
            Mismatch::From => format!("not from the {}", self.from.map_or("", From::name)),
            Mismatch::NoUser => "no user is concerned".to_owned(),
            Mismatch::User => {
                let users = self.users.as_deref().unwrap_or_default();
                let shown = users.iter().map(|user| match user {
                    UserPattern::Name(glob) => glob.to_string(),
                    UserPattern::Uid(uid) => format!("uid {uid}"),
                });
                format!("user is not {}", list(&shown.collect::<Vec<_>>()))
            }
            Mismatch::Param(name) => {
                let texts = self.params.iter().find(|(param, _)| param == name).map(|(_, texts)| list(texts));
                format!("parameter {name} is not {}", texts.unwrap_or_default())
            }
            Mismatch::NoPath => "the call names no path".to_owned(),
            Mismatch::Path => format!("path is not {}", list(self.paths.as_deref().unwrap_or_default())),
        }
    }
}

/// A parameter as a rule's text compares it. Bytes count as text, since a method may take them for it, and a whole
/// double as its integer, so that no other way of writing a value slips past a rule.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bytes(bytes) => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Int(number) => Some(number.to_string()),
        Value::Double(number) if number.fract() == 0.0 => Some(format!("{number:.0}")),
        _ => None,
    }
}

/// `a`, `a or b`, or the first four of many.
fn list<T: fmt::Display>(items: &[T]) -> String {
    const SHOWN: usize = 4;
    let mut text = items.iter().take(SHOWN).map(T::to_string).collect::<Vec<_>>().join(" or ");
    if items.len() > SHOWN {
        text.push_str(&format!(" or {} more", items.len() - SHOWN));
    }
    text
}
