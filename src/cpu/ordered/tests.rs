//! Tests that sums in a kernel's own order come to the same bits.

use super::super::testing::{noise, random_rows};
use super::super::{Isa, Rows, plain};

#[test]
fn the_order_of_the_sums_changes_no_bit() {
    let isas = Isa::ALL.into_iter().filter(|isa| isa.is_available());
    let all = isas.flat_map(|isa| plain::TABLE.iter().map(move |k| (isa, k.dtype)));
    for (isa, dtype) in all {
        let Some(order) = isa.ordered(dtype) else { continue };
        for n_columns in [order.columns, 3 * order.columns, 40 * order.columns] {
            let n_rows = 11;
            let data = random_rows(dtype, n_columns, n_rows, 5);
            let rows = Rows::range(&data, data.len() / n_rows, 0, n_rows);
            let (mut a, y) = (noise(n_rows, 7), noise(n_columns, 9));
            a[4] = 0.0;
            let (mut expected, mut got) = (y.clone(), y);
            (isa.kernels(dtype).add_scaled)(rows, &a, &mut expected);
            (order.begin)(&mut got);
            // In two parts, as rows are taken some at a time.
            (order.add)(rows.part(0, 6), &a[..6], &mut got);
            (order.add)(rows.part(6, 5), &a[6..], &mut got);
            (order.end)(&mut got);
            let bits = |y: &[f32]| y.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&got), bits(&expected), "{isa} {dtype} {n_columns}");
        }
    }
}
