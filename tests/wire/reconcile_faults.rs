//! The reconciliation while SendPilot's API, DynamoDB or SNS fails, answers in another form, or the
//! function is killed. Nothing is lost, and nothing is alerted twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::aws::{Call, Fault};
use crate::support::lambda::Said;
use crate::support::receiver::{
    Receiver, Reconcile, TIMEOUT, assert_has, event_of, failure, lead_of, lines_of, missed_webhooks, now, report, until,
};
use futures_util::{StreamExt, stream};
use opportunity_alerts::reconcile::reader::{MAX_REQUESTS, MAX_WAITS};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The time for a run that waits for an answer. A request to SendPilot's API may take a quarter of
/// three quarters of the time.
const SHORT: Duration = Duration::from_secs(8);

const CAMPAIGNS: &str = "/v1/campaigns?";

/// Returns the beginning of the path of a page of leads.
fn leads_path(campaign: &str, page: usize) -> String {
    format!("/v1/leads?campaignId={campaign}&status=OPPORTUNITY&page={page}&")
}

fn campaigns_path(page: usize) -> String {
    format!("{CAMPAIGNS}page={page}&")
}

/// Returns a page of a list in the form that the API documents.
fn page(name: &str, entries: &[Value], number: usize, pages: usize) -> Value {
    json!({ "body": { name: entries, "pagination": { "page": number, "limit": 100, "totalPages": pages } } })
}

/// An account with two pages of campaigns, and two pages of leads in the first campaign.
struct Account {
    receiver: Receiver,
    /// The function that meets the faults.
    reconcile: Reconcile,
    /// Another function, for the runs afterwards.
    next: Reconcile,
    steps: usize,
}

impl Account {
    /// Returns an account without leads. The runs that meet faults have this time.
    async fn new(time: Duration) -> Self {
        let (receiver, next) = Receiver::with_baseline().await;
        let reconcile = receiver.reconcile_with(Vec::new(), time).await;
        Self { receiver, reconcile, next, steps: 0 }
    }

    /// Removes all faults, and returns three missed leads: one on each page of the first campaign,
    /// and one in the second campaign.
    async fn with_three_missed_leads(&mut self) -> [String; 3] {
        self.steps += 1;
        let leads = ["a", "b", "c"].map(|page| format!("lead_{:03}{page}", self.steps));
        self.heal(&leads).await;
        leads
    }

    async fn heal(&self, leads: &[String; 3]) {
        let receiver = &self.receiver;
        receiver.api.clear().await.unwrap();
        let campaign = |id: &str| json!({ "id": id, "name": "Autumn in Flanders", "status": "ACTIVE" });
        let lead = |lead: &str, campaign: &str| lead_of(lead, campaign, 30);
        receiver.answers(&campaigns_path(1), page("campaigns", &[campaign("camp_1")], 1, 2)).await;
        receiver.answers(&campaigns_path(2), page("campaigns", &[campaign("camp_2")], 2, 2)).await;
        receiver.answers(&leads_path("camp_1", 1), page("leads", &[lead(&leads[0], "camp_1")], 1, 2)).await;
        receiver.answers(&leads_path("camp_1", 2), page("leads", &[lead(&leads[1], "camp_1")], 2, 2)).await;
        receiver.answers(&leads_path("camp_2", 1), page("leads", &[lead(&leads[2], "camp_2")], 1, 1)).await;
    }

    /// Makes runs until one has read everything, and returns the number of missed leads.
    async fn until_complete(&mut self) -> u64 {
        let mut missed = 0;
        for _ in 0..3 {
            match self.next.function.invoke(&json!({})).await {
                Said::Response(report) if report["outcome"] == "complete" => {
                    return missed + report["missed"].as_u64().unwrap();
                }
                Said::Error(error) => {
                    let error = error["errorMessage"].as_str().unwrap();
                    // A run continues after the list that an earlier run could not read.
                    assert!(error.starts_with("not every list of leads was read"), "{error}");
                    missed += found_before(error);
                }
                said => panic!("{said:?}"),
            }
        }
        panic!("three runs should be enough");
    }

    fn alerts_on(&self, leads: &[String; 3]) -> [usize; 3] {
        let alerted = self.receiver.alerted();
        leads.each_ref().map(|lead| alerted.iter().filter(|other| *other == lead).count())
    }
}

/// Returns the number of missed leads in the message of a failed run.
fn found_before(error: &str) -> u64 {
    let (_, counts) = error.rsplit_once("before that, the run found ").unwrap();
    let [missed, alerted] = [0, 5].map(|word| counts.split(' ').nth(word).unwrap().parse::<u64>().unwrap());
    assert_eq!(missed, alerted, "{error}");
    missed
}

/// A failure of the API, and the run's error about it.
struct Trouble {
    name: &'static str,
    plan: Value,
    says: &'static str,
}

fn troubles() -> Vec<Trouble> {
    let huge = 4 * 1024 * 1024 + 1;
    let status = |status: u16| json!({ "status": status, "body": { "statusCode": status, "message": "no" } });
    let after = |status: u16, after: &str| json!({ "status": status, "headers": { "Retry-After": after } });
    let scope = "SendPilot's API refused the request, because the API key lacks a scope (403)";
    [
        // The slow ones come first.
        ("429 for one second", after(429, "1"), "waits"),
        ("503 for one second", after(503, "1"), "waits"),
        ("no answer", json!({ "hang": true }), "SendPilot's API did not answer in time"),
        ("401", status(401), "SendPilot's API refused the API key (401)"),
        ("403", status(403), scope),
        ("404", status(404), "SendPilot's API answered 404"),
        ("429", status(429), "waits"),
        ("429 for two minutes", after(429, "120"), "waits"),
        ("500", status(500), "SendPilot's API answered 500"),
        ("500 for two minutes", after(500, "120"), "SendPilot's API answered 500"),
        ("503", status(503), "SendPilot's API answered 503"),
        ("503 for two minutes", after(503, "120"), "waits"),
        ("302", json!({ "status": 302, "headers": { "Location": "/v1/me" } }), "SendPilot's API answered 302"),
        ("HTML", json!({ "body": "<html>Quellwasser" }), "SendPilot's API did not answer with the documented JSON"),
        ("another form", json!({ "body": { "leads": {} } }), "SendPilot's API did not answer with the documented JSON"),
        ("half an answer", json!({ "half": true }), "SendPilot's API could not be reached"),
        ("a closed connection", json!({ "close": true }), "SendPilot's API could not be reached"),
        ("a long answer", json!({ "huge": huge }), "SendPilot's API answered with more than 4194304 bytes"),
    ]
    .into_iter()
    .map(|(name, plan, says)| Trouble { name, plan, says })
    .collect()
}

