//! The signing secrets in Secrets Manager: set, rotated, withdrawn, unusable and unreachable, while
//! events and forgeries arrive.
#![allow(clippy::print_stdout)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::support::aws::{Aws, Fault};
use crate::support::doubles::{Claiming, Publishing, Script, Settling, relay};
use crate::support::dynamodb::DynamoDb;
use crate::support::lambda::{Lambda, deployed_environment};
use crate::support::requests::{SECRET, around, change, documented, http, opportunity, signed_now_with, standard};
use opportunity_alerts::aws::Aws as Sdk;
use opportunity_alerts::invocation::Invocation;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::secrets::keyring::{Keyring, MAX_AGE, MAX_FETCHES, REFILL_INTERVAL, START_TIMEOUT, Source};
use opportunity_alerts::sendpilot::signature::MAX_SKEW;
use opportunity_alerts::telemetry::Telemetry;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::Webhook;
use opportunity_alerts::webhook::details::Sources;
use serde_json::{Value, json};
use testkit::sendpilot::OTHER;

const START_OF_ALL: Timestamp = Timestamp::from_millis(1_708_770_600_000);
const PLACEHOLDER: &str = r#"{"secrets":[]}"#;
/// A margin for the real time that a test takes, because the time of requests stands still.
const MOMENT: Duration = Duration::from_secs(1);
const FETCH: [&str; 2] = ["current", "previous"];
/// A value that is refused because it has a comment beside the secret.
const COMMENTED: &str = "# SendPilot production\nwhsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

thread_local! {
    /// The log lines of the requests in this thread's test.
    static LINES: RefCell<Vec<Value>> = const { RefCell::new(Vec::new()) };
}

/// The webhook with a real client of Secrets Manager, at a time that a test sets.
struct World {
    aws: Aws,
    webhook: Webhook<&'static Script, &'static Script>,
    now: Timestamp,
}

impl World {
    /// Returns a world whose secret has had these values.
    async fn with(values: &[&str]) -> Self {
        Self::before(Aws::before("nowhere").await, values).await
    }

    async fn before(aws: Aws, values: &[&str]) -> Self {
        values.iter().for_each(|value| aws.put_secret(value));
        let environment = HashMap::from([
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_ENDPOINT_URL", &aws.url),
        ]);
        let sdk = Sdk::read(|name| environment.get(name).map(ToString::to_string)).unwrap();
        let script: &_ = Box::leak(Box::new(Script::new(Claiming::Wins, Publishing::Succeeds, Settling::IsRecorded)));
        let webhook = Webhook {
            sources: Sources::default(),
            keyring: Keyring::new(Source::Stored("webhook".into()), &sdk, START_OF_ALL).await,
            rules: Rules::default(),
            relay: relay(script, script),
            telemetry: Telemetry::new("function".into(), |line| {
                LINES.with_borrow_mut(|lines| lines.push(serde_json::from_str(line).unwrap()));
            }),
        };
        Self { aws, webhook, now: START_OF_ALL }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.after(time);
    }

    /// Returns the status, the body and the `Retry-After` of the answer to a request.
    async fn answer(&self, payload: Value) -> (u16, Value, Option<u64>) {
        let invocation = Invocation::new("request-1", self.now.after(Duration::from_secs(10)), self.now, [0; 8]);
        let response = self.webhook.respond(&http(payload), &invocation).await;
        let retry_after = response.headers().get("retry-after").map(|value| value.to_str().unwrap().parse().unwrap());
        (response.status().as_u16(), serde_json::from_str(response.body()).unwrap(), retry_after)
    }

    /// Returns the status of the answer to an event signed with this secret.
    async fn event_by(&self, secret: &str) -> u16 {
        let body = opportunity("evt_1");
        self.answer(around(&body, &standard("svix", secret, "msg_1", self.now.as_secs(), body.as_bytes()))).await.0
    }

