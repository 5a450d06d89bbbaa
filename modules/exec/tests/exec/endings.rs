//! Whatever a program leaves behind ends with its call, its caller or the daemon.

use std::time::{Duration, Instant};

use agent_core::module::OwnerId;
use agent_core::rpc::{FaultCode, Value};

use crate::{argv, lives, module, pid_in, run, sh, soon, start, until};

/// A shell that starts a child which ignores SIGTERM, writes its number to `file`, and waits.
fn family(file: &std::path::Path) -> Value {
    let file = file.display();
    sh(&format!("sh -c 'trap \"\" TERM HUP; echo $$ >{file}; while :; do sleep 0.02; done' & wait"))
}

#[tokio::test]
async fn a_timeout_ends_grandchildren_too() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pid");
    let ran = soon(run(&module(), [("argv", family(&file)), ("timeout_ms", 300.into())])).await;
    assert!(ran.flag("timed_out"));
    let grandchild = pid_in(&file).await;
    until("the grandchild ends", || !lives(grandchild)).await;
}

#[tokio::test]
async fn a_background_child_does_not_hold_the_call_and_ends_with_it() {
    let began = Instant::now();
    let ran = soon(run(&module(), [("argv", sh("sleep 600 & echo $!"))])).await;
    assert_eq!(ran.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let child: i64 = ran.stdout().trim().parse().unwrap();
    until("the background child ends", || !lives(child)).await;
}

#[tokio::test]
async fn a_background_child_that_lets_go_of_the_outputs_ends_too() {
    let ran = soon(run(&module(), [("argv", sh("sleep 600 >/dev/null 2>&1 & echo $!"))])).await;
    let child: i64 = ran.stdout().trim().parse().unwrap();
    until("the background child ends", || !lives(child)).await;
}

#[tokio::test]
async fn a_background_flood_does_not_hold_the_call() {
    let ran = soon(run(&module(), [("argv", sh("(trap '' TERM; yes) & exit 3"))])).await;
    assert_eq!(ran.code(), Some(3));
}

#[tokio::test]
async fn a_process_that_left_the_group_keeps_the_outputs_but_does_not_hold_the_call() {
    let ran = soon(run(&module(), [("argv", sh("setsid sleep 30 & echo $!; sleep 0.1"))])).await;
    assert_eq!(ran.code(), Some(0));
    assert!(!ran.stdout().is_empty());
}

#[tokio::test]
async fn what_the_group_still_has_to_say_is_heard() {
    let ran = soon(run(&module(), [("argv", sh("(sleep 0.1; echo late) & echo early"))])).await;
    assert_eq!(ran.stdout(), "early\nlate\n");
}

#[tokio::test]
async fn a_cancelled_call_ends_its_whole_group() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pid");
    let module = module();
    let call = module.call_named("exec.run", [("argv", family(&file))]);
    let grandchild = tokio::select! {
        _ = call => panic!("it does not end by itself"),
        grandchild = pid_in(&file) => grandchild,
    };
    until("the grandchild ends", || !lives(grandchild)).await;
}

#[tokio::test]
async fn a_call_that_is_cancelled_while_its_program_starts_leaves_nothing() {
    let module = module();
    let scratch = tempfile::tempdir().unwrap();
    for delay in 0..40 {
        let file = scratch.path().join(delay.to_string());
        let call =
            module.call_named("exec.run", [("argv", sh(&format!("echo $$ >{}; exec sleep 600", file.display())))]);
        let _ = tokio::time::timeout(Duration::from_micros(delay * 50), call).await;
    }
    soon(module.stop()).await;
    for delay in 0..40 {
        let text = std::fs::read_to_string(scratch.path().join(delay.to_string())).unwrap_or_default();
        if let Ok(pid) = text.trim().parse() {
            until("the program ends", || !lives(pid)).await;
        }
    }
}

