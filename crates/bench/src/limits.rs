//! Compares the first candidate with functions that do the least. `floor` makes the AWS calls of an
//! alert and nothing else, and `empty` only answers.

use crate::table::Table;

/// A limit for the first candidate's figure in a row, as a multiple of another candidate's.
struct Limit {
    row: &'static str,
    candidate: &'static str,
    /// The project's goal for the multiple.
    goal: Option<f64>,
}

const LIMITS: [Limit; 10] = [
    Limit { row: "alert: CPU, us", candidate: "floor", goal: Some(1.15) },
    Limit { row: "CPU until ready, ms", candidate: "floor", goal: None },
    Limit { row: "CPU until the first alert, ms", candidate: "floor", goal: None },
    Limit { row: "ignored event: CPU, us", candidate: "empty", goal: Some(1.35) },
    Limit { row: "CPU until ready, ms", candidate: "empty", goal: None },
    Limit { row: "start until ready, ms", candidate: "empty", goal: None },
    Limit { row: "each alert: instructions", candidate: "floor", goal: None },
    Limit { row: "start until ready: instructions", candidate: "floor", goal: None },
    Limit { row: "each ignored event: instructions", candidate: "empty", goal: None },
    Limit { row: "start until ready: instructions", candidate: "empty", goal: None },
];

/// Returns a line for each limit whose candidate was measured.
pub(crate) fn text(table: &Table) -> String {
    let line = |Limit { row, candidate, goal }: &Limit| {
        let multiple = table.multiple_of(candidate, row)?;
        let goal = match goal {
            Some(goal) if multiple <= *goal => format!(", within the goal of {goal:.2}"),
            Some(goal) => format!(", above the goal of {goal:.2}"),
            None => String::new(),
        };
        Some(format!("\n{row:32} {multiple:.2} x {candidate}{goal}"))
    };
    LIMITS.iter().filter_map(line).collect()
}
