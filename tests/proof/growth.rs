//! The cost of an event depends neither on the number of rows in the table nor on the number of
//! pending rows. The cost of a listing depends only on the number of pending rows.
//!
//! The rows are copies, under other ids, of a row that the ledger wrote. The engine's bulk import
//! stores the copies. The real ledger then claims and completes deliveries among them, over the
//! network.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use crate::PROCESSORS;
use crate::support::aws::{Aws, Fault};
use crate::support::dynamodb::{DynamoDb, TABLE};
use crate::support::lambda::{Lambda, Said, environment};
use crate::support::requests::{opportunity, opportunity_delivery, signed_now};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeSerializationInterceptorContextMut,
};
use aws_sdk_dynamodb::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_dynamodb::error::BoxError;
use aws_sdk_dynamodb::operation::query::{QueryInput, QueryOutput};
use aws_sdk_dynamodb::operation::update_item::{UpdateItemInput, UpdateItemOutput};
use aws_sdk_dynamodb::types::ReturnConsumedCapacity;
use dynoxide::actions::get_item::GetItemRequest;
use dynoxide::types::item_size;
use dynoxide::{AttributeValue, Database, ImportOptions, Item};
use fastrand::Rng;
use futures_util::StreamExt;
use opportunity_alerts::delivery::ledger::dynamodb::{DynamoDbLedger, PENDING_SHARDS};
use opportunity_alerts::delivery::ledger::{ClaimRequest, Ledger, Receipt};
use opportunity_alerts::invocation::LEASE_MARGIN;
use opportunity_alerts::invocation::{Attempt, Owner};
use opportunity_alerts::message::key::DeliveryId;
use opportunity_alerts::timestamp::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The number of rows that a listing reads at a time.
const PAGE: usize = 1000;

/// The timeouts in `template.yaml`.
const TIMEOUT: Duration = Duration::from_secs(10);
const REDRIVE_TIMEOUT: Duration = Duration::from_secs(72);

/// The time of a call to AWS, more than inside a region.
const ROUND_TRIP: Duration = Duration::from_millis(10);

/// The units that the engine charged for a client's calls, in the order of the answers, and the
/// pages that its queries requested. The pages are a set, because the ledger requests a slow page
/// again.
#[derive(Debug, Clone, Default)]
struct Meter {
    units: Arc<Mutex<Vec<f64>>>,
    pages: Arc<Mutex<HashSet<String>>>,
}

impl Meter {
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.units.lock().unwrap())
    }

    fn take_pages(&self) -> HashSet<String> {
        std::mem::take(&mut *self.pages.lock().unwrap())
    }
}

impl Intercept for Meter {
    fn name(&self) -> &'static str {
        "meter"
    }

    fn modify_before_serialization(
        &self,
        context: &mut BeforeSerializationInterceptorContextMut<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let input = context.input_mut();
        if let Some(update) = input.downcast_mut::<UpdateItemInput>() {
            update.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
        } else if let Some(query) = input.downcast_mut::<QueryInput>() {
            query.return_consumed_capacity = Some(ReturnConsumedCapacity::Total);
            let shard = query.expression_attribute_values().map(|values| &values[":shard"]);
            let after = query.exclusive_start_key().map(|key| &key["deliveryId"]);
            self.pages.lock().unwrap().insert(format!("{shard:?} {after:?}"));
        }
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        _: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let output = context.output_or_error().ok();
        let update = output.and_then(|output| output.downcast_ref::<UpdateItemOutput>()?.consumed_capacity());
        let query = output.and_then(|output| output.downcast_ref::<QueryOutput>()?.consumed_capacity());
        // The answer to a refused write does not contain the charge.
        let units = update.or(query).and_then(|capacity| capacity.capacity_units()).unwrap_or_default();
        self.units.lock().unwrap().push(units);
        Ok(())
    }
}

