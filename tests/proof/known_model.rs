//! A model of the two ways to an alert in every interleaving: the webhooks of one lead in one
//! status, and the reconciliation. The model decides by production's own rules.
//!
//! [`may_claim`], [`may_finish`], [`may_publish`], [`Lock`], [`Known`] and [`may_run`] decide
//! whether a request takes effect, and what it changes. Decision and effect are one step, as in a
//! conditional write. Around them, the model follows the steps of `relay` and `reconcile` in every
//! possible order:
//!
//! - **Changes.** The lead comes into the status, and perhaps once more later. It may be touched
//!   without a change. The times of an event and of its change differ by [`SKEW`].
//! - **Webhooks.** SendPilot delivers the event of each change at any time, again after any answer,
//!   or never.
//! - **Runs.** A run reads the list of leads. If it finds no row of the lead later, it claims a
//!   delivery of its own. Without a baseline, it makes the lead known instead. One run works at a
//!   time.
//! - **Redrives.** A redrive claims a pending row at any time, and takes the locks that the first
//!   claim stored.
//! - **Faults.** A request may never arrive, or arrive at any later time, even if its sender is
//!   dead. The sender gets no answer. It sends the request again (to the ledger, not to the topic),
//!   gives up, or dies. Without a fault, an attempt may find no free slot, and end.
//! - **Time.** Time passes at any moment, in steps of the grace period. A debounce lock ends with
//!   the step.
//!
//! `claim_model` shows that no lease ends before its attempt, and counts publishes. So here, a
//! lease ends with its attempt, and a release changes nothing. A publish that gets its answer is
//! completed at once, and an alert is published or is not.
//!
//! The model assumes that the lead stays in the status, is listed there, and that every event has a
//! time. The row of the lead lasts. A request for a debounce lock does not arrive after that lock's
//! end. Some redrive finds a free slot.
//!
//! The other protocols are plausible alternatives. The checker finds the promise that each of them
//! breaks, so it would also find a broken promise of the real protocol.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::PROCESSORS;
use crate::support::model::{self, Wrong, breach};
use Alert::*;
use Protocol::*;
use Then::*;
use opportunity_alerts::delivery::ledger::{
    HeldLock, Lock, MayClaim, MayFinish, MayPublish, Refusal, Row, State, may_claim, may_finish, may_publish, may_run,
};
use opportunity_alerts::invocation::Owner;
use opportunity_alerts::message::Known;
use opportunity_alerts::message::key::{DeliveryId, LockKey};
use opportunity_alerts::reconcile::GRACE;
use opportunity_alerts::timestamp::Timestamp;
use stateright::{Model, Property};

const K1: &str = "K1, a lead with a claimed alert is alerted in the end";
const K2: &str = "K2, a lead that no way has alerted is alerted by the next run";
const K3: &str = "K3, no change is alerted by both ways";
const K4: &str = "K4, a baseline causes no alert, and suppresses none";
const K5: &str = "K5, a claimed change is alerted, or its alert is suppressed in favour of one that reports it";
const K6: &str = "K6, 2xx only after the alert is published, or another is claimed";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Real,
    NoRowByWebhook,
    NoRowByRun,
    RowBeforeClaim,
    RunsRowBeforeClaim,
    RowAfterPublish,
    PublishWithoutAnswer,
    NotAgainForItsHolder,
    RedriveTakesNoLocks,
    BaselineSkipped,
    BaselineSuppresses,
    RunsOverlap,
    EndRenewed,
    EndIsUpdatedAt,
    EndIsNow,
    NoGracePeriod,
    WebhookSuppresses,
    RunDebounces,
    DebounceFirst,
    LateDebounceLock,
}

/// The time after `updatedAt` until which a run's alert reports the changes, as in `reconcile`.
const SAME_CHANGE: Duration = Duration::from_secs(10 * 60);

/// The difference between the time of an event and the `updatedAt` of its change.
const SKEW: Duration = Duration::from_secs(5 * 60);

/// The duration of a debounce lock.
const DEBOUNCE: Duration = Duration::from_secs(10 * 60);

/// The step of the first change.
const FIRST_AT: u64 = 1;

/// The last step of the second change. The grace period of the first change is over.
const SECOND_BY: u64 = 2;

/// More attempts than are alive at once.
const MAX_ATTEMPTS: usize = 8;

/// The beginning of a world, and the attempts and faults that it may have.
#[derive(Debug, Clone, Copy)]
struct Case {
    start: Start,
    /// For each change, whether its event has a later time than the change, or an earlier one.
    late: [bool; 2],
    left: Left,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Start {
    /// The baseline is complete, and the lead is not part of it. The first change follows.
    Baselined,
    /// The reconciliation has just been turned on. The lead is not in the status yet.
    New,
    /// The reconciliation has just been turned on. The lead is in the status, and was alerted
    /// before.
    AlertedBefore,
}

/// The attempts and faults that are left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Left {
    /// The deliveries of each change's event. Without one, the second change does not happen.
    webhooks: [usize; 2],
    runs: usize,
    redrives: usize,
    touches: usize,
    faults: usize,
}

/// The hardest times: the first event is nearly too late for a run's report, and the second event
/// nearly too early for its own alert.
const HARD: [bool; 2] = [true, false];