/// SendPilot's API fails in each way at each call in turn. The run handles the leads on the pages
/// before, and says which call failed and why. The next runs find the other leads.
#[tokio::test]
async fn every_failure_of_the_api_at_every_call_heals() {
    stream::iter(troubles()).for_each_concurrent(9, fails_at_every_call).await;
}

async fn fails_at_every_call(trouble: Trouble) {
    let Trouble { name, plan, says } = trouble;
    // In a longer run, these would take too long.
    let time = match name {
        "no answer" => SHORT * 3 / 2,
        "429" => SHORT * 5,
        _ => TIMEOUT,
    };
    let mut account = Account::new(time).await;
    let mut steps = 0;
    let leads_of = |campaign: &str| format!("the leads of the campaign {campaign} could not be read: ");
    let calls = [
        (campaigns_path(1), "the list of campaigns could not be read: ".to_owned(), 0),
        (campaigns_path(2), "the list of campaigns could not be read: ".to_owned(), 0),
        (leads_path("camp_1", 1), leads_of("camp_1"), 0),
        (leads_path("camp_1", 2), leads_of("camp_1"), 1),
        (leads_path("camp_2", 1), leads_of("camp_2"), 2),
    ];
    // Each wait of one second is repeated three times, so each such trouble comes at half of the
    // calls.
    let (skipped, step) = match name {
        "429 for one second" => (0, 2),
        "503 for one second" => (1, 2),
        _ => (0, 1),
    };
    for (path, place, before) in calls.into_iter().skip(skipped).step_by(step) {
        steps += 1;
        let leads = account.with_three_missed_leads().await;
        account.receiver.answers(&path, plan.clone()).await;
        let began = Instant::now();
        let said = account.reconcile.function.invoke(&json!({})).await;
        assert!(began.elapsed() < time, "{name} at {path}: {:?}", began.elapsed());
        if says == "waits" && before > 0 {
            let report = report(said);
            assert_has(&report, json!({ "outcome": "paused", "missed": before, "alerted": before }));
            assert!(report["retryAt"].is_string(), "{report}");
        } else {
            let error = failure(said);
            let place =
                if says == "waits" { "SendPilot's API asked to wait until 20".to_owned() } else { place + says };
            assert!(error.starts_with(&place), "{name} at {path}: {error}");
            assert_eq!(found_before(&error), before, "{name} at {path}: {error}");
        }
        let expected = [1, 2, 3].map(|page| usize::from(page <= before));
        assert_eq!(account.alerts_on(&leads).map(|count| count as u64), expected.map(|count| count as u64));
        account.heal(&leads).await;
        if says == "waits" {
            account.receiver.take_requests().await;
            let error = account.next.fails().await;
            assert!(error.starts_with("SendPilot's API asked to wait until 20"), "{error}");
            assert_eq!(account.receiver.take_requests().await, [""; 0], "{name}: a pause should be respected");
            account.receiver.end_pause().await;
        }
        assert_eq!(account.until_complete().await, 3 - before, "{name} at {path}");
        assert_eq!(account.alerts_on(&leads), [1, 1, 1], "{name} at {path}");
    }

    // Without the workspace, the alerts are still published.
    let leads = account.with_three_missed_leads().await;
    account.receiver.answers("/v1/me", plan.clone()).await;
    let report = account.reconcile.run().await;
    assert_has(&report, json!({ "outcome": "complete", "missed": 3, "alerted": 3 }));
    assert_eq!(account.alerts_on(&leads), [1, 1, 1], "{name} at /v1/me");
    assert_eq!(account.receiver.alerts().pop().unwrap()["source"], "urn:sendpilot:workspace", "{name}");

    let lines = [account.reconcile.lines().await, account.next.lines().await].concat();
    assert!(missed_webhooks(&lines) == f64::from(3 * (steps + 1)), "{name}: {lines:?}");
    for line in lines_of(&lines, "reconcile") {
        let failed = line["outcome"] == "failed";
        assert_eq!((failed, line["level"] == "ERROR"), (line["failure"].is_string(), failed), "{line}");
    }
}

#[tokio::test]
async fn a_campaign_that_always_fails_hides_no_other() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    for campaign in ["camp_2", "camp_3"] {
        receiver.api.put_campaign(campaign, campaign).await.unwrap();
    }
    for number in 1..=3 {
        receiver.put(lead_of(&format!("lead_{number}"), &format!("camp_{number}"), 30)).await;
    }
    receiver.answers("/v1/leads?campaignId=camp_2", json!({ "status": 500 })).await;
    let fails = "the leads of the campaign camp_2 could not be read: SendPilot's API answered 500";
    let skips = format!("not every list of leads was read, because in an earlier run {fails}");
    // A run tries the failed page again, and the run after it skips the campaign. No run looks like
    // a success, so the alarm goes off.
    for round in 0..2 {
        for (run, expected) in [fails, fails, &skips].into_iter().enumerate() {
            let error = reconcile.fails().await;
            assert!(error.starts_with(&format!("{expected}; before that, the run found ")), "{error}");
            assert_eq!(found_before(&error), u64::from(round == 0 && run != 1), "{error}");
        }
    }
    assert_eq!(receiver.alerted(), ["lead_1", "lead_3"]);
    receiver.api.clear().await.unwrap();
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "missed": 1, "alerted": 1 }));
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2", "lead_3"]);
}

