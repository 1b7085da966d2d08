//! An invocation's payload, made into one that `lambda_http` can convert without a panic.
//!
//! `lambda_http` refuses a whole payload for one header outside ASCII, and panics on a query or a host that is no URI and
//! on base64 that is none. Who sends such a thing has no signature, and must get an answer like anybody else: a function
//! that dies of it costs its next request a cold start, and its owner an alarm.

use data_encoding::BASE64;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, header};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use lambda_http::request::LambdaRequest;
use serde::{Deserialize, Deserializer, de};
use serde_json::Value;

/// A request in API Gateway's payload format 2.0.
#[derive(Debug)]
pub struct Payload(LambdaRequest);

impl From<Payload> for LambdaRequest {
    fn from(payload: Payload) -> Self {
        payload.0
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut payload = Value::deserialize(deserializer)?;
        if let Some(headers) = payload.get_mut("headers").and_then(Value::as_object_mut) {
            headers.retain(|name, value| {
                let name = HeaderName::try_from(name.as_str());
                name.is_ok() && value.as_str().is_some_and(|value| HeaderValue::from_str(value).is_ok())
            });
        }
        match serde_json::from_value(payload) {
            Ok(request) => Ok(Self(LambdaRequest::ApiGatewayV2(mend(request)))),
            // The error's own text may quote what was sent, and the runtime logs it.
            Err(_) => Err(de::Error::custom("not a request of an API Gateway HTTP API, payload format 2.0")),
        }
    }
}

/// Takes out what no part of this crate reads and the conversion could trip over. What is left makes any forged request
/// fail at its signature, and leaves a genuine one as it is.
fn mend(mut request: ApiGatewayV2httpRequest) -> ApiGatewayV2httpRequest {
    request.raw_query_string = None;
    request.request_context.domain_name = None;
    request.headers.remove(header::HOST);
    // API Gateway puts a stage that has a name before the path.
    let stage = request.request_context.stage.take().map(|stage| format!("/{stage}"));
    let path = request.raw_path.as_deref().unwrap_or_default();
    let path = stage.and_then(|stage| path.strip_prefix(&stage)).unwrap_or(path);
    let path = Some(path).filter(|path| path.starts_with('/') && path.parse::<PathAndQuery>().is_ok());
    request.raw_path = path.map(str::to_owned);
    if request.is_base64_encoded {
        request.body = request.body.filter(|body| BASE64.decode(body.as_bytes()).is_ok());
    }
    request
}
