//! Lays out text for people: plain for an email, marked up for a chat app.
//!
//! One card goes to Slack and to Teams, and no escape is right for both. Slack reads `&`, `<` and
//! `>` as control characters, and decodes `&amp;`, `&lt;` and `&gt;` ([escaping]). Markdown, which
//! Teams reads, shows them undecoded in a code span ([code spans]). So the card has none of these
//! characters: [`code`] replaces them by look-alikes.
//!
//! [escaping]: https://api.slack.com/reference/surfaces/formatting#escaping
//! [code spans]: https://spec.commonmark.org/0.31.2/#code-spans

use crate::text::clip;

/// Longest text from outside, in UTF-16 units. Slack rejects a card's text of more than 3,000
/// characters.
const MAX_PIECE: usize = 64;

/// A part of a line.
pub(crate) enum Piece {
    /// Text of this project, or a link to LinkedIn. It has no character that markup knows, except
    /// those of a link.
    Ours(String),
    /// The name of the value that follows.
    Label(&'static str),
    /// Text from outside, without links.
    Outside(String),
    /// An id from outside, without links.
    Id(String),
}

impl Piece {
    pub(crate) fn ours(text: impl Into<String>) -> Self {
        Self::Ours(text.into())
    }

    fn plain(&self) -> String {
        match self {
            Self::Ours(text) => text.clone(),
            Self::Outside(text) | Self::Id(text) => clip(text, MAX_PIECE),
            Self::Label(label) => (*label).to_owned(),
        }
    }

    fn marked_up(&self) -> String {
        match self {
            Self::Ours(text) => text.clone(),
            Self::Label(label) => format!("*{label}*"),
            Self::Outside(text) if has_no_markup(text) => clip(text, MAX_PIECE),
            Self::Outside(text) | Self::Id(text) => format!("`{}`", code(&clip(text, MAX_PIECE))),
        }
    }
}

/// A line of text.
pub(crate) type Line = Vec<Piece>;

/// Returns a line as plain text.
pub(crate) fn plain(line: &Line) -> String {
    line.iter().map(Piece::plain).collect()
}

/// Returns a line for Slack and Teams. Text from outside cannot become markup or a mention.
pub(crate) fn marked_up(line: &Line) -> String {
    line.iter().map(Piece::marked_up).collect()
}

/// Joins paragraphs by blank lines, and leaves out paragraphs without a line.
pub(crate) fn join(paragraphs: &[Vec<Line>], write: fn(&Line) -> String) -> String {
    let paragraphs = paragraphs.iter().filter(|lines| !lines.is_empty());
    let texts: Vec<_> = paragraphs.map(|lines| lines.iter().map(write).collect::<Vec<_>>().join("\n")).collect();
    texts.join("\n\n")
}

/// Whether no app can read markup in a text, wherever in a line the text is. Outside ASCII, no
/// character is markup in Slack or in Markdown.
fn has_no_markup(text: &str) -> bool {
    let is_harmless = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || matches!(c, ' ' | '-' | '\'');
    // A hyphen at the start of a line would begin a list.
    text.chars().all(is_harmless) && !text.starts_with('-')
}

/// Returns the text of a code span. A backtick would end the span.
fn code(text: &str) -> String {
    let look_alike = |character| match character {
        '&' => '＆',
        '<' => '‹',
        '>' => '›',
        '`' => '\'',
        _ => character,
    };
    text.chars().map(look_alike).collect()
}
