//! `exec.run`: what goes in and what comes out.

use std::time::{Duration, Instant};

use agent_core::module::Level;
use agent_core::module::testing::Harness;
use agent_core::rpc::{FaultCode, Value};
use bytes::Bytes;

use crate::{Ran, argv, module, run, sh, soon, try_run};

#[tokio::test]
async fn a_programs_outputs_and_exit_code_come_back() {
    let ran = run(&module(), [("argv", sh("echo out; echo err >&2; exit 7"))]).await;
    assert_eq!((ran.code(), ran.signal()), (Some(7), None));
    assert_eq!((ran.stdout().as_str(), ran.stderr().as_str()), ("out\n", "err\n"));
    assert!(!ran.flag("truncated") && !ran.flag("timed_out"));
    assert!(ran.0.get("pid").unwrap().as_int().unwrap() > 1);
}

#[tokio::test]
async fn parameters_may_come_by_position() {
    let ran = Ran(module().call("exec.run", vec![argv(&["echo", "a b", "c"])]).await.unwrap());
    assert_eq!(ran.stdout(), "a b c\n");
}

#[tokio::test]
async fn a_signal_is_named() {
    for (number, name) in [(9, "SIGKILL"), (15, "SIGTERM"), (6, "SIGABRT"), (36, "SIGRTMIN+2")] {
        let ran = run(&module(), [("argv", sh(&format!("kill -{number} $$")))]).await;
        assert_eq!((ran.code(), ran.signal()), (None, Some(name)));
    }
}

#[tokio::test]
async fn ten_mebibytes_go_through_cat_while_only_the_first_of_them_are_kept() {
    let input: Vec<u8> = (0..10 << 20).map(|i: u32| (i % 251) as u8).collect();
    let params =
        [("argv", argv(&["cat"])), ("stdin", Bytes::from(input.clone()).into()), ("output_limit", 1000.into())];
    let ran = soon(run(&module(), params)).await;
    assert_eq!(ran.code(), Some(0));
    assert!(ran.flag("truncated"));
    assert_eq!(ran.bytes("stdout"), &input[..1000]);

    let counted = [("argv", sh("wc -c")), ("stdin", Bytes::from(input).into())];
    assert!(run(&module(), counted).await.stdout().starts_with("10485760\n"));
}

#[tokio::test]
async fn input_that_a_program_does_not_read_does_no_harm() {
    let input = Bytes::from(vec![b'x'; 4 << 20]);
    let ran = soon(run(&module(), [("argv", sh("exec <&-; echo done")), ("stdin", input.into())])).await;
    assert_eq!((ran.code(), ran.stdout().as_str()), (Some(0), "done\n"));
}

#[tokio::test]
async fn without_input_a_program_reads_nothing() {
    let ran = soon(run(&module(), [("argv", argv(&["cat"]))])).await;
    assert_eq!((ran.code(), ran.stdout().as_str()), (Some(0), ""));
    assert_eq!(run(&module(), [("argv", argv(&["readlink", "/proc/self/fd/0"]))]).await.stdout(), "/dev/null\n");
}

#[tokio::test]
async fn a_flood_of_output_is_cut_off_and_does_not_block_the_program() {
    let flood = sh("head -c 20000000 /dev/zero; head -c 3000000 /dev/zero >&2; exit 3");
    let ran = soon(run(&module(), [("argv", flood), ("output_limit", 4096.into())])).await;
    assert_eq!(ran.code(), Some(3));
    assert_eq!((ran.bytes("stdout").len(), ran.bytes("stderr").len()), (4096, 4096));
    assert!(ran.flag("truncated"));
}

#[tokio::test]
async fn output_of_exactly_the_limit_is_whole() {
    let ran = run(&module(), [("argv", sh("printf 12345678")), ("output_limit", 8.into())]).await;
    assert_eq!(ran.stdout(), "12345678");
    assert!(!ran.flag("truncated"));
}

#[tokio::test]
async fn a_limit_above_the_settings_is_refused_by_name_and_value() {
    let fault = try_run(&module(), [("argv", sh(":")), ("output_limit", 99_999_999.into())]).await.err().unwrap();
    assert!(fault.is(FaultCode::LimitExceeded) && fault.message.contains("99999999"), "{fault}");
    assert!(fault.message.contains("768000") && fault.message.contains("max_output"), "{fault}");
}

