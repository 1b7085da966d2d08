//! The reconciliation. It alerts the leads whose webhook never came, each once, and no others.
#![allow(clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::support::aws::{Call, Fault};
use crate::support::lambda::{Lambda, environment};
use crate::support::receiver::{
    Receiver, TIMEOUT, assert_has, event_of, failure, lead_of, lines_of, missed_webhooks, now, until,
};
use crate::support::requests::{change, reply, signed_now};
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use futures_util::future::{join, join_all};
use opportunity_alerts::delivery::ledger::KNOWN_RETENTION;
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::message::key::LockKey;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Sends an event to the webhook function, and returns the outcome.
async fn outcome(webhook: &mut Lambda, payload: &Value) -> String {
    webhook.answer(payload).await.1["outcome"].as_str().unwrap().to_owned()
}

/// Returns `count` names.
fn names(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number:03}")).collect()
}

#[tokio::test]
async fn finds_a_missed_lead_and_debounces_its_late_webhook() {
    let receiver = Receiver::new().await;
    for lead in names("lead_old_", 300) {
        receiver.opportunity(&lead, 30).await;
    }
    let mut reconcile = receiver.reconcile().await;
    assert_has(
        &reconcile.run().await,
        json!({ "outcome": "complete", "leads": 300, "baseline": 300, "missed": 0, "alerted": 0, "waiting": 0 }),
    );
    assert_eq!(receiver.known().await.len(), 300);
    assert_eq!(receiver.alerted(), [""; 0]);

    // The webhook of one lead never comes.
    receiver.opportunity("lead_1", 30).await;
    let since = receiver.api_updated_at("lead_1").await;
    let found = reconcile.run().await;
    assert_has(&found, json!({ "leads": 301, "baseline": 0, "missed": 1, "alerted": 1, "pending": 0, "arrived": 0 }));
    assert_eq!(found["missedSince"].as_str().unwrap()[..19], since[..19]);
    let alerts = receiver.alerts();
    let [alert] = &alerts[..] else { panic!("{alerts:?}") };
    assert_eq!(alert["time"], since);
    assert_has(
        &alert["data"],
        json!({
            "leadId": "lead_1", "campaignId": "camp_1", "campaignName": "Autumn in Flanders", "newStatus": "OPPORTUNITY",
            "foundBy": "reconciliation", "previousStatus": null, "changedBy": null,
            "linkedinUrl": "https://www.linkedin.com/in/annegret",
        }),
    );
    assert_has(&alert["data"]["lead"], json!({ "firstName": "Annegret", "company": "Ferncliff Freight" }));

    // The webhook comes late, twice, and in two forms.
    let mut webhook = receiver.webhook().await;
    assert_eq!(outcome(&mut webhook, &event_of("evt_1", "lead_1", 30)).await, "debounced");
    assert_eq!(outcome(&mut webhook, &event_of("evt_1", "lead_1", 30)).await, "duplicate");
    assert_eq!(outcome(&mut webhook, &event_of("evt_2", "lead_1", 31)).await, "debounced");
    assert_eq!(receiver.alerts().len(), 1);
    let key = "ws_abc123xyz#evt_1#alert";
    let rows = receiver.world.dynamodb.rows().await;
    let row = rows.iter().find(|row| row["deliveryId"] == S(key.into())).unwrap();
    assert_eq!(row["state"], S("DEBOUNCED".into()));
    let holder = row["debouncedBy"].as_s().unwrap();
    assert!(holder.starts_with("#reconciliation_") && holder.ends_with("#alert"), "{holder}");
    let holder = rows.iter().find(|row| row["deliveryId"] == S(holder.clone())).unwrap();
    assert_eq!(holder["state"], S("PUBLISHED".into()));

    // The lead comes back to the status later.
    assert_eq!(outcome(&mut webhook, &event_of("evt_3", "lead_1", 5)).await, "alerted");
    // The older webhook still reports nothing new.
    assert_eq!(outcome(&mut webhook, &event_of("evt_4", "lead_1", 30)).await, "debounced");
    // Both leads are touched.
    receiver.opportunity("lead_1", 25).await;
    receiver.opportunity("lead_old_001", 25).await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 301, "missed": 0, "waiting": 0 }));
    assert_eq!(receiver.alerted(), ["lead_1"; 2]);

    let lines = reconcile.lines().await;
    assert!(missed_webhooks(&lines) == 1.0, "{lines:?}");
    let runs = lines_of(&lines, "reconcile");
    let levels: Vec<_> = runs.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["INFO", "WARN", "INFO"]);
    assert_has(&runs[1], json!({ "outcome": "complete", "missed": 1, "alerted": 1, "failure": null, "dryRun": null }));
    assert!(runs[1]["durationMs"].is_u64(), "{}", runs[1]);
    let deliveries = lines_of(&lines, "delivery");
    assert_eq!(deliveries.len(), 1, "{deliveries:?}");
    assert_has(&deliveries[0], json!({ "deliveryId": holder["deliveryId"].as_s().unwrap() }));
}

