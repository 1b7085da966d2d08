//! A model of one delivery: the claim protocol in every interleaving. The model decides by
//! production's own rules.
//!
//! [`may_claim`] and [`may_finish`] decide whether a request takes effect. Decision and effect are
//! one step, as in a conditional write. Around them, the model follows the steps of `relay` in
//! every possible order:
//!
//! - **Attempts.** SendPilot delivers at any time, after any answer, twice at once, or never again.
//!   Redrives run at any time, side by side, and try any row, because the index may be stale.
//! - **Faults.** A request may never arrive, or arrive at any later time, even if its sender is
//!   dead. The sender gets no answer. It sends the request again under the same token (to the
//!   ledger, not to the topic), gives up, or dies. A lost answer is a request that arrives at once
//!   without an answer. An attempt gives up a completion only at the end of its time. If it gave up
//!   sooner, a second publish would not be excused.
//! - **Pacing.** An attempt that has claimed the alert may find no free slot. It then releases its
//!   claim instead of publishing. `pace_model` models the slots. A slot and a claim share no row,
//!   so a change of one never changes whether a request for the other takes effect.
//! - **Time.** Time passes at any moment. An attempt ends when its time is over. Its lease counts
//!   from the start of the attempt, not from the claim, and outlives the attempt by the margin. Any
//!   two clocks may differ by the margin.
//!
//! The model assumes that an attempt does nothing once its time is over. No two clocks differ by
//! more than the margin, and no token is used twice. A row stays while a request for it may still
//! arrive. Redrives go on forever, and faults do not. Some redrive finds a free slot: `pace_model`
//! says when.
//!
//! The other protocols are plausible alternatives. The checker finds the promise that each of them
//! breaks, so it would also find a broken promise of the real protocol.

use std::fmt;
use std::hash::{Hash, Hasher};

use crate::PROCESSORS;
use crate::support::model::{self, Wrong, breach};
use Protocol::*;
use Then::*;
use opportunity_alerts::delivery::ledger::{MayClaim, MayFinish, Refusal, Row, State, may_claim, may_finish};
use opportunity_alerts::invocation::Owner;
use opportunity_alerts::timestamp::Timestamp;
use stateright::{Model, Property};

const P1: &str = "P1, 2xx only after a publish took effect";
const P2: &str = "P2, a completed delivery is never claimed again";
const P3: &str = "P3, no two live attempts hold the claim";
const P4: &str = "P4, a claimed delivery is published in the end, and completed";
const P5: &str = "P5, a second publish only where proof of one was lost";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Real,
    NoRedrive,
    AnswerFirst,
    SwallowFailure,
    NoSlotIsSuccess,
    RecordThenWork,
    LookThenInsert,
    LeaseAlone,
    CompleteOnce,
    DeleteOnFailure,
    UnconditionalRelease,
    UnconditionalCompletion,
    LeaseShorterThanInvocation,
    LeaseWithoutMargin,
    OneToken,
}

const BROKEN: [(Protocol, &str); 14] = [
    (NoRedrive, P4),                  // relies on SendPilot's retries
    (AnswerFirst, P1),                // answers 2xx before it publishes
    (SwallowFailure, P1),             // answers 2xx after a failure, to prevent a retry
    (NoSlotIsSuccess, P1),            // answers 2xx if no slot is free, and relies on the redrive
    (RecordThenWork, P1),             // records the publish at the claim
    (LookThenInsert, P5),             // has no lease: claims any unpublished delivery
    (LeaseAlone, P2),                 // has no state: claims any delivery without a lease
    (CompleteOnce, P5),               // gives up a completion that fails once
    (DeleteOnFailure, P4),            // deletes the row after a failure
    (UnconditionalRelease, P3),       // releases without checking the owner
    (UnconditionalCompletion, P5),    // completes without checking the owner
    (LeaseShorterThanInvocation, P3), // loses its claim while it still works
    (LeaseWithoutMargin, P3),         // loses its claim to a process with a fast clock
    (OneToken, P3),                   // uses the same owner in every attempt
];

/// The time of an attempt in ticks.
const ALLOWED: u64 = 2;

