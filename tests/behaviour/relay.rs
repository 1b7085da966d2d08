//! Every combination of results of claim, publish, completion and release, and the answer to each.

use std::time::Duration;

use crate::support::doubles::{Claiming, Publishing, Script, Settling, relay, telemetry};
use crate::support::requests::{SECRET, around, change, delivery, http, secrets, standard};
use futures_util::Stream;
use futures_util::stream;
use lambda_http::http::Response;
use opportunity_alerts::delivery::ledger::{
    Claim, ClaimRequest, ClaimResult, FinishError, Ledger, LedgerError, Lock, MayPublish, Pending, Receipt, Refusal,
};
use opportunity_alerts::delivery::pace::Slot;
use opportunity_alerts::delivery::relay::{Delivered, Outcome, Timings, Unpublished};
use opportunity_alerts::delivery::topic::{Topic, TopicError};
use opportunity_alerts::invocation::Attempt;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::Message;
use opportunity_alerts::message::details::LastReply;
use opportunity_alerts::message::key::{DeliveryId, ReplyKey};
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::secrets::keyring::Keyring;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::webhook::details::Sources;
use opportunity_alerts::webhook::response::Answer;
use serde_json::{Value, json};

const NOW: Timestamp = Timestamp::from_millis(1_708_770_600_000);
const TIMEOUT: Duration = Duration::from_secs(10);

fn invocation() -> Invocation {
    Invocation::new("request-1", NOW.after(TIMEOUT), NOW, [0; 8])
}

fn wanted() -> ClaimRequest {
    ClaimRequest::Delivery(delivery("evt_1", "body"))
}

async fn run(script: &Script) -> Delivered {
    relay(script, script).deliver(wanted(), &invocation()).await
}

/// Delivers an alert, and returns the answer at the end of the delivery.
async fn answered(script: &Script) -> (Delivered, Answer) {
    let invocation = invocation();
    let delivered = relay(script, script).deliver(wanted(), &invocation).await;
    let answer = Answer::from_delivery(&delivered.outcome, false, &invocation);
    (delivered, answer)
}

/// The expected calls, and the status and outcome of the answer. This restates the code's table of
/// answers as a rule.
fn expected(claiming: Claiming, publishing: Publishing) -> (&'static [&'static str], u16, &'static str) {
    match (claiming, publishing) {
        (Claiming::Wins, Publishing::Succeeds) => (&["claim", "publish", "complete"], 200, "alerted"),
        (Claiming::Wins, _) => (&["claim", "publish", "release"], 503, "unavailable"),
        (Claiming::FindsItPublished, _) => (&["claim"], 200, "duplicate"),
        (Claiming::FindsItInProgress, _) => (&["claim"], 409, "in_progress"),
        (Claiming::Fails | Claiming::Hangs, _) => (&["claim"], 503, "unavailable"),
    }
}

#[tokio::test(start_paused = true)]
async fn answers_every_combination_of_results() {
    use Claiming::{FindsItInProgress, FindsItPublished, Wins};
    let mut combinations = 0;
    for claiming in [Wins, FindsItInProgress, FindsItPublished, Claiming::Fails, Claiming::Hangs] {
        for publishing in [Publishing::Succeeds, Publishing::Fails, Publishing::Hangs] {
            for settling in [Settling::IsRecorded, Settling::IsNotMine, Settling::Fails, Settling::Hangs] {
                let case = format!("{claiming:?} {publishing:?} {settling:?}");
                let (calls, status, name) = expected(claiming, publishing);
                let script = Script::new(claiming, publishing, settling);
                let begun = tokio::time::Instant::now();
                let (delivered, answer) = answered(&script).await;
                assert!(begun.elapsed() < TIMEOUT, "{case}: it should end before Lambda kills the process");
                // The relay retries a failed completion or release until its deadline.
                let retries = claiming == Wins && settling == Settling::Fails;
                let mut called = script.calls();
                assert_eq!(called.len() > 3, retries, "{case}: {called:?}");
                assert_eq!(
                    begun.elapsed() > TIMEOUT / 2,
                    retries || takes_long(claiming, publishing, settling),
                    "{case}"
                );
                called.dedup();
                assert_eq!(called, calls, "{case}");
                let row = answer.row();
                assert_eq!((row.status.as_u16(), row.outcome), (status, name), "{case}");
                assert_eq!(delivered.outcome.failure().is_none(), is_clean(claiming, publishing, settling), "{case}");
                combinations += 1;
            }
        }
    }
    assert_eq!(combinations, 60);
}

