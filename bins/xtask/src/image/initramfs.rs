//! The kernel and a busybox initramfs that loads what the disk and the ports need: three seconds faster than Debian's own.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::step;

pub const INIT: &str = include_str!("init.sh");

/// By their kernel names; what they depend on is looked up.
pub const MODULES: &[&str] = &["virtio_pci", "virtio_blk", "virtio_console", "ext4"];

/// Takes the kernel and the modules out of the base tree and leaves `vmlinuz` and `initrd.cpio` in `out`.
pub fn build(tar: &Path, out: &Path) -> Result<()> {
    let work = tempfile::tempdir()?;
    let root = work.path().join("root");
    fs::create_dir(&root)?;
    extract(tar, &root, &["./boot/vmlinuz-*", "*/modules.dep", "*/modules.builtin"])?;
    let modules = modules_dir(&root)?;
    let wanted = in_loading_order(&modules)?;
    let version = modules.file_name().context("the modules' directory has no name")?.to_string_lossy().into_owned();
    fs::copy(root.join(format!("boot/vmlinuz-{version}")), out.join("vmlinuz"))
        .with_context(|| format!("the base tree has no kernel of the version {version} of its modules"))?;

    let patterns: Vec<String> = wanted.iter().map(|module| format!("*/{version}/{module}")).collect();
    extract(tar, &root, &patterns)?;

    let tree = work.path().join("initramfs");
    for dir in ["bin", "proc", "dev", "root", "modules"] {
        fs::create_dir_all(tree.join(dir))?;
    }
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    fs::copy(busybox.context("no /bin/busybox: install busybox-static")?, tree.join("bin/busybox"))?;
    fs::write(tree.join("init"), INIT)?;
    fs::set_permissions(tree.join("init"), fs::Permissions::from_mode(0o755))?;
    let mut order = String::new();
    for module in &wanted {
        order += &place(&modules.join(module), &tree)?;
        order.push('\n');
    }
    fs::write(tree.join("modules.order"), order)?;

    let script = "find . | LC_ALL=C sort | cpio --quiet --create --format=newc --owner=+0:+0 > \"$1\"";
    let initrd = fs::canonicalize(out)?.join("initrd.cpio");
    let mut cpio = step::command(&["sh", "-c", script, "sh"]);
    step::run(cpio.arg(initrd).current_dir(&tree))
}

fn extract<S: AsRef<str>>(tar: &Path, root: &Path, patterns: &[S]) -> Result<()> {
    let mut command = step::command(&["tar", "--extract", "--no-same-owner", "--wildcards", "--file"]);
    command.arg(tar).arg("--directory").arg(root).args(patterns.iter().map(AsRef::as_ref));
    step::run(&mut command)
}

/// `usr/lib/modules/VERSION` of the one kernel in the tree.
fn modules_dir(root: &Path) -> Result<std::path::PathBuf> {
    for parent in ["usr/lib/modules", "lib/modules"] {
        let Ok(entries) = fs::read_dir(root.join(parent)) else { continue };
        for entry in entries {
            let path = entry?.path();
            if path.join("modules.dep").exists() {
                return Ok(path);
            }
        }
    }
    bail!("the base tree has no kernel modules")
}

/// The modules' files, each after those that it needs. This kernel's own `modules.dep` says the order: it differs between
/// updates of one release.
fn in_loading_order(modules: &Path) -> Result<Vec<String>> {
    let dep = fs::read_to_string(modules.join("modules.dep"))?;
    let builtin = fs::read_to_string(modules.join("modules.builtin"))?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in MODULES {
        match dep.lines().find(|line| is_module(line.split(':').next().unwrap_or_default(), name)) {
            Some(line) => {
                let (file, needs) = line.split_once(':').context("a line of modules.dep has no colon")?;
                // depmod lists the needs of the needs too, those to be loaded first at the end.
                for file in needs.split_whitespace().rev().chain([file]) {
                    if seen.insert(file.to_owned()) {
                        order.push(file.to_owned());
                    }
                }
            }
            None if builtin.lines().any(|line| is_module(line, name)) => {}
            None => bail!("the guest's kernel has no module {name}"),
        }
    }
    Ok(order)
}

fn is_module(file: &str, name: &str) -> bool {
    let base = file.rsplit('/').next().unwrap_or_default();
    base.split(".ko").next().unwrap_or_default().replace('-', "_") == name
}

/// Puts a module into the initramfs, unpacked, and says where.
fn place(file: &Path, tree: &Path) -> Result<String> {
    let name = file.file_name().context("a module has no name")?.to_string_lossy().into_owned();
    let (name, bytes) = match name.strip_suffix(".xz") {
        Some(plain) => {
            let mut xz = step::command(&["xz", "--decompress", "--stdout"]);
            (plain.to_owned(), step::read(xz.arg(file))?)
        }
        None if name.ends_with(".ko") => (name, fs::read(file)?),
        None => bail!("{name} is compressed in a way that this script does not know"),
    };
    let place = format!("modules/{name}");
    fs::write(tree.join(&place), bytes)?;
    Ok(format!("/{place}"))
}
