//! The real handler and the real redrive, with a ledger and a topic that inject every fault at
//! every call, and every pair of faults. `make model` also injects every three faults. The number
//! of a call identifies it. Time is tokio's paused time, so hours take no time.
//!
//! SendPilot sends one opportunity once or twice. Alerts are paced, as by default, or not. The
//! second request comes at any distance that changes the order of the calls. It has the same event,
//! another configuration, or another fact under the same event id. SendPilot keeps its retry
//! schedule, or never retries. The redrive runs every minute, alone or two at once, until nothing
//! is pending. In some scenarios, each attempt asks SendPilot's API for the lead. The API gives
//! another answer each time, and its call fails in every way too.
//!
//! In other scenarios, the real reconciliation runs until it succeeds. It finds the lead in
//! SendPilot's lists, and its calls fail in every way too. The webhook comes before the run, during
//! the run, after it, or never. Or the lead was alerted before, and the first run is the baseline.
//!
//! In the end, these promises must hold after any faults:
//!
//! - **Answers.** SendPilot gets 2xx only after a publish of that lead's alert took effect, or
//!   after the claim of the reconciliation's alert. It gets no 4xx except 409.
//! - **Nothing lost.** An alert is published if a claim took effect or SendPilot retried. Its row
//!   is `PUBLISHED` at the end.
//! - **Once.** Each publish of a delivery after the first one needs a lost proof: an answer that
//!   was lost, or a completion that failed until its deadline. A completion that failed sooner must
//!   have been retried.
//! - **Not too fast.** If alerts are paced, each publish has its own slot, and starts within one
//!   second of the slot's start.
//! - **One way.** If the reconciliation runs, the lead is alerted by the webhook or by the
//!   reconciliation, never by both. It is alerted even if its webhook never comes. The
//!   reconciliation does not alert a lead of the baseline.
//! - **The same.** Every publish of a delivery has the message of its first claim, byte for byte,
//!   whatever SendPilot's API answers later.
//! - **In time.** A process that is not killed ends before Lambda would kill it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::future::pending;
use std::iter::once;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::PROCESSORS;
use crate::support::doubles::{relay, telemetry};
use crate::support::requests::{SECRET, around, documented, http, opportunity_of, secrets};
use Fault::*;
use Flaw::*;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use futures_util::future::{join, join_all, join3, select};
use futures_util::{Stream, StreamExt, pin_mut, stream};
use lambda_http::Request;
use opportunity_alerts::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, HeldLock, KnownLead, Ledger, LedgerError, Lock, MayClaim, MayFinish,
    MayPublish, Pending, Receipt, Reconciled, Refusal, Row, Run, State, may_claim, may_finish, may_publish, may_run,
    may_take_slot,
};
use opportunity_alerts::delivery::pace::{AlertRate, Pacer, Slot};
use opportunity_alerts::delivery::relay::Relay;
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, LockKey, ReplyKey};
use opportunity_alerts::message::pipeline::Pipeline;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::message::{Locks, Message};
use opportunity_alerts::reconcile::Reconcile;
use opportunity_alerts::reconcile::report::{Mode, Outcome};
use opportunity_alerts::redrive::{Redrive, Urgency};
use opportunity_alerts::secrets::api_key::{ApiKey, Source};
use opportunity_alerts::secrets::keyring::Keyring;
use opportunity_alerts::sendpilot::api::{Api, ApiUrl};
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::webhook::details::Sources;
use testkit::sendpilot::RETRIES;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

const EPOCH: Timestamp = Timestamp::from_millis(1_708_770_600_000);

/// The timeouts in `template.yaml`.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(72);
const REDRIVE_EVERY: Duration = Duration::from_secs(60);
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(300);
/// A lease of the reconciliation ends before the next run.
const RECONCILE_EVERY: Duration = Duration::from_secs(310);

/// When the lead was last updated, before the grace period of the reconciliation.
const UPDATED_AT: &str = "2024-02-24T10:09:00.000Z";

/// The time of a request on its way to AWS, and of its answer on the way back.
const ONE_WAY: Duration = Duration::from_millis(10);

/// The lead of the first request, and of a second request with another fact.
const LEADS: [&str; 2] = ["lead_abc123", "lead_other"];

/// A time later than any effect of two or three faults.
const END: Duration = Duration::from_secs(4 * 3600);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// The caller gets an error, and the call has no effect.
    FailsBefore,
    /// The caller gets an error, although the call took effect.
    FailsAfter,
    /// The caller gets no answer, and the call has no effect.
    HangsBefore,
    /// The caller gets no answer, although the call took effect.
    HangsAfter,
    /// The call takes effect after the caller has given up, but before its lease ends.
    ArrivesLate,
    /// The call takes effect after another attempt has taken over.
    ArrivesVeryLate,
    /// The process is killed before the call takes effect.
    DiesBefore,
    /// The process is killed after the call took effect.
    DiesAfter,
}

const FAULTS: [Fault; 8] =
    [FailsBefore, FailsAfter, HangsBefore, HangsAfter, ArrivesLate, ArrivesVeryLate, DiesBefore, DiesAfter];

