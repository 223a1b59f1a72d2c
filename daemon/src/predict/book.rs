//! The book of forecasts: what was said of each target, when, until when it holds, by which model,
//! and how often it was right so far.

use std::collections::BTreeMap;

use super::target::Target;

/// Somebody outside knows better, for a while.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Hint {
    pub chance: f32,
    /// Seconds since 1970.
    pub until: i64,
}

/// What was said of a target.
#[derive(Clone, PartialEq, Debug)]
pub struct Forecast {
    /// Seconds since 1970.
    pub issued: i64,
    /// It is asked again from then on.
    pub expires: i64,
    /// How likely it happens within each horizon.
    pub chances: Vec<f32>,
    /// The number that is expected in the bin an hour, or what is configured, from now.
    pub value: Option<f32>,
    /// The version of the model; 0 is rules only.
    pub model: u64,
}

/// How good forecasts of a target were, within the shortest horizon.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Hits {
    pub judged: u64,
    /// How often it happened.
    pub happened: u64,
    /// How often it was said to be likelier than not, and how often that was right.
    pub said: u64,
    pub right: u64,
    /// The sum of squared errors of chances.
    pub lost: f64,
}

impl Hits {
    pub fn add(&mut self, chance: f32, happened: bool) {
        let off = f64::from(chance) - f64::from(u8::from(happened));
        self.judged += 1;
        self.happened += u64::from(happened);
        self.said += u64::from(chance >= 0.5);
        self.right += u64::from(chance >= 0.5 && happened);
        self.lost += off * off;
    }
}

/// A target's page.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Page {
    pub forecast: Option<Forecast>,
    pub hint: Option<Hint>,
    pub hits: Hits,
    /// Nobody acts on it, so that what is learned later is not the outcome of what was done.
    pub control: bool,
}

impl Page {
    pub fn is_stale(&self, now: i64) -> bool {
        let fresh = self.forecast.as_ref();
        // One from the future is of a clock that was put back.
        !fresh.is_some_and(|forecast| (forecast.issued..forecast.expires).contains(&now))
    }

    pub fn hint_at(&self, now: i64) -> Option<Hint> {
        self.hint.filter(|hint| now < hint.until)
    }

    /// How likely it happens within each horizon, as the hint says while there is one.
    pub fn chances(&self, now: i64) -> Vec<f32> {
        let said = self.forecast.as_ref().map(|forecast| &forecast.chances);
        match (self.hint_at(now), said) {
            (Some(hint), Some(said)) => vec![hint.chance; said.len()],
            (Some(hint), None) => vec![hint.chance],
            (None, Some(said)) => said.clone(),
            (None, None) => Vec::new(),
        }
    }
}

/// Hints for targets that were never seen, at most.
const UNSEEN_MAX: usize = 4096;

/// All pages.
#[derive(Clone, Default, Debug)]
pub struct Book {
    pages: BTreeMap<Target, Page>,
}

/// There is no room for hints about more that was never seen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

impl Book {
    pub fn page(&self, target: &Target) -> Option<&Page> {
        self.pages.get(target)
    }

    pub fn open(&mut self, target: &Target, control: bool) -> &mut Page {
        let page = self.pages.entry(target.clone()).or_default();
        page.control = control;
        page
    }

    pub fn pages(&self) -> impl Iterator<Item = (&Target, &Page)> {
        self.pages.iter()
    }

    /// Forgets a target, unless somebody gave a hint that still holds.
    pub fn close(&mut self, target: &Target, now: i64) {
        if let Some(page) = self.pages.get_mut(target) {
            page.forecast = None;
            if page.hint_at(now).is_none() {
                self.pages.remove(target);
            }
        }
    }

    /// Takes in what an outside oracle says.
    pub fn hint(&mut self, target: &Target, hint: Hint) -> Result<(), Full> {
        if !self.pages.contains_key(target) && self.unseen() >= UNSEEN_MAX {
            return Err(Full);
        }
        self.pages.entry(target.clone()).or_default().hint = Some(hint);
        Ok(())
    }

    fn unseen(&self) -> usize {
        let unseen = self.pages.values().filter(|page| page.forecast.is_none());
        unseen.count()
    }

    /// Lets go of hints that hold no more.
    pub fn sweep(&mut self, now: i64) {
        self.pages.retain(|_, page| {
            page.hint = page.hint_at(now);
            page.forecast.is_some() || page.hint.is_some()
        });
    }

    pub fn len(&self) -> usize {
        self.pages.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::predict::target::{Kind, subject};

    fn target(text: &str) -> Target {
        Target {
            subject: subject(text).expect("an object"),
            kind: Kind::Access,
            region: None,
        }
    }

    #[test]
    fn a_forecast_is_stale_when_it_expires_or_comes_from_the_future() {
        let mut page = Page::default();
        assert!(page.is_stale(0));
        page.forecast = Some(Forecast {
            issued: 100,
            expires: 200,
            chances: vec![0.1, 0.2],
            value: None,
            model: 7,
        });
        let stale = [99, 100, 199, 200].map(|now| page.is_stale(now));
        assert_eq!(stale, [true, false, false, true]);
    }

    #[test]
    fn a_hint_stands_above_the_forecast_until_it_ends() {
        let mut book = Book::default();
        let hint = Hint {
            chance: 0.9,
            until: 50,
        };
        book.hint(&target("a.db"), hint).expect("room");
        assert_eq!(
            book.page(&target("a.db")).map(|page| page.chances(49)),
            Some(vec![0.9])
        );
        let page = book.open(&target("a.db"), false);
        page.forecast = Some(Forecast {
            issued: 0,
            expires: 100,
            chances: vec![0.1, 0.2],
            value: None,
            model: 0,
        });
        assert_eq!(page.chances(49), [0.9, 0.9]);
        assert_eq!(page.chances(50), [0.1, 0.2]);
        book.close(&target("a.db"), 49);
        assert_eq!(book.len(), 1, "its hint still holds");
        book.sweep(50);
        assert!(book.is_empty());
    }

    #[test]
    fn hints_about_what_was_never_seen_are_bounded() {
        let mut book = Book::default();
        let hint = Hint {
            chance: 0.9,
            until: 50,
        };
        for number in 0..UNSEEN_MAX {
            book.hint(&target(&format!("#{number}")), hint)
                .expect("room");
        }
        assert_eq!(book.hint(&target("#one more"), hint), Err(Full));
        assert_eq!(book.hint(&target("#1"), hint), Ok(()), "that is known");
    }
}
