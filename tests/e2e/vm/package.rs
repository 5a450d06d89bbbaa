//! The package's promises to an administrator, in a running guest.

use anyhow::{Result, ensure};
use virtagent_tests::image::Image;
use virtagent_tests::vm::Vm;

use super::guest::Guest;

#[test]
fn removing_the_package_leaves_the_log_and_installing_it_in_a_guest_with_the_port_starts_it() -> Result<()> {
    let mut guest = Guest(Vm::boot(Image::current()?)?);
    guest.wait_ready()?;
    guest.wait_for_users(&["alice", "bob"])?;

    guest.inside_ok("dpkg --remove virtagent-guest")?;
    ensure!(guest.inside("pgrep -x virtagentd")?.code == 1, "a daemon still runs");
    guest.inside_ok("test -s /var/log/virtagent/audit.jsonl && test -s /etc/virtagent/virtagentd.toml")?;

    guest.inside_ok("dpkg --purge virtagent-guest")?;
    guest.inside_ok("test ! -e /var/log/virtagent && test ! -e /etc/virtagent")?;

    guest.inside_ok("dpkg --install /packages/virtagent-guest.deb")?;
    guest.wait_ready()?;
    guest.wait_for_users(&["alice", "bob"])?;
    // An upgrade ends with daemons of the new version and the same users.
    let before = guest.daemon("alice")?;
    guest.inside_ok("dpkg --install /packages/virtagent-guest.deb")?;
    guest.wait_for_users(&["alice", "bob"])?;
    guest.0.wait("alice's new daemon", |vm| {
        let listed = vm.host_json(&["users"])?.to_string();
        Ok((listed.contains("alice") && !listed.contains(&format!(":{before},"))).then_some(()))
    })?;
    // As packaged, the host does not act as root.
    let refused = guest.host_refused(&["exec", "--", "id"])?;
    ensure!(refused.contains("virtagentd.toml"), "the refusal names no rule: {refused}");
    guest.host_ok(&["-u", "alice", "exec", "--", "id"]).map(|_| ())
}