/// The baseline is complete only after a sweep in which every list could be read.
#[tokio::test]
async fn a_baseline_with_a_failure_is_not_complete() {
    let receiver = Receiver::new().await;
    for campaign in ["camp_2", "camp_3"] {
        receiver.api.put_campaign(campaign, campaign).await.unwrap();
    }
    let mut reconcile = receiver.reconcile().await;
    let put = async |round: usize| {
        for number in 1..=3 {
            receiver.put(lead_of(&format!("lead_{round}_{number}"), &format!("camp_{number}"), 30)).await;
        }
    };
    put(1).await;
    receiver.answers("/v1/leads?campaignId=camp_2", json!({ "close": true })).await;
    for _ in 0..2 {
        let error = reconcile.fails().await;
        assert!(error.starts_with("the leads of the campaign camp_2 could not be read: "), "{error}");
    }
    receiver.api.clear().await.unwrap();
    // This run skips camp_2.
    put(2).await;
    let error = reconcile.fails().await;
    assert!(error.starts_with("not every list of leads was read, because in an earlier run the leads of"), "{error}");
    assert_eq!((receiver.known().await.len(), receiver.alerted().len()), (3, 0));
    assert_has(&receiver.progress().await, json!({ "baselined": [] }));
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "missed": 0 }));
    assert_has(&receiver.progress().await, json!({ "baselined": ["OPPORTUNITY"] }));
    assert_eq!((receiver.known().await.len(), receiver.alerted().len()), (6, 0));
    put(3).await;
    assert_has(&reconcile.run().await, json!({ "baseline": 0, "missed": 3, "alerted": 3 }));
}

/// Returns the seconds from now to a moment in a report.
fn seconds_until(moment: &Value) -> i64 {
    let at = OffsetDateTime::parse(moment.as_str().unwrap(), &Rfc3339).unwrap();
    (at - OffsetDateTime::now_utc()).whole_seconds()
}

#[tokio::test]
async fn waits_as_long_as_the_api_asks() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    let path = leads_path("camp_1", 1);
    let plan = |after: &str| json!({ "status": 503, "headers": { "Retry-After": after } });

    // A short wait fits into the run. The API works again afterwards.
    receiver.take_requests().await;
    receiver.answers(&path, plan("1")).await;
    reconcile.function.begin(&json!({})).await;
    until(async || receiver.api.requests().await.unwrap().len() >= 2).await;
    receiver.api.clear().await.unwrap();
    assert_has(&reconcile.function.said().await, json!({ "outcome": "complete", "missed": 1, "alerted": 1 }));
    let requests = receiver.api.requests().await.unwrap();
    let [_, refused, again, _] = &requests[..] else { panic!("{requests:?}") };
    assert_eq!(refused.path, again.path);
    assert!(again.at.duration_since(refused.at).unwrap() >= Duration::from_secs(1), "{requests:?}");

    // A run waits three times. The next one continues after the last wait, and not before.
    receiver.answers(&path, plan("1")).await;
    receiver.take_requests().await;
    let error = reconcile.fails().await;
    assert!(error.starts_with("SendPilot's API asked to wait until 20"), "{error}");
    assert_eq!(receiver.take_requests().await.len(), 1 + 1 + MAX_WAITS);
    receiver.api.clear().await.unwrap();
    reconcile.fails().await;
    assert_eq!(receiver.take_requests().await, [""; 0]);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "requests": 2, "missed": 0 }));

    // No pause is longer than an hour, so a wrong value does not turn the reconciliation off.
    receiver.api.put_campaign("camp_2", "x").await.unwrap();
    for (after, longest) in [("120", 120), ("18446744073709551615", 3600), ("99999999999999999999", 30)] {
        let mut plan = plan(after);
        plan["status"] = 429.into();
        receiver.answers(&leads_path("camp_2", 1), plan).await;
        // Without a usable value, a run would wait for half a minute, so its time is short.
        let mut short = receiver.reconcile_with(Vec::new(), SHORT).await;
        let report = short.run().await;
        assert_has(&report, json!({ "outcome": "paused", "missed": 0 }));
        let seconds = seconds_until(&report["retryAt"]);
        assert!((longest - 5..=longest).contains(&seconds), "{after}: {seconds}");
        receiver.api.clear().await.unwrap();
        // A dry run respects the pause, too, and does not end it.
        assert!(failure(short.function.invoke(&json!({ "dryRun": true })).await).contains("asked to wait"));
        short.fails().await;
        receiver.end_pause().await;
        assert_has(&short.run().await, json!({ "outcome": "complete", "requests": 2 }));
    }
}

