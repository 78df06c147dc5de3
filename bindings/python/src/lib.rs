//! Python binding of tans: thin, no logic. Each method releases the interpreter lock and calls one method of the
//! library; results are dictionaries with the fields of the command line's `--json`.

mod convert;
mod errors;
mod options;
mod warnings;
mod weight;

use convert::{Exported, dataset, datasets, text, to_python};
use errors::{CancelledError, DamagedError, InputError, LockedError};
use errors::{RefusedError, TansError, ZooError, interruptible, raise};
use options::{costs, kind, sampling, seconds, set, shape, tagged, whole, whole_if, word};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tans::{
    CheckOptions, Choice, CutOptions, Database, Device, EditOptions, EvaluateOptions,
    ExplainOptions, Filter, FinetuneOptions, FitOptions, GraphError, GrowBudget, GrowOptions,
    IngestOptions, InitOptions, InputHints, Limits, ListOptions, MeasureBy, MeasureOptions,
    OpenOptions, QueryOptions, SubnetChoice, TaskOptions, TopOptions, TrainOptions, TuningOptions,
};

/// A zoo, open in this process; any number of threads may use it.
///
/// A dataset is images [n, height, width] or [n, height, width, 1, 3 or 4], uint8 or numbers in 0..1 or 0..255, with n
/// integer `labels`, or a path, or `task:NAME`. Methods that take one use at most `per_class` images of each class (100)
/// and split them by `train_share` (0.6), both drawn with `split_seed`.
///
/// What an operation left out although it succeeded (images that cannot be read, networks that cannot be probed or
/// measured) is a `UserWarning` that counts them and gives the first reason.
#[pyclass(frozen)]
struct Zoo {
    /// `None` after `close`.
    open: Mutex<Option<Database>>,
}

impl Zoo {
    fn new(database: Database) -> Self {
        Self { open: Mutex::new(Some(database)) }
    }

    fn database(&self) -> tans::Result<Database> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let closed =
            || tans::Error::Input("expected an open zoo, found one that was closed".into());
        open.clone().ok_or_else(closed)
    }
}

#[pymethods]
impl Zoo {
    /// Ends the use of the zoo, as the end of a `with` block does: another process may write to it. Operations of other
    /// threads that are under way finish first.
    fn close(&self, py: Python<'_>) {
        let database = self.open.lock().unwrap_or_else(PoisonError::into_inner).take();
        py.detach(|| drop(database));
    }

    fn __enter__(slf: Py<Self>) -> Py<Self> {
        slf
    }

    #[pyo3(signature = (*_exception))]
    fn __exit__(&self, py: Python<'_>, _exception: &Bound<'_, PyTuple>) {
        self.close(py);
    }