/// A plausible bug. If the promises did not detect each bug, they would prove little.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    Flawless,
    /// A claim ignores an unexpired lease.
    LeaseIgnored,
    /// The claim records the publish.
    DoneAtClaim,
    /// A failure deletes the row.
    DeletedOnFailure,
    /// A failure of the topic counts as success.
    FailureSwallowed,
    /// A failed completion is not retried.
    CompletionGivenUp,
    /// A takeover stores its own message.
    MessageOverwritten,
    /// All events with the same id count as the same fact.
    ContentIgnored,
    /// An attempt takes a slot that another attempt has.
    SlotShared,
    /// A webhook's alert does not make its lead known.
    NotMadeKnown,
    /// An attempt makes the lead known before its claim.
    KnownBeforeClaim,
    /// A claim does not store the locks, so a redrive takes none.
    LocksNotStored,
    /// A lock never suppresses an alert.
    LockIgnored,
    /// The baseline does not make the lead known.
    BaselineSkipped,
    /// There is no redrive.
    NoRedrive,
}

impl Flaw {
    /// Returns whether only the scenarios with the reconciliation show the flaw.
    fn needs_reconciliation(self) -> bool {
        matches!(self, NotMadeKnown | KnownBeforeClaim | LocksNotStored | LockIgnored | BaselineSkipped)
    }
}

/// The difference between the second request and the first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Copy {
    Same,
    /// The same event, but the function has another pipeline, so its message is different.
    Reconfigured,
    /// Another lead under the same event id.
    OtherFact,
}

/// The time of the first request, if the reconciliation runs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Arrival {
    /// Before the first run.
    Before,
    /// After the start of the first run.
    After(Duration),
    /// Never, because SendPilot does not send it.
    Never,
    /// Never again, because the lead was alerted before. The first run is the baseline.
    BeforeBaseline,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    /// The second request under the same event id, if there is one, and its delay.
    second: Option<(Copy, Duration)>,
    sendpilot_retries: bool,
    redrives_at_once: usize,
    /// Alerts per second. At one alert per second, two leads never share a slot by chance.
    rate: Option<AlertRate>,
    /// Whether each attempt asks SendPilot's API for the lead.
    details: bool,
    /// The first request, relative to the first run of the reconciliation, if it runs.
    reconcile: Option<Arrival>,
    flaw: Flaw,
}

/// Returns scenarios without and with a second request. The second request comes at the same time,
/// between any two steps of the first delivery, or after it. Without a pace, an alert takes the
/// same calls except one, so only the first times are tried.
fn scenarios(flaw: Flaw) -> Vec<Scenario> {
    let times = [0, 15, 35, 55, 75, 95].map(Duration::from_millis);
    let mut seconds: Vec<_> = times.into_iter().map(|after| Some((Copy::Same, after))).chain([None]).collect();
    for copy in [Copy::Reconfigured, Copy::OtherFact] {
        seconds.extend([times[0], times[2]].map(|after| Some((copy, after))));
    }
    let mut scenarios = Vec::new();
    for second in seconds {
        for (sendpilot_retries, redrives_at_once) in [(true, 1), (false, 1), (false, 2)] {
            // Two redrives at once are tried only with the same event, to limit the number of
            // scenarios.
            if redrives_at_once == 1 || second.is_none_or(|(copy, _)| copy == Copy::Same) {
                let rate = AlertRate::new(1);
                let (details, reconcile) = (false, None);
                let paced = Scenario { second, sendpilot_retries, redrives_at_once, rate, details, reconcile, flaw };
                scenarios.push(paced);
                // A second request with the same event is the first that can find another answer of
                // the API.
                if redrives_at_once == 1
                    && second.is_none_or(|(copy, after)| copy == Copy::Same && [times[0], times[3]].contains(&after))
                {
                    scenarios.push(Scenario { details: true, ..paced });
                }
                if second.is_none_or(|(_, after)| after < times[2]) {
                    scenarios.push(Scenario { rate: None, ..paced });
                }
            }
        }
    }
    // The webhook's calls cross each call of the run once.
    let after = [30, 70, 90, 110, 130, 150, 5000].map(|millis| Arrival::After(Duration::from_millis(millis)));
    let arrivals = [Arrival::Never, Arrival::BeforeBaseline, Arrival::Before].into_iter().chain(after);
    for (arrival, sendpilot_retries) in arrivals.flat_map(|arrival| [(arrival, false), (arrival, true)]) {
        if !sendpilot_retries || !matches!(arrival, Arrival::Never | Arrival::BeforeBaseline) {
            let (reconcile, redrives_at_once) = (Some(arrival), 1);
            let (second, rate, details) = (None, None, false);
            scenarios.push(Scenario { second, sendpilot_retries, redrives_at_once, rate, details, reconcile, flaw });
        }
    }
    scenarios.retain(|scenario| flaw == Flawless || flaw.needs_reconciliation() == scenario.reconcile.is_some());
    scenarios
}

/// One row of the table.
struct Stored {
    row: Row,
    message: Message,
    locks: Locks,
    attempts: u32,
}

