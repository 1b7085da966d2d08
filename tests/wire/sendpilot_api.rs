//! The stand-in for SendPilot's REST API, which other tests rely on.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};
use testkit::sendpilot_api::{KEY, SendPilotApi};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Returns the answer to a GET request with this key, up to the end of the connection.
async fn get(api: &SendPilotApi, path: &str, key: &str) -> String {
    let mut stream = TcpStream::connect(api.url().trim_start_matches("http://")).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {key}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// Returns the status and the body of an answer.
fn parts(answer: &str) -> (u16, Value) {
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), serde_json::from_str(body).unwrap())
}

#[tokio::test]
async fn serves_what_sendpilot_documents() {
    let api = SendPilotApi::start().await.unwrap();
    let lead = json!({ "id": "lead_1", "firstName": "Ann", "campaignId": "camp_1", "status": "OPPORTUNITY" });
    api.put_lead(lead.clone()).await.unwrap();
    for number in 1..=101 {
        api.put_campaign(&format!("camp_{number}"), &format!("Campaign {number}")).await.unwrap();
    }
    assert_eq!(parts(&get(&api, "/v1/leads/lead_1", KEY).await), (200, lead.clone()));
    assert_eq!(parts(&get(&api, "/api/v1/leads/lead_1", KEY).await), (200, lead.clone()));
    let (status, found) = parts(&get(&api, "/v1/leads?campaignId=camp_1&status=OPPORTUNITY", KEY).await);
    assert_eq!((status, &found["leads"]), (200, &json!([lead])));
    let (status, page) = parts(&get(&api, "/v1/campaigns?page=2&limit=100", KEY).await);
    assert_eq!((status, &page["campaigns"][0]["name"]), (200, &json!("Campaign 101")));
    assert_eq!(page["pagination"], json!({ "total": 101, "page": 2, "limit": 100, "totalPages": 2 }));
    for (path, expected) in [
        ("/v1/leads/lead_2", 404),
        ("/v1/leads", 400),
        ("/v1/leads?campaignId=camp_1&status=NONE", 400),
        ("/v1/campaigns?limit=101", 400),
        ("/v1/campaigns/camp_1", 200),
        ("/v1/senders", 404),
    ] {
        let (status, body) = parts(&get(&api, path, KEY).await);
        assert_eq!(status, expected, "{path}: {body}");
        assert_eq!(body["statusCode"].as_u64(), (expected != 200).then_some(u64::from(expected)));
    }
    assert_eq!(parts(&get(&api, "/v1/leads/lead_1", "sp_live_other").await).0, 401);
    api.set(json!({ "scopes": ["workspace:read"] })).await.unwrap();
    assert_eq!(parts(&get(&api, "/v1/leads/lead_1", KEY).await).0, 403);
    assert_eq!(parts(&get(&api, "/v1/me", KEY).await).1["missingScopes"], json!(["leads:read", "senders:read"]));
}

#[tokio::test]
async fn fails_as_planned_until_cleared() {
    let api = SendPilotApi::start().await.unwrap();
    api.put_lead(json!({ "id": "lead_1" })).await.unwrap();
    let plan = json!({ "status": 429, "headers": { "Retry-After": "7" }, "body": "<html>" });
    api.answer("/v1/leads/", plan).await.unwrap();
    let answer = get(&api, "/v1/leads/lead_1", KEY).await;
    assert!(answer.starts_with("HTTP/1.1 429 ") && answer.contains("Retry-After: 7\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n<html>"), "{answer}");
    assert_eq!(parts(&get(&api, "/v1/campaigns", KEY).await).0, 200);

    api.answer("/v1/leads/", json!({ "close": true })).await.unwrap();
    assert_eq!(get(&api, "/v1/leads/lead_1", KEY).await, "");
    api.answer("/v1/leads/", json!({ "half": true })).await.unwrap();
    let half = get(&api, "/v1/leads/lead_1", KEY).await;
    assert!(half.contains("Content-Length: 16\r\n") && half.ends_with("\r\n\r\n{\"id\": \""), "{half}");
    api.answer("/v1/leads/", json!({ "huge": 300_000 })).await.unwrap();
    assert!(get(&api, "/v1/leads/lead_1", KEY).await.len() > 300_000);

    api.answer("/v1/leads/", json!({ "hang": true })).await.unwrap();
    let hanging = get(&api, "/v1/leads/lead_1", KEY);
    tokio::pin!(hanging);
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut hanging).await.is_err());
    api.clear().await.unwrap();
    assert_eq!(parts(&hanging.await).0, 200);

    api.delay(Duration::from_millis(50)).await.unwrap();
    let before = Instant::now();
    assert_eq!(parts(&get(&api, "/v1/leads/lead_1", KEY).await).0, 200);
    assert!(before.elapsed() >= Duration::from_millis(50));

    let requests = api.requests().await.unwrap();
    assert_eq!(requests.len(), 7);
    assert_eq!((requests[0].method.as_str(), requests[0].path.as_str()), ("GET", "/v1/leads/lead_1"));
    assert_eq!(requests[0].headers["x-api-key"], KEY);
    assert!(requests.iter().all(|request| request.at <= SystemTime::now()));
    api.forget_requests().await.unwrap();
    assert!(api.requests().await.unwrap().is_empty());
    let refusal = api.answer("/v1", json!({ "hung": true })).await.unwrap_err();
    assert!(refusal.to_string().contains("hung"), "{refusal}");
}
