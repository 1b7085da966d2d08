//! Replies of leads: the newest one is stored, and the lead's next alert shows it. A reply that
//! cannot be stored or read delays no alert. No log line has the text of a reply.

use std::time::{Duration, Instant, SystemTime};

use crate::support::aws::Fault;
use crate::support::dynamodb::Item;
use crate::support::emf;
use crate::support::lambda::{Lambda, environment};
use crate::support::requests::{event, opportunity_of, reply, said, signed_now};
use crate::support::world::World;
use aws_sdk_dynamodb::types::AttributeValue::{N, S};
use futures_util::future::join_all;
use opportunity_alerts::message::details::MAX_REPLY;
use opportunity_alerts::message::key::ReplyKey;
use opportunity_alerts::timestamp::Timestamp;
use opportunity_alerts::webhook::details::{MAX_SEARCH, REPLY_RETENTION};
use serde_json::{Value, json};

const TIMEOUT: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

/// The margin for a busy machine.
const MARGIN: Duration = Duration::from_secs(1);

/// A word in every reply here.
const WORD: &str = "zeppelin";

/// A function that remembers replies.
struct Remembering<'a> {
    world: &'a World,
    function: Lambda,
}

impl<'a> Remembering<'a> {
    async fn start(world: &'a World) -> Self {
        Self::start_within(world, TIMEOUT).await
    }

    async fn start_within(world: &'a World, timeout: Duration) -> Self {
        let function = Lambda::start_with(&world.aws, vec![("REMEMBER_REPLIES", "yes".into())], timeout).await;
        Self { world, function }
    }

    /// Sends an event. Returns the status and the outcome of the answer.
    async fn send(&mut self, body: &Value) -> (u64, String) {
        let (status, answer) = self.function.answer(&signed_now(&body.to_string())).await;
        (status, answer["outcome"].as_str().unwrap().to_owned())
    }

    async fn remembers(&mut self, body: &Value) {
        assert_eq!(self.send(body).await, (200, "remembered".into()), "{body}");
    }

    /// Alerts on this lead. Returns the reply in the message for programs, and the time until the
    /// answer.
    async fn alert(&mut self, event: &str, lead: &str) -> (Value, Duration) {
        let began = Instant::now();
        let answer = self.function.answer(&signed_now(&opportunity_of(event, lead))).await;
        assert_eq!((answer.0, &answer.1["outcome"]), (200, &json!("alerted")), "{event}");
        let bodies: Value = serde_json::from_str(&self.world.aws.published().last().unwrap()["Message"]).unwrap();
        let event: Value = serde_json::from_str(bodies["default"].as_str().unwrap()).unwrap();
        (event["data"]["lastReply"].clone(), began.elapsed())
    }

    /// Ends the function, and returns its log lines. None may have a reply's text.
    async fn lines(self) -> Vec<Value> {
        let log = self.function.log().await;
        assert!(!log.contains(WORD), "{log}");
        log.lines().map(|line| emf::read(line).0).collect()
    }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// Returns a reply and its time: this number of minutes after the moment one hour ago.
fn reply_at(minutes: u32, lead: &str, text: &str) -> (Value, Timestamp) {
    let at = Timestamp::from_millis(now().as_millis() - 3_600_000).after(MINUTE * minutes);
    let mut body = reply(&format!("evt_reply_{lead}_{minutes}"), lead, text);
    body["timestamp"] = at.rfc3339().into();
    (body, at)
}

fn key(lead: &str) -> ReplyKey {
    ReplyKey::new(Some("ws_abc123xyz"), lead)
}

impl World {
    /// Returns the text and the time of the lead's stored reply.
    async fn stored(&self, key: &ReplyKey) -> Option<(String, u64)> {
        let row = self.dynamodb.reply(key).await?;
        Some((row["reply"].as_s().unwrap().clone(), row["repliedAt"].as_n().unwrap().parse().unwrap()))
    }
}

#[tokio::test]
async fn keeps_the_newest_reply_in_whatever_order() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    let (middle, at_middle) = reply_at(20, "lead_1", "the zeppelin, second");
    let (oldest, _) = reply_at(10, "lead_1", "the zeppelin, first");
    let (newest, at_newest) = reply_at(30, "lead_1", "the zeppelin,\r\n third\u{7}");
    let stored = |text: &str, at: Timestamp| Some((text.to_owned(), at.as_millis()));
    function.remembers(&middle).await;
    function.remembers(&oldest).await;
    assert_eq!(world.stored(&key("lead_1")).await, stored("the zeppelin, second", at_middle));
    for body in [&newest, &middle, &newest] {
        function.remembers(body).await;
        assert_eq!(world.stored(&key("lead_1")).await, stored("the zeppelin, third", at_newest));
    }
    assert_eq!(world.aws.calls(), ["remember"; 5]);

