//! A model of the slots of [`pace`](opportunity_alerts::delivery::pace) in every interleaving.
//! Several attempts each have their own alert to publish. Property tests of the slots follow the
//! model.
//!
//! The model decides by production's own functions: [`may_take_slot`] and the functions of
//! [`AlertRate`] and [`Slot`]. The check of a slot and its effect are one step, as in a conditional
//! write. Around them, the model follows `Relay::wait_for_slot`:
//!
//! - **Attempts.** Webhooks and redrives begin at any time, side by side. Each asks for the slot in
//!   which it begins. If the slot belongs to another attempt, it asks for the next one. An attempt
//!   takes no slot that starts after its reach. A redrive's reach is one second longer than a
//!   webhook's, as in production.
//! - **Faults.** A request takes effect, but its answer is lost. Or the request takes effect at any
//!   later time, or never. Its sender then asks for the same slot again, at once or at any later
//!   time. A late answer is the same as a late second request, because the row has not changed
//!   since. An attempt can stop for any time while its publish is due. It can die or give up at any
//!   point.
//! - **Time.** Time passes in steps of half a slot. An attempt without a fault takes each step as
//!   soon as possible, so only a fault makes an attempt late. All other attempts are in time.
//!
//! The model assumes that clocks agree and that no owner is used twice. A slot's row stays while a
//! request for it may still arrive. A publish starts when the attempt checks whether its slot is
//! usable. If two clocks differ, the window in the promises is longer by the difference.
//!
//! The other protocols are plausible alternatives. The checker finds the promise that each of them
//! breaks.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::time::Duration;

use crate::PROCESSORS;
use crate::support::model::{self, Wrong, breach};
use Protocol::*;
use opportunity_alerts::delivery::ledger::may_take_slot;
use opportunity_alerts::delivery::pace::{AlertRate, Slot};
use opportunity_alerts::delivery::relay::DELIVERY_TIME;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::invocation::Owner;
use opportunity_alerts::timestamp::Timestamp;
use proptest::prelude::*;
use stateright::{Model, Property};

const A: &str = "A, no two publishes use the same slot";
const B: &str = "B, no second has more publishes than twice the rate";
const C: &str = "C, attempts in time publish at most one more than the rate in a second";
const D: &str = "D, an attempt in time finds no slot only if others have every slot in its reach";
const E: &str = "E, a redrive in time gets a slot, even if webhooks take all that they reach";
const F: &str = "F, attempts in time get slots in the order in which they begin";

#[derive(Debug, Clone, Copy, PartialEq)]
enum Protocol {
    Real,
    EachForItself,
    LookThenTake,
    OneOwner,
    ForgetSlotAtItsEnd,
    TrustLateAnswer,
    CountPerSecond,
    NotAgainForItsOwner,
    PollCurrentSlot,
    RedriveReachesNoFurther,
}

const SECOND: Duration = Duration::from_secs(1);

/// The start of time, at a whole second.
const START: Timestamp = Timestamp::from_millis(1_767_225_600_000);

/// The highest number of attempts and faults, at one rate.
#[derive(Debug, Clone, Copy)]
struct Size {
    rate: u64,
    webhooks: usize,
    redrives: usize,
    faults: usize,
    /// The longest time from the start of a webhook's attempt to its slot, in milliseconds.
    reach: u64,
    /// The latest start of an attempt, in milliseconds.
    last: u64,
}

/// The sizes at which the real protocol keeps every promise in `make test`. The second size has
/// slots of half a second, because a slot can then be used while later slots are used.
const SMALL: [Size; 2] = [
    Size { rate: 1, webhooks: 3, redrives: 1, faults: 1, reach: 1000, last: 1000 },
    Size { rate: 2, webhooks: 3, redrives: 1, faults: 1, reach: 1250, last: 750 },
];

/// The sizes in `make model`.
const FULL: [Size; 3] = [
    Size { rate: 1, webhooks: 3, redrives: 1, faults: 2, reach: 2000, last: 1000 },
    Size { rate: 1, webhooks: 2, redrives: 2, faults: 2, reach: 1000, last: 1000 },
    Size { rate: 2, webhooks: 4, redrives: 1, faults: 1, reach: 1250, last: 750 },
];

