//! A proxy in front of AWS. It forwards DynamoDB's calls to an engine, emulates SNS and Secrets
//! Manager, records every call and publish, and injects faults.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::aws::{self, output, publish_refused, refused};
use testkit::http::{Answer, Bytes, HeaderMap, Parts, Server, answer, broken};
use testkit::lambda::SECRET_ARN;
use tokio::sync::Semaphore;

/// The ARN of the secret with SendPilot's API key.
pub const API_KEY_ARN: &str = "arn:aws:secretsmanager:us-east-1:123456789012:secret:api-key-AbCdEf";

/// A fault that a call meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call never takes effect, and is never answered.
    HeldBefore,
    /// The call takes effect, and is never answered.
    HeldAfter,
    /// The call takes effect, and the answer is delayed by this time.
    Delayed(Duration),
    /// The call is refused with this status.
    Refused(u16),
    /// The call is throttled.
    Throttled,
    /// The call takes effect, but the answer is this error status.
    Denied(u16),
    /// The call never takes effect, and the connection breaks instead of an answer.
    Lost,
    /// The call takes effect, and the connection breaks instead of an answer.
    AnswerLost,
}

impl Fault {
    fn keeps_from_taking_effect(self) -> bool {
        matches!(self, Self::HeldBefore | Self::Refused(_) | Self::Throttled | Self::Lost)
    }

    fn keeps_from_being_heard(self) -> bool {
        !matches!(self, Self::Delayed(_))
    }
}

/// A recorded call.
#[derive(Debug, Clone)]
pub struct Call {
    /// The name of the call. The prefix `status ` marks a delivery to the lead status stream, as in
    /// `status claim`.
    ///
    /// - `UpdateItem` of a delivery: `claim`, `takeover`, `debounce`, `complete`, `discard`,
    ///   `release`.
    /// - `UpdateItem` of another row: `quiet` (takes the debounce lock), `lock` (makes a lead
    ///   known), `slot`, `remember` (stores a reply), `begin` and `end` (of a run of the
    ///   reconciliation).
    /// - `GetItem`: `reply`.
    /// - `BatchGetItem`: `known`.
    /// - `Query`: `list`.
    /// - `Publish`: `publish`.
    /// - `GetSecretValue`: `current` or `previous` for the signing secret, `key` for the API key.
    pub operation: String,
    /// The event id of the delivery, with the suffix `#status` for the lead status stream. For a
    /// debounce lock and a reply, the lead's id. For the lock of a known lead, the hash of that id.
    /// For a run, the function's name. Empty for a listing and for `known`.
    pub event: String,
    /// The page that a listing requests: its shard, and the delivery after which it begins. The
    /// ledger requests a slow page again.
    pub page: String,
    /// The attempt that made the call. For a publish, the last attempt in the same process whose
    /// claim was granted.
    pub owner: String,
    /// The reason that a release records.
    pub reason: String,
    pub at: Instant,
    pub fault: Option<Fault>,
    pub took_effect: bool,
    pub heard: bool,
}

/// Chooses the fault of a call for which no test has planned a fault. The number counts the earlier
/// calls of the same operation and event.
type Fate = Box<dyn Fn(&Call, usize) -> Option<Fault> + Send + Sync>;

#[derive(Clone)]
pub struct Aws {
    pub url: String,
    shared: Arc<Shared>,
    /// Stops when the last clone of this proxy is dropped.
    _server: Arc<Server>,
}

struct Shared {
    engine: String,
    http: reqwest::Client,
    fate: Fate,
    journal: Mutex<Journal>,
    published: Mutex<Vec<HashMap<String, String>>>,
    faults: Mutex<Vec<(String, Fault)>>,
    poison: Mutex<Option<String>>,
    versions: Mutex<Vec<Value>>,
    api_key: Mutex<Option<Value>>,
    held: Semaphore,
}

#[derive(Default)]
struct Journal {
    calls: Vec<Call>,
    /// The number of calls that `take_calls` has returned.
    taken: usize,
    /// The number of calls by operation and event.
    counts: HashMap<(String, String), usize>,
    /// The owner of the last granted claim, by process and event.
    holders: HashMap<(String, String), String>,
}

impl Aws {
    pub async fn before(engine: &str) -> Self {
        Self::with_fate(engine, |_, _| None).await
    }

