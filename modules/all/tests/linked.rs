//! What a daemon gets that names this crate and nothing in it.

use agent_core::module::{Descriptor, Level, Levels};
use virtagent_modules as _;

#[test]
fn a_daemon_that_only_names_this_crate_has_every_module_of_its_features() {
    let features = [
        ("exec", cfg!(feature = "exec")),
        ("files", cfg!(feature = "files")),
        ("info", cfg!(feature = "info")),
        ("power", cfg!(feature = "power")),
    ];
    let expected: Vec<_> = features.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let linked: Vec<_> = Descriptor::all().into_iter().map(|descriptor| descriptor.name).collect();
    assert_eq!(linked, expected);
}

#[test]
fn no_method_is_offered_twice_and_each_has_its_help_and_documented_parameters() {
    let mut names = std::collections::BTreeSet::new();
    for descriptor in Descriptor::all() {
        for spec in (descriptor.specs)() {
            assert!(names.insert(spec.name), "{} is offered twice", spec.name);
            assert!(!spec.help.is_empty(), "{} has no help", spec.name);
            let schema = (spec.params_schema)();
            for name in spec.params {
                let described = schema.pointer(&format!("/properties/{name}/description"));
                assert!(described.is_some(), "{}: nobody says what {name} is", spec.name);
            }
            for path in spec.paths.iter().chain(spec.link_paths).chain(spec.secrets) {
                assert!(spec.params.contains(path), "{} has no parameter {path}", spec.name);
            }
        }
    }
}

#[test]
fn power_and_information_are_the_systems_and_files_are_everybodys() {
    for descriptor in Descriptor::all() {
        let expected = match descriptor.name {
            "power" | "info" => Levels::System,
            _ => Levels::Both,
        };
        assert_eq!(descriptor.levels, expected, "{}", descriptor.name);
        assert!(descriptor.levels.contains(Level::System));
    }
}
