//! The rules of SendPilot's API client: addresses, keys, pauses, and what it keeps. The API is a
//! double, and each test sets the time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use opportunity_alerts::aws::Aws;
use opportunity_alerts::config::{self, ConfigError};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::details::{Details, LastReply};
use opportunity_alerts::secrets::api_key::{ApiKey, Source};
use opportunity_alerts::sendpilot::api::{
    Answers, Api, ApiError, ApiUrl, KEY_PAUSE, Lead, MAX_ANSWER, MAX_PAUSE, NAME_MAX_AGE, NO_NAME_MAX_AGE, PAUSE,
};
use opportunity_alerts::sendpilot::event::Reply;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::details::Sources;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

const KEY: &str = "sp_live_sample";
/// 24 February 2024, 10:30:00 UTC, a Saturday.
const START: Timestamp = Timestamp::from_millis(1_708_770_600_000);
const SECOND: Duration = Duration::from_secs(1);

/// A double of the API.
#[derive(Debug, Clone, Default)]
struct Server(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last answer that fits a path counts.
    answers: Vec<Planned>,
    hangs: bool,
    asked: Vec<String>,
    /// The number of connections that must not be used again.
    poisoned: usize,
}

/// The answer to all paths with a prefix.
#[derive(Debug)]
struct Planned {
    prefix: String,
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut state = self.0.lock().unwrap();
        let path = request.uri().strip_prefix("https://api.example").unwrap().to_owned();
        assert_eq!((request.method(), request.headers().get("x-api-key")), ("GET", Some(KEY)));
        state.asked.push(path.clone());
        if state.hangs {
            let server = self.clone();
            let poison = move || server.0.lock().unwrap().poisoned += 1;
            let connection = ConnectionMetadata::builder().proxied(false).poison_fn(poison).build();
            let capture = request.extension::<CaptureSmithyConnection>().unwrap();
            capture.set_connection_retriever(move || Some(connection.clone()));
            return HttpConnectorFuture::new(std::future::pending());
        }
        let planned = state.answers.iter().rev().find(|planned| path.starts_with(&planned.prefix)).unwrap();
        let body = SdkBody::from(planned.body.clone());
        let mut answer = HttpResponse::new(planned.status.try_into().unwrap(), body);
        for (name, value) in &planned.headers {
            answer.headers_mut().insert(*name, value.clone());
        }
        HttpConnectorFuture::new(async move {
            // So that two calls at once are both asked before the first is answered.
            tokio::task::yield_now().await;
            Ok(answer)
        })
    }
}

impl Server {
    /// Returns a double that knows the lead `lead_1` and the campaign `camp_1`.
    fn new() -> Self {
        let server = Self::default();
        server.answer("/v1/leads/", 200, &[], &json!({ "id": "lead_1", "firstName": "Ann" }).to_string());
        server.answer("/v1/campaigns", 200, &[], &campaigns(&[("camp_1", "Spring")]));
        server
    }