/// A protocol, a promise that it breaks, and a size that shows it.
type Broken = (Protocol, &'static str, Size);

const FOUR: Size = SMALL[0];
const NO_FAULT: Size = Size { faults: 0, ..FOUR };

const BROKEN: [Broken; 10] = [
    // Reads the row, and then writes without a condition.
    (LookThenTake, A, NO_FAULT),
    // Uses the same owner in every attempt.
    (OneOwner, A, NO_FAULT),
    // Deletes the row when the slot ends, although the slot can still be used.
    (ForgetSlotAtItsEnd, A, SMALL[1]),
    // Keeps the pace separately in each process.
    (EachForItself, B, NO_FAULT),
    // Publishes without checking the time again.
    (TrustLateAnswer, B, Size { redrives: 0, faults: 2, ..FOUR }),
    // Takes one of `rate` places in a calendar second, and publishes at once.
    (CountPerSecond, C, Size { rate: 2, webhooks: 4, redrives: 0, faults: 0, reach: 1250, last: 1000 }),
    // Refuses an attempt its own slot if the attempt asks again.
    (NotAgainForItsOwner, D, FOUR),
    // Takes no slot in advance, but asks again at the start of the next slot. A newer attempt can
    // overtake.
    (PollCurrentSlot, F, NO_FAULT),
    // Newer attempts can overtake until an attempt's time is over.
    (PollCurrentSlot, E, Size { last: 2000, ..NO_FAULT }),
    // Gives a redrive no more time than a webhook.
    (RedriveReachesNoFurther, E, NO_FAULT),
];

/// If answers are late, a count per calendar second does not even limit the pace to twice the rate.
const COUNTS_LATE: Broken =
    (CountPerSecond, B, Size { rate: 2, webhooks: 5, redrives: 0, faults: 1, reach: 1250, last: 1250 });

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Webhook,
    Redrive,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Step {
    /// The attempt asks for this slot. If it heard no answer, it has asked since `since`.
    Ask {
        slot: Slot,
        since: Timestamp,
    },
    /// The attempt has read that this slot is free. Only `LookThenTake` has this step.
    Take(Slot),
    /// The attempt has this slot and waits for the slot's start.
    Wait {
        slot: Slot,
        since: Timestamp,
    },
    Published {
        slot: Slot,
        at: Timestamp,
    },
    /// The attempt found no slot in its reach, and has released its claim.
    NoSlot,
    /// The attempt is dead, or heard no answer before its time was over.
    Gone,
}

/// One invocation of the webhook function, or one delivery in a run of the redrive. Its place in
/// the world is its owner token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Attempt {
    kind: Kind,
    began: Timestamp,
    step: Step,
    /// A fault lets time pass before the attempt's next step.
    stopped: bool,
    /// Time has passed although the attempt had a step to do.
    late: bool,
}

impl Attempt {
    fn new(kind: Kind, began: Timestamp) -> Self {
        Self { kind, began, step: Step::Gone, stopped: false, late: false }
    }

    fn is_alive(&self) -> bool {
        matches!(self.step, Step::Ask { .. } | Step::Take(_) | Step::Wait { .. })
    }

    fn published(&self) -> Option<(Slot, Timestamp)> {
        match self.step {
            Step::Published { slot, at } => Some((slot, at)),
            _ => None,
        }
    }