impl Receiver {
    /// Returns the lead's `updatedAt`, as an alert writes it.
    async fn api_updated_at(&self, lead: &str) -> String {
        let http = reqwest::Client::new();
        let get = http.get(format!("{}/v1/leads/{lead}", self.api.url()));
        let answer = get.header("x-api-key", testkit::sendpilot_api::KEY).send().await.unwrap();
        let lead: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
        lead["updatedAt"].as_str().unwrap().to_owned()
    }
}

/// Runs the reconciliation until no other run is in progress.
async fn until_complete(receiver: &Receiver) {
    let mut reconcile = receiver.reconcile().await;
    until(async || match reconcile.run().await["outcome"].as_str().unwrap() {
        "complete" => true,
        "in_progress" => false,
        other => panic!("{other}"),
    })
    .await;
}

/// Webhooks and two runs at the same time alert each of 50 leads once.
#[tokio::test]
async fn a_race_of_fifty_leads_alerts_each_once() {
    let (receiver, _) = Receiver::with_baseline().await;
    let leads = names("lead_", 50);
    for lead in &leads {
        receiver.opportunity(lead, 30).await;
    }
    let receiver = &receiver;
    let late = leads.chunks(10).map(async |leads| {
        let mut webhook = receiver.webhook().await;
        let mut outcomes = Vec::new();
        for lead in leads {
            outcomes.push(outcome(&mut webhook, &event_of(&format!("evt_{lead}"), lead, 30)).await);
        }
        outcomes
    });
    let (late, _) = join(join_all(late), join(until_complete(receiver), until_complete(receiver))).await;
    let mut outcomes = BTreeMap::new();
    for outcome in late.into_iter().flatten() {
        *outcomes.entry(outcome).or_insert(0) += 1;
    }
    assert_eq!(receiver.alerted(), leads);
    assert_eq!(outcomes.values().sum::<i32>(), 50);
    assert!(outcomes.keys().all(|outcome| ["alerted", "debounced"].contains(&outcome.as_str())), "{outcomes:?}");
    let found = receiver.alerts().iter().filter(|alert| alert["data"]["foundBy"] == "reconciliation").count();
    assert_eq!(outcomes.get("alerted").copied().unwrap_or_default(), 50 - i32::try_from(found).unwrap());
    assert!(receiver.world.dynamodb.pending().await.is_empty());
    assert_eq!(receiver.known().await.len(), 50);
}

#[tokio::test]
async fn fifty_leads_one_way_after_the_other_alert_once() {
    for runs_first in [false, true] {
        let (receiver, mut reconcile) = Receiver::with_baseline().await;
        let leads = names("lead_", 50);
        for lead in &leads {
            receiver.opportunity(lead, 30).await;
        }
        let mut webhook = receiver.webhook().await;
        if runs_first {
            assert_has(&reconcile.run().await, json!({ "missed": 50, "alerted": 50 }));
        }
        for lead in &leads {
            let expected = if runs_first { "debounced" } else { "alerted" };
            assert_eq!(outcome(&mut webhook, &event_of(&format!("evt_{lead}"), lead, 30)).await, expected);
        }
        assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 50, "missed": 0 }));
        assert_eq!(receiver.alerted(), leads, "{runs_first}");
        assert!(receiver.world.dynamodb.pending().await.is_empty());
    }
}

/// A webhook's attempt and a run's attempt meet at each step. The one that takes the lock first
/// alerts.
#[tokio::test]
async fn of_two_attempts_at_once_the_one_with_the_lock_alerts() {
    join_all([("claim", false), ("lock", false), ("claim", true), ("lock", true)].map(meet)).await;
}

