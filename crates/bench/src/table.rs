//! Collects the figures of several candidates and rounds. Prints medians and ratios, and writes all
//! figures as JSON.

use std::fmt::Write;
use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use crate::candidate::Candidate;

pub(crate) struct Table {
    candidates: Vec<String>,
    rows: Vec<Row>,
    /// The reasons for empty cells, without repetition.
    reasons: Vec<String>,
}

struct Row {
    name: String,
    /// Each candidate's figures, one per round.
    figures: Vec<Vec<f64>>,
}

/// A cell in the JSON file.
#[derive(Serialize)]
struct Cell<'a> {
    row: &'a str,
    candidate: &'a str,
    median: f64,
    rounds: &'a [f64],
}

impl Table {
    pub(crate) fn new(candidates: &[Candidate]) -> Self {
        Self {
            candidates: candidates.iter().map(|candidate| candidate.name.clone()).collect(),
            rows: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// Returns the result of a measurement. If the first candidate fails, returns the error. If
    /// another candidate fails, its cell stays empty, and the table says why.
    pub(crate) fn attempt<T>(&mut self, candidate: usize, outcome: Result<T>) -> Result<Option<T>> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(error) if candidate == 0 => Err(error),
            Err(error) => {
                let reason = format!("{}: {error:#}", self.candidates[candidate]);
                if !self.reasons.contains(&reason) {
                    self.reasons.push(reason);
                }
                Ok(None)
            }
        }
    }

    /// Returns the reasons for empty cells.
    pub(crate) fn reasons(&self) -> &[String] {
        &self.reasons
    }

    /// Adds the figure of one candidate, by its index, in one round. `None` adds nothing.
    pub(crate) fn add(&mut self, candidate: usize, row: &str, figure: impl Into<Option<f64>>) {
        let index = self.rows.iter().position(|known| known.name == row).unwrap_or_else(|| {
            self.rows.push(Row { name: row.into(), figures: vec![Vec::new(); self.candidates.len()] });
            self.rows.len() - 1
        });
        self.rows[index].figures[candidate].extend(figure.into());
    }

    /// Returns the medians as text, with each further candidate's figure as a multiple of the first
    /// one's.
    pub(crate) fn text(&self) -> String {
        let width = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or_default();
        let mut text = format!("{:width$}", "");
        for (index, name) in self.candidates.iter().enumerate() {
            write!(text, "  {name:>12}").ok();
            if index > 0 {
                write!(text, " {:>7}", "ratio").ok();
            }
        }
        for row in &self.rows {
            write!(text, "\n{:width$}", row.name).ok();
            for (index, figures) in row.figures.iter().enumerate() {
                write!(text, "  {:>12}", median(figures).map_or("-".into(), shown)).ok();
                if index > 0 {
                    write!(text, " {:>7}", ratio(figures, &row.figures[0])).ok();
                }
            }
        }
        text
    }

    /// Returns the first candidate's figure in a row as a multiple of another candidate's.
    pub(crate) fn multiple_of(&self, candidate: &str, row: &str) -> Option<f64> {
        let index = self.candidates.iter().position(|name| name == candidate)?;
        let row = self.rows.iter().find(|known| known.name == row)?;
        median_ratio(&row.figures[0], &row.figures[index])
    }

    /// Writes the figures of all rounds.
    pub(crate) fn keep(&self, file: &Path) -> Result<()> {
        let cells = self.rows.iter().flat_map(|row| {
            row.figures.iter().zip(&self.candidates).filter_map(|(rounds, candidate)| {
                Some(Cell { row: &row.name, candidate, median: median(rounds)?, rounds })
            })
        });
        if let Some(directory) = file.parent() {
            std::fs::create_dir_all(directory)?;
        }
        Ok(std::fs::write(file, serde_json::to_string_pretty(&cells.collect::<Vec<_>>())?)?)
    }
}

fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

fn ratio(figures: &[f64], first: &[f64]) -> String {
    median_ratio(figures, first).map_or("-".into(), |ratio| format!("x {ratio:.2}"))
}

/// Returns the median of the rounds' ratios, because a disturbance affects all candidates of a
/// round.
fn median_ratio(figures: &[f64], of: &[f64]) -> Option<f64> {
    let ratios: Vec<_> = figures.iter().zip(of).map(|(figure, of)| figure / of).collect();
    median(&ratios).filter(|ratio| ratio.is_finite())
}

/// Returns the figure with at least three digits.
fn shown(figure: f64) -> String {
    let decimals = match figure {
        figure if figure == figure.trunc() => 0,
        ..10.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$}")
}