/// A table to fill, and a ledger that uses it.
struct Table {
    database: Database,
    dynamodb: DynamoDb,
    ledger: DynamoDbLedger,
    meter: Meter,
    dice: Rng,
    published: usize,
    pending: usize,
}

impl Table {
    async fn over(database: Database) -> Self {
        let dynamodb = DynamoDb::serving(database.clone()).await;
        let meter = Meter::default();
        let config = dynamodb.client.config().to_builder().interceptor(meter.clone()).build();
        let ledger = DynamoDbLedger::new(Client::from_conf(config), TABLE.into());
        Self { database, dynamodb, ledger, meter, dice: Rng::with_seed(1), published: 0, pending: 0 }
    }

    /// Returns a new event id in SendPilot's form, with a random time.
    fn event_id(&mut self) -> String {
        let random: String = (0..9).map(|_| self.dice.lowercase()).collect();
        format!("evt_{}_{random}", 1_708_456_789_123 + self.dice.u64(0..10_000_000_000))
    }

    /// Returns the row of an event's delivery, as the engine stores it.
    fn row(&self, event_id: &str) -> Item {
        let key = [("deliveryId".to_owned(), AttributeValue::S(delivery_id(event_id).as_str().into()))];
        let request = GetItemRequest { table_name: TABLE.into(), key: key.into(), ..GetItemRequest::default() };
        self.database.get_item(request).unwrap().item.unwrap()
    }

    /// Claims and completes an event's delivery. Returns the time of each.
    async fn relay(&self, event_id: &str) -> [Duration; 2] {
        let wanted = ClaimRequest::Delivery(opportunity_delivery(event_id));
        let began = Instant::now();
        let claimed = self.ledger.claim(wanted, attempt()).await.unwrap();
        let claiming = began.elapsed();
        let Ok(claim) = claimed.claim else { panic!("{claimed:?}") };
        let receipt = Receipt {
            message_id: "94f20ce6-13c5-43a0-9a9e-ca52d816e90b".into(),
            published_at: now(),
            expires_at: now().after(Duration::from_secs(30 * 86_400)),
        };
        let began = Instant::now();
        self.ledger.complete(&claim, &receipt).await.unwrap();
        [claiming, began.elapsed()]
    }

    /// Claims an event's delivery until `lease_until`, and leaves it pending.
    async fn abandon(&self, event_id: &str, lease_until: Timestamp) {
        let attempt = Attempt { lease_until, ..attempt() };
        let claimed = self.ledger.claim(ClaimRequest::Delivery(opportunity_delivery(event_id)), attempt).await.unwrap();
        assert!(claimed.claim.is_ok(), "{claimed:?}");
    }

    /// Returns the charge for a claim, a completion, a takeover and a release.
    async fn units(&mut self) -> [f64; 4] {
        let [done, left] = [self.event_id(), self.event_id()];
        self.meter.take();
        self.relay(&done).await;
        let mut units = self.meter.take();
        self.abandon(&left, now()).await;
        self.meter.take();
        let claimed = self.ledger.claim(ClaimRequest::Pending(delivery_id(&left)), attempt()).await.unwrap();
        let Ok(claim) = claimed.claim else { panic!("{claimed:?}") };
        self.ledger.release(&claim, now(), "why").await.unwrap();
        units.append(&mut self.meter.take());
        units.try_into().unwrap()
    }

    /// Adds published rows to the table until there are `rows`.
    async fn publish_until(&mut self, rows: usize) {
        if rows > self.published {
            let event_id = self.event_id();
            self.relay(&event_id).await;
            self.copy(&event_id, rows - self.published - 1);
            self.published = rows;
        }
    }

    /// Adds pending rows to the table until there are `rows`. Their leases end at `lease_until`.
    async fn abandon_until(&mut self, rows: usize, lease_until: Timestamp) {
        if rows > self.pending {
            let event_id = self.event_id();
            self.abandon(&event_id, lease_until).await;
            self.copy(&event_id, rows - self.pending - 1);
            self.pending = rows;
        }
    }

