//! The details of a lead in its alert. SendPilot's API answers, or fails in every way, or the key
//! is not usable. The alert is always published in time, and no log line has personal data.
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::aws::{API_KEY_ARN, Aws, Fault};
use crate::support::emf::{self, Metrics};
use crate::support::lambda::{Lambda, Said, TOPIC};
use crate::support::requests::{change, opportunity_of, reply, signed_now};
use crate::support::world::World;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};
use opportunity_alerts::aws::Aws as Sdk;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::key::DeliveryId;
use opportunity_alerts::secrets::api_key::Source;
use opportunity_alerts::sendpilot::api::{Api, ApiError, ApiUrl, KEY_PAUSE, PAUSE};
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::details::MAX_SEARCH;
use serde_json::{Value, json};
use testkit::sendpilot_api::{KEY, SendPilotApi};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The margin for a busy machine. It is less than a search, so a test still sees a needless wait.
const MARGIN: Duration = Duration::from_secs(1);

const LEAD: &str = "lead_abc123";
const CAMPAIGN: &str = "camp_xyz789";
const CAMPAIGN_NAME: &str = "Autumn in Flanders";
const REPLY: &str = "Call me about the zeppelin.";

const LEAD_PATH: &str = "/v1/leads/lead_abc123";
const CAMPAIGNS_PATH: &str = "/v1/campaigns?page=1&limit=100";

/// Texts that no log line may contain.
const SECRET_TEXTS: [&str; 8] =
    ["Annegret", "Quellwasser", "Zebras", "Ferncliff", "quellwasser.example", "Flanders", "zeppelin", KEY];

/// Returns the parts of a lead that an alert shows.
fn shown() -> Value {
    json!({
        "firstName": "Annegret", "lastName": "Quellwasser", "title": "Head of Zebras",
        "company": "Ferncliff Freight", "email": "annegret@quellwasser.example",
    })
}

/// Returns a lead as the API describes it.
fn lead(id: &str) -> Value {
    let mut lead = shown();
    lead["id"] = id.into();
    lead["status"] = "OPPORTUNITY".into();
    lead["campaignId"] = CAMPAIGN.into();
    lead["linkedinUrl"] = "https://www.linkedin.com/in/annegret".into();
    lead
}

async fn api() -> SendPilotApi {
    let api = SendPilotApi::start().await.unwrap();
    api.put_lead(lead(LEAD)).await.unwrap();
    api.put_campaign(CAMPAIGN, CAMPAIGN_NAME).await.unwrap();
    api
}

/// Returns the variables that turn the API on, with its key.
fn asking(url: &str) -> Vec<(&'static str, String)> {
    vec![("SENDPILOT_API_URL", url.into()), ("SENDPILOT_API_KEY", KEY.into())]
}

/// Returns the sample opportunity, in another campaign.
fn opportunity_in(event: &str, campaign: &str) -> Value {
    signed_now(&opportunity_of(event, LEAD).replace(CAMPAIGN, campaign))
}

/// Returns the details in the message for programs.
fn details(aws: &Aws, event: &str) -> Value {
    let published = aws.published().into_iter().map(|publish| publish["Message"].clone());
    let message = published.rev().find(|message| crate::support::aws::event_id(message) == event).unwrap();
    let bodies: Value = serde_json::from_str(&message).unwrap();
    let event: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
    let data = &event["data"];
    json!({ "lead": data["lead"], "campaign": data["campaignName"], "reply": data["lastReply"]["text"] })
}

fn found(lead: Value, campaign: Value, reply: Value) -> Value {
    json!({ "lead": lead, "campaign": campaign, "reply": reply })
}

fn nothing() -> Value {
    found(json!(null), json!(null), json!(null))
}

/// A function that asks the API.
struct Asking<'a> {
    aws: &'a Aws,
    function: Lambda,
}

impl<'a> Asking<'a> {
    /// Starts the function, and waits until it is ready.
    async fn start(aws: &'a Aws, more: Vec<(&'static str, String)>, timeout: Duration) -> Self {
        let mut function = Lambda::start_with(aws, more, timeout).await;
        assert_eq!(function.answer(&signed_now(&change("evt_0", "DONE"))).await.0, 200);
        Self { aws, function }
    }

    /// Sends an opportunity, which must be alerted. Returns the alert's details, and the time until
    /// its publish.
    async fn alert(&mut self, event: &str, payload: &Value) -> (Value, Duration) {
        let began = Instant::now();
        let (status, said) = self.function.answer(payload).await;
        assert_eq!((status, &said["outcome"]), (200, &json!("alerted")), "{event}");
        let calls = self.aws.journal().into_iter().filter(|call| call.operation == "publish" && call.event == event);
        let [publish] = &calls.collect::<Vec<_>>()[..] else { panic!("{event} should be published once") };
        (details(self.aws, event), publish.at - began)
    }

    /// Sends the sample opportunity with this event id.
    async fn opportunity(&mut self, event: &str) -> (Value, Duration) {
        self.alert(event, &opportunity_in(event, CAMPAIGN)).await
    }

    /// Ends the function, and returns its log lines about alerts, with their metrics.
    async fn lines(self) -> Vec<(Value, Metrics)> {
        lines(self.function).await
    }
}