    /// Sends an event signed with the key of these bytes, in both schemes. Returns the answers.
    async fn events_by_key(&self, key: &[u8]) -> [(u16, Value); 2] {
        let (body, now) = (opportunity("evt_1"), self.now.as_secs());
        let prefixed = format!("whsec_{}", data_encoding::BASE64.encode(key));
        let standard = standard("svix", &prefixed, "msg_1", now, body.as_bytes());
        let documented = documented(std::str::from_utf8(key).unwrap(), now, body.as_bytes());
        let mut answers = Vec::new();
        for signature in [standard, documented] {
            let (status, said, _) = self.answer(around(&body, &signature)).await;
            answers.push((status, said));
        }
        answers.try_into().unwrap()
    }

    /// Returns the value of `SecretUnreadable` of each request since the last call of this
    /// function.
    fn counted(&self) -> Vec<Option<u64>> {
        LINES.take().iter().map(|line| line["SecretUnreadable"].as_u64()).collect()
    }

    /// Returns the calls to AWS since the last call of this function.
    fn calls(&self) -> Vec<String> {
        self.aws.take_calls()
    }
}

fn secret(number: u8) -> String {
    format!("whsec_{}", data_encoding::BASE64.encode(&[number; 24]))
}

#[tokio::test]
async fn accepts_every_event_of_a_rotation() {
    let mut world = World::with(&[PLACEHOLDER, SECRET]).await;
    for _ in 0..3 {
        assert_eq!(world.event_by(SECRET).await, 200);
    }
    assert_eq!(world.calls(), FETCH, "at the start");
    world.aws.put_secret(OTHER);
    for secret in [SECRET, OTHER, SECRET, OTHER] {
        assert_eq!(world.event_by(secret).await, 200);
    }
    assert_eq!(world.calls(), FETCH, "at the first event signed with the new secret");
    world.pass(Duration::from_secs(86_400));
    for _ in 0..3 {
        assert_eq!(world.event_by(OTHER).await, 200);
    }
    assert_eq!(world.calls(), FETCH, "because the known secrets were old");
}

#[tokio::test]
async fn a_withdrawn_secret_expires() {
    let mut world = World::with(&[SECRET]).await;
    // Stored twice, because it must be the previous version too.
    world.aws.put_secret(OTHER);
    world.aws.put_secret(OTHER);
    world.pass(MAX_AGE - MOMENT);
    assert_eq!(world.event_by(SECRET).await, 200);
    assert_eq!(world.calls(), FETCH, "at the start");
    world.pass(2 * MOMENT);
    assert_eq!(world.event_by(SECRET).await, 401);
}

#[tokio::test]
async fn fetches_only_if_an_unknown_secret_may_have_signed() {
    let world = World::with(&[SECRET]).await;
    world.calls();
    let body = opportunity("evt_1");
    let (now, bytes) = (world.now.as_secs(), body.as_bytes());
    let mut no_base64 = standard("svix", OTHER, "msg_1", now, bytes);
    no_base64[2].1 = "v1,?".into();
    for (hopeless, reason) in [
        (vec![], "missing"),
        (no_base64, "malformed"),
        (standard("svix", OTHER, "msg.1", now, bytes), "malformed"),
        (standard("svix", OTHER, "msg_1", now - MAX_SKEW.as_secs() - 1, bytes), "mismatch"),
        (standard("svix", OTHER, "msg_1", now + MAX_SKEW.as_secs() + 1, bytes), "mismatch"),
        (standard("svix", SECRET, "msg_1", now - MAX_SKEW.as_secs() - 1, bytes), "stale"),
        (documented(OTHER, 1, bytes), "mismatch"),
    ] {
        let (status, problem, _) = world.answer(around(&body, &hopeless)).await;
        assert_eq!((status, &problem["reason"]), (401, &json!(reason)), "{hopeless:?}");
        assert_eq!(world.calls(), [""; 0], "{hopeless:?}");
    }
    for hopeful in [
        standard("svix", OTHER, "msg_1", now, bytes),
        standard("webhook", OTHER, "msg_1", now - MAX_SKEW.as_secs(), bytes),
        documented(OTHER, now - 77 * 60, bytes),
        // A malformed header does not hide the usable one.
        [standard("svix", OTHER, "msg.1", now, bytes), documented(OTHER, now, bytes)].concat(),
    ] {
        assert_eq!(world.answer(around(&body, &hopeful)).await.0, 401, "{hopeful:?}");
        assert_eq!(world.calls(), FETCH, "{hopeful:?}");
    }
}