const fn case(start: Start, webhooks: [usize; 2], runs: usize, redrives: usize, faults: usize) -> Case {
    Case { start, late: HARD, left: Left { webhooks, runs, redrives, touches: 0, faults } }
}

/// The cases in `make test`.
const SMALL: [Case; 5] = [
    case(Start::Baselined, [1, 1], 1, 0, 1),
    case(Start::Baselined, [1, 1], 1, 1, 0),
    case(Start::Baselined, [1, 0], 1, 1, 1),
    case(Start::New, [1, 0], 2, 1, 1),
    case(Start::AlertedBefore, [0, 1], 2, 1, 1),
];

/// The cases in `make model`.
const FULL: [Case; 9] = [
    case(Start::Baselined, [1, 1], 1, 1, 1),
    Case { late: [false, true], ..case(Start::Baselined, [1, 1], 1, 1, 1) },
    case(Start::Baselined, [1, 1], 1, 0, 2),
    case(Start::Baselined, [1, 1], 2, 0, 1),
    case(Start::Baselined, [2, 1], 1, 0, 1),
    touched(case(Start::Baselined, [1, 1], 1, 0, 1)),
    touched(case(Start::Baselined, [1, 0], 2, 1, 2)),
    case(Start::New, [1, 1], 2, 1, 1),
    touched(case(Start::AlertedBefore, [0, 1], 2, 1, 2)),
];

const fn touched(case: Case) -> Case {
    Case { left: Left { touches: 1, ..case.left }, ..case }
}

/// A protocol, a promise that it breaks, and cases that show it.
type Broken = (Protocol, &'static str, &'static [Case]);

const BROKEN: [Broken; 18] = [
    // The webhook function makes no lead known.
    (NoRowByWebhook, K3, &SMALL),
    // A run looks for the row, but takes none.
    (NoRowByRun, K3, &SMALL),
    // The webhook function makes the lead known before it claims the delivery.
    (RowBeforeClaim, K2, &SMALL),
    // A run makes the lead known before it claims the delivery.
    (RunsRowBeforeClaim, K6, &SMALL),
    // An attempt makes the lead known only after the publish.
    (RowAfterPublish, K3, &SMALL),
    // An attempt publishes although it gets no answer about the row.
    (PublishWithoutAnswer, K3, &SMALL),
    // The row refuses its own holder.
    (NotAgainForItsHolder, K1, &SMALL),
    // The claim does not store the locks, so a redrive takes none.
    (RedriveTakesNoLocks, K3, &SMALL),
    // The first run alerts all leads that it finds.
    (BaselineSkipped, K4, &SMALL),
    // The baseline suppresses webhooks' alerts, as a run's alert does.
    (BaselineSuppresses, K4, &SMALL),
    // Several runs work at once.
    (RunsOverlap, K1, &[case(Start::New, [0, 0], 3, 0, 0)]),
    // Each alert that takes the row also sets its end.
    (EndRenewed, K3, &SMALL),
    // A run's alert suppresses only events before `updatedAt`.
    (EndIsUpdatedAt, K3, &SMALL),
    // A run's alert suppresses all events before it takes the row.
    (EndIsNow, K5, &SMALL),
    // A run alerts a lead at once.
    (NoGracePeriod, K5, &SMALL),
    // A webhook's alert suppresses other webhooks' alerts, as a run's alert does.
    (WebhookSuppresses, K5, &SMALL),
    // A run's alert takes the debounce lock too.
    (RunDebounces, K1, &SMALL),
    // An attempt takes the debounce lock before the row of the lead.
    (DebounceFirst, K5, &SMALL),
];

/// A request for a debounce lock arrives after that lock's end. It then shortens a later lock of
/// the same alert. If a second request is late too, two alerts suppress each other.
const LATE: Broken = (LateDebounceLock, K1, &[case(Start::Baselined, [1, 1], 0, 0, 2)]);

/// An alert about the lead. The baseline has no alert, but can hold a lock like one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Alert {
    First,
    Second,
    Missed,
    Baseline,
}

const WEBHOOKS: [Alert; 2] = [First, Second];
const ALERTS: [Alert; 3] = [First, Second, Missed];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Webhook,
    Redrive,
    Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum LockKind {
    Known,
    Debounce,
}

/// The next request of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    /// A run looks for the row of the lead.
    Look,
    /// A run records that the baseline is complete.
    EndBaseline,
    Claim,
    Lock(LockKind),
    /// The publish and the completion.
    Publish,
    Debounce(LockKind, Alert),
    /// No request, because the attempt has ended or died.
    Over,
}

/// The content of a run's alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Report {
    /// The time before which the alert suppresses webhooks.
    until: Timestamp,
    /// The number of changes that had happened when the run read the lead.
    changes: usize,
}

/// An invocation of the webhook function, or the part of a run or a redrive for this lead. Its
/// place in the world is its owner token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    kind: Kind,
    alert: Alert,
    step: Step,
    /// The content of a run's alert, if the attempt knows it. A baseline has one if it has the
    /// lead.
    report: Option<Report>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    Claim(Alert, Option<Report>),
    Lock(LockKind, Alert, Option<Report>, u64),
    Publish(Alert),
    Debounce(Alert, (LockKind, Alert)),
}

/// A delivery's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Stored {
    state: State,
    /// The attempt that claimed the delivery last, unless nothing of it can arrive any more.
    owner: Option<usize>,
    report: Option<Report>,
    /// The lock and the alert that suppressed this one.
    debounced_by: Option<(LockKind, Alert)>,
    /// A redrive claimed the delivery last.
    redriven: bool,
}

