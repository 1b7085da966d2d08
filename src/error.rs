//! Writes an error as one line of text, for the log and for the ledger.

use std::error::Error;

/// Returns an error and all its sources in one line. The SDK's errors say nothing without their
/// sources.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        // Some errors repeat their source in their own text.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}
