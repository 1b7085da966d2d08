//! Asks SendPilot's REST API who a lead is, and how its campaign is called.
//!
//! An alert never depends on an answer. So every answer is accepted, and every field is optional. A
//! failure that is likely to last starts a pause, so a burst of alerts waits for it only once:
//!
//! | failure | pause |
//! |---|---|
//! | 401: the key is refused | five minutes, for both calls |
//! | 403: the key lacks a scope | five minutes, for this call |
//! | 429 | `Retry-After`, or 30 s, for both calls |
//! | the key cannot be read | 30 s, for both calls |
//! | 503 | `Retry-After`, or 30 s, for this call |
//! | no answer, another status, a long answer, other JSON | 30 s, for this call |
//! | an unknown lead, or an answer about another lead | none |
//!
//! A redirect is never followed, so the key goes to no other host.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{HttpConnector, SharedHttpConnector};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::DateTime;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::date_time::Format;
use futures_util::future::{OptionFuture, join};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::time::Instant;
use url::{Host, Url};

use crate::aws::{ATTEMPTS, Aws};
use crate::invocation::{Invocation, within};
use crate::json::Object;
use crate::secrets::api_key::{ApiKey, KeyError, Source};
use crate::sendpilot::page::{PAGE, Page};
use crate::text::{clip, trim};
use crate::timestamp::Timestamp;

/// The address of SendPilot's API.
pub const DEFAULT_URL: &str = "https://api.sendpilot.ai";

/// The least time for a request. With less time left, the API is not asked.
pub const LEAST_TIME: Duration = Duration::from_millis(100);

/// The longest answer that is read, in bytes.
pub const MAX_ANSWER: usize = 256 * 1024;

/// The pause after a failure that is likely to last.
pub const PAUSE: Duration = Duration::from_secs(30);

/// The pause after the API has refused the key.
pub const KEY_PAUSE: Duration = Duration::from_secs(5 * 60);

/// The longest pause that `Retry-After` can cause.
pub const MAX_PAUSE: Duration = Duration::from_secs(60 * 60);

/// The time for which a campaign's name is kept without another request.
pub const NAME_MAX_AGE: Duration = Duration::from_secs(60 * 60);

/// The time for which a campaign without a name is not looked for again.
pub const NO_NAME_MAX_AGE: Duration = Duration::from_secs(5 * 60);

/// The maximum number of pages that are read for one campaign.
const MAX_PAGES: usize = 10;

/// The maximum number of campaigns that are kept. This limit bounds the memory.
const MAX_CAMPAIGNS: usize = 5000;

/// Longest campaign name that is kept, in UTF-16 units. An alert shows no longer text.
const MAX_NAME: usize = 1024;

/// The longest id that is asked for or kept, in bytes. SendPilot's ids have a tenth of it.
const MAX_ID: usize = 256;

/// A lead, as SendPilot's API describes it. Every part may be missing, and none is blank. `Debug`
/// prints no part, because they are personal data.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Lead {
    /// `firstName`.
    pub first_name: Option<String>,
    /// `lastName`.
    pub last_name: Option<String>,
    /// `title`: the lead's position.
    pub title: Option<String>,
    /// `company`.
    pub company: Option<String>,
    /// `email`.
    pub email: Option<String>,
}

impl Lead {
    pub(crate) fn read(lead: &Object<'_>) -> Self {
        let text = |name| lead.text(name).filter(|text| !trim(text).is_empty());
        Self {
            first_name: text("firstName"),
            last_name: text("lastName"),
            title: text("title"),
            company: text("company"),
            email: text("email"),
        }
    }
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").finish_non_exhaustive()
    }
}

/// The client of the API. One process has one client.
#[derive(Debug)]
pub struct Api {
    https: SharedHttpConnector,
    url: ApiUrl,
    source: Source,
    /// The key, after it was read and until it is refused. Locked while it is read.
    key: tokio::sync::Mutex<Option<ApiKey>>,
    memory: Mutex<Memory>,
}

/// The address of the API: https, or plain http to this machine. It has no slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl(String);

/// The error if a text is not a usable address of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "must be an https address without user, query and fragment, such as {DEFAULT_URL}; plain http is only for \
     127.0.0.1, [::1] and localhost"
)]
pub struct UnusableUrl;

