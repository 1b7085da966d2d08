//! Text from outside, made safe to show and to compare.

use std::borrow::Cow;

use icu_normalizer::properties::{CanonicalDecompositionBorrowed, Decomposed};

/// Longest text in an alert, in UTF-16 units. Real texts are a tenth as long. All texts together,
/// in all bodies, must stay under SNS's 256 KiB.
pub(crate) const MAX_TEXT: usize = 1024;

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

    /// Returns the text in one line of at most `max` UTF-16 units, with one blank for each run of
    /// blanks and line breaks. Returns `None` if a reader would see nothing.
    pub(crate) fn one_line(raw: &str, max: usize) -> Option<Self> {
        let line = shown(raw).split_whitespace().collect::<Vec<_>>().join(" ");
        (!line.chars().all(is_blank)).then(|| Self(clip_words(&line, max)))
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

    /// Returns the text for an SMS: without links, and in GSM's alphabet. A symbol outside the
    /// alphabet becomes a blank, because a `?` could change the meaning of a sentence. Returns
    /// `None` if the alphabet lacks more than half of the letters.
    pub(crate) fn sms(&self) -> Option<String> {
        let letters = || self.0.chars().filter(|character| character.is_alphabetic());
        if letters().filter(|letter| in_gsm(*letter) != '?').count() * 2 < letters().count() {
            return None;
        }
        let mut text = String::with_capacity(self.0.len());
        for character in self.0.chars() {
            match character {
                '“' | '”' | '„' | '‟' | '«' | '»' => text.push('\''),
                '•' | '·' => text.push('-'),
                '€' => text.push_str("EUR"),
                '…' => text.push_str("... "),
                '\u{300}'..='\u{36F}' => text.push(character),
                _ if character.is_alphabetic() || in_gsm(character) != '?' => text.push(character),
                '?' => text.push('?'),
                _ => text.push(' '),
            }
        }
        let sms = gsm(&Self(text.split_whitespace().collect::<Vec<_>>().join(" ")).unlinked());
        Some(sms).filter(|sms| sms.contains(char::is_alphanumeric))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text in a form that no email program and no chat app turns into a link, an
    /// address or a mention. A phone can still recognize a phone number.
    pub(crate) fn unlinked(&self) -> String {
        if !self.0.contains(|character| DOTS.contains(&character) || matches!(character, '@' | ':' | '\\')) {
            return self.0.clone();
        }
        let mut text = String::with_capacity(self.0.len());
        let mut previous = ' ';
        let mut characters = self.0.chars().peekable();
        while let Some(character) = characters.next() {
            let next = characters.peek().copied();
            match (character, next.unwrap_or(' ')) {
                (dot, next) if DOTS.contains(&dot) && is_in_host(&text, next) => text.push_str("[.]"),
                ('@', _) if next.is_some() => text.push_str("[at]"),
                (':', '/' | '\\') => text.push_str("[:]"),
                // A scheme, such as `tel:`. A time has a digit before the colon.
                (':', next) if !previous.is_ascii_digit() && !previous.is_whitespace() && !next.is_whitespace() => {
                    text.push_str(": ")
                }
                // Two backslashes begin the name of a Windows server.
                ('\\', '\\') => text.push_str("[\\]"),
                _ => text.push(character),
            }
            previous = character;
        }
        text
    }
}

/// The dots of a host's name. Browsers read the last three as the first.
const DOTS: [char; 4] = ['.', '\u{3002}', '\u{FF0E}', '\u{FF61}'];

/// Whether a dot between these texts can be in a host's name, such as `evil.example`, or can be the
/// last dot of an IPv4 address.
fn is_in_host(before: &str, next: char) -> bool {
    let in_number = |character: &char| character.is_numeric() || DOTS.contains(character);
    let has_dots = || before.chars().rev().take_while(in_number).filter(|c| DOTS.contains(c)).count() > 1;
    next.is_alphabetic() || next.is_numeric() && before.ends_with(char::is_numeric) && has_dots()
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

/// Whether a character alone shows nothing. Joiners, variation selectors and the empty Braille
/// pattern are in real texts, so [`visible`] keeps them.
fn is_blank(character: char) -> bool {
    character.is_whitespace()
        || matches!(character, '\u{34F}' | '\u{200C}' | '\u{200D}' | '\u{2800}')
        || matches!(character, '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}')
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

/// Returns at most `max` UTF-16 units of a text, as [`clip`] does, but ends with a whole word. If
/// that would drop half of the text, as in a language without blanks, the last word is cut.
pub(crate) fn clip_words(text: &str, max: usize) -> String {
    let clipped = clip(text, max);
    let Some(kept) = clipped.strip_suffix(ELLIPSIS).filter(|_| clipped != text) else { return clipped };
    let ends_word = text.get(kept.len()..).is_some_and(|rest| rest.starts_with(' '));
    let words = match kept.rsplit_once(' ') {
        Some((words, _)) if !ends_word && words.len() * 2 >= kept.len() => words,
        _ => kept,
    };
    words.trim_end_matches([' ', ',', ';', ':', '.', '-']).to_owned() + ELLIPSIS
}

/// In ASCII, for the SMS.
const ELLIPSIS: &str = "...";

/// Returns a text in GSM's alphabet, with Latin letters for their accented forms. Any other
/// character would make the whole SMS UCS-2, of which one SMS holds 70 characters.
///
/// No character becomes one of a link (`/`, `.`, `:`, `@`), so a text without links stays so.
pub(crate) fn gsm(text: &str) -> String {
    let mut sms = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            'œ' => sms.push_str("oe"),
            'Œ' => sms.push_str("Oe"),
            'þ' => sms.push_str("th"),
            'Þ' => sms.push_str("Th"),
            // An accent as a character of its own.
            '\u{300}'..='\u{36F}' if sms.ends_with(char::is_alphabetic) => {}
            _ => sms.push(in_gsm(character)),
        }
    }
    sms
}

/// Returns a character of GSM's alphabet. Brackets are in the alphabet, but count twice.
fn in_gsm(character: char) -> char {
    match character {
        '`' | '‘' | '’' => '\'',
        '[' | '{' => '(',
        ']' | '}' => ')',
        '\\' | '|' | '^' | '~' | '–' | '—' => '-',
        ' '..='~' => character,
        'Ä'..='Ç' | 'É' | 'Ñ' | 'Ö' | 'Ø' | 'Ü' | 'ß' => character,
        'à' | 'ä'..='æ' | 'è' | 'é' | 'ì' | 'ñ' | 'ò' | 'ö' | 'ø' | 'ù' | 'ü' => character,
        // Latin letters that do not decompose into a letter and an accent.
        'ł' => 'l',
        'Ł' => 'L',
        'đ' | 'ð' => 'd',
        'Đ' | 'Ð' => 'D',
        'ħ' => 'h',
        'Ħ' => 'H',
        'ı' => 'i',
        'ə' => 'e',
        'Ə' => 'E',
        _ => match CanonicalDecompositionBorrowed::new().decompose(character) {
            Decomposed::Expansion(letter, _) => in_gsm(letter),
            _ => '?',
        },
    }
}