    /// Which stored networks should be fine-tuned on this dataset?
    ///
    /// `runnable` leaves out references and networks that cannot be run here. Up to `rerank` networks are probed on the
    /// dataset, for about `budget` seconds. Returns a list of dictionaries, best first.
    #[pyo3(signature = (dataset, labels=None, k=5, *, max_params=None, max_macs=None, max_latency_ms=None, licenses=None, tags=None, runnable=false, rerank=0, budget=None, per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn query<'py>(
        &self,
        py: Python<'py>,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        k: i128,
        max_params: Option<i128>,
        max_macs: Option<i128>,
        max_latency_ms: Option<f32>,
        licenses: Option<Vec<String>>,
        tags: Option<BTreeMap<String, String>>,
        runnable: bool,
        rerank: i128,
        budget: Option<f64>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = self::dataset(dataset, labels)?;
        let filter = Filter {
            licenses: licenses.unwrap_or_default(),
            tags: tagged(tags),
            runnable,
            ..costs(max_params, max_macs, max_latency_ms)?
        };
        let budget = budget.map(|budget| seconds("budget", budget)).transpose()?;
        let options = QueryOptions {
            k: whole("k", k)?,
            filter,
            rerank: whole("rerank", rerank)?,
            budget,
            sample: sampling(per_class, train_share, split_seed)?,
        };
        let report =
            interruptible(py, |observer| self.database()?.query(&source, &options, observer))?;
        warnings::skipped(py, &report.skipped)?;
        warnings::unprobed(py, &report.unprobed)?;
        to_python(py, &report.hits)
    }

    /// Why a model stands where it does in the answer for this dataset.
    #[pyo3(signature = (model, dataset, labels=None, *, per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn explain<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = self::dataset(dataset, labels)?;
        let options = ExplainOptions { sample: sampling(per_class, train_share, split_seed)? };
        let report = interruptible(py, |observer| {
            self.database()?.explain(&source, model, &options, observer)
        })?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Takes a network file, a folder of them, a manifest, or a `torch.nn.Module` on the CPU into the zoo; one dictionary
    /// per network.
    ///
    /// `task` and `accuracy`: what it was trained on, and how well; an unknown name becomes a reference. `jobs`: how many
    /// networks of a folder or manifest are taken in side by side.
    /// `space` names the architecture of files that hold weights alone, such as "resnet:18". `input` is (channels, height,
    /// width) of the images; pixels of 0..255 are multiplied by `scale` (1/255), then `mean` is subtracted and `std`
    /// divided by, by channel in `channel_order` (rgb, bgr or grey). A module is exported to ONNX by its own
    /// `torch.onnx.export`, which wants the package onnx, and needs `input`. `benchmark`: quick, or none to measure it on
    /// no benchmark task. `max_weight_bytes` and `max_constant_bytes` limit what a file may expand to.
    #[pyo3(signature = (source, *, name=None, task=None, accuracy=None, license=None, tags=None, space=None, input=None, mean=None, std=None, scale=None, channel_order=None, jobs=1, benchmark="quick", max_weight_bytes=None, max_constant_bytes=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn ingest<'py>(
        &self,
        py: Python<'py>,
        source: &Bound<'py, PyAny>,
        name: Option<String>,
        task: Option<String>,
        accuracy: Option<f32>,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
        space: Option<String>,
        input: Option<(i128, i128, i128)>,
        mean: Option<Vec<f32>>,
        std: Option<Vec<f32>>,
        scale: Option<f32>,
        channel_order: Option<&str>,
        jobs: i128,
        benchmark: &str,
        max_weight_bytes: Option<i128>,
        max_constant_bytes: Option<i128>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let input = input.map(shape).transpose()?;
        let exported = Exported::of(source, input)?;
        let order = channel_order.map(options::channel_order).transpose()?;
        let mut limits = Limits::default();
        set(&mut limits.weight_bytes_max, whole_if("max_weight_bytes", max_weight_bytes)?);
        set(&mut limits.constant_bytes_max, whole_if("max_constant_bytes", max_constant_bytes)?);
        let options = IngestOptions {
            name,
            task,
            accuracy,
            license,
            tags: tags.unwrap_or_default(),
            space,
            input: InputHints { shape: input, mean, std, scale, order },
            benchmark: options::benchmark(benchmark)?,
            limits,
            jobs: whole("jobs", jobs)?,
        };
        let report = interruptible(py, |observer| {
            self.database()?.ingest(exported.path(), &options, observer)
        })?;
        to_python(py, &report)
    }

    /// Fine-tunes a model on a dataset and stores the result as a new model.
    ///
    /// With `top=N` and `None` for the model, the query's first N answers within `max_params`, `max_macs` and
    /// `max_latency_ms` race for it, and the winner is kept. `tuning`: epochs, batch_size, learning_rate, optimizer (adamw
    /// or sgd), patience, seed, from_scratch, head_only, budget (seconds), and elastic=N, which trains the subnets of a
    /// supernet along with it, N random ones a step.
    #[pyo3(signature = (model, dataset, labels=None, *, top=None, max_params=None, max_macs=None, max_latency_ms=None, name=None, license=None, tags=None, benchmark="quick", output=None, per_class=None, train_share=None, split_seed=0, **tuning))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn finetune<'py>(
        &self,
        py: Python<'py>,
        model: Option<&str>,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        top: Option<i128>,
        max_params: Option<i128>,
        max_macs: Option<i128>,
        max_latency_ms: Option<f32>,
        name: Option<String>,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
        benchmark: &str,
        output: Option<PathBuf>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
        tuning: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = FinetuneOptions {
            tuning: options::tuning(tuning)?,
            name,
            license,
            tags: tags.unwrap_or_default(),
            benchmark: options::benchmark(benchmark)?,
            output: output.map(|path| text("output", path)).transpose()?.map(PathBuf::from),
            sample: sampling(per_class, train_share, split_seed)?,
        };
        let filter = costs(max_params, max_macs, max_latency_ms)?;
        if top.is_none() && filter != Filter::default() {
            return Err(InputError::new_err(
                "max_params, max_macs and max_latency_ms choose among answers: expected top=N with them, found none",
            ));
        }
        let count = whole_if("top", top)?;
        let source = self::dataset(dataset, labels)?;
        let report = interruptible(py, |observer| match (model, count) {
            (Some(model), None) => self.database()?.finetune(model, &source, &options, observer),
            (None, Some(count)) => {
                let top = TopOptions { count, filter };
                self.database()?.finetune_top(&source, &top, &options, observer)
            }
            (model, _) => {
                let found = if model.is_some() { "both" } else { "neither" };
                let message = format!("expected a model, or None and top=N, found {found}");
                Err(tans::Error::Input(message))
            }
        })?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Cuts a smaller network out of a stored supernet and stores it as a new model.
    ///
    /// Either `subnet` (such as "d2-k3-e4") or a bound, not both: the best of `candidates` subnets within `max_params` and `max_macs`.
    /// With a dataset, its batch-norm statistics are estimated on at most `images` of its images, and it is measured there.
    #[pyo3(signature = (model, dataset=None, labels=None, *, subnet=None, max_params=None, max_macs=None, candidates=16, images=256, sort=false, seed=0, name=None, license=None, tags=None, benchmark="quick", output=None, per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn cut<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        dataset: Option<&Bound<'py, PyAny>>,
        labels: Option<&Bound<'py, PyAny>>,
        subnet: Option<String>,
        max_params: Option<i128>,
        max_macs: Option<i128>,
        candidates: i128,
        images: i128,
        sort: bool,
        seed: i128,
        name: Option<String>,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
        benchmark: &str,
        output: Option<PathBuf>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let choice = match (subnet, max_params, max_macs) {
            (Some(code), None, None) => SubnetChoice::Code(code),
            (Some(code), ..) => {
                return Err(InputError::new_err(format!(
                    "subnet: expected it without max_params and max_macs, which choose one, found {code:?} beside them"
                )));
            }
            (None, ..) => SubnetChoice::Within {
                params: whole_if("max_params", max_params)?,
                macs: whole_if("max_macs", max_macs)?,
                candidates: whole("candidates", candidates)?,
            },
        };
        let calibrate = dataset.map(|dataset| self::dataset(dataset, labels)).transpose()?;
        let options = CutOptions {
            calibrate,
            images: whole("images", images)?,
            sort,
            seed: whole("seed", seed)?,
            name,
            license,
            tags: tags.unwrap_or_default(),
            benchmark: options::benchmark(benchmark)?,
            output: output.map(|path| text("output", path)).transpose()?.map(PathBuf::from),
            sample: sampling(per_class, train_share, split_seed)?,
        };
        let report =
            interruptible(py, |observer| self.database()?.cut(model, &choice, &options, observer))?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Trains networks of a generated space on datasets, each time the pair that promises most, and stores each.
    ///
    /// `datasets`: a list of paths or (images, labels). It ends after `budget` trainings, or begins none after `time`
    /// seconds where they are given. What the zoo holds already is not trained again.
    #[pyo3(signature = (datasets, *, space="small", budget=20, time=None, epochs=None, seed=0, random=false, license=None, tags=None, benchmark="quick", per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn grow<'py>(
        &self,
        py: Python<'py>,
        datasets: &Bound<'py, PyAny>,
        space: &str,
        budget: i128,
        time: Option<f64>,
        epochs: Option<i128>,
        seed: i128,
        random: bool,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
        benchmark: &str,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let sources = self::datasets(datasets)?;
        let time = time.map(|time| seconds("time", time)).transpose()?;
        let trainings = GrowBudget::Trainings(whole("budget", budget)?);
        let budget = time.map_or(trainings, GrowBudget::Time);
        let tuning = TuningOptions::default();
        let tuning = TuningOptions {
            epochs: whole_if("epochs", epochs)?.or(tuning.epochs),
            seed: whole("seed", seed)?,
            ..tuning
        };
        let options = GrowOptions {
            space: space.to_owned(),
            budget,
            random,
            tuning,
            license,
            tags: tags.unwrap_or_default(),
            benchmark: options::benchmark(benchmark)?,
            sample: sampling(per_class, train_share, split_seed)?,
        };
        let report =
            interruptible(py, |observer| self.database()?.grow(&sources, &options, observer))?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Measures a model (`None`: every stored one) on a dataset and records the results.
    ///
    /// `by`: "probe", a ridge probe, or "finetune", with the `tuning` that `finetune` takes. `missing`: of every stored
    /// model only those without such a result on this dataset.
    #[pyo3(signature = (model, dataset, labels=None, *, by="probe", missing=false, per_class=None, train_share=None, split_seed=0, **tuning))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn measure<'py>(
        &self,
        py: Python<'py>,
        model: Option<String>,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        by: &str,
        missing: bool,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
        tuning: Option<&Bound<'py, PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let by = match word("by", by, &[("probe", false), ("finetune", true)])? {
            true => MeasureBy::Finetune(options::tuning(tuning)?),
            false if tuning.is_none() => MeasureBy::Probe,
            false => {
                let message =
                    "by: expected \"finetune\" with options of a fine-tuning, found \"probe\"";
                return Err(InputError::new_err(message));
            }
        };
        let sample = sampling(per_class, train_share, split_seed)?;
        let options = MeasureOptions { by, sample, missing };
        let source = self::dataset(dataset, labels)?;
        let models: Vec<String> = model.into_iter().collect();
        let report = interruptible(py, |observer| {
            self.database()?.measure(&models, &source, &options, observer)
        })?;
        warnings::skipped(py, &report.skipped)?;
        warnings::unmeasured(py, &report.unmeasured)?;
        to_python(py, &report.measurements)
    }

    /// Learns new encoders and installs them if they are better; raises RefusedError if not, unless `force` installs
    /// them all the same. `recipe`: default, tans2021 or listwise, or auto for the better of default and listwise;
    /// `None` is auto for a zoo of 300 tasks or more and else default.
    #[pyo3(signature = (*, recipe=None, epochs=None, seed=0, force=false))]
    fn train<'py>(
        &self,
        py: Python<'py>,
        recipe: Option<&str>,
        epochs: Option<i128>,
        seed: i128,
        force: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (recipe, choice) = Choice::parse(recipe).map_err(raise)?;
        let default = FitOptions::default();
        let epochs = whole_if("epochs", epochs)?.unwrap_or(default.epochs);
        let fit = FitOptions { recipe, epochs, seed: whole("seed", seed)?, ..default };
        let options = TrainOptions { fit, choice, force };
        let report = interruptible(py, |observer| self.database()?.train(&options, observer))?;
        to_python(py, &report)
    }

    /// How good the first pick is on held-out tasks: one dictionary per method. `closed_form_only` leaves out the
    /// recipes that are trained anew for every fold, of which `listwise` takes part only where it is asked for; `cold`
    /// adds rows for networks of which nothing was measured. `scores` is a CSV file of what probes say (columns task,
    /// model, loo, logme), `judge` the kind of results that counts, `max_params` keeps larger
    /// models from being ranked, and `records` a CSV file of results that is judged
    /// instead of the zoo.
    #[pyo3(signature = (*, folds=None, closed_form_only=false, listwise=false, scores=None, records=None, judge=None, max_params=None, cold=true))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn evaluate<'py>(
        &self,
        py: Python<'py>,
        folds: Option<i128>,
        closed_form_only: bool,
        listwise: bool,
        scores: Option<PathBuf>,
        records: Option<PathBuf>,
        judge: Option<&str>,
        max_params: Option<i128>,
        cold: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let options = EvaluateOptions {
            folds: whole_if("folds", folds)?,
            judge: judge.map(kind).transpose()?,
            params_max: whole_if("max_params", max_params)?,
            closed_form_only,
            listwise,
            scores,
            records,
            cold,
            ..EvaluateOptions::default()
        };
        let evaluation =
            interruptible(py, |observer| self.database()?.evaluate(&options, observer))?;
        to_python(py, &evaluation.rows)
    }

    /// Measures what is missing, embeds every model again and builds the index anew.
    fn reindex<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &interruptible(py, |observer| self.database()?.reindex(observer))?)
    }

    /// Writes a dataset's feature rows into a file (.npz) that `query` takes instead of images.
    #[pyo3(signature = (output, dataset, labels=None, *, per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn encode<'py>(
        &self,
        py: Python<'py>,
        output: PathBuf,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = self::dataset(dataset, labels)?;
        let options = sampling(per_class, train_share, split_seed)?;
        let output = PathBuf::from(text("output", output)?);
        let report = interruptible(py, |observer| {
            self.database()?.encode(&source, &output, &options, observer)
        })?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Remembers a dataset as a task: feature rows, never images. Tasks of one `family` share images or sources.
    #[pyo3(signature = (name, dataset, labels=None, *, family=None, per_class=None, train_share=None, split_seed=0))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn add_task<'py>(
        &self,
        py: Python<'py>,
        name: &str,
        dataset: &Bound<'py, PyAny>,
        labels: Option<&Bound<'py, PyAny>>,
        family: Option<String>,
        per_class: Option<i128>,
        train_share: Option<f32>,
        split_seed: i128,
    ) -> PyResult<Bound<'py, PyAny>> {
        let source = self::dataset(dataset, labels)?;
        let sample = sampling(per_class, train_share, split_seed)?;
        let options = TaskOptions { family, sample, ..TaskOptions::default() };
        let report = interruptible(py, |observer| {
            self.database()?.add_task(name, &source, &options, observer)
        })?;
        warnings::skipped(py, &report.skipped)?;
        to_python(py, &report)
    }

    /// Forgets a task and the results on it.
    fn remove_task(&self, py: Python<'_>, name: &str) -> PyResult<()> {
        py.detach(|| self.database()?.remove_task(name)).map_err(raise)
    }

    /// Records a result that was made elsewhere; unknown names become references.
    fn record<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        task: &str,
        accuracy: f32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let recorded = py.detach(|| self.database()?.record(model, task, accuracy));
        to_python(py, &recorded.map_err(raise)?)
    }

    /// Records a CSV file with the columns model, dataset, accuracy and perhaps params.
    fn record_file<'py>(&self, py: Python<'py>, path: PathBuf) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &interruptible(py, |observer| self.database()?.record_file(&path, observer))?)
    }

    /// Changes a model's name, license or tags; an empty license or value removes it.
    #[pyo3(signature = (model, *, name=None, license=None, tags=None))]
    fn edit(
        &self,
        py: Python<'_>,
        model: &str,
        name: Option<String>,
        license: Option<String>,
        tags: Option<BTreeMap<String, String>>,
    ) -> PyResult<()> {
        let tags = tags.unwrap_or_default().into_iter().collect();
        let options = EditOptions { name, license, tags };
        py.detach(|| self.database()?.edit(model, &options)).map_err(raise)
    }

    /// Gives the disk back what no record names.
    fn gc<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &interruptible(py, |observer| self.database()?.gc(observer))?)
    }

    /// Copies the zoo into a folder of backups, while others read and write.
    fn backup<'py>(&self, py: Python<'py>, folder: PathBuf) -> PyResult<Bound<'py, PyAny>> {
        let folder = PathBuf::from(text("folder", folder)?);
        to_python(py, &interruptible(py, |observer| self.database()?.backup(&folder, observer))?)
    }

    /// The models that meet the conditions of `query`, one dictionary each. `sort`: added, name, params or macs.
    #[pyo3(signature = (*, max_params=None, max_macs=None, max_latency_ms=None, licenses=None, tags=None, runnable=false, sort="added"))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of Python")]
    fn list<'py>(
        &self,
        py: Python<'py>,
        max_params: Option<i128>,
        max_macs: Option<i128>,
        max_latency_ms: Option<f32>,
        licenses: Option<Vec<String>>,
        tags: Option<BTreeMap<String, String>>,
        runnable: bool,
        sort: &str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let filter = Filter {
            licenses: licenses.unwrap_or_default(),
            tags: tagged(tags),
            runnable,
            ..costs(max_params, max_macs, max_latency_ms)?
        };
        let options = ListOptions { filter, sort: sort.parse().map_err(raise)? };
        to_python(py, &py.detach(|| self.database()?.list(&options)).map_err(raise)?)
    }

    /// Everything that is known of one model.
    fn show<'py>(&self, py: Python<'py>, model: &str) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &py.detach(|| self.database()?.show(model)).map_err(raise)?)
    }

    /// A model's weights by name: read-only numpy arrays over the zoo's mapped files, nothing is copied. bfloat16, which
    /// numpy lacks, comes as its bits (uint16).
    fn weights<'py>(&self, py: Python<'py>, model: &str) -> PyResult<Bound<'py, PyDict>> {
        weight::arrays(py, py.detach(|| self.database()?.weights(model)).map_err(raise)?)
    }

    /// The tasks, one dictionary each.
    fn tasks<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &py.detach(|| self.database()?.tasks()).map_err(raise)?)
    }

    /// Removes models.
    fn remove(&self, py: Python<'_>, models: Vec<String>) -> PyResult<()> {
        py.detach(|| self.database()?.remove(&models)).map_err(raise)
    }

    /// Writes a model as ONNX or safetensors, by the suffix of `output`.
    fn export<'py>(
        &self,
        py: Python<'py>,
        model: &str,
        output: PathBuf,
    ) -> PyResult<Bound<'py, PyAny>> {
        let output = PathBuf::from(text("output", output)?);
        to_python(py, &py.detach(|| self.database()?.export(model, &output)).map_err(raise)?)
    }

    /// Counts and sizes.
    fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        to_python(py, &py.detach(|| self.database()?.stats()).map_err(raise)?)
    }

    /// Proves every checksum, reference and tensor hash; `fast` leaves out what reads whole tensors.
    #[pyo3(signature = (*, fast=false))]
    fn check<'py>(&self, py: Python<'py>, fast: bool) -> PyResult<Bound<'py, PyAny>> {
        let options = CheckOptions { fast };
        to_python(py, &py.detach(|| self.database()?.check(options)).map_err(raise)?)
    }
}