/// The table, the topic, and the record of their calls.
#[derive(Default)]
struct Facts {
    calls: Vec<&'static str>,
    rows: HashMap<DeliveryId, Stored>,
    /// The messages of the first claims that took effect.
    claimed: Vec<Message>,
    published: Vec<Message>,
    slots: BTreeMap<Slot, Owner>,
    locks: HashMap<LockKey, HeldLock>,
    /// The owner, the end of the lease and the progress of the last run of the reconciliation.
    run: Option<(Owner, Timestamp, String)>,
    /// The start of each publish.
    publish_starts: Vec<Timestamp>,
    /// The message of each publish whose proof was lost.
    lost_proofs: Vec<Message>,
    /// The number of answers of SendPilot's API.
    api_answers: u32,
    /// The number of calls that will still take effect.
    late: usize,
    /// The promises that did not hold.
    broken: Vec<String>,
}

impl Facts {
    /// Returns whether a publish started without its own slot.
    fn is_too_fast(&self) -> bool {
        let mut slots: Vec<_> = self.slots.keys().collect();
        // The starts are in order, so each takes the earliest slot that it can use.
        !self.publish_starts.iter().all(|&at| {
            let usable = slots.iter().position(|slot| slot.start() <= at && slot.is_usable(at));
            usable.map(|slot| slots.remove(slot)).is_some()
        })
    }

    fn is_published(&self, lead: &str) -> bool {
        self.published.iter().any(|message| is_on(message, lead))
    }
}

/// Returns whether a message is an alert of the reconciliation.
fn is_found(message: &Message) -> bool {
    is_on(message, "foundBy")
}

/// Returns whether a message is the alert on this lead, or another alert with this text.
fn is_on(message: &Message, lead: &str) -> bool {
    let Message::Alert { body, .. } = message else { panic!("expected an alert") };
    body.contains(lead)
}

struct World {
    scenario: Scenario,
    plan: Vec<(usize, Fault)>,
    began: Instant,
    /// The first request, and the same request about another lead.
    requests: Arc<[Request; 2]>,
    facts: Mutex<Facts>,
}

impl World {
    fn now(&self) -> Timestamp {
        EPOCH.after(self.began.elapsed())
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    /// Records a call, and returns its planned fault.
    fn begin(&self, name: &'static str) -> Option<Fault> {
        let mut facts = self.facts();
        let number = facts.calls.len();
        facts.calls.push(name);
        self.plan.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault)
    }

    fn breaks(&self, what: String) {
        self.facts().broken.push(what);
    }
}

/// A process of a function. Its calls can fail or kill it.
#[derive(Clone)]
struct Process {
    world: Arc<World>,
    death: Arc<Notify>,
}

impl Process {
    fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), death: Arc::default() }
    }

    /// Returns the result of the process's work, if the process is not killed.
    async fn lives<T>(&self, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let death = self.death.notified();
        pin_mut!(work, death);
        let result = match select(work, death).await {
            futures_util::future::Either::Left((result, _)) => Some(result),
            futures_util::future::Either::Right(_) => None,
        };
        if began.elapsed() >= timeout {
            self.world.breaks("a process did not end before its timeout".into());
        }
        result
    }

    /// Makes a call to AWS. Returns `None` after an error, and never returns if the call hangs.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        about: Option<&Message>,
        effect: impl FnOnce(&mut Facts) -> T + Send + 'static,
    ) -> Option<T> {
        let fault = {
            let fault = self.world.begin(name);
            let mut facts = self.world.facts();
            let lost = match name {
                "publish" => [FailsAfter, HangsAfter, ArrivesLate, ArrivesVeryLate, DiesAfter].as_slice(),
                // A failing completion is retried, so it does not excuse a second publish. A
                // hanging completion fails at its deadline.
                "complete" => &[HangsBefore, ArrivesLate, ArrivesVeryLate, DiesBefore],
                _ => &[],
            };
            if fault.is_some_and(|fault| lost.contains(&fault)) {
                facts.lost_proofs.extend(about.cloned());
            }
            fault
        };
        sleep(ONE_WAY).await;
        let answer = match fault {
            None | Some(FailsAfter | HangsAfter | DiesAfter) => Some(effect(&mut self.world.facts())),
            Some(late @ (ArrivesLate | ArrivesVeryLate)) => {
                let (world, seconds) = (self.world.clone(), if late == ArrivesLate { 9 } else { 90 });
                world.facts().late += 1;
                tokio::spawn(async move {
                    sleep(Duration::from_secs(seconds)).await;
                    let mut facts = world.facts();
                    effect(&mut facts);
                    facts.late -= 1;
                });
                None
            }
            Some(FailsBefore | HangsBefore | DiesBefore) => None,
        };
        match fault {
            None => {}
            Some(FailsBefore | FailsAfter) => return None,
            Some(HangsBefore | HangsAfter | ArrivesLate | ArrivesVeryLate) => return pending().await,
            Some(DiesBefore | DiesAfter) => {
                self.death.notify_one();
                return pending().await;
            }
        }
        sleep(ONE_WAY).await;
        answer
    }

    async fn settle(
        &self,
        name: &'static str,
        claim: &Claim,
        settled: impl FnOnce(&mut HashMap<DeliveryId, Stored>, &DeliveryId) + Send + 'static,
    ) -> Result<(), FinishError> {
        let (id, owner) = (claim.delivery_id().clone(), claim.owner().clone());
        let effect = move |facts: &mut Facts| match may_finish(facts.rows.get(&id).map(|stored| &stored.row), &owner) {
            MayFinish::Yes => {
                settled(&mut facts.rows, &id);
                Ok(())
            }
            MayFinish::Done => Ok(()),
            MayFinish::Overtaken => Err(FinishError::Overtaken),
        };
        self.call(name, Some(claim.message()), effect).await.unwrap_or(Err(match self.world.scenario.flaw {
            CompletionGivenUp => LedgerError::Contradiction.into(),
            _ => LedgerError::Failed(name, "broken".into()).into(),
        }))
    }
}

