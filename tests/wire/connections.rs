//! Connections to AWS and to SendPilot's API. The function opens connections to AWS before the
//! first alert needs them, and keeps them while it is frozen. It replaces dead connections, and
//! SendPilot does not notice.

use std::time::Duration;

use crate::support::aws::Aws;
use crate::support::lambda::{Lambda, deployed_environment, environment};
use crate::support::requests::{SECRET, change, opportunity, signed_now};
use crate::support::tls_proxy::TlsProxy;
use crate::support::world::World;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const TIMEOUT: Duration = Duration::from_secs(10);

struct Connections {
    world: World,
    dynamodb: TlsProxy,
    sns: TlsProxy,
    function: Lambda,
}

impl Connections {
    /// Starts a function that reads its secret from Secrets Manager (`deployed_environment`) or
    /// from a variable (`environment`).
    async fn new(environment: fn(&Aws) -> Vec<(&'static str, String)>) -> Self {
        let world = World::new().await;
        world.aws.put_secret(SECRET);
        let (dynamodb, sns) = (TlsProxy::to(&world.aws).await, TlsProxy::to(&world.aws).await);
        let mut trusted = std::fs::read(dynamodb.trusted()).unwrap();
        trusted.extend(std::fs::read(sns.trusted()).unwrap());
        std::fs::write(sns.trusted(), trusted).unwrap();
        let mut environment = environment(&world.aws);
        environment.extend([
            ("AWS_ENDPOINT_URL_DYNAMODB", dynamodb.url.clone()),
            ("AWS_ENDPOINT_URL_SNS", sns.url.clone()),
            ("SSL_CERT_FILE", sns.trusted().to_str().unwrap().to_owned()),
        ]);
        let function = Lambda::start(environment, TIMEOUT).await;
        Self { world, dynamodb, sns, function }
    }

    fn opened(&self) -> (usize, usize) {
        (self.dynamodb.opened(), self.sns.opened())
    }

    async fn outcome(&mut self, body: &str) -> (u64, Value) {
        let (status, mut answer) = self.function.answer(&signed_now(body)).await;
        (status, answer["outcome"].take())
    }

    async fn alerts(&mut self, event_id: &str) {
        assert_eq!(self.outcome(&opportunity(event_id)).await, (200, "alerted".into()), "{event_id}");
    }
}

#[tokio::test]
async fn the_first_alert_finds_open_connections() {
    let mut connections = Connections::new(deployed_environment).await;
    connections.dynamodb.opens(1).await;
    connections.sns.opens(1).await;
    // An open connection is not usable at once.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(connections.outcome(&change("evt_1", "REPLY_RECEIVED")).await, (200, "ignored".into()));
    connections.alerts("evt_2").await;
    assert_eq!(connections.world.aws.calls(), ["current", "previous", "claim", "publish", "complete"]);
    assert_eq!(connections.opened(), (1, 1), "one connection per service should be enough");
}

#[tokio::test]
async fn without_a_stored_secret_the_first_alert_opens_connections() {
    let mut connections = Connections::new(environment).await;
    assert_eq!(connections.outcome(&change("evt_1", "REPLY_RECEIVED")).await, (200, "ignored".into()));
    assert_eq!(connections.opened(), (0, 0));
    connections.alerts("evt_2").await;
    assert_eq!(connections.opened(), (1, 1));
}

#[tokio::test]
async fn an_unreachable_service_does_not_stop_the_start() {
    let world = World::new().await;
    world.aws.put_secret(SECRET);
    let mut environment = deployed_environment(&world.aws);
    // Nothing listens on this port.
    environment.push(("AWS_ENDPOINT_URL_DYNAMODB", "https://localhost:9".into()));
    environment.push(("AWS_ENDPOINT_URL_SNS", "https://localhost:9".into()));
    let mut function = Lambda::start(environment, TIMEOUT).await;
    assert_eq!(function.answer(&signed_now(&change("evt_1", "REPLY_RECEIVED"))).await.0, 200);
    assert_eq!(function.answer(&signed_now(&opportunity("evt_2"))).await.0, 503);
}

#[tokio::test]
async fn keeps_connections_while_the_function_is_frozen() {
    let mut connections = Connections::new(deployed_environment).await;
    connections.alerts("evt_0").await;
    let opened = connections.opened();
    for number in 1..5 {
        connections.function.freeze();
        tokio::time::sleep(Duration::from_millis(50)).await;
        connections.function.thaw();
        connections.alerts(&format!("evt_{number}")).await;
    }
    assert_eq!(connections.opened(), opened);
}

#[tokio::test]
async fn connections_closed_in_a_freeze_cost_no_alert() {
    let mut connections = Connections::new(deployed_environment).await;
    connections.alerts("evt_0").await;
    for number in 1..=20 {
        connections.function.freeze();
        connections.dynamodb.cut().await;
        connections.sns.cut().await;
        // The event arrives before the function can notice that its connections are closed.
        connections.function.begin(&signed_now(&opportunity(&format!("evt_{number}")))).await;
        connections.function.thaw();
        assert_eq!(connections.function.said().await["statusCode"], 200, "evt_{number}");
    }
    let alerts: Vec<_> = (0..=20).map(|number| format!("evt_{number}")).collect();
    assert_eq!(connections.world.aws.alerts(), alerts, "each alert should be published once");
}

#[tokio::test]
async fn replaces_a_dead_connection_to_the_ledger() {
    let mut connections = Connections::new(deployed_environment).await;
    connections.alerts("evt_1").await;
    connections.dynamodb.mute().await;
    connections.alerts("evt_2").await;
    assert_eq!(connections.world.aws.alerts(), ["evt_1", "evt_2"]);
}

/// Answers one request about a lead or the campaigns, keeps the connection open, and closes it at
/// the next request.
async fn answer_once(mut stream: TcpStream) {
    let (read, mut write) = stream.split();
    let mut lines = BufReader::new(read).lines();
    while !lines.next_line().await.unwrap().unwrap_or_default().is_empty() {}
    let body = r#"{"id":"lead_abc123","firstName":"Ann","campaigns":[{"id":"camp_xyz789","name":"Q1"}]}"#;
    write
        .write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
        .await
        .unwrap();
    lines.next_line().await.ok();
}

#[tokio::test]
async fn replaces_dead_connections_to_the_api() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_once(stream));
        }
    });
    let world = World::new().await;
    let given = vec![("SENDPILOT_API_KEY", "sp_live_sample".into()), ("SENDPILOT_API_URL", url)];
    let mut function = Lambda::start_with(&world.aws, given, TIMEOUT).await;
    for number in 1..=5 {
        assert_eq!(function.answer(&signed_now(&opportunity(&format!("evt_{number}")))).await.0, 200);
    }
    let subjects: Vec<_> = world.aws.published().into_iter().map(|alert| alert["Subject"].clone()).collect();
    assert_eq!(subjects, ["New opportunity: Ann"; 5]);
    server.abort();
}