#[tokio::test]
async fn finds_the_same_leads_if_the_api_refuses_the_filter() {
    let booked = |lead: &str, campaign: &str| {
        let mut lead = lead_of(lead, campaign, 30);
        lead["status"] = "MEETING_BOOKED".into();
        lead
    };
    for (accepted, lists) in [
        (vec!["OPPORTUNITY", "MEETING_BOOKED"], ["O1", "M1", "O2", "M2"].as_slice()),
        (vec!["MEETING_BOOKED"], &["O1", "M1", "-1", "M2", "-2"]),
        (vec!["OPPORTUNITY"], &["O1", "M1", "-1", "O2", "-2"]),
        (vec!["DONE"], &["O1", "M1", "-1", "-2"]),
    ] {
        let receiver = Receiver::new().await;
        receiver.api.put_campaign("camp_2", "x").await.unwrap();
        receiver.api.set(json!({ "statuses": accepted })).await.unwrap();
        receiver.opportunity("lead_old", 30).await;
        receiver.put(booked("lead_old_booked", "camp_2")).await;
        let both = vec![("ALERT_STATUSES", "OPPORTUNITY,MEETING_BOOKED".to_owned())];
        let mut reconcile = receiver.reconcile_with(both, TIMEOUT).await;
        assert_has(&reconcile.run().await, json!({ "outcome": "complete", "baseline": 2, "missed": 0 }));
        receiver.opportunity("lead_1", 30).await;
        receiver.put(booked("lead_2", "camp_1")).await;
        receiver.put(lead_of("lead_3", "camp_2", 30)).await;
        receiver.put(lead_of("lead_waiting", "camp_2", 3)).await;
        let mut other = lead_of("lead_other", "camp_2", 30);
        other["status"] = "DONE".into();
        receiver.put(other).await;
        receiver.take_requests().await;
        assert_has(&reconcile.run().await, json!({ "outcome": "complete", "baseline": 0, "missed": 3, "alerted": 3 }));
        assert_eq!(receiver.alerted(), ["lead_1", "lead_2", "lead_3"], "{accepted:?}");
        let mut requests = receiver.take_requests().await;
        requests.retain(|path| path.starts_with("/v1/leads"));
        let short = |path: &String| {
            let status = ["status=OPPORTUNITY", "status=MEETING"].iter().position(|part| path.contains(part));
            format!("{}{}", ["O", "M", "-"][status.unwrap_or(2)], if path.contains("=camp_1&") { 1 } else { 2 })
        };
        assert_eq!(requests.iter().map(short).collect::<Vec<_>>(), lists, "{accepted:?}: {requests:?}");
    }
}

/// The API can ignore the filter, or refuse every list of a campaign.
#[tokio::test]
async fn skips_the_leads_of_other_statuses() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let with = |lead: &str, status: Value| {
        let mut lead = lead_of(lead, "camp_1", 30);
        lead["status"] = status;
        lead
    };
    let leads = [
        with("lead_done", json!("DONE")),
        with("lead_1", json!("OPPORTUNITY")),
        with("lead_2", json!(" opportunity ")),
        with("lead_blank", json!(" ")),
        with("lead_similar", json!("OPPORTUNITY_LOST")),
        // Without a status, a lead has the one by which the list is filtered.
        with("lead_3", json!(null)),
        with("lead_4", json!("")),
        with("lead_5", json!(7)),
    ];
    receiver.answers(&leads_path("camp_1", 1), page("leads", &leads, 1, 1)).await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 5, "missed": 5, "alerted": 5 }));
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2", "lead_3", "lead_4", "lead_5"]);
    assert!(receiver.alerts().iter().all(|alert| alert["data"]["newStatus"] == "OPPORTUNITY"));
    // In a list without a filter, such leads have no status.
    let leads = leads.map(|lead| serde_json::from_str(&lead.to_string().replace("lead_", "lead_new_")).unwrap());
    receiver.answers(&leads_path("camp_1", 1), json!({ "status": 400 })).await;
    receiver.answers("/v1/leads?campaignId=camp_1&page=1&", page("leads", &leads, 1, 1)).await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 2, "missed": 2, "alerted": 2 }));
    receiver.answers("/v1/leads?campaignId=camp_1&page=1&", json!({ "status": 400 })).await;
    let error = reconcile.fails().await;
    assert!(error.starts_with("the leads of the campaign camp_1 could not be read: SendPilot's API answered 400"));
}

#[tokio::test]
async fn a_thousand_leads_in_pages() {
    let receiver = Receiver::new().await;
    for number in 0..1000 {
        receiver.opportunity(&format!("lead_{number}"), 30).await;
    }
    let mut reconcile = receiver.reconcile().await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "requests": 11, "baseline": 1000 }));
    assert_eq!(receiver.known().await.len(), 1000);
    receiver.opportunity("lead_last", 30).await;
    assert_has(&reconcile.run().await, json!({ "requests": 13, "leads": 1001, "missed": 1, "alerted": 1 }));
    assert_eq!(receiver.alerted(), ["lead_last"]);
    if let Some(peak) = reconcile.function.peak_memory() {
        assert!(peak < 128 * 1024, "a run should not keep all pages in memory: {peak} KiB");
    }
}

/// One page of SendPilot's documentation shows another form of a list, without numbers.
#[tokio::test]
async fn reads_both_forms_of_a_list() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let leads: Vec<_> = (0..205).map(|number| lead_of(&format!("lead_{number:03}"), "camp_1", 30)).collect();
    let campaigns: Vec<_> =
        (0..100).map(|number| json!({ "id": format!("draft_{number}"), "status": "DRAFT" })).collect();
    let campaign = json!({ "id": "camp_1", "name": "Autumn in Flanders", "status": "ACTIVE" });
    receiver.answers(&campaigns_path(1), json!({ "body": { "data": campaigns, "meta": {} } })).await;
    receiver.answers(&campaigns_path(2), json!({ "body": { "data": [campaign], "meta": {} } })).await;
    let pages: Vec<_> = leads.chunks(100).collect();
    let plan = async |wrap: &dyn Fn(&[Value], usize) -> Value| {
        for (number, leads) in pages.iter().enumerate() {
            let body = wrap(leads, number + 1);
            receiver.answers(&leads_path("camp_1", number + 1), json!({ "body": body })).await;
        }
    };
    plan(&|leads, _| json!({ "data": leads, "meta": {} })).await;
    let report = reconcile.run().await;
    assert_has(&report, json!({ "outcome": "complete", "requests": 6, "campaigns": 1, "leads": 205, "missed": 205 }));
    for wrap in [
        (&|leads: &[Value], _| json!({ "leads": leads })) as &dyn Fn(&[Value], usize) -> Value,
        &|leads, page| json!({ "leads": leads, "pagination": { "page": page, "total": 205, "totalPages": "3" } }),
        &|leads, page| json!({ "data": leads, "pagination": { "page": page, "limit": 100, "totalPages": 3 } }),
        &|leads, page| json!({ "leads": leads, "meta": { "page": page, "totalPages": 3 } }),
    ] {
        plan(wrap).await;
        assert_has(&reconcile.run().await, json!({ "outcome": "complete", "requests": 5, "leads": 205, "missed": 0 }));
    }
    let alerted = receiver.alerted();
    assert_eq!((alerted.len(), alerted.iter().collect::<BTreeSet<_>>().len()), (205, 205));
}

