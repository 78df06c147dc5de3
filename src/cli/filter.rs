//! The filter flags that commands share.

use super::{Context, units};

/// Limits on what the models cost; all must hold. What is not known of a model meets no limit.
#[derive(clap::Args)]
pub struct CostFlags {
    /// At most this many parameters, such as 5M; a model whose number is unknown is left out
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_params: Option<u64>,
    /// At most this many multiply-accumulate operations a sample, such as 200M; unknown is left out
    #[arg(long, value_name = "N", value_parser = units::count)]
    max_macs: Option<u64>,
    /// At most this latency, such as 5ms; only models that were measured at ingest have one
    #[arg(long, value_name = "TIME", value_parser = units::milliseconds)]
    max_latency: Option<f32>,
}

/// Conditions on the models; all must hold.
#[derive(clap::Args)]
pub struct FilterFlags {
    #[command(flatten)]
    cost: CostFlags,
    /// Licenses (SPDX ids, separated by commas) that must satisfy the model's license expression
    #[arg(long, value_name = "SPDX", value_delimiter = ',', value_parser = units::license)]
    license: Vec<String>,
    /// Only networks that can be run here: no references, and none with a missing operator
    #[arg(long)]
    runnable: bool,
    /// A tag that the model must have, as key=value; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = units::tag)]
    tag: Vec<(String, String)>,
}

impl CostFlags {
    /// Refuses the flags where no query is asked that they could limit.
    pub fn refuse_given(&self) -> tans::Result<()> {
        let is_given = self.max_params.is_some() || self.max_macs.is_some();
        if is_given || self.max_latency.is_some() {
            return Err(tans::Error::Input(
                "--max-params, --max-macs and --max-latency choose among answers: \
                 expected --top N with them, found the name of a model"
                    .to_owned(),
            ));
        }
        Ok(())
    }

    /// The library's filter.
    pub fn filter(&self) -> tans::Filter {
        tans::Filter {
            params_max: self.max_params,
            macs_max: self.max_macs,
            latency_ms_max: self.max_latency,
            ..tans::Filter::default()
        }
    }
}

impl FilterFlags {
    /// Explains an answer with few or no models.
    pub fn remark(&self, context: &Context, is_short: bool) {
        if is_short && self.cost.max_latency.is_some() {
            context.output.note(
                "--max-latency finds models whose latency was measured here, at ingest; \
                 those of a starter bundle and references have none",
            );
        }
    }

    /// The library's filter.
    pub fn filter(&self) -> tans::Filter {
        tans::Filter {
            licenses: self.license.clone(),
            tags: self.tag.iter().map(|(key, value)| format!("{key}={value}")).collect(),
            runnable: self.runnable,
            ..self.cost.filter()
        }
    }
}
