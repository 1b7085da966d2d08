//! A stub of DynamoDB, SNS and Secrets Manager behind TLS. It answers at once, and counts calls and
//! connections. Each service has its own port, because each has its own host at AWS.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use requests::PUBLISHED;
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
    calls: Arc<Mutex<Calls>>,
}

/// The number of calls by operation.
type Calls = BTreeMap<String, u64>;

/// The numbers of calls and connections so far.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) connections: usize,
    calls: Calls,
}

impl Counts {
    pub(crate) fn all_calls(&self) -> u64 {
        self.calls.values().sum()
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
        Ok(Self { certificate, servers, ports, calls })
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
    *calls.lock().unwrap_or_else(PoisonError::into_inner).entry(operation.to_owned()).or_default() += 1;
    match call {
        Some(Call::Publish(_)) => published("567910cd-659e-55d4-8ccb-5aaf14679dc0"),
        Some(Call::Json(operation, input)) if operation == "GetSecretValue" => secret(&input),
        Some(Call::Json(_, input)) => row(&input),
        None => answer(200, "text/plain", "healthy"),
    }
}

/// Returns the secret's current version. It has no previous version.
fn secret(input: &Value) -> Answer {
    if input["VersionStage"] == "AWSPREVIOUS" {
        return refused("ResourceNotFoundException", json!({}));
    }
    output(&json!({
        "ARN": input["SecretId"], "Name": "webhook", "SecretString": SECRET, "CreatedDate": 1_708_770_605,
        "VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987SECRET1", "VersionStages": ["AWSCURRENT"],
    }))
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
