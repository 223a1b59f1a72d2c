//! tanh and what is made of it, a vector at a time. The largest error is 4e-7, about that of a sum
//! in single precision; a call of the mathematics library for each number costs many times as much.

use pulp::Simd;

/// Beyond this tanh is ±1 in single precision, or nearly.
const FLAT: f32 = 8.6;
/// P, from the constant on.
const ABOVE: [f32; 5] = [
    0.999_999_94,
    0.133_996_86,
    3.518_041_3e-3,
    2.099_135_7e-5,
    1.391_228_2e-8,
];
/// Q, from the constant on.
const BELOW: [f32; 5] = [
    1.0,
    0.467_329_95,
    2.596_164_3e-2,
    3.322_887e-4,
    7.998_628e-7,
];

/// x · P(x²) / Q(x²), fitted by `model/fit/tanh.py`; at most 4e-7 off.
#[inline(always)]
pub(super) fn tanh<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let x = simd.max_f32s(
        simd.splat_f32s(-FLAT),
        simd.min_f32s(simd.splat_f32s(FLAT), x),
    );
    let square = simd.mul_f32s(x, x);
    let polynomial = |numbers: &[f32]| {
        let (last, rest) = numbers.split_last().expect("not empty");
        rest.iter()
            .rev()
            .fold(simd.splat_f32s(*last), |sum, number| {
                simd.mul_add_e_f32s(sum, square, simd.splat_f32s(*number))
            })
    };
    let above = simd.mul_f32s(x, polynomial(&ABOVE));
    simd.div_f32s(above, polynomial(&BELOW))
}

#[inline(always)]
pub(super) fn sigmoid<S: Simd>(simd: S, x: S::f32s) -> S::f32s {
    let half = simd.splat_f32s(0.5);
    simd.mul_add_e_f32s(half, tanh(simd, simd.mul_f32s(half, x)), half)
}

#[cfg(test)]
mod tests {
    use pulp::{Arch, WithSimd};

    use super::*;

    #[test]
    fn tanh_is_tanh() {
        struct Tanh<'a>(&'a mut [f32]);
        impl WithSimd for Tanh<'_> {
            type Output = ();
            #[inline(always)]
            fn with_simd<S: Simd>(self, simd: S) {
                for x in S::as_mut_simd_f32s(self.0).0 {
                    *x = tanh(simd, *x);
                }
            }
        }
        let mut given: Vec<f32> = (-200_000..200_000).map(|n| n as f32 / 10_000.0).collect();
        let odd = [
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::MAX,
            f32::MIN_POSITIVE,
        ];
        given.extend(odd.iter().cycle().take(64));
        let mut said = given.clone();
        Arch::new().dispatch(Tanh(&mut said));
        for (x, said) in given.into_iter().zip(said) {
            let off = f64::from(said) - f64::from(x).tanh();
            assert!(off.abs() < 5e-7, "{off} at {x}");
        }
    }
}