    let row = world.dynamodb.reply(&key("lead_1")).await.unwrap();
    let expires = row["expiresAt"].as_n().unwrap().parse::<u64>().unwrap();
    assert!(expires.abs_diff(now().after(REPLY_RETENTION).as_secs()) < 60, "{row:?}");
    assert_eq!((row.len(), &row["deliveryId"]), (4, &S("ws_abc123xyz#lead_1#reply".into())));
    assert_eq!(world.dynamodb.pending().await, [], "a reply should not be a pending delivery");
    let lines = function.lines().await;
    assert!(lines.iter().all(|line| line["level"] == "INFO" && line["outcome"] == "remembered"), "{lines:?}");
}

#[tokio::test]
async fn each_lead_of_each_workspace_has_its_own_reply() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    for (lead, workspace) in [("lead_1", "ws_abc123xyz"), ("lead_2", "ws_abc123xyz"), ("lead_1", "ws_2"), ("l#1", "w")]
    {
        let mut body = reply("evt_reply", lead, &format!("zeppelin of {lead} in {workspace}"));
        body["workspaceId"] = workspace.into();
        function.remembers(&body).await;
    }
    let mut nowhere = reply("evt_reply", "lead_1", "zeppelin of lead_1 in no workspace");
    nowhere.as_object_mut().unwrap().remove("workspaceId");
    function.remembers(&nowhere).await;
    assert_eq!(world.dynamodb.rows().await.len(), 5);
    for (event, lead) in [("evt_1", "lead_1"), ("evt_2", "lead_2")] {
        let (shown, _) = function.alert(event, lead).await;
        assert_eq!(shown["text"], format!("zeppelin of {lead} in ws_abc123xyz"));
    }
    assert_eq!(function.alert("evt_3", "lead_3").await.0, json!(null));
    assert_eq!(&world.aws.calls()[5..9], ["reply", "claim", "publish", "complete"]);
    function.lines().await;
}

#[tokio::test]
async fn reads_every_form_of_a_reply() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    for (number, (event_type, data)) in [
        ("reply.received", json!({ "reply": "zeppelin", "replyPreview": "zep" })),
        ("message.received", json!({ "message": "zeppelin", "messagePreview": "zep" })),
        ("message.received", json!({ "messagePreview": "zeppelin" })),
        ("reply.received", json!({ "replyPreview": "zeppelin", "reply": null })),
        ("reply.received", json!({ "reply": "\u{200b} \n", "message": "zeppelin" })),
        (" Reply.Received", json!({ "reply": ["x"], "message": 7, "replyPreview": "zeppelin" })),
        ("lead.replied", json!({ "reply": "zeppelin" })),
    ]
    .into_iter()
    .enumerate()
    {
        let lead = format!("lead_{number}");
        let mut body = reply("evt_reply", &lead, "");
        body["eventType"] = event_type.into();
        body["data"] = data;
        body["data"]["leadId"] = lead.as_str().into();
        function.remembers(&body).await;
        assert_eq!(world.stored(&key(&lead)).await.unwrap().0, "zeppelin", "{body}");
    }
    // The cut half of an emoji.
    let body = reply("evt_reply", "lead_emoji", "zeppelin").to_string().replace("zeppelin", "zeppelin \\ud83d");
    assert_eq!(function.function.answer(&signed_now(&body)).await.0, 200);
    assert!(world.stored(&key("lead_emoji")).await.unwrap().0.starts_with("zeppelin \u{fffd}"));
    let levels: Vec<_> = function.lines().await.into_iter().map(|line| line["level"].clone()).collect();
    assert_eq!(
        levels,
        ["INFO", "INFO", "INFO", "INFO", "INFO", "INFO", "WARN", "INFO"],
        "a new name should be noticed"
    );
}

#[tokio::test]
async fn cuts_a_long_reply() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    for (number, part) in ["zeppelin ", "zeppelin", "\u{1F6E9}zeppelin", "\u{e9}"].into_iter().enumerate() {
        let lead = format!("lead_{number}");
        let long: String = part.chars().cycle().take(100_000).collect();
        let mut body = reply("evt_reply", &lead, &long);
        body["data"]["replyPreview"] = "zeppelin".into();
        function.remembers(&body).await;
        let (stored, _) = world.stored(&key(&lead)).await.unwrap();
        let length = stored.encode_utf16().count();
        assert!((MAX_REPLY - 20..=MAX_REPLY).contains(&length), "{part}: {length}");
        assert_eq!(function.alert(&format!("evt_{number}"), &lead).await.0["text"], stored, "{part}");
    }
    function.lines().await;
}