/// Options of a zoo; rows of images are cached where the command line caches them unless `cache_dir` says otherwise.
fn options(
    read_only: bool,
    cache_dir: Option<PathBuf>,
    device: &str,
    wait: f64,
) -> PyResult<OpenOptions> {
    let device: Device = device.parse().map_err(|error: GraphError| raise(error.into()))?;
    let wait = seconds("wait", wait)?;
    let cache_dir = cache_dir.or_else(|| tans::user_cache_dir(|name| std::env::var_os(name)));
    Ok(OpenOptions { read_only, cache_dir, device, wait, ..OpenOptions::default() })
}

/// Opens a zoo: mode "w" as its one writer, "r" for reading beside a writer.
///
/// `cache_dir`: where feature rows of images are kept (default: the command line's folder); `device`: auto, cpu or
/// cuda:N; `wait`: seconds to wait for another writer; `retrain_after`: learn new encoders in the background after so many
/// new results.
#[pyfunction]
#[pyo3(signature = (path, mode="w", *, cache_dir=None, device="auto", wait=0.0, retrain_after=None))]
fn open(
    py: Python<'_>,
    path: PathBuf,
    mode: &str,
    cache_dir: Option<PathBuf>,
    device: &str,
    wait: f64,
    retrain_after: Option<i128>,
) -> PyResult<Zoo> {
    let read_only = word("mode", mode, &[("r", true), ("w", false)])?;
    let retrain_after = whole_if("retrain_after", retrain_after)?;
    let options = OpenOptions { retrain_after, ..options(read_only, cache_dir, device, wait)? };
    let database = py.detach(|| Database::open(&path, options)).map_err(raise)?;
    Ok(Zoo::new(database))
}