    /// Returns the slot that the attempt has used, or knows that it has.
    fn has(&self) -> Option<Slot> {
        match self.step {
            Step::Wait { slot, .. } | Step::Published { slot, .. } => Some(slot),
            _ => None,
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
struct World {
    now: Timestamp,
    /// The rows: the attempt that has each slot.
    slots: BTreeMap<Slot, usize>,
    attempts: Vec<Attempt>,
    /// The requests that may still arrive, with their senders.
    in_flight: Vec<(usize, Slot)>,
    faults: usize,
}

/// The checker takes worlds with the same hash for the same world. The hash ignores the order of
/// the attempts, and the past of an attempt that ended without a publish.
impl Hash for World {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        let role = |(who, attempt): (usize, &Attempt)| {
            let has_none = matches!(attempt.step, Step::NoSlot | Step::Gone);
            let attempt =
                if has_none { Attempt { step: attempt.step, ..Attempt::new(attempt.kind, START) } } else { *attempt };
            let has: Vec<_> = self.slots.iter().filter(|(_, owner)| **owner == who).map(|(slot, _)| slot).collect();
            let mut sent: Vec<_> = self.in_flight.iter().filter(|(sender, _)| *sender == who).collect();
            sent.sort_unstable();
            (attempt, has, sent.into_iter().map(|(_, slot)| slot).collect::<Vec<_>>())
        };
        let mut roles: Vec<_> = self.attempts.iter().enumerate().map(role).collect();
        roles.sort_unstable();
        (self.now, roles, self.faults).hash(hasher);
    }
}

impl World {
    fn any(&self, what: impl Fn(&Attempt) -> bool) -> bool {
        self.attempts.iter().any(what)
    }

    /// Returns the attempts that no fault has made late.
    fn in_time(&self) -> impl Iterator<Item = &Attempt> + Clone {
        self.attempts.iter().filter(|attempt| !attempt.late)
    }

    fn slots_of(&self, who: usize) -> usize {
        self.slots.values().filter(|owner| **owner == who).count()
    }
}

/// Returns the highest number of publishes in any window of one second. Only windows that begin
/// with a publish matter.
fn most_in_a_second<'a>(attempts: impl Iterator<Item = &'a Attempt> + Clone) -> u64 {
    let times = attempts.filter_map(|attempt| Some(attempt.published()?.1));
    let within = |from: Timestamp| times.clone().filter(|at| from <= *at && at.since(from) < SECOND).count() as u64;
    times.clone().map(within).max().unwrap_or_default()
}

/// The end of a request for a slot. Everything except `Hear` is a fault.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Hear,
    /// The request takes effect now, but its answer is lost.
    Unheard,
    /// The request takes effect later, or never.
    Delay,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Action {
    Tick,
    Begin(Kind),
    Ask(usize, Slot, Fate),
    /// The attempt writes the slot's row without a condition.
    Take(usize, Slot),
    ArriveLate(usize, Slot),
    /// The attempt publishes if its slot is usable.
    Start(usize),
    /// The attempt does nothing although its slot has started. It continues at any later time.
    Stop(usize),
    Die(usize),
}

fn at(moment: Timestamp) -> u128 {
    moment.since(START).as_millis()
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tick => write!(f, "time passes"),
            Self::Begin(kind) => write!(f, "a {kind:?} begins"),
            Self::Ask(who, slot, fate) => write!(f, "#{who} asks for slot {} ms: {fate:?}", at(slot.start())),
            Self::Take(who, slot) => write!(f, "#{who} takes slot {} ms", at(slot.start())),
            Self::ArriveLate(who, slot) => write!(f, "late from #{who}: slot {} ms", at(slot.start())),
            Self::Start(who) => write!(f, "#{who} publishes if its slot is usable"),
            Self::Stop(who) => write!(f, "#{who} stops"),
            Self::Die(who) => write!(f, "#{who} dies"),
        }
    }
}

#[derive(Debug, Clone)]
struct Burst {
    protocol: Protocol,
    size: Size,
    rate: AlertRate,
    owners: Vec<Owner>,
    /// The only promise to check, if there is one.
    promise: Option<&'static str>,
}

impl Burst {
    fn new(protocol: Protocol, size: Size, promise: Option<&'static str>) -> Self {
        let owners = (0..size.webhooks + size.redrives).map(|who| Owner::new("attempt", who.to_be_bytes()));
        let rate = AlertRate::new(size.rate).expect("a rate");
        Self { protocol, size, rate, owners: owners.collect(), promise }
    }

    fn tick(&self) -> Duration {
        SECOND / 2 / u32::try_from(self.size.rate).expect("the rate should be small")
    }

    fn owner(&self, who: usize) -> &Owner {
        &self.owners[if self.protocol == OneOwner { 0 } else { who }]
    }