/// A list without an end: the API ignores the number of the page.
#[tokio::test]
async fn a_list_without_an_end_is_an_error() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    receiver.api.put_campaign("camp_2", "x").await.unwrap();
    receiver.put(lead_of("lead_2", "camp_2", 30)).await;
    let same = json!({ "leads": [lead_of("lead_1", "camp_1", 30)], "pagination": { "limit": 1 } });
    receiver.answers("/v1/leads?campaignId=camp_1", json!({ "body": same })).await;
    let first = reconcile.run().await;
    assert_has(&first, json!({ "outcome": "continues", "requests": MAX_REQUESTS, "missed": 1, "alerted": 1 }));
    let mut runs = 0;
    let error = loop {
        runs += 1;
        match reconcile.function.invoke(&json!({})).await {
            Said::Response(report) => assert_has(&report, json!({ "outcome": "continues", "missed": 0 })),
            Said::Error(error) => break error["errorMessage"].as_str().unwrap().to_owned(),
            Said::Nothing => panic!("no answer"),
        }
    };
    assert!(error.starts_with("the leads of the campaign camp_1 could not be read: "), "{error}");
    assert!(runs <= 3, "{runs}");
    // The next run tries the same page again, and the run after it skips the campaign.
    assert_eq!(found_before(&reconcile.fails().await), 0);
    let error = reconcile.fails().await;
    assert!(error.starts_with("not every list of leads was read"), "{error}");
    assert_eq!(receiver.alerted(), ["lead_1", "lead_2"]);
}

#[tokio::test]
async fn leads_with_odd_fields_alert_once() {
    let (receiver, mut reconcile) = Receiver::with_baseline().await;
    let with = |lead: &str, changes: Value| {
        let mut lead = lead_of(lead, "camp_1", 30);
        lead.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        lead
    };
    let without = |lead: &str, name: &str| {
        let mut lead = lead_of(lead, "camp_1", 30);
        lead.as_object_mut().unwrap().remove(name);
        lead
    };
    let long = format!("lead_{}", "x".repeat(3000));
    let in_ten_minutes = now().after(Duration::from_secs(600)).rfc3339();
    let first = [
        without("lead_no", "id"),
        with("lead_no", json!({ "id": 7 })),
        with("lead_no", json!({ "id": "" })),
        with("lead_no", json!({ "id": null })),
        json!(null),
        json!([]),
        json!("lead_no"),
        json!({}),
        with("lead_waits", json!({ "updatedAt": in_ten_minutes })),
        // Such leads have no known time. They do not wait, and their alerts show no time.
        without("lead_a", "updatedAt"),
        with("lead_b", json!({ "updatedAt": null })),
        with("lead_c", json!({ "updatedAt": "yesterday" })),
        with("lead_d", json!({ "updatedAt": 1_708_770_600 })),
        with("lead_e", json!({ "updatedAt": "2999-01-01T00:00:00Z" })),
        with("lead_f", json!({ "updatedAt": "+12345-01-01T00:00:00Z" })),
        with("lead_g", json!({ "updatedAt": "1900-01-01T00:00:00Z" })),
        with("lead_h", json!({ "updatedAt": "2024-02-24T12:30:00.123456+02:00" })),
        with("lead_i", json!({ "firstName": " ", "lastName": null, "title": 7, "company": [], "linkedinUrl": {} })),
        without("lead_j", "linkedinUrl"),
        with("lead_k", json!({ "campaignId": "camp_other" })),
        with("lead_l#%\u{e9}\n", json!({})),
        with(&long, json!({ "firstName": "\u{1F6E9}".repeat(1000) })),
        lead_of("lead_twice", "camp_1", 30),
        lead_of("lead_twice", "camp_1", 40),
    ];
    let second =
        [lead_of("lead_a", "camp_1", 30), lead_of("lead_twice", "camp_1", 50), lead_of("lead_m", "camp_1", 30)];
    receiver.answers(&leads_path("camp_1", 1), page("leads", &first, 1, 2)).await;
    receiver.answers(&leads_path("camp_1", 2), page("leads", &second, 2, 2)).await;
    let report = reconcile.run().await;
    assert_has(&report, json!({ "outcome": "complete", "missed": 15, "alerted": 15, "waiting": 1 }));
    assert_has(&report, json!({ "missedSince": "1970-01-01T00:00:00Z" }));
    let alerts: BTreeMap<_, _> = receiver
        .alerts()
        .into_iter()
        .map(|alert| (alert["data"]["leadId"].as_str().unwrap().to_owned(), alert))
        .collect();
    assert_eq!(alerts.len(), 15);
    assert_eq!(receiver.world.aws.published().len(), 15);
    for lead in ["a", "b", "c", "d", "e", "f"] {
        assert_eq!(alerts[&format!("lead_{lead}")]["time"], json!(null), "{lead}");
    }
    assert_eq!(alerts["lead_g"]["time"], "1970-01-01T00:00:00Z");
    assert_eq!(alerts["lead_h"]["time"], "2024-02-24T10:30:00.123Z");
    assert_has(&alerts["lead_i"]["data"], json!({ "lead": null, "linkedinUrl": null }));
    assert_eq!(alerts["lead_k"]["data"]["campaignId"], "camp_1");
    assert!(alerts.keys().all(|lead| lead.len() <= 1024), "a long id should be cut");
    assert_has(&reconcile.run().await, json!({ "missed": 0, "alerted": 0, "waiting": 1 }));

    // Without a time, the alert reports every change until the run.
    let mut webhook = receiver.webhook().await;
    let mut outcome = async |event: &str, minutes| {
        webhook.answer(&event_of(event, "lead_b", minutes)).await.1["outcome"].as_str().unwrap().to_owned()
    };
    assert_eq!(outcome("evt_1", 1).await, "debounced");
    assert_eq!(outcome("evt_2", 0).await, "alerted");
    let lines = reconcile.lines().await;
    assert!(missed_webhooks(&lines) == 15.0);
}