/// Makes a zoo in a new or empty directory, from a starter bundle where one is given, and opens it as its writer.
#[pyfunction]
#[pyo3(signature = (path, *, starter=None, cache_dir=None, device="auto"))]
fn init(
    py: Python<'_>,
    path: PathBuf,
    starter: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    device: &str,
) -> PyResult<Zoo> {
    let options = options(false, cache_dir, device, 0.0)?;
    let starters = InitOptions { starters: starter.into_iter().collect() };
    let (database, _) = py.detach(|| Database::init(&path, &starters, options)).map_err(raise)?;
    Ok(Zoo::new(database))
}

/// Makes a zoo at `path` (new or empty) out of a backup, or of the newest one in a folder of them.
#[pyfunction]
fn restore(py: Python<'_>, backup: PathBuf, path: PathBuf) -> PyResult<Bound<'_, PyAny>> {
    let backup = PathBuf::from(text("backup", backup)?);
    let report = interruptible(py, |observer| Database::restore(&backup, &path, observer))?;
    to_python(py, &report)
}

/// An embedded model-zoo database: which stored network should I fine-tune on my dataset?
#[pymodule]
#[pyo3(name = "tans")]
fn binding(exports: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = exports.py();
    exports.add_class::<Zoo>()?;
    exports.add_function(wrap_pyfunction!(open, exports)?)?;
    exports.add_function(wrap_pyfunction!(init, exports)?)?;
    exports.add_function(wrap_pyfunction!(restore, exports)?)?;
    exports.add("TansError", py.get_type::<TansError>())?;
    exports.add("InputError", InputError::class(py)?)?;
    exports.add("RefusedError", py.get_type::<RefusedError>())?;
    exports.add("CancelledError", py.get_type::<CancelledError>())?;
    exports.add("ZooError", py.get_type::<ZooError>())?;
    exports.add("LockedError", py.get_type::<LockedError>())?;
    exports.add("DamagedError", py.get_type::<DamagedError>())?;
    Ok(())
}
