//! No second has more alerts than an email subscription accepts, with any number of processes. The
//! tests cover the slots in the table, the wait of an attempt, the redrive's rate, and real
//! processes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use crate::support::doubles::{relay, telemetry};
use crate::support::dynamodb::DynamoDb;
use crate::support::lambda::{Lambda, Said, environment};
use crate::support::requests::{claim_of, delivery, opportunity_delivery, opportunity_of, signed_now};
use crate::support::world::World;
use futures_util::future::join_all;
use futures_util::{Stream, stream};
use opportunity_alerts::config::Config;
use opportunity_alerts::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, Lock, MayPublish, Pending, Receipt,
    may_take_slot,
};
use opportunity_alerts::delivery::pace::{AlertRate, Pacer, Slot};
use opportunity_alerts::delivery::relay::{Delivered, Outcome, Relay, Unpublished};
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, ReplyKey};
use opportunity_alerts::message::{Delivery, Locks, Message};
use opportunity_alerts::redrive::{Redrive, Urgency};
use opportunity_alerts::timestamp::Timestamp;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};

const SECOND: Duration = Duration::from_secs(1);
/// SNS's limit for an email subscription, in messages per second.
const EMAIL_LIMIT: usize = 10;
const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

fn rate(per_second: u64) -> AlertRate {
    AlertRate::new(per_second).unwrap()
}

/// Returns the highest number of moments in any window of one second.
fn most_in_a_second(moments: &[Duration]) -> usize {
    let mut moments = moments.to_vec();
    moments.sort();
    moments
        .iter()
        .map(|from| moments.iter().filter(|at| (*from..*from + SECOND).contains(*at)).count())
        .max()
        .unwrap_or(0)
}

// ── The slots in the table ───────────────────────────────────────────────────────────────────────

fn owner(number: u8) -> Owner {
    Owner::new("request", [number; 8])
}

#[tokio::test]
async fn a_slot_has_one_owner_who_may_ask_again() {
    let dynamodb = DynamoDb::start().await;
    let ledger = dynamodb.ledger();
    let (first, second) = (claim_of("evt_1", owner(1)), claim_of("evt_2", owner(2)));
    let slot = rate(5).slot_at(START);
    assert!(ledger.take_slot(&first, slot).await.unwrap());
    assert!(!ledger.take_slot(&second, slot).await.unwrap());
    assert!(ledger.take_slot(&first, slot).await.unwrap(), "the owner should get its slot again after a lost answer");
    assert!(ledger.take_slot(&second, rate(5).next(slot)).await.unwrap());
    assert_eq!(dynamodb.rows().await.len(), 2);
    assert_eq!(dynamodb.pending().await, [], "a slot should not be a pending delivery");
}

