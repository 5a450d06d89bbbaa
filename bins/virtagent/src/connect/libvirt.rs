//! The channel sockets of running libvirt domains, found by the domain's name.
//!
//! libvirt puts a channel without a path of its own below a directory that is named after the domain's running number and
//! the first 20 characters of its name: since 9.7 `/run/libvirt/qemu/channel/3-web1/`, before that
//! `/var/lib/libvirt/qemu/channel/target/domain-3-web1/`. A channel that was given a path is found in the running
//! domain's XML, `/run/libvirt/qemu/web1.xml`, which only root may read.

use std::path::{Path, PathBuf};

use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};

/// The name of our port.
pub const PORT: &str = "org.qemu.virtagent";

/// How much of a domain's name libvirt puts into the directory's, in characters.
const SHORT_NAME: usize = 20;

/// Where libvirt keeps running domains, root's and the user's own.
#[derive(Clone, Debug)]
pub struct Roots {
    /// Directories that hold `ID-NAME/` or `domain-ID-NAME/`.
    channels: Vec<PathBuf>,
    /// Directories that hold `NAME.xml` of running domains.
    states: Vec<PathBuf>,
}

impl Roots {
    /// The usual places; the user's own libvirt keeps its state below `runtime` and used to keep channels below `config`.
    pub fn usual(config: Option<&Path>, runtime: Option<&Path>) -> Self {
        let mut roots = Self::below(Path::new("/run/libvirt/qemu"), Path::new("/var/lib/libvirt/qemu"));
        if let Some(runtime) = runtime {
            roots.channels.push(runtime.join("libvirt/qemu/run/channel"));
            roots.channels.push(runtime.join("libvirt/qemu/channel"));
            roots.states.push(runtime.join("libvirt/qemu/run"));
        }
        if let Some(config) = config {
            roots.channels.push(config.join("libvirt/qemu/channel/target"));
        }
        roots
    }

    /// The system's places, elsewhere for tests.
    pub fn below(run: &Path, lib: &Path) -> Self {
        Self { channels: vec![run.join("channel"), lib.join("channel/target")], states: vec![run.to_owned()] }
    }
}

/// The sockets that may be the domain's: one, unless two running domains begin with the same 20 characters.
pub fn channels_of(name: &str, roots: &Roots) -> Vec<PathBuf> {
    let exact = roots.states.iter().find_map(|dir| socket_in_xml(&dir.join(format!("{name}.xml"))));
    if let Some(path) = exact {
        return vec![path];
    }
    let found = sockets(roots).into_iter().filter(|(short, _)| is_short_of(short, name));
    dedup(found.map(|(_, path)| path))
}

/// Every running domain that has our channel, with the best name there is for it, sorted.
pub fn channels(roots: &Roots) -> Vec<(String, PathBuf)> {
    let names = domain_names(roots);
    let mut found: Vec<(String, PathBuf)> = names
        .iter()
        .flat_map(|(name, xml)| socket_in_xml(xml).map(|path| (name.clone(), path)))
        .chain(sockets(roots).into_iter().map(|(short, path)| {
            let mut full = names.iter().map(|(name, _)| name).filter(|name| is_short_of(&short, name));
            match (full.next(), full.next()) {
                (Some(name), None) => (name.clone(), path),
                _ => (short, path),
            }
        }))
        .collect();
    found.sort();
    found.dedup_by(|a, b| a.1 == b.1);
    found
}

/// A directory of libvirt's that exists but that this user may not look into.
pub fn unreadable(roots: &Roots) -> Option<&Path> {
    let denied = |dir: &&PathBuf| {
        std::fs::read_dir(dir).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
    };
    roots.channels.iter().find(denied).map(PathBuf::as_path)
}

/// `web1` of `3-web1` and of `domain-3-web1`.
fn short_name(directory: &str) -> Option<&str> {
    let rest = directory.strip_prefix("domain-").unwrap_or(directory);
    let (number, name) = rest.split_once('-')?;
    let numbered = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    (numbered && !name.is_empty()).then_some(name)
}

fn is_short_of(short: &str, name: &str) -> bool {
    match name.char_indices().nth(SHORT_NAME) {
        Some((end, _)) => short == &name[..end],
        None => short == name,
    }
}

fn sockets(roots: &Roots) -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for root in &roots.channels {
        for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
            let directory = entry.file_name();
            let Some(name) = directory.to_str().and_then(short_name) else { continue };
            let path = entry.path().join(PORT);
            if path.exists() {
                found.push((name.to_owned(), path));
            }
        }
    }
    found
}

