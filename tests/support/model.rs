//! Explores a model, and prints its verdict.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::Instant;

use stateright::{Checker, Expectation, HasDiscoveries, Model};

/// A promise with the actions that break it, or a required possibility that never happens.
pub type Wrong<M> = (&'static str, Vec<<M as Model>::Action>);

/// Explores every world, or stops at the first broken promise. Prints one row of the table.
#[expect(clippy::print_stdout, reason = "the verdicts are for people to read")]
pub fn explore<M>(title: &str, model: M) -> Option<Wrong<M>>
where
    M: Model + Send + Sync + 'static,
    M::State: Hash + Send + Sync + Clone + PartialEq + Debug + 'static,
    M::Action: Clone + PartialEq + Debug,
{
    let properties = model.properties();
    let began = Instant::now();
    // With one property and one thread, the search is strictly breadth-first, so it finds the
    // shortest way.
    let threads = if properties.len() == 1 { 1 } else { 2 };
    let checker = model.checker().threads(threads).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    let wrong = properties.iter().find_map(|property| {
        let found = checker.discovery(property.name).map(|path| path.into_actions());
        let wrong = match property.expectation {
            Expectation::Always => found,
            _ => found.is_none().then(Vec::new),
        };
        Some((property.name, wrong?))
    });
    let verdict = match &wrong {
        None => "holds".to_owned(),
        Some((name, way)) => format!("breaks {name} (steps: {})", way.len()),
    };
    let (worlds, depth, seconds) = (checker.unique_state_count(), checker.max_depth(), began.elapsed().as_secs_f32());
    println!("{title}{worlds:>9}{depth:>7}{seconds:>7.1} s  {verdict}");
    wrong
}

/// Describes the actions that break a promise.
pub fn breach(protocol: impl Debug, name: &str, way: &[impl Display]) -> String {
    let steps: String = way.iter().zip(1..).map(|(action, number)| format!("\n  {number:>2}. {action}")).collect();
    format!("\n{protocol:?} breaks {name}:{steps}")
}
