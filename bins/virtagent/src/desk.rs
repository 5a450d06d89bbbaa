//! What the host answers while a command is connected: hello, ping, capabilities, events, output of programs.
//!
//! Owns the host's side of the guest's calls. Every byte of them is the guest's word: who called is what the guest's
//! router says, bounded queues take what a command asked for, and the rest is refused.

use std::future::Future;
use std::pin::Pin;

use agent_core::link::{Incoming, Serve, VERSION};
use agent_core::rpc::{Fault, FaultCode, Outcome, Value};
use tokio::sync::mpsc;

/// How many calls may wait for the command that takes them.
const QUEUE: usize = 256;

/// Methods that every command answers.
const ALWAYS: [&str; 6] = ["va.hello", "va.ping", "va.capabilities", "va.cancel", "host.event", "system.listMethods"];

/// Answers the guest.
#[derive(Default)]
pub struct Desk {
    /// Takes `exec.output`.
    outputs: Option<mpsc::Sender<Incoming>>,
    /// Takes everything that no method below answers, and `host.event`.
    others: Option<mpsc::Sender<Incoming>>,
    /// The methods that `others` answers, for capabilities.
    methods: Vec<String>,
}

impl Desk {
    /// Answers what every command answers.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that also hands on the output of programs.
    pub fn with_outputs() -> (Self, mpsc::Receiver<Incoming>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { outputs: Some(sender), ..Self::default() }, receiver)
    }

    /// One that also hands on events and every call of these methods.
    pub fn with_calls(methods: Vec<String>) -> (Self, mpsc::Receiver<Incoming>) {
        let (sender, receiver) = mpsc::channel(QUEUE);
        (Self { others: Some(sender), methods, ..Self::default() }, receiver)
    }

    fn methods(&self) -> Vec<Value> {
        let outputs = self.outputs.is_some().then_some("exec.output");
        ALWAYS.into_iter().chain(outputs).chain(self.methods.iter().map(String::as_str)).map(Value::from).collect()
    }

    /// The outcome of what is answered here, or nothing for what others take.
    fn answer(&self, method: &str) -> Option<Outcome> {
        if self.methods.iter().any(|ours| ours == method) {
            return None;
        }
        Some(Ok(match method {
            "va.ping" => "pong".into(),
            "va.hello" => "hello".into(),
            "va.capabilities" => Value::object([
                ("version", "1.0".into()),
                ("agent", Value::object([("name", "virtagent".into()), ("version", VERSION.into())])),
                ("methods", self.methods().into()),
                ("encodings", Value::Array(vec!["xml".into(), "json".into(), "cbor".into()])),
            ]),
            "system.listMethods" => self.methods().into(),
            "host.event" if self.others.is_none() => Value::Nil,
            "host.event" => return None,
            "exec.output" if self.outputs.is_some() => return None,
            _ => {
                let message = format!(
                    "the host does not answer {method}; there, `virtagent serve --handler {method}=PROGRAM` would"
                );
                return Some(Err(Fault::method_not_found(message)));
            }
        }))
    }
}

impl Serve for Desk {
    fn incoming(&self, incoming: Incoming) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async move {
            if incoming.call.method == *"va.cancel" {
                let tag = incoming.call.params.first().map(|params| params.get("tag").unwrap_or(params));
                let tag = tag.and_then(Value::as_str).and_then(|tag| tag.parse().ok());
                let outcome = match tag {
                    Some(tag) => Ok(incoming.link().cancel_incoming(&tag).into()),
                    None => Err(Fault::invalid_params("va.cancel takes the tag of a call")),
                };
                tokio::spawn(incoming.answer(outcome));
                return;
            }
            let outcome = match self.answer(incoming.call.method.as_str()) {
                Some(outcome) => outcome,
                None => {
                    let output = incoming.call.method == *"exec.output";
                    let queue = if output { &self.outputs } else { &self.others };
                    let full = |taker: &mpsc::Sender<Incoming>| taker.capacity() == 0;
                    match queue {
                        Some(taker) if !full(taker) => {
                            let _ = taker.try_send(incoming);
                            return;
                        }
                        _ => {
                            Err(Fault::new(FaultCode::Busy, "the host has as much to do as it takes; try again later"))
                        }
                    }
                }
            };
            // The link bounds how many of the guest's calls are unanswered, and so these tasks.
            tokio::spawn(incoming.answer(outcome));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_nobody_serves_says_how_to_serve_it() {
        let fault = Desk::new().answer("ticket.open").unwrap().unwrap_err();
        assert!(fault.message.contains("serve --handler ticket.open=PROGRAM"), "{fault}");
        assert!(fault.is(FaultCode::MethodNotFound));
    }

    #[test]
    fn capabilities_name_what_is_served_now() {
        let (desk, _calls) = Desk::with_calls(vec!["ticket.open".to_owned()]);
        let capabilities = desk.answer("va.capabilities").unwrap().unwrap();
        let methods = capabilities.get("methods").and_then(Value::as_array).unwrap();
        assert!(methods.contains(&"ticket.open".into()) && methods.contains(&"va.hello".into()));
        assert!(desk.answer("ticket.open").is_none());
    }

    #[test]
    fn a_handler_may_take_even_ping() {
        let (desk, _calls) = Desk::with_calls(vec!["va.ping".to_owned()]);
        assert!(desk.answer("va.ping").is_none());
    }
}