/// Holds one attempt after this call, while the other one does everything.
async fn meet((held, holds_the_run): (&str, bool)) {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    let mut webhook = receiver.webhook().await;
    let event = event_of("evt_1", "lead_1", 30);
    // The call takes effect, but its answer never arrives. The ledger asks again one second later.
    receiver.world.aws.next(held, Fault::HeldAfter);
    let is_locked = held == "lock";
    if holds_the_run {
        reconcile.function.begin(&json!({})).await;
        receiver.world.aws.held().await;
        assert_eq!(outcome(&mut webhook, &event).await, if is_locked { "debounced" } else { "alerted" });
        let report = reconcile.function.said().await;
        let (missed, arrived) = if is_locked { (1, 0) } else { (0, 1) };
        assert_has(&report, json!({ "missed": missed, "alerted": missed, "arrived": arrived }));
    } else {
        webhook.begin(&event).await;
        receiver.world.aws.held().await;
        let missed = if is_locked { 0 } else { 1 };
        assert_has(&reconcile.run().await, json!({ "missed": missed, "alerted": missed, "arrived": 0 }));
        let body: Value = serde_json::from_str(webhook.said().await["body"].as_str().unwrap()).unwrap();
        assert_eq!(body["outcome"], if is_locked { "alerted" } else { "debounced" });
    }
    assert_eq!(receiver.alerted(), ["lead_1"], "{held}, {holds_the_run}");
    assert!(receiver.world.dynamodb.pending().await.is_empty());
}

#[tokio::test]
async fn a_lead_waits_for_its_webhook_for_twenty_minutes() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    for (lead, minutes) in [("lead_0", 0), ("lead_5", 5), ("lead_19", 19), ("lead_21", 21), ("lead_60", 60)] {
        receiver.opportunity(lead, minutes).await;
    }
    assert_has(&reconcile.run().await, json!({ "leads": 5, "waiting": 3, "missed": 2, "alerted": 2 }));
    assert_eq!(receiver.alerted(), ["lead_21", "lead_60"]);
    // One webhook comes, and one does not.
    let mut webhook = receiver.webhook().await;
    assert_eq!(outcome(&mut webhook, &event_of("evt_1", "lead_5", 5)).await, "alerted");
    assert_has(&reconcile.run().await, json!({ "leads": 5, "waiting": 2, "missed": 0 }));
    receiver.opportunity("lead_5", 21).await;
    receiver.opportunity("lead_19", 21).await;
    assert_has(&reconcile.run().await, json!({ "leads": 5, "waiting": 1, "missed": 1, "alerted": 1 }));
    assert_eq!(receiver.alerted(), ["lead_19", "lead_21", "lead_5", "lead_60"]);
}

/// In the baseline, a lead whose webhook is on its way becomes known too. Its webhook still alerts.
#[tokio::test]
async fn the_baseline_suppresses_no_webhook() {
    let receiver = Receiver::new().await;
    for (lead, minutes) in [("lead_1", 1), ("lead_2", 30)] {
        receiver.opportunity(lead, minutes).await;
    }
    assert_has(&receiver.reconcile().await.run().await, json!({ "baseline": 2, "waiting": 0 }));
    let mut webhook = receiver.webhook().await;
    for (event, lead, minutes) in [("evt_1", "lead_1", 1), ("evt_2", "lead_2", 30)] {
        assert_eq!(outcome(&mut webhook, &event_of(event, lead, minutes)).await, "alerted");
    }
    // A webhook whose event has no time, or one before 1970, is never suppressed either.
    for (event, time) in [("evt_3", json!(null)), ("evt_4", json!("1969-01-01T00:00:00Z"))] {
        let mut body: Value = serde_json::from_str(&change(event, "OPPORTUNITY")).unwrap();
        body["timestamp"] = time;
        body["data"]["leadId"] = "lead_2".into();
        assert_eq!(outcome(&mut webhook, &signed_now(&body.to_string())).await, "alerted", "{event}");
    }
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2", "lead_2", "lead_2"]);
}

/// The two sources write a status in different letter case.
#[tokio::test]
async fn a_webhook_makes_its_lead_known_in_any_letter_case() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let mut webhook = receiver.webhook().await;
    let mut body: Value = serde_json::from_str(&change("evt_1", "Opportunity")).unwrap();
    body["data"]["leadId"] = "lead_1".into();
    assert_eq!(outcome(&mut webhook, &signed_now(&body.to_string())).await, "alerted");
    receiver.opportunity("lead_1", 30).await;
    assert_has(&reconcile.run().await, json!({ "leads": 1, "missed": 0 }));
    let [row] = &receiver.known().await[..] else { panic!("expected one row") };
    assert_eq!(row["deliveryId"], S(LockKey::known("lead_1", "OPPORTUNITY").as_str().into()));
    assert!(!format!("{row:?}").contains("lead_1"), "the row should not name the lead: {row:?}");
    let expires: u64 = row["expiresAt"].as_n().unwrap().parse().unwrap();
    assert!(expires.abs_diff(now().after(KNOWN_RETENTION).as_secs()) < 60, "{row:?}");
}

