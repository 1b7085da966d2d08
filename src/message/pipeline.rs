//! The mapping from SendPilot's statuses to the stages of a CRM: SendPilot's example, or a
//! configured one.

use sendpilot_events::{STAGES, UNKNOWN_STAGE};
use serde_json::Value;

use crate::json::Members;

/// The longest stage, in characters.
const MAX_STAGE: usize = 64;

/// The stage of each status. By default, SendPilot's example: [`STAGES`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline(Vec<(String, String)>);

/// Why a mapping is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PipelineError {
    /// The mapping starts with `{`, but is not a JSON object.
    #[error("must be STATUS=stage,... or a JSON object of stages by status (line {line}, column {column})")]
    Json {
        /// The line of the first error.
        line: usize,
        /// The column of the first error.
        column: usize,
    },
    /// An entry has no `=`.
    #[error("has the entry {0:?}, which must be STATUS=stage")]
    NotAnEntry(String),
    /// A status has characters other than letters, digits and underscores.
    #[error("has the status {0:?}, which must be letters, digits and underscores")]
    NotAStatus(String),
    /// A stage is not a string, is empty or too long, or has control characters.
    #[error(
        "has an unusable stage for {0}: a stage must be text of 1 to {MAX_STAGE} characters without control characters"
    )]
    NotAStage(String),
    /// Two entries have the same status, so one of them would have no effect.
    #[error("has the status {0} twice")]
    Twice(String),
}

impl Default for Pipeline {
    fn default() -> Self {
        Self(STAGES.map(|(status, stage)| (status.to_owned(), stage.to_owned())).into())
    }
}

impl Pipeline {
    /// Parses `STATUS=stage,STATUS=stage`, or a JSON object of stages by status. Every other status
    /// has the stage [`UNKNOWN_STAGE`].
    ///
    /// # Errors
    /// If an entry is unusable. The error names the first one.
    pub fn parse(text: &str) -> Result<Self, PipelineError> {
        let entries: Vec<(String, String)> = if text.trim_start().starts_with('{') {
            let Members(members) = serde_json::from_str(text)
                .map_err(|error| PipelineError::Json { line: error.line(), column: error.column() })?;
            // Treats a stage that is not a string as empty, so that validation reports it as
            // `NotAStage` with its status.
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
        self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(status)).map_or(UNKNOWN_STAGE, |(_, stage)| stage)
    }
}

/// Returns the parts of a comma-separated list, without empty ones.
pub(crate) fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Returns whether a text can be a SendPilot status, in any letter case. Any other text could never
/// match an event.
pub(crate) fn is_status(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn entry(part: &str) -> Result<(String, String), PipelineError> {
    let (status, stage) = part.split_once('=').ok_or_else(|| PipelineError::NotAnEntry(part.to_owned()))?;
    Ok((status.to_owned(), stage.to_owned()))
}