#[tokio::test]
async fn an_owner_that_goes_takes_its_programs_and_nobody_elses() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    let module = module();
    module.call_as(OwnerId(1), "exec.start", vec![family(&one)]).await.unwrap();
    let running = module.call_as(OwnerId(1), "exec.run", vec![family(&two)]);
    let other = module.call_as(OwnerId(2), "exec.start", vec![argv(&["sleep", "600"])]).await.unwrap();
    let gone = async {
        let pids = (pid_in(&one).await, pid_in(&two).await);
        module.owner_gone(OwnerId(1));
        pids
    };
    let (ran, (first, second)) = tokio::join!(soon(running), gone);
    assert!(ran.unwrap_err().is(FaultCode::Cancelled));
    until("both families end", || !lives(first) && !lives(second)).await;
    assert!(lives(other.get("pid").unwrap().as_int().unwrap()));
}

#[tokio::test]
async fn an_owner_that_goes_while_its_host_answers_nothing_ends_its_program() {
    let module = module();
    module.host_holds();
    let (_, pid) = start(&module, [("argv", argv(&["yes"]))]).await;
    module.owner_gone(OwnerId(1));
    until("the program ends", || !lives(pid)).await;
    soon(module.stop()).await;
}

#[tokio::test]
async fn the_daemons_stop_ends_all_programs_and_waits_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
    let module = module();
    let (_, leader) = start(&module, [("argv", family(&one))]).await;
    let terminal = Value::object([("rows", 24.into()), ("cols", 80.into())]);
    start(&module, [("argv", family(&two)), ("pty", terminal)]).await;
    let pids = [leader, pid_in(&one).await, pid_in(&two).await];
    soon(module.stop()).await;
    for pid in pids {
        until("the program ends", || !lives(pid)).await;
    }
    let late = module.call("exec.run", vec![argv(&["sleep", "600"])]);
    assert!(soon(late).await.is_err());
}

#[tokio::test]
async fn a_module_that_is_dropped_ends_its_programs() {
    // As after a panic, before it is built again.
    let module = module();
    let (_, pid) = start(&module, [("argv", argv(&["sleep", "600"]))]).await;
    drop(module);
    until("the program ends", || !lives(pid)).await;
}

#[test]
fn an_event_loop_that_ends_takes_its_programs_but_the_end_of_the_thread_that_ran_it_does_not_matter() {
    let event_loop = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // The kernel binds a program to the thread that made it, which must not be the caller's.
    let elsewhere = std::thread::spawn(move || {
        let runtime = event_loop();
        let module = module();
        let (_, pid) = runtime.block_on(start(&module, [("argv", argv(&["sleep", "600"]))]));
        std::mem::forget(module);
        (runtime, pid)
    });
    let (runtime, pid) = elsewhere.join().unwrap();
    assert_eq!(runtime.block_on(run(&module(), [("argv", argv(&["true"]))])).code(), Some(0));
    assert!(lives(pid));
    drop(runtime);
    event_loop().block_on(until("the program ends with its event loop", || !lives(pid)));
}

#[tokio::test]
async fn a_killed_daemon_takes_its_program() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("pid");
    #[allow(clippy::disallowed_methods, reason = "the test needs a daemon of its own to kill")]
    let mut daemon = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "endings::the_daemon_that_is_killed", "--ignored"])
        .env("EXEC_TEST_PID_FILE", &file)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let pid = pid_in(&file).await;
    assert!(lives(pid));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    until("the program ends", || !lives(pid)).await;
}

#[tokio::test]
#[ignore = "run by a_killed_daemon_takes_its_program"]
async fn the_daemon_that_is_killed() {
    let Some(file) = std::env::var_os("EXEC_TEST_PID_FILE") else {
        return;
    };
    let script = format!("trap '' TERM HUP PIPE; echo $$ >{}; while :; do sleep 0.05; done", file.display());
    run(&module(), [("argv", sh(&script))]).await;
}