#[tokio::test]
async fn forgeries_delay_a_rotation_by_at_most_one_interval() {
    let mut world = World::with(&[SECRET]).await;
    for _ in 1..MAX_FETCHES {
        assert_eq!(world.event_by(OTHER).await, 401);
        // Without this pause, a faster request could ask for its fetch at an earlier time.
        world.pass(MOMENT);
    }
    world.aws.put_secret(OTHER);
    assert_eq!(world.event_by(OTHER).await, 200, "one fetch should be left");
    world.calls();
    for _ in 0..100 {
        assert_eq!(world.event_by(&secret(1)).await, 401);
    }
    assert_eq!(world.calls(), [""; 0]);
    world.aws.put_secret(&secret(1));
    assert_eq!(world.event_by(&secret(1)).await, 401, "no fetch should be left");
    assert_eq!(world.event_by(OTHER).await, 200, "forgeries should not affect known secrets");
    world.pass(REFILL_INTERVAL + MOMENT);
    assert_eq!(world.event_by(&secret(1)).await, 200);
    // A clock that is set back does not keep the bucket empty.
    world.aws.put_secret(&secret(2));
    world.now = START_OF_ALL;
    assert_eq!(world.event_by(&secret(2)).await, 401);
    world.pass(REFILL_INTERVAL + MOMENT);
    assert_eq!(world.event_by(&secret(2)).await, 200);
}