/// A large account takes several runs. Each run continues where the last one stopped.
#[tokio::test]
async fn a_sweep_continues_in_the_next_run() {
    let receiver = Receiver::new().await;
    let campaigns: Vec<_> = (1..=30).map(|number| format!("camp_{number}")).collect();
    for campaign in &campaigns {
        receiver.api.put_campaign(campaign, campaign).await.unwrap();
        receiver.put(lead_of(&format!("lead_old_{campaign}"), campaign, 30)).await;
    }
    receiver.api.delay(Duration::from_millis(100)).await.unwrap();
    let mut reconcile = receiver.reconcile_with(Vec::new(), Duration::from_secs(4)).await;
    let mut sweep = async |names: &[&str], middle: &str| {
        let (mut runs, mut total, mut missed) = (0, 0, 0);
        receiver.take_requests().await;
        loop {
            runs += 1;
            let began = Instant::now();
            let report = reconcile.run().await;
            assert!(began.elapsed() < Duration::from_secs(4), "{report}");
            total += names.iter().map(|name| report[name].as_u64().unwrap()).sum::<u64>();
            missed += report["missed"].as_u64().unwrap();
            if report["outcome"] == "complete" {
                break;
            }
            assert_has(&report, json!({ "outcome": "continues", "campaigns": 30, "retryAt": null }));
            if runs == 1 && !middle.is_empty() {
                // This campaign has been read already.
                receiver.put(lead_of(middle, "camp_1", 30)).await;
            }
        }
        let mut lists = receiver.take_requests().await;
        lists.retain(|path| path.starts_with("/v1/leads"));
        assert_eq!((lists.len(), lists.iter().collect::<BTreeSet<_>>().len()), (30, 30), "{lists:?}");
        (total, missed, runs)
    };
    let (baseline, missed, runs) = sweep(&["baseline"], "lead_middle").await;
    assert_eq!((baseline, missed), (30, 0));
    assert!(runs >= 2, "the account should be too large for one run");
    assert_eq!(receiver.alerted(), [""; 0]);
    for campaign in &campaigns {
        receiver.put(lead_of(&format!("lead_new_{campaign}"), campaign, 30)).await;
    }
    // On a busy machine, an alert may wait for the redrive.
    let (found, missed, runs) = sweep(&["alerted", "pending"], "").await;
    assert_eq!((found, missed), (31, 31));
    assert!(runs >= 2, "the account should be too large for one run");
    receiver.redrive().await;
    let alerted = receiver.alerted();
    assert_eq!((alerted.len(), alerted.iter().collect::<BTreeSet<_>>().len()), (31, 31));
    receiver.api.delay(Duration::ZERO).await.unwrap();
    assert_eq!(sweep(&["missed"], "").await, (0, 0, 1));
}

/// Between two runs of a sweep, campaigns appear and disappear, or the statuses change.
#[tokio::test]
async fn a_sweep_continues_although_the_account_has_changed() {
    let receiver = Receiver::new().await;
    let campaign = |id: &str| json!({ "id": id, "name": "x", "status": "ACTIVE" });
    let campaigns = async |ids: &[&str]| {
        let ids: Vec<_> = ids.iter().map(|id| campaign(id)).collect();
        receiver.answers(&campaigns_path(1), page("campaigns", &ids, 1, 1)).await;
    };
    let mut reconcile = receiver.reconcile().await;
    for id in ["camp_1", "camp_2", "camp_3", "camp_4"] {
        receiver.put(lead_of(&format!("lead_{id}"), id, 30)).await;
    }
    campaigns(&["camp_1", "camp_3", "camp_4"]).await;
    // The run stops at camp_3.
    receiver
        .answers("/v1/leads?campaignId=camp_3", json!({ "status": 429, "headers": { "Retry-After": "120" } }))
        .await;
    assert_has(&reconcile.run().await, json!({ "outcome": "paused", "baseline": 1 }));
    receiver.api.clear().await.unwrap();
    receiver.end_pause().await;
    // That campaign is gone, and another one is before it.
    campaigns(&["camp_1", "camp_2", "camp_4"]).await;
    receiver.take_requests().await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "baseline": 1 }));
    assert_eq!(
        receiver.take_requests().await[1..],
        ["/v1/leads?campaignId=camp_4&status=OPPORTUNITY&page=1&limit=100"]
    );
    // A campaign that appears during the baseline is no part of it.
    campaigns(&["camp_1", "camp_2", "camp_3", "camp_4"]).await;
    receiver
        .answers("/v1/leads?campaignId=camp_4", json!({ "status": 429, "headers": { "Retry-After": "120" } }))
        .await;
    assert_has(&reconcile.run().await, json!({ "outcome": "paused", "missed": 2, "alerted": 2 }));
    receiver.api.clear().await.unwrap();
    receiver.end_pause().await;
    // With other statuses, a new sweep begins.
    let done = vec![("ALERT_STATUSES", "OPPORTUNITY,DONE".to_owned())];
    let mut reconcile = receiver.reconcile_with(done, TIMEOUT).await;
    campaigns(&["camp_1", "camp_2", "camp_3", "camp_4"]).await;
    receiver.take_requests().await;
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 4, "baseline": 0, "missed": 0 }));
    assert_eq!(receiver.take_requests().await.len(), 9);
    assert_eq!(receiver.alerted(), ["lead_camp_2", "lead_camp_3"]);
}