/// The answers of the API. A part that was not asked for is `None`.
#[derive(Debug)]
pub struct Answers {
    /// The lead.
    pub lead: Option<Result<Lead, ApiError>>,
    /// The campaign's name, if it has one.
    pub campaign_name: Option<Result<Option<String>, ApiError>>,
}

/// Why the API did not say something. No message has personal data or the key.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The key is not known.
    #[error("the API key is not usable")]
    Key(#[from] KeyError),
    /// 401.
    #[error("SendPilot's API refused the API key (401)")]
    Unauthorized,
    /// 403.
    #[error("SendPilot's API refused the request, because the API key lacks a scope (403)")]
    Forbidden,
    /// 400, 404, 410 or 422 for a lead.
    #[error("SendPilot's API does not know the lead ({0})")]
    UnknownLead(u16),
    /// Any other status.
    #[error("SendPilot's API answered {status}")]
    Status {
        /// The status.
        status: u16,
        /// `Retry-After` of a 429 or 503.
        retry_after: Option<Duration>,
    },
    /// No connection, or a broken one.
    #[error("SendPilot's API could not be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
    /// No whole answer in time.
    #[error("SendPilot's API did not answer in time")]
    TimedOut,
    /// An answer of more than this number of bytes.
    #[error("SendPilot's API answered with more than {0} bytes")]
    TooLong(usize),
    /// An answer in another form than the documentation describes.
    #[error("SendPilot's API did not answer with the documented JSON")]
    Unexpected,
    /// An answer about another lead.
    #[error("SendPilot's API answered about another lead")]
    OtherLead,
    /// An id that cannot be part of an address.
    #[error("the id cannot be asked for")]
    UnusableId,
    /// The API was not asked, because of an earlier failure.
    #[error("SendPilot's API was not asked, because an earlier request failed")]
    Paused {
        /// Whether the failure was about the key.
        about_key: bool,
    },
}

impl ApiError {
    /// Returns whether the API key is missing, unreadable or refused.
    pub fn is_about_key(&self) -> bool {
        match self {
            Self::Key(error) => !matches!(error, KeyError::TimedOut),
            Self::Unauthorized | Self::Forbidden | Self::Paused { about_key: true } => true,
            _ => false,
        }
    }

    /// Returns how long the API is not asked, and whether this is so for both calls.
    fn pause(&self) -> Option<(Duration, bool)> {
        match self {
            Self::Unauthorized => Some((KEY_PAUSE, true)),
            Self::Forbidden => Some((KEY_PAUSE, false)),
            Self::Key(_) => Some((PAUSE, true)),
            Self::Status { status, retry_after } => Some((retry_after.unwrap_or(PAUSE).min(MAX_PAUSE), *status == 429)),
            Self::Unreachable(_) | Self::TimedOut | Self::TooLong(_) | Self::Unexpected => Some((PAUSE, false)),
            Self::UnknownLead(_) | Self::OtherLead | Self::UnusableId | Self::Paused { .. } => None,
        }
    }
}

/// A call of the API.
#[derive(Debug, Clone, Copy)]
enum Call {
    Lead,
    Campaigns,
}

/// The facts that earlier answers have shown.
#[derive(Debug, Default)]
struct Memory {
    /// The pause of each [`Call`].
    pauses: [Option<Pause>; 2],
    /// The campaigns by id.
    campaigns: HashMap<String, Campaign>,
}

#[derive(Debug, Clone, Copy)]
struct Pause {
    began: Timestamp,
    lasts: Duration,
    about_key: bool,
}

/// A campaign's name, or `None` if the API does not know the campaign or its name.
#[derive(Debug, Clone)]
struct Campaign {
    name: Option<String>,
    read_at: Timestamp,
}

impl Campaign {
    fn is_fresh(&self, now: Timestamp) -> bool {
        let max_age = if self.name.is_some() { NAME_MAX_AGE } else { NO_NAME_MAX_AGE };
        now.since(self.read_at) < max_age
    }
}

impl Api {
    /// Creates a client that asks at this address, with a key from this source.
    pub fn new(url: ApiUrl, source: Source, aws: &Aws) -> Self {
        Self::over(aws.connector(), url, source)
    }

