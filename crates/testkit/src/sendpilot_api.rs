//! Starts the stand-in for SendPilot's REST API, `tools/local_aws/sendpilot_api.py`, and controls
//! its data, its faults and its delays. The local run uses the same stand-in.

use std::collections::HashMap;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

/// The only API key that the stand-in accepts, unless the settings change the key.
pub const KEY: &str = "sp_live_sample";

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tools/local_aws/sendpilot_api.py");

/// A running stand-in. A drop ends its process.
#[derive(Debug)]
pub struct SendPilotApi {
    url: String,
    // The process also ends when its standard input closes, even if this process is killed.
    _process: Child,
}

/// A request to the API, as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path with the query.
    pub path: String,
    /// The headers, with their names in lower case.
    pub headers: HashMap<String, String>,
    /// The time of the request.
    pub at: SystemTime,
}

impl SendPilotApi {
    /// Starts a stand-in without leads and campaigns, on a free loopback port.
    ///
    /// # Errors
    /// If `python3` cannot be run, or cannot run the program.
    pub async fn start() -> Result<Self> {
        let mut process = Command::new("python3")
            .args(["-B", PROGRAM])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run python3")?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().context("no output")?).read_line(&mut url).await?;
        if !url.starts_with("http://") {
            bail!("{PROGRAM} printed {url:?} instead of its URL");
        }
        Ok(Self { url: url.trim_end().to_owned(), _process: process })
    }

    /// Returns the URL of the API, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Adds a lead, or replaces the lead with the same `id`.
    ///
    /// # Errors
    /// If the lead has no `id`.
    pub async fn put_lead(&self, lead: Value) -> Result<()> {
        self.control("PUT", "leads", lead).await.map(drop)
    }

    /// Adds a campaign, or changes its name.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub async fn put_campaign(&self, id: &str, name: &str) -> Result<()> {
        self.control("PUT", "campaigns", json!({ "id": id, "name": name, "status": "ACTIVE" })).await.map(drop)
    }

    /// Adds a campaign with these members, or replaces the campaign with the same `id`.
    ///
    /// # Errors
    /// If the campaign has no `id`.
    pub async fn put_campaign_as(&self, campaign: Value) -> Result<()> {
        self.control("PUT", "campaigns", campaign).await.map(drop)
    }

    /// Changes `key`, `scopes`, `statuses` or `delay`: see the head of the program.
    ///
    /// # Errors
    /// If a name is unknown.
    pub async fn set(&self, settings: Value) -> Result<()> {
        self.control("PUT", "settings", settings).await.map(drop)
    }

    /// Delays every answer by this time, in whole milliseconds.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub async fn delay(&self, delay: Duration) -> Result<()> {
        self.set(json!({ "delay": u64::try_from(delay.as_millis())? })).await
    }

    /// Changes the answers to all paths with a prefix until [`clear`](Self::clear).
    ///
    /// `changes` has members of `Planned` in the program: `status`, `headers`, `body`, `delay`,
    /// `hang`, `close`, `half`, `huge`, `chunked`. The answer keeps its other parts.
    ///
    /// # Errors
    /// If `changes` is not an object, or has an unknown name.
    pub async fn answer(&self, prefix: &str, mut changes: Value) -> Result<()> {
        changes.as_object_mut().context("not an object")?.insert("prefix".into(), prefix.into());
        self.control("PUT", "answers", changes).await.map(drop)
    }

    /// Removes all changed answers. Requests that wait get their usual answers.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub async fn clear(&self) -> Result<()> {
        self.control("DELETE", "answers", Value::Null).await.map(drop)
    }

    /// Returns the requests to the API so far.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub async fn requests(&self) -> Result<Vec<Request>> {
        let requests = self.control("GET", "requests", Value::Null).await?;
        requests.as_array().context("not an array")?.iter().map(|one| read(one).context("not a request")).collect()
    }

    /// Empties the list of requests.
    ///
    /// # Errors
    /// If the stand-in has ended.
    pub async fn forget_requests(&self) -> Result<()> {
        self.control("DELETE", "requests", Value::Null).await.map(drop)
    }

    async fn control(&self, method: &str, what: &str, body: Value) -> Result<Value> {
        let host = self.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(host).await?;
        let body = body.to_string();
        let request = format!(
            "{method} /stand-in/{what} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, content) = answer.split_once("\r\n\r\n").context("no answer")?;
        if !head.starts_with("HTTP/1.1 200 ") {
            bail!("the stand-in refused to {method} {what}: {content}");
        }
        Ok(serde_json::from_str(content)?)
    }
}

fn read(request: &Value) -> Option<Request> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(Request {
        method: text(&request["method"])?,
        path: text(&request["path"])?,
        headers: request["headers"]
            .as_object()?
            .iter()
            .map(|(name, value)| Some((name.clone(), text(value)?)))
            .collect::<Option<_>>()?,
        at: UNIX_EPOCH.checked_add(Duration::try_from_secs_f64(request["time"].as_f64()?).ok()?)?,
    })
}
