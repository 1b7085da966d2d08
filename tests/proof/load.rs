//! Mixed events over several processes of the real function, with a real DynamoDB engine. The
//! events are opportunities, duplicates, other changes of status, and forgeries. Each opportunity
//! is alerted once, even if several processes get it.
//!
//! Each call to AWS takes [`ROUND_TRIP`], as it would inside a region. More processes wait for more
//! calls at the same time, so throughput grows with their number. Processes, engine and senders
//! share the processors of this machine.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::PROCESSORS;
use crate::support::aws::{Aws, Fault};
use crate::support::dynamodb::DynamoDb;
use crate::support::fleet::{Fleet, Function};
use crate::support::lambda::Said;
use crate::support::requests::{change, opportunity, payload, signed_now};
use fastrand::Rng;
use futures_util::{StreamExt, stream};
use serde_json::Value;

const ROUND_TRIP: Duration = Duration::from_millis(10);
const TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq)]
enum Event {
    Opportunity(String),
    /// A duplicate of an opportunity that was sent before, perhaps just before.
    Duplicate(String),
    OtherStatus(String),
    Forgery,
}

impl Event {
    fn payload(&self) -> Value {
        match self {
            Self::Opportunity(id) | Self::Duplicate(id) => signed_now(&opportunity(id)),
            Self::OtherStatus(id) => signed_now(&change(id, "REPLY_RECEIVED")),
            Self::Forgery => payload("forged"),
        }
    }

    fn may_be_answered(&self, status: u64) -> bool {
        match self {
            Self::Opportunity(_) | Self::Duplicate(_) => matches!(status, 200 | 409),
            Self::OtherStatus(_) => status == 200,
            Self::Forgery => status == 401,
        }
    }
}

/// Returns the same events in every run.
fn events(count: usize) -> Vec<Event> {
    let mut dice = Rng::with_seed(1);
    let (mut events, mut opportunities) = (Vec::new(), Vec::new());
    for number in 0..count {
        let id = format!("evt_{number}");
        events.push(match dice.u32(0..100) {
            0..20 if !opportunities.is_empty() => Event::Duplicate(dice.choice(&opportunities).cloned().unwrap()),
            20..55 => Event::OtherStatus(id),
            55..60 => Event::Forgery,
            _ => {
                opportunities.push(id.clone());
                Event::Opportunity(id)
            }
        });
    }
    events
}

struct Measured {
    per_second: f64,
    times: Vec<Duration>,
}

async fn measure(processes: usize, count: usize) -> Measured {
    let dynamodb = DynamoDb::start().await;
    let aws = Aws::with_fate(&dynamodb.url, |_, _| Some(Fault::Delayed(ROUND_TRIP))).await;
    let fleet = Fleet::new(Function::Webhook, processes, &aws, TIMEOUT);
    // Starts all processes before the measurement.
    stream::iter(0..processes)
        .for_each_concurrent(None, async |_| drop(fleet.invoke(&payload("forged"), TIMEOUT).await))
        .await;

    let events = events(count);
    let began = Instant::now();
    let answers = stream::iter(&events).map(async |event| {
        let payload = event.payload();
        let sent = Instant::now();
        let said = fleet.invoke(&payload, TIMEOUT).await;
        let Said::Response(response) = said else { panic!("{event:?}: {said:?}") };
        let status = response["statusCode"].as_u64().unwrap();
        assert!(event.may_be_answered(status), "{event:?}: {response}");
        sent.elapsed()
    });
    let mut times: Vec<_> = answers.buffer_unordered(processes).collect().await;
    let per_second = count as f64 / began.elapsed().as_secs_f64();

    let mut alerts = aws.alerts();
    alerts.sort();
    let opportunities = events.iter().filter_map(|event| match event {
        Event::Opportunity(id) => Some(id.clone()),
        _ => None,
    });
    let opportunities: BTreeSet<_> = opportunities.collect();
    assert_eq!(alerts, Vec::from_iter(opportunities), "each opportunity should be alerted once");
    assert_eq!(dynamodb.pending().await, []);
    times.sort();
    Measured { per_second, times }
}

#[expect(clippy::print_stdout, reason = "the figures are for people to read")]
async fn check(sizes: &[usize], count: usize) {
    let _processors = PROCESSORS.lock().await;
    println!("processes  events  per second  growth           median         99th");
    let mut alone = None;
    for &processes in sizes {
        let Measured { per_second, times } = measure(processes, count).await;
        let growth = per_second / *alone.get_or_insert(per_second);
        let [half, most] = [50, 99].map(|percent| times[times.len() * percent / 100].as_secs_f64() * 1000.0);
        println!("{processes:>9}{count:>8}{per_second:>12.0}{growth:>7.1} x{half:>14.1} ms{most:>10.1} ms");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_events_alert_once_each() {
    check(&[4], 600).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes: `make load`"]
async fn throughput_grows_with_processes() {
    check(&[1, 2, 4, 8], 4000).await;
}