    /// Returns the latest start of a slot that an attempt may take.
    fn reach(&self, kind: Kind, began: Timestamp) -> Timestamp {
        let webhook = began.after(Duration::from_millis(self.size.reach));
        match kind {
            Kind::Redrive if self.protocol != RedriveReachesNoFurther => webhook.after(SECOND),
            _ => webhook,
        }
    }

    /// Makes the attempt ask for this slot next, if the slot is in reach.
    fn seek(&self, attempt: &mut Attempt, slot: Slot, now: Timestamp) {
        attempt.step = match slot.start() > self.reach(attempt.kind, attempt.began) {
            true => Step::NoSlot,
            false => Step::Ask { slot, since: now },
        };
    }

    fn may_take(&self, world: &World, who: usize, slot: Slot) -> bool {
        let holder = world.slots.get(&slot).map(|holder| self.owner(*holder));
        match self.protocol {
            EachForItself => true,
            NotAgainForItsOwner => holder.is_none(),
            _ => may_take_slot(holder, self.owner(who)),
        }
    }

    /// Applies a request to the table. Returns whether the attempt has the slot.
    fn take_effect(&self, world: &mut World, who: usize, slot: Slot) -> bool {
        let may_take = self.may_take(world, who, slot);
        if may_take && self.protocol != LookThenTake {
            world.slots.insert(slot, who);
        }
        may_take
    }

    fn ask(&self, world: &mut World, who: usize, slot: Slot, fate: Fate) {
        if fate != Fate::Hear {
            world.faults += 1;
            world.attempts[who].stopped = true;
        }
        match fate {
            Fate::Hear => {
                let has_slot = self.take_effect(world, who, slot);
                self.hear(&mut world.attempts[who], slot, has_slot, world.now);
            }
            Fate::Unheard => {
                self.take_effect(world, who, slot);
            }
            Fate::Delay => world.in_flight.push((who, slot)),
        }
    }

    fn hear(&self, attempt: &mut Attempt, slot: Slot, has_slot: bool, now: Timestamp) {
        let Step::Ask { since, .. } = attempt.step else { unreachable!("it asked") };
        attempt.stopped = false;
        match has_slot {
            true if self.protocol == LookThenTake => attempt.step = Step::Take(slot),
            true => attempt.step = Step::Wait { slot, since },
            false => self.seek(attempt, self.rate.next(slot).max(self.rate.slot_at(now)), now),
        }
    }

    fn start(&self, attempt: &mut Attempt, now: Timestamp) {
        let Step::Wait { slot, since } = attempt.step else { unreachable!("only an attempt with a slot starts") };
        attempt.stopped = false;
        if slot.is_usable(now) || self.protocol == TrustLateAnswer {
            attempt.step = Step::Published { slot, at: now };
        } else {
            self.seek(attempt, self.rate.slot_at(now.after(now.since(since))), now);
        }
    }

    /// Returns whether the attempt has a step to do now.
    fn is_due(&self, attempt: &Attempt, now: Timestamp) -> bool {
        match attempt.step {
            Step::Ask { slot, .. } => self.protocol != PollCurrentSlot || slot.start() <= now,
            Step::Take(_) => true,
            Step::Wait { slot, .. } if self.protocol == CountPerSecond => slot.start().as_secs() <= now.as_secs(),
            Step::Wait { slot, .. } => slot.start() <= now,
            Step::Published { .. } | Step::NoSlot | Step::Gone => false,
        }
    }

    fn pass(&self, world: &mut World) {
        let later = world.now.after(self.tick());
        for attempt in &mut world.attempts {
            attempt.late |= self.is_due(attempt, world.now);
            let can_publish = match attempt.step {
                Step::Wait { slot, .. } => slot.is_usable(later),
                _ => false,
            };
            if attempt.is_alive() && !can_publish && later > self.reach(attempt.kind, attempt.began) {
                attempt.step = Step::Gone;
            }
        }
        if self.protocol == ForgetSlotAtItsEnd {
            world.slots.retain(|slot, _| self.rate.next(*slot).start() > later);
        }
        world.now = later;
    }