/// A lock's row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    by: Alert,
    until: Timestamp,
}

#[derive(Debug, Clone, PartialEq)]
struct World {
    start: Start,
    /// Whether the time of an event is after the `updatedAt` of its change, or before it.
    late: [bool; 2],
    now: u64,
    /// The step of each change.
    changed: [Option<u64>; 2],
    /// SendPilot's `updatedAt`.
    updated: u64,
    /// Whether the lead was known after the baseline, once the baseline is complete.
    baseline: Option<bool>,
    rows: [Option<Stored>; 3],
    published: [bool; 3],
    /// SendPilot has got 2xx.
    confirmed: [bool; 2],
    known: Option<Held>,
    debounce: Option<Held>,
    attempts: Vec<Attempt>,
    /// The requests that may still arrive. A request has its sender if the row must have it as
    /// owner.
    in_flight: Vec<(Option<usize>, Request)>,
    left: Left,
}

/// The checker takes worlds with the same hash for the same world. The hash ignores the order of
/// the attempts.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let sent = |who: Option<usize>| {
            let sent = self.in_flight.iter().filter(|(sender, _)| *sender == who);
            let mut sent: Vec<_> = sent.map(|(_, request)| *request).collect();
            sent.sort_unstable();
            sent
        };
        let owns = |who: usize| self.rows.map(|row| row.is_some_and(|row| row.owner == Some(who)));
        let roles = self.attempts.iter().enumerate().map(|(who, attempt)| (attempt, owns(who), sent(Some(who))));
        let mut roles: Vec<_> = roles.filter(|(attempt, _, sent)| attempt.is_alive() || !sent.is_empty()).collect();
        roles.sort_unstable();
        let rows = self.rows.map(|row| row.map(|row| Stored { owner: None, ..row }));
        (self.start, self.late, self.now, self.changed, self.updated, self.baseline).hash(hasher);
        (rows, self.published, self.confirmed, self.known, self.debounce, roles, sent(None)).hash(hasher);
        self.left.hash(hasher);
    }
}

impl Attempt {
    fn is_alive(&self) -> bool {
        self.step != Step::Over
    }
}

impl World {
    fn new(&Case { start, late, left }: &Case) -> Self {
        let is_in = start != Start::New;
        Self {
            start,
            late,
            now: FIRST_AT,
            changed: [is_in.then_some(FIRST_AT), None],
            updated: FIRST_AT,
            baseline: (start == Start::Baselined).then_some(false),
            rows: [None; 3],
            published: [start == Start::AlertedBefore, false, false],
            confirmed: [false; 2],
            known: None,
            debounce: None,
            attempts: Vec::new(),
            in_flight: Vec::new(),
            left,
        }
    }

    fn row(&self, alert: Alert) -> Option<Stored> {
        self.rows[alert as usize]
    }

    fn is_alive(&self, who: usize) -> bool {
        self.attempts.get(who).is_some_and(Attempt::is_alive)
    }

    fn is_published(&self, alert: Alert) -> bool {
        self.published[alert as usize]
    }

    fn is_alerted(&self) -> bool {
        self.published.contains(&true)
    }

    fn is_pending(&self, alert: Alert) -> bool {
        self.row(alert).is_some_and(|row| row.state == State::Pending)
    }

    fn is_debounced_by(&self, alert: Alert, by: (LockKind, Alert)) -> bool {
        self.row(alert).is_some_and(|row| row.debounced_by == Some(by))
    }

    /// Returns the time of a change's event.
    fn occurred_at(&self, change: Alert) -> Timestamp {
        let changed = time(self.changed[change as usize].expect("the change should have happened"));
        let early = Duration::from_millis(changed.as_millis()) - SKEW;
        if self.late[change as usize] { changed.after(SKEW) } else { Timestamp::from_millis(0).after(early) }
    }

    /// Returns whether a run's alert reports this change, because the run read the lead later.
    fn run_reports(&self, change: Alert) -> bool {
        self.row(Missed).and_then(|row| row.report).is_some_and(|report| report.changes > change as usize)
    }

    /// Returns whether an alert on this change is published: its own, that of a later change, or a
    /// run's. If the alert is debounced, the other alert may be that of an earlier change.
    fn is_reported(&self, change: Alert) -> bool {
        WEBHOOKS.iter().any(|alert| {
            let counts = *alert >= change || self.is_debounced_by(change, (LockKind::Debounce, *alert));
            counts && self.is_published(*alert)
        }) || self.is_published(Missed) && self.run_reports(change)
    }

    /// Ends every attempt, and drops all requests that might still arrive.
    fn stop(&self) -> Self {
        let mut world = self.clone();
        world.attempts.clear();
        world.in_flight.clear();
        world.rows.iter_mut().flatten().for_each(|row| row.owner = None);
        world
    }