    /// Copies an event's row under `count` other ids.
    fn copy(&mut self, event_id: &str, mut count: usize) {
        const AT_ONCE: usize = 10_000;
        let row = self.row(event_id);
        while count > 0 {
            let ids: Vec<_> = (0..count.min(AT_ONCE)).map(|_| self.event_id()).collect();
            let rows = ids.iter().map(|id| copied(&row, event_id, id)).collect();
            self.database.import_items(TABLE, rows, ImportOptions::default()).unwrap();
            count -= ids.len();
        }
        self.meter.take();
    }
}

/// Returns the row of an event that differs only in its id.
fn copied(row: &Item, event_id: &str, other: &str) -> Item {
    let mut row = row.clone();
    let id = delivery_id(other);
    let AttributeValue::M(message) = row.get_mut("message").unwrap() else { panic!() };
    let AttributeValue::S(body) = message.get_mut("Message").unwrap() else { panic!() };
    *body = body.replace(event_id, other);
    if row.contains_key("pending") {
        row.insert("pending".into(), AttributeValue::S(shard(&id).to_string()));
    }
    row.insert("deliveryId".into(), AttributeValue::S(id.as_str().into()));
    row
}

fn delivery_id(event_id: &str) -> DeliveryId {
    DeliveryId::alert(Some("ws_abc123xyz"), event_id)
}

/// Returns the shard that the ledger would write into the row of this delivery.
fn shard(id: &DeliveryId) -> u8 {
    Sha256::digest(id.as_str())[0] % PENDING_SHARDS
}

fn attempt() -> Attempt {
    let now = now();
    let owner = Owner::new("8476a536-e9f4-11e8-9739-2dfe598c3fcd", fastrand::u64(..).to_be_bytes());
    Attempt { owner, now, lease_until: now.after(TIMEOUT + LEASE_MARGIN) }
}

fn now() -> Timestamp {
    SystemTime::now().into()
}

/// The cost of events: the sorted times of claims and completions, and the units of each.
struct Cost {
    claims: Vec<Duration>,
    completions: Vec<Duration>,
    units: [f64; 2],
}

async fn cost(table: &mut Table, events: usize) -> Cost {
    let (mut claims, mut completions, mut units) = (Vec::new(), Vec::new(), [0.0; 2]);
    for _ in 0..events {
        let event_id = table.event_id();
        let [claim, completion] = table.relay(&event_id).await;
        claims.push(claim);
        completions.push(completion);
        units = table.meter.take().try_into().expect("a claim and a completion should be one call each");
    }
    claims.sort();
    completions.sort();
    Cost { claims, completions, units }
}

/// Returns a percentile in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[sorted.len() * percent / 100].as_secs_f64() * 1000.0
}

/// The result and the cost of one listing.
struct Listing {
    /// The number of rows in each shard.
    rows: [usize; PENDING_SHARDS as usize],
    first: Duration,
    all: Duration,
    pages: usize,
    units: f64,
}

async fn listing(table: &Table) -> Listing {
    let began = Instant::now();
    let mut rows = std::pin::pin!(table.ledger.pending());
    let (mut counts, mut first) = ([0; PENDING_SHARDS as usize], None);
    while let Some(row) = rows.next().await {
        counts[usize::from(shard(&row.unwrap().id))] += 1;
        first.get_or_insert(began.elapsed());
    }
    let all = began.elapsed();
    let (pages, units) = (table.meter.take_pages().len(), table.meter.take().iter().sum());
    Listing { rows: counts, first: first.unwrap_or(all), all, pages, units }
}

/// A run of the real redrive, in its own process, over the table's pending deliveries.
struct Run {
    report: Value,
    /// The time until the first takeover. The listing is complete by then.
    listed: Duration,
    took: Duration,
    pages: usize,
    peak_kb: Option<u64>,
}