    fn answer(&self, prefix: &str, status: u16, headers: &[(&'static str, &str)], body: &str) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        let planned = Planned { prefix: prefix.to_owned(), status, headers, body: body.to_owned() };
        self.0.lock().unwrap().answers.push(planned);
    }

    /// Returns the paths that were asked for since the last call of this function.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    fn api(&self) -> Api {
        let url = ApiUrl::parse("https://api.example").unwrap();
        let key = Source::given(ApiKey::parse(KEY).unwrap());
        Api::over(SharedHttpConnector::new(self.clone()), url, key)
    }
}

fn campaigns(campaigns: &[(&str, &str)]) -> String {
    let campaigns: Vec<_> = campaigns.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    json!({ "campaigns": campaigns }).to_string()
}

fn invocation(now: Timestamp) -> Invocation {
    Invocation::new("request-1", now.after(10 * SECOND), now, [0; 8])
}

async fn ask_for(api: &Api, lead: &str, campaign: Option<&str>, now: Timestamp) -> Answers {
    api.ask(lead, campaign, &invocation(now), Instant::now() + SECOND).await
}

/// Asks for `lead_1` and `camp_1`.
async fn ask(api: &Api, now: Timestamp) -> Answers {
    ask_for(api, "lead_1", Some("camp_1"), now).await
}

// ── Pauses ───────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn each_failure_causes_its_pause() {
    let retry_after = |after: &'static str| vec![("retry-after", after)];
    let seconds = Duration::from_secs;
    for (status, headers, pause, for_both_calls) in [
        (401, vec![], KEY_PAUSE, true),
        (401, retry_after("7"), KEY_PAUSE, true),
        (403, vec![], KEY_PAUSE, false),
        (429, vec![], PAUSE, true),
        (429, retry_after("7"), seconds(7), true),
        (429, retry_after(" 90 "), seconds(90), true),
        (429, retry_after("Sat, 24 Feb 2024 10:31:10 GMT"), seconds(70), true),
        (429, retry_after("soon"), PAUSE, true),
        (429, retry_after("-5"), PAUSE, true),
        (429, retry_after(""), PAUSE, true),
        (429, retry_after("1.5"), PAUSE, true),
        (429, retry_after("86400"), MAX_PAUSE, true),
        (429, retry_after("18446744073709551615"), MAX_PAUSE, true),
        (429, retry_after("18446744073709551616"), PAUSE, true),
        (429, retry_after("Sun, 24 Feb 2124 10:31:10 GMT"), MAX_PAUSE, true),
        (503, retry_after("7"), seconds(7), false),
        (503, vec![], PAUSE, false),
        (500, retry_after("7"), PAUSE, false),
        (302, retry_after("7"), PAUSE, false),
        (418, vec![], PAUSE, false),
    ] {
        let what = format!("{status} {headers:?}");
        let server = Server::new();
        let api = server.api();
        server.answer("/v1/leads/", status, &headers, "{}");
        assert!(ask_for(&api, "lead_1", None, START).await.lead.unwrap().is_err(), "{what}");
        server.answer("/v1/leads/", 200, &[], r#"{"id":"lead_1"}"#);
        server.asked();

        let Answers { lead, campaign_name } = ask(&api, START.after(pause - SECOND)).await;
        let is_about_key = matches!(status, 401 | 403);
        let refused = lead.unwrap().unwrap_err();
        assert!(
            matches!(&refused, ApiError::Paused { about_key } if *about_key == is_about_key),
            "{what}: {refused:?}"
        );
        assert_eq!(refused.is_about_key(), is_about_key, "{what}");
        assert_eq!(campaign_name.unwrap().is_err(), for_both_calls, "{what}");
        let asked: &[&str] = if for_both_calls { &[] } else { &["/v1/campaigns?page=1&limit=100"] };
        assert_eq!(server.asked(), asked, "{what}");

        assert!(ask_for(&api, "lead_1", None, START.after(pause + SECOND)).await.lead.unwrap().is_ok(), "{what}");
        assert_eq!(server.asked(), ["/v1/leads/lead_1"], "{what}");
    }
}

#[tokio::test]
async fn a_failure_that_concerns_one_lead_or_is_over_causes_no_pause() {
    let other = json!({ "id": "lead_2" }).to_string();
    let past = ("retry-after", "Sat, 24 Feb 2024 10:29:00 GMT");
    for (status, headers, body) in [
        (400, vec![], "{}"),
        (404, vec![], "{}"),
        (410, vec![], "{}"),
        (422, vec![], "{}"),
        (200, vec![], other.as_str()),
        (429, vec![("retry-after", "0")], "{}"),
        (503, vec![past], "{}"),
    ] {
        let server = Server::new();
        let api = server.api();
        server.answer("/v1/leads/", status, &headers, body);
        for _ in 0..2 {
            let lead = ask_for(&api, "lead_1", None, START).await.lead.unwrap();
            assert!(!lead.unwrap_err().is_about_key(), "{status}");
            assert_eq!(server.asked(), ["/v1/leads/lead_1"], "{status}");
        }
    }
}

#[tokio::test]
async fn a_clock_that_is_set_back_prolongs_no_pause() {
    let server = Server::new();
    let api = server.api();
    server.answer("/v1/leads/", 401, &[], "{}");
    assert!(ask(&api, START).await.lead.unwrap().is_err());
    server.asked();
    let day_before = Timestamp::from_millis(START.as_millis() - 86_400_000);
    assert!(matches!(ask(&api, day_before).await.lead, Some(Err(ApiError::Unauthorized))));
}

#[tokio::test(start_paused = true)]
async fn a_hanging_api_ends_the_search_in_time_and_pauses() {
    let server = Server::new();
    let api = server.api();
    server.0.lock().unwrap().hangs = true;
    let began = Instant::now();
    let Answers { lead, campaign_name } = ask(&api, START).await;
    assert!(matches!((lead, campaign_name), (Some(Err(ApiError::TimedOut)), Some(Err(ApiError::TimedOut)))));
    assert_eq!((began.elapsed(), server.asked().len()), (SECOND, 2));
    assert_eq!(server.0.lock().unwrap().poisoned, 2, "dead connections should not be used again");
    let lead = ask(&api, START.after(2 * SECOND)).await.lead;
    assert!(matches!(lead, Some(Err(ApiError::Paused { about_key: false }))), "{lead:?}");
    assert_eq!((began.elapsed(), server.asked().len()), (SECOND, 0));
    // If no time is left, the API is not asked.
    let late = server.api().ask("lead_1", Some("camp_1"), &invocation(START), Instant::now()).await;
    assert!(matches!(late.lead, Some(Err(ApiError::TimedOut))) && server.asked().is_empty());
}

// ── Campaigns ────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn keeps_names_for_an_hour_and_missing_names_for_five_minutes() {
    let server = Server::new();
    let api = server.api();
    let name = async |campaign: &str, after: Duration| {
        let name = ask_for(&api, "lead_1", Some(campaign), START.after(after)).await.campaign_name.unwrap().unwrap();
        (name, server.asked().len() - 1)
    };
    let spring = || Some("Spring".to_owned());
    assert_eq!(name("camp_1", Duration::ZERO).await, (spring(), 1));
    assert_eq!(name("camp_2", Duration::ZERO).await, (None, 1));
    assert_eq!(name("camp_2", NO_NAME_MAX_AGE - SECOND).await, (None, 0));
    server.answer("/v1/campaigns", 200, &[], &campaigns(&[("camp_2", "Summer")]));
    assert_eq!(name("camp_2", NO_NAME_MAX_AGE + SECOND).await, (Some("Summer".into()), 1));
    assert_eq!(name("camp_1", NAME_MAX_AGE - SECOND).await, (spring(), 0));
    // An old name is better than none.
    server.answer("/v1/campaigns", 500, &[], "");
    assert_eq!(name("camp_1", NAME_MAX_AGE + SECOND).await, (spring(), 1));
    assert_eq!(name("camp_1", NAME_MAX_AGE + SECOND * 2).await, (spring(), 0));
    server.answer("/v1/campaigns", 200, &[], &campaigns(&[("camp_1", "Renamed")]));
    assert_eq!(name("camp_1", NAME_MAX_AGE + PAUSE + SECOND * 2).await, (Some("Renamed".into()), 1));
}