#[tokio::test]
async fn the_webhook_makes_leads_known_only_if_the_reconciliation_is_on() {
    let receiver = Receiver::new().await;
    let aws = &receiver.world.aws;
    for (variables, expected) in [
        (vec![], vec!["claim", "publish", "complete"]),
        (vec![("RECONCILE", "no".to_owned())], vec!["claim", "publish", "complete"]),
        (vec![("RECONCILE", "yes".to_owned())], vec!["claim", "lock", "publish", "complete"]),
        (
            vec![("RECONCILE", "yes".to_owned()), ("DEBOUNCE_MINUTES", "5".to_owned())],
            vec!["claim", "lock", "quiet", "publish", "complete"],
        ),
    ] {
        let mut webhook = Lambda::start_with(aws, variables.clone(), Duration::from_secs(10)).await;
        let (event, lead) = (format!("evt_{}", expected.len()), format!("lead_{}", variables.len()));
        assert_eq!(outcome(&mut webhook, &signed_now(&change("evt_0", "DONE"))).await, "ignored");
        assert_eq!(aws.take_calls(), [""; 0], "an event that needs no alert should cost no call");
        let said = outcome(&mut webhook, &event_of(&format!("{event}{variables:?}"), &lead, 0)).await;
        assert_eq!((said.as_str(), aws.take_calls()), ("alerted", expected.iter().map(ToString::to_string).collect()));
    }
    // A tag needs no known lead, because the reconciliation reads only statuses.
    let mut webhook = receiver.webhook_with(vec![("ALERT_TAGS", "Interested".into())]).await;
    let tagged = json!({
        "eventId": "evt_tag", "eventType": "lead.tag.updated", "timestamp": now().rfc3339(),
        "data": { "leadId": "lead_tag", "newTag": "Interested" },
    });
    assert_eq!(outcome(&mut webhook, &signed_now(&tagged.to_string())).await, "alerted");
    assert_eq!(aws.take_calls(), ["claim", "publish", "complete"]);
}

/// A webhook that the reconciliation suppresses takes no debounce lock. Otherwise, it would
/// suppress a later change.
#[tokio::test]
async fn a_suppressed_webhook_takes_no_debounce_lock() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    assert_has(&reconcile.run().await, json!({ "alerted": 1 }));
    let aws = &receiver.world.aws;
    aws.take_calls();
    let mut webhook = receiver.webhook_with(vec![("DEBOUNCE_MINUTES", "60".into())]).await;
    assert_eq!(outcome(&mut webhook, &event_of("evt_1", "lead_1", 30)).await, "debounced");
    assert_eq!(aws.take_calls(), ["claim", "lock", "debounce"]);
    assert_eq!(outcome(&mut webhook, &event_of("evt_2", "lead_1", 5)).await, "alerted");
    assert_eq!(aws.take_calls(), ["claim", "lock", "quiet", "publish", "complete"]);
    assert_eq!(outcome(&mut webhook, &event_of("evt_3", "lead_1", 4)).await, "debounced");
    assert_eq!(aws.take_calls(), ["claim", "lock", "quiet", "debounce"]);
    assert_eq!(receiver.alerted(), ["lead_1"; 2]);
}

