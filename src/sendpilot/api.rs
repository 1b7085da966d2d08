//! Asks SendPilot's REST API who a lead is.

use std::fmt;

/// A lead, as SendPilot's API describes it. Every part may be missing, and none is empty. `Debug`
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

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").finish_non_exhaustive()
    }
}
