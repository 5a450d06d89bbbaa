//! virtagent module: notes. The template of yours: copy it, and read docs/writing-a-module.md beside it.
#![forbid(unsafe_code)]

use agent_core::module::prelude::*;
use std::{cell::RefCell, collections::HashMap};

inventory::submit! { Descriptor::new::<Notes>("notes", env!("CARGO_PKG_VERSION"), Levels::Both).shared() }

/// Notes that callers take. Each sees its own, and they go when it goes.
pub struct Notes {
    max_notes: usize,
    notes: RefCell<HashMap<OwnerId, Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    max_notes: Option<usize>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Add {
    /// What to write down.
    text: String,
}

impl Module for Notes {
    fn build(env: &ModuleEnv) -> Result<Self, BuildError> {
        let max_notes = env.settings::<Settings>()?.max_notes.unwrap_or(100);
        Ok(Self { max_notes, notes: RefCell::default() })
    }

    fn methods() -> Methods<Self> {
        Methods::new().add("notes.add", "Writes a note down, tells the host, answers all notes.", Self::add)
    }

    fn owner_gone(self: Rc<Self>, owner: OwnerId) {
        self.notes.borrow_mut().remove(&owner);
    }
}

impl Notes {
    async fn add(self: Rc<Self>, cx: CallContext, params: Add) -> Result<Vec<String>, Fault> {
        let notes = {
            let mut everybodys = self.notes.borrow_mut();
            let notes = everybodys.entry(cx.owner).or_default();
            if notes.len() >= self.max_notes {
                return Err(Fault::limit(format!("at most {} notes (module.notes.max_notes)", self.max_notes)));
            }
            notes.push(params.text.clone());
            notes.clone()
        };
        let event = Value::object([("topic", "notes.added".into()), ("data", params.text.into())]);
        cx.call_host("host.event", event).await?;
        Ok(notes)
    }
}
