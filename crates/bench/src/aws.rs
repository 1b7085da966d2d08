//! A stub of DynamoDB, SNS and Secrets Manager behind TLS. It answers at once, and counts calls and
//! connections. Each service has its own port, because each has its own host at AWS.
//!
//! A stub of SendPilot's API answers after a delay. The stand-in of the tests has no TLS, and would
//! add a millisecond of Python to each answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use requests::{PUBLISHED, REPLY};
use serde_json::{Value, json};
use testkit::aws::{Call, SERVICES, output, published, refused};
use testkit::http::{Answer, Bytes, Parts, Server, answer};
use testkit::sendpilot::SECRET;
use testkit::tls::{Certificate, SYSTEM_ROOTS};

use crate::network;

pub(crate) struct Aws {
    certificate: Certificate,
    servers: Vec<Server>,
    ports: Vec<u16>,
    /// The stubs of SendPilot's API.
    apis: Vec<Server>,
    calls: Arc<Mutex<Calls>>,
}

/// The name of the secret with the API key.
pub(crate) const API_KEY: &str = "api-key";

/// The operation under which the calls of SendPilot's API are counted.
const SENDPILOT: &str = "SendPilot";

/// The number of calls by operation.
type Calls = BTreeMap<String, u64>;

/// The numbers of calls and connections so far.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) connections: usize,
    calls: Calls,
}

impl Counts {
    /// Returns the number of calls to AWS.
    pub(crate) fn aws_calls(&self) -> u64 {
        self.calls.values().sum::<u64>() - self.api_calls()
    }

    /// Returns the number of calls of SendPilot's API.
    pub(crate) fn api_calls(&self) -> u64 {
        self.calls.get(SENDPILOT).copied().unwrap_or_default()
    }

    /// Returns the number of published alerts.
    pub(crate) fn publishes(&self) -> u64 {
        self.calls.get("Publish").copied().unwrap_or_default()
    }
}

impl Aws {
    /// Starts the stub behind a network with this round trip.
    pub(crate) async fn start(round_trip: Duration) -> Result<Self> {
        let certificate = Certificate::new(SYSTEM_ROOTS)?;
        let calls = Arc::<Mutex<Calls>>::default();
        let (mut servers, mut ports) = (Vec::new(), Vec::new());
        for _ in SERVICES {
            let calls = calls.clone();
            let handler = move |parts, body| {
                let answer = call(&calls, &parts, &body);
                async { answer }
            };
            let server = Server::start(Some(certificate.acceptor()), handler).await?;
            let address = server.address();
            ports.push(if round_trip.is_zero() { address.port() } else { network::relay(address, round_trip)?.port() });
            servers.push(server);
        }
        Ok(Self { certificate, servers, ports, apis: Vec::new(), calls })
    }

