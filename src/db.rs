//! The handle on a zoo: one method per operation.

use crate::ops::{
    backup, check, edit, evaluate, explain, export, gc, init, list, merge, open, query, record,
    reindex, remove, restore, show, stats, task, train, weights,
};
#[cfg(feature = "torch")]
use crate::ops::{cut, encode, finetune, grow, ingest, measure};
use crate::state::State;
use crate::upkeep::Upkeep;
use crate::{DatasetSource, MappedTensor, Observer, OpenOptions, Result};
#[cfg(feature = "torch")]
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A zoo, open in this process. Cheap to clone; every method takes `&self` and may be called from any thread.
///
/// # Examples
/// ```no_run
/// use tans::{Database, DatasetSource, OpenOptions, QueryOptions, unobserved};
///
/// let zoo = Database::open("zoo".as_ref(), OpenOptions::default())?;
/// let dataset = DatasetSource::parse("photos/");
/// let answer = zoo.query(&dataset, &QueryOptions::default(), &mut unobserved)?;
/// for hit in answer.hits {
///     println!("{} {} {:.3}", hit.rank, hit.model, hit.predicted_accuracy);
/// }
/// # Ok::<(), tans::Error>(())
/// ```
#[derive(Clone)]
pub struct Database {
    // Before the state, so that its thread has let go of the zoo when the last handle is dropped.
    upkeep: Arc<Upkeep>,
    state: Arc<State>,
}

impl Database {
    fn new(state: State) -> Self {
        let state = Arc::new(state);
        open::prove(&state);
        Self { upkeep: Arc::default(), state }
    }

    /// Makes a zoo in a new or empty directory and opens it for writing.
    ///
    /// # Errors
    /// If something is at `path`, or the starter bundle is not one; nothing is left behind then.
    pub fn init(
        path: &Path,
        options: &init::InitOptions,
        open: OpenOptions,
    ) -> Result<(Self, init::InitReport)> {
        let (state, report) = init::run(path, options, open)?;
        Ok((Self::new(state), report))
    }

