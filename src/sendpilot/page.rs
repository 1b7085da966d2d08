//! Parses one page of a list of SendPilot's API, in both documented forms.

use serde_json::value::RawValue;

use crate::json::Object;

/// Entries in one page: the API's maximum.
pub(crate) const PAGE: usize = 100;

/// One page of a list.
#[derive(Debug)]
pub struct Page<T> {
    /// The entries that can be used.
    pub entries: Vec<T>,
    /// Whether no other page follows.
    pub is_last: bool,
}

impl<T> Page<T> {
    /// Reads page number `number` of the list `name`. `entry` reads one entry, or leaves it out.
    /// Returns `None` if the list is missing, or if it has entries and none can be used. Otherwise,
    /// another name for the id would make the list look empty.
    pub(crate) fn parse(
        answer: &[u8],
        number: usize,
        name: &str,
        entry: impl Fn(&Object<'_>) -> Option<T>,
    ) -> Option<Self> {
        let answer = Object::parse(answer).ok()?;
        let list = answer.get(name).or_else(|| answer.get("data"))?;
        let list: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
        let pages = answer.object("pagination").or_else(|| answer.object("meta"));
        // One unusable number must not hide the other. Some APIs write numbers as strings.
        let read = |name| pages.as_ref()?.get(name)?.get().trim_matches('"').parse::<usize>().ok();
        // Without the number of pages, a page that is not full is the last one.
        let is_full = list.len() >= read("limit").unwrap_or(PAGE);
        let is_last = list.is_empty() || read("totalPages").map_or(!is_full, |last| number >= last);
        let is_empty = list.is_empty();
        let entries: Vec<_> =
            list.into_iter().filter_map(|raw| entry(&Object::parse(raw.get().as_bytes()).ok()?)).collect();
        (is_empty || !entries.is_empty()).then_some(Self { entries, is_last })
    }
}