#[tokio::test]
async fn the_row_of_a_slot_has_its_start_and_expires() {
    let dynamodb = DynamoDb::start().await;
    let slot = rate(5).slot_at(START.after(Duration::from_millis(399)));
    dynamodb.ledger().take_slot(&claim_of("evt_1", owner(1)), slot).await.unwrap();
    let [row] = &dynamodb.rows().await[..] else { panic!() };
    assert_eq!(row["deliveryId"].as_s().unwrap(), &format!("{}#slot", START.as_millis() + 200));
    assert_eq!(row["owner"].as_s().unwrap(), owner(1).as_str());
    assert_eq!(row["expiresAt"].as_n().unwrap(), &(START.as_secs() + 3600).to_string());
    assert_eq!(row.len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_fifty_concurrent_attempts_gets_a_slot() {
    let dynamodb = DynamoDb::start().await;
    for round in 0..20 {
        let slot = rate(5).slot_at(START.after(SECOND * round));
        let asking = (0..50).map(|number| {
            let ledger = dynamodb.ledger();
            tokio::spawn(async move { ledger.take_slot(&claim_of("evt", owner(number)), slot).await.unwrap() })
        });
        let granted = join_all(asking).await.into_iter().filter(|taken| *taken.as_ref().unwrap()).count();
        assert_eq!(granted, 1, "round {round}");
    }
}

// ── The wait of an attempt, in tokio's time ──────────────────────────────────────────────────────

#[derive(Debug, Clone, Copy, PartialEq)]
enum Answers {
    After(Duration),
    /// All answers to earlier requests come at this time.
    NotBefore(Duration),
    Error,
}

/// Slots that all attempts share, and a topic that records the start of each publish.
#[derive(Clone)]
struct Shared {
    began: Instant,
    answers: Answers,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    slots: BTreeMap<Slot, Owner>,
    asked: usize,
    released: Vec<String>,
    /// Each published body, with the time since the start.
    published: Vec<(String, Duration)>,
    backlog: BTreeSet<String>,
}

impl Shared {
    fn new(answers: Answers) -> Self {
        Self { began: Instant::now(), answers, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn now(&self) -> Timestamp {
        START.after(self.began.elapsed())
    }

    fn relay(&self, per_second: u64) -> Relay<Self, Self> {
        Relay { pacer: AlertRate::new(per_second).map(Pacer::new), ..relay(self.clone(), self.clone()) }
    }

    fn invocation(&self, name: &str, allowed: Duration) -> Invocation {
        let now = self.now();
        Invocation::new(name, now.after(allowed), now, [0; 8])
    }

    /// Runs one attempt of the webhook function to publish this event's alert.
    async fn attempt(&self, event: &str, per_second: u64) -> Delivered {
        let wanted = ClaimRequest::Delivery(delivery(event, event));
        self.relay(per_second).deliver(wanted, &self.invocation(event, SECOND * 10)).await
    }

    fn moments(&self) -> Vec<Duration> {
        self.state().published.iter().map(|(_, at)| *at).collect()
    }
}

impl Ledger for Shared {
    async fn claim(&self, wanted: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        let id = wanted.id().clone();
        let message = delivery(id.as_str(), "").message;
        Ok(ClaimResult { claim: Ok(Claim::new(id, message, Locks::default(), attempt.owner)), attempts: None })
    }

    async fn lock(&self, _: &DeliveryId, _: &Lock) -> Result<MayPublish, LedgerError> {
        Ok(MayPublish::Yes)
    }

    async fn take_slot(&self, claim: &Claim, slot: Slot) -> Result<bool, LedgerError> {
        let taken = {
            let mut state = self.state();
            state.asked += 1;
            let may = may_take_slot(state.slots.get(&slot), claim.owner());
            if may {
                state.slots.insert(slot, claim.owner().clone());
            }
            may
        };
        match self.answers {
            Answers::After(time) => sleep(time).await,
            Answers::NotBefore(time) => sleep_until(self.began + time).await,
            Answers::Error => return Err(LedgerError::Failed("take a slot", "throttled".into())),
        }
        Ok(taken)
    }

    async fn complete(&self, claim: &Claim, _: &Receipt) -> Result<(), FinishError> {
        self.state().backlog.remove(claim.delivery_id().as_str());
        Ok(())
    }

    async fn debounce(&self, _: &Claim, _: &DeliveryId, _: Timestamp) -> Result<(), FinishError> {
        Ok(())
    }

    async fn discard(&self, _: &Claim, _: &str, _: Timestamp) -> Result<(), FinishError> {
        Ok(())
    }

    async fn release(&self, _: &Claim, _: Timestamp, error: &str) -> Result<(), FinishError> {
        self.state().released.push(error.to_owned());
        Ok(())
    }

    async fn remember(&self, _: &ReplyKey, _: &LastReply, _: Timestamp) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn last_reply(&self, _: &ReplyKey, _: Timestamp) -> Result<Option<LastReply>, LedgerError> {
        Ok(None)
    }

    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        let backlog = self.state().backlog.clone();
        let row =
            |id| Ok(Pending { id: DeliveryId::from_stored(id), lease_until: START, first_seen_at: START, attempts: 1 });
        stream::iter(backlog.into_iter().map(row))
    }
}

impl Topic for Shared {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let Message::Alert { body, .. } = message else { return Ok(String::new()) };
        let at = self.began.elapsed();
        self.state().published.push((body.clone(), at));
        sleep(Duration::from_millis(20)).await;
        Ok("message".into())
    }
}

const FAST: Answers = Answers::After(Duration::from_millis(5));

#[tokio::test(start_paused = true)]
async fn a_single_alert_does_not_wait() {
    let shared = Shared::new(FAST);
    sleep(Duration::from_millis(130)).await;
    let relayed = shared.attempt("evt_1", 5).await;
    assert!(matches!(relayed.outcome, Outcome::Published { .. }));
    assert_eq!(shared.moments(), [Duration::from_millis(135)]);
    assert_eq!(relayed.timings.pace, Some(Duration::from_millis(5)));
}

#[tokio::test(start_paused = true)]
async fn concurrent_alerts_take_successive_slots() {
    let shared = Shared::new(FAST);
    let relayed = join_all((0..5).map(|number| {
        let shared = shared.clone();
        async move { shared.attempt(&format!("evt_{number}"), 5).await }
    }));
    assert!(relayed.await.iter().all(|relayed| matches!(relayed.outcome, Outcome::Published { .. })));
    assert_eq!(shared.moments(), [5, 200, 400, 600, 800].map(Duration::from_millis));
}

/// An attempt reaches 26 slots in half of its ten seconds.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_reaches_no_free_slot_releases_at_once() {
    let shared = Shared::new(FAST);
    let attempts = (0..50).map(|number| {
        let shared = shared.clone();
        async move {
            let relayed = shared.attempt(&format!("evt_{number}"), 5).await;
            (relayed, shared.began.elapsed())
        }
    });
    let (published, refused): (Vec<_>, Vec<_>) = join_all(attempts)
        .await
        .into_iter()
        .partition(|(relayed, _)| matches!(relayed.outcome, Outcome::Published { .. }));
    assert_eq!((published.len(), refused.len()), (26, 24));
    for (relayed, after) in refused {
        assert!(matches!(relayed.outcome, Outcome::Unpublished { cause: Unpublished::NoSlot, released: Ok(()) }));
        assert!(relayed.outcome.found_no_slot() && relayed.outcome.is_claimed());
        assert!(after < SECOND, "it should not occupy Lambda for {after:?}");
    }
    assert!(shared.state().released.iter().all(|error| error.contains("ALERTS_PER_SECOND")));
    let moments = shared.moments();
    assert!(most_in_a_second(&moments) <= 6, "{moments:?}");
    assert!(moments.iter().all(|at| *at <= SECOND * 5), "later publishes would have too little time");
}

#[tokio::test(start_paused = true)]
async fn without_a_pace_and_for_the_stream_no_slot_is_taken() {
    let shared = Shared::new(FAST);
    assert!(matches!(shared.attempt("evt_1", 0).await.outcome, Outcome::Published { .. }));
    let group = String::new();
    let message =
        Message::Status { body: "{}".into(), attributes: BTreeMap::new(), group: group.clone(), deduplication: group };
    let change = Delivery { message, ..delivery("evt_2", "evt_2") };
    let invocation = shared.invocation("evt_2", SECOND * 10);
    // The double grants only claims on alerts, so a real ledger grants the claim on the stream's
    // message.
    let dynamodb = DynamoDb::start().await;
    let relay = Relay { pacer: AlertRate::new(5).map(Pacer::new), ..relay(dynamodb.ledger(), shared.clone()) };
    assert!(matches!(
        relay.deliver(ClaimRequest::Delivery(change), &invocation).await.outcome,
        Outcome::Published { .. }
    ));
    assert_eq!(shared.state().asked, 0);
    assert_eq!(dynamodb.rows().await.len(), 1);
}

/// An answer is too late for its slot if it comes more than a second after the slot's start. The
/// attempt then asks for a slot that is later by the ledger's delay.
#[tokio::test(start_paused = true)]
async fn a_ledger_slower_than_a_second_stops_no_alert() {
    let shared = Shared::new(Answers::After(Duration::from_millis(1700)));
    assert!(matches!(shared.attempt("evt_1", 5).await.outcome, Outcome::Published { .. }));
    assert_eq!(shared.moments(), [Duration::from_millis(3400)]);
}

/// Fifteen attempts get the slots of three seconds, and all answers come at the same time.
#[tokio::test(start_paused = true)]
async fn slots_granted_late_cause_no_burst() {
    let shared = Shared::new(Answers::NotBefore(SECOND * 3));
    let attempts = (0..15).map(|number| {
        let shared = shared.clone();
        async move {
            sleep(Duration::from_millis(200) * number).await;
            shared.attempt(&format!("evt_{number}"), 5).await
        }
    });
    let relayed = join_all(attempts).await;
    assert!(
        relayed
            .iter()
            .all(|relayed| matches!(relayed.outcome, Outcome::Published { .. }) || relayed.outcome.is_claimed())
    );
    let moments = shared.moments();
    assert!(moments.len() > EMAIL_LIMIT, "{moments:?}");
    assert!(most_in_a_second(&moments) <= EMAIL_LIMIT, "{moments:?}");
}

#[tokio::test(start_paused = true)]
async fn without_a_slot_the_next_attempt_alerts() {
    for (answers, failure) in [
        (Answers::Error, "pacing failed: the ledger could not take a slot: throttled"),
        (Answers::After(SECOND * 60), "pacing failed: the ledger did not answer in time"),
        // Every slot is over when the answer comes. No other alert has it, so this must count as a
        // failure.
        (Answers::After(Duration::from_millis(2600)), "pacing failed: the ledger did not answer in time"),
    ] {
        let shared = Shared::new(answers);
        let relayed = shared.attempt("evt_1", 5).await;
        assert!(matches!(relayed.outcome, Outcome::Unpublished { cause: Unpublished::Pace(_), released: Ok(()) }));
        assert!(!relayed.outcome.found_no_slot());
        assert_eq!(shared.state().released, [failure]);
        assert!(shared.moments().is_empty());
    }
}

/// The process asked for a slot while its clock was an hour ahead.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stops_no_alert() {
    let shared = Shared::new(FAST);
    let relay = shared.relay(5);
    let pacer = relay.pacer.as_ref().unwrap();
    pacer.asks_for(rate(5).slot_at(START.after(SECOND * 3600)));
    for event in ["evt_1", "evt_2"] {
        let wanted = ClaimRequest::Delivery(opportunity_delivery(event));
        assert!(matches!(
            relay.deliver(wanted, &shared.invocation(event, SECOND * 10)).await.outcome,
            Outcome::Published { .. }
        ));
    }
    assert_eq!(shared.moments(), [5, 200].map(Duration::from_millis));
    assert_eq!(shared.state().asked, 2, "the process should not ask for the same slot again");
}

