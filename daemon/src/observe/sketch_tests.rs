//! The three bounds of the sketch, against counts of everything; and ten million keys.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn limits(held: usize, filter_bytes: usize) -> Limits {
    Limits { held, filter_bytes }
}

fn add(sketch: &mut Sketch<u64>, key: u64) {
    add_from(sketch, key, NOWHERE);
}

fn add_from(sketch: &mut Sketch<u64>, key: u64, region: Region) {
    let access = Count {
        region,
        accesses: 1,
        bytes: 10,
    };
    sketch.add(&key.to_le_bytes(), access, 8, || key);
}

/// Numbers without an end, the same in every run (SplitMix64).
fn numbers(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed;
    move || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

/// A key by Zipf's law with exponent 1 over 1..=n: the inverse of its continuous distribution.
fn zipf(uniform: u64, n: f64) -> u64 {
    let share = uniform as f64 / u64::MAX as f64;
    (n.powf(share) as u64).max(1)
}

/// Each key's truth lies within what is said of it.
fn check(sketch: &Sketch<u64>, truth: &BTreeMap<u64, u64>) -> Result<(), TestCaseError> {
    let mut held = BTreeMap::new();
    for one in sketch.held() {
        let (least, most) = (one.accesses(), one.accesses() + one.error());
        let count = truth.get(&one.item).copied().unwrap_or(0);
        prop_assert!(
            least <= count && count <= most,
            "{}: {count} in {least}..={most}",
            one.item
        );
        prop_assert!(
            held.insert(one.item, ()).is_none(),
            "{} is held twice",
            one.item
        );
    }
    for (key, count) in truth {
        let said = held.contains_key(key) || *count <= sketch.floor();
        prop_assert!(said, "{key}: {count} above {}", sketch.floor());
    }
    Ok(())
}

proptest! {
    #[test]
    fn every_count_lies_within_its_bounds_in_every_bin(
        keys in prop::collection::vec(prop::collection::vec(0..40_u64, 0..300), 1..5),
        held in 1..20_usize,
        filter in 16..512_usize,
    ) {
        let mut sketch = Sketch::new(limits(held, filter));
        for bin in keys {
            let mut truth = BTreeMap::new();
            for key in bin {
                add(&mut sketch, key);
                *truth.entry(key).or_insert(0) += 1;
            }
            check(&sketch, &truth)?;
            sketch.next_bin();
        }
    }

    #[test]
    fn whatever_is_counted_is_counted_for_some_region(
        accesses in prop::collection::vec((0..3_u64, 0..40_u16), 0..200),
    ) {
        let mut sketch = Sketch::new(limits(4, 1024));
        for (key, region) in &accesses {
            add_from(&mut sketch, *key, *region);
        }
        let all: u64 = sketch.held().iter().map(Held::accesses).sum();
        prop_assert_eq!(all, accesses.len() as u64);
        prop_assert!(sketch.held().iter().all(|held| held.counts().len() <= REGIONS_MAX));
    }
}

#[test]
fn nothing_is_estimated_while_everything_fits() {
    let mut sketch = Sketch::new(limits(100, 1 << 20));
    for key in 0..100 {
        (0..=key).for_each(|_| add(&mut sketch, key));
    }
    assert!(sketch.filter.is_empty(), "the filter costs nothing yet");
    for held in sketch.held() {
        assert_eq!((held.accesses(), held.error()), (held.item + 1, 0));
    }
}

#[test]
fn a_key_that_becomes_hot_is_held_and_then_exact() {
    let mut sketch = Sketch::new(limits(10, 1 << 16));
    (0..10_000).for_each(|key| add(&mut sketch, key));
    (0..50).for_each(|_| add(&mut sketch, 77_777));
    let find = |sketch: &Sketch<u64>| {
        let held = sketch.held().iter().find(|held| held.item == 77_777);
        held.map(|held| (held.accesses(), held.error()))
    };
    let (count, error) = find(&sketch).expect("held");
    assert!(
        count <= 50 && count + error >= 50 && error < 10,
        "{count} + {error}"
    );
    sketch.next_bin();
    (0..50).for_each(|_| add(&mut sketch, 77_777));
    assert_eq!(
        find(&sketch),
        Some((50, 0)),
        "held since before the bin began"
    );
}

#[test]
fn ten_million_keys_fit_and_the_top_is_exact() {
    const KEYS: f64 = 1e7;
    const HELD: usize = 10_000;
    let mut sketch = Sketch::new(limits(HELD, 16 << 20));
    let mut next = numbers(7);
    let mut truth = vec![0_u32; 300];
    let mut passed = 0_u64;
    let mut count = |sketch: &mut Sketch<u64>, key: u64| {
        let held = sketch.held().len() == HELD;
        add(sketch, key);
        passed += u64::from(held);
        if let Some(count) = truth.get_mut(key as usize) {
            *count += 1;
        }
    };
    // Every one of the ten million once, in an order that mixes them, among a Zipf stream.
    for number in 0..10_000_000_u64 {
        count(&mut sketch, number * 7_368_787 % 10_000_000 + 1);
        if number % 5 == 0 {
            count(&mut sketch, zipf(next(), KEYS));
        }
    }
    let bytes = sketch.bytes();
    assert!(bytes <= (16 << 20) + HELD * SLOT_BYTES_MAX, "{bytes} bytes");
    let bound = std::f64::consts::E / sketch.width() as f64 * passed as f64;
    let within = sketch
        .held()
        .iter()
        .filter(|held| held.error() as f64 <= bound);
    let share = within.count() as f64 / HELD as f64;
    assert!(share >= 0.98, "{share} of the errors are at most {bound}");
    // The next bin is of the Zipf stream alone: what was hot is held, and counted exactly.
    sketch.next_bin();
    let mut truth = vec![0_u64; 101];
    for _ in 0..500_000 {
        let key = zipf(next(), KEYS);
        add(&mut sketch, key);
        if let Some(count) = truth.get_mut(key as usize) {
            *count += 1;
        }
    }
    for (key, count) in truth.iter().enumerate().skip(1) {
        let held = sketch.held().iter().find(|held| held.item == key as u64);
        let held = held.unwrap_or_else(|| panic!("{key} of {count} accesses is not held"));
        assert_eq!((held.accesses(), held.error()), (*count, 0), "{key}");
    }
}
