//! What one core can do at most: fused multiplications and additions in registers and nothing else.

use std::hint::black_box;
use std::time::Instant;

use pulp::{Arch, Simd, WithSimd};

/// Sums that do not wait for each other: more than a core has under way, fewer than registers.
const SUMS: usize = 12;
const TURNS: usize = 50_000;

struct Multiply;

impl WithSimd for Multiply {
    /// Floating-point operations, and the sum, which nobody needs.
    type Output = (f64, f32);

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> (f64, f32) {
        // Else the compiler knows all sums before it runs.
        let factor = simd.splat_f32s(black_box(0.999));
        let more = simd.splat_f32s(black_box(1e-3));
        let mut sums = [simd.splat_f32s(1.0); SUMS];
        for _ in 0..TURNS {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, more);
            }
        }
        let mut all = 0.0;
        for sum in sums {
            all += simd.reduce_sum_f32s(sum);
        }
        ((2 * SUMS * TURNS * S::F32_LANES) as f64, all)
    }
}

/// Operations a second, the fastest of some tries of a fraction of a millisecond each.
pub fn flops() -> f64 {
    let arch = Arch::new();
    let one = |_| {
        let begun = Instant::now();
        let (operations, _) = black_box(arch.dispatch(Multiply));
        operations / begun.elapsed().as_secs_f64()
    };
    (0..20).map(one).fold(0.0, f64::max)
}
