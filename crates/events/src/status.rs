//! SendPilot's statuses, and the stages that its documentation gives them in a CRM.

/// The status of a lead that has become a sales opportunity.
pub const OPPORTUNITY: &str = "OPPORTUNITY";

/// The statuses that SendPilot documents. A lead can have others.
pub const STATUSES: [&str; 9] = [
    "PENDING",
    "CONNECTION_SENT",
    "CONNECTION_ACCEPTED",
    "MESSAGE_SENT",
    "REPLY_RECEIVED",
    OPPORTUNITY,
    "MEETING_BOOKED",
    "NOT_INTERESTED",
    "DONE",
];

/// The stage of each status, in the example of SendPilot's documentation. The receiver uses this
/// mapping unless `STATUS_PIPELINE` gives another.
pub const STAGES: [(&str, &str); 8] = [
    ("PENDING", "new"),
    ("CONNECTION_SENT", "contacted"),
    ("CONNECTION_ACCEPTED", "connected"),
    ("MESSAGE_SENT", "in_conversation"),
    ("REPLY_RECEIVED", "engaged"),
    (OPPORTUNITY, "qualified"),
    ("NOT_INTERESTED", "closed_lost"),
    ("DONE", "closed_won"),
];

/// The stage of a status that the mapping does not name.
pub const UNKNOWN_STAGE: &str = "unknown";