/// A run makes a limited number of requests.
#[tokio::test]
async fn a_run_has_a_limit_of_requests() {
    let receiver = Receiver::new().await;
    for number in 0..259 {
        receiver.api.put_campaign(&format!("camp_x{number}"), "x").await.unwrap();
    }
    for campaign in ["camp_1", "camp_x0", "camp_x99"] {
        receiver.put(lead_of(&format!("lead_{campaign}"), campaign, 30)).await;
    }
    let two = vec![("ALERT_STATUSES", "OPPORTUNITY,DONE".to_owned())];
    let mut reconcile = receiver.reconcile_with(two, TIMEOUT).await;
    // Three pages of campaigns, and two lists of each campaign.
    assert_has(&reconcile.run().await, json!({ "outcome": "continues", "requests": MAX_REQUESTS, "campaigns": 260 }));
    assert_has(&receiver.progress().await, json!({ "baselined": [] }));
    let rest = 3 + 2 * 260 - (MAX_REQUESTS - 3);
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "requests": rest }));
    assert_has(&receiver.progress().await, json!({ "baselined": ["DONE", "OPPORTUNITY"], "sweep": null }));
    assert_eq!((receiver.known().await.len(), receiver.alerted().len()), (3, 0));
    let mut lists = receiver.take_requests().await;
    lists.retain(|path| path.starts_with("/v1/leads"));
    assert_eq!((lists.len(), lists.iter().collect::<BTreeSet<_>>().len()), (520, 520));
}

/// A run is killed at each call in turn, before the call takes effect or after. The redrive or the
/// next run publishes the alert, whichever comes first.
#[tokio::test]
async fn a_killed_run_loses_no_alert() {
    let calls = ["begin", "known", "claim", "lock", "publish", "complete", "end"];
    let deaths = calls.into_iter().flat_map(|call| [(call, Fault::HeldBefore), (call, Fault::HeldAfter)]);
    let deaths = deaths.flat_map(|(call, fault)| [(call, fault, true), (call, fault, false)]);
    // The redrive does nothing before the first claim, and after the last completion.
    let deaths =
        deaths.filter(|(call, _, redrives_first)| !redrives_first || !matches!(*call, "begin" | "known" | "end"));
    stream::iter(deaths).for_each_concurrent(4, killed_at).await;
}

async fn killed_at((call, fault, redrives_first): (&str, Fault, bool)) {
    let why = format!("{fault:?} at {call}, the redrive first: {redrives_first}");
    let (receiver, mut next) = Receiver::with_baseline().await;
    receiver.opportunity("lead_1", 30).await;
    let mut killed = receiver.reconcile().await;
    receiver.world.aws.next(call, fault);
    killed.function.begin(&json!({})).await;
    receiver.world.aws.held().await;
    // Lambda kills it at its timeout.
    let counted = missed_webhooks(&killed.lines().await);
    assert!(counted == if matches!(call, "begin" | "known") { 0.0 } else { 1.0 }, "{why}");

    receiver.end_leases().await;
    if redrives_first {
        receiver.redrive().await;
    }
    let report = next.run().await;
    if !redrives_first {
        receiver.redrive().await;
    }
    let is_claimed = !matches!((call, fault), ("begin" | "known", _) | ("claim", Fault::HeldBefore));
    let is_locked = is_claimed && !matches!((call, fault), ("claim", _) | ("lock", Fault::HeldBefore));
    let finds = u32::from(!(is_locked || is_claimed && redrives_first));
    assert_has(&report, json!({ "outcome": "complete", "missed": finds, "alerted": finds, "arrived": 0 }));

    let published = receiver.world.aws.published();
    // The proof of the first publish was lost.
    let is_lost = matches!((call, fault), ("publish", Fault::HeldAfter) | ("complete", Fault::HeldBefore));
    assert_eq!(published.len(), if is_lost { 2 } else { 1 }, "{why}");
    assert!(published.iter().all(|publish| *publish == published[0]), "each publish should have the same bytes");
    assert_eq!(receiver.alerts()[0]["data"]["foundBy"], "reconciliation");
    assert!(receiver.world.dynamodb.pending().await.is_empty(), "{why}");
    let mut webhook = receiver.webhook().await;
    assert_eq!(webhook.answer(&event_of("evt_1", "lead_1", 30)).await.1["outcome"], "debounced", "{why}");
    assert_has(&next.run().await, json!({ "missed": 0 }));
    let counted = counted + missed_webhooks(&next.lines().await);
    assert!(counted == f64::from(finds) + if matches!(call, "begin" | "known") { 0.0 } else { 1.0 }, "{why}");
}

#[tokio::test]
async fn a_killed_baseline_is_made_by_the_next_run() {
    for (call, fault) in [("known", Fault::HeldAfter), ("lock", Fault::HeldBefore), ("end", Fault::HeldBefore)] {
        let receiver = Receiver::new().await;
        for number in 0..20 {
            receiver.opportunity(&format!("lead_{number}"), 30).await;
        }
        receiver.world.aws.next(call, fault);
        let mut killed = receiver.reconcile().await;
        killed.function.begin(&json!({})).await;
        receiver.world.aws.held().await;
        killed.function.kill().await;
        let known = receiver.known().await.len();
        receiver.end_leases().await;
        let mut next = receiver.reconcile().await;
        assert_has(&next.run().await, json!({ "outcome": "complete", "baseline": 20 - known, "missed": 0 }));
        assert_eq!((receiver.known().await.len(), receiver.alerted().len()), (20, 0), "{call}");
    }
}