#[tokio::test]
async fn a_dry_run_lists_the_leads_that_a_run_alerts() {
    let receiver = Receiver::new().await;
    let mut reconcile = receiver.reconcile().await;
    receiver.opportunity("lead_old", 30).await;
    assert_has(
        &reconcile.dry_run().await,
        json!({ "outcome": "complete", "dryRun": true, "leads": 1, "baseline": 1, "missed": 0, "wouldAlert": [] }),
    );
    assert!(receiver.rows().await.is_empty(), "a dry run should make no baseline");
    assert_has(&reconcile.dry_run().await, json!({ "baseline": 1 }));
    assert_has(&reconcile.run().await, json!({ "baseline": 1, "dryRun": null, "wouldAlert": null }));

    let leads = names("lead_", 120);
    for lead in &leads {
        receiver.opportunity(lead, 30).await;
    }
    receiver.opportunity("lead_waiting", 5).await;
    let before = (receiver.rows().await, receiver.progress().await);
    receiver.world.aws.take_calls();
    let dry = reconcile.dry_run().await;
    assert_has(
        &dry,
        json!({ "outcome": "complete", "dryRun": true, "missed": 120, "alerted": 0, "pending": 0, "waiting": 1 }),
    );
    assert_eq!(receiver.world.aws.take_calls(), ["begin", "known", "known", "end"]);
    assert_eq!((receiver.rows().await, receiver.progress().await), before, "a dry run should change nothing");
    assert_eq!(receiver.alerted(), [""; 0]);
    let listed: Vec<_> = dry["wouldAlert"].as_array().unwrap().iter().collect();
    assert_eq!(listed.len(), 100);
    assert_has(listed[0], json!({ "campaignId": "camp_1", "status": "OPPORTUNITY" }));
    assert!(listed[0]["updatedAt"].is_string(), "{}", listed[0]);

    let real = reconcile.run().await;
    assert_has(&real, json!({ "missed": 120, "alerted": 120, "missedSince": dry["missedSince"] }));
    assert_eq!(receiver.alerted(), leads);
    let listed: BTreeSet<_> = listed.iter().map(|lead| lead["leadId"].as_str().unwrap().to_owned()).collect();
    assert!(listed.len() == 100 && listed.iter().all(|lead| leads.contains(lead)), "{listed:?}");
    assert_has(&reconcile.dry_run().await, json!({ "missed": 0, "wouldAlert": [], "missedSince": null }));
    let lines = reconcile.lines().await;
    assert!(missed_webhooks(&lines) == 120.0, "a dry run should count no missed webhook");
    assert_has(&lines_of(&lines, "reconcile")[0], json!({ "dryRun": true, "level": "INFO" }));
}

/// Any payload but `{"dryRun": true}` makes a real run.
#[tokio::test]
async fn only_a_boolean_asks_for_a_dry_run() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let payloads =
        [json!(null), json!([]), json!("dryRun"), json!({ "dryRun": "true" }), json!({ "version": "0", "detail": {} })];
    for (number, payload) in payloads.iter().enumerate() {
        receiver.opportunity(&format!("lead_{number}"), 30).await;
        assert_has(&reconcile.report(payload).await, json!({ "dryRun": null, "missed": 1, "alerted": 1 }));
    }
}

/// A second run at the same time does nothing. If a run was killed, its lease ends.
#[tokio::test]
async fn one_run_at_a_time() {
    let (receiver, mut second) = Receiver::with_baseline().await;
    for (lead, dies) in [("lead_1", false), ("lead_2", true)] {
        receiver.opportunity(lead, 30).await;
        receiver.answers("/v1/campaigns", json!({ "hang": true })).await;
        receiver.take_requests().await;
        let mut first = receiver.reconcile().await;
        let before = now();
        first.function.begin(&json!({})).await;
        until(async || !receiver.api.requests().await.unwrap().is_empty()).await;
        let refused = second.run().await;
        assert_has(&refused, json!({ "outcome": "in_progress", "requests": 0, "missed": 0, "campaigns": 0 }));
        let retry_at = OffsetDateTime::parse(refused["retryAt"].as_str().unwrap(), &Rfc3339).unwrap();
        let [earliest, latest] = [before, now()].map(|began| began.after(TIMEOUT + LEASE_MARGIN));
        assert!((earliest..=latest).contains(&retry_at.into()), "{refused}");
        assert_has(&second.dry_run().await, json!({ "outcome": "in_progress", "wouldAlert": [] }));
        if dies {
            first.function.kill().await;
            receiver.end_leases().await;
            receiver.api.clear().await.unwrap();
            assert_has(&second.run().await, json!({ "outcome": "complete", "missed": 1, "alerted": 1 }));
        } else {
            receiver.api.clear().await.unwrap();
            assert_has(&first.function.said().await, json!({ "outcome": "complete", "missed": 1, "alerted": 1 }));
            assert_has(&second.run().await, json!({ "outcome": "complete", "missed": 0 }));
        }
    }
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2"]);
}

