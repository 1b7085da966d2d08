//! Words from outside, made fit to be shown; and a lead's profile, which is a link only if it leads to LinkedIn.

use percent_encoding::percent_decode_str;
use url::{Host, Url};

/// Longest text that an alert carries, in UTF-16 units. Real ones are a tenth of it; all of them together, in all bodies,
/// must stay under SNS's 256 KiB.
const MAX_TEXT: usize = 1024;

/// Longest name taken from a profile's address, in UTF-16 units.
const MAX_NAME: usize = 60;

/// Words from outside without control characters, line breaks and bidi controls, which could make a reader see what is
/// not there, and without noncharacters, which SQS refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Text(String);

impl Text {
    pub(super) fn new(raw: &str) -> Self {
        let shown: String = raw.chars().filter_map(shown).collect();
        // CloudEvents wants an id and a subject that are not empty.
        let shown = if shown.trim().is_empty() { "?" } else { shown.trim() };
        Self(clip(shown, MAX_TEXT))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// So written that no mail program and no chat makes a link, an address or a mention of it.
    pub(super) fn unlinked(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        let mut characters = self.0.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, characters.peek()) {
                ('.', Some(next)) if next.is_alphabetic() => text.push_str("[.]"),
                ('@', Some(_)) => text.push_str("[at]"),
                (':', Some('/')) => text.push_str("[:]"),
                _ => text.push(character),
            }
        }
        text
    }
}

/// Line breaks keep words apart; whatever else cannot be seen is dropped.
fn shown(character: char) -> Option<char> {
    let invisible = character.is_control()
        || matches!(character,
            '\u{061C}' | '\u{200E}' | '\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FEFF}')
        || matches!(u32::from(character) & 0xFFFF, 0xFFFE | 0xFFFF);
    match character {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some(' '),
        _ if invisible => None,
        _ => Some(character),
    }
}

/// At most `max` UTF-16 units, with an ellipsis where something was cut.
pub(super) fn clip(text: &str, max: usize) -> String {
    let units = |character: char| character.len_utf16();
    if text.chars().map(units).sum::<usize>() <= max {
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

/// Where SendPilot says the lead is to be found.
pub(super) struct Profile {
    link: Option<Url>,
    name: Option<Text>,
}

impl Profile {
    /// Reads it as SendPilot has been seen to write it: as an address, the same URL-encoded, or a bare `in/slug`.
    pub(super) fn new(raw: &str) -> Self {
        let decoded = percent_decode_str(raw).decode_utf8_lossy();
        let raw = if raw.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https%3A")) { &decoded } else { raw };
        let link = Url::parse(raw).ok().filter(is_linkedin);
        let path = link.as_ref().map_or(raw, Url::path);
        Self { name: name(path), link }
    }

    /// An address on LinkedIn, in ASCII.
    pub(super) fn link(&self) -> Option<&str> {
        self.link.as_ref().map(Url::as_str)
    }

    /// What stands behind `in/`, decoded.
    pub(super) fn name(&self) -> Option<String> {
        self.name.as_ref().map(Text::unlinked)
    }
}

fn is_linkedin(url: &Url) -> bool {
    let on_linkedin = match url.host() {
        Some(Host::Domain(host)) => host == "linkedin.com" || host.ends_with(".linkedin.com"),
        _ => false,
    };
    // A user name before the host is there to deceive; a cut link leads nowhere.
    let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    url.scheme() == "https" && on_linkedin && plain && url.as_str().len() <= MAX_TEXT
}

fn name(path: &str) -> Option<Text> {
    let path = path.split(['?', '#']).next()?;
    let mut segments = path.trim_start_matches('/').split('/');
    let slug = segments.next().filter(|first| *first == "in").and_then(|_| segments.next())?;
    let name = clip(Text::new(&percent_decode_str(slug).decode_utf8_lossy()).as_str(), MAX_NAME);
    Some(Text(name)).filter(|_| !slug.is_empty())
}