/// DynamoDB or SNS fails in each way at each call in turn, for as long as a run lasts.
#[tokio::test]
async fn every_failure_of_aws_at_every_call_heals() {
    let faults = [
        Fault::Refused(400),
        Fault::Refused(500),
        Fault::Throttled,
        Fault::Lost,
        Fault::HeldBefore,
        Fault::HeldAfter,
        Fault::Denied(500),
        Fault::AnswerLost,
    ];
    stream::iter(faults).for_each_concurrent(8, aws_fails_at_every_call).await;
}

async fn aws_fails_at_every_call(fault: Fault) {
    // The call that fails.
    let failing: Arc<Mutex<Option<&str>>> = Arc::default();
    let fails = failing.clone();
    let fate = move |call: &Call, _| (*fails.lock().unwrap() == Some(call.operation.as_str())).then_some(fault);
    let receiver = Receiver::with_fate(fate).await;
    // If a call is never answered, the run waits for nearly its whole time.
    let waits = matches!(fault, Fault::HeldBefore | Fault::HeldAfter);
    let time = if waits { SHORT * 5 / 8 } else { SHORT * 2 };
    let mut reconcile = receiver.reconcile_with(Vec::new(), time).await;
    let mut next = receiver.reconcile().await;
    receiver.opportunity("lead_old", 30).await;
    if !waits {
        *failing.lock().unwrap() = Some("lock");
        let error = reconcile.fails().await;
        assert!(error.starts_with("the ledger could not take the alert's lock: "), "{fault:?}: {error}");
        *failing.lock().unwrap() = None;
        receiver.end_leases().await;
    }
    assert_has(&next.run().await, json!({ "outcome": "complete", "missed": 0 }));
    assert_eq!(receiver.known().await.len(), 1, "{fault:?}");

    let takes_effect = matches!(fault, Fault::HeldAfter | Fault::Denied(_) | Fault::AnswerLost);
    for call in ["begin", "known", "claim", "lock", "publish", "complete", "end"] {
        let why = format!("{fault:?} at {call}");
        let leads = [format!("lead_{call}_1"), format!("lead_{call}_2")];
        for lead in &leads {
            receiver.opportunity(lead, 30).await;
        }
        *failing.lock().unwrap() = Some(call);
        let began = Instant::now();
        let said = reconcile.function.invoke(&json!({})).await;
        assert!(began.elapsed() < time + Duration::from_secs(1), "{why}: {:?}", began.elapsed());
        match call {
            // On a busy machine, an alert may also wait for the redrive.
            _ if waits && !["begin", "known", "claim", "end"].contains(&call) => {
                assert_has(&report(said), json!({ "missed": 2 }))
            }
            "lock" | "publish" => assert_has(&report(said), json!({ "missed": 2, "alerted": 0, "pending": 2 })),
            "complete" => assert_has(&report(said), json!({ "missed": 2, "alerted": 2, "pending": 0 })),
            _ => {
                let error = failure(said);
                let expected = match call {
                    "end" => "the progress could not be stored: ",
                    _ => "the ledger ",
                };
                assert!(error.starts_with(expected), "{why}: {error}");
                let counts = match call {
                    "end" => "found 2 missed leads and published 2 alerts",
                    "claim" => "found 2 missed leads and published 0 alerts",
                    _ => "found 0 missed leads and published 0 alerts",
                };
                assert!(error.ends_with(counts), "{why}: {error}");
            }
        }
        *failing.lock().unwrap() = None;
        receiver.end_leases().await;
        receiver.redrive().await;
        let report = next.run().await;
        let is_new = matches!(call, "begin" | "known") || call == "claim" && !takes_effect;
        let missed = if is_new { 2 } else { 0 };
        assert_has(&report, json!({ "outcome": "complete", "missed": missed, "alerted": missed }));
        let alerted = receiver.alerted();
        // If the proof of a publish was lost, the redrive publishes the same message again.
        let is_lost = call == "publish" && takes_effect || call == "complete" && !takes_effect;
        for lead in &leads {
            let count = alerted.iter().filter(|other| *other == lead).count();
            assert!(count == 1 || is_lost && count == 2, "{why}: {count} alerts");
        }
        assert!(receiver.world.dynamodb.pending().await.is_empty(), "{why}");
    }
    reconcile.lines().await;
}

/// The pace and the time of a run are too short for all missed leads. The redrive or the next run
/// alerts the others.
#[tokio::test]
async fn more_missed_leads_than_a_run_can_alert() {
    let receiver = Receiver::new().await;
    let paced = vec![("ALERTS_PER_SECOND", "5".to_owned())];
    let mut reconcile = receiver.reconcile_with(paced, Duration::from_secs(4)).await;
    reconcile.run().await;
    let leads: BTreeSet<_> = (0..40).map(|number| format!("lead_{number}")).collect();
    for lead in &leads {
        receiver.opportunity(lead, 30).await;
    }
    let (mut alerted, mut pending) = (0, 0);
    loop {
        let report = reconcile.run().await;
        alerted += report["alerted"].as_u64().unwrap();
        pending += report["pending"].as_u64().unwrap();
        if report["outcome"] == "complete" {
            break;
        }
        assert_has(&report, json!({ "outcome": "continues" }));
    }
    // An attempt that was too slow is repeated.
    assert!(alerted + pending >= 40, "{alerted} alerted, {pending} pending");
    assert!(alerted > 0 && pending > 0, "{alerted} alerted, {pending} pending");
    assert_eq!(receiver.alerted().len() as u64, alerted);
    receiver.redrive().await;
    let all = receiver.alerted();
    assert_eq!((all.len(), all.into_iter().collect::<BTreeSet<_>>()), (40, leads));
    assert_has(&reconcile.run().await, json!({ "outcome": "complete", "missed": 0 }));
    let lines = reconcile.lines().await;
    assert!(missed_webhooks(&lines) == (alerted + pending) as f64, "each attempt should count once");
}