    /// Returns all slots that an attempt can take.
    fn in_reach(&self, attempt: &Attempt) -> impl Iterator<Item = Slot> {
        let reach = self.reach(attempt.kind, attempt.began);
        let slots = std::iter::successors(Some(self.rate.slot_at(attempt.began)), |slot| Some(self.rate.next(*slot)));
        slots.take_while(move |slot| slot.start() <= reach)
    }

    fn keeps_d(&self, world: &World) -> bool {
        world.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.late).all(|(who, attempt)| {
            let is_others = |slot| world.slots.get(&slot).is_some_and(|owner| *owner != who);
            let is_over = world.now > self.reach(attempt.kind, attempt.began);
            match attempt.step {
                Step::NoSlot => self.in_reach(attempt).all(is_others),
                _ => !(is_over && attempt.is_alive()),
            }
        })
    }

    /// A redrive finds no slot only if redrives have every slot that no webhook could reach when
    /// the redrive began.
    fn keeps_e(&self, world: &World) -> bool {
        let is_redrive = |who: &usize| world.attempts[*who].kind == Kind::Redrive;
        world.in_time().filter(|a| (a.kind, a.step) == (Kind::Redrive, Step::NoSlot)).all(|attempt| {
            let redrives = world
                .slots
                .iter()
                .filter(|(slot, who)| slot.start() > self.reach(Kind::Webhook, attempt.began) && is_redrive(who));
            redrives.count() as u64 >= self.size.rate
        })
    }

    fn keeps_f(&self, world: &World) -> bool {
        let slots = world.in_time().filter_map(|attempt| Some((attempt.began, attempt.has()?)));
        let mut pairs = slots.clone().flat_map(|first| slots.clone().map(move |second| (first, second)));
        pairs.all(|(first, second)| first.0 >= second.0 || first.1 < second.1)
    }
}

