//! Sends one alert for every SendPilot lead that becomes an opportunity: never lost, and never sent
//! twice unless its proof was lost. An optional second topic, the lead status stream, gets one
//! message for every change of a lead's status, with the same promise.
//!
//! SendPilot posts a signed webhook to an HTTP API, which invokes the `webhook` function. Every
//! minute, the `redrive` function publishes pending deliveries. A request goes down this list, and
//! a module imports only modules below its own row:
//!
//! | module | does |
//! |---|---|
//! | [`config`] | reads the environment; each error names its variable |
//! | [`webhook`] | answers one request: [`gateway`](webhook::gateway) reads the payload, the handler verifies, parses and delivers, [`response`](webhook::response) is the table of answers |
//! | [`redrive`] | lists the pending deliveries whose lease has expired, and attempts each |
//! | [`delivery`] | [`relay`](delivery::relay) claims, publishes, completes or releases; [`ledger`](delivery::ledger) has the rules of a claim; [`topic`](delivery::topic) takes messages; [`pace`](delivery::pace) gives each alert a slot |
//! | [`message`] | [`rules`](message::rules) decide which deliveries an event needs; the other modules write their messages |
//! | [`sendpilot`] | [`signature`](sendpilot::signature) turns unverified bytes into a verified body, and [`event`](sendpilot::event) reads it |
//! | [`secrets`] | [`signing`](secrets::signing) parses the secrets, and [`keyring`](secrets::keyring) keeps them fresh |
//! | [`aws`] | creates the SDK's clients, and opens connections early |
//! | [`telemetry`] | writes one line per invocation, with metrics |
//! | [`invocation`] | divides the time that Lambda gives |
//! | `text`, `json`, [`timestamp`], [`environment`], [`error`] | text and JSON from outside; moments; variables; an error as text |
//!
//! # The promise
//!
//! 1. **Nothing lost.** Once an opportunity has been claimed, it is published, whether or not
//!    SendPilot retries, however the function dies, and however long SNS is down. SendPilot gets
//!    2xx only after the alert is published, or debounced by an alert that is durably claimed.
//! 2. **Once.** One alert per event. A second publish happens only if a publish took effect and its
//!    proof was lost: the answer was lost, the function crashed before the completion, or the
//!    completion failed until its deadline. The second publish has the same bytes and the same id.
//! 3. **Nobody else.** Only a request signed with a signing secret gets in. Without a usable
//!    secret, the function does not serve.
//! 4. **No wasted calls.** An event that needs no message makes no AWS call, except a fetch of the
//!    signing secrets: see [`keyring`](secrets::keyring) for when.
//!
//! An event that needs an alert and a message to the stream has two deliveries. Both are attempted
//! at the same time, and neither waits for the other or fails with it. SendPilot gets 2xx once the
//! alert is published and the message is claimed. If this attempt does not publish the message, the
//! redrive does.
//!
//! The time of day, randomness and the environment are arguments. All waiting uses tokio's time,
//! which a test can stop. The ledger and the topic are traits. So a test can reach every path.

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
mod text;
pub mod timestamp;
pub mod webhook;