#[tokio::test]
async fn a_script_leaves_its_standard_input_free_and_its_file_goes_with_it() {
    let script = "echo \"$0\"; ls -l \"$0\" | cut -c1-10; read line; echo \"got $line\"";
    let ran = run(&module(), [("script", script.into()), ("stdin", Bytes::from("hello\n").into())]).await;
    let lines: Vec<_> = ran.stdout().lines().map(str::to_owned).collect();
    assert_eq!(lines[1..], ["-rw-------", "got hello"], "{}", ran.stderr());
    crate::until("the script's file is removed", || !std::path::Path::new(&lines[0]).exists()).await;
}

#[tokio::test]
async fn a_script_may_name_its_interpreter() {
    let interpreter = argv(&["sh", "-eu"]);
    let ran = run(&module(), [("script", "false; echo unreached".into()), ("interpreter", interpreter)]).await;
    assert_eq!((ran.code(), ran.stdout().as_str()), (Some(1), ""));

    let python =
        [("script", "import sys\nprint(sys.stdin.read().upper())".into()), ("interpreter", argv(&["python3"]))];
    let params = [python[0].clone(), python[1].clone(), ("stdin", Bytes::from("abc").into())];
    match try_run(&module(), params).await {
        Ok(ran) => assert_eq!(ran.stdout(), "ABC\n", "{}", ran.stderr()),
        Err(fault) => assert!(fault.message.contains("not in PATH"), "{fault}"),
    }
}

#[tokio::test]
async fn exactly_one_of_argv_and_script_is_wanted() {
    let script = || ("script", Value::from(":"));
    let faults = [
        try_run(&module(), []).await,
        try_run(&module(), [("argv", sh(":")), script()]).await,
        try_run(&module(), [("argv", Value::Array(vec![]))]).await,
        try_run(&module(), [("argv", argv(&[""]))]).await,
        try_run(&module(), [("argv", argv(&["sh", "a\0b"]))]).await,
        try_run(&module(), [("argv", sh(":")), ("interpreter", argv(&["sh"]))]).await,
        try_run(&module(), [("argv", sh(":")), ("env", Value::object([("A=B", "c".into())]))]).await,
        try_run(&module(), [("argv", sh(":")), ("comand", "typo".into())]).await,
    ];
    for fault in faults {
        let fault = fault.err().unwrap();
        assert!(fault.is(FaultCode::InvalidParams), "{fault}");
    }
}

