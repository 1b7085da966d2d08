//! Variables of the environment, looked up by a function that the caller passes in.

/// A variable that is not set, or empty.
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
/// If it is not set, or empty.
pub(crate) fn required(variable: &impl Fn(&str) -> Option<String>, name: &'static str) -> Result<String, Missing> {
    set(variable, name).ok_or(Missing(name))
}
