//! Reads the functions' calls to AWS in their wire format, and writes AWS's answers.

use std::collections::HashMap;

use hyper::header::HeaderMap;
use serde_json::{Value, json};

use crate::http::{Answer, answer};

/// The services, as they are named in the variables for an SDK's endpoints.
pub const SERVICES: [&str; 3] = ["DYNAMODB", "SNS", "SECRETS_MANAGER"];

/// A call of one operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Call {
    /// An operation of DynamoDB or Secrets Manager, such as `UpdateItem`, with its input.
    Json(String, Value),
    /// SNS's `Publish`, with its parameters.
    Publish(HashMap<String, String>),
}

impl Call {
    /// Reads a request. Returns `None` if the functions make no such call.
    pub fn read(headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        if let Some(target) = headers.get("x-amz-target") {
            let (_, operation) = target.to_str().ok()?.rsplit_once('.')?;
            return Some(Self::Json(operation.to_owned(), serde_json::from_slice(body).ok()?));
        }
        let parameters: HashMap<_, _> = url::form_urlencoded::parse(body).into_owned().collect();
        (parameters.get("Action")? == "Publish").then_some(Self::Publish(parameters))
    }
}

/// Returns the answer of DynamoDB or Secrets Manager with this output.
pub fn output(output: &Value) -> Answer {
    answer(200, JSON, output.to_string())
}

/// Returns SNS's answer to a publish that it has accepted.
pub fn published(message_id: &str) -> Answer {
    let content = format!(
        "<PublishResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishResult>\
         <MessageId>{message_id}</MessageId></PublishResult><ResponseMetadata>\
         <RequestId>d74b8436-ae13-5ab4-a9ff-ce54dfea72a0</RequestId></ResponseMetadata></PublishResponse>"
    );
    answer(200, XML, content)
}

/// Returns DynamoDB's or Secrets Manager's answer to a call that it refuses, with further members
/// of the error.
pub fn refused(error: &str, members: Value) -> Answer {
    let mut body = json!({ "__type": error, "message": "The request is refused" });
    if let (Value::Object(body), Value::Object(members)) = (&mut body, members) {
        body.extend(members);
    }
    answer(400, JSON, body.to_string())
}

/// Returns SNS's answer to a publish that it refuses.
pub fn publish_refused(code: &str) -> Answer {
    let content = format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code></Error></ErrorResponse>");
    answer(400, XML, content)
}

/// DynamoDB's media type. Secrets Manager's has another version, which no SDK reads.
const JSON: &str = "application/x-amz-json-1.0";

const XML: &str = "text/xml";
