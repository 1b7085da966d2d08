//! Converts an invocation's payload to a request, and a response to the invocation's result.
//!
//! `lambda_http::run` would do both, but one header outside ASCII makes it refuse the whole
//! payload. It also panics on malformed base64, and on a query or a host that is not a URI. Anyone
//! can send such a request without a signature. A panic would cost a cold start and raise an alarm.
//! So this module copies only the valid parts that the handler reads. If a needed part is left out,
//! the request fails the check of its signature.

use std::collections::HashMap;
use std::fmt;

use data_encoding::BASE64;
use http::uri::PathAndQuery;
use http::{HeaderName, HeaderValue, Method, Uri};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpResponse;
use lambda_http::{Body, Request, Response};
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::json::LossyString;

/// An invocation's payload. A request in payload format 2.0 of API Gateway's HTTP APIs is reduced
/// to the members that are needed. Any other payload is reduced to its kind.
#[derive(Debug)]
pub struct Payload(Result<Members, NotARequest>);

/// A payload of the wrong format. The message names the expected format and the kind of payload
/// that arrived, and never quotes its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the function expects an event of API Gateway's HTTP API, in payload format 2.0; {0} arrived")]
pub struct NotARequest(&'static str);

impl NotARequest {
    const UNREADABLE: Self = Self("a payload that is not JSON, or has a member of another type than in that format,");
}

/// The members of format 2.0 that the handler needs, and the members that identify events of other
/// sources. AWS documents both payload formats at
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html>,
/// and the other events at <https://docs.aws.amazon.com/lambda/latest/dg/lambda-services.html>.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Members {
    raw_path: Option<LossyString>,
    headers: Option<HashMap<LossyString, LossyString>>,
    request_context: Option<Context>,
    body: Option<LossyString>,
    is_base64_encoded: Option<bool>,
    http_method: Option<IgnoredAny>,
    #[serde(rename = "Records")]
    records: Option<Vec<Record>>,
    #[serde(rename = "detail-type")]
    detail_type: Option<IgnoredAny>,
    event_type: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Context {
    http: Option<Http>,
    stage: Option<LossyString>,
    elb: Option<IgnoredAny>,
    connection_id: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Http {
    method: Option<LossyString>,
}

/// A record of an event of SQS, SNS or another service. Only SNS writes the name with a capital
/// letter.
#[derive(Debug, Deserialize)]
struct Record {
    #[serde(rename = "eventSource", alias = "EventSource")]
    event_source: Option<LossyString>,
}

impl<'de> Deserialize<'de> for Payload {
    /// Never fails, because the runtime would log serde's error, which may quote the payload.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self(deserializer.deserialize_any(AnyJson).unwrap_or(Err(NotARequest::UNREADABLE))))
    }
}

/// Reads an object as [`Members`], and any other JSON value as its kind.
struct AnyJson;

impl<'de> Visitor<'de> for AnyJson {
    type Value = Result<Members, NotARequest>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event of API Gateway's HTTP API, in payload format 2.0")
    }

    fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Self::Value, A::Error> {
        Members::deserialize(MapAccessDeserializer::new(members)).map(Ok)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Err(NotARequest("a JSON array")))
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("JSON's null")))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("a JSON boolean")))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("a JSON number")))
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("a JSON number")))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("a JSON number")))
    }

    fn visit_str<E>(self, _: &str) -> Result<Self::Value, E> {
        Ok(Err(NotARequest("a JSON string")))
    }
}

impl Members {
    /// Returns the kind of an object that is not a request.
    fn kind(&self) -> NotARequest {
        let context = self.request_context.as_ref();
        NotARequest(if context.is_some_and(|context| context.elb.is_some()) {
            "an event of an Application Load Balancer"
        } else if context.is_some_and(|context| context.connection_id.is_some()) {
            "an event of a WebSocket API"
        } else if self.http_method.is_some() {
            "an event of a REST API, or of an HTTP API in payload format 1.0,"
        } else if let Some(records) = &self.records {
            match records
                .first()
                .and_then(|record| record.event_source.as_ref())
                .map(|LossyString(source)| source.as_str())
            {
                Some("aws:sqs") => "an event of Amazon SQS",
                Some("aws:sns") => "an event of Amazon SNS",
                _ => "an event with records of another AWS service",
            }
        } else if self.detail_type.is_some() {
            "an event of Amazon EventBridge"
        } else if self.event_type.is_some() {
            "an event of SendPilot, without the HTTP request around it,"
        } else {
            "a JSON object of another form"
        })
    }
}

impl TryFrom<Payload> for Request {
    type Error = NotARequest;

    fn try_from(Payload(members): Payload) -> Result<Self, NotARequest> {
        let (path, method, stage, headers, body, is_base64_encoded) = match members? {
            Members {
                raw_path: Some(LossyString(path)),
                request_context: Some(Context { http: Some(Http { method: Some(LossyString(method)) }), stage, .. }),
                headers,
                body,
                is_base64_encoded,
                ..
            } => (path, method, stage, headers, body, is_base64_encoded.unwrap_or_default()),
            other => return Err(other.kind()),
        };
        let mut request = Self::new(match body {
            Some(LossyString(text)) if is_base64_encoded => {
                BASE64.decode(text.as_bytes()).map_or(Body::Empty, Body::Binary)
            }
            Some(LossyString(text)) => Body::Text(text),
            None => Body::Empty,
        });
        // API Gateway puts the stage's name before the path, except the name `$default`.
        let stage = stage.map(|LossyString(stage)| format!("/{stage}"));
        let path = stage.and_then(|stage| path.strip_prefix(&stage)).unwrap_or(&path);
        if path.starts_with('/')
            && let Ok(path) = path.parse::<PathAndQuery>()
        {
            *request.uri_mut() = Uri::from(path);
        }
        // A text that cannot be a method becomes OPTIONS, which is answered with 405.
        *request.method_mut() = method.parse().unwrap_or(Method::OPTIONS);
        let headers = headers.into_iter().flatten();
        request
            .headers_mut()
            .extend(headers.filter_map(|(LossyString(name), LossyString(value))| header(&name, &value)));
        Ok(request)
    }
}

/// Returns a response in payload format 2.0.
pub fn result(response: Response<String>) -> ApiGatewayV2httpResponse {
    let (parts, body) = response.into_parts();
    let mut result = ApiGatewayV2httpResponse::default();
    result.status_code = parts.status.as_u16().into();
    result.headers = parts.headers;
    result.body = Some(Body::Text(body));
    result
}

fn header(name: &str, value: &str) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}
