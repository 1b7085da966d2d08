//! The reconciliation. It alerts the leads whose webhook never came, once, whatever fails.

use std::time::{Duration, SystemTime};

use crate::support::aws::{Call, Fault};
use crate::support::lambda::{Lambda, Said, environment};
use crate::support::requests::{opportunity_of, signed_now};
use crate::support::world::World;
use opportunity_alerts::timestamp::Timestamp;
use serde_json::{Value, json};
use testkit::sendpilot_api::{KEY, SendPilotApi};

type Variables = Vec<(&'static str, String)>;

/// The time for a run. It is the timeout in `template.yaml`.
const TIMEOUT: Duration = Duration::from_secs(300);

/// An account of SendPilot, the receiver's AWS, and the functions between them.
struct Receiver {
    world: World,
    api: SendPilotApi,
}

impl Receiver {
    async fn new() -> Self {
        Self::with_fate(|_, _| None).await
    }

    /// Returns a receiver in which `fate` chooses the fault of each call to AWS.
    async fn with_fate(fate: impl Fn(&Call, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let (world, api) = (World::with_fate(fate).await, SendPilotApi::start().await.unwrap());
        api.put_campaign("camp_1", "Autumn in Flanders").await.unwrap();
        Self { world, api }
    }

    /// Marks a lead as an opportunity, this number of minutes ago.
    async fn opportunity(&self, lead: &str, campaign: &str, minutes: u32) {
        self.api.put_lead(lead_of(lead, campaign, minutes)).await.unwrap();
    }

    fn variables(&self) -> Variables {
        let api = [("SENDPILOT_API_URL", self.api.url().to_owned()), ("SENDPILOT_API_KEY", KEY.into())];
        environment(&self.world.aws).into_iter().chain(api).collect()
    }

    async fn reconcile(&self) -> Reconcile {
        self.reconcile_with(Vec::new(), TIMEOUT).await
    }

    async fn reconcile_with(&self, more: Variables, timeout: Duration) -> Reconcile {
        let variables = self.variables().into_iter().chain(more).collect();
        Reconcile { function: Lambda::start_reconcile(variables, timeout).await }
    }

    /// Starts the webhook function as it is deployed with the reconciliation.
    async fn webhook(&self) -> Lambda {
        self.webhook_with(Vec::new()).await
    }

    async fn webhook_with(&self, more: Variables) -> Lambda {
        let more = [vec![("RECONCILE", "yes".to_owned())], more].concat();
        Lambda::start_with(&self.world.aws, more, Duration::from_secs(10)).await
    }
}

/// The reconcile function.
struct Reconcile {
    function: Lambda,
}

impl Reconcile {
    /// Makes a run, and returns its report.
    async fn run(&mut self) -> Value {
        self.report(&json!({})).await
    }

    async fn report(&mut self, payload: &Value) -> Value {
        match self.function.invoke(payload).await {
            Said::Response(report) => report,
            said => panic!("expected a report, got {said:?}"),
        }
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Returns the moment this number of minutes ago.
fn ago(minutes: u32) -> Timestamp {
    Timestamp::from_millis(now().as_millis() - u64::from(minutes) * 60_000)
}

/// Returns an opportunity as SendPilot's API lists it, last updated this number of minutes ago.
fn lead_of(lead: &str, campaign: &str, minutes: u32) -> Value {
    json!({
        "id": lead, "campaignId": campaign, "status": "OPPORTUNITY", "updatedAt": ago(minutes).rfc3339(),
        "linkedinUrl": "https://www.linkedin.com/in/annegret", "firstName": "Annegret", "lastName": "Quellwasser",
        "company": "Ferncliff Freight",
    })
}

/// Returns the webhook's request about a lead that became an opportunity at this time.
fn event_at(event: &str, lead: &str, at: Timestamp) -> Value {
    let mut body: Value = serde_json::from_str(&opportunity_of(event, lead)).unwrap();
    body["timestamp"] = at.rfc3339().into();
    signed_now(&body.to_string())
}

/// Returns the members of a report with these names.
fn counts<const N: usize>(report: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| report[name].clone())
}

#[tokio::test]
async fn finds_a_missed_lead_and_debounces_its_late_webhook() {
    let receiver = Receiver::new().await;
    receiver.opportunity("lead_old", "camp_1", 30).await;
    let mut reconcile = receiver.reconcile().await;
    let report = reconcile.run().await;
    assert_eq!(counts(&report, ["outcome", "baseline", "missed"]), [json!("complete"), json!(1), json!(0)], "{report}");

    receiver.opportunity("lead_1", "camp_1", 30).await;
    let report = reconcile.run().await;
    assert_eq!(counts(&report, ["baseline", "missed", "alerted"]), [0, 1, 1].map(Value::from), "{report}");
    let publishes = receiver.world.aws.published();
    let [publish] = &publishes[..] else { panic!("{publishes:?}") };
    let bodies: Value = serde_json::from_str(&publish["Message"]).unwrap();
    let alert: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
    assert_eq!((&alert["data"]["leadId"], &alert["data"]["foundBy"]), (&json!("lead_1"), &json!("reconciliation")));

    let mut webhook = receiver.webhook().await;
    assert_eq!(webhook.answer(&event_at("evt_1", "lead_1", ago(30))).await.1["outcome"], "debounced");
    assert_eq!(receiver.world.aws.published().len(), 1);
    let report = reconcile.run().await;
    assert_eq!(counts(&report, ["outcome", "leads", "missed"]), [json!("complete"), json!(2), json!(0)], "{report}");
}