/// Ends a function, and returns its log lines about alerts, with their metrics. The function must
/// have printed nothing personal.
async fn lines(function: Lambda) -> Vec<(Value, Metrics)> {
    let log = function.log().await;
    for text in SECRET_TEXTS {
        assert!(!log.contains(text), "{text} in {log}");
    }
    let lines = log.lines().map(emf::read);
    lines.filter(|(line, _)| line["message"] == "webhook" && line["newStatus"] == "OPPORTUNITY").collect()
}

/// Returns the paths of the API's requests since the last call of this function, sorted.
async fn asked(api: &SendPilotApi) -> Vec<String> {
    let requests = api.requests().await.unwrap();
    api.forget_requests().await.unwrap();
    let mut paths: Vec<_> = requests.into_iter().map(|request| request.path).collect();
    paths.sort();
    paths
}

// ── Answers ──────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_alert_says_who_the_lead_is() {
    let (world, api) = (World::new().await, api().await);
    let all = [asking(api.url()), vec![("REMEMBER_REPLIES", "yes".into())]].concat();
    let mut asking = Asking::start(&world.aws, all, TIMEOUT).await;
    let replied = asking.function.answer(&signed_now(&reply("evt_reply", LEAD, REPLY).to_string())).await;
    assert_eq!((replied.0, &replied.1["outcome"]), (200, &json!("remembered")));
    assert_eq!(world.aws.take_calls(), ["remember"]);
    assert_eq!(asked(&api).await, [""; 0]);

    let known = found(shown(), CAMPAIGN_NAME.into(), REPLY.into());
    assert_eq!(asking.opportunity("evt_1").await.0, known);
    assert_eq!(world.aws.take_calls(), ["reply", "claim", "publish", "complete"]);
    let bodies: Value = serde_json::from_str(&world.aws.published()[0]["Message"]).unwrap();
    for part in ["Annegret Quellwasser", "Head of Zebras", "Ferncliff Freight", CAMPAIGN_NAME, "the zeppelin"] {
        assert!(bodies["email"].as_str().unwrap().contains(part), "{part} is not in {bodies:#}");
    }
    let requests = api.requests().await.unwrap();
    assert!(requests.iter().all(|request| request.method == "GET" && request.headers["x-api-key"] == KEY));
    assert_eq!(asked(&api).await, [CAMPAIGNS_PATH, LEAD_PATH]);

    // The campaign's name is known now.
    assert_eq!(asking.opportunity("evt_2").await.0, known);
    assert_eq!(asked(&api).await, [LEAD_PATH]);

    api.put_campaign("camp_new", "Winter in Flanders").await.unwrap();
    let (details, _) = asking.alert("evt_3", &opportunity_in("evt_3", "camp_new")).await;
    assert_eq!(details, found(shown(), "Winter in Flanders".into(), REPLY.into()));
    assert_eq!(asked(&api).await, [CAMPAIGNS_PATH, LEAD_PATH], "a new campaign should be found at once");

    for (event, expected) in [("evt_4", &[CAMPAIGNS_PATH, LEAD_PATH][..]), ("evt_5", &[LEAD_PATH])] {
        let (details, _) = asking.alert(event, &opportunity_in(event, "camp_unknown")).await;
        assert_eq!(details, found(shown(), json!(null), REPLY.into()), "{event}");
        assert_eq!(asked(&api).await, expected, "an unknown campaign should be looked for once");
    }

    world.aws.take_calls();
    let again = asking.function.answer(&opportunity_in("evt_1", CAMPAIGN)).await;
    assert_eq!((again.0, &again.1["outcome"]), (200, &json!("duplicate")));
    assert_eq!(world.aws.take_calls(), ["reply", "claim"]);
    assert_eq!(world.aws.alerts(), ["evt_1", "evt_2", "evt_3", "evt_4", "evt_5"]);

    let lines = asking.lines().await;
    let parts: Vec<_> = lines.iter().map(|(line, _)| line["details"].as_str().unwrap()).collect();
    let all = "lead, campaign, reply";
    assert_eq!(parts, [all, all, all, "lead, reply", "lead, reply", all]);
    for (line, metrics) in &lines {
        assert_eq!((&line["level"], &line["detailsFailure"]), (&json!("INFO"), &json!(null)), "{line}");
        assert!(line["DetailsTime"].is_u64() && metrics.is_empty(), "{line}");
    }
}

