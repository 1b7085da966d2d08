//! A ledger and a topic that follow a script and record their calls.

use std::future::pending;
use std::sync::Mutex;
use std::time::Duration;

use futures_util::Stream;
use futures_util::stream;
use opportunity_alerts::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, Lock, MayPublish, Pending, Receipt, Refusal,
};
use opportunity_alerts::delivery::pace::Slot;
use opportunity_alerts::delivery::relay::Relay;
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::Attempt;
use opportunity_alerts::message::Message;
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, ReplyKey};
use opportunity_alerts::telemetry::Telemetry;
use opportunity_alerts::timestamp::Timestamp;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claiming {
    Wins,
    FindsItInProgress,
    FindsItPublished,
    Fails,
    Hangs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publishing {
    Succeeds,
    Fails,
    Hangs,
    /// The lead status stream is off.
    FindsNoTopic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settling {
    IsRecorded,
    IsNotMine,
    Fails,
    Hangs,
}

#[derive(Debug)]
pub struct Script {
    pub claiming: Claiming,
    pub publishing: Publishing,
    pub settling: Settling,
    /// The names of the calls, in order: `claim`, `publish`, `complete`, `release`.
    pub calls: Mutex<Vec<&'static str>>,
}

/// Returns a telemetry that drops its log lines.
pub fn telemetry() -> Telemetry {
    Telemetry::new("function".into(), |_| ())
}

/// Returns a relay with a retention of a day, no debounce and no pace.
pub fn relay<L, T>(ledger: L, topic: T) -> Relay<L, T> {
    Relay {
        ledger,
        topic,
        retention: Duration::from_secs(86_400),
        debounce: None,
        pacer: None,
        stream_wait: Duration::from_secs(10),
    }
}

/// The end of the other attempt's lease, if the script finds the delivery in progress.
pub const LEASE_OF_ANOTHER: Timestamp = Timestamp::from_millis(1_708_770_609_001);

impl Script {
    pub fn new(claiming: Claiming, publishing: Publishing, settling: Settling) -> Self {
        Self { claiming, publishing, settling, calls: Mutex::default() }
    }

    fn called(&self, call: &'static str) {
        self.calls.lock().unwrap().push(call);
    }

    pub fn calls(&self) -> Vec<&'static str> {
        self.calls.lock().unwrap().clone()
    }

    async fn settle(&self) -> Result<(), FinishError> {
        match self.settling {
            Settling::IsRecorded => Ok(()),
            Settling::IsNotMine => Err(FinishError::Overtaken),
            Settling::Fails => Err(LedgerError::Failed("settle", "throttled".into()).into()),
            Settling::Hangs => pending().await,
        }
    }
}

impl Ledger for &Script {
    async fn claim(&self, wanted: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        self.called("claim");
        let claim = match self.claiming {
            Claiming::Wins => {
                let ClaimRequest::Delivery(delivery) = wanted else { panic!("the script has no rows") };
                Ok(Claim::new(delivery.id, delivery.message, delivery.locks, attempt.owner))
            }
            Claiming::FindsItInProgress => Err(Refusal::InProgress { until: LEASE_OF_ANOTHER }),
            Claiming::FindsItPublished => Err(Refusal::Done),
            Claiming::Fails => return Err(LedgerError::Failed("claim", "unreachable".into())),
            Claiming::Hangs => pending().await,
        };
        Ok(ClaimResult { claim, attempts: Some(1) })
    }

    async fn lock(&self, _: &DeliveryId, _: &Lock) -> Result<MayPublish, LedgerError> {
        Ok(MayPublish::Yes)
    }

    async fn take_slot(&self, _: &Claim, _: Slot) -> Result<bool, LedgerError> {
        self.called("slot");
        Ok(true)
    }

    async fn debounce(&self, _: &Claim, _: &DeliveryId, _: Timestamp) -> Result<(), FinishError> {
        self.called("debounce");
        self.settle().await
    }

    async fn discard(&self, _: &Claim, _: &str, _: Timestamp) -> Result<(), FinishError> {
        self.called("discard");
        self.settle().await
    }

    async fn complete(&self, _: &Claim, _: &Receipt) -> Result<(), FinishError> {
        self.called("complete");
        self.settle().await
    }

    async fn release(&self, _: &Claim, _: Timestamp, _: &str) -> Result<(), FinishError> {
        self.called("release");
        self.settle().await
    }

    async fn remember(&self, _: &ReplyKey, _: &LastReply, _: Timestamp) -> Result<(), LedgerError> {
        Ok(())
    }

    async fn last_reply(&self, _: &ReplyKey, _: Timestamp) -> Result<Option<LastReply>, LedgerError> {
        Ok(None)
    }

    fn pending(&self) -> impl Stream<Item = Result<Pending, LedgerError>> + Send {
        stream::empty()
    }
}

impl Topic for &Script {
    async fn publish(&self, _: &Message) -> Result<String, TopicError> {
        self.called("publish");
        match self.publishing {
            Publishing::Succeeds => Ok("message-1".into()),
            Publishing::Fails => Err(TopicError::Failed("no such topic".into())),
            Publishing::Hangs => pending().await,
            Publishing::FindsNoTopic => Err(TopicError::NoStream),
        }
    }
}