// ── The redrive ──────────────────────────────────────────────────────────────────────────────────

/// Runs the redrive every minute, as its schedule does, until it has published `backlog` alerts.
async fn drain(shared: &Shared, per_second: u64, backlog: usize) {
    shared.state().backlog = (0..backlog).map(|number| format!("evt_{number:04}")).collect();
    let mut runs = Vec::new();
    while !shared.state().backlog.is_empty() {
        let number = runs.len();
        let shared = shared.clone();
        runs.push(tokio::spawn(async move {
            let redrive = Redrive { relay: shared.relay(per_second), telemetry: telemetry() };
            let invocation = shared.invocation(&format!("run {number}"), SECOND * 72);
            redrive.run(&invocation, Urgency::Patient).await.unwrap();
        }));
        sleep(SECOND * 60).await;
    }
    join_all(runs).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_of_a_thousand_drains_at_the_configured_rate() {
    for per_second in [1, 5, 50] {
        let shared = Shared::new(FAST);
        drain(&shared, per_second, 1000).await;
        let moments = shared.moments();
        // The double has no leases, so two concurrent runs can publish the same alert.
        let alerts: BTreeSet<_> = shared.state().published.iter().map(|(body, _)| body.clone()).collect();
        assert_eq!(alerts.len(), 1000);
        let took = moments.iter().max().unwrap().as_secs_f64();
        let ideal = 1000.0 / per_second as f64;
        assert!(took < ideal * 1.1 + 1.0, "{per_second} a second: {took} s");
        assert!(most_in_a_second(&moments) <= per_second as usize + 1);
    }
}

/// A run attempts several alerts at the same time, and each asks for another slot.
#[tokio::test(start_paused = true)]
async fn a_redrive_asks_for_each_slot_once() {
    let shared = Shared::new(FAST);
    drain(&shared, 5, 200).await;
    let state = shared.state();
    assert_eq!((state.asked, state.slots.len()), (200, 200));
}

/// For ten minutes, new alerts come three times as fast as the pace.
#[tokio::test(start_paused = true)]
async fn new_alerts_do_not_starve_pending_ones() {
    let shared = Shared::new(FAST);
    let new = async {
        let coming = (0..10 * 60 * 15).map(|number| {
            let shared = shared.clone();
            async move {
                sleep(SECOND * number / 15).await;
                shared.attempt(&format!("new_{number}"), 5).await;
            }
        });
        join_all(coming).await;
    };
    let pending = async {
        sleep(SECOND * 30).await;
        drain(&shared, 5, 100).await;
    };
    futures_util::future::join(new, pending).await;
    let state = shared.state();
    let pending = |(body, _): &&(String, Duration)| body.contains("evt_");
    let last = state.published.iter().filter(pending).map(|(_, at)| *at).max().unwrap();
    assert!(last < SECOND * 400, "the last pending alert was published after {last:?}");
    drop(state);
    assert!(most_in_a_second(&shared.moments()) <= EMAIL_LIMIT);
}

// ── Over the wire ────────────────────────────────────────────────────────────────────────────────

/// Returns the environment with this rate, or without a rate.
fn at_rate(world: &World, per_second: Option<u64>) -> Vec<(&'static str, String)> {
    let mut environment = environment(&world.aws);
    environment.retain(|(name, _)| *name != "ALERTS_PER_SECOND");
    environment.extend(per_second.map(|rate| ("ALERTS_PER_SECOND", rate.to_string())));
    environment
}

/// Returns the arrival of each publish at SNS, since the first arrival.
fn arrivals(world: &World) -> Vec<Duration> {
    let journal = world.aws.journal();
    let publishes: Vec<_> = journal.iter().filter(|call| call.operation == "publish").map(|call| call.at).collect();
    publishes.iter().map(|at| at.duration_since(publishes[0])).collect()
}

fn status(said: Said) -> u64 {
    let Said::Response(response) = said else { panic!("{said:?}") };
    response["statusCode"].as_u64().unwrap()
}

#[tokio::test]
async fn an_alert_takes_four_calls_with_a_pace_and_three_without() {
    for (rate, calls) in [
        (None, &["claim", "slot", "publish", "complete"][..]),
        (Some(100), &["claim", "slot", "publish", "complete"]),
        (Some(0), &["claim", "publish", "complete"]),
    ] {
        let world = World::new().await;
        let mut webhook = Lambda::start(at_rate(&world, rate), SECOND * 10).await;
        assert_eq!(status(webhook.invoke(&signed_now(&opportunity_of("evt_1", "lead_1"))).await), 200);
        assert_eq!(world.aws.calls(), calls, "{rate:?}");
    }
}

/// The environment has no rate, so the default applies.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_concurrent_alerts_over_ten_processes_keep_the_pace() {
    let world = World::new().await;
    let events: Mutex<Vec<_>> = Mutex::new((0..50).map(|number| format!("evt_{number}")).collect());
    let (world, events) = (&world, &events);
    let processes = (0..10).map(async |_| {
        let mut webhook = Lambda::start(at_rate(world, None), SECOND * 10).await;
        loop {
            let Some(event) = events.lock().unwrap().pop() else { break };
            let payload = signed_now(&opportunity_of(&event, &event));
            assert_eq!(status(webhook.invoke(&payload).await), 200);
        }
    });
    join_all(processes).await;
    let arrivals = arrivals(world);
    assert_eq!(arrivals.len(), 50);
    assert!(most_in_a_second(&arrivals) <= EMAIL_LIMIT, "{arrivals:?}");
    // If no slot is left out, 49 slots of 0.2 s lie between the first alert and the last.
    let took = arrivals.iter().max().unwrap();
    assert!((SECOND * 9..SECOND * 20).contains(took), "{took:?}");
}

