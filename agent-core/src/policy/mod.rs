//! The guest owner's word: what may run.
//!
//! Owns the rules, their conditions and the verdict. Rules are judged in order and the first that matches decides, path
//! by path; when none does, the default decides. Must never do I/O (paths come resolved, users come with their UID),
//! and nothing that a user writes may ever allow what the owner's policy denies.
//!
//! # Layout
//! | file | what it owns |
//! |---|---|
//! | `mod` | the policy, the question and the judging |
//! | `rule` | one rule and its conditions |
//! | `name`, `path` | globs over names and over paths |
//! | `verdict` | the answer and its fault |
//! | `parse` | `[policy]` in TOML |
//! | `explain` | the answer with every rule that was considered |

mod explain;
mod name;
mod parse;
mod path;
mod rule;
mod verdict;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use self::explain::{Considered, Explanation, Judgement, explain};
pub use self::name::{BadGlob, NameGlob};
pub use self::parse::{MAX_RULES, parse_str};
pub use self::path::PathGlob;
pub use self::rule::Action;
pub use self::verdict::Verdict;

pub(crate) use self::parse::{Parsed, parse, users_own};
use self::rule::{Place, Rule};
use crate::module::Level;
use crate::rpc::Struct;

/// Which side calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum From {
    /// The hypervisor calls the guest.
    Host,
    /// A user of the guest calls the host.
    User,
}

impl From {
    /// As rules and messages write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::User => "user",
        }
    }
}

/// A call, as policy sees it.
///
/// `Query { user: Some("alice"), uid: Some(1000), ..Query::new("file.open", Level::User, From::Host, &params) }`
#[derive(Clone, Copy, Debug)]
pub struct Query<'q> {
    /// The method's name.
    pub method: &'q str,
    /// Where it runs; for a call to the host, where its caller runs.
    pub level: Level,
    /// The user whom it concerns: of the host's call the recipient, of a call to the host the caller.
    pub user: Option<&'q str>,
    /// That user's UID. Rules may name users by it, so give it whenever there is a user.
    pub uid: Option<u32>,
    /// Which side calls.
    pub from: From,
    /// The paths that the call names: absolute, symlinks and `..` resolved. Rules with `path` never match without.
    pub paths: &'q [PathBuf],
    /// The parameters by name, as [`crate::module::MethodSpec::bind`] makes them.
    pub params: &'q Struct,
}

impl<'q> Query<'q> {
    /// A call that concerns no user and names no path.
    pub fn new(method: &'q str, level: Level, from: From, params: &'q Struct) -> Self {
        Self { method, level, user: None, uid: None, from, paths: &[], params }
    }
}

/// A policy: rules in order, a default, and perhaps a user's own that narrows it.
#[derive(Clone, Debug)]
pub struct Policy {
    rules: Vec<Rule>,
    default: Action,
    default_at: Option<Place>,
    narrowed_by: Option<Arc<Policy>>,
}

impl Policy {
    /// Allows everything: for places where no policy applies (the host's command, tests), never for a guest.
    pub fn default_allow_all() -> Self {
        Self { rules: Vec::new(), default: Action::Allow, default_at: None, narrowed_by: None }
    }

    /// Denies everything: what applies when no file says otherwise.
    pub fn deny_all() -> Self {
        Self { rules: Vec::new(), default: Action::Deny, default_at: None, narrowed_by: None }
    }

    pub(crate) fn of(rules: Vec<Rule>, default: Action, default_at: Option<Place>) -> Self {
        Self { rules, default, default_at, narrowed_by: None }
    }

    /// This policy and a user's own: what either denies is denied, so an `allow` of the user's leaves the decision
    /// here and can never widen it.
    #[must_use]
    pub fn narrow(mut self, users: Self) -> Self {
        self.narrowed_by = Some(Arc::new(match self.narrowed_by {
            Some(first) => Arc::unwrap_or_clone(first).narrow(users),
            None => users,
        }));
        self
    }

    /// How many rules there are, the user's not counted.
    pub fn rule_count(&self) -> usize {
        self.rules.len()
    }

    /// Decides. Each path is judged by itself and all must be allowed; a call without paths is judged once.
    pub fn judge(&self, query: &Query) -> Verdict {
        let owners = self.judge_alone(query);
        match &self.narrowed_by {
            Some(users) if owners.allow => {
                let users = users.judge(query);
                if users.allow { owners } else { users }
            }
            _ => owners,
        }
    }

    fn judge_alone(&self, query: &Query) -> Verdict {
        let Some((first, rest)) = query.paths.split_first() else { return self.judge_path(query, None) };
        let mut verdict = self.judge_path(query, Some(first));
        for path in rest {
            if !verdict.allow {
                break;
            }
            verdict = self.judge_path(query, Some(path));
        }
        verdict
    }

    fn judge_path(&self, query: &Query, path: Option<&Path>) -> Verdict {
        let found = self.rules.iter().enumerate().find(|(_, rule)| rule.check(query, path).is_ok());
        let mut verdict = match found {
            Some((index, rule)) => Verdict::by_rule(rule, index + 1),
            None => Verdict::by_default(self.default == Action::Allow, self.default_at.as_ref()),
        };
        verdict.path = path.map(Path::to_owned);
        verdict
    }

    /// Whether a rule with `path` may decide such a call, so that its paths have to be resolved before it is judged.
    pub fn wants_paths(&self, query: &Query) -> bool {
        let reached = self.rules.iter().position(|rule| rule.must_match(query)).unwrap_or(self.rules.len());
        let own = self.rules[..reached].iter().any(|rule| rule.paths.is_some() && rule.could_match(query));
        own || self.narrowed_by.as_ref().is_some_and(|users| users.wants_paths(query))
    }
}