    /// Returns a proxy at which `fate` chooses the faults that no test has planned.
    pub async fn with_fate(engine: &str, fate: impl Fn(&Call, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            engine: engine.into(),
            http: reqwest::Client::new(),
            fate: Box::new(fate),
            journal: Mutex::default(),
            published: Mutex::default(),
            faults: Mutex::default(),
            poison: Mutex::default(),
            versions: Mutex::default(),
            api_key: Mutex::default(),
            held: Semaphore::new(0),
        });
        let front = shared.clone();
        // A separate task, because a call that has arrived takes effect even if its sender is dead.
        let detached = move |parts, body| {
            let answered = tokio::spawn(answered(front.clone(), parts, body));
            async { answered.await.unwrap() }
        };
        let server = Server::start(None, detached).await.unwrap();
        Self { url: format!("http://{}", server.address()), shared, _server: Arc::new(server) }
    }

    /// Plans this fault for the next call of this operation. [`Call`] lists the operations.
    pub fn next(&self, operation: &str, fault: Fault) {
        self.shared.faults.lock().unwrap().push((operation.into(), fault));
    }

    /// Removes the planned faults that no call has met.
    pub fn clear(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    /// Refuses every publish that contains this text, until the next call of this function.
    pub fn refuse(&self, text: Option<&str>) {
        *self.shared.poison.lock().unwrap() = text.map(str::to_owned);
    }

    /// Stores this value as the secret's current version. The current version becomes the previous
    /// one.
    pub fn put_secret(&self, value: &str) {
        self.put_version(json!({ "SecretString": value }));
    }

    /// Stores a value that need not be a string.
    pub fn put_version(&self, value: Value) {
        self.shared.versions.lock().unwrap().push(value);
    }

    /// Stores this output of `GetSecretValue` as the value of the API key's secret. If the value is
    /// `None`, the secret does not exist.
    pub fn put_api_key(&self, value: Option<Value>) {
        *self.shared.api_key.lock().unwrap() = value;
    }

    /// Waits until a call is held.
    pub async fn held(&self) {
        self.shared.held.acquire().await.unwrap().forget();
    }

    /// Returns the operations of all calls so far.
    pub fn calls(&self) -> Vec<String> {
        self.journal().into_iter().map(|call| call.operation).collect()
    }

    /// Returns all calls so far.
    pub fn journal(&self) -> Vec<Call> {
        self.shared.journal.lock().unwrap().calls.clone()
    }

    /// Returns the operations of all calls since the last call of this function.
    pub fn take_calls(&self) -> Vec<String> {
        let mut journal = self.shared.journal.lock().unwrap();
        let now = journal.calls.len();
        let since = std::mem::replace(&mut journal.taken, now);
        journal.calls[since..].iter().map(|call| call.operation.clone()).collect()
    }

    /// Returns the event ids of the published alerts, in order.
    pub fn alerts(&self) -> Vec<String> {
        self.published_as("publish")
    }

    /// Returns the event ids of the messages published to the lead status stream, in order.
    pub fn statuses(&self) -> Vec<String> {
        self.published_as("status publish")
    }

    fn published_as(&self, operation: &str) -> Vec<String> {
        let of_this_kind = |publish: &&HashMap<String, String>| publish_operation(publish) == operation;
        self.published().iter().filter(of_this_kind).map(|publish| event_id(&publish["Message"])).collect()
    }

    /// Returns the parameters of every publish that took effect.
    pub fn published(&self) -> Vec<HashMap<String, String>> {
        self.shared.published.lock().unwrap().clone()
    }
}

/// Answers a call. The path of its URL identifies the process, because each process has its own
/// path.
async fn answered(shared: Arc<Shared>, Parts { uri, headers, .. }: Parts, body: Bytes) -> Answer {
    let process = uri.path().to_owned();
    if process.ends_with("/ping") {
        return answer(200, "text/plain", "healthy");
    }
    let sent = aws::Call::read(&headers, &body).expect("the call should be one that the functions make");
    let (number, operation, fault) = shared.arrived(&process, read(&sent));
    if fault.is_some_and(Fault::keeps_from_taking_effect) {
        return answer_of(&shared, fault, &operation, nothing(200)).await;
    }
    let response = match (operation.as_str(), sent) {
        (_, aws::Call::Publish(parameters)) => publish(&shared, parameters),
        ("current", _) => version(&shared, 1),
        ("previous", _) => version(&shared, 2),
        ("key", _) => secret(shared.api_key.lock().unwrap().as_ref()),
        _ => forward(&shared, headers, body).await,
    };
    if response.status().is_success() {
        shared.took_effect(process, number);
    }
    answer_of(&shared, fault, &operation, response).await
}

