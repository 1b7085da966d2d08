//! One alert for every SendPilot lead that becomes an opportunity: never lost, and never sent twice without need. And where it is wanted, one
//! message for every change of a lead's status, with the same promise, on a topic of its own: the lead status stream.
//!
//! SendPilot posts a signed webhook to an HTTP API, which invokes the `webhook` function. Every minute, the `redrive`
//! function sees to what is still pending, whatever became of the attempt that had it. A request goes down this list:
//!
//! | module | does |
//! |---|---|
//! | [`config`] | reads the environment; each error names its variable |
//! | [`gateway`] | takes in what API Gateway hands over, whatever an attacker wrote into it |
//! | [`webhook`] | handles one request: verify, parse, apply the rules, relay, answer |
//! | [`signature`] | makes bytes of a stranger into a [`signature::Verified`] body, or says why not |
//! | [`keyring`] | has the secrets that count at this moment, fetched from Secrets Manager and kept fresh |
//! | [`secret`] | one or more signing secrets, never readable again |
//! | [`event`] | makes that into an [`event::Event`]; the one place that knows SendPilot's names |
//! | [`rules`] | decide what the event calls for |
//! | `alert` | writes an alert, once per kind of reader |
//! | `stream` | writes a message to the lead status stream |
//! | [`cloud_event`] | what programs read, of either |
//! | [`pipeline`] | from a status to the stage of a CRM |
//! | [`redrive`] | lists what is pending though nobody holds it, and relays that |
//! | [`relay`] | claims a delivery, publishes it, completes it; or releases it |
//! | [`pace`] | gives each alert a slot, so that they are not published too fast |
//! | [`invocation`] | shares out the time that Lambda gives |
//! | [`ledger`] | the rules of a claim; [`ledger::dynamodb`] holds a table to them |
//! | [`topic`] | where messages go; [`topic::sns`] sends them there |
//! | [`response`] | the one table of outcomes and answers |
//! | [`telemetry`] | one line per invocation, with metrics |
//! | [`aws`], [`error`], [`timestamp`] | the SDK's clients, and connections opened early; an error as text; a moment |
//!
//! # The promise
//!
//! 1. **Nothing lost.** Once an opportunity has been claimed, it is published, whether or not SendPilot ever comes back,
//!    however the function dies, and however long SNS is down. SendPilot is told 2xx only when the alert is out.
//! 2. **Once.** One alert per event. A second publish happens only if a publish took effect and its
//!    proof was lost: the answer was lost, the function crashed before the completion, or the
//!    completion failed until its deadline. The second publish has the same bytes and the same id.
//! 3. **Nobody else.** Only a holder of the signing secret gets in; without a secret the function does not serve.
//! 4. **Nothing for nothing.** An event that calls for nothing costs no AWS call, but for a look at the secret now and then.
//!
//! An event that needs an alert and a message to the stream has two deliveries. Both are relayed at
//! the same time, and neither waits for the other or fails with it. SendPilot gets 2xx once the
//! alert is published and the message is claimed. If this attempt does not publish the message, the
//! redrive does.
//!
//! The time of day, randomness and the environment come in as arguments, what passes after that is tokio's time, which a
//! test can stop, and the ledger and the topic are traits. So every path can be walked in a test.

pub mod aws;
pub mod config;
pub mod delivery;
pub mod environment;
pub mod error;
pub mod invocation;
mod json;
pub mod message;
pub mod redrive;
pub mod secrets;
pub mod sendpilot;
pub mod telemetry;
pub mod timestamp;
pub mod webhook;