/// The ticks that a lease outlives its attempt. Each clock is right, or fast by the margin.
const MARGIN: u64 = 1;

/// The part of an attempt's time, in ticks, in which the attempt may give up.
const LAST: u64 = 1;

/// The present. Each tick moves all times into the past, so the model needs no end of time. No time
/// gets below 0. A late claim may therefore be granted although it should be refused. This hides no
/// broken promise, because the claim might also never have arrived.
const NOW: u64 = 1;

/// The highest number of attempts and faults.
#[derive(Debug, Clone, Copy)]
struct Size {
    webhooks: usize,
    redrives: usize,
    faults: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Webhook,
    Redrive,
}

/// The next request of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    Claim,
    Publish,
    Complete,
    Release,
    /// No request, because the attempt has ended or died.
    Over,
}

/// An invocation of the webhook function, or the part of a redrive's run for this delivery. Its
/// place in the world is its owner token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    kind: Kind,
    step: Step,
    /// The ticks until the attempt's time is over.
    left: u64,
    /// The attempt's publish took effect.
    published: bool,
    /// The attempt's completion took effect.
    recorded: bool,
    /// The attempt gave up its completion although it had time to retry.
    gave_up: bool,
    /// The attempt answered SendPilot 2xx.
    confirmed: bool,
}

impl Attempt {
    fn new(kind: Kind, left: u64) -> Self {
        Self { kind, step: Step::Claim, left, published: false, recorded: false, gave_up: false, confirmed: false }
    }

    fn holds_claim(&self) -> bool {
        matches!(self.step, Step::Publish | Step::Complete)
    }

    /// Returns whether the alert is published, but neither the row nor a live attempt knows.
    fn lost_proof(&self) -> bool {
        self.published && !self.recorded && !self.gave_up && self.step != Step::Complete
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Request {
    Claim { now: Timestamp, lease_until: Timestamp },
    Publish,
    Complete,
    Release { now: Timestamp },
}

#[derive(Debug, Clone, PartialEq, Default)]
struct World {
    row: Option<Row>,
    attempts: Vec<Attempt>,
    /// The requests that may still arrive, with their senders.
    in_flight: Vec<(usize, Request)>,
    /// A claim took effect.
    claimed: bool,
    faults: usize,
}

/// The checker takes worlds with the same hash for the same world. The hash ignores the order of
/// the attempts, because the number of worlds would otherwise be several times as large.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let owner = self.row.as_ref().and_then(|row| row.owner.as_str().parse().ok());
        let role = |(who, attempt)| {
            let sent = self.in_flight.iter().filter(|(sender, _)| *sender == who);
            let mut sent: Vec<_> = sent.map(|(_, request)| request).collect();
            sent.sort_unstable();
            (attempt, owner == Some(who), sent)
        };
        let mut roles: Vec<_> = self.attempts.iter().enumerate().map(role).collect();
        roles.sort_unstable();
        let row = self.row.as_ref().map(|row| (row.state, row.lease_until));
        (row, roles, self.claimed, self.faults).hash(hasher);
    }
}

impl World {
    fn count(&self, what: fn(&Attempt) -> bool) -> usize {
        self.attempts.iter().filter(|attempt| what(attempt)).count()
    }

    fn any(&self, what: fn(&Attempt) -> bool) -> bool {
        self.count(what) > 0
    }

    fn completed(&self) -> bool {
        self.row.as_ref().is_some_and(|row| row.state == State::Published)
    }

    fn tick(&mut self) {
        let earlier = |at: &mut Timestamp| *at = Timestamp::from_millis(at.as_millis().saturating_sub(1));
        for attempt in &mut self.attempts {
            attempt.left = attempt.left.saturating_sub(1);
            if attempt.left == 0 {
                attempt.step = Step::Over;
            }
        }
        self.row.iter_mut().for_each(|row| earlier(&mut row.lease_until));
        for (_, request) in &mut self.in_flight {
            match request {
                Request::Claim { now, lease_until } => [now, lease_until].into_iter().for_each(earlier),
                Request::Release { now } => earlier(now),
                Request::Publish | Request::Complete => {}
            }
        }
    }
}

