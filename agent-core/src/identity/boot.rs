//! This boot and this machine, as far as the other end of a link is told of them. Owns reading them; keeps nothing.

use std::fmt;
use std::io;

use nix::sys::utsname::uname;

/// The kernel's name for this boot: a UUID that changes with every boot (`random(4)`).
///
/// # Errors
/// `/proc` is not mounted.
pub fn boot_id() -> io::Result<String> {
    Ok(std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned())
}

/// 128 random bits that name one conversation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Nonce(pub [u8; 16]);

impl Nonce {
    /// A fresh one.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(format!("random bytes: {error}")))?;
        Ok(Self(bytes))
    }

    /// Its first 32 bits, for [`crate::rpc::Tag::numbered`].
    pub fn short(&self) -> u32 {
        let [a, b, c, d, ..] = self.0;
        u32::from_be_bytes([a, b, c, d])
    }
}

impl fmt::Display for Nonce {
    /// 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What capabilities say of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Its host name.
    pub hostname: String,
    /// `PRETTY_NAME` of os-release(5); `Linux` when there is none.
    pub os: String,
    /// The kernel's release: `6.1.0-18-amd64`.
    pub kernel: String,
    /// The kernel's word for the hardware: `x86_64`.
    pub architecture: String,
}

impl Machine {
    /// This one.
    ///
    /// # Errors
    /// uname(2) fails.
    pub fn this() -> io::Result<Self> {
        let uname = uname()?;
        let text = |field: &std::ffi::OsStr| field.to_string_lossy().into_owned();
        let os_release = ["/etc/os-release", "/usr/lib/os-release"].into_iter().find_map(|path| {
            let text = std::fs::read_to_string(path).ok()?;
            pretty_name(&text)
        });
        Ok(Self {
            hostname: text(uname.nodename()),
            os: os_release.unwrap_or_else(|| "Linux".to_owned()),
            kernel: text(uname.release()),
            architecture: text(uname.machine()),
        })
    }
}

/// The value of `PRETTY_NAME`, unquoted as os-release(5) has it.
fn pretty_name(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.trim().strip_prefix("PRETTY_NAME="))?;
    let quoted = ['"', '\''].into_iter().find_map(|quote| value.strip_prefix(quote)?.strip_suffix(quote));
    let mut name = String::new();
    let mut chars = quoted.unwrap_or(value).chars();
    while let Some(c) = chars.next() {
        name.extend(if c == '\\' { chars.next() } else { Some(c) });
    }
    Some(name).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_has_one_id_and_each_conversation_its_own_nonce() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_eq!(boot_id().unwrap().len(), 36);
        let nonce = Nonce::fresh().unwrap();
        assert_ne!(nonce, Nonce::fresh().unwrap());
        assert!(nonce.to_string().starts_with(&format!("{:08x}", nonce.short())));
        assert_eq!(nonce.to_string().len(), 32);
    }

    #[test]
    fn os_release_is_unquoted() {
        let name = |text| pretty_name(text).unwrap_or_default();
        assert_eq!(name("NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"), "Debian GNU/Linux 12 (bookworm)");
        assert_eq!(name("PRETTY_NAME='a b'"), "a b");
        assert_eq!(name(r#"PRETTY_NAME="a \"b\" \$c""#), "a \"b\" $c");
        assert_eq!(name("PRETTY_NAME=Linux"), "Linux");
        assert_eq!(name("NAME=x"), "");
    }

    #[test]
    fn this_machine_has_a_kernel() {
        assert!(!Machine::this().unwrap().kernel.is_empty());
    }
}