/// The running domains' full names with their XML files; the files' names can be listed even where they can't be read.
fn domain_names(roots: &Roots) -> Vec<(String, PathBuf)> {
    let entries = roots.states.iter().flat_map(|dir| std::fs::read_dir(dir).into_iter().flatten().flatten());
    entries
        .filter_map(|entry| {
            let path = entry.path();
            let name = entry.file_name().to_str()?.strip_suffix(".xml")?.to_owned();
            Some((name, path))
        })
        .collect()
}

fn dedup(paths: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let mut paths: Vec<_> = paths.collect();
    paths.sort();
    paths.dedup();
    paths
}

fn socket_in_xml(path: &Path) -> Option<PathBuf> {
    socket_of_port(&std::fs::read_to_string(path).ok()?)
}

/// The socket of our port in a running domain's XML.
fn socket_of_port(xml: &str) -> Option<PathBuf> {
    let mut reader = Reader::from_str(xml);
    let mut within = false;
    let (mut source, mut ours) = (None, false);
    loop {
        match reader.read_event().ok()? {
            Event::Start(tag) if tag.name().as_ref() == "channel" => {
                (within, source, ours) = (true, None, false);
            }
            Event::Start(tag) | Event::Empty(tag) if within => match tag.name().as_ref() {
                "source" if attribute(&tag, "mode").is_none_or(|mode| mode == "bind") => {
                    source = attribute(&tag, "path");
                }
                "target" => ours = attribute(&tag, "name").is_some_and(|name| name == PORT),
                _ => {}
            },
            Event::End(tag) if tag.name().as_ref() == "channel" => {
                if let (true, Some(path)) = (ours, source.take()) {
                    return Some(path.into());
                }
                within = false;
            }
            Event::Eof => return None,
            _ => {}
        }
    }
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = tag.try_get_attribute(name).ok()??;
    quick_xml::escape::unescape(&attribute.value).ok().map(|text| text.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &Path) -> Roots {
        Roots::below(&dir.join("run"), &dir.join("lib"))
    }

    fn channel(dir: &Path, below: &str) -> PathBuf {
        let dir = dir.join(below);
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join(PORT);
        std::fs::write(&path, "").unwrap();
        path
    }

    #[test]
    fn both_of_libvirts_places_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let new = channel(dir.path(), "run/channel/12-web1");
        let old = channel(dir.path(), "lib/channel/target/domain-3-my-db");
        channel(dir.path(), "run/channel/13-web10");
        let roots = roots(dir.path());
        assert_eq!(channels_of("web1", &roots), [new]);
        assert_eq!(channels_of("my-db", &roots), [old]);
        assert!(channels_of("db", &roots).is_empty());
        let names: Vec<_> = channels(&roots).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["my-db", "web1", "web10"]);
    }

    #[test]
    fn a_long_name_is_found_by_its_first_20_characters() {
        let dir = tempfile::tempdir().unwrap();
        let path = channel(dir.path(), "run/channel/1-a-name-of-more-than-");
        let roots = roots(dir.path());
        std::fs::write(dir.path().join("run/a-name-of-more-than-20-characters.xml"), "").unwrap();
        assert_eq!(channels_of("a-name-of-more-than-20-characters", &roots), std::slice::from_ref(&path));
        assert!(channels_of("a-name-of-more-than", &roots).is_empty());
        assert_eq!(channels(&roots), [("a-name-of-more-than-20-characters".to_owned(), path)]);
    }

    #[test]
    fn a_channel_with_a_path_of_its_own_is_found_in_the_running_domains_xml() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("run")).unwrap();
        let xml = "<domstatus><domain><name>web1</name><devices>\
            <channel type='unix'><source mode='bind' path='/run/qga.sock'/><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
            <channel type='unix'><source mode='bind' path='/srv/a &amp; b.sock'/><target type='virtio' name='org.qemu.virtagent' state='connected'/></channel>\
            </devices></domain></domstatus>";
        std::fs::write(dir.path().join("run/web1.xml"), xml).unwrap();
        let roots = roots(dir.path());
        assert_eq!(channels_of("web1", &roots), [PathBuf::from("/srv/a & b.sock")]);
        assert_eq!(channels(&roots), [("web1".to_owned(), PathBuf::from("/srv/a & b.sock"))]);
    }

    #[test]
    fn xml_that_is_broken_or_without_our_port_names_no_socket() {
        for xml in ["", "<a", "<domain><channel><source path='/x'/></channel></domain>"] {
            assert_eq!(socket_of_port(xml), None, "{xml}");
        }
    }
}
