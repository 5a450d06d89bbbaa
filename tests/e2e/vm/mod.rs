//! The proof in a real virtual machine: Debian with systemd, virtagent from its packages, alice and bob with sessions.
//!
//! Each test boots the image of `cargo xtask image` once; emulated, that takes most of its time, so the long one goes
//! through the whole job in the order in which a host would.

mod audit_log;
mod guest;
mod machine;
mod package;
mod sessions;
mod work;

use std::time::Duration;

use anyhow::{Result, ensure};
use virtagent_tests::vm::Vm;

use self::guest::Guest;

#[test]
fn a_hypervisor_acts_in_a_guest_as_root_as_alice_and_as_bob_and_every_action_is_in_the_audit_log() -> Result<()> {
    let mut guest = Guest(Vm::boot_ready()?);
    sessions::systemd_started_the_daemons_of_alice_and_bob(&mut guest)?;

    work::a_program_runs_as_whom_the_call_names(&guest)?;
    work::sixty_four_mebibytes_go_each_way_with_equal_digests(&mut guest)?;
    work::a_terminal_is_opened_with_its_size_and_its_exit_code(&guest)?;
    work::a_users_program_calls_the_host_which_knows_who_it_is(&mut guest)?;
    work::a_user_narrows_the_policy_for_themselves(&mut guest)?;

    machine::power_is_planned_and_taken_back_in_every_encoding(&guest)?;
    machine::the_kernels_messages_and_the_logins_are_told_in_every_encoding(&guest)?;
    machine::nothing_wakes_while_the_host_is_away(&mut guest)?;

    sessions::the_host_sees_events_of_sessions(&mut guest)?;
    sessions::no_session_comes_at_once_when_bobs_daemon_is_killed(&mut guest)?;
    sessions::a_second_daemon_of_alice_takes_over_and_the_first_does_not_fight_back(&mut guest)?;
    sessions::sessions_return_when_the_system_daemon_restarts(&mut guest)?;

    audit_log::verifies_and_holds_every_call_of_this_test(&mut guest)?;

    guest.host_ok(&["power", "off"])?;
    let status = guest.wait_off()?;
    ensure!(status.success(), "QEMU ended with {status}");
    Ok(())
}

#[test]
fn an_idle_boot_reaches_the_agent_and_both_users_well_within_the_limit() -> Result<()> {
    let mut guest = Guest(Vm::boot(virtagent_tests::image::Image::current()?)?);
    let answered = guest.wait_ready()?;
    guest.wait_for_users(&["alice", "bob"])?;
    // Alone on two cores it is about 8 and 12 s.
    eprintln!(
        "the agent answered after {:.1} s, both sessions were there after {:.1} s",
        secs(answered),
        secs(guest.age())
    );
    let failed = guest.inside_ok("systemctl --failed --no-legend")?;
    ensure!(failed.trim().is_empty(), "units failed:\n{failed}");
    Ok(())
}

fn secs(duration: Duration) -> f32 {
    duration.as_secs_f32()
}