    /// Creates a client that sends its requests over this connector.
    pub fn over(https: SharedHttpConnector, url: ApiUrl, source: Source) -> Self {
        Self { https, url, source, key: tokio::sync::Mutex::default(), memory: Mutex::default() }
    }

    /// Asks for the lead, and for its campaign's name if the name is not known yet. Sends both
    /// requests at once, and returns at `by` at the latest.
    pub async fn ask(&self, lead_id: &str, campaign_id: Option<&str>, invocation: &Invocation, by: Instant) -> Answers {
        // A request that had no chance must not start a pause.
        if Instant::now() + LEAST_TIME > by {
            return Answers { lead: Some(Err(ApiError::TimedOut)), campaign_name: None };
        }
        let lead = self.noting(Call::Lead, self.lead(lead_id, invocation, by), invocation);
        let campaign_name = OptionFuture::from(campaign_id.map(|id| self.campaign_name(id, invocation, by)));
        let (lead, campaign_name) = join(lead, campaign_name).await;
        Answers { lead: Some(lead), campaign_name }
    }

    /// Waits for the result of a call, and starts the pause that its failure asks for.
    async fn noting<T>(
        &self,
        call: Call,
        result: impl Future<Output = Result<T, ApiError>>,
        invocation: &Invocation,
    ) -> Result<T, ApiError> {
        let result = result.await;
        if let Err(error) = &result {
            self.forget_refused_key(error).await;
            self.memory().note(call, error, invocation.now());
        }
        result
    }

    /// Forgets the key after the API has refused it, because the key may be replaced meanwhile.
    async fn forget_refused_key(&self, error: &ApiError) {
        if matches!(error, ApiError::Unauthorized | ApiError::Forbidden) {
            *self.key.lock().await = None;
        }
    }

    async fn lead(&self, id: &str, invocation: &Invocation, by: Instant) -> Result<Lead, ApiError> {
        let path = format!("/v1/leads/{}", segment(id)?);
        let answer = self.get(Call::Lead, &path, invocation, by).await.map_err(|error| match error {
            // The lead's id is the reason, so a request about another lead can succeed.
            ApiError::Status { status: status @ (400 | 404 | 410 | 422), .. } => ApiError::UnknownLead(status),
            _ => error,
        })?;
        let answer = Object::parse(&answer).map_err(|_| ApiError::Unexpected)?;
        // No documentation shows a lead in an envelope. Lists are shown in two kinds.
        let lead = if answer.get("id").is_some() { answer } else { answer.object("data").unwrap_or(answer) };
        if lead.text("id").is_some_and(|other| other != id) {
            return Err(ApiError::OtherLead);
        }
        Ok(Lead::read(&lead))
    }

    /// Returns a campaign's name: the known one if it is fresh, otherwise the one in the API's
    /// list. If the list cannot be read, an old name is better than none.
    async fn campaign_name(&self, id: &str, invocation: &Invocation, by: Instant) -> Result<Option<String>, ApiError> {
        let known = self.memory().campaigns.get(id).cloned();
        if let Some(campaign) = known.as_ref().filter(|campaign| campaign.is_fresh(invocation.now())) {
            return Ok(campaign.name.clone());
        }
        let found = self.noting(Call::Campaigns, self.find_campaign(id, invocation, by), invocation).await;
        match (found, known.and_then(|campaign| campaign.name)) {
            (Err(_), Some(old)) => Ok(Some(old)),
            (found, _) => found,
        }
    }

    /// Reads the list of campaigns up to the page that has this one. Keeps all names on the pages.
    async fn find_campaign(&self, id: &str, invocation: &Invocation, by: Instant) -> Result<Option<String>, ApiError> {
        for page in 1..=MAX_PAGES {
            let path = format!("/v1/campaigns?page={page}&limit={PAGE}");
            let answer = self.get(Call::Campaigns, &path, invocation, by).await?;
            let page = Page::parse(&answer, page, "campaigns", campaign).ok_or(ApiError::Unexpected)?;
            let Page { entries: campaigns, is_last } = page;
            let found = campaigns.iter().find(|(other, _)| other == id).map(|(_, name)| name.clone());
            self.memory().keep(campaigns, invocation.now());
            if let Some(name) = found {
                return Ok(name);
            }
            if is_last {
                break;
            }
        }
        self.memory().keep(vec![(id.to_owned(), None)], invocation.now());
        Ok(None)
    }