fn claim(facts: &mut Facts, wanted: ClaimRequest, attempt: Attempt, flaw: Flaw) -> Result<ClaimResult, LedgerError> {
    let Attempt { owner, now, lease_until } = attempt;
    let id = wanted.id().clone();
    let stored = facts.rows.get(&id);
    let content = wanted.content_sha256().filter(|_| flaw != ContentIgnored);
    let claim = match may_claim(stored.map(|stored| &stored.row), content, &owner, now) {
        MayClaim::No(refusal @ (Refusal::Done | Refusal::BodyMismatch)) => Err(refusal),
        MayClaim::No(refusal) if flaw != LeaseIgnored => Err(refusal),
        _ => {
            let kept = stored.filter(|_| flaw != MessageOverwritten).map(|stored| stored.message.clone());
            let (message, locks, content_sha256) = match (wanted, stored) {
                (ClaimRequest::Delivery(delivery), None) => {
                    facts.claimed.push(delivery.message.clone());
                    (delivery.message, delivery.locks, Some(delivery.content_sha256))
                }
                (ClaimRequest::Delivery(delivery), Some(stored)) => {
                    (kept.unwrap_or(delivery.message), stored.locks.clone(), stored.row.content_sha256.clone())
                }
                (ClaimRequest::Pending(_), Some(stored)) => {
                    (stored.message.clone(), stored.locks.clone(), stored.row.content_sha256.clone())
                }
                (ClaimRequest::Pending(_), None) => return Err(LedgerError::Gone),
            };
            let state = if flaw == DoneAtClaim { State::Published } else { State::Pending };
            let row = Row { state, owner: owner.clone(), lease_until, content_sha256 };
            let attempts = stored.map_or(0, |stored| stored.attempts) + 1;
            let kept = if flaw == LocksNotStored { Locks::default() } else { locks.clone() };
            facts.rows.insert(id.clone(), Stored { row, message: message.clone(), locks: kept, attempts });
            Ok(Claim::new(id.clone(), message, locks, owner))
        }
    };
    Ok(ClaimResult { claim, attempts: facts.rows.get(&id).map(|stored| stored.attempts) })
}

impl Ledger for Process {
    async fn claim(&self, wanted: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        let flaw = self.world.scenario.flaw;
        if let ClaimRequest::Delivery(delivery) = &wanted
            && let Some(known) = delivery.locks.known.clone().filter(|_| flaw == KnownBeforeClaim)
        {
            self.lock(&delivery.id, &Lock::known(known, attempt.now)).await?;
        }
        let claimed = self.call("claim", None, move |facts| claim(facts, wanted, attempt, flaw)).await;
        claimed.unwrap_or(Err(LedgerError::Failed("claim", "broken".into())))
    }

    async fn lock(&self, holder: &DeliveryId, lock: &Lock) -> Result<MayPublish, LedgerError> {
        let (holder, lock, flaw) = (holder.clone(), lock.clone(), self.world.scenario.flaw);
        let take = move |facts: &mut Facts| {
            let held = facts.locks.get(&lock.key);
            let may = may_publish(held, &holder, lock.at);
            if may != MayPublish::Yes && flaw != LockIgnored {
                return may;
            }
            let taken = lock.taken(held, &holder);
            if flaw != BaselineSkipped || holder.as_str() != "reconciliation#baseline" {
                facts.locks.insert(lock.key, taken);
            }
            MayPublish::Yes
        };
        self.call("lock", None, take).await.ok_or(LedgerError::Failed("take the lock", "broken".into()))
    }

    async fn take_slot(&self, claim: &Claim, slot: Slot) -> Result<bool, LedgerError> {
        let owner = claim.owner().clone();
        let flaw = self.world.scenario.flaw;
        let take = move |facts: &mut Facts| {
            let may = may_take_slot(facts.slots.get(&slot), &owner) || flaw == SlotShared;
            if may {
                facts.slots.insert(slot, owner);
            }
            may
        };
        self.call("slot", None, take).await.ok_or(LedgerError::Failed("take a slot", "broken".into()))
    }

    async fn debounce(&self, claim: &Claim, _: &DeliveryId, _: Timestamp) -> Result<(), FinishError> {
        let debounce = |rows: &mut HashMap<_, Stored>, id: &DeliveryId| {
            rows.get_mut(id).into_iter().for_each(|stored| stored.row.state = State::Debounced);
        };
        self.settle("debounce", claim, debounce).await
    }

    async fn discard(&self, _: &Claim, _: &str, _: Timestamp) -> Result<(), FinishError> {
        Err(FinishError::Overtaken)
    }

