//! A verdict and the fault that tells the caller. Must never tell the caller more than the rule: where a symlink of the
//! guest leads stays in the guest.

use std::path::PathBuf;
use std::sync::Arc;

use super::rule::{Place, Rule};
use crate::rpc::{Fault, FaultCode, Value};

/// What policy says to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may run.
    pub allow: bool,
    /// What decided: `rule 3 (/etc/virtagent/virtagentd.toml:42)` or `policy.default (/etc/...:40)`.
    pub decided_by: String,
    /// Of several paths, the one that decided; for the audit log, not for the caller.
    pub path: Option<PathBuf>,
    /// The rule's comment.
    pub comment: Option<Arc<str>>,
    rule: Option<usize>,
    place: Option<Place>,
}

impl Verdict {
    /// By the rule of that number, from 1, in the order of judging.
    pub(super) fn by_rule(rule: &Rule, number: usize) -> Self {
        Self {
            allow: rule.action == super::Action::Allow,
            decided_by: format!("rule {number} ({})", rule.place),
            path: None,
            comment: rule.comment.clone(),
            rule: Some(number),
            place: Some(rule.place.clone()),
        }
    }

    /// By the default, which stands somewhere or is the built-in one.
    pub(super) fn by_default(allow: bool, place: Option<&Place>) -> Self {
        let decided_by = match place {
            Some(place) => format!("policy.default ({place})"),
            None => "policy.default (built in: no file sets it)".to_owned(),
        };
        Self { allow, decided_by, path: None, comment: None, rule: None, place: place.cloned() }
    }

    /// A verdict that no policy made, such as the router's own about what policy is never asked.
    pub fn without_policy(allow: bool, decided_by: impl Into<String>) -> Self {
        Self { allow, decided_by: decided_by.into(), path: None, comment: None, rule: None, place: None }
    }

    /// The refusal: names the rule, its file and line, and the owner's comment; the same as data
    /// `{rule: int or "default", file: string, line: int}`.
    pub fn fault(&self, method: &str) -> Fault {
        let mut message = format!("{method} is denied by {}", self.decided_by);
        match &self.comment {
            Some(comment) => message.push_str(&format!(": {comment}")),
            None if self.rule.is_none() => message.push_str(": no rule of the guest's owner allows it"),
            None => {}
        }
        let rule = match self.rule {
            Some(number) => Value::Int(i64::try_from(number).unwrap_or(i64::MAX)),
            None => Value::from("default"),
        };
        let (file, line) = match &self.place {
            Some(place) => (Value::from(&*place.file), Value::Int(i64::try_from(place.line).unwrap_or(i64::MAX))),
            None => (Value::from("built in"), Value::Int(0)),
        };
        Fault::new(FaultCode::Denied, message).with_data(Value::object([
            ("rule", rule),
            ("file", file),
            ("line", line),
        ]))
    }
}