/// The redrive and two processes of the webhook function share the slots.
#[tokio::test(flavor = "multi_thread")]
async fn a_redrive_beside_webhooks_keeps_to_the_pace() {
    let world = World::new().await;
    let now = Timestamp::from(SystemTime::now());
    for number in 0..60 {
        let attempt = Attempt { owner: owner(0), now, lease_until: now };
        let wanted = ClaimRequest::Delivery(opportunity_delivery(&format!("evt_pending_{number}")));
        world.dynamodb.ledger().claim(wanted, attempt).await.unwrap();
    }
    let mut redrive =
        Lambda::start_redrive_with(&world.aws, vec![("ALERTS_PER_SECOND", "10".into())], SECOND * 72).await;
    let world = &world;
    let webhooks = (0..2).map(async |process| {
        let mut webhook = Lambda::start(at_rate(world, Some(10)), SECOND * 10).await;
        for number in 0..10 {
            let event = format!("evt_{process}_{number}");
            assert_eq!(status(webhook.invoke(&signed_now(&opportunity_of(&event, &event))).await), 200);
        }
    });
    let event = json!({});
    let (said, _) = futures_util::future::join(redrive.invoke(&event), join_all(webhooks)).await;
    let Said::Response(report) = said else { panic!("{said:?}") };
    assert_eq!(report["published"], json!(60), "{report}");
    let arrivals = arrivals(world);
    assert_eq!(arrivals.len(), 80);
    assert!(most_in_a_second(&arrivals) <= 20, "{arrivals:?}");
    let took = arrivals.iter().max().unwrap();
    assert!((SECOND * 7..SECOND * 16).contains(took), "{took:?}");
}

