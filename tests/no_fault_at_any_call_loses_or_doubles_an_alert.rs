//! Every fault at every call, and every pair of them: the real handler and the real redrive over a ledger and a topic that
//! break where they are told to. A call is told apart by its number, so that all of them can be walked through; the time
//! is tokio's, paused, so that hours take no time.
//!
//! One opportunity is delivered, perhaps twice at once, at any distance that changes who comes first. SendPilot keeps to
//! its retry schedule, or never comes back. The redrive runs every minute, alone or two at once, until nothing is pending.
//!
//! What must hold in the end, whatever broke:
//!
//! - **Told.** 2xx is said only after a publish took effect; never 4xx but 409.
//! - **Nothing lost.** The alert is out if a claim took effect, and if SendPilot came back. The row is `PUBLISHED`.
//! - **Once.** There are no more publishes beyond the first than proofs of one were lost: its answer, or its completion.
//! - **The same.** Every publish is the same message.
//! - **In time.** Who is not killed comes to an end before Lambda would kill it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::future::pending;
use std::iter::once;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use Fault::*;
use Flaw::*;
use futures_util::future::{join, join_all, select};
use futures_util::{Stream, StreamExt, pin_mut, stream};
use lambda_http::Request;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::keyring::Keyring;
use opportunity_alerts::ledger::{
    Attempt, Claim, Claimed, DeliveryId, Ledger, LedgerError, MayAlert, MayClaim, MaySettle, Message, Pending, QuietId,
    Receipt, Row, Settled, Standing, State, Wanted, may_claim, may_settle,
};
use opportunity_alerts::redrive::{Pace, Redrive};
use opportunity_alerts::rules::Rules;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::topic::{Topic, TopicError};
use opportunity_alerts::webhook::Webhook;
use support::doubles::{relay, telemetry};
use support::requests::{RETRIES, SECRET, around, documented, http, opportunity, secrets};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

const EPOCH: Timestamp = Timestamp::from_millis(1_708_770_600_000);

/// As in `template.yaml`.
const WEBHOOK_TIMEOUT: Duration = Duration::from_secs(10);
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(55);
const REDRIVE_EVERY: Duration = Duration::from_secs(60);

/// What a request takes on its way, and its answer on the way back.
const ONE_WAY: Duration = Duration::from_millis(10);

/// Later than anything that two or three faults can bring about.
const END: Duration = Duration::from_secs(4 * 3600);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fault {
    /// An error, and no effect.
    FailsBefore,
    /// An error, and yet it took effect.
    FailsAfter,
    /// No answer, and no effect.
    HangsBefore,
    /// No answer, and yet it took effect.
    HangsAfter,
    /// No answer, and an effect when the caller has given up, but its lease lives.
    ArrivesLate,
    /// The same, when somebody else has taken over.
    ArrivesVeryLate,
    /// The function is killed before the effect.
    DiesBefore,
    /// The function is killed after it.
    DiesAfter,
}

const FAULTS: [Fault; 8] =
    [FailsBefore, FailsAfter, HangsBefore, HangsAfter, ArrivesLate, ArrivesVeryLate, DiesBefore, DiesAfter];

/// What one might get wrong. The oracles must see each of them, or they would see nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Flaw {
    Flawless,
    /// A claim needs no free lease.
    LeaseIgnored,
    /// The claim records that all is done.
    DoneAtClaim,
    /// A failure removes the row.
    DeletedOnFailure,
    /// A failure of the topic is taken for success.
    FailureSwallowed,
    /// Nobody looks after what is pending.
    NoRedrive,
}

#[derive(Debug, Clone, Copy)]
struct Scenario {
    /// How much later the same event is delivered once more, if it is.
    duplicate: Option<Duration>,
    sendpilot_returns: bool,
    redrives_at_once: usize,
    flaw: Flaw,
}

/// A copy that comes at the same time, between any two steps of the first delivery, and after it.
fn scenarios(flaw: Flaw) -> Vec<Scenario> {
    let duplicates = [None, Some(0), Some(15), Some(35), Some(55), Some(75)];
    let mut scenarios = Vec::new();
    for duplicate in duplicates.map(|millis| millis.map(Duration::from_millis)) {
        for (sendpilot_returns, redrives_at_once) in [(true, 1), (false, 1), (false, 2)] {
            scenarios.push(Scenario { duplicate, sendpilot_returns, redrives_at_once, flaw });
        }
    }
    scenarios
}

