//! Several files made one configuration. Must never depend on anything but the order in which they are added.

use std::collections::BTreeMap;

use super::{AuditConfig, Config, ConfigError, Limits, Modules};
use crate::document::reader::{self, Item, Section};
use crate::document::source::Source;
use crate::policy::{self, Action, MAX_RULES, Parsed, Policy};

const TABLES: [&str; 5] = ["modules", "limits", "policy", "audit", "module"];

/// What the files so far say.
#[derive(Default)]
pub(super) struct Layers {
    modules: Modules,
    limits: Limits,
    audit: AuditConfig,
    module: BTreeMap<String, toml::Table>,
    module_at: BTreeMap<String, String>,
    main: Parsed,
    drop_ins: Parsed,
    sources: Vec<String>,
}

impl Layers {
    /// The main file; its rules are judged last.
    pub(super) fn add_main(&mut self, source: &Source) -> Result<(), ConfigError> {
        if let Some(parsed) = self.add(source)? {
            self.main = parsed;
        }
        Ok(())
    }

    /// The next drop-in; its rules are judged after those of the drop-ins before.
    pub(super) fn add_drop_in(&mut self, source: &Source) -> Result<(), ConfigError> {
        if let Some(parsed) = self.add(source)? {
            self.drop_ins.rules.extend(parsed.rules);
            self.drop_ins.default = parsed.default.or(self.drop_ins.default.take());
        }
        let rules = self.drop_ins.rules.len() + self.main.rules.len();
        if rules > MAX_RULES {
            let message = format!("brings the policy to {rules} rules; {MAX_RULES} are the most that are read");
            return Err(ConfigError::file(&*source.label, message));
        }
        Ok(())
    }

    /// Takes the settings of a file, and answers what it says about policy.
    fn add(&mut self, source: &Source) -> Result<Option<Parsed>, ConfigError> {
        self.sources.push(source.label.to_string());
        let document = reader::parse(source)?;
        let top = Section::new(source, "", document.get_ref(), &TABLES)?;
        if let Some(item) = top.get("modules") {
            self.modules.apply(&Section::new(source, "modules", item.table()?, &["enabled"])?)?;
        }
        if let Some(item) = top.get("limits") {
            self.limits.apply(&Section::new(source, "limits", item.table()?, &Limits::KEYS)?)?;
        }
        if let Some(item) = top.get("audit") {
            self.audit.apply(&Section::new(source, "audit", item.table()?, &AuditConfig::KEYS)?)?;
        }
        if let Some(item) = top.get("module") {
            self.add_module_settings(source, &item)?;
        }
        top.get("policy").map(|item| policy::parse(&item)).transpose()
    }

    fn add_module_settings(&mut self, source: &Source, item: &Item) -> Result<(), ConfigError> {
        for (key, value) in item.table()? {
            let item = Item { source, name: format!("module.{}", key.get_ref()), value };
            let line = source.line(key.span().start);
            if !is_module_name(key.get_ref()) {
                return Err(item.refuse(MODULE_NAME));
            }
            let settings = item.plain_table()?;
            merge(self.module.entry(key.get_ref().to_string()).or_default(), settings);
            self.module_at.insert(key.get_ref().to_string(), format!("{}:{line}", source.label));
        }
        Ok(())
    }

    /// The whole.
    pub(super) fn finish(self) -> Result<Config, ConfigError> {
        let Self { modules, limits, audit, module, module_at, main, drop_ins, sources } = self;
        let (default, at) = match drop_ins.default.or(main.default) {
            Some((default, at)) => (default, Some(at)),
            None => (Action::Deny, None),
        };
        let mut rules = drop_ins.rules;
        rules.extend(main.rules);
        let policy = Policy::of(rules, default, at);
        Ok(Config { modules, limits, policy, audit, module, module_at, sources })
    }
}

const MODULE_NAME: &str = "a module's name is 1 to 64 of a-z 0-9 - _";

fn is_module_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=64).contains(&name.len()) && name.bytes().all(allowed)
}

impl Modules {
    fn apply(&mut self, section: &Section) -> Result<(), ConfigError> {
        const ALLOWED: &str = "a list of module names, such as [\"files\", \"info\"]";
        let Some(item) = section.get("enabled") else { return Ok(()) };
        let mut enabled = Vec::new();
        for item in item.array(ALLOWED)? {
            let name = item.string(ALLOWED)?;
            if !is_module_name(name) {
                return Err(item.refuse(MODULE_NAME));
            }
            if enabled.iter().any(|known| known == name) {
                return Err(item.refuse("named twice"));
            }
            enabled.push(name.to_owned());
        }
        self.enabled = enabled;
        Ok(())
    }
}

/// Tables merge key by key; anything else replaces what was there.
fn merge(into: &mut toml::Table, from: toml::Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}