    /// Forgets requests that can have no effect any more, and attempts of which nothing can arrive.
    fn forget(&mut self, protocol: Protocol) {
        let Self { now, rows, published, known, in_flight, attempts, .. } = self;
        let is_over = |alert: Alert| rows[alert as usize].is_some_and(|row| row.state != State::Pending);
        in_flight.retain(|(_, request)| match *request {
            Request::Claim(alert, _) | Request::Debounce(alert, _) => !is_over(alert),
            Request::Publish(alert) => !published[alert as usize],
            // Another row refuses a run's request, and their own row stays as it is.
            Request::Lock(LockKind::Known, Missed | Baseline, ..) => known.is_none(),
            Request::Lock(LockKind::Known, ..) => true,
            Request::Lock(LockKind::Debounce, _, _, at) => {
                time(*now) < time(at).after(DEBOUNCE) || protocol == LateDebounceLock
            }
        });
        for row in rows.iter_mut().flatten() {
            row.owner.take_if(|owner| {
                !attempts[*owner].is_alive() && in_flight.iter().all(|(sender, _)| *sender != Some(*owner))
            });
        }
        for (who, attempt) in attempts.iter_mut().enumerate() {
            if !attempt.is_alive() && in_flight.iter().all(|(sender, _)| *sender != Some(who)) {
                *attempt = FREE;
            }
        }
        let last = attempts.iter().rposition(|attempt| *attempt != FREE);
        attempts.truncate(last.map_or(0, |last| last + 1));
    }

    /// Adds an attempt, and returns its place.
    fn add(&mut self, attempt: Attempt) -> usize {
        match self.attempts.iter().position(|other| *other == FREE) {
            Some(place) => {
                self.attempts[place] = attempt;
                place
            }
            None => {
                self.attempts.push(attempt);
                self.attempts.len() - 1
            }
        }
    }
}

/// The place of an attempt of which nothing can arrive any more.
const FREE: Attempt = Attempt { kind: Kind::Webhook, alert: Baseline, step: Step::Over, report: None };

/// The sender's reaction to a request. Everything except `Hear` is a fault. An attempt that gives
/// up a claim, a lock or a publish does the same as one that dies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Hear,
    AskAgain,
    GiveUp,
    Die,
}

/// Whether a request arrives at once or later, and the sender's reaction. A lost request that is
/// sent again is the same as a request that is sent later.
type Fate = (bool, Then);
const FATES: [Fate; 6] = [(true, Hear), (true, AskAgain), (true, GiveUp), (true, Die), (false, GiveUp), (false, Die)];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Tick,
    Change(Alert),
    Touch,
    /// A run begins, and reads the list of leads.
    Run,
    /// An attempt, which may be new, sends the request of its step.
    Send(Option<usize>, Attempt, Fate),
    ArriveLate(Option<usize>, Request),
    /// An attempt that has all locks finds no free slot. This is not a fault.
    FindNoSlot(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "the grace period passes"),
            Self::Change(change) => write!(f, "the lead comes into the status: {change:?}"),
            Self::Touch => write!(f, "the lead is touched"),
            Self::Run => write!(f, "a run reads the list of leads"),
            Self::FindNoSlot(who) => write!(f, "#{who} finds no free slot"),
            Self::ArriveLate(_, request) => write!(f, "late: {request:?}"),
            Self::Send(who, Attempt { kind, alert, step, .. }, (arrives, then)) => {
                let who = who.map_or_else(|| "new".to_owned(), |who| format!("#{who}"));
                let lost = if *arrives { "" } else { "lost, " };
                write!(f, "{who} ({kind:?}, {alert:?}): {step:?}, {lost}{then:?}")
            }
        }
    }
}

/// Returns the time of a step.
fn time(step: u64) -> Timestamp {
    Timestamp::from_millis(0).after(GRACE * u32::try_from(step).expect("there should be few steps"))
}

#[derive(Debug, Clone)]
struct Lead {
    protocol: Protocol,
    cases: &'static [Case],
    owners: Vec<Owner>,
    ids: [DeliveryId; 4],
    /// The only promise to check, if there is one.
    promise: Option<&'static str>,
}

impl Lead {
    fn new(protocol: Protocol, cases: &'static [Case], promise: Option<&'static str>) -> Self {
        Self {
            protocol,
            cases,
            owners: (0..MAX_ATTEMPTS).map(|who| Owner::from_stored(who.to_string())).collect(),
            ids: [First, Second, Missed, Baseline].map(|alert| DeliveryId::from_stored(format!("{alert:?}"))),
            promise,
        }
    }

    /// Returns the step after the claim, or after this lock.
    fn next(&self, attempt: Attempt, after: Option<LockKind>) -> Step {
        let takes_row = match self.protocol {
            NoRowByWebhook => attempt.alert == Missed,
            NoRowByRun => attempt.alert != Missed,
            RedriveTakesNoLocks => attempt.kind != Kind::Redrive,
            RowAfterPublish => false,
            _ => true,
        };
        let debounces = attempt.alert != Missed || self.protocol == RunDebounces;
        let mut locks = [takes_row.then_some(LockKind::Known), debounces.then_some(LockKind::Debounce)];
        if self.protocol == DebounceFirst {
            locks.reverse();
        }
        let locks: Vec<_> = locks.into_iter().flatten().collect();
        let done = after.and_then(|after| locks.iter().position(|lock| *lock == after));
        locks.get(done.map_or(0, |last| last + 1)).map_or(Step::Publish, |lock| Step::Lock(*lock))
    }