/// The sender's reaction to a request. Everything except `Hear` is a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Hear,
    AskAgain,
    GiveUp,
    Die,
}

/// Whether a request arrives at once, and the sender's reaction. A lost request that is sent again
/// is the same as a request that is sent later.
type Fate = (bool, Then);
const FATES: [Fate; 6] = [(true, Hear), (true, AskAgain), (true, GiveUp), (true, Die), (false, GiveUp), (false, Die)];

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Tick,
    /// An attempt, which may be new, sends the request of its step. Its clock is fast by these
    /// ticks.
    Send(usize, Attempt, u64, Fate),
    ArriveLate(usize, Request),
    /// An attempt that has claimed the alert finds no free slot. This is not a fault.
    FindNoSlot(usize),
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time passes"),
            Self::FindNoSlot(who) => write!(f, "#{who} finds no free slot"),
            Self::ArriveLate(who, request) => write!(f, "late from #{who}: {request:?}"),
            Self::Send(who, Attempt { kind, step, left, .. }, fast, (arrives, then)) => {
                let lost = if *arrives { "" } else { "lost, " };
                write!(f, "#{who} ({kind:?}, {left} left, {fast} fast): {step:?}, {lost}{then:?}")
            }
        }
    }
}

#[derive(Debug, Clone)]
struct Delivery {
    protocol: Protocol,
    size: Size,
    /// The only promise to check, if there is one.
    promise: Option<&'static str>,
}

impl Delivery {
    fn request(&self, attempt: Attempt, fast: u64) -> Request {
        let at = |ticks| Timestamp::from_millis(NOW + fast + ticks);
        let lease = match self.protocol {
            LeaseShorterThanInvocation => attempt.left - 1,
            LeaseWithoutMargin => attempt.left,
            _ => attempt.left + MARGIN,
        };
        match attempt.step {
            Step::Claim => Request::Claim { now: at(0), lease_until: at(lease) },
            Step::Publish => Request::Publish,
            Step::Complete => Request::Complete,
            Step::Release => Request::Release { now: at(0) },
            Step::Over => unreachable!("the attempt is over"),
        }
    }

    /// Applies a request to the table or the topic. Returns the sender's next step if it hears the
    /// answer, and whether it answers SendPilot 2xx.
    fn take_effect(&self, world: &mut World, who: usize, request: Request) -> (Step, bool) {
        let me = Owner::from_stored(if self.protocol == OneToken { 0 } else { who }.to_string());
        let (row, attempt) = (&mut world.row, &mut world.attempts[who]);
        match request {
            Request::Claim { .. } if row.is_none() && attempt.kind == Kind::Redrive => (Step::Over, false),
            Request::Claim { now, lease_until } => {
                // The table's condition does not use the owner. The interpretation of a refusal
                // does.
                let granted = match self.protocol {
                    LookThenInsert => row.as_ref().is_none_or(|row| row.state == State::Pending),
                    LeaseAlone => row.as_ref().is_none_or(|row| row.lease_until <= now),
                    _ => may_claim(row.as_ref(), None, &Owner::from_stored("anyone".into()), now) == MayClaim::Yes,
                };
                let may = if granted { MayClaim::Yes } else { may_claim(row.as_ref(), None, &me, now) };
                if granted {
                    let state = if self.protocol == RecordThenWork { State::Published } else { State::Pending };
                    *row = Some(Row { state, owner: me, lease_until, content_sha256: None });
                    world.claimed = true;
                }
                match may {
                    MayClaim::Yes | MayClaim::Mine => (Step::Publish, self.protocol == AnswerFirst),
                    MayClaim::No(Refusal::InProgress { .. }) => (Step::Over, false),
                    MayClaim::No(Refusal::Done) => (Step::Over, true),
                    MayClaim::No(Refusal::BodyMismatch) => unreachable!("there is only one event"),
                }
            }
            Request::Publish => {
                attempt.published = true;
                (Step::Complete, false)
            }
            Request::Complete => {
                if self.protocol == UnconditionalCompletion || may_finish(row.as_ref(), &me) == MayFinish::Yes {
                    row.iter_mut().for_each(|row| row.state = State::Published);
                    attempt.recorded = true;
                }
                (Step::Over, true)
            }
            Request::Release { now } => {
                if self.protocol == UnconditionalRelease || may_finish(row.as_ref(), &me) == MayFinish::Yes {
                    row.iter_mut().for_each(|row| row.lease_until = now);
                    row.take_if(|_| self.protocol == DeleteOnFailure);
                }
                (Step::Over, self.protocol == SwallowFailure)
            }
        }
    }

