//! Words from outside, made fit to be shown; and a lead's profile, which is a link only if it leads to LinkedIn.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

/// Longest text that an alert carries, in UTF-16 units. Real ones are a tenth of it; all of them together, in all bodies,
/// must stay under SNS's 256 KiB.
const MAX_TEXT: usize = 1024;

/// Longest link, in characters. Profiles have less than 150.
const MAX_LINK: usize = 300;

/// Longest name taken from a profile's address, in UTF-16 units.
const MAX_NAME: usize = 60;

/// Words from outside without control characters, line breaks and bidi controls, which could make a reader see what is
/// not there, and without noncharacters, which SQS refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text(String);

impl Text {
    pub(crate) fn new(raw: &str) -> Self {
        let shown: String = raw.chars().filter_map(visible).collect();
        // CloudEvents wants an id and a subject that are not empty.
        let shown = if shown.trim().is_empty() { "?" } else { shown.trim() };
        Self(clip(shown, MAX_TEXT))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// So written that no mail program and no chat makes a link, an address or a mention of it.
    pub(crate) fn unlinked(&self) -> String {
        let mut text = String::with_capacity(self.0.len());
        let mut characters = self.0.chars().peekable();
        while let Some(character) = characters.next() {
            match (character, characters.peek()) {
                // The last three are what a browser takes for a dot in a host's name.
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

/// Line breaks keep words apart; what cannot be seen is dropped, but for the joiners of emoji and Persian names.
fn visible(character: char) -> Option<char> {
    match character {
        '\n' | '\r' | '\t' | '\u{85}' | '\u{2028}' | '\u{2029}' => Some(' '),
        // Soft hyphen; bidi marks and controls; zero widths; fillers; tags.
        '\u{AD}' | '\u{61C}' | '\u{115F}' | '\u{1160}' | '\u{180E}' | '\u{200B}' | '\u{200E}' | '\u{200F}' => None,
        '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FEFF}' | '\u{FFA0}' => None,
        '\u{E0000}'..='\u{E007F}' => None,
        // Noncharacters, which SQS refuses.
        _ if matches!(u32::from(character) & 0xFFFF, 0xFFFE | 0xFFFF) => None,
        _ if character.is_control() => None,
        _ => Some(character),
    }
}

/// Returns the text without surrounding blanks and invisible characters. So what a person reads as
/// a name is compared as that name.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || visible(character).is_none())
}

/// At most `max` UTF-16 units, with an ellipsis where something was cut.
pub(crate) fn clip(text: &str, max: usize) -> String {
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
pub(crate) struct Profile {
    link: Option<String>,
    name: Option<Text>,
}

impl Profile {
    /// Reads it as SendPilot has been seen to write it: as an address, the same URL-encoded, or a bare `in/slug`.
    pub(crate) fn new(raw: &str) -> Self {
        let encoded = raw.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("https%3A"));
        let raw = if encoded { percent_decode_str(raw).decode_utf8_lossy() } else { raw.into() };
        match Url::parse(&raw).ok().filter(is_linkedin) {
            Some(url) => Self { name: name(url.path()), link: link(&url) },
            None => Self { name: name(&raw), link: None },
        }
    }

    /// An address on LinkedIn, in ASCII, and without a character that any markup knows.
    pub(crate) fn link(&self) -> Option<&str> {
        self.link.as_deref()
    }

    /// What stands behind `in/`, decoded.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.as_ref().map(Text::unlinked)
    }
}

fn is_linkedin(url: &Url) -> bool {
    let on_linkedin = match url.host() {
        Some(Host::Domain(host)) => host == "linkedin.com" || host.ends_with(".linkedin.com"),
        _ => false,
    };
    // A user name before the host is there to deceive.
    let plain = url.username().is_empty() && url.password().is_none() && url.port().is_none();
    url.scheme() == "https" && on_linkedin && plain
}

/// Made anew from the host and the path. The query is left out: a profile needs none, and LinkedIn's redirects would lead
/// on from there. So is a link that is too long; a cut one leads nowhere.
fn link(url: &Url) -> Option<String> {
    const ENCODED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'/').remove(b'%').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    let link = format!("https://{}{}", url.host_str()?, utf8_percent_encode(url.path(), ENCODED));
    Some(link).filter(|link| link.len() <= MAX_LINK)
}

fn name(path: &str) -> Option<Text> {
    let path = path.split(['?', '#']).next()?;
    let mut segments = path.trim_start_matches('/').split('/');
    let slug = segments.next().filter(|first| *first == "in").and_then(|_| segments.next())?;
    let name = clip(Text::new(&percent_decode_str(slug).decode_utf8_lossy()).as_str(), MAX_NAME);
    Some(Text(name)).filter(|_| !slug.is_empty())
}
