//! The real functions as processes, a real DynamoDB engine, and a proxy in front of the engine and
//! of SNS. The proxy drops, delays, throttles and fails calls. SIGKILL ends processes at any moment
//! and at their timeout, as in Lambda. SendPilot delivers some events twice at once and keeps its
//! retry schedule. For a third of the events it never retries. Two redrives run at a time.
//!
//! Some events have the id of another event, which is about another lead.
//!
//! Half of the webhook's processes remember replies and ask SendPilot's API who a lead is. Half of
//! the leads reply before or while they become an opportunity. The API fails, hangs, and changes
//! its answers.
//!
//! The reconciliation runs all the time: two processes take turns, and some runs are killed.
//! SendPilot drops the webhooks of a tenth of the events for good. Other webhooks come after the
//! reconciliation's alert, or at the same moment: see [`Case`].
//!
//! In the end, no claimed or confirmed event is lost, and no confirmed reply. Each lead that the
//! reconciliation may alert has an alert, by one of the two ways and never by both. Each second
//! publish of an alert has a reason: the answer to the first publish was lost, the completion
//! failed until the deadline, or the process was killed in between.
//!
//! Alerts are paced. No second has more publishes than twice the rate.
//!
//! The seed and the event's id determine the faults of an event. Faults of its requests for a slot,
//! of the API, and of a run are exceptions. `SEED=<number>` repeats the faults, but not the order
//! of the events. Time is real, so an invocation has two seconds, and SendPilot waits one
//! two-hundredth of its real times.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::aws::{Aws, Call, Fault};
use crate::support::dynamodb::{DynamoDb, Item};
use crate::support::fleet::{Fleet, Function};
use crate::support::lambda::Said;
use crate::support::requests::{reply, signed_now};
use fastrand::Rng;
use futures_util::future::{OptionFuture, join, join_all, join3, join4};
use futures_util::{StreamExt, stream};
use opportunity_alerts::message::key::sha256_hex;
use opportunity_alerts::reconcile::GRACE;
use opportunity_alerts::timestamp::Timestamp;
use serde_json::{Value, json};
use testkit::sendpilot::{RETRIES, change};
use testkit::sendpilot_api::{KEY, SendPilotApi};
use tokio::sync::Notify;

/// The timeout of the webhook function. A lease then ends after four seconds.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of the redrive. Each delivery in a run gets a quarter of this time.
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(8);
const REDRIVE_PAUSE: Duration = Duration::from_millis(500);
/// The timeout of the reconciliation. Each alert in a run gets a quarter of this time, as in the
/// redrive. The lease of a killed run ends after ten seconds.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(8);
const SECOND: Duration = Duration::from_secs(1);
const FASTER: u32 = 200;
/// The pace, in alerts per second.
const RATE: usize = 50;

/// The shortest time for which an attempt must retry a failing completion, counted from the claim.
/// It is 95 % of the attempt's time, minus a pause, the SDK's tries, and the search for details.
const RETRIED_FOR: Duration = Duration::from_millis(900);

/// The time for which the API stays as it is.
const API_STEP: Duration = Duration::from_millis(100);

/// The number of campaigns in the baseline.
const OLD_CAMPAIGNS: usize = 5;

/// The number of events of a later campaign. So its list of leads has two pages.
const CAMPAIGN: usize = 150;

/// The last update of a lead, unless it is [`Case::Recent`]. The reconciliation's alert reports the
/// changes until ten minutes later.
const UPDATED_AT: Timestamp = Timestamp::from_millis(1_708_770_600_000);

/// The time that the reconciliation may take for a lead, and the redrive for the pending deliveries
/// after SendPilot's last retry.
const PATIENCE: Duration = Duration::from_secs(120);

/// Returns a random generator for one decision, which depends only on the seed and the decision.
fn dice(seed: u64, about: impl Hash) -> Rng {
    let mut hasher = DefaultHasher::new();
    (seed, about).hash(&mut hasher);
    Rng::with_seed(hasher.finish())
}

/// Returns the fault of a call. Almost one call in five meets a fault.
fn fault_of(seed: u64, call: &Call, number: usize) -> Option<Fault> {
    let mut dice = dice(seed, ("call", &call.operation, &call.event, number));
    match dice.u32(0..1000) {
        0..30 => Some(Fault::Lost),
        30..60 => Some(Fault::AnswerLost),
        60..90 => Some(Fault::Throttled),
        90..110 => Some(Fault::Refused(500)),
        110..130 => Some(Fault::Denied(500)),
        130..170 => Some(Fault::Delayed(Duration::from_millis(dice.u64(1..400)))),
        170..175 => Some(Fault::HeldBefore),
        175..180 => Some(Fault::HeldAfter),
        _ => None,
    }
}