fn takes_long(claiming: Claiming, publishing: Publishing, settling: Settling) -> bool {
    claiming == Claiming::Wins && (publishing == Publishing::Hangs || settling == Settling::Hangs)
}

/// A ledger and topics that behave differently for alerts and for the lead status stream.
struct PerTopic {
    alert: Script,
    status: Script,
}

impl PerTopic {
    fn script(&self, id: &DeliveryId) -> &Script {
        if id.is_for_stream() { &self.status } else { &self.alert }
    }
}

impl Ledger for &PerTopic {
    async fn claim(&self, wanted: ClaimRequest, attempt: Attempt) -> Result<ClaimResult, LedgerError> {
        self.script(wanted.id()).claim(wanted, attempt).await
    }

    async fn lock(&self, _: &DeliveryId, _: &Lock) -> Result<MayPublish, LedgerError> {
        Ok(MayPublish::Yes)
    }

    async fn take_slot(&self, claim: &Claim, slot: Slot) -> Result<bool, LedgerError> {
        self.script(claim.delivery_id()).take_slot(claim, slot).await
    }

    async fn complete(&self, claim: &Claim, receipt: &Receipt) -> Result<(), FinishError> {
        self.script(claim.delivery_id()).complete(claim, receipt).await
    }

    async fn debounce(&self, claim: &Claim, holder: &DeliveryId, at: Timestamp) -> Result<(), FinishError> {
        self.script(claim.delivery_id()).debounce(claim, holder, at).await
    }

    async fn discard(&self, claim: &Claim, reason: &str, at: Timestamp) -> Result<(), FinishError> {
        self.script(claim.delivery_id()).discard(claim, reason, at).await
    }