/// The table's one row, the topic, and what is known of them.
#[derive(Default)]
struct Facts {
    calls: Vec<&'static str>,
    row: Option<(Row, Message, u32)>,
    claimed: bool,
    published: Vec<Message>,
    lost_proofs: usize,
    /// Still on their way.
    late: usize,
    /// What did not hold.
    broken: Vec<String>,
}

struct World {
    scenario: Scenario,
    plan: Vec<(usize, Fault)>,
    began: Instant,
    request: Arc<Request>,
    facts: Mutex<Facts>,
}

impl World {
    fn now(&self) -> Timestamp {
        EPOCH.after(self.began.elapsed())
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    fn breaks(&self, what: String) {
        self.facts().broken.push(what);
    }
}

/// One process of Lambda's: what it calls, and whether it has been killed.
#[derive(Clone)]
struct Process {
    world: Arc<World>,
    death: Arc<Notify>,
}

impl Process {
    fn new(world: &Arc<World>) -> Self {
        Self { world: world.clone(), death: Arc::default() }
    }

    /// What the process comes to, if it is not killed.
    async fn lives<T>(&self, timeout: Duration, work: impl Future<Output = T>) -> Option<T> {
        let began = Instant::now();
        let death = self.death.notified();
        pin_mut!(work, death);
        let result = match select(work, death).await {
            futures_util::future::Either::Left((result, _)) => Some(result),
            futures_util::future::Either::Right(_) => None,
        };
        if began.elapsed() >= timeout {
            self.world.breaks("Lambda would have killed it".into());
        }
        result
    }

    /// A request on its way to AWS and back. `None` is an error; a hanging one never returns.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&mut Facts) -> T + Send + 'static,
    ) -> Option<T> {
        let fault = {
            let mut facts = self.world.facts();
            let number = facts.calls.len();
            facts.calls.push(name);
            let fault = self.world.plan.iter().find(|(at, _)| *at == number).map(|(_, fault)| *fault);
            let lost = match name {
                "publish" => [FailsAfter, HangsAfter, ArrivesLate, ArrivesVeryLate, DiesAfter].as_slice(),
                "complete" => &[FailsBefore, HangsBefore, ArrivesLate, ArrivesVeryLate, DiesBefore],
                _ => &[],
            };
            facts.lost_proofs += usize::from(fault.is_some_and(|fault| lost.contains(&fault)));
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
        claim: Claim,
        settled: impl FnOnce(&mut Facts) + Send + 'static,
    ) -> Result<Settled, LedgerError> {
        let owner = claim.owner().clone();
        let effect = move |facts: &mut Facts| match may_settle(facts.row.as_ref().map(|(row, ..)| row), &owner) {
            MaySettle::Yes => {
                settled(facts);
                Settled::Recorded
            }
            MaySettle::Done => Settled::Recorded,
            MaySettle::NotMine => Settled::NotMine,
        };
        self.call(name, effect).await.ok_or(LedgerError::Failed(name, "broken".into()))
    }
}

fn claim(facts: &mut Facts, wanted: Wanted, attempt: Attempt, flaw: Flaw) -> Result<Claimed, LedgerError> {
    let Attempt { owner, now, lease_until } = attempt;
    let row = facts.row.as_ref();
    let id = wanted.id().clone();
    let standing = match may_claim(row.map(|(row, ..)| row), &owner, now) {
        MayClaim::Done => Standing::Done,
        MayClaim::NotBefore(until) if flaw != LeaseIgnored => Standing::InProgress { until },
        _ => {
            let (message, attempts) = match (wanted, row) {
                (Wanted::Delivery(delivery), row) => (delivery.message, row.map_or(0, |(.., attempts)| *attempts)),
                (Wanted::Pending(_), Some((_, message, attempts))) => (message.clone(), *attempts),
                (Wanted::Pending(_), None) => return Err(LedgerError::Gone),
            };
            let state = if flaw == DoneAtClaim { State::Published } else { State::Pending };
            let row = Row { state, owner: owner.clone(), lease_until, body_sha256: None };
            facts.row = Some((row, message.clone(), attempts + 1));
            facts.claimed = true;
            Standing::Won(Claim::granted(id, message, None, owner))
        }
    };
    Ok(Claimed { standing, other_body: false, attempts: facts.row.as_ref().map(|(.., attempts)| *attempts) })
}

impl Ledger for Process {
    async fn claim(&self, wanted: Wanted, attempt: Attempt) -> Result<Claimed, LedgerError> {
        let flaw = self.world.scenario.flaw;
        let claimed = self.call("claim", move |facts| claim(facts, wanted, attempt, flaw)).await;
        claimed.unwrap_or(Err(LedgerError::Failed("claim", "broken".into())))
    }