#[tokio::test]
async fn finds_a_campaign_on_a_further_page() {
    let (world, api) = (World::new().await, api().await);
    for number in 2..=101 {
        api.put_campaign(&format!("camp_{number}"), &format!("Campaign {number}")).await.unwrap();
    }
    let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
    let (details, _) = asking.alert("evt_1", &opportunity_in("evt_1", "camp_101")).await;
    assert_eq!(details, found(shown(), "Campaign 101".into(), json!(null)));
    assert_eq!(asked(&api).await, [CAMPAIGNS_PATH, "/v1/campaigns?page=2&limit=100", LEAD_PATH]);
    // The first page has named all other campaigns.
    let (details, _) = asking.alert("evt_2", &opportunity_in("evt_2", "camp_57")).await;
    assert_eq!(details["campaign"], "Campaign 57");
    assert_eq!(asked(&api).await, [LEAD_PATH]);
    asking.lines().await;
}

/// The older documentation has `/api` before each path, and another form of the lists.
#[tokio::test]
async fn asks_under_the_path_of_the_address() {
    let (world, api) = (World::new().await, api().await);
    let list = json!({ "data": [7, null, { "id": CAMPAIGN, "name": CAMPAIGN_NAME }], "meta": {} });
    api.answer("/v1/campaigns", json!({ "body": list })).await.unwrap();
    api.answer("/v1/leads", json!({ "body": { "data": lead(LEAD) } })).await.unwrap();
    let mut asking = Asking::start(&world.aws, asking(&format!("{}/api/", api.url())), TIMEOUT).await;
    assert_eq!(asking.opportunity("evt_1").await.0, found(shown(), CAMPAIGN_NAME.into(), json!(null)));
    assert_eq!(asked(&api).await, [format!("/api{CAMPAIGNS_PATH}"), format!("/api{LEAD_PATH}")]);
    asking.lines().await;
}

#[tokio::test]
async fn leaves_out_parts_of_another_type() {
    let (world, api) = (World::new().await, api().await);
    let others = [json!(null), json!(""), json!(" "), json!(7), json!(true), json!(["Annegret"]), json!({ "a": 1 })];
    let named = |(number, other)| json!({ "id": format!("camp_{number}"), "name": other, "status": other });
    let mut list: Vec<_> = others.iter().enumerate().map(named).collect();
    list.extend(others.iter().map(|other| json!({ "id": other, "name": "Flanders" })));
    list.extend(others.clone());
    api.answer("/v1/campaigns", json!({ "body": { "campaigns": list } })).await.unwrap();
    let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
    for (number, other) in others.iter().enumerate() {
        let odd = json!({ "id": LEAD, "firstName": other, "lastName": other, "title": other, "email": other });
        for (company, expected) in
            [(other.clone(), json!(null)), ("Ferncliff Freight".into(), json!({ "company": "Ferncliff Freight" }))]
        {
            let mut odd = odd.clone();
            odd["company"] = company;
            api.put_lead(odd.clone()).await.unwrap();
            let event = format!("evt_{number}_{}", expected.is_null());
            let (details, _) = asking.alert(&event, &opportunity_in(&event, &format!("camp_{number}"))).await;
            assert_eq!(details, found(expected, json!(null), json!(null)), "{odd}");
        }
    }
    for (line, metrics) in asking.lines().await {
        assert_eq!((&line["level"], &line["detailsFailure"]), (&json!("INFO"), &json!(null)), "{line}");
        assert!(metrics.is_empty(), "{line}");
    }
}

// ── Failures ─────────────────────────────────────────────────────────────────────────────────────

/// A way in which the API fails.
struct Failure {
    name: &'static str,
    /// The prefix of the paths whose answers change, and the changes.
    prefix: &'static str,
    changes: Value,
    /// Part of the reason in the log.
    why: &'static str,
    /// Whether the next alert does not ask.
    pauses: bool,
    about_key: bool,
    /// Whether the first alert waits until the end of its search.
    waits: bool,
}

