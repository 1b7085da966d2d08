//! Measures the steps of a request that need no AWS, with a body of usual length and with the
//! longest body.

use std::collections::HashMap;
use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, SystemTime};

use criterion::{BenchmarkId, Criterion, Throughput};
use http::HeaderMap;
use opportunity_alerts::message::details::Details;
use opportunity_alerts::message::rules::Rules;
use opportunity_alerts::secrets::signing::Secrets;
use opportunity_alerts::sendpilot::{event, signature};
use requests::Kind;
use serde_json::Value;
use testkit::sendpilot::SECRET;

fn main() -> Result<(), Box<dyn Error>> {
    let criterion = Criterion::default().warm_up_time(Duration::from_secs(1)).measurement_time(Duration::from_secs(3));
    let mut criterion = criterion.without_plots().configure_from_args();
    let secrets = Secrets::parse(SECRET)?;
    let now = SystemTime::now().into();
    for length in [0, 256 * 1024] {
        let request: Value = serde_json::from_slice(&Kind::Alert.request(0, length)?)?;
        let headers: HashMap<String, String> = serde_json::from_value(request["headers"].clone())?;
        let headers = HeaderMap::try_from(&headers)?;
        let body = request["body"].as_str().unwrap_or_default().as_bytes();
        let verified = signature::verify(&headers, body, &secrets, now)?;
        let event = event::parse(&verified)?;
        let mut steps = criterion.benchmark_group("steps");
        steps.throughput(Throughput::Bytes(body.len() as u64));
        steps.bench_function(BenchmarkId::new("verify", body.len()), |bencher| {
            bencher.iter(|| signature::verify(black_box(&headers), black_box(body), &secrets, now));
        });
        steps.bench_function(BenchmarkId::new("parse", body.len()), |bencher| {
            bencher.iter(|| event::parse(black_box(&verified)));
        });
        steps.bench_function(BenchmarkId::new("render", body.len()), |bencher| {
            let (rules, details) = (Rules::default(), Details::default());
            bencher.iter(|| rules.due(black_box(&event)).map(|due| due.alert.map(|alert| alert.delivery(&details))));
        });
        steps.finish();
    }
    criterion.final_summary();
    Ok(())
}