    /// Returns the body of a successful answer, unless the call is paused.
    async fn get(&self, call: Call, path: &str, invocation: &Invocation, by: Instant) -> Result<Vec<u8>, ApiError> {
        let key = self.key(call, invocation, by).await?;
        self.answer(path, &key, MAX_ANSWER, invocation, by).await
    }

    /// Returns the body of a successful answer, up to `max` bytes. Neither respects nor starts a
    /// pause.
    ///
    /// # Errors
    /// If there is no whole successful answer at `by`.
    pub(crate) async fn read(
        &self,
        path: &str,
        max: usize,
        invocation: &Invocation,
        by: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        let key = {
            let mut key = self.key.lock().await;
            match &*key {
                Some(key) => key.clone(),
                None => key.insert(self.source.fetch(by).await?).clone(),
            }
        };
        let answer = self.answer(path, &key, max, invocation, by).await;
        if let Err(error) = &answer {
            self.forget_refused_key(error).await;
        }
        answer
    }

    /// Sends a request, and returns the body of a successful answer.
    async fn answer(
        &self,
        path: &str,
        key: &ApiKey,
        max: usize,
        invocation: &Invocation,
        by: Instant,
    ) -> Result<Vec<u8>, ApiError> {
        let connection = CaptureSmithyConnection::new();
        let answering = async { read(self.send(path, key, &connection).await?, max, invocation.now()).await };
        let answer = within(by, answering, ApiError::TimedOut).await;
        if matches!(answer, Err(ApiError::TimedOut))
            && let Some(connection) = connection.get()
        {
            // The connection may be dead. HTTP/2 would use it for the next request too.
            connection.poison();
        }
        answer
    }

    /// Sends a request. If the connection breaks, sends the request again, because the connection
    /// may have been dead before. "Lambda purges idle connections over time", and "attempting to
    /// reuse an idle connection […] will result in a connection error":
    /// <https://docs.aws.amazon.com/lambda/latest/dg/best-practices.html>
    async fn send(
        &self,
        path: &str,
        key: &ApiKey,
        connection: &CaptureSmithyConnection,
    ) -> Result<HttpResponse, ApiError> {
        let ApiUrl(url) = &self.url;
        let mut tries = 1;
        loop {
            let mut request = HttpRequest::get(format!("{url}{path}")).map_err(|_| ApiError::UnusableId)?;
            let headers = [("x-api-key", key.as_str()), ("accept", "application/json"), ("user-agent", USER_AGENT)];
            for (name, value) in headers {
                request.headers_mut().try_insert(name, value.to_owned()).map_err(|_| ApiError::UnusableId)?;
            }
            request.add_extension(connection.clone());
            match self.https.call(request).await {
                Err(error) if tries < ATTEMPTS && !error.is_timeout() => tries += 1,
                answer => return answer.map_err(|error| ApiError::Unreachable(error.into())),
            }
        }
    }