async fn redrive(table: &Table) -> Run {
    let aws = Aws::with_fate(&table.dynamodb.url, |_, _| Some(Fault::Delayed(ROUND_TRIP))).await;
    let mut redrive = Lambda::start_redrive(&aws, REDRIVE_TIMEOUT).await;
    let began = Instant::now();
    let Said::Response(report) = redrive.invoke(&json!({})).await else { panic!("the redrive failed") };
    let took = began.elapsed();
    let peak_kb = redrive.peak_memory();
    redrive.kill().await;
    let journal = aws.journal();
    let takeover = journal.iter().find(|call| call.operation == "takeover").map_or(took, |call| call.at - began);
    let lists = journal.iter().filter(|call| call.operation == "list");
    Run { report, listed: takeover, took, pages: lists.map(|call| &call.page).collect::<HashSet<_>>().len(), peak_kb }
}

/// Returns the real function's calls for an opportunity, and for its duplicate.
async fn calls_of_an_alert(table: &mut Table) -> [Vec<String>; 2] {
    let aws = Aws::before(&table.dynamodb.url).await;
    let mut webhook = Lambda::start(environment(&aws), TIMEOUT).await;
    let payload = signed_now(&opportunity(&table.event_id()));
    let mut calls = Vec::new();
    for outcome in ["alerted", "duplicate"] {
        assert_eq!(webhook.answer(&payload).await.1["outcome"], outcome);
        calls.push(aws.take_calls());
    }
    calls.try_into().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_row_equals_a_written_one() {
    let table = Table::over(Database::memory().unwrap()).await;
    for abandoned in [false, true] {
        let ids = ["a", "b"].map(|id| format!("evt_{id}_{abandoned}"));
        let mut rows = Vec::new();
        for id in &ids {
            if abandoned {
                table.abandon(id, now()).await;
            } else {
                table.relay(id).await;
            }
            rows.push(table.row(id));
        }
        rows[0] = copied(&rows[0], &ids[0], &ids[1]);
        for row in &mut rows {
            for of_the_attempt in ["owner", "leaseUntil", "firstSeenAt", "publishedAt", "expiresAt"] {
                row.remove(of_the_attempt);
            }
        }
        assert_eq!(rows[0], rows[1]);
    }
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn a_write_is_charged_for_the_row_and_the_index() {
    let mut table = Table::over(Database::memory().unwrap()).await;
    let event_id = table.event_id();
    table.relay(&event_id).await;
    let size = item_size(&table.row(&event_id));
    let units = table.units().await;
    println!("The sample opportunity's row has {size} bytes. Claim, completion, takeover, release: {units:?} units.");
    let row = size.div_ceil(1024) as f64;
    assert_eq!(units, [row + 1.0, row + 1.0, row + 2.0, row + 2.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_costs_the_same_with_thousands_of_rows() {
    const FEW: usize = 100;
    const MANY: usize = 50 * FEW;
    /// Two pages in each shard.
    const PENDING: usize = 9_000;
    const EVENTS: usize = 100;
    let _processors = PROCESSORS.lock().await;
    let mut table = Table::over(Database::memory().unwrap()).await;
    table.publish_until(FEW).await;
    let among_few = cost(&mut table, EVENTS).await;
    let calls = calls_of_an_alert(&mut table).await;
    assert_eq!(calls, [vec!["claim", "publish", "complete"], vec!["claim"]]);
    assert_eq!(
        listing(&table).await.pages,
        usize::from(PENDING_SHARDS),
        "an empty listing should read one page per shard"
    );

    table.publish_until(MANY).await;
    table.abandon_until(PENDING, now().after(Duration::from_secs(3600))).await;
    let among_many = cost(&mut table, EVENTS).await;
    assert_eq!(calls_of_an_alert(&mut table).await, calls);
    assert_eq!(among_many.units, among_few.units);
    // A limit of ten times allows for a busy machine. A scan would take fifty times as long.
    for (few, many) in [(&among_few.claims, &among_many.claims), (&among_few.completions, &among_many.completions)] {
        let [few, many] = [few, many].map(|times| percentile(times, 50));
        assert!(many < 10.0 * few, "{few} ms with {FEW} rows, {many} ms with {MANY}");
    }

    let listing = listing(&table).await;
    assert_eq!(listing.rows.iter().sum::<usize>(), PENDING);
    // A full page is followed by one more page.
    let pages: usize = listing.rows.iter().map(|rows| rows / PAGE + 1).sum();
    assert_eq!(listing.pages, pages);
    let run = redrive(&table).await;
    assert_eq!(
        (&run.report["scanned"], &run.report["published"]),
        (&json!(PENDING), &json!(0)),
        "every delivery is claimed, so none should be published"
    );
    assert_eq!(run.pages, listing.pages);
}

/// Returns a database on disk, because the tables of the long tests take gigabytes.
fn on_disk() -> (tempfile::TempDir, Database) {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::new(folder.path().join("table").to_str().unwrap()).unwrap();
    // Bulk loading skips durable writes, because the test measures only the search.
    database.enable_bulk_loading().unwrap();
    (folder, database)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes and gigabytes: `make growth`"]
#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn an_event_costs_the_same_with_millions_of_rows() {
    let _processors = PROCESSORS.lock().await;
    let (_folder, database) = on_disk();
    let mut table = Table::over(database).await;
    println!("      rows      GB     claim: median,    99th, units  completion: median,    99th, units");
    for rows in [10_000, 100_000, 1_000_000, 2_000_000] {
        table.publish_until(rows).await;
        let Cost { claims, completions, units } = cost(&mut table, 2000).await;
        println!(
            "{rows:>10}{:>8.2}{:>16.2} ms{:>8.2} ms{:>6}{:>16.2} ms{:>8.2} ms{:>6}",
            table.database.db_size_bytes().unwrap() as f64 / 1e9,
            percentile(&claims, 50),
            percentile(&claims, 99),
            units[0],
            percentile(&completions, 50),
            percentile(&completions, 99),
            units[1],
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make growth`"]
#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn measures_a_hundred_thousand_pending_deliveries() {
    let _processors = PROCESSORS.lock().await;
    let (_folder, database) = on_disk();
    let mut table = Table::over(database).await;
    table.publish_until(10_000).await;
    println!("Listing and claim directly at the engine. A run of the redrive, with {ROUND_TRIP:?} per call to AWS.");
    println!(
        "   pending   first row        all   pages   units   claim: median,   99th   the run: listed   ended   \
         published   still pending   peak memory"
    );
    for rows in [0, 1_000, 10_000, 100_000] {
        table.abandon_until(rows, now()).await;
        let Listing { rows: listed, first, all, pages, units } = listing(&table).await;
        assert_eq!(listed.iter().sum::<usize>(), rows);
        let Cost { claims, .. } = cost(&mut table, 1000).await;
        let run = redrive(&table).await;
        let peak = run.peak_kb.map_or("unknown".into(), |kb| format!("{:.1} MB", kb as f64 / 1024.0));
        println!(
            "{rows:>10}{:>9.1} ms{:>8.1} ms{:>8}{:>8}{:>14.2} ms{:>8.2} ms{:>16.2} s{:>5.1} s{:>12}{:>16}{peak:>14}",
            first.as_secs_f64() * 1000.0,
            all.as_secs_f64() * 1000.0,
            pages,
            units,
            percentile(&claims, 50),
            percentile(&claims, 99),
            run.listed.as_secs_f64(),
            run.took.as_secs_f64(),
            run.report["published"].as_u64().unwrap(),
            run.report["stillPending"].as_u64().unwrap(),
        );
        table.pending = run.report["stillPending"].as_u64().unwrap() as usize;
    }
}
