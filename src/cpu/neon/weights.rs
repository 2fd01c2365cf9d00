//! What a step multiplies: four blocks, or half a super-block.

use super::blocks::Blocks;
use super::steps::BLOCKS;
use super::supers::Supers;
use super::vectors::Zip;
use std::arch::aarch64::int8x16_t;
use std::marker::PhantomData;

/// Weights of a step.
pub trait Weights {
    /// Where they are.
    type Stored;
    /// As they are stored, vector by vector.
    type Raw: Zip;
    /// Whether they are in -32 to 31, so that the sum of eight products fits in 16 bits.
    const SMALL: bool;

    fn load(stored: &Self::Stored) -> Self::Raw;

    /// Their values, in -128 to 127.
    fn unpack(raw: Self::Raw) -> [int8x16_t; 8];
}

/// Four blocks.
pub struct Four<F, const BYTES: usize>(PhantomData<F>);

impl<F: Blocks<BYTES>, const BYTES: usize> Weights for Four<F, BYTES> {
    type Stored = [[u8; BYTES]; BLOCKS];
    type Raw = [F::Raw; BLOCKS];
    const SMALL: bool = F::SMALL;

    #[inline(always)]
    fn load([a, b, c, d]: &Self::Stored) -> Self::Raw {
        [F::load(a), F::load(b), F::load(c), F::load(d)]
    }

    #[inline(always)]
    fn unpack([a, b, c, d]: Self::Raw) -> [int8x16_t; 8] {
        let [[a, b], [c, d], [e, f], [g, h]] = [F::unpack(a), F::unpack(b), F::unpack(c), F::unpack(d)];
        [a, b, c, d, e, f, g, h]
    }
}

/// Half a super-block.
pub struct Half<F, const BYTES: usize, const HALF: usize>(PhantomData<F>);

impl<F: Supers<BYTES>, const BYTES: usize, const HALF: usize> Weights for Half<F, BYTES, HALF> {
    type Stored = [u8; BYTES];
    type Raw = F::Raw;
    const SMALL: bool = F::SMALL;

    #[inline(always)]
    fn load(stored: &Self::Stored) -> Self::Raw {
        F::load::<HALF>(stored)
    }

    #[inline(always)]
    fn unpack(raw: Self::Raw) -> [int8x16_t; 8] {
        F::unpack::<HALF>(raw)
    }
}