    /// Returns an attempt that is about to send its first request.
    fn new_attempt(&self, kind: Kind, alert: Alert, report: Option<Report>) -> Attempt {
        let step = match kind {
            Kind::Run if alert != Baseline => Step::Look,
            Kind::Run if report.is_none() => Step::EndBaseline,
            Kind::Webhook | Kind::Redrive if !self.is_before_claim(kind) => Step::Claim,
            _ => Step::Lock(LockKind::Known),
        };
        Attempt { kind, alert, step, report }
    }

    /// Returns whether an attempt takes the row of the lead before it claims its delivery.
    fn is_before_claim(&self, kind: Kind) -> bool {
        match self.protocol {
            RowBeforeClaim => kind == Kind::Webhook,
            RunsRowBeforeClaim => kind == Kind::Run,
            _ => false,
        }
    }

    /// Returns the lock that an alert asks for.
    fn lock(&self, world: &World, kind: LockKind, alert: Alert, report: Option<Report>, now: u64) -> Lock {
        let (lead, status, now) = ("lead_1", "OPPORTUNITY", time(now));
        if kind == LockKind::Debounce {
            return Lock::debounce(LockKey::debounce_status(None, lead, status), now, DEBOUNCE);
        }
        let known = match (alert, report) {
            (Baseline, _) if self.protocol == BaselineSuppresses => {
                Known::by_reconciliation(lead, status, time(world.updated).after(SAME_CHANGE))
            }
            (Baseline, _) => Known::baseline(lead, status),
            (Missed, Some(_)) if self.protocol == EndIsNow => Known::by_reconciliation(lead, status, now),
            (Missed, Some(report)) => Known::by_reconciliation(lead, status, report.until),
            (Missed, None) => unreachable!("a run's alert has a report"),
            (First | Second, _) => {
                let known = Known::by_webhook(lead, status, Some(world.occurred_at(alert)));
                let until = if self.protocol == WebhookSuppresses { known.at.after(SAME_CHANGE) } else { known.until };
                Known { until, ..known }
            }
        };
        Lock { renews: self.protocol == EndRenewed, ..Lock::known(known, now) }
    }

    fn row(&self, world: &World, alert: Alert) -> Option<Row> {
        let now = Timestamp::from_millis(1);
        world.row(alert).map(|row| Row {
            state: row.state,
            owner: row.owner.map_or_else(|| Owner::from_stored("over".into()), |owner| self.owners[owner].clone()),
            lease_until: if row.owner.is_some_and(|owner| world.is_alive(owner)) { now.after(GRACE) } else { now },
            content_sha256: None,
        })
    }

    /// Applies a request to the table or the topic. Returns the sender's next step if it hears the
    /// answer, and whether it answers SendPilot 2xx.
    fn take_effect(&self, world: &mut World, who: Option<usize>, request: Request) -> (Step, bool) {
        let attempt = who.and_then(|who| world.attempts.get(who).copied());
        match request {
            Request::Claim(alert, report) => {
                let (who, attempt) = who.zip(attempt).expect("a claim has its sender");
                let (row, now) = (self.row(world, alert), Timestamp::from_millis(1));
                if row.is_none() && attempt.kind == Kind::Redrive {
                    return (Step::Over, false);
                }
                match may_claim(row.as_ref(), None, &self.owners[who], now) {
                    MayClaim::Yes | MayClaim::Mine => {
                        let stored = &mut world.rows[alert as usize];
                        let report = stored.map_or(report, |stored| stored.report);
                        let redriven = attempt.kind == Kind::Redrive;
                        *stored = Some(Stored {
                            state: State::Pending,
                            owner: Some(who),
                            report,
                            debounced_by: None,
                            redriven,
                        });
                        world.attempts[who].report = report;
                        (self.next(attempt, self.is_before_claim(attempt.kind).then_some(LockKind::Known)), false)
                    }
                    MayClaim::No(Refusal::InProgress { .. }) => (Step::Over, false),
                    MayClaim::No(Refusal::Done) => (Step::Over, true),
                    MayClaim::No(Refusal::BodyMismatch) => unreachable!("every alert has its own row"),
                }
            }
            Request::Lock(kind, alert, report, now) => {
                let lock = self.lock(world, kind, alert, report, now);
                let id = &self.ids[alert as usize];
                let held = if kind == LockKind::Known { &mut world.known } else { &mut world.debounce };
                let by = held.map(|held| held.by);
                let before =
                    held.map(|held| HeldLock { holder: self.ids[held.by as usize].clone(), until: held.until });
                let refuses = self.protocol == NotAgainForItsHolder && held.is_some_and(|held| lock.at < held.until);
                match may_publish(before.as_ref(), id, lock.at) {
                    MayPublish::Yes if !refuses => {
                        *held = Some(Held { by: alert, until: lock.taken(before.as_ref(), id).until });
                        let Some(attempt) = attempt else { return (Step::Over, false) };
                        let step = match attempt.kind {
                            Kind::Run if alert == Baseline => Step::EndBaseline,
                            _ if kind == LockKind::Known && self.is_before_claim(attempt.kind) => Step::Claim,
                            _ if self.protocol == RowAfterPublish && kind == LockKind::Known => Step::Over,
                            _ => self.next(attempt, Some(kind)),
                        };
                        (step, false)
                    }
                    _ if alert == Baseline => (Step::EndBaseline, false),
                    _ if self.protocol == RowAfterPublish && kind == LockKind::Known => (Step::Over, true),
                    _ if attempt.is_some_and(|attempt| self.is_before_claim(attempt.kind)) => (Step::Over, true),
                    _ => (Step::Debounce(kind, by.expect("a refusal has its holder")), false),
                }
            }
            Request::Publish(alert) => {
                world.published[alert as usize] = true;
                // If the sender hears no answer, it does not complete the delivery.
                self.finish_row(world, who, alert, None);
                let takes_row = self.protocol == RowAfterPublish;
                (if takes_row { Step::Lock(LockKind::Known) } else { Step::Over }, true)
            }
            Request::Debounce(alert, by) => {
                self.finish_row(world, who, alert, Some(by));
                (Step::Over, true)
            }
        }
    }