impl Shared {
    fn arrived(&self, process: &str, mut call: Call) -> (usize, String, Option<Fault>) {
        let mut journal = self.journal.lock().unwrap();
        if matches!(call.operation.as_str(), "publish" | "status publish") {
            let holder = journal.holders.get(&(process.to_owned(), call.event.clone()));
            call.owner = holder.cloned().unwrap_or_default();
        }
        let so_far = journal.counts.entry((call.operation.clone(), call.event.clone())).or_default();
        let planned = {
            let mut faults = self.faults.lock().unwrap();
            faults.iter().position(|(of, _)| *of == call.operation).map(|index| faults.remove(index).1)
        };
        let fault = planned.or_else(|| (self.fate)(&call, *so_far));
        *so_far += 1;
        call.fault = fault;
        call.heard = !fault.is_some_and(Fault::keeps_from_being_heard);
        let operation = call.operation.clone();
        journal.calls.push(call);
        (journal.calls.len() - 1, operation, fault)
    }

    fn took_effect(&self, process: String, number: usize) {
        let mut journal = self.journal.lock().unwrap();
        let call = &mut journal.calls[number];
        call.took_effect = true;
        if matches!(call.operation.trim_start_matches("status "), "claim" | "takeover") {
            let (event, owner) = (call.event.clone(), call.owner.clone());
            journal.holders.insert((process, event), owner);
        }
    }
}

async fn answer_of(shared: &Shared, fault: Option<Fault>, operation: &str, response: Answer) -> Answer {
    match fault {
        Some(Fault::HeldBefore | Fault::HeldAfter) => hold(shared).await,
        // The client sees the connection close in the middle of the answer.
        Some(Fault::Lost | Fault::AnswerLost) => broken(),
        Some(Fault::Refused(status) | Fault::Denied(status)) => nothing(status),
        Some(Fault::Throttled) => throttled(operation),
        Some(Fault::Delayed(time)) => {
            tokio::time::sleep(time).await;
            response
        }
        None => response,
    }
}

async fn hold(shared: &Shared) -> Answer {
    shared.held.add_permits(1);
    std::future::pending().await
}

/// Returns an answer without content.
fn nothing(status: u16) -> Answer {
    answer(status, "text/plain", "")
}

/// Returns the throttling answer of DynamoDB or SNS.
fn throttled(operation: &str) -> Answer {
    if operation.ends_with("publish") {
        return publish_refused("Throttling");
    }
    refused("com.amazonaws.dynamodb.v20120810#ThrottlingException", json!({}))
}

/// A conditional write of the ledger.
#[derive(Debug, Clone, Copy)]
enum Write {
    Remember,
    Claim,
    Takeover,
    Quiet,
    Lock,
    Slot,
    Debounce,
    Complete,
    Discard,
    Release,
    Begin,
    End,
}