/// Returns the changes of the API's answers in one step, or `None` if the API works. Half of the
/// faults end soon, because otherwise each process would pause most of the time.
fn api_fault(seed: u64, step: impl Hash) -> Option<Value> {
    let soon = json!({ "Retry-After": "1" });
    match dice(seed, ("api", step)).u32(0..100) {
        0..70 => None,
        70..80 => Some(json!({ "status": 429, "headers": soon })),
        80..86 => Some(json!({ "status": 503, "headers": soon })),
        86..89 => Some(json!({ "hang": true })),
        89..92 => Some(json!({ "delay": 300 })),
        92..94 => Some(json!({ "status": 500 })),
        94..96 => Some(json!({ "close": true })),
        96..98 => Some(json!({ "half": true })),
        _ => Some(json!({ "body": "<html>" })),
    }
}

/// Returns the time after which an invocation is killed, if it is.
fn life(seed: u64, about: impl Hash, odds: f64, longest: u64) -> Duration {
    let mut dice = dice(seed, ("life", about));
    if dice.f64() < odds { Duration::from_millis(dice.u64(0..longest)) } else { Duration::MAX }
}

/// Returns the id of an event. One event in twenty has the id of the event before, which is about
/// another lead.
fn event_id(seed: u64, number: usize) -> String {
    let shares = dice(seed, ("id", number)).f64() < 0.05;
    format!("evt_{}", number - usize::from(shares && number > 0))
}

fn lead(number: usize) -> String {
    format!("lead_{number}")
}

/// The way of an event's webhook, and of its lead in the API's lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    /// SendPilot lists the lead and sends the webhook at the same time.
    Usual,
    /// The same, but the lead's last update is too recent for the reconciliation.
    Recent,
    /// The lead is in the baseline. The webhook reports a later change.
    Old,
    /// SendPilot never sends the webhook.
    Dropped,
    /// SendPilot sends the webhook after the reconciliation has published its alert.
    Late,
    /// SendPilot sends the webhook at the moment at which the reconciliation claims its alert.
    Race,
    /// SendPilot sends the webhook up to two seconds after it has listed the lead.
    Slow,
    /// SendPilot never sends the webhook. After the alert of the reconciliation, the webhook of a
    /// later change arrives.
    Again,
}

impl Case {
    fn of(seed: u64, event: usize) -> Self {
        match dice(seed, ("case", event)).u32(0..100) {
            0..10 => Self::Dropped,
            10..15 => Self::Late,
            15..20 => Self::Race,
            20..25 => Self::Slow,
            25..28 => Self::Again,
            28..33 => Self::Old,
            33..43 => Self::Recent,
            _ => Self::Usual,
        }
    }

    /// Returns whether SendPilot sends the webhook when it lists the lead.
    fn is_sent_at_once(self) -> bool {
        matches!(self, Self::Usual | Self::Recent | Self::Old)
    }

    /// Returns the call of the reconciliation's alert after which SendPilot sends the webhook.
    fn follows(self) -> Option<&'static str> {
        match self {
            Self::Race => Some("claim"),
            Self::Late | Self::Again => Some("publish"),
            _ => None,
        }
    }

    /// Returns whether the reconciliation may alert the lead.
    fn is_reconciled(self) -> bool {
        !matches!(self, Self::Recent | Self::Old)
    }
}

/// Returns the event id of the reconciliation's alert on a lead.
fn reconciled_id(lead: &str) -> String {
    format!("reconciliation_{:.32}", sha256_hex(format!("{lead}#OPPORTUNITY").as_bytes()))
}