    /// Returns the variables with which an SDK finds the stub and trusts it.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let endpoints = SERVICES.iter().zip(&self.ports);
        let mut environment: Vec<_> = endpoints
            .map(|(service, port)| (format!("AWS_ENDPOINT_URL_{service}"), format!("https://localhost:{port}")))
            .collect();
        for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            environment.push((variable.into(), self.certificate.roots().display().to_string()));
        }
        environment
    }

    /// Starts a stub of SendPilot's API that answers after this delay, and returns its address. The
    /// stub runs as long as the stub of AWS.
    pub(crate) async fn start_api(&mut self, delay: Duration) -> Result<String> {
        let calls = self.calls.clone();
        let handler = move |parts: Parts, _| {
            count(&calls, SENDPILOT);
            async move {
                // Even a sleep of no time takes a millisecond.
                if !delay.is_zero() {
                    tokio::time::sleep(delay).await;
                }
                api(parts.uri.path())
            }
        };
        let server = Server::start(Some(self.certificate.acceptor()), handler).await?;
        let url = format!("https://localhost:{}", server.address().port());
        self.apis.push(server);
        Ok(url)
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            connections: self.servers.iter().map(Server::connections).sum(),
            calls: self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

fn call(calls: &Mutex<Calls>, parts: &Parts, body: &Bytes) -> Answer {
    let call = Call::read(&parts.headers, body);
    let operation = match &call {
        // Only an alert has a body for each protocol. A message to the stream has a single body.
        Some(Call::Publish(parameters)) if parameters.contains_key("MessageStructure") => "Publish",
        Some(Call::Publish(_)) => "Publish to the stream",
        Some(Call::Json(operation, _)) => operation,
        // Health checks, with which the function opens its connections.
        None => "other",
    };
    count(calls, operation);
    match call {
        Some(Call::Publish(_)) => published("567910cd-659e-55d4-8ccb-5aaf14679dc0"),
        Some(Call::Json(operation, input)) if operation == "GetSecretValue" => secret(&input),
        Some(Call::Json(operation, _)) if operation == "GetItem" => reply(),
        Some(Call::Json(_, input)) => row(&input),
        None => answer(200, "text/plain", "healthy"),
    }
}

fn count(calls: &Mutex<Calls>, operation: &str) {
    *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(operation.to_owned()).or_default() += 1;
}

/// Returns what SendPilot's API answers to a request for a lead or for the campaigns.
fn api(path: &str) -> Answer {
    let content = match path.strip_prefix("/v1/leads/") {
        Some(id) => json!({
            "id": id, "linkedinUrl": "https://www.linkedin.com/in/john-doe", "firstName": "John", "lastName": "Doe",
            "title": "Head of Sales", "company": "Acme Corp", "status": "OPPORTUNITY", "campaignId": "camp_xyz789",
            "createdAt": "2024-02-01T08:00:00.000Z", "updatedAt": "2024-02-24T10:30:00.000Z",
        }),
        None => json!({
            "campaigns": [{ "id": "camp_xyz789", "name": "Founders in Berlin", "status": "ACTIVE" }],
            "pagination": { "total": 1, "page": 1, "limit": 100, "totalPages": 1 },
        }),
    };
    answer(200, "application/json", content.to_string())
}

/// Returns the secret's current version. It has no previous version.
fn secret(input: &Value) -> Answer {
    if input["VersionStage"] == "AWSPREVIOUS" {
        return refused("ResourceNotFoundException", json!({}));
    }
    let value = if input["SecretId"] == API_KEY { r#"{"apiKey":"sp_live_sample"}"# } else { SECRET };
    output(&json!({
        "ARN": input["SecretId"], "Name": "webhook", "SecretString": value, "CreatedDate": 1_708_770_605,
        "VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987SECRET1", "VersionStages": ["AWSCURRENT"],
    }))
}

/// Returns the row of a reply, which expires in the year 2100.
fn reply() -> Answer {
    let row =
        json!({ "reply": { "S": REPLY }, "repliedAt": { "N": "1708763400000" }, "expiresAt": { "N": "4102444800" } });
    output(&json!({ "Item": row }))
}

/// Accepts every write, except the claim of an event whose alert has been published. The refusal of
/// this claim contains the row.
fn row(input: &Value) -> Answer {
    let id = &input["Key"]["deliveryId"];
    if !id["S"].as_str().is_some_and(|id| id.contains(PUBLISHED)) {
        return output(&json!({}));
    }
    let claim = &input["ExpressionAttributeValues"];
    let row = json!({
        "deliveryId": id, "state": { "S": "PUBLISHED" }, "owner": { "S": "0123456789abcdef" },
        "attempts": { "N": "1" }, "firstSeenAt": { "N": "1708770605500" }, "leaseUntil": { "N": "1708770617500" },
        "publishedAt": { "N": "1708770605600" }, "expiresAt": { "N": "1711362605" },
        "messageId": { "S": "567910cd-659e-55d4-8ccb-5aaf14679dc0" },
        "message": claim[":message"], "contentSha256": claim[":sha"],
    });
    refused("com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException", json!({ "Item": row }))
}
