//! A front before AWS: passes DynamoDB's calls on to an engine, is SNS and Secrets Manager itself, counts, keeps what was
//! published, and holds a call before or after its effect when it is told to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What to do with the next call of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It never takes effect, and is never answered.
    HeldBefore,
    /// It takes effect, and is never answered.
    HeldAfter,
    /// It takes effect, and is answered so much later.
    Delayed(Duration),
    /// It is refused with this status.
    Refused(u16),
    /// It takes effect, and the connection breaks instead of an answer.
    AnswerLost,
}

#[derive(Clone)]
pub struct Aws {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    engine: String,
    http: reqwest::Client,
    calls: Mutex<Vec<String>>,
    published: Mutex<Vec<HashMap<String, String>>>,
    faults: Mutex<Vec<(String, Fault)>>,
    poison: Mutex<Option<String>>,
    versions: Mutex<Vec<Value>>,
    held: Semaphore,
}

impl Aws {
    pub async fn before(engine: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared {
            engine: engine.into(),
            http: reqwest::Client::new(),
            calls: Mutex::default(),
            published: Mutex::default(),
            faults: Mutex::default(),
            poison: Mutex::default(),
            versions: Mutex::default(),
            held: Semaphore::new(0),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, shared }
    }

    /// The next call of this operation meets this fault. `UpdateItem` is told apart as `claim`, `takeover`, `complete`,
    /// `release`, `GetSecretValue` as `current`, `previous`; `Query` is `list`.
    pub fn next(&self, operation: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().push((operation.into(), fault));
    }

    /// Forgets the faults that nobody has met.
    pub fn clear(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Refuses every publish with this text in it, until told otherwise.
    pub fn refuse(&self, text: Option<&str>) {
        *self.shared.poison.lock().unwrap() = text.map(str::to_owned);
    }

    /// Makes this the current version of the one secret that there is, and the current one the previous one.
    pub fn put_secret(&self, value: &str) {
        self.put_version(json!({ "SecretString": value }));
    }

    /// The same, for a value that need be no string.
    pub fn put_version(&self, value: Value) {
        self.shared.versions.lock().unwrap().push(value);
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        self.shared.held.acquire().await.unwrap().forget();
    }

    /// The operations called so far.
    pub fn calls(&self) -> Vec<String> {
        self.shared.calls.lock().unwrap().clone()
    }

    /// The operations called since the last time.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.calls.lock().unwrap())
    }

    /// The event ids of the alerts that went out, in order.
    pub fn alerts(&self) -> Vec<String> {
        let id = |publish: &HashMap<String, String>| {
            let bodies: Value = serde_json::from_str(&publish["Message"]).unwrap();
            let event: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
            event["id"].as_str().unwrap().to_owned()
        };
        self.published().iter().map(id).collect()
    }

    /// The parameters of every publish that took effect.
    pub fn published(&self) -> Vec<HashMap<String, String>> {
        self.shared.published.lock().unwrap().clone()
    }
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response {
    let operation = operation(&headers, &body);
    shared.calls.lock().unwrap().push(operation.clone());
    let fault = {
        let mut faults = shared.faults.lock().unwrap();
        faults.iter().position(|(of, _)| *of == operation).map(|index| faults.remove(index).1)
    };
    match fault {
        Some(Fault::Refused(status)) => return StatusCode::from_u16(status).unwrap().into_response(),
        Some(Fault::HeldBefore) => return hold(&shared).await,
        _ => {}
    }
    let response = match operation.as_str() {
        "publish" => publish(&shared, &body),
        "current" => version(&shared, 1),
        "previous" => version(&shared, 2),
        _ => forward(&shared, headers, body).await,
    };
    match fault {
        Some(Fault::HeldAfter) => hold(&shared).await,
        Some(Fault::AnswerLost) => cut(),
        Some(Fault::Delayed(time)) => {
            tokio::time::sleep(time).await;
            response
        }
        _ => response,
    }
}

async fn hold(shared: &Shared) -> Response {
    shared.held.add_permits(1);
    std::future::pending().await
}

/// A body that breaks off: the client sees the connection close in the middle of the answer.
fn cut() -> Response {
    let broken = futures_util::stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
    axum::body::Body::from_stream(broken).into_response()
}

fn operation(headers: &HeaderMap, body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body);
    match headers.get("x-amz-target").map(|target| target.to_str().unwrap()) {
        Some("DynamoDB_20120810.UpdateItem") if body.contains("attribute_not_exists") => "claim".into(),
        Some("DynamoDB_20120810.UpdateItem") if body.contains("publishedAt") => "complete".into(),
        Some("DynamoDB_20120810.UpdateItem") if body.contains("lastError") => "release".into(),
        Some("DynamoDB_20120810.UpdateItem") => "takeover".into(),
        Some("DynamoDB_20120810.Query") => "list".into(),
        Some("secretsmanager.GetSecretValue") if body.contains(r#""VersionStage":"AWSCURRENT""#) => "current".into(),
        Some("secretsmanager.GetSecretValue") if body.contains(r#""VersionStage":"AWSPREVIOUS""#) => "previous".into(),
        Some(target) => target.into(),
        None if body.contains("Action=Publish&") => "publish".into(),
        None => body.into(),
    }
}

fn publish(shared: &Shared, body: &[u8]) -> Response {
    let parameters: HashMap<String, String> = url::form_urlencoded::parse(body).into_owned().collect();
    if shared.poison.lock().unwrap().as_ref().is_some_and(|poison| parameters["Message"].contains(poison)) {
        return StatusCode::BAD_REQUEST.into_response();
    }
    let mut published = shared.published.lock().unwrap();
    published.push(parameters);
    let id = published.len();
    let answer = format!(
        "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult><MessageId>{id}</MessageId>\
         </PublishResult><ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></PublishResponse>"
    );
    ([("content-type", "text/xml")], answer).into_response()
}

/// The last version of the secret, or the one before.
fn version(shared: &Shared, from_the_end: usize) -> Response {
    let versions = shared.versions.lock().unwrap();
    match versions.len().checked_sub(from_the_end) {
        Some(index) => versions[index].to_string().into_response(),
        None => (StatusCode::BAD_REQUEST, r#"{"__type":"ResourceNotFoundException"}"#).into_response(),
    }
}

async fn forward(shared: &Shared, headers: HeaderMap, body: Bytes) -> Response {
    let passed = ["x-amz-target", "content-type", "authorization", "x-amz-date"];
    let passed =
        passed.into_iter().filter_map(|name| Some((HeaderName::from_static(name), headers.get(name)?.clone())));
    let request = shared.http.post(&shared.engine).headers(passed.collect()).body(body);
    let response = request.send().await.unwrap();
    let status = response.status();
    let mut headers = response.headers().clone();
    for of_the_connection in ["transfer-encoding", "content-length"] {
        headers.remove(of_the_connection);
    }
    (status, headers, response.bytes().await.unwrap()).into_response()
}
