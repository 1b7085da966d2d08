//! The lists of SendPilot's API: both documented forms, pages, and entries of any kind. The API is
//! a double.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::secrets::api_key::{ApiKey, Source};
use opportunity_alerts::sendpilot::api::{Api, ApiError, ApiUrl, Lead};
use opportunity_alerts::sendpilot::lists::{self, Campaign, ListedLead};
use opportunity_alerts::sendpilot::page::Page;
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::from_millis(1_708_770_600_000);

/// A double of the API with one answer. Keeps the path of the last request.
#[derive(Debug, Clone)]
struct Server {
    answer: String,
    asked: Arc<Mutex<String>>,
}

impl HttpConnector for Server {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        *self.asked.lock().unwrap() = request.uri().strip_prefix("https://api.example").unwrap().to_owned();
        let body = SdkBody::from(self.answer.clone());
        HttpConnectorFuture::ready(Ok(HttpResponse::new(200.try_into().unwrap(), body)))
    }
}

fn server(answer: impl ToString) -> (Server, Api) {
    let server = Server { answer: answer.to_string(), asked: Arc::default() };
    let url = ApiUrl::parse("https://api.example").unwrap();
    let key = Source::given(ApiKey::parse("sp_live_sample").unwrap());
    (server.clone(), Api::over(SharedHttpConnector::new(server), url, key))
}

fn invocation() -> Invocation {
    Invocation::new("request-1", NOW.after(Duration::from_secs(10)), NOW, [0; 8])
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(1)
}

async fn leads_on(page: usize, answer: impl ToString) -> Result<Page<ListedLead>, ApiError> {
    let (_, api) = server(answer);
    lists::leads(&api, "camp_1", Some("OPPORTUNITY"), page, &invocation(), soon()).await
}

async fn leads(answer: impl ToString) -> Vec<ListedLead> {
    leads_on(1, answer).await.unwrap().entries
}

async fn campaigns(answer: impl ToString) -> Vec<Campaign> {
    let (_, api) = server(answer);
    lists::campaigns(&api, 1, &invocation(), soon()).await.unwrap().entries
}

fn entries(count: usize) -> Vec<Value> {
    (0..count).map(|number| json!({ "id": format!("lead_{number}") })).collect()
}

#[tokio::test]
async fn the_last_page_is_known_in_every_form() {
    let full = || entries(100);
    for (page, answer, is_last) in [
        // The documented form.
        (
            1,
            json!({ "leads": full(), "pagination": { "total": 205, "page": 1, "limit": 100, "totalPages": 3 } }),
            false,
        ),
        (2, json!({ "leads": full(), "pagination": { "totalPages": 3 } }), false),
        (3, json!({ "leads": entries(5), "pagination": { "totalPages": 3 } }), true),
        (1, json!({ "leads": [], "pagination": { "totalPages": 0 } }), true),
        (1, json!({ "leads": full(), "pagination": { "totalPages": 1 } }), true),
        // A page that is not full does not end a list that has more pages.
        (1, json!({ "leads": entries(5), "pagination": { "totalPages": 3 } }), false),
        // The list became shorter while its pages were read.
        (4, json!({ "leads": [], "pagination": { "totalPages": 3 } }), true),
        (2, json!({ "leads": [], "pagination": { "totalPages": 3 } }), true),
        // The other form, without numbers.
        (1, json!({ "data": full(), "meta": {} }), false),
        (1, json!({ "data": entries(99), "meta": {} }), true),
        (1, json!({ "data": [], "meta": {} }), true),
        (7, json!({ "data": full(), "meta": {} }), false),
        (1, json!({ "data": entries(5), "meta": { "totalPages": 2 } }), false),
        (1, json!({ "data": entries(5), "pagination": { "totalPages": 2 } }), false),
        (1, json!({ "leads": entries(5), "meta": { "totalPages": 2 } }), false),
        // Without pagination, or with another one.
        (1, json!({ "leads": full() }), false),
        (1, json!({ "leads": entries(99) }), true),
        (1, json!({ "leads": full(), "pagination": null }), false),
        (1, json!({ "leads": full(), "pagination": [] }), false),
        (1, json!({ "leads": full(), "pagination": "1 of 3" }), false),
        (1, json!({ "leads": full(), "pagination": { "totalPages": "1" } }), true),
        (1, json!({ "leads": full(), "pagination": { "totalPages": "one" } }), false),
        (1, json!({ "leads": entries(5), "pagination": { "totalPages": "one", "limit": 5 } }), false),
        (1, json!({ "leads": entries(5), "pagination": { "totalPages": 2, "limit": "all" } }), false),
        (1, json!({ "leads": entries(5), "pagination": null, "meta": { "totalPages": 2 } }), false),
        (1, json!({ "leads": full(), "pagination": { "totalPages": -1 } }), false),
        (1, json!({ "leads": full(), "pagination": { "totalPages": 1.5 } }), false),
        (1, json!({ "leads": full(), "pagination": { "totalPages": null, "limit": null } }), false),
        (1, json!({ "leads": entries(5), "pagination": { "totalPages": "3" } }), false),
        (3, json!({ "leads": entries(5), "pagination": { "totalPages": "3" } }), true),
        (1, json!({ "leads": entries(5), "pagination": { "totalPages": "+" } }), true),
        // The API has a smaller limit.
        (1, json!({ "leads": entries(20), "pagination": { "limit": 20 } }), false),
        (1, json!({ "leads": entries(19), "pagination": { "limit": 20 } }), true),
        (1, json!({ "leads": entries(5), "pagination": { "limit": 0 } }), false),
        (1, json!({ "leads": [], "pagination": { "limit": 0 } }), true),
        // More entries than asked for.
        (1, json!({ "leads": entries(300) }), false),
    ] {
        let list = leads_on(page, &answer).await.unwrap();
        let count = ["leads", "data"].iter().find_map(|name| answer[name].as_array()).unwrap().len();
        let shown = format!("page {page}, {count} entries, {}, {}", answer["pagination"], answer["meta"]);
        assert_eq!((list.entries.len(), list.is_last), (count, is_last), "{shown}");
    }
}