/// Lambda can freeze a run, and another run takes over after its lease. If the first one continues
/// then, it alerts nothing twice and does not replace the progress.
#[tokio::test]
async fn an_overtaken_run_alerts_nothing_twice() {
    let (receiver, mut second) = Receiver::with_baseline().await;
    for lead in ["lead_1", "lead_2"] {
        receiver.opportunity(lead, 30).await;
    }
    let mut first = receiver.reconcile().await;
    // The first run knows that both leads are missed.
    receiver.world.aws.next("known", Fault::Delayed(Duration::from_millis(300)));
    first.function.begin(&json!({})).await;
    let is_read = |call: &Call| call.operation == "known" && call.took_effect;
    until(async || receiver.world.aws.journal().iter().any(is_read)).await;
    first.function.freeze();
    receiver.end_leases().await;
    assert_has(&second.run().await, json!({ "outcome": "complete", "missed": 2, "alerted": 2 }));
    // The webhook of a later change takes the lock meanwhile.
    let mut webhook = receiver.webhook().await;
    assert_eq!(outcome(&mut webhook, &event_of("evt_1", "lead_1", 1)).await, "alerted");
    first.function.thaw();
    let overtaken = failure(first.function.heard().await);
    assert!(overtaken.contains("the progress could not be stored"), "{overtaken}");
    assert!(overtaken.ends_with("the run found 0 missed leads and published 0 alerts"), "{overtaken}");
    assert_eq!(receiver.alerted(), ["lead_1", "lead_1", "lead_2"]);
    assert_has(&second.run().await, json!({ "outcome": "complete", "missed": 0 }));
}

#[tokio::test]
async fn reads_all_campaigns_except_drafts() {
    let receiver = Receiver::new().await;
    for (number, status) in
        ["ACTIVE", "active", "Paused", "FINISHED", "", "DRAFT", "draft", " Draft "].iter().enumerate()
    {
        let campaign = json!({ "id": format!("camp_{status}_{number}"), "name": "x", "status": status });
        receiver.api.put_campaign_as(campaign).await.unwrap();
    }
    receiver.api.put_campaign_as(json!({ "id": "camp_without_status" })).await.unwrap();
    receiver.api.put_campaign_as(json!({ "id": "camp &status=DONE#%2F \u{fc}", "name": "" })).await.unwrap();
    let mut reconcile = receiver.reconcile().await;
    receiver.take_requests().await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "campaigns": 8, "requests": 9 }));
    let requests = receiver.take_requests().await;
    assert_eq!(requests[0], "/v1/campaigns?page=1&limit=100");
    let lists = &requests[1..];
    assert!(lists.is_sorted(), "{lists:?}");
    let unusual = "/v1/leads?campaignId=camp%20%26status%3DDONE%23%252F%20%C3%BC&status=OPPORTUNITY&page=1&limit=100";
    assert_eq!(lists[0], unusual);
    assert!(!lists.iter().any(|path| path.to_ascii_lowercase().contains("draft")), "{lists:?}");

    // A campaign that appears later is not part of the baseline.
    receiver.api.put_campaign("camp_new", "New").await.unwrap();
    receiver.put(lead_of("lead_1", "camp_new", 30)).await;
    receiver.put(lead_of("lead_2", "camp &status=DONE#%2F \u{fc}", 30)).await;
    assert_has(&reconcile.run().await, json!({ "campaigns": 9, "baseline": 0, "missed": 2, "alerted": 2 }));
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2"]);
    let unnamed = receiver.alerts().into_iter().find(|alert| alert["data"]["leadId"] == "lead_2").unwrap();
    assert_has(&unnamed["data"], json!({ "campaignId": "camp &status=DONE#%2F \u{fc}", "campaignName": null }));
}

#[tokio::test]
async fn a_status_that_alerts_since_later_has_its_own_baseline() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let mut booked = lead_of("lead_booked", "camp_1", 30);
    booked["status"] = "MEETING_BOOKED".into();
    receiver.put(booked.clone()).await;
    assert_has(&reconcile.run().await, json!({ "leads": 0, "missed": 0 }));
    receiver.opportunity("lead_1", 30).await;
    let two = || vec![("ALERT_STATUSES", "meeting_booked, OPPORTUNITY".to_owned())];
    let mut reconcile = receiver.reconcile_with(two(), TIMEOUT).await;
    assert_has(&reconcile.run().await, json!({ "leads": 2, "baseline": 1, "missed": 1, "alerted": 1 }));
    booked["id"] = "lead_booked_later".into();
    receiver.put(booked.clone()).await;
    assert_has(&reconcile.run().await, json!({ "leads": 3, "baseline": 0, "missed": 1, "alerted": 1 }));
    assert_eq!(receiver.alerted(), ["lead_1", "lead_booked_later"]);
    assert_eq!(receiver.alerts()[1]["data"]["newStatus"], "MEETING_BOOKED");

    // A lead in both statuses, one after the other, is two alerts.
    booked["id"] = "lead_1".into();
    receiver.put(booked.clone()).await;
    assert_has(&reconcile.run().await, json!({ "leads": 3, "missed": 1, "alerted": 1 }));
    // The old configuration still knows its leads.
    receiver.opportunity("lead_1", 30).await;
    assert_has(&receiver.reconcile().await.run().await, json!({ "leads": 1, "missed": 0 }));
    // Meanwhile, webhooks of the other status were not alerted, so they were not missed either.
    booked["id"] = "lead_booked_meanwhile".into();
    receiver.put(booked).await;
    let mut reconcile = receiver.reconcile_with(two(), TIMEOUT).await;
    assert_has(&reconcile.run().await, json!({ "leads": 4, "baseline": 1, "missed": 0 }));
}