/// Returns whether the event id is one of the reconciliation's.
fn is_found(event_id: &str) -> bool {
    event_id.starts_with("reconciliation_")
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Signals that calls to AWS have arrived.
#[derive(Clone, Default)]
struct Signals(Arc<Mutex<HashMap<Arrival, Arc<Notify>>>>);

/// The operation and the event of a call to AWS.
type Arrival = (String, String);

impl Signals {
    fn expect(&self, operation: &str, event: String) -> Arc<Notify> {
        self.0.lock().unwrap().entry((operation.to_owned(), event)).or_default().clone()
    }

    fn arrived(&self, call: &Call) {
        if let Some(signal) = self.0.lock().unwrap().get(&(call.operation.clone(), call.event.clone())) {
            signal.notify_one();
        }
    }
}

/// Returns the campaign of a lead in the baseline.
fn old_campaign(number: usize) -> String {
    format!("camp_old_{}", number % OLD_CAMPAIGNS)
}

/// Returns the text of a lead's only reply.
fn reply_of(lead: &str) -> String {
    format!("{lead} says yes")
}

/// Returns the data of an alert, from its row or from the published message.
fn data(message: &str) -> Value {
    let bodies: Value = serde_json::from_str(message).unwrap();
    let mut event: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
    event["data"].take()
}

/// Returns the lead of an alert, from its row or from the published message.
fn lead_of(message: &str) -> String {
    data(message)["leadId"].as_str().unwrap().to_owned()
}

struct World {
    seed: u64,
    aws: Aws,
    dynamodb: DynamoDb,
    api: SendPilotApi,
    /// Processes without details.
    webhooks: Fleet,
    /// Processes that remember replies and ask the API.
    detailed: Fleet,
    redrives: Fleet,
    reconciles: Fleet,
    signals: Signals,
    /// The last update of the leads that are too recent for the reconciliation. SendPilot's clock
    /// is ahead, so they stay recent for more than half an hour.
    recently: Timestamp,
    /// The number of runs of the reconciliation, by outcome.
    runs: Mutex<HashMap<String, usize>>,
    /// Each event that has started, with the time of its start, by lead.
    started: Mutex<HashMap<String, (usize, Instant)>>,
    /// The number of publishes that were read, and the leads that they alerted.
    alerted: Mutex<(usize, HashSet<String>)>,
    /// The leads whose events were answered 2xx.
    confirmed: Mutex<HashSet<String>>,
    /// The leads whose replies were answered 2xx.
    confirmed_replies: Mutex<HashSet<String>>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let dynamodb = DynamoDb::start().await;
        let signals = Signals::default();
        let arrivals = signals.clone();
        let fate = move |call: &Call, number| {
            arrivals.arrived(call);
            fault_of(seed, call, number)
        };
        let aws = Aws::with_fate(&dynamodb.url, fate).await;
        let api = SendPilotApi::start().await.unwrap();
        let rate = vec![("ALERTS_PER_SECOND", RATE.to_string())];
        let details = vec![
            ("REMEMBER_REPLIES", "yes".into()),
            ("SENDPILOT_API_KEY", KEY.into()),
            ("SENDPILOT_API_URL", api.url().into()),
        ];
        // A process that makes no lead known would let the reconciliation alert its leads again.
        let known = vec![("RECONCILE", "yes".into())];
        let webhook = || Fleet::new(Function::Webhook, 2, &aws, WEBHOOK_TIMEOUT);
        let reconcile = Fleet::new(Function::Reconcile, 2, &aws, RECONCILE_TIMEOUT);
        Self {
            webhooks: webhook().with([rate.clone(), known.clone()].concat()),
            detailed: webhook().with([rate.clone(), known, details.clone()].concat()),
            reconciles: reconcile.with([rate.clone(), details].concat()),
            redrives: Fleet::new(Function::Redrive, 2, &aws, REDRIVE_TIMEOUT).with(rate),
            recently: Timestamp::from(SystemTime::now()).after(GRACE - minutes(1)),
            signals,
            seed,
            aws,
            dynamodb,
            api,
            runs: Mutex::default(),
            started: Mutex::default(),
            alerted: Mutex::default(),
            confirmed: Mutex::default(),
            confirmed_replies: Mutex::default(),
        }
    }

    /// Changes the API's answers about a lead and about a campaign, until `ending` is set. No two
    /// steps have the same answer, so a second attempt would write another message.
    async fn trouble(&self, ending: &AtomicBool) {
        for step in 0.. {
            let lead = json!({ "firstName": "Ann", "company": format!("Company {step}") });
            let fault = api_fault(self.seed, ("details", step));
            let answer = fault.clone().unwrap_or_else(|| json!({ "status": 200, "body": lead }));
            self.api.answer("/v1/leads/", answer).await.unwrap();
            self.api.answer("/v1/campaigns/", fault.unwrap_or_else(|| json!({}))).await.unwrap();
            tokio::time::sleep(API_STEP).await;
            if ending.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Changes the API's answers to the reconciliation, until `ending` is set. Some steps are
    /// longer than the reconciliation waits for an answer.
    async fn trouble_lists(&self, ending: &AtomicBool) {
        for step in 0.. {
            let fault = api_fault(self.seed, ("lists", step)).unwrap_or_else(|| json!({}));
            for list in ["/v1/campaigns?", "/v1/leads?", "/v1/me"] {
                self.api.answer(list, fault.clone()).await.unwrap();
            }
            tokio::time::sleep(API_STEP * dice(self.seed, ("step", step)).u32(1..20)).await;
            if ending.load(Ordering::Relaxed) {
                return;
            }
        }
    }

    /// Lists a lead as an opportunity.
    async fn list(&self, lead: &str, campaign: &str, updated_at: Timestamp, company: &str) {
        let lead = json!({
            "id": lead, "campaignId": campaign, "status": "OPPORTUNITY", "updatedAt": updated_at.rfc3339(),
            "firstName": "Ann", "company": company,
        });
        self.api.put_lead(lead).await.unwrap();
    }

    /// Returns the campaign of an event's lead.
    fn campaign(&self, event: usize) -> String {
        match Case::of(self.seed, event) {
            Case::Old => old_campaign(event),
            _ => format!("camp_{:04}", event / CAMPAIGN),
        }
    }

    /// Lists the event's lead, and now and then a new campaign.
    async fn list_event(&self, event: usize) {
        if event.is_multiple_of(CAMPAIGN) {
            let number = event / CAMPAIGN;
            self.api.put_campaign(&format!("camp_{number:04}"), &format!("Campaign {number}")).await.unwrap();
        }
        let is_recent = Case::of(self.seed, event) == Case::Recent;
        let updated_at = if is_recent { self.recently } else { UPDATED_AT };
        self.list(&lead(event), &self.campaign(event), updated_at, &format!("Company {event}")).await;
    }

    /// Changes something about an event's lead that is not its status.
    async fn touch(&self, event: usize) {
        let updated_at = UPDATED_AT.after(minutes(5));
        self.list(&lead(event), &self.campaign(event), updated_at, &format!("Company {event}, moved")).await;
    }

    /// Returns the time of the change that the event's webhook reports.
    fn occurred_at(&self, event: usize) -> Timestamp {
        let mut dice = dice(self.seed, ("time", event));
        match Case::of(self.seed, event) {
            Case::Recent => self.recently,
            Case::Again => UPDATED_AT.after(minutes(dice.u64(10..60))),
            // The webhook can name an earlier time than the list, or a slightly later one.
            _ => Timestamp::from_millis(UPDATED_AT.as_millis() - 300_000).after(minutes(dice.u64(0..15))),
        }
    }

    /// Delivers the reply of the event's lead once.
    async fn reply(&self, event: usize) {
        let lead = lead(event);
        let body = reply(&format!("evt_reply_{event}"), &lead, &reply_of(&lead));
        let life = life(self.seed, ("reply", event), 0.1, 80);
        match self.detailed.invoke(&signed_now(&body.to_string()), life).await {
            Said::Response(response) if response["statusCode"] == 200 => {
                self.confirmed_replies.lock().unwrap().insert(lead);
            }
            Said::Response(response) => assert_eq!(response["statusCode"], 503),
            Said::Nothing => {}
            Said::Error(error) => panic!("{error}"),
        }
    }

    /// Makes one attempt of SendPilot's to deliver an event. Returns whether the answer was 2xx.
    async fn attempt(&self, event: usize, copy: usize, number: usize) -> bool {
        let life = life(self.seed, (event, copy, number), 0.1, 80);
        let mut body = change(&event_id(self.seed, event), "OPPORTUNITY");
        body["timestamp"] = self.occurred_at(event).rfc3339().into();
        body["data"]["leadId"] = lead(event).into();
        body["data"]["campaignId"] = self.campaign(event).into();
        let is_detailed = dice(self.seed, ("detailed", event, copy, number)).bool();
        let fleet = if is_detailed { &self.detailed } else { &self.webhooks };
        let said = fleet.invoke(&signed_now(&body.to_string()), life).await;
        let status = match said {
            Said::Response(response) => response["statusCode"].as_u64().unwrap(),
            Said::Nothing => 500,
            Said::Error(error) => panic!("{error}"),
        };
        assert!(matches!(status, 200 | 409 | 500 | 503), "SendPilot would not retry after {status}");
        if status == 200 {
            self.confirmed.lock().unwrap().insert(lead(event));
        }
        status == 200
    }

    /// Begins an event: lists its lead, and delivers its webhook for the first time unless that
    /// comes later. The returned future does the rest.
    async fn deliver(self: &Arc<Self>, event: usize) -> impl Future<Output = ()> + use<> {
        let mut dice = dice(self.seed, ("sendpilot", event));
        let (copies, returns) = (if dice.f64() < 0.2 { 2 } else { 1 }, dice.f64() < 2.0 / 3.0);
        self.started.lock().unwrap().insert(lead(event), (event, Instant::now()));
        let (replies, replies_first) = (dice.bool(), dice.bool());
        if replies && replies_first {
            self.reply(event).await;
        }
        let reply = OptionFuture::from((replies && !replies_first).then(|| self.reply(event)));
        let case = Case::of(self.seed, event);
        // Before the lead is listed, because the reconciliation may find it at once.
        let alert = |call| self.signals.expect(call, reconciled_id(&lead(event)));
        let signal = case.follows().map(alert);
        let sending = OptionFuture::from(case.is_sent_at_once().then(|| self.send(event, copies)));
        let (_, _, sent) = join3(self.list_event(event), reply, sending).await;
        let world = self.clone();
        async move {
            let first = match sent {
                Some(first) => first,
                None if case == Case::Dropped => return,
                None => {
                    world.wait_to_send(event, signal).await;
                    world.send(event, copies).await
                }
            };
            let unconfirmed = (0..copies).zip(first).filter(|(_, confirmed)| returns && !confirmed);
            join_all(unconfirmed.map(|(copy, _)| world.retry(event, copy))).await;
        }
    }

    /// Makes SendPilot's first attempt with each copy of an event.
    async fn send(&self, event: usize, copies: usize) -> Vec<bool> {
        join_all((0..copies).map(|copy| self.attempt(event, copy, 0))).await
    }

    /// Waits until SendPilot sends the event's webhook: until the signal, and some time.
    async fn wait_to_send(&self, event: usize, signal: Option<Arc<Notify>>) {
        let longest = match Case::of(self.seed, event) {
            Case::Slow => 2000,
            Case::Race => 10,
            _ => 500,
        };
        if let Some(signal) = signal {
            let arrived = tokio::time::timeout(PATIENCE, signal.notified()).await;
            assert!(arrived.is_ok(), "SEED={}: the reconciliation does not find {}", self.seed, lead(event));
            self.touch(event).await;
        }
        tokio::time::sleep(Duration::from_millis(dice(self.seed, ("later", event)).u64(0..longest))).await;
    }

    async fn retry(&self, event: usize, copy: usize) {
        for (wait, number) in RETRIES.into_iter().zip(1..) {
            tokio::time::sleep(wait / FASTER).await;
            if self.attempt(event, copy, number).await {
                return;
            }
        }
    }

    /// Runs the redrive repeatedly, and kills some runs. Ends once `ending` is set and nothing is
    /// pending.
    async fn redrive(&self, which: usize, ending: &AtomicBool) {
        let mut deadline = None;
        for number in 0.. {
            let life = life(self.seed, ("redrive", which, number), 0.1, 1000);
            // `now` skips the backoff, which would take minutes.
            let said = self.redrives.invoke(&json!({"now": true}), life).await;
            assert!(!matches!(&said, Said::Error(error) if error["errorType"] != "Redrive"), "{said:?}");
            if ending.load(Ordering::Relaxed) {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                if self.dynamodb.pending().await.is_empty() || Instant::now() > deadline {
                    return;
                }
            }
            tokio::time::sleep(REDRIVE_PAUSE).await;
        }
    }

    /// Makes one run of the reconciliation, and returns its outcome. Kills some runs.
    async fn run(&self, about: impl Hash) -> String {
        let life = life(self.seed, ("reconcile", about), 0.06, 2000);
        let outcome = match self.reconciles.invoke(&json!({}), life).await {
            Said::Response(report) => report["outcome"].as_str().unwrap().to_owned(),
            Said::Error(error) if error["errorType"] == "Reconcile" => "failed".into(),
            Said::Error(error) => panic!("{error}"),
            Said::Nothing => "killed".into(),
        };
        *self.runs.lock().unwrap().entry(outcome.clone()).or_default() += 1;
        outcome
    }

    /// Lists the leads of the baseline, and runs the reconciliation until a sweep is complete.
    async fn make_baseline(&self, events: usize) {
        let old = (0..events).filter(|event| Case::of(self.seed, *event) == Case::Old);
        let old = old.map(|event| (lead(event), old_campaign(event)));
        let without_webhook = (0..events / 20).map(|number| (format!("lead_old_{number}"), old_campaign(number)));
        let old: Vec<_> = old.chain(without_webhook).collect();
        for (lead, campaign) in &old {
            self.api.put_campaign(campaign, "Old").await.unwrap();
            self.list(lead, campaign, UPDATED_AT, lead).await;
        }
        let deadline = Instant::now() + PATIENCE;
        for number in 0.. {
            if self.run(("baseline", number)).await == "complete" {
                break;
            }
            assert!(Instant::now() < deadline, "SEED={}: the baseline is not complete", self.seed);
            tokio::time::sleep(REDRIVE_PAUSE).await;
        }
        let rows = self.dynamodb.rows().await;
        let known = rows.iter().filter(|row| row["deliveryId"].as_s().unwrap().ends_with("#known"));
        assert_eq!(known.count(), old.len(), "SEED={}: the baseline is not complete", self.seed);
    }

    /// Runs the reconciliation repeatedly. Ends once `sent` is set and no lead is missed.
    async fn reconcile(&self, which: usize, sent: &AtomicBool) {
        let mut deadline = None;
        for number in 0.. {
            self.run((which, number)).await;
            if sent.load(Ordering::Relaxed) {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                if self.has_alerted_all() || Instant::now() > deadline {
                    return;
                }
            }
            let pause = dice(self.seed, ("pause", which, number)).u64(200..2000);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Returns whether each lead that the reconciliation may alert has an alert.
    fn has_alerted_all(&self) -> bool {
        let (count, alerted) = &mut *self.alerted.lock().unwrap();
        let published = self.aws.published();
        alerted.extend(published[*count..].iter().map(|publish| lead_of(&publish["Message"])));
        *count = published.len();
        let started = self.started.lock().unwrap();
        let mut reconciled = started.iter().filter(|(_, (event, _))| Case::of(self.seed, *event).is_reconciled());
        reconciled.all(|(lead, _)| alerted.contains(lead))
    }

    /// Has SendPilot deliver this number of events, eight at a time, while the redrive and the
    /// reconciliation run.
    async fn play(self: &Arc<Self>, events: usize) {
        let ending = AtomicBool::new(false);
        let sent = AtomicBool::new(false);
        let sending = async {
            let deliveries = stream::iter(0..events).map(|number| self.deliver(number)).buffer_unordered(8);
            let rests: Vec<_> = deliveries.map(tokio::spawn).collect().await;
            for rest in rests {
                rest.await.unwrap();
            }
            sent.store(true, Ordering::Relaxed);
        };
        let working = async {
            self.make_baseline(events).await;
            join(sending, join_all((0..2).map(|which| self.reconcile(which, &sent)))).await;
            ending.store(true, Ordering::Relaxed);
        };
        let redrives = join_all((0..2).map(|which| self.redrive(which, &ending)));
        join4(working, self.trouble(&ending), self.trouble_lists(&ending), redrives).await;
    }

    async fn verdict(&self) -> Verdict {
        let journal = self.aws.journal();
        let (mut claimed, mut published) = (HashSet::new(), HashMap::<_, Vec<&Call>>::new());
        let mut begun_at = HashMap::new();
        for call in journal.iter().filter(|call| call.took_effect) {
            match call.operation.as_str() {
                "claim" => {
                    claimed.insert(call.event.clone());
                    begun_at.insert(&call.owner, call.at);
                }
                "takeover" => drop(begun_at.insert(&call.owner, call.at)),
                "publish" => published.entry(call.event.clone()).or_default().push(call),
                _ => {}
            }
        }
        let completions: Vec<_> = journal.iter().filter(|call| call.operation == "complete").collect();
        let completed: HashSet<_> =
            completions.iter().filter(|call| call.took_effect).map(|call| &call.owner).collect();
        // A completion excuses a second publish only if it failed until its deadline: it was
        // retried until then, or one of its tries was never answered. A completion that was refused
        // because another attempt had taken over is not an excuse.
        let failed = |owner: &String| {
            let own: Vec<_> = completions.iter().filter(|call| call.owner == *owner).collect();
            let met_fault = own.iter().any(|call| !call.took_effect && !call.heard);
            let held = own.iter().any(|call| matches!(call.fault, Some(Fault::HeldBefore | Fault::HeldAfter)));
            let late = own.iter().any(|call| call.at >= begun_at[owner] + RETRIED_FOR);
            met_fault && (late || held && own.len() > 1)
        };
        // On a busy machine, an answer can arrive after its attempt has given up. The release
        // records the reason.
        let late = |call: &&Call| call.operation == "release" && call.reason.contains("did not answer in time");
        let too_late: HashSet<_> = journal.iter().filter(late).map(|call| &call.owner).collect();
        let fleets = [&self.webhooks, &self.detailed, &self.redrives, &self.reconciles];
        let killed: HashSet<_> = fleets.into_iter().flat_map(Fleet::killed).collect();
        let proof_lost = |publish: &&&Call| {
            let request_id = publish.owner.split('/').next().unwrap();
            let cut_off = killed.contains(request_id) || failed(&publish.owner);
            let unheard = !publish.heard || too_late.contains(&publish.owner);
            unheard || cut_off && !completed.contains(&publish.owner)
        };

        let runs = self.runs.lock().unwrap().clone();
        let confirmed = self.confirmed.lock().unwrap().clone();
        let started = self.started.lock().unwrap().clone();
        let case = |lead: &str| started.get(lead).map(|(event, _)| Case::of(self.seed, *event));
        let may_reconcile = |lead: &str| case(lead).is_some_and(Case::is_reconciled);
        let alerts: Vec<_> =
            self.aws.published().into_iter().map(|mut publish| publish.remove("Message").unwrap()).collect();
        let alerted: HashSet<_> = alerts.iter().map(|alert| lead_of(alert)).collect();
        let rows = self.dynamodb.rows().await;
        let text = |row: &Item, name: &str| row[name].as_s().unwrap().clone();
        let event_of = |key: &str| key.split('#').nth(1).unwrap().to_owned();
        // The rows of a slot, a lock and a reply have no message.
        let messages = rows.iter().filter_map(|row| Some((row, row.get("message")?.as_m().unwrap())));
        let leads: HashMap<_, _> = messages
            .map(|(row, message)| (event_of(&text(row, "deliveryId")), lead_of(&text(message, "Message"))))
            .collect();
        let debounced = rows.iter().filter(|row| row.contains_key("debouncedBy"));
        let debounced: HashMap<_, _> =
            debounced.map(|row| (event_of(&text(row, "deliveryId")), event_of(&text(row, "debouncedBy")))).collect();
        let of_lists = started.keys().filter(|lead| may_reconcile(lead));
        let must_be_alerted: HashSet<_> = leads.values().chain(&confirmed).chain(of_lists).collect();
        let unpublished =
            claimed.iter().filter(|event| !published.contains_key(*event) && !debounced.contains_key(*event));
        let lost = unpublished.chain(must_be_alerted.iter().copied().filter(|lead| !alerted.contains(*lead)));
        let lost = lost.cloned().collect();
        let doubled: Vec<_> = published.iter().filter(|(_, publishes)| publishes.len() > 1).collect();
        let proven = |publishes: &[&Call]| publishes.len() - publishes.iter().filter(proof_lost).count();
        let unexplained = doubled.iter().filter(|(_, publishes)| proven(publishes) > 1);
        let history = |event: &str| journal.iter().filter(|call| call.event == event).cloned().collect::<Vec<_>>();
        // Those of the webhooks, because every alert of the reconciliation has the lead.
        let details = alerts.iter().map(|alert| data(alert)).filter(|data| data["foundBy"].is_null());
        let details: Vec<_> = details.collect();
        let with = |name: &str| details.iter().filter(|data| !data[name].is_null()).count();
        let (with_lead, with_reply) = (with("lead"), with("lastReply"));
        let replies: HashSet<_> = rows.iter().filter_map(|row| row.get("reply")?.as_s().ok()).collect();
        let confirmed_replies = self.confirmed_replies.lock().unwrap().clone();
        let replies_lost =
            confirmed_replies.iter().filter(|lead| !replies.contains(&reply_of(lead))).cloned().collect();
        // Every publish of a delivery must have the same message.
        let (mut bodies, mut ids) = (HashMap::<_, HashSet<_>>::new(), HashMap::<_, HashSet<_>>::new());
        for alert in alerts {
            let id = crate::support::aws::event_id(&alert);
            assert_eq!(data(&alert)["foundBy"] == "reconciliation", is_found(&id), "{alert}");
            ids.entry(lead_of(&alert)).or_default().insert(id.clone());
            bodies.entry(id).or_default().insert(alert);
        }
        let inconsistent = bodies.values().filter(|bodies| bodies.len() > 1).count();
        let reconciled = ids.iter().filter(|(_, ids)| ids.iter().any(|id| is_found(id)));
        let reconciled: HashSet<_> = reconciled.map(|(lead, _)| lead).collect();
        // Every lead has one change, and so one alert, except those of `Again`.
        let may_have = |lead: &String| if case(lead) == Some(Case::Again) { 2 } else { 1 };
        let too_many = ids.iter().filter(|(lead, ids)| ids.len() > may_have(lead));
        let locks = |lead: &str| history(&sha256_hex(lead.as_bytes()));
        let alerted_twice = too_many.map(|(lead, ids)| {
            let calls = ids.iter().flat_map(|id| history(id)).chain(locks(lead)).collect();
            (lead.clone(), case(lead), calls)
        });
        // The alert of the reconciliation suppresses the webhook of the same change only.
        let is_later = |event: &String| !is_found(event) && case(&leads[event]) == Some(Case::Again);
        let later_suppressed: Vec<_> = debounced.keys().filter(|event| is_later(event)).cloned().collect();
        let first = |lead: &str| ids[lead].iter().map(|event| published[event][0].at).min().unwrap();
        let at_once = alerted.iter().filter(|lead| case(lead).is_some_and(Case::is_sent_at_once));
        let by_webhook = at_once.filter(|lead| !reconciled.contains(lead));
        let mut times: Vec<_> = by_webhook.map(|lead| first(lead) - started[lead].1).collect();
        times.sort();
        let mut publishes: Vec<_> =
            journal.iter().filter(|call| call.operation == "publish").map(|call| call.at).collect();
        publishes.sort();
        let in_a_second = |from: &Instant| publishes.iter().filter(|at| (*from..*from + SECOND).contains(*at)).count();
        Verdict {
            events: started.len(),
            dropped: started.keys().filter(|lead| matches!(case(lead), Some(Case::Dropped | Case::Again))).count(),
            never_claimed: started.keys().filter(|lead| !must_be_alerted.contains(lead)).count(),
            alerted: alerted.len(),
            found: reconciled.len(),
            webhooks_debounced: debounced.values().filter(|holder| is_found(holder)).count(),
            found_debounced: debounced.keys().filter(|event| is_found(event)).count(),
            alerted_twice: alerted_twice.collect(),
            later_suppressed,
            wrongly_found: reconciled.into_iter().filter(|lead| !may_reconcile(lead)).cloned().collect(),
            runs,
            with_lead,
            with_reply,
            replies: confirmed_replies.len(),
            replies_lost,
            shared_ids: ids.values().flatten().filter(|id| id.contains('~')).count(),
            lost,
            still_pending: self.dynamodb.pending().await.len(),
            doubled: doubled.len(),
            unexplained: unexplained.map(|(event, _)| history(event)).collect(),
            inconsistent,
            calls: journal.len(),
            faults: journal.iter().filter(|call| !call.heard).count(),
            killed: killed.len(),
            most_in_a_second: publishes.iter().map(in_a_second).max().unwrap_or(0),
            times,
        }
    }
}

#[derive(Debug)]
struct Verdict {
    events: usize,
    /// Events whose webhooks SendPilot never sent.
    dropped: usize,
    /// Events that were never claimed and never answered 2xx, and that the reconciliation must not
    /// alert. SendPilot lists them as failed.
    never_claimed: usize,
    alerted: usize,
    /// Leads that the reconciliation alerted.
    found: usize,
    /// Alerts of webhooks that were suppressed, because the reconciliation was first.
    webhooks_debounced: usize,
    /// Alerts of the reconciliation that were suppressed, because the webhook was first.
    found_debounced: usize,
    /// All calls about each lead that has two alerts on one change.
    alerted_twice: Vec<(String, Option<Case>, Vec<Call>)>,
    /// Alerts on later changes that were suppressed.
    later_suppressed: Vec<String>,
    /// Leads that the reconciliation alerted, although they are in the baseline or too recent.
    wrongly_found: Vec<String>,
    /// The number of runs of the reconciliation, by outcome.
    runs: HashMap<String, usize>,
    /// Publishes of webhooks with the lead from the API.
    with_lead: usize,
    /// Publishes of webhooks with the lead's last reply.
    with_reply: usize,
    /// Replies that were answered 2xx.
    replies: usize,
    /// The leads whose replies were answered 2xx, and are not stored.
    replies_lost: Vec<String>,
    /// Alerts that were published under their own id, because another lead had the event's id.
    shared_ids: usize,
    lost: Vec<String>,
    still_pending: usize,
    doubled: usize,
    /// All calls of each delivery that was published twice without an excuse.
    unexplained: Vec<Vec<Call>>,
    /// Ids with different messages.
    inconsistent: usize,
    calls: usize,
    faults: usize,
    killed: usize,
    /// The highest number of publishes in any window of one second.
    most_in_a_second: usize,
    /// The time from the first attempt to the first publish, for the alerts of webhooks that were
    /// sent at once.
    times: Vec<Duration>,
}

impl Verdict {
    fn time(&self, percent: usize) -> String {
        let index = (self.times.len() * percent / 100).min(self.times.len() - 1);
        format!("{:.2} s", self.times[index].as_secs_f32())
    }

    /// Returns the number of runs of the reconciliation with one of these outcomes.
    fn runs(&self, outcomes: &[&str]) -> usize {
        outcomes.iter().filter_map(|outcome| self.runs.get(*outcome)).sum()
    }
}

#[expect(clippy::print_stdout, reason = "the verdict is for people to read")]
async fn check(events: usize) {
    let chosen = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED must be a whole number"));
    let clock = || u64::from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos());
    let seed = chosen.unwrap_or_else(clock);
    println!("SEED={seed}");
    let world = Arc::new(World::new(seed).await);
    let began = Instant::now();
    world.play(events).await;
    let verdict = world.verdict().await;
    for (what, figure) in [
        ("events", verdict.events.to_string()),
        ("webhooks dropped", verdict.dropped.to_string()),
        ("calls to AWS", verdict.calls.to_string()),
        ("calls without an answer, or with an error", verdict.faults.to_string()),
        ("processes killed", verdict.killed.to_string()),
        ("events never claimed and never confirmed", verdict.never_claimed.to_string()),
        ("events alerted", verdict.alerted.to_string()),
        ("publishes with the lead from the API", verdict.with_lead.to_string()),
        ("publishes with the lead's reply", verdict.with_reply.to_string()),
        ("alerts found by the reconciliation", verdict.found.to_string()),
        ("webhooks debounced, after the reconciliation", verdict.webhooks_debounced.to_string()),
        ("found alerts debounced, after the webhook", verdict.found_debounced.to_string()),
        ("changes alerted by both ways", verdict.alerted_twice.len().to_string()),
        ("known or recent leads found", verdict.wrongly_found.len().to_string()),
        (
            "runs of the reconciliation",
            verdict.runs(&["complete", "continues", "paused", "failed", "killed"]).to_string(),
        ),
        ("runs with a complete sweep", verdict.runs(&["complete"]).to_string()),
        ("runs failed", verdict.runs(&["failed"]).to_string()),
        ("runs killed", verdict.runs(&["killed"]).to_string()),
        ("runs refused, because another one ran", verdict.runs(&["in_progress"]).to_string()),
        ("replies confirmed", verdict.replies.to_string()),
        ("replies lost", verdict.replies_lost.len().to_string()),
        ("alerts under their own id", verdict.shared_ids.to_string()),
        ("events lost", verdict.lost.len().to_string()),
        ("published twice, after a lost proof", (verdict.doubled - verdict.unexplained.len()).to_string()),
        ("published twice without a reason", verdict.unexplained.len().to_string()),
        ("most publishes in one second", verdict.most_in_a_second.to_string()),
        ("time to alert, median", verdict.time(50)),
        ("time to alert, 99th percentile", verdict.time(99)),
        ("time to alert, maximum", verdict.time(100)),
        ("duration of the run", format!("{:.0} s", began.elapsed().as_secs_f32())),
    ] {
        println!("{what:<45}{figure:>9}");
    }
    assert_eq!(verdict.lost, [""; 0], "SEED={seed}");
    assert_eq!(verdict.replies_lost, [""; 0], "SEED={seed}");
    assert!(verdict.unexplained.is_empty(), "SEED={seed}: {:#?}", verdict.unexplained);
    assert!(verdict.alerted_twice.is_empty(), "SEED={seed}: {:#?}", verdict.alerted_twice);
    assert_eq!((&*verdict.later_suppressed, &*verdict.wrongly_found), (&[][..], &[][..]), "SEED={seed}");
    assert_eq!((verdict.still_pending, verdict.inconsistent), (0, 0), "SEED={seed}");
    assert_eq!(verdict.alerted + verdict.never_claimed, events, "SEED={seed}");
    assert!(verdict.most_in_a_second <= 2 * RATE, "SEED={seed}");
    assert!(
        verdict.with_lead > events / 40 && verdict.with_reply > events / 40,
        "SEED={seed} has too few details to prove anything"
    );
    assert!(
        verdict.found > events / 10 && verdict.webhooks_debounced > events / 50,
        "SEED={seed} has too few missed webhooks to prove anything"
    );
    assert!(verdict.shared_ids > events / 100, "SEED={seed} shares too few ids to prove anything");
    assert!(
        verdict.faults > events / 10 && verdict.killed > events / 100,
        "SEED={seed} has too few faults to prove anything"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn loses_none_of_hundreds_of_events() {
    check(400).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make chaos`"]
async fn loses_none_of_ten_thousand_events() {
    check(10_000).await;
}
