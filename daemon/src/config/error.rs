//! What is wrong with a configuration file, and where: file, line, key, why, and what to do.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// Everything that is wrong with one file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Errors(pub Vec<Error>);

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error {
    pub file: PathBuf,
    /// Where in the file; `None` when it is about the whole file.
    pub place: Option<Place>,
    /// The key, with its section: `ship.window`.
    pub key: String,
    pub why: String,
    pub help: String,
}

/// A place in the file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    pub line: usize,
    pub column: usize,
    /// The text of that line.
    pub text: String,
    /// How many characters of it are meant.
    pub width: usize,
}

impl Place {
    /// The place of the bytes `span` of `text`.
    pub fn of(text: &str, span: Range<usize>) -> Place {
        let start = text.floor_char_boundary(span.start);
        let before = &text[..start];
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line_text = text[line_start..].lines().next().unwrap_or_default();
        let column = text[line_start..start].chars().count() + 1;
        let meant = &text[start..text.floor_char_boundary(span.end.max(start))];
        let width = meant
            .lines()
            .next()
            .unwrap_or_default()
            .chars()
            .count()
            .max(1);
        let line = before.matches('\n').count() + 1;
        Place {
            line,
            column,
            text: line_text.to_owned(),
            width,
        }
    }
}

impl Errors {
    /// A file that can't be read at all.
    pub fn unreadable(file: &Path, error: &std::io::Error) -> Errors {
        let help = "name the file with --config, or write one with `foreshadow init`".to_owned();
        let why = format!("can't be read: {error}");
        let file = file.to_owned();
        Errors(vec![Error {
            file,
            place: None,
            key: String::new(),
            why,
            help,
        }])
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(place) = &self.place {
            write!(f, ":{}:{}", place.line, place.column)?;
        }
        if self.key.is_empty() {
            writeln!(f, ": {}", self.why)?;
        } else {
            writeln!(f, ": {}: {}", self.key, self.why)?;
        }
        if let Some(place) = &self.place {
            let gutter = place.line.to_string();
            writeln!(f, " {gutter} | {}", place.text)?;
            let (pad, arrows) = (place.column - 1, "^".repeat(place.width));
            writeln!(
                f,
                " {:width$} | {:pad$}{arrows}",
                "",
                "",
                width = gutter.len()
            )?;
        }
        write!(f, "  help: {}", self.help)
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let gap = if index == 0 { "" } else { "\n" };
            write!(f, "{gap}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_not_bytes() {
        let text = "a = 1\né = 22\n";
        let at = text.find("22").expect("there");
        let place = Place::of(text, at..at + 2);
        assert_eq!((place.line, place.column, place.width), (2, 5, 2));
        assert_eq!(place.text, "é = 22");
    }

    #[test]
    fn a_place_past_the_end_is_the_last_line() {
        assert_eq!(Place::of("a", 5..9).line, 1);
    }
}