    async fn complete(&self, claim: &Claim, _: &Receipt) -> Result<(), FinishError> {
        let publish = |rows: &mut HashMap<_, Stored>, id: &DeliveryId| {
            rows.get_mut(id).into_iter().for_each(|stored| stored.row.state = State::Published);
        };
        self.settle("complete", claim, publish).await
    }

    async fn release(&self, claim: &Claim, now: Timestamp, _: &str) -> Result<(), FinishError> {
        let flaw = self.world.scenario.flaw;
        let free = move |rows: &mut HashMap<_, Stored>, id: &DeliveryId| {
            rows.get_mut(id).into_iter().for_each(|stored| stored.row.lease_until = now);
            if flaw == DeletedOnFailure {
                rows.remove(id);
            }
        };
        self.settle("release", claim, free).await
    }

    async fn remember(&self, _: &ReplyKey, _: &LastReply, _: Timestamp) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn last_reply(&self, _: &ReplyKey, _: Timestamp) -> Result<Option<LastReply>, LedgerError> {
        Ok(None)
    }

    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        let listing = self.call("list", None, |facts| {
            let pending = facts.rows.iter().filter(|(_, stored)| stored.row.state == State::Pending);
            let listed = pending.map(|(id, Stored { row, attempts, .. })| {
                Ok(Pending { id: id.clone(), lease_until: row.lease_until, first_seen_at: EPOCH, attempts: *attempts })
            });
            listed.collect()
        });
        stream::once(listing).flat_map(|listed| {
            stream::iter(listed.unwrap_or_else(|| vec![Err(LedgerError::Failed("list", "broken".into()))]))
        })
    }
}

impl Reconciled for Process {
    async fn known(&self, keys: &[LockKey]) -> Result<HashMap<LockKey, KnownLead>, LedgerError> {
        let keys = keys.to_vec();
        let known = move |facts: &mut Facts| {
            let held = keys.into_iter().filter_map(|key| {
                let holder = facts.locks.get(&key)?.holder.clone();
                Some((key, KnownLead { holder, expires_at: Timestamp::from_millis(u64::MAX) }))
            });
            held.collect()
        };
        self.call("known", None, known).await.ok_or(LedgerError::Failed("read the known leads", "broken".into()))
    }

    async fn begin_run(&self, _: &str, attempt: &Attempt) -> Result<Run, LedgerError> {
        let Attempt { owner, now, lease_until } = attempt.clone();
        let begin = move |facts: &mut Facts| {
            let (last, until, progress) = facts.run.clone()?;
            if !may_run(Some((&last, until)), &owner, now) {
                return Some(Run::InProgress { until });
            }
            facts.run = Some((owner, lease_until, progress.clone()));
            Some(Run::Claimed(Some(progress)))
        };
        let run = self.call("begin run", None, begin).await.flatten();
        run.ok_or(LedgerError::Failed("begin the run", "broken".into()))
    }

    async fn end_run(&self, _: &str, attempt: &Attempt, now: Timestamp, progress: &str) -> Result<(), FinishError> {
        let (owner, progress) = (attempt.owner.clone(), progress.to_owned());
        let end = move |facts: &mut Facts| {
            let run = facts.run.as_mut().filter(|(last, _, _)| *last == owner);
            run.map(|(_, until, last)| (*until, *last) = (now, progress)).ok_or(FinishError::Overtaken)
        };
        let broken = || Err(LedgerError::Failed("end the run", "broken".into()).into());
        self.call("end run", None, end).await.unwrap_or_else(broken)
    }
}

/// SendPilot's API, for one process. Every answer has another title. The faults of a call have
/// other meanings here, because a read has no effect.
struct LeadApi(Process);

impl fmt::Debug for LeadApi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LeadApi")
    }
}

impl HttpConnector for LeadApi {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let process = self.0.clone();
        let path = request.uri().split('?').next().unwrap().trim_start_matches("http://127.0.0.1").to_owned();
        let reconciles = process.world.scenario.reconcile.is_some();
        HttpConnectorFuture::new(async move {
            if path == "/v1/campaigns" && !reconciles {
                return Ok(answer(200, r#"{"campaigns":[]}"#));
            }
            let fault = process.world.begin("api");
            sleep(ONE_WAY * 2).await;
            let number = {
                let mut facts = process.world.facts();
                facts.api_answers += 1;
                facts.api_answers
            };
            let lead = match &*path {
                "/v1/campaigns" => r#"{"campaigns":[{"id":"camp_xyz789"}]}"#.into(),
                "/v1/leads" => {
                    let id = LEADS[0];
                    format!(r#"{{"leads":[{{"id":"{id}","status":"OPPORTUNITY","updatedAt":"{UPDATED_AT}"}}]}}"#)
                }
                "/v1/me" => r#"{"workspaceId":"ws_abc123xyz"}"#.into(),
                _ => format!(r#"{{"firstName":"Jane","title":"VP number {number}"}}"#),
            };
            match fault {
                None => Ok(answer(200, &lead)),
                Some(FailsBefore) => Err(ConnectorError::io("broken".into())),
                Some(FailsAfter) => Ok(answer(500, "<html>")),
                Some(HangsBefore) => pending().await,
                Some(HangsAfter) => Ok(answer(200, &lead[..lead.len() / 2])),
                Some(ArrivesLate) => Ok(answer(429, "{}")),
                Some(ArrivesVeryLate) => Ok(answer(401, "{}")),
                Some(DiesBefore | DiesAfter) => {
                    process.death.notify_one();
                    pending().await
                }
            }
        })
    }
}

fn answer(status: u16, body: &str) -> HttpResponse {
    HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body))
}

impl Topic for Process {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let published = message.clone();
        let now = self.world.now();
        self.world.facts().publish_starts.push(now);
        let published = self.call("publish", Some(message), move |facts| facts.published.push(published)).await;
        match published {
            None if self.world.scenario.flaw != FailureSwallowed => Err(TopicError::Failed("broken".into())),
            _ => Ok("message".into()),
        }
    }
}