#[tokio::test]
async fn without_a_slot_answers_503_and_keeps_the_alert() {
    let world = World::new().await;
    let ledger = world.dynamodb.ledger();
    let now = Timestamp::from(SystemTime::now());
    let mut slot = rate(5).slot_at(now);
    while slot.start().since(now) < SECOND * 8 {
        assert!(ledger.take_slot(&claim_of("evt_other", owner(9)), slot).await.unwrap());
        slot = rate(5).next(slot);
    }
    let mut webhook = Lambda::start(at_rate(&world, Some(5)), SECOND * 10).await;
    let said = webhook.invoke(&signed_now(&opportunity_of("evt_1", "lead_1"))).await;
    let Said::Response(response) = said else { panic!("{said:?}") };
    assert_eq!((&response["statusCode"], &response["headers"]["retry-after"]), (&json!(503), &json!("5")));
    assert!(world.aws.alerts().is_empty());
    let [row] = &world.dynamodb.pending().await[..] else { panic!() };
    assert!(row["lastError"].as_s().unwrap().contains("ALERTS_PER_SECOND"));
}

// ── The configuration ────────────────────────────────────────────────────────────────────────────

#[test]
fn the_rate_is_at_most_100_and_5_by_default() {
    let read = |value: Option<&str>| {
        Config::read(|name| match name {
            "ALERTS_TOPIC_ARN" => Some("arn:aws:sns:us-east-1:123456789012:alerts".into()),
            "ALERTS_TABLE_NAME" => Some("deliveries".into()),
            "ALERTS_PER_SECOND" => value.map(str::to_owned),
            _ => None,
        })
        .map(|config| config.alert_rate)
    };
    for (value, expected) in
        [(None, 5), (Some(""), 5), (Some("5"), 5), (Some(" 1 "), 1), (Some("100"), 100), (Some("0"), 0)]
    {
        assert_eq!(read(value).unwrap(), AlertRate::new(expected), "{value:?}");
    }
    for value in ["101", "-1", "5.0", "many", "18446744073709551616"] {
        let error = read(Some(value)).unwrap_err().to_string();
        assert_eq!(error, "ALERTS_PER_SECOND must be a whole number from 0 to 100", "{value}");
    }
}
