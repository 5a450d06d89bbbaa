//! The operating system's name, kernel, boot and uptime.

use std::collections::BTreeMap;
use std::fs::read_to_string;
use std::io::ErrorKind;
use std::path::Path;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::Error;

/// uname(2), without the host's name.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Kernel {
    /// `6.1.0-35-amd64`.
    release: String,
    /// How it was built.
    version: String,
    /// `x86_64`.
    machine: String,
}

/// os-release(5): /etc first, then /usr/lib; nothing where there is neither.
pub(crate) fn release(root: &Path) -> Result<BTreeMap<String, String>, Error> {
    for path in ["etc/os-release", "usr/lib/os-release"] {
        match read_to_string(root.join(path)) {
            Ok(text) => return Ok(parse_release(&text)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(Error::Io { what: "read os-release", error }),
        }
    }
    Ok(BTreeMap::new())
}

fn parse_release(text: &str) -> BTreeMap<String, String> {
    let assignments = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = assignments.filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.trim().to_ascii_lowercase(), unquoted(value.trim()))).collect()
}

/// A shell's word: in quotes or not, with backslashes before `"`, `$`, `` ` `` and themselves.
fn unquoted(word: &str) -> String {
    if let Some(literal) = word.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        return literal.to_owned();
    }
    let inner = word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(word);
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        plain.push(if character == '\\' { characters.next().unwrap_or('\\') } else { character });
    }
    plain
}

pub(crate) fn kernel() -> Result<Kernel, Error> {
    let uname = nix::sys::utsname::uname().map_err(Error::errno("uname"))?;
    let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
    Ok(Kernel { release: text(uname.release()), version: text(uname.version()), machine: text(uname.machine()) })
}

pub(crate) fn hostname() -> Result<String, Error> {
    Ok(nix::unistd::gethostname().map_err(Error::errno("get the host name"))?.to_string_lossy().into_owned())
}

pub(crate) fn boot_id() -> Result<String, Error> {
    let id = read_to_string("/proc/sys/kernel/random/boot_id").map_err(Error::io("read the boot id"))?;
    Ok(id.trim().to_owned())
}

/// Seconds since the boot, suspended ones among them: proc_uptime(5).
pub(crate) fn uptime() -> Result<f64, Error> {
    let text = read_to_string("/proc/uptime").map_err(Error::io("read /proc/uptime"))?;
    let seconds = text.split_whitespace().next().and_then(|seconds| seconds.parse().ok());
    seconds.ok_or_else(|| Error::Malformed(format!("/proc/uptime says {:?}", text.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release_is_read_as_a_shell_would() {
        let text = "# comment\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n\nVARIANT='a \"b\"'\n\
                    NAME=\"say \\\"hi\\\" for 5\\$\"\nEMPTY=\nnonsense\n";
        let release = parse_release(text);
        assert_eq!(release["pretty_name"], "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(release["id"], "debian");
        assert_eq!(release["variant"], "a \"b\"");
        assert_eq!(release["name"], "say \"hi\" for 5$");
        assert_eq!(release["empty"], "");
        assert_eq!(release.len(), 5);
    }

    #[test]
    fn the_administrators_os_release_comes_before_the_vendors_and_neither_is_needed() {
        let root = tempfile::tempdir().unwrap();
        assert!(release(root.path()).unwrap().is_empty());
        for (folder, id) in [("usr/lib", "vendor"), ("etc", "admin")] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
            std::fs::write(root.path().join(folder).join("os-release"), format!("ID={id}\n")).unwrap();
            assert_eq!(release(root.path()).unwrap()["id"], id);
        }
    }
}
