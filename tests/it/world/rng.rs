//! Random numbers from a seed, so that a failure can be repeated: splitmix64, as a function of
//! numbers and as a sequence.

use std::{
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

/// splitmix64's finaliser: every bit of the input changes about half of the output bits.
pub(crate) const fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The seed of this run: `DIALBACK_SEED`, or a new one each time. Its users print it.
pub(crate) fn seed() -> u64 {
    static SEED: LazyLock<u64> = LazyLock::new(|| match std::env::var("DIALBACK_SEED") {
        Ok(text) => text.parse().expect("DIALBACK_SEED is a whole number"),
        // The only randomness in std, and enough for a seed. Short, so that it can be typed.
        Err(_) => RandomState::new().hash_one(0) % 1_000_000,
    });
    *SEED
}

/// A sequence of random numbers that the seed determines.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    /// The sequence of one seed for one purpose.
    pub(crate) const fn new(seed: u64, purpose: u64) -> Self {
        Self(mix(seed ^ mix(purpose)))
    }

    pub(crate) const fn number(&mut self) -> u64 {
        self.0 = mix(self.0);
        self.0
    }

    /// A number below `end`.
    pub(crate) const fn below(&mut self, end: u64) -> u64 {
        self.number() % end
    }

    /// From 0.0 up to but without 1.0.
    pub(crate) fn fraction(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True with this probability.
    pub(crate) fn happens(&mut self, probability: f64) -> bool {
        // Draws a number in any case, so that one setting does not shift the numbers of the next.
        self.fraction() < probability
    }
}

#[test]
fn the_same_seed_and_purpose_give_the_same_numbers_and_others_do_not() {
    let row = |seed, purpose| {
        let mut rng = Rng::new(seed, purpose);
        std::array::from_fn::<_, 8, _>(|_| rng.number())
    };
    assert_eq!(row(1, 1), row(1, 1));
    assert!(row(1, 1) != row(2, 1) && row(1, 1) != row(1, 2));
}

#[test]
fn random_numbers_are_uniform() {
    let mut rng = Rng::new(7, 0);
    let happens = (0..10_000).filter(|_| rng.happens(0.3)).count();
    assert!((2_800..3_200).contains(&happens), "{happens} of 10,000 at 0.3");
    assert!((0..1_000).all(|_| rng.below(5) < 5 && !rng.happens(0.0) && rng.happens(1.0)));
}