    /// Opens a zoo. Damaged encoders are learned again with the default recipe: for writing they are installed, read-only
    /// they stay in memory.
    ///
    /// # Errors
    /// If `path` is not a zoo, is of a newer format, or (unless `read_only`) is open for writing elsewhere.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self> {
        Ok(Self::new(open::run(path, options)?))
    }

    /// Which stored networks should be fine-tuned on this dataset?
    ///
    /// # Errors
    /// For k = 0, a dataset that cannot be used, or rows of another backbone.
    pub fn query(
        &self,
        source: &DatasetSource,
        options: &query::QueryOptions,
        observer: Observer<'_>,
    ) -> Result<query::QueryReport> {
        query::run(&self.state, source, options, observer)
    }

    /// Why a model stands where it does in the answer for a dataset: score, similar tasks, cost; what was measured and
    /// what is estimated.
    ///
    /// # Errors
    /// If no model has that name, or the dataset cannot be used.
    pub fn explain(
        &self,
        source: &DatasetSource,
        model: &str,
        options: &explain::ExplainOptions,
        observer: Observer<'_>,
    ) -> Result<explain::ExplainReport> {
        explain::run(&self.state, source, model, options, observer)
    }

    /// Takes a network file, a folder of them, a manifest (`.jsonl`) or a generated network into the zoo.
    ///
    /// # Errors
    /// For a single network, why it was refused; of several, each refusal is a line of the report.
    #[cfg(feature = "torch")]
    pub fn ingest(
        &self,
        source: &str,
        options: &ingest::IngestOptions,
        observer: Observer<'_>,
    ) -> Result<Vec<ingest::Ingested>> {
        let mut all = Vec::new();
        let mut keep = |ingested| {
            all.push(ingested);
            ControlFlow::Continue(())
        };
        self.ingest_each(source, options, &mut keep, observer)?;
        Ok(all)
    }

    /// As `ingest`, but `report` is called with each network as soon as it is stored or refused.
    ///
    /// # Errors
    /// As `ingest`; `Error::Cancelled` after `report` asked to stop.
    #[cfg(feature = "torch")]
    pub fn ingest_each(
        &self,
        source: &str,
        options: &ingest::IngestOptions,
        report: ingest::Reporter<'_>,
        observer: Observer<'_>,
    ) -> Result<()> {
        let mut report = |ingested| {
            self.upkeep.start_if_due(&self.state);
            report(ingested)
        };
        self.kept_up(ingest::run(&self.state, source, options, &mut report, observer))
    }

    /// Remembers a dataset as a task: feature rows, never images. A reference of that name is replaced by it.
    ///
    /// # Errors
    /// For a dataset that cannot be used, a name that another dataset has, or another family than the stored one.
    #[cfg(feature = "torch")]
    pub fn add_task(
        &self,
        name: &str,
        source: &DatasetSource,
        options: &task::TaskOptions,
        observer: Observer<'_>,
    ) -> Result<task::AddedTask> {
        task::add(&self.state, name, source, options, observer)
    }

    /// All tasks by name.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn tasks(&self) -> Result<Vec<task::TaskSummary>> {
        task::list(&self.state)
    }

    /// Forgets a task and the results on it.
    ///
    /// # Errors
    /// If no task has that name.
    pub fn remove_task(&self, name: &str) -> Result<()> {
        task::remove(&self.state, name)
    }

    /// Records a result that was made elsewhere; unknown names become references.
    ///
    /// # Errors
    /// For an accuracy outside 0..=1.
    pub fn record(&self, model: &str, task: &str, accuracy: f32) -> Result<record::RecordReport> {
        self.kept_up(record::one(&self.state, model, task, accuracy))
    }

    /// Records a CSV file of results (columns `model`, `dataset`, `accuracy`); all of it is checked first.
    ///
    /// # Errors
    /// Names the line that is wrong; nothing is recorded then.
    pub fn record_file(&self, path: &Path, observer: Observer<'_>) -> Result<record::RecordReport> {
        self.kept_up(record::file(&self.state, path, observer))
    }

    /// Changes a model's name, license or tags.
    ///
    /// # Errors
    /// If there is no such model, or the new name is taken.
    pub fn edit(&self, model: &str, options: &edit::EditOptions) -> Result<()> {
        self.kept_up(edit::run(&self.state, model, options))
    }

    /// Writes a dataset's feature rows into a file that `query` takes instead of images.
    ///
    /// # Errors
    /// For a dataset that cannot be used or a file that cannot be written.
    #[cfg(feature = "torch")]
    pub fn encode(
        &self,
        source: &DatasetSource,
        output: &Path,
        options: &crate::SampleOptions,
        observer: Observer<'_>,
    ) -> Result<encode::EncodeReport> {
        encode::run(&self.state, source, output, options, observer)
    }

    /// Learns new encoders and installs them if they are better on held-out tasks.
    ///
    /// # Errors
    /// `Error::Refused` if they are not, with the difference.
    pub fn train(
        &self,
        options: &train::TrainOptions,
        observer: Observer<'_>,
    ) -> Result<train::TrainReport> {
        train::run(&self.state, options, observer)
    }

    /// Measures signatures and latencies that are missing, embeds every model again with the running encoders and builds
    /// the segment anew.
    ///
    /// # Errors
    /// If the store or a network fails; `Error::Cancelled`.
    pub fn reindex(&self, observer: Observer<'_>) -> Result<reindex::ReindexReport> {
        reindex::run(&self.state, observer)
    }

    /// Moves fresh vectors into the index's segment if there are many; `None` if there are not. Writes start this by
    /// themselves in a thread that the last handle's end stops; call it to wait for the outcome, as after a bulk ingest.
    ///
    /// # Errors
    /// If the segment cannot be written; `Error::Cancelled`. The vectors stay where they were then.
    pub fn merge(&self, observer: Observer<'_>) -> Result<Option<merge::MergeReport>> {
        merge::run(&self.state, observer)
    }

    /// Fine-tunes a model (or a generated network, `SPACE:CONFIG`) and stores the result as a new model.
    ///
    /// # Errors
    /// For a model that cannot be run, a dataset that cannot be used, or a name that is taken.
    #[cfg(feature = "torch")]
    pub fn finetune(
        &self,
        model: &str,
        source: &DatasetSource,
        options: &finetune::FinetuneOptions,
        observer: Observer<'_>,
    ) -> Result<finetune::FinetuneReport> {
        self.kept_up(finetune::run(&self.state, model, source, options, observer))
    }

    /// Fine-tunes the best answers to the query for a dataset against each other (successive halving) and stores the
    /// winner as `finetune` does.
    ///
    /// # Errors
    /// As `finetune`, and if no answer can be fine-tuned.
    #[cfg(feature = "torch")]
    pub fn finetune_top(
        &self,
        source: &DatasetSource,
        top: &finetune::TopOptions,
        options: &finetune::FinetuneOptions,
        observer: Observer<'_>,
    ) -> Result<finetune::FinetuneReport> {
        self.kept_up(finetune::top(&self.state, source, top, options, observer))
    }

    /// Cuts a smaller network out of a stored supernet (Once-for-all, Cai et al. 2020), estimates its batch-norm statistics
    /// where a dataset is given, and stores it as a new model whose parent is the supernet.
    ///
    /// # Errors
    /// For a model that is no supernet, a subnet that its space does not have, a bound that its smallest subnet does not
    /// keep, a dataset that cannot be used, or a name that is taken.
    #[cfg(feature = "torch")]
    pub fn cut(
        &self,
        model: &str,
        choice: &crate::SubnetChoice,
        options: &cut::CutOptions,
        observer: Observer<'_>,
    ) -> Result<cut::CutReport> {
        self.kept_up(cut::run(&self.state, model, choice, options, observer))
    }

    /// Trains networks of a generated space on datasets from random weights, each time the pair that promises most for the
    /// best accuracy within every number of parameters, and stores each with its result.
    ///
    /// # Errors
    /// For an unknown space, a dataset without readable images, a budget of 0, or when nothing is left to train.
    /// `Error::Cancelled` keeps what was stored; the same call goes on from there.
    #[cfg(feature = "torch")]
    pub fn grow(
        &self,
        sources: &[DatasetSource],
        options: &grow::GrowOptions,
        observer: Observer<'_>,
    ) -> Result<grow::GrowReport> {
        let mut keep = |_: &grow::GrowTraining| ControlFlow::Continue(());
        self.grow_each(sources, options, &mut keep, observer)
    }

    /// As `grow`, but `report` is called with each training as soon as its model is stored.
    ///
    /// # Errors
    /// As `grow`; `Error::Cancelled` after `report` asked to stop.
    #[cfg(feature = "torch")]
    pub fn grow_each(
        &self,
        sources: &[DatasetSource],
        options: &grow::GrowOptions,
        report: grow::GrowReporter<'_>,
        observer: Observer<'_>,
    ) -> Result<grow::GrowReport> {
        let mut report = |training: &grow::GrowTraining| {
            self.upkeep.start_if_due(&self.state);
            report(training)
        };
        self.kept_up(grow::run(&self.state, sources, options, &mut report, observer))
    }

    /// Measures the named models (all stored ones when `models` is empty) on a dataset and records the results.
    ///
    /// # Errors
    /// When no model of one or more can be run; a dataset that cannot be used.
    #[cfg(feature = "torch")]
    pub fn measure(
        &self,
        models: &[String],
        source: &DatasetSource,
        options: &measure::MeasureOptions,
        observer: Observer<'_>,
    ) -> Result<measure::MeasureReport> {
        self.kept_up(measure::run(&self.state, models, source, options, observer))
    }

    /// How good the first pick is on tasks that nothing was learned from.
    ///
    /// # Errors
    /// If too few tasks have measured models.
    pub fn evaluate(
        &self,
        options: &evaluate::EvaluateOptions,
        observer: Observer<'_>,
    ) -> Result<crate::train::evaluate::Evaluation> {
        evaluate::run(&self.state, options, observer)
    }

    /// The models that match a filter.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn list(&self, options: &list::ListOptions) -> Result<Vec<crate::ModelSummary>> {
        list::run(&self.state, options)
    }

    /// Everything that is known of one model.
    ///
    /// # Errors
    /// If no model has that name.
    pub fn show(&self, model: &str) -> Result<show::ShowReport> {
        show::run(&self.state, model)
    }

    /// A model's named weights, each a read-only slice of a mapped file that implements `safetensors::View`: nothing is
    /// copied, and a slice stays readable after the model is removed, for as long as it is held.
    ///
    /// # Errors
    /// If no model has that name, it is a reference, or a weight is damaged.
    pub fn weights(&self, model: &str) -> Result<Vec<(String, MappedTensor)>> {
        weights::run(&self.state, model)
    }

    /// Removes all of the named models, or none if one of them is not there.
    ///
    /// # Errors
    /// If one of the names is unknown.
    pub fn remove(&self, models: &[String]) -> Result<()> {
        self.kept_up(remove::run(&self.state, models))
    }

    /// For each of the named models, the names of those that were fine-tuned from it and are not named themselves: they
    /// outlive its removal without a parent. Reads every record.
    ///
    /// # Errors
    /// If one of the names is unknown.
    pub fn children(&self, models: &[String]) -> Result<Vec<Vec<String>>> {
        self.state.refresh()?;
        remove::children(&self.state, models)
    }

    /// Writes a model as ONNX or safetensors, by the suffix of `output`.
    ///
    /// # Errors
    /// For a reference model, or a file that cannot be written.
    pub fn export(&self, model: &str, output: &Path) -> Result<export::ExportReport> {
        export::model(&self.state, model, output)
    }

    /// Writes the whole zoo as a starter bundle for `init`; float weights become f16, or are left out.
    ///
    /// # Errors
    /// If the store cannot be read or the file cannot be written.
    pub fn export_starter(
        &self,
        output: &Path,
        options: export::StarterOptions,
    ) -> Result<export::ExportReport> {
        export::starter(&self.state, output, options)
    }

    /// Proves every checksum, reference and tensor hash, or as much of it as the options ask for.
    ///
    /// # Errors
    /// Only if the check itself cannot run; damage is in the report.
    pub fn check(&self, options: check::CheckOptions) -> Result<check::CheckReport> {
        self.state.refresh()?;
        check::run(&self.state.store, options)
    }

    /// The same for a zoo that may be too damaged to be opened: nothing but its records is needed.
    ///
    /// # Errors
    /// If `path` is not a zoo, is of a newer format, or its records cannot be reached at all.
    pub fn check_at(path: &Path, options: check::CheckOptions) -> Result<check::CheckReport> {
        check::at(path, options)
    }

    /// Counts and sizes.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stats(&self) -> Result<stats::StatsReport> {
        stats::run(&self.state)
    }

    /// Gives the disk back what no record names, while others read and write.
    ///
    /// # Errors
    /// If the zoo is open for reading only, or the store fails; what was done stays done.
    pub fn gc(&self, observer: Observer<'_>) -> Result<gc::GcReport> {
        gc::run(&self.state, observer)
    }

    /// Copies the zoo as it is now into a folder of backups, while others read and write. What is unchanged since the
    /// backup before becomes a hard link to it.
    ///
    /// # Errors
    /// If the zoo is open for reading only, something else is at `folder`, or a file cannot be written.
    pub fn backup(&self, folder: &Path, observer: Observer<'_>) -> Result<backup::BackupReport> {
        backup::run(&self.state, folder, observer)
    }

    /// Makes a zoo at `zoo` (new or empty) out of a backup, or of the newest one in a folder of them.
    ///
    /// # Errors
    /// If there is no backup, a file of it is not as it was written, or something is at `zoo`; nothing is left then.
    pub fn restore(
        from: &Path,
        zoo: &Path,
        observer: Observer<'_>,
    ) -> Result<restore::RestoreReport> {
        restore::run(from, zoo, observer)
    }

    fn kept_up<T>(&self, written: T) -> T {
        self.upkeep.start_if_due(&self.state);
        written
    }
}
