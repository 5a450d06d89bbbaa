//! virtagent's daemon with the template's module beside the shipped ones.

use virtagent_template as _;

fn main() -> std::process::ExitCode {
    virtagentd::run()
}
