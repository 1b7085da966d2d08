//! Text from outside, made safe to show and to compare.

use std::borrow::Cow;

/// Longest text in an alert, in UTF-16 units. Real texts are a tenth as long. All texts together,
/// in all bodies, must stay under SNS's 256 KiB.
const MAX_TEXT: usize = 1024;

/// Text from outside without control characters, line breaks and bidirectional controls, which
/// could deceive a reader, and without noncharacters, which SQS rejects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn new(raw: &str) -> Self {
        let shown = shown(raw);
        // In a CloudEvent, `id` and `subject` must not be empty.
        let shown = if shown.trim().is_empty() { "?" } else { shown.trim() };
        Self(clip(shown, MAX_TEXT))
    }

    /// Returns a status as people write it: `MEETING_BOOKED` becomes "Meeting booked".
    pub(crate) fn words(&self) -> Self {
        let separators = |character: char| character == '_' || character.is_whitespace();
        let words: Vec<_> = self.0.split(separators).filter(|word| !word.is_empty()).collect();
        if words.is_empty() {
            return self.clone();
        }
        Self(clip(&capitalized(&words.join(" ").to_lowercase()), MAX_TEXT))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text in a form that no email program and no chat app turns into a link, an
    /// address or a mention.
    pub(crate) fn unlinked(&self) -> String {
        if !self.0.contains(['.', '\u{3002}', '\u{FF0E}', '\u{FF61}', '@', ':']) {
            return self.0.clone();
        }
        let mut text = String::with_capacity(self.0.len());
        let mut characters = self.0.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, characters.peek()) {
                // Browsers read the last three as dots in a host's name.
                ('.' | '\u{3002}' | '\u{FF0E}' | '\u{FF61}', Some(next)) if next.is_alphabetic() => {
                    text.push_str("[.]")
                }
                ('@', Some(_)) => text.push_str("[at]"),
                (':', Some('/')) => text.push_str("[:]"),
                _ => text.push(character),
            }
        }
        text
    }
}

impl From<Text> for String {
    fn from(Text(text): Text) -> Self {
        text
    }
}

/// Returns the text with each character as it is shown.
fn shown(raw: &str) -> Cow<'_, str> {
    // Nearly all texts are printable ASCII, which is shown as it is.
    if raw.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return raw.into();
    }
    raw.chars().filter_map(visible).collect::<String>().into()
}

/// Returns the character as it is shown. A line break becomes a blank. An invisible character is
/// dropped, except the joiners of emoji and Persian names.
fn visible(character: char) -> Option<char> {
    match character {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some(' '),
        // Soft hyphen; bidi marks and controls; zero widths; fillers; tags.
        '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}' => None,
        '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' => None,
        '\u{E0000}'..='\u{E007F}' => None,
        // Noncharacters.
        _ if matches!(u32::from(character) & 0xFFFF, 0xFFFE | 0xFFFF) => None,
        _ if character.is_control() => None,
        _ => Some(character),
    }
}

/// Returns the text without surrounding blanks and invisible characters. So two texts that look the
/// same to a person compare as equal.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || visible(character).is_none())
}

/// Returns the text with a capital as its first letter.
pub(crate) fn capitalized(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(title_case).unwrap_or_default() + letters.as_str()
}

/// Returns a letter as it starts a word: Unicode's title case, which std does not have. `ß` becomes
/// `Ss`.
fn title_case(letter: char) -> String {
    match letter {
        // The digraphs dž, lj, nj and dz, of which only the first letter becomes a capital.
        '\u{1C6}' => '\u{1C5}'.into(),
        '\u{1C9}' => '\u{1C8}'.into(),
        '\u{1CC}' => '\u{1CB}'.into(),
        '\u{1F3}' => '\u{1F2}'.into(),
        // Georgian has capitals only for texts that are all in capitals.
        '\u{10D0}'..='\u{10FF}' => letter.into(),
        _ => {
            let mut capitals = letter.to_uppercase();
            capitals.next().into_iter().chain(capitals.flat_map(char::to_lowercase)).collect()
        }
    }
}

/// Returns at most `max` UTF-16 units of a text, with an ellipsis if something was cut.
pub(crate) fn clip(text: &str, max: usize) -> String {
    let units = |character: char| character.len_utf16();
    // No text has more UTF-16 units than bytes.
    if text.len() <= max || text.chars().map(units).sum::<usize>() <= max {
        return text.to_owned();
    }
    let mut room = max.saturating_sub(ELLIPSIS.len());
    let fits = |character: &char| {
        let taken = units(*character);
        room.checked_sub(taken).inspect(|left| room = *left).is_some()
    };
    text.chars().take_while(fits).chain(ELLIPSIS.chars()).collect()
}

/// In ASCII, for the SMS.
const ELLIPSIS: &str = "...";