#[tokio::test]
async fn ignores_a_reply_without_lead_or_text() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    let without = |data: Value| {
        let mut body = reply("evt_reply", "lead_1", "zeppelin");
        body["data"] = data;
        body
    };
    let unusable = [
        (json!({ "reply": "zeppelin" }), "the reply has no data.leadId"),
        (json!({ "leadId": 7, "reply": "zeppelin" }), "the reply has no data.leadId"),
        (json!({ "leadId": "", "reply": "zeppelin" }), "the reply has no data.leadId"),
        (json!({ "leadId": "lead_1" }), "the reply has no text"),
        (json!({ "leadId": "lead_1", "reply": "" }), "the reply has no text"),
        (json!({ "leadId": "lead_1", "reply": " \u{200b}\u{2028} " }), "the reply has no text"),
        (json!({ "leadId": "lead_1", "reply": ["zeppelin"] }), "the reply has no text"),
        (json!(null), "the reply has no data.leadId"),
        (json!("zeppelin"), "the reply has no data.leadId"),
    ];
    for (data, _) in &unusable {
        assert_eq!(function.send(&without(data.clone())).await, (200, "ignored".into()), "{data}");
    }
    assert_eq!(world.aws.calls(), [""; 0]);
    for (line, (data, why)) in function.lines().await.iter().zip(&unusable) {
        assert_eq!(line["unusedReply"], *why, "{data}: {line}");
    }
}

#[tokio::test]
async fn a_reply_without_a_usable_time_is_from_now() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    let times =
        [json!("2999-01-01T00:00:00Z"), json!(null), json!("yesterday"), json!(7), json!("+12345-01-01T00:00:00Z")];
    for (number, time) in times.into_iter().enumerate() {
        let lead = format!("lead_{number}");
        let mut body = reply("evt_reply", &lead, "zeppelin");
        body["timestamp"] = time.clone();
        let before = now();
        function.remembers(&body).await;
        let (_, at) = world.stored(&key(&lead)).await.unwrap();
        assert!((before.as_millis()..=now().as_millis()).contains(&at), "{time}: {at}");
        // A later reply is not kept out.
        tokio::time::sleep(Duration::from_millis(5)).await;
        function.remembers(&reply("evt_later", &lead, "the next zeppelin")).await;
        assert_eq!(world.stored(&key(&lead)).await.unwrap().0, "the next zeppelin", "{time}");
    }
    let mut ancient = reply("evt_reply", "lead_ancient", "zeppelin");
    ancient["timestamp"] = "1900-01-01T00:00:00Z".into();
    function.remembers(&ancient).await;
    assert_eq!(world.stored(&key("lead_ancient")).await.unwrap().1, 0);
    assert_eq!(function.alert("evt_ancient", "lead_ancient").await.0["at"], "1970-01-01T00:00:00Z");
    function.lines().await;
}

#[tokio::test]
async fn a_reply_that_cannot_be_stored_must_be_sent_again() {
    for fault in [Fault::Refused(500), Fault::Refused(400), Fault::Throttled, Fault::Lost, Fault::HeldBefore] {
        let world = World::with_fate(move |call, _| (call.operation == "remember").then_some(fault)).await;
        let mut function = Remembering::start_within(&world, Duration::from_secs(3)).await;
        let began = Instant::now();
        let body = reply("evt_reply", "lead_1", "zeppelin");
        let (status, answer) = function.function.answer(&signed_now(&body.to_string())).await;
        assert_eq!((status, &answer["outcome"]), (503, &json!("unavailable")), "{fault:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{fault:?}: {:?}", began.elapsed());
        assert_eq!(world.stored(&key("lead_1")).await, None, "{fault:?}");
        let lines = function.lines().await;
        assert_eq!(lines[0]["level"], "ERROR", "{fault:?}");
        assert!(lines[0]["failure"].as_str().unwrap().starts_with("storing the reply failed"), "{}", lines[0]);
    }
}

#[tokio::test]
async fn a_lost_answer_of_the_table_costs_nothing() {
    for fault in [Fault::AnswerLost, Fault::Denied(500), Fault::HeldAfter, Fault::Throttled] {
        let world = World::new().await;
        world.aws.next("remember", fault);
        let mut function = Remembering::start(&world).await;
        function.remembers(&reply("evt_reply", "lead_1", "zeppelin")).await;
        assert_eq!(world.stored(&key("lead_1")).await.unwrap().0, "zeppelin", "{fault:?}");
        function.lines().await;
    }
}