    /// Completes a delivery, or debounces it in favour of another alert, if its owner is the
    /// sender.
    fn finish_row(&self, world: &mut World, who: Option<usize>, alert: Alert, debounced_by: Option<(LockKind, Alert)>) {
        let row = self.row(world, alert);
        if who.is_some_and(|who| may_finish(row.as_ref(), &self.owners[who]) == MayFinish::Yes) {
            let state = if debounced_by.is_some() { State::Debounced } else { State::Published };
            let stored = &mut world.rows[alert as usize];
            *stored = stored.map(|row| Stored { state, debounced_by, ..row });
        }
    }

    fn send(&self, world: &mut World, who: usize, (arrives, then): Fate) {
        let attempt @ Attempt { alert, report, .. } = world.attempts[who];
        let request = match attempt.step {
            Step::Look => {
                world.attempts[who].step = match world.known {
                    Some(_) => Step::Over,
                    None if self.is_before_claim(Kind::Run) => Step::Lock(LockKind::Known),
                    None => Step::Claim,
                };
                return;
            }
            Step::EndBaseline => {
                world.baseline = Some(report.is_some());
                world.attempts[who].step = Step::Over;
                return;
            }
            Step::Claim => Request::Claim(alert, report),
            Step::Lock(kind) => Request::Lock(kind, alert, report, world.now),
            Step::Publish => Request::Publish(alert),
            Step::Debounce(lock, by) => Request::Debounce(alert, (lock, by)),
            Step::Over => unreachable!("the attempt is over"),
        };
        let is_last = matches!(request, Request::Debounce(..));
        let (step, confirmed) = match then {
            Hear => self.take_effect(world, Some(who), request),
            AskAgain => (attempt.step, false),
            GiveUp if self.protocol == PublishWithoutAnswer && matches!(attempt.step, Step::Lock(_)) => {
                (Step::Publish, false)
            }
            GiveUp => (Step::Over, is_last),
            Die => (Step::Over, false),
        };
        if then != Hear {
            world.left.faults -= 1;
            let needs_owner = matches!(request, Request::Claim(..) | Request::Debounce(..));
            world.in_flight.extend(arrives.then_some((needs_owner.then_some(who), request)));
        }
        world.attempts[who].step = step;
        if attempt.kind == Kind::Webhook && confirmed {
            world.confirmed[alert as usize] = true;
        }
    }

    /// Does all steps of an attempt without a fault.
    fn finish(&self, world: &mut World, attempt: Attempt) {
        let who = world.add(attempt);
        while world.is_alive(who) {
            self.send(world, who, (true, Hear));
        }
        world.forget(self.protocol);
    }

    /// Does all steps of the redrives that these alerts need.
    fn redrive(&self, world: &mut World, alerts: impl Iterator<Item = Alert>) {
        for alert in alerts {
            if world.is_pending(alert) {
                self.finish(world, self.new_attempt(Kind::Redrive, alert, None));
            }
        }
    }

    /// Returns the attempt of a run that begins now, if the run has something to do.
    fn run(&self, world: &World) -> Option<Attempt> {
        let changes = world.changed.iter().flatten().count();
        let reported = if self.protocol == EndIsUpdatedAt { Duration::ZERO } else { SAME_CHANGE };
        let report = Report { until: time(world.updated).after(reported), changes };
        if world.baseline.is_none() && self.protocol != BaselineSkipped {
            return Some(self.new_attempt(Kind::Run, Baseline, (changes > 0).then_some(report)));
        }
        (changes > 0 && (world.now > world.updated || self.protocol == NoGracePeriod))
            .then(|| self.new_attempt(Kind::Run, Missed, Some(report)))
    }

    /// Returns the world after redrives, if every attempt dies now, no more requests arrive, and
    /// SendPilot never retries. The redrives run in two orders, during the debounce and after it.
    fn redriven<'a>(&'a self, world: &'a World) -> impl Iterator<Item = World> + 'a {
        let has_order = ALERTS.iter().filter(|alert| world.is_pending(**alert)).count() > 1;
        let has_time = world.debounce.is_some_and(|held| time(world.now) < held.until);
        let ways = [(false, 0), (true, 0), (false, 1), (true, 1)];
        let ways = ways.into_iter().filter(move |way| (has_order || !way.0) && (has_time || way.1 == 0));
        ways.map(move |(backwards, later)| {
            let mut world = world.stop();
            world.now += later;
            if backwards {
                self.redrive(&mut world, ALERTS.into_iter().rev());
            } else {
                self.redrive(&mut world, ALERTS.into_iter());
            }
            world
        })
    }

