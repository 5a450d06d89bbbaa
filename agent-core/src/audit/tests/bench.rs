//! What a record costs: `cargo test --release -p agent-core audit_cost -- --ignored --nocapture`.

use std::time::Instant;

use futures_util::future::join_all;

use super::*;

async fn open_and_close(audit: &Audit, id: u64, method: &str) {
    let recorded = audit.open(opening(id, method, Some("alice"))).await.unwrap();
    audit.close(recorded, closing()).await;
}

#[tokio::test]
#[ignore = "prints figures"]
async fn audit_cost() {
    const CALLS: u64 = 50_000;
    for sync in [false, true] {
        for concurrency in [1, 64] {
            let calls = if sync { CALLS / 50 } else { CALLS };
            let place = Place::new();
            let audit = Audit::start(&AuditSettings { sync, rotate_size: 0, ..place.settings() }).unwrap();
            let began = Instant::now();
            for batch in 0..calls / concurrency {
                join_all((0..concurrency).map(|n| open_and_close(&audit, batch * concurrency + n, "exec.run"))).await;
            }
            let micros = began.elapsed().as_secs_f64() * 1e6 / calls as f64;
            audit.stop().await;
            println!("sync {sync}, {concurrency} at a time: {micros:.2} µs for a call's two records");
        }
    }
    let place = Place::new();
    let audit = place.start();
    let recorded: Vec<_> = (0..CALLS).map(|id| audit.open(opening(id, "va.ping", Some("alice")))).collect();
    let recorded = join_all(recorded).await;
    let closings: Vec<_> = (0..CALLS).map(|_| closing()).collect();
    let began = Instant::now();
    for (recorded, closing) in recorded.into_iter().zip(closings) {
        audit.close(recorded.unwrap(), closing).await;
    }
    println!("counted: {:.3} µs for a call", began.elapsed().as_secs_f64() * 1e6 / CALLS as f64);
    audit.stop().await;
    let began = Instant::now();
    let report = sound(&place.log());
    println!("verify: {} records, {:?}", report.records, began.elapsed());
}
