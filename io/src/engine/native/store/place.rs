//! Where a record lies and about how long it is, in eight bytes. Pure.
//!
//! There is one place for every key in memory, so it is worth packing: the position in units of
//! eight bytes takes 47 bits, as in the commit word; 17 are left for the length, a mantissa of 12
//! bits and an exponent. The length is rounded up, by a two-thousandth at most: a read of that many
//! bytes has all of the record. Places compare as their positions do.

use wal::Lsn;
use wal::log::group;

const LEN_BITS: u32 = 17;
const MANTISSA_BITS: u32 = 12;

/// A record's position and length.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Place(u64);

impl Place {
    /// The place of a record at `lsn` with a payload of this length.
    pub fn new(lsn: Lsn, payload: usize) -> Place {
        let units = (group::record_len(payload) / group::ALIGN) as u64;
        let mut exponent = (u64::BITS - units.leading_zeros()).saturating_sub(MANTISSA_BITS);
        let mut mantissa = units.div_ceil(1 << exponent);
        if mantissa >> MANTISSA_BITS != 0 {
            mantissa = mantissa.div_ceil(2);
            exponent += 1;
        }
        let len = u64::from(exponent) << MANTISSA_BITS | mantissa;
        debug_assert!(
            len >> LEN_BITS == 0 && lsn.0 >> 50 == 0,
            "as the log bounds them"
        );
        Place((lsn.0 / group::ALIGN as u64) << LEN_BITS | len)
    }

    pub fn lsn(self) -> Lsn {
        Lsn((self.0 >> LEN_BITS) * group::ALIGN as u64)
    }

    /// Bytes of the record, head included, or a little more.
    pub fn len_max(self) -> usize {
        let mantissa = self.0 & ((1 << MANTISSA_BITS) - 1);
        let exponent = self.0 >> MANTISSA_BITS & ((1 << (LEN_BITS - MANTISSA_BITS)) - 1);
        (mantissa << exponent) as usize * group::ALIGN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_place_keeps_its_position_and_covers_its_record(
            at in 0u64..1 << 47,
            len in prop_oneof![0usize..70_000, 0usize..1 << 30],
        ) {
            let place = Place::new(Lsn(at * 8), len);
            prop_assert_eq!(place.lsn(), Lsn(at * 8));
            let exact = group::record_len(len);
            prop_assert!(place.len_max() >= exact);
            prop_assert!(place.len_max() <= exact + exact / 2000 + 8);
        }

        #[test]
        fn places_compare_as_positions_do(
            one in 0u64..1 << 47, other in 0u64..1 << 47, len in 0usize..1 << 30,
        ) {
            prop_assume!(one != other);
            let places = Place::new(Lsn(one * 8), len) < Place::new(Lsn(other * 8), 0);
            prop_assert_eq!(places, one < other);
        }
    }
}