#[tokio::test]
async fn reads_ten_pages_at_most() {
    let server = Server::new();
    let api = server.api();
    for (pages, expected) in [(json!(99), 10), (json!(3), 3), (json!("many"), 10), (json!(0), 1)] {
        let list: Vec<_> = (0..100).map(|number| json!({ "id": format!("camp_{number}") })).collect();
        let body = json!({ "campaigns": list, "pagination": { "totalPages": pages } }).to_string();
        server.answer("/v1/campaigns", 200, &[], &body);
        let campaign = format!("camp_unknown_{pages}");
        let name = ask_for(&api, "lead_1", Some(&campaign), START).await.campaign_name.unwrap().unwrap();
        assert_eq!((name, server.asked().len() - 1), (None, expected), "{pages}");
    }
}

#[tokio::test]
async fn reads_the_older_form_of_the_list() {
    let server = Server::new();
    let full: Vec<_> = (0..100).map(|number| json!({ "id": format!("camp_{number}"), "name": "x" })).collect();
    server.answer("/v1/campaigns", 200, &[], &json!({ "data": [{ "id": "camp_last", "name": "Last" }] }).to_string());
    server.answer("/v1/campaigns?page=1&", 200, &[], &json!({ "data": full, "meta": {} }).to_string());
    let answers = ask_for(&server.api(), "lead_1", Some("camp_last"), START).await;
    assert_eq!(answers.campaign_name.unwrap().unwrap().as_deref(), Some("Last"));
    assert_eq!(server.asked().len(), 3);
}

