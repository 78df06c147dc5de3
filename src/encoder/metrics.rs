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
/// The top of a ranking counts most. 0 if either side is constant.
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

/// Tau with weights from the ranks of `a`, ties broken by `b`: pairs of values, each of which weighs 1 / its rank, that
/// both sides order alike, less those that they do not.
fn tau_weighted_by(a: &[f32], b: &[f32]) -> f32 {
    let mut order: Vec<usize> = (0..a.len()).collect();
    order.sort_by(|&i, &j| a[j].total_cmp(&a[i]).then(b[j].total_cmp(&b[i])));
    let mut weights = vec![0.0; a.len()];
    for (rank, &index) in order.iter().enumerate() {
        weights[index] = 1.0 / (rank as f64 + 1.0);
    }
    let all = order.len().saturating_sub(1) as f64 * weights.iter().sum::<f64>();
    let levels = levels(b);
    let mut before = Sums::new(b.len());
    let mut both = 0.0;
    for ties in order.chunk_by(|&i, &j| a[i].total_cmp(&a[j]).is_eq()) {
        for &index in ties {
            let [agreeing, opposed] = before.around(levels[index]);
            both += agreeing.weight - opposed.weight;
            both += (agreeing.count - opposed.count) * weights[index];
        }
        ties.iter().for_each(|&index| before.add(levels[index], weights[index]));
    }
    let apart = |values: &[f32]| all - tied(values, &weights);
    ratio(both, apart(a) * apart(b))
}

/// Summed weights of the pairs of equal values.
fn tied(values: &[f32], weights: &[f64]) -> f64 {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let groups = order.chunk_by(|&i, &j| values[i].total_cmp(&values[j]).is_eq());
    let within = |group: &[usize]| -> f64 {
        (group.len() - 1) as f64 * group.iter().map(|&index| weights[index]).sum::<f64>()
    };
    groups.map(within).sum()
}

/// Position of each value among the different ones, the largest first.
fn levels(values: &[f32]) -> Vec<usize> {
    let mut levels = vec![0; values.len()];
    let order = ranking(values);
    let groups = order.chunk_by(|&i, &j| values[i].total_cmp(&values[j]).is_eq());
    for (level, group) in groups.enumerate() {
        group.iter().for_each(|&index| levels[index] = level);
    }
    levels
}

#[derive(Clone, Copy, Default)]
struct Sum {
    count: f64,
    weight: f64,
}

/// Counts and weights by level, summed over levels in logarithmic time (Fenwick 1994).
struct Sums(Vec<Sum>);

impl Sums {
    fn new(levels: usize) -> Self {
        Self(vec![Sum::default(); levels + 1])
    }

    fn add(&mut self, level: usize, weight: f64) {
        let mut at = level + 1;
        while let Some(sum) = self.0.get_mut(at) {
            sum.count += 1.0;
            sum.weight += weight;
            at += at & at.wrapping_neg();
        }
    }

    /// Of the first levels.
    fn first(&self, levels: usize) -> Sum {
        let (mut out, mut at) = (Sum::default(), levels);
        while at > 0 {
            out.count += self.0[at].count;
            out.weight += self.0[at].weight;
            at &= at - 1;
        }
        out
    }

    /// Of the levels before one, and behind it.
    fn around(&self, level: usize) -> [Sum; 2] {
        let (before, until, all) =
            (self.first(level), self.first(level + 1), self.first(self.0.len() - 1));
        let behind = Sum { count: all.count - until.count, weight: all.weight - until.weight };
        [before, behind]
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

    /// The definition, pair by pair.
    fn tau_by_pairs(a: &[f32], b: &[f32]) -> f32 {
        let mut order: Vec<usize> = (0..a.len()).collect();
        order.sort_by(|&i, &j| a[j].total_cmp(&a[i]).then(b[j].total_cmp(&b[i])));
        let (mut both, mut left, mut right) = (0.0, 0.0, 0.0);
        for high in 0..order.len() {
            for low in high + 1..order.len() {
                let weight = 1.0 / (high as f64 + 1.0) + 1.0 / (low as f64 + 1.0);
                let sign = |values: &[f32]| {
                    f64::from(values[order[high]].total_cmp(&values[order[low]]) as i8)
                };
                both += weight * sign(a) * sign(b);
                left += weight * sign(a).abs();
                right += weight * sign(b).abs();
            }
        }
        ratio(both, left * right)
    }

    #[test]
    fn tau_is_what_its_definition_says() {
        let mut state = 7_u32;
        let mut next = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 16) % below) as f32
        };
        for (count, kinds) in [(2, 2), (7, 3), (30, 5), (40, 1000), (60, 40)] {
            let mut values = || (0..count).map(|_| next(kinds)).collect::<Vec<f32>>();
            let (a, b) = (values(), values());
            let (found, expected) = (tau_weighted_by(&a, &b), tau_by_pairs(&a, &b));
            assert!((found - expected).abs() < 1e-6, "{found} {expected} of {a:?} and {b:?}");
        }
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
