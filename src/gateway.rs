//! An invocation's payload, made into a request that `lambda_http` can convert without a panic.
//!
//! `lambda_http` refuses a whole payload for one header outside ASCII, and panics on a query or a host that is no URI and
//! on base64 that is none. Who sends such a thing has no signature, and must get an answer like anybody else: a function
//! that dies of it costs its next request a cold start, and its owner an alarm. So only what the handler reads is taken
//! over, and only where it is fit to be: what is left out makes a forged request fail at its signature.

use std::collections::HashMap;

use data_encoding::BASE64;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use lambda_http::request::LambdaRequest;
use serde::Deserialize;

use crate::lossy::Lossy;

/// A request in the payload format 2.0 of API Gateway's HTTP APIs, as far as it is read.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Payload {
    raw_path: Lossy,
    #[serde(default)]
    headers: HashMap<Lossy, Lossy>,
    request_context: Context,
    body: Option<Lossy>,
    #[serde(default)]
    is_base64_encoded: bool,
}

#[derive(Debug, Deserialize)]
struct Context {
    http: Http,
    stage: Option<Lossy>,
}

#[derive(Debug, Deserialize)]
struct Http {
    method: Lossy,
}

impl From<Payload> for LambdaRequest {
    fn from(payload: Payload) -> Self {
        let Payload { raw_path: Lossy(path), headers, request_context, body, is_base64_encoded } = payload;
        // API Gateway puts a stage that has a name before the path.
        let stage = request_context.stage.map(|Lossy(stage)| format!("/{stage}"));
        let path = stage.and_then(|stage| path.strip_prefix(&stage)).unwrap_or(&path);
        let path = Some(path).filter(|path| path.starts_with('/') && path.parse::<PathAndQuery>().is_ok());
        let body = body.filter(|Lossy(body)| !is_base64_encoded || BASE64.decode(body.as_bytes()).is_ok());

        let mut request = ApiGatewayV2httpRequest::default();
        request.raw_path = path.map(str::to_owned);
        // No method that HTTP does not know is one that the route takes.
        request.request_context.http.method = request_context.http.method.0.parse().unwrap_or(Method::OPTIONS);
        request.headers =
            headers.into_iter().filter_map(|(Lossy(name), Lossy(value))| header(&name, &value)).collect::<HeaderMap>();
        request.headers.remove(http::header::HOST);
        request.body = body.map(|Lossy(body)| body);
        request.is_base64_encoded = is_base64_encoded;
        Self::ApiGatewayV2(request)
    }
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}
