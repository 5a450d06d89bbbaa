//! Path parameters as policy judges them: absolute, without symlinks and `..`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use crate::module::MethodSpec;
use crate::rpc::{Fault, Struct, Value};

/// The kernel's PATH_MAX.
const PATH_MAX: usize = 4096;

/// The paths that a call names, as policy judges them: what `virtagentd policy test` asks with. Blocking.
///
/// # Errors
/// A path that is none, or can't be resolved.
pub fn resolve_for_policy(spec: &MethodSpec, params: &Struct, home: Option<&Path>) -> Result<Vec<PathBuf>, Fault> {
    let given = given(spec, params, home)?;
    given.into_iter().map(|(_, path, follow)| resolve(&path, follow)).collect()
}

/// The path parameters that came, by name, and whether the method follows a symlink at their end.
pub(super) fn given(
    spec: &MethodSpec,
    params: &Struct,
    home: Option<&Path>,
) -> Result<Vec<(&'static str, PathBuf, bool)>, Fault> {
    let follows = spec.follow_flag.is_none_or(|flag| params.get(flag) != Some(&Value::Bool(false)));
    let follow = spec.paths.iter().map(|name| (*name, follows));
    let names = follow.chain(spec.link_paths.iter().map(|name| (*name, false)));
    let given = names.filter_map(|(name, follow)| match absolute(params, name, home) {
        Ok(path) => path.map(|path| Ok((name, path, follow))),
        Err(fault) => Some(Err(fault)),
    });
    given.collect()
}

/// A path parameter as it came: its text made absolute, nothing resolved yet. Nothing where the parameter is absent.
fn absolute(params: &Struct, name: &str, home: Option<&Path>) -> Result<Option<PathBuf>, Fault> {
    let bytes = match params.get(name) {
        Some(Value::String(text)) => text.as_bytes(),
        Some(Value::Bytes(bytes)) => bytes,
        None | Some(Value::Nil) => return Ok(None),
        // A module might take it for a path after all, and policy would not have seen it.
        Some(other) => {
            return Err(Fault::invalid_params(format!(
                "{name}: a path is a string or bytes, not {}",
                other.type_name()
            )));
        }
    };
    if bytes.is_empty() || bytes.contains(&0) || bytes.len() > PATH_MAX {
        return Err(Fault::invalid_params(format!("{name}: a path has 1 to {PATH_MAX} bytes without NUL")));
    }
    let path = Path::new(OsStr::from_bytes(bytes));
    if path.is_absolute() {
        return Ok(Some(path.to_owned()));
    }
    let Some(home) = home else {
        return Err(Fault::invalid_params(format!("{name}: {} is not absolute", path.display())));
    };
    let below_home = match path.strip_prefix("~") {
        Ok(rest) => rest,
        Err(_) => path,
    };
    Ok(Some(home.join(below_home)))
}

/// Resolves a path on the file system; blocking.
///
/// What does not exist yet is kept as it is below the deepest folder that does; `..` is not allowed there, for nobody
/// can say what it would mean. With `follow` off the last component is left alone: the operation is on the link itself.
pub(super) fn resolve(path: &Path, follow: bool) -> Result<PathBuf, Fault> {
    if !follow && let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
        return Ok(resolve(parent, true)?.join(name));
    }
    let mut missing = Vec::new();
    let mut existing = path;
    loop {
        match existing.canonicalize() {
            Ok(canonical) => {
                return Ok(missing.iter().rev().fold(canonical, |path: PathBuf, name: &&OsStr| path.join(name)));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Fault::os(format!("resolve {}", path.display()), &error)),
        }
        match (existing.components().next_back(), existing.parent()) {
            (Some(Component::Normal(name)), Some(parent)) => {
                missing.push(name);
                existing = parent;
            }
            _ => {
                let path = path.display();
                return Err(Fault::invalid_params(format!("{path}: \"..\" below a folder that does not exist")));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn symlinks_and_dots_are_resolved_and_missing_ends_are_kept() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("real")).unwrap();
        std::fs::write(root.join("real/file"), "x").unwrap();
        symlink(root.join("real"), root.join("link")).unwrap();
        symlink(root.join("real/file"), root.join("to-file")).unwrap();

        assert_eq!(resolve(&root.join("link/file"), true).unwrap(), root.join("real/file"));
        assert_eq!(resolve(&root.join("link/../real/./file"), true).unwrap(), root.join("real/file"));
        assert_eq!(resolve(&root.join("to-file"), true).unwrap(), root.join("real/file"));
        assert_eq!(resolve(&root.join("to-file"), false).unwrap(), root.join("to-file"));
        assert_eq!(resolve(&root.join("link/new/deeper"), true).unwrap(), root.join("real/new/deeper"));
        assert!(resolve(&root.join("nowhere/../real/file"), true).is_err());
    }

    #[test]
    fn a_method_follows_its_paths_unless_it_acts_on_links_or_is_told_not_to() {
        let follows = |spec: &MethodSpec, follow: Option<bool>| {
            let mut params = Struct::from([("path".to_owned(), Value::from("/a"))]);
            params.extend(follow.map(|follow| ("follow".to_owned(), Value::Bool(follow))));
            given(spec, &params, None).unwrap()[0].2
        };
        let mut spec = MethodSpec::new::<(), ()>("file.stat", "");
        spec.paths = &["path"];
        assert!(follows(&spec, None) && follows(&spec, Some(false)), "without a flag of that name");
        spec.follow_flag = Some("follow");
        assert!(follows(&spec, None) && follows(&spec, Some(true)));
        assert!(!follows(&spec, Some(false)));
        (spec.paths, spec.link_paths) = (&[], &["path"]);
        assert!(!follows(&spec, None));
    }

    #[test]
    fn a_dangling_symlink_keeps_its_own_name() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        symlink("/nonexistent/target", root.join("dangling")).unwrap();
        // Opening it with RESOLVE_NO_SYMLINKS then fails, whatever the target becomes.
        assert_eq!(resolve(&root.join("dangling"), true).unwrap(), root.join("dangling"));
    }

    #[test]
    fn relative_paths_mean_the_home_at_user_level_and_nothing_at_system_level() {
        let params = |text: &str| Struct::from([("path".to_owned(), Value::from(text))]);
        let home = Path::new("/home/alice");
        assert_eq!(absolute(&params("~/a"), "path", Some(home)).unwrap().unwrap(), home.join("a"));
        assert_eq!(absolute(&params("b/c"), "path", Some(home)).unwrap().unwrap(), home.join("b/c"));
        assert_eq!(absolute(&params("/etc"), "path", Some(home)).unwrap().unwrap(), Path::new("/etc"));
        assert!(absolute(&params("b"), "path", None).is_err());
        assert!(absolute(&params("/a\0b"), "path", None).is_err());
        assert_eq!(absolute(&Struct::new(), "path", None).unwrap(), None);
    }
}
