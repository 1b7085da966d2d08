//! Answers of SendPilot's API that must neither crash a run nor make a useless run look like a
//! success.

use opportunity_alerts::reconcile::reader::MAX_REQUESTS;
use serde_json::{Value, json};

use crate::support::receiver::{Receiver, assert_has, lead_of};

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

/// Returns a page of a list that never ends.
fn endless(name: &str, entry: Value) -> Value {
    json!({ "body": { name: [entry], "pagination": { "limit": 1 } } })
}

#[tokio::test]
async fn a_run_that_reads_no_lead_fails() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.take_requests().await;
    receiver.answers("/v1/campaigns", endless("campaigns", json!({ "id": "camp_1" }))).await;
    for _ in 0..2 {
        let error = reconcile.fails().await;
        assert!(error.starts_with("no list of leads could be read in the run's time"), "{error}");
        assert_eq!(receiver.take_requests().await.len(), MAX_REQUESTS);
    }
    receiver.api.clear().await.unwrap();
    assert_has(&reconcile.run().await, json!({ "outcome": "complete" }));
}

/// A sweep of several runs, in which one list fails. Otherwise, the other runs would hide that no
/// sweep is ever complete.
#[tokio::test]
async fn every_run_after_a_failed_list_fails() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.api.put_campaign("camp_2", "x").await.unwrap();
    receiver.answers("/v1/leads?campaignId=camp_1", json!({ "status": 500 })).await;
    receiver.answers("/v1/leads?campaignId=camp_2", endless("leads", lead_of("lead_1", "camp_2", 30))).await;
    // The second run tries the failed page again.
    for _ in 0..2 {
        let error = reconcile.fails().await;
        assert!(error.starts_with("the leads of the campaign camp_1 could not be read"), "{error}");
    }
    for alerted in [1, 0] {
        let error = reconcile.fails().await;
        assert!(error.starts_with("not every list of leads was read, because in an earlier run the leads"), "{error}");
        let counts = format!("the run found {alerted} missed leads and published {alerted} alerts");
        assert!(error.ends_with(&counts), "{error}");
    }
    assert_eq!(receiver.progress().await["sweep"]["next"]["page"], 2 * (MAX_REQUESTS - 1), "the runs should continue");
}

#[tokio::test]
async fn a_list_without_ids_is_not_empty() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    for (path, name, what) in [
        ("/v1/campaigns", "campaigns", "the list of campaigns could not be read"),
        ("/v1/leads", "leads", "the leads of the campaign camp_1 could not be read"),
    ] {
        let renamed = json!({ "leadUuid": "lead_1", "status": "OPPORTUNITY" });
        receiver.answers(path, json!({ "body": { name: [renamed] } })).await;
        let error = reconcile.fails().await;
        let expected = format!("{what}: SendPilot's API did not answer with the documented JSON");
        assert!(error.starts_with(&expected), "{error}");
        receiver.api.clear().await.unwrap();
    }
}
