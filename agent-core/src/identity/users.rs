//! Users of this system, by name or number. Owns the name service's lookups, which block and so leave the event loop.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::{Gid, Uid};

use crate::rpc::{Fault, FaultCode};

/// How long the name service (LDAP, SSSD, ...) may take.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// A name that a user may have, or a UID in digits: 1 to 256 bytes without `/`, `:` or control characters.
///
/// Whether there is such a user is [`resolve_user`]'s business.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Username(Arc<str>);

/// Not a [`Username`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a user name (1 to 256 bytes without '/', ':' and control characters): {0:?}")]
pub struct BadUsername(String);

impl Username {
    /// The longest name, in bytes (Linux' `LOGIN_NAME_MAX`).
    pub const MAX: usize = 256;

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number, if this is all digits: then it is a UID and never a name, as systemd has it (systemd.exec(5),
    /// `User=`), so that nobody gets another's calls by a name of digits.
    ///
    /// # Errors
    /// The digits are no UID: over 4294967294, or 65535, which the kernel keeps for "none".
    pub fn as_uid(&self) -> Result<Option<Uid>, BadUsername> {
        if !self.0.bytes().all(|b| b.is_ascii_digit()) {
            return Ok(None);
        }
        match self.0.parse::<u32>() {
            Ok(number) if number != u32::MAX && number != 0xffff => Ok(Some(Uid::from_raw(number))),
            _ => Err(BadUsername(self.0.to_string())),
        }
    }
}

impl FromStr for Username {
    type Err = BadUsername;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let allowed = |c: char| !c.is_control() && c != '/' && c != ':';
        if text.is_empty() || text.len() > Self::MAX || !text.chars().all(allowed) {
            return Err(BadUsername(text.chars().take(64).collect()));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Username {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

/// A user that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Its UID.
    pub uid: Uid,
    /// Its primary group.
    pub gid: Gid,
    /// Its name.
    pub name: Arc<str>,
    /// Its home directory.
    pub home: PathBuf,
    /// Its login shell.
    pub shell: PathBuf,
}

impl From<nix::unistd::User> for User {
    fn from(user: nix::unistd::User) -> Self {
        Self { uid: user.uid, gid: user.gid, name: user.name.into(), home: user.dir, shell: user.shell }
    }
}

impl User {
    /// Whether a caller means this user by that name or UID.
    pub fn is_named(&self, spec: &str) -> bool {
        match spec.parse::<Username>().map(|name| name.as_uid()) {
            Ok(Ok(Some(uid))) => uid == self.uid,
            Ok(Ok(None)) => *spec == *self.name,
            _ => false,
        }
    }
}

/// Finds the user of that name or UID, blocking.
///
/// # Errors
/// [`FaultCode::NoSuchUser`], also for what can't be a name; [`FaultCode::Os`] when the name service fails.
pub fn lookup_user(spec: &str) -> Result<User, Fault> {
    let bad = |error: BadUsername| Fault::new(FaultCode::NoSuchUser, error.to_string());
    let name: Username = spec.parse().map_err(bad)?;
    let found = match name.as_uid().map_err(bad)? {
        Some(uid) => nix::unistd::User::from_uid(uid),
        None => nix::unistd::User::from_name(name.as_str()),
    };
    match found {
        Ok(Some(user)) => Ok(user.into()),
        Ok(None) => Err(Fault::new(FaultCode::NoSuchUser, format!("no user {spec:?} in this guest"))),
        Err(errno) => Err(Fault::errno(format!("look up user {spec:?}"), errno)),
    }
}

/// Finds the user of that name or UID without blocking the event loop.
///
/// # Errors
/// As [`lookup_user`], and [`FaultCode::Unavailable`] when the name service does not answer in time.
pub async fn resolve_user(spec: &str) -> Result<User, Fault> {
    let owned = spec.to_owned();
    let lookup = tokio::task::spawn_blocking(move || lookup_user(&owned));
    match tokio::time::timeout(LOOKUP_TIMEOUT, lookup).await {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => Err(Fault::internal(format!("look up user {spec:?}: {error}"))),
        Err(_) => {
            let seconds = LOOKUP_TIMEOUT.as_secs();
            Err(Fault::unavailable(format!("the name service did not answer for user {spec:?} in {seconds} s")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn root_is_found_by_name_and_by_number() {
        let root = resolve_user("root").await.unwrap();
        assert_eq!((root.uid.as_raw(), &*root.name), (0, "root"));
        assert_eq!(resolve_user("0").await.unwrap(), root);
    }

    #[tokio::test]
    async fn who_is_not_there_is_no_such_user() {
        for spec in
            ["no-such-user-here", "4294967294", "4294967295", "65535", "99999999999", "", "a/b", "a:b", "a\0b", "a\nb"]
        {
            let fault = resolve_user(spec).await.unwrap_err();
            assert!(fault.is(FaultCode::NoSuchUser), "{spec:?}: {fault}");
        }
    }

    #[test]
    fn a_name_is_bounded_and_holds_no_separator() {
        assert!("a".repeat(256).parse::<Username>().is_ok());
        assert!("a".repeat(257).parse::<Username>().is_err());
        assert_eq!("jürgen@example.org".parse::<Username>().unwrap().as_str(), "jürgen@example.org");
        assert_eq!("1000".parse::<Username>().unwrap().as_uid(), Ok(Some(Uid::from_raw(1000))));
        assert_eq!("u1000".parse::<Username>().unwrap().as_uid(), Ok(None));
    }
}
