//! Rank and error metrics of evaluation.

/// Spearman's rank correlation with average ranks for ties; 0 if either side is constant.
pub fn spearman(_a: &[f32], _b: &[f32]) -> f32 {
    todo!()
}

/// Weighted Kendall tau (hyperbolic weights, averaged over both rankings), as `scipy.stats.weightedtau`.
pub fn weighted_tau(_a: &[f32], _b: &[f32]) -> f32 {
    todo!()
}