    /// Returns whether the next run alerts a lead that no way has alerted, after redrives or before
    /// them.
    fn saved_by_run(&self, world: &World) -> bool {
        [false, true].into_iter().all(|redrive_first| {
            let mut world = world.stop();
            world.now = world.now.max(world.updated + 1);
            if redrive_first {
                self.redrive(&mut world, ALERTS.into_iter());
            }
            if let Some(attempt) = self.run(&world) {
                self.finish(&mut world, attempt);
            }
            self.redrive(&mut world, ALERTS.into_iter());
            world.is_alerted()
        })
    }

    /// Returns whether anything can be different after the next step of time.
    fn time_matters(&self, world: &World) -> bool {
        let may_change = world.changed[0].is_some() && world.changed[1].is_none() && world.now < SECOND_BY;
        let may_be_missed = world.left.runs > 0 && world.now == world.updated;
        let debounces = world.debounce.is_some_and(|held| time(world.now) < held.until);
        may_change || may_be_missed || debounces
    }

    fn keeps_k4(&self, world: &World) -> bool {
        let suppressed = |alert: &Alert| {
            let rows =
                [LockKind::Known, LockKind::Debounce].map(|lock| world.is_debounced_by(*alert, (lock, Baseline)));
            rows.contains(&true)
        };
        let suppresses = |attempt: &Attempt| matches!(attempt.step, Step::Debounce(_, Baseline));
        let is_in = world.start == Start::AlertedBefore || world.baseline == Some(true);
        (!is_in || world.row(Missed).is_none())
            && !WEBHOOKS.iter().any(suppressed)
            && !world.attempts.iter().any(suppresses)
    }
}

impl Model for Lead {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        self.cases.iter().map(World::new).collect()
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        if self.time_matters(world) {
            actions.push(Action::Tick);
        }
        match world.changed {
            [None, _] if world.now == FIRST_AT => actions.push(Action::Change(First)),
            [Some(_), None] if world.now <= SECOND_BY && world.left.webhooks[1] > 0 => {
                actions.push(Action::Change(Second));
            }
            _ => {}
        }
        if world.left.touches > 0 && world.changed[0].is_some() && world.updated < world.now {
            actions.push(Action::Touch);
        }
        let running = world.attempts.iter().position(|attempt| attempt.kind == Kind::Run && attempt.is_alive());
        let last = running.map(|who| (&self.owners[who], time(world.now + 1)));
        let may = may_run(last, &Owner::from_stored("new".into()), time(world.now)) || self.protocol == RunsOverlap;
        if world.left.runs > 0 && may && self.run(world).is_some() {
            actions.push(Action::Run);
        }
        actions.extend(world.in_flight.iter().map(|&(who, request)| Action::ArriveLate(who, request)));

