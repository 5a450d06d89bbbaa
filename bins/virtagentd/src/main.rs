//! The shipped daemon: `virtagentd::run` with the shipped modules.

fn main() -> std::process::ExitCode {
    virtagentd::run()
}
