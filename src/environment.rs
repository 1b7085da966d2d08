//! Reads variables of the environment with a function that the caller passes in, so that a test can
//! replace them.

/// The error if a variable is not set, or is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not set")]
pub struct Missing(pub &'static str);

/// Returns the variable without surrounding blanks. Returns `None` if it is empty.
pub(crate) fn set(variable: &impl Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Returns the variable as [`set`] does.
///
/// # Errors
/// If the variable is not set, or is empty.
pub(crate) fn required(variable: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<String, Missing> {
    set(variable, name).ok_or(Missing(name))
}
