//! Moments in milliseconds since the Unix epoch, for the ledger and the signatures.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A moment in milliseconds since the Unix epoch. Arithmetic saturates, so a clock that is far off
/// cannot make a delivery fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

/// 9999-12-31T23:59:59.999Z, in milliseconds.
const LAST_OF_9999: u64 = 253_402_300_799_999;

impl Timestamp {
    /// Creates the moment `millis` milliseconds after the epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the epoch.
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Returns the seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> u64 {
        self.0 / 1000
    }

    /// Returns the moment `span` later.
    pub fn after(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }

    /// Returns the time from `earlier` to this moment, or zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns this moment as text, in UTC. RFC 3339 has four digits for the year, so a moment
    /// after the year 9999 becomes the last millisecond of that year.
    #[expect(clippy::expect_used, reason = "every moment from the epoch to the end of 9999 is an RFC 3339 date in UTC")]
    pub fn rfc3339(self) -> String {
        OffsetDateTime::from(self).format(&Rfc3339).expect("a moment that RFC 3339 can write")
    }
}

impl From<Timestamp> for OffsetDateTime {
    /// Converts a moment. A moment after the year 9999 becomes the last millisecond of that year.
    #[expect(clippy::expect_used, reason = "every moment from the epoch to the end of 9999 is a date")]
    fn from(Timestamp(millis): Timestamp) -> Self {
        let nanoseconds = i128::from(millis.min(LAST_OF_9999)) * 1_000_000;
        Self::from_unix_timestamp_nanos(nanoseconds).expect("a moment before 10000")
    }
}

impl From<OffsetDateTime> for Timestamp {
    /// Converts a moment. A moment before the epoch becomes the epoch.
    fn from(moment: OffsetDateTime) -> Self {
        Self(u64::try_from(moment.unix_timestamp_nanos() / 1_000_000).unwrap_or_default())
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, millis))
    }
}

/// Returns the whole milliseconds of a span.
pub(crate) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
