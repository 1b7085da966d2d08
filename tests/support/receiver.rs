//! The receiver with its reconciliation: an account of SendPilot with its API, the AWS around it,
//! and the real functions.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use aws_sdk_dynamodb::types::{AttributeAction, AttributeValueUpdate};
use opportunity_alerts::message::key::LockKey;
use opportunity_alerts::timestamp::Timestamp;
use serde_json::{Value, json};
use testkit::sendpilot_api::{KEY, SendPilotApi};

use super::aws::{Call, Fault};
use super::dynamodb::{Item, TABLE};
use super::emf::{self, Metrics};
use super::lambda::{Lambda, Said, environment};
use super::requests::{opportunity_of, signed_now};
use super::world::World;

pub type Variables = Vec<(&'static str, String)>;

/// The time for a run. It is the timeout in `template.yaml`.
pub const TIMEOUT: Duration = Duration::from_secs(230);

/// The key of the row of the reconciliation.
const RUN: &str = "function#run";

/// The beginning of every lead's id here.
const LEAD: &str = "lead_";

/// Texts that no log line may contain.
const SECRET_TEXTS: [&str; 8] =
    [LEAD, "Annegret", "Quellwasser", "Zebras", "Ferncliff", "linkedin.com", "zeppelin", "sp_live"];

pub struct Receiver {
    pub world: World,
    pub api: SendPilotApi,
}

impl Receiver {
    /// Returns a receiver whose account has one campaign, `camp_1`, without leads.
    pub async fn new() -> Self {
        Self::with_fate(|_, _| None).await
    }

    /// Returns a receiver in which `fate` chooses the fault of each call to AWS.
    pub async fn with_fate(fate: impl Fn(&Call, usize) -> Option<Fault> + Send + Sync + 'static) -> Self {
        let (world, api) = (World::with_fate(fate).await, SendPilotApi::start().await.unwrap());
        api.put_campaign("camp_1", "Autumn in Flanders").await.unwrap();
        Self { world, api }
    }

    /// Returns a receiver with a complete baseline, and a reconcile function.
    pub async fn with_baseline() -> (Self, Reconcile) {
        let receiver = Self::new().await;
        let mut reconcile = receiver.reconcile().await;
        assert_has(&reconcile.run().await, json!({ "outcome": "complete", "leads": 0 }));
        (receiver, reconcile)
    }

    /// Marks a lead of `camp_1` as an opportunity, this number of minutes ago.
    pub async fn opportunity(&self, lead: &str, minutes: u32) {
        self.put(lead_of(lead, "camp_1", minutes)).await;
    }

    /// Adds or replaces a lead.
    pub async fn put(&self, lead: Value) {
        self.api.put_lead(lead).await.unwrap();
    }

    /// Changes the answers of the API to all paths with a prefix.
    pub async fn answers(&self, prefix: &str, changes: Value) {
        self.api.answer(prefix, changes).await.unwrap();
    }

    /// Returns the paths of the requests to the API since the last call of this function.
    pub async fn take_requests(&self) -> Vec<String> {
        let requests = self.api.requests().await.unwrap();
        self.api.forget_requests().await.unwrap();
        requests.into_iter().map(|request| request.path).collect()
    }

    pub async fn reconcile(&self) -> Reconcile {
        self.reconcile_with(Vec::new(), TIMEOUT).await
    }

    /// Starts the reconcile function with further variables in its environment.
    pub async fn reconcile_with(&self, more: Variables, timeout: Duration) -> Reconcile {
        let api = [("SENDPILOT_API_URL", self.api.url().to_owned()), ("SENDPILOT_API_KEY", KEY.into())];
        let variables = environment(&self.world.aws).into_iter().chain(api).chain(more).collect();
        Reconcile { function: Lambda::start_reconcile(variables, timeout).await }
    }

    /// Starts the webhook function as it is deployed with the reconciliation.
    pub async fn webhook(&self) -> Lambda {
        self.webhook_with(Vec::new()).await
    }

    pub async fn webhook_with(&self, more: Variables) -> Lambda {
        let more = [vec![("RECONCILE", "yes".to_owned())], more].concat();
        Lambda::start_with(&self.world.aws, more, Duration::from_secs(10)).await
    }

    /// Runs the redrive once, and returns its report.
    pub async fn redrive(&self) -> Value {
        let mut redrive = Lambda::start_redrive(&self.world.aws, Duration::from_secs(72)).await;
        match redrive.invoke(&json!({})).await {
            Said::Response(report) => report,
            said => panic!("expected a report, got {said:?}"),
        }
    }

    /// Lets the time pass until every lease is over.
    pub async fn end_leases(&self) {
        for row in self.world.dynamodb.rows().await {
            if row.contains_key("leaseUntil") {
                self.set(row["deliveryId"].as_s().unwrap(), "leaseUntil", N("0".into())).await;
            }
        }
    }

    /// Changes one attribute of a row.
    pub async fn set(&self, key: &str, name: &str, value: aws_sdk_dynamodb::types::AttributeValue) {
        let update = AttributeValueUpdate::builder().value(value).action(AttributeAction::Put).build();
        let change = self.world.dynamodb.client.update_item().table_name(TABLE).key("deliveryId", S(key.into()));
        change.attribute_updates(name, update).send().await.unwrap();
    }

    /// Returns the progress that the last run has stored.
    pub async fn progress(&self) -> Value {
        let rows = self.world.dynamodb.rows().await;
        let run = rows.iter().find(|row| row["deliveryId"] == S(RUN.into())).unwrap();
        serde_json::from_str(run["progress"].as_s().unwrap()).unwrap()
    }

    /// Replaces the stored progress.
    pub async fn set_progress(&self, progress: &str) {
        self.set(RUN, "progress", S(progress.into())).await;
    }

    /// Lets the time pass until the pause for which SendPilot's API has asked is over.
    pub async fn end_pause(&self) {
        let mut progress = self.progress().await;
        progress.as_object_mut().unwrap().remove("pausedUntil").unwrap();
        self.set_progress(&progress.to_string()).await;
    }

    /// Returns the rows except the one of the run, in a comparable form.
    pub async fn rows(&self) -> BTreeMap<String, String> {
        let rows = self.world.dynamodb.rows().await.into_iter();
        let rows = rows.map(|row| (row["deliveryId"].as_s().unwrap().clone(), sorted(&row)));
        rows.filter(|(key, _)| key != RUN).collect()
    }

    /// Returns the rows of known leads.
    pub async fn known(&self) -> Vec<Item> {
        let is_known = |row: &Item| row["deliveryId"].as_s().unwrap().ends_with("#known");
        self.world.dynamodb.rows().await.into_iter().filter(is_known).collect()
    }

    /// Returns the row that makes a lead known.
    pub async fn known_row(&self, lead: &str, status: &str) -> Option<Item> {
        let key = S(LockKey::known(lead, status).as_str().into());
        self.known().await.into_iter().find(|row| row["deliveryId"] == key)
    }

    /// Returns the published alerts as programs read them, in order.
    pub fn alerts(&self) -> Vec<Value> {
        let published = self.world.aws.published().into_iter();
        let alerts = published.map(|publish| {
            let bodies: Value = serde_json::from_str(&publish["Message"]).unwrap();
            serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap()
        });
        alerts.collect()
    }

    /// Returns the leads of the published alerts, sorted.
    pub fn alerted(&self) -> Vec<String> {
        let lead = |alert: Value| alert["data"]["leadId"].as_str().unwrap().to_owned();
        let mut leads: Vec<_> = self.alerts().into_iter().map(lead).collect();
        leads.sort();
        leads
    }
}

/// Returns a row's attributes, sorted.
fn sorted(row: &Item) -> String {
    format!("{:?}", row.iter().collect::<BTreeMap<_, _>>())
}

/// The reconcile function.
pub struct Reconcile {
    pub function: Lambda,
}

impl Reconcile {
    /// Makes a run, and returns its report.
    pub async fn run(&mut self) -> Value {
        self.report(&json!({})).await
    }

    /// Makes a dry run, and returns its report.
    pub async fn dry_run(&mut self) -> Value {
        self.report(&json!({ "dryRun": true })).await
    }

    /// Makes a run with this payload, and returns its report.
    pub async fn report(&mut self, payload: &Value) -> Value {
        report(self.function.invoke(payload).await)
    }

    /// Makes a run, which must fail. Returns the message of the error.
    pub async fn fails(&mut self) -> String {
        failure(self.function.invoke(&json!({})).await)
    }

    /// Ends the function, and returns its log lines with their metrics. No line has personal data.
    pub async fn lines(self) -> Vec<(Value, Metrics)> {
        let log = self.function.log().await;
        for text in SECRET_TEXTS {
            assert!(!log.contains(text), "{text} in {log}");
        }
        log.lines().map(emf::read).collect()
    }
}

/// Returns the report of a run that succeeded.
pub fn report(said: Said) -> Value {
    match said {
        Said::Response(report) => report,
        said => panic!("expected a report, got {said:?}"),
    }
}

/// Returns the message of a run that failed.
pub fn failure(said: Said) -> String {
    let Said::Error(error) = said else { panic!("expected an error, got {said:?}") };
    assert_eq!(error["errorType"], "Reconcile", "{error}");
    error["errorMessage"].as_str().unwrap().to_owned()
}

/// Returns the log lines of a kind.
pub fn lines_of(lines: &[(Value, Metrics)], kind: &str) -> Vec<Value> {
    lines.iter().filter(|(line, _)| line["message"] == kind).map(|(line, _)| line.clone()).collect()
}

/// Returns the number of missed webhooks that the alarm counts.
pub fn missed_webhooks(lines: &[(Value, Metrics)]) -> f64 {
    lines.iter().filter_map(|(_, metrics)| metrics.get("MissedWebhooks Count")).sum()
}

/// Asserts that an object has these members. A member that must be absent is null.
#[track_caller]
pub fn assert_has(object: &Value, members: Value) {
    for (name, value) in members.as_object().unwrap() {
        assert_eq!(&object[name], value, "{name} of {object}");
    }
}

/// Waits until a condition holds.
pub async fn until(mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..3000 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the condition should hold within 30 s");
}

pub fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Returns the moment this number of minutes ago.
pub fn ago(minutes: u32) -> Timestamp {
    Timestamp::from_millis(now().as_millis() - u64::from(minutes) * 60_000)
}

/// Returns an opportunity as SendPilot's API lists it, last updated this number of minutes ago.
pub fn lead_of(lead: &str, campaign: &str, minutes: u32) -> Value {
    json!({
        "id": lead, "campaignId": campaign, "status": "OPPORTUNITY", "updatedAt": ago(minutes).rfc3339(),
        "linkedinUrl": "https://www.linkedin.com/in/annegret", "firstName": "Annegret", "lastName": "Quellwasser",
        "title": "Head of Zebras", "company": "Ferncliff Freight",
    })
}

/// Returns the webhook's request about a lead that became an opportunity this number of minutes
/// ago.
pub fn event_of(event: &str, lead: &str, minutes: u32) -> Value {
    let mut body: Value = serde_json::from_str(&opportunity_of(event, lead)).unwrap();
    body["timestamp"] = ago(minutes).rfc3339().into();
    signed_now(&body.to_string())
}
