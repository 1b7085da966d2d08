//! Lays out text for people: plain for an email, marked up for a chat app.
//!
//! One card goes to Slack and to Teams, and no escape is right for both. Slack reads `&`, `<` and
//! `>` as control characters, and decodes `&amp;`, `&lt;` and `&gt;` ([escaping]). Markdown, which
//! Teams reads, shows them undecoded in a code span ([code spans]). So the card has none of these
//! characters: [`code`] replaces them by look-alikes.
//!
//! [escaping]: https://api.slack.com/reference/surfaces/formatting#escaping
//! [code spans]: https://spec.commonmark.org/0.31.2/#code-spans

use crate::text::{clip, clip_words};

/// Longest text from outside, in UTF-16 units. Slack rejects a card's text of more than 3,000
/// characters.
const MAX_PIECE: usize = 64;

/// Longest reply in a card, in UTF-16 units, for the same reason.
const MAX_CARD_REPLY: usize = 500;

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
    /// Prose from outside, such as a title, without links. It is as short as its place requires.
    Prose(String),
    /// A reply from outside, without links, to be quoted on a line of its own.
    Reply(String),
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
            Self::Prose(text) => text.clone(),
            Self::Reply(text) => format!("“{text}”"),
        }
    }

    fn marked_up(&self) -> String {
        match self {
            Self::Ours(text) => text.clone(),
            Self::Label(label) => format!("*{label}*"),
            Self::Outside(text) if has_no_markup(text) => clip(text, MAX_PIECE),
            Self::Outside(text) | Self::Id(text) => format!("`{}`", code(&clip(text, MAX_PIECE))),
            Self::Prose(text) if is_plain_prose(text) => code(text),
            Self::Prose(text) => format!("`{}`", code(text)),
            Self::Reply(text) => words_marked_up(&format!("“{}”", clip_words(text, MAX_CARD_REPLY))),
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

/// Whether no app can read markup in prose, wherever in a line the prose is.
fn is_plain_prose(text: &str) -> bool {
    let after_number = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let is_list_item = text.starts_with(['-', '+']) || after_number.starts_with(['.', ')']);
    !is_list_item && text.split(' ').all(is_plain_word)
}

/// Whether no app can read markup in a word after the start of its line, once [`code`] has replaced
/// each `&`. The punctuation of prose is markup only beside other characters. Two colons could
/// enclose an emoji's name.
fn is_plain_word(word: &str) -> bool {
    let is_harmless = |c: char| !c.is_ascii() || c.is_ascii_alphanumeric() || "-',.?!\";()/%+:&".contains(c);
    word.chars().all(is_harmless) && word.matches(':').count() < 2
}

/// Returns a text with code spans around the words that need one, so that the other words stay easy
/// to read. A blank or the line's end is beside each span, as Slack requires.
fn words_marked_up(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    let mut in_code = false;
    for word in text.split(' ') {
        let is_code = !is_plain_word(word);
        let (end, start) = (in_code && !is_code, is_code && !in_code);
        line.push_str(if end { "`" } else { "" });
        line.push_str(if line.is_empty() { "" } else { " " });
        line.push_str(if start { "`" } else { "" });
        line.push_str(&code(word));
        in_code = is_code;
    }
    line + if in_code { "`" } else { "" }
}

/// Returns a text with look-alikes for Slack's control characters, and for backticks, which would
/// end a code span.
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
