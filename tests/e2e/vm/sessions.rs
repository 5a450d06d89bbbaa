//! Sessions: who has one, how it begins, ends, is taken over, and comes back.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::guest::{Guest, ensure_says};

pub fn systemd_started_the_daemons_of_alice_and_bob(guest: &mut Guest) -> Result<()> {
    guest.wait_for_users(&["alice", "bob"])?;
    for (user, uid) in [("alice", 1000), ("bob", 1001)] {
        let session = guest.session(user)?.with_context(|| format!("{user} has no session"))?;
        ensure!(session["uid"] == uid, "{user} has another UID: {session}");
        let pid = guest.daemon(user)?.to_string();
        let unit = guest.inside_as(user, "systemctl --user show virtagent-user -p MainPID --value")?;
        ensure!(unit.trim() == pid, "the session of {user} is process {pid}, the unit's is {unit}");
    }
    // She logs in at tty1 some time after her manager is up.
    guest.0.wait("alice at the seat", |vm| {
        let listed = vm.host_json(&["users"])?.to_string();
        Ok(listed.contains("seat0").then_some(()))
    })
}

pub fn the_host_sees_events_of_sessions(guest: &mut Guest) -> Result<()> {
    let events = guest.background("events", &["--json", "events"])?;
    guest.0.wait("bob's session to be told of", |vm| {
        // Again and again: the host command may not have the channel yet.
        vm.inside_ok("runuser -u bob -- env XDG_RUNTIME_DIR=/run/user/1001 systemctl --user restart virtagent-user")?;
        let said = events.said()?;
        let told = |topic: &str| said.lines().any(|line| line.contains(topic) && line.contains("bob"));
        Ok((told("session.disconnected") && told("session.connected")).then_some(()))
    })?;
    drop(events);
    guest.wait_for_users(&["alice", "bob"])
}

pub fn no_session_comes_at_once_when_bobs_daemon_is_killed(guest: &mut Guest) -> Result<()> {
    // Nothing is to start it again before we have looked.
    let hold = "mkdir -p /run/systemd/user/virtagent-user.service.d && \
        printf '[Service]\\nRestart=no\\n' > /run/systemd/user/virtagent-user.service.d/test.conf";
    guest.inside_ok(hold)?;
    guest.inside_as("bob", "systemctl --user daemon-reload && systemctl --user stop virtagent-user.path")?;
    let pid = guest.daemon("bob")?;

    // One call is in flight, with a program in the guest.
    let mut sleeping = guest.background("sleep", &["-u", "bob", "exec", "--", "sleep", "1000"])?;
    guest.0.wait("bob's program", |vm| Ok((vm.inside("pgrep -u bob -x sleep")?.code == 0).then_some(())))?;
    guest.inside_ok(&format!("kill -9 {pid}"))?;
    let killed = Instant::now();
    let status = guest.0.wait("the end of the call in flight", |_| Ok(sleeping.child.try_wait()?))?;
    ensure!(!status.success(), "the call in flight succeeded: {}", sleeping.said()?);
    let told = killed.elapsed();
    ensure_says(&guest.host_refused(&["-u", "bob", "exec", "--", "id"])?, "session")?;
    let refused = killed.elapsed() - told;
    // Far below any deadline of a call, and far above what a busy emulated machine takes.
    let limit = Duration::from_secs(10);
    ensure!(told < limit && refused < limit, "told after {told:?}, refused after {refused:?}");
    ensure!(guest.session("bob")?.is_none(), "bob is still listed");
    guest.0.wait("bob's program to be gone", |vm| Ok((vm.inside("pgrep -u bob -x sleep")?.code == 1).then_some(())))?;

    guest.inside_ok("rm -r /run/systemd/user/virtagent-user.service.d")?;
    guest.inside_as(
        "bob",
        "systemctl --user daemon-reload && systemctl --user reset-failed; systemctl --user start virtagent-user.path",
    )?;
    guest.wait_for_users(&["alice", "bob"])
}

pub fn a_second_daemon_of_alice_takes_over_and_the_first_does_not_fight_back(guest: &mut Guest) -> Result<()> {
    let first = guest.daemon("alice")?;
    // Another runtime directory circumvents the lock.
    guest.inside_as(
        "alice",
        "mkdir -m 700 second && systemd-run --user --quiet --unit=second --setenv=XDG_RUNTIME_DIR=/home/alice/second \
         virtagentd --user-daemon",
    )?;
    guest.0.wait("the second daemon's session", |vm| {
        let listed = vm.host_json(&["users"])?;
        let sessions = listed.get("sessions").unwrap_or(&listed).as_array().cloned().unwrap_or_default();
        let pid =
            sessions.iter().find(|session| session["username"] == "alice").and_then(|session| session["pid"].as_i64());
        Ok(pid.is_some_and(|pid| pid != first).then_some(()))
    })?;
    let second = guest.daemon("alice")?;
    let unit = "systemctl --user show virtagent-user -p SubState -p ExecMainStatus --value | sort | tr '\\n' ' '";
    guest.0.wait("the first daemon to leave", |vm| {
        Ok((vm.inside(&format!("kill -0 {first}"))?.code != 0).then_some(()))
    })?;
    let state = guest.inside_as("alice", unit)?;
    ensure!(state.trim() == "150 exited", "the first daemon's unit is {state:?}");
    ensure!(
        guest.host_ok(&["-u", "alice", "exec", "--", "id", "-un"])?.trim() == "alice",
        "the second daemon does not work"
    );
    ensure!(guest.daemon("alice")? == second, "somebody took over from the second daemon");

    // Back to the unit's own.
    guest.inside_as("alice", "systemctl --user stop second && systemctl --user restart virtagent-user")?;
    guest.wait_for_users(&["alice", "bob"])
}

pub fn sessions_return_when_the_system_daemon_restarts(guest: &mut Guest) -> Result<()> {
    let (alice, bob) = (guest.daemon("alice")?, guest.daemon("bob")?);
    let boot = guest.host_json(&["call", "va.capabilities"])?;
    guest.inside_ok("systemctl restart virtagentd")?;
    guest.wait_for_users(&["alice", "bob"])?;
    ensure!(guest.daemon("alice")? == alice && guest.daemon("bob")? == bob, "user daemons were started anew");
    ensure!(
        guest.host_json(&["call", "va.capabilities"])?["boot_id"] == boot["boot_id"],
        "the guest seems to have rebooted"
    );
    ensure!(guest.host_ok(&["-u", "bob", "exec", "--", "id", "-un"])?.trim() == "bob", "bob's session does not work");
    Ok(())
}
