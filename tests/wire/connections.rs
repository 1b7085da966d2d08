//! TLS connections to AWS. The function opens them before the first alert needs them, and keeps
//! them while it is frozen. It replaces dead ones, and SendPilot does not notice.

use std::time::Duration;

use crate::support::aws::Aws;
use crate::support::lambda::{Lambda, deployed_environment, environment};
use crate::support::line::Line;
use crate::support::requests::{SECRET, change, opportunity, signed_now};
use crate::support::world::World;
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

struct Lines {
    world: World,
    dynamodb: Line,
    sns: Line,
    function: Lambda,
}

impl Lines {
    /// With the secret in Secrets Manager (`deployed_environment`), or given (`environment`).
    async fn new(environment: fn(&Aws) -> Vec<(&'static str, String)>) -> Self {
        let world = World::new().await;
        world.aws.put_secret(SECRET);
        let (dynamodb, sns) = (Line::to(&world.aws).await, Line::to(&world.aws).await);
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
    let mut lines = Lines::new(deployed_environment).await;
    lines.dynamodb.opens(1).await;
    lines.sns.opens(1).await;
    // Open, they are not yet free.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(lines.outcome(&change("evt_1", "REPLY_RECEIVED")).await, (200, "ignored".into()));
    lines.alerts("evt_2").await;
    assert_eq!(lines.world.aws.calls(), ["current", "previous", "claim", "publish", "complete"]);
    assert_eq!(lines.opened(), (1, 1), "one each was enough");
}

#[tokio::test]
async fn without_a_stored_secret_an_alert_opens_the_first() {
    let mut lines = Lines::new(environment).await;
    assert_eq!(lines.outcome(&change("evt_1", "REPLY_RECEIVED")).await, (200, "ignored".into()));
    assert_eq!(lines.opened(), (0, 0));
    lines.alerts("evt_2").await;
    assert_eq!(lines.opened(), (1, 1));
}

#[tokio::test]
async fn an_unreachable_service_does_not_stop_the_start() {
    let world = World::new().await;
    world.aws.put_secret(SECRET);
    let mut environment = deployed_environment(&world.aws);
    // Ports on which nobody listens.
    environment.push(("AWS_ENDPOINT_URL_DYNAMODB", "https://localhost:9".into()));
    environment.push(("AWS_ENDPOINT_URL_SNS", "https://localhost:9".into()));
    let mut function = Lambda::start(environment, TIMEOUT).await;
    assert_eq!(function.answer(&signed_now(&change("evt_1", "REPLY_RECEIVED"))).await.0, 200);
    assert_eq!(function.answer(&signed_now(&opportunity("evt_2"))).await.0, 503);
}

#[tokio::test]
async fn kept_while_the_function_is_frozen() {
    let mut lines = Lines::new(deployed_environment).await;
    lines.alerts("evt_0").await;
    let opened = lines.opened();
    for number in 1..5 {
        lines.function.freeze();
        tokio::time::sleep(Duration::from_millis(50)).await;
        lines.function.thaw();
        lines.alerts(&format!("evt_{number}")).await;
    }
    assert_eq!(lines.opened(), opened);
}

#[tokio::test]
async fn connections_closed_in_a_freeze_cost_no_alert() {
    let mut lines = Lines::new(deployed_environment).await;
    lines.alerts("evt_0").await;
    for number in 1..=20 {
        lines.function.freeze();
        lines.dynamodb.cut().await;
        lines.sns.cut().await;
        // The event is there before the function knows that anything has ended.
        lines.function.begin(&signed_now(&opportunity(&format!("evt_{number}")))).await;
        lines.function.thaw();
        assert_eq!(lines.function.said().await["statusCode"], 200, "evt_{number}");
    }
    let alerts: Vec<_> = (0..=20).map(|number| format!("evt_{number}")).collect();
    assert_eq!(lines.world.aws.alerts(), alerts, "each once");
}

#[tokio::test]
async fn replaces_a_silent_connection_to_the_ledger() {
    let mut lines = Lines::new(deployed_environment).await;
    lines.alerts("evt_1").await;
    lines.dynamodb.silence().await;
    lines.alerts("evt_2").await;
    assert_eq!(lines.world.aws.alerts(), ["evt_1", "evt_2"]);
}
