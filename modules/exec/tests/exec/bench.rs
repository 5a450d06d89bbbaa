//! A measurement, not a test: `cargo test -p virtagent-exec --release -- --ignored --nocapture bench`.

use std::time::Instant;

use crate::{argv, module, run};

#[tokio::test]
#[ignore = "a measurement"]
async fn bench_true() {
    let module = module();
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        let began = Instant::now();
        assert_eq!(run(&module, [("argv", argv(&["/bin/true"]))]).await.code(), Some(0));
        ours.push(began.elapsed());

        // Beside it the standard library's, blocking, without any of the promises: what the kernel alone costs.
        let began = Instant::now();
        #[allow(clippy::disallowed_methods, reason = "the measurement compares with it")]
        let output = std::process::Command::new("/bin/true").output().unwrap();
        assert!(output.status.success());
        plain.push(began.elapsed());
    }
    for (name, times) in [("exec.run", &mut ours), ("std::process", &mut plain)] {
        times.sort_unstable();
        println!("{name} of /bin/true: min {:?}, p50 {:?}, p99 {:?}", times[0], times[500], times[990]);
    }
}