    async fn release(&self, claim: &Claim, now: Timestamp, error: &str) -> Result<(), FinishError> {
        self.script(claim.delivery_id()).release(claim, now, error).await
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

impl Topic for &PerTopic {
    async fn publish(&self, message: &Message) -> Result<String, TopicError> {
        let script = if matches!(message, Message::Status { .. }) { &self.status } else { &self.alert };
        script.publish(message).await
    }
}

/// Returns the answer to a change to this status, with the stream on.
async fn answer_to(status: &str, both: &PerTopic) -> (u16, String) {
    let body = change("evt_1", status);
    let headers = standard("svix", SECRET, "msg_1", NOW.as_secs(), body.as_bytes());
    let webhook = Webhook {
        sources: Sources::default(),
        keyring: Keyring::from_secrets(secrets()),
        rules: Rules { stream: true, ..Rules::default() },
        relay: relay(both, both),
        telemetry: telemetry(),
    };
    let response = webhook.respond(&http(around(&body, &headers)), &invocation()).await;
    let body: Value = serde_json::from_str(response.body()).unwrap();
    (response.status().as_u16(), body["outcome"].as_str().unwrap().to_owned())
}

fn scripts() -> impl Iterator<Item = (Claiming, Publishing, Settling)> {
    use Claiming::{FindsItInProgress, FindsItPublished, Wins};
    let claims = [Wins, FindsItInProgress, FindsItPublished, Claiming::Fails, Claiming::Hangs];
    let publishes = [Publishing::Succeeds, Publishing::Fails, Publishing::Hangs];
    let settles = [Settling::IsRecorded, Settling::IsNotMine, Settling::Fails, Settling::Hangs];
    claims.into_iter().flat_map(move |claim| {
        publishes.into_iter().flat_map(move |publish| settles.map(|settle| (claim, publish, settle)))
    })
}

/// The answer is 2xx if the stream's message has a row, and the alert is published or not due.
#[tokio::test(start_paused = true)]
async fn answers_2xx_once_alert_is_published_and_message_claimed() {
    for (claiming, publishing, settling) in scripts() {
        let script = || Script::new(claiming, publishing, settling);
        let has_row = !matches!(claiming, Claiming::Fails | Claiming::Hangs);
        let alone = match expected(claiming, publishing) {
            (_, 200, "alerted") => (200, "streamed"),
            (_, 200, name) => (200, name),
            _ if has_row => (200, "pending"),
            (_, status, name) => (status, name),
        };
        let both = PerTopic { alert: script(), status: script() };
        let (status, name) = answer_to("DONE", &both).await;
        assert_eq!((status, &*name), alone, "{:?}", both.status);
        assert_eq!(both.alert.calls(), [""; 0]);

        for (alert_claiming, alert_publishing, alert_settling) in scripts() {
            let alert = Script::new(alert_claiming, alert_publishing, alert_settling);
            let both = PerTopic { alert, status: script() };
            let with_alert = match expected(alert_claiming, alert_publishing) {
                (_, status, name) if has_row => (status, name),
                _ => (503, "unavailable"),
            };
            let (status, name) = answer_to("OPPORTUNITY", &both).await;
            assert_eq!((status, &*name), with_alert, "{:?} {:?}", both.alert, both.status);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn discards_a_message_to_a_stream_that_is_off() {
    for (settling, failure) in [
        (Settling::IsRecorded, None),
        (Settling::IsNotMine, Some("done, but another attempt had claimed the delivery")),
        (Settling::Fails, Some("done, but completion failed: the ledger could not settle: throttled")),
        (Settling::Hangs, Some("done, but completion failed: the ledger did not answer in time")),
    ] {
        let script = || Script::new(Claiming::Wins, Publishing::FindsNoTopic, settling);
        let (only, begun) = (script(), tokio::time::Instant::now());
        let relayed = run(&only).await;
        assert!(begun.elapsed() < TIMEOUT, "it should end before Lambda kills the process");
        let mut calls = only.calls();
        calls.dedup();
        assert_eq!(calls, ["claim", "publish", "discard"]);
        assert!(matches!(relayed.outcome, Outcome::Discarded { .. }));
        assert_eq!(relayed.outcome.failure().as_deref(), failure);

        let alert = Script::new(Claiming::Wins, Publishing::Succeeds, Settling::IsRecorded);
        let both = PerTopic { alert, status: script() };
        assert_eq!(answer_to("OPPORTUNITY", &both).await, (200, "alerted".into()));
        assert_eq!(answer_to("DONE", &both).await, (200, "ignored".into()));
    }
}

fn is_clean(claiming: Claiming, publishing: Publishing, settling: Settling) -> bool {
    match claiming {
        Claiming::Wins => publishing == Publishing::Succeeds && settling == Settling::IsRecorded,
        Claiming::FindsItInProgress | Claiming::FindsItPublished => true,
        Claiming::Fails | Claiming::Hangs => false,
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_names_the_step_and_the_reason() {
    for (script, failure) in [
        (
            Script::new(Claiming::Fails, Publishing::Succeeds, Settling::IsRecorded),
            "claim failed: the ledger could not claim: unreachable",
        ),
        (
            Script::new(Claiming::Wins, Publishing::Hangs, Settling::IsRecorded),
            "publish failed: the topic did not answer in time",
        ),
        (
            Script::new(Claiming::Wins, Publishing::Succeeds, Settling::Fails),
            "done, but completion failed: the ledger could not settle: throttled",
        ),
        (
            Script::new(Claiming::Wins, Publishing::Succeeds, Settling::IsNotMine),
            "done, but another attempt had claimed the delivery",
        ),
    ] {
        let relayed = run(&script).await;
        assert_eq!(relayed.outcome.failure().unwrap(), failure);
    }
    let both = run(&Script::new(Claiming::Wins, Publishing::Fails, Settling::Hangs)).await;
    assert!(matches!(both.outcome, Outcome::Unpublished { released: Err(_), .. }));
}

#[tokio::test(start_paused = true)]
async fn times_exactly_the_steps_that_began() {
    use Publishing::{Hangs, Succeeds};
    for (claiming, publishing, settling, expected) in [
        (Claiming::Wins, Succeeds, Settling::IsRecorded, [Some(0), Some(0), Some(0)]),
        (Claiming::Wins, Succeeds, Settling::Hangs, [Some(0), Some(0), Some(9500)]),
        (Claiming::Wins, Hangs, Settling::IsRecorded, [Some(0), Some(7500), None]),
        (Claiming::Hangs, Succeeds, Settling::IsRecorded, [Some(3500), None, None]),
        (Claiming::FindsItPublished, Succeeds, Settling::IsRecorded, [Some(0), None, None]),
    ] {
        let case = format!("{claiming:?} {publishing:?} {settling:?}");
        let delivered = run(&Script::new(claiming, publishing, settling)).await;
        let timings = delivered.timings;
        // Tokio's timer fires a millisecond late.
        let rounded = |time: Option<Duration>| time.map(|time| time.as_millis() / 10 * 10);
        assert_eq!([timings.claim, timings.publish, timings.complete].map(rounded), expected, "{case}");
        assert_eq!(delivered.published_at().is_some(), timings.complete.is_some(), "{case}");
        assert_eq!(delivered.attempts, (claiming != Claiming::Hangs).then_some(1), "{case}");
    }
    let script = Script::new(Claiming::Wins, Succeeds, Settling::IsRecorded);
    let invocation = invocation();
    tokio::time::advance(TIMEOUT).await;
    let relayed = relay(&script, &script).deliver(wanted(), &invocation).await;
    assert_eq!((relayed.attempts, relayed.timings), (None, Timings::default()));
}

/// A claim that is not known to be released may block the delivery until its lease ends.
#[tokio::test(start_paused = true)]
async fn retry_after_is_the_time_until_a_retry_can_succeed() {
    for (claiming, settling, seconds) in [
        (Claiming::Wins, Settling::IsRecorded, 5),
        (Claiming::Wins, Settling::Fails, 12),
        (Claiming::Fails, Settling::IsRecorded, 12),
    ] {
        let begun = tokio::time::Instant::now();
        let (_, answer) = answered(&Script::new(claiming, Publishing::Fails, settling)).await;
        let Answer::Unavailable { retry_after } = answer else { panic!("{answer:?}") };
        assert_eq!((begun.elapsed() + retry_after).as_secs(), seconds, "{claiming:?} {settling:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn makes_no_call_without_time_left() {
    let script = Script::new(Claiming::Wins, Publishing::Succeeds, Settling::IsRecorded);
    let invocation = invocation();
    tokio::time::advance(TIMEOUT).await;
    let relayed = relay(&script, &script).deliver(wanted(), &invocation).await;
    assert!(matches!(relayed.outcome, Outcome::Unclaimed(_)));
    assert_eq!(script.calls(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_lease_outlives_the_invocation_and_its_steps() {
    for (deadline, allowed) in
        [(NOW.after(TIMEOUT), 10), (NOW.after(TIMEOUT * 10_000), 900), (Timestamp::from_millis(0), 10)]
    {
        let begun = tokio::time::Instant::now();
        let invocation = Invocation::new("request-1", deadline, NOW, [0; 8]);
        let allowed = Duration::from_secs(allowed);
        let schedule = invocation.schedule();
        assert!(begun < schedule.claim_by && schedule.claim_by < schedule.publish_by);
        assert!(schedule.publish_by < schedule.finish_by && schedule.finish_by < begun + allowed);
        tokio::time::advance(Duration::from_secs(3)).await;
        let attempt = invocation.attempt();
        assert_eq!(attempt.now, NOW.after(Duration::from_secs(3)));
        assert!(
            attempt.lease_until > NOW.after(allowed),
            "the lease should count from the start of the invocation, not from the claim"
        );
    }
}

/// Covers `Answer::from_delivery` for the alert and for the message to the stream.
#[tokio::test(start_paused = true)]
async fn each_outcome_has_its_answer() {
    let invocation = invocation();
    let unavailable = |seconds| Answer::Unavailable { retry_after: Duration::from_secs(seconds) };
    let in_progress = || Refusal::InProgress { until: NOW.after(Duration::from_secs(3)) };
    let unpublished = |cause, released| Outcome::Unpublished { cause, released };
    for (outcome, alert, stream) in [
        (Outcome::Published { at: NOW, recorded: Ok(()) }, Answer::Alerted, Answer::Streamed),
        (Outcome::Published { at: NOW, recorded: Err(FinishError::Overtaken) }, Answer::Alerted, Answer::Streamed),
        (Outcome::Debounced { recorded: Ok(()) }, Answer::Debounced, Answer::Debounced),
        (Outcome::Discarded { recorded: Ok(()) }, Answer::Ignored, Answer::Ignored),
        (Outcome::Refused(Refusal::Done), Answer::Duplicate, Answer::Duplicate),
        (Outcome::Refused(in_progress()), Answer::InProgress { retry_after: Duration::from_secs(3) }, Answer::Pending),
        // No row has this fact, so only SendPilot's next attempt can deliver it.
        (Outcome::Refused(Refusal::BodyMismatch), unavailable(5), unavailable(5)),
        (Outcome::Unclaimed(LedgerError::TimedOut), unavailable(12), unavailable(12)),
        (unpublished(Unpublished::NoSlot, Ok(())), unavailable(5), Answer::Pending),
        (unpublished(Unpublished::Pace(LedgerError::TimedOut), Ok(())), unavailable(5), Answer::Pending),
        (unpublished(Unpublished::Topic(TopicError::TimedOut), Ok(())), unavailable(5), Answer::Pending),
        // The lease ends two seconds after the invocation.
        (unpublished(Unpublished::NoSlot, Err(LedgerError::TimedOut)), unavailable(12), Answer::Pending),
    ] {
        assert_eq!(Answer::from_delivery(&outcome, false, &invocation), alert, "{outcome:?}");
        assert_eq!(Answer::from_delivery(&outcome, true, &invocation), stream, "{outcome:?}");
    }
}

fn read(response: &Response<String>) -> (u16, &str, Option<&str>, Value) {
    let header = |name| response.headers().get(name).map(|value| value.to_str().unwrap());
    let body = serde_json::from_str(response.body()).unwrap();
    (response.status().as_u16(), header("content-type").unwrap(), header("retry-after"), body)
}

#[test]
fn a_success_is_plain_json() {
    for (answer, name) in [
        (Answer::Alerted, "alerted"),
        (Answer::Pending, "pending"),
        (Answer::Duplicate, "duplicate"),
        (Answer::Ignored, "ignored"),
    ] {
        let response = answer.response(Some("evt_1"));
        assert_eq!(read(&response), (200, "application/json", None, json!({"outcome": name, "eventId": "evt_1"})));
    }
    assert_eq!(Answer::Ignored.response(None).body(), r#"{"outcome":"ignored"}"#);
}

#[test]
fn errors_are_problem_documents_with_a_detail() {
    let unauthorized = Answer::Unauthorized { reason: "mismatch", detail: "compare".into() };
    for (answer, status, title, retry_after) in [
        (Answer::Malformed("x".into()), 400, "Bad Request", None),
        (unauthorized.clone(), 401, "Unauthorized", None),
        (Answer::NotFound, 404, "Not Found", None),
        (Answer::MethodNotAllowed, 405, "Method Not Allowed", None),
        (Answer::InProgress { retry_after: Duration::from_millis(4001) }, 409, "Conflict", Some("5")),
        (Answer::InProgress { retry_after: Duration::ZERO }, 409, "Conflict", Some("1")),
        (Answer::TooLarge, 413, "Payload Too Large", None),
        (Answer::Unavailable { retry_after: Duration::from_secs(5) }, 503, "Service Unavailable", Some("5")),
        (Answer::NoSecret { retry_after: Duration::ZERO, detail: "put".into() }, 503, "Service Unavailable", Some("1")),
    ] {
        let response = answer.response(None);
        let (got, content_type, retry, body) = read(&response);
        assert_eq!((got, content_type, retry), (status, "application/problem+json", retry_after), "{answer:?}");
        assert_eq!(
            (&body["status"], &body["title"], &body["outcome"]),
            (&json!(status), &json!(title), &json!(answer.row().outcome))
        );
        assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{answer:?}");
    }
    assert_eq!(read(&unauthorized.response(None)).3["reason"], "mismatch");
    assert_eq!(Answer::MethodNotAllowed.response(None).headers()["allow"], "POST");
}