#[tokio::test]
async fn a_list_without_campaigns_is_not_the_documented_json() {
    for body in ["{}", r#"{"campaigns":{}}"#, r#"{"campaigns":null}"#, r#"{"campaigns":"x"}"#, "[]", "7", "<html>", ""]
    {
        let server = Server::new();
        server.answer("/v1/campaigns", 200, &[], body);
        let answer = ask(&server.api(), START).await.campaign_name.unwrap();
        assert!(matches!(answer, Err(ApiError::Unexpected)), "{body}: {answer:?}");
    }
}

// ── Leads ────────────────────────────────────────────────────────────────────────────────────────

#[tokio::test]
async fn an_id_is_one_segment_of_the_path() {
    let long = "x".repeat(256);
    for (id, segment) in [
        ("lead_abc123", "lead_abc123"),
        ("550e8400-e29b-41d4-a716-446655440000", "550e8400-e29b-41d4-a716-446655440000"),
        ("../campaigns", "..%2Fcampaigns"),
        ("a/b", "a%2Fb"),
        ("a?b#c&d=e", "a%3Fb%23c%26d%3De"),
        ("%2e%2e", "%252e%252e"),
        ("a b\r\nX-Api: y", "a%20b%0D%0AX-Api%3A%20y"),
        ("é", "%C3%A9"),
        ("...", "..."),
        (&long, &long),
    ] {
        let server = Server::new();
        server.answer("/v1/leads/", 200, &[], &json!({ "id": id, "company": "Acme" }).to_string());
        let lead = ask_for(&server.api(), id, None, START).await.lead.unwrap().unwrap();
        assert_eq!(lead.company.as_deref(), Some("Acme"), "{id}");
        assert_eq!(server.asked(), [format!("/v1/leads/{segment}")]);
    }
    for id in ["", ".", "..", &"x".repeat(257)] {
        let server = Server::new();
        let lead = ask_for(&server.api(), id, None, START).await.lead.unwrap();
        assert!(matches!(lead, Err(ApiError::UnusableId)), "{id}: {lead:?}");
        assert_eq!(server.asked(), [""; 0]);
    }
}

#[tokio::test]
async fn reads_the_longest_answer_and_no_longer_one() {
    let lead = json!({ "id": "lead_1", "company": "Acme" }).to_string();
    for (length, is_read) in [(MAX_ANSWER, true), (MAX_ANSWER + 1, false)] {
        let server = Server::new();
        server.answer("/v1/leads/", 200, &[], &(lead.clone() + &" ".repeat(length - lead.len())));
        let lead = ask_for(&server.api(), "lead_1", None, START).await.lead.unwrap();
        assert!(if is_read { lead.is_ok() } else { matches!(lead, Err(ApiError::TooLong(_))) }, "{length}");
    }
}

// ── Addresses and keys ───────────────────────────────────────────────────────────────────────────

#[test]
fn sends_the_key_only_over_tls_or_to_this_machine() {
    for text in [
        "https://api.sendpilot.ai",
        "https://api.sendpilot.ai/",
        "https://api.sendpilot.ai/api",
        "https://api.sendpilot.ai:8443/api/",
        "HTTPS://API.SENDPILOT.AI",
        "http://127.0.0.1:8080",
        "http://127.9.9.9",
        "http://[::1]:8080/api",
        "http://localhost:8080",
    ] {
        assert!(ApiUrl::parse(text).is_ok(), "{text}");
    }
    for text in [
        "",
        "api.sendpilot.ai",
        "http://api.sendpilot.ai",
        "http://localhost.example",
        "http://127.0.0.1.example",
        "http://127.0.0.1@api.example",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://[::2]",
        "http://[::ffff:10.0.0.1]",
        "https://user@api.sendpilot.ai",
        "https://user:password@api.sendpilot.ai",
        "https://api.sendpilot.ai?key=x",
        "https://api.sendpilot.ai/?",
        "https://api.sendpilot.ai/#x",
        "ftp://localhost",
        "file:///etc/hosts",
        "https://",
        "localhost:8080",
    ] {
        assert!(ApiUrl::parse(text).is_err(), "{text}");
    }
}

proptest! {
    #[test]
    fn no_message_about_a_key_quotes_it(value in "[{\\[]?[ -~\u{e9}\u{feff}]{12,40}") {
        if let Err(error) = ApiKey::parse(&value) {
            let printed = format!("{error} {error:?}");
            prop_assert!(!printed.contains(value.trim()));
        }
    }

    #[test]
    fn no_answer_makes_the_client_panic(body in any::<String>(), status in 100_u16..1000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let server = Server::new();
        for prefix in ["/v1/leads/", "/v1/campaigns"] {
            server.answer(prefix, status, &[("retry-after", "1")], &body);
        }
        let answers = runtime.block_on(ask(&server.api(), START));
        prop_assert!(answers.lead.is_some() && answers.campaign_name.is_some());
    }
}

fn sources(variables: &[(&str, &str)]) -> Result<Sources, ConfigError> {
    let given: HashMap<_, _> = variables.iter().copied().collect();
    let variable = |name: &str| given.get(name).map(ToString::to_string);
    config::sources(variable, &Aws::read(|_| Some("test".into())).unwrap())
}

#[test]
fn the_sources_are_off_unless_configured() {
    const ID: (&str, &str) = ("SENDPILOT_API_KEY_ID", "api-key");
    const GIVEN: (&str, &str) = ("SENDPILOT_API_KEY", KEY);
    for (variables, api, replies) in [
        (vec![], false, false),
        (vec![("SENDPILOT_API_URL", "https://api.example")], false, false),
        (vec![("REMEMBER_REPLIES", "no"), ("SENDPILOT_API_KEY", ""), ("SENDPILOT_API_KEY_ID", " ")], false, false),
        (vec![("REMEMBER_REPLIES", "yes")], false, true),
        (vec![ID], true, false),
        (vec![GIVEN, ("SENDPILOT_API_URL", "http://localhost:1")], true, false),
    ] {
        let sources = sources(&variables).unwrap();
        assert_eq!((sources.api.is_some(), sources.replies), (api, replies), "{variables:?}");
        assert!(!format!("{sources:?}").contains(KEY), "the key should not be printed");
    }
    for (variables, complaint) in [
        (vec![ID, GIVEN], "both SENDPILOT_API_KEY_ID and SENDPILOT_API_KEY are set; only one of them may be"),
        (vec![("SENDPILOT_API_KEY", "whsec_x")], "SENDPILOT_API_KEY is the webhook's signing secret"),
        (vec![("REMEMBER_REPLIES", "maybe")], "REMEMBER_REPLIES must be yes or no"),
        (vec![("SENDPILOT_API_URL", "http://api.example")], "SENDPILOT_API_URL must be an https address"),
        (vec![GIVEN, ("SENDPILOT_API_URL", "https://u@api.example")], "SENDPILOT_API_URL must be an https address"),
        (vec![ID, ("SENDPILOT_API_URL", "https://api.example?a=b")], "SENDPILOT_API_URL must be an https address"),
    ] {
        let error = sources(&variables).unwrap_err().to_string();
        assert!(error.starts_with(complaint), "{variables:?}: {error}");
    }
}

#[test]
fn debug_prints_no_personal_data() {
    let hidden = || Some("Annegret".to_owned());
    let lead = Lead { first_name: hidden(), last_name: hidden(), title: hidden(), company: hidden(), email: hidden() };
    let last_reply = LastReply::new("Annegret", START);
    let details = Details { lead: Some(lead), campaign_name: Some("Spring".into()), last_reply };
    let reply = Reply { lead_id: Some("lead_1".into()), text: hidden() };
    let answers = Answers { lead: details.lead.clone().map(Ok), campaign_name: None };
    let key = ApiKey::parse("sp_live_Annegret").unwrap();
    let printed = format!("{details:?} {reply:?} {answers:?} {key:?} {:?}", Source::given(key.clone()));
    assert!(!printed.contains("Annegret"), "{printed}");
    let answer: Value = json!({ "id": "lead_1", "firstName": "Annegret" });
    let server = Server::new();
    server.answer("/v1/leads/", 200, &[], &answer.to_string());
    assert!(!format!("{:?}", server.api()).contains(KEY));
}

#[tokio::test]
async fn a_shorter_pause_does_not_replace_a_longer_one() {
    for (lead, campaigns) in [((429, "90"), (500, "")), ((500, ""), (429, "90")), ((429, "7"), (429, "90"))] {
        let server = Server::new();
        let api = server.api();
        for (prefix, (status, after)) in [("/v1/leads/", lead), ("/v1/campaigns", campaigns)] {
            server.answer(prefix, status, &[("retry-after", after)], "{}");
        }
        ask(&api, START).await;
        assert_eq!(server.asked().len(), 2);
        ask(&api, START.after(89 * SECOND)).await;
        assert_eq!(server.asked(), [""; 0], "{lead:?}, {campaigns:?}");
        ask(&api, START.after(91 * SECOND)).await;
        assert!(!server.asked().is_empty(), "{lead:?}, {campaigns:?}");
    }
}
