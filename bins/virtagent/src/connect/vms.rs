//! `~/.config/virtagent/vms.toml`: names for sockets.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::failure::{Failure, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    vm: BTreeMap<String, Vm>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    socket: String,
}

/// The sockets by name; none when there is no such file.
pub fn read(path: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(Failure::local("read", path, &error)),
    };
    parse(&text).map_err(|message| Failure::usage(format!("{}: {message}", path.display())))
}

fn parse(text: &str) -> Result<BTreeMap<String, PathBuf>, String> {
    let file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map_or_else(String::new, |line| format!("line {line}: "));
        format!("{place}{}; want [vm.NAME] tables with socket = \"PATH\"", error.message())
    })?;
    file.vm.into_iter().map(|(name, vm)| Ok((name, expand(&vm.socket)?))).collect()
}

/// `~/` is the user's home.
fn expand(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("socket is empty".to_owned());
    }
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Ok(PathBuf::from(home).join(rest)),
        _ => Ok(PathBuf::from(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vm_table_names_a_socket() {
        let vms = parse("[vm.web1]\nsocket = \"/run/a.sock\"\n[vm.\"db 2\"]\nsocket = \"vsock:3:9\"\n").unwrap();
        assert_eq!(vms["web1"], PathBuf::from("/run/a.sock"));
        assert_eq!(vms["db 2"], PathBuf::from("vsock:3:9"));
    }

    #[test]
    fn a_misspelt_key_is_refused_with_its_line() {
        let message = parse("[vm.a]\nsocket = \"/a\"\n[vm.b]\nsokcet = \"/b\"\n").unwrap_err();
        assert!(message.starts_with("line 4: ") && message.contains("sokcet"), "{message}");
    }

    #[test]
    fn no_file_is_no_vm() {
        assert!(read(Path::new("/nonexistent/vms.toml")).unwrap().is_empty());
    }
}
