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
//! In the end, no claimed or confirmed event is lost, and no confirmed reply. Each second publish
//! of an alert has a reason: the answer to the first publish was lost, the completion failed until
//! the deadline, or the process was killed in between.
//!
//! Alerts are paced. No second has more publishes than twice the rate.
//!
//! The seed and the event's id determine the faults of an event, except those of its requests for a
//! slot and of the API. `SEED=<number>` repeats the faults, but not the order of the events. Time
//! is real, so an invocation has two seconds, and SendPilot waits one two-hundredth of its real
//! times.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::aws::{Aws, Call, Fault};
use crate::support::dynamodb::DynamoDb;
use crate::support::fleet::{Fleet, Function};
use crate::support::lambda::Said;
use crate::support::requests::{opportunity_of, reply, signed_now};
use fastrand::Rng;
use futures_util::future::{OptionFuture, join, join_all, join3};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use testkit::sendpilot::RETRIES;
use testkit::sendpilot_api::{KEY, SendPilotApi};

/// The timeout of the webhook function. A lease then ends after four seconds.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(2);
/// The timeout of the redrive. Each delivery in a run gets a quarter of this time.
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(8);
const REDRIVE_PAUSE: Duration = Duration::from_millis(500);
const SECOND: Duration = Duration::from_secs(1);
const FASTER: u32 = 200;
/// The pace, in alerts per second.
const RATE: usize = 50;

/// The shortest time for which an attempt must retry a failing completion, counted from the claim.
/// It is 95 % of the attempt's time, minus a pause, the SDK's tries, and the search for details.
const RETRIED_FOR: Duration = Duration::from_millis(900);

/// The time for which the API stays as it is.
const API_STEP: Duration = Duration::from_millis(100);

