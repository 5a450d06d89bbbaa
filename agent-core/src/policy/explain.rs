//! A verdict with its reasons: what `virtagentd policy test` prints. Must never judge by itself: the verdict is
//! [`Policy::judge`]'s, and the reasons come from the same conditions.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Policy, Query, Verdict};

/// A verdict, what decided it, and every rule that was considered on the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The method.
    pub method: String,
    /// The level, `system` or `user`.
    pub level: String,
    /// The user whom the call concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Which side calls, `host` or `user`.
    pub from: String,
    /// Whether it may run.
    pub allow: bool,
    /// What decided, as in [`Verdict::decided_by`].
    pub decided_by: String,
    /// The deciding rule's comment.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// The way there: for each path the owner's policy, then the user's.
    pub judgements: Vec<Judgement>,
}

/// One policy's view of one path of the call, or of the call without any.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Whose policy: `owner` or `user`.
    pub policy: &'static str,
    /// The path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Whether this policy allows this path.
    pub allow: bool,
    /// What decided.
    pub decided_by: String,
    /// The rules up to the one that decided, in order.
    pub considered: Vec<Considered>,
}

/// One rule that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Considered {
    /// Its number.
    pub rule: usize,
    /// Its file and line.
    pub at: String,
    /// `allow` or `deny`.
    pub action: String,
    /// Whether it matched, and so decided.
    pub matched: bool,
    /// The first condition that was not met.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why_not: Option<String>,
}

/// Judges and says why.
pub fn explain(policy: &Policy, query: &Query) -> Explanation {
    let verdict = policy.judge(query);
    let mut judgements = Vec::new();
    judge_each(policy, query, "owner", &mut judgements);
    Explanation {
        method: query.method.to_owned(),
        level: query.level.to_string(),
        user: query.user.map(str::to_owned),
        from: query.from.name().to_owned(),
        allow: verdict.allow,
        decided_by: verdict.decided_by,
        comment: verdict.comment.map(|comment| comment.to_string()),
        judgements,
    }
}

fn judge_each(policy: &Policy, query: &Query, whose: &'static str, into: &mut Vec<Judgement>) {
    if query.paths.is_empty() {
        into.push(judge_one(policy, query, None, whose));
    }
    for path in query.paths {
        into.push(judge_one(policy, query, Some(path), whose));
    }
    if let Some(users) = &policy.narrowed_by {
        judge_each(users, query, "user", into);
    }
}

fn judge_one(policy: &Policy, query: &Query, path: Option<&Path>, whose: &'static str) -> Judgement {
    let Verdict { allow, decided_by, .. } = policy.judge_path(query, path);
    let mut considered = Vec::new();
    for (index, rule) in policy.rules.iter().enumerate() {
        let mismatch = rule.check(query, path).err();
        let matched = mismatch.is_none();
        considered.push(Considered {
            rule: index + 1,
            at: rule.place.to_string(),
            action: rule.action.to_string(),
            matched,
            why_not: mismatch.map(|mismatch| rule.explain(&mismatch)),
        });
        if matched {
            break;
        }
    }
    Judgement { policy: whose, path: path.map(|path| path.display().to_string()), allow, decided_by, considered }
}

fn word(allow: bool) -> &'static str {
    if allow { "allowed" } else { "denied" }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} at {} level, from the {}", word(self.allow), self.method, self.level, self.from)?;
        if let Some(user) = &self.user {
            write!(f, ", user {user}")?;
        }
        write!(f, "\ndecided by {}", self.decided_by)?;
        if let Some(comment) = &self.comment {
            write!(f, ": {comment}")?;
        }
        for judgement in &self.judgements {
            write!(f, "\n{judgement}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Judgement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the {}'s policy", self.policy)?;
        if let Some(path) = &self.path {
            write!(f, " on {path}")?;
        }
        write!(f, ": {} by {}", word(self.allow), self.decided_by)?;
        for Considered { rule, at, action, why_not, .. } in &self.considered {
            let outcome = match why_not {
                Some(why) => format!("passed over: {why}"),
                None => "matches".to_owned(),
            };
            write!(f, "\n  rule {rule:<3} {action:<5} {at}  {outcome}")?;
        }
        Ok(())
    }
}
