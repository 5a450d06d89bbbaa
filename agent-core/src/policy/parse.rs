//! `[policy]` in TOML. Must never accept a rule that says less, or something else, than its author meant: unknown keys,
//! empty lists, a missing method and patterns that can't match are refused with file and line.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rule::{Place, Rule, UserPattern};
use super::{Action, From, NameGlob, PathGlob, Policy};
use crate::document::ConfigError;
use crate::document::reader::{self, Item, Section};
use crate::document::source::Source;
use crate::module::Level;

/// The most rules of a policy, over all of its files.
pub const MAX_RULES: usize = 4096;

const KEYS: [&str; 9] = ["action", "method", "level", "user", "from", "path", "params", "comment", "reason"];

/// What one file says about policy.
#[derive(Default)]
pub(crate) struct Parsed {
    pub(crate) default: Option<(Action, Place)>,
    pub(crate) rules: Vec<Rule>,
}

/// A text that holds `[policy]` alone, as a user's own `policy.toml` does. Without a `default` it allows, which in a
/// user's policy means that the owner's decides. Never panics, whatever the text.
///
/// # Errors
/// The first defect, with its line; the label stands for the file.
pub fn parse_str(label: &str, text: &str) -> Result<Policy, ConfigError> {
    users_own(&Source::new(label, text)?)
}

/// A user's own policy.
pub(crate) fn users_own(source: &Source) -> Result<Policy, ConfigError> {
    let document = reader::parse(source)?;
    let top = Section::new(source, "", document.get_ref(), &["policy"])?;
    let parsed = match top.get("policy") {
        Some(item) => parse(&item)?,
        None => Parsed::default(),
    };
    let (default, at) = parsed.default.map_or((Action::Allow, None), |(default, at)| (default, Some(at)));
    Ok(Policy::of(parsed.rules, default, at))
}

/// The table `[policy]`.
pub(crate) fn parse(item: &Item) -> Result<Parsed, ConfigError> {
    let section = Section::new(item.source, &item.name, item.table()?, &["default", "rule"])?;
    let mut parsed = Parsed::default();
    if let Some(item) = section.get("default") {
        parsed.default = Some((action(&item)?, place(&item)));
    }
    if let Some(item) = section.get("rule") {
        let rules = item.array("[[policy.rule]] tables, or one array of rules in braces")?;
        if rules.len() > MAX_RULES {
            return Err(item.source.error(
                rules.get(MAX_RULES).map(|rule| rule.value.span()),
                format!("more than {MAX_RULES} rules, the most that are read"),
            ));
        }
        parsed.rules = rules.iter().map(rule).collect::<Result<_, _>>()?;
    }
    Ok(parsed)
}

fn place(item: &Item) -> Place {
    Place { file: item.source.label.clone(), line: item.line() }
}

fn rule(item: &Item) -> Result<Rule, ConfigError> {
    let Some(table) = item.value.get_ref().as_table() else {
        return Err(item.refuse("a rule in braces, such as { action = \"allow\", method = \"va.*\" }"));
    };
    let section = Section::new(item.source, &item.name, table, &KEYS)?;
    let missing = |key: &str, allowed: &str| {
        let message = format!("this rule has no {key}: {allowed}");
        item.source.error(Some(item.value.span()), message)
    };
    let action = match section.get("action") {
        Some(item) => action(&item)?,
        None => return Err(missing("action", "write action = \"allow\" or action = \"deny\"")),
    };
    let methods = match section.get("method") {
        Some(item) => globs(&item, "a method or a glob such as \"file.*\", or a list of them", NameGlob::method)?,
        None => return Err(missing("method", "write method = \"*\" if every method is meant")),
    };
    let paths =
        section.get("path").map(|item| globs(&item, "an absolute path or glob, or a list of them", PathGlob::new));
    Ok(Rule {
        place: place(item),
        action,
        methods,
        level: section.get("level").map(|item| level(&item)).transpose()?,
        users: section.get("user").map(|item| users(&item)).transpose()?,
        from: section.get("from").map(|item| from(&item)).transpose()?,
        paths: paths.transpose()?,
        params: section.get("params").map(|item| params(&item)).transpose()?.unwrap_or_default(),
        comment: comment(&section)?,
    })
}