/// Returns an invocation with a new owner token.
fn invocation(world: &World, timeout: Duration) -> Invocation {
    let number = world.facts().calls.len() as u64;
    let nanos = world.began.elapsed().as_nanos() as u64;
    let now = world.now();
    Invocation::new(&format!("{nanos}-{number}"), now.after(timeout), now, [0; 8])
}

/// Sends a request and its retries, as SendPilot does.
async fn sendpilot(world: &Arc<World>, copy: Copy, after: Duration) {
    let retries = if world.scenario.sendpilot_retries { &RETRIES[..] } else { &[] };
    let which = usize::from(copy == Copy::OtherFact);
    let pipeline = if copy == Copy::Reconfigured { "OPPORTUNITY=sql" } else { "OPPORTUNITY=qualified" };
    for wait in once(&after).chain(retries) {
        sleep(*wait).await;
        let process = Process::new(world);
        let (ledger, topic) = (process.clone(), process.clone());
        let (keyring, telemetry) = (Keyring::from_secrets(secrets()), telemetry());
        let reconcile = world.scenario.reconcile.is_some() && world.scenario.flaw != NotMadeKnown;
        let rules = Rules { pipeline: Pipeline::parse(pipeline).unwrap(), reconcile, ..Rules::default() };
        let relay = Relay { pacer: world.scenario.rate.map(Pacer::new), ..relay(ledger, topic) };
        let api = world.scenario.details.then(|| api(&process));
        let webhook = Webhook { keyring, rules, sources: Sources { api, replies: false }, relay, telemetry };
        let invocation = invocation(world, WEBHOOK_TIMEOUT);
        let answer = process.lives(WEBHOOK_TIMEOUT, webhook.respond(&world.requests[which], &invocation)).await;
        match answer.map(|answer| answer.status().as_u16()) {
            // An alert that is suppressed relies on the reconciliation's, which is claimed.
            Some(200) if !world.facts().is_published(LEADS[which]) && !world.facts().claimed.iter().any(is_found) => {
                world.breaks("SendPilot got 2xx before the alert was published".into());
            }
            Some(200) => return,
            Some(409 | 503) | None => {}
            Some(other) => world.breaks(format!("SendPilot got {other}")),
        }
    }
}

/// Returns a client of SendPilot's API in this process.
fn api(process: &Process) -> Api {
    let url = ApiUrl::parse("http://127.0.0.1").unwrap();
    let key = ApiKey::parse("sp_live_sample").unwrap();
    Api::over(SharedHttpConnector::new(LeadApi(process.clone())), url, Source::given(key))
}

