//! Sends one alert for every SendPilot lead that becomes an opportunity. An optional second topic,
//! the lead status stream, gets one message for every change of a lead's status.
//!
//! Three Lambda functions share this library. Their `main` functions are in `src/bin`, and only
//! wire its parts together:
//!
//! ```text
//!            signed POST
//! SendPilot ─────────────▶ webhook function ───┐
//!     ▲                                        │   ┌─ claim, complete, release ─▶ DynamoDB
//!     └── asks ────────── reconcile function ──┼───┤                         a row per delivery
//!                                              │   └─ publish ──────────────────▶ SNS
//! schedule  ─────────────▶ redrive function ───┘                                 two topics
//!            every minute
//! ```
//!
//! # From a request to its answer
//!
//! 1. [`webhook::gateway`] converts API Gateway's payload to a request.
//! 2. [`sendpilot::signature`] verifies the request with the secrets from [`secrets::keyring`], and
//!    [`sendpilot::event`] parses its body.
//! 3. [`message::rules`] decide which deliveries the event needs: an alert, a message to the lead
//!    status stream, both, or none.
//! 4. [`webhook::details`] finds out who the lead is, for the message of an alert. A detail that is
//!    not found in time is left out.
//! 5. [`delivery::relay`] claims each delivery in the [`delivery::ledger`], publishes its message
//!    to the [`delivery::topic`], and completes the delivery.
//! 6. [`webhook::response`] turns the outcomes into the answer.
//!
//! If replies are remembered, a lead's reply is only stored in the ledger.
//!
//! The [`reconcile`] function can run on a schedule. It asks SendPilot's API for opportunities
//! whose webhook never came, and attempts an alert for each, as in step 5.
//!
//! The [`redrive`] runs every minute. It attempts the pending deliveries whose lease has expired,
//! as in step 5.
//!
//! # The words
//!
//! | word | meaning |
//! |---|---|
//! | event | one webhook from SendPilot |
//! | delivery | one event on its way to one topic: one row in the table |
//! | attempt | one invocation's try at a delivery |
//! | claim | an attempt's exclusive right to a delivery until its lease ends |
//! | pending | claimed at least once, and not known to be published |
//! | complete | record that the message is published |
//! | release | give a claim back after a failure |
//! | debounce | suppress a second alert for the same lead and status within some minutes |
//! | known | a lead whose status was alerted, or existed when the reconciliation began |
//! | missed | a lead in an alert status that is not known: its webhook never came |
//! | duplicate | an event that was already published |
//! | details | a lead's name, title, company, campaign name and last reply |
//!
//! # The modules
//!
//! A module imports only modules below its own row. A test checks this order.
//!
//! | module | does |
//! |---|---|
//! | [`config`] | reads the environment; each error names its variable |
//! | [`webhook`] | answers one request; [`response`] is the table of answers |
//! | [`reconcile`] | finds missed leads through SendPilot's API, and alerts each |
//! | [`redrive`] | lists the pending deliveries whose lease has expired, and attempts each |
//! | [`delivery`] | attempts one delivery: [`relay`], [`ledger`], [`topic`], and [`pace`] |
//! | [`message`] | writes messages; [`rules`] decide which deliveries an event needs |
//! | [`sendpilot`] | [`signature`] verifies, [`event`] parses a body, [`api`] and [`lists`] ask |
//! | [`secrets`] | [`signing`] parses the secrets, [`keyring`] keeps them fresh; [`api_key`] |
//! | [`aws`] | creates the SDK's clients, and opens connections early |
//! | [`telemetry`] | writes one log line per invocation, with its metrics |
//! | [`invocation`] | divides the time that Lambda gives to an invocation |
//! | `text`, `json`, [`timestamp`], [`environment`], [`error`] | small tools for all modules |
//!
//! [`response`]: webhook::response
//! [`relay`]: delivery::relay
//! [`ledger`]: delivery::ledger
//! [`topic`]: delivery::topic
//! [`pace`]: delivery::pace
//! [`rules`]: message::rules
//! [`signature`]: sendpilot::signature
//! [`event`]: sendpilot::event
//! [`api`]: sendpilot::api
//! [`lists`]: sendpilot::lists
//! [`api_key`]: secrets::api_key
//! [`signing`]: secrets::signing
//! [`keyring`]: secrets::keyring
//!
//! # The promise
//!
//! 1. **Nothing lost.** Once an opportunity has been claimed, its alert is published: even if
//!    SendPilot does not retry, a function crashes, or SNS is down for any length of time.
//!    SendPilot gets 2xx only after the alert has been published, or debounced by an alert that is
//!    durably claimed.
//! 2. **Once.** Each event causes one alert. A second publish is possible only if a publish took
//!    effect and its proof was lost: SNS's answer was lost, the function crashed before the
//!    completion, or the completion failed until its deadline. The second alert has the same bytes
//!    and the same id.
//! 3. **Nobody else.** Only a request that is signed with a signing secret is accepted. Without a
//!    usable secret, the function accepts no request.
//! 4. **No wasted calls.** An event that needs no message makes no AWS call, except a fetch of the
//!    signing secrets: [`keyring`] says when. A reply is one call, and only if replies are
//!    remembered.
//!
//! If an event needs an alert and a message to the stream, both deliveries are attempted at the
//! same time. Neither waits for the other or fails with it. SendPilot gets 2xx once the alert has
//! been published and the message has been claimed. If this attempt does not publish the message,
//! the redrive does.
//!
//! # Tests
//!
//! The time of day, randomness and the environment are arguments. All waiting uses tokio's clock,
//! which a test can stop. The ledger and the topic are traits. So a test can reach every path.

pub mod aws;
pub mod config;
pub mod delivery;
pub mod environment;
pub mod error;
pub mod invocation;
mod json;
pub mod message;
pub mod reconcile;
pub mod redrive;
pub mod secrets;
pub mod sendpilot;
pub mod telemetry;
mod text;
pub mod timestamp;
pub mod webhook;
