//! A stub of AWS behind TLS: DynamoDB, SNS and Secrets Manager, each on a port of its own as each has a host of its own
//! there. Answers at once, and counts calls and connections.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Result;
use hyper::body::Bytes;
use hyper::http::request::Parts;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::certificate::Certificate;
use crate::http::{Answer, answer, serve};
use crate::network;
use bench::sendpilot::{PUBLISHED, SECRET};

/// The services that the functions call, as the variables name them that tell an SDK where they are.
const SERVICES: [&str; 3] = ["DYNAMODB", "SNS", "SECRETS_MANAGER"];

pub(crate) struct Aws {
    certificate: Certificate,
    ports: Vec<u16>,
    counts: Arc<Mutex<Counts>>,
    /// Whose end is that of all connections.
    _servers: JoinSet<()>,
}

/// What came so far.
#[derive(Debug, Default, Clone)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    /// By operation.
    pub(crate) calls: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Of alerts.
    pub(crate) fn publishes(&self) -> u64 {
        self.calls.get("Publish").copied().unwrap_or_default()
    }
}

impl Aws {
    /// Starts it, so far away that a packet takes this time to come there and back.
    pub(crate) async fn start(round_trip: Duration) -> Result<Self> {
        let certificate = Certificate::new()?;
        let counts = Arc::<Mutex<Counts>>::default();
        let mut servers = JoinSet::new();
        let mut ports = Vec::new();
        for _ in SERVICES {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let address = listener.local_addr()?;
            ports.push(if round_trip.is_zero() { address.port() } else { network::relay(address, round_trip)?.port() });
            servers.spawn(accept(listener, certificate.acceptor.clone(), counts.clone()));
        }
        Ok(Self { certificate, ports, counts, _servers: servers })
    }

    /// The variables by which an SDK finds it, and trusts it.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let endpoints = SERVICES.iter().zip(&self.ports);
        let mut environment: Vec<_> = endpoints
            .map(|(service, port)| (format!("AWS_ENDPOINT_URL_{service}"), format!("https://localhost:{port}")))
            .collect();
        for variable in ["SSL_CERT_FILE", "AWS_CA_BUNDLE", "NODE_EXTRA_CA_CERTS"] {
            environment.push((variable.into(), self.certificate.roots.path().display().to_string()));
        }
        environment
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, acceptor: tokio_rustls::TlsAcceptor, counts: Arc<Mutex<Counts>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, counts) = (acceptor.clone(), counts.clone());
        connections.spawn(async move {
            stream.set_nodelay(true).ok();
            let Ok(stream) = acceptor.accept(stream).await else { return };
            count(&counts, |counts| counts.connections += 1);
            serve(stream, async |parts, body| call(&counts, &parts, &body)).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

fn count(counts: &Mutex<Counts>, add: impl FnOnce(&mut Counts)) {
    add(&mut counts.lock().unwrap_or_else(PoisonError::into_inner));
}

fn call(counts: &Mutex<Counts>, parts: &Parts, body: &Bytes) -> Answer {
    let target = parts.headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let operation = match target {
        Some(target) => target.rsplit('.').next().unwrap_or(target),
        // Alerts alone have a body for each protocol; what else is published goes to the lead status stream.
        None if has(body, b"Action=Publish") && has(body, b"MessageStructure=json") => "Publish",
        None if has(body, b"Action=Publish") => "Publish to the stream",
        None => "unknown",
    };
    count(counts, |counts| *counts.calls.entry(operation.into()).or_default() += 1);
    match operation {
        "Publish" | "Publish to the stream" => answer(200, "text/xml", PUBLISH),
        "GetSecretValue" => secret(body),
        _ => row(body),
    }
}

const PUBLISH: &str = "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
     <MessageId>567910cd-659e-55d4-8ccb-5aaf14679dc0</MessageId></PublishResult><ResponseMetadata>\
     <RequestId>d74b8436-ae13-5ab4-a9ff-ce54dfea72a0</RequestId></ResponseMetadata></PublishResponse>";

/// There is one version of the secret, and none before it.
fn secret(body: &[u8]) -> Answer {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    if request["VersionStage"] == "AWSPREVIOUS" {
        let error = json!({ "__type": "ResourceNotFoundException", "Message": "no such version" });
        return answer(400, "application/x-amz-json-1.1", error.to_string());
    }
    let version = json!({
        "ARN": request["SecretId"], "Name": "webhook", "SecretString": SECRET, "CreatedDate": 1_708_770_605,
        "VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987SECRET1", "VersionStages": ["AWSCURRENT"],
    });
    answer(200, "application/x-amz-json-1.1", version.to_string())
}

/// Every condition holds, but that of a claim to an event whose alert is out. Such a one is answered with its row.
fn row(body: &[u8]) -> Answer {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let id = &request["Key"]["deliveryId"];
    if !id["S"].as_str().is_some_and(|id| id.contains(PUBLISHED)) {
        return answer(200, "application/x-amz-json-1.0", "{}");
    }
    let claim = &request["ExpressionAttributeValues"];
    let refusal = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "The conditional request failed",
        "Item": {
            "deliveryId": id, "state": { "S": "PUBLISHED" }, "owner": { "S": "0123456789abcdef" },
            "attempts": { "N": "1" }, "firstSeenAt": { "N": "1708770605500" }, "leaseUntil": { "N": "1708770617500" },
            "publishedAt": { "N": "1708770605600" }, "expiresAt": { "N": "1711362605" },
            "messageId": { "S": "567910cd-659e-55d4-8ccb-5aaf14679dc0" },
            "message": claim[":message"], "contentSha256": claim[":sha"],
        },
    });
    answer(400, "application/x-amz-json-1.0", refusal.to_string())
}

fn has(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}