    fn send(&self, world: &mut World, who: usize, fast: u64, (arrives, then): Fate) {
        let attempt = world.attempts[who];
        let request = self.request(attempt, fast);
        let (step, confirmed) = match (then, attempt.step) {
            (Hear, _) => self.take_effect(world, who, request),
            (AskAgain, step) => (step, false),
            (GiveUp, Step::Publish) => (Step::Release, false),
            (GiveUp, Step::Complete) => (Step::Over, true),
            (GiveUp, _) => (Step::Over, self.protocol == SwallowFailure),
            (Die, _) => (Step::Over, false),
        };
        if then != Hear {
            world.faults += 1;
            world.in_flight.extend(arrives.then_some((who, request)));
        }
        let attempt = &mut world.attempts[who];
        attempt.gave_up = (then, attempt.step) == (GiveUp, Step::Complete) && attempt.left > LAST;
        attempt.step = step;
        attempt.confirmed |= confirmed && attempt.kind == Kind::Webhook;
        if step == Step::Over {
            attempt.left = 0;
        }
    }

    /// Returns whether a redrive publishes the delivery if every attempt dies now, no more requests
    /// arrive, and SendPilot never retries.
    fn saved_by_redrive(&self, world: &World) -> bool {
        let mut world = World { in_flight: Vec::new(), ..world.clone() };
        for _ in 0..ALLOWED + 2 * MARGIN {
            world.tick();
        }
        let who = world.attempts.len();
        world.attempts.push(Attempt::new(Kind::Redrive, ALLOWED));
        while self.protocol != NoRedrive && world.attempts[who].step != Step::Over {
            self.send(&mut world, who, 0, (true, Hear));
        }
        world.any(|a| a.published) && world.completed()
    }
}

