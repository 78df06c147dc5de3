//! Rank and error metrics of evaluation.

/// Spearman's rank correlation with average ranks for ties; 0 if either side is constant.
///
/// Values that have no partner on the other side are ignored.
pub fn spearman(a: &[f32], b: &[f32]) -> f32 {
    let count = a.len().min(b.len());
    let (a, b) = (average_ranks(&a[..count]), average_ranks(&b[..count]));
    let centre = (count as f64 - 1.0) / 2.0;
    let product = |x: &[f64], y: &[f64]| -> f64 {
        x.iter().zip(y).map(|(x, y)| (x - centre) * (y - centre)).sum()
    };
    ratio(product(&a, &b), product(&a, &a) * product(&b, &b))
}

/// Weighted Kendall tau (hyperbolic weights, averaged over both rankings), as `scipy.stats.weightedtau`.
///
/// The top of a ranking counts most. 0 if either side is constant. Quadratic in the number of values.
pub fn weighted_tau(a: &[f32], b: &[f32]) -> f32 {
    let count = a.len().min(b.len());
    let (a, b) = (&a[..count], &b[..count]);
    (tau_weighted_by(a, b) + tau_weighted_by(b, a)) / 2.0
}

/// Indices by falling value; equal values in the order they came.
pub fn ranking(values: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[j].total_cmp(&values[i]));
    order
}

/// Tau with weights from the ranks of `a`, ties broken by `b`.
fn tau_weighted_by(a: &[f32], b: &[f32]) -> f32 {
    let mut order: Vec<usize> = (0..a.len()).collect();
    order.sort_by(|&i, &j| a[j].total_cmp(&a[i]).then(b[j].total_cmp(&b[i])));
    let weights: Vec<f64> = (0..a.len()).map(|rank| 1.0 / (rank as f64 + 1.0)).collect();
    let (mut both, mut left, mut right) = (0.0, 0.0, 0.0);
    for high in 0..order.len() {
        for low in high + 1..order.len() {
            let weight = weights[high] + weights[low];
            let x = sign(a[order[high]], a[order[low]]);
            let y = sign(b[order[high]], b[order[low]]);
            both += weight * x * y;
            left += weight * x * x;
            right += weight * y * y;
        }
    }
    ratio(both, left * right)
}

fn sign(a: f32, b: f32) -> f64 {
    match a.total_cmp(&b) {
        std::cmp::Ordering::Less => -1.0,
        std::cmp::Ordering::Equal => 0.0,
        std::cmp::Ordering::Greater => 1.0,
    }
}

fn ratio(product: f64, squares: f64) -> f32 {
    if squares > 0.0 { (product / squares.sqrt()) as f32 } else { 0.0 }
}

pub(crate) fn average_ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    while start < order.len() {
        let same = |&&index: &&usize| values[index] == values[order[start]];
        let ties = order[start..].iter().take_while(same).count().max(1);
        for &index in &order[start..start + ties] {
            ranks[index] = start as f64 + (ties as f64 - 1.0) / 2.0;
        }
        start += ties;
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reference values printed by scipy 1.x: `spearmanr(a, b)`, `weightedtau(a, b, rank=True)`.
    #[test]
    fn scipy_values() {
        let a = [0.1, 0.5, 0.3, 0.9, 0.2, 0.7, 0.5];
        let b = [0.2, 0.4, 0.35, 0.8, 0.1, 0.9, 0.3];
        assert!((weighted_tau(&a, &b) - 0.686_053_04).abs() < 1e-6);
        assert!((spearman(&a, &b) - 0.864_899_96).abs() < 1e-6);
        let (a, b) = ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [2.0, 1.0, 3.0, 4.0, 6.0, 5.0]);
        assert!((weighted_tau(&a, &b) - 0.695_238_1).abs() < 1e-6);
        let (a, b) = ([1.0, 1.0, 2.0, 2.0, 3.0], [1.0, 2.0, 2.0, 3.0, 3.0]);
        assert!((weighted_tau(&a, &b) - 0.775_167_3).abs() < 1e-6);
        assert!((spearman(&a, &b) - 0.805_555_6).abs() < 1e-6);
    }

    #[test]
    fn reversed_is_minus_one_and_constant_is_zero() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]);
        assert_eq!((spearman(&a, &b), weighted_tau(&a, &b)), (-1.0, -1.0));
        assert_eq!((spearman(&a, &[1.0; 4]), weighted_tau(&[2.0; 4], &b)), (0.0, 0.0));
        assert_eq!((spearman(&[], &[]), weighted_tau(&[1.0], &[1.0])), (0.0, 0.0));
        assert!(spearman(&[f32::NAN, 1.0, 2.0], &[1.0, 2.0, 3.0]).is_finite());
    }
}
