//! From SendPilot's statuses to the stages of a CRM: SendPilot's own example, or a mapping of one's own.

use serde_json::Value;

use crate::json::Members;

/// The stage of every status that is not mapped.
pub const UNKNOWN: &str = "unknown";

/// The mapping that SendPilot's documentation gives as its example.
pub const SENDPILOTS: [(&str, &str); 8] = [
    ("PENDING", "new"),
    ("CONNECTION_SENT", "contacted"),
    ("CONNECTION_ACCEPTED", "connected"),
    ("MESSAGE_SENT", "in_conversation"),
    ("REPLY_RECEIVED", "engaged"),
    ("OPPORTUNITY", "qualified"),
    ("NOT_INTERESTED", "closed_lost"),
    ("DONE", "closed_won"),
];

/// Longest stage, in characters.
const MAX_STAGE: usize = 64;

/// Which status is which stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline(Vec<(String, String)>);

/// What is wrong with a mapping, and where.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PipelineError {
    /// It begins like JSON, and is none.
    #[error("must be STATUS=stage,... or a JSON object of stages by status (line {line}, column {column})")]
    Json {
        /// Where it stops being JSON.
        line: usize,
        /// And in which column.
        column: usize,
    },
    /// An entry has no `=`.
    #[error("has the entry {0:?}, which should be STATUS=stage")]
    NotAnEntry(String),
    /// A status is none.
    #[error("has the status {0:?}, which should be letters, digits and underscores")]
    NotAStatus(String),
    /// A stage is none.
    #[error(
        "has for {0} a stage that is no text, empty, longer than {MAX_STAGE} characters, or has control characters in it"
    )]
    NotAStage(String),
    /// Two entries for one status, of which one would not count.
    #[error("has the status {0} twice")]
    Twice(String),
}

impl Default for Pipeline {
    fn default() -> Self {
        Self(SENDPILOTS.map(|(status, stage)| (status.to_owned(), stage.to_owned())).into())
    }
}

impl Pipeline {
    /// Reads `STATUS=stage,STATUS=stage`, or the same as a JSON object. What it does not map is [`UNKNOWN`].
    ///
    /// # Errors
    /// With the first entry that is unusable.
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let entries: Vec<(String, String)> = if text.trim_start().starts_with('{') {
            let Members(members) = serde_json::from_str(text)
                .map_err(|error| PipelineError::Json { line: error.line(), column: error.column() })?;
            // Treats a stage that is not a string as empty, so that `NotAStage` names its status.
            let stage = |stage: Value| stage.as_str().unwrap_or_default().to_owned();
            members.into_iter().map(|(status, value)| (status, stage(value))).collect()
        } else {
            list(text).map(entry).collect::<Result<_, _>>()?
        };
        let mut stages: Vec<(String, String)> = Vec::with_capacity(entries.len());
        for (status, stage) in entries {
            let (status, stage) = (status.trim().to_owned(), stage.trim().to_owned());
            if !is_status(&status) {
                return Err(PipelineError::NotAStatus(status));
            }
            if stage.is_empty() || stage.chars().count() > MAX_STAGE || stage.chars().any(char::is_control) {
                return Err(PipelineError::NotAStage(status));
            }
            if stages.iter().any(|(other, _)| other.eq_ignore_ascii_case(&status)) {
                return Err(PipelineError::Twice(status));
            }
            stages.push((status.to_ascii_uppercase(), stage));
        }
        Ok(Self(stages))
    }

    /// Returns the stage of a status, without regard to letter case.
    pub fn stage(&self, status: &str) -> &str {
        self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(status)).map_or(UNKNOWN, |(_, stage)| stage)
    }
}

/// The parts of a list with commas, those that are empty left out.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Whether a text can be one of SendPilot's statuses, in any letter case. Any other entry would
/// never match.
pub(crate) fn is_status(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn entry(part: &str) -> Result<(String, String), PipelineError> {
    let (status, stage) = part.split_once('=').ok_or_else(|| PipelineError::NotAnEntry(part.to_owned()))?;
    Ok((status.to_owned(), stage.to_owned()))
}
