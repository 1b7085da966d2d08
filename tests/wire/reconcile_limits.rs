//! Answers of SendPilot's API that must neither crash a run nor make a useless run look like a
//! success.

use serde_json::json;

use crate::support::receiver::{Receiver, assert_has};

#[tokio::test]
async fn survives_the_longest_retry_after() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    for status in [429, 503] {
        let forever = json!({ "status": status, "headers": { "Retry-After": u64::MAX.to_string() } });
        receiver.answers("/v1/campaigns", forever).await;
        let error = reconcile.fails().await;
        assert!(error.starts_with("SendPilot's API asked to wait until 20"), "{error}");
        receiver.api.clear().await.unwrap();
        receiver.end_pause().await;
        assert_has(&reconcile.run().await, json!({ "outcome": "complete" }));
    }
}