/// The time that the redrive may take for the pending deliveries after SendPilot's last retry.
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
fn api_fault(seed: u64, step: usize) -> Option<Value> {
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
    /// The start of each event's first attempt, by lead.
    begun: Mutex<HashMap<String, Instant>>,
    /// The leads whose events were answered 2xx.
    confirmed: Mutex<HashSet<String>>,
    /// The leads whose replies were answered 2xx.
    confirmed_replies: Mutex<HashSet<String>>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let dynamodb = DynamoDb::start().await;
        let aws = Aws::with_fate(&dynamodb.url, move |call, number| fault_of(seed, call, number)).await;
        let api = SendPilotApi::start().await.unwrap();
        api.put_campaign("camp_xyz789", "Spring").await.unwrap();
        let rate = vec![("ALERTS_PER_SECOND", RATE.to_string())];
        let details = vec![
            ("REMEMBER_REPLIES", "yes".into()),
            ("SENDPILOT_API_KEY", KEY.into()),
            ("SENDPILOT_API_URL", api.url().into()),
        ];
        let webhook = || Fleet::new(Function::Webhook, 2, &aws, WEBHOOK_TIMEOUT);
        Self {
            webhooks: webhook().with(rate.clone()),
            detailed: webhook().with([rate.clone(), details].concat()),
            redrives: Fleet::new(Function::Redrive, 2, &aws, REDRIVE_TIMEOUT).with(rate),
            seed,
            aws,
            dynamodb,
            api,
            begun: Mutex::default(),
            confirmed: Mutex::default(),
            confirmed_replies: Mutex::default(),
        }
    }

    /// Changes the API's answers, until `ending` is set. No two steps have the same answer, so a
    /// second attempt would write another message.
    async fn trouble(&self, ending: &AtomicBool) {
        for step in 0.. {
            self.api.clear().await.unwrap();
            let lead = json!({ "firstName": "Ann", "company": format!("Company {step}") });
            self.api.answer("/v1/leads", json!({ "status": 200, "body": lead })).await.unwrap();
            if let Some(fault) = api_fault(self.seed, step) {
                self.api.answer("/v1", fault).await.unwrap();
            }
            tokio::time::sleep(API_STEP).await;
            if ending.load(Ordering::Relaxed) {
                return;
            }
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
        let body = opportunity_of(&event_id(self.seed, event), &lead(event));
        let is_detailed = dice(self.seed, ("detailed", event, copy, number)).bool();
        let fleet = if is_detailed { &self.detailed } else { &self.webhooks };
        let said = fleet.invoke(&signed_now(&body), life).await;
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

    /// Delivers an event for the first time. The returned future makes the retries.
    async fn deliver(self: &Arc<Self>, event: usize) -> impl Future<Output = ()> + use<> {
        let mut dice = dice(self.seed, ("sendpilot", event));
        let (copies, returns) = (if dice.f64() < 0.2 { 2 } else { 1 }, dice.f64() < 2.0 / 3.0);
        self.begun.lock().unwrap().insert(lead(event), Instant::now());
        let (replies, replies_first) = (dice.bool(), dice.bool());
        if replies && replies_first {
            self.reply(event).await;
        }
        let reply = OptionFuture::from((replies && !replies_first).then(|| self.reply(event)));
        let (first, _) = join(join_all((0..copies).map(|copy| self.attempt(event, copy, 0))), reply).await;
        let world = self.clone();
        async move {
            let unconfirmed = (0..copies).zip(first).filter(|(_, confirmed)| returns && !confirmed);
            join_all(unconfirmed.map(|(copy, _)| world.retry(event, copy))).await;
        }
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

    /// Has SendPilot deliver this number of events, eight at a time, while the redrive runs.
    async fn play(self: &Arc<Self>, events: usize) {
        let ending = AtomicBool::new(false);
        let sending = async {
            let deliveries = stream::iter(0..events).map(|number| self.deliver(number)).buffer_unordered(8);
            let rests: Vec<_> = deliveries.map(tokio::spawn).collect().await;
            for rest in rests {
                rest.await.unwrap();
            }
            ending.store(true, Ordering::Relaxed);
        };
        join3(sending, self.trouble(&ending), join_all((0..2).map(|which| self.redrive(which, &ending)))).await;
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
        let killed = &(&self.webhooks.killed() | &self.detailed.killed()) | &self.redrives.killed();
        let proof_lost = |publish: &&&Call| {
            let request_id = publish.owner.split('/').next().unwrap();
            let cut_off = killed.contains(request_id) || failed(&publish.owner);
            let unheard = !publish.heard || too_late.contains(&publish.owner);
            unheard || cut_off && !completed.contains(&publish.owner)
        };

        let confirmed = self.confirmed.lock().unwrap().clone();
        let begun = self.begun.lock().unwrap().clone();
        let alerts: Vec<_> =
            self.aws.published().into_iter().map(|mut publish| publish.remove("Message").unwrap()).collect();
        let alerted: HashSet<_> = alerts.iter().map(|alert| lead_of(alert)).collect();
        let rows = self.dynamodb.rows().await;
        // The rows of a slot and of a reply have no message.
        let messages = rows.iter().filter_map(|row| row.get("message"));
        let of_rows = messages.map(|message| lead_of(message.as_m().unwrap()["Message"].as_s().unwrap()));
        let must_be_published = &of_rows.collect::<HashSet<_>>() | &confirmed;
        let unpublished = claimed.iter().filter(|event| !published.contains_key(*event));
        let lost =
            unpublished.chain(must_be_published.iter().filter(|lead| !alerted.contains(*lead))).cloned().collect();
        let doubled: Vec<_> = published.iter().filter(|(_, publishes)| publishes.len() > 1).collect();
        let proven = |publishes: &[&Call]| publishes.len() - publishes.iter().filter(proof_lost).count();
        let unexplained = doubled.iter().filter(|(_, publishes)| proven(publishes) > 1);
        let history = |event: &str| journal.iter().filter(|call| call.event == event).cloned().collect::<Vec<_>>();
        let details: Vec<_> = alerts.iter().map(|alert| data(alert)).collect();
        let with = |name: &str| details.iter().filter(|data| !data[name].is_null()).count();
        let (with_lead, with_reply) = (with("lead"), with("lastReply"));
        let replies: HashSet<_> = rows.iter().filter_map(|row| row.get("reply")?.as_s().ok()).collect();
        let confirmed_replies = self.confirmed_replies.lock().unwrap().clone();
        let replies_lost =
            confirmed_replies.iter().filter(|lead| !replies.contains(&reply_of(lead))).cloned().collect();
        // Every publish of a delivery must have the same message, and every alert on a lead the
        // same id.
        let (mut bodies, mut ids) = (HashMap::<_, HashSet<_>>::new(), HashMap::<_, HashSet<_>>::new());
        for alert in alerts {
            ids.entry(lead_of(&alert)).or_default().insert(crate::support::aws::event_id(&alert));
            bodies.entry(crate::support::aws::event_id(&alert)).or_default().insert(alert);
        }
        let first = |lead: &str| ids[lead].iter().map(|event| published[event][0].at).min().unwrap();
        let mut times: Vec<_> = alerted.iter().map(|lead| first(lead) - begun[lead]).collect();
        times.sort();
        let mut publishes: Vec<_> =
            journal.iter().filter(|call| call.operation == "publish").map(|call| call.at).collect();
        publishes.sort();
        let in_a_second = |from: &Instant| publishes.iter().filter(|at| (*from..*from + SECOND).contains(*at)).count();
        let many = |sets: &HashMap<String, HashSet<String>>| sets.values().filter(|set| set.len() > 1).count();
        Verdict {
            events: begun.len(),
            never_claimed: begun.keys().filter(|lead| !must_be_published.contains(*lead)).count(),
            alerted: alerted.len(),
            with_lead,
            with_reply,
            replies: confirmed_replies.len(),
            replies_lost,
            shared_ids: ids.values().flatten().filter(|id| id.contains('~')).count(),
            lost,
            still_pending: self.dynamodb.pending().await.len(),
            doubled: doubled.len(),
            unexplained: unexplained.map(|(event, _)| history(event)).collect(),
            inconsistent: many(&bodies) + many(&ids),
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
    /// Events that were never claimed and never answered 2xx. SendPilot lists them as failed.
    never_claimed: usize,
    alerted: usize,
    /// Publishes with the lead from the API.
    with_lead: usize,
    /// Publishes with the lead's last reply.
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
    /// Ids with different messages, and leads with two ids.
    inconsistent: usize,
    calls: usize,
    faults: usize,
    killed: usize,
    /// The highest number of publishes in any window of one second.
    most_in_a_second: usize,
    times: Vec<Duration>,
}

impl Verdict {
    fn time(&self, percent: usize) -> String {
        let index = (self.times.len() * percent / 100).min(self.times.len() - 1);
        format!("{:.2} s", self.times[index].as_secs_f32())
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
        ("events sent", verdict.events.to_string()),
        ("calls to AWS", verdict.calls.to_string()),
        ("calls without an answer, or with an error", verdict.faults.to_string()),
        ("processes killed", verdict.killed.to_string()),
        ("events never claimed and never confirmed", verdict.never_claimed.to_string()),
        ("events alerted", verdict.alerted.to_string()),
        ("publishes with the lead from the API", verdict.with_lead.to_string()),
        ("publishes with the lead's reply", verdict.with_reply.to_string()),
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
    assert_eq!((verdict.still_pending, verdict.inconsistent), (0, 0), "SEED={seed}");
    assert_eq!(verdict.alerted + verdict.never_claimed, events, "SEED={seed}");
    assert!(verdict.most_in_a_second <= 2 * RATE, "SEED={seed}");
    assert!(
        verdict.with_lead > events / 40 && verdict.with_reply > events / 40,
        "SEED={seed} has too few details to prove anything"
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