impl Model for Burst {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World { now: START, slots: BTreeMap::new(), attempts: Vec::new(), in_flight: Vec::new(), faults: 0 }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        let has_faults = world.faults < self.size.faults;
        let mut goes_on = false;
        if at(world.now) <= u128::from(self.size.last) {
            for (kind, most) in [(Kind::Webhook, self.size.webhooks), (Kind::Redrive, self.size.redrives)] {
                if world.attempts.iter().filter(|attempt| attempt.kind == kind).count() < most {
                    actions.push(Action::Begin(kind));
                    goes_on = true;
                }
            }
        }
        actions.extend(world.in_flight.iter().map(|&(who, slot)| Action::ArriveLate(who, slot)));
        for (who, attempt) in world.attempts.iter().enumerate().filter(|(_, attempt)| attempt.is_alive()) {
            goes_on = true;
            if has_faults {
                actions.push(Action::Die(who));
            }
            if !self.is_due(attempt, world.now) {
                continue;
            }
            match attempt.step {
                Step::Ask { slot, .. } => {
                    let fates = [Fate::Hear, Fate::Unheard, Fate::Delay];
                    let fates = fates.into_iter().filter(|fate| *fate == Fate::Hear || has_faults);
                    actions.extend(fates.map(|fate| Action::Ask(who, slot, fate)));
                }
                Step::Take(slot) => actions.push(Action::Take(who, slot)),
                _ => {
                    actions.push(Action::Start(who));
                    if has_faults && !attempt.stopped {
                        actions.push(Action::Stop(who));
                    }
                }
            }
        }
        if goes_on && !world.any(|attempt| !attempt.stopped && self.is_due(attempt, world.now)) {
            actions.push(Action::Tick);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut world = world.clone();
        let now = world.now;
        match action {
            Action::Tick => self.pass(&mut world),
            Action::Begin(kind) => {
                let mut attempt = Attempt::new(kind, now);
                self.seek(&mut attempt, self.rate.slot_at(now), now);
                world.attempts.push(attempt);
            }
            Action::Ask(who, slot, fate) => self.ask(&mut world, who, slot, fate),
            Action::Take(who, slot) => {
                world.slots.insert(slot, who);
                world.attempts[who].step = Step::Wait { slot, since: now };
            }
            Action::ArriveLate(who, slot) => {
                let sent = world.in_flight.iter().position(|sent| *sent == (who, slot))?;
                world.in_flight.swap_remove(sent);
                self.take_effect(&mut world, who, slot);
            }
            Action::Start(who) => self.start(&mut world.attempts[who], now),
            Action::Stop(who) => {
                world.faults += 1;
                world.attempts[who].stopped = true;
            }
            Action::Die(who) => {
                world.faults += 1;
                world.attempts[who].step = Step::Gone;
            }
        }
        Some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut all: Vec<Property<Self>> = vec![
            Property::always(A, |_, w: &World| {
                let mut used: Vec<_> = w.attempts.iter().filter_map(|a| Some(a.published()?.0)).collect();
                used.sort_unstable();
                used.windows(2).all(|two| two[0] != two[1])
            }),
            Property::always(B, |m: &Self, w: &World| most_in_a_second(w.attempts.iter()) <= 2 * m.size.rate),
            Property::always(C, |m: &Self, w: &World| most_in_a_second(w.in_time()) <= m.size.rate + 1),
            Property::always(D, |m: &Self, w: &World| m.keeps_d(w)),
            Property::always(E, |m: &Self, w: &World| m.keeps_e(w)),
            Property::always(F, |m: &Self, w: &World| m.keeps_f(w)),
            // If these cases could not happen, the promises would prove little.
            Property::sometimes("can be as fast as B allows", |m: &Self, w: &World| {
                most_in_a_second(w.attempts.iter()) == 2 * m.size.rate
            }),
            Property::sometimes("can be as fast as C allows", |m: &Self, w: &World| {
                most_in_a_second(w.in_time()) == m.size.rate + 1
            }),
            Property::sometimes("can find no slot", |_, w: &World| {
                w.faults == 0 && w.any(|a| (a.kind, a.step) == (Kind::Webhook, Step::NoSlot))
            }),
            Property::sometimes("can reach a slot that no webhook could", |m: &Self, w: &World| {
                w.any(|a| a.published().is_some_and(|(slot, _)| slot.start() > m.reach(Kind::Webhook, a.began)))
            }),
            Property::sometimes("can come too late for one slot and publish in another", |_, w: &World| {
                w.attempts.iter().enumerate().any(|(who, a)| a.published().is_some() && w.slots_of(who) > 1)
            }),
            Property::sometimes("can publish in time despite a fault", |_, w: &World| {
                w.any(|a| !a.late && a.published().is_some()) && w.faults > 0
            }),
            Property::sometimes("can take a slot and die", |_, w: &World| {
                w.attempts.iter().enumerate().any(|(who, a)| a.step == Step::Gone && w.slots_of(who) > 0)
            }),
        ];
        all.retain(|property| self.promise.is_none_or(|promise| promise == property.name));
        all
    }
}

fn explore(protocol: Protocol, promise: Option<&'static str>, size: Size) -> Option<Wrong<Burst>> {
    let title = format!("{:<24}{:>5}", format!("{protocol:?}"), size.rate);
    model::explore(&title, Burst::new(protocol, size, promise))
}

/// Checks that the real protocol keeps every promise at every size, and that each other protocol
/// breaks a promise.
#[expect(clippy::print_stdout, reason = "the verdicts are for people to read")]
fn check(sizes: &[Size], broken: &[Broken]) {
    let _processors = PROCESSORS.blocking_lock();
    println!("\n{:<24}{:>5}{:>9}{:>7}{:>9}  verdict", "protocol", "rate", "worlds", "depth", "time");
    for &size in sizes {
        if let Some((name, _)) = explore(Real, None, size) {
            let (_, way) = explore(Real, Some(name), size).expect("the second search should find it too");
            panic!("{}", breach(Real, name, &way));
        }
    }
    let explored = broken.iter().map(|&(protocol, promise, size)| (protocol, explore(protocol, Some(promise), size)));
    for (protocol, wrong) in explored.collect::<Vec<_>>() {
        let (name, way) = wrong.unwrap_or_else(|| panic!("{protocol:?} should break a promise"));
        println!("{}", breach(protocol, name, &way));
    }
}