/// Runs the reconciliation until a run succeeds, not counting the baseline. Unless the baseline has
/// the lead, it is complete.
async fn reconcile(world: &Arc<World>, arrival: Arrival) {
    let (mut left, progress) = match arrival {
        Arrival::BeforeBaseline => (2, "{}"),
        _ => (1, r#"{"baselined":["OPPORTUNITY"]}"#),
    };
    world.facts().run = Some((Owner::from_stored("last".into()), EPOCH, progress.into()));
    for number in 0.. {
        let process = Process::new(world);
        let reconcile = Reconcile {
            name: "reconcile".into(),
            relay: relay(process.clone(), process.clone()),
            api: api(&process),
            rules: Rules::default(),
            replies: false,
            telemetry: telemetry(),
        };
        let now = world.now();
        let invocation = Invocation::new(&format!("run {number}"), now.after(RECONCILE_TIMEOUT), now, [0; 8]);
        let report = process.lives(RECONCILE_TIMEOUT, reconcile.run(&invocation, Mode::Alert)).await;
        if report.is_some_and(|report| report.is_ok_and(|report| report.outcome == Outcome::Complete)) {
            left -= 1;
            if left == 0 {
                return;
            }
        }
        if world.began.elapsed() > END {
            return world.breaks("no run of the reconciliation succeeded".into());
        }
        sleep(RECONCILE_EVERY).await;
    }
}

/// Runs the redrive every minute, until all requests are sent and nothing is pending.
async fn redrive(world: &Arc<World>, all_sent: &Notify) {
    let runs = if world.scenario.flaw == NoRedrive { 0 } else { world.scenario.redrives_at_once };
    let (mut sent, all_sent) = (false, all_sent.notified());
    pin_mut!(all_sent);
    while world.began.elapsed() < END {
        sleep(REDRIVE_EVERY).await;
        sent = sent || futures_util::poll!(&mut all_sent).is_ready();
        join_all((0..runs).map(|number| async move {
            let process = Process::new(world);
            let relay = Relay { pacer: world.scenario.rate.map(Pacer::new), ..relay(process.clone(), process.clone()) };
            let redrive = Redrive { relay, telemetry: telemetry() };
            let now = world.now();
            let id = format!("redrive {number} at {}", now.as_millis());
            let invocation = Invocation::new(&id, now.after(REDRIVE_TIMEOUT), now, [0; 8]);
            process.lives(REDRIVE_TIMEOUT, redrive.run(&invocation, Urgency::Patient)).await;
        }))
        .await;
        let facts = world.facts();
        if sent && facts.late == 0 && facts.rows.values().all(|stored| stored.row.state != State::Pending) {
            return;
        }
    }
}

/// Plays a scenario with these faults. Returns the facts, with the broken promises.
fn play(scenario: Scenario, plan: &[(usize, Fault)], requests: &Arc<[Request; 2]>) -> Facts {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Arc::new(World {
            scenario,
            plan: plan.to_vec(),
            began: Instant::now(),
            requests: requests.clone(),
            facts: Mutex::default(),
        });
        let sent = Notify::new();
        let sending = async {
            let second = async {
                if let Some((copy, after)) = scenario.second {
                    sendpilot(&world, copy, after).await;
                }
            };
            let first = async {
                match scenario.reconcile {
                    None | Some(Arrival::Before) => sendpilot(&world, Copy::Same, Duration::ZERO).await,
                    Some(Arrival::After(after)) => sendpilot(&world, Copy::Same, after).await,
                    Some(Arrival::Never | Arrival::BeforeBaseline) => {}
                }
            };
            let reconciling = async {
                if let Some(arrival) = scenario.reconcile {
                    // The first attempt is over, whatever its fault was.
                    sleep(if arrival == Arrival::Before { WEBHOOK_TIMEOUT * 2 } else { Duration::ZERO }).await;
                    reconcile(&world, arrival).await;
                }
            };
            join3(first, second, reconciling).await;
            sent.notify_one();
        };
        join(sending, redrive(&world, &sent)).await;

        let mut facts = world.facts();
        let retried = scenario.sendpilot_retries;
        let second_lead = scenario.second.is_some_and(|(copy, _)| copy == Copy::OtherFact);
        let leads = if second_lead { &LEADS[..] } else { &LEADS[..1] };
        let count = |all: &[Message], one: &Message| all.iter().filter(|message| *message == one).count();
        let doubled = |message: &Message| count(&facts.published, message) > 1 + count(&facts.lost_proofs, message);
        let is_known = scenario.reconcile == Some(Arrival::BeforeBaseline);
        // Only the reconciliation's lock can suppress an alert.
        let may_debounce = scenario.reconcile.is_some();
        let pending = |stored: &Stored| match stored.row.state {
            State::Published => false,
            State::Debounced => !may_debounce,
            State::Pending | State::Discarded => true,
        };
        let suppressed: Vec<_> = facts
            .rows
            .values()
            .filter(|stored| stored.row.state == State::Debounced)
            .map(|stored| &stored.message)
            .collect();
        let verdicts = [
            (
                facts
                    .claimed
                    .iter()
                    .any(|message| !facts.published.contains(message) && !suppressed.contains(&message)),
                "an alert was claimed, but neither published nor suppressed",
            ),
            (
                (retried || may_debounce) && !is_known && leads.iter().any(|lead| !facts.is_published(lead)),
                "SendPilot retried or the reconciliation ran, but an alert was never published",
            ),
            (
                is_known && !facts.claimed.is_empty(),
                "the reconciliation has claimed an alert on a lead of the baseline",
            ),
            (
                may_debounce && facts.published.iter().any(|message| message != &facts.published[0]),
                "a lead was alerted by the webhook and by the reconciliation",
            ),
            (facts.rows.values().any(pending), "a row is not PUBLISHED at the end"),
            (scenario.rate.is_some() && facts.is_too_fast(), "an alert was published without its own slot"),
            (facts.published.iter().any(doubled), "an alert was published again without a lost proof"),
            (
                facts.published.iter().any(|message| !facts.claimed.contains(message)),
                "an alert was published with another message than that of the first claim",
            ),
            (
                scenario.details && plan.is_empty() && !facts.published.iter().all(|alert| is_on(alert, "VP number")),
                "an alert has no details, although nothing failed",
            ),
            (
                scenario.details && facts.published.iter().any(|message| message != &facts.published[0]),
                "two publishes of one delivery differ",
            ),
        ];
        let broken: Vec<_> =
            verdicts.iter().filter(|(broken, _)| *broken).map(|(_, what)| (*what).to_owned()).collect();
        facts.broken.extend(broken);
        std::mem::take(&mut *facts)
    })
}

/// Returns the faults that differ at this call. A read has no effect.
fn faults_of(call: &str) -> &'static [Fault] {
    match call {
        "list" | "known" => &[FailsBefore, HangsBefore, DiesBefore],
        "api" => &[FailsBefore, FailsAfter, HangsBefore, HangsAfter, ArrivesLate, ArrivesVeryLate, DiesBefore],
        _ => &FAULTS,
    }
}

#[derive(Default)]
struct Verdict {
    schedules: u64,
    violations: Vec<String>,
}

