//! Sizes, rates and lengths of time as people write them: "64MiB", "50ms".
//!
//! Text in, numbers out, and back: what is printed can be parsed again. A number without a unit is
//! refused except 0, because nobody remembers whether it was seconds.

use std::fmt;

use wal::Span;

/// A number of bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Size(pub u64);

/// Bytes per second; 0 = unlimited.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Rate(pub u64);

/// A part of a whole, 0 to 1: parts of a million, so that two can be equal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Share(u32);

/// Largest first, so that printing finds the largest unit that divides.
const SIZE_UNITS: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const SPAN_UNITS: &[(&str, u64)] = &[
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("min", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Why a text is no size or length of time.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum UnitError {
    #[error("{0:?} does not begin with a number")]
    Number(String),
    #[error("{0:?} has no unit")]
    Missing(String),
    #[error("{0:?} is no unit")]
    Unknown(String),
    #[error("{0:?} is too large")]
    Overflow(String),
}

impl Size {
    pub const fn kib(count: u64) -> Size {
        Size(count << 10)
    }

    pub const fn mib(count: u64) -> Size {
        Size(count << 20)
    }

    pub fn parse(text: &str) -> Result<Size, UnitError> {
        parse(text, SIZE_UNITS).map(Size)
    }
}

impl Rate {
    pub const UNLIMITED: Rate = Rate(0);

    pub fn parse(text: &str) -> Result<Rate, UnitError> {
        parse(text.strip_suffix("/s").unwrap_or(text), SIZE_UNITS).map(Rate)
    }

    pub fn limit(self) -> Option<u64> {
        (self != Rate::UNLIMITED).then_some(self.0)
    }
}

impl Share {
    pub const NONE: Share = Share(0);
    /// The least share that is one.
    pub const LEAST: Share = Share(1);
    pub const ALL: Share = Share(1_000_000);

    pub const fn percent(count: u32) -> Share {
        Share(count * 10_000)
    }

    /// `None` of what is no part of a whole.
    pub fn new(share: f64) -> Option<Share> {
        let parts = (share * 1e6).round();
        (0.0..=1e6).contains(&parts).then_some(Share(parts as u32))
    }

    pub fn get(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.get())
    }
}

/// Reads a length of time.
pub fn parse_span(text: &str) -> Result<Span, UnitError> {
    parse(text, SPAN_UNITS).map(Span)
}

/// Writes a length of time so that [`parse_span`] reads it back.
pub fn print_span(span: Span) -> String {
    print(span.0, SPAN_UNITS)
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self.0, SIZE_UNITS))
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self.0, SIZE_UNITS))
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Result<u64, UnitError> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(UnitError::Number(text.to_owned()));
    }
    let overflow = || UnitError::Overflow(text.to_owned());
    let number: u64 = number.parse().map_err(|_| overflow())?;
    match unit.trim_start() {
        "" if number == 0 => Ok(0),
        "" => Err(UnitError::Missing(text.to_owned())),
        unit => {
            let scale = units
                .iter()
                .find(|(name, _)| *name == unit)
                .map(|(_, scale)| *scale);
            let scale = scale.ok_or_else(|| UnitError::Unknown(unit.to_owned()))?;
            number.checked_mul(scale).ok_or_else(overflow)
        }
    }
}

fn print(value: u64, units: &[(&str, u64)]) -> String {
    let unit = units
        .iter()
        .find(|(_, scale)| value >= *scale && value.is_multiple_of(*scale));
    unit.map_or_else(
        || "0".to_owned(),
        |(name, scale)| format!("{}{name}", value / scale),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn people_write_sizes_and_times_like_this() {
        assert_eq!(Size::parse("64MiB"), Ok(Size::mib(64)));
        assert_eq!(Size::parse("10 MB"), Ok(Size(10_000_000)));
        assert_eq!(Rate::parse("1GiB/s"), Ok(Rate(1 << 30)));
        assert_eq!(Rate::parse("0"), Ok(Rate::UNLIMITED));
        assert_eq!(parse_span("100us"), Ok(Span::micros(100)));
        assert_eq!(parse_span("5min"), Ok(Span::secs(300)));
    }

    #[test]
    fn a_number_without_a_unit_is_refused() {
        assert_eq!(parse_span("50"), Err(UnitError::Missing("50".into())));
        assert_eq!(Size::parse("50 MOO"), Err(UnitError::Unknown("MOO".into())));
        assert_eq!(Size::parse("-1B"), Err(UnitError::Number("-1B".into())));
        assert_eq!(
            Size::parse("99999999TiB"),
            Err(UnitError::Overflow("99999999TiB".into()))
        );
    }

    #[test]
    fn a_share_is_a_part_of_a_whole() {
        assert_eq!(Share::new(0.05), Some(Share::percent(5)));
        assert_eq!(Share::percent(5).to_string(), "0.05");
        for wrong in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(wrong), None, "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value: u64) {
            prop_assert_eq!(Size::parse(&Size(value).to_string()), Ok(Size(value)));
            prop_assert_eq!(parse_span(&print_span(Span(value))), Ok(Span(value)));
        }
    }
}