#[tokio::test]
async fn a_program_that_cannot_start_is_a_fault_that_names_it_and_the_reason() {
    let scratch = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str, mode: u32| {
        use std::os::unix::fs::PermissionsExt;
        let path = scratch.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let cases = [
        ("no-such-program-anywhere".to_owned(), "not in PATH", "ENOENT"),
        ("/nowhere/program".to_owned(), "/nowhere/program", "ENOENT"),
        (file("plain", "x", 0o644), "plain", "EACCES"),
        (file("orphan", "#!/nowhere/interpreter\n", 0o755), "interpreter", "ENOENT"),
        (file("text", "echo hi\n", 0o755), "#!", "ENOEXEC"),
        ("/etc".to_owned(), "/etc", "EACCES"),
    ];
    for (program, word, errno) in cases {
        let fault = try_run(&module(), [("argv", argv(&[&program]))]).await.err().unwrap();
        assert!(fault.is(FaultCode::Os), "{fault}");
        assert!(fault.message.contains(&program) && fault.message.contains(word), "{fault}");
        assert_eq!(fault.data.as_ref().unwrap().get("name").unwrap().as_str(), Some(errno), "{fault}");
    }
}

#[tokio::test]
async fn a_directory_that_cannot_be_entered_is_named() {
    let fault = try_run(&module(), [("argv", sh(":")), ("cwd", "/no/such".into())]).await.err().unwrap();
    assert!(fault.is(FaultCode::Os) && fault.message.contains("/no/such"), "{fault}");
}

#[tokio::test]
async fn a_program_starts_in_the_root_at_system_level_and_at_home_at_user_level() {
    let home = tempfile::tempdir().unwrap();
    let home = home.path().canonicalize().unwrap();
    std::fs::create_dir(home.join("sub")).unwrap();
    let pwd = || ("argv", argv(&["pwd"]));
    assert_eq!(run(&module(), [pwd()]).await.stdout(), "/\n");
    assert_eq!(run(&module(), [pwd(), ("cwd", "usr".into())]).await.stdout(), "/usr\n");

    let user = Harness::<virtagent_exec::Exec>::new(Level::User, &home, toml::Table::new());
    let shown = home.to_str().unwrap();
    assert_eq!(run(&user, [pwd()]).await.stdout(), format!("{shown}\n"));
    assert_eq!(run(&user, [pwd(), ("cwd", "sub".into())]).await.stdout(), format!("{shown}/sub\n"));
    assert_eq!(run(&user, [pwd(), ("cwd", "~/sub".into())]).await.stdout(), format!("{shown}/sub\n"));

    let homeless = Harness::<virtagent_exec::Exec>::new(Level::User, "/no/home", toml::Table::new());
    assert_eq!(run(&homeless, [pwd()]).await.stdout(), "/\n");
}

#[tokio::test]
async fn the_environment_is_clean_and_takes_additions() {
    let env = Value::object([("GREETING", "hi there".into()), ("LANG", "xx".into())]);
    let ran = run(&module(), [("argv", argv(&["env"])), ("env", env.clone())]).await;
    let out = ran.stdout();
    let mut names: Vec<_> = out.lines().map(|line| line.split('=').next().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["GREETING", "HOME", "LANG", "LOGNAME", "PATH", "SHELL", "USER"]);
    assert!(out.contains("GREETING=hi there\n") && out.contains("LANG=xx\n") && out.contains("HOME=/root\n"), "{out}");

    let bare = run(&module(), [("argv", argv(&["env"])), ("env", env), ("clear_env", true.into())]).await;
    assert_eq!(bare.stdout(), "GREETING=hi there\nLANG=xx\n");
}

#[tokio::test]
async fn the_program_is_searched_in_the_path_that_it_gets() {
    let bin = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/bin/echo", bin.path().join("only-here")).unwrap();
    let env = Value::object([("PATH", format!("/nowhere::{}", bin.path().display()).into())]);
    let ran = run(&module(), [("argv", argv(&["only-here", "found"])), ("env", env)]).await;
    assert_eq!(ran.stdout(), "found\n");
}

#[tokio::test]
async fn a_program_inherits_no_descriptor_but_its_three() {
    let leak = std::fs::File::open("/dev/null").unwrap();
    nix::fcntl::fcntl(&leak, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
    let ran = run(&module(), [("argv", argv(&["ls", "/proc/self/fd"])), ("stdin", Bytes::from("x").into())]).await;
    // The fourth is the directory that ls reads.
    assert_eq!(ran.stdout(), "0\n1\n2\n3\n");
}

#[tokio::test]
async fn a_program_starts_with_default_signals_a_usual_umask_and_a_session_of_its_own() {
    let script = "sed -n '/^SigBlk/p;/^SigIgn/p' /proc/self/status; umask; cut -d' ' -f1,5,6,7 /proc/$$/stat; echo $$";
    let ran = run(&module(), [("argv", sh(script))]).await;
    let out = ran.stdout();
    let zero = "0000000000000000";
    assert!(out.starts_with(&format!("SigBlk:\t{zero}\nSigIgn:\t{zero}\n0022\n")), "{out}");
    let pid = ran.0.get("pid").unwrap().as_int().unwrap();
    assert!(out.ends_with(&format!("{pid} {pid} {pid} 0\n{pid}\n")), "{out}");
}

#[tokio::test]
async fn a_timeout_ends_the_program_and_answers_what_it_printed() {
    let began = Instant::now();
    let ran = soon(run(&module(), [("argv", sh("echo before; exec sleep 600")), ("timeout_ms", 150.into())])).await;
    assert!(ran.flag("timed_out"));
    assert_eq!((ran.signal(), ran.stdout().as_str()), (Some("SIGTERM"), "before\n"));
    assert!(began.elapsed() >= Duration::from_millis(150));
}

#[tokio::test]
async fn a_program_that_ignores_sigterm_is_killed_after_the_grace() {
    let script = "trap 'echo ignored' TERM; while :; do sleep 0.02; done";
    let ran = soon(run(&module(), [("argv", sh(script)), ("timeout_ms", 100.into())])).await;
    assert!(ran.flag("timed_out"));
    assert_eq!(ran.signal(), Some("SIGKILL"));
    assert!(ran.stdout().contains("ignored"));
    assert!(ran.0.get("duration_ms").unwrap().as_int().unwrap() >= 400);
}

#[tokio::test]
async fn two_hundred_programs_run_at_once() {
    let module = module();
    let mut calls = Vec::new();
    for number in 0..200i64 {
        let module = &module;
        calls.push(async move {
            let ran = run(module, [("argv", argv(&["sh", "-c", "exit $0", &(number % 100).to_string()]))]).await;
            assert_eq!(ran.code(), Some(number % 100));
        });
    }
    soon(join_all(calls)).await;
}

async fn join_all<F: Future<Output = ()>>(futures: Vec<F>) {
    let mut futures: Vec<_> = futures.into_iter().map(Box::pin).collect();
    std::future::poll_fn(|cx| {
        futures.retain_mut(|future| future.as_mut().poll(cx).is_pending());
        if futures.is_empty() { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
}