    async fn quiet(&self, _: &Claim, _: &QuietId, _: Timestamp, _: Timestamp) -> Result<MayAlert, LedgerError> {
        Ok(MayAlert::Yes)
    }

    async fn debounce(&self, _: Claim, _: &DeliveryId, _: Timestamp) -> Result<Settled, LedgerError> {
        Ok(Settled::NotMine)
    }

    async fn discard(&self, _: Claim, _: &str, _: Timestamp) -> Result<Settled, LedgerError> {
        Ok(Settled::NotMine)
    }

    async fn complete(&self, claim: Claim, _: Receipt) -> Result<Settled, LedgerError> {
        let publish = |facts: &mut Facts| facts.row.iter_mut().for_each(|(row, ..)| row.state = State::Published);
        self.settle("complete", claim, publish).await
    }

    async fn release(&self, claim: Claim, now: Timestamp, _: &str) -> Result<Settled, LedgerError> {
        let flaw = self.world.scenario.flaw;
        let free = move |facts: &mut Facts| {
            facts.row.iter_mut().for_each(|(row, ..)| row.lease_until = now);
            facts.row.take_if(|_| flaw == DeletedOnFailure);
        };
        self.settle("release", claim, free).await
    }

    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        let listing = self.call("list", |facts| {
            facts.row.as_ref().filter(|(row, ..)| row.state == State::Pending).map(|(row, _, attempts)| Pending {
                id: DeliveryId::alert(Some("ws_abc123xyz"), "evt_1"),
                lease_until: row.lease_until,
                first_seen_at: EPOCH,
                attempts: *attempts,
            })
        });
        stream::once(listing).filter_map(async |listed| match listed {
            Some(pending) => pending.map(Ok),
            None => Some(Err(LedgerError::Failed("list", "broken".into()))),
        })
    }
}

impl Topic for Process {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let message = message.clone();
        let published = self.call("publish", move |facts| facts.published.push(message)).await;
        match published {
            None if self.world.scenario.flaw != FailureSwallowed => Err(TopicError::Failed("broken".into())),
            _ => Ok("message".into()),
        }
    }
}

/// Owner tokens are never used twice.
fn invocation(world: &World, timeout: Duration) -> Invocation {
    let number = world.facts().calls.len() as u64;
    let nanos = world.began.elapsed().as_nanos() as u64;
    let now = world.now();
    Invocation::new(&format!("{nanos}-{number}"), now.after(timeout), now, [0; 8])
}

/// SendPilot, with one delivery of the event and its retries.
async fn sendpilot(world: &Arc<World>, after: Duration) {
    let retries = if world.scenario.sendpilot_returns { &RETRIES[..] } else { &[] };
    for wait in once(&after).chain(retries) {
        sleep(*wait).await;
        let process = Process::new(world);
        let (ledger, topic) = (process.clone(), process.clone());
        let (keyring, telemetry) = (Keyring::given(secrets()), telemetry());
        let webhook = Webhook { keyring, rules: Rules::default(), relay: relay(ledger, topic), telemetry };
        let invocation = invocation(world, WEBHOOK_TIMEOUT);
        let answer = process.lives(WEBHOOK_TIMEOUT, webhook.respond(&world.request, &invocation)).await;
        match answer.map(|answer| answer.status().as_u16()) {
            Some(200) if world.facts().published.is_empty() => world.breaks("told 2xx, and no alert is out".into()),
            Some(200) => return,
            Some(409 | 503) | None => {}
            Some(other) => world.breaks(format!("told {other}")),
        }
    }
}

