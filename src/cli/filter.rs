//! The filter flags that `query` and `list` share.

use super::{Context, units};

/// Conditions on the models; all must hold. What is not known of a model meets no limit.
#[derive(clap::Args)]
pub struct FilterFlags {
    /// At most this many parameters, such as 5M; a model whose number is unknown is left out
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_params: Option<u64>,
    /// At most this many multiply-accumulate operations a sample, such as 200M; unknown is left out
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_macs: Option<u64>,
    /// At most this latency, such as 5ms; only models that were measured at ingest have one
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds)]
    max_latency: Option<f32>,
    /// One of these licenses (SPDX), separated by commas
    #[arg(long, value_name = "SPDX", value_delimiter = ',')]
    license: Vec<String>,
    /// A tag that the model must have, as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
}

impl FilterFlags {
    /// Explains an answer with few or no models.
    pub fn remark(&self, context: &Context, is_short: bool) {
        if is_short && self.max_latency.is_some() {
            context.output.note(
                "--max-latency finds models whose latency was measured here, at ingest; \
                 those of a starter bundle and references have none",
            );
        }
    }

    /// The library's filter.
    pub fn filter(&self) -> tans::Filter {
        tans::Filter {
            params_max: self.max_params,
            macs_max: self.max_macs,
            latency_ms_max: self.max_latency,
            licenses: self.license.clone(),
            tags: self.tag.iter().map(|(key, value)| format!("{key}={value}")).collect(),
        }
    }
}