impl Write {
    /// Identifies an `UpdateItem` by the attributes and the state that it sets, and by the kind of
    /// its row.
    fn read(input: &Value) -> Self {
        let set = assigned(input);
        let kind = input["Key"]["deliveryId"]["S"].as_str().unwrap().rsplit('#').next();
        let state = set.get("state").map(|value| input["ExpressionAttributeValues"][value]["S"].as_str().unwrap());
        match state {
            Some("PENDING") => Self::Claim,
            Some("PUBLISHED") => Self::Complete,
            Some("DEBOUNCED") => Self::Debounce,
            Some("DISCARDED") => Self::Discard,
            None if set.contains_key("repliedAt") => Self::Remember,
            None if set.contains_key("progress") => Self::End,
            None if kind == Some("run") => Self::Begin,
            None if kind == Some("known") => Self::Lock,
            None if set.contains_key("quietUntil") => Self::Quiet,
            None if set.contains_key("lastError") => Self::Release,
            None if set.contains_key("leaseUntil") => Self::Takeover,
            None if set.contains_key("owner") => Self::Slot,
            _ => panic!("not a write of the ledger: {input}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Remember => "remember",
            Self::Claim => "claim",
            Self::Takeover => "takeover",
            Self::Quiet => "quiet",
            Self::Lock => "lock",
            Self::Slot => "slot",
            Self::Debounce => "debounce",
            Self::Complete => "complete",
            Self::Discard => "discard",
            Self::Release => "release",
            Self::Begin => "begin",
            Self::End => "end",
        }
    }
}

/// Returns the attributes that an update expression sets, each with the text of its value.
fn assigned(input: &Value) -> HashMap<String, String> {
    let words = input["UpdateExpression"].as_str().unwrap().split_whitespace();
    let clause = words.skip_while(|word| *word != "SET").skip(1);
    let clause: Vec<_> = clause.take_while(|word| !matches!(*word, "ADD" | "REMOVE" | "DELETE")).collect();
    // A comma inside a function's parentheses does not separate assignments.
    let assignments = clause.join(" ").split(", ").fold(Vec::<String>::new(), |mut assignments, part| {
        match assignments.last_mut().filter(|last| last.matches('(').count() > last.matches(')').count()) {
            Some(last) => *last = format!("{last}, {part}"),
            None => assignments.push(part.to_owned()),
        }
        assignments
    });
    let named = |attribute: &str| input["ExpressionAttributeNames"][attribute].as_str().unwrap_or(attribute).to_owned();
    let pair = |assignment: &String| {
        let (attribute, value) = assignment.split_once(" = ").unwrap();
        (named(attribute), value.to_owned())
    };
    assignments.iter().map(pair).collect()
}

fn read(sent: &aws::Call) -> Call {
    let text = |value: &Value| value["S"].as_str().unwrap_or_default().to_owned();
    let (operation, event, input) = match sent {
        aws::Call::Publish(parameters) => {
            let operation = publish_operation(parameters);
            let suffix = if operation == "status publish" { "#status" } else { "" };
            (operation.to_owned(), event_id(&parameters["Message"]) + suffix, &Value::Null)
        }
        aws::Call::Json(operation, input) => {
            let operation = match operation.as_str() {
                "UpdateItem" => Write::read(input).name(),
                "Query" => "list",
                "GetItem" => {
                    assert_eq!(input["ConsistentRead"], true, "{input}");
                    "reply"
                }
                "BatchGetItem" => {
                    let asked: Vec<_> = input["RequestItems"].as_object().unwrap().values().collect();
                    assert!(asked.len() == 1 && asked[0]["ConsistentRead"] == true, "{input}");
                    "known"
                }
                "GetSecretValue" => match (input["SecretId"].as_str(), input["VersionStage"].as_str()) {
                    (Some(API_KEY_ARN), Some("AWSCURRENT")) => "key",
                    (Some(SECRET_ARN | "webhook"), Some("AWSCURRENT")) => "current",
                    (Some(SECRET_ARN | "webhook"), Some("AWSPREVIOUS")) => "previous",
                    _ => panic!("unknown secret, or unknown version: {input}"),
                },
                other => other,
            };
            let key = text(&input["Key"]["deliveryId"]);
            if key.ends_with("#status") {
                (format!("status {operation}"), key.split('#').skip(1).collect::<Vec<_>>().join("#"), input)
            } else {
                // Only these keys begin with their subject. The others begin with the workspace.
                let part = if matches!(operation, "lock" | "begin" | "end") { 0 } else { 1 };
                (operation.to_owned(), key.split('#').nth(part).unwrap_or_default().to_owned(), input)
            }
        }
    };
    let [owner, reason] = [":me", ":error"].map(|name| text(&input["ExpressionAttributeValues"][name]));
    let shard = text(&input["ExpressionAttributeValues"][":shard"]);
    let page = format!("{shard} {}", text(&input["ExclusiveStartKey"]["deliveryId"]));
    Call { operation, event, page, owner, reason, at: Instant::now(), fault: None, took_effect: false, heard: false }
}

/// Returns the operation of a publish. Only alerts have a body per protocol.
fn publish_operation(parameters: &HashMap<String, String>) -> &'static str {
    if parameters.contains_key("MessageStructure") { "publish" } else { "status publish" }
}

/// Returns the event id in a published `Message`.
pub fn event_id(message: &str) -> String {
    let message: Value = serde_json::from_str(message).unwrap();
    let event = message["default"].as_str().map_or(message.clone(), |event| serde_json::from_str(event).unwrap());
    event["id"].as_str().unwrap().to_owned()
}

fn publish(shared: &Shared, parameters: HashMap<String, String>) -> Answer {
    if shared.poison.lock().unwrap().as_ref().is_some_and(|poison| parameters["Message"].contains(poison)) {
        return nothing(400);
    }
    let mut published = shared.published.lock().unwrap();
    published.push(parameters);
    aws::published(&published.len().to_string())
}

/// Returns the last version of the secret, or the version before it.
fn version(shared: &Shared, from_the_end: usize) -> Answer {
    let versions = shared.versions.lock().unwrap();
    secret(versions.len().checked_sub(from_the_end).map(|index| &versions[index]))
}

fn secret(value: Option<&Value>) -> Answer {
    value.map_or_else(|| refused("ResourceNotFoundException", json!({})), output)
}

async fn forward(shared: &Shared, headers: HeaderMap, body: Bytes) -> Answer {
    let passed = ["x-amz-target", "content-type", "authorization", "x-amz-date"];
    let passed = passed.into_iter().filter_map(|name| Some((name.parse().unwrap(), headers.get(name)?.clone())));
    let request = shared.http.post(&shared.engine).headers(passed.collect()).body(body);
    let response = request.send().await.unwrap();
    let (status, mut headers) = (response.status(), response.headers().clone());
    for of_the_connection in ["transfer-encoding", "content-length"] {
        headers.remove(of_the_connection);
    }
    let mut answer = answer(status.as_u16(), "", response.bytes().await.unwrap());
    *answer.headers_mut() = headers;
    answer
}