/// Entries that cannot be used count too, or a full page would look like the last one.
#[tokio::test]
async fn unusable_entries_are_left_out() {
    let unusable =
        [json!(null), json!(7), json!("lead_1"), json!([]), json!({}), json!({ "id": 7 }), json!({ "id": "" })];
    let mixed: Vec<_> = unusable.iter().cloned().chain(entries(93)).collect();
    let list = leads_on(1, json!({ "leads": mixed })).await.unwrap();
    assert_eq!((list.entries.len(), list.is_last), (93, false));
    // If no entry can be used, the form of the list has changed.
    let list = leads_on(1, json!({ "leads": unusable })).await;
    assert!(matches!(list, Err(ApiError::Unexpected)), "{list:?}");
}

#[tokio::test]
async fn another_answer_is_no_list() {
    for answer in [
        "",
        "null",
        "[]",
        "7",
        "<html>",
        "{",
        "{}",
        r#"{"leads": null}"#,
        r#"{"leads": {}}"#,
        r#"{"leads": "none"}"#,
        r#"{"items": []}"#,
        r#"{"data": {"leads": []}}"#,
        r#"{"statusCode": 200, "message": "OK"}"#,
    ] {
        let list = leads_on(1, answer).await;
        assert!(matches!(list, Err(ApiError::Unexpected)), "{answer}: {list:?}");
    }
}