    /// Returns the key, unless the call is paused. Of two calls at once, the second waits for the
    /// first one's key.
    async fn key(&self, call: Call, invocation: &Invocation, by: Instant) -> Result<ApiKey, ApiError> {
        let mut key = self.key.lock().await;
        if let Some(pause) = self.memory().pause(call, invocation.now()) {
            return Err(ApiError::Paused { about_key: pause.about_key });
        }
        if let Some(key) = &*key {
            return Ok(key.clone());
        }
        match self.source.fetch(by).await {
            Ok(fetched) => Ok(key.insert(fetched).clone()),
            Err(error) => {
                let error = ApiError::from(error);
                // While the lock is held, so that the other call does not fetch too.
                self.memory().note(call, &error, invocation.now());
                Err(error)
            }
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The name and version of this client. Some hosts refuse requests without one.
const USER_AGENT: &str = concat!(env!("CARGO_PKG_NAME"), "/", env!("CARGO_PKG_VERSION"));

impl Memory {
    fn pause(&self, call: Call, now: Timestamp) -> Option<Pause> {
        // A pause has no effect before its start, so a clock that was set back does not prolong it.
        self.pauses[call as usize].filter(|pause| pause.began <= now && now.since(pause.began) < pause.lasts)
    }

    /// Starts the pause that an error asks for, unless a longer one is running. Two calls at once
    /// can fail in two ways.
    fn note(&mut self, call: Call, error: &ApiError, now: Timestamp) {
        let Some((lasts, both)) = error.pause() else { return };
        let calls = if both { &[Call::Lead, Call::Campaigns][..] } else { &[call] };
        for call in calls {
            let left = self.pause(*call, now).map(|pause| pause.lasts.saturating_sub(now.since(pause.began)));
            if left.is_none_or(|left| left < lasts) {
                let pause = Pause { began: now, lasts, about_key: error.is_about_key() };
                self.pauses[*call as usize] = Some(pause);
            }
        }
    }

    fn keep(&mut self, campaigns: Vec<(String, Option<String>)>, read_at: Timestamp) {
        if self.campaigns.len() + campaigns.len() > MAX_CAMPAIGNS {
            self.campaigns.clear();
        }
        let short = campaigns.into_iter().filter(|(id, _)| id.len() <= MAX_ID);
        self.campaigns.extend(short.map(|(id, name)| (id, Campaign { name, read_at })));
    }
}

/// Reads the id and the name of a campaign. The name is cut, which bounds the memory.
pub(crate) fn campaign(entry: &Object<'_>) -> Option<(String, Option<String>)> {
    let name = entry.text("name").filter(|name| !trim(name).is_empty());
    Some((entry.text("id")?, name.map(|name| clip(&name, MAX_NAME))))
}

impl ApiUrl {
    /// Parses the address of the API. It may have a path, which precedes the path of each request.
    ///
    /// # Errors
    /// If the address is not https. Plain http is only for the loopback interface, because on other
    /// networks others could read the key.
    pub fn parse(text: &str) -> Result<Self, UnusableUrl> {
        let url = Url::parse(text).map_err(|_| UnusableUrl)?;
        let is_loopback = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        let is_safe = url.scheme() == "https" || url.scheme() == "http" && is_loopback;
        let is_plain = url.username().is_empty() && url.password().is_none();
        if !is_safe || !is_plain || url.query().is_some() || url.fragment().is_some() {
            return Err(UnusableUrl);
        }
        Ok(Self(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// The characters that are escaped in a path or a query.
pub(crate) const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Returns an id as one segment of a path. `.` and `..` would be another path.
fn segment(id: &str) -> Result<String, ApiError> {
    match id {
        "" | "." | ".." => Err(ApiError::UnusableId),
        _ if id.len() > MAX_ID => Err(ApiError::UnusableId),
        _ => Ok(utf8_percent_encode(id, ESCAPED).to_string()),
    }
}

/// Reads the body of a successful answer, up to `max` bytes.
async fn read(answer: HttpResponse, max: usize, now: Timestamp) -> Result<Vec<u8>, ApiError> {
    match answer.status().as_u16() {
        200..=299 => {}
        401 => return Err(ApiError::Unauthorized),
        403 => return Err(ApiError::Forbidden),
        status => {
            let retry_after = answer.headers().get("retry-after").filter(|_| matches!(status, 429 | 503));
            return Err(ApiError::Status { status, retry_after: retry_after.and_then(|after| span(after, now)) });
        }
    }
    let mut body = ByteStream::new(answer.into_body());
    let mut bytes = Vec::new();
    while let Some(part) = body.next().await {
        bytes.extend_from_slice(&part.map_err(|error| ApiError::Unreachable(error.into()))?);
        if bytes.len() > max {
            return Err(ApiError::TooLong(max));
        }
    }
    Ok(bytes)
}

/// Reads `Retry-After`: seconds, or a date.
fn span(retry_after: &str, now: Timestamp) -> Option<Duration> {
    let retry_after = retry_after.trim();
    if let Ok(seconds) = retry_after.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = DateTime::from_str(retry_after, Format::HttpDate).ok()?.to_millis().ok()?;
    Some(Timestamp::from_millis(u64::try_from(at).ok()?).since(now))
}
