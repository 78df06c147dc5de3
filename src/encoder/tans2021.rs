//! The `tans2021` recipe: three linear layers (arXiv 2103.01495), forward pass.

use serde::{Deserialize, Serialize};

/// W_q, W_m, W_s and what standardises their inputs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tans2021 {}