#[tokio::test]
async fn an_alert_shows_the_last_reply_if_the_api_names_the_workspace() {
    let (receiver, _) = Receiver::with_baseline().await;
    let remembering = || vec![("REMEMBER_REPLIES", "yes".to_owned())];
    let mut webhook = receiver.webhook_with(remembering()).await;
    let mut reconcile = receiver.reconcile_with(remembering(), TIMEOUT).await;
    for lead in ["lead_1", "lead_2", "lead_3"] {
        let reply = reply(&format!("evt_{lead}"), lead, "Call me about the zeppelin.");
        assert_eq!(outcome(&mut webhook, &signed_now(&reply.to_string())).await, "remembered");
    }
    receiver.world.aws.take_calls();
    let mut last = async |lead: &str| {
        receiver.opportunity(lead, 30).await;
        assert_has(&reconcile.run().await, json!({ "missed": 1, "alerted": 1 }));
        let alert = receiver.alerts().pop().unwrap();
        assert_eq!(alert["data"]["leadId"], lead);
        (alert["source"].as_str().unwrap().to_owned(), alert["data"]["lastReply"]["text"].clone())
    };
    let text = json!("Call me about the zeppelin.");
    assert_eq!(last("lead_1").await, ("urn:sendpilot:workspace:ws_abc123xyz".into(), text));
    let calls = ["begin", "known", "reply", "claim", "lock", "publish", "complete", "end"];
    assert_eq!(receiver.world.aws.take_calls(), calls);
    assert_eq!(last("lead_without").await.1, json!(null));
    receiver.answers("/v1/me", json!({ "body": { "scopes": [] } })).await;
    assert_eq!(last("lead_2").await, ("urn:sendpilot:workspace".into(), json!(null)));
    receiver.answers("/v1/me", json!({ "status": 403 })).await;
    assert_eq!(last("lead_3").await, ("urn:sendpilot:workspace".into(), json!(null)));
    receiver.api.clear().await.unwrap();
    // A reply that cannot be read delays no alert.
    receiver.world.aws.next("reply", Fault::Refused(400));
    assert_eq!(last("lead_4").await, ("urn:sendpilot:workspace:ws_abc123xyz".into(), json!(null)));
    let lines = reconcile.lines().await;
    assert_eq!(lines_of(&lines, "workspace").len(), 1, "{lines:?}");
    assert_eq!(lines_of(&lines, "details").len(), 1, "{lines:?}");
}

/// A lead that keeps its status for a long time must stay known.
#[tokio::test]
async fn renews_the_row_of_a_lead_that_keeps_its_status() {
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let key = |lead: &str| LockKey::known(lead, "OPPORTUNITY").as_str().to_owned();
    let put = async |lead: &str, days: u32| {
        let expires_at = now().after(DAY * days).as_secs();
        let row = [
            ("deliveryId", S(key(lead))),
            ("holder", S("ws#evt#alert".into())),
            ("quietUntil", N("1708771200000".into())),
            ("expiresAt", N(expires_at.to_string())),
        ];
        receiver.world.dynamodb.put(row.map(|(name, value)| (name.to_owned(), value)).into()).await;
        expires_at
    };
    receiver.opportunity("lead_old", 30).await;
    receiver.opportunity("lead_new", 30).await;
    put("lead_old", 199).await;
    put("lead_gone", 199).await;
    let kept = put("lead_new", 201).await;
    let before = receiver.rows().await;
    receiver.world.aws.take_calls();
    assert_has(&reconcile.run().await, json!({ "leads": 2, "baseline": 0, "missed": 0 }));
    assert_eq!(receiver.world.aws.take_calls(), ["begin", "known", "lock", "end"]);
    let row = receiver.known_row("lead_old", "OPPORTUNITY").await.unwrap();
    let expires: u64 = row["expiresAt"].as_n().unwrap().parse().unwrap();
    assert!(expires.abs_diff(now().after(DAY * 400).as_secs()) < 60, "{row:?}");
    assert_eq!(
        (&row["holder"], &row["quietUntil"], row.len()),
        (&S("ws#evt#alert".into()), &N("1708771200000".into()), 4)
    );
    let row = receiver.known_row("lead_new", "OPPORTUNITY").await.unwrap();
    assert_eq!(row["expiresAt"], N(kept.to_string()));
    let after = receiver.rows().await;
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|(other, row)| *other == key("lead_old") || before[other] == *row));
    receiver.world.aws.take_calls();
    reconcile.run().await;
    assert_eq!(receiver.world.aws.take_calls(), ["begin", "known", "end"]);
    // A dry run renews nothing.
    put("lead_old", 199).await;
    receiver.world.aws.take_calls();
    reconcile.dry_run().await;
    assert_eq!(receiver.world.aws.take_calls(), ["begin", "known", "end"]);
}