        let mut senders: Vec<_> = world.attempts.iter().copied().enumerate().collect();
        senders.retain(|(_, attempt)| attempt.is_alive());
        let mut senders: Vec<_> = senders.into_iter().map(|(who, attempt)| (Some(who), attempt)).collect();
        let owned = |alert| world.row(alert).is_some_and(|row| row.owner.is_some_and(|owner| world.is_alive(owner)));
        for alert in ALERTS.into_iter().filter(|alert| !owned(*alert)) {
            let is_redriven = world.left.redrives > 0 && world.is_pending(alert);
            senders.extend(is_redriven.then(|| (None, self.new_attempt(Kind::Redrive, alert, None))));
            let is_sent =
                alert != Missed && world.changed[alert as usize].is_some() && world.left.webhooks[alert as usize] > 0;
            senders.extend(is_sent.then(|| (None, self.new_attempt(Kind::Webhook, alert, None))));
        }
        let fates = if world.left.faults > 0 { &FATES[..] } else { &[(true, Hear)] };
        for (who, attempt) in senders {
            if let (Some(who), Step::Publish) = (who, attempt.step) {
                actions.push(Action::FindNoSlot(who));
            }
            let may_be = |fate: &&Fate| match (attempt.step, **fate) {
                (_, (_, Hear)) => true,
                // An attempt that dies before an effect is the same as none. One that dies before
                // its end is the same as one that dies after its last effect.
                (Step::Look | Step::EndBaseline, _) | (Step::Claim, (false, Die)) => false,
                // A lost publish is the same as `FindNoSlot`.
                (Step::Publish, fate) => fate == (true, Die),
                (Step::Lock(_), (_, GiveUp)) => self.protocol == PublishWithoutAnswer && attempt.alert != Baseline,
                // A claim that is given up is the same as a death.
                (step, (_, GiveUp)) => matches!(step, Step::Debounce(..)),
                _ => true,
            };
            actions.extend(fates.iter().filter(may_be).map(|fate| Action::Send(who, attempt, *fate)));
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Tick => world.now += 1,
            Action::Change(change) => {
                world.changed[change as usize] = Some(world.now);
                world.updated = world.now;
            }
            Action::Touch => {
                world.left.touches -= 1;
                world.updated = world.now;
            }
            Action::Run => {
                world.left.runs -= 1;
                let attempt = self.run(&world)?;
                world.add(attempt);
            }
            Action::ArriveLate(who, request) => {
                let sent = world.in_flight.iter().position(|sent| *sent == (who, request))?;
                world.in_flight.swap_remove(sent);
                self.take_effect(&mut world, who, request);
            }
            Action::FindNoSlot(who) => world.attempts[who].step = Step::Over,
            Action::Send(who, attempt, fate) => {
                let who = who.unwrap_or_else(|| {
                    match attempt.kind {
                        Kind::Webhook => world.left.webhooks[attempt.alert as usize] -= 1,
                        _ => world.left.redrives -= 1,
                    }
                    world.add(attempt)
                });
                self.send(&mut world, who, fate);
            }
        }
        world.forget(self.protocol);
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<Property<Self>> = vec![
            // K1, K2 and K5 are checked in every world as if it were the last.
            Property::always(K1, |m: &Self, w: &World| {
                w.is_alerted() || w.rows == [None; 3] || m.redriven(w).all(|w| w.is_alerted())
            }),
            Property::always(K2, |m: &Self, w: &World| {
                let is_baseline = w.baseline != Some(false) || w.known.is_some_and(|known| known.by == Baseline);
                w.is_alerted() || w.changed[0].is_none() || is_baseline || m.saved_by_run(w)
            }),
            Property::always(K3, |_, w: &World| {
                !w.is_published(Missed) || !WEBHOOKS.iter().any(|alert| w.is_published(*alert) && w.run_reports(*alert))
            }),
            Property::always(K4, |m: &Self, w: &World| m.keeps_k4(w)),
            Property::always(K5, |m: &Self, w: &World| {
                let open = |w: &World| WEBHOOKS.iter().any(|alert| w.row(*alert).is_some() && !w.is_reported(*alert));
                !open(w) || m.redriven(w).all(|w| !open(&w))
            }),
            Property::always(K6, |_, w: &World| {
                WEBHOOKS.iter().filter(|alert| w.confirmed[**alert as usize]).all(|alert| {
                    w.is_published(*alert) || ALERTS.iter().any(|other| other != alert && w.row(*other).is_some())
                })
            }),
            // If these cases could not happen, the promises would prove little.
            Property::sometimes("can be missed, and alerted by a run", |_, w: &World| {
                w.is_published(Missed) && w.rows[..2] == [None; 2]
            }),
            Property::sometimes("can be alerted by a redrive after a run has died", |_, w: &World| {
                w.is_published(Missed) && w.row(Missed).is_some_and(|row| row.redriven) && w.left.faults == 0
            }),
            Property::sometimes("can be alerted by a run although a webhook is claimed", |_, w: &World| {
                w.confirmed[0] && w.is_debounced_by(First, (LockKind::Known, Missed)) && w.is_published(Missed)
            }),
            Property::sometimes("can be alerted by a webhook although a run is claimed", |_, w: &World| {
                w.is_debounced_by(Missed, (LockKind::Known, First)) && w.is_published(First)
            }),
            Property::sometimes("can be alerted by a run, and again after a later change", |_, w: &World| {
                w.is_published(Missed) && w.is_published(Second) && !w.is_published(First)
            }),
            Property::sometimes("can be alerted by a run after both changes", |_, w: &World| {
                let suppressed = |alert| w.is_debounced_by(alert, (LockKind::Known, Missed));
                w.run_reports(Second) && suppressed(First) && suppressed(Second)
            }),
            Property::sometimes("can be taken over from a run by a later change", |_, w: &World| {
                w.is_debounced_by(Missed, (LockKind::Known, Second))
                    && w.is_debounced_by(First, (LockKind::Known, Second))
                    && w.is_published(Second)
            }),
            Property::sometimes("can be debounced and known", |_, w: &World| {
                w.is_debounced_by(Second, (LockKind::Debounce, First)) && w.known.is_some_and(|k| k.by == Second)
            }),
            Property::sometimes("can be in the baseline and alerted by a webhook", |_, w: &World| {
                w.baseline == Some(true) && w.start == Start::New && w.is_published(First)
            }),
            Property::sometimes("can be in the baseline and alerted after a change", |_, w: &World| {
                w.start == Start::AlertedBefore && w.baseline == Some(true) && w.is_published(Second)
            }),
        ];
        all.retain(|property| self.promise.is_none_or(|promise| promise == property.name));
        all
    }
}

fn explore(protocol: Protocol, promise: Option<&'static str>, cases: &'static [Case]) -> Option<Wrong<Lead>> {
    let title = format!("{:<22}", format!("{protocol:?}"));
    model::explore(&title, Lead::new(protocol, cases, promise))
}

/// Checks that the real protocol keeps every promise in all cases, and that each other protocol
/// breaks a promise.
#[expect(clippy::print_stdout, reason = "the verdicts are for people to read")]
fn check(cases: &'static [Case], broken: &[Broken]) {
    let _processors = PROCESSORS.blocking_lock();
    println!("\n{:<22}{:>9}{:>7}{:>9}  verdict", "protocol", "worlds", "depth", "time");
    if let Some((name, _)) = explore(Real, None, cases) {
        let (_, way) = explore(Real, Some(name), cases).expect("the second search should find it too");
        panic!("{}", breach(Real, name, &way));
    }
    let explored = broken.iter().map(|&(protocol, promise, cases)| (protocol, explore(protocol, Some(promise), cases)));
    for (protocol, wrong) in explored.collect::<Vec<_>>() {
        let (name, way) = wrong.unwrap_or_else(|| panic!("{protocol:?} should break a promise"));
        println!("{}", breach(protocol, name, &way));
    }
}

#[test]
fn holds_with_two_changes_and_a_fault() {
    check(&SMALL, &BROKEN);
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn full_model_holds() {
    check(&FULL, &[LATE]);
}
