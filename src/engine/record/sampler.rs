//! Poisson sampling by bytes: each byte allocated starts a sample with the same small probability, so that a block of `size`
//! bytes is sampled with probability 1 - exp(-size / mean), whatever came before (tcmalloc's and jemalloc's scheme).

use core::cell::Cell;

/// Per-thread state. All zero is a good start: the first call draws.
#[derive(Debug, Default)]
pub struct Sampler {
    /// Bytes until the next sample; 0 before the first draw.
    left: Cell<i64>,
    random: Cell<u64>,
}

impl Sampler {
    /// Whether a block of `size` bytes is sampled. `mean` is in bytes and not 0; `seed` matters in the first call.
    #[inline]
    pub fn sample(&self, size: usize, mean: u64, seed: u64) -> bool {
        if self.random.get() == 0 {
            self.random.set(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
            self.left.set(self.draw(mean));
        }
        if self.passes(size) {
            return false;
        }
        self.left.set(self.draw(mean));
        true
    }

    /// Whether a block of `size` bytes is passed over. Where it may not be, nothing has changed: ask [`Self::sample`].
    #[inline(always)]
    pub fn passes(&self, size: usize) -> bool {
        // A block has less than 2^63 bytes.
        let left = self.left.get().wrapping_sub(size as i64);
        if left > 0 {
            self.left.set(left);
        }
        left > 0
    }

    /// An exponentially distributed gap.
    #[cold]
    fn draw(&self, mean: u64) -> i64 {
        // xorshift64* (Vigna).
        let mut random = self.random.get();
        random ^= random >> 12;
        random ^= random << 25;
        random ^= random >> 27;
        self.random.set(random);
        let bits = random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        let uniform = (bits as f64 + 0.5) / (1u64 << 53) as f64;
        (-libm::log(uniform) * mean as f64) as i64 + 1
    }
}

/// How many blocks one sampled block of `size` bytes stands for.
pub fn weight(size: usize, mean: u64) -> f64 {
    if mean == 0 || size == 0 {
        return 1.0;
    }
    1.0 / -libm::expm1(-(size as f64) / mean as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_make_up_for_what_was_not_sampled() {
        for (size, count) in [(16, 4_000_000), (4096, 200_000), (1 << 20, 2000)] {
            let mean = 64 << 10;
            let sampler = Sampler::default();
            let sampled = (0..count).filter(|_| sampler.sample(size, mean, 7)).count();
            let estimate = sampled as f64 * weight(size, mean);
            let relative = (estimate - f64::from(count)).abs() / f64::from(count);
            assert!(relative < 0.1, "{size}: {estimate} of {count}");
        }
    }
}