#[tokio::test]
async fn reads_a_lead_with_any_fields() {
    let lead = json!({
        "id": "lead_1", "status": "opportunity", "updatedAt": "2024-02-24T12:30:00.000+02:00", "campaignId": "camp_9",
        "linkedinUrl": "https://www.linkedin.com/in/annegret", "firstName": "Annegret", "lastName": " ", "title": null,
        "company": 7,
    });
    let expected = ListedLead {
        id: "lead_1".into(),
        status: Some("opportunity".into()),
        linkedin_url: Some("https://www.linkedin.com/in/annegret".into()),
        updated_at: Some(NOW),
        lead: Lead { first_name: Some("Annegret".into()), ..Lead::default() },
    };
    assert_eq!(leads(json!({ "leads": [lead] })).await, std::slice::from_ref(&expected));
    let bare = ListedLead { status: None, linkedin_url: None, updated_at: None, lead: Lead::default(), ..expected };
    for fields in [
        json!({}),
        json!({ "status": null, "updatedAt": null, "linkedinUrl": null }),
        json!({ "status": 7, "updatedAt": 1_708_770_600, "linkedinUrl": {}, "firstName": [], "email": false }),
        json!({ "status": "", "updatedAt": "", "linkedinUrl": "", "firstName": "" }),
        json!({ "updatedAt": "yesterday" }),
        json!({ "updatedAt": "2024-02-30T10:30:00Z" }),
    ] {
        let mut lead = fields.clone();
        lead["id"] = "lead_1".into();
        assert_eq!(leads(json!({ "leads": [lead] })).await, std::slice::from_ref(&bare), "{fields}");
    }
    let printed = format!("{:?}", leads(json!({ "leads": [{ "id": "lead_1", "firstName": "Annegret" }] })).await);
    assert!(!printed.contains("Annegret") && !printed.contains("lead_1"), "{printed}");
}

#[tokio::test]
async fn reads_a_campaign_with_any_fields() {
    for (fields, name, is_draft) in [
        (json!({ "name": "Spring", "status": "ACTIVE" }), Some("Spring"), false),
        (json!({ "name": "Spring", "status": "draft" }), Some("Spring"), true),
        (json!({ "name": null, "status": " Draft " }), None, true),
        (json!({ "name": "", "status": "DRAFTED" }), None, false),
        (json!({ "name": " ", "status": null }), None, false),
        (json!({ "name": 7, "status": 7 }), None, false),
        (json!({}), None, false),
    ] {
        let mut campaign = fields.clone();
        campaign["id"] = "camp_1".into();
        for answer in [json!({ "campaigns": [campaign] }), json!({ "data": [campaign], "meta": {} })] {
            let expected = Campaign { id: "camp_1".into(), name: name.map(str::to_owned), is_draft };
            assert_eq!(campaigns(answer).await, [expected], "{fields}");
        }
    }
}

#[tokio::test]
async fn asks_for_one_page_of_one_list() {
    let (server, api) = server(json!({ "leads": [], "campaigns": [] }));
    let asked = || std::mem::take(&mut *server.asked.lock().unwrap());
    lists::campaigns(&api, 12, &invocation(), soon()).await.unwrap();
    assert_eq!(asked(), "/v1/campaigns?page=12&limit=100");
    lists::leads(&api, "camp_1", None, 3, &invocation(), soon()).await.unwrap();
    assert_eq!(asked(), "/v1/leads?campaignId=camp_1&page=3&limit=100");
    lists::leads(&api, "a&b=c #%", Some("MEETING_BOOKED"), 1, &invocation(), soon()).await.unwrap();
    assert_eq!(asked(), "/v1/leads?campaignId=a%26b%3Dc%20%23%25&status=MEETING_BOOKED&page=1&limit=100");
}

#[tokio::test]
async fn the_workspace_is_optional() {
    for (answer, expected) in [
        (r#"{"workspaceId": "ws_1", "scopes": []}"#, Ok(Some("ws_1"))),
        (r#"{"workspaceId": null}"#, Ok(None)),
        (r#"{"workspaceId": 7}"#, Ok(None)),
        ("{}", Ok(None)),
        ("[]", Err(())),
        ("<html>", Err(())),
    ] {
        let (server, api) = server(answer);
        let workspace = lists::workspace_id(&api, &invocation(), soon()).await;
        assert_eq!(workspace.as_ref().map(Option::as_deref).map_err(|_| ()), expected, "{answer}: {workspace:?}");
        assert_eq!(*server.asked.lock().unwrap(), "/v1/me");
    }
}

proptest! {
    /// No answer makes the parser fail in another way.
    #[test]
    fn any_json_is_a_list_or_an_error(
        name in prop::sample::select(vec!["leads", "data", "pagination", "meta", "other"]),
        text in r#"[\[\]{}",:a-z0-9 ]{0,60}"#,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = format!(r#"{{"leads": [{{"id": "lead_1"}}], "{name}": {text}}}"#);
        let list = runtime.block_on(leads_on(1, answer));
        prop_assert!(matches!(list, Ok(_) | Err(ApiError::Unexpected)), "{list:?}");
    }
}
