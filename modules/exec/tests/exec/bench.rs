//! A measurement, not a test: `cargo test -p virtagent-exec --release -- --ignored --nocapture bench`.

use std::time::Instant;

use crate::{argv, module, run};

#[tokio::test]
#[ignore = "a measurement"]
async fn bench_true() {
    let module = module();
    let mut times = Vec::new();
    for _ in 0..1000 {
        let began = Instant::now();
        assert_eq!(run(&module, [("argv", argv(&["/bin/true"]))]).await.code(), Some(0));
        times.push(began.elapsed());
    }
    times.sort_unstable();
    println!("exec.run /bin/true: p50 {:?}, p99 {:?}", times[500], times[990]);
}
