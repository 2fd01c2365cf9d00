//! Counter-based random numbers: a stream for each row, so that rows can be made in any order.

/// The golden ratio in 64 bits, the step of splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
/// Standard deviation of a uniform 16-bit number.
const DEVIATION_16: f32 = 18_918.61;

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number that depends on all of `key`.
pub(super) fn hash(key: [u64; 4]) -> u64 {
    key.into_iter().fold(0, |h, k| mix(h.wrapping_add(STEP) ^ mix(k.wrapping_add(STEP))))
}

/// splitmix64.
pub(super) struct Stream(u64);

impl Stream {
    /// The stream of `key`: seed, kind of tensor, layer, row.
    pub fn new(key: [u64; 4]) -> Self {
        Self(hash(key))
    }

    /// 64 bits.
    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(STEP);
        mix(self.0)
    }

    /// Nearly normal, with mean 0 and variance 1: the sum of four uniform numbers.
    #[inline]
    pub fn normal(&mut self) -> f32 {
        let bits = self.next();
        let sum: u64 = (0..4).map(|i| bits >> (16 * i) & 0xffff).sum();
        (sum as f32 - 2.0 * 65_535.0) / (2.0 * DEVIATION_16)
    }

    /// Four uniform numbers with mean 0 and variance 1.
    #[inline]
    pub fn uniform4(&mut self) -> [f32; 4] {
        let bits = self.next();
        std::array::from_fn(|i| ((bits >> (16 * i) & 0xffff) as f32 - 32_767.5) / DEVIATION_16)
    }
}

/// A random order of `n` things: which one is at each place.
pub(super) fn permutation(key: [u64; 4], n: usize) -> Vec<u32> {
    let mut stream = Stream::new(key);
    let mut order: Vec<u32> = (0..n as u32).collect();
    for i in (1..n).rev() {
        order.swap(i, (stream.next() % (i as u64 + 1)) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_mean_0_and_variance_1() {
        let n = 1 << 18;
        let mut stream = Stream::new([1, 2, 3, 4]);
        let normal: Vec<f32> = (0..n).map(|_| stream.normal()).collect();
        let uniform: Vec<f32> = (0..n / 4).flat_map(|_| stream.uniform4()).collect();
        for values in [normal, uniform] {
            let mean = values.iter().map(|v| f64::from(*v)).sum::<f64>() / n as f64;
            let variance = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n as f64;
            assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "{mean} {variance}");
        }
    }

    #[test]
    fn an_order_holds_everything_once() {
        let mut order = permutation([5, 0, 0, 0], 1000);
        assert!(!order.is_sorted());
        order.sort_unstable();
        assert!(order.iter().enumerate().all(|(i, o)| i == *o as usize));
    }
}