fn failure(name: &'static str, changes: Value, why: &'static str) -> Failure {
    Failure { name, prefix: "/v1", changes, why, pauses: true, about_key: false, waits: false }
}

fn failures() -> Vec<Failure> {
    const LATE: &str = "did not answer in time";
    const UNREACHABLE: &str = "could not be reached";
    const UNEXPECTED: &str = "did not answer with the documented JSON";
    let of_the_lead =
        |name, changes, why| Failure { prefix: "/v1/leads", pauses: false, ..failure(name, changes, why) };
    let half = |body: &str| json!({ "body": body, "half": true });
    vec![
        Failure { waits: true, ..failure("no answer", json!({ "hang": true }), LATE) },
        Failure { waits: true, ..failure("answer after 5 s", json!({ "delay": 5000 }), LATE) },
        Failure { about_key: true, ..failure("401", json!({ "status": 401 }), "refused the API key (401)") },
        Failure { about_key: true, ..failure("403", json!({ "status": 403 }), "lacks a scope (403)") },
        of_the_lead("404", json!({ "status": 404 }), "does not know the lead (404)"),
        of_the_lead("400", json!({ "status": 400 }), "does not know the lead (400)"),
        of_the_lead("another lead", json!({ "body": lead("lead_other") }), "answered about another lead"),
        failure("429", json!({ "status": 429 }), "answered 429"),
        failure("429, Retry-After", json!({ "status": 429, "headers": { "Retry-After": "60" } }), "answered 429"),
        failure("500", json!({ "status": 500 }), "answered 500"),
        failure("503, Retry-After", json!({ "status": 503, "headers": { "Retry-After": "60" } }), "answered 503"),
        failure("204", json!({ "status": 204, "body": "" }), UNEXPECTED),
        failure("HTML", json!({ "body": "<html>Annegret</html>" }), UNEXPECTED),
        failure("half a JSON", json!({ "body": r#"{"id":"lead_abc123","firstName":"Annegr"# }), UNEXPECTED),
        failure("half an answer", half(r#"{"id":"lead_abc123","firstName":"Annegret"}"#), UNREACHABLE),
        failure("half an answer, chunked", json!({ "half": true, "chunked": true }), UNREACHABLE),
        failure("closed connection", json!({ "close": true }), UNREACHABLE),
        failure("[]", json!({ "body": "[]" }), UNEXPECTED),
        failure("a string", json!({ "body": "\"Annegret\"" }), UNEXPECTED),
        failure("a number", json!({ "body": "7" }), UNEXPECTED),
        failure("null", json!({ "body": "null" }), UNEXPECTED),
        failure("an empty answer", json!({ "body": "" }), UNEXPECTED),
        failure("4 MB", json!({ "huge": 4_000_000 }), "more than 262144 bytes"),
        failure("4 MB, chunked", json!({ "huge": 4_000_000, "chunked": true }), "more than 262144 bytes"),
    ]
}

/// The times of the first and the second alert, and the time of the first search.
struct Times(Duration, Duration, Duration);

impl Failure {
    async fn check(&self, world: &World, api: &SendPilotApi) -> Times {
        api.forget_requests().await.unwrap();
        api.answer(self.prefix, self.changes.clone()).await.unwrap();
        let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
        let name = self.name;
        let campaign = if self.prefix == "/v1" { json!(null) } else { CAMPAIGN_NAME.into() };
        let without = found(json!(null), campaign, json!(null));
        let (details, first) = asking.opportunity(&format!("evt {name} 1")).await;
        assert_eq!(details, without, "{name}");
        let mut paths = asked(api).await;
        // A request whose connection breaks is sent again.
        paths.dedup();
        assert_eq!(paths, [CAMPAIGNS_PATH, LEAD_PATH], "{name}");
        let longest = if self.waits { MAX_SEARCH + MARGIN } else { MARGIN };
        assert!(first < longest, "{name}: {first:?}");

        let (details, second) = asking.opportunity(&format!("evt {name} 2")).await;
        assert_eq!(details, without, "{name}");
        assert_eq!(asked(api).await, if self.pauses { vec![] } else { vec![LEAD_PATH] }, "{name}");
        assert!(second < MARGIN, "{name}: {second:?}");

        // The API works again, but a pause goes on.
        api.clear().await.unwrap();
        let (details, _) = asking.opportunity(&format!("evt {name} 3")).await;
        assert_eq!(details["lead"], if self.pauses { json!(null) } else { shown() }, "{name}");

        let lines = asking.lines().await;
        let [(one, _), (two, _), (three, _)] = &lines[..] else { panic!("{lines:?}") };
        let why = |line: &Value| line["detailsFailure"].as_str().unwrap_or_default().to_owned();
        assert!(why(one).contains(self.why), "{name}: {one}");
        let later = if self.pauses { "was not asked, because an earlier request failed" } else { self.why };
        assert!(why(two).contains(later), "{name}: {two}");
        assert_eq!(why(three).contains("was not asked"), self.pauses, "{name}: {three}");
        for (line, metrics) in &lines {
            let expected = if self.about_key { ("WARN", vec!["ApiKeyUnusable Count"]) } else { ("INFO", vec![]) };
            let names = metrics.keys().map(String::as_str).collect::<Vec<_>>();
            assert_eq!((line["level"].as_str().unwrap(), names), expected, "{name}: {line}");
        }
        Times(first, second, Duration::from_millis(one["DetailsTime"].as_u64().unwrap()))
    }
}

#[tokio::test]
async fn no_failure_of_the_api_delays_an_alert() {
    let world = &World::new().await;
    let failures = failures();
    // One stand-in for several failures, because its start takes longer than most failures.
    let lanes = failures.chunks(failures.len().div_ceil(4)).map(|failures| async move {
        let api = api().await;
        let mut times = Vec::new();
        for failure in failures {
            times.push(failure.check(world, &api).await);
        }
        times
    });
    let checked = join_all(lanes).await.into_iter().flatten();
    println!("{:<26}{:>8}{:>14}{:>14}", "failure of the API", "search", "first alert", "second alert");
    for (failure, Times(first, second, search)) in failures.iter().zip(checked) {
        let [search, first, second] = [search, first, second].map(|time| format!("{} ms", time.as_millis()));
        println!("{:<26}{search:>8}{first:>14}{second:>14}", failure.name);
    }
}

/// Lambda would end the invocation after 3 s. A search gets a fifth of the time.
#[tokio::test]
async fn a_short_invocation_searches_for_a_fifth_of_its_time() {
    let (world, api) = (World::new().await, api().await);
    api.answer("/v1", json!({ "hang": true })).await.unwrap();
    let mut asking = Asking::start(&world.aws, asking(api.url()), Duration::from_secs(3)).await;
    let (details, took) = asking.opportunity("evt_1").await;
    assert_eq!(details, nothing());
    let lines = asking.lines().await;
    let search = Duration::from_millis(lines[0].0["DetailsTime"].as_u64().unwrap());
    println!("search: {search:?}, alert: {took:?}");
    let fifth = Duration::from_millis(600);
    assert!(search < fifth + MARGIN / 4 && took < fifth + MARGIN / 2, "{search:?} {took:?}");
}

#[tokio::test]
async fn only_the_alert_waits_for_the_details() {
    let (world, api) = (World::new().await, api().await);
    api.answer("/v1", json!({ "hang": true })).await.unwrap();
    let stream = ("STATUS_TOPIC_ARN", format!("{TOPIC}-status"));
    let mut asking = Asking::start(&world.aws, [asking(api.url()), vec![stream]].concat(), TIMEOUT).await;
    asking.opportunity("evt_1").await;
    let journal = world.aws.journal();
    let at =
        |operation, event| journal.iter().find(|call| call.operation == operation && call.event == event).unwrap().at;
    let ahead = at("publish", "evt_1") - at("status publish", "evt_1#status");
    assert!(ahead > MAX_SEARCH / 2, "{ahead:?}");
    asking.lines().await;
}

#[tokio::test]
async fn an_unreachable_api_costs_no_time() {
    let world = World::new().await;
    // Nothing listens on this port.
    let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut asking = Asking::start(&world.aws, asking(&format!("http://{unused}")), TIMEOUT).await;
    for event in ["evt_1", "evt_2"] {
        let (details, took) = asking.opportunity(event).await;
        assert_eq!(details, nothing());
        assert!(took < MARGIN, "{event}: {took:?}");
    }
    let lines = asking.lines().await;
    let [(one, none), (two, _)] = &lines[..] else { panic!("{lines:?}") };
    assert!(one["detailsFailure"].as_str().unwrap().starts_with("SendPilot's API could not be reached"), "{one}");
    assert!(two["detailsFailure"].as_str().unwrap().contains("was not asked"), "{two}");
    assert_eq!((one["level"].as_str().unwrap(), none.len()), ("INFO", 0));
}

/// The other host would get the key.
#[tokio::test]
async fn never_follows_a_redirect() {
    let (world, elsewhere) = (World::new().await, api().await);
    for status in [302, 308] {
        let api = api().await;
        let location = json!({ "Location": format!("{}{LEAD_PATH}", elsewhere.url()) });
        api.answer("/v1", json!({ "status": status, "headers": location })).await.unwrap();
        let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
        assert_eq!(asking.opportunity(&format!("evt_{status}")).await.0, nothing(), "{status}");
        let lines = asking.lines().await;
        assert_eq!(lines[0].0["detailsFailure"], format!("SendPilot's API answered {status}"));
    }
    assert_eq!(asked(&elsewhere).await, [""; 0]);
}

#[tokio::test]
async fn asks_again_after_the_pause() {
    for status in [429, 503] {
        let (world, api) = (World::new().await, api().await);
        api.answer("/v1", json!({ "status": status, "headers": { "Retry-After": "1" } })).await.unwrap();
        let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
        assert_eq!(asking.opportunity("evt_1").await.0, nothing());
        api.clear().await.unwrap();
        asked(&api).await;
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let (details, _) = asking.opportunity("evt_2").await;
        assert_eq!(details, found(shown(), CAMPAIGN_NAME.into(), json!(null)), "{status}");
        assert_eq!(asked(&api).await, [CAMPAIGNS_PATH, LEAD_PATH], "{status}");
        asking.lines().await;
    }
}

/// Only a refused key, and a rate limit, concern both calls.
#[tokio::test]
async fn a_failure_of_one_call_does_not_pause_the_other() {
    let world = &World::new().await;
    let calls = [("/v1/leads", LEAD_PATH, CAMPAIGNS_PATH), ("/v1/campaigns", CAMPAIGNS_PATH, LEAD_PATH)];
    let checks = calls.map(|(prefix, failing, other)| async move {
        let api = api().await;
        for (status, both) in [(500, false), (403, false), (429, true), (401, true)] {
            api.answer(prefix, json!({ "status": status })).await.unwrap();
            let mut asking = Asking::start(&world.aws, asking(api.url()), TIMEOUT).await;
            let event = |number: u8| format!("evt{prefix}/{status}/{number}");
            asking.opportunity(&event(1)).await;
            let both_calls = asked(&api).await;
            assert!(both_calls.iter().any(|path| path == failing), "{prefix} {status}");
            // Another campaign, because the name of the first one may be known.
            asking.alert(&event(2), &opportunity_in(&event(2), "camp_new")).await;
            let expected = if both { vec![] } else { vec![other] };
            assert_eq!(asked(&api).await, expected, "{prefix} {status}");
            asking.lines().await;
        }
    });
    join_all(checks).await;
}

// ── The key ──────────────────────────────────────────────────────────────────────────────────────

/// A value of the key's secret: the output of `GetSecretValue`, and what must come of it.
struct Stored {
    name: &'static str,
    value: Option<Value>,
    /// Part of the reason in the log if the value cannot be used.
    why: Option<&'static str>,
}

impl Stored {
    async fn check(&self, api: &SendPilotApi) {
        let (world, name) = (World::new().await, self.name);
        world.aws.put_api_key(self.value.clone());
        let variables = vec![("SENDPILOT_API_URL", api.url().to_owned()), ("SENDPILOT_API_KEY_ID", API_KEY_ARN.into())];
        let mut asking = Asking::start(&world.aws, variables, TIMEOUT).await;
        assert_eq!(world.aws.take_calls(), [""; 0], "{name}: only an alert needs the key");
        let expected = match self.why {
            None => found(shown(), CAMPAIGN_NAME.into(), json!(null)),
            Some(_) => nothing(),
        };
        for (event, calls) in
            [("evt_1", &["key", "claim", "publish", "complete"][..]), ("evt_2", &["claim", "publish", "complete"])]
        {
            let (details, took) = asking.opportunity(event).await;
            assert_eq!(details, expected, "{name}");
            assert_eq!(world.aws.take_calls(), calls, "{name}");
            assert!(took < MARGIN, "{name}: {took:?}");
        }
        let lines = asking.lines().await;
        for ((line, metrics), is_first) in lines.iter().zip([true, false]) {
            let why = line["detailsFailure"].as_str().unwrap_or_default();
            match self.why {
                None => assert!(why.is_empty() && line["level"] == "INFO" && metrics.is_empty(), "{name}: {line}"),
                Some(expected) => {
                    assert!(why.contains(expected) || !is_first, "{name}: {line}");
                    assert!(line["level"] == "WARN" && metrics["ApiKeyUnusable Count"] > 0.0, "{name}: {line}");
                }
            }
            assert!(!line.to_string().contains("gobbledygook"), "{name}: {line}");
        }
    }
}

#[tokio::test]
async fn reads_the_key_from_secrets_manager_in_every_form() {
    let text = |name, value: String, why| Stored { name, value: Some(json!({ "SecretString": value })), why };
    let values = [
        text("plain text", KEY.into(), None),
        text("white space around", format!(" {KEY}\n"), None),
        text("JSON", json!({ "apiKey": KEY }).to_string(), None),
        text("JSON, another name", json!({ "SENDPILOT": KEY }).to_string(), None),
        text("JSON, more members", json!({ "note": "x", "apiKey": KEY }).to_string(), None),
        text("the placeholder", json!({ "apiKey": "" }).to_string(), Some("holds no API key")),
        text("empty", String::new(), Some("holds no API key")),
        text("a sentence", "gobbledygook and more".into(), Some("more than one word")),
        text("two members", json!({ "a": "gobbledygook", "b": KEY }).to_string(), Some("is JSON, but not")),
        text("half a JSON", r#"{"apiKey":"gobbledygook"#.into(), Some("is JSON, but not")),
        text("quotes", "\u{201c}gobbledygook\u{201d}".into(), Some("copy the API key again")),
        text("the signing secret", "whsec_gobbledygook".into(), Some("is the webhook's signing secret")),
        Stored { name: "binary", value: Some(json!({ "SecretBinary": "AAAA" })), why: Some("is binary") },
        Stored { name: "no secret", value: None, why: Some("does not exist in Secrets Manager, or has no value") },
    ];
    let api = &api().await;
    stream::iter(&values).map(|stored| stored.check(api)).buffer_unordered(4).collect::<()>().await;
    // With each usable key, one alert asks for the lead and the campaigns, the next for the lead.
    let usable = values.iter().filter(|stored| stored.why.is_none()).count();
    assert_eq!(asked(api).await.len(), usable * 3);
}

#[tokio::test]
async fn an_unreadable_secret_costs_no_alert() {
    for (fault, about_key) in [(Fault::Refused(400), true), (Fault::HeldBefore, false)] {
        let world = World::with_fate(move |call, _| (call.operation == "key").then_some(fault)).await;
        let api = api().await;
        let variables = vec![("SENDPILOT_API_URL", api.url().to_owned()), ("SENDPILOT_API_KEY_ID", API_KEY_ARN.into())];
        let mut asking = Asking::start(&world.aws, variables, TIMEOUT).await;
        let (details, took) = asking.opportunity("evt_1").await;
        assert_eq!(details, nothing(), "{fault:?}");
        assert!(took < MAX_SEARCH + MARGIN, "{fault:?}: {took:?}");
        world.aws.take_calls();
        let (_, took) = asking.opportunity("evt_2").await;
        assert!(took < MARGIN && world.aws.take_calls()[0] == "claim", "{fault:?}: {took:?}");
        for (line, metrics) in asking.lines().await {
            assert_eq!(metrics.contains_key("ApiKeyUnusable Count"), about_key, "{fault:?}: {line}");
        }
    }
}

/// The client of the API in this process, at a time that the test sets.
#[tokio::test]
async fn a_replaced_key_is_read_after_the_pause() {
    const START: Timestamp = Timestamp::from_millis(1_708_770_600_000);
    const MOMENT: Duration = Duration::from_secs(1);
    let (aws, server) = (Aws::before("nowhere").await, api().await);
    let environment = HashMap::from([
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_ENDPOINT_URL", &aws.url),
    ]);
    let sdk = Sdk::read(|name| environment.get(name).map(ToString::to_string)).unwrap();
    let api = Api::new(ApiUrl::parse(server.url()).unwrap(), Source::stored(API_KEY_ARN.into(), &sdk), &sdk);
    let ask = async |after: Duration| {
        let now = START.after(after);
        let invocation = Invocation::new("request-1", now.after(TIMEOUT), now, [0; 8]);
        let by = tokio::time::Instant::now() + Duration::from_secs(5);
        let answers = api.ask(LEAD, Some(CAMPAIGN), &invocation, by).await;
        (answers.lead.unwrap(), aws.take_calls())
    };
    let key = |key: &str| Some(json!({ "SecretString": key }));

    // No key is stored at first.
    let (lead, calls) = ask(Duration::ZERO).await;
    assert!(matches!(lead, Err(ApiError::Key(_))) && calls == ["key"], "{lead:?}, {calls:?}");
    aws.put_api_key(key("sp_live_other"));
    let (lead, calls) = ask(PAUSE - MOMENT).await;
    assert!(matches!(lead, Err(ApiError::Paused { about_key: true })) && calls.is_empty(), "{lead:?}, {calls:?}");
    let (lead, calls) = ask(PAUSE + MOMENT).await;
    assert!(matches!(lead, Err(ApiError::Unauthorized)) && calls == ["key"], "{lead:?}, {calls:?}");

    // The API has refused the key. Someone stores the right one.
    aws.put_api_key(key(KEY));
    server.forget_requests().await.unwrap();
    let (lead, calls) = ask(PAUSE + KEY_PAUSE - MOMENT).await;
    assert!(matches!(lead, Err(ApiError::Paused { about_key: true })) && calls.is_empty(), "{lead:?}, {calls:?}");
    assert_eq!(asked(&server).await, [""; 0]);
    let (lead, calls) = ask(PAUSE + KEY_PAUSE + MOMENT * 2).await;
    assert_eq!((lead.unwrap().first_name.as_deref(), calls), (Some("Annegret"), vec!["key".to_owned()]));
    let (lead, calls) = ask(PAUSE + KEY_PAUSE + MOMENT * 3).await;
    assert!(lead.is_ok() && calls.is_empty(), "the key should be kept: {calls:?}");
}

// ── The message is written once ──────────────────────────────────────────────────────────────────

async fn row_message(world: &World) -> HashMap<String, String> {
    let row = world.dynamodb.row(&DeliveryId::alert(Some("ws_abc123xyz"), "evt_1")).await.unwrap();
    let message = row["message"].as_m().unwrap();
    message.iter().map(|(name, value)| (name.clone(), value.as_s().unwrap().clone())).collect()
}

/// Between two publishes, the API recovers, fails, or changes its answer.
#[tokio::test]
async fn every_publish_has_the_details_of_the_first_claim() {
    for (name, before, after) in [
        ("recovers", Some(json!({ "status": 500 })), None),
        ("fails", None, Some(json!({ "status": 500 }))),
        ("changes", None, Some(json!({ "body": { "id": LEAD, "firstName": "Someone else" } }))),
    ] {
        let (world, api) = (World::new().await, api().await);
        let answer = async |changes: Option<Value>| match changes {
            Some(changes) => api.answer("/v1/leads", changes).await.unwrap(),
            None => api.clear().await.unwrap(),
        };
        let expected = if before.is_some() { json!(null) } else { shown() };
        answer(before).await;
        // The publish takes effect, but the function does not learn that.
        world.aws.next("publish", Fault::Denied(500));
        let mut first = Lambda::start_with(&world.aws, asking(api.url()), TIMEOUT).await;
        assert_eq!(first.answer(&opportunity_in("evt_1", CAMPAIGN)).await.0, 503, "{name}");
        answer(after).await;
        // Another process, because the first one may pause.
        let mut second = Lambda::start_with(&world.aws, asking(api.url()), TIMEOUT).await;
        assert_eq!(second.answer(&opportunity_in("evt_1", CAMPAIGN)).await.0, 200, "{name}");
        assert_eq!(details(&world.aws, "evt_1")["lead"], expected, "{name}");
        let [one, two] = &world.aws.published()[..] else { panic!("{name}") };
        assert_eq!(one, two, "{name}");
        for (parameter, value) in row_message(&world).await {
            assert_eq!(one[&parameter], value, "{name}");
        }
        for function in [first, second] {
            lines(function).await;
        }
    }
}

#[tokio::test]
async fn the_redrive_publishes_the_details_of_the_first_claim() {
    let (world, api) = (World::new().await, api().await);
    world.aws.next("publish", Fault::Refused(403));
    let mut function = Lambda::start_with(&world.aws, asking(api.url()), TIMEOUT).await;
    assert_eq!(function.answer(&opportunity_in("evt_1", CAMPAIGN)).await.0, 503);
    asked(&api).await;
    let stored = row_message(&world).await;
    // Even with these variables, the redrive would not ask.
    let mut redrive = Lambda::start_redrive_with(&world.aws, asking(api.url()), TIMEOUT).await;
    let Said::Response(report) = redrive.invoke(&json!({ "now": true })).await else { panic!("expected a report") };
    assert_eq!(report["published"], 1);
    assert_eq!(details(&world.aws, "evt_1"), found(shown(), CAMPAIGN_NAME.into(), json!(null)));
    for (parameter, value) in stored {
        assert_eq!(world.aws.published()[0][&parameter], value);
    }
    assert_eq!(asked(&api).await, [""; 0]);
    for function in [function, redrive] {
        lines(function).await;
    }
}