/// Someone has changed the row of the run by hand.
#[tokio::test]
async fn unreadable_progress_is_an_error_until_the_row_is_deleted() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    for progress in ["", "no JSON", "7", r#"{"baselined": 7}"#] {
        receiver.set_progress(progress).await;
        // Each run fails, so the alarm sees no success.
        for _ in 0..2 {
            let error = reconcile.fails().await;
            assert!(error.starts_with("the row function#run has no readable progress; delete the row"), "{error}");
        }
    }
    assert_eq!(receiver.alerted(), [""; 0]);
    receiver.world.dynamodb.delete("function#run").await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "baseline": 1, "missed": 0 }));
}

#[tokio::test]
async fn does_not_start_without_an_api_key() {
    let receiver = Receiver::new().await;
    let function = Lambda::start_reconcile(environment(&receiver.world.aws), TIMEOUT).await;
    let (status, output) = function.ended().await;
    assert_ne!(status, Some(0));
    let expected = "neither SENDPILOT_API_KEY_ID nor SENDPILOT_API_KEY is set; one of them must be";
    assert!(output.contains(expected), "{output}");
}

/// Counts the calls of runs for the page about cost.
#[tokio::test]
#[expect(clippy::print_stdout, reason = "the numbers are for people to read")]
async fn the_calls_of_ten_campaigns_with_five_hundred_opportunities() {
    let receiver = Receiver::new().await;
    let campaigns = names("camp_", 10);
    for campaign in &campaigns[1..] {
        receiver.api.put_campaign(campaign, campaign).await.unwrap();
    }
    for number in 0..500 {
        let campaign = if number % 10 == 0 { "camp_1" } else { campaigns[number % 10].as_str() };
        receiver.put(lead_of(&format!("lead_{number}"), campaign, 30)).await;
    }
    let mut reconcile = receiver.reconcile().await;
    let mut counted = async |kind: &str, expected: &[(&str, usize)], requests: usize| {
        receiver.world.aws.take_calls();
        receiver.take_requests().await;
        let began = Instant::now();
        let report = reconcile.run().await;
        assert_has(&report, json!({ "outcome": "complete", "requests": requests }));
        assert_eq!(receiver.take_requests().await.len(), requests);
        let mut calls = BTreeMap::new();
        for call in receiver.world.aws.take_calls() {
            *calls.entry(call).or_insert(0) += 1;
        }
        println!("{kind:<20} {requests:>3} requests in {:>5} ms, {calls:?}", began.elapsed().as_millis());
        assert_eq!(calls, expected.iter().map(|(call, count)| ((*call).to_owned(), *count)).collect(), "{kind}");
        report
    };
    let baseline = counted("the baseline", &[("begin", 1), ("known", 10), ("lock", 500), ("end", 1)], 11).await;
    assert_has(&baseline, json!({ "campaigns": 10, "leads": 500, "baseline": 500 }));
    counted("nothing new", &[("begin", 1), ("known", 10), ("end", 1)], 11).await;
    receiver.opportunity("lead_missed", 30).await;
    let one = [("begin", 1), ("known", 10), ("claim", 1), ("lock", 1), ("publish", 1), ("complete", 1), ("end", 1)];
    let missed = counted("one missed lead", &one, 12).await;
    assert_has(&missed, json!({ "leads": 501, "missed": 1, "alerted": 1 }));
}