#[tokio::test]
async fn without_a_usable_secret_answers_503_with_the_reason() {
    let text = |value: &str| Some(json!({ "SecretString": value }));
    let shape = r#"is JSON, but not {"secrets":["whsec_..."]}"#;
    for (version, detail) in [
        (None, "does not exist in Secrets Manager, or has no value"),
        (text(PLACEHOLDER), "holds no secret"),
        (text(" \n"), "holds no secret"),
        (text(r#"{"secrets":[" "]}"#), "holds no secret"),
        (text(r#"{"webhook":"s3cr3t"}"#), "secret number 1 is too short"),
        (text(r#"{"secrets":"s3cr3t"}"#), "secret number 1 is too short"),
        (text(r#"{"webhook":"s3cr3t","other":"s3cr3t"}"#), shape),
        (text(r#"{"secrets":["s3cr3t",7]}"#), shape),
        (text(r#"["s3cr3t"]"#), shape),
        (text(r#"{"secrets":["s3cr3t"]"#), shape),
        (text(r#""s3cr3t""#), "secret number 1 holds a quotation mark"),
        (text("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD whsec_s3cr3t!"), "secret number 2 starts with whsec_"),
        (text("a whsec_s3cr3t!"), "secret number 1 does not start with whsec_"),
        (text("\u{feff}whsec_s3cr3t!"), "secret number 1 holds a byte order mark"),
        (text(COMMENTED), "version AWSCURRENT: secret number 1 does not start with whsec_"),
        (Some(json!({ "SecretBinary": "czNjcjN0" })), "is binary"),
        // The SDK cannot parse this answer.
        (Some(json!({ "SecretString": { "s3cr3t": 1 } })), "does not return"),
    ] {
        let aws = Aws::before("nowhere").await;
        version.clone().into_iter().for_each(|version| aws.put_version(version));
        let mut world = World::before(aws, &[]).await;
        let body = opportunity("evt_1");
        for signature in [vec![], standard("svix", SECRET, "msg_1", world.now.as_secs(), body.as_bytes())] {
            let (status, problem, retry_after) = world.answer(around(&body, &signature)).await;
            assert_eq!((status, &problem["outcome"], retry_after), (503, &json!("unavailable"), Some(1)));
            let said = problem["detail"].as_str().unwrap();
            assert!(said.contains(detail) && !said.contains("s3cr3t"), "{said}");
            assert!(!format!("{:?}", world.webhook).contains("s3cr3t"));
        }
        while world.answer(around(&body, &[])).await.2 != Some(REFILL_INTERVAL.as_secs()) {}
        world.calls();
        world.aws.put_secret(SECRET);
        assert_eq!(world.event_by(SECRET).await, 503, "no fetch should be left");
        assert_eq!(world.calls(), [""; 0]);
        world.pass(REFILL_INTERVAL + MOMENT);
        assert_eq!(world.event_by(SECRET).await, 200, "{version:?}");
    }
}

#[tokio::test]
async fn reads_every_form_of_a_value() {
    for value in [
        format!("{SECRET}\n"),
        format!("{OTHER} {SECRET}"),
        json!({ "secrets": [SECRET] }).to_string(),
        format!(" {}", json!({ "secrets": [OTHER, SECRET], "note": "x" })),
        json!({ "secrets": SECRET }).to_string(),
        // The console's Key/value tab stores a pair in this form.
        json!({ "WEBHOOK_SECRET": SECRET }).to_string(),
    ] {
        assert_eq!(World::with(&[&value]).await.event_by(SECRET).await, 200, "{value}");
    }
}

#[tokio::test]
async fn uses_no_word_of_a_refused_value() {
    for value in [COMMENTED, "production # changeme", "changeme", "#", "whsec_AA==", "correct-horse-staple\n#"] {
        // The bad value is the previous version, the current version, and the only one.
        for values in [vec![value, OTHER], vec![OTHER, value], vec![value]] {
            let mut world = World::with(&values).await;
            for word in value.split_whitespace().filter(|word| *word != SECRET) {
                // A stranger's signature causes an early fetch, which changes nothing.
                for (status, said) in world.events_by_key(word.as_bytes()).await {
                    assert_eq!((status, &said["outcome"]), (503, &json!("unavailable")), "{word} of {values:?}");
                }
            }
            for (status, _) in world.events_by_key(&[0]).await {
                assert_eq!(status, 503, "{values:?}");
            }
            world.pass(MAX_AGE);
            assert_eq!(world.event_by(SECRET).await, 503, "the secret beside the bad word should not be used either");
        }
    }
}

#[tokio::test]
async fn a_badly_pasted_secret_never_causes_401() {
    for pasted in [
        format!("# production\n{OTHER}"),
        format!("\u{feff}{OTHER}"),
        format!("\u{200b}{OTHER}"),
        format!("{OTHER}\u{a0}"),
        format!("v1,{OTHER}"),
        format!("NAME={OTHER}"),
        format!("<{OTHER}>"),
        format!("\u{201c}{OTHER}\u{201d}"),
        format!("'{OTHER}'"),
        format!("W{}", &OTHER[1..]),
        OTHER[1..].to_owned(),
        OTHER[..20].to_owned(),
        "arn:aws:secretsmanager:us-east-1:123456789012:secret:webhook-AbCdEf".to_owned(),
        json!({ "WEBHOOK_SECRET": OTHER, "API_KEY": "x" }).to_string(),
    ] {
        // The bad value is the first secret, or comes by a rotation after or before the start.
        let mut first = World::with(&[PLACEHOLDER, &pasted]).await;
        let mut unseen = World::with(&[SECRET]).await;
        unseen.aws.put_secret(&pasted);
        let mut seen = World::with(&[SECRET, &pasted]).await;
        for (world, earlier) in [(&mut first, None), (&mut unseen, Some(SECRET)), (&mut seen, Some(SECRET))] {
            let body = opportunity("evt_1");
            let now = world.now.as_secs();
            for genuine in
                [standard("svix", OTHER, "msg_1", now, body.as_bytes()), documented(OTHER, now, body.as_bytes())]
            {
                let (status, said, retry_after) = world.answer(around(&body, &genuine)).await;
                assert_eq!((status, &said["outcome"]), (503, &json!("unavailable")), "{pasted:?}");
                assert!(retry_after.is_some_and(|seconds| seconds <= REFILL_INTERVAL.as_secs()), "{pasted:?}");
                let detail = said["detail"].as_str().unwrap();
                assert!(detail.contains("version AWSCURRENT: "), "{pasted:?}: {detail}");
                assert!(!detail.contains(&OTHER[6..20]), "{detail}");
            }
            if let Some(earlier) = earlier {
                assert_eq!(world.event_by(earlier).await, 200, "{pasted:?}");
            }
            // Once the secret is stored correctly, the next allowed fetch accepts the event.
            world.aws.put_secret(OTHER);
            world.pass(REFILL_INTERVAL + MOMENT);
            assert_eq!(world.event_by(OTHER).await, 200, "{pasted:?}");
        }
    }
}

#[tokio::test]
async fn an_unusable_current_version_never_causes_401() {
    for refused in [COMMENTED, PLACEHOLDER] {
        let mut world = World::with(&[OTHER, refused]).await;
        let body = opportunity("evt_1");
        for _ in 0..3 {
            assert_eq!(world.event_by(OTHER).await, 200);
            assert_eq!(world.event_by(SECRET).await, 503);
            // A request without a signature cannot be genuine under any secret.
            assert_eq!(world.answer(around(&body, &[])).await.0, 401);
            let stale =
                standard("svix", SECRET, "msg_1", world.now.as_secs() - MAX_SKEW.as_secs() - 1, body.as_bytes());
            assert_eq!(world.answer(around(&body, &stale)).await.0, 401);
        }
        assert_eq!(world.counted(), [Some(1); 12], "{refused}");
        // If Secrets Manager cannot be reached, an event that may be genuine still gets 503.
        world.pass(MAX_AGE + MOMENT);
        (0..10).for_each(|_| world.aws.next("current", Fault::Refused(400)));
        assert_eq!([world.event_by(OTHER).await, world.event_by(SECRET).await], [200, 503]);
        assert_eq!(world.counted(), [Some(1); 2], "{refused}");
        world.aws.clear();
        // The good value is stored twice, so no version is refused.
        world.aws.put_secret(OTHER);
        world.aws.put_secret(OTHER);
        world.pass(REFILL_INTERVAL + MOMENT);
        assert_eq!([world.event_by(OTHER).await, world.event_by(SECRET).await], [200, 401]);
        assert_eq!(world.counted(), [None; 2], "{refused}");
    }
}

#[tokio::test]
async fn an_unusable_previous_version_affects_no_known_secret() {
    let mut world = World::with(&[COMMENTED, OTHER]).await;
    assert_eq!(world.calls(), FETCH, "at the start");
    let body = opportunity("evt_1");
    for _ in 0..100 {
        assert_eq!(world.event_by(OTHER).await, 200);
        assert_eq!(world.answer(around(&body, &[])).await.0, 401);
        world.pass(Duration::from_secs(2));
    }
    assert_eq!((world.calls(), world.counted()), (vec![], vec![None; 200]));
    // The previous version is refused, and the signature may be by the previous version's secret.
    let signature = standard("svix", SECRET, "msg_1", world.now.as_secs(), body.as_bytes());
    for _ in 0..2 * MAX_FETCHES {
        let (status, said, retry_after) = world.answer(around(&body, &signature)).await;
        assert_eq!((status, &said["outcome"]), (503, &json!("unavailable")));
        assert!(said["detail"].as_str().unwrap().contains("version AWSPREVIOUS: secret number 1 does not"), "{said}");
        assert!(retry_after.is_some());
    }
    assert_eq!(world.calls(), FETCH.repeat(MAX_FETCHES as usize), "the limit should be the same as for any stranger");
    assert_eq!(world.counted(), [Some(1); 2 * MAX_FETCHES as usize]);
    world.pass(MAX_AGE + MOMENT);
    assert_eq!([world.event_by(OTHER).await, world.event_by(OTHER).await], [200, 200]);
    assert_eq!(world.calls(), FETCH, "an unusable previous version should cause no further fetches");
    // The good value is stored once more, so it is the previous version too.
    world.aws.put_secret(OTHER);
    assert_eq!(world.event_by(SECRET).await, 401);
    assert_eq!(world.counted().last(), Some(&None));
}

#[tokio::test]
async fn the_previous_version_may_be_absent_or_empty() {
    for values in [vec![SECRET], vec![PLACEHOLDER, SECRET], vec![" \n", SECRET], vec![r#"{"secrets":""}"#, SECRET]] {
        let world = World::with(&values).await;
        assert_eq!([world.event_by(SECRET).await, world.event_by(OTHER).await], [200, 401], "{values:?}");
        assert_eq!(world.counted(), [None, None], "{values:?}");
    }
}

#[tokio::test]
async fn one_unusable_version_leaves_the_other() {
    for unusable in [PLACEHOLDER, "{", "'", "whsec_"] {
        assert_eq!(World::with(&[unusable, SECRET]).await.event_by(SECRET).await, 200, "{unusable} before");
        assert_eq!(World::with(&[SECRET, unusable]).await.event_by(SECRET).await, 200, "{unusable} now");
    }
}

#[tokio::test]
async fn a_failed_fetch_keeps_the_secrets_and_is_retried() {
    let mut world = World::with(&[SECRET]).await;
    // First a fetch fails, and then both versions are unusable.
    world.pass(MAX_AGE + MOMENT);
    world.aws.next("current", Fault::Refused(400));
    assert_eq!(world.event_by(SECRET).await, 200);
    world.aws.put_secret("{");
    world.aws.put_secret("{");
    assert_eq!(world.event_by(SECRET).await, 200);
    assert_eq!(world.event_by(OTHER).await, 503);
    // A rotation of which only the current version can be read.
    world.pass(MAX_AGE + MOMENT);
    world.aws.put_secret(SECRET);
    world.aws.put_secret(OTHER);
    world.aws.next("previous", Fault::Refused(400));
    assert_eq!([world.event_by(OTHER).await, world.event_by(SECRET).await], [200, 200]);
    world.calls();
    assert_eq!([world.event_by(OTHER).await, world.event_by(SECRET).await], [200, 200]);
    assert_eq!(world.calls(), [""; 0], "the retried fetch should have read both versions");
}

#[tokio::test]
async fn a_known_secret_costs_no_call() {
    let mut world = World::with(&[SECRET]).await;
    world.calls();
    let body = change("evt_1", "DONE");
    for _ in 0..100 {
        world.pass(Duration::from_secs(2));
        let signed = standard("svix", SECRET, "msg_1", world.now.as_secs(), body.as_bytes());
        assert_eq!(world.answer(around(&body, &signed)).await.1["outcome"], "ignored");
    }
    assert_eq!(world.calls(), [""; 0]);
}

#[tokio::test]
async fn gives_up_a_hanging_secrets_manager_in_time() {
    let timeout = Duration::from_secs(10);
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    aws.put_secret(SECRET);
    (0..20).for_each(|_| aws.next("current", Fault::HeldBefore));
    let mut function = Lambda::start(deployed_environment(&aws), timeout).await;
    for longest in [START_TIMEOUT + timeout / 2, timeout / 2] {
        let begun = Instant::now();
        let (status, problem) = function.answer(&signed_now_with(SECRET, &opportunity("evt_1"))).await;
        assert_eq!((status, &problem["outcome"]), (503, &json!("unavailable")));
        assert!(problem["detail"].as_str().unwrap().contains("did not answer in time"), "{problem}");
        assert!(begun.elapsed() < longest, "{:?}", begun.elapsed());
    }
    aws.clear();
    assert_eq!(function.answer(&signed_now_with(SECRET, &opportunity("evt_1"))).await.0, 200);
    // With a known secret, an event that causes a fetch still alerts.
    aws.put_secret(OTHER);
    aws.next("current", Fault::HeldBefore);
    aws.next("previous", Fault::HeldBefore);
    let begun = Instant::now();
    let (status, said) = function.answer(&signed_now_with(OTHER, &opportunity("evt_2"))).await;
    assert_eq!((status, &said["outcome"]), (200, &json!("alerted")));
    assert!(begun.elapsed() < timeout / 2);
    assert_eq!(aws.alerts(), ["evt_1", "evt_2"]);
}

#[tokio::test]
async fn no_output_shows_a_secret() {
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    let shown = |value: &str| [value.to_owned(), value[6..].to_owned()];
    aws.put_version(json!({ "SecretString": { SECRET: SECRET } }));
    let mut environment = deployed_environment(&aws);
    environment.push(("AWS_LAMBDA_LOG_LEVEL", "TRACE".into()));
    let mut function = Lambda::start(environment, Duration::from_secs(10)).await;
    let mut said = Vec::new();
    for value in [format!("'{SECRET}'"), json!({ SECRET: [SECRET] }).to_string(), SECRET.into()] {
        said.push(function.answer(&signed_now_with(SECRET, &opportunity("evt_1"))).await.1.to_string());
        aws.put_secret(&value);
    }
    assert_eq!(function.answer(&signed_now_with(SECRET, &opportunity("evt_1"))).await.0, 200);
    aws.put_secret(OTHER);
    assert_eq!(function.answer(&signed_now_with(OTHER, &opportunity("evt_1"))).await.0, 200);
    let log = function.log().await;
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let fetches: Vec<_> =
        lines.iter().filter(|line| line["message"].as_str().unwrap().starts_with("signing secret")).collect();
    assert!(fetches.iter().any(|line| line["level"] == "ERROR" && line["held"] == 0), "{log}");
    let failures: Vec<_> = fetches.iter().filter_map(|line| line["failure"].as_str()).collect();
    for refused in [
        "version AWSCURRENT: secret number 1 holds a quotation mark",
        "version AWSPREVIOUS: secret number 1 holds a quotation mark",
        "version AWSPREVIOUS: is JSON, but not",
    ] {
        assert!(failures.iter().any(|failure| failure.contains(refused)), "{refused} in {log}");
    }
    assert!(fetches.iter().any(|line| line["level"] == "INFO" && line["held"] == 2), "{log}");
    for hidden in [shown(SECRET), shown(OTHER)].concat() {
        assert!(!log.contains(&hidden) && !said.concat().contains(&hidden), "{hidden} in {log} {said:?}");
    }
}

/// Prints the cost of ten thousand forged requests. Each is well formed, fresh, and signed by a
/// stranger.
#[tokio::test]
async fn ten_thousand_forgeries_cost_a_few_calls() {
    const FORGERIES: u32 = 10_000;
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::before(&dynamodb.url).await;
    aws.put_secret(SECRET);
    let mut function = Lambda::start(deployed_environment(&aws), Duration::from_secs(10)).await;
    assert_eq!(function.answer(&signed_now_with(SECRET, &change("evt_1", "DONE"))).await.0, 200);
    assert_eq!(aws.take_calls(), FETCH, "at the start");
    let begun = Instant::now();
    for number in 0..FORGERIES {
        let forged = signed_now_with(&secret(number as u8), &opportunity("evt_1"));
        assert_eq!(function.answer(&forged).await.0, 401);
    }
    let took = begun.elapsed();
    let calls = aws.take_calls();
    let fetches = calls.iter().filter(|call| FETCH.contains(&call.as_str())).count();
    println!(
        "{FORGERIES} forged requests in {took:.1?}: {} us each, {fetches} calls to Secrets Manager, {} other calls",
        took.as_micros() / u128::from(FORGERIES),
        calls.len() - fetches,
    );
    assert_eq!(calls.len(), fetches);
    let allowed = MAX_FETCHES + took.div_duration_f64(REFILL_INTERVAL) as u32 + 1;
    assert!(fetches <= 2 * allowed as usize, "{fetches}");
    assert_eq!(function.answer(&signed_now_with(SECRET, &opportunity("evt_2"))).await.0, 200);
}