/// Plays a scenario with this plan, and with every additional fault at every later call.
fn explore(
    scenario: Scenario,
    plan: &mut Vec<(usize, Fault)>,
    more: usize,
    requests: &Arc<[Request; 2]>,
    verdict: &mut Verdict,
) {
    let Facts { calls, broken, .. } = play(scenario, plan, requests);
    verdict.schedules += 1;
    verdict.violations.extend(broken.iter().map(|what| format!("{what}: {plan:?} in {scenario:?}")));
    let first = plan.last().map_or(0, |(call, _)| call + 1);
    // One violation is enough to detect a flaw.
    let enough = scenario.flaw != Flawless && !verdict.violations.is_empty();
    if more > 0 && !enough {
        for (number, call) in calls.iter().enumerate().skip(first) {
            for fault in faults_of(call) {
                plan.push((number, *fault));
                explore(scenario, plan, more - 1, requests, verdict);
                plan.pop();
            }
        }
    }
}

/// Returns the number of faults that are combined in a scenario. It is one less than `faults` if
/// the second request differs from the first one, or if alerts are not paced. Three faults at once
/// try the second request only at the same time and during the request for a slot. The other times
/// would take three quarters of an hour more.
fn combined(scenario: Scenario, faults: usize) -> usize {
    let times = if faults < 3 { &[0, 15, 35, 55, 75, 95][..] } else { &[0, 35] };
    match scenario.reconcile {
        None => {}
        Some(Arrival::Never) => return faults.min(2),
        // A run and a webhook have too many calls for each pair of faults at each time. `make test`
        // tries pairs at two times: the lead becomes known before the run's lock, or after it.
        Some(Arrival::After(after)) if !scenario.sendpilot_retries => {
            return if faults > 2 || [70, 110].contains(&after.as_millis()) { 2 } else { 1 };
        }
        Some(_) => return 1,
    }
    let is_first = match scenario.second {
        Some((copy, after)) => copy == Copy::Same && times.contains(&after.as_millis()),
        None => true,
    };
    if is_first && scenario.rate.is_some() { faults } else { faults - 1 }
}

/// Returns the first request, and the same request about another lead.
fn requests() -> Arc<[Request; 2]> {
    // The documented signature is valid for two hours, so the retries can repeat the same request.
    Arc::new(LEADS.map(|lead| {
        let body = opportunity_of("evt_1", lead).replace("2024-02-24T10:30:00.000Z", UPDATED_AT);
        http(around(&body, &documented(SECRET, EPOCH.as_secs(), body.as_bytes())))
    }))
}

/// Explores all scenarios with up to `faults` faults.
fn explore_all(flaw: Flaw, faults: usize) -> Verdict {
    let _processors = PROCESSORS.blocking_lock();
    let requests = requests();
    let scenarios = Mutex::new(scenarios(flaw));
    let all = Mutex::new(Verdict::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seen = flaw != Flawless && !all.lock().unwrap().violations.is_empty();
                    let Some(scenario) = scenarios.lock().unwrap().pop().filter(|_| !seen) else { break };
                    let faults = combined(scenario, faults);
                    let mut verdict = Verdict::default();
                    explore(scenario, &mut Vec::new(), faults, &requests, &mut verdict);
                    let mut all = all.lock().unwrap();
                    all.schedules += verdict.schedules;
                    all.violations.extend(verdict.violations);
                }
            });
        }
    });
    all.into_inner().unwrap()
}

#[expect(clippy::print_stdout, reason = "the verdict is for people to read")]
fn check(faults: usize) {
    let Verdict { schedules, violations } = explore_all(Flawless, faults);
    println!("up to {faults} faults: {schedules} schedules, {} violations", violations.len());
    let first: Vec<_> = violations.iter().take(10).collect();
    assert!(violations.is_empty(), "{} of {schedules} schedules break a promise: {first:#?}", violations.len());
}

#[test]
fn any_one_or_two_faults_break_nothing() {
    check(2);
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn any_three_faults_break_nothing() {
    check(3);
}

#[test]
fn checks_detect_every_flaw() {
    for flaw in [
        LeaseIgnored,
        DoneAtClaim,
        DeletedOnFailure,
        FailureSwallowed,
        CompletionGivenUp,
        MessageOverwritten,
        ContentIgnored,
        SlotShared,
        NotMadeKnown,
        KnownBeforeClaim,
        LocksNotStored,
        LockIgnored,
        BaselineSkipped,
        NoRedrive,
    ] {
        let violations = explore_all(flaw, 2).violations;
        assert!(!violations.is_empty(), "{flaw:?} should break a promise");
    }
}

/// If the calls had other times, the two ways might not meet.
#[test]
fn both_ways_meet() {
    let requests = requests();
    for (millis, is_run) in [(70, false), (90, false), (110, true), (130, true), (150, true), (5000, true)] {
        let arrival = Some(Arrival::After(Duration::from_millis(millis)));
        let scenario = scenarios(Flawless).into_iter().find(|scenario| scenario.reconcile == arrival).unwrap();
        let Facts { calls, published, .. } = play(scenario, &[], &requests);
        assert!(calls.contains(&"debounce"), "{millis}: {calls:?}");
        assert_eq!(published.iter().map(is_found).collect::<Vec<_>>(), [is_run], "{millis}: {calls:?}");
    }
}