#[tokio::test]
async fn without_the_option_a_reply_costs_no_call() {
    let world = World::new().await;
    let mut function = Lambda::start(environment(&world.aws), TIMEOUT).await;
    let body = reply("evt_1", "lead_abc123", "zeppelin");
    assert_eq!(function.answer(&signed_now(&body.to_string())).await, (200, said("ignored")));
    assert_eq!(world.aws.calls(), [""; 0]);
    assert_eq!(function.answer(&event()).await, (200, said("alerted")));
    assert_eq!(world.aws.calls(), ["claim", "publish", "complete"]);
    let log = function.log().await;
    assert!(!log.contains(WORD) && !log.contains("unusedReply") && !log.contains("etails"), "{log}");
}

/// DynamoDB deletes an expired row only days later.
#[tokio::test]
async fn an_alert_shows_no_expired_reply() {
    let world = World::new().await;
    let mut function = Remembering::start(&world).await;
    let row = |lead: &str, expires_at: u64| -> Item {
        let attributes = [
            ("deliveryId", S(key(lead).as_str().into())),
            ("reply", S("zeppelin".into())),
            ("repliedAt", N("1708770600000".into())),
            ("expiresAt", N(expires_at.to_string())),
        ];
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    world.dynamodb.put(row("lead_1", now().as_secs() - 1)).await;
    world.dynamodb.put(row("lead_2", now().as_secs() + 60)).await;
    assert_eq!(function.alert("evt_1", "lead_1").await.0, json!(null));
    assert_eq!(function.alert("evt_2", "lead_2").await.0, json!({ "text": "zeppelin", "at": "2024-02-24T10:30:00Z" }));
    // A row that someone has changed by hand.
    for (attribute, value) in [("reply", N("7".into())), ("repliedAt", S("today".into())), ("expiresAt", S("".into()))]
    {
        let mut changed = row("lead_3", now().as_secs() + 60);
        changed.insert(attribute.into(), value);
        world.dynamodb.put(changed).await;
        assert_eq!(function.alert(&format!("evt_{attribute}"), "lead_3").await.0, json!(null), "{attribute}");
    }
    function.lines().await;
}

#[tokio::test]
async fn a_reply_that_cannot_be_read_delays_no_alert() {
    for (fault, timeout, longest) in [
        (Fault::Refused(500), TIMEOUT, MARGIN),
        (Fault::Refused(400), TIMEOUT, MARGIN),
        (Fault::Throttled, TIMEOUT, MARGIN),
        (Fault::Lost, TIMEOUT, MARGIN),
        (Fault::HeldBefore, TIMEOUT, MAX_SEARCH + MARGIN),
        (Fault::HeldBefore, Duration::from_secs(3), Duration::from_millis(600) + MARGIN / 2),
    ] {
        let world = World::with_fate(move |call, _| (call.operation == "reply").then_some(fault)).await;
        let mut function = Remembering::start_within(&world, timeout).await;
        function.remembers(&reply("evt_reply", "lead_1", "zeppelin")).await;
        let (shown, took) = function.alert("evt_1", "lead_1").await;
        assert_eq!(shown, json!(null), "{fault:?}");
        assert!(took < longest, "{fault:?}: {took:?}");
        let lines = function.lines().await;
        let line = &lines[1];
        assert_eq!((&line["level"], &line["details"]), (&json!("INFO"), &json!("")), "{fault:?}: {line}");
        assert!(line["detailsFailure"].is_string() && line["ApiKeyUnusable"].is_null(), "{fault:?}: {line}");
    }
}

#[tokio::test]
async fn reads_again_if_the_table_does_not_answer() {
    for fault in [Fault::HeldAfter, Fault::AnswerLost, Fault::Throttled] {
        let world = World::new().await;
        let mut function = Remembering::start(&world).await;
        function.remembers(&reply("evt_reply", "lead_1", "zeppelin")).await;
        world.aws.next("reply", fault);
        assert_eq!(function.alert("evt_1", "lead_1").await.0["text"], "zeppelin", "{fault:?}");
        function.lines().await;
    }
}

#[tokio::test]
async fn fifty_copies_of_a_reply_make_one_row() {
    let world = World::new().await;
    let mut functions = Vec::new();
    for _ in 0..5 {
        functions.push(Remembering::start(&world).await);
    }
    let body = reply("evt_reply", "lead_1", "zeppelin");
    for _ in 0..10 {
        join_all(functions.iter_mut().map(|function| function.remembers(&body))).await;
    }
    assert_eq!(world.dynamodb.rows().await.len(), 1);
    assert_eq!(functions[0].alert("evt_1", "lead_1").await.0["text"], "zeppelin");
    for function in functions {
        function.lines().await;
    }
}