fn action(item: &Item) -> Result<Action, ConfigError> {
    const ALLOWED: &str = "one of \"allow\", \"deny\"";
    Action::parse(item.string(ALLOWED)?).ok_or_else(|| item.refuse(ALLOWED))
}

fn level(item: &Item) -> Result<Level, ConfigError> {
    const ALLOWED: &str = "one of \"system\", \"user\"; leave it out for both";
    match item.string(ALLOWED)? {
        "system" => Ok(Level::System),
        "user" => Ok(Level::User),
        _ => Err(item.refuse(ALLOWED)),
    }
}

fn from(item: &Item) -> Result<From, ConfigError> {
    const ALLOWED: &str = "one of \"host\", \"user\"; leave it out for both";
    match item.string(ALLOWED)? {
        "host" => Ok(From::Host),
        "user" => Ok(From::User),
        _ => Err(item.refuse(ALLOWED)),
    }
}

fn globs<T, E: std::fmt::Display>(
    item: &Item,
    allowed: &str,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Vec<T>, ConfigError> {
    let items = item.one_or_more(allowed)?;
    items.iter().map(|item| parse(item.string(allowed)?).map_err(|error| item.refuse(error))).collect()
}

/// Names and globs; what has digits only is a UID, as text or as a number.
fn users(item: &Item) -> Result<Vec<UserPattern>, ConfigError> {
    const ALLOWED: &str = "a user's name, a glob such as \"dev-*\" or a numeric uid, or a list of them";
    const UID: &str = "a uid is at most 4294967294";
    let uid = |item: &Item, number: Option<u32>| {
        number.filter(|uid| *uid != u32::MAX).map(UserPattern::Uid).ok_or_else(|| item.refuse(UID))
    };
    let one = |item: &Item| match item.value.get_ref() {
        DeValue::Integer(_) => uid(item, item.as_integer().and_then(|number| number.try_into().ok())),
        DeValue::String(text) if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            uid(item, text.parse().ok())
        }
        _ => NameGlob::user(item.string(ALLOWED)?).map(UserPattern::Name).map_err(|error| item.refuse(error)),
    };
    item.one_or_more(ALLOWED)?.iter().map(one).collect()
}

/// `params = { mode = ["read", "append"] }`: exact texts, no globs.
fn params(item: &Item) -> Result<Vec<(String, Vec<String>)>, ConfigError> {
    const ALLOWED: &str = "a string, a whole number, true or false, or a list of them";
    const TABLE: &str = "parameters and their values, such as { mode = \"read\" }";
    let table: &DeTable = item.value.get_ref().as_table().ok_or_else(|| item.refuse(TABLE))?;
    if table.is_empty() {
        return Err(item.refuse(TABLE));
    }
    let one = |item: &Item| match item.value.get_ref() {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(truth) => Ok(truth.to_string()),
        _ => item.as_integer().map(|number| number.to_string()).ok_or_else(|| item.refuse(ALLOWED)),
    };
    let entry = |(key, value)| {
        let key: &Spanned<std::borrow::Cow<str>> = key;
        let name = format!("{}.{}", item.name, key.get_ref());
        let item = Item { source: item.source, name, value };
        let texts: Result<Vec<_>, ConfigError> = item.one_or_more(ALLOWED)?.iter().map(one).collect();
        texts.map(|texts| (key.get_ref().to_string(), texts))
    };
    table.iter().map(entry).collect()
}

/// What a refusal says besides: `comment`, or `reason`, which means the same.
fn comment(section: &Section) -> Result<Option<std::sync::Arc<str>>, ConfigError> {
    const MAX: usize = 500;
    const ALLOWED: &str = "a text of one line, at most 500 bytes, that a refusal shows";
    let (comment, reason) = (section.get("comment"), section.get("reason"));
    if let (Some(_), Some(reason)) = (&comment, &reason) {
        return Err(reason.refuse("comment and reason mean the same: write one of them"));
    }
    let Some(item) = comment.or(reason) else { return Ok(None) };
    let text = item.string(ALLOWED)?.trim();
    if text.len() > MAX || text.chars().any(char::is_control) {
        return Err(item.refuse(ALLOWED));
    }
    Ok((!text.is_empty()).then(|| text.into()))
}
