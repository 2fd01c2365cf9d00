//! Loops that are written out.

/// What is written once and stands in the code for each of up to four numbers below `$n`: the compiler would leave long ones a
/// loop, and what they index in memory.
macro_rules! each {
    ($n:expr, $number:ident, $what:block) => {
        each!(@ $n, $number, $what, 0, 1, 2, 3)
    };
    (@ $n:expr, $number:ident, $what:block, $($i:literal),*) => {
        const { assert!($n <= 4) };
        $(if $n > $i {
            let $number = $i;
            $what
        })*
    };
}
pub(super) use each;

/// What each of some lists has at `i`.
#[inline(always)]
pub(super) fn of_each<'a, T, const N: usize>(lists: &[&'a [T]; N], i: usize) -> [&'a T; N] {
    let mut all = [&lists[0][i]; N];
    each!(N, n, { all[n] = &lists[n][i] });
    all
}