/// Every minute, until there is nothing left for it and nobody else at work.
async fn redrive(world: &Arc<World>, all_sent: &Notify) {
    let runs = if world.scenario.flaw == NoRedrive { 0 } else { world.scenario.redrives_at_once };
    let (mut sent, all_sent) = (false, all_sent.notified());
    pin_mut!(all_sent);
    while world.began.elapsed() < END {
        sleep(REDRIVE_EVERY).await;
        sent = sent || futures_util::poll!(&mut all_sent).is_ready();
        join_all((0..runs).map(|number| async move {
            let process = Process::new(world);
            let redrive = Redrive { relay: relay(process.clone(), process.clone()), telemetry: telemetry() };
            let now = world.now();
            let id = format!("redrive {number} at {}", now.as_millis());
            let invocation = Invocation::new(&id, now.after(REDRIVE_TIMEOUT), now, [0; 8]);
            process.lives(REDRIVE_TIMEOUT, redrive.run(&invocation, Pace::Patient)).await;
        }))
        .await;
        let facts = world.facts();
        if sent && facts.late == 0 && facts.row.as_ref().is_none_or(|(row, ..)| row.state == State::Published) {
            return;
        }
    }
}

/// Plays a scenario with these faults. Returns the number of calls that it took, and what did not hold.
fn play(scenario: Scenario, plan: &[(usize, Fault)], request: &Arc<Request>) -> (usize, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let world = Arc::new(World {
            scenario,
            plan: plan.to_vec(),
            began: Instant::now(),
            request: request.clone(),
            facts: Mutex::default(),
        });
        let sent = Notify::new();
        let sending = async {
            let copy = async {
                if let Some(after) = scenario.duplicate {
                    sendpilot(&world, after).await;
                }
            };
            join(sendpilot(&world, Duration::ZERO), copy).await;
            sent.notify_one();
        };
        join(sending, redrive(&world, &sent)).await;

        let mut facts = world.facts();
        let state = facts.row.as_ref().map(|(row, ..)| row.state);
        let (claimed, out, lost_proofs) = (facts.claimed, facts.published.len(), facts.lost_proofs);
        let verdicts = [
            (out == 0 && claimed, "claimed, and the alert never came out"),
            (out == 0 && scenario.sendpilot_returns, "SendPilot came back, and the alert never came out"),
            (claimed && state != Some(State::Published), "the row is not PUBLISHED in the end"),
            (out > 1 + lost_proofs, "published again, and no proof was lost"),
            (facts.published.windows(2).any(|pair| pair[0] != pair[1]), "published as another message"),
        ];
        let broken = verdicts.iter().filter(|(broken, _)| *broken).map(|(_, what)| (*what).to_owned());
        facts.broken.extend(broken);
        (facts.calls.len(), std::mem::take(&mut facts.broken))
    })
}

#[derive(Default)]
struct Verdict {
    schedules: u64,
    violations: Vec<String>,
}

/// Plays a scenario with this plan, and with every fault at every later call added to it.
fn explore(
    scenario: Scenario,
    plan: &mut Vec<(usize, Fault)>,
    more: usize,
    request: &Arc<Request>,
    verdict: &mut Verdict,
) {
    let (calls, broken) = play(scenario, plan, request);
    verdict.schedules += 1;
    verdict.violations.extend(broken.iter().map(|what| format!("{what}: {plan:?} in {scenario:?}")));
    let first = plan.last().map_or(0, |(call, _)| call + 1);
    if more > 0 {
        for next in (first..calls).flat_map(|call| FAULTS.map(|fault| (call, fault))) {
            plan.push(next);
            explore(scenario, plan, more - 1, request, verdict);
            plan.pop();
        }
    }
}

fn explore_all(flaw: Flaw, faults: usize) -> Verdict {
    let body = opportunity("evt_1");
    // Under the signature that is good for two hours, one request does for all retries.
    let request = Arc::new(http(around(&body, &documented(SECRET, EPOCH.as_secs(), body.as_bytes()))));
    let scenarios = Mutex::new(scenarios(flaw));
    let all = Mutex::new(Verdict::default());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(scenario) = scenarios.lock().unwrap().pop() else { break };
                    let mut verdict = Verdict::default();
                    explore(scenario, &mut Vec::new(), faults, &request, &mut verdict);
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
fn with_every_single_fault_and_every_pair() {
    check(2);
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn with_every_three_faults() {
    check(3);
}

#[test]
fn and_the_oracles_see_what_is_wrong() {
    for flaw in [LeaseIgnored, DoneAtClaim, DeletedOnFailure, FailureSwallowed, NoRedrive] {
        let violations = explore_all(flaw, 1).violations;
        assert!(!violations.is_empty(), "{flaw:?} goes unseen");
    }
}