#[test]
fn holds_with_four_attempts_and_a_fault() {
    check(&SMALL, &BROKEN);
}

#[test]
#[ignore = "takes minutes: `make model`"]
fn full_model_holds() {
    check(&FULL, &[COUNTS_LATE]);
}

/// The model assumes this of the timeouts in the template.
#[tokio::test(start_paused = true)]
async fn a_redrive_reaches_one_second_further_than_a_webhook() {
    let invocation = |function: &str| {
        let timeout = crate::support::template::function(function)["Timeout"].as_u64().expect("a timeout");
        Invocation::new("request-1", START.after(Duration::from_secs(timeout)), START, [0; 8])
    };
    let webhook = invocation("WebhookFunction").schedule().pace_by;
    let redrive = invocation("RedriveFunction")
        .part(0, DELIVERY_TIME)
        .expect("there should be time for a delivery")
        .schedule()
        .pace_by;
    assert!(redrive - webhook >= SECOND, "webhooks could take every slot in a redrive's reach");
}

/// Returns the slot's bounds, in milliseconds.
fn bounds(rate: AlertRate, slot: Slot) -> (u64, u64) {
    (slot.start().as_millis(), rate.next(slot).start().as_millis())
}

fn rates() -> impl Strategy<Value = u64> {
    1..=AlertRate::MAX
}

/// Generates any moment, and often a moment next to the bound of a second or a slot.
fn moments() -> impl Strategy<Value = u64> {
    let realistic = START.as_millis()..2 * START.as_millis();
    prop_oneof![any::<u64>(), realistic, (0..10_000_u64), (0..10_000_u64).prop_map(|early| u64::MAX - early)]
}

proptest! {
    #[test]
    fn every_moment_lies_in_one_slot(rate in rates(), now in moments()) {
        let rate = AlertRate::new(rate).expect("a rate");
        let slot = rate.slot_at(Timestamp::from_millis(now));
        let (start, end) = bounds(rate, slot);
        prop_assert!(start <= now);
        prop_assert!(now < end || end == u64::MAX);
        prop_assert_eq!(rate.slot_at(slot.start()), slot);
    }

    /// At the end of time there is no later slot. A request for the same slot is refused, because
    /// the slot is taken.
    #[test]
    fn the_next_slot_is_later_and_adjoins(rate in rates(), now in moments()) {
        let rate = AlertRate::new(rate).expect("a rate");
        let slot = rate.slot_at(Timestamp::from_millis(now));
        let next = rate.next(slot);
        prop_assert!(next > slot || next.start().as_millis() == u64::MAX);
        let before = Timestamp::from_millis(next.start().as_millis() - 1);
        prop_assert!(rate.slot_at(before) == slot || next.start().as_millis() == u64::MAX);
    }

    #[test]
    fn every_second_has_as_many_slots_as_the_rate(per_second in rates(), second in 0..u64::MAX / 1000) {
        let rate = AlertRate::new(per_second).expect("a rate");
        let begin = rate.slot_at(Timestamp::from_millis(second * 1000));
        prop_assert_eq!(begin.start().as_millis(), second * 1000);
        let slots = std::iter::successors(Some(begin), |slot| Some(rate.next(*slot)));
        let end = Timestamp::from_millis((second + 1) * 1000);
        // A wrong rule that never leaves the second should fail the test, not hang it.
        let slots = slots.take(2 * AlertRate::MAX as usize).take_while(|slot| slot.start() < end);
        prop_assert_eq!(slots.count() as u64, per_second);
    }

    #[test]
    fn a_slot_is_usable_for_one_second(rate in rates(), now in 0..u64::MAX / 2, later in 0..5000_u64) {
        let slot = AlertRate::new(rate).expect("a rate").slot_at(Timestamp::from_millis(now));
        let moment = slot.start().after(Duration::from_millis(later));
        prop_assert_eq!(slot.is_usable(moment), later < 1000);
    }
}

#[test]
fn a_rate_is_from_1_to_100() {
    assert_eq!([0, 101, u64::MAX].map(AlertRate::new), [None; 3]);
    assert!((1..=100).all(|rate| AlertRate::new(rate).is_some()));
}
