//! The guide: README.md and the pages in `docs/`.

use std::fs;
use std::path::PathBuf;

/// Returns the text of all pages.
pub fn text() -> String {
    let docs = fs::read_dir("docs").unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> = docs.filter(|path| path.extension().is_some_and(|kind| kind == "md")).collect();
    pages.push("README.md".into());
    pages.sort();
    pages.iter().map(|page| fs::read_to_string(page).unwrap() + "\n").collect()
}

/// Returns the commands that begin with `start`, with continued lines joined. Only blocks marked as
/// `console` contain commands; other blocks show a program's output.
pub fn commands(start: &str) -> Vec<String> {
    let text = text();
    let mut guide = String::new();
    let mut block = None;
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(_), Some(_)) => block = None,
            (Some(kind), None) => block = Some(kind),
            (None, None | Some("console")) => guide = guide + line + "\n",
            (None, Some(_)) => {}
        }
    }
    let guide = guide.replace("\\\n", "");
    guide.match_indices(start).map(|(at, _)| guide[at..].split(['`', '\n']).next().unwrap().to_owned()).collect()
}
