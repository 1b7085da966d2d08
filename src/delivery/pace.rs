//! Limits the rate of alerts over all processes: each alert gets its own slot.
//!
//! SNS deactivates an email subscription that receives more than 10 messages a second
//! (<https://docs.aws.amazon.com/sns/latest/dg/sns-email-notifications.html>). So an attempt takes
//! a slot before it publishes an alert. A slot is an interval of `1 / rate` seconds. Slots are
//! counted from the Unix epoch, so all processes agree on their bounds:
//!
//! ```text
//! 5 alerts a second   |  0 ms  | 200 ms | 400 ms | 600 ms | 800 ms |
//! alert A at 130 ms      A publishes at once
//! alert B at 140 ms               B publishes at 200 ms
//! ```
//!
//! [`may_take_slot`](crate::delivery::ledger::may_take_slot) decides which attempt gets a slot. If
//! another attempt has the slot, the attempt asks for the next slot. If the ledger answers within
//! the length of a slot, attempts publish in the order in which they ask. If the ledger is slower,
//! a later attempt may publish first.
//!
//! A process asks only once for each slot: see [`Pacer`]. So the redrive, which publishes several
//! alerts at the same time, makes about one request for each alert.
//!
//! A publish starts within one second after its slot's start. So even if the ledger is slow, no
//! second has more than twice the rate. If the ledger is fast, no second has more than one alert
//! above the rate.

use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::timestamp::Timestamp;

/// The time after its start during which a slot can be used.
const USABLE: Duration = Duration::from_secs(1);

/// More than any attempt looks ahead for a slot. If a process seems to have asked for later slots,
/// its clock was ahead and has been set back.
const BEYOND_REACH: Duration = Duration::from_secs(60);

/// The number of alerts that are published per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AlertRate(NonZeroU64);

impl AlertRate {
    /// The highest rate. At this rate, a slot lasts 10 ms. DynamoDB needs about the same time to
    /// answer.
    pub const MAX: u64 = 100;

    /// Returns the rate of this number of alerts per second. Returns `None` if it is 0 or above
    /// [`AlertRate::MAX`].
    pub fn new(per_second: u64) -> Option<Self> {
        NonZeroU64::new(per_second).filter(|rate| rate.get() <= Self::MAX).map(Self)
    }

    /// Returns the slot in which `now` lies.
    pub fn slot_at(self, now: Timestamp) -> Slot {
        // A clock can be far off, so the product must not overflow.
        let number = u128::from(now.as_millis()) * u128::from(self.0.get()) / 1000;
        self.slot(number)
    }

    /// Returns the slot after `slot`.
    pub fn next(self, slot: Slot) -> Slot {
        let number = u128::from(slot.start.as_millis()) * u128::from(self.0.get()) / 1000;
        self.slot(number + 1)
    }

    fn slot(self, number: u128) -> Slot {
        let start = (number * 1000).div_ceil(self.0.get().into());
        Slot { start: Timestamp::from_millis(u64::try_from(start).unwrap_or(u64::MAX)) }
    }
}

/// One process's view of the slots: the rate, and the slots for which the process has asked.
#[derive(Debug)]
pub struct Pacer {
    rate: AlertRate,
    /// The process has asked for every slot before this time that is not over. In milliseconds
    /// since the Unix epoch.
    asked_before: AtomicU64,
}

impl Pacer {
    /// Creates the view of a process that has not asked for any slot yet.
    pub fn new(rate: AlertRate) -> Self {
        Self { rate, asked_before: AtomicU64::new(0) }
    }

    /// Returns the first slot for which the process has not asked, starting with the slot at `now`.
    pub fn next(&self, now: Timestamp) -> Slot {
        self.rate.slot_at(self.asked_before(now))
    }

    /// Records that the process asks for a slot.
    pub fn asks_for(&self, slot: Slot) {
        let asked_before = self.asked_before(self.rate.next(slot).start());
        self.asked_before.store(asked_before.as_millis(), Ordering::Relaxed);
    }

    /// Returns the end of the slots for which the process has asked, or `at` if `at` is later.
    /// After the clock was set back, returns `at` too; otherwise the process would publish nothing
    /// until the clock has caught up. Asking twice for a slot does no harm.
    fn asked_before(&self, at: Timestamp) -> Timestamp {
        let asked_before = Timestamp::from_millis(self.asked_before.load(Ordering::Relaxed));
        if asked_before.since(at) > BEYOND_REACH { at } else { at.max(asked_before) }
    }
}

/// An interval in which one alert may be published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    start: Timestamp,
}

impl Slot {
    /// Returns the moment from which the alert may be published.
    pub fn start(self) -> Timestamp {
        self.start
    }

    /// Returns whether the alert may still be published at `now`.
    pub fn is_usable(self, now: Timestamp) -> bool {
        now.since(self.start) < USABLE
    }
}