impl Model for Delivery {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World::default()]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let mut senders: Vec<_> = world.attempts.iter().copied().enumerate().collect();
        senders.retain(|(_, attempt)| attempt.step != Step::Over);
        for (kind, most) in [(Kind::Webhook, self.size.webhooks), (Kind::Redrive, self.size.redrives)] {
            if world.attempts.iter().filter(|attempt| attempt.kind == kind).count() < most {
                // An attempt enters the world with its first request, at any time of its life,
                // because its start has no effect.
                senders.extend((1..=ALLOWED).map(|left| (world.attempts.len(), Attempt::new(kind, left))));
            }
        }
        actions.push(Action::Tick);
        actions.extend(world.in_flight.iter().map(|&(who, request)| Action::ArriveLate(who, request)));
        let fates = if world.faults < self.size.faults { &FATES[..] } else { &[(true, Hear)] };
        for (who, attempt) in senders {
            if attempt.step == Step::Publish {
                actions.push(Action::FindNoSlot(who));
            }
            let reads_clock = matches!(attempt.step, Step::Claim | Step::Release);
            for fast in 0..=if reads_clock { MARGIN } else { 0 } {
                let may_be = |fate: &&Fate| match (fate.1, attempt.step) {
                    (AskAgain, Step::Publish) => false,
                    (GiveUp, Step::Complete) => attempt.left <= LAST || self.protocol == CompleteOnce,
                    _ => true,
                };
                actions.extend(fates.iter().filter(may_be).map(|fate| Action::Send(who, attempt, fast, *fate)));
            }
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        match action {
            Action::Tick => world.tick(),
            Action::ArriveLate(who, request) => {
                let sent = world.in_flight.iter().position(|sent| *sent == (who, request))?;
                world.in_flight.swap_remove(sent);
                self.take_effect(&mut world, who, request);
            }
            Action::FindNoSlot(who) => {
                let attempt = &mut world.attempts[who];
                attempt.step = Step::Release;
                attempt.confirmed |= self.protocol == NoSlotIsSuccess && attempt.kind == Kind::Webhook;
            }
            Action::Send(who, attempt, fast, fate) => {
                if who == world.attempts.len() {
                    world.attempts.push(attempt);
                }
                self.send(&mut world, who, fast, fate);
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<Property<Self>> = vec![
            Property::always(P1, |_, w: &World| w.any(|a| a.published) || !w.any(|a| a.confirmed)),
            Property::always(P2, |_, w: &World| w.completed() || !w.any(|a| a.recorded)),
            Property::always(P3, |_, w: &World| w.count(Attempt::holds_claim) <= 1),
            // Checked in every world as if it were the last. stateright's `eventually` would need
            // paths that end, and overlooks violations where paths meet.
            Property::always(P4, |model: &Self, w: &World| {
                !w.claimed || w.completed() && w.any(|a| a.published) || model.saved_by_redrive(w)
            }),
            // If a late publish comes second, its own proof is the lost one.
            Property::always(P5, |_, w: &World| w.count(|a| a.published) <= 1 + w.count(Attempt::lost_proof)),
            // If these cases could not happen, the promises would prove little.
            Property::sometimes("can be alerted", |_, w: &World| w.any(|a| a.confirmed && a.recorded)),
            Property::sometimes("can be a duplicate", |_, w: &World| w.any(|a| a.confirmed && !a.published)),
            Property::sometimes("can be alerted and stay uncompleted", |_, w: &World| {
                w.any(|a| a.confirmed && a.lost_proof())
            }),
            Property::sometimes("can be taken over by a redrive", |_, w: &World| {
                w.any(|a| a.kind == Kind::Redrive && a.holds_claim())
            }),
            Property::sometimes("can be taken over by a webhook and published twice", |_, w: &World| {
                w.any(Attempt::lost_proof) && w.any(|a| a.kind == Kind::Webhook && a.recorded)
            }),
            // Without a fault, nothing else leads to a release.
            Property::sometimes("can find no slot", |_, w: &World| w.faults == 0 && w.any(|a| a.step == Step::Release)),
            Property::sometimes("can be published late, after a completion", |_, w: &World| {
                w.completed() && w.in_flight.iter().any(|(_, request)| *request == Request::Publish)
            }),
        ];
        all.retain(|property| self.promise.is_none_or(|promise| promise == property.name));
        all
    }
}

fn explore(protocol: Protocol, promise: Option<&'static str>, size: Size) -> Option<Wrong<Delivery>> {
    let title = format!("{:<27}", format!("{protocol:?}"));
    model::explore(&title, Delivery { protocol, size, promise })
}

/// Checks that the real protocol keeps every promise, and that each other protocol breaks one.
#[expect(clippy::print_stdout, reason = "the verdicts are for people to read")]
fn check(size: Size) {
    let _processors = PROCESSORS.blocking_lock();
    println!("\n{size:?}\n{:<27}{:>9}{:>7}{:>9}  verdict", "protocol", "worlds", "depth", "time");
    if let Some((name, _)) = explore(Real, None, size) {
        let (_, way) = explore(Real, Some(name), size).expect("the second search should find it too");
        panic!("{}", breach(Real, name, &way));
    }
    let broken = BROKEN.map(|(protocol, promise)| (protocol, explore(protocol, Some(promise), size)));
    for (protocol, wrong) in broken {
        let (name, way) = wrong.unwrap_or_else(|| panic!("{protocol:?} should break a promise"));
        println!("{}", breach(protocol, name, &way));
    }
}

#[test]
fn holds_with_two_webhooks_a_redrive_and_two_faults() {
    check(Size { webhooks: 2, redrives: 1, faults: 2 });
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn full_model_holds() {
    check(Size { webhooks: 3, redrives: 2, faults: 3 });
}
